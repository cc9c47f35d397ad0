//! An inner vertex of the ordering tree (ORDERING.md, AGGREGATOR): the rounds of its children become rounds of its own, and a base
//! that comes down becomes bases of theirs, by prefix sum in the order of the children. Soft state only: losing it loses nothing.
//!
//! ```text
//! Up of each child --> what has grown since the last own round --> Up, with which rounds of which children it holds
//! Down: round r after prev_r --> per child its round in r, the growth of its sum since prev_r, its base --> Down of each
//! ```
//! Where the children's shards stand only the cut log knows. So an edge below that is to be started, though this one goes on, is
//! asked for from above, and comes as a start of this edge over which the other children go on.

mod edges;

use alloc::vec::Vec;
use core::marker::PhantomData;

use ionian_types::RoundNo;
use ionian_types::{
    ClientId, ClusterId, ConnId, EntryNo, Gsn, Inc, Knobs, LogId, Mutant, Nanos, NodeId, SessionNo,
    ShardId, Shipped, Slot, Time, ViewId,
};
use ionian_wire::WIRE_VERSION;
use ionian_wire::codec::Field;
use ionian_wire::frame::{Applied, Down, Hello, Message, Role, Sync, Up, UpKeep};
use ionian_wire::growth::GrowthWriter;

use crate::cutlog::Vertex;
use crate::outbox::Outbox;
use crate::tree::ChildStatus;
use crate::tree::link::{Descent, Link, Taken, put_growths};
use crate::tree::marks::Marks;
use crate::tree::rounds::{ChildRound, Chosen, Rounds};
use crate::tree::uplink::{Fit, Uplink};

/// What an aggregator is.
#[derive(Clone, Copy, Debug)]
pub struct AggregatorConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node it runs on.
    pub node: NodeId,
    /// This life's incarnation.
    pub inc: Inc,
    /// The log.
    pub log: LogId,
    /// Its place among the aggregators of its node.
    pub slot: Slot,
    /// Rounds sent up and not yet chosen, at most.
    pub rounds_max: u64,
    /// How often silence is made explicit to children.
    pub sync: Nanos,
    /// How often an unanswered request to the parent is repeated.
    pub retry: Nanos,
}

impl AggregatorConfig {
    /// A configuration with default limits.
    #[must_use]
    pub fn new(cluster: ClusterId, node: NodeId, inc: Inc, log: LogId, slot: Slot) -> Self {
        Self {
            cluster,
            node,
            inc,
            log,
            slot,
            rounds_max: 64,
            sync: Nanos::from_ms(50),
            retry: Nanos::from_ms(20),
        }
    }
}

/// Events counted since the start of this life.
#[derive(Clone, Copy, Default, Debug)]
pub struct AggregatorCounters {
    /// Rounds of children accepted.
    pub accepted: u64,
    /// Rounds of children that did not follow the last one, or were of another edge.
    pub refused: u64,
    /// Rounds sent up.
    pub rounds: u64,
    /// Downs applied.
    pub downs: u64,
    /// Downs that did not fit and made the edge start again.
    pub dropped_downs: u64,
    /// Starts of the edge to the parent.
    pub edge_starts: u64,
    /// Edges to children that went on over a start of the edge to the parent.
    pub resumed: u64,
    /// Messages that the peer's role may not send.
    pub unexpected: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Unknown,
    Controller,
    /// A vertex of the tree or a root: which of them is above and which below, the edges say.
    Vertex(NodeId, Inc),
}

/// The aggregator.
#[derive(Debug)]
pub struct Aggregator<K: Knobs = Shipped> {
    config: AggregatorConfig,
    uplink: Uplink,
    links: Vec<Link>,
    /// What is below, as the edge's start gave it: the vertices, each with its shards, the shards as encoded and where each ends,
    /// and for each link
    /// its vertices and its shards among these.
    vertices: Vec<Vertex>,
    counts: Vec<u32>,
    shards: Vec<u8>,
    shard_ends: Vec<u32>,
    below: Vec<edges::Below>,
    starts: u64,
    rounds: Rounds<ChildRound>,
    /// Per segment below, what the round that is being made adds.
    growth: Vec<u64>,
    grown: Marks,
    chosen: Vec<Chosen<ChildRound>>,
    /// Downs to be sent.
    descents: Vec<(usize, Descent)>,
    keeps: Vec<UpKeep>,
    /// What the parent was told last on this edge of what members have applied.
    told: Option<(EntryNo, Vec<UpKeep>)>,
    sync_at: Time,
    flushed_at: Time,
    /// When the last Down came.
    down_at: Option<Time>,
    conns: Vec<Kind>,
    close: Vec<ConnId>,
    counters: AggregatorCounters,
    knobs: PhantomData<K>,
}

