//! The superblock: whose files these are, their geometry, the incarnation and the trim marks.
//!
//! Four copies in four files. A new one is written to copies 0 and 1, flushed, then to 2 and 3, flushed: at any moment
//! two copies hold the old content whole or two hold the new one. The valid copy with the greatest sequence wins; one is
//! enough. Magic and version have a checksum of their own, in a place that all versions share, so that a newer version
//! is told apart from damage.

use ionian_types::{ClusterId, Durability, Inc, LogId, NodeId, SEGMENTS_PER_SHARD_MAX, ShardId};
use ionian_wire::codec::{Field, Reader, WireError, Writer};
use ionian_wire::crc::crc32c;

use super::{FormatError, checked, sound};
use crate::config::StoreConfig;
use crate::error::StoreFailure;

/// The length of a superblock in bytes.
pub const SUPERBLOCK_BYTES: usize = 224;
/// The number of copies.
pub const SUPERBLOCK_COPIES: usize = 4;

const MAGIC: u64 = u64::from_le_bytes(*b"IonSuper");
const PREFIX_BYTES: usize = 12;

/// One superblock, decoded.
///
/// ```text
///   0 magic u64 | 8 version u16 | 10 copy u16 | 12 CRC u32 (over bytes 0..12)
///  16 cluster u128 | 32 node u32 | 36 log u32 | 40 shard u32 | 44 segments u8 | 45 class u8 | 46 0 u16
///  48 sequence u64 | 56 incarnation u64
///  64 block bytes u32 | 68 chunk bytes u32 | 72 extent bytes u64 | 80 journal chunk bytes u32 | 84 0 u32
///  88 journal extent bytes u64 | 96 trim marks 7 x u64 | 152 bases 8 x u64 | 216 0 u32
/// 220 CRC u32 (over bytes 0..220)
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The log.
    pub log: LogId,
    /// The shard.
    pub shard: ShardId,
    /// Segments kept.
    pub segments: u8,
    /// The durability class.
    pub class: Durability,
    /// Counts superblocks written; the greatest is the newest.
    pub sequence: u64,
    /// The incarnation.
    pub inc: Inc,
    /// The block in bytes.
    pub block_bytes: u32,
    /// The chunk of records in bytes.
    pub chunk_bytes: u32,
    /// The extent of records in bytes.
    pub extent_bytes: u64,
    /// The chunk of the journal in bytes.
    pub journal_chunk_bytes: u32,
    /// The extent of the journal in bytes.
    pub journal_extent_bytes: u64,
    /// The first position kept of each segment.
    pub trim: [u64; SEGMENTS_PER_SHARD_MAX],
    /// The number of the first chunk kept of each segment, the journal's last. What claims to be an earlier chunk is
    /// left over in a recycled file.
    pub base: [u64; SEGMENTS_PER_SHARD_MAX + 1],
}

/// Why a superblock is not read. Effect: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SuperblockError {
    /// Written by a newer version; magic and version themselves are intact.
    #[error("disk version {found} is newer than {known}")]
    Newer {
        /// Its version.
        found: u16,
        /// The newest version known.
        known: u16,
    },
    /// Damaged, of another copy, or not a superblock.
    #[error(transparent)]
    Bad(#[from] FormatError),
}

impl From<WireError> for SuperblockError {
    fn from(error: WireError) -> Self {
        Self::Bad(error.into())
    }
}

impl Superblock {
    /// The first superblock of a new store.
    #[must_use]
    pub const fn of(config: &StoreConfig, inc: Inc) -> Self {
        Self {
            cluster: config.cluster,
            node: config.node,
            log: config.log,
            shard: config.shard,
            segments: config.segments,
            class: config.class,
            sequence: 0,
            inc,
            block_bytes: config.block_bytes,
            chunk_bytes: config.chunk_bytes,
            extent_bytes: config.extent_bytes,
            journal_chunk_bytes: config.journal_chunk_bytes,
            journal_extent_bytes: config.journal_extent_bytes,
            trim: [0; SEGMENTS_PER_SHARD_MAX],
            base: [0; SEGMENTS_PER_SHARD_MAX + 1],
        }
    }

