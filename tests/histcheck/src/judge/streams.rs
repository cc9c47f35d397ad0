//! Subscriptions: no undeclared gap (S9), order of delivery (S10), speculation (S12), selective reads (S17).
//!
//! A hint (`spec`) is kept aside until a `conf` makes it a fact or a `void` takes it back; it is evidence for nothing
//! before that, except that its record must have been appended.

use std::collections::VecDeque;

use super::places::{Place, how};
use super::records::Records;
use super::{Context, FinalPhase, Gaps, NEVER, NONE};
use crate::event::{Kind, Only, Sight};
use crate::table::FastMap;
use crate::witness::{Findings, Id, Pos};

/// A hint that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hint {
    pub(super) lo: u64,
    pub(super) hi: u64,
    pub(super) what: Delivered,
    pub(super) line: Pos,
}

/// What was delivered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Delivered {
    Record(Sight),
    Hole(Kind),
}

/// One subscription.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) log: u32,
    pub(super) begun: u64,
    start: u64,
    /// The next position that it is owed.
    pub(super) next: u64,
    pub(super) last: bool,
    pub(super) only: Option<Only>,
    hints: VecDeque<Hint>,
    confirmed: Option<(u64, Pos)>,
    /// The highest position that was delivered as a fact.
    firm: Option<(u64, Pos)>,
    /// Runs of records, of a final reader.
    runs: Vec<(u64, u64)>,
    /// What a selective reader got, and what it was told is not there.
    picked: Vec<(u64, Pos)>,
    told: Vec<(u64, u64)>,
    pub(super) ended: bool,
    pub(super) line: Pos,
    last_line: Pos,
}

impl Stream {
    pub(super) fn new(
        log: u32,
        t: u64,
        start: u64,
        last: bool,
        only: Option<Only>,
        line: Pos,
    ) -> Self {
        Self {
            log,
            begun: t,
            start,
            next: start,
            last,
            only,
            hints: VecDeque::new(),
            confirmed: None,
            firm: None,
            runs: Vec::new(),
            picked: Vec::new(),
            told: Vec::new(),
            ended: false,
            line,
            last_line: line,
        }
    }

    /// What deliveries of it say of a position.
    pub(super) const fn how(&self) -> u8 {
        how::READ | if self.last { how::FINAL } else { 0 }
    }

    /// Advances over `lo..hi`; S9 and S10.
    #[inline]
    pub(super) fn advance(&mut self, (lo, hi): (u64, u64), line: Pos, findings: &mut Findings) {
        findings.checked(Id::S10, 1);
        if lo < self.next {
            findings.fail(Id::S10, &[self.last_line, line], || {
                format!("position {lo} comes again; {} was next", self.next)
            });
        } else if lo > self.next && self.only.is_none() {
            findings.fail(Id::S9, &[self.last_line, line], || {
                format!("{}..{lo} is passed over without a word", self.next)
            });
        }
        self.next = self.next.max(hi);
        self.last_line = line;
    }

    /// A record is there for certain.
    #[inline]
    pub(super) fn fact(&mut self, gsn: u64, line: Pos) {
        if self.last {
            match self.runs.last_mut() {
                Some(run) if run.1 == gsn => run.1 = gsn + 1,
                _ => self.runs.push((gsn, gsn.saturating_add(1))),
            }
        }
        if self.only.is_some() {
            self.picked.push((gsn, line));
        }
    }

    pub(super) fn firm(&mut self, gsn: u64, line: Pos) {
        if self.firm.is_none_or(|(firm, _)| firm < gsn) {
            self.firm = Some((gsn, line));
        }
    }

    pub(super) fn told(&mut self, lo: u64, hi: u64) {
        if self.only.is_some() {
            self.told.push((lo, hi));
        }
    }

    pub(super) fn hint(&mut self, hint: Hint) {
        self.hints.push_back(hint);
    }

    /// Hints up to `upto` become facts; they are handed to `fact`.
    pub(super) fn confirm(
        &mut self,
        upto: u64,
        line: Pos,
        findings: &mut Findings,
        facts: &mut Vec<Hint>,
    ) {
        findings.checked(Id::S12, 1);
        if let Some((before, earlier)) = self.confirmed
            && upto < before
        {
            findings.fail(Id::S12, &[earlier, line], || {
                format!("confirmed up to {upto}, after {before}")
            });
        }
        if upto >= self.next {
            findings.fail(Id::S12, &[self.last_line, line], || {
                format!(
                    "confirmed up to {upto}, though nothing from {} on was delivered",
                    self.next
                )
            });
        }
        if self.confirmed.is_none_or(|(before, _)| before < upto) {
            self.confirmed = Some((upto, line));
        }
        facts.clear();
        while let Some(hint) = self.hints.front_mut().filter(|hint| hint.lo <= upto) {
            let mut fact = *hint;
            if hint.hi - 1 > upto {
                fact.hi = upto + 1;
                hint.lo = upto + 1;
            } else {
                self.hints.pop_front();
            }
            facts.push(fact);
        }
    }

