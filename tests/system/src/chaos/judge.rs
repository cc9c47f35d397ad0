//! The verdict: what the log holds against what was acknowledged. Depends on nothing but the two lists.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::ledger::{Ack, Record};
use crate::cluster::Durability;

/// Problems told one by one; the rest is counted.
const PROBLEMS_MAX: usize = 20;

/// A line of `ionian tail --json`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Line {
    Record { gsn: u64, payload: String },
    Gap { kind: String, from: u64, to: u64 },
}

impl Line {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).with_context(|| text.to_owned())?;
        let number = |name: &str| value[name].as_u64().with_context(|| text.to_owned());
        if let Some(kind) = value["gap"].as_str() {
            return Ok(Self::Gap {
                kind: kind.to_owned(),
                from: number("from")?,
                to: number("to")?,
            });
        }
        match value["payload"].as_str() {
            Some(payload) => Ok(Self::Record {
                gsn: number("gsn")?,
                payload: payload.to_owned(),
            }),
            None => bail!("neither record nor gap: {text}"),
        }
    }
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Found {
    pub(super) kept: u64,
    pub(super) lost: u64,
    pub(super) problems: Vec<String>,
}

/// Judges one log, more than once.
#[derive(Debug)]
pub(super) struct Judge {
    durability: Durability,
}

impl Judge {
    pub(super) const fn new(durability: Durability) -> Self {
        Self { durability }
    }

