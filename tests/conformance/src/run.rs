//! Runs cases over backends: a line for each, counts that must be the same everywhere, and how many passed.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::backends::{Entry, Factory};
use crate::cases::{CASES, PACKET_CASES, PACKET_SLOTS};
use crate::ground::{Counts, Ground, Patience};
use crate::long;
use crate::subject::{Refusal, Shape};

/// What came of a case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It held. What it counted, and a remark that need not be the same elsewhere.
    Pass(Counts, String),
    /// It did not; a sentence.
    Fail(String),
    /// It could not be tried; a sentence.
    Skip(String),
}

/// One line of a run: `PASS|FAIL|SKIP backend case reason`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// The backend, or `all` where they are compared.
    pub backend: String,
    /// The case, or `all` where a backend did not open.
    pub case: String,
    /// What came of it.
    pub verdict: Verdict,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            backend,
            case,
            verdict,
        } = self;
        match verdict {
            Verdict::Pass(counts, remark) if remark.is_empty() => {
                write!(f, "PASS {backend} {case} {counts}")
            }
            Verdict::Pass(counts, remark) => {
                write!(f, "PASS {backend} {case} {counts} ({remark})")
            }
            Verdict::Fail(why) => write!(f, "FAIL {backend} {case} {why}"),
            Verdict::Skip(why) => write!(f, "SKIP {backend} {case} {why}"),
        }
    }
}

/// How many lines there are of each verdict.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Summary {
    /// Cases that held.
    pub passed: u64,
    /// Cases that did not.
    pub failed: u64,
    /// Cases and backends that were not tried.
    pub skipped: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The backends, in this order.
    pub backends: Vec<Entry>,
    /// The names of those that must not be skipped.
    pub required: Vec<String>,
    /// The cases, by name; all of them if there is none.
    pub cases: Vec<String>,
    /// How long to wait.
    pub patience: Patience,
    /// So many messages with faults instead of the cases.
    pub messages: Option<u64>,
}

/// Runs a plan. Each line goes to `tell` as soon as it is known.
pub fn run(plan: &Plan, tell: &mut dyn FnMut(&Line)) -> Summary {
    let mut lines = Vec::new();
    for entry in &plan.backends {
        run_backend(plan, entry, &mut |line| {
            tell(&line);
            lines.push(line);
        });
    }
    for line in compare(&lines) {
        tell(&line);
        lines.push(line);
    }
    let mut summary = Summary::default();
    for line in &lines {
        match line.verdict {
            Verdict::Pass(..) => summary.passed += 1,
            Verdict::Fail(_) => summary.failed += 1,
            Verdict::Skip(_) => summary.skipped += 1,
        }
    }
    summary
}

fn run_backend(plan: &Plan, entry: &Entry, tell: &mut dyn FnMut(Line)) {
    let mut line = |case: &str, verdict| {
        tell(Line {
            backend: entry.name.to_owned(),
            case: case.to_owned(),
            verdict,
        });
    };
    let opened = match entry.factory {
        Factory::Absent(why) => Err(Refusal::Unavailable(why.to_owned())),
        Factory::Built(build) => {
            let backend = build();
            let probe = backend.open(&Shape::default()).map(drop);
            probe.map(|()| backend)
        }
    };
    let backend = match opened {
        Ok(backend) => backend,
        Err(Refusal::Unavailable(why)) if plan.required.iter().any(|name| name == entry.name) => {
            line(
                "all",
                Verdict::Fail(format!("it must run here and does not: {why}")),
            );
            return;
        }
        Err(Refusal::Unavailable(why)) => {
            line("all", Verdict::Skip(why));
            return;
        }
        Err(Refusal::Broken(why)) => {
            line("all", Verdict::Fail(why));
            return;
        }
    };
    if let Some(messages) = plan.messages {
        let outcome = guarded(|| long::run(&*backend, messages, plan.patience));
        line("long", verdict(outcome));
        return;
    }
    let wanted =
        |name: &str| plan.cases.is_empty() || plan.cases.iter().any(|wanted| wanted == name);
    for case in CASES.iter().filter(|case| wanted(case.name)) {
        let outcome = guarded(|| {
            let mut ground = Ground::open(&*backend, &(case.shape)(), plan.patience)?;
            (case.run)(&mut ground).map_err(Refusal::Broken)?;
            let counts = ground.rest().map_err(Refusal::Broken)?;
            Ok((counts, std::mem::take(&mut ground.remark)))
        });
        line(case.name, verdict(outcome));
    }
    for case in PACKET_CASES.iter().filter(|case| wanted(case.name)) {
        let outcome = guarded(|| {
            let Some(ends) = backend.open_packets(PACKET_SLOTS) else {
                return Ok(None);
            };
            let counts = (case.run)(&mut ends?, plan.patience).map_err(Refusal::Broken)?;
            Ok(Some((counts, String::new())))
        });
        match outcome.transpose() {
            // A fabric has no datagrams to try.
            None => {}
            Some(outcome) => line(case.name, verdict(outcome)),
        }
    }
}

