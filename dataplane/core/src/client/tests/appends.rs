//! The append path, rule by rule.

use super::*;
use ionian_wire::frame::{Append, AppendAck, AppendRefused, RefusalReason};
use ionian_wire::record::Records;

const PRIMARY: PeerKind = PeerKind::Replica {
    shard: ShardId::new(0),
    slot: Slot::new(0),
};

pub(super) fn ack(session: u32, first_seq: u64, count: u32, first_gsn: u64) -> AppendAck {
    AppendAck {
        log: LOG,
        segment: segment(0, 0),
        generation: ViewId::new(1),
        session: SessionNo::new(session),
        first_seq: ClientSeq::new(first_seq),
        count,
        ns_epoch: NsEpoch::ZERO,
        first_gsn: Gsn::new(first_gsn),
        entry: EntryNo::new(1),
        first_position: Lsn::new(first_seq),
        class: Durability::D1,
    }
}

pub(super) fn refused(first_seq: u64, count: u32, reason: RefusalReason) -> AppendRefused {
    AppendRefused {
        segment: segment(0, 0),
        generation: ViewId::new(1),
        session: SessionNo::ZERO,
        first_seq: ClientSeq::new(first_seq),
        count,
        reason,
        node: NodeId::new(4),
    }
}

/// The append frames among what was sent: first sequence number and payloads.
pub(super) fn appends(sent: &[Sent]) -> Vec<(u64, Vec<Vec<u8>>)> {
    let frames = sent.iter().filter_map(|sent| match sent.message() {
        Message::Append(append, records) => Some((append, records.to_vec())),
        _ => None,
    });
    frames
        .map(|(append, bytes)| {
            let mut payloads = Vec::new();
            for (i, record) in Records::unplaced(&bytes).enumerate() {
                let view = record.unwrap();
                assert_eq!(view.header().seq.get(), append.first_seq.get() + i as u64);
                assert_eq!(view.header().session, append.session);
                assert_eq!(view.header().client, append.client);
                payloads.push(view.payload().to_vec());
            }
            assert_eq!(payloads.len(), append.count as usize);
            (append.first_seq.get(), payloads)
        })
        .collect()
}

fn frame(first: u64, payloads: &[&str]) -> (u64, Vec<Vec<u8>>) {
    (
        first,
        payloads
            .iter()
            .map(|payload| payload.as_bytes().to_vec())
            .collect(),
    )
}

fn places(completions: &[Completion]) -> Vec<(u64, u32, u64)> {
    completions
        .iter()
        .map(|completion| match completion.outcome {
            Outcome::Ordered { first_gsn, .. } => {
                (completion.first.number, completion.count, first_gsn.get())
            }
            Outcome::Failed { .. } => panic!("{completion:?}"),
        })
        .collect()
}

fn failures(completions: &[Completion]) -> Vec<(u64, Effect)> {
    completions
        .iter()
        .map(|completion| match completion.outcome {
            Outcome::Failed { effect, .. } => (completion.first.number, effect),
            Outcome::Ordered { .. } => panic!("{completion:?}"),
        })
        .collect()
}

#[test]
fn records_go_out_once_and_complete_in_order() {
    let mut bench = Bench::connected(config(), &[&[1]]);
    bench.append(b"a");
    bench.append(b"b");
    assert_eq!(appends(&bench.flush()), [frame(0, &["a", "b"])]);
    bench.append(b"c");
    assert_eq!(appends(&bench.flush()), [frame(2, &["c"])]);
    assert!(bench.flush().is_empty());
    bench.receive(PRIMARY, &ack(0, 0, 2, 70), &[]);
    bench.receive(PRIMARY, &ack(0, 2, 1, 90), &[]);
    assert_eq!(places(&bench.completions()), [(0, 2, 70), (2, 1, 90)]);
    assert_eq!(bench.client.outstanding(), 0);
}

