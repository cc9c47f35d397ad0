//! The record: one header layout on the wire, in memory and on disk.
//!
//! ```text
//!  0 magic u32 | 4 version u8 | 5 kind u8 | 6 flags u16
//!  8 log u32 | 12 shard u32 | 16 slot u8 | 17 0 x3 | 20 namespace epoch u32
//! 24 generation u64 | 32 position u64 | 40 guard epoch u64
//! 48 client u128 | 64 session u32 | 68 payload bytes u32 | 72 sequence u64
//! 80 payload CRC u32 | 84 header CRC u32 (over bytes 0..84) | 88 payload, padded with zeros to 8
//! ```
//! The header checksum covers the payload's, and both cover the record's identity, so that a misdirected write is seen.
//! The client computes the payload checksum once; it is checked at every hop and on disk. The primary fills in the
//! fields that placing the record decides (log .. guard epoch) and seals the header.

use ionian_types::{
    CellKey, ClientId, ClientSeq, GapKind, GuardEpoch, LogId, Lsn, NsEpoch, RECORD_BYTES_MAX,
    SegmentId, SessionNo, ShardId, Slot, ViewId,
};

use crate::codec::{Field, WireError};
use crate::crc::crc32c;

/// The length of a record header in bytes.
pub const RECORD_HEADER_BYTES: usize = 88;
/// Records start at multiples of this many bytes.
pub const RECORD_ALIGN_BYTES: usize = 8;
/// The largest encoded record in bytes.
pub const RECORD_ENCODED_BYTES_MAX: usize = encoded_bytes(RECORD_BYTES_MAX);
/// The first four bytes of every record: "IonR".
pub const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"IonR");

const VERSION: u8 = crate::DISK_VERSION as u8;
const HEADER_CRC_AT: usize = 84;

/// The encoded length of a record with a payload of `payload` bytes.
#[must_use]
pub const fn encoded_bytes(payload: usize) -> usize {
    (RECORD_HEADER_BYTES + payload).next_multiple_of(RECORD_ALIGN_BYTES)
}

/// What a record holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordKind {
    /// A user's payload.
    Data,
    /// A cell that will never hold data.
    Gap(GapKind),
}

impl RecordKind {
    const fn code(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Gap(kind) => kind.code(),
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Data),
            code => match GapKind::from_code(code) {
                Some(kind) => Some(Self::Gap(kind)),
                None => None,
            },
        }
    }
}

/// A record header, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// Data or gap.
    pub kind: RecordKind,
    /// Reserved for later use; 0.
    pub flags: u16,
    /// The log.
    pub log: LogId,
    /// The segment.
    pub segment: SegmentId,
    /// The namespace epoch; 0 in modes without one.
    pub ns_epoch: NsEpoch,
    /// The generation of the segment that owns the record.
    pub generation: ViewId,
    /// The position in the segment, or the index in its namespace epoch.
    pub position: Lsn,
    /// The guard epoch under which the record was written.
    pub guard: GuardEpoch,
    /// The client.
    pub client: ClientId,
    /// The client's session.
    pub session: SessionNo,
    /// The client's sequence number within the session.
    pub seq: ClientSeq,
    /// The payload's length in bytes, at most [`RECORD_BYTES_MAX`].
    pub payload_bytes: u32,
    /// CRC-32C of the payload.
    pub payload_crc: u32,
}

impl RecordHeader {
    /// The cell that the record fills.
    #[must_use]
    pub fn key(&self) -> CellKey {
        CellKey {
            log: self.log,
            segment: self.segment,
            ns_epoch: self.ns_epoch,
            index: self.position.get(),
        }
    }

    /// The encoded length of the whole record.
    #[must_use]
    pub const fn encoded_bytes(&self) -> usize {
        encoded_bytes(self.payload_bytes as usize)
    }

