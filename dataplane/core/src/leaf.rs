//! The leaf of the ordering tree (ORDERING.md, LEAF): replicas' reports become rounds that go up, and the bases that come
//! down become cuts per shard. Soft state only: losing it loses nothing.

mod applied;
mod downs;
mod edge;
mod ended;
mod round;
mod seats;
mod shard;
mod silence;
mod sink;
mod status;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::marker::PhantomData;

use ionian_slots::Table;
use ionian_types::{
    ClientId, ClusterId, ConnId, EntryNo, Inc, Knobs, LogId, Lsn, Mutant, Nanos, NodeId, SessionNo,
    ShardId, Shipped, Slot, Time, ViewId,
};
use ionian_wire::WIRE_VERSION;
use ionian_wire::frame::{Down, Hello, Message, Report, Role, UpKeep};

use crate::outbox::Outbox;
use crate::tree::marks::Marks;
use crate::tree::rounds::Rounds;
use crate::tree::uplink::{Fit, Uplink};
use applied::Look;
use downs::Downs;
use seats::Seat;
use shard::Shard;
use silence::SYNC_ON;

pub use sink::DownSink;
pub use status::{LeafCounters, ShardStatusRow};

/// What a leaf is.
#[derive(Clone, Copy, Debug)]
pub struct LeafConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node it runs on.
    pub node: NodeId,
    /// This life's incarnation.
    pub inc: Inc,
    /// The log.
    pub log: LogId,
    /// Rounds sent up and not yet chosen, at most.
    pub rounds_max: u64,
    /// How often silence is made explicit to replicas.
    pub sync: Nanos,
    /// How often the controller is told of a shard at which nothing changed.
    pub status: Nanos,
    /// How often it is found out, while there are rounds, what members have applied.
    pub applied: Nanos,
    /// How often an unanswered request to the parent is repeated.
    pub retry: Nanos,
    /// Of the entries that a member has not applied that is silent for longer, the cut log keeps only those that touch its
    /// shard, and only while fewer members than an ack takes have applied them.
    pub gone: Nanos,
}

