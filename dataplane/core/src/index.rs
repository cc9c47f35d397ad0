//! Where a shard's records stand in the total order: the runs that committed cuts gave its segments.
//!
//! A cut that touches the shard gives each segment at most one run; all of them lie back to back from the shard's base, in
//! slot order. The index keeps, per cut, differences of 32 bits: the entry number, the distance from the end of the run
//! before, and a count per segment (16 bytes for two replicas), in blocks of 64 with absolute starts. Blocks live in slabs
//! that are allocated whole, ahead of need, and recycled by trimming: one million cuts of a two-replica shard take 18 MB.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use ionian_types::{EntryNo, Gsn, Lsn, SEGMENTS_PER_SHARD_MAX, Slot};
use ionian_wire::{Reader, WireError, Writer};

const CUTS_PER_BLOCK: usize = 64;
const BLOCKS_PER_SLAB: usize = 64;

/// A run: consecutive positions of one segment that one cut put at consecutive positions of the total order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The segment's slot.
    pub slot: Slot,
    /// The first record's position in the segment.
    pub position: Lsn,
    /// The first record's position in the total order.
    pub gsn: Gsn,
    /// The number of records.
    pub count: u64,
    /// The entry that ordered them.
    pub entry: EntryNo,
}

impl Run {
    /// The position in the total order after the last record.
    #[must_use]
    pub const fn end_gsn(&self) -> Gsn {
        Gsn::new(self.gsn.get() + self.count)
    }

