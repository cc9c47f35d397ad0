//! What is refused at the handshake stands in the controller's log: who, from where, why, and what to do; once, however often it
//! is tried. Certificates and newer calls of the controllers' protocol: the tests of `ionian-control-server`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ionian_control_client::identity::Role;
use ionian_control_client::{Attachment, Client, Incoming, Wake};
use ionian_control_server::ca::Ca;
use ionian_control_server::{Controller, Start};
use ionian_types::{
    ClientId, ClusterId, EntryNo, Inc, LogId, NodeId, SessionNo, ShardId, Slot, VertexId, ViewId,
};
use ionian_wire::WIRE_VERSION;
use ionian_wire::frame::{DirectoryRequest, Hello, Message, Register, Role as WireRole};

mod common;

use common::{CLUSTER, LOG, PATIENCE, client, issue, message, next, opened, start};

/// A controller whose log is read.
struct Watched {
    lines: Arc<Mutex<Vec<String>>>,
    controller: Controller,
    ca: Ca,
    _folder: tempfile::TempDir,
}

impl Watched {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = Ca::new("sea").expect("a legal name");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let own = lines.clone();
        let report = Arc::new(move |line: &str| own.lock().expect("whole").push(line.to_owned()));
        let controller = start(&ca, 1, folder.path(), None, Start::Init, report);
        Self {
            lines,
            controller,
            ca,
            _folder: folder,
        }
    }

    /// The process of node 1.
    fn node(&self) -> Client {
        client(&[&self.controller], &issue(&self.ca, Role::Node(1)))
    }

    fn lines(&self, why: &str) -> Vec<String> {
        let lines = self.lines.lock().expect("whole");
        lines
            .iter()
            .filter(|line| line.contains(why))
            .cloned()
            .collect()
    }

    /// Waits for the line that says who is refused, from where, and why.
    fn heard(&self, why: &str) {
        let began = Instant::now();
        while self.lines(why).is_empty() {
            let lines = self.lines.lock().expect("whole");
            assert!(began.elapsed() < PATIENCE, "not told: {why}; but {lines:?}");
            drop(lines);
            std::thread::park_timeout(Duration::from_millis(1));
        }
        let line = &self.lines(why)[0];
        let who = "refused node 1 of cluster sea at 127.0.0.1:";
        assert!(line.starts_with(who), "{line}");
    }
}

/// A connection of a process.
struct Line {
    attachment: Attachment,
    connection: u64,
}

impl Line {
    fn open(client: &Client) -> Self {
        let wake: Wake = Arc::new(|| {});
        let attachment = client.attach(wake);
        let connection = opened(&attachment);
        Self {
            attachment,
            connection,
        }
    }

    fn say(&self, frame: Vec<u8>) {
        let said = self.attachment.try_send(self.connection, frame.into());
        said.expect("room");
    }

    /// Waits until the controller has heard all of it.
    fn settle(&self) {
        let request = DirectoryRequest {
            request: 77,
            known: 0,
        };
        self.say(message(&request, &[]));
        loop {
            if let Incoming::Frame { bytes, .. } = next(&self.attachment)
                && let Ok((Message::DirectoryAnswer(answer, _), _)) = Message::new_checked(&bytes)
                && answer.request == 77
            {
                return;
            }
        }
    }

    /// The incarnation that a registration gets, or why it gets none.
    fn answer(&self, request: u64) -> Result<Inc, String> {
        loop {
            if let Incoming::Frame { bytes, .. } = next(&self.attachment)
                && let Ok((Message::Registered(answer, why), _)) = Message::new_checked(&bytes)
                && answer.request == request
            {
                return match answer.inc {
                    Inc::ZERO => Err(String::from_utf8_lossy(why).into_owned()),
                    inc => Ok(inc),
                };
            }
        }
    }

    fn closed(&self) -> String {
        loop {
            if let Incoming::Closed { why, .. } = next(&self.attachment) {
                return why.to_string();
            }
        }
    }
}

fn hello(role: WireRole, inc: Inc, process: u128) -> Hello {
    let client = role == WireRole::Client;
    Hello {
        cluster: if client {
            ClusterId::default()
        } else {
            CLUSTER
        },
        wire_version: WIRE_VERSION,
        role,
        node: NodeId::new(1),
        inc,
        log: if client { LogId::MAX } else { LOG },
        shard: ShardId::ZERO,
        slot: Slot::ZERO,
        epoch: ViewId::ZERO,
        last: EntryNo::ZERO,
        client: ClientId::new(process),
        session: SessionNo::ZERO,
    }
}

