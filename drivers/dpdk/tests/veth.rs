//! Devices on interfaces of the kernel, in a network namespace of the test's own: packet sockets and AF_XDP over a veth pair, TAP
//! interfaces on a bridge.
#![cfg(feature = "dpdk")]

mod support;

use ionian_dpdk::{Device, DpdkLink, Eal, PortOptions, PortStats, Vdev};
use ionian_ether::{Checksum, Frame, FrameLink};
use support::{Pattern, alone, batch, eal, exchange, headers, ip, own_network, pool, until};

/// Frames under way at once: few enough for any socket's buffer.
const WINDOW: u64 = 32;

fn open(eal: &Eal, vdev: &str) -> DpdkLink {
    let device = Device::Virtual(vdev.parse().expect("known"));
    eal.open(&device, &PortOptions::default())
        .unwrap_or_else(|error| panic!("{vdev}: {error}"))
        .remove(0)
}

/// Sends single frames until one arrives: the kernel brings interfaces up in its own time.
fn warm(near: &mut DpdkLink, far: &mut DpdkLink) {
    let (mut pool, pattern) = (pool(64), Pattern::new());
    let (to, from) = (far.caps().mac.0, near.caps().mac.0);
    let (mut burst, mut out) = (batch(1), batch(8));
    let mut rounds = 0_u64;
    until("the first frame", || {
        if rounds.is_multiple_of(10_000) && burst.is_empty() {
            burst
                .push(pattern.frame(&mut pool, rounds, to, from).expect("free"))
                .expect("room");
        }
        rounds += 1;
        near.tx_burst(&mut pool, &mut burst);
        far.rx_burst(&mut pool, headers(), &mut out);
        let mut arrived = false;
        while let Some(frame) = out.pop() {
            arrived |= pattern.check(pool.front(&frame.buf)).is_some();
            pool.free(frame.buf);
        }
        arrived
    });
    // The others are under way or lost: whatever comes within so many bursts.
    for _ in 0..20_000 {
        far.rx_burst(&mut pool, headers(), &mut out);
        while let Some(frame) = out.pop() {
            pool.free(frame.buf);
        }
    }
    while let Some(frame) = burst.pop() {
        pool.free(frame.buf);
    }
    assert_eq!(pool.in_use(), 0);
}

fn over_veth(test: &str, driver: &str) {
    if !own_network(test) {
        return;
    }
    ip("link add vA type veth peer name vB");
    ip("link set vA up");
    ip("link set vB up");
    let eal = eal();
    let mut near = open(&eal, &format!("{driver},iface=vA"));
    let mut far = open(&eal, &format!("{driver},iface=vB"));
    assert!(near.caps().mac.is_unicast() && near.caps().mac != far.caps().mac);
    warm(&mut near, &mut far);
    warm(&mut far, &mut near);
    let before = (near.port_stats(), far.port_stats());
    let mut pool = pool(256);
    exchange(&mut near, &mut far, &mut pool, 20_000, WINDOW);
    exchange(&mut far, &mut near, &mut pool, 20_000, WINDOW);
    assert_eq!(pool.in_use(), 0);
    let held = |before: PortStats, now: PortStats| before.mbufs_available - now.mbufs_available;
    let held = (
        held(before.0, near.port_stats()),
        held(before.1, far.port_stats()),
    );
    if driver == "net_af_xdp" {
        // Sent buffers come back when the next ones are sent.
        assert!(
            held.0 <= WINDOW as u32 && held.1 <= WINDOW as u32,
            "{held:?}"
        );
        let second: Vdev = format!("{driver},iface=vA").parse().expect("known");
        let error = eal
            .open(&Device::Virtual(second), &PortOptions::default())
            .expect_err("the queue is taken");
        let sentence = "queue 0 of the network interface vA is taken by another AF_XDP socket";
        assert!(error.to_string().starts_with(sentence), "{error}");
        exchange(&mut near, &mut far, &mut pool, 100, WINDOW);
        drop((near, far));
        // What lies in the kernel's rings stays there: the receive queue's and what was sent last.
        assert!(eal.mbufs_missing() > 0);
    } else {
        assert_eq!(held, (0, 0));
        drop((near, far));
        assert_eq!(eal.mbufs_missing(), 0);
        let near = open(&eal, &format!("{driver},iface=vA"));
        assert!(near.port_stats().link_up);
    }
}

#[test]
fn packet_sockets_over_a_veth_pair() {
    let test = "packet_sockets_over_a_veth_pair";
    alone(test, || over_veth(test, "net_af_packet"));
}

#[test]
fn af_xdp_over_a_veth_pair() {
    let test = "af_xdp_over_a_veth_pair";
    alone(test, || over_veth(test, "net_af_xdp"));
}

