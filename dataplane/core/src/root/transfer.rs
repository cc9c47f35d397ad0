//! The state instead of entries: a member that misses what the leader has dropped takes the leader's snapshot, in parts.
//!
//! A snapshot holds what is committed, so it is good whatever becomes of the leader that sent it. It counts at the member
//! once it is durable there as the checkpoint of its journal.

use alloc::vec;
use alloc::vec::Vec;

use ionian_types::{ConnId, EntryNo, Knobs, RootEpoch, Time};
use ionian_wire::crc::crc32c;
use ionian_wire::frame::{RootState, RootWritten, WriteOutcome};
use ionian_wire::{Reader, Writer};

use super::Root;
use super::lead::Member;
use crate::cutlog::{EntryLog, Kept, LogState};
use crate::outbox::Outbox;

/// Bytes of one part, at most.
const PART_BYTES: u64 = 128 * 1024;
/// Bytes of parts that are not answered, at most.
const WINDOW_BYTES: u64 = 4 * PART_BYTES;
/// Bytes of a state that is not made durable, at most.
const MEMORY_BYTES_MAX: u64 = 1 << 30;

/// The leader's snapshot, for all members that want it.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) entry: EntryNo,
    crc: u32,
    bytes: Vec<u8>,
}

/// How far a member is in taking the snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    /// Which one.
    entry: EntryNo,
    /// The message that carried the last part.
    round: u64,
    sent: u64,
    acked: u64,
    total: u64,
}

impl Cursor {
    /// Whether all of it was sent in messages before `round`.
    pub(super) const fn is_sent_before(&self, round: u64) -> bool {
        self.sent == self.total && self.round < round
    }
}

/// A state that is coming in.
#[derive(Debug)]
pub(super) struct Incoming {
    entry: EntryNo,
    crc: u32,
    total: u64,
    bytes: Vec<u8>,
}

/// A state that is being made durable.
#[derive(Debug)]
pub(super) struct Installing {
    state: LogState,
    kept: Kept,
    /// The last record of the journal that it covers, once the store has taken it.
    record: Option<u64>,
    /// Entries after it stay.
    pub(super) keeps_suffix: bool,
}

impl<K: Knobs> Root<K> {
    /// Sends parts of the snapshot to a member that misses dropped entries, as far as there is room. Whether anything left.
    pub(super) fn send_state(
        &mut self,
        now: Time,
        member: &mut Member,
        conn: ConnId,
        out: &mut Outbox,
    ) -> bool {
        let current = |snapshot: &Snapshot| snapshot.entry >= self.base.entry;
        if !self.group.snapshot.as_ref().is_some_and(current) {
            self.group.snapshot = Some(self.make_snapshot());
            self.counters.states_made += 1;
        }
        let Some(snapshot) = self.group.snapshot.take() else {
            return false;
        };
        let mut cursor = member
            .state
            .filter(|cursor| cursor.entry == snapshot.entry)
            .unwrap_or(Cursor {
                entry: snapshot.entry,
                round: 0,
                sent: 0,
                acked: 0,
                total: snapshot.bytes.len() as u64,
            });
        let total = cursor.total;
        let mut any = false;
        while cursor.sent < total && cursor.sent - cursor.acked < WINDOW_BYTES {
            let room = out.room(conn).saturating_sub(256) as u64;
            let to = total.min(cursor.sent + PART_BYTES.min(room));
            let part = &snapshot.bytes[cursor.sent as usize..to as usize];
            if part.is_empty() || out.arena_room() < part.len() + 256 {
                break;
            }
            let body = RootState {
                log: self.config.log,
                epoch: self.granted.unwrap_or_default(),
                inc: member.inc,
                round: self.group.next_round(),
                entry: snapshot.entry,
                crc: snapshot.crc,
                total,
                from: cursor.sent,
            };
            if out.send(conn, &body, part).is_err() {
                break;
            }
            member.sent(now, body.round);
            cursor.sent = to;
            cursor.round = body.round;
            any = true;
        }
        member.state = Some(cursor);
        self.group.snapshot = Some(snapshot);
        any
    }

