//! What was missed: entries come from the cut log, committed records from a peer that has entered the same epoch.

use ionian_store::Fetch;
use ionian_types::{
    ConnId, Knobs, Lsn, Mutant, Nanos, SEGMENTS_PER_SHARD_MAX, SegmentId, Slot, Time,
};
use ionian_wire::entry::{EntryBody, ShardEntry};
use ionian_wire::frame::{Backfill, CopyData, CopyRequest, Entries, ShardSnapshot};
use ionian_wire::{Reader, Writer};

use super::Replica;
use super::apply::JOURNAL_SNAPSHOT;
use crate::cutlog::ShardState;
use crate::outbox::Outbox;

/// Below this much room a copy is not worth sending.
const COPY_ROOM_MIN: usize = 4096;

/// Requests under way.
#[derive(Debug)]
pub(super) struct CatchUp {
    entries_wanted: bool,
    entries_asked_at: Option<Time>,
    copies_wanted: bool,
    copy_asked_at: [Option<Time>; SEGMENTS_PER_SHARD_MAX],
    /// Per segment, the peer that is asked next: one that has not what is missing must not be asked again and again.
    next_peer: [usize; SEGMENTS_PER_SHARD_MAX],
    /// Per segment of which committed records are missing: the length held, and since when it is that.
    lags: [Option<(Lsn, Time)>; SEGMENTS_PER_SHARD_MAX],
    /// When the leaf last spoke of the shard, or the cut log was asked since.
    heard_at: Time,
    now: Time,
    /// A deliberate bug looks ahead: the message with the entry that is being applied has another view behind it.
    pub(super) views_follow: bool,
}

impl CatchUp {
    pub(super) fn new(now: Time) -> Self {
        Self {
            entries_wanted: true,
            entries_asked_at: None,
            copies_wanted: false,
            copy_asked_at: [None; SEGMENTS_PER_SHARD_MAX],
            next_peer: [0; SEGMENTS_PER_SHARD_MAX],
            lags: [None; SEGMENTS_PER_SHARD_MAX],
            heard_at: now,
            now,
            views_follow: false,
        }
    }

    /// The leaf has said how far the order is.
    pub(super) fn heard(&mut self) {
        self.heard_at = self.now;
    }

    /// When the cut log is to be asked, if the leaf says nothing until then.
    pub(super) fn quiet_until(&self, quiet: Nanos) -> Time {
        self.heard_at.after(quiet)
    }

    pub(super) fn entries_soon(&mut self) {
        self.entries_wanted = true;
    }

    /// The cut log has nothing that helps now.
    pub(super) fn entries_later(&mut self, now: Time) {
        self.entries_wanted = true;
        self.entries_asked_at = Some(now);
    }

    pub(super) fn copy_soon(&mut self) {
        self.copies_wanted = true;
    }

    pub(super) fn deadline(&self, retry: Nanos) -> Time {
        let lags = self.lags.iter().any(Option::is_some);
        if self.entries_wanted || self.copies_wanted || lags {
            self.now.after(retry)
        } else {
            Time::FAR
        }
    }
}

/// Whether any of the entries that a reader stands before is a view.
fn views_follow(entries: &Reader<'_>) -> bool {
    let mut reader = *entries;
    core::iter::from_fn(|| ShardEntry::read(&mut reader).ok()).any(|told| match told {
        ShardEntry::Entry(entry) => matches!(entry.body, EntryBody::View(_)),
        ShardEntry::Cut(_) => false,
    })
}

