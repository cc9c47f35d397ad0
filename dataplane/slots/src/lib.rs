//! The tables of a leaf (ORDERING.md, LEAF): slots that replicas' reports are written to, and the kernels that turn lengths
//! per replica into lengths per segment, for thousands of shards at once.
//!
//! [`SlotTable`] is shared: one slot per server, one writer per slot, and a leaf that scans for what is new. [`Table`] is the
//! leaf's own: columns of lengths, from which [`Table::merge`] takes the k-th largest per segment with the widest
//! instructions that the CPU has ([`Isa`]). Every instruction set gives the same result, bit for bit.
//!
//! Nothing is allocated after construction, and nothing waits: a slot that is being written is left for the next scan.
#![deny(unsafe_code)]

mod error;
mod kernel;
mod limit;
mod select;
mod seqlock;
mod shared;
mod sync;
mod table;

pub use error::SlotsError;
pub use kernel::Isa;
pub use limit::Limit;
pub use seqlock::SeqLock;
pub use shared::{Collected, SLOTS_MAX, SlotReader, SlotReport, SlotTable, SlotWriter};
pub use table::{Advance, Merged, SHARDS_MAX, Table};
