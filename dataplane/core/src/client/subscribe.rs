//! Subscriptions: one stream per shard, each from one replica at a time, restarted elsewhere when that fails.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BinaryHeap};
use alloc::vec::Vec;
use core::cmp::Reverse;

use ionian_types::{Gsn, Knobs, Nanos, ShardId, Time};
use ionian_wire::frame::{
    Body, DeliverEnd, MESSAGE_HEADER_BYTES, SubCredit, Subscribe, Unsubscribe,
};

use super::Client;
use super::api::{RequestError, Sink, SubscriptionId};
use super::config::ClientConfig;
use super::peers::PeerIx;
use super::stream::{Source, Stream};
use crate::outbox::Outbox;

const HEAD_BYTES: usize = MESSAGE_HEADER_BYTES + Subscribe::LEN;

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) id: SubscriptionId,
    /// The next position to deliver.
    pub(super) next: Gsn,
    pub(super) streams: Vec<Stream>,
    by_shard: BTreeMap<ShardId, u32>,
    /// The streams in which something waits, by the first position that does.
    pub(super) heap: BinaryHeap<Reverse<(Gsn, u32)>>,
    /// Trimmed up to here, not told to the application yet.
    pub(super) trimmed: Option<Gsn>,
    /// The application said: not now.
    pub(super) blocked: bool,
    /// Since when something waits that is not next, with nothing delivered.
    pub(super) stalled_since: Time,
}

#[derive(Debug)]
pub(super) struct Subscriptions {
    pub(super) list: Box<[Option<Subscription>]>,
    /// Which stream a name on the wire means: subscription, stream.
    pub(super) by_wire: BTreeMap<u32, (u32, u32)>,
    next_wire: u32,
    next_id: u32,
    /// Whether any stream has something to send.
    pub(super) dirty: bool,
    /// Streams of ended subscriptions whose servers are to be told.
    leave: Vec<Source>,
}

impl Subscriptions {
    pub(super) fn new(config: &ClientConfig) -> Self {
        Self {
            list: (0..config.subscriptions_max).map(|_| None).collect(),
            by_wire: BTreeMap::new(),
            next_wire: 0,
            next_id: 0,
            dirty: false,
            leave: Vec::new(),
        }
    }

    pub(super) fn index(&self, id: SubscriptionId) -> Option<usize> {
        let slot = id.0 as usize % self.list.len();
        self.list[slot]
            .as_ref()
            .filter(|sub| sub.id == id)
            .map(|_| slot)
    }

    fn new_wire(&mut self, sub: u32, stream: u32) -> u32 {
        loop {
            let wire = self.next_wire;
            self.next_wire = wire.wrapping_add(1);
            if let alloc::collections::btree_map::Entry::Vacant(entry) = self.by_wire.entry(wire) {
                entry.insert((sub, stream));
                return wire;
            }
        }
    }
}

impl<K: Knobs> Client<K> {
    /// Subscribes to every record and gap from `from` on, in the total order. Deliveries go to the sink given to
    /// [`Self::handle`] and [`Self::resume`]. Allocates the buffers of each shard's stream.
    ///
    /// # Errors
    /// [`RequestError`], effect none.
    pub fn subscribe(&mut self, now: Time, from: Gsn) -> Result<SubscriptionId, RequestError> {
        if self.closed {
            return Err(RequestError::Closed);
        }
        let subscriptions = &mut self.subscriptions;
        let max = subscriptions.list.len() as u32;
        let slot = subscriptions
            .list
            .iter()
            .position(Option::is_none)
            .ok_or(RequestError::Busy)?;
        // Numbers of one slot rise by the number of slots, so that a number tells its slot and is not used again.
        let round = subscriptions.next_id;
        subscriptions.next_id = round.wrapping_add(1) % (u32::MAX / max);
        let id = SubscriptionId(round * max + slot as u32);
        subscriptions.list[slot] = Some(Subscription {
            id,
            next: from,
            streams: Vec::new(),
            by_shard: BTreeMap::new(),
            heap: BinaryHeap::new(),
            trimmed: None,
            blocked: false,
            stalled_since: Time::FAR,
        });
        self.subscriptions_on_map(now);
        Ok(id)
    }

