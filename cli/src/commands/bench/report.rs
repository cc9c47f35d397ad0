//! What a measurement says: figures with their spread, the limits they are compared with, and the goals.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::append::Measured;
use super::clients::histogram;
use super::limits::Pipeline;
use super::usage::Usage;
use crate::table::{Table, count, duration, number};
use crate::version;

/// Everything that stands beside a figure.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setting {
    pub(crate) embedded: bool,
    pub(crate) machine: String,
    pub(crate) backend: String,
    pub(crate) device: String,
    pub(crate) core_plan: String,
    pub(crate) durability: String,
    pub(crate) shards: usize,
    pub(crate) replicas: usize,
    /// The ordering tree in words, and its levels below the root.
    pub(crate) tree: String,
    pub(crate) depth_of_tree: usize,
    pub(crate) root_members: usize,
    /// The largest packet, where one is configured.
    pub(crate) mtu: Option<u32>,
    pub(crate) flushes_of: &'static str,
    pub(crate) record_bytes: usize,
    pub(crate) clients: usize,
    pub(crate) depth: u64,
    pub(crate) spread: bool,
    pub(crate) retention: u64,
}

/// One repetition.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) records: u64,
    pub(crate) elapsed: Duration,
    pub(crate) latency: Histogram<u64>,
    pub(crate) usage: Usage,
}

impl Figures {
    fn rate(&self) -> f64 {
        self.records as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// What the machine alone does, as far as it was measured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) pipeline: Option<Pipeline>,
    pub(crate) device_bytes_per_second: Option<f64>,
    pub(crate) chain_p50_ns: Option<u64>,
    pub(crate) datagram_chain_p50_ns: Option<u64>,
}

/// Median, least and largest.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self {
            median: at(values.len() / 2),
            least: at(0),
            most: at(values.len().saturating_sub(1)),
        }
    }
}

/// One way of appending, over all repetitions.
struct Summary {
    rate: Spread,
    p50_ns: Spread,
    latency: Histogram<u64>,
    usage: Usage,
    records: u64,
    elapsed: Duration,
}

impl Measured {
    /// Of the pipelined repetitions, and of those one at a time.
    fn summaries(&self) -> (Summary, Summary) {
        (Summary::of(&self.pipelined), Summary::of(&self.single))
    }
}

impl Summary {
    fn of(repetitions: &[Figures]) -> Self {
        let mut summary = Self {
            rate: Spread::of(repetitions.iter().map(Figures::rate)),
            p50_ns: Spread::of(
                repetitions
                    .iter()
                    .map(|one| one.latency.value_at_quantile(0.5) as f64),
            ),
            latency: histogram(),
            usage: Usage::default(),
            records: 0,
            elapsed: Duration::ZERO,
        };
        for one in repetitions {
            // All histograms here are made alike.
            let _ = summary.latency.add(&one.latency);
            summary.usage.add(&one.usage);
            summary.records += one.records;
            summary.elapsed += one.elapsed;
        }
        summary
    }

    fn per_record(&self, count: u64) -> f64 {
        count as f64 / self.records.max(1) as f64
    }

    fn cpu_ns(&self) -> f64 {
        self.per_record(self.usage.cpu.as_nanos() as u64)
    }

    fn device_bytes_per_second(&self) -> f64 {
        self.usage.written_bytes as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    fn json(&self) -> Value {
        let ns = |quantile| self.latency.value_at_quantile(quantile);
        let spread = |spread: Spread| json!({"median": spread.median, "min": spread.least, "max": spread.most});
        json!({
            "records": self.records, "seconds": self.elapsed.as_secs_f64(), "records_per_second": spread(self.rate),
            "p50_of_repetitions_ns": spread(self.p50_ns), "p50_ns": ns(0.5), "p99_ns": ns(0.99), "p999_ns": ns(0.999),
            "max_ns": self.latency.max(), "cpu_ns_per_record": self.cpu_ns(),
            "flushes_per_record": self.per_record(self.usage.flushes),
            "writes_per_record": self.per_record(self.usage.writes),
            "device_bytes_per_second": self.device_bytes_per_second(),
        })
    }
}

/// Where a goal lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sense {
    AtLeast,
    AtMost,
}

/// A goal of the project, for the setting it is stated for.
#[derive(Clone, PartialEq, Debug)]
struct Goal {
    name: &'static str,
    goal: f64,
    value: f64,
    sense: Sense,
}

impl Goal {
    fn met(&self) -> bool {
        match self.sense {
            Sense::AtLeast => self.value >= self.goal,
            Sense::AtMost => self.value <= self.goal,
        }
    }
}

/// Everything that was found.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) setting: Setting,
    pub(crate) measured: Measured,
    /// The same with one leaf and one root, if that was asked for.
    pub(crate) plain: Option<Measured>,
    pub(crate) limits: Limits,
}

