//! A gsn is a pure function of the entries: the root's answers, the cuts that replicas apply, their acks and their reads
//! all agree with a reference that knows nothing but the raw entries. 10,000 cases; machines wired by hand, no network.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::collections::VecDeque;

use common::{CLUSTER, LOG, bytes, drain, hello, message, outbox, store};
use ionian_core::leaf::{Leaf, LeafConfig};
use ionian_core::outbox::Outbox;
use ionian_core::replica::{Replica, ReplicaConfig};
use ionian_core::root::{Root, RootConfig};
use ionian_sim::reference::Reference;
use ionian_sim::rng::Rng;
use ionian_types::{
    ClientId, ClientSeq, ConnId, Durability, EntryNo, Gsn, Inc, Lsn, Nanos, NodeId, RootEpoch,
    SegmentId, SessionNo, ShardId, Slot, Time, ViewId,
};
use ionian_wire::Writer;
use ionian_wire::codec::Field;
use ionian_wire::entry::{Change, encode_members, write_change};
use ionian_wire::frame::{
    Append, DownShard, Grant, Intent, Locate, LocateStatus, Member, Message, Read, ReadStatus,
    Report, Role, RootGrant,
};
use ionian_wire::record::{emit_unplaced, encoded_bytes};
use ionian_wire::tree::{TreeVertex, encode_vertices};

const CASES: u64 = 10_000;
const CLIENT: ClientId = ClientId::new(77);

/// Where a message goes: a machine, and the connection on which it arrives there.
#[derive(Clone, Copy, Debug)]
enum To {
    Root(u32),
    Leaf(u32),
    Replica(usize, u32),
}

/// Root, leaf, and of each shard the replica in one slot. The other members are made up: they report what the case says.
struct Desk {
    rng: Rng,
    now: Time,
    out: Outbox,
    root: Root,
    leaf: Leaf,
    replicas: Vec<Replica>,
    own: Vec<u8>,
    slots: u8,
    lens: Vec<Vec<u64>>,
    seqs: Vec<u64>,
    report_seq: u64,
    view: u64,
    epochs: Vec<u64>,
    generations: Vec<u64>,
    queue: VecDeque<(To, Vec<u8>)>,
    reference: Reference,
    checks: u64,
}

const fn inc_of(shard: usize, slot: u8) -> u64 {
    100 + shard as u64 * 10 + slot as u64
}

