//! A stream: the chunks of one segment or of the journal, in order, with the entries found by position.
//!
//! Positions are dense. A chunk knows the positions it holds (`first..end`) for as long as it is kept, whether its bytes
//! are in memory or not; within a resident chunk a table gives the place of each entry. Finding a position is a binary
//! search over chunks, mostly answered by the last one, and one table look-up. An entry, and a run handed out, never
//! crosses a chunk. A chunk made void by a truncation stays in the sequence, empty, while one before it holds what is
//! kept: the `first` of chunks never falls along the sequence.

use std::collections::VecDeque;

use crate::chunk::{Chunk, ChunkBuf, Pool};
use crate::error::DamagedRange;
use crate::format::{Framing, Place};
use crate::op::FileNo;

mod cut;
mod damage;
mod owners;

pub(crate) use damage::Damage;
pub(crate) use owners::Owners;

/// Where entries may lie in a chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// First byte of the first entry.
    pub(crate) from: u32,
    /// The byte after the last entry.
    pub(crate) to: u32,
}

/// A run of entries back to back in one chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) chunk: u64,
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
    pub(crate) count: u32,
}

/// What was found at a position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    Run(Run),
    /// The chunk of this number is not in memory.
    Away(u64),
    Trimmed,
    Beyond,
    Damaged,
}

/// The chunks of one segment or of the journal.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) framing: Framing,
    pub(crate) room: Room,
    pub(crate) chunks: VecDeque<Chunk>,
    /// The number of `chunks[0]`. Numbers are never used again.
    pub(crate) base: u64,
    /// The first position kept.
    pub(crate) first: u64,
    /// The position after the last entry accepted.
    pub(crate) len: u64,
    /// The contiguous prefix held at the class. Never falls but by a truncation.
    pub(crate) durable: u64,
    /// The position up to which batches have been flushed.
    pub(crate) flushed: u64,
    /// No position from here on counts as durable: damage found at start that is not repaired yet.
    pub(crate) cap: u64,
    /// Number of the first chunk that may hold bytes not handed to the device.
    pub(crate) dirty: u64,
    /// The position after the last entry handed to the device.
    pub(crate) emitted: u64,
    /// A truncation waits for a chunk whose header records it.
    pub(crate) must_open: bool,
    /// The number of the chunk up to which space is set aside for this segment alone.
    pub(crate) promised: u64,
    /// Extents in use, by ascending number.
    pub(crate) extents: VecDeque<(u64, FileNo)>,
    pub(crate) damage: Damage,
    /// Whose records these are; nobody's in a journal.
    pub(crate) owners: Owners,
    /// The length that recovery found: what lies below came from the device.
    pub(crate) recovered: u64,
    /// Chunks with repairs that were not handed to the device.
    pub(crate) repairs: Vec<u64>,
}

impl Stream {
    pub(crate) fn new(framing: Framing, room: Room, first: u64) -> Self {
        Self {
            framing,
            room,
            chunks: VecDeque::with_capacity(64),
            base: 0,
            first,
            len: first,
            durable: first,
            flushed: first,
            cap: u64::MAX,
            dirty: 0,
            emitted: first,
            must_open: false,
            promised: 0,
            extents: VecDeque::with_capacity(16),
            damage: Damage::default(),
            owners: Owners::default(),
            recovered: first,
            repairs: Vec::new(),
        }
    }

    /// The number of the next chunk to be opened.
    pub(crate) fn next_number(&self) -> u64 {
        self.base + self.chunks.len() as u64
    }

    /// Whether the last chunk takes `bytes` more.
    #[inline]
    pub(crate) fn fits(&self, bytes: usize) -> bool {
        self.chunks.back().is_some_and(|chunk| {
            !chunk.closed && chunk.end == self.len && (self.room.to - chunk.used) as usize >= bytes
        })
    }

    /// Bytes of the entries kept, by chunks: those before the last count as full, and one that a trim has cut by its share
    /// of entries.
    pub(crate) fn kept_bytes(&self) -> u64 {
        let from = self.chunks.partition_point(|chunk| chunk.end <= self.first);
        let (Some(first), Some(last)) = (self.chunks.get(from), self.chunks.back()) else {
            return 0;
        };
        let used = |chunk: &Chunk| u64::from(chunk.used.saturating_sub(self.room.from));
        let full = (self.chunks.len() - from - 1) as u64 * u64::from(self.room.to - self.room.from);
        let cut = self.first.saturating_sub(first.first);
        let entries = (first.end - first.first).max(1);
        let gone = u128::from(used(first)) * u128::from(cut) / u128::from(entries);
        (full + used(last)).saturating_sub(gone as u64)
    }

    /// Opens a chunk at the end.
    pub(crate) fn push(&mut self, home: Option<crate::chunk::Home>, buf: ChunkBuf) {
        if let Some(last) = self.chunks.back_mut() {
            last.closed = true;
        }
        self.chunks.push_back(Chunk {
            first: self.len,
            end: self.len,
            used: self.room.from,
            written: 0,
            follows: false,
            closed: false,
            cuts: self.must_open,
            scanned: true,
            fetching: false,
            batches: 0,
            repaired: None,
            home,
            buf: Some(buf),
        });
        self.must_open = false;
    }

