//! What the root serves from committed entries: backfills, tail, locate, trim.

use alloc::vec::Vec;

use ionian_types::{ConnId, EntryNo, Gsn, Knobs, Lsn, Mutant, SegmentId, ShardId, Slot, ViewId};
use ionian_wire::Writer;
use ionian_wire::entry::{EntryBody, EntryView, EntryWriter, Row};
use ionian_wire::frame::{
    Backfill, Entries, Locate, LocateAnswer, LocateStatus, ShardSnapshot, Tail, TailAnswer,
    TrimAnswer, TrimRequest, TrimStatus,
};
use ionian_wire::growth::GrowthSink;

use super::Root;
use crate::cutlog::{ShardReader, Told};
use crate::outbox::Outbox;

/// Entries looked at for one backfill, at most; and their bytes, but for the last of them: whoever serves also orders.
const BACKFILL_ENTRIES_MAX: u64 = 8192;
const BACKFILL_SCAN_MAX: u64 = 1 << 20;
/// Bytes of rows and entries in one answer, at most.
const BACKFILL_BYTES_MAX: usize = 256 * 1024;
/// Trims that wait for a commit, at most: what is more is refused, and asked again.
pub(super) const TRIMS_MAX: usize = 1024;
/// Questions that wait for the other members, at most: what is more is asked again.
const ASKS_MAX: usize = 1024;

/// A question that only a leader may answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) conn: ConnId,
    request: u64,
    asked: Asked,
    /// Members must have answered a message as late as this one.
    round: u64,
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    /// Where the order ends.
    Tail,
    /// Where a position lies that is beyond what is known to be ordered.
    Locate(Gsn),
    /// To remove more than is known to be ordered.
    Trim(Gsn),
}

/// The entries of an answer.
struct Filling {
    tail: Vec<u8>,
    count: u32,
}

impl Filling {
    /// Whether the entry fits. The first one always does.
    fn push(&mut self, encoded: &[u8]) -> bool {
        if self.count > 0 && self.tail.len() + encoded.len() > BACKFILL_BYTES_MAX {
            return false;
        }
        self.tail.extend_from_slice(encoded);
        self.count += 1;
        true
    }

    /// Whether what an entry says fits.
    fn push_told<K: Knobs>(&mut self, told: &Told<'_>, start: Option<Gsn>) -> bool {
        match told {
            Told::Nothing => true,
            Told::Entry(view) => self.push(view.encoded()),
            Told::Cut(row) => {
                let mut bytes = [0; Row::BYTES_MAX];
                let mut writer = Writer::new(&mut bytes);
                let row = match start.filter(|_| K::mutant(Mutant::CountOwnShardOnly)) {
                    Some(start) => row.based_at(start),
                    None => *row,
                };
                row.write(&mut writer).is_ok() && self.push(writer.written())
            }
        }
    }
}

/// Looks for the segment that holds a position of a cut.
struct Holding {
    /// Positions from the first of the next segment to the one wanted.
    left: u64,
    /// The first position of the next segment, then of the one found.
    from: u64,
    /// Its number and growth.
    found: Option<(usize, u64)>,
}

impl GrowthSink for Holding {
    #[inline]
    fn one(&mut self, index: usize, growth: u64) {
        if self.found.is_some() {
            return;
        }
        match self.left.checked_sub(growth) {
            Some(left) => (self.left, self.from) = (left, self.from + growth),
            None => self.found = Some((index, growth)),
        }
    }
}

