//! `ionian bench append`: how fast, at which latency, and whether what was acknowledged is there.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use ionian_client::{ClientConfig, Link, Log};
use ionian_node::Server;
use ionian_node::client::LocalLink;
use ionian_node::config::Secret;
use ionian_types::{LogId, RECORD_BYTES_MAX};
use serde_json::{Value, json};

use super::measure::{Bench, Check, Figures, Plan, bare};
use crate::commands::dev;
use crate::connect::{Cluster, ConnectArgs, DEFAULT_ADDRESS, Target, random_client};
use crate::exit::{Exit, UsageError};
use crate::output::OutArgs;
use crate::table::{Table, duration, number};
use crate::version;

/// Measure appends: throughput with a full window, latency one at a time, and read back what was acknowledged
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without --cluster a cluster is started in this process. Exit code 1 when what was read back is not what was\n\
    acknowledged; a goal that is not met is said and changes nothing."
)]
pub(crate) struct Args {
    /// Start a cluster in this process (the default)
    #[arg(long, conflicts_with = "cluster")]
    embedded: bool,
    /// Measure a running cluster instead: the address of its controller, or its configuration file
    #[arg(long, value_name = "ADDR|FILE", num_args = 0..=1, default_missing_value = DEFAULT_ADDRESS)]
    cluster: Option<Target>,
    /// The log, with --cluster
    #[arg(long, value_name = "NAME", default_value = "default")]
    log: String,
    /// The cluster's secret file, with --cluster ADDR
    #[arg(long, value_name = "FILE")]
    secret: Option<std::path::PathBuf>,
    /// Bytes of a record
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    record_bytes: usize,
    /// Records under way at a time
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    window: u64,
    /// Seconds of each measurement
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Append to all servers instead of one
    #[arg(long)]
    spread: bool,
    /// Durability of the cluster in this process
    #[arg(long, value_name = "CLASS", default_value = "D0", value_parser = ["D0", "D1"])]
    durability: String,
    /// Shards of the cluster in this process
    #[arg(long, value_name = "N", default_value = "2")]
    shards: String,
    /// Replicas of each shard of the cluster in this process
    #[arg(long, value_name = "N", default_value = "2")]
    replicas: String,
    /// Memory for records of the cluster in this process
    #[arg(long, value_name = "SIZE", default_value = "4GiB")]
    memory_bytes_max: String,
    /// Where the cluster in this process keeps its state at D1; without it, a temporary folder that is removed
    #[arg(long, value_name = "DIR")]
    data_dir: Option<std::path::PathBuf>,
    #[command(flatten)]
    out: OutArgs,
}

/// Everything that stands beside a figure.
#[derive(Debug)]
struct Setting {
    backend: String,
    devices: Vec<String>,
    plan: String,
    durability: String,
    shards: usize,
    replicas: usize,
    embedded: bool,
}

#[derive(Debug)]
struct Outcome {
    pipelined: Figures,
    closed: Figures,
    check: Check,
    bare: f64,
}

#[derive(Debug, Parser)]
struct DevLine {
    #[command(flatten)]
    args: dev::Args,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    if !(8..=RECORD_BYTES_MAX).contains(&args.record_bytes) {
        return Err(UsageError(format!(
            "--record-bytes is {}: give 8 to {RECORD_BYTES_MAX}",
            args.record_bytes
        ))
        .into());
    }
    let span = Duration::from_secs(args.seconds);
    let plan = Plan {
        record_bytes: args.record_bytes,
        window: args.window,
        warm_up: span / 5,
        span,
        spread: args.spread,
    };
    let (setting, outcome) = match &args.cluster {
        Some(target) => cluster(args, target, plan)?,
        None => embedded(args, plan)?,
    };
    let json = json(args, &setting, &outcome);
    args.out.emit(&text(args, &setting, &outcome), &json)?;
    if outcome.check.wrong > 0 {
        bail!(
            "{} records read back are not what was acknowledged",
            outcome.check.wrong
        );
    }
    Ok(Exit::Done)
}

