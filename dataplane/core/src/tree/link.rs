//! The parent's side of an edge: rounds accepted in sequence, and the bases sent down for those that were chosen.
//!
//! ```text
//! Stopped --begin--> Starting --all shards sent--> Running --a view touches what is below--> Closing --begin--> Starting
//!    ^------ connection gone, a Down without room, the child asks for it ------|------------------|
//! ```
//! While an edge is closing, the Downs of what was logged before still go, and rounds do not count any more. So the child has all of
//! them before the next start, and what is further below may go on.

use alloc::vec::Vec;

use ionian_types::{
    ConnId, EdgeEpoch, EntryNo, Gsn, Inc, Knobs, LogId, Lsn, Mutant, NodeId, RoundNo, SegmentId,
    ShardId, Slot, ViewId,
};
use ionian_wire::codec::Field;
use ionian_wire::frame::{
    Applied, Down, EdgeShards, EdgeStart, EdgeVertex, Member, NeedEdge, NeedFull, Sync, Up, UpKeep,
};
use ionian_wire::growth::{GrowthSink, Growths};
use ionian_wire::{Reader, WireError, Writer};

use super::marks::Marks;
use super::rounds::ChildRound;
use crate::outbox::{Full, Outbox};

/// Bytes of one message of an edge's start, at most, unless its vertices need more.
const START_BYTES: usize = 64 * 1024;

/// Where an edge stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// It is to be started.
    Stopped,
    /// So many of its shards were sent.
    Starting(EdgeEpoch, usize),
    Running(EdgeEpoch),
    /// It is to be started again, and the child has been sent everything so far.
    Closing(EdgeEpoch),
}

/// One child of an inner vertex of the tree, for status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChildStatus {
    /// Its node.
    pub node: NodeId,
    /// Its incarnation.
    pub inc: Inc,
    /// Whether there is a connection and a running edge.
    pub running: bool,
    /// Segments below.
    pub segments: usize,
    /// Rounds accepted and not yet chosen.
    pub rounds_in_flight: u64,
}

/// What a committed cut means for one child.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descent {
    pub(crate) entry: EntryNo,
    pub(crate) edge: EdgeEpoch,
    pub(crate) chosen: ChildRound,
    pub(crate) base: Gsn,
    pub(crate) growth: u64,
    pub(crate) end_gsn: Gsn,
}

/// What becomes of a message of the child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// It is taken over, or has been before.
    Yes,
    /// It is of another edge.
    Stranger,
    /// The next round must be full.
    NeedsFull,
}

/// One child and the edge to it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) node: NodeId,
    pub(crate) inc: Inc,
    conn: Option<ConnId>,
    stage: Stage,
    /// The last view that changed what is below, as of the edge's start.
    pub(crate) changed: ViewId,
    /// The open shards below, in order, and where each one's segments begin; one more for the end.
    shards: Vec<ShardId>,
    firsts: Vec<u32>,
    /// The same shards by number.
    ids: Vec<ShardId>,
    /// Lengths: of the edge's start, of the newest round accepted, as they were passed on, and as they were when the edge began on
    /// which they are passed on.
    start: Vec<Lsn>,
    lens: Vec<Lsn>,
    passed: Vec<Lsn>,
    base: Vec<Lsn>,
    /// Segments of which more was accepted than passed on.
    grown: Marks,
    newest: ChildRound,
    start_total: u64,
    passed_total: u64,
    /// The child had been sent everything that concerned it when its edge started.
    resumes: bool,
    /// Whether a round was accepted that was not passed on.
    pub(crate) fresh: bool,
    need_full: bool,
    /// What every live member below has applied, and what of it too few members have.
    pub(crate) applied: EntryNo,
    keeps: Vec<UpKeep>,
    /// The last Down sent.
    down_entry: EntryNo,
    down: ChildRound,
}

impl Link {
    pub(crate) fn new(node: NodeId, inc: Inc) -> Self {
        Self {
            node,
            inc,
            conn: None,
            stage: Stage::Stopped,
            changed: ViewId::ZERO,
            shards: Vec::new(),
            firsts: Vec::new(),
            ids: Vec::new(),
            start: Vec::new(),
            lens: Vec::new(),
            passed: Vec::new(),
            base: Vec::new(),
            grown: Marks::default(),
            newest: ChildRound::default(),
            start_total: 0,
            passed_total: 0,
            resumes: false,
            fresh: false,
            need_full: false,
            applied: EntryNo::ZERO,
            keeps: Vec::new(),
            down_entry: EntryNo::ZERO,
            down: ChildRound::default(),
        }
    }