impl Desk {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::stream(seed, "cut order");
        let (shards, slots) = (rng.range(1, 4) as usize, rng.range(1, 4) as u8);
        let now = Time::from_ns(1_000_000);
        let root = RootConfig::new(CLUSTER, NodeId::new(2), Inc::new(1), LOG, Durability::D0);
        let leaf = LeafConfig::new(CLUSTER, NodeId::new(3), Inc::new(2), LOG);
        let own: Vec<u8> = (0..shards)
            .map(|_| rng.below(u64::from(slots)) as u8)
            .collect();
        let replicas = own.iter().enumerate().map(|(shard, slot)| {
            let id = ShardId::new(shard as u32);
            let inc = Inc::new(inc_of(shard, *slot));
            let mut config = ReplicaConfig::new(
                CLUSTER,
                NodeId::new(9),
                inc,
                LOG,
                id,
                Slot::new(*slot),
                slots,
            );
            config.cuts_ready = 1;
            config.timing.missing = Nanos(u64::MAX);
            Replica::new(config, store(id, slots), now)
        });
        let mut desk = Self {
            now,
            out: outbox(),
            root: Root::new(root, store(ShardId::MAX, 0), now),
            leaf: Leaf::new(leaf, now),
            replicas: replicas.collect(),
            own,
            slots,
            lens: vec![vec![0; usize::from(slots)]; shards],
            seqs: vec![0; shards],
            report_seq: 0,
            view: 0,
            epochs: vec![1; shards],
            generations: vec![1; shards],
            queue: VecDeque::new(),
            reference: Reference::default(),
            checks: 0,
            rng,
        };
        desk.begin();
        desk
    }

    fn begin(&mut self) {
        let grant = RootGrant {
            log: LOG,
            inc: Inc::new(1),
            epoch: RootEpoch::new(1),
            floor: Gsn::ZERO,
            ceiling: Gsn::new(1 << 40),
            view: ViewId::ZERO,
            write_quorum: 1,
            seal_quorum: 1,
            members: 1,
            recorded: false,
        };
        let member = [&2u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
        let greet = [
            (To::Root(0), hello(Role::Controller, 1, 0, 0, 0)),
            (To::Root(2), hello(Role::Client, 0, 0, 0, 0)),
            (To::Root(1), hello(Role::Leaf, 3, 2, 0, 0)),
            (To::Leaf(0), hello(Role::Root, 2, 1, 0, 0)),
            (To::Root(0), bytes(&grant, &member)),
        ];
        self.queue.extend(greet);
        for shard in 0..self.own.len() {
            for slot in 0..self.slots {
                let greeting = hello(Role::Replica, 9, inc_of(shard, slot), shard as u32, slot);
                let conn = 10 + shard as u32 * 8 + u32::from(slot);
                self.queue.push_back((To::Leaf(conn), greeting.clone()));
                if slot == self.own[shard] {
                    self.queue
                        .push_back((To::Root(10 + shard as u32), greeting));
                }
            }
            let (root, leaf) = (hello(Role::Root, 2, 1, 0, 0), hello(Role::Leaf, 3, 2, 0, 0));
            self.queue.push_back((To::Replica(shard, 0), root));
            self.queue.push_back((To::Replica(shard, 1), leaf));
            let client = hello(Role::Client, 0, 77, 0, 0);
            self.queue.push_back((To::Replica(shard, 2), client));
        }
        self.view = 1;
        let (shards, slots) = (self.own.len(), self.slots);
        self.intent(|writer| {
            for shard in 0..shards {
                let members: Vec<Member> = (0..slots)
                    .map(|slot| Member {
                        node: NodeId::new(9),
                        inc: Inc::new(inc_of(shard, slot)),
                        domain: u32::from(slot),
                    })
                    .collect();
                let mut encoded = [0; 256];
                let change = Change::Open {
                    shard: ShardId::new(shard as u32),
                    // Ranks fall while ids rise: the order of the tree is not that of the ids.
                    rank: 100 - shard as u32,
                    log: LOG,
                    class: Durability::D0,
                    quorum: slots,
                    members: encode_members(&mut encoded, &members).unwrap(),
                };
                write_change(writer, &change).unwrap();
            }
            let mut vertices = [0; TreeVertex::LEN];
            let vertices = encode_vertices(
                &mut vertices,
                [TreeVertex::first_leaf(NodeId::new(3), Inc::new(2))].into_iter(),
            );
            write_change(
                writer,
                &Change::Tree {
                    vertices: vertices.unwrap(),
                },
            )
            .unwrap();
        });
        self.settle(0);
    }

    fn intent(&mut self, write: impl FnOnce(&mut Writer<'_>)) {
        let mut changes = [0; 2048];
        let mut writer = Writer::new(&mut changes);
        write(&mut writer);
        let len = writer.len();
        let intent = Intent {
            log: LOG,
            view: ViewId::new(self.view),
        };
        self.queue
            .push_back((To::Root(0), bytes(&intent, &changes[..len])));
    }

    /// Carries messages until nothing moves; cuts on their way to replicas are lost with these odds per thousand.
    fn settle(&mut self, lost: u64) {
        for _ in 0..40 {
            self.now = self.now.after(Nanos::from_ms(25));
            while let Some((to, bytes)) = self.queue.pop_front() {
                self.hand_over(to, &bytes);
            }
            self.root.flush(self.now, &mut self.out);
            self.take_entries();
            self.collect(None, lost);
            self.leaf.flush(self.now, &mut self.out);
            self.collect(Some(usize::MAX), lost);
            for shard in 0..self.replicas.len() {
                self.replicas[shard].flush(self.now, &mut self.out);
                self.collect(Some(shard), lost);
            }
            let level = self.replicas.iter().enumerate().all(|(shard, replica)| {
                let last = self.reference.shards.get(&(shard as u32));
                last.is_some_and(|state| replica.status(self.now).applied.get() == state.last)
            });
            let ordered = self.lens.iter().enumerate().all(|(shard, lens)| {
                self.reference.shards[&(shard as u32)]
                    .segments
                    .iter()
                    .zip(lens)
                    .all(|(segment, len)| segment.len == *len)
            });
            if level && ordered {
                return;
            }
        }
        let states: Vec<_> = self
            .replicas
            .iter()
            .map(|replica| replica.status(self.now).applied)
            .collect();
        panic!(
            "the machines do not come to rest: {} waiting, applied {states:?}, {:?}, root {:?}",
            self.queue.len(),
            self.reference.shards,
            self.root.status()
        );
    }

    fn take_entries(&mut self) {
        let commit = self.root.status().commit.get();
        for number in self.reference.last + 1..=commit {
            let entry = self.root.committed_entry(EntryNo::new(number)).unwrap();
            self.reference
                .take(number, entry, &mut Vec::new())
                .unwrap_or_else(|what| panic!("{what}"));
        }
    }

    fn hand_over(&mut self, to: To, bytes: &[u8]) {
        let (now, message) = (self.now, message(bytes));
        match to {
            To::Root(conn) => {
                self.root
                    .handle(now, ConnId::new(conn), &message, &mut self.out);
                self.take_entries();
                self.collect(None, 0);
            }
            To::Leaf(conn) => self
                .leaf
                .handle(now, ConnId::new(conn), &message, &mut self.out),
            To::Replica(shard, conn) => {
                self.replicas[shard].handle(now, ConnId::new(conn), &message, &mut self.out);
                self.collect(Some(shard), 0);
            }
        }
    }

    /// Takes what a machine said: `None` the root, a shard its replica, anything else the leaf.
    fn collect(&mut self, from: Option<usize>, lost: u64) {
        let store = from
            .and_then(|shard| self.replicas.get(shard))
            .map(Replica::store);
        for (conn, bytes) in drain(&mut self.out, store) {
            let conn = conn.get();
            match (from, conn) {
                (None, 1) => self.queue.push_back((To::Leaf(0), bytes)),
                (None, 2) => self.located(&bytes),
                (None, conn) if conn >= 10 => self
                    .queue
                    .push_back((To::Replica(conn as usize - 10, 0), bytes)),
                (None, _) => {}
                (Some(shard), 0) if shard < self.own.len() => {
                    self.queue.push_back((To::Root(10 + shard as u32), bytes));
                }
                (Some(shard), 2) if shard < self.own.len() => self.answered(shard, &bytes),
                // What replicas report is made up below.
                (Some(shard), _) if shard < self.own.len() => {}
                (Some(_), 0) => self.queue.push_back((To::Root(1), bytes)),
                (Some(_), conn) => {
                    let (shard, slot) = ((conn as usize - 10) / 8, (conn - 10) % 8);
                    let is_cut = matches!(message(&bytes), Message::DownShard(..));
                    if slot == u32::from(self.own[shard]) && !(is_cut && self.rng.permille(lost)) {
                        self.queue.push_back((To::Replica(shard, 1), bytes));
                    }
                }
            }
        }
    }

    /// Own records, and growth of the others; then every member reports.
    fn grow(&mut self) {
        for shard in 0..self.own.len() {
            let own = self.own[shard];
            for slot in 0..self.slots {
                if slot != own && self.rng.permille(500) {
                    self.lens[shard][usize::from(slot)] += self.rng.below(5);
                }
            }
            let count = self.rng.below(4);
            if count > 0 {
                self.append(shard, count);
            }
            let held = self.replicas[shard].store().len(Slot::new(own)).get();
            self.lens[shard][usize::from(own)] = held;
            self.report(shard);
        }
    }

    fn append(&mut self, shard: usize, count: u64) {
        let session = SessionNo::new(self.generations[shard] as u32);
        let first = self.seqs[shard];
        let mut records = Vec::new();
        for seq in first..first + count {
            let payload = seq.to_le_bytes();
            let at = records.len();
            records.resize(at + encoded_bytes(payload.len()), 0);
            emit_unplaced(
                &mut records[at..],
                CLIENT,
                session,
                ClientSeq::new(seq),
                &payload,
            )
            .unwrap();
        }
        self.seqs[shard] += count;
        let append = Append {
            log: LOG,
            segment: SegmentId {
                shard: ShardId::new(shard as u32),
                slot: Slot::new(self.own[shard]),
            },
            generation: ViewId::new(self.generations[shard]),
            client: CLIENT,
            session,
            floor: ClientSeq::ZERO,
            first_seq: ClientSeq::new(first),
            count: count as u32,
        };
        self.grants(shard);
        self.hand_over(To::Replica(shard, 2), &bytes(&append, &records));
    }

    /// The peers that are not there have room for everything.
    fn grants(&mut self, shard: usize) {
        let own = Slot::new(self.own[shard]);
        let grant = Grant {
            segment: SegmentId {
                shard: ShardId::new(shard as u32),
                slot: own,
            },
            generation: ViewId::new(self.generations[shard]),
            len: self.replicas[shard].store().len(own),
            credit: u64::MAX,
        };
        for slot in (0..self.lens[shard].len() as u8).filter(|slot| *slot != own.get()) {
            let conn = 3 + u32::from(slot);
            let greeting = hello(Role::Replica, 9, inc_of(shard, slot), shard as u32, slot);
            self.hand_over(To::Replica(shard, conn), &greeting);
            self.hand_over(To::Replica(shard, conn), &bytes(&grant, &[]));
            // What else peers say to each other is not for this test.
            self.replicas[shard].closed(self.now, ConnId::new(conn));
        }
    }

    fn report(&mut self, shard: usize) {
        let mut tail = Vec::new();
        for len in &self.lens[shard] {
            tail.extend_from_slice(&len.to_le_bytes());
        }
        self.report_seq += 1;
        for slot in 0..self.slots {
            let report = Report {
                shard: ShardId::new(shard as u32),
                epoch: ViewId::new(self.epochs[shard]),
                inc: Inc::new(inc_of(shard, slot)),
                seq: self.report_seq,
                applied: EntryNo::ZERO,
                segments: self.slots,
            };
            let conn = 10 + shard as u32 * 8 + u32::from(slot);
            self.queue
                .push_back((To::Leaf(conn), bytes(&report, &tail)));
        }
    }

    /// Some made-up member's generation closes, and the next one opens.
    fn close_one(&mut self) {
        let shard = self.rng.below(self.own.len() as u64) as usize;
        let slot = self.rng.below(u64::from(self.slots)) as u8;
        if slot == self.own[shard] {
            return;
        }
        let segment = SegmentId {
            shard: ShardId::new(shard as u32),
            slot: Slot::new(slot),
        };
        let state = &self.reference.shards[&(shard as u32)].segments[usize::from(slot)];
        let generation = ViewId::new(state.generation);
        self.view += 1;
        self.intent(|writer| {
            let change = Change::Close {
                segment,
                generation,
                len: Lsn::ZERO,
                writer: Some(Inc::new(inc_of(shard, slot))),
                node: NodeId::new(9),
                domain: u32::from(slot),
            };
            write_change(writer, &change).unwrap();
        });
        self.epochs[shard] = self.view;
        self.settle(0);
        // What it held above its close is void.
        let committed = self.reference.shards[&(shard as u32)].segments[usize::from(slot)].len;
        self.lens[shard][usize::from(slot)] = committed;
    }

    /// The root's answer names the place of a position.
    fn located(&mut self, bytes: &[u8]) {
        let Message::LocateAnswer(answer, _) = message(bytes) else {
            return;
        };
        assert_eq!(answer.status, LocateStatus::Found);
        for gsn in answer.from.get()..answer.to.get() {
            let rec = &self.reference.recs[&gsn];
            let position = answer.position.get() + (gsn - answer.from.get());
            assert_eq!(
                (rec.shard, rec.slot, rec.generation, rec.position, rec.entry),
                (
                    answer.segment.shard.get(),
                    answer.segment.slot.get(),
                    answer.generation.get(),
                    position,
                    answer.entry.get()
                )
            );
        }
        self.checks += 1;
    }

    /// A replica's ack or record is where the reference has it.
    fn answered(&mut self, shard: usize, bytes: &[u8]) {
        let own = self.own[shard];
        match message(bytes) {
            Message::AppendAck(ack, _) => {
                for offset in 0..u64::from(ack.count) {
                    let rec = &self.reference.recs[&(ack.first_gsn.get() + offset)];
                    assert_eq!(
                        (rec.shard, rec.slot, rec.position, rec.entry),
                        (
                            shard as u32,
                            own,
                            ack.first_position.get() + offset,
                            ack.entry.get()
                        )
                    );
                    // Own records are appended densely from seq 0, so that the sequence number is the position.
                    assert_eq!(rec.position, ack.first_seq.get() + offset);
                    self.checks += 1;
                }
            }
            Message::ReadAnswer(answer, record) if answer.status == ReadStatus::Record => {
                let header = ionian_wire::record::parse_header(record).unwrap();
                let rec = &self.reference.recs[&answer.gsn.get()];
                assert_eq!(
                    (rec.shard, rec.slot, rec.position),
                    (shard as u32, own, header.position.get())
                );
                self.checks += 1;
            }
            Message::ReadAnswer(answer, _) => {
                let rec = &self.reference.recs[&answer.gsn.get()];
                let held = rec.shard == shard as u32 && rec.slot == own;
                assert!(!held, "{answer:?}, the entries say {rec:?}");
            }
            Message::AppendRefused(refused, _) => panic!("{refused:?}"),
            _ => {}
        }
    }

    fn ask(&mut self) {
        let end = self.reference.end;
        for _ in 0..4 {
            let gsn = Gsn::new(self.rng.below(end));
            let locate = Locate {
                log: LOG,
                request: 1,
                gsn,
            };
            if end == 0 {
                return;
            }
            self.hand_over(To::Root(2), &bytes(&locate, &[]));
            let shard = self.rng.below(self.own.len() as u64) as usize;
            let read = Read {
                log: LOG,
                shard: ShardId::new(shard as u32),
                request: 2,
                gsn,
                entry: EntryNo::ZERO,
            };
            self.hand_over(To::Replica(shard, 2), &bytes(&read, &[]));
        }
    }
}

#[test]
fn every_answer_is_the_function_of_the_entries() {
    let (mut checks, mut cuts) = (0, 0);
    for seed in 0..CASES {
        let case = std::panic::catch_unwind(|| {
            let mut desk = Desk::new(seed);
            for _ in 0..desk.rng.range(1, 6) {
                desk.grow();
                let lost = desk.rng.pick(&[0, 0, 300]);
                desk.settle(lost);
                if desk.rng.permille(200) {
                    desk.close_one();
                }
                desk.ask();
            }
            (desk.checks, desk.reference.parts.len())
        });
        let Ok((asked, entries)) = case else {
            panic!("case {seed}");
        };
        checks += asked;
        cuts += entries;
    }
    assert!(
        checks > 20 * CASES && cuts > CASES as usize,
        "{checks} answers, {cuts} cuts"
    );
}

/// Lengths whose sum is beyond any position made the root encode a cut that it then could not read, and ended it; the
/// same in a leaf's word to a replica made its positions run over.
#[test]
fn lengths_beyond_every_position_stop_the_order_and_nothing_else() {
    for seed in 0..20 {
        let mut desk = Desk::new(seed);
        let before = desk.reference.last;
        let cut = DownShard {
            log: LOG,
            shard: ShardId::new(0),
            epoch: ViewId::new(desk.epochs[0]),
            entry: EntryNo::new(before + 1),
            prev_entry: desk.replicas[0].status(desk.now).applied,
            base: Gsn::new(u64::MAX - 1),
            end_gsn: Gsn::MAX,
            segments: desk.slots,
        };
        let tail: Vec<u8> = (0..desk.slots)
            .flat_map(|_| [1, u64::MAX / 2])
            .flat_map(u64::to_le_bytes)
            .collect();
        desk.hand_over(To::Replica(0, 1), &bytes(&cut, &tail));
        assert_eq!(desk.replicas[0].status(desk.now).counters.contradictions, 1);
        for shard in 0..desk.own.len() {
            desk.lens[shard].fill(u64::MAX - 1);
            desk.report(shard);
        }
        while let Some((to, bytes)) = desk.queue.pop_front() {
            desk.hand_over(to, &bytes);
        }
        for _ in 0..3 {
            desk.now = desk.now.after(Nanos::from_ms(25));
            desk.leaf.flush(desk.now, &mut desk.out);
            desk.collect(Some(usize::MAX), 0);
            while let Some((to, bytes)) = desk.queue.pop_front() {
                desk.hand_over(to, &bytes);
            }
            desk.root.flush(desk.now, &mut desk.out);
            desk.collect(None, 0);
        }
        let seen = desk.root.status();
        // A sum beyond any number is refused with its round; one beyond the log's ceiling is not cut.
        let refused = seen.counters.refused_rounds + seen.counters.held_back;
        assert!(refused > 0, "the root saw them");
        assert_eq!(seen.commit.get(), before);
    }
}
