//! A toy mode: one server, and the position is its counter at the time of the store. It shows what a second mode needs: its
//! own machine over the shared store, dedup set, outbox and frames. The client above it is the shipped one.

use alloc::vec::Vec;

use ionian_store::{Fetch, Store, StoreConfig};
use ionian_types::{
    ClientId, ClientSeq, ClusterId, ConnId, Durability, EntryNo, GapKind, Gsn, GuardEpoch, Inc,
    LogId, Lsn, NodeId, NsEpoch, OrderingMode, SegmentId, SessionNo, ShardId, Slot, Time, ViewId,
};
use ionian_wire::WIRE_VERSION;
use ionian_wire::directory::{ClusterMap, Endpoint, LogInfo, ReplicaInfo, ShardInfo};
use ionian_wire::frame::{Append, AppendAck, Hello, Message, Read, ReadAnswer, ReadStatus, Role};
use ionian_wire::record::{Placement, RECORD_HEADER_BYTES, encoded_bytes, payload_bytes};

use super::ModeReplica;
use crate::client::{Choice, Client, ClientConfig, Outcome, PeerKind};
use crate::dedup::Dedup;
use crate::outbox::{Outbox, OutboxLimits};

const CLUSTER: ClusterId = ClusterId::new(5);
const LOG: LogId = LogId::new(1);
const SEGMENT: SegmentId = SegmentId {
    shard: ShardId::ZERO,
    slot: Slot::ZERO,
};
const GENERATION: ViewId = ViewId::new(1);

/// The server.
#[derive(Debug)]
pub struct Counter {
    store: Store,
    dedup: Dedup,
}

impl Counter {
    fn new() -> Self {
        let config = StoreConfig::new(
            CLUSTER,
            NodeId::new(1),
            LOG,
            ShardId::ZERO,
            1,
            Durability::D0,
        );
        Self {
            store: Store::new(config),
            dedup: Dedup::new(),
        }
    }

    pub(super) fn opened(&mut self, conn: ConnId, out: &mut Outbox) {
        let hello = Hello {
            cluster: CLUSTER,
            wire_version: WIRE_VERSION,
            role: Role::Replica,
            node: NodeId::new(1),
            inc: Inc::new(1),
            log: LOG,
            shard: ShardId::ZERO,
            slot: Slot::ZERO,
            epoch: GENERATION,
            last: EntryNo::ZERO,
            client: ClientId::default(),
            session: SessionNo::ZERO,
        };
        out.send(conn, &hello, &[]).unwrap();
    }

    pub(super) fn closed(&mut self, _now: Time, conn: ConnId) {
        self.dedup.for_each_mut(|_, session| {
            if session.conn == Some(conn) {
                session.conn = None;
            }
        });
    }

    pub(super) fn take_close(&mut self) -> Option<ConnId> {
        None
    }

    pub(super) fn handle(
        &mut self,
        _now: Time,
        conn: ConnId,
        message: &Message<'_>,
        out: &mut Outbox,
    ) {
        match message {
            Message::Append(append, records) => self.append(conn, append, records, out),
            Message::Read(read, _) => self.read(conn, read, out),
            _ => {}
        }
    }

    pub(super) fn flush(&mut self, _now: Time, _out: &mut Outbox) {}

