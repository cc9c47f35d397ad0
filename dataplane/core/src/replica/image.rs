//! What a replica has applied, in one piece: a checkpoint on its own device, and what a peer takes over when the cut log no
//! longer has the entries that said it.
//!
//! A replica's own checkpoint was checked by its store; a peer's is checked here before anything of it is believed.

use alloc::vec::Vec;

use ionian_types::{
    EntryNo, Gsn, GsnRange, Knobs, LogId, Lsn, SEGMENTS_PER_SHARD_MAX, ShardId, Slot, ViewId,
};
use ionian_wire::{Reader, WireError, Writer};

use super::Replica;
use crate::cutlog::ShardState;
use crate::dedup::Dedup;
use crate::index::RunIndex;

/// The dedup set of one segment: it saw every record in `from..upto`.
#[derive(Debug)]
pub(super) struct SeenSet {
    pub(super) upto: Lsn,
    pub(super) from: Lsn,
    pub(super) set: Dedup,
}

/// The applied state of a replica after one entry.
#[derive(Debug)]
pub struct Image {
    pub(super) applied: EntryNo,
    pub(super) complete: EntryNo,
    pub(super) end_gsn: Gsn,
    pub(super) trim: Gsn,
    pub(super) head: Gsn,
    pub(super) state: Option<ShardState>,
    pub(super) losses: Vec<GsnRange>,
    pub(super) index: RunIndex,
    pub(super) seen: Vec<SeenSet>,
}

impl Image {
    /// Reads an image of a shard of `replicas` replicas. `cuts_ready` is the room of its index, as in
    /// [`RunIndex::new`].
    ///
    /// # Errors
    /// Any [`WireError`]; effect none.
    pub fn read(bytes: &[u8], replicas: u8, cuts_ready: usize) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let mut image = Self {
            applied: reader.field()?,
            complete: reader.field()?,
            end_gsn: reader.field()?,
            trim: reader.field()?,
            head: reader.field()?,
            state: None,
            losses: Vec::new(),
            index: RunIndex::new(usize::from(replicas), cuts_ready),
            seen: Vec::new(),
        };
        if reader.field::<bool>()? {
            image.state = Some(ShardState::read(&mut reader)?);
        }
        for _ in 0..reader.field::<u32>()? {
            image.losses.push(GsnRange {
                from: reader.field()?,
                to: reader.field()?,
            });
        }
        image.index.read(&mut reader)?;
        for _ in 0..replicas {
            image.seen.push(SeenSet {
                upto: reader.field()?,
                from: reader.field()?,
                set: Dedup::read(&mut reader)?,
            });
        }
        Ok(image)
    }

    /// Where records stand.
    #[must_use]
    pub const fn index(&self) -> &RunIndex {
        &self.index
    }

    /// The view that opened the shard.
    pub(super) fn opened_in(&self) -> Option<ViewId> {
        self.state.as_ref().map(ShardState::opened_in)
    }

    /// Whether an image that a peer sent is one of this shard, and free of contradictions: then every question can be asked
    /// of it, and entries after it can be applied.
    #[must_use]
    pub fn is_sound(&self, log: LogId, shard: ShardId, replicas: u8) -> bool {
        let Some(state) = &self.state else {
            return false;
        };
        let segments = &state.segments;
        let ours = state.log == log
            && state.shard == shard
            && segments.len() == usize::from(replicas)
            && state.members.len() == segments.len();
        if !ours || !self.index.is_sound() {
            return false;
        }
        let (entry, gsn, lens) = self.index.end();
        let indexed = segments
            .iter()
            .zip(lens)
            .all(|(segment, len)| segment.len.get() == *len);
        let generations = segments.iter().all(|segment| {
            let mut open = Lsn::ZERO;
            let chained = segment.closed.iter().all(|span| {
                let follows = span.open == open && span.close >= open;
                open = span.close;
                follows
            });
            chained && segment.opened_at == open && segment.len >= open
        });
        let mut lost = Gsn::ZERO;
        let losses = self.losses.iter().all(|loss| {
            let rises = loss.from >= lost && loss.to > loss.from;
            lost = loss.to;
            rises
        });
        let ends = lost <= self.end_gsn && gsn <= self.end_gsn && self.head <= self.trim;
        let entries = entry <= self.applied && state.last <= self.applied;
        indexed && generations && losses && ends && entries && self.complete >= self.applied
    }

    /// Whether this image, which covers the entries that were dropped from the cut log, says of them what the cut log's
    /// snapshot says: `then` is the shard's state after them, with the order ending at `end_gsn`.
    #[must_use]
    pub fn agrees(&self, then: &ShardState, end_gsn: Gsn) -> bool {
        let Some(now) = self.state.as_ref().filter(|_| self.applied >= then.last) else {
            return false;
        };
        if now.last == then.last {
            return now == then;
        }
        if now.opened_in() != then.opened_in() || self.head > end_gsn {
            // The shard was opened anew since, or all that the snapshot covers is trimmed.
            return true;
        }
        let lens = self.index.lens_at(end_gsn);
        now.segments
            .iter()
            .zip(&then.segments)
            .zip(lens)
            .all(|((now, then), len)| {
                len == then.len && now.closed.starts_with(&then.closed) && now.len >= then.len
            })
    }
}

