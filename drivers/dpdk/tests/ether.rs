//! UDP packets over a pair of rings: neighbours are found, headers are right, every slot and buffer comes back.
#![cfg(feature = "dpdk")]

mod support;

use std::net::SocketAddr;

use ionian_dpdk::PortOptions;
use ionian_driver_api::{Bounded, ManualClock, Packet, PacketDevice};
use ionian_ether::{EtherDevice, EtherOptions};
use support::{alone, eal, pool, until};

fn exchange(near: &str, far: &str, prefix_len: u8) {
    let eal = eal();
    let [mut a, mut b] = eal.ring_pair(&PortOptions::default()).expect("a pair");
    let (near, far): (SocketAddr, SocketAddr) = (
        near.parse().expect("an address"),
        far.parse().expect("an address"),
    );
    let clock = ManualClock::default();
    let open = |link, local| {
        EtherDevice::open(link, clock.clone(), &EtherOptions::new(local, prefix_len))
            .expect("they fit the link")
    };
    let (mut a, mut b) = (open(a.remove(0), near), open(b.remove(0), far));
    let mut pool = pool(256);
    let (mut burst, mut out) = (Bounded::with_capacity(32), Bounded::with_capacity(32));
    let (mut made, mut received) = (0_u32, 0_u32);
    until("all packets", || {
        while made < 10_000 && made - received < 16 && !burst.is_full() {
            let payload = made.to_le_bytes().repeat(1 + made as usize % 90);
            let Some(buf) = pool.alloc_from(&payload) else {
                break;
            };
            burst.push(Packet { buf, peer: far }).expect("room");
            made += 1;
        }
        a.tx_burst(&mut pool, &mut burst);
        b.rx_burst(&mut pool, &mut out);
        while let Some(packet) = out.pop() {
            assert_eq!(packet.peer, near);
            let expected = received.to_le_bytes().repeat(1 + received as usize % 90);
            assert_eq!(pool.bytes(&packet.buf), expected);
            received += 1;
            pool.free(packet.buf);
        }
        // Answers for the neighbour's address come this way.
        a.rx_burst(&mut pool, &mut out);
        received == 10_000
    });
    let (a, b) = (a.close(&mut pool), b.close(&mut pool));
    assert_eq!(pool.in_use(), 0);
    let stats = a.port_stats();
    assert_eq!(stats.mbufs_available, stats.mbufs);
    drop((a, b));
    assert_eq!(eal.mbufs_missing(), 0);
}

#[test]
fn udp_over_ipv4_between_two_ports() {
    alone("udp_over_ipv4_between_two_ports", || {
        exchange("10.7.0.1:7001", "10.7.0.2:7002", 24);
    });
}

#[test]
fn udp_over_ipv6_between_two_ports() {
    alone("udp_over_ipv6_between_two_ports", || {
        exchange("[fd00::1]:7001", "[fd00::2]:7002", 64);
    });
}
