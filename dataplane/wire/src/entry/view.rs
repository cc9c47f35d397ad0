//! The changes that a view makes, as they stand in a view entry and in a controller's intent.
//!
//! In an intent the lengths of `Close` and `Finalize` are zero: the root leader fills in the lengths of its own log's
//! end when it logs the view.

use ionian_types::{
    Durability, Gsn, Inc, LogId, Lsn, NodeId, SEGMENTS_PER_SHARD_MAX, SegmentId, ShardId, ViewId,
};

use crate::codec::{Field, Reader, WireError, Writer};
use crate::frame::Member;
use crate::tree::VertexList;

const TAG_OPEN: u8 = 1;
const TAG_CLOSE: u8 = 2;
const TAG_JOINT: u8 = 3;
const TAG_ACTIVATE: u8 = 4;
const TAG_FINALIZE: u8 = 5;
const TAG_TREE: u8 = 6;

/// A list of shard members in slot order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemberList<'a>(&'a [u8]);

impl<'a> MemberList<'a> {
    /// The members in slot order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Member> + 'a {
        self.0
            .chunks_exact(Member::LEN)
            .map(|bytes| Member::take(bytes).expect("the length was checked"))
    }

    /// The number of members.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len() / Member::LEN
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One change of a view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change<'a> {
    /// A shard comes into being. Each member writes the segment of its slot, in a generation named by this view.
    Open {
        /// The shard.
        shard: ShardId,
        /// Its place among the shards of its leaf.
        rank: u32,
        /// Its log.
        log: LogId,
        /// Its durability class.
        class: Durability,
        /// How many replicas must hold a record.
        quorum: u8,
        /// Its members in slot order.
        members: MemberList<'a>,
    },
    /// A generation ends at a length. With a writer, a new generation named by this view opens at that length, and the
    /// member in the segment's slot is this incarnation from now on. Without one nobody writes the segment, and the slot's
    /// member stays as it is.
    Close {
        /// The segment.
        segment: SegmentId,
        /// The generation that ends.
        generation: ViewId,
        /// The length at which it ends.
        len: Lsn,
        /// The next writer's incarnation, or none.
        writer: Option<Inc>,
        /// The node of the slot's member.
        node: NodeId,
        /// The failure domain of the slot's member.
        domain: u32,
    },
    /// One member of a shard is about to be replaced: from now on a record counts when as many of the present members and
    /// as many of these hold it as must. The lists differ in one slot. Nobody writes the segment of that slot meanwhile: the
    /// same view, or an earlier one, closes it without a writer. A further one names another life of the new member.
    Joint {
        /// The shard.
        shard: ShardId,
        /// The new members in slot order, as many as the present ones.
        members: MemberList<'a>,
    },
    /// The new members of the last [`Change::Joint`] are the members from now on; the one that they lack is none any more.
    /// The segment of the new one's slot opens again at its length, in a generation named by this view, with the new one as
    /// its writer.
    Activate {
        /// The shard.
        shard: ShardId,
    },
    /// A shard ends for good, each segment at a length.
    Finalize {
        /// The shard.
        shard: ShardId,
        /// The final lengths in slot order, as encoded `u64`s.
        lens: &'a [u8],
        /// Whether its records are lost with it; `lost_from..` tells from where on.
        lost_from: Option<Gsn>,
    },
    /// The tree below the root from now on.
    Tree {
        /// Its vertices.
        vertices: VertexList<'a>,
    },
}

impl Change<'_> {
    /// The shard that the change touches, if it touches one.
    #[must_use]
    pub const fn shard(&self) -> Option<ShardId> {
        match self {
            Self::Open { shard, .. }
            | Self::Joint { shard, .. }
            | Self::Activate { shard }
            | Self::Finalize { shard, .. } => Some(*shard),
            Self::Close { segment, .. } => Some(segment.shard),
            Self::Tree { .. } => None,
        }
    }
}