/// Runs a case; a panic is a failure of it and of nothing else.
fn guarded<T>(case: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    catch_unwind(AssertUnwindSafe(case)).unwrap_or_else(|panic| {
        let said = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Refusal::Broken(format!(
            "panic: {}",
            said.unwrap_or("without a word")
        )))
    })
}

fn verdict(outcome: Result<(Counts, String), Refusal>) -> Verdict {
    match outcome {
        Ok((counts, remark)) => Verdict::Pass(counts, remark),
        Err(Refusal::Broken(why)) => Verdict::Fail(why),
        // It has opened before: what it needs went away, which is no reason to look away.
        Err(Refusal::Unavailable(why)) => Verdict::Fail(format!("it does not open again: {why}")),
    }
}

/// A failure for each case that did not count the same on all backends that passed it.
fn compare(lines: &[Line]) -> Vec<Line> {
    let mut differing = Vec::new();
    let names = CASES
        .iter()
        .map(|case| case.name)
        .chain(PACKET_CASES.iter().map(|case| case.name))
        .chain(["long"]);
    for name in names {
        let counted: Vec<(&str, Counts)> = lines
            .iter()
            .filter(|line| line.case == name)
            .filter_map(|line| match &line.verdict {
                Verdict::Pass(counts, _) => Some((line.backend.as_str(), *counts)),
                Verdict::Fail(_) | Verdict::Skip(_) => None,
            })
            .collect();
        if counted.windows(2).all(|pair| pair[0].1 == pair[1].1) {
            continue;
        }
        let counts: Vec<String> = counted
            .iter()
            .map(|(backend, counts)| format!("{backend} {counts}"))
            .collect();
        differing.push(Line {
            backend: "all".to_owned(),
            case: name.to_owned(),
            verdict: Verdict::Fail(format!("the counts differ: {}", counts.join("; "))),
        });
    }
    differing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(backend: &str, case: &str, sent: u64) -> Line {
        let counts = Counts {
            sent,
            ..Counts::default()
        };
        Line {
            backend: backend.to_owned(),
            case: case.to_owned(),
            verdict: Verdict::Pass(counts, String::new()),
        }
    }

    #[test]
    fn counts_that_differ_are_a_failure_that_names_them() {
        let same = [passed("shm", "once", 5), passed("udp", "once", 5)];
        assert_eq!(compare(&same), []);
        let differing = compare(&[
            passed("shm", "once", 5),
            passed("udp", "once", 5),
            passed("tap", "once", 4),
        ]);
        assert_eq!(differing.len(), 1);
        let text = differing[0].to_string();
        assert!(
            text.starts_with("FAIL all once the counts differ: shm sent=5"),
            "{text}"
        );
        assert!(text.contains("tap sent=4"), "{text}");
    }

    #[test]
    fn a_backend_that_must_run_and_does_not_fails() {
        let absent = Entry {
            name: "nowhere",
            need: crate::backends::Need::OnRequest,
            factory: Factory::Absent("there is no such device"),
        };
        let mut plan = Plan {
            backends: vec![absent],
            required: Vec::new(),
            cases: Vec::new(),
            patience: Patience::default(),
            messages: None,
        };
        let mut said = Vec::new();
        let summary = run(&plan, &mut |line| said.push(line.to_string()));
        assert_eq!(summary.to_string(), "0 passed, 0 failed, 1 skipped");
        plan.required.push("nowhere".to_owned());
        let summary = run(&plan, &mut |line| said.push(line.to_string()));
        assert_eq!(summary.to_string(), "0 passed, 1 failed, 0 skipped");
        assert_eq!(
            said,
            [
                "SKIP nowhere all there is no such device",
                "FAIL nowhere all it must run here and does not: there is no such device"
            ]
        );
    }

    #[test]
    fn a_panic_fails_its_case() {
        let outcome: Result<(), Refusal> = guarded(|| panic!("oh"));
        assert_eq!(outcome, Err(Refusal::Broken("panic: oh".to_owned())));
    }
}