#[test]
fn acks_that_overlap_repeat_or_come_early_complete_each_record_once() {
    let mut bench = Bench::connected(config(), &[&[1]]);
    for _ in 0..6 {
        bench.append(b"x");
    }
    bench.flush();
    bench.receive(PRIMARY, &ack(0, 4, 2, 44), &[]);
    assert!(
        bench.completions().is_empty(),
        "the order of the session is kept"
    );
    bench.receive(PRIMARY, &ack(0, 0, 2, 10), &[]);
    bench.receive(PRIMARY, &ack(0, 0, 2, 10), &[]);
    bench.receive(PRIMARY, &ack(0, 1, 3, 11), &[]);
    assert_eq!(
        places(&bench.completions()),
        [(0, 2, 10), (2, 2, 12), (4, 2, 44)]
    );
    bench.receive(PRIMARY, &ack(0, 0, 6, 10), &[]);
    assert!(bench.completions().is_empty());
}

#[test]
fn acks_of_what_was_never_sent_are_dropped() {
    let mut bench = Bench::connected(config(), &[&[1]]);
    bench.append(b"x");
    bench.receive(PRIMARY, &ack(0, 0, 1, 1), &[]);
    bench.flush();
    for bad in [
        ack(0, 0, 2, 1),
        ack(0, 1, 1, 1),
        ack(0, u64::MAX, 1, 1),
        ack(0, u64::MAX, u32::MAX, 1),
        ack(0, 0, 0, 1),
        ack(0, 0, 1, u64::MAX),
        AppendAck {
            generation: ViewId::new(2),
            ..ack(0, 0, 1, 1)
        },
        AppendAck {
            segment: segment(0, 1),
            ..ack(0, 0, 1, 1)
        },
        AppendAck {
            log: LogId::new(9),
            ..ack(0, 0, 1, 1)
        },
    ] {
        bench.receive(PRIMARY, &bad, &[]);
        assert!(bench.completions().is_empty(), "{bad:?}");
    }
    assert_eq!(bench.client.stats().bad_messages, 10);
    bench.receive(PRIMARY, &ack(0, 0, 1, 1), &[]);
    assert_eq!(places(&bench.completions()), [(0, 1, 1)]);
}

#[test]
fn a_new_connection_to_the_same_generation_gets_everything_again_from_the_floor() {
    let mut bench = Bench::connected(config(), &[&[1]]);
    for payload in ["a", "b", "c"] {
        bench.append(payload.as_bytes());
    }
    bench.flush();
    bench.receive(PRIMARY, &ack(0, 0, 1, 5), &[]);
    bench.disconnect(PRIMARY);
    bench.append(b"d");
    assert!(bench.flush().is_empty());
    bench.connect(PRIMARY);
    let sent = bench.flush();
    assert_eq!(appends(&sent), [frame(1, &["b", "c", "d"])]);
    assert!(
        matches!(sent[0].message(), Message::Append(Append { floor, .. }, _) if floor == ClientSeq::new(1))
    );
    assert_eq!(bench.client.stats().resent, 2);
}

#[test]
fn a_refused_run_is_sent_again_in_order_after_a_pause() {
    let mut bench = Bench::connected(config(), &[&[1]]);
    bench.append(b"a");
    bench.flush();
    bench.append(b"b");
    bench.flush();
    bench.receive(PRIMARY, &refused(0, 1, RefusalReason::Busy), &[]);
    bench.receive(PRIMARY, &refused(1, 1, RefusalReason::Busy), &[]);
    assert!(bench.flush().is_empty());
    bench.client.on_deadline(bench.now);
    let due = bench.client.next_deadline();
    assert!(
        due > bench.now && due <= bench.now.after(Nanos::from_ms(1)),
        "it wakes in time"
    );
    assert_eq!(
        appends(&bench.wait(Nanos::from_ms(1))),
        [frame(0, &["a", "b"])]
    );
}

