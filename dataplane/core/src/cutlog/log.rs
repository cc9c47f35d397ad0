//! The entries of a cut log in memory: encoded back to back in recycled chunks, found by number or by gsn.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use ionian_types::{EntryNo, Gsn};

const CHUNK_BYTES: usize = 256 * 1024;
/// Entries of a chunk, unless a log is made with another number.
pub const CHUNK_ENTRIES: usize = 4096;
/// Chunks kept for reuse; more are given back to the allocator.
const SPARE_CHUNKS_MAX: usize = 4;

#[derive(Debug)]
struct Chunk {
    first: u64,
    bytes: Vec<u8>,
    /// Per entry: where it ends in `bytes`, and the end of the order after it.
    ends: Vec<(u32, u64)>,
}

impl Chunk {
    fn new(entries: usize) -> Self {
        Self {
            first: 0,
            bytes: Vec::with_capacity(CHUNK_BYTES),
            ends: Vec::with_capacity(entries),
        }
    }

    fn get(&self, index: usize) -> Option<&[u8]> {
        let (end, _) = *self.ends.get(index)?;
        let start = match index.checked_sub(1) {
            Some(before) => self.ends[before].0,
            None => 0,
        };
        Some(&self.bytes[start as usize..end as usize])
    }
}

/// Entries `first..=last`, dense.
#[derive(Debug)]
pub struct EntryLog {
    chunks: VecDeque<Chunk>,
    spare: Vec<Chunk>,
    next: u64,
    bytes: u64,
    chunk_entries: usize,
}

impl EntryLog {
    /// An empty log whose first entry will have the number after `base`. Entries are dropped by whole chunks of
    /// `chunk_entries`, usually [`CHUNK_ENTRIES`]; at least 1.
    #[must_use]
    pub fn new(base: EntryNo, chunk_entries: usize) -> Self {
        let chunk_entries = chunk_entries.max(1);
        let mut spare = Vec::with_capacity(SPARE_CHUNKS_MAX + 1);
        spare.push(Chunk::new(chunk_entries));
        spare.push(Chunk::new(chunk_entries));
        Self {
            chunks: VecDeque::with_capacity(1024),
            spare,
            next: base.get() + 1,
            bytes: 0,
            chunk_entries,
        }
    }

    /// The first entry held, or the next one to come when there is none.
    #[must_use]
    pub fn first(&self) -> EntryNo {
        EntryNo::new(self.chunks.front().map_or(self.next, |chunk| chunk.first))
    }

    /// The last entry, or the one before the first to come.
    #[must_use]
    pub fn last(&self) -> EntryNo {
        EntryNo::new(self.next - 1)
    }

    /// Bytes of entries held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends the next entry; `end_gsn` is the end of the order after it.
    pub fn push(&mut self, encoded: &[u8], end_gsn: Gsn) {
        let fits = self.chunks.back().is_some_and(|chunk| {
            chunk.ends.len() < self.chunk_entries
                && chunk.bytes.len() + encoded.len() <= CHUNK_BYTES.max(encoded.len())
                && (chunk.bytes.is_empty() || chunk.bytes.len() + encoded.len() <= CHUNK_BYTES)
        });
        if !fits {
            let mut chunk = match self.spare.pop() {
                Some(chunk) => chunk,
                None => Chunk::new(self.chunk_entries),
            };
            chunk.first = self.next;
            self.chunks.push_back(chunk);
        }
        if let Some(chunk) = self.chunks.back_mut() {
            chunk.bytes.extend_from_slice(encoded);
            chunk.ends.push((chunk.bytes.len() as u32, end_gsn.get()));
        }
        self.next += 1;
        self.bytes += encoded.len() as u64;
    }

    /// The entry's bytes, while held.
    #[must_use]
    pub fn get(&self, entry: EntryNo) -> Option<&[u8]> {
        let at = self
            .chunks
            .partition_point(|chunk| chunk.first <= entry.get())
            .checked_sub(1)?;
        let chunk = &self.chunks[at];
        chunk.get((entry.get() - chunk.first) as usize)
    }

