//! `ionian tree`: the ordering tree of a log is looked at, takes another form, and its vertices move.

use clap::Subcommand;
use ionian_control_core::{FAN_IN_MAX, LogPicture, Operation, VertexPicture};
use ionian_types::VertexId;
use serde_json::json;

use crate::exit::{Exit, UsageError};
use crate::operator::{ChangeArgs, Controllers, LookArgs, tree};

/// Show and change the ordering tree of a log
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the tree, a line per vertex, and the one that is to be in its place
    Show {
        /// The name of the log
        log: String,
        #[command(flatten)]
        look: LookArgs,
    },
    /// Give a log a tree of another form; vertices that fit into it stay where they are
    Set {
        /// The name of the log
        log: String,
        /// The most shards below a leaf, and the most vertices below an aggregator or the root
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=i64::from(FAN_IN_MAX)))]
        fan_in: u16,
        /// The levels below the root, leaves included; as few as the fan-in takes unless said otherwise
        #[arg(long, value_name = "LEVELS", value_parser = clap::value_parser!(u8).range(1..=8))]
        depth: Option<u8>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Let a vertex run on another node
    Move {
        /// The name of the log
        log: String,
        /// The node
        node: String,
        /// The number of the vertex, as `tree show` has it; need not be said of a tree of one leaf
        #[arg(long, value_name = "V")]
        vertex: Option<u32>,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Show { log, look } => show(log, look),
        Command::Set {
            log,
            fan_in,
            depth,
            change,
        } => {
            let controllers = Controllers::of(&change.look.at)?;
            let now = controllers.log(log)?;
            let operation = Operation::SetTree {
                log: now.log,
                fan_in: *fan_in,
                depth: *depth,
            };
            controllers.change_with(change, operation, |then| {
                Some(tree::kept(&now, then, &controllers.names))
            })
        }
        Command::Move {
            log,
            node,
            vertex,
            change,
        } => {
            let controllers = Controllers::of(&change.look.at)?;
            let found = controllers.log(log)?;
            let node = controllers.names.find(node)?;
            let vertex = chosen(&found, *vertex)?;
            let log = found.log;
            controllers.change(change, Operation::MoveVertex { log, vertex, node })
        }
    }
}

fn show(name: &str, look: &LookArgs) -> anyhow::Result<Exit> {
    let controllers = Controllers::of(&look.at)?;
    let names = &controllers.names;
    let (cluster, log) = controllers.log_in_cluster(name)?;
    let leader = log.root.leader.map(ionian_types::Slot::get);
    let json = json!({
        "log": log.log.get(), "name": log.name, "view": log.view.get(), "root_leader": leader,
        "tree": tree::json(&log.tree, &cluster, names),
        "tree_next": tree::json(&log.tree_next, &cluster, names),
    });
    look.out.emit(&tree::tree(&log, names), &json)?;
    Ok(Exit::Done)
}

/// The vertex that the command line names.
fn chosen(log: &LogPicture, vertex: Option<u32>) -> Result<VertexId, UsageError> {
    let named = |vertices: &[&VertexPicture]| {
        const SHOWN: usize = 12;
        let names: Vec<String> = vertices.iter().map(|it| tree::vertex_name(it)).collect();
        match names.len() {
            ..=SHOWN => names.join(", "),
            many => format!("{} and {} more", names[..SHOWN].join(", "), many - SHOWN),
        }
    };
    let all = log.tree.iter().chain(&log.tree_next);
    let mut known: Vec<&VertexPicture> = all.collect();
    known.sort_by_key(|it| it.vertex);
    known.dedup_by_key(|it| it.vertex);
    match (vertex.map(VertexId::new), &known[..]) {
        (None, [one]) => Ok(one.vertex),
        (None, all) => Err(UsageError(format!(
            "the tree of log {} has several vertices: name one with --vertex; they are {}",
            log.name,
            named(all)
        ))),
        (Some(vertex), all) if all.iter().any(|it| it.vertex == vertex) => Ok(vertex),
        (Some(vertex), all) => Err(UsageError(format!(
            "the tree of log {} has no vertex {vertex}; it has {}",
            log.name,
            named(all)
        ))),
    }
}
