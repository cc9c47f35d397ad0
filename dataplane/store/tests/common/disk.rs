//! A model of a bad disk: unflushed writes are lost, torn by sectors or kept, and single faults of every kind.

use std::collections::BTreeMap;

use ionian_store::{BlockError, BlockOp, BlockOpKind, FileKind, FileNo, Store};

pub(crate) const SECTOR: usize = 512;

/// Deterministic random numbers (SplitMix64).
#[derive(Clone)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ionian_store::format::mix(self.0)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

struct File {
    /// What survives a crash for certain.
    durable: Vec<u8>,
    /// What a read sees.
    current: Vec<u8>,
}

struct Unflushed {
    file: FileNo,
    offset: usize,
    bytes: Vec<u8>,
    order: u64,
}

struct InFlight {
    op: BlockOp,
    bytes: Vec<u8>,
    order: u64,
}

/// A range of a file that a fault touched, and what the whole file was or should have been then.
struct Wound {
    image: Vec<u8>,
    from: usize,
    to: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WriteFault {
    Lost,
    Misdirected,
}

#[derive(Default)]
pub(crate) struct Disk {
    files: BTreeMap<FileNo, File>,
    unflushed: Vec<Unflushed>,
    in_flight: Vec<InFlight>,
    order: u64,
    pub(crate) space_bytes: Option<u64>,
    pub(crate) fail_flush: bool,
    /// The next write of records suffers this.
    pub(crate) write_fault: Option<WriteFault>,
    wounds: Vec<Wound>,
    unreadable: Vec<(FileNo, usize)>,
    pub(crate) creates: u64,
    pub(crate) deletes: u64,
    /// Writes over records that were there before: recycled files and repairs.
    pub(crate) overwrites: u64,
    pub(crate) writes: Vec<(FileNo, u64, u32)>,
}

impl Disk {
    pub(crate) fn files(&self) -> Vec<FileNo> {
        self.files.keys().copied().collect()
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.files
            .values()
            .map(|file| file.current.len() as u64)
            .sum()
    }

    /// Takes over everything the store wants done.
    pub(crate) fn take_ops(&mut self, store: &mut Store) {
        while let Some(op) = store.next_op() {
            let mut bytes = Vec::new();
            if let BlockOpKind::Write { len, offset } = op.kind {
                bytes = vec![0xcc; len as usize];
                store.fill(&op, &mut bytes);
                self.writes.push((op.file, offset, len));
            }
            self.order += 1;
            let order = self.order;
            self.in_flight.push(InFlight { op, bytes, order });
        }
    }

    pub(crate) fn idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Completes one operation in flight, whichever.
    pub(crate) fn complete_one(&mut self, store: &mut Store, rng: &mut Rng) {
        if self.in_flight.is_empty() {
            return;
        }
        let index = rng.below(self.in_flight.len() as u64) as usize;
        let InFlight { op, bytes, order } = self.in_flight.swap_remove(index);
        match op.kind {
            BlockOpKind::Create { bytes } => {
                let used = self.used_bytes();
                if self.space_bytes.is_some_and(|space| used + bytes > space) {
                    store.complete(op.token, Err(BlockError::NoSpace));
                    return;
                }
                self.create(op.file, bytes);
                store.complete(op.token, Ok(&[]));
            }
            BlockOpKind::Delete => {
                self.deletes += 1;
                self.files
                    .remove(&op.file)
                    .expect("only files that exist are deleted");
                self.unflushed.retain(|write| write.file != op.file);
                store.complete(op.token, Ok(&[]));
            }
            BlockOpKind::Write { offset, .. } => {
                self.write(op.file, offset as usize, bytes, rng);
                store.complete(op.token, Ok(&[]));
            }
            BlockOpKind::Read { offset, len } => {
                let (from, to) = (offset as usize, offset as usize + len as usize);
                let bad = self
                    .unreadable
                    .iter()
                    .any(|(file, at)| *file == op.file && *at < to && at + SECTOR > from);
                let result = match self.files.get(&op.file) {
                    _ if bad => Err(BlockError::Io),
                    Some(file) => Ok(file.current[from..to].to_vec()),
                    None => Err(BlockError::NotFound),
                };
                match result {
                    Ok(bytes) => store.complete(op.token, Ok(&bytes)),
                    Err(error) => store.complete(op.token, Err(error)),
                }
            }
            BlockOpKind::Flush => {
                if self.fail_flush {
                    store.complete(op.token, Err(BlockError::Io));
                    return;
                }
                // Only writes that had completed when the flush was handed out.
                let (flushed, kept) = std::mem::take(&mut self.unflushed)
                    .into_iter()
                    .partition::<Vec<_>, _>(|write| write.order < order);
                self.unflushed = kept;
                for write in flushed {
                    if let Some(file) = self.files.get_mut(&write.file) {
                        file.durable[write.offset..write.offset + write.bytes.len()]
                            .copy_from_slice(&write.bytes);
                    }
                }
                store.complete(op.token, Ok(&[]));
            }
        }
    }