#[test]
fn a_window_full_of_records_is_busy_until_completions_are_polled() {
    let config = ClientConfig {
        outstanding_max: 3,
        ..config()
    };
    let mut bench = Bench::connected(config, &[&[1]]);
    for _ in 0..3 {
        bench.append(b"x");
    }
    let busy = Err(AppendError::Busy);
    assert_eq!(bench.client.append(bench.now, b"x", Choice::Policy), busy);
    bench.flush();
    bench.receive(PRIMARY, &ack(0, 0, 3, 0), &[]);
    assert_eq!(
        bench.client.append(bench.now, b"x", Choice::Policy),
        busy,
        "not polled yet"
    );
    assert_eq!(bench.completions().len(), 1);
    bench.append(b"x");
    let config = ClientConfig {
        window: 2,
        ..bench.client.config().clone()
    };
    let mut bench = Bench::connected(config, &[&[1]]);
    bench.append(b"x");
    bench.append(b"x");
    assert_eq!(
        bench.client.append(bench.now, b"x", Choice::Policy),
        busy,
        "the lane's window"
    );
}

#[test]
fn frames_hold_whole_records_up_to_the_limit_and_to_the_room() {
    let config = ClientConfig {
        append_bytes_max: 1_000,
        ..config()
    };
    let mut bench = Bench::connected(config, &[&[1]]);
    for _ in 0..5 {
        bench.append(&[7; 300]);
    }
    bench.append(&[8; 5_000]);
    bench.append(b"z");
    let counts: Vec<usize> = appends(&bench.flush())
        .iter()
        .map(|frame| frame.1.len())
        .collect();
    assert_eq!(
        counts,
        [2, 2, 1, 1, 1],
        "388 bytes each; a larger one goes alone"
    );
    bench.disconnect(PRIMARY);
    bench.room = crate::outbox::REPLY_BYTES_MAX + 1_000;
    bench.connect(PRIMARY);
    assert_eq!(appends(&bench.flush())[0].1.len(), 2);
}

#[test]
fn time_outs_tell_whether_a_server_may_have_taken_the_record() {
    let mut bench = Bench::connected(config(), &[&[1]]);
    bench.append(b"refused");
    bench.flush();
    bench.receive(PRIMARY, &refused(0, 1, RefusalReason::ReplicaMissing), &[]);
    bench.now = bench.now.after(Nanos::from_ms(10_000));
    bench.client.on_deadline(bench.now);
    let failed = bench.completions();
    assert_eq!(failures(&failed), [(0, Effect::None)]);
    let refusal = Some((RefusalReason::ReplicaMissing, NodeId::new(4)));
    let failure = AppendFailure::TimedOut { refusal };
    assert_eq!(
        failed[0].outcome,
        Outcome::Failed {
            failure,
            effect: Effect::None
        }
    );
    bench.append(b"sent");
    bench.flush();
    bench.append(b"kept");
    bench.now = bench.now.after(Nanos::from_ms(10_000));
    bench.client.on_deadline(bench.now);
    assert_eq!(
        failures(&bench.completions()),
        [(1, Effect::Unknown), (2, Effect::None)]
    );
    bench.append(b"next");
    assert_eq!(
        appends(&bench.flush()),
        [frame(0, &["next"])],
        "in a session without holes"
    );
}

#[test]
fn a_refusal_of_one_of_two_tries_leaves_the_effect_unknown() {
    let mut bench = Bench::connected(config(), &[&[1]]);
    bench.append(b"x");
    bench.flush();
    bench.disconnect(PRIMARY);
    bench.connect(PRIMARY);
    assert_eq!(bench.flush().len(), 1);
    bench.receive(PRIMARY, &refused(0, 1, RefusalReason::Busy), &[]);
    bench.now = bench.now.after(Nanos::from_ms(10_000));
    bench.client.on_deadline(bench.now);
    assert_eq!(failures(&bench.completions()), [(0, Effect::Unknown)]);
}

