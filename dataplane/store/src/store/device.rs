//! What the store knows of its device, and the meeting point with the edge: operations out, completions in.

use std::collections::VecDeque;

use super::Store;
use super::batch::Batch;
use super::fetch::FetchSlot;
use crate::config::StoreConfig;
use crate::error::{BlockError, StoreFailure, StoreState};
use crate::extents::Extents;
use crate::op::{BlockOp, BlockOpKind, BlockResult, FileNo};
use crate::ops::{Job, Ops};

/// Batches in flight at most: while one is flushed the next is written.
const BATCHES_MAX: usize = 2;
/// Operation slots that only flushes may use, so that one never waits for a slot.
pub(super) const OPS_RESERVED: usize = BATCHES_MAX + 4;
/// Chunks waiting to be read back at most; beyond, the caller asks again.
pub(super) const FETCHES_QUEUED_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Device {
    pub(super) ops: Ops,
    /// Of the segments, of the journal.
    pub(super) extents: [Extents; 2],
    pub(super) batches: Vec<Batch>,
    pub(super) batch_seq: u64,
    /// A truncation was made whose header is not durable: journal entries wait for it.
    pub(super) barrier: bool,
    pub(super) fetches: Vec<FetchSlot>,
    pub(super) fetch_queue: VecDeque<(u8, u64)>,
    /// Chunks of segments in the order in which they came into memory.
    pub(super) resident: VecDeque<(u8, u64)>,
    resident_max: usize,
    /// Counts openings of chunks.
    pub(super) life: u64,
}

impl Device {
    pub(super) fn new(config: &StoreConfig, pool_max: usize) -> Self {
        let flushed = config.class.is_flushed();
        let pieces = |chunk: u32| (chunk / config.write_bytes_max) as usize + 3;
        let ops = if flushed {
            OPS_RESERVED
                + 64
                + 2 * usize::from(config.segments) * pieces(config.chunk_bytes)
                + 2 * pieces(config.journal_chunk_bytes)
        } else {
            0
        };
        let resident_max = 4 * pool_max + 16;
        Self {
            ops: Ops::new(ops),
            extents: [
                Extents::new(
                    false,
                    config.chunk_bytes,
                    config.extent_bytes,
                    config.disk_bytes_max,
                ),
                // Bounded by the memory of the journal; one more may be in the making, one being freed.
                Extents::new(
                    true,
                    config.journal_chunk_bytes,
                    config.journal_extent_bytes,
                    config.journal_bytes_max.saturating_mul(2) + 4 * config.journal_extent_bytes,
                ),
            ],
            batches: (0..if flushed { BATCHES_MAX } else { 0 })
                .map(|_| Batch::default())
                .collect(),
            batch_seq: 0,
            barrier: false,
            fetches: (0..config.fetches_max)
                .map(|_| FetchSlot::default())
                .collect(),
            fetch_queue: VecDeque::with_capacity(if flushed { FETCHES_QUEUED_MAX } else { 0 }),
            resident: VecDeque::with_capacity(if flushed { resident_max + 1 } else { 0 }),
            resident_max,
            life: 0,
        }
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        self.extents
            .iter()
            .map(|extents| extents.count * extents.extent_bytes)
            .sum()
    }

    pub(super) fn spares(&self) -> u64 {
        self.extents
            .iter()
            .map(|extents| extents.spares() as u64)
            .sum()
    }

    pub(super) fn note_resident(&mut self, stream: usize, number: u64) {
        self.resident.push_back((stream as u8, number));
    }

    pub(super) fn resident_is_long(&self) -> bool {
        self.resident.len() >= self.resident_max
    }

    /// Whether `count` operations can be queued beside the flushes to come.
    pub(super) fn has_room(&self, count: usize) -> bool {
        self.ops.room() >= count + OPS_RESERVED
    }

    /// Entries at `len..` of a stream are void: no batch in flight makes them durable.
    pub(super) fn clip_batches(&mut self, stream: usize, len: u64) {
        for batch in &mut self.batches {
            batch.clip(stream, len);
        }
    }
}

impl Store {
    /// The next operation for the edge, if there is one now. Ask until there is none: after appends, after completions.
    /// Batches are formed here, of everything accepted since the last one, when fewer than two are in flight; so a
    /// small append goes out at once when the device is idle, and many together when it is not. At D0 there never is
    /// one.
    pub fn next_op(&mut self) -> Option<BlockOp> {
        if !self.on_device() {
            return None;
        }
        if let Some(op) = self.device.ops.next() {
            return Some(op);
        }
        match self.state {
            StoreState::Starting => self.pump_start(),
            StoreState::Ready => {
                self.pump_batch();
                self.pump_superblock();
                self.pump_checkpoint();
                self.pump_extents();
                self.pump_fetch();
            }
            // What can be read still is, if the store had come so far.
            StoreState::Failed(_) if self.start.is_none() => self.pump_fetch(),
            StoreState::Failed(_) => {}
        }
        self.device.ops.next()
    }

    /// The file that an operation in flight is for; [`FileNo::NONE`] for a flush, which is of all, or when there is no such
    /// operation.
    #[must_use]
    pub fn file_of(&self, token: u64) -> FileNo {
        let op = self.device.ops.job(token);
        op.map_or(FileNo::NONE, |(op, _)| op.file)
    }

    /// Operations queued or in flight: a process that stops waits until there are none.
    #[must_use]
    pub fn ops_in_flight(&self) -> usize {
        self.device.ops.in_flight()
    }

