//! Located runs: which segment holds which positions. A run never changes once ordered, so nothing here goes stale.

use alloc::vec::Vec;

use ionian_types::{EntryNo, Gsn, ShardId};

/// A run of positions in one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Range {
    pub(super) from: Gsn,
    pub(super) to: Gsn,
    pub(super) shard: ShardId,
    pub(super) entry: EntryNo,
}

/// A bounded set of runs, sorted by position.
#[derive(Debug)]
pub(super) struct Ranges {
    sorted: Vec<Range>,
    max: usize,
    /// Which run makes room next: a hand that goes round.
    hand: usize,
}

impl Ranges {
    pub(super) fn new(max: usize) -> Self {
        Self {
            sorted: Vec::with_capacity(max),
            max,
            hand: 0,
        }
    }

    pub(super) fn find(&self, gsn: Gsn) -> Option<&Range> {
        let after = self.sorted.partition_point(|range| range.from <= gsn);
        self.sorted
            .get(after.checked_sub(1)?)
            .filter(|range| gsn < range.to)
    }

    pub(super) fn insert(&mut self, range: Range) {
        if range.from >= range.to {
            return;
        }
        // Runs of honest servers are equal or apart. Whatever overlaps is replaced.
        let first = self.sorted.partition_point(|old| old.to <= range.from);
        let last = self.sorted.partition_point(|old| old.from < range.to);
        self.sorted.drain(first..last);
        if self.sorted.len() == self.max {
            self.hand = (self.hand + 1) % self.max;
            self.sorted.remove(self.hand);
        }
        let at = self.sorted.partition_point(|old| old.from < range.from);
        self.sorted.insert(at, range);
    }

    pub(super) fn remove(&mut self, gsn: Gsn) {
        self.sorted
            .retain(|range| gsn < range.from || range.to <= gsn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_found_was_inserted_and_covers(spans in proptest::collection::vec((0u64..200, 1u64..30), 1..60)) {
            let mut ranges = Ranges::new(8);
            let mut inserted = Vec::new();
            for (i, (from, len)) in spans.into_iter().enumerate() {
                let range = Range {
                    from: Gsn::new(from), to: Gsn::new(from + len),
                    shard: ShardId::new(i as u32), entry: EntryNo::new(i as u64),
                };
                ranges.insert(range);
                inserted.push(range);
                prop_assert_eq!(ranges.find(range.from), Some(&range), "the newest is found");
                prop_assert!(ranges.sorted.len() <= 8);
                prop_assert!(ranges.sorted.windows(2).all(|pair| pair[0].to <= pair[1].from));
                for gsn in (0..240).map(Gsn::new) {
                    if let Some(found) = ranges.find(gsn) {
                        prop_assert!(inserted.contains(found) && found.from <= gsn && gsn < found.to);
                    }
                }
            }
        }
    }
}
