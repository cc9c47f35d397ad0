//! Five servers over UDP on loopback: controller, root and leaf on one, a replica on each of the others.

mod common;

use common::{Bed, LOG, assert_lost_before, deliveries, follow, log_spec, node, numbered, until};
use ionian_client::{ClientConfig, Error, GapKind, Gsn, Link, Log, Policy, ReadOutcome, ShardId};
use ionian_types::{ClientId, Durability, LogId, Nanos};
use ionian_wire::frame::RefusalReason;

/// Appends, reads, follows and asks for the ends; returns what was appended.
fn use_all<L: Link>(
    bed: &Bed,
    log: &mut Log<L>,
    from: u64,
    count: u64,
) -> (Vec<Gsn>, Vec<Vec<u8>>) {
    let payloads = numbered(from, from + count);
    let positions = bed.append_all(log, &payloads);
    let last = positions[positions.len() - 1];
    assert!(log.tail().expect("a tail") > last);
    assert_eq!(
        log.read(last).expect("an answer"),
        ReadOutcome::Record(payloads[payloads.len() - 1].clone())
    );
    (positions, payloads)
}

/// As [`use_all`], with a new client.
fn use_all_new(bed: &mut Bed, from: u64, count: u64) -> (Vec<Gsn>, Vec<Vec<u8>>) {
    let mut log = bed.client();
    use_all(bed, &mut log, from, count)
}

#[test]
fn clients_over_udp_append_read_follow_and_trim() {
    let mut bed = Bed::two_by_two(Durability::D0);
    bed.start_all();
    let mut log = bed.client();
    log.set_shard_policy(Policy::Spread);
    let (positions, payloads) = use_all(&bed, &mut log, 0, 20_000);
    let expected = deliveries(&positions, &payloads);
    assert_eq!(follow(&mut log, Gsn::ZERO, 20_000), expected);
    let mut other = bed.client();
    assert_eq!(follow(&mut other, Gsn::ZERO, 20_000), expected);
    assert_eq!(other.trim(Gsn::new(500)).expect("trimmed"), Gsn::new(500));
    assert_eq!(
        log.read(Gsn::new(1)).expect("an answer"),
        ReadOutcome::Trimmed
    );
    let largest = vec![0x5a; ionian_types::RECORD_BYTES_MAX];
    let appended = log.append(&largest).expect("appended");
    assert_eq!(
        other.read(appended.gsn).expect("an answer"),
        ReadOutcome::Record(largest)
    );
}

#[test]
fn every_role_may_be_a_process_of_its_own_and_nodes_may_start_in_any_order() {
    // Controller on 1, root on 2, leaf on 3; a second log with everything elsewhere.
    let logs = vec![
        log_spec("first", Durability::D0, 2, 3, &[&[4, 5], &[5, 4]]),
        log_spec("second", Durability::D1, 4, 5, &[&[2, 3]]),
    ];
    let mut bed = Bed::new(logs);
    for id in [5, 3, 4, 2, 1] {
        bed.start(id);
    }
    for log in [1, 2] {
        let mut log = bed.client_of(LogId::new(log));
        let (positions, payloads) = use_all(&bed, &mut log, 0, 2_000);
        assert_eq!(
            follow(&mut log, Gsn::ZERO, 2_000),
            deliveries(&positions, &payloads)
        );
    }
}

#[test]
fn nodes_that_start_long_before_their_controller_join_when_it_comes() {
    let mut bed = Bed::two_by_two(Durability::D0);
    for id in [2, 3, 4, 5] {
        bed.start(id);
    }
    let given_up = |bed: &Bed, id| bed.status(id).port.map_or(0, |port| port.ended);
    until(
        "every node has given up a few sessions",
        || (2..=5).all(|id| given_up(&bed, id) >= 6),
        || bed.explain(),
    );
    bed.start(1);
    bed.settle();
    use_all_new(&mut bed, 0, 100);
}

#[test]
fn in_memory_a_replica_that_comes_back_empty_is_refilled_and_until_then_its_shard_refuses() {
    let mut bed = Bed::two_by_two(Durability::D0);
    bed.start_all();
    let mut log = bed.client();
    log.set_shard_policy(Policy::Spread);
    let (positions, payloads) = use_all(&bed, &mut log, 0, 3_000);
    let expected = deliveries(&positions, &payloads);

    bed.kill(3);
    let mut config = ClientConfig::new(bed.secret.cluster_id(), LOG, ClientId::new(900));
    config.append_timeout = Some(Nanos::from_ms(1_500));
    let mut impatient = bed.client_with(config);
    let last = std::cell::RefCell::new(None);
    until(
        "the shard refuses and names the replica that is missing",
        || {
            let result = impatient.append_to_shard(ShardId::new(0), b"refused");
            last.replace(Some(result));
            match result {
                Ok(_) => panic!("one copy is not two"),
                Err(Error::NotReady { node: missing, .. }) => missing == node(3),
                Err(Error::AppendTimedOut { refusal, .. }) => {
                    refusal == Some((RefusalReason::ReplicaMissing, node(3)))
                }
                Err(error) => panic!("{error}"),
            }
        },
        || format!("{last:?}"),
    );
    // The survivor serves what was acknowledged, and the other shard goes on.
    assert_eq!(follow(&mut bed.client(), Gsn::ZERO, 3_000), expected);
    for at in (0..3_000).step_by(307) {
        let outcome = impatient.read(positions[at]).expect("an answer");
        assert_eq!(outcome, ReadOutcome::Record(payloads[at].clone()));
    }
    impatient
        .append_to_shard(ShardId::new(1), b"elsewhere")
        .expect("appended");

    bed.start(3);
    bed.settle();
    let mut log = bed.client();
    let resumed = log
        .append_to_shard(ShardId::new(0), b"resumed")
        .expect("appended");
    // Now the one that kept everything goes, and the one that was refilled serves it.
    bed.kill(2);
    let outcome = log
        .read_record(resumed.0, ShardId::new(0))
        .expect("an answer");
    assert_eq!(outcome, ReadOutcome::Record(b"resumed".to_vec()));
    let mut reader = bed.client();
    let seen = follow(&mut reader, Gsn::ZERO, 3_000);
    assert_eq!(seen, expected);
    bed.start(2);
    bed.settle();
    use_all_new(&mut bed, 10_000, 100);
}

