//! What a run says: a table for people, JSON for programs, lines of CSV, a plot of ages.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use ionian_bench_cuts::plot::{Plot, Series};
use ionian_bench_cuts::{Outcome, Side, Spread, Window};
use serde_json::{Value, json};

use super::goals::{self, Goal};
use crate::commands::bench::embedded::processor;
use crate::table::{Table, count, duration, number};
use crate::version;

/// The figures of one run.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) outcome: Outcome,
    pub(super) goals: Vec<Goal>,
}

const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)];

/// Medians of the measurements' quantiles; null where nobody reads.
fn ages_us(outcome: &Outcome, of: fn(&Window) -> &Histogram<u64>) -> Value {
    let us = |(name, quantile): (&str, f64)| {
        let age = outcome.age_us(of, quantile).median;
        (String::from(name), json!(age))
    };
    Value::Object(QUANTILES.map(us).into_iter().collect())
}

impl Figures {
    pub(super) fn new(outcome: Outcome) -> Self {
        let goals = goals::of(&outcome);
        Self { outcome, goals }
    }

    /// Time of the tree per report that it merged, in nanoseconds.
    pub(super) fn tree_ns(&self) -> f64 {
        self.outcome.spread(|it| it.tree.ns_per_report).median
    }

    pub(super) fn json(&self) -> Value {
        let (outcome, setting) = (&self.outcome, &self.outcome.setting);
        let spread = |of: fn(&Window) -> f64| outcome.spread(of);
        let median = |of: fn(&Window) -> f64| spread(of).median;
        let range = |it: Spread| json!({"median": it.median, "min": it.least, "max": it.most});
        let side = |of: fn(&Window) -> Side| {
            let over = |what: fn(&Side) -> f64| outcome.spread(|it| what(&of(it))).median;
            json!({"cpu_share": over(|it| it.cpu_share), "busy_share": over(|it| it.busy_share)})
        };
        let audit = &outcome.audit;
        let about = json!({
            "version": version::SHORT, "commit": version::COMMIT, "machine": processor(),
            "transport": setting.transport.to_string(), "durability": setting.class.to_string(), "device": outcome.device,
            "core_plan": outcome.core_plan, "shards": setting.shards, "replicas": setting.replicas,
            "servers": outcome.servers, "readers": outcome.readers, "fan_in": setting.fan_in, "depth": setting.depth,
            "vertices": outcome.vertices, "report_rate": setting.report_rate,
            "interval_us": setting.interval.as_micros() as u64, "repetitions": outcome.windows.len(),
            "root_backups": setting.root_backups, "per_shard_rate": setting.shard_rate,
            "records_per_report": outcome.records_per_report,
        });
        let found = json!({
            "reports_merged_per_s": median(|it| it.merged_per_s),
            "reports_written_per_s": median(|it| it.written_per_s),
            "reports_overwritten_per_s": median(|it| it.overwritten_per_s),
            "reports_late_per_s": median(|it| it.late_per_s),
            "cuts_per_s": median(|it| it.cuts_per_s),
            "age_root_us": ages_us(outcome, |it| &it.age_root), "age_reporter_us": ages_us(outcome, |it| &it.age_reporter),
            "up_bytes_per_s": median(|it| it.up_bytes_per_s),
            "root_group_bytes_per_s": median(|it| it.group_bytes_per_s),
            "down_bytes_per_server_per_cut": median(Window::down_bytes_per_server_per_cut),
            "down_frames_per_s": median(|it| it.down_frames as f64 / it.seconds),
            "cut_log_bytes_per_segment": median(Window::cut_log_bytes_per_segment),
            "cut_log_bytes": median(|it| it.cut_log_bytes as f64),
            "cpu_ns_per_report": {
                "tree": median(|it| it.tree.ns_per_report), "servers": median(|it| it.servers.ns_per_report),
            },
            "cpu": {"tree": side(|it| it.tree), "servers": side(|it| it.servers)},
            "ordering_capacity_per_s": median(|it| it.ordered_per_s),
            "bare_scan_per_s": outcome.bare_scan_per_s,
            "ratio_to_table_scan": outcome.ratio_to_table_scan(),
        });
        let account = json!({
            "spread": {
                "reports_merged_per_s": range(spread(|it| it.merged_per_s)),
                "cuts_per_s": range(spread(|it| it.cuts_per_s)),
                "ordering_capacity_per_s": range(spread(|it| it.ordered_per_s)),
                "age_root_p99_us": range(outcome.age_us(|it| &it.age_root, 0.99)),
                "age_reporter_p99_us": range(outcome.age_us(|it| &it.age_reporter, 0.99)),
            },
            "account": {
                "written": audit.written, "read": audit.read, "reflected": audit.reflected,
                "overwritten": audit.overwritten, "records": audit.records, "ordered": audit.ordered,
                "whole": audit.is_whole(), "refused_datagrams": audit.refused_datagrams, "lost_frames": audit.lost_frames,
            },
            "goals": self.goals.iter().map(Goal::json).collect::<Vec<_>>(),
        });
        let parts = [about, found, account].into_iter();
        let parts = parts.filter_map(|part| part.as_object().cloned());
        Value::Object(parts.flatten().collect())
    }

