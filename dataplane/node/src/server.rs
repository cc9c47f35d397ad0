//! A process of the cluster: the places of one node on one reactor, its socket and its data directory.
//!
//! Which place runs where is static (the cluster's specification); which life fills it, and since when, is the
//! controller's. Connections always go the same way: replicas to their leaf, their root and their peers in lower slots, the
//! leaf to the root, everyone to the controller.

mod build;
mod identity;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ionian_control_core::ClusterSpec;
use ionian_driver_api::{Clock, Wake};
use ionian_runtime::{
    IdlePolicy, MailboxSender, MonotonicClock, Poller, Priority, Reactor, ReactorCounter,
    ReactorHandle, ReactorOptions, ReactorStart, WakeHandle, mailbox,
};
use ionian_shm::duplex;
use ionian_store::StoreFailure;
use ionian_types::{ClusterId, GuardEpoch, NodeId, SessionId, Time, Token};
use ionian_uring::DataDir;

use crate::config::Secret;
use crate::host::{Control, Host};
use crate::link::{LinkIds, ShmLink};
use crate::role::{Place, Tuning};
use crate::status::Status;
use crate::udp::{PortError, PortOptions};

pub use build::place_directory;

/// Bytes of one ring: holds the largest message with room for the largest answer beside it.
pub(crate) const RING_BYTES: usize = 8 << 20;

/// What a process of the cluster is.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its nodes and logs.
    pub spec: ClusterSpec,
    /// This node.
    pub node: NodeId,
    /// The node of the built-in controller.
    pub controller: NodeId,
    /// Where the other nodes are.
    pub addresses: BTreeMap<NodeId, SocketAddr>,
    /// The socket, if the process talks to others.
    pub listen: Option<PortOptions>,
    /// The cluster's secret; needed with a socket.
    pub secret: Option<Secret>,
    /// Where state is kept; none keeps all of it in memory.
    pub data_dir: Option<PathBuf>,
    /// Memory for records, of all replicas of the process together, in bytes.
    pub memory_bytes_max: u64,
    /// Disk for records, of all replicas of the process together, in bytes.
    pub disk_bytes_max: u64,
    /// Settings of the machines.
    pub tuning: Tuning,
    /// Per log by name: bytes of each replica beyond which the oldest records are trimmed.
    pub retention_bytes_max: BTreeMap<String, u64>,
    /// The core to pin the reactor to.
    pub core: Option<usize>,
    /// Whether another busy thread of the process needs the same core.
    pub shared_core: bool,
    /// How long an idle reactor spins, in microseconds.
    pub spin_us: u64,
    /// How the scheduler treats the reactor.
    pub priority: Priority,
}

impl ServerOptions {
    /// A whole cluster in one process, without socket or directory.
    #[must_use]
    pub fn in_memory(spec: ClusterSpec) -> Self {
        let node = spec.nodes.keys().next().copied().unwrap_or(NodeId::new(1));
        Self {
            cluster: ClusterId::new(1),
            spec,
            node,
            controller: node,
            addresses: BTreeMap::new(),
            listen: None,
            secret: None,
            data_dir: None,
            memory_bytes_max: 1 << 30,
            disk_bytes_max: 1 << 40,
            tuning: Tuning::default(),
            retention_bytes_max: BTreeMap::new(),
            core: None,
            shared_core: false,
            spin_us: 200,
            priority: Priority::Normal,
        }
    }
}

/// Why a process did not start. Effect: none, but for directories made.
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
        "{limit} is {bytes} bytes, too little for the {copies} copies of shards here: give at least {least} bytes"
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
    /// A place's node has no address.
    #[error("node {node} has no address")]
    NoAddress {
        /// The node.
        node: NodeId,
    },
    /// The reactor's thread.
    #[error("the reactor did not start: {0}")]
    Thread(#[from] std::io::Error),
}

/// What is really in force, for the banner and beside every figure.
#[derive(Clone, Debug, Default)]
pub struct Effective {
    /// The transport between processes.
    pub transport: String,
    /// The block device, per place that has one.
    pub devices: Vec<(Place, String)>,
    /// Where the socket listens.
    pub listen: Option<SocketAddr>,
    /// Places of this process.
    pub places: Vec<Place>,
}

/// A running process of the cluster. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    handle: Option<ReactorHandle>,
    effective: Effective,
    /// The lock of the data directory, held as long as the server.
    _data_dir: Option<DataDir>,
}

/// What clients in the same process need.
#[derive(Debug)]
pub(crate) struct Shared {
    controls: MailboxSender<Control>,
    wake: WakeHandle,
    clock: MonotonicClock,
    cluster: ClusterId,
    sessions: AtomicU64,
}

