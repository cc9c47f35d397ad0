//! The verdict, and what led to it: as text, and as JSON.

use std::fmt::{self, Write};

use crate::event::Header;
use crate::judge::Counts;
use crate::witness::{Findings, Id, Pos, Witness, WitnessLine};

/// What a history shows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// Every invariant holds, and there was enough to see.
    Pass,
    /// An invariant is violated.
    Fail,
    /// Nothing is violated, and too little was seen for a pass.
    Unknown,
    /// The history is malformed: whoever recorded it is at fault.
    HarnessError,
}

impl Verdict {
    /// The exit code of `histcheck`.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Fail => 1,
            Self::Unknown => 2,
            Self::HarnessError => 3,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
            Self::HarnessError => "harness-error",
        })
    }
}

/// What an invariant came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Which.
    pub id: Id,
    /// How many things it was checked on.
    pub checked: u64,
    /// How many violate it.
    pub violated: u64,
    /// The smallest of them, three at most.
    pub witnesses: Vec<Witness>,
}

/// The verdict, and what led to it.
#[derive(Clone, Debug)]
pub struct Report {
    /// The header, joined over all files.
    pub header: Header,
    /// What each invariant came to.
    pub outcomes: Vec<Outcome>,
    /// What the history holds.
    pub counts: Counts,
    /// Names of the files, for the witnesses.
    pub files: Vec<String>,
}

impl Report {
    pub(crate) fn new(
        header: Header,
        findings: Findings,
        counts: Counts,
        starts: Vec<Pos>,
    ) -> Self {
        let place = |at: Pos| {
            let file = starts
                .partition_point(|start| *start < at)
                .saturating_sub(1);
            let before = starts.get(file).copied().unwrap_or(0);
            WitnessLine {
                file,
                line: u64::from(at - before),
                text: String::new(),
            }
        };
        let outcomes = Id::ALL.iter().map(|id| {
            let finding = findings.of(*id);
            let mut witnesses = finding.kept.clone();
            for witness in &mut witnesses {
                witness.lines = witness.at.iter().map(|at| place(*at)).collect();
            }
            Outcome {
                id: *id,
                checked: finding.checked,
                violated: finding.violated,
                witnesses,
            }
        });
        Self {
            header,
            outcomes: outcomes.collect(),
            counts,
            files: Vec::new(),
        }
    }

    /// The verdict.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let violated = |wanted: fn(Id) -> bool| {
            let mut of = self.outcomes.iter().filter(|outcome| wanted(outcome.id));
            of.any(|outcome| outcome.violated > 0)
        };
        if violated(|id| id == Id::S0) {
            Verdict::HarnessError
        } else if violated(|id| id != Id::S0 && id != Id::V1) {
            Verdict::Fail
        } else if violated(|id| id == Id::V1) {
            Verdict::Unknown
        } else {
            Verdict::Pass
        }
    }

    /// What one invariant came to.
    #[must_use]
    pub fn of(&self, id: Id) -> &Outcome {
        &self.outcomes[id as usize]
    }

    /// The invariants that are violated.
    #[must_use]
    pub fn violated(&self) -> Vec<Id> {
        let violated = self.outcomes.iter().filter(|outcome| outcome.violated > 0);
        violated.map(|outcome| outcome.id).collect()
    }

    /// The lines that witnesses need of a file, ascending.
    #[must_use]
    pub fn wanted(&self, file: usize) -> Vec<u64> {
        let witnesses = self.outcomes.iter().flat_map(|outcome| &outcome.witnesses);
        let lines = witnesses.flat_map(|witness| &witness.lines);
        let mut lines: Vec<u64> = lines
            .filter(|line| line.file == file)
            .map(|line| line.line)
            .collect();
        lines.sort_unstable();
        lines.dedup();
        lines
    }

    /// Gives the witnesses the text of a line.
    pub fn attach(&mut self, file: usize, number: u64, text: &str) {
        for outcome in &mut self.outcomes {
            for line in outcome.witnesses.iter_mut().flat_map(|w| &mut w.lines) {
                if (line.file, line.line) == (file, number) {
                    text.clone_into(&mut line.text);
                }
            }
        }
    }

    fn file(&self, at: usize) -> &str {
        self.files.get(at).map_or("history", String::as_str)
    }

    /// For people: the verdict last, before it what is violated, with its witnesses.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing into a string does not fail.
        let _ = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> fmt::Result {
        let Header {
            run,
            seed,
            sut,
            world,
            durability,
            commit,
            ..
        } = &self.header;
        writeln!(
            out,
            "history of {sut} ({world}), durability {durability}, run {run}, seed {seed}, commit {commit}"
        )?;
        let counts = self.counts.all();
        let counts: Vec<String> = counts
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        writeln!(out, "{}", counts.join(", "))?;
        for outcome in &self.outcomes {
            let Outcome {
                id,
                checked,
                violated,
                witnesses,
            } = outcome;
            let state = if *violated > 0 { "VIOLATED" } else { "holds" };
            writeln!(
                out,
                "{:<4}{state:<9} checked {checked:>10}  violated {violated:>6}  {}",
                id.to_string(),
                id.says()
            )?;
            for witness in witnesses {
                writeln!(out, "      {}", witness.what)?;
                for line in &witness.lines {
                    let file = self.file(line.file);
                    writeln!(out, "        {file}:{} {}", line.line, line.text)?;
                }
            }
        }
        writeln!(out, "verdict: {}", self.verdict())
    }

    /// For programs: one line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let mut out = String::new();
        let _ = self.write_json(&mut out);
        out
    }

    fn write_json(&self, out: &mut String) -> fmt::Result {
        write!(
            out,
            r#"{{"verdict":"{}","run":{},"seed":{},"sut":{},"durability":{},"counts":{{"#,
            self.verdict(),
            quoted(&self.header.run),
            self.header.seed,
            quoted(&self.header.sut),
            quoted(&self.header.durability)
        )?;
        for (at, (name, count)) in self.counts.all().into_iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(out, r#"{comma}"{name}":{count}"#)?;
        }
        out.push_str(r#"},"invariants":["#);
        for (at, outcome) in self.outcomes.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(
                out,
                r#"{comma}{{"id":"{}","checked":{},"violated":{},"witnesses":["#,
                outcome.id, outcome.checked, outcome.violated
            )?;
            for (at, witness) in outcome.witnesses.iter().enumerate() {
                let comma = if at > 0 { "," } else { "" };
                write!(
                    out,
                    r#"{comma}{{"what":{},"lines":["#,
                    quoted(&witness.what)
                )?;
                for (at, line) in witness.lines.iter().enumerate() {
                    let comma = if at > 0 { "," } else { "" };
                    let (file, text) = (quoted(self.file(line.file)), quoted(&line.text));
                    write!(
                        out,
                        r#"{comma}{{"file":{file},"line":{},"text":{text}}}"#,
                        line.line
                    )?;
                }
                out.push_str("]}");
            }
            out.push_str("]}");
        }
        out.push_str("]}");
        Ok(())
    }
}

/// A text as a string of JSON, quotes included.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            char if char < ' ' => {
                let _ = write!(out, "\\u{:04x}", char as u32);
            }
            char => out.push(char),
        }
    }
    out.push('"');
    out
}
