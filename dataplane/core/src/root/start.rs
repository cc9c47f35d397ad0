//! What the controller grants: an epoch to lead, and positions to use.

use ionian_types::{EntryNo, Gsn, Knobs, Mutant};
use ionian_wire::entry::{EntryWriter, LossView};
use ionian_wire::frame::RootGrant;

use super::Root;
use super::cut::Pending;
use super::lead::{Group, Named};
use crate::cutlog::EntryLog;

/// Ask for more positions when fewer than this many are left.
pub(super) const CEILING_MARGIN: u64 = 1 << 31;

/// A life whose cut log is lost numbers its entries from its epoch times this on, so that no entry number is used twice.
const ENTRIES_PER_EPOCH: u64 = 1 << 40;

impl<K: Knobs> Root<K> {
    /// The controller names this life the leader of an epoch, and grants it positions.
    pub(super) fn on_grant(&mut self, grant: &RootGrant, tail: &[u8]) {
        if grant.log != self.config.log || !self.is_me(grant.inc) {
            return;
        }
        if self.granted.is_none_or(|mine| grant.epoch > mine) {
            let Some(named) = self.named(grant, tail) else {
                return;
            };
            if !self.begin(grant, &named) {
                return;
            }
        }
        if self.granted != Some(grant.epoch) {
            return;
        }
        if grant.recorded {
            self.recorded();
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
    fn begin(&mut self, grant: &RootGrant, named: &Named) -> bool {
        if grant.epoch <= self.state.epoch || grant.epoch < self.promised {
            return false;
        }
        if self.is_replacing() {
            // Its log is about to be replaced: it is not the one that the controller chose.
            self.counters.bad_grants += 1;
            return false;
        }
        self.stop_leading();
        self.grant_missed = false;
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
            self.log = EntryLog::new(&self.base, self.config.cut_log_chunk_entries);
        }
        // The epoch's entry is the promise: nothing is said in this epoch before it holds.
        self.granted = Some(grant.epoch);
        self.lead(named);
        if K::mutant(Mutant::DropOwnEpochEntry) && !empty {
            self.pending.push_back(Pending::plain(self.state.entry));
            self.group.begin_at(self.state.entry);
        } else if !self.append_epoch(named) {
            self.granted = None;
            self.group = Group::default();
            self.grant_missed = true;
            return false;
        }
        self.promised = grant.epoch;
        self.adopt_children();
        let ceiling = grant.ceiling.max(grant.floor);
        if ceiling > self.state.ceiling {
            let start = self.entry_start();
            if let Ok(len) = EntryWriter::ceiling(&mut self.buffer, &start, ceiling) {
                self.append_plain(len);
            }
        }
        if K::mutant(Mutant::UndeclaredLoss) {
            self.state.end_gsn = self.state.end_gsn.max(grant.floor);
        } else if grant.floor > self.state.end_gsn {
            // Also when an earlier leader began the log anew and did not come to say so.
            let loss = LossView {
                shard: None,
                from: self.state.end_gsn,
                to: grant.floor,
                end_gsn: grant.floor,
            };
            let start = self.entry_start();
            if let Ok(len) = EntryWriter::loss(&mut self.buffer, &start, &loss) {
                self.append_plain(len);
            }
        }
        self.begun = self.state.entry;
        true
    }

    /// The entry of this epoch, with its members and quorums. Whether it found room.
    fn append_epoch(&mut self, named: &Named) -> bool {
        let (write, seal) = named.quorums();
        let start = self.entry_start();
        let members = &named.members;
        let written = EntryWriter::root_epoch(&mut self.buffer, &start, write, seal, members);
        written.is_ok_and(|len| self.append_plain(len))
    }
}
