//! The header of a chunk, and the marks of the entries in it.

use ionian_types::{ClusterId, Inc, LogId, NodeId, ShardId};
use ionian_wire::codec::{Field, WireError, Writer};
use ionian_wire::crc::crc32c;

use super::{FormatError, checked, sound};
use crate::op::FileNo;

/// The length of a chunk header in bytes.
pub const CHUNK_HEADER_BYTES: usize = 112;
/// The stream number of the journal; segments are numbered by slot.
pub const JOURNAL_STREAM: u8 = 0xff;

const MAGIC: u64 = u64::from_le_bytes(*b"IonChunk");

/// The first and the last block of a chunk begin with this.
///
/// ```text
///  0 magic u64 | 8 version u16 | 10 stream u8 | 11 0 | 12 chunk bytes u32
/// 16 cluster u128 | 32 node u32 | 36 log u32 | 40 shard u32 | 44 0 u32
/// 48 number u64 | 56 first u64 | 64 durable u64 | 72 life u64 | 80 stamp u64 | 88 incarnation u64 | 96 file u64
/// 104 0 u32 | 108 CRC u32 (over bytes 0..108)
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkHeader {
    /// The slot of the segment, or [`JOURNAL_STREAM`].
    pub stream: u8,
    /// Size of the chunk in bytes.
    pub chunk_bytes: u32,
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The log.
    pub log: LogId,
    /// The shard.
    pub shard: ShardId,
    /// The chunk's number in its stream.
    pub number: u64,
    /// The position of its first entry. Positions from here on in earlier chunks are void.
    pub first: u64,
    /// Positions below were durable when the chunk was opened.
    pub durable: u64,
    /// Counts openings of chunks in this store: of two headers for one chunk the greater is the later.
    pub life: u64,
    /// The seed of the marks.
    pub stamp: u64,
    /// The incarnation that opened the chunk.
    pub inc: Inc,
    /// The file this header was written to.
    pub file: FileNo,
}

impl ChunkHeader {
    /// Writes the header to the front of `bytes`.
    ///
    /// # Panics
    /// If `bytes` is shorter than [`CHUNK_HEADER_BYTES`].
    pub fn emit(&self, bytes: &mut [u8]) {
        let bytes = &mut bytes[..CHUNK_HEADER_BYTES];
        let mut writer = Writer::new(bytes);
        self.put(&mut writer)
            .expect("the fields are as long as the header");
        let crc = crc32c(&bytes[..CHUNK_HEADER_BYTES - 4]);
        Field::put(crc, &mut bytes[CHUNK_HEADER_BYTES - 4..]);
    }

    fn put(&self, writer: &mut Writer<'_>) -> Result<(), WireError> {
        writer.field(MAGIC)?;
        writer.field(ionian_wire::DISK_VERSION)?;
        writer.field(self.stream)?;
        writer.field(0u8)?;
        writer.field(self.chunk_bytes)?;
        writer.field(self.cluster)?;
        writer.field(self.node)?;
        writer.field(self.log)?;
        writer.field(self.shard)?;
        writer.field(0u32)?;
        writer.field(self.number)?;
        writer.field(self.first)?;
        writer.field(self.durable)?;
        writer.field(self.life)?;
        writer.field(self.stamp)?;
        writer.field(self.inc)?;
        writer.field(self.file.get())?;
        writer.field(0u32)
    }

    /// Decodes and checks the header at the front of `bytes`.
    ///
    /// # Errors
    /// [`FormatError`] for anything but a whole header of this version; effect none.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = checked::<CHUNK_HEADER_BYTES>(bytes, MAGIC)?;
        let version: u16 = reader.field()?;
        if version != ionian_wire::DISK_VERSION {
            return Err(WireError::Version {
                found: version,
                known: ionian_wire::DISK_VERSION,
            }
            .into());
        }
        let stream = reader.field()?;
        let _: u8 = reader.field()?;
        let chunk_bytes = reader.field()?;
        let cluster = reader.field()?;
        let node = reader.field()?;
        let log = reader.field()?;
        let shard = reader.field()?;
        let _: u32 = reader.field()?;
        Ok(Self {
            stream,
            chunk_bytes,
            cluster,
            node,
            log,
            shard,
            number: sound("number", reader.field()?)?,
            first: sound("first", reader.field()?)?,
            durable: sound("durable", reader.field()?)?,
            life: sound("life", reader.field()?)?,
            stamp: reader.field()?,
            inc: reader.field()?,
            file: FileNo::new(reader.field()?),
        })
    }
}

/// Spreads the bits of a number over 64 bits; one to one (the finalizer of SplitMix64, Steele et al., OOPSLA 2014).
#[must_use]
#[inline]
pub const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The mark of an entry that starts `offset` bytes into a chunk with this stamp.
#[must_use]
#[inline]
pub const fn mark(stamp: u64, offset: u32) -> u64 {
    mix(stamp.wrapping_add((offset as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> ChunkHeader {
        ChunkHeader {
            stream: 2,
            chunk_bytes: 4096,
            cluster: ClusterId::new(1),
            node: NodeId::new(2),
            log: LogId::new(3),
            shard: ShardId::new(4),
            number: 5,
            first: 6,
            durable: 7,
            life: 8,
            stamp: 9,
            inc: Inc::new(10),
            file: FileNo::new(11),
        }
    }

    #[test]
    fn a_header_comes_back_and_any_flipped_bit_is_seen() {
        let mut bytes = [0u8; CHUNK_HEADER_BYTES];
        header().emit(&mut bytes);
        assert_eq!(ChunkHeader::parse(&bytes), Ok(header()));
        for bit in 0..CHUNK_HEADER_BYTES * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(ChunkHeader::parse(&bad).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = ChunkHeader::parse(&bytes);
        }
    }
}
