//! Rings of frames from a leaf to servers: what comes is whole and in order, what is missed is counted, and nobody waits.
#![cfg(not(loom))]

use ionian_slots::{DownRings, Received, SlotsError};

fn frame(number: u64, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (number as usize * 31 + at) as u8)
        .collect()
}

#[test]
fn frames_come_whole_and_in_order() {
    for (replicas, most) in [(1, 112), (3, 112), (4, 176), (7, 176)] {
        let rings = DownRings::new(3, replicas, 8).unwrap();
        let mut writer = rings.writer().unwrap();
        let mut readers = [0, 1, 2].map(|server| rings.reader(server).unwrap());
        for (number, len) in (0..=most).enumerate() {
            let number = number as u64;
            let server = len % 3;
            assert!(writer.put(server, &frame(number, len)));
            let mut seen = Vec::new();
            let received = readers[server].receive(|bytes| seen.push(bytes.to_vec()));
            assert_eq!((received.frames, received.lost), (1, 0));
            assert_eq!(seen, [frame(number, len)]);
        }
        for reader in &mut readers {
            assert_eq!(reader.receive(|_| ()), Received::default());
        }
        assert!(!writer.put(0, &frame(0, most + 1)), "too long");
        assert!(!writer.put(3, &[]), "no such server");
        assert!(rings.writer().is_none() && rings.reader(3).is_none());
    }
}

#[test]
fn a_run_of_servers_gets_the_same_frame() {
    for (replicas, most) in [(2, 112), (7, 176)] {
        let rings = DownRings::new(4, replicas, 2).unwrap();
        let mut writer = rings.writer().unwrap();
        let mut readers = [0, 1, 2, 3].map(|server| rings.reader(server).unwrap());
        for len in 0..=most {
            let bytes = frame(len as u64, len);
            // What stands beyond the frame is not handed over; there may be no more words than it has, or many.
            let padding = [0xa5; 8 * 24];
            let padded = [&bytes[..], &padding].concat();
            let words: Vec<u64> = padded
                .chunks_exact(8)
                .map(|it| u64::from_le_bytes(it.try_into().unwrap()))
                .collect();
            let exact = &words[..len.div_ceil(8)];
            assert_eq!(writer.put_run(0, 2, len, exact), 0);
            assert_eq!(writer.put_run(2, 3, len, &words), 1, "there is no fifth");
            for reader in &mut readers {
                assert!(reader.has_news());
                let mut seen = Vec::new();
                reader.receive(|bytes| seen.push(bytes.to_vec()));
                assert_eq!(seen, [&bytes[..]]);
                assert!(!reader.has_news());
            }
        }
        assert_eq!(writer.put_run(0, 2, most + 1, &[0; 64]), 2, "too long");
        assert_eq!(writer.put_run(0, 2, 9, &[0; 1]), 2, "words are missing");
        assert!(!readers[0].has_news());
    }
}

#[test]
fn what_a_slow_server_misses_is_counted() {
    for depth in [1, 2, 5, 8] {
        let rings = DownRings::new(1, 2, depth).unwrap();
        let (mut writer, mut reader) = (rings.writer().unwrap(), rings.reader(0).unwrap());
        let mut state = 7u64;
        let (mut written, mut next, mut handed, mut lost) = (0u64, 0u64, 0u64, 0u64);
        let mut look = |written: u64| {
            let received = reader.receive(|bytes| {
                let number = u64::from_le_bytes(bytes.try_into().unwrap());
                assert!((next..written).contains(&number), "{number} after {next}");
                next = number + 1;
            });
            handed += received.frames;
            lost += received.lost;
            assert_eq!(handed + lost, next, "each was handed over or missed");
            received
        };
        for _ in 0..2_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            for _ in 0..state >> 60 {
                assert!(writer.put(0, &written.to_le_bytes()));
                written += 1;
            }
            look(written);
        }
        while look(written) != Received::default() {}
        assert_eq!(next, written);
        // Whatever is still there is not missed.
        assert!(
            handed >= 2_000 * 7 * depth as u64 / 8 / 2,
            "{handed} of {written}"
        );
        assert!(lost > 0, "depth {depth}");
    }
}

/// One core writes as fast as it can, another reads: every frame is whole.
#[test]
fn frames_are_whole_under_load() {
    let rings = DownRings::new(1, 3, 4).unwrap();
    let (mut writer, mut reader) = (rings.writer().unwrap(), rings.reader(0).unwrap());
    const FRAMES: u64 = 200_000;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..FRAMES {
                assert!(writer.put(0, &number.to_le_bytes().repeat(14)));
            }
        });
        let mut next = 0;
        while next < FRAMES {
            reader.receive(|bytes| {
                let (words, rest) = bytes.as_chunks::<8>();
                let number = u64::from_le_bytes(words[0]);
                assert!(rest.is_empty() && words.len() == 14 && number >= next);
                assert!(words.iter().all(|word| *word == words[0]), "torn");
                next = number + 1;
            });
            std::thread::yield_now();
        }
    });
}

#[test]
fn sizes_out_of_range_are_refused() {
    for (servers, depth) in [(1, 0), (1, 1 << 11), (1 << 20, 2), (usize::MAX, 2)] {
        let refused = DownRings::new(servers, 2, depth).map(drop);
        assert_eq!(refused, Err(SlotsError::Rings { servers, depth }));
    }
}
