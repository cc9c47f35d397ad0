//! The root's children: one edge each, its rounds accepted in sequence.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use ionian_types::{
    ConnId, EdgeEpoch, EntryNo, Gsn, Inc, Knobs, LogId, Lsn, Mutant, NodeId, RoundNo, SegmentId,
    ShardId, Slot, Time,
};
use ionian_wire::Reader;
use ionian_wire::frame::{
    Applied, Down, EdgeStart, NeedFull, ShardStart, ShardStartHead, Sync, Up, UpItem, UpKeep,
};

use super::Root;
use crate::cutlog::LogState;
use crate::outbox::Outbox;

/// One child and its edge.
#[derive(Debug)]
pub(super) struct Child {
    node: NodeId,
    inc: Inc,
    conn: Option<ConnId>,
    /// The running edge; `None` until it is started (again).
    pub(super) edge: Option<EdgeEpoch>,
    starts: u64,
    /// The shards below, in order, and their segments.
    shards: Vec<ShardId>,
    segments: Vec<SegmentId>,
    by_segment: BTreeMap<SegmentId, usize>,
    /// The newest round accepted.
    pub(super) lens: Vec<Lsn>,
    pub(super) round: u64,
    total: u64,
    /// Whether that round says more than the log's end.
    pub(super) fresh: bool,
    need_full: bool,
    /// What every live member below has applied, and what of it too few members have.
    pub(super) applied: EntryNo,
    keeps: Vec<UpKeep>,
    /// The last round that an entry in the log chose, and the last Down sent.
    pub(super) logged_round: u64,
    down_entry: EntryNo,
    down_round: u64,
}

impl Child {
    pub(super) fn new(node: NodeId, inc: Inc) -> Self {
        Self {
            node,
            inc,
            conn: None,
            edge: None,
            starts: 0,
            shards: Vec::new(),
            segments: Vec::new(),
            by_segment: BTreeMap::new(),
            lens: Vec::new(),
            round: 0,
            total: 0,
            fresh: false,
            need_full: false,
            applied: EntryNo::ZERO,
            keeps: Vec::new(),
            logged_round: 0,
            down_entry: EntryNo::ZERO,
            down_round: 0,
        }
    }

    pub(super) fn is(&self, node: NodeId, inc: Inc) -> bool {
        self.node == node && self.inc == inc
    }

    pub(super) const fn inc(&self) -> Inc {
        self.inc
    }

    pub(super) const fn is_running(&self) -> bool {
        self.edge.is_some() && self.conn.is_some()
    }

    /// Takes a connection.
    pub(super) fn connect<K: Knobs>(&mut self, conn: ConnId) {
        if !keeps_edges::<K>() {
            self.stop();
        }
        self.conn = Some(conn);
    }

    pub(super) fn disconnect<K: Knobs>(&mut self, conn: ConnId) {
        if self.conn == Some(conn) {
            self.conn = None;
            if !keeps_edges::<K>() {
                self.stop();
            }
        }
    }

    /// The edge ends; it starts again once every entry before is committed.
    pub(super) fn stop(&mut self) {
        self.edge = None;
        self.fresh = false;
    }

    pub(super) fn keeps(&self) -> &[UpKeep] {
        &self.keeps
    }

    pub(super) fn has(&self, shard: ShardId) -> bool {
        let slot = Slot::ZERO;
        self.by_segment.contains_key(&SegmentId { shard, slot })
    }

    pub(super) fn segments(&self) -> &[SegmentId] {
        &self.segments
    }

    /// Takes over the part of the tree below: the given shards with the log's lengths, as round 0.
    fn start(&mut self, edge: EdgeEpoch, shards: &[ShardId], state: &LogState) {
        self.shards.clear();
        self.segments.clear();
        self.by_segment.clear();
        self.lens.clear();
        for shard in shards {
            let Some(shard) = state.shard(*shard).filter(|shard| shard.is_open()) else {
                continue;
            };
            self.shards.push(shard.shard());
            for (slot, len) in shard.lens().enumerate() {
                let id = SegmentId {
                    shard: shard.shard(),
                    slot: Slot::new(slot as u8),
                };
                self.by_segment.insert(id, self.segments.len());
                self.segments.push(id);
                self.lens.push(len);
            }
        }
        self.total = self
            .lens
            .iter()
            .map(|len| len.get())
            .fold(0, u64::wrapping_add);
        self.round = 0;
        self.logged_round = 0;
        self.down_round = 0;
        self.down_entry = state.entry;
        self.edge = Some(edge);
        self.fresh = false;
        self.need_full = false;
        // Said on an edge that has ended: members may have come back with less since.
        self.applied = EntryNo::ZERO;
        self.keeps.clear();
    }

