//! Records, configurations and a model disk for the tests of the store.
#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod disk;

use ionian_store::{Store, StoreConfig, StoreError};
use ionian_types::{
    ClientId, ClientSeq, ClusterId, Durability, GuardEpoch, LogId, Lsn, NodeId, NsEpoch, SegmentId,
    SessionNo, ShardId, Slot, ViewId,
};
use ionian_wire::crc::crc32c;
use ionian_wire::record::{RECORD_HEADER_BYTES, RecordHeader, RecordKind, encoded_bytes};

pub(crate) const LOG: LogId = LogId::new(7);
pub(crate) const SHARD: ShardId = ShardId::new(3);

/// A configuration with chunks of `chunk_bytes`, of which `chunks` fit into memory.
pub(crate) fn config(
    class: Durability,
    segments: u8,
    chunk_bytes: u32,
    chunks: u64,
) -> StoreConfig {
    let cluster = ClusterId::new(0xc1);
    StoreConfig {
        chunk_bytes,
        memory_bytes_max: chunks * u64::from(chunk_bytes),
        extent_bytes: u64::from(chunk_bytes) * 2,
        block_bytes: 512,
        write_bytes_max: 1024,
        journal_chunk_bytes: 2048,
        journal_extent_bytes: 4096,
        journal_bytes_max: 1 << 16,
        fetches_max: 2,
        ..StoreConfig::new(cluster, NodeId::new(5), LOG, SHARD, segments, class)
    }
}

/// One sealed record.
pub(crate) fn record(slot: Slot, pos: u64, generation: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; encoded_bytes(payload.len())];
    bytes[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + payload.len()].copy_from_slice(payload);
    let header = RecordHeader {
        kind: RecordKind::Data,
        flags: 0,
        log: LOG,
        segment: SegmentId { shard: SHARD, slot },
        ns_epoch: NsEpoch::ZERO,
        generation: ViewId::new(generation),
        position: Lsn::new(pos),
        guard: GuardEpoch::new(1),
        client: ClientId::new(9),
        session: SessionNo::new(1),
        seq: ClientSeq::new(pos),
        payload_bytes: payload.len() as u32,
        payload_crc: crc32c(payload),
    };
    header.emit(&mut bytes);
    bytes
}

/// Appends records that are encoded already.
pub(crate) fn append(store: &mut Store, slot: Slot, records: &[Vec<u8>]) -> Result<(), StoreError> {
    let bytes = records.concat();
    let first = store.len(slot);
    store.reserve(slot, bytes.len())?.copy_from_slice(&bytes);
    store.commit(slot, first, bytes.len());
    Ok(())
}
