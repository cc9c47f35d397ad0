//! A member of the root group that does not lead: it promises, takes entries, and says what it holds (ORDERING.md, ROOT
//! MEMBER).
//!
//! It answers a leader only when its promise of that leader's epoch would survive a restart, and counts only entries that
//! would, and that are known to be the leader's own.

use ionian_types::{ConnId, EntryNo, Inc, Knobs, NodeId, RootEpoch, Time};
use ionian_wire::Reader;
use ionian_wire::entry::{EntryBody, EntryView};
use ionian_wire::frame::{RootWrite, RootWritten, Seal, SealAck, WriteOutcome};

use super::journal::entry_mark;
use super::transfer::{Incoming, Installing};
use super::{Kind, Root};
use crate::outbox::Outbox;

/// Bytes of entries that a member takes beyond its limit: the leader stops at its own, and they do not drop at once.
const SLACK_BYTES: u64 = 16 << 20;

/// What a member knows of the leader that it follows.
#[derive(Default, Debug)]
pub(super) struct Following {
    /// The leader's epoch.
    pub(super) epoch: RootEpoch,
    /// Where it speaks.
    pub(super) leader: Option<ConnId>,
    /// The latest message of it.
    pub(super) round: u64,
    /// Up to here the log is the leader's.
    pub(super) matched: EntryNo,
    /// What it is to be told, if it is to be told something.
    pub(super) answer: Option<WriteOutcome>,
    /// With [`WriteOutcome::Behind`]: where to go on from.
    pub(super) behind: EntryNo,
    /// How much of a state is here, if it is to be told that.
    pub(super) part: Option<(EntryNo, u64)>,
    /// The last entry that it was told is held.
    told: EntryNo,
    /// Entries up to here are needed by nobody.
    pub(super) drop: EntryNo,
    /// The controller waits for a [`SealAck`].
    seal_asked: bool,
    /// This life was sealed or written to: it is one of a group.
    pub(super) in_group: bool,
    /// A state on its way, and one that is being made durable.
    pub(super) incoming: Option<Incoming>,
    pub(super) installing: Option<Installing>,
    /// The leader was asked for its state, to put it in the place of entries, when.
    compact_asked_at: Option<Time>,
}

impl Following {
    /// Whether entries may be appended beside a state that is being made durable: unless it is to replace all.
    fn may_append(&self) -> bool {
        self.installing
            .as_ref()
            .is_none_or(|installing| installing.keeps_suffix)
    }
}

/// What became of one entry from the leader.
enum Taken {
    Held,
    Refused,
}

impl<K: Knobs> Root<K> {
    /// The controller wants the promise to take nothing of epochs before this one.
    pub(super) fn on_seal(&mut self, seal: &Seal) {
        if seal.log != self.config.log || !self.is_me(seal.inc) {
            self.counters.strangers += 1;
            return;
        }
        self.following.in_group = true;
        if self.granted.is_some_and(|mine| seal.epoch > mine) {
            self.step_down();
        }
        self.promise(seal.epoch);
        self.following.seal_asked = true;
    }

    /// The leader's entries, or its question whether its epoch still stands.
    pub(super) fn on_write(
        &mut self,
        conn: ConnId,
        write: &RootWrite,
        tail: &[u8],
        out: &mut Outbox,
    ) {
        if !self.follow(conn, write.log, write.inc, write.epoch, write.round, out) {
            return;
        }
        self.following.drop = self.following.drop.max(write.drop);
        if self.following.incoming.is_some() || self.following.installing.is_some() {
            self.following.part = Some(self.part_wanted());
            if !self.following.may_append() {
                return;
            }
        }
        match self.fits(write.prev, write.prev_crc) {
            Fit::Follows => {
                let taken = self.take_entries(write, tail);
                self.following.matched = self.following.matched.max(taken);
                let complete = taken.get() - write.prev.get() == u64::from(write.count);
                self.following.behind = taken;
                self.following.answer = Some(if complete {
                    WriteOutcome::Held
                } else {
                    WriteOutcome::Behind
                });
                let commit = write.commit.min(self.following.matched);
                if self.advance_commit(commit) {
                    self.sync_at = self.flushed_at;
                }
            }
            Fit::Missing(last) => {
                self.following.behind = last;
                self.following.answer = Some(WriteOutcome::Behind);
            }
            Fit::Broken => self.counters.broken += 1,
        }
    }