    pub(super) fn next_deadline(&self) -> Time {
        Time::FAR
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// The whole of this mode's ordering: the position in the order is the length of the only segment.
    fn append(&mut self, conn: ConnId, append: &Append, records: &[u8], out: &mut Outbox) {
        let index = self
            .dedup
            .open(append.client, append.session, append.generation)
            .unwrap();
        let known = self
            .dedup
            .get(index)
            .and_then(|session| session.position(append.first_seq.get()));
        let first = known.unwrap_or_else(|| self.place(index, append, records));
        let ack = AppendAck {
            log: LOG,
            segment: SEGMENT,
            generation: GENERATION,
            session: append.session,
            first_seq: append.first_seq,
            count: append.count,
            ns_epoch: NsEpoch::ZERO,
            first_gsn: Gsn::new(first.get()),
            entry: EntryNo::ZERO,
            first_position: first,
            class: Durability::D0,
        };
        out.send(conn, &ack, &[]).unwrap();
    }

    fn place(&mut self, index: u32, append: &Append, records: &[u8]) -> Lsn {
        let first = self.store.len(Slot::ZERO);
        let room = self.store.reserve(Slot::ZERO, records.len()).unwrap();
        room.copy_from_slice(records);
        let mut place = Placement {
            log: LOG,
            segment: SEGMENT,
            ns_epoch: NsEpoch::ZERO,
            generation: GENERATION,
            position: first,
            guard: GuardEpoch::new(1),
        };
        let mut at = 0;
        while at < room.len() {
            let record = &mut room[at..];
            at += encoded_bytes(payload_bytes(record));
            place.seal(&mut record[..RECORD_HEADER_BYTES]);
            place.position = place.position.next().unwrap();
        }
        self.store.commit(Slot::ZERO, first, records.len());
        let count = u64::from(append.count);
        self.dedup
            .took(index, append.first_seq, first, count, append.floor);
        first
    }

    fn read(&mut self, conn: ConnId, read: &Read, out: &mut Outbox) {
        let from = Lsn::new(read.gsn.get());
        let answer = ReadAnswer {
            request: read.request,
            gsn: read.gsn,
            status: ReadStatus::Record,
            gap: GapKind::Junk,
            applied: EntryNo::ZERO,
        };
        if let Fetch::Ready(run) = self.store.run(Slot::ZERO, from, from.next().unwrap(), 1) {
            out.send_run(conn, &answer, run).unwrap();
        }
    }
}

fn map() -> ClusterMap {
    let endpoint = Endpoint {
        node: NodeId::new(1),
        inc: Inc::new(1),
        address: "".into(),
    };
    let replica = ReplicaInfo {
        endpoint: endpoint.clone(),
        generation: GENERATION,
    };
    let shard = ShardInfo {
        shard: ShardId::ZERO,
        rank: 0,
        epoch: GENERATION,
        open: true,
        finalized: false,
        quorum: 1,
        replicas: Vec::from([replica]),
    };
    ClusterMap {
        version: 1,
        logs: Vec::from([LogInfo {
            log: LOG,
            name: "toy".into(),
            mode: OrderingMode::Corfu,
            class: Durability::D0,
            roots: Vec::from([endpoint]),
            leader: None,
            tree: Vec::new(),
            tree_next: Vec::new(),
            coming: Vec::new(),
            shards: Vec::from([shard]),
        }]),
    }
}

/// Carries what lies in an outbox to `to`, as the edge does.
fn carry(out: &mut Outbox, store: Option<&Store>, mut to: impl FnMut(&Message<'_>)) {
    let sent: Vec<Vec<u8>> = out
        .envelopes()
        .iter()
        .map(|envelope| {
            let mut bytes = out.head(envelope).to_vec();
            if let (Some(run), Some(store)) = (&envelope.body, store) {
                bytes.extend_from_slice(store.bytes(run));
            }
            bytes
        })
        .collect();
    out.clear();
    out.set_room(ConnId::ZERO, 4 << 20);
    for bytes in sent {
        to(&Message::new_checked(&bytes).unwrap().0);
    }
}

#[test]
fn the_shipped_client_appends_to_a_second_mode() {
    let now = Time::from_ns(1);
    let conn = ConnId::ZERO;
    let mut server = ModeReplica::Counter(Box::new(Counter::new()));
    let mut client: Client =
        Client::new(ClientConfig::new(CLUSTER, LOG, ClientId::new(3))).unwrap();
    let (mut from_client, mut from_server) = (
        Outbox::new(OutboxLimits::default()),
        Outbox::new(OutboxLimits::default()),
    );
    from_client.set_room(conn, 4 << 20);
    from_server.set_room(conn, 4 << 20);
    client.set_map(now, &map());
    let peer = PeerKind::Replica {
        shard: ShardId::ZERO,
        slot: Slot::ZERO,
    };
    client.connected(now, conn, peer, &mut from_client).unwrap();
    server.opened(conn, &mut from_server);
    for number in 0..100u64 {
        client
            .append(now, &number.to_le_bytes(), Choice::Policy)
            .unwrap();
        client.on_deadline(now);
        client.flush(now, &mut from_client);
        carry(&mut from_client, None, |message| {
            server.handle(now, conn, message, &mut from_server);
            // A repeat of the frame, as after a lost connection: it changes nothing.
            server.handle(now, conn, message, &mut from_server);
        });
        server.flush(now, &mut from_server);
        carry(&mut from_server, Some(server.store()), |message| {
            client.handle(now, conn, message, &mut ());
        });
        let completion = client.poll_completion().unwrap();
        let Outcome::Ordered { first_gsn, .. } = completion.outcome else {
            panic!("{completion:?}");
        };
        assert_eq!((first_gsn, completion.count), (Gsn::new(number), 1));
    }
    assert_eq!(server.store().len(Slot::ZERO), Lsn::new(100));
    assert!(!ModeReplica::is_built(OrderingMode::Corfu));
    assert_eq!(server.next_deadline(), Time::FAR);
    let read = Read {
        log: LOG,
        shard: ShardId::ZERO,
        request: 1,
        gsn: Gsn::new(42),
        entry: EntryNo::ZERO,
    };
    server.handle(now, conn, &Message::Read(read, &[]), &mut from_server);
    let mut seen = Vec::new();
    carry(&mut from_server, Some(server.store()), |message| {
        let Message::ReadAnswer(_, record) = message else {
            panic!("{message:?}");
        };
        let header = ionian_wire::record::parse_header(record).unwrap();
        seen.push(header.seq);
    });
    assert_eq!(seen, [ClientSeq::new(42)]);
}
