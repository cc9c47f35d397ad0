//! What operators change while a run goes on: shards come and end, replicas, members of the root group and vertices of the
//! tree move to other nodes, nodes are drained, changes are given up.
//!
//! An operation is given to the controller that is there; what it answers may be gone with it. Whoever looks after the nodes
//! starts processes where the controllers want them, as soon as that is durable: at a node that is to take a place while the
//! one that has it goes on. A process that is told that it has no place ends.

use std::collections::{BTreeMap, BTreeSet};

use ionian_control_core::{Asker, NodeSpec, Operate, Operated, Operation, Progress};
use ionian_types::{Inc, Knobs, NodeId, ShardId, Slot, VertexId};
use ionian_wire::frame::Role;

use crate::atlas::Harm;
use crate::plan::Fault;
use crate::process::{Machine, Place, ProcId};
use crate::trees::is_vertex;
use crate::world::{Event, LOG, Phase, World};

/// Nodes that have no place at first, each a failure domain of its own.
const SPARES: u32 = 8;
const FIRST_SPARE: u32 = 500;
/// Shards that operators add at most.
const ADDED_MAX: usize = 3;

/// The nodes that have no place at first.
pub(crate) fn spares() -> impl Iterator<Item = (NodeId, NodeSpec)> {
    (FIRST_SPARE..FIRST_SPARE + SPARES).map(|node| {
        let spec = NodeSpec {
            domain: node,
            address: String::new(),
        };
        (NodeId::new(node), spec)
    })
}

/// What has become of the places of the plan.
#[derive(Default, Debug)]
pub(crate) struct Changes {
    /// Places that are on another node than in the plan, and those that it does not have.
    pub(crate) homes: BTreeMap<Place, NodeId>,
    /// Places that the plan does not have.
    pub(crate) added: BTreeSet<Place>,
    /// Vertices of the plan's tree that are none any more.
    pub(crate) removed: BTreeSet<Place>,
    /// The node of every life.
    pub(crate) nodes: BTreeMap<Inc, NodeId>,
    /// Places that had been given to other nodes when a process of theirs asked for them.
    stopped: BTreeSet<Place>,
    /// Where a process was started ahead, until it has the place.
    pub(crate) ahead: BTreeMap<(Place, NodeId), Option<ProcId>>,
}

impl<K: Knobs> World<K> {
    /// Every shard that there is, those that have ended too.
    pub(crate) fn shards(&self) -> Vec<u32> {
        let mut shards: Vec<u32> = (0..self.plan.shards).collect();
        let added = self.changes.added.iter();
        shards.extend(added.filter_map(|place| match place {
            Place::Replica(shard, 0) => Some(*shard),
            _ => None,
        }));
        shards
    }

    fn added_shards(&self) -> usize {
        let added = self.changes.added.iter();
        added
            .filter(|place| matches!(place, Place::Replica(_, 0)))
            .count()
    }

    /// One of the shards.
    pub(crate) fn any_shard(&mut self) -> u32 {
        let shards = self.shards();
        self.rng_fault.pick(&shards)
    }

    /// Whether a shard has ended for good.
    pub(crate) fn is_finalized(&self, shard: u32) -> bool {
        let state = self.history.reference.shards.get(&shard);
        state.is_some_and(|state| state.finalized)
    }

    /// Shards that have ended with a cut log that was lost: no entry says so.
    pub(crate) fn ended_unlogged(&self) -> BTreeSet<u32> {
        let Some(directory) = self.controller().filter(|_| self.plan.changes()) else {
            return BTreeSet::new();
        };
        let logs = directory.map().logs;
        let shards = logs.iter().find(|log| log.log == LOG);
        let ended = shards.into_iter().flat_map(|log| &log.shards);
        ended
            .filter(|shard| !shard.open)
            .map(|shard| shard.shard.get())
            .filter(|shard| {
                let logged = self.history.reference.shards.get(shard);
                logged.is_none_or(|logged| !logged.finalized || logged.forgotten)
            })
            .collect()
    }

    /// The key of the device of the place.
    pub(crate) fn disk_key(&self, place: Place) -> (Place, NodeId) {
        (place, self.node(place))
    }

