//! A lane: appends in the order in which they were issued, bound to one server's generation at a time.
//!
//! ```text
//! tickets:  base ......... floor ......... sent ......... high ......... end
//!           seq 0          oldest          next to        never sent     next ticket
//!                          unresolved      send           from here on
//! ```
//! A record's sequence number is its ticket's distance from `base`, the first ticket of the session. A lane that moves
//! sets `base` to its floor and patches the headers of the records that it takes along: tickets stay as they are, which is
//! why completions come in the order of the tickets whatever the servers do.
//!
//! ```text
//!            bind                    closed, lost, move
//! Unbound ----------> Live ------------------------------> Resolving
//!    ^                  ^  <------------------------------     |
//!    |                  |     the lost server came back        | the fate of every sent record is known
//!    +------------------+--------------------------------------+   (records left: bind again; none: Unbound)
//! ```

use alloc::boxed::Box;
use alloc::vec;

use ionian_types::{
    ClientId, ClientSeq, Durability, EntryNo, Gen, Gsn, Lsn, Nanos, NodeId, SegmentId, SessionNo,
    ShardId, Time,
};
use ionian_wire::codec::Field;
use ionian_wire::frame::RefusalReason;
use ionian_wire::record::{emit_unplaced, encoded_bytes};

use super::peers::PeerIx;
use super::ring::SendRing;

/// Which servers a lane may be bound to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// Any, and it stays there.
    Any,
    /// Any, as one of a set that covers all open servers.
    Spread,
    /// Those of one shard.
    Shard(ShardId),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Binding {
    pub(super) segment: SegmentId,
    pub(super) generation: Gen,
    pub(super) session: SessionNo,
    pub(super) peer: PeerIx,
}

/// Why a lane asks for fates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// The generation is closed, or the session is.
    Closed,
    /// The server cannot be reached.
    Lost,
    /// The application wants another server.
    Moving,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LaneState {
    Unbound,
    Live,
    Resolving(Cause),
}

/// The place of a run of records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) gsn: Gsn,
    pub(super) entry: EntryNo,
    pub(super) position: Lsn,
    pub(super) class: Durability,
}

impl Place {
    /// The place of the record `count` further on; `None` past the end of the range.
    pub(super) fn skip(self, count: u64) -> Option<Self> {
        Some(Self {
            gsn: self.gsn.checked_add(count)?,
            position: self.position.checked_add(count)?,
            ..self
        })
    }
}

/// An acknowledged run beyond the floor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Early {
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) place: Place,
}

/// How the fate of the records at the floor is being asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct FateQuery {
    pub(super) cursor: u32,
    pub(super) peer: Option<PeerIx>,
    /// Tickets below are asked for.
    pub(super) asked: u64,
    pub(super) next_at: Time,
    pub(super) answer_by: Time,
    pub(super) backoff: Nanos,
    /// Whether this peer was asked to close the session.
    pub(super) close_sent: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Meta {
    at: u32,
    len: u32,
    invoked: Time,
    /// Times sent and not refused: 0 means that the record cannot have an effect.
    sends: u32,
}

/// Runs acknowledged out of order that a lane remembers; more are dropped and acknowledged again after a repeat.
const EARLY_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) target: Target,
    pub(super) binding: Option<Binding>,
    pub(super) state: LaneState,
    pub(super) base: u64,
    pub(super) floor: u64,
    pub(super) sent: u64,
    pub(super) high: u64,
    pub(super) end: u64,
    /// Tickets from here on are promised never to be ordered under this binding.
    pub(super) never_from: u64,
    pub(super) retry_at: Time,
    pub(super) backoff: Nanos,
    pub(super) refusal: Option<(RefusalReason, NodeId)>,
    /// Since when the server has refused everything; [`Time::FAR`] when it has not.
    pub(super) refused_since: Time,
    /// The generation that the lane left because it closed. It is not bound to it again, whatever an old map says.
    pub(super) left: Option<(PeerIx, Gen)>,
    /// The last time that something was sent to a silent server, or that it answered.
    pub(super) progress_at: Time,
    pub(super) fate: FateQuery,
    pub(super) early: [Option<Early>; EARLY_MAX],
    window: u64,
    ring: SendRing,
    meta: Box<[Meta]>,
}

