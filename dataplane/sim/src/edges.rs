//! The edge of every process: makes machines, hands them messages and time, carries what they say.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use ionian_control_core::{ClusterSpec, Directory, DirectoryConfig, LogSpec, NodeSpec, RootQuorum};
use ionian_core::aggregator::{Aggregator, AggregatorConfig};
use ionian_core::client::{Client, ClientConfig, PeerKind};
use ionian_core::edge::{self, Speaker, Step, Target};
use ionian_core::leaf::{Leaf, LeafConfig};
use ionian_core::replica::{Replica, ReplicaConfig};
use ionian_core::root::{Root, RootConfig};
use ionian_store::Store;
use ionian_types::{
    ClientId, ConnId, Inc, Knobs, Nanos, NodeId, OrderingMode, ShardId, Slot, Time,
};
use ionian_wire::directory::ClusterMap;
use ionian_wire::frame::{DirectoryRequest, Message, Role};
use ionian_wire::record::RECORD_ENCODED_BYTES_MAX;

use crate::app::{App, Tap};
use crate::invariant::Invariant;
use crate::plan::Fault;
use crate::process::{End, Machine, Peer, Place, ProcId, Process};
use crate::trees::is_vertex;
use crate::world::{CLUSTER, Event, LOG, Phase, World};

/// Flushes in a row that still send something; more means that a machine sends for ever.
const FLUSHES_MAX: u32 = 4096;

pub(crate) const fn role(place: Place) -> Role {
    match place {
        Place::Controller => Role::Controller,
        Place::Root(_) => Role::Root,
        Place::Aggregator(_) => Role::Aggregator,
        Place::Leaf(_) => Role::Leaf,
        Place::Replica(..) => Role::Replica,
        Place::Client(_) => Role::Client,
    }
}

pub(crate) const fn shard_slot(place: Place) -> (ShardId, Slot) {
    match place {
        Place::Replica(shard, slot) => (ShardId::new(shard), Slot::new(slot)),
        Place::Root(slot) => (ShardId::ZERO, Slot::new(slot)),
        _ => (ShardId::ZERO, Slot::ZERO),
    }
}

/// Whether a refusal says that the place is another node's, or that there is no such place.
fn is_called_off(reason: &str) -> bool {
    let says = |part| reason.contains(part);
    says("belongs to node") || says("has no shard") || says("the tree of log")
}

/// The client life of a client's number.
#[must_use]
pub(crate) const fn client_id(number: u32) -> ClientId {
    ClientId::new(0xc11e_0000 + number as u128)
}

impl<K: Knobs> World<K> {
    /// A process starts at a place and is the reachable one from now on.
    pub(crate) fn start(&mut self, place: Place) {
        if self
            .live(place)
            .is_some_and(|proc| self.procs[proc].paused_until <= self.now)
            || self.is_removed(place)
        {
            return;
        }
        let proc = self.start_on(place, self.node(place));
        self.by_place.insert(place, proc);
    }

