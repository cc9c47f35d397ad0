//! The device over loopback. Loopback does not lose packets while the receive buffer has room, so these tests count
//! exactly.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use ionian_driver_api::{Bounded, Packet, PoolLayout, PoolOptions};

use super::*;

fn pool(slots: u32, slot_bytes: u32) -> BufPool {
    BufPool::new(PoolOptions {
        slots,
        slot_bytes,
        layout: PoolLayout::Coloured,
    })
    .expect("valid size")
}

fn open(change: impl FnOnce(&mut UdpOptions)) -> UdpDevice {
    let mut options = UdpOptions::default();
    change(&mut options);
    UdpDevice::open(&options).expect("loopback")
}

/// Polls until `count` packets came, or a second passed without one.
fn receive(device: &mut UdpDevice, pool: &mut BufPool, count: usize) -> Vec<(Vec<u8>, SocketAddr)> {
    let mut out = Bounded::with_capacity(128);
    let (mut packets, mut last) = (Vec::new(), Instant::now());
    while packets.len() < count && last.elapsed() < Duration::from_secs(1) {
        if device.rx_burst(pool, &mut out) > 0 {
            last = Instant::now();
        }
        while let Some(packet) = out.pop() {
            packets.push((pool.bytes(&packet.buf).to_vec(), packet.peer));
            pool.free(packet.buf);
        }
    }
    packets
}

/// Sends packets of the given lengths, each filled with its number, and returns what the peer received.
fn exchange(tx: &mut UdpDevice, rx: &mut UdpDevice, lens: &[usize]) -> Vec<Vec<u8>> {
    let (mut tx_pool, mut rx_pool) = (pool(512, 65_536), pool(512, 65_536));
    let mut burst = Bounded::with_capacity(512);
    for (number, len) in lens.iter().enumerate() {
        let mut buf = tx_pool.alloc().expect("the pool is large enough");
        tx_pool.set_len(&mut buf, *len);
        tx_pool.bytes_mut(&mut buf).fill(number as u8);
        burst
            .push(Packet {
                buf,
                peer: rx.local_addr(),
            })
            .expect("room");
    }
    tx.tx_burst(&mut tx_pool, &mut burst);
    assert!(burst.is_empty());
    let packets = receive(rx, &mut rx_pool, lens.len());
    assert!(packets.iter().all(|(_, peer)| *peer == tx.local_addr()));
    assert_eq!((tx_pool.in_use(), rx_pool.in_use()), (0, 0));
    packets.into_iter().map(|(bytes, _)| bytes).collect()
}

fn expected(lens: &[usize]) -> Vec<Vec<u8>> {
    lens.iter()
        .enumerate()
        .map(|(number, len)| vec![number as u8; *len])
        .collect()
}

#[test]
fn bursts_of_mixed_lengths_arrive_in_order_with_and_without_offload() {
    let mixed: Vec<usize> = (0..200)
        .map(|number| [100, 100, 1472, 1472, 1472, 7, 0, 1][number % 8])
        .collect();
    let equal = vec![1472; 200];
    for lens in [mixed, equal] {
        for (gso, gro) in [(false, false), (true, false), (false, true), (true, true)] {
            let (mut tx, mut rx) = (open(|o| o.gso = gso), open(|o| o.gro = gro));
            assert_eq!(
                exchange(&mut tx, &mut rx, &lens),
                expected(&lens),
                "gso {gso} gro {gro}"
            );
            assert_eq!((tx.stats().tx_packets, rx.stats().rx_packets), (200, 200));
        }
    }
}

#[test]
fn equal_packets_share_sends_and_receives_where_the_kernel_has_it() {
    let (mut tx, mut rx) = (open(|_| ()), open(|_| ()));
    if !tx.caps().gso || !rx.caps().gro {
        eprintln!("SKIP: this kernel has no UDP GSO or GRO");
        return;
    }
    let lens = vec![1000; 120];
    assert_eq!(exchange(&mut tx, &mut rx, &lens), expected(&lens));
    assert!(tx.stats().tx_sends <= 4, "{:?}", tx.stats());
    assert!(rx.stats().rx_receives <= 8, "{:?}", rx.stats());
}

#[test]
fn the_largest_datagram_passes_and_a_larger_one_is_refused() {
    let large = |options: &mut UdpOptions| options.mtu_bytes = 65_535;
    let (mut tx, mut rx) = (open(large), open(large));
    assert_eq!(tx.caps().payload_bytes_max, 65_507);
    assert_eq!(
        exchange(&mut tx, &mut rx, &[65_507, 1, 65_507]),
        expected(&[65_507, 1, 65_507])
    );
    let (mut tx_pool, mut burst) = (pool(2, 65_536), Bounded::with_capacity(2));
    for len in [65_508, 3] {
        let mut buf = tx_pool.alloc().expect("free");
        tx_pool.set_len(&mut buf, len);
        burst
            .push(Packet {
                buf,
                peer: rx.local_addr(),
            })
            .expect("room");
    }
    assert_eq!(tx.tx_burst(&mut tx_pool, &mut burst), 2);
    assert_eq!((tx.stats().tx_refused, tx_pool.in_use()), (1, 0));
    assert_eq!(receive(&mut rx, &mut pool(4, 65_536), 1)[0].0.len(), 3);
}

