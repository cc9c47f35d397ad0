//! Every combination of shards and fan-in, one run each: CSV and a plot, and whether a report costs the same in a small tree and in a
//! large one.

use std::collections::BTreeSet;

use hdrhistogram::Histogram;
use ionian_bench_cuts::Window;
use ionian_bench_cuts::plot::{self, Plot, Series};

use super::figures::{Figures, csv};
use super::goals::{Goal, Sense};
use super::{Args, Form, LoadArgs, one, write};
use crate::exit::{Exit, UsageError};
use crate::table::{Table, number};

pub(super) fn run(args: &Args, form: Option<Form>) -> anyhow::Result<Exit> {
    if form == Some(Form::Json) {
        let text =
            "--sweep writes CSV and a plot: give --out FILE.csv, or --json for standard output";
        return Err(UsageError(String::from(text)).into());
    }
    let mut runs = Vec::new();
    let mut left_out = Vec::new();
    for fan_in in &args.sweep_fan_in {
        for shards in &args.sweep_shards {
            let load = LoadArgs {
                shards: *shards,
                fan_in: *fan_in,
                ..args.load.clone()
            };
            let setting = load.setting(None)?;
            if setting.leaves().is_none_or(|leaves| leaves > *shards) {
                left_out.push(format!("{shards} shards with fan-in {fan_in}"));
                continue;
            }
            runs.push(one(&load, args.quiet)?);
        }
    }
    let goal = flat(&runs);
    if args.json {
        let rows: Vec<_> = runs.iter().map(Figures::json).collect();
        let goals: Vec<_> = goal.iter().map(Goal::json).collect();
        println!("{}", serde_json::json!({"runs": rows, "goals": goals}));
    } else {
        print!("{}", table(&runs));
        for left_out in left_out {
            println!("left out, more leaves than shards: {left_out}");
        }
        if let Some(goal) = goal {
            println!("{}", goal.text());
        }
    }
    if let Some(out) = &args.out {
        write(&out.with_extension("csv"), &csv(&runs))?;
        write(&out.with_extension("svg"), &plot::svg(&plots(&runs)))?;
    }
    Ok(Exit::Done)
}

/// What a report costs in the largest tree and in the smallest, of those with the same fan-in.
fn flat(runs: &[Figures]) -> Option<Goal> {
    let ratio = |fan_in: usize| {
        let of = runs.iter().filter(|it| it.outcome.setting.fan_in == fan_in);
        let costs: Vec<f64> = of.map(Figures::tree_ns).collect();
        let most = costs.iter().copied().fold(0.0, f64::max);
        let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
        (costs.len() > 1).then_some(most / least)
    };
    let worst = fan_ins(runs)
        .into_iter()
        .filter_map(ratio)
        .fold(0.0, f64::max);
    let name = "cost of a report to the tree, the largest by the least over all numbers of shards";
    (worst > 0.0).then(|| Goal::new(name, 1.5, worst, Sense::Below))
}

fn fan_ins(runs: &[Figures]) -> BTreeSet<usize> {
    runs.iter().map(|it| it.outcome.setting.fan_in).collect()
}

fn table(runs: &[Figures]) -> String {
    let mut table = Table::headed(&[
        "fan-in",
        "shards",
        "servers",
        "merged/s",
        "cuts/s",
        "root p99 us",
        "servers p99 us",
        "ns/report, tree",
        "log bytes/segment",
    ]);
    for run in runs {
        let (outcome, setting) = (&run.outcome, &run.outcome.setting);
        let median = |of: fn(&Window) -> f64| outcome.spread(of).median;
        let p99 = |of: fn(&Window) -> &Histogram<u64>| {
            let age = outcome.age_us(of, 0.99).median;
            if age.is_nan() {
                String::from("-")
            } else {
                format!("{age:.1}")
            }
        };
        table.row(&[
            setting.fan_in.to_string(),
            number(setting.shards as u64),
            number(outcome.servers as u64),
            number(median(|it| it.merged_per_s) as u64),
            number(median(|it| it.cuts_per_s) as u64),
            p99(|it| &it.age_root),
            p99(|it| &it.age_reporter),
            format!("{:.1}", run.tree_ns()),
            format!("{:.2}", median(Window::cut_log_bytes_per_segment)),
        ]);
    }
    table.render()
}

fn plots(runs: &[Figures]) -> Vec<Plot> {
    let plot = |title: &str, y: &str, of: &dyn Fn(&Figures) -> f64| {
        let line = |fan_in: usize| {
            let of_fan_in = runs.iter().filter(|it| it.outcome.setting.fan_in == fan_in);
            Series {
                name: format!("fan-in {fan_in}"),
                points: of_fan_in
                    .map(|it| (it.outcome.setting.shards as f64, of(it)))
                    .collect(),
            }
        };
        Plot {
            title: String::from(title),
            x: String::from("shards"),
            y: String::from(y),
            series: fan_ins(runs).into_iter().map(line).collect(),
        }
    };
    let p99 = |run: &Figures| run.outcome.age_us(|it| &it.age_root, 0.99).median;
    vec![
        plot("Distinct reports merged", "reports per second", &|run| {
            run.outcome.spread(|it| it.merged_per_s).median
        }),
        plot("Cuts committed", "cuts per second", &|run| {
            run.outcome.spread(|it| it.cuts_per_s).median
        }),
        plot("Age of a report at the root, p99", "microseconds", &p99),
        plot(
            "Cost of a report to the tree",
            "nanoseconds",
            &Figures::tree_ns,
        ),
    ]
}