    /// A process starts at a node that has a place, or is to take it.
    pub(crate) fn start_on(&mut self, place: Place, node: NodeId) -> ProcId {
        let proc = self.procs.len();
        let clock = self.new_clock();
        let mut dials = BTreeMap::new();
        let process = match place {
            Place::Controller => Process::new(
                place,
                node,
                Machine::Directory(Box::new(self.directory(clock.read(self.now)))),
                None,
            ),
            Place::Client(number) => {
                let config = ClientConfig {
                    seed: self.seed ^ u64::from(number),
                    append_timeout: Some(self.plan.append_timeout),
                    request_timeout: Some(Nanos::from_ms(3_000)),
                    rebind_after: Nanos::from_ms(60),
                    probe_after: Nanos::from_ms(150),
                    retry_after: Nanos::from_ms(60),
                    connections_max: 64,
                    // As small as may be: memory is most of what a seed costs.
                    send_bytes_max: RECORD_ENCODED_BYTES_MAX,
                    answer_bytes_max: RECORD_ENCODED_BYTES_MAX,
                    subscribe_bytes_max: RECORD_ENCODED_BYTES_MAX,
                    ..ClientConfig::new(CLUSTER, LOG, client_id(number))
                };
                let mut client = Client::with_knobs(config).expect("the limits are in range");
                let app = App::new(number, self.seed, &mut client);
                if app.sticky {
                    self.history.sticky.insert(number);
                }
                dials.insert(Peer::ClientToController, None);
                Process::new(
                    place,
                    node,
                    Machine::Client(Box::new(client), Box::new(app)),
                    None,
                )
            }
            _ => Process::new(place, node, Machine::None, None),
        };
        self.procs.push(Process { clock, ..process });
        for peer in dials.keys().copied() {
            let after = self.rng_proc.below(1_000_000);
            self.after(after, Event::Dial(proc, peer));
        }
        self.procs[proc].dials = dials;
        match place {
            Place::Root(_) | Place::Replica(..) if self.plan.class.is_flushed() => {
                self.start_store(proc);
            }
            Place::Controller | Place::Client(_) => {}
            _ => {
                let last_inc = self.last_inc.get(&place).copied();
                let last_inc = last_inc.filter(|_| node == self.node(place));
                self.join(proc, last_inc.unwrap_or(Inc::ZERO), false);
            }
        }
        if matches!(place, Place::Client(_)) {
            self.after(1_000_000, Event::Act(proc));
        }
        self.flush_soon(proc);
        proc
    }

    fn directory(&self, now: Time) -> Directory<K> {
        let config = DirectoryConfig {
            node: self.node(Place::Controller),
            resend_after: Nanos::from_ms(40),
            down_after: Nanos::from_ms(100),
            ..DirectoryConfig::default()
        };
        if let Some(bytes) = &self.controller_disk {
            return Directory::restore(bytes, config, now).expect("a snapshot that was durable");
        }
        let spares = crate::changes::spares();
        let nodes = Self::places_of(&self.plan).into_iter().map(|place| {
            let (shard, slot) = shard_slot(place);
            let spec = NodeSpec {
                domain: self.plan.domain(shard.get(), slot.get()),
                address: String::new(),
            };
            (Self::planned_node(place), spec)
        });
        let shards = (0..self.plan.shards).map(|shard| {
            (0..self.plan.replicas)
                .map(|slot| Self::planned_node(Place::Replica(shard, slot)))
                .collect()
        });
        let spec = ClusterSpec {
            nodes: nodes.chain(spares).collect(),
            logs: vec![LogSpec {
                name: "default".into(),
                mode: OrderingMode::Scalog,
                class: self.plan.class,
                root: (0..self.plan.roots)
                    .map(|slot| Self::planned_node(Place::Root(slot)))
                    .collect(),
                root_quorum: if self.plan.all_write {
                    RootQuorum::All
                } else {
                    RootQuorum::Majority
                },
                tree: self.plan.tree_spec(),
                quorum: Some(self.plan.quorum),
                shards: shards.collect(),
            }],
        };
        Directory::new(CLUSTER, &spec, config, now).expect("a sound cluster")
    }

    /// The process has its place: its life begins once the incarnation is durable.
    fn admitted(&mut self, proc: ProcId, inc: Inc) {
        let place = self.procs[proc].place;
        // The last one that registered is where the others connect, even if it was started before another one, and
        // whoever hears of its registration first. One that copies is not the replica yet.
        if self.is_copy(proc) {
            self.say(|| format!("{place} is to be copied as incarnation {inc}"));
        } else if self.last_inc.get(&place).is_none_or(|last| *last < inc) {
            self.last_inc.insert(place, inc);
            self.by_place.insert(place, proc);
            self.moved(proc);
        }
        self.changes.nodes.insert(inc, self.procs[proc].node);
        if let Some(store) = &mut self.procs[proc].store {
            store.set_inc(inc);
        }
        self.run_disk(proc);
        self.begin_life(proc);
    }

