//! The blocking face over a cluster in memory.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ionian_client::history::{self, HistoryEvent, Reply, What};
use ionian_client::testing::MemoryCluster;
use ionian_client::{
    Choice, Delivery, Effect, Error, GapKind, Gsn, Log, Policy, ReadOutcome, ShardId,
};
use ionian_types::{Nanos, RECORD_BYTES_MAX};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn what_was_appended_is_read_and_delivered_in_order() {
    let cluster = MemoryCluster::new(2, 2);
    let mut log = cluster.open(1).unwrap();
    let payloads: Vec<Vec<u8>> = (0..500u32).map(|i| i.to_le_bytes().to_vec()).collect();
    let appended: Vec<Gsn> = log
        .append_batch(&payloads)
        .into_iter()
        .map(|result| result.unwrap().gsn)
        .collect();
    assert!(
        appended.windows(2).all(|pair| pair[0] < pair[1]),
        "sticky keeps the order"
    );
    for (gsn, payload) in appended.iter().zip(&payloads).step_by(97) {
        assert_eq!(
            log.read(*gsn).unwrap(),
            ReadOutcome::Record(payload.clone())
        );
    }
    assert_eq!(log.tail().unwrap(), Gsn::new(500));
    assert_eq!(log.read(Gsn::new(500)).unwrap(), ReadOutcome::Unwritten);
    let delivered: Vec<Delivery> = log.subscribe(Gsn::ZERO).unwrap().take(500).collect();
    let expected: Vec<Delivery> = appended
        .iter()
        .zip(&payloads)
        .map(|(gsn, payload)| Delivery::Record {
            gsn: *gsn,
            payload: payload.clone(),
        })
        .collect();
    assert_eq!(delivered, expected);
}

#[test]
fn spread_reaches_every_shard_and_two_followers_agree() {
    let cluster = MemoryCluster::new(3, 2);
    let mut log = cluster.open(1).unwrap();
    log.set_shard_policy(Policy::Spread);
    let payloads: Vec<Vec<u8>> = (0..300u32).map(|i| i.to_le_bytes().to_vec()).collect();
    let results = log.append_batch(&payloads);
    let shards: BTreeSet<ShardId> = results.iter().map(|result| result.unwrap().shard).collect();
    assert_eq!(shards.len(), 3);
    let mut other = cluster.open(2).unwrap();
    let first: Vec<Delivery> = log.subscribe(Gsn::ZERO).unwrap().take(300).collect();
    let second: Vec<Delivery> = other.subscribe(Gsn::ZERO).unwrap().take(300).collect();
    assert_eq!(first, second);
    let seen: BTreeSet<Vec<u8>> = first
        .into_iter()
        .map(|delivery| match delivery {
            Delivery::Record { payload, .. } => payload,
            Delivery::Gap { .. } => panic!("no gap was made"),
        })
        .collect();
    assert_eq!(seen, payloads.into_iter().collect());
}

#[test]
fn a_chosen_shard_is_kept_and_its_record_is_read_there() {
    let mut log = MemoryCluster::new(4, 1).open(9).unwrap();
    for shard in (0..4).map(ShardId::new) {
        let (gsn, landed) = log.append_to_shard(shard, b"here").unwrap();
        assert_eq!(landed, shard);
        assert_eq!(
            log.read_record(gsn, shard).unwrap(),
            ReadOutcome::Record(b"here".to_vec())
        );
        let elsewhere = ShardId::new((shard.get() + 1) % 4);
        let found = log.read_record(gsn, elsewhere).unwrap();
        assert_eq!(
            found,
            ReadOutcome::Record(b"here".to_vec()),
            "a wrong hint costs time only"
        );
    }
    let key = |payload: &[u8]| u64::from(payload[0]);
    log.set_shard_policy(Policy::ByKey(key));
    let first = log.append(&[6]).unwrap();
    assert_eq!(log.append(&[6, 1]).unwrap().shard, first.shard);
    log.set_shard_policy(Policy::Custom(|_, shards| shards.last().copied()));
    assert_eq!(log.append(b"x").unwrap().shard, ShardId::new(3));
    log.set_shard_policy(Policy::Custom(|_, _| None));
    assert_eq!(log.try_append(b"x"), Err(Error::NoServer));
}

