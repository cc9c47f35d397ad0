//! What lies on the device, and why it can be trusted after a crash.
//!
//! ```text
//! superblock 0..3   one block each: whose files these are, geometry, incarnation, trim marks
//! checkpoint n      two headers, two copies of a snapshot of the machine above
//! extent n          a preallocated file of equal chunks; which stream they belong to is in their headers
//! chunk             header | entries, in batches that start at blocks, zeros between | copy of the header
//! ```
//!
//! A stream (one segment, or the journal) is a sequence of numbered chunks; number `c` of a stream lies at
//! `(c mod chunks per extent)` of one extent file. Entries have dense positions. Every block is written once; the only
//! exceptions are the superblocks, and the blocks of a damaged record when a good copy of it replaces it.
//!
//! # Marks
//!
//! On the device the first eight bytes of each entry are xored with a *mark*, a mix of the chunk's *stamp* and the
//! entry's offset in the chunk. The stamp is in the chunk's header, drawn anew each time a chunk is opened from random
//! bits of this process life. So an entry starts where a mark fits, and nowhere else:
//!
//! * a file is recycled without being wiped: what an earlier life wrote has other marks;
//! * a write that landed elsewhere, in this or another file, has the marks of the place it was meant for;
//! * a client cannot put something into a payload that looks like a record, as it does not know the stamp. Otherwise a
//!   scan that has lost its place after a damaged header could be led astray;
//! * the space behind a torn tail is never appended to again under the same stamp: recovery, like truncation, goes on in
//!   a new chunk. What a crash left there cannot come to follow a later record.
//!
//! The bytes after the mark need none: the entry's own checksum covers them, its identity and its position included,
//! so stale or foreign blocks inside an entry are seen (undetected with probability 2^-32 per damaged entry, as for any
//! CRC-32C). Files and chunk numbers are in the headers for the same reason.
//!
//! # Where a segment ends
//!
//! A scan looks for the next entry at every multiple of eight bytes, so a damaged one costs itself alone. What it finds
//! missing *between* valid entries is reported as damaged, whatever the reason: it may be a batch that was never flushed
//! while a later one reached the device, or a flushed record that rotted. Only the cut log knows, so the machine above
//! says how much was committed: below, damage is repaired from a peer; above, everything from the first hole on is void.
//! A tail with nothing valid behind it is void at once. Of the journal nobody else knows how much was committed, hence it
//! is never in two batches at once, and each entry names the first number of its batch: a hole below the batch of a
//! valid entry had been flushed and is damage; a hole within its batch is a torn write.
//!
//! # Truncation
//!
//! A truncation opens a new chunk whose first position lies below the end of the one before: the header is the record of
//! it. All journal entries made after a truncation are written after that header was flushed. Chunks without a record
//! that is kept before them, void or trimmed, are freed once a superblock names the number of the first that is needed.
//! A device that loses the chunk of a truncation altogether gives the void entries back: only the owners of positions
//! tell then ([`crate::Store::set_owners`]).
//!
//! # What needs no scan
//!
//! Each chunk header says how much of the stream was durable when the chunk was opened. A chunk that lies below that,
//! and whose successor is there, is not read at start; it is checked when it is first read back.

mod checkpoint;
mod chunk;
mod journal;
mod scan;
mod superblock;

pub use checkpoint::{CHECKPOINT_HEADER_BYTES, CheckpointHeader, CheckpointPlan};
pub use chunk::{CHUNK_HEADER_BYTES, ChunkHeader, JOURNAL_STREAM, mark, mix};
pub use journal::{JOURNAL_HEADER_BYTES, JOURNAL_MAGIC, JournalEntry, journal_encoded_bytes};
pub(crate) use journal::{journal_body, journal_emit, journal_entry_bytes, journal_seal};
pub use scan::{Framing, Place, ScanEnd, ScanPlan, scan};
pub use superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_COPIES, Superblock, SuperblockError};

/// Numbers in headers lie below this: a sound checksum over a number that cannot be is damage too, and arithmetic on
/// numbers that passed does not overflow.
pub const NUMBER_MAX: u64 = 1 << 62;

/// Refuses a number that no store has ever counted to.
pub(crate) fn sound(field: &'static str, value: u64) -> Result<u64, ionian_wire::WireError> {
    if value < NUMBER_MAX {
        Ok(value)
    } else {
        Err(ionian_wire::WireError::Range { field, value })
    }
}

/// Why bytes of a fixed format are not what they claim to be. Effect: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Too short, or a magic, version or checksum that is wrong.
    #[error(transparent)]
    Wire(#[from] ionian_wire::WireError),
    /// Another magic: something else, or nothing, is here.
    #[error("magic {found:#018x}, expected {expected:#018x}")]
    Magic {
        /// What is there.
        found: u64,
        /// What should be.
        expected: u64,
    },
}

/// A field-by-field reader that has checked magic and checksum of a fixed block.
pub(crate) fn checked<const N: usize>(
    bytes: &[u8],
    magic: u64,
) -> Result<ionian_wire::Reader<'_>, FormatError> {
    use ionian_wire::codec::Field;
    let mut whole = ionian_wire::Reader::new(bytes);
    let body = whole.bytes(N)?;
    let found = u64::take(body)?;
    if found != magic {
        return Err(FormatError::Magic {
            found,
            expected: magic,
        });
    }
    let stored = u32::take(&body[N - 4..])?;
    let computed = ionian_wire::crc::crc32c(&body[..N - 4]);
    if stored != computed {
        return Err(ionian_wire::WireError::Checksum {
            found: stored,
            computed,
        }
        .into());
    }
    let mut reader = ionian_wire::Reader::new(&body[..N - 4]);
    let _: u64 = reader.field()?;
    Ok(reader)
}
