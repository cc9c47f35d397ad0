//! What each flush must wait for, and which files are poisoned: bookkeeping without I/O.
//!
//! A flush issues one sync per file that has completed writes no sync covers yet, and ends when these and all syncs
//! issued before it have ended: an earlier flush may have taken a file's turn, and its sync covers the same writes.

use std::collections::BTreeMap;

use ionian_driver_api::{BlockError, Bounded, FileId, OpKind};

/// Per-file state of a queue.
#[derive(Debug, Default, Clone, Copy)]
struct FileState {
    /// A write has completed that no issued sync covers.
    dirty: bool,
    /// Error of a failed sync.
    poisoned: Option<i32>,
}

#[derive(Debug)]
struct Waiting {
    token: u64,
    /// Syncs with smaller numbers must end first.
    before: u64,
    result: Result<(), BlockError>,
}

/// Flushes in progress and the files they concern.
#[derive(Debug)]
pub(crate) struct Flushes {
    files: BTreeMap<FileId, FileState>,
    /// Number of the next sync, and those in flight.
    next_sync: u64,
    in_flight: Vec<(u64, FileId)>,
    waiting: Bounded<Waiting>,
}

impl Flushes {
    pub(crate) fn new(depth: usize) -> Self {
        Self {
            files: BTreeMap::new(),
            next_sync: 0,
            in_flight: Vec::with_capacity(64),
            waiting: Bounded::with_capacity(depth),
        }
    }

    pub(crate) fn add_file(&mut self, file: FileId) {
        self.files.insert(file, FileState::default());
    }

    /// Forgets a file that is deleted, and with it its poison.
    pub(crate) fn remove_file(&mut self, file: FileId) {
        self.files.remove(&file);
    }

    /// Whether a sync of the file is in flight.
    pub(crate) fn is_syncing(&self, file: FileId) -> bool {
        self.in_flight.iter().any(|(_, syncing)| *syncing == file)
    }

    /// The error that an operation on a poisoned file gets.
    pub(crate) fn poison(&self, file: FileId, kind: OpKind) -> Option<BlockError> {
        let errno = self.files.get(&file)?.poisoned?;
        Some(BlockError::Poisoned { file, kind, errno })
    }

    /// A write that is not durable by itself has completed.
    pub(crate) fn written(&mut self, file: FileId) {
        if let Some(state) = self.files.get_mut(&file) {
            state.dirty = true;
        }
    }

    /// A write that was to be durable by itself has failed, or a sync has: nothing about the file is known.
    pub(crate) fn fail(&mut self, file: FileId, errno: i32) {
        if let Some(state) = self.files.get_mut(&file) {
            state.poisoned.get_or_insert(errno);
        }
    }

    /// Starts a flush: calls `sync` with a number and a file for each sync to issue.
    pub(crate) fn begin(&mut self, token: u64, mut sync: impl FnMut(u64, FileId)) {
        let mut result = Ok(());
        for (file, state) in &mut self.files {
            if let Some(errno) = state.poisoned {
                result = Err(BlockError::Poisoned {
                    file: *file,
                    kind: OpKind::Flush,
                    errno,
                });
            } else if state.dirty {
                state.dirty = false;
                self.in_flight.push((self.next_sync, *file));
                sync(self.next_sync, *file);
                self.next_sync += 1;
            }
        }
        let pushed = self.waiting.push(Waiting {
            token,
            before: self.next_sync,
            result,
        });
        assert!(pushed.is_ok(), "no more flushes than operations in flight");
    }

    /// A sync has ended, with 0 or an error number.
    pub(crate) fn synced(&mut self, number: u64, errno: i32) {
        let Some(at) = self.in_flight.iter().position(|(sync, _)| *sync == number) else {
            return;
        };
        let (_, file) = self.in_flight.swap_remove(at);
        if errno != 0 {
            self.fail(file, errno);
            for index in 0..self.waiting.len() {
                if let Some(waiting) = self.waiting.get_mut(index)
                    && waiting.before > number
                {
                    waiting.result = Err(BlockError::Poisoned {
                        file,
                        kind: OpKind::Flush,
                        errno,
                    });
                }
            }
        }
    }

