//! The cut log: what it says at an entry ([`LogState`]), and its entries in memory ([`EntryLog`]).

mod log;
mod state;

pub use log::{CHUNK_ENTRIES, EntryLog};
pub use state::{ApplyError, GenSpan, LogState, SegmentState, ShardState};