impl Report {
    fn goals(&self, pipelined: &Summary, single: &Summary) -> Vec<Goal> {
        let (setting, limits) = (&self.setting, &self.limits);
        let goal = |name, goal, value, sense| Goal {
            name,
            goal,
            value,
            sense,
        };
        let (rate, p50_us) = (pipelined.rate.median, single.p50_ns.median / 1e3);
        use Sense::{AtLeast, AtMost};
        if let Some(ratio) = self.p50_ratio() {
            let stated = setting.durability == "D0" && setting.root_members > 1;
            return if stated && setting.depth_of_tree == 2 {
                let name = "embedded D0, a tree of two levels and a replicated root: closed-loop p50, of the same with one leaf and one root";
                vec![goal(name, 2.0, ratio, AtMost)]
            } else {
                Vec::new()
            };
        }
        match (
            setting.embedded,
            setting.durability.as_str(),
            setting.record_bytes,
            setting.replicas,
        ) {
            (true, "D0", 128, 2) => vec![
                goal(
                    "embedded D0, 128 B, two copies: appends per second, pipelined",
                    3e6,
                    rate,
                    AtLeast,
                ),
                goal(
                    "embedded D0, 128 B, two copies: closed-loop p50 in us",
                    3.0,
                    p50_us,
                    AtMost,
                ),
            ],
            (false, "D0", 512, 2) => {
                let ethernet = setting.mtu.is_some_and(|mtu| mtu <= 1500);
                let least = if ethernet { 120_000.0 } else { 1e6 };
                vec![
                    goal(
                        "processes over UDP, two copies, 512 B: appends per second, pipelined",
                        least,
                        rate,
                        AtLeast,
                    ),
                    goal(
                        "processes over UDP, two copies, 512 B: closed-loop p50 in us",
                        30.0,
                        p50_us,
                        AtMost,
                    ),
                ]
            }
            (_, "D1", ..) => {
                let mut goals = Vec::new();
                if let Some(bare) = limits.device_bytes_per_second {
                    let ratio = pipelined.device_bytes_per_second() / bare;
                    goals.push(goal(
                        "D1: device bytes per second, of the bare loop's",
                        0.8,
                        ratio,
                        AtLeast,
                    ));
                }
                if setting.record_bytes == 512 && setting.replicas == 2 {
                    goals.push(goal(
                        "D1, 512 B, two copies: appends per second, pipelined",
                        2e5,
                        rate,
                        AtLeast,
                    ));
                }
                if let Some(bare) = limits.chain_p50_ns {
                    let ratio = single.p50_ns.median / bare as f64;
                    goals.push(goal(
                        "D1: closed-loop p50, of the bare chain's",
                        1.3,
                        ratio,
                        AtMost,
                    ));
                }
                goals
            }
            _ => Vec::new(),
        }
    }

    /// What an append one at a time takes, of what it takes with one leaf and one root.
    fn p50_ratio(&self) -> Option<f64> {
        let single = |measured: &Measured| Summary::of(&measured.single).p50_ns.median;
        let plain = self.plain.as_ref()?;
        Some(single(&self.measured) / single(plain))
    }

    pub(crate) fn json(&self) -> Value {
        let Self {
            setting,
            measured,
            plain,
            limits,
        } = self;
        let (pipelined, single) = measured.summaries();
        let goals = self.goals(&pipelined, &single);
        let goals = goals.iter().map(|goal| json!({"name": goal.name, "goal": goal.goal, "value": goal.value, "met": goal.met()}));
        let pipeline = limits.pipeline;
        json!({
            "version": version::SHORT, "commit": version::COMMIT, "machine": setting.machine,
            "embedded": setting.embedded, "backend": setting.backend, "device": setting.device,
            "core_plan": setting.core_plan, "durability": setting.durability, "shards": setting.shards,
            "replicas": setting.replicas, "tree": setting.tree, "tree_depth": setting.depth_of_tree,
            "root_members": setting.root_members, "mtu": setting.mtu, "record_bytes": setting.record_bytes,
            "clients": setting.clients, "depth": setting.depth, "spread": setting.spread,
            "retention": setting.retention, "repetitions": measured.pipelined.len(),
            "one_leaf_and_root": plain.as_ref().map(|plain| {
                let (pipelined, single) = plain.summaries();
                json!({
                    "pipelined": pipelined.json(), "one_at_a_time": single.json(), "read_back": plain.audited,
                    "p50_ratio": self.p50_ratio(),
                })
            }),
            "pipelined": pipelined.json(), "one_at_a_time": single.json(), "flushes_of": setting.flushes_of,
            "read_back": {"records": measured.audited, "as_acknowledged": true},
            "bare": {
                "pipeline_records_per_second": pipeline.map(|bare| bare.records_per_second),
                "pipeline_p50_ns": pipeline.map(|bare| bare.p50_ns),
                "device_bytes_per_second": limits.device_bytes_per_second,
                "durable_chain_p50_ns": limits.chain_p50_ns,
                "datagram_chain_p50_ns": limits.datagram_chain_p50_ns,
            },
            "goals": goals.collect::<Vec<_>>(),
        })
    }

