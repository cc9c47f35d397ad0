//! The configuration of a cluster: `cluster.toml`, read once, checked as a whole, every error reported in one go.
//!
//! A file describes the whole cluster; each node reads the same one and is told its own name. [`ClusterConfig::load`]
//! returns a typed, complete value, or [`ConfigErrors`] with a line and column per problem. The table of keys in `schema`
//! is the only place that names a key, its unit, range and default; the reader and `docs/configuration.md` follow it.
//!
//! The secret from which session tokens are made lies in a file of its own ([`Secret`]).

mod check;
mod controllers;
mod document;
mod error;
mod hosts;
mod launch;
mod profile;
mod reader;
mod schema;
mod secret;
mod size;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ionian_control_core::{ClusterSpec, DetectionConfig, LogSpec, NodeSpec, RootQuorum, TreeSpec};
use ionian_runtime::NicProfile;
use ionian_types::{Durability, Nanos, NodeId, OrderingMode};

pub use controllers::ControllerConfig;
pub use document::configuration_markdown;
pub use error::{ConfigErrors, Problem};
pub use launch::{LaunchError, client_options};
pub use profile::{BackendUse, backend_use, find_profile};
pub use secret::{Secret, SecretError};
pub use size::{format_size, parse_size};

/// A cluster as its file describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterConfig {
    /// The file.
    pub file: PathBuf,
    /// A checksum of the file's text, printed at start: equal on every node, or somebody runs another file.
    pub checksum: u32,
    /// The cluster's name.
    pub name: String,
    /// Where the secret is.
    pub secret_file: PathBuf,
    /// Where processes find their certificates. Of use with controllers only.
    pub certificate_dir: PathBuf,
    /// The controllers, in the order of the file; none when a node is the controller.
    pub controllers: Vec<ControllerConfig>,
    /// The node of the built-in controller; none with [`Self::controllers`].
    pub controller: Option<NodeId>,
    /// The nodes, in the order of the file.
    pub nodes: Vec<NodeConfig>,
    /// The logs, in the order of the file.
    pub logs: Vec<LogConfig>,
    /// What one process may use.
    pub limits: Limits,
    /// How threads are laid out.
    pub cores: CoreConfig,
    /// How processes talk.
    pub network: NetworkConfig,
    /// Intervals.
    pub timing: Timing,
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeConfig {
    /// Its number.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where it listens, `host:port`.
    pub address: String,
    /// Where it keeps its state.
    pub data_dir: PathBuf,
    /// Its failure domain.
    pub domain: u32,
    /// What it may host.
    pub roles: Roles,
    /// Its cores; none for all that the process may use.
    pub cores: Option<Vec<u32>>,
}

/// What a node may host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Roles {
    /// The controller.
    pub controller: bool,
    /// Roots of logs.
    pub root: bool,
    /// Leaves and aggregators of ordering trees.
    pub leaf: bool,
    /// Replicas of shards.
    pub replica: bool,
}

/// A log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// Its name.
    pub name: String,
    /// The protocol that orders it.
    pub mode: OrderingMode,
    /// What an acknowledgement means.
    pub class: Durability,
    /// The nodes of the root group, in slot order.
    pub roots: Vec<NodeId>,
    /// How many of them hold an entry before it is committed.
    pub root_quorum: RootQuorum,
    /// The ordering tree below the root.
    pub tree: TreeSpec,
    /// Per shard, the nodes of its replicas in slot order.
    pub shards: Vec<Vec<NodeId>>,
    /// Bytes per replica beyond which the oldest records are trimmed; none to keep everything.
    pub retention_bytes_max: Option<u64>,
}

/// What one process may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of memory for records, all roles together.
    pub memory_bytes_max: u64,
    /// Bytes of the data directory for records and cut logs.
    pub disk_bytes_max: u64,
    /// Copies of shards that memory and disk are divided among, at least; 0 for those that the file places on the node.
    pub copies_planned: u64,
    /// Sessions with other processes and clients.
    pub connections_max: u32,
    /// Records that a replica holds before they are ordered.
    pub uncommitted_records_max: u64,
    /// Bytes of cut-log entries that a member of a root group keeps in memory, per log.
    pub cut_log_bytes_max: u64,
}

/// How threads are laid out on cores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CoreConfig {
    /// The plan.
    pub plan: PlanChoice,
    /// Whether to ask for real-time priority.
    pub fifo: bool,
    /// How long an idle thread spins, in microseconds; none for what the network profile says.
    pub spin_us: Option<u64>,
}

/// A plan of cores, as asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlanChoice {
    /// Packed on a node that names its cores, else cooperative.
    Auto,
    /// A thread and a core per role.
    Dedicated,
    /// A thread per core that the node has; roles share them.
    Packed,
    /// One thread for all roles, whose core others need: it yields at once.
    Cooperative,
}