impl<K: Knobs> Replica<K> {
    /// Encodes everything that the journal has said so far.
    pub(super) fn encode_checkpoint(&self, bytes: &mut Vec<u8>) {
        let mut size = bytes.capacity().max(1 << 16);
        loop {
            bytes.resize(size, 0);
            let mut writer = Writer::new(bytes);
            if self.write_checkpoint(&mut writer).is_ok() {
                let len = writer.len();
                bytes.truncate(len);
                return;
            }
            size *= 2;
        }
    }

    fn write_checkpoint(&self, writer: &mut Writer<'_>) -> Result<(), WireError> {
        writer.field(self.applied)?;
        writer.field(self.complete)?;
        writer.field(self.end_gsn)?;
        writer.field(self.trim)?;
        writer.field(self.head)?;
        writer.field(self.state.is_some())?;
        if let Some(state) = &self.state {
            state.write(writer)?;
        }
        writer.field(self.losses.len() as u32)?;
        for loss in &self.losses {
            writer.field(loss.from)?;
            writer.field(loss.to)?;
        }
        self.index.write(writer)?;
        for slot in 0..usize::from(self.config.replicas) {
            writer.field(self.dedup_upto[slot])?;
            writer.field(self.dedup_from[slot])?;
            self.dedup[slot].write(writer)?;
        }
        Ok(())
    }

    /// Takes over an applied state. What lies below its trim and is not held is stepped over; the dedup sets reach as far
    /// as committed records are held, and see the others as they come. `keeps` names a segment whose set stays as it is.
    pub(super) fn take_image(&mut self, image: Image, keeps: Option<Slot>) {
        self.applied = image.applied;
        self.complete = image.complete;
        self.end_gsn = image.end_gsn;
        self.trim = image.trim;
        self.head = image.head;
        self.state = image.state;
        self.losses = image.losses;
        self.index = image.index;
        let trimmed: [Lsn; SEGMENTS_PER_SHARD_MAX] = self.index.lens_at(self.head);
        for (slot, seen) in image.seen.into_iter().enumerate() {
            let index = Slot::new(slot as u8);
            if self.head > Gsn::ZERO {
                self.trim_segment(index, trimmed[slot].min(self.committed(index)));
            }
            if keeps == Some(index) {
                continue;
            }
            // What was not committed then may be void since, and other records may stand in its place: those that are
            // held are seen anew.
            let held = self.store.len(index).min(self.committed(index));
            self.dedup_upto[slot] = seen.upto.min(held);
            self.dedup_from[slot] = seen.from;
            self.dedup[slot] = seen.set;
            let upto = self.dedup_upto[slot];
            self.dedup[slot].truncate(upto);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
