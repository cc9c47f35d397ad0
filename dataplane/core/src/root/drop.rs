//! Dropping entries of the cut log: those that are trimmed, and at a flushed class those that were durably applied by enough
//! members of every shard that they touch (ORDERING.md, ROOT LEADER, drop prefix). A snapshot takes their place.

use alloc::collections::BTreeMap;

use ionian_types::{EntryNo, Knobs, Mutant, Nanos, ShardId, Time};
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
    /// much, what is trimmed goes all the same. A member of the root group that does not lead drops what the leader says is
    /// needed by nobody.
    ///
    /// Only of what is before `seen`, the commit index when this flush began: who looks at the root after every flush sees
    /// every committed entry.
    pub(super) fn drop_prefix(&mut self, now: Time, seen: EntryNo) {
        self.prune_map();
        if self.granted.is_some() {
            self.group.drop = self.needed_by_nobody();
        }
        let held_for_state = self.group.sends_state() || self.following.installing.is_some();
        if held_for_state && self.cut_log_bytes() < self.config.cut_log_bytes_max / 2 {
            return;
        }
        let before = EntryNo::new(seen.get().saturating_sub(1));
        let before = self.log.droppable_through(before);
        let trimmed = self.log.droppable(self.committed_trim).min(before);
        if !self.config.class.is_flushed() {
            if let Some(upto) = trimmed
                && !self.log.leap(&mut self.base, upto)
            {
                advance(&mut self.base, &self.log, upto);
                self.log.drop_through(upto);
            }
            return;
        }
        let applied = if now >= self.keep_again_at {
            let everywhere = if self.granted.is_some() {
                self.applied_everywhere()
            } else {
                self.following.drop
            };
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
        self.lighten();
    }

    /// A cut log that is full takes no entries, and drops none: then what was kept for members that have come back goes by
    /// itself, or it would stay full for good.
    fn lighten(&mut self) {
        let full = self.cut_log_bytes() > self.config.cut_log_bytes_max;
        if !full || self.kept.is_empty() || self.store.checkpoint_pending() {
            return;
        }
        let upto = self.base.entry;
        let wanted = self.wanted(self.is_needless(upto));
        if self.kept.exceeds(&wanted) {
            let mut base = self.base.clone();
            let kept = self
                .kept
                .advanced(&wanted, &mut base, &self.log, upto, u64::MAX);
            // A snapshot that was given up for want of room stands for more than the durable one.
            let last = self.map.record_of(upto);
            let record = last.unwrap_or_else(|| self.store.checkpoint_durable());
            if let Some(kept) = kept {
                self.checkpoint(record, base, kept);
            }
        }
    }

    /// The last entry that neither a live member of a shard nor one that is away will ask for.
    fn needed_by_nobody(&self) -> EntryNo {
        let keeps = self.children.iter().flat_map(|child| child.link.keeps());
        // What shards that have ended may miss is kept by each member of the group itself.
        let open = |shard| self.state.shard(shard).is_some_and(|it| it.is_open());
        let after = keeps
            .map(|keep| keep.after)
            .chain(self.kept.first_after(open));
        after.min().map_or(self.applied_everywhere(), |after| {
            after.min(self.applied_everywhere())
        })
    }

    fn applied_everywhere(&self) -> EntryNo {
        let applied = self.children.iter().map(|child| child.link.applied);
        applied.min().unwrap_or_default()
    }

    /// Flushed classes: the snapshot replaces the entries once it is durable. `false` if it would be too large, or the store
    /// does not take it.
    fn checkpoint_through(&mut self, upto: EntryNo) -> bool {
        if self.store.checkpoint_pending() {
            return true;
        }
        let end = self.log.end_gsn(upto);
        let gone = end.is_some_and(|end| end <= self.committed_trim);
        let mut base = self.base.clone();
        let kept = if gone {
            Kept::default()
        } else {
            // A snapshot has room for so much. What is too much stays in the log.
            let bytes_max = self.store.config().checkpoint_bytes_max / 2;
            let wanted = self.wanted(self.is_needless(upto));
            let kept = self
                .kept
                .advanced(&wanted, &mut base, &self.log, upto, bytes_max);
            let Some(kept) = kept else {
                return false;
            };
            kept
        };
        advance(&mut base, &self.log, upto);
        let Some(record) = self.map.record_of(upto) else {
            return false;
        };
        let taken = self.checkpoint(record, base, kept);
        if taken {
            self.log.drop_through(upto);
        }
        taken
    }

    /// Writes a snapshot of the state after a record of the journal. `false` if the store does not take it.
    fn checkpoint(&mut self, record: u64, base: LogState, kept: Kept) -> bool {
        let mut bytes = core::mem::take(&mut self.scratch);
        let mut size = 64 * 1024;
        let len = loop {
            bytes.clear();
            bytes.resize(size, 0);
            if let Ok(len) = self.encode_checkpoint(&base, &kept, &mut bytes) {
                break len;
            }
            size *= 2;
        };
        let taken = self.store.journal_checkpoint(record, &bytes[..len]).is_ok();
        if taken {
            self.base = base;
            self.kept = kept;
        }
        self.scratch = bytes;
        taken
    }

    /// A leader has said that nobody needs the entries through `upto`.
    fn is_needless(&self, upto: EntryNo) -> bool {
        self.granted.is_none() && upto <= self.following.drop
    }

    /// The entry after which each shard may miss something of what is dropped. Of open shards it may be that `needless`
    /// nothing does.
    ///
    /// Nobody says of a shard that has ended how far its members are. The entries that were not dropped before it ended, the
    /// one that ended it among them, stay until they are trimmed.
    fn wanted(&self, needless: bool) -> BTreeMap<ShardId, EntryNo> {
        let mut wanted: BTreeMap<ShardId, EntryNo> = BTreeMap::new();
        for state in self.state.shards().filter(|state| !state.is_open()) {
            let dropped = self.base.shard(state.shard()).map(|it| it.last());
            let trimmed = self.log.end_gsn(state.last());
            let trimmed = trimmed.is_some_and(|end| end <= self.committed_trim);
            let forgotten = K::mutant(Mutant::EndedShardForgotten);
            if dropped < Some(state.last()) && !trimmed && !forgotten {
                wanted.insert(state.shard(), EntryNo::ZERO);
            }
        }
        for shard in self.kept.shards() {
            let open = self.state.shard(shard).is_some_and(|it| it.is_open());
            if open && needless {
                continue;
            }
            let child = self.children.iter().find(|child| child.link.has(shard));
            match child {
                Some(child) if open => {
                    wanted.insert(shard, child.link.applied);
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
        for keep in self.children.iter().flat_map(|child| child.link.keeps()) {
            wanted.insert(keep.shard, keep.after);
        }
        wanted
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
