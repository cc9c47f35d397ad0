//! What a cut log says at one entry: shards, generations, lengths, the end of the order.
//!
//! The root applies every entry here as it appends it, a replica applies the entries that touch its shard, and a
//! snapshot is this state encoded. Entries come from disks and peers: a contradiction is an error, never a panic.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use ionian_types::{
    Durability, EntryNo, Gsn, Inc, LogId, Lsn, NodeId, RootEpoch, SEGMENTS_PER_SHARD_MAX,
    SegmentId, ShardId, Slot, ViewId,
};
use ionian_wire::entry::{Change, CutItem, EntryBody, EntryView, LossView};
use ionian_wire::frame::Member;
use ionian_wire::{Reader, WireError, Writer};

use super::segment::{GenSpan, SegmentState};

/// Why an entry does not follow from the state. Effect: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Not the next entry.
    #[error("entry {found} does not follow entry {after}")]
    Order {
        /// The last entry applied.
        after: EntryNo,
        /// The entry found.
        found: EntryNo,
    },
    /// The chain of checksums is broken.
    #[error("entry {entry} does not continue the checksum chain")]
    Chain {
        /// The entry.
        entry: EntryNo,
    },
    /// A cut starts where the order does not end.
    #[error("the cut starts at gsn {found}, the order ends at {expected}")]
    Start {
        /// The end of the order.
        expected: Gsn,
        /// The start found.
        found: Gsn,
    },
    /// A segment's growth starts elsewhere than at its committed length, or in another generation.
    #[error("segment {segment}: the entry continues length {found}, committed are {expected}")]
    Length {
        /// The segment.
        segment: SegmentId,
        /// The committed length.
        expected: Lsn,
        /// The length found.
        found: Lsn,
    },
    /// The entry names a shard or slot that does not exist, or is closed.
    #[error("segment {segment} is not open in generation {generation}")]
    Segment {
        /// The segment.
        segment: SegmentId,
        /// The generation that the entry names.
        generation: ViewId,
    },
    /// The view is not the next one.
    #[error("view {found} does not follow view {after}")]
    View {
        /// The last view.
        after: ViewId,
        /// The view found.
        found: ViewId,
    },
    /// The order would pass its ceiling or the range of gsn.
    #[error("gsn {gsn} lies beyond the ceiling {ceiling}")]
    Ceiling {
        /// The position reached.
        gsn: Gsn,
        /// The ceiling.
        ceiling: Gsn,
    },
}

/// One shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardState {
    /// The shard.
    pub shard: ShardId,
    /// Its log.
    pub log: LogId,
    /// Its place among the shards of its leaf.
    pub rank: u32,
    /// The last view that changed it.
    pub epoch: ViewId,
    /// The last entry that touched it.
    pub last: EntryNo,
    /// What an acknowledgement means.
    pub class: Durability,
    /// How many replicas must hold a record.
    pub quorum: u8,
    /// Whether it takes appends; a finalized shard never does again.
    pub open: bool,
    /// The members in slot order.
    pub members: Vec<Member>,
    /// The segments in slot order.
    pub segments: Vec<SegmentState>,
}

impl ShardState {
    /// Applies the items of a cut that belong to this shard.
    ///
    /// # Errors
    /// [`ApplyError::Segment`] or [`ApplyError::Length`]; effect none.
    pub fn check_item(&self, item: &CutItem) -> Result<(), ApplyError> {
        let Some(segment) = self
            .segments
            .get(item.segment.slot.index())
            .filter(|_| self.open)
        else {
            return Err(ApplyError::Segment {
                segment: item.segment,
                generation: item.generation,
            });
        };
        if segment.generation != item.generation {
            return Err(ApplyError::Segment {
                segment: item.segment,
                generation: item.generation,
            });
        }
        if segment.len != item.prev_len {
            return Err(ApplyError::Length {
                segment: item.segment,
                expected: segment.len,
                found: item.prev_len,
            });
        }
        Ok(())
    }

