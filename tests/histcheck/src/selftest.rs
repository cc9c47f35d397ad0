//! The judge judged: valid histories pass, and every mutator is caught by its own invariant.

use std::fmt::Write;

use crate::event::Event;
use crate::generate::{Plan, generate};
use crate::judge::{Counts, Judge};
use crate::mutate::{MUTATORS, Mutator};
use crate::read::{judge, read_lines};
use crate::report::{Report, Verdict};
use crate::witness::Id;
use crate::write::write_line;

/// How much to try.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Valid histories.
    pub histories: u64,
    /// The first seed.
    pub seed: u64,
    /// Histories that each mutator breaks.
    pub breaks: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            histories: 10_000,
            seed: 0,
            breaks: 20,
        }
    }
}

/// What the valid histories must hold, over 10,000 of them: what the judge was never shown, it was never tried on.
pub const FLOORS: &[(&str, u64)] = &[
    ("retries", 50_000),
    ("unknown", 50_000),
    ("failed", 20_000),
    ("renamed", 20_000),
    ("trims", 10_000),
    ("trimmed", 5_000),
    ("fills", 10_000),
    ("gaps_junk", 2_000),
    ("gaps_plug", 10_000),
    ("gaps_noop", 10_000),
    ("gaps_bridge", 5_000),
    ("gaps_trim", 500),
    ("gaps_loss", 500),
    ("epochs", 10_000),
    ("sessions", 30_000),
    ("voids", 10_000),
    ("confirms", 50_000),
    ("selective", 2_000),
    ("duplicates", 500),
    ("cuts", 50_000),
    ("persists", 50_000),
    ("repairs", 1_000),
    ("faults", 5_000),
    ("unwritten", 10_000),
];

/// What a mutator came to.
#[derive(Clone, Debug)]
pub struct Row {
    /// The mutator.
    pub mutator: Mutator,
    /// Histories that it broke.
    pub broken: u64,
    /// Of them, those in which each invariant was violated.
    pub caught: [u64; Id::ALL.len()],
    /// A seed whose broken history its own invariant did not catch.
    pub missed: Option<u64>,
}

/// What the self-test came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Valid histories that were judged.
    pub histories: u64,
    /// Those with two logs.
    pub two_logs: u64,
    /// Those that were split over two files.
    pub split: u64,
    /// Seeds of those that did not pass.
    pub false_alarms: Vec<u64>,
    /// What they held, all together.
    pub counts: Counts,
    /// Floors that were not reached.
    pub short: Vec<String>,
    /// The mutators.
    pub rows: Vec<Row>,
}

/// Runs everything.
#[must_use]
pub fn run(options: &Options) -> Outcome {
    let mut outcome = Outcome {
        histories: options.histories,
        two_logs: 0,
        split: 0,
        false_alarms: Vec::new(),
        counts: Counts::default(),
        short: Vec::new(),
        rows: Vec::new(),
    };
    for seed in options.seed..options.seed + options.histories {
        let plan = Plan::of(seed);
        let events = generate(&plan);
        let split = seed % 4 == 3;
        let report = if split {
            judge_in_two_files(&events)
        } else {
            judge(&lines(&events))
        };
        outcome.split += u64::from(split);
        outcome.two_logs += u64::from(report.counts.logs == 2);
        outcome.counts.add(&report.counts);
        if report.verdict() != Verdict::Pass {
            outcome.false_alarms.push(seed);
        }
    }
    let mut held = outcome.counts.all();
    held.push(("two_logs", outcome.two_logs));
    let floors = FLOORS.iter().chain(&[("two_logs", 2_000)]);
    for (name, floor) in floors {
        let floor = floor * options.histories / 10_000;
        let count = held.iter().find(|held| held.0 == *name).map_or(0, |c| c.1);
        if count < floor {
            outcome.short.push(format!("{name} {count}, floor {floor}"));
        }
    }
    for mutator in MUTATORS {
        outcome.rows.push(try_mutator(mutator, options));
    }
    outcome
}

