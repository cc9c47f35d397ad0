//! The machines that a host runs, and how each comes to life: register with the controller, get an incarnation, start.

use std::vec::Vec;

use ionian_control_core::Directory;
use ionian_core::aggregator::{Aggregator, AggregatorConfig};
use ionian_core::leaf::{Leaf, LeafConfig};
use ionian_core::replica::{Replica, ReplicaConfig};
use ionian_core::root::{Root, RootConfig};
use ionian_core::{Outbox, OutboxLimits};
use ionian_store::{RunRef, Store};
use ionian_types::{
    ClusterId, ConnId, Durability, Inc, LogId, NodeId, ShardId, Slot, Time, VertexId,
};
use ionian_wire::frame::{Connect, Hello, Message, Register};

use crate::dial::wanted;

/// A place of the cluster that one process fills.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// The built-in controller.
    Directory,
    /// A member of the root group of a log; the only one is in slot 0.
    Root(LogId, Slot),
    /// A leaf of a log's ordering tree.
    Leaf(LogId, VertexId),
    /// An aggregator of a log's ordering tree.
    Aggregator(LogId, VertexId),
    /// A replica.
    Replica(LogId, ShardId, Slot),
}

impl Place {
    /// The log that it is of; none for the controller.
    #[must_use]
    pub const fn log(self) -> Option<LogId> {
        match self {
            Self::Directory => None,
            Self::Root(log, _)
            | Self::Leaf(log, _)
            | Self::Aggregator(log, _)
            | Self::Replica(log, ..) => Some(log),
        }
    }
}

impl core::fmt::Display for Place {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Directory => f.write_str("controller"),
            Self::Root(log, Slot::ZERO) => write!(f, "root of log {log}"),
            Self::Root(log, slot) => write!(f, "root {slot} of log {log}"),
            Self::Leaf(log, VertexId::ZERO) => write!(f, "leaf of log {log}"),
            Self::Leaf(log, vertex) => write!(f, "leaf {vertex} of log {log}"),
            Self::Aggregator(log, vertex) => write!(f, "aggregator {vertex} of log {log}"),
            Self::Replica(log, shard, slot) => write!(f, "replica {shard}.{slot} of log {log}"),
        }
    }
}

/// A machine, in whatever state of life.
#[derive(Debug)]
pub(crate) enum Machine {
    /// Registering: the machine starts with the incarnation that the controller gives.
    Waiting(Box<Waiting>),
    /// Refused by the controller, with its sentence.
    Refused(String),
    Replica(Box<Replica>),
    Leaf(Box<Leaf>),
    Aggregator(Box<Aggregator>),
    Root(Box<Root>),
    Directory(Box<DirectoryRole>),
}

/// What a place needs to start.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) place: Place,
    pub(crate) address: String,
    pub(crate) class: Durability,
    pub(crate) replicas: u8,
    pub(crate) store: Option<Store>,
    pub(crate) has_data: bool,
    pub(crate) last_inc: Inc,
    pub(crate) tuning: Tuning,
    pub(crate) request: u64,
    pub(crate) asked: bool,
    /// The life that the controller has issued. The machine starts when it is durable.
    pub(crate) admitted: Option<Admission>,
    /// The controller's greeting, for the machine.
    pub(crate) hello: Option<Hello>,
    /// Connections that opened meanwhile.
    pub(crate) opened: Vec<ConnId>,
}

/// A life that the controller has issued.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission {
    pub(crate) cluster: ClusterId,
    pub(crate) inc: Inc,
}

/// Settings of machines that differ between runs.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// The least time between two cuts in nanoseconds; 0 cuts as fast as entries commit.
    pub cut_interval_ns: u64,
    /// Own records not yet ordered beyond which a replica refuses appends.
    pub uncommitted_records_max: u64,
    /// Largest run of records in one message, in bytes.
    pub run_bytes_max: usize,
    /// Bytes of cut-log entries kept in memory.
    pub cut_log_bytes_max: u64,
    /// Bytes per replica beyond which the oldest records are trimmed; none keeps everything.
    pub retention_bytes_max: Option<u64>,
    /// Milliseconds of silence after which a peer on another host counts as dead.
    pub dead_after_ms: u64,
    /// Milliseconds of silence after which the controllers are told of a process; 0 for never.
    pub suspect_after_ms: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            cut_interval_ns: 0,
            uncommitted_records_max: 1 << 18,
            run_bytes_max: 64 * 1024,
            cut_log_bytes_max: 1 << 30,
            retention_bytes_max: None,
            dead_after_ms: 3_000,
            suspect_after_ms: 0,
        }
    }
}

