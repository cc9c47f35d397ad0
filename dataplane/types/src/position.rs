//! Where and when: positions in the total order and in segments, entries, views, epochs.

use crate::num::number;
use crate::{LogId, SegmentId};

number! {
    /// A position in a log's total order, from 0, dense.
    Gsn(u64)
}
number! {
    /// A position in a segment, from 0, dense. Also a length: the position after the last.
    Lsn(u64)
}
number! {
    /// The number of an entry of the cut log, from 1, dense; 0 means none.
    EntryNo(u64)
}
number! {
    /// The number of a view, from 1, dense; 0 means none.
    ViewId(u64)
}
number! {
    /// The epoch of the root group: one leader life.
    RootEpoch(u64)
}
number! {
    /// The number of a round on one edge of the tree, consecutive.
    RoundNo(u64)
}
number! {
    /// The guard epoch: who may touch a replica. Raised by a seal; in `scalog` mode it is the shard epoch.
    GuardEpoch(u64)
}
number! {
    /// The namespace epoch: the part of a position that `logdevice` and `ziplog` put before the index. 0 elsewhere.
    NsEpoch(u32)
}

/// A generation of a segment: the view that opened its writer's life.
pub type Gen = ViewId;
/// A bare position of either kind, as cells are keyed.
pub type Position = u64;

/// The epoch of an edge of the tree: the root epoch at its start and the last view that changed its subtree.
/// (ORDERING.md, names: `ee`.)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct EdgeEpoch {
    /// The root epoch in which the edge started.
    pub root: RootEpoch,
    /// The last view that changed the subtree below the edge.
    pub view: ViewId,
    /// Counts restarts of the edge within (root, view), so that a restart is never mistaken for the edge before it.
    pub start: u64,
}

/// A half-open range of the total order: `from <= g < to`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GsnRange {
    /// The first position.
    pub from: Gsn,
    /// The position after the last.
    pub to: Gsn,
}

impl GsnRange {
    /// Whether `gsn` lies in the range.
    #[must_use]
    pub fn contains(&self, gsn: Gsn) -> bool {
        self.from <= gsn && gsn < self.to
    }

    /// The number of positions.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.to.saturating_since(self.from)
    }
}

/// The internal key of a cell, the same in every mode: (log, segment, namespace epoch, index).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CellKey {
    /// The log.
    pub log: LogId,
    /// The segment, or for modes without segments the shard and slot that hold the cell.
    pub segment: SegmentId,
    /// The namespace epoch; 0 in modes that have none.
    pub ns_epoch: NsEpoch,
    /// The index within the epoch.
    pub index: Position,
}

/// How far a log has come, in each sense of the word. Each is the position after the last, and
/// `visible <= ordered`. A mode without a notion of one of them reports the next stronger one.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Frontiers {
    /// Records below are held at the log's durability class.
    pub durable: Gsn,
    /// Records below have their final position.
    pub ordered: Gsn,
    /// Records below can be read here and now.
    pub visible: Gsn,
    /// Records below have been delivered speculatively. Equals `visible` in modes without speculation.
    pub speculative: Gsn,
}
