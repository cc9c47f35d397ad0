//! What the replicas of a shard are told of a cut: they do not know the state that completes it.
//!
//! ```text
//!  0 kind u8 (64) | 1 segments u8 | 2 entry u64 | 10 base u64 | 18 end_gsn u64
//! 26 per segment: slot u8 | generation u64 | previous length u64 | new length u64
//! ```
//! A row has no checksum: it is made when it is asked for and comes by a granted session from a member of the root group, as
//! the shorter form that a leaf sends does. Where rows and entries follow each other, the kind tells them apart.

use ionian_types::{EntryNo, Gsn, Lsn, SEGMENTS_PER_SHARD_MAX, Slot, ViewId};

use super::EntryView;
use crate::codec::{Field, Reader, WireError, Writer};

/// The kind of a row; the kinds of entries are other ones.
const KIND_ROW: u8 = 64;
const ITEM_BYTES: usize = 25;

/// A cut as far as it concerns one shard, in bytes that a peer supplied: checked when made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row<'a> {
    /// The entry.
    pub entry: EntryNo,
    /// The position of the first record that the shard got.
    pub base: Gsn,
    /// The position after the last one of the whole cut.
    pub end_gsn: Gsn,
    items: &'a [u8],
}

/// One segment's growth in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowItem {
    /// The segment's slot.
    pub slot: Slot,
    /// The generation that owns the new positions.
    pub generation: ViewId,
    /// The committed length before.
    pub prev_len: Lsn,
    /// The committed length after; larger than before.
    pub new_len: Lsn,
}

impl RowItem {
    /// The number of records that the cut orders in this segment.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.new_len.get() - self.prev_len.get()
    }
}

impl Field for RowItem {
    const LEN: usize = ITEM_BYTES;

    fn take(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let item = Self {
            slot: reader.field()?,
            generation: reader.field()?,
            prev_len: reader.field()?,
            new_len: reader.field()?,
        };
        if item.new_len <= item.prev_len || item.slot.index() >= SEGMENTS_PER_SHARD_MAX {
            return Err(WireError::Range {
                field: "row growth",
                value: item.new_len.get(),
            });
        }
        Ok(item)
    }

    fn put(self, bytes: &mut [u8]) {
        self.slot.put(&mut bytes[..1]);
        self.generation.put(&mut bytes[1..9]);
        self.prev_len.put(&mut bytes[9..17]);
        self.new_len.put(&mut bytes[17..25]);
    }
}

impl<'a> Row<'a> {
    /// Writes a row. `items` are by slot, ascending, and at least one.
    ///
    /// # Errors
    /// [`WireError::Full`].
    pub fn write(
        writer: &mut Writer<'_>,
        entry: EntryNo,
        base: Gsn,
        end_gsn: Gsn,
        items: &[RowItem],
    ) -> Result<(), WireError> {
        writer.field(KIND_ROW)?;
        writer.field(items.len() as u8)?;
        writer.field(entry)?;
        writer.field(base)?;
        writer.field(end_gsn)?;
        items.iter().try_for_each(|item| writer.field(*item))
    }

    /// The bytes of a row of the largest shard.
    pub const BYTES_MAX: usize = 26 + SEGMENTS_PER_SHARD_MAX * ITEM_BYTES;

    fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let _kind: u8 = reader.field()?;
        let count: u8 = reader.field()?;
        let mut row = Self {
            entry: reader.field()?,
            base: reader.field()?,
            end_gsn: reader.field()?,
            items: &[],
        };
        row.items = reader.bytes(usize::from(count) * ITEM_BYTES)?;
        let mut end = Some(row.base);
        let mut after = None;
        for bytes in row.items.chunks_exact(ITEM_BYTES) {
            let item = RowItem::take(bytes)?;
            let ascends = after < Some(item.slot);
            after = Some(item.slot);
            end = end
                .filter(|_| ascends)
                .and_then(|end| end.checked_add(item.count()));
        }
        let lies_within = end.is_some_and(|end| end > row.base && end <= row.end_gsn);
        if !lies_within {
            return Err(WireError::Range {
                field: "row end_gsn",
                value: row.end_gsn.get(),
            });
        }
        Ok(row)
    }

    /// The segments that grew, by slot, in the order of their positions.
    pub fn items(&self) -> impl Iterator<Item = RowItem> + use<'a> {
        self.items
            .chunks_exact(ITEM_BYTES)
            .filter_map(|bytes| RowItem::take(bytes).ok())
    }
}

/// What the replicas of a shard are told of an entry that touches it.
#[derive(Clone, Copy, Debug)]
pub enum ShardEntry<'a> {
    /// Of a cut: what the shard got.
    Cut(Row<'a>),
    /// Of anything else: all of it.
    Entry(EntryView<'a>),
}

impl<'a> ShardEntry<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// Any [`WireError`], [`WireError::Range`] for a whole cut among them; effect none.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        if reader.rest().first() == Some(&KIND_ROW) {
            let mut ahead = *reader;
            let row = Row::read(&mut ahead)?;
            *reader = ahead;
            return Ok(Self::Cut(row));
        }
        let view = EntryView::new_checked(reader.rest())?;
        if matches!(view.body, super::EntryBody::Cut(_)) {
            return Err(WireError::Range {
                field: "entry kind",
                value: u64::from(super::KIND_CUT),
            });
        }
        reader.bytes(view.encoded().len())?;
        Ok(Self::Entry(view))
    }

    /// The number of the entry.
    #[must_use]
    pub const fn entry(&self) -> EntryNo {
        match self {
            Self::Cut(row) => row.entry,
            Self::Entry(view) => view.header.entry,
        }
    }
}
