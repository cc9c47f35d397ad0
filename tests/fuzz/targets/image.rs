//! The applied state of a replica, as a peer hands it over or a checkpoint holds it.
//!
//! Holds: no input panics; of one that counts as sound every question can be asked, and the answers lie in order.
#![no_main]

use ionian_core::replica::Image;
use ionian_types::{Gsn, LogId, Lsn, ShardId, Slot};
use libfuzzer_sys::fuzz_target;

const REPLICAS: u8 = 2;
/// Answers looked at per input.
const RUNS_MAX: usize = 1000;

fuzz_target!(|data: &[u8]| {
    let Ok(image) = Image::read(data, REPLICAS, 1) else {
        return;
    };
    if !image.is_sound(LogId::new(1), ShardId::new(2), REPLICAS) {
        return;
    }
    let index = image.index();
    let mut next = Gsn::ZERO;
    for _ in 0..RUNS_MAX {
        let Some(run) = index.at_or_after(next) else {
            break;
        };
        assert!(run.end_gsn() > next && run.count > 0);
        let found = index.by_position(run.slot, run.position);
        assert_eq!(found.map(|found| found.gsn), Some(run.gsn));
        let lens = index.lens_at(run.gsn);
        assert_eq!(lens[run.slot.index()], run.position);
        next = run.end_gsn();
    }
    let beyond = Lsn::new(u64::MAX);
    assert!((0..REPLICAS).all(|slot| index.by_position(Slot::new(slot), beyond).is_none()));
});
