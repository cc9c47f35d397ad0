//! The "I am about to sleep" flag, and the handshake that loses no wake-up.
//!
//! ```text
//! sleeper:  asleep = true;  fence;  look at the index again;  sleep only if nothing is there
//! waker:    index = new;    fence;  if asleep { asleep = false; wake }
//! ```
//!
//! With a sequentially consistent fence on both sides, at least one of them sees the other's store: either the sleeper
//! finds the new index and stays up, or the waker finds the flag and wakes. Both may happen; then the wake-up is
//! spurious, which is harmless. The waker clears the flag, so that one sleep costs one wake-up.
//!
//! Every change of the flag is a swap: both sides change it, and a chain of swaps has one order that everybody agrees on.
//! (Plain stores by the sleeper would do on the language's memory model, but loom 0.7 does not follow the order of a
//! store after another thread's swap, and could not check the handshake.) A swap costs nothing next to a sleep.

use crate::sync::{AtomicBool, Ordering, fence};

#[derive(Debug)]
pub(crate) struct SleepFlag(AtomicBool);

impl SleepFlag {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Sleeper: announces the sleep. The caller must look for work again afterwards.
    pub(crate) fn arm(&self) {
        self.0.swap(true, Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    /// Sleeper: is up.
    pub(crate) fn disarm(&self) {
        self.0.swap(false, Ordering::AcqRel);
    }

    /// Waker, after publishing its index: whether the sleeper must be woken. True once per sleep.
    pub(crate) fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::AcqRel)
    }
}
