//! The edge of every process: makes machines, hands them messages and time, carries what they say.

mod lives;

use std::collections::btree_map::Entry;

use ionian_core::client::PeerKind;
use ionian_core::edge::{Speaker, Step, Target};
use ionian_types::{ClientId, ConnId, Knobs, NodeId, ShardId, Slot, Time};
use ionian_wire::directory::ClusterMap;
use ionian_wire::frame::{DirectoryRequest, Message, Role};

use crate::app::Tap;
use crate::invariant::Invariant;
use crate::plan::Fault;
use crate::process::{End, Machine, Peer, Place, ProcId, Process};
use crate::world::{Event, Phase, World};

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
