//! Write-once cells on top of a [`Store`]: what the modes need that fix a position before the record is stored.
//!
//! A cell has a key, (log, namespace epoch, index), and a state:
//!
//! ```text
//! empty --put_if_absent, append_next--> data      empty --put_gap_range--> gap(kind)
//! any state but trimmed --put_by_precedence, with a greater precedence--> data or gap(kind)
//! any state --trim_prefix, trim_one--> trimmed, for ever
//! ```
//!
//! Every operation checks the guard epoch, then the trim mark, then the cell. Records are appended to a segment in the
//! order of their arrival, each with its index and precedence in front of the payload; gaps and single trims are ranges,
//! and they, the trim mark and the guard are entries of the store's journal, which belongs to the cells alone.
//!
//! **Replay needs no order between segment and journal.** Of two values of a cell the one with the greater precedence
//! counts; at the same precedence data counts, for a gap is never put over data of its own precedence and data never over
//! a gap of its own; of two data records the earlier. Trimmed counts over everything.
//!
//! Fault model: that of the store. A damaged record takes its key with it: until a peer's copies were put again
//! ([`Cells::settle_damage`]), a cell without a value is unknown, never empty.

use std::collections::{BTreeMap, VecDeque};

use ionian_types::{GapKind, GuardEpoch, Lsn, NsEpoch, SegmentId, Slot, ViewId};
use ionian_wire::codec::Field;
use ionian_wire::crc::crc32c;
use ionian_wire::record::{
    RECORD_HEADER_BYTES, RecordHeader, RecordKind, encoded_bytes, parse_header,
};

use crate::error::StoreError;
use crate::store::{Fetch, Store};

mod api;
mod gaps;
mod note;
mod open;

pub use api::{Cell, CellError, CellRange, CellTicket, CellWrite, SealReport};
use gaps::{Gap, Gaps, Key};
use note::Note;
pub use open::{CellsOpening, Opened};

/// Index and precedence in front of a cell's payload.
const CELL_HEADER_BYTES: usize = 16;

/// What a range without data says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Blank {
    Gap(GapKind),
    Trimmed,
}

/// A seal that was accepted and is not durable yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealTicket {
    guard: GuardEpoch,
    record_end: Lsn,
    entry: u64,
}

/// A record's place and precedence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Data {
    lsn: u64,
    precedence: u64,
}

/// The cells of one log on one segment of a store.
#[derive(Debug)]
pub struct Cells {
    slot: Slot,
    guard: GuardEpoch,
    trim: Key,
    data: BTreeMap<Key, Data>,
    blanks: Gaps<Blank>,
    /// Which records of the segment are values of cells, from the segment's first position on.
    live: VecDeque<bool>,
    live_from: u64,
    /// Records whose keys are lost.
    damaged: u64,
    freeing: Option<Freeing>,
}

/// Records that are no values any more, and what must be durable before they may go: or a crash would undo what made
/// them so, and find an empty cell.
#[derive(Clone, Copy, Debug)]
struct Freeing {
    below: u64,
    entry: u64,
    record_end: Lsn,
}

impl Cells {
    /// Cells on a segment of a new store.
    #[must_use]
    pub fn new(slot: Slot) -> Self {
        Self {
            slot,
            guard: GuardEpoch::ZERO,
            trim: (NsEpoch::ZERO, 0),
            data: BTreeMap::new(),
            blanks: Gaps::default(),
            live: VecDeque::new(),
            live_from: 0,
            damaged: 0,
            freeing: None,
        }
    }

    /// The guard epoch in force.
    #[must_use]
    pub const fn guard(&self) -> GuardEpoch {
        self.guard
    }

    /// Everything below this cell, in earlier epochs too, is trimmed.
    #[must_use]
    pub const fn trim_mark(&self) -> (NsEpoch, u64) {
        self.trim
    }

    /// The number of ranges without data that are kept.
    #[must_use]
    pub fn range_count(&self) -> usize {
        self.blanks.len()
    }

