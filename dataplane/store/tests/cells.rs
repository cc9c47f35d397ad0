//! Cells against a plain model: every operation gives what the model says, a restart changes nothing that was durable.
#![allow(
    clippy::unwrap_used,
    reason = "a test that finds less than it put in fails"
)]

mod common;

use std::collections::BTreeMap;

use common::config;
use common::disk::{Disk, Rng};
use ionian_store::{
    Cell, CellError, CellRange, CellTicket, CellWrite, Cells, CellsOpening, Opened, Store,
    StoreConfig, StoreError, StoreState,
};
use ionian_types::{
    ClientId, ClientSeq, Durability, GapKind, GuardEpoch, Inc, NsEpoch, SessionNo, Slot,
};

const SLOT: Slot = Slot::new(0);
const CELLS: u64 = 14;
const EPOCHS: u32 = 2;

type Key = (u32, u64);

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    Empty,
    Data(Vec<u8>, u64),
    Gap(GapKind, u64),
    Trimmed,
}

impl State {
    fn precedence(&self) -> Option<u64> {
        match self {
            Self::Empty | Self::Trimmed => None,
            Self::Data(_, precedence) | Self::Gap(_, precedence) => Some(*precedence),
        }
    }
}

/// What a cell may be found to hold after a crash: its last durable state and all since.
type Histories = BTreeMap<Key, Vec<(State, Option<CellTicket>)>>;

struct World {
    seed: u64,
    rng: Rng,
    disk: Disk,
    store: Store,
    cells: Cells,
    model: BTreeMap<Key, State>,
    histories: Histories,
    guard: u64,
    guards: Vec<(u64, u64)>,
}

fn small(entropy: u64, class: Durability) -> StoreConfig {
    StoreConfig {
        entropy,
        journal_chunk_bytes: 2048,
        ..config(class, 1, 4096, 6)
    }
}

impl World {
    fn new(seed: u64, class: Durability) -> Self {
        let mut rng = Rng(seed);
        let config = small(rng.next(), class);
        let store = if class.is_flushed() {
            Store::format(config, Inc::new(1), &[])
        } else {
            Store::new(config)
        };
        let keys = (0..EPOCHS).flat_map(|epoch| (0..CELLS + 8).map(move |index| (epoch, index)));
        let mut world = Self {
            seed,
            rng,
            disk: Disk::default(),
            store,
            cells: Cells::new(SLOT),
            model: keys.clone().map(|key| (key, State::Empty)).collect(),
            histories: keys.map(|key| (key, vec![(State::Empty, None)])).collect(),
            guard: 0,
            guards: vec![(0, 0)],
        };
        world.settle();
        world
    }

    fn settle(&mut self) {
        loop {
            self.disk.take_ops(&mut self.store);
            if self.disk.idle() {
                return;
            }
            self.disk.complete_one(&mut self.store, &mut self.rng);
        }
    }

    fn set(&mut self, key: Key, state: State, ticket: CellTicket) {
        self.histories
            .get_mut(&key)
            .unwrap()
            .push((state.clone(), Some(ticket)));
        self.model.insert(key, state);
    }

    /// The guard of an operation: now and then one that is over. True if it must be refused.
    fn pick_guard(&mut self) -> (GuardEpoch, bool) {
        if self.guard > 0 && self.rng.chance(8) {
            return (GuardEpoch::new(self.guard - 1), true);
        }
        (GuardEpoch::new(self.guard), false)
    }