impl<K: Knobs> Root<K> {
    /// ORDERING.md: only entries up to the commit index are ever served.
    /// Members that do not lead serve them too; of what is later than they know, they say nothing.
    pub(super) fn on_backfill(&mut self, conn: ConnId, body: &Backfill, out: &mut Outbox) {
        let follows = self.granted.is_none() && self.following.in_group;
        let knows = follows && body.after <= self.committed && self.base.entry <= self.committed;
        if body.log != self.config.log || !(knows || self.serves()) {
            return;
        }
        self.counters.backfills += 1;
        let first = self.log.first();
        let mut answer = Filling {
            tail: core::mem::take(&mut self.scratch),
            count: 0,
        };
        answer.tail.clear();
        let mut after = body.after;
        // What is kept of the entries dropped, as far as it fits: the last of it and the end of the order after it.
        let mut kept = None;
        let mut goes_on = true;
        if after.next().is_some_and(|next| next < first) {
            if let Some(entries) = self.kept.entries(body.shard, after) {
                for (number, end_gsn, encoded) in entries {
                    goes_on = answer.push(encoded);
                    if !goes_on {
                        break;
                    }
                    kept = Some((number, end_gsn));
                }
                after = EntryNo::new(first.get() - 1);
            } else if let Some(state) = self
                .base
                .shard(body.shard)
                .filter(|state| state.last() > after)
            {
                // The entry that ended a shard goes only with a trim of all that the shard held, however far the order is.
                let kept = self.kept.shards().any(|shard| shard == body.shard);
                let end_gsn = if state.is_open() || kept {
                    self.base.end_gsn
                } else {
                    self.base.end_gsn.min(self.committed_trim)
                };
                let snapshot = ShardSnapshot {
                    log: self.config.log,
                    shard: body.shard,
                    entry: self.base.entry,
                    end_gsn,
                    trim: self.committed_trim,
                };
                let _ = out.send_with(conn, &snapshot, |writer| state.write(writer));
                self.scratch = answer.tail;
                return;
            } else {
                // Nothing that was dropped touched the shard.
                after = self.base.entry;
            }
        }
        let mut through = after;
        let end = if K::mutant(Mutant::ServeUncommitted) {
            self.state.entry
        } else {
            self.committed
        };
        let reads = goes_on && through < end;
        let reader =
            reads.then(|| ShardReader::new(&self.log, &self.base, &self.state, body.shard, after));
        if let Some(Some(mut reader)) = reader {
            while through < end
                && through.get() - after.get() < BACKFILL_ENTRIES_MAX
                && reader.scanned() < BACKFILL_SCAN_MAX
            {
                let (Some(next), Some(told)) = (through.next(), reader.read()) else {
                    break;
                };
                let start = self.log.end_gsn(through);
                if !answer.push_told::<K>(&told, start) {
                    break;
                }
                through = next;
            }
        }
        let end_gsn = match kept.filter(|_| through == after) {
            // Nothing of the log itself.
            Some((number, end_gsn)) => {
                through = number;
                end_gsn
            }
            None if through >= self.committed => self.committed_end,
            None => self.end_after(through),
        };
        let Filling { tail, count } = answer;
        let answer = Entries {
            log: self.config.log,
            shard: body.shard,
            after: body.after,
            through,
            count,
            end_gsn,
            trim: self.committed_trim,
        };
        let _ = out.send(conn, &answer, &tail);
        self.scratch = tail;
    }

    /// The end of the order after a committed entry.
    fn end_after(&self, entry: EntryNo) -> Gsn {
        self.log.end_gsn(entry).unwrap_or(self.base.end_gsn)
    }

    /// ORDERING.md: from the commit index after a confirmation round begun after the request. A group of one confirms by
    /// being alone: no other life can have been granted this log's epoch while this one answers its controller.
    pub(super) fn on_tail(&mut self, conn: ConnId, body: &Tail, out: &mut Outbox) {
        if body.log == self.config.log {
            self.ask(conn, body.request, Asked::Tail, out);
        }
    }

    /// Answers at once if this member is certain to lead, else once the others have said that it does. A member that does
    /// not lead says nothing, but that the client must look for the leader.
    fn ask(&mut self, conn: ConnId, request: u64, asked: Asked, out: &mut Outbox) {
        if self.granted.is_none() && self.following.in_group {
            self.set_kind(conn, super::Kind::Unknown);
            self.close.push(conn);
            return;
        }
        if !self.serves() {
            return;
        }
        if self.leads_alone() {
            self.tell(conn, request, asked, out);
            return;
        }
        // What is too much is asked again.
        if self.asks.len() < ASKS_MAX {
            let round = self.group.ask();
            self.asks.push(Ask {
                conn,
                request,
                asked,
                round,
            });
        }
    }

