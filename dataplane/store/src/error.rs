//! What can go wrong, and how far it went.

use ionian_types::{ClusterId, Effect, Lsn, NodeId};

/// Why the store did not take something. Every variant has effect none: nothing was kept, now or later.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No memory, or no prepared file yet: backpressure. Ask again after a completion or a trim.
    #[error("the store is full for now: memory or a prepared file is wanting")]
    Full,
    /// The device or its share of it is full. Reads and trim go on; a trim that frees a file ends this.
    #[error("the disk is full")]
    DiskFull,
    /// The store has failed for good; see [`StoreState`].
    #[error("the store has failed")]
    Failed,
    /// More bytes than a chunk, a journal chunk or a checkpoint takes.
    #[error("too large for a chunk, a journal chunk or a checkpoint")]
    TooLarge,
    /// Recovery has not ended.
    #[error("the store is still recovering")]
    NotReady,
    /// The same is under way already, or bytes have to be read back first. Ask again after a completion.
    #[error("busy: ask again after a completion")]
    Busy,
    /// A repair that is not of the first damaged position of its run, or whose bytes do not fit there or do not check.
    #[error("the record does not repair the first damaged position")]
    NotARepair,
}

impl StoreError {
    /// What the refused call may have done.
    #[must_use]
    pub const fn effect(&self) -> Effect {
        Effect::None
    }
}

/// Where the store is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreState {
    /// Reading or writing superblocks and chunks; appends and reads wait.
    Starting,
    /// Serving.
    Ready,
    /// Over. What was durable is on the device; only a new start reads it.
    Failed(StoreFailure),
}

/// Why a store failed for good.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreFailure {
    /// The files belong to another cluster. Effect: none.
    #[error("the files belong to cluster {found}, expected {expected}")]
    OtherCluster {
        /// In the superblock.
        found: ClusterId,
        /// Configured.
        expected: ClusterId,
    },
    /// The files belong to another node. Effect: none.
    #[error("the files belong to node {found}, expected {expected}")]
    OtherNode {
        /// In the superblock.
        found: NodeId,
        /// Configured.
        expected: NodeId,
    },
    /// The files were made for another log, shard, class or geometry. Effect: none.
    #[error("the files have {field} {found}, expected {expected}")]
    OtherLayout {
        /// Which field.
        field: &'static str,
        /// In the superblock.
        found: u64,
        /// Configured.
        expected: u64,
    },
    /// The files were written by a newer version. Effect: none.
    #[error("the files have disk version {found}; this build knows up to {known}")]
    NewerVersion {
        /// In the superblock.
        found: u16,
        /// Known to this build.
        known: u16,
    },
    /// There is no valid superblock and nothing else either: a start of a new store was cut short, or there never was
    /// one. [`Store::format`](crate::Store::format) may go on. Effect: none.
    #[error("no store was made here yet")]
    NotFormatted,
    /// No copy of the superblock is valid. Effect: none.
    #[error("no valid superblock among {present} copies present")]
    NoValidSuperblock {
        /// Copies that exist.
        present: u8,
    },
    /// The device refused to read copies of the superblock, and no other copy is valid: what they hold is not known, and
    /// another start may read it. Effect: none.
    #[error(
        "the device failed in read of {unread} of {present} copies of the superblock, and no other copy is valid"
    )]
    SuperblockUnread {
        /// Copies that could not be read.
        unread: u8,
        /// Copies that exist.
        present: u8,
    },
    /// The configuration breaks a rule. Effect: none.
    #[error("bad configuration: {0}")]
    Config(crate::ConfigError),
    /// A file that must not exist yet does: this directory holds a store. Effect: none.
    #[error("a store exists here already")]
    Exists,
    /// Every copy of the newest checkpoint is damaged and the journal before it is gone. Effect: none.
    #[error("the checkpoint is damaged and the journal starts at {journal_first}")]
    CheckpointDamaged {
        /// First entry that is left.
        journal_first: u64,
    },
    /// Journal entries that were durable are damaged. Effect: none.
    #[error("journal entries {from}..{to} are damaged")]
    JournalDamaged {
        /// First damaged entry.
        from: u64,
        /// The entry after the last damaged one.
        to: u64,
    },
    /// The journal does not fit into `journal_bytes_max`. Effect: none.
    #[error("the journal needs more than {bytes_max} bytes")]
    JournalTooLarge {
        /// The limit.
        bytes_max: u64,
    },
    /// A write, flush, create or delete failed. Effect: unknown. Never retried: after a failed flush the next one may
    /// report success for pages that were dropped. Or a read of the journal, or of the only
    /// checkpoint that would do, failed at a start; effect: none.
    #[error("the device failed in {op}")]
    Device {
        /// The operation.
        op: &'static str,
    },
    /// There is no space for the first files of a new store. Effect: none that matters.
    #[error("no space to make the store")]
    NoSpace,
}

/// How the edge reports a failed block operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BlockError {
    /// No space for a new file. Effect: none.
    #[error("no space left")]
    NoSpace,
    /// The device failed. Effect: unknown for writes, none for reads.
    #[error("device error")]
    Io,
    /// There is no such file. Effect: none.
    #[error("no such file")]
    NotFound,
}

/// Positions from..to of a segment whose records are damaged on the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DamagedRange {
    /// First damaged position.
    pub from: Lsn,
    /// The position after the last damaged one.
    pub to: Lsn,
}
