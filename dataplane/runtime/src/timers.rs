//! Deadlines of one reactor: a fixed table and an indexed heap over it. Nothing is allocated after creation.

use ionian_driver_api::Time;

/// Names a timer that was set. Stale once it fired or was cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimerId {
    slot: u32,
    generation: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    deadline: Time,
    /// Where the slot stands in the heap while the timer is set.
    position: u32,
    value: Option<T>,
}

/// Up to `capacity` timers, each with a value that comes back when it fires.
#[derive(Debug)]
pub struct Timers<T> {
    slots: Box<[Slot<T>]>,
    free: Vec<u32>,
    /// Slots in heap order: none has a later deadline than its children.
    heap: Vec<u32>,
}

impl<T> Timers<T> {
    /// Room for `capacity` timers.
    #[must_use]
    pub fn with_capacity(capacity: u32) -> Self {
        let slot = |_| Slot {
            generation: 0,
            deadline: Time::ZERO,
            position: 0,
            value: None,
        };
        Self {
            slots: (0..capacity).map(slot).collect(),
            free: (0..capacity).rev().collect(),
            heap: Vec::with_capacity(capacity as usize),
        }
    }

    /// Sets a timer.
    ///
    /// # Errors
    ///
    /// Hands the value back when all are in use: backpressure. Effect: none.
    pub fn set(&mut self, deadline: Time, value: T) -> Result<TimerId, T> {
        let Some(index) = self.free.pop() else {
            return Err(value);
        };
        let slot = &mut self.slots[index as usize];
        slot.deadline = deadline;
        slot.value = Some(value);
        let generation = slot.generation;
        self.heap.push(index);
        self.rise(self.heap.len() - 1);
        Ok(TimerId {
            slot: index,
            generation,
        })
    }

    /// Takes a timer back. `None` if it fired or was cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> Option<T> {
        let slot = self.slots.get(id.slot as usize)?;
        if slot.generation != id.generation || slot.value.is_none() {
            return None;
        }
        self.remove(slot.position as usize)
    }

    /// The next timer whose deadline is not after `now`, earliest first. Call until it answers `None`.
    pub fn fire(&mut self, now: Time) -> Option<T> {
        let first = *self.heap.first()?;
        if self.slots[first as usize].deadline > now {
            return None;
        }
        self.remove(0)
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.heap
            .first()
            .map(|index| self.slots[*index as usize].deadline)
    }

    /// Timers that are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    fn remove(&mut self, position: usize) -> Option<T> {
        let index = self.heap.swap_remove(position);
        if position < self.heap.len() {
            let position = self.sink(position);
            self.rise(position);
        }
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        slot.value.take()
    }

    fn deadline_at(&self, position: usize) -> Time {
        self.slots[self.heap[position] as usize].deadline
    }

    fn place(&mut self, position: usize) {
        self.slots[self.heap[position] as usize].position = position as u32;
    }

    fn rise(&mut self, mut position: usize) {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.deadline_at(parent) <= self.deadline_at(position) {
                break;
            }
            self.heap.swap(parent, position);
            self.place(position);
            position = parent;
        }
        self.place(position);
    }

    fn sink(&mut self, mut position: usize) -> usize {
        loop {
            let (left, right) = (position * 2 + 1, position * 2 + 2);
            let mut least = position;
            for child in [left, right] {
                if child < self.heap.len() && self.deadline_at(child) < self.deadline_at(least) {
                    least = child;
                }
            }
            if least == position {
                self.place(position);
                return position;
            }
            self.heap.swap(least, position);
            self.place(position);
            position = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ionian_driver_api::Dice;

    use super::*;

    /// Random sets, cancellations and firings against an ordered map.
    #[test]
    fn behaves_as_an_ordered_map() {
        for seed in 0..40 {
            let mut dice = Dice::new(seed);
            let mut timers = Timers::with_capacity(32);
            let mut model: BTreeMap<u64, (u64, TimerId)> = BTreeMap::new();
            let mut now = 0;
            for value in 0..3000u64 {
                match dice.below(4) {
                    0 | 1 => {
                        let deadline = now + dice.below(100);
                        match timers.set(Time::from_ns(deadline), value) {
                            Ok(id) => drop(model.insert(value, (deadline, id))),
                            Err(back) => assert_eq!((back, model.len()), (value, 32)),
                        }
                    }
                    2 => {
                        let pick = dice.below(model.len().max(1) as u64) as usize;
                        if let Some((value, (_, id))) =
                            model.iter().nth(pick).map(|(k, v)| (*k, *v))
                        {
                            assert_eq!(timers.cancel(id), Some(value));
                            assert_eq!(timers.cancel(id), None, "cancelled already");
                            model.remove(&value);
                        }
                    }
                    _ => {
                        now += dice.below(20);
                        let mut last = 0;
                        while let Some(value) = timers.fire(Time::from_ns(now)) {
                            let (deadline, id) = model.remove(&value).expect("was set");
                            assert!(
                                deadline <= now && deadline >= last,
                                "in order and not early"
                            );
                            assert_eq!(timers.cancel(id), None, "fired already");
                            last = deadline;
                        }
                    }
                }
                let next = model
                    .values()
                    .map(|(deadline, _)| *deadline)
                    .min()
                    .map(Time::from_ns);
                assert_eq!((timers.next_deadline(), timers.len()), (next, model.len()));
            }
        }
    }
}
