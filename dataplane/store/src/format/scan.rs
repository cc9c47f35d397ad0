//! Finding the entries of a chunk that comes from a device: nothing in it is trusted.

use ionian_types::{LogId, SegmentId};
use ionian_wire::codec::Field;
use ionian_wire::record::{
    RECORD_ALIGN_BYTES, RECORD_HEADER_BYTES, RECORD_MAGIC, RecordView, encoded_bytes,
};

use super::{JOURNAL_HEADER_BYTES, JOURNAL_MAGIC, JournalEntry, journal_entry_bytes, mark};

/// How entries lie in a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// Records of `ionian_wire::record`.
    Records,
    /// Entries of the journal.
    Journal,
}

impl Framing {
    /// The encoded length of the entry at the front of `bytes`, which was checked before; `None` if not even its header
    /// is there.
    #[inline]
    pub(crate) fn entry_bytes(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Records => {
                let payload = bytes.get(68..72)?.first_chunk()?;
                Some(encoded_bytes(u32::from_le_bytes(*payload) as usize))
            }
            Self::Journal => journal_entry_bytes(bytes),
        }
    }

    /// The length of the smallest entry in bytes.
    #[must_use]
    pub const fn entry_bytes_min(self) -> usize {
        match self {
            Self::Records => RECORD_HEADER_BYTES,
            Self::Journal => JOURNAL_HEADER_BYTES,
        }
    }

    const fn magic(self) -> u32 {
        match self {
            Self::Records => RECORD_MAGIC,
            Self::Journal => JOURNAL_MAGIC,
        }
    }
}

/// Where an entry starts in its chunk, or where the place of a damaged one begins. Entries start at multiples of eight,
/// which leaves the low bits for what is known of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place(u32);

impl Place {
    const APART: u32 = 1;
    const DAMAGED: u32 = 2;

    /// The place of an entry; `follows` if it starts where the one before it ends.
    #[must_use]
    #[inline]
    pub const fn new(offset: u32, follows: bool) -> Self {
        debug_assert!(offset.is_multiple_of(RECORD_ALIGN_BYTES as u32));
        Self(offset | !follows as u32)
    }

    /// The place of an entry that is damaged; it lies somewhere from `offset` on.
    #[must_use]
    pub const fn damaged(offset: u32) -> Self {
        Self(offset | Self::APART | Self::DAMAGED)
    }

    /// Whether the entry is damaged.
    #[must_use]
    #[inline]
    pub const fn is_damaged(self) -> bool {
        self.0 & Self::DAMAGED != 0
    }

    /// The offset in the chunk in bytes.
    #[must_use]
    #[inline]
    pub const fn offset(self) -> u32 {
        self.0 & !7
    }

    /// Whether the entry starts where the one before it ends. False for a damaged one.
    #[must_use]
    #[inline]
    pub const fn follows(self) -> bool {
        self.0 & Self::APART == 0
    }
}

/// What a scan looks for, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScanPlan {
    /// How entries lie.
    pub framing: Framing,
    /// The log that records must name.
    pub log: LogId,
    /// The segment that records must name.
    pub segment: SegmentId,
    /// The stamp of the chunk.
    pub stamp: u64,
    /// First byte of the first entry.
    pub from: u32,
    /// The byte after the last entry.
    pub to: u32,
    /// Position of the first entry.
    pub first: u64,
    /// No entry at or beyond this position is taken.
    pub limit: u64,
    /// Whether all positions below the limit belong into this chunk, so that those not found at its end are damaged.
    pub complete: bool,
}

/// What a scan found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScanEnd {
    /// The position after the last entry found, or after the last damaged one of a complete chunk.
    pub end: u64,
    /// The byte after the last valid entry.
    pub used: u32,
    /// Damaged entries among the places.
    pub damaged: u32,
    /// Of a journal: the greatest first-of-batch that a valid entry names.
    pub floor: u64,
}

