//! The machine: messages and time in, state changed, messages out by [`Directory::poll`].

mod binding;
mod config;
mod durable;
mod shown;

use core::marker::PhantomData;
use std::collections::{BTreeMap, VecDeque};

use ionian_types::{ClusterId, ConnId, Knobs, LogId, ShardId, Shipped, Time};
use ionian_wire::frame::{Body, Message};

pub(crate) use self::binding::Binding;
pub use self::config::DirectoryConfig;
pub use self::durable::{Snapshot, TakenCommand};
pub use self::shown::{LogStatus, ShardHealth, VertexStatus};
use crate::command::Action;
use crate::decision::{Decision, What, Why};
use crate::detection::Detection;
use crate::failover::Watch;
use crate::outbound::{Answer, Conn, PublicMap, Sent};
use crate::registration::Refused;
use crate::snapshot::RestoreError;
use crate::spec::{ClusterSpec, LogSpec, SpecError};
use crate::state::{Away, Log, Node, PlaceKey, State};
use crate::{ANSWERS_MAX, COMMANDS_MAX, DECISIONS_KEPT, HISTORY_KEPT, MAP_BYTES_MAX, plan};

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

    pub(crate) fn answer<B: Body>(&mut self, conn: ConnId, body: &B, tail: &[u8]) {
        self.answers
            .push_back(Answer::new(conn, self.state.version, body, tail));
    }

    pub(crate) fn answers_have_room(&mut self) -> bool {
        let room = self.answers.len() < ANSWERS_MAX;
        self.counters.busy += u64::from(!room);
        room
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

    pub(crate) fn decide(&mut self, at: Time, what: What, why: Why) {
        if self.decisions.len() == DECISIONS_KEPT {
            self.decisions.pop_front();
        }
        self.decisions.push_back(Decision { at, what, why });
    }
}
