//! The table of operations in flight: what each one is for, and the queue of those not handed out yet. Fixed in size.

use std::collections::VecDeque;

use crate::op::{BlockOp, BlockOpKind, FileNo};

/// What an operation is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Job {
    /// Part of a batch: bytes of a chunk at `from`, or the copy of the chunk's header.
    BatchWrite {
        batch: u8,
        stream: u8,
        chunk: u64,
        from: u32,
        tail: bool,
    },
    BatchFlush {
        batch: u8,
    },
    SuperCreate,
    SuperWrite {
        copy: u8,
    },
    SuperFlush,
    SuperRead {
        copy: u8,
    },
    CheckpointCreate,
    CheckpointWrite {
        offset: u64,
    },
    CheckpointFlush,
    CheckpointRead {
        offset: u64,
    },
    ExtentCreate {
        journal: bool,
    },
    /// Of an extent of the journal or of the segments, or of a checkpoint.
    Delete {
        extent: Option<bool>,
    },
    FetchRead {
        fetch: u8,
        from: u32,
    },
    HeaderRead {
        file: u32,
        chunk: u32,
        tail: bool,
    },
    /// Of a copy of a chunk's header that was found bad at start.
    HeaderWrite {
        mend: u32,
    },
    StartFlush,
}

#[derive(Clone, Copy, Debug)]
struct OpSlot {
    life: u32,
    op: Option<(BlockOp, Job)>,
}

/// The operations that are queued or in flight.
#[derive(Debug)]
pub(crate) struct Ops {
    slots: Vec<OpSlot>,
    free: Vec<u32>,
    queue: VecDeque<u32>,
}

impl Ops {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            slots: vec![OpSlot { life: 0, op: None }; max],
            free: (0..max as u32).rev().collect(),
            queue: VecDeque::with_capacity(max),
        }
    }

    /// Operations that can still be queued.
    pub(crate) fn room(&self) -> usize {
        self.free.len()
    }

    /// Queues an operation.
    ///
    /// # Panics
    /// If there is no room: callers ask first.
    pub(crate) fn push(&mut self, file: FileNo, kind: BlockOpKind, job: Job) {
        let index = self.free.pop().expect("callers ask for room first");
        let slot = &mut self.slots[index as usize];
        let token = u64::from(slot.life) << 32 | u64::from(index);
        slot.op = Some((BlockOp { token, file, kind }, job));
        self.queue.push_back(index);
    }

    /// Hands out the next queued operation.
    pub(crate) fn next(&mut self) -> Option<BlockOp> {
        let index = self.queue.pop_front()?;
        self.slots[index as usize].op.map(|(op, _)| op)
    }

    /// What the operation with this token is for, if it is in flight.
    pub(crate) fn job(&self, token: u64) -> Option<(BlockOp, Job)> {
        let slot = self.slots.get((token & 0xffff_ffff) as usize)?;
        slot.op.filter(|(op, _)| op.token == token)
    }

    /// Ends the operation with this token.
    pub(crate) fn finish(&mut self, token: u64) -> Option<(BlockOp, Job)> {
        let done = self.job(token)?;
        let index = (token & 0xffff_ffff) as u32;
        let slot = &mut self.slots[index as usize];
        slot.op = None;
        slot.life = slot.life.wrapping_add(1);
        self.free.push(index);
        Some(done)
    }

    /// Operations queued or in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes back what was queued and not handed out, but for reads of chunks.
    pub(crate) fn drop_queued(&mut self) {
        for _ in 0..self.queue.len() {
            let Some(index) = self.queue.pop_front() else {
                return;
            };
            match self.slots[index as usize].op {
                Some((_, Job::FetchRead { .. })) => self.queue.push_back(index),
                Some((op, _)) => {
                    self.finish(op.token);
                }
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once() {
        let mut ops = Ops::new(1);
        ops.push(FileNo::NONE, BlockOpKind::Flush, Job::StartFlush);
        assert_eq!(ops.room(), 0);
        let op = ops.next().unwrap();
        assert_eq!(ops.next(), None);
        assert!(ops.finish(op.token).is_some());
        assert!(ops.finish(op.token).is_none());
        ops.push(FileNo::NONE, BlockOpKind::Flush, Job::StartFlush);
        assert_ne!(ops.next().unwrap().token, op.token);
    }
}
