//! The entries of a cut log in memory: encoded back to back in recycled chunks, found by number or by gsn.
//!
//! What a cut means follows from the entries before it. So that nobody need begin at the first one, the log keeps beside its
//! entries which [`Layout`] holds from which entry on (an *era*), and every so many bytes the lengths as of an entry
//! (a *mark*): whoever looks for what an entry says walks from the mark before it.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use ionian_types::{EntryNo, Gsn, RootEpoch, ShardId};
use ionian_wire::entry::EntryView;

use super::{Layout, LogState, ShardState};

const CHUNK_BYTES: usize = 320 * 1024;
/// Entries of a chunk, unless a log is made with another number.
pub const CHUNK_ENTRIES: usize = 4096;
/// Chunks kept for reuse; more are given back to the allocator.
const SPARE_CHUNKS_MAX: usize = 4;
/// Bytes of entries between two marks, at least: less than a chunk, which ends where a mark is.
const MARK_BYTES: u64 = 256 * 1024;
/// The lengths of a mark take at most one in so many of the bytes of the entries that it is for; with the cuts that changed them,
/// it takes twice as much.
const MARK_SHARE: u64 = 4;

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

/// The entries from one on for which numbers mean the same.
#[derive(Debug)]
pub(super) struct Era {
    /// The first of them.
    pub(super) from: u64,
    pub(super) layout: Arc<Layout>,
    /// Shards as they were before the view that began the era opened them again.
    pub(super) ended: Vec<ShardState>,
}

/// The lengths before an entry, by the numbers of its era, with what else a cut, a trim or a ceiling changes: so that the state
/// before the entry need not be made of the entries before it.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) from: u64,
    pub(super) lens: Vec<u64>,
    /// The last cut that changed each length.
    pub(super) touched: Vec<u64>,
    pub(super) crc: u32,
    pub(super) epoch: RootEpoch,
    pub(super) end_gsn: Gsn,
    pub(super) ceiling: Gsn,
    pub(super) trim: Gsn,
}

/// Entries `first..=last`, dense.
#[derive(Debug)]
pub struct EntryLog {
    chunks: VecDeque<Chunk>,
    spare: Vec<Chunk>,
    /// At least one; the first one holds for the first entry.
    eras: VecDeque<Era>,
    marks: VecDeque<Mark>,
    spare_marks: Vec<Mark>,
    /// Bytes of entries since the last mark; whether the last chunk ends with one.
    unmarked: u64,
    ended: bool,
    next: u64,
    bytes: u64,
    /// Bytes of marks and of all eras but the first.
    beside: u64,
    chunk_entries: usize,
}

impl Era {
    fn bytes(&self) -> u64 {
        self.layout.bytes()
    }
}

impl Mark {
    fn bytes(&self) -> u64 {
        (self.lens.len() + self.touched.len()) as u64 * 8
    }
}

