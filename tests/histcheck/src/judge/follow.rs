//! Events of subscriptions, and what every sighting of a record adds to the tables.

use super::epochs::Ordered;
use super::places::{self, Hole, Seen};
use super::streams::{Delivered, Hint, Stream};
use super::{Deferred, Judge};
use crate::event::{Kind, Sight};
use crate::witness::{Id, Pos};

impl Judge {
    pub(super) fn stream(&mut self, sub: u64) -> Option<usize> {
        let at = self.subs.get(&sub).map(|at| *at as usize);
        if at.is_none() {
            self.malformed(&[], "the subscription was never begun in this file");
        }
        at
    }

    pub(super) fn subscribed(&mut self, t: u64, sub: u64, log: u64, mut stream: Stream) {
        self.passes(t);
        self.counts.streams += 1;
        self.counts.selective += u64::from(stream.only.is_some());
        stream.log = self.log(log);
        let at = self.streams.len() as u32;
        self.streams.push(stream);
        if let Some(before) = self.subs.insert(sub, at) {
            let line = self.streams[before as usize].line;
            self.malformed(&[line], "the subscription's number is taken");
        }
    }

    pub(super) fn delivered(
        &mut self,
        t: u64,
        sub: u64,
        gsn: u64,
        sight: &Sight,
        spec: bool,
        epoch: Option<u64>,
    ) {
        self.passes(t);
        self.counts.delivered += 1;
        let Some(at) = self.stream(sub) else {
            return;
        };
        let line = self.line;
        let stream = &mut self.streams[at];
        stream.advance((gsn, gsn.saturating_add(1)), line, &mut self.findings);
        let log = stream.log;
        if spec {
            self.counts.hints += 1;
            stream.hint(Hint {
                lo: gsn,
                hi: gsn.saturating_add(1),
                what: Delivered::Record(*sight),
                line,
            });
            self.sighted(log, sight, None, t, line);
            return;
        }
        stream.firm(gsn, line);
        stream.fact(gsn, line);
        let how = stream.how();
        self.counts.final_records += u64::from(stream.last);
        if let Some(epoch) = epoch {
            self.ordered_by(log, gsn, epoch, None, t);
        }
        self.sighted(log, sight, Some((gsn, how)), t, line);
    }

    pub(super) fn ordered_by(
        &mut self,
        log: u32,
        gsn: u64,
        epoch: u64,
        inv: Option<(u64, Pos)>,
        t: u64,
    ) {
        let (line, epochs) = (self.line, &mut self.logs[log as usize].epochs);
        epochs.seen.learn(t, epoch, line);
        epochs.ordered.push(Ordered {
            gsn,
            epoch,
            inv,
            line,
        });
    }

    /// A record was seen: at a position, or only as a hint.
    pub(super) fn sighted(
        &mut self,
        log: u32,
        sight: &Sight,
        place: Option<(u64, u8)>,
        t: u64,
        line: Pos,
    ) {
        let Some(ses) = sight.ses else {
            self.deferred.push(Deferred {
                log,
                sight: *sight,
                place,
                t,
                line,
            });
            return;
        };
        let session = self.records.session(log, sight.cid, ses);
        let rec = self.records.named(session, sight.csn);
        self.sighted_record(log, rec, sight.h, place, t, line);
    }

    pub(super) fn sighted_record(
        &mut self,
        log: u32,
        rec: u32,
        h: u64,
        place: Option<(u64, u8)>,
        t: u64,
        line: Pos,
    ) {
        self.records.sighted(rec, h, t, line, &mut self.findings);
        if let Some((gsn, how)) = place {
            self.stands(
                log,
                Seen {
                    gsn,
                    rec,
                    how,
                    t,
                    line,
                },
            );
        }
    }

    pub(super) fn stands(&mut self, log: u32, seen: Seen) {
        let dedupe = self.dedupe();
        let log = &mut self.logs[log as usize];
        let bound = seen.gsn.saturating_add(1);
        log.bounds.exists.learn(seen.t, bound, seen.line);
        log.places
            .observe(seen, &mut self.records, dedupe, &mut self.findings);
    }

    pub(super) fn gap(&mut self, t: u64, sub: u64, range: (u64, u64), kind: Kind, spec: bool) {
        self.passes(t);
        *match kind {
            Kind::Junk => &mut self.counts.gaps_junk,
            Kind::Plug => &mut self.counts.gaps_plug,
            Kind::Noop => &mut self.counts.gaps_noop,
            Kind::Bridge => &mut self.counts.gaps_bridge,
            Kind::Trim => &mut self.counts.gaps_trim,
            Kind::Loss => &mut self.counts.gaps_loss,
        } += 1;
        let Some(at) = self.stream(sub) else {
            return;
        };
        let ((lo, hi), line) = (range, self.line);
        if lo >= hi {
            self.findings
                .fail(Id::S9, &[line], || format!("the gap {lo}..{hi} is empty"));
            return;
        }
        self.streams[at].advance(range, line, &mut self.findings);
        self.findings.checked(Id::S9, 1);
        if spec {
            self.streams[at].hint(Hint {
                lo,
                hi,
                what: Delivered::Hole(kind),
                line,
            });
        } else {
            self.streams[at].told(lo, hi);
            let log = self.streams[at].log;
            self.hole(
                log,
                Hole {
                    lo,
                    hi,
                    kind,
                    t,
                    line,
                    declared: true,
                    confirmed: false,
                },
            );
        }
    }

    fn hole(&mut self, log: u32, hole: Hole) {
        let log = &mut self.logs[log as usize];
        log.bounds.exists.learn(hole.t, hole.hi, hole.line);
        log.places.holes.push(hole);
    }

    pub(super) fn confirmed(&mut self, t: u64, sub: u64, upto: u64) {
        self.passes(t);
        self.counts.confirms += 1;
        let Some(at) = self.stream(sub) else {
            return;
        };
        let mut facts = std::mem::take(&mut self.facts);
        self.streams[at].confirm(upto, self.line, &mut self.findings, &mut facts);
        let (log, how) = (self.streams[at].log, self.streams[at].how());
        for fact in &facts {
            match fact.what {
                Delivered::Record(sight) => {
                    self.streams[at].fact(fact.lo, fact.line);
                    self.counts.final_records += u64::from(self.streams[at].last);
                    let how = how | places::how::CONFIRMED;
                    self.sighted(log, &sight, Some((fact.lo, how)), t, fact.line);
                }
                Delivered::Hole(kind) => {
                    self.streams[at].told(fact.lo, fact.hi);
                    let Hint { lo, hi, line, .. } = *fact;
                    self.hole(
                        log,
                        Hole {
                            lo,
                            hi,
                            kind,
                            t,
                            line,
                            declared: true,
                            confirmed: true,
                        },
                    );
                }
            }
        }
        self.facts = facts;
    }

    pub(super) fn voided(&mut self, t: u64, sub: u64, start: u64) {
        self.passes(t);
        self.counts.voids += 1;
        self.counts.voids_without_fault += u64::from(self.faulty == 0);
        let (Some(at), line) = (self.stream(sub), self.line) else {
            return;
        };
        self.streams[at].void(start, line, &mut self.findings);
    }
}
