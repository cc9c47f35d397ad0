//! Ranges of cells that hold no data, with the precedence at which each was put.

use std::collections::BTreeMap;

use ionian_types::NsEpoch;

/// A cell's name within a log: namespace epoch, index.
pub(super) type Key = (NsEpoch, u64);

/// What a range of gaps says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gap<T> {
    pub(super) to: u64,
    pub(super) what: T,
    pub(super) precedence: u64,
}

/// Disjoint ranges by their first cell. Neighbours that say the same are one range.
#[derive(Clone, Debug)]
pub(super) struct Gaps<T> {
    ranges: BTreeMap<Key, Gap<T>>,
}

impl<T> Default for Gaps<T> {
    fn default() -> Self {
        Self {
            ranges: BTreeMap::new(),
        }
    }
}

impl<T: Copy + PartialEq> Gaps<T> {
    /// The range that holds a cell.
    pub(super) fn get(&self, key: Key) -> Option<(Key, Gap<T>)> {
        let (from, gap) = self.ranges.range(..=key).next_back()?;
        (from.0 == key.0 && key.1 < gap.to).then_some((*from, *gap))
    }

    /// The first range that holds the cell or lies behind it in the same epoch.
    pub(super) fn next(&self, key: Key) -> Option<(u64, Gap<T>)> {
        if let Some((from, gap)) = self.get(key) {
            return Some((from.1.max(key.1), gap));
        }
        let (from, gap) = self.ranges.range(key..).next()?;
        (from.0 == key.0).then_some((from.1, *gap))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Gap<T>)> {
        self.ranges.iter()
    }

    /// The number of ranges.
    pub(super) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The cell after the last one of an epoch that lies in a range.
    pub(super) fn end(&self, epoch: NsEpoch) -> Option<u64> {
        let (from, gap) = self.ranges.range(..=(epoch, u64::MAX)).next_back()?;
        (from.0 == epoch).then_some(gap.to)
    }

    /// Puts a range over what is there: cells that lie in a range of the same or a greater precedence keep that.
    pub(super) fn put(&mut self, epoch: NsEpoch, from: u64, gap: Gap<T>) {
        let mut at = from;
        while at < gap.to {
            let (stop, keeps) = match self.next((epoch, at)) {
                Some((start, old)) if start <= at => {
                    (old.to.min(gap.to), old.precedence >= gap.precedence)
                }
                Some((start, _)) => (start.min(gap.to), false),
                None => (gap.to, false),
            };
            if !keeps {
                self.cut(epoch, at, stop);
                self.insert(epoch, at, Gap { to: stop, ..gap });
            }
            at = stop;
        }
    }

    /// Takes the cells of a range out of all ranges.
    pub(super) fn cut(&mut self, epoch: NsEpoch, from: u64, to: u64) {
        while let Some((start, gap)) = self.next((epoch, from)) {
            if start >= to {
                break;
            }
            let Some((whole, _)) = self.get((epoch, start)) else {
                break;
            };
            self.ranges.remove(&whole);
            if whole.1 < from {
                self.ranges.insert(whole, Gap { to: from, ..gap });
            }
            if gap.to > to {
                self.ranges.insert((epoch, to), gap);
            }
        }
    }

    /// Takes out everything below a cell, in all epochs.
    pub(super) fn trim(&mut self, below: Key) {
        let mut kept = self.ranges.split_off(&below);
        if let Some((from, gap)) = self.ranges.pop_last()
            && from.0 == below.0
            && gap.to > below.1
        {
            kept.insert(below, gap);
        }
        self.ranges = kept;
    }

    fn insert(&mut self, epoch: NsEpoch, from: u64, gap: Gap<T>) {
        let same = |old: &Gap<T>| old.what == gap.what && old.precedence == gap.precedence;
        let (mut from, mut to) = (from, gap.to);
        if let Some((left, old)) = self.ranges.range(..(epoch, from)).next_back()
            && left.0 == epoch
            && old.to == from
            && same(old)
        {
            from = left.1;
        }
        if let Some(old) = self.ranges.get(&(epoch, to)).copied()
            && same(&old)
        {
            self.ranges.remove(&(epoch, to));
            to = old.to;
        }
        self.ranges.insert((epoch, from), Gap { to, ..gap });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn ranges_equal_an_array(ops in prop::collection::vec((0..4u8, 0..24u64, 0..10u64, 0..3u8, 0..3u64), 0..20)) {
            let epoch = NsEpoch::new(1);
            let mut gaps = Gaps::default();
            let mut model: [Option<(u8, u64)>; 40] = [None; 40];
            for (op, from, len, what, precedence) in ops {
                let to = from + len;
                match op {
                    0 => {
                        gaps.cut(epoch, from, to);
                        model[from as usize..to as usize].fill(None);
                    }
                    1 if len == 0 => {
                        gaps.trim((epoch, from));
                        model[..from as usize].fill(None);
                    }
                    _ => {
                        gaps.put(epoch, from, Gap { to, what, precedence });
                        for cell in &mut model[from as usize..to as usize] {
                            if cell.is_none_or(|(_, old)| old < precedence) {
                                *cell = Some((what, precedence));
                            }
                        }
                    }
                }
                for (index, cell) in model.iter().enumerate() {
                    let found = gaps.get((epoch, index as u64)).map(|(_, gap)| (gap.what, gap.precedence));
                    prop_assert_eq!(found, *cell, "cell {}", index);
                    prop_assert!(gaps.get((NsEpoch::new(0), index as u64)).is_none());
                }
                let pieces: Vec<_> = gaps.iter().collect();
                for pair in pieces.windows(2) {
                    let touching = pair[0].1.to == pair[1].0.1;
                    let same = (pair[0].1.what, pair[0].1.precedence) == (pair[1].1.what, pair[1].1.precedence);
                    prop_assert!(!(touching && same), "two ranges that are one");
                }
            }
        }
    }
}