    /// Whether what is to be kept is of the shards below. Each of them once, at most: what is kept is looked for by shard.
    fn may_keep(&self, mut keeps: Reader<'_>, count: u32) -> bool {
        let ours = |keep: UpKeep| self.has(keep.shard);
        count as usize <= self.shards.len() && (0..count).all(|_| keeps.field().is_ok_and(ours))
    }

    /// Takes over what members below have applied; the newest word counts: one may have come back with less than it had.
    fn take_applied(&mut self, applied: EntryNo, mut keeps: Reader<'_>, count: u32) {
        self.applied = applied;
        self.keeps.clear();
        for _ in 0..count {
            self.keeps.extend(keeps.field::<UpKeep>());
        }
    }

    /// Accepts a round that follows the last one, or any newer full one. `false` asks for a full one.
    fn accept<K: Knobs>(&mut self, up: &Up, items: &[u8]) -> bool {
        let round = up.round.get();
        let trusting = K::mutant(Mutant::TakeLaterRounds) || K::mutant(Mutant::RoundWithoutEdge);
        let follows = up.full || trusting || (round == self.round + 1 && !self.need_full);
        if round <= self.round || !follows {
            return round <= self.round;
        }
        let mut reader = Reader::new(items);
        let mut total = self.total;
        for _ in 0..up.items {
            let Ok(item) = reader.field::<UpItem>() else {
                return false;
            };
            let Some(index) = self.by_segment.get(&item.segment).copied() else {
                return false;
            };
            // Lengths never fall within an edge; the children clamp, once.
            let len = clamped::<K>(item.len, self.lens[index]);
            let Some(growth) = len.checked_since(self.lens[index]) else {
                return false;
            };
            total = total.wrapping_add(growth);
        }
        if total != up.total && !trusting && !K::mutant(Mutant::RootOnlyClamp) {
            return false;
        }
        if !self.may_keep(reader, up.keeps) {
            return false;
        }
        let mut reader = Reader::new(items);
        for _ in 0..up.items {
            if let Ok(item) = reader.field::<UpItem>()
                && let Some(index) = self.by_segment.get(&item.segment).copied()
            {
                self.lens[index] = clamped::<K>(item.len, self.lens[index]);
            }
        }
        self.total = total;
        self.round = round;
        self.take_applied(up.applied, reader, up.keeps);
        self.fresh = true;
        self.need_full = false;
        true
    }

    /// Sends the base of a committed entry that chose a round of this child; whether it left.
    pub(super) fn send_down(&mut self, log: LogId, down: &Descent, out: &mut Outbox) -> bool {
        let (Some(conn), Some(edge)) = (self.conn, self.edge) else {
            return false;
        };
        if edge != down.edge {
            return true;
        }
        let body = Down {
            log,
            entry: down.entry,
            prev_entry: self.down_entry,
            edge,
            inc: self.inc,
            round: RoundNo::new(down.round),
            prev_round: RoundNo::new(self.down_round),
            base: down.base,
            total: down.total,
            end_gsn: down.end_gsn,
        };
        if out.room(conn) < 256 || out.send(conn, &body, &[]).is_err() {
            return false;
        }
        self.down_entry = down.entry;
        self.down_round = down.round;
        true
    }
}

/// A reported length, which never falls.
#[inline]
fn clamped<K: Knobs>(reported: Lsn, known: Lsn) -> Lsn {
    if K::mutant(Mutant::RootOnlyClamp) {
        reported.max(known)
    } else {
        reported
    }
}

/// Whether an edge outlives its connection.
pub(super) fn keeps_edges<K: Knobs>() -> bool {
    K::mutant(Mutant::IgnorePreviousRound) || K::mutant(Mutant::TakeLaterRounds)
}

/// What a committed cut means for one child.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descent {
    pub(super) entry: EntryNo,
    pub(super) edge: EdgeEpoch,
    pub(super) round: u64,
    pub(super) base: Gsn,
    pub(super) total: u64,
    pub(super) end_gsn: Gsn,
}

impl<K: Knobs> Root<K> {
    pub(super) fn on_up(
        &mut self,
        conn: ConnId,
        node: NodeId,
        inc: Inc,
        up: &Up,
        items: &[u8],
        out: &mut Outbox,
    ) {
        let log = self.config.log;
        let Some(child) = self.children.iter_mut().find(|child| {
            child.is(node, inc) || child.node == node && K::mutant(Mutant::RoundWithoutEdge)
        }) else {
            return;
        };
        let of_edge = child.edge == Some(up.edge) && up.inc == inc
            || child.edge.is_some() && K::mutant(Mutant::RoundWithoutEdge);
        if up.log != log || !of_edge {
            self.counters.refused_rounds += 1;
            return;
        }
        if child.accept::<K>(up, items) {
            self.counters.rounds += 1;
            return;
        }
        self.counters.refused_rounds += 1;
        if !child.need_full {
            child.need_full = true;
            let _ = out.send(conn, &NeedFull { log, edge: up.edge }, &[]);
        }
    }

