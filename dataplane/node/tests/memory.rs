//! One server with everything in memory: every answer that a client can get.

mod common;

use common::{
    LOG, PATIENCE, append_all, deliveries, follow, local_client, numbered, whole_cluster,
};
use ionian_client::{Delivery, Effect, Error, GapKind, Gsn, Policy, ReadOutcome, ShardId};
use ionian_types::{Durability, LogId, RECORD_BYTES_MAX};

#[test]
fn what_was_appended_is_read_followed_and_trimmed() {
    let server = whole_cluster(Durability::D0, 1, None).expect("the cluster starts");
    let mut log = local_client(&server, LOG, 1);
    let payloads = numbered(0, 5_000);
    let positions = append_all(&mut log, &payloads);
    assert!(
        positions.windows(2).all(|pair| pair[0] < pair[1]),
        "a sticky writer keeps its order"
    );
    assert_eq!(log.tail().expect("a tail"), Gsn::new(5_000));
    assert_eq!(log.head().expect("a head"), Gsn::ZERO);
    assert_eq!(
        follow(&mut log, Gsn::ZERO, 5_000),
        deliveries(&positions, &payloads)
    );
    for at in (0..5_000).step_by(501) {
        let outcome = log.read(positions[at]).expect("an answer");
        assert_eq!(outcome, ReadOutcome::Record(payloads[at].clone()));
    }
    assert_eq!(
        log.read(Gsn::new(5_000)).expect("an answer"),
        ReadOutcome::Unwritten
    );

    assert_eq!(log.trim(Gsn::new(1_000)).expect("trimmed"), Gsn::new(1_000));
    assert_eq!(log.head().expect("a head"), Gsn::new(1_000));
    assert_eq!(
        log.read(Gsn::new(999)).expect("an answer"),
        ReadOutcome::Trimmed
    );
    assert_eq!(
        log.read(Gsn::new(1_000)).expect("an answer"),
        ReadOutcome::Record(payloads[1_000].clone())
    );
    let seen = follow(&mut log, Gsn::ZERO, 2);
    assert_eq!(
        seen[0],
        Delivery::Gap {
            from: Gsn::ZERO,
            to: Gsn::new(1_000),
            kind: GapKind::Trim
        }
    );
    assert_eq!(
        seen[1],
        Delivery::Record {
            gsn: Gsn::new(1_000),
            payload: payloads[1_000].clone()
        }
    );
    assert_eq!(
        log.trim(Gsn::new(5_001)),
        Err(Error::TrimBeyondTail {
            upto: Gsn::new(5_001),
            tail: Gsn::new(5_000),
            effect: Effect::None,
        })
    );
}

#[test]
fn empty_and_largest_records_are_legal_and_a_larger_one_is_not() {
    let server = whole_cluster(Durability::D0, 1, None).expect("the cluster starts");
    let mut log = local_client(&server, LOG, 1);
    let largest = vec![0xa5; RECORD_BYTES_MAX];
    for payload in [Vec::new(), largest] {
        let appended = log.append(&payload).expect("appended");
        assert_eq!(
            log.read(appended.gsn).expect("an answer"),
            ReadOutcome::Record(payload)
        );
    }
    let error = log
        .append(&vec![0; RECORD_BYTES_MAX + 1])
        .expect_err("too large");
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    assert_eq!(error.effect(), Effect::None);
}

#[test]
fn logs_side_by_side_do_not_see_each_other() {
    let server = whole_cluster(Durability::D0, 3, None).expect("the cluster starts");
    for id in 1..=3 {
        let mut log = local_client(&server, LogId::new(id), u128::from(id));
        let from = u64::from(id) * 1_000;
        let payloads = numbered(from, from + 100 * u64::from(id));
        let positions = append_all(&mut log, &payloads);
        assert_eq!(positions[0], Gsn::ZERO);
        assert_eq!(
            follow(&mut log, Gsn::ZERO, payloads.len()),
            deliveries(&positions, &payloads)
        );
        assert_eq!(log.tail().expect("a tail"), Gsn::new(payloads.len() as u64));
    }
}

#[test]
fn writers_on_threads_of_their_own_get_different_positions_and_followers_agree() {
    let server = whole_cluster(Durability::D0, 1, None).expect("the cluster starts");
    const EACH: u64 = 2_000;
    let mut acked: Vec<(Gsn, Vec<u8>)> = Vec::new();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3u64)
            .map(|writer| {
                let server = &server;
                scope.spawn(move || {
                    let mut log = local_client(server, LOG, u128::from(writer) + 1);
                    if writer == 0 {
                        log.set_shard_policy(Policy::Spread);
                    }
                    let payloads = numbered(writer * EACH, (writer + 1) * EACH);
                    let positions = append_all(&mut log, &payloads);
                    positions.into_iter().zip(payloads).collect::<Vec<_>>()
                })
            })
            .collect();
        let followers: Vec<_> = (0..2u128)
            .map(|at| {
                let server = &server;
                scope.spawn(move || {
                    follow(
                        &mut local_client(server, LOG, 100 + at),
                        Gsn::ZERO,
                        3 * EACH as usize,
                    )
                })
            })
            .collect();
        for writer in writers {
            acked.extend(writer.join().expect("a writer"));
        }
        let (positions, payloads): (Vec<Gsn>, Vec<Vec<u8>>) = acked.iter().cloned().unzip();
        for follower in followers {
            assert_eq!(
                follower.join().expect("a follower"),
                deliveries(&positions, &payloads)
            );
        }
    });
}

#[test]
fn a_chosen_shard_is_where_the_record_is() {
    let server = whole_cluster(Durability::D0, 1, None).expect("the cluster starts");
    let mut log = local_client(&server, LOG, 1);
    log.append(b"first").expect("appended");
    for shard in [ShardId::new(0), ShardId::new(1)] {
        let payload = format!("to {shard}");
        let (gsn, at) = log
            .append_to_shard(shard, payload.as_bytes())
            .expect("appended");
        assert_eq!(at, shard);
        let outcome = log.read_record(gsn, shard).expect("an answer");
        assert_eq!(outcome, ReadOutcome::Record(payload.into_bytes()));
    }
}

#[test]
fn a_cluster_that_has_nothing_to_do_sleeps() {
    let server = whole_cluster(Durability::D0, 1, None).expect("the cluster starts");
    let mut log = local_client(&server, LOG, 1);
    log.append(b"awake").expect("appended");
    let sleeps = || server.counter(ionian_runtime::ReactorCounter::Sleeps);
    let before = sleeps();
    common::until("the reactor blocks", || sleeps() > before + 2, String::new);
    // It wakes for a client.
    log.append(b"again").expect("appended");
    assert!(server.status(PATIENCE).expect("an answer").can_append());
}
