//! Settings of a process that bound or place something: what is configured is what happens.

mod common;

use std::path::Path;

use common::{LOG, local_client, log_spec, node, until};
use ionian_client::{Gsn, ReadOutcome};
use ionian_control_core::{ClusterSpec, NodeSpec};
use ionian_node::{Server, ServerOptions};
use ionian_runtime::{Priority, PriorityOutcome, Topology};
use ionian_types::Durability;

const MIB: u64 = 1 << 20;
const RECORD_BYTES: usize = 4_000;

/// One shard of two replicas, all in one process.
fn options(class: Durability, dir: Option<&Path>) -> ServerOptions {
    let one = node(1);
    let mut options = ServerOptions::in_memory(ClusterSpec {
        nodes: [(one, NodeSpec::default())].into(),
        logs: vec![log_spec("default", class, 1, 1, &[&[1, 1]])],
    });
    options.data_dir = dir.map(Path::to_owned);
    options.shared_core = true;
    options
}

/// Bytes of records that the replicas keep, each.
fn kept(server: &Server) -> Vec<u64> {
    let status = server.status(common::PATIENCE).expect("it answers");
    let stores = status
        .places
        .iter()
        .filter(|place| matches!(place.place, ionian_node::Place::Replica(..)));
    stores
        .map(|place| place.store.expect("a replica has a store").record_bytes)
        .collect()
}

fn retained(class: Durability, dir: Option<&Path>) {
    let mut options = options(class, dir);
    options
        .retention_bytes_max
        .insert(String::from("default"), 6 * MIB);
    let server = Server::start(options).expect("it starts");
    let mut log = local_client(&server, LOG, 1);
    let payload = |at: u64| {
        let mut payload = at.to_le_bytes().to_vec();
        payload.resize(RECORD_BYTES, b'.');
        payload
    };
    // Little is kept as it is, whatever files and memory the empty log takes.
    let few: Vec<Vec<u8>> = (0..500).map(payload).collect();
    common::append_all(&mut log, &few);
    let more: Vec<Vec<u8>> = (500..6_000).map(payload).collect();
    assert_eq!(log.head().expect("a head"), Gsn::ZERO);
    common::append_all(&mut log, &more);
    until(
        "both replicas keep at most what they may",
        || kept(&server).iter().all(|bytes| *bytes <= 6 * MIB),
        || format!("{:?}", kept(&server)),
    );
    let (head, tail) = (log.head().expect("a head"), log.tail().expect("a tail"));
    assert_eq!(tail, Gsn::new(6_000));
    // And not much less: more than half of it is there.
    let records = tail.get() - head.get();
    assert!(records * RECORD_BYTES as u64 > 3 * MIB, "{head} to {tail}");
    assert_eq!(
        log.read(Gsn::ZERO).expect("an answer"),
        ReadOutcome::Trimmed
    );
    let oldest = log.read(head).expect("an answer");
    assert!(
        oldest == ReadOutcome::Record(payload(head.get())),
        "at {head}"
    );
}

#[test]
fn retention_keeps_what_it_says_in_memory() {
    retained(Durability::D0, None);
}

#[test]
fn retention_keeps_what_it_says_on_a_disk() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    retained(Durability::D1, Some(dir.path()));
}

#[test]
fn a_core_and_a_priority_are_asked_for_and_the_answer_is_told() {
    let topology = Topology::read().expect("the machine has cores");
    let core = topology.preferred_order()[0];
    let mut pinned = options(Durability::D0, None);
    pinned.cores = vec![core];
    pinned.priority = Priority::Fifo { level: 1 };
    let server = Server::start(pinned).expect("it starts");
    let start = server.reactor_starts()[0];
    assert_eq!(start.pinned.expect("the core may be used"), Some(core));
    assert!(
        matches!(
            start.priority,
            PriorityOutcome::Fifo { level: 1 } | PriorityOutcome::Refused { .. }
        ),
        "{start:?}"
    );
    let mut log = local_client(&server, LOG, 1);
    common::append_all(&mut log, &[b"x".to_vec()]);
    drop(server);
    let mut nowhere = options(Durability::D0, None);
    nowhere.cores = vec![100_000];
    let server = Server::start(nowhere).expect("it starts all the same");
    let start = server.reactor_starts()[0];
    let error = start.pinned.expect_err("there is no such core").to_string();
    assert!(error.contains("cannot pin to core 100000"), "{error}");
    assert_eq!(start.priority, PriorityOutcome::Normal);
}
