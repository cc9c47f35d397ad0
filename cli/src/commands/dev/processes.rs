//! `ionian dev --processes`: a whole cluster as it runs in earnest, on one machine: three controllers and some nodes, each a
//! process.
//!
//! Everything lies in the data folder: the configuration, the CA, certificates, and a log file per process. Children end with
//! this process however it ends, since the pipe that is their standard input closes with it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ionian_control_client::identity::Role;
use ionian_node::config::{ClusterConfig, Secret, format_size};
use ionian_types::NodeId;

use super::Args;
use crate::commands::{ca, cluster};
use crate::connect::{ClusterArgs, Target, dev_secret_file, first_map, locate};
use crate::controllers::{ADMIN, ControllersArgs};
use crate::exit::{Exit, UsageError};
use crate::signals::Signalled;
use crate::table::Table;

/// Controllers of the cluster.
const CONTROLLERS: u16 = 3;
/// Ports between the first node and the first controller; there are fewer nodes than that.
const PORTS: u16 = 10;
/// How often it is looked whether everybody still runs.
const LOOK: Duration = Duration::from_millis(200);
/// How long the cluster may take until it takes appends.
const READY: Duration = Duration::from_secs(60);
/// How long a child may take to end when asked to.
const END: Duration = Duration::from_secs(10);

/// A process of the cluster.
struct Member {
    /// `controller 1`, `node n2`.
    name: String,
    address: String,
    log: PathBuf,
    /// What starts it, without the program's name.
    arguments: Vec<String>,
    child: Child,
    /// Its end was told.
    gone: bool,
}

pub(super) fn run(args: &Args, data_dir: &Path, signalled: &Signalled) -> anyhow::Result<Exit> {
    fs::create_dir_all(data_dir)
        .with_context(|| format!("cannot make the data folder {}", data_dir.display()))?;
    let config = configuration(args, data_dir)?;
    let mut roles: Vec<Role> = ca::members(&config);
    roles.push(Role::User(ADMIN.to_owned()));
    ca::ensure(
        &config.name,
        &roles,
        &data_dir.join("ca"),
        &config.certificate_dir,
    )?;
    let secret = Secret::load_or_create(&config.secret_file)?;
    let published = config.nodes[0].resolve()?.port();
    let mut members = Vec::new();
    let result = work(
        &config,
        &mut members,
        &secret,
        published,
        data_dir,
        signalled,
    );
    end(&mut members);
    // The next cluster at this port has another secret; one that is started already has put its own here.
    let published = dev_secret_file(published);
    if Secret::load(&published).is_ok_and(|found| found == secret) {
        let _ = fs::remove_file(&published);
    }
    result
}

fn work(
    config: &ClusterConfig,
    members: &mut Vec<Member>,
    secret: &Secret,
    port: u16,
    data_dir: &Path,
    signalled: &Signalled,
) -> anyhow::Result<Exit> {
    let began = Instant::now();
    start(config, data_dir, members)?;
    let client = ControllersArgs::of(&config.file).client()?;
    let ready = |members: &mut Vec<Member>| -> anyhow::Result<bool> {
        if let Some(dead) = newly_dead(members) {
            bail!("{dead}");
        }
        if began.elapsed() > READY {
            bail!(
                "the cluster is not ready after {} s; the logs in {} say why",
                READY.as_secs(),
                data_dir.join("logs").display()
            );
        }
        Ok(signalled.wait(Duration::from_millis(20)))
    };
    while !cluster::ensure_founded(config, &client)? {
        if ready(members)? {
            return Ok(Exit::Done);
        }
    }
    secret.publish(&dev_secret_file(port))?;
    while !is_open(config) {
        if ready(members)? {
            return Ok(Exit::Done);
        }
    }
    eprint!("{}", told(config, members, data_dir, began.elapsed()));
    while !signalled.wait(LOOK) {
        while let Some(dead) = newly_dead(members) {
            eprintln!("ionian: {dead}");
        }
        if members.iter().all(|member| member.gone) {
            bail!("every process of the cluster has ended");
        }
    }
    eprintln!("ionian: ending");
    Ok(Exit::Done)
}

