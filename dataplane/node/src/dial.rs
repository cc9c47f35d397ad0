//! Sessions that a place keeps open to places in other processes: when each is tried, and its first message.

use std::net::SocketAddr;

use ionian_types::{ClusterId, Inc, LogId, Nanos, NodeId, ShardId, Slot, Time};
use ionian_wire::frame::{Connect, Role, encode};

use crate::role::Place;

/// The pause before a connection is tried again; it doubles with each try that led to nothing, up to the longest.
const RETRY: Nanos = Nanos::from_ms(100);
const RETRY_MAX: Nanos = Nanos::from_ms(800);
/// A connection that lasted this long was a good one.
const GOOD: Nanos = Nanos::from_ms(1_000);

/// When a connection that is wanted is tried next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    due: Time,
    pause: Nanos,
    tried: Time,
}

impl Backoff {
    /// Due at once.
    pub(crate) const fn new() -> Self {
        Self {
            due: Time::ZERO,
            pause: RETRY,
            tried: Time::ZERO,
        }
    }

    pub(crate) const fn due_at(&self) -> Time {
        self.due
    }

    /// A try begins.
    pub(crate) fn tried(&mut self, now: Time) {
        self.tried = now;
        self.due = now.after(self.pause);
    }

    /// What the try led to is over.
    pub(crate) fn ended(&mut self, now: Time) {
        if now.since(self.tried) >= GOOD {
            self.pause = RETRY;
        }
        self.due = now.after(self.pause);
        self.pause = Nanos((self.pause.0 * 2).min(RETRY_MAX.0));
    }

    /// There is nobody to try until there is news.
    pub(crate) const fn wait_for_news(&mut self) {
        self.due = Time::FAR;
    }

    /// There is news of the other end.
    pub(crate) const fn news(&mut self) {
        *self = Self::new();
    }
}

/// One session to keep.
#[derive(Debug)]
pub(crate) struct Dial {
    pub(crate) from: Place,
    pub(crate) to: Place,
    pub(crate) to_controller: bool,
    /// The node that `to` is on, and where.
    pub(crate) node: NodeId,
    pub(crate) address: SocketAddr,
    /// The life at the other end, as far as the map says.
    pub(crate) inc: Inc,
    /// The session, while there is one.
    pub(crate) session: Option<u32>,
    pub(crate) backoff: Backoff,
}

impl Dial {
    pub(crate) const fn new(from: Place, far: Far) -> Self {
        Self {
            from,
            to: far.to,
            to_controller: matches!(far.to, Place::Directory),
            node: far.node,
            address: far.address,
            inc: far.inc,
            session: None,
            backoff: Backoff::new(),
        }
    }

    pub(crate) fn is_due(&self, now: Time) -> bool {
        now >= self.due_at()
    }

    pub(crate) const fn due_at(&self) -> Time {
        if self.session.is_none() {
            self.backoff.due_at()
        } else {
            Time::FAR
        }
    }
}

/// A place of another process, as one to keep a session with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Far {
    pub(crate) to: Place,
    pub(crate) node: NodeId,
    pub(crate) address: SocketAddr,
    /// 0 where nobody knows.
    pub(crate) inc: Inc,
}

/// Encodes the message that names the place wanted.
pub(crate) fn connect_message(to: Place, out: &mut [u8]) -> usize {
    let (role, log, shard, slot) = match to {
        Place::Directory => (Role::Controller, LogId::ZERO, ShardId::ZERO, Slot::ZERO),
        Place::Root(log, slot) => (Role::Root, log, ShardId::ZERO, slot),
        Place::Leaf(log) => (Role::Leaf, log, ShardId::ZERO, Slot::ZERO),
        Place::Replica(log, shard, slot) => (Role::Replica, log, shard, slot),
    };
    let connect = Connect {
        cluster: ClusterId::default(),
        role,
        log,
        shard,
        slot,
    };
    encode(out, &connect, &[]).expect("the message has a fixed length below 64 bytes")
}

/// The place that a first message names.
pub(crate) const fn place_of(connect: &Connect) -> Option<Place> {
    match connect.role {
        Role::Controller => Some(Place::Directory),
        Role::Root => Some(Place::Root(connect.log, connect.slot)),
        Role::Leaf => Some(Place::Leaf(connect.log)),
        Role::Replica => Some(Place::Replica(connect.log, connect.shard, connect.slot)),
        Role::Aggregator | Role::Client => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_that_lead_to_nothing_become_rare_and_news_ends_that() {
        let mut backoff = Backoff::new();
        let mut now = Time::from_ns(1);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            assert!(backoff.due_at() <= now);
            backoff.tried(now);
            backoff.ended(now);
            pauses.push(backoff.due_at().since(now).0 / 1_000_000);
            now = backoff.due_at();
        }
        assert_eq!(pauses, [100, 200, 400, 800, 800, 800]);
        backoff.tried(now);
        now = now.after(GOOD);
        backoff.ended(now);
        assert_eq!(backoff.due_at().since(now), RETRY, "it was a good one");
        backoff.wait_for_news();
        assert_eq!(backoff.due_at(), Time::FAR);
        backoff.news();
        assert!(backoff.due_at() <= now);
    }
}
