//! Leaving a server, rule by rule: nothing is bound elsewhere before its fate is known.

use super::appends::{ack, appends, refused};
use super::*;
use ionian_wire::frame::{FateAnswer, FateOutcome, RefusalReason, SessionClosed};

const FIRST: PeerKind = PeerKind::Replica {
    shard: ShardId::new(0),
    slot: Slot::new(0),
};
const SECOND: PeerKind = PeerKind::Replica {
    shard: ShardId::new(0),
    slot: Slot::new(1),
};

fn answer(seq: u64, outcome: FateOutcome, gsn: u64) -> FateAnswer {
    FateAnswer {
        segment: segment(0, 0),
        generation: ViewId::new(1),
        session: SessionNo::ZERO,
        seq: ClientSeq::new(seq),
        outcome,
        gsn: Gsn::new(gsn),
        entry: EntryNo::new(2),
        position: Lsn::new(seq),
    }
}

/// The first server has closed the first session, of which it took the records below `next_seq`.
fn session_closed(next_seq: u64) -> SessionClosed {
    SessionClosed {
        segment: segment(0, 0),
        generation: ViewId::new(1),
        session: SessionNo::ZERO,
        next_seq: ClientSeq::new(next_seq),
        known: true,
    }
}

/// The fate queries among what was sent: to whom, which sequence number.
fn fates(sent: &[Sent]) -> Vec<(ConnId, u64)> {
    let queries = sent.iter().filter_map(|sent| match sent.message() {
        Message::Fate(fate, _) => Some((sent.conn, fate.seq.get())),
        _ => None,
    });
    queries.collect()
}

/// Three records sent to the first server, which then closes.
fn closed() -> Bench {
    let mut bench = Bench::connected(config(), &[&[1, 1]]);
    for payload in ["a", "b", "c"] {
        bench.append(payload.as_bytes());
    }
    assert_eq!(appends(&bench.flush()).len(), 1);
    bench.client.set_map(bench.now, &there(map(2, &[&[0, 1]])));
    bench
}

/// The same map, with every replica there.
fn there(mut map: ClusterMap) -> ClusterMap {
    for shard in map.logs.iter_mut().flat_map(|log| &mut log.shards) {
        for replica in &mut shard.replicas {
            replica.endpoint.inc = Inc::new(1);
        }
    }
    map
}

#[test]
fn a_replica_that_is_down_is_not_asked_while_another_one_is_there() {
    let mut bench = Bench::connected(config(), &[&[1, 1]]);
    bench.append(b"a");
    assert_eq!(appends(&bench.flush()).len(), 1);
    // Its connection looks sound still.
    bench.client.set_map(bench.now, &map(2, &[&[0, 1]]));
    assert_eq!(fates(&bench.flush()), [(conn(SECOND), 0)]);
}

#[test]
fn a_replica_that_was_asked_and_is_down_is_not_waited_for() {
    let mut bench = closed();
    let asked = fates(&bench.flush());
    assert_eq!(asked[0], (conn(FIRST), 0));
    let mut news = there(map(3, &[&[0, 1]]));
    news.logs[0].shards[0].replicas[0].endpoint.inc = Inc::ZERO;
    bench.client.set_map(bench.now, &news);
    let asked = fates(&bench.flush());
    assert_eq!(
        asked,
        [(conn(SECOND), 0), (conn(SECOND), 1), (conn(SECOND), 2)]
    );
}

#[test]
fn a_replica_that_is_down_is_let_go_once_another_one_is_there() {
    let mut bench = closed();
    bench.disconnect(SECOND);
    let mut news = there(map(3, &[&[0, 1]]));
    news.logs[0].shards[0].replicas[0].endpoint.inc = Inc::ZERO;
    bench.client.set_map(bench.now, &news);
    assert_eq!(
        fates(&bench.flush())[0],
        (conn(FIRST), 0),
        "for want of another"
    );
    bench.connect(SECOND);
    let asked = fates(&bench.flush());
    assert_eq!(asked[0], (conn(SECOND), 0));
    assert_eq!(asked.len(), 3);
}

