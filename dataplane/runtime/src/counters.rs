//! Counters with one writer: a relaxed load and store, no locked instruction, read by anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Keeps one writer's counters off the cache lines of another's.
#[repr(align(128))]
#[derive(Debug)]
struct Block<const N: usize>([AtomicU64; N]);

/// The writing end of `N` counters. Not `Clone`: with two writers counts would be lost.
#[derive(Debug)]
pub struct Counters<const N: usize>(Arc<Block<N>>);

/// The reading end. Values of different counters need not be of one moment.
#[derive(Clone, Debug)]
pub struct CounterReader<const N: usize>(Arc<Block<N>>);

/// Makes `N` counters at zero.
#[must_use]
pub fn counters<const N: usize>() -> (Counters<N>, CounterReader<N>) {
    let block = Arc::new(Block([const { AtomicU64::new(0) }; N]));
    (Counters(block.clone()), CounterReader(block))
}

impl<const N: usize> Counters<N> {
    /// Adds to counter `index`, wrapping.
    ///
    /// # Panics
    ///
    /// If there is no such counter.
    #[inline]
    pub fn add(&mut self, index: usize, count: u64) {
        let counter = &self.0.0[index];
        counter.store(
            counter.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }

    /// Raises counter `index` to `value` if it is lower: for maxima.
    ///
    /// # Panics
    ///
    /// If there is no such counter.
    #[inline]
    pub fn raise(&mut self, index: usize, value: u64) {
        let counter = &self.0.0[index];
        if counter.load(Ordering::Relaxed) < value {
            counter.store(value, Ordering::Relaxed);
        }
    }
}

impl<const N: usize> CounterReader<N> {
    /// The value of counter `index` now.
    ///
    /// # Panics
    ///
    /// If there is no such counter.
    #[must_use]
    pub fn get(&self, index: usize) -> u64 {
        self.0.0[index].load(Ordering::Relaxed)
    }

    /// All values.
    #[must_use]
    pub fn all(&self) -> [u64; N] {
        std::array::from_fn(|index| self.get(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_thread_sees_the_total() {
        let (mut counters, reader) = counters::<2>();
        std::thread::spawn(move || {
            for value in 0..1000 {
                counters.add(0, 2);
                counters.raise(1, value % 500);
            }
        })
        .join()
        .expect("the writer ends");
        assert_eq!(reader.all(), [2000, 499]);
    }
}