/// The directory and what its edge needs.
#[derive(Debug)]
pub(crate) struct DirectoryRole {
    pub(crate) machine: Directory,
    /// Where snapshots go; none for a cluster that lives in memory only.
    pub(crate) file: Option<ionian_uring::DataDir>,
    pub(crate) message: Vec<u8>,
}

impl Machine {
    pub(crate) fn opened(&mut self, conn: ConnId, out: &mut Outbox) {
        match self {
            Self::Waiting(waiting) => waiting.opened.push(conn),
            Self::Refused(_) => {}
            Self::Replica(machine) => machine.opened(conn, out),
            Self::Leaf(machine) => machine.opened(conn, out),
            Self::Aggregator(machine) => machine.opened(conn, out),
            Self::Root(machine) => machine.opened(conn, out),
            Self::Directory(role) => role.machine.connected(conn),
        }
    }

    pub(crate) fn closed(&mut self, now: Time, conn: ConnId) {
        match self {
            Self::Waiting(waiting) => waiting.opened.retain(|other| *other != conn),
            Self::Refused(_) => {}
            Self::Replica(machine) => machine.closed(now, conn),
            Self::Leaf(machine) => machine.closed(conn),
            Self::Aggregator(machine) => machine.closed(conn),
            Self::Root(machine) => machine.closed(conn),
            Self::Directory(role) => role.machine.disconnected(now, conn),
        }
    }

    #[inline]
    pub(crate) fn handle(
        &mut self,
        now: Time,
        conn: ConnId,
        message: &Message<'_>,
        out: &mut Outbox,
    ) {
        match self {
            Self::Replica(machine) => machine.handle(now, conn, message, out),
            Self::Leaf(machine) => machine.handle(now, conn, message, out),
            Self::Aggregator(machine) => machine.handle(now, conn, message, out),
            Self::Root(machine) => machine.handle(now, conn, message, out),
            Self::Directory(role) => {
                role.machine.set_wall_clock_us(time_of_day_us());
                role.machine.handle(now, conn, message);
            }
            Self::Waiting(_) | Self::Refused(_) => {}
        }
    }

    #[inline]
    pub(crate) fn flush(&mut self, now: Time, out: &mut Outbox) {
        match self {
            Self::Replica(machine) => machine.flush(now, out),
            Self::Leaf(machine) => machine.flush(now, out),
            Self::Aggregator(machine) => machine.flush(now, out),
            Self::Root(machine) => machine.flush(now, out),
            Self::Directory(_) | Self::Waiting(_) | Self::Refused(_) => {}
        }
    }

    pub(crate) fn next_deadline(&self) -> Time {
        match self {
            Self::Replica(machine) => machine.next_deadline(),
            Self::Leaf(machine) => machine.next_deadline(),
            Self::Aggregator(machine) => machine.next_deadline(),
            Self::Root(machine) => machine.next_deadline(),
            Self::Directory(role) => role.machine.next_deadline(),
            Self::Waiting(_) | Self::Refused(_) => Time::FAR,
        }
    }

    pub(crate) fn take_close(&mut self) -> Option<ConnId> {
        match self {
            Self::Replica(machine) => machine.take_close(),
            Self::Leaf(machine) => machine.take_close(),
            Self::Aggregator(machine) => machine.take_close(),
            Self::Root(machine) => machine.take_close(),
            Self::Directory(_) | Self::Waiting(_) | Self::Refused(_) => None,
        }
    }

    /// The bytes of an envelope's body.
    #[inline]
    pub(crate) fn body(&self, run: &RunRef) -> &[u8] {
        match self {
            Self::Replica(machine) => machine.store().bytes(run),
            _ => &[],
        }
    }

