//! What a crash leaves of writes that were not flushed: nothing, all, a prefix, or any subset of their sectors.

use ionian_store::{BlockOpKind, FileNo};

use super::{Disk, Unflushed};
use crate::plan::Fault;
use crate::rng::Rng;

impl Disk {
    /// The process dies: each sector of each write that was not flushed is there or not.
    pub fn crash(&mut self, rng: &mut Rng) {
        let mut late: Vec<Unflushed> = self.unflushed.drain(..).collect();
        for flight in core::mem::take(&mut self.in_flight) {
            if let BlockOpKind::Write { offset, .. } = flight.op.kind {
                late.push(Unflushed {
                    file: flight.op.file,
                    offset: offset as usize,
                    bytes: flight.bytes,
                    order: flight.order,
                });
            }
        }
        // What had gone astray without a promise is a lost write like any other.
        self.astray.clear();
        self.settle(late, rng);
    }

    /// Writes that nobody was promised become durable in part. What is read from now on is what is there.
    pub(super) fn settle(&mut self, late: Vec<Unflushed>, rng: &mut Rng) {
        let (mut torn, mut lost) = (false, false);
        for write in late {
            let sectors = write.bytes.len().div_ceil(self.sector);
            let kept = kept_sectors(sectors, rng);
            let count = kept.iter().filter(|kept| **kept).count();
            torn |= count > 0 && count < sectors;
            lost |= count == 0;
            self.keep(&write, &kept);
        }
        if torn {
            self.took.push(Fault::TornWrite);
        }
        if lost {
            self.took.push(Fault::LostUnflushed);
        }
        for file in self.files.values_mut() {
            file.current.clone_from(&file.durable);
        }
    }

    fn keep(&mut self, write: &Unflushed, kept: &[bool]) {
        let sector = self.sector;
        let Some(file) = self.files.get_mut(&write.file) else {
            return;
        };
        for (at, bytes) in write.bytes.chunks(sector).enumerate() {
            if kept[at] {
                let from = write.offset + at * sector;
                file.durable[from..from + bytes.len()].copy_from_slice(bytes);
            }
        }
    }

    /// Remembers what is durable now. Whether there was anything.
    pub fn take_image(&mut self) -> bool {
        if self.image.is_some() || self.files.is_empty() {
            return false;
        }
        let durable = |file: &super::File| super::File {
            durable: file.durable.clone(),
            current: file.durable.clone(),
        };
        let files = self.files.iter().map(|(no, file)| (*no, durable(file)));
        self.image = Some(files.collect());
        true
    }

    /// Puts back what was remembered, while no process uses the device. Whether it differs from what was there.
    pub fn put_image_back(&mut self) -> bool {
        let Some(image) = self.image.take() else {
            return false;
        };
        let same = |(no, file): (&FileNo, &super::File)| {
            self.files
                .get(no)
                .is_some_and(|now| now.durable == file.durable)
        };
        let changed = image.len() != self.files.len() || !image.iter().all(same);
        self.files = image;
        self.lied |= changed;
        changed
    }
}

fn kept_sectors(sectors: usize, rng: &mut Rng) -> Vec<bool> {
    match rng.below(4) {
        0 => vec![false; sectors],
        1 => vec![true; sectors],
        2 => {
            let prefix = rng.below(sectors as u64 + 1) as usize;
            (0..sectors).map(|at| at < prefix).collect()
        }
        _ => (0..sectors).map(|_| rng.permille(500)).collect(),
    }
}