    /// Answers what was asked before the last messages that enough members have answered.
    pub(super) fn answer_asks(&mut self, out: &mut Outbox) {
        if self.asks.is_empty() || !self.serves() {
            return;
        }
        let asks = core::mem::take(&mut self.asks);
        for ask in &asks {
            let fits = out.room(ask.conn) > 0;
            let stands = self.group.confirmed(ask.round) || K::mutant(Mutant::DeposedLeaderAnswers);
            if fits && stands {
                self.tell(ask.conn, ask.request, ask.asked, out);
            } else {
                self.asks.push(*ask);
            }
        }
    }

    fn tell(&mut self, conn: ConnId, request: u64, asked: Asked, out: &mut Outbox) {
        match asked {
            Asked::Tail => {
                let answer = TailAnswer {
                    request,
                    tail: if K::mutant(Mutant::TailFromLogEnd) {
                        self.state.end_gsn
                    } else {
                        self.committed_end
                    },
                    head: self.committed_trim,
                    entry: self.committed,
                };
                let _ = out.send(conn, &answer, &[]);
            }
            Asked::Locate(gsn) => self.tell_located(conn, request, gsn, out),
            Asked::Trim(upto) => {
                let status = if upto <= self.committed_trim {
                    TrimStatus::Done
                } else if upto > self.committed_end {
                    TrimStatus::BeyondTail
                } else {
                    // Meanwhile there is so much: it is asked again.
                    TrimStatus::Busy
                };
                self.tell_trim(conn, request, status, out);
            }
        }
    }

    pub(super) fn on_locate(&mut self, conn: ConnId, body: &Locate, out: &mut Outbox) {
        if body.log != self.config.log {
            return;
        }
        let leads = self.granted.is_some() || !self.following.in_group;
        if !leads || self.serves() && body.gsn < self.committed_end {
            self.tell_located(conn, body.request, body.gsn, out);
        } else {
            self.ask(conn, body.request, Asked::Locate(body.gsn), out);
        }
    }

    fn tell_located(&mut self, conn: ConnId, request: u64, gsn: Gsn, out: &mut Outbox) {
        let mut answer = LocateAnswer {
            request,
            status: LocateStatus::Unwritten,
            from: self.committed_end,
            to: Gsn::MAX,
            segment: SegmentId {
                shard: ShardId::ZERO,
                slot: Slot::ZERO,
            },
            generation: ViewId::ZERO,
            position: Lsn::ZERO,
            entry: self.committed,
        };
        self.locate(gsn, &mut answer);
        let unsettled = answer.status == LocateStatus::Lost && self.committed < self.state.entry;
        if self.granted.is_none() && (unsettled || answer.status == LocateStatus::Unwritten) {
            answer.status = LocateStatus::NotLeader;
        } else if unsettled {
            // The loss may be above the commit index. The client asks again.
            return;
        }
        let _ = out.send(conn, &answer, &[]);
    }