impl<K: Knobs> Replica<K> {
    pub(super) fn flush_catchup(&mut self, now: Time, out: &mut Outbox) {
        self.catchup.now = now;
        let retry = self.config.timing.retry;
        if !self.waiters.is_empty() && now >= self.progress_at.after(self.config.timing.gap) {
            self.progress_at = now;
            self.catchup.entries_soon();
        }
        if now >= self.catchup.quiet_until(self.config.timing.quiet) {
            self.catchup.heard();
            self.catchup.entries_soon();
        }
        if self.catchup.entries_wanted {
            let waiting = self
                .catchup
                .entries_asked_at
                .is_some_and(|at| now < at.after(retry));
            if let Some(root) = self.root.filter(|root| !waiting && out.room(*root) > 0) {
                let request = Backfill {
                    log: self.config.log,
                    shard: self.config.shard,
                    // What is known to touch nothing is not asked for again, or a long quiet part would never be passed.
                    after: self.complete.max(self.applied),
                };
                if out.send(root, &request, &[]).is_ok() {
                    self.catchup.entries_asked_at = Some(now);
                    self.counters.backfills += 1;
                }
            }
        }
        if self.adoption.is_some() {
            self.flush_adoption(now, out);
        }
        let behind = self.note_lags(now);
        // Damage shows when a chunk is read, for whomever it was read.
        if self.catchup.copies_wanted || behind || self.is_damaged() {
            self.flush_copies(now, out);
        }
    }

    /// Notes of which segments committed records are missing. Whether any must be copied: where every replica must hold a
    /// record that shows at certain events only, elsewhere others go on without this one at any time.
    fn note_lags(&mut self, now: Time) -> bool {
        let Some(state) = &self.state else {
            return false;
        };
        if usize::from(state.quorum) == state.segments.len() {
            return false;
        }
        let mut behind = false;
        for (slot, segment) in state.segments.iter().enumerate() {
            let index = Slot::new(slot as u8);
            let held = self.store.len(index);
            let lag = &mut self.catchup.lags[slot];
            if held >= segment.len {
                *lag = None;
            } else if lag.is_none_or(|(len, _)| len != held) {
                *lag = Some((held, now));
            }
            behind |= held < segment.len && self.must_copy(index);
        }
        behind
    }

    /// Whether committed records that are missing here are to be copied. Those that their writer is streaming come without
    /// that, while they do come.
    pub(super) fn must_copy(&self, slot: Slot) -> bool {
        let Some(state) = &self.state else {
            return false;
        };
        if usize::from(state.quorum) == state.segments.len() {
            return true;
        }
        let Some(segment) = state.segments.get(slot.index()) else {
            return false;
        };
        let peer = &self.peers[slot.index()];
        let streams = slot != self.config.slot
            && peer.conn.is_some()
            && peer.inc == segment.writer
            && self.store.len(slot) >= segment.opened_at;
        let stuck = self.catchup.lags[slot.index()]
            .is_some_and(|(_, since)| self.catchup.now >= since.after(self.config.timing.gap));
        !streams || stuck
    }

    /// Asks a peer for each segment of which committed records are missing or damaged.
    fn flush_copies(&mut self, now: Time, out: &mut Outbox) {
        let Some(state) = &self.state else { return };
        let epoch = state.epoch;
        let mut missing = false;
        for slot in 0..usize::from(self.config.replicas) {
            let index = Slot::new(slot as u8);
            let (held, committed) = (self.store.len(index), self.committed(index));
            let wanted = if held < committed && self.must_copy(index) {
                Some(CopyRequest {
                    segment: SegmentId {
                        shard: self.config.shard,
                        slot: index,
                    },
                    epoch,
                    from: held,
                    to: committed,
                })
            } else {
                self.repair_request(index)
            };
            let Some(request) = wanted else {
                self.catchup.copy_asked_at[slot] = None;
                continue;
            };
            missing = true;
            if self.catchup.copy_asked_at[slot]
                .is_some_and(|at| now < at.after(self.config.timing.retry))
            {
                continue;
            }
            let peers = usize::from(self.config.replicas);
            let start = self.catchup.next_peer[slot];
            let Some((peer, conn)) =
                (0..peers)
                    .map(|step| (start + step) % peers)
                    .find_map(|peer| {
                        self.peers[peer]
                            .conn
                            .filter(|conn| out.room(*conn) > 0)
                            .map(|conn| (peer, conn))
                    })
            else {
                continue;
            };
            if out.send(conn, &request, &[]).is_ok() {
                self.catchup.copy_asked_at[slot] = Some(now);
                self.catchup.next_peer[slot] = peer + 1;
                self.counters.copies += 1;
            }
        }
        self.catchup.copies_wanted = missing;
    }

