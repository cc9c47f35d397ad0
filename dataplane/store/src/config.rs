//! What a store is made with: identity, geometry and limits.

use ionian_types::{ClusterId, Durability, LogId, NodeId, SEGMENTS_PER_SHARD_MAX, ShardId};
use ionian_wire::record::{RECORD_ENCODED_BYTES_MAX, RECORD_HEADER_BYTES};

/// Identity, geometry and limits of a [`Store`](crate::Store). The identity and the geometry of a flushed store are
/// written into its superblock and may not change afterwards; the limits may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The log whose records or cut-log entries these are.
    pub log: LogId,
    /// The shard; [`ShardId::MAX`] for a member of the root group.
    pub shard: ShardId,
    /// Segments kept, 0 (a root member, which has a journal only) to [`SEGMENTS_PER_SHARD_MAX`].
    pub segments: u8,
    /// The durability class. D0 keeps everything in memory and never emits an operation.
    pub class: Durability,
    /// Unit of memory, of eviction and of recovery, in bytes: a multiple of `block_bytes` that holds the largest
    /// record (default 2 MiB).
    pub chunk_bytes: u32,
    /// Most bytes of chunk memory for records (default 256 MiB). D0 refuses appends beyond it; flushed classes evict.
    pub memory_bytes_max: u64,
    /// Size of one preallocated file of records in bytes, a multiple of `chunk_bytes` (default 64 MiB).
    pub extent_bytes: u64,
    /// Most bytes of files of records, spares included (default 1 TiB). Beyond it appends get
    /// [`StoreError::DiskFull`](crate::StoreError::DiskFull).
    pub disk_bytes_max: u64,
    /// The device's atomic unit in bytes, a power of two from 512 (default 4096). Writes are multiples of it.
    pub block_bytes: u32,
    /// Largest single transfer in bytes, a multiple of `block_bytes` (default 1 MiB).
    pub write_bytes_max: u32,
    /// As `chunk_bytes`, for the journal (default 1 MiB). No entry is larger than a chunk less three blocks.
    pub journal_chunk_bytes: u32,
    /// As `extent_bytes`, for the journal (default 4 MiB).
    pub journal_extent_bytes: u64,
    /// Most bytes of journal since the last checkpoint, all resident (default 64 MiB).
    pub journal_bytes_max: u64,
    /// Most bytes of one checkpoint (default 64 MiB).
    pub checkpoint_bytes_max: u64,
    /// Chunks that may be read back from the device at once (default 4).
    pub fetches_max: u8,
    /// Random bits drawn by the edge at each start. They make the marks of records on the device differ from those of every earlier life, and unknown to clients. D0 ignores them.
    pub entropy: u64,
}

/// Why a configuration is refused. Effect: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field} = {value} is refused: {rule}")]
pub struct ConfigError {
    /// The field.
    pub field: &'static str,
    /// Its value.
    pub value: u64,
    /// What it must be.
    pub rule: &'static str,
}

impl StoreConfig {
    /// A configuration with the default geometry and limits.
    #[must_use]
    pub const fn new(
        cluster: ClusterId,
        node: NodeId,
        log: LogId,
        shard: ShardId,
        segments: u8,
        class: Durability,
    ) -> Self {
        Self {
            cluster,
            node,
            log,
            shard,
            segments,
            class,
            chunk_bytes: 2 << 20,
            memory_bytes_max: 256 << 20,
            extent_bytes: 64 << 20,
            disk_bytes_max: 1 << 40,
            block_bytes: 4096,
            write_bytes_max: 1 << 20,
            journal_chunk_bytes: 1 << 20,
            journal_extent_bytes: 4 << 20,
            journal_bytes_max: 64 << 20,
            checkpoint_bytes_max: 64 << 20,
            fetches_max: 4,
            entropy: 0,
        }
    }

    /// The least `memory_bytes_max`, in bytes: two chunks for each segment, and one for each fetch.
    #[must_use]
    pub const fn memory_bytes_min(&self) -> u64 {
        (self.segments as u64 * 2 + self.fetches_max as u64) * self.chunk_bytes as u64
    }

