//! Options of file queues, and the checks that all queues share.

use ionian_driver_api::BlockError;

/// Unit of offsets and lengths. 4 KiB is what O_DIRECT takes on every device and filesystem in use.
pub(crate) const BLOCK_BYTES: u32 = 4096;

/// Which backend to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BackendChoice {
    /// io_uring with O_DIRECT if it works in this directory, else the helper thread.
    #[default]
    Auto,
    /// io_uring with O_DIRECT or an error.
    Uring,
    /// The helper thread.
    Threaded,
}

/// How to open a file queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileOptions {
    /// Which backend to use.
    pub backend: BackendChoice,
    /// Operations in flight at most, 1 to 4096.
    pub queue_depth: u32,
    /// Largest transfer in bytes, at least one block (4096); rounded down to whole blocks.
    pub transfer_bytes_max: u32,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self {
            backend: BackendChoice::Auto,
            queue_depth: 128,
            transfer_bytes_max: 1 << 20,
        }
    }
}

impl FileOptions {
    /// The same options with every value inside its range.
    pub(crate) fn clamped(self) -> Self {
        Self {
            backend: self.backend,
            queue_depth: self.queue_depth.clamp(1, 4096),
            transfer_bytes_max: (self.transfer_bytes_max / BLOCK_BYTES).max(1) * BLOCK_BYTES,
        }
    }
}

/// Checks a transfer against its file and the queue's limits.
pub(crate) fn check_range(
    offset: u64,
    len: u64,
    file_bytes: u64,
    transfer_bytes_max: u32,
) -> Result<(), BlockError> {
    let block = u64::from(BLOCK_BYTES);
    if !offset.is_multiple_of(block) || !len.is_multiple_of(block) || len == 0 {
        return Err(BlockError::Misaligned { offset, len });
    }
    if len > u64::from(transfer_bytes_max) {
        return Err(BlockError::TooLarge {
            len,
            len_max: u64::from(transfer_bytes_max),
        });
    }
    if offset.checked_add(len).is_none_or(|end| end > file_bytes) {
        return Err(BlockError::OutOfRange {
            offset,
            len,
            file_bytes,
        });
    }
    Ok(())
}

/// Checks the size of a new file.
pub(crate) fn check_size(bytes: u64) -> Result<(), BlockError> {
    if bytes == 0 || !bytes.is_multiple_of(u64::from(BLOCK_BYTES)) || i64::try_from(bytes).is_err()
    {
        return Err(BlockError::Misaligned {
            offset: 0,
            len: bytes,
        });
    }
    Ok(())
}
