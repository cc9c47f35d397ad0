//! What stays of entries of a cut log that are dropped: what they say of shards of which members that are away have not
//! applied them.
//!
//! An entry gives positions to records. It may go once as many members as an ack takes have durably applied it: with fewer,
//! one bad device can take back all that is known of it. A log that waits for members that are away keeps everything, and in
//! the end stops every shard; so what touches their shards is kept here: of a cut the row of the shard, anything else whole.
//! That is little: a shard of which every member must acknowledge gets no cuts meanwhile.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use ionian_types::{EntryNo, Gsn, Lsn, ShardId};
use ionian_wire::entry::{CutView, EntryBody, EntryView, Row, RowItem, ShardEntry};
use ionian_wire::growth::GrowthSink;
use ionian_wire::{Reader, WireError, Writer};

use super::{EntryLog, Layout, LogState, ShardRow};

#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    end_gsn: Gsn,
    encoded: Vec<u8>,
}

impl Entry {
    fn touches(&self, shard: ShardId) -> bool {
        EntryView::new_checked(&self.encoded).is_ok_and(|view| view.names(shard))
    }
}

/// What the wanted segments got in a cut.
struct Wanted<'a> {
    wanted: &'a [bool],
    /// Records of the cut before.
    before: u64,
    /// Number, records of the cut before it, growth.
    grown: &'a mut Vec<(usize, u64, u64)>,
}

impl GrowthSink for Wanted<'_> {
    #[inline]
    fn one(&mut self, index: usize, growth: u64) {
        if self.wanted.get(index) == Some(&true) {
            self.grown.push((index, self.before, growth));
        }
        self.before += growth;
    }
}

/// Of some shards, every entry that touches them from one on, up to the first entry of the log.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Per shard: the entry after which every one is here.
    after: BTreeMap<ShardId, EntryNo>,
    /// Of cuts, the rows of each shard.
    rows: BTreeMap<(ShardId, EntryNo), Entry>,
    /// Anything else.
    entries: BTreeMap<EntryNo, Entry>,
    bytes: u64,
}

