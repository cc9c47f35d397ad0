//! The replica of a shard (ORDERING.md, REPLICA): stores its own segment and its peers', reports, applies the entries that
//! touch its shard, acknowledges, serves reads.
//!
//! One file per concern: `append` (clients' records), `replicate` (peers), `promise` (room ahead), `apply` (cuts, views, losses), `catchup` (what
//! was missed: entries, copies), `repair` (damaged records), `adopt` and `image` (a peer's whole state), `read`, `subscribe`,
//! `fate`, `restart`, `ended` (what a replica says of a shard that has ended). This file holds the state, the dispatch of messages and the flush that sends everything cumulative.

mod adopt;
mod append;
mod apply;
mod catchup;
mod config;
mod ended;
mod fate;
mod image;
mod promise;
mod read;
mod repair;
mod replicate;
mod report;
mod restart;
mod retention;
mod seen;
mod status;
mod subscribe;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::marker::PhantomData;

use ionian_store::Store;
use ionian_types::{
    ClientId, ConnId, EntryNo, Gsn, GsnRange, Inc, Knobs, Lsn, Mutant, SEGMENTS_PER_SHARD_MAX,
    SegmentId, SessionNo, Shipped, Slot, Time, ViewId,
};
use ionian_wire::WIRE_VERSION;
use ionian_wire::frame::{CopyRequest, Hello, Message, Role, StateRequest};

use crate::cutlog::{SegmentState, ShardState};
use crate::dedup::Dedup;
use crate::index::{Run, RunIndex};
use crate::outbox::Outbox;

pub use adopt::Stranded;
pub use config::{ReplicaConfig, ReplicaTiming};
pub use image::Image;
pub use status::{ReplicaCounters, ReplicaStatus};

/// What is at the other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Not said yet, or not connected.
    Unknown,
    Client,
    Peer(Slot),
    Leaf,
    Root,
    Controller,
}

/// Another replica of the shard.
#[derive(Clone, Copy, Debug)]
struct Peer {
    conn: Option<ConnId>,
    inc: Inc,
    /// What the peer last said that it holds of the own segment: the generation it has entered, and the length. It may have
    /// entered a view before this replica does.
    have: Option<(ViewId, Lsn)>,
    /// The own generation that is streamed to it, and the position below which everything was sent.
    stream: Option<ViewId>,
    sent: Lsn,
    /// Tell the peer how much of its segment is held.
    have_due: bool,
    /// Bytes of its segment that came when there was no room: it is told only when they would fit.
    stalled_bytes: usize,
    /// What the peer was told to be taken of its segment.
    told: Option<promise::Told>,
    /// What the peer said last to take of the own segment: generation, length, credit; and the charge that follows.
    grant: Option<(ViewId, Lsn, u64)>,
    ceiling: Option<u64>,
    /// What it asked for, per segment. Answered by `flush`: between replicas no message is answered at once, so that two
    /// of them whose connection is full in both directions cannot wait for each other.
    copies: [Option<CopyRequest>; SEGMENTS_PER_SHARD_MAX],
    state_request: Option<StateRequest>,
    /// When it was last connected.
    seen: Time,
}

/// Own records that wait for a cut, in the order of their positions.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    session: u32,
    position: Lsn,
    count: u64,
}

