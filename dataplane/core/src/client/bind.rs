//! Which server a lane is bound to, and how that follows the map and the connections.

use ionian_types::{Gen, Inc, Knobs, Mutant, NodeId, SegmentId, ShardId, Time, ViewId};

use super::Client;
use super::api::AppendError;
use super::lane::{Binding, Cause, Lane, LaneState, Target};
use super::peers::{Peer, PeerIx};

impl<K: Knobs> Client<K> {
    pub(super) fn sticky_lane(&mut self, now: Time) -> Result<u32, AppendError> {
        let unbound = self
            .sticky
            .is_none_or(|lane| self.lanes[lane as usize].binding.is_none());
        if unbound && self.peers.open().is_empty() {
            return Err(self.not_ready(None));
        }
        if let Some(lane) = self.sticky {
            return Ok(lane);
        }
        let lane = self.new_lane(now, Target::Any, None)?;
        self.sticky = Some(lane);
        Ok(lane)
    }

    pub(super) fn shard_lane(&mut self, now: Time, shard: ShardId) -> Result<u32, AppendError> {
        let lane = self.by_shard.get(&shard).copied();
        let unbound = lane.is_none_or(|lane| self.lanes[lane as usize].binding.is_none());
        if unbound && !self.peers.open_shards().contains(&shard) {
            return Err(self.not_ready(Some(shard)));
        }
        if let Some(lane) = lane {
            return Ok(lane);
        }
        let lane = self.new_lane(now, Target::Shard(shard), None)?;
        self.by_shard.insert(shard, lane);
        Ok(lane)
    }

    pub(super) fn segment_lane(&mut self, now: Time, server: PeerIx) -> Result<u32, AppendError> {
        let segment = self.peers.segment(server);
        if let Some(lane) = self.by_segment.get(&segment) {
            return Ok(*lane);
        }
        let lane = self.new_lane(now, Target::Spread, Some(server))?;
        self.by_segment.insert(segment, lane);
        Ok(lane)
    }

    /// Why nothing can be appended: names the node that is missing, if the map knows one.
    #[cold]
    pub(super) fn not_ready(&self, shard: Option<ShardId>) -> AppendError {
        let shards = self
            .peers
            .shards()
            .filter(|(id, _)| shard.is_none_or(|shard| shard == *id));
        let mut found = AppendError::NoServer;
        for (id, entry) in shards {
            let missing = entry
                .replicas()
                .iter()
                .map(|ix| self.peers.get(*ix))
                .find(|peer| peer.inc == Inc::ZERO);
            let node = missing.map_or(NodeId::ZERO, |peer| peer.node);
            if entry.open || missing.is_some() {
                found = AppendError::NotReady { shard: id, node };
            }
            if missing.is_some() {
                break;
            }
        }
        found
    }

    /// A lane for `target`: an empty one that no record is given to any more, a new one, or when there are as many as may
    /// be, any that is empty.
    fn new_lane(
        &mut self,
        now: Time,
        target: Target,
        server: Option<PeerIx>,
    ) -> Result<u32, AppendError> {
        let full = self.lanes.len() >= self.config.lanes_max;
        let sticky = self.sticky.map(|lane| lane as usize);
        let mut empty =
            (0..self.lanes.len()).filter(|at| self.lanes[*at].is_empty() && Some(*at) != sticky);
        let first = empty.clone().next().filter(|_| full);
        let at = match empty.find(|at| !self.is_in_use(*at as u32)).or(first) {
            Some(free) => {
                self.unbind(free);
                let free_lane = free as u32;
                self.by_segment.retain(|_, lane| *lane != free_lane);
                self.by_shard.retain(|_, lane| *lane != free_lane);
                self.lanes[free].target = target;
                free
            }
            None if full => return Err(AppendError::Busy),
            None => {
                let (bytes, window) = (self.config.send_bytes_max, self.config.window);
                self.lanes.push(Lane::new(target, bytes, window));
                self.lanes.len() - 1
            }
        };
        match server {
            Some(server) => self.bind_to(now, at, server),
            None => self.bind(now, at, None),
        }
        Ok(at as u32)
    }

    /// Whether records may be given to a lane. One that has left its server for another that has a lane is out of use.
    fn is_in_use(&self, lane: u32) -> bool {
        let mut used = self.by_segment.values().chain(self.by_shard.values());
        self.sticky == Some(lane) || used.any(|other| *other == lane)
    }

    /// Binds a lane to a server that its target allows; without one it stays unbound until the map changes.
    pub(super) fn bind(&mut self, now: Time, at: usize, before: Option<(PeerIx, Gen)>) {
        let lane = &self.lanes[at];
        if let Some(server) = self.choose_server(now, lane.target, before.or(lane.left)) {
            self.bind_to(now, at, server);
        } else {
            self.wants_map = true;
        }
    }

    fn bind_to(&mut self, now: Time, at: usize, server: PeerIx) {
        let session = self.next_session;
        let Some(next) = session.next() else {
            // Four billion sessions of one client life: the lane stays unbound and its appends time out, without effect.
            return;
        };
        if !K::mutant(Mutant::SessionUsedAgain) {
            self.next_session = next;
        }
        self.sessions.insert(session, at as u32);
        self.peers.want(now, server);
        let binding = Binding {
            segment: self.peers.segment(server),
            generation: self.peers.get(server).generation,
            session,
            peer: server,
        };
        let lane = &mut self.lanes[at];
        if !lane.is_empty() {
            self.stats.rebinds += 1;
        }
        lane.begin(binding, now, self.config.backoff_min);
        if lane.target == Target::Spread {
            self.by_segment.entry(binding.segment).or_insert(at as u32);
        }
        self.stats.sessions += 1;
        let down_since = self.peers.get(server).down_since;
        if down_since != Time::FAR {
            self.wake(down_since.after(self.config.rebind_after));
        }
    }

