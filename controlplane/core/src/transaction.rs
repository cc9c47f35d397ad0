//! Changes of the cluster that take several steps: each a list of tasks in the state, of which one is under way.
//!
//! Beginning a task changes what should be; the views that follow from it, and the reports that they are logged, are made as
//! for every other difference. So a controller that leads anew goes on where the one before stopped: whether a task is done
//! is read from the state alone.

use std::collections::BTreeSet;

use ionian_types::{Inc, LogId, NodeId, SEGMENTS_PER_SHARD_MAX, ShardId, Slot, VertexId, ViewId};
use ionian_wire::directory::{ROOT_MEMBERS_MAX, SHARDS_PER_LOG_MAX};
use ionian_wire::entry::Changes;
use ionian_wire::tree::TREE_VERTICES_MAX;
use ionian_wire::{Reader, WireError};

use crate::codec::{Encoder, count, range, text};
use crate::command::{decode_spec, encode_spec, nodes};
use crate::group::Phase;
use crate::operation::Operation;
use crate::shape::balanced;
use crate::spec::LogSpec;
use crate::state::{Log, Member, Place, Shard, State};

/// The most tasks of one transaction.
pub(crate) const TASKS_MAX: usize = 4096;

/// A step of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Task {
    CreateLog {
        log: LogId,
        spec: LogSpec,
    },
    AddShard {
        log: LogId,
        shard: ShardId,
        nodes: Vec<NodeId>,
    },
    Finalize {
        log: LogId,
        shards: Vec<ShardId>,
    },
    RemoveLog {
        log: LogId,
    },
    SetRoot {
        log: LogId,
        nodes: Vec<NodeId>,
    },
    MoveLeader {
        log: LogId,
        slot: Slot,
    },
    MoveVertex {
        log: LogId,
        vertex: VertexId,
        node: NodeId,
    },
    SetTree {
        log: LogId,
        fan_in: u16,
        depth: Option<u8>,
        /// Those of the new tree in its order, from when it begins.
        vertices: Vec<VertexId>,
    },
    Replace {
        log: LogId,
        shard: ShardId,
        slot: Slot,
        node: NodeId,
    },
    /// No new places on the node.
    Drain {
        node: NodeId,
    },
    /// New places on the node again.
    Undrain {
        node: NodeId,
    },
}

/// How a transaction stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Progress {
    /// A task is under way.
    Running,
    /// All are done.
    Done,
    /// It was given up.
    Cancelled,
    /// A task could not begin any more, or not come about.
    Failed,
}

impl Progress {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "runs",
            Self::Done => "done",
            Self::Cancelled => "given up",
            Self::Failed => "failed",
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Running => 0,
            Self::Done => 1,
            Self::Cancelled => 2,
            Self::Failed => 3,
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match reader.field::<u8>()? {
            0 => Ok(Self::Running),
            1 => Ok(Self::Done),
            2 => Ok(Self::Cancelled),
            3 => Ok(Self::Failed),
            code => Err(range("progress", u64::from(code))),
        }
    }
}

/// A change of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// Its number.
    pub id: u64,
    /// When it began, in microseconds since 1970; 0 where there is no clock.
    pub at_us: u64,
    /// What was asked for.
    pub operation: Operation,
    /// How it stands.
    pub progress: Progress,
    /// How many of its tasks are done.
    pub done: usize,
    /// Why it failed; empty unless it did.
    pub why: String,
    pub(crate) tasks: Vec<Task>,
}

impl Transaction {
    /// The number of its tasks.
    #[must_use]
    pub const fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// A line per task, in order.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.tasks.iter().map(ToString::to_string)
    }

    /// The tasks that are not done, while it runs.
    pub(crate) fn rest(&self) -> Option<&[Task]> {
        let running = self.progress == Progress::Running;
        self.tasks.get(self.done..).filter(|_| running)
    }

    /// The node that it moves places off, while it runs.
    pub(crate) fn drains(&self) -> Option<NodeId> {
        match self.operation {
            Operation::DrainNode { node } | Operation::ReplaceNode { node, .. } => {
                Some(node).filter(|_| self.progress == Progress::Running)
            }
            _ => None,
        }
    }

    pub(crate) fn current(&self) -> Option<&Task> {
        let running = self.progress == Progress::Running;
        self.tasks.get(self.done).filter(|_| running)
    }
}

