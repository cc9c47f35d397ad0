//! Applying the entries that touch the shard, strictly in the order of its chain: cuts give positions, views change
//! generations, losses become gaps for ever.
//!
//! Each applied entry is journaled (flushed classes); it counts in reports once the journal is durable.

use alloc::vec::Vec;

use ionian_store::{Store, StoreError};
use ionian_types::{
    EntryNo, Gsn, GsnRange, Knobs, Lsn, Mutant, SEGMENTS_PER_SHARD_MAX, Slot, Time, ViewId,
};
use ionian_wire::entry::{Change, EntryBody, EntryView, Row};
use ionian_wire::frame::{DownShard, SyncShard};
use ionian_wire::{Reader, Writer};

use super::Replica;
use crate::cutlog::ShardState;

/// Journal record kinds.
pub(super) const JOURNAL_CUT: u8 = 1;
pub(super) const JOURNAL_ENTRY: u8 = 2;
pub(super) const JOURNAL_SNAPSHOT: u8 = 3;
pub(super) const JOURNAL_ADOPTION: u8 = 4;

/// A cut as far as it concerns this shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShardCut {
    pub(super) entry: EntryNo,
    pub(super) base: Gsn,
    pub(super) end_gsn: Gsn,
    pub(super) lens: [Lsn; SEGMENTS_PER_SHARD_MAX],
}

impl<K: Knobs> Replica<K> {
    /// ORDERING.md, REPLICA, DownShard: a faster form of a cut entry, with the same checks.
    pub(super) fn on_down(&mut self, now: Time, down: &DownShard, tail: &[u8]) {
        let Some(state) = &self.state else {
            self.catchup.entries_soon();
            return;
        };
        if down.shard != self.config.shard || down.entry <= self.applied || self.is_adopting() {
            return;
        }
        let follows = down.prev_entry == self.applied || K::mutant(Mutant::IgnoreChainGap);
        if !follows || down.epoch != state.epoch {
            self.counters.chain_gaps += 1;
            self.catchup.entries_soon();
            return;
        }
        let mut cut = ShardCut {
            entry: down.entry,
            base: down.base,
            end_gsn: down.end_gsn,
            lens: self.lens(),
        };
        let mut reader = Reader::new(tail);
        let mut end = Some(down.base);
        for (slot, segment) in state.segments.iter().enumerate() {
            let (Ok(generation), Ok(len)) = (reader.field::<ViewId>(), reader.field::<Lsn>())
            else {
                self.counters.unexpected += 1;
                return;
            };
            if len == segment.len {
                continue;
            }
            if generation != segment.generation || len < segment.len {
                self.counters.contradictions += 1;
                self.catchup.entries_soon();
                return;
            }
            end = end.and_then(|end| end.checked_add(len.get() - segment.len.get()));
            cut.lens[slot] = len;
        }
        // What the shard got lies within the whole cut.
        let fits = end.is_some_and(|end| end <= down.end_gsn);
        if !fits && !K::mutant(Mutant::IgnoreChainGap) {
            self.counters.contradictions += 1;
            self.catchup.entries_soon();
            return;
        }
        self.apply_cut(now, &cut);
    }

    /// ORDERING.md, REPLICA, SyncShard.
    pub(super) fn on_sync(&mut self, sync: &SyncShard) {
        if sync.shard != self.config.shard {
            return;
        }
        self.catchup.heard();
        let behind = sync.last > self.applied && !K::mutant(Mutant::SilenceAsNothing);
        if behind || self.state.is_none() {
            self.catchup.entries_soon();
            return;
        }
        if sync.last >= self.applied && sync.complete >= self.complete {
            self.complete_through(sync.complete, sync.end_gsn, sync.trim);
        }
    }

    /// The entries of the shard are known through `complete`.
    pub(super) fn complete_through(&mut self, complete: EntryNo, end_gsn: Gsn, trim: Gsn) {
        self.complete = self.complete.max(complete);
        self.end_gsn = self.end_gsn.max(end_gsn);
        self.trim = self.trim.max(trim);
        self.carry_out_trim();
    }

    /// A trim takes effect once every entry below it is applied.
    fn carry_out_trim(&mut self) {
        if self.trim <= self.head || self.trim > self.end_gsn {
            return;
        }
        if K::mutant(Mutant::TrimOneTooMany) {
            self.trim = self.trim.next().unwrap_or(self.trim).min(self.end_gsn);
        }
        let lens = self.index.lens_at(self.trim);
        for (slot, len) in lens
            .iter()
            .enumerate()
            .take(usize::from(self.config.replicas))
        {
            let slot = Slot::new(slot as u8);
            let upto = (*len).min(self.committed(slot));
            self.trim_segment(slot, upto);
        }
        self.index.drop_before(self.trim);
        self.head = self.trim;
        let head = self.head;
        self.losses.retain(|loss| loss.to > head);
    }

