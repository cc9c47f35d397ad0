//! The client machine of one log: appends with exactly one position each, reads, and subscriptions in the total order.
//!
//! * `append` — records wait in *lanes*; each lane is bound to one server's generation at a time and numbers its records
//!   densely, so that a repeat is recognised. A lane that must move first learns the fate of every record it sent
//!   (ORDERING.md 3.1, 3.2).
//! * `request` — tail, read and trim, asked again elsewhere until answered or out of time.
//! * `subscribe` — one stream per shard, merged by the next expected position.
//!
//! Fault model: connections break and come back, servers die, restart and lag, messages repeat. Peers' bytes are untrusted:
//! what contradicts the machine's own state is counted and dropped. A server that lies about positions is believed, unless
//! a checksum shows it; the log's servers are trusted for that.
//!
//! Nothing is ever sent from `handle`: everything goes out from [`Client::flush`], as far as the connections have room.

mod api;
mod append;
mod bind;
mod config;
mod deadline;
mod fate;
mod lane;
mod merge;
mod peers;
mod ranges;
mod read;
mod request;
mod ring;
mod stream;
mod subscribe;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::marker::PhantomData;

use ionian_types::{
    ClientSeq, ConnId, EntryNo, Inc, Knobs, NodeId, SegmentId, SessionNo, ShardId, Shipped, Slot,
    Time, ViewId,
};
use ionian_wire::WIRE_VERSION;
use ionian_wire::directory::ClusterMap;
use ionian_wire::frame::{Hello, Message, Role};

use crate::outbox::{Full, Outbox};

pub use api::{
    Answer, AppendError, AppendFailure, Choice, ClientStats, Completion, Outcome, PeerKind, Policy,
    RecordRun, RequestError, RequestId, RunRecords, Sink, SubscriptionId, Ticket,
};
pub use config::{ClientConfig, ConfigError};

use lane::Lane;
use peers::Peers;
use request::Requests;
use subscribe::Subscriptions;

/// The client machine of one log.
#[derive(Debug)]
pub struct Client<K: Knobs = Shipped> {
    config: ClientConfig,
    peers: Peers,
    policy: Policy,
    lanes: Vec<Lane>,
    sessions: BTreeMap<SessionNo, u32>,
    next_session: SessionNo,
    sticky: Option<u32>,
    by_segment: BTreeMap<SegmentId, u32>,
    by_shard: BTreeMap<ShardId, u32>,
    turn: usize,
    completions: VecDeque<Completion>,
    /// Records taken and not polled as completed yet.
    outstanding: u32,
    requests: Requests,
    subscriptions: Subscriptions,
    deadline: Time,
    wants_map: bool,
    closed: bool,
    stats: ClientStats,
    knobs: PhantomData<K>,
}

impl Client {
    /// Makes a machine that knows nobody yet: give it a map and connections.
    ///
    /// # Errors
    /// [`ConfigError`], effect none.
    pub fn new(config: ClientConfig) -> Result<Self, ConfigError> {
        Self::with_knobs(config)
    }
}

