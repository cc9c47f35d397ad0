//! Operations: each is called once and ends once, a process has at most one open (S0); what their answers say.

use super::bounds::Asked;
use super::live::{Client, Slow};
use super::places::{Hole, Seen, how};
use super::records::Called;
use super::segments::Slot;
use super::{Judge, NEVER};
use crate::event::{Answer, Call, Kind};
use crate::table::FastMap;
use crate::witness::{Findings, Id, Pos};

/// An open operation.
#[derive(Clone, Copy, Debug)]
struct Open {
    log: u32,
    t: u64,
    line: Pos,
    p: u64,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Append {
        rec: u32,
        client: u32,
        cid: u64,
    },
    Read(u64),
    Tail,
    /// Its place among the trims of the log.
    Trim(u32),
    Fill(u64),
}

/// The operations of one file.
#[derive(Default, Debug)]
pub(super) struct FileOps {
    open: FastMap<u64, Open>,
    busy: FastMap<u64, Pos>,
    /// Numbers of all operations, to find one that is used twice.
    numbers: Vec<(u64, Pos)>,
}

impl FileOps {
    /// The file ends: what is open stays open for ever.
    pub(super) fn end(&mut self, findings: &mut Findings, slow: &mut Vec<Slow>) {
        slow.extend(self.open.drain().map(|(_, open)| Slow {
            log: open.log,
            inv: open.t,
            ret: NEVER,
            line: open.line,
        }));
        self.busy.clear();
        if !self.numbers.is_sorted() {
            self.numbers.sort_unstable();
        }
        for pair in self.numbers.windows(2) {
            if pair[0].0 == pair[1].0 {
                findings.fail(Id::S0, &[pair[0].1, pair[1].1], || {
                    format!("operation {} is called twice", pair[0].0)
                });
            }
        }
        self.numbers.clear();
    }
}

impl Judge {
    pub(super) fn called(&mut self, t: u64, p: u64, op: u64, log: u64, call: &Call) {
        self.passes(t);
        let (log, line) = (self.log(log), self.line);
        self.ops.numbers.push((op, line));
        if let Some(before) = self.ops.busy.insert(p, line) {
            self.malformed(&[before], "a process calls while its last call is open");
        }
        let what = match *call {
            Call::Append {
                cid,
                name,
                attempt,
                h,
                col,
            } => {
                self.counts.appends += 1;
                self.counts.retries += u64::from(attempt > 1);
                let (rec, client) = match name {
                    Some((ses, csn)) => {
                        let session = self.records.session(log, cid, ses);
                        let client = self.records.sessions[session as usize].client;
                        (self.records.named(session, csn), client)
                    }
                    None => (
                        self.records.nameless(log, cid),
                        self.records.client(log, cid),
                    ),
                };
                let called = Called {
                    t,
                    line,
                    attempt,
                    h,
                    colour: col,
                };
                self.records.called(rec, &called, &mut self.findings);
                if client as usize >= self.clients.len() {
                    self.clients
                        .resize_with(client as usize + 1, Client::default);
                }
                self.clients[client as usize].called(log, t, line);
                What::Append { rec, client, cid }
            }
            Call::Read(gsn) => What::Read(gsn),
            Call::Tail => What::Tail,
            Call::Trim(upto) => {
                let asked = &mut self.logs[log as usize].trims.asked;
                asked.push((t, upto, false));
                What::Trim(asked.len() as u32 - 1)
            }
            Call::Fill(gsn) => What::Fill(gsn),
        };
        let open = Open {
            log,
            t,
            line,
            p,
            what,
        };
        if let Some(before) = self.ops.open.insert(op, open) {
            self.malformed(&[before.line], "an open operation is called again");
        }
    }

    /// Takes an operation that ends.
    fn close(&mut self, t: u64, op: u64) -> Option<Open> {
        self.passes(t);
        let Some(open) = self.ops.open.remove(&op) else {
            self.malformed(&[], "an operation ends that is not open");
            return None;
        };
        self.ops.busy.remove(&open.p);
        if t < open.t {
            self.malformed(&[open.line], "an operation ends before its call");
        }
        if t.saturating_sub(open.t) > self.live_bound() {
            self.slow.push(Slow {
                log: open.log,
                inv: open.t,
                ret: t,
                line: open.line,
            });
        }
        Some(open)
    }

    pub(super) fn failed(&mut self, t: u64, op: u64, no_effect: bool) {
        let Some(open) = self.close(t, op) else {
            return;
        };
        if !no_effect {
            self.counts.unknown += 1;
            return;
        }
        self.counts.failed += 1;
        match open.what {
            What::Append { rec, .. } => self.records.had_no_effect(rec),
            What::Trim(at) => self.logs[open.log as usize].trims.asked[at as usize].2 = true,
            What::Read(_) | What::Tail | What::Fill(_) => {}
        }
    }

