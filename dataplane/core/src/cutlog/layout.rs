//! Which segments the numbers of a cut mean.
//!
//! A cut names a segment by its place among the segments of the open shards: shards in the order of the tree (rank, then id),
//! slots ascending. The order changes at views only, so a state keeps it beside dense lists of what changes at every cut.

use alloc::vec::Vec;
use core::ops::Range;

use ionian_types::{SegmentId, ShardId, Slot};

/// The segments that can grow, in order.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Layout {
    segments: Vec<SegmentId>,
    /// Where the segments of each open shard are, by its id: the first one's number, and how many.
    spans: Vec<(ShardId, u32, u8)>,
}

impl Layout {
    /// The order of the given open shards and their numbers of segments.
    #[must_use]
    pub fn new(shards: impl Iterator<Item = (ShardId, usize)>) -> Self {
        let mut layout = Self::default();
        for (shard, count) in shards {
            let first = layout.segments.len() as u32;
            layout.spans.push((shard, first, count as u8));
            let slots = (0..count).map(|slot| Slot::new(slot as u8));
            layout
                .segments
                .extend(slots.map(|slot| SegmentId { shard, slot }));
        }
        layout.spans.sort_unstable_by_key(|(shard, ..)| *shard);
        layout
    }

    /// The segments by number.
    #[must_use]
    pub fn segments(&self) -> &[SegmentId] {
        &self.segments
    }

    /// The memory that it takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let (segments, spans) = (size_of_val(&*self.segments), size_of_val(&*self.spans));
        (segments + spans) as u64
    }

    /// The numbers of a shard's segments, while it is open.
    #[must_use]
    pub fn span(&self, shard: ShardId) -> Option<Range<usize>> {
        let at = self
            .spans
            .binary_search_by_key(&shard, |(shard, ..)| *shard);
        let (_, first, count) = self.spans[at.ok()?];
        Some(first as usize..first as usize + usize::from(count))
    }

    /// The number of a segment, while its shard is open.
    #[must_use]
    pub fn index(&self, segment: SegmentId) -> Option<usize> {
        self.span(segment.shard)?.nth(segment.slot.index())
    }

    /// The numbers of segments that stand here as they stand there: in the same order, with none between.
    #[must_use]
    pub fn run(&self, segments: &[SegmentId]) -> Option<Range<usize>> {
        let (first, last) = (segments.first()?, segments.last()?);
        let run = self.index(*first)?..self.index(*last)? + 1;
        (run.len() == segments.len()).then_some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_have_numbers_in_the_order_of_the_tree() {
        let (one, two, three) = (ShardId::new(9), ShardId::new(3), ShardId::new(4));
        let layout = Layout::new([(one, 2), (two, 3), (three, 1)].into_iter());
        assert_eq!(layout.segments().len(), 6);
        assert_eq!(layout.span(one), Some(0..2));
        assert_eq!(layout.span(two), Some(2..5));
        assert_eq!(layout.span(three), Some(5..6));
        assert_eq!(layout.span(ShardId::new(5)), None);
        for (at, segment) in layout.segments().iter().enumerate() {
            assert_eq!(layout.index(*segment), Some(at));
        }
        let beyond = SegmentId {
            shard: one,
            slot: Slot::new(2),
        };
        assert_eq!(layout.index(beyond), None);
        assert_eq!(layout.run(&layout.segments()[1..4]), Some(1..4));
        assert_eq!(layout.run(&[]), None);
        let apart = [layout.segments()[0], layout.segments()[2]];
        assert_eq!(layout.run(&apart), None);
    }
}
