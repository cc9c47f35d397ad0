//! The cut log: what it says at an entry ([`LogState`]), its entries in memory ([`EntryLog`]), and those that
//! stay when others are dropped ([`Kept`]).

mod kept;
mod log;
mod segment;
mod state;

pub use kept::Kept;
pub use log::{CHUNK_ENTRIES, EntryLog};
pub use segment::{GenSpan, SegmentState};
pub use state::{ApplyError, LogState, ShardState};
