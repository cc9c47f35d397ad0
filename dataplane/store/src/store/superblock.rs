//! Writing the superblock: copies 0 and 1, flush, copies 2 and 3, flush.

use super::Store;
use crate::config::StoreConfig;
use crate::format::Superblock;
use crate::op::{BlockOpKind, FileKind, FileNo};
use crate::ops::Job;
use ionian_types::Inc;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Idle,
    /// Writing the pair of copies that starts with this number.
    Writing(u8),
    Flushing(u8),
}

/// The superblock: as wanted, as being written, as durable.
#[derive(Debug)]
pub(super) struct SuperTask {
    pub(super) wanted: Superblock,
    pub(super) durable: Superblock,
    writing: Superblock,
    phase: Phase,
    writes_left: u8,
    /// Write even if nothing changed: copies are missing or damaged.
    pub(super) forced: bool,
}

impl SuperTask {
    pub(super) const fn new(config: &StoreConfig) -> Self {
        let superblock = Superblock::of(config, Inc::ZERO);
        Self {
            wanted: superblock,
            durable: superblock,
            writing: superblock,
            phase: Phase::Idle,
            writes_left: 0,
            forced: false,
        }
    }

    pub(super) fn fill(&self, copy: u8, out: &mut [u8]) {
        out.fill(0);
        self.writing.emit(copy, out);
    }

    /// What was found at start.
    pub(super) const fn found(&mut self, superblock: Superblock) {
        self.wanted = superblock;
        self.durable = superblock;
    }
}

impl Store {
    pub(super) fn pump_superblock(&mut self) {
        let task = &mut self.superblock;
        if task.phase != Phase::Idle || (task.wanted == task.durable && !task.forced) {
            return;
        }
        if !self.device.has_room(2) {
            return;
        }
        task.wanted.sequence += 1;
        task.writing = task.wanted;
        task.forced = false;
        self.write_pair(0);
    }

    fn write_pair(&mut self, first: u8) {
        self.superblock.phase = Phase::Writing(first);
        self.superblock.writes_left = 2;
        for copy in [first, first + 1] {
            self.device.ops.push(
                FileNo::of(FileKind::Superblock(copy)),
                BlockOpKind::Write {
                    offset: 0,
                    len: self.config.block_bytes,
                },
                Job::SuperWrite { copy },
            );
        }
    }

    pub(super) fn superblock_written(&mut self) {
        let task = &mut self.superblock;
        task.writes_left -= 1;
        if task.writes_left > 0 {
            return;
        }
        let Phase::Writing(first) = task.phase else {
            unreachable!("a superblock write belongs to a pair");
        };
        task.phase = Phase::Flushing(first);
        self.device
            .ops
            .push(FileNo::NONE, BlockOpKind::Flush, Job::SuperFlush);
    }

    pub(super) fn superblock_flushed(&mut self) {
        if self.superblock.phase == Phase::Flushing(0) {
            self.write_pair(2);
            return;
        }
        let task = &mut self.superblock;
        task.phase = Phase::Idle;
        task.durable = task.writing;
        for stream in 0..self.streams.len() {
            self.release(stream);
        }
        self.superblock_ready();
    }
}
