//! Restart (flushed classes): the checkpoint and the journal after it give back what was applied; the records themselves
//! give back the dedup sets. Nothing is served or reported before a view lists this life.

use alloc::vec::Vec;

use ionian_types::{EntryNo, Knobs, Lsn, Mutant, SEGMENTS_PER_SHARD_MAX, Slot, Time, ViewId};
use ionian_wire::Reader;
use ionian_wire::entry::EntryView;

use super::Replica;
use super::apply::{JOURNAL_ADOPTION, JOURNAL_CUT, JOURNAL_ENTRY, JOURNAL_SNAPSHOT, ShardCut};
use super::image::Image;
use crate::cutlog::ShardState;

impl<K: Knobs> Replica<K> {
    /// Rebuilds the machine from what the store recovered.
    pub(super) fn restore(&mut self) {
        if !self.store.config().class.is_flushed() {
            return;
        }
        let checkpoint: Option<Vec<u8>> = self
            .store
            .recovered()
            .checkpoint
            .map(|(_, bytes)| Vec::from(bytes));
        if let Some(bytes) = checkpoint {
            match Image::read(&bytes, self.config.replicas, self.config.cuts_ready) {
                Ok(image) => self.take_image(image, None),
                // The store has checked the bytes; what does not parse was written by another version of this code.
                Err(_) => self.counters.contradictions += 1,
            }
        }
        // The store has just read the last records; one that it has not is committed, and its owner is known once the
        // journal is replayed.
        for slot in 0..usize::from(self.config.replicas) {
            let found = self.last_generation(Slot::new(slot as u8));
            self.tail_generation[slot] = found.unwrap_or(ViewId::MAX);
        }
        for number in self.store.journal_first()..=self.store.journal_last() {
            let Some(bytes) = self.store.journal_read(number).map(Vec::from) else {
                continue;
            };
            if self.restore_record(&bytes).is_none() {
                self.counters.contradictions += 1;
                break;
            }
        }
        self.checkpoint_at = self.store.journal_first().saturating_sub(1);
        self.applied_durable = self.applied;
        self.tell_owners();
        for slot in 0..usize::from(self.config.replicas) {
            let slot = Slot::new(slot as u8);
            self.store.committed_hint(slot, self.committed(slot));
            if K::mutant(Mutant::TruncateAtBadChecksum)
                && let Some(damaged) = self.store.damaged(slot).first().copied()
            {
                self.store.truncate(slot, damaged.from);
            }
            let current = self
                .segment(slot)
                .map_or(ViewId::ZERO, |segment| segment.generation);
            let found = self.last_generation(slot);
            self.tail_generation[slot.index()] = found.unwrap_or(current);
        }
    }

    /// Tells the store whose records these are. A device may give back what a view made void: it counts as damaged then.
    pub(super) fn tell_owners(&mut self) {
        let Some(state) = &self.state else { return };
        for (slot, segment) in state.segments.iter().enumerate() {
            self.store
                .set_owners(Slot::new(slot as u8), segment.owners());
        }
    }

    /// The generation that the last record held names, if it is in memory.
    fn last_generation(&mut self, slot: Slot) -> Option<ViewId> {
        let last = self.store.len(slot).get().checked_sub(1).map(Lsn::new)?;
        let header = self.store.header(slot, last)?;
        Some(header.generation)
    }

    fn restore_record(&mut self, bytes: &[u8]) -> Option<()> {
        let mut reader = Reader::new(bytes);
        match reader.field::<u8>().ok()? {
            JOURNAL_CUT => {
                let entry = reader.field::<EntryNo>().ok()?;
                if entry <= self.applied {
                    return Some(());
                }
                let base = reader.field().ok()?;
                let end_gsn = reader.field().ok()?;
                let mut lens = [Lsn::ZERO; SEGMENTS_PER_SHARD_MAX];
                for (slot, len) in lens
                    .iter_mut()
                    .enumerate()
                    .take(usize::from(self.config.replicas))
                {
                    *len = reader.field().ok()?;
                    if *len < self.committed(Slot::new(slot as u8)) {
                        return None;
                    }
                }
                self.state.as_ref()?;
                self.adopt_cut(&ShardCut {
                    entry,
                    base,
                    end_gsn,
                    lens,
                });
                Some(())
            }
            JOURNAL_ENTRY => {
                let entry = EntryView::new_checked(reader.rest()).ok()?;
                if entry.header.entry <= self.applied {
                    return Some(());
                }
                self.adopt_entry(Time::ZERO, &entry).then_some(())
            }
            JOURNAL_SNAPSHOT => {
                let entry = reader.field().ok()?;
                let end_gsn = reader.field().ok()?;
                let trim = reader.field().ok()?;
                let state = ShardState::read(&mut reader).ok()?;
                self.adopt_snapshot(state, entry, end_gsn, trim, Time::ZERO);
                Some(())
            }
            // What a peer gave is in the checkpoint that covers this record, once that is durable.
            JOURNAL_ADOPTION => Some(()),
            _ => None,
        }
    }
}
