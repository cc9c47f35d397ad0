//! Measures packets over Ethernet frames: two devices joined in memory, which is what headers, checksums and neighbours cost;
//! two TAP devices on a bridge; and AF_PACKET sockets on a veth pair. Packets per second through one thread, and the round trip
//! between two threads that poll. Medians of several runs; on shared cores, upper bounds of the latency.
//!
//! Needs root for all but the first, and makes a network namespace of its own, which goes with it.

use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::Instant;

use ionian_driver_api::{
    Bounded, BufPool, Clock, Packet, PacketDevice, PoolLayout, PoolOptions, Time,
};
use ionian_ether::{EtherDevice, EtherOptions, FrameLink, MacAddr, MemoryLink};
use ionian_tap::{PacketLink, PacketLinkOptions, TapLink, TapOptions};

const RUNS: usize = 7;
const ADDRESSES: [[&str; 2]; 2] = [
    ["10.0.0.1:7000", "10.0.0.2:7001"],
    ["[fd00::1]:7000", "[fd00::2]:7001"],
];

struct WallClock(Instant);

impl Clock for WallClock {
    fn now(&self) -> Time {
        Time::from_ns(self.0.elapsed().as_nanos() as u64)
    }
}

type Device<L> = EtherDevice<L, WallClock>;

fn main() {
    for family in ADDRESSES {
        for len in [100, 1400] {
            let macs = [1, 2].map(|n| MacAddr([2, 0, 0, 0, 0, n]));
            let [near, far] = MemoryLink::pair(macs, 1500, 64);
            let (mut near, mut far) = (device(near, family[0]), device(far, family[1]));
            one_way("memory", &mut near, &mut far, len, 1_000_000);
        }
    }
    if let Err(reason) = namespace() {
        println!("SKIP tap, af-packet: {reason}");
        return;
    }
    ip("link add br0 type bridge");
    ip("link set br0 up");
    ip("link add va type veth peer name vb");
    ip("link set va up");
    ip("link set vb up");
    for family in ADDRESSES {
        for len in [100, 1400] {
            let [mut near, mut far] = taps(family);
            one_way("tap", &mut near, &mut far, len, 100_000);
            let [mut near, mut far] = sockets(family);
            one_way("af-packet", &mut near, &mut far, len, 100_000);
        }
    }
    let [near, far] = taps(ADDRESSES[0]);
    round_trip("tap", near, far);
    let [near, far] = sockets(ADDRESSES[0]);
    round_trip("af-packet", near, far);
}

/// Gives this thread, and those that it starts, a new network namespace.
fn namespace() -> Result<(), String> {
    // SAFETY: a flag; only the calling thread and its children are concerned.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        let error = std::io::Error::last_os_error();
        return Err(format!("needs root for a network namespace ({error})"));
    }
    match Command::new("ip").arg("-V").output() {
        Ok(_) => Ok(()),
        Err(_) => Err("ip is missing (install iproute2)".to_owned()),
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "ip {arguments}"
    );
}

fn taps(addresses: [&str; 2]) -> [Device<TapLink>; 2] {
    let mut number = 0;
    addresses.map(|local| {
        number += 1;
        let options = TapOptions {
            bridge: Some("br0".to_owned()),
            ..TapOptions::new(&format!("tap{number}"))
        };
        device(TapLink::open(&options).expect("a TAP device"), local)
    })
}

fn sockets([near, far]: [&str; 2]) -> [Device<PacketLink>; 2] {
    let open = |interface: &str| {
        PacketLink::open(&PacketLinkOptions::new(interface)).expect("a packet socket")
    };
    [device(open("va"), near), device(open("vb"), far)]
}

fn device<L: FrameLink>(link: L, local: &str) -> Device<L> {
    let local: SocketAddr = local.parse().expect("an address");
    let options = EtherOptions::new(local, 24);
    EtherDevice::open(link, WallClock(Instant::now()), &options).expect("valid options")
}