/// The configuration in the data folder; made of the command line where there is none.
fn configuration(args: &Args, data_dir: &Path) -> anyhow::Result<ClusterConfig> {
    let file = data_dir.join("cluster.toml");
    if file.exists() {
        eprintln!(
            "ionian: the cluster of {} goes on as that file says",
            file.display()
        );
    } else {
        if data_dir.join("node").exists() {
            let what = format!(
                "{} is the data folder of a cluster in one process: run it without --processes, or name another folder",
                data_dir.display()
            );
            return Err(UsageError(what).into());
        }
        fs::write(&file, text(args)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    // Where its processes look for it, whatever their working directory.
    let file = file
        .canonicalize()
        .with_context(|| format!("cannot find {}", file.display()))?;
    let config = ClusterConfig::load(&file)?;
    if config.controllers.is_empty() || config.nodes.len() > usize::from(PORTS) {
        let what = format!("{} is not of `ionian dev --processes`", file.display());
        return Err(UsageError(what).into());
    }
    Ok(config)
}

/// A configuration as the command line says it.
fn text(args: &Args) -> anyhow::Result<String> {
    if u16::from(args.replicas) > args.nodes {
        let (replicas, nodes) = (args.replicas, args.nodes);
        let what =
            format!("{replicas} replicas need as many nodes, there are {nodes}: give --nodes N");
        return Err(UsageError(what).into());
    }
    let ip = args.listen.ip();
    let host = if ip.is_ipv6() {
        format!("[{ip}]")
    } else {
        ip.to_string()
    };
    let first = args.listen.port();
    if first.checked_add(PORTS + CONTROLLERS).is_none() {
        return Err(UsageError(format!("there are no ports after {first} for the others")).into());
    }
    let nodes: Vec<NodeId> = (1..=u32::from(args.nodes)).map(NodeId::new).collect();
    args.tree.spec(args.shards as usize, &nodes)?;
    // The vertices of a tree of several lie on all nodes.
    let spread = args.tree.fan_in.is_some();
    let mut text = String::from(
        "# Made by `ionian dev --processes`: three controllers and some nodes on one machine.\ncluster = \"dev\"\n",
    );
    for id in 1..=CONTROLLERS {
        let port = first + PORTS + id - 1;
        let _ = write!(
            text,
            "\n[[controllers]]\nid = {id}\naddress = \"{host}:{port}\"\n"
        );
    }
    for id in 1..=args.nodes {
        let port = first + id - 1;
        let roles = match id {
            1 => "\"root\", \"leaf\", \"replica\"",
            _ if spread => "\"leaf\", \"replica\"",
            _ => "\"replica\"",
        };
        let _ = write!(
            text,
            "\n[[nodes]]\nname = \"n{id}\"\nid = {id}\naddress = \"{host}:{port}\"\nroles = [{roles}]\n"
        );
    }
    for log in &args.logs {
        let _ = write!(
            text,
            "\n[[logs]]\nname = \"{log}\"\nshards = {}\nreplicas = {}\ndurability = \"{}\"\n",
            args.shards, args.replicas, args.durability
        );
        if let Some(fan_in) = args.tree.fan_in {
            let leaf = (1..=args.nodes).map(|id| format!("\"n{id}\""));
            let leaf = leaf.collect::<Vec<_>>().join(", ");
            let _ = write!(text, "leaf = [{leaf}]\nfan_in = {fan_in}\n");
        }
        if let Some(depth) = args.tree.depth {
            let _ = writeln!(text, "depth = {depth}");
        }
    }
    let _ = write!(
        text,
        "\n[limits]\nmemory_bytes_max = \"{}\"\ndisk_bytes_max = \"{}\"\n\n[cores]\nplan = \"cooperative\"\n",
        format_size(args.memory_bytes_max),
        format_size(args.disk_bytes_max)
    );
    Ok(text)
}

/// Starts every process; those that were started are in `members` whatever happens.
fn start(config: &ClusterConfig, data_dir: &Path, members: &mut Vec<Member>) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("where this program is")?;
    let logs = data_dir.join("logs");
    fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    let file = config.file.display().to_string();
    let line = |command: &str, option: &str, who: &str| {
        [command, "--config", &file, option, who].map(str::to_owned)
    };
    let controllers = config.controllers.iter().map(|one| {
        let arguments = line("controller", "--id", &one.id.to_string());
        (
            format!("controller {}", one.id),
            one.address.clone(),
            arguments,
        )
    });
    let nodes = config.nodes.iter().map(|node| {
        let arguments = line("node", "--node", &node.name);
        (
            format!("node {}", node.name),
            node.address.clone(),
            arguments,
        )
    });
    for (name, address, arguments) in controllers.chain(nodes) {
        let log = logs.join(format!("{}.log", name.replace(' ', "-")));
        let output = File::options().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new(&program)
            .args(&arguments)
            .arg("--end-with-stdin")
            .stdin(Stdio::piped())
            .stdout(output.try_clone().context("the log file")?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        members.push(Member {
            name,
            address,
            log,
            arguments: arguments.to_vec(),
            child,
            gone: false,
        });
    }
    Ok(())
}

/// What is to be said of a process that has ended since the last look.
fn newly_dead(members: &mut [Member]) -> Option<String> {
    for member in members.iter_mut().filter(|member| !member.gone) {
        let Ok(Some(status)) = member.child.try_wait() else {
            continue;
        };
        member.gone = true;
        return Some(format!(
            "{} (process {}) has ended: {status}; its log is {}; `ionian {}` starts it again",
            member.name,
            member.child.id(),
            member.log.display(),
            member.arguments.join(" ")
        ));
    }
    None
}

/// Whether every shard is open, as a node says.
fn is_open(config: &ClusterConfig) -> bool {
    let args = ClusterArgs {
        cluster: Target::File(config.file.clone()),
        secret: None,
        user: None,
    };
    let map = locate(&args).and_then(|at| first_map(&at));
    map.is_ok_and(|link| {
        let mut shards = link.map().logs.iter().flat_map(|log| &log.shards);
        shards.all(|shard| shard.open || shard.finalized)
    })
}

/// What one does with the cluster.
fn told(config: &ClusterConfig, members: &[Member], data_dir: &Path, after: Duration) -> String {
    let mut table = Table::headed(&["process", "id", "address", "log"]);
    for member in members {
        table.row(&[
            member.name.clone(),
            format!("{}", member.child.id()),
            member.address.clone(),
            member.log.display().to_string(),
        ]);
    }
    let file = config.file.display();
    let log = config.logs.first().filter(|log| log.name != "default");
    let log = log.map_or_else(String::new, |log| format!(" --log {}", log.name));
    let last = members.last();
    let victim = last.map_or(0, |member| member.child.id());
    let again = last.map_or_else(String::new, |member| member.arguments.join(" "));
    let all = format!("ionian dev --processes --data-dir {}", data_dir.display());
    format!(
        "{}\nready after {:.1} s; in another terminal:\n  seq 1 1000 | ionian append --cluster {file}{log}\n  ionian tail --cluster {file}{log}\n  ionian status --cluster {file}\n  ionian cluster status --config {file}\n  ionian cluster nodes --config {file}\nkill one of them, and start it again:\n  kill -9 {victim}\n  ionian {again}\nagain with the same data:\n  {all}\n",
        table.render(),
        after.as_secs_f64()
    )
}

/// Asks every process to end, and ends those that do not.
fn end(members: &mut [Member]) {
    for member in members.iter_mut() {
        drop(member.child.stdin.take());
    }
    let began = Instant::now();
    for member in members.iter_mut() {
        while matches!(member.child.try_wait(), Ok(None)) {
            if began.elapsed() > END {
                // It may have ended meanwhile.
                let _ = member.child.kill();
                let _ = member.child.wait();
                break;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}
