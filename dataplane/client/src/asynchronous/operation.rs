//! One operation: a command on its way to the thread, then a promise on its way back.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use ionian_core::client::{Choice, Policy};
use ionian_types::{Frontiers, Gsn, ShardId, Time};

use super::stream::StreamState;
use super::{Shared, lock};
use crate::error::Error;
use crate::log::Appended;
use crate::reads::ReadOutcome;

/// What the thread is asked to do.
pub(super) enum Command {
    Append {
        payload: Vec<u8>,
        choice: Choice,
        reply: Reply<Appended>,
        /// When it was first refused for want of room or of a server.
        since: Option<Time>,
    },
    Read {
        gsn: Gsn,
        shard: Option<ShardId>,
        reply: Reply<ReadOutcome>,
    },
    Trim {
        upto: Gsn,
        reply: Reply<Gsn>,
    },
    Tail {
        reply: Reply<(Gsn, Frontiers)>,
    },
    Subscribe {
        from: Gsn,
        state: Arc<StreamState>,
    },
    Policy(Policy),
}

struct Promise<T> {
    value: Option<Result<T, Error>>,
    waker: Option<Waker>,
}

/// The thread's end of a promise. Dropped without an answer, it answers [`Error::Abandoned`].
pub(super) struct Reply<T>(Arc<Mutex<Promise<T>>>);

impl<T> Reply<T> {
    pub(super) fn send(self, value: Result<T, Error>) {
        self.set(value);
    }

    fn set(&self, value: Result<T, Error>) {
        let waker = {
            let mut promise = lock(&self.0);
            if promise.value.is_some() {
                return;
            }
            promise.value = Some(value);
            promise.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.set(Err(Error::Abandoned));
    }
}

/// A future of one operation. Dropped before its first poll, nothing happens; dropped later, the operation goes on and its
/// outcome is not told.
#[must_use = "an operation begins when its future is polled"]
pub struct Operation<T> {
    shared: Arc<Shared>,
    command: Option<Command>,
    promise: Arc<Mutex<Promise<T>>>,
}

impl<T> Operation<T> {
    pub(super) fn new(shared: Arc<Shared>, command: impl FnOnce(Reply<T>) -> Command) -> Self {
        let promise = Arc::new(Mutex::new(Promise {
            value: None,
            waker: None,
        }));
        let command = command(Reply(promise.clone()));
        Self {
            shared,
            command: Some(command),
            promise,
        }
    }
}

impl<T> std::fmt::Debug for Operation<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operation")
            .field("begun", &self.command.is_none())
            .finish_non_exhaustive()
    }
}

impl<T> Future for Operation<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(command) = this.command.take() {
            let mut queue = this.shared.lock();
            if queue.closed {
                return Poll::Ready(Err(Error::Closed));
            }
            if queue.commands.len() >= this.shared.max {
                queue.waiting.push(context.waker().clone());
                this.command = Some(command);
                return Poll::Pending;
            }
            let first = queue.commands.is_empty();
            queue.commands.push_back(command);
            drop(queue);
            if first {
                // Later ones find the thread awake: it takes the whole queue.
                (this.shared.waker)();
            }
        }
        let mut promise = lock(&this.promise);
        match promise.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                promise.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
