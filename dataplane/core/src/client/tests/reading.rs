//! Requests, rule by rule.

use super::*;
use ionian_wire::frame::{
    Locate, LocateAnswer, LocateStatus, Read, ReadAnswer, ReadStatus, TailAnswer, TrimAnswer,
    TrimStatus,
};

fn located(request: u64, status: LocateStatus, from: u64, to: u64) -> LocateAnswer {
    LocateAnswer {
        request,
        status,
        from: Gsn::new(from),
        to: Gsn::new(to),
        segment: segment(1, 0),
        generation: ViewId::new(1),
        position: Lsn::ZERO,
        entry: EntryNo::new(12),
    }
}

fn read_answer(request: u64, gsn: u64, status: ReadStatus) -> ReadAnswer {
    let gap = GapKind::Loss;
    ReadAnswer {
        request,
        gsn: Gsn::new(gsn),
        status,
        gap,
        applied: EntryNo::new(12),
    }
}

/// The one message sent, as (connection, read) or (connection, locate).
fn read_of(sent: &[Sent]) -> (ConnId, Read) {
    match sent {
        [sent] => match sent.message() {
            Message::Read(read, _) => (sent.conn, read),
            other => panic!("{other:?}"),
        },
        _ => panic!("{} messages", sent.len()),
    }
}

fn locate_of(sent: &[Sent]) -> Locate {
    match sent {
        [sent] => match sent.message() {
            Message::Locate(locate, _) => locate,
            other => panic!("{other:?}"),
        },
        _ => panic!("{} messages", sent.len()),
    }
}

/// A machine that was told where positions 0 to 100 lie, and is about to read 7 at a replica of shard 1.
fn reading() -> (Bench, RequestId, ConnId, u64) {
    let mut bench = Bench::connected(config(), &[&[1, 1], &[1, 1]]);
    let id = bench.client.read(bench.now, Gsn::new(7)).unwrap();
    let locate = locate_of(&bench.flush());
    assert_eq!(locate.gsn, Gsn::new(7));
    bench.receive(
        PeerKind::Root,
        &located(locate.request, LocateStatus::Found, 0, 100),
        &[],
    );
    let (at, read) = read_of(&bench.flush());
    assert_eq!(
        (read.shard, read.entry, read.gsn),
        (ShardId::new(1), EntryNo::new(12), Gsn::new(7))
    );
    (bench, id, at, read.request)
}

fn peer_of(conn: ConnId) -> PeerKind {
    replica((conn.get() - 1) / 4, ((conn.get() - 1) % 4) as u8)
}

#[test]
fn a_read_asks_the_root_once_per_run() {
    let (mut bench, id, at, request) = reading();
    let record = sealed(segment(1, 0), 7, b"seven");
    bench.receive(
        peer_of(at),
        &read_answer(request, 7, ReadStatus::Record),
        &record,
    );
    let answers = bench.answers();
    let [(answered, Answer::Record { gsn, seq, .. }, payload)] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!(
        (*answered, *gsn, *seq),
        (id, Gsn::new(7), ClientSeq::new(7))
    );
    assert_eq!(payload, b"seven");
    bench.client.read(bench.now, Gsn::new(8)).unwrap();
    read_of(&bench.flush());
    bench.client.read(bench.now, Gsn::new(100)).unwrap();
    locate_of(&bench.flush());
}

#[test]
fn what_one_replica_cannot_tell_is_asked_of_the_other_and_then_of_the_root() {
    let (mut bench, id, first, request) = reading();
    bench.receive(
        peer_of(first),
        &read_answer(request, 7, ReadStatus::NotHere),
        &[],
    );
    let (second, _) = read_of(&bench.flush());
    assert_ne!(first, second);
    let mut damaged = sealed(segment(1, 0), 7, b"seven");
    damaged[90] ^= 1;
    bench.receive(
        peer_of(second),
        &read_answer(request, 7, ReadStatus::Record),
        &damaged,
    );
    assert_eq!(bench.client.stats().bad_records, 1);
    let locate = locate_of(&bench.wait(Nanos::from_ms(1)));
    bench.receive(
        PeerKind::Root,
        &located(locate.request, LocateStatus::Trimmed, 0, 50),
        &[],
    );
    assert_eq!(
        bench.answers(),
        [(id, Answer::Trimmed { gsn: Gsn::new(7) }, Vec::new())]
    );
}

#[test]
fn a_record_of_another_shard_is_not_taken_for_the_answer() {
    let (mut bench, _, at, request) = reading();
    let record = sealed(segment(0, 0), 7, b"seven");
    bench.receive(
        peer_of(at),
        &read_answer(request, 7, ReadStatus::Record),
        &record,
    );
    assert!(bench.answers().is_empty());
    assert_ne!(read_of(&bench.flush()).0, at);
}