    /// A peer misses committed records. The newest request of a segment counts.
    pub(super) fn on_copy_request(&mut self, peer: Slot, request: &CopyRequest) {
        let slot = request.segment.slot.index();
        if request.segment.shard == self.config.shard && slot < usize::from(self.config.replicas) {
            self.peers[peer.index()].copies[slot] = Some(*request);
        } else {
            self.counters.unexpected += 1;
        }
    }

    /// ORDERING.md: serve Copy only for the entered epoch, positions held, committed.
    pub(super) fn flush_copy_answers(&mut self, out: &mut Outbox) {
        for peer in 0..usize::from(self.config.replicas) {
            let Some(conn) = self.peers[peer].conn else {
                continue;
            };
            for slot in 0..usize::from(self.config.replicas) {
                let Some(request) = self.peers[peer].copies[slot] else {
                    continue;
                };
                if out.room(conn) < COPY_ROOM_MIN {
                    break;
                }
                if self.answer_copy(conn, &request, out) {
                    self.peers[peer].copies[slot] = None;
                }
            }
        }
    }

    fn answer_copy(&mut self, conn: ConnId, request: &CopyRequest, out: &mut Outbox) -> bool {
        let slot = request.segment.slot;
        let mut answer = CopyData {
            segment: request.segment,
            epoch: request.epoch,
            from: request.from,
            count: 0,
        };
        let outsider = K::mutant(Mutant::RefillFromOutsider);
        if request.epoch == self.epoch() && self.serves() || outsider {
            let committed = if outsider {
                request.to
            } else {
                self.committed(slot)
            };
            let to = request.to.min(committed).min(self.store.len(slot));
            if request.from < to {
                let bytes_max = self.config.run_bytes_max.min(out.room(conn));
                if let Fetch::Ready(run) = self.store.run(slot, request.from, to, bytes_max) {
                    answer.count = run.count;
                    return out.send_run(conn, &answer, run).is_ok();
                }
            }
        }
        out.send(conn, &answer, &[]).is_ok()
    }

    pub(super) fn on_copy_data(&mut self, now: Time, copy: &CopyData, records: &[u8]) {
        let slot = copy.segment.slot;
        let wanted = copy.segment.shard == self.config.shard
            && slot.index() < usize::from(self.config.replicas)
            && copy.epoch == self.epoch()
            && copy.count > 0
            && !self.is_adopting();
        if !wanted {
            return;
        }
        let held = self.store.len(slot);
        if copy.from < held
            && self
                .store
                .damaged(slot)
                .iter()
                .any(|range| range.from == copy.from)
        {
            if self.repair_run(copy, records) {
                self.catchup.copy_asked_at[slot.index()] = None;
            }
            self.catchup.copies_wanted = true;
            return;
        }
        let end = copy.from.get().saturating_add(u64::from(copy.count));
        if copy.from > held || end <= held.get() || end > self.committed(slot).get() {
            return;
        }
        let skip = held.get() - copy.from.get();
        if self.store_run(slot, copy.from, u64::from(copy.count), records, skip) {
            self.catchup.copy_asked_at[slot.index()] = None;
            self.catchup.copies_wanted = true;
            let len = self.store.len(slot);
            let opened_at = self.segment(slot).map_or(len, |segment| segment.opened_at);
            if len >= self.committed(slot) || held < opened_at && len >= opened_at {
                self.peers[slot.index()].have_due = true;
                self.progress_at = now;
            }
        }
    }

