//! What of a directory is made durable, and what may leave once it is.

use ionian_types::Knobs;

use super::Directory;
use crate::command::{Action, Command};

/// A snapshot to be made durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// To be named to [`Directory::persisted`].
    pub version: u64,
    /// The bytes. They replace those of every earlier snapshot.
    pub bytes: Vec<u8>,
}

/// A command to be made durable, in the order of versions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TakenCommand {
    /// The version that it makes, to be named to [`Directory::persisted`].
    pub version: u64,
    /// The bytes, for [`State::apply_bytes`](crate::State::apply_bytes).
    pub bytes: Vec<u8>,
}

impl<K: Knobs> Directory<K> {
    /// Changes the state. The change was checked against this very state, so that it fits; whether it did.
    pub(crate) fn commit(&mut self, action: Action) -> bool {
        let command = Command {
            follows: self.state.version,
            at_us: self.wall_us,
            action,
        };
        let outcome = self.state.apply(&command);
        if let Some(error) = outcome.refused {
            debug_assert!(false, "{command:?}: {error}");
            self.counters.unfit += 1;
            return false;
        }
        if self.config.replicated {
            self.commands.push(TakenCommand {
                version: outcome.version,
                bytes: command.encode(),
            });
        }
        true
    }

    /// Whether there are changes that are not durable.
    #[must_use]
    pub const fn dirty(&self) -> bool {
        self.state.version > self.persisted
    }

    /// The version of the state.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.state.version
    }

    /// The commands made since the last call, in order, for a group of controllers to agree on. Empty unless the
    /// configuration says that the directory is replicated.
    pub fn take_commands(&mut self) -> Vec<TakenCommand> {
        if !self.commands.is_empty() && self.in_flight.is_none() {
            self.in_flight = Some((self.state.version, self.current_map()));
        }
        core::mem::take(&mut self.commands)
    }

    /// The snapshot to make durable now: one at a time, `None` when there is no change or one is under way.
    pub fn take_snapshot(&mut self) -> Option<Snapshot> {
        if self.config.replicated || !self.dirty() || self.in_flight.is_some() {
            return None;
        }
        self.in_flight = Some((self.state.version, self.current_map()));
        Some(Snapshot {
            version: self.state.version,
            bytes: self.state.encode(),
        })
    }

    /// The state as bytes, whether durable or not.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        self.state.encode()
    }

    /// The snapshot of this version, or every command up to it, is durable: what depends on it may leave.
    ///
    /// # Panics
    /// If the version is one that was not taken.
    pub fn persisted(&mut self, version: u64) {
        let taken = self.in_flight.as_ref().map(|(taken, _)| *taken);
        if self.config.replicated {
            assert!(
                version <= self.state.version,
                "a version that was never made"
            );
        } else {
            assert_eq!(
                taken,
                Some(version),
                "the snapshot under way is another one"
            );
        }
        self.persisted = self.persisted.max(version);
        if taken.is_some_and(|taken| taken <= version) {
            self.public = self.in_flight.take().map(|(_, map)| map);
        }
        if version == self.state.version {
            let shown = self.public.as_ref().map(|map| map.version);
            if shown != Some(self.state.map_version) {
                self.public = Some(self.current_map());
            }
        }
    }

    /// The snapshot under way could not be made durable. It may be tried again; what depends on it stays.
    pub fn not_persisted(&mut self) {
        self.in_flight = None;
    }
}
