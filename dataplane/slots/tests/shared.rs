//! Slots between real threads, and what a scan counts.
#![cfg(not(loom))]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ionian_slots::{Collected, SLOTS_MAX, SlotReport, SlotTable, SlotsError};
use ionian_types::{EntryNo, Inc, ViewId};

fn report(seq: u64, lens: &[u64]) -> SlotReport<'_> {
    SlotReport {
        epoch: ViewId::new(seq ^ 1),
        inc: Inc::new(seq ^ 2),
        seq,
        applied: EntryNo::new(seq ^ 3),
        lens,
    }
}

/// Lengths of which each tells the sequence number and its own place.
fn lens_of(seq: u64) -> [u64; 7] {
    std::array::from_fn(|at| {
        seq.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(at as u32)
    })
}

fn scan(reader: &mut ionian_slots::SlotReader, slots: usize) -> (Vec<(usize, u64)>, Collected) {
    let mut seen = Vec::new();
    let found = reader.collect(0..slots, |slot, report| seen.push((slot, report.seq)));
    (seen, found)
}

fn counts(read: u64, overwritten: u64) -> Collected {
    Collected {
        read,
        overwritten,
        busy: 0,
    }
}

/// For slots of one line and of two: a writer that never waits, beside a reader that never waits.
#[test]
fn beside_a_writer_every_report_is_read_whole_or_counted_as_overwritten() {
    const REPORTS: u64 = 200_000;
    const SLOTS: usize = 3;
    for replicas in [1, 3, 4, 7] {
        let table = SlotTable::new(SLOTS, replicas).unwrap();
        let mut writers: Vec<_> = (0..SLOTS).map(|slot| table.writer(slot).unwrap()).collect();
        let mut reader = table.reader();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for seq in 1..=REPORTS {
                    let lens = lens_of(seq);
                    for writer in &mut writers {
                        writer.write(&report(seq, &lens[..replicas])).unwrap();
                    }
                }
                done.store(true, Ordering::Release);
            });
            let mut last = [0; SLOTS];
            let mut all = Collected::default();
            loop {
                let ended = done.load(Ordering::Acquire);
                let found = reader.collect(0..SLOTS, |slot, seen| {
                    let lens = lens_of(seen.seq);
                    assert_eq!(*seen, report(seen.seq, &lens[..replicas]), "torn");
                    assert!(seen.seq > last[slot], "handed out twice");
                    last[slot] = seen.seq;
                });
                all.read += found.read;
                all.overwritten += found.overwritten;
                if ended {
                    assert_eq!(found.busy, 0, "nobody writes any more");
                    break;
                }
            }
            assert_eq!(last, [REPORTS; SLOTS]);
            assert_eq!(all.read + all.overwritten, REPORTS * SLOTS as u64);
        });
    }
}

#[test]
fn a_scan_reads_what_changed_and_counts_what_was_written_over() {
    // More slots than one batch has, so that numbers are those of the table.
    let table = SlotTable::new(200, 2).unwrap();
    let mut reader = table.reader();
    assert_eq!(scan(&mut reader, 200), (vec![], counts(0, 0)));
    let mut writers: Vec<_> = [3, 64, 199].map(|slot| table.writer(slot).unwrap()).into();
    for writer in &mut writers {
        writer.write(&report(1, &[5, 6])).unwrap();
    }
    let seen = vec![(3, 1), (64, 1), (199, 1)];
    assert_eq!(scan(&mut reader, 200), (seen, counts(3, 0)));
    assert_eq!(scan(&mut reader, 200), (vec![], counts(0, 0)));
    for seq in 2..=5 {
        writers[1].write(&report(seq, &[seq, seq])).unwrap();
    }
    assert_eq!(scan(&mut reader, 200), (vec![(64, 5)], counts(1, 3)));
    assert_eq!(
        scan(&mut table.reader(), 200).1,
        counts(3, 4),
        "another one's own memory"
    );
}

#[test]
fn a_scan_of_a_range_leaves_the_rest_for_another() {
    let table = SlotTable::new(100, 3).unwrap();
    let mut reader = table.reader();
    for slot in 0..100 {
        table
            .writer(slot)
            .unwrap()
            .write(&report(1, &[1, 2, 3]))
            .unwrap();
    }
    let mut seen = Vec::new();
    let found = reader.collect(40..43, |slot, report| {
        seen.push((slot, report.lens.to_vec()))
    });
    assert_eq!(found, counts(3, 0));
    assert_eq!(seen, [40, 41, 42].map(|slot| (slot, vec![1, 2, 3])));
    let mut count = |range| reader.collect(range, |_, _| {}).read;
    assert_eq!(count(0..usize::MAX), 97);
    assert_eq!(count(100..200), 0);
    #[expect(clippy::reversed_empty_ranges, reason = "it must not panic")]
    let reversed = count(50..40);
    assert_eq!(reversed, 0);
}

#[test]
fn what_is_forgotten_is_read_again_and_not_counted_as_missed() {
    let table = SlotTable::new(3, 1).unwrap();
    let mut writer = table.writer(1).unwrap();
    let mut reader = table.reader();
    for seq in 1..=2 {
        writer.write(&report(seq, &[seq])).unwrap();
    }
    assert_eq!(scan(&mut reader, 3).1, counts(1, 1));
    reader.forget_all();
    reader.forget(7);
    assert_eq!(
        scan(&mut reader, 3),
        (vec![(1, 2)], counts(1, 0)),
        "not those never written"
    );
    reader.forget(1);
    writer.write(&report(3, &[3])).unwrap();
    writer.write(&report(4, &[4])).unwrap();
    assert_eq!(scan(&mut reader, 3), (vec![(1, 4)], counts(1, 1)));
    assert_eq!(scan(&mut reader, 3), (vec![], counts(0, 0)));
}

#[test]
fn a_slot_has_one_writer_and_the_next_one_goes_on() {
    let table = SlotTable::new(1, 1).unwrap();
    let mut reader = table.reader();
    let mut first = table.writer(0).unwrap();
    assert_eq!(first.slot(), 0);
    assert!(table.writer(0).is_none(), "taken");
    assert!(table.writer(1).is_none(), "no such slot");
    first.write(&report(9, &[1])).unwrap();
    drop(first);
    // Another life begins its numbers again; the slot's versions go on.
    table.writer(0).unwrap().write(&report(1, &[2])).unwrap();
    assert_eq!(scan(&mut reader, 1), (vec![(0, 1)], counts(1, 1)));
}

#[test]
fn what_does_not_fit_is_refused_with_a_sentence() {
    assert_eq!(
        SlotTable::new(1, 0).unwrap_err(),
        SlotsError::Replicas { given: 0 }
    );
    assert_eq!(
        SlotTable::new(1, 8).unwrap_err(),
        SlotsError::Replicas { given: 8 }
    );
    let given = SLOTS_MAX + 1;
    assert_eq!(
        SlotTable::new(given, 2).unwrap_err(),
        SlotsError::Slots { given }
    );
    let table = SlotTable::new(1, 2).unwrap();
    let mut writer = table.writer(0).unwrap();
    for lens in [&[1][..], &[1, 2, 3]] {
        let error = writer.write(&report(1, lens)).unwrap_err();
        assert!(error.to_string().contains("2 segments: drop it"), "{error}");
    }
    assert_eq!(
        scan(&mut table.reader(), 1),
        (vec![], counts(0, 0)),
        "no effect"
    );
}
