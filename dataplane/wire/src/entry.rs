//! Entries of the cut log (ORDERING.md, section 1, cut log). A gsn is a pure function of these.
//!
//! ```text
//!  0 kind u8 | 1 version u8 | 2 reserved u16 (0) | 4 entry bytes u32, this header included
//!  8 entry number u64 | 16 root epoch u64 | 24 previous entry's CRC u32 | 28 CRC u32 (over the rest) | 32 body
//! ```
//! Bodies are compact: unsigned LEB128 numbers unless said otherwise. A cut says by how much each segment grew
//! ([`crate::growth`]) and nothing that follows from the entries before it: a segment's number is its place among the segments
//! of the open shards in the order of the tree, slots ascending, as of the entry before; its generation and its length are
//! those of that entry. That order is the order of the cut's records. Who does not know the state gets a [`Row`].

mod row;
mod view;

pub use row::{Row, RowItem, ShardEntry};
pub use view::{Change, Changes, MemberList, encode_members, write_change};

use core::ops::Range;

use ionian_types::{
    EdgeEpoch, EntryNo, Gsn, Inc, Lsn, NodeId, RootEpoch, RoundNo, SegmentId, ShardId, ViewId,
};

use crate::codec::{Field, Reader, WireError, Writer};
use crate::crc::crc32c_parts;
use crate::growth::{GrowthWriter, Growths};

/// The length of an entry header in bytes.
pub const ENTRY_HEADER_BYTES: usize = 32;
/// The largest entry in bytes, header included.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;

const VERSION: u8 = crate::DISK_VERSION as u8;
const CRC_AT: usize = 28;

/// The header of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryHeader {
    /// The entry's number.
    pub entry: EntryNo,
    /// The root epoch in which it was appended.
    pub epoch: RootEpoch,
    /// The checksum of the entry before it; 0 before the first.
    pub prev_crc: u32,
    /// The checksum of this entry.
    pub crc: u32,
}

/// An entry in bytes that a peer or a disk supplied, checked when made: every list is walked once, so that iterating
/// cannot fail.
#[derive(Clone, Copy, Debug)]
pub struct EntryView<'a> {
    /// The header.
    pub header: EntryHeader,
    /// The body.
    pub body: EntryBody<'a>,
    bytes: &'a [u8],
}

/// What an entry says.
#[derive(Clone, Copy, Debug)]
pub enum EntryBody<'a> {
    /// Records got their positions.
    Cut(CutView<'a>),
    /// The cluster changed.
    View(ViewEntry<'a>),
    /// A root leader began its epoch.
    RootEpoch(RootEpochView<'a>),
    /// Positions below `upto` are trimmed.
    Trim {
        /// The first position kept.
        upto: Gsn,
    },
    /// Positions are declared lost.
    Loss(LossView),
    /// Positions below may be used; reserved durably before use.
    Ceiling {
        /// The first position not reserved.
        gsn: Gsn,
    },
}

/// A cut.
#[derive(Clone, Copy, Debug)]
pub struct CutView<'a> {
    /// The first position that the cut gives.
    pub start_gsn: Gsn,
    /// The position after the last.
    pub end_gsn: Gsn,
    growths: Growths<'a>,
    rounds: &'a [u8],
}

/// One segment's growth in a cut, as the state before the cut completes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CutItem {
    /// The segment.
    pub segment: SegmentId,
    /// The generation that owns the new positions.
    pub generation: ViewId,
    /// The committed length before.
    pub prev_len: Lsn,
    /// The committed length after; larger than before.
    pub new_len: Lsn,
}

impl CutItem {
    /// The number of records that the cut orders in this segment.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.new_len.get() - self.prev_len.get()
    }
}

/// The round of one child that a cut chose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CutRound {
    /// The child's index among the root's children.
    pub child: u32,
    /// The edge epoch.
    pub edge: EdgeEpoch,
    /// The child's incarnation.
    pub inc: Inc,
    /// The round.
    pub round: RoundNo,
}

/// A view: numbered changes that take effect at this entry.
#[derive(Clone, Copy, Debug)]
pub struct ViewEntry<'a> {
    /// The view's number.
    pub view: ViewId,
    /// The position at which it takes effect.
    pub gsn: Gsn,
    changes: &'a [u8],
}

/// The start of a root leader's epoch.
#[derive(Clone, Copy, Debug)]
pub struct RootEpochView<'a> {
    /// The size of a write quorum.
    pub write_quorum: u8,
    /// The size of a seal set.
    pub seal_quorum: u8,
    members: &'a [u8],
}

/// Positions declared lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LossView {
    /// The shard whose records are lost, or `None` for the rest of a ceiling's block that was never given out for sure.
    pub shard: Option<ShardId>,
    /// The first lost position.
    pub from: Gsn,
    /// The position after the last lost one.
    pub to: Gsn,
    /// The position after the last one ordered, once this entry is applied.
    pub end_gsn: Gsn,
}

