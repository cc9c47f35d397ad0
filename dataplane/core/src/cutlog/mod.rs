//! The cut log: what it says at an entry ([`LogState`]), and its entries in memory ([`EntryLog`]), and those
//! that stay when others are dropped ([`Kept`]).

mod kept;
mod log;
mod state;

pub use kept::Kept;
pub use log::{CHUNK_ENTRIES, EntryLog};
pub use state::{ApplyError, GenSpan, LogState, SegmentState, ShardState};
