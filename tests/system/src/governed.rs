//! A cluster that is governed by three controllers, as it runs in earnest: every controller and every node a process, founded
//! by the operators' commands, on loopback or each in a network namespace.
//!
//! The first [`Layout::roots`] nodes are the members of every root group, the second of them has the leaf unless a tree is asked
//! for. The others hold replicas, or wait for some.

use std::fmt::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::binary::{Binary, Output};
use crate::net::Net;
use crate::process::{Process, wait_until};

/// The controllers of every cluster.
pub const CONTROLLERS: usize = 3;
/// Where every node of a network listens, and every controller.
const PORT: u16 = 7400;
/// `copies_planned` as shipped, of 1 GiB of memory and 16 GiB of disk.
const SHIPPED_COPIES: u64 = 16;
/// One command of an operator that only asks.
const ASK_LIMIT: Duration = Duration::from_secs(30);
/// One command of an operator that changes something.
const CHANGE_LIMIT: Duration = Duration::from_secs(180);
/// How long a cluster may take until it takes appends.
const FOUNDED_LIMIT: Duration = Duration::from_secs(120);
/// How long a process that was asked to end may take.
const END_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at a cluster: each is several processes.
const LOOK: Duration = Duration::from_millis(50);

/// A process of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Who {
    /// A controller, from 0.
    Controller(usize),
    /// A node, from 0.
    Node(usize),
}

impl Who {
    /// Its name, as the configuration has it: `c1`, `n1`.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Controller(at) => format!("c{}", at + 1),
            Self::Node(at) => format!("n{}", at + 1),
        }
    }
}

/// What a cluster begins with.
#[derive(Clone, Debug)]
pub struct Layout<'a> {
    /// The nodes.
    pub nodes: usize,
    /// How many of them, from the first on, are the root group of log `default`; they hold no replicas.
    pub roots: usize,
    /// The nodes of each shard of log `default`.
    pub shards: &'a [&'a [usize]],
    /// Its ordering tree; one leaf if none is said.
    pub tree: Option<Tree<'a>>,
    /// `dead_after_ms`.
    pub dead_after_ms: u64,
    /// Entries after which a controller makes a snapshot; as shipped unless said otherwise.
    pub snapshot_entries: Option<u64>,
    /// How many copies a node has room for, those of shards that have ended included; as shipped unless said otherwise.
    pub copies_planned: Option<u64>,
    /// Processes whose data lie elsewhere.
    pub data: Vec<(Who, PathBuf)>,
}

/// An ordering tree that a log begins with.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    /// The nodes that have its vertices, by turns.
    pub nodes: &'a [usize],
    /// The most shards below a leaf, and the most vertices below an aggregator or the root.
    pub fan_in: u16,
    /// Its levels below the root.
    pub depth: u8,
}

impl Layout<'_> {
    /// The sites that a network for it needs: the controllers, the nodes, and one for clients and operators.
    #[must_use]
    pub const fn sites(&self) -> usize {
        CONTROLLERS + self.nodes + 1
    }
}

/// The site of a process in a network.
#[must_use]
pub const fn site(who: Who) -> usize {
    match who {
        Who::Controller(at) => at,
        Who::Node(at) => CONTROLLERS + at,
    }
}

#[derive(Debug)]
struct Member {
    who: Who,
    binary: Binary,
    process: Option<Process>,
}

/// The processes of such a cluster.
#[derive(Debug)]
pub struct Governed {
    /// What clients and operators run.
    binary: Binary,
    dir: PathBuf,
    file: String,
    data: Vec<(Who, PathBuf)>,
    snapshot_entries: Option<u64>,
    members: Vec<Member>,
}

