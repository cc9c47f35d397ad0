//! `ionian node`: one process of a configured cluster; and, as subcommands, what an operator does with a node's places.

mod change;
mod controlled;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use ionian_node::config::{ClusterConfig, Secret};
use ionian_node::{FaultSpec, FlushFault, Server, ServerOptions, TraceOptions};

use crate::banner::{banner, lines_to_paste};
use crate::exit::{Exit, UsageError};
use crate::signals::Signalled;

/// How often it is looked whether the reactor still runs.
const LOOK: Duration = Duration::from_millis(500);

/// How long appends that were taken may still wait for their order when the process is told to end.
const DRAIN: Duration = Duration::from_secs(2);

/// Run one node of a configured cluster, or move what it does to others
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Ends on SIGTERM or SIGINT; a second one ends it at once. Exit code 4: a device failed; start it again, or see to the device first."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    change: Option<change::Change>,
    /// The cluster's configuration
    #[arg(long, value_name = "FILE", default_value = "cluster.toml")]
    config: PathBuf,
    /// The node to be; may be left out when there is only one
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Listen beyond loopback, although frames are neither encrypted nor signed
    #[arg(long)]
    insecure_no_auth: bool,
    #[command(flatten)]
    middleware: MiddlewareArgs,
    /// End when standard input ends, as for the children of `ionian dev --processes`
    #[arg(long, hide = true)]
    end_with_stdin: bool,
}

/// What stands between a process and its network.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct MiddlewareArgs {
    /// Write a line per datagram and per message to this file, at most 64 MiB; it costs speed
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Lose, repeat, reorder, delay or damage what is sent: loss=P,dup=P,reorder=P,delay=P,corrupt=P,seed=N
    #[arg(long, value_name = "FAULTS", hide = true)]
    faults: Option<FaultSpec>,
    /// Have the N-th flush after the start fail
    #[arg(long, value_name = "N", hide = true)]
    fail_flush: Option<u64>,
}

impl MiddlewareArgs {
    /// Puts the middleware into a process that is about to start.
    pub(crate) fn apply(&self, options: &mut ServerOptions) {
        if let Some(port) = &mut options.listen {
            port.faults = self.faults;
            port.trace = self.trace.as_deref().map(TraceOptions::to_file);
        }
        options.flush_fault = self.fail_flush.map(|count| {
            let fault = FlushFault::default();
            fault.arm(count);
            fault
        });
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    if let Some(change) = &args.change {
        return change::run(change);
    }
    let config = ClusterConfig::load(&args.config)?;
    let name = match (&args.node, &config.nodes[..]) {
        (Some(name), _) => name,
        (None, [only]) => &only.name,
        (None, nodes) => {
            let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
            return Err(
                UsageError(format!("give --node NAME: one of {}", names.join(", "))).into(),
            );
        }
    };
    let signalled = Signalled::listen()?;
    if args.end_with_stdin {
        signalled.end_with_stdin();
    }
    let secret = Secret::load_or_create(&config.secret_file)?;
    let mut options = config
        .server_options(name, secret, args.insecure_no_auth)
        .map_err(|error| UsageError(error.to_string()))?;
    args.middleware.apply(&mut options);
    if !config.controllers.is_empty() {
        return controlled::run(&config, name, options, &signalled);
    }
    let server = Server::start(options).with_context(|| format!("node {name} did not start"))?;
    eprint!("{}{}", banner(&config, name, &server), hints(&config));
    serve(server, &signalled)
}

/// Lines to paste into another terminal.
fn hints(config: &ClusterConfig) -> String {
    let mut arguments = format!(" --cluster {}", config.file.display());
    if let Some(log) = config.logs.first().filter(|log| log.name != "default") {
        arguments += &format!(" --log {}", log.name);
    }
    lines_to_paste(&arguments)
}

/// Runs until asked to end, or until a device or the reactor fails.
pub(crate) fn serve(server: Server, signalled: &Signalled) -> anyhow::Result<Exit> {
    while !signalled.wait(LOOK) {
        look(&server)?;
    }
    drain(&server);
    server.stop();
    Ok(Exit::Done)
}

/// Whether a process can still do its part. What its operator is to know goes to standard error.
fn look(server: &Server) -> anyhow::Result<()> {
    for sentence in server.take_sentences() {
        eprintln!("ionian: {sentence}");
    }
    if let Some(failure) = server.failure() {
        return Err(failure.clone().into());
    }
    if server.is_finished() {
        bail!("the reactor has ended: a fault of this program, its last words stand above");
    }
    Ok(())
}

/// Has what was taken ordered, before the end.
fn drain(server: &Server) {
    eprintln!("ionian: ending");
    if !server.drain(DRAIN) {
        eprintln!(
            "ionian: some appends were not ordered in time; their clients learn their fate from the others, or after a restart"
        );
    }
}
