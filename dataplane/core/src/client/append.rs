//! The append path: records in, frames out, positions back.

use ionian_types::{
    ClientSeq, Effect, Knobs, Mutant, Nanos, RECORD_BYTES_MAX, SessionNo, ShardId, Time,
};
use ionian_wire::frame::{
    Append, AppendAck, AppendRefused, Body, MESSAGE_HEADER_BYTES, RefusalReason,
};

use super::api::{AppendError, AppendFailure, Choice, Completion, Outcome, Policy, Ticket};
use super::lane::{Binding, Cause, Early, LaneState, Place};
use super::peers::PeerIx;
use super::{Client, run_end};
use crate::outbox::Outbox;

const HEAD_BYTES: usize = MESSAGE_HEADER_BYTES + Append::LEN;

impl<K: Knobs> Client<K> {
    /// Sets how later appends choose their server. Those taken before stay where they are.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Takes a payload to append; the outcome comes by [`Self::poll_completion`]. The record goes out with the next
    /// [`Self::flush`].
    ///
    /// # Errors
    /// [`AppendError`], effect none.
    #[inline]
    pub fn append(
        &mut self,
        now: Time,
        payload: &[u8],
        choice: Choice,
    ) -> Result<Ticket, AppendError> {
        if payload.len() > RECORD_BYTES_MAX {
            return Err(AppendError::TooLarge {
                bytes: payload.len(),
                max: RECORD_BYTES_MAX,
            });
        }
        if self.closed {
            return Err(AppendError::Closed);
        }
        if self.outstanding >= self.config.outstanding_max {
            return Err(AppendError::Busy);
        }
        match (choice, self.policy) {
            (Choice::Shard(shard), _) => self.append_to_shard(now, payload, shard),
            (Choice::Policy, Policy::Sticky) => {
                let lane = self.sticky_lane(now)?;
                self.push(now, lane, payload)
            }
            (Choice::Policy, Policy::Spread) => self.append_spread(now, payload),
            (Choice::Policy, Policy::ByKey(hash)) => {
                let shards = self.peers.open_shards();
                if shards.is_empty() {
                    return Err(self.not_ready(None));
                }
                let shard = shards[(hash(payload) % shards.len() as u64) as usize];
                self.append_to_shard(now, payload, shard)
            }
            (Choice::Policy, Policy::Custom(pick)) => {
                let shard = pick(payload, self.peers.open_shards());
                let shard = shard.ok_or(AppendError::NoServer)?;
                self.append_to_shard(now, payload, shard)
            }
        }
    }

    fn append_to_shard(
        &mut self,
        now: Time,
        payload: &[u8],
        shard: ShardId,
    ) -> Result<Ticket, AppendError> {
        let lane = self.shard_lane(now, shard)?;
        self.push(now, lane, payload)
    }

    /// Round robin; a server whose lane is full is passed over.
    fn append_spread(&mut self, now: Time, payload: &[u8]) -> Result<Ticket, AppendError> {
        let servers = self.peers.open().len();
        if servers == 0 {
            return Err(self.not_ready(None));
        }
        for _ in 0..servers {
            self.turn = self.turn.wrapping_add(1);
            let server = self.peers.open()[self.turn % servers];
            let lane = self.segment_lane(now, server)?;
            match self.push(now, lane, payload) {
                Err(AppendError::Busy) => {}
                result => return result,
            }
        }
        Err(AppendError::Busy)
    }

    #[inline]
    fn push(&mut self, now: Time, at: u32, payload: &[u8]) -> Result<Ticket, AppendError> {
        let client = self.config.client;
        let lane = &mut self.lanes[at as usize];
        let session = lane
            .binding
            .map_or(SessionNo::ZERO, |binding| binding.session);
        let number = lane
            .push(now, client, session, payload)
            .ok_or(AppendError::Busy)?;
        if lane.floor == number {
            lane.progress_at = now;
            let unbound = lane.binding.is_none();
            let retry_at = lane.retry_at;
            if retry_at > now {
                self.wake(retry_at);
            }
            if let Some(timeout) = self.config.append_timeout {
                self.wake(now.after(timeout));
            }
            self.wake(if unbound {
                now
            } else {
                now.after(self.config.probe_after)
            });
        }
        self.outstanding += 1;
        self.stats.appends += 1;
        Ok(Ticket { lane: at, number })
    }

    /// The next run of appends with an outcome. Runs of one lane come in the order of its tickets.
    #[inline]
    pub fn poll_completion(&mut self) -> Option<Completion> {
        let completion = self.completions.pop_front()?;
        self.outstanding -= completion.count;
        Some(completion)
    }

    /// Whether an append was taken and has no outcome yet.
    #[must_use]
    pub fn is_unresolved(&self, ticket: Ticket) -> bool {
        self.lanes
            .get(ticket.lane as usize)
            .is_some_and(|lane| lane.floor <= ticket.number && ticket.number < lane.end)
    }

    /// The session and sequence number that an unresolved append's record carries now. A record that moves gets others.
    #[must_use]
    pub fn identity(&self, ticket: Ticket) -> Option<(SessionNo, ClientSeq)> {
        let lane = self.lanes.get(ticket.lane as usize)?;
        let session = lane.binding?.session;
        self.is_unresolved(ticket)
            .then(|| (session, lane.seq(ticket.number)))
    }

