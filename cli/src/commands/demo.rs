//! `ionian demo`: a cluster in this process, a real input appended by one client and followed by another, and a check that
//! the second received exactly what the first was told is in the log: every record, once, in order.

mod clients;
mod corpus;
mod judge;
mod verdict;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use ionian_client::history::Phase as Mark;
use ionian_control_core::TreeSpec;
use ionian_node::status::PlaceState;
use ionian_types::{Durability, NodeId};
use serde_json::{Value, json};

use self::clients::{Live, Phase, WINDOW, Written, follow, write};
use self::corpus::Corpus;
use self::judge::{Damage, StreamHash, Verdict, damaged};
use self::verdict::Judged;
use super::bench::embedded::{Embedded, PlanArgs, Shape, processor};
use crate::banner::meaning;
use crate::exit::Exit;
use crate::history::{History, HistoryArgs, Subject};
use crate::output::OutArgs;
use crate::progress::Progress;
use crate::table::{Table, duration, number, per_second};
use crate::tree::{TreeArgs, in_words};

const SHARDS: usize = 2;
const REPLICAS: usize = 2;
/// Memory for records: the largest input, in the quarter of it that is one replica's.
const MEMORY_BYTES_MAX: u64 = 4 << 30;
/// The writer, the reader that follows it, and the final reader.
const CLIENTS: usize = 3;
/// Records whose history is kept in memory and judged when no file is asked for: half a gigabyte of events at most.
const KEPT_RECORDS: u64 = 1 << 20;
/// How long the final reader waits for more before it gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often the live line is renewed.
const LOOK: Duration = Duration::from_millis(100);

/// Start a cluster in this process, append a real input, follow it from a second client, and compare
#[derive(Debug, clap::Args)]
#[command(
    after_help = "2 shards with 2 replicas each, in memory (D0). Exit code 0 says that the second client received the input\n\
    exactly, every record, once, in order, and that `histcheck` passes the history of all clients: that of --history, or one of\n\
    the first records that is kept in memory."
)]
pub(crate) struct Args {
    /// The input, line by line; without it, the files of the repository around, or generated text
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The seed of generated text
    #[arg(long, value_name = "N", conflicts_with = "input")]
    seed: Option<u64>,
    #[command(flatten)]
    history: HistoryArgs,
    /// Damage what the second client received before it is checked: the check must fail
    #[arg(long = "break", value_name = "HOW", hide = true, value_enum)]
    damage: Option<Damage>,
    #[command(flatten)]
    tree: TreeArgs,
    #[command(flatten)]
    plan: PlanArgs,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    out: OutArgs,
}

/// Everything that the summary tells.
struct Outcome {
    input_hash: String,
    written: Written,
    verdict: Verdict,
    cuts: u64,
    /// From the first append to the last delivery.
    elapsed: Duration,
    checked: anyhow::Result<()>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let corpus = Corpus::choose(args.input.as_deref(), args.seed)?;
    let input_hash = StreamHash::of(&corpus);
    let history = match args.history.create(CLIENTS)? {
        Some(history) => history,
        None => History::in_memory(CLIENTS, KEPT_RECORDS, corpus.len())?,
    };
    let cluster = Embedded::start(&Shape {
        shards: SHARDS,
        replicas: REPLICAS,
        class: Durability::D0,
        memory_bytes_max: MEMORY_BYTES_MAX,
        data_dir: None,
        clients: 2,
        cores: None,
        fifo: false,
        plan: args.plan,
        tree: args.tree,
        root_members: 1,
    })?;
    let tree = args.tree.spec(SHARDS, &[NodeId::ZERO])?;
    eprint!("{}", banner(&cluster, &corpus, &tree));
    let mut progress = Progress::begin(args.quiet);
    let outcome = run_clients(args, &cluster, &corpus, input_hash, &history, &mut progress);
    progress.end(String::new);
    cluster.server.stop();
    let judged = Judged::of(&history);
    let outcome = outcome?;
    args.out.emit(
        &text(&corpus, &outcome, &judged),
        &to_json(&corpus, &outcome, &judged),
    )?;
    outcome.checked?;
    judged.holds()?;
    Ok(Exit::Done)
}