    /// Whether a message of a leader is to be taken; if so, its epoch is the one followed from now on.
    pub(super) fn follow(
        &mut self,
        conn: ConnId,
        log: ionian_types::LogId,
        inc: Inc,
        epoch: RootEpoch,
        round: u64,
        out: &mut Outbox,
    ) -> bool {
        if log != self.config.log || !self.is_me(inc) {
            self.counters.strangers += 1;
            return false;
        }
        if epoch < self.promised {
            let answer = RootWritten {
                log,
                epoch,
                inc,
                round,
                outcome: WriteOutcome::Superseded,
                promised: self.promised,
                last: EntryNo::ZERO,
                from: 0,
            };
            let _ = out.send(conn, &answer, &[]);
            return false;
        }
        if self.granted.is_some_and(|mine| epoch > mine) {
            self.step_down();
        }
        if self.granted.is_some() {
            // Two leaders of one epoch: the controller names one.
            self.counters.broken += 1;
            return false;
        }
        self.promise(epoch);
        if self.following.epoch != epoch {
            // Every leader's log has what is committed.
            self.following = Following {
                epoch,
                matched: self.committed,
                in_group: true,
                seal_asked: self.following.seal_asked,
                installing: self.following.installing.take(),
                compact_asked_at: self.following.compact_asked_at,
                drop: self.following.drop,
                ..Following::default()
            };
        }
        if self.following.leader != Some(conn) {
            self.following.leader = Some(conn);
            self.following.incoming = None;
        }
        self.following.round = self.following.round.max(round);
        true
    }

    /// Whether the log has `prev` as the leader has it.
    fn fits(&self, prev: EntryNo, crc: u32) -> Fit {
        if prev > self.state.entry {
            return Fit::Missing(self.state.entry);
        }
        match self.crc_of(prev) {
            Some(mine) if mine == crc => Fit::Follows,
            Some(_) if prev <= self.committed => Fit::Broken,
            Some(_) => Fit::Missing(self.committed),
            // It was dropped: it is committed.
            None if prev <= self.base.entry => Fit::Follows,
            None => Fit::Missing(self.committed),
        }
    }

    /// The checksum of an entry held.
    pub(super) fn crc_of(&self, entry: EntryNo) -> Option<u32> {
        if entry == self.state.entry {
            return Some(self.state.crc);
        }
        if entry == self.base.entry {
            return Some(self.base.crc);
        }
        self.log.get(entry).and_then(entry_mark).map(|mark| mark.0)
    }

    /// Takes the entries of a message that follow `write.prev`; the last one that is the leader's.
    fn take_entries(&mut self, write: &RootWrite, tail: &[u8]) -> EntryNo {
        let mut reader = Reader::new(tail);
        let mut last = write.prev;
        for _ in 0..write.count {
            let len = reader.field::<u32>();
            let encoded = len.and_then(|len| reader.bytes(len as usize));
            let view = encoded.and_then(EntryView::new_checked);
            let Ok(view) = view else {
                self.counters.refused_entries += 1;
                return last;
            };
            if last.next() != Some(view.header.entry) || view.header.epoch > write.epoch {
                self.counters.refused_entries += 1;
                return last;
            }
            match self.take_entry(&view) {
                Taken::Held => last = view.header.entry,
                Taken::Refused => return last,
            }
        }
        last
    }

    fn take_entry(&mut self, view: &EntryView<'_>) -> Taken {
        let entry = view.header.entry;
        if entry <= self.state.entry {
            if entry <= self.base.entry || self.crc_of(entry) == Some(view.header.crc) {
                return Taken::Held;
            }
            if entry <= self.committed {
                // What is committed is what every later leader has.
                self.counters.broken += 1;
                return Taken::Refused;
            }
            self.counters.replaced += self.state.entry.get() - entry.get() + 1;
            self.truncate_log(EntryNo::new(entry.get() - 1));
        }
        if self.cut_log_bytes() > self.config.cut_log_bytes_max.saturating_add(SLACK_BYTES) {
            self.counters.held_back += 1;
            return Taken::Refused;
        }
        if self.push_foreign(view) {
            Taken::Held
        } else {
            self.counters.refused_entries += 1;
            Taken::Refused
        }
    }

    /// Appends an entry that another member wrote. Whether it was taken; effect none if not.
    fn push_foreign(&mut self, view: &EntryView<'_>) -> bool {
        if self.state.check(view).is_err() {
            return false;
        }
        // A view may turn out not to follow halfway.
        let tried = match view.body {
            EntryBody::View(_) => {
                let mut tried = self.state.clone();
                if tried.apply(view).is_err() {
                    return false;
                }
                Some(tried)
            }
            _ => None,
        };
        if self.config.class.is_flushed() {
            let Ok(record) = self.store.journal_append(view.encoded()) else {
                self.counters.held_back += 1;
                return false;
            };
            self.map.push(view.header.entry, record);
        }
        match tried {
            Some(tried) => self.state = tried,
            None => self
                .state
                .apply(view)
                .expect("an entry that was checked applies"),
        }
        self.log.push(view.encoded(), &self.state);
        if let EntryBody::Trim { upto } = view.body {
            self.trims_logged.push_back((view.header.entry, upto));
        }
        true
    }

