//! `ionian config check`: everything that is wrong with a configuration file, or what it says.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ionian_control_core::RootQuorum;
use ionian_node::config::{ClusterConfig, LogConfig, NodeConfig, format_size};
use ionian_types::NodeId;
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::output::OutArgs;
use crate::table::Table;
use crate::tree;

/// Work with configuration files
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check a cluster's configuration: every error with its line, exit code 2, or what it says, exit code 0
    Check(CheckArgs),
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    /// The file
    #[arg(value_name = "FILE", default_value = "cluster.toml")]
    file: PathBuf,
    #[command(flatten)]
    out: OutArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let Command::Check(args) = &args.command;
    let config = ClusterConfig::load(&args.file)?;
    args.out.emit(&text(&config), &json(&config))?;
    Ok(Exit::Done)
}

fn text(config: &ClusterConfig) -> String {
    let mut nodes = Table::headed(&["node", "id", "address", "data", "domain", "roles"]);
    for node in &config.nodes {
        nodes.row(&[
            node.name.clone(),
            node.node.to_string(),
            node.address.clone(),
            node.data_dir.display().to_string(),
            node.domain.to_string(),
            roles(node).join(" "),
        ]);
    }
    let mut logs = Table::headed(&[
        "log",
        "mode",
        "durability",
        "shard",
        "replicas on",
        "root",
        "tree",
    ]);
    for log in &config.logs {
        for (shard, members) in log.shards.iter().enumerate() {
            logs.row(&[
                log.name.clone(),
                log.mode.to_string(),
                log.class.to_string(),
                shard.to_string(),
                names(config, members).join(" "),
                names(config, &log.roots).join(" "),
                tree_text(config, log),
            ]);
        }
    }
    format!(
        "{} is right: cluster {}, checksum {:08x}, memory {} and disk {} per process\n\n{}\n{}",
        config.file.display(),
        config.name,
        config.checksum,
        format_size(config.limits.memory_bytes_max),
        format_size(config.limits.disk_bytes_max),
        nodes.render(),
        logs.render(),
    )
}

fn json(config: &ClusterConfig) -> Value {
    let node = |node: &NodeConfig| {
        json!({
            "name": node.name, "id": node.node.get(), "address": node.address, "data_dir": node.data_dir,
            "domain": node.domain, "roles": roles(node), "cores": node.cores,
        })
    };
    let logs = config.logs.iter().map(|log| {
        let members = |shard: &Vec<NodeId>| names(config, shard);
        json!({
            "name": log.name, "mode": log.mode.to_string(), "durability": log.class.to_string(),
            "root": names(config, &log.roots), "root_quorum": quorum(log), "tree": tree_json(config, log),
            "shards": log.shards.iter().map(members).collect::<Vec<_>>(),
            "retention_bytes_max": log.retention_bytes_max,
        })
    });
    json!({
        "file": config.file, "cluster": config.name, "checksum": format!("{:08x}", config.checksum),
        "nodes": config.nodes.iter().map(node).collect::<Vec<_>>(), "logs": logs.collect::<Vec<_>>(),
        "limits": {
            "memory_bytes_max": config.limits.memory_bytes_max, "disk_bytes_max": config.limits.disk_bytes_max,
            "connections_max": config.limits.connections_max,
            "uncommitted_records_max": config.limits.uncommitted_records_max,
            "cut_log_bytes_max": config.limits.cut_log_bytes_max,
        },
    })
}

/// The ordering tree of a log: its form, and the nodes that have its vertices.
fn tree_text(config: &ClusterConfig, log: &LogConfig) -> String {
    let nodes: BTreeSet<&str> = names(config, &log.tree.nodes).into_iter().collect();
    let nodes: Vec<&str> = nodes.into_iter().collect();
    let children = log.tree.shape.iter().map(|vertex| vertex.children);
    format!("{} on {}", tree::in_words(children), nodes.join(" "))
}

fn tree_json(config: &ClusterConfig, log: &LogConfig) -> Value {
    let vertices = log.tree.shape.iter().zip(&log.tree.nodes);
    let vertices = vertices.map(|(shape, node)| {
        json!({
            "children": shape.children, "rank": shape.begins.0, "shard": shape.begins.1.get(),
            "node": name(config, *node),
        })
    });
    vertices.collect()
}

fn roles(node: &NodeConfig) -> Vec<&'static str> {
    let roles = node.roles;
    [
        (roles.controller, "controller"),
        (roles.root, "root"),
        (roles.leaf, "leaf"),
        (roles.replica, "replica"),
    ]
    .into_iter()
    .filter_map(|(has, role)| has.then_some(role))
    .collect()
}

const fn quorum(log: &LogConfig) -> &'static str {
    match log.root_quorum {
        RootQuorum::Majority => "majority",
        RootQuorum::All => "all",
    }
}

fn names<'a>(config: &'a ClusterConfig, ids: &[NodeId]) -> Vec<&'a str> {
    ids.iter().map(|id| name(config, *id)).collect()
}

fn name(config: &ClusterConfig, id: NodeId) -> &str {
    config.node_by_id(id).map_or("", |node| node.name.as_str())
}
