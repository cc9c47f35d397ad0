//! The world: a clock, an event queue, the processes and the connections between them. One thread, ordered containers
//! only: a run is a function of its seed and plan.

use std::collections::{BTreeMap, BTreeSet};

use ionian_core::edge::Target;
use ionian_histcheck::Verdict;
use ionian_types::{ClusterId, ConnId, Inc, Knobs, LogId, Mutant, NodeId, Shipped, Time};

use crate::both::Aim;
use crate::changes::Changes;
use crate::checks::HALT_NS;
use crate::controllers::Silence;
use crate::disk::Disk;
use crate::history::{History, Seen};
use crate::invariant::{Invariant, Violation};
use crate::legal_core::Core;
use crate::lives::Machines;
use crate::mutants::{active, families};
use crate::net::Link;
use crate::plan::{Fault, FaultCounts, Plan};
use crate::process::{Peer, Place, ProcId, Process};
use crate::rng::Rng;
use crate::storms::Old;
use crate::tree_faults::TreeFaults;
use crate::trees::{Trees, is_vertex, vertex_node};
use crate::weather::Weather;

/// The cluster of every run.
pub const CLUSTER: ClusterId = ClusterId::new(0x1071a);
/// Its only log.
pub const LOG: LogId = LogId::new(1);
/// Virtual time within which everything must settle after the faults are over.
pub const LIVENESS_NS: u64 = 30_000_000_000;
/// Events beyond which a run counts as not ending.
const EVENTS_MAX: u64 = 20_000_000;
/// Tries of faults that found nothing to hit.
const RETRIES: u32 = 64;

/// What happens next.
#[derive(Debug)]
pub enum Event {
    /// A place gets a process.
    Start(Place),
    /// A process starts at a node that is to take a place.
    StartOn(Place, NodeId),
    /// A process opens a connection.
    Dial(ProcId, Peer),
    /// The front of a direction arrives: link, sender's side.
    Arrive(usize, usize),
    /// A datagram arrives: link, sender's side.
    Datagram(usize, usize, Vec<u8>),
    /// A datagram of an ended session arrives in a later one: link, sender's side.
    Replay(usize, usize, Vec<u8>),
    /// The timer of a session: link, side.
    Session(usize, usize),
    /// A process learns that its end of a link is gone.
    Closed(usize, usize),
    /// A link breaks.
    Break(usize),
    /// A link breaks for the end that is named, and much later for the other.
    Sever(usize, usize),
    /// A process flushes.
    Flush(ProcId),
    /// A process's deadline, by its own clock.
    Timer(ProcId, Time),
    /// An application acts.
    Act(ProcId),
    /// A controller that said nothing for a while speaks again.
    Speak,
    /// A process has heard which member of the root group leads: it leaves another one.
    Follow(ProcId),
    /// A paused process goes on.
    Wake(ProcId),
    /// An operation of a process's device completes.
    Disk(ProcId, u64),
    /// The controller's snapshot is durable.
    Persisted(ProcId, u64, Vec<u8>),
    /// The root group's leader is cut off from its group: the place of the fault in the plan.
    Strand(u32),
    /// Faults may happen from now on.
    Storm,
    /// A fault begins: its kind, and its place among those of the plan.
    Fault(Fault, u32),
    /// A device has room again.
    Emptied(Place),
    /// The device of a replica is gone, after its peers have died.
    DiskLost(Place),
    /// Every device of a shard is damaged once what is chosen is known to be committed: what, and the place of the fault
    /// among those of the plan.
    Aimed(Box<Aim>, u32),
    /// A device is set back to what it held before.
    PutBack(Place),
    /// A ring that took nothing is read again: link, the side that could not send, the last entry when it became full.
    Drained(usize, usize, u64),
    /// Whether a shard is silent after a cut of it was lost: the shard, the entry.
    Silent(u32, u64),
    /// A process ends that has said what is not so.
    End(ProcId),
    /// Faults are over.
    Heal,
    /// No new work from now on.
    Rest,
    /// Look whether everything has settled, and check what is dear to check.
    Look,
}