    fn create(&mut self, file: FileNo, bytes: u64) {
        self.creates += 1;
        let blank = vec![0; bytes as usize];
        let old = self.files.insert(
            file,
            File {
                durable: blank.clone(),
                current: blank,
            },
        );
        assert!(old.is_none(), "a file is made once");
    }

    fn write(&mut self, file: FileNo, offset: usize, bytes: Vec<u8>, rng: &mut Rng) {
        let records = matches!(file.kind(), Some(FileKind::RecordExtent(_)));
        let fault = self.write_fault.filter(|_| records);
        let (mut file, mut offset) = (file, offset);
        if let Some(fault) = fault {
            self.write_fault = None;
            let mut image = self.files[&file].current.clone();
            image[offset..offset + bytes.len()].copy_from_slice(&bytes);
            self.wound(image, offset, bytes.len());
            let targets: Vec<FileNo> =
                self.files_of(|kind| matches!(kind, FileKind::RecordExtent(_)));
            let target = targets[rng.below(targets.len() as u64) as usize];
            // In the file it was meant for it might take both copies of a chunk's header at once: two faults.
            if fault == WriteFault::Lost || target == file {
                return;
            }
            let image = self.files[&target].current.clone();
            let most = (image.len() - bytes.len()) / SECTOR;
            offset = rng.below(most as u64 + 1) as usize * SECTOR;
            file = target;
            self.wound(image, offset, bytes.len());
        }
        let over = &self.files[&file].current[offset..offset + bytes.len()];
        self.overwrites += u64::from(records && over.iter().any(|byte| *byte != 0));
        self.unreadable
            .retain(|(bad, at)| *bad != file || *at < offset || *at >= offset + bytes.len());
        let target = self
            .files
            .get_mut(&file)
            .expect("only files that exist are written");
        target.current[offset..offset + bytes.len()].copy_from_slice(&bytes);
        self.order += 1;
        let order = self.order;
        self.unflushed.push(Unflushed {
            file,
            offset,
            bytes,
            order,
        });
    }

