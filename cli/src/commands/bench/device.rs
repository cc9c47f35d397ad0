//! The block device alone: a loop that issues the same operations as a store, and the shortest chain of a durable append.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use ionian_driver_api::{
    BlockOp, BlockQueue, BlockRequest, BufPool, Completions, FileId, PoolLayout, PoolOptions,
};
use ionian_uring::{FileOptions, FileQueue};

use super::clients::histogram;
use super::usage::Usage;

const FILE: FileId = FileId(1);
/// Size of the file that a loop writes round and round, as a store's extents are.
const FILE_BYTES: u64 = 64 << 20;
const BLOCK_BYTES: u64 = 4096;
/// Largest write, as a store's.
const WRITE_BYTES_MAX: u64 = 1 << 20;
/// Batches in flight, as a store's.
const BATCHES: u64 = 2;
/// What a token's high bit says: a flush.
const IS_FLUSH: u64 = 1 << 63;

/// What the operations of a store look like on average.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pattern {
    /// Bytes of one write.
    pub(crate) write_bytes: u64,
    /// Writes from one flush to the next.
    pub(crate) writes_per_flush: u64,
}

impl Pattern {
    /// The pattern of what was used; none where nothing was flushed.
    pub(crate) fn of(usage: &Usage) -> Option<Self> {
        let write_bytes = usage.written_bytes.checked_div(usage.writes)?;
        let writes_per_flush = usage.writes.checked_div(usage.flushes)?;
        Some(Self {
            write_bytes: write_bytes
                .next_multiple_of(BLOCK_BYTES)
                .clamp(BLOCK_BYTES, WRITE_BYTES_MAX),
            writes_per_flush: writes_per_flush.max(1),
        })
    }
}

/// A queue over one preallocated file.
struct Bare {
    queue: FileQueue,
    pool: BufPool,
    done: Completions,
    at: u64,
}

impl Bare {
    fn open(dir: &Path, write_bytes: u64) -> anyhow::Result<Self> {
        let mut queue =
            FileQueue::open(dir, FileOptions::default()).context("the bare loop's queue")?;
        let layout = PoolLayout::BlockAligned;
        let pool = BufPool::new(PoolOptions {
            slots: 64,
            slot_bytes: write_bytes as u32,
            layout,
        });
        let pool = pool.context("the bare loop's buffers")?;
        queue.register(&pool);
        let done = Completions::with_capacity(queue.limits().queue_depth as usize);
        let mut bare = Self {
            queue,
            pool,
            done,
            at: 0,
        };
        let create = BlockOp::Create {
            file: FILE,
            bytes: FILE_BYTES,
            zero_ahead: true,
        };
        bare.submit(0, create)?;
        bare.finish()?;
        Ok(bare)
    }

    fn submit(&mut self, token: u64, op: BlockOp) -> anyhow::Result<()> {
        let request = BlockRequest { token, op };
        self.queue
            .submit(&mut self.pool, request)
            .map_err(|_| anyhow!("the bare loop's queue is full"))
    }

    fn write(&mut self, bytes: u64) -> anyhow::Result<()> {
        let mut buf = self
            .pool
            .alloc()
            .context("the bare loop's buffers are all in use")?;
        self.pool.set_len(&mut buf, bytes as usize);
        if self.at + bytes > FILE_BYTES {
            self.at = 0;
        }
        let op = BlockOp::Write {
            file: FILE,
            offset: self.at,
            buf,
            durable: false,
        };
        self.at += bytes;
        self.submit(0, op)
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.submit(IS_FLUSH, BlockOp::Flush)
    }

    /// Takes what has ended: writes, flushes.
    fn poll(&mut self) -> anyhow::Result<(u64, u64)> {
        let (mut writes, mut flushes) = (0, 0);
        self.queue.poll(&mut self.pool, &mut self.done);
        while let Some(completion) = self.done.pop() {
            if let Some(buf) = completion.buf {
                self.pool.free(buf);
            }
            completion
                .result
                .map_err(|error| anyhow!("the bare loop: {error}"))?;
            if completion.token == IS_FLUSH {
                flushes += 1;
            } else {
                writes += 1;
            }
        }
        Ok((writes, flushes))
    }

    /// Waits for everything submitted.
    fn finish(&mut self) -> anyhow::Result<()> {
        self.queue.kick();
        while self.queue.in_flight() > 0 {
            self.poll()?;
            std::hint::spin_loop();
        }
        Ok(())
    }
}

/// One store's part in the loop: a batch's writes, then, when they have ended, its flush; the next batch's writes go out
/// meanwhile.
struct Lane {
    bare: Bare,
    pattern: Pattern,
    writing: u64,
    flushing: u64,
    flushed: u64,
    batches: u64,
}