    /// The least `disk_bytes_max` with which a trim makes room, in bytes: for each segment the file that its end lies in
    /// and one to go on to, and one more. With less, all files may belong to segments whose ends lie in them, and one that
    /// has to go on waits for ever.
    #[must_use]
    pub const fn disk_bytes_min(&self) -> u64 {
        (self.segments as u64 * 2 + 1) * self.extent_bytes
    }

    /// Checks every relation between the fields.
    ///
    /// # Errors
    /// [`ConfigError`] for the first field that breaks its rule.
    pub fn check(&self) -> Result<(), ConfigError> {
        let block = u64::from(self.block_bytes);
        let chunk = u64::from(self.chunk_bytes);
        let journal = u64::from(self.journal_chunk_bytes);
        let write = u64::from(self.write_bytes_max);
        let rules: [(&'static str, u64, bool, &'static str); 12] = [
            (
                "segments",
                u64::from(self.segments),
                usize::from(self.segments) <= SEGMENTS_PER_SHARD_MAX,
                "at most SEGMENTS_PER_SHARD_MAX",
            ),
            (
                "block_bytes",
                block,
                block.is_power_of_two() && block >= 512,
                "a power of two, at least 512",
            ),
            (
                "chunk_bytes",
                chunk,
                chunk.is_multiple_of(block) && chunk <= 1 << 30,
                "a multiple of block_bytes, at most 1 GiB",
            ),
            (
                "chunk_bytes",
                chunk,
                chunk >= 4 * block && chunk >= RECORD_HEADER_BYTES as u64 * 4,
                "at least four blocks",
            ),
            (
                "extent_bytes",
                self.extent_bytes,
                self.extent_bytes >= chunk && self.extent_bytes.is_multiple_of(chunk.max(1)),
                "a positive multiple of chunk_bytes",
            ),
            (
                "write_bytes_max",
                write,
                write >= block && write.is_multiple_of(block),
                "a positive multiple of block_bytes",
            ),
            (
                "journal_chunk_bytes",
                journal,
                journal >= 4 * block && journal.is_multiple_of(block) && journal <= 1 << 30,
                "a multiple of block_bytes, at least four blocks, at most 1 GiB",
            ),
            (
                "journal_extent_bytes",
                self.journal_extent_bytes,
                self.journal_extent_bytes >= journal
                    && self.journal_extent_bytes.is_multiple_of(journal.max(1)),
                "a positive multiple of journal_chunk_bytes",
            ),
            (
                "journal_bytes_max",
                self.journal_bytes_max,
                self.journal_bytes_max >= 2 * journal,
                "at least two journal chunks",
            ),
            (
                "memory_bytes_max",
                self.memory_bytes_max,
                self.memory_bytes_max >= self.memory_bytes_min(),
                "at least two chunks per segment and one per fetch",
            ),
            (
                "fetches_max",
                u64::from(self.fetches_max),
                self.fetches_max > 0,
                "at least 1",
            ),
            (
                "checkpoint_bytes_max",
                self.checkpoint_bytes_max,
                self.checkpoint_bytes_max > 0 && self.checkpoint_bytes_max <= 1 << 30,
                "1 to 1 GiB",
            ),
        ];
        match rules.into_iter().find(|rule| !rule.2) {
            Some((field, value, _, rule)) => Err(ConfigError { field, value, rule }),
            None => Ok(()),
        }
    }

    /// Whether one record of the largest legal size fits into a chunk: true of every geometry for production, and not
    /// demanded by [`Self::check`] so that tests can use small chunks.
    #[must_use]
    pub const fn holds_largest_record(&self) -> bool {
        let frame = if self.class.is_flushed() {
            2 * self.block_bytes as usize
        } else {
            0
        };
        self.chunk_bytes as usize >= RECORD_ENCODED_BYTES_MAX + frame
    }
}
