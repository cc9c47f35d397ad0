//! One shard at its leaf: a slot per member, and the length per segment that enough of them hold.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::marker::PhantomData;

use ionian_types::{
    ConnId, Durability, EntryNo, Gsn, Inc, Knobs, Lsn, Mutant, Nanos, NodeId,
    SEGMENTS_PER_SHARD_MAX, ShardId, Shipped, Slot, Time, ViewId,
};
use ionian_wire::frame::{Report, ShardStart, ShardStatus};
use ionian_wire::{Reader, Writer};

use super::{NONE, ShardStatusRow};

/// What became of a report.
pub(super) enum Taken {
    /// Its lengths are new.
    Changed,
    /// It says nothing new.
    Same,
    /// It is of another epoch or out of order.
    Stale,
    /// Its lengths fell: the sender is excluded for the rest of the epoch.
    Regressed,
}

/// One member's slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemberSlot {
    pub(super) conn: Option<ConnId>,
    node: NodeId,
    inc: Inc,
    domain: u32,
    seq: u64,
    lens: [Lsn; SEGMENTS_PER_SHARD_MAX],
    regressed: bool,
    applied: EntryNo,
    reported_at: Option<Time>,
}

impl MemberSlot {
    /// Time since its last report; the longest there is before the first.
    fn age(&self, now: Time) -> Nanos {
        self.reported_at.map_or(Nanos(u64::MAX), |at| now.since(at))
    }
}

/// A cut of this shard that waits to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingCut {
    pub(super) entry: EntryNo,
    pub(super) prev_entry: EntryNo,
    pub(super) base: Gsn,
    pub(super) end_gsn: Gsn,
    lens: [Lsn; SEGMENTS_PER_SHARD_MAX],
}

#[derive(Debug)]
pub(super) struct Shard<K: Knobs = Shipped> {
    pub(super) shard: ShardId,
    pub(super) epoch: ViewId,
    pub(super) last: EntryNo,
    pub(super) first_segment: usize,
    pub(super) members: Vec<MemberSlot>,
    pub(super) dirty: bool,
    class: Durability,
    quorum: usize,
    generations: [ViewId; SEGMENTS_PER_SHARD_MAX],
    start_lens: [Lsn; SEGMENTS_PER_SHARD_MAX],
    cuts: VecDeque<PendingCut>,
    pub(super) told: Option<(Time, bool, u8)>,
    knobs: PhantomData<K>,
}

impl<K: Knobs> Shard<K> {
    /// The shard as an edge start gives it; slots are kept from `before` when its epoch did not change.
    pub(super) fn new(start: &ShardStart<'_>, first_segment: usize, before: Option<&Self>) -> Self {
        let kept = before.filter(|before| {
            let same_epoch = before.epoch == start.epoch || K::mutant(Mutant::KeepSlotsOverView);
            same_epoch && before.members.len() == start.members().len()
        });
        let members = start
            .members()
            .enumerate()
            .map(|(slot, member)| {
                match kept
                    .map(|before| before.members[slot])
                    .filter(|kept| kept.inc == member.inc)
                {
                    Some(kept) => kept,
                    None => MemberSlot {
                        conn: None,
                        node: member.node,
                        inc: member.inc,
                        domain: member.domain,
                        seq: 0,
                        lens: [NONE; SEGMENTS_PER_SHARD_MAX],
                        regressed: false,
                        applied: EntryNo::ZERO,
                        reported_at: None,
                    },
                }
            })
            .collect();
        let mut generations = [ViewId::ZERO; SEGMENTS_PER_SHARD_MAX];
        let mut start_lens = [NONE; SEGMENTS_PER_SHARD_MAX];
        for (slot, (generation, len)) in start.segments().enumerate() {
            generations[slot] = generation;
            start_lens[slot] = len;
        }
        Self {
            shard: start.shard,
            epoch: start.epoch,
            last: start.last,
            first_segment,
            members,
            dirty: false,
            class: start.class,
            quorum: usize::from(start.quorum),
            generations,
            start_lens,
            cuts: VecDeque::with_capacity(64),
            told: None,
            knobs: PhantomData,
        }
    }

