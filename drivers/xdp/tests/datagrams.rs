//! Packets over links: addresses are found, checksums are right, and the kernel at the other end agrees.
//! As root; each test says when it is skipped.

mod common;

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Instant;

use common::{DEVICE, End, PATIENCE, PORT, Pair, kernel_addr, link_addr};
use ionian_driver_api::{
    Bounded, BufPool, Clock, Packet, PacketBatch, PacketDevice, PoolLayout, PoolOptions, Time,
};
use ionian_ether::{EtherDevice, EtherOptions};
use ionian_xdp::{XdpAttach, XdpLink, XdpOptions};

/// The system's clock, as the runtime reads it.
#[derive(Debug)]
struct Watch(Instant);

impl Clock for Watch {
    fn now(&self) -> Time {
        Time::from_ns(self.0.elapsed().as_nanos() as u64)
    }
}

/// A device with what is needed to drive it.
struct Host {
    device: EtherDevice<XdpLink, Watch>,
    pool: BufPool,
    out: PacketBatch,
    burst: PacketBatch,
}

impl Host {
    fn open(
        pair: &Pair,
        end: End,
        local: SocketAddr,
        vlan: Option<u16>,
        attach: XdpAttach,
    ) -> Self {
        let mut options = XdpOptions::new(DEVICE, local);
        options.vlan = vlan;
        options.attach = attach;
        let link = pair.within(end, move || XdpLink::open(&options));
        let link = link.unwrap_or_else(|error| panic!("{error}"));
        let prefix_len = if local.is_ipv4() { 24 } else { 64 };
        let mut options = EtherOptions::new(local, prefix_len);
        options.vlan = vlan;
        let device = EtherDevice::open(link, Watch(Instant::now()), &options);
        let device = device.unwrap_or_else(|error| panic!("{error}"));
        let caps = device.caps();
        let options = PoolOptions {
            slots: 512,
            slot_bytes: caps.payload_bytes_max as u32,
            layout: PoolLayout::Coloured,
        };
        Self {
            pool: BufPool::with_headroom(options, caps.headroom_bytes as u32).expect("valid size"),
            device,
            out: Bounded::with_capacity(64),
            burst: Bounded::with_capacity(64),
        }
    }

    fn stage(&mut self, peer: SocketAddr, payload: &[u8]) -> bool {
        if self.burst.is_full() {
            return false;
        }
        let Some(buf) = self.pool.alloc_from(payload) else {
            return false;
        };
        self.burst
            .push(Packet { buf, peer })
            .expect("there is room");
        true
    }

    fn step(&mut self) {
        self.device.tx_burst(&mut self.pool, &mut self.burst);
        self.device.rx_burst(&mut self.pool, &mut self.out);
    }

    fn take(&mut self) -> Option<(Vec<u8>, SocketAddr)> {
        let packet = self.out.pop()?;
        let bytes = self.pool.bytes(&packet.buf).to_vec();
        self.pool.free(packet.buf);
        Some((bytes, packet.peer))
    }

    fn close(mut self) {
        let stats = self.device.stats();
        assert_eq!(
            (stats.rx_corrupt, stats.rx_truncated, stats.rx_foreign),
            (0, 0, 0),
            "the program lets nothing of others pass: {stats:?}"
        );
        let mut link = self.device.close(&mut self.pool);
        assert_eq!(link.xdp_stats().invalid_descs, 0);
        assert_eq!(self.pool.in_use(), 0);
    }
}

fn v6_addr(end: End) -> SocketAddr {
    let ip = Ipv6Addr::new(0xfd00, 0, 0, 0x91, 0, 0, 0, 0x100 + end as u16);
    SocketAddr::from((ip, PORT))
}

