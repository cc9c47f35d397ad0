//! A vertex leaves a node and comes back to it while nobody takes away what is left of its last life there: it has another one
//! each time, and records are appended.

mod common;

use common::{
    LOG, PATIENCE, able, add, addresses, ask, controller, furnish, issue, secret, server, until,
};
use ionian_client::{ClientConfig as LogConfig, Log};
use ionian_control_agent::Agent;
use ionian_control_client::identity::Role;
use ionian_control_client::{Client, ClientConfig};
use ionian_control_cluster::ADMIN;
use ionian_control_core::{DirectoryConfig, Operation};
use ionian_control_server::Start;
use ionian_control_server::ca::Ca;
use ionian_node::client::LocalLink;
use ionian_node::status::PlaceState;
use ionian_node::{Place, Server};
use ionian_types::{ClientId, Inc, Nanos, NodeId, VertexId};

const LEAF: Place = Place::Leaf(LOG, VertexId::ZERO);

fn is_refused(server: &Server) -> bool {
    let status = server.status(PATIENCE);
    let mut places = status.iter().flat_map(|status| &status.places);
    places.any(|it| it.place == LEAF && matches!(it.state, PlaceState::Refused(_)))
}

/// The life of the leaf, once it is on a node and is to stay there.
fn life(server: &Server, node: NodeId) -> Option<Inc> {
    let map = server.controller_seam().map();
    let log = map.logs.first().filter(|log| log.coming.is_empty())?;
    let end = &log.tree.first()?.endpoint;
    (end.node == node && end.inc > Inc::ZERO).then_some(end.inc)
}

#[test]
fn a_vertex_comes_back_to_a_node_that_it_left() {
    let dir = tempfile::tempdir().expect("a folder");
    let ca = Ca::new("sea").expect("a legal name");
    let behaves = DirectoryConfig::default();
    let one = controller(&ca, 1, dir.path(), Start::Init, behaves);
    let group = vec![one.advertised().to_owned()];
    let addresses = addresses();
    let servers = [1, 2].map(|id| server(id, &addresses, dir.path()));
    let _agents = [1_u32, 2].map(|id| {
        let config = ClientConfig::new(group.clone(), issue(&ca, Role::Node(u64::from(id))));
        let seam = servers[id as usize - 1].controller_seam();
        Agent::start(config, seam, None).expect("it starts")
    });
    furnish(&servers);
    until("the cluster takes appends", || able(&servers));
    let admin = issue(&ca, Role::User(ADMIN.to_owned()));
    let operator = Client::start(ClientConfig::new(group, admin)).expect("it starts");
    let mut config = LogConfig::new(secret().cluster_id(), LOG, ClientId::new(1));
    config.append_timeout = Some(Nanos::from_ms(PATIENCE.as_millis() as u64));
    let mut log = Log::open(LocalLink::new(&servers[0], LOG, false), config).expect("legal");
    log.append(b"at first").expect("appended");

    // It is not to come yet.
    add(&servers[1], LEAF);
    until("the leaf is refused on node 2", || is_refused(&servers[1]));
    let mut last = life(&servers[0], NodeId::new(1)).expect("it is on node 1");
    for node in [2, 1, 2, 1].map(NodeId::new) {
        let vertex = VertexId::ZERO;
        let operation = Operation::MoveVertex {
            log: LOG,
            vertex,
            node,
        };
        ask(&operator, operation);
        let mut now = None;
        until("the leaf has moved", || {
            now = life(&servers[0], node);
            now.is_some()
        });
        assert!(now > Some(last), "{now:?} after {last}");
        last = now.expect("it has moved");
        log.append(b"and goes on").expect("appended");
    }
}