    /// Whether `finished` has one.
    pub(crate) fn has_finished(&self) -> bool {
        let ended = |first: &Waiting| !self.in_flight.iter().any(|(sync, _)| *sync < first.before);
        self.waiting.get(0).is_some_and(ended)
    }

    /// The next flush that has ended.
    pub(crate) fn finished(&mut self) -> Option<(u64, Result<(), BlockError>)> {
        if !self.has_finished() {
            return None;
        }
        self.waiting
            .pop()
            .map(|waiting| (waiting.token, waiting.result))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: FileId = FileId(1);
    const B: FileId = FileId(2);
    const EIO: i32 = 5;

    fn flushes() -> Flushes {
        let mut flushes = Flushes::new(8);
        flushes.add_file(A);
        flushes.add_file(B);
        flushes
    }

    fn begin(flushes: &mut Flushes, token: u64) -> Vec<(u64, FileId)> {
        let mut syncs = Vec::new();
        flushes.begin(token, |number, file| syncs.push((number, file)));
        syncs
    }

    #[test]
    fn one_sync_per_written_file_and_none_without() {
        let mut flushes = flushes();
        assert_eq!(begin(&mut flushes, 1), []);
        assert_eq!(flushes.finished(), Some((1, Ok(()))));
        for _ in 0..3 {
            flushes.written(A);
        }
        assert_eq!(begin(&mut flushes, 2), [(0, A)]);
        assert_eq!(flushes.finished(), None);
        flushes.synced(0, 0);
        assert_eq!(flushes.finished(), Some((2, Ok(()))));
        assert_eq!(flushes.finished(), None);
    }

    #[test]
    fn a_flush_waits_for_the_syncs_of_earlier_ones() {
        let mut flushes = flushes();
        flushes.written(A);
        assert_eq!(begin(&mut flushes, 1), [(0, A)]);
        // Covers the write to A as well, whose sync is not done.
        flushes.written(B);
        assert_eq!(begin(&mut flushes, 2), [(1, B)]);
        flushes.synced(1, 0);
        assert_eq!(flushes.finished(), None);
        assert!(flushes.is_syncing(A) && !flushes.is_syncing(B));
        flushes.synced(0, 0);
        assert_eq!(flushes.finished(), Some((1, Ok(()))));
        assert_eq!(flushes.finished(), Some((2, Ok(()))));
    }

    #[test]
    fn a_write_during_a_sync_needs_another() {
        let mut flushes = flushes();
        flushes.written(A);
        assert_eq!(begin(&mut flushes, 1), [(0, A)]);
        flushes.written(A);
        assert_eq!(begin(&mut flushes, 2), [(1, A)]);
        flushes.synced(0, 0);
        assert_eq!(flushes.finished(), Some((1, Ok(()))));
        assert_eq!(flushes.finished(), None);
    }

    #[test]
    fn a_failed_sync_poisons_its_file_for_good() {
        let mut flushes = flushes();
        flushes.written(A);
        flushes.written(B);
        begin(&mut flushes, 1);
        begin(&mut flushes, 2);
        let poisoned = BlockError::Poisoned {
            file: A,
            kind: OpKind::Flush,
            errno: EIO,
        };
        flushes.synced(0, EIO);
        flushes.synced(1, 0);
        assert_eq!(flushes.finished(), Some((1, Err(poisoned))));
        assert_eq!(flushes.finished(), Some((2, Err(poisoned))));
        flushes.written(A);
        assert_eq!(
            begin(&mut flushes, 3),
            [],
            "a poisoned file is never synced again"
        );
        assert_eq!(flushes.finished(), Some((3, Err(poisoned))));
        assert!(
            flushes.poison(A, OpKind::Write).is_some()
                && flushes.poison(B, OpKind::Write).is_none()
        );
        flushes.remove_file(A);
        assert_eq!(begin(&mut flushes, 4), []);
        assert_eq!(flushes.finished(), Some((4, Ok(()))));
    }
}
