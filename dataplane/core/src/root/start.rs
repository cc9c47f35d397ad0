//! The start of a root's life: what the journal recovered, and what the controller grants.

use ionian_types::{EntryNo, Gsn, Knobs, Mutant};
use ionian_wire::Reader;
use ionian_wire::entry::{EntryView, EntryWriter, LossView};
use ionian_wire::frame::RootGrant;

use super::Root;
use crate::cutlog::{EntryLog, Kept, LogState};

/// Ask for more positions when fewer than this many are left.
pub(super) const CEILING_MARGIN: u64 = 1 << 31;

/// A life whose cut log is lost numbers its entries from its epoch times this on, so that no entry number is used twice.
const ENTRIES_PER_EPOCH: u64 = 1 << 40;

impl<K: Knobs> Root<K> {
    /// Rebuilds the log from what the store recovered.
    pub(super) fn restore(&mut self) {
        if !self.config.class.is_flushed() {
            return;
        }
        if let Some((_, bytes)) = self.store.recovered().checkpoint {
            let mut reader = Reader::new(bytes);
            if let Ok(state) = LogState::read(&mut reader) {
                self.base = state.clone();
                self.state = state;
                self.kept = Kept::read(&mut reader).unwrap_or_default();
            }
        }
        self.log = EntryLog::new(self.base.entry, self.config.cut_log_chunk_entries);
        let mut last = self.store.journal_last();
        if K::mutant(Mutant::ForgetLastEntry) {
            last = last.saturating_sub(1);
        }
        for number in self.store.journal_first()..=last {
            let Some(bytes) = self.store.journal_read(number) else {
                continue;
            };
            let Ok(view) = EntryView::new_checked(bytes) else {
                break;
            };
            if view.header.entry <= self.state.entry {
                continue;
            }
            if self.state.apply(&view).is_err() {
                break;
            }
            self.log.push(bytes, self.state.end_gsn);
        }
        // What the journal holds is durable. It counts as committed once an entry of this life's epoch follows it.
        self.adopt_children();
    }

    /// Entry number minus journal number: the same for every entry of a cut log that was never lost.
    pub(super) fn journal_offset(&self) -> u64 {
        self.state
            .entry
            .get()
            .saturating_sub(self.store.journal_last())
    }

    /// The controller grants an epoch and positions to this life.
    pub(super) fn on_grant(&mut self, grant: &RootGrant) {
        if grant.log != self.config.log || !self.is_me(grant.inc) {
            return;
        }
        if self.granted.is_none() && !self.begin(grant) {
            return;
        }
        if grant.ceiling > self.state.ceiling {
            let start = self.entry_start();
            if let Ok(len) = EntryWriter::ceiling(&mut self.buffer, &start, grant.ceiling) {
                self.append_plain(len);
            }
        }
        self.ceiling_asked_at = None;
    }

    /// The first entries of this life: its epoch, and the loss of what earlier lives may have ordered if their cut log is
    /// gone.
    fn begin(&mut self, grant: &RootGrant) -> bool {
        if grant.epoch <= self.state.epoch {
            return false;
        }
        let empty = self.state.entry == EntryNo::ZERO;
        if empty {
            let before = grant
                .epoch
                .get()
                .saturating_sub(1)
                .saturating_mul(ENTRIES_PER_EPOCH);
            let numbered = grant.floor > Gsn::ZERO && !K::mutant(Mutant::AmnesiacRoot);
            let entry = if numbered {
                EntryNo::new(before)
            } else {
                EntryNo::ZERO
            };
            self.state.entry = entry;
            self.state.view = grant.view;
            self.base = self.state.clone();
            self.log = EntryLog::new(entry, self.config.cut_log_chunk_entries);
        }
        self.granted = Some(grant.epoch);
        let members = [(self.config.node, self.config.inc)];
        let start = self.entry_start();
        let written = EntryWriter::root_epoch(&mut self.buffer, &start, 1, 1, &members);
        if !written.is_ok_and(|len| self.append_plain(len)) {
            self.granted = None;
            return false;
        }
        let ceiling = grant.ceiling.max(grant.floor);
        if ceiling > self.state.ceiling {
            let start = self.entry_start();
            if let Ok(len) = EntryWriter::ceiling(&mut self.buffer, &start, ceiling) {
                self.append_plain(len);
            }
        }
        if K::mutant(Mutant::UndeclaredLoss) {
            self.state.end_gsn = self.state.end_gsn.max(grant.floor);
        } else if empty && grant.floor > Gsn::ZERO {
            let loss = LossView {
                shard: None,
                from: Gsn::ZERO,
                to: grant.floor,
                end_gsn: grant.floor,
            };
            let start = self.entry_start();
            if let Ok(len) = EntryWriter::loss(&mut self.buffer, &start, &loss) {
                self.append_plain(len);
            }
        }
        self.committed_trim = self.state.trim;
        self.begun = self.state.entry;
        true
    }
}
