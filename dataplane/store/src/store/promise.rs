//! What a segment may take: space set aside for it, told as a number of bytes that it takes for certain.
//!
//! Space is set aside in whole chunks, on a device in whole extents, and never given to another segment afterwards. How
//! much of it records use depends on how they come: a run never crosses a chunk, so that the end of one may stay empty,
//! and on a device each batch begins at a block. The writer cannot know that of its peer. So a promise is counted in
//! *charge*, a bound of what a run of records takes anywhere ([`Charge`]), and is less than the space behind it by what
//! the ends of chunks may waste. As records come their true use shows, and the promise made next is larger.
//!
//! On a device one chunk of each segment is kept back: a truncation is recorded in a fresh chunk, and the journal, trims
//! included, waits until it is.

use ionian_types::Slot;

use super::Store;

/// Most bytes of space set aside for one segment ahead of its records.
const AHEAD_BYTES_MAX: u64 = 1 << 30;
/// Runs are handed on in pieces; two that follow each other have more bytes than this together, if a record does not end
/// the first.
const PIECE_BYTES: u64 = 1024;

/// How much a run of records takes of a promise, wherever and however it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Charge {
    /// Bytes that one batch may add.
    padding: u64,
    /// Runs of more bytes leave more than that empty at the end of a chunk.
    run_bytes_max: u64,
}

impl Charge {
    /// The charge of `count` records of `bytes` bytes in all, accepted at once, in bytes.
    #[must_use]
    #[inline]
    pub const fn of(&self, bytes: u64, count: u64) -> u64 {
        let pieces = 2 + bytes / PIECE_BYTES;
        let batches = if count < pieces { count } else { pieces };
        let large = if bytes > self.run_bytes_max { bytes } else { 0 };
        bytes + large + self.padding * batches
    }
}

impl Store {
    /// How runs are charged, if none but single records and runs charged here have more than `run_bytes_max` bytes.
    #[must_use]
    pub const fn charge(&self, run_bytes_max: usize) -> Charge {
        Charge {
            padding: if self.on_device() {
                self.config.block_bytes as u64
            } else {
                0
            },
            run_bytes_max: run_bytes_max as u64,
        }
    }

    /// Sets space aside for a segment, its fair share of what is free, and returns the charge that the segment takes from
    /// its present length on, in bytes. What was promised before is never taken back. At flushed classes space is what the
    /// limits leave; once the file system has refused a file, and until one is freed, only files that exist count.
    pub fn promise(&mut self, slot: Slot, run_bytes_max: usize) -> u64 {
        let index = slot.index();
        self.set_aside(index);
        let whole = self.whole(index);
        let chunks = self.streams[index]
            .promised
            .max(self.assigned_end(index))
            .saturating_sub(self.streams[index].next_number());
        // A chunk for a truncation; and for one that waits for its chunk.
        let kept = u64::from(self.on_device()) + u64::from(self.streams[index].must_open);
        match chunks.checked_sub(kept) {
            Some(chunks) => guaranteed(self.rest(index), chunks, whole, run_bytes_max as u64),
            None => 0,
        }
    }

    /// Space that a segment has used since it was made, in bytes, ends of chunks included. Falls by a truncation only.
    #[must_use]
    #[inline]
    pub fn taken(&self, slot: Slot) -> u64 {
        let index = slot.index();
        (self.streams[index].next_number() * self.whole(index)).saturating_sub(self.rest(index))
    }

    /// Chunks, on a device extents, that no segment has. When this changes a promise may have become too small.
    #[must_use]
    #[inline]
    pub fn space_left(&self) -> u64 {
        if self.on_device() {
            self.device.extents[0].available()
        } else {
            self.pool.available() as u64
        }
    }

    /// Bytes that a chunk takes.
    fn whole(&self, stream: usize) -> u64 {
        let room = self.streams[stream].room;
        u64::from(room.to - room.from)
    }

    /// Bytes that the last chunk takes still, if what it has were handed to the device now.
    fn rest(&self, stream: usize) -> u64 {
        let stream = &self.streams[stream];
        let Some(last) = stream.chunks.back() else {
            return 0;
        };
        if last.closed || last.end != stream.len {
            return 0;
        }
        let used = if self.on_device() {
            last.used.next_multiple_of(self.config.block_bytes)
        } else {
            last.used
        };
        u64::from(stream.room.to.saturating_sub(used))
    }

    /// The number of the first chunk that lies in no extent of the stream; without a device, of the next one.
    fn assigned_end(&self, stream: usize) -> u64 {
        let next = self.streams[stream].next_number();
        if !self.on_device() {
            return next;
        }
        let extents = &self.device.extents[0];
        let end = match self.streams[stream].extents.back() {
            Some((extent, _)) => (extent + 1) * extents.chunks(),
            None => extents.extent_of(next) * extents.chunks(),
        };
        // A stream whose extents are used up goes on in the next one.
        end.max(extents.extent_of(next) * extents.chunks())
    }

    /// Chunks, on a device extents, that are promised to a segment and not taken.
    fn outstanding(&self, stream: usize) -> u64 {
        let ahead = self.streams[stream]
            .promised
            .saturating_sub(self.assigned_end(stream));
        if self.on_device() {
            ahead.div_ceil(self.device.extents[0].chunks())
        } else {
            ahead
        }
    }

    /// Units that must stay for the segments other than `stream`: what they were promised, and for each that has neither
    /// what it needs to begin.
    pub(super) fn set_aside_for_others(&self, stream: usize) -> u64 {
        (0..self.journal_index())
            .filter(|other| *other != stream)
            .map(|other| self.outstanding(other).max(self.to_begin(other)))
            .sum()
    }