impl<K: Knobs> Client<K> {
    /// As [`Client::new`], for machines that do not ship.
    ///
    /// # Errors
    /// [`ConfigError`], effect none.
    pub fn with_knobs(config: ClientConfig) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            peers: Peers::new(config.connections_max),
            policy: Policy::Sticky,
            lanes: Vec::with_capacity(config.lanes_max),
            sessions: BTreeMap::new(),
            next_session: SessionNo::ZERO,
            sticky: None,
            by_segment: BTreeMap::new(),
            by_shard: BTreeMap::new(),
            turn: config.seed as usize,
            completions: VecDeque::with_capacity(config.outstanding_max as usize),
            outstanding: 0,
            requests: Requests::new(&config),
            subscriptions: Subscriptions::new(&config),
            deadline: Time::FAR,
            wants_map: true,
            closed: false,
            stats: ClientStats::default(),
            knobs: PhantomData,
            config,
        })
    }

    /// Takes over a cluster map, if it is newer than the one known. Allocates for shards not seen before.
    pub fn set_map(&mut self, now: Time, map: &ClusterMap) {
        if !self.peers.set_map(map, self.config.log) {
            return;
        }
        self.wants_map = false;
        self.peers.want(now, peers::ROOT);
        self.lanes_on_map(now);
        self.subscriptions_on_map(now);
        self.wake(now);
    }

    /// The version of the map known, `None` before the first one.
    #[must_use]
    pub fn map_version(&self) -> Option<u64> {
        self.peers.version
    }

    /// Whether something suggests that the map is out of date: the edge should ask the directory, at a pace of its own.
    #[must_use]
    pub fn wants_map(&self) -> bool {
        self.wants_map
    }

    /// The peers that the machine needs a connection to. The edge opens them, and opens them again when they break.
    pub fn wanted_peers(&self) -> impl Iterator<Item = PeerKind> {
        self.peers.wanted()
    }

    /// Rises whenever [`Self::wanted_peers`] has a new member.
    #[must_use]
    pub fn wanted_version(&self) -> u64 {
        self.peers.wanted_version
    }

    /// A connection to a peer is open; greets it. A connection that the same peer had before counts as broken.
    ///
    /// # Errors
    /// [`Full`] when the outbox has no room for the greeting, or for a connection number beyond `connections_max`: the
    /// connection is then not used.
    pub fn connected(
        &mut self,
        now: Time,
        conn: ConnId,
        peer: PeerKind,
        out: &mut Outbox,
    ) -> Result<(), Full> {
        self.disconnected(now, conn);
        out.send(conn, &self.hello(), &[])?;
        let before = self.peers.connection_of(peer);
        if let Some(before) = before {
            self.disconnected(now, before);
        }
        let ix = self.peers.connect(now, conn, peer).ok_or(Full)?;
        self.lanes_on_connect(now, ix);
        self.subscriptions.dirty = true;
        self.wake(now);
        Ok(())
    }

    /// A connection is gone. What it carried and was not answered may or may not have arrived.
    pub fn disconnected(&mut self, now: Time, conn: ConnId) {
        if let Some(ix) = self.peers.disconnect(now, conn) {
            // Another member of the root group may lead now.
            self.wants_map |= ix == peers::ROOT;
            self.lanes_on_disconnect(now, ix);
            self.requests_on_disconnect(ix);
            self.subscriptions_on_disconnect(now, ix);
            self.wake(now);
        }
    }

    /// Takes a message of a connection. Deliveries in order go to `sink` at once, straight from the message.
    pub fn handle<S: Sink>(
        &mut self,
        now: Time,
        conn: ConnId,
        message: &Message<'_>,
        sink: &mut S,
    ) {
        let Some(peer) = self.peers.by_conn(conn) else {
            self.stats.bad_messages += 1;
            return;
        };
        match message {
            Message::AppendAck(ack, _) => self.on_ack(now, peer, ack),
            Message::Deliver(deliver, records) => {
                self.on_deliver(now, peer, deliver, records, sink);
            }
            Message::AppendRefused(refused, _) => self.on_refused(now, peer, refused),
            Message::SessionClosed(closed, _) => self.on_session_closed(now, peer, closed),
            Message::FateAnswer(answer, _) => self.on_fate(now, peer, answer),
            Message::TailAnswer(answer, _) => self.on_tail(peer, answer),
            Message::LocateAnswer(answer, _) => self.on_located(now, peer, answer),
            Message::ReadAnswer(answer, record) => self.on_read(now, peer, answer, record),
            Message::TrimAnswer(answer, _) => self.on_trim(peer, answer),
            Message::DeliverGap(gap, _) => self.on_deliver_gap(now, peer, gap, sink),
            Message::DeliverEnd(end, _) => self.on_deliver_end(now, peer, end),
            Message::Hello(hello, _) => self.on_hello(now, conn, peer, hello),
            _ => self.stats.bad_messages += 1,
        }
    }

    /// Sends what there is to send, as far as connections and outbox have room. Call it after every batch of inputs, and
    /// again after the outbox was carried.
    pub fn flush(&mut self, now: Time, out: &mut Outbox) {
        self.flush_lanes(now, out);
        self.flush_requests(now, out);
        self.flush_subscriptions(now, out);
    }

    /// When [`Self::on_deadline`] wants to be called, at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        self.deadline
    }

    /// Takes no more appends, requests and subscriptions; what is open goes on.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Appends taken whose completion was not polled yet.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &ClientStats {
        &self.stats
    }

    /// What the machine was made with.
    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// Asks for a call of `on_deadline` at `at`.
    fn wake(&mut self, at: Time) {
        self.deadline = self.deadline.min(at);
    }

    fn hello(&self) -> Hello {
        Hello {
            cluster: self.config.cluster,
            wire_version: WIRE_VERSION,
            role: Role::Client,
            node: NodeId::ZERO,
            inc: Inc::ZERO,
            log: self.config.log,
            shard: ShardId::ZERO,
            slot: Slot::ZERO,
            epoch: ViewId::ZERO,
            last: EntryNo::ZERO,
            client: self.config.client,
            session: SessionNo::ZERO,
        }
    }

    /// A peer that is not who it should be is not used: everything would go to the wrong place.
    fn on_hello(&mut self, now: Time, conn: ConnId, peer: peers::PeerIx, hello: &Hello) {
        let right = match self.peers.get(peer).kind {
            PeerKind::Root => hello.role == Role::Root,
            PeerKind::Replica { shard, slot } => {
                hello.role == Role::Replica && hello.shard == shard && hello.slot == slot
            }
        };
        let same = hello.cluster == self.config.cluster && hello.wire_version == WIRE_VERSION;
        if !(right && same && hello.log == self.config.log) {
            self.stats.bad_messages += 1;
            self.wants_map = true;
            self.disconnected(now, conn);
        }
    }
}

/// The sequence number after a run, when it is one.
fn run_end(first: ClientSeq, count: u32) -> Option<ClientSeq> {
    if count == 0 {
        return None;
    }
    first.checked_add(u64::from(count))
}
