//! A cluster of processes, on loopback or each in a network namespace: controller, root and leaf in one, every replica in
//! one of its own.

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::binary::Binary;
use crate::net::Net;
use crate::process::{Process, wait_until};

/// The shards of a cluster.
const SHARDS: usize = 2;
/// The replicas of each shard.
const REPLICAS: usize = 2;
/// The nodes: the first one, and the replicas.
const NODES: usize = 1 + SHARDS * REPLICAS;
/// Where every node of a network listens.
const PORT: u16 = 7400;
/// One question to `ionian status`.
const STATUS_LIMIT: Duration = Duration::from_secs(15);
/// How long a process that was asked to end may take.
const END_LIMIT: Duration = Duration::from_secs(30);

/// What an acknowledgement means in a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// In the memory of every replica.
    D0,
    /// Flushed to the device of every replica.
    D1,
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::D0 => "D0",
            Self::D1 => "D1",
        })
    }
}

/// The processes of a cluster, by the place of their node in the configuration: 0 is the controller's, with root and leaf;
/// the others hold a replica each, those of one shard side by side.
#[derive(Debug)]
pub struct Cluster {
    binary: Binary,
    dir: PathBuf,
    config: PathBuf,
    nodes: Vec<Option<Process>>,
    /// Where each node keeps its state.
    data: Vec<PathBuf>,
    /// What each node's process runs; clients run `binary`.
    runs: Vec<Binary>,
}

impl Cluster {
    /// The nodes of every cluster.
    pub const NODES: usize = NODES;
    /// The shards of every cluster.
    pub const SHARDS: usize = SHARDS;

    /// Writes the configuration of a cluster of `2 x 2` replicas into `dir` and starts its processes.
    ///
    /// # Errors
    /// When the files cannot be written or a process not started.
    pub fn start(binary: &Binary, dir: &Path, durability: Durability) -> Result<Self> {
        Self::start_on(binary, dir, durability, None, &[])
    }

    /// As [`Self::start`], with node `i` at site `i` of a network and clients at the site after the last, and with the data
    /// of some nodes in folders of their own.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_on(
        binary: &Binary,
        dir: &Path,
        durability: Durability,
        net: Option<&Net>,
        data: &[(usize, &Path)],
    ) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let dir = dir
            .canonicalize()
            .with_context(|| format!("finding {}", dir.display()))?;
        let config = dir.join("cluster.toml");
        if !config.exists() {
            let addresses = match net {
                Some(net) => (0..NODES)
                    .map(|node| format!("{}:{PORT}", net.address(node)))
                    .collect(),
                None => free_addresses()?,
            };
            std::fs::write(&config, configuration(durability, &addresses, data)?)
                .with_context(|| format!("writing {}", config.display()))?;
        }
        let mut cluster = Self {
            binary: net.map_or_else(|| binary.clone(), |net| binary.within(net.namespace(NODES))),
            config,
            data: (0..NODES)
                .map(|node| {
                    let own = data.iter().find(|(at, _)| *at == node);
                    own.map_or_else(
                        || dir.join("data").join(Self::name(node)),
                        |(_, path)| (*path).to_owned(),
                    )
                })
                .collect(),
            dir,
            nodes: (0..NODES).map(|_| None).collect(),
            runs: (0..NODES)
                .map(|node| {
                    net.map_or_else(|| binary.clone(), |net| binary.within(net.namespace(node)))
                })
                .collect(),
        };
        for node in 0..cluster.nodes.len() {
            cluster.start_node(node)?;
        }
        Ok(cluster)
    }

    /// The configuration's file, for `--cluster`.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The binary that its clients run.
    #[must_use]
    pub const fn binary(&self) -> &Binary {
        &self.binary
    }

    /// The number of nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it has no node: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The name of a node.
    #[must_use]
    pub fn name(node: usize) -> String {
        format!("n{}", node + 1)
    }

    /// The process of a node, if it runs.
    #[must_use]
    pub fn node(&self, node: usize) -> Option<&Process> {
        self.nodes.get(node).and_then(Option::as_ref)
    }

    /// The process of a node, if it runs.
    pub fn node_mut(&mut self, node: usize) -> Option<&mut Process> {
        self.nodes.get_mut(node).and_then(Option::as_mut)
    }

    /// Where a node keeps its state.
    #[must_use]
    pub fn data_dir(&self, node: usize) -> &Path {
        &self.data[node]
    }

    /// What `ionian status` says of the cluster, whatever its exit code.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub fn status(&self) -> Result<String> {
        let config = self.config.display().to_string();
        let arguments = ["status", "--cluster", &config];
        let output = self.binary.run(&arguments, b"", STATUS_LIMIT)?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(format!("{text}{}", output.stderr))
    }

    /// The replicas of a shard, by their nodes.
    #[must_use]
    pub const fn members(shard: usize) -> [usize; REPLICAS] {
        let first = 1 + shard * REPLICAS;
        [first, first + 1]
    }

    /// Starts the process of a node that does not run.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_node(&mut self, node: usize) -> Result<()> {
        let name = Self::name(node);
        let mut command = self.runs[node].command([
            "node",
            // Ignored on loopback; elsewhere nothing but this test can reach the addresses.
            "--insecure-no-auth",
            "--config",
            &self.config.display().to_string(),
            "--node",
            &name,
        ]);
        command.current_dir(&self.dir);
        self.nodes[node] = Some(Process::start(
            &mut command,
            &self.dir.join(format!("{name}.log")),
        )?);
        Ok(())
    }

    /// The nodes whose process has ended by itself since this was last asked, and how.
    ///
    /// # Errors
    /// The system's.
    pub fn take_ended(&mut self) -> Result<Vec<(usize, ExitStatus)>> {
        let mut ended = Vec::new();
        for (node, process) in self.nodes.iter_mut().enumerate() {
            let status = match process {
                Some(process) => process.exit_within(Duration::ZERO)?,
                None => None,
            };
            if let Some(status) = status {
                *process = None;
                ended.push((node, status));
            }
        }
        Ok(ended)
    }

    /// Kills the process of a node as a crash would.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill_node(&mut self, node: usize) -> Result<()> {
        match self.nodes[node].take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Kills every process at once, as a power failure would.
    ///
    /// # Errors
    /// When one cannot be killed.
    pub fn kill_all(&mut self) -> Result<()> {
        (0..self.nodes.len()).try_for_each(|node| self.kill_node(node))
    }

    /// Waits until the cluster says that it can append.
    ///
    /// # Errors
    /// When it does not within `limit`, or a process has ended meanwhile: with what was said last.
    pub fn wait_able(&mut self, limit: Duration) -> Result<()> {
        let config = self.config.display().to_string();
        let mut said = String::new();
        let able = wait_until(limit, || {
            for (node, process) in self.nodes.iter_mut().enumerate() {
                let Some(process) = process else { continue };
                if !process.is_running()? {
                    bail!(
                        "node {} has ended: {}",
                        Self::name(node),
                        process.last_words()
                    );
                }
            }
            let output = self
                .binary
                .run(&["status", "--cluster", &config], b"", STATUS_LIMIT)?;
            said = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                output.stderr
            );
            Ok(output.code == Some(0))
        })?;
        if !able {
            bail!(
                "the cluster cannot append after {} s: {said}",
                limit.as_secs()
            );
        }
        Ok(())
    }

    /// Records that a node's process has repaired from a peer since it started.
    ///
    /// # Errors
    /// When `ionian status` gives no JSON.
    pub fn repaired(&self, node: usize) -> Result<u64> {
        let config = self.config.display().to_string();
        let arguments = ["status", "--json", "--cluster", &config];
        let output = self.binary.run(&arguments, b"", STATUS_LIMIT)?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("the status is no JSON: {}", output.stderr))?;
        let each = |value: &serde_json::Value, key: &str| {
            value[key].as_array().cloned().unwrap_or_default()
        };
        let logs = each(&status, "logs");
        let shards = logs.iter().flat_map(|log| each(log, "shards"));
        let replicas = shards.flat_map(|shard| each(&shard, "replicas"));
        Ok(replicas
            .filter(|replica| replica["node"] == node + 1)
            .filter_map(|replica| replica["repaired"].as_u64())
            .sum())
    }

    /// Asks every process to end and waits for it.
    ///
    /// # Errors
    /// When one does not end in time (it is then killed), or ends with another code than 0.
    pub fn stop(mut self) -> Result<()> {
        for process in self.nodes.iter_mut().flatten() {
            process.ask_to_end()?;
        }
        for (node, process) in self.nodes.iter_mut().enumerate() {
            let Some(process) = process else { continue };
            let name = Self::name(node);
            match process.exit_within(END_LIMIT)? {
                Some(status) if status.success() => {}
                Some(status) => {
                    bail!("node {name} ended with {status}: {}", process.last_words())
                }
                None => bail!("node {name} did not end in {} s", END_LIMIT.as_secs()),
            }
        }
        Ok(())
    }
}

