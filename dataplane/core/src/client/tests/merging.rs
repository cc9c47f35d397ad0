//! Subscriptions: the merge rule by rule, and over random worlds of servers.

use alloc::collections::{BTreeMap, VecDeque};

use super::*;
use ionian_wire::frame::{
    Deliver, DeliverEnd, DeliverGap, EndReason, SubCredit, Subscribe, Unsubscribe,
};
use proptest::prelude::*;

/// What an application was given: positions with payloads, and gaps.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Seen {
    Record(u64, Vec<u8>),
    Gap(u64, u64, GapKind),
}

/// An application that takes `room` more deliveries.
#[derive(Default)]
struct App {
    seen: Vec<Seen>,
    room: usize,
}

impl Sink for App {
    fn records(&mut self, _: SubscriptionId, run: &RecordRun<'_>) -> u32 {
        let mut taken = 0;
        for (gsn, header, payload) in run.records().take(self.room) {
            assert_eq!(header.segment.shard, run.shard);
            self.seen.push(Seen::Record(gsn.get(), payload.to_vec()));
            taken += 1;
        }
        self.room -= taken as usize;
        taken
    }

    fn gap(&mut self, _: SubscriptionId, from: Gsn, to: Gsn, kind: GapKind) -> bool {
        if self.room > 0 {
            self.room -= 1;
            self.seen.push(Seen::Gap(from.get(), to.get(), kind));
            return true;
        }
        false
    }
}

impl App {
    fn open() -> Self {
        Self {
            room: usize::MAX / 2,
            ..Self::default()
        }
    }

    fn positions(&self) -> Vec<u64> {
        let first = |seen: &Seen| match seen {
            Seen::Record(gsn, _) | Seen::Gap(gsn, _, _) => *gsn,
        };
        self.seen.iter().map(first).collect()
    }
}

fn subscribes(sent: &[Sent]) -> Vec<(ConnId, Subscribe)> {
    let found = sent.iter().filter_map(|sent| match sent.message() {
        Message::Subscribe(subscribe, _) => Some((sent.conn, subscribe)),
        _ => None,
    });
    found.collect()
}

fn run(shard: u32, positions: core::ops::Range<u64>) -> Vec<u8> {
    let records = positions.map(|gsn| sealed(segment(shard, 0), gsn, &gsn.to_le_bytes()));
    records.flatten().collect()
}

/// A subscription from 0 over two shards of two replicas; returns each shard's connection and name.
fn subscribed() -> (Bench, SubscriptionId, [(PeerKind, u32); 2]) {
    let mut bench = Bench::connected(config(), &[&[1, 1], &[1, 1]]);
    let id = bench.client.subscribe(bench.now, Gsn::ZERO).unwrap();
    let sent = subscribes(&bench.flush());
    let find = |shard: u32| {
        let (at, subscribe) = sent
            .iter()
            .find(|sent| sent.1.shard.get() == shard)
            .unwrap();
        let peer = [replica(shard, 0), replica(shard, 1)]
            .into_iter()
            .find(|p| conn(*p) == *at);
        (peer.unwrap(), subscribe.subscription)
    };
    (bench, id, [find(0), find(1)])
}

fn deliver(
    bench: &mut Bench,
    (peer, name): (PeerKind, u32),
    shard: u32,
    positions: core::ops::Range<u64>,
    app: &mut App,
) {
    let body = Deliver {
        subscription: name,
        first_gsn: Gsn::new(positions.start),
        count: (positions.end - positions.start) as u32,
        entry: EntryNo::new(positions.end),
    };
    bench.receive_into(peer, &body, &run(shard, positions), app);
}

