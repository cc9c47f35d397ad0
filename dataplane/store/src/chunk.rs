//! Chunks of memory: bytes, the table of where each entry starts, and the pool they come from and go back to.
//!
//! The pool makes chunks on demand up to a limit and never frees one, so that steady state allocates nothing.

use ionian_wire::record::{RECORD_ALIGN_BYTES, RECORD_HEADER_BYTES, encoded_bytes};

use crate::journal::{JOURNAL_HEADER_BYTES, journal_entry_bytes};

/// How entries lie in a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Framing {
    /// Records of `ionian_wire::record`.
    Records,
    /// Entries of [`crate::journal`].
    Journal,
}

impl Framing {
    /// The encoded length of the entry at the front of `bytes`, or `None` if not even its header is there.
    #[inline]
    pub(crate) fn entry_bytes(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Records => {
                let payload = bytes.get(68..72)?.first_chunk()?;
                Some(encoded_bytes(u32::from_le_bytes(*payload) as usize))
            }
            Self::Journal => journal_entry_bytes(bytes),
        }
    }

    /// The length of the smallest entry in bytes.
    pub(crate) const fn entry_bytes_min(self) -> usize {
        match self {
            Self::Records => RECORD_HEADER_BYTES,
            Self::Journal => JOURNAL_HEADER_BYTES,
        }
    }
}

/// Where an entry starts in its chunk, and whether it follows its predecessor without padding between them. Entries
/// start at multiples of eight, which leaves the low bit for that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place(u32);

impl Place {
    pub(crate) const fn new(offset: u32, follows: bool) -> Self {
        debug_assert!(offset.is_multiple_of(RECORD_ALIGN_BYTES as u32));
        Self(offset | !follows as u32)
    }

    #[inline]
    pub(crate) const fn is_damaged(self) -> bool {
        self.0 == u32::MAX
    }

    #[inline]
    pub(crate) const fn offset(self) -> u32 {
        self.0 & !7
    }

    /// Whether the entry starts where the one before it ends. False for a damaged one.
    #[inline]
    pub(crate) const fn follows(self) -> bool {
        self.0 & 1 == 0
    }
}

/// One chunk of memory.
#[derive(Debug)]
pub(crate) struct ChunkBuf {
    /// The bytes, as on the device but for the marks.
    pub(crate) bytes: Vec<u8>,
    /// One place per position of the chunk.
    pub(crate) places: Vec<Place>,
}

/// Chunks of one size.
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

    /// Bytes of memory in chunks, free ones included.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.made as u64 * self.chunk_bytes as u64
    }
}
