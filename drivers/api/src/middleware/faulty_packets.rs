//! A packet device that loses, duplicates, reorders, delays and damages what is sent through it.

use std::os::fd::RawFd;

use super::dice::{Dice, FaultCounts};
use crate::bounded::Bounded;
use crate::buf::BufPool;
use crate::packet::{Packet, PacketBatch, PacketCaps, PacketDevice, PeerAddr};

/// Chances per packet sent, in parts per million.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PacketFaults {
    /// Lose it.
    pub drop_ppm: u32,
    /// Send it twice.
    pub duplicate_ppm: u32,
    /// Send it before the packet that precedes it in the burst (or a poll later, if it is the first).
    pub reorder_ppm: u32,
    /// Hold it for 1 to `delay_polls_max` polls.
    pub delay_ppm: u32,
    /// Longest delay, in calls of `rx_burst`.
    pub delay_polls_max: u64,
    /// Flip one bit of it.
    pub corrupt_ppm: u32,
}

/// Wraps a device with seeded faults on the sending side.
#[derive(Debug)]
pub struct FaultyPackets<D> {
    inner: D,
    faults: PacketFaults,
    dice: Dice,
    staged: PacketBatch,
    held: Bounded<(u64, Packet)>,
    polls: u64,
    counts: FaultCounts,
}

/// Packets held back at most; beyond it, none is delayed.
const HELD_MAX: usize = 1024;

impl<D: PacketDevice> FaultyPackets<D> {
    /// Wraps `inner`; the same `seed` and calls give the same faults.
    #[must_use]
    pub fn new(inner: D, faults: PacketFaults, seed: u64) -> Self {
        // Twice the batch: each packet of a batch may be duplicated.
        let staged = Bounded::with_capacity(inner.caps().batch_max.max(1) * 2 + HELD_MAX);
        Self {
            inner,
            faults,
            dice: Dice::new(seed),
            staged,
            held: Bounded::with_capacity(HELD_MAX),
            polls: 0,
            counts: FaultCounts::default(),
        }
    }

    /// Changes the chances from now on.
    pub fn set_faults(&mut self, faults: PacketFaults) {
        self.faults = faults;
    }

    /// Faults so far.
    #[must_use]
    pub fn counts(&self) -> FaultCounts {
        self.counts
    }

    /// The wrapped device, to look at.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// The wrapped device.
    pub fn inner_mut(&mut self) -> &mut D {
        &mut self.inner
    }

    fn stage(&mut self, pool: &mut BufPool, packet: Packet) {
        if let Err(packet) = self.staged.push(packet) {
            // Room for a batch is checked before a packet is taken; only a duplicate can find none.
            pool.free(packet.buf);
        }
    }

    fn send_one(&mut self, pool: &mut BufPool, mut packet: Packet) {
        let faults = self.faults;
        if self.dice.chance(faults.drop_ppm) {
            self.counts.dropped += 1;
            pool.free(packet.buf);
            return;
        }
        if self.dice.chance(faults.corrupt_ppm) && !packet.buf.is_empty() {
            let at = self.dice.below(packet.buf.len() as u64 * 8);
            pool.bytes_mut(&mut packet.buf)[(at / 8) as usize] ^= 1 << (at % 8);
            self.counts.corrupted += 1;
        }
        if self.dice.chance(faults.duplicate_ppm) {
            let copy = pool.alloc().map(|mut copy| {
                pool.set_len(&mut copy, packet.buf.len());
                pool.bytes_mut(&mut copy)
                    .copy_from_slice(pool.bytes(&packet.buf));
                copy
            });
            if let Some(buf) = copy {
                self.counts.duplicated += 1;
                self.stage(
                    pool,
                    Packet {
                        buf,
                        peer: packet.peer,
                    },
                );
            }
        }
        let reorder = self.dice.chance(faults.reorder_ppm);
        let delay = self.dice.chance(faults.delay_ppm);
        if delay || (reorder && self.staged.is_empty()) {
            let polls = if delay {
                1 + self.dice.below(faults.delay_polls_max.max(1))
            } else {
                1
            };
            match self.held.push((self.polls + polls, packet)) {
                Ok(()) => self.counts.delayed += 1,
                Err((_, packet)) => self.stage(pool, packet),
            }
            return;
        }
        self.stage(pool, packet);
        let last = self.staged.len().saturating_sub(1);
        if reorder
            && last > 0
            && let Some(earlier) = self.staged.remove(last - 1)
        {
            self.counts.reordered += 1;
            self.stage(pool, earlier);
        }
    }

    fn release_held(&mut self, pool: &mut BufPool) {
        let mut index = 0;
        while let Some((due, _)) = self.held.get(index) {
            if *due > self.polls {
                index += 1;
            } else if let Some((_, packet)) = self.held.remove(index) {
                self.stage(pool, packet);
            }
        }
        self.inner.tx_burst(pool, &mut self.staged);
    }
}

impl<D: PacketDevice> PacketDevice for FaultyPackets<D> {
    fn caps(&self) -> PacketCaps {
        self.inner.caps()
    }

    fn local_addr(&self) -> PeerAddr {
        self.inner.local_addr()
    }

    fn rx_burst(&mut self, pool: &mut BufPool, out: &mut PacketBatch) -> usize {
        self.polls += 1;
        if !self.held.is_empty() || !self.staged.is_empty() {
            self.release_held(pool);
        }
        self.inner.rx_burst(pool, out)
    }

    fn tx_burst(&mut self, pool: &mut BufPool, burst: &mut PacketBatch) -> usize {
        let mut taken = 0;
        while self.staged.room() >= 2 + self.held.len() {
            let Some(packet) = burst.pop() else { break };
            self.send_one(pool, packet);
            taken += 1;
        }
        self.inner.tx_burst(pool, &mut self.staged);
        taken
    }

    fn arm(&mut self) -> bool {
        // A sleeping reactor would not count polls: with packets held back it must keep polling.
        self.held.is_empty() && self.staged.is_empty() && self.inner.arm()
    }

    fn wake_fd(&self) -> Option<RawFd> {
        self.inner.wake_fd()
    }
}

#[cfg(test)]
#[path = "faulty_packets_tests.rs"]
mod tests;
