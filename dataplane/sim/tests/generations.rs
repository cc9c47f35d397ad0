//! Generations: a replica that sleeps through views, gets old messages late and copies from a peer never holds, reports or
//! serves a record in a generation that does not own its position. 10,000 cases against a model that knows every life of
//! the other replica.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{CLUSTER, LOG, bytes, drain, hello, message, outbox, store};
use ionian_core::cutlog::ShardState;
use ionian_core::outbox::Outbox;
use ionian_core::replica::{Replica, ReplicaConfig};
use ionian_sim::rng::Rng;
use ionian_types::{
    ClientId, ClientSeq, ConnId, Durability, EntryNo, Gsn, GuardEpoch, Inc, Lsn, Nanos, NodeId,
    NsEpoch, RootEpoch, SegmentId, SessionNo, ShardId, Slot, Time, ViewId,
};
use ionian_wire::entry::{
    Change, EntryStart, EntryView, EntryWriter, Row, RowItem, encode_members, write_change,
};
use ionian_wire::frame::{CopyData, Entries, Member, Message, Replicate, Role};
use ionian_wire::record::{
    Placement, RECORD_HEADER_BYTES, emit_unplaced, encoded_bytes, parse_header,
};
use ionian_wire::{Reader, Writer};

const CASES: u64 = 10_000;
const SHARD: ShardId = ShardId::ZERO;
/// The segment whose lives the case makes up, and the replica under test.
const THEIRS: SegmentId = SegmentId {
    shard: SHARD,
    slot: Slot::ZERO,
};
const OWN: Slot = Slot::new(1);

/// One life of the other replica.
#[derive(Clone, Debug)]
struct Life {
    generation: u64,
    inc: u64,
    /// What it holds: per position the generation in which it was written.
    held: Vec<u64>,
}

struct Desk {
    rng: Rng,
    now: Time,
    out: Outbox,
    replica: Replica,
    lives: Vec<Life>,
    /// The generation that owns each committed position.
    committed: Vec<u64>,
    view: u64,
    /// What every entry says of the shard, encoded; and the view of the shard after it.
    entries: Vec<(Vec<u8>, u64)>,
    crc: u32,
    gsn: u64,
    /// Messages of earlier lives, to come late: the life's incarnation and the bytes.
    late: Vec<(u64, Vec<u8>)>,
    connected: u64,
    reported: u64,
    held_checks: u64,
}

/// A sealed record: what it holds follows from its position and generation.
fn record(position: u64, generation: u64) -> Vec<u8> {
    let payload = (position * 1000 + generation).to_le_bytes();
    let mut bytes = vec![0; encoded_bytes(payload.len())];
    let session = SessionNo::new(generation as u32);
    emit_unplaced(
        &mut bytes,
        ClientId::new(1),
        session,
        ClientSeq::new(position),
        &payload,
    )
    .unwrap();
    let place = Placement {
        log: LOG,
        segment: THEIRS,
        ns_epoch: NsEpoch::ZERO,
        generation: ViewId::new(generation),
        position: Lsn::new(position),
        guard: GuardEpoch::new(1),
    };
    place.seal(&mut bytes[..RECORD_HEADER_BYTES]);
    bytes
}

impl Desk {
    fn new(seed: u64) -> Self {
        let now = Time::from_ns(1_000_000);
        let mut config =
            ReplicaConfig::new(CLUSTER, NodeId::new(9), Inc::new(1), LOG, SHARD, OWN, 2);
        config.cuts_ready = 1;
        config.timing.missing = Nanos(u64::MAX);
        let mut desk = Self {
            rng: Rng::stream(seed, "generations"),
            now,
            out: outbox(),
            replica: Replica::new(config, store(SHARD, 2), now),
            lives: Vec::new(),
            committed: Vec::new(),
            view: 0,
            entries: Vec::new(),
            crc: 0,
            gsn: 0,
            late: Vec::new(),
            connected: 0,
            reported: 0,
            held_checks: 0,
        };
        desk.hand_over(0, &hello(Role::Root, 2, 1, 0, 0));
        desk.hand_over(1, &hello(Role::Leaf, 3, 2, 0, 0));
        desk.open();
        desk
    }

    fn start(&self) -> EntryStart {
        EntryStart {
            entry: EntryNo::new(self.entries.len() as u64 + 1),
            epoch: RootEpoch::new(1),
            prev_crc: self.crc,
        }
    }

