//! The memory that the kernels work on: columns of lengths and the marks that say which of them are worth looking at.

/// Shards side by side: the lengths of one column that share a cache line.
pub(crate) const LANES: usize = 8;

/// Groups of [`LANES`] shards per word of marks.
pub(crate) const WORD: usize = 64;

/// One length of each of [`LANES`] shards, kept by [`turn`] as signed numbers of the same order: AVX2 compares signed numbers
/// only, and would turn every operand of every comparison.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [i64; LANES]);

/// What a length of 0 is in a [`Line`].
pub(crate) const NOTHING: i64 = turn(0);

/// A length as it is kept: the order is the same, differences are the same.
pub(crate) const fn turn(len: u64) -> i64 {
    (len ^ (1 << 63)).cast_signed()
}

/// The length that is kept as `kept`.
pub(crate) const fn unturn(kept: i64) -> u64 {
    kept.cast_unsigned() ^ (1 << 63)
}

/// The columns of a table. Of R replicas, a group of [`LANES`] shards has R x R lines of lengths (by replica, then by segment), R of
/// each other column, a word of `changed` and a bit of each mark.
#[derive(Debug)]
pub(crate) struct Columns {
    /// What each replica holds of each segment.
    pub(crate) lens: Box<[Line]>,
    /// What was sent up last of each segment; nothing falls below it.
    pub(crate) floor: Box<[Line]>,
    /// What the last merge found of each segment; good where a bit of `changed` is set.
    pub(crate) next: Box<[Line]>,
    /// Per group, a bit per segment and lane (`LANES * segment + lane`) that is above the floor.
    pub(crate) changed: Box<[u64]>,
    /// A bit per group that may have a bit in `changed`: set for all that a merge looked at.
    pub(crate) changed_groups: Box<[u64]>,
    /// A bit per group in which a length is new since the last merge, which clears it.
    pub(crate) dirty: Box<[u64]>,
}

impl Columns {
    /// Columns for `groups` groups of shards of which every length is 0.
    pub(crate) fn new(groups: usize, replicas: usize) -> Self {
        let lines = |count: usize| vec![Line([NOTHING; LANES]); count].into_boxed_slice();
        let marks = |count: usize| vec![0u64; count].into_boxed_slice();
        Self {
            lens: lines(groups * replicas * replicas),
            floor: lines(groups * replicas),
            next: lines(groups * replicas),
            changed: marks(groups),
            changed_groups: marks(groups.div_ceil(WORD)),
            dirty: marks(groups.div_ceil(WORD)),
        }
    }

    /// The number of groups.
    pub(crate) fn groups(&self) -> usize {
        self.changed.len()
    }
}

/// Sets a group's bit if `on`.
#[inline]
pub(crate) fn mark_if(marks: &mut [u64], group: usize, on: bool) {
    marks[group / WORD] |= u64::from(on) << (group % WORD);
}

/// The matrix of eight by eight bits with rows and columns exchanged: in three steps, of single bits, of pairs, of fours.
/// Source: Warren, Hacker's Delight, 7-3.
#[inline]
pub(crate) fn transpose(bits: u64) -> u64 {
    let exchange = |bits: u64, by: u32, mask: u64| {
        let differs = (bits ^ bits >> by) & mask;
        bits ^ differs ^ differs << by
    };
    let bits = exchange(bits, 7, 0x00aa_00aa_00aa_00aa);
    let bits = exchange(bits, 14, 0x0000_cccc_0000_cccc);
    exchange(bits, 28, 0x0000_0000_f0f0_f0f0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_is_transposed() {
        for row in 0..8 {
            for column in 0..8 {
                assert_eq!(transpose(1 << (8 * row + column)), 1 << (8 * column + row));
            }
        }
    }

    #[test]
    fn what_is_kept_has_the_order_and_the_differences_of_lengths() {
        let lens = [0, 1, (1 << 63) - 1, 1 << 63, u64::MAX];
        for pair in lens.windows(2) {
            let (less, more) = (turn(pair[0]), turn(pair[1]));
            assert!(less < more);
            assert_eq!(more.wrapping_sub(less).cast_unsigned(), pair[1] - pair[0]);
            assert_eq!(unturn(less), pair[0]);
        }
    }
}