    /// The end of the order after an entry, while held.
    #[must_use]
    pub fn end_gsn(&self, entry: EntryNo) -> Option<Gsn> {
        let at = self
            .chunks
            .partition_point(|chunk| chunk.first <= entry.get())
            .checked_sub(1)?;
        let chunk = &self.chunks[at];
        chunk
            .ends
            .get((entry.get() - chunk.first) as usize)
            .map(|(_, end_gsn)| Gsn::new(*end_gsn))
    }

    /// The first entry after which the order ends beyond `gsn`: the one that gave `gsn` its place, while held.
    #[must_use]
    pub fn by_gsn(&self, gsn: Gsn) -> Option<EntryNo> {
        let at = self.chunks.partition_point(|chunk| {
            chunk
                .ends
                .last()
                .is_none_or(|(_, end_gsn)| *end_gsn <= gsn.get())
        });
        let chunk = self.chunks.get(at)?;
        let index = chunk
            .ends
            .partition_point(|(_, end_gsn)| *end_gsn <= gsn.get());
        Some(EntryNo::new(chunk.first + index as u64))
    }

    /// Where whole chunks may be dropped so that every entry after which the order ends beyond `gsn` stays: the number of
    /// the last entry that [`Self::drop_through`] would remove, or `None`.
    #[must_use]
    pub fn droppable(&self, gsn: Gsn) -> Option<EntryNo> {
        let whole = self
            .chunks
            .iter()
            .zip(self.chunks.iter().skip(1))
            .take_while(|(chunk, _)| {
                chunk
                    .ends
                    .last()
                    .is_some_and(|(_, end_gsn)| *end_gsn <= gsn.get())
            })
            .last()?;
        Some(EntryNo::new(whole.1.first - 1))
    }

    /// As [`Self::droppable`], for entries up to a number.
    #[must_use]
    pub fn droppable_through(&self, entry: EntryNo) -> Option<EntryNo> {
        let ends = self.chunks.iter().skip(1).map(|chunk| chunk.first - 1);
        ends.take_while(|end| *end <= entry.get())
            .last()
            .map(EntryNo::new)
    }

    /// Drops every entry after `entry`: they were never committed, and others take their place. Nothing if `entry` lies
    /// before the first one held; then the log is to be made anew.
    pub fn truncate_after(&mut self, entry: EntryNo) {
        while self
            .chunks
            .back()
            .is_some_and(|chunk| chunk.first > entry.get())
        {
            if let Some(chunk) = self.chunks.pop_back() {
                self.next = chunk.first;
                self.recycle(chunk);
            }
        }
        if let Some(chunk) = self.chunks.back_mut()
            && self.next > entry.get() + 1
        {
            let kept = (entry.get() + 1 - chunk.first) as usize;
            let end = chunk.ends[kept - 1].0 as usize;
            self.bytes -= (chunk.bytes.len() - end) as u64;
            chunk.bytes.truncate(end);
            chunk.ends.truncate(kept);
            self.next = entry.get() + 1;
        }
    }

    /// Drops every entry up to `entry`, wherever chunks end.
    pub fn drop_exactly(&mut self, entry: EntryNo) {
        self.drop_through(entry);
        let Some(chunk) = self.chunks.front_mut() else {
            return;
        };
        let Some(gone) = (entry.get() + 1).checked_sub(chunk.first) else {
            return;
        };
        let gone = (gone as usize).min(chunk.ends.len());
        if gone == chunk.ends.len() {
            if let Some(chunk) = self.chunks.pop_front() {
                self.recycle(chunk);
            }
        } else if let Some(last) = gone.checked_sub(1) {
            let bytes = chunk.ends[last].0;
            chunk.bytes.drain(..bytes as usize);
            chunk.ends.drain(..gone);
            chunk.ends.iter_mut().for_each(|(end, _)| *end -= bytes);
            chunk.first += gone as u64;
            self.bytes -= u64::from(bytes);
        }
    }

    fn recycle(&mut self, mut chunk: Chunk) {
        self.bytes -= chunk.bytes.len() as u64;
        chunk.bytes.clear();
        chunk.ends.clear();
        if self.spare.len() < SPARE_CHUNKS_MAX {
            self.spare.push(chunk);
        }
    }