    /// The part of the run from `skip` records on.
    #[must_use]
    pub const fn skip(&self, skip: u64) -> Self {
        Self {
            position: Lsn::new(self.position.get() + skip),
            gsn: Gsn::new(self.gsn.get() + skip),
            count: self.count - skip,
            ..*self
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Block {
    entry: u64,
    gsn: u64,
    lens: [u64; SEGMENTS_PER_SHARD_MAX],
    cuts: u16,
}

#[derive(Debug)]
struct Slab {
    blocks: Vec<Block>,
    deltas: Vec<u32>,
}

/// The index of one shard.
#[derive(Debug)]
pub struct RunIndex {
    segments: usize,
    slabs: VecDeque<Slab>,
    spare: Vec<Slab>,
    /// The end of what was pushed: entry, gsn, lengths.
    entry: u64,
    gsn: u64,
    lens: [u64; SEGMENTS_PER_SHARD_MAX],
    cuts: u64,
}

/// One cut while walking a block.
#[derive(Clone, Copy)]
struct Walk {
    entry: u64,
    base: u64,
    lens: [u64; SEGMENTS_PER_SHARD_MAX],
    counts: [u32; SEGMENTS_PER_SHARD_MAX],
}

impl RunIndex {
    /// An empty index for a shard of `segments` segments, with room for `cuts_ready` cuts before it allocates again.
    #[must_use]
    pub fn new(segments: usize, cuts_ready: usize) -> Self {
        let slabs = cuts_ready.div_ceil(CUTS_PER_BLOCK * BLOCKS_PER_SLAB).max(1);
        let spare = (0..slabs).map(|_| Slab::new(segments)).collect();
        Self {
            segments,
            slabs: VecDeque::with_capacity(4096),
            spare,
            entry: 0,
            gsn: 0,
            lens: [0; SEGMENTS_PER_SHARD_MAX],
            cuts: 0,
        }
    }

    /// Forgets everything; the next run continues from these lengths.
    pub fn reset(&mut self, lens: &[Lsn]) {
        while let Some(slab) = self.slabs.pop_front() {
            self.recycle(slab);
        }
        self.cuts = 0;
        self.lens = [0; SEGMENTS_PER_SHARD_MAX];
        for (slot, len) in lens.iter().enumerate() {
            self.lens[slot] = len.get();
        }
    }

    /// The number of cuts held.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.cuts
    }

    /// Bytes held for the index.
    #[must_use]
    pub fn bytes(&self) -> usize {
        (self.slabs.len() + self.spare.len()) * Slab::bytes(self.segments)
    }

    /// Adds the cut of `entry`: from `base` on, each segment grew to the length given.
    ///
    /// # Panics
    /// If a length falls or the order runs backwards: the caller has checked the entry.
    pub fn push(&mut self, entry: EntryNo, base: Gsn, new_lens: &[Lsn]) {
        assert_eq!(new_lens.len(), self.segments, "one length per segment");
        let mut counts = [0u32; SEGMENTS_PER_SHARD_MAX];
        let mut total = 0u64;
        let mut small = true;
        for (slot, len) in new_lens.iter().enumerate() {
            let grown = len
                .get()
                .checked_sub(self.lens[slot])
                .expect("lengths never fall");
            total += grown;
            small &= u32::try_from(grown).is_ok();
            counts[slot] = grown as u32;
        }
        if !small {
            self.push_large(entry, base, new_lens);
            return;
        }
        let entry_step = entry.get().checked_sub(self.entry);
        let gsn_step = base
            .get()
            .checked_sub(self.gsn)
            .expect("the order never runs backwards");
        let steps = entry_step
            .and_then(|step| u32::try_from(step).ok())
            .zip(u32::try_from(gsn_step).ok());
        let continues = self
            .slabs
            .back()
            .and_then(|slab| slab.blocks.last())
            .is_some_and(|block| steps.is_some() && usize::from(block.cuts) < CUTS_PER_BLOCK);
        let (entry_delta, gsn_delta) = match steps {
            Some(steps) if continues => steps,
            _ => {
                self.start_block(entry.get(), base.get());
                (0, 0)
            }
        };
        if let Some(slab) = self.slabs.back_mut() {
            slab.deltas.push(entry_delta);
            slab.deltas.push(gsn_delta);
            slab.deltas.extend_from_slice(&counts[..self.segments]);
            if let Some(block) = slab.blocks.last_mut() {
                block.cuts += 1;
            }
        }
        self.entry = entry.get();
        self.gsn = base.get() + total;
        for (slot, len) in new_lens.iter().enumerate() {
            self.lens[slot] = len.get();
        }
        self.cuts += 1;
    }

    /// A cut of more than 2^32 records of one segment is split into several of the same entry.
    #[cold]
    fn push_large(&mut self, entry: EntryNo, base: Gsn, new_lens: &[Lsn]) {
        let mut base = base;
        for slot in 0..self.segments {
            while self.lens[slot] < new_lens[slot].get() {
                let mut lens: Vec<Lsn> = self.lens[..self.segments]
                    .iter()
                    .copied()
                    .map(Lsn::new)
                    .collect();
                let step = (new_lens[slot].get() - self.lens[slot]).min(u64::from(u32::MAX));
                lens[slot] = Lsn::new(self.lens[slot] + step);
                self.push(entry, base, &lens);
                base = Gsn::new(base.get() + step);
            }
        }
    }

    fn start_block(&mut self, entry: u64, gsn: u64) {
        let full = self
            .slabs
            .back()
            .is_none_or(|slab| slab.blocks.len() == BLOCKS_PER_SLAB);
        if full {
            let slab = self.spare.pop().unwrap_or_else(|| Slab::new(self.segments));
            self.slabs.push_back(slab);
        }
        let block = Block {
            entry,
            gsn,
            lens: self.lens,
            cuts: 0,
        };
        if let Some(slab) = self.slabs.back_mut() {
            // A block that ends early still owns the room of a whole one.
            slab.deltas
                .resize(slab.blocks.len() * CUTS_PER_BLOCK * (2 + self.segments), 0);
            slab.blocks.push(block);
        }
    }

    /// Writes the index for a checkpoint.
    ///
    /// # Errors
    /// [`WireError::Full`].
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), WireError> {
        let width = 2 + self.segments;
        writer.field(self.segments as u8)?;
        writer.field(
            self.slabs
                .iter()
                .map(|slab| slab.blocks.len() as u32)
                .sum::<u32>(),
        )?;
        for slab in &self.slabs {
            for (index, block) in slab.blocks.iter().enumerate() {
                writer.field(block.entry)?;
                writer.field(block.gsn)?;
                for len in &block.lens[..self.segments] {
                    writer.field(*len)?;
                }
                writer.field(block.cuts)?;
                let from = index * CUTS_PER_BLOCK * width;
                for delta in &slab.deltas[from..from + usize::from(block.cuts) * width] {
                    writer.varint(u64::from(*delta))?;
                }
            }
        }
        writer.field(self.entry)?;
        writer.field(self.gsn)?;
        for len in &self.lens[..self.segments] {
            writer.field(*len)?;
        }
        Ok(())
    }

    /// Reads what [`Self::write`] wrote, in place of what is held.
    ///
    /// # Errors
    /// Any [`WireError`]; the index is then to be discarded.
    pub fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), WireError> {
        self.reset(&[]);
        let segments: u8 = reader.field()?;
        if usize::from(segments) != self.segments {
            return Err(WireError::Range {
                field: "index segments",
                value: u64::from(segments),
            });
        }
        for _ in 0..reader.field::<u32>()? {
            let (entry, gsn) = (reader.field()?, reader.field()?);
            for slot in 0..self.segments {
                self.lens[slot] = reader.field()?;
            }
            let cuts: u16 = reader.field()?;
            if usize::from(cuts) > CUTS_PER_BLOCK {
                return Err(WireError::Range {
                    field: "index cuts",
                    value: u64::from(cuts),
                });
            }
            self.start_block(entry, gsn);
            let Some(slab) = self.slabs.back_mut() else {
                continue;
            };
            for _ in 0..usize::from(cuts) * (2 + self.segments) {
                slab.deltas.push(reader.varint_u32()?);
            }
            if let Some(block) = slab.blocks.last_mut() {
                block.cuts = cuts;
            }
            self.cuts += u64::from(cuts);
        }
        self.entry = reader.field()?;
        self.gsn = reader.field()?;
        for slot in 0..self.segments {
            self.lens[slot] = reader.field()?;
        }
        Ok(())
    }

