//! The judge: takes events one by one, keeps what the invariants need, and says at the end what they came to.
//!
//! What can be judged at once is (well-formedness, the order of each subscription); the rest is judged at the end, because
//! evidence may come from several files in any order. Memory is proportional to the events, with no text kept: a witness is
//! a list of line numbers.

mod bounds;
mod epochs;
mod finish;
mod floors;
mod follow;
mod live;
mod ops;
mod places;
mod records;
mod segments;
mod streams;
mod trims;

pub use floors::{Counts, Floor};

use crate::event::{Event, FaultState, Header, Order, Phase, White};
use crate::table::FastMap;
use crate::witness::{Findings, Id, Pos};

use bounds::Bounds;
use epochs::Epochs;
use live::{Client, Slow};
use ops::FileOps;
use places::{Hole, Places};
use records::Records;
use segments::{Cut, Segments};
use streams::{Hint, Stream};
use trims::Trims;

/// No time, no position.
const NEVER: u64 = u64::MAX;
/// No entry.
const NONE: u32 = u32::MAX;

/// What the header says that the checks need.
#[derive(Clone, Copy, Debug)]
struct Context {
    clock_err: u64,
    order: Order,
    dense: bool,
    beyond_f: bool,
    live_ns: u64,
    /// Copies of a record that are flushed before it is acknowledged.
    flushed: u64,
}

impl Context {
    /// `a` came after `b`, whatever the clocks.
    const fn after(&self, a: u64, b: u64) -> bool {
        a > b.saturating_add(self.clock_err)
    }

    /// What came strictly before this, came before `t`, whatever the clocks.
    const fn certainly_before(&self, t: u64) -> u64 {
        t.saturating_sub(self.clock_err)
    }

    fn real_time(&self) -> bool {
        self.order == Order::Linearizable
    }

    fn fifo(&self) -> bool {
        self.order != Order::Total
    }
}

/// The final phase of a log.
#[derive(Clone, Copy, Debug)]
struct FinalPhase {
    t: u64,
    file: usize,
    head: u64,
    tail: u64,
    line: Pos,
}

/// How a log ended.
#[derive(Clone, Default, Debug)]
struct LogEnd {
    log: u64,
    acks: u64,
    heal: Option<(u64, Pos)>,
    /// The latest of those of all files.
    last: Option<FinalPhase>,
    /// Another file's came before it: readers that were final by that one are not by this one.
    repeated: bool,
    /// Runs of records of each final reader, and its line.
    final_runs: Vec<(Vec<(u64, u64)>, Pos)>,
}

/// Ranges, merged, to be asked whether they hold a position.
#[derive(Clone, Default, Debug)]
struct Gaps(Vec<(u64, u64)>);

impl Gaps {
    fn of<'a>(holes: impl Iterator<Item = &'a Hole>) -> Self {
        Self::of_ranges(holes.map(|hole| (hole.lo, hole.hi)).collect())
    }

    fn of_ranges(mut ranges: Vec<(u64, u64)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (lo, hi) in ranges {
            match merged.last_mut() {
                Some(last) if last.1 >= lo => last.1 = last.1.max(hi),
                _ => merged.push((lo, hi)),
            }
        }
        Self(merged)
    }

    fn cover(&self, gsn: u64) -> bool {
        self.cover_all(gsn, gsn.saturating_add(1))
    }

    fn cover_all(&self, lo: u64, hi: u64) -> bool {
        let at = self.0.partition_point(|range| range.0 <= lo);
        at > 0 && self.0[at - 1].1 >= hi
    }
}

/// What is kept of one log.
#[derive(Default, Debug)]
struct Log {
    places: Places,
    bounds: Bounds,
    trims: Trims,
    epochs: Epochs,
    segments: Segments,
    end: LogEnd,
}

/// A sighting whose session the history leaves out.
#[derive(Clone, Copy, Debug)]
struct Deferred {
    log: u32,
    sight: crate::event::Sight,
    /// Position and how it was learned, unless it is a hint.
    place: Option<(u64, u8)>,
    t: u64,
    line: Pos,
}

/// The judge. Feed it [`Judge::begin_file`], then the events of the file, for each file; then [`Judge::finish`].
#[derive(Debug)]
pub struct Judge {
    header: Option<Header>,
    file_headed: bool,
    /// The line of the file's header, while that announces a `done` which has not come.
    file_owes_done: Option<Pos>,
    file_done: Option<Pos>,
    file_starts: Vec<Pos>,
    line: Pos,
    findings: Findings,
    counts: Counts,
    floors: Vec<Floor>,
    live_ns: Option<u64>,
    records: Records,
    logs: Vec<Log>,
    log_numbers: FastMap<u64, u32>,
    ops: FileOps,
    subs: FastMap<u64, u32>,
    streams: Vec<Stream>,
    clients: Vec<Client>,
    slow: Vec<Slow>,
    deferred: Vec<Deferred>,
    facts: Vec<Hint>,
    faulty: u64,
    now: u64,
}

