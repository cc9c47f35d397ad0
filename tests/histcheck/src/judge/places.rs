//! What stands at each position of one log: agreement (S1), ack truth (S4), loss (S5), real-time order (S6), holes (S15).
//!
//! The first thing seen at a position is its value; whatever disagrees is kept and judged at the end, when it is known who
//! said what. Holes come as ranges and are never spelled out: a range may be as long as numbers go.

use super::records::Records;
use super::{Context, Gaps, LogEnd, NEVER};
use crate::event::Kind;
use crate::frontier::Frontier;
use crate::table::Dense;
use crate::witness::{Findings, Id, Pos};

/// How something was learned of a position; a mask.
pub(super) mod how {
    pub(crate) const ACK: u8 = 1;
    pub(crate) const READ: u8 = 2;
    pub(crate) const CONFIRMED: u8 = 4;
    /// By a reader of the final read.
    pub(crate) const FINAL: u8 = 8;
}

/// A position that holds a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) rec: u32,
    /// Who says so.
    pub(super) how: u8,
    pub(super) line: Pos,
    ack_line: Pos,
    /// When it was known first.
    pub(super) w: u64,
}

/// Two who disagree.
#[derive(Clone, Copy, Debug)]
struct Conflict {
    gsn: u64,
    first: (u8, Pos),
    second: (u8, Pos),
    /// When the later one was seen, if somebody read it.
    read: Option<u64>,
}

/// A range that was said to hold no record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hole {
    pub(super) lo: u64,
    pub(super) hi: u64,
    pub(super) kind: Kind,
    pub(super) t: u64,
    pub(super) line: Pos,
    /// A subscription declared it; otherwise one position was read or filled.
    pub(super) declared: bool,
    /// It was a hint, and confirmed.
    pub(super) confirmed: bool,
}

/// The positions of one log.
#[derive(Default, Debug)]
pub(super) struct Places {
    pub(super) table: Dense<Place>,
    pub(super) holes: Vec<Hole>,
    conflicts: Vec<Conflict>,
    duplicates: u64,
}

impl Places {
    /// Somebody says that a record stands there.
    #[inline]
    pub(super) fn observe(
        &mut self,
        seen: Seen,
        records: &mut Records,
        dedupe: bool,
        findings: &mut Findings,
    ) {
        let Seen {
            gsn,
            rec,
            how,
            t,
            line,
        } = seen;
        let ack_line = if how & how::ACK != 0 { line } else { 0 };
        let (place, made) = self.table.entry(gsn, || Place {
            rec,
            how,
            line,
            ack_line,
            w: t,
        });
        if !made {
            if place.rec == rec {
                place.how |= how;
                if place.ack_line == 0 {
                    place.ack_line = ack_line;
                }
            } else {
                self.conflicts.push(Conflict {
                    gsn,
                    first: (place.how, place.line),
                    second: (how, line),
                    read: match place.w <= t {
                        true => (how & how::READ != 0).then_some(t),
                        false => (place.how & how::READ != 0).then_some(place.w),
                    },
                });
            }
            place.w = place.w.min(t);
        }
        if let Some((other, before)) = records.placed(rec, gsn, line) {
            if dedupe {
                findings.fail(Id::S3, &[before, line], || {
                    format!("a record stands at {other} and at {gsn}")
                });
            } else {
                self.duplicates += 1;
            }
        }
    }

    /// Records that stand more than once where that is permitted.
    pub(super) const fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// S1, S4, S5, S6, S9 (acked positions under gaps) and S15, once everything was read.
    pub(super) fn judge(
        &mut self,
        records: &Records,
        end: &LogEnd,
        trimmed: &Frontier,
        context: &Context,
        findings: &mut Findings,
    ) -> Vec<(u64, Place)> {
        let places = std::mem::take(&mut self.table).sorted();
        let count = places.len() as u64;
        findings.checked(Id::S1, count);
        findings.checked(Id::S15, self.holes.len() as u64);
        let acked = |(_, place): &&(u64, Place)| place.how & how::ACK != 0;
        findings.checked(Id::S4, places.iter().filter(acked).count() as u64);
        self.disagreements(&places, trimmed, context, findings);
        self.holes_and_records(&places, context, findings);
        self.holes_and_holes(findings);
        loss(&places, &self.holes, end, context, findings);
        if context.real_time() {
            real_time(&places, records, context, findings);
        }
        places
    }

    fn disagreements(
        &self,
        places: &[(u64, Place)],
        trimmed: &Frontier,
        context: &Context,
        findings: &mut Findings,
    ) {
        for conflict in &self.conflicts {
            let Conflict {
                gsn,
                first: (first, line),
                second: (second, other),
                read,
            } = *conflict;
            let settled = find(places, gsn).map_or(first, |place| place.how);
            let lines = [line, other];
            let mut say = |id, what: &str| {
                findings.fail(id, &lines, || format!("two records at {gsn}: {what}"));
            };
            say(Id::S1, "readers and acks disagree");
            if (first | settled | second) & how::ACK != 0 {
                say(Id::S4, "one of them was acknowledged there");
            }
            if (first | settled | second) & how::CONFIRMED != 0 {
                say(Id::S12, "one of them was confirmed there");
            }
            let head = read.and_then(|t| trimmed.before(context.certainly_before(t)));
            if head.is_some_and(|(head, _)| head > gsn) {
                say(
                    Id::S14,
                    "the position was trimmed before the later one was read",
                );
            }
            let lost = |duty: u8, end: u8| duty & !how::FINAL != 0 && end & how::FINAL != 0;
            if lost(settled, second) || lost(second, settled) {
                say(Id::S5, "the final read has one, the other is gone");
            }
        }
    }