    /// Whether what was read follows the rules of what is written: entries and positions rise, counts add up, and nothing
    /// overflows. What a peer sent is asked before anything else is.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let width = 2 + self.segments;
        let mut end = None;
        for slab in &self.slabs {
            for (index, block) in slab.blocks.iter().enumerate() {
                let starts = (block.entry, block.gsn, block.lens);
                let (entry, gsn, lens) = end.unwrap_or(starts);
                if block.entry < entry || block.gsn < gsn || block.lens != lens {
                    return false;
                }
                let from = index * CUTS_PER_BLOCK * width;
                let deltas = &slab.deltas[from..from + usize::from(block.cuts) * width];
                end = deltas
                    .chunks_exact(width)
                    .try_fold(starts, |(entry, gsn, mut lens), cut| {
                        let entry = entry.checked_add(u64::from(cut[0]))?;
                        let mut gsn = gsn.checked_add(u64::from(cut[1]))?;
                        for (len, count) in lens.iter_mut().zip(&cut[2..]) {
                            *len = len.checked_add(u64::from(*count))?;
                            gsn = gsn.checked_add(u64::from(*count))?;
                        }
                        Some((entry, gsn, lens))
                    });
                if end.is_none() {
                    return false;
                }
            }
        }
        end.is_none_or(|end| end == (self.entry, self.gsn, self.lens))
    }

    /// The end of what was pushed: the last entry, the position after its last record, and the lengths.
    #[must_use]
    pub const fn end(&self) -> (EntryNo, Gsn, &[u64; SEGMENTS_PER_SHARD_MAX]) {
        (EntryNo::new(self.entry), Gsn::new(self.gsn), &self.lens)
    }

    /// The run that holds `gsn`.
    #[must_use]
    pub fn by_gsn(&self, gsn: Gsn) -> Option<Run> {
        self.at_or_after(gsn).filter(|run| run.gsn <= gsn)
    }

    /// The run that holds `gsn`, or the first one after it.
    #[must_use]
    pub fn at_or_after(&self, gsn: Gsn) -> Option<Run> {
        let (slab, block) = self.find(|block| block.gsn <= gsn.get()).unwrap_or((0, 0));
        self.scan(slab, block, |walk| {
            let mut from = walk.base;
            for slot in 0..self.segments {
                let count = u64::from(walk.counts[slot]);
                if count > 0 && from + count > gsn.get() {
                    return Some(walk.run(slot, from));
                }
                from += count;
            }
            None
        })
    }

    /// The run that holds a position of a segment.
    #[must_use]
    pub fn by_position(&self, slot: Slot, position: Lsn) -> Option<Run> {
        let index = slot.index();
        if index >= self.segments || position.get() >= self.lens[index] {
            return None;
        }
        let (slab, block) = self.find(|block| block.lens[index] <= position.get())?;
        self.scan(slab, block, |walk| {
            if walk.lens[index] + u64::from(walk.counts[index]) <= position.get() {
                return None;
            }
            let before: u64 = walk.counts[..index].iter().copied().map(u64::from).sum();
            Some(walk.run(index, walk.base + before))
        })
    }

    /// The lengths before the first cut held that ends beyond `gsn`: what a trim to `gsn` may remove, in slot order.
    #[must_use]
    pub fn lens_at(&self, gsn: Gsn) -> [Lsn; SEGMENTS_PER_SHARD_MAX] {
        let mut lens = self.lens;
        if let Some((slab, block)) = self.find(|block| block.gsn <= gsn.get()) {
            self.scan(slab, block, |walk| {
                let mut from = walk.base;
                let mut at = walk.lens;
                let mut reached = false;
                for (len, count) in at.iter_mut().zip(&walk.counts[..self.segments]) {
                    let count = u64::from(*count);
                    let below = gsn.get().saturating_sub(from).min(count);
                    reached |= below < count;
                    *len += below;
                    from += count;
                }
                if reached {
                    lens = at;
                }
                reached.then_some(())
            });
        } else if let Some(block) = self.slabs.front().and_then(|slab| slab.blocks.first()) {
            lens = block.lens;
        }
        lens.map(Lsn::new)
    }

    /// Forgets whole slabs of runs below `gsn`.
    pub fn drop_before(&mut self, gsn: Gsn) {
        while let (Some(_), Some(next)) = (self.slabs.front(), self.slabs.get(1)) {
            if next
                .blocks
                .first()
                .is_none_or(|block| block.gsn > gsn.get())
            {
                return;
            }
            if let Some(slab) = self.slabs.pop_front() {
                self.cuts -= slab
                    .blocks
                    .iter()
                    .map(|block| u64::from(block.cuts))
                    .sum::<u64>();
                self.recycle(slab);
            }
        }
    }

    fn recycle(&mut self, mut slab: Slab) {
        slab.blocks.clear();
        slab.deltas.clear();
        if self.spare.len() < self.spare.capacity().max(1) {
            self.spare.push(slab);
        }
    }

    /// The last block for which `below` holds; it must hold for a prefix of the blocks.
    fn find(&self, below: impl Fn(&Block) -> bool) -> Option<(usize, usize)> {
        let slab = self
            .slabs
            .partition_point(|slab| slab.blocks.first().is_some_and(&below))
            .checked_sub(1)?;
        let block = self.slabs[slab]
            .blocks
            .partition_point(&below)
            .checked_sub(1)?;
        Some((slab, block))
    }

    /// Walks cuts from a block on until `visit` answers.
    fn scan<T>(
        &self,
        slab: usize,
        block: usize,
        mut visit: impl FnMut(&Walk) -> Option<T>,
    ) -> Option<T> {
        let width = 2 + self.segments;
        let mut block = block;
        for slab in self.slabs.range(slab.min(self.slabs.len())..) {
            for (index, start) in slab.blocks.iter().enumerate().skip(block) {
                let mut walk = Walk {
                    entry: start.entry,
                    base: start.gsn,
                    lens: start.lens,
                    counts: [0; SEGMENTS_PER_SHARD_MAX],
                };
                let from = index * CUTS_PER_BLOCK * width;
                let deltas = &slab.deltas[from..from + usize::from(start.cuts) * width];
                for cut in deltas.chunks_exact(width) {
                    walk.entry += u64::from(cut[0]);
                    walk.base += u64::from(cut[1]);
                    walk.counts[..self.segments].copy_from_slice(&cut[2..]);
                    if let Some(found) = visit(&walk) {
                        return Some(found);
                    }
                    for slot in 0..self.segments {
                        walk.base += u64::from(walk.counts[slot]);
                        walk.lens[slot] += u64::from(walk.counts[slot]);
                    }
                }
            }
            block = 0;
        }
        None
    }
}

