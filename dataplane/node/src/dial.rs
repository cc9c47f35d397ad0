//! Sessions that a place keeps open to places in other processes: when each is tried, and its first message.

use std::net::SocketAddr;

use ionian_types::{ClusterId, Inc, LogId, Nanos, NodeId, ShardId, Slot, Time, VertexId};
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

/// The message that names a place.
pub(crate) const fn wanted(to: Place) -> Connect {
    let named = Connect {
        cluster: ClusterId::new(0),
        role: Role::Controller,
        log: LogId::ZERO,
        shard: ShardId::ZERO,
        slot: Slot::ZERO,
        vertex: VertexId::ZERO,
    };
    let (role, log) = match to {
        Place::Directory => return named,
        Place::Root(log, _) => (Role::Root, log),
        Place::Leaf(log, _) => (Role::Leaf, log),
        Place::Aggregator(log, _) => (Role::Aggregator, log),
        Place::Replica(log, ..) => (Role::Replica, log),
    };
    let named = Connect { role, log, ..named };
    match to {
        Place::Root(_, slot) => Connect { slot, ..named },
        Place::Leaf(_, vertex) | Place::Aggregator(_, vertex) => Connect { vertex, ..named },
        Place::Replica(_, shard, slot) => Connect {
            shard,
            slot,
            ..named
        },
        Place::Directory => named,
    }
}

/// Encodes the message that names the place wanted.
pub(crate) fn connect_message(to: Place, out: &mut [u8]) -> usize {
    encode(out, &wanted(to), &[]).expect("the message has a fixed length below 64 bytes")
}

/// The place that a first message names.
pub(crate) const fn place_of(connect: &Connect) -> Option<Place> {
    match connect.role {
        Role::Controller => Some(Place::Directory),
        Role::Root => Some(Place::Root(connect.log, connect.slot)),
        Role::Leaf => Some(Place::Leaf(connect.log, connect.vertex)),
        Role::Aggregator => Some(Place::Aggregator(connect.log, connect.vertex)),
        Role::Replica => Some(Place::Replica(connect.log, connect.shard, connect.slot)),
        Role::Client => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_named_by_its_message() {
        let (log, vertex) = (LogId::new(3), VertexId::new(7));
        let places = [
            Place::Directory,
            Place::Root(log, Slot::new(2)),
            Place::Leaf(log, vertex),
            Place::Aggregator(log, vertex),
            Place::Replica(log, ShardId::new(5), Slot::new(1)),
        ];
        for place in places {
            assert_eq!(place_of(&wanted(place)), Some(place));
        }
    }

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
