//! Tests of the client machine: what it sends and hands out, rule by rule, and over random worlds of servers.

mod appends;
mod fates;
mod merging;
mod reading;
mod world;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use ionian_types::*;
use ionian_wire::WIRE_VERSION;
use ionian_wire::directory::{ClusterMap, Endpoint, LogInfo, ReplicaInfo, ShardInfo};
use ionian_wire::frame::{self, Body, Hello, Message, Role};
use ionian_wire::record::{Placement, emit_unplaced, encoded_bytes};

use super::*;
use crate::outbox::OutboxLimits;

pub(super) const CLUSTER: ClusterId = ClusterId::new(0xc1);
pub(super) const LOG: LogId = LogId::new(1);
pub(super) const CLIENT: ClientId = ClientId::new(0xabc);
pub(super) const ROOM: usize = 8 << 20;

/// A machine, its outbox, and the messages that it sent: (connection, encoded message).
pub(super) struct Bench {
    pub(super) client: Client,
    out: Outbox,
    pub(super) now: Time,
    pub(super) room: usize,
}

pub(super) fn config() -> ClientConfig {
    ClientConfig {
        window: 64,
        outstanding_max: 256,
        lanes_max: 8,
        send_bytes_max: 2 << 20,
        requests_max: 16,
        ranges_max: 16,
        connections_max: 32,
        subscribe_bytes_max: ionian_wire::record::RECORD_ENCODED_BYTES_MAX,
        seed: 0,
        ..ClientConfig::new(CLUSTER, LOG, CLIENT)
    }
}

pub(super) fn replica(shard: u32, slot: u8) -> PeerKind {
    PeerKind::Replica {
        shard: ShardId::new(shard),
        slot: Slot::new(slot),
    }
}

pub(super) fn segment(shard: u32, slot: u8) -> SegmentId {
    SegmentId {
        shard: ShardId::new(shard),
        slot: Slot::new(slot),
    }
}

/// The connection that tests use for a peer.
pub(super) fn conn(peer: PeerKind) -> ConnId {
    match peer {
        PeerKind::Root => ConnId::new(0),
        PeerKind::Replica { shard, slot } => {
            ConnId::new(1 + shard.get() * 4 + u32::from(slot.get()))
        }
    }
}

/// A map of shards, each given as the generations of its replicas; 0 is closed.
pub(super) fn map(version: u64, shards: &[&[u64]]) -> ClusterMap {
    let endpoint = |node: u32, up: bool| Endpoint {
        node: NodeId::new(node),
        inc: Inc::new(u64::from(up)),
        address: String::new(),
    };
    let shards = shards
        .iter()
        .enumerate()
        .map(|(shard, replicas)| ShardInfo {
            shard: ShardId::new(shard as u32),
            rank: shard as u32,
            epoch: ViewId::new(1),
            open: true,
            finalized: false,
            quorum: replicas.len() as u8,
            replicas: replicas
                .iter()
                .enumerate()
                .map(|(slot, generation)| ReplicaInfo {
                    endpoint: endpoint((10 * shard + slot) as u32 + 1, *generation > 0),
                    generation: ViewId::new(*generation),
                })
                .collect(),
        });
    ClusterMap {
        version,
        logs: vec![LogInfo {
            log: LOG,
            name: String::from("default"),
            mode: OrderingMode::Scalog,
            class: Durability::D1,
            roots: vec![endpoint(99, true)],
            leader: None,
            tree: Vec::new(),
            tree_next: Vec::new(),
            coming: Vec::new(),
            shards: shards.collect(),
        }],
    }
}

/// An owned message, as a server would read it.
pub(super) struct Sent {
    pub(super) conn: ConnId,
    pub(super) bytes: Vec<u8>,
}

impl Sent {
    pub(super) fn message(&self) -> Message<'_> {
        Message::new_checked(&self.bytes).unwrap().0
    }
}

impl Bench {
    pub(super) fn new(config: ClientConfig) -> Self {
        let out = Outbox::new(OutboxLimits {
            arena_bytes: 4 << 20,
            messages: 4096,
            connections: 32,
        });
        let client = Client::new(config).unwrap();
        Self {
            client,
            out,
            now: Time::from_ns(1_000_000),
            room: ROOM,
        }
    }

    /// A machine that knows a map and is connected to everybody in it.
    pub(super) fn connected(config: ClientConfig, shards: &[&[u64]]) -> Self {
        let mut bench = Self::new(config);
        bench.client.set_map(bench.now, &map(1, shards));
        bench.connect(PeerKind::Root);
        for (shard, replicas) in shards.iter().enumerate() {
            for slot in 0..replicas.len() {
                bench.connect(replica(shard as u32, slot as u8));
            }
        }
        bench
    }