    /// The places whose nodes have devices.
    pub(crate) fn disk_places(&self) -> Vec<Place> {
        let disks = self.disks.keys();
        let here = disks.filter(|(place, node)| self.node(*place) == *node);
        here.map(|(place, _)| *place).collect()
    }

    /// The failure domain of a life in a slot of a shard.
    pub(crate) fn domain_of(&self, shard: u32, slot: u8, inc: u64) -> u32 {
        let node = self.changes.nodes.get(&Inc::new(inc));
        match node.map(|node| node.get()) {
            Some(node) if node >= FIRST_SPARE => node,
            Some(node) => self.domain_of_node(NodeId::new(node)),
            None => self.plan.domain(shard, slot),
        }
    }

    /// The failure domain of a node of the plan, as the controller knows it: that of the last place that has it.
    fn domain_of_node(&self, node: NodeId) -> u32 {
        let plan = Self::places_of(&self.plan);
        let at = plan
            .into_iter()
            .rev()
            .find(|place| Self::planned_node(*place) == node);
        match at {
            Some(Place::Replica(shard, slot)) => self.plan.domain(shard, slot),
            Some(Place::Root(slot)) => self.plan.domain(0, slot),
            _ => self.plan.domain(0, 0),
        }
    }

    /// Whether a place is none any more.
    pub(crate) fn is_removed(&self, place: Place) -> bool {
        match place {
            Place::Replica(shard, _) => {
                shard >= self.plan.shards && !self.changes.added.contains(&place)
            }
            place if is_vertex(place) => {
                self.changes.removed.contains(&place)
                    || !self.changes.added.contains(&place) && !self.plan.has_vertex(place)
            }
            _ => false,
        }
    }

    /// A process ends that is not wanted where it is.
    pub(crate) fn called_off(&mut self, proc: ProcId) {
        let (place, node) = (self.procs[proc].place, self.procs[proc].node);
        self.kill(proc);
        if node == self.node(place) {
            self.changes.stopped.insert(place);
        }
    }

    /// Starts processes where the controllers want them.
    pub(crate) fn deploy(&mut self) {
        if !self.plan.changes() {
            return;
        }
        let Some(directory) = self.controller().filter(|directory| !directory.dirty()) else {
            return;
        };
        let mut wanted = Vec::new();
        for assignment in directory.assignments().filter(|it| it.log == LOG) {
            let place = match assignment.role {
                Role::Root => Place::Root(assignment.slot.get()),
                Role::Aggregator => Place::Aggregator(assignment.vertex.get()),
                Role::Leaf => Place::Leaf(assignment.vertex.get()),
                _ => Place::Replica(assignment.shard.get(), assignment.slot.get()),
            };
            wanted.push((place, assignment.node, assignment.next));
        }
        let is_wanted = |place: &Place| wanted.iter().any(|(wanted, ..)| wanted == place);
        self.changes.added.retain(is_wanted);
        let planned = self.plan.tree_places().into_iter();
        self.changes
            .removed
            .extend(planned.filter(|place| !is_wanted(place)));
        for (place, node, next) in wanted {
            if self.is_removed(place) {
                self.changes.added.insert(place);
                self.changes.homes.insert(place, node);
                let after = self.rng_proc.range(200_000, 20_000_000);
                self.after(after, Event::Start(place));
            }
            if node == self.node(place) && self.changes.stopped.remove(&place) {
                let after = self.rng_proc.range(200_000, 20_000_000);
                self.after(after, Event::Start(place));
            }
            let ahead = self.changes.ahead.get(&(place, node)).copied().flatten();
            if let Some(proc) = ahead.filter(|proc| self.procs[*proc].alive && self.is_copy(*proc))
            {
                self.took_over(place, proc);
            }
            let other = next.or_else(|| (node != self.node(place)).then_some(node));
            let Some(node) = other else { continue };
            let ahead = self.changes.ahead.get(&(place, node));
            let there = ahead.is_some_and(|proc| proc.is_none_or(|proc| self.procs[proc].alive));
            if !there {
                self.changes.ahead.insert((place, node), None);
                let after = self.rng_proc.range(200_000, 40_000_000);
                self.after(after, Event::StartOn(place, node));
            }
        }
    }