impl Lane {
    fn step(&mut self) -> anyhow::Result<()> {
        let (writes, flushes) = self.bare.poll()?;
        self.flushed += flushes;
        self.flushing -= flushes;
        if writes > 0 {
            self.writing -= writes;
            if self.writing == 0 {
                self.bare.flush()?;
                self.flushing += 1;
                self.bare.queue.kick();
            }
        }
        if self.writing == 0
            && self.flushing < BATCHES
            && self.flushed + self.flushing < self.batches
        {
            // A batch of more writes than there are buffers goes in parts; its flush still comes once.
            let count = self.pattern.writes_per_flush.min(32);
            for _ in 0..count {
                self.bare.write(self.pattern.write_bytes)?;
            }
            self.writing = count;
            self.bare.queue.kick();
        }
        Ok(())
    }
}

/// Bytes per second that queues in `dir` take when each issues its pattern for `span`, one queue per store.
pub(crate) fn loop_bytes_per_second(
    dir: &Path,
    patterns: &[Pattern],
    span: Duration,
) -> anyhow::Result<f64> {
    let mut lanes = Vec::new();
    for (index, pattern) in patterns.iter().enumerate() {
        let bare = Bare::open(&dir.join(format!("bare-{index}")), pattern.write_bytes)?;
        lanes.push(Lane {
            bare,
            pattern: *pattern,
            writing: 0,
            flushing: 0,
            flushed: 0,
            batches: u64::MAX,
        });
    }
    let began = Instant::now();
    while began.elapsed() < span {
        lanes.iter_mut().try_for_each(Lane::step)?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let bytes: u64 = lanes
        .iter()
        .map(|lane| lane.flushed * lane.pattern.writes_per_flush.min(32) * lane.pattern.write_bytes)
        .sum();
    for lane in &mut lanes {
        lane.bare.finish()?;
    }
    drop(lanes);
    for index in 0..patterns.len() {
        std::fs::remove_dir_all(dir.join(format!("bare-{index}")))
            .context("removing the bare loop's files")?;
    }
    Ok(bytes as f64 / seconds)
}

/// The median of the shortest chain of a durable append, in nanoseconds: `copies` blocks written and flushed in parallel,
/// then one more (the cut) written and flushed.
pub(crate) fn chain_p50_ns(dir: &Path, copies: usize, rounds: u32) -> anyhow::Result<u64> {
    let path = |index: usize| dir.join(format!("chain-{index}"));
    let mut bares = (0..=copies)
        .map(|index| Bare::open(&path(index), BLOCK_BYTES))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut latency = histogram();
    for _ in 0..rounds {
        let since = Instant::now();
        let (parallel, last) = bares.split_at_mut(copies);
        write_and_flush(parallel)?;
        write_and_flush(last)?;
        latency.saturating_record(since.elapsed().as_nanos() as u64);
    }
    drop(bares);
    for index in 0..=copies {
        std::fs::remove_dir_all(path(index)).context("removing the bare chain's files")?;
    }
    Ok(latency.value_at_quantile(0.5))
}

/// Writes one block to each queue; flushes each as soon as its write has ended; waits for all.
fn write_and_flush(bares: &mut [Bare]) -> anyhow::Result<()> {
    for bare in &mut *bares {
        bare.write(BLOCK_BYTES)?;
        bare.queue.kick();
    }
    let since = Instant::now();
    let mut left = bares.len();
    while left > 0 {
        for bare in &mut *bares {
            let (writes, flushes) = bare.poll()?;
            left -= flushes as usize;
            if writes > 0 {
                bare.flush()?;
                bare.queue.kick();
            }
        }
        if since.elapsed() > Duration::from_secs(10) {
            bail!("the device does not answer");
        }
        std::hint::spin_loop();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_averages() {
        let usage = Usage {
            cpu: Duration::ZERO,
            writes: 10,
            written_bytes: 100_000,
            flushes: 5,
        };
        assert_eq!(
            Pattern::of(&usage),
            Some(Pattern {
                write_bytes: 12_288,
                writes_per_flush: 2
            })
        );
        assert_eq!(Pattern::of(&Usage::default()), None);
    }

    #[test]
    fn loops_and_chains_are_measured_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let pattern = Pattern {
            write_bytes: 8192,
            writes_per_flush: 2,
        };
        let rate = loop_bytes_per_second(
            folder.path(),
            &[pattern, pattern],
            Duration::from_millis(50),
        )
        .unwrap();
        assert!(rate > 0.0);
        assert!(chain_p50_ns(folder.path(), 2, 5).unwrap() > 0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