impl core::fmt::Display for Task {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let list = |nodes: &[NodeId]| {
            let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
            names.join(", ")
        };
        match self {
            Self::CreateLog { log, spec } => {
                let shards = spec.shards.len();
                write!(
                    f,
                    "log {log}: create {} and open {shards} shards",
                    spec.name
                )
            }
            Self::AddShard { log, shard, nodes } => {
                write!(f, "log {log}: open shard {shard} on nodes {}", list(nodes))
            }
            Self::Finalize { log, shards } => {
                let names: Vec<String> = shards.iter().map(ToString::to_string).collect();
                write!(f, "log {log}: finalize shards {}", names.join(", "))
            }
            Self::RemoveLog { log } => write!(f, "log {log}: remove it"),
            Self::SetRoot { log, nodes } => {
                write!(f, "log {log}: the root group is nodes {}", list(nodes))
            }
            Self::MoveLeader { log, slot } => write!(f, "log {log}: root member {slot} leads"),
            Self::MoveVertex { log, vertex, node } => {
                write!(
                    f,
                    "log {log}: vertex {vertex} of the tree is on node {node}"
                )
            }
            Self::SetTree {
                log, fan_in, depth, ..
            } => {
                write!(f, "log {log}: the tree has a fan-in of {fan_in}")?;
                depth.map_or(Ok(()), |depth| write!(f, " and {depth} levels"))
            }
            Self::Replace {
                log,
                shard,
                slot,
                node,
            } => write!(f, "log {log}: replica {shard}.{slot} is on node {node}"),
            Self::Drain { node } => write!(f, "node {node}: takes no new places"),
            Self::Undrain { node } => write!(f, "node {node}: takes new places again"),
        }
    }
}

/// Why a task cannot begin, or not come about, or a transaction not be given up. Effect: none.
pub(crate) type Reason = &'static str;

/// How the task under way stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stand {
    /// What it wants is on its way.
    Running,
    /// It has come about.
    Done,
    /// It cannot come about any more.
    Failed(Reason),
}

impl State {
    /// Begins a task: what should be is another thing from now on. A shard has its number from here on; what was planned was
    /// only what it would be if no other change added one. `Err` changes nothing.
    pub(crate) fn begin(&mut self, task: &mut Task) -> Result<(), Reason> {
        match task {
            Task::CreateLog { log, spec } => self.begin_log(*log, spec),
            Task::AddShard { log, shard, nodes } => {
                *shard = self.begin_shard(*log, nodes)?;
                Ok(())
            }
            Task::Finalize { log, shards } => {
                let log = self.logs.get_mut(log).ok_or("no such log")?;
                let there = |shard: &ShardId| {
                    let shard = log.shards.get(shard);
                    shard.is_some_and(|shard| !shard.finalized)
                };
                if !shards.iter().all(there) {
                    return Err("a shard that is not there, or finalized");
                }
                for shard in shards {
                    if let Some(shard) = log.shards.get_mut(shard) {
                        shard.finalizing = true;
                    }
                }
                log.operated = true;
                Ok(())
            }
            Task::RemoveLog { log } => {
                let there = self.logs.get(log).ok_or("no such log")?;
                if there.shards.values().any(|shard| shard.opened) {
                    return Err("a shard of the log is open");
                }
                self.logs.remove(log);
                self.users.forget_log(*log);
                Ok(())
            }
            Task::SetRoot { log, nodes } => self.begin_root(*log, nodes),
            Task::MoveLeader { log, slot } => {
                let root = &mut self.logs.get_mut(log).ok_or("no such log")?.root;
                if root.is_single() || slot.index() >= root.places.len() {
                    return Err("no such member of a root group");
                }
                root.prefer(Some(*slot));
                Ok(())
            }
            Task::MoveVertex { log, vertex, node } => {
                let known = self.nodes.contains_key(node);
                let log = self.logs.get_mut(log).ok_or("no such log")?;
                if !known {
                    return Err("no such node");
                }
                let vertex = log.tree.vertex_mut(*vertex);
                vertex.ok_or("the tree has no such vertex")?.go_to(*node);
                log.operated = true;
                Ok(())
            }
            Task::SetTree {
                log,
                fan_in,
                depth,
                vertices,
            } => {
                *vertices = self.begin_tree(*log, *fan_in, *depth)?;
                Ok(())
            }
            Task::Replace {
                log,
                shard,
                slot,
                node,
            } => self.begin_replacement(*log, *shard, *slot, *node),
            Task::Drain { node } => {
                let node = self.nodes.get_mut(node).ok_or("no such node")?;
                node.drained = true;
                Ok(())
            }
            Task::Undrain { node } => {
                let node = self.nodes.get_mut(node).ok_or("no such node")?;
                node.drained = false;
                Ok(())
            }
        }
    }

