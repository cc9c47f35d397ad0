//! A device as bad as the plan allows: operations complete after a while and out of order, and fail or lie on request.
//!
//! What was not flushed is kept, lost or torn at a crash (`crash.rs`); what was flushed is only damaged on request, by the
//! lies of `lies.rs`. Each says when it took effect: a fault that damaged nothing does not count.

use std::collections::{BTreeMap, BTreeSet};

use ionian_store::{BlockError, BlockOp, BlockOpKind, FileKind, FileNo, Store};

use crate::plan::Fault;
use crate::rng::Rng;

mod crash;
mod lies;

pub use lies::Lie;

#[derive(Clone, Debug, Default)]
struct File {
    /// What survives a crash for certain.
    durable: Vec<u8>,
    /// What a read sees.
    current: Vec<u8>,
}

#[derive(Debug)]
struct Unflushed {
    file: FileNo,
    offset: usize,
    bytes: Vec<u8>,
    order: u64,
}

#[derive(Debug)]
struct InFlight {
    op: BlockOp,
    bytes: Vec<u8>,
    order: u64,
}

/// How an operation ended.
#[derive(Debug)]
pub struct Done {
    /// The bytes of a read, nothing for the others, or why it failed.
    pub result: Result<Vec<u8>, BlockError>,
}

/// The device of one place.
#[derive(Debug)]
pub struct Disk {
    files: BTreeMap<FileNo, File>,
    unflushed: Vec<Unflushed>,
    in_flight: Vec<InFlight>,
    order: u64,
    /// The unit that a crash keeps or loses whole, bytes.
    sector: usize,
    /// Lies still to be told, each at the next operation that it fits.
    armed: Vec<Lie>,
    /// Writes that went astray, by when: they count once a flush has promised them.
    astray: Vec<(u64, Fault)>,
    /// Reads that fail after the next one that does.
    pub unread: u32,
    failing: u32,
    /// Copies of the superblock that rot, and checkpoints that do, until they are written again.
    rotten: BTreeSet<FileNo>,
    /// No file can be made.
    pub full: bool,
    /// Flushed bytes were damaged: a start may find that it cannot go on.
    pub lied: bool,
    /// An operation was reported as failed: the store may give up.
    pub failed: bool,
    /// What an earlier moment had made durable.
    image: Option<BTreeMap<FileNo, File>>,
    /// Faults that took effect since they were last asked for.
    took: Vec<Fault>,
}

impl Disk {
    /// An empty device whose sectors have `sector` bytes.
    #[must_use]
    pub const fn new(sector: usize) -> Self {
        Self {
            files: BTreeMap::new(),
            unflushed: Vec::new(),
            in_flight: Vec::new(),
            order: 0,
            sector,
            armed: Vec::new(),
            astray: Vec::new(),
            unread: 0,
            failing: 0,
            rotten: BTreeSet::new(),
            full: false,
            lied: false,
            failed: false,
            image: None,
            took: Vec::new(),
        }
    }

    /// The files that a start finds.
    #[must_use]
    pub fn files(&self) -> Vec<FileNo> {
        self.files.keys().copied().collect()
    }

    /// The faults that took effect since this was last asked.
    pub fn take_effects(&mut self) -> Vec<Fault> {
        core::mem::take(&mut self.took)
    }

    /// Takes over an operation.
    pub fn begin(&mut self, store: &Store, op: BlockOp) {
        let mut bytes = Vec::new();
        if let BlockOpKind::Write { len, .. } = op.kind {
            bytes = vec![0; len as usize];
            store.fill(&op, &mut bytes);
        }
        self.order += 1;
        let order = self.order;
        self.in_flight.push(InFlight { op, bytes, order });
    }

    /// Completes an operation. `None` when the process that asked has died since.
    pub fn complete(&mut self, token: u64, rng: &mut Rng) -> Option<Done> {
        let at = self
            .in_flight
            .iter()
            .position(|flight| flight.op.token == token)?;
        let InFlight { op, bytes, order } = self.in_flight.remove(at);
        let result = match op.kind {
            BlockOpKind::Create { bytes } => self.create(op.file, bytes),
            BlockOpKind::Delete => {
                self.files.remove(&op.file);
                self.rotten.remove(&op.file);
                self.unflushed.retain(|write| write.file != op.file);
                Ok(Vec::new())
            }
            BlockOpKind::Write { offset, .. } => self.write(op.file, offset as usize, bytes, rng),
            BlockOpKind::Read { offset, len } => {
                self.read(op.file, offset as usize, len as usize, rng)
            }
            BlockOpKind::Flush => self.flush(order, rng),
        };
        Some(Done { result })
    }

    fn create(&mut self, file: FileNo, bytes: u64) -> Result<Vec<u8>, BlockError> {
        if self.full {
            self.took.push(Fault::FullDisk);
            return Err(BlockError::NoSpace);
        }
        let blank = vec![0; bytes as usize];
        let made = File {
            durable: blank.clone(),
            current: blank,
        };
        self.files.insert(file, made);
        Ok(Vec::new())
    }

    fn write(
        &mut self,
        file: FileNo,
        offset: usize,
        bytes: Vec<u8>,
        rng: &mut Rng,
    ) -> Result<Vec<u8>, BlockError> {
        let Some((file, offset)) = self.divert(file, offset, &bytes, rng) else {
            return Ok(Vec::new());
        };
        if let Some(found) = self.files.get_mut(&file) {
            found.current[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
        self.unflushed.push(Unflushed {
            file,
            offset,
            bytes,
            order: self.order,
        });
        Ok(Vec::new())
    }

    fn flush(&mut self, order: u64, rng: &mut Rng) -> Result<Vec<u8>, BlockError> {
        if self.tells(Lie::FlushFails) {
            // What the device made of its cache is its own affair; it is never tried again.
            let late = self.unflushed.drain(..).collect();
            self.settle(late, rng);
            self.took.push(Fault::FlushFails);
            self.failed = true;
            return Err(BlockError::Io);
        }
        for write in self.unflushed.extract_if(.., |write| write.order < order) {
            self.rotten.remove(&write.file);
            if let Some(file) = self.files.get_mut(&write.file) {
                let range = write.offset..write.offset + write.bytes.len();
                file.durable[range].copy_from_slice(&write.bytes);
            }
        }
        for (_, fault) in self.astray.extract_if(.., |(at, _)| *at < order) {
            self.took.push(fault);
        }
        Ok(Vec::new())
    }

    /// Files of records, or of the journal.
    fn files_of(&self, journal: bool) -> Vec<FileNo> {
        let wanted = |file: &FileNo| match file.kind() {
            Some(FileKind::RecordExtent(_)) => !journal,
            Some(FileKind::JournalExtent(_)) => journal,
            _ => false,
        };
        self.files.keys().copied().filter(wanted).collect()
    }
}
