//! The machine: messages and time in, state changed, messages out by [`Directory::poll`].

use core::marker::PhantomData;
use std::collections::{BTreeMap, VecDeque};

use ionian_types::{
    ClusterId, ConnId, Durability, Gsn, Knobs, LogId, Nanos, NodeId, RootEpoch, ShardId, Shipped,
    Slot, Time, VertexId, ViewId,
};
use ionian_wire::directory::ClusterMap;
use ionian_wire::frame::{Body, Message, ShardStatus};

use crate::command::{Action, Command};
use crate::decision::{Decision, What, Why};
use crate::detection::{Detection, DetectionConfig};
use crate::failover::Watch;
use crate::history::Event;
use crate::outbound::{Answer, Conn, PublicMap, Sent};
use crate::registration::Refused;
use crate::snapshot::RestoreError;
use crate::spec::{ClusterSpec, LogSpec, SpecError};
use crate::state::{Away, Log, Node, PlaceKey, State};
use crate::{ANSWERS_MAX, COMMANDS_MAX, DECISIONS_KEPT, HISTORY_KEPT, MAP_BYTES_MAX, plan};

/// How a directory behaves in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectoryConfig {
    /// The controller's own node, as it says in its hello.
    pub node: NodeId,
    /// An intent that is not reported as logged is sent again after this long.
    pub resend_after: Nanos,
    /// A process whose connection is lost is shown as down after this long.
    pub down_after: Nanos,
    /// A member of a root group whose connection is lost counts as gone after this long, and another one leads. Shorter means
    /// shorter pauses when a leader dies, and more changes of leader when connections break.
    pub failover_after: Nanos,
    /// A registration over a connection that its process seems to have given up is taken after this long, if the connection
    /// is still there: longer than an edge needs to find out that a peer is gone.
    pub late_after: Nanos,
    /// A user's client asks for its grants again after this long, and so learns of changed rights and keys. Nodes hear of a
    /// change at once.
    pub grant_lease: Nanos,
    /// A new epoch of grants begins after so many microseconds; what was made in one is good until the end of the next.
    pub key_life_us: u64,
    /// How deaths are found; not at all without it.
    pub detection: Option<DetectionConfig>,
    /// Changes are made durable as [commands](Directory::take_commands) by a group of controllers, rather than as
    /// [snapshots](Directory::take_snapshot).
    pub replicated: bool,
}

impl Default for DirectoryConfig {
    fn default() -> Self {
        Self {
            node: NodeId::ZERO,
            resend_after: Nanos::from_ms(200),
            down_after: Nanos::from_ms(1000),
            failover_after: Nanos::from_ms(100),
            late_after: Nanos::from_ms(5000),
            grant_lease: Nanos::from_ms(5000),
            key_life_us: 3_600_000_000,
            detection: None,
            replicated: false,
        }
    }
}

/// A snapshot to be made durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// To be named to [`Directory::persisted`].
    pub version: u64,
    /// The bytes. They replace those of every earlier snapshot.
    pub bytes: Vec<u8>,
}

/// A command to be made durable, in the order of versions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TakenCommand {
    /// The version that it makes, to be named to [`Directory::persisted`].
    pub version: u64,
    /// The bytes, for [`State::apply_bytes`].
    pub bytes: Vec<u8>,
}

/// Counts of what was set aside.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Messages that a directory does not take.
    pub unexpected: u64,
    /// Hellos of another cluster or wire version.
    pub foreign: u64,
    /// Messages of a life that is not the current one, or of a connection that has no such role.
    pub stale: u64,
    /// Messages dropped because too many answers or changes wait to become durable. Peers ask again.
    pub busy: u64,
    /// Changes that the state did not take: a defect of this machine.
    pub unfit: u64,
}

/// What the leaf last said about a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardHealth {
    /// When it was said.
    pub at: Time,
    /// The report.
    pub report: ShardStatus,
}

/// A log as the status shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogStatus {
    /// The log.
    pub log: LogId,
    /// Its name.
    pub name: String,
    /// Its durability class.
    pub class: Durability,
    /// The root epoch of the root's current life.
    pub root_epoch: RootEpoch,
    /// The last view logged.
    pub view: ViewId,
    /// The view that is sent to the root and not reported as logged.
    pub pending: Option<ViewId>,
    /// Positions below are lost with earlier cut logs, trimmed, or used.
    pub floor: Gsn,
    /// Positions below are reserved.
    pub ceiling: Gsn,
    /// Places whose process is not there, for people.
    pub missing: Vec<String>,
    /// Where the vertices of its tree are, in depth-first order.
    pub tree: Vec<VertexStatus>,
}

