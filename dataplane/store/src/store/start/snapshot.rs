//! Reading the newest good checkpoint: of each file both headers, then a copy of the snapshot, then the other.

use super::{Phase, Start};
use crate::format::{CheckpointHeader, CheckpointPlan};
use crate::op::{BlockOpKind, BlockResult, FileKind, FileNo};
use crate::ops::Job;
use crate::store::Store;
use ionian_wire::crc::crc32c;

impl Store {
    /// Both headers of the newest checkpoint that was not tried yet.
    pub(super) fn read_checkpoint_headers(&mut self, start: &mut Start) {
        let Some(number) = start.checkpoints.last().copied() else {
            self.begin_headers(start);
            return;
        };
        while start.next < 2 && self.device.has_room(1) {
            start.left += 1;
            let offset = start.next as u64 * u64::from(self.config.block_bytes);
            start.next += 1;
            self.device.ops.push(
                FileNo::of(FileKind::Checkpoint(number)),
                BlockOpKind::Read {
                    offset,
                    len: self.config.block_bytes,
                },
                Job::CheckpointRead { offset },
            );
        }
        if start.next < 2 || start.left > 0 {
            return;
        }
        start.checkpoint = start.checkpoint_headers.into_iter().flatten().next();
        if start.checkpoint.is_some() {
            start.checkpoint_copy = 0;
            start.checkpoint_body.clear();
            start.go(Phase::CheckpointBody);
            self.read_checkpoint_body(start);
        } else {
            self.reject_checkpoint(start);
        }
    }

    /// The newest checkpoint is no good: a file that was being written, or damage. The one before may do.
    fn reject_checkpoint(&mut self, start: &mut Start) {
        if let Some(number) = start.checkpoints.pop() {
            self.checkpoint.next_number = self.checkpoint.next_number.max(number + 1);
            start.doomed.push(number);
        }
        start.checkpoint = None;
        start.checkpoint_headers = [None; 2];
        start.go(Phase::CheckpointHeaders);
        self.read_checkpoint_headers(start);
    }

    pub(super) fn read_checkpoint_body(&mut self, start: &mut Start) {
        let Some(header) = start.checkpoint else {
            return;
        };
        if start.left > 0 {
            return;
        }
        let plan = CheckpointPlan {
            block_bytes: self.config.block_bytes,
            body_bytes: header.body_bytes,
        };
        let got = start.checkpoint_body.len() as u64;
        if got < plan.body_blocks_bytes() {
            if !self.device.has_room(1) {
                return;
            }
            let len = (plan.body_blocks_bytes() - got).min(u64::from(self.config.write_bytes_max));
            let offset = plan.body_at(start.checkpoint_copy) + got;
            start.left += 1;
            self.device.ops.push(
                FileNo::of(FileKind::Checkpoint(header.number)),
                BlockOpKind::Read {
                    offset,
                    len: len as u32,
                },
                Job::CheckpointRead { offset },
            );
            return;
        }
        start.checkpoint_body.truncate(header.body_bytes as usize);
        if crc32c(&start.checkpoint_body) == header.body_crc {
            let body = std::mem::take(&mut start.checkpoint_body);
            self.checkpoint.recovered(header.number, header.upto, body);
            self.checkpoint.next_number = self.checkpoint.next_number.max(header.number + 1);
            self.begin_headers(start);
        } else if start.checkpoint_copy == 0 {
            start.checkpoint_copy = 1;
            start.checkpoint_body.clear();
            self.read_checkpoint_body(start);
        } else {
            self.reject_checkpoint(start);
        }
    }

    pub(in crate::store) fn checkpoint_read(&mut self, offset: u64, result: BlockResult<'_>) {
        let config = &self.config;
        let Some(start) = self.start.as_mut() else {
            return;
        };
        start.left -= 1;
        start.checkpoint_unread |= result.is_err();
        if start.phase == Phase::CheckpointHeaders {
            let number = start.checkpoints.last().copied();
            let copy = (offset / u64::from(config.block_bytes)) as usize;
            start.checkpoint_headers[copy.min(1)] = result
                .ok()
                .and_then(|bytes| CheckpointHeader::parse(bytes).ok())
                .filter(|header| {
                    header.cluster == config.cluster
                        && header.node == config.node
                        && header.log == config.log
                        && header.shard == config.shard
                        && Some(header.number) == number
                        && header.body_bytes <= 1 << 30
                });
            return;
        }
        match result {
            Ok(bytes) => start.checkpoint_body.extend_from_slice(bytes),
            Err(_) => {
                // Bytes that cannot be read are bytes that do not check.
                let len = start.checkpoint.map_or(0, |header| header.body_bytes);
                let whole = len.next_multiple_of(u64::from(config.block_bytes));
                start.checkpoint_body.resize(whole as usize, 0xff);
                if let Some(first) = start.checkpoint_body.first_mut() {
                    *first ^= 0xff;
                }
            }
        }
    }
}