    /// Makes the machine of a process that has its place, once a restart would find its incarnation.
    pub(crate) fn begin_life(&mut self, proc: ProcId) {
        let process = &mut self.procs[proc];
        let (Some(join), Machine::None) = (&mut process.join, &process.machine) else {
            return;
        };
        let store = process.store.as_ref();
        let durable = |inc| store.is_none_or(|store| store.inc_durable() == inc);
        let Some(inc) = join.inc().filter(|inc| process.alive && durable(*inc)) else {
            return;
        };
        join.settle();
        let place = process.place;
        let node = self.procs[proc].node;
        let (shard, slot) = shard_slot(place);
        let store = match self.procs[proc].store.take() {
            Some(store) => Some(*store),
            None if is_vertex(place) => None,
            None => Some(Store::new(self.store_config(place, node))),
        };
        let now = self.local(proc);
        self.procs[proc].machine = match (place, store) {
            (Place::Root(_), Some(store)) => {
                let config = RootConfig {
                    slot,
                    cut_interval: Nanos::from_us(self.plan.cut_interval_us),
                    cut_log_chunk_entries: self.plan.cut_log_chunk_entries,
                    cut_log_bytes_max: self.plan.cut_log_bytes_max,
                    ..RootConfig::new(CLUSTER, node, inc, LOG, self.plan.class)
                };
                Machine::Root(Box::new(Root::new(config, store, now)))
            }
            (Place::Replica(..), Some(store)) => {
                let mut config = ReplicaConfig {
                    run_bytes_max: 16 << 10,
                    cuts_ready: 1,
                    checkpoint_every: self.plan.checkpoint_every,
                    ..ReplicaConfig::new(CLUSTER, node, inc, LOG, shard, slot, self.plan.replicas)
                };
                config.timing.quiet = self.plan.quiet;
                Machine::Replica(Box::new(Replica::new(config, store, now)))
            }
            (Place::Aggregator(_), _) => {
                let config = AggregatorConfig::new(CLUSTER, node, inc, LOG, slot);
                Machine::Aggregator(Box::new(Aggregator::new(config, now)))
            }
            _ => Machine::Leaf(Box::new(Leaf::new(
                LeafConfig {
                    gone: self.plan.gone,
                    ..LeafConfig::new(CLUSTER, node, inc, LOG)
                },
                now,
            ))),
        };
        let targets = edge::dials(role(place), slot);
        let by_map = [Target::Controller, Target::Parent, Target::Leaf];
        let targets = targets.filter(|target| !by_map.contains(target));
        let mut peers: Vec<Peer> = targets.map(Peer::Node).collect();
        if self.is_copy(proc) {
            // Nobody connects to it, and the leaf knows the other one.
            let above = slot.get()..self.plan.replicas;
            peers.extend(above.map(|peer| Peer::Node(Target::Peer(Slot::new(peer)))));
        } else {
            self.tell_trees(place);
            peers.extend(self.peers_above(place));
        }
        for peer in peers {
            self.procs[proc].dials.insert(peer, None);
            self.after(0, Event::Dial(proc, peer));
        }
        let Some(conn) = self.procs[proc].controller_conn() else {
            return;
        };
        self.greet(proc, conn);
        let hello = self.procs[proc]
            .join
            .as_ref()
            .and_then(|join| join.controller_hello().copied());
        if let Some(hello) = hello {
            self.machine_handles(proc, conn, &Message::Hello(hello, &[]));
        }
    }

    fn greet(&mut self, proc: ProcId, conn: ConnId) {
        let process = &mut self.procs[proc];
        match &mut process.machine {
            Machine::Root(root) => root.opened(conn, &mut process.out),
            Machine::Leaf(leaf) => leaf.opened(conn, &mut process.out),
            Machine::Aggregator(aggregator) => aggregator.opened(conn, &mut process.out),
            Machine::Replica(replica) => replica.opened(conn, &mut process.out),
            _ => {}
        }
    }