    fn make_snapshot(&mut self) -> Snapshot {
        let mut size = 64 * 1024;
        let bytes = loop {
            let mut bytes = vec![0; size];
            let mut writer = Writer::new(&mut bytes);
            if self.base.write(&mut writer).is_ok() && self.kept.write(&mut writer).is_ok() {
                let len = writer.len();
                bytes.truncate(len);
                break bytes;
            }
            size *= 2;
        };
        Snapshot {
            entry: self.base.entry,
            crc: crc32c(&bytes),
            bytes,
        }
    }

    /// A part of the leader's state.
    pub(super) fn on_state(
        &mut self,
        conn: ConnId,
        part: &RootState,
        tail: &[u8],
        out: &mut Outbox,
    ) {
        if !self.follow(conn, part.log, part.inc, part.epoch, part.round, out) {
            return;
        }
        self.take_part(part, tail);
        if self.following.part.is_none() {
            self.following.part = Some(self.part_wanted());
        }
    }

    fn take_part(&mut self, part: &RootState, tail: &[u8]) {
        self.following.part = None;
        if self.following.installing.is_some() {
            return;
        }
        if part.from == 0 {
            if self.has_already(part.entry, tail) {
                self.following.incoming = None;
                self.following.part = Some((part.entry, u64::MAX));
                self.following.matched = self.following.matched.max(part.entry.max(self.committed));
                self.following.answer = Some(WriteOutcome::Held);
                return;
            }
            self.following.incoming = Some(Incoming {
                entry: part.entry,
                crc: part.crc,
                total: part.total,
                bytes: Vec::new(),
            });
        }
        let bytes_max = if self.config.class.is_flushed() {
            self.store.config().checkpoint_bytes_max
        } else {
            MEMORY_BYTES_MAX
        };
        let Some(incoming) = &mut self.following.incoming else {
            return;
        };
        let same = (incoming.entry, incoming.crc, incoming.total)
            == (part.entry, part.crc, part.total)
            && incoming.bytes.len() as u64 == part.from;
        let end = part.from.saturating_add(tail.len() as u64);
        if !same || end > part.total || part.total > bytes_max {
            return;
        }
        incoming.bytes.extend_from_slice(tail);
        if end == part.total {
            self.take_state();
        }
    }

    /// Whether the entry after which a state holds is here as the leader has it: then its entries are worth more than it,
    /// unless they are too many. `head` is the front of the state.
    fn has_already(&self, entry: EntryNo, head: &[u8]) -> bool {
        let mut reader = Reader::new(head);
        let named = reader.field() == Ok(entry);
        let crc = reader.field::<u32>().ok();
        let same = named && crc.is_some() && self.crc_of(entry) == crc;
        entry <= self.base.entry || same && !self.wants_compaction()
    }

    /// The next byte wanted of the state that comes in.
    pub(super) fn part_wanted(&self) -> (EntryNo, u64) {
        let incoming = self.following.incoming.as_ref();
        let installing = self.following.installing.as_ref();
        match (incoming, installing) {
            (Some(incoming), _) => (incoming.entry, incoming.bytes.len() as u64),
            (None, Some(installing)) => (installing.state.entry, u64::MAX),
            (None, None) => (EntryNo::ZERO, 0),
        }
    }

    /// Whether a state is about to take the place of the whole log.
    pub(super) fn is_replacing(&self) -> bool {
        let installing = self.following.installing.as_ref();
        installing.is_some_and(|installing| !installing.keeps_suffix)
    }