const KIND_CUT: u8 = 1;
const KIND_VIEW: u8 = 2;
const KIND_ROOT_EPOCH: u8 = 3;
const KIND_TRIM: u8 = 4;
const KIND_LOSS: u8 = 5;
const KIND_CEILING: u8 = 6;

impl<'a> EntryView<'a> {
    /// Checks the entry at the front of `bytes`, checksum included. Bytes after it are ignored.
    ///
    /// # Errors
    /// Any [`WireError`]; effect none.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let kind: u8 = reader.field()?;
        let version: u8 = reader.field()?;
        if version != VERSION {
            return Err(WireError::Version {
                found: u16::from(version),
                known: u16::from(VERSION),
            });
        }
        let reserved: u16 = reader.field()?;
        if reserved != 0 {
            return Err(WireError::Range {
                field: "entry reserved",
                value: u64::from(reserved),
            });
        }
        let len = reader.field::<u32>()? as usize;
        if !(ENTRY_HEADER_BYTES..=ENTRY_BYTES_MAX).contains(&len) {
            return Err(WireError::Range {
                field: "entry bytes",
                value: len as u64,
            });
        }
        let Some(bytes) = bytes.get(..len) else {
            return Err(WireError::Truncated {
                need: len,
                have: bytes.len(),
            });
        };
        let header = EntryHeader {
            entry: reader.field()?,
            epoch: reader.field()?,
            prev_crc: reader.field()?,
            crc: reader.field()?,
        };
        let computed = entry_crc(bytes);
        if computed != header.crc {
            return Err(WireError::Checksum {
                found: header.crc,
                computed,
            });
        }
        let mut reader = Reader::new(&bytes[ENTRY_HEADER_BYTES..]);
        let body = match kind {
            KIND_CUT => EntryBody::Cut(CutView::read(&mut reader)?),
            KIND_VIEW => {
                let view = reader.field()?;
                let gsn = reader.field()?;
                let changes = reader.rest();
                Changes::check(changes)?;
                reader.bytes(changes.len())?;
                EntryBody::View(ViewEntry { view, gsn, changes })
            }
            KIND_ROOT_EPOCH => {
                let write_quorum = reader.field()?;
                let seal_quorum = reader.field()?;
                let count: u8 = reader.field()?;
                let members = reader.bytes(usize::from(count) * 12)?;
                EntryBody::RootEpoch(RootEpochView {
                    write_quorum,
                    seal_quorum,
                    members,
                })
            }
            KIND_TRIM => EntryBody::Trim {
                upto: reader.field()?,
            },
            KIND_LOSS => {
                let shard: ShardId = reader.field()?;
                let loss = LossView {
                    shard: (shard != ShardId::MAX).then_some(shard),
                    from: reader.field()?,
                    to: reader.field()?,
                    end_gsn: reader.field()?,
                };
                if loss.from > loss.to || loss.to > loss.end_gsn {
                    return Err(WireError::Range {
                        field: "loss range",
                        value: loss.from.get(),
                    });
                }
                EntryBody::Loss(loss)
            }
            KIND_CEILING => EntryBody::Ceiling {
                gsn: reader.field()?,
            },
            kind => {
                return Err(WireError::Range {
                    field: "entry kind",
                    value: u64::from(kind),
                });
            }
        };
        if !reader.is_empty() {
            return Err(WireError::Range {
                field: "entry tail bytes",
                value: reader.rest().len() as u64,
            });
        }
        Ok(Self {
            header,
            body,
            bytes,
        })
    }

    /// Whether an encoded entry, checked before, is neither a view nor a loss: the same segments have numbers after it.
    #[must_use]
    pub fn keeps_segments(encoded: &[u8]) -> bool {
        let kind = encoded.first().copied();
        matches!(
            kind,
            Some(KIND_CUT | KIND_ROOT_EPOCH | KIND_TRIM | KIND_CEILING)
        )
    }

    /// The whole entry.
    #[must_use]
    pub const fn encoded(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether the entry names `shard`, or every shard. A cut names none: whom it touches, the state before it says
    /// (ORDERING.md: touches).
    #[must_use]
    pub fn names(&self, shard: ShardId) -> bool {
        self.touches_all() || self.shards().any(|named| named == shard)
    }

    /// Whether the entry touches every shard: a loss that names none.
    #[must_use]
    pub const fn touches_all(&self) -> bool {
        matches!(self.body, EntryBody::Loss(LossView { shard: None, .. }))
    }

    /// The shards that the entry names, one or more times each; those that a cut touches are not named.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + 'a {
        let (mut view, mut loss) = (None, None);
        match self.body {
            EntryBody::View(body) => view = Some(body),
            EntryBody::Loss(body) => loss = body.shard,
            EntryBody::Cut(_)
            | EntryBody::RootEpoch(_)
            | EntryBody::Trim { .. }
            | EntryBody::Ceiling { .. } => {}
        }
        let changes = view.into_iter().flat_map(|view| view.changes());
        changes.filter_map(|change| change.shard()).chain(loss)
    }
}