    /// A connection is open; `peer` says to whom, when this process opened it.
    pub(crate) fn opened(&mut self, proc: ProcId, conn: ConnId, peer: Option<Peer>) {
        self.set_rooms(proc);
        let now = self.local(proc);
        let process = &mut self.procs[proc];
        match (&mut process.machine, peer) {
            (Machine::Directory(directory), _) => directory.connected(conn),
            (Machine::Client(client, _), Some(Peer::Client(kind))) => {
                if client.connected(now, conn, kind, &mut process.out).is_err() {
                    self.hang_up(proc, conn);
                }
            }
            (Machine::Client(client, _), _) => {
                let request = DirectoryRequest {
                    request: 1,
                    known: client.map_version().unwrap_or(0),
                };
                let _ = process.out.send(conn, &request, &[]);
            }
            (_, Some(Peer::Node(Target::Controller))) => {
                let speaker = process
                    .join
                    .as_mut()
                    .map(|join| join.connected(conn, "", &mut process.out));
                if speaker == Some(Ok(Speaker::Machine)) {
                    self.greet(proc, conn);
                }
            }
            // A process without a machine accepts nothing yet.
            (Machine::None, _) => self.hang_up(proc, conn),
            _ => self.greet(proc, conn),
        }
        self.drain(proc);
        self.flush_soon(proc);
    }

    /// A connection is gone.
    pub(crate) fn lost(&mut self, proc: ProcId, conn: ConnId, peer: Option<Peer>) {
        let now = self.local(proc);
        match &mut self.procs[proc].machine {
            Machine::Directory(directory) => directory.disconnected(now, conn),
            Machine::Root(root) => root.closed(conn),
            Machine::Leaf(leaf) => leaf.closed(conn),
            Machine::Aggregator(aggregator) => aggregator.closed(conn),
            Machine::Replica(replica) => replica.closed(now, conn),
            Machine::Client(client, app) if matches!(peer, Some(Peer::Client(_))) => {
                client.disconnected(now, conn);
                if app.moves_on() {
                    client.move_sticky(now);
                }
            }
            Machine::Client(..) | Machine::None => {}
        }
        self.flush_soon(proc);
    }

    /// A message reaches a process.
    pub(crate) fn deliver(&mut self, proc: ProcId, conn: ConnId, bytes: &[u8]) {
        let Ok((message, rest)) = Message::new_checked(bytes) else {
            return self.history.fail(Invariant::M1, || {
                "a message that was sent does not parse".into()
            });
        };
        self.history.check(Invariant::M1, rest.is_empty(), || {
            "bytes after a message".into()
        });
        self.set_rooms(proc);
        self.note_silence(self.procs[proc].place);
        let process = &mut self.procs[proc];
        let from_controller = process.controller_conn() == Some(conn);
        let step = match &mut process.join {
            Some(join) if from_controller => join.handle(&message),
            Some(_) if matches!(process.machine, Machine::None) => Step::None,
            _ => Step::Machine,
        };
        match step {
            Step::None => {}
            Step::Admitted { inc, .. } => self.admitted(proc, inc),
            // Nobody has what the shard held: it is for the operator to restore a device.
            Step::Refused(reason)
                if self.plan.may_halt() && reason.contains("restore one of them") =>
            {
                self.turned_away(proc);
            }
            // Another life has written since: the operator gives the node an empty device. So it does where a place comes back to
            // a node that had it before.
            Step::Refused(reason)
                if reason.contains("is an old image")
                    && (self.faults[Fault::OldImage] > 0
                        || self.changes.homes.contains_key(&self.procs[proc].place)) =>
            {
                let Process { place, node, .. } = self.procs[proc];
                self.disks.remove(&(place, node));
                self.turned_away(proc);
            }
            // What it was started for was called off, or has not come about yet.
            Step::Refused(reason) if self.plan.changes() && is_called_off(&reason) => {
                self.called_off(proc);
            }
            Step::Refused(reason) => self.history.fail(Invariant::M1, || {
                format!("a registration was refused: {reason}")
            }),
            Step::Replaced(_) => self.replaced(proc),
            Step::Machine => self.machine_handles(proc, conn, &message),
        }
        self.drain(proc);
        self.flush_soon(proc);
    }

