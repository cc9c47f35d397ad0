//! A member of the root group (ORDERING.md, ROOT LEADER, ROOT MEMBER, NEW LEADER). One of them leads: it turns rounds into
//! committed cuts, logs views and trims. All of them keep the cut log and serve what of it is committed.
//!
//! Nothing above the commit index leaves the group. A member holds an entry when its journal has made it durable, at a
//! flushed class, or when it is in memory, at D0; an entry of the leader's own epoch is committed when enough members hold
//! it. Positions are used only below a ceiling that the controller has reserved.
//!
//! ```text
//! member --RootGrant--> leader, its epoch's entry under way --committed--> leader that answers
//!    ^------------------- a later epoch was promised ---------------------------------|
//! ```
//! Files: `child` (the vertices right below and their edges), `cut` (appending and committing entries), `drop` (when entries go), `journal` (what a
//! restart finds), `lead` (the other members), `member` (following a leader), `serve` (entries, tail, locate, trim), `start`
//! (grants), `transfer` (the state in the place of entries).

mod child;
mod cut;
mod drop;
#[cfg(test)]
mod group_tests;
mod journal;
mod lead;
mod member;
mod serve;
mod start;
#[cfg(test)]
mod tests;
mod transfer;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::marker::PhantomData;

use ionian_store::Store;
use ionian_types::{
    ClientId, ClusterId, ConnId, Durability, EntryNo, Gsn, Inc, Knobs, LogId, Mutant, Nanos,
    NodeId, ROOT_MEMBERS_MAX, RootEpoch, SessionNo, ShardId, Shipped, Slot, Time, ViewId,
};
use ionian_wire::WIRE_VERSION;
use ionian_wire::entry::ENTRY_BYTES_MAX;
use ionian_wire::frame::{CeilingRequest, Hello, Message, Role};

use crate::cutlog::{CHUNK_ENTRIES, EntryLog, Kept, LogState};
use crate::outbox::Outbox;
use crate::tree::link::keeps_edges;
use crate::tree::marks::Marks;
use child::Child;
use cut::Pending;
use journal::JournalMap;
use lead::Group;
use member::Following;
use serve::Ask;

/// What a root is and how much it may hold.
#[derive(Clone, Copy, Debug)]
pub struct RootConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node it runs on.
    pub node: NodeId,
    /// This life's incarnation.
    pub inc: Inc,
    /// The log.
    pub log: LogId,
    /// The member's slot in the root group.
    pub slot: Slot,
    /// The log's durability class.
    pub class: Durability,
    /// The least time between two cuts; zero cuts as fast as entries commit.
    pub cut_interval: Nanos,
    /// Entries appended and not committed, at most.
    pub inflight_max: usize,
    /// Bytes of entries kept in memory; beyond, ordering pauses until a trim.
    pub cut_log_bytes_max: u64,
    /// Entries are dropped from memory and the journal by whole chunks of this many, at least 1.
    pub cut_log_chunk_entries: usize,
    /// How often silence is made explicit to children.
    pub sync: Nanos,
    /// How often the controller is asked again.
    pub retry: Nanos,
    /// How long too few members may be silent before the controller is told.
    pub alone: Nanos,
}

impl RootConfig {
    /// A configuration with default limits.
    #[must_use]
    pub fn new(cluster: ClusterId, node: NodeId, inc: Inc, log: LogId, class: Durability) -> Self {
        Self {
            cluster,
            node,
            inc,
            log,
            slot: Slot::ZERO,
            class,
            cut_interval: Nanos(0),
            inflight_max: 8,
            cut_log_bytes_max: 1 << 30,
            cut_log_chunk_entries: CHUNK_ENTRIES,
            sync: Nanos::from_ms(50),
            retry: Nanos::from_ms(100),
            alone: Nanos::from_ms(1000),
        }
    }
}