#[test]
fn oversize_and_truncated_packets_are_counted_not_delivered() {
    for gro in [false, true] {
        let mut rx = open(|o| o.gro = gro);
        let peer = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        for len in [600, 100, 5000] {
            peer.send_to(&vec![1; len], rx.local_addr())
                .expect("loopback");
        }
        let packets = receive(&mut rx, &mut pool(8, 512), 1);
        assert_eq!(
            packets
                .iter()
                .map(|(bytes, _)| bytes.len())
                .collect::<Vec<_>>(),
            [100],
            "gro {gro}"
        );
        let (mut rx_pool, mut out) = (pool(8, 512), Bounded::with_capacity(8));
        let start = Instant::now();
        while rx.stats().rx_oversize < 2 && start.elapsed() < Duration::from_secs(1) {
            rx.rx_burst(&mut rx_pool, &mut out);
        }
        assert_eq!(rx.stats().rx_oversize, 2);
    }
}

#[test]
fn a_refusing_peer_does_not_stop_the_device() {
    let (mut tx, mut rx) = (open(|_| ()), open(|_| ()));
    let closed = UdpSocket::bind("127.0.0.1:0")
        .expect("loopback")
        .local_addr()
        .expect("bound");
    let v6: SocketAddr = "[::1]:9".parse().expect("an address");
    let (mut tx_pool, mut rx_pool) = (pool(64, 2048), pool(64, 2048));
    for round in 0..20u8 {
        let mut burst = Bounded::with_capacity(4);
        for peer in [closed, v6, rx.local_addr(), closed] {
            let buf = tx_pool.alloc_from(&[round]).expect("free");
            burst.push(Packet { buf, peer }).expect("room");
        }
        while !burst.is_empty() {
            tx.tx_burst(&mut tx_pool, &mut burst);
        }
        tx.rx_burst(&mut rx_pool, &mut Bounded::with_capacity(4));
        assert_eq!(
            receive(&mut rx, &mut rx_pool, 1),
            [(vec![round], tx.local_addr())]
        );
    }
    assert_eq!(
        tx.stats().tx_refused,
        20,
        "an IPv4 socket cannot reach IPv6"
    );
    assert_eq!(tx_pool.in_use(), 0);
}

#[test]
fn a_small_pool_or_queue_loses_nothing() {
    for gro in [false, true] {
        let (mut tx, mut rx) = (open(|_| ()), open(|o| o.gro = gro));
        let mut tx_pool = pool(256, 1472);
        let mut burst = Bounded::with_capacity(256);
        for number in 0..200u32 {
            let mut buf = tx_pool.alloc().expect("free");
            tx_pool.set_len(&mut buf, 1000);
            tx_pool.bytes_mut(&mut buf)[..4].copy_from_slice(&number.to_le_bytes());
            burst
                .push(Packet {
                    buf,
                    peer: rx.local_addr(),
                })
                .expect("room");
        }
        tx.tx_burst(&mut tx_pool, &mut burst);
        let (mut rx_pool, mut out) = (pool(3, 1472), Bounded::with_capacity(2));
        let mut next = 0u32;
        let mut polls = 0;
        while next < 200 {
            rx.rx_burst(&mut rx_pool, &mut out);
            while let Some(packet) = out.pop() {
                assert_eq!(rx_pool.bytes(&packet.buf)[..4], next.to_le_bytes());
                rx_pool.free(packet.buf);
                next += 1;
            }
            polls += 1;
            assert!(polls < 1_000_000, "only {next} packets came");
        }
        assert_eq!(rx_pool.in_use(), 0);
    }
}

/// Loopback delivers within the send, so its buffer hardly fills; whatever happens, no packet is lost unaccounted.
#[test]
fn a_small_send_buffer_loses_nothing_unaccounted() {
    let (mut tx, mut rx) = (open(|o| o.sndbuf_bytes = 1), open(|_| ()));
    let lens = vec![1472; 100];
    let received = exchange_retrying(&mut tx, &mut rx, &lens);
    assert_eq!(received + tx.stats().tx_refused as usize, 100);
    assert!(received > 0);
}