    fn machine_handles(&mut self, proc: ProcId, conn: ConnId, message: &Message<'_>) {
        let now = self.local(proc);
        let process = &mut self.procs[proc];
        let from_controller = process.controller_conn() == Some(conn);
        let out = &mut process.out;
        match &mut process.machine {
            Machine::None => {}
            Machine::Replica(replica) if from_controller => replica.governed(conn),
            Machine::Directory(directory) => directory.handle(now, conn, message),
            Machine::Root(root) => root.handle(now, conn, message, out),
            Machine::Leaf(leaf) => leaf.handle(now, conn, message, out),
            Machine::Aggregator(aggregator) => aggregator.handle(now, conn, message, out),
            Machine::Replica(replica) => replica.handle(now, conn, message, out),
            Machine::Client(client, app) => match message {
                Message::DirectoryAnswer(_, []) => {}
                Message::DirectoryAnswer(_, map) => match ClusterMap::read(map) {
                    Ok(map) => client.set_map(now, &map),
                    Err(error) => self.history.fail(Invariant::M1, || {
                        format!("the cluster map does not parse: {error}")
                    }),
                },
                Message::Hello(..)
                    if process.peer_of.get(&conn) == Some(&Peer::ClientToController) => {}
                _ => {
                    let history = &mut self.history;
                    client.handle(now, conn, message, &mut Tap { app, history });
                    app.collect(client, history);
                }
            },
        }
    }

    pub(crate) fn flush_soon(&mut self, proc: ProcId) {
        if !core::mem::replace(&mut self.procs[proc].flush_pending, true) {
            let after = self.rng_proc.range(200, 5_000);
            self.after(after, Event::Flush(proc));
        }
    }

    pub(crate) fn timer(&mut self, proc: ProcId, at: Time) {
        if self.procs[proc].timer_at == at && self.procs[proc].alive {
            self.procs[proc].timer_at = Time::FAR;
            self.flush_now(proc);
        }
    }

    pub(crate) fn flush(&mut self, proc: ProcId) {
        self.procs[proc].flush_pending = false;
        if self.procs[proc].alive {
            self.flush_now(proc);
        }
    }

    /// Time, flushes as long as something comes out, and the next deadline.
    fn flush_now(&mut self, proc: ProcId) {
        if self.step(proc, Fault::CrashAtFlush) {
            return;
        }
        let now = self.local(proc);
        for round in 0.. {
            self.set_rooms(proc);
            let process = &mut self.procs[proc];
            let out = &mut process.out;
            match &mut process.machine {
                Machine::None => {}
                Machine::Directory(directory) => {
                    if directory.next_deadline() <= now {
                        directory.on_deadline(now);
                    }
                }
                Machine::Root(root) => root.flush(now, out),
                Machine::Leaf(leaf) => leaf.flush(now, out),
                Machine::Aggregator(aggregator) => aggregator.flush(now, out),
                Machine::Replica(replica) => replica.flush(now, out),
                Machine::Client(client, app) => {
                    client.on_deadline(now);
                    client.flush(now, out);
                    app.collect(client, &mut self.history);
                }
            }
            let sent = self.drain(proc);
            if !self.procs[proc].alive {
                return;
            }
            // What falls due by its own flush is done at once, as an edge does.
            let due = matches!(self.procs[proc].machine, Machine::Client(..))
                && self.procs[proc].machine.deadline() <= now;
            if !(sent || due) {
                break;
            }
            self.history.check(Invariant::M1, round < FLUSHES_MAX, || {
                "a machine sends for ever".into()
            });
            if round >= FLUSHES_MAX {
                break;
            }
        }
        self.run_disk(proc);
        self.close_unwanted(proc);
        self.dial_wanted(proc);
        let process = &mut self.procs[proc];
        let deadline = process.machine.deadline();
        let place = process.place;
        if place == Place::Controller && self.is_silent() {
            // What is due would be said, and is not: it goes on when it speaks again.
            return;
        }
        self.history.check(Invariant::M1, deadline > now, || {
            format!(
                "{place:?} has a deadline that stays due after a flush: an idle process would spin"
            )
        });
        let process = &mut self.procs[proc];
        if deadline != Time::FAR && process.timer_at != deadline {
            process.timer_at = deadline;
            let at = process.clock.when(deadline);
            self.at(at, Event::Timer(proc, deadline));
        }
    }