    pub(super) fn set_conn(&mut self, slot: Slot, conn: Option<ConnId>) {
        if let Some(member) = self.members.get_mut(slot.index()) {
            member.conn = conn;
        }
    }

    /// Whether a segment of the subtree is one of this shard's.
    pub(super) fn holds(&self, segment: usize) -> bool {
        (self.first_segment..self.first_segment + self.members.len()).contains(&segment)
    }

    /// ORDERING.md: a report counts only for the current epoch, from the incarnation listed in it, newer than the last.
    pub(super) fn report(&mut self, now: Time, slot: Slot, report: &Report, tail: &[u8]) -> Taken {
        let count = self.members.len();
        let Some(member) = self.members.get_mut(slot.index()) else {
            return Taken::Stale;
        };
        let counts = (report.epoch == self.epoch || K::mutant(Mutant::AcceptOldEpoch))
            && report.inc == member.inc
            && report.seq > member.seq
            && usize::from(report.segments) == count;
        if !counts || member.regressed {
            return Taken::Stale;
        }
        let mut lens = member.lens;
        let mut reader = Reader::new(tail);
        let mut changed = false;
        for len in lens.iter_mut().take(count) {
            let Ok(reported) = reader.field::<Lsn>() else {
                return Taken::Stale;
            };
            if reported < *len {
                member.regressed = true;
                return Taken::Regressed;
            }
            changed |= reported > *len;
            *len = reported;
        }
        member.seq = report.seq;
        member.applied = member.applied.max(report.applied);
        member.lens = lens;
        member.reported_at = Some(now);
        if changed { Taken::Changed } else { Taken::Same }
    }

    /// The length of a segment: what enough members hold, never below `floor`.
    pub(super) fn length(&self, segment: usize, floor: Lsn) -> Lsn {
        let mut lens = [NONE; SEGMENTS_PER_SHARD_MAX];
        let mut domains = [(0u32, NONE); SEGMENTS_PER_SHARD_MAX];
        let mut domain_count = 0;
        for (at, member) in self.members.iter().enumerate() {
            let len = if member.regressed {
                NONE
            } else {
                member.lens[segment]
            };
            lens[at] = len;
            match domains[..domain_count]
                .iter_mut()
                .find(|(domain, _)| *domain == member.domain)
            {
                Some((_, max)) => *max = (*max).max(len),
                None => {
                    domains[domain_count] = (member.domain, len);
                    domain_count += 1;
                }
            }
        }
        let count = self.members.len();
        lens[..count].sort_unstable_by(|a, b| b.cmp(a));
        let needed = if K::mutant(Mutant::ConfirmBeforeQuorum) {
            1
        } else {
            self.quorum
        };
        let mut held = lens[needed - 1];
        if self.class == Durability::D2 {
            // In two domains: no further than the second largest of the domains' maxima.
            domains[..domain_count].sort_unstable_by_key(|(_, len)| core::cmp::Reverse(*len));
            held = if domain_count < 2 {
                NONE
            } else {
                held.min(domains[1].1)
            };
        }
        held.max(floor)
    }

    /// Notes a cut: `lens` are the lengths of the whole subtree after it.
    pub(super) fn cut(&mut self, entry: EntryNo, base: Gsn, end_gsn: Gsn, lens: &[Lsn]) {
        let mut own = [NONE; SEGMENTS_PER_SHARD_MAX];
        own[..self.members.len()]
            .copy_from_slice(&lens[self.first_segment..self.first_segment + self.members.len()]);
        self.cuts.push_back(PendingCut {
            entry,
            prev_entry: self.last,
            base,
            end_gsn,
            lens: own,
        });
        self.last = entry;
    }

    pub(super) fn next_cut(&mut self) -> Option<PendingCut> {
        self.cuts.pop_front()
    }

