//! What a process is to be, and why it cannot be that.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ionian_control_core::ClusterSpec;
use ionian_runtime::{CorePlan, Priority};
use ionian_store::StoreFailure;
use ionian_types::{ClusterId, Nanos, NodeId};
use ionian_wire::directory::ClusterMap;

use super::{CoreUse, PlaceSpec, build, layout};
use crate::config::{Secret, format_size};
use crate::device::FlushFault;
use crate::role::{Place, Tuning};
use crate::udp::{PortError, PortOptions};

/// What a process of the cluster is.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its nodes and logs.
    pub spec: ClusterSpec,
    /// The newest cluster map that the process knew when it ran last; none to begin with what the specification says.
    pub map: Option<ClusterMap>,
    /// Places to start with besides those of the specification.
    pub places: Vec<PlaceSpec>,
    /// This node.
    pub node: NodeId,
    /// Where the controller is.
    pub controller: ControllerAt,
    /// Where the other nodes are.
    pub addresses: BTreeMap<NodeId, SocketAddr>,
    /// The socket, if the process talks to others.
    pub listen: Option<PortOptions>,
    /// The cluster's secret, from which a process with a socket makes its grants; none when controllers give them
    /// ([`Server::change_keys`](super::Server::change_keys)).
    pub secret: Option<Secret>,
    /// Where state is kept; none keeps all of it in memory.
    pub data_dir: Option<PathBuf>,
    /// Memory for records, of all replicas of the process together, in bytes.
    pub memory_bytes_max: u64,
    /// A flush that is to fail, to see what comes of it.
    pub flush_fault: Option<FlushFault>,
    /// Disk for records, of all replicas of the process together, in bytes.
    pub disk_bytes_max: u64,
    /// Copies of shards that memory and disk are shared among, at least those of the specification: what is left when the
    /// process starts is for places that come later.
    pub copies_planned: u64,
    /// Settings of the machines.
    pub tuning: Tuning,
    /// Per log by name: bytes of each replica beyond which the oldest records are trimmed.
    pub retention_bytes_max: BTreeMap<String, u64>,
    /// How places share reactors, and reactors cores.
    pub plan: CorePlan,
    /// The cores to use, in the order in which reactors take them; empty for those that the machine has, and for none in
    /// particular in a cooperative plan.
    pub cores: Vec<usize>,
    /// Reactors of a packed plan; none for as many as there are cores to give.
    pub reactors: Option<usize>,
    /// Busy threads of the process besides the reactors, such as clients', which a plan leaves cores for.
    pub other_busy_threads: usize,
    /// Keep a dedicated plan that has more reactors than there are cores; otherwise it becomes a packed one.
    pub oversubscribe: bool,
    /// Whether other busy threads need the same cores, whatever the plan says.
    pub shared_core: bool,
    /// How long an idle reactor spins, in microseconds.
    pub spin_us: u64,
    /// How the scheduler treats the reactors.
    pub priority: Priority,
}

impl ServerOptions {
    /// After how long a silence the process speaks up about others; none where it does not, since nobody would listen.
    pub(crate) fn observes(&self) -> Option<Nanos> {
        let external = self.controller == ControllerAt::External && self.listen.is_some();
        let suspect_after = Nanos::from_ms(self.tuning.suspect_after_ms);
        (external && suspect_after.0 > 0).then_some(suspect_after)
    }

    /// A whole cluster in one process, without socket or directory.
    #[must_use]
    pub fn in_memory(spec: ClusterSpec) -> Self {
        let node = spec.nodes.keys().next().copied().unwrap_or(NodeId::new(1));
        Self {
            cluster: ClusterId::new(1),
            spec,
            map: None,
            places: Vec::new(),
            node,
            controller: ControllerAt::Node(node),
            addresses: BTreeMap::new(),
            listen: None,
            secret: None,
            data_dir: None,
            memory_bytes_max: 1 << 30,
            flush_fault: None,
            disk_bytes_max: 1 << 40,
            copies_planned: 0,
            tuning: Tuning::default(),
            retention_bytes_max: BTreeMap::new(),
            plan: CorePlan::Cooperative,
            cores: Vec::new(),
            reactors: None,
            other_busy_threads: 0,
            oversubscribe: false,
            shared_core: false,
            spin_us: 200,
            priority: Priority::Normal,
        }
    }

