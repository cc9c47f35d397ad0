//! A place as its machine needs it, and making it ready for a host: at the start of a process and while it runs alike.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ionian_store::{Store, StoreConfig};
use ionian_types::{Durability, Inc, NodeId, ShardId, Slot, VertexId};

use super::shared::Shared;
use super::{ServerOptions, StartError};
use crate::device::{self, Opening};
use crate::host::Newcomer;
use crate::role::{Machine, Place, Tuning, Waiting};

/// What a place needs to start, besides what its process gives to all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlaceSpec {
    /// Which: a root, a vertex of the tree or a replica.
    pub place: Place,
    /// The name of its log.
    pub log: String,
    /// What an acknowledgement of the log means.
    pub class: Durability,
    /// Replicas of its shard, 1 to 8; 0 for any other. How many must hold a record the views say.
    pub replicas: u8,
    /// The nodes of the log's root group in slot order, until the cluster map says others.
    pub roots: Vec<NodeId>,
    /// The vertex of the tree above it with its node, until the cluster map says others: of a replica its leaf, of a vertex
    /// an aggregator, or nothing right below the root.
    pub above: Option<(Place, NodeId)>,
    /// The nodes of the shard's replicas in slot order, until the cluster map says others; empty for any other.
    pub members: Vec<NodeId>,
    /// Memory for a replica's records in bytes; none for its share of what the process has for all.
    pub memory_bytes_max: Option<u64>,
    /// Disk for a replica's records in bytes; none for its share of what the process has for all.
    pub disk_bytes_max: Option<u64>,
    /// Bytes of a replica beyond which its oldest records are trimmed; none keeps everything.
    pub retention_bytes_max: Option<u64>,
}

impl PlaceSpec {
    /// A place of a log, with what can be said without knowing the cluster.
    #[must_use]
    pub fn new(place: Place, log: &str, class: Durability) -> Self {
        Self {
            place,
            log: log.to_owned(),
            class,
            replicas: 0,
            roots: Vec::new(),
            above: None,
            members: Vec::new(),
            memory_bytes_max: None,
            disk_bytes_max: None,
            retention_bytes_max: None,
        }
    }

    /// The store that it needs, before its limits are set; a vertex of the tree needs none.
    pub(super) fn store_config(&self, options: &ServerOptions) -> Option<StoreConfig> {
        let (log, shard, segments) = match self.place {
            Place::Directory | Place::Leaf(..) | Place::Aggregator(..) => return None,
            Place::Root(log, _) => (log, ShardId::MAX, 0),
            Place::Replica(log, shard, _) => (log, shard, self.replicas),
        };
        let (cluster, node) = (options.cluster, options.node);
        let mut config = StoreConfig::new(cluster, node, log, shard, segments, self.class);
        let mut random = [0u8; 8];
        // Without random bits the marks of two lives may agree; recovery then relies on positions alone.
        if getrandom::fill(&mut random).is_ok() {
            config.entropy = u64::from_le_bytes(random);
        }
        Some(config)
    }
}

/// Limits of one replica's store, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Share {
    pub(super) memory: u64,
    pub(super) disk: u64,
}

/// The directory of a place within a node's data directory.
#[must_use]
pub fn place_directory(data_dir: &Path, place: Place) -> PathBuf {
    data_dir.join(match place {
        Place::Directory => String::from("controller"),
        // The only one of most logs, and of all in earlier versions.
        Place::Root(log, Slot::ZERO) => format!("log{log}-root"),
        Place::Root(log, slot) => format!("log{log}-root{slot}"),
        Place::Leaf(log, VertexId::ZERO) => format!("log{log}-leaf"),
        Place::Leaf(log, vertex) => format!("log{log}-leaf{vertex}"),
        Place::Aggregator(log, vertex) => format!("log{log}-aggregator{vertex}"),
        Place::Replica(log, shard, slot) => format!("log{log}-shard{shard}-slot{slot}"),
    })
}

/// As [`open`], for a member of a root group that comes again: it has no share of what the replicas have.
///
/// # Errors
/// [`StartError`]; effect none, but for files made.
pub(crate) fn make_ready(
    options: &ServerOptions,
    shared: &Shared,
    address: String,
    spec: &PlaceSpec,
) -> Result<Newcomer, StartError> {
    open(options, shared, address, spec.clone(), Share::default())
}

/// Makes a place ready for its host: opens its files and its device's queue, which takes system calls. What the files hold is
/// read on the host's thread.
///
/// # Errors
/// [`StartError`]; effect none, but for files made.
pub(super) fn open(
    options: &ServerOptions,
    shared: &Shared,
    address: String,
    spec: PlaceSpec,
    share: Share,
) -> Result<Newcomer, StartError> {
    let mut waiting = Waiting {
        cluster: options.cluster,
        node: options.node,
        place: spec.place,
        address,
        class: spec.class,
        replicas: spec.replicas,
        store: None,
        has_data: false,
        last_inc: Inc::ZERO,
        tuning: Tuning {
            retention_bytes_max: spec.retention_bytes_max,
            ..options.tuning
        },
        request: 1,
        asked: false,
        admitted: None,
        hello: None,
        opened: Vec::new(),
    };
    let mut opening: Option<Opening> = None;
    if let Some(mut config) = spec.store_config(options) {
        if matches!(spec.place, Place::Replica(..)) {
            config.memory_bytes_max = share.memory;
            config.disk_bytes_max = share.disk;
        }
        if spec.class.is_flushed() {
            let Some(data_dir) = &options.data_dir else {
                return Err(StartError::NoDirectory {
                    log: spec.log,
                    class: spec.class,
                });
            };
            let folder = place_directory(data_dir, spec.place);
            let sharers: Arc<AtomicU64> = shared.stores.clone();
            let fault = options.flush_fault.clone();
            opening = Some(device::open(&folder, config, sharers, fault)?);
        } else {
            waiting.store = Some(Store::new(config));
        }
    }
    Ok(Newcomer {
        spec: Box::new(spec),
        machine: Machine::Waiting(Box::new(waiting)),
        opening: opening.map(Box::new),
    })
}