#[test]
fn a_record_that_is_being_tried_again_waits_for_the_answer() {
    let mut bench = Bench::connected(config(), &[&[1]]);
    bench.append(b"x");
    bench.flush();
    bench.now = bench.now.after(Nanos::from_ms(9_999));
    bench.receive(PRIMARY, &refused(0, 1, RefusalReason::StoreFull), &[]);
    bench.now = bench.now.after(Nanos::from_ms(1));
    assert_eq!(appends(&bench.flush()), [frame(0, &["x"])]);
    bench.client.on_deadline(bench.now);
    assert!(bench.completions().is_empty());
    bench.receive(PRIMARY, &refused(0, 1, RefusalReason::StoreFull), &[]);
    assert_eq!(failures(&bench.completions()), [(0, Effect::None)]);
    // Not for ever.
    bench.append(b"y");
    bench.flush();
    bench.receive(PRIMARY, &refused(1, 1, RefusalReason::StoreFull), &[]);
    bench.now = bench.now.after(Nanos::from_ms(9_999));
    bench.flush();
    bench.now = bench.now.after(Nanos::from_ms(2_001));
    bench.client.on_deadline(bench.now);
    assert_eq!(failures(&bench.completions()).len(), 1);
}

#[test]
fn a_record_that_is_refused_for_ever_and_may_have_been_taken_once_is_given_up() {
    let mut bench = Bench::connected(config(), &[&[1]]);
    bench.append(b"x");
    bench.flush();
    bench.disconnect(PRIMARY);
    bench.connect(PRIMARY);
    for _ in 0..130 {
        bench.flush();
        bench.receive(PRIMARY, &refused(0, 1, RefusalReason::StoreFull), &[]);
        bench.now = bench.now.after(Nanos::from_ms(100));
        bench.client.on_deadline(bench.now);
    }
    assert_eq!(failures(&bench.completions()), [(0, Effect::Unknown)]);
}

#[test]
fn a_refusal_that_no_repeat_can_mend_fails_the_run_without_effect() {
    let mut bench = Bench::connected(config(), &[&[1]]);
    bench.append(b"a");
    bench.flush();
    bench.append(b"b");
    bench.flush();
    bench.receive(PRIMARY, &refused(0, 1, RefusalReason::Mismatch), &[]);
    assert_eq!(failures(&bench.completions()), [(0, Effect::None)]);
    bench.receive(PRIMARY, &ack(0, 1, 1, 9), &[]);
    assert_eq!(places(&bench.completions()), [(1, 1, 9)]);
}

#[test]
fn a_silent_server_is_asked_again() {
    let mut bench = Bench::connected(config(), &[&[1]]);
    bench.append(b"x");
    bench.flush();
    bench.disconnect(PRIMARY);
    bench.connect(PRIMARY);
    bench.client.on_deadline(bench.now);
    bench.flush();
    let due = bench.client.next_deadline();
    assert!(
        due <= bench.now.after(Nanos::from_ms(2_000)),
        "it wakes for the question"
    );
    assert!(bench.wait(Nanos::from_ms(1_000)).is_empty());
    assert_eq!(
        appends(&bench.wait(Nanos::from_ms(1_100))),
        [frame(0, &["x"])]
    );
}

#[test]
fn every_policy_reaches_the_servers_it_names() {
    let now = Time::from_ns(1_000_000);
    let mut bench = Bench::connected(config(), &[&[1, 1], &[1, 1]]);
    let mut segments = |client: &mut Client, count: usize| -> Vec<(u32, u8)> {
        for _ in 0..count {
            client.append(now, b"x", Choice::Policy).unwrap();
        }
        let out = &mut bench.out;
        for conn in 0..32 {
            out.set_room(ConnId::new(conn), ROOM);
        }
        client.flush(now, out);
        let mut found: Vec<(u32, u8)> = Vec::new();
        for envelope in out.envelopes() {
            if let (Message::Append(append, _), _) =
                Message::new_checked(out.head(envelope)).unwrap()
            {
                found.push((append.segment.shard.get(), append.segment.slot.get()));
            }
        }
        out.clear();
        found.sort_unstable();
        found
    };
    let client = &mut bench.client;
    assert_eq!(segments(client, 4), [(0, 0)]);
    client.set_policy(Policy::Spread);
    assert_eq!(segments(client, 4), [(0, 0), (0, 1), (1, 0), (1, 1)]);
    client.set_policy(Policy::ByKey(|payload| u64::from(payload[0]) + 1));
    assert_eq!(segments(client, 4), [(1, 0)]);
    client.set_policy(Policy::Custom(|_, shards| shards.first().copied()));
    assert_eq!(segments(client, 4), [(0, 0)]);
    let ticket = client
        .append(now, b"x", Choice::Shard(ShardId::new(1)))
        .unwrap();
    assert!(client.is_unresolved(ticket));
    let missing = client.append(now, b"x", Choice::Shard(ShardId::new(7)));
    assert_eq!(missing, Err(AppendError::NoServer));
}

