//! Leaving a server: the fate of every record sent there is learnt before anything of it goes elsewhere.
//!
//! ORDERING.md 3.1: because a generation closes at a length, the fates of one session are a run of `ordered` followed by a
//! run of `never`. The machine asks from the floor upward. `ordered` completes the record; `never` at the floor settles
//! all that is left; `pending` and `unknown` are asked again, of another replica. A record is bound to another session only
//! after `never`, or when it was never sent. `lost` ends all that was sent there: their effect stays unknown.

use ionian_types::{Effect, Knobs, Mutant, Nanos, Time};
use ionian_wire::frame::{
    Body, CloseSession, Fate, FateAnswer, FateOutcome, MESSAGE_HEADER_BYTES, SessionClosed,
};

use super::Client;
use super::api::AppendFailure;
use super::lane::{Cause, LaneState, Place, Target};
use super::peers::PeerIx;
use crate::outbox::Outbox;

/// Fates asked for ahead of the floor: enough to hide a round trip, few enough to be answered from one batch.
const ASK_AHEAD: u64 = 64;
const HEAD_BYTES: usize = MESSAGE_HEADER_BYTES + Fate::LEN;

impl<K: Knobs> Client<K> {
    /// Stops sending and starts to ask for fates.
    pub(super) fn start_resolving(&mut self, now: Time, at: usize, cause: Cause) {
        let backoff = self.config.backoff_min;
        self.lanes[at].resolve(cause, now, backoff);
        self.wake(now);
    }

    /// Moves a lane on once nothing that it sent can still be ordered under its binding.
    pub(super) fn settle(&mut self, now: Time, at: usize) {
        let lane = &self.lanes[at];
        let settled = lane.is_settled() || K::mutant(Mutant::RebindWithoutNever);
        let (LaneState::Resolving(cause), true) = (lane.state, settled) else {
            return;
        };
        let before = lane
            .binding
            .map(|binding| (binding.peer, binding.generation));
        if cause == Cause::Lost && !self.has_other_server(now, at) {
            // Nothing in flight and nowhere to go: wait for the server.
            self.lanes[at].state = LaneState::Live;
            return;
        }
        self.unbind(at);
        self.lanes[at].left = before.filter(|_| cause == Cause::Closed);
        self.bind(now, at, before);
        if self.lanes[at].binding.is_none() && cause != Cause::Closed {
            // No other server: a new session on the one before is as good.
            self.bind(now, at, None);
        }
    }

    pub(super) fn has_other_server(&self, now: Time, at: usize) -> bool {
        let lane = &self.lanes[at];
        self.peers.open().iter().any(|ix| {
            lane.binding.is_none_or(|binding| binding.peer != *ix)
                && match lane.target {
                    Target::Shard(shard) => self.peers.segment(*ix).shard == shard,
                    _ => true,
                }
                && !self.is_lost(now, self.peers.get(*ix))
        })
    }

    pub(super) fn flush_fate(&mut self, now: Time, at: usize, out: &mut Outbox) {
        let Some(binding) = self.lanes[at].binding else {
            return;
        };
        if self.lanes[at].fate.peer.is_none() {
            if now < self.lanes[at].fate.next_at {
                return;
            }
            let cursor = self.lanes[at].fate.cursor;
            let Some(peer) = self.peers.replica(now, binding.segment.shard, cursor) else {
                self.ask_again(now, at);
                return;
            };
            let lane = &mut self.lanes[at];
            lane.fate.peer = Some(peer);
            lane.fate.asked = lane.floor;
            lane.fate.answer_by = now.after(self.config.retry_after);
            let answer_by = lane.fate.answer_by;
            self.wake(answer_by);
        }
        let open = self.is_open(&binding);
        let lane = &mut self.lanes[at];
        let Some(peer) = lane.fate.peer else {
            return;
        };
        let Some(conn) = self.peers.get(peer).conn else {
            return;
        };
        // A live primary decides at once: it refuses the session from now on and says how far it took it.
        let primary = self.peers.get(binding.peer);
        if let (Some(primary), true, false, u64::MAX) =
            (primary.conn, open, lane.fate.close_sent, lane.never_from)
        {
            let close = CloseSession {
                segment: binding.segment,
                generation: binding.generation,
                client: self.config.client,
                session: binding.session,
            };
            let fits = out.room(primary) >= MESSAGE_HEADER_BYTES + CloseSession::LEN;
            if fits && out.send(primary, &close, &[]).is_ok() {
                lane.fate.close_sent = true;
            }
        }
        lane.fate.asked = lane.fate.asked.max(lane.floor);
        let end = lane
            .high
            .min(lane.never_from)
            .min(lane.floor.saturating_add(ASK_AHEAD));
        while lane.fate.asked < end && out.room(conn) >= HEAD_BYTES {
            let fate = Fate {
                segment: binding.segment,
                generation: binding.generation,
                client: self.config.client,
                session: binding.session,
                seq: lane.seq(lane.fate.asked),
            };
            if out.send(conn, &fate, &[]).is_err() {
                return;
            }
            lane.fate.asked += 1;
            self.stats.fates += 1;
        }
    }

