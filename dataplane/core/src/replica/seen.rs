//! Keeping the dedup sets complete: records that were stored in an earlier life, or before an earlier record was there, are
//! entered in order as the store can read them.
//!
//! A fate of `never` needs a set that saw the whole generation; until then the answer is `unknown`.

use ionian_store::Fetch;
use ionian_types::{Knobs, Lsn, Mutant, Slot};
use ionian_wire::record::{RecordKind, Records};

use super::Replica;

/// Runs entered per segment and flush, so that catching up does not hold up what is urgent.
const RUNS_PER_FLUSH: usize = 2;
/// Bytes of one such run.
const RUN_BYTES: usize = 64 * 1024;

impl<K: Knobs> Replica<K> {
    /// How far the dedup set of a segment is to reach by reading: the own open generation enters records as it takes them.
    fn seen_goal(&self, slot: Slot) -> Lsn {
        let held = self.store.len(slot);
        if slot != self.config.slot {
            return held;
        }
        let opened = self.segment(slot);
        opened.map_or(held, |segment| segment.opened_at.min(held))
    }

    pub(super) fn flush_seen(&mut self) {
        for slot in 0..usize::from(self.config.replicas) {
            let index = Slot::new(slot as u8);
            let goal = self.seen_goal(index);
            if self.dedup_upto[slot] < goal {
                self.see(index, goal);
            }
        }
    }

    #[cold]
    fn see(&mut self, slot: Slot, goal: Lsn) {
        for _ in 0..RUNS_PER_FLUSH {
            let from = self.dedup_upto[slot.index()];
            if from >= goal {
                return;
            }
            if K::mutant(Mutant::DedupNotRebuilt) {
                self.dedup_upto[slot.index()] = goal;
                return;
            }
            match self.store.run(slot, from, goal, RUN_BYTES) {
                Fetch::Ready(run) => {
                    for record in Records::sealed(self.store.bytes(&run)).flatten() {
                        let header = record.header();
                        if header.kind == RecordKind::Data {
                            self.dedup[slot.index()].saw(
                                header.client,
                                header.session,
                                header.generation,
                                header.seq,
                                header.position,
                            );
                        }
                    }
                    self.dedup_upto[slot.index()] =
                        Lsn::new(run.first.get() + u64::from(run.count));
                }
                Fetch::Trimmed => {
                    // Trimmed before it was seen: what it held stays unknown.
                    let first = self.store.first(slot).max(from);
                    self.dedup_upto[slot.index()] = first;
                    self.dedup_from[slot.index()] = first;
                }
                Fetch::Wait | Fetch::Beyond | Fetch::Damaged(_) => return,
            }
        }
    }

    /// Records from `from` to `to` of a segment were entered as they were stored. Whether they may be: only without a gap.
    pub(super) fn may_enter(&mut self, slot: Slot, from: Lsn, to: Lsn) -> bool {
        let upto = &mut self.dedup_upto[slot.index()];
        let follows = *upto == from;
        if follows {
            *upto = to;
        }
        follows
    }

    /// A segment was cut to `len`.
    pub(super) fn unsee(&mut self, slot: Slot, len: Lsn) {
        self.dedup[slot.index()].truncate(len);
        let upto = &mut self.dedup_upto[slot.index()];
        *upto = (*upto).min(len);
    }
}
