//! A shard of two replicas that is full: every append is ordered or refused without effect, reads and trims go on, and a
//! trim makes room, in order. Nothing is held half accepted: taken by its primary, with no room for it at the peer.

mod common;

use std::path::Path;

use common::{LOG, follow, log_spec, until};
use ionian_client::{ClientConfig, Delivery, Effect, Error, Gsn, Log, ReadOutcome};
use ionian_control_core::{ClusterSpec, NodeSpec};
use ionian_node::client::LocalLink;
use ionian_node::{Server, ServerOptions};
use ionian_types::{ClientId, Durability, Nanos, NodeId};
use ionian_wire::frame::RefusalReason;

const MIB: u64 = 1 << 20;
/// Appended at a time.
const BATCH: u64 = 1_000;

fn options(class: Durability, dir: Option<&Path>) -> ServerOptions {
    let one = NodeId::new(1);
    let mut options = ServerOptions::in_memory(ClusterSpec {
        nodes: [(one, NodeSpec::default())].into(),
        logs: vec![log_spec("default", class, 1, 1, &[&[1, 1]])],
    });
    options.data_dir = dir.map(ToOwned::to_owned);
    options.shared_core = true;
    if class.is_flushed() {
        options.disk_bytes_max = 2 * 320 * MIB;
    } else {
        options.memory_bytes_max = 2 * 32 * MIB;
    }
    options
}

fn client(server: &Server, id: u128) -> Log<LocalLink> {
    let mut config = ClientConfig::new(server.cluster(), LOG, ClientId::new(id));
    config.append_timeout = Some(Nanos::from_ms(2_000));
    Log::open(LocalLink::new(server, LOG, false), config).expect("a legal configuration")
}

/// Of many lengths, so that chunks end unlike at the two replicas.
fn payload(number: u64) -> Vec<u8> {
    let len = 8 + (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50) as usize;
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(len, number as u8);
    payload
}

fn number(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().expect("eight bytes"))
}

/// Appends until something is refused. Every append is ordered or had no effect. Returns the records acked since `tail`, by
/// position.
fn fill(server: &Server, id: u128, tail: u64, from: u64) -> Vec<u64> {
    let mut log = client(server, id);
    let mut acked = Vec::new();
    let mut next = from;
    loop {
        let numbers: Vec<u64> = (next..next + BATCH).collect();
        let payloads: Vec<_> = numbers.iter().map(|number| payload(*number)).collect();
        next += BATCH;
        let (mut refused, mut full) = (0, 0);
        for (number, result) in numbers.iter().zip(log.append_batch(&payloads)) {
            match result {
                Ok(appended) => {
                    assert_eq!(
                        appended.gsn,
                        Gsn::new(tail + acked.len() as u64),
                        "{number}"
                    );
                    acked.push(*number);
                }
                Err(error) => {
                    assert_eq!(error.effect(), Effect::None, "{number}: {error}");
                    full += u64::from(matches!(
                        error,
                        Error::AppendTimedOut {
                            refusal: Some((RefusalReason::StoreFull, _)),
                            ..
                        }
                    ));
                    refused += 1;
                }
            }
        }
        if refused > 0 {
            assert!(full > 0, "why is told");
            assert!(acked.is_sorted(), "a writer's records are in its order");
            assert_eq!(
                log.tail().expect("a tail"),
                Gsn::new(tail + acked.len() as u64)
            );
            return acked;
        }
        assert!(next - from < 1_000_000, "the store has no end");
    }
}

fn full_and_on(options: &ServerOptions) {
    let server = Server::start(options.clone()).expect("it starts");
    let mut records = fill(&server, 1, 0, 0);
    assert!(records.len() > 2_000, "only {} went in", records.len());
    let mut log = client(&server, 2);
    for at in (0..records.len()).step_by(397) {
        let outcome = log.read(Gsn::new(at as u64)).expect("an answer");
        assert!(
            outcome == ReadOutcome::Record(payload(records[at])),
            "at {at}"
        );
    }
    let mut head = 0;
    for life in 0..3 {
        head = (head + records.len() as u64) / 2;
        assert_eq!(log.trim(Gsn::new(head)).expect("trimmed"), Gsn::new(head));
        let next = records.last().map_or(0, |last| last + BATCH);
        let more = payload(next);
        until(
            "a trim makes room",
            || client(&server, 10 + life).append(&more).is_ok(),
            String::new,
        );
        records.push(next);
        let tail = records.len() as u64;
        records.extend(fill(&server, 20 + life, tail, next + 1));
        // No record that was acked is missing, none that was refused is there, and none is twice.
        let kept = &records[head as usize..];
        let seen = follow(&mut log, Gsn::new(head), kept.len());
        for ((at, expected), delivery) in (head..).zip(kept).zip(&seen) {
            let Delivery::Record { gsn, payload } = delivery else {
                panic!("at {at}: {delivery:?}");
            };
            assert_eq!((*gsn, number(payload)), (Gsn::new(at), *expected));
        }
    }
    drop(log);
    drop(server);
    if options.data_dir.is_none() {
        return;
    }
    for life in 0..2 {
        let server = Server::start(options.clone()).expect("it starts on a full disk");
        let mut log = client(&server, 30 + life);
        let tail = records.len() as u64;
        assert_eq!(log.tail().expect("a tail"), Gsn::new(tail));
        let last = log.read(Gsn::new(tail - 1)).expect("an answer");
        assert!(last == ReadOutcome::Record(payload(records[tail as usize - 1])));
        // A full disk that stays full takes a restart and a trim.
        if life == 1 {
            assert_eq!(log.trim(Gsn::new(tail)).expect("trimmed"), Gsn::new(tail));
            until(
                "a trim makes room after a restart",
                || client(&server, 40).append(b"more").is_ok(),
                String::new,
            );
        }
    }
}

#[test]
fn two_replicas_on_a_full_disk() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    full_and_on(&options(Durability::D1, Some(dir.path())));
}

#[test]
fn two_replicas_in_full_memory() {
    full_and_on(&options(Durability::D0, None));
}
