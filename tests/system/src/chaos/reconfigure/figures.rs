//! What a run measured, with its goals: met or missed, never a failure.

use serde_json::{Value, json};

use crate::chaos::acks::quantile;

/// p99.9 of the shards that a change does not touch, at most so many times that of the span without a change.
const RATIO_GOAL: f64 = 3.0;
/// A dead process is routed around within this, in the median.
const ROUTED_MS_GOAL: f64 = 100.0;
/// Appends resume within this after the decision, in the median.
const RESUMED_MS_GOAL: f64 = 50.0;

/// A planned change, and the latencies of the shards that it does not touch.
#[derive(Clone, Debug)]
pub struct Change {
    /// What was done.
    pub what: String,
    /// The length of each span.
    pub seconds: f64,
    /// Appends of the span without a change, and of the one with it.
    pub appends: [usize; 2],
    /// Their p99.9 in nanoseconds.
    pub p999_ns: [Option<u64>; 2],
}

impl Change {
    pub(super) fn new(
        what: &str,
        span: (u64, u64),
        mut control: Vec<u64>,
        mut change: Vec<u64>,
    ) -> Self {
        Self {
            what: what.to_owned(),
            seconds: (span.1 - span.0) as f64 / 1e9,
            appends: [control.len(), change.len()],
            p999_ns: [quantile(&mut control, 999), quantile(&mut change, 999)],
        }
    }

    /// How many times as long the change made the p99.9; `None` where no shard was left untouched.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        let [control, change] = self.p999_ns;
        Some(change? as f64 / control? as f64)
    }
}

/// A process that was killed. Times in milliseconds after the kill, unless said otherwise.
#[derive(Clone, Debug)]
pub struct Death {
    /// What it was.
    pub what: String,
    /// Its name.
    pub on: String,
    /// When a look at the controllers showed it.
    pub noticed_ms: f64,
    /// When the controllers decided; none where they decided nothing.
    pub decided_ms: Option<f64>,
    /// When that was in the cut log.
    pub routed_ms: Option<f64>,
    /// When every writer that it stopped was acknowledged something again.
    pub resumed_ms: Option<f64>,
    /// The same after the decision, or after it was noticed.
    pub resumed_after_decision_ms: Option<f64>,
    /// The longest time without an acknowledgement.
    pub silence_ms: Option<f64>,
    /// Only another life of the process let appends resume.
    pub by_restart: bool,
}

/// Everything that was measured.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Planned changes.
    pub changes: Vec<Change>,
    /// Deaths of nodes.
    pub deaths: Vec<Death>,
    /// How long the controllers were without a leader after theirs was killed.
    pub raft_leader_ms: Option<f64>,
    /// Decisions that somebody is dead which nothing explains, in the whole run.
    pub false_suspicions: usize,
    /// Those under full load.
    pub suspicions_under_load: usize,
    /// How long there was full load.
    pub load_seconds: u64,
    /// Records a second of the full load.
    pub load_per_s: f64,
}

/// A figure and its goal.
#[derive(Clone, Debug)]
pub struct Goal {
    /// What it is of.
    pub name: &'static str,
    /// What was found; none where it was not measured.
    pub found: Option<f64>,
    /// At most this.
    pub goal: f64,
}

impl Goal {
    /// How it stands.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self.found {
            None => "not measured",
            Some(found) if found <= self.goal => "met",
            Some(_) => "missed",
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied();
    let upper = at(values.len() / 2)?;
    if values.len().is_multiple_of(2) {
        return Some(f64::midpoint(at(values.len() / 2 - 1)?, upper));
    }
    Some(upper)
}

