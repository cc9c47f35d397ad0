//! The sending half: keeps messages until they are acked and decides which packet goes next.
//!
//! The stream of messages lies once in a byte ring; a packet is a piece of it, cut when it is first sent and repeated
//! unchanged, so that a sequence always stands for the same bytes.
//!
//! ```text
//!   pick          ack or bitmap
//! -------> InFlight ----------> Arrived -- cumulative ack --> (free)
//!             ^ | later ones acked, or timeout          ^
//!        pick | v                                       |
//!            Lost --------------- ack or bitmap --------+
//! ```

use alloc::boxed::Box;
use alloc::vec;

use ionian_types::{Nanos, Time};
use ionian_wire::frame::MESSAGE_HEADER_BYTES;

use super::assembly::message_bytes;
use super::config::{CREDIT_INITIAL_PACKETS, SessionConfig};
use super::congestion::Congestion;
use super::rtt::Rtt;
use super::stats::SessionStats;

/// Why a message was not taken over. Effect: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// There is no room until the peer has acked more: backpressure. Try again when [`super::Received::freed`] says so.
    #[error("no room: {need} bytes needed, {room} free")]
    Full {
        /// The message's length in bytes.
        need: usize,
        /// The bytes free.
        room: usize,
    },
    /// The parts do not make up one message as its header describes it, the header is not within the first part, or
    /// the message is longer than the session carries.
    #[error("not one message of a length that the session carries")]
    NotOneMessage,
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SlotState {
    InFlight,
    Lost,
    Arrived,
}

/// One packet sent and not covered by the cumulative ack.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(PartialEq))]
pub(super) struct Slot {
    /// The number of its last transmission, over all packets.
    pub(super) send_no: u64,
    pub(super) sent_at: Time,
    start: u32,
    pub(super) len: u32,
    pub(super) state: SlotState,
    /// Whether it was sent more than once.
    pub(super) again: bool,
    /// Whether acks of later packets showed it lost.
    pub(super) fast: bool,
}

/// A packet to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Picked {
    pub(super) seq: u64,
    pub(super) payload_bytes: usize,
    /// Whether nothing more can be sent before an ack.
    pub(super) ask: bool,
}

/// The sending half of one session.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq))]
pub(super) struct Sender {
    ring: Box<[u8]>,
    tail_at: usize,
    unsent_at: usize,
    unsent: usize,
    used: usize,
    message_bytes_max: usize,

    pub(super) slots: Box<[Slot]>,
    /// The first sequence not acked.
    pub(super) una: u64,
    /// The sequence of the next new packet.
    pub(super) next: u64,
    /// The highest sequence that the peer is ready to take.
    pub(super) credit: u64,
    pub(super) in_flight: u32,
    pub(super) lost: u32,
    /// No packet below is lost.
    pub(super) lost_from: u64,
    /// The number of the next transmission.
    pub(super) send_no: u64,
    /// The highest transmission known to have arrived.
    pub(super) send_no_arrived: u64,
    /// Whether one lost packet may go in spite of a full window.
    pub(super) probe: bool,

    pub(super) rtt: Rtt,
    pub(super) congestion: Congestion,
    pub(super) watch: Watch,
}

/// The wait for an answer of the peer.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq))]
pub(super) struct Watch {
    /// When the wait for an answer ends; [`Time::FAR`] while none is awaited.
    pub(super) timer_at: Time,
    /// The start of the wait, or the last sign of life since.
    pub(super) since: Time,
    /// How often the timer has run out since.
    pub(super) attempts: u32,
    /// All waits together that have run out since the first packet missing changed.
    pub(super) stuck: Nanos,
    /// Whether the peer is to be asked for a sign of life or of credit.
    pub(super) ask_due: bool,
    pub(super) dead_after: Nanos,
}

impl Watch {
    /// Starts to wait, if nothing was awaited yet.
    #[inline]
    pub(super) fn arm(&mut self, now: Time, wait: Nanos) {
        if self.timer_at == Time::FAR {
            self.timer_at = now.after(wait);
            self.since = now;
            self.attempts = 0;
        }
    }
}

impl Sender {
    pub(super) fn new(config: &SessionConfig, now: Time) -> Self {
        let free = Slot {
            send_no: 0,
            sent_at: Time::ZERO,
            start: 0,
            len: 0,
            state: SlotState::Arrived,
            again: false,
            fast: false,
        };
        Self {
            ring: vec![0; config.send_bytes_max].into_boxed_slice(),
            tail_at: 0,
            unsent_at: 0,
            unsent: 0,
            used: 0,
            message_bytes_max: config.message_bytes_max,
            slots: vec![free; config.window_packets as usize].into_boxed_slice(),
            una: 1,
            next: 1,
            credit: u64::from(CREDIT_INITIAL_PACKETS),
            in_flight: 0,
            lost: 0,
            lost_from: 1,
            send_no: 1,
            send_no_arrived: 0,
            probe: false,
            rtt: Rtt::new(config.rto_min, config.rto_max, config.ack_delay),
            congestion: Congestion::new(config.window_packets),
            watch: Watch {
                timer_at: Time::FAR,
                since: now,
                attempts: 0,
                stuck: Nanos(0),
                ask_due: false,
                dead_after: config.dead_after,
            },
        }
    }

    /// The bytes free for messages.
    #[inline]
    pub(super) const fn room_bytes(&self) -> usize {
        self.ring.len() - self.used
    }