    pub(super) fn connect(&mut self, peer: PeerKind) {
        self.out.set_room(conn(peer), self.room);
        self.client
            .connected(self.now, conn(peer), peer, &mut self.out)
            .unwrap();
        let hellos = self.take();
        assert!(matches!(hellos[..], [ref hello] if matches!(hello.message(), Message::Hello(..))));
    }

    pub(super) fn disconnect(&mut self, peer: PeerKind) {
        self.client.disconnected(self.now, conn(peer));
    }

    fn take(&mut self) -> Vec<Sent> {
        let envelopes = self.out.envelopes().iter();
        let sent = envelopes
            .map(|envelope| Sent {
                conn: envelope.conn,
                bytes: self.out.head(envelope).to_vec(),
            })
            .collect();
        self.out.clear();
        sent
    }

    /// Everything that the machine sends now.
    pub(super) fn flush(&mut self) -> Vec<Sent> {
        for conn in 0..32 {
            self.out.set_room(ConnId::new(conn), self.room);
        }
        self.client.flush(self.now, &mut self.out);
        self.take()
    }

    /// Lets time pass and does what is due.
    pub(super) fn wait(&mut self, span: Nanos) -> Vec<Sent> {
        self.now = self.now.after(span);
        self.client.on_deadline(self.now);
        self.flush()
    }

    pub(super) fn append(&mut self, payload: &[u8]) -> Ticket {
        self.client
            .append(self.now, payload, Choice::Policy)
            .unwrap()
    }

    pub(super) fn receive<B: Body>(&mut self, peer: PeerKind, body: &B, tail: &[u8]) {
        self.receive_into(peer, body, tail, &mut ());
    }

    pub(super) fn receive_into<B: Body, S: Sink>(
        &mut self,
        peer: PeerKind,
        body: &B,
        tail: &[u8],
        sink: &mut S,
    ) {
        let mut bytes = vec![0; frame::MESSAGE_HEADER_BYTES + B::LEN + tail.len()];
        frame::encode(&mut bytes, body, &[tail]).unwrap();
        let (message, _) = Message::new_checked(&bytes).unwrap();
        self.client.handle(self.now, conn(peer), &message, sink);
    }

    pub(super) fn completions(&mut self) -> Vec<Completion> {
        core::iter::from_fn(|| self.client.poll_completion()).collect()
    }

    pub(super) fn answers(&mut self) -> Vec<(RequestId, Answer, Vec<u8>)> {
        let mut answers = Vec::new();
        let mut payload = Vec::new();
        while let Some((id, answer)) = self.client.poll_answer(&mut payload) {
            answers.push((id, answer, payload.clone()));
        }
        answers
    }
}

/// A sealed record of a shard, as a replica delivers it.
pub(super) fn sealed(segment: SegmentId, position: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; encoded_bytes(payload.len())];
    emit_unplaced(
        &mut bytes,
        ClientId::new(5),
        SessionNo::new(1),
        ClientSeq::new(position),
        payload,
    )
    .unwrap();
    Placement {
        log: LOG,
        segment,
        ns_epoch: NsEpoch::ZERO,
        generation: ViewId::new(1),
        position: Lsn::new(position),
        guard: GuardEpoch::ZERO,
    }
    .seal(&mut bytes);
    bytes
}

/// A small generator of numbers for worlds (splitmix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

#[test]
fn a_peer_that_is_somebody_else_is_not_used() {
    let mut bench = Bench::connected(config(), &[&[1]]);
    let hello = Hello {
        cluster: ClusterId::new(0xbad),
        wire_version: WIRE_VERSION,
        role: Role::Replica,
        node: NodeId::new(1),
        inc: Inc::new(1),
        log: LOG,
        shard: ShardId::ZERO,
        slot: Slot::ZERO,
        epoch: ViewId::new(1),
        last: EntryNo::ZERO,
        client: ClientId::default(),
        session: SessionNo::ZERO,
    };
    bench.receive(replica(0, 0), &hello, &[]);
    bench.append(b"x");
    assert!(bench.flush().is_empty(), "nothing goes to another cluster");
    bench.connect(replica(0, 0));
    bench.receive(
        replica(0, 0),
        &Hello {
            cluster: CLUSTER,
            ..hello
        },
        &[],
    );
    assert_eq!(bench.flush().len(), 1);
}

#[test]
fn an_impossible_configuration_is_refused_by_name() {
    let error = Client::new(ClientConfig {
        window: 0,
        ..config()
    })
    .unwrap_err();
    assert_eq!((error.field, error.value), ("window", 0));
    let error = Client::new(ClientConfig {
        send_bytes_max: 1000,
        ..config()
    })
    .unwrap_err();
    assert_eq!(error.field, "send_bytes_max");
}
