//! One shard at its leaf: a slot per member, and the length per segment that enough of them hold.

use alloc::vec::Vec;
use core::marker::PhantomData;

use ionian_types::{
    ConnId, Durability, EntryNo, Inc, Knobs, Lsn, Mutant, Nanos, NodeId, SEGMENTS_PER_SHARD_MAX,
    ShardId, Shipped, Slot, Time, ViewId,
};
use ionian_wire::frame::{Member, Report, ShardStart, ShardStatus};
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
    /// The slot that it writes its reports to.
    pub(super) seat: Option<u32>,
    node: NodeId,
    pub(super) inc: Inc,
    domain: u32,
    pub(super) seq: u64,
    lens: [Lsn; SEGMENTS_PER_SHARD_MAX],
    pub(super) regressed: bool,
    pub(super) applied: EntryNo,
    reported_at: Option<Time>,
    /// When its report last said that it had applied more than before, or all there is.
    progress_at: Option<Time>,
}

impl MemberSlot {
    /// Time since its last report; the longest there is before the first.
    fn age(&self, now: Time) -> Nanos {
        self.reported_at.map_or(Nanos(u64::MAX), |at| now.since(at))
    }

    /// Takes over a report that counts; `last` is the last entry that touches the shard.
    fn take(&mut self, read: &Read, lens: [Lsn; SEGMENTS_PER_SHARD_MAX], last: EntryNo) {
        self.seq = read.seq;
        if read.applied > self.applied || read.applied >= last {
            self.progress_at = Some(read.at);
        }
        self.applied = self.applied.max(read.applied);
        self.lens = lens;
        self.reported_at = Some(read.at);
    }
}

/// What was read of a member, its lengths aside.
pub(super) struct Read {
    pub(super) seq: u64,
    pub(super) applied: EntryNo,
    pub(super) at: Time,
}

#[derive(Debug)]
pub(super) struct Shard<K: Knobs = Shipped> {
    pub(super) shard: ShardId,
    pub(super) epoch: ViewId,
    pub(super) first_segment: usize,
    pub(super) members: Vec<MemberSlot>,
    /// In a joint epoch, the new members with their slots: with the others they are the new set.
    incoming: Vec<(usize, MemberSlot)>,
    /// Joint epochs: the new set has held everything that was ever counted. It stays true within the epoch.
    ready: bool,
    pub(super) dirty: bool,
    /// Its lengths come from the leaf's table.
    pub(super) in_table: bool,
    class: Durability,
    quorum: usize,
    generations: [ViewId; SEGMENTS_PER_SHARD_MAX],
    start_lens: [Lsn; SEGMENTS_PER_SHARD_MAX],
    /// When the controller was told last, and what: whether the shard is whole, whether it is ready, who regressed, who holds everything.
    pub(super) told: Option<(Time, bool, bool, u8, u8)>,
    knobs: PhantomData<K>,
}

