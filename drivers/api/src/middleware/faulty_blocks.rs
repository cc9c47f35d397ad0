//! A block queue that fails operations, tears writes, lies about flushes and answers late.
//!
//! A torn write stores a prefix of whole blocks and then reports an error of unknown effect. A lost flush reports success
//! and flushes nothing: the sin of a drive that lies, which the log above cannot survive on that drive and must survive
//! on the others.

use std::os::fd::RawFd;

use super::dice::{Dice, FaultCounts};
use crate::block::{
    BlockError, BlockLimits, BlockOp, BlockQueue, BlockRequest, Completion, Completions, FileId,
    OpKind,
};
use crate::bounded::Bounded;
use crate::buf::BufPool;

/// Chances per operation, in parts per million.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BlockFaults {
    /// Fail a read, write or flush with a device error before it reaches the device.
    pub error_ppm: u32,
    /// Store only a prefix of a write of several blocks, then report a device error.
    pub torn_ppm: u32,
    /// Report a flush that never happened as done.
    pub lost_flush_ppm: u32,
    /// Hold a completion for 1 to `delay_polls_max` polls.
    pub delay_ppm: u32,
    /// Longest delay, in calls of `poll`.
    pub delay_polls_max: u64,
}

/// The device error that injected failures report (Linux EIO).
const EIO: i32 = 5;

/// Wraps a block queue with seeded faults.
#[derive(Debug)]
pub struct FaultyBlocks<B> {
    inner: B,
    faults: BlockFaults,
    dice: Dice,
    /// Completions to hand out, each from the poll with its number on.
    held: Bounded<(u64, Completion)>,
    /// Token and true length of each write that goes to the device torn.
    torn: Vec<(u64, usize)>,
    fresh: Completions,
    polls: u64,
    counts: FaultCounts,
}

impl<B: BlockQueue> FaultyBlocks<B> {
    /// Wraps `inner`; the same `seed` and calls give the same faults. Tokens in flight must differ.
    #[must_use]
    pub fn new(inner: B, faults: BlockFaults, seed: u64) -> Self {
        let depth = inner.limits().queue_depth as usize;
        Self {
            inner,
            faults,
            dice: Dice::new(seed),
            held: Bounded::with_capacity(depth),
            torn: Vec::with_capacity(depth),
            fresh: Bounded::with_capacity(depth),
            polls: 0,
            counts: FaultCounts::default(),
        }
    }

    /// Changes the chances from now on.
    pub fn set_faults(&mut self, faults: BlockFaults) {
        self.faults = faults;
    }

    /// Faults so far.
    #[must_use]
    pub fn counts(&self) -> FaultCounts {
        self.counts
    }

    /// The wrapped queue.
    pub fn inner_mut(&mut self) -> &mut B {
        &mut self.inner
    }

    fn hold(&mut self, completion: Completion) {
        let polls = if self.dice.chance(self.faults.delay_ppm) {
            self.counts.delayed += 1;
            1 + self.dice.below(self.faults.delay_polls_max.max(1))
        } else {
            0
        };
        let held = self.held.push((self.polls + polls, completion));
        assert!(
            held.is_ok(),
            "no more completions than operations in flight"
        );
    }
}

impl<B: BlockQueue> BlockQueue for FaultyBlocks<B> {
    fn limits(&self) -> BlockLimits {
        self.inner.limits()
    }

    fn register(&mut self, pool: &BufPool) -> bool {
        self.inner.register(pool)
    }

    fn submit(&mut self, pool: &mut BufPool, request: BlockRequest) -> Result<(), BlockRequest> {
        if self.in_flight() >= self.limits().queue_depth as usize {
            return Err(request);
        }
        let BlockRequest { token, op } = request;
        let kind = op.kind();
        let failing = matches!(kind, OpKind::Read | OpKind::Write | OpKind::Flush);
        if failing && self.dice.chance(self.faults.error_ppm) {
            self.counts.failed += 1;
            let result = Err(BlockError::Io { kind, errno: EIO });
            self.hold(Completion {
                token,
                kind,
                buf: op.into_buf(),
                result,
            });
            return Ok(());
        }
        if kind == OpKind::Flush && self.dice.chance(self.faults.lost_flush_ppm) {
            self.counts.dropped += 1;
            self.hold(Completion {
                token,
                kind,
                buf: None,
                result: Ok(()),
            });
            return Ok(());
        }
        let block_bytes = self.limits().block_bytes as usize;
        match op {
            BlockOp::Write {
                file,
                offset,
                mut buf,
                durable,
            } if buf.len() > block_bytes && self.dice.chance(self.faults.torn_ppm) => {
                let blocks = (buf.len() / block_bytes) as u64;
                let kept = 1 + self.dice.below(blocks - 1);
                let whole = buf.len();
                pool.set_len(&mut buf, kept as usize * block_bytes);
                let request = BlockRequest {
                    token,
                    op: BlockOp::Write {
                        file,
                        offset,
                        buf,
                        durable,
                    },
                };
                match self.inner.submit(pool, request) {
                    Ok(()) => {
                        self.counts.corrupted += 1;
                        self.torn.push((token, whole));
                        Ok(())
                    }
                    Err(BlockRequest { token, op }) => {
                        let BlockOp::Write {
                            file,
                            offset,
                            mut buf,
                            durable,
                        } = op
                        else {
                            unreachable!("a refused request comes back unchanged")
                        };
                        pool.set_len(&mut buf, whole);
                        Err(BlockRequest {
                            token,
                            op: BlockOp::Write {
                                file,
                                offset,
                                buf,
                                durable,
                            },
                        })
                    }
                }
            }
            op => self.inner.submit(pool, BlockRequest { token, op }),
        }
    }

    fn kick(&mut self) {
        self.inner.kick();
    }

    fn poll(&mut self, pool: &mut BufPool, out: &mut Completions) -> usize {
        self.polls += 1;
        self.inner.poll(pool, &mut self.fresh);
        while let Some(mut completion) = self.fresh.pop() {
            if let Some(at) = self
                .torn
                .iter()
                .position(|(token, _)| *token == completion.token)
            {
                let (_, whole) = self.torn.swap_remove(at);
                if let Some(buf) = completion.buf.as_mut() {
                    pool.set_len(buf, whole);
                }
                completion.result = Err(BlockError::Io {
                    kind: completion.kind,
                    errno: EIO,
                });
            }
            self.hold(completion);
        }
        let (before, mut index) = (out.len(), 0);
        while !out.is_full() {
            let Some((due, _)) = self.held.get(index) else {
                break;
            };
            if *due > self.polls {
                index += 1;
            } else if let Some((_, completion)) = self.held.remove(index)
                && out.push(completion).is_err()
            {
                unreachable!("room was checked");
            }
        }
        out.len() - before
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.held.len()
    }

    fn files(&self) -> Vec<(FileId, u64)> {
        self.inner.files()
    }

    fn arm(&mut self) -> bool {
        self.held.is_empty() && self.inner.arm()
    }

    fn wake_fd(&self) -> Option<RawFd> {
        self.inner.wake_fd()
    }
}
