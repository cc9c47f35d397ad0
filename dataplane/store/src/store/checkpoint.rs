//! Writing a checkpoint: a new file, both copies, a flush; then the old file and the journal's prefix go.

use super::Store;
use crate::config::StoreConfig;
use crate::error::StoreError;
use crate::format::{CheckpointHeader, CheckpointPlan};
use crate::op::{BlockOpKind, FileKind, FileNo};
use crate::ops::Job;
use ionian_wire::crc::crc32c;

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Phase {
    #[default]
    Idle,
    Begun,
    Creating,
    Writing,
    Flushing,
}

/// The checkpoint being written, and the one that is durable.
#[derive(Default, Debug)]
pub(super) struct CheckpointTask {
    /// The last entry that the durable checkpoint covers.
    pub(super) durable: u64,
    /// The number of the durable one.
    pub(super) number: Option<u64>,
    /// The number of the next file: never used again, whatever becomes of it.
    pub(super) next_number: u64,
    phase: Phase,
    header: Option<CheckpointHeader>,
    block_bytes: u32,
    body: Vec<u8>,
    /// The body is what recovery found.
    body_found: bool,
    next_at: u64,
    writes_left: u32,
}

impl CheckpointTask {
    pub(super) const fn is_pending(&self) -> bool {
        !matches!(self.phase, Phase::Idle)
    }

    pub(super) fn found(&self) -> Option<(u64, &[u8])> {
        self.body_found.then_some((self.durable, &self.body[..]))
    }

    /// Takes what recovery found.
    pub(super) fn recovered(&mut self, number: u64, upto: u64, body: Vec<u8>) {
        self.durable = upto;
        self.number = Some(number);
        self.body = body;
        self.body_found = true;
    }

    pub(super) fn begin(
        &mut self,
        config: &StoreConfig,
        upto: u64,
        snapshot: &[u8],
    ) -> Result<(), StoreError> {
        if self.is_pending() {
            return Err(StoreError::Busy);
        }
        self.body.clear();
        self.body.extend_from_slice(snapshot);
        self.body_found = false;
        self.block_bytes = config.block_bytes;
        self.header = Some(CheckpointHeader {
            body_crc: crc32c(snapshot),
            cluster: config.cluster,
            node: config.node,
            log: config.log,
            shard: config.shard,
            number: self.next_number,
            upto,
            body_bytes: snapshot.len() as u64,
        });
        self.next_number += 1;
        self.phase = Phase::Begun;
        Ok(())
    }

    const fn plan(&self) -> CheckpointPlan {
        CheckpointPlan {
            block_bytes: self.block_bytes,
            body_bytes: self.body.len() as u64,
        }
    }

    pub(super) const fn created(&mut self) {
        self.phase = Phase::Writing;
        self.next_at = 0;
        self.writes_left = 0;
    }

    pub(super) fn refused(&mut self) {
        self.phase = Phase::Idle;
        self.header = None;
        self.body.clear();
    }

    fn file(&self) -> FileNo {
        let header = self.header.expect("a checkpoint under way has a header");
        FileNo::of(FileKind::Checkpoint(header.number))
    }
}

impl Store {
    pub(super) fn pump_checkpoint(&mut self) {
        // A snapshot must not be durable before what it stands for: entries wait for truncations, and so does it.
        let covered = self
            .checkpoint
            .header
            .is_some_and(|header| header.upto <= self.journal_durable());
        if self.checkpoint.phase == Phase::Begun && covered && self.device.has_room(1) {
            self.checkpoint.phase = Phase::Creating;
            self.device.ops.push(
                self.checkpoint.file(),
                BlockOpKind::Create {
                    bytes: self.checkpoint.plan().file_bytes(),
                },
                Job::CheckpointCreate,
            );
        }
        while self.checkpoint.phase == Phase::Writing && self.device.has_room(1) {
            let task = &mut self.checkpoint;
            let left = task.plan().file_bytes() - task.next_at;
            if left == 0 {
                break;
            }
            let len = left.min(u64::from(self.config.write_bytes_max)) as u32;
            let offset = task.next_at;
            task.next_at += u64::from(len);
            task.writes_left += 1;
            let file = task.file();
            self.device.ops.push(
                file,
                BlockOpKind::Write { offset, len },
                Job::CheckpointWrite { offset },
            );
        }
    }

    pub(super) fn fill_checkpoint(&self, offset: u64, out: &mut [u8]) {
        let task = &self.checkpoint;
        let plan = task.plan();
        out.fill(0);
        let mut put = |at: u64, bytes: &[u8]| {
            let from = at.max(offset);
            let to = (at + bytes.len() as u64).min(offset + out.len() as u64);
            if from < to {
                out[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&bytes[(from - at) as usize..(to - at) as usize]);
            }
        };
        let mut header = [0; crate::format::CHECKPOINT_HEADER_BYTES];
        task.header
            .expect("a checkpoint under way has a header")
            .emit(&mut header);
        for copy in 0..2 {
            put(plan.header_at(copy), &header);
            put(plan.body_at(copy), &task.body);
        }
    }

    pub(super) fn checkpoint_written(&mut self) {
        let task = &mut self.checkpoint;
        task.writes_left -= 1;
        if task.writes_left == 0 && task.next_at == task.plan().file_bytes() {
            task.phase = Phase::Flushing;
            self.device
                .ops
                .push(FileNo::NONE, BlockOpKind::Flush, Job::CheckpointFlush);
        }
    }

    pub(super) fn checkpoint_flushed(&mut self) {
        let task = &mut self.checkpoint;
        let header = task
            .header
            .take()
            .expect("a checkpoint under way has a header");
        task.phase = Phase::Idle;
        task.durable = header.upto;
        let old = task.number.replace(header.number);
        if let Some(number) = old {
            self.delete_checkpoint(number);
        }
        self.free_journal();
    }

    pub(super) fn delete_checkpoint(&mut self, number: u64) {
        self.device.ops.push(
            FileNo::of(FileKind::Checkpoint(number)),
            BlockOpKind::Delete,
            Job::Delete { extent: None },
        );
    }
}