/// A replica that registers, with the data of an earlier life or without.
fn register(request: u64, cluster: ClusterId, last_inc: Inc) -> Vec<u8> {
    let has_data = last_inc != Inc::ZERO;
    let register = Register {
        cluster: if has_data {
            cluster
        } else {
            ClusterId::default()
        },
        node: NodeId::new(1),
        role: WireRole::Replica,
        log: LOG,
        shard: ShardId::ZERO,
        slot: Slot::ZERO,
        vertex: VertexId::ZERO,
        last_inc,
        has_data,
        request,
    };
    message(&register, b"127.0.0.1:7400")
}

/// A life of the replica, which has said hello.
fn live(client: &Client, request: u64, last_inc: Inc) -> (Line, Inc) {
    let line = Line::open(client);
    line.say(register(request, CLUSTER, last_inc));
    let inc = line.answer(request).expect("admitted");
    line.say(message(&hello(WireRole::Replica, inc, 0), &[]));
    line.settle();
    (line, inc)
}

#[test]
fn two_nodes_with_one_id() {
    let watched = Watched::new();
    let first = watched.node();
    let line = Line::open(&first);
    line.say(message(&hello(WireRole::Client, Inc::ZERO, 7), &[]));
    line.settle();
    let second = watched.node();
    let wake: Wake = Arc::new(|| {});
    let attachment = second.attach(wake);
    let why = "another process is node 1 already";
    // It tries again and again, and the operator reads of it once.
    for _ in 0..5 {
        let connection = opened(&attachment);
        let frame = message(&hello(WireRole::Client, Inc::ZERO, 8), &[]);
        attachment.try_send(connection, frame.into()).expect("room");
        loop {
            if let Incoming::Closed { why: said, .. } = next(&attachment) {
                assert!(said.to_string().contains(why), "{said}");
                break;
            }
        }
    }
    watched.heard(why);
    assert_eq!(watched.lines(why).len(), 1);
}

#[test]
fn an_old_incarnation() {
    let watched = Watched::new();
    let node = watched.node();
    let (_first, old) = live(&node, 1, Inc::ZERO);
    let (_second, inc) = live(&node, 2, old);
    assert!(old < inc);
    let third = Line::open(&node);
    third.say(message(&hello(WireRole::Replica, old, 0), &[]));
    let why = third.answer(0).expect_err("it has ended");
    assert!(why.contains("of replica 0.0 was replaced by a later one"));
    watched.heard(&why);
}

#[test]
fn an_old_image_of_a_replica() {
    let watched = Watched::new();
    let node = watched.node();
    let (_first, old) = live(&node, 1, Inc::ZERO);
    let (_second, _) = live(&node, 2, old);
    let third = Line::open(&node);
    third.say(register(3, CLUSTER, old));
    let why = third.answer(3).expect_err("an old image");
    assert!(
        why.contains("replica 0.0 on node 1 is an old image"),
        "{why}"
    );
    watched.heard(&why);
}

#[test]
fn a_data_directory_of_another_cluster() {
    let watched = Watched::new();
    let node = watched.node();
    let line = Line::open(&node);
    line.say(register(1, ClusterId::new(8), Inc::new(1)));
    let why = line.answer(1).expect_err("another cluster");
    assert!(why.contains("belongs to cluster"), "{why}");
    watched.heard(&why);
}

#[test]
fn a_hello_of_a_newer_version_and_of_another_cluster() {
    let watched = Watched::new();
    let node = watched.node();
    let refused = |hello: Hello, expected: &str| {
        let line = Line::open(&node);
        line.say(message(&hello, &[]));
        let why = line.closed();
        assert!(why.contains(expected), "{why}");
        watched.heard(expected);
    };
    let newer = Hello {
        wire_version: WIRE_VERSION + 1,
        ..hello(WireRole::Client, Inc::ZERO, 7)
    };
    refused(newer, "upgrade the older side first");
    let foreign = Hello {
        cluster: ClusterId::new(8),
        ..hello(WireRole::Replica, Inc::new(1), 7)
    };
    refused(foreign, "node 1 says that it is of cluster");
}