    pub(super) fn flush_lanes(&mut self, now: Time, out: &mut Outbox) {
        for at in 0..self.lanes.len() {
            match self.lanes[at].state {
                LaneState::Live => self.flush_appends(now, at, out),
                LaneState::Unbound => {}
                LaneState::Resolving(_) => self.flush_fate(now, at, out),
            }
        }
    }

    #[inline]
    fn flush_appends(&mut self, now: Time, at: usize, out: &mut Outbox) {
        let lane = &mut self.lanes[at];
        let Some(binding) = lane.binding else {
            return;
        };
        if lane.sent == lane.end || now < lane.retry_at {
            return;
        }
        let Some(conn) = self.peers.get(binding.peer).conn else {
            return;
        };
        while lane.sent < lane.end {
            let room = out
                .room(conn)
                .min(out.arena_room())
                .saturating_sub(HEAD_BYTES);
            let bytes_max = room.min(self.config.append_bytes_max);
            let (count, _) = lane.next_run(bytes_max, room);
            if count == 0 {
                return;
            }
            let append = Append {
                log: self.config.log,
                segment: binding.segment,
                generation: binding.generation,
                client: self.config.client,
                session: binding.session,
                floor: lane.seq(lane.floor),
                first_seq: lane.seq(lane.sent),
                count: count as u32,
            };
            if out
                .send_parts(conn, &append, &lane.run_parts(count))
                .is_err()
            {
                return;
            }
            if lane.sent == lane.floor {
                lane.progress_at = now;
                self.deadline = self.deadline.min(now.after(self.config.probe_after));
            }
            self.stats.resent += lane.mark_sent(count);
            self.stats.append_frames += 1;
        }
    }

    /// The lane whose present session is meant, if the message comes from its server.
    fn lane_of(&mut self, peer: PeerIx, session: SessionNo) -> Option<(usize, Binding)> {
        let at = *self.sessions.get(&session)? as usize;
        let binding = self.lanes[at].binding?;
        (binding.session == session && binding.peer == peer).then_some((at, binding))
    }

    pub(super) fn on_ack(&mut self, now: Time, peer: PeerIx, ack: &AppendAck) {
        let Some((at, binding)) = self.lane_of(peer, ack.session) else {
            // An answer to a session that has ended since. Its records have their outcome.
            return;
        };
        let lane = &mut self.lanes[at];
        let last = run_end(ack.first_seq, ack.count)
            .and_then(|end| end.checked_since(ClientSeq::new(1)))
            .and_then(|last| lane.number(ClientSeq::new(last)));
        let place = Place {
            gsn: ack.first_gsn,
            entry: ack.entry,
            position: ack.first_position,
            class: ack.class,
        };
        let (Some(last), Some(_), true) = (
            last,
            place.skip(u64::from(ack.count)),
            ack.segment == binding.segment
                && ack.generation == binding.generation
                && ack.log == self.config.log,
        ) else {
            self.stats.bad_messages += 1;
            return;
        };
        let end = last + 1;
        let first = end - u64::from(ack.count);
        if first > lane.floor {
            lane.remember(Early { first, end, place });
            return;
        }
        self.order(now, at, first, end, place);
        while let Some(early) = self.lanes[at].recall() {
            self.order(now, at, early.first, early.end, early.place);
        }
        self.settle(now, at);
    }

    /// Completes what lies in `first..end` at and above the floor.
    pub(super) fn order(&mut self, now: Time, at: usize, first: u64, end: u64, place: Place) {
        let lane = &mut self.lanes[at];
        let (Some(count), Some(place)) = (
            end.checked_sub(lane.floor).filter(|n| *n > 0),
            place.skip(lane.floor - first),
        ) else {
            return;
        };
        let Some(binding) = lane.binding else {
            return;
        };
        lane.progress_at = now;
        lane.refusal = None;
        lane.refused_since = Time::FAR;
        lane.backoff = self.config.backoff_min;
        self.stats.acked += count;
        let outcome = Outcome::Ordered {
            first_gsn: place.gsn,
            entry: place.entry,
            segment: binding.segment,
            generation: binding.generation,
            first_position: place.position,
            class: place.class,
        };
        self.complete(at, count, outcome);
    }

    /// Hands out the outcome of `count` records from the floor.
    pub(super) fn complete(&mut self, at: usize, count: u64, outcome: Outcome) {
        let lane = &mut self.lanes[at];
        self.completions.push_back(Completion {
            first: Ticket {
                lane: at as u32,
                number: lane.floor,
            },
            count: count as u32,
            session: lane
                .binding
                .map_or(SessionNo::ZERO, |binding| binding.session),
            first_seq: lane.seq(lane.floor),
            outcome,
        });
        lane.advance(count);
    }

    /// Gives up `count` records from the floor.
    pub(super) fn fail(&mut self, at: usize, count: u64, failure: AppendFailure, effect: Effect) {
        self.stats.failed += count;
        self.complete(at, count, Outcome::Failed { failure, effect });
    }

