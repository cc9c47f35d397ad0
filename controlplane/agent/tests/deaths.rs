//! A process that ends without a word: the others are asked, its shard is closed, appends go on with another one, and once it
//! is back the shard opens again.

mod common;

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;

use common::{LOG, PATIENCE, add_of, controller_of, founding, issue, observer, secret, until};
use ionian_client::{ClientConfig as LogConfig, Log};
use ionian_control_agent::Agent;
use ionian_control_client::identity::Role;
use ionian_control_client::{Client, ClientConfig};
use ionian_control_cluster::{ADMIN, Founding};
use ionian_control_core::{
    Details, DetectionConfig, DirectoryConfig, Event, Operate, Operated, Operation, What,
};
use ionian_control_server::ca::Ca;
use ionian_control_server::{Controller, Start};
use ionian_node::client::LocalLink;
use ionian_node::{Place, Server};
use ionian_types::{ClientId, Durability, Nanos, NodeId, ShardId, Slot, VertexId};

/// The nodes of the shards. The root and the leaf are on the first, too.
const SHARDS: [[u32; 2]; 2] = [[1, 2], [2, 3]];

struct Bed<'a> {
    ca: &'a Ca,
    group: Vec<String>,
    addresses: BTreeMap<NodeId, SocketAddr>,
    dir: &'a Path,
    suspect_after_ms: u64,
}

impl Bed<'_> {
    /// A process with its agent and its places.
    fn process(&self, id: u32) -> (Agent, Server) {
        let server = observer(id, &self.addresses, self.dir, self.suspect_after_ms);
        if id == 1 {
            for place in [
                Place::Root(LOG, Slot::ZERO),
                Place::Leaf(LOG, VertexId::ZERO),
            ] {
                add_of(&server, place, &[]);
            }
        }
        for (shard, nodes) in SHARDS.iter().enumerate() {
            if let Some(slot) = nodes.iter().position(|node| *node == id) {
                let (shard, slot) = (ShardId::new(shard as u32), Slot::new(slot as u8));
                add_of(&server, Place::Replica(LOG, shard, slot), nodes);
            }
        }
        let config = ClientConfig::new(
            self.group.clone(),
            issue(self.ca, Role::Node(u64::from(id))),
        );
        let agent = Agent::start(config, server.controller_seam(), None).expect("it starts");
        (agent, server)
    }
}

fn history(client: &Client) -> Vec<Event> {
    let request = Operate {
        plan: false,
        operation: Operation::History {
            log: String::from("default"),
        },
    };
    let answer = client
        .operate(&request.encode(), PATIENCE)
        .expect("answered");
    match Operated::decode(&answer).expect("sound").details {
        Details::History(events) => events,
        details => panic!("{details:?}"),
    }
}

fn deaths(events: &[Event]) -> Vec<String> {
    let deaths = events.iter();
    let deaths = deaths.filter(|event| matches!(event.what, What::Dead { .. }));
    deaths.map(|event| event.what.to_string()).collect()
}

/// The open segments of each shard, as the process knows.
fn open(server: &Server) -> Vec<usize> {
    let map = server.controller_seam().map();
    let shards = map.logs.iter().flat_map(|log| &log.shards);
    let open = shards.map(|shard| {
        let replicas = shard.replicas.iter();
        replicas
            .filter(|replica| replica.generation.get() > 0)
            .count()
    });
    open.collect()
}

#[test]
fn a_process_that_ends_is_routed_around_and_comes_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let ca = Ca::new("sea").expect("a legal name");
    let suspect_after_ms = 500;
    let config = DirectoryConfig {
        detection: Some(DetectionConfig {
            suspect_after: Nanos::from_ms(suspect_after_ms),
            ..DetectionConfig::default()
        }),
        ..DirectoryConfig::default()
    };
    let founding = Founding {
        config,
        ..founding(Durability::D0, &[&SHARDS[0], &SHARDS[1]])
    };
    let one: Controller = controller_of(&ca, 1, dir.path(), Start::Init, founding);
    let group = vec![one.advertised().to_owned()];
    let sockets = [1, 2, 3].map(|id| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        (NodeId::new(id), socket.local_addr().expect("bound"))
    });
    let bed = Bed {
        ca: &ca,
        group: group.clone(),
        addresses: BTreeMap::from(sockets),
        dir: dir.path(),
        suspect_after_ms,
    };
    let (_agent, first) = bed.process(1);
    let _second = bed.process(2);
    let third = bed.process(3);
    until("both shards are open", || open(&first) == [2, 2]);
    let admin = issue(&ca, Role::User(ADMIN.to_owned()));
    let operator = Client::start(ClientConfig::new(group, admin)).expect("it starts");
    let mut config = LogConfig::new(secret().cluster_id(), LOG, ClientId::new(1));
    config.append_timeout = Some(Nanos::from_ms(PATIENCE.as_millis() as u64));
    let mut log = Log::open(LocalLink::new(&first, LOG, false), config).expect("legal");
    let before = log.append(b"with all three").expect("appended");

    // Its agent and its reactors end without a word to any peer.
    drop(third);
    until("the shard without it is closed", || open(&first) == [2, 0]);
    let found = deaths(&history(&operator));
    let [found] = &found[..] else {
        panic!("{found:?}");
    };
    assert!(
        found.contains("node 3 is dead (replica 1.1): silent for ")
            && found.contains("said by nodes 1, 2 (2 of 2"),
        "{found}"
    );
    let after = log.append(b"without the third").expect("appended");
    assert!(before.gsn < after.gsn);

    let _third = bed.process(3);
    until("the shard is open again", || open(&first) == [2, 2]);
    assert_eq!(deaths(&history(&operator)).len(), 1);
}