    /// A state is complete: it is checked, and made durable.
    fn take_state(&mut self) {
        let Some(incoming) = self.following.incoming.take() else {
            return;
        };
        let mut reader = Reader::new(&incoming.bytes);
        let read = (
            LogState::read(&mut reader),
            Kept::read(&mut reader),
            crc32c(&incoming.bytes) == incoming.crc,
        );
        let (Ok(state), Ok(kept), true) = read else {
            self.counters.refused_entries += 1;
            return;
        };
        if state.entry != incoming.entry || state.entry <= self.base.entry {
            self.counters.refused_entries += 1;
            return;
        }
        let keeps_suffix = self.crc_of(state.entry) == Some(state.crc);
        if !keeps_suffix && state.entry <= self.committed {
            self.counters.broken += 1;
            return;
        }
        self.following.installing = Some(Installing {
            state,
            kept,
            record: None,
            keeps_suffix,
        });
        self.flush_install();
    }

    /// Goes on with making a state durable; then it is the log's.
    pub(super) fn flush_install(&mut self) {
        let Some(mut installing) = self.following.installing.take() else {
            return;
        };
        if self.config.class.is_flushed() {
            if installing.record.is_none() {
                self.begin_install(&mut installing);
            }
            let durable = installing
                .record
                .is_some_and(|record| self.store.checkpoint_durable() >= record)
                && !self.store.checkpoint_pending();
            if !durable {
                // The device may have had no room for it: once more.
                if !self.store.checkpoint_pending() {
                    installing.record = None;
                }
                self.following.installing = Some(installing);
                return;
            }
        }
        self.install(installing);
    }

    fn begin_install(&mut self, installing: &mut Installing) {
        if self.store.checkpoint_pending() {
            return;
        }
        let record = if installing.keeps_suffix {
            self.map.record_of(installing.state.entry)
        } else {
            Some(self.store.journal_last())
        };
        let Some(record) = record else { return };
        let mut bytes = vec![0; 64 * 1024];
        let len = loop {
            match self.encode_checkpoint(&installing.state, &installing.kept, &mut bytes) {
                Ok(len) => break len,
                Err(_) => bytes.resize(bytes.len() * 2, 0),
            }
        };
        if self.store.journal_checkpoint(record, &bytes[..len]).is_ok() {
            installing.record = Some(record);
        }
    }

    fn install(&mut self, installing: Installing) {
        let Installing {
            state,
            kept,
            keeps_suffix,
            ..
        } = installing;
        let (entry, end, trim) = (state.entry, state.end_gsn, state.trim);
        if keeps_suffix {
            self.log.drop_exactly(entry);
        } else {
            self.log = EntryLog::new(&state, self.config.cut_log_chunk_entries);
            self.map.clear();
            self.trims_logged.clear();
            self.state = state.clone();
        }
        self.base = state;
        self.kept = kept;
        // A log that begins anew has a state that no entry made: nothing of it is committed yet.
        if self.base.epoch > RootEpoch::ZERO {
            self.advance_commit(entry);
        }
        self.committed_end = self.committed_end.max(end);
        self.committed_trim = self.committed_trim.max(trim);
        self.following.matched = self.following.matched.max(entry);
        self.following.answer = Some(WriteOutcome::Held);
        self.counters.states_taken += 1;
        self.prune_map();
    }

    /// A member says how much of the state it has.
    pub(super) fn on_part(&self, now: Time, member: &mut Member, answer: &RootWritten) {
        if answer.from == u64::MAX {
            member.wants_state = false;
        }
        let Some(cursor) = &mut member.state else {
            return;
        };
        let have = if answer.last == cursor.entry {
            answer.from.min(cursor.sent)
        } else {
            0
        };
        if have <= cursor.acked && answer.round >= cursor.round && have < cursor.sent {
            // Everything sent has arrived, and was of no use: not at once again.
            member.wait_until = now.after(self.config.retry);
        }
        cursor.acked = have;
        if answer.round >= cursor.round && have < cursor.sent {
            cursor.sent = have;
        }
    }
}