/// Finds the entries of a chunk, takes their marks off and lists their places, one per position from `plan.first`.
///
/// Looks at every multiple of eight bytes for the next entry, so a damaged one costs itself alone. A position is only
/// taken if as many entries as are missing before it could have lain there, so the list never outgrows the chunk.
pub fn scan(plan: &ScanPlan, bytes: &mut [u8], places: &mut Vec<Place>) -> ScanEnd {
    let to = (plan.to as usize).min(bytes.len());
    let min = plan.framing.entry_bytes_min();
    let mut at = (plan.from as usize).next_multiple_of(RECORD_ALIGN_BYTES);
    let mut found = ScanEnd {
        end: plan.first,
        used: at as u32,
        damaged: 0,
        floor: 0,
    };
    while at + min <= to && found.end < plan.limit {
        let gap_start = found.used as usize;
        let most_missing = ((at - gap_start) / min) as u64;
        let last = found.end.saturating_add(most_missing).min(plan.limit - 1);
        match entry_at(plan, bytes, at, to, found.end, last) {
            Some((pos, len, floor)) => {
                let missing = pos - found.end;
                for _ in 0..missing {
                    places.push(Place::damaged(gap_start as u32));
                }
                let follows = missing == 0 && at == gap_start && !places.is_empty();
                places.push(Place::new(at as u32, follows));
                at += len;
                found.damaged += missing as u32;
                found.end = pos + 1;
                found.used = at as u32;
                found.floor = found.floor.max(floor);
            }
            None => at += RECORD_ALIGN_BYTES,
        }
    }
    if plan.complete && found.end < plan.limit {
        let room = (to.saturating_sub(found.used as usize) / min) as u64;
        let missing = room.min(plan.limit - found.end);
        for _ in 0..missing {
            places.push(Place::damaged(found.used));
        }
        found.damaged += missing as u32;
        found.end += missing;
    }
    found
}