    /// The bytes of messages that were not acked yet.
    #[inline]
    pub(super) const fn unacked_bytes(&self) -> usize {
        self.used
    }

    /// The bytes of memory in use, which never change.
    pub(super) fn memory_bytes(&self) -> usize {
        self.ring.len() + self.slots.len() * size_of::<Slot>()
    }

    /// Whether there is data to be sent, if window and credit allow.
    #[inline]
    pub(super) const fn has_data(&self) -> bool {
        self.lost > 0 || self.unsent > 0
    }

    /// Whether packets were sent and not acked.
    #[inline]
    pub(super) const fn outstanding(&self) -> bool {
        self.una < self.next
    }

    /// Copies one message to the end of the stream.
    #[inline]
    pub(super) fn push(&mut self, parts: &[&[u8]]) -> Result<(), PushError> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let header = parts
            .first()
            .and_then(|head| head.first_chunk::<MESSAGE_HEADER_BYTES>());
        // A length that the receiver would read otherwise would end the session there; it must not get that far.
        if header.and_then(|header| message_bytes(header, self.message_bytes_max)) != Some(total) {
            return Err(PushError::NotOneMessage);
        }
        let room = self.room_bytes();
        if total > room {
            return Err(PushError::Full { need: total, room });
        }
        for part in parts {
            self.copy_in(part);
        }
        self.unsent += total;
        self.used += total;
        Ok(())
    }

    #[inline]
    fn copy_in(&mut self, part: &[u8]) {
        let to_end = self.ring.len() - self.tail_at;
        if part.len() < to_end {
            self.ring[self.tail_at..self.tail_at + part.len()].copy_from_slice(part);
            self.tail_at += part.len();
        } else {
            let (first, second) = part.split_at(to_end);
            self.ring[self.tail_at..].copy_from_slice(first);
            self.ring[..second.len()].copy_from_slice(second);
            self.tail_at = second.len();
        }
    }

    /// Chooses the packet to send now, retransmissions first, and takes note that it is sent.
    #[inline]
    pub(super) fn pick(
        &mut self,
        now: Time,
        payload_bytes_max: usize,
        stats: &mut SessionStats,
    ) -> Option<Picked> {
        if !self.has_data() {
            return None;
        }
        let window_open = self.in_flight < self.congestion.window();
        let seq = if self.lost > 0 && (window_open || self.probe) {
            self.pick_lost(stats)
        } else if self.unsent > 0 && window_open && self.may_send_new() {
            self.cut(payload_bytes_max)
        } else {
            if !self.outstanding() {
                // Only credit can be missing. The packet that grants it may get lost: ask for it after a while.
                self.watch.arm(now, self.rtt.wait());
            }
            return None;
        };
        self.probe = false;
        self.in_flight += 1;
        let index = self.index(seq);
        let slot = &mut self.slots[index];
        slot.state = SlotState::InFlight;
        slot.send_no = self.send_no;
        slot.sent_at = now;
        let (payload_bytes, again) = (slot.len as usize, slot.again);
        self.send_no += 1;
        self.watch.arm(now, self.rtt.wait());
        let blocked = self.in_flight >= self.congestion.window() || !self.may_send_new();
        Some(Picked {
            seq,
            payload_bytes,
            ask: again || blocked,
        })
    }

    /// The payload of a packet that was picked, in two parts because it may wrap around the end of the ring.
    #[inline]
    pub(super) fn payload(&self, seq: u64) -> [&[u8]; 2] {
        let slot = &self.slots[self.index(seq)];
        let (start, len) = (slot.start as usize, slot.len as usize);
        let to_end = self.ring.len() - start;
        if len <= to_end {
            [&self.ring[start..start + len], &[]]
        } else {
            [&self.ring[start..], &self.ring[..len - to_end]]
        }
    }

    /// Gives back the bytes of the packet at `una`, which was acked, and goes on to the next.
    #[inline]
    pub(super) fn release_first(&mut self) {
        self.used -= self.slots[self.index(self.una)].len as usize;
        self.una += 1;
        self.watch.stuck = Nanos(0);
    }

    #[inline]
    const fn may_send_new(&self) -> bool {
        self.next <= self.credit && self.next - self.una < self.slots.len() as u64
    }

    #[inline]
    pub(super) const fn index(&self, seq: u64) -> usize {
        (seq & (self.slots.len() as u64 - 1)) as usize
    }

    fn pick_lost(&mut self, stats: &mut SessionStats) -> u64 {
        let mut seq = self.lost_from.max(self.una);
        while self.slots[self.index(seq)].state != SlotState::Lost {
            seq += 1;
            assert!(seq < self.next, "a lost packet lies between una and next");
        }
        self.lost_from = seq + 1;
        self.lost -= 1;
        let index = self.index(seq);
        let slot = &mut self.slots[index];
        slot.again = true;
        stats.retransmits += 1;
        stats.retransmits_fast += u64::from(slot.fast);
        seq
    }

    /// Cuts the next packet off the stream.
    #[inline]
    fn cut(&mut self, payload_bytes_max: usize) -> u64 {
        let seq = self.next;
        let len = self.unsent.min(payload_bytes_max);
        let index = self.index(seq);
        let slot = &mut self.slots[index];
        slot.start = self.unsent_at as u32;
        slot.len = len as u32;
        slot.again = false;
        slot.fast = false;
        self.next += 1;
        self.unsent -= len;
        self.unsent_at += len;
        if self.unsent_at >= self.ring.len() {
            self.unsent_at -= self.ring.len();
        }
        seq
    }
}
