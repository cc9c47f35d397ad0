//! What the tests share: controllers, processes of the data plane, and what they are configured with.
#![allow(dead_code, reason = "every test file uses a part of this module")]

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ionian_control_client::Client;
use ionian_control_client::identity::Role;
use ionian_control_client::tls::Credentials;
use ionian_control_cluster::{ClusterState, Founding};
use ionian_control_core::{
    ClusterSpec, DirectoryConfig, LogSpec, NodeSpec, Operate, Operated, Operation, RootQuorum,
    TreeSpec,
};
use ionian_control_server::ca::Ca;
use ionian_control_server::{Controller, ControllerConfig, GroupTiming, Limits, Start};
use ionian_node::config::{NetworkConfig, Secret};
use ionian_node::{ControllerAt, Place, PlaceSpec, Server, ServerOptions};
use ionian_types::{Durability, LogId, NodeId, OrderingMode, ShardId, Slot, VertexId};

/// The longest anything takes, on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
pub(crate) const LOG: LogId = LogId::new(1);

pub(crate) fn secret() -> Secret {
    Secret::new([7; 32])
}

pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// What the controllers answer to an operation, which they take.
pub(crate) fn ask(operator: &Client, operation: Operation) -> Operated {
    let request = Operate {
        plan: false,
        operation,
    };
    let answer = operator.operate(&request.encode(), PATIENCE);
    let answer = Operated::decode(&answer.expect("answered")).expect("sound");
    assert!(!answer.refused, "{}", answer.text);
    answer
}

/// How a cluster begins: a log whose shards have replicas on these nodes; its root and its leaf are on node 1.
pub(crate) fn founding(class: Durability, shards: &[&[u32]]) -> Founding {
    let on = |nodes: &&[u32]| nodes.iter().copied().map(NodeId::new).collect();
    let shards: Vec<Vec<NodeId>> = shards.iter().map(on).collect();
    let first = NodeId::new(1);
    let nodes = shards.iter().flatten().copied().chain([first]);
    Founding {
        cluster: secret().cluster_id(),
        spec: ClusterSpec {
            nodes: nodes.map(|node| (node, NodeSpec::default())).collect(),
            logs: vec![LogSpec {
                name: String::from("default"),
                mode: OrderingMode::Scalog,
                class,
                quorum: None,
                root: vec![first],
                root_quorum: RootQuorum::Majority,
                tree: TreeSpec::leaf(first),
                shards,
            }],
        },
        config: DirectoryConfig::default(),
    }
}

pub(crate) fn issue(ca: &Ca, role: Role) -> Credentials {
    let issued = ca.issue(role).expect("a legal name");
    ca.credentials(&issued).expect("sound")
}

/// A controller whose cluster behaves in time as `config` says.
pub(crate) fn controller(
    ca: &Ca,
    id: u64,
    dir: &Path,
    start: Start,
    behaves: DirectoryConfig,
) -> Controller {
    let founding = Founding {
        config: behaves,
        ..founding(Durability::D1, &[&[1, 2]])
    };
    controller_of(ca, id, dir, start, founding)
}

/// A controller whose cluster begins so.
pub(crate) fn controller_of(
    ca: &Ca,
    id: u64,
    dir: &Path,
    start: Start,
    founding: Founding,
) -> Controller {
    let config = ControllerConfig {
        credentials: issue(ca, Role::Controller(id)),
        folder: dir.join(format!("controller-{id}")),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        advertise: None,
        start,
        timing: GroupTiming {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(500),
            election_max: Duration::from_millis(1000),
            ..GroupTiming::default()
        },
        limits: Limits::default(),
        report: Arc::new(|sentence| println!("{sentence}")),
    };
    Controller::start(config, ClusterState::new(), founding).expect("it starts")
}

pub(crate) fn server(id: u32, addresses: &BTreeMap<NodeId, SocketAddr>, dir: &Path) -> Server {
    observer(id, addresses, dir, 0)
}

/// A process that speaks up about others after a silence; never with 0.
pub(crate) fn observer(
    id: u32,
    addresses: &BTreeMap<NodeId, SocketAddr>,
    dir: &Path,
    suspect_after_ms: u64,
) -> Server {
    let mut options = ServerOptions::in_memory(ClusterSpec::default());
    options.cluster = secret().cluster_id();
    options.secret = Some(secret());
    options.node = NodeId::new(id);
    options.controller = ControllerAt::External;
    options.addresses = addresses.clone();
    options.listen = Some(NetworkConfig::default().port(addresses[&NodeId::new(id)]));
    options.data_dir = Some(dir.join(format!("n{id}")));
    options.copies_planned = 2;
    options.shared_core = true;
    options.tuning.suspect_after_ms = suspect_after_ms;
    Server::start(options).expect("it starts")
}

pub(crate) fn add(server: &Server, place: Place) {
    add_of(server, place, &[1, 2]);
}

/// Gives a process a place of a log whose root and leaf are on node 1; a replica is one of a shard on these nodes.
pub(crate) fn add_of(server: &Server, place: Place, nodes: &[u32]) {
    let members = match place {
        Place::Replica(..) => nodes.iter().map(|node| NodeId::new(*node)).collect(),
        _ => vec![],
    };
    let spec = PlaceSpec {
        replicas: members.len() as u8,
        roots: vec![NodeId::new(1)],
        above: match place {
            Place::Replica(..) => Some((Place::Leaf(LOG, VertexId::ZERO), NodeId::new(1))),
            _ => None,
        },
        members,
        ..PlaceSpec::new(place, "default", Durability::D1)
    };
    server.add_place(spec).expect("added");
}

/// Two free ports.
pub(crate) fn addresses() -> BTreeMap<NodeId, SocketAddr> {
    let sockets = [1, 2].map(|id| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        (NodeId::new(id), socket.local_addr().expect("bound"))
    });
    BTreeMap::from(sockets)
}

/// The replica in a slot of the log's only shard.
pub(crate) const fn replica(slot: u8) -> Place {
    Place::Replica(LOG, ShardId::new(0), Slot::new(slot))
}

/// Gives the two processes their places.
pub(crate) fn furnish(servers: &[Server; 2]) {
    for place in [
        Place::Root(LOG, Slot::ZERO),
        Place::Leaf(LOG, VertexId::ZERO),
        replica(0),
    ] {
        add(&servers[0], place);
    }
    add(&servers[1], replica(1));
}

/// Whether every process takes appends.
pub(crate) fn able(servers: &[Server; 2]) -> bool {
    servers.iter().all(|server| {
        let status = server.status(PATIENCE);
        status.is_some_and(|status| status.can_append())
    })
}
