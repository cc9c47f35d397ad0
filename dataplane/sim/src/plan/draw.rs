//! What a seed draws. Each part that came later has a stream of its own, so that what a seed drew before stays as it was.

use ionian_types::{Durability, Nanos};

use super::{FAULTS, Fault, Network, Plan};
use crate::rng::Rng;

impl Plan {
    /// Drawn from a seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::stream(seed, "plan");
        let mut plan = Self::calm();
        if rng.permille(250) {
            plan.network = Network::Datagram;
        } else if rng.permille(400) {
            plan.class = Durability::D1;
            plan.checkpoint_every = rng.pick(&[20, 200, 1 << 17]);
            // Long and short beside how long a replica stays away.
            plan.gone = Nanos::from_ms(rng.pick(&[30, 200, 30_000]));
            plan.cut_log_chunk_entries = rng.pick(&[8, 32, 128, 4096]);
        }
        plan.draw_quorum(seed);
        plan.draw_roots(seed);
        plan.clients = rng.range(2, 4) as u32;
        plan.buffer_bytes = rng.pick(&[5 << 10, 12 << 10, 64 << 10, 1 << 20]);
        plan.payload_bytes_max = rng.pick(&[8, 64, 400, 2000]);
        plan.chunk_bytes = rng.pick(&[16 << 10, 64 << 10]);
        plan.think_ns = rng.pick(&[300_000, 600_000, 1_200_000]);
        plan.outstanding_max = rng.pick(&[1, 16, 256]) as u32;
        plan.trims = rng.permille(400);
        plan.clocks = rng.permille(500);
        plan.moves = rng.permille(700);
        plan.cut_interval_us = rng.pick(&[0, 0, 100, 2000]);
        plan.fault_ns = rng.pick(&[100, 100, 200, 200, 400, 400, 400, 2000]) * 1_000_000;
        if plan.network == Network::Datagram {
            plan.think_ns = 1_500_000;
            plan.fault_ns = rng.pick(&[150, 150, 400]) * 1_000_000;
        }
        plan.draw_devices(seed);
        plan.calls = [1000, rng.pick(&[1000, 1200, 2000])];
        // At D0 processes, at flushed classes all devices of a shard.
        let odds = if plan.class.is_flushed() { 120 } else { 250 };
        plan.beyond_f = rng.permille(odds);
        for fault in FAULTS.into_iter().filter(|fault| !fault.is_late()) {
            let odds = match fault {
                _ if plan.is_beyond(fault) => 300 * u64::from(plan.beyond_f),
                Fault::CrashRoot | Fault::CrashShard | Fault::CrashAll => 120,
                Fault::CrashReplica | Fault::Reset | Fault::Corrupt | Fault::LoseDisk => 450,
                Fault::OldImage | Fault::CrashInCheckpoint | Fault::RotCheckpoint => 450,
                _ => 250,
            };
            let fits = fault.fits(plan.network, plan.class) && !fault.is_consequence();
            let fits = fits && !fault.is_change() && !fault.is_of_tree();
            let fits = fits && fault != Fault::Strand;
            if rng.permille(odds) && fits {
                let most = if matches!(fault, Fault::Reset) { 12 } else { 4 };
                let count = rng.range(1, most);
                plan.faults.push((fault, count));
            }
        }
        let mut rng = Rng::stream(seed, "legal core");
        plan.legal_core = !plan.beyond_f && rng.permille(600);
        if plan.faults.is_empty() {
            plan.faults.push((Fault::Reset, 2));
        }
        plan.draw_cut_log(seed);
        plan.draw_changes(seed);
        plan.draw_strand(seed);
        plan.draw_tree(seed);
        plan.draw_tree_faults(seed);
        plan
    }

    /// Of some seeds a shard has three replicas of which two must hold a record, from a stream of its own.
    fn draw_quorum(&mut self, seed: u64) {
        let mut rng = Rng::stream(seed, "quorum");
        if rng.permille(350) {
            (self.replicas, self.quorum) = (3, 2);
            if self.class == Durability::D1 && rng.permille(350) {
                self.class = Durability::D2;
            }
        }
    }

    /// The root groups of some seeds have several members, from a stream of its own.
    fn draw_roots(&mut self, seed: u64) {
        let mut rng = Rng::stream(seed, "roots");
        if rng.permille(450) {
            (self.roots, self.all_write) =
                rng.pick(&[(2, true), (3, false), (3, false), (3, true)]);
        }
    }

    /// In some seeds with a root group its leader is left alone with clients, from a stream of its own.
    fn draw_strand(&mut self, seed: u64) {
        let mut rng = Rng::stream(seed, "strand");
        if self.roots > 1 && rng.permille(350) {
            let count = rng.range(1, 4);
            self.faults.push((Fault::Strand, count));
        }
    }

    /// In some seeds operators change the cluster, from a stream of its own: after the faults, which keep their places.
    fn draw_changes(&mut self, seed: u64) {
        let mut rng = Rng::stream(seed, "changes");
        if !rng.permille(400) {
            return;
        }
        // What a shard of the core waits for may be outside of it.
        self.legal_core = false;
        let changes = FAULTS.into_iter().filter(|fault| fault.is_change());
        for fault in changes.filter(|fault| !fault.is_late()) {
            let fits = match fault {
                // Else it is copies that move, of shards that have ended.
                Fault::ReplaceReplica => {
                    let ends = |(fault, _): &(Fault, u64)| *fault == Fault::FinalizeShard;
                    self.spare() > 0 || self.faults.iter().any(ends)
                }
                Fault::MoveLeader | Fault::SetRoot => self.roots > 1,
                _ => true,
            };
            if rng.permille(450) && fits {
                let count = rng.range(1, 3);
                self.faults.push((fault, count));
            }
        }
        // What the members of a shard that has ended may miss stays in the cut log until it is trimmed.
        let ends =
            |(fault, _): &(Fault, u64)| matches!(fault, Fault::FinalizeShard | Fault::DrainNode);
        if self.faults.iter().any(ends) {
            self.cut_log_bytes_max = Self::calm().cut_log_bytes_max;
        }
    }

    /// What happens to the ordering tree, from a stream of its own: after all others, which keep their places. One leaf has fewer
    /// of these faults.
    fn draw_tree_faults(&mut self, seed: u64) {
        let mut rng = Rng::stream(seed, "tree faults");
        let inner = self.tree.len() > 1;
        let none = if inner { 250 } else { 700 };
        let (changes, calm) = (self.changes(), rng.permille(none));
        for fault in FAULTS.into_iter().filter(|fault| fault.is_of_tree()) {
            let aggregators = self.tree.iter().any(|(children, _)| *children > 0);
            let fits = fault != Fault::CrashAggregator || aggregators;
            let (drawn, count) = (rng.permille(300), rng.range(1, 4));
            if drawn && !calm && fits && fault.fits(self.network, self.class) {
                self.faults.push((fault, count));
            }
        }
        if changes && rng.permille(450) {
            self.faults.push((Fault::SetTree, rng.range(1, 4)));
        }
    }

    /// A cut log that is full now and then, from a stream of its own. Not where a place stays away for long: what its members
    /// have not applied is kept for them, and at last nothing is ordered.
    fn draw_cut_log(&mut self, seed: u64) {
        let mut rng = Rng::stream(seed, "cut log");
        if !self.class.is_flushed() || self.legal_core || self.beyond_f || !rng.permille(400) {
            return;
        }
        // More than a chunk of the largest entries takes: what is not dropped yet is one chunk, at least.
        self.cut_log_bytes_max = rng.pick(&[4 << 10, 8 << 10]);
        self.cut_log_chunk_entries = 8;
        self.gone = Nanos::from_ms(rng.pick(&[30, 200]));
    }

    /// What the devices are like, from a stream of its own.
    fn draw_devices(&mut self, seed: u64) {
        let mut rng = Rng::stream(seed, "devices");
        if !self.class.is_flushed() {
            return;
        }
        if rng.permille(300) {
            self.block_bytes = 4096;
            self.chunk_bytes = 64 << 10;
            self.sector_bytes = rng.pick(&[512, 4096]);
        }
        if rng.permille(150) {
            // Little more than a store must have, and records that fill it; trims make room.
            self.chunk_bytes = self.block_bytes.max(2048) * 8;
            self.payload_bytes_max = 2000;
            let small = self.small_bytes();
            self.space_bytes = rng.pick(&[
                [small; 3],
                [small, 256 << 20, small],
                [256 << 20, small, small],
            ]);
            self.trims = true;
        }
    }
}