/// Writes one change.
///
/// # Errors
/// [`WireError::Full`].
pub fn write_change(writer: &mut Writer<'_>, change: &Change<'_>) -> Result<(), WireError> {
    match change {
        Change::Open {
            shard,
            rank,
            log,
            class,
            quorum,
            members,
        } => {
            writer.field(TAG_OPEN)?;
            writer.field(*shard)?;
            writer.field(*rank)?;
            writer.field(*log)?;
            writer.field(*class)?;
            writer.field(*quorum)?;
            writer.field(members.len() as u8)?;
            writer.bytes(members.0)
        }
        Change::Close {
            segment,
            generation,
            len,
            writer: next,
            node,
            domain,
        } => {
            writer.field(TAG_CLOSE)?;
            writer.field(*segment)?;
            writer.field(*generation)?;
            writer.field(*len)?;
            writer.field(next.unwrap_or(Inc::ZERO))?;
            writer.field(*node)?;
            writer.field(*domain)
        }
        Change::Joint { shard, members } => {
            writer.field(TAG_JOINT)?;
            writer.field(*shard)?;
            writer.field(members.len() as u8)?;
            writer.bytes(members.0)
        }
        Change::Activate { shard } => {
            writer.field(TAG_ACTIVATE)?;
            writer.field(*shard)
        }
        Change::Finalize {
            shard,
            lens,
            lost_from,
        } => {
            writer.field(TAG_FINALIZE)?;
            writer.field(*shard)?;
            writer.field(lost_from.is_some())?;
            writer.field(lost_from.unwrap_or(Gsn::ZERO))?;
            writer.field((lens.len() / 8) as u8)?;
            writer.bytes(lens)
        }
        Change::Tree { vertices } => {
            writer.field(TAG_TREE)?;
            writer.field(vertices.len() as u16)?;
            writer.bytes(vertices.encoded())
        }
    }
}

/// Walks the changes of a view.
#[derive(Clone, Copy, Debug)]
pub struct Changes<'a> {
    reader: Reader<'a>,
}

impl<'a> Changes<'a> {
    /// Walks changes that [`Self::check`] accepted.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self {
            reader: Reader::new(bytes),
        }
    }

    /// Walks every change once.
    ///
    /// # Errors
    /// Any [`WireError`]; effect none.
    pub fn check(bytes: &[u8]) -> Result<(), WireError> {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            read_change(&mut reader)?;
        }
        Ok(())
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Change<'a>;

    fn next(&mut self) -> Option<Change<'a>> {
        if self.reader.is_empty() {
            return None;
        }
        read_change(&mut self.reader).ok()
    }
}

fn read_change<'a>(reader: &mut Reader<'a>) -> Result<Change<'a>, WireError> {
    match reader.field::<u8>()? {
        TAG_OPEN => {
            let shard = reader.field()?;
            let rank = reader.field()?;
            let log = reader.field()?;
            let class = reader.field()?;
            let quorum: u8 = reader.field()?;
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
            let members = MemberList(reader.bytes(usize::from(count) * Member::LEN)?);
            Ok(Change::Open {
                shard,
                rank,
                log,
                class,
                quorum,
                members,
            })
        }
        TAG_CLOSE => {
            let segment: SegmentId = reader.field()?;
            if segment.slot.index() >= SEGMENTS_PER_SHARD_MAX {
                return Err(WireError::Range {
                    field: "slot",
                    value: u64::from(segment.slot.get()),
                });
            }
            let generation = reader.field()?;
            let len = reader.field()?;
            let inc: Inc = reader.field()?;
            Ok(Change::Close {
                segment,
                generation,
                len,
                writer: (inc != Inc::ZERO).then_some(inc),
                node: reader.field()?,
                domain: reader.field()?,
            })
        }
        TAG_JOINT => {
            let shard = reader.field()?;
            let count: u8 = reader.field()?;
            if count == 0 || usize::from(count) > SEGMENTS_PER_SHARD_MAX {
                return Err(WireError::Range {
                    field: "shard members",
                    value: u64::from(count),
                });
            }
            let members = MemberList(reader.bytes(usize::from(count) * Member::LEN)?);
            Ok(Change::Joint { shard, members })
        }
        TAG_ACTIVATE => Ok(Change::Activate {
            shard: reader.field()?,
        }),
        TAG_FINALIZE => {
            let shard = reader.field()?;
            let lost: bool = reader.field()?;
            let lost_from: Gsn = reader.field()?;
            let count: u8 = reader.field()?;
            if usize::from(count) > SEGMENTS_PER_SHARD_MAX {
                return Err(WireError::Range {
                    field: "shard members",
                    value: u64::from(count),
                });
            }
            let lens = reader.bytes(usize::from(count) * 8)?;
            Ok(Change::Finalize {
                shard,
                lens,
                lost_from: lost.then_some(lost_from),
            })
        }
        TAG_TREE => {
            let count: u16 = reader.field()?;
            let vertices = VertexList::read(reader, usize::from(count))?;
            Ok(Change::Tree { vertices })
        }
        tag => Err(WireError::Range {
            field: "change tag",
            value: u64::from(tag),
        }),
    }
}

/// Encodes members for [`Change::Open`] and [`Change::Joint`].
///
/// # Errors
/// [`WireError::Full`] when `out` is too short.
pub fn encode_members<'a>(
    out: &'a mut [u8],
    members: &[Member],
) -> Result<MemberList<'a>, WireError> {
    let mut writer = Writer::new(out);
    for member in members {
        writer.field(*member)?;
    }
    let len = writer.len();
    Ok(MemberList(&out[..len]))
}
