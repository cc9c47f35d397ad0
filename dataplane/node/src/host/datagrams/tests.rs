//! A session ends with a message that does not parse.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ionian_control_core::{ClusterSpec, LogSpec, NodeSpec, TreeSpec};
use ionian_core::session::Take;
use ionian_driver_api::Clock;
use ionian_runtime::{CorePlan, MonotonicClock};
use ionian_types::{Durability, LogId, Nanos, NodeId, OrderingMode, ShardId, Slot};
use ionian_wire::frame::{DirectoryRequest, encode};
use ionian_wire::grant::Rights;

use crate::config::{NetworkConfig, Secret};
use crate::dial::connect_message;
use crate::role::Place;
use crate::udp::UdpPort;
use crate::{Server, ServerOptions};
use ionian_core::guard::ANY_NODE;

fn directory_request(request: u64) -> Vec<u8> {
    let mut message = [0; 64];
    let request = DirectoryRequest { request, known: 0 };
    let len = encode(&mut message, &request, &[]).expect("a short message");
    message[..len].to_vec()
}

/// A server with a log of one replica, which has a reactor of its own in a dedicated plan.
fn server(plan: CorePlan) -> (Server, SocketAddr, Secret) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("bound");
    drop(socket);
    let secret = Secret::new([7; 32]);
    let node = NodeId::new(1);
    let mut options = ServerOptions::in_memory(ClusterSpec {
        nodes: [(node, NodeSpec::default())].into(),
        logs: vec![LogSpec {
            name: String::from("default"),
            mode: OrderingMode::Scalog,
            class: Durability::D0,
            root: vec![node],
            root_quorum: ionian_control_core::RootQuorum::Majority,
            tree: TreeSpec::leaf(node),
            quorum: None,
            shards: vec![vec![node]],
        }],
    });
    options.cluster = secret.cluster_id();
    options.addresses.insert(node, address);
    options.listen = Some(NetworkConfig::default().port(address));
    options.secret = Some(secret.clone());
    options.plan = plan;
    options.oversubscribe = true;
    options.shared_core = true;
    let server = Server::start(options).expect("started");
    (server, address, secret)
}

/// Messages of a session come in order and without a hole, or the session ends: one that does not parse was dropped, and
/// what came after it was taken as if nothing were missing.
#[test]
fn a_message_that_does_not_parse_ends_its_session() {
    ends_with_what_does_not_parse(CorePlan::Cooperative, Place::Directory, 2);
}

/// The same where the session's place is on another reactor than the socket: the place closes the ring, and so the session.
#[test]
fn a_message_that_does_not_parse_ends_a_session_that_is_relayed() {
    let replica = Place::Replica(LogId::new(1), ShardId::new(0), Slot::new(0));
    ends_with_what_does_not_parse(CorePlan::Dedicated, replica, 1);
}

/// `answers_wanted` come to a session that greets `place` and then asks it for the directory.
fn ends_with_what_does_not_parse(plan: CorePlan, place: Place, answers_wanted: usize) {
    let (server, address, secret) = server(plan);
    let clock = MonotonicClock::start();
    let client = NetworkConfig::default().port("127.0.0.1:0".parse().expect("an address"));
    let mut port = UdpPort::open(
        &client,
        secret.keyring(ANY_NODE, Rights::ALL),
        Nanos::from_ms(60_000),
    )
    .expect("a socket");
    let mut first = [0; 64];
    let len = connect_message(place, &mut first);
    let request = directory_request(1);
    let good = port.dial(clock.now(), ANY_NODE, address).expect("room");
    let bad = port.dial(clock.now(), ANY_NODE, address).expect("room");
    let connect = &first[..len];
    let mut unsent: Vec<(u32, &[u8])> = vec![
        (good, connect),
        (good, &request),
        (bad, connect),
        (bad, &[0xff, 0, 0, 0, 0, 0, 0, 0]),
        (bad, connect),
        (bad, &request),
    ];
    let (mut answers, mut ended) = (Vec::new(), Vec::new());
    let start = Instant::now();
    let count = |answers: &[u32], of| answers.iter().filter(|session| **session == of).count();
    // To each, who answers it comes first, unasked.
    while !(ended.contains(&bad) && count(&answers, good) == answers_wanted) {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "answers {answers:?}, ended {ended:?}"
        );
        let mut full = None;
        unsent.retain(|(session, message)| {
            let sent = full != Some(*session) && port.send(*session, message, &[]);
            full = (!sent).then_some(*session);
            !sent
        });
        port.transmit(clock.now());
        port.receive(clock.now(), &mut |session, _, _| {
            answers.push(session);
            Take::Taken
        });
        ended.extend(core::iter::from_fn(|| port.take_ended()));
    }
    assert!(
        count(&answers, bad) <= 1,
        "nothing after the hole was taken"
    );
    assert!(!ended.contains(&good), "another session goes on");
    assert!(
        server
            .status(Duration::from_secs(5))
            .expect("running")
            .bad_messages
            > 0
    );
}
