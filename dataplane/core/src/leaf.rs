//! The leaf of the ordering tree (ORDERING.md, LEAF): replicas' reports become rounds that go up, and the bases that come
//! down become cuts per shard. Soft state only: losing it loses nothing.

mod applied;
mod downs;
mod ended;
mod seats;
mod shard;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::marker::PhantomData;

use ionian_slots::{DownWriter, Table};
use ionian_types::{
    ClientId, ClusterId, ConnId, EntryNo, Inc, Knobs, LogId, Lsn, Mutant, Nanos, NodeId, SessionNo,
    ShardId, Shipped, Slot, Time, ViewId,
};
use ionian_wire::codec::Field;
use ionian_wire::frame::{
    Down, DownShardFrame, Hello, Message, Report, Role, ShardStart, SyncShard, Up, UpKeep, encode,
};
use ionian_wire::growth::GrowthWriter;
use ionian_wire::{Reader, WIRE_VERSION};

use crate::outbox::Outbox;
use crate::tree::marks::Marks;
use crate::tree::rounds::Rounds;
use crate::tree::uplink::{Fit, Uplink};
use applied::Look;
use downs::Downs;
use seats::Seat;
use shard::Shard;

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

/// Events counted since the start of this life.
#[derive(Clone, Copy, Default, Debug)]
pub struct LeafCounters {
    /// Reports taken.
    pub reports: u64,
    /// Reports of another epoch, incarnation, or out of order.
    pub stale_reports: u64,
    /// Reports whose lengths fell: their senders are excluded for the epoch.
    pub regressed: u64,
    /// Rounds sent up.
    pub rounds: u64,
    /// Downs applied.
    pub downs: u64,
    /// Downs that did not fit and made the edge start again.
    pub dropped_downs: u64,
    /// Starts of the edge.
    pub edge_starts: u64,
    /// Cuts not sent to a replica for want of room; it asks the cut log.
    pub skipped: u64,
    /// Messages that the peer's role may not send.
    pub unexpected: u64,
}

/// What a leaf knows of one shard, for status.
#[derive(Clone, Debug)]
pub struct ShardStatusRow {
    /// The shard.
    pub shard: ShardId,
    /// The shard epoch.
    pub epoch: ViewId,
    /// Whether every committed length is held by the quorum in this epoch.
    pub whole: bool,
    /// The slot that holds the shard back most, with its node.
    pub slowest: (Slot, NodeId),
    /// Records that another member has reported and the slowest has not, all segments together; 0 when nobody holds the
    /// shard back.
    pub held_back: u64,
    /// Per slot: age of the last report, whether it counts.
    pub members: Vec<(NodeId, Nanos, bool)>,
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

    /// ORDERING.md, LEAF: on EdgeStart the given lengths are round 0.
    fn begin_edge(&mut self, now: Time, out: &mut Outbox) {
        let Some(start) = self.uplink.started() else {
            return;
        };
        // What came before on the edge that ends is sent first; who has no connection asks the cut log.
        self.counters.skipped += self.downs.send(self.config.log, &self.shards, out, &mut ());
        // What was read of members goes with them.
        self.settle_seats();
        let mut reader = Reader::new(start.shards());
        let (mut shards, mut lasts) = (Vec::new(), Vec::new());
        self.start.clear();
        while let Ok(given) = ShardStart::read(&mut reader) {
            let kept = self.by_id.get(&given.shard).map(|at| &self.shards[*at]);
            let mut shard = Shard::new(&given, self.start.len(), kept);
            for slot in 0..given.members().len() {
                let slot = Slot::new(slot as u8);
                shard.set_conn(slot, self.replicas.get(&(given.shard, slot)).copied());
            }
            self.start.extend(given.segments().map(|(_, len)| {
                if K::mutant(Mutant::RootOnlyClamp) {
                    NONE
                } else {
                    len
                }
            }));
            shards.push(shard);
            lasts.push(given.last);
        }
        self.by_id = shards
            .iter()
            .enumerate()
            .map(|(at, shard)| (shard.shard, at))
            .collect();
        let before = core::mem::replace(&mut self.shards, shards);
        self.note_ended(&before);
        self.lens.clone_from(&self.start);
        let records = self.start.iter().map(|len| len.get());
        self.total = records.fold(0, u64::wrapping_add);
        self.growth.clear();
        self.growth.resize(self.start.len(), 0);
        self.grown.reset(self.start.len());
        self.rounds.start(self.start.iter().copied());
        self.told = None;
        // Reports that came before count for the shards whose epoch did not change.
        self.dirty.clear();
        self.downs.start(&self.shards, lasts.into_iter());
        self.tabulate();
        self.prepare_seats();
        self.look_again(now);
        self.sync_at = now;
        self.sync_left = 0;
        self.sync_next = 0;
        self.counters.edge_starts += 1;
    }