    pub(crate) fn begin_log(&mut self, id: LogId, spec: &LogSpec) -> Result<(), Reason> {
        if id.get() != self.next_log || self.logs.values().any(|log| log.name == spec.name) {
            return Err("a log of this name or number is there");
        }
        let next = self.next_log.checked_add(1).filter(|&id| id < u32::MAX);
        let next = next.ok_or("log ids are used up")?;
        let domain_of = |node| self.nodes.get(&node).map(|node| node.domain);
        let checked = spec.check(domain_of, self.logs.len() + 1);
        checked.map_err(|_| "not a log that can be created")?;
        self.next_log = next;
        self.logs.insert(id, Log::new(spec));
        Ok(())
    }

    fn begin_shard(&mut self, id: LogId, nodes: &[NodeId]) -> Result<ShardId, Reason> {
        let log = self.logs.get(&id).ok_or("no such log")?;
        let shard = ShardId::new(log.next_shard);
        let next = log.next_shard.checked_add(1);
        let next = next.ok_or("shard ids are used up")?;
        let domains: Option<BTreeSet<u32>> = nodes
            .iter()
            .map(|node| self.nodes.get(node).map(|node| node.domain))
            .collect();
        let domains = domains.ok_or("no such node")?;
        if nodes.is_empty()
            || nodes.len() > SEGMENTS_PER_SHARD_MAX
            || log.shards.len() >= SHARDS_PER_LOG_MAX
        {
            return Err("not a shard that can be added");
        }
        if log.class == ionian_types::Durability::D2 && domains.len() < 2 {
            return Err("the replicas of a shard of class D2 have to lie in two failure domains");
        }
        let fits = |quorum: u8| {
            let quorum = usize::from(quorum);
            quorum == nodes.len() || 2 * quorum == nodes.len() + 1
        };
        if !log.quorum.is_none_or(fits) {
            return Err("the number of replicas does not fit the log's quorum");
        }
        let rank = shard.get();
        let members = nodes.iter().map(|&node| Member::new(node)).collect();
        let log = self.logs.get_mut(&id).ok_or("no such log")?;
        log.next_shard = next;
        log.operated = true;
        log.shards.insert(shard, Shard::new(rank, members));
        Ok(shard)
    }

    fn begin_tree(
        &mut self,
        id: LogId,
        fan_in: u16,
        depth: Option<u8>,
    ) -> Result<Vec<VertexId>, Reason> {
        let log = self.logs.get(&id).ok_or("no such log")?;
        if log.tree.is_adopting() {
            return Err("a view with another tree is on its way; ask again once it is logged");
        }
        let shape = balanced(&log.order(), fan_in, depth);
        let shape = shape.map_err(|_| "the log's shards have no such tree")?;
        let mut loads = self.candidates(None);
        if loads.is_empty() {
            return Err("no node takes new places");
        }
        let log = self.logs.get_mut(&id).ok_or("no such log")?;
        let asked = log.tree.ask_for(&shape, || {
            let least = loads.iter_mut().min_by_key(|(id, node)| (node.load, **id));
            least.map_or(NodeId::ZERO, |(id, node)| {
                node.load += 1;
                *id
            })
        });
        asked.ok_or("numbers of vertices are used up")?;
        log.operated = true;
        Ok(log.tree.wanted().collect())
    }

