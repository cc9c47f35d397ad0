//! While a tree changes, a vertex has connections to who is above it in the one tree and in the other: its edge is with the one that
//! started it, whoever else comes or goes.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use ionian_core::aggregator::{Aggregator, AggregatorConfig};
use ionian_core::leaf::{Leaf, LeafConfig};
use ionian_core::outbox::Outbox;
use ionian_types::{ConnId, EdgeEpoch, EntryNo, Gsn, Inc, NodeId, RootEpoch, Slot, Time, ViewId};
use ionian_wire::frame::{EdgeStart, Message, NeedEdge, Role, Sync};

use common::{CLUSTER, LOG, bytes, drain, hello, message, outbox};

enum Machine {
    Leaf(Box<Leaf>),
    Aggregator(Box<Aggregator>),
}

struct Vertex {
    machine: Machine,
    out: Outbox,
    now: Time,
}

impl Vertex {
    fn both() -> [Self; 2] {
        let now = Time::from_ns(1_000_000);
        let (node, inc) = (NodeId::new(3), Inc::new(2));
        let leaf = Leaf::new(LeafConfig::new(CLUSTER, node, inc, LOG), now);
        let config = AggregatorConfig::new(CLUSTER, node, inc, LOG, Slot::ZERO);
        let aggregator = Aggregator::new(config, now);
        [
            Machine::Leaf(Box::new(leaf)),
            Machine::Aggregator(Box::new(aggregator)),
        ]
        .map(|machine| Self {
            machine,
            out: outbox(),
            now,
        })
    }

    fn hear(&mut self, conn: u32, bytes: &[u8]) {
        let (conn, message) = (ConnId::new(conn), message(bytes));
        match &mut self.machine {
            Machine::Leaf(it) => it.handle(self.now, conn, &message, &mut self.out),
            Machine::Aggregator(it) => it.handle(self.now, conn, &message, &mut self.out),
        }
    }

    fn closed(&mut self, conn: u32) {
        match &mut self.machine {
            Machine::Leaf(it) => it.closed(ConnId::new(conn)),
            Machine::Aggregator(it) => it.closed(ConnId::new(conn)),
        }
    }

    fn take_close(&mut self) -> Option<ConnId> {
        match &mut self.machine {
            Machine::Leaf(it) => it.take_close(),
            Machine::Aggregator(it) => it.take_close(),
        }
    }

    fn runs(&self) -> bool {
        match &self.machine {
            Machine::Leaf(it) => it.is_running(),
            Machine::Aggregator(it) => it.is_running(),
        }
    }

    /// Whom it asks for another start of its edge.
    fn asks(&mut self) -> Vec<(ConnId, NeedEdge)> {
        match &mut self.machine {
            Machine::Leaf(it) => it.flush(self.now, &mut self.out),
            Machine::Aggregator(it) => it.flush(self.now, &mut self.out),
        }
        let said = drain(&mut self.out, None).into_iter();
        said.filter_map(|(conn, bytes)| match message(&bytes) {
            Message::NeedEdge(need, _) => Some((conn, need)),
            _ => None,
        })
        .collect()
    }
}

const fn edge(view: u64, start: u64) -> EdgeEpoch {
    EdgeEpoch {
        root: RootEpoch::new(1),
        view: ViewId::new(view),
        start,
    }
}

fn start(edge: EdgeEpoch) -> Vec<u8> {
    let head = EdgeStart {
        log: LOG,
        edge,
        resume: false,
        entry: EntryNo::new(1),
        end_gsn: Gsn::ZERO,
        trim: Gsn::ZERO,
        vertices: 0,
        shards: 0,
    };
    bytes(&head, &[])
}

/// The root, and an aggregator of a tree that is to come.
const ROOT: u32 = 0;
const OTHER: u32 = 1;

fn greet(vertex: &mut Vertex, conn: u32) {
    let role = if conn == OTHER {
        Role::Aggregator
    } else {
        Role::Root
    };
    let (node, inc) = if conn == OTHER { (8, 8) } else { (2, 1) };
    vertex.hear(conn, &hello(role, node, inc, 0, 0));
}

#[test]
fn an_edge_lives_on_the_connection_that_started_it() {
    for mut vertex in Vertex::both() {
        greet(&mut vertex, ROOT);
        vertex.hear(ROOT, &start(edge(1, 1)));
        assert!(vertex.runs());
        greet(&mut vertex, OTHER);
        assert!(vertex.runs() && vertex.take_close().is_none());
        vertex.closed(OTHER);
        assert!(vertex.runs(), "another connection is gone");
        greet(&mut vertex, OTHER);
        // A base that was lost shows in a sync: the one that started the edge is asked for another start.
        let sync = Sync {
            log: LOG,
            edge: edge(1, 1),
            complete: EntryNo::new(9),
            end_gsn: Gsn::ZERO,
            trim: Gsn::ZERO,
            chosen: ionian_types::RoundNo::new(4),
        };
        vertex.hear(ROOT, &bytes(&sync, &[]));
        let asked = vertex.asks();
        assert_eq!(asked.len(), 1);
        assert_eq!(
            (asked[0].0, asked[0].1.edge),
            (ConnId::new(ROOT), edge(1, 1))
        );
        vertex.hear(ROOT, &start(edge(1, 2)));
        assert!(vertex.runs());
        // The view comes, and the edge with it.
        vertex.hear(OTHER, &start(edge(2, 1)));
        vertex.closed(ROOT);
        assert!(vertex.runs(), "the parent of before is gone");
        // What the parent of before still says is of an edge that has ended.
        greet(&mut vertex, ROOT);
        vertex.hear(ROOT, &start(edge(1, 7)));
        vertex.closed(ROOT);
        assert!(vertex.runs());
        vertex.closed(OTHER);
        assert!(!vertex.runs());
    }
}

/// Of two connections to one process the first is given up: whoever believes in it must know.
#[test]
fn a_later_connection_to_the_same_parent_replaces_the_first() {
    for mut vertex in Vertex::both() {
        greet(&mut vertex, ROOT);
        vertex.hear(ROOT, &start(edge(1, 1)));
        greet(&mut vertex, 5);
        assert_eq!(vertex.take_close(), Some(ConnId::new(ROOT)));
        vertex.hear(5, &start(edge(1, 2)));
        vertex.closed(ROOT);
        assert!(vertex.runs());
    }
}

/// An aggregator that takes the controllers for strangers would hang up on them for ever.
#[test]
fn controllers_are_no_strangers_in_the_tree() {
    for mut vertex in Vertex::both() {
        vertex.hear(3, &hello(Role::Controller, 1, 0, 0, 0));
        assert_eq!(vertex.take_close(), None);
        vertex.hear(4, &hello(Role::Client, 1, 9, 0, 0));
        assert_eq!(vertex.take_close(), Some(ConnId::new(4)));
    }
}