    fn step(&mut self) {
        let epoch = self.rng.below(u64::from(EPOCHS)) as u32;
        let index = self.rng.below(CELLS);
        let kinds = [GapKind::Junk, GapKind::Plug, GapKind::Bridge];
        let kind = kinds[self.rng.below(3) as usize];
        match self.rng.below(30) {
            0..9 => self.put(epoch, index, 0),
            9..13 => {
                let precedence = self.rng.below(4);
                self.put(epoch, index, precedence);
            }
            13..16 => self.append_next(epoch),
            16..20 => {
                let to = index + self.rng.below(5);
                let precedence = if self.rng.chance(3) {
                    self.rng.below(4)
                } else {
                    0
                };
                self.put_gap(epoch, index, to, kind, precedence);
            }
            20 => self.trim_one(epoch, index),
            21 if self.rng.chance(3) => self.trim_prefix(epoch, index / 2),
            22 => self.seal(epoch),
            23 => match self.cells.checkpoint(&mut self.store) {
                Ok(()) => {}
                Err(error) => assert_eq!(error, CellError::Store(StoreError::Busy)),
            },
            24 => self.settle(),
            _ => {
                for _ in 0..self.rng.below(8) {
                    self.disk.take_ops(&mut self.store);
                    self.disk.complete_one(&mut self.store, &mut self.rng);
                }
                self.cells.tidy(&mut self.store);
            }
        }
        self.compare();
    }

    /// Whether an operation under this guard went as the model says; the ticket if it was accepted.
    fn judge<T>(
        &self,
        over: bool,
        expected: Result<(), CellError>,
        result: Result<T, CellError>,
    ) -> Option<T> {
        match result {
            // Room and files that are being made: backpressure, at any time.
            Err(CellError::Store(StoreError::Full)) => None,
            Err(error) => {
                if over {
                    assert!(
                        matches!(error, CellError::Sealed { .. }),
                        "seed {}: {error}",
                        self.seed
                    );
                } else {
                    assert_eq!(expected, Err(error), "seed {}", self.seed);
                }
                None
            }
            Ok(done) => {
                assert!(
                    !over && expected.is_ok(),
                    "seed {}: {expected:?}",
                    self.seed
                );
                Some(done)
            }
        }
    }

    fn payload(&mut self) -> Vec<u8> {
        let len = self.rng.below(120);
        (0..len).map(|_| self.rng.next() as u8).collect()
    }

    fn put(&mut self, epoch: u32, index: u64, precedence: u64) {
        let payload = self.payload();
        let write = CellWrite {
            client: ClientId::new(4),
            session: SessionNo::new(1),
            seq: ClientSeq::new(index),
            payload: &payload,
        };
        let (guard, over) = self.pick_guard();
        let old = &self.model[&(epoch, index)];
        let by_precedence = precedence > 0 || self.seed.is_multiple_of(3);
        let beaten = match (old.precedence(), by_precedence) {
            (Some(old), true) => old >= precedence,
            (Some(_), false) => true,
            (None, _) => false,
        };
        let expected = match old {
            State::Trimmed => Err(CellError::Trimmed),
            _ if beaten => Err(CellError::Written),
            _ => Ok(()),
        };
        let ns = NsEpoch::new(epoch);
        let result = if by_precedence {
            self.cells
                .put_by_precedence(&mut self.store, guard, ns, index, precedence, &write)
        } else {
            self.cells
                .put_if_absent(&mut self.store, guard, ns, index, &write)
        };
        if let Some(ticket) = self.judge(over, expected, result) {
            self.set((epoch, index), State::Data(payload, precedence), ticket);
        }
    }

    fn append_next(&mut self, epoch: u32) {
        let payload = self.payload();
        let write = CellWrite {
            client: ClientId::new(4),
            session: SessionNo::new(1),
            seq: ClientSeq::new(0),
            payload: &payload,
        };
        let (guard, over) = self.pick_guard();
        let next = self.tail(epoch);
        if next >= CELLS + 8 {
            return;
        }
        let expected = match self.model[&(epoch, next)] {
            State::Trimmed => Err(CellError::Trimmed),
            _ => Ok(()),
        };
        let result = self
            .cells
            .append_next(&mut self.store, guard, NsEpoch::new(epoch), &write);
        if let Some((index, ticket)) = self.judge(over, expected, result) {
            assert_eq!(index, next, "seed {}", self.seed);
            self.set((epoch, index), State::Data(payload, 0), ticket);
        }
    }