    /// Says what is held, once the promise holds.
    pub(super) fn flush_member(&mut self, now: Time, out: &mut Outbox) {
        self.write_promise();
        self.flush_install();
        if !self.promise_holds() {
            return;
        }
        self.flush_seal(out);
        if self.granted.is_some() {
            return;
        }
        self.ask_to_compact(now);
        let Some(conn) = self.following.leader.filter(|conn| out.room(*conn) > 0) else {
            return;
        };
        if self.following.epoch != self.promised {
            return;
        }
        let held = self.durable_entry().min(self.following.matched);
        if held > self.following.told && self.following.answer.is_none() {
            self.following.answer = Some(WriteOutcome::Held);
        }
        let answer = RootWritten {
            log: self.config.log,
            epoch: self.following.epoch,
            inc: self.config.inc,
            round: self.following.round,
            outcome: WriteOutcome::Part,
            promised: self.promised,
            last: EntryNo::ZERO,
            from: 0,
        };
        if let Some((last, from)) = self.following.part {
            let part = RootWritten {
                last,
                from,
                ..answer
            };
            if out.send(conn, &part, &[]).is_ok() {
                self.following.part = None;
            }
        }
        let Some(outcome) = self.following.answer else {
            return;
        };
        let last = match outcome {
            WriteOutcome::Behind => self.following.behind,
            WriteOutcome::Long => self.base.entry,
            _ => held,
        };
        let answer = RootWritten {
            outcome,
            last,
            ..answer
        };
        if out.send(conn, &answer, &[]).is_ok() {
            self.following.answer = None;
            if outcome == WriteOutcome::Held {
                self.following.told = held;
            }
        }
    }

    fn flush_seal(&mut self, out: &mut Outbox) {
        let Some(conn) = self.controller.filter(|conn| out.room(*conn) > 0) else {
            return;
        };
        if !self.following.seal_asked {
            return;
        }
        let last = self.durable_entry();
        let ack = SealAck {
            log: self.config.log,
            inc: self.config.inc,
            promised: self.promised,
            last_epoch: self.epoch_of(last),
            last,
            committed: self.committed,
        };
        self.following.seal_asked = out.send(conn, &ack, &[]).is_err();
    }

    fn epoch_of(&self, entry: EntryNo) -> RootEpoch {
        if entry == self.state.entry {
            return self.state.epoch;
        }
        let mark = self.log.get(entry).and_then(entry_mark);
        mark.map_or(self.base.epoch, |mark| mark.1)
    }

    /// A member drops what the leader says is needed by nobody. If that leaves too much, because of members of a shard that
    /// are away, the leader's state takes its place.
    fn ask_to_compact(&mut self, now: Time) {
        let asked = self.following.compact_asked_at;
        let waited = asked.is_none_or(|at| now >= at.after(self.config.retry));
        let busy = self.following.incoming.is_some() || self.following.installing.is_some();
        let much = self.wants_compaction();
        if much && waited && !busy && self.following.answer.is_none() {
            self.following.compact_asked_at = Some(now);
            self.following.answer = Some(WriteOutcome::Long);
        }
    }

    /// Whether the state of the leader is wanted though the entries are here.
    pub(super) fn wants_compaction(&self) -> bool {
        self.cut_log_bytes() > self.config.cut_log_bytes_max / 2
    }

    /// The connection of another member is gone.
    pub(super) fn member_gone(&mut self, conn: ConnId) {
        if self.following.leader == Some(conn) {
            self.following.leader = None;
            self.following.incoming = None;
        }
    }

    /// The node and life at the other end, if it is a member of the group.
    pub(super) fn member_at(&self, conn: ConnId) -> Option<(NodeId, Inc)> {
        match self.kind(conn) {
            Kind::Root(node, inc) => Some((node, inc)),
            _ => None,
        }
    }
}

/// How a message of the leader fits the log.
enum Fit {
    /// It goes on from an entry that is here.
    Follows,
    /// What comes before it is not here as the leader has it. This entry may be.
    Missing(EntryNo),
    /// A committed entry is another one there.
    Broken,
}
