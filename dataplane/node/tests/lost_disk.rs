//! A replica that lost its disk, after the cut log has dropped the entries that made its index: it takes over the state of
//! its peer, copies the records, and is as good as before. Until then it denies nothing.

mod common;

use std::cell::Cell;
use std::fs;

use common::{Bed, LOG, follow, log_spec, node, until};
use ionian_client::{ClientConfig, Delivery, GapKind, Gsn, ReadOutcome, ShardId};
use ionian_core::replica::ReplicaStatus;
use ionian_node::status::PlaceState;
use ionian_types::{ClientId, Durability, Nanos};

/// Records below are trimmed.
const TRIMMED: u64 = 100;

fn payload(at: u64) -> Vec<u8> {
    format!("record {at}").into_bytes()
}

/// The first entry that the root still has.
fn first_entry(bed: &Bed) -> u64 {
    let status = bed.status(1);
    let roots = status.places.iter().filter_map(|place| match &place.state {
        PlaceState::Root(root) => Some(root.cut_log_first.get()),
        _ => None,
    });
    roots.sum()
}

fn replica(bed: &Bed, id: u32) -> Option<ReplicaStatus> {
    let status = bed.status(id);
    status.places.iter().find_map(|place| match &place.state {
        PlaceState::Replica(replica) => Some(**replica),
        _ => None,
    })
}

/// One shard of two replicas on nodes 2 and 3 whose cut log has dropped a prefix that is not all trimmed; the number of
/// records.
fn dropped() -> (Bed, u64) {
    let mut bed = Bed::new(vec![log_spec("default", Durability::D1, 1, 1, &[&[2, 3]])]);
    bed.start_all();
    let mut log = bed.client();
    let count = Cell::new(0);
    until(
        "the cut log drops a prefix",
        || {
            // One cut each.
            for _ in 0..100 {
                let at = count.get();
                let appended = log.append(&payload(at)).expect("appended");
                assert_eq!(appended.gsn, Gsn::new(at));
                count.set(at + 1);
            }
            first_entry(&bed) > 1
        },
        || format!("{} records, {}", count.get(), bed.explain()),
    );
    log.trim(Gsn::new(TRIMMED)).expect("trimmed");
    (bed, count.get())
}

/// Everything is there, and in order.
fn check(bed: &mut Bed, count: u64) {
    let mut log = bed.client();
    assert_eq!(log.tail().expect("a tail"), Gsn::new(count));
    let seen = follow(&mut log, Gsn::ZERO, 1 + (count - TRIMMED) as usize);
    let gap = Delivery::Gap {
        from: Gsn::ZERO,
        to: Gsn::new(TRIMMED),
        kind: GapKind::Trim,
    };
    assert_eq!(seen[0], gap);
    for (at, delivery) in (TRIMMED..).zip(&seen[1..]) {
        let expected = Delivery::Record {
            gsn: Gsn::new(at),
            payload: payload(at),
        };
        assert_eq!(*delivery, expected);
    }
    for at in (TRIMMED..count).step_by(501) {
        let outcome = log.read_record(Gsn::new(at), ShardId::new(0));
        assert_eq!(
            outcome.expect("an answer"),
            ReadOutcome::Record(payload(at))
        );
    }
}

fn wipe(bed: &Bed, id: u32) {
    fs::remove_dir_all(bed.data_dir(id)).expect("the node has a directory");
}

#[test]
fn a_replica_that_lost_its_disk_is_rebuilt_from_its_peer() {
    let (mut bed, count) = dropped();
    bed.kill(2);
    wipe(&bed, 2);
    bed.start(2);
    bed.settle();
    let status = replica(&bed, 2).expect("a replica");
    assert_eq!((status.counters.adoptions, status.stranded), (1, None));
    // It is good without the peer, and after another start.
    for life in 0..2 {
        bed.kill(3);
        check(&mut bed, count);
        bed.start(3);
        bed.settle();
        bed.kill(2);
        bed.start(2);
        bed.settle();
        let adoptions = replica(&bed, 2).expect("a replica").counters.adoptions;
        assert_eq!(adoptions, 0, "life {life} has what it took over");
    }
    let appended = bed.client().append(&payload(count)).expect("appended");
    assert_eq!(appended.gsn, Gsn::new(count));
    check(&mut bed, count + 1);
}

#[test]
fn without_its_peer_it_says_what_is_missing_and_denies_nothing() {
    let (mut bed, count) = dropped();
    bed.kill(2);
    bed.kill(3);
    wipe(&bed, 2);
    bed.start(2);
    let last = Cell::new(None);
    until(
        "the replica says that it is stranded",
        || {
            last.set(replica(&bed, 2).and_then(|status| status.stranded));
            last.get().is_some_and(|stranded| stranded.entry.get() > 1)
        },
        || format!("{last:?} {}", bed.explain()),
    );
    let json = bed.status(2).to_json().to_string();
    assert!(
        json.contains("\"stranded\":{\"bytes_max\":67108864,\"entry\":"),
        "{json}"
    );
    assert!(!bed.status(2).can_append());
    let mut config = ClientConfig::new(bed.secret.cluster_id(), LOG, ClientId::new(77));
    config.request_timeout = Some(Nanos::from_ms(1_500));
    let mut log = bed.client_with(config);
    let answer = log.read_record(Gsn::new(count - 1), ShardId::new(0));
    assert!(answer.is_err(), "{answer:?}");
    bed.start(3);
    bed.settle();
    assert!(bed.servers.contains_key(&node(2)));
    bed.kill(3);
    check(&mut bed, count);
}