impl<'a> CutView<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let start_gsn: Gsn = reader.field()?;
        let end_gsn: Gsn = reader.field()?;
        let growth_bytes = reader.field::<u32>()? as usize;
        let growths = Growths::new_checked(reader.bytes(growth_bytes)?)?;
        let rounds = reader.rest();
        reader.bytes(rounds.len())?;
        if end_gsn.checked_since(start_gsn) != Some(growths.total()) {
            return Err(WireError::Range {
                field: "cut end_gsn",
                value: end_gsn.get(),
            });
        }
        let mut walk = Reader::new(rounds);
        while !walk.is_empty() {
            read_round(&mut walk)?;
        }
        Ok(Self {
            start_gsn,
            end_gsn,
            growths,
            rounds,
        })
    }

    /// By how much each segment grew, by its number, in the order of the positions.
    #[must_use]
    pub const fn growths(&self) -> &Growths<'a> {
        &self.growths
    }

    /// The rounds chosen.
    pub fn rounds(&self) -> impl Iterator<Item = CutRound> + 'a {
        let mut reader = Reader::new(self.rounds);
        core::iter::from_fn(move || {
            (!reader.is_empty())
                .then(|| read_round(&mut reader).ok())
                .flatten()
        })
    }
}

impl<'a> ViewEntry<'a> {
    /// The changes, in order.
    #[must_use]
    pub fn changes(&self) -> Changes<'a> {
        Changes::new(self.changes)
    }

    /// The changes as bytes.
    #[must_use]
    pub const fn changes_encoded(&self) -> &'a [u8] {
        self.changes
    }
}

impl<'a> RootEpochView<'a> {
    /// The members of the root group and their incarnations.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, Inc)> + 'a {
        self.members.chunks_exact(12).map(|bytes| {
            let mut reader = Reader::new(bytes);
            let node = reader.field().expect("the length was checked");
            let inc = reader.field().expect("the length was checked");
            (node, inc)
        })
    }
}

fn read_round(reader: &mut Reader<'_>) -> Result<CutRound, WireError> {
    Ok(CutRound {
        child: reader.varint_u32()?,
        edge: EdgeEpoch {
            root: RootEpoch::new(reader.varint()?),
            view: ViewId::new(reader.varint()?),
            start: reader.varint()?,
        },
        inc: Inc::new(reader.varint()?),
        round: RoundNo::new(reader.varint()?),
    })
}

fn entry_crc(bytes: &[u8]) -> u32 {
    // The checksum field lies inside the header: everything before and after it is covered.
    crc32c_parts(&bytes[..CRC_AT], &bytes[ENTRY_HEADER_BYTES..])
}

/// Names an entry that is being written.
#[derive(Clone, Copy, Debug)]
pub struct EntryStart {
    /// The entry's number.
    pub entry: EntryNo,
    /// The writer's root epoch.
    pub epoch: RootEpoch,
    /// The checksum of the entry before it.
    pub prev_crc: u32,
}

/// Writes one entry piece by piece; `finish` seals it.
#[derive(Debug)]
pub struct EntryWriter<'a> {
    writer: Writer<'a>,
}

impl<'a> EntryWriter<'a> {
    fn start(out: &'a mut [u8], start: &EntryStart, kind: u8) -> Result<Self, WireError> {
        let mut writer = Writer::new(out);
        writer.field(kind)?;
        writer.field(VERSION)?;
        writer.field(0u16)?;
        writer.field(0u32)?;
        writer.field(start.entry)?;
        writer.field(start.epoch)?;
        writer.field(start.prev_crc)?;
        writer.field(0u32)?;
        Ok(Self { writer })
    }

    /// Begins a cut that starts at `start_gsn` and lets each of `segments` grow by as many records as `growth` says; add rounds,
    /// then finish. `growth` is asked more than once, and must say the same.
    ///
    /// # Errors
    /// [`WireError::Full`].
    pub fn cut(
        out: &'a mut [u8],
        start: &EntryStart,
        start_gsn: Gsn,
        end_gsn: Gsn,
        segments: Range<usize>,
        growth: impl Fn(usize) -> u64,
    ) -> Result<Self, WireError> {
        Self::cut_with(out, start, start_gsn, end_gsn, |writer| {
            GrowthWriter::write(writer, segments, growth)
        })
    }

