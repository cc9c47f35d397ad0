//! The leaf's own table for one class of shards (R replicas, of which k are enough): what each member holds of each segment, and
//! what enough of them hold.
//!
//! # Shape
//!
//! Shards stand in groups of [`LANES`] neighbours, and a line of the cache has one length of each. A group is R x R lines of
//! lengths, by member and then by segment, so that a report touches R lines in a row and a merge reads the whole table from its
//! beginning to its end. Beside them are R lines per group of what was *sent up last* (the floor) and of what the last merge found.
//!
//! ```text
//! group 0                                                       group 1
//! | member 0: segment 0, segment 1 | member 1: segment 0, ... | | member 0: ...
//!    8 shards     8 shards            8 shards
//! ```
//!
//! Marks say what is worth looking at: a bit per group in which a length is new, and a bit per segment whose merged length is
//! above the floor, with a bit per group that has any. One word of marks covers 512 shards. So a merge costs what has changed
//! since the last one, whatever the size of the table.

use crate::SlotsError;
use crate::columns::{Columns, LANES, Line, NOTHING, WORD, mark_if, transpose, turn, unturn};
use crate::kernel::{Isa, Kernel};
use crate::select::kth_largest_of;

/// The largest number of shards of a table. With seven replicas that is 504 MiB.
pub const SHARDS_MAX: usize = 1 << 20;

/// What a report did to the lengths of its sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advance {
    /// At least one is larger than before.
    Changed,
    /// All are as before.
    Same,
    /// One is smaller than before; the table is as it was. Its sender has lost records, and must not count in this epoch.
    Regressed,
}

/// What is waiting to be sent up.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Merged {
    /// Segments whose length is above what was sent last.
    pub changed_segments: u64,
    /// By how many records, all together. A wrapping sum, as totals of rounds are.
    pub growth: u64,
}

/// The columns of one class of shards.
#[derive(Debug)]
pub struct Table {
    shards: usize,
    replicas: usize,
    quorum: usize,
    kernel: Kernel,
    columns: Columns,
    /// Per group, a bit per lane that [`Self::merge`] leaves alone, and a bit per group that has one.
    excluded: Box<[u8]>,
    excluded_groups: Box<[u64]>,
    /// Shards that are left out.
    excluded_shards: usize,
    waiting: Merged,
}

impl Table {
    /// A table of `shards` shards of which every length is 0. `quorum` of `replicas` replicas are enough.
    ///
    /// # Errors
    ///
    /// [`SlotsError::Replicas`], [`SlotsError::Quorum`], [`SlotsError::Shards`]: outside of 1 to 7, of 1 to `replicas`, and of 0 to
    /// [`SHARDS_MAX`].
    pub fn new(shards: usize, replicas: usize, quorum: usize) -> Result<Self, SlotsError> {
        Self::with_isa(shards, replicas, quorum, Isa::best())
    }

    /// The same with an instruction set of one's choice; the results do not depend on it.
    ///
    /// # Errors
    ///
    /// Those of [`Self::new`], and [`SlotsError::Isa`] when this CPU does not have it.
    pub fn with_isa(
        shards: usize,
        replicas: usize,
        quorum: usize,
        isa: Isa,
    ) -> Result<Self, SlotsError> {
        let kernel = Kernel::of(isa, replicas, quorum)?;
        if shards > SHARDS_MAX {
            return Err(SlotsError::Shards { given: shards });
        }
        let groups = shards.div_ceil(LANES);
        Ok(Self {
            shards,
            replicas,
            quorum,
            kernel,
            columns: Columns::new(groups, replicas),
            excluded: vec![0; groups].into_boxed_slice(),
            excluded_groups: vec![0; groups.div_ceil(WORD)].into_boxed_slice(),
            excluded_shards: 0,
            waiting: Merged::default(),
        })
    }

    /// The number of shards.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// Replicas of each shard, and segments: each replica writes one.
    #[must_use]
    pub fn replicas(&self) -> usize {
        self.replicas
    }

