//! Packets come back as they were written, damage is seen, and no bytes make the parser panic.

use super::*;
use proptest::prelude::*;

const PREFIX: PacketPrefix = PacketPrefix {
    session: SessionId::new(0x0102_0304_0506_0708),
    epoch: GuardEpoch::new(9),
    token: Token::new(0xa1a2_a3a4_a5a6_a7a8),
};

fn emit(header: &PacketHeader, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0xee; PACKET_BYTES_MAX];
    let (first, second) = payload.split_at(payload.len() / 2);
    let len = header
        .emit(&PREFIX.to_bytes(), [first, second], &mut out)
        .unwrap();
    out.truncate(len);
    out
}

fn data(seq: u64, sack: Option<Sack>) -> PacketHeader {
    PacketHeader {
        kind: PacketKind::Data,
        ask: sack.is_some(),
        seq,
        ack: 4,
        credit: 5,
        sack,
    }
}

#[test]
fn golden_bytes_do_not_change_without_a_version() {
    let bytes = emit(&data(3, Some(Sack([6, 7, 8, 9]))), b"ionian");
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let golden = "0807060504030201 0900000000000000 a8a7a6a5a4a3a2a1 02 01 0300 06000000
                  0300000000000000 0400000000000000 0500000000000000
                  0600000000000000 0700000000000000 0800000000000000 0900000000000000
                  696f6e69616e e024da55";
    let golden: String = golden.split_whitespace().collect();
    assert_eq!(
        hex, golden,
        "the layout changed: raise WIRE_VERSION and update the golden bytes"
    );
}

#[test]
fn the_prefix_comes_first() {
    let bytes = emit(&data(1, None), b"x");
    assert_eq!(PacketPrefix::peek(&bytes), Some(PREFIX));
    assert_eq!(bytes[..PREFIX_BYTES], PREFIX.to_bytes());
    assert_eq!(PacketPrefix::peek(&bytes[..PREFIX_BYTES - 1]), None);
    assert!(!format!("{PREFIX:?}").contains(&PREFIX.token.to_string()));
}

#[test]
fn a_short_output_is_refused_untouched() {
    let mut out = [0xee; PACKET_OVERHEAD_BYTES];
    let error = data(1, None).emit(&PREFIX.to_bytes(), [b"x", b""], &mut out);
    assert_eq!(
        error,
        Err(WireError::Full {
            need: PACKET_OVERHEAD_BYTES + 1,
            room: PACKET_OVERHEAD_BYTES
        })
    );
    assert_eq!(out, [0xee; PACKET_OVERHEAD_BYTES]);
}

/// Rewrites a field of a good packet, repairs the checksum, and returns what the parser says.
fn with_field(at: usize, value: &[u8]) -> Result<(), WireError> {
    let mut bytes = emit(&data(3, None), b"ionian");
    bytes[at..at + value.len()].copy_from_slice(value);
    let covered = bytes.len() - PACKET_CRC_BYTES;
    let crc = crc32c(&bytes[..covered]);
    bytes[covered..].copy_from_slice(&crc.to_le_bytes());
    PacketView::new_checked(&bytes).map(|_| ())
}

#[test]
fn every_field_is_checked() {
    assert_eq!(with_field(0, &[]), Ok(()));
    assert!(matches!(
        with_field(24, &[9]),
        Err(WireError::Version { found: 9, .. })
    ));
    let fields: [(usize, &[u8]); 10] = [
        (25, &[0]),
        (25, &[4]),
        (25, &[2]),
        (26, &[0, 1]),
        (26, &[4, 0]),
        (28, &[7]),
        (28, &[0xff; 4]),
        (32, &[0; 8]),
        (40, &[0xff; 8]),
        (48, &[0xff; 8]),
    ];
    for (at, value) in fields {
        assert!(
            matches!(with_field(at, value), Err(WireError::Range { .. })),
            "{at} {value:?}"
        );
    }
    assert!(matches!(
        with_field(26, &[1, 0]),
        Err(WireError::Truncated { .. })
    ));
}

#[test]
fn bits_of_a_bitmap() {
    let mut sack = Sack::default();
    assert_eq!(sack.end(), 0);
    for index in [0, 63, 64, 200, 255] {
        sack.set(index);
        assert!(sack.get(index));
        assert_eq!(sack.end(), index + 1);
    }
    assert!(!sack.get(1) && !sack.get(256) && !sack.get(u64::MAX));
}

proptest! {
    #[test]
    fn packets_come_back(
        kind in 0..3, ask: bool, seq in 1u64..1 << 62, ack in 0u64..1 << 62, credit in 0u64..1 << 62,
        words: Option<[u64; 4]>, payload in proptest::collection::vec(any::<u8>(), 1..600),
    ) {
        let (kind, seq, payload) = match kind {
            0 => (PacketKind::Data, seq, payload),
            1 => (PacketKind::Ack, 0, Vec::new()),
            _ => (PacketKind::Close, 0, Vec::new()),
        };
        let header = PacketHeader { kind, ask, seq, ack, credit, sack: words.map(Sack) };
        let bytes = emit(&header, &payload);
        let view = PacketView::new_checked(&bytes).unwrap();
        prop_assert_eq!(view.header(), &header);
        prop_assert_eq!(view.payload(), &payload[..]);
        prop_assert_eq!(bytes.len(), header.header_bytes() + payload.len() + PACKET_CRC_BYTES);
    }

    #[test]
    fn any_flipped_bit_is_seen(payload in proptest::collection::vec(any::<u8>(), 1..100), at: prop::sample::Index, bit in 0..8) {
        let mut bytes = emit(&data(7, Some(Sack([1, 2, 3, 4]))), &payload);
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        let is_checksum = matches!(PacketView::new_checked(&bytes), Err(WireError::Checksum { .. }));
        prop_assert!(is_checksum);
    }

    #[test]
    fn a_cut_packet_is_refused(payload in proptest::collection::vec(any::<u8>(), 1..100), at: prop::sample::Index) {
        let bytes = emit(&data(7, None), &payload);
        prop_assert!(PacketView::new_checked(&bytes[..at.index(bytes.len())]).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes: Vec<u8>) {
        let _ = PacketView::new_checked(&bytes);
        // The same bytes with a good checksum reach the checks of the fields.
        let crc = crc32c(&bytes);
        bytes.extend(crc.to_le_bytes());
        let _ = PacketView::new_checked(&bytes);
    }

    #[test]
    fn arbitrary_fields_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 52..200), kind in 0u8..5, flags in 0u8..5) {
        bytes[24] = VERSION;
        bytes[25] = kind;
        bytes[26] = flags;
        bytes[27] = 0;
        let crc = crc32c(&bytes);
        bytes.extend(crc.to_le_bytes());
        if let Ok(view) = PacketView::new_checked(&bytes) {
            prop_assert!(view.payload().len() < bytes.len());
        }
    }
}
