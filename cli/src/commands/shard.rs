//! `ionian shard`: shards of a log come and end, and their replicas move.

use clap::Subcommand;
use ionian_control_core::Operation;
use ionian_types::{LogId, ShardId};

use crate::exit::Exit;
use crate::operator::names::ReplicaName;
use crate::operator::{ChangeArgs, Controllers};

/// Add and finalize shards, and replace their replicas
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Open one more shard of a log
    Add {
        /// The name of the log
        log: String,
        /// The nodes of its replicas, in slot order; those with the fewest places unless said otherwise
        #[arg(long, value_name = "NODE,..", value_delimiter = ',')]
        nodes: Vec<String>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// End a shard for good; its records stay readable
    Finalize {
        /// The name of the log
        log: String,
        /// The shard
        shard: u32,
        /// Open another one in its place first
        #[arg(long)]
        successor: bool,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Let another node take a replica's place, where k of 2k - 1 replicas are enough, or of a shard that has ended
    Replace {
        /// The name of the log
        log: String,
        /// The replica: its shard and slot, as in 0.1
        replica: ReplicaName,
        /// The node that takes its place
        node: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Add { log, nodes, change } => with_log(log, change, |controllers, log| {
            let nodes = controllers.names.find_all(nodes)?;
            Ok(Operation::AddShard { log, nodes })
        }),
        Command::Finalize {
            log,
            shard,
            successor,
            change,
        } => with_log(log, change, |_, log| {
            Ok(Operation::FinalizeShard {
                log,
                shard: ShardId::new(*shard),
                successor: *successor,
            })
        }),
        Command::Replace {
            log,
            replica,
            node,
            change,
        } => with_log(log, change, |controllers, log| {
            Ok(Operation::ReplaceReplica {
                log,
                shard: replica.shard,
                slot: replica.slot,
                node: controllers.names.find(node)?,
            })
        }),
    }
}

fn with_log(
    name: &str,
    change: &ChangeArgs,
    operation: impl FnOnce(&Controllers, LogId) -> anyhow::Result<Operation>,
) -> anyhow::Result<Exit> {
    let controllers = Controllers::of(&change.look.at)?;
    let log = controllers.log(name)?.log;
    let operation = operation(&controllers, log)?;
    controllers.change(change, operation)
}
