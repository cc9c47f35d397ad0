//! A peer's state is believed only once it is durable, and one that is too large is refused by name.

use alloc::vec;
use alloc::vec::Vec;

use ionian_store::{BlockOpKind, FileKind, FileNo, Store, StoreConfig, StoreState};
use ionian_types::{
    ClientId, ClientSeq, ClusterId, ConnId, Durability, EntryNo, Gsn, GuardEpoch, Inc, Lsn, NodeId,
    NsEpoch, SegmentId, SessionNo, Slot, Time, ViewId,
};
use ionian_wire::WIRE_VERSION;
use ionian_wire::crc::crc32c;
use ionian_wire::frame::{
    Body, Hello, Message, Read, ReadStatus, Replicate, Role, ShardSnapshot, StateData,
    StateRequest, encode,
};
use ionian_wire::record::{Placement, emit_unplaced, encoded_bytes};

use super::super::image::Image;
use super::super::image::tests::{LOG, REPLICAS, SHARD, encoded, encoded_with, state};
use super::super::{Replica, ReplicaConfig};
use super::TOO_LARGE_PAUSE;
use crate::cutlog::{GenSpan, SegmentState, ShardState};
use crate::outbox::{Outbox, OutboxLimits};

const CLUSTER: ClusterId = ClusterId::new(7);
const ROOT: ConnId = ConnId::new(0);
const LEAF: ConnId = ConnId::new(1);
const PEER: ConnId = ConnId::new(2);
const CLIENT: ConnId = ConnId::new(3);
const CHECKPOINT_BYTES_MAX: u64 = 1 << 20;
/// Cuts in the state that is handed over.
const CUTS: u64 = 200;
/// Records of the peer's segment that are held when the cuts up to [`CUTS`] are skipped.
const HELD: u64 = 25;

/// The device: what of the checkpoint is written, and what of that is durable.
#[derive(Default)]
struct Device {
    written: bool,
    durable: bool,
}

impl Device {
    /// Does one operation; `false` if there is none.
    fn step(&mut self, store: &mut Store) -> bool {
        let Some(op) = store.next_op() else {
            return false;
        };
        let checkpoint = matches!(op.file.kind(), Some(FileKind::Checkpoint(_)));
        match op.kind {
            BlockOpKind::Write { .. } if checkpoint => (self.written, self.durable) = (true, false),
            BlockOpKind::Flush => self.durable = self.written,
            _ => {}
        }
        store.complete(op.token, Ok(&[]));
        true
    }
}

struct Desk {
    replica: Replica,
    device: Device,
    out: Outbox,
    now: Time,
}

impl Desk {
    /// A replica with an empty disk, connected to everybody, of a shard whose first entries the cut log has dropped.
    fn new(checkpoint_bytes_max: u64) -> Self {
        let node = NodeId::new(1);
        let config = StoreConfig {
            checkpoint_bytes_max,
            ..StoreConfig::new(CLUSTER, node, LOG, SHARD, REPLICAS, Durability::D1)
        };
        let mut store = Store::format(config, Inc::new(5), &[] as &[FileNo]);
        let mut device = Device::default();
        while device.step(&mut store) {}
        assert_eq!(store.state(), StoreState::Ready);
        let now = Time::from_ns(1_000_000);
        let mut config =
            ReplicaConfig::new(CLUSTER, node, Inc::new(5), LOG, SHARD, Slot::ZERO, REPLICAS);
        config.cuts_ready = 1;
        let out = Outbox::new(OutboxLimits {
            connections: 8,
            ..OutboxLimits::default()
        });
        let mut desk = Self {
            replica: Replica::new(config, store, now),
            device,
            out,
            now,
        };
        let others = [
            (ROOT, Role::Root),
            (LEAF, Role::Leaf),
            (PEER, Role::Replica),
            (CLIENT, Role::Client),
        ];
        for (conn, role) in others {
            desk.replica.opened(conn, &mut desk.out);
            let hello = Hello {
                cluster: CLUSTER,
                wire_version: WIRE_VERSION,
                role,
                node: NodeId::new(2),
                inc: Inc::new(5),
                log: LOG,
                shard: SHARD,
                slot: Slot::new(1),
                epoch: ViewId::ZERO,
                last: EntryNo::ZERO,
                client: ClientId::default(),
                session: SessionNo::ZERO,
            };
            desk.handle(conn, &hello, &[]);
        }
        desk.strand(&state(CUTS));
        desk
    }

