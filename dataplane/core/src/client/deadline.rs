//! What time alone brings about: appends and requests given up, questions asked again, servers found lost.

use ionian_types::{Knobs, Time};

use super::Client;
use super::lane::{Cause, LaneState};

impl<K: Knobs> Client<K> {
    /// Does what is due at `now`. Flush afterwards.
    pub fn on_deadline(&mut self, now: Time) {
        if now < self.deadline {
            return;
        }
        // Everything that still waits for a time says so again below.
        self.deadline = Time::FAR;
        for at in 0..self.lanes.len() {
            self.lane_on_deadline(now, at);
        }
        self.requests_on_deadline(now);
        self.subscriptions_on_deadline(now);
    }

    fn lane_on_deadline(&mut self, now: Time, at: usize) {
        self.expire(now, at);
        if self.lanes[at].state == LaneState::Unbound && !self.lanes[at].is_empty() {
            self.bind(now, at, None);
        }
        let Some(binding) = self.lanes[at].binding else {
            self.wake_for_floor(at);
            return;
        };
        let server = self.peers.get(binding.peer);
        let lost = self.is_lost(now, server);
        let lane = &mut self.lanes[at];
        match lane.state {
            LaneState::Live if lane.is_empty() => {}
            LaneState::Live if server.conn.is_some() => {
                let probe = lane.progress_at.after(self.config.probe_after);
                if lane.floor < lane.sent && now >= probe {
                    lane.sent = lane.floor;
                    lane.progress_at = now;
                }
                if lane.floor < lane.sent {
                    let next = lane.progress_at.after(self.config.probe_after);
                    self.wake(next);
                }
                let retry_at = self.lanes[at].retry_at;
                if retry_at > now {
                    self.wake(retry_at);
                }
            }
            LaneState::Live if lost => {
                self.wants_map = true;
                if self.lanes[at].is_settled() && !self.has_other_server(now, at) {
                    // Nothing in flight and nowhere to go; look again later.
                    self.wake(now.after(self.config.rebind_after));
                } else {
                    self.start_resolving(now, at, Cause::Lost);
                    self.settle(now, at);
                }
            }
            LaneState::Live if server.down_since != Time::FAR => {
                let lost_at = server.down_since.after(self.config.rebind_after);
                self.wake(lost_at);
            }
            LaneState::Live | LaneState::Unbound => {}
            LaneState::Resolving(_) => {
                if now >= lane.fate.answer_by {
                    self.ask_again(now, at);
                }
                let fate = self.lanes[at].fate;
                let next = if fate.peer.is_some() {
                    fate.answer_by
                } else {
                    fate.next_at
                };
                if next > now {
                    self.wake(next);
                }
            }
        }
        self.wake_for_floor(at);
    }

    fn wake_for_floor(&mut self, at: usize) {
        if let (Some(timeout), false) = (self.config.append_timeout, self.lanes[at].is_empty()) {
            let due = self.expires_at(at, timeout);
            self.wake(due);
        }
    }
}