/// Addresses on loopback that are free now.
fn free_addresses() -> Result<Vec<String>> {
    // All at once, so that no two are the same.
    let sockets = (0..NODES)
        .map(|_| UdpSocket::bind("127.0.0.1:0"))
        .collect::<std::io::Result<Vec<_>>>()
        .context("finding free ports")?;
    let addresses = sockets
        .iter()
        .map(|socket| Ok(socket.local_addr()?.to_string()));
    addresses.collect()
}

/// The text of `cluster.toml`.
fn configuration(
    durability: Durability,
    addresses: &[String],
    data: &[(usize, &Path)],
) -> Result<String> {
    let mut text = String::from("cluster = \"demo\"\nsecret_file = \"cluster.secret\"\n");
    for (node, address) in addresses.iter().enumerate() {
        let roles = if node == 0 {
            "\"controller\", \"root\", \"leaf\""
        } else {
            "\"replica\""
        };
        write!(
            text,
            "\n[[nodes]]\nname = \"{}\"\nid = {}\naddress = \"{address}\"\nroles = [{roles}]\n",
            Cluster::name(node),
            node + 1
        )?;
        if let Some((_, dir)) = data.iter().find(|(at, _)| *at == node) {
            writeln!(text, "data_dir = \"{}\"", dir.display())?;
        }
    }
    let members = |shard: usize| {
        let names = (0..REPLICAS).map(|slot| 1 + shard * REPLICAS + slot);
        let names: Vec<String> = names
            .map(|node| format!("\"{}\"", Cluster::name(node)))
            .collect();
        format!("[{}]", names.join(", "))
    };
    let placement: Vec<String> = (0..SHARDS).map(members).collect();
    write!(
        text,
        "\n[[logs]]\nname = \"default\"\nshards = {SHARDS}\nreplicas = {REPLICAS}\ndurability = \"{durability}\"\n\
         placement = [{}]\n\n[cores]\nplan = \"cooperative\"\n\n[timing]\ndead_after_ms = 1_000\n",
        placement.join(", ")
    )?;
    Ok(text)
}
