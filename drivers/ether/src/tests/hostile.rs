//! Frames that are foreign, cut, damaged or made up: dropped with the right reason, without a panic and without losing a slot.

use proptest::prelude::*;

use super::*;
use crate::EtherStats;

/// A good frame from the near host to the far one.
fn good(segment: &mut Segment) -> Vec<u8> {
    segment.send(b"a payload of some bytes");
    let frame = segment.under_way().pop().expect("sent");
    assert_eq!(segment.lose(), 1);
    frame
}

/// What the far host counts, besides packets, when it is given a frame.
fn reason(segment: &mut Segment, bytes: &[u8]) -> EtherStats {
    let before = segment.far.stats();
    segment.inject(bytes);
    let received = segment.receive_far().len() as u64;
    let after = segment.far.stats();
    assert_eq!(after.rx_packets - before.rx_packets, received);
    assert_eq!(segment.pool.in_use(), 0);
    EtherStats {
        rx_packets: received,
        rx_foreign: after.rx_foreign - before.rx_foreign,
        rx_port: after.rx_port - before.rx_port,
        rx_vlan: after.rx_vlan - before.rx_vlan,
        rx_truncated: after.rx_truncated - before.rx_truncated,
        rx_oversize: after.rx_oversize - before.rx_oversize,
        rx_corrupt: after.rx_corrupt - before.rx_corrupt,
        rx_fragments: after.rx_fragments - before.rx_fragments,
        rx_options: after.rx_options - before.rx_options,
        ..EtherStats::default()
    }
}

/// Makes the checksum of an IPv4 header right again.
fn mend(frame: &mut [u8]) {
    let bytes = usize::from(frame[14] & 0x0f) * 4;
    frame[24] = 0;
    frame[25] = 0;
    let mut sum: u32 = frame[14..14 + bytes]
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    frame[24] = !(sum >> 8) as u8;
    frame[25] = !sum as u8;
}

#[test]
fn every_reason_has_its_counter() {
    let mut segment = Segment::acquainted(v4());
    let frame = good(&mut segment);
    let one = |change: fn(&mut EtherStats)| {
        let mut stats = EtherStats::default();
        change(&mut stats);
        stats
    };
    type Change = fn(&mut Vec<u8>);
    type Count = fn(&mut EtherStats);
    let cases: &[(&str, Change, Count)] = &[
        ("as it was", |_| {}, |s| s.rx_packets = 1),
        ("with padding", |f| f.extend([9; 7]), |s| s.rx_packets = 1),
        ("for another station", |f| f[5] = 9, |s| s.rx_foreign = 1),
        ("from a group", |f| f[6] = 1, |s| s.rx_foreign = 1),
        ("from itself", |f| f[11] = 2, |s| s.rx_foreign = 1),
        (
            "of another protocol",
            |f| f[13] = 0x99,
            |s| s.rx_foreign = 1,
        ),
        (
            "tagged",
            |f| f[12..14].copy_from_slice(&[0x81, 0]),
            |s| s.rx_vlan = 1,
        ),
        (
            "for another address",
            |f| {
                f[33] = 9;
                mend(f)
            },
            |s| s.rx_foreign = 1,
        ),
        (
            "from a group of addresses",
            |f| {
                f[26] = 224;
                mend(f)
            },
            |s| s.rx_foreign = 1,
        ),
        (
            "to everybody's hardware",
            |f| f[..6].fill(0xff),
            |s| s.rx_foreign = 1,
        ),
        (
            "TCP",
            |f| {
                f[23] = 6;
                mend(f)
            },
            |s| s.rx_foreign = 1,
        ),
        ("to another port", |f| f[37] ^= 1, |s| s.rx_port = 1),
        (
            "of a wrong version",
            |f| {
                f[14] = 0x55;
                mend(f)
            },
            |s| s.rx_corrupt = 1,
        ),
        (
            "of a header of 16 bytes",
            |f| f[14] = 0x44,
            |s| s.rx_corrupt = 1,
        ),
        (
            "with options",
            |f| {
                f[14] = 0x46;
                mend(f)
            },
            |s| s.rx_options = 1,
        ),
        (
            "a first fragment",
            |f| {
                f[20] |= 0x20;
                mend(f)
            },
            |s| s.rx_fragments = 1,
        ),
        (
            "a later fragment",
            |f| {
                f[21] = 3;
                mend(f)
            },
            |s| s.rx_fragments = 1,
        ),
        (
            "a wrong header checksum",
            |f| f[22] ^= 4,
            |s| s.rx_corrupt = 1,
        ),
        ("a damaged payload", |f| f[50] ^= 1, |s| s.rx_corrupt = 1),
        ("a wrong checksum", |f| f[40] ^= 1, |s| s.rx_corrupt = 1),
        ("from port 0", |f| f[34..36].fill(0), |s| s.rx_corrupt = 1),
        (
            "without a checksum, which IPv4 permits",
            |f| f[40..42].fill(0),
            |s| s.rx_packets = 1,
        ),
        (
            "cut within the payload",
            |f| f.truncate(50),
            |s| s.rx_truncated = 1,
        ),
        (
            "a datagram longer than its packet",
            |f| f[38] = 1,
            |s| s.rx_truncated = 1,
        ),
        (
            "a datagram shorter than its header",
            |f| f[39] = 7,
            |s| s.rx_corrupt = 1,
        ),
        (
            "a packet shorter than its header",
            |f| f[16..18].copy_from_slice(&[0, 19]),
            |s| s.rx_corrupt = 1,
        ),
        (
            "an ARP of another network",
            |f| f[12..16].copy_from_slice(&[8, 6, 0, 6]),
            |s| s.rx_foreign = 1,
        ),
    ];
    for (name, change, count) in cases {
        let mut bytes = frame.clone();
        change(&mut bytes);
        let mut seen = reason(&mut segment, &bytes);
        if *name == "an ARP of another network" {
            // Its lengths are those of some other network, too, and may reach beyond the frame.
            seen.rx_foreign += std::mem::take(&mut seen.rx_truncated);
            seen.rx_foreign += std::mem::take(&mut seen.rx_corrupt);
        }
        assert_eq!(seen, one(*count), "{name}");
    }
    segment.close();
}

