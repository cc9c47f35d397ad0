//! Violations: how many of each invariant, and the three smallest witnesses of each.

use std::fmt;

macro_rules! ids {
    ($($id:ident $says:literal,)*) => {
        /// The invariants. `S` is safety, `L` liveness, `V` coverage.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Id {
            $(#[doc = $says] $id,)*
        }

        impl Id {
            /// Every invariant.
            pub const ALL: [Self; 20] = [$(Self::$id),*];

            /// What it says, in a few words.
            #[must_use]
            pub const fn says(self) -> &'static str {
                match self {
                    $(Self::$id => $says,)*
                }
            }
        }
    };
}

ids! {
    S0 "the history is well formed (else the harness is at fault)",
    S1 "agreement: everybody sees the same at a position",
    S2 "integrity: what is seen was appended, before, with that payload",
    S3 "no duplicate: a record stands at one position",
    S4 "ack truth: the position in an ack holds that record",
    S5 "no loss: what was acked or seen is there at the end, as a record",
    S6 "real-time order of appends",
    S7 "sticky: what was written is never unwritten again",
    S8 "the tail never falls below what was known",
    S9 "no gap that was not declared, none over an acked record",
    S10 "delivery in order, and once",
    S11 "order of each session",
    S12 "speculation: what is confirmed stands, what is not is taken back",
    S13 "epochs fence",
    S14 "trims: only what was asked for",
    S15 "holes stay holes, records stay records",
    S16 "order within a segment and of cuts; flushed before acked",
    S17 "selective reads are complete",
    L1 "liveness after heal",
    V1 "coverage: the run shows something",
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A number of a line over all files of a history, from 1; 0 is no line.
pub(crate) type Pos = u32;

/// The events that show a violation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Witness {
    /// What is wrong.
    pub what: String,
    pub(crate) at: Vec<Pos>,
    /// The events: file, line and, once [`Report::attach`](crate::Report::attach) has run, text.
    pub lines: Vec<WitnessLine>,
}

/// A line of a witness.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WitnessLine {
    /// The file, by its place among those that were read, from 0.
    pub file: usize,
    /// The line in it, from 1.
    pub line: u64,
    /// Its text; empty until it is attached.
    pub text: String,
}

impl Witness {
    /// Fewer events first, then those that stand closer together, then earlier ones.
    fn size(at: &[Pos]) -> (usize, Pos, Pos) {
        let (first, last) = (at.iter().min(), at.iter().max());
        let (first, last) = (first.copied().unwrap_or(0), last.copied().unwrap_or(0));
        (at.len(), last - first, first)
    }
}

/// How many witnesses are kept of each invariant.
pub const WITNESSES: usize = 3;

/// What one invariant came to.
#[derive(Clone, Default, Debug)]
pub(crate) struct Finding {
    pub(crate) checked: u64,
    pub(crate) violated: u64,
    pub(crate) kept: Vec<Witness>,
}

/// What all of them came to.
#[derive(Clone, Default, Debug)]
pub(crate) struct Findings {
    table: [Finding; Id::ALL.len()],
}

impl Findings {
    /// So many things were looked at.
    #[inline]
    pub(crate) fn checked(&mut self, id: Id, count: u64) {
        self.table[id as usize].checked += count;
    }

    /// A violation, shown by these lines (zeros and repetitions are left out).
    #[cold]
    pub(crate) fn fail(&mut self, id: Id, lines: &[Pos], what: impl FnOnce() -> String) {
        let finding = &mut self.table[id as usize];
        finding.violated += 1;
        let mut at: Vec<Pos> = lines.iter().copied().filter(|line| *line > 0).collect();
        at.sort_unstable();
        at.dedup();
        let size = Witness::size(&at);
        let place = finding
            .kept
            .partition_point(|kept| Witness::size(&kept.at) <= size);
        if place < WITNESSES {
            let witness = Witness {
                what: what(),
                at,
                lines: Vec::new(),
            };
            finding.kept.insert(place, witness);
            finding.kept.truncate(WITNESSES);
        }
    }

    /// What one came to.
    pub(crate) fn of(&self, id: Id) -> &Finding {
        &self.table[id as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_smallest_witnesses_are_kept() {
        let mut findings = Findings::default();
        for (name, lines) in [
            ("wide", &[1, 90][..]),
            ("three", &[1, 2, 3]),
            ("one", &[70]),
            ("near", &[50, 51, 0, 51]),
            ("nearer", &[8, 9]),
        ] {
            findings.fail(Id::S1, lines, || name.to_owned());
        }
        let kept: Vec<_> = findings.of(Id::S1).kept.iter().map(|w| &*w.what).collect();
        assert_eq!(kept, ["one", "nearer", "near"]);
        assert_eq!(findings.of(Id::S1).violated, 5);
        assert_eq!(findings.of(Id::S2).violated, 0);
    }
}