/// The replica.
#[derive(Debug)]
pub struct Replica<K: Knobs = Shipped> {
    config: ReplicaConfig,
    store: Store,
    /// The shard as of `applied`; `None` before its first view.
    state: Option<ShardState>,
    applied: EntryNo,
    /// No entry in (`applied`, `complete`] touches the shard.
    complete: EntryNo,
    /// The end of the order at `complete`.
    end_gsn: Gsn,
    /// The trim known, and the trim carried out.
    trim: Gsn,
    head: Gsn,
    index: RunIndex,
    losses: Vec<GsnRange>,
    dedup: Vec<Dedup>,
    /// Per segment: the generation of the last record held.
    tail_generation: [ViewId; SEGMENTS_PER_SHARD_MAX],
    /// Per segment: the dedup set saw every record from here on, and up to there.
    dedup_from: [Lsn; SEGMENTS_PER_SHARD_MAX],
    dedup_upto: [Lsn; SEGMENTS_PER_SHARD_MAX],
    waiters: VecDeque<Waiter>,
    ack_ready: Vec<u32>,
    last_own_run: Option<Run>,
    progress_at: Time,
    flushed_at: Time,
    peers: [Peer; SEGMENTS_PER_SHARD_MAX],
    /// There was no room for the last append.
    full: bool,
    room: promise::Room,
    leaves: report::Leaves,
    root: Option<ConnId>,
    desk: ended::Desk,
    conns: Vec<Kind>,
    close: Vec<ConnId>,
    reported: [Lsn; SEGMENTS_PER_SHARD_MAX],
    reported_applied: EntryNo,
    report_seq: u64,
    report_at: Time,
    /// When the device was last asked whether it has space again.
    space_at: Time,
    applied_durable: EntryNo,
    journaled: VecDeque<(u64, EntryNo)>,
    /// Since when entries wait for the device, or when it was last asked to take them.
    journal_urged_at: Option<Time>,
    checkpoint: Vec<u8>,
    checkpoint_at: u64,
    catchup: catchup::CatchUp,
    adoption: Option<Box<adopt::Adoption>>,
    /// Per peer: the state that is being sent to it.
    handovers: Vec<Option<adopt::Handover>>,
    retention_at: Time,
    draining: bool,
    reads: Vec<read::Waiting>,
    subscriptions: Vec<subscribe::Subscription>,
    scratch: Vec<u8>,
    counters: ReplicaCounters,
    knobs: PhantomData<K>,
}

impl<K: Knobs> Replica<K> {
    /// A replica over a store that is ready: new, or recovered.
    ///
    /// # Panics
    /// If the slot is not one of the shard's, or there are more replicas than [`SEGMENTS_PER_SHARD_MAX`].
    #[must_use]
    pub fn new(config: ReplicaConfig, store: Store, now: Time) -> Self {
        let replicas = usize::from(config.replicas);
        assert!(
            config.slot.index() < replicas && replicas <= SEGMENTS_PER_SHARD_MAX,
            "a slot of the shard"
        );
        let peer = Peer {
            conn: None,
            inc: Inc::ZERO,
            have: None,
            stream: None,
            sent: Lsn::ZERO,
            have_due: false,
            stalled_bytes: 0,
            told: None,
            grant: None,
            ceiling: None,
            copies: [None; SEGMENTS_PER_SHARD_MAX],
            state_request: None,
            seen: now,
        };
        let room = promise::Room::new(store.charge(config.run_bytes_max));
        let mut replica = Self {
            config,
            store,
            state: None,
            applied: EntryNo::ZERO,
            complete: EntryNo::ZERO,
            end_gsn: Gsn::ZERO,
            trim: Gsn::ZERO,
            head: Gsn::ZERO,
            index: RunIndex::new(replicas, config.cuts_ready),
            losses: Vec::new(),
            dedup: (0..replicas).map(|_| Dedup::new()).collect(),
            tail_generation: [ViewId::ZERO; SEGMENTS_PER_SHARD_MAX],
            dedup_from: [Lsn::ZERO; SEGMENTS_PER_SHARD_MAX],
            dedup_upto: [Lsn::ZERO; SEGMENTS_PER_SHARD_MAX],
            waiters: VecDeque::with_capacity(1 << 16),
            ack_ready: Vec::with_capacity(1024),
            last_own_run: None,
            progress_at: now,
            flushed_at: now,
            peers: [peer; SEGMENTS_PER_SHARD_MAX],
            full: false,
            room,
            leaves: report::Leaves::default(),
            root: None,
            desk: ended::Desk::default(),
            conns: Vec::with_capacity(1024),
            close: Vec::new(),
            reported: [Lsn::ZERO; SEGMENTS_PER_SHARD_MAX],
            reported_applied: EntryNo::ZERO,
            report_seq: 0,
            report_at: now,
            space_at: now,
            applied_durable: EntryNo::ZERO,
            journaled: VecDeque::with_capacity(1 << 12),
            journal_urged_at: None,
            checkpoint: Vec::new(),
            checkpoint_at: 0,
            catchup: catchup::CatchUp::new(now),
            adoption: None,
            handovers: (0..replicas).map(|_| None).collect(),
            retention_at: now,
            draining: false,
            reads: Vec::with_capacity(64),
            subscriptions: Vec::with_capacity(64),
            scratch: Vec::with_capacity(4096),
            counters: ReplicaCounters::default(),
            knobs: PhantomData,
        };
        replica.restore();
        replica
    }