/// The entry at `at` if its mark, its checksums, its identity and its position are right: position, length, floor.
/// Its mark is off then.
fn entry_at(
    plan: &ScanPlan,
    bytes: &mut [u8],
    at: usize,
    to: usize,
    first: u64,
    last: u64,
) -> Option<(u64, usize, u64)> {
    let marked: u64 = Field::take(bytes.get(at..at + 8)?).ok()?;
    let word = marked ^ mark(plan.stamp, at as u32);
    // The low half of the word is the magic: almost always decides.
    if word as u32 != plan.framing.magic() {
        return None;
    }
    Field::put(word, &mut bytes[at..at + 8]);
    // Position, encoded length, length without padding, floor.
    let checked = match plan.framing {
        Framing::Records => RecordView::new_checked(&bytes[at..to])
            .ok()
            .filter(|record| {
                let header = record.header();
                header.log == plan.log && header.segment == plan.segment
            })
            .map(|record| {
                let len = record.encoded().len();
                let covered = RECORD_HEADER_BYTES + record.payload().len();
                (record.header().position.get(), len, covered, 0)
            }),
        Framing::Journal => JournalEntry::new_checked(&bytes[at..to]).ok().map(|entry| {
            let covered = JOURNAL_HEADER_BYTES + entry.body.len();
            (entry.number, entry.encoded_bytes(), covered, entry.floor)
        }),
    };
    let entry = checked
        .filter(|(pos, len, _, _)| (first..=last).contains(pos) && at.saturating_add(*len) <= to);
    let Some((pos, len, covered, floor)) = entry else {
        Field::put(marked, &mut bytes[at..at + 8]);
        return None;
    };
    // No checksum covers the padding: what is handed on is as it was put in.
    bytes[at + covered..at + len].fill(0);
    Some((pos, len, floor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{journal_emit, journal_encoded_bytes, journal_seal};
    use ionian_types::{ShardId, Slot};
    use proptest::prelude::*;

    const STAMP: u64 = 0x1234_5678_9abc_def0;

    fn plan(to: usize, limit: u64) -> ScanPlan {
        ScanPlan {
            framing: Framing::Journal,
            log: LogId::ZERO,
            segment: SegmentId {
                shard: ShardId::ZERO,
                slot: Slot::ZERO,
            },
            stamp: STAMP,
            from: 64,
            to: to as u32,
            first: 5,
            limit,
            complete: limit != u64::MAX,
        }
    }

    /// A chunk of entries 5, 6, .. with these bodies, and where they start.
    fn chunk(bodies: &[Vec<u8>], stamp: u64) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = vec![0; 64];
        let mut starts = Vec::new();
        for (i, body) in bodies.iter().enumerate() {
            let at = bytes.len();
            starts.push(at);
            bytes.resize(at + journal_encoded_bytes(body.len()), 0);
            journal_emit(&mut bytes[at..], 5 + i as u64, body);
            journal_seal(&mut bytes[at..], 5);
            let word: u64 = Field::take(&bytes[at..at + 8]).unwrap();
            Field::put(word ^ mark(stamp, at as u32), &mut bytes[at..at + 8]);
        }
        bytes.resize(bytes.len() + 256, 0);
        (bytes, starts)
    }

    proptest! {
        #[test]
        fn a_flipped_bit_costs_its_entry_and_no_other(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 2..12),
            victim: prop::sample::Index,
            bit: prop::sample::Index,
        ) {
            let (mut bytes, starts) = chunk(&bodies, STAMP);
            // Not the last one: nothing behind it tells that it is missing.
            let victim = victim.index(bodies.len() - 1);
            let bit = bit.index((JOURNAL_HEADER_BYTES + bodies[victim].len()) * 8);
            bytes[starts[victim] + bit / 8] ^= 1 << (bit % 8);
            let mut places = Vec::new();
            let to = bytes.len();
            let end = scan(&plan(to, u64::MAX), &mut bytes, &mut places);
            prop_assert_eq!(end.end, 5 + bodies.len() as u64);
            prop_assert_eq!(end.damaged, 1);
            for (i, place) in places.iter().enumerate() {
                prop_assert_eq!(place.is_damaged(), i == victim);
                prop_assert_eq!(place.offset() as usize, starts[i]);
            }
        }

        #[test]
        fn entries_of_another_life_are_nothing(bodies in prop::collection::vec(any::<Vec<u8>>(), 1..5), stamp: u64) {
            prop_assume!(stamp != STAMP);
            let (mut bytes, _) = chunk(&bodies, stamp);
            let before = bytes.clone();
            let mut places = Vec::new();
            let to = bytes.len();
            let end = scan(&plan(to, u64::MAX), &mut bytes, &mut places);
            prop_assert_eq!((end.end, places.len()), (5, 0));
            prop_assert_eq!(bytes, before);
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes: Vec<u8>, first: u64, limit: u64, from in 0..200u32, to in 0..200u32) {
            let limit = limit.max(first);
            for framing in [Framing::Journal, Framing::Records] {
                let plan = ScanPlan { framing, first, limit, from, ..plan(to as usize, limit) };
                let mut places = Vec::new();
                let end = scan(&plan, &mut bytes, &mut places);
                prop_assert!(end.end >= first && end.end <= limit);
                prop_assert_eq!(places.len() as u64, end.end - first);
            }
        }
    }

    #[test]
    fn a_known_limit_lists_what_is_missing_at_the_end() {
        let (mut bytes, starts) = chunk(&[vec![1; 8], vec![2; 8], vec![3; 8]], STAMP);
        bytes[starts[2] + 33] ^= 1;
        let mut places = Vec::new();
        let to = bytes.len();
        let end = scan(&plan(to, 8), &mut bytes, &mut places);
        assert_eq!((end.end, end.damaged, places.len()), (8, 1, 3));
        assert!(places[2].is_damaged());
    }
}
