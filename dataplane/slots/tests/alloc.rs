//! Nothing is allocated once the tables are made.
#![cfg(not(loom))]

use ionian_driver_api::CountingAllocator;
use ionian_slots::{Isa, SlotReport, SlotTable, Table};
use ionian_types::{EntryNo, Inc, ViewId};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn reports_merges_and_rounds_allocate_nothing() {
    const SHARDS: usize = 300;
    for isa in Isa::available() {
        for (replicas, quorum) in [(2, 2), (3, 2), (7, 4)] {
            let slots = SlotTable::new(SHARDS * replicas, replicas).unwrap();
            let writers = (0..slots.slots()).map(|slot| slots.writer(slot).unwrap());
            let mut writers: Vec<_> = writers.collect();
            let mut reader = slots.reader();
            let mut table = Table::with_isa(SHARDS, replicas, quorum, isa).unwrap();
            table.exclude(5);
            let before = CountingAllocator::thread_count();
            assert!(before > 0, "the counting allocator is in use");
            let mut changes = 0;
            for seq in 1..=100 {
                let lens = [seq; 7];
                for writer in &mut writers {
                    let report = SlotReport {
                        epoch: ViewId::new(1),
                        inc: Inc::new(1),
                        seq,
                        applied: EntryNo::new(seq),
                        lens: &lens[..replicas],
                    };
                    writer.write(&report).unwrap();
                }
                reader.collect(0..SHARDS * replicas, |slot, report| {
                    table.advance(slot / replicas, slot % replicas, report.lens);
                });
                table.raise(5, 0, seq);
                table.merge();
                table.for_each_changed(|_, _, _, _| changes += 1);
            }
            let allocations = CountingAllocator::thread_count() - before;
            assert_eq!(allocations, 0);
            assert_eq!(changes, 100 * ((SHARDS - 1) * replicas + 1));
        }
    }
}
