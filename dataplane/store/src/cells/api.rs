//! What operations on cells take and answer.

use ionian_types::{ClientId, ClientSeq, Effect, GapKind, GuardEpoch, Lsn, NsEpoch, SessionNo};

use crate::error::StoreError;
use crate::store::RunRef;

/// What a cell holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cell {
    /// Nothing yet.
    Empty,
    /// A record: its bytes are `store.bytes(&run)`, its payload [`super::Cells::payload`] of them.
    Data(RunRef),
    /// A record that is being read from the device: ask again after a completion.
    Wait,
    /// A record that is damaged.
    Damaged,
    /// No data, now or ever, unless recovery puts something with a greater precedence.
    Gap(GapKind),
    /// Trimmed.
    Trimmed,
    /// No value is known, and records are damaged whose cells are not known.
    Unknown,
}

/// A range of cells in the same state, or one with data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CellRange {
    /// One cell with data.
    Data {
        /// The cell.
        index: u64,
    },
    /// Cells that hold no data.
    Gap {
        /// First cell.
        from: u64,
        /// The cell after the last.
        to: u64,
        /// Why.
        kind: GapKind,
    },
    /// Trimmed cells.
    Trimmed {
        /// First cell.
        from: u64,
        /// The cell after the last.
        to: u64,
    },
}

/// Why an operation on a cell was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CellError {
    /// The caller's guard epoch is over. Effect: none.
    #[error("guard epoch {guard} is over, now {current}")]
    Sealed {
        /// The caller's.
        guard: GuardEpoch,
        /// The one in force.
        current: GuardEpoch,
    },
    /// The cell is trimmed. Effect: none.
    #[error("the cell is trimmed")]
    Trimmed,
    /// The cell has a value of this or a greater precedence. Effect: none.
    #[error("the cell is written")]
    Written,
    /// The cell has no known value, and cells of damaged records are not known. Effect: none.
    #[error("the cell is not known: records are damaged")]
    Unknown,
    /// An index or a range that cannot be. Effect: none.
    #[error("no such cells: {from}..{to}")]
    Range {
        /// First cell.
        from: u64,
        /// The cell after the last.
        to: u64,
    },
    /// The store refused. Effect: none.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CellError {
    /// What the refused operation may have done.
    #[must_use]
    pub const fn effect(&self) -> Effect {
        Effect::None
    }
}

/// Who writes what.
#[derive(Clone, Copy, Debug)]
pub struct CellWrite<'a> {
    /// The client.
    pub client: ClientId,
    /// Its session.
    pub session: SessionNo,
    /// Its sequence number.
    pub seq: ClientSeq,
    /// The payload.
    pub payload: &'a [u8],
}

/// When an accepted operation is durable: see [`super::Cells::is_durable`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CellTicket {
    /// With this record of the segment.
    Record(Lsn),
    /// With this entry of the journal.
    Entry(u64),
}

/// What a seal reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealReport {
    /// The guard epoch now in force.
    pub guard: GuardEpoch,
    /// The greatest index of the epoch that is not empty.
    pub max_index: Option<u64>,
    /// All cells of the epoch below are not empty.
    pub contiguous: u64,
    /// The cell after `max_index`.
    pub tail: u64,
    /// Everything below is trimmed.
    pub trim: (NsEpoch, u64),
}
