//! The file of a checkpoint: two headers, two copies of a snapshot.

use ionian_types::{ClusterId, LogId, NodeId, ShardId};
use ionian_wire::codec::{Field, WireError, Writer};
use ionian_wire::crc::crc32c;

use super::{FormatError, checked, sound};

/// The length of a checkpoint header in bytes.
pub const CHECKPOINT_HEADER_BYTES: usize = 80;

const MAGIC: u64 = u64::from_le_bytes(*b"IonCheck");

/// The first and the second block of a checkpoint file begin with this.
///
/// ```text
///  0 magic u64 | 8 version u16 | 10 0 u16 | 12 body CRC u32 | 16 cluster u128 | 32 node u32 | 36 log u32 | 40 shard u32
/// 44 0 u32 | 48 number u64 | 56 upto u64 | 64 body bytes u64 | 72 0 u32 | 76 CRC u32 (over bytes 0..76)
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckpointHeader {
    /// CRC-32C of the snapshot.
    pub body_crc: u32,
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The log.
    pub log: LogId,
    /// The shard.
    pub shard: ShardId,
    /// The number of the file.
    pub number: u64,
    /// The last journal entry that the snapshot covers.
    pub upto: u64,
    /// The snapshot's length in bytes.
    pub body_bytes: u64,
}

impl CheckpointHeader {
    /// Writes the header to the front of `bytes`.
    ///
    /// # Panics
    /// If `bytes` is shorter than [`CHECKPOINT_HEADER_BYTES`].
    pub fn emit(&self, bytes: &mut [u8]) {
        let bytes = &mut bytes[..CHECKPOINT_HEADER_BYTES];
        let mut writer = Writer::new(bytes);
        self.put(&mut writer)
            .expect("the fields are as long as the header");
        let crc = crc32c(&bytes[..CHECKPOINT_HEADER_BYTES - 4]);
        Field::put(crc, &mut bytes[CHECKPOINT_HEADER_BYTES - 4..]);
    }

    fn put(&self, writer: &mut Writer<'_>) -> Result<(), WireError> {
        writer.field(MAGIC)?;
        writer.field(ionian_wire::DISK_VERSION)?;
        writer.field(0u16)?;
        writer.field(self.body_crc)?;
        writer.field(self.cluster)?;
        writer.field(self.node)?;
        writer.field(self.log)?;
        writer.field(self.shard)?;
        writer.field(0u32)?;
        writer.field(self.number)?;
        writer.field(self.upto)?;
        writer.field(self.body_bytes)?;
        writer.field(0u32)
    }

    /// Decodes and checks the header at the front of `bytes`.
    ///
    /// # Errors
    /// [`FormatError`] for anything but a whole header of this version; effect none.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = checked::<CHECKPOINT_HEADER_BYTES>(bytes, MAGIC)?;
        let version: u16 = reader.field()?;
        if version != ionian_wire::DISK_VERSION {
            return Err(WireError::Version {
                found: version,
                known: ionian_wire::DISK_VERSION,
            }
            .into());
        }
        let _: u16 = reader.field()?;
        let body_crc = reader.field()?;
        let cluster = reader.field()?;
        let node = reader.field()?;
        let log = reader.field()?;
        let shard = reader.field()?;
        let _: u32 = reader.field()?;
        Ok(Self {
            body_crc,
            cluster,
            node,
            log,
            shard,
            number: sound("number", reader.field()?)?,
            upto: sound("upto", reader.field()?)?,
            body_bytes: sound("body_bytes", reader.field()?)?,
        })
    }
}

/// Where the parts of a checkpoint file lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckpointPlan {
    /// The block in bytes.
    pub block_bytes: u32,
    /// The snapshot's length in bytes.
    pub body_bytes: u64,
}

impl CheckpointPlan {
    /// The snapshot's length in whole blocks, in bytes.
    #[must_use]
    pub const fn body_blocks_bytes(&self) -> u64 {
        self.body_bytes.next_multiple_of(self.block_bytes as u64)
    }

    /// Offset of copy 0 or 1 of the header.
    #[must_use]
    pub const fn header_at(&self, copy: u64) -> u64 {
        copy * self.block_bytes as u64
    }

    /// Offset of copy 0 or 1 of the snapshot.
    #[must_use]
    pub const fn body_at(&self, copy: u64) -> u64 {
        2 * self.block_bytes as u64 + copy * self.body_blocks_bytes()
    }

    /// The size of the file.
    #[must_use]
    pub const fn file_bytes(&self) -> u64 {
        self.body_at(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_comes_back_and_any_flipped_bit_is_seen() {
        let header = CheckpointHeader {
            body_crc: 1,
            cluster: ClusterId::new(2),
            node: NodeId::new(3),
            log: LogId::new(4),
            shard: ShardId::new(5),
            number: 6,
            upto: 7,
            body_bytes: 8,
        };
        let mut bytes = [0u8; CHECKPOINT_HEADER_BYTES];
        header.emit(&mut bytes);
        assert_eq!(CheckpointHeader::parse(&bytes), Ok(header));
        for bit in 0..CHECKPOINT_HEADER_BYTES * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(CheckpointHeader::parse(&bad).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = CheckpointHeader::parse(&bytes);
        }
    }
}
