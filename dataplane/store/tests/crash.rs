//! Random histories on a bad disk: what was durable is there after a crash, or listed as damaged if the disk damaged it;
//! what was truncated never comes back; what is listed can be repaired.

#![allow(
    clippy::unwrap_used,
    reason = "a test that finds less than it put in fails"
)]

mod common;

use common::disk::{Disk, Rng, WriteFault};
use common::{append, config, record};
use ionian_store::{Fetch, FileKind, Store, StoreConfig, StoreError, StoreState};
use ionian_types::{Durability, Inc, Lsn, Slot};

const SEGMENTS: usize = 2;

/// A content that a segment may be found to have: the newest, or one from before a truncation not known to be durable.
#[derive(Clone)]
struct Life {
    records: Vec<Vec<u8>>,
    /// Where the truncation that began it cut.
    cut: u64,
    id: u64,
}

struct Segment {
    /// The newest last.
    lives: Vec<Life>,
    durable: u64,
    /// What was durable before the last crash.
    promised: u64,
    trims: Vec<u64>,
}

struct Entry {
    body: Vec<u8>,
    /// The newest life of each segment when it was appended.
    lives: [u64; SEGMENTS],
}

struct World {
    seed: u64,
    rng: Rng,
    disk: Disk,
    store: Store,
    segments: Vec<Segment>,
    journal: Vec<Entry>,
    journal_durable: u64,
    checkpoints: Vec<(u64, Vec<u8>)>,
    checkpoint_durable: u64,
    incs: Vec<u64>,
    lives: u64,
}

