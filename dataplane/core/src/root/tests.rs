//! Trims while a commit is held up: each is answered, and few wait. Connections of a leaf: the last one has the edge.

use alloc::vec;
use alloc::vec::Vec;

use ionian_store::{BlockError, Store, StoreConfig, StoreState};
use ionian_types::{
    ClientId, ClusterId, ConnId, Durability, EntryNo, Gsn, Inc, LogId, NodeId, RootEpoch,
    SessionNo, ShardId, Slot, Time, ViewId,
};
use ionian_wire::WIRE_VERSION;
use ionian_wire::codec::Field as _;
use ionian_wire::frame::{
    Hello, Message, Role, RootGrant, TrimAnswer, TrimRequest, TrimStatus, encode,
};
use ionian_wire::tree::{TreeVertex, encode_vertices};

use super::serve::TRIMS_MAX;
use super::{Kind, Root, RootConfig};
use crate::outbox::{Outbox, OutboxLimits};

const CLUSTER: ClusterId = ClusterId::new(7);
const LOG: LogId = LogId::new(1);
const CLIENT: ConnId = ConnId::new(3);
const NOW: Time = Time::from_ns(1_000_000);

struct Desk {
    root: Root,
    out: Outbox,
}

impl Desk {
    /// A root of a flushed log of 1000 records, with its store on a device that does all it is asked.
    fn new() -> Self {
        let node = NodeId::new(1);
        let config = StoreConfig::new(CLUSTER, node, LOG, ShardId::MAX, 0, Durability::D1);
        let store = Store::format(config, Inc::ZERO, &[]);
        let config = RootConfig::new(CLUSTER, node, Inc::new(1), LOG, Durability::D1);
        let out = Outbox::new(OutboxLimits {
            connections: 8,
            ..OutboxLimits::default()
        });
        let mut desk = Self {
            root: Root::new(config, store, NOW),
            out,
        };
        desk.work(Ok(()));
        assert_eq!(desk.root.store.state(), StoreState::Ready);
        let member = [1u32.to_le_bytes().as_slice(), &1u64.to_le_bytes()].concat();
        desk.root.on_grant(
            &RootGrant {
                log: LOG,
                inc: Inc::new(1),
                epoch: RootEpoch::new(1),
                floor: Gsn::new(1000),
                ceiling: Gsn::new(1 << 40),
                view: ViewId::new(1),
                write_quorum: 1,
                seal_quorum: 1,
                members: 1,
                recorded: false,
            },
            &member,
        );
        desk.work(Ok(()));
        desk.answers();
        assert_eq!(desk.root.status().tail, Gsn::new(1000));
        desk.root.set_kind(CLIENT, Kind::Client);
        desk
    }

    /// The device does what it is asked.
    fn work(&mut self, result: Result<(), BlockError>) {
        while let Some(op) = self.root.store.next_op() {
            self.root.store.complete(op.token, result.map(|()| &[][..]));
        }
    }

    fn trim(&mut self, request: u64, upto: u64) {
        let (log, upto) = (LOG, Gsn::new(upto));
        let mut bytes = vec![0; 64];
        let body = TrimRequest { log, request, upto };
        let len = encode(&mut bytes, &body, &[]).unwrap();
        let (message, _) = Message::new_checked(&bytes[..len]).unwrap();
        self.out.set_room(CLIENT, 4 << 20);
        self.root.handle(NOW, CLIENT, &message, &mut self.out);
    }

    /// What is answered from here on.
    fn answers(&mut self) -> Vec<TrimAnswer> {
        self.out.set_room(CLIENT, 4 << 20);
        self.root.flush(NOW, &mut self.out);
        self.taken()
    }

    fn taken(&mut self) -> Vec<TrimAnswer> {
        let heads = self.out.envelopes().iter();
        let answers = heads.filter_map(|envelope| {
            match Message::new_checked(self.out.head(envelope)).unwrap().0 {
                Message::TrimAnswer(answer, _) => Some(answer),
                _ => None,
            }
        });
        let answers = answers.collect();
        self.out.clear();
        answers
    }
}

#[test]
fn trims_beyond_the_limit_are_refused_while_the_device_is_slow() {
    let mut desk = Desk::new();
    let max = TRIMS_MAX as u64;
    for request in 0..max {
        // Half of them are covered by an entry that is under way.
        desk.trim(request, 1 + request / 2);
        // The same again waits once.
        desk.trim(request, 1 + request / 2);
    }
    assert_eq!(desk.answers(), [], "none is committed");
    for request in max..max + 100 {
        desk.trim(request, 900);
        desk.trim(request, 1);
    }
    let refused = desk.taken();
    assert_eq!(refused.len(), 200);
    assert!(
        refused
            .iter()
            .all(|answer| answer.status == TrimStatus::Busy)
    );
    assert_eq!(desk.root.trims.len(), TRIMS_MAX);
    desk.work(Ok(()));
    // Little room: the others are answered when it is back.
    let len = desk.root.trims.len();
    desk.out.set_room(CLIENT, 4096);
    desk.root.flush(NOW, &mut desk.out);
    let mut done = desk.taken();
    assert!((1..len).contains(&done.len()), "{}", done.len());
    done.extend(desk.answers());
    assert_eq!(done.len(), len);
    let all = done.iter().all(|answer| {
        answer.status == TrimStatus::Done && answer.head == Gsn::new(1 + (max - 1) / 2)
    });
    assert!(all, "{done:?}");
    desk.trim(5000, 900);
    desk.work(Ok(()));
    assert_eq!(
        desk.answers()[0].head,
        Gsn::new(900),
        "and there is room again"
    );
}

