//! From a configuration to running things: the options of a node's process, and of a client's socket.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use ionian_control_core::{Directory, DirectoryConfig};
use ionian_runtime::{CorePlan, Priority};
use ionian_types::{ClusterId, LogId, NodeId, Slot, Time};

use super::{BindError, ClusterConfig, NetworkConfig, NodeConfig, PlanChoice, Secret};
use crate::client::{ClientPortOptions, Credential};
use crate::role::{Place, Tuning};
use crate::server::{ControllerAt, ServerOptions};
use crate::tree::vertex_place;
use crate::udp::PortOptions;

/// The level asked for by `priority = "fifo"`.
const FIFO_LEVEL: u8 = 50;

/// Why a node of a configuration cannot be started. Effect: none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The configuration has no such node.
    #[error("the configuration has no node {node}; it has {known}")]
    UnknownNode {
        /// The name asked for.
        node: String,
        /// The names that there are.
        known: String,
    },
    /// An address cannot be used.
    #[error(transparent)]
    Bind(#[from] BindError),
}

impl ClusterConfig {
    /// What the process of node `name` is to be: its places, its socket, its directories and limits.
    ///
    /// # Errors
    /// [`LaunchError`]; effect none.
    pub fn server_options(
        &self,
        name: &str,
        secret: Secret,
        insecure_no_auth: bool,
    ) -> Result<ServerOptions, LaunchError> {
        let node = self.node(name).ok_or_else(|| {
            let known: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
            LaunchError::UnknownNode {
                node: name.to_owned(),
                known: known.join(", "),
            }
        })?;
        let bind = node.bind_address(insecure_no_auth)?;
        let mut options = self.local_options(node, secret.cluster_id());
        options.listen = Some(PortOptions {
            sessions_max: self.limits.connections_max as usize,
            ..self.network.port(bind)
        });
        options.secret = Some(secret);
        options.data_dir = Some(node.data_dir.clone());
        options.addresses = self.addresses()?;
        Ok(options)
    }

    /// Every place of the cluster, with the node that fills it.
    ///
    /// # Errors
    /// [`ionian_control_core::SpecError`]; effect none.
    pub fn seats(&self) -> Result<Vec<(NodeId, Place)>, ionian_control_core::SpecError> {
        let spec = self.cluster_spec();
        // The ids of logs and shards follow from the specification alone, whatever the cluster's identity.
        let plan: Directory = Directory::new(
            ClusterId::default(),
            &spec,
            DirectoryConfig::default(),
            Time::ZERO,
        )?;
        let controller = self.controller.map(|node| (node, Place::Directory));
        let mut seats: Vec<(NodeId, Place)> = controller.into_iter().collect();
        for (spec, log) in spec.logs.iter().zip(&plan.map().logs) {
            let roots = spec.root.iter().enumerate();
            seats.extend(
                roots.map(|(slot, node)| (*node, Place::Root(log.log, Slot::new(slot as u8)))),
            );
            let tree = log.tree.iter();
            seats.extend(tree.map(|it| (it.endpoint.node, vertex_place(log.log, it))));
            for (members, shard) in spec.shards.iter().zip(&log.shards) {
                let replicas = members.iter().enumerate().map(|(slot, node)| {
                    let slot = Slot::new(slot as u8);
                    (*node, Place::Replica(log.log, shard.shard, slot))
                });
                seats.extend(replicas);
            }
        }
        Ok(seats)
    }

    /// The name of each log by its id.
    ///
    /// # Errors
    /// As [`Self::seats`].
    pub fn log_names(&self) -> Result<BTreeMap<LogId, String>, ionian_control_core::SpecError> {
        let seats = self.seats()?;
        let roots = seats.iter().filter_map(|(_, place)| match place {
            Place::Root(log, Slot::ZERO) => Some(*log),
            _ => None,
        });
        let names = self.logs.iter().map(|log| log.name.clone());
        Ok(roots.zip(names).collect())
    }

