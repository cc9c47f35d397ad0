//! Once it is warm, a cut allocates nothing: reports, rounds, entries, backups, bases and what servers read.

use ionian_bench_cuts::{Setting, Stepped};
use ionian_driver_api::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn a_cut_allocates_nothing() {
    let setting = Setting {
        shards: 40,
        ..Setting::default()
    };
    let mut world = Stepped::new(&setting).unwrap();
    for _ in 0..500 {
        world.step().unwrap();
    }
    let (before, cuts) = (CountingAllocator::thread_count(), world.cuts());
    assert!(before > 0, "the counting allocator is in use");
    for _ in 0..200 {
        world.step().unwrap();
    }
    let allocations = CountingAllocator::thread_count() - before;
    assert_eq!((allocations, world.cuts() - cuts), (0, 200));
}