    /// Writes (generation, length) per segment; returns the bytes used.
    pub(super) fn encode_cut(&self, cut: &PendingCut, tail: &mut [u8]) -> usize {
        let mut writer = Writer::new(tail);
        for slot in 0..self.members.len() {
            // The tail has room for the largest shard.
            let _ = writer.field(self.generations[slot]);
            let _ = writer.field(cut.lens[slot]);
        }
        writer.len()
    }

    /// The entry up to which every live member has applied what touches the shard; `complete` when nothing is left to
    /// apply. A member is not live when it has no connection and `silent` holds of its last report; without a live member
    /// nothing counts as applied.
    pub(super) fn applied_by_live(
        &self,
        complete: EntryNo,
        silent: impl Fn(Option<Time>) -> bool,
    ) -> EntryNo {
        let live = self
            .members
            .iter()
            .filter(|member| member.conn.is_some() || !silent(member.reported_at))
            .map(|member| member.applied);
        let applied = if K::mutant(Mutant::DropAtFastest) {
            live.max()
        } else {
            live.min()
        }
        .unwrap_or(EntryNo::ZERO);
        if applied >= self.last {
            complete
        } else {
            applied
        }
    }

    /// The entry up to which as many members as an ack takes have applied what touches the shard, live or not; `None` when
    /// they have applied everything. Of what follows, one bad device could take back all that is known.
    pub(super) fn applied_by_quorum(&self) -> Option<EntryNo> {
        let mut applied = [EntryNo::ZERO; SEGMENTS_PER_SHARD_MAX];
        for (applied, member) in applied.iter_mut().zip(&self.members) {
            *applied = member.applied;
        }
        applied[..self.members.len()].sort_unstable_by(|a, b| b.cmp(a));
        Some(applied[self.quorum - 1]).filter(|applied| *applied < self.last)
    }

    fn whole(&self) -> bool {
        let count = self.members.len();
        (0..count).all(|segment| self.length(segment, NONE) >= self.start_lens[segment])
            && self
                .members
                .iter()
                .all(|member| member.reported_at.is_some() && !member.regressed)
    }

    fn regressed(&self) -> u8 {
        self.members
            .iter()
            .enumerate()
            .fold(0, |bits, (slot, member)| {
                bits | u8::from(member.regressed) << slot
            })
    }

    /// Whether the controller is to be told: something changed, or `every` has passed.
    pub(super) fn status_due(&self, now: Time, every: Nanos) -> bool {
        self.told.is_none_or(|(at, whole, regressed)| {
            now >= at.after(every) || whole != self.whole() || regressed != self.regressed()
        })
    }

    /// The status for the controller: the message, and its tail with the number of bytes used.
    pub(super) fn status_message(
        &mut self,
        log: ionian_types::LogId,
        now: Time,
    ) -> (ShardStatus, [u8; 16 * SEGMENTS_PER_SHARD_MAX], usize) {
        let mut tail = [0u8; 16 * SEGMENTS_PER_SHARD_MAX];
        let mut writer = Writer::new(&mut tail);
        for member in &self.members {
            // The tail has room for the largest shard.
            let _ = writer.field(member.age(now).0 / 1_000);
            let _ = writer.field(0u64);
        }
        let used = writer.len();
        let whole = self.is_held();
        self.told = Some((now, whole, self.regressed()));
        let status = ShardStatus {
            log,
            shard: self.shard,
            epoch: self.epoch,
            whole,
            ready: false,
            regressed: self.regressed(),
            slowest: self.slowest().0.get(),
            members: self.members.len() as u8,
        };
        (status, tail, used)
    }

    pub(super) fn status(&self, now: Time) -> ShardStatusRow {
        let row = |member: &MemberSlot| {
            let counts = member.reported_at.is_some() && !member.regressed;
            (member.node, member.age(now), counts)
        };
        ShardStatusRow {
            shard: self.shard,
            epoch: self.epoch,
            whole: self.is_held(),
            slowest: self.slowest(),
            held_back: self.held_back(),
            members: self.members.iter().map(row).collect(),
        }
    }