impl LeafConfig {
    /// A configuration with default limits.
    #[must_use]
    pub fn new(cluster: ClusterId, node: NodeId, inc: Inc, log: LogId) -> Self {
        Self {
            cluster,
            node,
            inc,
            log,
            rounds_max: 64,
            sync: Nanos::from_ms(50),
            status: Nanos::from_ms(1000),
            applied: Nanos::from_ms(5),
            retry: Nanos::from_ms(20),
            gone: Nanos::from_ms(30_000),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Unknown,
    /// The root leader, or an aggregator: one that is above this leaf, or is to be.
    Parent(NodeId, Inc),
    Controller,
    Replica {
        shard: ShardId,
        slot: Slot,
        inc: Inc,
    },
}

/// The leaf.
#[derive(Debug)]
pub struct Leaf<K: Knobs = Shipped> {
    config: LeafConfig,
    uplink: Uplink,
    controller: Option<ConnId>,
    shards: Vec<Shard<K>>,
    by_id: BTreeMap<ShardId, usize>,
    /// Replicas by place, whether or not their shard is known yet.
    replicas: BTreeMap<(ShardId, Slot), ConnId>,
    /// Shards that the last edge ended with, and this one does not have: until their replicas were told.
    ended: Vec<(ShardId, ViewId)>,
    /// Lengths per segment below, in order: of the edge's start, and of the last round; what the round that is being made adds.
    start: Vec<Lsn>,
    lens: Vec<Lsn>,
    total: u64,
    growth: Vec<u64>,
    grown: Marks,
    rounds: Rounds<Lsn>,
    /// What members report of the shards whose lengths are plainly the k-th largest, and the others of which one has reported.
    table: Option<Table>,
    dirty: Vec<usize>,
    /// Cuts to be sent.
    downs: Downs,
    /// By slot of the table that servers write to, whose it is; whether slots were given since the last scan, and whether those
    /// that were read are to be read again.
    seats: Vec<Option<Seat>>,
    unprepared: bool,
    rescan: bool,
    /// When the last Down came.
    down_at: Option<Time>,
    sync_at: Time,
    /// Shards whose replicas are still to be told in this turn, and the one that was last.
    sync_left: usize,
    sync_next: usize,
    flushed_at: Time,
    started_at: Time,
    conns: Vec<Kind>,
    close: Vec<ConnId>,
    /// What members have applied, as found out last; when it is to be found out again.
    applied: EntryNo,
    keeps: Vec<UpKeep>,
    applied_due: Time,
    look: Look,
    /// What the parent was told last on this edge of what members have applied.
    told: Option<(EntryNo, Vec<UpKeep>)>,
    counters: LeafCounters,
    knobs: PhantomData<K>,
}

impl<K: Knobs> Leaf<K> {
    /// A leaf that knows nothing yet.
    #[must_use]
    pub fn new(config: LeafConfig, now: Time) -> Self {
        Self {
            config,
            uplink: Uplink::new(config.log, config.inc),
            controller: None,
            shards: Vec::new(),
            by_id: BTreeMap::new(),
            replicas: BTreeMap::new(),
            ended: Vec::new(),
            start: Vec::new(),
            lens: Vec::new(),
            total: 0,
            growth: Vec::new(),
            grown: Marks::default(),
            rounds: Rounds::default(),
            table: None,
            dirty: Vec::with_capacity(1024),
            downs: Downs::default(),
            seats: Vec::new(),
            unprepared: false,
            rescan: false,
            down_at: None,
            sync_at: now,
            sync_left: 0,
            sync_next: 0,
            flushed_at: now,
            started_at: now,
            conns: Vec::with_capacity(1024),
            close: Vec::new(),
            applied: EntryNo::ZERO,
            keeps: Vec::with_capacity(64),
            applied_due: now,
            look: Look::default(),
            told: None,
            counters: LeafCounters::default(),
            knobs: PhantomData,
        }
    }

    /// A connection opened; say who this is.
    pub fn opened(&mut self, conn: ConnId, out: &mut Outbox) {
        self.set_kind(conn, Kind::Unknown);
        let hello = Hello {
            cluster: self.config.cluster,
            wire_version: WIRE_VERSION,
            role: Role::Leaf,
            node: self.config.node,
            inc: self.config.inc,
            log: self.config.log,
            shard: ShardId::ZERO,
            slot: Slot::ZERO,
            epoch: ViewId::ZERO,
            last: self.uplink.down_entry,
            client: ClientId::default(),
            session: SessionNo::ZERO,
        };
        // A new connection has room for its first message.
        let _ = out.send(conn, &hello, &[]);
    }

    /// A connection is gone.
    pub fn closed(&mut self, conn: ConnId) {
        match self.kind(conn) {
            Kind::Parent(..) => self.uplink.disconnected(conn),
            Kind::Controller if self.controller == Some(conn) => self.controller = None,
            Kind::Replica { shard, slot, .. }
                if self.replicas.get(&(shard, slot)) == Some(&conn) =>
            {
                self.replicas.remove(&(shard, slot));
                self.attach(shard, slot, None);
            }
            _ => {}
        }
        self.set_kind(conn, Kind::Unknown);
        // Its number will be another connection's.
        self.close.retain(|closing| *closing != conn);
    }

    /// A connection that the edge must close.
    pub fn take_close(&mut self) -> Option<ConnId> {
        self.close.pop()
    }

    /// Handles one message.
    pub fn handle(&mut self, now: Time, conn: ConnId, message: &Message<'_>, out: &mut Outbox) {
        match (message, self.kind(conn)) {
            (Message::Report(report, tail), Kind::Replica { shard, slot, inc }) => {
                self.on_report(now, shard, slot, inc, report, tail);
            }
            (Message::Down(down, _), Kind::Parent(..)) => self.on_down(now, conn, down),
            (Message::Sync(sync, _), Kind::Parent(..)) => {
                if self.uplink.on_sync::<K>(now, sync, self.rounds.chosen()) {
                    self.sync_at = now;
                }
            }
            (Message::EdgeStart(head, tail), Kind::Parent(..)) => {
                let taken = self.uplink.begin(conn, head, tail);
                self.counters.unexpected += u64::from(taken.is_err());
                self.begin_edge(now, out);
            }
            (Message::EdgeShards(body, tail), Kind::Parent(..)) => {
                let taken = self.uplink.extend(now, conn, body, tail);
                self.counters.unexpected += u64::from(taken.is_err());
                self.begin_edge(now, out);
            }
            (Message::NeedFull(need, _), Kind::Parent(..)) => {
                self.uplink.full_due |= Some(need.edge) == self.uplink.edge()
            }
            (Message::Hello(hello, _), Kind::Unknown) => self.on_hello(now, conn, hello),
            _ => self.counters.unexpected += 1,
        }
    }

    fn on_hello(&mut self, now: Time, conn: ConnId, hello: &Hello) {
        let mine = hello.cluster == self.config.cluster
            && hello.wire_version == WIRE_VERSION
            && hello.log == self.config.log;
        match hello.role {
            Role::Root | Role::Aggregator if mine => {
                let kind = Kind::Parent(hello.node, hello.inc);
                // Whoever believes in a connection that another replaced must know: here as below. One to somebody else stays:
                // in a tree that is to come this leaf has another parent, and which of them it is the edge's start says.
                for (at, other) in self.conns.iter_mut().enumerate() {
                    if *other == kind {
                        let replaced = ConnId::new(at as u32);
                        *other = Kind::Unknown;
                        self.close.push(replaced);
                        self.uplink.disconnected(replaced);
                    }
                }
                if self.uplink.parent.is_none() || K::mutant(Mutant::FollowLatestParent) {
                    self.uplink.parent = Some(conn);
                }
                self.set_kind(conn, kind);
            }
            Role::Controller if hello.cluster == self.config.cluster => {
                self.close.extend(self.controller.replace(conn));
                // Another life of the controller, or one that missed something: it is told everything again.
                for shard in &mut self.shards {
                    shard.told = None;
                }
                self.set_kind(conn, Kind::Controller);
                self.sync_at = now;
            }
            Role::Replica if mine => {
                let present = self.replicas.get(&(hello.shard, hello.slot));
                let newer = present.is_some_and(
                    |conn| matches!(self.kind(*conn), Kind::Replica { inc, .. } if inc > hello.inc),
                );
                if newer {
                    // A life that a newer one has replaced must not take its place here.
                    self.close.push(conn);
                    return;
                }
                self.close
                    .extend(self.replicas.insert((hello.shard, hello.slot), conn));
                self.attach(hello.shard, hello.slot, Some(conn));
                self.set_kind(
                    conn,
                    Kind::Replica {
                        shard: hello.shard,
                        slot: hello.slot,
                        inc: hello.inc,
                    },
                );
                // What it missed while away is made explicit at once.
                self.sync_at = now;
            }
            _ => self.close.push(conn),
        }
    }

    fn attach(&mut self, shard: ShardId, slot: Slot, conn: Option<ConnId>) {
        if let Some(at) = self.by_id.get(&shard).copied() {
            self.set_member_conn(at, slot, conn);
        }
    }

    fn on_report(
        &mut self,
        now: Time,
        shard: ShardId,
        slot: Slot,
        inc: Inc,
        report: &Report,
        tail: &[u8],
    ) {
        let Some(at) = self
            .by_id
            .get(&shard)
            .copied()
            .filter(|_| report.shard == shard && report.inc == inc)
        else {
            self.counters.stale_reports += 1;
            return;
        };
        let last = self.downs.last(at);
        match self.shards[at].report(now, last, slot, report, tail) {
            shard::Taken::Changed => {
                self.counters.reports += 1;
                self.note_lens(at, slot);
            }
            shard::Taken::Same => self.counters.reports += 1,
            shard::Taken::Stale => self.counters.stale_reports += 1,
            shard::Taken::Regressed => {
                self.counters.regressed += 1;
                self.note_lens(at, slot);
                // What stands in its slot counts no more either.
                self.settle_seats();
                self.prepare_seats();
            }
        }
    }

    /// A member holds more than before, or counts no more.
    fn note_lens(&mut self, at: usize, slot: Slot) {
        let shard = &mut self.shards[at];
        if let Some(table) = self.table.as_mut().filter(|_| shard.in_table) {
            match shard.counted(slot) {
                Some(lens) => {
                    table.set(at, slot.index(), &lens[..shard.members.len()]);
                }
                None => table.clear(at, slot.index()),
            }
        } else if !shard.dirty {
            shard.dirty = true;
            self.dirty.push(at);
        }
    }

    /// ORDERING.md, AGGREGATOR, Down, as far as it concerns a leaf.
    fn on_down(&mut self, now: Time, conn: ConnId, down: &Down) {
        let fit = self.uplink.fit::<K>(conn, down);
        if fit == Fit::No {
            return;
        }
        let fits = fit == Fit::Follows && self.downs.note::<K>(down, &mut self.rounds);
        if !fits {
            self.counters.dropped_downs += 1;
            self.uplink.lose(now);
            return;
        }
        self.counters.downs += 1;
        self.down_at = Some(now);
        self.uplink.applied(down);
    }

    /// Sends cuts to replicas, rounds to the parent, and what time demands.
    pub fn flush(&mut self, now: Time, out: &mut Outbox) {
        self.flush_with(now, out, &mut ());
    }

    /// The same; what is for servers that have a seat and no connection goes to `sink`.
    pub fn flush_with(&mut self, now: Time, out: &mut Outbox, sink: &mut impl DownSink) {
        self.flushed_at = now;
        self.counters.skipped += self.downs.send(self.config.log, &self.shards, out, sink);
        self.look_applied(now);
        self.flush_round(out);
        self.flush_sync(now, out, sink);
        self.uplink.flush(now, self.config.retry, out);
    }

    /// When [`Self::flush`] must run even if nothing happens.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        if self.sync_left > 0 {
            return self.flushed_at.after(SYNC_ON);
        }
        let deadline = self.sync_at.min(self.uplink.deadline());
        // What was due at the last flush waits for more than time.
        if deadline <= self.flushed_at {
            return self.flushed_at.after(self.config.retry);
        }
        deadline
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

/// A length of zero: what a member that has not reported counts as.
const NONE: Lsn = Lsn::ZERO;