    /// Removes a trimmed prefix of a segment. A replica that did not hold all of it steps over the rest: its peer streams on
    /// from there, and fates of records that were never seen here are not promised.
    pub(super) fn trim_segment(&mut self, slot: Slot, upto: Lsn) {
        if upto > self.store.len(slot) {
            self.dedup_from[slot.index()] = upto;
            self.peers[slot.index()].have_due = true;
        }
        self.store.trim(slot, upto);
    }

    /// Applies a cut whose lengths were checked. Whether it was taken: a full journal takes nothing.
    pub(super) fn apply_cut(&mut self, now: Time, cut: &ShardCut) -> bool {
        if cut.base < self.index.end().1 {
            self.counters.contradictions += 1;
            return false;
        }
        if !self.journal_cut(cut) {
            return false;
        }
        self.adopt_cut(cut);
        let own = self.config.slot;
        if self.last_own_run.is_some_and(|run| run.entry == cut.entry) {
            self.covered(self.committed(own), now);
        }
        true
    }

    /// The state changes of a cut, for applying and for restoring.
    pub(super) fn adopt_cut(&mut self, cut: &ShardCut) {
        let replicas = usize::from(self.config.replicas);
        let own = self.config.slot.index();
        let Some(state) = &mut self.state else { return };
        let before = state.segments[own].len;
        let mut gsn = cut.base.get();
        for (slot, segment) in state.segments.iter_mut().enumerate() {
            let grown = cut.lens[slot].get() - segment.len.get();
            if slot == own && grown > 0 {
                self.last_own_run = Some(crate::index::Run {
                    slot: self.config.slot,
                    position: before,
                    gsn: if K::mutant(Mutant::PositionsFromBase) {
                        cut.base
                    } else {
                        Gsn::new(gsn)
                    },
                    count: grown,
                    entry: cut.entry,
                });
            }
            gsn += grown;
            segment.len = cut.lens[slot];
        }
        state.last = cut.entry;
        self.index.push(cut.entry, cut.base, &cut.lens[..replicas]);
        self.applied = cut.entry;
        self.complete = self.complete.max(cut.entry);
        self.end_gsn = self.end_gsn.max(cut.end_gsn);
        self.counters.cuts += 1;
    }

    /// Applies what the cut log says of a cut: the same checks as for a [`DownShard`]. Whether it was taken.
    pub(super) fn apply_row(&mut self, now: Time, row: &Row<'_>) -> bool {
        let mut lens = self.lens();
        let Some(state) = &self.state else {
            return false;
        };
        for item in row.items() {
            let follows = state.open
                && state
                    .segments
                    .get(item.slot.index())
                    .is_some_and(|it| (it.generation, it.len) == (item.generation, item.prev_len));
            if !follows {
                self.counters.contradictions += 1;
                return false;
            }
            lens[item.slot.index()] = item.new_len;
        }
        let cut = ShardCut {
            entry: row.entry,
            base: row.base,
            end_gsn: row.end_gsn,
            lens,
        };
        self.apply_cut(now, &cut)
    }

    /// Applies a whole entry from the cut log. Whether it was taken.
    pub(super) fn apply_entry(&mut self, now: Time, entry: &EntryView<'_>) -> bool {
        match entry.body {
            EntryBody::View(_) | EntryBody::Loss(_) => {
                if !self.journal_entry(entry) {
                    return false;
                }
                self.adopt_entry(now, entry)
            }
            EntryBody::Cut(_)
            | EntryBody::RootEpoch(_)
            | EntryBody::Trim { .. }
            | EntryBody::Ceiling { .. } => false,
        }
    }

    /// The state changes of a view or loss, for applying and for restoring.
    pub(super) fn adopt_entry(&mut self, now: Time, entry: &EntryView<'_>) -> bool {
        let number = entry.header.entry;
        match entry.body {
            EntryBody::View(view) => {
                let shard = self.config.shard;
                for change in view
                    .changes()
                    .filter(|change| change.shard() == Some(shard))
                {
                    if !self.adopt_change(&change, view.view, number) {
                        self.counters.contradictions += 1;
                        return false;
                    }
                }
                self.view_entered(now);
            }
            EntryBody::Loss(loss) => {
                self.losses.push(GsnRange {
                    from: loss.from,
                    to: loss.to,
                });
                normalize(&mut self.losses);
                self.end_gsn = self.end_gsn.max(loss.end_gsn);
            }
            _ => return false,
        }
        self.applied = number;
        self.complete = self.complete.max(number);
        true
    }