#[test]
fn a_trim_that_the_journal_does_not_take_is_refused() {
    let mut desk = Desk::new();
    desk.trim(1, 10);
    desk.work(Err(BlockError::Io));
    desk.trim(2, 20);
    let answers = desk.taken();
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].request, 2);
    assert_eq!(answers[0].status, TrimStatus::Busy);
    assert_eq!(answers[0].head, Gsn::ZERO, "nothing is said of the log");
}

#[test]
fn a_trim_before_the_root_has_begun_is_refused() {
    let mut desk = Desk::new();
    desk.root.granted = None;
    desk.trim(1, 10);
    assert_eq!(desk.taken()[0].status, TrimStatus::Busy);
}

/// A leaf of a new life lost its connection and opened another before a view named it. The root had not heard of the loss:
/// it began the edge on the first connection, forgot the edge when that was gone, and never used the second.
#[test]
fn an_edge_begins_on_the_last_connection_of_a_leaf() {
    let mut desk = Desk::new();
    let (node, inc) = (NodeId::new(3), Inc::new(11));
    let hello = Hello {
        cluster: CLUSTER,
        wire_version: WIRE_VERSION,
        role: Role::Leaf,
        node,
        inc,
        log: LOG,
        shard: ShardId::ZERO,
        slot: Slot::ZERO,
        epoch: ViewId::ZERO,
        last: EntryNo::ZERO,
        client: ClientId::default(),
        session: SessionNo::ZERO,
    };
    let [lost, last] = [4, 5].map(ConnId::new);
    for conn in [lost, last] {
        desk.out.set_room(conn, 4 << 20);
        desk.root.opened(conn, &mut desk.out);
        let hello = Message::Hello(hello, &[]);
        desk.root.handle(NOW, conn, &hello, &mut desk.out);
    }
    assert_eq!(desk.root.take_close(), Some(lost), "it must know");
    assert_eq!(desk.root.take_close(), None);
    desk.out.clear();
    // A view names it.
    let mut vertices = [0; TreeVertex::LEN];
    let vertices = encode_vertices(
        &mut vertices,
        [TreeVertex::first_leaf(node, inc)].into_iter(),
    );
    let view = ViewId::new(1);
    assert!(desk.root.state.tree.replace(&vertices.unwrap(), view));
    desk.root.adopt_children();
    desk.root.flush(NOW, &mut desk.out);
    let starts: Vec<ConnId> = desk
        .out
        .envelopes()
        .iter()
        .filter(|envelope| {
            let (message, _) = Message::new_checked(desk.out.head(envelope)).unwrap();
            matches!(message, Message::EdgeStart(..))
        })
        .map(|envelope| envelope.conn)
        .collect();
    assert_eq!(starts, [last]);
    desk.root.closed(lost);
    assert_eq!(desk.root.status().edges, 1);
}

/// The grant was dropped, and a root that had positions enough asked for nothing: its log stood still for good.
#[test]
fn a_grant_for_whose_epoch_there_was_no_room_is_asked_for_again() {
    const CONTROLLER: ConnId = ConnId::new(4);
    let mut desk = Desk::new();
    desk.root.set_kind(CONTROLLER, Kind::Controller);
    desk.root.controller = Some(CONTROLLER);
    desk.out.set_room(CONTROLLER, 4 << 20);
    let grant = RootGrant {
        log: LOG,
        inc: Inc::new(1),
        epoch: RootEpoch::new(2),
        floor: Gsn::new(1000),
        ceiling: Gsn::new(1 << 40),
        view: ViewId::new(1),
        write_quorum: 1,
        seal_quorum: 1,
        members: 1,
        recorded: true,
    };
    let member = [1u32.to_le_bytes().as_slice(), &1u64.to_le_bytes()].concat();
    // The device takes nothing, and the journal is full.
    for bytes in [4096, 16, 0] {
        while desk.root.store.journal_append(&vec![0; bytes]).is_ok() {}
    }
    desk.root.on_grant(&grant, &member);
    assert_eq!(desk.root.status().epoch, RootEpoch::ZERO);
    let asked = |desk: &mut Desk, now: Time| {
        desk.out.clear();
        desk.root.flush(now, &mut desk.out);
        let mut heads = desk.out.envelopes().iter();
        heads.any(|envelope| {
            let head = Message::new_checked(desk.out.head(envelope)).unwrap().0;
            matches!(head, Message::CeilingRequest(request, _) if request.upto == Gsn::ZERO)
        })
    };
    assert!(asked(&mut desk, NOW), "no more positions, but the grant");
    assert!(!asked(&mut desk, NOW), "once");
    let later = NOW.after(desk.root.config.retry);
    assert!(desk.root.next_deadline() <= later);
    assert!(asked(&mut desk, later), "and again");
    // Another member promised to follow asks for nothing.
    desk.root.promise(RootEpoch::new(3));
    let later = later.after(desk.root.config.retry);
    assert!(!asked(&mut desk, later));
}