    /// Applies one change of view `view`, logged at entry `entry`, to this shard.
    ///
    /// # Errors
    /// [`ApplyError`]; effect none.
    pub fn apply_change(
        &mut self,
        change: &Change<'_>,
        view: ViewId,
        entry: EntryNo,
    ) -> Result<(), ApplyError> {
        match change {
            Change::Close {
                segment,
                generation,
                len,
                writer,
                node,
                domain,
            } => {
                let refused = ApplyError::Segment {
                    segment: *segment,
                    generation: *generation,
                };
                let slot = segment.slot.index();
                if !self.open || slot >= self.segments.len() || slot >= self.members.len() {
                    return Err(refused);
                }
                let state = &mut self.segments[slot];
                if state.generation != *generation {
                    return Err(refused);
                }
                if state.len != *len {
                    return Err(ApplyError::Length {
                        segment: *segment,
                        expected: state.len,
                        found: *len,
                    });
                }
                state.closed.push(GenSpan {
                    generation: *generation,
                    open: state.opened_at,
                    close: *len,
                });
                state.opened_at = *len;
                state.generation = if writer.is_some() { view } else { ViewId::ZERO };
                state.writer = writer.unwrap_or(Inc::ZERO);
                self.members[slot] = Member {
                    node: *node,
                    inc: state.writer,
                    domain: *domain,
                };
            }
            Change::Finalize { lens, .. } => {
                if lens.len() != self.segments.len() * 8 {
                    let segment = SegmentId {
                        shard: self.shard,
                        slot: Slot::ZERO,
                    };
                    return Err(ApplyError::Segment {
                        segment,
                        generation: view,
                    });
                }
                for (slot, len) in lens.chunks_exact(8).enumerate() {
                    let found = Lsn::new(Reader::new(len).field().unwrap_or(u64::MAX));
                    if found != self.segments[slot].len {
                        let segment = SegmentId {
                            shard: self.shard,
                            slot: Slot::new(slot as u8),
                        };
                        return Err(ApplyError::Length {
                            segment,
                            expected: self.segments[slot].len,
                            found,
                        });
                    }
                }
                self.open = false;
                for state in &mut self.segments {
                    state.closed.push(GenSpan {
                        generation: state.generation,
                        open: state.opened_at,
                        close: state.len,
                    });
                    state.opened_at = state.len;
                    state.generation = ViewId::ZERO;
                    state.writer = Inc::ZERO;
                }
            }
            Change::Open { .. } => {
                if let Some(opened) = Self::opened(change, view, entry) {
                    *self = opened;
                }
            }
            Change::Tree { .. } => return Ok(()),
        }
        self.epoch = view;
        self.last = entry;
        Ok(())
    }

    /// The view that opened the shard: another one after each reset.
    #[must_use]
    pub fn opened_in(&self) -> ViewId {
        self.segments.first().map_or(ViewId::ZERO, |segment| {
            let first = segment.closed.first();
            first.map_or(segment.generation, |span| span.generation)
        })
    }

    /// The state of a shard that `change` opens in view `view`, at entry `entry`; `None` for any other change.
    #[must_use]
    pub fn opened(change: &Change<'_>, view: ViewId, entry: EntryNo) -> Option<Self> {
        let Change::Open {
            shard,
            rank,
            log,
            class,
            quorum,
            members,
        } = change
        else {
            return None;
        };
        let members: Vec<Member> = members.iter().collect();
        let segments = members
            .iter()
            .map(|member| SegmentState {
                generation: view,
                opened_at: Lsn::ZERO,
                writer: member.inc,
                len: Lsn::ZERO,
                closed: Vec::new(),
            })
            .collect();
        Some(Self {
            shard: *shard,
            log: *log,
            rank: *rank,
            epoch: view,
            last: entry,
            class: *class,
            quorum: *quorum,
            open: true,
            members,
            segments,
        })
    }

