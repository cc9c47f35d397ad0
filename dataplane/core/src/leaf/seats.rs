//! Reports that servers write into slots of a table that the leaf scans, instead of sending them (ORDERING.md, LEAF: slots).
//!
//! What a report is checked against stands in a *seat* per slot, close together, and its lengths go straight into the leaf's
//! table: at the rates that this is for, a shard's own memory would miss the cache for each report. What else the leaf knows of
//! members follows now and then ([`Leaf::settle_seats`]).

use ionian_slots::{Advance, Collected, SlotReader, SlotReport};
use ionian_types::{
    EntryNo, Inc, Knobs, Lsn, Mutant, SEGMENTS_PER_SHARD_MAX, ShardId, Slot, Time, ViewId,
};
use ionian_wire::Writer;
use ionian_wire::frame::Report;

use super::{Leaf, shard};

/// The shards of a leaf are fewer.
const NOWHERE: u32 = u32::MAX;

/// Whose reports a slot has, and the newest of them that counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    shard: ShardId,
    member: Slot,
    /// The shard's place at this leaf, if its lengths come from the table.
    at: u32,
    epoch: ViewId,
    inc: Inc,
    seq: u64,
    applied: EntryNo,
    reported_at: Time,
    /// Whether a report counted that the member does not show yet.
    fresh: bool,
}

impl<K: Knobs> Leaf<K> {
    /// From now on the reports in a slot are those of this member. A slot that nobody was given is not looked at.
    ///
    /// Give the slots of a shard's members one after the other, and those of all shards in the order of their numbers: then a
    /// scan and the leaf's table run in step.
    pub fn seat(&mut self, slot: usize, shard: ShardId, member: Slot) {
        let empty = Seat {
            shard,
            member,
            at: NOWHERE,
            epoch: ViewId::ZERO,
            inc: Inc::ZERO,
            seq: 0,
            applied: EntryNo::ZERO,
            reported_at: Time::ZERO,
            fresh: false,
        };
        if slot >= self.seats.len() {
            self.seats.resize(slot + 1, None);
        }
        self.settle_seat(slot);
        self.seats[slot] = Some(empty);
        // There may be thousands of them to come.
        self.unprepared = true;
    }

    /// Takes what is new in the slots. Never waits, and allocates nothing.
    pub fn scan(&mut self, now: Time, reader: &mut SlotReader) -> Collected {
        if core::mem::take(&mut self.unprepared) {
            self.settle_seats();
            self.prepare_seats();
        }
        if core::mem::take(&mut self.rescan) {
            // What did not count on the last edge may count on this one.
            reader.forget_all();
        }
        reader.collect(0..self.seats.len(), |slot, report| {
            self.take_slot(now, slot, report);
        })
    }

    #[inline]
    fn take_slot(&mut self, now: Time, slot: usize, report: &SlotReport<'_>) {
        let Some(Some(seat)) = self.seats.get_mut(slot) else {
            return;
        };
        let ours = (report.epoch == seat.epoch || K::mutant(Mutant::AcceptOldEpoch))
            && report.inc == seat.inc;
        if ours && report.seq == seat.seq {
            // Read before.
            return;
        }
        let counts = ours && report.seq > seat.seq;
        if let Some(table) = self.table.as_mut().filter(|_| counts && seat.at != NOWHERE) {
            let advance = table.advance(seat.at as usize, seat.member.index(), report.lens);
            if advance != Advance::Regressed {
                self.counters.reports += 1;
                seat.seq = report.seq;
                seat.applied = seat.applied.max(report.applied);
                seat.reported_at = now;
                seat.fresh = true;
                return;
            }
        }
        self.take_apart(now, slot, report);
    }

    /// A report that does not count at once: of a shard that is not in the table, of another epoch or life, or with lengths that
    /// fell.
    #[cold]
    fn take_apart(&mut self, now: Time, slot: usize, report: &SlotReport<'_>) {
        self.settle_seat(slot);
        let Some(Some(seat)) = self.seats.get(slot).copied() else {
            return;
        };
        let mut tail = [0; 8 * SEGMENTS_PER_SHARD_MAX];
        let mut writer = Writer::new(&mut tail);
        for len in report.lens.iter().take(SEGMENTS_PER_SHARD_MAX) {
            // There is room for as many as a shard has.
            let _ = writer.field(Lsn::new(*len));
        }
        let len = writer.len();
        let body = Report {
            shard: seat.shard,
            epoch: report.epoch,
            inc: report.inc,
            seq: report.seq,
            applied: report.applied,
            segments: report.lens.len() as u8,
        };
        self.on_report(
            now,
            seat.shard,
            seat.member,
            report.inc,
            &body,
            &tail[..len],
        );
    }

    /// Makes members show what was read of them.
    pub(super) fn settle_seats(&mut self) {
        for slot in 0..self.seats.len() {
            self.settle_seat(slot);
        }
    }

    /// The same for those of one shard, by its place here.
    pub(super) fn settle_members(&mut self, at: usize) {
        for member in 0..self.shards[at].members.len() {
            let known = self.shards[at].known(member);
            if let Some(seat) = known.and_then(|member| member.seat) {
                self.settle_seat(seat as usize);
            }
        }
    }

    fn settle_seat(&mut self, slot: usize) {
        let Some(Some(seat)) = self
            .seats
            .get_mut(slot)
            .filter(|seat| seat.is_some_and(|it| it.fresh))
        else {
            return;
        };
        seat.fresh = false;
        let (Some(shard), Some(table)) = (self.shards.get_mut(seat.at as usize), &self.table)
        else {
            return;
        };
        let member = seat.member.index();
        let mut lens = [Lsn::ZERO; SEGMENTS_PER_SHARD_MAX];
        for (segment, len) in lens.iter_mut().take(table.replicas()).enumerate() {
            *len = Lsn::new(table.held(seat.at as usize, member, segment));
        }
        let read = shard::Read {
            seq: seat.seq,
            applied: seat.applied,
            at: seat.reported_at,
        };
        let last = self.downs.last(seat.at as usize);
        shard.settle(member, last, &read, lens);
    }

    /// An edge has started, or slots were given: seats are of the shards and epochs that there are now.
    pub(super) fn prepare_seats(&mut self) {
        for (slot, seat) in self.seats.iter_mut().enumerate() {
            let Some(seat) = seat else { continue };
            let at = self.by_id.get(&seat.shard).copied();
            let shard = at.and_then(|at| self.shards.get_mut(at));
            if let Some(shard) = shard {
                shard.set_seat(seat.member.index(), slot as u32);
            }
            let shard = at.and_then(|at| self.shards.get(at));
            let known = shard.and_then(|shard| shard.known(seat.member.index()));
            let (Some(at), Some(shard), Some(known)) = (at, shard, known) else {
                seat.at = NOWHERE;
                continue;
            };
            seat.at = if shard.in_table && !known.regressed {
                at as u32
            } else {
                NOWHERE
            };
            seat.epoch = shard.epoch;
            seat.inc = known.inc;
            seat.seq = known.seq;
            seat.applied = known.applied;
        }
        self.downs.members_changed();
        self.rescan = true;
    }
}
