//! Group commit: everything accepted goes out in batches, each written, then flushed, then counted as durable.
//!
//! A batch starts at a block in every chunk it touches and is padded with zeros to the next block, so no block is ever
//! written twice. Two batches may be in flight; they are counted in order, each after its own flush, since a flush that
//! follows a failed one may falsely succeed. Journal entries for which nobody waits stay out of batches until somebody
//! does: the journal is another file to flush. The journal is in one batch at a time, and never in one that another batch
//! with a truncation it depends on runs beside: see [`mod@crate::format`].

use ionian_types::SEGMENTS_PER_SHARD_MAX;

use super::Store;
use crate::format::{journal_seal, mark};
use crate::op::{BlockOpKind, FileNo};
use crate::ops::Job;
use crate::stream::Stream;

const STREAMS_MAX: usize = SEGMENTS_PER_SHARD_MAX + 1;

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Phase {
    #[default]
    Idle,
    Writing,
    Flushing,
    Flushed,
}

/// One batch in flight.
#[derive(Default, Debug)]
pub(super) struct Batch {
    phase: Phase,
    seq: u64,
    writes_left: u32,
    /// For each stream, the length that is durable when the batch is.
    targets: [u64; STREAMS_MAX],
    /// For each stream, the first position that still may not count then.
    caps: [u64; STREAMS_MAX],
    /// The chunks written to.
    chunks: Vec<(u8, u64)>,
    journal: bool,
    /// Nothing else may be in flight after it until it is flushed.
    exclusive: bool,
}

impl Batch {
    pub(super) fn clip(&mut self, stream: usize, len: u64) {
        self.targets[stream] = self.targets[stream].min(len);
    }

    const fn is_in_flight(&self) -> bool {
        !matches!(self.phase, Phase::Idle)
    }
}

impl Store {
    /// Forms a batch if there is something to write and one may be in flight.
    pub(super) fn pump_batch(&mut self) {
        let in_flight = |batch: &&Batch| batch.is_in_flight();
        if self
            .device
            .batches
            .iter()
            .filter(in_flight)
            .any(|batch| batch.exclusive)
        {
            return;
        }
        let Some(index) = self
            .device
            .batches
            .iter()
            .position(|batch| !batch.is_in_flight())
        else {
            return;
        };
        let barrier = self.device.barrier;
        if barrier {
            for stream in 0..self.journal_index() {
                self.open_if_cut(stream);
            }
        }
        let journal_busy = self
            .device
            .batches
            .iter()
            .filter(in_flight)
            .any(|batch| batch.journal);
        let mut batch = std::mem::take(&mut self.device.batches[index]);
        batch.chunks.clear();
        batch.writes_left = 0;
        for stream in 0..self.streams.len() {
            let waits = barrier || journal_busy || !self.journal_due;
            if stream == self.journal_index() && waits {
                batch.targets[stream] = 0;
                batch.caps[stream] = self.streams[stream].cap;
            } else {
                self.emit_stream(stream, index, &mut batch);
            }
        }
        if batch.writes_left > 0 {
            batch.phase = Phase::Writing;
            batch.seq = self.device.batch_seq;
            self.device.batch_seq += 1;
            batch.journal = batch
                .chunks
                .iter()
                .any(|(stream, _)| usize::from(*stream) == self.journal_index());
            if batch.journal {
                // Unless the operations did not suffice for all of it.
                self.journal_due &= self.journal().emitted < self.journal().len;
            }
            batch.exclusive = barrier;
        }
        // No batch begins beside an exclusive one, so when the last header is out the journal waits long enough.
        self.device.barrier = barrier && self.streams.iter().any(Stream::cut_is_pending);
        self.device.batches[index] = batch;
    }

    /// Puts what a stream has not handed out into a batch, as far as there is room, and no further than the first header
    /// that records a truncation: what comes after must not be on the device without it.
    fn emit_stream(&mut self, stream: usize, index: usize, batch: &mut Batch) {
        batch.targets[stream] = 0;
        let repaired = self.emit_repairs(stream, index, batch);
        batch.caps[stream] = if repaired {
            self.streams[stream].damage.cap_when_flushed()
        } else {
            self.streams[stream].cap
        };
        let floor = self.streams[stream].emitted;
        let first = self.streams[stream].dirty.max(self.streams[stream].base);
        for number in first..self.streams[stream].next_number() {
            let block = self.config.block_bytes;
            let is_journal = stream == self.journal_index();
            let emitted = self.streams[stream].emitted;
            let Some(chunk) = self.streams[stream].chunk_mut(number) else {
                continue;
            };
            let cuts = chunk.cuts && chunk.written == 0;
            if chunk.used > chunk.written
                && let Some(buf) = chunk.buf.as_mut()
            {
                let from = chunk.written;
                let to = chunk.used.next_multiple_of(block);
                let pieces = (to - from).div_ceil(self.config.write_bytes_max) as usize + 1;
                if !self.device.has_room(pieces) {
                    return;
                }
                buf.bytes[chunk.used as usize..to as usize].fill(0);
                if is_journal {
                    let sealed = emitted.saturating_sub(chunk.first) as usize;
                    for place in buf.places.iter().skip(sealed) {
                        journal_seal(&mut buf.bytes[place.offset() as usize..], floor);
                    }
                }
                chunk.used = to;
                chunk.written = to;
                chunk.follows = false;
                chunk.batches += 1;
                let end = chunk.end;
                self.streams[stream].emitted = emitted.max(end);
                self.push_writes(stream, number, index, batch, from, to);
                if from == 0 {
                    self.push_tail(stream, number, index, batch);
                }
                batch.chunks.push((stream as u8, number));
            }
            let journal_or_segment = &mut self.streams[stream];
            if journal_or_segment
                .chunk(number)
                .is_some_and(|chunk| chunk.closed)
            {
                journal_or_segment.dirty = number + 1;
            }
            batch.targets[stream] = journal_or_segment.emitted;
            if cuts {
                return;
            }
        }
    }

