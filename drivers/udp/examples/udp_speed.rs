//! Measures the device over loopback: packets per second through one thread, with and without GSO and GRO, and the round
//! trip between two threads that poll. Medians of several runs; on shared cores, upper bounds of the latency.

use std::thread;
use std::time::Instant;

use ionian_driver_api::{Bounded, BufPool, Packet, PacketDevice, PoolLayout, PoolOptions};
use ionian_udp::{UdpDevice, UdpOptions};

const RUNS: usize = 7;

fn main() {
    for (mtu_bytes, len, count) in [
        (1500, 100, 300_000),
        (1500, 1472, 300_000),
        (65_535, 60_000, 30_000),
    ] {
        for offload in [false, true] {
            let rate = median(|| one_way(mtu_bytes, len, count, offload));
            println!(
                "mtu {mtu_bytes:5} payload {len:5} B offload {offload:5}: {:8.3} M packets/s {:6.2} GB/s",
                rate / 1e6,
                rate * len as f64 / 1e9
            );
        }
    }
    for offload in [false, true] {
        println!(
            "round trip 64 B offload {offload:5}: {:6.2} us",
            median(|| round_trip(20_000, offload))
        );
    }
}

fn median(mut run: impl FnMut() -> f64) -> f64 {
    let mut figures: Vec<f64> = (0..RUNS).map(|_| run()).collect();
    figures.sort_by(f64::total_cmp);
    figures[RUNS / 2]
}

fn device(mtu_bytes: u32, offload: bool) -> UdpDevice {
    UdpDevice::open(&UdpOptions {
        mtu_bytes,
        gso: offload,
        gro: offload,
        ..Default::default()
    })
    .expect("loopback")
}

fn pool(slot_bytes: u32) -> BufPool {
    BufPool::new(PoolOptions {
        slots: 256,
        slot_bytes,
        layout: PoolLayout::Coloured,
    })
    .expect("valid size")
}

/// Packets per second when one thread sends bursts and receives them: the cost of both sides.
fn one_way(mtu_bytes: u32, len: usize, count: usize, offload: bool) -> f64 {
    let (mut tx, mut rx) = (device(mtu_bytes, offload), device(mtu_bytes, offload));
    let mut pool = pool(mtu_bytes.next_multiple_of(64));
    let burst_len = if len > 9000 { 16 } else { 64 };
    let (mut burst, mut out) = (
        Bounded::with_capacity(burst_len),
        Bounded::with_capacity(burst_len),
    );
    let start = Instant::now();
    let (mut sent, mut received) = (0, 0);
    while received < count {
        while sent < count && !burst.is_full() {
            let Some(mut buf) = pool.alloc() else { break };
            pool.set_len(&mut buf, len);
            burst
                .push(Packet {
                    buf,
                    peer: rx.local_addr(),
                })
                .expect("room");
            sent += 1;
        }
        tx.tx_burst(&mut pool, &mut burst);
        while rx.rx_burst(&mut pool, &mut out) > 0 {
            while let Some(packet) = out.pop() {
                pool.free(packet.buf);
                received += 1;
            }
        }
    }
    count as f64 / start.elapsed().as_secs_f64()
}

/// Microseconds of one round trip between two polling threads.
fn round_trip(count: usize, offload: bool) -> f64 {
    let (mut near, mut far) = (device(1500, offload), device(1500, offload));
    let (near_addr, far_addr) = (near.local_addr(), far.local_addr());
    let echo = thread::spawn(move || {
        let (mut pool, mut queue) = (pool(2048), Bounded::with_capacity(8));
        for _ in 0..count {
            while far.rx_burst(&mut pool, &mut queue) == 0 {}
            let packet = queue.pop().expect("received");
            queue
                .push(Packet {
                    buf: packet.buf,
                    peer: near_addr,
                })
                .expect("room");
            far.tx_burst(&mut pool, &mut queue);
        }
    });
    let (mut pool, mut queue) = (pool(2048), Bounded::with_capacity(8));
    let start = Instant::now();
    for _ in 0..count {
        let buf = pool.alloc_from(&[1; 64]).expect("free");
        queue
            .push(Packet {
                buf,
                peer: far_addr,
            })
            .expect("room");
        near.tx_burst(&mut pool, &mut queue);
        while near.rx_burst(&mut pool, &mut queue) == 0 {}
        pool.free(queue.pop().expect("received").buf);
    }
    let micros = start.elapsed().as_secs_f64() * 1e6 / count as f64;
    echo.join().expect("the echo ends");
    micros
}