    fn adopt_change(&mut self, change: &Change<'_>, view: ViewId, entry: EntryNo) -> bool {
        match (change, &mut self.state) {
            (Change::Open { .. }, state) => {
                let Some(opened) = ShardState::opened(change, view, entry) else {
                    return false;
                };
                if opened.segments.len() != usize::from(self.config.replicas) {
                    return false;
                }
                let reset = state.is_some();
                if reset && self.store.config().class.is_flushed() {
                    return false;
                }
                *state = Some(opened);
                if reset {
                    self.start_anew();
                }
                true
            }
            (_, Some(state)) => {
                if let Change::Finalize {
                    lost_from: Some(from),
                    ..
                } = change
                {
                    Self::lose_runs(&self.index, *from, &mut self.losses);
                }
                state.apply_change(change, view, entry).is_ok()
            }
            (_, None) => false,
        }
    }

    /// Declares every record of the shard from `from` on lost: exactly its own runs, since the positions between belong to
    /// other shards.
    fn lose_runs(index: &crate::index::RunIndex, from: Gsn, losses: &mut Vec<GsnRange>) {
        let mut next = from;
        while let Some(run) = index.at_or_after(next) {
            let lost = GsnRange {
                from: run.gsn.max(next),
                to: run.end_gsn(),
            };
            match losses.last_mut() {
                Some(last) if last.to == lost.from => last.to = lost.to,
                _ => losses.push(lost),
            }
            next = lost.to;
        }
        normalize(losses);
    }

    /// Whether the shard was opened anew between what is applied here and `then`: only at D0, after a declared loss.
    pub(super) fn is_opened_anew(&self, then: &ShardState) -> bool {
        let now = self.state.as_ref();
        now.is_some_and(|now| now.opened_in() != then.opened_in())
    }

    /// The shard was opened anew after a declared loss: nothing of it is left.
    pub(super) fn start_anew(&mut self) {
        self.store = Store::new(*self.store.config());
        for dedup in &mut self.dedup {
            dedup.clear();
        }
        self.dedup_from = [Lsn::ZERO; SEGMENTS_PER_SHARD_MAX];
        self.dedup_upto = [Lsn::ZERO; SEGMENTS_PER_SHARD_MAX];
        self.tail_generation = [ViewId::ZERO; SEGMENTS_PER_SHARD_MAX];
        self.waiters.clear();
        self.ack_ready.clear();
        self.last_own_run = None;
        if !K::mutant(Mutant::KeepIndexAfterLoss) {
            self.index.reset(&[]);
        }
    }

    /// Keeps, per segment, the longest prefix whose records' generations own their positions, and tells everyone.
    pub(super) fn view_entered(&mut self, now: Time) {
        let own = self.config.slot;
        let Some(state) = &self.state else { return };
        let mut truncate: [Option<Lsn>; SEGMENTS_PER_SHARD_MAX] = [None; SEGMENTS_PER_SHARD_MAX];
        for (slot, segment) in state.segments.iter().enumerate() {
            let index = Slot::new(slot as u8);
            // Generations follow each other in the order of positions. If the last record held is of the generation closed
            // last, or an older one, then what lies at and above the close is void; if it is of a later one (replaying the
            // journal), nothing is.
            let Some(closed) = segment.closed.last() else {
                continue;
            };
            let held = self.store.len(index);
            // A trim may have stepped over records that were never held here: then there is nothing to judge.
            let judged_from = segment.opened_at.max(self.store.first(index));
            let keeps = K::mutant(Mutant::KeepVoidTail) || self.catchup.views_follow;
            if !keeps && held > judged_from && self.tail_generation[slot] <= closed.generation {
                truncate[slot] = Some(segment.opened_at);
            }
        }
        for (slot, len) in truncate.iter().enumerate() {
            if let Some(len) = len {
                let slot = Slot::new(slot as u8);
                self.store.truncate(slot, *len);
                self.unsee(slot, *len);
            }
        }
        if truncate[own.index()].is_some() {
            // What was void is answered as `closed` when its clients ask or append again; their fates are `never`.
            let committed = self.committed(own);
            self.waiters.retain(|waiter| waiter.position < committed);
        }
        self.tell_owners();
        self.last_own_run = None;
        self.progress_at = now;
        for peer in &mut self.peers {
            peer.have_due = true;
        }
        self.report_at = Time::ZERO;
        self.catchup.copy_soon();
        self.counters.views += 1;
    }

    pub(super) fn lens(&self) -> [Lsn; SEGMENTS_PER_SHARD_MAX] {
        let mut lens = [Lsn::ZERO; SEGMENTS_PER_SHARD_MAX];
        if let Some(state) = &self.state {
            for (slot, segment) in state.segments.iter().enumerate() {
                lens[slot] = segment.len;
            }
        }
        lens
    }

