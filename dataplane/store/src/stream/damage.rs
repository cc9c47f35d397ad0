//! The positions of a stream whose entries are damaged.

use ionian_types::Lsn;

use crate::error::DamagedRange;

/// Damaged positions as ranges, ascending and disjoint, with those found at start told apart: they hold the durable
/// length back, as the stream was never reported longer in this life. Damage found later does not, since lengths that
/// were reported never fall; it is repaired all the same.
#[derive(Clone, Default, Debug)]
pub(crate) struct Damage {
    ranges: Vec<DamagedRange>,
    at_start: Vec<DamagedRange>,
    /// Positions found damaged, each once while it is.
    found: u64,
    /// Those of them that were trimmed, or void, before they were repaired.
    gone: u64,
}

impl Damage {
    pub(crate) fn ranges(&self) -> &[DamagedRange] {
        &self.ranges
    }

    /// Positions found damaged so far, and those of them that went away without a repair.
    pub(crate) const fn counts(&self) -> (u64, u64) {
        (self.found, self.gone)
    }

    /// The first position that may not count as durable.
    pub(crate) fn cap(&self) -> u64 {
        self.at_start.first().map_or(u64::MAX, |r| r.from.get())
    }

    pub(crate) fn add(&mut self, from: u64, to: u64, at_start: bool) {
        if from >= to {
            return;
        }
        self.found += insert(&mut self.ranges, from, to);
        if at_start {
            insert(&mut self.at_start, from, to);
        }
    }

    /// The position is good again.
    pub(crate) fn remove(&mut self, pos: u64) {
        remove(&mut self.ranges, pos, pos + 1);
    }

    /// The first position that may not count as durable once every repair made so far is flushed.
    pub(crate) fn cap_when_flushed(&self) -> u64 {
        self.at_start
            .iter()
            .find_map(|old| {
                let still = self
                    .ranges
                    .iter()
                    .find(|range| range.to > old.from && range.from < old.to)?;
                Some(still.from.max(old.from).get())
            })
            .unwrap_or(u64::MAX)
    }

    /// Repairs below `upto` are flushed.
    pub(crate) fn settle(&mut self, upto: u64) {
        remove(&mut self.at_start, 0, upto);
    }

    pub(crate) fn trim(&mut self, upto: u64) {
        self.gone += remove(&mut self.ranges, 0, upto);
        remove(&mut self.at_start, 0, upto);
    }

    pub(crate) fn cut(&mut self, len: u64) {
        self.gone += remove(&mut self.ranges, len, u64::MAX);
        remove(&mut self.at_start, len, u64::MAX);
    }
}

/// Returns how many positions were not there before.
fn insert(ranges: &mut Vec<DamagedRange>, from: u64, to: u64) -> u64 {
    let start = ranges.partition_point(|range| range.to.get() < from);
    let stop = ranges.partition_point(|range| range.from.get() <= to);
    let known: u64 = ranges[start..stop].iter().map(count).sum();
    let merged = ranges[start..stop]
        .iter()
        .fold((from, to), |(from, to), range| {
            (from.min(range.from.get()), to.max(range.to.get()))
        });
    let merged = DamagedRange {
        from: Lsn::new(merged.0),
        to: Lsn::new(merged.1),
    };
    ranges.splice(start..stop, [merged]);
    count(&merged) - known
}

const fn count(range: &DamagedRange) -> u64 {
    range.to.get() - range.from.get()
}

/// Returns how many positions were there.
fn remove(ranges: &mut Vec<DamagedRange>, from: u64, to: u64) -> u64 {
    let mut removed = 0;
    let mut index = 0;
    while index < ranges.len() {
        let range = ranges[index];
        let (start, end) = (range.from.get(), range.to.get());
        if end <= from || start >= to {
            index += 1;
            continue;
        }
        let left = (start < from).then_some(DamagedRange {
            from: range.from,
            to: Lsn::new(from),
        });
        let right = (end > to).then_some(DamagedRange {
            from: Lsn::new(to),
            to: range.to,
        });
        let kept = left.iter().count() + right.iter().count();
        removed += end.min(to) - start.max(from);
        ranges.splice(index..=index, left.into_iter().chain(right));
        index += kept;
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_equal_a_set_of_positions(ops in prop::collection::vec((0..4u8, 0..40u64, 0..8u64), 0..30)) {
            let mut damage = Damage::default();
            let mut model = [false; 64];
            let bad = |model: &[bool]| model.iter().filter(|bad| **bad).count() as u64;
            let (mut found, mut gone) = (0, 0);
            for (op, from, len) in ops {
                let before = bad(&model);
                match op {
                    0 | 1 => {
                        damage.add(from, from + len, true);
                        model[from as usize..(from + len) as usize].fill(true);
                        found += bad(&model) - before;
                    }
                    2 => {
                        damage.remove(from);
                        model[from as usize] = false;
                    }
                    _ if len > 4 => {
                        damage.cut(from);
                        model[from as usize..].fill(false);
                        gone += before - bad(&model);
                    }
                    _ => {
                        damage.trim(from);
                        model[..from as usize].fill(false);
                        gone += before - bad(&model);
                    }
                }
                prop_assert_eq!(damage.counts(), (found, gone));
                let mut listed = [false; 64];
                for range in damage.ranges() {
                    prop_assert!(range.from < range.to);
                    listed[range.from.get() as usize..range.to.get() as usize].fill(true);
                }
                prop_assert_eq!(listed, model);
                damage.settle(damage.cap_when_flushed());
                let first = model.iter().position(|bad| *bad).map_or(u64::MAX, |at| at as u64);
                prop_assert_eq!(damage.cap(), first);
            }
        }
    }
}
