//! The index arithmetic of the four rings of an AF_XDP socket: one producer and one consumer, of which the kernel is one.
//!
//! A ring has a power of two of entries and two indices that only grow and wrap at 2^32. Entries from the consumer's
//! index to the producer's are full, all others are free. Each side writes its own index with a release store once per
//! batch and reads the other's with an acquire load, only when what it remembers no longer suffices. So an entry is
//! written before it is seen, and read before it is written again.
//!
//! The arithmetic is generic over the memory that the words live in, so that the model tests run this very code. What
//! the other side writes is not believed: indices that are further apart than the ring is long make it look full to a
//! producer and empty to a consumer, for ever; nothing is read or written beyond it.
//!
//! *Source*: Documentation/networking/af_xdp.rst of the Linux kernel, section "Rings".

use std::fmt;
use std::sync::atomic::Ordering;

#[cfg(loom)]
use loom::sync::atomic::fence;
#[cfg(not(loom))]
use std::sync::atomic::fence;

/// The words of one ring that both sides see. Indices are those of the kernel's ABI: they grow and wrap at 2^32.
pub trait RingWords {
    /// One entry: a descriptor, or the address of a frame.
    type Entry: Copy;

    /// Number of entries, a power of two.
    fn entries(&self) -> u32;

    /// The producer's index.
    fn load_producer(&self, order: Ordering) -> u32;

    /// The consumer's index.
    fn load_consumer(&self, order: Ordering) -> u32;

    /// Publishes the producer's index. Only the producer calls it.
    fn store_producer(&self, index: u32, order: Ordering);

    /// Publishes the consumer's index. Only the consumer calls it.
    fn store_consumer(&self, index: u32, order: Ordering);

    /// Whether the consumer has said that it looks at the ring only when it is called.
    fn load_asleep(&self, order: Ordering) -> bool;

    /// Copies out the entry at `slot`, in `0..entries()`. Only the consumer calls it, for a full entry.
    fn read(&self, slot: u32) -> Self::Entry;

    /// Fills the entry at `slot`, in `0..entries()`. Only the producer calls it, for a free entry.
    fn write(&self, slot: u32, entry: Self::Entry);
}

/// The end of a ring that fills entries.
pub struct Producer<W> {
    words: W,
    /// Index of the next entry to fill, unpublished ones included.
    next: u32,
    published: u32,
    /// The consumer's index when last looked at: at least the room it shows is free.
    consumer_seen: u32,
}

impl<W> fmt::Debug for Producer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("next", &self.next)
            .field("published", &self.published)
            .finish_non_exhaustive()
    }
}

impl<W: RingWords> Producer<W> {
    /// Takes the producing end of a ring, from where its index stands.
    ///
    /// # Panics
    ///
    /// If the number of entries is not a power of two.
    #[must_use]
    pub fn new(words: W) -> Self {
        assert!(words.entries().is_power_of_two());
        let next = words.load_producer(Ordering::Relaxed);
        let consumer_seen = words.load_consumer(Ordering::Acquire);
        Self {
            words,
            next,
            published: next,
            consumer_seen,
        }
    }

    /// Fills the next entry. `false` when the ring is full: backpressure, nothing has changed. The consumer sees it after
    /// [`Producer::publish`].
    #[inline]
    pub fn push(&mut self, entry: W::Entry) -> bool {
        let entries = self.words.entries();
        if self.next.wrapping_sub(self.consumer_seen) >= entries {
            self.consumer_seen = self.words.load_consumer(Ordering::Acquire);
            if self.next.wrapping_sub(self.consumer_seen) >= entries {
                return false;
            }
        }
        self.words.write(self.next & (entries - 1), entry);
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Shows the consumer what was pushed. Returns whether there was anything new.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.published == self.next {
            return false;
        }
        self.published = self.next;
        self.words.store_producer(self.next, Ordering::Release);
        true
    }

    /// Published entries that the consumer has not taken yet, in `0..=entries`.
    #[inline]
    pub fn pending(&mut self) -> u32 {
        self.consumer_seen = self.words.load_consumer(Ordering::Acquire);
        self.published
            .wrapping_sub(self.consumer_seen)
            .min(self.words.entries())
    }

    /// Whether the consumer must be called to see what was published: it has said that it sleeps. A consumer that says so
    /// looks at the ring once more before it does; of the two, one sees the other, by the fence here and one there.
    #[inline]
    pub fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.words.load_asleep(Ordering::Relaxed)
    }
}

/// The end of a ring that empties entries.
pub struct Consumer<W> {
    words: W,
    /// Index of the next entry to take, unreleased ones included.
    next: u32,
    released: u32,
    /// The producer's index when last looked at: entries up to it are full.
    producer_seen: u32,
}

impl<W> fmt::Debug for Consumer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("next", &self.next)
            .field("released", &self.released)
            .finish_non_exhaustive()
    }
}