    fn begin_replacement(
        &mut self,
        id: LogId,
        shard: ShardId,
        slot: Slot,
        node: NodeId,
    ) -> Result<(), Reason> {
        let domain = self.nodes.get(&node).ok_or("no such node")?.domain;
        let log = self.logs.get(&id).ok_or("no such log")?;
        let state = log.shards.get(&shard).ok_or("no such shard")?;
        let count = state.members.len();
        if slot.index() >= count {
            return Err("no such replica");
        }
        if state.finalized {
            return self.begin_copy(id, shard, slot, node);
        }
        if log.quorum.is_none_or(|quorum| usize::from(quorum) >= count) {
            return Err(
                "every replica of the shard has to hold a record; finalize it with a successor instead",
            );
        }
        if !state.opened || state.finalizing {
            return Err("the shard is not open");
        }
        let others = || {
            let members = state.members.iter().enumerate();
            members.filter(|(other, _)| *other != slot.index())
        };
        if others().any(|(_, member)| !member.holds || member.is_replaced() || member.is_joining())
        {
            return Err(
                "another replica of the shard does not hold everything yet; wait until the shard is whole",
            );
        }
        let moves = |member: &Member| member.next.is_some();
        if state.members.iter().any(moves) || others().any(|(_, m)| m.place.node == node) {
            return Err("one replica of a shard at a time, and each on a node of its own");
        }
        let mut domains: BTreeSet<u32> = others()
            .filter_map(|(_, member)| self.nodes.get(&member.place.node))
            .map(|node| node.domain)
            .collect();
        domains.insert(domain);
        if log.class == ionian_types::Durability::D2 && domains.len() < 2 {
            return Err("the replicas of a shard of class D2 have to lie in two failure domains");
        }
        let log = self.logs.get_mut(&id).ok_or("no such log")?;
        log.operated = true;
        let shard = log.shards.get_mut(&shard).ok_or("no such shard")?;
        let member = shard
            .members
            .get_mut(slot.index())
            .ok_or("no such replica")?;
        member.next = (member.place.node != node).then_some(node);
        Ok(())
    }

    fn begin_root(&mut self, id: LogId, nodes: &[NodeId]) -> Result<(), Reason> {
        if !nodes.iter().all(|node| self.nodes.contains_key(node)) {
            return Err("no such node");
        }
        let log = self.logs.get_mut(&id).ok_or("no such log")?;
        let distinct: BTreeSet<&NodeId> = nodes.iter().collect();
        if !(2..=ROOT_MEMBERS_MAX).contains(&nodes.len()) || distinct.len() != nodes.len() {
            return Err("a root group that is changed has 2 to 7 members on different nodes");
        }
        let root = &log.root;
        let stays = |slot: usize, node: NodeId| nodes.get(slot) == Some(&node);
        for (slot, place) in root.places.iter().enumerate() {
            let elsewhere = nodes.iter().position(|node| *node == place.node);
            if elsewhere.is_some_and(|other| other != slot) {
                return Err("a member keeps its slot");
            }
        }
        let sealed = |config: &crate::group::Config| {
            config.counts(|slot, node, _| stays(slot.index(), node)) >= config.needs()
        };
        if !root.configs.iter().all(sealed) {
            return Err(
                "too few of those members stay that may hold the cut log alone; change fewer at a time",
            );
        }
        let mut leaving = Vec::new();
        let place = |(slot, &node): (usize, &NodeId)| {
            let before = log.root.places.get(slot);
            let same = before.filter(|place| place.node == node).cloned();
            same.unwrap_or_else(|| Place::new(node))
        };
        let places = nodes.iter().enumerate().map(place).collect();
        for (slot, place) in log.root.places.iter().enumerate() {
            if !stays(slot, place.node) {
                leaving.push(Slot::new(slot as u8));
            }
        }
        log.root.places = places;
        // What they hold goes with them: it counts for nothing, also if their nodes are asked for again.
        for slot in leaving {
            log.root.forget_member(slot);
        }
        let left = |slot: Slot| slot.index() >= nodes.len();
        if log.root.prefer.is_some_and(left) {
            log.root.prefer(None);
        }
        log.operated = true;
        Ok(())
    }