/// Runs both clients, each on a thread of its own, and shows how far they are.
fn run_clients(
    args: &Args,
    cluster: &Embedded,
    corpus: &Corpus,
    input_hash: String,
    history: &History,
    progress: &mut Progress,
) -> anyhow::Result<Outcome> {
    let live = Live::default();
    let began = Instant::now();
    // A link belongs to the thread that makes it.
    let open = |client, damage| {
        let spin = cluster.cores.enter(client)?;
        let mut log = cluster.open(spin)?;
        let subject = Subject {
            class: Durability::D0,
            shards: SHARDS,
            replicas: REPLICAS,
        };
        let hook = history.hook(client, subject);
        log.set_history(match damage {
            // For both checks.
            Some(damage) => damaged(hook, damage, corpus.len() / 2),
            None => hook,
        });
        anyhow::Ok(log)
    };
    let watching = std::thread::current();
    let (written, verdict) = std::thread::scope(|scope| {
        let following = scope.spawn(|| {
            let result = open(1, args.damage)
                .and_then(|mut log| follow(&mut log, corpus, args.damage, &live));
            watching.unpark();
            result
        });
        let writing = scope.spawn(|| {
            let result = open(0, None).and_then(|mut log| {
                // No fault is ever done here: everything has to progress.
                log.mark(Mark::Heal);
                log.mark(Mark::Load);
                write(&mut log, corpus, &live)
            });
            live.given_up.store(result.is_err(), Ordering::Relaxed);
            result
        });
        let mut cuts = Rate::new();
        while !following.is_finished() {
            std::thread::park_timeout(LOOK);
            progress.records(live.acked.load(Ordering::Relaxed), || {
                let nanos = |ns: u64| duration(Duration::from_nanos(ns));
                let rate = cuts.update(cuts_of(cluster).unwrap_or(0));
                format!(
                    "  append p50 {} p99 {}  {} cuts/s  second client at {}",
                    nanos(live.p50_ns.load(Ordering::Relaxed)),
                    nanos(live.p99_ns.load(Ordering::Relaxed)),
                    number(rate),
                    number(live.received.load(Ordering::Relaxed)),
                )
            });
        }
        let failed = |_| anyhow::anyhow!("a client's thread failed");
        // The writer's error first: it is the reason for the other's.
        let written = writing.join().map_err(failed)??;
        anyhow::Ok((written, following.join().map_err(failed)??))
    })?;
    let elapsed = began.elapsed();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            open(2, None)?
                .final_read(PATIENCE, |_| true)
                .context("the final read")
        });
        let failed = |_| anyhow::anyhow!("a client's thread failed");
        reading.join().map_err(failed)?
    })?;
    let checked = verdict.holds(corpus, &input_hash);
    Ok(Outcome {
        input_hash,
        written,
        verdict,
        cuts: cuts_of(cluster).unwrap_or(0),
        elapsed,
        checked,
    })
}

/// Cuts that the root has committed.
fn cuts_of(cluster: &Embedded) -> Option<u64> {
    let status = cluster.server.status(Duration::from_secs(1))?;
    status.places.iter().find_map(|place| match &place.state {
        PlaceState::Root(root) => Some(root.counters.cuts),
        _ => None,
    })
}

/// The rate of a counter between two looks.
struct Rate {
    at: Instant,
    count: u64,
}

impl Rate {
    fn new() -> Self {
        Self {
            at: Instant::now(),
            count: 0,
        }
    }