/// Where a vertex of a tree is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VertexStatus {
    /// Its number.
    pub vertex: VertexId,
    /// The number of vertices right below; 0 for a leaf.
    pub children: u16,
    /// Its node.
    pub node: NodeId,
    /// The address that it registered; empty when that is the node's own.
    pub address: String,
}

/// The brain of the controller that leads, or of the single built-in one.
#[derive(Debug)]
pub struct Directory<K: Knobs = Shipped> {
    pub(crate) state: State,
    pub(crate) config: DirectoryConfig,
    pub(crate) persisted: u64,
    /// The time of day, as the edge last said it.
    pub(crate) wall_us: u64,
    /// Commands that the edge has not taken yet.
    commands: Vec<TakenCommand>,
    /// The map of a version that is becoming durable.
    pub(crate) in_flight: Option<(u64, PublicMap)>,
    pub(crate) public: Option<PublicMap>,
    pub(crate) conns: BTreeMap<ConnId, Conn>,
    /// How many connections there were.
    opened: u64,
    pub(crate) bindings: BTreeMap<PlaceKey, Binding>,
    /// Places shown as up without a connection, and when they are to be shown as down.
    pub(crate) absent: BTreeMap<PlaceKey, Time>,
    /// When those are that were up when this controller began to lead, and were not heard of since.
    first_down_at: Time,
    pub(crate) answers: VecDeque<Answer>,
    /// The last time each log's pending intent was sent.
    pub(crate) sent: BTreeMap<LogId, Sent>,
    /// Grants to be sent, with the version that made them.
    pub(crate) grants: BTreeMap<LogId, u64>,
    /// The root groups of more than one member.
    pub(crate) watches: BTreeMap<LogId, Watch>,
    pub(crate) health: BTreeMap<(LogId, ShardId), ShardHealth>,
    pub(crate) detection: Detection,
    /// The version at which the transactions were last looked at.
    pub(crate) stepped: u64,
    decisions: VecDeque<Decision>,
    pub(crate) refused: VecDeque<Refused>,
    pub(crate) counters: Counters,
    knobs: PhantomData<K>,
}

/// The connection of the process that fills a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Binding {
    pub(crate) conn: ConnId,
    /// The request that it registered with, when it did so on this connection.
    pub(crate) request: Option<u64>,
}

impl Log {
    fn tree_status(&self) -> Vec<VertexStatus> {
        let vertices = self.tree.shape().iter().filter_map(|branch| {
            let place = &self.tree.vertex(branch.vertex)?.place;
            Some(VertexStatus {
                vertex: branch.vertex,
                children: branch.is.children,
                node: place.node,
                address: place.address.clone(),
            })
        });
        vertices.collect()
    }
}

impl<K: Knobs> Directory<K> {
    /// Makes the directory of a new cluster. It is dirty: nothing leaves before the first snapshot is durable.
    ///
    /// # Errors
    /// [`SpecError`]; effect none.
    pub fn new(
        cluster: ClusterId,
        spec: &ClusterSpec,
        config: DirectoryConfig,
        now: Time,
    ) -> Result<Self, SpecError> {
        let mut directory = Self::with_state(State::new(), config, 0, now);
        directory.commit(Action::Found { cluster });
        directory.reconcile(now, spec)?;
        Ok(directory)
    }

    /// Restores the directory from its last durable snapshot. Processes keep their incarnations and connect again.
    ///
    /// # Errors
    /// [`RestoreError`]; effect none.
    pub fn restore(bytes: &[u8], config: DirectoryConfig, now: Time) -> Result<Self, RestoreError> {
        Ok(Self::lead(State::decode(bytes)?, config, now))
    }

    /// Makes the brain of a controller that leads from now on, from the state that the group has agreed on: all of it counts
    /// as durable.
    #[must_use]
    pub fn lead(state: State, config: DirectoryConfig, now: Time) -> Self {
        let version = state.version;
        let mut directory = Self::with_state(state, config, version, now);
        directory.public = Some(directory.current_map());
        directory.watch_all(now);
        directory.resume_detection(now);
        directory.step_transactions(now);
        directory
    }

