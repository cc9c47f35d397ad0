//! `ionian demo`: a cluster in this process, a real input appended by one client and followed by another, and a check that
//! both are the same.

mod corpus;
mod stream;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use ionian_client::{ClientConfig, Log};
use ionian_node::Server;
use ionian_node::client::LocalLink;
use ionian_types::{ClusterId, LogId};
use serde_json::{Value, json};

use self::corpus::Corpus;
use self::stream::{Damage, Received, Written, follow, write_all};
use super::dev;
use crate::connect::random_client;
use crate::exit::Exit;
use crate::output::OutArgs;
use crate::progress::Progress;
use crate::table::{Table, duration, number, per_second, size};

/// Start a cluster in this process, append a real input, follow it from a second client, and compare
#[derive(Debug, clap::Args)]
#[command(
    after_help = "2 shards with 2 replicas each, in memory (D0). Exit code 0 says that the second client received the input\n\
    exactly: every record, once, in order."
)]
pub(crate) struct Args {
    /// The input, line by line; without it, the files of the repository around, or generated text
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The seed of generated text
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Damage what the second client receives: the comparison must fail
    #[arg(long = "break", value_name = "HOW", hide = true, value_enum)]
    damage: Option<Damage>,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    out: OutArgs,
}

/// The demonstration's own line of `dev` options.
#[derive(Debug, Parser)]
struct DevLine {
    #[command(flatten)]
    args: dev::Args,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let corpus = Corpus::choose(args.input.as_deref(), args.seed)?;
    let line = DevLine::parse_from(["demo", "--durability", "D0", "--memory-bytes-max", "4GiB"]);
    let config = dev::config(&line.args, Path::new(""));
    let server = Server::start(config.in_memory_options(ClusterId::new(1)))
        .context("the cluster did not start")?;
    let log = LogId::new(1);
    let client = || anyhow::Ok(ClientConfig::new(server.cluster(), log, random_client()?));
    let (writer, reader) = (client()?, client()?);
    let received_now = AtomicU64::new(0);
    let mut progress = Progress::begin(args.quiet);
    eprintln!(
        "appending {} records ({}) of {}",
        number(corpus.len()),
        size(corpus.bytes()),
        corpus.name()
    );
    let (written, received) = std::thread::scope(|scope| {
        let following = scope.spawn(|| {
            // The link belongs to the thread that makes it.
            let mut log = Log::open(LocalLink::new(&server, log, false), reader)?;
            follow(&mut log, corpus.len(), args.damage, &received_now)
        });
        let mut log = Log::open(LocalLink::new(&server, log, false), writer)?;
        let written = write_all(&mut log, &corpus, |written, histogram| {
            let quantile = |q| duration(Duration::from_nanos(histogram.value_at_quantile(q)));
            progress.records(written, || {
                let behind = written.saturating_sub(received_now.load(Ordering::Relaxed));
                format!(
                    "  append p50 {} p99 {}  follower behind by {}",
                    quantile(0.5),
                    quantile(0.99),
                    number(behind)
                )
            });
        });
        let received = following
            .join()
            .map_err(|_| anyhow::anyhow!("the follower failed"))?;
        anyhow::Ok((written?, received?))
    })?;
    progress.end(|| String::from("compared"));
    let cuts = cuts(&server);
    let same = written.hash == received.hash && written.records == received.records;
    let text = text(&corpus, &written, &received, cuts, same);
    args.out
        .emit(&text, &json(&corpus, &written, &received, cuts, same))?;
    server.stop();
    if !same {
        bail!("what the second client received is not what was appended");
    }
    Ok(Exit::Done)
}

/// Cuts that the root committed.
fn cuts(server: &Server) -> Option<u64> {
    let status = server.status(Duration::from_secs(1))?;
    status.places.iter().find_map(|place| match &place.state {
        ionian_node::status::PlaceState::Root(root) => Some(root.counters.cuts),
        _ => None,
    })
}

fn text(
    corpus: &Corpus,
    written: &Written,
    received: &Received,
    cuts: Option<u64>,
    same: bool,
) -> String {
    let mut table = Table::new();
    let mut row = |what: &str, value: String| table.row(&[what, &value]);
    let quantile = |q| duration(Duration::from_nanos(written.latency.value_at_quantile(q)));
    row(
        "cluster",
        String::from("2 shards, 2 replicas each, in this process"),
    );
    row(
        "an ack means",
        String::from("D0: in the memory of both replicas"),
    );
    row("input", corpus.name().to_owned());
    row(
        "records",
        format!("{} ({})", number(written.records), size(written.bytes)),
    );
    row(
        "appended",
        format!(
            "in {}, {} records/s",
            duration(written.elapsed),
            number(per_second(written.records, written.elapsed))
        ),
    );
    row(
        "append latency",
        format!(
            "p50 {}, p99 {} with {} under way",
            quantile(0.5),
            quantile(0.99),
            number(written.window)
        ),
    );
    if let Some(cuts) = cuts {
        let rate = per_second(cuts, written.elapsed);
        row(
            "cuts",
            format!("{}, {} per second", number(cuts), number(rate)),
        );
    }
    row(
        "followed",
        format!(
            "{} records, {} gaps",
            number(received.records),
            received.gaps
        ),
    );
    row("hash of the input", written.hash.clone());
    row("hash received", received.hash.clone());
    row(
        "result",
        String::from(if same {
            "the same: every record, once, in order"
        } else {
            "DIFFERENT"
        }),
    );
    table.render()
}

fn json(
    corpus: &Corpus,
    written: &Written,
    received: &Received,
    cuts: Option<u64>,
    same: bool,
) -> Value {
    json!({
        "input": corpus.name(), "seed": corpus.seed(), "shards": 2, "replicas": 2, "durability": "D0",
        "records": written.records, "bytes": written.bytes, "seconds": written.elapsed.as_secs_f64(),
        "records_per_second": per_second(written.records, written.elapsed),
        "append_p50_ns": written.latency.value_at_quantile(0.5), "append_p99_ns": written.latency.value_at_quantile(0.99),
        "window": written.window, "cuts": cuts, "received": received.records, "gaps": received.gaps,
        "hash_written": written.hash, "hash_received": received.hash, "same": same,
    })
}