    fn close_unwanted(&mut self, proc: ProcId) {
        loop {
            let close = match &mut self.procs[proc].machine {
                Machine::Root(root) => root.take_close(),
                Machine::Leaf(leaf) => leaf.take_close(),
                Machine::Aggregator(aggregator) => aggregator.take_close(),
                Machine::Replica(replica) => replica.take_close(),
                _ => None,
            };
            let Some(conn) = close else { return };
            self.hang_up(proc, conn);
        }
    }

    /// Opens the connections that a client or a leader of the root group wants.
    fn dial_wanted(&mut self, proc: ProcId) {
        let wanted: Vec<Peer> = match &self.procs[proc].machine {
            Machine::Client(client, _) => client.wanted_peers().map(Peer::Client).collect(),
            Machine::Root(root) if self.plan.roots > 1 => {
                let nodes: Vec<NodeId> = root.wanted_members().collect();
                let slots = 0..self.plan.roots;
                let wanted: Vec<Peer> = slots
                    .filter(|slot| nodes.contains(&self.node(Place::Root(*slot))))
                    .map(Peer::Member)
                    .collect();
                self.procs[proc]
                    .dials
                    .retain(|peer, _| !matches!(peer, Peer::Member(_)) || wanted.contains(peer));
                wanted
            }
            _ => return,
        };
        for peer in wanted {
            if let Entry::Vacant(place) = self.procs[proc].dials.entry(peer) {
                place.insert(None);
                self.after(0, Event::Dial(proc, peer));
            }
        }
    }

    pub(crate) fn set_rooms(&mut self, proc: ProcId) {
        let Process { conns, out, .. } = &mut self.procs[proc];
        for (at, end) in conns.iter().enumerate() {
            let full = |end: End| self.tree_faults.full.contains(&(end.link, end.side));
            let end = end.filter(|end| !full(*end));
            let room = end.map_or(0, |end| self.links[end.link].room(end.side));
            out.set_room(ConnId::new(at as u32), room);
        }
    }

    /// Carries what a process has said. Whether there was anything.
    pub(crate) fn drain(&mut self, proc: ProcId) -> bool {
        self.ingest(proc);
        let mut messages = core::mem::take(&mut self.scratch);
        let Process { out, machine, .. } = &mut self.procs[proc];
        for envelope in out.envelopes() {
            let mut bytes = out.head(envelope).to_vec();
            if let Some(run) = &envelope.body {
                let Machine::Replica(replica) = &*machine else {
                    continue;
                };
                bytes.extend_from_slice(replica.store().bytes(run));
            }
            messages.push((envelope.conn, bytes));
        }
        out.clear();
        let sent = !messages.is_empty();
        for (at, (conn, bytes)) in messages.drain(..).enumerate() {
            if at > 0 && self.step(proc, Fault::CrashMidSend) {
                break;
            }
            self.inspect(proc, conn, &bytes);
            self.send(proc, conn, bytes);
        }
        self.scratch = messages;
        if !self.procs[proc].alive {
            return false;
        }
        self.drain_directory(proc) || sent
    }

    fn drain_directory(&mut self, proc: ProcId) -> bool {
        let now = self.local(proc);
        let mut sent = false;
        let mut bytes = Vec::new();
        loop {
            let silent = self.is_silent();
            let Process { conns, machine, .. } = &mut self.procs[proc];
            let Machine::Directory(directory) = machine else {
                return false;
            };
            if silent {
                return false;
            }
            if let Some(snapshot) = directory.take_snapshot() {
                let after = self.rng_proc.range(50_000, 2_000_000);
                self.after(
                    after,
                    Event::Persisted(proc, snapshot.version, snapshot.bytes),
                );
                continue;
            }
            let links = &self.links;
            let room = |conn: ConnId| {
                let end = conns.get(conn.index()).copied().flatten();
                end.map_or(0, |end| links[end.link].room(end.side))
            };
            let Some(conn) = directory.poll(now, room, &mut bytes) else {
                return sent;
            };
            sent = true;
            let message = core::mem::take(&mut bytes);
            self.note_leader(proc, conn, &message);
            self.send(proc, conn, message);
        }
    }

