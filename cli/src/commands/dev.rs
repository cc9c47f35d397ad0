//! `ionian dev`: a whole cluster in one process, for development; or as in earnest, in several on one machine.

mod processes;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ionian_control_core::RootQuorum;
use ionian_node::Server;
use ionian_node::config::{
    ClusterConfig, CoreConfig, Limits, LogConfig, NetworkConfig, NodeConfig, PlanChoice, Roles,
    Secret, Timing, format_size, parse_size,
};
use ionian_types::{Durability, NodeId, OrderingMode};

use super::node::{MiddlewareArgs, serve};
use crate::banner::{banner, lines_to_paste};
use crate::connect::{DEFAULT_ADDRESS, dev_secret_file};
use crate::exit::{Exit, UsageError};
use crate::signals::Signalled;
use crate::tree::TreeArgs;

/// Run a whole cluster in one process, or with --processes in several
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Clients on this machine find it without any option. Ends on SIGTERM or SIGINT; a second one ends it at once. Exit code 4: a device failed."
)]
pub(crate) struct Args {
    /// Where state is kept; without it, in a new temporary folder, which is printed and stays
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where clients connect
    #[arg(long, value_name = "ADDR", default_value = DEFAULT_ADDRESS)]
    listen: SocketAddr,
    /// A log to have; may be given more than once
    #[arg(long = "log", value_name = "NAME", default_value = "default")]
    logs: Vec<String>,
    /// Shards of each log
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    shards: u32,
    /// Replicas of each shard
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=7))]
    replicas: u8,
    /// Members of the root group of each log, which decides the order
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    root_members: u8,
    #[command(flatten)]
    tree: TreeArgs,
    /// What an acknowledgement means: D0 memory, D1 flushed to the device
    #[arg(long, value_name = "CLASS", default_value = "D1", value_parser = ["D0", "D1"])]
    durability: String,
    /// Memory for records
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
    memory_bytes_max: u64,
    /// Space for records in the data folder
    #[arg(long, value_name = "SIZE", default_value = "16GiB", value_parser = parse_size)]
    disk_bytes_max: u64,
    /// How roles share threads, and threads cores: one thread for all, a thread per core, or a thread and a core per role
    #[arg(long, value_name = "PLAN", default_value = "cooperative", value_parser = ["cooperative", "packed", "dedicated"])]
    core_plan: String,
    /// Run three controllers and the nodes as processes of their own, as a cluster of several machines does
    #[arg(long, conflicts_with_all = ["core_plan", "insecure_no_auth", "trace", "faults", "fail_flush"])]
    processes: bool,
    /// Nodes, with --processes
    #[arg(long, value_name = "N", default_value_t = 3, requires = "processes", value_parser = clap::value_parser!(u16).range(1..=7))]
    nodes: u16,
    /// Listen beyond loopback, although frames are neither encrypted nor signed
    #[arg(long)]
    insecure_no_auth: bool,
    #[command(flatten)]
    middleware: MiddlewareArgs,
}

/// The name of the only node.
pub(crate) const NODE: &str = "dev";

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut logs = args.logs.clone();
    logs.sort();
    if logs.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(UsageError(String::from("each --log must have a name of its own")).into());
    }
    if args.listen.port() == 0 {
        return Err(
            UsageError(String::from("port 0 is no place where clients can find it")).into(),
        );
    }
    let signalled = Signalled::listen()?;
    args.tree.spec(args.shards as usize, &[NodeId::ZERO])?;
    let data_dir = match &args.data_dir {
        Some(dir) => dir.clone(),
        None => new_folder()?,
    };
    if args.processes {
        return processes::run(args, &data_dir, &signalled);
    }
    let config = config(args, &data_dir)?;
    let made = Made::note(&data_dir, args.data_dir.is_none());
    let started = start(args, &config);
    if started.is_err() {
        made.remove();
    }
    let (server, secret) = started?;
    let published = dev_secret_file(args.listen.port());
    secret.publish(&published)?;
    eprint!("{}", banner(&config, NODE, &server));
    eprint!("{}", hints(args, &data_dir));
    let result = serve(server, &signalled);
    // The next cluster at this port has another secret; one that is started already has put its own here.
    if Secret::load(&published).is_ok_and(|found| found == secret) {
        let _ = std::fs::remove_file(&published);
    }
    result
}

fn start(args: &Args, config: &ClusterConfig) -> anyhow::Result<(Server, Secret)> {
    let data_dir = &config.nodes[0].data_dir;
    std::fs::create_dir_all(data_dir)
        .with_context(|| format!("cannot make the data folder {}", data_dir.display()))?;
    let secret = Secret::load_or_create(&config.secret_file)?;
    let mut options = config
        .server_options(NODE, secret.clone(), args.insecure_no_auth)
        .map_err(|error| UsageError(error.to_string()))?;
    args.middleware.apply(&mut options);
    let server = Server::start(options).context("the cluster did not start")?;
    Ok((server, secret))
}

/// The folders that a run makes, to be removed if it does not come to a start.
struct Made {
    data_dir: PathBuf,
    /// The data folder first, then those above it.
    folders: Vec<PathBuf>,
}

impl Made {
    /// What is about to be made. `anew` says that the data folder was made by this run.
    fn note(data_dir: &Path, anew: bool) -> Self {
        let missing = data_dir
            .ancestors()
            .filter(|folder| !folder.as_os_str().is_empty());
        let missing = missing.take_while(|folder| !folder.exists());
        let mut folders: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        if anew {
            folders.push(data_dir.to_owned());
        }
        Self {
            data_dir: data_dir.to_owned(),
            folders,
        }
    }