#[test]
fn streams_are_merged_by_the_next_position() {
    let (mut bench, id, [zero, one]) = subscribed();
    let mut app = App::open();
    deliver(&mut bench, one, 1, 2..4, &mut app);
    deliver(&mut bench, one, 1, 6..7, &mut app);
    assert!(app.seen.is_empty());
    deliver(&mut bench, zero, 0, 0..2, &mut app);
    assert_eq!(app.positions(), [0, 1, 2, 3]);
    deliver(&mut bench, zero, 0, 4..6, &mut app);
    assert_eq!(app.positions(), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(app.seen[6], Seen::Record(6, 6u64.to_le_bytes().to_vec()));
    assert_eq!(bench.client.next_gsn(id), Some(Gsn::new(7)));
}

#[test]
fn not_now_loses_nothing() {
    let (mut bench, id, [zero, one]) = subscribed();
    let mut app = App {
        room: 2,
        ..App::default()
    };
    deliver(&mut bench, zero, 0, 0..5, &mut app);
    deliver(&mut bench, one, 1, 5..6, &mut app);
    assert_eq!(app.positions(), [0, 1]);
    app.room = 2;
    bench.client.resume(bench.now, id, &mut app);
    assert_eq!(app.positions(), [0, 1, 2, 3]);
    app.room = 9;
    bench.client.resume(bench.now, id, &mut app);
    assert_eq!(app.positions(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn what_waits_is_not_granted_again_and_what_is_taken_is() {
    let config = ClientConfig {
        subscribe_bytes_max: 2 << 20,
        ..config()
    };
    let mut bench = Bench::connected(config, &[&[1]]);
    let id = bench.client.subscribe(bench.now, Gsn::ZERO).unwrap();
    let sent = subscribes(&bench.flush());
    assert_eq!(sent[0].1.credit_bytes, 2 << 20);
    let name = sent[0].1.subscription;
    let record = sealed(segment(0, 0), 0, &vec![7; 1 << 20]);
    let body = Deliver {
        subscription: name,
        first_gsn: Gsn::ZERO,
        count: 1,
        entry: EntryNo::new(1),
    };
    bench.receive(replica(0, 0), &body, &record);
    assert!(bench.flush().is_empty(), "nothing was taken");
    bench.client.resume(bench.now, id, &mut App::open());
    let sent = bench.flush();
    let Message::SubCredit(SubCredit { credit_bytes, .. }, _) = sent[0].message() else {
        panic!("credit is returned");
    };
    assert_eq!(credit_bytes, (2 << 20) + record.len() as u64);
}

#[test]
fn a_trim_told_by_any_server_moves_the_whole_merge() {
    let (mut bench, _, [zero, one]) = subscribed();
    let mut app = App::open();
    deliver(&mut bench, zero, 0, 3..5, &mut app);
    deliver(&mut bench, zero, 0, 8..9, &mut app);
    let trim = DeliverGap {
        subscription: one.1,
        from: Gsn::new(2),
        to: Gsn::new(8),
        kind: GapKind::Trim,
    };
    bench.receive_into(one.0, &trim, &[], &mut app);
    let also = DeliverGap {
        subscription: zero.1,
        from: Gsn::ZERO,
        ..trim
    };
    bench.receive_into(zero.0, &also, &[], &mut app);
    let record = Seen::Record(8, 8u64.to_le_bytes().to_vec());
    assert_eq!(
        app.seen,
        [Seen::Gap(0, 8, GapKind::Trim), record],
        "one gap"
    );
}

#[test]
fn a_loss_is_told_once_where_it_lies() {
    let (mut bench, _, [zero, one]) = subscribed();
    let mut app = App::open();
    let loss = |name| DeliverGap {
        subscription: name,
        from: Gsn::new(1),
        to: Gsn::new(4),
        kind: GapKind::Loss,
    };
    bench.receive_into(one.0, &loss(one.1), &[], &mut app);
    assert!(app.seen.is_empty());
    deliver(&mut bench, zero, 0, 0..1, &mut app);
    bench.receive_into(zero.0, &loss(zero.1), &[], &mut app);
    deliver(&mut bench, zero, 0, 4..5, &mut app);
    assert_eq!(app.positions(), [0, 1, 4]);
    assert_eq!(app.seen[1], Seen::Gap(1, 4, GapKind::Loss));
}

#[test]
fn a_damaged_record_is_never_delivered_and_the_stream_goes_on_elsewhere() {
    let (mut bench, _, [zero, _]) = subscribed();
    let mut app = App::open();
    deliver(&mut bench, zero, 0, 0..2, &mut app);
    let mut bytes = run(0, 2..4);
    bytes[100] ^= 1;
    let body = Deliver {
        subscription: zero.1,
        first_gsn: Gsn::new(2),
        count: 2,
        entry: EntryNo::new(9),
    };
    bench.receive_into(zero.0, &body, &bytes, &mut app);
    assert_eq!(
        (app.positions(), bench.client.stats().bad_records),
        (vec![0, 1], 1)
    );
    let sent = bench.wait(Nanos::from_ms(1));
    assert!(
        sent.iter()
            .any(|sent| matches!(sent.message(), Message::Unsubscribe(..)))
    );
    let again = subscribes(&sent);
    assert_ne!(again[0].0, conn(zero.0), "another replica");
    assert_eq!(
        (again[0].1.from, again[0].1.entry),
        (Gsn::new(2), EntryNo::new(2))
    );
    deliver(&mut bench, zero, 0, 2..4, &mut app);
    assert_eq!(
        app.positions(),
        [0, 1],
        "the stream left behind is not listened to"
    );
}

#[test]
fn servers_that_ignore_their_credit_or_miscount_are_left() {
    for wrong in 0..4 {
        let (mut bench, _, [zero, one]) = subscribed();
        let first_gsn = Gsn::new(if wrong == 0 { u64::MAX } else { 2 });
        let count = if wrong == 1 { 5 } else { 1 };
        let shard = if wrong == 2 { 1 } else { 0 };
        let record = match wrong {
            3 => sealed(segment(0, 0), 2, &vec![0; RECORD_BYTES_MAX]),
            _ => sealed(segment(shard, 0), 2, b"x"),
        };
        let body = Deliver {
            subscription: zero.1,
            first_gsn,
            count,
            entry: EntryNo::ZERO,
        };
        for _ in 0..2 {
            bench.receive(zero.0, &body, &record);
        }
        // The largest record uses up what was granted, and waits; the one after it comes without credit. After the other
        // faults the stream is left at once, and the repeat is not listened to.
        assert_eq!(bench.client.stats().stream_restarts, 1, "{wrong}");
        let end = DeliverEnd {
            subscription: one.1,
            reason: EndReason::Closing,
        };
        bench.receive(one.0, &end, &[]);
        assert_eq!(bench.client.stats().stream_restarts, 2);
    }
}

#[test]
fn a_new_shard_of_the_map_joins_and_an_ended_subscription_leaves() {
    let (mut bench, id, _) = subscribed();
    bench
        .client
        .set_map(bench.now, &map(2, &[&[1, 1], &[1, 1], &[1]]));
    bench.connect(replica(2, 0));
    let joined = subscribes(&bench.flush());
    assert_eq!((joined.len(), joined[0].1.shard), (1, ShardId::new(2)));
    bench.client.unsubscribe(id);
    let left = bench.flush();
    let names = left
        .iter()
        .filter(|sent| matches!(sent.message(), Message::Unsubscribe(..)));
    assert_eq!(names.count(), 3);
    assert_eq!(bench.client.next_gsn(id), None);
    let next = bench.client.subscribe(bench.now, Gsn::ZERO).unwrap();
    assert_ne!(next, id);
}

#[test]
fn a_merge_that_stands_still_asks_for_a_newer_map() {
    let (mut bench, _, [zero, _]) = subscribed();
    deliver(&mut bench, zero, 0, 5..6, &mut App::open());
    assert!(!bench.client.wants_map());
    bench.wait(Nanos::from_ms(500));
    assert!(!bench.client.wants_map());
    bench.wait(Nanos::from_ms(600));
    assert!(bench.client.wants_map());
}

/// What one replica does for one subscription.
struct Feed {
    name: u32,
    next: u64,
    sent: u64,
    credit: u64,
    trim_told: u64,
}

/// A log that is written beforehand: each position belongs to a shard, or is lost.
struct World {
    bench: Bench,
    dice: Dice,
    cells: Vec<Option<u32>>,
    trimmed: u64,
    up: BTreeMap<PeerKind, bool>,
    feeds: BTreeMap<(PeerKind, u32), Feed>,
    to_client: BTreeMap<PeerKind, VecDeque<Vec<u8>>>,
    app: App,
    id: SubscriptionId,
    faults: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let bench_config = ClientConfig {
            seed: dice.next(),
            ..config()
        };
        let mut bench = Bench::new(bench_config);
        bench
            .client
            .set_map(bench.now, &map(1, &[&[1, 1], &[1, 1], &[1, 1]]));
        let id = bench.client.subscribe(bench.now, Gsn::ZERO).unwrap();
        let cells = (0..40 + dice.below(100))
            .map(|_| (!dice.chance(8)).then(|| dice.below(3) as u32))
            .collect();
        let mut up = BTreeMap::new();
        for shard in 0..3 {
            for slot in 0..2 {
                up.insert(replica(shard, slot), false);
            }
        }
        Self {
            bench,
            dice,
            cells,
            trimmed: 0,
            up,
            feeds: BTreeMap::new(),
            to_client: BTreeMap::new(),
            app: App::default(),
            id,
            faults: true,
        }
    }

    fn flush(&mut self) {
        for sent in self.bench.flush() {
            let peer = *self
                .up
                .keys()
                .find(|peer| conn(**peer) == sent.conn)
                .expect("a known peer");
            match sent.message() {
                Message::Subscribe(subscribe, _) => {
                    let feed = Feed {
                        name: subscribe.subscription,
                        next: subscribe.from.get(),
                        sent: 0,
                        credit: subscribe.credit_bytes,
                        trim_told: 0,
                    };
                    assert!(
                        self.feeds
                            .insert((peer, subscribe.subscription), feed)
                            .is_none()
                    );
                }
                Message::SubCredit(credit, _) => {
                    if let Some(feed) = self.feeds.get_mut(&(peer, credit.subscription)) {
                        assert!(credit.credit_bytes > feed.credit, "credit only rises");
                        feed.credit = credit.credit_bytes;
                    }
                }
                Message::Unsubscribe(Unsubscribe { subscription }, _) => {
                    self.feeds.remove(&(peer, subscription));
                }
                other => panic!("a subscription sends no {}", other.name()),
            }
        }
    }

    fn send<B: Body>(&mut self, peer: PeerKind, body: &B, tail: &[u8]) {
        let mut bytes = vec![0; frame::MESSAGE_HEADER_BYTES + B::LEN + tail.len()];
        frame::encode(&mut bytes, body, &[tail]).unwrap();
        self.to_client.entry(peer).or_default().push_back(bytes);
    }

    /// A replica sends some of what a subscription is owed.
    fn feed(&mut self, peer: PeerKind) {
        let PeerKind::Replica { shard, slot } = peer else {
            return;
        };
        let names: Vec<u32> = self
            .feeds
            .keys()
            .filter(|key| key.0 == peer)
            .map(|key| key.1)
            .collect();
        for name in names {
            let feed = &self.feeds[&(peer, name)];
            let (mut next, mut sent, name) = (feed.next, feed.sent, feed.name);
            let (credit, told) = (feed.credit, feed.trim_told);
            if self.trimmed > told && self.trimmed > next {
                let gap = DeliverGap {
                    subscription: name,
                    from: Gsn::new(next),
                    to: Gsn::new(self.trimmed),
                    kind: GapKind::Trim,
                };
                self.send(peer, &gap, &[]);
                next = self.trimmed;
            }
            let trim_told = self.trimmed;
            for _ in 0..=self.dice.below(6) {
                let Some(cell) = self.cells.get(next as usize).copied() else {
                    break;
                };
                if cell.is_none() {
                    let (from, to) = (Gsn::new(next), Gsn::new(next + 1));
                    let gap = DeliverGap {
                        subscription: name,
                        from,
                        to,
                        kind: GapKind::Loss,
                    };
                    self.send(peer, &gap, &[]);
                    next += 1;
                    continue;
                }
                if cell != Some(shard.get()) {
                    next += 1;
                    continue;
                }
                let mut end = next;
                let mut records = Vec::new();
                while self.cells.get(end as usize) == Some(&cell) && self.dice.chance(80) {
                    records.extend(sealed(SegmentId { shard, slot }, end, &end.to_le_bytes()));
                    end += 1;
                }
                if end == next || sent + records.len() as u64 > credit {
                    break;
                }
                sent += records.len() as u64;
                if self.faults && self.dice.chance(3) {
                    let at = self.dice.below(records.len());
                    records[at] ^= 0x10;
                }
                let body = Deliver {
                    subscription: name,
                    first_gsn: Gsn::new(next),
                    count: (end - next) as u32,
                    entry: EntryNo::new(end),
                };
                self.send(peer, &body, &records);
                next = end;
            }
            let feed = self.feeds.get_mut(&(peer, name)).unwrap();
            (feed.next, feed.sent, feed.trim_told) = (next, sent, trim_told);
        }
    }

    fn receive(&mut self, peer: PeerKind) {
        if let Some(bytes) = self.to_client.get_mut(&peer).and_then(VecDeque::pop_front) {
            let (message, _) = Message::new_checked(&bytes).unwrap();
            let now = self.bench.now;
            self.bench
                .client
                .handle(now, conn(peer), &message, &mut self.app);
        }
    }

    fn disconnect(&mut self, peer: PeerKind) {
        if self.up.insert(peer, false) == Some(true) {
            self.feeds.retain(|key, _| key.0 != peer);
            self.to_client.remove(&peer);
            self.bench.disconnect(peer);
        }
    }

    fn connect(&mut self, peer: PeerKind) {
        if self.up.insert(peer, true) == Some(false) {
            self.bench.connect(peer);
        }
    }

    fn resume(&mut self) {
        self.app.room = self.dice.below(8);
        self.bench
            .client
            .resume(self.bench.now, self.id, &mut self.app);
    }

    fn step(&mut self) {
        let peer = replica(self.dice.below(3) as u32, self.dice.below(2) as u8);
        match self.dice.below(100) {
            0..35 => self.feed(peer),
            35..70 => self.receive(peer),
            70..80 => self.resume(),
            80..88 => {
                let span = Nanos::from_us(1 << self.dice.below(21));
                self.bench.now = self.bench.now.after(span);
                self.bench.client.on_deadline(self.bench.now);
            }
            88..91 => self.disconnect(peer),
            91..98 => self.connect(peer),
            98 => {
                let to = self.dice.below(self.cells.len() / 2) as u64;
                self.trimmed = self.trimmed.max(to);
            }
            _ => {
                if let Some((_, name)) = self.feeds.keys().find(|key| key.0 == peer).copied() {
                    self.feeds.remove(&(peer, name));
                    let end = DeliverEnd {
                        subscription: name,
                        reason: EndReason::Limit,
                    };
                    self.send(peer, &end, &[]);
                }
            }
        }
        self.flush();
    }

    fn heal(&mut self) {
        self.faults = false;
        let peers: Vec<PeerKind> = self.up.keys().copied().collect();
        for peer in &peers {
            self.connect(*peer);
        }
        let end = self.cells.len() as u64;
        for _ in 0..1_000 {
            self.bench.now = self.bench.now.after(Nanos::from_ms(10));
            self.bench.client.on_deadline(self.bench.now);
            for peer in &peers {
                self.feed(*peer);
                while self
                    .to_client
                    .get(peer)
                    .is_some_and(|queue| !queue.is_empty())
                {
                    self.receive(*peer);
                }
            }
            self.app.room = 1_000;
            self.bench
                .client
                .resume(self.bench.now, self.id, &mut self.app);
            self.flush();
            if self.bench.client.next_gsn(self.id) == Some(Gsn::new(end)) {
                return;
            }
        }
        panic!(
            "stands at {:?} of {end}",
            self.bench.client.next_gsn(self.id)
        );
    }

    /// Every position once, in order, as what it is.
    fn check(&self) {
        let mut next = 0;
        for seen in &self.app.seen {
            match seen {
                Seen::Record(gsn, payload) => {
                    assert_eq!(*gsn, next);
                    assert!(
                        self.cells[next as usize].is_some(),
                        "a lost position has no record"
                    );
                    assert_eq!(payload, &gsn.to_le_bytes().to_vec());
                    next += 1;
                }
                Seen::Gap(from, to, GapKind::Loss) => {
                    assert_eq!(*from, next);
                    assert!((*from..*to).all(|gsn| self.cells[gsn as usize].is_none()));
                    next = *to;
                }
                Seen::Gap(from, to, kind) => {
                    assert_eq!((*from, *kind), (next, GapKind::Trim));
                    assert!(*to <= self.trimmed && to > from);
                    next = *to;
                }
            }
        }
        assert_eq!(next, self.cells.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_position_is_delivered_once_in_order_as_what_it_is(seed: u64, steps in 1usize..400) {
        let mut world = World::new(seed);
        for _ in 0..steps {
            world.step();
        }
        world.heal();
        world.check();
    }
}

#[test]
fn the_worlds_have_waits_restarts_and_damage() {
    let mut stats = ClientStats::default();
    for seed in 0..200 {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.step();
        }
        world.heal();
        world.check();
        let found = world.bench.client.stats();
        stats.delivered += found.delivered;
        stats.buffered += found.buffered;
        stats.stream_restarts += found.stream_restarts;
        stats.bad_records += found.bad_records;
    }
    assert!(
        stats.delivered > 5_000 && stats.buffered > 1_000,
        "{stats:?}"
    );
    assert!(
        stats.stream_restarts > 1_000 && stats.bad_records > 100,
        "{stats:?}"
    );
}
