//! Shards that a new edge no longer has: the view has ended them. Their replicas would find out by themselves, but not before they
//! have heard nothing for a while, and clients wait for what became of their records.

use ionian_types::{Knobs, Slot};
use ionian_wire::frame::SyncShard;

use super::Leaf;
use super::shard::Shard;
use crate::outbox::Outbox;

impl<K: Knobs> Leaf<K> {
    /// An edge has begun in place of one with these shards.
    pub(super) fn note_ended(&mut self, before: &[Shard<K>]) {
        let gone = before
            .iter()
            .filter(|it| !self.by_id.contains_key(&it.shard));
        self.ended.clear();
        self.ended.extend(gone.map(|it| (it.shard, it.epoch)));
    }

    /// Tells the replicas of those shards, once, that there are entries which they do not have: they ask the root for them.
    pub(super) fn tell_ended(&mut self, out: &mut Outbox) {
        for (shard, epoch) in core::mem::take(&mut self.ended) {
            let sync = SyncShard {
                log: self.config.log,
                shard,
                epoch,
                last: self.uplink.down_entry,
                complete: self.uplink.down_entry,
                end_gsn: self.uplink.end_gsn,
                trim: self.uplink.trim,
            };
            let of_shard = (shard, Slot::ZERO)..=(shard, Slot::new(u8::MAX));
            for conn in self.replicas.range(of_shard).map(|(_, conn)| conn) {
                if out.room(*conn) > 512 {
                    let _ = out.send(*conn, &sync, &[]);
                }
            }
        }
    }
}
