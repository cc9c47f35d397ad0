//! The cut log in the journal of the store.
//!
//! The journal is only ever appended to. An entry of the cut log whose number was used before replaces that one and all
//! that followed it: whoever reads the journal from its front has, at every point, the log as it was when that record was
//! written. So a suffix is dropped by writing what takes its place, in one durable step: before it the old suffix counts,
//! after it the new one, and never a mixture. A promise to take nothing of earlier epochs is a record of its own.

use alloc::collections::VecDeque;

use ionian_types::{EntryNo, Gsn, Knobs, Mutant, RootEpoch};
use ionian_wire::entry::{EntryBody, EntryView};
use ionian_wire::{Reader, WireError, Writer};

use super::Root;
use crate::cutlog::{EntryLog, Kept, LogState};

/// The first byte of a promise; entries begin with their kind, which is small.
const PROMISE: u8 = 0xfe;
const PROMISE_VERSION: u8 = 1;
/// The length of a promise in bytes: two bytes, the epoch, the commit index.
const PROMISE_BYTES: usize = 18;

/// Which record of the journal holds which entry: runs in which both numbers rise by one.
#[derive(Default, Debug)]
pub(super) struct JournalMap {
    /// First entry and its record; both ascend.
    runs: VecDeque<(u64, u64)>,
}

impl JournalMap {
    /// Takes note that `record` holds `entry`.
    pub(super) fn push(&mut self, entry: EntryNo, record: u64) {
        let follows = self
            .runs
            .back()
            .is_some_and(|(first, at)| entry.get() - first == record - at);
        if !follows {
            self.runs.push_back((entry.get(), record));
        }
    }

    /// Forgets where the entries after `entry` are.
    pub(super) fn truncate_after(&mut self, entry: EntryNo) {
        while self
            .runs
            .back()
            .is_some_and(|(first, _)| *first > entry.get())
        {
            self.runs.pop_back();
        }
    }

    pub(super) fn clear(&mut self) {
        self.runs.clear();
    }

    /// Forgets runs of which nothing lies beyond `entry`.
    fn prune(&mut self, entry: EntryNo) {
        while self
            .runs
            .get(1)
            .is_some_and(|(first, _)| *first <= entry.get())
        {
            self.runs.pop_front();
        }
    }

    /// The record that holds `entry`, if that was noted.
    pub(super) fn record_of(&self, entry: EntryNo) -> Option<u64> {
        let at = self
            .runs
            .partition_point(|(first, _)| *first <= entry.get())
            .checked_sub(1)?;
        let (first, record) = self.runs[at];
        Some(record + (entry.get() - first))
    }

    /// The entry before the first one noted: the durable snapshot has it. A later one may be on its way.
    fn before_first(&self) -> Option<EntryNo> {
        let (first, _) = self.runs.front()?;
        Some(EntryNo::new(first - 1))
    }

    /// The last entry, at most `last`, whose record is at most `record`; `None` if there is none.
    fn entry_at(&self, record: u64, last: EntryNo) -> Option<EntryNo> {
        let at = self
            .runs
            .partition_point(|(_, first)| *first <= record)
            .checked_sub(1)?;
        let (first, from) = self.runs[at];
        let end = self.runs.get(at + 1).map_or(last.get(), |next| next.0 - 1);
        Some(EntryNo::new((first + (record - from)).min(end)))
    }
}

/// What of the journal says how far promises and commits have come.
#[derive(Clone, Copy, Default, Debug)]
struct Promise {
    epoch: RootEpoch,
    commit: EntryNo,
}

impl Promise {
    fn write(self, writer: &mut Writer<'_>) -> Result<(), WireError> {
        writer.field(PROMISE)?;
        writer.field(PROMISE_VERSION)?;
        writer.field(self.epoch)?;
        writer.field(self.commit)
    }

    /// Reads a promise; `None` if something else follows.
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let known =
            reader.field::<u8>() == Ok(PROMISE) && reader.field::<u8>() == Ok(PROMISE_VERSION);
        let promise = Self {
            epoch: reader.field().ok()?,
            commit: reader.field().ok()?,
        };
        known.then_some(promise)
    }

    fn join(&mut self, other: Self) {
        self.epoch = self.epoch.max(other.epoch);
        self.commit = self.commit.max(other.commit);
    }
}

/// The checksum and the epoch in the header of an encoded entry.
pub(super) fn entry_mark(encoded: &[u8]) -> Option<(u32, RootEpoch)> {
    let mut reader = Reader::new(encoded.get(16..)?);
    let epoch = reader.field().ok()?;
    let _: u32 = reader.field().ok()?;
    Some((reader.field().ok()?, epoch))
}