#[test]
fn ipv6_has_its_own_reasons() {
    let mut segment = Segment::acquainted(v6());
    let frame = good(&mut segment);
    type Change = fn(&mut Vec<u8>);
    type Count = fn(&EtherStats) -> u64;
    let cases: &[(&str, Change, Count)] = &[
        ("as it was", |_| {}, |s| s.rx_packets),
        ("a fragment", |f| f[20] = 44, |s| s.rx_fragments),
        ("hop-by-hop options", |f| f[20] = 0, |s| s.rx_options),
        ("destination options", |f| f[20] = 60, |s| s.rx_options),
        ("a routing header", |f| f[20] = 43, |s| s.rx_options),
        ("TCP", |f| f[20] = 6, |s| s.rx_foreign),
        ("of a wrong version", |f| f[14] = 0x45, |s| s.rx_corrupt),
        (
            "without a checksum",
            |f| f[60..62].fill(0),
            |s| s.rx_corrupt,
        ),
        ("an address damaged", |f| f[36] ^= 1, |s| s.rx_corrupt),
        (
            "cut within the payload",
            |f| f.truncate(70),
            |s| s.rx_truncated,
        ),
        (
            "IPv4",
            |f| f[12..14].copy_from_slice(&[8, 0]),
            |s| s.rx_foreign,
        ),
    ];
    for (name, change, count) in cases {
        let mut bytes = frame.clone();
        change(&mut bytes);
        let seen = reason(&mut segment, &bytes);
        assert_eq!(count(&seen), 1, "{name}: {seen:?}");
    }
    segment.close();
}

