//! Segment storage as a machine that emits block operations: write-once cells, group commit, recovery, trim.
//!
//! A [`Store`] keeps the records of one replica (all segments of one shard) and a journal of what its machine must
//! remember, or the journal alone for a member of the root group. Everything is in chunks of memory; for the flushed
//! classes the store also says what to write, flush, read, create and delete, and the edge does it and reports back.
//! It holds no file handle, knows no clock and no thread, and allocates nothing in steady state.
//!
//! Fault model: the device may lose, tear and reorder what was not flushed, damage or misdirect anything at any time,
//! and fail. A crash loses nothing that was reported durable; damage is found by checksum and position, listed, and
//! repaired from a peer's copy; a failed write or flush ends the store's life. See [`mod@format`] for how.
#![forbid(unsafe_code)]

mod cells;
mod chunk;
mod config;
mod error;
mod extents;
pub mod format;
mod op;
mod ops;
mod sample;
mod store;
mod stream;

pub use cells::{
    Cell, CellError, CellRange, CellTicket, CellWrite, Cells, CellsOpening, Opened, SealReport,
    SealTicket,
};
pub use config::{ConfigError, StoreConfig};
pub use error::{BlockError, DamagedRange, StoreError, StoreFailure, StoreState};
pub use op::{BlockOp, BlockOpKind, BlockResult, FileKind, FileNo};
pub use sample::sample_run;
pub use store::{Charge, Fetch, Recovered, RunRef, Store, StoreStats};