    pub(crate) fn text(&self) -> String {
        let Self {
            setting,
            measured,
            plain,
            limits,
        } = self;
        let (pipelined, single) = measured.summaries();
        let mut about = Table::new();
        let mut row = |what: &str, value: String| about.row(&[what, &value]);
        row("machine", setting.machine.clone());
        row("backend", setting.backend.clone());
        row("device", setting.device.clone());
        row("core plan", setting.core_plan.clone());
        row(
            "durability",
            format!(
                "{}, {} shards with {} replicas each",
                setting.durability, setting.shards, setting.replicas
            ),
        );
        let members = count(setting.root_members as u64, "member", "members");
        row(
            "ordered by",
            format!("{} below a root of {members}", setting.tree),
        );
        let spread = if setting.spread {
            ", spread over all servers"
        } else {
            ", one server"
        };
        row(
            "records",
            format!(
                "{} bytes, {} client(s), {} under way each{spread}",
                setting.record_bytes,
                setting.clients,
                number(setting.depth)
            ),
        );
        row(
            "rounds",
            format!(
                "at most {} records, then read back and trimmed, which is not timed",
                number(setting.retention)
            ),
        );

        let mut figures = Table::headed(&[
            "",
            "appends/s",
            "least .. most",
            "p50",
            "p99",
            "p99.9",
            "CPU/record",
            "flushes/record",
        ]);
        let plain = plain.as_ref().map(|plain| (plain, plain.summaries()));
        let mut summaries = vec![("pipelined", &pipelined), ("one at a time", &single)];
        if let Some((_, (pipelined, single))) = &plain {
            summaries.push(("one leaf, one root: pipelined", pipelined));
            summaries.push(("one leaf, one root: one at a time", single));
        }
        for (name, summary) in summaries {
            let [p50, p99, p999] = [0.5, 0.99, 0.999]
                .map(|q| duration(Duration::from_nanos(summary.latency.value_at_quantile(q))));
            let rate = |rate: f64| number(rate as u64);
            let range = format!(
                "{} .. {}",
                rate(summary.rate.least),
                rate(summary.rate.most)
            );
            let cpu = duration(Duration::from_nanos(summary.cpu_ns() as u64));
            let flushes = format!("{:.4}", summary.per_record(summary.usage.flushes));
            figures.row(&[
                String::from(name),
                rate(summary.rate.median),
                range,
                p50,
                p99,
                p999,
                cpu,
                flushes,
            ]);
        }

        let mut beside = Table::new();
        let mut row = |what: &str, value: String| beside.row(&[what, &value]);
        row(
            "repetitions",
            format!(
                "{}, medians of them; flushes are those of {}",
                measured.pipelined.len(),
                setting.flushes_of
            ),
        );
        let nanos = |ns: u64| duration(Duration::from_nanos(ns));
        if let Some(bare) = limits.pipeline {
            let (rate, p50) = (
                pipelined.rate.median / bare.records_per_second,
                single.p50_ns.median / bare.p50_ns as f64,
            );
            row(
                "bare pipeline",
                format!(
                    "{} records/s, p50 {}: the same copies and checksums over the same rings; ratios {rate:.2} and {p50:.1}",
                    number(bare.records_per_second as u64),
                    nanos(bare.p50_ns),
                ),
            );
        }
        if let Some(bare) = limits.device_bytes_per_second {
            let ours = pipelined.device_bytes_per_second();
            row(
                "bare device loop",
                format!(
                    "{:.0} MB/s for the same operations; the log wrote {:.0} MB/s; ratio {:.2}",
                    bare / 1e6,
                    ours / 1e6,
                    ours / bare
                ),
            );
        }
        if let Some(bare) = limits.chain_p50_ns {
            row(
                "bare durable chain",
                format!(
                    "p50 {}: copies written and flushed in parallel, then the cut; ratio {:.2}",
                    nanos(bare),
                    single.p50_ns.median / bare as f64
                ),
            );
        }
        if let Some(bare) = limits.datagram_chain_p50_ns {
            row(
                "bare datagram chain",
                format!(
                    "p50 {}: four datagrams over loopback in a row; ratio {:.2}",
                    nanos(bare),
                    single.p50_ns.median / bare as f64
                ),
            );
        }
        if let (Some((_, (other, _))), Some(ratio)) = (&plain, self.p50_ratio()) {
            let rate = pipelined.rate.median / other.rate.median;
            row(
                "of one leaf, one root",
                format!(
                    "p50 of one at a time {ratio:.2}, appends per second {rate:.2}; measured by turns"
                ),
            );
        }
        row(
            "read back",
            format!(
                "{} records by a subscriber: each one acknowledged, once, at its position, in order",
                number(measured.audited + plain.map_or(0, |(plain, _)| plain.audited))
            ),
        );
        for goal in self.goals(&pipelined, &single) {
            let sense = if goal.sense == Sense::AtLeast {
                "at least"
            } else {
                "at most"
            };
            let met = if goal.met() { "met" } else { "NOT met" };
            row(
                "goal",
                format!(
                    "{}: {:.2}, {sense} {}: {met}",
                    goal.name, goal.value, goal.goal
                ),
            );
        }
        format!(
            "{}\n{}\n{}",
            about.render(),
            figures.render(),
            beside.render()
        )
    }
}

#[cfg(test)]
mod tests;
