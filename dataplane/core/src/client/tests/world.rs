//! A random world for appends: servers that acknowledge, refuse, forget, close, repeat and lose connections.
//!
//! The servers keep the rules of ORDERING.md and nothing more. Checked in every world: each ticket completes exactly once,
//! in the order of its lane, with the position that a server gave to its very payload; no payload is ordered twice, which
//! is what binding it elsewhere before `never` would bring about; what was given up without effect is never ordered; and
//! after the faults end, every ticket completes and a fresh append goes through.

use alloc::collections::{BTreeMap, VecDeque};

use super::*;
use ionian_wire::frame::{
    AppendAck, AppendRefused, FateAnswer, FateOutcome, RefusalReason, SessionClosed,
};
use ionian_wire::record::Records;
use proptest::prelude::*;

const SHARDS: u32 = 2;
const SLOTS: u8 = 2;

/// What the servers know of one session: the truth, shared by all replicas.
#[derive(Default)]
struct Session {
    /// The place of each record taken, by sequence number; `None` while it is pending, or for ever if it was void.
    taken: BTreeMap<u64, Option<(u64, u64)>>,
    tombstoned: bool,
}

struct Segment {
    /// The open generation, 0 when closed.
    generation: u64,
    /// Records taken and not ordered: (session, sequence number).
    pending: VecDeque<(u32, u64)>,
    /// The payload of each pending record.
    len: u64,
}