impl Kept {
    /// Bytes of entries.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.after.is_empty()
    }

    /// The first entry after which something of the shards that `which` names is kept; none if nothing is.
    #[must_use]
    pub fn first_after(&self, which: impl Fn(ShardId) -> bool) -> Option<EntryNo> {
        let after = self.after.iter().filter(|(shard, _)| which(**shard));
        after.map(|(_, after)| *after).min()
    }

    /// The shards of which entries are kept.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.after.keys().copied()
    }

    /// The end of the order after the last entry kept that touches a shard.
    #[must_use]
    pub fn end_gsn(&self, shard: ShardId) -> Option<Gsn> {
        let row = self.rows_after(shard, EntryNo::ZERO).next_back();
        let mut newest = self.entries.values().rev();
        let entry = newest.find(|entry| entry.touches(shard));
        let row = row.map(|(_, row)| row);
        entry.into_iter().chain(row).map(|it| it.end_gsn).max()
    }

    /// Whether more is kept than is wanted: of each shard, what touches it after the entry given.
    #[must_use]
    pub fn exceeds(&self, wanted: &BTreeMap<ShardId, EntryNo>) -> bool {
        let beyond = |(shard, after)| wanted.get(shard).is_none_or(|wanted| wanted > after);
        self.after.iter().any(beyond)
    }

    fn rows_after(
        &self,
        shard: ShardId,
        after: EntryNo,
    ) -> impl DoubleEndedIterator<Item = (EntryNo, &Entry)> {
        let rows = self.rows.range((shard, after)..=(shard, EntryNo::MAX));
        rows.map(|((_, number), row)| (*number, row))
            .filter(move |(number, _)| *number > after)
    }

    /// What every entry after one says that touches the shard and is no longer in the log: number, end of the order after it,
    /// bytes. `None` if any of it is not here.
    #[must_use]
    pub fn entries(
        &self,
        shard: ShardId,
        after: EntryNo,
    ) -> Option<impl Iterator<Item = (EntryNo, Gsn, &[u8])>> {
        self.after.get(&shard).filter(|first| **first <= after)?;
        let later = self.entries.range(after.next()?..);
        let mut entries = later
            .map(|(number, entry)| (*number, entry))
            .filter(move |(_, entry)| entry.touches(shard))
            .peekable();
        let mut rows = self.rows_after(shard, after).peekable();
        let merged = core::iter::from_fn(move || match (entries.peek(), rows.peek()) {
            (Some((entry, _)), Some((row, _))) if row < entry => rows.next(),
            (Some(_), _) => entries.next(),
            (None, _) => rows.next(),
        });
        Some(merged.map(|(number, it)| (number, it.end_gsn, &it.encoded[..])))
    }

    /// What is to be kept once the entries of the log through `upto` are dropped: of each shard wanted, what touches it after
    /// the entry given. `state` is what the log says before its first entry, and then through `upto`. `None` if that is more
    /// than `bytes_max`.
    #[must_use]
    pub fn advanced(
        &self,
        wanted: &BTreeMap<ShardId, EntryNo>,
        state: &mut LogState,
        log: &EntryLog,
        upto: EntryNo,
        bytes_max: u64,
    ) -> Option<Self> {
        let mut next = Self::default();
        for (shard, after) in wanted {
            // What was dropped before, and is not here, was applied by enough.
            let gone = || state.shard(*shard).map(|it| it.last());
            let known = self.after.get(shard).copied().or_else(gone);
            next.after
                .insert(*shard, known.unwrap_or_default().max(*after));
        }
        next.after.retain(|_, after| *after < upto);
        if next.is_empty() {
            return Some(next);
        }
        let mut missed = BTreeSet::new();
        for (number, entry) in &self.entries {
            if let Ok(view) = EntryView::new_checked(&entry.encoded)
                && next.note_missed(&view, &mut missed)
            {
                next.push(*number, entry.end_gsn, &entry.encoded);
            }
        }
        for ((shard, number), row) in &self.rows {
            if next.misses(*shard, *number) {
                missed.insert(*shard);
                next.push_row(*shard, *number, row.clone());
            }
        }
        let mut taker = RowTaker::default();
        while state.entry < upto {
            let encoded = log.get(state.entry.next()?)?;
            let view = EntryView::new_checked(encoded).ok()?;
            let number = view.header.entry;
            match view.body {
                EntryBody::Cut(cut) => taker.take(number, &cut, state, &mut next, &mut missed),
                _ if next.note_missed(&view, &mut missed) => {
                    next.push(number, log.end_gsn(number)?, encoded);
                }
                _ => {}
            }
            if next.bytes > bytes_max {
                return None;
            }
            state.apply(&view).ok()?;
        }
        next.after.retain(|shard, _| missed.contains(shard));
        Some(next)
    }

    fn misses(&self, shard: ShardId, number: EntryNo) -> bool {
        self.after.get(&shard).is_some_and(|after| number > *after)
    }

    /// Enters the shards that miss an entry into `missed`; whether there are any.
    fn note_missed(&self, view: &EntryView<'_>, missed: &mut BTreeSet<ShardId>) -> bool {
        let number = view.header.entry;
        let all = view.touches_all().then(|| self.shards());
        // A view can name a shard often, and thousands of shards can miss it: each name is looked at once.
        let named = all.into_iter().flatten().chain(view.shards());
        let mut any = false;
        for shard in named.filter(|shard| self.misses(*shard, number)) {
            missed.insert(shard);
            any = true;
        }
        any
    }

    fn push(&mut self, number: EntryNo, end_gsn: Gsn, encoded: &[u8]) {
        let encoded = Vec::from(encoded);
        self.bytes += encoded.len() as u64;
        self.entries.insert(number, Entry { end_gsn, encoded });
    }

    fn push_row(&mut self, shard: ShardId, number: EntryNo, row: Entry) {
        self.bytes += row.encoded.len() as u64;
        self.rows.insert((shard, number), row);
    }

    /// Writes it, as a part of a snapshot.
    ///
    /// # Errors
    /// [`WireError::Full`].
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), WireError> {
        writer.field(self.after.len() as u32)?;
        for (shard, after) in &self.after {
            writer.field(*shard)?;
            writer.field(*after)?;
        }
        writer.field(self.entries.len() as u32)?;
        for entry in self.entries.values() {
            writer.field(entry.end_gsn)?;
            writer.field(entry.encoded.len() as u32)?;
            writer.bytes(&entry.encoded)?;
        }
        writer.field(self.rows.len() as u32)?;
        for ((shard, _), row) in &self.rows {
            writer.field(*shard)?;
            writer.bytes(&row.encoded)?;
        }
        Ok(())
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// Any [`WireError`]; effect none.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut kept = Self::default();
        for _ in 0..reader.field::<u32>()? {
            kept.after.insert(reader.field()?, reader.field()?);
        }
        for _ in 0..reader.field::<u32>()? {
            let end_gsn = reader.field()?;
            let len = reader.field::<u32>()? as usize;
            let encoded = reader.bytes(len)?;
            let number = EntryView::new_checked(encoded)?.header.entry;
            kept.push(number, end_gsn, encoded);
        }
        for _ in 0..reader.field::<u32>()? {
            let shard = reader.field()?;
            let before = reader.rest();
            let ShardEntry::Cut(row) = ShardEntry::read(reader)? else {
                return Err(WireError::Range {
                    field: "row kept",
                    value: 0,
                });
            };
            let (number, end_gsn) = (row.entry, row.end_gsn);
            let encoded = Vec::from(&before[..before.len() - reader.rest().len()]);
            kept.push_row(shard, number, Entry { end_gsn, encoded });
        }
        Ok(kept)
    }
}