    /// How the task under way stands.
    pub(crate) fn stand(&self, task: &Task) -> Stand {
        if self.is_done(task) {
            return Stand::Done;
        }
        self.in_vain(task).map_or(Stand::Running, Stand::Failed)
    }

    /// Whether what a task wants has come about: what it asked for, not what another one has asked for since. A task whose log
    /// is gone has nothing to wait for.
    pub(crate) fn is_done(&self, task: &Task) -> bool {
        let log = |id: &LogId| self.logs.get(id);
        match task {
            Task::CreateLog { log: id, .. } => log(id).is_none_or(|log| {
                let shards = log.shards.values();
                shards.clone().count() > 0
                    && shards.into_iter().all(|shard| shard.epoch > ViewId::ZERO)
            }),
            Task::AddShard { log: id, shard, .. } => log(id).is_none_or(|log| {
                let shard = log.shards.get(shard);
                shard.is_none_or(|shard| shard.opened || shard.finalized)
            }),
            Task::Finalize { log: id, shards } => log(id).is_none_or(|log| {
                let ended =
                    |shard: &Shard| shard.finalized || !shard.opened && log.pending.is_none();
                shards
                    .iter()
                    .all(|shard| log.shards.get(shard).is_none_or(ended))
            }),
            Task::SetRoot { log: id, nodes } => log(id).is_none_or(|log| {
                let root = &log.root;
                let listed = root.current().is_some_and(|config| {
                    let members = config
                        .members
                        .iter()
                        .map(|member| (member.node, member.inc));
                    let places = root.places.iter().map(|place| (place.node, place.inc));
                    members.eq(places)
                });
                let all = root.places.iter().all(|place| place.inc != Inc::ZERO);
                root.phase == Phase::Recorded && listed && all && root.is_of(nodes)
            }),
            Task::MoveLeader { log: id, slot } => log(id).is_none_or(|log| {
                log.root.phase == Phase::Recorded && log.root.leader() == Some(*slot)
            }),
            Task::MoveVertex {
                log: id,
                vertex,
                node,
            } => log(id).is_none_or(|log| {
                let Some(filled) = log.tree.vertex(*vertex) else {
                    return true;
                };
                let there = filled.place.node == *node && filled.place.inc != Inc::ZERO;
                filled.next.is_none() && there && (log.tree.lists(*vertex) || log.is_idle())
            }),
            Task::SetTree {
                log: id, vertices, ..
            } => log(id).is_none_or(|log| {
                let tree = &log.tree;
                let there = tree.coming().is_none() && tree.wanted().eq(vertices.iter().copied());
                there && (tree.is_logged() || log.is_idle())
            }),
            Task::Replace {
                log: id,
                shard,
                slot,
                node,
            } => {
                let shard = log(id).and_then(|log| log.shards.get(shard));
                if let Some(shard) = shard.filter(|shard| shard.finalized) {
                    let there =
                        |member: &Member| member.next.is_none() && member.place.node == *node;
                    return shard.members.get(slot.index()).is_none_or(there);
                }
                let open = shard.filter(|shard| shard.opened || shard.epoch == ViewId::ZERO);
                let member = open.and_then(|shard| shard.members.get(slot.index()));
                member.is_none_or(|member| {
                    let place = &member.place;
                    let there = place.inc != Inc::ZERO && !member.is_replaced();
                    let asked = place.node == *node;
                    member.next.is_none() && asked && there && !member.is_joining()
                })
            }
            Task::RemoveLog { .. } | Task::Drain { .. } | Task::Undrain { .. } => true,
        }
    }

