//! From requests to ring entries: the checks, the entries, and the way into the kernel.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::{opcode, squeue, types};
use ionian_driver_api::{BlockError, Buf, BufPool, Completion, FileId, OpKind};

use super::meta::MetaJob;
use super::{ADDRESS_ALIGN, KnownArena, Op, SYNC_BIT, UringQueue};
use crate::files::errno;
use crate::options::check_range;

impl UringQueue {
    pub(super) fn known_arena(&mut self, pool: &BufPool) -> usize {
        let known = self
            .arenas
            .iter()
            .position(|known| Arc::ptr_eq(&known.arena, pool.arena()));
        known.unwrap_or_else(|| {
            self.arenas.push(KnownArena {
                arena: pool.arena().clone(),
                registered: None,
            });
            self.arenas.len() - 1
        })
    }

    pub(super) fn finish_now(
        &mut self,
        token: u64,
        kind: OpKind,
        buf: Option<Buf>,
        result: Result<(), BlockError>,
    ) {
        let pushed = self.immediate.push(Completion {
            token,
            kind,
            buf,
            result,
        });
        assert!(
            pushed.is_ok(),
            "no more completions than operations in flight"
        );
    }

    /// Queues an entry, making room by submitting.
    pub(super) fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: the entry's descriptor is open while it is in flight (its file is not removed before), and its
            // memory, if it has some, is a slot whose handle this queue owns, in an arena that it keeps.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                self.in_ring += 1;
                return;
            }
            self.enter();
        }
    }

    /// Gives queued entries to the kernel and lets it post completions.
    pub(super) fn enter(&mut self) {
        if let Err(error) = self.ring.submit() {
            let transient = matches!(
                errno(&error),
                libc::EAGAIN | libc::EBUSY | libc::EINTR | libc::ENOMEM
            );
            // The rest are wrong calls: another thread than the ring's, a closed ring.
            assert!(transient, "io_uring_enter: {error}");
        }
    }

    /// Checks a read or write and puts it into the ring.
    pub(super) fn transfer(&mut self, pool: &BufPool, op: Op, offset: u64, len: u32) {
        let Op {
            token, kind, file, ..
        } = op;
        if let Err(error) = self.check(pool, &op, offset, len) {
            self.finish_now(token, kind, Some(op.buf), Err(error));
            return;
        }
        let known = self.known_arena(pool);
        let registered = self.arenas[known].registered;
        let address = pool.dma_address(&op.buf);
        let entry = self.table.get_mut(&file).expect("checked");
        entry.in_flight += 1;
        let fd = types::Fd(entry.open.file.as_raw_fd());
        let index = self.free.pop().expect("as many as the queue is deep");
        let rw_flags = if op.durable { libc::RWF_DSYNC } else { 0 };
        let sqe = match (kind, registered) {
            (OpKind::Write, Some(at)) => opcode::WriteFixed::new(fd, address, len, at)
                .offset(offset)
                .rw_flags(rw_flags)
                .build(),
            (OpKind::Write, None) => opcode::Write::new(fd, address, len)
                .offset(offset)
                .rw_flags(rw_flags)
                .build(),
            (_, Some(at)) => opcode::ReadFixed::new(fd, address, len, at)
                .offset(offset)
                .build(),
            (_, None) => opcode::Read::new(fd, address, len).offset(offset).build(),
        };
        self.ops[index as usize] = Some(op);
        self.push(&sqe.user_data(u64::from(index)));
    }

    pub(super) fn check(
        &self,
        pool: &BufPool,
        op: &Op,
        offset: u64,
        len: u32,
    ) -> Result<(), BlockError> {
        let entry = self
            .table
            .get(&op.file)
            .ok_or(BlockError::NoFile(op.file))?;
        let len_max = self
            .options
            .transfer_bytes_max
            .min(u32::try_from(pool.slot_bytes()).unwrap_or(u32::MAX));
        check_range(offset, u64::from(len), entry.open.bytes, len_max)?;
        if !(pool.dma_address(&op.buf) as usize).is_multiple_of(ADDRESS_ALIGN) {
            return Err(BlockError::Misaligned {
                offset,
                len: u64::from(len),
            });
        }
        match self.flushes.poison(op.file, op.kind) {
            Some(error) if op.kind == OpKind::Write => Err(error),
            _ => Ok(()),
        }
    }

    pub(super) fn create(&mut self, token: u64, file: FileId, bytes: u64, zero_ahead: bool) {
        if self.table.contains_key(&file) || !self.changing.insert(file) {
            self.finish_now(token, OpKind::Create, None, Err(BlockError::Exists(file)));
            return;
        }
        self.worker.push(MetaJob::Create {
            token,
            file,
            bytes,
            zero_ahead,
        });
        self.worker.kick();
    }

    pub(super) fn delete(&mut self, token: u64, file: FileId) {
        let error = match self.table.get(&file) {
            None => BlockError::NoFile(file),
            Some(entry) if entry.in_flight > 0 || self.flushes.is_syncing(file) => {
                BlockError::Busy(file)
            }
            Some(_) => {
                let entry = self.table.remove(&file).expect("just seen");
                self.flushes.remove_file(file);
                self.changing.insert(file);
                self.worker.push(MetaJob::Delete {
                    token,
                    file,
                    open: entry.open,
                });
                self.worker.kick();
                return;
            }
        };
        self.finish_now(token, OpKind::Delete, None, Err(error));
    }

    pub(super) fn flush(&mut self, token: u64) {
        let (flushes, syncs) = (&mut self.flushes, &mut self.syncs);
        flushes.begin(token, |number, file| syncs.push((number, file)));
        while let Some((number, file)) = self.syncs.pop() {
            let entry = self
                .table
                .get(&file)
                .expect("files are forgotten in both places at once");
            let fd = types::Fd(entry.open.file.as_raw_fd());
            let sqe = opcode::Fsync::new(fd)
                .flags(types::FsyncFlags::DATASYNC)
                .build();
            self.push(&sqe.user_data(SYNC_BIT | number));
        }
    }
}