fn small(seed: u64, entropy: u64) -> StoreConfig {
    StoreConfig {
        entropy,
        // Half of the histories split transfers; the model of write faults wants whole ones.
        write_bytes_max: if seed.is_multiple_of(2) { 1024 } else { 4096 },
        ..config(Durability::D1, SEGMENTS as u8, 4096, 8)
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let store = Store::format(small(seed, rng.next()), Inc::new(1), &[]);
        let mut world = Self {
            seed,
            rng,
            disk: Disk::default(),
            store,
            segments: (0..SEGMENTS)
                .map(|_| Segment {
                    lives: vec![Life {
                        records: Vec::new(),
                        cut: 0,
                        id: 0,
                    }],
                    durable: 0,
                    promised: 0,
                    trims: vec![0],
                })
                .collect(),
            journal: Vec::new(),
            journal_durable: 0,
            checkpoints: vec![(0, Vec::new())],
            checkpoint_durable: 0,
            incs: vec![1],
            lives: 0,
        };
        world.drive(|store| store.state() == StoreState::Ready);
        world
    }

    /// Lets the disk work until something holds.
    fn drive(&mut self, done: impl Fn(&Store) -> bool) {
        for _ in 0..100_000 {
            self.disk.take_ops(&mut self.store);
            if done(&self.store) {
                return;
            }
            assert!(
                !self.disk.idle(),
                "seed {}: stuck in {:?}",
                self.seed,
                self.store.state()
            );
            self.disk.complete_one(&mut self.store, &mut self.rng);
        }
        panic!("seed {}: no end", self.seed);
    }

    fn work(&mut self, count: u64) {
        for _ in 0..count {
            self.disk.take_ops(&mut self.store);
            self.disk.complete_one(&mut self.store, &mut self.rng);
        }
        self.observe();
    }

    fn settle(&mut self) {
        loop {
            self.disk.take_ops(&mut self.store);
            if self.disk.idle() {
                break;
            }
            self.disk.complete_one(&mut self.store, &mut self.rng);
        }
        self.observe();
    }

    /// Takes note of what the store promises now.
    fn observe(&mut self) {
        for (index, segment) in self.segments.iter_mut().enumerate() {
            let slot = Slot::new(index as u8);
            let durable = self.store.durable_len(slot).get();
            assert!(durable <= self.store.len(slot).get());
            assert!(
                durable >= segment.durable,
                "seed {}: a durable length fell from {} to {durable}",
                self.seed,
                segment.durable
            );
            if durable <= self.store.first(slot).get() {
                // A mark moves the length without making anything durable.
                continue;
            }
            segment.durable = durable;
            let newest = segment.lives.last().unwrap();
            if durable > newest.cut {
                let newest = segment.lives.pop().unwrap();
                segment.lives = vec![newest];
            }
        }
        let durable = self.store.journal_durable();
        assert!(durable >= self.journal_durable);
        self.journal_durable = durable;
        if let Some(entry) = (durable as usize)
            .checked_sub(1)
            .map(|at| &self.journal[at])
        {
            for (segment, proven) in self.segments.iter_mut().zip(entry.lives) {
                segment.lives.retain(|life| life.id >= proven);
            }
        }
        self.checkpoint_durable = self.store.checkpoint_durable();
        let inc = self.store.inc_durable().get();
        let at = self.incs.iter().position(|known| *known == inc).unwrap();
        self.incs.drain(..at);
    }

    fn step(&mut self) {
        let slot = Slot::new(self.rng.below(SEGMENTS as u64) as u8);
        match self.rng.below(40) {
            0..14 => self.append(slot),
            14..17 => self.truncate(slot),
            17..19 => self.trim(slot),
            19..23 => self.journal_append(),
            23 => self.checkpoint(),
            24 => {
                let inc = self.incs.last().unwrap() + 1;
                self.incs.push(inc);
                self.store.set_inc(Inc::new(inc));
            }
            25..29 => self.read_somewhere(slot),
            29 => self.settle(),
            _ => {
                let count = self.rng.below(6);
                self.work(count);
            }
        }
        self.observe();
    }

    fn append(&mut self, slot: Slot) {
        let from = self.store.len(slot).get();
        let mut records = Vec::new();
        for at in 0..1 + self.rng.below(4) {
            let len = if self.rng.chance(10) {
                1500
            } else {
                self.rng.below(200)
            };
            let payload: Vec<u8> = (0..len).map(|_| self.rng.next() as u8).collect();
            records.push(record(slot, from + at, 1 + self.lives, &payload));
        }
        let total: usize = records.iter().map(Vec::len).sum();
        match append(&mut self.store, slot, &records) {
            Ok(()) => {
                let life = self.segments[slot.index()].lives.last_mut().unwrap();
                life.records.resize(from as usize, Vec::new());
                life.records.extend(records);
            }
            Err(StoreError::TooLarge) => assert!(total > 3072),
            Err(StoreError::Full) => {}
            Err(error) => panic!("seed {}: {error}", self.seed),
        }
    }

    fn truncate(&mut self, slot: Slot) {
        let len = self.store.len(slot).get();
        let first = self.store.first(slot).get();
        let to = len.saturating_sub(self.rng.below(8)).max(first);
        self.cut(slot, to);
    }

    fn cut(&mut self, slot: Slot, to: u64) {
        let len = self.store.len(slot).get();
        self.store.truncate(slot, Lsn::new(to));
        if to < len {
            self.lives += 1;
            let segment = &mut self.segments[slot.index()];
            let mut life = segment.lives.last().unwrap().clone();
            life.records.truncate(to as usize);
            life.cut = to;
            life.id = self.lives;
            segment.lives.push(life);
            segment.durable = segment.durable.min(to);
        }
        assert_eq!(self.store.len(slot).get(), to.min(len));
    }

    fn trim(&mut self, slot: Slot) {
        let len = self.store.len(slot).get();
        let first = self.store.first(slot).get();
        // Now and then beyond the end, as when a replica joins.
        let upto = if self.rng.chance(10) {
            len + self.rng.below(5)
        } else {
            first + self.rng.below(len - first + 1)
        };
        self.store.trim(slot, Lsn::new(upto));
        let segment = &mut self.segments[slot.index()];
        segment.trims.push(upto);
        let life = segment.lives.last_mut().unwrap();
        if life.records.len() < upto as usize {
            life.records.resize(upto as usize, Vec::new());
        }
        assert_eq!(self.store.first(slot).get(), upto);
    }

    fn journal_append(&mut self) {
        let len = self.rng.below(300);
        let body: Vec<u8> = (0..len).map(|_| self.rng.next() as u8).collect();
        match self.store.journal_append(&body) {
            Ok(number) => {
                assert_eq!(number as usize, self.journal.len() + 1);
                let mut lives = [0; SEGMENTS];
                for (id, segment) in lives.iter_mut().zip(&self.segments) {
                    *id = segment.lives.last().unwrap().id;
                }
                self.journal.push(Entry { body, lives });
            }
            Err(error) => assert_eq!(error, StoreError::Full),
        }
    }

    fn checkpoint(&mut self) {
        let low = self
            .checkpoints
            .last()
            .unwrap()
            .0
            .max(self.store.checkpoint_durable());
        let upto = low + self.rng.below(self.store.journal_last() - low + 1);
        let len = self.rng.below(3000);
        let body: Vec<u8> = (0..len).map(|_| self.rng.next() as u8).collect();
        match self.store.journal_checkpoint(upto, &body) {
            Ok(()) => self.checkpoints.push((upto, body)),
            Err(error) => assert_eq!(error, StoreError::Busy),
        }
    }

    /// The record at a position, however long it takes; `None` if it is damaged.
    fn read(&mut self, slot: Slot, pos: u64) -> Option<Vec<u8>> {
        loop {
            match self.store.run(slot, Lsn::new(pos), Lsn::new(pos + 1), 0) {
                Fetch::Ready(run) => return Some(self.store.bytes(&run).to_vec()),
                Fetch::Damaged(_) => return None,
                Fetch::Wait => {
                    self.disk.take_ops(&mut self.store);
                    assert!(!self.disk.idle(), "seed {}: nobody reads", self.seed);
                    self.disk.complete_one(&mut self.store, &mut self.rng);
                }
                other => panic!("seed {}: {other:?} at {pos}", self.seed),
            }
        }
    }

    fn read_somewhere(&mut self, slot: Slot) {
        let (first, len) = (self.store.first(slot).get(), self.store.len(slot).get());
        if first == len {
            return;
        }
        let pos = first + self.rng.below(len - first);
        let expected =
            self.segments[slot.index()].lives.last().unwrap().records[pos as usize].clone();
        match self.read(slot, pos) {
            Some(bytes) => assert_eq!(bytes, expected, "seed {}", self.seed),
            None => assert!(
                expected.is_empty() || self.disk.wounded(&expected),
                "seed {}: {pos} of {slot} is damaged and was not touched",
                self.seed
            ),
        }
    }

    fn fault(&mut self) {
        let records = |kind| matches!(kind, FileKind::RecordExtent(_));
        let rot = |kind| !matches!(kind, FileKind::JournalExtent(_));
        // With nothing in flight, so that every record the fault touches is on the disk whole.
        self.settle();
        match self.rng.below(4) {
            0 => self.disk.rot(&mut self.rng, rot),
            1 => self.disk.lose_sector(&mut self.rng, records),
            2 if !self.seed.is_multiple_of(2) => self.disk.write_fault = Some(WriteFault::Lost),
            3 if !self.seed.is_multiple_of(2) => {
                self.disk.write_fault = Some(WriteFault::Misdirected);
            }
            _ => self.disk.rot(&mut self.rng, records),
        }
    }

    fn restart(&mut self) {
        self.observe();
        if self.rng.chance(3) {
            self.disk.kill(&mut self.rng);
        } else {
            self.disk.crash(&mut self.rng);
        }
        let entropy = self.rng.next();
        self.store = Store::recover(small(self.seed, entropy), &self.disk.files());
        self.drive(|store| store.state() != StoreState::Starting);
        assert_eq!(self.store.state(), StoreState::Ready, "seed {}", self.seed);
        self.check_journal();
        for index in 0..SEGMENTS {
            self.check_segment(Slot::new(index as u8));
        }
        for index in 0..SEGMENTS {
            self.mend(Slot::new(index as u8));
        }
        let inc = self.store.inc().get();
        assert!(self.incs.contains(&inc), "seed {}", self.seed);
        self.incs.retain(|known| *known <= inc);
    }

    fn check_journal(&mut self) {
        let seed = self.seed;
        let found = self.store.recovered();
        let upto = self.store.checkpoint_durable();
        assert!(
            upto >= self.checkpoint_durable,
            "seed {seed}: a checkpoint is gone"
        );
        if let Some((upto, body)) = found.checkpoint {
            let known = self
                .checkpoints
                .iter()
                .any(|(u, b)| *u == upto && b == body);
            assert!(known, "seed {seed}: a checkpoint nobody made");
        }
        let last = self.store.journal_last();
        assert!(
            last >= self.journal_durable && last <= self.journal.len() as u64,
            "seed {seed}: journal ends at {last}, durable was {}",
            self.journal_durable
        );
        for number in upto + 1..=last {
            assert_eq!(
                self.store.journal_read(number),
                Some(&self.journal[number as usize - 1].body[..]),
                "seed {seed}: journal entry {number}"
            );
        }
        self.journal.truncate(last as usize);
        self.journal_durable = self.store.journal_durable();
        assert_eq!(self.journal_durable, last);
        self.checkpoints.retain(|(known, _)| *known <= upto);
        self.checkpoint_durable = upto;
        // What the journal says was done after a truncation implies the truncation.
        if let Some(entry) = self.journal.last() {
            for (segment, proven) in self.segments.iter_mut().zip(entry.lives) {
                segment.lives.retain(|life| life.id >= proven);
            }
        }
    }

    fn check_segment(&mut self, slot: Slot) {
        let seed = self.seed;
        let (first, len) = (self.store.first(slot).get(), self.store.len(slot).get());
        let found: Vec<Option<Vec<u8>>> = (first..len).map(|pos| self.read(slot, pos)).collect();
        let listed = |pos: u64| {
            self.store
                .damaged(slot)
                .iter()
                .any(|range| range.from.get() <= pos && pos < range.to.get())
        };
        let segment = &self.segments[slot.index()];
        assert!(
            segment.trims.contains(&first),
            "seed {seed}: trim mark {first}"
        );
        for (at, record) in found.iter().enumerate() {
            assert_eq!(record.is_none(), listed(first + at as u64), "seed {seed}");
        }
        let fits = |life: &&Life| {
            let same = found.iter().enumerate().all(|(at, found)| {
                let pos = first as usize + at;
                match (found, life.records.get(pos)) {
                    (Some(found), Some(record)) => found == record,
                    (None, Some(record)) => {
                        pos as u64 >= segment.durable
                            || record.is_empty()
                            || self.disk.wounded(record)
                    }
                    (_, None) => false,
                }
            });
            let missing = (len.max(first)..segment.durable)
                .all(|pos| self.disk.wounded(&life.records[pos as usize]));
            same && missing
        };
        let Some(life) = segment.lives.iter().rev().find(fits) else {
            panic!(
                "seed {seed}: segment {slot} {first}..{len} (durable {}, damaged {:?}) is none of {:?}; found {:?}",
                segment.durable,
                self.store.damaged(slot),
                segment
                    .lives
                    .iter()
                    .map(|life| (life.id, life.cut, life.records.len()))
                    .collect::<Vec<_>>(),
                found.iter().map(Option::is_some).collect::<Vec<_>>(),
            );
        };
        let mut life = life.clone();
        life.records.truncate(len as usize);
        life.records.resize(len as usize, Vec::new());
        life.cut = 0;
        let segment = &mut self.segments[slot.index()];
        segment.promised = segment.durable;
        segment.durable = self.store.durable_len(slot).get();
        segment.lives = vec![life];
    }

    /// Truncates, and takes the records from there on from a peer.
    fn copy_anew(&mut self, slot: Slot, from: Lsn) {
        let life = self.segments[slot.index()].lives.last().unwrap().clone();
        self.cut(slot, from.get());
        let copied = &life.records[from.get() as usize..];
        let whole = copied.iter().take_while(|record| !record.is_empty());
        for record in whole {
            while append(&mut self.store, slot, std::slice::from_ref(record)).is_err() {
                self.disk.take_ops(&mut self.store);
                self.disk.complete_one(&mut self.store, &mut self.rng);
            }
            let life = self.segments[slot.index()].lives.last_mut().unwrap();
            life.records.push(record.clone());
        }
    }

    /// What the machine above does: says how much is committed, and brings good copies of what is damaged below.
    fn mend(&mut self, slot: Slot) {
        let seed = self.seed;
        let (first, len) = (self.store.first(slot).get(), self.store.len(slot).get());
        let durable = self.store.durable_len(slot).get();
        let committed = durable + self.rng.below(len - durable + 1);
        self.store
            .committed_hint(slot, Lsn::new(committed.max(first)));
        let mut now = self.store.len(slot).get();
        assert!(now >= committed.max(first).min(len), "seed {seed}");
        if now < len {
            self.lives += 1;
            let segment = &mut self.segments[slot.index()];
            let mut life = segment.lives.last().unwrap().clone();
            life.records.truncate(now as usize);
            life.cut = now;
            life.id = self.lives;
            segment.lives.push(life);
            segment.durable = segment.durable.min(now);
        }
        let mut tries = 0;
        while let Some(range) = self.store.damaged(slot).first().copied() {
            assert!(range.from < Lsn::new(now), "seed {seed}");
            let good = self.segments[slot.index()].lives.last().unwrap().records
                [range.from.get() as usize]
                .clone();
            if good.is_empty() {
                // Below a trim mark that was lost: trimmed again.
                self.store.trim(slot, Lsn::new(range.from.get() + 1));
                self.segments[slot.index()].trims.push(range.from.get() + 1);
                continue;
            }
            tries += 1;
            assert!(tries < 10_000, "seed {seed}: no end of repairs");
            match self.store.repair(slot, &good) {
                Ok(()) => {}
                Err(StoreError::Busy | StoreError::Full) => {
                    self.disk.take_ops(&mut self.store);
                    self.disk.complete_one(&mut self.store, &mut self.rng);
                }
                Err(StoreError::NotARepair) => {
                    // Another record was there, from before a truncation that the crash undid; never a durable one.
                    assert!(
                        range.from.get() >= self.segments[slot.index()].promised,
                        "seed {seed}: {} was durable",
                        range.from
                    );
                    self.copy_anew(slot, range.from);
                    now = self.store.len(slot).get();
                }
                Err(error) => panic!("seed {seed}: {error} at {}", range.from),
            }
        }
        self.settle();
        assert_eq!(
            self.store.durable_len(slot),
            self.store.len(slot),
            "seed {seed}"
        );
        for pos in self.store.first(slot).get()..now {
            let expected =
                self.segments[slot.index()].lives.last().unwrap().records[pos as usize].clone();
            assert_eq!(
                self.read(slot, pos),
                Some(expected),
                "seed {seed}: {pos} of {slot}"
            );
        }
    }
}