    /// Writes the header, sealed with its checksum.
    ///
    /// # Panics
    /// If `bytes` is shorter than [`RECORD_HEADER_BYTES`].
    pub fn emit(&self, bytes: &mut [u8]) {
        let bytes = &mut bytes[..RECORD_HEADER_BYTES];
        Field::put(RECORD_MAGIC, &mut bytes[0..4]);
        bytes[4] = VERSION;
        bytes[5] = self.kind.code();
        Field::put(self.flags, &mut bytes[6..8]);
        self.client.put(&mut bytes[48..64]);
        self.session.put(&mut bytes[64..68]);
        Field::put(self.payload_bytes, &mut bytes[68..72]);
        self.seq.put(&mut bytes[72..80]);
        Field::put(self.payload_crc, &mut bytes[80..84]);
        let place = Placement {
            log: self.log,
            segment: self.segment,
            ns_epoch: self.ns_epoch,
            generation: self.generation,
            position: self.position,
            guard: self.guard,
        };
        place.seal(bytes);
    }
}

/// The part of a header that placing the record decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The log.
    pub log: LogId,
    /// The segment.
    pub segment: SegmentId,
    /// The namespace epoch.
    pub ns_epoch: NsEpoch,
    /// The generation.
    pub generation: ViewId,
    /// The position.
    pub position: Lsn,
    /// The guard epoch.
    pub guard: GuardEpoch,
}

impl Placement {
    /// Writes the placement into an encoded header and seals it with its checksum.
    ///
    /// # Panics
    /// If `header` is shorter than [`RECORD_HEADER_BYTES`].
    #[inline]
    pub fn seal(&self, header: &mut [u8]) {
        let header: &mut [u8; RECORD_HEADER_BYTES] = header
            .first_chunk_mut()
            .expect("a header is at least RECORD_HEADER_BYTES long");
        self.log.put(&mut header[8..12]);
        self.segment.shard.put(&mut header[12..16]);
        header[16] = self.segment.slot.get();
        header[17..20].fill(0);
        self.ns_epoch.put(&mut header[20..24]);
        self.generation.put(&mut header[24..32]);
        self.position.put(&mut header[32..40]);
        self.guard.put(&mut header[40..48]);
        let crc = crc32c(&header[..HEADER_CRC_AT]);
        Field::put(crc, &mut header[HEADER_CRC_AT..]);
    }
}

/// A record in bytes that somebody else supplied, checked when made.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    bytes: &'a [u8],
    header: RecordHeader,
}

impl<'a> RecordView<'a> {
    /// Checks the record at the front of `bytes` completely, both checksums included. Bytes after it are ignored.
    ///
    /// # Errors
    /// Any [`WireError`]; effect none.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        let view = Self::new_unsealed(bytes)?;
        let found = u32::take(&bytes[HEADER_CRC_AT..])?;
        let computed = crc32c(&bytes[..HEADER_CRC_AT]);
        if found != computed {
            return Err(WireError::Checksum { found, computed });
        }
        Ok(view)
    }

    /// Checks the record at the front of `bytes` but for the header checksum: what a client sends, before the primary
    /// has placed and sealed it.
    ///
    /// # Errors
    /// Any [`WireError`]; effect none.
    pub fn new_unsealed(bytes: &'a [u8]) -> Result<Self, WireError> {
        let header = parse_header(bytes)?;
        let total = header.encoded_bytes();
        let Some(bytes) = bytes.get(..total) else {
            return Err(WireError::Truncated {
                need: total,
                have: bytes.len(),
            });
        };
        let payload =
            &bytes[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + header.payload_bytes as usize];
        let computed = crc32c(payload);
        if computed != header.payload_crc {
            return Err(WireError::Checksum {
                found: header.payload_crc,
                computed,
            });
        }
        Ok(Self { bytes, header })
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &RecordHeader {
        &self.header
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + self.header.payload_bytes as usize]
    }

    /// The whole record, padding included.
    #[must_use]
    pub const fn encoded(&self) -> &'a [u8] {
        self.bytes
    }
}