    /// The core plan that [`Server::start`](super::Server::start) would put in force.
    ///
    /// # Errors
    /// [`StartError::Spec`]; effect none.
    pub fn core_use(&self) -> Result<CoreUse, StartError> {
        let specs = layout::specs(self, &build::map_of(self)?);
        Ok(CoreUse::new(self, &layout::places(self, &specs)))
    }
}

/// Where the controller of a process's places is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ControllerAt {
    /// The built-in one, a place of this node.
    Node(NodeId),
    /// Outside the data plane. Another thread of the process speaks for it, by
    /// [`Server::controller_link`](super::Server::controller_link).
    External,
}

impl From<NodeId> for ControllerAt {
    fn from(node: NodeId) -> Self {
        Self::Node(node)
    }
}

/// Why a process did not start, or a place did not come. For a process: effect none, but for directories made. Effect: none, but for directories made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The socket.
    #[error(transparent)]
    Port(#[from] PortError),
    /// A directory or its block queue.
    #[error(transparent)]
    Open(#[from] ionian_driver_api::OpenError),
    /// Memory for device buffers.
    #[error("no memory for device buffers: {0}")]
    Pool(#[from] ionian_driver_api::PoolError),
    /// A store.
    #[error("{path}: {failure}")]
    Store {
        /// Its directory.
        path: String,
        /// Why.
        failure: StoreFailure,
    },
    /// A file of a store is shorter than it was made. A file gets its name once it has its length, so this is no trace of a
    /// crash: it was cut off.
    #[error("{file} was cut off: it has {bytes} bytes and was made with {expected}; {remedy}")]
    CutOff {
        /// The file.
        file: String,
        /// Its length, bytes.
        bytes: u64,
        /// The length with which it was made, bytes.
        expected: u64,
        /// What to do.
        remedy: String,
    },
    /// The controller's state.
    #[error("the controller's state in {path} cannot be used: {reason}")]
    Controller {
        /// Its directory.
        path: String,
        /// Why.
        reason: String,
    },
    /// The data directory is another node's or another cluster's.
    #[error("the data directory {path} cannot be used: {reason}; give each node its own")]
    OtherOwner {
        /// The directory.
        path: String,
        /// Whose it is.
        reason: String,
    },
    /// The cluster's specification.
    #[error(transparent)]
    Spec(#[from] ionian_control_core::SpecError),
    /// A log needs a device and there is no directory for it.
    #[error("log {log} has durability {class}, which needs a data directory")]
    NoDirectory {
        /// The log's name.
        log: String,
        /// Its class.
        class: ionian_types::Durability,
    },
    /// A limit that the copies of shards in this process cannot share.
    #[error(
        "{limit} is {}, too little for the {copies} copies of shards here: give at least {}",
        format_size(*.bytes),
        format_size(*.least)
    )]
    TooLittle {
        /// The limit.
        limit: &'static str,
        /// Its value, bytes.
        bytes: u64,
        /// Copies that share it.
        copies: u64,
        /// The least that would do, bytes.
        least: u64,
    },
    /// What the copies of shards in this process share has no room for one more.
    #[error(
        "{place}: {limit} has {} left, and a copy needs at least {}; raise it, or remove another copy",
        format_size(*.left),
        format_size(*.least)
    )]
    NoRoom {
        /// The place.
        place: Place,
        /// The limit.
        limit: &'static str,
        /// What is left of it, bytes.
        left: u64,
        /// What the copy needs, bytes.
        least: u64,
    },
    /// A place's node has no address.
    #[error("node {node} has no address")]
    NoAddress {
        /// The node.
        node: NodeId,
    },
    /// A reactor's thread.
    #[error("the reactor did not start: {0}")]
    Thread(#[from] std::io::Error),
}
