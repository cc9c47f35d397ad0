//! Dropping entries of the cut log: those that are trimmed, and at a flushed class those that were durably applied by enough
//! members of every shard that they touch (ORDERING.md, ROOT LEADER, drop prefix). A snapshot takes their place.

use alloc::collections::BTreeMap;

use ionian_types::{EntryNo, Knobs, ShardId};
use ionian_wire::Writer;
use ionian_wire::entry::EntryView;

use super::Root;
use crate::cutlog::{EntryLog, Kept, LogState};

#[cfg(test)]
mod tests;

impl<K: Knobs> Root<K> {
    /// Drops entries, a chunk at a time: those that are trimmed whole, and at a flushed class those that every live member of
    /// every shard has durably applied. Of the latter, those that touch a shard with members away are kept.
    ///
    /// Only of what is before `seen`, the commit index when this flush began: who looks at the root after every flush sees
    /// every committed entry.
    pub(super) fn drop_prefix(&mut self, seen: EntryNo) {
        let trimmed = self.log.droppable(self.committed_trim);
        let applied = if self.config.class.is_flushed() {
            let everywhere = self.applied_everywhere();
            self.log.droppable_through(everywhere)
        } else {
            None
        };
        let before = EntryNo::new(seen.get().saturating_sub(1));
        let before = self.log.droppable_through(before);
        let Some(upto) = trimmed.max(applied).min(before) else {
            return;
        };
        if self.config.class.is_flushed() {
            self.checkpoint_through(upto);
            return;
        }
        advance(&mut self.base, &self.log, upto);
        self.log.drop_through(upto);
    }

    fn applied_everywhere(&self) -> EntryNo {
        let applied = self.children.iter().map(|child| child.applied);
        applied.min().unwrap_or_default()
    }

    /// Flushed classes: the snapshot replaces the entries once it is durable.
    fn checkpoint_through(&mut self, upto: EntryNo) {
        if self.store.checkpoint_pending() {
            return;
        }
        let mut base = self.base.clone();
        advance(&mut base, &self.log, upto);
        let kept = if base.end_gsn <= self.committed_trim {
            Kept::default()
        } else {
            self.kept_beyond(upto)
        };
        // A snapshot has room for so much. What is too much stays in the log.
        if kept.bytes() > self.store.config().checkpoint_bytes_max / 2 {
            return;
        }
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
        if self.store.journal_checkpoint(number, &bytes[..len]).is_ok() {
            self.base = base;
            self.log.drop_through(upto);
            self.kept = kept;
        }
        self.scratch = bytes;
    }

    /// What stays of the entries through `upto`.
    fn kept_beyond(&self, upto: EntryNo) -> Kept {
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
        self.kept.advanced(&wanted, &self.base, &self.log, upto)
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