    pub(super) fn json_text(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(&self.json())? + "\n")
    }

    pub(super) fn text(&self) -> String {
        type Of = fn(&Window) -> f64;
        type Show = fn(f64) -> String;
        let (outcome, setting) = (&self.outcome, &self.outcome.setting);
        let mut about = Table::new();
        let mut row = |what: &str, value: String| about.row(&[what, &value]);
        row("machine", processor());
        row(
            "backend",
            format!("{}, cut log in {}", setting.transport, outcome.device),
        );
        row("core plan", outcome.core_plan.clone());
        row("durability", format!("{} (the cut log's)", setting.class));
        row(
            "tree",
            format!(
                "depth {}, fan-in {}: {}; root with {}",
                setting.depth,
                setting.fan_in,
                count(outcome.vertices as u64, "vertex", "vertices"),
                count(setting.root_backups as u64, "backup", "backups")
            ),
        );
        let rate = match setting.report_rate {
            0 => String::from("as fast as one core can"),
            rate => format!("{} reports/s each", number(rate)),
        };
        row(
            "servers",
            format!(
                "{} ({} shards x {}), {rate}, {} of them read",
                number(outcome.servers as u64),
                number(setting.shards as u64),
                setting.replicas,
                number(outcome.readers as u64)
            ),
        );
        let mut figures = Table::headed(&["", "median", "least .. most"]);
        let mut add = |what: &str, spread: Spread, show: Show| {
            let range = format!("{} .. {}", show(spread.least), show(spread.most));
            figures.row(&[String::from(what), show(spread.median), range]);
        };
        let whole = |value: f64| number(value as u64);
        // Of a measurement without a cut there are no ages.
        let us = |value: f64| match value.is_nan() {
            true => String::from("-"),
            false => duration(Duration::from_nanos((value * 1e3) as u64)),
        };
        let part = |value: f64| format!("{value:.2}");
        let rates: [(&str, Of); 6] = [
            ("distinct reports merged/s", |it| it.merged_per_s),
            ("reports written/s", |it| it.written_per_s),
            ("  overwritten unread/s", |it| it.overwritten_per_s),
            ("  left out, servers too late/s", |it| it.late_per_s),
            ("cuts committed/s", |it| it.cuts_per_s),
            ("records ordered/s", |it| it.ordered_per_s),
        ];
        for (what, of) in rates {
            add(what, outcome.spread(of), whole);
        }
        for (name, quantile) in QUANTILES {
            let what = format!("age at the root, {name}");
            add(&what, outcome.age_us(|it| &it.age_root, quantile), us);
            let what = format!("age at the servers, {name}");
            if outcome.readers > 0 {
                add(&what, outcome.age_us(|it| &it.age_reporter, quantile), us);
            }
        }
        let more: [(&str, Of, Show); 9] = [
            ("bytes up/s, all levels", |it| it.up_bytes_per_s, whole),
            (
                "bytes in the root group/s",
                |it| it.group_bytes_per_s,
                whole,
            ),
            (
                "bytes down per server and cut",
                Window::down_bytes_per_server_per_cut,
                part,
            ),
            (
                "cut log, bytes per segment that grew",
                Window::cut_log_bytes_per_segment,
                part,
            ),
            (
                "cut log in memory, bytes",
                |it| it.cut_log_bytes as f64,
                whole,
            ),
            (
                "tree: ns per report merged",
                |it| it.tree.ns_per_report,
                part,
            ),
            ("  busy, of one core", |it| it.tree.busy_share, part),
            (
                "servers: ns per report written",
                |it| it.servers.ns_per_report,
                part,
            ),
            ("  busy, of one core", |it| it.servers.busy_share, part),
        ];
        for (what, of, show) in more {
            add(what, outcome.spread(of), show);
        }
        let mut text = about.render();
        text.push('\n');
        text.push_str(&figures.render());
        let _ = writeln!(
            text,
            "\nbare scan of the same slots: {} reports/s; merged, of that: {:.2}",
            number(outcome.bare_scan_per_s as u64),
            outcome.ratio_to_table_scan()
        );
        let audit = &outcome.audit;
        let _ = writeln!(
            text,
            "account: {} reports written = {} read + {} overwritten{}; {} records reported = ordered",
            number(audit.written),
            number(audit.read),
            number(audit.overwritten),
            if audit.is_whole() {
                ""
            } else {
                " + lost on the way"
            },
            number(audit.records)
        );
        for goal in &self.goals {
            let _ = writeln!(text, "{}", goal.text());
        }
        text
    }

    /// Ages by quantile.
    pub(super) fn plot(&self) -> Plot {
        let curve = |name: &str, ages: &Histogram<u64>| {
            let points = (1..200).map(|at| {
                let quantile = f64::from(at) / 200.0;
                (
                    ages.value_at_quantile(quantile) as f64 / 1e3,
                    quantile * 100.0,
                )
            });
            let last = [0.999].map(|at| (ages.value_at_quantile(at) as f64 / 1e3, at * 100.0));
            let mut points: Vec<(f64, f64)> = points.step_by(10).chain(last).collect();
            if ages.is_empty() {
                points.clear();
            }
            Series {
                name: String::from(name),
                points,
            }
        };
        let setting = &self.outcome.setting;
        Plot {
            title: format!(
                "Age of reports: {} servers, {} cuts/s, depth {}, {} backups",
                self.outcome.servers,
                number(self.outcome.spread(|it| it.cuts_per_s).median as u64),
                setting.depth,
                setting.root_backups
            ),
            x: String::from("age in microseconds"),
            y: String::from("percent of reports that are no older"),
            series: vec![
                curve("at the root", &self.outcome.ages(|it| &it.age_root)),
                curve("at the servers", &self.outcome.ages(|it| &it.age_reporter)),
            ],
        }
    }
}

