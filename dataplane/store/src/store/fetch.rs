//! Reading chunks back from the device, and taking the memory of others for them.

use super::Store;
use super::device::FETCHES_QUEUED_MAX;
use crate::chunk::ChunkBuf;
use crate::error::{BlockError, StoreFailure};
use crate::format::{ScanPlan, scan};
use crate::op::{BlockOpKind, BlockResult};
use crate::ops::Job;
use ionian_types::{SegmentId, Slot};

/// One chunk being read back.
#[derive(Default, Debug)]
pub(super) struct FetchSlot {
    target: Option<(u8, u64)>,
    buf: Option<ChunkBuf>,
    /// Ranges still to be asked for.
    pieces: Vec<(u32, u32)>,
    in_flight: u32,
}

impl Store {
    /// Asks for a chunk to be read back.
    pub(super) fn want_chunk(&mut self, stream: usize, number: u64) {
        if self.device.fetch_queue.len() >= FETCHES_QUEUED_MAX {
            return;
        }
        let Some(chunk) = self.streams[stream].chunk_mut(number) else {
            return;
        };
        if !chunk.fetching && chunk.home.is_some() {
            chunk.fetching = true;
            self.device.fetch_queue.push_back((stream as u8, number));
        }
    }

    pub(super) fn pump_fetch(&mut self) {
        let floor = usize::from(self.config.segments);
        self.tidy_resident();
        while self.pool.available() < floor && self.evict_one() {}
        for index in 0..self.device.fetches.len() {
            if self.device.fetches[index].target.is_none() && !self.begin_fetch(index) {
                break;
            }
        }
        for index in 0..self.device.fetches.len() {
            self.push_reads(index);
        }
    }

    fn begin_fetch(&mut self, index: usize) -> bool {
        let Some((stream, number)) = self.device.fetch_queue.front().copied() else {
            return false;
        };
        let stream_index = usize::from(stream);
        if self.pool_of(stream_index).available() == 0 && !self.evict_one() {
            return false;
        }
        let Some(buf) = self.pool_of(stream_index).take() else {
            return false;
        };
        self.device.fetch_queue.pop_front();
        let room = self.streams[stream_index].room;
        let slot = &mut self.device.fetches[index];
        slot.target = Some((stream, number));
        slot.buf = Some(buf);
        slot.in_flight = 0;
        slot.pieces.clear();
        let mut to = room.to;
        while to > room.from {
            let from = to
                .saturating_sub(self.config.write_bytes_max)
                .max(room.from);
            slot.pieces.push((from, to));
            to = from;
        }
        true
    }

    fn push_reads(&mut self, index: usize) {
        while self.device.has_room(1) {
            let slot = &mut self.device.fetches[index];
            let Some((stream, number)) = slot.target else {
                return;
            };
            let Some((from, to)) = slot.pieces.pop() else {
                return;
            };
            slot.in_flight += 1;
            let home = self.streams[usize::from(stream)]
                .chunk(number)
                .and_then(|chunk| chunk.home)
                .expect("a chunk that is being fetched is kept");
            self.device.ops.push(
                home.file,
                BlockOpKind::Read {
                    offset: home.at + u64::from(from),
                    len: to - from,
                },
                Job::FetchRead {
                    fetch: index as u8,
                    from,
                },
            );
        }
    }

    /// A piece was read. What cannot be read is asked for again in halves, down to one block: the rest is good. A journal
    /// that cannot be read is no journal: its end cannot be told from a torn one, and nobody has a copy.
    pub(super) fn fetch_read(
        &mut self,
        index: usize,
        from: u32,
        len: u32,
        result: BlockResult<'_>,
    ) {
        let block = self.config.block_bytes;
        let journal = self.journal_index() as u8;
        let slot = &mut self.device.fetches[index];
        slot.in_flight -= 1;
        let of_journal = slot.target.is_some_and(|(stream, _)| stream == journal);
        let buf = slot.buf.as_mut().expect("a fetch in flight has memory");
        let (start, end) = (from as usize, (from + len) as usize);
        match result {
            Ok(bytes) if bytes.len() == len as usize => {
                buf.bytes[start..end].copy_from_slice(bytes);
            }
            Ok(_) | Err(BlockError::Io | BlockError::NoSpace) if len > block => {
                let half = (len / 2).next_multiple_of(block);
                slot.pieces.push((from + half, from + len));
                slot.pieces.push((from, from + half));
            }
            _ => {
                buf.bytes[start..end].fill(0);
                if of_journal {
                    self.fail(StoreFailure::Device { op: "read" });
                    return;
                }
            }
        }
        let slot = &mut self.device.fetches[index];
        if slot.in_flight == 0 && slot.pieces.is_empty() {
            self.end_fetch(index);
        } else {
            self.push_reads(index);
        }
    }

