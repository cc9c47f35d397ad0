//! Encoded records to measure a store with.

use ionian_types::{
    ClientId, ClientSeq, GuardEpoch, LogId, Lsn, NsEpoch, SegmentId, SessionNo, ShardId, Slot,
    ViewId,
};
use ionian_wire::crc::crc32c;
use ionian_wire::record::{RECORD_HEADER_BYTES, RecordHeader, RecordKind, encoded_bytes};

/// A run of `count` sealed records of `payload_bytes` bytes each, of shard 1 of log 1, slot 0, at positions 0 and up. A
/// measurement appends the same run again and again: the store takes its caller's word for positions.
#[must_use]
pub fn sample_run(count: usize, payload_bytes: usize) -> Vec<u8> {
    let encoded = encoded_bytes(payload_bytes);
    let payload = RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + payload_bytes;
    let mut bytes = vec![0u8; count * encoded];
    for (at, record) in bytes.chunks_exact_mut(encoded).enumerate() {
        record[payload.clone()].fill(7);
        let header = RecordHeader {
            kind: RecordKind::Data,
            flags: 0,
            log: LogId::new(1),
            segment: SegmentId {
                shard: ShardId::new(1),
                slot: Slot::ZERO,
            },
            ns_epoch: NsEpoch::ZERO,
            generation: ViewId::new(1),
            position: Lsn::new(at as u64),
            guard: GuardEpoch::new(1),
            client: ClientId::new(1),
            session: SessionNo::new(1),
            seq: ClientSeq::new(at as u64),
            payload_bytes: payload_bytes as u32,
            payload_crc: crc32c(&record[payload.clone()]),
        };
        header.emit(record);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use ionian_wire::record::RecordView;

    use super::*;

    #[test]
    fn a_run_is_of_sound_records() {
        let run = sample_run(3, 100);
        for (at, record) in run.chunks(encoded_bytes(100)).enumerate() {
            let view = RecordView::new_checked(record).unwrap();
            assert_eq!(view.payload(), [7; 100]);
            assert_eq!(view.header().position, Lsn::new(at as u64));
        }
        assert_eq!(run.len(), 3 * encoded_bytes(100));
    }
}