    pub(crate) fn is(&self, node: NodeId, inc: Inc) -> bool {
        self.node == node && self.inc == inc
    }

    /// The edge of which rounds count.
    pub(crate) const fn edge(&self) -> Option<EdgeEpoch> {
        match self.stage {
            Stage::Running(edge) => Some(edge),
            _ => None,
        }
    }

    pub(crate) const fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running(_)) && self.conn.is_some()
    }

    /// Whether an edge is to be started on a connection that there is.
    pub(crate) const fn awaits_start(&self) -> bool {
        matches!(self.stage, Stage::Stopped | Stage::Closing(_)) && self.conn.is_some()
    }

    /// The edge whose shards are still being sent.
    pub(crate) const fn starting(&self) -> Option<EdgeEpoch> {
        match self.stage {
            Stage::Starting(edge, _) => Some(edge),
            _ => None,
        }
    }

    /// The edge of which the child is told bases.
    pub(crate) const fn edge_of_downs(&self) -> Option<EdgeEpoch> {
        match self.stage {
            Stage::Running(edge) | Stage::Closing(edge) => Some(edge),
            _ => None,
        }
    }

    /// Whether the child had been sent everything that concerned it when its edge began to start.
    pub(crate) const fn resumes(&self) -> bool {
        self.resumes
    }

    /// The entry after which the child is told everything, once its edge began to start.
    pub(crate) const fn start_entry(&self) -> EntryNo {
        self.down_entry
    }

    /// Takes a connection.
    pub(crate) fn connect<K: Knobs>(&mut self, conn: ConnId) {
        if !keeps_edges::<K>() {
            self.stop();
        }
        self.conn = Some(conn);
    }

    pub(crate) fn disconnect<K: Knobs>(&mut self, conn: ConnId) {
        if self.conn == Some(conn) {
            self.conn = None;
            if !keeps_edges::<K>() {
                self.stop();
            }
        }
    }

    /// The edge ends; what the child was not sent is lost to it.
    pub(crate) fn stop(&mut self) {
        self.stage = Stage::Stopped;
        self.fresh = false;
    }

    /// The edge ends with what was logged before: no round counts from here on.
    pub(crate) fn close(&mut self) {
        self.stage = match self.stage {
            Stage::Running(edge) | Stage::Closing(edge) => Stage::Closing(edge),
            Stage::Stopped | Stage::Starting(..) => Stage::Stopped,
        };
        self.fresh = false;
    }

    /// The child asks for another start. Unless something is lost to it, it is sent what was logged before. What it asks on an
    /// earlier edge than this one is answered by this one.
    pub(crate) fn restart(&mut self, need: &NeedEdge) {
        let known = match self.stage {
            Stage::Starting(edge, _) | Stage::Running(edge) | Stage::Closing(edge) => edge,
            Stage::Stopped => return,
        };
        if need.edge != known {
            return;
        }
        if need.lost {
            self.stop();
        } else {
            self.close();
        }
    }

    pub(crate) fn keeps(&self) -> &[UpKeep] {
        &self.keeps
    }

    pub(crate) fn has(&self, shard: ShardId) -> bool {
        self.ids.binary_search(&shard).is_ok()
    }

    pub(crate) const fn newest(&self) -> ChildRound {
        self.newest
    }

    /// The round that was chosen last, with the sum of the lengths then.
    pub(crate) const fn chosen(&self) -> ChildRound {
        self.down
    }

    /// The segment with which its part of the order begins, if it has any.
    pub(crate) fn first_segment(&self) -> Option<SegmentId> {
        (!self.lens.is_empty()).then(|| self.segment(0))
    }

    /// Which segment it is that has this number below the edge.
    pub(crate) fn segment(&self, index: usize) -> SegmentId {
        let at = self
            .firsts
            .partition_point(|first| *first as usize <= index)
            - 1;
        SegmentId {
            shard: self.shards[at],
            slot: Slot::new((index - self.firsts[at] as usize) as u8),
        }
    }

    /// What is below, and where it stands before its edge has started: as the edge on which it is passed on says.
    pub(crate) fn prepare<L: Iterator<Item = Lsn>>(
        &mut self,
        shards: impl Iterator<Item = (ShardId, L)>,
    ) {
        self.shards.clear();
        self.firsts.clear();
        self.start.clear();
        for (shard, lens) in shards {
            self.shards.push(shard);
            self.firsts.push(self.start.len() as u32);
            self.start.extend(lens);
        }
        self.firsts.push(self.start.len() as u32);
        self.ids.clone_from(&self.shards);
        self.ids.sort_unstable();
        self.lens.clone_from(&self.start);
        self.passed.clone_from(&self.start);
        self.base.clone_from(&self.start);
        self.grown.reset(self.start.len());
        let records = self.start.iter().map(|len| len.get());
        self.start_total = records.fold(0, u64::wrapping_add);
        self.passed_total = self.start_total;
        self.newest = ChildRound {
            round: 0,
            total: self.start_total,
        };
        self.fresh = false;
    }

    /// The edge is about to start: the shards below with their segments' lengths are round 0.
    pub(crate) fn begin<L: Iterator<Item = Lsn>>(
        &mut self,
        edge: EdgeEpoch,
        entry: EntryNo,
        shards: impl Iterator<Item = (ShardId, L)>,
    ) {
        self.prepare(shards);
        self.down = self.newest;
        self.down_entry = entry;
        self.resumes = matches!(self.stage, Stage::Closing(_));
        self.stage = Stage::Starting(edge, 0);
        self.changed = edge.view;
        self.need_full = false;
        // Said on an edge that has ended: members may have come back with less since.
        self.applied = EntryNo::ZERO;
        self.keeps.clear();
    }

    /// Sends what is left of the edge's start, as far as there is room. `write` writes one shard, by its place among those below;
    /// each takes `shard_bytes` at most.
    pub(crate) fn send_start(
        &mut self,
        head: &EdgeStart,
        vertices: impl ExactSizeIterator<Item = EdgeVertex>,
        shard_bytes: usize,
        mut write: impl FnMut(usize, &mut Writer<'_>) -> Result<(), WireError>,
        out: &mut Outbox,
    ) {
        let mut vertices = Some(vertices);
        while let (Stage::Starting(edge, sent), Some(conn)) = (self.stage, self.conn) {
            let fixed = 256
                + if sent == 0 {
                    usize::from(head.vertices) * EdgeVertex::LEN
                } else {
                    0
                };
            let room = out
                .room(conn)
                .min(out.arena_room())
                .min(START_BYTES.max(fixed + shard_bytes));
            let more = (self.shards.len() - sent).min(room.saturating_sub(fixed) / shard_bytes);
            if more == 0 && !self.shards.is_empty() || room < fixed {
                return;
            }
            let shards = sent..sent + more;
            let left = if sent == 0
                && let Some(vertices) = vertices.take()
            {
                out.send_with(conn, head, |writer| {
                    let mut vertices = vertices;
                    vertices.try_for_each(|it| writer.field(it))?;
                    shards.clone().try_for_each(|at| write(at, writer))
                })
            } else {
                let (log, first) = (head.log, sent as u32);
                out.send_with(conn, &EdgeShards { log, edge, first }, |writer| {
                    shards.clone().try_for_each(|at| write(at, writer))
                })
            };
            match left {
                Ok(()) if shards.end == self.shards.len() => self.stage = Stage::Running(edge),
                Ok(()) => self.stage = Stage::Starting(edge, shards.end),
                Err(Full) => return,
            }
        }
    }

    /// Takes what a round says, if it follows the last one or is a newer full one.
    pub(crate) fn take_up<K: Knobs>(&mut self, up: &Up, tail: &[u8]) -> Taken {
        let trusting = K::mutant(Mutant::RoundWithoutEdge);
        let of_edge = self.edge() == Some(up.edge) && up.inc == self.inc;
        if self.edge().is_none() || !of_edge && !trusting {
            return Taken::Stranger;
        }
        if self.accept::<K>(up, tail) {
            return Taken::Yes;
        }
        Taken::NeedsFull
    }

    fn accept<K: Knobs>(&mut self, up: &Up, tail: &[u8]) -> bool {
        let round = up.round.get();
        let trusting = K::mutant(Mutant::TakeLaterRounds) || K::mutant(Mutant::RoundWithoutEdge);
        let follows = up.full || trusting || (round == self.newest.round + 1 && !self.need_full);
        if round <= self.newest.round || !follows {
            return round <= self.newest.round;
        }
        let mut reader = Reader::new(tail);
        let keeps = reader;
        let kept = reader.bytes((up.keeps as usize).saturating_mul(UpKeep::LEN));
        let growths = kept.and_then(|_| Growths::new_checked(reader.rest()));
        let Ok(growths) = growths else { return false };
        if growths.end() > self.lens.len() {
            return false;
        }
        let total = if up.full {
            self.start_total.wrapping_add(growths.total())
        } else {
            self.newest.total.wrapping_add(growths.total())
        };
        let sound = total == up.total || trusting || K::mutant(Mutant::RootOnlyClamp);
        if !sound || !self.may_keep(keeps, up.keeps) {
            return false;
        }
        if !self.grow::<K>(&growths, up.full) {
            // Nonsense: what was taken of it is forgotten with the edge.
            self.stop();
            return false;
        }
        self.newest = ChildRound {
            round,
            total: up.total,
        };
        self.take_applied(up.applied, keeps, up.keeps);
        self.fresh = true;
        self.need_full = false;
        true
    }

    /// Adds growths to the lengths, which never fall within an edge. `false` leaves some of them changed.
    fn grow<K: Knobs>(&mut self, growths: &Growths<'_>, full: bool) -> bool {
        let clamps = K::mutant(Mutant::RootOnlyClamp);
        if !full && !clamps {
            let mut news = News {
                lens: &mut self.lens,
                grown: &mut self.grown,
                over: false,
            };
            growths.walk(&mut news);
            return !news.over;
        }
        let mut next = growths.iter().peekable();
        for at in 0..self.lens.len() {
            let growth = next.next_if(|it| it.0 == at).map_or(0, |it| it.1);
            let from = if clamps { Lsn::ZERO } else { self.start[at] };
            let Some(len) = from.checked_add(growth) else {
                return false;
            };
            if len > self.lens[at] {
                self.lens[at] = len;
                self.grown.set(at);
            } else if len < self.lens[at] && !clamps {
                return false;
            }
        }
        true
    }

    /// What has grown since it was passed on, in runs of neighbours: the first segment of each, their lengths as passed on
    /// before, and now.
    #[inline]
    pub(crate) fn each_grown(&self, mut each: impl FnMut(usize, &[Lsn], &[Lsn])) {
        self.grown.each_run(|first, count| {
            let run = first..first + count;
            each(first, &self.passed[run.clone()], &self.lens[run]);
        });
    }

    /// Everything that has grown was passed on.
    pub(crate) fn pass(&mut self) {
        let (passed, lens) = (&mut self.passed, &self.lens);
        self.grown.each_run(|first, count| {
            let run = first..first + count;
            passed[run.clone()].copy_from_slice(&lens[run]);
        });
        self.grown.clear();
        self.passed_total = self.newest.total;
        self.fresh = false;
    }

    /// The sum of the lengths passed on, modulo 2^64.
    pub(crate) const fn passed_total(&self) -> u64 {
        self.passed_total
    }

    /// What of the lengths passed on has grown since the edge began on which they are passed on: (segment, growth), in order.
    pub(crate) fn passed_since_start(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let lens = self.passed.iter().zip(&self.base).enumerate();
        lens.map(|(at, (now, start))| (at, now.get() - start.get()))
    }

    /// Asks for a full round, once.
    pub(crate) fn ask_full(&mut self, log: LogId, out: &mut Outbox) {
        if let (Some(conn), Some(edge)) = (self.conn, self.edge())
            && !self.need_full
        {
            self.need_full = true;
            let _ = out.send(conn, &NeedFull { log, edge }, &[]);
        }
    }

    /// Whether what is to be kept is of the shards below. Each of them once, at most: what is kept is looked for by shard.
    pub(crate) fn may_keep(&self, mut keeps: Reader<'_>, count: u32) -> bool {
        let ours = |keep: UpKeep| self.has(keep.shard);
        count as usize <= self.shards.len() && (0..count).all(|_| keeps.field().is_ok_and(ours))
    }

    /// Takes over what members below have applied; the newest word counts: one may have come back with less than it had.
    pub(crate) fn take_applied(&mut self, applied: EntryNo, mut keeps: Reader<'_>, count: u32) {
        self.applied = applied;
        self.keeps.clear();
        for _ in 0..count {
            self.keeps.extend(keeps.field::<UpKeep>());
        }
    }

    /// Takes over what members below have applied, said without a round, if it is sound.
    pub(crate) fn take_applied_alone(&mut self, body: &Applied, keeps: &[u8]) {
        let keeps = Reader::new(keeps);
        if self.edge() == Some(body.edge)
            && body.inc == self.inc
            && self.may_keep(keeps, body.keeps)
        {
            self.take_applied(body.applied, keeps, body.keeps);
        }
    }

    pub(crate) fn status(&self) -> ChildStatus {
        ChildStatus {
            node: self.node,
            inc: self.inc,
            running: self.is_running(),
            segments: self.lens.len(),
            rounds_in_flight: self.newest.round.saturating_sub(self.down.round),
        }
    }

    /// Sends the base of a committed entry that chose a round of this child; whether it left.
    pub(crate) fn send_down(&mut self, log: LogId, descent: &Descent, out: &mut Outbox) -> bool {
        let edge = match self.stage {
            Stage::Running(edge) | Stage::Closing(edge) => edge,
            Stage::Stopped | Stage::Starting(..) => return true,
        };
        let Some(conn) = self.conn else { return false };
        if edge != descent.edge {
            return true;
        }
        let body = Down {
            log,
            entry: descent.entry,
            prev_entry: self.down_entry,
            edge,
            inc: self.inc,
            round: RoundNo::new(descent.chosen.round),
            prev_round: RoundNo::new(self.down.round),
            base: descent.base,
            total: descent.growth,
            end_gsn: descent.end_gsn,
        };
        if out.room(conn) < 256 || out.send(conn, &body, &[]).is_err() {
            return false;
        }
        self.down_entry = descent.entry;
        self.down = descent.chosen;
        true
    }

    /// Says how far silence is complete.
    pub(crate) fn send_sync(&self, mut sync: Sync, out: &mut Outbox) {
        if let (Some(conn), Stage::Running(edge)) = (self.conn, self.stage)
            && out.room(conn) > 256
        {
            sync.edge = edge;
            sync.chosen = RoundNo::new(self.down.round);
            let _ = out.send(conn, &sync, &[]);
        }
    }

    /// Goes on over a view that changed nothing below, though the edge of its parent starts again: what was passed on is what the
    /// new edge starts from.
    ///
    /// `false` if that does not fit; then the edge has stopped.
    pub(crate) fn resume<L: Iterator<Item = Lsn>>(
        &mut self,
        shards: impl Iterator<Item = (ShardId, L)>,
    ) -> bool {
        let mut at = 0;
        let mut total = 0u64;
        let mut known = self.shards.iter();
        let same = self.is_running()
            && shards.fold(true, |same, (shard, lens)| {
                let mut same = same && known.next() == Some(&shard);
                for len in lens {
                    same &= self.lens.get(at).is_some_and(|newest| len <= *newest);
                    if same {
                        self.passed[at] = len;
                        self.base[at] = len;
                        if len < self.lens[at] {
                            self.grown.set(at);
                        }
                    }
                    total = total.wrapping_add(len.get());
                    at += 1;
                }
                same
            })
            && known.next().is_none()
            && at == self.lens.len()
            && total == self.down.total;
        if same {
            self.passed_total = total;
            self.fresh = !self.grown.is_empty();
        } else {
            self.stop();
        }
        same
    }
}

