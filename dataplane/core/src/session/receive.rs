//! The receiving half: puts packets in order, hands out messages, and decides when to ack and how much credit to give.
//!
//! ```text
//!      delivered         held            ahead of a gap        granted
//! 1 ........ consumed ........ arrived .x..xx..x...... consumed + credit
//! ```
//! A packet that can be delivered at once is never copied. One that arrives ahead of a gap, or that the application
//! refused, waits in a ring with one slot per credit, so that whatever the peer may send has a place. Held packets are
//! acked, since they are never given up; what they take away is credit.

use alloc::boxed::Box;
use alloc::vec;

use ionian_types::{Nanos, Time};
use ionian_wire::packet::Sack;

use super::assembly::{Assembly, Fed, Take};
use super::config::SessionConfig;
use super::stats::Rejected;

/// The stream holds a length that no message has: the peer is broken or hostile, and nothing after it can be trusted.
#[derive(Debug)]
pub(super) struct Broken;

/// What a data packet turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arrival {
    InOrder,
    Ahead,
    Duplicate,
}

/// The receiving half of one session.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq))]
pub(super) struct Receiver {
    arrived: u64,
    consumed: u64,
    highest: u64,
    /// How many packets lie ahead of the first gap.
    ahead: u32,
    /// How many bytes of the first held packet were delivered.
    head_at: usize,
    credit: u64,
    slot_bytes: usize,
    slots: Box<[u8]>,
    lens: Box<[u32]>,
    present: Box<[bool]>,
    assembly: Assembly,
    acks: Acks,
}

/// When the next ack is due.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq))]
struct Acks {
    now: bool,
    at: Time,
    count: u32,
    every: u32,
    delay: Nanos,
    /// The credit limit that the last packet carried.
    advertised: u64,
}

impl Receiver {
    pub(super) fn new(config: &SessionConfig) -> Self {
        let credit = config.credit_packets();
        let slot_bytes = config.payload_bytes_max();
        Self {
            arrived: 0,
            consumed: 0,
            highest: 0,
            ahead: 0,
            head_at: 0,
            credit: u64::from(credit),
            slot_bytes,
            slots: vec![0; credit as usize * slot_bytes].into_boxed_slice(),
            lens: vec![0; credit as usize].into_boxed_slice(),
            present: vec![false; credit as usize].into_boxed_slice(),
            assembly: Assembly::new(config.message_bytes_max),
            acks: Acks {
                now: false,
                at: Time::FAR,
                count: 0,
                // The sender must hear of its progress well before it runs out of credit.
                every: config.ack_every_packets.min((credit / 4).max(1)),
                delay: config.ack_delay,
                advertised: 0,
            },
        }
    }

    /// Everything up to here has arrived.
    #[inline]
    pub(super) const fn arrived(&self) -> u64 {
        self.arrived
    }

    /// The highest sequence that has a place here.
    #[inline]
    pub(super) const fn credit_limit(&self) -> u64 {
        self.consumed + self.credit
    }

    /// Whether packets wait for the application.
    #[inline]
    pub(super) const fn has_held(&self) -> bool {
        self.arrived > self.consumed
    }

    /// How many packets are acked together at most.
    #[cfg(test)]
    pub(super) const fn ack_every_packets(&self) -> u32 {
        self.acks.every
    }

    /// The bytes of memory in use, which never change.
    pub(super) fn memory_bytes(&self) -> usize {
        self.slots.len()
            + self.lens.len() * size_of::<u32>()
            + self.present.len()
            + self.assembly.capacity_bytes()
    }

    /// Whether a data packet may be taken in at all.
    #[inline]
    pub(super) const fn admit(&self, seq: u64, payload_bytes: usize) -> Result<(), Rejected> {
        if payload_bytes > self.slot_bytes {
            return Err(Rejected::TooLong);
        }
        if seq > self.credit_limit() {
            return Err(Rejected::BeyondCredit);
        }
        Ok(())
    }