    /// Why what a task wants cannot come about any more, if that is so. Each of these was begun: what should be was what it asks
    /// for, and is not now.
    fn in_vain(&self, task: &Task) -> Option<Reason> {
        let log = |id: &LogId| self.logs.get(id);
        match task {
            Task::Finalize { log: id, shards } => {
                let lives = |shard: &Shard| shard.opened && !shard.finalizing && !shard.finalized;
                let log = log(id)?;
                let mut shards = shards.iter().filter_map(|shard| log.shards.get(shard));
                let kept = shards.any(lives);
                kept.then_some(
                    "a shard is to go on: another change that was to end it was given up",
                )
            }
            Task::SetRoot { log: id, nodes } => {
                let other = !log(id)?.root.is_of(nodes);
                other.then_some("another change has given the root group other members since")
            }
            Task::MoveLeader { log: id, slot } => {
                let root = &log(id)?.root;
                if slot.index() >= root.places.len() {
                    return Some("the root group has no such member any more");
                }
                match root.prefer {
                    Some(prefer) if prefer == *slot => None,
                    Some(_) => Some("another change wants another member to lead"),
                    // Named, and on its way.
                    None if root.leader() == Some(*slot) => None,
                    None => Some(
                        "another member leads: the log of this one stayed behind, or another change was asked for since; ask again",
                    ),
                }
            }
            Task::MoveVertex {
                log: id,
                vertex,
                node,
            } => {
                let vertex = log(id)?.tree.vertex(*vertex)?;
                let other = vertex.place.node != *node && vertex.next != Some(*node);
                other.then_some("another change has sent the vertex elsewhere since")
            }
            Task::SetTree {
                log: id, vertices, ..
            } => {
                let other = !log(id)?.tree.wanted().eq(vertices.iter().copied());
                other.then_some("another change has asked for another tree since")
            }
            Task::Replace {
                log: id,
                shard,
                slot,
                node,
            } => {
                let shard = log(id)?.shards.get(shard)?;
                let member = shard.members.get(slot.index())?;
                let other = member.place.node != *node && member.next != Some(*node);
                let reason = if shard.finalized && member.next.is_none() {
                    "nothing is left to be copied, or another change has given the copy up"
                } else {
                    "another change has sent the replica elsewhere since"
                };
                other.then_some(reason)
            }
            Task::CreateLog { .. }
            | Task::AddShard { .. }
            | Task::RemoveLog { .. }
            | Task::Drain { .. }
            | Task::Undrain { .. } => None,
        }
    }

    /// After a task: what is over for good is marked as such, and who was to lead need not any more.
    pub(crate) fn end(&mut self, task: &Task) {
        match task {
            Task::Finalize { log, shards } => {
                let Some(log) = self.logs.get_mut(log) else {
                    return;
                };
                for shard in shards {
                    if let Some(shard) = log.shards.get_mut(shard).filter(|it| !it.finalized) {
                        // No view says so, and nobody has records of it.
                        shard.end();
                        shard.give_up_copies();
                    }
                }
            }
            Task::MoveLeader { log, slot } => {
                let root = self.logs.get_mut(log).map(|log| &mut log.root);
                if let Some(root) = root.filter(|root| root.prefer == Some(*slot)) {
                    root.prefer(None);
                }
            }
            _ => {}
        }
    }

