//! Control messages into a reactor, from any thread: bounded, and waking the reactor if it sleeps.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use ionian_driver_api::Wake;

use crate::reactor::WakeHandle;

/// The sending end. Clones share the mailbox.
#[derive(Debug)]
pub struct MailboxSender<T> {
    queue: Arc<ArrayQueue<T>>,
    wake: WakeHandle,
}

/// The receiving end, for the poller that owns it. Its `try_sleep` answers `is_empty()`.
#[derive(Debug)]
pub struct MailboxReceiver<T> {
    queue: Arc<ArrayQueue<T>>,
}

/// A mailbox of at most `capacity` messages into the reactor that `wake` wakes.
///
/// # Panics
///
/// If the capacity is zero.
#[must_use]
pub fn mailbox<T>(capacity: usize, wake: WakeHandle) -> (MailboxSender<T>, MailboxReceiver<T>) {
    let queue = Arc::new(ArrayQueue::new(capacity));
    (
        MailboxSender {
            queue: queue.clone(),
            wake,
        },
        MailboxReceiver { queue },
    )
}

impl<T> Clone for MailboxSender<T> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            wake: self.wake.clone(),
        }
    }
}

impl<T> MailboxSender<T> {
    /// Sends a message and wakes the reactor if it sleeps.
    ///
    /// # Errors
    ///
    /// Hands the message back when the mailbox is full: backpressure. Effect: none.
    pub fn send(&self, message: T) -> Result<(), T> {
        self.queue.push(message)?;
        self.wake.wake();
        Ok(())
    }
}

impl<T> MailboxReceiver<T> {
    /// Takes the oldest message.
    #[must_use]
    pub fn receive(&self) -> Option<T> {
        self.queue.pop()
    }

    /// Whether no message waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