/// Events counted since the start of this life.
#[derive(Clone, Copy, Default, Debug)]
pub struct RootCounters {
    /// Cuts committed.
    pub cuts: u64,
    /// Records ordered.
    pub ordered: u64,
    /// Bytes of the entries of cuts that this life appended, and the segments that grew in them.
    pub cut_bytes: u64,
    /// See `cut_bytes`.
    pub cut_segments: u64,
    /// Views committed.
    pub views: u64,
    /// Rounds accepted.
    pub rounds: u64,
    /// Rounds that did not follow the last one.
    pub refused_rounds: u64,
    /// Starts of edges.
    pub edge_starts: u64,
    /// Backfills served.
    pub backfills: u64,
    /// Intents that do not fit the log's state.
    pub bad_intents: u64,
    /// Times ordering waited for a ceiling or for room in the cut log.
    pub held_back: u64,
    /// Messages that the peer's role may not send.
    pub unexpected: u64,
    /// Messages of the root group that are for another life or another log.
    pub strangers: u64,
    /// Grants with quorums that do not meet, or that do not list this life.
    pub bad_grants: u64,
    /// Times this member stopped leading.
    pub stepped_down: u64,
    /// Entries that were never committed and that others replaced.
    pub replaced: u64,
    /// Entries and states of a leader that do not follow, or for which there is no room.
    pub refused_entries: u64,
    /// States taken from a leader in the place of entries, and states made for members.
    pub states_taken: u64,
    /// As above.
    pub states_made: u64,
    /// Messages that contradict what is committed. Never, while every member keeps what it acknowledges.
    pub broken: u64,
}

/// A member of a root group as its leader sees it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MemberStatus {
    /// Its slot.
    pub slot: Slot,
    /// Its node.
    pub node: NodeId,
    /// The life that takes part.
    pub inc: Inc,
    /// Whether there is a connection to it.
    pub connected: bool,
    /// The last entry that it is known to hold at the class.
    pub held: EntryNo,
}

/// A root at a glance.
#[derive(Clone, Copy, Debug)]
pub struct RootStatus {
    /// The member's slot.
    pub slot: Slot,
    /// This life.
    pub inc: Inc,
    /// Whether it is one of several and does not lead.
    pub follows: bool,
    /// The root epoch, while this member leads; else zero.
    pub epoch: RootEpoch,
    /// The latest epoch promised.
    pub promised: RootEpoch,
    /// Whether it answers for the log: it leads, and an entry of its epoch is committed.
    pub answers: bool,
    /// The members of the group that it leads, itself among them: the first [`Self::members`], by slot.
    pub group: [MemberStatus; ROOT_MEMBERS_MAX],
    /// Of the group that it leads: members, those connected (itself among both), the last entry that all of them hold.
    pub members: usize,
    /// See `members`.
    pub members_connected: usize,
    /// See `members`.
    pub held_by_all: EntryNo,
    /// Whether the controller has taken note that this epoch has begun.
    pub recorded: bool,
    /// The last entry in the log, committed or not.
    pub last: EntryNo,
    /// The last committed entry.
    pub commit: EntryNo,
    /// The last view in the log.
    pub view: ViewId,
    /// The position after the last one ordered and committed.
    pub tail: Gsn,
    /// Positions below are trimmed.
    pub head: Gsn,
    /// Positions below may be used.
    pub ceiling: Gsn,
    /// Open shards.
    pub shards: usize,
    /// Children with a running edge.
    pub edges: usize,
    /// Bytes of entries in memory.
    pub cut_log_bytes: u64,
    /// The first entry in memory.
    pub cut_log_first: EntryNo,
    /// When the last cut was committed.
    pub last_cut_at: Option<Time>,
    /// Counters.
    pub counters: RootCounters,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Unknown,
    Client,
    Replica,
    /// A leaf or an aggregator right below, or one that may come to be.
    Child(NodeId, Inc),
    Root(NodeId, Inc),
    Controller,
}