    /// Gives a task up that nobody has seen the result of. `Err` changes nothing.
    pub(crate) fn undo(&mut self, task: &Task) -> Result<(), Reason> {
        let under_way = |log: &Log, shards: &[ShardId]| {
            let pending = log.pending.as_ref();
            pending.is_some_and(|pending| {
                let mut changes = Changes::new(&pending.changes);
                changes.any(|change| change.shard().is_some_and(|shard| shards.contains(&shard)))
            })
        };
        match task {
            Task::AddShard { log, shard, .. } => {
                let log = self.logs.get_mut(log).ok_or("the log is gone")?;
                let opened = log
                    .shards
                    .get(shard)
                    .is_none_or(|shard| shard.epoch > ViewId::ZERO);
                if opened || under_way(log, &[*shard]) {
                    return Err("the view that opens the shard is on its way; finalize it instead");
                }
                log.shards.remove(shard);
                Ok(())
            }
            Task::Finalize { log, shards } => {
                let log = self.logs.get_mut(log).ok_or("the log is gone")?;
                let ended = |shard: &ShardId| {
                    let shard = log.shards.get(shard);
                    shard.is_none_or(|shard| shard.finalized || !shard.opened)
                };
                if shards.iter().any(ended) || under_way(log, shards) {
                    return Err(
                        "a view that finalizes shards is logged, or on its way; it is final",
                    );
                }
                for shard in shards {
                    if let Some(shard) = log.shards.get_mut(shard) {
                        shard.finalizing = false;
                    }
                }
                Ok(())
            }
            Task::MoveLeader { log, .. } => {
                let log = self.logs.get_mut(log).ok_or("the log is gone")?;
                log.root.prefer(None);
                Ok(())
            }
            Task::MoveVertex { log, vertex, .. } => {
                let log = self.logs.get_mut(log).ok_or("the log is gone")?;
                let vertex = log.tree.vertex_mut(*vertex).ok_or("the vertex is gone")?;
                let moves = vertex.next.take();
                moves.ok_or("the vertex has moved already; move it back instead")?;
                Ok(())
            }
            Task::SetTree { log, .. } => {
                let tree = &mut self.logs.get_mut(log).ok_or("the log is gone")?.tree;
                if tree.is_adopting() || tree.coming().is_none() {
                    return Err(
                        "the view with the tree is on its way, or logged; set it back instead",
                    );
                }
                tree.keep();
                Ok(())
            }
            Task::Replace {
                log, shard, slot, ..
            } => {
                let log = self.logs.get_mut(log).ok_or("the log is gone")?;
                let shard = log.shards.get_mut(shard).ok_or("the shard is gone")?;
                let member = shard.members.get_mut(slot.index());
                let member = member.filter(|member| member.next.is_some());
                let member = member.ok_or("the new replica is there; replace it again instead")?;
                (member.next, member.copy) = (None, None);
                Ok(())
            }
            Task::CreateLog { .. } => Err("the log is there; delete it instead"),
            Task::SetRoot { .. } => Err("the members have been changed; change them back instead"),
            Task::RemoveLog { .. } | Task::Drain { .. } | Task::Undrain { .. } => Ok(()),
        }
    }
}

impl Transaction {
    pub(crate) fn encode(&self, out: &mut Encoder) {
        out.put(self.id);
        out.put(self.at_us);
        self.operation.encode(out);
        out.put(self.progress.code());
        out.put(self.done as u32);
        encode_tasks(out, &self.tasks);
        out.bytes(self.why.as_bytes());
    }

    /// Reads what [`Self::encode`] wrote in a snapshot of version `written`.
    pub(crate) fn decode(reader: &mut Reader<'_>, written: u16) -> Result<Self, WireError> {
        let mut transaction = Self {
            id: reader.field()?,
            at_us: reader.field()?,
            operation: Operation::decode(reader)?,
            progress: Progress::decode(reader)?,
            done: count(reader, TASKS_MAX, "tasks done")?,
            why: String::new(),
            tasks: decode_tasks(reader)?,
        };
        if written >= 11 {
            transaction.why = text(reader)?;
        }
        if transaction.done > transaction.tasks.len() {
            return Err(range("tasks done", transaction.done as u64));
        }
        Ok(transaction)
    }
}