    /// How many replicas are enough.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.quorum
    }

    /// The instruction set that the table is merged with.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.kernel.isa()
    }

    /// Puts the lengths of one member, a length per segment, in the place of those before, whatever they were. `true` when one is
    /// new; then the shard is merged next time.
    ///
    /// # Panics
    ///
    /// If there is no such shard or member, or not as many lengths as segments. A peer's word must be checked before.
    #[inline]
    pub fn set(&mut self, shard: usize, member: usize, lens: &[u64]) -> bool {
        let (group, lane) = self.place(shard);
        let mut new = false;
        for (line, len) in self
            .lines_of(group, member, lens.len())
            .iter_mut()
            .zip(lens)
        {
            let len = turn(*len);
            new |= line.0[lane] != len;
            line.0[lane] = len;
        }
        mark_if(&mut self.columns.dirty, group, new);
        new
    }

    /// Takes the lengths of a later report of the same life: none may be smaller than before.
    ///
    /// # Panics
    ///
    /// As [`Self::set`].
    #[inline]
    pub fn advance(&mut self, shard: usize, member: usize, lens: &[u64]) -> Advance {
        let (group, lane) = self.place(shard);
        let lines = self.lines_of(group, member, lens.len());
        // Without loops for those that nearly all shards have.
        let advance = match lens {
            [_, _] => advance(lines, lens, lane, 2),
            [_, _, _] => advance(lines, lens, lane, 3),
            _ => advance(lines, lens, lane, lens.len()),
        };
        mark_if(&mut self.columns.dirty, group, advance == Advance::Changed);
        advance
    }

    /// Makes a member count as one that holds nothing: it regressed, or has not reported in this epoch.
    ///
    /// # Panics
    ///
    /// If there is no such shard or member.
    pub fn clear(&mut self, shard: usize, member: usize) {
        self.set(shard, member, &[0; 7][..self.replicas]);
    }

    /// What a member holds of a segment, by its last report.
    ///
    /// # Panics
    ///
    /// If there is no such shard, member or segment.
    #[must_use]
    pub fn held(&self, shard: usize, member: usize, segment: usize) -> u64 {
        let (group, lane) = self.place(shard);
        assert!(
            member < self.replicas && segment < self.replicas,
            "no such member or segment"
        );
        unturn(
            self.columns.lens[(group * self.replicas + member) * self.replicas + segment].0[lane],
        )
    }

    /// What enough members hold of a segment, the floor aside.
    ///
    /// # Panics
    ///
    /// If there is no such shard or segment.
    #[must_use]
    pub fn held_by_enough(&self, shard: usize, segment: usize) -> u64 {
        let (group, lane) = self.place(shard);
        assert!(segment < self.replicas, "no such segment");
        unturn(self.enough(group, lane, segment))
    }

    /// The length of a segment that was sent up last; it never falls.
    ///
    /// # Panics
    ///
    /// If there is no such shard or segment.
    #[must_use]
    pub fn floor(&self, shard: usize, segment: usize) -> u64 {
        let (group, lane) = self.place(shard);
        unturn(self.columns.floor[self.line(group, segment)].0[lane])
    }

    /// Makes a length the floor without sending it up: the one above knows it already, as when an edge starts. A smaller one
    /// than the floor changes nothing.
    ///
    /// # Panics
    ///
    /// If there is no such shard or segment.
    pub fn raise_floor(&mut self, shard: usize, segment: usize, len: u64) {
        let (group, lane) = self.place(shard);
        let line = self.line(group, segment);
        let (before, after) = (self.columns.floor[line].0[lane], turn(len));
        if after <= before {
            return;
        }
        let waits = self.waits(group, lane, segment);
        let found = self.columns.next[line].0[lane];
        if waits {
            // What waits is counted from the floor: taken back, and put there again from the new one.
            self.propose(group, lane, segment, before);
        }
        self.columns.floor[line].0[lane] = after;
        if waits {
            self.propose(group, lane, segment, found);
        }
    }

    /// Says of a segment of an excluded shard that its length is at least this. It is handed out with what the next merge finds.
    /// `true` when that is more than before. (Of a shard that is not excluded, the next merge of the shard takes it back.)
    ///
    /// # Panics
    ///
    /// If there is no such shard or segment.
    pub fn raise(&mut self, shard: usize, segment: usize, len: u64) -> bool {
        let (group, lane) = self.place(shard);
        let line = self.line(group, segment);
        let before = if self.waits(group, lane, segment) {
            self.columns.next[line].0[lane]
        } else {
            self.columns.floor[line].0[lane]
        };
        let more = turn(len) > before;
        if more {
            self.propose(group, lane, segment, turn(len));
        }
        more
    }

    /// Leaves a shard out of [`Self::merge`], because its lengths are not the k-th largest: a joint epoch, a log whose class asks
    /// for two failure domains, a segment that nobody writes. What its members hold is still kept; the caller computes its lengths
    /// and says them with [`Self::raise`].
    ///
    /// # Panics
    ///
    /// If there is no such shard.
    pub fn exclude(&mut self, shard: usize) {
        let (group, lane) = self.place(shard);
        self.excluded_shards += usize::from(self.excluded[group] & 1 << lane == 0);
        self.excluded[group] |= 1 << lane;
        mark_if(&mut self.excluded_groups, group, true);
    }

    /// Takes a shard that was left out in again; it is merged next time.
    ///
    /// # Panics
    ///
    /// If there is no such shard.
    pub fn include(&mut self, shard: usize) {
        let (group, lane) = self.place(shard);
        self.excluded_shards -= usize::from(self.excluded[group] & 1 << lane != 0);
        self.excluded[group] &= !(1 << lane);
        if self.excluded[group] == 0 {
            self.excluded_groups[group / WORD] &= !(1 << (group % WORD));
        }
        mark_if(&mut self.columns.dirty, group, true);
    }

    /// Whether a shard is left out.
    ///
    /// # Panics
    ///
    /// If there is no such shard.
    #[must_use]
    pub fn is_excluded(&self, shard: usize) -> bool {
        let (group, lane) = self.place(shard);
        self.excluded[group] & 1 << lane != 0
    }

    /// Marks every shard: the next merge looks at all of them.
    pub fn mark_all(&mut self) {
        let groups = self.columns.groups();
        for (at, word) in self.columns.dirty.iter_mut().enumerate() {
            let count = (groups - at * WORD).min(WORD);
            *word = u64::MAX >> (WORD - count);
        }
    }

    /// Whether a merge would look at nothing, and nothing waits to be handed out.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.changed_segments == 0 && self.columns.dirty.iter().all(|word| *word == 0)
    }

    /// Computes the lengths of all shards with a new length of a member: per segment the k-th largest of what members hold, or the
    /// floor if that is larger. Gives all that waits for [`Self::for_each_changed`], what was found by this merge, by earlier
    /// ones and by [`Self::raise`].
    #[inline]
    pub fn merge(&mut self) -> Merged {
        if self.excluded_shards > 0 || self.waiting.changed_segments > 0 {
            self.merge_with_care();
        }
        let found = self.kernel.merge(&mut self.columns);
        self.waiting.changed_segments += found.segments;
        self.waiting.growth = self.waiting.growth.wrapping_add(found.growth);
        self.waiting
    }

    /// Merges groups with a shard that is left out, or with something that waits, which the kernel would write over.
    fn merge_with_care(&mut self) {
        for at in 0..self.columns.dirty.len() {
            let mut groups = self.columns.changed_groups[at] | self.excluded_groups[at];
            groups &= self.columns.dirty[at];
            self.columns.dirty[at] &= !groups;
            while groups != 0 {
                let group = at * WORD + groups.trailing_zeros() as usize;
                groups &= groups - 1;
                for lane in 0..LANES {
                    self.merge_lane(group, lane);
                }
            }
        }
    }

    /// The same for one shard, without vectors; nothing for one that is left out. Its mark stays.
    ///
    /// # Panics
    ///
    /// If there is no such shard.
    pub fn merge_scalar_one(&mut self, shard: usize) -> Merged {
        let (group, lane) = self.place(shard);
        self.merge_lane(group, lane);
        self.waiting
    }

    /// Hands out every segment whose length is above the floor, as (shard, segment, floor, length), and makes the length the floor.
    /// By rising shard, and within a shard by rising segment: the order in which a cut gives positions.
    #[inline]
    pub fn for_each_changed(&mut self, mut each: impl FnMut(usize, usize, u64, u64)) {
        let columns = &mut self.columns;
        for (at, word) in columns.changed_groups.iter_mut().enumerate() {
            let mut groups = std::mem::take(word);
            while groups != 0 {
                let group = at * WORD + groups.trailing_zeros() as usize;
                groups &= groups - 1;
                // Turned round: by rising bit, shards and then their segments.
                let mut bits = transpose(std::mem::take(&mut columns.changed[group]));
                let lines = group * self.replicas..(group + 1) * self.replicas;
                let (floor, next) = (&mut columns.floor[lines.clone()], &columns.next[lines]);
                while bits != 0 {
                    let bit = bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    let (lane, segment) = (bit / LANES, bit % LANES);
                    let after = next[segment].0[lane];
                    let before = std::mem::replace(&mut floor[segment].0[lane], after);
                    each(group * LANES + lane, segment, unturn(before), unturn(after));
                }
            }
        }
        self.waiting = Merged::default();
    }

    /// Where a shard stands: its group and its lane.
    #[inline]
    fn place(&self, shard: usize) -> (usize, usize) {
        assert!(shard < self.shards, "no shard {shard} of {}", self.shards);
        (shard / LANES, shard % LANES)
    }

    #[inline]
    fn line(&self, group: usize, segment: usize) -> usize {
        assert!(segment < self.replicas, "no segment {segment}");
        group * self.replicas + segment
    }

    /// The lines of a member's lengths, of which there must be `count`.
    #[inline]
    fn lines_of(&mut self, group: usize, member: usize, count: usize) -> &mut [Line] {
        let replicas = self.replicas;
        assert!(member < replicas, "no member {member} of {replicas}");
        assert_eq!(count, replicas, "lengths of a report");
        let first = (group * replicas + member) * replicas;
        &mut self.columns.lens[first..first + replicas]
    }

    /// What enough members hold, turned.
    fn enough(&self, group: usize, lane: usize, segment: usize) -> i64 {
        let mut of = [NOTHING; 7];
        let lines = self.columns.lens[group * self.replicas * self.replicas..].iter();
        let column = lines.skip(segment).step_by(self.replicas);
        for (len, line) in of.iter_mut().zip(column.take(self.replicas)) {
            *len = line.0[lane];
        }
        kth_largest_of(&mut of[..self.replicas], self.quorum)
    }

    fn merge_lane(&mut self, group: usize, lane: usize) {
        if self.excluded[group] & 1 << lane != 0 {
            return;
        }
        for segment in 0..self.replicas {
            let found = self.enough(group, lane, segment);
            self.propose(group, lane, segment, found);
        }
    }

    /// Whether a length of this segment waits to be handed out.
    fn waits(&self, group: usize, lane: usize, segment: usize) -> bool {
        self.columns.changed[group] & 1 << (LANES * segment + lane) != 0
    }

    /// Puts what was found in the place of what waits, and keeps the sums; a length that is not above the floor does not wait.
    fn propose(&mut self, group: usize, lane: usize, segment: usize, found: i64) {
        let line = self.line(group, segment);
        let bit = 1 << (LANES * segment + lane);
        let floor = self.columns.floor[line].0[lane];
        let before = if self.columns.changed[group] & bit == 0 {
            floor
        } else {
            self.waiting.changed_segments -= 1;
            self.columns.next[line].0[lane]
        };
        let after = found.max(floor);
        self.columns.next[line].0[lane] = after;
        self.waiting.growth =
            (self.waiting.growth).wrapping_add(after.wrapping_sub(before).cast_unsigned());
        if after > floor {
            self.waiting.changed_segments += 1;
            self.columns.changed[group] |= bit;
        } else {
            self.columns.changed[group] &= !bit;
        }
        mark_if(&mut self.columns.changed_groups, group, true);
    }

    pub(crate) fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    pub(crate) fn columns(&self) -> &Columns {
        &self.columns
    }
}

/// Puts a member's lengths in the place of those before, unless one has fallen.
#[inline(always)]
fn advance(lines: &mut [Line], lens: &[u64], lane: usize, count: usize) -> Advance {
    let (mut fell, mut new) = (false, false);
    for (line, len) in lines.iter().zip(lens).take(count) {
        fell |= line.0[lane] > turn(*len);
        new |= line.0[lane] < turn(*len);
    }
    if fell {
        return Advance::Regressed;
    }
    for (line, len) in lines.iter_mut().zip(lens).take(count) {
        line.0[lane] = turn(*len);
    }
    if new { Advance::Changed } else { Advance::Same }
}
