//! A device that loses the chunk of a truncation gives back what that made void. Only the generations tell.

#![allow(
    clippy::unwrap_used,
    reason = "a test that finds less than it put in fails"
)]

mod common;

use common::disk::{Disk, Rng};
use common::{append, config, record};
use ionian_store::format::ChunkHeader;
use ionian_store::{DamagedRange, Fetch, FileKind, Store, StoreConfig, StoreState};
use ionian_types::{Durability, Inc, Lsn, Slot, ViewId};

const SLOT: Slot = Slot::new(0);
/// The length at which the second generation opens.
const OPENED_AT: u64 = 4;

fn small() -> StoreConfig {
    config(Durability::D1, 1, 4096, 6)
}

fn owners() -> impl Iterator<Item = (Lsn, ViewId)> {
    [(0, 1), (OPENED_AT, 2)]
        .into_iter()
        .map(|(from, generation)| (Lsn::new(from), ViewId::new(generation)))
}

fn settle(disk: &mut Disk, store: &mut Store, rng: &mut Rng) {
    loop {
        disk.take_ops(store);
        if disk.idle() {
            return;
        }
        disk.complete_one(store, rng);
    }
}

fn payload(pos: u64, generation: u64) -> Vec<u8> {
    vec![(16 * generation + pos) as u8; 300]
}

fn bytes_at(disk: &mut Disk, store: &mut Store, rng: &mut Rng, pos: u64) -> Option<Vec<u8>> {
    loop {
        match store.run(SLOT, Lsn::new(pos), Lsn::new(pos + 1), 1) {
            Fetch::Ready(run) => return Some(store.bytes(&run).to_vec()),
            Fetch::Wait => settle(disk, store, rng),
            _ => return None,
        }
    }
}

/// Generation 1 wrote 0..6, of which 4..6 became void; generation 2 wrote 4.. into the next two chunks. The first of them
/// is lost.
fn recovered() -> (Disk, Store, Rng) {
    let (mut disk, mut rng) = (Disk::default(), Rng(1));
    let mut store = Store::format(small(), Inc::new(1), &[]);
    settle(&mut disk, &mut store, &mut rng);
    let mut write = |disk: &mut Disk, store: &mut Store, to: u64, generation: u64| {
        while store.len(SLOT).get() < to {
            let pos = store.len(SLOT).get();
            let record = record(SLOT, pos, generation, &payload(pos, generation));
            append(store, SLOT, &[record]).unwrap();
            settle(disk, store, &mut rng);
        }
    };
    write(&mut disk, &mut store, 6, 1);
    store.truncate(SLOT, Lsn::new(OPENED_AT));
    write(&mut disk, &mut store, 15, 2);
    let mut lost = 0;
    for file in disk.files() {
        if !matches!(file.kind(), Some(FileKind::RecordExtent(_))) {
            continue;
        }
        disk.patch(file, |bytes| {
            for chunk in bytes.chunks_mut(4096) {
                if ChunkHeader::parse(chunk).is_ok_and(|header| header.number == 1) {
                    chunk.fill(0);
                    lost += 1;
                }
            }
        });
    }
    assert_eq!(lost, 1);
    disk.crash(&mut rng);
    let mut store = Store::recover(small(), &disk.files());
    settle(&mut disk, &mut store, &mut rng);
    assert_eq!(store.state(), StoreState::Ready);
    assert_eq!(store.len(SLOT), Lsn::new(15), "the last chunk is there");
    (disk, store, rng)
}

#[test]
fn void_records_that_a_device_gives_back_are_damaged_and_can_be_repaired() {
    let (mut disk, mut store, mut rng) = recovered();
    let void = record(SLOT, OPENED_AT, 1, &payload(OPENED_AT, 1));
    assert_eq!(
        bytes_at(&mut disk, &mut store, &mut rng, OPENED_AT),
        Some(void),
        "nothing but the generation tells"
    );
    store.set_owners(SLOT, owners());
    let DamagedRange { from, to } = store.damaged(SLOT)[0];
    assert_eq!(from.get(), OPENED_AT);
    assert!(to.get() > 6, "with what the lost chunk held");
    assert_eq!(store.durable_len(SLOT), from);
    assert_eq!(
        store.run(SLOT, from, to, 1),
        Fetch::Damaged(from),
        "not served"
    );
    let good = |pos| {
        let generation = if pos < OPENED_AT { 1 } else { 2 };
        record(SLOT, pos, generation, &payload(pos, generation))
    };
    for pos in from.get()..to.get() {
        store.repair(SLOT, &good(pos)).unwrap();
        settle(&mut disk, &mut store, &mut rng);
    }
    for restarted in [false, true] {
        if restarted {
            disk.crash(&mut rng);
            store = Store::recover(small(), &disk.files());
            settle(&mut disk, &mut store, &mut rng);
            store.set_owners(SLOT, owners());
        }
        assert!(store.damaged(SLOT).is_empty());
        assert_eq!(store.durable_len(SLOT), Lsn::new(15));
        for pos in 0..15 {
            assert_eq!(
                bytes_at(&mut disk, &mut store, &mut rng, pos),
                Some(good(pos)),
                "{pos}"
            );
        }
    }
}

#[test]
fn void_records_above_the_committed_length_end_it() {
    let (_disk, mut store, _rng) = recovered();
    store.set_owners(SLOT, owners());
    store.committed_hint(SLOT, Lsn::new(OPENED_AT));
    assert_eq!(store.len(SLOT), Lsn::new(OPENED_AT));
    assert!(store.damaged(SLOT).is_empty());
}
