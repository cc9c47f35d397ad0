//! Which generation of writers owns which records of a segment, as the machine above knows it.
//!
//! What a truncation made void stays on the device, in the chunk that the truncation left. It is stepped over because the
//! next chunk says where it begins. A device that loses that chunk gives back the void records: their checksums, their
//! segment and their positions are right, and only their generation tells that they do not count.

use ionian_types::ViewId;
use ionian_wire::record::parse_header;

use crate::chunk::ChunkBuf;
use crate::format::Place;

/// The owners of the records of one segment. Knows of none until it is told.
#[derive(Clone, Default, Debug)]
pub(crate) struct Owners {
    /// From each position on, up to the next one's. Ascending.
    table: Vec<(u64, ViewId)>,
    /// Records below it that were in memory have been judged. Owners of closed ranges never change.
    judged: u64,
}

impl Owners {
    /// Takes over what is known now, and returns the position from which records in memory are to be judged.
    pub(crate) fn set(&mut self, owners: impl Iterator<Item = (u64, ViewId)>) -> u64 {
        self.table.clear();
        self.table.extend(owners);
        debug_assert!(self.table.is_sorted_by_key(|(from, _)| *from));
        let settled = self.table.last().map_or(0, |(from, _)| *from);
        let judged = self.judged;
        self.judged = judged.max(settled);
        judged
    }

    /// Whether a record of this generation may stand at this position. The last owner is the current one: records of later
    /// ones may follow, whose views are not known here yet.
    fn allow(&self, pos: u64, generation: ViewId) -> bool {
        let after = self.table.partition_point(|(from, _)| *from <= pos);
        match after.checked_sub(1).map(|at| self.table[at].1) {
            None => true,
            Some(owner) if after == self.table.len() => generation >= owner,
            Some(owner) => generation == owner,
        }
    }

    /// Marks the entries at and above `from` that are not their owners' as damaged. Calls `found` for each.
    pub(crate) fn judge(
        &self,
        first: u64,
        from: u64,
        buf: &mut ChunkBuf,
        mut found: impl FnMut(u64),
    ) {
        if self.table.is_empty() {
            return;
        }
        let mut hole = None;
        for (at, place) in buf.places.iter_mut().enumerate() {
            let pos = first + at as u64;
            let offset = place.offset();
            if !place.is_damaged() {
                let allowed = || {
                    let header = parse_header(&buf.bytes[offset as usize..]);
                    header.is_ok_and(|header| self.allow(pos, header.generation))
                };
                if pos < from || allowed() {
                    hole = None;
                    continue;
                }
                found(pos);
            }
            // A hole has one place: where it begins.
            *place = Place::damaged(*hole.get_or_insert(offset));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(owners: &Owners, pos: u64, generation: u64) -> bool {
        owners.allow(pos, ViewId::new(generation))
    }

    #[test]
    fn closed_ranges_have_one_owner_and_the_open_one_may_have_later_ones() {
        let mut owners = Owners::default();
        assert!(allowed(&owners, 3, 9), "nothing is known yet");
        let table = [(2, 1), (5, 4), (5, 6)];
        let table = table.map(|(from, generation)| (from, ViewId::new(generation)));
        assert_eq!(owners.set(table.into_iter()), 0);
        assert!(allowed(&owners, 1, 9), "trimmed");
        assert!(allowed(&owners, 2, 1) && allowed(&owners, 4, 1));
        assert!(!allowed(&owners, 4, 4) && !allowed(&owners, 4, 6));
        assert!(!allowed(&owners, 5, 1) && !allowed(&owners, 5, 4));
        assert!(allowed(&owners, 5, 6) && allowed(&owners, 8, 7));
        assert_eq!(
            owners.set(table.into_iter()),
            5,
            "judged up to the open range"
        );
    }
}