    pub(super) fn answered(&mut self, t: u64, op: u64, answer: &Answer) {
        let Some(open) = self.close(t, op) else {
            return;
        };
        let (log, lines) = (open.log, [open.line, self.line]);
        let asked = |value| Asked {
            value,
            inv: open.t,
            ret: t,
            lines,
        };
        match (open.what, *answer) {
            (What::Append { rec, client, cid }, Answer::Appended { .. }) => {
                self.clients[client as usize].succeeded(t);
                self.acked(open, rec, cid, t, answer);
            }
            (What::Tail, Answer::Tail { tail, head }) => {
                self.counts.tails += 1;
                let of = &mut self.logs[log as usize];
                of.bounds.tails.push(asked(tail));
                of.bounds.tail_known.learn(t, tail, lines[1]);
                if let Some(head) = head {
                    self.head(log, asked(head));
                }
            }
            (What::Trim(_), Answer::Head(head)) => {
                self.counts.trims += 1;
                self.head(log, asked(head));
            }
            (What::Trim(_), Answer::Done) => self.counts.trims += 1,
            (What::Read(gsn), _) => self.read(log, gsn, answer, asked(gsn)),
            (What::Fill(gsn), Answer::Done) => {
                self.counts.fills += 1;
                self.read(log, gsn, &Answer::Hole(Kind::Junk), asked(gsn));
            }
            (What::Fill(gsn), _) => {
                self.counts.fills += 1;
                self.read(log, gsn, answer, asked(gsn));
            }
            _ => self.malformed(&[open.line], "the answer does not fit the call"),
        }
    }

    fn head(&mut self, log: u32, asked: Asked) {
        let trims = &mut self.logs[log as usize].trims;
        trims
            .head_known
            .learn(asked.ret, asked.value, asked.lines[1]);
        trims.heads.push(asked);
    }

    fn acked(&mut self, open: Open, called: u32, cid: u64, t: u64, answer: &Answer) {
        let Answer::Appended {
            gsn,
            epoch,
            shard,
            rep,
            lsn,
            generation,
            name,
        } = *answer
        else {
            return;
        };
        self.counts.acks += 1;
        let (log, line) = (open.log, self.line);
        self.logs[log as usize].end.acks += 1;
        let rec = match name {
            None => called,
            Some((ses, csn)) => {
                let session = self.records.session(log, cid, ses);
                self.records.named(session, csn)
            }
        };
        if rec != called {
            self.counts.renamed += 1;
            self.records.renamed(called, rec, line, &mut self.findings);
        }
        self.records.acked(rec, shard);
        if let Some(epoch) = epoch {
            let known = &self.records.all[rec as usize];
            let inv = (known.inv, known.inv_line);
            self.ordered_by(log, gsn, epoch, Some(inv), t);
        }
        if let (Some(shard), Some(rep), Some(lsn)) = (shard, rep, lsn) {
            self.logs[log as usize].segments.slots.push(Slot {
                shard,
                rep,
                generation: generation.unwrap_or(0),
                lsn,
                gsn,
                line,
                t,
            });
        }
        self.stands(
            log,
            Seen {
                gsn,
                rec,
                how: how::ACK,
                t,
                line,
            },
        );
    }

    fn read(&mut self, log: u32, gsn: u64, answer: &Answer, asked: Asked) {
        let (t, line) = (asked.ret, asked.lines[1]);
        let trimmed = matches!(answer, Answer::Trimmed | Answer::Hole(Kind::Trim));
        let of = &mut self.logs[log as usize];
        match *answer {
            Answer::Record(sight) => {
                self.counts.reads += 1;
                self.sighted(log, &sight, Some((gsn, how::READ)), t, line);
            }
            _ if trimmed => {
                self.counts.trimmed += 1;
                of.bounds.exists.learn(t, gsn.saturating_add(1), line);
                of.trims.trimmed.push(asked);
            }
            Answer::Hole(kind) => {
                self.counts.holes += 1;
                let hi = gsn.saturating_add(1);
                of.bounds.exists.learn(t, hi, line);
                of.places.holes.push(Hole {
                    lo: gsn,
                    hi,
                    kind,
                    t,
                    line,
                    declared: false,
                    confirmed: false,
                });
            }
            Answer::Unwritten => {
                self.counts.unwritten += 1;
                of.bounds.unwritten.push(asked);
            }
            _ => self.malformed(&[asked.lines[0]], "the answer does not fit the call"),
        }
    }
}
