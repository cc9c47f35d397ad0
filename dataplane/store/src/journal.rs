//! Journal entries: opaque bytes of the machine above, numbered from 1 without holes.
//!
//! ```text
//!  0 magic u32 "IonJ" | 4 length u32 | 8 number u64 | 16 floor u64 | 24 CRC u32 | 28 0 u32 | 32 bytes, padded to 8
//! ```

use ionian_wire::codec::Field;

/// The length of an entry's header in bytes.
pub(crate) const JOURNAL_HEADER_BYTES: usize = 32;
/// The first four bytes of every entry.
pub(crate) const JOURNAL_MAGIC: u32 = u32::from_le_bytes(*b"IonJ");

const ALIGN_BYTES: usize = 8;

/// The encoded length of an entry of `len` bytes.
#[must_use]
pub(crate) const fn journal_encoded_bytes(len: usize) -> usize {
    (JOURNAL_HEADER_BYTES + len).next_multiple_of(ALIGN_BYTES)
}

/// The encoded length of the entry at the front of `bytes`, from its header alone.
#[inline]
pub(crate) fn journal_entry_bytes(bytes: &[u8]) -> Option<usize> {
    let len = bytes.get(4..8)?.first_chunk()?;
    Some(journal_encoded_bytes(u32::from_le_bytes(*len) as usize))
}

/// Writes an entry, not sealed yet. `bytes` is exactly [`journal_encoded_bytes`] long.
pub(crate) fn journal_emit(bytes: &mut [u8], number: u64, body: &[u8]) {
    Field::put(JOURNAL_MAGIC, &mut bytes[0..4]);
    Field::put(
        u32::try_from(body.len()).expect("an entry is smaller than a chunk"),
        &mut bytes[4..8],
    );
    Field::put(number, &mut bytes[8..16]);
    bytes[16..JOURNAL_HEADER_BYTES].fill(0);
    let end = JOURNAL_HEADER_BYTES + body.len();
    bytes[JOURNAL_HEADER_BYTES..end].copy_from_slice(body);
    bytes[end..].fill(0);
}

/// The body of an entry that was checked before.
pub(crate) fn journal_body(bytes: &[u8]) -> Option<&[u8]> {
    let len = u32::take(bytes.get(4..8)?).ok()? as usize;
    bytes.get(JOURNAL_HEADER_BYTES..JOURNAL_HEADER_BYTES + len)
}