/// How a run went.
#[derive(Clone, Debug)]
pub struct Report {
    /// A hash over every event: the same seed gives the same.
    pub trace: u64,
    /// Events.
    pub events: u64,
    /// Virtual nanoseconds.
    pub virtual_ns: u64,
    /// Faults that took place, by kind.
    pub faults: FaultCounts,
    /// What was seen.
    pub seen: Seen,
    /// Appends made.
    pub appends: u64,
    /// Calls and subscriptions of clients, appends among them.
    pub operations: u64,
    /// Entries committed.
    pub entries: u64,
    /// Counters of the machines at the end.
    pub machines: Machines,
}

/// Why a run failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The virtual time.
    pub at: Time,
    /// What it is judged by, and what is wrong.
    pub violation: Violation,
    /// The deliberate bug that the machines had.
    pub mutant: Option<Mutant>,
    /// How its plan differs from the one that the seed draws.
    pub plan: String,
}

impl Failure {
    /// The command that runs it again.
    #[must_use]
    pub fn replay(&self) -> String {
        let plan = if self.plan.is_empty() {
            String::new()
        } else {
            format!(" --plan '{}'", self.plan)
        };
        let mutant = self.mutant.map_or(String::new(), |mutant| {
            format!(" --mutant {}", mutant.name())
        });
        format!(
            "cargo run --profile sim -p ionian-sim -- --seed {}{mutant}{plan} --trace",
            self.seed
        )
    }
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "seed {}: after {} us: {}\n  replay: {}",
            self.seed,
            self.at.as_ns() / 1000,
            self.violation,
            self.replay()
        )
    }
}

/// Which phase a run is in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// Nothing bad happens yet.
    WarmUp,
    /// Faults may happen.
    Storm,
    /// No more faults; a core is healed and must make progress, the rest is not.
    Core,
    /// No more faults; clients go on.
    Healed,
    /// No new work; everything must settle.
    Resting,
    /// A last reader walks the whole log.
    Reading,
    /// Over.
    Done,
}

/// The world.
#[derive(Debug)]
pub struct World<K: Knobs = Shipped> {
    /// The seed.
    pub seed: u64,
    /// The plan.
    pub plan: Plan,
    /// The clock.
    pub now: Time,
    /// Processes, dead ones too.
    pub procs: Vec<Process<K>>,
    /// Links, broken ones too.
    pub links: Vec<Link>,
    /// Processes that have died since the last event, and what those before counted.
    pub(crate) dying: Vec<ProcId>,
    pub(crate) past: Machines,
    /// Links that some end has given up, whose sessions are still there.
    pub(crate) given_up: Vec<usize>,
    /// The reachable process of each place.
    pub by_place: BTreeMap<Place, ProcId>,
    /// What was done and seen.
    pub history: History,
    /// The phase.
    pub phase: Phase,
    /// The slot of the member of the root group that was named leader last.
    pub(crate) leader: u8,
    /// The next leaders that are cut off from their group soon after they are named: the place of the fault in the plan.
    pub(crate) strands: Vec<u32>,
    /// What each process last knew of its incarnation.
    pub last_inc: BTreeMap<Place, Inc>,
    /// The controller's durable snapshot.
    pub controller_disk: Option<Vec<u8>>,
    /// The devices of roots and replicas.
    pub disks: BTreeMap<(Place, NodeId), Disk>,
    /// What operators have changed.
    pub(crate) changes: Changes,
    /// Who is above whom in the ordering tree.
    pub(crate) trees: Trees,
    /// What goes wrong in it.
    pub(crate) tree_faults: TreeFaults,
    /// Places whose devices are slow until then.
    pub slow_disks: BTreeMap<Place, Time>,
    /// What the network does to messages.
    pub weather: Weather,
    /// Datagrams of before, for replays.
    pub old: Old,
    /// Crashes to come, at the n-th step of a kind.
    pub(crate) armed: BTreeMap<(Place, Fault), u64>,
    /// Stores that said at a start that they cannot go on.
    pub(crate) halts: u64,
    /// Something that every device of a shard has lost is waited for.
    pub(crate) stands_still: bool,
    /// Faults that took place.
    pub faults: FaultCounts,
    /// The fault that happens, by its place among those of the plan.
    pub(crate) instance: u32,
    /// Those of them that the history knows of.
    pub(crate) told: FaultCounts,
    /// Print every event.
    pub trace: bool,
    pub(crate) rng_net: Rng,
    pub(crate) rng_fault: Rng,
    pub(crate) rng_proc: Rng,
    pub(crate) rng_disk: Rng,
    pub(crate) rng_clock: Rng,
    queue: BTreeMap<(Time, u64), Event>,
    sequence: u64,
    hash: u64,
    pub(crate) checked_roots: BTreeSet<ProcId>,
    /// How far the committed entries of each member of the root group were compared with those of the others.
    pub(crate) compared: BTreeMap<ProcId, u64>,
    pub(crate) events: u64,
    pub(crate) healed_at: Time,
    /// Full replicas were given room for the end of the run.
    pub(crate) made_room: bool,
    /// The silence of the controllers.
    pub(crate) silence: Silence,
    /// What is healed while the rest is not.
    pub(crate) core: Option<Core>,
    /// Clients that were ever there.
    pub(crate) clients: u32,
    /// How many more times a fault that found nothing to hit is tried again.
    pub(crate) retries: u32,
    pub(crate) scratch: Vec<(ConnId, Vec<u8>)>,
}

