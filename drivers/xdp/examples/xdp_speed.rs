//! Measures links over a pair of virtual interfaces that it is given: the round trip between two threads that poll, and
//! frames per second from one to the other, with the program in the stack and in the driver. Medians of several runs; on
//! shared cores, upper bounds of the latency. As root:
//!
//! ```text
//! ip netns add xa; ip netns add xb
//! ip link add veth0 netns xa type veth peer name veth0 netns xb
//! ip -n xa link set veth0 up; ip -n xb link set veth0 up
//! cargo run --release -p ionian-xdp --example xdp_speed -- xa veth0 xb veth0
//! ip netns del xa; ip netns del xb
//! ```

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ionian_driver_api::{Bounded, BufPool, PoolLayout, PoolOptions};
use ionian_ether::{Checksum, Frame, FrameBatch, FrameLink, Headers, MacAddr};
use ionian_xdp::{XdpAttach, XdpLink, XdpOptions};

const RUNS: usize = 7;
const ROUND_TRIPS: u64 = 20_000;
const FRAMES: u64 = 200_000;
/// Payload of a frame in bytes; with headers it is 106 bytes long.
const PAYLOAD_BYTES: usize = 64;
/// Frames sent and not yet received at most: fewer than any ring between the ends holds, so that none is lost.
const WINDOW: u64 = 192;
/// Polls in vain before the core is offered to others.
const SPINS: u32 = 200;
/// An answer that does not come in this time was lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// An interface in a namespace, and the address of the link on it.
struct Place {
    namespace: String,
    interface: String,
    addr: SocketAddr,
}

