//! The leader of the root group (ORDERING.md, ROOT LEADER), as a group of one: turns rounds into committed cuts, logs views
//! and trims, serves the cut log.
//!
//! Nothing above the commit index leaves this machine. At a flushed class an entry is committed when the journal has made
//! it durable; at D0 when it is in memory, and positions are used only below a ceiling that the controller has reserved.
//!
//! Files: `child` (edges and rounds), `cut` (appending and committing entries), `drop` (when entries go), `serve` (entries,
//! tail, locate, trim), `start` (restart and grants).

mod child;
mod cut;
mod drop;
mod serve;
mod start;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::marker::PhantomData;

use ionian_store::Store;
use ionian_types::{
    ClientId, ClusterId, ConnId, Durability, EntryNo, Gsn, Inc, Knobs, LogId, Mutant, Nanos,
    NodeId, RootEpoch, SessionNo, ShardId, Shipped, Slot, Time, ViewId,
};
use ionian_wire::WIRE_VERSION;
use ionian_wire::entry::ENTRY_BYTES_MAX;
use ionian_wire::frame::{CeilingRequest, Hello, Message, Role};

use crate::cutlog::{CHUNK_ENTRIES, EntryLog, Kept, LogState};
use crate::outbox::Outbox;
use child::Child;
use cut::Pending;

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
            class,
            cut_interval: Nanos(0),
            inflight_max: 8,
            cut_log_bytes_max: 1 << 30,
            cut_log_chunk_entries: CHUNK_ENTRIES,
            sync: Nanos::from_ms(50),
            retry: Nanos::from_ms(100),
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
}

/// A root at a glance.
#[derive(Clone, Copy, Debug)]
pub struct RootStatus {
    /// The root epoch, once granted.
    pub epoch: RootEpoch,
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
    Leaf(NodeId, Inc),
    Controller,
}

/// The root.
#[derive(Debug)]
pub struct Root<K: Knobs = Shipped> {
    config: RootConfig,
    store: Store,
    granted: Option<RootEpoch>,
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
    pending: VecDeque<Pending>,
    children: Vec<Child>,
    cut_at: Time,
    flushed_at: Time,
    last_cut_at: Option<Time>,
    sync_at: Time,
    controller: Option<ConnId>,
    ceiling_asked_at: Option<Time>,
    intents_done: bool,
    /// Trims to be answered once an entry is committed: who asked, the request, the entry.
    trims: Vec<(ConnId, u64, EntryNo)>,
    conns: Vec<Kind>,
    close: Vec<ConnId>,
    buffer: Box<[u8]>,
    scratch: Vec<u8>,
    items: Vec<ionian_wire::entry::CutItem>,
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
            begun: EntryNo::ZERO,
            state: LogState::default(),
            base: LogState::default(),
            log: EntryLog::new(EntryNo::ZERO, config.cut_log_chunk_entries),
            kept: Kept::default(),
            keep_again_at: now,
            committed: EntryNo::ZERO,
            committed_end: Gsn::ZERO,
            committed_trim: Gsn::ZERO,
            pending: VecDeque::with_capacity(config.inflight_max + 8),
            children: Vec::new(),
            cut_at: now,
            flushed_at: now,
            last_cut_at: None,
            sync_at: now,
            controller: None,
            ceiling_asked_at: None,
            intents_done: false,
            trims: Vec::with_capacity(64),
            conns: Vec::with_capacity(1024),
            close: Vec::new(),
            buffer: vec![0; ENTRY_BYTES_MAX].into_boxed_slice(),
            scratch: Vec::with_capacity(300 * 1024),
            items: Vec::with_capacity(1024),
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
            slot: Slot::ZERO,
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
            child.disconnect::<K>(conn);
        }
        if self.controller == Some(conn) {
            self.controller = None;
        }
        self.trims.retain(|(waiting, ..)| *waiting != conn);
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
            (Message::Up(up, items), Kind::Leaf(node, inc)) => {
                self.on_up(conn, node, inc, up, items, out)
            }
            (Message::NeedEdge(_, _), Kind::Leaf(node, inc)) => self.restart_edge(node, inc),
            (Message::Backfill(body, _), Kind::Replica) => self.on_backfill(conn, body, out),
            (Message::Tail(body, _), Kind::Client) => self.on_tail(conn, body, out),
            (Message::Locate(body, _), Kind::Client) => self.on_locate(conn, body, out),
            (Message::TrimRequest(body, _), Kind::Client | Kind::Replica) => {
                self.on_trim(conn, body, out)
            }
            (Message::Intent(body, changes), Kind::Controller) => {
                self.on_intent(conn, body, changes, out)
            }
            (Message::RootGrant(body, _), Kind::Controller) => self.on_grant(body),
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
            Role::Leaf if mine && about => {
                for child in self
                    .children
                    .iter_mut()
                    .filter(|child| child.is(hello.node, hello.inc))
                {
                    child.connect::<K>(conn);
                }
                let kind = Kind::Leaf(hello.node, hello.inc);
                self.replace(kind, conn);
                self.sync_at = now;
                kind
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

    /// Closes the connection of a leaf that `conn` replaces: whoever believes in it must know. No view need name this life
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
            if !child::keeps_edges::<K>() {
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
        self.answer_trims(out);
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
        if !self.intents_done && self.granted.is_some() && self.view_committed() {
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
        if short && waited {
            let upto = Gsn::new(
                self.state
                    .end_gsn
                    .get()
                    .saturating_add(2 * start::CEILING_MARGIN),
            );
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
        RootStatus {
            epoch: self.granted.unwrap_or_default(),
            commit: self.committed,
            view: self.state.view,
            tail: self.committed_end,
            head: self.committed_trim,
            ceiling: self.state.ceiling,
            shards: self
                .state
                .shards
                .values()
                .filter(|shard| shard.open)
                .count(),
            edges: self
                .children
                .iter()
                .filter(|child| child.is_running())
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