impl World {
    /// A run of the machines as they ship, that has not begun.
    #[must_use]
    pub fn new(seed: u64, plan: Plan) -> Self {
        Self::with_knobs(seed, plan)
    }
}

impl<K: Knobs> World<K> {
    /// A run that has not begun.
    #[must_use]
    pub fn with_knobs(seed: u64, plan: Plan) -> Self {
        let mut world = Self {
            seed,
            now: Time::ZERO,
            procs: Vec::new(),
            links: Vec::new(),
            dying: Vec::new(),
            past: Machines::default(),
            given_up: Vec::new(),
            by_place: BTreeMap::new(),
            history: History::new(seed, &plan),
            phase: Phase::WarmUp,
            leader: 0,
            strands: Vec::new(),
            last_inc: BTreeMap::new(),
            controller_disk: None,
            disks: BTreeMap::new(),
            changes: Changes::default(),
            trees: Trees::of_plan(&plan),
            tree_faults: TreeFaults::default(),
            slow_disks: BTreeMap::new(),
            weather: Weather::default(),
            old: Old::default(),
            armed: BTreeMap::new(),
            halts: 0,
            stands_still: false,
            faults: FaultCounts::default(),
            instance: 0,
            told: FaultCounts::default(),
            trace: false,
            rng_net: Rng::stream(seed, "net"),
            rng_fault: Rng::stream(seed, "fault"),
            rng_proc: Rng::stream(seed, "proc"),
            rng_disk: Rng::stream(seed, "disk"),
            rng_clock: Rng::stream(seed, "clock"),
            queue: BTreeMap::new(),
            sequence: 0,
            hash: seed,
            checked_roots: BTreeSet::new(),
            compared: BTreeMap::new(),
            events: 0,
            healed_at: Time::ZERO,
            made_room: false,
            silence: Silence::default(),
            core: None,
            clients: plan.clients,
            retries: RETRIES,
            scratch: Vec::new(),
            plan,
        };
        world.schedule();
        world
    }

    fn schedule(&mut self) {
        for place in self.places() {
            let at = self.rng_proc.below(3_000_000);
            self.after(at, Event::Start(place));
        }
        for client in 0..self.plan.clients {
            let at = self.rng_proc.range(1_000_000, 10_000_000);
            self.after(at, Event::Start(Place::Client(client)));
        }
        for (instance, fault) in self.plan.instances().collect::<Vec<_>>() {
            let mut at = self.plan.warm_up_ns + self.rng_fault.below(self.plan.fault_ns);
            if fault.is_change() {
                // From the start on, and when all is well again.
                at = self
                    .rng_fault
                    .range(5_000_000, 2 * self.plan.warm_up_ns + self.plan.fault_ns);
            }
            if self.plan.includes(instance) {
                self.after(at, Event::Fault(fault, instance));
            }
        }
        self.after(self.plan.warm_up_ns, Event::Storm);
        let heal = self.plan.warm_up_ns + self.plan.fault_ns;
        self.after(heal, Event::Heal);
        self.after(5_000_000, Event::Look);
    }