    pub(super) fn on_refused(&mut self, now: Time, peer: PeerIx, refused: &AppendRefused) {
        let Some((at, binding)) = self.lane_of(peer, refused.session) else {
            return;
        };
        let lane = &mut self.lanes[at];
        let first = lane.number(refused.first_seq);
        let (Some(first), Some(end), true) = (
            first,
            first.and_then(|first| first.checked_add(u64::from(refused.count))),
            refused.segment == binding.segment && refused.generation == binding.generation,
        ) else {
            self.stats.bad_messages += 1;
            return;
        };
        let end = end.min(lane.high);
        if end <= lane.floor {
            return;
        }
        let first = first.max(lane.floor);
        self.stats.refusals += 1;
        lane.mark_refused(first, end);
        // What follows a refused run is refused as busy: the reason of the first is the one to tell.
        if refused.reason != RefusalReason::Busy || lane.refusal.is_none() {
            lane.refusal = Some((refused.reason, refused.node));
        }
        match refused.reason {
            RefusalReason::Closed | RefusalReason::SessionClosed => {
                self.wants_map |= refused.reason == RefusalReason::Closed;
                if matches!(
                    lane.state,
                    LaneState::Live | LaneState::Resolving(Cause::Lost)
                ) {
                    self.start_resolving(now, at, Cause::Closed);
                }
                self.settle(now, at);
            }
            RefusalReason::Mismatch | RefusalReason::Malformed if first == lane.floor => {
                // Sending it again cannot help, and nothing of this session lies before it. Another sending of it, cut in
                // other runs, may have been taken nevertheless: then the server is asked what became of it.
                if !lane.may_have_effect(first, end) {
                    let failure = AppendFailure::Refused(refused.reason);
                    self.fail(at, end - first, failure, Effect::None);
                }
                self.leave_hole(now, at);
                self.settle(now, at);
            }
            _ => {
                // Go back: this run and what was sent after it, in order, after a pause. Runs sent after it are refused
                // as well, since the server takes no gaps; the pause is for the first of them.
                if now >= lane.retry_at {
                    lane.backoff = Nanos((lane.backoff.0 * 2).min(self.config.backoff_max.0));
                    lane.retry_at = now.after(lane.backoff);
                }
                lane.refused_since = lane.refused_since.min(now);
                let retry_at = lane.retry_at;
                self.wake(retry_at);
                self.expire(now, at);
                self.leave_unable(now, at, refused.reason);
            }
        }
    }

    /// Leaves a server that has been unable to take anything for a while, if another one may be used.
    fn leave_unable(&mut self, now: Time, at: usize, reason: RefusalReason) {
        let unable = matches!(
            reason,
            RefusalReason::ReplicaMissing
                | RefusalReason::NotReady
                | RefusalReason::StoreFull
                | RefusalReason::Device
        );
        let lane = &self.lanes[at];
        let long = now >= lane.refused_since.after(self.config.rebind_after);
        if unable && long && lane.state == LaneState::Live && self.has_other_server(now, at) {
            self.start_resolving(now, at, Cause::Moving);
            self.settle(now, at);
        }
    }

    /// Ends a session in which a record was given up: a server takes a session's records without holes, so what follows
    /// one that it never took needs another session.
    fn leave_hole(&mut self, now: Time, at: usize) {
        let state = self.lanes[at].state;
        if matches!(state, LaneState::Live | LaneState::Resolving(Cause::Lost)) {
            self.start_resolving(now, at, Cause::Moving);
        }
    }

    /// When the record at the floor is given up. One that was refused, and has been sent again since, waits for the answer:
    /// it says for certain what became of the record.
    pub(super) fn expires_at(&self, at: usize, timeout: Nanos) -> Time {
        let lane = &self.lanes[at];
        let due = lane.floor_invoked().after(timeout);
        if !lane.floor_may_have_effect() {
            return due;
        }
        // Of this server, or of the one before.
        let sent_at = if lane.refusal.is_some() {
            lane.progress_at.max(lane.retry_at)
        } else {
            lane.retry_at
        };
        // Once, not for ever: an earlier try may have been lost with its connection, and every later one be refused.
        sent_at
            .after(self.config.probe_after)
            .clamp(due, due.after(self.config.probe_after))
    }

    /// Gives up what has waited too long, from the floor on.
    pub(super) fn expire(&mut self, now: Time, at: usize) {
        let Some(timeout) = self.config.append_timeout else {
            return;
        };
        let before = self.lanes[at].floor;
        loop {
            let lane = &self.lanes[at];
            if lane.is_empty() || now < self.expires_at(at, timeout) {
                break;
            }
            let effect = if lane.floor_may_have_effect() && !K::mutant(Mutant::TimeoutMeansNoEffect)
            {
                Effect::Unknown
            } else {
                Effect::None
            };
            let failure = AppendFailure::TimedOut {
                refusal: lane.refusal,
            };
            self.fail(at, 1, failure, effect);
        }
        if self.lanes[at].floor != before {
            self.leave_hole(now, at);
        }
        self.settle(now, at);
    }
}