    /// Writes the state.
    ///
    /// # Errors
    /// [`WireError::Full`].
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), WireError> {
        writer.field(self.shard)?;
        writer.field(self.log)?;
        writer.field(self.rank)?;
        writer.field(self.epoch)?;
        writer.field(self.last)?;
        writer.field(self.class)?;
        writer.field(self.quorum)?;
        writer.field(self.open)?;
        writer.field(self.members.len() as u8)?;
        for (member, segment) in self.members.iter().zip(&self.segments) {
            writer.field(*member)?;
            writer.field(segment.generation)?;
            writer.field(segment.opened_at)?;
            writer.field(segment.writer)?;
            writer.field(segment.len)?;
            writer.field(segment.closed.len() as u32)?;
            for span in &segment.closed {
                writer.field(span.generation)?;
                writer.field(span.open)?;
                writer.field(span.close)?;
            }
        }
        Ok(())
    }

    /// Reads a state that a peer or a disk supplied.
    ///
    /// # Errors
    /// Any [`WireError`]; effect none.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let shard = reader.field()?;
        let log = reader.field()?;
        let rank = reader.field()?;
        let epoch = reader.field()?;
        let last = reader.field()?;
        let class = reader.field()?;
        let quorum: u8 = reader.field()?;
        let open = reader.field()?;
        let count: u8 = reader.field()?;
        if count == 0
            || usize::from(count) > SEGMENTS_PER_SHARD_MAX
            || quorum == 0
            || quorum > count
        {
            return Err(WireError::Range {
                field: "shard members",
                value: u64::from(count),
            });
        }
        let mut members = Vec::new();
        let mut segments = Vec::new();
        for _ in 0..count {
            members.push(reader.field()?);
            let generation = reader.field()?;
            let opened_at: Lsn = reader.field()?;
            let writer = reader.field()?;
            let len: Lsn = reader.field()?;
            if opened_at > len {
                return Err(WireError::Range {
                    field: "opened_at",
                    value: opened_at.get(),
                });
            }
            let mut closed = Vec::new();
            for _ in 0..reader.field::<u32>()? {
                closed.push(GenSpan {
                    generation: reader.field()?,
                    open: reader.field()?,
                    close: reader.field()?,
                });
            }
            segments.push(SegmentState {
                generation,
                opened_at,
                writer,
                len,
                closed,
            });
        }
        Ok(Self {
            shard,
            log,
            rank,
            epoch,
            last,
            class,
            quorum,
            open,
            members,
            segments,
        })
    }
}

/// The state of a whole cut log after an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogState {
    /// The entry.
    pub entry: EntryNo,
    /// Its checksum.
    pub crc: u32,
    /// The root epoch in which it was appended.
    pub epoch: RootEpoch,
    /// The last view.
    pub view: ViewId,
    /// The position after the last one ordered.
    pub end_gsn: Gsn,
    /// Positions below may be used.
    pub ceiling: Gsn,
    /// Positions below are trimmed.
    pub trim: Gsn,
    /// The root's children: node and incarnation.
    pub children: Vec<(NodeId, Inc)>,
    /// The shards.
    pub shards: BTreeMap<ShardId, ShardState>,
    /// Positions declared lost that are not trimmed yet.
    pub losses: Vec<LossView>,
    /// Shards in the order of the tree: by rank, then id. Derived.
    order: Vec<ShardId>,
}

impl Default for LogState {
    fn default() -> Self {
        Self {
            entry: EntryNo::ZERO,
            crc: 0,
            epoch: RootEpoch::ZERO,
            view: ViewId::ZERO,
            end_gsn: Gsn::ZERO,
            ceiling: Gsn::ZERO,
            trim: Gsn::ZERO,
            children: Vec::new(),
            shards: BTreeMap::new(),
            losses: Vec::new(),
            order: Vec::new(),
        }
    }
}

impl LogState {
    /// The shards in the order of the tree.
    #[must_use]
    pub fn order(&self) -> &[ShardId] {
        &self.order
    }

    /// Applies the next entry.
    ///
    /// # Errors
    /// [`ApplyError`] when the entry does not follow from the state; effect none for cuts, and for views the state is to be
    /// discarded.
    pub fn apply(&mut self, view: &EntryView<'_>) -> Result<(), ApplyError> {
        let entry = view.header.entry;
        if self.entry.next() != Some(entry) {
            return Err(ApplyError::Order {
                after: self.entry,
                found: entry,
            });
        }
        if view.header.prev_crc != self.crc || view.header.epoch < self.epoch {
            return Err(ApplyError::Chain { entry });
        }
        match view.body {
            EntryBody::Cut(cut) => {
                if cut.start_gsn != self.end_gsn {
                    return Err(ApplyError::Start {
                        expected: self.end_gsn,
                        found: cut.start_gsn,
                    });
                }
                if cut.end_gsn > self.ceiling {
                    return Err(ApplyError::Ceiling {
                        gsn: cut.end_gsn,
                        ceiling: self.ceiling,
                    });
                }
                for item in cut.items() {
                    let shard =
                        self.shards
                            .get(&item.segment.shard)
                            .ok_or(ApplyError::Segment {
                                segment: item.segment,
                                generation: item.generation,
                            })?;
                    shard.check_item(&item)?;
                }
                for item in cut.items() {
                    if let Some(shard) = self.shards.get_mut(&item.segment.shard) {
                        shard.segments[item.segment.slot.index()].len = item.new_len;
                        shard.last = entry;
                    }
                }
                self.end_gsn = cut.end_gsn;
            }
            EntryBody::View(body) => {
                if self.view.next() != Some(body.view) {
                    return Err(ApplyError::View {
                        after: self.view,
                        found: body.view,
                    });
                }
                for change in body.changes() {
                    self.apply_change(&change, body.view, entry)?;
                }
                self.view = body.view;
                self.reorder();
            }
            EntryBody::RootEpoch(_) => {}
            EntryBody::Trim { upto } => {
                self.trim = self.trim.max(upto);
                self.losses.retain(|loss| loss.to > upto);
            }
            EntryBody::Loss(loss) => {
                if loss.end_gsn < self.end_gsn || loss.end_gsn > self.ceiling {
                    return Err(ApplyError::Ceiling {
                        gsn: loss.end_gsn,
                        ceiling: self.ceiling,
                    });
                }
                self.end_gsn = loss.end_gsn;
                self.losses.push(loss);
                if let Some(shard) = loss.shard.and_then(|shard| self.shards.get_mut(&shard)) {
                    shard.last = entry;
                }
            }
            EntryBody::Ceiling { gsn } => self.ceiling = self.ceiling.max(gsn),
        }
        self.entry = entry;
        self.crc = view.header.crc;
        self.epoch = view.header.epoch;
        Ok(())
    }