#[test]
fn a_log_without_an_open_server_names_the_node_that_is_missing() {
    let mut bench = Bench::new(config());
    assert_eq!(
        bench.client.append(bench.now, b"x", Choice::Policy),
        Err(AppendError::NoServer)
    );
    bench.client.set_map(bench.now, &map(1, &[&[0, 0]]));
    let node = NodeId::new(1);
    let shard = ShardId::ZERO;
    let missing = Err(AppendError::NotReady { shard, node });
    assert_eq!(
        bench.client.append(bench.now, b"x", Choice::Policy),
        missing
    );
    assert_eq!(
        bench.client.append(bench.now, b"x", Choice::Shard(shard)),
        missing
    );
    bench.client.close();
    assert_eq!(
        bench.client.append(bench.now, b"x", Choice::Policy),
        Err(AppendError::Closed)
    );
}

#[test]
fn lanes_are_bounded_and_empty_ones_are_used_again() {
    let config = ClientConfig {
        lanes_max: 2,
        ..config()
    };
    let mut bench = Bench::connected(config, &[&[1], &[1], &[1]]);
    let to = |bench: &mut Bench, shard: u32| {
        bench
            .client
            .append(bench.now, b"x", Choice::Shard(ShardId::new(shard)))
    };
    let first = to(&mut bench, 0).unwrap();
    to(&mut bench, 1).unwrap();
    assert_eq!(to(&mut bench, 2), Err(AppendError::Busy));
    bench.flush();
    bench.receive(PRIMARY, &ack(0, 0, 1, 3), &[]);
    let third = to(&mut bench, 2).unwrap();
    assert_eq!(third.lane, first.lane);
    assert!(third.number > first.number, "a ticket is never used twice");
}

/// Each time that a server came back it got another lane, with a buffer of its own; the one that had left it was used by
/// nobody, until there were as many as may be.
#[test]
fn a_lane_that_has_left_its_server_is_used_again() {
    let mut bench = Bench::connected(config(), &[&[1, 1]]);
    bench.client.set_policy(Policy::Spread);
    let mut lanes = Vec::new();
    for generation in 2..20 {
        let version = 2 * generation;
        bench.client.set_map(bench.now, &map(version, &[&[0, 1]]));
        let open = map(version + 1, &[&[generation, 1]]);
        bench.client.set_map(bench.now, &open);
        for _ in 0..2 {
            let ticket = bench.append(b"x");
            assert!(!lanes.contains(&(ticket.lane, ticket.number)));
            lanes.push((ticket.lane, ticket.number));
        }
        for sent in bench.flush() {
            let Message::Append(append, _) = sent.message() else {
                continue;
            };
            let ack = AppendAck {
                segment: append.segment,
                generation: append.generation,
                ..ack(append.session.get(), append.first_seq.get(), 1, 7)
            };
            let slot = append.segment.slot.get();
            bench.receive(replica(0, slot), &ack, &[]);
        }
        assert_eq!(bench.completions().len(), 2);
    }
    assert!(lanes.iter().all(|(lane, _)| *lane < 2), "{lanes:?}");
}
