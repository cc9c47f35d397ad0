//! Packets: both families, VLANs, offloads, sizes, full links, routes.

use super::*;
use crate::{EtherOpenError, FrameLink};

#[test]
fn packets_arrive_as_they_were_sent() {
    for options in every_kind() {
        let mut segment = Segment::acquainted(options);
        let payloads: Vec<Vec<u8>> = (0..40u8).map(|n| vec![n; usize::from(n) * 30]).collect();
        for payload in &payloads {
            segment.send(payload);
        }
        assert_eq!(segment.receive_far(), payloads, "{options:?}");
        assert_eq!(segment.near.stats().tx_packets, 41);
        assert_eq!(segment.far.stats().rx_packets, 41);
        // The answer goes the other way without a question: the far host was asked, and knows the asker.
        let asked = segment.far.stats().asked;
        let peer = segment.near.local_addr();
        let packet = segment.packet(b"answer", peer);
        segment.queue.push(packet).expect("room");
        segment.far.tx_burst(&mut segment.pool, &mut segment.queue);
        assert_eq!(
            segment.near.rx_burst(&mut segment.pool, &mut segment.queue),
            1
        );
        let packet = segment.queue.pop().expect("received");
        assert_eq!(packet.peer, segment.far.local_addr());
        assert_eq!(segment.pool.bytes(&packet.buf), b"answer");
        segment.pool.free(packet.buf);
        assert_eq!(segment.far.stats().asked, asked);
        segment.close();
    }
}

#[test]
fn a_payload_is_not_moved() {
    let mut segment = Segment::acquainted(v6());
    let packet = segment.packet(&[7; 1000], addr("[fd00::2]:7001"));
    let at = segment.pool.dma_address(&packet.buf) as usize;
    segment.queue.push(packet).expect("room");
    segment.near.tx_burst(&mut segment.pool, &mut segment.queue);
    segment.far.rx_burst(&mut segment.pool, &mut segment.queue);
    let packet = segment.queue.pop().expect("received");
    assert_eq!(segment.pool.dma_address(&packet.buf) as usize, at);
    assert_eq!((packet.buf.len(), packet.buf.head_len()), (1000, 0));
    segment.pool.free(packet.buf);
    segment.close();
}

/// The ones' complement sum that must come out as all ones. *Source*: RFC 1071, written apart from what is tested.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded")
}

#[test]
fn a_frame_has_the_bytes_that_the_standards_say() {
    let mut segment = Segment::acquainted(on_vlan(v4(), 0x123));
    segment.send(b"odd");
    let frames = segment.under_way();
    let frame = &frames[0];
    assert_eq!(frame[..6], FAR_MAC.0);
    assert_eq!(frame[6..12], NEAR_MAC.0);
    assert_eq!(frame[12..18], [0x81, 0, 0x01, 0x23, 0x08, 0]);
    let ip = &frame[18..38];
    // Version and length, no service, 31 bytes, no identification, not to be cut, 64 hops, UDP.
    assert_eq!(ip[..10], [0x45, 0, 0, 31, 0, 0, 0x40, 0, 64, 17]);
    assert_eq!(ip[12..], [10, 0, 0, 1, 10, 0, 0, 2]);
    assert_eq!(sum(&[ip]), 0xffff);
    let udp = &frame[38..];
    assert_eq!(udp[..6], [0x1b, 0x58, 0x1b, 0x59, 0, 11]);
    assert_eq!(&udp[8..], b"odd");
    assert_eq!(sum(&[&ip[12..], &[0, 17, 0, 11], udp]), 0xffff);
    segment.close();

    let mut segment = Segment::acquainted(v6());
    segment.send(b"odd");
    let frames = segment.under_way();
    let frame = &frames[0];
    assert_eq!(frame[12..14], [0x86, 0xdd]);
    assert_eq!(frame[14..22], [0x60, 0, 0, 0, 0, 11, 17, 64]);
    assert_eq!(
        sum(&[&frame[22..54], &[0, 17, 0, 11], &frame[54..]]),
        0xffff
    );
    segment.close();
}

#[test]
fn checksums_are_left_to_a_link_that_fills_them_in() {
    for options in [v4(), v6()] {
        let mut links = MemoryLink::pair([NEAR_MAC, FAR_MAC], MTU, 64);
        for link in &mut links {
            link.offload_checksums();
        }
        let mut segment = Segment::with_links(options, links);
        segment.send(b"first");
        segment.settle();
        segment.receive_far();
        segment.send(b"payload");
        let frames = segment.under_way();
        let frame = &frames[0];
        // What the field holds and what the link adds to it make a right checksum: the sum over the pseudo-header is in the
        // field, so the complement of the whole is what belongs there.
        let (addresses, at) = if options[0].local.is_ipv6() {
            (&frame[22..54], 54)
        } else {
            assert_eq!(frame[24..26], [0, 0], "the link's, too");
            (&frame[26..34], 34)
        };
        let field = sum(&[&frame[at + 6..at + 8]]);
        assert_eq!(field, sum(&[addresses, &[0, 17, 0, 15]]));
        // The other link vouches for it.
        assert_eq!(segment.receive_far(), [b"payload".to_vec()]);
        segment.close();
    }
}