/// What happened in histories, so that a run in which nothing does cannot pass.
#[derive(Default, Debug)]
struct Seen {
    damaged: u64,
    repaired: u64,
    fetches: u64,
    evictions: u64,
    deletes: u64,
    recycled: u64,
}

fn history(seed: u64, seen: &mut Seen) {
    let mut world = World::new(seed);
    let restarts = 1 + world.rng.below(3);
    let fault_in = world.rng.below(restarts + 2);
    for round in 0..restarts {
        let steps = world.rng.below(50);
        let fault_at = world.rng.below(steps + 1);
        for step in 0..steps {
            if round == fault_in && step == fault_at {
                world.fault();
            }
            world.step();
        }
        world.restart();
        let stats = world.store.stats();
        seen.damaged += stats.damaged;
        seen.repaired += stats.repaired;
        seen.fetches += stats.fetches;
        seen.evictions += stats.evictions;
    }
    for _ in 0..10 {
        world.step();
    }
    world.settle();
    seen.deletes += world.disk.deletes;
    seen.recycled += u64::from(world.disk.overwrites > 0);
}

/// `STORE_SEED` runs one history, `STORE_CASES` that many.
#[test]
fn ten_thousand_histories_on_a_bad_disk() {
    let number = |name| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap())
    };
    let mut seen = Seen::default();
    if let Some(seed) = number("STORE_SEED") {
        history(seed, &mut seen);
        return;
    }
    for seed in 0..number("STORE_CASES").unwrap_or(12_000) {
        history(seed, &mut seen);
    }
    println!("{seen:?}");
    let Seen {
        damaged,
        repaired,
        fetches,
        evictions,
        deletes,
        recycled,
    } = seen;
    for (what, count) in [
        ("damaged", damaged),
        ("repaired", repaired),
        ("fetches", fetches),
        ("evictions", evictions),
        ("deletes", deletes),
        ("recycled", recycled),
    ] {
        assert!(count > 100, "{what}: {count}");
    }
}