impl Governed {
    /// Founds a cluster in `dir`: certificates, processes, the group of controllers. Returns once it takes appends.
    ///
    /// # Errors
    /// When a file cannot be written, a process not started, or the cluster does not come up in two minutes.
    pub fn found(
        binary: &Binary,
        dir: &Path,
        layout: &Layout<'_>,
        net: Option<&Net>,
    ) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let dir = dir
            .canonicalize()
            .with_context(|| format!("finding {}", dir.display()))?;
        let file = dir.join("cluster.toml");
        std::fs::write(&file, configuration(layout, net)?)
            .with_context(|| format!("writing {}", file.display()))?;
        let everybody = (0..layout.nodes)
            .map(Who::Node)
            .chain((0..CONTROLLERS).map(Who::Controller));
        let within = |site: usize| match net {
            Some(net) => binary.within(net.namespace(site)),
            None => binary.clone(),
        };
        let members = everybody.map(|who| Member {
            who,
            binary: within(site(who)),
            process: None,
        });
        let mut cluster = Self {
            binary: within(layout.sites() - 1),
            file: file.display().to_string(),
            data: layout.data.clone(),
            snapshot_entries: layout.snapshot_entries,
            members: members.collect(),
            dir,
        };
        cluster.operate(&["ca", "create"])?;
        for at in 0..cluster.members.len() {
            cluster.start(cluster.members[at].who)?;
        }
        // Waits for controllers that have not begun to listen.
        let wait = FOUNDED_LIMIT.as_secs().to_string();
        cluster.operate(&["cluster", "init", "--wait", &wait])?;
        cluster.until("it takes appends", FOUNDED_LIMIT, Self::takes_appends)?;
        Ok(cluster)
    }

    /// The configuration's file, for `--cluster` and `--config`.
    #[must_use]
    pub fn config(&self) -> &Path {
        Path::new(&self.file)
    }

    /// The binary that its clients run.
    #[must_use]
    pub const fn binary(&self) -> &Binary {
        &self.binary
    }

    /// Every process of it.
    pub fn everybody(&self) -> impl Iterator<Item = Who> + use<> {
        let all: Vec<Who> = self.members.iter().map(|member| member.who).collect();
        all.into_iter()
    }

    /// Where a process keeps its state.
    #[must_use]
    pub fn data_dir(&self, who: Who) -> PathBuf {
        if let Some((_, dir)) = self.data.iter().find(|(other, _)| *other == who) {
            return dir.clone();
        }
        let name = match who {
            Who::Controller(at) => format!("controller-{}", at + 1),
            Who::Node(_) => who.name(),
        };
        self.dir.join("data").join(name)
    }

    fn member(&mut self, who: Who) -> Result<&mut Member> {
        let found = self.members.iter_mut().find(|member| member.who == who);
        found.with_context(|| format!("there is no {}", who.name()))
    }

    /// Whether the process of `who` was started and not ended since.
    #[must_use]
    pub fn has(&self, who: Who) -> bool {
        let found = self.members.iter().find(|member| member.who == who);
        found.is_some_and(|member| member.process.is_some())
    }

    /// Starts a process that does not run.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, who: Who) -> Result<()> {
        let (id, name) = match who {
            Who::Controller(at) => ((at + 1).to_string(), who.name()),
            Who::Node(_) => (String::new(), who.name()),
        };
        let arguments = match who {
            Who::Controller(_) => ["controller", "--id", &id, "--config", &self.file],
            Who::Node(_) => ["node", "--node", &name, "--config", &self.file],
        }
        .map(str::to_owned);
        let (dir, log) = (self.dir.clone(), self.dir.join(format!("{name}.log")));
        let entries = self.snapshot_entries.map(|entries| entries.to_string());
        let member = self.member(who)?;
        let mut command = member.binary.command(arguments);
        if matches!(who, Who::Node(_)) {
            // Ignored on loopback; elsewhere nothing but this test can reach the addresses.
            command.arg("--insecure-no-auth");
        } else if let Some(entries) = entries {
            command.args(["--snapshot-entries", &entries]);
        }
        command.current_dir(dir);
        member.process = Some(Process::start(&mut command, &log)?);
        Ok(())
    }

    /// Where a process listens.
    ///
    /// # Errors
    /// When the configuration does not say.
    pub fn address(&self, who: Who) -> Result<String> {
        let text = std::fs::read_to_string(&self.file)?;
        let (kind, key) = match who {
            Who::Controller(at) => ("[[controllers]]", format!("id = {}", at + 1)),
            Who::Node(_) => ("[[nodes]]", format!("name = \"{}\"", who.name())),
        };
        let mut entries = text.split("\n\n").filter(|entry| entry.contains(kind));
        let entry = entries.find(|entry| entry.lines().any(|line| line == key));
        let mut lines = entry.unwrap_or_default().lines();
        let address = lines.find_map(|line| line.strip_prefix("address = \"")?.strip_suffix('"'));
        address
            .map(str::to_owned)
            .with_context(|| format!("no address of {}", who.name()))
    }

    /// The resident memory of a process, in KiB.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resident_kib(&self, who: Who) -> Result<u64> {
        let found = self.members.iter().find(|member| member.who == who);
        let process = found.and_then(|member| member.process.as_ref());
        process
            .with_context(|| format!("{} does not run", who.name()))?
            .resident_kib()
    }

    /// Kills a process as a crash would.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&mut self, who: Who) -> Result<()> {
        match self.member(who)?.process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Stops a process where it is.
    ///
    /// # Errors
    /// When it does not run, or cannot be signalled.
    pub fn pause(&mut self, who: Who) -> Result<()> {
        self.running(who)?.pause()
    }

    /// Lets a process that was stopped go on.
    ///
    /// # Errors
    /// As [`Self::pause`].
    pub fn resume(&mut self, who: Who) -> Result<()> {
        self.running(who)?.resume()
    }

    fn running(&mut self, who: Who) -> Result<&mut Process> {
        let process = self.member(who)?.process.as_mut();
        process.with_context(|| format!("{} does not run", who.name()))
    }

    /// Asks a process to end, once, and waits for it.
    ///
    /// # Errors
    /// When it does not end in a minute (it is then killed), or ends with another code than 0.
    pub fn end(&mut self, who: Who) -> Result<()> {
        let Some(mut process) = self.member(who)?.process.take() else {
            return Ok(());
        };
        process.ask_to_end()?;
        ended(&mut process, who)
    }

    /// Whether a process that was started has ended by itself.
    ///
    /// # Errors
    /// The system's.
    pub fn has_ended(&mut self, who: Who) -> Result<bool> {
        match &mut self.member(who)?.process {
            Some(process) => Ok(!process.is_running()?),
            None => Ok(false),
        }
    }

    /// What a process said last.
    #[must_use]
    pub fn last_words(&self, who: Who) -> String {
        let found = self.members.iter().find(|member| member.who == who);
        let process = found.and_then(|member| member.process.as_ref());
        process.map_or_else(String::new, Process::last_words)
    }

    /// Runs a command of an operator, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub fn ask(&self, line: &[&str]) -> Result<Output> {
        self.run(line, ASK_LIMIT)
    }

    /// As [`Self::ask`], for a change, which takes longer.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn ask_patiently(&self, line: &[&str]) -> Result<Output> {
        self.run(line, CHANGE_LIMIT)
    }

    fn run(&self, line: &[&str], limit: Duration) -> Result<Output> {
        let line = [line, &["--config", &self.file]].concat();
        self.binary.run(&line, b"", limit)
    }

    /// Runs a command of an operator that must succeed; returns what it printed.
    ///
    /// # Errors
    /// When it ends with another code than 0, with what it said.
    pub fn operate(&self, line: &[&str]) -> Result<String> {
        let output = self.run(line, CHANGE_LIMIT)?;
        ensure!(
            output.code == Some(0),
            "`ionian {}` ended with {:?}: {}",
            line.join(" "),
            output.code,
            output.stderr.trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What a command says with `--json`.
    ///
    /// # Errors
    /// When it says no JSON: with what it said instead.
    pub fn json(&self, line: &[&str]) -> Result<Value> {
        let output = self.ask(&[line, &["--json"]].concat())?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("`ionian {}`: {}", line.join(" "), output.stderr.trim()))
    }

    /// How the group of controllers stands.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn group(&self) -> Result<Value> {
        self.json(&["cluster", "status"])
    }

    /// The controller that leads with a majority behind it.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn leader(&self) -> Result<Option<Who>> {
        let leader = self.group()?["leader"].as_u64();
        Ok(leader.map(|id| Who::Controller(id as usize - 1)))
    }

    /// A log, as the controllers describe it.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn log(&self, name: &str) -> Result<Value> {
        Ok(self.json(&["log", "describe", name])?["log"].take())
    }

    /// The node that leads a log's root group.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn root_leader(&self, name: &str) -> Result<Option<Who>> {
        let log = self.log(name)?;
        let root = &log["root"];
        let slot = root["leader"].as_u64().filter(|_| root["phase"] == "leads");
        let node = slot.and_then(|slot| root["members"][slot as usize]["node"].as_u64());
        Ok(node.map(|node| Who::Node(node as usize - 1)))
    }

    /// The vertices of a log's ordering tree in its order: their numbers, and the nodes that have them.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn vertices(&self, name: &str) -> Result<Vec<(u64, Who)>> {
        let log = self.log(name)?;
        let vertices = log["tree"].as_array().into_iter().flatten();
        let vertices = vertices.map(|vertex| {
            let node = vertex["node"].as_u64().filter(|node| *node > 0)?;
            Some((vertex["vertex"].as_u64()?, Who::Node(node as usize - 1)))
        });
        let vertices: Option<Vec<_>> = vertices.collect();
        vertices.context("an ordering tree without numbers")
    }

    fn takes_appends(&self) -> Result<bool> {
        let line = ["status", "--cluster", &self.file];
        Ok(self.binary.run(&line, b"", ASK_LIMIT)?.code == Some(0))
    }

    /// What is missing for the cluster to be whole; `None` when nothing is. Whole: every process runs, the controllers lead
    /// and agree, every place is filled by the life that the views name, every shard is whole, nothing is under way, and all
    /// logs take appends.
    ///
    /// # Errors
    /// When a process has ended by itself, or a command does not end.
    pub fn lacks(&mut self) -> Result<Option<String>> {
        for member in &mut self.members {
            let name = member.who.name();
            let Some(process) = &mut member.process else {
                return Ok(Some(format!("{name} does not run")));
            };
            if !process.is_running()? {
                bail!("{name} has ended by itself: {}", process.last_words());
            }
        }
        let group = self.group()?;
        if group["quorum"] != true {
            return Ok(Some(String::from("no controller leads")));
        }
        let controllers = group["controllers"].as_array().context("controllers")?;
        let silent = controllers.iter().find(|one| one["reachable"] != true);
        if let Some(one) = silent {
            return Ok(Some(format!("controller at {} is silent", one["address"])));
        }
        // Its answers may be those of a leader that has just lost its majority.
        let output = self.ask(&["log", "list", "--json"])?;
        let Ok(cluster) = serde_json::from_slice::<Value>(&output.stdout) else {
            return Ok(Some(output.stderr.trim().to_owned()));
        };
        if let Some(lacking) = lacking(&cluster) {
            return Ok(Some(lacking));
        }
        let able = self.takes_appends()?;
        Ok((!able).then(|| String::from("it does not take appends everywhere")))
    }

    /// Waits until the cluster is whole.
    ///
    /// # Errors
    /// When it is not after `limit`, with what is missing.
    pub fn wait_whole(&mut self, limit: Duration) -> Result<()> {
        let mut lacks = None;
        let whole = looked(limit, || {
            lacks = self.lacks()?;
            Ok(lacks.is_none())
        })?;
        if !whole {
            bail!(
                "the cluster is not whole after {} s: {}",
                limit.as_secs(),
                lacks.unwrap_or_default()
            );
        }
        Ok(())
    }

    /// Waits until something holds.
    ///
    /// # Errors
    /// When it does not within `limit`, with what every process said last.
    pub fn until(
        &self,
        what: &str,
        limit: Duration,
        mut holds: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        if looked(limit, || holds(self))? {
            return Ok(());
        }
        let mut words = String::new();
        for member in &self.members {
            let _ = write!(
                words,
                "\n--- {}\n{}",
                member.who.name(),
                self.last_words(member.who)
            );
        }
        bail!("not within {} s: {what}{words}", limit.as_secs());
    }

    /// Asks every process to end and waits for it, nodes before controllers.
    ///
    /// # Errors
    /// As [`Self::end`].
    pub fn stop(mut self) -> Result<()> {
        for nodes in [true, false] {
            let these = |member: &&mut Member| matches!(member.who, Who::Node(_)) == nodes;
            for member in self.members.iter_mut().filter(these) {
                if let Some(process) = &mut member.process {
                    process.ask_to_end()?;
                }
            }
            for member in self.members.iter_mut().filter(these) {
                if let Some(mut process) = member.process.take() {
                    ended(&mut process, member.who)?;
                }
            }
        }
        Ok(())
    }
}