/// By how much neighbours have grown, and the sum if it is a number.
#[inline]
pub(crate) fn put_growths(growths: &mut [u64], before: &[Lsn], now: &[Lsn]) -> Option<u64> {
    let (mut sum, mut passed) = (0u64, false);
    for ((growth, before), now) in growths.iter_mut().zip(before).zip(now) {
        // Within an edge no length falls.
        *growth = now.get().wrapping_sub(before.get());
        let (more, over) = sum.overflowing_add(*growth);
        sum = more;
        passed |= over;
    }
    (!passed).then_some(sum)
}

/// Growths being added to lengths.
struct News<'a> {
    lens: &'a mut [Lsn],
    grown: &'a mut Marks,
    /// A length would have passed the end of the numbers.
    over: bool,
}

impl GrowthSink for News<'_> {
    #[inline]
    fn one(&mut self, index: usize, growth: u64) {
        let (len, over) = self.lens[index].get().overflowing_add(growth);
        self.lens[index] = Lsn::new(len);
        self.grown.set(index);
        self.over |= over;
    }

    #[inline]
    fn run(&mut self, first: usize, growths: &[u8]) {
        for (len, growth) in self.lens[first..first + growths.len()]
            .iter_mut()
            .zip(growths)
        {
            let (after, over) = len.get().overflowing_add(u64::from(*growth));
            *len = Lsn::new(after);
            self.over |= over;
        }
        self.grown.set_run(first, growths.len());
    }
}

/// Whether an edge outlives its connection.
pub(crate) fn keeps_edges<K: Knobs>() -> bool {
    K::mutant(Mutant::IgnorePreviousRound)
        || K::mutant(Mutant::TakeLaterRounds)
        || K::mutant(Mutant::DropDownSilently)
}

/// The bytes of the largest [`ShardStart`](ionian_wire::frame::ShardStart) of a shard with so many members.
pub(crate) const fn shard_start_bytes(members: usize) -> usize {
    26 + members * (2 * Member::LEN + 16)
}