impl Default for Judge {
    fn default() -> Self {
        Self::new()
    }
}

impl Judge {
    /// A judge that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            header: None,
            file_headed: false,
            file_owes_done: None,
            file_done: None,
            file_starts: Vec::new(),
            line: 0,
            findings: Findings::default(),
            counts: Counts::default(),
            floors: Vec::new(),
            live_ns: None,
            records: Records::default(),
            logs: Vec::new(),
            log_numbers: FastMap::default(),
            ops: FileOps::default(),
            subs: FastMap::default(),
            streams: Vec::new(),
            clients: Vec::new(),
            slow: Vec::new(),
            deferred: Vec::new(),
            facts: Vec::new(),
            faulty: 0,
            now: 0,
        }
    }

    /// Asks for more coverage than every history needs.
    pub fn floor(&mut self, floor: Floor) {
        self.floors.push(floor);
    }

    /// Takes this bound on liveness and not the header's, in nanoseconds.
    pub fn live_within(&mut self, live_ns: u64) {
        self.live_ns = Some(live_ns);
    }

    /// A new file begins: its operations, processes and subscriptions are numbered anew.
    pub fn begin_file(&mut self) {
        self.end_file();
        self.file_starts.push(self.line);
        self.file_headed = false;
    }

    fn end_file(&mut self) {
        self.file_done = None;
        if let Some(header) = self.file_owes_done.take() {
            self.findings.fail(Id::S0, &[header, self.line], || {
                "the file is cut short: its header announces a last line (`done`), and there is none"
                    .to_owned()
            });
        }
        self.ops.end(&mut self.findings, &mut self.slow);
        self.subs.clear();
    }

    /// A line with nothing on it.
    pub fn blank_line(&mut self) {
        self.line += 1;
    }

    /// A line that is no event.
    pub fn bad_line(&mut self, why: &str) {
        self.line += 1;
        self.findings.fail(Id::S0, &[self.line], || why.to_owned());
    }

    /// The next event.
    pub fn event(&mut self, event: &Event) {
        if self.file_starts.is_empty() {
            self.begin_file();
        }
        self.line += 1;
        self.counts.events += 1;
        if !self.file_headed {
            self.file_headed = true;
            if !matches!(event, Event::Header(_)) {
                self.malformed(&[], "the file does not begin with a header (`hdr`)");
            }
        }
        if let Some(done) = self.file_done {
            self.malformed(
                &[done],
                "something stands after the end of the file (`done`)",
            );
        }
        match event {
            Event::Dlv {
                t,
                sub,
                gsn,
                rec,
                spec,
                epoch,
            } => self.delivered(*t, *sub, *gsn, rec, *spec, *epoch),
            Event::Inv {
                t,
                p,
                op,
                log,
                call,
            } => self.called(*t, *p, *op, *log, call),
            Event::Ok { t, op, answer } => self.answered(*t, *op, answer),
            Event::Failed { t, op, no_effect } => self.failed(*t, *op, *no_effect),
            Event::Gap {
                t,
                sub,
                lo,
                hi,
                kind,
                spec,
            } => self.gap(*t, *sub, (*lo, *hi), *kind, *spec),
            Event::Conf { t, sub, upto } => self.confirmed(*t, *sub, *upto),
            Event::Void { t, sub, start } => self.voided(*t, *sub, *start),
            Event::End { t, sub } => {
                self.passes(*t);
                if let Some(at) = self.stream(*sub) {
                    self.streams[at].ended = true;
                }
            }
            Event::Sub {
                t,
                sub,
                log,
                start,
                last,
                only,
            } => self.subscribed(
                *t,
                *sub,
                *log,
                Stream::new(0, *t, *start, *last, *only, self.line),
            ),
            Event::Epoch {
                t,
                log,
                epoch,
                start,
            } => {
                self.passes(*t);
                self.counts.epochs += 1;
                let (log, line) = (self.log(*log), self.line);
                let epochs = &mut self.logs[log as usize].epochs;
                epochs.begun.push((*epoch, *start, line));
                epochs.seen.learn(*t, *epoch, line);
            }
            Event::Nem {
                t, state, beyond_f, ..
            } => self.fault(*t, *state, *beyond_f),
            Event::Phase {
                t,
                log,
                phase,
                head,
                tail,
            } => self.phase(*t, *log, *phase, (*head, *tail)),
            Event::Done { t } => {
                self.passes(*t);
                self.file_done = Some(self.line);
                self.file_owes_done = None;
            }
            Event::White(white) => self.white(white),
            Event::WhiteOther => self.counts.white += 1,
            Event::Header(header) => self.headed(header),
        }
    }

    #[cold]
    fn malformed(&mut self, lines: &[Pos], why: &str) {
        let mut lines = lines.to_vec();
        lines.push(self.line);
        self.findings.fail(Id::S0, &lines, || why.to_owned());
    }

    #[inline]
    fn passes(&mut self, t: u64) {
        self.now = self.now.max(t);
    }

    fn log(&mut self, number: u64) -> u32 {
        if let Some(at) = self.log_numbers.get(&number) {
            return *at;
        }
        let at = self.logs.len() as u32;
        self.logs.push(Log::default());
        self.logs[at as usize].end.log = number;
        self.log_numbers.insert(number, at);
        at
    }

    fn headed(&mut self, header: &Header) {
        if header.done {
            self.file_owes_done = Some(self.line);
        }
        let Some(known) = &mut self.header else {
            self.header = Some(header.clone());
            return;
        };
        let same = |h: &Header| (h.order, h.dedupe, h.dense, h.durability.clone());
        if same(known) != same(header) {
            self.malformed(
                &[1],
                "headers disagree on order, dedupe, dense or durability",
            );
            return;
        }
        known.clock_err_ns = known.clock_err_ns.max(header.clock_err_ns);
        known.beyond_f |= header.beyond_f;
        known.spec |= header.spec;
        known.faults = known.faults.max(header.faults);
        known.live_ns = known.live_ns.max(header.live_ns);
    }

    fn live_bound(&self) -> u64 {
        let of_header = self.header.as_ref().map(|header| header.live_ns);
        self.live_ns.or(of_header).unwrap_or(crate::event::LIVE_NS)
    }

    fn dedupe(&self) -> bool {
        self.header.as_ref().is_none_or(|header| header.dedupe)
    }

    fn fault(&mut self, t: u64, state: FaultState, beyond_f: bool) {
        self.passes(t);
        match state {
            FaultState::Installed => {
                self.counts.faults += 1;
                self.faulty += 1;
                if let Some(header) = &mut self.header {
                    header.beyond_f |= beyond_f;
                }
            }
            FaultState::Skipped | FaultState::Unknown => self.counts.faults_skipped += 1,
            FaultState::Healed => self.faulty = self.faulty.saturating_sub(1),
        }
    }

    fn phase(&mut self, t: u64, log: u64, phase: Phase, (head, tail): (u64, u64)) {
        self.passes(t);
        let (log, line, file) = (self.log(log), self.line, self.file_starts.len());
        let end = &mut self.logs[log as usize].end;
        match phase {
            Phase::WarmUp | Phase::Load => {}
            Phase::Heal => {
                self.counts.heals += 1;
                end.heal = Some((t, line));
            }
            Phase::Final => {
                self.counts.finals += 1;
                let phase = FinalPhase {
                    t,
                    file,
                    head,
                    tail,
                    line,
                };
                let before = end.last;
                end.repeated = before.is_some();
                // What one process took for the end was not, if another one went on.
                if before.is_none_or(|before| before.t < t) {
                    end.last = Some(phase);
                }
                if let Some(before) = before.filter(|before| before.file == file) {
                    self.malformed(&[before.line], "a log has one final phase in a file");
                } else if head > tail {
                    self.malformed(&[], "the final head is beyond the final tail");
                }
            }
        }
    }

    fn white(&mut self, white: &White) {
        self.counts.white += 1;
        let line = self.line;
        match white {
            White::Cut {
                log,
                n,
                gsn,
                end,
                deltas,
            } => {
                self.counts.cuts += 1;
                let cut = Cut {
                    gsn: *gsn,
                    end: *end,
                    deltas: deltas.clone(),
                    line,
                };
                let log = self.log(*log) as usize;
                self.logs[log].segments.cut(*n, cut, &mut self.findings);
            }
            White::Persist {
                t,
                log,
                shard,
                rep,
                by,
                len,
            } => {
                self.passes(*t);
                self.counts.persists += 1;
                let log = self.log(*log) as usize;
                let copies = self.logs[log].segments.flushed.entry((*shard, *rep));
                let copy = copies.or_default().entry(*by).or_default();
                copy.learn(*t, *len, line);
            }
            White::Repair { n } => self.counts.repairs = self.counts.repairs.saturating_add(*n),
            White::Sum {
                log,
                shard,
                rep,
                len,
                h,
            } => {
                let log = self.log(*log) as usize;
                let segments = &mut self.logs[log].segments;
                segments.sum((*shard, *rep), (*len, *h, line), &mut self.findings);
            }
        }
    }
}