    fn log(&mut self, encoded: &[u8]) {
        self.crc = EntryView::new_checked(encoded).unwrap().header.crc;
        self.entries.push((encoded.to_vec(), self.view));
    }

    fn log_view(&mut self, change: &Change<'_>) {
        self.view += 1;
        let mut changes = [0; 512];
        let mut writer = Writer::new(&mut changes);
        write_change(&mut writer, change).unwrap();
        let len = writer.len();
        let mut out = [0; 1024];
        let (view, gsn) = (ViewId::new(self.view), Gsn::new(self.gsn));
        let len = EntryWriter::view(&mut out, &self.start(), view, gsn, &changes[..len]).unwrap();
        self.log(&out[..len]);
    }

    fn open(&mut self) {
        let member = |inc| Member {
            node: NodeId::new(9),
            inc: Inc::new(inc),
            domain: 0,
        };
        let mut encoded = [0; 64];
        let members = encode_members(&mut encoded, &[member(100), member(1)]).unwrap();
        self.log_view(&Change::Open {
            shard: SHARD,
            rank: 0,
            log: LOG,
            class: Durability::D0,
            quorum: 2,
            members,
        });
        self.lives.push(Life {
            generation: 1,
            inc: 100,
            held: Vec::new(),
        });
    }

    fn life(&self) -> &Life {
        self.lives.last().unwrap()
    }

    /// The other replica dies; the next life holds the committed prefix and writes in a new generation.
    fn restart(&mut self) {
        let inc = self.life().inc + 1;
        self.log_view(&Change::Close {
            segment: THEIRS,
            generation: ViewId::new(self.life().generation),
            len: Lsn::new(self.committed.len() as u64),
            writer: Some(Inc::new(inc)),
            node: NodeId::new(9),
            domain: 0,
        });
        self.lives.push(Life {
            generation: self.view,
            inc,
            held: self.committed.clone(),
        });
    }

    /// The present life takes appends, and sends some of what it holds; some messages stay on the way.
    fn write(&mut self) {
        let count = self.rng.below(5);
        let generation = self.life().generation;
        let life = self.lives.last_mut().unwrap();
        life.held.extend((0..count).map(|_| generation));
        let held = life.held.len() as u64;
        let opened = life.held.iter().position(|own| *own == generation);
        let Some(opened) = opened.map(|at| at as u64) else {
            return;
        };
        let from = self.rng.range(opened, held);
        let to = self.rng.range(from + 1, held + 1);
        let mut records = Vec::new();
        for position in from..to {
            records.extend(record(position, generation));
        }
        let body = Replicate {
            log: LOG,
            segment: THEIRS,
            generation: ViewId::new(generation),
            from: Lsn::new(from),
            count: (to - from) as u32,
        };
        let bytes = bytes(&body, &records);
        let inc = self.life().inc;
        if self.rng.permille(400) {
            self.late.push((inc, bytes));
        } else {
            self.receive(inc, &bytes);
        }
    }

    /// A message of a life reaches the replica, over a connection of that life.
    fn receive(&mut self, inc: u64, bytes: &[u8]) {
        if self.connected != inc {
            self.replica.closed(self.now, ConnId::new(2));
            self.connected = inc;
            self.hand_over(2, &hello(Role::Replica, 9, inc, 0, 0));
            if self.replica.take_close().is_some() {
                // A past life: the edge hangs up, and nothing of it comes through.
                self.replica.closed(self.now, ConnId::new(2));
                self.connected = 0;
                return;
            }
        }
        self.hand_over(2, bytes);
    }

    /// A cut commits what the present life and this replica both hold, as far as both have entered the last view: the
    /// leaf counts no other reports.
    fn cut(&mut self) {
        let entered = self.replica.status(self.now).epoch.get() == self.view;
        let both =
            (self.replica.store().len(Slot::ZERO).get() as usize).min(self.life().held.len());
        if !entered || both <= self.committed.len() {
            return;
        }
        let to = self
            .rng
            .range(self.committed.len() as u64 + 1, both as u64 + 1);
        let prev = self.committed.len() as u64;
        let end = self.gsn + (to - prev);
        let mut out = [0; Row::BYTES_MAX];
        let mut writer = Writer::new(&mut out);
        let item = RowItem {
            slot: THEIRS.slot,
            generation: ViewId::new(self.life().generation),
            prev_len: Lsn::new(prev),
            new_len: Lsn::new(to),
        };
        let (entry, base) = (self.start().entry, Gsn::new(self.gsn));
        Row::write(&mut writer, entry, base, Gsn::new(end), &[item]).unwrap();
        let row = writer.written().to_vec();
        self.gsn = end;
        self.committed = self.life().held[..to as usize].to_vec();
        self.entries.push((row, self.view));
    }