    fn journal_cut(&mut self, cut: &ShardCut) -> bool {
        if !self.store.config().class.is_flushed() {
            self.applied_durable = cut.entry;
            return true;
        }
        let replicas = usize::from(self.config.replicas);
        let mut bytes = [0u8; 32 + SEGMENTS_PER_SHARD_MAX * 8];
        let mut writer = Writer::new(&mut bytes);
        let written = (|| {
            writer.field(JOURNAL_CUT)?;
            writer.field(cut.entry)?;
            writer.field(cut.base)?;
            writer.field(cut.end_gsn)?;
            cut.lens[..replicas]
                .iter()
                .try_for_each(|len| writer.field(*len))
        })();
        let len = writer.len();
        written.is_ok() && self.journal(&bytes[..len], cut.entry)
    }

    fn journal_entry(&mut self, entry: &EntryView<'_>) -> bool {
        if !self.store.config().class.is_flushed() {
            self.applied_durable = entry.header.entry;
            return true;
        }
        let mut bytes = core::mem::take(&mut self.scratch);
        bytes.clear();
        bytes.push(JOURNAL_ENTRY);
        bytes.extend_from_slice(entry.encoded());
        let taken = self.journal(&bytes, entry.header.entry);
        self.scratch = bytes;
        taken
    }

    /// Journals one applied entry; it counts as durably applied once the journal is. Nobody waits for that but the root,
    /// which keeps its log until then: so many entries go out together.
    pub(super) fn journal(&mut self, bytes: &[u8], entry: EntryNo) -> bool {
        match self.store.journal_append_lazily(bytes) {
            Ok(number) => {
                if K::mutant(Mutant::AppliedBeforeDurable) {
                    self.applied_durable = entry;
                }
                self.journaled.push_back((number, entry));
                true
            }
            Err(_) => {
                self.counters.journal_full += 1;
                self.catchup.entries_soon();
                false
            }
        }
    }

    /// Learns what the journal has made durable, has it written when it has waited long enough, and starts a checkpoint
    /// when it has grown.
    pub(super) fn settle_journal(&mut self, now: Time) {
        let durable = self.store.journal_durable();
        while let Some((number, entry)) = self.journaled.front().copied() {
            if number > durable {
                break;
            }
            self.applied_durable = entry;
            self.journaled.pop_front();
        }
        if self.journaled.is_empty() {
            self.journal_urged_at = None;
        } else {
            let since = *self.journal_urged_at.get_or_insert(now);
            let many = self.journaled.len() >= self.journaled.capacity() / 2;
            if many || now >= since.after(self.config.timing.journal) {
                self.store.journal_urge();
                self.journal_urged_at = Some(now);
            }
        }
        let grown = self.store.journal_last().saturating_sub(self.checkpoint_at);
        let long = grown >= self.config.checkpoint_every
            || grown > 0 && self.store.journal_is_long() && !self.store.checkpoint_pending();
        if self.store.config().class.is_flushed() && !self.is_adopting() && long {
            self.start_checkpoint();
        }
    }

    /// A checkpoint: everything that the journal says, in one piece.
    fn start_checkpoint(&mut self) {
        let upto = self.store.journal_last();
        let mut bytes: Vec<u8> = core::mem::take(&mut self.checkpoint);
        self.encode_checkpoint(&mut bytes);
        match self.store.journal_checkpoint(upto, &bytes) {
            Ok(()) => {
                self.checkpoint_at = upto;
                self.counters.checkpoints += 1;
            }
            // It will not be smaller soon: not again before the journal has grown.
            Err(StoreError::TooLarge) => {
                self.checkpoint_at = upto;
                self.counters.states_too_large += 1;
            }
            Err(_) => {}
        }
        self.checkpoint = bytes;
    }
}

/// Sorted, and without overlaps: each life of a root that lost its cut log declares everything before it lost once more.
fn normalize(losses: &mut Vec<GsnRange>) {
    losses.sort_unstable_by_key(|loss| loss.from);
    losses.dedup_by(|next, kept| {
        let joins = next.from <= kept.to;
        if joins {
            kept.to = kept.to.max(next.to);
        }
        joins
    });
}

impl<K: Knobs> Replica<K> {
    /// The declared loss that holds a position.
    pub(super) fn loss_at(&self, gsn: Gsn) -> Option<GsnRange> {
        let at = self
            .losses
            .partition_point(|loss| loss.from <= gsn)
            .checked_sub(1)?;
        Some(self.losses[at]).filter(|loss| loss.contains(gsn))
    }
}