    fn tail(&self, epoch: u32) -> u64 {
        let mark = self.cells.trim_mark();
        let trimmed = if mark.0.get() == epoch { mark.1 } else { 0 };
        let last = self
            .model
            .iter()
            .filter(|(key, state)| {
                key.0 == epoch && **state != State::Empty && !self.below_mark(**key)
            })
            .map(|(key, _)| key.1 + 1)
            .max();
        last.unwrap_or(0).max(trimmed)
    }

    fn below_mark(&self, key: Key) -> bool {
        let mark = self.cells.trim_mark();
        (NsEpoch::new(key.0), key.1) < mark
    }

    fn put_gap(&mut self, epoch: u32, from: u64, to: u64, kind: GapKind, precedence: u64) {
        let (guard, over) = self.pick_guard();
        let mark = self.cells.trim_mark();
        let expected = if from >= to {
            Err(CellError::Range { from, to })
        } else if (NsEpoch::new(epoch), to) <= mark {
            Err(CellError::Trimmed)
        } else {
            Ok(())
        };
        let ns = NsEpoch::new(epoch);
        let result =
            self.cells
                .put_gap_range(&mut self.store, guard, ns, from, to, kind, precedence);
        let Some(ticket) = self.judge(over, expected, result) else {
            return;
        };
        for index in from..to {
            let key = (epoch, index);
            let old = self.model[&key].clone();
            let empty = old == State::Empty;
            if empty || old.precedence().is_some_and(|old| old < precedence) {
                self.set(key, State::Gap(kind, precedence), ticket);
            } else if let State::Data(_, _) = old {
                // If the data is lost with its process, the gap that was put beside it fills the cell.
                let gap = State::Gap(kind, precedence);
                let history = self.histories.get_mut(&key).unwrap();
                let at = history.len() - 1;
                history.insert(at, (gap, None));
            }
        }
    }

    fn trim_one(&mut self, epoch: u32, index: u64) {
        let (guard, over) = self.pick_guard();
        let expected = match self.model[&(epoch, index)] {
            State::Trimmed => Err(CellError::Trimmed),
            _ => Ok(()),
        };
        let result = self
            .cells
            .trim_one(&mut self.store, guard, NsEpoch::new(epoch), index);
        if let Some(ticket) = self.judge(over, expected, result) {
            self.set((epoch, index), State::Trimmed, ticket);
        }
    }

    fn trim_prefix(&mut self, epoch: u32, index: u64) {
        let (guard, over) = self.pick_guard();
        let result = self
            .cells
            .trim_prefix(&mut self.store, guard, NsEpoch::new(epoch), index);
        if let Some(ticket) = self.judge(over, Ok(()), result) {
            let below: Vec<Key> = self
                .model
                .keys()
                .copied()
                .filter(|key| *key < (epoch, index))
                .collect();
            for key in below {
                self.set(key, State::Trimmed, ticket);
            }
        }
    }

    fn seal(&mut self, epoch: u32) {
        let raised = self.guard + self.rng.below(2);
        let ns = NsEpoch::new(epoch);
        let Ok(ticket) = self.cells.seal(&mut self.store, GuardEpoch::new(raised)) else {
            return;
        };
        self.guard = raised;
        self.guards.push((self.store.journal_last(), raised));
        if self.store.config().class.is_flushed() && self.rng.chance(2) {
            // Not before what was accepted earlier is durable.
            if self.cells.sealed(&self.store, &ticket, ns).is_some() {
                assert_eq!(self.store.durable_len(SLOT), self.store.len(SLOT));
            }
            return;
        }
        self.settle();
        let report = self.cells.sealed(&self.store, &ticket, ns).unwrap();
        assert_eq!(report.guard, GuardEpoch::new(raised));
        assert_eq!(report.tail, self.tail(epoch), "seed {}", self.seed);
        assert_eq!(report.max_index, report.tail.checked_sub(1));
        let mut contiguous = if report.trim.0 == ns {
            report.trim.1
        } else {
            0
        };
        while self
            .model
            .get(&(epoch, contiguous))
            .is_some_and(|state| *state != State::Empty && !self.below_mark((epoch, contiguous)))
        {
            contiguous += 1;
        }
        assert_eq!(report.contiguous, contiguous, "seed {}", self.seed);
    }