#[test]
fn hosts_find_each_other_and_exchange_packets_over_ipv4_ipv6_and_vlans() {
    let Some(pair) =
        Pair::make("hosts_find_each_other_and_exchange_packets_over_ipv4_ipv6_and_vlans")
    else {
        return;
    };
    let addrs: [fn(End) -> SocketAddr; 2] = [link_addr, v6_addr];
    for attach in [XdpAttach::Skb, XdpAttach::Native] {
        for (addr, vlan) in addrs
            .into_iter()
            .flat_map(|addr| [(addr, None), (addr, Some(42))])
        {
            let open = |end| Host::open(&pair, end, addr(end), vlan, attach);
            let (mut a, mut b) = (open(End::A), open(End::B));
            let (mut sent, mut echoed, mut back) = (0u32, 0u32, 0u32);
            let (to, mut last) = (b.device.local_addr(), Instant::now());
            while back < 5_000 {
                // No more under way than wait for the answer to the first question.
                while sent < 5_000 && sent < back + 16 {
                    let mut payload = [0x5a; 300];
                    payload[..4].copy_from_slice(&sent.to_le_bytes());
                    if !a.stage(to, &payload) {
                        break;
                    }
                    sent += 1;
                }
                a.step();
                b.step();
                while let Some((bytes, peer)) = b.take() {
                    assert_eq!((&bytes[..4], bytes.len()), (&echoed.to_le_bytes()[..], 300));
                    assert_eq!(peer, a.device.local_addr());
                    assert!(b.stage(peer, &bytes));
                    echoed += 1;
                }
                while let Some((bytes, peer)) = a.take() {
                    assert_eq!((&bytes[..4], bytes.len()), (&back.to_le_bytes()[..], 300));
                    assert_eq!(peer, to);
                    back += 1;
                    last = Instant::now();
                }
                assert!(
                    last.elapsed() < PATIENCE,
                    "{addr:?} {vlan:?} {attach:?}: {sent} sent, {echoed} echoed, {back} back: {:?} {:?}",
                    a.device.stats(),
                    b.device.stats()
                );
            }
            a.close();
            b.close();
        }
    }
}

#[test]
fn a_socket_of_the_kernel_is_a_peer_like_any_other() {
    let Some(pair) = Pair::make("a_socket_of_the_kernel_is_a_peer_like_any_other") else {
        return;
    };
    for attach in [XdpAttach::Skb, XdpAttach::Native] {
        let local = link_addr(End::A);
        let mut host = Host::open(&pair, End::A, local, None, attach);
        let socket = pair.within(End::B, || UdpSocket::bind((kernel_addr(End::B), 7_001)));
        let socket = socket.expect("the address is the kernel's");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        // A virtual device leaves the checksum of UDP to hardware that is not there; over IPv4 there may be none.
        let on = 1i32;
        let (on_at, len) = ((&raw const on).cast(), size_of::<i32>() as u32);
        let fd = socket.as_raw_fd();
        // SAFETY: the kernel reads an int from a local variable that outlives the call.
        let result =
            unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_NO_CHECK, on_at, len) };
        assert_eq!(result, 0);
        let peer = socket.local_addr().expect("bound");
        for round in 0..100u8 {
            // The kernel verifies the checksum of what comes, and answers the question for its address.
            assert!(host.stage(peer, &[round; 700]));
            host.step();
            let start = Instant::now();
            let mut bytes = [0; 1500];
            socket.set_nonblocking(true).expect("a mode");
            let (len, from) = loop {
                host.step();
                match socket.recv_from(&mut bytes) {
                    Ok(received) => break received,
                    Err(_) => assert!(start.elapsed() < PATIENCE, "{:?}", host.device.stats()),
                }
            };
            assert_eq!((&bytes[..len], from), (&[round; 700][..], local));
            assert_eq!(socket.send_to(&bytes[..len], local).expect("sent"), len);
            let start = Instant::now();
            let echo = loop {
                host.step();
                if let Some(packet) = host.take() {
                    break packet;
                }
                assert!(start.elapsed() < PATIENCE, "{:?}", host.device.stats());
            };
            assert_eq!(echo, (vec![round; 700], peer));
        }
        host.close();
    }
}
