//! Every interleaving of a writer and a reader of one slot, by loom's model checker.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p ionian-slots --test loom --release`.
#![cfg(loom)]

use ionian_slots::{DownRings, SeqLock, SlotReport, SlotTable};
use ionian_types::{EntryNo, Inc, ViewId};
use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;

/// What is read was written as a whole, under the version that it was written with.
#[test]
fn a_torn_copy_is_never_taken() {
    loom::model(|| {
        let lock = Arc::new(SeqLock::<2>::default());
        let far = lock.clone();
        let writer = thread::spawn(move || {
            let version = far.write(0, [], &[1, 1]);
            assert_eq!(far.write(version, [2], &[2]), 4);
        });
        if let Some((version, words)) = lock.read() {
            assert_eq!(words, [version / 2; 2]);
        }
        writer.join().unwrap();
        assert_eq!(lock.read(), Some((4, [2, 2])));
    });
}

/// A scan hands out whole reports only, each once, and what it leaves behind is found by the next.
#[test]
fn a_scan_beside_a_writer_hands_out_each_report_at_most_once() {
    // Three switches of threads at places of loom's choice: a copy of a whole slot has too many places for all of them.
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let table = SlotTable::new(1, 1).unwrap();
        let mut writer = table.writer(0).unwrap();
        let mut reader = table.reader();
        let handle = thread::spawn(move || {
            for seq in 1..=2 {
                writer.write(&report(seq, &[seq])).unwrap();
            }
        });
        let (mut read, mut overwritten, mut last) = (0, 0, 0);
        let mut scan = || {
            let found = reader.collect(0..1, |slot, seen| {
                assert_eq!((slot, *seen), (0, report(seen.seq, &[seen.seq])));
                assert!(seen.seq > last, "handed out twice");
                last = seen.seq;
            });
            read += found.read;
            overwritten += found.overwritten;
            found.busy
        };
        scan();
        handle.join().unwrap();
        assert_eq!(scan(), 0, "nobody writes any more");
        assert_eq!((last, read + overwritten), (2, 2));
    });
}

/// What comes out of a ring was put into it, whole and in order, and what does not come is counted as missed.
#[test]
fn a_ring_that_is_written_over_hands_out_whole_frames_and_counts_the_others() {
    // Two switches of threads: a cell has twice as many places for one as a slot.
    let mut builder = Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let rings = DownRings::new(1, 1, 1).unwrap();
        let mut writer = rings.writer().unwrap();
        let mut reader = rings.reader(0).unwrap();
        let handle = thread::spawn(move || {
            for number in 1..=2u8 {
                assert!(writer.put(0, &[number; 9]));
            }
        });
        let (mut handed, mut lost, mut last) = (0, 0, 0);
        let mut receive = || {
            let received = reader.receive(|frame| {
                assert_eq!(frame, [frame[0]; 9]);
                assert!(frame[0] > last, "not in order");
                last = frame[0];
            });
            handed += received.frames;
            lost += received.lost;
        };
        receive();
        handle.join().unwrap();
        receive();
        assert_eq!((last, handed + lost), (2, 2));
    });
}

fn report(seq: u64, lens: &[u64]) -> SlotReport<'_> {
    SlotReport {
        epoch: ViewId::new(seq),
        inc: Inc::new(seq),
        seq,
        applied: EntryNo::new(seq),
        lens,
    }
}