impl<W: RingWords> Consumer<W> {
    /// Takes the consuming end of a ring, from where its index stands.
    ///
    /// # Panics
    ///
    /// If the number of entries is not a power of two.
    #[must_use]
    pub fn new(words: W) -> Self {
        assert!(words.entries().is_power_of_two());
        let next = words.load_consumer(Ordering::Relaxed);
        Self {
            words,
            next,
            released: next,
            producer_seen: next,
        }
    }

    /// Whether an entry waits.
    #[inline]
    pub fn has_entry(&mut self) -> bool {
        if self.producer_seen == self.next {
            self.producer_seen = self.words.load_producer(Ordering::Acquire);
        }
        // An index behind ours, or ahead by more than the ring holds, is not one that a producer can have.
        let full = self.producer_seen.wrapping_sub(self.next);
        full != 0 && full <= self.words.entries()
    }

    /// Takes the oldest entry. Its place is the producer's again after [`Consumer::release`].
    #[inline]
    pub fn pop(&mut self) -> Option<W::Entry> {
        if !self.has_entry() {
            return None;
        }
        let entry = self.words.read(self.next & (self.words.entries() - 1));
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    /// Gives the places of what was taken back to the producer.
    #[inline]
    pub fn release(&mut self) {
        if self.released != self.next {
            self.released = self.next;
            self.words.store_consumer(self.next, Ordering::Release);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::VecDeque;
    use std::rc::Rc;

    use super::*;

    /// Memory of one thread: the model says what should come out.
    #[derive(Clone)]
    struct Plain {
        entries: Rc<RefCell<Vec<u64>>>,
        indices: Rc<[Cell<u32>; 2]>,
    }

    impl Plain {
        fn at(entries: u32, start: u32) -> Self {
            Self {
                entries: Rc::new(RefCell::new(vec![0; entries as usize])),
                indices: Rc::new([Cell::new(start), Cell::new(start)]),
            }
        }
    }

    impl RingWords for Plain {
        type Entry = u64;

        fn entries(&self) -> u32 {
            self.entries.borrow().len() as u32
        }

        fn load_producer(&self, _order: Ordering) -> u32 {
            self.indices[0].get()
        }

        fn load_consumer(&self, _order: Ordering) -> u32 {
            self.indices[1].get()
        }

        fn store_producer(&self, index: u32, _order: Ordering) {
            self.indices[0].set(index);
        }

        fn store_consumer(&self, index: u32, _order: Ordering) {
            self.indices[1].set(index);
        }

        fn load_asleep(&self, _order: Ordering) -> bool {
            false
        }

        fn read(&self, slot: u32) -> u64 {
            self.entries.borrow()[slot as usize]
        }

        fn write(&self, slot: u32, entry: u64) {
            self.entries.borrow_mut()[slot as usize] = entry;
        }
    }

    /// Steps of a linear congruential generator: the same on every run.
    fn dice(state: &mut u64) -> u32 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as u32
    }

    #[test]
    fn a_ring_is_a_bounded_queue_wherever_its_indices_start() {
        for start in [0, 5, u32::MAX - 9, u32::MAX] {
            for entries in [1, 2, 8, 64] {
                let words = Plain::at(entries, start);
                let (mut tx, mut rx) = (Producer::new(words.clone()), Consumer::new(words));
                // Pushed and not published, published and not taken, taken and not released.
                let (mut staged, mut visible, mut taken) = (VecDeque::new(), VecDeque::new(), 0);
                let (mut state, mut number) = (u64::from(start) + u64::from(entries), 0u64);
                for _ in 0..5_000 {
                    match dice(&mut state) % 8 {
                        0..=2 => {
                            let full = staged.len() + visible.len() + taken == entries as usize;
                            assert_eq!(tx.push(number), !full);
                            if !full {
                                staged.push_back(number);
                            }
                            number += 1;
                        }
                        3 => {
                            assert_eq!(tx.publish(), !staged.is_empty());
                            visible.append(&mut staged);
                        }
                        4..=6 => {
                            assert_eq!(rx.has_entry(), !visible.is_empty());
                            let expected = visible.pop_front();
                            taken += usize::from(expected.is_some());
                            assert_eq!(rx.pop(), expected);
                        }
                        _ => {
                            rx.release();
                            taken = 0;
                            assert_eq!(tx.pending() as usize, visible.len());
                        }
                    }
                }
                assert!(number > 1_000);
            }
        }
    }

    #[test]
    fn indices_that_no_correct_side_has_stop_the_ring() {
        let words = Plain::at(4, 100);
        let mut tx = Producer::new(words.clone());
        for consumer in [101, 50, u32::MAX, 95] {
            words.indices[1].set(consumer);
            tx.consumer_seen = consumer;
            assert!(!tx.push(1), "consumer at {consumer}, producer at 100");
            assert!(tx.pending() <= 4);
        }
        let words = Plain::at(4, 100);
        let mut rx = Consumer::new(words.clone());
        for producer in [99, 105, 0, u32::MAX] {
            words.indices[0].set(producer);
            rx.producer_seen = rx.next;
            assert_eq!(rx.pop(), None, "producer at {producer}, consumer at 100");
        }
    }
}