    fn found(&mut self, key: Key) -> State {
        loop {
            match self.cells.get(&mut self.store, NsEpoch::new(key.0), key.1) {
                Cell::Empty => return State::Empty,
                Cell::Trimmed => return State::Trimmed,
                Cell::Gap(kind) => return State::Gap(kind, 0),
                Cell::Data(run) => {
                    let payload = Cells::payload(self.store.bytes(&run)).unwrap();
                    return State::Data(payload.to_vec(), 0);
                }
                Cell::Wait => {
                    self.disk.take_ops(&mut self.store);
                    self.disk.complete_one(&mut self.store, &mut self.rng);
                }
                other => panic!("seed {}: {other:?} at {key:?}", self.seed),
            }
        }
    }

    fn same(found: &State, model: &State) -> bool {
        match (found, model) {
            (State::Data(a, _), State::Data(b, _)) => a == b,
            (State::Gap(a, _), State::Gap(b, _)) => a == b,
            (a, b) => a == b,
        }
    }

    fn compare(&mut self) {
        let keys: Vec<Key> = self.model.keys().copied().collect();
        for key in keys {
            let found = self.found(key);
            let model = &self.model[&key];
            assert!(
                Self::same(&found, model),
                "seed {}: {key:?} holds {found:?}, should hold {model:?}",
                self.seed
            );
        }
        self.compare_scan();
    }

    /// A scan says the same as reading each cell.
    fn compare_scan(&mut self) {
        let epoch = self.rng.below(u64::from(EPOCHS)) as u32;
        let mut out = Vec::new();
        let mut at = 0;
        while at < CELLS {
            let count_max = out.len() + 1 + self.rng.below(4) as usize;
            at = self
                .cells
                .scan(NsEpoch::new(epoch), at, CELLS, count_max, &mut out);
        }
        let mut seen = vec![State::Empty; CELLS as usize];
        for range in out {
            let (from, to, state) = match range {
                CellRange::Data { index } => (index, index + 1, State::Data(Vec::new(), 0)),
                CellRange::Gap { from, to, kind } => (from, to, State::Gap(kind, 0)),
                CellRange::Trimmed { from, to } => (from, to, State::Trimmed),
            };
            for cell in &mut seen[from as usize..to as usize] {
                assert_eq!(*cell, State::Empty, "seed {}: ranges overlap", self.seed);
                *cell = state.clone();
            }
        }
        for (index, seen) in seen.iter().enumerate() {
            let same = match (&self.model[&(epoch, index as u64)], seen) {
                (State::Data(_, _), State::Data(_, _)) => true,
                (model, seen) => Self::same(seen, model),
            };
            assert!(same, "seed {}: scan of {index}: {seen:?}", self.seed);
        }
    }