impl EntryLog {
    /// An empty log that goes on after `base`. Entries are dropped by whole chunks of `chunk_entries`, usually
    /// [`CHUNK_ENTRIES`]; at least 1.
    #[must_use]
    pub fn new(base: &LogState, chunk_entries: usize) -> Self {
        let chunk_entries = chunk_entries.max(1);
        let mut spare = Vec::with_capacity(SPARE_CHUNKS_MAX + 1);
        spare.push(Chunk::new(chunk_entries));
        spare.push(Chunk::new(chunk_entries));
        let next = base.entry.get() + 1;
        Self {
            chunks: VecDeque::with_capacity(1024),
            spare,
            eras: VecDeque::from([Era {
                from: next,
                layout: base.layout().clone(),
                ended: Vec::new(),
            }]),
            marks: VecDeque::new(),
            spare_marks: Vec::new(),
            unmarked: 0,
            ended: false,
            next,
            bytes: 0,
            beside: 0,
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

    /// Bytes of entries held, and of what is held to read them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes + self.beside
    }

    /// Appends the next entry; `state` is what the log says after it.
    pub fn push(&mut self, encoded: &[u8], state: &LogState) {
        let end_gsn = state.end_gsn;
        let ended = core::mem::take(&mut self.ended);
        let fits = self.chunks.back().is_some_and(|chunk| {
            !ended
                && chunk.ends.len() < self.chunk_entries
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
        let same = |era: &Era| Arc::ptr_eq(&era.layout, state.layout());
        if !self.eras.back().is_some_and(same) {
            self.begin_era(state);
        }
        self.unmarked += encoded.len() as u64;
        let mark_bytes = state.lens().len() as u64 * 8 * MARK_SHARE;
        if self.unmarked >= mark_bytes.max(MARK_BYTES) {
            self.mark(state);
        }
    }

    /// Notes the state before the next entry, with which a chunk begins.
    fn mark(&mut self, state: &LogState) {
        self.unmarked = 0;
        self.ended = true;
        let (mut lens, mut touched) = match self.spare_marks.pop() {
            Some(mark) => (mark.lens, mark.touched),
            None => (Vec::new(), Vec::new()),
        };
        lens.clear();
        lens.extend_from_slice(state.lens());
        touched.clear();
        touched.extend_from_slice(state.touched());
        let mark = Mark {
            from: self.next,
            lens,
            touched,
            crc: state.crc,
            epoch: state.epoch,
            end_gsn: state.end_gsn,
            ceiling: state.ceiling,
            trim: state.trim,
        };
        self.beside += mark.bytes();
        self.marks.push_back(mark);
    }

    /// Drops entries through `upto` or a little less, and takes `base`, the state before the first of them, to the one before the first
    /// that is left, by a mark instead of by the entries. `false`, and nothing is done, where there is no mark, or views or losses are
    /// among them.
    pub fn leap(&mut self, base: &mut LogState, upto: EntryNo) -> bool {
        let begins = |from: u64| self.chunks.iter().any(|chunk| chunk.first == from);
        let (first, last) = (base.entry.get() + 1, upto.get() + 1);
        let mut marks = self.marks.iter().rev();
        let Some(mark) =
            marks.find(|mark| (first + 1..=last).contains(&mark.from) && begins(mark.from))
        else {
            return false;
        };
        let plain = |entry| {
            self.get(EntryNo::new(entry))
                .is_some_and(EntryView::keeps_segments)
        };
        if mark.lens.len() != base.lens().len() || !(first..mark.from).all(plain) {
            return false;
        }
        base.leap(mark);
        self.drop_through(base.entry);
        true
    }

    /// The next entry is the first for which numbers mean what they do in this state.
    fn begin_era(&mut self, state: &LogState) {
        let ended = state.reopened();
        match self.eras.back_mut() {
            // Another state with the same layout: entries were taken back.
            Some(era) if ended.is_empty() && era.layout == *state.layout() => {
                era.layout = state.layout().clone();
            }
            _ => {
                self.beside += state.layout().bytes();
                self.eras.push_back(Era {
                    from: self.next,
                    layout: state.layout().clone(),
                    ended: ended.to_vec(),
                });
            }
        }
    }

    /// The last mark at or before an entry; the log's base is one too, for all entries.
    pub(super) fn mark_before(&self, entry: u64) -> Option<&Mark> {
        let after = self.marks.partition_point(|mark| mark.from <= entry);
        self.marks.get(after.checked_sub(1)?)
    }

    #[cfg(test)]
    pub(super) fn beside(&self) -> u64 {
        let marks = self.marks.iter().map(Mark::bytes);
        marks.chain(self.eras.iter().skip(1).map(Era::bytes)).sum()
    }

    #[cfg(test)]
    pub(super) fn marks(&self) -> &VecDeque<Mark> {
        &self.marks
    }

    /// The number of the era of an entry.
    pub(super) fn era_at(&self, entry: u64) -> usize {
        let after = self.eras.partition_point(|era| era.from <= entry);
        after.saturating_sub(1)
    }

    /// An era by its number.
    pub(super) fn era(&self, number: usize) -> Option<&Era> {
        self.eras.get(number)
    }

    /// What the numbers of an entry mean.
    #[must_use]
    pub fn layout_at(&self, entry: EntryNo) -> Option<&Layout> {
        self.eras
            .get(self.era_at(entry.get()))
            .map(|era| &*era.layout)
    }

    /// The shard as it was when an entry was made, if it was opened again since.
    #[must_use]
    pub fn life_at(&self, entry: EntryNo, shard: ShardId) -> Option<&ShardState> {
        let later = self.eras.iter().skip(self.era_at(entry.get()) + 1);
        let mut ended = later.flat_map(|era| &era.ended);
        ended.find(|state| state.shard == shard)
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
        let next = self.next;
        while self.eras.len() > 1 && self.eras.back().is_some_and(|era| era.from > next) {
            let era = self.eras.pop_back();
            self.beside -= era.map_or(0, |era| era.bytes());
        }
        while self.marks.back().is_some_and(|mark| mark.from > next) {
            let mark = self.marks.pop_back();
            self.spare(mark);
        }
        // As if the last mark had been made long ago: the next one comes soon rather than late.
        self.unmarked = MARK_BYTES;
        self.ended = false;
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
        self.forget();
    }

    /// Forgets what only entries that were dropped need.
    fn forget(&mut self) {
        let first = self.first().get();
        while let Some(second) = self.eras.get(1).filter(|era| era.from <= first) {
            self.beside -= second.bytes();
            self.eras.pop_front();
        }
        while self.marks.front().is_some_and(|mark| mark.from < first) {
            let mark = self.marks.pop_front();
            self.spare(mark);
        }
    }

    fn spare(&mut self, mark: Option<Mark>) {
        self.beside -= mark.as_ref().map_or(0, Mark::bytes);
        if self.spare_marks.len() < SPARE_CHUNKS_MAX {
            self.spare_marks.extend(mark);
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
                break;
            }
            if let Some(chunk) = self.chunks.pop_front() {
                self.recycle(chunk);
            }
        }
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending_at(end_gsn: u64) -> LogState {
        let mut state = LogState::default();
        state.entry = EntryNo::new(10);
        state.end_gsn = Gsn::new(end_gsn);
        state
    }

    #[test]
    fn entries_are_found_by_number_and_by_gsn() {
        let mut log = EntryLog::new(&ending_at(0), CHUNK_ENTRIES);
        for n in 0..20_000u64 {
            log.push(&n.to_le_bytes(), &ending_at(n / 2 * 3));
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
        let mut log = EntryLog::new(&ending_at(0), 8);
        let fill = |log: &mut EntryLog, from: u64, to: u64, mark: u8| {
            for n in from..=to {
                log.push(&vec![mark; 1 + n as usize % 7], &ending_at(n * 10));
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