/// Looks now and then.
fn looked(limit: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<bool> {
    let mut next = std::time::Instant::now();
    wait_until(limit, || {
        if std::time::Instant::now() < next {
            return Ok(false);
        }
        let held = holds()?;
        next = std::time::Instant::now() + LOOK;
        Ok(held)
    })
}

fn ended(process: &mut Process, who: Who) -> Result<()> {
    let name = who.name();
    match process.exit_within(END_LIMIT)? {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("{name} ended with {status}: {}", process.last_words()),
        None => bail!("{name} did not end in {} s", END_LIMIT.as_secs()),
    }
}

/// What `ionian log list --json` lacks.
fn lacking(cluster: &Value) -> Option<String> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    if let Some(change) = list(cluster, "under_way").first() {
        return Some(format!("transaction {} runs", change["transaction"]));
    }
    for log in list(cluster, "logs") {
        let name = log["name"].as_str().unwrap_or_default().to_owned();
        let root = &log["root"];
        if root["phase"] != "leads" {
            return Some(format!("{name}: its root is in phase {}", root["phase"]));
        }
        if !log["pending"].is_null() {
            return Some(format!("{name}: view {} is on its way", log["pending"]));
        }
        let places = list(root, "members");
        if let Some(place) = places
            .iter()
            .chain(&list(&log, "tree"))
            .find(|p| p["up"] != true)
        {
            return Some(format!(
                "{name}: a root or vertex on node {}",
                place["node"]
            ));
        }
        if !list(&log, "tree_next").is_empty() {
            return Some(format!("{name}: another ordering tree is to come"));
        }
        for shard in list(&log, "shards") {
            if shard["stage"] == "finalized" {
                continue;
            }
            let id = &shard["shard"];
            if shard["stage"] != "open" || shard["whole"] != true {
                return Some(format!(
                    "{name}: shard {id} is {}, not whole",
                    shard["stage"]
                ));
            }
            for replica in list(&shard, "replicas") {
                let entered = replica["listed"] == replica["incarnation"];
                let writes = replica["generation"].as_u64() > Some(0);
                if replica["up"] != true || !entered || !writes || replica["holds"] != true {
                    let node = &replica["node"];
                    return Some(format!("{name}: the replica of shard {id} on node {node}"));
                }
            }
        }
    }
    None
}

