//! Block queues over files: io_uring with O_DIRECT, a pwrite fallback, and memory.
//!
//! | type | backend | what a completed flush means |
//! |---|---|---|
//! | [`FileQueue`] | `io_uring+O_DIRECT` where it works | `fdatasync` of every file written since the last one |
//! | [`FileQueue`] | `pwrite+fdatasync` on a helper thread elsewhere | the same |
//! | [`MemoryQueue`] | `memory` | nothing: contents end with the process |
//!
//! [`DataDir`] is the directory under a file queue: locked against a second user, with atomic small files.
//!
//! Fault model: the device fails operations, loses power, and lies about nothing. After a failed flush the kernel may
//! report success for data it has dropped, so a file whose flush failed is poisoned and never flushed again. Disk full
//! shows when a file is created and has no effect; a write never needs space.
//!
//! # Safety model
//!
//! Files are read and written by the kernel at raw addresses of pool slots. A queue owns the slot's handle from `submit`
//! to the completion, and keeps the arena alive until the kernel is done with it.

mod any;
mod dir;
mod event;
mod files;
mod flush;
mod memory;
mod options;
mod threaded;
mod uring;
mod worker;

pub use any::FileQueue;
pub use dir::{DataDir, SmallFileError};
pub use files::file_name;
pub use memory::MemoryQueue;
pub use options::{BackendChoice, FileOptions};

#[cfg(test)]
mod tests;