    /// Writes the bytes of a write into the edge's buffer.
    ///
    /// # Panics
    /// If `op` is not a write in flight, or `out` is not as long as the write.
    pub fn fill(&self, op: &BlockOp, out: &mut [u8]) {
        let BlockOpKind::Write { len, .. } = op.kind else {
            panic!("only a write has bytes");
        };
        assert!(
            out.len() == len as usize,
            "the buffer is as long as the write"
        );
        let (_, job) = self
            .device
            .ops
            .job(op.token)
            .expect("only a write in flight has bytes");
        match job {
            Job::BatchWrite {
                stream,
                chunk,
                from,
                tail,
                ..
            } => self.fill_chunk(usize::from(stream), chunk, from, tail, out),
            Job::SuperWrite { copy } => self.superblock.fill(copy, out),
            Job::CheckpointWrite { offset } => self.fill_checkpoint(offset, out),
            Job::HeaderWrite { mend } => {
                if let Some(start) = &self.start {
                    start.fill_header(mend as usize, out);
                }
            }
            _ => unreachable!("no other job writes"),
        }
    }

    /// Reports the end of an operation: the bytes of a read, nothing for the others, or why it failed.
    ///
    /// # Panics
    /// If no operation with this token is in flight.
    pub fn complete(&mut self, token: u64, result: BlockResult<'_>) {
        let (op, job) = self
            .device
            .ops
            .finish(token)
            .expect("an operation completes once");
        if result.is_ok() {
            match op.kind {
                BlockOpKind::Write { len, .. } => {
                    self.stats.writes += 1;
                    self.stats.written_bytes += u64::from(len);
                }
                BlockOpKind::Flush => self.stats.flushes += 1,
                _ => {}
            }
        }
        if matches!(self.state, StoreState::Failed(_)) && !matches!(job, Job::FetchRead { .. }) {
            return;
        }
        let device_failed = |op| StoreFailure::Device { op };
        match (job, result) {
            (Job::BatchWrite { batch, .. }, Ok(_)) => self.batch_written(usize::from(batch)),
            (Job::BatchFlush { batch }, Ok(_)) => self.batch_flushed(usize::from(batch)),
            (Job::SuperWrite { .. }, Ok(_)) => self.superblock_written(),
            (Job::SuperFlush, Ok(_)) => self.superblock_flushed(),
            (Job::CheckpointWrite { .. }, Ok(_)) => self.checkpoint_written(),
            (Job::CheckpointFlush, Ok(_)) => self.checkpoint_flushed(),
            (Job::StartFlush, Ok(_)) => self.start_flushed(),
            (
                Job::BatchWrite { .. }
                | Job::SuperWrite { .. }
                | Job::CheckpointWrite { .. }
                | Job::HeaderWrite { .. },
                Err(_),
            ) => {
                self.fail(device_failed("write"));
            }
            (
                Job::BatchFlush { .. } | Job::SuperFlush | Job::CheckpointFlush | Job::StartFlush,
                Err(_),
            ) => {
                self.fail(device_failed("flush"));
            }
            (Job::ExtentCreate { journal }, Ok(_)) => {
                self.device.extents[usize::from(journal)].created(op.file);
            }
            (Job::ExtentCreate { journal }, Err(BlockError::NoSpace)) => {
                self.device.extents[usize::from(journal)].not_created();
            }
            (Job::CheckpointCreate, Ok(_)) => self.checkpoint.created(),
            (Job::CheckpointCreate, Err(BlockError::NoSpace)) => {
                self.stats.checkpoints_refused += 1;
                self.checkpoint.refused();
            }
            (Job::SuperCreate, Ok(_)) => self.superblock_created(),
            (Job::SuperCreate, Err(BlockError::NoSpace)) => self.fail(StoreFailure::NoSpace),
            (Job::SuperCreate | Job::CheckpointCreate | Job::ExtentCreate { .. }, Err(_)) => {
                self.fail(device_failed("create"));
            }
            (Job::Delete { extent }, Ok(_) | Err(BlockError::NotFound)) => {
                if let Some(journal) = extent {
                    self.device.extents[usize::from(journal)].deleted();
                }
            }
            (Job::Delete { .. }, Err(_)) => self.fail(device_failed("delete")),
            (Job::SuperRead { copy }, result) => self.superblock_read(copy, result),
            (Job::CheckpointRead { offset }, result) => self.checkpoint_read(offset, result),
            (Job::HeaderRead { file, chunk, tail }, result) => {
                self.header_read(file as usize, chunk as usize, usize::from(tail), result);
            }
            (Job::HeaderWrite { .. }, Ok(_)) => self.header_mended(),
            (Job::FetchRead { fetch, from }, result) => {
                let BlockOpKind::Read { len, .. } = op.kind else {
                    unreachable!("a fetch is a read");
                };
                self.fetch_read(usize::from(fetch), from, len, result);
            }
        }
    }

    /// Makes spares and deletes what is too much.
    fn pump_extents(&mut self) {
        for journal in [false, true] {
            let wanted = self.spares_wanted(journal);
            let index = usize::from(journal);
            while self.device.has_room(1) {
                let bytes = self.device.extents[index].extent_bytes;
                let Some(file) = self.device.extents[index].create(wanted) else {
                    break;
                };
                self.device.ops.push(
                    file,
                    BlockOpKind::Create { bytes },
                    Job::ExtentCreate { journal },
                );
            }
            while self.device.has_room(1) {
                let Some(file) = self.device.extents[index].delete() else {
                    break;
                };
                self.device.ops.push(
                    file,
                    BlockOpKind::Delete,
                    Job::Delete {
                        extent: Some(journal),
                    },
                );
            }
        }
    }
}