    /// The power fails: each sector that was not flushed is as before or as written, and nothing is in flight.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        let mode = rng.below(4);
        let in_flight = std::mem::take(&mut self.in_flight);
        for InFlight { op, bytes, .. } in in_flight {
            match op.kind {
                BlockOpKind::Write { offset, .. } => {
                    let order = u64::MAX;
                    let offset = offset as usize;
                    self.unflushed.push(Unflushed {
                        file: op.file,
                        offset,
                        bytes,
                        order,
                    });
                }
                BlockOpKind::Create { bytes } if rng.chance(2) => self.create(op.file, bytes),
                BlockOpKind::Delete if rng.chance(2) => {
                    self.files.remove(&op.file);
                }
                _ => {}
            }
        }
        for write in std::mem::take(&mut self.unflushed) {
            let Some(file) = self.files.get_mut(&write.file) else {
                continue;
            };
            for (index, sector) in write.bytes.chunks(SECTOR).enumerate() {
                let kept = match mode {
                    0 => false,
                    1 => true,
                    _ => rng.chance(2),
                };
                let at = write.offset + index * SECTOR;
                if kept {
                    file.durable[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        for file in self.files.values_mut() {
            file.current.clone_from(&file.durable);
        }
    }

    /// The process dies; the disk goes on. Writes in flight happen or not.
    pub(crate) fn kill(&mut self, rng: &mut Rng) {
        for InFlight { op, bytes, .. } in std::mem::take(&mut self.in_flight) {
            match op.kind {
                BlockOpKind::Write { offset, .. } if rng.chance(2) => {
                    self.write(op.file, offset as usize, bytes, rng);
                }
                _ => {}
            }
        }
    }

    /// One bit somewhere in files of some kinds flips.
    pub(crate) fn rot(&mut self, rng: &mut Rng, may: impl Fn(FileKind) -> bool) {
        let Some((name, at)) = self.anywhere(rng, may) else {
            return;
        };
        let image = self.files[&name].current.clone();
        self.wound(image, at, 1);
        let file = self.files.get_mut(&name).expect("chosen from the files");
        let bit = 1 << rng.below(8);
        file.durable[at] ^= bit;
        file.current[at] ^= bit;
    }

    /// One sector of records cannot be read any more.
    pub(crate) fn lose_sector(&mut self, rng: &mut Rng, may: impl Fn(FileKind) -> bool) {
        if let Some((name, at)) = self.anywhere(rng, may) {
            let from = at / SECTOR * SECTOR;
            let image = self.files[&name].current.clone();
            self.wound(image, from, SECTOR);
            self.unreadable.push((name, from));
        }
    }

    fn anywhere(&self, rng: &mut Rng, may: impl Fn(FileKind) -> bool) -> Option<(FileNo, usize)> {
        let names = self.files_of(may);
        let name = *names.get(rng.below(names.len() as u64) as usize)?;
        let size = self.files[&name].current.len();
        Some((name, rng.below(size as u64) as usize))
    }

    /// The sector at an offset of a file cannot be read.
    pub(crate) fn unreadable_at(&mut self, name: FileNo, at: usize) {
        self.unreadable.push((name, at / SECTOR * SECTOR));
    }

    /// Cured: everything can be read again.
    pub(crate) fn readable(&mut self) {
        self.unreadable.clear();
    }

    /// Changes bytes of a file, and nobody knows.
    pub(crate) fn patch(&mut self, name: FileNo, mut change: impl FnMut(&mut [u8])) {
        let file = self
            .files
            .get_mut(&name)
            .expect("the test names a file that exists");
        change(&mut file.durable);
        file.current.clone_from(&file.durable);
    }

    /// What is surely on the disk of a file.
    pub(crate) fn durable_bytes(&self, name: FileNo) -> &[u8] {
        &self.files[&name].durable
    }

    fn files_of(&self, may: impl Fn(FileKind) -> bool) -> Vec<FileNo> {
        let kind_is = |file: &FileNo| file.kind().is_some_and(&may);
        self.files.keys().copied().filter(kind_is).collect()
    }

    fn wound(&mut self, image: Vec<u8>, from: usize, len: usize) {
        let to = from + len;
        self.wounds.push(Wound { image, from, to });
    }

    /// Whether a fault touched a record on the device.
    pub(crate) fn wounded(&self, record: &[u8]) -> bool {
        // The first eight bytes carry a mark; the header's checksum behind them makes the rest unlike any other.
        let Some(body) = record.get(8..) else {
            return false;
        };
        self.wounds.iter().any(|wound| {
            wound
                .image
                .windows(body.len())
                .enumerate()
                .filter(|(_, window)| *window == body)
                .any(|(at, _)| at - 8 < wound.to && at - 8 + record.len() > wound.from)
        })
    }
}