#[test]
fn a_broken_connection_and_a_silent_replica_send_a_read_elsewhere() {
    let (mut bench, _, first, _) = reading();
    bench.disconnect(peer_of(first));
    let (second, _) = read_of(&bench.flush());
    assert_ne!(first, second);
    bench.connect(peer_of(first));
    assert!(bench.flush().is_empty());
    assert_eq!(read_of(&bench.wait(Nanos::from_ms(501))).0, first);
}

#[test]
fn every_place_that_holds_no_record_is_told_as_what_it_is() {
    for (status, expected) in [
        (
            LocateStatus::Unwritten,
            Answer::Unwritten { gsn: Gsn::new(3) },
        ),
        (LocateStatus::Trimmed, Answer::Trimmed { gsn: Gsn::new(3) }),
        (
            LocateStatus::Lost,
            Answer::Gap {
                gsn: Gsn::new(3),
                kind: GapKind::Loss,
            },
        ),
    ] {
        let mut bench = Bench::connected(config(), &[&[1], &[1]]);
        let id = bench.client.read(bench.now, Gsn::new(3)).unwrap();
        let locate = locate_of(&bench.flush());
        bench.receive(PeerKind::Root, &located(locate.request, status, 3, 4), &[]);
        assert_eq!(bench.answers(), [(id, expected, Vec::new())]);
    }
    let (mut bench, id, at, request) = reading();
    bench.receive(peer_of(at), &read_answer(request, 7, ReadStatus::Gap), &[]);
    let gap = Answer::Gap {
        gsn: Gsn::new(7),
        kind: GapKind::Loss,
    };
    assert_eq!(bench.answers(), [(id, gap, Vec::new())]);
}

#[test]
fn a_forgotten_entry_makes_the_read_ask_every_shard() {
    let mut bench = Bench::connected(config(), &[&[1], &[1]]);
    let id = bench.client.read(bench.now, Gsn::new(3)).unwrap();
    let locate = locate_of(&bench.flush());
    bench.receive(
        PeerKind::Root,
        &located(locate.request, LocateStatus::Forgotten, 3, 4),
        &[],
    );
    let (at, read) = read_of(&bench.flush());
    assert_eq!((at, read.entry), (conn(replica(0, 0)), EntryNo::new(12)));
    bench.receive(
        replica(0, 0),
        &read_answer(read.request, 3, ReadStatus::NotHere),
        &[],
    );
    let (at, _) = read_of(&bench.flush());
    assert_eq!(at, conn(replica(1, 0)));
    let record = sealed(segment(1, 0), 3, b"x");
    bench.receive(
        replica(1, 0),
        &read_answer(read.request, 3, ReadStatus::Record),
        &record,
    );
    assert!(
        matches!(bench.answers()[..], [(answered, Answer::Record { .. }, _)] if answered == id)
    );
}

#[test]
fn a_hint_saves_the_question_and_a_wrong_one_costs_only_time() {
    let mut bench = Bench::connected(config(), &[&[1], &[1]]);
    bench
        .client
        .read_at(bench.now, Gsn::new(3), ShardId::new(0))
        .unwrap();
    let (at, read) = read_of(&bench.flush());
    assert_eq!((at, read.entry), (conn(replica(0, 0)), EntryNo::ZERO));
    bench.receive(
        replica(0, 0),
        &read_answer(read.request, 3, ReadStatus::NotHere),
        &[],
    );
    locate_of(&bench.wait(Nanos::from_ms(1)));
    bench
        .client
        .read_at(bench.now, Gsn::new(4), ShardId::new(9))
        .unwrap();
    assert_eq!(locate_of(&bench.flush()).gsn, Gsn::new(4));
}

#[test]
fn tail_and_trim_go_to_the_root_and_wait_for_it() {
    let mut bench = Bench::connected(config(), &[&[1]]);
    bench.disconnect(PeerKind::Root);
    let tail = bench.client.tail(bench.now).unwrap();
    let trim = bench.client.trim(bench.now, Gsn::new(4)).unwrap();
    assert!(bench.flush().is_empty());
    bench.connect(PeerKind::Root);
    assert_eq!(bench.flush().len(), 2);
    bench.disconnect(PeerKind::Root);
    bench.connect(PeerKind::Root);
    assert_eq!(bench.flush().len(), 2, "asked again on the new connection");
    let (head, end) = (Gsn::new(2), Gsn::new(9));
    let entry = EntryNo::new(3);
    let answer = TailAnswer {
        request: tail.get(),
        tail: end,
        head,
        entry,
    };
    bench.receive(replica(0, 0), &answer, &[]);
    assert!(bench.answers().is_empty(), "only the root may tell");
    bench.receive(PeerKind::Root, &answer, &[]);
    bench.receive(PeerKind::Root, &answer, &[]);
    let busy = TrimAnswer {
        request: trim.get(),
        status: TrimStatus::Busy,
        head: Gsn::ZERO,
        tail: Gsn::ZERO,
    };
    // A trim that is refused for now goes on.
    bench.receive(PeerKind::Root, &busy, &[]);
    let status = TrimStatus::BeyondTail;
    let trimmed = TrimAnswer {
        request: trim.get(),
        status,
        head,
        tail: end,
    };
    bench.receive(PeerKind::Root, &trimmed, &[]);
    let answers: Vec<Answer> = bench.answers().into_iter().map(|answer| answer.1).collect();
    assert_eq!(
        answers,
        [
            Answer::Tail {
                tail: end,
                head,
                entry
            },
            Answer::TrimBeyondTail {
                tail: end,
                effect: Effect::None
            }
        ]
    );
}

