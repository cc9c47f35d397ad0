//! The edge between stores and devices: starts stores, carries their operations, tells them when these have completed.

use ionian_core::edge::{self, Join, Target};
use ionian_store::{BlockOpKind, Store, StoreConfig, StoreFailure, StoreState};
use ionian_types::{ClusterId, Inc, Knobs, ShardId};

use crate::edges::{role, shard_slot};
use crate::invariant::Invariant;
use crate::process::{Peer, Place, ProcId};
use crate::world::{CLUSTER, Event, LOG, World};

impl<K: Knobs> World<K> {
    /// What a store of a place is made with.
    pub(crate) fn store_config(&mut self, place: Place) -> StoreConfig {
        let (segments, shard) = match place {
            Place::Replica(shard, _) => (self.plan.replicas, ShardId::new(shard)),
            _ => (0, ShardId::MAX),
        };
        let chunk = self.plan.chunk_bytes;
        let space = match place {
            Place::Replica(_, slot) => self.plan.space_bytes[usize::from(slot).min(2)],
            _ => 256 << 20,
        };
        let config = StoreConfig::new(
            CLUSTER,
            self.node(place),
            LOG,
            shard,
            segments,
            self.plan.class,
        );
        StoreConfig {
            chunk_bytes: chunk,
            memory_bytes_max: space.min(24 << 20),
            extent_bytes: u64::from(chunk) * 4,
            disk_bytes_max: space,
            block_bytes: 512,
            write_bytes_max: 64 << 10,
            journal_chunk_bytes: 16 << 10,
            journal_extent_bytes: 64 << 10,
            journal_bytes_max: 2 << 20,
            entropy: self.rng_disk.draw(),
            ..config
        }
    }

    /// A process of a flushed class reads its device before it takes its place.
    pub(crate) fn start_store(&mut self, proc: ProcId) {
        let place = self.procs[proc].place;
        let config = self.store_config(place);
        let files = self.disks.entry(place).or_default().files();
        let store = if files.is_empty() {
            Store::format(config, Inc::ZERO, &files)
        } else {
            Store::recover(config, &files)
        };
        self.procs[proc].has_data = !files.is_empty();
        self.procs[proc].store = Some(Box::new(store));
        self.run_disk(proc);
    }

    /// Hands the operations of a process's store to its device.
    pub(crate) fn run_disk(&mut self, proc: ProcId) {
        let process = &mut self.procs[proc];
        let place = process.place;
        if !self.plan.class.is_flushed() || !process.alive {
            return;
        }
        let Some(store) = process.store_mut() else {
            return;
        };
        let mut begun = Vec::new();
        let Some(disk) = self.disks.get_mut(&place) else {
            return;
        };
        while let Some(op) = store.next_op() {
            disk.begin(store, op);
            begun.push(op);
        }
        let slow = self
            .slow_disks
            .get(&place)
            .is_some_and(|until| *until > self.now);
        for op in begun {
            let (from, to) = match op.kind {
                BlockOpKind::Flush => (30_000, 120_000),
                BlockOpKind::Write { .. } | BlockOpKind::Read { .. } => (8_000, 40_000),
                BlockOpKind::Create { .. } | BlockOpKind::Delete => (50_000, 200_000),
            };
            let mut after = self.rng_disk.range(from, to);
            if slow {
                after *= 30;
            }
            self.after(after, Event::Disk(proc, op.token));
        }
    }

    /// An operation completes.
    pub(crate) fn disk_done(&mut self, proc: ProcId, token: u64) {
        let place = self.procs[proc].place;
        if !self.procs[proc].alive {
            return;
        }
        let Some(bytes) = self
            .disks
            .get_mut(&place)
            .and_then(|disk| disk.complete(token))
        else {
            return;
        };
        if let Some(store) = self.procs[proc].store_mut() {
            store.complete(token, Ok(&bytes));
        }
        if self.procs[proc].store.is_some() && self.procs[proc].join.is_none() {
            self.store_started(proc);
        }
        self.run_disk(proc);
        self.flush_soon(proc);
    }

    fn store_started(&mut self, proc: ProcId) {
        let place = self.procs[proc].place;
        let Some(store) = &self.procs[proc].store else {
            return;
        };
        let inc = store.inc();
        match store.state() {
            StoreState::Starting => {}
            // A first start that was cut short.
            StoreState::Failed(StoreFailure::NotFormatted) => {
                let files = self.disks.entry(place).or_default().files();
                let config = self.store_config(place);
                self.procs[proc].has_data = false;
                self.procs[proc].store = Some(Box::new(Store::format(config, Inc::ZERO, &files)));
            }
            StoreState::Failed(failure) => {
                self.history.fail(Invariant::M1, || {
                    format!("the store of {place:?} does not start: {failure}")
                });
            }
            StoreState::Ready => self.join(proc, inc, self.procs[proc].has_data),
        }
    }

    /// A process registers for its place.
    pub(crate) fn join(&mut self, proc: ProcId, last_inc: Inc, has_data: bool) {
        let place = self.procs[proc].place;
        let (shard, slot) = shard_slot(place);
        let own = edge::Place {
            cluster: if has_data {
                CLUSTER
            } else {
                ClusterId::default()
            },
            node: self.node(place),
            role: role(place),
            log: LOG,
            shard,
            slot,
        };
        let request = proc as u64 * 1_000_000;
        self.procs[proc].join = Some(Join::new(own, last_inc, has_data, request));
        let peer = Peer::Node(Target::Controller);
        self.procs[proc].dials.insert(peer, None);
        let after = self.rng_proc.below(1_000_000);
        self.after(after, Event::Dial(proc, peer));
    }
}