    /// The controller names a leader: everybody hears of it in the cluster map, some of them late.
    fn note_leader(&mut self, proc: ProcId, conn: ConnId, bytes: &[u8]) {
        let Ok((Message::RootGrant(..), _)) = Message::new_checked(bytes) else {
            return;
        };
        let Some(end) = self.procs[proc].end(conn) else {
            return;
        };
        let other = self.links[end.link].ends[1 - end.side].proc;
        let Place::Root(slot) = self.procs[other].place else {
            return;
        };
        if core::mem::replace(&mut self.leader, slot) == slot {
            return;
        }
        if let Some(instance) = self.strands.pop() {
            let after = self.rng_fault.below(30_000_000);
            self.after(after, Event::Strand(instance));
        }
        for proc in 0..self.procs.len() {
            if self.procs[proc].alive {
                let late = self.rng_proc.pick(&[1_000_000, 20_000_000, 300_000_000]);
                let after = self.rng_proc.below(late);
                self.after(after, Event::Follow(proc));
            }
        }
    }

    /// A process has heard of another map: it connects to who is above it there, and leaves the member of the root group that it
    /// took for the leader, if another one is known to lead.
    pub(crate) fn follow(&mut self, proc: ProcId) {
        if !self.procs[proc].alive {
            return;
        }
        self.follow_tree(proc);
        let root = |peer: &Peer| {
            matches!(
                peer,
                Peer::Node(Target::Root | Target::Parent) | Peer::Client(PeerKind::Root)
            )
        };
        let dialled = self.procs[proc].dials.iter();
        let conns: Vec<ConnId> = dialled
            .filter(|(peer, _)| root(peer))
            .filter_map(|(_, conn)| *conn)
            .collect();
        for conn in conns {
            let Some(end) = self.procs[proc].end(conn) else {
                continue;
            };
            let other = self.links[end.link].ends[1 - end.side].proc;
            if self.procs[other].place != Place::Root(self.leader) {
                self.hang_up(proc, conn);
            }
        }
    }

    /// Calls that clients should have made by now: spread over the faults, then a quarter more while all is well.
    fn calls_due(&self) -> u64 {
        let [_, most] = self.plan.calls;
        let span = self.plan.warm_up_ns + self.plan.fault_ns;
        match u64::try_from(u128::from(self.now.as_ns()) * u128::from(most) / u128::from(span)) {
            Ok(due) if self.phase < Phase::Healed => due.min(most).saturating_add(20),
            _ => most.saturating_add(most / 4),
        }
    }

    /// An application acts, and asks for the map if its machine wants one.
    pub(crate) fn act(&mut self, proc: ProcId) {
        let now = self.local(proc);
        if !self.procs[proc].alive {
            return;
        }
        let of_core = self.of_core(self.procs[proc].place);
        if of_core {
            self.core_act(proc);
        }
        let due = self.calls_due();
        let Process { machine, dials, .. } = &mut self.procs[proc];
        let Machine::Client(client, app) = machine else {
            return;
        };
        let known = client.map_version();
        let asks = client.wants_map();
        let pause = app.pause(&self.plan);
        let calls = self.history.recorder.operations();
        let more = calls < due.min(self.plan.operations_max);
        if of_core {
            // It has acted.
        } else if known.is_some() && more && self.phase < Phase::Resting {
            app.act(now, client, &self.plan, &mut self.history);
        } else {
            app.resume_all(now, client, &mut self.history);
        }
        let controller = dials.get(&Peer::ClientToController).copied().flatten();
        if let Some(conn) = controller.filter(|_| asks && self.rng_proc.permille(200)) {
            self.set_rooms(proc);
            let request = DirectoryRequest {
                request: 2,
                known: known.unwrap_or(0),
            };
            let _ = self.procs[proc].out.send(conn, &request, &[]);
            self.drain(proc);
        }
        self.after(pause, Event::Act(proc));
        self.flush_soon(proc);
    }
}
