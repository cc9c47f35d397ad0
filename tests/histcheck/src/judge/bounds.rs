//! What was written stays written (S7), and the tail never falls (S8).
//!
//! Evidence that positions exist is a bound that rises with time. An answer that says less than was known before it was
//! asked for is a violation. Where positions are written in ascending order (`dense`), a position also exists as soon as a
//! later one does, and the tail is exact: no position below it was appended after the answer.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::places::{Hole, Place, find};
use super::records::Records;
use super::{Context, LogEnd, NEVER};
use crate::frontier::Frontier;
use crate::witness::{Findings, Id, Pos};

/// An answer, with its call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) value: u64,
    pub(super) inv: u64,
    pub(super) ret: u64,
    pub(super) lines: [Pos; 2],
}

/// Answers that bound the log of one log.
#[derive(Default, Debug)]
pub(super) struct Bounds {
    /// Positions below existed: acks, reads, deliveries, gaps.
    pub(super) exists: Frontier,
    pub(super) tail_known: Frontier,
    pub(super) tails: Vec<Asked>,
    pub(super) unwritten: Vec<Asked>,
}

impl Bounds {
    /// S7 and S8, once everything was read.
    pub(super) fn judge(
        &mut self,
        places: &[(u64, Place)],
        holes: &[Hole],
        records: &Records,
        end: &LogEnd,
        context: &Context,
        findings: &mut Findings,
    ) {
        self.exists.seal();
        self.tail_known.seal();
        findings.checked(Id::S7, self.unwritten.len() as u64);
        findings.checked(Id::S8, self.tails.len() as u64);
        self.sticky(places, holes, context, findings);
        self.rising(end, context, findings);
        if context.dense && context.real_time() {
            self.exact(places, records, context, findings);
        }
    }

    fn sticky(
        &mut self,
        places: &[(u64, Place)],
        holes: &[Hole],
        context: &Context,
        findings: &mut Findings,
    ) {
        self.unwritten.sort_by_key(|asked| asked.value);
        let covered = first_covered(&self.unwritten, holes);
        for (asked, hole) in self.unwritten.iter().zip(covered) {
            let gsn = asked.value;
            let before = context.certainly_before(asked.inv);
            let [inv, line] = asked.lines;
            let place = find(places, gsn).map(|place| (place.w, place.line));
            let known = [place, hole].into_iter().flatten().min();
            let denser = context
                .dense
                .then(|| self.exists.before(before))
                .flatten()
                .filter(|(bound, _)| *bound > gsn);
            if let Some((_, evidence)) = known.filter(|(t, _)| *t < before).or(denser) {
                findings.fail(Id::S7, &[evidence, inv, line], || {
                    format!("{gsn} was written, and is answered to be unwritten")
                });
            }
            let tail = self.tail_known.before(before);
            if let Some((_, evidence)) = tail.filter(|(tail, _)| *tail > gsn) {
                findings.fail(Id::S8, &[evidence, inv, line], || {
                    format!("{gsn} was below the tail, and is answered to be unwritten")
                });
            }
        }
    }

    fn rising(&self, end: &LogEnd, context: &Context, findings: &mut Findings) {
        for asked in &self.tails {
            let before = context.certainly_before(asked.inv);
            for known in [self.exists.before(before), self.tail_known.before(before)] {
                if let Some((bound, evidence)) = known
                    && bound > asked.value
                {
                    findings.fail(Id::S8, &[evidence, asked.lines[0], asked.lines[1]], || {
                        format!("tail {}, after {bound} was known", asked.value)
                    });
                }
            }
        }
        if let Some(last) = &end.last {
            findings.checked(Id::S8, 1);
            for known in [self.exists.top(), self.tail_known.top()] {
                if let Some((bound, evidence)) = known
                    && bound > last.tail
                {
                    findings.fail(Id::S8, &[evidence, last.line], || {
                        format!("the final tail is {}, but {bound} was known", last.tail)
                    });
                }
            }
        }
    }

    /// Dense: what stands below an answered tail was appended before the answer.
    fn exact(
        &self,
        places: &[(u64, Place)],
        records: &Records,
        context: &Context,
        findings: &mut Findings,
    ) {
        for (gsn, place) in places {
            let rec = &records.all[place.rec as usize];
            if rec.inv == NEVER {
                continue;
            }
            let known = self.tail_known.before(context.certainly_before(rec.inv));
            if let Some((tail, evidence)) = known.filter(|(tail, _)| tail > gsn) {
                findings.fail(Id::S8, &[evidence, rec.inv_line], || {
                    format!(
                        "the tail was {tail} before the append of the record at {gsn} was called"
                    )
                });
            }
        }
    }
}

/// For each question (sorted by position) the first time a hole was seen over it.
fn first_covered(asked: &[Asked], holes: &[Hole]) -> Vec<Option<(u64, Pos)>> {
    let mut holes = holes.iter().peekable();
    let mut active = BinaryHeap::new();
    let mut found = Vec::with_capacity(asked.len());
    for question in asked {
        // Holes are sorted by where they begin.
        while let Some(hole) = holes.next_if(|hole| hole.lo <= question.value) {
            active.push(Reverse((hole.t, hole.line, hole.hi)));
        }
        while let Some(Reverse((_, _, hi))) = active.peek()
            && *hi <= question.value
        {
            active.pop();
        }
        found.push(active.peek().map(|Reverse((t, line, _))| (*t, *line)));
    }
    found
}