#[test]
fn words_of_neighbours_that_passed_a_router_or_are_damaged_are_dropped() {
    let mut segment = Segment::acquainted(v6());
    let headers = segment.far.own.headers;
    let mut question = [0; 86];
    let stranger = (ip("fd00::77"), OTHER_MAC);
    crate::emit::question(&mut question, headers, stranger, ip("fd00::2"), None);
    type Change = fn(&mut [u8; 86]);
    let cases: [(&str, Change); 6] = [
        ("through a router", |f| f[21] = 254),
        ("damaged", |f| f[60] ^= 1),
        ("with a code", |f| f[55] = 1),
        ("with an option of no length", |f| f[79] = 0),
        ("with an option beyond its end", |f| f[79] = 9),
        ("from a group", |f| f[22] = 0xff),
    ];
    for (name, change) in cases {
        let mut bytes = question;
        change(&mut bytes);
        let before = segment.far.stats();
        segment.inject(&bytes);
        assert!(segment.receive_far().is_empty());
        let after = segment.far.stats();
        assert_eq!(after.answered, before.answered, "{name}");
        assert_eq!(
            after.rx_corrupt + after.rx_truncated,
            before.rx_corrupt + before.rx_truncated + 1,
            "{name}"
        );
    }
    segment.inject(&question);
    segment.settle();
    assert_eq!(segment.far.neighbour(ip("fd00::77")), Some(OTHER_MAC));
    segment.close();
}

proptest! {
    #[test]
    fn no_bytes_do_any_harm(kind in 0usize..4, frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..20)) {
        let mut segment = Segment::new(every_kind()[kind]);
        for bytes in &frames {
            segment.inject(bytes);
        }
        segment.settle();
        segment.receive_far();
        segment.close();
    }

    /// Random bytes rarely get past the first check, so these begin as a frame for the host does.
    #[test]
    fn no_plausible_bytes_do_any_harm(
        kind in 0usize..4,
        ip_type in prop_oneof![Just([8u8, 0]), Just([8, 6]), Just([0x86, 0xdd])],
        start in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
        next in prop_oneof![Just(17u8), Just(58), any::<u8>()],
        mut bytes in proptest::collection::vec(any::<u8>(), 60..160),
    ) {
        let options = every_kind()[kind];
        let mut segment = Segment::new(options);
        bytes[..6].copy_from_slice(&FAR_MAC.0);
        bytes[6] &= 0xfe;
        let headers = segment.far.own.headers;
        let at = headers.ethernet_bytes();
        if let Some(vlan) = headers.vlan() {
            bytes[12..16].copy_from_slice(&[0x81, 0, (vlan >> 8) as u8, vlan as u8]);
        }
        bytes[at - 2..at].copy_from_slice(&ip_type);
        bytes[at] = start;
        if headers.is_ipv6() {
            let len = bytes.len() - at - 40;
            bytes[at + 4..at + 8].copy_from_slice(&[0, len as u8, next, 255]);
            bytes[at + 24..at + 40].copy_from_slice(&"fd00::2".parse::<std::net::Ipv6Addr>().expect("an address").octets());
            // The type and no code: a word of a neighbour, if it is one.
            bytes[at + 40] = 135 + (bytes[at + 40] & 1);
            bytes[at + 41] = 0;
        } else {
            let len = bytes.len() - at;
            bytes[at + 2..at + 4].copy_from_slice(&[0, len as u8]);
            bytes[at + 9] = next;
        }
        segment.inject(&bytes);
        segment.settle();
        segment.receive_far();
        segment.close();
    }

    #[test]
    fn a_flipped_bit_never_changes_what_is_received(kind in 0usize..4, bit in 0usize..10_000) {
        let options = every_kind()[kind];
        let mut segment = Segment::acquainted(options);
        let mut frame = good(&mut segment);
        let bit = bit % (frame.len() * 8);
        frame[bit / 8] ^= 1 << (bit % 8);
        segment.inject(&frame);
        // `receive_far` checks the sender, too.
        for payload in segment.receive_far() {
            prop_assert_eq!(payload, b"a payload of some bytes".to_vec());
        }
        segment.close();
    }

    #[test]
    fn a_frame_cut_anywhere_is_dropped(kind in 0usize..4, cut in 0usize..10_000) {
        let mut segment = Segment::acquainted(every_kind()[kind]);
        let frame = good(&mut segment);
        let headers = segment.far.own.headers.bytes();
        // Shorter ones are dropped by the link.
        let cut = headers + cut % (frame.len() - headers);
        segment.inject(&frame[..cut]);
        prop_assert!(segment.receive_far().is_empty());
        segment.close();
    }
}