    pub(super) fn on_fate(&mut self, now: Time, peer: PeerIx, answer: &FateAnswer) {
        let Some(at) = self
            .sessions
            .get(&answer.session)
            .map(|lane| *lane as usize)
        else {
            return;
        };
        let lane = &mut self.lanes[at];
        let (Some(binding), LaneState::Resolving(_)) = (lane.binding, lane.state) else {
            return;
        };
        let shard = self.peers.segment(peer).shard;
        if answer.segment != binding.segment
            || answer.generation != binding.generation
            || shard != binding.segment.shard
        {
            self.stats.bad_messages += 1;
            return;
        }
        // Answers come in the order of the questions; one that is not for the floor is for a record resolved since, or
        // follows one that could not be told.
        if lane.number(answer.seq) != Some(lane.floor) {
            return;
        }
        match answer.outcome {
            FateOutcome::Ordered => {
                let place = Place {
                    gsn: answer.gsn,
                    entry: answer.entry,
                    position: answer.position,
                    class: self.peers.class,
                };
                let floor = lane.floor;
                lane.fate.backoff = self.config.backoff_min;
                lane.fate.answer_by = now.after(self.config.retry_after);
                let answer_by = lane.fate.answer_by;
                self.order(now, at, floor, floor + 1, place);
                self.wake(answer_by);
                self.settle(now, at);
            }
            FateOutcome::Never => {
                lane.never_from = lane.floor;
                self.settle(now, at);
            }
            FateOutcome::Lost => {
                let sent = lane.high.min(lane.never_from);
                let count = sent.saturating_sub(lane.floor);
                // The map that names this generation is an old one.
                lane.state = LaneState::Resolving(Cause::Closed);
                self.wants_map = true;
                self.fail(at, count, AppendFailure::Lost, Effect::Unknown);
                self.settle(now, at);
            }
            FateOutcome::Pending | FateOutcome::Unknown => {
                if lane.fate.peer == Some(peer) {
                    self.ask_again(now, at);
                }
            }
        }
    }

    /// Asks another replica, after a pause.
    pub(super) fn ask_again(&mut self, now: Time, at: usize) {
        let fate = &mut self.lanes[at].fate;
        fate.peer = None;
        // A primary that had not entered the generation yet could not close the session then; it may be able to now.
        fate.close_sent = false;
        fate.cursor = fate.cursor.wrapping_add(1);
        fate.next_at = now.after(fate.backoff);
        fate.answer_by = Time::FAR;
        fate.backoff = Nanos((fate.backoff.0 * 2).min(self.config.backoff_max.0));
        let next_at = fate.next_at;
        self.wants_map = true;
        self.wake(next_at);
    }

    pub(super) fn on_session_closed(&mut self, now: Time, peer: PeerIx, closed: &SessionClosed) {
        let Some(at) = self
            .sessions
            .get(&closed.session)
            .map(|lane| *lane as usize)
        else {
            return;
        };
        let lane = &mut self.lanes[at];
        let (Some(binding), LaneState::Resolving(_)) = (lane.binding, lane.state) else {
            return;
        };
        if closed.segment != binding.segment
            || closed.generation != binding.generation
            || peer != binding.peer
        {
            self.stats.bad_messages += 1;
            return;
        }
        if !closed.known {
            self.wants_map = true;
            return;
        }
        // The generation is open after all: it may be bound to again.
        lane.state = LaneState::Resolving(Cause::Moving);
        // Nothing from `next_seq` on was taken, and nothing will be: the same promise as `never`. The records below it
        // are acknowledged or asked for as before.
        let next = lane.base.saturating_add(closed.next_seq.get());
        if next < lane.never_from {
            lane.never_from = next.max(lane.floor);
        }
        self.settle(now, at);
    }
}