    /// Hints from `start` on are taken back, and come again.
    pub(super) fn void(&mut self, start: u64, line: Pos, findings: &mut Findings) {
        findings.checked(Id::S12, 1);
        for (firm, earlier) in [self.confirmed, self.firm].into_iter().flatten() {
            if start <= firm {
                findings.fail(Id::S12, &[earlier, line], || {
                    format!("{start} is taken back, though {firm} was certain")
                });
            }
        }
        while let Some(hint) = self.hints.back_mut().filter(|hint| hint.hi > start) {
            if hint.lo >= start {
                self.hints.pop_back();
            } else {
                hint.hi = start;
            }
        }
        self.next = self.next.min(start);
        self.last_line = line;
    }

    /// The runs of records of a final reader.
    pub(super) fn final_runs(&self) -> (Vec<(u64, u64)>, Pos) {
        let mut runs = self.runs.clone();
        runs.sort_unstable();
        (runs, self.line)
    }

    /// S9 of final readers and S12 of everybody, once everything was read.
    pub(super) fn judge_end(&self, last: &FinalPhase, context: &Context, findings: &mut Findings) {
        if let Some(hint) = self.hints.front()
            && !self.ended
            && !context.beyond_f
        {
            findings.fail(Id::S12, &[hint.line, last.line], || {
                format!("the hint at {} was never confirmed nor taken back", hint.lo)
            });
        }
        if self.last && self.only.is_none() {
            findings.checked(Id::S9, 1);
            if self.start > last.head || self.next < last.tail {
                findings.fail(Id::S9, &[self.line, self.last_line, last.line], || {
                    format!(
                        "a final reader has {}..{}, not {}..{}",
                        self.start, self.next, last.head, last.tail
                    )
                });
            }
        }
    }

    /// S17: what was picked is what matches, and all of it.
    pub(super) fn judge_selection(
        &self,
        only: Only,
        selections: &Selections,
        places: &[(u64, Place)],
        records: &Records,
        findings: &mut Findings,
    ) {
        for (gsn, line) in &self.picked {
            findings.checked(Id::S17, 1);
            let Some(place) = super::places::find(places, *gsn) else {
                continue;
            };
            let rec = place.rec;
            let wrong = matches(records, rec, only) == Some(false);
            if wrong {
                findings.fail(Id::S17, &[self.line, *line], || {
                    format!("the record at {gsn} was not asked for")
                });
            }
        }
        let Some(wanted) = selections.get(&(self.log, only)) else {
            return;
        };
        let told = Gaps::of_ranges(self.told.clone());
        let from = wanted.partition_point(|(gsn, _)| *gsn < self.start);
        let mut picked = self.picked.iter().peekable();
        for (gsn, line) in wanted[from..]
            .iter()
            .take_while(|(gsn, _)| *gsn < self.next)
        {
            while picked.next_if(|(got, _)| got < gsn).is_some() {}
            if picked.peek().is_some_and(|(got, _)| got == gsn) || told.cover(*gsn) {
                continue;
            }
            findings.fail(Id::S17, &[self.line, *line, self.last_line], || {
                format!("the record at {gsn} was asked for and passed over")
            });
        }
    }
}

/// Positions that match each selection that somebody asked for, with a line that shows the record.
pub(super) type Selections = FastMap<(u32, Only), Vec<(u64, Pos)>>;

/// Says whether a record matches; `None` where the history does not say.
fn matches(records: &Records, rec: u32, only: Only) -> Option<bool> {
    let rec = records.all.get(rec as usize)?;
    match only {
        Only::Client(cid) => {
            let session = records.sessions.get(rec.session as usize)?;
            Some(session.cid == cid)
        }
        Only::Shard(shard) => (rec.shard != NONE).then_some(u64::from(rec.shard) == shard),
        Only::Colour(colour) if rec.inv != NEVER => {
            Some(rec.colour != NONE && u64::from(rec.colour) == colour)
        }
        Only::Colour(_) => None,
    }
}

/// The positions of a log that match what its selective readers, among `streams`, want: in one pass over the log.
pub(super) fn select(
    log: u32,
    streams: &[Stream],
    places: &[(u64, Place)],
    records: &Records,
) -> Selections {
    let mut selections = Selections::default();
    for stream in streams {
        if let Some(only) = stream.only {
            selections.entry((log, only)).or_default();
        }
    }
    if selections.is_empty() {
        return selections;
    }
    for (gsn, place) in places {
        let Some(rec) = records.all.get(place.rec as usize) else {
            continue;
        };
        let client = records.sessions.get(rec.session as usize);
        let keys = [
            client.map(|session| Only::Client(session.cid)),
            (rec.shard != NONE).then(|| Only::Shard(u64::from(rec.shard))),
            (rec.colour != NONE).then(|| Only::Colour(u64::from(rec.colour))),
        ];
        for key in keys.into_iter().flatten() {
            if let Some(matching) = selections.get_mut(&(log, key)) {
                matching.push((*gsn, rec.inv_line));
            }
        }
    }
    selections
}