    pub(crate) fn store(&self) -> Option<&Store> {
        match self {
            Self::Replica(machine) => Some(machine.store()),
            Self::Root(machine) => Some(machine.store()),
            Self::Waiting(waiting) => waiting.store.as_ref(),
            Self::Leaf(_) | Self::Aggregator(_) | Self::Directory(_) | Self::Refused(_) => None,
        }
    }

    pub(crate) fn store_mut(&mut self) -> Option<&mut Store> {
        match self {
            Self::Replica(machine) => Some(machine.store_mut()),
            Self::Root(machine) => Some(machine.store_mut()),
            Self::Waiting(waiting) => waiting.store.as_mut(),
            Self::Leaf(_) | Self::Aggregator(_) | Self::Directory(_) | Self::Refused(_) => None,
        }
    }
}

impl Waiting {
    /// The registration to send.
    pub(crate) fn register(&self) -> Register {
        let Connect {
            role,
            log,
            shard,
            slot,
            vertex,
            ..
        } = wanted(self.place);
        Register {
            cluster: if self.has_data {
                self.cluster
            } else {
                ClusterId::default()
            },
            node: self.node,
            role,
            log,
            shard,
            slot,
            vertex,
            last_inc: self.last_inc,
            has_data: self.has_data,
            request: self.request,
        }
    }

    /// The controller has issued a life: it goes into the store, which writes it at once.
    pub(crate) fn admit(&mut self, admission: Admission) {
        self.admitted = Some(admission);
        if let Some(store) = &mut self.store {
            store.set_inc(admission.inc);
        }
    }

    /// The life that begins now, if one was issued and a restart would find it.
    pub(crate) fn begins(&self) -> Option<Admission> {
        let durable = |inc| {
            let mut store = self.store.iter();
            store.all(|store| store.inc_durable() == inc)
        };
        self.admitted.filter(|admission| durable(admission.inc))
    }

    /// The machine with its incarnation.
    pub(crate) fn start(&mut self, Admission { cluster, inc }: Admission, now: Time) -> Machine {
        let timing = &self.tuning;
        match self.place {
            Place::Replica(log, shard, slot) => {
                let mut config =
                    ReplicaConfig::new(cluster, self.node, inc, log, shard, slot, self.replicas);
                config.uncommitted_records_max = timing.uncommitted_records_max;
                config.run_bytes_max = timing.run_bytes_max;
                config.retention_bytes_max = timing.retention_bytes_max;
                let store = self.store.take().expect("a replica waits with its store");
                Machine::Replica(Box::new(Replica::new(config, store, now)))
            }
            Place::Root(log, slot) => {
                let mut config = RootConfig::new(cluster, self.node, inc, log, self.class);
                config.slot = slot;
                config.cut_interval = ionian_types::Nanos(timing.cut_interval_ns);
                config.cut_log_bytes_max = timing.cut_log_bytes_max;
                let store = self.store.take().expect("a root waits with its store");
                Machine::Root(Box::new(Root::new(config, store, now)))
            }
            Place::Leaf(log, _) => {
                let config = LeafConfig::new(cluster, self.node, inc, log);
                Machine::Leaf(Box::new(Leaf::new(config, now)))
            }
            Place::Aggregator(log, _) => {
                let config = AggregatorConfig::new(cluster, self.node, inc, log, Slot::ZERO);
                Machine::Aggregator(Box::new(Aggregator::new(config, now)))
            }
            Place::Directory => unreachable!("the directory does not register"),
        }
    }
}

/// Microseconds since 1970, for the histories that people read; 0 when the clock is set before that.
fn time_of_day_us() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
    since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0))
}

/// The outbox of a host with this many connections.
pub(crate) fn outbox(connections: usize) -> Outbox {
    Outbox::new(OutboxLimits {
        connections,
        ..OutboxLimits::default()
    })
}

/// The order in which work flows through the places.
pub(crate) const fn rank(place: Place) -> u8 {
    match place {
        Place::Replica(..) => 0,
        Place::Leaf(..) => 1,
        Place::Aggregator(..) => 2,
        Place::Root(..) => 3,
        Place::Directory => 4,
    }
}
