//! What a dropped datagram costs: the node's processor time, the kernel's part of receiving included.
//!
//! A node that waits for the next datagram spends time on waiting, and one sender on the same machine is never faster than it. So
//! the datagrams come while the node is stopped (SIGSTOP), as many as its socket holds, and it takes them in one go when it
//! goes on, as it would if there were more than it can take. What stopping and going on costs without datagrams is taken off.
//! Not in it is what the network's interrupt costs: on loopback the sender does that.
//!
//! Its limit is what the UDP driver alone takes to receive such a datagram and to give its buffer back, measured in turn with it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ionian_driver_api::{BufPool, PacketBatch, PacketDevice, PoolLayout, PoolOptions};
use ionian_udp::{UdpDevice, UdpOptions};

use super::tries::Try;
use super::{BURST, Bench, ROUNDS, TARGET};
use crate::process::wait_until;

/// Bursts per round.
const BURSTS: u64 = 100;
/// How long a node may take to empty its socket.
const EMPTY_LIMIT: Duration = Duration::from_secs(30);

/// What was measured, by round, in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Costs {
    /// A datagram that the node drops.
    pub(super) dropped: Vec<f64>,
    /// One that the driver alone receives.
    pub(super) driver: Vec<f64>,
    /// How many the node dropped, in all rounds.
    pub(super) count: u64,
}

impl Bench<'_> {
    /// Measures both, by turns.
    pub(super) fn cost(&mut self) -> Result<Costs> {
        let mut costs = Costs::default();
        let mut driver = Driver::open()?;
        for _ in 0..ROUNDS {
            costs.driver.push(self.driver_alone(&mut driver)?);
            let before = self.counted()?.dropped;
            let with = self.bursts(BURST)?;
            let dropped = self.counted()?.dropped.saturating_sub(before);
            let without = self.bursts(0)?;
            if dropped < BURSTS * BURST / 2 {
                bail!(
                    "of {} datagrams only {dropped} were counted",
                    BURSTS * BURST
                );
            }
            costs.count += dropped;
            let taken = with.saturating_sub(without);
            costs.dropped.push(taken as f64 / dropped as f64);
        }
        Ok(costs)
    }

    /// What the driver takes for one of such bursts, divided by its datagrams: the median of a round's.
    fn driver_alone(&mut self, driver: &mut Driver) -> Result<f64> {
        let kinds = Try::CHEAP;
        let mut spans = Vec::new();
        for _ in 0..BURSTS {
            for at in 0..BURST {
                let kind = kinds[(at % kinds.len() as u64) as usize];
                let datagram = self.stranger.make(kind, &[]);
                self.socket.send_to(datagram, driver.device.local_addr())?;
            }
            let (span, count) = driver.empty();
            if count < BURST / 2 {
                bail!("of {BURST} datagrams the driver received only {count}");
            }
            spans.push(span.as_nanos() as f64 / count as f64);
        }
        spans.sort_unstable_by(f64::total_cmp);
        Ok(spans[spans.len() / 2])
    }

    /// The node's processor time over bursts of so many datagrams, in nanoseconds.
    fn bursts(&mut self, count: u64) -> Result<u64> {
        let kinds = Try::CHEAP;
        let mut busy = 0;
        for _ in 0..BURSTS {
            let began = self.busy_ns()?;
            self.node()?.pause()?;
            for at in 0..count {
                let kind = kinds[(at % kinds.len() as u64) as usize];
                let datagram = self.stranger.make(kind, &[]);
                self.socket.send_to(datagram, self.address)?;
            }
            self.node()?.resume()?;
            let address = self.address;
            if !wait_until(EMPTY_LIMIT, || Ok(waiting_bytes(address)? == 0))? {
                bail!("the node does not empty its socket");
            }
            busy += self.busy_ns()?.saturating_sub(began);
        }
        Ok(busy)
    }

    fn node(&mut self) -> Result<&mut crate::process::Process> {
        let node = self.cluster.node_mut(TARGET);
        node.context("the node has ended")
    }

    fn busy_ns(&self) -> Result<u64> {
        let node = self.cluster.node(TARGET).context("the node has ended")?;
        node.processor_ns()
    }
}

/// The driver, and nothing of a node above it.
struct Driver {
    device: UdpDevice,
    pool: BufPool,
    packets: PacketBatch,
}

impl Driver {
    fn open() -> Result<Self> {
        let options = UdpOptions::default();
        Ok(Self {
            device: UdpDevice::open(&options)?,
            pool: BufPool::new(PoolOptions {
                slots: BURST as u32,
                slot_bytes: options.mtu_bytes,
                layout: PoolLayout::Coloured,
            })?,
            packets: PacketBatch::with_capacity(options.batch),
        })
    }

    /// Receives what waits; how long that took, and how many they were.
    fn empty(&mut self) -> (Duration, u64) {
        let (start, mut count) = (Instant::now(), 0);
        while self.device.rx_burst(&mut self.pool, &mut self.packets) > 0 {
            while let Some(packet) = self.packets.pop() {
                self.pool.free(packet.buf);
                count += 1;
            }
        }
        (start.elapsed(), count)
    }
}

/// Bytes in the receive buffer of the socket that is bound to an address (proc(5), /proc/net/udp).
fn waiting_bytes(address: SocketAddr) -> Result<u64> {
    let table = std::fs::read_to_string("/proc/net/udp").context("reading /proc/net/udp")?;
    let port = format!(":{:04X}", address.port());
    for line in table.lines().skip(1) {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        if !local.ends_with(&port) {
            continue;
        }
        // The peer's address, the state, and then both queues.
        let queues = fields.nth(2).context("a short /proc/net/udp")?;
        let (_, receive) = queues
            .split_once(':')
            .context("no queues in /proc/net/udp")?;
        return Ok(u64::from_str_radix(receive, 16)?);
    }
    bail!("no socket is bound to port {}", address.port());
}
