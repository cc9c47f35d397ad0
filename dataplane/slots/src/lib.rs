//! The tables of a leaf (ORDERING.md, LEAF): slots that replicas' reports are written to, and the kernels that turn lengths
//! per replica into lengths per segment, for thousands of shards at once.
//!
//! [`SlotTable`] is shared: one slot per server, one writer per slot, and a leaf that scans for what is new; [`DownRings`] are the way
//! back, a ring of frames per server. [`Table`] is the
//! leaf's own: columns of lengths, from which [`Table::merge`] takes the k-th largest per segment with the widest
//! instructions that the CPU has ([`Isa`]). Every instruction set gives the same result, bit for bit.
//!
//! ```
//! use ionian_slots::{Merged, SlotReport, SlotTable, SlotsError, Table};
//! use ionian_types::{EntryNo, Inc, ViewId};
//!
//! # fn main() -> Result<(), SlotsError> {
//! // One shard of two replicas, both of which are needed: slots 0 and 1 are theirs.
//! let slots = SlotTable::new(2, 2)?;
//! let (mut reader, mut table) = (slots.reader(), Table::new(1, 2, 2)?);
//! for (slot, lens) in [[7, 3], [5, 4]].iter().enumerate() {
//!     let mut writer = slots.writer(slot).expect("nobody has it");
//!     let (epoch, inc, applied) = (ViewId::new(1), Inc::new(1), EntryNo::ZERO);
//!     writer.write(&SlotReport { epoch, inc, seq: 1, applied, lens })?;
//! }
//! // A leaf checks epoch, incarnation and sequence here.
//! reader.collect(0..2, |slot, report| {
//!     table.advance(slot / 2, slot % 2, report.lens);
//! });
//! assert_eq!(table.merge(), Merged { changed_segments: 2, growth: 8 });
//! let mut round = Vec::new();
//! table.for_each_changed(|shard, segment, before, after| round.push((shard, segment, before, after)));
//! assert_eq!(round, [(0, 0, 0, 5), (0, 1, 0, 3)]);
//! # Ok(())
//! # }
//! ```
//!
//! Nothing is allocated after construction, and nothing waits: a slot that is being written is left for the next scan.
#![deny(unsafe_code)]

mod columns;
mod error;
mod kernel;
mod limit;
mod rings;
mod select;
mod seqlock;
mod shared;
mod sync;
mod table;

pub use error::SlotsError;
pub use kernel::Isa;
pub use limit::Limit;
pub use rings::{CELLS_MAX, DEPTH_MAX, DownReader, DownRings, DownWriter, Received};
pub use seqlock::SeqLock;
pub use shared::{Collected, SLOTS_MAX, SlotReader, SlotReport, SlotTable, SlotWriter};
pub use table::{Advance, Merged, SHARDS_MAX, Table};