    /// Ends a lane's session. The fate of every record sent in it is known.
    pub(super) fn unbind(&mut self, at: usize) {
        let lane = &mut self.lanes[at];
        if let Some(binding) = lane.binding {
            self.sessions.remove(&binding.session);
            if lane.target == Target::Spread
                && self.by_segment.get(&binding.segment) == Some(&(at as u32))
            {
                self.by_segment.remove(&binding.segment);
            }
        }
        lane.end_session();
    }

    /// The next server for `target` after the one before. Never the same generation of it again; one that has been out of
    /// reach for a while only when there is no other.
    fn choose_server(
        &self,
        now: Time,
        target: Target,
        before: Option<(PeerIx, Gen)>,
    ) -> Option<PeerIx> {
        let open = self.peers.open();
        let allowed = |ix: PeerIx| match target {
            Target::Any | Target::Spread => true,
            Target::Shard(shard) => self.peers.segment(ix).shard == shard,
        };
        let usable =
            |ix: PeerIx| allowed(ix) && before != Some((ix, self.peers.get(ix).generation));
        let count = open.iter().filter(|ix| allowed(**ix)).count();
        let start = match before {
            None => (self.config.seed % count.max(1) as u64) as usize,
            Some((before, _)) => open
                .iter()
                .filter(|ix| allowed(**ix))
                .take_while(|ix| **ix <= before)
                .count(),
        };
        let candidates = || {
            let allowed = open.iter().copied().filter(|ix| allowed(*ix));
            allowed
                .cycle()
                .skip(start)
                .take(count)
                .filter(|ix| usable(*ix))
        };
        candidates()
            .find(|ix| !self.is_lost(now, self.peers.get(*ix)))
            .or_else(|| candidates().next())
    }

    pub(super) fn is_lost(&self, now: Time, peer: &Peer) -> bool {
        peer.conn.is_none()
            && peer.down_since != Time::FAR
            && now >= peer.down_since.after(self.config.rebind_after)
    }

    /// Leaves the present server of the policy's sticky lane, on the application's request: the session is closed, the
    /// fate of its records learnt, and the rest goes to another server, in order. Without another server it comes back
    /// when the map names one.
    pub fn move_sticky(&mut self, now: Time) {
        let Some(at) = self.sticky.map(|lane| lane as usize) else {
            return;
        };
        if self.lanes[at].state == LaneState::Live {
            self.start_resolving(now, at, Cause::Moving);
            self.settle(now, at);
        }
    }

    /// The segment that the sticky lane is bound to now.
    #[must_use]
    pub fn sticky_segment(&self) -> Option<SegmentId> {
        let lane = self.lanes.get(self.sticky? as usize)?;
        lane.binding.map(|binding| binding.segment)
    }

    pub(super) fn lanes_on_map(&mut self, now: Time) {
        for at in 0..self.lanes.len() {
            let lane = &mut self.lanes[at];
            // Who is down does not answer, however sound its connection looks.
            if lane
                .fate
                .peer
                .is_some_and(|peer| self.peers.get(peer).is_down())
            {
                lane.fate.peer = None;
            }
            let lane = &self.lanes[at];
            match (lane.binding, lane.state) {
                (Some(binding), state) => {
                    if !self.is_open(&binding) && state != LaneState::Resolving(Cause::Closed) {
                        self.start_resolving(now, at, Cause::Closed);
                    } else {
                        self.lanes[at].fate.next_at = now;
                    }
                    self.settle(now, at);
                }
                (None, _) if !lane.is_empty() => self.bind(now, at, None),
                (None, _) => {}
            }
        }
    }

    pub(super) fn lanes_on_connect(&mut self, now: Time, peer: PeerIx) {
        for lane in &mut self.lanes {
            if lane.binding.is_some_and(|binding| binding.peer == peer) {
                if lane.state == LaneState::Resolving(Cause::Lost) {
                    lane.state = LaneState::Live;
                }
                // What was sent before may not have arrived: everything again, in order. The server repeats its answers.
                lane.sent = lane.floor;
                lane.retry_at = Time::ZERO;
                lane.progress_at = now;
            }
            if matches!(lane.state, LaneState::Resolving(_)) {
                // One that is down was asked for want of another.
                if lane
                    .fate
                    .peer
                    .is_some_and(|asked| asked != peer && self.peers.get(asked).is_down())
                {
                    lane.fate.peer = None;
                }
                lane.fate.next_at = now;
                lane.fate.close_sent = false;
            }
        }
    }

    pub(super) fn lanes_on_disconnect(&mut self, now: Time, peer: PeerIx) {
        let patience = now.after(self.config.rebind_after);
        for lane in &mut self.lanes {
            if lane.fate.peer == Some(peer) {
                lane.fate.peer = None;
                lane.fate.next_at = now;
            }
        }
        self.wake(patience);
    }

    /// Whether the map still names the generation as open on the lane's server.
    pub(super) fn is_open(&self, binding: &Binding) -> bool {
        let generation = self.peers.get(binding.peer).generation;
        generation == binding.generation && generation != ViewId::ZERO
    }
}
