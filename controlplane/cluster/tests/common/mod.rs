//! What the tests share: a cluster of one node, its controllers, and what a process says to them.
#![allow(dead_code, reason = "every test file uses a part of this module")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use ionian_control_client::identity::Role;
use ionian_control_client::tls::Credentials;
use ionian_control_client::{Attachment, Client, ClientConfig, Incoming};
use ionian_control_cluster::{ClusterState, Founding};
use ionian_control_core::{ClusterSpec, DirectoryConfig, LogSpec, NodeSpec, TreeSpec};
use ionian_control_server::ca::Ca;
use ionian_control_server::machine::Report;
use ionian_control_server::{Controller, ControllerConfig, GroupTiming, Limits, Start};
use ionian_types::{ClusterId, Durability, LogId, NodeId, OrderingMode};
use ionian_wire::frame::{Body, encode};

/// The longest anything takes, on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const CLUSTER: ClusterId = ClusterId::new(7);
pub(crate) const LOG: LogId = LogId::new(1);

fn founding() -> Founding {
    let node = NodeId::new(1);
    Founding {
        cluster: CLUSTER,
        spec: ClusterSpec {
            nodes: [(node, NodeSpec::default())].into(),
            logs: vec![LogSpec {
                name: String::from("default"),
                mode: OrderingMode::Scalog,
                class: Durability::D1,
                quorum: None,
                root: vec![node],
                root_quorum: ionian_control_core::RootQuorum::default(),
                tree: TreeSpec::leaf(node),
                shards: vec![vec![node]],
            }],
        },
        config: DirectoryConfig::default(),
    }
}

pub(crate) fn issue(ca: &Ca, role: Role) -> Credentials {
    let issued = ca.issue(role).expect("a legal name");
    ca.credentials(&issued).expect("sound")
}

pub(crate) fn start(
    ca: &Ca,
    id: u64,
    folder: &Path,
    listen: Option<SocketAddr>,
    start: Start,
    report: Report,
) -> Controller {
    let founding = founding();
    founding.check().expect("a legal cluster");
    let config = ControllerConfig {
        credentials: issue(ca, Role::Controller(id)),
        folder: folder.join(format!("controller-{id}")),
        listen: listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
        advertise: None,
        start,
        timing: GroupTiming::default(),
        limits: Limits::default(),
        report,
    };
    Controller::start(config, ClusterState::new(), founding).expect("it starts")
}

pub(crate) fn client(controllers: &[&Controller], who: &Credentials) -> Client {
    let addresses = controllers.iter().map(|c| c.advertised().to_owned());
    Client::start(ClientConfig::new(addresses.collect(), who.clone())).expect("it starts")
}

pub(crate) fn message<B: Body>(body: &B, tail: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 8 + B::LEN + tail.len()];
    let len = encode(&mut out, body, &[tail]).expect("room");
    out[..len].to_vec()
}

/// Waits for what comes next.
pub(crate) fn next(attachment: &Attachment) -> Incoming {
    let start = Instant::now();
    loop {
        if let Some(incoming) = attachment.try_recv() {
            return incoming;
        }
        assert!(start.elapsed() < PATIENCE, "nothing comes");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Waits for a connection.
pub(crate) fn opened(attachment: &Attachment) -> u64 {
    loop {
        if let Incoming::Opened { connection, .. } = next(attachment) {
            return connection;
        }
    }
}