    fn with_state(state: State, config: DirectoryConfig, persisted: u64, now: Time) -> Self {
        let down_at = now.after(config.down_after);
        let up = state.places().filter(|(_, place)| place.up);
        Self {
            absent: up.map(|(key, _)| (key, down_at)).collect(),
            first_down_at: down_at,
            state,
            config,
            persisted,
            wall_us: 0,
            commands: Vec::new(),
            in_flight: None,
            public: None,
            conns: BTreeMap::new(),
            opened: 0,
            bindings: BTreeMap::new(),
            answers: VecDeque::new(),
            sent: BTreeMap::new(),
            grants: BTreeMap::new(),
            watches: BTreeMap::new(),
            health: BTreeMap::new(),
            detection: Detection::lead(persisted),
            stepped: 0,
            decisions: VecDeque::new(),
            refused: VecDeque::new(),
            counters: Counters::default(),
            knobs: PhantomData,
        }
    }

    /// Whether processes that were up when this controller began to lead have neither come back nor been given up yet: what
    /// is not connected may be there. It ends with what [`Self::on_deadline`] does, if not before.
    pub(crate) fn awaits_processes(&self) -> bool {
        self.absent.values().any(|at| *at == self.first_down_at)
    }

    /// Takes over what the configuration says now: new nodes and logs, changed addresses and domains. Nodes and logs that it
    /// no longer names stay.
    ///
    /// # Errors
    /// [`SpecError`]; the logs before the one at fault are created.
    pub fn reconcile(&mut self, now: Time, spec: &ClusterSpec) -> Result<(), SpecError> {
        spec.check_nodes()?;
        for (&id, node) in &spec.nodes {
            let known = self.state.nodes.get(&id);
            if known
                .is_some_and(|known| known.domain == node.domain && known.address == node.address)
            {
                continue;
            }
            self.commit(Action::SetNode {
                node: id,
                domain: node.domain,
                address: node.address.clone(),
            });
        }
        for log in &spec.logs {
            self.create_log(now, log)?;
        }
        Ok(())
    }

    /// Creates a log, or finds the one of this name if it is the same. Its shards open when their replicas have registered.
    ///
    /// # Errors
    /// [`SpecError`]; effect none.
    pub fn create_log(&mut self, now: Time, spec: &LogSpec) -> Result<LogId, SpecError> {
        let mut logs = self.state.logs.iter();
        if let Some((&id, log)) = logs.find(|(_, log)| log.name == spec.name) {
            return match log.differs_from(spec) {
                Some(what) => Err(SpecError::Exists {
                    name: spec.name.clone(),
                    what,
                }),
                None => Ok(id),
            };
        }
        let domain_of = |node| self.state.nodes.get(&node).map(|node| node.domain);
        spec.check(domain_of, self.state.logs.len() + 1)?;
        let bytes = self.state.map_bytes() + self.state.log_map_bytes(&Log::new(spec));
        if bytes > MAP_BYTES_MAX {
            return Err(SpecError::MapBytes {
                bytes,
                max: MAP_BYTES_MAX,
            });
        }
        let id = LogId::new(self.state.next_log);
        self.commit(Action::CreateLog {
            log: id,
            spec: spec.clone(),
        });
        let name = spec.name.clone();
        self.decide(now, What::CreateLog { log: id, name }, Why::Asked);
        Ok(id)
    }

    /// A connection is there. The directory greets it; the peer says who it is by `Hello` or `Register`.
    pub fn connected(&mut self, conn: ConnId) {
        self.opened += 1;
        let opened = self.opened;
        let fresh = Conn {
            opened,
            ..Conn::default()
        };
        self.conns.insert(conn, fresh);
    }

    /// A connection is gone.
    pub fn disconnected(&mut self, now: Time, conn: ConnId) {
        self.conns.remove(&conn);
        self.answers.retain(|answer| answer.conn != conn);
        let down_at = now.after(self.config.down_after);
        let lost: Vec<PlaceKey> = self.places_of(conn).collect();
        for key in lost {
            self.bindings.remove(&key);
            match self.last_of_life(key) {
                Some(other) => self.bind(now, key, other, None),
                None => {
                    self.absent.insert(key, down_at);
                    if let PlaceKey::Root(log, slot) = key {
                        self.member_seen(now, log, slot, false);
                    }
                }
            }
        }
        self.observer_gone(now, conn);
        self.take_held(now);
    }

