//! The start of an edge: the shards and lengths that the parent names, and the table for those whose lengths are a k-th largest.

use alloc::vec::Vec;

use ionian_slots::Table;
use ionian_types::{Knobs, Mutant, Slot, Time};
use ionian_wire::Reader;
use ionian_wire::frame::ShardStart;

use super::shard::Shard;
use super::{Leaf, NONE};
use crate::outbox::Outbox;

impl<K: Knobs> Leaf<K> {
    /// ORDERING.md, LEAF: on EdgeStart the given lengths are round 0.
    pub(super) fn begin_edge(&mut self, now: Time, out: &mut Outbox) {
        let Some(start) = self.uplink.started() else {
            return;
        };
        // What came before on the edge that ends is sent first; who has no connection asks the cut log.
        self.counters.skipped += self.downs.send(self.config.log, &self.shards, out, &mut ());
        // What was read of members goes with them.
        self.settle_seats();
        let mut reader = Reader::new(start.shards());
        let (mut shards, mut lasts) = (Vec::new(), Vec::new());
        self.start.clear();
        while let Ok(given) = ShardStart::read(&mut reader) {
            let kept = self.by_id.get(&given.shard).map(|at| &self.shards[*at]);
            let mut shard = Shard::new(&given, self.start.len(), kept);
            for slot in 0..given.members().len() {
                let slot = Slot::new(slot as u8);
                shard.set_conn(slot, self.replicas.get(&(given.shard, slot)).copied());
            }
            self.start.extend(given.segments().map(|(_, len)| {
                if K::mutant(Mutant::RootOnlyClamp) {
                    NONE
                } else {
                    len
                }
            }));
            shards.push(shard);
            lasts.push(given.last);
        }
        self.by_id = shards
            .iter()
            .enumerate()
            .map(|(at, shard)| (shard.shard, at))
            .collect();
        let before = core::mem::replace(&mut self.shards, shards);
        self.note_ended(&before);
        self.lens.clone_from(&self.start);
        let records = self.start.iter().map(|len| len.get());
        self.total = records.fold(0, u64::wrapping_add);
        self.growth.clear();
        self.growth.resize(self.start.len(), 0);
        self.grown.reset(self.start.len());
        self.rounds.start(self.start.iter().copied());
        self.told = None;
        // Reports that came before count for the shards whose epoch did not change.
        self.dirty.clear();
        self.downs.start(&self.shards, lasts.into_iter());
        self.tabulate();
        self.prepare_seats();
        self.look_again(now);
        self.sync_at = now;
        self.sync_left = 0;
        self.sync_next = 0;
        self.counters.edge_starts += 1;
    }

    /// Makes the table anew, of those shards that have the first one's rule, with what is known.
    fn tabulate(&mut self) {
        let rule = self.shards.iter().find_map(Shard::rule);
        self.table =
            rule.and_then(|(members, quorum)| Table::new(self.shards.len(), members, quorum).ok());
        for (at, shard) in self.shards.iter_mut().enumerate() {
            shard.in_table = self.table.is_some() && shard.rule() == rule;
            let Some(table) = self.table.as_mut() else {
                shard.dirty = true;
                self.dirty.push(at);
                continue;
            };
            if !shard.in_table {
                table.exclude(at);
                shard.dirty = true;
                self.dirty.push(at);
                continue;
            }
            for slot in 0..shard.members.len() {
                let floor = self.lens[shard.first_segment + slot];
                table.raise_floor(at, slot, floor.get());
                if let Some(lens) = shard.counted(Slot::new(slot as u8)) {
                    table.set(at, slot, &lens[..shard.members.len()]);
                }
            }
        }
        if let Some(table) = &mut self.table {
            table.mark_all();
        }
    }
}