struct World {
    bench: Bench,
    dice: Dice,
    segments: BTreeMap<(u32, u8), Segment>,
    sessions: BTreeMap<(u32, u8, u64, u32), Session>,
    payloads: BTreeMap<(u32, u8, u64, u32, u64), Vec<u8>>,
    up: BTreeMap<PeerKind, bool>,
    /// Messages on their way to the servers and back.
    to_server: BTreeMap<PeerKind, VecDeque<Sent>>,
    to_client: BTreeMap<PeerKind, VecDeque<Vec<u8>>>,
    map_version: u64,
    next_generation: u64,
    /// What lies at each position.
    log: Vec<Vec<u8>>,
    /// What was appended under each ticket.
    tickets: BTreeMap<Ticket, Vec<u8>>,
    /// The next ticket to complete, by lane.
    next: BTreeMap<u32, u64>,
    completed: usize,
    /// What was given up with the promise that it has no effect.
    without_effect: Vec<Vec<u8>>,
    faults: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let config = ClientConfig {
            seed: dice.next(),
            append_timeout: dice
                .chance(50)
                .then(|| Nanos::from_us(100 << dice.below(14))),
            append_bytes_max: 128 << dice.below(5),
            window: 1 << (1 + dice.below(6)),
            ..config()
        };
        let mut bench = Bench::new(config);
        let mut up = BTreeMap::new();
        let mut segments = BTreeMap::new();
        for shard in 0..SHARDS {
            for slot in 0..SLOTS {
                up.insert(replica(shard, slot), false);
                let segment = Segment {
                    generation: 1,
                    pending: VecDeque::new(),
                    len: 0,
                };
                segments.insert((shard, slot), segment);
            }
        }
        bench.client.set_policy(match dice.below(3) {
            0 => Policy::Spread,
            1 => Policy::ByKey(|payload| u64::from(payload[0])),
            _ => Policy::Sticky,
        });
        let mut world = Self {
            bench,
            dice,
            segments,
            sessions: BTreeMap::new(),
            payloads: BTreeMap::new(),
            up,
            to_server: BTreeMap::new(),
            to_client: BTreeMap::new(),
            map_version: 0,
            next_generation: 2,
            log: Vec::new(),
            tickets: BTreeMap::new(),
            next: BTreeMap::new(),
            completed: 0,
            without_effect: Vec::new(),
            faults: true,
        };
        world.send_map();
        world
    }

    fn send_map(&mut self) {
        self.map_version += 1;
        let row = |shard: u32| -> Vec<u64> {
            (0..SLOTS)
                .map(|slot| self.segments[&(shard, slot)].generation)
                .collect()
        };
        let rows: Vec<Vec<u64>> = (0..SHARDS).map(row).collect();
        let rows: Vec<&[u64]> = rows.iter().map(Vec::as_slice).collect();
        self.bench
            .client
            .set_map(self.bench.now, &map(self.map_version, &rows));
    }

    fn random_peer(&mut self) -> PeerKind {
        let shard = self.dice.below(SHARDS as usize) as u32;
        replica(shard, self.dice.below(usize::from(SLOTS)) as u8)
    }

    fn append(&mut self) {
        let unique = self.tickets.len() as u64;
        let mut payload = vec![self.dice.below(4) as u8];
        payload.extend(unique.to_le_bytes());
        payload.resize(9 + self.dice.below(200), 0);
        let choice = match self.dice.below(5) {
            0 => Choice::Shard(ShardId::new(self.dice.below(SHARDS as usize) as u32)),
            _ => Choice::Policy,
        };
        if let Ok(ticket) = self.bench.client.append(self.bench.now, &payload, choice) {
            assert!(
                self.tickets.insert(ticket, payload).is_none(),
                "tickets are unique"
            );
        }
    }

    /// Carries what the client sends to the queues of the connections.
    fn flush(&mut self) {
        self.bench.room = if self.faults {
            crate::outbox::REPLY_BYTES_MAX + self.dice.below(2_000)
        } else {
            ROOM
        };
        for sent in self.bench.flush() {
            let peer = *self
                .up
                .keys()
                .find(|peer| conn(**peer) == sent.conn)
                .expect("a known peer");
            assert!(
                self.up[&peer],
                "nothing is sent on a connection that is gone"
            );
            self.to_server.entry(peer).or_default().push_back(sent);
        }
    }

    fn disconnect(&mut self, peer: PeerKind) {
        if self.up.insert(peer, false) == Some(true) {
            self.to_server.remove(&peer);
            self.to_client.remove(&peer);
            self.bench.disconnect(peer);
        }
    }

    fn connect(&mut self, peer: PeerKind) {
        if self.up.insert(peer, true) == Some(false) {
            self.bench.room = ROOM;
            self.bench.connect(peer);
        }
    }

    fn reply<B: Body>(&mut self, peer: PeerKind, body: &B) {
        if self.up[&peer] {
            let mut bytes = vec![0; 256];
            let len = frame::encode(&mut bytes, body, &[]).unwrap();
            bytes.truncate(len);
            let queue = self.to_client.entry(peer).or_default();
            queue.push_back(bytes);
        }
    }

    /// One message reaches a server.
    fn serve(&mut self, peer: PeerKind) {
        let Some(sent) = self.to_server.get_mut(&peer).and_then(VecDeque::pop_front) else {
            return;
        };
        match sent.message() {
            Message::Append(append, records) => self.take(peer, &append, records),
            Message::Fate(fate, _) => self.fate(peer, &fate),
            Message::CloseSession(close, _) => {
                let at = (close.segment.shard.get(), close.segment.slot.get());
                let known = self.segments[&at].generation == close.generation.get();
                let key = (at.0, at.1, close.generation.get(), close.session.get());
                let mut next_seq = 0;
                if known {
                    let session = self.sessions.entry(key).or_default();
                    session.tombstoned = true;
                    next_seq = session.taken.keys().next_back().map_or(0, |seq| seq + 1);
                }
                let answer = SessionClosed {
                    segment: close.segment,
                    generation: close.generation,
                    session: close.session,
                    next_seq: ClientSeq::new(next_seq),
                    known,
                };
                self.reply(peer, &answer);
            }
            other => panic!("a replica is not sent {}", other.name()),
        }
    }

    fn take(&mut self, peer: PeerKind, append: &frame::Append, records: &[u8]) {
        let at = (append.segment.shard.get(), append.segment.slot.get());
        let key = (at.0, at.1, append.generation.get(), append.session.get());
        let refuse = |from: u64, reason| AppendRefused {
            segment: append.segment,
            generation: append.generation,
            session: append.session,
            first_seq: ClientSeq::new(from),
            count: (append.first_seq.get() + u64::from(append.count) - from) as u32,
            reason,
            node: NodeId::ZERO,
        };
        let first = append.first_seq.get();
        if self.segments[&at].generation != append.generation.get() {
            let answer = refuse(first, RefusalReason::Closed);
            return self.reply(peer, &answer);
        }
        if self.sessions.entry(key).or_default().tombstoned {
            let answer = refuse(first, RefusalReason::SessionClosed);
            return self.reply(peer, &answer);
        }
        let views: Vec<_> = Records::unplaced(records).map(Result::unwrap).collect();
        assert_eq!(views.len(), append.count as usize);
        for (i, view) in views.iter().enumerate() {
            let seq = first + i as u64;
            assert_eq!(
                (view.header().seq.get(), view.header().session),
                (seq, append.session)
            );
            let payload = view.payload().to_vec();
            let taken = &self.sessions[&key].taken;
            let next = taken.keys().next_back().map_or(0, |seq| seq + 1);
            if let Some(place) = taken.get(&seq).copied() {
                let before = &self.payloads[&(
                    at.0,
                    at.1,
                    append.generation.get(),
                    append.session.get(),
                    seq,
                )];
                assert_eq!(
                    before, &payload,
                    "a number is never used for another record"
                );
                if let Some((gsn, position)) = place {
                    self.ack(peer, key, seq, 1, gsn, position);
                }
                continue;
            }
            let busy = self.faults && self.dice.chance(10);
            if seq > next || busy {
                let reasons = [
                    RefusalReason::Busy,
                    RefusalReason::NotReady,
                    RefusalReason::StoreFull,
                    RefusalReason::ReplicaMissing,
                ];
                let answer = refuse(seq, reasons[self.dice.below(4)]);
                return self.reply(peer, &answer);
            }
            self.sessions.get_mut(&key).unwrap().taken.insert(seq, None);
            self.payloads
                .insert((key.0, key.1, key.2, key.3, seq), payload);
            let segment = self.segments.get_mut(&at).unwrap();
            segment.pending.push_back((append.session.get(), seq));
        }
    }

    fn ack(
        &mut self,
        peer: PeerKind,
        key: (u32, u8, u64, u32),
        first_seq: u64,
        count: u32,
        gsn: u64,
        position: u64,
    ) {
        let ack = AppendAck {
            log: LOG,
            segment: segment(key.0, key.1),
            generation: ViewId::new(key.2),
            session: SessionNo::new(key.3),
            first_seq: ClientSeq::new(first_seq),
            count,
            ns_epoch: NsEpoch::ZERO,
            first_gsn: Gsn::new(gsn),
            entry: EntryNo::new(1),
            first_position: Lsn::new(position),
            class: Durability::D1,
        };
        self.reply(peer, &ack);
        if self.faults && self.dice.chance(5) {
            self.reply(peer, &ack);
        }
    }

    /// Orders some of what a segment holds, and acknowledges it in runs.
    fn order(&mut self, peer: PeerKind, count: usize) {
        let PeerKind::Replica { shard, slot } = peer else {
            return;
        };
        let at = (shard.get(), slot.get());
        for _ in 0..count {
            let segment = self.segments.get_mut(&at).unwrap();
            let Some((session, seq)) = segment.pending.pop_front() else {
                return;
            };
            let position = segment.len;
            segment.len += 1;
            let key = (at.0, at.1, segment.generation, session);
            let gsn = self.log.len() as u64;
            self.log
                .push(self.payloads[&(key.0, key.1, key.2, key.3, seq)].clone());
            let place = self
                .sessions
                .get_mut(&key)
                .unwrap()
                .taken
                .get_mut(&seq)
                .unwrap();
            *place = Some((gsn, position));
            // A server may lose an answer with its memory of who waits; the client asks again.
            if !(self.faults && self.dice.chance(5)) {
                self.ack(peer, key, seq, 1, gsn, position);
            }
        }
    }

    /// Closes a generation at a length and opens the next, or none.
    fn close(&mut self, peer: PeerKind) {
        let PeerKind::Replica { shard, slot } = peer else {
            return;
        };
        let ordered = self.dice.below(4);
        self.order(peer, ordered);
        let segment = self.segments.get_mut(&(shard.get(), slot.get())).unwrap();
        segment.pending.clear();
        segment.generation = 0;
        if self.dice.chance(70) {
            segment.generation = self.next_generation;
            self.next_generation += 1;
        }
        if self.dice.chance(50) {
            self.send_map();
        }
    }

    fn fate(&mut self, peer: PeerKind, fate: &frame::Fate) {
        let at = (fate.segment.shard.get(), fate.segment.slot.get());
        let key = (at.0, at.1, fate.generation.get(), fate.session.get());
        let open = self.segments[&at].generation == key.2;
        let session = self.sessions.entry(key).or_default();
        let mut place = (0, 0);
        let outcome = match session.taken.get(&fate.seq.get()) {
            Some(Some(found)) => {
                place = *found;
                FateOutcome::Ordered
            }
            Some(None) if open => FateOutcome::Pending,
            Some(None) => FateOutcome::Never,
            None if session.tombstoned || !open => FateOutcome::Never,
            None => FateOutcome::Unknown,
        };
        // A replica that lags cannot tell.
        let lags = self.faults && self.dice.chance(20);
        let answer = FateAnswer {
            segment: fate.segment,
            generation: fate.generation,
            session: fate.session,
            seq: fate.seq,
            outcome: if lags { FateOutcome::Unknown } else { outcome },
            gsn: Gsn::new(place.0),
            entry: EntryNo::new(1),
            position: Lsn::new(place.1),
        };
        self.reply(peer, &answer);
    }

    /// One message reaches the client.
    fn deliver(&mut self, peer: PeerKind) {
        let Some(bytes) = self.to_client.get_mut(&peer).and_then(VecDeque::pop_front) else {
            return;
        };
        let (message, _) = Message::new_checked(&bytes).unwrap();
        self.bench
            .client
            .handle(self.bench.now, conn(peer), &message, &mut ());
    }

    fn collect(&mut self) {
        for run in self.bench.completions() {
            let next = self.next.entry(run.first.lane).or_default();
            assert_eq!(
                *next, run.first.number,
                "outcomes come in the order of the lane"
            );
            *next += u64::from(run.count);
            for i in 0..u64::from(run.count) {
                let ticket = Ticket {
                    number: run.first.number + i,
                    ..run.first
                };
                let payload = &self.tickets[&ticket];
                match run.outcome {
                    Outcome::Ordered { first_gsn, .. } => {
                        let gsn = (first_gsn.get() + i) as usize;
                        assert_eq!(&self.log[gsn], payload, "the position of its own payload");
                    }
                    Outcome::Failed { effect, .. } => {
                        assert!(self.bench.client.config().append_timeout.is_some());
                        if effect == Effect::None {
                            self.without_effect.push(payload.clone());
                        }
                    }
                }
                self.completed += 1;
            }
        }
    }

    fn step(&mut self) {
        let peer = self.random_peer();
        match self.dice.below(100) {
            0..30 => self.append(),
            30..50 => self.serve(peer),
            50..70 => self.deliver(peer),
            70..80 => {
                let count = 1 + self.dice.below(5);
                self.order(peer, count);
            }
            80..88 => {
                let span = Nanos::from_us(1 << self.dice.below(22));
                self.bench.now = self.bench.now.after(span);
                self.bench.client.on_deadline(self.bench.now);
            }
            88..91 => self.disconnect(peer),
            91..96 => self.connect(peer),
            96 => self.close(peer),
            97 => self.send_map(),
            98 => self.bench.client.move_sticky(self.bench.now),
            _ => self.collect(),
        }
        if self.dice.chance(60) {
            self.flush();
        }
    }

    /// Ends the faults and lets everything come to rest.
    fn heal(&mut self) {
        self.faults = false;
        for shard in 0..SHARDS {
            for slot in 0..SLOTS {
                self.connect(replica(shard, slot));
                let segment = self.segments.get_mut(&(shard, slot)).unwrap();
                if segment.generation == 0 {
                    segment.generation = self.next_generation;
                    self.next_generation += 1;
                }
            }
        }
        self.send_map();
        let mut fresh = false;
        for _ in 0..400 {
            self.bench.now = self.bench.now.after(Nanos::from_ms(20));
            self.bench.client.on_deadline(self.bench.now);
            self.flush();
            for shard in 0..SHARDS {
                for slot in 0..SLOTS {
                    let peer = replica(shard, slot);
                    while self
                        .to_server
                        .get(&peer)
                        .is_some_and(|queue| !queue.is_empty())
                    {
                        self.serve(peer);
                    }
                    self.order(peer, usize::MAX);
                    while self
                        .to_client
                        .get(&peer)
                        .is_some_and(|queue| !queue.is_empty())
                    {
                        self.deliver(peer);
                    }
                }
            }
            self.collect();
            if self.completed == self.tickets.len() {
                if fresh {
                    return;
                }
                // Nothing is wedged: what is appended now goes through.
                fresh = true;
                self.append();
                assert!(self.completed < self.tickets.len(), "it is taken");
                self.flush();
            }
        }
        panic!(
            "{} of {} appends never completed",
            self.tickets.len() - self.completed,
            self.tickets.len()
        );
    }
}

