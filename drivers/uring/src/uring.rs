//! Files by io_uring with O_DIRECT: no thread, no copy, no page cache.
//!
//! The ring belongs to the thread that first uses the queue. Reads, writes and syncs go through it; making and removing
//! files, which block, go to a helper thread.

mod meta;
mod probe;
mod reap;
mod submit;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use io_uring::IoUring;
use ionian_driver_api::dma::Arena;
use ionian_driver_api::{
    BlockLimits, BlockOp, BlockQueue, BlockRequest, Bounded, Buf, BufPool, Completion, Completions,
    FileId, OpKind, OpenError,
};

use crate::dir::DataDir;
use crate::event::Event;
use crate::files::{Files, OpenFile, device_has_fua};
use crate::flush::Flushes;
use crate::options::{BLOCK_BYTES, FileOptions};
use crate::worker::Worker;

use meta::{MetaDone, MetaJob, run_meta};
pub(crate) use probe::probe;

/// Name of the backend.
pub(crate) const BACKEND: &str = "io_uring+O_DIRECT";
/// Marks the ring's number of a sync; the others are indices of `ops`.
const SYNC_BIT: u64 = 1 << 63;
/// Addresses and lengths that every device takes for O_DIRECT.
const ADDRESS_ALIGN: usize = 512;
/// Pools that can be registered.
const POOLS_MAX: u32 = 16;
/// Largest registered region, a limit of the kernel.
const REGISTERED_BYTES_MAX: usize = 1 << 30;

/// A read or write in the ring.
#[derive(Debug)]
struct Op {
    token: u64,
    kind: OpKind,
    file: FileId,
    buf: Buf,
    durable: bool,
}

#[derive(Debug)]
struct FileEntry {
    open: OpenFile,
    in_flight: u32,
}

#[derive(Debug)]
struct KnownArena {
    arena: Arc<Arena>,
    /// Index among the ring's registered buffers.
    registered: Option<u16>,
}

pub(crate) struct UringQueue {
    ring: IoUring,
    enabled: bool,
    ops: Box<[Option<Op>]>,
    free: Vec<u32>,
    /// Entries given to the ring whose completion was not taken.
    in_ring: usize,
    /// Operations submitted and not polled.
    in_flight: usize,
    table: BTreeMap<FileId, FileEntry>,
    /// Files that the helper thread is making or removing.
    changing: BTreeSet<FileId>,
    flushes: Flushes,
    syncs: Vec<(u64, FileId)>,
    /// Operations that ended without the ring.
    immediate: Completions,
    arenas: Vec<KnownArena>,
    sparse: bool,
    worker: Worker<MetaJob, MetaDone>,
    event: Arc<Event>,
    armed: bool,
    options: FileOptions,
    fua: bool,
}

impl std::fmt::Debug for UringQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UringQueue")
            .field("in_flight", &self.in_flight)
            .field("files", &self.table.len())
            .finish_non_exhaustive()
    }
}

impl UringQueue {
    pub(crate) fn open(dir: Arc<DataDir>, options: FileOptions) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Backend {
            backend: BACKEND,
            source,
        };
        let depth = options.queue_depth as usize;
        let (ring, enabled) = probe::build_ring(options.queue_depth).map_err(failed)?;
        let event = Arc::new(Event::new().map_err(failed)?);
        ring.submitter()
            .register_eventfd(event.as_raw_fd())
            .map_err(failed)?;
        let fua = device_has_fua(&dir);
        let (files, found) = Files::open(dir, true)?;
        let mut flushes = Flushes::new(depth);
        for file in found.keys() {
            flushes.add_file(*file);
        }
        let table = found
            .into_iter()
            .map(|(id, open)| (id, FileEntry { open, in_flight: 0 }))
            .collect();
        let worker = Worker::start(depth, event.clone(), move |job| run_meta(&files, job))
            .map_err(failed)?;
        Ok(Self {
            ring,
            enabled,
            ops: (0..depth).map(|_| None).collect(),
            free: (0..options.queue_depth).rev().collect(),
            in_ring: 0,
            in_flight: 0,
            table,
            changing: BTreeSet::new(),
            flushes,
            syncs: Vec::with_capacity(64),
            immediate: Bounded::with_capacity(depth),
            arenas: Vec::with_capacity(POOLS_MAX as usize),
            sparse: false,
            worker,
            event,
            armed: false,
            options,
            fua,
        })
    }

    /// Binds the ring to this thread, on the first use.
    fn enable(&mut self) {
        if !self.enabled {
            self.enabled = true;
            let result = self.ring.submitter().register_enable_rings();
            assert!(
                result.is_ok(),
                "enabling a ring that was probed: {result:?}"
            );
        }
    }

    /// Whether `poll` would find something.
    fn is_ready(&mut self) -> bool {
        // The kernel raises the flag for its work after it has queued it, so that an entry may be taken before: with nothing in
        // the ring the flag says nothing, and nobody would enter the kernel to have it taken down.
        let ring_ready = self.in_ring > 0 && {
            let (_, submission, completion) = self.ring.split();
            !completion.is_empty() || submission.taskrun() || submission.cq_overflow()
        };
        ring_ready
            || !self.immediate.is_empty()
            || self.worker.has_results()
            || self.flushes.has_finished()
    }

    fn disarm(&mut self) {
        if self.armed {
            self.armed = false;
            self.event.disarm();
        }
    }
}

