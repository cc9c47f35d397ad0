//! Tests of records: golden bytes, round trips, damage.

use super::*;
use proptest::prelude::*;

fn header(payload: &[u8]) -> RecordHeader {
    RecordHeader {
        kind: RecordKind::Data,
        flags: 0,
        log: LogId::new(3),
        segment: SegmentId {
            shard: ShardId::new(7),
            slot: Slot::new(1),
        },
        ns_epoch: NsEpoch::new(2),
        generation: ViewId::new(9),
        position: Lsn::new(1 << 40),
        guard: GuardEpoch::new(5),
        client: ClientId::new(0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00),
        session: SessionNo::new(4),
        seq: ClientSeq::new(77),
        payload_bytes: payload.len() as u32,
        payload_crc: crc32c(payload),
    }
}

fn encode(header: &RecordHeader, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; header.encoded_bytes()];
    header.emit(&mut bytes);
    bytes[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + payload.len()].copy_from_slice(payload);
    bytes
}

#[test]
fn golden_bytes_do_not_change_without_a_version() {
    let bytes = encode(&header(b"ionian"), b"ionian");
    let golden = "496f6e52020000000300000007000000010000000200000009000000000000000000000000010000050000000000000000ffee\
                  ddccbbaa99887766554433221104000000060000004d00000000000000";
    let hex: String = bytes[..80].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, golden.replace(' ', ""));
    assert_eq!(bytes.len(), 96);
}

#[test]
fn an_empty_payload_is_legal() {
    let bytes = encode(&header(b""), b"");
    assert_eq!(RecordView::new_checked(&bytes).unwrap().payload(), b"");
}

proptest! {
    #[test]
    fn records_come_back(payload in proptest::collection::vec(any::<u8>(), 0..600)) {
        let header = header(&payload);
        let bytes = encode(&header, &payload);
        let view = RecordView::new_checked(&bytes).unwrap();
        prop_assert_eq!(view.header(), &header);
        prop_assert_eq!(view.payload(), &payload[..]);
    }

    #[test]
    fn placing_what_a_client_sent_gives_the_same_record(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        let header = header(&payload);
        let mut bytes = vec![0xaa; header.encoded_bytes()];
        emit_unplaced(&mut bytes, header.client, header.session, header.seq, &payload).unwrap();
        prop_assert!(RecordView::new_unsealed(&bytes).is_ok());
        let place = Placement {
            log: header.log, segment: header.segment, ns_epoch: header.ns_epoch,
            generation: header.generation, position: header.position, guard: header.guard,
        };
        place.seal(&mut bytes);
        prop_assert_eq!(bytes, encode(&header, &payload));
    }

    #[test]
    fn any_flipped_bit_is_seen(payload in proptest::collection::vec(any::<u8>(), 1..100), at: prop::sample::Index, bit in 0..8) {
        let mut bytes = encode(&header(&payload), &payload);
        let covered = RECORD_HEADER_BYTES + payload.len();
        bytes[at.index(covered)] ^= 1u8 << bit;
        prop_assert!(RecordView::new_checked(&bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = RecordView::new_checked(&bytes);
        prop_assert!(Records::sealed(&bytes).count() <= bytes.len());
    }
}
