//! A submit/poll queue pair over numbered files: the shape of NVMe, io_uring and SPDK.
//!
//! Operations may run in any order and at once; only completions order them. **Durability contract**: the completion of
//! a `Flush` covers every write whose completion was polled before the flush was submitted; the completion of a write
//! marked `durable` covers that write. A write that has completed and is not covered may be lost, torn or reordered by a
//! crash. Files have the size they were created with: a write never grows one.

use std::io;
use std::os::fd::RawFd;

use ionian_types::Effect;
use thiserror::Error;

use crate::bounded::Bounded;
use crate::buf::{Buf, BufPool};

/// A file of a block queue: a number, and nothing else, names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(pub u64);

/// An operation. Offsets, lengths and sizes are bytes and multiples of [`BlockLimits::block_bytes`].
#[derive(Debug)]
#[must_use = "a dropped operation may lose its buffer"]
pub enum BlockOp {
    /// Makes a file of `bytes` bytes, all zero, with its space reserved. On completion the file survives a crash.
    Create {
        /// The new file.
        file: FileId,
        /// Its size, for good.
        bytes: u64,
        /// Write the zeros now, so that later writes are plain overwrites; costs one pass over the file.
        zero_ahead: bool,
    },
    /// Writes the valid bytes of `buf`.
    Write {
        /// Where to.
        file: FileId,
        /// First byte.
        offset: u64,
        /// What.
        buf: Buf,
        /// Complete only when this write is durable (FUA, or the backend's nearest equivalent).
        durable: bool,
    },
    /// Reads `len` bytes into `buf` and sets its length.
    Read {
        /// Where from.
        file: FileId,
        /// First byte.
        offset: u64,
        /// How many.
        len: u32,
        /// Where to.
        buf: Buf,
    },
    /// Makes every write completed so far durable, whatever its file.
    Flush,
    /// Removes a file and frees its space. On completion the removal survives a crash.
    Delete {
        /// Which.
        file: FileId,
    },
}

/// Which operation a completion belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpKind {
    /// [`BlockOp::Create`].
    Create,
    /// [`BlockOp::Write`].
    Write,
    /// [`BlockOp::Read`].
    Read,
    /// [`BlockOp::Flush`].
    Flush,
    /// [`BlockOp::Delete`].
    Delete,
}

impl BlockOp {
    /// Which operation this is.
    #[must_use]
    pub const fn kind(&self) -> OpKind {
        match self {
            Self::Create { .. } => OpKind::Create,
            Self::Write { .. } => OpKind::Write,
            Self::Read { .. } => OpKind::Read,
            Self::Flush => OpKind::Flush,
            Self::Delete { .. } => OpKind::Delete,
        }
    }

    /// The buffer the operation carries.
    #[must_use]
    pub fn into_buf(self) -> Option<Buf> {
        match self {
            Self::Write { buf, .. } | Self::Read { buf, .. } => Some(buf),
            Self::Create { .. } | Self::Flush | Self::Delete { .. } => None,
        }
    }
}

/// An operation with the caller's number for it.
#[derive(Debug)]
#[must_use = "a dropped request may lose its buffer"]
pub struct BlockRequest {
    /// Comes back with the completion; any value.
    pub token: u64,
    /// What to do.
    pub op: BlockOp,
}

/// The end of an operation.
#[derive(Debug)]
#[must_use = "a dropped completion may lose its buffer"]
pub struct Completion {
    /// The number given with the request.
    pub token: u64,
    /// Which operation.
    pub kind: OpKind,
    /// The buffer of a read or write.
    pub buf: Option<Buf>,
    /// Success, or what went wrong.
    pub result: Result<(), BlockError>,
}

/// A bounded queue of completions.
pub type Completions = Bounded<Completion>;