    /// As [`Self::cut`], of segments in a row, from `first` on.
    ///
    /// # Errors
    /// As [`Self::cut`].
    pub fn cut_all(
        out: &'a mut [u8],
        start: &EntryStart,
        start_gsn: Gsn,
        end_gsn: Gsn,
        first: usize,
        growths: &[u64],
    ) -> Result<Self, WireError> {
        Self::cut_with(out, start, start_gsn, end_gsn, |writer| {
            GrowthWriter::write_all(writer, first, growths)
        })
    }

    fn cut_with(
        out: &'a mut [u8],
        start: &EntryStart,
        start_gsn: Gsn,
        end_gsn: Gsn,
        write: impl FnOnce(&mut Writer<'_>) -> Result<(), WireError>,
    ) -> Result<Self, WireError> {
        let mut this = Self::start(out, start, KIND_CUT)?;
        this.writer.field(start_gsn)?;
        this.writer.field(end_gsn)?;
        let bytes_at = this.writer.len();
        this.writer.field(0u32)?;
        write(&mut this.writer)?;
        let bytes = (this.writer.len() - bytes_at - 4) as u32;
        Field::put(bytes, this.writer.patch(bytes_at, 4));
        Ok(this)
    }

    /// Adds the round chosen for a child.
    ///
    /// # Errors
    /// [`WireError::Full`].
    pub fn round(&mut self, round: &CutRound) -> Result<(), WireError> {
        self.writer.varint(u64::from(round.child))?;
        self.writer.varint(round.edge.root.get())?;
        self.writer.varint(round.edge.view.get())?;
        self.writer.varint(round.edge.start)?;
        self.writer.varint(round.inc.get())?;
        self.writer.varint(round.round.get())
    }

    /// Writes a whole view entry from its encoded changes.
    ///
    /// # Errors
    /// [`WireError::Full`].
    pub fn view(
        out: &'a mut [u8],
        start: &EntryStart,
        view: ViewId,
        gsn: Gsn,
        changes: &[u8],
    ) -> Result<usize, WireError> {
        let mut this = Self::start(out, start, KIND_VIEW)?;
        this.writer.field(view)?;
        this.writer.field(gsn)?;
        this.writer.bytes(changes)?;
        Ok(this.finish())
    }

    /// Writes the first entry of a leader's epoch.
    ///
    /// # Errors
    /// [`WireError::Full`].
    ///
    /// # Panics
    /// If there are more than 255 members.
    pub fn root_epoch(
        out: &'a mut [u8],
        start: &EntryStart,
        write_quorum: u8,
        seal_quorum: u8,
        members: &[(NodeId, Inc)],
    ) -> Result<usize, WireError> {
        let mut this = Self::start(out, start, KIND_ROOT_EPOCH)?;
        this.writer.field(write_quorum)?;
        this.writer.field(seal_quorum)?;
        this.writer
            .field(u8::try_from(members.len()).expect("a root group has at most 255 members"))?;
        for (node, inc) in members {
            this.writer.field(*node)?;
            this.writer.field(*inc)?;
        }
        Ok(this.finish())
    }

    /// Writes a trim.
    ///
    /// # Errors
    /// [`WireError::Full`].
    pub fn trim(out: &'a mut [u8], start: &EntryStart, upto: Gsn) -> Result<usize, WireError> {
        let mut this = Self::start(out, start, KIND_TRIM)?;
        this.writer.field(upto)?;
        Ok(this.finish())
    }

    /// Writes a loss.
    ///
    /// # Errors
    /// [`WireError::Full`].
    pub fn loss(
        out: &'a mut [u8],
        start: &EntryStart,
        loss: &LossView,
    ) -> Result<usize, WireError> {
        let mut this = Self::start(out, start, KIND_LOSS)?;
        this.writer.field(loss.shard.unwrap_or(ShardId::MAX))?;
        this.writer.field(loss.from)?;
        this.writer.field(loss.to)?;
        this.writer.field(loss.end_gsn)?;
        Ok(this.finish())
    }

    /// Writes a ceiling.
    ///
    /// # Errors
    /// [`WireError::Full`].
    pub fn ceiling(out: &'a mut [u8], start: &EntryStart, gsn: Gsn) -> Result<usize, WireError> {
        let mut this = Self::start(out, start, KIND_CEILING)?;
        this.writer.field(gsn)?;
        Ok(this.finish())
    }

    /// Seals the entry and returns its length in bytes.
    #[must_use]
    pub fn finish(mut self) -> usize {
        let len = self.writer.len();
        Field::put(len as u32, self.writer.patch(4, 4));
        let crc = entry_crc(self.writer.written());
        Field::put(crc, self.writer.patch(CRC_AT, 4));
        len
    }
}

#[cfg(test)]
mod tests;
