//! Records that the device has damaged below the committed length: a peer has good copies, and they take the place of the
//! bad ones.
//!
//! Damage is found when a chunk is read: at a start in what is scanned, later when somebody asks for a record. Until it is
//! repaired the record is not served from here; what was reported as held is not taken back, since a peer holds it too.

use ionian_store::StoreError;
use ionian_types::{Knobs, Lsn, SegmentId, Slot};
use ionian_wire::frame::{CopyData, CopyRequest};
use ionian_wire::record::Records;

use super::Replica;

impl<K: Knobs> Replica<K> {
    /// Whether any record kept here is known to be damaged.
    pub(super) fn is_damaged(&self) -> bool {
        (0..self.config.replicas).any(|slot| !self.store.damaged(Slot::new(slot)).is_empty())
    }

    /// The copy to ask a peer for: of the first damaged committed records of a segment.
    pub(super) fn repair_request(&self, slot: Slot) -> Option<CopyRequest> {
        let state = self.state.as_ref()?;
        let range = *self.store.damaged(slot).first()?;
        let to = range.to.min(self.committed(slot));
        (range.from < to).then_some(CopyRequest {
            segment: SegmentId {
                shard: self.config.shard,
                slot,
            },
            epoch: state.epoch,
            from: range.from,
            to,
        })
    }

    /// Puts copied records in the place of damaged ones, as far as they are wanted. Whether any was.
    pub(super) fn repair_run(&mut self, copy: &CopyData, records: &[u8]) -> bool {
        let slot = copy.segment.slot;
        let mut repaired = false;
        for (position, record) in (copy.from.get()..).zip(Records::sealed(records)) {
            let Ok(record) = record else {
                self.counters.bad_records += 1;
                break;
            };
            let header = record.header();
            let position = Lsn::new(position);
            let wanted = self
                .store
                .damaged(slot)
                .iter()
                .any(|range| range.from == position);
            let owner = self.segment(slot).map(|segment| segment.owner(position));
            let ours = header.log == self.config.log
                && header.segment == copy.segment
                && header.position == position
                && Some(header.generation) == owner
                && position < self.committed(slot);
            if !wanted || !ours {
                self.counters.bad_records += u64::from(!ours);
                break;
            }
            match self.store.repair(slot, record.encoded()) {
                Ok(()) => repaired = true,
                // The chunk is being read back: the same copy is asked for again.
                Err(StoreError::Busy | StoreError::Full | StoreError::DiskFull) => break,
                Err(_) => {
                    self.counters.bad_records += 1;
                    break;
                }
            }
        }
        repaired
    }
}