    /// Units without which a segment that has none takes no records. One that was emptied may go on in the midst of an
    /// extent: what it then gets of the first one may suffice for a truncation only.
    fn to_begin(&self, stream: usize) -> u64 {
        let segment = &self.streams[stream];
        if !segment.chunks.is_empty() || !segment.extents.is_empty() {
            return 0;
        }
        let (_, chunks) = self.unit();
        let first = self.assigned_end(stream) + chunks;
        1 + u64::from(self.is_short_at(stream, first))
    }

    /// Whether the next chunk of a segment is promised to it.
    pub(super) fn is_promised(&self, stream: usize) -> bool {
        let stream = &self.streams[stream];
        stream.next_number() < stream.promised
    }

    /// Whether a segment may put records into its next chunk: on a device, whether one would be left for a truncation.
    pub(super) fn may_take_records(&self, stream: usize) -> bool {
        if !self.on_device() || stream == self.journal_index() {
            return true;
        }
        let next = self.streams[stream].next_number();
        let end = self.streams[stream].promised.max(self.assigned_end(stream));
        let extents = &self.device.extents[0];
        next + 1 < end || {
            // Those that the next chunk and the one after it lie in, if the segment has them not.
            let has = extents.extent_of(self.assigned_end(stream));
            let needed = (extents.extent_of(next + 1) + 1).saturating_sub(has);
            extents.available() >= self.set_aside_for_others(stream) + needed
        }
    }

    /// Whether a segment has used most of what it has and was promised.
    fn is_short(&self, stream: usize) -> bool {
        let promised = self.streams[stream].promised;
        self.is_short_at(stream, promised.max(self.assigned_end(stream)))
    }

    /// Whether it would be with the chunks below the number `end`.
    fn is_short_at(&self, stream: usize, end: u64) -> bool {
        let left = end.saturating_sub(self.streams[stream].next_number());
        left * 2 <= self.unit().1
    }

    /// What space is set aside in: its bytes, and its chunks.
    const fn unit(&self) -> (u64, u64) {
        if self.on_device() {
            let extents = &self.device.extents[0];
            (extents.extent_bytes, extents.chunks())
        } else {
            (self.config.chunk_bytes as u64, 1)
        }
    }

    fn set_aside(&mut self, stream: usize) {
        let (unit_bytes, unit_chunks) = self.unit();
        let had = self.outstanding(stream);
        let free = self
            .space_left()
            .saturating_sub(self.set_aside_for_others(stream));
        // A small share, so that a segment nobody writes to keeps little from the others.
        let share = free / (2 * self.journal_index() as u64);
        let mut units = share.min((AHEAD_BYTES_MAX / unit_bytes).max(1)).max(had);
        let end = self.assigned_end(stream);
        // The last ones go by the order of the segments, so that replicas which do not hear of each other give them to the
        // same ones: a segment needs room at every replica.
        let before = (0..stream).filter(|other| self.is_short(*other)).count() as u64;
        while self.is_short_at(stream, end + units * unit_chunks) && free > units + before {
            units += 1;
        }
        if units > 0 {
            let promised = &mut self.streams[stream].promised;
            *promised = (*promised).max(end + units * unit_chunks);
        }
    }
}

/// The charge that `rest` bytes of an open chunk and `chunks` more of `whole` bytes take for certain, one run after the
/// other, each in the chunk of the one before if it fits there.
fn guaranteed(rest: u64, chunks: u64, whole: u64, run_bytes_max: u64) -> u64 {
    // Two chunks that follow each other hold more than one: the first run of the second did not fit into the first.
    let by_pairs = if chunks.is_multiple_of(2) {
        rest + chunks / 2 * whole
    } else {
        chunks.div_ceil(2) * whole
    };
    // No run leaves more empty than its own length less one, and those of more than `run_bytes_max` are charged twice.
    let waste = (chunks + 1) * run_bytes_max.saturating_sub(1);
    let by_runs = (rest + chunks * whole).saturating_sub(waste);
    by_pairs.max(by_runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Stores runs one after the other; the charge of those that fit.
    fn fill(rest: u64, chunks: u64, whole: u64, runs: &[(u64, u64)], charge: Charge) -> u64 {
        let (mut rest, mut chunks, mut sum) = (rest, chunks, 0);
        for (bytes, count) in runs {
            if *bytes > rest {
                if chunks == 0 {
                    return sum;
                }
                chunks -= 1;
                rest = whole;
            }
            let padded = bytes.next_multiple_of(charge.padding.max(1)).min(rest);
            rest -= padded;
            sum += charge.of(*bytes, *count);
        }
        u64::MAX
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// What does not fit lies beyond the promise.
        #[test]
        fn whatever_comes_the_promise_holds(
            padding in prop_oneof![Just(0u64), Just(512u64)],
            rest in 0u64..16,
            chunks in 0u64..6,
            run_bytes_max in 1u64..6000,
            runs in prop::collection::vec((1u64..6000, 1u64..20), 1..60),
        ) {
            let whole = 16 * 512;
            let charge = Charge { padding, run_bytes_max };
            let rest = rest * 512;
            let promised = guaranteed(rest, chunks, whole, run_bytes_max);
            let mut sum = 0;
            let accepted: Vec<(u64, u64)> = runs
                .into_iter()
                .take_while(|(bytes, count)| {
                    sum += charge.of(*bytes, *count);
                    sum <= promised
                })
                .collect();
            prop_assert_eq!(fill(rest, chunks, whole, &accepted, charge), u64::MAX);
        }
    }
}
