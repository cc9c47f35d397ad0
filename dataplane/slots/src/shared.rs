//! The shared table of a leaf: one slot per server, into which its newest report is written, and which the leaf scans.
//!
//! A slot is one cache line for shards of up to three replicas, and two for up to seven. A fabric with one-sided writes lets the
//! server write its slot; elsewhere whoever receives a report writes it. Reports are cumulative, so only the newest counts: one
//! that is written over before the leaf has looked is counted and not missed.
//!
//! Fault model: writers may stop at any instruction and come back as another life. What is in a slot is a claim of its server:
//! the leaf checks epoch, incarnation and sequence before it counts.

use std::ops::Range;

use ionian_types::{EntryNo, Inc, SEGMENTS_PER_SHARD_MAX, ViewId};

use crate::SlotsError;
use crate::seqlock::SeqLock;
use crate::sync::{Arc, AtomicBool, Ordering};

/// The largest number of slots of a table; 64 or 128 MiB.
pub const SLOTS_MAX: usize = 1 << 20;

/// Words before the lengths: epoch, incarnation, sequence, applied entry. With the version they are five of eight.
const HEADER_WORDS: usize = 4;
const ONE_LINE: usize = 7;
const ONE_LINE_REPLICAS: usize = ONE_LINE - HEADER_WORDS;
const TWO_LINES: usize = HEADER_WORDS + SEGMENTS_PER_SHARD_MAX;

/// Slots whose versions are looked at before the first of them is read. As many misses of the cache as the CPU can have under
/// way then overlap, and no branch is guessed wrong between them; 64 lines stay in the first-level cache meanwhile.
const BATCH: usize = 64;

/// How often one scan tries a slot that is being written. A write takes a few nanoseconds: the second try nearly always finds it
/// done, and a writer that stopped in the middle costs no more than this.
const TRIES: usize = 2;

/// One report (ORDERING.md, `Report`), as it stands in a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotReport<'a> {
    /// The shard epoch that the server has entered.
    pub epoch: ViewId,
    /// The server's life.
    pub inc: Inc,
    /// The number of the report within that life.
    pub seq: u64,
    /// The last entry of its shard's chain that the server has applied.
    pub applied: EntryNo,
    /// Per segment, the length of the contiguous prefix that the server holds at the log's class, in records.
    pub lens: &'a [u64],
}

/// What one scan found.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Collected {
    /// Reports handed out: slots that had changed.
    pub read: u64,
    /// Reports that were written over before any scan read them; they are not among `read`.
    pub overwritten: u64,
    /// Slots that were being written each time; the next scan finds them.
    pub busy: u64,
}

/// The slots of the servers of one class of shards. Clones share them.
#[derive(Clone, Debug)]
pub struct SlotTable {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    replicas: usize,
    slots: Slots,
    /// Per slot, whether somebody has its writer. Beside the slots, since a slot has no room and is read often.
    taken: Box<[AtomicBool]>,
}

#[derive(Debug)]
enum Slots {
    One(Box<[SeqLock<ONE_LINE>]>),
    Two(Box<[SeqLock<TWO_LINES>]>),
}