    /// The next `bytes` of the last chunk, which takes them.
    #[inline]
    pub(crate) fn reserved(&mut self, bytes: usize) -> &mut [u8] {
        let chunk = self.chunks.back_mut().expect("the last chunk takes them");
        let used = chunk.used as usize;
        let buf = chunk.buf.as_mut().expect("an open chunk is in memory");
        &mut buf.bytes[used..used + bytes]
    }

    /// Takes over the entries written into the reserved bytes. Returns their number.
    ///
    /// # Panics
    /// If the bytes are not whole entries within the reserved room: our own bug.
    #[inline]
    pub(crate) fn commit(&mut self, bytes: usize) -> u64 {
        let chunk = self
            .chunks
            .back_mut()
            .expect("commit follows a successful reserve");
        let buf = chunk.buf.as_mut().expect("an open chunk is in memory");
        let from = chunk.used as usize;
        let to = from + bytes;
        assert!(
            !chunk.closed && to <= self.room.to as usize,
            "commit of more bytes than were reserved"
        );
        let count = table_hot(
            self.framing,
            &buf.bytes[..to],
            from,
            chunk.follows,
            &mut buf.places,
        );
        chunk.used = to as u32;
        chunk.follows = true;
        chunk.end += count;
        self.len = chunk.end;
        count
    }

    /// The index in `chunks` of the chunk that holds `pos`, which must be in `first..len`.
    #[inline]
    pub(crate) fn find(&self, pos: u64) -> Option<usize> {
        let last = self.chunks.len().checked_sub(1)?;
        if self.chunks[last].first <= pos {
            return Some(last);
        }
        self.chunks
            .partition_point(|chunk| chunk.first <= pos)
            .checked_sub(1)
    }

    /// The longest run from `from` on, below `to`, of at most `bytes_max` bytes but at least one entry.
    #[inline]
    pub(crate) fn run(&self, from: u64, to: u64, bytes_max: usize) -> Found {
        if from < self.first {
            return Found::Trimmed;
        }
        let to = to.min(self.len);
        if from >= to {
            return Found::Beyond;
        }
        let Some(index) = self.find(from) else {
            return Found::Damaged;
        };
        let chunk = &self.chunks[index];
        if from >= chunk.end {
            return Found::Damaged;
        }
        let number = self.base + index as u64;
        let Some(buf) = &chunk.buf else {
            return match chunk.home {
                Some(_) => Found::Away(number),
                None => Found::Damaged,
            };
        };
        let start = (from - chunk.first) as usize;
        let stop = (to.min(chunk.end) - chunk.first) as usize;
        match run_hot(self.framing, buf, start, stop, bytes_max) {
            Some((offset, bytes, count)) => Found::Run(Run {
                chunk: number,
                offset,
                bytes,
                count,
            }),
            None => Found::Damaged,
        }
    }

    /// The chunk of a number, if it is kept.
    #[inline]
    pub(crate) fn chunk(&self, number: u64) -> Option<&Chunk> {
        self.chunks.get(number.checked_sub(self.base)? as usize)
    }

    /// The chunk of a number, if it is kept.
    #[inline]
    pub(crate) fn chunk_mut(&mut self, number: u64) -> Option<&mut Chunk> {
        self.chunks.get_mut(number.checked_sub(self.base)? as usize)
    }

    /// The bytes of the chunk `number`, if they are in memory.
    #[inline]
    pub(crate) fn chunk_bytes(&self, number: u64) -> Option<&[u8]> {
        Some(&self.chunk(number)?.buf.as_ref()?.bytes)
    }

    /// The bytes of the entry at `pos`, if they are in memory and good.
    #[inline]
    pub(crate) fn entry(&self, pos: u64) -> Option<&[u8]> {
        match self.run(pos, pos.checked_add(1)?, 0) {
            Found::Run(run) => {
                let from = run.offset as usize;
                self.chunk_bytes(run.chunk)?
                    .get(from..from + run.bytes as usize)
            }
            _ => None,
        }
    }

    /// Raises the first position kept. A mark beyond the length moves the length there too.
    pub(crate) fn trim(&mut self, upto: u64) {
        if upto <= self.first {
            return;
        }
        self.first = upto;
        if upto > self.len {
            self.len = upto;
            self.emitted = upto;
            if let Some(last) = self.chunks.back_mut() {
                last.closed = true;
            }
        }
        self.flushed = self.flushed.max(upto.min(self.emitted));
        self.damage.trim(upto);
        self.cap = self.damage.cap();
        self.update_durable();
    }

    /// Raises the durable length to what is flushed and not damaged.
    pub(crate) fn update_durable(&mut self) {
        self.durable = self.durable.max(self.flushed.min(self.cap)).max(self.first);
    }

    /// Whether a chunk that records a truncation was not handed to the device.
    pub(crate) fn cut_is_pending(&self) -> bool {
        let from = self.dirty.saturating_sub(self.base) as usize;
        self.must_open
            || self
                .chunks
                .range(from.min(self.chunks.len())..)
                .any(|chunk| chunk.cuts && chunk.written == 0)
    }

