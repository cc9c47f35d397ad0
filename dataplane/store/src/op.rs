//! Block operations: what the machine asks the edge to do, and the names of the files it does it to.

use crate::error::BlockError;

/// The name of a file of a store. The number is stable across starts; the edge adds which store it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FileNo(u64);

/// What kind of file a [`FileNo`] names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// A copy of the superblock, 0 to 3.
    Superblock(u8),
    /// A checkpoint of the journal.
    Checkpoint(u64),
    /// A preallocated file of the journal.
    JournalExtent(u64),
    /// A preallocated file of records. Which segment it serves is in the headers of its chunks, so that it can be
    /// recycled.
    RecordExtent(u64),
}

const KIND_SHIFT: u32 = 48;
const NUMBER_MASK: u64 = (1 << KIND_SHIFT) - 1;

impl FileNo {
    /// The name of no file: that of a flush, which covers all files.
    pub const NONE: Self = Self(u64::MAX);

    /// The name of a file of a kind. Numbers are below 2^48.
    #[must_use]
    pub const fn of(kind: FileKind) -> Self {
        let (code, number) = match kind {
            FileKind::Superblock(copy) => (1, copy as u64),
            FileKind::Checkpoint(number) => (2, number),
            FileKind::JournalExtent(number) => (3, number),
            FileKind::RecordExtent(number) => (4, number),
        };
        assert!(number <= NUMBER_MASK, "file numbers are below 2^48");
        Self(code << KIND_SHIFT | number)
    }

    /// The kind of the file; `None` for a name that no store makes.
    #[must_use]
    pub const fn kind(self) -> Option<FileKind> {
        let number = self.0 & NUMBER_MASK;
        match self.0 >> KIND_SHIFT {
            1 if number < 4 => Some(FileKind::Superblock(number as u8)),
            2 => Some(FileKind::Checkpoint(number)),
            3 => Some(FileKind::JournalExtent(number)),
            4 => Some(FileKind::RecordExtent(number)),
            _ => None,
        }
    }

    /// A name that was stored as a number. Any number is taken; [`Self::kind`] says if it means something.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The bare number, below 2^51 for every file of a store.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockOpKind {
    /// Make a file of this size, all zero, its space reserved. Completed: survives a crash.
    Create {
        /// Size in bytes.
        bytes: u64,
    },
    /// Write `len` bytes, to be had from [`Store::fill`](crate::Store::fill), at `offset`.
    Write {
        /// First byte, a multiple of the block.
        offset: u64,
        /// Bytes, a multiple of the block.
        len: u32,
    },
    /// Read `len` bytes at `offset`.
    Read {
        /// First byte, a multiple of the block.
        offset: u64,
        /// Bytes, a multiple of the block.
        len: u32,
    },
    /// Make every write durable that was completed before this operation was handed out, whatever its file.
    Flush,
    /// Remove the file. Completed: survives a crash.
    Delete,
}

/// An operation for the edge. Operations handed out may run in any order and at once; the store itself waits where
/// order matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockOp {
    /// To be given back with the completion.
    pub token: u64,
    /// The file; [`FileNo::NONE`] for a flush.
    pub file: FileNo,
    /// What to do.
    pub kind: BlockOpKind,
}

/// The result of an operation: the bytes of a read, nothing otherwise.
pub type BlockResult<'a> = Result<&'a [u8], BlockError>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_strangers_have_no_kind() {
        for kind in [
            FileKind::Superblock(3),
            FileKind::Checkpoint(7),
            FileKind::JournalExtent(0),
            FileKind::RecordExtent(NUMBER_MASK),
        ] {
            assert_eq!(FileNo::of(kind).kind(), Some(kind));
        }
        assert_eq!(FileNo::NONE.kind(), None);
        assert_eq!(FileNo::new(0).kind(), None);
        assert_eq!(FileNo::new(1 << KIND_SHIFT | 4).kind(), None);
    }
}
