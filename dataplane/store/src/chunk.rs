//! Chunks: bytes in memory with the table of where each entry starts, what is known of them on the device, and the pool
//! that their memory comes from.
//!
//! The pool makes memory on demand up to a limit and never frees any, so that steady state allocates nothing. That of the
//! journal makes all of it at once: it fills and empties so slowly, from checkpoint to checkpoint, that no warm-up would
//! reach its steady state.

use crate::format::{Framing, Place};
use crate::op::FileNo;

/// One chunk of memory.
#[derive(Debug)]
pub(crate) struct ChunkBuf {
    /// The bytes, as on the device but for the marks (see [`mod@crate::format`]).
    pub(crate) bytes: Vec<u8>,
    /// One place per position of the chunk.
    pub(crate) places: Vec<Place>,
}

/// Where a chunk lies on the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Home {
    pub(crate) file: FileNo,
    /// Offset in the file in bytes.
    pub(crate) at: u64,
    /// Seed of the marks.
    pub(crate) stamp: u64,
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
    /// Bytes handed to the device from the chunk's start; 0 while not even its header was.
    pub(crate) written: u32,
    /// Whether the next entry starts where the last one ends.
    pub(crate) follows: bool,
    /// Nothing is appended any more.
    pub(crate) closed: bool,
    /// It was opened to record a truncation.
    pub(crate) cuts: bool,
    /// Whether `end` is final, or the least upper bound known before a scan.
    pub(crate) scanned: bool,
    /// A read of it is queued or under way.
    pub(crate) fetching: bool,
    /// Batches in flight that write to it.
    pub(crate) batches: u8,
    /// Bytes changed by repairs and not yet handed to the device: from, to.
    pub(crate) repaired: Option<(u32, u32)>,
    /// Where it lies; `None` in memory-only streams and for a chunk whose headers are lost.
    pub(crate) home: Option<Home>,
    /// The bytes, while they are in memory.
    pub(crate) buf: Option<ChunkBuf>,
}

impl Chunk {
    /// Whether its memory may be taken away because the device has all of it.
    pub(crate) const fn is_evictable(&self) -> bool {
        self.closed
            && self.batches == 0
            && !self.fetching
            && self.written >= self.used
            && self.repaired.is_none()
    }

    /// Whether no operation on its file is queued or in flight.
    pub(crate) const fn is_quiet(&self) -> bool {
        self.batches == 0 && !self.fetching
    }
}

/// Memory for chunks of one size.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Vec<ChunkBuf>,
    made: usize,
    made_max: usize,
    chunk_bytes: usize,
    places_max: usize,
}

impl Pool {
    pub(crate) fn new(framing: Framing, chunk_bytes: u32, made_max: usize) -> Self {
        Self {
            free: Vec::with_capacity(made_max.min(1 << 16)),
            made: 0,
            made_max,
            chunk_bytes: chunk_bytes as usize,
            places_max: chunk_bytes as usize / framing.entry_bytes_min() + 1,
        }
    }

    /// The same pool with all its memory made: address space only, until it is written.
    pub(crate) fn filled(mut self) -> Self {
        while let Some(buf) = self.make() {
            self.free.push(buf);
        }
        self
    }

    /// A chunk with an empty table and bytes of any content.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<ChunkBuf> {
        match self.free.pop() {
            Some(mut buf) => {
                buf.places.clear();
                Some(buf)
            }
            None => self.make(),
        }
    }

    #[cold]
    fn make(&mut self) -> Option<ChunkBuf> {
        if self.made == self.made_max {
            return None;
        }
        self.made += 1;
        Some(ChunkBuf {
            bytes: vec![0; self.chunk_bytes],
            places: Vec::with_capacity(self.places_max),
        })
    }

    pub(crate) fn put(&mut self, buf: ChunkBuf) {
        self.free.push(buf);
    }

    /// Chunks that [`Self::take`] can still give.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + (self.made_max - self.made)
    }

    /// Most chunks ever.
    pub(crate) const fn made_max(&self) -> usize {
        self.made_max
    }

    /// Bytes of memory in chunks, free ones and never written ones included.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.made as u64 * self.chunk_bytes as u64
    }
}