    /// The number of the first chunk that is still needed.
    pub(crate) fn first_needed(&self) -> u64 {
        let last = self.chunks.len().saturating_sub(1);
        let dead = self
            .chunks
            .iter()
            .enumerate()
            .take_while(|(index, chunk)| {
                // The chunk being appended to stays; a mark beyond the length leaves it behind.
                chunk.scanned && chunk.end <= self.first && (*index < last || chunk.closed)
            })
            .count();
        self.base + dead as u64
    }

    /// Gives the memory of chunks that are not needed back, if the device has what it is to have: their headers may
    /// record truncations, which the trim does not make void before it is durable.
    pub(crate) fn drop_trimmed_memory(&mut self, pool: &mut Pool) {
        let needed = self.first_needed();
        for number in self.base..needed {
            if let Some(chunk) = self.chunk_mut(number)
                && chunk.batches == 0
                && (chunk.home.is_none() || chunk.written >= chunk.used)
                && let Some(buf) = chunk.buf.take()
            {
                pool.put(buf);
            }
        }
    }

    /// Moves what is missing from `pos` on to the end of the chunk at `index` into the next one, if that has lost its
    /// headers and holds nothing yet.
    pub(crate) fn shift_hole(&mut self, index: usize, pos: u64) -> bool {
        let (end, first) = (self.chunks[index].end, self.chunks[index].first);
        let next = self.chunks.get(index + 1);
        if !next
            .is_some_and(|next| next.home.is_none() && next.first == next.end && next.first == end)
        {
            return false;
        }
        let chunk = &mut self.chunks[index];
        let kept = (pos - first) as usize;
        if let Some(buf) = chunk.buf.as_mut() {
            let entries = buf.places.iter().skip(kept);
            if entries.into_iter().any(|place| !place.is_damaged()) {
                return false;
            }
            buf.places.truncate(kept);
        }
        chunk.end = pos;
        self.chunks[index + 1].first = pos;
        true
    }

    /// Makes the positions from the end of the chunk at `index` up to `end` part of it, missing.
    pub(crate) fn extend_hole(&mut self, index: usize, end: u64) {
        let (framing, to) = (self.framing, self.room.to);
        let chunk = &mut self.chunks[index];
        if let Some(buf) = chunk.buf.as_mut() {
            let used = match buf.places.last() {
                Some(place) if place.is_damaged() => place.offset(),
                Some(place) => {
                    let at = place.offset();
                    let len = framing.entry_bytes(&buf.bytes[at as usize..]);
                    at + len.unwrap_or(0) as u32
                }
                None => self.room.from,
            };
            let room = (to - used) as usize / framing.entry_bytes_min();
            for _ in 0..(end - chunk.end).min(room as u64) {
                buf.places.push(Place::damaged(used));
            }
        }
        chunk.end = end;
    }

    /// Takes the chunk in front off if its number is below `base`.
    pub(crate) fn pop_below(&mut self, base: u64) -> Option<Chunk> {
        if self.base >= base || !self.chunks.front()?.is_quiet() {
            return None;
        }
        self.base += 1;
        self.chunks.pop_front()
    }

    /// Damaged ranges that are not trimmed.
    pub(crate) fn damaged(&self) -> &[DamagedRange] {
        self.damage.ranges()
    }
}

/// Appends the place of each entry of `bytes[from..]` to the table. Returns their number.
#[inline]
fn table_hot(
    framing: Framing,
    bytes: &[u8],
    from: usize,
    follows: bool,
    places: &mut Vec<Place>,
) -> u64 {
    let mut at = from;
    let mut follows = follows;
    let before = places.len();
    while at < bytes.len() {
        let entry = framing
            .entry_bytes(&bytes[at..])
            .expect("committed bytes are whole entries");
        places.push(Place::new(at as u32, follows));
        follows = true;
        at += entry;
    }
    assert!(at == bytes.len(), "committed bytes are whole entries");
    (places.len() - before) as u64
}

/// The longest run from the entry `start` on, before the entry `stop`: offset, bytes, count; `None` if the first is
/// damaged.
#[inline]
fn run_hot(
    framing: Framing,
    buf: &ChunkBuf,
    start: usize,
    stop: usize,
    bytes_max: usize,
) -> Option<(u32, u32, u32)> {
    let places = buf.places.get(start..stop)?;
    let head = *places.first()?;
    if head.is_damaged() {
        return None;
    }
    let offset = head.offset();
    // The end of an entry is the start of the next one where that follows it; only the end of the last entry of the
    // run has to be read from its header.
    let mut count = 1;
    for place in &places[1..] {
        if !place.follows() || (place.offset() - offset) as usize > bytes_max {
            break;
        }
        count += 1;
    }
    loop {
        let last = places[count - 1].offset();
        let end = last as usize + framing.entry_bytes(&buf.bytes[last as usize..])?;
        let bytes = end - offset as usize;
        if bytes <= bytes_max || count == 1 {
            return Some((offset, bytes as u32, count as u32));
        }
        count -= 1;
    }
}
