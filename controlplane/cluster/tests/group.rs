//! The cluster's state on a real group of controllers: processes register over TLS, and nothing that was issued is issued again.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ionian_control_client::identity::Role;
use ionian_control_client::tls::Credentials;
use ionian_control_client::{Attachment, Incoming};
use ionian_control_cluster::ADMIN;
use ionian_control_core::{Operate, Operated, Operation};
use ionian_control_server::ca::Ca;
use ionian_control_server::{Controller, Start};
use ionian_types::{ClusterId, Inc, NodeId, ShardId, Slot, VertexId};
use ionian_wire::directory::ClusterMap;
use ionian_wire::frame::{DirectoryRequest, Message, Register, Registered, Role as WireRole};

mod common;

use common::{CLUSTER, LOG, PATIENCE, client, issue, message, next, opened};

fn start(ca: &Ca, id: u64, folder: &Path, listen: Option<SocketAddr>, start: Start) -> Controller {
    let report = Arc::new(|sentence: &str| println!("{sentence}"));
    common::start(ca, id, folder, listen, start, report)
}

fn register(node: u32, request: u64, last_inc: Inc) -> Vec<u8> {
    let register = Register {
        vertex: VertexId::ZERO,
        cluster: if last_inc == Inc::ZERO {
            ClusterId::default()
        } else {
            CLUSTER
        },
        node: NodeId::new(node),
        role: WireRole::Root,
        log: LOG,
        shard: ShardId::ZERO,
        slot: Slot::ZERO,
        last_inc,
        has_data: last_inc != Inc::ZERO,
        request,
    };
    message(&register, b"127.0.0.1:7400")
}

/// Registers the root over a new connection; returns its incarnation.
fn registered(attachment: &Attachment, request: u64, last_inc: Inc) -> Inc {
    let connection = opened(attachment);
    let frame = register(1, request, last_inc).into();
    attachment.try_send(connection, frame).expect("room");
    loop {
        match next(attachment) {
            Incoming::Frame { bytes, .. } => match Message::new_checked(&bytes) {
                Ok((
                    Message::Registered(
                        Registered {
                            request: of, inc, ..
                        },
                        reason,
                    ),
                    _,
                )) if of == request => {
                    assert_ne!(inc, Inc::ZERO, "{}", String::from_utf8_lossy(reason));
                    return inc;
                }
                Ok(_) => {}
                Err(error) => panic!("not a message: {error}"),
            },
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_incarnation_is_issued_once_whoever_leads_and_whatever_is_restarted() {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = Ca::new("sea").expect("a legal name");
    let first = start(&ca, 1, folder.path(), None, Start::Init);
    let listen = first.address();
    let node = issue(&ca, Role::Node(1));
    let wake: ionian_control_client::Wake = Arc::new(|| {});
    let mut seen = Vec::new();
    {
        let client = client(&[&first], &node);
        for request in 1..=3 {
            let attachment = client.attach(wake.clone());
            let inc = registered(&attachment, request, Inc::ZERO);
            assert!(seen.iter().all(|other| *other < inc), "{seen:?}, {inc}");
            seen.push(inc);
        }
    }
    drop(first);
    let again = start(&ca, 1, folder.path(), Some(listen), Start::Wait);
    let client = client(&[&again], &node);
    let attachment = client.attach(wake);
    let inc = registered(&attachment, 9, Inc::ZERO);
    assert!(seen.iter().all(|other| *other < inc), "{seen:?}, {inc}");
}

#[test]
fn a_certificate_speaks_for_its_own_node_and_a_user_for_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = Ca::new("sea").expect("a legal name");
    let controller = start(&ca, 1, folder.path(), None, Start::Init);
    let wake: ionian_control_client::Wake = Arc::new(|| {});
    let refused = |who: &Credentials, frame: Vec<u8>, why: &str| {
        let client = client(&[&controller], who);
        let attachment = client.attach(wake.clone());
        let connection = opened(&attachment);
        attachment.try_send(connection, frame.into()).expect("room");
        loop {
            match next(&attachment) {
                Incoming::Closed { why: said, .. } => {
                    assert!(said.to_string().contains(why), "{said}");
                    return;
                }
                Incoming::Frame { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let two = issue(&ca, Role::Node(2));
    refused(&two, register(1, 1, Inc::ZERO), "may not speak for node 1");
    let user = issue(&ca, Role::User("mira".into()));
    let admin = client(&[&controller], &issue(&ca, Role::User(ADMIN.into())));
    let add = Operate {
        operation: Operation::AddUser {
            user: String::from("mira"),
        },
        plan: false,
    };
    let answer = admin.operate(&add.encode(), PATIENCE).expect("permitted");
    assert!(!Operated::decode(&answer).expect("an answer").refused);
    refused(&user, register(1, 1, Inc::ZERO), "may not send Register");
    refused(
        &two,
        b"not a message".to_vec(),
        "not a message of this version",
    );

    // The map is for every user.
    let asking = client(&[&controller], &user);
    let attachment = asking.attach(wake.clone());
    let connection = opened(&attachment);
    let request = DirectoryRequest {
        request: 5,
        known: 0,
    };
    attachment
        .try_send(connection, message(&request, &[]).into())
        .expect("room");
    let map = loop {
        if let Incoming::Frame { bytes, .. } = next(&attachment)
            && let Ok((Message::DirectoryAnswer(_, tail), _)) = Message::new_checked(&bytes)
        {
            break ClusterMap::read(tail).expect("a map");
        }
    };
    assert_eq!(map.logs[0].name, "default");

    // And operating for one.
    let list = Operate {
        operation: Operation::List,
        plan: false,
    };
    let list = list.encode();
    let answer = asking.operate(&list, PATIENCE).expect("an answer");
    let answer = Operated::decode(&answer).expect("an answer");
    assert!(answer.refused);
    assert!(
        answer
            .text
            .contains("user mira may not operate the cluster"),
        "{answer:?}"
    );
    // A certificate alone opens nothing: neither the map nor a look at the controllers.
    let stranger = client(&[&controller], &issue(&ca, Role::User("eve".into())));
    let refusal = stranger.members().expect_err("no user");
    assert!(
        refusal
            .to_string()
            .contains("user eve of cluster sea may not see"),
        "{refusal}"
    );
    let attachment = stranger.attach(wake);
    let start = Instant::now();
    while stranger.trouble().is_none() {
        assert!(attachment.try_recv().is_none() && start.elapsed() < PATIENCE);
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let answer = admin.operate(&list, PATIENCE).expect("permitted");
    assert!(!Operated::decode(&answer).expect("an answer").refused);
}