    /// Takes a message of a connection that is there.
    pub fn handle(&mut self, now: Time, conn: ConnId, message: &Message<'_>) {
        if !self.conns.contains_key(&conn) {
            self.counters.stale += 1;
            return;
        }
        if self.config.replicated && self.state.version - self.persisted >= COMMANDS_MAX {
            self.counters.busy += 1;
            return;
        }
        self.take(now, conn, message);
        self.step_transactions(now);
    }

    fn take(&mut self, now: Time, conn: ConnId, message: &Message<'_>) {
        match message {
            Message::Hello(hello, _) => self.greet(now, conn, hello),
            Message::Register(request, address) => self.register(now, conn, request, address),
            Message::DirectoryRequest(request, _) => self.ask(conn, *request),
            Message::KeysRequest(request, _) => self.keys_requested(conn, *request),
            Message::IntentDone(done, _) => self.intent_done(now, conn, *done),
            Message::CeilingRequest(request, _) => self.raise_ceiling(now, conn, *request),
            Message::SealAck(ack, _) => self.sealed(now, conn, *ack),
            Message::RootLed(led, _) => self.led(now, conn, *led),
            Message::RootAlone(alone, _) => self.alone(now, conn, *alone),
            Message::ShardStatus(report, _) => self.shard_status(now, conn, *report),
            Message::Observe(observe, _) => self.observe(now, conn, *observe),
            Message::Suspect(suspect, _) => self.suspected(now, conn, *suspect),
            Message::ProbeAnswer(answer, _) => self.answered(now, conn, *answer),
            _ => self.counters.unexpected += 1,
        }
    }

