//! Building a host from its plan: the socket, the controller, the places with their stores.

use std::net::SocketAddr;
use std::sync::Arc;

use ionian_control_core::{Directory, DirectoryConfig, Observer};
use ionian_types::{Durability, Nanos, Time};
use ionian_uring::DataDir;
use ionian_wire::directory::ClusterMap;
use ionian_wire::grant::Rights;

use super::layout::HostPlan;
use super::place::{self, PlaceSpec, place_directory};
use super::{Effective, ServerOptions, StartError};
use crate::host::{Host, Maker, Newcomer, Own};
use crate::role::{DirectoryRole, Machine, Place};
use crate::shares::shortfalls;
use crate::start::DIRECTORY_FILE;
use crate::udp::{PortOptions, UdpPort};
use ionian_core::guard::Keyring;

/// Largest state of the controller that is read back, in bytes.
const DIRECTORY_BYTES_MAX: u64 = 256 << 20;

/// Makes a host on its reactor's thread. `listen` is where the socket of the process is, if another host has it.
pub(super) fn host(
    options: &Arc<ServerOptions>,
    plan: HostPlan,
    own: Own,
    listen: Option<SocketAddr>,
) -> Result<(Host, Effective), StartError> {
    let shared = own.shared.clone();
    let mut host = Host::new(own);
    let mut effective = Effective {
        transport: String::from("shared memory"),
        listen,
        ..Effective::default()
    };
    if let (true, Some(listen)) = (plan.socket, &options.listen) {
        let dead_after = Nanos::from_ms(options.tuning.dead_after_ms);
        let keyring = match &options.secret {
            Some(secret) => secret.keyring(options.node, Rights::ALL),
            None => Keyring::of_controllers(options.node),
        };
        let port = UdpPort::open(listen, keyring, dead_after)?;
        effective.listen = Some(port.local_addr());
        effective.transport = transport(listen, &port);
        host.listen(port);
        if let Some(suspect_after) = options.observes() {
            host.observe(Observer::new(options.node, suspect_after));
        }
    }
    if plan.directory {
        let newcomer = Newcomer {
            spec: Box::new(PlaceSpec::new(Place::Directory, "", Durability::D0)),
            machine: directory(options)?,
            opening: None,
        };
        host.admit(Time::ZERO, newcomer);
        effective.places.push(Place::Directory);
    }
    for (spec, share) in plan.places {
        let place = spec.place;
        let address = effective.registered();
        // Nobody else is on this thread yet, so it may read the files to their end at once; its memory is near it.
        let newcomer = place::open(options, &shared, address, spec, share)?.finish()?;
        let arrived = host.admit(Time::ZERO, newcomer);
        effective.places.push(place);
        effective
            .devices
            .extend(arrived.device.map(|device| (place, device)));
    }
    host.may_make(Maker {
        options: options.clone(),
        address: effective.registered(),
    });
    Ok((host, effective))
}

/// The cluster map that a process begins with: the one that it knew last, or as the specification alone makes it, where the
/// ids of logs and shards are the same in every process and whatever the controller says is newer.
pub(super) fn map_of(options: &ServerOptions) -> Result<ClusterMap, StartError> {
    if let Some(map) = &options.map {
        return Ok(map.clone());
    }
    // Without nodes there is nothing to check; then places come from elsewhere.
    if options.spec.nodes.is_empty() && options.spec.logs.is_empty() {
        return Ok(ClusterMap::default());
    }
    let directory: Directory = Directory::new(
        options.cluster,
        &options.spec,
        DirectoryConfig::default(),
        Time::ZERO,
    )?;
    Ok(ClusterMap {
        version: 0,
        ..directory.map()
    })
}

/// Whether the copies that the specification gives this node can share its limits.
pub(super) fn check_limits(options: &ServerOptions) -> Result<(), StartError> {
    let (memory, disk) = (options.memory_bytes_max, options.disk_bytes_max);
    let logs = options.spec.logs.iter();
    let classes = logs.map(|log| (log.class, &log.shards[..]));
    let short = shortfalls(options.node, memory, disk, classes).next();
    short.map_or(Ok(()), |short| {
        Err(StartError::TooLittle {
            limit: short.limit,
            bytes: short.bytes,
            copies: short.copies,
            least: short.least,
        })
    })
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