#[test]
fn a_link_that_goes_down_is_seen_and_comes_back() {
    let test = "a_link_that_goes_down_is_seen_and_comes_back";
    alone(test, || {
        if !own_network(test) {
            return;
        }
        let eal = eal();
        let mut link = open(&eal, "net_tap,iface=dtap0");
        ip("link set dtap0 up");
        until("up", || link.port_stats().link_up);
        let ups = link.port_stats().ups;
        let downs = link.port_stats().downs;
        ip("link set dtap0 down");
        let mut pool = pool(16);
        let mut out = batch(8);
        // Seen by bursts alone.
        until("down", || {
            link.rx_burst(&mut pool, headers(), &mut out);
            while let Some(frame) = out.pop() {
                pool.free(frame.buf);
            }
            link.stats().downs > downs
        });
        ip("link set dtap0 up");
        until("up again", || link.port_stats().link_up);
        assert_eq!(link.port_stats().ups, ups + 1);
        assert_eq!(link.port_stats().downs, downs + 1);
    });
}

/// A UDP packet whose checksums are left to the link, as the layer above leaves them. *Source*: RFC 768, RFC 791.
fn packet(payload: &[u8], to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    let udp_len = 8 + payload.len() as u16;
    let high_low = |value: u16| [(value >> 8) as u8, value as u8];
    let mut frame = Vec::new();
    frame.extend(to);
    frame.extend(from);
    frame.extend([0x08, 0x00, 0x45, 0x00]);
    frame.extend(high_low(20 + udp_len));
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 7, 0, 1, 10, 7, 0, 2]);
    frame.extend(high_low(7001));
    frame.extend(high_low(7002));
    frame.extend(high_low(udp_len));
    let mut pseudo = vec![10, 7, 0, 1, 10, 7, 0, 2, 0, 17];
    pseudo.extend(high_low(udp_len));
    frame.extend(high_low(sum(&pseudo)));
    frame.extend(payload);
    frame
}

/// The sum of RFC 1071, not complemented.
fn sum(bytes: &[u8]) -> u16 {
    let mut total = bytes.chunks(2).fold(0_u32, |total, pair| {
        total + (u32::from(pair[0]) << 8) + u32::from(*pair.get(1).unwrap_or(&0))
    });
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

#[test]
fn tap_interfaces_on_a_bridge_and_checksums_by_the_device() {
    let test = "tap_interfaces_on_a_bridge_and_checksums_by_the_device";
    alone(test, || {
        if !own_network(test) {
            return;
        }
        let eal = eal();
        let mut near = open(&eal, "net_tap,iface=dtapA");
        let mut far = open(&eal, "net_tap,iface=dtapB");
        ip("link add br0 type bridge");
        for tap in ["dtapA", "dtapB"] {
            ip(&format!("link set {tap} master br0"));
            ip(&format!("link set {tap} up"));
        }
        ip("link set br0 up");
        warm(&mut near, &mut far);
        warm(&mut far, &mut near);
        let mut pool = pool(256);
        exchange(&mut near, &mut far, &mut pool, 10_000, 32);
        assert!(near.caps().tx_checksum, "the driver computes checksums");

        let (to, from) = (far.caps().mac.0, near.caps().mac.0);
        for payload in [&b"even"[..], b"odd", &[0x5a; 1400]] {
            let bytes = packet(payload, to, from);
            let mut buf = pool.alloc().expect("free");
            pool.set_front(&mut buf, headers().bytes(), bytes.len());
            pool.front_mut(&mut buf).copy_from_slice(&bytes);
            let (mut burst, mut out) = (batch(1), batch(8));
            burst
                .push(Frame {
                    buf,
                    checksum: Checksum::Link,
                })
                .expect("room");
            near.tx_burst(&mut pool, &mut burst);
            let mut got = None;
            until("the packet", || {
                far.rx_burst(&mut pool, headers(), &mut out);
                while let Some(frame) = out.pop() {
                    let bytes = pool.front(&frame.buf);
                    if bytes[12..14] == [0x08, 0x00] && bytes[23] == 17 {
                        got = Some((bytes.to_vec(), frame.checksum));
                    }
                    pool.free(frame.buf);
                }
                got.is_some()
            });
            let (bytes, checksum) = got.expect("it came");
            assert_eq!(sum(&bytes[14..34]), 0xffff, "checksum of IP");
            let mut whole = vec![10, 7, 0, 1, 10, 7, 0, 2, 0, 17];
            whole.extend(&bytes[38..40]);
            whole.extend(&bytes[34..]);
            assert_eq!(sum(&whole), 0xffff, "checksum of UDP");
            assert_eq!(&bytes[42..42 + payload.len()], payload);
            println!("received as {checksum:?}");
        }
        assert_eq!(pool.in_use(), 0);
        drop((near, far));
        assert_eq!(eal.mbufs_missing(), 0);
    });
}