#[test]
fn the_fate_of_every_sent_record_is_asked_and_the_rest_moves_in_order() {
    let mut bench = closed();
    bench.append(b"d");
    let sent = bench.flush();
    assert!(appends(&sent).is_empty());
    assert_eq!(
        fates(&sent),
        [(conn(FIRST), 0), (conn(FIRST), 1), (conn(FIRST), 2)]
    );
    bench.receive(FIRST, &answer(0, FateOutcome::Ordered, 40), &[]);
    assert!(
        appends(&bench.flush()).is_empty(),
        "the fate of the others is open"
    );
    bench.receive(FIRST, &answer(1, FateOutcome::Never, 0), &[]);
    let sent = bench.flush();
    assert_eq!(
        appends(&sent),
        [(0, vec![b"b".to_vec(), b"c".to_vec(), b"d".to_vec()])]
    );
    assert_eq!(sent[0].conn, conn(SECOND));
    let moved = AppendAckOf {
        session: 1,
        slot: 1,
    }
    .ack(0, 3, 50);
    bench.receive(SECOND, &moved, &[]);
    let numbers: Vec<(u64, u32)> = bench
        .completions()
        .iter()
        .map(|run| (run.first.number, run.count))
        .collect();
    assert_eq!(numbers, [(0, 1), (1, 3)], "tickets stay as they were");
}

struct AppendAckOf {
    session: u32,
    slot: u8,
}

impl AppendAckOf {
    fn ack(&self, first: u64, count: u32, gsn: u64) -> frame::AppendAck {
        frame::AppendAck {
            segment: segment(0, self.slot),
            ..ack(self.session, first, count, gsn)
        }
    }
}

#[test]
fn pending_and_unknown_are_asked_again_of_another_replica() {
    let mut bench = closed();
    assert_eq!(fates(&bench.flush())[0], (conn(FIRST), 0));
    bench.receive(FIRST, &answer(0, FateOutcome::Unknown, 0), &[]);
    assert_eq!(fates(&bench.wait(Nanos::from_ms(1)))[0], (conn(SECOND), 0));
    bench.receive(FIRST, &answer(0, FateOutcome::Unknown, 0), &[]);
    bench.receive(SECOND, &answer(0, FateOutcome::Pending, 0), &[]);
    assert_eq!(fates(&bench.wait(Nanos::from_ms(1)))[0], (conn(FIRST), 0));
    assert!(fates(&bench.wait(Nanos::from_ms(600))).is_empty());
    let late = bench.wait(Nanos::from_ms(1));
    assert_eq!(fates(&late)[0], (conn(SECOND), 0), "no answer in time");
    bench.disconnect(SECOND);
    assert_eq!(fates(&bench.flush())[0], (conn(FIRST), 0));
}

#[test]
fn answers_that_are_not_for_the_floor_settle_nothing() {
    let mut bench = closed();
    bench.flush();
    for stray in [
        answer(1, FateOutcome::Never, 0),
        answer(7, FateOutcome::Never, 0),
        answer(u64::MAX, FateOutcome::Never, 0),
        FateAnswer {
            generation: ViewId::new(9),
            ..answer(0, FateOutcome::Never, 0)
        },
        FateAnswer {
            segment: segment(1, 0),
            ..answer(0, FateOutcome::Never, 0)
        },
        FateAnswer {
            session: SessionNo::new(5),
            ..answer(0, FateOutcome::Never, 0)
        },
    ] {
        bench.receive(FIRST, &stray, &[]);
        assert!(appends(&bench.flush()).is_empty(), "{stray:?}");
    }
}

#[test]
fn acks_that_come_while_asking_count() {
    let mut bench = closed();
    bench.flush();
    bench.receive(FIRST, &ack(0, 0, 3, 8), &[]);
    assert_eq!(bench.completions().len(), 1);
    bench.append(b"d");
    assert_eq!(appends(&bench.flush()), [(0, vec![b"d".to_vec()])]);
}

#[test]
fn what_was_never_sent_moves_at_once() {
    let mut bench = Bench::new(config());
    bench.client.set_map(bench.now, &map(1, &[&[1, 1]]));
    bench.connect(SECOND);
    bench.append(b"a");
    assert!(
        bench.flush().is_empty(),
        "bound to the first server, which is not there"
    );
    assert!(bench.client.wanted_peers().any(|peer| peer == FIRST));
    let sent = bench.wait(Nanos::from_ms(1_100));
    assert_eq!(appends(&sent), [(0, vec![b"a".to_vec()])]);
    assert_eq!(sent[0].conn, conn(SECOND));
}

