//! A cluster of processes on loopback: controller, root and leaf in one, every replica in one of its own.

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::binary::Binary;
use crate::process::{Process, wait_until};

/// The shards of a cluster.
const SHARDS: usize = 2;
/// The replicas of each shard.
const REPLICAS: usize = 2;
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
}

impl Cluster {
    /// Writes the configuration of a cluster of `2 x 2` replicas into `dir` and starts its processes.
    ///
    /// # Errors
    /// When the files cannot be written or a process not started.
    pub fn start(binary: &Binary, dir: &Path, durability: Durability) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let dir = dir
            .canonicalize()
            .with_context(|| format!("finding {}", dir.display()))?;
        let config = dir.join("cluster.toml");
        if !config.exists() {
            std::fs::write(&config, configuration(durability)?)
                .with_context(|| format!("writing {}", config.display()))?;
        }
        let mut cluster = Self {
            binary: binary.clone(),
            config,
            dir,
            nodes: (0..1 + SHARDS * REPLICAS).map(|_| None).collect(),
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

    /// The binary that its processes run.
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

    /// Starts the process of a node that does not run.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_node(&mut self, node: usize) -> Result<()> {
        let name = Self::name(node);
        let mut command = self.binary.command([
            "node",
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

/// The text of `cluster.toml`, with ports that are free now.
fn configuration(durability: Durability) -> Result<String> {
    let count = 1 + SHARDS * REPLICAS;
    // All at once, so that no two are the same.
    let sockets = (0..count)
        .map(|_| UdpSocket::bind("127.0.0.1:0"))
        .collect::<std::io::Result<Vec<_>>>()
        .context("finding free ports")?;
    let mut text = String::from("cluster = \"demo\"\nsecret_file = \"cluster.secret\"\n");
    for (node, socket) in sockets.iter().enumerate() {
        let roles = if node == 0 {
            "\"controller\", \"root\", \"leaf\""
        } else {
            "\"replica\""
        };
        let address = socket.local_addr()?;
        write!(
            text,
            "\n[[nodes]]\nname = \"{}\"\nid = {}\naddress = \"{address}\"\nroles = [{roles}]\n",
            Cluster::name(node),
            node + 1
        )?;
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