    /// A replica that has applied the first ten cuts and holds `HELD` records of its peer's segment, more than those cuts
    /// ordered, when the cut log has dropped what leads to `then`.
    fn holding(then: &ShardState) -> Self {
        let mut desk = Self::new(CHECKPOINT_BYTES_MAX);
        desk.replica.adoption = None;
        let image = Image::read(&encoded(10), REPLICAS, 1).unwrap();
        desk.replica.take_image(image, None);
        let segment = SegmentId {
            shard: SHARD,
            slot: Slot::new(1),
        };
        let generation = ViewId::new(1);
        let records: Vec<u8> = (0..HELD)
            .flat_map(|position| record(segment, generation, position))
            .collect();
        let run = Replicate {
            log: LOG,
            segment,
            generation,
            from: Lsn::ZERO,
            count: HELD as u32,
        };
        desk.handle(PEER, &run, &records);
        while desk.device.step(desk.replica.store_mut()) {}
        assert_eq!(desk.replica.reported_len(segment.slot), Lsn::new(HELD));
        assert!(desk.replica.committed(segment.slot) < Lsn::new(HELD));
        desk.strand(then);
        desk
    }

    /// Everything up to the end of `then` was dropped from the cut log.
    fn strand(&mut self, then: &ShardState) {
        let mut bytes = vec![0; 1 << 12];
        let mut writer = ionian_wire::Writer::new(&mut bytes);
        then.write(&mut writer).unwrap();
        let len = writer.len();
        let snapshot = ShardSnapshot {
            log: LOG,
            shard: SHARD,
            entry: EntryNo::new(10 * CUTS),
            end_gsn: Gsn::new(100 * CUTS + 5),
            trim: Gsn::new(3),
        };
        self.handle(ROOT, &snapshot, &bytes[..len]);
    }

    /// Takes over `then` and tells, at every step, how much of the peer's segment counts as held.
    fn take_over(&mut self, then: &ShardState) -> Vec<Lsn> {
        assert!(self.sent().contains(&(PEER, "StateRequest")));
        let state = encoded_with(then, CUTS);
        self.state_data(&state, state.len() as u64);
        let mut held = Vec::new();
        loop {
            self.sent();
            held.push(self.replica.reported_len(Slot::new(1)));
            if !self.device.step(self.replica.store_mut()) {
                break;
            }
        }
        assert_eq!(self.replica.status(self.now).counters.adoptions, 1);
        assert!(self.replica.committed(Slot::new(1)) > Lsn::new(HELD));
        held
    }

    fn handle(&mut self, from: ConnId, body: &impl Body, tail: &[u8]) {
        let mut bytes = vec![0; 1024 + tail.len()];
        let len = encode(&mut bytes, body, &[tail]).unwrap();
        let (message, _) = Message::new_checked(&bytes[..len]).unwrap();
        for conn in [ROOT, LEAF, PEER, CLIENT] {
            self.out.set_room(conn, 4 << 20);
        }
        self.replica.handle(self.now, from, &message, &mut self.out);
    }

    /// Lets a second pass, and tells what is sent: to whom, and its name.
    fn sent(&mut self) -> Vec<(ConnId, &'static str)> {
        self.now = self.now.after(ionian_types::Nanos::from_ms(1_000));
        for conn in [ROOT, LEAF, PEER, CLIENT] {
            self.out.set_room(conn, 4 << 20);
        }
        self.replica.flush(self.now, &mut self.out);
        let name = |bytes| match Message::new_checked(bytes).unwrap().0 {
            // Says nothing of the order.
            Message::ReadAnswer(answer, _) if answer.status == ReadStatus::Unavailable => "Later",
            message => message.name(),
        };
        let envelopes = self.out.envelopes().iter();
        let sent = envelopes.map(|envelope| (envelope.conn, name(self.out.head(envelope))));
        let sent = sent.collect();
        self.out.clear();
        sent
    }

