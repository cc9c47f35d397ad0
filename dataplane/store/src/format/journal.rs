//! Journal entries: opaque bytes of the machine above, numbered from 1 without holes.

use ionian_wire::codec::{Field, WireError};
use ionian_wire::crc::crc32c;

/// The length of an entry's header in bytes.
pub const JOURNAL_HEADER_BYTES: usize = 32;
/// The first four bytes of every entry.
pub const JOURNAL_MAGIC: u32 = u32::from_le_bytes(*b"IonJ");

const ALIGN_BYTES: usize = 8;
const CRC_AT: usize = 8;
const COVERED_FROM: usize = 12;

/// The encoded length of an entry of `len` bytes.
#[must_use]
pub const fn journal_encoded_bytes(len: usize) -> usize {
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
    bytes[8..16].fill(0);
    Field::put(number, &mut bytes[16..24]);
    bytes[24..JOURNAL_HEADER_BYTES].fill(0);
    let end = JOURNAL_HEADER_BYTES + body.len();
    bytes[JOURNAL_HEADER_BYTES..end].copy_from_slice(body);
    bytes[end..].fill(0);
}

/// Seals the entry at the front of `bytes`, which was emitted before, with the first number of its batch.
pub(crate) fn journal_seal(bytes: &mut [u8], floor: u64) {
    let len = u32::take(&bytes[4..8]).expect("an emitted entry has a header") as usize;
    Field::put(floor, &mut bytes[24..32]);
    let crc = crc32c(&bytes[COVERED_FROM..JOURNAL_HEADER_BYTES + len]);
    Field::put(crc, &mut bytes[CRC_AT..CRC_AT + 4]);
}

/// The body of an entry that was checked or emitted before.
pub(crate) fn journal_body(bytes: &[u8]) -> Option<&[u8]> {
    let len = u32::take(bytes.get(4..8)?).ok()? as usize;
    bytes.get(JOURNAL_HEADER_BYTES..JOURNAL_HEADER_BYTES + len)
}

/// An entry in bytes from a device, checked when made.
///
/// ```text
///  0 magic u32 "IonJ" | 4 length u32 | 8 CRC u32 (over bytes 12..32 + length) | 12 0 u32 | 16 number u64 | 24 floor u64
/// 32 bytes, padded with zeros to 8
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JournalEntry<'a> {
    /// The entry's number.
    pub number: u64,
    /// The first number of the batch in which the entry was written: all numbers below were durable before.
    pub floor: u64,
    /// The bytes appended.
    pub body: &'a [u8],
}

impl<'a> JournalEntry<'a> {
    /// Checks the entry at the front of `bytes`.
    ///
    /// # Errors
    /// Any [`WireError`]; effect none.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = ionian_wire::Reader::new(bytes);
        let magic: u32 = reader.field()?;
        if magic != JOURNAL_MAGIC {
            return Err(WireError::Range {
                field: "journal magic",
                value: u64::from(magic),
            });
        }
        let len: u32 = reader.field()?;
        let found: u32 = reader.field()?;
        let need = JOURNAL_HEADER_BYTES + len as usize;
        let Some(covered) = bytes.get(COVERED_FROM..need) else {
            return Err(WireError::Truncated {
                need,
                have: bytes.len(),
            });
        };
        let computed = crc32c(covered);
        if found != computed {
            return Err(WireError::Checksum { found, computed });
        }
        let _: u32 = reader.field()?;
        Ok(Self {
            number: reader.field()?,
            floor: reader.field()?,
            body: reader.bytes(len as usize)?,
        })
    }

    /// The encoded length in bytes.
    #[must_use]
    pub const fn encoded_bytes(&self) -> usize {
        journal_encoded_bytes(self.body.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_come_back(number: u64, floor: u64, body: Vec<u8>) {
            let mut bytes = vec![0xee; journal_encoded_bytes(body.len())];
            journal_emit(&mut bytes, number, &body);
            journal_seal(&mut bytes, floor);
            let entry = JournalEntry::new_checked(&bytes).unwrap();
            prop_assert_eq!(entry, JournalEntry { number, floor, body: &body });
            prop_assert_eq!(entry.encoded_bytes(), bytes.len());
            prop_assert_eq!(journal_body(&bytes), Some(&body[..]));
        }

        #[test]
        fn a_flipped_bit_is_seen(body: Vec<u8>, bit: prop::sample::Index) {
            let mut bytes = vec![0; journal_encoded_bytes(body.len())];
            journal_emit(&mut bytes, 3, &body);
            journal_seal(&mut bytes, 2);
            let bit = bit.index((JOURNAL_HEADER_BYTES + body.len()) * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(JournalEntry::new_checked(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = JournalEntry::new_checked(&bytes);
            let _ = journal_entry_bytes(&bytes);
        }
    }
}