#[test]
fn what_a_lost_shard_took_stays_unknown_and_the_rest_moves() {
    let mut bench = closed();
    bench.append(b"d");
    bench.flush();
    bench.receive(FIRST, &answer(0, FateOutcome::Ordered, 40), &[]);
    bench.receive(FIRST, &answer(1, FateOutcome::Lost, 0), &[]);
    let lost = Outcome::Failed {
        failure: AppendFailure::Lost,
        effect: Effect::Unknown,
    };
    let outcomes = bench.completions();
    let [ordered, failed] = &outcomes[..] else {
        panic!("{outcomes:?}");
    };
    assert!(matches!(ordered.outcome, Outcome::Ordered { .. }));
    let run = (failed.first.number, failed.count, failed.outcome);
    assert_eq!(run, (1, 2, lost));
    let sent = bench.flush();
    assert_eq!(appends(&sent).len(), 1, "only what was never sent");
    assert!(fates(&sent).is_empty());
}

#[test]
fn a_server_that_comes_back_with_its_generation_goes_on() {
    let mut bench = Bench::connected(config(), &[&[1, 1]]);
    bench.append(b"a");
    bench.flush();
    bench.disconnect(FIRST);
    assert!(bench.flush().is_empty());
    assert_eq!(
        fates(&bench.wait(Nanos::from_ms(1_100))),
        [(conn(SECOND), 0)]
    );
    bench.receive(SECOND, &answer(0, FateOutcome::Unknown, 0), &[]);
    bench.connect(FIRST);
    let sent = bench.flush();
    assert_eq!(appends(&sent), [(0, vec![b"a".to_vec()])]);
    assert_eq!(
        sent[0].conn,
        conn(FIRST),
        "the same session on the same generation"
    );
}

#[test]
fn a_requested_move_closes_the_session_first() {
    let mut bench = Bench::connected(config(), &[&[1, 1]]);
    for payload in ["a", "b"] {
        bench.append(payload.as_bytes());
    }
    bench.flush();
    bench.client.move_sticky(bench.now);
    bench.append(b"c");
    let sent = bench.flush();
    assert!(appends(&sent).is_empty());
    assert!(
        matches!(sent[0].message(), Message::CloseSession(..)),
        "before any fate is asked"
    );
    bench.receive(FIRST, &session_closed(1), &[]);
    assert!(
        appends(&bench.flush()).is_empty(),
        "the first record was taken and is not ordered yet"
    );
    bench.receive(FIRST, &ack(0, 0, 1, 4), &[]);
    let sent = bench.flush();
    assert_eq!(appends(&sent), [(0, vec![b"b".to_vec(), b"c".to_vec()])]);
    assert_eq!(sent[0].conn, conn(SECOND));
}

/// A run was too large for its server, which had taken the same records already from another sending, cut in smaller runs:
/// they failed with no effect, and were ordered (seed 5234 of the simulator).
#[test]
fn a_sending_that_is_refused_for_good_says_nothing_about_another_one() {
    let mut bench = Bench::connected(config(), &[&[1, 1]]);
    for payload in ["a", "b"] {
        bench.append(payload.as_bytes());
    }
    bench.flush();
    bench.disconnect(FIRST);
    bench.connect(FIRST);
    assert_eq!(appends(&bench.flush()).len(), 1);
    bench.receive(FIRST, &refused(0, 2, RefusalReason::Malformed), &[]);
    assert!(bench.completions().is_empty());
    let sent = bench.flush();
    assert!(appends(&sent).is_empty());
    assert!(
        matches!(sent[0].message(), Message::CloseSession(..)),
        "the server is asked"
    );
    bench.receive(FIRST, &session_closed(1), &[]);
    bench.receive(FIRST, &ack(0, 0, 1, 4), &[]);
    let done = bench.completions();
    assert!(
        matches!(
            done[..],
            [Completion {
                count: 1,
                outcome: Outcome::Ordered { .. },
                ..
            }]
        ),
        "{done:?}"
    );
    // The second one was never taken: it is tried elsewhere.
    let sent = bench.flush();
    assert_eq!(appends(&sent), [(0, vec![b"b".to_vec()])]);
    assert_eq!(sent[0].conn, conn(SECOND));
}

