//! Three controllers, two processes of the data plane, and an agent in each: a cluster whose control plane is a Raft group.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ionian_client::{ClientConfig as LogConfig, Log, ReadOutcome};
use ionian_control_agent::Agent;
use ionian_control_client::ClientConfig;
use ionian_control_client::identity::Role;
use ionian_control_client::tls::Credentials;
use ionian_control_cluster::{ClusterState, Founding};
use ionian_control_core::{ClusterSpec, DirectoryConfig, LogSpec, NodeSpec, RootQuorum};
use ionian_control_server::ca::Ca;
use ionian_control_server::{Controller, ControllerConfig, GroupTiming, Limits, Standing, Start};
use ionian_node::client::LocalLink;
use ionian_node::config::{NetworkConfig, Secret};
use ionian_node::{ControllerAt, Place, PlaceSpec, Server, ServerOptions};
use ionian_types::{ClientId, Durability, LogId, Nanos, NodeId, OrderingMode, ShardId, Slot};

/// The longest anything takes, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(90);
const LOG: LogId = LogId::new(1);

fn secret() -> Secret {
    Secret::new([7; 32])
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn founding() -> Founding {
    let nodes = [NodeId::new(1), NodeId::new(2)];
    Founding {
        cluster: secret().cluster_id(),
        spec: ClusterSpec {
            nodes: nodes.map(|node| (node, NodeSpec::default())).into(),
            logs: vec![LogSpec {
                name: String::from("default"),
                mode: OrderingMode::Scalog,
                class: Durability::D1,
                quorum: None,
                root: vec![nodes[0]],
                root_quorum: RootQuorum::Majority,
                leaf: nodes[0],
                shards: vec![nodes.to_vec()],
            }],
        },
        config: DirectoryConfig::default(),
    }
}

fn issue(ca: &Ca, role: Role) -> Credentials {
    let issued = ca.issue(role).expect("a legal name");
    ca.credentials(&issued).expect("sound")
}

fn controller(ca: &Ca, id: u64, dir: &Path, start: Start) -> Controller {
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
    Controller::start(config, ClusterState::new(), founding()).expect("it starts")
}

fn server(id: u32, addresses: &BTreeMap<NodeId, SocketAddr>, dir: &Path) -> Server {
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
    Server::start(options).expect("it starts")
}

fn add(server: &Server, place: Place) {
    let members = match place {
        Place::Replica(..) => vec![NodeId::new(1), NodeId::new(2)],
        _ => vec![],
    };
    let spec = PlaceSpec {
        replicas: members.len() as u8,
        roots: vec![NodeId::new(1)],
        leaf: NodeId::new(1),
        members,
        ..PlaceSpec::new(place, "default", Durability::D1)
    };
    server.add_place(spec).expect("added");
}

fn leader(controllers: &[Controller]) -> Option<usize> {
    let leads = |one: &Controller| matches!(one.standing(), Standing::Leads { .. });
    controllers.iter().position(leads)
}

#[test]
fn a_cluster_goes_on_without_controllers_and_finds_their_next_leader() {
    let dir = tempfile::tempdir().expect("a folder");
    let ca = Ca::new("sea").expect("a legal name");
    let mut controllers = vec![controller(&ca, 1, dir.path(), Start::Init)];
    for id in 2..=3 {
        let others = controllers.iter().map(|one| one.advertised().to_owned());
        let start = Start::Join(others.collect());
        controllers.push(controller(&ca, id, dir.path(), start));
    }
    let group: Vec<String> = controllers
        .iter()
        .map(|one| one.advertised().to_owned())
        .collect();
    let sockets = [1, 2].map(|id| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        (NodeId::new(id), socket.local_addr().expect("bound"))
    });
    let addresses = BTreeMap::from(sockets);
    let servers = [1, 2].map(|id| server(id, &addresses, dir.path()));
    let agents = [1_u32, 2].map(|id| {
        let credentials = issue(&ca, Role::Node(u64::from(id)));
        let config = ClientConfig::new(group.clone(), credentials);
        Agent::start(config, servers[id as usize - 1].controller_seam()).expect("it starts")
    });
    let replica = |slot| Place::Replica(LOG, ShardId::new(0), Slot::new(slot));
    for place in [Place::Root(LOG, Slot::ZERO), Place::Leaf(LOG), replica(0)] {
        add(&servers[0], place);
    }
    add(&servers[1], replica(1));
    let able = || {
        servers.iter().all(|server| {
            let status = server.status(PATIENCE);
            status.is_some_and(|status| status.can_append())
        })
    };
    until("the cluster takes appends", able);
    let mut config = LogConfig::new(secret().cluster_id(), LOG, ClientId::new(1));
    config.append_timeout = Some(Nanos::from_ms(PATIENCE.as_millis() as u64));
    let mut log = Log::open(LocalLink::new(&servers[0], LOG, false), config).expect("legal");
    let first = log.append(b"with three controllers").expect("appended");

    // All three are voters before one is taken away.
    until("three controllers are voters", || {
        let members = agents[0].client().members();
        members.is_ok_and(|reply| reply.members.iter().filter(|one| one.voter).count() == 3)
    });
    until("one leads", || leader(&controllers).is_some());
    let gone = leader(&controllers).expect("one leads");
    drop(controllers.remove(gone));
    log.append(b"while nobody leads, or another one")
        .expect("appends need no controller");
    until("another one leads", || leader(&controllers).is_some());
    // What needs a controller: a new life of a replica.
    servers[1]
        .remove_place(replica(1), ionian_node::Files::Keep)
        .expect("removed");
    add(&servers[1], replica(1));
    until("the replica is back", able);
    let last = log.append(b"with two controllers").expect("appended");
    assert_eq!(
        log.read(first.gsn).expect("an answer"),
        ReadOutcome::Record(b"with three controllers".to_vec())
    );
    // None at all: what is there goes on.
    drop(controllers);
    let after = log.append(b"without a controller").expect("appended");
    assert!(first.gsn < last.gsn && last.gsn < after.gsn);
}