/// The root.
#[derive(Debug)]
pub struct Root<K: Knobs = Shipped> {
    config: RootConfig,
    store: Store,
    /// The epoch that this member leads, while it does.
    granted: Option<RootEpoch>,
    /// The latest epoch promised; whether that is still to be written, and where it was written.
    promised: RootEpoch,
    promise_due: bool,
    promise_record: u64,
    following: Following,
    group: Group,
    map: JournalMap,
    /// The last of the entries with which this life began: nothing is answered before it is committed.
    begun: EntryNo,
    /// The log as of its last entry, and as of the entry before the first one in memory.
    state: LogState,
    base: LogState,
    log: EntryLog,
    /// What members that are away need of the entries that are no longer in the log.
    kept: Kept,
    /// Before then nothing more is kept: it was too much.
    keep_again_at: Time,
    committed: EntryNo,
    committed_end: Gsn,
    committed_trim: Gsn,
    /// Trims in the log that are not committed.
    trims_logged: VecDeque<(EntryNo, Gsn)>,
    pending: VecDeque<Pending>,
    children: Vec<Child>,
    /// Edges begun in this life.
    starts: u64,
    cut_at: Time,
    flushed_at: Time,
    last_cut_at: Option<Time>,
    sync_at: Time,
    controller: Option<ConnId>,
    ceiling_asked_at: Option<Time>,
    /// The journal had no room for the first entry of an epoch that was granted: it is asked for again.
    grant_missed: bool,
    intents_done: bool,
    /// Trims to be answered once an entry is committed: who asked, the request, the entry.
    trims: Vec<(ConnId, u64, EntryNo)>,
    /// Questions that wait until it is certain that this member still leads.
    asks: Vec<Ask>,
    conns: Vec<Kind>,
    close: Vec<ConnId>,
    buffer: Box<[u8]>,
    scratch: Vec<u8>,
    /// What a cut that is being made adds, by the numbers of the segments, which of them grow, and the records of each child.
    growth: Vec<u64>,
    grown: Marks,
    totals: Vec<u64>,
    counters: RootCounters,
    knobs: PhantomData<K>,
}

impl<K: Knobs> Root<K> {
    /// A root over a store that is ready: new, or recovered. It orders nothing before the controller's grant.
    #[must_use]
    pub fn new(config: RootConfig, store: Store, now: Time) -> Self {
        let mut root = Self {
            config,
            store,
            granted: None,
            promised: RootEpoch::ZERO,
            promise_due: false,
            promise_record: 0,
            following: Following::default(),
            group: Group::default(),
            map: JournalMap::default(),
            begun: EntryNo::ZERO,
            state: LogState::default(),
            base: LogState::default(),
            log: EntryLog::new(&LogState::default(), config.cut_log_chunk_entries),
            kept: Kept::default(),
            keep_again_at: now,
            committed: EntryNo::ZERO,
            committed_end: Gsn::ZERO,
            committed_trim: Gsn::ZERO,
            trims_logged: VecDeque::with_capacity(64),
            pending: VecDeque::with_capacity(config.inflight_max + 8),
            children: Vec::new(),
            starts: 0,
            cut_at: now,
            flushed_at: now,
            last_cut_at: None,
            sync_at: now,
            controller: None,
            ceiling_asked_at: None,
            grant_missed: false,
            intents_done: false,
            trims: Vec::with_capacity(64),
            asks: Vec::with_capacity(64),
            conns: Vec::with_capacity(1024),
            close: Vec::new(),
            buffer: vec![0; ENTRY_BYTES_MAX].into_boxed_slice(),
            scratch: Vec::with_capacity(300 * 1024),
            growth: Vec::new(),
            grown: Marks::default(),
            totals: Vec::with_capacity(16),
            counters: RootCounters::default(),
            knobs: PhantomData,
        };
        root.restore();
        root
    }

    /// The store, for executing its block operations.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The store, for completing block operations.
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// What this root is.
    #[must_use]
    pub fn config(&self) -> &RootConfig {
        &self.config
    }

    /// A connection opened; say who this is.
    pub fn opened(&mut self, conn: ConnId, out: &mut Outbox) {
        self.set_kind(conn, Kind::Unknown);
        let hello = Hello {
            cluster: self.config.cluster,
            wire_version: WIRE_VERSION,
            role: Role::Root,
            node: self.config.node,
            inc: self.config.inc,
            log: self.config.log,
            shard: ShardId::ZERO,
            slot: self.config.slot,
            epoch: self.state.view,
            last: self.committed,
            client: ClientId::default(),
            session: SessionNo::ZERO,
        };
        // A new connection has room for its first message.
        let _ = out.send(conn, &hello, &[]);
    }

    /// A connection is gone.
    pub fn closed(&mut self, conn: ConnId) {
        for child in &mut self.children {
            child.link.disconnect::<K>(conn);
        }
        if self.controller == Some(conn) {
            self.controller = None;
        }
        self.trims.retain(|(waiting, ..)| *waiting != conn);
        self.asks.retain(|ask| ask.conn != conn);
        self.member_gone(conn);
        self.member_lost(conn);
        self.set_kind(conn, Kind::Unknown);
        // Its number will be another connection's.
        self.close.retain(|closing| *closing != conn);
    }

