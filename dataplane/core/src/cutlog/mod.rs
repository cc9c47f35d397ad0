//! The cut log: what it says at an entry ([`LogState`]), its entries in memory ([`EntryLog`]), what they say of one shard
//! ([`ShardReader`]), and what stays of those that are dropped ([`Kept`]); the shape of the tree that orders ([`Tree`]).

mod kept;
mod layout;
mod log;
mod rows;
mod segment;
mod shard;
mod shard_ref;
mod state;
mod tree;

pub use kept::Kept;
pub use layout::Layout;
pub use log::{CHUNK_ENTRIES, EntryLog};
pub use rows::{ShardReader, ShardRow, Told};
pub use segment::{GenSpan, SegmentState};
pub use shard::ShardState;
pub use shard_ref::ShardRef;
pub use state::{ApplyError, LogState};
pub(crate) use tree::siblings;
pub use tree::{Tree, Vertex};

#[cfg(test)]
mod tests;
