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
    /// In a joint epoch, the new members in slot order; none otherwise.
    pub joint: Vec<Member>,
    /// The segments in slot order.
    pub segments: Vec<SegmentState>,
}

/// How the state of a shard says, in one byte, whether it is open and whether its epoch is joint.
const OPEN: u8 = 1;
const JOINT: u8 = 2;

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
                // The one that is replaced does not write again.
                let leaves = self
                    .joint
                    .get(slot)
                    .is_some_and(|new| *new != self.members[slot]);
                let state = &mut self.segments[slot];
                if state.generation != *generation || leaves && writer.is_some() {
                    return Err(refused);
                }
                if state.len != *len {
                    return Err(ApplyError::Length {
                        segment: *segment,
                        expected: state.len,
                        found: *len,
                    });
                }
                if *generation != ViewId::ZERO {
                    state.closed.push(GenSpan {
                        generation: *generation,
                        open: state.opened_at,
                        close: *len,
                    });
                }
                state.opened_at = *len;
                state.generation = if writer.is_some() { view } else { ViewId::ZERO };
                state.writer = writer.unwrap_or(Inc::ZERO);
                if let Some(inc) = *writer {
                    let (node, domain) = (*node, *domain);
                    let member = Member { node, inc, domain };
                    self.members[slot] = member;
                    if let Some(new) = self.joint.get_mut(slot) {
                        *new = member;
                    }
                }
            }
            Change::Joint { members, .. } => self.begin_joint(members.iter(), view)?,
            Change::Activate { .. } => self.end_joint(view)?,
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
                self.joint.clear();
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

    /// The shard and slot that a refused joint change names.
    fn refused(&self, slot: usize, generation: ViewId) -> ApplyError {
        ApplyError::Segment {
            segment: SegmentId {
                shard: self.shard,
                slot: Slot::new(slot as u8),
            },
            generation,
        }
    }

    /// One slot gets another member, and nobody writes its segment.
    fn begin_joint(
        &mut self,
        members: impl ExactSizeIterator<Item = Member>,
        view: ViewId,
    ) -> Result<(), ApplyError> {
        let new: Vec<Member> = members.collect();
        let differs = |slot: &usize| new[*slot] != self.members[*slot];
        if !self.open || new.len() != self.members.len() {
            return Err(self.refused(0, view));
        }
        let mut slots = (0..new.len()).filter(differs);
        let (slot, more) = (slots.next(), slots.next());
        match (slot, more) {
            (Some(slot), None)
                if self.segments[slot].writer == Inc::ZERO && new[slot].inc != Inc::ZERO => {}
            (slot, more) => return Err(self.refused(more.or(slot).unwrap_or(0), view)),
        }
        self.joint = new;
        Ok(())
    }

    /// The new members are the members, and the segment of the new one opens again.
    fn end_joint(&mut self, view: ViewId) -> Result<(), ApplyError> {
        let new = (0..self.joint.len()).find(|slot| self.joint[*slot] != self.members[*slot]);
        let Some(slot) = new.filter(|_| self.open) else {
            return Err(self.refused(0, view));
        };
        self.members = core::mem::take(&mut self.joint);
        let state = &mut self.segments[slot];
        state.generation = view;
        state.writer = self.members[slot].inc;
        Ok(())
    }

    /// Whether a life counts in this epoch in a slot: as a member, or as a new one of a joint epoch.
    #[must_use]
    pub fn counts(&self, slot: Slot, inc: Inc) -> bool {
        let lists = [&self.members, &self.joint];
        let named =
            |members: &Vec<Member>| members.get(slot.index()).is_some_and(|it| it.inc == inc);
        inc != Inc::ZERO && lists.into_iter().any(named)
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
            joint: Vec::new(),
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
        let joint = if self.joint.is_empty() { 0 } else { JOINT };
        writer.field(if self.open { OPEN } else { 0 } | joint)?;
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
        self.joint
            .iter()
            .try_for_each(|member| writer.field(*member))
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
        let flags: u8 = reader.field()?;
        if flags & !(OPEN | JOINT) != 0 {
            return Err(WireError::Range {
                field: "shard flags",
                value: u64::from(flags),
            });
        }
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
        let mut joint = Vec::new();
        if flags & JOINT != 0 {
            for _ in 0..count {
                joint.push(reader.field()?);
            }
        }
        Ok(Self {
            shard,
            log,
            rank,
            epoch,
            last,
            class,
            quorum,
            open: flags & OPEN != 0,
            members,
            joint,
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

    /// Whether an entry follows from the state. For anything but a view, [`Self::apply`] then succeeds.
    ///
    /// # Errors
    /// [`ApplyError`]; effect none.
    pub fn check(&self, view: &EntryView<'_>) -> Result<(), ApplyError> {
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
            }
            EntryBody::Loss(loss) => {
                if loss.end_gsn < self.end_gsn || loss.end_gsn > self.ceiling {
                    return Err(ApplyError::Ceiling {
                        gsn: loss.end_gsn,
                        ceiling: self.ceiling,
                    });
                }
            }
            EntryBody::View(_)
            | EntryBody::RootEpoch(_)
            | EntryBody::Trim { .. }
            | EntryBody::Ceiling { .. } => {}
        }
        Ok(())
    }

    /// Applies the next entry.
    ///
    /// # Errors
    /// [`ApplyError`] when the entry does not follow from the state; effect none, but for views, after which the state is to
    /// be discarded.
    pub fn apply(&mut self, view: &EntryView<'_>) -> Result<(), ApplyError> {
        self.check(view)?;
        let entry = view.header.entry;
        match view.body {
            EntryBody::Cut(cut) => {
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

#[cfg(test)]
mod tests {
    use alloc::vec;

    use ionian_wire::entry::{encode_members, write_change};

    use super::*;

    const SHARD: ShardId = ShardId::new(4);

    fn member(slot: u32, inc: u64) -> Member {
        Member {
            node: NodeId::new(slot),
            inc: Inc::new(inc),
            domain: slot,
        }
    }

    fn members() -> Vec<Member> {
        vec![member(0, 10), member(1, 11), member(2, 12)]
    }

    /// A shard of three opened in view 1, with 5 committed in each segment.
    fn shard() -> ShardState {
        let mut bytes = [0; 64];
        let open = Change::Open {
            shard: SHARD,
            rank: 0,
            log: LogId::new(1),
            class: Durability::D1,
            quorum: 2,
            members: encode_members(&mut bytes, &members()).unwrap(),
        };
        let mut state = ShardState::opened(&open, ViewId::new(1), EntryNo::new(1)).unwrap();
        for segment in &mut state.segments {
            segment.len = Lsn::new(5);
        }
        state
    }

    fn close(slot: u8, generation: u64, writer: Option<u64>) -> Change<'static> {
        Change::Close {
            segment: SegmentId {
                shard: SHARD,
                slot: Slot::new(slot),
            },
            generation: ViewId::new(generation),
            len: Lsn::new(5),
            writer: writer.map(Inc::new),
            node: NodeId::new(u32::from(slot)),
            domain: u32::from(slot),
        }
    }

    fn apply(state: &mut ShardState, change: &Change<'_>, view: u64) -> Result<(), ApplyError> {
        state.apply_change(change, ViewId::new(view), EntryNo::new(view))
    }

    fn joint(state: &mut ShardState, new: &[Member], view: u64) -> Result<(), ApplyError> {
        let mut bytes = [0; 128];
        let members = encode_members(&mut bytes, new).unwrap();
        let shard = SHARD;
        apply(state, &Change::Joint { shard, members }, view)
    }

    const ACTIVATE: Change<'static> = Change::Activate { shard: SHARD };

    #[test]
    fn a_member_is_replaced_by_way_of_a_joint_epoch() {
        let mut state = shard();
        let with = |slot: usize, inc| {
            let mut new = members();
            new[slot] = member(7, inc);
            new
        };
        assert!(joint(&mut state, &with(2, 20), 2).is_err(), "it writes");
        apply(&mut state, &close(2, 1, None), 2).unwrap();
        assert_eq!(state.members, members(), "it is a member still");
        assert!(apply(&mut state, &ACTIVATE, 2).is_err(), "nobody comes");
        assert!(joint(&mut state, &members(), 2).is_err(), "nobody comes");
        let mut two = with(2, 20);
        two[1] = member(8, 21);
        assert!(joint(&mut state, &two, 2).is_err(), "two at once");
        assert!(joint(&mut state, &members()[..2], 2).is_err());
        joint(&mut state, &with(2, 20), 2).unwrap();
        for (slot, inc, counts) in [(2, 12, true), (2, 20, true), (1, 20, false), (2, 0, false)] {
            assert_eq!(state.counts(Slot::new(slot), Inc::new(inc)), counts);
        }
        assert!(apply(&mut state, &close(2, 0, Some(12)), 3).is_err());
        // Others may start again meanwhile, and so may the new one.
        apply(&mut state, &close(0, 1, Some(30)), 3).unwrap();
        let mut new = with(2, 21);
        new[0] = member(0, 30);
        joint(&mut state, &new, 4).unwrap();
        apply(&mut state, &ACTIVATE, 5).unwrap();
        assert_eq!((&state.members, state.joint.len()), (&new, 0));
        assert!(!state.counts(Slot::new(2), Inc::new(12)), "it is none now");
        let segment = &state.segments[2];
        let (generation, opened_at) = (segment.generation, segment.opened_at);
        assert_eq!((generation, opened_at), (ViewId::new(5), Lsn::new(5)));
        assert!(segment.is_open_in(ViewId::new(5)) && segment.writer == Inc::new(21));
        assert_eq!(segment.closed.len(), 1);
        assert_eq!(state.epoch, ViewId::new(5));
    }

    #[test]
    fn a_joint_epoch_is_part_of_a_snapshot() {
        let mut state = shard();
        let written = |state: &ShardState| {
            let mut bytes = vec![0; 4096];
            let mut writer = Writer::new(&mut bytes);
            state.write(&mut writer).unwrap();
            let len = writer.len();
            bytes.truncate(len);
            bytes
        };
        let plain = written(&state);
        apply(&mut state, &close(1, 1, None), 2).unwrap();
        let mut new = members();
        new[1] = member(9, 40);
        joint(&mut state, &new, 2).unwrap();
        let bytes = written(&state);
        assert!(bytes.len() > plain.len());
        for (bytes, state) in [(&plain, &shard()), (&bytes, &state)] {
            let mut reader = Reader::new(bytes);
            assert_eq!(ShardState::read(&mut reader).as_ref(), Ok(state));
            assert!(reader.is_empty());
        }
        // Written in a view by the root, read by all others.
        let mut encoded = [0; 256];
        let mut writer = Writer::new(&mut encoded);
        write_change(&mut writer, &ACTIVATE).unwrap();
        assert_eq!(writer.len(), 5);
    }
}