    /// Removes it, unless there is more in it than the names that a start begins with. What cannot be removed stays.
    fn remove(&self) {
        const NAMES: [&str; 3] = ["LOCK", "node", "cluster.secret"];
        if self.folders.is_empty() {
            return;
        }
        let Ok(entries) = std::fs::read_dir(&self.data_dir) else {
            return;
        };
        let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        if names.iter().all(|name| NAMES.iter().any(|own| name == own)) {
            for name in names {
                let _ = std::fs::remove_file(self.data_dir.join(name));
            }
            for folder in &self.folders {
                let _ = std::fs::remove_dir(folder);
            }
        }
    }
}

/// Lines to paste into another terminal.
fn hints(args: &Args, data_dir: &Path) -> String {
    let mut arguments = String::new();
    if args.listen.to_string() != DEFAULT_ADDRESS {
        arguments += &format!(" --cluster {}", args.listen);
    }
    match args.logs.first() {
        Some(log) if args.logs.iter().all(|log| log != "default") => {
            arguments += &format!(" --log {log}");
        }
        _ => {}
    }
    let mut text = lines_to_paste(&arguments);
    if args.durability == "D0" {
        text += "its records are in memory only and end with it\n";
    } else {
        text += &format!("again with the same data:\n  {}\n", again(args, data_dir));
    }
    text
}

/// The command that starts the same cluster once more.
fn again(args: &Args, data_dir: &Path) -> String {
    let mut line = format!("ionian dev --data-dir {}", data_dir.display());
    let mut option = |name: &str, value: String, default: &str| {
        if value != default {
            line += &format!(" --{name} {value}");
        }
    };
    option("listen", args.listen.to_string(), DEFAULT_ADDRESS);
    if args.logs != ["default"] {
        for log in &args.logs {
            option("log", log.clone(), "");
        }
    }
    option("shards", args.shards.to_string(), "2");
    option("replicas", args.replicas.to_string(), "2");
    option("root-members", args.root_members.to_string(), "1");
    option(
        "memory-bytes-max",
        format_size(args.memory_bytes_max),
        "1GiB",
    );
    option("disk-bytes-max", format_size(args.disk_bytes_max), "16GiB");
    option("core-plan", args.core_plan.clone(), "cooperative");
    line += &args.tree.line();
    if args.insecure_no_auth {
        line += " --insecure-no-auth";
    }
    line
}

/// The configuration of a cluster in one process.
fn config(args: &Args, data_dir: &Path) -> Result<ClusterConfig, UsageError> {
    let node = NodeId::new(1);
    let class = if args.durability == "D0" {
        Durability::D0
    } else {
        Durability::D1
    };
    let tree = args.tree.spec(args.shards as usize, &[node])?;
    let log = |name: &String| LogConfig {
        name: name.clone(),
        mode: OrderingMode::Scalog,
        class,
        roots: vec![node; usize::from(args.root_members)],
        root_quorum: RootQuorum::Majority,
        tree: tree.clone(),
        shards: vec![vec![node; usize::from(args.replicas)]; args.shards as usize],
        retention_bytes_max: None,
    };
    Ok(ClusterConfig {
        file: PathBuf::new(),
        checksum: 0,
        name: String::from("dev"),
        secret_file: data_dir.join("cluster.secret"),
        certificate_dir: data_dir.join("certificates"),
        controllers: Vec::new(),
        controller: Some(node),
        nodes: vec![NodeConfig {
            node,
            name: String::from(NODE),
            address: args.listen.to_string(),
            data_dir: data_dir.to_owned(),
            domain: 1,
            roles: Roles {
                controller: true,
                root: true,
                leaf: true,
                replica: true,
            },
            cores: None,
        }],
        logs: args.logs.iter().map(log).collect(),
        limits: Limits {
            memory_bytes_max: args.memory_bytes_max,
            disk_bytes_max: args.disk_bytes_max,
            copies_planned: 0,
            connections_max: 256,
            uncommitted_records_max: 1 << 18,
            cut_log_bytes_max: 1 << 30,
        },
        cores: CoreConfig {
            plan: match args.core_plan.as_str() {
                "packed" => PlanChoice::Packed,
                "dedicated" => PlanChoice::Dedicated,
                _ => PlanChoice::Cooperative,
            },
            fifo: false,
            spin_us: None,
        },
        network: NetworkConfig::default(),
        timing: Timing::default(),
    })
}

/// A new folder with a name that was free.
fn new_folder() -> anyhow::Result<PathBuf> {
    let base = std::env::temp_dir();
    for number in 0..1000 {
        let folder = base.join(format!("ionian-dev-{}-{number}", std::process::id()));
        match std::fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot make {}", folder.display()));
            }
        }
    }
    bail!("no free name for a folder in {}", base.display())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_same_cluster_again_has_the_same_tree() {
        let line = ["dev", "--shards", "4", "--fan-in", "2", "--depth", "3"];
        let line = Line::parse_from(line);
        let folder = Path::new("data");
        let said = again(&line.args, folder);
        assert_eq!(
            said,
            "ionian dev --data-dir data --shards 4 --fan-in 2 --depth 3"
        );
        let made = config(&line.args, folder).unwrap();
        assert_eq!(made.logs[0].tree.shape.len(), 4);
        let flat = Line::parse_from(["dev", "--shards", "9", "--fan-in", "2", "--depth", "1"]);
        let refused = config(&flat.args, folder).unwrap_err();
        assert!(refused.0.contains("need 3 levels"), "{}", refused.0);
    }
}