    fn check_guard(&self, guard: GuardEpoch) -> Result<(), CellError> {
        if guard < self.guard {
            return Err(CellError::Sealed {
                guard,
                current: self.guard,
            });
        }
        Ok(())
    }

    /// The precedence of what a cell holds, `None` if it is empty.
    fn precedence(&self, key: Key) -> Result<Option<u64>, CellError> {
        if key < self.trim {
            return Err(CellError::Trimmed);
        }
        if let Some((_, blank)) = self.blanks.get(key) {
            return match blank.what {
                Blank::Trimmed => Err(CellError::Trimmed),
                Blank::Gap(_) => Ok(Some(blank.precedence)),
            };
        }
        Ok(self.data.get(&key).map(|data| data.precedence))
    }

    /// Writes the cell after the last one of the epoch. Returns its index.
    ///
    /// # Errors
    /// [`CellError`]; effect none.
    pub fn append_next(
        &mut self,
        store: &mut Store,
        guard: GuardEpoch,
        epoch: NsEpoch,
        write: &CellWrite<'_>,
    ) -> Result<(u64, CellTicket), CellError> {
        self.check_guard(guard)?;
        if self.damaged > 0 {
            return Err(CellError::Unknown);
        }
        if epoch < self.trim.0 {
            return Err(CellError::Trimmed);
        }
        let index = self.tail(epoch);
        let ticket = self.put_if_absent(store, guard, epoch, index, write)?;
        Ok((index, ticket))
    }

    /// Writes an empty cell.
    ///
    /// # Errors
    /// [`CellError`]; effect none.
    pub fn put_if_absent(
        &mut self,
        store: &mut Store,
        guard: GuardEpoch,
        epoch: NsEpoch,
        index: u64,
        write: &CellWrite<'_>,
    ) -> Result<CellTicket, CellError> {
        self.check_guard(guard)?;
        match self.precedence((epoch, index))? {
            Some(_) => Err(CellError::Written),
            None if self.damaged > 0 => Err(CellError::Unknown),
            None => self.put(store, guard, (epoch, index), 0, write),
        }
    }

    /// For recovery: writes a cell that is empty or holds a value of a lesser precedence.
    ///
    /// # Errors
    /// [`CellError`]; effect none.
    pub fn put_by_precedence(
        &mut self,
        store: &mut Store,
        guard: GuardEpoch,
        epoch: NsEpoch,
        index: u64,
        precedence: u64,
        write: &CellWrite<'_>,
    ) -> Result<CellTicket, CellError> {
        self.check_guard(guard)?;
        match self.precedence((epoch, index))? {
            Some(old) if old >= precedence => Err(CellError::Written),
            _ => self.put(store, guard, (epoch, index), precedence, write),
        }
    }

    fn put(
        &mut self,
        store: &mut Store,
        guard: GuardEpoch,
        key: Key,
        precedence: u64,
        write: &CellWrite<'_>,
    ) -> Result<CellTicket, CellError> {
        if key.1 == u64::MAX {
            return Err(CellError::Range {
                from: key.1,
                to: key.1,
            });
        }
        let payload_bytes = CELL_HEADER_BYTES + write.payload.len();
        if payload_bytes > ionian_types::RECORD_BYTES_MAX {
            return Err(StoreError::TooLarge.into());
        }
        let total = encoded_bytes(payload_bytes);
        let lsn = store.len(self.slot);
        let (log, shard) = (store.config().log, store.config().shard);
        let room = store.reserve(self.slot, total)?;
        let (head, rest) = room.split_at_mut(RECORD_HEADER_BYTES);
        Field::put(key.1, &mut rest[..8]);
        Field::put(precedence, &mut rest[8..16]);
        rest[CELL_HEADER_BYTES..payload_bytes].copy_from_slice(write.payload);
        rest[payload_bytes..].fill(0);
        let header = RecordHeader {
            kind: RecordKind::Data,
            flags: 0,
            log,
            segment: SegmentId {
                shard,
                slot: self.slot,
            },
            ns_epoch: key.0,
            generation: ViewId::ZERO,
            position: lsn,
            guard,
            client: write.client,
            session: write.session,
            seq: write.seq,
            payload_bytes: payload_bytes as u32,
            payload_crc: crc32c(&rest[..payload_bytes]),
        };
        header.emit(head);
        store.commit(self.slot, lsn, total);
        self.take_data(key, lsn.get(), precedence);
        Ok(CellTicket::Record(lsn))
    }

