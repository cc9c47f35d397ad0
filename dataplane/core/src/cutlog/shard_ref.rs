//! A shard of a log's state: what views say of it, and beside it what cuts have changed since the last view.

use ionian_types::{Durability, EntryNo, Lsn, ShardId, Slot, ViewId};
use ionian_wire::frame::Member;
use ionian_wire::{WireError, Writer};

use super::shard::ShardState;

/// One shard of a [`LogState`](super::LogState), as of its last entry.
#[derive(Clone, Copy, Debug)]
pub struct ShardRef<'a> {
    state: &'a ShardState,
    /// Of an open shard: the lengths in slot order, and the last cut that changed each.
    now: Option<(&'a [u64], &'a [u64])>,
}

impl<'a> ShardRef<'a> {
    pub(super) const fn new(state: &'a ShardState, now: Option<(&'a [u64], &'a [u64])>) -> Self {
        Self { state, now }
    }

    /// The shard.
    #[must_use]
    pub const fn shard(&self) -> ShardId {
        self.state.shard
    }

    /// The last view that changed it.
    #[must_use]
    pub const fn epoch(&self) -> ViewId {
        self.state.epoch
    }

    /// What an acknowledgement means.
    #[must_use]
    pub const fn class(&self) -> Durability {
        self.state.class
    }

    /// How many replicas must hold a record.
    #[must_use]
    pub const fn quorum(&self) -> u8 {
        self.state.quorum
    }

    /// Whether it takes appends.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.state.open
    }

    /// The members in slot order.
    #[must_use]
    pub fn members(&self) -> &'a [Member] {
        &self.state.members
    }

    /// In a joint epoch, the new members in slot order; none otherwise.
    #[must_use]
    pub fn joint(&self) -> &'a [Member] {
        &self.state.joint
    }

    /// The last entry that touched it.
    #[must_use]
    pub fn last(&self) -> EntryNo {
        let cuts = self.now.iter().flat_map(|(_, touched)| *touched);
        let cut = cuts.max().copied().map(EntryNo::new);
        cut.map_or(self.state.last, |cut| cut.max(self.state.last))
    }

    /// The committed length of a segment; zero if there is none in the slot.
    #[must_use]
    pub fn len_of(&self, slot: Slot) -> Lsn {
        self.lens().nth(slot.index()).unwrap_or_default()
    }

    /// The committed lengths in slot order.
    pub fn lens(&self) -> impl ExactSizeIterator<Item = Lsn> + use<'a> {
        let now = self.now.map(|(lens, _)| lens);
        let segments = self.state.segments.iter().enumerate();
        segments.map(move |(slot, segment)| now.map_or(segment.len, |now| Lsn::new(now[slot])))
    }

    /// The current generations in slot order.
    pub fn generations(&self) -> impl ExactSizeIterator<Item = ViewId> + use<'a> {
        self.state.segments.iter().map(|segment| segment.generation)
    }

    /// The generation that owns a position of a segment.
    #[must_use]
    pub fn owner(&self, slot: Slot, position: Lsn) -> Option<ViewId> {
        let segment = self.state.segments.get(slot.index())?;
        Some(segment.owner(position))
    }

    /// Whether a generation is one that the segment has, or had.
    #[must_use]
    pub fn knows(&self, slot: Slot, generation: ViewId) -> bool {
        let segment = self.state.segments.get(slot.index());
        segment.is_some_and(|segment| {
            segment.generation == generation || segment.closed_span(generation).is_some()
        })
    }

    /// All of it.
    #[must_use]
    pub fn state(&self) -> ShardState {
        let mut state = self.state.clone();
        for (segment, len) in state.segments.iter_mut().zip(self.lens()) {
            segment.len = len;
        }
        state.last = self.last();
        state
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// [`WireError::Full`].
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), WireError> {
        self.state.write_with(writer, self.last(), self.lens())
    }
}
