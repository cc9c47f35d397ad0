//! What the writers were told: every acknowledgement with its position, kept outside of the cluster.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

/// A record that a writer made. Its text is the payload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Record {
    pub(super) writer: u32,
    /// Which of the writer's clients sent it: the order within one is kept.
    pub(super) life: u32,
    /// Never the same for two records of a writer.
    pub(super) seq: u64,
    /// How often everything had been lost when it was sent.
    pub(super) era: u32,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            writer,
            life,
            seq,
            era,
        } = self;
        write!(f, "w{writer} l{life} s{seq} e{era}")
    }
}

impl Record {
    /// Reads a payload back.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(' ');
        let mut field = |name: char| fields.next()?.strip_prefix(name);
        Some(Self {
            writer: field('w')?.parse().ok()?,
            life: field('l')?.parse().ok()?,
            seq: field('s')?.parse().ok()?,
            era: field('e')?.parse().ok()?,
        })
    }
}

/// One acknowledgement.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Ack {
    pub(super) gsn: u64,
    pub(super) record: Record,
}

/// Everything that was acknowledged so far.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    acks: Mutex<Vec<Ack>>,
    count: AtomicU64,
    era: AtomicU32,
    twice: Mutex<BTreeSet<Record>>,
    words: Mutex<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked while holding it has reported that; every state of these values is a whole one.
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Ledger {
    pub(super) fn acknowledged(&self, record: Record, gsn: u64) {
        lock(&self.acks).push(Ack { gsn, record });
        self.count.fetch_add(1, Ordering::Release);
    }

    pub(super) fn acked(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// A copy of all acknowledgements.
    pub(super) fn acks(&self) -> Vec<Ack> {
        lock(&self.acks).clone()
    }

    /// How often everything was lost.
    pub(super) fn era(&self) -> u32 {
        self.era.load(Ordering::Acquire)
    }

    /// What was sent until now may be lost.
    pub(super) fn everything_was_lost(&self) {
        self.era.fetch_add(1, Ordering::AcqRel);
    }

    /// The record is sent again by another client although its outcome is not known.
    pub(super) fn may_be_twice(&self, record: Record) {
        lock(&self.twice).insert(record);
    }

    pub(super) fn twice(&self) -> BTreeSet<Record> {
        lock(&self.twice).clone()
    }

    /// Why a writer's last client ended.
    pub(super) fn said(&self, words: String) {
        *lock(&self.words) = words;
    }

    pub(super) fn last_words(&self) -> String {
        lock(&self.words).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_from_its_text() {
        let record = Record {
            writer: 3,
            life: 12,
            seq: 456,
            era: 1,
        };
        assert_eq!(Record::parse(&record.to_string()), Some(record));
        assert_eq!(Record::parse("w3 l12 456 e1"), None);
        assert_eq!(Record::parse(""), None);
    }
}
