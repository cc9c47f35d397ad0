//! What a user's client opens its sessions with, kept new by somebody who asks the controllers.
//!
//! The link that needs grants belongs to one thread, whoever asks for them is another: between them lies this. The link looks
//! at one number; it asks for newer ones when a session has ended, since rights may have changed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ionian_types::{ClusterId, LogId};
use ionian_wire::grant::{Grant, KEY_BYTES, Rights};

/// A grant to one node, and its key.
pub type HeldGrant = (Grant, [u8; KEY_BYTES]);

/// What a user may do with a log now.
#[derive(Clone, Default)]
pub struct UserRights {
    /// The cluster.
    pub cluster: ClusterId,
    /// The user's name.
    pub user: String,
    /// The log.
    pub log: LogId,
    /// Its name.
    pub log_name: String,
    /// The user's rights on the log.
    pub rights: Rights,
    /// A grant for each node; none without rights.
    pub grants: Vec<HeldGrant>,
}

impl core::fmt::Debug for UserRights {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("UserRights")
            .field("user", &self.user)
            .field("log", &self.log_name)
            .field("rights", &self.rights)
            .field("grants", &self.grants.len())
            .finish_non_exhaustive()
    }
}

/// The grants of a user's client.
#[derive(Debug)]
pub struct UserGrants {
    state: Mutex<State>,
    changed: Condvar,
    /// Rises with every change of what is held.
    version: AtomicU64,
}

#[derive(Debug)]
struct State {
    now: UserRights,
    wanted: bool,
}

impl UserGrants {
    /// Holds what a user was given.
    #[must_use]
    pub const fn new(now: UserRights) -> Self {
        Self {
            state: Mutex::new(State { now, wanted: false }),
            changed: Condvar::new(),
            version: AtomicU64::new(1),
        }
    }

    /// Takes what the user was given now, in place of what it had.
    pub fn put(&self, now: UserRights) {
        self.lock().now = now;
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// The user has no rights on the log any more.
    pub fn withdraw(&self) {
        {
            let now = &mut self.lock().now;
            now.rights = Rights::NONE;
            now.grants.clear();
        }
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// What the user may do now.
    #[must_use]
    pub fn now(&self) -> UserRights {
        self.lock().now.clone()
    }

    /// The number that rises with every change.
    #[inline]
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Newer grants are wanted soon.
    pub(crate) fn want(&self) {
        self.lock().wanted = true;
        self.changed.notify_all();
    }

    /// Waits until newer grants are wanted, at most for `timeout`.
    pub fn wait(&self, timeout: Duration) {
        let state = self.lock();
        let idle = |state: &mut State| !state.wanted;
        let waited = self.changed.wait_timeout_while(state, timeout, idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.wanted = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What a thread left that panicked while it held the lock is whole: every change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn newer_grants_are_wanted_put_and_withdrawn() {
        let given = UserRights {
            rights: Rights::READ,
            ..UserRights::default()
        };
        let grants = Arc::new(UserGrants::new(given));
        grants.wait(Duration::ZERO);
        let (theirs, before) = (grants.clone(), grants.version());
        let keeper = std::thread::spawn(move || {
            theirs.wait(Duration::from_secs(600));
            theirs.put(UserRights {
                rights: Rights::CLIENT,
                ..UserRights::default()
            });
        });
        grants.want();
        while grants.version() == before {
            std::thread::yield_now();
        }
        assert_eq!(grants.now().rights, Rights::CLIENT);
        keeper.join().unwrap();
        grants.withdraw();
        assert_eq!(grants.now().rights, Rights::NONE);
    }
}
