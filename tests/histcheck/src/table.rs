//! Tables that make a judgement linear: numbers that come densely live in a vector, the others in a map.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys nobody chooses to collide: histories come from recorders, not from peers.
pub(crate) type FastMap<K, V> = HashMap<K, V, BuildHasherDefault<FastHasher>>;

/// Multiply and fold, one round per word.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct FastHasher(u64);

impl Hasher for FastHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        let wide = u128::from(self.0 ^ value ^ 0x9e37_79b9_7f4a_7c15)
            * u128::from(0xd6e8_feb8_6659_fd93_u64);
        self.0 = (wide >> 64) as u64 ^ wide as u64;
    }
}

/// A table from numbers to values. Memory grows with the number of entries, not with the numbers.
#[derive(Clone, Debug)]
pub(crate) struct Dense<T> {
    base: u64,
    count: u64,
    dense: Vec<Option<T>>,
    sparse: BTreeMap<u64, T>,
}

/// How far beyond its entries the vector may reach.
const SLACK: u64 = 4096;

impl<T> Default for Dense<T> {
    fn default() -> Self {
        Self {
            base: 0,
            count: 0,
            dense: Vec::new(),
            sparse: BTreeMap::new(),
        }
    }
}

impl<T> Dense<T> {
    /// Every entry, in no order.
    pub(crate) fn for_each(&self, mut take: impl FnMut(u64, &T)) {
        for (at, value) in self.dense.iter().enumerate() {
            if let Some(value) = value {
                take(self.base + at as u64, value);
            }
        }
        self.sparse
            .iter()
            .for_each(|(key, value)| take(*key, value));
    }

    #[cfg(test)]
    fn get(&self, key: u64) -> Option<&T> {
        let slot = key
            .checked_sub(self.base)
            .and_then(|at| self.dense.get(usize::try_from(at).ok()?));
        match slot {
            Some(Some(value)) => Some(value),
            _ if self.sparse.is_empty() => None,
            _ => self.sparse.get(&key),
        }
    }

    /// The entry of a number; made by `make` where there is none.
    #[inline]
    pub(crate) fn entry(&mut self, key: u64, make: impl FnOnce() -> T) -> (&mut T, bool) {
        if self.count == 0 && key > SLACK {
            // A log that was trimmed long ago: begin a little below the first number seen.
            self.base = key - SLACK;
        }
        let at = key.wrapping_sub(self.base);
        if key >= self.base
            && at < self.count.saturating_mul(2).saturating_add(2 * SLACK)
            && (self.sparse.is_empty() || !self.sparse.contains_key(&key))
        {
            let at = at as usize;
            if at >= self.dense.len() {
                self.dense.resize_with(at + 1, || None);
            }
            let slot = &mut self.dense[at];
            let made = slot.is_none();
            self.count += u64::from(made);
            return (slot.get_or_insert_with(make), made);
        }
        let mut made = false;
        let value = self.sparse.entry(key).or_insert_with(|| {
            made = true;
            make()
        });
        self.count += u64::from(made);
        (value, made)
    }

    /// Every entry, by number.
    pub(crate) fn sorted(self) -> Vec<(u64, T)> {
        let base = self.base;
        let dense = self.dense.into_iter().enumerate();
        let dense = dense.filter_map(|(at, value)| Some((base + at as u64, value?)));
        if self.sparse.is_empty() {
            return dense.collect();
        }
        let mut all: Vec<_> = dense.chain(self.sparse).collect();
        all.sort_by_key(|entry| entry.0);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_agrees_with_a_map_whatever_the_numbers() {
        let mut random = 1_u64;
        let mut next = || {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            random >> 20
        };
        for spread in [10, 5_000, 1 << 20, u64::MAX >> 21] {
            let (mut table, mut map) = (Dense::default(), BTreeMap::new());
            for turn in 0..3_000_u64 {
                let key = if turn % 3 == 0 { turn } else { next() % spread };
                let (value, made) = table.entry(key, || turn);
                assert_eq!(made, !map.contains_key(&key));
                assert_eq!(*value, *map.entry(key).or_insert(turn));
                assert_eq!(table.get(key), map.get(&key));
            }
            assert_eq!(table.get(u64::MAX), None);
            assert!(table.dense.len() < 20_000, "{}", table.dense.len());
            assert_eq!(table.sorted(), map.into_iter().collect::<Vec<_>>());
        }
    }
}
