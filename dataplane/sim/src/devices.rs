//! The edge between stores and devices: starts stores, carries their operations, tells them when these have completed.

use ionian_core::edge::{self, Join, Target};
use ionian_store::{BlockOpKind, FileKind, Store, StoreConfig, StoreFailure, StoreState};
use ionian_types::{ClusterId, Inc, Knobs, NodeId, ShardId, VertexId};

use crate::disk::Disk;
use crate::edges::{role, shard_slot};
use crate::plan::Fault;
use crate::process::{Peer, Place, ProcId, Process};
use crate::world::{CLUSTER, Event, LOG, World};

impl<K: Knobs> World<K> {
    /// What a store of a place is made with.
    pub(crate) fn store_config(&mut self, place: Place, node: NodeId) -> StoreConfig {
        let (segments, shard) = match place {
            Place::Replica(shard, _) => (self.plan.replicas, ShardId::new(shard)),
            _ => (0, ShardId::MAX),
        };
        let chunk = self.plan.chunk_bytes;
        let space = match place {
            Place::Replica(_, slot) => self.plan.space_bytes[usize::from(slot).min(2)],
            _ => 256 << 20,
        };
        let config = StoreConfig::new(CLUSTER, node, LOG, shard, segments, self.plan.class);
        StoreConfig {
            chunk_bytes: chunk,
            memory_bytes_max: space.min(24 << 20),
            extent_bytes: u64::from(chunk) * 4,
            disk_bytes_max: space,
            block_bytes: self.plan.block_bytes,
            write_bytes_max: 64 << 10,
            journal_chunk_bytes: self.plan.block_bytes * 32,
            journal_extent_bytes: u64::from(self.plan.block_bytes) * 128,
            journal_bytes_max: u64::from(self.plan.block_bytes) << 12,
            entropy: self.rng_disk.draw(),
            ..config
        }
    }

    /// A process of a flushed class reads its device before it takes its place.
    pub(crate) fn start_store(&mut self, proc: ProcId) {
        let Process { place, node, .. } = self.procs[proc];
        let config = self.store_config(place, node);
        let files = self.disk(place, node).files();
        let store = if files.is_empty() {
            Store::format(config, Inc::ZERO, &files)
        } else {
            Store::recover(config, &files)
        };
        self.procs[proc].has_data = !files.is_empty();
        self.procs[proc].store = Some(Box::new(store));
        self.run_disk(proc);
    }

    fn disk(&mut self, place: Place, node: NodeId) -> &mut Disk {
        let sector = self.plan.sector_bytes as usize;
        self.disks
            .entry((place, node))
            .or_insert_with(|| Disk::new(sector))
    }

    /// Hands the operations of a process's store to its device.
    pub(crate) fn run_disk(&mut self, proc: ProcId) {
        let Process { place, node, .. } = self.procs[proc];
        if !self.plan.class.is_flushed() || !self.procs[proc].alive {
            return;
        }
        let slow = self
            .slow_disks
            .get(&place)
            .is_some_and(|until| *until > self.now);
        while let Some(op) = self.procs[proc].store_mut().and_then(Store::next_op) {
            let checkpoint = matches!(op.file.kind(), Some(FileKind::Checkpoint(_)));
            if self.step(proc, Fault::CrashAtOp)
                || (checkpoint && self.step(proc, Fault::CrashInCheckpoint))
            {
                return;
            }
            if let Some(disk) = self.disks.get_mut(&(place, node))
                && let Some(store) = self.procs[proc].store_mut()
            {
                disk.begin(store, op);
            }
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
        let Process { place, node, .. } = self.procs[proc];
        if !self.procs[proc].alive {
            return;
        }
        let Some(done) = self
            .disks
            .get_mut(&(place, node))
            .and_then(|disk| disk.complete(token, &mut self.rng_disk))
        else {
            return;
        };
        self.count_effects(proc);
        if self.step(proc, Fault::CrashAtDone) {
            return;
        }
        if let Some(store) = self.procs[proc].store_mut() {
            store.complete(token, done.result.as_deref().map_err(|error| *error));
        }
        if self.step(proc, Fault::CrashAfterDone) {
            return;
        }
        // What was asked for may be the last that a start needs.
        self.run_disk(proc);
        if self.procs[proc].store.is_some() && self.procs[proc].join.is_none() {
            self.store_started(proc);
        } else if let Some(StoreState::Failed(failure)) =
            self.procs[proc].store_mut().map(|store| store.state())
        {
            return self.store_failed(proc, failure);
        }
        self.begin_life(proc);
        self.run_disk(proc);
        self.flush_soon(proc);
    }

    fn store_started(&mut self, proc: ProcId) {
        let Process { place, node, .. } = self.procs[proc];
        let Some(store) = &self.procs[proc].store else {
            return;
        };
        let inc = store.inc();
        match store.state() {
            StoreState::Starting => {}
            // A first start that was cut short.
            StoreState::Failed(StoreFailure::NotFormatted) => {
                let files = self.disk(place, node).files();
                let config = self.store_config(place, node);
                self.procs[proc].has_data = false;
                self.procs[proc].store = Some(Box::new(Store::format(config, Inc::ZERO, &files)));
            }
            StoreState::Failed(failure) => self.store_failed(proc, failure),
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
            node: self.procs[proc].node,
            role: role(place),
            log: LOG,
            shard,
            slot,
            vertex: match place {
                Place::Aggregator(vertex) | Place::Leaf(vertex) => VertexId::new(vertex),
                _ => VertexId::ZERO,
            },
        };
        let request = proc as u64 * 1_000_000;
        self.procs[proc].join = Some(Join::new(own, last_inc, has_data, request));
        let peer = Peer::Node(Target::Controller);
        self.procs[proc].dials.insert(peer, None);
        let after = self.rng_proc.below(1_000_000);
        self.after(after, Event::Dial(proc, peer));
    }
}