fn pool() -> BufPool {
    let options = PoolOptions {
        slots: 512,
        slot_bytes: 1500,
        layout: PoolLayout::Coloured,
    };
    BufPool::with_headroom(options, 64).expect("valid size")
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Sends until something arrives: interfaces that have just come up drop what comes too early.
fn greet<L: FrameLink>(near: &mut Device<L>, far: &mut Device<L>, pool: &mut BufPool) {
    let (mut burst, mut out) = (Bounded::with_capacity(64), Bounded::with_capacity(64));
    let mut last = Instant::now();
    let mut arrived = false;
    // What was under way has come 200 ms after the last of it was sent.
    while !arrived || last.elapsed().as_millis() < 200 {
        if !arrived && last.elapsed().as_millis() >= 50 {
            last = Instant::now();
            let buf = pool.alloc_from(b"hello").expect("free");
            let peer = far.local_addr();
            burst.push(Packet { buf, peer }).expect("room");
        }
        near.tx_burst(pool, &mut burst);
        near.rx_burst(pool, &mut out);
        far.rx_burst(pool, &mut out);
        while let Some(packet) = out.pop() {
            arrived = true;
            pool.free(packet.buf);
        }
    }
}

/// Prints packets per second when one thread sends bursts and receives them: the cost of both sides.
fn one_way<L: FrameLink>(
    name: &str,
    near: &mut Device<L>,
    far: &mut Device<L>,
    len: usize,
    count: usize,
) {
    let mut pool = pool();
    greet(near, far, &mut pool);
    let (mut burst, mut out) = (Bounded::with_capacity(64), Bounded::with_capacity(64));
    let peer = far.local_addr();
    let mut lost = 0;
    let rates = (0..RUNS).map(|_| {
        let start = Instant::now();
        let (mut sent, mut received) = (0, 0);
        while sent < count {
            while sent < count && !burst.is_full() {
                let Some(mut buf) = pool.alloc() else { break };
                pool.set_len(&mut buf, len);
                burst.push(Packet { buf, peer }).expect("room");
                sent += 1;
            }
            near.tx_burst(&mut pool, &mut burst);
            near.rx_burst(&mut pool, &mut out);
            while far.rx_burst(&mut pool, &mut out) > 0 {
                while let Some(packet) = out.pop() {
                    pool.free(packet.buf);
                    received += 1;
                }
            }
        }
        lost += sent - received;
        received as f64 / start.elapsed().as_secs_f64()
    });
    let rate = median(rates.collect());
    let family = if peer.is_ipv6() { "IPv6" } else { "IPv4" };
    println!(
        "{name:9} {family} payload {len:5} B: {:8.3} M packets/s {:6.2} GB/s, not received in time {lost} of {}",
        rate / 1e6,
        rate * len as f64 / 1e9,
        count * RUNS
    );
}

/// Prints microseconds of one round trip between two polling threads.
fn round_trip<L: FrameLink + Send + 'static>(name: &str, mut near: Device<L>, mut far: Device<L>) {
    const COUNT: usize = 10_000;
    let mut near_pool = pool();
    greet(&mut near, &mut far, &mut near_pool);
    let far_addr = far.local_addr();
    let echo = thread::spawn(move || {
        let (mut pool, mut queue) = (pool(), Bounded::with_capacity(8));
        let mut echoed = 0;
        while echoed < COUNT * RUNS {
            far.rx_burst(&mut pool, &mut queue);
            echoed += queue.len();
            // The sender is the destination of the answer already.
            far.tx_burst(&mut pool, &mut queue);
            thread::yield_now();
        }
    });
    let mut queue = Bounded::with_capacity(8);
    let trips = (0..RUNS).map(|_| {
        let start = Instant::now();
        for _ in 0..COUNT {
            let buf = near_pool.alloc_from(&[1; 64]).expect("free");
            let peer = far_addr;
            queue.push(Packet { buf, peer }).expect("room");
            near.tx_burst(&mut near_pool, &mut queue);
            while near.rx_burst(&mut near_pool, &mut queue) == 0 {
                thread::yield_now();
            }
            near_pool.free(queue.pop().expect("received").buf);
        }
        start.elapsed().as_secs_f64() * 1e6 / COUNT as f64
    });
    println!(
        "{name:9} round trip 64 B: {:6.2} us",
        median(trips.collect())
    );
    echo.join().expect("the echo ends");
}