/// A primary that had just started, and had not entered the generation, could not close the session. It was asked once:
/// the lane waited for a fate that no replica of an open generation can tell, and its records never moved.
#[test]
fn a_primary_that_could_not_close_a_session_is_asked_again() {
    let mut bench = Bench::connected(config(), &[&[1, 1]]);
    bench.append(b"a");
    bench.flush();
    bench.client.move_sticky(bench.now);
    let closes = |sent: &[Sent]| {
        let close = |sent: &&Sent| matches!(sent.message(), Message::CloseSession(..));
        sent.iter().filter(close).count()
    };
    assert_eq!(closes(&bench.flush()), 1);
    let unknown = SessionClosed {
        known: false,
        ..session_closed(0)
    };
    bench.receive(FIRST, &unknown, &[]);
    assert_eq!(closes(&bench.flush()), 0, "not at once");
    bench.receive(FIRST, &answer(0, FateOutcome::Unknown, 0), &[]);
    assert_eq!(closes(&bench.wait(Nanos::from_ms(1))), 1);
    bench.receive(FIRST, &session_closed(0), &[]);
    let sent = bench.flush();
    assert_eq!(appends(&sent), [(0, vec![b"a".to_vec()])]);
    assert_eq!(sent[0].conn, conn(SECOND));
}

#[test]
fn a_move_with_nothing_in_flight_needs_no_question() {
    let mut bench = Bench::connected(config(), &[&[1, 1]]);
    bench.append(b"a");
    bench.flush();
    bench.receive(FIRST, &ack(0, 0, 1, 4), &[]);
    bench.client.move_sticky(bench.now);
    bench.append(b"b");
    assert_eq!(bench.flush()[0].conn, conn(SECOND));
    assert_eq!(bench.client.sticky_segment(), Some(segment(0, 1)));
}

#[test]
fn a_closed_answer_with_an_old_map_waits_for_the_map() {
    let mut bench = Bench::connected(config(), &[&[1]]);
    bench.append(b"a");
    bench.flush();
    bench.receive(FIRST, &refused(0, 1, RefusalReason::Closed), &[]);
    assert!(bench.client.wants_map());
    assert!(
        bench.flush().is_empty(),
        "the map's only generation is the closed one"
    );
    bench.client.set_map(bench.now, &map(2, &[&[5]]));
    assert_eq!(appends(&bench.flush()), [(0, vec![b"a".to_vec()])]);
}

/// A client that came during a restart sent to a generation of the life before. The new map overtook the refusal, and the
/// refusal of everything that was sent left the lane asking for fates that nobody could tell any more.
#[test]
fn a_refusal_that_the_map_overtook_settles_what_was_sent() {
    let mut bench = closed();
    assert_eq!(fates(&bench.flush()).len(), 3);
    bench.receive(FIRST, &refused(1, 2, RefusalReason::Closed), &[]);
    assert!(
        appends(&bench.flush()).is_empty(),
        "the first may be ordered"
    );
    bench.receive(FIRST, &refused(0, 1, RefusalReason::Closed), &[]);
    let sent = bench.flush();
    let all = ["a", "b", "c"].map(|payload| payload.as_bytes().to_vec());
    assert_eq!(appends(&sent), [(0, all.to_vec())]);
    assert_eq!(sent[0].conn, conn(SECOND));
}

#[test]
fn a_server_that_stays_unable_is_left_for_another_shard() {
    let mut bench = Bench::connected(config(), &[&[1], &[1]]);
    bench.append(b"a");
    bench.flush();
    let unable = refused(0, 1, RefusalReason::ReplicaMissing);
    bench.receive(FIRST, &unable, &[]);
    let moved = (0..40).any(|_| {
        let sent = bench.wait(Nanos::from_ms(60));
        assert_eq!(appends(&sent).len(), 1);
        if sent[0].conn == conn(replica(1, 0)) {
            return true;
        }
        bench.receive(FIRST, &unable, &[]);
        false
    });
    assert!(moved, "without a question: it was refused each time");
}
