//! What ends the sleep of the agent's thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

/// A bell that any thread may ring. A ring is kept until it is heard.
#[derive(Clone, Default, Debug)]
pub(crate) struct Bell(Arc<Inner>);

#[derive(Default, Debug)]
struct Inner {
    rung: AtomicBool,
    stopped: AtomicBool,
    owner: OnceLock<Thread>,
}

impl Bell {
    /// The calling thread is the one that waits.
    pub(crate) fn belongs_here(&self) {
        let _ = self.0.owner.set(thread::current());
    }

    /// Rings the bell when called.
    pub(crate) fn ringer(&self) -> impl Fn() + Send + Sync + 'static {
        let bell = self.clone();
        move || bell.ring()
    }

    fn ring(&self) {
        self.0.rung.store(true, Ordering::Release);
        if let Some(owner) = self.0.owner.get() {
            owner.unpark();
        }
    }

    /// The thread is to end.
    pub(crate) fn stop(&self) {
        self.0.stopped.store(true, Ordering::Release);
        self.ring();
    }

    /// Whether the thread is to end.
    pub(crate) fn stopped(&self) -> bool {
        self.0.stopped.load(Ordering::Acquire)
    }

    /// Waits for a ring, or for a time.
    pub(crate) fn wait(&self, at_most: Option<Duration>) {
        while !self.0.rung.swap(false, Ordering::AcqRel) {
            match at_most {
                // Waking too early costs a look.
                Some(span) => return thread::park_timeout(span),
                None => thread::park(),
            }
        }
    }
}