impl SlotTable {
    /// A table of `slots` empty slots for servers of shards with `replicas` replicas. Which slot is whose is up to the caller; a
    /// scan is fastest over neighbours.
    ///
    /// # Errors
    ///
    /// [`SlotsError::Replicas`] and [`SlotsError::Slots`]: outside of 1 to 7 and of 0 to [`SLOTS_MAX`].
    pub fn new(slots: usize, replicas: usize) -> Result<Self, SlotsError> {
        if replicas == 0 || replicas > SEGMENTS_PER_SHARD_MAX {
            return Err(SlotsError::Replicas { given: replicas });
        }
        if slots > SLOTS_MAX {
            return Err(SlotsError::Slots { given: slots });
        }
        let shared = Shared {
            replicas,
            slots: if replicas <= ONE_LINE_REPLICAS {
                Slots::One((0..slots).map(|_| SeqLock::default()).collect())
            } else {
                Slots::Two((0..slots).map(|_| SeqLock::default()).collect())
            },
            taken: (0..slots).map(|_| AtomicBool::new(false)).collect(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The number of slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.shared.taken.len()
    }

    /// Replicas of each shard, which is the number of lengths in a report.
    #[must_use]
    pub fn replicas(&self) -> usize {
        self.shared.replicas
    }

    /// The writer of a slot; `None` when there is no such slot or somebody has its writer. When that one is dropped there may be
    /// another, even if the first stopped in the middle of a write.
    #[must_use]
    pub fn writer(&self, slot: usize) -> Option<SlotWriter> {
        let taken = self.shared.taken.get(slot)?;
        // Acquires what the writer before released: its version is seen.
        if taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        let version = match &self.shared.slots {
            Slots::One(slots) => slots.get(slot).map(SeqLock::version),
            Slots::Two(slots) => slots.get(slot).map(SeqLock::version),
        }?;
        Some(SlotWriter {
            shared: self.shared.clone(),
            slot,
            version: version.next_multiple_of(2),
        })
    }

    /// A reader that has seen nothing. Each has its own memory of what it has read.
    #[must_use]
    pub fn reader(&self) -> SlotReader {
        SlotReader {
            shared: self.shared.clone(),
            seen: vec![0; self.slots()].into_boxed_slice(),
        }
    }
}

/// The one who writes a slot.
#[derive(Debug)]
pub struct SlotWriter {
    shared: Arc<Shared>,
    slot: usize,
    /// After the last write; even.
    version: u64,
}

impl SlotWriter {
    /// Which slot it is.
    #[must_use]
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// Puts a report in the place of the one before. Never waits.
    ///
    /// # Errors
    ///
    /// [`SlotsError::Lengths`] when the report has not as many lengths as the table's shards have segments. The slot is as before.
    #[inline]
    pub fn write(&mut self, report: &SlotReport<'_>) -> Result<(), SlotsError> {
        let segments = self.shared.replicas;
        if report.lens.len() != segments {
            return Err(SlotsError::Lengths {
                given: report.lens.len(),
                segments,
            });
        }
        // A writer is made only for a slot that is there.
        let (version, head) = (self.version, header(report));
        self.version = match &self.shared.slots {
            Slots::One(slots) => slots[self.slot].write(version, head, report.lens),
            Slots::Two(slots) => slots[self.slot].write(version, head, report.lens),
        };
        Ok(())
    }
}

impl Drop for SlotWriter {
    fn drop(&mut self) {
        if let Some(taken) = self.shared.taken.get(self.slot) {
            taken.store(false, Ordering::Release);
        }
    }
}

/// What stands before the lengths of a report.
#[inline]
const fn header(report: &SlotReport<'_>) -> [u64; HEADER_WORDS] {
    [
        report.epoch.get(),
        report.inc.get(),
        report.seq,
        report.applied.get(),
    ]
}

/// One scanner of a table.
#[derive(Debug)]
pub struct SlotReader {
    shared: Arc<Shared>,
    /// Per slot, the version of the report that was read last; 0 when none was, which is also the version of a slot that was
    /// never written. Odd, which no whole report has, when it is to be read again.
    seen: Box<[u64]>,
}

impl SlotReader {
    /// Hands out the report of every slot in `range` that changed since it was handed out last, by rising number of the slot.
    /// Slots that do not exist are left out.
    ///
    /// Never waits: a slot that is being written is left for the next scan. Costs a look at the version for each slot, and a copy
    /// for each that changed.
    #[inline]
    pub fn collect(
        &mut self,
        range: Range<usize>,
        each: impl FnMut(usize, &SlotReport<'_>),
    ) -> Collected {
        let end = range.end.min(self.seen.len());
        let range = range.start.min(end)..end;
        let (first, replicas) = (range.start, self.shared.replicas);
        let Some(seen) = self.seen.get_mut(range.clone()) else {
            return Collected::default();
        };
        match &self.shared.slots {
            Slots::One(slots) => match slots.get(range) {
                Some(slots) => scan(slots, seen, first, replicas, each),
                None => Collected::default(),
            },
            Slots::Two(slots) => match slots.get(range) {
                Some(slots) => scan(slots, seen, first, replicas, each),
                None => Collected::default(),
            },
        }
    }

    /// Forgets what was seen of a slot: the next scan hands out its report again, if one was ever written.
    pub fn forget(&mut self, slot: usize) {
        if let Some(seen) = self.seen.get_mut(slot) {
            *seen |= u64::from(*seen != 0);
        }
    }

    /// Forgets what was seen of all slots.
    pub fn forget_all(&mut self) {
        for seen in &mut self.seen {
            *seen |= u64::from(*seen != 0);
        }
    }
}

/// Reads the slots that changed; `first` is the number of the first of them.
#[inline]
fn scan<const WORDS: usize>(
    slots: &[SeqLock<WORDS>],
    seen: &mut [u64],
    first: usize,
    replicas: usize,
    mut each: impl FnMut(usize, &SlotReport<'_>),
) -> Collected {
    let mut found = Collected::default();
    let batches = slots.chunks(BATCH).zip(seen.chunks_mut(BATCH));
    for (batch, (slots, seen)) in batches.enumerate() {
        let mut changed = 0u64;
        for (at, (slot, seen)) in slots.iter().zip(seen.iter()).enumerate() {
            changed |= u64::from(slot.version() != *seen) << at;
        }
        while changed != 0 {
            let at = changed.trailing_zeros() as usize;
            changed &= changed - 1;
            let (Some(slot), Some(seen)) = (slots.get(at), seen.get_mut(at)) else {
                break;
            };
            let Some((version, words)) = (0..TRIES).find_map(|_| slot.read()) else {
                found.busy += 1;
                continue;
            };
            let Some((header, lens)) = words.split_first_chunk::<HEADER_WORDS>() else {
                break;
            };
            found.read += 1;
            let written = version.wrapping_sub(*seen & !1) / 2;
            found.overwritten += written.saturating_sub(1);
            *seen = version;
            let report = SlotReport {
                epoch: ViewId::new(header[0]),
                inc: Inc::new(header[1]),
                seq: header[2],
                applied: EntryNo::new(header[3]),
                lens: lens.get(..replicas).unwrap_or(lens),
            };
            each(first + batch * BATCH + at, &report);
        }
    }
    found
}