#[test]
fn gaps_and_trims_are_told_as_what_they_are() {
    let cluster = MemoryCluster::new(2, 2);
    let mut log = cluster.open(1).unwrap();
    log.append_batch(&["0", "1", "2"]);
    let lost = cluster.declare_gap(2, GapKind::Loss);
    log.append(b"5").unwrap();
    assert_eq!(log.read(lost).unwrap(), ReadOutcome::Gap(GapKind::Loss));
    assert_eq!(log.trim(Gsn::new(2)).unwrap(), Gsn::new(2));
    assert_eq!(log.head().unwrap(), Gsn::new(2));
    assert_eq!(log.read(Gsn::new(1)).unwrap(), ReadOutcome::Trimmed);
    let refused = log.trim(Gsn::new(7)).unwrap_err();
    assert_eq!(
        refused,
        Error::TrimBeyondTail {
            upto: Gsn::new(7),
            tail: Gsn::new(6),
            effect: Effect::None,
        }
    );
    let delivered: Vec<Delivery> = log.subscribe(Gsn::ZERO).unwrap().take(5).collect();
    let gap = |from, to, kind| Delivery::Gap {
        from: Gsn::new(from),
        to: Gsn::new(to),
        kind,
    };
    let record = |gsn, text: &str| Delivery::Record {
        gsn: Gsn::new(gsn),
        payload: text.into(),
    };
    assert_eq!(
        delivered,
        [
            gap(0, 2, GapKind::Trim),
            record(2, "2"),
            gap(3, 4, GapKind::Loss),
            gap(4, 5, GapKind::Loss),
            record(5, "5"),
        ]
    );
}

#[test]
fn sizes_at_both_ends_are_legal_and_beyond_is_refused() {
    let mut log = MemoryCluster::new(1, 1).open(1).unwrap();
    let largest = vec![7; RECORD_BYTES_MAX];
    let empty = log.append(b"").unwrap();
    let full = log.append(&largest).unwrap();
    assert_eq!(
        log.read(empty.gsn).unwrap(),
        ReadOutcome::Record(Vec::new())
    );
    assert_eq!(
        log.read(full.gsn).unwrap(),
        ReadOutcome::Record(largest.clone())
    );
    let many: Vec<&[u8]> = vec![&largest; 12];
    assert!(
        log.append_batch(&many).iter().all(Result::is_ok),
        "more than the ring holds"
    );
    let error = log.append(&vec![7; RECORD_BYTES_MAX + 1]).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }) && error.effect() == Effect::None);
}

#[test]
fn broken_connections_lose_and_repeat_nothing() {
    let cluster = MemoryCluster::new(2, 2);
    let mut log = cluster.open(1).unwrap();
    let mut tickets = Vec::new();
    for i in 0..2_000u32 {
        tickets.push(log.submit(&i.to_le_bytes()).unwrap());
        if i % 97 == 0 {
            log.poll();
            cluster.break_connections();
        }
    }
    let positions: Vec<Gsn> = tickets
        .into_iter()
        .map(|ticket| log.wait(ticket).unwrap().gsn)
        .collect();
    assert_eq!(positions, (0..2_000).map(Gsn::new).collect::<Vec<_>>());
    let mut subscription = log.subscribe(Gsn::ZERO).unwrap();
    for i in 0..2_000u32 {
        if i % 191 == 0 {
            cluster.break_connections();
        }
        let payload = i.to_le_bytes().to_vec();
        let expected = Delivery::Record {
            gsn: Gsn::new(u64::from(i)),
            payload,
        };
        assert_eq!(subscription.next_timeout(PATIENCE), Some(expected));
    }
    assert_eq!(subscription.next_timeout(Duration::from_millis(1)), None);
}