    /// Every place but the clients.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        let mut places = Self::places_of(&self.plan);
        places.retain(|place| !is_vertex(*place) || !self.is_removed(*place));
        places.extend(&self.changes.added);
        places
    }

    /// The places of a plan.
    pub(crate) fn places_of(plan: &Plan) -> Vec<Place> {
        let mut places = vec![Place::Controller, Place::Root(0)];
        places.extend(plan.tree_places());
        places.extend((1..plan.roots).map(Place::Root));
        for shard in 0..plan.shards {
            places.extend((0..plan.replicas).map(|slot| Place::Replica(shard, slot)));
        }
        places
    }

    /// The node of a place.
    #[must_use]
    pub fn node(&self, place: Place) -> NodeId {
        let home = self.changes.homes.get(&place);
        home.copied().unwrap_or_else(|| Self::planned_node(place))
    }

    /// The node that a place has at first.
    pub(crate) fn planned_node(place: Place) -> NodeId {
        NodeId::new(match place {
            Place::Controller => 1,
            Place::Root(0) => 2,
            Place::Aggregator(_) | Place::Leaf(_) => return vertex_node(place),
            Place::Root(slot) => 3 + u32::from(slot),
            Place::Replica(shard, slot) => 10 + shard * 10 + u32::from(slot),
            Place::Client(number) => 1000 + number,
        })
    }

    /// Something will happen after `ns`.
    pub fn after(&mut self, ns: u64, event: Event) {
        let at = Time::from_ns(self.now.as_ns().saturating_add(ns));
        self.at(at, event);
    }

    /// Something will happen at `at`, or now if that is past.
    pub fn at(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.queue.insert((at.max(self.now), self.sequence), event);
    }

    /// Mixes a number into the trace hash.
    pub fn mix(&mut self, value: u64) {
        self.hash = (self.hash.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The first violation.
    pub fn run(&mut self) -> Result<Report, Failure> {
        while self.step_on() {}
        if self.history.failure.is_none() {
            self.damage_adds_up();
        }
        if self.history.failure.is_none() {
            self.judge();
        }
        match self.history.failure.take() {
            Some(violation) => Err(Failure {
                seed: self.seed,
                at: self.now,
                violation,
                mutant: active(),
                plan: self.plan.difference(&families::plan(active(), self.seed)),
            }),
            None => Ok(self.report()),
        }
    }

    /// The next event. Whether there is more to do.
    pub(crate) fn step_on(&mut self) -> bool {
        let Some(((at, _), event)) = self.queue.pop_first() else {
            self.history
                .fail(Invariant::L1, || "nothing will ever happen again".into());
            return false;
        };
        self.now = at;
        self.history.recorder.at(at);
        self.events += 1;
        if self.events > EVENTS_MAX {
            self.history.fail(Invariant::L1, || {
                "the run does not end: machines keep each other busy".into()
            });
        }
        let told = self.history.recorder.len();
        if self.trace && Self::is_told(&event) {
            self.print(&event);
        }
        self.mix(at.as_ns());
        let look = matches!(event, Event::Look);
        self.handle(event);
        self.bury_dead();
        if look {
            self.drop_sessions();
        }
        self.tell_faults();
        if self.trace {
            self.print_history(told);
        }
        self.phase != Phase::Done && self.history.failure.is_none()
    }

    /// Everything that the clients did and saw is judged again, by somebody who knows nothing of the cut log.
    fn judge(&mut self) {
        let report = self.history.recorder.judge();
        let verdict = report.verdict();
        // Beyond what the class survives a log may stand still, and then there is little to see.
        if verdict == Verdict::Unknown && self.plan.may_lose() {
            return;
        }
        let Some(of) = report.outcomes.iter().find(|of| of.violated > 0) else {
            return;
        };
        self.history.fail(of.id.into(), || {
            let mut what = format!("the judge says {verdict}");
            if let Some(witness) = of.witnesses.first() {
                what = format!("{what}: {}", witness.what);
                for line in &witness.lines {
                    what = format!("{what}\n    {}", line.text);
                }
            }
            what
        });
    }

    fn handle(&mut self, event: Event) {
        if let Some(proc) = self.waits(&event) {
            self.procs[proc].missed.push(event);
            return;
        }
        match event {
            Event::Start(place) if self.stays_dead(place) => {}
            Event::Start(place) => self.start(place),
            Event::StartOn(place, node) => self.start_ahead(place, node),
            Event::Dial(proc, peer) => self.dial(proc, peer),
            Event::Arrive(link, side) => self.pump(link, side),
            Event::Datagram(link, side, bytes) => self.datagram(link, side, &bytes),
            Event::Replay(link, side, bytes) => self.replayed(link, side, &bytes),
            Event::Session(link, side) => self.session_timer(link, side),
            Event::Closed(link, side) => self.closed(link, side),
            Event::Break(link) => self.break_link(link),
            Event::Sever(link, side) => self.sever(link, side),
            Event::Flush(proc) => self.flush(proc),
            Event::Timer(proc, at) => self.timer(proc, at),
            Event::Act(proc) => self.act(proc),
            Event::Follow(proc) => self.follow(proc),
            Event::Speak => self.speak(),
            Event::Wake(proc) => self.wake(proc),
            Event::Persisted(proc, version, bytes) => self.persisted(proc, version, bytes),
            Event::Disk(proc, token) => self.disk_done(proc, token),
            Event::Fault(fault, instance) => {
                // Every fault has its own chance: one that is left out does not change what the others do.
                let name = format!("fault {instance} at {}", self.now.as_ns());
                self.rng_fault = Rng::stream(self.seed, &name);
                self.instance = instance;
                self.fault(fault);
            }
            Event::Emptied(place) => self.emptied(place),
            Event::DiskLost(place) => {
                if self.phase == Phase::Storm {
                    self.lose_disk_of(place);
                }
            }
            Event::PutBack(place) => self.put_back(place),
            Event::Drained(link, side, entries) => self.drained(link, side, entries),
            Event::Silent(shard, entry) => self.silent(shard, entry),
            Event::End(proc) => self.end(proc),
            Event::Aimed(aim, instance) => self.aimed(aim, instance),
            Event::Heal => self.heal(),
            Event::Strand(instance) => self.strand_from_group(instance),
            Event::Storm => self.phase = Phase::Storm,
            Event::Rest => self.rest(),
            Event::Look => self.look(),
        }
    }

    /// No new work, once there was enough of it.
    fn rest(&mut self) {
        let (calls, [least, _]) = (self.history.recorder.operations(), self.plan.calls);
        if calls >= least.min(self.plan.operations_max) {
            self.phase = Phase::Resting;
            return;
        }
        let waited = self.now.as_ns() - self.healed_at.as_ns();
        // Clients whose appends wait for what stands still call no more.
        if self.plan.may_halt() && waited >= HALT_NS / 2 {
            self.phase = Phase::Resting;
            return;
        }
        self.history.check(Invariant::L1, waited < LIVENESS_NS, || {
            format!("after heal: clients have made {calls} calls, {least} are wanted")
        });
        self.after(5_000_000, Event::Rest);
    }

    /// The paused process that an event is for.
    fn waits(&self, event: &Event) -> Option<ProcId> {
        let proc = match event {
            Event::Flush(proc)
            | Event::Timer(proc, _)
            | Event::Act(proc)
            | Event::Follow(proc)
            | Event::Dial(proc, _) => *proc,
            Event::Persisted(proc, ..) | Event::Disk(proc, _) => *proc,
            Event::Arrive(link, side)
            | Event::Datagram(link, side, _)
            | Event::Replay(link, side, _) => self.links[*link].ends[1 - side].proc,
            Event::Session(link, side) | Event::Closed(link, side) => {
                self.links[*link].ends[*side].proc
            }
            _ => return None,
        };
        let process = &self.procs[proc];
        (process.alive && process.paused_until > self.now).then_some(proc)
    }

    fn wake(&mut self, proc: ProcId) {
        if self.procs[proc].paused_until > self.now {
            return;
        }
        for event in core::mem::take(&mut self.procs[proc].missed) {
            self.after(0, event);
        }
    }

    /// The live process of a place.
    #[must_use]
    pub fn live(&self, place: Place) -> Option<ProcId> {
        self.by_place
            .get(&place)
            .copied()
            .filter(|proc| self.procs[*proc].alive)
    }

    fn report(&self) -> Report {
        Report {
            trace: self.hash,
            events: self.events,
            virtual_ns: self.now.as_ns(),
            faults: self.faults,
            seen: self.history.seen,
            appends: self.history.ops.len() as u64,
            operations: self.history.recorder.operations(),
            entries: self.history.reference.entries.len() as u64,
            machines: self.machines(),
        }
    }
}

/// The place that a node's connection of kind `target` leads to.
#[must_use]
pub const fn is_controller(peer: Peer) -> bool {
    matches!(
        peer,
        Peer::Node(Target::Controller) | Peer::ClientToController
    )
}
