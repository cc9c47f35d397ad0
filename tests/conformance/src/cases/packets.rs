//! Bare datagrams: each that arrives is one that was sent, unchanged, from whom it says; the rest is the session layer's trouble.
//! Every buffer comes back, whatever becomes of its packet.

use std::collections::BTreeSet;

use ionian_driver_api::{Bounded, Packet, PacketBatch, PeerAddr};

use crate::flow::fill;
use crate::ground::{Counts, Patience, Wait};
use crate::subject::PacketEnds;

/// Packets of a queue between caller and device.
const BATCH: usize = 32;
/// Rounds without an arrival after which what is missing is sent again.
const AGAIN_ROUNDS: u64 = 2_000;
/// Rounds for which nothing may come any more.
const QUIET_ROUNDS: u64 = 300;

/// The devices with their queues.
struct Ends<'a> {
    ends: &'a mut PacketEnds,
    tx: PacketBatch,
    rx: PacketBatch,
    wait: Wait,
}

impl<'a> Ends<'a> {
    fn new(ends: &'a mut PacketEnds, patience: Patience) -> Self {
        Self {
            ends,
            tx: Bounded::with_capacity(BATCH),
            rx: Bounded::with_capacity(BATCH),
            wait: Wait::new(patience),
        }
    }

    /// Queues a packet at device 0, if pool and queue have room.
    fn queue(&mut self, peer: PeerAddr, bytes: &[u8]) -> bool {
        let pool = &mut self.ends.pools[0];
        if self.tx.is_full() {
            return false;
        }
        let Some(buf) = pool.alloc_from(bytes) else {
            return false;
        };
        if let Err(packet) = self.tx.push(Packet { buf, peer }) {
            pool.free(packet.buf);
        }
        true
    }

    /// Lets device 0 send, and both receive. Returns what came to device 1, with the sender.
    fn round(&mut self) -> Result<Vec<(PeerAddr, Vec<u8>)>, String> {
        let Self { ends, tx, rx, .. } = self;
        let before = tx.len();
        let taken = ends.devices[0].tx_burst(&mut ends.pools[0], tx);
        if before - tx.len() != taken {
            return Err(format!(
                "a burst took {} packets and says {taken}",
                before - tx.len()
            ));
        }
        let mut came = Vec::new();
        for at in [0, 1] {
            let pool = &mut ends.pools[at];
            let count = ends.devices[at].rx_burst(pool, rx);
            if count != rx.len() {
                return Err(format!(
                    "a burst brought {} packets and says {count}",
                    rx.len()
                ));
            }
            while let Some(packet) = rx.pop() {
                if at == 1 {
                    came.push((packet.peer, pool.bytes(&packet.buf).to_vec()));
                }
                pool.free(packet.buf);
            }
        }
        Ok(came)
    }

    /// Sends each of `payloads` until it has arrived. What arrives must be among them or in `stale`.
    fn deliver(
        &mut self,
        payloads: &BTreeSet<Vec<u8>>,
        stale: &BTreeSet<Vec<u8>>,
    ) -> Result<(), String> {
        let (from, to) = (
            self.ends.devices[0].local_addr(),
            self.ends.devices[1].local_addr(),
        );
        let mut missing = payloads.clone();
        let mut due: Vec<Vec<u8>> = missing.iter().rev().cloned().collect();
        let mut idle = 0;
        while !missing.is_empty() {
            while let Some(bytes) = due.pop() {
                if missing.contains(&bytes) && !self.queue(to, &bytes) {
                    due.push(bytes);
                    break;
                }
            }
            let came = self.round()?;
            idle = if came.is_empty() { idle + 1 } else { 0 };
            let moved = !came.is_empty();
            for (peer, bytes) in came {
                if peer != from {
                    return Err(format!("a packet of {from} came as one of {peer}"));
                }
                if !missing.remove(&bytes) && !payloads.contains(&bytes) && !stale.contains(&bytes)
                {
                    let len = bytes.len();
                    return Err(format!(
                        "a packet of {len} bytes arrived that was not sent so"
                    ));
                }
            }
            if idle > AGAIN_ROUNDS && due.is_empty() {
                due = missing.iter().rev().cloned().collect();
                idle = 0;
            }
            self.wait
                .round(moved)
                .map_err(|why| format!("{why}; {} packets never came", missing.len()))?;
        }
        Ok(())
    }