    /// Makes the table anew, of those shards that have the first one's rule, with what is known.
    fn tabulate(&mut self) {
        let rule = self.shards.iter().find_map(Shard::rule);
        self.table =
            rule.and_then(|(members, quorum)| Table::new(self.shards.len(), members, quorum).ok());
        for (at, shard) in self.shards.iter_mut().enumerate() {
            shard.in_table = self.table.is_some() && shard.rule() == rule;
            let Some(table) = self.table.as_mut() else {
                shard.dirty = true;
                self.dirty.push(at);
                continue;
            };
            if !shard.in_table {
                table.exclude(at);
                shard.dirty = true;
                self.dirty.push(at);
                continue;
            }
            for slot in 0..shard.members.len() {
                let floor = self.lens[shard.first_segment + slot];
                table.raise_floor(at, slot, floor.get());
                if let Some(lens) = shard.counted(Slot::new(slot as u8)) {
                    table.set(at, slot, &lens[..shard.members.len()]);
                }
            }
        }
        if let Some(table) = &mut self.table {
            table.mark_all();
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

    fn flush_round(&mut self, out: &mut Outbox) {
        let Some((parent, edge)) = self.uplink.running() else {
            return;
        };
        let idle = self.table.as_ref().is_none_or(Table::is_idle);
        if (idle && self.dirty.is_empty() && !self.uplink.full_due)
            || self.rounds.outstanding() >= self.config.rounds_max
        {
            return;
        }
        // The list at its longest, and what members have not applied.
        if out.room(parent) < 128 + self.lens.len() * 11 + self.shards.len() * UpKeep::LEN {
            return;
        }
        self.grow();
        if self.grown.is_empty() && !self.uplink.full_due {
            return;
        }
        let round = self.rounds.close_round();
        let full = self.uplink.full_due || K::mutant(Mutant::RootOnlyClamp);
        let applied = self.applied;
        let up = Up {
            log: self.config.log,
            edge,
            inc: self.config.inc,
            round,
            total: self.total,
            applied,
            full,
            keeps: self.keeps.len() as u32,
        };
        let span = self.grown.span();
        let (growth, keeps) = (&self.growth[span.clone()], &self.keeps);
        let (lens, start) = (&self.lens, &self.start);
        let sent = out.send_with(parent, &up, |writer| {
            keeps.iter().try_for_each(|keep| writer.field(*keep))?;
            if full {
                let since_start = |at: usize| lens[at].get() - start[at].get();
                GrowthWriter::write(writer, 0..lens.len(), since_start)
            } else {
                GrowthWriter::write_all(writer, span.start, growth)
            }
        });
        self.growth[span].fill(0);
        self.grown.clear();
        if sent.is_ok() {
            self.applied_told();
        }
        // A round that did not leave is a gap; the next one must be full.
        self.uplink.full_due = sent.is_err();
        self.counters.rounds += 1;
    }

    /// Brings the lengths up to what enough members hold, for the round that is being made.
    fn grow(&mut self) {
        let mut news = News {
            lens: &mut self.lens,
            total: &mut self.total,
            growth: &mut self.growth,
            grown: &mut self.grown,
            rounds: &mut self.rounds,
        };
        if let Some(table) = self.table.as_mut().filter(|table| !table.is_idle()) {
            table.merge();
            let shards = &self.shards;
            table.for_each_changed(|at, segment, _, len| {
                news.raise(shards[at].first_segment + segment, Lsn::new(len));
            });
        }
        for at in self.dirty.drain(..) {
            let shard = &mut self.shards[at];
            shard.dirty = false;
            for slot in 0..shard.members.len() {
                let index = shard.first_segment + slot;
                let before = news.lens[index];
                let len = shard.length(slot, before);
                if len > before {
                    news.raise(index, len);
                }
            }
        }
    }

    /// Makes silence explicit, to the replicas of some shards in each flush: no round waits for those of thousands.
    fn flush_sync(&mut self, now: Time, out: &mut Outbox, sink: &mut impl DownSink) {
        if now >= self.sync_at {
            self.sync_at = now.after(self.config.sync);
            self.sync_left = self.shards.len();
            if self.uplink.edge().is_some() && !K::mutant(Mutant::NoSync) {
                self.tell_ended(out);
            }
            self.flush_applied(out);
            self.flush_status(now, out);
        }
        let told = self.sync_left.min(SYNCS_PER_FLUSH);
        self.sync_left -= told;
        if self.uplink.edge().is_none() || K::mutant(Mutant::NoSync) {
            return;
        }
        for _ in 0..told {
            // Whoever was told last is told last again, also when another turn begins before one has ended.
            self.sync_next = if self.sync_next + 1 < self.shards.len() {
                self.sync_next + 1
            } else {
                0
            };
            self.tell_sync(self.sync_next, out, sink);
        }
    }

    fn tell_sync(&self, at: usize, out: &mut Outbox, sink: &mut impl DownSink) {
        let shard = &self.shards[at];
        let sync = SyncShard {
            log: self.config.log,
            shard: shard.shard,
            epoch: shard.epoch,
            last: self.downs.last(at),
            complete: self.uplink.complete,
            end_gsn: self.uplink.end_gsn,
            trim: self.uplink.trim,
        };
        for member in &shard.members {
            match (member.conn, member.seat) {
                (Some(conn), _) if out.room(conn) > 512 => {
                    let _ = out.send(conn, &sync, &[]);
                }
                (None, Some(seat)) => {
                    let mut frame = [0u8; SYNC_BYTES_MAX];
                    let len = encode(&mut frame, &sync, &[]).unwrap_or(0);
                    let _ = sink.put(seat as usize, &frame[..len]);
                }
                _ => {}
            }
        }
    }

    /// Tells the controller what holds each shard back.
    fn flush_status(&mut self, now: Time, out: &mut Outbox) {
        let Some(conn) = self.controller else { return };
        self.settle_seats();
        for shard in &mut self.shards {
            shard.note_ready(|segment| self.lens[segment]);
            if out.room(conn) < 512 || !shard.status_due(now, self.config.status) {
                continue;
            }
            let (status, tail, used) = shard.status_message(self.config.log, now);
            let _ = out.send(conn, &status, &tail[..used]);
        }
    }

    /// When the last committed cut came that concerned what is below.
    #[must_use]
    pub const fn last_cut_at(&self) -> Option<Time> {
        self.down_at
    }

    /// Rounds sent up and not yet chosen.
    #[must_use]
    pub const fn rounds_in_flight(&self) -> u64 {
        self.rounds.outstanding()
    }

    /// Counters since the start of this life.
    #[must_use]
    pub const fn counters(&self) -> &LeafCounters {
        &self.counters
    }

    /// Whether the edge to the parent runs, as far as is known here.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.uplink.running().is_some()
    }

    /// Every shard at a glance. What servers write to slots shows as of the last sync.
    #[must_use]
    pub fn status(&self, now: Time) -> Vec<ShardStatusRow> {
        self.shards.iter().map(|shard| shard.status(now)).collect()
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

/// Where a leaf writes what is for servers that have a seat ([`Leaf::seat`]) and no connection.
pub trait DownSink {
    /// Puts a frame where the server of this slot finds it; `false` if it is lost to it. Never waits: a server asks for what it
    /// missed.
    fn put(&mut self, slot: usize, frame: &[u8]) -> bool;

    /// Puts the same cut where the servers of some slots in a row find it; the number of those to whom it is lost.
    #[inline]
    fn put_run(&mut self, first: usize, count: usize, cut: &DownShardFrame) -> u64 {
        let mut bytes = [0; DownShardFrame::BYTES_MAX];
        let frame = cut.bytes(&mut bytes);
        (first..first + count)
            .map(|slot| u64::from(!self.put(slot, frame)))
            .sum()
    }
}

/// Where nobody has a seat.
impl DownSink for () {
    fn put(&mut self, _: usize, _: &[u8]) -> bool {
        false
    }
}

impl DownSink for DownWriter {
    #[inline]
    fn put(&mut self, slot: usize, frame: &[u8]) -> bool {
        Self::put(self, slot, frame)
    }

    #[inline]
    fn put_run(&mut self, first: usize, count: usize, cut: &DownShardFrame) -> u64 {
        Self::put_run(self, first, count, cut.len_bytes(), cut.words())
    }
}

/// What a round that is being made adds.
struct News<'a> {
    lens: &'a mut [Lsn],
    total: &'a mut u64,
    growth: &'a mut [u64],
    grown: &'a mut Marks,
    rounds: &'a mut Rounds<Lsn>,
}

impl News<'_> {
    #[inline]
    fn raise(&mut self, index: usize, len: Lsn) {
        let before = core::mem::replace(&mut self.lens[index], len);
        let growth = len.get() - before.get();
        *self.total = self.total.wrapping_add(growth);
        self.growth[index] = growth;
        self.grown.set(index);
        self.rounds.change(index, len);
    }
}

/// Bytes of what makes silence explicit.
const SYNC_BYTES_MAX: usize = 96;
/// Shards whose replicas are told of silence in one flush, and when the next ones are if nothing else happens.
const SYNCS_PER_FLUSH: usize = 128;
const SYNC_ON: Nanos = Nanos::from_us(20);
/// A length of zero: what a member that has not reported counts as.
const NONE: Lsn = Lsn::ZERO;