    /// A connection that the edge must close.
    pub fn take_close(&mut self) -> Option<ConnId> {
        self.close.pop()
    }

    /// Handles one message. The edge has made sure that `conn` has room for the largest answer.
    pub fn handle(&mut self, now: Time, conn: ConnId, message: &Message<'_>, out: &mut Outbox) {
        match (message, self.kind(conn)) {
            (Message::Up(up, tail), Kind::Child(node, inc)) => self.on_up(node, inc, up, tail, out),
            (Message::Applied(body, keeps), Kind::Child(node, inc)) => {
                self.on_applied(node, inc, body, keeps)
            }
            (Message::NeedEdge(need, _), Kind::Child(node, inc)) => {
                self.restart_edge(node, inc, need)
            }
            (Message::Backfill(body, _), Kind::Replica) => self.on_backfill(conn, body, out),
            (Message::Tail(body, _), Kind::Client) => self.on_tail(conn, body, out),
            (Message::Locate(body, _), Kind::Client) => self.on_locate(conn, body, out),
            (Message::TrimRequest(body, _), Kind::Client | Kind::Replica) => {
                self.on_trim(conn, body, out)
            }
            (Message::Intent(body, changes), Kind::Controller) => {
                self.on_intent(conn, body, changes, out)
            }
            (Message::RootGrant(body, tail), Kind::Controller) => self.on_grant(body, tail),
            (Message::Seal(body, _), Kind::Controller) => self.on_seal(body),
            (Message::RootWrite(body, tail), Kind::Root(..)) => {
                self.on_write(conn, body, tail, out)
            }
            (Message::RootState(body, tail), Kind::Root(..)) => {
                self.on_state(conn, body, tail, out)
            }
            (Message::RootWritten(body, _), Kind::Root(..)) => self.on_written(now, conn, body),
            (Message::Hello(hello, _), Kind::Unknown) => self.on_hello(now, conn, hello),
            _ => self.counters.unexpected += 1,
        }
    }

    fn on_hello(&mut self, now: Time, conn: ConnId, hello: &Hello) {
        let mine = hello.cluster == self.config.cluster && hello.wire_version == WIRE_VERSION;
        let about = hello.log == self.config.log;
        let kind = match hello.role {
            Role::Client if mine && about => Kind::Client,
            Role::Replica if mine && about => Kind::Replica,
            Role::Leaf | Role::Aggregator if mine && about => {
                let (node, inc) = (hello.node, hello.inc);
                let mut children = self.children.iter_mut();
                if let Some(child) = children.find(|child| child.link.is(node, inc)) {
                    child.link.connect::<K>(conn);
                }
                let kind = Kind::Child(node, inc);
                self.replace(kind, conn);
                self.sync_at = now;
                kind
            }
            Role::Root if mine && about && hello.inc != self.config.inc => {
                self.member_here(hello.node, hello.inc, conn);
                Kind::Root(hello.node, hello.inc)
            }
            Role::Controller if mine => {
                self.close.extend(self.controller.replace(conn));
                self.ceiling_asked_at = None;
                self.intents_done = false;
                Kind::Controller
            }
            _ => {
                self.close.push(conn);
                Kind::Unknown
            }
        };
        self.set_kind(conn, kind);
    }

    /// Closes the connection of a child that `conn` replaces: whoever believes in it must know. No view need name this life
    /// yet; when one does, its edge starts on the connection that is left.
    fn replace(&mut self, kind: Kind, conn: ConnId) {
        if K::mutant(Mutant::RoundWithoutEdge) {
            return;
        }
        for (at, other) in self.conns.iter_mut().enumerate() {
            let at = ConnId::new(at as u32);
            if *other != kind || at == conn || self.close.contains(&at) {
                continue;
            }
            self.close.push(at);
            // What still comes by it is of an edge that has ended.
            if !keeps_edges::<K>() {
                *other = Kind::Unknown;
            }
        }
    }