    /// When [`Self::on_deadline`] is next due.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        let absent = self.absent.values().copied();
        let resend = self
            .state
            .logs
            .keys()
            .filter_map(|&log| self.resend_at(log));
        let held = self.conns.values().filter_map(|conn| conn.held.as_ref());
        let held = held.filter(|held| !self.is_held_early(held));
        let held = held.map(|held| held.until);
        let due = absent
            .chain(resend)
            .chain(held)
            .chain(self.failover_at())
            .chain(self.detection_at())
            .min();
        due.unwrap_or(Time::FAR)
    }

    /// Takes registrations that were held back, and shows processes as down whose connection did not come back. Intents due are sent by [`Self::poll`].
    pub fn on_deadline(&mut self, now: Time) {
        self.take_held(now);
        self.look_after_groups(now);
        self.look_for_deaths(now);
        let due: Vec<PlaceKey> = self
            .absent
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(&key, _)| key)
            .collect();
        for key in due {
            self.absent.remove(&key);
            let Some(place) = self.state.place(key).filter(|place| place.up) else {
                continue;
            };
            let node = place.node;
            self.commit(Action::Show {
                place: key,
                up: false,
            });
            let (log, place) = (key.log(), self.state.place_name(key));
            self.decide(now, What::Down { log, place, node }, Why::ConnectionLost);
            // Its process may have died while another controller led.
            self.inquire(now, node, true);
        }
    }

    /// Whether there are changes that are not durable.
    #[must_use]
    pub const fn dirty(&self) -> bool {
        self.state.version > self.persisted
    }

    /// The version of the state.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.state.version
    }

    /// The cluster's identity.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        self.state.cluster
    }

    /// What time it is for people, in microseconds since 1970. Commands carry it into the histories of logs.
    pub const fn set_wall_clock_us(&mut self, now_us: u64) {
        self.wall_us = now_us;
    }

    /// The commands made since the last call, in order, for a group of controllers to agree on. Empty unless the
    /// configuration says that the directory is replicated.
    pub fn take_commands(&mut self) -> Vec<TakenCommand> {
        if !self.commands.is_empty() && self.in_flight.is_none() {
            self.in_flight = Some((self.state.version, self.current_map()));
        }
        core::mem::take(&mut self.commands)
    }

    /// The snapshot to make durable now: one at a time, `None` when there is no change or one is under way.
    pub fn take_snapshot(&mut self) -> Option<Snapshot> {
        if self.config.replicated || !self.dirty() || self.in_flight.is_some() {
            return None;
        }
        self.in_flight = Some((self.state.version, self.current_map()));
        Some(Snapshot {
            version: self.state.version,
            bytes: self.state.encode(),
        })
    }

    /// The state as bytes, whether durable or not.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        self.state.encode()
    }

    /// The snapshot of this version, or every command up to it, is durable: what depends on it may leave.
    ///
    /// # Panics
    /// If the version is one that was not taken.
    pub fn persisted(&mut self, version: u64) {
        let taken = self.in_flight.as_ref().map(|(taken, _)| *taken);
        if self.config.replicated {
            assert!(
                version <= self.state.version,
                "a version that was never made"
            );
        } else {
            assert_eq!(
                taken,
                Some(version),
                "the snapshot under way is another one"
            );
        }
        self.persisted = self.persisted.max(version);
        if taken.is_some_and(|taken| taken <= version) {
            self.public = self.in_flight.take().map(|(_, map)| map);
        }
        if version == self.state.version {
            let shown = self.public.as_ref().map(|map| map.version);
            if shown != Some(self.state.map_version) {
                self.public = Some(self.current_map());
            }
        }
    }

    /// The snapshot under way could not be made durable. It may be tried again; what depends on it stays.
    pub fn not_persisted(&mut self) {
        self.in_flight = None;
    }

    /// The cluster map as it is now, whether durable or not. For the process that hosts the directory.
    #[must_use]
    pub fn map(&self) -> ClusterMap {
        self.state.map()
    }

    /// The last decisions, oldest first.
    pub fn decisions(&self) -> impl ExactSizeIterator<Item = &Decision> {
        self.decisions.iter()
    }

    /// The history of a log's views, oldest first; empty for a log that is not there.
    pub fn history(&self, log: LogId) -> impl Iterator<Item = &Event> {
        let log = self.state.logs.get(&log).into_iter();
        log.flat_map(|log| log.history.iter())
    }

    /// Counts of what was set aside.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// What the leaf last said of a shard.
    #[must_use]
    pub fn health(&self, log: LogId, shard: ShardId) -> Option<ShardHealth> {
        self.health.get(&(log, shard)).copied()
    }

    /// The logs as the status shows them, by id.
    pub fn logs(&self) -> impl Iterator<Item = LogStatus> {
        self.state.logs.iter().map(|(&id, log)| {
            let missing = self.state.places().filter(|(key, place)| {
                key.log() == id && (!place.up || !self.bindings.contains_key(key))
            });
            let missing = missing.map(|(key, place)| {
                format!("{} (node {})", self.state.place_name(key), place.node)
            });
            LogStatus {
                log: id,
                name: log.name.clone(),
                class: log.class,
                root_epoch: log.root.epoch,
                view: log.view,
                pending: log.pending.as_ref().map(|pending| pending.view),
                floor: log.floor,
                ceiling: log.ceiling,
                missing: missing.collect(),
                tree: log.tree_status(),
            }
        })
    }

    /// The process behind `conn` fills the place from now on.
    pub(crate) fn bind(&mut self, now: Time, key: PlaceKey, conn: ConnId, request: Option<u64>) {
        self.bindings.insert(key, Binding { conn, request });
        self.absent.remove(&key);
        if let Some(node) = self.state.place(key).map(|place| place.node) {
            self.detection.seen(node);
        }
        self.note_life(key, conn);
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.known.get_or_insert(0);
        }
        if let PlaceKey::Root(log, slot) = key {
            self.member_seen(now, log, slot, true);
            self.look_after(now, log);
            if self.leader_of(log) == Some(slot) {
                self.sent.remove(&log);
                self.grants.insert(log, self.state.version);
            }
        }
        self.plan(now, key.log());
    }

    /// The place's present life has said that `conn` leads to it.
    pub(crate) fn note_life(&mut self, key: PlaceKey, conn: ConnId) {
        let inc = self.state.place(key).map(|place| place.inc);
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.life = inc.map(|inc| (key, inc));
        }
    }

    /// Whether the place is bound to a connection that opened after `conn`. Its process has given `conn` up, then, and what
    /// it had said there comes late.
    pub(crate) fn is_given_up(&self, key: PlaceKey, conn: ConnId) -> bool {
        let opened = |conn: ConnId| self.conns.get(&conn).map(|conn| conn.opened);
        let bound = self.bindings.get(&key).map(|binding| binding.conn);
        bound.and_then(opened) > opened(conn)
    }

    /// Of the connections of the place's present life the one that opened last.
    pub(crate) fn last_of_life(&self, key: PlaceKey) -> Option<ConnId> {
        let life = Some((key, self.state.place(key)?.inc));
        let conns = self.conns.iter().filter(|(_, conn)| conn.life == life);
        conns.max_by_key(|(_, conn)| conn.opened).map(|(&id, _)| id)
    }

    /// The incarnation that this very request was given before.
    pub(crate) fn repeated(
        &self,
        key: PlaceKey,
        conn: ConnId,
        request: u64,
    ) -> Option<ionian_types::Inc> {
        let same = Binding {
            conn,
            request: Some(request),
        };
        let binding = self.bindings.get(&key).filter(|binding| **binding == same);
        binding.and(self.state.place(key)).map(|place| place.inc)
    }

    pub(crate) fn plan(&mut self, now: Time, id: LogId) {
        let Some(log) = self.state.logs.get(&id) else {
            return;
        };
        let nodes = &self.state.nodes;
        let bindings = &self.bindings;
        let leads = self.recorded_leader_of(id).is_some();
        let domain_of = |node| nodes.get(&node).map_or(0, |node: &Node| node.domain);
        let ready = |shard| {
            let epoch = log.shards.get(&shard).map(|state| state.epoch);
            let health = self.health.get(&(id, shard));
            health.is_some_and(|it| it.report.ready && Some(it.report.epoch) == epoch)
        };
        let Some(plan) = plan::next_view::<K>(
            id,
            log,
            leads,
            domain_of,
            |key| bindings.contains_key(&key),
            |node| self.state.away(node) != Away::No,
            ready,
        ) else {
            return;
        };
        let kept = plan.decisions.len().saturating_sub(HISTORY_KEPT);
        self.commit(Action::Propose {
            log: id,
            view: plan.view,
            changes: plan.changes,
            decisions: plan.decisions[kept..].to_vec(),
        });
        self.sent.remove(&id);
        for (what, why) in plan.decisions {
            self.decide(now, what, why);
        }
    }

    pub(crate) fn bound(&self, conn: ConnId, key: PlaceKey) -> Option<&Log> {
        let binding = self.bindings.get(&key)?;
        if binding.conn != conn {
            return None;
        }
        self.state.logs.get(&key.log())
    }

    /// The log of a shard whose leaf is behind `conn`, in the present tree.
    pub(crate) fn bound_leaf(&self, conn: ConnId, log: LogId, shard: ShardId) -> Option<&Log> {
        let found = self.state.logs.get(&log)?;
        let rank = found.shards.get(&shard)?.rank;
        let leaf = found.tree.leaf_of((rank, shard))?;
        self.bound(conn, PlaceKey::Vertex(log, leaf))
    }

    fn places_of(&self, conn: ConnId) -> impl Iterator<Item = PlaceKey> {
        let here = self.bindings.iter();
        here.filter(move |(_, binding)| binding.conn == conn)
            .map(|(&key, _)| key)
    }

    pub(crate) fn answer<B: Body>(&mut self, conn: ConnId, body: &B, tail: &[u8]) {
        self.answers
            .push_back(Answer::new(conn, self.state.version, body, tail));
    }

    pub(crate) fn answers_have_room(&mut self) -> bool {
        let room = self.answers.len() < ANSWERS_MAX;
        self.counters.busy += u64::from(!room);
        room
    }

    /// Changes the state. The change was checked against this very state, so that it fits; whether it did.
    pub(crate) fn commit(&mut self, action: Action) -> bool {
        let command = Command {
            follows: self.state.version,
            at_us: self.wall_us,
            action,
        };
        let outcome = self.state.apply(&command);
        if let Some(error) = outcome.refused {
            debug_assert!(false, "{command:?}: {error}");
            self.counters.unfit += 1;
            return false;
        }
        if self.config.replicated {
            self.commands.push(TakenCommand {
                version: outcome.version,
                bytes: command.encode(),
            });
        }
        true
    }

    pub(crate) fn decide(&mut self, at: Time, what: What, why: Why) {
        if self.decisions.len() == DECISIONS_KEPT {
            self.decisions.pop_front();
        }
        self.decisions.push_back(Decision { at, what, why });
    }

    /// The slot's place is connected.
    #[must_use]
    pub fn is_connected(&self, log: LogId, shard: ShardId, slot: Slot) -> bool {
        self.bindings
            .contains_key(&PlaceKey::Replica(log, shard, slot))
    }
}
