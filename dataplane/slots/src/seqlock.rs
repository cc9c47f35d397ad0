//! A few words that one thread writes and others read without ever making it wait: a version is checked before and after
//! the copy, and a copy that was torn is thrown away.
//!
//! # Memory order
//!
//! ```text
//! writer:  version = odd (relaxed);  fence(release);  words (relaxed) ...;  version = even (release)
//! reader:  v = version (acquire);  words (relaxed) ...;  fence(acquire);  version == v, and even?
//! ```
//!
//! *No old words under a new version*: the reader's acquire load of `v` sees the writer's release store of it, and with it
//! every word that was stored before. *No new words under an old version*: a reader that takes a word of a later write has
//! read what was stored after the writer's release fence, so its own acquire fence synchronises with that fence, and its
//! second look at the version finds the odd value or a later one. The words are atomics, so what is thrown away was never
//! undefined. On x86 every one of these loads, stores and fences is a plain move or nothing.
//!
//! One writer: the order of versions is that of its program. Two would not break memory safety, and would pass torn words off
//! as whole; [`SlotWriter`](crate::SlotWriter) sees to it that there is one.

use std::array;

use crate::sync::{AtomicU64, Ordering, fence};

/// `WORDS` words behind a version, in whole cache lines of their own.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct SeqLock<const WORDS: usize> {
    /// Twice the number of writes; odd while one is under way.
    version: AtomicU64,
    words: [AtomicU64; WORDS],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<SeqLock<7>>() == 64 && size_of::<SeqLock<11>>() == 128);

impl<const WORDS: usize> Default for SeqLock<WORDS> {
    /// Never written, all zeros.
    fn default() -> Self {
        Self {
            version: AtomicU64::new(0),
            words: array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl<const WORDS: usize> SeqLock<WORDS> {
    /// The version, for telling whether anything is new; says nothing about the words.
    #[must_use]
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// Writes these words, the first ones and then the others; beyond them the words stay as they are. `version` is that after the
    /// last write, and even; gives the one after this write. There must be no other writer.
    ///
    /// In two parts, since a caller that put them together would have each word written twice.
    #[inline]
    pub fn write<const FIRST: usize>(
        &self,
        version: u64,
        first: [u64; FIRST],
        others: &[u64],
    ) -> u64 {
        self.version
            .store(version.wrapping_add(1), Ordering::Relaxed);
        // Whoever sees one of the words below sees that the version is odd.
        fence(Ordering::Release);
        for (word, value) in self.words.iter().zip(first) {
            word.store(value, Ordering::Relaxed);
        }
        for (word, value) in self.words.iter().skip(FIRST).zip(others) {
            word.store(*value, Ordering::Relaxed);
        }
        let version = version.wrapping_add(2);
        // Whoever sees this version sees the words.
        self.version.store(version, Ordering::Release);
        version
    }

    /// Asks the cache for the lines behind the first one, which the version is in. Nobody waits for them: what is loaded is not
    /// looked at.
    #[inline]
    pub fn ask(&self) {
        const LINE: usize = 64 / size_of::<u64>();
        for word in self.words.iter().skip(LINE - 1).step_by(LINE) {
            std::hint::black_box(word.load(Ordering::Relaxed));
        }
    }

    /// The words and their version; `None` while they are being written, or when they were during the copy.
    #[must_use]
    #[inline]
    pub fn read(&self) -> Option<(u64, [u64; WORDS])> {
        let version = self.version.load(Ordering::Acquire);
        if version % 2 == 1 {
            return None;
        }
        let words = array::from_fn(|at| self.words[at].load(Ordering::Relaxed));
        // The words come before the second look.
        fence(Ordering::Acquire);
        (self.version.load(Ordering::Relaxed) == version).then_some((version, words))
    }
}