/// A link and what drives it.
struct Site {
    link: XdpLink,
    pool: BufPool,
    burst: FrameBatch,
    out: FrameBatch,
    headers: Headers,
    header: [u8; 42],
    idle: u32,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [near_namespace, near_interface, far_namespace, far_interface] = &words[..] else {
        eprintln!("usage: xdp_speed NAMESPACE INTERFACE NAMESPACE INTERFACE");
        return ExitCode::from(2);
    };
    let place = |namespace: &String, interface: &String, host| Place {
        namespace: namespace.clone(),
        interface: interface.clone(),
        addr: SocketAddr::from(([10, 91, 8, host], 40_001)),
    };
    let near = place(near_namespace, near_interface, 1);
    let far = place(far_namespace, far_interface, 2);
    for attach in [XdpAttach::Skb, XdpAttach::Native] {
        let figures: Result<Vec<(f64, f64)>, String> =
            (0..RUNS).map(|_| run(&near, &far, attach)).collect();
        match figures {
            Ok(figures) => {
                let median = |mut of: Vec<f64>| {
                    of.sort_by(f64::total_cmp);
                    of[RUNS / 2]
                };
                println!(
                    "copy, {attach:?}: round trip of {PAYLOAD_BYTES} B {:.2} us, one way {:.3} M frames/s",
                    median(figures.iter().map(|(micros, _)| *micros).collect()),
                    median(figures.iter().map(|(_, rate)| rate / 1e6).collect()),
                );
            }
            Err(sentence) => {
                eprintln!("{sentence}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Microseconds of a round trip, and frames per second one way.
fn run(near: &Place, far: &Place, attach: XdpAttach) -> Result<(f64, f64), String> {
    // Both are open before frames are sent, and each knows the other's address.
    let (macs, ready) = ([AtomicU64::new(0), AtomicU64::new(0)], Barrier::new(2));
    let received = AtomicU64::new(0);
    let open = |index: usize, place: &Place, other: &Place| {
        let site = enter(&place.namespace).and_then(|()| Site::open(place, attach));
        if let Ok(site) = &site {
            macs[index].store(number(site.link.caps().mac), Ordering::SeqCst);
        }
        ready.wait();
        let peer = macs[1 - index].load(Ordering::SeqCst);
        let mut site = site?;
        if peer == 0 {
            return Err("the other end could not be opened".to_owned());
        }
        site.address(place.addr, other.addr, peer);
        Ok(site)
    };
    thread::scope(|scope| {
        let echo = scope.spawn(|| {
            let mut site = open(1, far, near)?;
            for _ in 0..ROUND_TRIPS {
                site.wait()?;
                site.stage();
                site.send();
            }
            let mut last = Instant::now();
            while received.load(Ordering::Relaxed) < FRAMES {
                let count = site.receive();
                if count > 0 {
                    last = Instant::now();
                    received.fetch_add(count, Ordering::Release);
                } else if site.idle() && last.elapsed() > PATIENCE {
                    return Err(format!("frames were lost: {}", site.account()));
                }
            }
            Ok(())
        });
        let measured = measure(|| open(0, near, far), &received);
        let echoed = echo.join().expect("the echo does not panic");
        // The reason of the end that failed first is worth more than that the other one heard nothing.
        match (echoed, measured) {
            (Ok(()), measured) => measured,
            (Err(reason), Ok(_)) => Err(reason),
            (Err(one), Err(other)) => Err(format!("{one}; {other}")),
        }
    })
}

fn measure(
    open: impl FnOnce() -> Result<Site, String>,
    received: &AtomicU64,
) -> Result<(f64, f64), String> {
    let mut site = open()?;
    let start = Instant::now();
    for _ in 0..ROUND_TRIPS {
        site.stage();
        site.send();
        site.wait()?;
    }
    let micros = start.elapsed().as_secs_f64() * 1e6 / ROUND_TRIPS as f64;
    let (start, mut sent) = (Instant::now(), 0);
    let (mut there, mut last) = (0, start);
    while there < FRAMES {
        let before = there;
        there = received.load(Ordering::Acquire);
        if there > before {
            last = Instant::now();
        }
        while sent < FRAMES && sent < there + WINDOW && site.stage() {
            sent += 1;
        }
        if !site.burst.is_empty() {
            site.send();
        } else if site.idle() && last.elapsed() > PATIENCE {
            return Err(format!("{there} of {sent} frames came: {}", site.account()));
        }
    }
    Ok((micros, FRAMES as f64 / start.elapsed().as_secs_f64()))
}

impl Site {
    fn open(place: &Place, attach: XdpAttach) -> Result<Self, String> {
        let mut options = XdpOptions::new(&place.interface, place.addr);
        options.attach = attach;
        let link = XdpLink::open(&options).map_err(|error| error.to_string())?;
        let options = PoolOptions {
            slots: 512,
            slot_bytes: 2048,
            layout: PoolLayout::Coloured,
        };
        Ok(Self {
            link,
            pool: BufPool::with_headroom(options, 66).map_err(|error| error.to_string())?,
            burst: Bounded::with_capacity(64),
            out: Bounded::with_capacity(64),
            headers: Headers::new(place.addr.ip(), None),
            header: [0; 42],
            idle: 0,
        })
    }

    /// Writes the headers of all frames that this site sends. Their checksums are looked at by nobody here.
    fn address(&mut self, from: SocketAddr, to: SocketAddr, peer: u64) {
        let octets = |addr: SocketAddr| match addr {
            SocketAddr::V4(addr) => addr.ip().octets(),
            SocketAddr::V6(_) => [0; 4],
        };
        let header = &mut self.header;
        for (index, byte) in header[..6].iter_mut().enumerate() {
            *byte = (peer >> (40 - 8 * index)) as u8;
        }
        header[6..12].copy_from_slice(&self.link.caps().mac.0);
        let (ip_len, udp_len) = (PAYLOAD_BYTES as u8 + 28, PAYLOAD_BYTES as u8 + 8);
        header[12..18].copy_from_slice(&[8, 0, 0x45, 0, 0, ip_len]);
        header[18..26].copy_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
        header[26..30].copy_from_slice(&octets(from));
        header[30..34].copy_from_slice(&octets(to));
        for (at, port) in [(34, from.port()), (36, to.port())] {
            header[at] = (port >> 8) as u8;
            header[at + 1] = port as u8;
        }
        header[38..42].copy_from_slice(&[0, udp_len, 0, 0]);
    }

    fn stage(&mut self) -> bool {
        if self.burst.is_full() {
            return false;
        }
        let Some(mut buf) = self.pool.alloc_from(&[1; PAYLOAD_BYTES]) else {
            return false;
        };
        self.pool.prepend(&mut buf, 42)[..42].copy_from_slice(&self.header);
        let checksum = Checksum::InFrame;
        if let Err(frame) = self.burst.push(Frame { buf, checksum }) {
            self.pool.free(frame.buf);
        }
        true
    }

    fn send(&mut self) {
        self.link.tx_burst(&mut self.pool, &mut self.burst);
    }

    /// Receives and frees what is there. Returns the number of frames.
    fn receive(&mut self) -> u64 {
        self.link
            .rx_burst(&mut self.pool, self.headers, &mut self.out);
        let mut count = 0;
        while let Some(frame) = self.out.pop() {
            self.pool.free(frame.buf);
            count += 1;
        }
        count
    }

    /// What the link has counted.
    fn account(&mut self) -> String {
        format!("{:?} {:?}", self.link.stats(), self.link.xdp_stats())
    }

    /// Counts a poll in vain. Now and then lets others have the core, who may be the ones that are waited for; `true` then.
    fn idle(&mut self) -> bool {
        self.idle = self.idle.wrapping_add(1);
        let yields = self.idle.is_multiple_of(SPINS);
        if yields {
            thread::yield_now();
        }
        yields
    }

    /// Polls until a frame comes.
    fn wait(&mut self) -> Result<(), String> {
        let start = Instant::now();
        while self.receive() == 0 {
            if self.idle() && start.elapsed() > PATIENCE {
                return Err(format!("a frame was lost: {}", self.account()));
            }
        }
        Ok(())
    }
}

/// An address as a number, which is not 0.
fn number(mac: MacAddr) -> u64 {
    mac.0
        .iter()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Moves this thread into a namespace that `ip netns` has made.
fn enter(namespace: &str) -> Result<(), String> {
    let path = format!("/run/netns/{namespace}");
    let file = File::open(&path).map_err(|error| format!("{path}: {error}"))?;
    // SAFETY: takes a descriptor, which is open; changes the namespace of this thread alone.
    let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
    if result != 0 {
        return Err(format!("setns {path}: {}", std::io::Error::last_os_error()));
    }
    Ok(())
}
