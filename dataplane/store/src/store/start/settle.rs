//! After the scans: how long each stream is, and what in it is damaged.

use super::Start;
use crate::error::StoreFailure;
use crate::store::Store;

impl Store {
    pub(super) fn settle(&mut self, start: &Start) {
        for stream in 0..self.streams.len() {
            self.settle_stream(stream);
        }
        self.settle_journal(start);
    }

    fn settle_stream(&mut self, stream: usize) {
        let segment = &mut self.streams[stream];
        let first = segment.first;
        if let Some(chunk) = segment.chunks.front() {
            let missing = if chunk.home.is_some() {
                chunk.first
            } else {
                chunk.end
            };
            segment.damage.add(first, missing, true);
        }
        for index in 0..segment.chunks.len() {
            let chunk = &mut segment.chunks[index];
            chunk.scanned = true;
            if chunk.home.is_some() {
                continue;
            }
            // Lost headers: what lies between its neighbours is missing. Some of it may have been in the chunk before, so
            // it goes there first, and overflows from there when it is repaired.
            let end = chunk.end;
            if index == 0 {
                chunk.first = first.min(end);
                continue;
            }
            chunk.first = end;
            let from = segment.chunks[index - 1].end;
            if from < end {
                segment.extend_hole(index - 1, end);
                segment.damage.add(from.max(first), end, true);
            }
        }
        let len = segment
            .chunks
            .back()
            .map_or(first, |chunk| chunk.end.max(first));
        segment.len = len;
        segment.recovered = len;
        segment.emitted = len;
        segment.flushed = len;
        segment.dirty = segment.next_number();
        segment.damage.trim(first);
        segment.cap = segment.damage.cap();
        segment.durable = first;
        segment.update_durable();
    }

    /// Of the journal nobody else knows how long it was: see [`mod@crate::format`].
    fn settle_journal(&mut self, start: &Start) {
        let index = self.journal_index();
        let base = self.superblock.durable.base[self.base_index(index)];
        let first = self.streams[index].first;
        let oldest = self.streams[index]
            .chunks
            .front()
            .filter(|chunk| chunk.home.is_some())
            .map(|chunk| chunk.first);
        let uncovered = oldest.is_some_and(|oldest| oldest > first);
        if uncovered || (base > 0 && self.checkpoint.number.is_none()) {
            self.fail(if start.checkpoint_unread {
                StoreFailure::Device { op: "read" }
            } else {
                StoreFailure::CheckpointDamaged {
                    journal_first: oldest.unwrap_or(first),
                }
            });
            return;
        }
        let Some(hole) = self.streams[index].damage.ranges().first().copied() else {
            return;
        };
        let from = hole.from.get();
        if start.journal_floor > from {
            self.fail(StoreFailure::JournalDamaged {
                from,
                to: hole.to.get(),
            });
            return;
        }
        self.journal_torn = Some(from);
        let journal = &mut self.streams[index];
        for chunk in &mut journal.chunks {
            let kept = from.saturating_sub(chunk.first) as usize;
            chunk.first = chunk.first.min(from);
            chunk.end = chunk.end.min(from);
            if let Some(buf) = chunk.buf.as_mut() {
                buf.places.truncate(kept);
            }
        }
        journal.damage.cut(from);
        journal.len = from;
        journal.emitted = from;
        journal.flushed = from;
        journal.durable = from;
        journal.cap = u64::MAX;
    }
}
