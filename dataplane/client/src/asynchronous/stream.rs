//! An asynchronous subscription: a bounded queue between the thread and one task.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::{Shared, lock};
use crate::subscription::{Delivery, DeliveryRef};

/// Deliveries kept for a task; beyond, the machine keeps them, and then the servers.
const DELIVERIES_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct StreamState {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Delivery>,
    waker: Option<Waker>,
    /// A delivery was turned away for want of room.
    full: bool,
    /// The task took enough that the thread should offer again.
    resume: bool,
    ended: bool,
    dropped: bool,
}

impl StreamState {
    /// Takes a delivery, if there is room.
    pub(super) fn offer(&self, delivery: &DeliveryRef<'_>) -> bool {
        let mut state = lock(&self.state);
        if state.ready.len() >= DELIVERIES_MAX {
            state.full = true;
            return false;
        }
        state.ready.push_back(delivery.to_owned());
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Whether the thread should offer what it kept. Asked once per round.
    pub(super) fn take_resume(&self) -> bool {
        std::mem::take(&mut lock(&self.state).resume)
    }

    pub(super) fn is_dropped(&self) -> bool {
        lock(&self.state).dropped
    }

    /// No more will come.
    pub(super) fn end(&self) {
        let waker = {
            let mut state = lock(&self.state);
            state.ended = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Every record and gap from a position on, in the total order. Ends when dropped.
#[derive(Debug)]
pub struct AsyncSubscription {
    state: Arc<StreamState>,
    shared: Arc<Shared>,
}

impl AsyncSubscription {
    pub(super) fn new(state: Arc<StreamState>, shared: Arc<Shared>) -> Self {
        Self { state, shared }
    }

    /// The next delivery; `None` once the client was closed or had too many subscriptions.
    pub fn next_delivery(&mut self) -> NextDelivery<'_> {
        NextDelivery { subscription: self }
    }
}

impl Drop for AsyncSubscription {
    fn drop(&mut self) {
        lock(&self.state.state).dropped = true;
        (self.shared.waker)();
    }
}

/// A future of the next delivery.
#[must_use = "nothing is taken before the future is polled"]
#[derive(Debug)]
pub struct NextDelivery<'a> {
    subscription: &'a AsyncSubscription,
}

impl Future for NextDelivery<'_> {
    type Output = Option<Delivery>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        let mut state = lock(&self.subscription.state.state);
        let Some(delivery) = state.ready.pop_front() else {
            if state.ended {
                return Poll::Ready(None);
            }
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        // Half empty is soon enough that the task does not run dry, and seldom enough that waking costs little.
        if state.full && state.ready.len() <= DELIVERIES_MAX / 2 {
            state.full = false;
            state.resume = true;
            drop(state);
            (self.subscription.shared.waker)();
        }
        Poll::Ready(Some(delivery))
    }
}
