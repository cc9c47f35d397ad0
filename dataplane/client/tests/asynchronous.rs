//! The asynchronous face over a cluster in memory.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use ionian_client::history::{HistoryEvent, What};
use ionian_client::testing::{MemoryCluster, block_on};
use ionian_client::{AsyncLog, Delivery, Effect, Error, GapKind, Gsn, ReadOutcome, ShardId};
use ionian_types::Nanos;

fn open(cluster: &MemoryCluster) -> AsyncLog {
    AsyncLog::open(cluster.link(), MemoryCluster::config(1)).expect("the defaults are valid")
}

/// Polls once; for futures that are to begin in a given order.
fn begin<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn operations_have_the_answers_of_the_blocking_face() {
    let cluster = MemoryCluster::new(2, 2);
    let log = open(&cluster);
    block_on(async {
        let first = log.append("zero").await.unwrap();
        let second = log.append_to_shard(ShardId::new(1), "one").await.unwrap();
        assert_eq!(
            (first.gsn, second.gsn, second.shard),
            (Gsn::new(0), Gsn::new(1), ShardId::new(1))
        );
        let read = log.read_record(second.gsn, second.shard).await.unwrap();
        assert_eq!(read, ReadOutcome::Record(b"one".to_vec()));
        assert_eq!(log.read(Gsn::new(9)).await.unwrap(), ReadOutcome::Unwritten);
        assert_eq!(log.tail().await.unwrap(), Gsn::new(2));
        assert_eq!(log.trim(Gsn::new(1)).await.unwrap(), Gsn::new(1));
        assert_eq!(log.head().await.unwrap(), Gsn::new(1));
        let refused = log.trim(Gsn::new(3)).await.unwrap_err();
        assert_eq!(
            refused,
            Error::TrimBeyondTail {
                upto: Gsn::new(3),
                tail: Gsn::new(2),
                effect: Effect::None,
            }
        );
    });
}

#[test]
fn appends_land_in_the_order_of_their_first_polls() {
    let log = open(&MemoryCluster::new(1, 2));
    let mut operations: Vec<_> = (0..3_000u32)
        .map(|i| Box::pin(log.append(i.to_le_bytes())))
        .collect();
    for operation in &mut operations {
        // Each of them may be done already; its answer is then not asked for again.
        if let Poll::Ready(result) = begin(operation.as_mut()) {
            result.unwrap();
        }
    }
    let mut subscription = log.subscribe(Gsn::ZERO);
    block_on(async {
        for i in 0..3_000u32 {
            let expected = Delivery::Record {
                gsn: Gsn::new(u64::from(i)),
                payload: i.to_le_bytes().to_vec(),
            };
            assert_eq!(subscription.next_delivery().await, Some(expected));
        }
    });
}

#[test]
fn a_slow_task_holds_back_its_own_subscription_only() {
    let cluster = MemoryCluster::new(2, 1);
    let log = open(&cluster);
    let mut slow = log.subscribe(Gsn::ZERO);
    let mut fast = log.subscribe(Gsn::ZERO);
    let payload = vec![7u8; 4_096];
    block_on(async {
        for i in 0..4_000u64 {
            let shard = ShardId::new((i % 2) as u32);
            log.append_to_shard(shard, payload.clone()).await.unwrap();
            assert!(
                matches!(fast.next_delivery().await, Some(Delivery::Record { gsn, .. }) if gsn.get() == i)
            );
        }
        cluster.declare_gap(1, GapKind::Loss);
        for i in 0..4_000u64 {
            assert!(
                matches!(slow.next_delivery().await, Some(Delivery::Record { gsn, .. }) if gsn.get() == i)
            );
        }
        assert!(matches!(
            slow.next_delivery().await,
            Some(Delivery::Gap {
                kind: GapKind::Loss,
                ..
            })
        ));
    });
}

#[test]
fn what_is_open_when_the_client_goes_is_answered() {
    let cluster = MemoryCluster::new(1, 1);
    cluster.set_deaf(true);
    let log = open(&cluster);
    let mut append = pin!(log.append("x"));
    assert!(begin(append.as_mut()).is_pending());
    let mut subscription = log.subscribe(Gsn::ZERO);
    let later = log.append("y");
    drop(log);
    let error = block_on(append).unwrap_err();
    assert_eq!((error, error.effect()), (Error::Abandoned, Effect::Unknown));
    assert_eq!(block_on(later), Err(Error::Closed));
    assert_eq!(block_on(subscription.next_delivery()), None);
}

#[test]
fn a_full_window_makes_tasks_wait_and_refusals_time_out() {
    let cluster = MemoryCluster::new(1, 1);
    let mut config = MemoryCluster::config(1);
    config.outstanding_max = 4;
    config.window = 4;
    config.append_timeout = Some(Nanos::from_ms(40));
    let events = Arc::new(Mutex::new(Vec::<HistoryEvent>::new()));
    let sink = events.clone();
    let hook = Box::new(move |event| sink.lock().unwrap().push(event));
    let log = AsyncLog::open_with_history(cluster.link(), config, Some(hook)).unwrap();
    cluster.refuse_appends(Some(3));
    let threads: Vec<_> = (0..12)
        .map(|_| {
            let log = log.clone();
            std::thread::spawn(move || block_on(log.append("x")))
        })
        .collect();
    for thread in threads {
        let error = thread.join().unwrap().unwrap_err();
        assert_eq!(error.effect(), Effect::None, "{error}");
    }
    cluster.refuse_appends(None);
    block_on(log.append("y")).unwrap();
    let events = events.lock().unwrap();
    let count = |wanted: fn(&What) -> bool| events.iter().filter(|e| wanted(&e.what)).count();
    let calls = count(|what| matches!(what, What::Inv { .. }));
    let ends = count(|what| matches!(what, What::Ok { .. } | What::Failed { .. }));
    assert_eq!(calls, ends, "every call in the history has its end");
}
