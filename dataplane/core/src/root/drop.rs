//! Dropping entries of the cut log: those that are trimmed, and at a flushed class those that were durably applied by enough
//! members of every shard that they touch (ORDERING.md, ROOT LEADER, drop prefix). A snapshot takes their place.

use alloc::collections::BTreeMap;

use ionian_types::{EntryNo, Knobs, Nanos, ShardId, Time};
use ionian_wire::Writer;
use ionian_wire::entry::EntryView;

use super::Root;
use crate::cutlog::{EntryLog, Kept, LogState};

#[cfg(test)]
mod tests;

/// After a snapshot was too large, none that holds entries for members that are away is made for so long.
const KEEP_AGAIN: Nanos = Nanos::from_ms(1000);

impl<K: Knobs> Root<K> {
    /// Drops entries, a chunk at a time: those that are trimmed whole, and at a flushed class those that every live member of
    /// every shard has durably applied. Of the latter, those that touch a shard with members away are kept; if that is too
    /// much, what is trimmed goes all the same.
    ///
    /// Only of what is before `seen`, the commit index when this flush began: who looks at the root after every flush sees
    /// every committed entry.
    pub(super) fn drop_prefix(&mut self, now: Time, seen: EntryNo) {
        let before = EntryNo::new(seen.get().saturating_sub(1));
        let before = self.log.droppable_through(before);
        let trimmed = self.log.droppable(self.committed_trim).min(before);
        if !self.config.class.is_flushed() {
            if let Some(upto) = trimmed {
                advance(&mut self.base, &self.log, upto);
                self.log.drop_through(upto);
            }
            return;
        }
        let applied = if now >= self.keep_again_at {
            let everywhere = self.applied_everywhere();
            self.log.droppable_through(everywhere).min(before)
        } else {
            None
        };
        let more = applied.filter(|upto| trimmed < Some(*upto));
        for upto in more.into_iter().chain(trimmed) {
            if self.checkpoint_through(upto) {
                return;
            }
            // To find out that it is too much costs time.
            self.keep_again_at = now.after(KEEP_AGAIN);
        }
    }

    fn applied_everywhere(&self) -> EntryNo {
        let applied = self.children.iter().map(|child| child.applied);
        applied.min().unwrap_or_default()
    }

    /// Flushed classes: the snapshot replaces the entries once it is durable. `false` if it would be too large, or the store
    /// does not take it.
    fn checkpoint_through(&mut self, upto: EntryNo) -> bool {
        if self.store.checkpoint_pending() {
            return true;
        }
        let end = self.log.end_gsn(upto);
        let kept = if end.is_some_and(|end| end <= self.committed_trim) {
            Kept::default()
        } else {
            // A snapshot has room for so much. What is too much stays in the log.
            let bytes_max = self.store.config().checkpoint_bytes_max / 2;
            let Some(kept) = self.kept_beyond(upto, bytes_max) else {
                return false;
            };
            kept
        };
        let mut base = self.base.clone();
        advance(&mut base, &self.log, upto);
        let mut bytes = core::mem::take(&mut self.scratch);
        let mut size = 64 * 1024;
        let len = loop {
            bytes.clear();
            bytes.resize(size, 0);
            let mut writer = Writer::new(&mut bytes);
            if base.write(&mut writer).is_ok() && kept.write(&mut writer).is_ok() {
                break writer.len();
            }
            size *= 2;
        };
        let number = upto.get() - self.journal_offset();
        let taken = self.store.journal_checkpoint(number, &bytes[..len]).is_ok();
        if taken {
            self.base = base;
            self.log.drop_through(upto);
            self.kept = kept;
        }
        self.scratch = bytes;
        taken
    }

    /// What stays of the entries through `upto`; `None` if it is more than `bytes_max`.
    fn kept_beyond(&self, upto: EntryNo, bytes_max: u64) -> Option<Kept> {
        let mut wanted: BTreeMap<ShardId, EntryNo> = BTreeMap::new();
        for shard in self.kept.shards() {
            let open = self.state.shards.get(&shard).is_some_and(|it| it.open);
            let child = self.children.iter().find(|child| child.has(shard));
            match child {
                Some(child) if open => {
                    wanted.insert(shard, child.applied);
                }
                // Nobody says what was applied: of a shard that is not open nobody will, and a trim ends it.
                _ => {
                    let end = self.kept.end_gsn(shard);
                    if open || end.is_some_and(|end| end > self.committed_trim) {
                        wanted.insert(shard, EntryNo::ZERO);
                    }
                }
            }
        }
        for keep in self.children.iter().flat_map(super::child::Child::keeps) {
            wanted.insert(keep.shard, keep.after);
        }
        self.kept
            .advanced(&wanted, &self.base, &self.log, upto, bytes_max)
    }
}

/// Applies the entries of the log through `upto`.
fn advance(base: &mut LogState, log: &EntryLog, upto: EntryNo) {
    while base.entry < upto {
        let next = base.entry.next().and_then(|next| log.get(next));
        let Some(view) = next.and_then(|bytes| EntryView::new_checked(bytes).ok()) else {
            return;
        };
        base.apply(&view)
            .expect("entries of the log follow each other");
    }
}
