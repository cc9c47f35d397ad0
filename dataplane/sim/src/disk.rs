//! A device as bad as a crash allows: what was not flushed is kept, lost or torn, sector by sector, in any order.
//!
//! Operations complete after a while and out of order. What was flushed is only damaged on request, and only in files of
//! records: what a journal or superblock bears is the store's own test.

use std::collections::BTreeMap;

use ionian_store::{BlockOp, BlockOpKind, FileKind, FileNo, Store};

use crate::rng::Rng;

const SECTOR: usize = 512;
/// Places looked at for one that was written.
const TRIES: u32 = 64;

#[derive(Debug, Default)]
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

/// The device of one place.
#[derive(Debug, Default)]
pub struct Disk {
    files: BTreeMap<FileNo, File>,
    unflushed: Vec<Unflushed>,
    in_flight: Vec<InFlight>,
    order: u64,
    /// Flushes completed.
    pub flushes: u64,
    /// Crashes that lost or tore something.
    pub torn: u64,
}

impl Disk {
    /// The files that a start finds.
    #[must_use]
    pub fn files(&self) -> Vec<FileNo> {
        self.files.keys().copied().collect()
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

    /// Completes an operation; the bytes of a read. `None` when the process that asked has died since.
    pub fn complete(&mut self, token: u64) -> Option<Vec<u8>> {
        let at = self
            .in_flight
            .iter()
            .position(|flight| flight.op.token == token)?;
        let InFlight { op, bytes, order } = self.in_flight.remove(at);
        let mut read = Vec::new();
        match op.kind {
            BlockOpKind::Create { bytes } => {
                let blank = vec![0; bytes as usize];
                let file = File {
                    durable: blank.clone(),
                    current: blank,
                };
                self.files.insert(op.file, file);
            }
            BlockOpKind::Delete => {
                self.files.remove(&op.file);
                self.unflushed.retain(|write| write.file != op.file);
            }
            BlockOpKind::Write { offset, .. } => {
                let offset = offset as usize;
                if let Some(file) = self.files.get_mut(&op.file) {
                    file.current[offset..offset + bytes.len()].copy_from_slice(&bytes);
                }
                self.unflushed.push(Unflushed {
                    file: op.file,
                    offset,
                    bytes,
                    order: self.order,
                });
            }
            BlockOpKind::Read { offset, len } => {
                let from = offset as usize;
                if let Some(file) = self.files.get(&op.file) {
                    read = file.current[from..from + len as usize].to_vec();
                }
            }
            BlockOpKind::Flush => {
                self.flushes += 1;
                for write in self.unflushed.extract_if(.., |write| write.order < order) {
                    if let Some(file) = self.files.get_mut(&write.file) {
                        let range = write.offset..write.offset + write.bytes.len();
                        file.durable[range].copy_from_slice(&write.bytes);
                    }
                }
            }
        }
        Some(read)
    }

    /// Flips a bit of what was flushed to a file of records. Whether there was anything.
    pub fn corrupt(&mut self, rng: &mut Rng) -> bool {
        let files: Vec<FileNo> = self.files.keys().copied().collect();
        let records: Vec<FileNo> = files
            .into_iter()
            .filter(|file| matches!(file.kind(), Some(FileKind::RecordExtent(_))))
            .collect();
        if records.is_empty() {
            return false;
        }
        for _ in 0..TRIES {
            let Some(file) = self.files.get_mut(&rng.pick(&records)) else {
                continue;
            };
            let at = rng.below(file.durable.len() as u64) as usize;
            // Zeros are most likely room that was never written.
            if file.durable[at] != 0 {
                let bit = 1 << rng.below(8);
                file.durable[at] ^= bit;
                file.current[at] ^= bit;
                return true;
            }
        }
        false
    }

    /// The process dies: each sector of each write that was not flushed is there or not.
    pub fn crash(&mut self, rng: &mut Rng) {
        let flights = core::mem::take(&mut self.in_flight);
        let late = flights
            .into_iter()
            .filter_map(|flight| match flight.op.kind {
                BlockOpKind::Write { offset, .. } => {
                    Some((flight.op.file, offset as usize, flight.bytes))
                }
                _ => None,
            });
        let writes: Vec<_> = core::mem::take(&mut self.unflushed)
            .into_iter()
            .map(|write| (write.file, write.offset, write.bytes))
            .chain(late)
            .collect();
        self.torn += u64::from(!writes.is_empty());
        for (file, offset, bytes) in writes {
            let Some(file) = self.files.get_mut(&file) else {
                continue;
            };
            let kept = rng.pick(&[0, 500, 1000]);
            for (at, sector) in bytes.chunks(SECTOR).enumerate() {
                if rng.permille(kept) {
                    let from = offset + at * SECTOR;
                    file.durable[from..from + sector.len()].copy_from_slice(sector);
                }
            }
        }
        for file in self.files.values_mut() {
            file.current.clone_from(&file.durable);
        }
    }
}
