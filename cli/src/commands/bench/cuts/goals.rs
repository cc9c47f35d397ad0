//! The goals of the ordering tree, each for the setting that it is stated for.

use ionian_bench_cuts::Outcome;
use serde_json::{Value, json};

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sense {
    AtLeast,
    Below,
}

/// A goal, with what was found.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Goal {
    pub(super) name: String,
    pub(super) goal: f64,
    pub(super) value: f64,
    pub(super) sense: Sense,
}

impl Goal {
    pub(super) fn new(name: &str, goal: f64, value: f64, sense: Sense) -> Self {
        Self {
            name: String::from(name),
            goal,
            value,
            sense,
        }
    }

    pub(super) fn met(&self) -> bool {
        match self.sense {
            Sense::AtLeast => self.value >= self.goal,
            Sense::Below => self.value < self.goal,
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({"name": self.name, "goal": self.goal, "value": self.value, "met": self.met()})
    }

    pub(super) fn text(&self) -> String {
        let than = match self.sense {
            Sense::AtLeast => "at least",
            Sense::Below => "below",
        };
        let verdict = if self.met() { "met" } else { "MISSED" };
        let (value, goal) = (shown(self.value), shown(self.goal));
        format!("{verdict}: {}: {value}, goal {than} {goal}", self.name)
    }
}

/// A number without digits that say nothing.
fn shown(value: f64) -> String {
    if value >= 1_000.0 {
        crate::table::number(value as u64)
    } else {
        let text = format!("{value:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// Reports that are offered and merged in full differ by what is under way at the ends of a measurement.
const WHOLE: f64 = 0.999;

/// The goals that are stated for the setting of a run, by the medians of its measurements.
pub(super) fn of(outcome: &Outcome) -> Vec<Goal> {
    let setting = &outcome.setting;
    let median = |of: fn(&ionian_bench_cuts::Window) -> f64| outcome.spread(of).median;
    let mut goals = Vec::new();
    let replicated = setting.depth >= 2 && setting.root_backups >= 2;
    if outcome.servers >= 7_000 && setting.report_rate >= 10_000 && replicated {
        let age = outcome.age_us(|it| &it.age_root, 0.99).median;
        goals.push(Goal::new(
            "A, tree capacity: distinct reports merged per second",
            70e6 * WHOLE,
            median(|it| it.merged_per_s),
            Sense::AtLeast,
        ));
        goals.push(Goal::new(
            "A, tree capacity: committed cuts per second",
            20_000.0,
            median(|it| it.cuts_per_s),
            Sense::AtLeast,
        ));
        goals.push(Goal::new(
            "A, tree capacity: age at the root, p99 in us",
            100.0,
            age,
            Sense::Below,
        ));
    }
    if outcome.readers == outcome.servers && setting.report_rate >= 10_000 {
        let name = format!(
            "B, end to end: age seen by all {} servers, p99 in us",
            outcome.servers
        );
        let age = outcome.age_us(|it| &it.age_reporter, 0.99).median;
        goals.push(Goal::new(&name, 200.0, age, Sense::Below));
    }
    if setting.shards >= 7_000 && setting.shard_rate >= 150_000 {
        goals.push(Goal::new(
            "ordering capacity: records ordered per second, 20 times 52 M",
            20.0 * 52e6,
            median(|it| it.ordered_per_s),
            Sense::AtLeast,
        ));
    }
    goals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_say_whether_they_are_met() {
        let goal = Goal::new("cuts per second", 20_000.0, 19_999.5, Sense::AtLeast);
        assert!(!goal.met());
        assert_eq!(
            goal.text(),
            "MISSED: cuts per second: 19,999, goal at least 20,000"
        );
        let goal = Goal::new("p99 in us", 100.0, 99.5, Sense::Below);
        assert!(goal.met());
        assert_eq!(goal.text(), "met: p99 in us: 99.5, goal below 100");
    }
}