    fn locate(&self, gsn: Gsn, answer: &mut LocateAnswer) {
        if gsn < self.committed_trim {
            answer.status = LocateStatus::Trimmed;
            (answer.from, answer.to) = (Gsn::ZERO, self.committed_trim);
            return;
        }
        if gsn >= self.committed_end {
            return;
        }
        let global = self
            .state
            .losses
            .iter()
            .find(|loss| loss.shard.is_none() && loss.from <= gsn && gsn < loss.to);
        if let Some(loss) = global {
            answer.status = LocateStatus::Lost;
            (answer.from, answer.to) = (loss.from, loss.to);
            return;
        }
        answer.status = LocateStatus::Forgotten;
        (answer.from, answer.to) = (gsn, Gsn::new(gsn.get().saturating_add(1)));
        let Some(entry) = self.log.by_gsn(gsn) else {
            return;
        };
        let Some(view) = self
            .log
            .get(entry)
            .and_then(|bytes| EntryView::new_checked(bytes).ok())
        else {
            return;
        };
        let EntryBody::Cut(cut) = view.body else {
            return;
        };
        let Some(left) = gsn.checked_since(cut.start_gsn) else {
            return;
        };
        let mut part = Holding {
            left,
            from: cut.start_gsn.get(),
            found: None,
        };
        cut.growths().walk(&mut part);
        let found = part.found.and_then(|(index, growth)| {
            let layout = self.log.layout_at(entry)?;
            Some((*layout.segments().get(index)?, growth))
        });
        let Some((segment, growth)) = found else {
            return;
        };
        // Its row names the generation and the position.
        let before = EntryNo::new(entry.get() - 1);
        let reader = ShardReader::new(&self.log, &self.base, &self.state, segment.shard, before);
        let Some(Told::Cut(row)) = reader.and_then(|mut reader| reader.read()) else {
            return;
        };
        let mut items = row.items().iter();
        let Some(item) = items.find(|item| item.slot == segment.slot) else {
            return;
        };
        let shard = self.state.shard(segment.shard);
        let known = shard.is_some_and(|shard| shard.knows(segment.slot, item.generation));
        answer.status = if known {
            LocateStatus::Found
        } else {
            LocateStatus::Lost
        };
        (answer.from, answer.to) = (Gsn::new(part.from), Gsn::new(part.from + growth));
        answer.segment = segment;
        answer.generation = item.generation;
        answer.position = item.prev_len;
        answer.entry = entry;
    }

    /// ORDERING.md: trim is an entry of the cut log, monotone, never beyond the committed tail.
    pub(super) fn on_trim(&mut self, conn: ConnId, body: &TrimRequest, out: &mut Outbox) {
        if body.log == self.config.log && self.serves() {
            let allowed = body.upto <= self.committed_end || K::mutant(Mutant::TrimBeyondTail);
            if body.upto <= self.committed_trim || !allowed {
                // Another leader may know of a later head, or of a later end.
                self.ask(conn, body.request, Asked::Trim(body.upto), out);
                return;
            }
            let asked = |(other, request, _): &(ConnId, u64, EntryNo)| {
                (*other, *request) == (conn, body.request)
            };
            if self.trims.iter().any(asked) {
                return;
            }
            if self.log_trim(body.upto) {
                self.trims.push((conn, body.request, self.state.entry));
                return;
            }
        }
        self.tell_trim(conn, body.request, TrimStatus::Busy, out);
    }

    fn tell_trim(&mut self, conn: ConnId, request: u64, status: TrimStatus, out: &mut Outbox) {
        let known = status != TrimStatus::Busy;
        let answer = TrimAnswer {
            request,
            status,
            head: if known {
                self.committed_trim
            } else {
                Gsn::ZERO
            },
            tail: if known { self.committed_end } else { Gsn::ZERO },
        };
        let _ = out.send(conn, &answer, &[]);
    }

    /// Whether a trim can be answered once the log's last entry is committed: one that covers it is under way, or the
    /// journal takes it now.
    fn log_trim(&mut self, upto: Gsn) -> bool {
        if self.trims.len() >= TRIMS_MAX {
            self.counters.held_back += 1;
            return false;
        }
        if upto <= self.state.trim {
            return true;
        }
        let start = self.entry_start();
        EntryWriter::trim(&mut self.buffer, &start, upto).is_ok_and(|len| self.append_plain(len))
    }

    /// Answers the trims whose entry is committed, as far as their connections have room.
    pub(super) fn answer_trims(&mut self, out: &mut Outbox) {
        let (committed, head, tail) = (self.committed, self.committed_trim, self.committed_end);
        self.trims.retain(|(conn, request, entry)| {
            if *entry > committed {
                return true;
            }
            let answer = TrimAnswer {
                request: *request,
                status: TrimStatus::Done,
                head,
                tail,
            };
            out.send(*conn, &answer, &[]).is_err()
        });
    }
}