    /// The peer's answer: a state in one part, or only its length.
    fn state_data(&mut self, state: &[u8], total: u64) {
        let data = StateData {
            shard: SHARD,
            applied: EntryNo::new(10 * CUTS),
            crc: crc32c(state),
            total,
            from: 0,
        };
        self.handle(PEER, &data, state);
    }

    fn ask_read(&mut self) {
        let read = Read {
            log: LOG,
            shard: SHARD,
            request: 1,
            gsn: Gsn::new(50),
            entry: EntryNo::ZERO,
        };
        self.handle(CLIENT, &read, &[]);
    }
}

fn record(segment: SegmentId, generation: ViewId, position: u64) -> Vec<u8> {
    let payload = b"held";
    let mut bytes = vec![0; encoded_bytes(payload.len())];
    let seq = ClientSeq::new(position);
    emit_unplaced(&mut bytes, ClientId::new(9), SessionNo::ZERO, seq, payload).unwrap();
    Placement {
        log: LOG,
        segment,
        ns_epoch: NsEpoch::ZERO,
        generation,
        position: Lsn::new(position),
        guard: GuardEpoch::ZERO,
    }
    .seal(&mut bytes);
    bytes
}

/// What follows from a state: a report, and answers to clients.
fn follows(sent: &[(ConnId, &str)]) -> bool {
    sent.iter().any(|(conn, name)| {
        *name == "Report" || *conn == CLIENT && !["Hello", "Later"].contains(name)
    })
}

#[test]
fn nothing_follows_from_a_peers_state_before_it_is_durable() {
    let mut desk = Desk::new(CHECKPOINT_BYTES_MAX);
    assert!(desk.sent().contains(&(PEER, "StateRequest")));
    desk.ask_read();
    desk.device = Device::default();
    let state = encoded(CUTS);
    desk.state_data(&state, state.len() as u64);
    let mut steps = 0;
    loop {
        let durable = desk.device.durable;
        let sent = desk.sent();
        let adopted = desk.replica.status(desk.now).counters.adoptions;
        assert!(
            durable || adopted == 0 && !follows(&sent),
            "after {steps} operations: {sent:?}"
        );
        if !desk.device.step(desk.replica.store_mut()) {
            break;
        }
        steps += 1;
    }
    let status = desk.replica.status(desk.now);
    assert_eq!(status.counters.adoptions, 1, "after {steps} operations");
    assert_eq!(status.applied, EntryNo::new(10 * CUTS));
    assert!(status.stranded.is_none());
    assert!(desk.sent().contains(&(LEAF, "Report")));
}

/// The skipped entries had ordered those records, with this replica's report as half of the quorum: dropped, they stood at
/// one member only, and the fallen report kept the shard from ordering anything for as long as the epoch lasted.
#[test]
fn what_was_reported_is_kept_when_a_peers_state_is_taken_over() {
    let then = state(CUTS);
    let held = Desk::holding(&then).take_over(&then);
    assert!(held.iter().all(|len| *len == Lsn::new(HELD)), "{held:?}");
}

#[test]
fn what_is_void_in_a_peers_state_goes_before_it_is_taken_over() {
    let mut then = state(CUTS);
    let (closed, close) = (ViewId::new(1), Lsn::new(22));
    let segment = &mut then.segments[1];
    segment.closed.push(GenSpan {
        generation: closed,
        open: Lsn::ZERO,
        close,
    });
    (segment.generation, segment.opened_at) = (ViewId::new(2), close);
    let mut desk = Desk::holding(&then);
    let held = desk.take_over(&then);
    assert_eq!(held.last(), Some(&close), "{held:?}");
    assert_eq!(desk.replica.tail_generation[1], closed);
}