#[test]
fn packets_overtake_each_other_where_the_network_does_that() {
    let mut segment = Segment::acquainted(v4());
    for n in 0..4u8 {
        segment.send(&[n]);
    }
    {
        let wire = segment.near.link_mut().wire();
        let mut wire = wire.borrow_mut();
        let last = wire.remove(3).expect("under way");
        wire.push_front(last).expect("room");
        let lost = wire.remove(2).expect("under way");
        segment.pool.free(lost.buf);
    }
    assert_eq!(segment.receive_far(), [[3], [0], [2]]);
    segment.close();
}

#[test]
fn the_largest_packet_fits_the_mtu_and_one_byte_more_is_refused() {
    for options in every_kind() {
        let mut segment = Segment::acquainted(options);
        let overhead = if options[0].local.is_ipv6() { 48 } else { 28 };
        let largest = MTU as usize - overhead;
        assert_eq!(segment.near.caps().payload_bytes_max, largest);
        segment.send(&vec![1; largest]);
        let tag = usize::from(options[0].vlan.is_some()) * 4;
        assert_eq!(segment.under_way()[0].len(), 14 + tag + MTU as usize);
        segment.send(&vec![2; largest + 1]);
        segment.send(b"");
        assert_eq!(segment.receive_far(), [vec![1; largest], vec![]]);
        assert_eq!(segment.near.stats().tx_oversize, 1);
        segment.close();
    }
}

#[test]
fn a_packet_that_is_larger_than_the_receivers_is_dropped() {
    let [near, mut far] = v4();
    far.mtu_bytes = 576;
    let mut segment = Segment::acquainted([near, far]);
    segment.send(&[1; 576 - 28 + 1]);
    segment.send(&[2; 576 - 28]);
    assert_eq!(segment.receive_far(), [vec![2; 548]]);
    assert_eq!(segment.far.stats().rx_oversize, 1);
    segment.close();
}

#[test]
fn a_full_link_leaves_the_rest_of_the_burst_as_it_was() {
    for options in every_kind() {
        let links = MemoryLink::pair([NEAR_MAC, FAR_MAC], MTU, 8);
        let mut segment = Segment::with_links(options, links);
        segment.send(b"hello");
        segment.settle();
        segment.receive_far();
        let peer = segment.far.local_addr();
        for n in 0..20u8 {
            let packet = segment.packet(&[n; 9], peer);
            segment.queue.push(packet).expect("room");
        }
        assert_eq!(
            segment.near.tx_burst(&mut segment.pool, &mut segment.queue),
            8
        );
        assert_eq!(
            segment.near.tx_burst(&mut segment.pool, &mut segment.queue),
            0
        );
        for (at, packet) in segment.queue.iter().enumerate() {
            assert_eq!(packet.peer, peer);
            assert_eq!(segment.pool.front(&packet.buf), [8 + at as u8; 9]);
        }
        let mut received = Vec::new();
        let mut rest = std::mem::replace(&mut segment.queue, Bounded::with_capacity(64));
        while !rest.is_empty() || received.len() < 20 {
            segment.near.tx_burst(&mut segment.pool, &mut rest);
            received.extend(segment.receive_far());
        }
        let expected: Vec<Vec<u8>> = (0..20u8).map(|n| vec![n; 9]).collect();
        assert_eq!(received, expected);
        segment.close();
    }
}

#[test]
fn what_leads_nowhere_is_lost_and_counted() {
    let mut segment = Segment::acquainted(v4());
    let unreachable = [
        "[fd00::2]:7001",
        "10.0.1.2:7001",
        "10.0.0.1:7001",
        "224.0.0.1:7001",
        "255.255.255.255:1",
        "0.0.0.0:7001",
        "127.0.0.1:7001",
        "10.0.0.2:0",
    ];
    for peer in unreachable {
        segment.send_to(b"lost", addr(peer));
    }
    assert_eq!(segment.near.stats().tx_unreachable, 8);
    assert!(segment.under_way().is_empty());
    segment.close();
}

#[test]
fn peers_outside_of_the_prefix_are_behind_the_gateway() {
    let [mut near, far] = v4();
    near.gateway = Some(ip("10.0.0.2"));
    let mut segment = Segment::acquainted([near, far]);
    segment.send_to(b"far away", addr("192.0.2.9:1"));
    let frames = segment.under_way();
    assert_eq!(frames[0][..6], FAR_MAC.0);
    assert_eq!(frames[0][30..34], [192, 0, 2, 9]);
    segment.close();
}