    /// As [`Self::server_options`] for the first node, without socket or directories: the whole cluster in memory.
    #[must_use]
    pub fn in_memory_options(&self, cluster: ClusterId) -> ServerOptions {
        let node = self.nodes.first();
        let node = node.expect("a cluster has a node");
        self.local_options(node, cluster)
    }

    fn local_options(&self, node: &NodeConfig, cluster: ClusterId) -> ServerOptions {
        let mut options = ServerOptions::in_memory(self.cluster_spec());
        options.cluster = cluster;
        options.node = node.node;
        options.controller = self
            .controller
            .map_or(ControllerAt::External, ControllerAt::Node);
        options.copies_planned = self.limits.copies_planned;
        options.memory_bytes_max = self.limits.memory_bytes_max;
        options.disk_bytes_max = self.limits.disk_bytes_max;
        options.tuning = Tuning {
            cut_interval_ns: self.timing.cut_interval_us * 1_000,
            uncommitted_records_max: self.limits.uncommitted_records_max,
            cut_log_bytes_max: self.limits.cut_log_bytes_max,
            dead_after_ms: self.timing.dead_after_ms,
            suspect_after_ms: self
                .timing
                .detection()
                .map_or(0, |_| self.timing.suspect_after_ms),
            ..Tuning::default()
        };
        let retained = self
            .logs
            .iter()
            .filter_map(|log| Some((log.name.clone(), log.retention_bytes_max?)));
        options.retention_bytes_max = retained.collect();
        let cores = node.cores.iter().flatten();
        options.cores = cores.map(|core| *core as usize).collect();
        options.plan = match self.cores.plan {
            PlanChoice::Auto if node.cores.is_some() => CorePlan::Packed,
            PlanChoice::Auto | PlanChoice::Cooperative => CorePlan::Cooperative,
            PlanChoice::Dedicated => CorePlan::Dedicated,
            PlanChoice::Packed => CorePlan::Packed,
        };
        options.shared_core = options.plan == CorePlan::Cooperative;
        options.spin_us = self
            .cores
            .spin_us
            .unwrap_or(self.network.profile.spin_us.value);
        options.priority = if self.cores.fifo {
            Priority::Fifo { level: FIFO_LEVEL }
        } else {
            Priority::Normal
        };
        options
    }

    /// Where each node is found.
    fn addresses(&self) -> Result<BTreeMap<NodeId, SocketAddr>, BindError> {
        self.nodes
            .iter()
            .map(|node| Ok((node.node, node.resolve()?)))
            .collect()
    }
}

impl NodeConfig {
    /// The node's address, its host's name looked up.
    ///
    /// # Errors
    /// [`BindError::Unresolved`]; effect none.
    pub fn resolve(&self) -> Result<SocketAddr, BindError> {
        let unresolved = |reason: String| BindError::Unresolved {
            node: self.name.clone(),
            address: self.address.clone(),
            reason,
        };
        let mut found = self
            .address
            .to_socket_addrs()
            .map_err(|error| unresolved(error.to_string()))?;
        found
            .next()
            .ok_or_else(|| unresolved(String::from("no address")))
    }
}

/// How a client reaches the cluster whose controller is at `directory`. The log is named by its number; a client that does
/// not know it yet asks for the map first.
#[must_use]
pub fn client_options(
    directory: SocketAddr,
    secret: Secret,
    log: LogId,
    network: &NetworkConfig,
) -> ClientPortOptions {
    let any = match (directory.ip().is_loopback(), directory.is_ipv4()) {
        (true, true) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        (true, false) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        (false, true) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        (false, false) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    ClientPortOptions {
        directory,
        others: Vec::new(),
        credential: Credential::Secret(secret),
        nodes: BTreeMap::new(),
        port: network.port(SocketAddr::new(any, 0)),
        log,
        spin: false,
        dead_after_ms: Tuning::default().dead_after_ms,
    }
}