impl Figures {
    /// The goals. A death that only a restart ended counts with the time until then.
    #[must_use]
    pub fn goals(&self) -> Vec<Goal> {
        let worst = self.changes.iter().filter_map(Change::ratio);
        let routed = self.deaths.iter();
        let routed = routed.map(|death| {
            death
                .routed_ms
                .or(death.resumed_ms)
                .unwrap_or(f64::INFINITY)
        });
        let resumed = self.deaths.iter();
        let resumed = resumed.map(|death| death.resumed_after_decision_ms.unwrap_or(f64::INFINITY));
        let suspicions = (self.load_seconds > 0).then_some(self.suspicions_under_load as f64);
        let goal = |name, found, goal| Goal { name, found, goal };
        vec![
            goal(
                "p99.9 of untouched shards, times control, worst change",
                worst.reduce(f64::max),
                RATIO_GOAL,
            ),
            goal(
                "detected and routed around, ms, median",
                median(routed),
                ROUTED_MS_GOAL,
            ),
            goal(
                "appends resumed after the decision, ms, median",
                median(resumed),
                RESUMED_MS_GOAL,
            ),
            goal("false suspicions under full load", suspicions, 0.0),
            goal(
                "false suspicions in the whole run",
                Some(self.false_suspicions as f64),
                0.0,
            ),
        ]
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let ms = |ns: Option<u64>| {
            ns.map_or_else(|| String::from("-"), |ns| format!("{:.1}", ns as f64 / 1e6))
        };
        let show = |ms: Option<f64>| ms.map_or_else(|| String::from("-"), |ms| format!("{ms:.0}"));
        let mut text = String::new();
        if !self.changes.is_empty() {
            text +=
                "p99.9 of the shards that a change does not touch, in ms: without it, with it\n";
        }
        for change in &self.changes {
            let [control, during] = change.p999_ns;
            let ratio = change
                .ratio()
                .map_or_else(|| String::from("-"), |ratio| format!("{ratio:.2}"));
            text += &format!(
                "  {:<32} {:>8} {:>8}  x {ratio:<6} ({:.1} s, {} and {} appends)\n",
                change.what,
                ms(control),
                ms(during),
                change.seconds,
                change.appends[0],
                change.appends[1]
            );
        }
        if !self.deaths.is_empty() {
            text += "deaths, in ms after the kill: noticed, decided, routed around, appends resumed; without acks\n";
        }
        for death in &self.deaths {
            text += &format!(
                "  {:<4} {:<52} {:>6} {:>6} {:>6} {:>6} {:>6}{}\n",
                death.on,
                death.what,
                show(Some(death.noticed_ms)),
                show(death.decided_ms),
                show(death.routed_ms),
                show(death.resumed_ms),
                show(death.silence_ms),
                if death.by_restart {
                    "  by its restart"
                } else {
                    ""
                }
            );
        }
        if let Some(ms) = self.raft_leader_ms {
            text += &format!("another controller led {ms:.0} ms after the leader's death\n");
        }
        if self.load_seconds > 0 {
            text += &format!(
                "full load for {} s, {:.0} records/s\n",
                self.load_seconds, self.load_per_s
            );
        }
        for goal in self.goals() {
            let found = match goal.found {
                Some(found) if found.is_finite() => format!("{found:.2}"),
                Some(_) => String::from("never"),
                None => String::from("-"),
            };
            text += &format!(
                "{}: {found}; goal {}: {}\n",
                goal.name,
                goal.goal,
                goal.word()
            );
        }
        text
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let changes = self.changes.iter().map(|change| {
            json!({
                "what": change.what, "seconds": change.seconds,
                "control": {"appends": change.appends[0], "p999_ns": change.p999_ns[0]},
                "change": {"appends": change.appends[1], "p999_ns": change.p999_ns[1]},
                "ratio": change.ratio(),
            })
        });
        let deaths = self.deaths.iter().map(|death| {
            json!({
                "what": death.what, "on": death.on, "noticed_ms": death.noticed_ms,
                "decided_ms": death.decided_ms, "routed_ms": death.routed_ms,
                "resumed_ms": death.resumed_ms,
                "resumed_after_decision_ms": death.resumed_after_decision_ms,
                "silence_ms": death.silence_ms, "by_restart": death.by_restart,
            })
        });
        let goals = self.goals().into_iter().map(|goal| {
            json!({"name": goal.name, "found": goal.found, "goal": goal.goal, "state": goal.word()})
        });
        json!({
            "changes": changes.collect::<Vec<_>>(),
            "deaths": deaths.collect::<Vec<_>>(),
            "raft_leader_ms": self.raft_leader_ms,
            "load_seconds": self.load_seconds, "load_per_s": self.load_per_s,
            "suspicions_under_load": self.suspicions_under_load,
            "false_suspicions": self.false_suspicions,
            "goals": goals.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn death(decided: Option<f64>, resumed: Option<f64>) -> Death {
        Death {
            what: String::from("the root leader"),
            on: String::from("n1"),
            noticed_ms: 900.0,
            decided_ms: decided,
            routed_ms: decided.map(|ms| ms + 5.0),
            resumed_ms: resumed,
            resumed_after_decision_ms: resumed
                .zip(decided)
                .map(|(resumed, decided)| resumed - decided),
            silence_ms: resumed,
            by_restart: decided.is_none(),
        }
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_two() {
        assert_eq!(median([].into_iter()), None);
        assert_eq!(median([3.0, 1.0, 8.0].into_iter()), Some(3.0));
        assert_eq!(median([3.0, 1.0].into_iter()), Some(2.0));
        assert_eq!(
            median([3.0, f64::INFINITY].into_iter()),
            Some(f64::INFINITY)
        );
    }

    #[test]
    fn goals_are_met_missed_or_not_measured() {
        let mut figures = Figures::default();
        let words = |figures: &Figures| -> Vec<&str> {
            let words = figures.goals();
            words.iter().map(Goal::word).collect()
        };
        assert_eq!(words(&figures)[..4], ["not measured"; 4]);
        figures
            .changes
            .push(Change::new("add", (0, 1), vec![10; 1000], vec![20; 1000]));
        figures.deaths.push(death(Some(60.0), Some(90.0)));
        figures.load_seconds = 600;
        assert_eq!(words(&figures), ["met"; 5]);
        // Two of three are worse than the goal.
        figures.deaths.push(death(None, Some(4000.0)));
        figures.deaths.push(death(None, None));
        figures
            .changes
            .push(Change::new("drain", (0, 1), vec![10; 1000], vec![40; 1000]));
        figures.suspicions_under_load = 1;
        figures.false_suspicions = 1;
        assert_eq!(words(&figures), ["missed"; 5]);
        let text = figures.text();
        assert!(
            text.contains("worst change: 4.00; goal 3: missed"),
            "{text}"
        );
        assert!(text.contains("by its restart"), "{text}");
        assert_eq!(figures.json()["goals"][0]["state"], "missed");
        let nothing_left = Change::new("restart", (0, 1), Vec::new(), Vec::new());
        assert_eq!(nothing_left.ratio(), None);
    }
}