    /// Ends a subscription. Nothing of it is delivered any more.
    pub fn unsubscribe(&mut self, id: SubscriptionId) {
        let subscriptions = &mut self.subscriptions;
        let Some(slot) = subscriptions.index(id) else {
            return;
        };
        let Some(sub) = subscriptions.list[slot].take() else {
            return;
        };
        for stream in &sub.streams {
            for source in [stream.source, stream.leave].into_iter().flatten() {
                subscriptions.by_wire.remove(&source.wire);
                subscriptions.leave.push(source);
            }
        }
        subscriptions.dirty = true;
    }

    /// The next position that a subscription will deliver.
    #[must_use]
    pub fn next_gsn(&self, id: SubscriptionId) -> Option<Gsn> {
        let slot = self.subscriptions.index(id)?;
        self.subscriptions.list[slot].as_ref().map(|sub| sub.next)
    }

    /// Offers what waits to an application that said "not now" before, in order, until it says so again.
    pub fn resume<S: Sink>(&mut self, now: Time, id: SubscriptionId, sink: &mut S) {
        if let Some(slot) = self.subscriptions.index(id) {
            if let Some(sub) = &mut self.subscriptions.list[slot] {
                sub.blocked = false;
            }
            self.merge(now, slot, sink);
        }
    }

    /// Every subscription follows every shard of the map.
    pub(super) fn subscriptions_on_map(&mut self, now: Time) {
        let credit = self.config.subscribe_bytes_max;
        let backoff = self.config.backoff_min;
        let seed = self.config.seed as u32;
        for sub in self.subscriptions.list.iter_mut().flatten() {
            for (shard, _) in self.peers.shards() {
                let next = sub.streams.len() as u32;
                if *sub.by_shard.entry(shard).or_insert(next) == next {
                    // Spread over the replicas by seed and shard, so that clients do not all read from slot 0.
                    let cursor = seed.wrapping_add(shard.get()).wrapping_add(sub.id.0);
                    sub.streams
                        .push(Stream::new(shard, sub.next, credit, cursor, backoff));
                    sub.heap.reserve(1);
                }
            }
        }
        self.subscriptions.dirty = true;
        self.wake(now);
    }

    pub(super) fn flush_subscriptions(&mut self, now: Time, out: &mut Outbox) {
        if !self.subscriptions.dirty {
            return;
        }
        self.subscriptions.dirty = false;
        for slot in 0..self.subscriptions.list.len() {
            let streams = self.subscriptions.list[slot]
                .as_ref()
                .map_or(0, |sub| sub.streams.len());
            for at in 0..streams {
                if !self.flush_stream(now, slot, at, out) {
                    self.subscriptions.dirty = true;
                }
            }
        }
        while let Some(source) = self.subscriptions.leave.last().copied() {
            if !self.send_leave(source, out) {
                self.subscriptions.dirty = true;
                break;
            }
            self.subscriptions.leave.pop();
        }
    }

    fn send_leave(&self, source: Source, out: &mut Outbox) -> bool {
        let Some(conn) = self.peers.get(source.peer).conn else {
            return true;
        };
        out.room(conn) >= HEAD_BYTES
            && out
                .send(
                    conn,
                    &Unsubscribe {
                        subscription: source.wire,
                    },
                    &[],
                )
                .is_ok()
    }

    /// Sends what one stream has to send; `false` when some is left.
    fn flush_stream(&mut self, now: Time, slot: usize, at: usize, out: &mut Outbox) -> bool {
        let leave = self.subscriptions.list[slot]
            .as_ref()
            .and_then(|sub| sub.streams[at].leave);
        if leave.is_some_and(|source| !self.send_leave(source, out)) {
            return false;
        }
        let Some(sub) = &mut self.subscriptions.list[slot] else {
            return true;
        };
        let next = sub.next;
        let stream = &mut sub.streams[at];
        stream.leave = None;
        match stream.source {
            None if now < stream.retry_at => false,
            None => {
                let Some(peer) = self.peers.replica(now, stream.shard, stream.cursor) else {
                    return false;
                };
                let Some(conn) = self.peers.get(peer).conn else {
                    return false;
                };
                if out.room(conn) < HEAD_BYTES {
                    return false;
                }
                let (shard, entry) = (stream.shard, stream.entry);
                stream.received = stream.received.max(next);
                let from = stream.received;
                let wire = self.subscriptions.new_wire(slot as u32, at as u32);
                let Some(sub) = &mut self.subscriptions.list[slot] else {
                    return true;
                };
                let stream = &mut sub.streams[at];
                let credit_bytes = stream.start(Source { peer, wire });
                let log = self.config.log;
                let subscribe = Subscribe {
                    log,
                    shard,
                    subscription: wire,
                    from,
                    entry,
                    credit_bytes,
                };
                if out.send(conn, &subscribe, &[]).is_err() {
                    stream.source = None;
                    self.subscriptions.by_wire.remove(&wire);
                    return false;
                }
                true
            }
            Some(source) if stream.credit_due() => {
                let Some(conn) = self.peers.get(source.peer).conn else {
                    return true;
                };
                let credit_bytes = stream.allowance();
                let credit = SubCredit {
                    subscription: source.wire,
                    credit_bytes,
                };
                if out.room(conn) < HEAD_BYTES || out.send(conn, &credit, &[]).is_err() {
                    return false;
                }
                stream.granted = credit_bytes;
                true
            }
            Some(_) => true,
        }
    }

