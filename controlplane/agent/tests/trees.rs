//! Trees that change while records are appended: a level comes, an aggregator moves, the level goes. Every append is
//! acknowledged, and all are read back in order.

mod common;

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::Arc;

use common::{LOG, PATIENCE, ask, controller_of, founding, issue, observer, secret, until};
use ionian_client::{ClientConfig as LogConfig, Gsn, Log, ReadOutcome};
use ionian_control_agent::{Agent, Keeper, KeeperConfig};
use ionian_control_client::identity::Role;
use ionian_control_client::{Client, ClientConfig};
use ionian_control_cluster::ADMIN;
use ionian_control_core::Operation;
use ionian_control_server::Start;
use ionian_control_server::ca::Ca;
use ionian_node::Server;
use ionian_node::client::LocalLink;
use ionian_types::{ClientId, Durability, Nanos, NodeId, VertexId};
use ionian_wire::directory::LogInfo;

const NODES: [u32; 3] = [1, 2, 3];

fn log_of(server: &Server) -> LogInfo {
    server.controller_seam().map().logs[0].clone()
}

/// The number of vertices, once the tree is the only one and everybody of it is there.
fn settled(server: &Server) -> Option<usize> {
    let log = log_of(server);
    let there = log.tree.iter().all(|it| it.endpoint.inc.get() > 0);
    let moving = log.coming.is_empty() && log.tree_next.is_empty();
    (there && moving).then_some(log.tree.len())
}

#[test]
fn a_tree_changes_under_appends() {
    let dir = tempfile::tempdir().expect("a folder");
    let ca = Ca::new("sea").expect("a legal name");
    let founding = founding(Durability::D0, &[&NODES[..2], &NODES[1..]]);
    let one = controller_of(&ca, 1, dir.path(), Start::Init, founding);
    let group = vec![one.advertised().to_owned()];
    let sockets = NODES.map(|id| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        (NodeId::new(id), socket.local_addr().expect("bound"))
    });
    let addresses = BTreeMap::from(sockets);
    let processes = NODES.map(|id| {
        let server = Arc::new(observer(id, &addresses, dir.path(), 0));
        let config = ClientConfig::new(group.clone(), issue(&ca, Role::Node(u64::from(id))));
        let agent = Agent::start(config, server.controller_seam(), None).expect("it starts");
        let keeper = KeeperConfig {
            data_dir: None,
            retention_bytes_max: BTreeMap::new(),
            report: Arc::new(|sentence| println!("{sentence}")),
        };
        let keeper = Keeper::start(server.clone(), keeper).expect("a thread");
        (keeper, agent, server)
    });
    let server = &processes[0].2;
    until("the log is there", || {
        let map = server.controller_seam().map();
        let open = |log: &LogInfo| log.shards.iter().all(|shard| shard.open);
        map.logs.first().is_some_and(open)
    });
    let admin = issue(&ca, Role::User(ADMIN.to_owned()));
    let operator = Client::start(ClientConfig::new(group, admin)).expect("it starts");
    let mut config = LogConfig::new(secret().cluster_id(), LOG, ClientId::new(1));
    config.append_timeout = Some(Nanos::from_ms(PATIENCE.as_millis() as u64));
    config.request_timeout = config.append_timeout;
    let mut log = Log::open(LocalLink::new(server, LOG, false), config).expect("legal");
    let mut payloads: Vec<Vec<u8>> = Vec::new();
    let mut positions: Vec<Gsn> = Vec::new();
    let mut append_until = |what: &str, holds: &dyn Fn() -> bool| {
        until(what, || {
            let payload = format!("record {}", payloads.len()).into_bytes();
            positions.push(log.append(&payload).expect("appended").gsn);
            payloads.push(payload);
            holds()
        });
    };
    let set = |fan_in, depth| Operation::SetTree {
        log: LOG,
        fan_in,
        depth: Some(depth),
    };
    append_until("it begins with a leaf", &|| settled(server) == Some(1));
    for round in 0..3 {
        ask(&operator, set(2, 2));
        append_until("a level comes", &|| settled(server) == Some(2));
        ask(&operator, set(2, 3));
        append_until("another one", &|| settled(server) == Some(3));
        let top = log_of(server).tree[0].clone();
        let node = NODES.map(NodeId::new)[round];
        ask(
            &operator,
            Operation::MoveVertex {
                log: LOG,
                vertex: top.vertex,
                node,
            },
        );
        append_until("an aggregator moves", &|| {
            settled(server) == Some(3) && log_of(server).tree[0].endpoint.node == node
        });
        ask(&operator, set(2, 1));
        append_until("the levels go", &|| settled(server) == Some(1));
        assert_eq!(log_of(server).tree[0].vertex, VertexId::ZERO);
    }
    assert!(positions.is_sorted_by(|a, b| a < b));
    let mut config = LogConfig::new(secret().cluster_id(), LOG, ClientId::new(2));
    config.request_timeout = Some(Nanos::from_ms(PATIENCE.as_millis() as u64));
    let mut reader = Log::open(LocalLink::new(server, LOG, false), config).expect("legal");
    for (gsn, payload) in positions.into_iter().zip(payloads) {
        let found = reader.read(gsn).expect("an answer");
        assert_eq!(found, ReadOutcome::Record(payload));
    }
}
