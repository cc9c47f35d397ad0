//! A session ends with a message that does not parse.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use ionian_control_core::{ClusterSpec, NodeSpec};
use ionian_core::session::Take;
use ionian_driver_api::Clock;
use ionian_runtime::MonotonicClock;
use ionian_types::{Nanos, NodeId};
use ionian_wire::frame::{DirectoryRequest, encode};

use crate::config::{NetworkConfig, Secret};
use crate::dial::connect_message;
use crate::role::Place;
use crate::udp::UdpPort;
use crate::{Server, ServerOptions};

fn directory_request(request: u64) -> Vec<u8> {
    let mut message = [0; 64];
    let request = DirectoryRequest { request, known: 0 };
    let len = encode(&mut message, &request, &[]).expect("a short message");
    message[..len].to_vec()
}

/// Messages of a session come in order and without a hole, or the session ends: one that does not parse was dropped, and
/// what came after it was taken as if nothing were missing.
#[test]
fn a_message_that_does_not_parse_ends_its_session() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("bound");
    drop(socket);
    let secret = Secret::new([7; 32]);
    let mut spec = ClusterSpec::default();
    spec.nodes.insert(NodeId::new(1), NodeSpec::default());
    let mut options = ServerOptions::in_memory(spec);
    options.node = NodeId::new(1);
    options.controller = NodeId::new(1);
    options.cluster = secret.cluster_id();
    options.addresses.insert(NodeId::new(1), address);
    options.listen = Some(NetworkConfig::default().port(address));
    options.secret = Some(secret.clone());
    options.shared_core = true;
    let server = Server::start(options).expect("started");

    let clock = MonotonicClock::start();
    let client = NetworkConfig::default().port("127.0.0.1:0".parse().expect("an address"));
    let mut port = UdpPort::open(&client, secret, Nanos::from_ms(60_000)).expect("a socket");
    let mut first = [0; 64];
    let len = connect_message(Place::Directory, &mut first);
    let request = directory_request(1);
    let good = port.dial(clock.now(), address).expect("room");
    let bad = port.dial(clock.now(), address).expect("room");
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
    while !(ended.contains(&bad) && count(&answers, good) == 2) {
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
