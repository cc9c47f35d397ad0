//! A set of small numbers that is filled in any order and read in ascending order.

use alloc::vec::Vec;
use core::ops::Range;

/// The set. Numbers are below the length that it was made with.
#[derive(Default, Debug)]
pub(crate) struct Marks {
    words: Vec<u64>,
    any: bool,
}

impl Marks {
    /// Empties the set, for numbers below `len`.
    pub(crate) fn reset(&mut self, len: usize) {
        self.words.clear();
        self.words.resize(len.div_ceil(64), 0);
        self.any = false;
    }

    /// Adds a number; whether it is new.
    #[inline]
    pub(crate) fn set(&mut self, at: usize) -> bool {
        let (word, bit) = (&mut self.words[at / 64], 1 << (at % 64));
        let new = *word & bit == 0;
        *word |= bit;
        self.any = true;
        new
    }

    /// Adds `count` numbers from `first` on.
    #[inline]
    pub(crate) fn set_run(&mut self, first: usize, count: usize) {
        let (mut at, end) = (first, first + count);
        while at < end {
            let bits = (64 - at % 64).min(end - at);
            self.words[at / 64] |= (u64::MAX >> (64 - bits)) << (at % 64);
            at += bits;
        }
        self.any |= count > 0;
    }

    /// Hands out the numbers in runs, ascending: the first of each and how many there are. A run ends where a word does.
    #[inline]
    pub(crate) fn each_run(&self, mut each: impl FnMut(usize, usize)) {
        for (at, word) in self.words.iter().enumerate() {
            let mut rest = *word;
            while rest != 0 {
                let first = rest.trailing_zeros();
                let count = (rest >> first).trailing_ones();
                each(at * 64 + first as usize, count as usize);
                rest &= u64::MAX.checked_shl(first + count).unwrap_or(0);
            }
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        !self.any
    }

    /// The numbers, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut rest = *word;
            core::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                rest &= rest.wrapping_sub(1);
                (bit < 64).then_some(at * 64 + bit as usize)
            })
        })
    }

    /// From the smallest number to the one after the largest.
    pub(crate) fn span(&self) -> Range<usize> {
        let first = self.words.iter().position(|word| *word != 0);
        let last = self.words.iter().rposition(|word| *word != 0);
        match (first, last) {
            (Some(first), Some(last)) => {
                let from = first * 64 + self.words[first].trailing_zeros() as usize;
                from..last * 64 + 64 - self.words[last].leading_zeros() as usize
            }
            _ => 0..0,
        }
    }

    /// Removes all of them.
    pub(crate) fn clear(&mut self) {
        if self.any {
            self.words.fill(0);
            self.any = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_in_order_once() {
        let mut marks = Marks::default();
        marks.reset(130);
        assert!(marks.is_empty());
        let new: Vec<bool> = [129, 0, 64, 63, 0].map(|at| marks.set(at)).to_vec();
        assert_eq!(new, [true, true, true, true, false]);
        assert_eq!(marks.iter().collect::<Vec<_>>(), [0, 63, 64, 129]);
        assert_eq!(marks.span(), 0..130);
        marks.clear();
        assert!(marks.is_empty() && marks.iter().next().is_none());
        assert_eq!(marks.span(), 0..0);
        marks.set(70);
        assert_eq!(marks.span(), 70..71);
    }

    #[test]
    fn runs_are_the_numbers_in_them() {
        for runs in [
            &[(0usize, 64usize), (70, 1), (100, 28)][..],
            &[(1, 62), (64, 64), (129, 1)],
            &[(63, 2), (66, 0), (120, 10)],
            &[],
        ] {
            let mut marks = Marks::default();
            marks.reset(130);
            for (first, count) in runs {
                marks.set_run(*first, *count);
            }
            let wanted: Vec<usize> = runs
                .iter()
                .flat_map(|(at, count)| *at..at + count)
                .collect();
            assert_eq!(marks.iter().collect::<Vec<_>>(), wanted);
            assert_eq!(marks.is_empty(), wanted.is_empty());
            let mut found = Vec::new();
            marks.each_run(|first, count| found.extend(first..first + count));
            assert_eq!(found, wanted);
        }
    }
}
