//! What the entries of a log say of one shard, in the form that its replicas are told: they do not know the state that
//! completes a cut.
//!
//! A reader begins at the mark before the entry that is wanted, walks to it, and then goes on for as long as somebody asks.
//! Generations are not walked for: which one owns a position is written in the newest state of the shard for ever.

use core::ops::Range;

use ionian_types::{EntryNo, Gsn, Lsn, SEGMENTS_PER_SHARD_MAX, ShardId, Slot, ViewId};
use ionian_wire::entry::{CutView, EntryBody, EntryView, Row, RowItem};
use ionian_wire::growth::GrowthSink;
use ionian_wire::{WireError, Writer};

use super::{EntryLog, LogState};

/// What an entry says of a shard.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    /// It does not touch it.
    Nothing,
    /// It is a cut that gave positions to its records.
    Cut(ShardRow),
    /// It is anything else that names it.
    Entry(EntryView<'a>),
}

/// A cut as far as it concerns one shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardRow {
    entry: EntryNo,
    base: Gsn,
    end_gsn: Gsn,
    items: [RowItem; SEGMENTS_PER_SHARD_MAX],
    count: usize,
}

impl ShardRow {
    pub(super) const fn new(entry: EntryNo, base: Gsn, end_gsn: Gsn) -> Self {
        let none = RowItem {
            slot: Slot::ZERO,
            generation: ViewId::ZERO,
            prev_len: Lsn::ZERO,
            new_len: Lsn::ZERO,
        };
        Self {
            entry,
            base,
            end_gsn,
            items: [none; SEGMENTS_PER_SHARD_MAX],
            count: 0,
        }
    }

    /// Adds a segment; they come by slot.
    pub(super) fn push(&mut self, item: RowItem) {
        if let Some(place) = self.items.get_mut(self.count) {
            *place = item;
            self.count += 1;
        }
    }

    /// The same with another first position.
    #[must_use]
    pub const fn based_at(mut self, base: Gsn) -> Self {
        self.base = base;
        self
    }

    /// The segments that grew, by slot.
    #[must_use]
    pub fn items(&self) -> &[RowItem] {
        &self.items[..self.count]
    }

    /// Writes the row.
    ///
    /// # Errors
    /// [`WireError::Full`].
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), WireError> {
        Row::write(writer, self.entry, self.base, self.end_gsn, self.items())
    }
}

/// Reads the entries of a log for one shard.
#[derive(Debug)]
pub struct ShardReader<'a> {
    log: &'a EntryLog,
    /// The newest state: it knows every generation.
    state: &'a LogState,
    shard: ShardId,
    next: u64,
    era: usize,
    /// The numbers of the shard's segments in this era, while it is open.
    span: Option<Range<usize>>,
    lens: [u64; SEGMENTS_PER_SHARD_MAX],
    scanned: u64,
}

/// What one shard got in a cut.
struct Part {
    span: Range<usize>,
    /// Records of the cut that come before the shard's.
    before: u64,
    grown: [u64; SEGMENTS_PER_SHARD_MAX],
}

impl GrowthSink for Part {
    #[inline]
    fn one(&mut self, index: usize, growth: u64) {
        match index.checked_sub(self.span.start) {
            None => self.before += growth,
            Some(slot) if index < self.span.end => self.grown[slot] = growth,
            Some(_) => {}
        }
    }

    #[inline]
    fn run(&mut self, first: usize, growths: &[u8]) {
        if first + growths.len() <= self.span.start {
            let sum = growths.iter().map(|growth| u32::from(*growth)).sum::<u32>();
            self.before += u64::from(sum);
            return;
        }
        for (at, growth) in growths.iter().enumerate() {
            self.one(first + at, u64::from(*growth));
        }
    }
}

impl<'a> ShardReader<'a> {
    /// Reads the entries after one for a shard. `base` is the state before the first entry of the log, `state` the one after
    /// its last. `None` if the entries are not all here.
    #[must_use]
    pub fn new(
        log: &'a EntryLog,
        base: &'a LogState,
        state: &'a LogState,
        shard: ShardId,
        after: EntryNo,
    ) -> Option<Self> {
        let first = log.first();
        if after.next()? < first || base.entry.next()? != first {
            return None;
        }
        let wanted = after.get() + 1;
        let (from, lens) = match log.mark_before(wanted) {
            Some(mark) => (mark.from, &mark.lens[..]),
            None => (first.get(), base.lens()),
        };
        let mut reader = Self {
            log,
            state,
            shard,
            next: from,
            era: log.era_at(from),
            span: None,
            lens: [0; SEGMENTS_PER_SHARD_MAX],
            scanned: 0,
        };
        reader.span = log.era(reader.era)?.layout.span(shard);
        if let Some(span) = reader.span.clone() {
            reader.lens[..span.len()].copy_from_slice(lens.get(span)?);
        }
        while reader.next < wanted {
            reader.read()?;
        }
        reader.scanned = 0;
        Some(reader)
    }

    /// Bytes of entries read so far.
    #[must_use]
    pub fn scanned(&self) -> u64 {
        self.scanned
    }

    /// What the next entry says of the shard; `None` if the log ends.
    pub fn read(&mut self) -> Option<Told<'a>> {
        let entry = EntryNo::new(self.next);
        let bytes = self.log.get(entry)?;
        self.enter();
        let view = EntryView::new_checked(bytes).ok()?;
        self.next += 1;
        self.scanned += bytes.len() as u64;
        match view.body {
            EntryBody::Cut(cut) => self.read_cut(entry, &cut),
            _ if view.names(self.shard) => Some(Told::Entry(view)),
            _ => Some(Told::Nothing),
        }
    }

    /// Begins an era, if the next entry is its first one.
    fn enter(&mut self) {
        let Some(era) = self.log.era(self.era + 1) else {
            return;
        };
        if era.from > self.next {
            return;
        }
        self.era += 1;
        let span = era.layout.span(self.shard);
        let again = era.ended.iter().any(|state| state.shard == self.shard);
        if self.span.is_none() || again {
            self.lens = [0; SEGMENTS_PER_SHARD_MAX];
        }
        self.span = span;
    }

    fn read_cut(&mut self, entry: EntryNo, cut: &CutView<'_>) -> Option<Told<'a>> {
        let Some(span) = self.span.clone() else {
            return Some(Told::Nothing);
        };
        let mut part = Part {
            span: span.clone(),
            before: 0,
            grown: [0; SEGMENTS_PER_SHARD_MAX],
        };
        cut.growths().walk_below(span.end, &mut part);
        let base = cut.start_gsn.checked_add(part.before)?;
        let mut row = ShardRow::new(entry, base, cut.end_gsn);
        for (slot, growth) in part.grown[..span.len()].iter().enumerate() {
            if *growth == 0 {
                continue;
            }
            let prev_len = Lsn::new(self.lens[slot]);
            self.lens[slot] += growth;
            let slot = Slot::new(slot as u8);
            row.push(RowItem {
                slot,
                generation: self.owner(entry, slot, prev_len)?,
                prev_len,
                new_len: prev_len.checked_add(*growth)?,
            });
        }
        Some(if row.count == 0 {
            Told::Nothing
        } else {
            Told::Cut(row)
        })
    }

    fn owner(&self, entry: EntryNo, slot: Slot, position: Lsn) -> Option<ViewId> {
        match self.log.life_at(entry, self.shard) {
            Some(state) => state
                .segments
                .get(slot.index())
                .map(|it| it.owner(position)),
            None => self.state.shard(self.shard)?.owner(slot, position),
        }
    }
}