#[test]
fn a_trim_sent_twice_is_refused_for_good_once_both_are_answered() {
    for both in [false, true] {
        let mut bench = Bench::connected(config(), &[&[1]]);
        let trim = bench.client.trim(bench.now, Gsn::new(4)).unwrap();
        assert_eq!(bench.flush().len(), 1);
        bench.disconnect(PeerKind::Root);
        bench.connect(PeerKind::Root);
        assert_eq!(bench.flush().len(), 1, "asked again on the new connection");
        let tail = Gsn::new(3);
        let answer = |status| TrimAnswer {
            request: trim.get(),
            status,
            head: Gsn::ZERO,
            tail,
        };
        if both {
            bench.receive(PeerKind::Root, &answer(TrimStatus::Busy), &[]);
        }
        bench.receive(PeerKind::Root, &answer(TrimStatus::BeyondTail), &[]);
        // The other sending may reach the root when the log has grown.
        let effect = if both { Effect::None } else { Effect::Unknown };
        let answers: Vec<Answer> = bench.answers().into_iter().map(|answer| answer.1).collect();
        assert_eq!(answers, [Answer::TrimBeyondTail { tail, effect }]);
    }
}

#[test]
fn the_table_is_bounded_and_time_outs_state_the_effect() {
    let mut bench = Bench::connected(config(), &[&[1]]);
    for i in 0..16 {
        let done = if i == 0 {
            bench.client.trim(bench.now, Gsn::new(1))
        } else {
            bench.client.tail(bench.now)
        };
        done.unwrap();
    }
    assert_eq!(bench.client.tail(bench.now), Err(RequestError::Busy));
    bench.flush();
    bench.wait(Nanos::from_ms(10_001));
    assert_eq!(
        bench.client.tail(bench.now),
        Err(RequestError::Busy),
        "answers not polled yet"
    );
    let effects: Vec<Answer> = bench.answers().into_iter().map(|answer| answer.1).collect();
    assert_eq!(effects.len(), 16);
    assert_eq!(
        effects[0],
        Answer::TimedOut {
            effect: Effect::Unknown
        }
    );
    assert!(effects[1..].iter().all(|answer| *answer
        == Answer::TimedOut {
            effect: Effect::None
        }));
    let id = bench.client.tail(bench.now).unwrap();
    bench.client.close();
    assert_eq!(bench.client.tail(bench.now), Err(RequestError::Closed));
    let answer = TailAnswer {
        request: id.get() - 16,
        tail: Gsn::ZERO,
        head: Gsn::ZERO,
        entry: EntryNo::ZERO,
    };
    bench.receive(PeerKind::Root, &answer, &[]);
    assert!(
        bench.answers().is_empty(),
        "a late answer does not reach the slot's next request"
    );
}

#[test]
fn payloads_that_are_not_polled_are_bounded_and_asked_again() {
    let config = ClientConfig {
        answer_bytes_max: ionian_wire::record::RECORD_ENCODED_BYTES_MAX,
        ..config()
    };
    let mut bench = Bench::connected(config, &[&[1]]);
    let payload = vec![7u8; 600_000];
    let record = sealed(segment(0, 0), 1, &payload);
    for _ in 0..2 {
        bench
            .client
            .read_at(bench.now, Gsn::new(1), ShardId::ZERO)
            .unwrap();
        let (_, read) = read_of(&bench.flush());
        bench.receive(
            replica(0, 0),
            &read_answer(read.request, 1, ReadStatus::Record),
            &record,
        );
    }
    assert_eq!(bench.answers().len(), 1);
    let (_, read) = read_of(&bench.wait(Nanos::from_ms(1)));
    bench.receive(
        replica(0, 0),
        &read_answer(read.request, 1, ReadStatus::Record),
        &record,
    );
    assert_eq!(bench.answers()[0].2, payload);
}
