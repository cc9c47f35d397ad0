//! Records that a device gives back although a truncation made them void: see [`crate::stream::Owners`].

use ionian_types::{Lsn, Slot, ViewId};

use super::Store;

impl Store {
    /// Tells which generation owns the records of a segment: from each position on, up to the next one's, ascending. The
    /// last one is open, and records of later generations may follow in its range. Positions below the first one have no
    /// known owner.
    ///
    /// Records of other generations that were read back from the device count as damaged from now on, those in memory and
    /// those that are read later: a device that lost the chunk of a truncation gives back what that made void. To be called
    /// after recovery once the owners are known, before [`Self::committed_hint`], and whenever they change. Those found in
    /// memory do not count as durable. No effect at classes that are not flushed.
    pub fn set_owners(&mut self, slot: Slot, owners: impl Iterator<Item = (Lsn, ViewId)>) {
        if !self.on_device() {
            return;
        }
        let segment = self.segment_mut(slot);
        let from = segment
            .owners
            .set(owners.map(|(from, generation)| (from.get(), generation)));
        // What was accepted in this life is what it was accepted as.
        let recovered = segment.recovered;
        let first_kept = segment.first.max(from);
        for chunk in &mut segment.chunks {
            if chunk.first >= recovered || chunk.end <= from {
                continue;
            }
            let Some(buf) = chunk.buf.as_mut() else {
                continue;
            };
            let damage = &mut segment.damage;
            segment.owners.judge(chunk.first, from, buf, |pos| {
                if pos >= first_kept {
                    damage.add(pos, pos + 1, true);
                }
            });
        }
        segment.cap = segment.damage.cap();
        segment.durable = segment.durable.min(segment.cap).max(segment.first);
    }
}
