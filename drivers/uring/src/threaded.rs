//! Files by ordinary system calls on a helper thread: for systems that refuse io_uring or O_DIRECT.
//!
//! One thread runs the operations in the order they were submitted, so a flush covers every write before it. Contents
//! pass through the page cache; a flush is `fdatasync`.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use ionian_driver_api::dma::Arena;
use ionian_driver_api::{
    BlockError, BlockLimits, BlockOp, BlockQueue, BlockRequest, Buf, BufPool, Completion,
    Completions, FileId, OpKind, OpenError,
};

use crate::dir::DataDir;
use crate::event::Event;
use crate::files::{Files, OpenFile, errno};
use crate::flush::Flushes;
use crate::options::{BLOCK_BYTES, FileOptions, check_range};
use crate::worker::Worker;

/// Name of the backend.
const BACKEND: &str = "pwrite+fdatasync";

struct Job {
    request: BlockRequest,
    /// Keeps the memory of the request's buffer.
    arena: Option<Arc<Arena>>,
}

struct Done {
    completion: Completion,
    /// A file that is there now, with its size, or no longer.
    change: Option<(FileId, Option<u64>)>,
}

/// The helper thread's side.
struct Machine {
    files: Files,
    table: BTreeMap<FileId, OpenFile>,
    flushes: Flushes,
    syncs: Vec<(u64, FileId)>,
    transfer_bytes_max: u32,
}

#[derive(Debug)]
pub(crate) struct ThreadedQueue {
    worker: Worker<Job, Done>,
    event: Arc<Event>,
    armed: bool,
    pushed: bool,
    in_flight: usize,
    sizes: BTreeMap<FileId, u64>,
    options: FileOptions,
}

impl ThreadedQueue {
    pub(crate) fn open(dir: Arc<DataDir>, options: FileOptions) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Backend {
            backend: BACKEND,
            source,
        };
        let (files, table) = Files::open(dir, false)?;
        let sizes = table.iter().map(|(id, file)| (*id, file.bytes)).collect();
        let mut flushes = Flushes::new(1);
        for file in table.keys() {
            flushes.add_file(*file);
        }
        let transfer_bytes_max = options.transfer_bytes_max;
        let mut machine = Machine {
            files,
            table,
            flushes,
            syncs: Vec::with_capacity(64),
            transfer_bytes_max,
        };
        let event = Arc::new(Event::new().map_err(failed)?);
        let worker = Worker::start(options.queue_depth as usize, event.clone(), move |job| {
            machine.run(job)
        })
        .map_err(failed)?;
        Ok(Self {
            worker,
            event,
            armed: false,
            pushed: false,
            in_flight: 0,
            sizes,
            options,
        })
    }
}

impl BlockQueue for ThreadedQueue {
    fn limits(&self) -> BlockLimits {
        BlockLimits {
            backend: BACKEND,
            block_bytes: BLOCK_BYTES,
            transfer_bytes_max: self.options.transfer_bytes_max,
            queue_depth: self.options.queue_depth,
            fua: false,
            persistent: true,
        }
    }

    fn register(&mut self, _pool: &BufPool) -> bool {
        false
    }

    fn submit(
        &mut self,
        pool: &mut BufPool,
        mut request: BlockRequest,
    ) -> Result<(), BlockRequest> {
        if self.in_flight >= self.options.queue_depth as usize {
            return Err(request);
        }
        if let BlockOp::Read { len, buf, .. } = &mut request.op {
            // The whole slot, so that the thread can tell how much fits it.
            pool.set_len(buf, pool.slot_bytes().min(*len as usize));
        }
        let arena = match &request.op {
            BlockOp::Read { .. } | BlockOp::Write { .. } => Some(pool.arena().clone()),
            BlockOp::Create { .. } | BlockOp::Delete { .. } | BlockOp::Flush => None,
        };
        self.in_flight += 1;
        self.pushed = true;
        self.worker.push(Job { request, arena });
        Ok(())
    }

    fn kick(&mut self) {
        if self.pushed {
            self.pushed = false;
            self.worker.kick();
        }
    }