    /// Drops every whole chunk that ends at or before `entry`.
    pub fn drop_through(&mut self, entry: EntryNo) {
        while let Some(next) = self.chunks.get(1) {
            if next.first > entry.get() + 1 {
                return;
            }
            if let Some(chunk) = self.chunks.pop_front() {
                self.recycle(chunk);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_number_and_by_gsn() {
        let mut log = EntryLog::new(EntryNo::new(10), CHUNK_ENTRIES);
        for n in 0..20_000u64 {
            log.push(&n.to_le_bytes(), Gsn::new(n / 2 * 3));
        }
        assert_eq!(
            (log.first(), log.last()),
            (EntryNo::new(11), EntryNo::new(20_010))
        );
        assert_eq!(log.get(EntryNo::new(10)), None);
        assert_eq!(log.get(EntryNo::new(11)), Some(&0u64.to_le_bytes()[..]));
        assert_eq!(
            log.get(EntryNo::new(20_010)),
            Some(&19_999u64.to_le_bytes()[..])
        );
        assert_eq!(log.get(EntryNo::new(20_011)), None);
        for gsn in [0, 1, 2, 3, 17_000, 29_996] {
            let entry = log.by_gsn(Gsn::new(gsn)).unwrap();
            let n = entry.get() - 11;
            assert!(
                n / 2 * 3 > gsn && (n - 1) / 2 * 3 <= gsn,
                "gsn {gsn} in entry {entry}"
            );
        }
        assert_eq!(log.by_gsn(Gsn::new(29_997)), None);
        let upto = log.droppable(Gsn::new(15_000)).unwrap();
        let bytes = log.bytes();
        log.drop_through(upto);
        assert_eq!(log.first().get(), upto.get() + 1);
        assert!(log.bytes() < bytes);
        assert!(log.by_gsn(Gsn::new(15_000)).unwrap() > upto);
    }

    #[test]
    fn entries_are_taken_back_and_others_take_their_place() {
        let mut log = EntryLog::new(EntryNo::new(10), 8);
        let fill = |log: &mut EntryLog, from: u64, to: u64, mark: u8| {
            for n in from..=to {
                log.push(&vec![mark; 1 + n as usize % 7], Gsn::new(n * 10));
            }
        };
        for cut in [11u64, 17, 18, 19, 26, 30] {
            let from = log.last().get() + 1;
            fill(&mut log, from, 30, 1);
            log.truncate_after(EntryNo::new(cut));
            assert_eq!(log.last(), EntryNo::new(cut));
            assert_eq!(log.get(EntryNo::new(cut + 1)), None);
            fill(&mut log, cut + 1, 40, 2);
            for n in 11..=40 {
                let mark = if n <= cut { 1 } else { 2 };
                let expected = vec![mark; 1 + n as usize % 7];
                assert_eq!(log.get(EntryNo::new(n)), Some(&expected[..]), "entry {n}");
                assert_eq!(log.end_gsn(EntryNo::new(n)), Some(Gsn::new(n * 10)));
            }
            let bytes: usize = (11..=40).map(|n| 1 + n % 7).sum();
            assert_eq!(log.bytes(), bytes as u64);
            log.truncate_after(EntryNo::new(10));
            assert_eq!((log.first().get(), log.bytes()), (11, 0));
        }
        fill(&mut log, 11, 40, 1);
        for upto in [10u64, 11, 15, 18, 22, 30, 40] {
            log.drop_exactly(EntryNo::new(upto));
            assert_eq!(log.first(), EntryNo::new(upto + 1));
            assert_eq!(log.get(EntryNo::new(upto)), None);
            let bytes: u64 = (upto + 1..=40).map(|n| 1 + n % 7).sum();
            assert_eq!(log.bytes(), bytes);
            assert!((upto + 1..=40).all(|n| log.get(EntryNo::new(n)).is_some()));
        }
        assert_eq!(log.last(), EntryNo::new(40));
    }
}