#[test]
fn what_a_state_has_seen_counts_as_far_as_it_was_committed() {
    let mut desk = Desk::holding(&state(CUTS));
    let slot = Slot::new(1);
    let committed = Lsn::new(4);
    let mut now = state(10);
    now.segments[slot.index()].len = committed;
    // The state has seen ten records, and more are held; those behind the committed ones may be others by now.
    let image = Image::read(&encoded_with(&now, 10), REPLICAS, 1).unwrap();
    desk.replica.take_image(image, None);
    assert_eq!(desk.replica.dedup_upto[slot.index()], committed);
    let dedup = &desk.replica.dedup[slot.index()];
    let session = dedup.find(ClientId::new(9), SessionNo::ZERO).unwrap();
    let session = dedup.get(session).unwrap();
    assert_eq!(session.position(3), Some(Lsn::new(3)));
    assert_eq!(session.position(4), None);
}

#[test]
fn what_a_generation_wrote_counts_up_to_its_close() {
    let mut segment = state(CUTS).segments.remove(0);
    let ends = |segment: &SegmentState| {
        let generations = [0, 1, 2, 3].map(ViewId::new);
        generations.map(|generation| segment.end_of(generation).map(Lsn::get))
    };
    assert_eq!(ends(&segment), [Some(0), Some(12), None, None]);
    // Closed, and nobody writes.
    segment.closed.push(GenSpan {
        generation: segment.generation,
        open: segment.opened_at,
        close: segment.len,
    });
    segment.generation = ViewId::ZERO;
    assert_eq!(ends(&segment), [Some(0), Some(12), Some(3 * CUTS), None]);
}

#[test]
fn a_state_that_is_too_large_is_named_and_not_asked_for_at_once_again() {
    let mut desk = Desk::new(CHECKPOINT_BYTES_MAX);
    assert!(desk.sent().contains(&(PEER, "StateRequest")));
    desk.state_data(&[], CHECKPOINT_BYTES_MAX + 1);
    let stranded = desk.replica.status(desk.now).stranded.expect("still");
    assert_eq!(stranded.total_bytes, CHECKPOINT_BYTES_MAX + 1);
    assert_eq!(stranded.bytes_max, CHECKPOINT_BYTES_MAX);
    assert!(!desk.sent().contains(&(PEER, "StateRequest")));
    desk.now = desk.now.after(TOO_LARGE_PAUSE);
    assert!(desk.sent().contains(&(PEER, "StateRequest")));
    // A trim made it smaller.
    let state = encoded(CUTS);
    desk.state_data(&state, state.len() as u64);
    desk.sent();
    while desk.device.step(desk.replica.store_mut()) {
        desk.sent();
    }
    assert_eq!(desk.replica.status(desk.now).counters.adoptions, 1);
}

#[test]
fn a_state_that_is_too_large_is_not_sent() {
    // As after entries, whose cuts are more than a checkpoint takes.
    let mut desk = Desk::new(CHECKPOINT_BYTES_MAX);
    let mut small = Desk::new(1 << 10);
    for desk in [&mut desk, &mut small] {
        desk.sent();
        desk.replica.adoption = None;
        let image = Image::read(&encoded(CUTS), REPLICAS, 1).unwrap();
        desk.replica.take_image(image, None);
    }
    let request = StateRequest {
        shard: SHARD,
        need: EntryNo::new(10),
        applied: EntryNo::ZERO,
        from: 0,
    };
    let answer = |desk: &mut Desk| {
        desk.handle(PEER, &request, &[]);
        desk.out.clear();
        for conn in [ROOT, LEAF, PEER, CLIENT] {
            desk.out.set_room(conn, 4 << 20);
        }
        desk.replica.flush(desk.now, &mut desk.out);
        let heads = desk.out.envelopes().iter();
        let found = heads.filter_map(|envelope| {
            match Message::new_checked(desk.out.head(envelope)).unwrap().0 {
                Message::StateData(body, part) => Some((body.total, part.len() as u64)),
                _ => None,
            }
        });
        let found: Vec<_> = found.collect();
        desk.out.clear();
        found
    };
    let whole = answer(&mut desk);
    let (total, sent) = whole[0];
    assert!(total > 0 && sent == total, "{whole:?}");
    assert_eq!(answer(&mut small), [(total, 0)]);
    let counters = small.replica.status(small.now).counters;
    assert!(counters.states_too_large > 0);
}