    /// A hole over a record: whoever was first, the other is wrong.
    fn holes_and_records(
        &self,
        places: &[(u64, Place)],
        context: &Context,
        findings: &mut Findings,
    ) {
        let acked = places.iter();
        let acked: Vec<(u64, Pos)> = acked
            .filter(|(_, place)| place.how & how::ACK != 0)
            .map(|(gsn, place)| (*gsn, place.ack_line))
            .collect();
        for hole in &self.holes {
            if hole.kind == Kind::Loss && !context.beyond_f {
                let id = if hole.declared { Id::S9 } else { Id::S5 };
                findings.fail(id, &[hole.line], || {
                    format!(
                        "{}..{} is declared lost, though no more nodes failed than the log survives",
                        hole.lo, hole.hi
                    )
                });
            }
            if !hole.kind.is_hole() {
                continue;
            }
            let from = places.partition_point(|(gsn, _)| *gsn < hole.lo);
            let Some((gsn, place)) = places.get(from).filter(|(gsn, _)| *gsn < hole.hi) else {
                continue;
            };
            let mut say = |id, line, what: &str| {
                findings.fail(id, &[line, hole.line], || {
                    format!("{what} at {gsn}, and a hole ({})", hole.kind.name())
                });
            };
            say(Id::S1, place.line, "a record");
            say(Id::S15, place.line, "a record");
            if place.how & how::CONFIRMED != 0 || hole.confirmed {
                say(Id::S12, place.line, "a record, and one was confirmed,");
            }
            // The range may begin with a record that nobody acknowledged.
            let from = acked.partition_point(|(gsn, _)| *gsn < hole.lo);
            if let Some((_, line)) = acked.get(from).filter(|(gsn, _)| *gsn < hole.hi) {
                say(Id::S4, *line, "an acknowledged record");
                if hole.declared {
                    say(Id::S9, *line, "an acknowledged record");
                }
            }
        }
    }

    /// Two kinds of hole at one position. Holes are sorted by where they begin; of each kind the furthest end counts.
    fn holes_and_holes(&mut self, findings: &mut Findings) {
        self.holes.sort_by_key(|hole| (hole.lo, hole.line));
        let mut furthest: [Option<(u64, Pos)>; 4] = [None; 4];
        for hole in self.holes.iter().filter(|hole| hole.kind.is_hole()) {
            for (kind, reach) in furthest.iter_mut().enumerate() {
                if kind == hole.kind as usize {
                    if reach.is_none_or(|(hi, _)| hi < hole.hi) {
                        *reach = Some((hole.hi, hole.line));
                    }
                } else if let Some((hi, line)) = *reach
                    && hi > hole.lo
                {
                    for id in [Id::S1, Id::S15] {
                        findings.fail(id, &[line, hole.line], || {
                            format!("two kinds of hole at {}", hole.lo)
                        });
                    }
                }
            }
        }
    }
}

/// What somebody says of a position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) gsn: u64,
    pub(super) rec: u32,
    pub(super) how: u8,
    pub(super) t: u64,
    pub(super) line: Pos,
}

/// The place of a position.
pub(super) fn find(places: &[(u64, Place)], gsn: u64) -> Option<&Place> {
    let at = places.binary_search_by_key(&gsn, |(gsn, _)| *gsn).ok()?;
    Some(&places[at].1)
}

/// S5: every final reader has every record from the final head on, as a record.
fn loss(
    places: &[(u64, Place)],
    holes: &[Hole],
    end: &LogEnd,
    context: &Context,
    findings: &mut Findings,
) {
    let Some(last) = &end.last else {
        return;
    };
    let lost = if context.beyond_f {
        Gaps::of(holes.iter().filter(|hole| hole.kind == Kind::Loss))
    } else {
        Gaps::default()
    };
    let from = places.partition_point(|(gsn, _)| *gsn < last.head);
    for (runs, line) in &end.final_runs {
        let mut runs = runs.iter().peekable();
        for (gsn, place) in &places[from..] {
            findings.checked(Id::S5, 1);
            while runs.next_if(|run| run.1 <= *gsn).is_some() {}
            if runs.peek().is_some_and(|run| run.0 <= *gsn) || lost.cover(*gsn) {
                continue;
            }
            let evidence = if place.ack_line > 0 {
                place.ack_line
            } else {
                place.line
            };
            findings.fail(Id::S5, &[evidence, *line, last.line], || {
                format!("the record at {gsn} is not in the final read")
            });
        }
    }
}

/// S6: a record that was there before another one was called stands below it.
fn real_time(
    places: &[(u64, Place)],
    records: &Records,
    context: &Context,
    findings: &mut Findings,
) {
    let (mut latest, mut line, mut at) = (0, 0, 0);
    for (gsn, place) in places {
        findings.checked(Id::S6, 1);
        if context.after(latest, place.w) {
            let evidence = if place.ack_line > 0 {
                place.ack_line
            } else {
                place.line
            };
            findings.fail(Id::S6, &[evidence, line], || {
                format!(
                    "the record at {gsn} was there before the append of the one at {at} was called"
                )
            });
        }
        let rec = &records.all[place.rec as usize];
        if rec.inv != NEVER && rec.inv > latest {
            (latest, line, at) = (rec.inv, rec.inv_line, *gsn);
        }
    }
}
