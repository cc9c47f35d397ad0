//! One shard as the cut log knows it: members, generations, lengths. The root has one for each shard, and a replica has its own.
//!
//! Entries come from disks and peers: a contradiction is an error, never a panic.

use alloc::vec::Vec;

use ionian_types::{
    Durability, EntryNo, Inc, LogId, Lsn, SEGMENTS_PER_SHARD_MAX, SegmentId, ShardId, Slot, ViewId,
};
use ionian_wire::entry::Change;
use ionian_wire::frame::Member;
use ionian_wire::{Reader, WireError, Writer};

use super::ApplyError;
use super::segment::{GenSpan, SegmentState};

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
        let lens = self.segments.iter().map(|segment| segment.len);
        self.write_with(writer, self.last, lens)
    }

    /// Writes the state with another last entry and other lengths.
    pub(super) fn write_with(
        &self,
        writer: &mut Writer<'_>,
        last: EntryNo,
        lens: impl Iterator<Item = Lsn>,
    ) -> Result<(), WireError> {
        writer.field(self.shard)?;
        writer.field(self.log)?;
        writer.field(self.rank)?;
        writer.field(self.epoch)?;
        writer.field(last)?;
        writer.field(self.class)?;
        writer.field(self.quorum)?;
        let joint = if self.joint.is_empty() { 0 } else { JOINT };
        writer.field(if self.open { OPEN } else { 0 } | joint)?;
        writer.field(self.members.len() as u8)?;
        for ((member, segment), len) in self.members.iter().zip(&self.segments).zip(lens) {
            writer.field(*member)?;
            writer.field(segment.generation)?;
            writer.field(segment.opened_at)?;
            writer.field(segment.writer)?;
            writer.field(len)?;
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

#[cfg(test)]
mod tests {
    use alloc::vec;

    use ionian_types::NodeId;
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
