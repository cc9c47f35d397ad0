//! A store's block operations carried out on a block queue.
//!
//! The store says what to do; bytes to be written are copied into a device buffer, which the device owns until the
//! operation ends. Nothing here blocks but [`open`], which opens files and makes a queue, and [`Opening::finish`].

mod failure;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ionian_driver_api::{
    BlockError as DeviceError, BlockOp as DeviceOp, BlockQueue, BlockRequest, BufPool, Completions,
    FileId, OpKind, PoolLayout, PoolOptions,
};
use ionian_store::{
    BlockError, BlockOp, BlockOpKind, FileKind, FileNo, Store, StoreConfig, StoreFailure,
    StoreState,
};
use ionian_types::{Inc, Nanos, Time};
use ionian_uring::{FileOptions, FileQueue, file_name};

use crate::role::Place;
use crate::server::StartError;

pub use failure::{DeviceFailure, FlushFault};

/// Device buffers of one store.
const BUFFERS: u32 = 16;
/// The device error that a fault reports: Linux EIO.
const INJECTED: DeviceError = DeviceError::Io {
    kind: OpKind::Flush,
    errno: 5,
};
/// Between two questions for what a file system has left.
const SPACE_EVERY: Nanos = Nanos::from_ms(1000);

/// The device of one store.
#[derive(Debug)]
pub struct StoreIo {
    queue: FileQueue,
    pool: BufPool,
    done: Completions,
    held: Option<BlockOp>,
    /// Stores of this process whose files lie in the same file system.
    sharers: Sharer,
    /// When the file system is asked next for what it has left.
    space_at: Time,
    /// What the device said when the store failed, and the file it was about.
    broken: Option<(FileNo, DeviceError)>,
    /// A fault that was asked for.
    fault: Option<FlushFault>,
}

/// One of the stores of a process, which come and go and share what their file system has left.
#[derive(Debug)]
struct Sharer(Arc<AtomicU64>);

impl Sharer {
    fn new(all: Arc<AtomicU64>) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(all)
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed).max(1)
    }
}

impl Drop for Sharer {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl StoreIo {
    /// The name of the effective backend.
    pub fn backend(&self) -> &'static str {
        self.queue.limits().backend
    }

    /// Whether operations are under way or wait for room.
    #[inline]
    pub(crate) fn is_busy(&self) -> bool {
        self.held.is_some() || self.queue.in_flight() > 0
    }

    /// Gives finished operations to the store. Returns their number.
    #[inline]
    pub fn complete(&mut self, store: &mut Store) -> usize {
        if self.queue.in_flight() == 0 {
            return 0;
        }
        self.queue.poll(&mut self.pool, &mut self.done);
        let mut count = 0;
        while let Some(completion) = self.done.pop() {
            count += 1;
            let result = match (&self.fault, completion.kind) {
                (Some(fault), OpKind::Flush) if fault.takes() => Err(INJECTED),
                _ => completion.result,
            };
            match result {
                Ok(()) => {
                    let buf = completion.buf.as_ref();
                    let bytes = buf.map_or(&[][..], |buf| self.pool.bytes(buf));
                    store.complete(completion.token, Ok(bytes));
                }
                Err(error) => self.failed(store, completion.token, error),
            }
            if let Some(buf) = completion.buf {
                self.pool.free(buf);
            }
        }
        count
    }

    /// Takes back what the device was given for a store that is no more. Returns the number of operations that ended.
    #[cold]
    pub(crate) fn reap(&mut self) -> usize {
        self.held = None;
        if self.queue.in_flight() == 0 {
            return 0;
        }
        self.queue.poll(&mut self.pool, &mut self.done);
        let mut count = 0;
        while let Some(completion) = self.done.pop() {
            count += 1;
            if let Some(buf) = completion.buf {
                self.pool.free(buf);
            }
        }
        count
    }

    /// Tells the store of an operation that failed, and remembers the one that ended it.
    #[cold]
    fn failed(&mut self, store: &mut Store, token: u64, error: DeviceError) {
        let file = store.file_of(token);
        store.complete(token, Err(translate(&error)));
        if matches!(store.state(), StoreState::Failed(_)) && self.broken.is_none() {
            self.broken = Some((file, error));
        }
    }

    /// Why the store has failed, if it has: whoever runs it is to end.
    #[inline]
    pub(crate) fn failure(&self, place: Place, store: &Store) -> Option<DeviceFailure> {
        let (file, error) = self.broken?;
        let StoreState::Failed(failure) = store.state() else {
            return None;
        };
        let named = file != FileNo::NONE;
        Some(DeviceFailure {
            place,
            folder: self.queue.dir().path().to_owned(),
            file: named.then(|| file_name(FileId(file.get()))),
            failure,
            error,
            remedy: failure::remedy(store.config().segments),
        })
    }