    /// Cuts, commits, and sends everything that is committed.
    pub fn flush(&mut self, now: Time, out: &mut Outbox) {
        self.flushed_at = now;
        let seen = self.committed;
        self.cut(now);
        self.commit(now, out);
        self.flush_members(now, out);
        self.flush_member(now, out);
        self.answer_trims(out);
        self.answer_asks(out);
        self.flush_edges(out);
        self.flush_controller(now, out);
        if now >= self.sync_at {
            self.flush_sync(now, out);
            self.drop_prefix(now, seen);
        }
    }

    /// When [`Self::flush`] must run even if nothing happens.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        let mut deadline = self.sync_at;
        if self.cut_due() {
            deadline = deadline.min(self.cut_at);
        }
        if let Some(at) = self.ceiling_asked_at {
            deadline = deadline.min(at.after(self.config.retry));
        }
        deadline = deadline.min(self.group_deadline());
        // What was due at the last flush waits for more than time.
        if deadline <= self.flushed_at {
            deadline = self.flushed_at.after(self.config.retry);
        }
        deadline
    }

    /// Tells the controller how far views have come, and asks it for positions before they run out.
    fn flush_controller(&mut self, now: Time, out: &mut Outbox) {
        let Some(conn) = self.controller.filter(|conn| out.room(*conn) > 0) else {
            return;
        };
        self.flush_led(now, conn, out);
        self.flush_alone(now, conn, out);
        if !self.intents_done && self.view_committed() {
            let done = ionian_wire::frame::IntentDone {
                log: self.config.log,
                view: self.state.view,
                entry: self.committed,
            };
            self.intents_done = out.send(conn, &done, &[]).is_ok();
        }
        let short = self
            .state
            .end_gsn
            .get()
            .saturating_add(start::CEILING_MARGIN)
            > self.state.ceiling.get();
        let waited = self
            .ceiling_asked_at
            .is_none_or(|at| now >= at.after(self.config.retry));
        // A member that is written to has a leader, which asks.
        let asks = self.granted.is_some() || !self.following.in_group;
        if waited && (short && asks || self.grant_missed) {
            let more = self.state.end_gsn.get();
            let more = Gsn::new(more.saturating_add(2 * start::CEILING_MARGIN));
            let upto = if short { more } else { Gsn::ZERO };
            let request = CeilingRequest {
                log: self.config.log,
                inc: self.config.inc,
                upto,
            };
            if out.send(conn, &request, &[]).is_ok() {
                self.ceiling_asked_at = Some(now);
            }
        }
    }

    /// A committed entry, while it is in memory: after the flush that committed it, at least.
    #[must_use]
    pub fn committed_entry(&self, entry: EntryNo) -> Option<&[u8]> {
        self.log.get(entry).filter(|_| entry <= self.committed)
    }

    /// The root at a glance.
    #[must_use]
    pub fn status(&self) -> RootStatus {
        let (members, members_connected, held_by_all) = self.group_status();
        RootStatus {
            slot: self.config.slot,
            inc: self.config.inc,
            follows: self.granted.is_none() && self.following.in_group,
            group: self.member_statuses(),
            epoch: self.granted.unwrap_or_default(),
            promised: self.promised,
            answers: self.serves(),
            members,
            members_connected,
            held_by_all,
            recorded: self.is_recorded(),
            last: self.state.entry,
            commit: self.committed,
            view: self.state.view,
            tail: self.committed_end,
            head: self.committed_trim,
            ceiling: self.state.ceiling,
            shards: self.state.shards().filter(|it| it.is_open()).count(),
            edges: self
                .children
                .iter()
                .filter(|child| child.link.is_running())
                .count(),
            cut_log_bytes: self.cut_log_bytes(),
            cut_log_first: self.log.first(),
            last_cut_at: self.last_cut_at,
            counters: self.counters,
        }
    }

    /// Whether this life may answer for the log. What an earlier life committed counts only once an entry of this one's
    /// epoch follows it; an answer before that would deny positions that were acknowledged.
    fn serves(&self) -> bool {
        self.granted.is_some()
            && (self.committed >= self.begun || K::mutant(Mutant::AnswerBeforeOwnEpoch))
    }

    /// Bytes of entries in memory.
    fn cut_log_bytes(&self) -> u64 {
        self.log.bytes() + self.kept.bytes()
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