/// The text of `cluster.toml`.
fn configuration(layout: &Layout<'_>, net: Option<&Net>) -> Result<String> {
    let everybody = (0..CONTROLLERS)
        .map(Who::Controller)
        .chain((0..layout.nodes).map(Who::Node));
    let addresses = match net {
        Some(net) => everybody
            .map(|who| format!("{}:{PORT}", net.address(site(who))))
            .collect(),
        None => free_addresses(layout.nodes)?,
    };
    let mut text = String::from("cluster = \"sea\"\n");
    let data = |who: Who| {
        let found = layout.data.iter().find(|(other, _)| *other == who);
        found.map_or_else(String::new, |(_, dir)| {
            format!("data_dir = \"{}\"\n", dir.display())
        })
    };
    for at in 0..CONTROLLERS {
        let who = Who::Controller(at);
        let (address, data) = (&addresses[site(who)], data(who));
        let id = at + 1;
        write!(
            text,
            "\n[[controllers]]\nid = {id}\naddress = \"{address}\"\n{data}"
        )?;
    }
    for at in 0..layout.nodes {
        let who = Who::Node(at);
        let (address, data, name) = (&addresses[site(who)], data(who), who.name());
        let mut roles = vec![if at < layout.roots { "root" } else { "replica" }];
        let one_leaf = at == usize::from(layout.roots > 1);
        if layout
            .tree
            .map_or(one_leaf, |tree| tree.nodes.contains(&at))
        {
            roles.push("leaf");
        }
        let roles = format!("\"{}\"", roles.join("\", \""));
        let id = at + 1;
        write!(
            text,
            "\n[[nodes]]\nname = \"{name}\"\nid = {id}\naddress = \"{address}\"\nroles = [{roles}]\n{data}"
        )?;
    }
    let names = |nodes: &[usize]| {
        let names = nodes
            .iter()
            .map(|at| format!("\"{}\"", Who::Node(*at).name()));
        format!("[{}]", names.collect::<Vec<_>>().join(", "))
    };
    if let Some(copies) = layout.copies_planned {
        // As much for each as with the copies of a configuration that says nothing.
        let memory = copies.div_ceil(SHIPPED_COPIES);
        let disk = 16 * memory;
        write!(
            text,
            "\n[limits]\nmemory_bytes_max = \"{memory}GiB\"\ndisk_bytes_max = \"{disk}GiB\"\ncopies_planned = {copies}\n"
        )?;
    }
    let placement: Vec<String> = layout.shards.iter().map(|nodes| names(nodes)).collect();
    let roots: Vec<usize> = (0..layout.roots).collect();
    let tree = layout.tree.map_or_else(String::new, |tree| {
        let (nodes, fan_in, depth) = (names(tree.nodes), tree.fan_in, tree.depth);
        format!("leaf = {nodes}\nfan_in = {fan_in}\ndepth = {depth}\n")
    });
    write!(
        text,
        "\n[[logs]]\nname = \"default\"\nroot = {}\nshards = {}\nreplicas = {}\nplacement = [{}]\n{tree}\n\
         [cores]\nplan = \"cooperative\"\n\n[timing]\ndead_after_ms = {}\n",
        names(&roots),
        layout.shards.len(),
        layout.shards.first().map_or(0, |nodes| nodes.len()),
        placement.join(", "),
        layout.dead_after_ms,
    )?;
    Ok(text)
}