impl BlockQueue for UringQueue {
    fn limits(&self) -> BlockLimits {
        BlockLimits {
            backend: BACKEND,
            block_bytes: BLOCK_BYTES,
            transfer_bytes_max: self.options.transfer_bytes_max,
            queue_depth: self.options.queue_depth,
            fua: self.fua,
            persistent: true,
        }
    }

    fn register(&mut self, pool: &BufPool) -> bool {
        let known = self.known_arena(pool);
        let arena = pool.arena();
        if self.arenas[known].registered.is_some() {
            return true;
        }
        if known >= POOLS_MAX as usize || arena.bytes() > REGISTERED_BYTES_MAX {
            return false;
        }
        self.enable();
        if !self.sparse {
            self.sparse = self
                .ring
                .submitter()
                .register_buffers_sparse(POOLS_MAX)
                .is_ok();
        }
        let index = u32::try_from(known).expect("few pools");
        let vector = [libc::iovec {
            iov_base: arena.base().cast(),
            iov_len: arena.bytes(),
        }];
        // SAFETY: the memory is one allocation of that size, which this queue keeps until the ring is gone.
        let registered = self.sparse
            && unsafe {
                self.ring
                    .submitter()
                    .register_buffers_update(index, &vector, None)
            }
            .is_ok();
        if registered {
            self.arenas[known].registered = u16::try_from(known).ok();
        }
        registered
    }

    fn submit(&mut self, pool: &mut BufPool, request: BlockRequest) -> Result<(), BlockRequest> {
        if self.in_flight >= self.options.queue_depth as usize {
            return Err(request);
        }
        self.enable();
        self.in_flight += 1;
        let BlockRequest { token, op } = request;
        match op {
            BlockOp::Write {
                file,
                offset,
                buf,
                durable,
            } => {
                let len = u32::try_from(buf.len()).unwrap_or(u32::MAX);
                self.transfer(
                    pool,
                    Op {
                        token,
                        kind: OpKind::Write,
                        file,
                        buf,
                        durable,
                    },
                    offset,
                    len,
                );
            }
            BlockOp::Read {
                file,
                offset,
                len,
                mut buf,
            } => {
                pool.set_len(&mut buf, pool.slot_bytes().min(len as usize));
                self.transfer(
                    pool,
                    Op {
                        token,
                        kind: OpKind::Read,
                        file,
                        buf,
                        durable: false,
                    },
                    offset,
                    len,
                );
            }
            BlockOp::Flush => self.flush(token),
            BlockOp::Create {
                file,
                bytes,
                zero_ahead,
            } => self.create(token, file, bytes, zero_ahead),
            BlockOp::Delete { file } => self.delete(token, file),
        }
        Ok(())
    }

    fn kick(&mut self) {
        if !self.ring.submission().is_empty() {
            self.enter();
        }
    }

    fn poll(&mut self, pool: &mut BufPool, out: &mut Completions) -> usize {
        self.disarm();
        let before = out.len();
        if self.in_ring > 0 {
            let enter = {
                let (_, submission, completion) = self.ring.split();
                !submission.is_empty()
                    || (completion.is_empty() && submission.taskrun())
                    || submission.cq_overflow()
            };
            if enter {
                self.enter();
            }
        }
        while !out.is_full() {
            let next = match self.immediate.pop() {
                Some(completion) => Some(completion),
                None => self.worker.pop().map(|done| self.take_meta(done)),
            };
            let next = match next {
                Some(completion) => completion,
                None if self.in_ring == 0 => break,
                None => {
                    let Some(entry) = self.ring.completion().next() else {
                        break;
                    };
                    let Some(completion) = self.take_entry(pool, entry.user_data(), entry.result())
                    else {
                        continue;
                    };
                    completion
                }
            };
            let pushed = out.push(next);
            assert!(pushed.is_ok(), "room was checked");
        }
        while !out.is_full() {
            let Some((token, result)) = self.flushes.finished() else {
                break;
            };
            let pushed = out.push(Completion {
                token,
                kind: OpKind::Flush,
                buf: None,
                result,
            });
            assert!(pushed.is_ok(), "room was checked");
        }
        let count = out.len() - before;
        self.in_flight -= count;
        count
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn files(&self) -> Vec<(FileId, u64)> {
        self.table
            .iter()
            .map(|(id, entry)| (*id, entry.open.bytes))
            .collect()
    }

    fn arm(&mut self) -> bool {
        self.kick();
        self.armed = true;
        self.event.arm();
        if self.is_ready() {
            self.disarm();
        }
        self.armed
    }

    fn wake_fd(&self) -> Option<RawFd> {
        Some(self.event.as_raw_fd())
    }
}

impl Drop for UringQueue {
    fn drop(&mut self) {
        while self.in_ring > 0 {
            match self.ring.submit_and_wait(1) {
                Ok(_) => self.in_ring -= self.ring.completion().count().min(self.in_ring),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    // The ring belongs to a thread that is gone, so its end cannot be waited for. The kernel may still
                    // write to the memory: it must stay.
                    for known in self.arenas.drain(..) {
                        std::mem::forget(known.arena);
                    }
                    return;
                }
            }
        }
    }
}