    /// The store, for executing its block operations and reading the bodies of envelopes.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The store, for completing block operations.
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Takes no more appends: the process is about to end. Everything else goes on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// What this replica is.
    #[must_use]
    pub fn config(&self) -> &ReplicaConfig {
        &self.config
    }

    /// A connection opened; say who this is.
    pub fn opened(&mut self, conn: ConnId, out: &mut Outbox) {
        self.set_kind(conn, Kind::Unknown);
        let hello = Hello {
            cluster: self.config.cluster,
            wire_version: WIRE_VERSION,
            role: Role::Replica,
            node: self.config.node,
            inc: self.config.inc,
            log: self.config.log,
            shard: self.config.shard,
            slot: self.config.slot,
            epoch: self.epoch(),
            last: self.applied,
            client: ClientId::default(),
            session: SessionNo::ZERO,
        };
        // A new connection has room for its first message.
        let _ = out.send(conn, &hello, &[]);
    }

    /// A connection is gone.
    pub fn closed(&mut self, now: Time, conn: ConnId) {
        match self.kind(conn) {
            Kind::Client => {
                // A connection carries every session of its client, and its number will be another client's.
                let own = self.config.slot.index();
                self.dedup[own].for_each_mut(|_, session| {
                    if session.conn == Some(conn) {
                        session.conn = None;
                    }
                });
                self.reads.retain(|read| read.conn != conn);
                self.subscriptions
                    .retain(|subscription| subscription.conn != conn);
            }
            Kind::Peer(slot) => {
                let peer = &mut self.peers[slot.index()];
                if peer.conn == Some(conn) {
                    peer.conn = None;
                    peer.have = None;
                    peer.stream = None;
                    peer.state_request = None;
                    peer.seen = now;
                    self.handovers[slot.index()] = None;
                    self.settle_limit();
                }
            }
            Kind::Leaf => self.leaves.gone(conn),
            Kind::Root if self.root == Some(conn) => self.root = None,
            Kind::Controller => self.not_governed(conn),
            Kind::Root | Kind::Unknown => {}
        }
        self.set_kind(conn, Kind::Unknown);
        // Its number will be another connection's.
        self.close.retain(|closing| *closing != conn);
    }

    /// A connection that the edge must close: the peer is not one to talk to.
    pub fn take_close(&mut self) -> Option<ConnId> {
        self.close.pop()
    }