/// As `exchange`, for a sender that may be full: sends again until all are taken, and returns how many arrived.
fn exchange_retrying(tx: &mut UdpDevice, rx: &mut UdpDevice, lens: &[usize]) -> usize {
    let (mut tx_pool, mut rx_pool) = (pool(512, 2048), pool(512, 2048));
    let mut burst = Bounded::with_capacity(512);
    for len in lens {
        let mut buf = tx_pool.alloc().expect("free");
        tx_pool.set_len(&mut buf, *len);
        burst
            .push(Packet {
                buf,
                peer: rx.local_addr(),
            })
            .expect("room");
    }
    let mut received = 0;
    while !burst.is_empty() {
        tx.tx_burst(&mut tx_pool, &mut burst);
        received += receive(rx, &mut rx_pool, 1).len();
    }
    let missing = lens.len() - received - tx.stats().tx_refused as usize;
    received + receive(rx, &mut rx_pool, missing).len()
}

#[test]
fn ipv6_works_and_reaches_ipv4() {
    let v6 = UdpOptions {
        bind: "[::1]:0".parse().expect("an address"),
        ..Default::default()
    };
    let (mut tx, mut rx) = match (UdpDevice::open(&v6), UdpDevice::open(&v6)) {
        (Ok(tx), Ok(rx)) => (tx, rx),
        (Err(UdpOpenError::NotAvailable { .. } | UdpOpenError::System { .. }), _) => {
            eprintln!("SKIP: this machine has no IPv6 loopback");
            return;
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(tx.caps().payload_bytes_max, 1452);
    assert_eq!(
        exchange(&mut tx, &mut rx, &[10, 1452, 1452]),
        expected(&[10, 1452, 1452])
    );
}

#[test]
fn bind_errors_are_told_apart() {
    let first = open(|_| ());
    let in_use = UdpOptions {
        bind: first.local_addr(),
        ..Default::default()
    };
    assert!(
        matches!(UdpDevice::open(&in_use), Err(UdpOpenError::InUse { bind }) if bind == first.local_addr())
    );
    let elsewhere = UdpOptions {
        bind: (Ipv4Addr::new(192, 0, 2, 1), 0).into(),
        ..Default::default()
    };
    assert!(matches!(
        UdpDevice::open(&elsewhere),
        Err(UdpOpenError::NotAvailable { .. })
    ));
    for mtu_bytes in [575, 65_536] {
        let options = UdpOptions {
            mtu_bytes,
            ..Default::default()
        };
        assert!(matches!(
            UdpDevice::open(&options),
            Err(UdpOpenError::Mtu { .. })
        ));
    }
    for batch in [0, 1025] {
        let options = UdpOptions {
            batch,
            ..Default::default()
        };
        assert!(matches!(
            UdpDevice::open(&options),
            Err(UdpOpenError::Batch { .. })
        ));
    }
}

#[test]
fn buffers_are_read_back_and_the_descriptor_shows_packets() {
    let mut rx = open(|o| o.rcvbuf_bytes = 1 << 20);
    assert!(rx.buffers().rcvbuf_bytes >= 4096 && rx.buffers().sndbuf_bytes >= 4096);
    let fd = rx.wake_fd().expect("a socket");
    assert!(rx.arm());
    assert!(!readable(fd, 0), "nothing was sent");
    let peer = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    peer.send_to(b"x", rx.local_addr()).expect("loopback");
    assert!(readable(fd, 1000));
    assert_eq!(receive(&mut rx, &mut pool(4, 2048), 1).len(), 1);
}

fn readable(fd: RawFd, timeout_ms: i32) -> bool {
    // SAFETY: the device that owns the descriptor is alive in the caller.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one descriptor, in a local variable that outlives the call.
    unsafe { libc::poll(&raw mut poll, 1, timeout_ms) == 1 }
}

#[test]
fn several_peers_share_a_burst() {
    let mut tx = open(|_| ());
    let mut peers: Vec<UdpDevice> = (0..3).map(|_| open(|_| ())).collect();
    let (mut tx_pool, mut rx_pool) = (pool(128, 512), pool(128, 512));
    let mut burst = Bounded::with_capacity(96);
    for number in 0..96u8 {
        let buf = tx_pool.alloc_from(&[number; 64]).expect("free");
        let peer = peers[usize::from(number / 5) % 3].local_addr();
        burst.push(Packet { buf, peer }).expect("room");
    }
    assert_eq!(tx.tx_burst(&mut tx_pool, &mut burst), 96);
    let mut seen = BTreeMap::new();
    for (index, peer) in peers.iter_mut().enumerate() {
        let count = (0..96).filter(|number| number / 5 % 3 == index).count();
        for (bytes, _) in receive(peer, &mut rx_pool, count) {
            assert_eq!(usize::from(bytes[0]) / 5 % 3, index);
            seen.insert(bytes[0], ());
        }
    }
    assert_eq!(seen.len(), 96);
}