    fn end_fetch(&mut self, index: usize) {
        self.stats.fetches += 1;
        let slot = &mut self.device.fetches[index];
        let (Some((stream, number)), Some(mut buf)) = (slot.target.take(), slot.buf.take()) else {
            unreachable!("a fetch that ends had begun");
        };
        let stream_index = usize::from(stream);
        let first_kept = self.streams[stream_index].first;
        let starting = self.start.is_some();
        let plan = self.scan_plan(stream_index, number);
        let found = scan(&plan, &mut buf.bytes, &mut buf.places);
        let owners = &self.streams[stream_index].owners;
        owners.judge(plan.first, 0, &mut buf, drop);
        let damaged: Vec<u64> = buf
            .places
            .iter()
            .enumerate()
            .filter(|(_, place)| place.is_damaged())
            .map(|(at, _)| plan.first + at as u64)
            .collect();
        let segment = &mut self.streams[stream_index];
        for pos in damaged.into_iter().filter(|pos| *pos >= first_kept) {
            segment.damage.add(pos, pos + 1, starting);
        }
        if plan.complete && found.end < plan.limit {
            segment
                .damage
                .add(found.end.max(first_kept), plan.limit, starting);
        }
        let chunk = segment
            .chunk_mut(number)
            .expect("a chunk that is being fetched is kept");
        chunk.fetching = false;
        if !chunk.scanned {
            chunk.end = found.end;
            chunk.scanned = true;
        }
        chunk.buf = Some(buf);
        if stream_index != self.journal_index() {
            self.device.note_resident(stream_index, number);
        }
        match self.start.as_mut() {
            Some(start) => start.scanned(found),
            None => self.release(stream_index),
        }
    }

    fn scan_plan(&self, stream: usize, number: u64) -> ScanPlan {
        let segment = &self.streams[stream];
        let chunk = segment
            .chunk(number)
            .expect("a chunk that is being fetched is kept");
        ScanPlan {
            framing: segment.framing,
            log: self.config.log,
            segment: SegmentId {
                shard: self.config.shard,
                slot: Slot::new(stream as u8),
            },
            stamp: chunk.home.expect("a fetched chunk has a place").stamp,
            from: segment.room.from,
            to: segment.room.to,
            first: chunk.first,
            limit: chunk.end,
            complete: chunk.scanned,
        }
    }

    /// Takes the memory of the chunk that has been in memory longest and is all on the device.
    fn evict_one(&mut self) -> bool {
        for _ in 0..self.device.resident.len() {
            let Some((stream, number)) = self.device.resident.pop_front() else {
                return false;
            };
            let Some(chunk) = self.streams[usize::from(stream)].chunk_mut(number) else {
                continue;
            };
            if chunk.buf.is_none() {
                continue;
            }
            if chunk.is_evictable()
                && let Some(buf) = chunk.buf.take()
            {
                self.pool.put(buf);
                self.stats.evictions += 1;
                return true;
            }
            self.device.resident.push_back((stream, number));
        }
        false
    }

    /// Forgets chunks that are not in memory any more, where trims are so quick that nothing is ever evicted.
    fn tidy_resident(&mut self) {
        if self.device.resident_is_long() {
            let streams = &self.streams;
            self.device.resident.retain(|(stream, number)| {
                streams[usize::from(*stream)]
                    .chunk(*number)
                    .is_some_and(|chunk| chunk.buf.is_some())
            });
        }
    }
}
