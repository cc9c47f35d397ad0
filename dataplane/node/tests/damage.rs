//! What a device does to data behind the cluster's back: flipped bytes below the committed length are found, told and
//! repaired from the peer; torn writes above it are void.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Bed, deliveries, follow, until};
use ionian_client::{Gsn, ReadOutcome, ShardId};
use ionian_node::{Place, place_directory};
use ionian_types::{Durability, LogId, Slot};

/// Records large enough that the segment takes several chunks of the store.
const COUNT: usize = 3_000;
const FILLING: usize = 3_000;

fn payload(at: usize) -> Vec<u8> {
    let mut payload = format!("<record {at}>").into_bytes();
    payload.resize(FILLING, b'.');
    payload
}

/// The files of a replica's store.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("the place has a directory");
    entries
        .map(|entry| entry.expect("readable").path())
        .collect()
}

/// Where a text stands in a store: file and offset.
fn find(dir: &Path, text: &[u8]) -> Option<(PathBuf, usize)> {
    files(dir).into_iter().find_map(|file| {
        let bytes = fs::read(&file).ok()?;
        let at = bytes
            .windows(text.len())
            .position(|window| window == text)?;
        Some((file, at))
    })
}

fn overwrite(file: &Path, at: usize, with: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new()
        .write(true)
        .open(file)
        .expect("writable");
    file.write_all_at(with, at as u64).expect("written");
    file.sync_all().expect("flushed");
}

/// One shard of two replicas on nodes 2 and 3, with records in slot 0.
fn filled() -> (Bed, Vec<Gsn>, Vec<Vec<u8>>) {
    let mut bed = Bed::new(vec![common::log_spec(
        "default",
        Durability::D1,
        1,
        1,
        &[&[2, 3]],
    )]);
    bed.start_all();
    let mut log = bed.client();
    let payloads: Vec<Vec<u8>> = (0..COUNT).map(payload).collect();
    let positions = bed.append_all(&mut log, &payloads);
    (bed, positions, payloads)
}

fn place(slot: u8) -> Place {
    Place::Replica(LogId::new(1), ShardId::new(0), Slot::new(slot))
}

/// Of a replica's store: damaged records found, and repaired, so far.
fn damage(bed: &Bed, id: u32) -> (u64, u64) {
    let status = bed.status(id);
    let stores = status.places.iter().filter_map(|place| place.store);
    stores.fold((0, 0), |(damaged, repaired), store| {
        (damaged + store.damaged, repaired + store.repaired)
    })
}

#[test]
fn flipped_bytes_below_the_committed_length_are_repaired_from_the_peer() {
    let (mut bed, positions, payloads) = filled();
    let expected = deliveries(&positions, &payloads);
    bed.kill(2);
    let dir = place_directory(&bed.data_dir(2), place(0));
    // In the first chunk, in two neighbours, and in the last chunk.
    let hit = [5, 6, COUNT / 2, COUNT - 2];
    for at in hit {
        let text = format!("<record {at}>");
        let (file, offset) = find(&dir, text.as_bytes()).expect("the record is on the disk");
        overwrite(&file, offset + 1_000, b"#");
    }
    bed.start(2);
    bed.settle();
    // Whoever reads where finds it; nobody is ever shown anything else than what was written.
    let found = std::cell::Cell::new((0, 0));
    until(
        "the damage is found and repaired",
        || {
            assert!(follow(&mut bed.client(), Gsn::ZERO, COUNT) == expected);
            found.set(damage(&bed, 2));
            found.get() == (hit.len() as u64, hit.len() as u64)
        },
        || format!("found and repaired: {found:?}"),
    );
    // What was repaired is good without the peer, and after another start.
    for _ in 0..2 {
        bed.kill(3);
        let mut log = bed.client();
        for at in hit {
            let outcome = log
                .read_record(positions[at], ShardId::new(0))
                .expect("an answer");
            assert_eq!(outcome, ReadOutcome::Record(payloads[at].clone()));
        }
        bed.start(3);
        bed.settle();
        bed.kill(2);
        bed.start(2);
        bed.settle();
    }
    assert_eq!(damage(&bed, 2).0, 0, "nothing is damaged any more");
}

#[test]
fn a_torn_write_above_the_committed_length_is_void() {
    let (mut bed, mut positions, mut payloads) = filled();
    bed.kill_all();
    for (id, slot) in [(2, 0), (3, 1)] {
        let dir = place_directory(&bed.data_dir(id), place(slot));
        let last = format!("<record {}>", COUNT - 1);
        let (file, offset) = find(&dir, last.as_bytes()).expect("the record is on the disk");
        // From the first block on that the last batch did not reach.
        let torn = (offset + FILLING).next_multiple_of(4096);
        overwrite(&file, torn, &vec![0xab; 20_000]);
    }
    bed.start_all();
    bed.settle();
    let mut log = bed.client();
    assert_eq!(log.tail().expect("a tail"), Gsn::new(COUNT as u64));
    let more: Vec<Vec<u8>> = (COUNT..COUNT + 100).map(payload).collect();
    positions.extend(bed.append_all(&mut log, &more));
    payloads.extend(more);
    let expected = deliveries(&positions, &payloads);
    assert!(follow(&mut log, Gsn::ZERO, expected.len()) == expected);
    assert_eq!((damage(&bed, 2).0, damage(&bed, 3).0), (0, 0));
}