    /// Starts what the store asks for, as far as the device takes it. Returns the number of operations started.
    #[inline]
    pub fn submit(&mut self, store: &mut Store) -> usize {
        let mut count = 0;
        while let Some(op) = self.held.take().or_else(|| store.next_op()) {
            if !self.start(store, op) {
                self.held = Some(op);
                break;
            }
            count += 1;
        }
        if count > 0 {
            self.queue.kick();
        }
        count
    }

    fn start(&mut self, store: &Store, op: BlockOp) -> bool {
        let file = FileId(op.file.get());
        let device_op = match op.kind {
            BlockOpKind::Create { bytes } => DeviceOp::Create {
                file,
                bytes,
                zero_ahead: false,
            },
            BlockOpKind::Write { offset, len } => {
                let Some(mut buf) = self.pool.alloc() else {
                    return false;
                };
                self.pool.set_len(&mut buf, len as usize);
                store.fill(&op, self.pool.bytes_mut(&mut buf));
                DeviceOp::Write {
                    file,
                    offset,
                    buf,
                    durable: false,
                }
            }
            BlockOpKind::Read { offset, len } => {
                let Some(buf) = self.pool.alloc() else {
                    return false;
                };
                DeviceOp::Read {
                    file,
                    offset,
                    len,
                    buf,
                }
            }
            BlockOpKind::Flush => DeviceOp::Flush,
            BlockOpKind::Delete => DeviceOp::Delete { file },
        };
        match self.queue.submit(
            &mut self.pool,
            BlockRequest {
                token: op.token,
                op: device_op,
            },
        ) {
            Ok(()) => true,
            Err(request) => {
                if let Some(buf) = request.op.into_buf() {
                    self.pool.free(buf);
                }
                false
            }
        }
    }

    /// Tells the store what the file system has left for it, now and then.
    pub(crate) fn tell_space(&mut self, now: Time, store: &mut Store) {
        if now < self.space_at {
            return;
        }
        self.space_at = now.after(SPACE_EVERY);
        // Without an answer what was told last stands.
        if let Ok(bytes) = self.queue.space_bytes() {
            store.set_space(bytes / self.sharers.count());
        }
    }

    /// The store is to be told again soon: there are more or fewer that share.
    pub(crate) const fn space_changed(&mut self) {
        self.space_at = Time::ZERO;
    }

    /// Whether the device has anything of the store: without, it may be dropped by any thread.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.in_flight() == 0
    }

    pub(crate) fn arm(&mut self) -> bool {
        self.held.is_none() && self.queue.arm()
    }

    pub(crate) fn wake_fd(&self) -> Option<std::os::fd::RawFd> {
        self.queue.wake_fd()
    }
}

/// The first file that is shorter than it was made. Of what it held something is gone, and of a journal nobody can tell how
/// much: nothing is served from such a store.
fn check_lengths(path: &Path, queue: &FileQueue, config: &StoreConfig) -> Result<(), StartError> {
    for (id, bytes) in queue.files() {
        let kind = FileNo::new(id.0).kind();
        let expected = match kind {
            Some(FileKind::Superblock(_)) => u64::from(config.block_bytes),
            Some(FileKind::JournalExtent(_)) => config.journal_extent_bytes,
            Some(FileKind::RecordExtent(_)) => config.extent_bytes,
            // The length of a checkpoint is its own, and it has checksums over all of it.
            Some(FileKind::Checkpoint(_)) | None => continue,
        };
        if bytes >= expected {
            continue;
        }
        let folder = path.display();
        let remedy = match (kind, config.segments) {
            (Some(FileKind::Superblock(_)), _) => {
                String::from("move it away, and it is made anew from its other copies")
            }
            (_, 0) => format!(
                "put the whole file back: nothing else holds the order of the log (with {folder} moved away, all that the log holds is declared lost)"
            ),
            (_, 1) => format!(
                "put the whole file back: the shard has no other replica (with {folder} moved away, its records are lost)"
            ),
            _ => format!(
                "put the whole file back, or, while another replica of the shard runs, move {folder} away: all of it comes from there again"
            ),
        };
        return Err(StartError::CutOff {
            file: path.join(file_name(id)).display().to_string(),
            bytes,
            expected,
            remedy,
        });
    }
    Ok(())
}

/// A store that is being opened. Its files are open and its buffers are there, which took the system calls of the thread
/// that called [`open`]; what they hold is read by [`Opening::step`], piece by piece, on the thread that the store will work
/// on, since the device's queue belongs to the first thread that uses it.
#[derive(Debug)]
pub struct Opening {
    /// The store, when it is ready.
    pub store: Store,
    /// Its device.
    pub io: StoreIo,
    /// Whether an earlier life left its state.
    pub has_data: bool,
    /// Why not the fastest backend, if it is another.
    pub fallback: Option<String>,
    existing: Vec<FileNo>,
    begun: bool,
    remade: bool,
}

