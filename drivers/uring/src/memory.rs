//! Files in memory, up to a limit: for tests and for logs that promise no more than memory.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use ionian_driver_api::{
    BlockError, BlockLimits, BlockOp, BlockQueue, BlockRequest, Bounded, BufPool, Completion,
    Completions, FileId,
};

use crate::options::{BLOCK_BYTES, check_range, check_size};

/// A block queue whose files live in this process. Operations finish inside `submit`, and complete at the next `poll`.
#[derive(Debug)]
pub struct MemoryQueue {
    files: BTreeMap<FileId, Box<[u8]>>,
    done: Completions,
    memory_bytes: u64,
    memory_bytes_max: u64,
    transfer_bytes_max: u32,
}

impl MemoryQueue {
    /// An empty device of at most `memory_bytes_max` bytes, with `queue_depth` operations in flight.
    #[must_use]
    pub fn new(memory_bytes_max: u64, queue_depth: u32) -> Self {
        Self {
            files: BTreeMap::new(),
            done: Bounded::with_capacity(queue_depth.max(1) as usize),
            memory_bytes: 0,
            memory_bytes_max,
            transfer_bytes_max: 1 << 20,
        }
    }

    /// Bytes of all files now.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    fn run(&mut self, pool: &BufPool, op: &mut BlockOp) -> Result<(), BlockError> {
        match op {
            BlockOp::Create {
                file,
                bytes,
                zero_ahead,
            } => self.create(*file, *bytes, *zero_ahead),
            BlockOp::Write {
                file, offset, buf, ..
            } => {
                let target = self.files.get_mut(file).ok_or(BlockError::NoFile(*file))?;
                check_range(
                    *offset,
                    buf.len() as u64,
                    target.len() as u64,
                    self.transfer_bytes_max,
                )?;
                let start = *offset as usize;
                target[start..start + buf.len()].copy_from_slice(pool.bytes(buf));
                Ok(())
            }
            BlockOp::Read {
                file,
                offset,
                len,
                buf,
            } => {
                let source = self.files.get(file).ok_or(BlockError::NoFile(*file))?;
                let len_max = self
                    .transfer_bytes_max
                    .min(u32::try_from(pool.slot_bytes()).unwrap_or(u32::MAX));
                check_range(*offset, u64::from(*len), source.len() as u64, len_max)?;
                let (start, len) = (*offset as usize, *len as usize);
                pool.set_len(buf, len);
                pool.bytes_mut(buf)
                    .copy_from_slice(&source[start..start + len]);
                Ok(())
            }
            BlockOp::Flush => Ok(()),
            BlockOp::Delete { file } => {
                let gone = self.files.remove(file).ok_or(BlockError::NoFile(*file))?;
                self.memory_bytes -= gone.len() as u64;
                Ok(())
            }
        }
    }

    fn create(&mut self, file: FileId, bytes: u64, zero_ahead: bool) -> Result<(), BlockError> {
        check_size(bytes)?;
        if self.files.contains_key(&file) {
            return Err(BlockError::Exists(file));
        }
        let wanted_bytes = self.memory_bytes.saturating_add(bytes);
        if wanted_bytes > self.memory_bytes_max {
            return Err(BlockError::MemoryFull {
                wanted_bytes,
                bytes_max: self.memory_bytes_max,
            });
        }
        let mut contents = vec![0; bytes as usize].into_boxed_slice();
        if zero_ahead {
            // The system hands out zero pages when they are first written: take them now.
            for page in contents.chunks_mut(BLOCK_BYTES as usize) {
                page[0] = std::hint::black_box(0);
            }
        }
        self.memory_bytes = wanted_bytes;
        self.files.insert(file, contents);
        Ok(())
    }
}

impl BlockQueue for MemoryQueue {
    fn limits(&self) -> BlockLimits {
        BlockLimits {
            backend: "memory",
            block_bytes: BLOCK_BYTES,
            transfer_bytes_max: self.transfer_bytes_max,
            queue_depth: u32::try_from(self.done.capacity()).unwrap_or(u32::MAX),
            fua: true,
            persistent: false,
        }
    }

    fn register(&mut self, _pool: &BufPool) -> bool {
        true
    }

    fn submit(&mut self, pool: &mut BufPool, request: BlockRequest) -> Result<(), BlockRequest> {
        if self.done.is_full() {
            return Err(request);
        }
        let BlockRequest { token, mut op } = request;
        let result = self.run(pool, &mut op);
        let completion = Completion {
            token,
            kind: op.kind(),
            buf: op.into_buf(),
            result,
        };
        let pushed = self.done.push(completion);
        assert!(pushed.is_ok(), "room was checked");
        Ok(())
    }

    fn kick(&mut self) {}

    fn poll(&mut self, _pool: &mut BufPool, out: &mut Completions) -> usize {
        let before = out.len();
        while !out.is_full() {
            let Some(completion) = self.done.pop() else {
                break;
            };
            let pushed = out.push(completion);
            assert!(pushed.is_ok(), "room was checked");
        }
        out.len() - before
    }

    fn in_flight(&self) -> usize {
        self.done.len()
    }

    fn files(&self) -> Vec<(FileId, u64)> {
        self.files
            .iter()
            .map(|(id, contents)| (*id, contents.len() as u64))
            .collect()
    }

    fn arm(&mut self) -> bool {
        self.done.is_empty()
    }

    fn wake_fd(&self) -> Option<RawFd> {
        None
    }
}