fn run(seed: u64, steps: usize) -> World {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step();
    }
    world.heal();
    let distinct: alloc::collections::BTreeSet<&Vec<u8>> = world.log.iter().collect();
    assert_eq!(
        distinct.len(),
        world.log.len(),
        "no record is ordered twice"
    );
    for given_up in &world.without_effect {
        assert!(!distinct.contains(given_up), "no effect is a promise");
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_append_completes_once_in_order_where_it_was_ordered(seed: u64, steps in 1usize..200) {
        run(seed, steps);
    }
}

/// The worlds do what they are for: without this, all of the above could pass on empty ones.
#[test]
fn the_worlds_have_moves_repeats_and_refusals() {
    let mut stats = ClientStats::default();
    for seed in 0..200 {
        let world = run(seed, 400);
        let found = world.bench.client.stats();
        stats.acked += found.acked;
        stats.resent += found.resent;
        stats.refusals += found.refusals;
        stats.fates += found.fates;
        stats.rebinds += found.rebinds;
        stats.failed += found.failed;
    }
    assert!(
        stats.acked > 5_000 && stats.resent > 1_000 && stats.refusals > 1_000,
        "{stats:?}"
    );
    assert!(
        stats.fates > 1_000 && stats.rebinds > 200 && stats.failed > 200,
        "{stats:?}"
    );
}
