//! Building a host from its plan: the controller, the places with their stores, and the connections between them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ionian_control_core::{Directory, DirectoryConfig};
use ionian_driver_api::NoWake;
use ionian_shm::duplex;
use ionian_store::{Store, StoreConfig};
use ionian_types::{Durability, Inc, LogId, Nanos, ShardId, Slot, Time};
use ionian_uring::DataDir;
use ionian_wire::directory::ClusterMap;

use super::layout::HostPlan;
use super::{Effective, ServerOptions, StartError};
use crate::device::{self, StoreIo};
use crate::host::{Host, Own};
use crate::link::ShmLink;
use crate::role::{DirectoryRole, Machine, Place, Tuning, Waiting};
use crate::shares::{copies_on, shortfalls};
use crate::start::DIRECTORY_FILE;
use crate::udp::{PortOptions, UdpPort};

/// Largest state of the controller that is read back, in bytes.
const DIRECTORY_BYTES_MAX: u64 = 256 << 20;

/// The directory of a place within a node's data directory.
#[must_use]
pub fn place_directory(data_dir: &Path, place: Place) -> PathBuf {
    data_dir.join(match place {
        Place::Directory => String::from("controller"),
        Place::Root(log) => format!("log{log}-root"),
        Place::Leaf(log) => format!("log{log}-leaf"),
        Place::Replica(log, shard, slot) => format!("log{log}-shard{shard}-slot{slot}"),
    })
}

/// Makes a host on its reactor's thread. `listen` is where the socket of the process is, if another host has it.
pub(super) fn host(
    options: &ServerOptions,
    plan: HostPlan,
    own: Own,
    listen: Option<SocketAddr>,
) -> Result<(Host, Effective), StartError> {
    let mut host = Host::new(own);
    let mut effective = Effective {
        transport: String::from("shared memory"),
        listen,
        ..Effective::default()
    };
    if let (true, Some(listen), Some(secret)) = (plan.socket, &options.listen, &options.secret) {
        let dead_after = Nanos::from_ms(options.tuning.dead_after_ms);
        let port = UdpPort::open(listen, secret.clone(), dead_after)?;
        effective.listen = Some(port.local_addr());
        effective.transport = transport(listen, &port);
        host.listen(port);
    }
    let map = directory_of(options)?.map();
    if plan.places.contains(&Place::Directory) {
        host.add(Place::Directory, directory(options)?, None);
        effective.places.push(Place::Directory);
    }
    let mut builder = Builder {
        options,
        map: &map,
        host,
        effective,
        copies: 1,
    };
    builder.places(&plan.places)?;
    builder.connections(plan);
    Ok((builder.host, builder.effective))
}

/// The directory as the specification alone makes it: the ids of logs and shards are the same in every process.
pub(super) fn directory_of(options: &ServerOptions) -> Result<Directory, StartError> {
    Ok(Directory::new(
        options.cluster,
        &options.spec,
        DirectoryConfig::default(),
        Time::ZERO,
    )?)
}

/// What carries messages between processes, in words.
fn transport(options: &PortOptions, port: &UdpPort) -> String {
    let mut text = format!(
        "udp (profile {}), datagrams of up to {} bytes, at most {} sessions",
        options.profile,
        port.payload_bytes_max(),
        options.sessions_max
    );
    if let Some(faults) = &options.faults {
        text += &format!(", WITH FAULTS {faults}");
    }
    if let Some(trace) = &options.trace {
        text += &format!(", traced to {}", trace.path.display());
    }
    text
}

fn directory(options: &ServerOptions) -> Result<Machine, StartError> {
    let config = DirectoryConfig {
        node: options.node,
        ..DirectoryConfig::default()
    };
    let Some(data_dir) = &options.data_dir else {
        let machine = Directory::new(options.cluster, &options.spec, config, Time::ZERO)?;
        return Ok(Machine::Directory(Box::new(DirectoryRole {
            machine,
            file: None,
            message: Vec::new(),
        })));
    };
    let path = place_directory(data_dir, Place::Directory);
    let unusable = |reason: String| StartError::Controller {
        path: path.display().to_string(),
        reason,
    };
    let dir = DataDir::open(&path)?;
    let kept = dir
        .read_small(DIRECTORY_FILE, DIRECTORY_BYTES_MAX)
        .map_err(|error| unusable(error.to_string()))?;
    let machine = match kept {
        Some(bytes) => {
            let mut machine = Directory::restore(&bytes, config, Time::ZERO)
                .map_err(|error| unusable(error.to_string()))?;
            if machine.cluster() != options.cluster {
                return Err(unusable(format!(
                    "it belongs to cluster {}, this is cluster {}",
                    machine.cluster(),
                    options.cluster
                )));
            }
            machine.reconcile(Time::ZERO, &options.spec)?;
            machine
        }
        None => Directory::new(options.cluster, &options.spec, config, Time::ZERO)?,
    };
    Ok(Machine::Directory(Box::new(DirectoryRole {
        machine,
        file: Some(dir),
        message: Vec::new(),
    })))
}