impl Opening {
    /// Starts what the store asks for and takes what has ended. Returns how much was done; does not block.
    ///
    /// # Errors
    /// [`StartError::Store`]; effect none, but for files made.
    pub fn step(&mut self) -> Result<usize, StartError> {
        if !core::mem::replace(&mut self.begun, true) {
            self.io.queue.register(&self.io.pool);
        }
        match self.store.state() {
            StoreState::Ready => Ok(0),
            // An earlier attempt to make the store ended before anything was kept.
            StoreState::Failed(StoreFailure::NotFormatted) if !self.remade => {
                self.remade = true;
                self.has_data = false;
                self.store = Store::format(*self.store.config(), Inc::ZERO, &self.existing);
                Ok(1)
            }
            StoreState::Failed(failure) => Err(StartError::Store {
                path: self.io.queue.dir().path().display().to_string(),
                failure,
            }),
            StoreState::Starting => {
                let started = self.io.submit(&mut self.store);
                Ok(started + self.io.complete(&mut self.store))
            }
        }
    }

    /// Whether the store serves.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.store.state() == StoreState::Ready
    }

    /// As [`Self::step`], until it is ready.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn finish(mut self) -> Result<Self, StartError> {
        while !self.is_ready() {
            if self.step()? == 0 {
                std::thread::yield_now();
            }
        }
        Ok(self)
    }
}

/// Begins to open the store of a place: makes it in an empty directory, recovers it from a full one. `sharers` counts the
/// stores of this process that share what its file system has left. `fault` is one of flushes that was asked for.
///
/// # Errors
/// [`StartError::Open`], [`StartError::Pool`] or [`StartError::CutOff`]; effect none, but for files made.
pub fn open(
    path: &Path,
    config: StoreConfig,
    sharers: Arc<AtomicU64>,
    fault: Option<FlushFault>,
) -> Result<Opening, StartError> {
    let options = FileOptions {
        transfer_bytes_max: config.write_bytes_max,
        ..FileOptions::default()
    };
    let queue = FileQueue::open(path, options)?;
    check_lengths(path, &queue, &config)?;
    let pool = BufPool::new(PoolOptions {
        slots: BUFFERS,
        slot_bytes: config.write_bytes_max,
        layout: PoolLayout::BlockAligned,
    })?;
    let fallback = queue.fallback_reason().map(ToString::to_string);
    let existing: Vec<FileNo> = queue
        .files()
        .iter()
        .map(|(file, _)| FileNo::new(file.0))
        .collect();
    let has_data = !existing.is_empty();
    let store = if has_data {
        Store::recover(config, &existing)
    } else {
        Store::format(config, Inc::ZERO, &existing)
    };
    let depth = queue.limits().queue_depth as usize;
    let io = StoreIo {
        queue,
        pool,
        done: Completions::with_capacity(depth),
        held: None,
        sharers: Sharer::new(sharers),
        space_at: Time::ZERO,
        broken: None,
        fault,
    };
    Ok(Opening {
        store,
        io,
        has_data,
        fallback,
        existing,
        begun: false,
        remade: false,
    })
}

fn translate(error: &DeviceError) -> BlockError {
    match error {
        DeviceError::NoSpace { .. } | DeviceError::MemoryFull { .. } => BlockError::NoSpace,
        DeviceError::NoFile(_) => BlockError::NotFound,
        _ => BlockError::Io,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ionian_types::{ClusterId, Durability, LogId, NodeId, ShardId};

    use super::*;

    // A replica that another life had taken over was refused with writes under way, and its store was dropped: nobody asked
    // the device for their end any more, so that its place never left and its reactor never slept.
    #[test]
    fn what_the_device_does_for_a_store_that_is_gone_ends() {
        let dir = tempfile::tempdir().expect("a folder");
        let (cluster, node) = (ClusterId::new(1), NodeId::new(1));
        let (log, shard) = (LogId::new(1), ShardId::new(1));
        let config = StoreConfig::new(cluster, node, log, shard, 2, Durability::D1);
        let opening = open(dir.path(), config, Arc::default(), None).expect("it opens");
        let Opening {
            mut store, mut io, ..
        } = opening.finish().expect("it is made");
        store.set_inc(Inc::new(7));
        assert!(io.submit(&mut store) > 0 && !io.is_idle());
        drop(store);
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut ended = 0;
        while !io.is_idle() && Instant::now() < deadline {
            ended += io.reap();
            std::thread::yield_now();
        }
        assert!(io.is_idle() && ended > 0);
    }
}