    /// Takes in a data packet that was admitted.
    #[inline]
    pub(super) fn on_data<D: FnMut(&[u8]) -> Take>(
        &mut self,
        now: Time,
        seq: u64,
        payload: &[u8],
        deliver: &mut D,
    ) -> Result<Arrival, Broken> {
        if seq <= self.arrived || self.present[self.index(seq)] {
            // The sender did not get the ack, or lost patience: tell it at once.
            self.acks.now = true;
            return Ok(Arrival::Duplicate);
        }
        self.highest = self.highest.max(seq);
        if seq > self.arrived + 1 {
            self.store(seq, payload);
            let index = self.index(seq);
            self.present[index] = true;
            self.ahead += 1;
            self.acks.now = true;
            return Ok(Arrival::Ahead);
        }
        self.acks.on_in_order(now);
        let next_to_consume = self.consumed + 1 == seq;
        self.arrived = seq;
        if !next_to_consume {
            self.store(seq, payload);
        } else {
            match self.assembly.feed(payload, 0, deliver) {
                Fed::All => self.consumed = seq,
                Fed::Refused(at) => {
                    self.store(seq, payload);
                    self.head_at = at;
                }
                Fed::Broken => return Err(Broken),
            }
        }
        if self.ahead > 0 {
            self.close_gap();
        }
        // After a refusal just now the application is not asked again before the next packet.
        if self.has_held() && !(next_to_consume && self.consumed < seq) {
            self.deliver_held(deliver)?;
        }
        Ok(Arrival::InOrder)
    }

    /// Offers held messages again. Credit that comes free is announced.
    pub(super) fn resume<D: FnMut(&[u8]) -> Take>(
        &mut self,
        now: Time,
        deliver: &mut D,
    ) -> Result<(), Broken> {
        let before = self.consumed;
        self.deliver_held(deliver)?;
        if self.consumed > before {
            let gained = self.credit_limit() - self.acks.advertised;
            if gained >= self.credit / 4 || self.acks.advertised <= self.arrived {
                self.acks.now = true;
            } else {
                self.acks.arm(now);
            }
        }
        Ok(())
    }

    fn deliver_held<D: FnMut(&[u8]) -> Take>(&mut self, deliver: &mut D) -> Result<(), Broken> {
        while self.consumed < self.arrived {
            let index = self.index(self.consumed + 1);
            let start = index * self.slot_bytes;
            let held = &self.slots[start..start + self.lens[index] as usize];
            match self.assembly.feed(held, self.head_at, deliver) {
                Fed::All => {
                    self.consumed += 1;
                    self.head_at = 0;
                }
                Fed::Refused(at) => {
                    self.head_at = at;
                    return Ok(());
                }
                Fed::Broken => return Err(Broken),
            }
        }
        Ok(())
    }

    /// Advances over what lay ahead of the gap that was just filled.
    fn close_gap(&mut self) {
        self.acks.now = true;
        while self.ahead > 0 {
            let index = self.index(self.arrived + 1);
            if !self.present[index] {
                return;
            }
            self.present[index] = false;
            self.ahead -= 1;
            self.arrived += 1;
        }
    }

    #[inline]
    const fn index(&self, seq: u64) -> usize {
        (seq & (self.credit - 1)) as usize
    }

    fn store(&mut self, seq: u64, payload: &[u8]) {
        let index = self.index(seq);
        let start = index * self.slot_bytes;
        self.slots[start..start + payload.len()].copy_from_slice(payload);
        self.lens[index] = payload.len() as u32;
    }

    /// What has arrived ahead of the first gap, if anything.
    #[inline]
    pub(super) fn sack(&self) -> Option<Sack> {
        if self.ahead == 0 {
            return None;
        }
        let mut sack = Sack::default();
        let end = (self.highest - self.arrived).min(Sack::BITS);
        for bit in 1..end {
            if self.present[self.index(self.arrived + 1 + bit)] {
                sack.set(bit);
            }
        }
        Some(sack)
    }

    /// Has the next ack sent at once.
    #[inline]
    pub(super) const fn ack_at_once(&mut self) {
        self.acks.now = true;
    }

    /// Ends the holding back of an ack.
    pub(super) const fn ack_falls_due(&mut self) {
        self.acks.at = Time::FAR;
        self.acks.now = true;
    }

    /// Whether an ack is due.
    #[inline]
    pub(super) fn ack_due(&self, now: Time) -> bool {
        self.acks.now || self.acks.at <= now
    }

    /// When an ack that is held back falls due.
    #[inline]
    pub(super) const fn ack_at(&self) -> Time {
        self.acks.at
    }

    /// Takes note that a packet carried the whole state of this half.
    #[inline]
    pub(super) const fn on_ack_sent(&mut self) {
        self.acks.now = false;
        self.acks.at = Time::FAR;
        self.acks.count = 0;
        self.acks.advertised = self.credit_limit();
    }
}

impl Acks {
    #[inline]
    fn on_in_order(&mut self, now: Time) {
        self.count += 1;
        if self.count >= self.every {
            self.now = true;
        } else {
            self.arm(now);
        }
    }

    #[inline]
    fn arm(&mut self, now: Time) {
        if self.at == Time::FAR {
            self.at = now.after(self.delay);
        }
    }
}