/// Addresses on loopback that are free now, of controllers and nodes.
fn free_addresses(nodes: usize) -> Result<Vec<String>> {
    // All at once, so that no two are the same.
    let tcp = (0..CONTROLLERS)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<std::io::Result<Vec<_>>>()
        .context("finding free ports")?;
    let udp = (0..nodes)
        .map(|_| UdpSocket::bind("127.0.0.1:0"))
        .collect::<std::io::Result<Vec<_>>>()
        .context("finding free ports")?;
    let tcp = tcp.iter().map(TcpListener::local_addr);
    let addresses = tcp.chain(udp.iter().map(UdpSocket::local_addr));
    addresses
        .map(|address| Ok(address?.to_string()))
        .collect::<Result<_>>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_missing_is_named() {
        let place = |up: bool| json!({"node": 1, "up": up, "incarnation": 4});
        let whole = json!({"under_way": [], "logs": [{
            "name": "default", "pending": null, "tree": [place(true)], "tree_next": [],
            "root": {"phase": "leads", "members": [place(true)]},
            "shards": [
                {"shard": 0, "stage": "finalized", "whole": false, "replicas": []},
                {"shard": 1, "stage": "open", "whole": true, "replicas": [
                    {"node": 2, "up": true, "incarnation": 5, "listed": 5, "generation": 3, "holds": true},
                ]},
            ],
        }]});
        assert_eq!(lacking(&whole), None);
        let changed = |pointer: &str, value: Value| {
            let mut cluster = whole.clone();
            *cluster.pointer_mut(pointer).unwrap() = value;
            lacking(&cluster).unwrap()
        };
        assert!(changed("/under_way", json!([{"transaction": 3}])).contains("3 runs"));
        assert!(changed("/logs/0/root/phase", json!("sealing")).contains("sealing"));
        assert!(changed("/logs/0/tree/0/up", json!(false)).contains("root or vertex on node 1"));
        let coming = json!([place(true)]);
        assert!(changed("/logs/0/tree_next", coming).contains("another ordering tree"));
        assert!(changed("/logs/0/pending", json!(7)).contains("view 7"));
        assert!(changed("/logs/0/shards/1/whole", json!(false)).contains("not whole"));
        let replica = "/logs/0/shards/1/replicas/0";
        for (key, value) in [
            ("up", json!(false)),
            ("holds", json!(false)),
            ("incarnation", json!(6)),
            ("generation", json!(0)),
        ] {
            let said = changed(&format!("{replica}/{key}"), value);
            assert!(said.contains("shard 1 on node 2"), "{said}");
        }
    }

    #[test]
    fn a_configuration_names_everybody_once() {
        let layout = Layout {
            nodes: 5,
            roots: 3,
            shards: &[&[3, 4]],
            tree: Some(Tree {
                nodes: &[0, 3],
                fan_in: 2,
                depth: 2,
            }),
            dead_after_ms: 700,
            snapshot_entries: None,
            copies_planned: None,
            data: vec![(Who::Controller(2), PathBuf::from("/elsewhere"))],
        };
        let text = configuration(&layout, None).unwrap();
        assert_eq!(text.matches("[[controllers]]").count(), CONTROLLERS);
        assert_eq!(text.matches("[[nodes]]").count(), 5);
        assert!(text.contains("root = [\"n1\", \"n2\", \"n3\"]"), "{text}");
        assert!(text.contains("placement = [[\"n4\", \"n5\"]]"), "{text}");
        assert_eq!(text.matches("\"leaf\"").count(), 2, "{text}");
        assert!(
            text.contains("leaf = [\"n1\", \"n4\"]\nfan_in = 2\ndepth = 2\n"),
            "{text}"
        );
        assert_eq!(text.matches("/elsewhere").count(), 1);
    }
}