    /// A process starts at a node that is to take a place.
    pub(crate) fn start_ahead(&mut self, place: Place, node: NodeId) {
        if self.node(place) != node {
            let proc = self.start_on(place, node);
            self.changes.ahead.insert((place, node), Some(proc));
        }
    }

    /// A process has its place: if on another node than before, whoever talks to the earlier one hears of it, some late.
    pub(crate) fn moved(&mut self, proc: ProcId) {
        let (place, node) = (self.procs[proc].place, self.procs[proc].node);
        self.changes.ahead.remove(&(place, node));
        if self.node(place) == node {
            return;
        }
        self.changes.homes.insert(place, node);
        self.say(|| format!("{place} is on node {node} now"));
        let earlier = |proc: usize| {
            let process = &self.procs[proc];
            process.alive && process.place == place && process.node != node
        };
        let links: Vec<usize> = (0..self.links.len())
            .filter(|link| {
                let link = &self.links[*link];
                link.works && link.ends.iter().any(|end| end.open && earlier(end.proc))
            })
            .collect();
        for link in links {
            let late = self.rng_proc.pick(&[1_000_000, 20_000_000, 300_000_000]);
            let after = self.rng_proc.below(late);
            self.after(after, Event::Break(link));
        }
    }

    /// A change that has not ended, in words.
    pub(crate) fn running_change(&self) -> Option<String> {
        let directory = self.controller().filter(|_| self.plan.changes())?;
        let mut transactions = directory.transactions();
        let running = transactions.find(|it| it.progress == Progress::Running)?;
        let steps: Vec<String> = running.lines().collect();
        let step = steps.get(running.done).cloned().unwrap_or_default();
        Some(format!("{:?}: {step}", running.operation))
    }

    /// An operator asks for a change. Counted when it is begun.
    pub(crate) fn change(&mut self, fault: Fault) {
        let idle = self.phase >= Phase::Resting || self.phase == Phase::Core;
        let controller = self.live(Place::Controller);
        let controller =
            controller.filter(|proc| self.procs[*proc].paused_until <= self.now && !idle);
        let Some(proc) = controller.filter(|_| !self.is_silent()) else {
            return self.again(fault);
        };
        let Some(operation) = self.operation(fault) else {
            return self.again(fault);
        };
        let Some(answer) = self.ask(proc, operation) else {
            return;
        };
        let begun = !answer.refused && answer.transaction > 0;
        if !begun {
            return self.again(fault);
        }
        self.faults[fault] += 1;
        // The one that took it may not be the one that ends it.
        if self.phase == Phase::Storm && self.rng_fault.permille(250) {
            let step = self.rng_fault.range(1, 40);
            self.crash_at(Place::Controller, Fault::CrashAtFlush, step);
        }
        self.set_rooms(proc);
        self.drain(proc);
        self.flush_soon(proc);
    }

    /// What the controller answers an operator.
    pub(crate) fn ask(&mut self, proc: ProcId, operation: Operation) -> Option<Operated> {
        let now = self.local(proc);
        let request = Operate {
            plan: false,
            operation,
        };
        let Machine::Directory(directory) = &mut self.procs[proc].machine else {
            return None;
        };
        let (_, answer) = directory.operate(now, &Asker::OPERATOR, &request.encode());
        let answer = Operated::decode(&answer).ok()?;
        let operation = request.operation;
        self.say(|| format!("an operator asks for {operation:?}: {}", answer.text));
        Some(answer)
    }