    fn poll(&mut self, _pool: &mut BufPool, out: &mut Completions) -> usize {
        self.kick();
        if self.armed {
            self.armed = false;
            self.event.disarm();
        }
        let before = out.len();
        while !out.is_full() {
            let Some(Done { completion, change }) = self.worker.pop() else {
                break;
            };
            match change {
                Some((file, Some(bytes))) => drop(self.sizes.insert(file, bytes)),
                Some((file, None)) => drop(self.sizes.remove(&file)),
                None => {}
            }
            self.in_flight -= 1;
            let pushed = out.push(completion);
            assert!(pushed.is_ok(), "room was checked");
        }
        out.len() - before
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn files(&self) -> Vec<(FileId, u64)> {
        self.sizes.iter().map(|(id, bytes)| (*id, *bytes)).collect()
    }

    fn arm(&mut self) -> bool {
        self.kick();
        self.armed = true;
        self.event.arm();
        if self.worker.has_results() {
            self.armed = false;
            self.event.disarm();
        }
        self.armed
    }

    fn wake_fd(&self) -> Option<RawFd> {
        Some(self.event.as_raw_fd())
    }
}

impl Machine {
    fn run(&mut self, job: Job) -> Done {
        let BlockRequest { token, op } = job.request;
        let kind = op.kind();
        let mut change = None;
        let (buf, result) = match op {
            BlockOp::Create {
                file,
                bytes,
                zero_ahead,
            } => {
                let result = self.create(file, bytes, zero_ahead);
                change = result.is_ok().then_some((file, Some(bytes)));
                (None, result)
            }
            BlockOp::Delete { file } => {
                let result = self.delete(file);
                change = result.is_ok().then_some((file, None));
                (None, result)
            }
            BlockOp::Write {
                file,
                offset,
                buf,
                durable,
            } => {
                let result = self.write(file, offset, &buf, durable, job.arena.as_deref());
                (Some(buf), result)
            }
            BlockOp::Read {
                file,
                offset,
                len,
                buf,
            } => {
                let result = self.read(file, offset, len, &buf, job.arena.as_deref());
                (Some(buf), result)
            }
            BlockOp::Flush => (None, self.flush(token)),
        };
        Done {
            completion: Completion {
                token,
                kind,
                buf,
                result,
            },
            change,
        }
    }

    fn create(&mut self, file: FileId, bytes: u64, zero_ahead: bool) -> Result<(), BlockError> {
        let open = self.files.create(file, bytes, zero_ahead)?;
        self.table.insert(file, open);
        self.flushes.add_file(file);
        Ok(())
    }

    fn delete(&mut self, file: FileId) -> Result<(), BlockError> {
        if !self.table.contains_key(&file) {
            return Err(BlockError::NoFile(file));
        }
        self.files.delete(file)?;
        self.table.remove(&file);
        self.flushes.remove_file(file);
        Ok(())
    }

    fn write(
        &mut self,
        file: FileId,
        offset: u64,
        buf: &Buf,
        durable: bool,
        arena: Option<&Arena>,
    ) -> Result<(), BlockError> {
        let open = self.table.get(&file).ok_or(BlockError::NoFile(file))?;
        check_range(
            offset,
            buf.len() as u64,
            open.bytes,
            self.transfer_bytes_max,
        )?;
        if let Some(error) = self.flushes.poison(file, OpKind::Write) {
            return Err(error);
        }
        let fd = open.file.as_raw_fd();
        transfer(fd, OpKind::Write, offset, buf, arena)?;
        if !durable {
            self.flushes.written(file);
        } else if let Err(error) = open.file.sync_data() {
            self.flushes.fail(file, errno(&error));
            return Err(BlockError::Io {
                kind: OpKind::Write,
                errno: errno(&error),
            });
        }
        Ok(())
    }

    fn read(
        &self,
        file: FileId,
        offset: u64,
        len: u32,
        buf: &Buf,
        arena: Option<&Arena>,
    ) -> Result<(), BlockError> {
        let open = self.table.get(&file).ok_or(BlockError::NoFile(file))?;
        let len_max = self
            .transfer_bytes_max
            .min(u32::try_from(buf.len()).unwrap_or(u32::MAX));
        check_range(offset, u64::from(len), open.bytes, len_max)?;
        transfer(open.file.as_raw_fd(), OpKind::Read, offset, buf, arena)
    }

    fn flush(&mut self, token: u64) -> Result<(), BlockError> {
        let (flushes, syncs) = (&mut self.flushes, &mut self.syncs);
        flushes.begin(token, |number, file| syncs.push((number, file)));
        for (number, file) in syncs.drain(..) {
            let result = self
                .table
                .get(&file)
                .map_or(Ok(()), |open| open.file.sync_data());
            flushes.synced(number, result.err().map_or(0, |error| errno(&error).max(1)));
        }
        flushes.finished().map_or(Ok(()), |(_, result)| result)
    }
}

/// Moves the valid bytes of `buf` to or from the file, whole.
fn transfer(
    fd: RawFd,
    kind: OpKind,
    offset: u64,
    buf: &Buf,
    arena: Option<&Arena>,
) -> Result<(), BlockError> {
    let arena = arena.expect("reads and writes come with their memory");
    let (start, wanted) = (arena.slot(buf.index()), buf.len());
    let mut done = 0;
    while done < wanted {
        // SAFETY: `done` is smaller than the buffer's length, which lies within its slot.
        let at = unsafe { start.add(done) };
        let offset = i64::try_from(offset + done as u64)
            .expect("the range was checked against the file's size");
        let moved = if kind == OpKind::Write {
            // SAFETY: the kernel reads the rest of the slot, whose handle is ours and whose arena is alive.
            unsafe { libc::pwrite(fd, at.cast(), wanted - done, offset) }
        } else {
            // SAFETY: the kernel writes the rest of the slot, whose handle is ours and whose arena is alive.
            unsafe { libc::pread(fd, at.cast(), wanted - done, offset) }
        };
        match moved {
            0 => {
                return Err(BlockError::Short {
                    kind,
                    done: done as u64,
                    wanted: wanted as u64,
                });
            }
            moved if moved < 0 => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(BlockError::Io {
                        kind,
                        errno: errno(&error),
                    });
                }
            }
            moved => done += moved.unsigned_abs(),
        }
    }
    Ok(())
}