/// How processes talk to each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkConfig {
    /// The profile that selects and tunes the transport.
    pub profile: NicProfile,
    /// The profile that was asked for, where its backend is not in this build and it allows the other one.
    pub fallback_from: Option<String>,
    /// The largest IP packet in bytes; none for what the path allows.
    pub mtu: Option<u32>,
}

/// Intervals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// The least time between two cuts in microseconds; 0 cuts as fast as cuts become durable.
    pub cut_interval_us: u64,
    /// A peer that is silent for longer, in milliseconds, is given up.
    pub dead_after_ms: u64,
    /// After how long a silence a process tells the controllers of another one, in milliseconds.
    pub suspect_after_ms: u64,
    /// How long the others wait for a sign of life of one whose connection to the controllers has ended, in milliseconds.
    pub probe_timeout_ms: u64,
    /// How long one whose connection to the controllers is there may be silent in all, in milliseconds.
    pub hung_after_ms: u64,
    /// The most processes that are found dead within a minute; 0 finds none.
    pub deaths_per_minute_max: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            cut_interval_us: 0,
            dead_after_ms: 3_000,
            suspect_after_ms: 300,
            probe_timeout_ms: 25,
            hung_after_ms: 1_000,
            deaths_per_minute_max: 10,
        }
    }
}

impl Timing {
    /// How the controllers find deaths; none where they do not.
    #[must_use]
    pub fn detection(&self) -> Option<DetectionConfig> {
        (self.deaths_per_minute_max > 0).then_some(DetectionConfig {
            suspect_after: Nanos::from_ms(self.suspect_after_ms),
            probe_timeout: Nanos::from_ms(self.probe_timeout_ms),
            hung_after: Nanos::from_ms(self.hung_after_ms),
            deaths_per_minute_max: self.deaths_per_minute_max,
        })
    }
}

/// Why a node may not listen where it is configured to. Effect: none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Frames are authenticated by tokens, not encrypted: beyond loopback that must be asked for.
    #[error(
        "node {node} would listen on {address}, which is not a loopback address; frames carry tokens but are neither encrypted nor signed: pass --insecure-no-auth to allow it"
    )]
    NotLoopback {
        /// The node's name.
        node: String,
        /// The address.
        address: SocketAddr,
    },
    /// The host's name has no address.
    #[error("node {node}: {address} cannot be resolved: {reason}")]
    Unresolved {
        /// The node's name.
        node: String,
        /// The address.
        address: String,
        /// What the resolver said.
        reason: String,
    },
}

impl ClusterConfig {
    /// Reads and checks a file. Paths in it are relative to its folder.
    ///
    /// # Errors
    /// [`ConfigErrors`] with everything that is wrong; effect none.
    pub fn load(file: &Path) -> Result<Self, ConfigErrors> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| ConfigErrors::whole(file, format!("cannot be read: {error}")))?;
        Self::parse(file, &text)
    }

    /// Checks a text as the content of `file`.
    ///
    /// # Errors
    /// [`ConfigErrors`] with everything that is wrong; effect none.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigErrors> {
        check::parse(file, text)
    }

    /// The node of this name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeConfig> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The node of this number.
    #[must_use]
    pub fn node_by_id(&self, id: NodeId) -> Option<&NodeConfig> {
        self.nodes.iter().find(|node| node.node == id)
    }

    /// What the controller is told: nodes, logs and who holds which place.
    #[must_use]
    pub fn cluster_spec(&self) -> ClusterSpec {
        let nodes: BTreeMap<NodeId, NodeSpec> = self
            .nodes
            .iter()
            .map(|node| {
                let spec = NodeSpec {
                    domain: node.domain,
                    address: node.address.clone(),
                };
                (node.node, spec)
            })
            .collect();
        let logs = self.logs.iter().map(|log| LogSpec {
            name: log.name.clone(),
            mode: log.mode,
            class: log.class,
            quorum: None,
            root: log.roots.clone(),
            root_quorum: log.root_quorum,
            tree: log.tree.clone(),
            shards: log.shards.clone(),
        });
        ClusterSpec {
            nodes,
            logs: logs.collect(),
        }
    }
}

impl NodeConfig {
    /// The address to listen on. Anything but loopback needs `insecure_no_auth`.
    ///
    /// # Errors
    /// [`BindError`]; effect none.
    pub fn bind_address(&self, insecure_no_auth: bool) -> Result<SocketAddr, BindError> {
        let address = self.resolve()?;
        if !address.ip().is_loopback() && !insecure_no_auth {
            return Err(BindError::NotLoopback {
                node: self.name.clone(),
                address,
            });
        }
        Ok(address)
    }
}