    /// What an operator asks for, if there is anything to ask for.
    fn operation(&mut self, fault: Fault) -> Option<Operation> {
        let log = LOG;
        Some(match fault {
            Fault::AddShard => {
                if self.added_shards() >= ADDED_MAX {
                    return None;
                }
                let mut nodes = Vec::new();
                while self.rng_fault.permille(800) && nodes.len() < usize::from(self.plan.replicas)
                {
                    let node = self.any_spare();
                    if !nodes.contains(&node) {
                        nodes.push(node);
                    }
                }
                if nodes.len() < usize::from(self.plan.replicas) {
                    nodes.clear();
                }
                Operation::AddShard { log, nodes }
            }
            Fault::FinalizeShard => Operation::FinalizeShard {
                log,
                shard: ShardId::new(self.any_shard()),
                successor: self.added_shards() < ADDED_MAX && self.rng_fault.permille(500),
            },
            Fault::ReplaceReplica => {
                let shard = self.any_shard();
                // Where all replicas must hold a record, it is a copy that moves.
                if self.plan.spare() == 0 && !self.is_finalized(shard) {
                    return None;
                }
                let Place::Replica(shard, slot) = self.leaves(shard) else {
                    return None;
                };
                Operation::ReplaceReplica {
                    log,
                    shard: ShardId::new(shard),
                    slot: Slot::new(slot),
                    node: self.any_spare(),
                }
            }
            Fault::MoveVertex => Operation::MoveVertex {
                log,
                vertex: self.any_vertex()?,
                node: self.any_spare(),
            },
            Fault::SetTree => Operation::SetTree {
                log,
                fan_in: self.rng_fault.range(2, 4) as u16,
                depth: (self.rng_fault.permille(700)).then(|| self.rng_fault.range(1, 4) as u8),
            },
            Fault::MoveLeader => {
                let slot = self.rng_fault.below(u64::from(self.plan.roots)) as u8;
                Operation::MoveLeader {
                    log,
                    slot: Slot::new(slot),
                }
            }
            // In memory only, a group bears the loss of one member when all the others hold everything.
            Fault::SetRoot if !self.bears(Place::Root(0), Harm::Stop) => return None,
            Fault::SetRoot => {
                let slots = 0..self.plan.roots;
                let mut nodes: Vec<NodeId> =
                    slots.map(|slot| self.node(Place::Root(slot))).collect();
                let slot = self.rng_fault.below(nodes.len() as u64) as usize;
                nodes[slot] = self.any_spare();
                Operation::SetRoot { log, nodes }
            }
            Fault::DrainNode => {
                let shard = self.any_shard();
                let vertex = self.places().into_iter().filter(|place| is_vertex(*place));
                let vertices: Vec<Place> = vertex.collect();
                let mut places = vec![self.rng_fault.pick(&vertices), self.leaves(shard)];
                if self.plan.roots > 1 && self.bears(Place::Root(0), Harm::Stop) {
                    places.extend((0..self.plan.roots).map(Place::Root));
                }
                let place = self.rng_fault.pick(&places);
                let node = self.node(place);
                let root = (0..self.plan.roots).any(|slot| self.node(Place::Root(slot)) == node);
                if root && !self.bears(Place::Root(0), Harm::Stop) {
                    return None;
                }
                Operation::DrainNode { node }
            }
            _ => {
                let directory = self.controller()?;
                let running: Vec<u64> = directory
                    .transactions()
                    .filter(|it| it.progress == Progress::Running)
                    .map(|it| it.id)
                    .collect();
                if running.is_empty() {
                    return None;
                }
                Operation::Cancel {
                    transaction: self.rng_fault.pick(&running),
                }
            }
        })
    }

    /// One of the vertices of the tree.
    fn any_vertex(&mut self) -> Option<VertexId> {
        let mut places = self.places();
        places.retain(|place| is_vertex(*place));
        match (!places.is_empty()).then(|| self.rng_fault.pick(&places))? {
            Place::Aggregator(vertex) | Place::Leaf(vertex) => Some(VertexId::new(vertex)),
            _ => None,
        }
    }

    fn any_spare(&mut self) -> NodeId {
        NodeId::new(FIRST_SPARE + self.rng_fault.below(u64::from(SPARES)) as u32)
    }

    /// The replica of a shard that an operator has moved. Of several devices of which one is bad it is that one: without one
    /// of the others, what the bad one has lost may be nowhere.
    fn leaves(&mut self, shard: u32) -> Place {
        if self.plan.class.is_flushed() && self.plan.spare() > 0 {
            return self.victim(shard);
        }
        let slot = self.rng_fault.below(u64::from(self.plan.replicas));
        Place::Replica(shard, slot as u8)
    }
}
