//! Reads by gsn. A replica answers record, gap, trimmed or "not here, as far as I have applied"; never "unwritten".

use ionian_store::Fetch;
use ionian_types::{ConnId, EntryNo, GapKind, Gsn, Knobs, Lsn, Time};
use ionian_wire::frame::{Read, ReadAnswer, ReadStatus};

use super::Replica;
use crate::outbox::Outbox;

/// A read that waits for an entry or for the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) conn: ConnId,
    request: u64,
    gsn: Gsn,
    entry: EntryNo,
    since: Time,
}

impl<K: Knobs> Replica<K> {
    pub(super) fn on_read(&mut self, now: Time, conn: ConnId, read: &Read, out: &mut Outbox) {
        let waiting = Waiting {
            conn,
            request: read.request,
            gsn: read.gsn,
            entry: read.entry,
            since: now,
        };
        if read.log != self.config.log || read.shard != self.config.shard {
            self.answer(&waiting, ReadStatus::NotHere, GapKind::Junk, out);
            return;
        }
        self.counters.reads += 1;
        if self.try_read(now, &waiting, out) {
            return;
        }
        if self.reads.len() >= self.config.reads_waiting_max {
            self.answer(&waiting, ReadStatus::Unavailable, GapKind::Junk, out);
            return;
        }
        self.reads.push(waiting);
    }

    pub(super) fn flush_reads(&mut self, now: Time, out: &mut Outbox) {
        let mut at = 0;
        while at < self.reads.len() {
            let waiting = self.reads[at];
            if out.room(waiting.conn) > 0 && self.try_read(now, &waiting, out) {
                self.reads.swap_remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// Whether the read was answered.
    fn try_read(&mut self, now: Time, read: &Waiting, out: &mut Outbox) -> bool {
        if read.gsn < self.head {
            return self.answer(read, ReadStatus::Trimmed, GapKind::Trim, out);
        }
        if self.loss_at(read.gsn).is_some() {
            return self.answer(read, ReadStatus::Gap, GapKind::Loss, out);
        }
        if !self.serves() {
            return self.give_up(now, read, ReadStatus::Unavailable, out);
        }
        let Some(run) = self.index.by_gsn(read.gsn) else {
            if read.entry > self.complete {
                self.catchup.entries_soon();
                return self.give_up(now, read, ReadStatus::NotHere, out);
            }
            return self.answer(read, ReadStatus::NotHere, GapKind::Junk, out);
        };
        let position = Lsn::new(run.position.get() + (read.gsn.get() - run.gsn.get()));
        match self
            .store
            .run(run.slot, position, Lsn::new(position.get() + 1), 1)
        {
            Fetch::Ready(record) => {
                let answer = ReadAnswer {
                    request: read.request,
                    gsn: read.gsn,
                    status: ReadStatus::Record,
                    gap: GapKind::Junk,
                    applied: self.applied,
                };
                out.send_run(read.conn, &answer, record).is_ok()
            }
            Fetch::Wait => self.give_up(now, read, ReadStatus::Unavailable, out),
            Fetch::Trimmed => self.answer(read, ReadStatus::Trimmed, GapKind::Trim, out),
            Fetch::Beyond | Fetch::Damaged(_) => {
                self.catchup.copy_soon();
                self.answer(read, ReadStatus::Unavailable, GapKind::Junk, out)
            }
        }
    }

    /// Waits on, unless it has waited long enough for the client to try elsewhere.
    fn give_up(&self, now: Time, read: &Waiting, status: ReadStatus, out: &mut Outbox) -> bool {
        let patience = ionian_types::Nanos::from_ms(500);
        now >= read.since.after(patience) && self.answer(read, status, GapKind::Junk, out)
    }

    fn answer(&self, read: &Waiting, status: ReadStatus, gap: GapKind, out: &mut Outbox) -> bool {
        let answer = ReadAnswer {
            request: read.request,
            gsn: read.gsn,
            status,
            gap,
            applied: self.applied,
        };
        out.send(read.conn, &answer, &[]).is_ok()
    }
}