    /// Leaves the stream's server; the stream starts again where it stood, at another replica first.
    pub(super) fn restart_stream(&mut self, now: Time, slot: usize, at: usize, pause: bool) {
        let backoff_max = self.config.backoff_max;
        let Some(sub) = &mut self.subscriptions.list[slot] else {
            return;
        };
        let stream = &mut sub.streams[at];
        let Some(source) = stream.source.take() else {
            return;
        };
        stream.leave = Some(source);
        stream.cursor = stream.cursor.wrapping_add(1);
        stream.retry_at = now;
        if pause {
            stream.retry_at = now.after(stream.backoff);
            stream.backoff = Nanos((stream.backoff.0 * 2).min(backoff_max.0));
        }
        let retry_at = stream.retry_at;
        self.subscriptions.by_wire.remove(&source.wire);
        self.subscriptions.dirty = true;
        self.stats.stream_restarts += 1;
        self.wake(retry_at);
    }

    pub(super) fn subscriptions_on_disconnect(&mut self, now: Time, peer: PeerIx) {
        for slot in 0..self.subscriptions.list.len() {
            let streams = self.subscriptions.list[slot]
                .as_ref()
                .map_or(0, |sub| sub.streams.len());
            for at in 0..streams {
                let Some(sub) = &mut self.subscriptions.list[slot] else {
                    continue;
                };
                if sub.streams[at]
                    .source
                    .is_some_and(|source| source.peer == peer)
                {
                    self.restart_stream(now, slot, at, false);
                }
                if let Some(sub) = &mut self.subscriptions.list[slot] {
                    // The connection's end told it already.
                    sub.streams[at].leave =
                        sub.streams[at].leave.filter(|leave| leave.peer != peer);
                }
            }
        }
        self.subscriptions.leave.retain(|leave| leave.peer != peer);
    }

    pub(super) fn subscriptions_on_deadline(&mut self, now: Time) {
        let patience = self.config.rebind_after;
        let mut next = Time::FAR;
        for sub in self.subscriptions.list.iter().flatten() {
            for stream in &sub.streams {
                if stream.source.is_none() && stream.retry_at > now {
                    next = next.min(stream.retry_at);
                }
            }
            if sub.stalled_since != Time::FAR {
                let due = sub.stalled_since.after(patience);
                if now >= due {
                    // A shard that the map does not name yet may hold what is missing.
                    self.wants_map = true;
                    next = next.min(now.after(patience));
                } else {
                    next = next.min(due);
                }
            }
        }
        self.wake(next);
    }

    pub(super) fn on_deliver_end(&mut self, now: Time, peer: PeerIx, end: &DeliverEnd) {
        if let Some((slot, at)) = self.stream_of(peer, end.subscription) {
            self.wants_map = true;
            self.restart_stream(now, slot, at, true);
        }
    }

    /// The stream that a name on the wire means, if the message comes from its source.
    pub(super) fn stream_of(&self, peer: PeerIx, wire: u32) -> Option<(usize, usize)> {
        let (slot, at) = *self.subscriptions.by_wire.get(&wire)?;
        let sub = self.subscriptions.list[slot as usize].as_ref()?;
        let source = sub.streams.get(at as usize)?.source?;
        (source == Source { peer, wire }).then_some((slot as usize, at as usize))
    }
}