fn measure<L: Link>(log: &mut Log<L>, plan: Plan) -> anyhow::Result<Outcome> {
    let bare = bare(plan.record_bytes, Duration::from_millis(500));
    let mut bench = Bench::new(log, plan);
    let pipelined = bench.pipelined()?;
    let closed = bench.closed_loop()?;
    let check = bench.check()?;
    Ok(Outcome {
        pipelined,
        closed,
        check,
        bare,
    })
}

fn cluster(args: &Args, target: &Target, plan: Plan) -> anyhow::Result<(Setting, Outcome)> {
    let connect = ConnectArgs {
        cluster: target.clone(),
        log: args.log.clone(),
        secret: args.secret.clone(),
    };
    let cluster = Cluster::reach(&connect)?;
    let info = cluster.map().log_by_name(&args.log).cloned();
    let mut log = cluster.open(&args.log)?;
    let info = info.context("the log was found")?;
    let setting = Setting {
        backend: String::from("udp"),
        devices: Vec::new(),
        plan: String::from("as the cluster says"),
        durability: info.class.to_string(),
        shards: info.shards.len(),
        replicas: info.shards.first().map_or(0, |shard| shard.replicas.len()),
        embedded: false,
    };
    Ok((setting, measure(&mut log, plan)?))
}

fn embedded(args: &Args, plan: Plan) -> anyhow::Result<(Setting, Outcome)> {
    let line = [
        "bench",
        "--durability",
        &args.durability,
        "--shards",
        &args.shards,
        "--replicas",
        &args.replicas,
    ];
    let memory = ["--memory-bytes-max", &args.memory_bytes_max];
    let line = DevLine::try_parse_from([&line[..], &memory[..]].concat())
        .map_err(|error| UsageError(error.to_string()))?;
    let temporary = std::env::temp_dir().join(format!("ionian-bench-{}", std::process::id()));
    let folder = args.data_dir.as_deref().unwrap_or(&temporary);
    let config = dev::config(&line.args, folder);
    let mut options = config.in_memory_options(Secret::new([0; 32]).cluster_id());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    options.core = (cores > 1).then_some(1);
    options.shared_core = cores == 1;
    if args.durability != "D0" {
        options.data_dir = Some(folder.to_owned());
    }
    let server = Server::start(options).context("the cluster did not start")?;
    let effective = server.effective();
    let setting = Setting {
        backend: effective.transport.clone(),
        devices: effective
            .devices
            .iter()
            .map(|(place, device)| format!("{device} for {place}"))
            .collect(),
        plan: if cores > 1 {
            String::from("servers on core 1, client elsewhere")
        } else {
            String::from("everything on one core")
        },
        durability: args.durability.clone(),
        shards: config.logs[0].shards.len(),
        replicas: config.logs[0].shards[0].len(),
        embedded: true,
    };
    let log = LogId::new(1);
    let client = ClientConfig::new(server.cluster(), log, random_client()?);
    let outcome = {
        let mut log = Log::open(LocalLink::new(&server, log, cores > 1), client)?;
        measure(&mut log, plan)
    };
    server.stop();
    if args.data_dir.is_none() && args.durability != "D0" {
        remove(&temporary)?;
    }
    Ok((setting, outcome?))
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// A goal on the 2-core machine that the figures of the documentation come from.
struct Goal {
    name: &'static str,
    goal: f64,
    value: f64,
    /// Whether more is better.
    more: bool,
}

impl Goal {
    fn met(&self) -> bool {
        if self.more {
            self.value >= self.goal
        } else {
            self.value <= self.goal
        }
    }
}

/// The goals that this setting has.
fn goals(args: &Args, setting: &Setting, outcome: &Outcome) -> Vec<Goal> {
    let rate = rate(&outcome.pipelined);
    let p50_us = outcome.closed.latency.value_at_quantile(0.5) as f64 / 1e3;
    let goal = |name, goal, value, more| Goal {
        name,
        goal,
        value,
        more,
    };
    match (
        setting.embedded,
        setting.durability.as_str(),
        args.record_bytes,
        setting.replicas,
    ) {
        (true, "D0", 128, 2) => vec![
            goal("appends per second, pipelined", 3e6, rate, true),
            goal("closed-loop p50 in microseconds", 3.0, p50_us, false),
        ],
        (false, "D0", 512, 2) => vec![
            goal("appends per second, pipelined", 1e6, rate, true),
            goal("closed-loop p50 in microseconds", 30.0, p50_us, false),
        ],
        (_, "D1", 512, 2) => vec![goal("appends per second, pipelined", 2e5, rate, true)],
        _ => Vec::new(),
    }
}

fn rate(figures: &Figures) -> f64 {
    figures.records as f64 / figures.elapsed.as_secs_f64()
}

fn figures_json(figures: &Figures) -> Value {
    let quantile = |q| figures.latency.value_at_quantile(q);
    json!({
        "records": figures.records, "seconds": figures.elapsed.as_secs_f64(), "records_per_second": rate(figures),
        "p50_ns": quantile(0.5), "p99_ns": quantile(0.99), "p999_ns": quantile(0.999), "max_ns": figures.latency.max(),
        "cpu_ns_per_record": figures.cpu.as_nanos() as f64 / figures.records.max(1) as f64,
    })
}

fn json(args: &Args, setting: &Setting, outcome: &Outcome) -> Value {
    let goals = goals(args, setting, outcome);
    let goals = goals.iter().map(|goal| json!({"name": goal.name, "goal": goal.goal, "value": goal.value, "met": goal.met()}));
    json!({
        "version": version::SHORT, "commit": version::COMMIT, "embedded": setting.embedded,
        "backend": setting.backend, "devices": setting.devices, "core_plan": setting.plan,
        "durability": setting.durability, "shards": setting.shards, "replicas": setting.replicas,
        "record_bytes": args.record_bytes, "window": args.window, "spread": args.spread,
        "pipelined": figures_json(&outcome.pipelined), "closed_loop": figures_json(&outcome.closed),
        "read_back": {"records": outcome.check.records, "wrong": outcome.check.wrong},
        "bare_copies_records_per_second": outcome.bare, "ratio_to_bare_copies": rate(&outcome.pipelined) / outcome.bare,
        "goals": goals.collect::<Vec<_>>(),
    })
}

fn text(args: &Args, setting: &Setting, outcome: &Outcome) -> String {
    let mut table = Table::new();
    let mut row = |what: &str, value: String| table.row(&[what, &value]);
    row("backend", setting.backend.clone());
    for device in &setting.devices {
        row("device", device.clone());
    }
    row("core plan", setting.plan.clone());
    row(
        "durability",
        format!(
            "{}, {} shards, {} replicas each",
            setting.durability, setting.shards, setting.replicas
        ),
    );
    row(
        "records",
        format!(
            "{} bytes, {} under way{}",
            args.record_bytes,
            number(args.window),
            if args.spread { ", spread" } else { "" }
        ),
    );
    for (name, figures) in [
        ("pipelined", &outcome.pipelined),
        ("one at a time", &outcome.closed),
    ] {
        let quantile = |q| duration(Duration::from_nanos(figures.latency.value_at_quantile(q)));
        let cpu = figures.cpu.as_nanos() as f64 / figures.records.max(1) as f64;
        row(
            name,
            format!(
                "{} appends/s, CPU {cpu:.0} ns per record",
                number(rate(figures) as u64)
            ),
        );
        row(
            "",
            format!(
                "p50 {}, p99 {}, p99.9 {}",
                quantile(0.5),
                quantile(0.99),
                quantile(0.999)
            ),
        );
    }
    row(
        "bare copies",
        format!(
            "{} records/s copied and checksummed twice by one thread; ratio {:.2}",
            number(outcome.bare as u64),
            rate(&outcome.pipelined) / outcome.bare
        ),
    );
    let check = &outcome.check;
    row(
        "read back",
        match check.wrong {
            0 => format!(
                "{} records, in order, as acknowledged",
                number(check.records)
            ),
            wrong => format!(
                "{} records, {} NOT as acknowledged",
                number(check.records),
                number(wrong)
            ),
        },
    );
    for goal in goals(args, setting, outcome) {
        let met = if goal.met() { "met" } else { "not met" };
        let figure = |value: f64| {
            if value < 1e3 {
                format!("{value:.1}")
            } else {
                number(value as u64)
            }
        };
        row(
            "goal",
            format!(
                "{}: {} of {}, {met}",
                goal.name,
                figure(goal.value),
                figure(goal.goal)
            ),
        );
    }
    table.render()
}