/// Takes the rows of wanted shards out of cuts.
#[derive(Default)]
struct RowTaker {
    /// Which numbers are wanted, in which layout.
    layout: Option<Arc<Layout>>,
    wanted: Vec<bool>,
    grown: Vec<(usize, u64, u64)>,
}

impl RowTaker {
    /// Keeps of a cut, of which `state` is the state before it, what shards miss.
    fn take(
        &mut self,
        number: EntryNo,
        cut: &CutView<'_>,
        state: &LogState,
        kept: &mut Kept,
        missed: &mut BTreeSet<ShardId>,
    ) {
        let layout = state.layout();
        if !self
            .layout
            .as_ref()
            .is_some_and(|it| Arc::ptr_eq(it, layout))
        {
            self.layout = Some(layout.clone());
            self.wanted.clear();
            self.wanted.resize(layout.segments().len(), false);
            for span in kept.shards().filter_map(|shard| layout.span(shard)) {
                self.wanted[span].fill(true);
            }
        }
        self.grown.clear();
        cut.growths().walk(&mut Wanted {
            wanted: &self.wanted,
            before: 0,
            grown: &mut self.grown,
        });
        let shard_of = |index: usize| layout.segments()[index].shard;
        for part in self
            .grown
            .chunk_by(|one, next| shard_of(one.0) == shard_of(next.0))
        {
            let shard = shard_of(part[0].0);
            let (Some(now), true) = (state.shard(shard), kept.misses(shard, number)) else {
                continue;
            };
            let base = Gsn::new(cut.start_gsn.get() + part[0].1);
            let mut row = ShardRow::new(number, base, cut.end_gsn);
            for (index, _, growth) in part {
                let slot = layout.segments()[*index].slot;
                let prev_len = Lsn::new(state.lens()[*index]);
                row.push(RowItem {
                    slot,
                    generation: now.generations().nth(slot.index()).unwrap_or_default(),
                    prev_len,
                    new_len: Lsn::new(prev_len.get() + growth),
                });
            }
            let mut encoded = vec![0; Row::BYTES_MAX];
            let mut writer = Writer::new(&mut encoded);
            let written = row.write(&mut writer);
            written.expect("there is room for the largest row");
            let len = writer.len();
            encoded.truncate(len);
            missed.insert(shard);
            let end_gsn = cut.end_gsn;
            kept.push_row(shard, number, Entry { end_gsn, encoded });
        }
    }
}