#[test]
fn a_caller_without_room_leaves_packets_with_the_device_and_must_not_sleep() {
    let mut segment = Segment::acquainted(v4());
    for n in 0..3u8 {
        segment.send(&[n]);
    }
    let mut one = Bounded::with_capacity(1);
    let mut seen = Vec::new();
    while segment.far.rx_burst(&mut segment.pool, &mut one) > 0 {
        let packet = one.pop().expect("received");
        seen.push(segment.pool.bytes(&packet.buf)[0]);
        segment.pool.free(packet.buf);
        assert_eq!(segment.far.arm(), seen.len() == 3);
    }
    assert_eq!(seen, [0, 1, 2]);
    segment.close();
}

#[test]
fn options_out_of_range_are_sentences_with_the_option() {
    let good = v4()[0];
    let with = |change: fn(&mut EtherOptions)| {
        let mut options = good;
        change(&mut options);
        let [link, _] = MemoryLink::pair([NEAR_MAC, FAR_MAC], 1500, 8);
        let error = EtherDevice::open(link, ManualClock::default(), &options);
        error.expect_err("out of range").to_string()
    };
    for (change, words) in [
        (
            (|o| o.local = addr("10.0.0.1:0")) as fn(&mut EtherOptions),
            "local = \"10.0.0.1:0\"",
        ),
        (|o| o.local = addr("224.0.0.1:1"), "one station"),
        (
            |o| o.prefix_len = 33,
            "prefix_len = 33 is not within 0..=32",
        ),
        (|o| o.vlan = Some(0), "vlan = 0 is not within 1..=4094"),
        (|o| o.vlan = Some(4095), "vlan = 4095"),
        (
            |o| o.gateway = Some(ip("10.0.1.1")),
            "gateway = \"10.0.1.1\" is not a neighbour",
        ),
        (|o| o.gateway = Some(ip("fd00::9")), "is not a neighbour"),
        (|o| o.mtu_bytes = 1501, "ip link set dev NAME mtu 1501"),
        (
            |o| o.mtu_bytes = 575,
            "576..=1500, which this memory link carries",
        ),
        (|o| o.batch = 0, "batch = 0 is not within 1..=1024"),
        (|o| o.neighbours_max = 0, "neighbours_max = 0"),
        (|o| o.waiting_max = 1025, "waiting_max = 1025"),
        (|o| o.waiting_all_max = 65_537, "waiting_all_max = 65537"),
        (|o| o.reachable_ms = 99, "reachable_ms = 99"),
        (|o| o.retry_ms = 9, "retry_ms = 9"),
        (|o| o.tries_max = 0, "tries_max = 0"),
    ] {
        let sentence = with(change);
        assert!(sentence.contains(words), "{sentence}");
    }
    let [link, _] = MemoryLink::pair([MacAddr::BROADCAST, FAR_MAC], 1500, 8);
    let error = EtherDevice::open(link, ManualClock::default(), &good).expect_err("no station");
    assert!(matches!(error, EtherOpenError::Mac { .. }), "{error}");
}

#[test]
#[should_panic(expected = "a pool with headroom of 0 bytes for a device that needs 42")]
fn a_pool_without_headroom_is_our_bug() {
    let mut segment = Segment::new(v4());
    let options = PoolOptions {
        slots: 4,
        slot_bytes: MTU,
        layout: PoolLayout::Coloured,
    };
    let mut bare = BufPool::new(options).expect("valid size");
    segment.near.rx_burst(&mut bare, &mut segment.queue);
}

#[test]
fn ends_with_other_headers_do_not_understand_each_other_and_lose_no_slot() {
    let pairs = [
        [v4()[0], on_vlan(v4(), 5)[1]],
        [on_vlan(v4(), 5)[0], v4()[1]],
        [on_vlan(v4(), 5)[0], on_vlan(v4(), 6)[1]],
        [v4()[0], v6()[1]],
        [v6()[0], v4()[1]],
    ];
    for options in pairs {
        let mut segment = Segment::new(options);
        assert!(segment.near.fix_neighbour(peer_of(&options[0]), FAR_MAC));
        segment.send_to(&[1; 100], SocketAddr::new(peer_of(&options[0]), 7001));
        assert!(!segment.under_way().is_empty());
        segment.settle();
        assert_eq!(segment.receive_far(), Vec::<Vec<u8>>::new());
        let (far, link) = (segment.far.stats(), segment.far.link_mut().stats());
        assert_eq!(far.rx_packets, 0);
        assert!(
            far.rx_foreign + far.rx_vlan + link.rx_short > 0,
            "{far:?} {link:?}"
        );
        segment.close();
    }
}

/// The other host's address in the family of these options.
fn peer_of(options: &EtherOptions) -> IpAddr {
    ip(if options.local.is_ipv6() {
        "fd00::2"
    } else {
        "10.0.0.2"
    })
}