impl Lane {
    pub(super) fn new(target: Target, send_bytes: usize, window: u32) -> Self {
        Self {
            target,
            binding: None,
            state: LaneState::Unbound,
            base: 0,
            floor: 0,
            sent: 0,
            high: 0,
            end: 0,
            never_from: u64::MAX,
            retry_at: Time::ZERO,
            backoff: Nanos(0),
            refusal: None,
            refused_since: Time::FAR,
            left: None,
            progress_at: Time::ZERO,
            fate: FateQuery {
                cursor: 0,
                peer: None,
                asked: 0,
                next_at: Time::ZERO,
                answer_by: Time::FAR,
                backoff: Nanos(0),
                close_sent: false,
            },
            early: [None; EARLY_MAX],
            window: u64::from(window),
            ring: SendRing::new(send_bytes),
            meta: vec![Meta::default(); (window as usize).next_power_of_two()].into_boxed_slice(),
        }
    }

    #[inline]
    fn slot(&self, number: u64) -> usize {
        number as usize & (self.meta.len() - 1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.floor == self.end
    }

    /// The sequence number of a ticket of the present session.
    pub(super) fn seq(&self, number: u64) -> ClientSeq {
        ClientSeq::new(number - self.base)
    }

    /// The ticket of a sequence number that a peer names, if that record was ever sent under this binding.
    pub(super) fn number(&self, seq: ClientSeq) -> Option<u64> {
        self.base
            .checked_add(seq.get())
            .filter(|number| *number < self.high)
    }

    /// Takes a record; `None` when the window or the ring is full.
    #[inline]
    pub(super) fn push(
        &mut self,
        now: Time,
        client: ClientId,
        session: SessionNo,
        payload: &[u8],
    ) -> Option<u64> {
        if self.end - self.floor >= self.window {
            return None;
        }
        let number = self.end;
        let seq = self.seq(number);
        let len = encoded_bytes(payload.len());
        let (at, bytes) = self.ring.claim(len)?;
        emit_unplaced(bytes, client, session, seq, payload)
            .expect("the payload's length was checked and the bytes were claimed for it");
        let slot = self.slot(number);
        self.meta[slot] = Meta {
            at: at as u32,
            len: len as u32,
            invoked: now,
            sends: 0,
        };
        self.end += 1;
        Some(number)
    }

    /// When the oldest unresolved record was taken.
    pub(super) fn floor_invoked(&self) -> Time {
        self.meta[self.slot(self.floor)].invoked
    }

    /// Whether a sending of one of the records `first..end` in this session has not been refused.
    pub(super) fn may_have_effect(&self, first: u64, end: u64) -> bool {
        (first..end).any(|number| self.meta[self.slot(number)].sends > 0)
    }

    /// Whether the oldest unresolved record may have an effect.
    pub(super) fn floor_may_have_effect(&self) -> bool {
        self.may_have_effect(self.floor, self.floor + 1)
    }

    /// Resolves `count` records from the floor.
    #[inline]
    pub(super) fn advance(&mut self, count: u64) {
        self.floor += count;
        debug_assert!(
            self.floor <= self.end,
            "only records that were taken are resolved"
        );
        self.sent = self.sent.max(self.floor);
        self.high = self.high.max(self.floor);
        let head = (!self.is_empty()).then(|| self.meta[self.slot(self.floor)].at as usize);
        self.ring.release_to(head);
    }

    /// The longest run of whole records from `sent` on that has at most `bytes_max` bytes, or one record of up to
    /// `single_max` bytes. Returns the number and the bytes.
    #[inline]
    pub(super) fn next_run(&self, bytes_max: usize, single_max: usize) -> (u64, usize) {
        let mut bytes = 0;
        let mut number = self.sent;
        while number < self.end {
            let len = self.meta[self.slot(number)].len as usize;
            if bytes + len > bytes_max && !(bytes == 0 && len <= single_max) {
                break;
            }
            bytes += len;
            number += 1;
            if bytes >= bytes_max {
                break;
            }
        }
        (number - self.sent, bytes)
    }

    /// The encoded records of the next `count` tickets to send.
    #[inline]
    pub(super) fn run_parts(&self, count: u64) -> [&[u8]; 2] {
        let first = self.meta[self.slot(self.sent)];
        let last = self.meta[self.slot(self.sent + count - 1)];
        self.ring
            .parts(first.at as usize, (last.at + last.len) as usize)
    }

    /// Notes that the next `count` records were sent; returns how many of them were sent before.
    #[inline]
    pub(super) fn mark_sent(&mut self, count: u64) -> u64 {
        let end = self.sent + count;
        for number in self.sent..end {
            let slot = self.slot(number);
            self.meta[slot].sends = self.meta[slot].sends.saturating_add(1);
        }
        let again = self.high.min(end).saturating_sub(self.sent);
        self.sent = end;
        self.high = self.high.max(end);
        again
    }

    /// Notes that one sending of the records `first..end` had no effect, and goes back to the first of them.
    pub(super) fn mark_refused(&mut self, first: u64, end: u64) {
        for number in first..end {
            let slot = self.slot(number);
            self.meta[slot].sends = self.meta[slot].sends.saturating_sub(1);
        }
        self.sent = self.sent.min(first).max(self.floor);
    }

    /// Starts a session: the records that are left become its first ones, in order, as never sent before.
    ///
    /// The caller knows that none of them was or will be ordered under an earlier binding.
    pub(super) fn begin(&mut self, binding: Binding, now: Time, backoff: Nanos) {
        self.binding = Some(binding);
        self.state = LaneState::Live;
        self.base = self.floor;
        self.sent = self.floor;
        self.high = self.floor;
        self.never_from = u64::MAX;
        self.retry_at = Time::ZERO;
        self.backoff = backoff;
        self.progress_at = now;
        self.refused_since = Time::FAR;
        self.early = [None; EARLY_MAX];
        for number in self.floor..self.end {
            let slot = self.slot(number);
            self.meta[slot].sends = 0;
            let Meta { at, len, .. } = self.meta[slot];
            let seq = self.seq(number);
            patch_identity(
                self.ring.at_mut(at as usize, len as usize),
                binding.session,
                seq,
            );
        }
    }

    /// Ends the session. The caller knows the fate of every record that was sent.
    pub(super) fn end_session(&mut self) {
        self.binding = None;
        self.state = LaneState::Unbound;
        self.base = self.floor;
        self.sent = self.floor;
        self.high = self.floor;
    }

    /// Whether no record that is left can be ordered under this binding.
    pub(super) fn is_settled(&self) -> bool {
        let sent = self.high.min(self.never_from);
        // Whatever was refused each time it was sent is as good as never sent.
        (self.floor..sent).all(|number| self.meta[self.slot(number)].sends == 0)
    }

    /// Starts to ask for fates.
    pub(super) fn resolve(&mut self, cause: Cause, now: Time, backoff: Nanos) {
        self.state = LaneState::Resolving(cause);
        self.fate.peer = None;
        self.fate.asked = self.floor;
        self.fate.next_at = now;
        self.fate.answer_by = Time::FAR;
        self.fate.backoff = backoff;
        self.fate.close_sent = false;
    }

    /// Remembers a run acknowledged beyond the floor, if there is room.
    pub(super) fn remember(&mut self, early: Early) {
        let floor = self.floor;
        let free = self
            .early
            .iter_mut()
            .find(|e| e.is_none_or(|e| e.end <= floor));
        if let Some(free) = free {
            *free = Some(early);
        }
    }

    /// Takes a remembered run that reaches the floor.
    pub(super) fn recall(&mut self) -> Option<Early> {
        let floor = self.floor;
        self.early
            .iter_mut()
            .find(|e| e.is_some_and(|e| e.first <= floor && floor < e.end))
            .and_then(Option::take)
    }
}

/// Writes another session and sequence number into an encoded record that is not sealed yet (record layout: session at
/// 64, sequence at 72). The payload's checksum does not cover them; the header's is the primary's to write.
fn patch_identity(record: &mut [u8], session: SessionNo, seq: ClientSeq) {
    session.put(&mut record[64..68]);
    seq.put(&mut record[72..80]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patched_record_is_the_record_emitted_with_the_new_identity() {
        let client = ClientId::new(7);
        let mut patched = [0; 96];
        let mut fresh = [0; 96];
        emit_unplaced(
            &mut patched,
            client,
            SessionNo::new(1),
            ClientSeq::new(900),
            b"payload",
        )
        .unwrap();
        emit_unplaced(
            &mut fresh,
            client,
            SessionNo::new(2),
            ClientSeq::new(3),
            b"payload",
        )
        .unwrap();
        assert_ne!(patched, fresh);
        patch_identity(&mut patched, SessionNo::new(2), ClientSeq::new(3));
        assert_eq!(patched, fresh);
    }
}