    fn apply_change(
        &mut self,
        change: &Change<'_>,
        view: ViewId,
        entry: EntryNo,
    ) -> Result<(), ApplyError> {
        if let Change::Tree { children } = change {
            self.children.clear();
            let mut reader = Reader::new(children);
            while let (Ok(node), Ok(inc)) = (reader.field(), reader.field()) {
                self.children.push((node, inc));
            }
            return Ok(());
        }
        let Some(shard) = change.shard() else {
            return Ok(());
        };
        match self.shards.get_mut(&shard) {
            Some(state) => state.apply_change(change, view, entry),
            None => match ShardState::opened(change, view, entry) {
                Some(state) => {
                    self.shards.insert(shard, state);
                    Ok(())
                }
                None => Err(ApplyError::Segment {
                    segment: SegmentId {
                        shard,
                        slot: Slot::ZERO,
                    },
                    generation: view,
                }),
            },
        }
    }

    fn reorder(&mut self) {
        self.order.clear();
        self.order.extend(self.shards.keys());
        let shards = &self.shards;
        self.order.sort_by_key(|shard| (shards[shard].rank, *shard));
    }

    /// Writes the state: a snapshot of the cut log.
    ///
    /// # Errors
    /// [`WireError::Full`].
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), WireError> {
        writer.field(self.entry)?;
        writer.field(self.crc)?;
        writer.field(self.epoch)?;
        writer.field(self.view)?;
        writer.field(self.end_gsn)?;
        writer.field(self.ceiling)?;
        writer.field(self.trim)?;
        writer.field(self.children.len() as u32)?;
        for (node, inc) in &self.children {
            writer.field(*node)?;
            writer.field(*inc)?;
        }
        writer.field(self.shards.len() as u32)?;
        for shard in self.shards.values() {
            shard.write(writer)?;
        }
        writer.field(self.losses.len() as u32)?;
        for loss in &self.losses {
            writer.field(loss.shard.unwrap_or(ShardId::MAX))?;
            writer.field(loss.from)?;
            writer.field(loss.to)?;
            writer.field(loss.end_gsn)?;
        }
        Ok(())
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// Any [`WireError`]; effect none.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut state = Self {
            entry: reader.field()?,
            crc: reader.field()?,
            epoch: reader.field()?,
            view: reader.field()?,
            end_gsn: reader.field()?,
            ceiling: reader.field()?,
            trim: reader.field()?,
            ..Self::default()
        };
        for _ in 0..reader.field::<u32>()? {
            state.children.push((reader.field()?, reader.field()?));
        }
        for _ in 0..reader.field::<u32>()? {
            let shard = ShardState::read(reader)?;
            state.shards.insert(shard.shard, shard);
        }
        for _ in 0..reader.field::<u32>()? {
            let shard: ShardId = reader.field()?;
            state.losses.push(LossView {
                shard: (shard != ShardId::MAX).then_some(shard),
                from: reader.field()?,
                to: reader.field()?,
                end_gsn: reader.field()?,
            });
        }
        state.reorder();
        Ok(state)
    }
}