impl<K: Knobs> Aggregator<K> {
    /// An aggregator that knows nothing yet.
    #[must_use]
    pub fn new(config: AggregatorConfig, now: Time) -> Self {
        Self {
            config,
            uplink: Uplink::new(config.log, config.inc),
            links: Vec::new(),
            vertices: Vec::new(),
            counts: Vec::new(),
            shards: Vec::new(),
            shard_ends: Vec::new(),
            below: Vec::new(),
            starts: 0,
            rounds: Rounds::default(),
            growth: Vec::new(),
            grown: Marks::default(),
            chosen: Vec::with_capacity(64),
            descents: Vec::with_capacity(1024),
            keeps: Vec::with_capacity(64),
            told: None,
            sync_at: now,
            flushed_at: now,
            down_at: None,
            conns: Vec::with_capacity(1024),
            close: Vec::new(),
            counters: AggregatorCounters::default(),
            knobs: PhantomData,
        }
    }

    /// A connection opened; say who this is.
    pub fn opened(&mut self, conn: ConnId, out: &mut Outbox) {
        self.set_kind(conn, Kind::Unknown);
        let hello = Hello {
            cluster: self.config.cluster,
            wire_version: WIRE_VERSION,
            role: Role::Aggregator,
            node: self.config.node,
            inc: self.config.inc,
            log: self.config.log,
            shard: ShardId::ZERO,
            slot: self.config.slot,
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
        self.uplink.disconnected(conn);
        for link in &mut self.links {
            link.disconnect::<K>(conn);
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
            (Message::Hello(hello, _), Kind::Unknown) => self.on_hello(now, conn, hello),
            (Message::Up(up, tail), Kind::Vertex(node, inc)) => {
                self.on_up(node, inc, up, tail, out)
            }
            (Message::Applied(body, keeps), Kind::Vertex(node, inc)) => {
                self.on_applied(node, inc, body, keeps)
            }
            (Message::NeedEdge(need, _), Kind::Vertex(node, inc)) => {
                if let Some(link) = self.link(node, inc) {
                    link.restart(need);
                }
            }
            (Message::Down(down, _), Kind::Vertex(..)) => self.on_down(now, conn, down),
            (Message::Sync(sync, _), Kind::Vertex(..)) => self.on_sync(now, conn, sync),
            (Message::EdgeStart(head, tail), Kind::Vertex(..)) => {
                let taken = self.uplink.begin(conn, head, tail);
                self.counters.unexpected += u64::from(taken.is_err());
                self.begin_edge(now, out);
            }
            (Message::EdgeShards(body, tail), Kind::Vertex(..)) => {
                let taken = self.uplink.extend(now, conn, body, tail);
                self.counters.unexpected += u64::from(taken.is_err());
                self.begin_edge(now, out);
            }
            (Message::NeedFull(need, _), Kind::Vertex(..)) => {
                self.uplink.full_due |= Some(need.edge) == self.uplink.edge();
            }
            _ => self.counters.unexpected += 1,
        }
    }

    fn on_hello(&mut self, now: Time, conn: ConnId, hello: &Hello) {
        let mine = hello.cluster == self.config.cluster
            && hello.wire_version == WIRE_VERSION
            && hello.log == self.config.log;
        if hello.role == Role::Controller && hello.cluster == self.config.cluster {
            // What it has to say is for the edge.
            self.set_kind(conn, Kind::Controller);
            return;
        }
        let of_tree = matches!(hello.role, Role::Root | Role::Aggregator | Role::Leaf);
        if !mine || !of_tree || hello.inc == self.config.inc {
            self.close.push(conn);
            return;
        }
        let kind = Kind::Vertex(hello.node, hello.inc);
        // Whoever believes in a connection that another replaced must know.
        for (at, other) in self.conns.iter_mut().enumerate() {
            if *other == kind {
                let replaced = ConnId::new(at as u32);
                *other = Kind::Unknown;
                self.close.push(replaced);
                self.uplink.disconnected(replaced);
            }
        }
        self.set_kind(conn, kind);
        let latest = self.uplink.parent.is_none() || K::mutant(Mutant::FollowLatestParent);
        if hello.role != Role::Leaf && latest && self.link(hello.node, hello.inc).is_none() {
            self.uplink.parent = Some(conn);
        }
        if let Some(link) = self.link(hello.node, hello.inc) {
            link.connect::<K>(conn);
        }
        self.sync_at = now;
    }

    fn link(&mut self, node: NodeId, inc: Inc) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.is(node, inc))
    }

    fn on_up(&mut self, node: NodeId, inc: Inc, up: &Up, tail: &[u8], out: &mut Outbox) {
        let log = self.config.log;
        let Some(link) = self.link(node, inc).filter(|_| up.log == log) else {
            self.counters.refused += 1;
            return;
        };
        match link.take_up::<K>(up, tail) {
            Taken::Yes => self.counters.accepted += 1,
            Taken::Stranger => self.counters.refused += 1,
            Taken::NeedsFull => {
                link.ask_full(log, out);
                self.counters.refused += 1;
            }
        }
    }

    fn on_applied(&mut self, node: NodeId, inc: Inc, body: &Applied, keeps: &[u8]) {
        let log = self.config.log;
        if let Some(link) = self.link(node, inc).filter(|_| body.log == log) {
            link.take_applied_alone(body, keeps);
        }
    }

    /// ORDERING.md, AGGREGATOR, Down.
    fn on_down(&mut self, now: Time, conn: ConnId, down: &Down) {
        let fit = self.uplink.fit::<K>(conn, down);
        if fit == Fit::No {
            return;
        }
        self.chosen.clear();
        let (prev, round) = (down.prev_round, down.round);
        let fits = fit == Fit::Follows
            && (self.rounds).choose::<K>(prev, round, down.total, &mut self.chosen);
        if !fits {
            self.counters.dropped_downs += 1;
            if !K::mutant(Mutant::DropDownSilently) {
                self.lose(now);
            }
            return;
        }
        self.counters.downs += 1;
        self.down_at = Some(now);
        self.uplink.applied(down);
        let mut base = down.base.get();
        for chosen in &self.chosen {
            let link = &self.links[chosen.part];
            // One that stopped meanwhile starts again from what the cut log says.
            if let Some(edge) = link.edge_of_downs() {
                let descent = Descent {
                    entry: down.entry,
                    edge,
                    chosen: chosen.now,
                    base: Gsn::new(base),
                    growth: chosen.growth,
                    end_gsn: down.end_gsn,
                };
                self.descents.push((chosen.part, descent));
            }
            if !K::mutant(Mutant::SplitWithoutSums) {
                base += chosen.growth;
            }
        }
    }

    /// A Down is missing: nothing that is below can be told what it chose.
    fn lose(&mut self, now: Time) {
        self.uplink.lose(now);
        self.descents.clear();
        self.links.iter_mut().for_each(Link::stop);
    }

    fn on_sync(&mut self, now: Time, conn: ConnId, sync: &Sync) {
        if self.uplink.parent != Some(conn) {
            return;
        }
        if K::mutant(Mutant::DropDownSilently) && sync.chosen > self.rounds.chosen() {
            return;
        }
        let had = self.uplink.edge();
        if self.uplink.on_sync::<K>(now, sync, self.rounds.chosen()) {
            self.sync_at = now;
        } else if had.is_some() && self.uplink.edge().is_none() {
            self.lose(now);
        }
    }

    /// Sends bases to children, a round to the parent, and what time demands.
    pub fn flush(&mut self, now: Time, out: &mut Outbox) {
        self.flushed_at = now;
        self.flush_downs(out);
        self.flush_edges(now, out);
        self.flush_round(out);
        if now >= self.sync_at {
            self.flush_sync(out);
            self.flush_applied(out);
            self.sync_at = now.after(self.config.sync);
        }
        self.uplink.flush(now, self.config.retry, out);
    }

    /// When [`Self::flush`] must run even if nothing happens.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        let deadline = self.sync_at.min(self.uplink.deadline());
        // What was due at the last flush waits for more than time.
        if deadline <= self.flushed_at {
            return self.flushed_at.after(self.config.retry);
        }
        deadline
    }

    fn flush_downs(&mut self, out: &mut Outbox) {
        for (at, descent) in self.descents.drain(..) {
            let link = &mut self.links[at];
            if !link.send_down(self.config.log, &descent, out) {
                // The child cannot be told: its replicas learn from the cut log, its edge starts again.
                link.stop();
            }
        }
    }

    fn flush_round(&mut self, out: &mut Outbox) {
        let Some((parent, edge)) = self.uplink.running() else {
            return;
        };
        let fresh = self.links.iter().any(|link| link.fresh);
        if !fresh && !self.uplink.full_due || self.rounds.outstanding() >= self.config.rounds_max {
            return;
        }
        let (applied, keeps) = self.applied();
        if out.room(parent) < 128 + self.growth.len() * 11 + keeps.len() * UpKeep::LEN {
            self.keeps = keeps;
            return;
        }
        let full = self.uplink.full_due;
        let mut total = 0u64;
        for (at, link) in self.links.iter_mut().enumerate() {
            let first = self.below[at].first_segment;
            if link.fresh {
                self.rounds.change(at, link.newest());
                if !full {
                    let (growth, grown) = (&mut self.growth, &mut self.grown);
                    link.each_grown(|segment, before, now| {
                        let first = first + segment;
                        put_growths(&mut growth[first..first + now.len()], before, now);
                        grown.set_run(first, now.len());
                    });
                }
                link.pass();
            }
            if full {
                for (segment, growth) in link.passed_since_start() {
                    if growth > 0 {
                        self.growth[first + segment] = growth;
                        self.grown.set(first + segment);
                    }
                }
            }
            total = total.wrapping_add(link.passed_total());
        }
        let up = Up {
            log: self.config.log,
            edge,
            inc: self.config.inc,
            round: self.rounds.close_round(),
            total,
            applied,
            full,
            keeps: keeps.len() as u32,
        };
        let span = self.grown.span();
        let growth = &self.growth[span.clone()];
        let sent = out.send_with(parent, &up, |writer| {
            keeps.iter().try_for_each(|keep| writer.field(*keep))?;
            GrowthWriter::write_all(writer, span.start, growth)
        });
        self.growth[span].fill(0);
        self.grown.clear();
        self.keeps = keeps;
        if sent.is_ok() {
            self.note_told(applied);
        }
        // A round that did not leave is a gap; the next one must be full.
        self.uplink.full_due = sent.is_err();
        self.counters.rounds += 1;
    }

    /// What all live members below have applied, and what of it too few have.
    fn applied(&mut self) -> (EntryNo, Vec<UpKeep>) {
        let mut keeps = core::mem::take(&mut self.keeps);
        keeps.clear();
        let mut applied = self.links.iter().map(|link| link.applied).min();
        if K::mutant(Mutant::AppliedOfFastest) {
            applied = self.links.iter().map(|link| link.applied).max();
        }
        keeps.extend(self.links.iter().flat_map(Link::keeps));
        (applied.unwrap_or_default(), keeps)
    }

    fn note_told(&mut self, applied: EntryNo) {
        let told = self.told.get_or_insert_with(Default::default);
        told.0 = applied;
        told.1.clone_from(&self.keeps);
    }

    /// Tells the parent what was applied since the last round: while nothing is cut, none says so.
    fn flush_applied(&mut self, out: &mut Outbox) {
        let Some((parent, edge)) = self.uplink.running() else {
            return;
        };
        let (applied, keeps) = self.applied();
        self.keeps = keeps;
        let told = self.told.as_ref();
        let same = told.is_some_and(|told| told.0 == applied && told.1 == self.keeps);
        if same || out.room(parent) < 64 + self.keeps.len() * UpKeep::LEN {
            return;
        }
        let body = Applied {
            log: self.config.log,
            edge,
            inc: self.config.inc,
            applied,
            keeps: self.keeps.len() as u32,
        };
        let keeps = &self.keeps;
        let sent = out.send_with(parent, &body, |writer| {
            keeps.iter().try_for_each(|keep| writer.field(*keep))
        });
        if sent.is_ok() {
            self.note_told(applied);
        }
    }

    fn flush_sync(&mut self, out: &mut Outbox) {
        if self.uplink.edge().is_none() || K::mutant(Mutant::NoSync) {
            return;
        }
        let sync = Sync {
            log: self.config.log,
            edge: Default::default(),
            complete: self.uplink.complete,
            end_gsn: self.uplink.end_gsn,
            trim: self.uplink.trim,
            chosen: RoundNo::ZERO,
        };
        for link in &self.links {
            link.send_sync(sync, out);
        }
    }

    /// Counters since the start of this life.
    #[must_use]
    pub const fn counters(&self) -> &AggregatorCounters {
        &self.counters
    }

    /// Rounds sent up and not yet chosen.
    #[must_use]
    pub const fn rounds_in_flight(&self) -> u64 {
        self.rounds.outstanding()
    }

    /// Whether the edge to the parent runs, as far as is known here.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.uplink.running().is_some()
    }

    /// When the last committed cut came that concerned what is below.
    #[must_use]
    pub const fn last_cut_at(&self) -> Option<Time> {
        self.down_at
    }

    /// Every child at a glance.
    pub fn children(&self) -> impl Iterator<Item = ChildStatus> + '_ {
        self.links.iter().map(Link::status)
    }

    fn kind(&self, conn: ConnId) -> Kind {
        let kind = self.conns.get(conn.index());
        kind.copied().unwrap_or(Kind::Unknown)
    }

    fn set_kind(&mut self, conn: ConnId, kind: Kind) {
        if self.conns.len() <= conn.index() {
            self.conns.resize(conn.index() + 1, Kind::Unknown);
        }
        self.conns[conn.index()] = kind;
    }
}
