//! Byte buffers of fixed size: encoded records that wait for their outcome, and received bytes that wait to be read.

use alloc::boxed::Box;
use alloc::vec;

/// A ring of records, each contiguous; one that does not fit before the end starts again at the front.
#[derive(Debug)]
pub(super) struct SendRing {
    bytes: Box<[u8]>,
    head: usize,
    tail: usize,
    /// Where the data before the front ends, while `wrapped`.
    seam: usize,
    wrapped: bool,
    empty: bool,
}

impl SendRing {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            bytes: vec![0; capacity].into_boxed_slice(),
            head: 0,
            tail: 0,
            seam: 0,
            wrapped: false,
            empty: true,
        }
    }

    /// Claims `len` contiguous bytes behind the newest record; `None` when there is no room.
    #[inline]
    pub(super) fn claim(&mut self, len: usize) -> Option<(usize, &mut [u8])> {
        if self.empty {
            self.head = 0;
            self.tail = 0;
            self.wrapped = false;
        }
        let at = if self.wrapped {
            (self.head - self.tail >= len).then_some(self.tail)?
        } else if self.bytes.len() - self.tail >= len {
            self.tail
        } else if self.head >= len && !self.empty {
            self.seam = self.tail;
            self.wrapped = true;
            0
        } else {
            return None;
        };
        self.tail = at + len;
        self.empty = false;
        Some((at, &mut self.bytes[at..at + len]))
    }

    /// Frees everything before `head`, the offset of the oldest record still needed; `None` frees all.
    #[inline]
    pub(super) fn release_to(&mut self, head: Option<usize>) {
        match head {
            None => self.empty = true,
            Some(head) => {
                if head < self.head {
                    self.wrapped = false;
                }
                self.head = head;
            }
        }
    }

    /// The bytes from offset `from` up to offset `to`, in two parts when the front lies between them.
    #[inline]
    pub(super) fn parts(&self, from: usize, to: usize) -> [&[u8]; 2] {
        if from < to {
            [&self.bytes[from..to], &[]]
        } else {
            [&self.bytes[from..self.seam], &self.bytes[..to]]
        }
    }

    pub(super) fn at_mut(&mut self, at: usize, len: usize) -> &mut [u8] {
        &mut self.bytes[at..at + len]
    }
}

/// A queue of bytes that always lie back to back: it moves them to the front when the end is reached. With twice the
/// capacity that is ever filled, each byte moves at most once on average.
#[derive(Debug)]
pub(super) struct ByteQueue {
    bytes: Box<[u8]>,
    head: usize,
    tail: usize,
}

impl ByteQueue {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            bytes: vec![0; capacity].into_boxed_slice(),
            head: 0,
            tail: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Adds the parts, back to back; `false` when there is no room, and then nothing was added.
    pub(super) fn push(&mut self, parts: &[&[u8]]) -> bool {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if self.is_empty() {
            self.clear();
        }
        if self.bytes.len() - self.tail < len {
            self.bytes.copy_within(self.head..self.tail, 0);
            self.tail -= self.head;
            self.head = 0;
            if self.bytes.len() - self.tail < len {
                return false;
            }
        }
        for part in parts {
            self.bytes[self.tail..self.tail + part.len()].copy_from_slice(part);
            self.tail += part.len();
        }
        true
    }

    /// Everything queued.
    pub(super) fn front(&self) -> &[u8] {
        &self.bytes[self.head..self.tail]
    }

    /// Drops `len` bytes from the front.
    pub(super) fn pop(&mut self, len: usize) {
        self.head += len;
        assert!(self.head <= self.tail, "no more is taken than was queued");
    }

    /// Puts back `bytes` before the front, where at least as many were popped before.
    pub(super) fn unpop(&mut self, bytes: &[u8]) {
        let at = self.head - bytes.len();
        self.bytes[at..self.head].copy_from_slice(bytes);
        self.head = at;
    }

    pub(super) fn clear(&mut self) {
        self.head = 0;
        self.tail = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_send_ring_keeps_every_record_until_it_is_released(
            steps in proptest::collection::vec((1usize..40, 0usize..3), 1..300)
        ) {
            let mut ring = SendRing::new(100);
            let mut kept: VecDeque<(usize, usize, u8)> = VecDeque::new();
            let mut next = 0u8;
            for (len, releases) in steps {
                match ring.claim(len) {
                    Some((at, bytes)) => {
                        bytes.fill(next);
                        kept.push_back((at, len, next));
                        next = next.wrapping_add(1);
                    }
                    None => prop_assert!(!kept.is_empty(), "an empty ring takes what fits its size"),
                }
                let expected: Vec<u8> = kept.iter().flat_map(|(_, len, value)| core::iter::repeat_n(*value, *len)).collect();
                if let (Some(first), Some(last)) = (kept.front(), kept.back()) {
                    let parts = ring.parts(first.0, last.0 + last.1);
                    prop_assert_eq!(parts.concat(), expected);
                }
                for _ in 0..releases {
                    if kept.pop_front().is_some() {
                        ring.release_to(kept.front().map(|record| record.0));
                    }
                }
            }
        }

        #[test]
        fn a_byte_queue_is_a_queue(steps in proptest::collection::vec((0usize..30, 0usize..30), 1..200)) {
            let mut queue = ByteQueue::new(64);
            let mut model: Vec<u8> = Vec::new();
            let mut next = 0u8;
            for (add, drop) in steps {
                let bytes: Vec<u8> = (0..add).map(|i| next.wrapping_add(i as u8)).collect();
                let fits = model.len() + add <= 64;
                prop_assert_eq!(queue.push(&[&bytes[..add / 2], &bytes[add / 2..]]), fits);
                if fits {
                    model.extend(&bytes);
                    next = next.wrapping_add(add as u8);
                }
                let drop = drop.min(model.len());
                queue.pop(drop);
                model.drain(..drop);
                prop_assert_eq!(queue.front(), &model[..]);
            }
        }
    }
}
