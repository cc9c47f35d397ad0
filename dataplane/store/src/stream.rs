//! A stream: the chunks of one segment or of the journal, in order, with the entries found by position.
//!
//! Positions are dense. A chunk knows the positions it holds (`first..end`) for as long as it is kept, whether its bytes
//! are in memory or not; within a resident chunk a table gives the place of each entry. Finding a position is a binary
//! search over chunks, mostly answered by the last one, and one table look-up. An entry, and a run handed out, never
//! crosses a chunk. Reserving never takes memory from a chunk that is still held, so a run stays good for the whole
//! turn in which it was found.

use std::collections::VecDeque;

use crate::chunk::{ChunkBuf, Framing, Place, Pool};
use crate::error::StoreError;

/// Where entries may lie in a chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// First byte of the first entry.
    pub(crate) from: u32,
    /// The byte after the last entry.
    pub(crate) to: u32,
}

/// One chunk of a stream.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Position of its first entry.
    pub(crate) first: u64,
    /// The position after its last entry.
    pub(crate) end: u64,
    /// Bytes in use from the chunk's start.
    pub(crate) used: u32,
    /// Whether the next entry starts where the last one ends.
    pub(crate) follows: bool,
    /// The bytes, while they are in memory.
    pub(crate) buf: Option<ChunkBuf>,
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
    /// The contiguous prefix held at the class.
    pub(crate) durable: u64,
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
        }
    }

    /// Room for `bytes` at the end of the stream, in a new chunk if need be.
    #[inline]
    pub(crate) fn reserve(
        &mut self,
        bytes: usize,
        pool: &mut Pool,
    ) -> Result<&mut [u8], StoreError> {
        let fits = self
            .chunks
            .back()
            .is_some_and(|c| c.end == self.len && (self.room.to - c.used) as usize >= bytes);
        if !fits {
            self.open_chunk(bytes, pool)?;
        }
        let chunk = self
            .chunks
            .back_mut()
            .expect("a chunk was there or was opened");
        let used = chunk.used as usize;
        let buf = chunk.buf.as_mut().expect("the last chunk is in memory");
        Ok(&mut buf.bytes[used..used + bytes])
    }

    #[cold]
    fn open_chunk(&mut self, bytes: usize, pool: &mut Pool) -> Result<(), StoreError> {
        if bytes > (self.room.to - self.room.from) as usize {
            return Err(StoreError::TooLarge);
        }
        let buf = pool.take().ok_or(StoreError::Full)?;
        self.chunks.push_back(Chunk {
            first: self.len,
            end: self.len,
            used: self.room.from,
            follows: false,
            buf: Some(buf),
        });
        Ok(())
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
        let buf = chunk
            .buf
            .as_mut()
            .expect("commit follows a successful reserve");
        let from = chunk.used as usize;
        let to = from + bytes;
        assert!(
            to <= self.room.to as usize,
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
            return Found::Away(number);
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

    /// The bytes of the chunk `number`, if they are in memory.
    #[inline]
    pub(crate) fn chunk_bytes(&self, number: u64) -> Option<&[u8]> {
        let index = number.checked_sub(self.base)? as usize;
        Some(&self.chunks.get(index)?.buf.as_ref()?.bytes)
    }

    /// The bytes from the start of the entry at `pos` to the end of its chunk, if they are in memory.
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

    /// Drops the entries at `len..` from memory. For streams that are on no device.
    pub(crate) fn truncate_memory(&mut self, len: u64, pool: &mut Pool) {
        let len = len.max(self.first);
        if len >= self.len {
            return;
        }
        while let Some(chunk) = self.chunks.back_mut() {
            if chunk.first < len || (chunk.first == len && self.chunks.len() == 1) {
                break;
            }
            if let Some(buf) = self.chunks.pop_back().and_then(|chunk| chunk.buf) {
                pool.put(buf);
            }
        }
        if let Some(chunk) = self.chunks.back_mut() {
            let kept = (len - chunk.first) as usize;
            if let Some(buf) = chunk.buf.as_mut()
                && let Some(&place) = buf.places.get(kept)
            {
                chunk.used = place.offset();
                chunk.follows = place.follows();
                buf.places.truncate(kept);
            }
            chunk.end = len;
        }
        self.len = len;
        self.durable = self.durable.min(len);
    }

    /// Raises the first position kept. A mark beyond the length moves the length there too. Chunks are freed by
    /// [`Self::free_trimmed`].
    pub(crate) fn trim(&mut self, upto: u64) {
        if upto <= self.first {
            return;
        }
        self.first = upto;
        self.durable = self.durable.max(upto);
        self.len = self.len.max(upto);
    }

    /// Takes the first chunk off if nothing in it is kept and it is not the one being written.
    pub(crate) fn pop_trimmed(&mut self) -> Option<Chunk> {
        let last = self.chunks.len() == 1;
        let front = self.chunks.front()?;
        // A mark beyond the length leaves the last chunk behind as well: its successor starts at the mark.
        if front.end > self.first || (last && front.end == self.len) {
            return None;
        }
        self.base += 1;
        self.chunks.pop_front()
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
    let places = &buf.places[start..stop];
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