pub(crate) fn encode_tasks(out: &mut Encoder, tasks: &[Task]) {
    out.put(tasks.len() as u32);
    for task in tasks {
        match task {
            Task::CreateLog { log, spec } => {
                out.put(1u8);
                out.put(*log);
                encode_spec(out, spec);
            }
            Task::AddShard { log, shard, nodes } => {
                out.put(2u8);
                out.put(*log);
                out.put(*shard);
                out.nodes(nodes);
            }
            Task::Finalize { log, shards } => {
                out.put(3u8);
                out.put(*log);
                out.put(shards.len() as u32);
                shards.iter().for_each(|&shard| out.put(shard));
            }
            Task::RemoveLog { log } => {
                out.put(4u8);
                out.put(*log);
            }
            Task::SetRoot { log, nodes } => {
                out.put(5u8);
                out.put(*log);
                out.nodes(nodes);
            }
            Task::MoveLeader { log, slot } => {
                out.put(6u8);
                out.put(*log);
                out.put(*slot);
            }
            Task::MoveVertex { log, vertex, node } => {
                out.put(11u8);
                out.put(*log);
                out.put(*vertex);
                out.put(*node);
            }
            Task::SetTree {
                log,
                fan_in,
                depth,
                vertices,
            } => {
                out.put(12u8);
                out.put(*log);
                out.put(*fan_in);
                out.put(depth.unwrap_or(0));
                out.put(vertices.len() as u32);
                vertices.iter().for_each(|vertex| out.put(*vertex));
            }
            Task::Replace {
                log,
                shard,
                slot,
                node,
            } => {
                out.put(9u8);
                out.put(*log);
                out.put(*shard);
                out.put(*slot);
                out.put(*node);
            }
            Task::Drain { node } => {
                out.put(8u8);
                out.put(*node);
            }
            Task::Undrain { node } => {
                out.put(10u8);
                out.put(*node);
            }
        }
    }
}

pub(crate) fn decode_tasks(reader: &mut Reader<'_>) -> Result<Vec<Task>, WireError> {
    let tasks = count(reader, TASKS_MAX, "tasks")?;
    (0..tasks).map(|_| decode_task(reader)).collect()
}

fn decode_task(reader: &mut Reader<'_>) -> Result<Task, WireError> {
    let tag: u8 = reader.field()?;
    Ok(match tag {
        1 => Task::CreateLog {
            log: reader.field()?,
            spec: decode_spec(reader)?,
        },
        2 => Task::AddShard {
            log: reader.field()?,
            shard: reader.field()?,
            nodes: nodes(reader, SEGMENTS_PER_SHARD_MAX)?,
        },
        3 => Task::Finalize {
            log: reader.field()?,
            shards: {
                let shards = count(reader, SHARDS_PER_LOG_MAX, "shards")?;
                (0..shards)
                    .map(|_| reader.field())
                    .collect::<Result<_, _>>()?
            },
        },
        4 => Task::RemoveLog {
            log: reader.field()?,
        },
        5 => Task::SetRoot {
            log: reader.field()?,
            nodes: nodes(reader, ROOT_MEMBERS_MAX)?,
        },
        6 => Task::MoveLeader {
            log: reader.field()?,
            slot: reader.field()?,
        },
        // Of before there were aggregators.
        7 => Task::MoveVertex {
            log: reader.field()?,
            vertex: VertexId::ZERO,
            node: reader.field()?,
        },
        11 => Task::MoveVertex {
            log: reader.field()?,
            vertex: reader.field()?,
            node: reader.field()?,
        },
        12 => Task::SetTree {
            log: reader.field()?,
            fan_in: reader.field()?,
            depth: Some(reader.field()?).filter(|depth| *depth > 0),
            vertices: {
                let count = count(reader, TREE_VERTICES_MAX, "tree vertices")?;
                (0..count)
                    .map(|_| reader.field())
                    .collect::<Result<_, _>>()?
            },
        },
        8 => Task::Drain {
            node: reader.field()?,
        },
        9 => Task::Replace {
            log: reader.field()?,
            shard: reader.field()?,
            slot: reader.field()?,
            node: reader.field()?,
        },
        10 => Task::Undrain {
            node: reader.field()?,
        },
        tag => return Err(range("task", u64::from(tag))),
    })
}