    /// Whether these files may be used with a configuration.
    ///
    /// # Errors
    /// The [`StoreFailure`] that names the first difference; effect none.
    pub fn check(&self, config: &StoreConfig) -> Result<(), StoreFailure> {
        if self.cluster != config.cluster {
            return Err(StoreFailure::OtherCluster {
                found: self.cluster,
                expected: config.cluster,
            });
        }
        if self.node != config.node {
            return Err(StoreFailure::OtherNode {
                found: self.node,
                expected: config.node,
            });
        }
        let same = [
            ("log", self.log.get().into(), config.log.get().into()),
            ("shard", self.shard.get().into(), config.shard.get().into()),
            ("segments", self.segments.into(), config.segments.into()),
            (
                "class",
                self.class.code().into(),
                config.class.code().into(),
            ),
            (
                "block_bytes",
                self.block_bytes.into(),
                config.block_bytes.into(),
            ),
            (
                "chunk_bytes",
                self.chunk_bytes.into(),
                config.chunk_bytes.into(),
            ),
            ("extent_bytes", self.extent_bytes, config.extent_bytes),
            (
                "journal_chunk_bytes",
                self.journal_chunk_bytes.into(),
                config.journal_chunk_bytes.into(),
            ),
            (
                "journal_extent_bytes",
                self.journal_extent_bytes,
                config.journal_extent_bytes,
            ),
        ];
        match same
            .into_iter()
            .find(|(_, found, expected)| found != expected)
        {
            Some((field, found, expected)) => Err(StoreFailure::OtherLayout {
                field,
                found,
                expected,
            }),
            None => Ok(()),
        }
    }

    /// Writes copy number `copy` to the front of `bytes`.
    ///
    /// # Panics
    /// If `bytes` is shorter than [`SUPERBLOCK_BYTES`].
    pub fn emit(&self, copy: u8, bytes: &mut [u8]) {
        let bytes = &mut bytes[..SUPERBLOCK_BYTES];
        let mut writer = Writer::new(bytes);
        self.put(copy, &mut writer)
            .expect("the fields are as long as the superblock");
        let prefix = crc32c(&bytes[..PREFIX_BYTES]);
        Field::put(prefix, &mut bytes[PREFIX_BYTES..PREFIX_BYTES + 4]);
        let crc = crc32c(&bytes[..SUPERBLOCK_BYTES - 4]);
        Field::put(crc, &mut bytes[SUPERBLOCK_BYTES - 4..]);
    }

    fn put(&self, copy: u8, writer: &mut Writer<'_>) -> Result<(), WireError> {
        writer.field(MAGIC)?;
        writer.field(ionian_wire::DISK_VERSION)?;
        writer.field(u16::from(copy))?;
        writer.field(0u32)?;
        writer.field(self.cluster)?;
        writer.field(self.node)?;
        writer.field(self.log)?;
        writer.field(self.shard)?;
        writer.field(self.segments)?;
        writer.field(self.class)?;
        writer.field(0u16)?;
        writer.field(self.sequence)?;
        writer.field(self.inc)?;
        writer.field(self.block_bytes)?;
        writer.field(self.chunk_bytes)?;
        writer.field(self.extent_bytes)?;
        writer.field(self.journal_chunk_bytes)?;
        writer.field(0u32)?;
        writer.field(self.journal_extent_bytes)?;
        for number in self.trim.into_iter().chain(self.base) {
            writer.field(number)?;
        }
        writer.field(0u32)
    }