/// Decodes a header without looking at checksums or payload: for walking bytes that were checked before.
///
/// # Errors
/// [`WireError::Truncated`], [`WireError::Range`] or [`WireError::Version`]; effect none.
#[inline]
pub fn parse_header(bytes: &[u8]) -> Result<RecordHeader, WireError> {
    let Some(b) = bytes.first_chunk::<RECORD_HEADER_BYTES>() else {
        return Err(WireError::Truncated {
            need: RECORD_HEADER_BYTES,
            have: bytes.len(),
        });
    };
    let magic = u32::take(&b[0..4])?;
    if magic != RECORD_MAGIC {
        return Err(WireError::Range {
            field: "record magic",
            value: u64::from(magic),
        });
    }
    if b[4] != VERSION {
        return Err(WireError::Version {
            found: u16::from(b[4]),
            known: u16::from(VERSION),
        });
    }
    let kind = RecordKind::from_code(b[5]).ok_or(WireError::Range {
        field: "record kind",
        value: u64::from(b[5]),
    })?;
    let payload_bytes = u32::take(&b[68..72])?;
    if payload_bytes as usize > RECORD_BYTES_MAX {
        return Err(WireError::Range {
            field: "payload_bytes",
            value: u64::from(payload_bytes),
        });
    }
    Ok(RecordHeader {
        kind,
        flags: u16::take(&b[6..8])?,
        log: LogId::take(&b[8..12])?,
        segment: SegmentId {
            shard: ShardId::take(&b[12..16])?,
            slot: Slot::new(b[16]),
        },
        ns_epoch: NsEpoch::take(&b[20..24])?,
        generation: ViewId::take(&b[24..32])?,
        position: Lsn::take(&b[32..40])?,
        guard: GuardEpoch::take(&b[40..48])?,
        client: ClientId::take(&b[48..64])?,
        session: SessionNo::take(&b[64..68])?,
        seq: ClientSeq::take(&b[72..80])?,
        payload_bytes,
        payload_crc: u32::take(&b[80..84])?,
    })
}

/// The payload length that a header states, for walking records whose headers were checked before.
///
/// # Panics
/// If `header` is shorter than [`RECORD_HEADER_BYTES`].
#[must_use]
#[inline]
pub fn payload_bytes(header: &[u8]) -> usize {
    let header: &[u8; RECORD_HEADER_BYTES] = header
        .first_chunk()
        .expect("a header is at least RECORD_HEADER_BYTES long");
    u32::from_le_bytes([header[68], header[69], header[70], header[71]]) as usize
}

/// Emits a record as a client does: identity and payload, not yet placed or sealed. Returns the encoded length.
///
/// # Errors
/// [`WireError::Full`] when `bytes` is too short, [`WireError::Range`] for an oversize payload; effect none.
#[inline]
pub fn emit_unplaced(
    bytes: &mut [u8],
    client: ClientId,
    session: SessionNo,
    seq: ClientSeq,
    payload: &[u8],
) -> Result<usize, WireError> {
    if payload.len() > RECORD_BYTES_MAX {
        return Err(WireError::Range {
            field: "payload_bytes",
            value: payload.len() as u64,
        });
    }
    let total = encoded_bytes(payload.len());
    let room = bytes.len();
    let Some(bytes) = bytes.get_mut(..total) else {
        return Err(WireError::Full { need: total, room });
    };
    Field::put(RECORD_MAGIC, &mut bytes[0..4]);
    bytes[4] = VERSION;
    bytes[5..48].fill(0);
    client.put(&mut bytes[48..64]);
    session.put(&mut bytes[64..68]);
    Field::put(payload.len() as u32, &mut bytes[68..72]);
    seq.put(&mut bytes[72..80]);
    Field::put(crc32c(payload), &mut bytes[80..84]);
    bytes[84..88].fill(0);
    bytes[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + payload.len()].copy_from_slice(payload);
    bytes[RECORD_HEADER_BYTES + payload.len()..].fill(0);
    Ok(total)
}

/// Walks records that lie back to back. Stops at the end or at the first record that fails its check; `rest` then
/// still holds it.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    sealed: bool,
}

impl<'a> Records<'a> {
    /// Walks sealed records, checking both checksums of each.
    #[must_use]
    pub const fn sealed(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            sealed: true,
        }
    }

    /// Walks records that are not placed yet, checking the payload checksum of each.
    #[must_use]
    pub const fn unplaced(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            sealed: false,
        }
    }

    /// The bytes not yet walked. Empty when every record was good.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, WireError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let view = if self.sealed {
            RecordView::new_checked(self.rest)
        } else {
            RecordView::new_unsealed(self.rest)
        };
        match view {
            Ok(view) => {
                self.rest = &self.rest[view.encoded().len()..];
                Some(Ok(view))
            }
            Err(error) => {
                // The caller sees the error once; walking on over bad bytes would be guessing.
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests;
