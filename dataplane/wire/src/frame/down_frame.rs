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

/// Words of the longest frame.
const WORDS: usize = BYTES_MAX.div_ceil(WORD);
const WORD: usize = size_of::<u64>();

// Fields are whole words, but for the shard, which is the upper half of one, and for what follows the number of segments.
const _: () = assert!(
    SHARD % WORD == 4
        && PREV.is_multiple_of(WORD)
        && COUNT.is_multiple_of(WORD)
        && TAIL == COUNT + 1
);

/// A [`DownShard`], to be filled for one shard after the other. Its bytes are those of [`encode`].
///
/// It is kept in words, the first byte the least of each: whoever writes frames to memory that others read does so in words, and
/// what was written byte by byte just before could not be read as words without waiting for it.
#[derive(Clone, Debug)]
pub struct DownShardFrame {
    words: [u64; WORDS],
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
        let mut bytes = [[0; WORD]; WORDS];
        // There is room for the longest.
        let _ = encode(bytes.as_flattened_mut(), &body, &[]);
        Self {
            words: bytes.map(u64::from_le_bytes),
            count: 0,
        }
    }

    /// Makes it the frame for one shard, whose segments have these generations and lengths; of more than a shard may have, the first
    /// ones.
    #[inline]
    pub fn fill(&mut self, cut: &ShardCut, generations: &[ViewId], lens: &[Lsn]) {
        let count = generations
            .len()
            .min(lens.len())
            .min(SEGMENTS_PER_SHARD_MAX);
        if count != self.count {
            self.count = count;
            let len = (DownShard::LEN + count * SEGMENT) as u64;
            self.words[0] = len << 32 | self.words[0] & LOW;
        }
        let shard = u64::from(cut.shard.get());
        self.words[SHARD / WORD] = shard << 32 | self.words[SHARD / WORD] & LOW;
        self.words[PREV / WORD] = cut.prev_entry.get();
        self.words[EPOCH / WORD] = cut.epoch.get();
        self.words[BASE / WORD] = cut.base.get();
        // From here on every field begins one byte after a word does.
        let (mut at, mut last) = (COUNT / WORD, count as u64);
        for (generation, len) in generations.iter().zip(lens).take(count) {
            for field in [generation.get(), len.get()] {
                self.words[at] = last | field << 8;
                last = field >> 56;
                at += 1;
            }
        }
        self.words[at] = last;
    }

    /// Its length in bytes.
    #[must_use]
    #[inline]
    pub const fn len_bytes(&self) -> usize {
        TAIL + self.count * SEGMENT
    }

    /// Its words, and what is left of longer ones before it: those beyond the length are not its own.
    #[must_use]
    #[inline]
    pub const fn words(&self) -> &[u64] {
        &self.words
    }

    /// Writes its bytes to a buffer and gives those that are its own.
    #[inline]
    pub fn bytes<'a>(&self, buffer: &'a mut [u8; Self::BYTES_MAX]) -> &'a [u8] {
        for (bytes, word) in buffer.chunks_mut(WORD).zip(&self.words) {
            bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
        }
        &buffer[..self.len_bytes()]
    }

    /// Bytes of the longest.
    pub const BYTES_MAX: usize = BYTES_MAX;
}

/// The lower half of a word.
const LOW: u64 = 0xffff_ffff;

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
            frame.fill(&cut, &generations, &lens);
            assert_eq!(frame.bytes(&mut [0; BYTES_MAX]), &bytes[..len]);
            let words: Vec<u8> = frame
                .words()
                .iter()
                .flat_map(|it| it.to_le_bytes())
                .collect();
            assert_eq!(frame.len_bytes(), len);
            assert_eq!(words[..len], bytes[..len]);
        }
    }
}