    /// Waits until every buffer is home and nothing comes any more.
    fn rest(&mut self, payloads: u64) -> Result<Counts, String> {
        let mut quiet = 0;
        while quiet < QUIET_ROUNDS {
            let came = self.round()?;
            let in_use: Vec<usize> = self.ends.pools.iter().map(|pool| pool.in_use()).collect();
            let home = in_use.iter().all(|count| *count == 0);
            quiet = if home && came.is_empty() {
                quiet + 1
            } else {
                0
            };
            self.wait
                .round(quiet > 0)
                .map_err(|why| format!("buffers: {in_use:?} are in use; {why}"))?;
        }
        let buffers = self.ends.pools.iter().map(|pool| pool.capacity() as u64);
        Ok(Counts {
            sent: payloads,
            received: payloads,
            buffers: buffers.sum(),
            ..Counts::default()
        })
    }
}

/// Payloads `numbers`, each of `len` bytes.
fn numbered(numbers: std::ops::Range<u64>, len: usize) -> BTreeSet<Vec<u8>> {
    let payload = |number| {
        let mut bytes = vec![0; len];
        fill(1, number, &mut bytes);
        bytes
    };
    numbers.map(payload).collect()
}

/// Packets of 0, 1, a few and the most bytes arrive as they were.
pub(super) fn sizes(ends: &mut PacketEnds, patience: Patience) -> Result<Counts, String> {
    let max = ends.devices[0].caps().payload_bytes_max;
    let mut ends = Ends::new(ends, patience);
    let lens = [0, 1, 17, 18, 19, 64, 512, max - 1, max];
    let mut stale = BTreeSet::new();
    for (number, len) in (1..).zip(lens) {
        let payload = numbered(number..number + 1, len);
        ends.deliver(&payload, &stale)?;
        stale.extend(payload);
    }
    ends.rest(lens.len() as u64)
}

/// More packets than a burst, a queue or a pool holds.
pub(super) fn bursts(ends: &mut PacketEnds, patience: Patience) -> Result<Counts, String> {
    const PACKETS: u64 = 3_000;
    let mut ends = Ends::new(ends, patience);
    ends.deliver(&numbered(0..PACKETS, 200), &BTreeSet::new())?;
    ends.rest(PACKETS)
}

/// A packet that is too long is taken, lost and its buffer freed; the next one passes.
pub(super) fn oversize(ends: &mut PacketEnds, patience: Patience) -> Result<Counts, String> {
    let max = ends.devices[0].caps().payload_bytes_max;
    let mut ends = Ends::new(ends, patience);
    let to = ends.ends.devices[1].local_addr();
    ends.deliver(&numbered(0..1, 64), &BTreeSet::new())?;
    for _ in 0..10 {
        let too_long = vec![7; max + 1];
        if !ends.queue(to, &too_long) {
            return Err("no room for a packet".to_owned());
        }
        while !ends.tx.is_empty() {
            let came = ends.round()?;
            if came.iter().any(|(_, bytes)| bytes.len() != 64) {
                return Err(format!("{} bytes arrived, {max} are the most", max + 1));
            }
            ends.wait
                .round(false)
                .map_err(|why| format!("{why}: a packet that is too long is not taken"))?;
        }
    }
    let stale = numbered(0..1, 64);
    ends.deliver(&numbered(1..11, 64), &stale)?;
    ends.rest(11)
}

/// A receiver without buffers is given nothing; what it loses is lost, and afterwards all is well.
pub(super) fn empty_pool(ends: &mut PacketEnds, patience: Patience) -> Result<Counts, String> {
    let mut ends = Ends::new(ends, patience);
    ends.deliver(&numbered(0..1, 100), &BTreeSet::new())?;
    let mut stale = numbered(0..1, 100);
    let taken: Vec<_> = std::iter::from_fn(|| ends.ends.pools[1].alloc()).collect();
    let to = ends.ends.devices[1].local_addr();
    for bytes in numbered(1..21, 100) {
        ends.queue(to, &bytes);
        stale.insert(bytes);
        if !ends.round()?.is_empty() {
            return Err("a packet came without a buffer to hold it".to_owned());
        }
    }
    for buf in taken {
        ends.ends.pools[1].free(buf);
    }
    ends.deliver(&numbered(21..41, 100), &stale)?;
    ends.rest(21)
}

/// Packets to an address where nobody answers are taken, and their buffers come back.
pub(super) fn nobody(ends: &mut PacketEnds, patience: Patience) -> Result<Counts, String> {
    let mut ends = Ends::new(ends, patience);
    let nobody = ends.ends.nobody;
    for bytes in numbered(0..200, 300) {
        while !ends.queue(nobody, &bytes) {
            ends.round()?;
            ends.wait
                .round(false)
                .map_err(|why| format!("{why}: packets to nobody hold their buffers"))?;
        }
        ends.round()?;
    }
    ends.deliver(&numbered(200..210, 100), &BTreeSet::new())?;
    ends.rest(10)
}