/// A line per measurement.
pub(super) fn csv(runs: &[Figures]) -> String {
    let mut out = String::from(
        "shards,replicas,servers,fan_in,depth,report_rate,interval_us,transport,root_backups,durability,repetition,\
         reports_merged_per_s,reports_overwritten_per_s,cuts_per_s,ordering_capacity_per_s,\
         age_root_p50_us,age_root_p99_us,age_root_p999_us,age_reporter_p50_us,age_reporter_p99_us,age_reporter_p999_us,\
         up_bytes_per_s,down_bytes_per_server_per_cut,cut_log_bytes_per_segment,tree_ns_per_report,servers_ns_per_report,\
         tree_busy,servers_busy\n",
    );
    for run in runs {
        let (outcome, setting) = (&run.outcome, &run.outcome.setting);
        for (at, window) in outcome.windows.iter().enumerate() {
            let mut cells: Vec<String> = [
                setting.shards,
                setting.replicas,
                outcome.servers,
                setting.fan_in,
                setting.depth,
            ]
            .iter()
            .map(ToString::to_string)
            .collect();
            cells.push(setting.report_rate.to_string());
            cells.push(setting.interval.as_micros().to_string());
            cells.push(setting.transport.to_string());
            cells.push(setting.root_backups.to_string());
            cells.push(setting.class.to_string());
            cells.push((at + 1).to_string());
            let rates = [
                window.merged_per_s,
                window.overwritten_per_s,
                window.cuts_per_s,
                window.ordered_per_s,
            ];
            cells.extend(rates.map(|it| format!("{it:.0}")));
            for ages in [&window.age_root, &window.age_reporter] {
                let us = |(_, quantile)| ages.value_at_quantile(quantile) as f64 / 1e3;
                cells.extend(QUANTILES.map(us).map(|it| format!("{it:.3}")));
            }
            cells.push(format!("{:.0}", window.up_bytes_per_s));
            let parts = [
                window.down_bytes_per_server_per_cut(),
                window.cut_log_bytes_per_segment(),
                window.tree.ns_per_report,
                window.servers.ns_per_report,
                window.tree.busy_share,
                window.servers.busy_share,
            ];
            cells.extend(parts.map(|it| format!("{it:.3}")));
            out.push_str(&cells.join(","));
            out.push('\n');
        }
    }
    out
}