    /// Decodes and checks copy number `copy` at the front of `bytes`.
    ///
    /// # Errors
    /// [`SuperblockError`]; effect none.
    pub fn parse(copy: u8, bytes: &[u8]) -> Result<Self, SuperblockError> {
        let mut prefix = Reader::new(bytes);
        let covered = prefix.bytes(PREFIX_BYTES)?;
        let crc: u32 = prefix.field()?;
        let mut fields = Reader::new(covered);
        let magic: u64 = fields.field()?;
        let found: u16 = fields.field()?;
        let number: u16 = fields.field()?;
        if magic == MAGIC && crc == crc32c(covered) && found > ionian_wire::DISK_VERSION {
            return Err(SuperblockError::Newer {
                found,
                known: ionian_wire::DISK_VERSION,
            });
        }
        let mut reader = checked::<SUPERBLOCK_BYTES>(bytes, MAGIC)?;
        if found != ionian_wire::DISK_VERSION || number != u16::from(copy) {
            return Err(WireError::Range {
                field: "superblock version or copy",
                value: u64::from(number),
            }
            .into());
        }
        reader.bytes(8)?;
        let cluster = reader.field()?;
        let node = reader.field()?;
        let log = reader.field()?;
        let shard = reader.field()?;
        let segments = reader.field()?;
        let class = reader.field()?;
        let _: u16 = reader.field()?;
        let sequence = sound("sequence", reader.field()?)?;
        let inc = reader.field()?;
        let block_bytes = reader.field()?;
        let chunk_bytes = reader.field()?;
        let extent_bytes = reader.field()?;
        let journal_chunk_bytes = reader.field()?;
        let _: u32 = reader.field()?;
        let journal_extent_bytes = reader.field()?;
        let mut trim = [0; SEGMENTS_PER_SHARD_MAX];
        let mut base = [0; SEGMENTS_PER_SHARD_MAX + 1];
        for number in trim.iter_mut().chain(&mut base) {
            *number = sound("trim or base", reader.field()?)?;
        }
        Ok(Self {
            cluster,
            node,
            log,
            shard,
            segments,
            class,
            sequence,
            inc,
            block_bytes,
            chunk_bytes,
            extent_bytes,
            journal_chunk_bytes,
            journal_extent_bytes,
            trim,
            base,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn superblock() -> Superblock {
        let config = StoreConfig::new(
            ClusterId::new(1),
            NodeId::new(2),
            LogId::new(3),
            ShardId::new(4),
            2,
            Durability::D1,
        );
        Superblock {
            sequence: 9,
            trim: [1, 2, 3, 4, 5, 6, 7],
            base: [8, 7, 6, 5, 4, 3, 2, 1],
            ..Superblock::of(&config, Inc::new(8))
        }
    }

    fn emitted(copy: u8) -> [u8; SUPERBLOCK_BYTES] {
        let mut bytes = [0xaa; SUPERBLOCK_BYTES];
        superblock().emit(copy, &mut bytes);
        bytes
    }

    #[test]
    fn a_superblock_comes_back_and_any_flipped_bit_is_seen() {
        let bytes = emitted(3);
        assert_eq!(Superblock::parse(3, &bytes), Ok(superblock()));
        assert!(Superblock::parse(2, &bytes).is_err());
        for bit in 0..SUPERBLOCK_BYTES * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(Superblock::parse(3, &bad), Err(SuperblockError::Bad(_))),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let mut bytes = emitted(0);
        bytes[8] = 9;
        assert!(matches!(
            Superblock::parse(0, &bytes),
            Err(SuperblockError::Bad(_))
        ));
        let crc = crc32c(&bytes[..PREFIX_BYTES]);
        Field::put(crc, &mut bytes[PREFIX_BYTES..PREFIX_BYTES + 4]);
        bytes[100] ^= 1;
        assert_eq!(
            Superblock::parse(0, &bytes),
            Err(SuperblockError::Newer {
                found: 9,
                known: ionian_wire::DISK_VERSION
            })
        );
    }

    #[test]
    fn another_owner_is_refused_by_both_names() {
        let mut config = StoreConfig::new(
            ClusterId::new(1),
            NodeId::new(2),
            LogId::new(3),
            ShardId::new(4),
            2,
            Durability::D1,
        );
        assert_eq!(superblock().check(&config), Ok(()));
        config.chunk_bytes *= 2;
        assert!(matches!(
            superblock().check(&config),
            Err(StoreFailure::OtherLayout {
                field: "chunk_bytes",
                ..
            })
        ));
        config.node = NodeId::new(7);
        assert_eq!(
            superblock().check(&config),
            Err(StoreFailure::OtherNode {
                found: NodeId::new(2),
                expected: NodeId::new(7)
            })
        );
        config.cluster = ClusterId::new(6);
        assert_eq!(
            superblock().check(&config),
            Err(StoreFailure::OtherCluster {
                found: ClusterId::new(1),
                expected: ClusterId::new(6)
            })
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(copy: u8, bytes: Vec<u8>) {
            let _ = Superblock::parse(copy, &bytes);
        }
    }
}
