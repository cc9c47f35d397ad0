//! A cut as it is told to the replicas of many shards: the same frame over and over, but for a few fields.

use ionian_types::{EntryNo, Gsn, LogId, Lsn, SEGMENTS_PER_SHARD_MAX, ShardId, ViewId};

use super::{Body, DownShard, MESSAGE_HEADER_BYTES, encode};
use crate::codec::Field;

/// Where the fields lie that differ from shard to shard.
const SHARD: usize = MESSAGE_HEADER_BYTES + LogId::LEN;
const PREV: usize = SHARD + ShardId::LEN + EntryNo::LEN;
const EPOCH: usize = PREV + EntryNo::LEN;
const BASE: usize = EPOCH + ViewId::LEN;
const COUNT: usize = BASE + 2 * Gsn::LEN;
const TAIL: usize = MESSAGE_HEADER_BYTES + DownShard::LEN;
/// Generation and length of one segment.
const SEGMENT: usize = ViewId::LEN + Lsn::LEN;
const BYTES_MAX: usize = TAIL + SEGMENT * SEGMENTS_PER_SHARD_MAX;

/// A [`DownShard`] in bytes, to be filled for one shard after the other. The bytes are those of [`encode`].
#[derive(Clone, Debug)]
pub struct DownShardFrame {
    bytes: [u8; BYTES_MAX],
    count: usize,
}

/// What differs from shard to shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardCut {
    /// The shard.
    pub shard: ShardId,
    /// The entry before the cut's that touches the shard.
    pub prev_entry: EntryNo,
    /// The shard epoch.
    pub epoch: ViewId,
    /// The first position that belongs to the shard in the entry.
    pub base: Gsn,
}

impl DownShardFrame {
    /// A frame of an entry, after which the order ends at `end_gsn`.
    #[must_use]
    pub fn new(log: LogId, entry: EntryNo, end_gsn: Gsn) -> Self {
        let body = DownShard {
            log,
            shard: ShardId::ZERO,
            entry,
            prev_entry: EntryNo::ZERO,
            epoch: ViewId::ZERO,
            base: Gsn::ZERO,
            end_gsn,
            segments: 0,
        };
        let mut bytes = [0; BYTES_MAX];
        // There is room for the longest.
        let _ = encode(&mut bytes, &body, &[]);
        Self { bytes, count: 0 }
    }

    /// The frame for one shard, whose segments have these generations and lengths; of more than a shard may have, the first ones.
    #[inline]
    pub fn fill(&mut self, cut: &ShardCut, generations: &[ViewId], lens: &[Lsn]) -> &[u8] {
        let count = generations
            .len()
            .min(lens.len())
            .min(SEGMENTS_PER_SHARD_MAX);
        if count != self.count {
            self.count = count;
            let len = (DownShard::LEN + count * SEGMENT) as u32;
            Field::put(len, &mut self.bytes[4..8]);
            Field::put(count as u8, &mut self.bytes[COUNT..=COUNT]);
        }
        cut.shard.put(&mut self.bytes[SHARD..SHARD + ShardId::LEN]);
        cut.prev_entry
            .put(&mut self.bytes[PREV..PREV + EntryNo::LEN]);
        cut.epoch.put(&mut self.bytes[EPOCH..EPOCH + ViewId::LEN]);
        cut.base.put(&mut self.bytes[BASE..BASE + Gsn::LEN]);
        let tail = self.bytes[TAIL..].chunks_exact_mut(SEGMENT);
        for (bytes, (generation, len)) in tail.zip(generations.iter().zip(lens)) {
            let (first, second) = bytes.split_at_mut(ViewId::LEN);
            generation.put(first);
            len.put(second);
        }
        &self.bytes[..TAIL + count * SEGMENT]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Writer;

    #[test]
    fn frames_are_those_that_are_encoded() {
        let (log, entry, end_gsn) = (LogId::new(3), EntryNo::new(77), Gsn::new(1 << 40));
        let mut frame = DownShardFrame::new(log, entry, end_gsn);
        // Longer and shorter by turns: nothing of the frame before is left.
        for (at, count) in [7usize, 1, 3, 2, 7, 5].into_iter().enumerate() {
            let at = at as u64 + 1;
            let cut = ShardCut {
                shard: ShardId::new(at as u32 * 9),
                prev_entry: EntryNo::new(at * 5),
                epoch: ViewId::new(at * 0x0102_0304_0506),
                base: Gsn::new(at << 33),
            };
            let generations: Vec<ViewId> =
                (0..count as u64).map(|it| ViewId::new(it + at)).collect();
            let lens: Vec<Lsn> = (0..count as u64)
                .map(|it| Lsn::new(it << 20 | at))
                .collect();
            let body = DownShard {
                log,
                shard: cut.shard,
                entry,
                prev_entry: cut.prev_entry,
                epoch: cut.epoch,
                base: cut.base,
                end_gsn,
                segments: count as u8,
            };
            let mut tail = [0; SEGMENT * SEGMENTS_PER_SHARD_MAX];
            let mut writer = Writer::new(&mut tail);
            for (generation, len) in generations.iter().zip(&lens) {
                writer.field(*generation).unwrap();
                writer.field(*len).unwrap();
            }
            let used = writer.len();
            let mut bytes = [0; BYTES_MAX];
            let len = encode(&mut bytes, &body, &[&tail[..used]]).unwrap();
            assert_eq!(frame.fill(&cut, &generations, &lens), &bytes[..len]);
        }
    }
}