/// Why an operation failed. `errno` values are those of Linux.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum BlockError {
    /// No space for a new file. Effect: none.
    #[error("no space left for file {file:?} of {bytes} bytes")]
    NoSpace {
        /// The file that was not made.
        file: FileId,
        /// Its size.
        bytes: u64,
    },
    /// The memory device is at its limit. Effect: none.
    #[error("the memory device would hold {wanted_bytes} bytes, its limit is {bytes_max}")]
    MemoryFull {
        /// What it would hold.
        wanted_bytes: u64,
        /// What it may hold.
        bytes_max: u64,
    },
    /// There is no such file. Effect: none.
    #[error("no file {0:?}")]
    NoFile(FileId),
    /// A file of that number exists, or is being made. Effect: none.
    #[error("file {0:?} exists")]
    Exists(FileId),
    /// The file still has operations in flight. Effect: none.
    #[error("file {0:?} is in use")]
    Busy(FileId),
    /// The range is not inside the file. Effect: none.
    #[error("{len} bytes at {offset} are outside a file of {file_bytes} bytes")]
    OutOfRange {
        /// First byte asked for.
        offset: u64,
        /// Bytes asked for.
        len: u64,
        /// Size of the file.
        file_bytes: u64,
    },
    /// Offset, length, size or buffer address is not a multiple of the block size. Effect: none.
    #[error("{len} bytes at {offset} are not whole blocks")]
    Misaligned {
        /// First byte asked for.
        offset: u64,
        /// Bytes asked for.
        len: u64,
    },
    /// The transfer is larger than the device or the buffer takes. Effect: none.
    #[error("a transfer of {len} bytes is larger than {len_max}")]
    TooLarge {
        /// Bytes asked for.
        len: u64,
        /// Most bytes of one transfer.
        len_max: u64,
    },
    /// The device failed. Effect of a write: unknown; of a read: none.
    #[error("device error {errno} in {kind:?}")]
    Io {
        /// The operation.
        kind: OpKind,
        /// The error's number.
        errno: i32,
    },
    /// Fewer bytes moved than asked for. Effect of a write: unknown, a part of it is there.
    #[error("{kind:?} moved {done} bytes of {wanted}")]
    Short {
        /// The operation.
        kind: OpKind,
        /// Bytes moved.
        done: u64,
        /// Bytes asked for.
        wanted: u64,
    },
    /// An earlier flush of the file failed: what it holds is not known, and asking again would get a false yes. Only
    /// closing the device and recovering from what is on it helps. Effect: unknown for a flush, none for a write.
    #[error("file {file:?} is poisoned by a failed flush (device error {errno})")]
    Poisoned {
        /// The file.
        file: FileId,
        /// The operation that was refused.
        kind: OpKind,
        /// The error of the failed flush.
        errno: i32,
    },
}

impl BlockError {
    /// What the failed operation may have done.
    #[must_use]
    pub const fn effect(&self) -> Effect {
        match self {
            Self::NoSpace { .. }
            | Self::MemoryFull { .. }
            | Self::NoFile(_)
            | Self::Exists(_)
            | Self::Busy(_)
            | Self::OutOfRange { .. }
            | Self::Misaligned { .. }
            | Self::TooLarge { .. } => Effect::None,
            Self::Io { kind, .. } | Self::Short { kind, .. } => match kind {
                OpKind::Read => Effect::None,
                _ => Effect::Unknown,
            },
            Self::Poisoned { kind, .. } => match kind {
                OpKind::Flush => Effect::Unknown,
                _ => Effect::None,
            },
        }
    }
}

/// Why a block queue could not be opened. Effect: none.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory cannot be made, read or written.
    #[error("cannot use {path}: {source}")]
    Directory {
        /// The directory or file.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process, or another queue of this one, holds the directory.
    #[error("{path} is in use by process {holder_pid}")]
    InUse {
        /// The directory.
        path: String,
        /// Who holds it, 0 if it did not say.
        holder_pid: u32,
    },
    /// The backend that was asked for does not work here.
    #[error("{backend} does not work here: {source}")]
    Backend {
        /// Which.
        backend: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// What a block queue is and can do. Constant after it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockLimits {
    /// Name of the effective backend, e.g. `io_uring+O_DIRECT`; printed at start and beside every figure.
    pub backend: &'static str,
    /// Unit of offsets, lengths and sizes; a write of one block at most is torn only between blocks.
    pub block_bytes: u32,
    /// Largest transfer of one operation, in bytes.
    pub transfer_bytes_max: u32,
    /// Operations in flight at most; `submit` refuses beyond.
    pub queue_depth: u32,
    /// A durable write is one device command, not a write and a flush.
    pub fua: bool,
    /// What a flush covers survives the process (false for memory).
    pub persistent: bool,
}

/// A submit/poll queue pair. Driven by one thread; no call blocks on the device.
pub trait BlockQueue {
    /// What the queue is and can do.
    fn limits(&self) -> BlockLimits;

    /// Tells the device about a pool whose buffers will be used, so that it can map them once. Optional, before use;
    /// `false` if the device could not, which costs speed only.
    fn register(&mut self, pool: &BufPool) -> bool;

    /// Queues an operation. The device owns the buffer until the completion. Errors of the operation itself, checks of
    /// its arguments included, come as its completion.
    ///
    /// # Errors
    ///
    /// Hands the request back when `queue_depth` operations are in flight: backpressure. Effect: none.
    fn submit(&mut self, pool: &mut BufPool, request: BlockRequest) -> Result<(), BlockRequest>;

    /// Passes queued operations to the device. Once per reactor loop; `poll` does it too.
    fn kick(&mut self);

    /// Appends finished operations to `out`. Returns their number.
    fn poll(&mut self, pool: &mut BufPool, out: &mut Completions) -> usize;

    /// Operations submitted and not yet polled.
    fn in_flight(&self) -> usize;

    /// The files that exist, ascending, with their sizes in bytes. For start and tests: allocates.
    fn files(&self) -> Vec<(FileId, u64)>;

    /// Arms the wake-up before a sleep. `false` if a completion is waiting and the caller must not sleep.
    fn arm(&mut self) -> bool;

    /// A descriptor that polls readable when an operation finishes after `arm`; `None` if operations finish inside
    /// `submit`.
    fn wake_fd(&self) -> Option<RawFd>;
}