    /// Compares the log with the acknowledgements taken before it was read. Records of an era before `era` may be lost;
    /// those in `twice` may be there more than once.
    pub(super) fn judge(
        &self,
        lines: &[Line],
        acks: &[Ack],
        era: u32,
        twice: &BTreeSet<Record>,
    ) -> Found {
        let mut found = Found::default();
        let mut problems = Vec::new();
        let mut held: BTreeMap<u64, Record> = BTreeMap::new();
        let mut seen: BTreeSet<Record> = BTreeSet::new();
        let mut newest: BTreeMap<(u32, u32), u64> = BTreeMap::new();
        let mut gaps: Vec<(u64, u64)> = Vec::new();
        let mut next = 0;
        for line in lines {
            let (from, to) = match line {
                Line::Record { gsn, .. } => (*gsn, *gsn + 1),
                Line::Gap { from, to, .. } => (*from, *to),
            };
            if from != next || to <= from {
                problems.push(format!("position {next} was to come, {line:?} came"));
            }
            next = to;
            match line {
                Line::Gap { kind, .. } => {
                    if self.durability == Durability::D1 || kind != "loss" || era == 0 {
                        problems.push(format!("a gap that nothing explains: {line:?}"));
                    }
                    found.lost += to - from;
                    gaps.push((from, to));
                }
                Line::Record { gsn, payload } => {
                    found.kept += 1;
                    let Some(record) = Record::parse(payload) else {
                        problems.push(format!("nobody wrote what is at {gsn}: {payload:?}"));
                        continue;
                    };
                    held.insert(*gsn, record);
                    if !seen.insert(record) && !twice.contains(&record) {
                        problems.push(format!("{record} is there twice, again at {gsn}"));
                    }
                    let newest = newest.entry((record.writer, record.life)).or_insert(0);
                    if record.seq < *newest && !twice.contains(&record) {
                        problems.push(format!("{record} at {gsn} comes after s{newest}"));
                    }
                    *newest = record.seq.max(*newest);
                }
            }
        }
        let mut positions: BTreeMap<u64, Record> = BTreeMap::new();
        for Ack { gsn, record } in acks {
            if let Some(other) = positions.insert(*gsn, *record) {
                problems.push(format!("{record} and {other} were both given {gsn}"));
            }
            let lost = gaps.iter().any(|(from, to)| (*from..*to).contains(gsn));
            match held.get(gsn) {
                Some(there) if there == record => {}
                Some(there) => problems.push(format!("{record} was given {gsn}, where {there} is")),
                None if lost && record.era < era => {}
                None => problems.push(format!("{record} was given {gsn}, where nothing is")),
            }
        }
        let more = problems.len().saturating_sub(PROBLEMS_MAX);
        problems.truncate(PROBLEMS_MAX);
        if more > 0 {
            problems.push(format!("and {more} problems more"));
        }
        found.problems = problems;
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn record(writer: u32, seq: u64, era: u32) -> Record {
        Record {
            writer,
            life: 0,
            seq,
            era,
        }
    }

    fn line(gsn: u64, record: Record) -> Line {
        Line::Record {
            gsn,
            payload: record.to_string(),
        }
    }

    fn loss(from: u64, to: u64) -> Line {
        Line::Gap {
            kind: String::from("loss"),
            from,
            to,
        }
    }

    fn judge(durability: Durability, lines: &[Line], acks: &[(u64, Record)], era: u32) -> Found {
        let acks: Vec<Ack> = acks
            .iter()
            .map(|(gsn, record)| Ack {
                gsn: *gsn,
                record: *record,
            })
            .collect();
        Judge::new(durability).judge(lines, &acks, era, &BTreeSet::new())
    }

    #[test]
    fn a_log_that_holds_what_was_acknowledged_is_in_order() {
        let (a, b, c) = (record(1, 0, 0), record(2, 0, 0), record(1, 1, 0));
        let lines = [line(0, a), line(1, b), line(2, c)];
        let found = judge(Durability::D1, &lines, &[(0, a), (2, c)], 0);
        assert_eq!((found.kept, found.problems), (3, Vec::new()));
    }

    #[test]
    fn whatever_is_wrong_is_told() {
        let (a, b) = (record(1, 0, 0), record(1, 1, 0));
        let wrong = |lines: &[Line], acks: &[(u64, Record)], what: &str| {
            let problems = judge(Durability::D1, lines, acks, 0).problems;
            assert!(
                problems.iter().any(|problem| problem.contains(what)),
                "{what}: {problems:?}"
            );
        };
        wrong(&[line(0, a)], &[(0, a), (1, b)], "where nothing is");
        wrong(&[line(0, a)], &[(0, b)], "where w1 l0 s0 e0 is");
        wrong(&[line(0, a), line(1, a)], &[], "there twice");
        wrong(&[line(0, a), line(2, b)], &[], "position 1 was to come");
        wrong(&[line(0, b), line(1, a)], &[], "comes after s1");
        wrong(&[line(0, a), loss(1, 5)], &[], "nothing explains");
        wrong(&[line(0, a)], &[(0, a), (0, b)], "both given 0");
        let stranger = Line::Record {
            gsn: 0,
            payload: String::from("hello"),
        };
        wrong(&[stranger], &[], "nobody wrote");
    }

    #[test]
    fn in_memory_a_declared_loss_covers_what_came_before_it_and_nothing_else() {
        let (old, new) = (record(1, 0, 0), record(1, 1, 1));
        let lines = [loss(0, 10), line(10, new)];
        let found = judge(Durability::D0, &lines, &[(3, old), (10, new)], 1);
        assert_eq!((found.lost, found.problems), (10, Vec::new()));
        let found = judge(Durability::D0, &lines, &[(3, new)], 1);
        assert!(found.problems[0].contains("where nothing is"));
        let found = judge(Durability::D0, &lines, &[(10, old)], 1);
        assert!(found.problems[0].contains("where w1 l0 s1 e1 is"));
        assert!(!judge(Durability::D0, &lines, &[], 0).problems.is_empty());
    }

    #[test]
    fn lines_of_tail_are_understood() {
        let record = Line::parse(r#"{"gsn":7,"shard":1,"payload":"w1 l0 s0 e0"}"#).unwrap();
        let expected = Line::Record {
            gsn: 7,
            payload: String::from("w1 l0 s0 e0"),
        };
        assert_eq!(record, expected);
        assert_eq!(
            Line::parse(r#"{"gap":"loss","from":0,"to":4}"#).unwrap(),
            loss(0, 4)
        );
        assert!(Line::parse("{}").is_err() && Line::parse("x").is_err());
    }
}