    /// Handles one message. The edge has made sure that `conn` has room for the largest answer.
    pub fn handle(&mut self, now: Time, conn: ConnId, message: &Message<'_>, out: &mut Outbox) {
        match (message, self.kind(conn)) {
            (Message::Append(append, records), Kind::Client) => {
                self.on_append(now, conn, append, records, out)
            }
            (Message::Replicate(body, records), Kind::Peer(slot)) => {
                self.on_replicate(slot, body, records)
            }
            (Message::DownShard(body, tail), Kind::Leaf) => self.on_down(now, body, tail),
            (Message::SyncShard(body, _), Kind::Leaf) => {
                self.leaves.heard(conn);
                self.on_sync(body);
            }
            (Message::Have(body, _), Kind::Peer(slot)) => self.on_have(slot, body),
            (Message::Grant(body, _), Kind::Peer(slot)) => self.on_grant(slot, body),
            (Message::Entries(body, tail), Kind::Root) => self.on_entries(now, body, tail),
            (Message::ShardSnapshot(body, tail), Kind::Root) => self.on_snapshot(now, body, tail),
            (Message::CopyRequest(body, _), Kind::Peer(slot)) => self.on_copy_request(slot, body),
            (Message::StateRequest(body, _), Kind::Peer(slot)) => self.on_state_request(slot, body),
            (Message::StateData(body, part), Kind::Peer(slot)) => {
                self.on_state_data(now, slot, body, part)
            }
            (Message::CopyData(body, records), Kind::Peer(_)) => {
                self.on_copy_data(now, body, records)
            }
            (Message::Read(body, _), Kind::Client) => self.on_read(now, conn, body, out),
            (Message::Subscribe(body, _), Kind::Client) => self.on_subscribe(conn, body, out),
            (Message::SubCredit(body, _), Kind::Client) => self.on_credit(conn, body),
            (Message::Unsubscribe(body, _), Kind::Client) => self.on_unsubscribe(conn, body),
            (Message::Fate(body, _), Kind::Client) => self.on_fate(conn, body, out),
            (Message::CloseSession(body, _), Kind::Client) => {
                self.on_close_session(conn, body, out)
            }
            (Message::Hello(hello, _), Kind::Unknown) => self.on_hello(now, conn, hello),
            // A trim asked for by retention shows in what the log says next.
            (Message::TrimAnswer(..), Kind::Root) => {}
            _ => self.counters.unexpected += 1,
        }
    }

    fn on_hello(&mut self, now: Time, conn: ConnId, hello: &Hello) {
        let mine = hello.cluster == self.config.cluster
            && hello.wire_version == WIRE_VERSION
            && hello.log == self.config.log;
        if !mine {
            self.counters.foreign += 1;
            self.close.push(conn);
            return;
        }
        match hello.role {
            Role::Client => self.set_kind(conn, Kind::Client),
            Role::Replica => {
                let Some(slot) = self.seat_of(hello) else {
                    self.close.push(conn);
                    return;
                };
                // Of a shard that has ended, a newer life may have come to copy, and have been called off.
                let free = self.has_ended() && self.peers[slot.index()].conn.is_none();
                let peer = &mut self.peers[slot.index()];
                if hello.inc < peer.inc && !free {
                    // A life that a newer one has replaced.
                    self.close.push(conn);
                    return;
                }
                let replaced = peer.conn;
                *peer = Peer {
                    conn: Some(conn),
                    inc: hello.inc,
                    have: None,
                    stream: None,
                    have_due: true,
                    stalled_bytes: 0,
                    told: None,
                    grant: None,
                    // Another life promises anew; the same one keeps its word.
                    ceiling: peer.ceiling.filter(|_| hello.inc == peer.inc),
                    copies: [None; SEGMENTS_PER_SHARD_MAX],
                    state_request: None,
                    seen: now,
                    ..*peer
                };
                self.handovers[slot.index()] = None;
                self.settle_limit();
                self.set_kind(conn, Kind::Peer(slot));
                self.catchup.copy_soon();
                if !K::mutant(Mutant::AcceptOldWriter) {
                    self.close_replaced(replaced);
                }
            }
            Role::Leaf => {
                let replaced = self.leaves.here::<K>(conn, hello.node, hello.inc);
                self.close_replaced(replaced);
                self.set_kind(conn, Kind::Leaf);
            }
            Role::Root => {
                let replaced = self.root.replace(conn);
                self.close_replaced(replaced);
                self.catchup.entries_soon();
                self.set_kind(conn, Kind::Root);
            }
            Role::Controller | Role::Aggregator => self.close.push(conn),
        }
    }

    /// A connection whose place another took is closed: whoever believes in it still must know, or each end would wait for
    /// the other on another connection.
    fn close_replaced(&mut self, replaced: Option<ConnId>) {
        if let Some(conn) = replaced {
            // What still comes by it is of an earlier life.
            self.set_kind(conn, Kind::Unknown);
            self.close.push(conn);
        }
    }