    /// Records that another member has reported and the slowest has not.
    fn held_back(&self) -> u64 {
        let count = self.members.len();
        let slowest = &self.members[self.slowest().0.index()];
        let lack = |segment: usize| {
            let most = self.members.iter().map(|member| member.lens[segment]).max();
            most.map_or(0, |most| most.saturating_since(slowest.lens[segment]))
        };
        (0..count).map(lack).sum()
    }

    /// Whether the quorum holds every committed length.
    fn is_held(&self) -> bool {
        (0..self.members.len())
            .all(|segment| self.length(segment, NONE) >= self.start_lens[segment])
    }

    /// The slot that holds the shard back most, with its node.
    fn slowest(&self) -> (Slot, NodeId) {
        let count = self.members.len();
        let held = |slot: &usize| {
            let member = &self.members[*slot];
            let sum: u64 = member.lens[..count].iter().map(|len| len.get()).sum();
            (member.reported_at.is_some(), sum)
        };
        let slowest = (0..count).min_by_key(held).unwrap_or(0);
        (Slot::new(slowest as u8), self.members[slowest].node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(applied: u64, conn: Option<u32>, reported_at: Option<Time>) -> MemberSlot {
        MemberSlot {
            conn: conn.map(ConnId::new),
            node: NodeId::new(1),
            inc: Inc::new(1),
            domain: 0,
            seq: 1,
            lens: [NONE; SEGMENTS_PER_SHARD_MAX],
            regressed: false,
            applied: EntryNo::new(applied),
            reported_at,
        }
    }

    fn shard(members: Vec<MemberSlot>) -> Shard {
        Shard {
            shard: ShardId::new(0),
            epoch: ViewId::new(1),
            last: EntryNo::new(50),
            first_segment: 0,
            members,
            dirty: false,
            class: Durability::D1,
            quorum: 2,
            generations: [ViewId::ZERO; SEGMENTS_PER_SHARD_MAX],
            start_lens: [NONE; SEGMENTS_PER_SHARD_MAX],
            cuts: VecDeque::new(),
            told: None,
            knobs: PhantomData,
        }
    }

    /// A replica that stayed away kept the whole cut log, and at last every shard stood still.
    #[test]
    fn a_member_that_is_gone_for_long_keeps_no_entries() {
        let (complete, at) = (EntryNo::new(90), Some(Time::from_ns(7)));
        let applied = |members, silent: bool| {
            let found = shard(members).applied_by_live(complete, |reported| {
                assert_eq!(reported, at);
                silent
            });
            found.get()
        };
        let here = member(50, Some(1), at);
        assert_eq!(applied(vec![here, member(20, Some(2), at)], true), 20);
        assert_eq!(applied(vec![here, member(20, None, at)], false), 20);
        assert_eq!(applied(vec![here, member(20, None, at)], true), 90);
        assert_eq!(applied(vec![member(20, None, at); 2], true), 0, "nobody");
    }

    /// Those that it alone has not applied were dropped; then the device of the other one took back that it had.
    #[test]
    fn a_member_that_is_away_counts_for_the_entries_of_its_shard() {
        let at = Some(Time::from_ns(7));
        let (here, away) = (member(50, Some(1), at), member(20, None, at));
        let known = |members, quorum| {
            let mut shard = shard(members);
            shard.quorum = quorum;
            shard.applied_by_quorum().map(EntryNo::get)
        };
        assert_eq!(known(vec![here, away], 2), Some(20));
        assert_eq!(known(vec![here, member(0, None, None)], 2), Some(0));
        assert_eq!(known(vec![here, here], 2), None, "nothing is missing");
        assert_eq!(known(vec![away, here, here], 2), None, "two have all of it");
        assert_eq!(known(vec![away, away, here], 2), Some(20));
    }
}