    fn emit_repairs(&mut self, stream: usize, index: usize, batch: &mut Batch) -> bool {
        while let Some(number) = self.streams[stream].repairs.last().copied() {
            let block = self.config.block_bytes;
            let range = self.streams[stream]
                .chunk_mut(number)
                .filter(|chunk| chunk.buf.is_some())
                .and_then(|chunk| chunk.repaired);
            if let Some((from, to)) = range {
                let from = from / block * block;
                let to = to.next_multiple_of(block);
                let pieces = (to - from).div_ceil(self.config.write_bytes_max) as usize + 1;
                if !self.device.has_room(pieces) {
                    return false;
                }
                let chunk = self.streams[stream].chunk_mut(number).expect("found above");
                chunk.repaired = None;
                chunk.batches += 1;
                self.push_writes(stream, number, index, batch, from, to);
                if from == 0 {
                    self.push_tail(stream, number, index, batch);
                }
                batch.chunks.push((stream as u8, number));
            }
            self.streams[stream].repairs.pop();
        }
        true
    }

    fn push_writes(
        &mut self,
        stream: usize,
        number: u64,
        index: usize,
        batch: &mut Batch,
        from: u32,
        to: u32,
    ) {
        let home = self.home(stream, number);
        let mut at = from;
        while at < to {
            let len = (to - at).min(self.config.write_bytes_max);
            self.device.ops.push(
                home.file,
                BlockOpKind::Write {
                    offset: home.at + u64::from(at),
                    len,
                },
                Job::BatchWrite {
                    batch: index as u8,
                    stream: stream as u8,
                    chunk: number,
                    from: at,
                    tail: false,
                },
            );
            batch.writes_left += 1;
            at += len;
        }
    }

    /// The second copy of a chunk's header, in its last block.
    fn push_tail(&mut self, stream: usize, number: u64, index: usize, batch: &mut Batch) {
        let home = self.home(stream, number);
        let to = self.streams[stream].room.to;
        self.device.ops.push(
            home.file,
            BlockOpKind::Write {
                offset: home.at + u64::from(to),
                len: self.config.block_bytes,
            },
            Job::BatchWrite {
                batch: index as u8,
                stream: stream as u8,
                chunk: number,
                from: 0,
                tail: true,
            },
        );
        batch.writes_left += 1;
    }

    fn home(&self, stream: usize, number: u64) -> crate::chunk::Home {
        self.streams[stream]
            .chunk(number)
            .and_then(|chunk| chunk.home)
            .expect("a chunk that is written to has a place on the device")
    }

    /// The bytes of a chunk as they go to the device: with the marks on.
    pub(super) fn fill_chunk(
        &self,
        stream: usize,
        number: u64,
        from: u32,
        tail: bool,
        out: &mut [u8],
    ) {
        let chunk = self.streams[stream]
            .chunk(number)
            .expect("a chunk that is written to is kept");
        let (Some(buf), Some(home)) = (&chunk.buf, &chunk.home) else {
            unreachable!("a chunk that is written to is in memory");
        };
        let start = from as usize;
        out.copy_from_slice(&buf.bytes[start..start + out.len()]);
        if tail {
            return;
        }
        let to = from + out.len() as u32;
        let index = buf.places.partition_point(|place| place.offset() < from);
        for place in &buf.places[index..] {
            let offset = place.offset();
            if offset >= to {
                break;
            }
            if place.is_damaged() {
                continue;
            }
            let at = (offset - from) as usize;
            if let Some(word) = out[at..].first_chunk_mut::<8>() {
                *word = (u64::from_le_bytes(*word) ^ mark(home.stamp, offset)).to_le_bytes();
            }
        }
    }

    pub(super) fn batch_written(&mut self, index: usize) {
        let batch = &mut self.device.batches[index];
        batch.writes_left -= 1;
        if batch.writes_left == 0 {
            batch.phase = Phase::Flushing;
            self.device.ops.push(
                FileNo::NONE,
                BlockOpKind::Flush,
                Job::BatchFlush { batch: index as u8 },
            );
        }
    }

    pub(super) fn batch_flushed(&mut self, index: usize) {
        self.device.batches[index].phase = Phase::Flushed;
        loop {
            let oldest = self
                .device
                .batches
                .iter()
                .enumerate()
                .filter(|(_, batch)| batch.is_in_flight())
                .min_by_key(|(_, batch)| batch.seq)
                .map(|(index, batch)| (index, batch.phase));
            match oldest {
                Some((index, Phase::Flushed)) => self.count_batch(index),
                _ => break,
            }
        }
    }

    fn count_batch(&mut self, index: usize) {
        self.stats.batches += 1;
        let mut batch = std::mem::take(&mut self.device.batches[index]);
        for (stream, number) in &batch.chunks {
            if let Some(chunk) = self.streams[usize::from(*stream)].chunk_mut(*number) {
                chunk.batches -= 1;
            }
        }
        for stream in 0..self.streams.len() {
            let segment = &mut self.streams[stream];
            segment.flushed = segment.flushed.max(batch.targets[stream].min(segment.len));
            segment.damage.settle(batch.caps[stream]);
            segment.cap = segment.damage.cap();
            segment.update_durable();
            self.release(stream);
        }
        batch.phase = Phase::Idle;
        self.device.batches[index] = batch;
    }
}