    /// Some of the entries that the replica has not applied.
    fn deliver(&mut self) {
        let applied = self.replica.status(self.now).applied.get();
        let through = self.rng.range(applied, self.entries.len() as u64 + 1);
        let after = self.rng.range(0, applied + 1);
        let mut tail = Vec::new();
        for (entry, _) in &self.entries[after as usize..through as usize] {
            tail.extend(entry);
        }
        let body = Entries {
            log: LOG,
            shard: SHARD,
            after: EntryNo::new(after),
            through: EntryNo::new(through.max(after)),
            count: through.saturating_sub(after) as u32,
            end_gsn: Gsn::new(self.gsn),
            trim: Gsn::ZERO,
        };
        self.hand_over(0, &bytes(&body, &tail));
    }

    fn hand_over(&mut self, conn: u32, bytes: &[u8]) {
        let conn = ConnId::new(conn);
        self.replica
            .handle(self.now, conn, &message(bytes), &mut self.out);
        self.settle();
    }

    /// Lets the replica run; answers copy requests truthfully, checks what it reports and holds.
    fn settle(&mut self) {
        self.now = self.now.after(Nanos::from_ms(25));
        for _ in 0..8 {
            self.replica.flush(self.now, &mut self.out);
            let sent = drain(&mut self.out, Some(self.replica.store()));
            let mut answers = Vec::new();
            for (_, bytes) in sent {
                match message(&bytes) {
                    Message::Report(report, tail) => {
                        self.reported += 1;
                        assert_eq!(report.epoch, self.replica.status(self.now).epoch);
                        let mut reader = Reader::new(tail);
                        let len: Lsn = reader.field().unwrap();
                        assert_eq!(len, self.replica.store().len(Slot::ZERO));
                    }
                    Message::CopyRequest(request, _) if request.segment == THEIRS => {
                        answers.extend(self.copy(&request));
                    }
                    _ => {}
                }
            }
            self.check();
            if answers.is_empty() {
                return;
            }
            for answer in answers {
                self.replica
                    .handle(self.now, ConnId::new(2), &message(&answer), &mut self.out);
            }
            self.now = self.now.after(Nanos::from_ms(25));
        }
    }

    /// What the present life answers: only in the last view, committed positions, by owning generations.
    fn copy(&mut self, request: &ionian_wire::frame::CopyRequest) -> Option<Vec<u8>> {
        if request.epoch.get() != self.view || self.connected != self.life().inc {
            return None;
        }
        let to = request.to.get().min(self.committed.len() as u64);
        let mut records = Vec::new();
        for position in request.from.get()..to {
            records.extend(record(position, self.committed[position as usize]));
        }
        let body = CopyData {
            segment: THEIRS,
            epoch: request.epoch,
            from: request.from,
            count: to.saturating_sub(request.from.get()) as u32,
        };
        Some(bytes(&body, &records))
    }

    /// The rule: in the view entered, every record held is of the generation that owns its position there.
    fn check(&mut self) {
        let Some(state) = self.replica.shard_state().cloned() else {
            return;
        };
        self.owners_agree(&state);
        let segment = &state.segments[0];
        let held = self.replica.store().len(Slot::ZERO).get();
        for position in 0..held {
            let from = Lsn::new(position);
            let to = Lsn::new(position + 1);
            let store = self.replica.store_mut();
            let ionian_store::Fetch::Ready(run) = store.run(Slot::ZERO, from, to, usize::MAX)
            else {
                panic!("position {position} of {held} is not there");
            };
            let bytes = store.bytes(&run);
            let generation = parse_header(bytes).unwrap().generation;
            assert_eq!(
                generation,
                segment.owner(from),
                "position {position} of {held} in {segment:?}"
            );
            assert_eq!(bytes, record(position, generation.get()));
            self.held_checks += 1;
        }
    }

    /// The shipped rule of ownership agrees with the model on everything committed by then.
    fn owners_agree(&self, state: &ShardState) {
        let segment = &state.segments[0];
        for position in 0..segment.len.get() {
            assert_eq!(
                segment.owner(Lsn::new(position)).get(),
                self.committed[position as usize],
                "the owner of {position} in {segment:?}"
            );
        }
    }