    fn update(&mut self, count: u64) -> u64 {
        let rate = per_second(count.saturating_sub(self.count), self.at.elapsed());
        *self = Self {
            at: Instant::now(),
            count,
        };
        rate
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// What runs here, and what its answers mean.
fn banner(cluster: &Embedded, corpus: &Corpus, tree: &TreeSpec) -> String {
    let mut table = Table::new();
    let mut row = |what: &str, value: String| table.row(&[what, &value]);
    row(
        "cluster",
        format!(
            "{SHARDS} shards with {REPLICAS} replicas each, {}, a root and a controller, all in this process",
            in_words(tree.shape.iter().map(|vertex| vertex.children))
        ),
    );
    row("machine", processor());
    row("core plan", cluster.cores.to_string());
    row("transport", cluster.server.effective().transport.clone());
    row("device", cluster.devices());
    row("an ack means", meaning(Durability::D0, REPLICAS));
    row(
        "input",
        format!(
            "{} records, {}: {}",
            number(corpus.len()),
            megabytes(corpus.bytes()),
            corpus.name()
        ),
    );
    row(
        "writer",
        format!(
            "one client, one record at a time, then {} under way; sticky, so that the input's order is kept",
            number(WINDOW)
        ),
    );
    row(
        "reader",
        String::from("a second client, which follows the log from position 0 at the same time"),
    );
    format!("{}\n", table.render())
}

fn text(corpus: &Corpus, outcome: &Outcome, judged: &Judged) -> String {
    let Outcome {
        written, verdict, ..
    } = outcome;
    let mut figures = Table::headed(&["", "records", "time", "records/s", "p50", "p99", "p99.9"]);
    let mut phase = |name: &str, phase: &Phase| {
        let rate = number(per_second(phase.records, phase.elapsed));
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|q| duration(phase.quantile(q)));
        figures.row(&[
            name.to_owned(),
            number(phase.records),
            duration(phase.elapsed),
            rate,
            p50,
            p99,
            p999,
        ]);
    };
    phase("appended one at a time", &written.single);
    phase("appended pipelined", &written.pipelined);
    let rate = per_second(verdict.records, outcome.elapsed);
    figures.row(&[
        "followed and checked",
        &number(verdict.records),
        &duration(outcome.elapsed),
        &number(rate),
    ]);
    let mut check = Table::new();
    let mut row = |what: &str, value: String| check.row(&[what, &value]);
    let cuts = outcome.cuts;
    row(
        "cuts",
        format!(
            "{}, {} per second, {} records each on average",
            number(cuts),
            number(per_second(cuts, outcome.elapsed)),
            number(corpus.len().checked_div(cuts).unwrap_or(0))
        ),
    );
    row(
        "times",
        "with every call and delivery recorded for the judge; `ionian bench append --embedded` measures without".into(),
    );
    row("sha256 of the input", outcome.input_hash.clone());
    row("sha256 received", verdict.hash.clone());
    row("verdict", judged.text());
    let verified = outcome.checked.is_ok() && judged.holds().is_ok();
    row(
        "result",
        if verified {
            format!(
                "verified: all {} records were received, once each, in the order of the input",
                number(verdict.records)
            )
        } else {
            String::from("NOT VERIFIED")
        },
    );
    let next = "next: `ionian dev` in one terminal, and in another `seq 1 1000 | ionian append` and `ionian tail`";
    match verified {
        true => format!("{}\n{}\n{next}\n", figures.render(), check.render()),
        false => format!("{}\n{}", figures.render(), check.render()),
    }
}

fn to_json(corpus: &Corpus, outcome: &Outcome, judged: &Judged) -> Value {
    let phase = |phase: &Phase| {
        let ns = |q| phase.latency.value_at_quantile(q);
        json!({
            "records": phase.records, "seconds": phase.elapsed.as_secs_f64(),
            "records_per_second": per_second(phase.records, phase.elapsed),
            "p50_ns": ns(0.5), "p99_ns": ns(0.99), "p999_ns": ns(0.999),
        })
    };
    let Outcome {
        written, verdict, ..
    } = outcome;
    json!({
        "input": corpus.name(), "seed": corpus.seed(), "records": corpus.len(), "bytes": corpus.bytes(),
        "shards": SHARDS, "replicas": REPLICAS, "durability": "D0", "seconds": outcome.elapsed.as_secs_f64(),
        "one_at_a_time": phase(&written.single), "pipelined": phase(&written.pipelined), "window": WINDOW,
        "cuts": outcome.cuts, "received": verdict.records, "input_sha256": outcome.input_hash,
        "received_sha256": verdict.hash, "verified": outcome.checked.is_ok() && judged.holds().is_ok(), "judged": judged.json(),
    })
}
