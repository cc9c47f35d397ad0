//! A queue that never grows: its room is allocated once, and a full one hands the item back.

use std::collections::VecDeque;

/// First-in first-out queue with a fixed capacity. The unit of exchange of every driver: bursts, events, completions.
#[derive(Debug)]
pub struct Bounded<T> {
    items: VecDeque<T>,
    capacity: usize,
}

impl<T> Bounded<T> {
    /// Allocates room for `capacity` items; the queue never holds more.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            items: VecDeque::with_capacity(capacity),
            capacity,
        }
    }

    /// Appends an item.
    ///
    /// # Errors
    ///
    /// Hands the item back when the queue is full. Effect: none.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.is_full() {
            return Err(item);
        }
        self.items.push_back(item);
        Ok(())
    }

    /// Puts an item before all others, for one that was popped and could not be used.
    ///
    /// # Errors
    ///
    /// Hands the item back when the queue is full. Effect: none.
    pub fn push_front(&mut self, item: T) -> Result<(), T> {
        if self.is_full() {
            return Err(item);
        }
        self.items.push_front(item);
        Ok(())
    }

    /// Takes the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// The item at `index`, 0 being the oldest.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&T> {
        self.items.get(index)
    }

    /// The item at `index` for change, 0 being the oldest.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.items.get_mut(index)
    }

    /// Takes the item at `index`, 0 being the oldest; later ones move up.
    pub fn remove(&mut self, index: usize) -> Option<T> {
        self.items.remove(index)
    }

    /// Items from the oldest to the newest.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter()
    }

    /// Number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether `push` would refuse.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.items.len() >= self.capacity
    }

    /// Items that still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.capacity - self.items.len()
    }

    /// The most items the queue holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_hands_back_and_never_grows() {
        let mut queue = Bounded::with_capacity(2);
        assert_eq!(queue.push(1), Ok(()));
        assert_eq!(queue.push(2), Ok(()));
        assert_eq!(queue.push(3), Err(3));
        assert_eq!(queue.push_front(0), Err(0));
        assert_eq!((queue.pop(), queue.room()), (Some(1), 1));
        assert_eq!(queue.push_front(1), Ok(()));
        assert_eq!(queue.iter().copied().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(
            (queue.remove(1), queue.get(0), queue.capacity()),
            (Some(2), Some(&1), 2)
        );
    }
}
