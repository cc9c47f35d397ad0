//! What the controllers said of views and changes, by whoever led: it must never become another thing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::governed::{Governed, Who};

/// Views and changes, as they were told.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// By its number, what made a view.
    views: BTreeMap<u64, BTreeSet<String>>,
    /// Transactions that operators were told are done.
    done: BTreeSet<u64>,
    /// Controllers that led when they were asked.
    pub(super) leaders: BTreeSet<Who>,
    /// How long each refusal for want of a majority took.
    pub(super) refusals: Vec<Duration>,
    /// What contradicts what was told before.
    pub(super) contradictions: Vec<String>,
}

impl Record {
    /// Views that were told.
    pub(super) fn views(&self) -> usize {
        self.views.len()
    }

    /// Transactions that were told to be done.
    pub(super) fn changes(&self) -> usize {
        self.done.len()
    }

    /// An operator was answered that a change is done.
    pub(super) fn answered(&mut self, answer: &Value) {
        if answer["state"] == "done" {
            self.done
                .extend(answer["transaction"].as_u64().filter(|id| *id > 0));
        }
    }

    /// Asks whoever leads for all views of a log and all changes, and compares.
    ///
    /// # Errors
    /// When nobody answers.
    pub(super) fn compare(&mut self, cluster: &Governed, log: &str) -> Result<()> {
        let leader = cluster.leader()?;
        let history = cluster.json(&["view", "history", log])?;
        let changes = cluster.json(&["transaction", "list"])?;
        // Who answered is known if nobody else leads now.
        if let Some(who) = leader.filter(|who| cluster.leader().ok().flatten() == Some(*who)) {
            self.leaders.insert(who);
        }
        let by = leader.map_or_else(|| String::from("a controller"), Who::name);
        self.take_views(&by, history["events"].as_array().context("no events")?);
        self.take_changes(&by, changes["transactions"].as_array().context("no list")?);
        Ok(())
    }

    fn take_views(&mut self, by: &str, events: &[Value]) {
        let mut now: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
        for event in events {
            let what = event["what"].as_str().unwrap_or_default();
            // That a view is logged, or a report of it set aside, does not make it.
            let makes = !what.contains("is logged") && !what.contains("ignore");
            if let Some(view) = event["view"].as_u64().filter(|_| makes) {
                now.entry(view).or_default().insert(what.to_owned());
            }
        }
        // The oldest events are dropped in the end, those of one view maybe in part.
        let oldest = now.keys().next().copied().unwrap_or(0);
        for (view, what) in &self.views {
            match now.get(view) {
                Some(other) if other == what => {}
                _ if *view <= oldest && oldest > 1 => {}
                Some(other) => self.contradictions.push(format!(
                    "view {view} was {what:?} and is {other:?} by the word of {by}"
                )),
                None => self.contradictions.push(format!(
                    "view {view} ({what:?}) is lost by the word of {by}"
                )),
            }
        }
        let newest = now.keys().next_back().copied().unwrap_or(0);
        for view in oldest..=newest {
            if !now.contains_key(&view) && newest > 0 {
                self.contradictions
                    .push(format!("no view has the number {view} by the word of {by}"));
            }
        }
        for (view, what) in now {
            self.views.entry(view).or_insert(what);
        }
    }

    fn take_changes(&mut self, by: &str, changes: &[Value]) {
        let state = |id: u64| {
            let found = changes.iter().find(|one| one["transaction"] == id);
            found.map(|one| one["state"].as_str().unwrap_or_default().to_owned())
        };
        // Of those that have ended, the last are kept.
        let first = changes.iter().filter_map(|one| one["transaction"].as_u64());
        let first = first.min().unwrap_or(0);
        for id in self.done.iter().filter(|id| **id >= first) {
            if state(*id).as_deref() != Some("done") {
                self.contradictions.push(format!(
                    "transaction {id} was done, and is {:?} by the word of {by}",
                    state(*id)
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(view: u64, what: &str) -> Value {
        json!({"view": view, "what": what})
    }

    #[test]
    fn views_that_change_vanish_or_skip_a_number_are_told() {
        let mut record = Record::default();
        let first = [
            event(1, "open 0"),
            event(1, "view 1 is logged"),
            event(2, "open 1"),
        ];
        record.take_views("c1", &first);
        record.take_views("c2", &[&first[..], &[event(3, "finalize 1")]].concat());
        assert_eq!((record.views(), record.contradictions.len()), (3, 0));
        record.take_views("c3", &first);
        assert!(record.contradictions[0].contains("view 3"), "{record:?}");
        record.take_views(
            "c3",
            &[
                event(1, "open 0"),
                event(2, "open 7"),
                event(3, "finalize 1"),
            ],
        );
        assert!(
            record.contradictions[1].starts_with("view 2 was"),
            "{record:?}"
        );
        record.contradictions.clear();
        record.take_views("c1", &[event(1, "open 0"), event(3, "finalize 1")]);
        assert_eq!(record.contradictions.len(), 2, "{record:?}");
        // The beginning was dropped.
        record.contradictions.clear();
        record.take_views("c1", &[event(3, "finalize 1"), event(4, "open 2")]);
        assert_eq!(record.contradictions, [""; 0]);
    }

    #[test]
    fn changes_that_were_done_stay_done() {
        let mut record = Record::default();
        record.answered(&json!({"transaction": 4, "state": "done"}));
        record.answered(&json!({"transaction": 5, "state": "running"}));
        record.answered(&json!({"transaction": 0, "state": "done"}));
        assert_eq!(record.changes(), 1);
        record.take_changes("c1", &[json!({"transaction": 4, "state": "done"})]);
        assert_eq!(record.contradictions, [""; 0]);
        record.take_changes("c2", &[json!({"transaction": 3, "state": "done"})]);
        assert!(
            record.contradictions[0].contains("transaction 4"),
            "{record:?}"
        );
    }
}
