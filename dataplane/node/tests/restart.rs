//! One server with everything at D1 in a directory: whatever was acknowledged is there after any number of ends and starts.

mod common;

use std::path::Path;

use common::{
    LOG, PATIENCE, append_all, assert_lost_before, deliveries, follow, local_client, numbered,
    state_of, until, whole_cluster,
};
use ionian_client::{Delivery, GapKind, Gsn, Outcome, ReadOutcome};
use ionian_node::status::PlaceState;
use ionian_node::{Place, Server};
use ionian_types::{Durability, LogId, ShardId, Slot};

fn start(dir: &Path) -> Server {
    whole_cluster(Durability::D1, 1, Some(dir)).expect("the cluster starts")
}

/// The shard's epoch as a replica knows it: it rises with every view that changes the shard.
fn epoch(server: &Server) -> u64 {
    let place = Place::Replica(LOG, ShardId::new(0), Slot::new(0));
    let status = server.status(PATIENCE).expect("an answer");
    match state_of(&status, place) {
        PlaceState::Replica(replica) => replica.epoch.get(),
        _ => 0,
    }
}

#[test]
fn a_restart_loses_nothing_and_positions_and_generations_go_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut payloads = Vec::new();
    let mut positions = Vec::new();
    let mut last_epoch = 0;
    for life in 0..6u64 {
        let server = start(dir.path());
        let mut log = local_client(&server, LOG, u128::from(life) + 1);
        let new = numbered(life * 1_000, (life + 1) * 1_000);
        positions.extend(append_all(&mut log, &new));
        payloads.extend(new);
        assert_eq!(log.tail().expect("a tail"), Gsn::new(payloads.len() as u64));
        assert_eq!(
            follow(&mut log, Gsn::ZERO, payloads.len()),
            deliveries(&positions, &payloads)
        );
        assert!(
            epoch(&server) > last_epoch,
            "every life opens generations of its own"
        );
        last_epoch = epoch(&server);
    }
}

#[test]
fn the_first_question_to_a_new_life_has_the_right_answer() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    append_all(
        &mut local_client(&start(dir.path()), LOG, 1),
        &numbered(0, 100),
    );
    for life in 0..5 {
        let server = start(dir.path());
        // A root that does not know yet what was committed must not call it unwritten.
        let mut log = local_client(&server, LOG, 10 + life);
        assert_eq!(log.tail().expect("a tail"), Gsn::new(100));
        drop(log);
        drop(server);
        let server = start(dir.path());
        let mut log = local_client(&server, LOG, 20 + life);
        let outcome = log.read(Gsn::new(99)).expect("an answer");
        assert_eq!(outcome, ReadOutcome::Record(b"record 99".to_vec()));
    }
}

#[test]
fn records_in_flight_at_the_end_are_there_once_or_not_at_all() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut acked: Vec<(Gsn, Vec<u8>)> = Vec::new();
    let mut sent = 0u64;
    for life in 0..8u128 {
        let server = start(dir.path());
        let mut log = local_client(&server, LOG, life + 1);
        let mut open = Vec::new();
        let before = acked.len();
        // Ends in the middle of it: some have their answer, some do not.
        while acked.len() < before + 1_000 {
            for _ in 0..100 {
                let payload = format!("record {sent}").into_bytes();
                sent += 1;
                open.push((log.submit(&payload).expect("taken"), payload));
            }
            log.poll_for(PATIENCE);
            for run in log.completions().collect::<Vec<_>>() {
                let Outcome::Ordered { first_gsn, .. } = run.outcome else {
                    panic!("every append is acknowledged: {run:?}");
                };
                for at in 0..u64::from(run.count) {
                    let number = run.first.number + at;
                    let index = open.iter().position(|(ticket, _)| ticket.number == number);
                    let (_, payload) = open.swap_remove(index.expect("an open append"));
                    acked.push((first_gsn.checked_add(at).expect("a position"), payload));
                }
            }
        }
        drop(server);
    }
    let server = start(dir.path());
    let mut log = local_client(&server, LOG, 1_000);
    let tail = log.tail().expect("a tail").get() as usize;
    let seen = follow(&mut log, Gsn::ZERO, tail);
    let mut payloads: Vec<&Vec<u8>> = Vec::new();
    for (at, delivery) in seen.iter().enumerate() {
        let Delivery::Record { gsn, payload } = delivery else {
            panic!("nothing was lost: {delivery:?}");
        };
        assert_eq!(gsn.get(), at as u64);
        payloads.push(payload);
    }
    for (gsn, payload) in &acked {
        assert_eq!(payloads[gsn.get() as usize], payload, "at {gsn}");
    }
    payloads.sort_unstable();
    assert!(
        payloads.windows(2).all(|pair| pair[0] != pair[1]),
        "a record is there twice"
    );
}

#[test]
fn what_was_trimmed_stays_trimmed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let payloads = numbered(0, 2_000);
    let server = start(dir.path());
    let mut log = local_client(&server, LOG, 1);
    let positions = append_all(&mut log, &payloads);
    assert_eq!(log.trim(Gsn::new(1_500)).expect("trimmed"), Gsn::new(1_500));
    drop(log);
    drop(server);
    for life in 0..2 {
        let server = start(dir.path());
        let mut log = local_client(&server, LOG, 2 + life);
        assert_eq!(log.head().expect("a head"), Gsn::new(1_500));
        assert_eq!(
            log.read(Gsn::new(3)).expect("an answer"),
            ReadOutcome::Trimmed
        );
        let seen = follow(&mut log, Gsn::ZERO, 501);
        let gap = Delivery::Gap {
            from: Gsn::ZERO,
            to: Gsn::new(1_500),
            kind: GapKind::Trim,
        };
        assert_eq!(seen[0], gap);
        assert_eq!(seen[1..], deliveries(&positions, &payloads)[1_500..]);
    }
}

#[test]
fn large_records_and_several_logs_come_back() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let open = || whole_cluster(Durability::D1, 2, Some(dir.path())).expect("the cluster starts");
    let payloads: Vec<Vec<u8>> = (0..48u8)
        .map(|at| vec![at; 700_000 + usize::from(at)])
        .collect();
    let mut positions = Vec::new();
    {
        let server = open();
        for log in [1, 2] {
            let mut log = local_client(&server, LogId::new(log), u128::from(log));
            positions = append_all(&mut log, &payloads);
        }
    }
    let server = open();
    for log in [1, 2] {
        let mut log = local_client(&server, LogId::new(log), 10 + u128::from(log));
        assert_eq!(
            follow(&mut log, Gsn::ZERO, payloads.len()),
            deliveries(&positions, &payloads)
        );
        let next = log.append(b"after").expect("appended").gsn;
        assert_eq!(next, Gsn::new(payloads.len() as u64));
    }
}

#[test]
fn a_cluster_in_memory_with_a_kept_controller_declares_its_loss() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let open = || whole_cluster(Durability::D0, 1, Some(dir.path())).expect("the cluster starts");
    let old = {
        let server = open();
        append_all(&mut local_client(&server, LOG, 1), &numbered(0, 1_000))
    };
    let server = open();
    let mut log = local_client(&server, LOG, 2);
    let payloads = numbered(1_000, 1_100);
    let new = append_all(&mut log, &payloads);
    assert!(new[0] > old[999], "no position is used again");
    assert_eq!(new.len(), 100);
    assert_lost_before(&mut log, old[5], &new, &payloads);
    let server_answers = || {
        server
            .status(PATIENCE)
            .is_some_and(|status| status.can_append())
    };
    until("the cluster can append", server_answers, String::new);
}