#[test]
fn a_time_out_says_what_the_append_may_have_done() {
    let cluster = MemoryCluster::new(1, 2);
    let mut config = MemoryCluster::config(1);
    config.append_timeout = Some(Nanos::from_ms(30));
    config.request_timeout = Some(Nanos::from_ms(30));
    config.backoff_max = Nanos::from_ms(1);
    let mut log = Log::open(cluster.link(), config).unwrap();
    log.append(b"before").unwrap();
    cluster.refuse_appends(Some(7));
    let error = log.append(b"refused").unwrap_err();
    assert_eq!(error.effect(), Effect::None);
    assert!(error.to_string().contains("node 7 is missing"), "{error}");
    cluster.refuse_appends(None);
    cluster.set_deaf(true);
    assert_eq!(log.append(b"lost").unwrap_err().effect(), Effect::Unknown);
    assert_eq!(
        log.tail().unwrap_err(),
        Error::TimedOut {
            effect: Effect::None
        }
    );
    assert_eq!(
        log.trim(Gsn::ZERO).unwrap_err(),
        Error::TimedOut {
            effect: Effect::Unknown
        }
    );
    cluster.set_deaf(false);
    cluster.break_connections();
    let after = log.append(b"after").unwrap();
    assert_eq!(
        after.gsn,
        Gsn::new(1),
        "what was given up is not sent again"
    );
}

#[test]
fn each_outcome_is_handed_out_once() {
    let mut log = MemoryCluster::new(1, 1).open(1).unwrap();
    let tickets: Vec<_> = (0..5).map(|_| log.submit(b"x").unwrap()).collect();
    assert_eq!(log.wait(tickets[2]).unwrap().gsn, Gsn::new(2));
    assert_eq!(log.wait(tickets[2]), Err(Error::UnknownTicket));
    assert_eq!(log.outstanding(), 4);
    assert_eq!(log.wait(tickets[4]).unwrap().gsn, Gsn::new(4));
    let rest: Vec<u64> = log
        .completions()
        .flat_map(|run| run.first.number..run.first.number + u64::from(run.count))
        .collect();
    assert_eq!(rest, [0, 1, 3]);
    assert_eq!(log.outstanding(), 0);
}

#[test]
fn uncollected_outcomes_are_bounded() {
    let mut config = MemoryCluster::config(1);
    config.outstanding_max = 10;
    let mut log = Log::open(MemoryCluster::new(1, 1).link(), config).unwrap();
    for _ in 0..10 {
        log.submit(b"x").unwrap();
    }
    assert!(log.drain(PATIENCE));
    assert_eq!(log.submit(b"x"), Err(Error::Busy));
    assert_eq!(log.completions().map(|run| run.count).sum::<u32>(), 10);
    log.submit_to(b"x", Choice::Policy).unwrap();
}

#[test]
fn the_history_tells_calls_answers_and_deliveries() {
    let events = Arc::new(Mutex::new(Vec::<HistoryEvent>::new()));
    let mut log = MemoryCluster::new(1, 1).open(5).unwrap();
    let sink = events.clone();
    log.set_history(Box::new(move |event| sink.lock().unwrap().push(event)));
    let gsn = log.append(b"a").unwrap().gsn;
    log.read(gsn).unwrap();
    log.subscribe(gsn).unwrap().next_timeout(PATIENCE).unwrap();
    let events = events.lock().unwrap();
    let hash = history::payload_hash(b"a");
    let what: Vec<&What> = events.iter().map(|event| &event.what).collect();
    let [
        What::Inv { op: append, .. },
        What::Ok {
            op: appended,
            answer: Reply::Appended { gsn: at, .. },
        },
        What::Inv { op: read, .. },
        What::Ok {
            op: answered,
            answer: Reply::Record(record),
        },
        What::Sub { sub: begun, .. },
        What::Delivered {
            record: delivered, ..
        },
        What::SubEnd { sub: ended },
    ] = what[..]
    else {
        panic!("{events:#?}");
    };
    assert_eq!((append, read, *at), (appended, answered, gsn));
    assert_eq!((record, record.hash), (delivered, hash));
    assert_eq!(begun, ended);
    assert_eq!(append % 2, 0);
    assert_eq!(read % 2, 1);
}