impl Walk {
    fn run(&self, slot: usize, gsn: u64) -> Run {
        Run {
            slot: Slot::new(slot as u8),
            position: Lsn::new(self.lens[slot]),
            gsn: Gsn::new(gsn),
            count: u64::from(self.counts[slot]),
            entry: EntryNo::new(self.entry),
        }
    }
}

impl Slab {
    fn new(segments: usize) -> Self {
        Self {
            blocks: Vec::with_capacity(BLOCKS_PER_SLAB),
            deltas: Vec::with_capacity(BLOCKS_PER_SLAB * CUTS_PER_BLOCK * (2 + segments)),
        }
    }

    const fn bytes(segments: usize) -> usize {
        BLOCKS_PER_SLAB * size_of::<Block>() + BLOCKS_PER_SLAB * CUTS_PER_BLOCK * (2 + segments) * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    struct Cut {
        entry_step: u64,
        gap: u64,
        counts: Vec<u64>,
    }

    fn cuts() -> impl Strategy<Value = Vec<Cut>> {
        let cut = (
            1u64..4,
            prop_oneof![9 => 0u64..50, 1 => Just(1u64 << 33)],
            proptest::collection::vec(0u64..5, 3),
        )
            .prop_map(|(entry_step, gap, counts)| Cut {
                entry_step,
                gap,
                counts,
            })
            .prop_filter("a cut that touches a shard gives it something", |cut| {
                cut.counts.iter().sum::<u64>() > 0
            });
        proptest::collection::vec(cut, 0..400)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn agrees_with_a_plain_list(cuts in cuts(), trim: prop::sample::Index) {
            let mut index = RunIndex::new(3, 1);
            let mut plain: Vec<(u64, u8, u64, u64)> = Vec::new(); // gsn, slot, position, entry
            let (mut entry, mut gsn, mut lens) = (5u64, 7u64, [0u64; 3]);
            for cut in &cuts {
                entry += cut.entry_step;
                gsn += cut.gap;
                let base = gsn;
                for (slot, count) in cut.counts.iter().enumerate() {
                    for _ in 0..*count {
                        plain.push((gsn, slot as u8, lens[slot], entry));
                        gsn += 1;
                        lens[slot] += 1;
                    }
                }
                index.push(EntryNo::new(entry), Gsn::new(base), &lens.map(Lsn::new));
            }
            let cut_at = if plain.is_empty() { 0 } else { trim.index(plain.len()) };
            for round in 0..2 {
                for (at, (gsn, slot, position, entry)) in plain.iter().enumerate() {
                    if round == 1 && at < cut_at {
                        continue;
                    }
                    let run = index.by_gsn(Gsn::new(*gsn)).expect("held");
                    let skip = gsn - run.gsn.get();
                    prop_assert_eq!((run.slot.get(), run.position.get() + skip, run.entry.get()), (*slot, *position, *entry));
                    let run = index.by_position(Slot::new(*slot), Lsn::new(*position)).expect("held");
                    prop_assert_eq!(run.gsn.get() + position - run.position.get(), *gsn);
                }
                for (at, (gsn, ..)) in plain.iter().enumerate().skip(if round == 1 { cut_at } else { 0 }) {
                    let mut expected = [0u64; 3];
                    for (_, slot, ..) in &plain[..at] {
                        expected[usize::from(*slot)] += 1;
                    }
                    let found = index.lens_at(Gsn::new(*gsn));
                    prop_assert_eq!(&found.map(Lsn::get)[..3], &expected[..]);
                }
                if let Some((gsn, ..)) = plain.get(cut_at) {
                    index.drop_before(Gsn::new(*gsn));
                }
            }
            prop_assert_eq!(index.by_gsn(Gsn::new(gsn)), None);
        }
    }

    #[test]
    fn a_million_cuts_stay_small() {
        let mut index = RunIndex::new(2, 1);
        for n in 1..=1_000_000u64 {
            index.push(
                EntryNo::new(n),
                Gsn::new(n * 10),
                &[Lsn::new(n * 5), Lsn::new(n * 5)],
            );
        }
        assert!(index.bytes() < 24 << 20, "{} bytes", index.bytes());
        assert_eq!(
            index.by_gsn(Gsn::new(5_000_007)).unwrap().position,
            Lsn::new(499_999 * 5)
        );
    }
}