#[test]
fn in_memory_everything_restarted_but_the_controller_declares_its_loss_and_uses_no_position_again()
{
    let mut bed = Bed::two_by_two(Durability::D0);
    bed.start_all();
    let (old, _) = use_all_new(&mut bed, 0, 1_000);
    for life in 0..2u64 {
        bed.kill_all();
        bed.start_all();
        bed.settle();
        let mut log = bed.client();
        let (new, payloads) = use_all(&bed, &mut log, 1_000 * (life + 1), 500);
        assert!(new[0] > old[999], "{:?} was used before", new[0]);
        assert_eq!(new.len(), 500);
        assert_lost_before(&mut log, old[7], &new, &payloads);
    }
}

#[test]
fn in_memory_a_shard_that_loses_every_replica_is_declared_lost_and_the_other_one_stays() {
    let mut bed = Bed::two_by_two(Durability::D0);
    bed.start_all();
    let mut log = bed.client();
    let lost: Vec<Gsn> = (0..50)
        .map(|_| {
            log.append_to_shard(ShardId::new(0), b"lost")
                .expect("appended")
                .0
        })
        .collect();
    let kept: Vec<Gsn> = (0..50)
        .map(|_| {
            log.append_to_shard(ShardId::new(1), b"kept")
                .expect("appended")
                .0
        })
        .collect();
    bed.kill(2);
    bed.kill(3);
    bed.start(2);
    bed.start(3);
    bed.settle();
    let mut log = bed.client();
    let next = log
        .append_to_shard(ShardId::new(0), b"new")
        .expect("appended")
        .0;
    assert!(next > kept[49]);
    for gsn in lost {
        assert_eq!(
            log.read(gsn).expect("an answer"),
            ReadOutcome::Gap(GapKind::Loss),
            "{gsn}"
        );
    }
    for gsn in kept {
        assert_eq!(
            log.read(gsn).expect("an answer"),
            ReadOutcome::Record(b"kept".to_vec())
        );
    }
    assert_eq!(
        log.read(next).expect("an answer"),
        ReadOutcome::Record(b"new".to_vec())
    );
}

#[test]
fn on_disk_any_process_and_all_of_them_may_restart() {
    let mut bed = Bed::two_by_two(Durability::D1);
    bed.start_all();
    let mut log = bed.client();
    log.set_shard_policy(Policy::Spread);
    let (mut positions, mut payloads) = use_all(&bed, &mut log, 0, 2_000);
    // One client lives through all of it.
    for round in 0..8u64 {
        match round {
            0..=4 => {
                let id = round as u32 + 1;
                bed.kill(id);
                bed.start(id);
            }
            5 => {
                bed.kill(2);
                bed.kill(3);
                bed.start(3);
                bed.start(2);
            }
            _ => {
                bed.kill_all();
                bed.start_all();
            }
        }
        let (new, records) = use_all(&bed, &mut log, 10_000 * (round + 1), 500);
        positions.extend(new);
        payloads.extend(records);
        let expected = deliveries(&positions, &payloads);
        assert_eq!(
            follow(&mut bed.client(), Gsn::ZERO, expected.len()),
            expected,
            "round {round}"
        );
    }
    bed.settle();
    assert_eq!(log.tail().expect("a tail").get() as usize, positions.len());
}

#[test]
fn on_disk_the_survivor_serves_while_its_peer_is_away_and_the_peer_catches_up() {
    let mut bed = Bed::two_by_two(Durability::D1);
    bed.start_all();
    let mut log = bed.client();
    let (positions, payloads) = use_all(&bed, &mut log, 0, 2_000);
    let expected = deliveries(&positions, &payloads);
    for id in [3, 2, 5, 4] {
        bed.kill(id);
        assert_eq!(
            follow(&mut bed.client(), Gsn::ZERO, 2_000),
            expected,
            "without {id}"
        );
        bed.start(id);
        bed.settle();
    }
    use_all_new(&mut bed, 5_000, 100);
}