impl Server {
    /// Starts the process: opens its socket and stores, recovers what is there, and runs the reactor.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(options: ServerOptions) -> Result<Self, StartError> {
        let data_dir = options.data_dir.as_deref();
        let data_dir = data_dir.map(|path| identity::claim(path, options.cluster, options.node));
        let data_dir = data_dir.transpose()?;
        let clock = MonotonicClock::start();
        let idle = if options.shared_core {
            IdlePolicy::shared()
        } else {
            IdlePolicy::dedicated(options.spin_us)
        };
        let reactor = Reactor::new(
            ReactorOptions {
                name: format!("ionian-n{}", options.node),
                core: options.core,
                idle,
                priority: options.priority,
            },
            clock,
        )?;
        let wake = reactor.wake_handle();
        let (controls, inbox) = mailbox(1024, wake.clone());
        let shared = Arc::new(Shared {
            controls,
            wake,
            clock,
            cluster: options.cluster,
            sessions: AtomicU64::new(1 << 32),
        });
        let (report, outcome) = std::sync::mpsc::sync_channel(1);
        let handle = reactor.spawn(move || match build::host(&options, inbox) {
            Ok((host, effective)) => {
                // The starter waits for this; if it is gone, nobody is interested.
                let _ = report.send(Ok(effective));
                HostPoller { host: Some(host) }
            }
            Err(error) => {
                let _ = report.send(Err(error));
                HostPoller { host: None }
            }
        })?;
        match outcome.recv() {
            Ok(Ok(effective)) => Ok(Self {
                shared,
                handle: Some(handle),
                effective,
                _data_dir: data_dir,
            }),
            Ok(Err(error)) => {
                let _ = handle.stop_and_join();
                Err(error)
            }
            Err(_) => Err(StartError::Thread(std::io::Error::other(
                "the reactor ended while it started",
            ))),
        }
    }

    /// What is really in force.
    #[must_use]
    pub const fn effective(&self) -> &Effective {
        &self.effective
    }

    /// How the reactor's thread really runs.
    #[must_use]
    pub fn reactor_start(&self) -> Option<ReactorStart> {
        self.handle.as_ref().map(ReactorHandle::start)
    }

    /// A counter of the reactor.
    #[must_use]
    pub fn counter(&self, counter: ReactorCounter) -> u64 {
        self.handle
            .as_ref()
            .map_or(0, |handle| handle.counter(counter))
    }

    /// The cluster's identity.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.shared.cluster
    }

    /// The clock that the machines use.
    #[must_use]
    pub fn now(&self) -> Time {
        self.shared.clock.now()
    }

    /// Asks every place for its state. `None` when the reactor does not answer in time.
    #[must_use]
    pub fn status(&self, timeout: std::time::Duration) -> Option<Status> {
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        self.shared
            .controls
            .send(Control::Status { answer: send })
            .ok()?;
        receive.recv_timeout(timeout).ok()
    }

    /// Whether the reactor has ended by itself.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.as_ref().is_none_or(ReactorHandle::is_finished)
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Takes no more appends, and waits until those taken are ordered. Whether all are, within `timeout`.
    #[must_use]
    pub fn drain(&self, timeout: std::time::Duration) -> bool {
        let deadline = std::time::Instant::now() + timeout;
        if self.shared.controls.send(Control::Drain).is_err() {
            return false;
        }
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            match self.status(left) {
                Some(status) if status.waiting_records() == 0 => return true,
                Some(_) if !left.is_zero() => std::thread::yield_now(),
                _ => return false,
            }
        }
    }

    /// Stops the process's reactor: what is not acknowledged is in doubt, as after a crash.
    pub fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        if let Some(handle) = self.handle.take() {
            // A reactor that failed has said so; there is nothing more to stop.
            let _ = handle.stop_and_join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.join();
    }
}

impl Shared {
    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    /// Opens a connection to a place. The caller polls its end; `wake` is called when something comes while it sleeps.
    pub(crate) fn connect(
        &self,
        place: Place,
        wake: Arc<dyn Wake + Send + Sync>,
    ) -> Option<ShmLink> {
        let ids = link_ids(self.sessions.fetch_add(1, Ordering::Relaxed));
        let (client, server) = duplex(RING_BYTES);
        let link = Box::new(ShmLink::new(server, ids.reversed(), wake));
        self.controls.send(Control::Attach { place, link }).ok()?;
        Some(ShmLink::new(client, ids, Arc::new(self.wake.clone())))
    }
}

/// The identity of a connection within one process.
pub(crate) const fn link_ids(session: u64) -> LinkIds {
    // Both ends live in this process: the token guards against a link used by mistake, not against an adversary.
    LinkIds {
        session: SessionId::new(session),
        epoch: GuardEpoch::new(1),
        send: Token::new(session.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        receive: Token::new(session.wrapping_mul(0xc2b2_ae3d_27d4_eb4f) | 1),
    }
}

/// A host as the reactor polls it; none when it could not be made.
#[derive(Debug)]
struct HostPoller {
    host: Option<Host>,
}

impl Poller for HostPoller {
    #[inline]
    fn poll(&mut self, now: Time) -> usize {
        self.host.as_mut().map_or(0, |host| host.poll(now))
    }

    fn next_deadline(&self) -> Option<Time> {
        self.host
            .as_ref()
            .map(Host::next_deadline)
            .filter(|at| *at != Time::FAR)
    }

    fn try_sleep(&mut self) -> bool {
        self.host.as_mut().is_none_or(Host::arm)
    }

    fn on_wake(&mut self) {
        if let Some(host) = &mut self.host {
            host.disarm();
        }
    }

    fn wake_fds(&self, add: &mut dyn FnMut(std::os::fd::RawFd)) {
        if let Some(host) = &self.host {
            host.wake_fds(add);
        }
    }
}