    fn restart(&mut self, settled: bool) {
        if settled {
            self.settle();
        }
        // What a crash may not undo: of each cell the last state known to be durable.
        let mut allowed: BTreeMap<Key, Vec<State>> = BTreeMap::new();
        for (key, history) in &self.histories {
            let durable = history
                .iter()
                .rposition(|(_, ticket)| {
                    ticket.is_some_and(|ticket| self.cells.is_durable(&self.store, ticket))
                })
                .unwrap_or(0);
            // Gaps put beside data that is not durable stand before it.
            let from = history[..durable]
                .iter()
                .rposition(|(_, ticket)| ticket.is_some())
                .map_or(0, |at| at + 1);
            let from = if durable > 0 && history[durable].1.is_some() {
                durable
            } else {
                from
            };
            allowed.insert(
                *key,
                history[from..]
                    .iter()
                    .map(|(state, _)| state.clone())
                    .collect(),
            );
        }
        let durable_guard = self
            .guards
            .iter()
            .filter(|(entry, _)| *entry <= self.store.journal_durable())
            .map(|(_, guard)| *guard)
            .max()
            .unwrap();
        self.disk.crash(&mut self.rng);
        let config = small(self.rng.next(), Durability::D1);
        self.store = Store::recover(config, &self.disk.files());
        self.settle();
        assert_eq!(self.store.state(), StoreState::Ready);
        let len = self.store.durable_len(SLOT);
        self.store.committed_hint(SLOT, len);
        let mut opening = CellsOpening::begin(&self.store, SLOT).unwrap();
        self.cells = loop {
            match opening.step(&mut self.store) {
                Opened::Ready(cells) => break cells,
                Opened::Wait(more) => {
                    opening = more;
                    self.disk.take_ops(&mut self.store);
                    self.disk.complete_one(&mut self.store, &mut self.rng);
                }
            }
        };
        assert_eq!(self.cells.damaged(), 0, "seed {}", self.seed);
        let guard = self.cells.guard().get();
        assert!(
            guard >= durable_guard && guard <= self.guard,
            "seed {}: guard {guard}",
            self.seed
        );
        self.guard = guard;
        if settled {
            self.compare();
        }
        for (key, allowed) in allowed {
            let found = self.found(key);
            let state = allowed.iter().rev().find(|state| Self::same(&found, state));
            let Some(state) = state else {
                panic!(
                    "seed {}: {key:?} holds {found:?}, may hold {allowed:?}",
                    self.seed
                );
            };
            let state = state.clone();
            self.histories.insert(key, vec![(state.clone(), None)]);
            self.model.insert(key, state);
        }
        self.guards = vec![(0, guard)];
    }
}

#[test]
fn cells_in_memory_equal_the_model() {
    for seed in 0..1500 {
        let mut world = World::new(seed, Durability::D0);
        for _ in 0..40 {
            world.step();
        }
    }
}

#[test]
fn cells_on_a_disk_equal_the_model_over_restarts() {
    for seed in 0..3000 {
        let mut world = World::new(seed, Durability::D1);
        for _ in 0..3 {
            for _ in 0..world.rng.below(30) {
                world.step();
            }
            let settled = world.rng.chance(2);
            world.restart(settled);
        }
    }
}

#[test]
fn what_trims_leave_behind_is_freed() {
    let mut world = World::new(1, Durability::D1);
    for round in 0..400u64 {
        let write = CellWrite {
            client: ClientId::new(1),
            session: SessionNo::new(1),
            seq: ClientSeq::new(round),
            payload: &[7; 100],
        };
        world
            .cells
            .append_next(&mut world.store, GuardEpoch::ZERO, NsEpoch::ZERO, &write)
            .unwrap();
        world.settle();
        if round % 8 == 7 {
            world
                .cells
                .trim_prefix(&mut world.store, GuardEpoch::ZERO, NsEpoch::ZERO, round - 3)
                .unwrap();
            world.settle();
            world.cells.tidy(&mut world.store);
            world.cells.checkpoint(&mut world.store).unwrap();
            world.settle();
        }
    }
    let stats = world.store.stats();
    assert!(stats.disk_bytes < 6 * 8192 + 4 * 4096, "{stats:?}");
    assert!(world.store.len(SLOT).get() == 400);
}

#[test]
fn a_snapshot_waits_for_records_that_took_the_place_of_gaps() {
    let mut world = World::new(1, Durability::D1);
    world.put_gap(0, 5, 6, GapKind::Junk, 0);
    world.settle();
    let write = CellWrite {
        client: ClientId::new(1),
        session: SessionNo::new(1),
        seq: ClientSeq::new(1),
        payload: b"recovered",
    };
    let (guard, epoch) = (GuardEpoch::ZERO, NsEpoch::ZERO);
    world
        .cells
        .put_by_precedence(&mut world.store, guard, epoch, 5, 1, &write)
        .unwrap();
    assert_eq!(
        world.cells.checkpoint(&mut world.store),
        Err(CellError::Store(StoreError::Busy))
    );
    world.settle();
    assert_eq!(world.cells.checkpoint(&mut world.store), Ok(()));
}
