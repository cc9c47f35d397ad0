//! Driving machines by hand: messages in as values, messages out as bytes.
#![allow(dead_code, reason = "each test uses a part")]

use ionian_core::outbox::{Outbox, OutboxLimits};
use ionian_store::{Store, StoreConfig};
use ionian_types::{
    ClientId, ClusterId, ConnId, Durability, EntryNo, Inc, LogId, NodeId, SessionNo, ShardId, Slot,
    ViewId,
};
use ionian_wire::WIRE_VERSION;
use ionian_wire::frame::{Body, Hello, Message, Role, encode};

pub(crate) const CLUSTER: ClusterId = ClusterId::new(7);
pub(crate) const LOG: LogId = LogId::new(1);

/// An outbox with room everywhere.
pub(crate) fn outbox() -> Outbox {
    let mut out = Outbox::new(OutboxLimits {
        connections: 64,
        ..OutboxLimits::default()
    });
    make_room(&mut out);
    out
}

/// Room on every connection.
pub(crate) fn make_room(out: &mut Outbox) {
    for conn in 0..64 {
        out.set_room(ConnId::new(conn), 4 << 20);
    }
}

/// What was sent, with the bodies that lie in a store.
pub(crate) fn drain(out: &mut Outbox, store: Option<&Store>) -> Vec<(ConnId, Vec<u8>)> {
    let sent = out
        .envelopes()
        .iter()
        .map(|envelope| {
            let mut bytes = out.head(envelope).to_vec();
            if let (Some(run), Some(store)) = (&envelope.body, store) {
                bytes.extend_from_slice(store.bytes(run));
            }
            (envelope.conn, bytes)
        })
        .collect();
    out.clear();
    make_room(out);
    sent
}

/// A message as bytes.
pub(crate) fn bytes<B: Body>(body: &B, tail: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 64 + B::LEN + tail.len()];
    let len = encode(&mut bytes, body, &[tail]).unwrap();
    bytes.truncate(len);
    bytes
}

/// Bytes as a message.
pub(crate) fn message(bytes: &[u8]) -> Message<'_> {
    Message::new_checked(bytes).unwrap().0
}

/// A greeting.
pub(crate) fn hello(role: Role, node: u32, inc: u64, shard: u32, slot: u8) -> Vec<u8> {
    let hello = Hello {
        cluster: CLUSTER,
        wire_version: WIRE_VERSION,
        role,
        node: NodeId::new(node),
        inc: Inc::new(inc),
        log: LOG,
        shard: ShardId::new(shard),
        slot: Slot::new(slot),
        epoch: ViewId::ZERO,
        last: EntryNo::ZERO,
        client: ClientId::new(u128::from(inc)),
        session: SessionNo::ZERO,
    };
    bytes(&hello, &[])
}

/// A store in memory with small chunks.
pub(crate) fn store(shard: ShardId, segments: u8) -> Store {
    Store::new(StoreConfig {
        chunk_bytes: 4096,
        extent_bytes: 4096,
        block_bytes: 512,
        memory_bytes_max: 256 << 10,
        journal_bytes_max: 16 << 10,
        journal_chunk_bytes: 4096,
        journal_extent_bytes: 4096,
        ..StoreConfig::new(
            CLUSTER,
            NodeId::new(9),
            LOG,
            shard,
            segments,
            Durability::D0,
        )
    })
}
