//! What the tests share: a cluster of two shards with two replicas each, and messages in and out of a directory.

mod connections;
mod copies;
mod deaths;
mod domains;
mod drains;
mod early;
mod operations;
mod pictures;
mod random;
mod refusals;
mod replicated;
mod roots;
mod rules;
mod trees;
mod users;
mod vain;

use std::collections::BTreeMap;

use crate::{
    Asker, ClusterSpec, Directory, DirectoryConfig, LogSpec, NodeSpec, Operate, Operated,
    Operation, RootQuorum, State, TreeSpec,
};
use ionian_types::{
    ClientId, ClusterId, ConnId, Durability, EntryNo, Inc, LogId, NodeId, OrderingMode, SessionNo,
    ShardId, Slot, Time, VertexId, ViewId,
};
use ionian_wire::frame::{Body, Hello, Message, Register, Role, encode};

const CLUSTER: ClusterId = ClusterId::new(77);
const LOG: LogId = LogId::new(1);
const ROOT: usize = 0;
const LEAF: usize = 1;
/// The places of the cluster: root, leaf, then shard 0 and shard 1 with two replicas each. Place `i` is on node `i + 1`.
const PLACES: usize = 6;

const fn node(place: usize) -> NodeId {
    NodeId::new(place as u32 + 1)
}

/// What an operator asks for. A plan, or what is refused, changes nothing.
fn operate(directory: &mut Directory, now: Time, plan: bool, operation: Operation) -> Operated {
    let request = Operate { plan, operation };
    let bytes = request.encode();
    assert_eq!(Operate::decode(&bytes), Ok(request));
    let before = directory.snapshot();
    let (_, answer) = directory.operate(now, &Asker::OPERATOR, &bytes);
    let answer = Operated::decode(&answer).unwrap();
    if plan || answer.refused {
        assert_eq!(directory.snapshot(), before, "nothing is changed");
    }
    answer
}

fn spec(class: Durability) -> ClusterSpec {
    let nodes: BTreeMap<NodeId, NodeSpec> = (0..PLACES)
        .map(|place| {
            (
                node(place),
                NodeSpec {
                    domain: place as u32,
                    address: format!("n{place}:1"),
                },
            )
        })
        .collect();
    let log = LogSpec {
        name: String::from("default"),
        mode: OrderingMode::Scalog,
        class,
        root: vec![node(ROOT)],
        root_quorum: RootQuorum::Majority,
        tree: TreeSpec::leaf(node(LEAF)),
        quorum: None,
        shards: vec![vec![node(2), node(3)], vec![node(4), node(5)]],
    };
    ClusterSpec {
        nodes,
        logs: vec![log],
    }
}

fn directory(class: Durability) -> Directory {
    directory_with(class, DirectoryConfig::default())
}

fn directory_with(class: Durability, config: DirectoryConfig) -> Directory {
    Directory::new(CLUSTER, &spec(class), config, Time::ZERO).unwrap()
}

/// The role, shard and slot of a place.
const fn role(place: usize) -> (Role, ShardId, Slot) {
    match place {
        ROOT => (Role::Root, ShardId::ZERO, Slot::ZERO),
        LEAF => (Role::Leaf, ShardId::ZERO, Slot::ZERO),
        _ => (
            Role::Replica,
            ShardId::new((place as u32 - 2) / 2),
            Slot::new(place as u8 % 2),
        ),
    }
}

fn register(place: usize, request: u64, last_inc: Inc, has_data: bool) -> Register {
    let (role, shard, slot) = role(place);
    Register {
        cluster: if has_data {
            CLUSTER
        } else {
            ClusterId::default()
        },
        node: node(place),
        role,
        log: LOG,
        shard,
        slot,
        vertex: VertexId::ZERO,
        last_inc,
        has_data,
        request,
    }
}

fn hello(place: usize, inc: Inc) -> Hello {
    let (role, shard, slot) = role(place);
    Hello {
        cluster: CLUSTER,
        wire_version: ionian_wire::WIRE_VERSION,
        role,
        node: node(place),
        inc,
        log: LOG,
        shard,
        slot,
        epoch: ViewId::ZERO,
        last: EntryNo::ZERO,
        client: ClientId::new(0),
        session: SessionNo::ZERO,
    }
}

fn bytes<B: Body>(body: &B) -> Vec<u8> {
    let mut out = vec![0; 4096];
    let len = encode(&mut out, body, &[]).unwrap();
    out.truncate(len);
    out
}

fn message(bytes: &[u8]) -> Message<'_> {
    let (message, rest) = Message::new_checked(bytes).unwrap();
    assert!(rest.is_empty(), "bytes after the message");
    message
}

/// Everything that may leave now.
fn drain(directory: &mut Directory, now: Time) -> Vec<(ConnId, Vec<u8>)> {
    let mut out = Vec::new();
    let mut sent = Vec::new();
    while let Some(conn) = directory.poll(now, |_| usize::MAX, &mut out) {
        sent.push((conn, out.clone()));
    }
    sent
}

/// Makes everything durable.
fn persist(directory: &mut Directory) {
    if let Some(snapshot) = directory.take_snapshot() {
        directory.persisted(snapshot.version);
    }
}