    fn late_message(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let at = self.rng.below(self.late.len() as u64) as usize;
        let (inc, bytes) = self.late.swap_remove(at);
        self.receive(inc, &bytes);
    }

    /// Everything arrives in the end, and the replica holds the whole committed prefix.
    fn finish(&mut self) {
        let life = self.life().inc;
        for _ in 0..4 {
            let greeting = hello(Role::Replica, 9, life, 0, 0);
            self.replica.closed(self.now, ConnId::new(2));
            self.connected = life;
            self.hand_over(2, &greeting);
            let applied = self.replica.status(self.now).applied.get();
            let mut tail = Vec::new();
            for (entry, _) in &self.entries[applied as usize..] {
                tail.extend(entry);
            }
            let body = Entries {
                log: LOG,
                shard: SHARD,
                after: EntryNo::new(applied),
                through: EntryNo::new(self.entries.len() as u64),
                count: (self.entries.len() as u64 - applied) as u32,
                end_gsn: Gsn::new(self.gsn),
                trim: Gsn::ZERO,
            };
            self.hand_over(0, &bytes(&body, &tail));
        }
        let status = self.replica.status(self.now);
        assert_eq!(status.applied.get(), self.entries.len() as u64);
        assert!(
            status.lens[0].0.get() >= self.committed.len() as u64,
            "{status:?}"
        );
        assert_eq!(status.counters.contradictions, 0, "{status:?}");
    }
}

#[test]
fn a_replica_holds_only_what_its_generation_owns() {
    let (mut held, mut views, mut reported) = (0, 0, 0);
    for seed in 0..CASES {
        let case = std::panic::catch_unwind(|| {
            let mut desk = Desk::new(seed);
            for _ in 0..desk.rng.range(5, 60) {
                match desk.rng.below(16) {
                    0 => desk.restart(),
                    1..=5 => desk.write(),
                    6..=8 => desk.cut(),
                    9..=13 => desk.deliver(),
                    14 => desk.late_message(),
                    _ => desk.settle(),
                }
            }
            desk.finish();
            (desk.held_checks, desk.view, desk.reported)
        });
        let Ok(case) = case else {
            panic!("case {seed}");
        };
        held += case.0;
        views += case.1;
        reported += case.2;
    }
    assert!(
        held > 30 * CASES && views > 2 * CASES && reported > 5 * CASES,
        "{held} records looked at, {views} views, {reported} reports"
    );
}

/// While the tree changes a replica has two leaves, and does not know which of them has its shard: it tells both, and one that is
/// gone takes nothing with it.
#[test]
fn a_replica_reports_to_the_leaf_of_each_tree() {
    let mut desk = Desk::new(1);
    let mut tail = Vec::new();
    for (entry, _) in &desk.entries {
        tail.extend(entry);
    }
    let body = Entries {
        log: LOG,
        shard: SHARD,
        after: EntryNo::ZERO,
        through: EntryNo::new(desk.entries.len() as u64),
        count: desk.entries.len() as u32,
        end_gsn: Gsn::ZERO,
        trim: Gsn::ZERO,
    };
    desk.hand_over(0, &bytes(&body, &tail));
    let told = |desk: &mut Desk| -> Vec<u32> {
        desk.now = desk.now.after(Nanos::from_ms(25));
        desk.replica.flush(desk.now, &mut desk.out);
        let sent = drain(&mut desk.out, Some(desk.replica.store())).into_iter();
        let reports = sent.filter(|(_, bytes)| matches!(message(bytes), Message::Report(..)));
        reports.map(|(conn, _)| conn.get()).collect()
    };
    assert_eq!(told(&mut desk), [1]);
    desk.hand_over(5, &hello(Role::Leaf, 4, 7, 0, 0));
    assert_eq!(desk.replica.take_close(), None);
    assert_eq!(told(&mut desk), [1, 5]);
    // The same process again: the connection of before is given up.
    desk.hand_over(6, &hello(Role::Leaf, 4, 7, 0, 0));
    assert_eq!(desk.replica.take_close(), Some(ConnId::new(5)));
    assert_eq!(told(&mut desk), [1, 6]);
    desk.replica.closed(desk.now, ConnId::new(1));
    assert_eq!(told(&mut desk), [6]);
}