fn try_mutator(mutator: &Mutator, options: &Options) -> Row {
    let mut row = Row {
        mutator: *mutator,
        broken: 0,
        caught: [0; Id::ALL.len()],
        missed: None,
    };
    for seed in options.seed..options.seed + 100 * options.breaks {
        if row.broken == options.breaks {
            break;
        }
        let events = generate(&Plan::of(seed));
        let Some(broken) = mutator.apply(&events, seed) else {
            continue;
        };
        row.broken += 1;
        let report = judge(&lines(&broken));
        for id in report.violated() {
            row.caught[id as usize] += 1;
        }
        if report.of(mutator.id).violated == 0 {
            row.missed = Some(seed);
        }
    }
    row
}

/// The lines of a history.
#[must_use]
pub fn lines(events: &[Event]) -> String {
    let mut text = String::with_capacity(events.len() * 100);
    for event in events {
        write_line(&mut text, event);
    }
    text
}

/// The readers' lines in a file of their own, which is read first.
fn judge_in_two_files(events: &[Event]) -> Report {
    let is_reader = |event: &&Event| {
        matches!(
            event,
            Event::Sub { .. }
                | Event::Dlv { .. }
                | Event::Gap { .. }
                | Event::Conf { .. }
                | Event::Void { .. }
                | Event::End { .. }
        )
    };
    let head = events.first().cloned();
    let end = events.last().cloned();
    let end = end.filter(|event| matches!(event, Event::Done { .. }));
    let readers: Vec<Event> = head
        .into_iter()
        .chain(events.iter().filter(is_reader).cloned())
        .chain(end)
        .collect();
    let writers: Vec<Event> = events
        .iter()
        .filter(|event| !is_reader(event))
        .cloned()
        .collect();
    let mut judge = Judge::new();
    for file in [readers, writers] {
        // Memory can be read.
        let _ = read_lines(&mut judge, lines(&file).as_bytes());
    }
    judge.finish()
}

impl Row {
    /// Its own invariant caught it every time, and it was tried.
    #[must_use]
    pub fn is_caught(&self) -> bool {
        self.missed.is_none() && self.broken > 0
    }
}

impl Outcome {
    /// No false alarm, no floor missed, every mutator caught by its own invariant.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.false_alarms.is_empty()
            && self.short.is_empty()
            && self.rows.iter().all(Row::is_caught)
    }

    /// The matrix of mutators and invariants, and what the valid histories came to.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing into a string does not fail.
        let _ = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        write!(out, "{:<34}", "mutator \\ invariant")?;
        for id in Id::ALL {
            write!(out, "{:>4}", id.to_string())?;
        }
        writeln!(out, "  broken  own")?;
        for row in &self.rows {
            write!(out, "{:<34}", row.mutator.name)?;
            for (id, caught) in Id::ALL.iter().zip(row.caught) {
                match (caught, *id == row.mutator.id) {
                    (0, false) => write!(out, "{:>4}", ".")?,
                    (caught, false) => write!(out, "{caught:>4}")?,
                    (caught, true) => write!(out, "{:>4}", format!("*{caught}"))?,
                }
            }
            let own = match row.missed {
                None if row.broken > 0 => format!("{} caught", row.mutator.id),
                None => format!("{} never tried", row.mutator.id),
                Some(seed) => format!("{} MISSED, seed {seed}", row.mutator.id),
            };
            writeln!(out, "  {:>6}  {own}", row.broken)?;
        }
        writeln!(
            out,
            "valid histories {}, two logs in {}, two files in {}: false alarms {}",
            self.histories,
            self.two_logs,
            self.split,
            self.false_alarms.len()
        )?;
        if !self.false_alarms.is_empty() {
            let first = &self.false_alarms[..self.false_alarms.len().min(10)];
            writeln!(out, "  seeds {first:?}")?;
        }
        let counts: Vec<String> = self
            .counts
            .all()
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        writeln!(out, "they hold: {}", counts.join(", "))?;
        for short in &self.short {
            writeln!(out, "BELOW THE FLOOR: {short}")?;
        }
        let verdict = if self.passed() { "pass" } else { "fail" };
        writeln!(out, "selftest: {verdict}")
    }
}