    /// Takes a record in as a value, by the rules of replay.
    fn take_data(&mut self, key: Key, lsn: u64, precedence: u64) {
        while self.live_from + (self.live.len() as u64) <= lsn {
            self.live.push_back(false);
        }
        let blank = self.blanks.get(key).map(|(_, blank)| blank);
        let beaten = key < self.trim
            || blank
                .is_some_and(|blank| blank.what == Blank::Trimmed || blank.precedence > precedence)
            || self
                .data
                .get(&key)
                .is_some_and(|data| data.precedence >= precedence);
        if beaten {
            return;
        }
        self.blanks.cut(key.0, key.1, key.1 + 1);
        if let Some(old) = self.data.insert(key, Data { lsn, precedence }) {
            self.set_live(old.lsn, false);
        }
        self.set_live(lsn, true);
    }

    fn set_live(&mut self, lsn: u64, live: bool) {
        if let Some(at) = lsn.checked_sub(self.live_from)
            && let Some(known) = self.live.get_mut(at as usize)
        {
            *known = live;
        }
    }

    /// Makes gaps of the cells `from..to` that are empty or hold a value of a lesser precedence; 0 is the precedence of
    /// everything but recovery. Others stay as they are.
    ///
    /// # Errors
    /// [`CellError`]; effect none.
    #[expect(
        clippy::too_many_arguments,
        reason = "a range, its meaning, and whose word it is"
    )]
    pub fn put_gap_range(
        &mut self,
        store: &mut Store,
        guard: GuardEpoch,
        epoch: NsEpoch,
        from: u64,
        to: u64,
        kind: GapKind,
        precedence: u64,
    ) -> Result<CellTicket, CellError> {
        self.check_guard(guard)?;
        if from >= to {
            return Err(CellError::Range { from, to });
        }
        if (epoch, to) <= self.trim {
            return Err(CellError::Trimmed);
        }
        if self.damaged > 0 && precedence == 0 {
            return Err(CellError::Unknown);
        }
        let note = Note::Gap {
            epoch,
            from,
            to,
            kind,
            precedence,
        };
        let entry = note.append(store)?;
        self.take_blank(epoch, from, to, Blank::Gap(kind), precedence);
        Ok(CellTicket::Entry(entry))
    }

    /// Puts a range without data in, by the rules of replay.
    fn take_blank(&mut self, epoch: NsEpoch, from: u64, to: u64, what: Blank, precedence: u64) {
        let from = if epoch == self.trim.0 {
            from.max(self.trim.1)
        } else if epoch < self.trim.0 {
            to
        } else {
            from
        };
        let mut at = from;
        let held: Vec<(Key, Data)> = self
            .data
            .range((epoch, from)..(epoch, to.max(from)))
            .map(|(key, data)| (*key, *data))
            .collect();
        for (key, data) in held {
            if what != Blank::Trimmed && data.precedence >= precedence {
                self.blanks.put(
                    epoch,
                    at,
                    Gap {
                        to: key.1,
                        what,
                        precedence,
                    },
                );
                at = key.1 + 1;
            } else {
                self.data.remove(&key);
                self.set_live(data.lsn, false);
            }
        }
        self.blanks.put(
            epoch,
            at,
            Gap {
                to,
                what,
                precedence,
            },
        );
    }

    /// What a cell holds. Reading is not refused by a seal.
    pub fn get(&self, store: &mut Store, epoch: NsEpoch, index: u64) -> Cell {
        let key = (epoch, index);
        if key < self.trim {
            return Cell::Trimmed;
        }
        if let Some((_, blank)) = self.blanks.get(key) {
            return match blank.what {
                Blank::Trimmed => Cell::Trimmed,
                Blank::Gap(kind) => Cell::Gap(kind),
            };
        }
        let Some(data) = self.data.get(&key) else {
            return if self.damaged > 0 {
                Cell::Unknown
            } else {
                Cell::Empty
            };
        };
        match store.run(self.slot, Lsn::new(data.lsn), Lsn::new(data.lsn + 1), 0) {
            Fetch::Ready(run) => Cell::Data(run),
            Fetch::Wait => Cell::Wait,
            Fetch::Damaged(_) | Fetch::Trimmed | Fetch::Beyond => Cell::Damaged,
        }
    }

    /// The payload of a record of these cells, without index and precedence.
    #[must_use]
    pub fn payload(record: &[u8]) -> Option<&[u8]> {
        let header = parse_header(record).ok()?;
        let from = RECORD_HEADER_BYTES + CELL_HEADER_BYTES;
        record.get(from..RECORD_HEADER_BYTES + header.payload_bytes as usize)
    }

    /// Appends to `out` what the cells `from..to` of an epoch hold, ascending, empty ones left out, until `out` has
    /// `count_max` items. Returns the cell to go on from.
    pub fn scan(
        &self,
        epoch: NsEpoch,
        from: u64,
        to: u64,
        count_max: usize,
        out: &mut Vec<CellRange>,
    ) -> u64 {
        let mut at = from;
        if epoch < self.trim.0 || (epoch == self.trim.0 && from < self.trim.1) {
            let end = if epoch < self.trim.0 {
                to
            } else {
                self.trim.1.min(to)
            };
            if out.len() < count_max && at < end {
                out.push(CellRange::Trimmed { from: at, to: end });
                at = end;
            }
        }
        while at < to && out.len() < count_max {
            let data = self
                .data
                .range((epoch, at)..(epoch, to))
                .next()
                .map(|(key, _)| key.1);
            let blank = self
                .blanks
                .next((epoch, at))
                .filter(|(start, _)| *start < to);
            match (data, blank) {
                (Some(index), blank) if blank.is_none_or(|(start, _)| index < start) => {
                    out.push(CellRange::Data { index });
                    at = index + 1;
                }
                (_, Some((start, gap))) => {
                    let end = gap.to.min(to);
                    out.push(match gap.what {
                        Blank::Gap(kind) => CellRange::Gap {
                            from: start,
                            to: end,
                            kind,
                        },
                        Blank::Trimmed => CellRange::Trimmed {
                            from: start,
                            to: end,
                        },
                    });
                    at = end;
                }
                _ => at = to,
            }
        }
        at
    }

    /// Trims everything below a cell, in earlier epochs too, and frees what no cell needs any more. No effect below the
    /// mark in force.
    ///
    /// # Errors
    /// [`CellError`]; effect none.
    pub fn trim_prefix(
        &mut self,
        store: &mut Store,
        guard: GuardEpoch,
        epoch: NsEpoch,
        index: u64,
    ) -> Result<CellTicket, CellError> {
        self.check_guard(guard)?;
        let note = Note::TrimPrefix { epoch, index };
        let entry = note.append(store)?;
        self.take_trim((epoch, index));
        self.tidy(store);
        Ok(CellTicket::Entry(entry))
    }

    fn take_trim(&mut self, below: Key) {
        if below <= self.trim {
            return;
        }
        self.trim = below;
        self.blanks.trim(below);
        let kept = self.data.split_off(&below);
        for data in std::mem::replace(&mut self.data, kept).into_values() {
            self.set_live(data.lsn, false);
        }
    }

    /// Trims one cell.
    ///
    /// # Errors
    /// [`CellError`]; effect none. [`CellError::Trimmed`] if it is already.
    pub fn trim_one(
        &mut self,
        store: &mut Store,
        guard: GuardEpoch,
        epoch: NsEpoch,
        index: u64,
    ) -> Result<CellTicket, CellError> {
        self.check_guard(guard)?;
        self.precedence((epoch, index))?;
        if index == u64::MAX {
            return Err(CellError::Range {
                from: index,
                to: index,
            });
        }
        let note = Note::TrimOne { epoch, index };
        let entry = note.append(store)?;
        self.take_blank(epoch, index, index + 1, Blank::Trimmed, u64::MAX);
        self.tidy(store);
        Ok(CellTicket::Entry(entry))
    }

    /// Lets the store free the records in front that are no cell's value, as soon as whatever took their place is
    /// durable. To be called now and then, after completions; trims call it too.
    pub fn tidy(&mut self, store: &mut Store) {
        if let Some(freeing) = self.freeing {
            let durable = store.journal_durable() >= freeing.entry
                && store.durable_len(self.slot) >= freeing.record_end;
            if !durable {
                return;
            }
            store.trim(self.slot, Lsn::new(freeing.below));
            self.freeing = None;
        }
        while self.live.front() == Some(&false) {
            self.live.pop_front();
            self.live_from += 1;
        }
        if Lsn::new(self.live_from) > store.first(self.slot) {
            let freeing = Freeing {
                below: self.live_from,
                entry: store.journal_last(),
                record_end: store.len(self.slot),
            };
            self.freeing = Some(freeing);
            if !store.config().class.is_flushed() {
                self.tidy(store);
            }
        }
    }

    /// The greatest index of an epoch that is not empty.
    #[must_use]
    pub fn max_index(&self, epoch: NsEpoch) -> Option<u64> {
        self.tail(epoch).checked_sub(1)
    }

    fn tail(&self, epoch: NsEpoch) -> u64 {
        let data = self
            .data
            .range(..=(epoch, u64::MAX))
            .next_back()
            .filter(|(key, _)| key.0 == epoch)
            .map_or(0, |(key, _)| key.1 + 1);
        let blanks = self.blanks.end(epoch).unwrap_or(0);
        let trimmed = if self.trim.0 == epoch { self.trim.1 } else { 0 };
        data.max(blanks).max(trimmed)
    }

    /// All cells of an epoch below are not empty.
    #[must_use]
    pub fn contiguous(&self, epoch: NsEpoch) -> u64 {
        let mut at = if self.trim.0 == epoch { self.trim.1 } else { 0 };
        loop {
            if let Some((_, blank)) = self.blanks.get((epoch, at)) {
                at = blank.to;
            } else if self.data.contains_key(&(epoch, at)) {
                at += 1;
            } else {
                return at;
            }
        }
    }

    /// Raises the guard epoch: from here on operations under a lesser one are refused. Those accepted before are done
    /// when the seal is, see [`Self::sealed`].
    ///
    /// # Errors
    /// [`CellError::Sealed`] if a greater guard is in force, or the store refuses; effect none.
    pub fn seal(&mut self, store: &mut Store, guard: GuardEpoch) -> Result<SealTicket, CellError> {
        self.check_guard(guard)?;
        let entry = Note::Seal { guard }.append(store)?;
        self.guard = guard;
        Ok(SealTicket {
            guard,
            record_end: store.len(self.slot),
            entry,
        })
    }

    /// The report of a seal, once it and everything accepted before it is durable.
    #[must_use]
    pub fn sealed(&self, store: &Store, ticket: &SealTicket, epoch: NsEpoch) -> Option<SealReport> {
        let durable = store.durable_len(self.slot) >= ticket.record_end
            && store.journal_durable() >= ticket.entry;
        durable.then(|| SealReport {
            guard: ticket.guard,
            max_index: self.max_index(epoch),
            contiguous: self.contiguous(epoch),
            tail: self.tail(epoch),
            trim: self.trim,
        })
    }

    /// Whether an accepted operation is held at the class.
    #[must_use]
    pub fn is_durable(&self, store: &Store, ticket: CellTicket) -> bool {
        match ticket {
            CellTicket::Record(lsn) => store.durable_len(self.slot) > lsn,
            CellTicket::Entry(entry) => store.journal_durable() >= entry,
        }
    }

    /// Records whose cells are not known, since they were found damaged.
    #[must_use]
    pub const fn damaged(&self) -> u64 {
        self.damaged
    }

    /// The values that peers hold were put again: cells without a value are empty.
    pub const fn settle_damage(&mut self) {
        self.damaged = 0;
    }
}
