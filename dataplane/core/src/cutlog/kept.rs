//! Entries of a cut log that stay when those around them are dropped: the members of a shard that are away have not applied
//! them.
//!
//! An entry gives positions to records. It may go once as many members as an ack takes have durably applied it: with fewer,
//! one bad device can take back all that is known of it. A log that waits for members that are away keeps everything, and in
//! the end stops every shard; so what touches their shards is kept here. That is little: a shard of which every member must
//! acknowledge gets no cuts meanwhile.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use ionian_types::{EntryNo, Gsn, ShardId};
use ionian_wire::entry::EntryView;
use ionian_wire::{Reader, WireError, Writer};

use super::{EntryLog, LogState};

#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    end_gsn: Gsn,
    encoded: Vec<u8>,
}

impl Entry {
    fn touches(&self, shard: ShardId) -> bool {
        EntryView::new_checked(&self.encoded).is_ok_and(|view| view.touches(shard))
    }
}

/// Of some shards, every entry that touches them from one on, up to the first entry of the log.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Per shard: the entry after which every one is here.
    after: BTreeMap<ShardId, EntryNo>,
    entries: BTreeMap<EntryNo, Entry>,
    bytes: u64,
}

impl Kept {
    /// Bytes of entries.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.after.is_empty()
    }

    /// The first entry after which something of the shards that `which` names is kept; none if nothing is.
    #[must_use]
    pub fn first_after(&self, which: impl Fn(ShardId) -> bool) -> Option<EntryNo> {
        let after = self.after.iter().filter(|(shard, _)| which(**shard));
        after.map(|(_, after)| *after).min()
    }

    /// The shards of which entries are kept.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.after.keys().copied()
    }

    /// The end of the order after the last entry kept that touches a shard.
    #[must_use]
    pub fn end_gsn(&self, shard: ShardId) -> Option<Gsn> {
        let mut newest = self.entries.values().rev();
        newest
            .find(|entry| entry.touches(shard))
            .map(|entry| entry.end_gsn)
    }

    /// Every entry after one that touches the shard and is no longer in the log: number, end of the order after it, bytes.
    /// `None` if any of them is not here.
    #[must_use]
    pub fn entries(
        &self,
        shard: ShardId,
        after: EntryNo,
    ) -> Option<impl Iterator<Item = (EntryNo, Gsn, &[u8])>> {
        self.after.get(&shard).filter(|first| **first <= after)?;
        let later = self.entries.range(after.next()?..);
        Some(
            later
                .filter(move |(_, entry)| entry.touches(shard))
                .map(|(number, entry)| (*number, entry.end_gsn, &entry.encoded[..])),
        )
    }

    /// What is to be kept once the entries of the log through `upto` are dropped: of each shard wanted, what touches it after
    /// the entry given. `base` is what the log says before its first entry. `None` if that is more than `bytes_max`.
    #[must_use]
    pub fn advanced(
        &self,
        wanted: &BTreeMap<ShardId, EntryNo>,
        base: &LogState,
        log: &EntryLog,
        upto: EntryNo,
        bytes_max: u64,
    ) -> Option<Self> {
        let mut next = Self::default();
        for (shard, after) in wanted {
            // What was dropped before, and is not here, was applied by enough.
            let gone = || base.shards.get(shard).map(|state| state.last);
            let known = self.after.get(shard).copied().or_else(gone);
            next.after
                .insert(*shard, known.unwrap_or_default().max(*after));
        }
        next.after.retain(|_, after| *after < upto);
        if next.is_empty() {
            return Some(next);
        }
        let earlier = self.entries.iter();
        let earlier = earlier.map(|(number, entry)| (*number, entry.end_gsn, &entry.encoded[..]));
        let leaving = (log.first().get()..=upto.get()).filter_map(|number| {
            let number = EntryNo::new(number);
            Some((number, log.end_gsn(number)?, log.get(number)?))
        });
        let mut missed = BTreeSet::new();
        for (number, end_gsn, encoded) in earlier.chain(leaving) {
            if next.note_missed(number, encoded, &mut missed) {
                next.push(number, end_gsn, encoded);
            }
            if next.bytes > bytes_max {
                return None;
            }
        }
        next.after.retain(|shard, _| missed.contains(shard));
        Some(next)
    }

    /// Enters the shards that miss an entry into `missed`; whether there are any.
    fn note_missed(&self, number: EntryNo, encoded: &[u8], missed: &mut BTreeSet<ShardId>) -> bool {
        let Ok(view) = EntryView::new_checked(encoded) else {
            return false;
        };
        let misses = |shard: &ShardId| self.after.get(shard).is_some_and(|after| number > *after);
        let all = view.touches_all().then(|| self.shards());
        // A cut can name a shard thousands of times, and thousands of shards can miss it: each name is looked at once.
        let named = all.into_iter().flatten().chain(view.shards());
        let mut any = false;
        for shard in named.filter(misses) {
            missed.insert(shard);
            any = true;
        }
        any
    }

    fn push(&mut self, number: EntryNo, end_gsn: Gsn, encoded: &[u8]) {
        let encoded = Vec::from(encoded);
        self.bytes += encoded.len() as u64;
        self.entries.insert(number, Entry { end_gsn, encoded });
    }

    /// Writes it, as a part of a snapshot.
    ///
    /// # Errors
    /// [`WireError::Full`].
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), WireError> {
        writer.field(self.after.len() as u32)?;
        for (shard, after) in &self.after {
            writer.field(*shard)?;
            writer.field(*after)?;
        }
        writer.field(self.entries.len() as u32)?;
        for entry in self.entries.values() {
            writer.field(entry.end_gsn)?;
            writer.field(entry.encoded.len() as u32)?;
            writer.bytes(&entry.encoded)?;
        }
        Ok(())
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// Any [`WireError`]; effect none.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut kept = Self::default();
        for _ in 0..reader.field::<u32>()? {
            kept.after.insert(reader.field()?, reader.field()?);
        }
        for _ in 0..reader.field::<u32>()? {
            let end_gsn = reader.field()?;
            let len = reader.field::<u32>()? as usize;
            let encoded = reader.bytes(len)?;
            let number = EntryView::new_checked(encoded)?.header.entry;
            kept.push(number, end_gsn, encoded);
        }
        Ok(kept)
    }
}