struct Builder<'a> {
    options: &'a ServerOptions,
    map: &'a ClusterMap,
    host: Host,
    effective: Effective,
    /// Copies of shards on this node: they share its limits, and its file system.
    copies: u64,
}

impl Builder<'_> {
    /// Adds the places of this host.
    fn places(&mut self, wanted: &[Place]) -> Result<(), StartError> {
        let node = self.options.node;
        let logs = &self.options.spec.logs;
        let (memory, disk) = (self.options.memory_bytes_max, self.options.disk_bytes_max);
        let classes = logs.iter().map(|log| (log.class, &log.shards[..]));
        if let Some(short) = shortfalls(node, memory, disk, classes).next() {
            return Err(StartError::TooLittle {
                limit: short.limit,
                bytes: short.bytes,
                copies: short.copies,
                least: short.least,
            });
        }
        self.copies = copies_on(node, logs.iter().flat_map(|log| &log.shards)).max(1);
        for (spec, log) in self.options.spec.logs.iter().zip(&self.map.logs) {
            let place = Place::Root(log.log);
            if wanted.contains(&place) {
                let config = self.store_config(log.log, ShardId::MAX, 0, spec.class);
                self.place(&spec.name, place, spec.class, 0, Some(config))?;
            }
            let place = Place::Leaf(log.log);
            if wanted.contains(&place) {
                self.place(&spec.name, place, spec.class, 0, None)?;
            }
            for (members, shard) in spec.shards.iter().zip(&log.shards) {
                for slot in 0..members.len() {
                    let place = Place::Replica(log.log, shard.shard, Slot::new(slot as u8));
                    if !wanted.contains(&place) {
                        continue;
                    }
                    let count = members.len() as u8;
                    let mut config = self.store_config(log.log, shard.shard, count, spec.class);
                    config.memory_bytes_max = self.options.memory_bytes_max / self.copies;
                    config.disk_bytes_max = self.options.disk_bytes_max / self.copies;
                    self.place(&spec.name, place, spec.class, count, Some(config))?;
                }
            }
        }
        Ok(())
    }

    fn store_config(
        &self,
        log: LogId,
        shard: ShardId,
        segments: u8,
        class: Durability,
    ) -> StoreConfig {
        let mut config = StoreConfig::new(
            self.options.cluster,
            self.options.node,
            log,
            shard,
            segments,
            class,
        );
        let mut random = [0u8; 8];
        // Without random bits the marks of two lives may agree; recovery then relies on positions alone.
        if getrandom::fill(&mut random).is_ok() {
            config.entropy = u64::from_le_bytes(random);
        }
        config
    }

    fn place(
        &mut self,
        log: &str,
        place: Place,
        class: Durability,
        replicas: u8,
        config: Option<StoreConfig>,
    ) -> Result<(), StartError> {
        let mut waiting = Waiting {
            cluster: self.options.cluster,
            node: self.options.node,
            place,
            address: self
                .effective
                .listen
                .map(|address| address.to_string())
                .unwrap_or_default(),
            class,
            replicas,
            store: None,
            has_data: false,
            last_inc: Inc::ZERO,
            tuning: Tuning {
                retention_bytes_max: self.options.retention_bytes_max.get(log).copied(),
                ..self.options.tuning
            },
            request: 1,
            asked: false,
            hello: None,
            opened: Vec::new(),
        };
        let mut io: Option<StoreIo> = None;
        if let Some(config) = config {
            if class.is_flushed() {
                let Some(data_dir) = &self.options.data_dir else {
                    return Err(StartError::NoDirectory {
                        log: log.to_owned(),
                        class,
                    });
                };
                let folder = place_directory(data_dir, place);
                let fault = self.options.flush_fault.clone();
                let opened = device::open(&folder, config, self.copies, fault)?;
                let note = opened
                    .fallback
                    .map_or(String::new(), |reason| format!(" ({reason})"));
                self.effective
                    .devices
                    .push((place, format!("{}{note}", opened.io.backend())));
                waiting.has_data = opened.has_data;
                waiting.last_inc = opened.last_inc;
                waiting.store = Some(opened.store);
                io = Some(opened.io);
            } else {
                waiting.store = Some(Store::new(config));
            }
        }
        self.effective.places.push(place);
        self.host
            .add(place, Machine::Waiting(Box::new(waiting)), io);
        Ok(())
    }

    /// Connects the places of this host to each other, to those of other hosts, and to other processes.
    fn connections(&mut self, plan: HostPlan) {
        let wake = Arc::new(NoWake);
        for pair in plan.pairs {
            let (a, b) = duplex(pair.bytes);
            let far = ShmLink::new(b, pair.ids.reversed(), wake.clone());
            let near = ShmLink::new(a, pair.ids, wake.clone());
            let to_controller = matches!(pair.to, Place::Directory);
            self.host
                .attach_pair((pair.from, near), (pair.to, far), to_controller);
        }
        for end in plan.ends {
            self.host
                .attach_end(end.place, *end.link, end.to_controller);
        }
        for dial in plan.dials {
            self.host.keep_dialled(dial);
        }
    }
}