    /// What members below have applied, when no round says so.
    pub(super) fn on_applied(&mut self, node: NodeId, inc: Inc, body: &Applied, keeps: &[u8]) {
        let of_edge = |child: &&mut Child| {
            child.is(node, inc) && child.edge == Some(body.edge) && body.inc == inc
        };
        let keeps = Reader::new(keeps);
        if body.log == self.config.log
            && let Some(child) = self.children.iter_mut().find(of_edge)
            && child.may_keep(keeps, body.keeps)
        {
            child.take_applied(body.applied, keeps, body.keeps);
        }
    }

    pub(super) fn restart_edge(&mut self, node: NodeId, inc: Inc) {
        for child in self.children.iter_mut().filter(|child| child.is(node, inc)) {
            child.stop();
        }
    }

    /// Adopts the children that the log's state names; those that stay keep their edge.
    pub(super) fn adopt_children(&mut self) {
        let same = self.children.len() == self.state.children.len()
            && self
                .children
                .iter()
                .zip(&self.state.children)
                .all(|(child, (node, inc))| child.is(*node, *inc));
        if same {
            return;
        }
        let conns: Vec<(NodeId, Inc, ConnId)> = self
            .conns
            .iter()
            .enumerate()
            .filter_map(|(conn, kind)| match kind {
                super::Kind::Leaf(node, inc) => Some((*node, *inc, ConnId::new(conn as u32))),
                _ => None,
            })
            .collect();
        self.children = self
            .state
            .children
            .iter()
            .map(|(node, inc)| {
                let mut child = Child::new(*node, *inc);
                if let Some((_, _, conn)) = conns
                    .iter()
                    .find(|(other, life, _)| other == node && life == inc)
                {
                    child.connect::<K>(*conn);
                }
                child
            })
            .collect();
    }

    /// Starts the edges that wait for it, once everything logged is committed: what an edge starts from is final.
    pub(super) fn flush_edges(&mut self, out: &mut Outbox) {
        let Some(epoch) = self.granted else { return };
        let unsettled = !self.pending.is_empty() && !K::mutant(Mutant::EdgeStartUncommitted);
        if unsettled
            || self
                .children
                .iter()
                .all(|child| child.edge.is_some() || child.conn.is_none())
        {
            return;
        }
        let count = self.children.len();
        for at in 0..count {
            let child = &mut self.children[at];
            let Some(conn) = child.conn.filter(|_| child.edge.is_none()) else {
                continue;
            };
            if out.room(conn) == 0 || out.arena_room() < 512 * 1024 {
                continue;
            }
            let order = self.state.order();
            let below = &order[at * order.len() / count..(at + 1) * order.len() / count];
            child.starts += 1;
            let edge = EdgeEpoch {
                root: epoch,
                view: self.state.view,
                start: child.starts,
            };
            child.start(edge, below, &self.state);
            let state = &self.state;
            let body = EdgeStart {
                log: self.config.log,
                edge,
                entry: state.entry,
                end_gsn: state.end_gsn,
                trim: state.trim,
                shards: child.shards.len() as u32,
            };
            let sent = out.send_with(conn, &body, |writer| {
                child
                    .shards
                    .iter()
                    .filter_map(|shard| state.shard(*shard))
                    .try_for_each(|shard| {
                        let head = ShardStartHead {
                            shard: shard.shard(),
                            epoch: shard.epoch(),
                            last: shard.last(),
                            class: shard.class(),
                            quorum: shard.quorum(),
                        };
                        let segments = shard.generations().zip(shard.lens());
                        ShardStart::write(writer, &head, shard.members(), segments, shard.joint())
                    })
            });
            if sent.is_err() {
                child.stop();
            }
            self.counters.edge_starts += 1;
        }
    }

    pub(super) fn flush_sync(&mut self, now: Time, out: &mut Outbox) {
        for child in &self.children {
            let (Some(conn), Some(edge)) = (child.conn, child.edge) else {
                continue;
            };
            let sync = Sync {
                log: self.config.log,
                edge,
                complete: self.committed,
                end_gsn: self.committed_end,
                trim: self.committed_trim,
                chosen: RoundNo::new(child.down_round),
            };
            if out.room(conn) > 256 {
                let _ = out.send(conn, &sync, &[]);
            }
        }
        self.sync_at = now.after(self.config.sync);
    }
}