    /// Sends everything cumulative for which there is room: acks, replication, reports, deliveries, requests.
    pub fn flush(&mut self, now: Time, out: &mut Outbox) {
        self.flushed_at = now;
        self.settle_journal(now);
        // Reports make sure that there is a flush now and then.
        if now >= self.space_at.after(self.config.timing.space) {
            self.space_at = now;
            self.store.retry_space();
        }
        self.flush_seen();
        self.flush_acks(out);
        self.look_for_room();
        self.flush_replication(out);
        self.flush_copy_answers(out);
        self.flush_state_answers(out);
        self.flush_report(now, out);
        if !self.reads.is_empty() {
            self.flush_reads(now, out);
        }
        if !self.subscriptions.is_empty() {
            self.flush_subscriptions(out);
        }
        self.flush_catchup(now, out);
        self.flush_desk(now, out);
        self.flush_retention(now, out);
    }

    /// When [`Self::flush`] must run even if nothing happens.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        let mut deadline = Time::FAR;
        if !self.leaves.is_empty() && self.is_member() {
            deadline = self.report_at.after(self.config.timing.report);
        }
        if !self.waiters.is_empty() {
            deadline = deadline.min(self.progress_at.after(self.config.timing.gap));
        }
        deadline = deadline.min(self.catchup.deadline(self.config.timing.retry));
        if self.root.is_some() {
            let quiet = self.catchup.quiet_until(self.config.timing.quiet);
            deadline = deadline.min(quiet);
        }
        deadline = deadline.min(self.desk_deadline());
        if let Some(at) = self.journal_urged_at {
            deadline = deadline.min(at.after(self.config.timing.journal));
        }
        if !self.reads.is_empty() {
            deadline = deadline.min(self.flushed_at.after(self.config.timing.retry));
        }
        // What was due at the last flush waits for more than time.
        if deadline <= self.flushed_at {
            deadline = self.flushed_at.after(self.config.timing.retry);
        }
        deadline
    }

    /// The shard epoch entered.
    fn epoch(&self) -> ViewId {
        self.state
            .as_ref()
            .map_or(ViewId::ZERO, |state| state.epoch)
    }

    /// Whether this life is a member of the epoch entered, or in a joint epoch one of the new members.
    fn is_member(&self) -> bool {
        let state = self.state.as_ref();
        state.is_some_and(|state| state.counts(self.config.slot, self.config.inc))
    }

    /// Whether what is committed and held here may be served: to members of the epoch entered, and for good once the shard has
    /// ended. No later view names the lives that come after that one, and nothing that they hold becomes void any more.
    fn serves(&self) -> bool {
        self.is_member() || self.state.as_ref().is_some_and(|state| !state.open)
    }

    /// Whether another life has the slot: this one is no member any more, and never will be again.
    fn is_replaced(&self) -> bool {
        let state = self.state.as_ref().filter(|_| !self.is_member());
        state.is_some_and(|state| {
            let member = state.members.get(self.config.slot.index());
            member.is_some_and(|member| member.inc > self.config.inc)
        })
    }

    fn own_segment(&self) -> SegmentId {
        SegmentId {
            shard: self.config.shard,
            slot: self.config.slot,
        }
    }

    /// A segment as of the last entry applied; `None` before the shard's first view.
    #[inline]
    fn segment(&self, slot: Slot) -> Option<&SegmentState> {
        self.state.as_ref()?.segments.get(slot.index())
    }

    fn committed(&self, slot: Slot) -> Lsn {
        self.segment(slot).map_or(Lsn::ZERO, |segment| segment.len)
    }

    fn kind(&self, conn: ConnId) -> Kind {
        self.conns
            .get(conn.index())
            .copied()
            .unwrap_or(Kind::Unknown)
    }

    fn set_kind(&mut self, conn: ConnId, kind: Kind) {
        if self.conns.len() <= conn.index() {
            self.conns.resize(conn.index() + 1, Kind::Unknown);
        }
        self.conns[conn.index()] = kind;
    }
}