    /// What every entry in (`after`, `through`] says that touches the shard, and nothing else.
    pub(super) fn on_entries(&mut self, now: Time, body: &Entries, tail: &[u8]) {
        self.catchup.entries_asked_at = None;
        if self.is_adopting() {
            return;
        }
        if body.shard != self.config.shard || body.after > self.complete.max(self.applied) {
            return;
        }
        self.adoption = None;
        let mut reader = Reader::new(tail);
        for _ in 0..body.count {
            let Ok(told) = ShardEntry::read(&mut reader) else {
                return self.bad_entries();
            };
            if told.entry() <= self.applied || told.entry() > body.through {
                continue;
            }
            if K::mutant(Mutant::TruncateToNewestClose) {
                self.catchup.views_follow = views_follow(&reader);
            }
            let taken = match told {
                ShardEntry::Cut(row) => self.apply_row(now, &row),
                ShardEntry::Entry(entry) => {
                    entry.names(self.config.shard) && self.apply_entry(now, &entry)
                }
            };
            if !taken {
                return self.bad_entries();
            }
        }
        // More may follow: ask on until an answer brings nothing new.
        self.catchup.entries_wanted = body.through > self.complete || body.count > 0;
        self.complete_through(body.through, body.end_gsn, body.trim);
    }

    fn bad_entries(&mut self) {
        self.counters.contradictions += 1;
        self.catchup.entries_soon();
        // Ask again only after a while: what is wrong will not be right at once.
        self.catchup.entries_asked_at = Some(self.catchup.now);
    }

    /// The cut log dropped what was asked for. If everything up to the snapshot is trimmed, the snapshot takes its place;
    /// otherwise only a peer's index says where those records stand, and serving without it would deny records that exist.
    pub(super) fn on_snapshot(&mut self, now: Time, body: &ShardSnapshot, tail: &[u8]) {
        self.catchup.entries_asked_at = None;
        if body.shard != self.config.shard || body.entry <= self.complete || self.is_adopting() {
            return;
        }
        let mut reader = Reader::new(tail);
        let state = ShardState::read(&mut reader);
        let Some(state) = state.ok().filter(|state| {
            state.shard == self.config.shard
                && state.segments.len() == usize::from(self.config.replicas)
        }) else {
            return self.bad_entries();
        };
        if state.last <= self.applied {
            return;
        }
        if self.is_opened_anew(&state) && self.store.config().class.is_flushed() {
            return self.bad_entries();
        }
        if body.end_gsn > body.trim {
            return self.strand(now, body, state);
        }
        self.adoption = None;
        if self.store.config().class.is_flushed() {
            let mut bytes = core::mem::take(&mut self.scratch);
            bytes.clear();
            bytes.push(JOURNAL_SNAPSHOT);
            let mut head = [0u8; 24];
            let mut writer = Writer::new(&mut head);
            let written = writer
                .field(body.entry)
                .and(writer.field(body.end_gsn))
                .and(writer.field(body.trim));
            bytes.extend_from_slice(&head);
            bytes.extend_from_slice(tail);
            let taken = written.is_ok() && self.journal(&bytes, state.last);
            self.scratch = bytes;
            if !taken {
                return;
            }
        } else {
            self.applied_durable = state.last;
        }
        self.adopt_snapshot(state, body.entry, body.end_gsn, body.trim, now);
        self.catchup.entries_soon();
    }

    pub(super) fn adopt_snapshot(
        &mut self,
        state: ShardState,
        entry: ionian_types::EntryNo,
        end_gsn: ionian_types::Gsn,
        trim: ionian_types::Gsn,
        now: Time,
    ) {
        if self.is_opened_anew(&state) {
            // What is held here has the same positions, and is not what they stand for now.
            self.start_anew();
        }
        // What the snapshot's lengths cover is trimmed, or it would not have been dropped from the cut log.
        let mut lens = [Lsn::ZERO; SEGMENTS_PER_SHARD_MAX];
        for (slot, segment) in state.segments.iter().enumerate() {
            lens[slot] = segment.len;
            self.trim_segment(Slot::new(slot as u8), segment.len);
        }
        let replicas = usize::from(self.config.replicas);
        self.index.reset(&lens[..replicas]);
        // The chain goes on at the last entry that touched the shard.
        self.applied = state.last;
        self.complete = entry;
        self.end_gsn = end_gsn;
        self.trim = self.trim.max(trim);
        self.head = self.head.max(trim.min(end_gsn));
        self.state = Some(state);
        self.waiters.clear();
        self.view_entered(now);
    }
}

#[cfg(test)]
mod tests;