impl<K: Knobs> Root<K> {
    /// Rebuilds the log from what the store recovered.
    pub(super) fn restore(&mut self) {
        if !self.config.class.is_flushed() {
            return;
        }
        let mut known = Promise::default();
        let mut covered = 0;
        if let Some((upto, bytes)) = self.store.recovered().checkpoint {
            covered = upto;
            let mut reader = Reader::new(bytes);
            if let Ok(state) = LogState::read(&mut reader) {
                self.base = state.clone();
                self.state = state;
                self.kept = Kept::read(&mut reader).unwrap_or_default();
                known.join(Promise::read(&mut reader).unwrap_or_default());
            }
        }
        self.log = EntryLog::new(&self.base, self.config.cut_log_chunk_entries);
        let mut last = self.store.journal_last();
        if K::mutant(Mutant::ForgetLastEntry) {
            last = last.saturating_sub(1);
        }
        for number in self.store.journal_first().max(covered + 1)..=last {
            let Some(bytes) = self.store.journal_read(number) else {
                continue;
            };
            if let Some(promise) = Promise::read(&mut Reader::new(bytes)) {
                known.join(promise);
                continue;
            }
            let Ok(view) = EntryView::new_checked(bytes) else {
                break;
            };
            let entry = view.header.entry;
            if entry <= self.base.entry {
                continue;
            }
            if entry <= self.state.entry {
                let before = EntryNo::new(entry.get() - 1);
                self.log.truncate_after(before);
                self.map.truncate_after(before);
                self.state = state_at(&self.base, &self.log, before);
            }
            if self.state.apply(&view).is_err() {
                break;
            }
            self.log.push(bytes, &self.state);
            self.map.push(entry, number);
        }
        self.promised = known.epoch.max(self.state.epoch);
        self.committed = self.base.entry;
        self.committed_end = self.base.end_gsn;
        self.committed_trim = self.base.trim;
        self.note_trims();
        // What the journal holds is durable. What of it is not known to be committed counts once an entry of a later epoch
        // follows it.
        self.advance_commit(known.commit.min(self.state.entry));
        self.adopt_children();
    }

    /// The last entry that is held at the log's class.
    pub(super) fn durable_entry(&self) -> EntryNo {
        if !self.config.class.is_flushed() {
            return self.state.entry;
        }
        self.map
            .entry_at(self.store.journal_durable(), self.state.entry)
            .unwrap_or_else(|| self.map.before_first().unwrap_or(self.base.entry))
    }

    /// Promises to take nothing of epochs before this one.
    pub(super) fn promise(&mut self, epoch: RootEpoch) {
        if epoch > self.promised {
            self.promised = epoch;
            self.grant_missed = false;
            self.promise_due = self.config.class.is_flushed();
            self.write_promise();
        }
    }

    /// Writes the promise, unless the journal has no room now: then it is tried again.
    pub(super) fn write_promise(&mut self) {
        if !self.promise_due {
            return;
        }
        let promise = Promise {
            epoch: self.promised,
            commit: self.committed,
        };
        let mut bytes = [0; PROMISE_BYTES];
        let written = promise.write(&mut Writer::new(&mut bytes));
        written.expect("a promise is as long as its fields");
        if let Ok(record) = self.store.journal_append(&bytes) {
            self.promise_due = false;
            self.promise_record = record;
        }
    }

    /// Whether what is promised would survive a restart, if the class asks for it.
    pub(super) fn promise_holds(&self) -> bool {
        !self.promise_due && self.store.journal_durable() >= self.promise_record
    }

    /// Writes a snapshot as the journal keeps it: the state, the entries kept, and the promise.
    pub(super) fn encode_checkpoint(
        &self,
        base: &LogState,
        kept: &Kept,
        out: &mut [u8],
    ) -> Result<usize, WireError> {
        let mut writer = Writer::new(out);
        base.write(&mut writer)?;
        kept.write(&mut writer)?;
        // What is committed by others and not durable here yet may be something else at the next start. What the state covers
        // is durable before the snapshot is.
        let commit = self.committed.min(self.durable_entry()).max(base.entry);
        let epoch = self.promised;
        Promise { epoch, commit }.write(&mut writer)?;
        Ok(writer.len())
    }

    /// Drops the entries after `entry` from memory. In the journal they count until others take their place.
    pub(super) fn truncate_log(&mut self, entry: EntryNo) {
        self.log.truncate_after(entry);
        self.map.truncate_after(entry);
        self.state = state_at(&self.base, &self.log, entry);
        while self.trims_logged.back().is_some_and(|(at, _)| *at > entry) {
            self.trims_logged.pop_back();
        }
    }

    /// Forgets where entries lie that no snapshot and no acknowledgement will ask for.
    pub(super) fn prune_map(&mut self) {
        self.map.prune(self.base.entry.min(self.durable_entry()));
    }

    fn note_trims(&mut self) {
        self.trims_logged.clear();
        for number in self.log.first().get()..=self.log.last().get() {
            let bytes = self.log.get(EntryNo::new(number));
            let view = bytes.and_then(|bytes| EntryView::new_checked(bytes).ok());
            if let Some(EntryBody::Trim { upto }) = view.map(|view| view.body) {
                self.trims_logged.push_back((EntryNo::new(number), upto));
            }
        }
    }

    /// Moves the commit index forward. Whether a trim was committed.
    pub(super) fn advance_commit(&mut self, entry: EntryNo) -> bool {
        if entry <= self.committed {
            return false;
        }
        self.committed = entry;
        let end = self.log.end_gsn(entry).unwrap_or(Gsn::ZERO);
        self.committed_end = self.committed_end.max(end);
        let mut trimmed = false;
        while let Some((_, upto)) = self
            .trims_logged
            .front()
            .copied()
            .filter(|(at, _)| *at <= entry)
        {
            self.trims_logged.pop_front();
            self.committed_trim = self.committed_trim.max(upto);
            trimmed = true;
        }
        trimmed
    }
}

/// The state after an entry of the log: the one before its first entry, brought up.
pub(super) fn state_at(base: &LogState, log: &EntryLog, entry: EntryNo) -> LogState {
    let mut state = base.clone();
    while state.entry < entry {
        let next = state.entry.next().and_then(|next| log.get(next));
        let Some(view) = next.and_then(|bytes| EntryView::new_checked(bytes).ok()) else {
            return state;
        };
        state
            .apply(&view)
            .expect("entries of the log follow each other");
    }
    state
}