impl<K: Knobs> Shard<K> {
    /// The shard as an edge start gives it; slots are kept from `before` when its epoch did not change.
    pub(super) fn new(start: &ShardStart<'_>, first_segment: usize, before: Option<&Self>) -> Self {
        let kept = before.filter(|before| {
            let same_epoch = before.epoch == start.epoch || K::mutant(Mutant::KeepSlotsOverView);
            same_epoch && before.members.len() == start.members().len()
        });
        let slot_of = |member: Member, slot: usize| {
            let same = |known: &&MemberSlot| known.inc == member.inc;
            let kept = kept.and_then(|before| {
                let present = before.members.get(slot).filter(same);
                present.or_else(|| before.incoming(slot).filter(same))
            });
            kept.copied().unwrap_or(MemberSlot {
                conn: None,
                seat: None,
                node: member.node,
                inc: member.inc,
                domain: member.domain,
                seq: 0,
                lens: [NONE; SEGMENTS_PER_SHARD_MAX],
                regressed: false,
                applied: EntryNo::ZERO,
                reported_at: None,
                progress_at: None,
            })
        };
        let members: Vec<MemberSlot> = start
            .members()
            .enumerate()
            .map(|(slot, member)| slot_of(member, slot))
            .collect();
        let joint = start.joint().enumerate();
        let incoming = joint
            .filter(|(slot, member)| members[*slot].inc != member.inc)
            .map(|(slot, member)| (slot, slot_of(member, slot)))
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
            first_segment,
            members,
            incoming,
            ready: kept.is_some_and(|before| before.ready),
            dirty: false,
            in_table: false,
            class: start.class,
            quorum: usize::from(start.quorum),
            generations,
            start_lens,
            told: None,
            knobs: PhantomData,
        }
    }

    fn incoming(&self, slot: usize) -> Option<&MemberSlot> {
        let found = self.incoming.iter().find(|(of, _)| *of == slot);
        found.map(|(_, member)| member)
    }

    /// The connection of a slot: that of the newest life there, which in a joint epoch is the new member's as soon as it has
    /// come. The one that it replaces is not heard any more.
    pub(super) fn set_conn(&mut self, slot: Slot, conn: Option<ConnId>) {
        let slot = slot.index();
        if let Some(member) = self.members.get_mut(slot) {
            member.conn = conn;
        }
        for (_, member) in self.incoming.iter_mut().filter(|(of, _)| *of == slot) {
            member.conn = conn;
        }
    }

    /// ORDERING.md: a report counts only for the current epoch, from the incarnation listed in it, newer than the last.
    /// `last` is the last entry that touches the shard, here as below.
    pub(super) fn report(
        &mut self,
        now: Time,
        last: EntryNo,
        slot: Slot,
        report: &Report,
        tail: &[u8],
    ) -> Taken {
        let count = self.members.len();
        let new = self.incoming.iter_mut();
        let mut new = new.filter(|(of, member)| *of == slot.index() && member.inc == report.inc);
        let member = match new.next() {
            Some((_, member)) => Some(member),
            None => self.members.get_mut(slot.index()),
        };
        let Some(member) = member else {
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
        let read = Read {
            seq: report.seq,
            applied: report.applied,
            at: now,
        };
        member.take(&read, lens, last);
        if changed { Taken::Changed } else { Taken::Same }
    }

    /// Takes over what the leaf's table knows of a member.
    pub(super) fn settle(
        &mut self,
        member: usize,
        last: EntryNo,
        read: &Read,
        lens: [Lsn; SEGMENTS_PER_SHARD_MAX],
    ) {
        if let Some(member) = self.members.get_mut(member).filter(|it| !it.regressed) {
            member.take(read, lens, last);
        }
    }

    /// Says to which slot a member writes.
    pub(super) fn set_seat(&mut self, slot: usize, seat: u32) {
        let new = self.incoming.iter_mut().filter(|(of, _)| *of == slot);
        let members = self.members.get_mut(slot).into_iter();
        for member in members.chain(new.map(|(_, member)| member)) {
            member.seat = Some(seat);
        }
    }

    /// A member, the new one of a joint epoch as soon as there is one.
    pub(super) fn known(&self, slot: usize) -> Option<&MemberSlot> {
        self.incoming(slot).or_else(|| self.members.get(slot))
    }

    /// How many members there are and of how many lengths the least counts, if the lengths of all segments are plainly that: no
    /// epoch of two sets, no failure domains, and no segment that nobody writes.
    pub(super) fn rule(&self) -> Option<(usize, usize)> {
        let count = self.members.len();
        let written = self.generations[..count]
            .iter()
            .all(|it| *it != ViewId::ZERO);
        let plain = self.class != Durability::D2 || K::mutant(Mutant::DomainsByPlainQuorum);
        (self.incoming.is_empty() && written && plain).then_some((count, self.needed()))
    }

    /// What a member has reported, if it counts.
    pub(super) fn counted(&self, slot: Slot) -> Option<[u64; SEGMENTS_PER_SHARD_MAX]> {
        let member = self.members.get(slot.index())?;
        (!member.regressed).then(|| member.lens.map(Lsn::get))
    }

    /// How many members must hold a record.
    fn needed(&self) -> usize {
        if K::mutant(Mutant::ConfirmBeforeQuorum) {
            1
        } else {
            self.quorum
        }
    }

    /// The length of a segment: what enough members hold, in a joint epoch enough of both sets, never below `floor`. A
    /// segment that nobody writes does not grow.
    pub(super) fn length(&self, segment: usize, floor: Lsn) -> Lsn {
        if self.generations[segment] == ViewId::ZERO {
            return floor.max(self.start_lens[segment]);
        }
        self.held_by_both(segment).max(floor)
    }

    /// What enough members of each set hold of a segment.
    fn held_by_both(&self, segment: usize) -> Lsn {
        let held = self.held_by_enough(segment, self.members.iter());
        if self.incoming.is_empty() {
            return held;
        }
        held.min(self.held_by_new(segment))
    }

    /// What enough members of the new set hold of a segment.
    fn held_by_new(&self, segment: usize) -> Lsn {
        let members = self.members.iter().enumerate();
        let new = members.map(|(slot, member)| self.incoming(slot).unwrap_or(member));
        self.held_by_enough(segment, new)
    }

    /// Notes whether the new set of a joint epoch holds everything that was ever counted; `counted` says how much that is.
    pub(super) fn note_ready(&mut self, counted: impl Fn(usize) -> Lsn) {
        if self.ready || self.incoming.is_empty() {
            return;
        }
        let mut segments = 0..self.members.len();
        let holds = |slot: usize| self.held_by_new(slot) >= counted(self.first_segment + slot);
        self.ready = segments.all(holds);
    }

    fn held_by_enough<'a>(
        &self,
        segment: usize,
        members: impl Iterator<Item = &'a MemberSlot>,
    ) -> Lsn {
        let mut lens = [NONE; SEGMENTS_PER_SHARD_MAX];
        let mut domains = [(0u32, NONE); SEGMENTS_PER_SHARD_MAX];
        let mut domain_count = 0;
        for (at, member) in members.enumerate() {
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
        let mut held = lens[self.needed() - 1];
        if self.class == Durability::D2 && !K::mutant(Mutant::DomainsByPlainQuorum) {
            // In two domains: no further than the second largest of the domains' maxima.
            domains[..domain_count].sort_unstable_by_key(|(_, len)| core::cmp::Reverse(*len));
            held = if domain_count < 2 {
                NONE
            } else {
                held.min(domains[1].1)
            };
        }
        held
    }

    /// The open generations, per segment.
    pub(super) fn generations(&self) -> impl Iterator<Item = ViewId> {
        self.generations[..self.members.len()].iter().copied()
    }

    /// The members, and the new ones of a joint epoch.
    fn everyone(&self) -> impl Iterator<Item = &MemberSlot> {
        let new = self.incoming.iter().map(|(_, member)| member);
        self.members.iter().chain(new)
    }

    /// The entry up to which every live member has applied what touches the shard; `complete` when nothing is left to
    /// apply. A member is not live when it has no connection and `silent` holds of its last report; where an ack can do
    /// without it, also when `silent` holds of the last report by which it had applied more: the shard goes on, and one
    /// that is stuck must not keep the whole cut log. Without a live member nothing counts as applied.
    pub(super) fn applied_by_live(
        &self,
        last: EntryNo,
        complete: EntryNo,
        silent: impl Fn(Option<Time>) -> bool,
    ) -> EntryNo {
        let live = self
            .everyone()
            .filter(|member| {
                if self.quorum < self.members.len() {
                    !silent(member.progress_at)
                } else {
                    member.conn.is_some() || !silent(member.reported_at)
                }
            })
            .map(|member| member.applied);
        let applied = if K::mutant(Mutant::DropAtFastest) {
            live.max()
        } else {
            live.min()
        }
        .unwrap_or(EntryNo::ZERO);
        if applied >= last { complete } else { applied }
    }

    /// The entry up to which as many members as an ack takes have applied what touches the shard, live or not; `None` when
    /// they have applied everything. Of what follows, one bad device could take back all that is known.
    pub(super) fn applied_by_quorum(&self, last: EntryNo) -> Option<EntryNo> {
        let mut applied = [EntryNo::ZERO; SEGMENTS_PER_SHARD_MAX];
        for (applied, member) in applied.iter_mut().zip(&self.members) {
            *applied = member.applied;
        }
        applied[..self.members.len()].sort_unstable_by(|a, b| b.cmp(a));
        Some(applied[self.quorum - 1]).filter(|applied| *applied < last)
    }

    /// Whether the quorum holds every length of the edge's start (ORDERING.md, LEAF, `whole`).
    fn is_whole(&self) -> bool {
        (0..self.members.len())
            .all(|segment| self.held_by_both(segment) >= self.start_lens[segment])
    }

    /// A bit per member that holds every length of the edge's start.
    fn held(&self) -> u8 {
        let count = self.members.len();
        self.bits(|member| {
            let mut lens = member.lens[..count].iter().zip(&self.start_lens);
            member.reported_at.is_some()
                && !member.regressed
                && lens.all(|(len, start)| len >= start)
        })
    }

    /// A bit per slot, of the new member where one is coming.
    fn bits(&self, which: impl Fn(&MemberSlot) -> bool) -> u8 {
        let members = self.members.iter().enumerate();
        members.fold(0, |bits, (slot, member)| {
            let newest = self.incoming(slot).unwrap_or(member);
            bits | u8::from(which(newest)) << slot
        })
    }

    fn regressed(&self) -> u8 {
        self.bits(|member| member.regressed)
    }

    /// Whether the controller is to be told: something changed, or `every` has passed.
    pub(super) fn status_due(&self, now: Time, every: Nanos) -> bool {
        self.told.is_none_or(|(at, whole, ready, regressed, held)| {
            let same =
                whole == self.is_whole() && ready == self.ready && regressed == self.regressed();
            now >= at.after(every) || !same || held != self.held()
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
        let (whole, regressed, held) = (self.is_whole(), self.regressed(), self.held());
        self.told = Some((now, whole, self.ready, regressed, held));
        let status = ShardStatus {
            log,
            shard: self.shard,
            epoch: self.epoch,
            whole,
            ready: self.ready,
            regressed,
            held,
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
            whole: self.is_whole(),
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

    const LAST: EntryNo = EntryNo::new(50);

    fn member(applied: u64, conn: Option<u32>, reported_at: Option<Time>) -> MemberSlot {
        MemberSlot {
            conn: conn.map(ConnId::new),
            seat: None,
            node: NodeId::new(1),
            inc: Inc::new(1),
            domain: 0,
            seq: 1,
            lens: [NONE; SEGMENTS_PER_SHARD_MAX],
            regressed: false,
            applied: EntryNo::new(applied),
            reported_at,
            progress_at: reported_at,
        }
    }

    fn shard(members: Vec<MemberSlot>) -> Shard {
        Shard {
            shard: ShardId::new(0),
            epoch: ViewId::new(1),
            first_segment: 0,
            members,
            incoming: Vec::new(),
            ready: false,
            dirty: false,
            in_table: false,
            class: Durability::D1,
            quorum: 2,
            generations: [ViewId::new(1); SEGMENTS_PER_SHARD_MAX],
            start_lens: [NONE; SEGMENTS_PER_SHARD_MAX],
            told: None,
            knobs: PhantomData,
        }
    }

    /// A replica that stayed away kept the whole cut log, and at last every shard stood still.
    #[test]
    fn a_member_that_is_gone_for_long_keeps_no_entries() {
        let (complete, at) = (EntryNo::new(90), Some(Time::from_ns(7)));
        let applied = |members, silent: bool| {
            let found = shard(members).applied_by_live(LAST, complete, |reported| {
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
            shard.applied_by_quorum(LAST).map(EntryNo::get)
        };
        assert_eq!(known(vec![here, away], 2), Some(20));
        assert_eq!(known(vec![here, member(0, None, None)], 2), Some(0));
        assert_eq!(known(vec![here, here], 2), None, "nothing is missing");
        assert_eq!(known(vec![away, here, here], 2), None, "two have all of it");
        assert_eq!(known(vec![away, away, here], 2), Some(20));
    }

    /// Replicas in the domains a, a and b: two of a are enough for a quorum, and not for D2.
    #[test]
    fn a_length_is_what_enough_members_hold_and_at_d2_two_domains() {
        let length = |lens: [u64; 3], quorum, class| {
            let members = (0u32..).zip(lens).map(|(slot, len)| MemberSlot {
                lens: [Lsn::new(len); SEGMENTS_PER_SHARD_MAX],
                domain: slot / 2,
                ..member(0, None, None)
            });
            let mut shard = shard(members.collect());
            (shard.quorum, shard.class) = (quorum, class);
            shard.length(0, NONE).get()
        };
        let (d1, d2) = (Durability::D1, Durability::D2);
        assert_eq!(length([9, 7, 3], 3, d1), 3);
        assert_eq!(length([9, 7, 3], 2, d1), 7);
        assert_eq!(length([9, 7, 3], 2, d2), 3, "b has no more");
        assert_eq!(length([3, 7, 9], 2, d2), 7);
        assert_eq!(length([0, 7, 9], 2, d2), 7, "one may be away");
    }

    /// The shard goes on without it, and would wait for it for ever.
    #[test]
    fn a_member_that_is_stuck_keeps_no_entries_where_others_are_enough() {
        let (now, gone) = (Time::from_ns(9_000_000), Nanos::from_ms(5));
        let at = |ns| Some(Time::from_ns(ns));
        let stuck = MemberSlot {
            progress_at: at(1),
            ..member(20, Some(2), at(9_000_000))
        };
        let here = member(50, Some(1), at(9_000_000));
        let silent = |reported: Option<Time>| now.since(reported.unwrap()) >= gone;
        let applied = |quorum| {
            let mut shard = shard(vec![here, here, stuck]);
            shard.quorum = quorum;
            shard.applied_by_live(LAST, EntryNo::new(90), silent).get()
        };
        assert_eq!((applied(3), applied(2)), (20, 90));
    }

    /// Of {P, Q, S} a record is on P and S. Without a joint epoch N took the place of S, and P was the only one left that had
    /// the record: one fault more, and it was gone.
    #[test]
    fn a_new_set_is_ready_when_enough_of_it_hold_what_was_counted() {
        let holds = |len: u64| MemberSlot {
            lens: [Lsn::new(len); SEGMENTS_PER_SHARD_MAX],
            ..member(0, None, None)
        };
        let (p, q, s) = (holds(9), holds(4), holds(9));
        let of_new = |q: MemberSlot, n: u64| {
            let mut shard = shard(vec![p, q, s]);
            shard.incoming = vec![(2, holds(n))];
            shard.note_ready(|_| Lsn::new(9));
            (shard.length(0, NONE).get(), shard.ready)
        };
        assert_eq!(shard(vec![p, q, s]).length(0, NONE).get(), 9);
        assert_eq!(of_new(q, 0), (4, false), "P alone has the rest");
        assert_eq!(of_new(q, 8), (8, false));
        assert_eq!(of_new(q, 9), (9, true));
        assert_eq!(of_new(holds(9), 0), (9, true), "P and Q are enough");
        let mut shard = shard(vec![p, holds(0), s]);
        shard.generations[1] = ViewId::ZERO;
        shard.start_lens[1] = Lsn::new(3);
        assert_eq!(shard.length(1, NONE).get(), 3, "nobody writes it");
    }
}
