//! `cargo xtask demo-cluster`: a cluster of five processes on loopback to play with, until Ctrl-C.

use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use ionian_system_tests::Cluster;

use crate::chaos::{Class, Scratch, release_binary};
use crate::workspace::Workspace;

/// How long the cluster may take to start.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Flags of `demo-cluster`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What an acknowledgement means: D0 memory, D1 flushed to the device
    #[arg(long, value_enum, ignore_case = true, default_value = "D1")]
    durability: Class,
    /// Where configuration, data and logs are kept; without it, in a temporary folder that goes with the cluster
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// End after this many seconds; without it, on Ctrl-C or SIGTERM
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
}

/// Runs the cluster; true when every process ended in order.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let signals = crate::process::signals()?;
    let workspace = Workspace::read()?;
    let binary = release_binary(&workspace)?;
    let scratch = match &options.dir {
        Some(dir) => Scratch::kept(dir),
        None => Scratch::temporary("demo-cluster")?,
    };
    let mut cluster = Cluster::start(&binary, scratch.path(), options.durability.into())?;
    cluster.wait_able(START_LIMIT)?;
    let ionian = binary.path().display();
    let config = cluster.config().display();
    println!(
        "2 shards of 2 replicas, five processes, durability {}",
        options.durability
    );
    println!("logs of the processes: {}/n*.log", scratch.path().display());
    println!("\nin another terminal:");
    println!("  seq 1 1000000 | {ionian} append --cluster {config}");
    println!("  {ionian} tail --cluster {config} --count 1000000 | cmp - <(seq 1 1000000)");
    println!("  {ionian} status --cluster {config}");
    for node in 0..cluster.len() {
        let id = cluster
            .node(node)
            .and_then(ionian_system_tests::Process::id);
        let id = id.context("a process has ended")?;
        println!("  kill -9 {id}   # {}", Cluster::name(node));
    }
    match options.seconds {
        Some(seconds) => println!("\nends after {seconds} s, or on Ctrl-C"),
        None => println!("\nends on Ctrl-C"),
    }
    wait(
        &mut cluster,
        &signals,
        options.seconds.map(Duration::from_secs),
    )?;
    println!("ending the processes");
    cluster.stop()?;
    println!("all of them ended in order");
    Ok(true)
}

/// Waits for the end, and starts again what a person has killed.
fn wait(cluster: &mut Cluster, signals: &Receiver<i32>, limit: Option<Duration>) -> Result<()> {
    const LOOK: Duration = Duration::from_millis(500);
    let end = limit.map(|limit| Instant::now() + limit);
    loop {
        let left = end.map_or(LOOK, |end| end.saturating_duration_since(Instant::now()));
        if left.is_zero() || signals.recv_timeout(left.min(LOOK)).is_ok() {
            return Ok(());
        }
        for node in cluster.take_ended()? {
            let (node, status) = node;
            println!(
                "{} has ended ({status}); starting it again",
                Cluster::name(node)
            );
            if status.code() == Some(2) {
                bail!("its configuration is wrong; see its log");
            }
            cluster.start_node(node)?;
        }
    }
}
