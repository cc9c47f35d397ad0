//! `ionian log`: logs come, go, and are looked at.

use std::collections::{BTreeMap, BTreeSet};

use clap::Subcommand;
use ionian_control_core::{
    Candidate, ClusterPicture, LogSpec, Operation, RootQuorum, USER_RIGHTS, place,
};
use ionian_types::{Durability, LogId, NodeId, OrderingMode, Slot};
use ionian_wire::grant::Rights;
use serde_json::json;

use crate::commands::user;
use crate::exit::{Exit, UsageError};
use crate::operator::{ChangeArgs, Controllers, LookArgs, show};
use crate::tree::TreeArgs;

/// Create, delete, list and describe logs, say who orders them and who may use them
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a log, on the nodes named or on those with the fewest places
    Create(Box<CreateArgs>),
    /// List the logs
    List(LookArgs),
    /// Show a log: what an ack means, where copies lie, who orders it, what is under way
    Describe {
        /// The name of the log
        log: String,
        #[command(flatten)]
        look: LookArgs,
    },
    /// Finalize all shards of a log and remove it, with its records
    Delete {
        /// The name of the log
        log: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Change the members of a log's root group
    RootMembers {
        /// The name of the log
        log: String,
        /// The nodes by name or number, in slot order; one that stays keeps its slot
        #[arg(value_name = "NODE,..", value_delimiter = ',', required = true)]
        nodes: Vec<String>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Let another member of the root group lead
    MoveLeader {
        /// The name of the log
        log: String,
        /// The node of the member
        node: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Say what a user may do with a log, in place of what it could do before
    Grant {
        /// The name of the log
        log: String,
        /// The user
        #[arg(value_name = "USER")]
        whom: String,
        /// Its rights: some of append, read, trim and admin with commas between, or none
        #[arg(value_parser = rights)]
        rights: Rights,
        /// Only say what would be changed
        #[arg(long)]
        plan: bool,
        #[command(flatten)]
        look: LookArgs,
    },
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// The name of the log: 1 to 64 of the characters a-z 0-9 - _ .
    log: String,
    /// What an ack means: D0 in memory, D1 flushed, D2 flushed in two failure domains
    #[arg(long, value_name = "CLASS", default_value = "D1", value_parser = class)]
    durability: Durability,
    /// The number of shards
    #[arg(long, value_name = "N", default_value_t = 1)]
    shards: usize,
    /// The replicas of a shard
    #[arg(long, value_name = "R", default_value_t = 2)]
    replicas: usize,
    /// How many replicas must hold a record: R, or k where R is 2k - 1; all of them unless said otherwise
    #[arg(long, value_name = "K")]
    quorum: Option<u8>,
    /// The nodes of one shard, in slot order; once for each shard
    #[arg(long, value_name = "NODE,..", conflicts_with_all = ["shards", "replicas"])]
    shard: Vec<String>,
    /// The size of the root group; 3 unless the cluster has fewer nodes
    #[arg(long, value_name = "N", conflicts_with = "root")]
    root_members: Option<usize>,
    /// The nodes of the root group, in slot order
    #[arg(long, value_name = "NODE,..", value_delimiter = ',')]
    root: Vec<String>,
    /// How many of the root group hold an entry before it is committed: majority or all
    #[arg(long, value_name = "WHO", default_value = "majority", value_parser = root_quorum)]
    root_quorum: RootQuorum,
    /// The node of the leaf, or the nodes of the ordering tree's vertices, by turns; that of the first root member unless
    /// said otherwise, and with --fan-in those of the root group and the shards
    #[arg(long, value_name = "NODE,..", value_delimiter = ',')]
    leaf: Vec<String>,
    #[command(flatten)]
    tree: TreeArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

fn class(text: &str) -> Result<Durability, String> {
    match text.to_ascii_uppercase().as_str() {
        "D0" => Ok(Durability::D0),
        "D1" => Ok(Durability::D1),
        "D2" => Ok(Durability::D2),
        _ => Err(String::from("one of D0, D1, D2")),
    }
}

fn rights(text: &str) -> Result<Rights, String> {
    let wrong =
        || String::from("some of append, read, trim and admin with commas between, or none");
    if matches!(text, "none" | "") {
        return Ok(Rights::NONE);
    }
    let named = text.split(',').map(|name| {
        let right = Rights::named(name.trim());
        right.filter(|right| USER_RIGHTS.holds(*right))
    });
    named
        .collect::<Option<Vec<Rights>>>()
        .map(|named| named.into_iter().fold(Rights::NONE, Rights::with))
        .ok_or_else(wrong)
}

fn root_quorum(text: &str) -> Result<RootQuorum, String> {
    match text {
        "majority" => Ok(RootQuorum::Majority),
        "all" => Ok(RootQuorum::All),
        _ => Err(String::from("majority or all")),
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Create(args) => {
            let controllers = Controllers::of(&args.change.look.at)?;
            let spec = args.spec(&controllers)?;
            controllers.change(&args.change, Operation::CreateLog(spec))
        }
        Command::List(look) => {
            let controllers = Controllers::of(&look.at)?;
            let cluster = controllers.describe("")?;
            let json = show::cluster_json(&cluster, &controllers.names);
            look.out
                .emit(&show::logs(&cluster, &controllers.names), &json)?;
            Ok(Exit::Done)
        }
        Command::Describe { log, look } => describe(log, look),
        Command::Delete { log, change } => {
            with_log(log, change, |_, log, _| Ok(Operation::DeleteLog { log }))
        }
        Command::RootMembers { log, nodes, change } => {
            with_log(log, change, |controllers, log, _| {
                let nodes = controllers.names.find_all(nodes)?;
                Ok(Operation::SetRoot { log, nodes })
            })
        }
        Command::MoveLeader { log, node, change } => {
            with_log(log, change, |controllers, log, members| {
                let node = controllers.names.find(node)?;
                let slot = members.iter().position(|member| *member == node);
                let slot = slot.ok_or_else(|| {
                    let names: Vec<String> = members
                        .iter()
                        .map(|node| controllers.names.show(*node))
                        .collect();
                    UsageError(format!(
                        "node {} is no member of the root group; those are {}",
                        controllers.names.show(node),
                        names.join(", ")
                    ))
                })?;
                let slot = Slot::new(slot as u8);
                Ok(Operation::MoveLeader { log, slot })
            })
        }
        Command::Grant {
            log,
            whom,
            rights,
            plan,
            look,
        } => {
            let controllers = Controllers::of(&look.at)?;
            let (log, user, rights) = (controllers.log(log)?.log, whom.clone(), *rights);
            let operation = Operation::GrantLog { log, user, rights };
            user::change(&controllers, look, *plan, operation)
        }
    }
}

/// Changes the log of a name; `operation` is told its id and the nodes of its root group.
fn with_log(
    name: &str,
    change: &ChangeArgs,
    operation: impl FnOnce(&Controllers, LogId, &[NodeId]) -> anyhow::Result<Operation>,
) -> anyhow::Result<Exit> {
    let controllers = Controllers::of(&change.look.at)?;
    let log = controllers.log(name)?;
    let members: Vec<NodeId> = log.root.members.iter().map(|place| place.node).collect();
    let operation = operation(&controllers, log.log, &members)?;
    controllers.change(change, operation)
}

fn describe(name: &str, look: &LookArgs) -> anyhow::Result<Exit> {
    let controllers = Controllers::of(&look.at)?;
    let names = &controllers.names;
    let cluster = controllers.describe(name)?;
    let text: Vec<String> = cluster
        .logs
        .iter()
        .map(|log| show::log(log, &cluster, names))
        .collect();
    let log = cluster.logs.first();
    let json = log.map(|log| show::log_json(log, &cluster, names));
    let under_way = cluster.under_way.iter().map(show::transaction_json);
    let json = json!({"log": json, "under_way": under_way.collect::<Vec<_>>()});
    look.out.emit(&text.join("\n"), &json)?;
    Ok(Exit::Done)
}

impl CreateArgs {
    /// The log that is asked for. What is not said is chosen from the cluster as it is.
    fn spec(&self, controllers: &Controllers) -> anyhow::Result<LogSpec> {
        let names = &controllers.names;
        let cluster = controllers.describe("")?;
        let mut shards = Vec::new();
        for shard in &self.shard {
            let nodes: Vec<String> = shard.split(',').map(str::to_owned).collect();
            shards.push(names.find_all(&nodes)?);
        }
        if shards.is_empty() {
            let domains = if self.durability == Durability::D2 {
                2
            } else {
                1
            };
            shards = placed(&cluster, self.shards, self.replicas, domains, "the shards")?;
        }
        let mut root = names.find_all(&self.root)?;
        if root.is_empty() {
            let free = candidates(&cluster).len();
            let members = self.root_members.unwrap_or(free.min(3));
            let mut chosen = placed(&cluster, 1, members, 1, "the root group")?;
            root = chosen.pop().unwrap_or_default();
        }
        let mut vertices = names.find_all(&self.leaf)?;
        if self.tree.fan_in.is_none() && vertices.len() > 1 {
            return Err(UsageError(format!(
                "one leaf has one node, not {}: say with --fan-in how many shards a leaf has",
                vertices.len()
            ))
            .into());
        }
        if vertices.is_empty() {
            let all = root.iter().chain(shards.iter().flatten()).copied();
            let mut seen = BTreeSet::new();
            vertices.extend(all.filter(|node| seen.insert(*node)));
        }
        let tree = self.tree.spec(shards.len(), &vertices)?;
        Ok(LogSpec {
            name: self.log.clone(),
            mode: OrderingMode::Scalog,
            class: self.durability,
            root,
            root_quorum: self.root_quorum,
            tree,
            quorum: self.quorum,
            shards,
        })
    }
}

/// The nodes that take new places.
fn candidates(cluster: &ClusterPicture) -> BTreeMap<NodeId, Candidate> {
    let nodes = cluster.nodes.iter().filter(|node| !node.drained);
    let candidate = |node: &ionian_control_core::NodePicture| Candidate {
        domain: node.domain,
        load: node.places as usize,
    };
    nodes.map(|node| (node.node, candidate(node))).collect()
}

fn placed(
    cluster: &ClusterPicture,
    groups: usize,
    members: usize,
    domains: usize,
    what: &str,
) -> Result<Vec<Vec<NodeId>>, UsageError> {
    let placed = place(groups, members, &candidates(cluster), domains);
    placed.map_err(|error| UsageError(format!("{what}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_named() {
        let some = Rights::APPEND.with(Rights::ADMIN);
        assert_eq!(rights("append,admin"), Ok(some));
        assert_eq!(rights("admin, append"), Ok(some));
        assert_eq!(rights("none"), Ok(Rights::NONE));
        assert_eq!(rights(""), Ok(Rights::NONE));
        for wrong in ["write", "append,", "member", "none,read"] {
            assert!(rights(wrong).is_err(), "{wrong}");
        }
    }
}
