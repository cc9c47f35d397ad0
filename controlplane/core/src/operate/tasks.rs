//! The steps that do what an operator asks for, or the reason why there are none.

use ionian_types::{LogId, NodeId, ShardId, Slot};

use crate::group::Phase;
use crate::operation::Operation;
use crate::shape::balanced;
use crate::state::{Log, Shard, State};
use crate::transaction::{TASKS_MAX, Task, Transaction};

impl State {
    /// The steps that do what is asked for; none when it is so already.
    pub(super) fn tasks(&self, operation: &Operation) -> Result<Vec<Task>, String> {
        let tasks = match operation {
            Operation::CreateLog(spec) => {
                let same = self.logs.values().find(|log| log.name == spec.name);
                if let Some(log) = same {
                    return match log.differs_from(spec) {
                        Some(what) => Err(format!("log {} exists, with another {what}", spec.name)),
                        None => Ok(Vec::new()),
                    };
                }
                let domain_of = |node| self.nodes.get(&node).map(|node| node.domain);
                let checked = spec.check(domain_of, self.logs.len() + 1);
                checked.map_err(|error| error.to_string())?;
                let log = LogId::new(self.next_log);
                let spec = spec.clone();
                vec![Task::CreateLog { log, spec }]
            }
            Operation::DeleteLog { log } => self.delete(*log)?,
            Operation::AddShard { log, nodes } => {
                let nodes = if nodes.is_empty() {
                    self.placed(*log, None)?
                } else {
                    nodes.clone()
                };
                let shard = ShardId::new(self.log(*log)?.next_shard);
                let log = *log;
                vec![Task::AddShard { log, shard, nodes }]
            }
            Operation::FinalizeShard {
                log,
                shard,
                successor,
            } => self.finalize(*log, *shard, *successor)?,
            Operation::SetRoot { log, nodes } => {
                if self.log(*log)?.root.nodes() == *nodes {
                    return Ok(Vec::new());
                }
                vec![Task::SetRoot {
                    log: *log,
                    nodes: nodes.clone(),
                    at_once: false,
                }]
            }
            Operation::MoveLeader { log, slot } => {
                let root = &self.log(*log)?.root;
                let leads = root.leader() == Some(*slot) && root.phase == Phase::Recorded;
                if leads && root.prefer.is_none_or(|prefer| prefer == *slot) {
                    return Ok(Vec::new());
                }
                let (log, slot) = (*log, *slot);
                vec![Task::MoveLeader { log, slot }]
            }
            Operation::MoveVertex { log, vertex, node } => {
                let found = self.log(*log)?;
                let filled = found.tree.vertex(*vertex).ok_or_else(|| {
                    format!("the tree of log {} has no vertex {vertex}", found.name)
                })?;
                if filled.place.node == *node && filled.next.is_none() {
                    return Ok(Vec::new());
                }
                let (log, vertex, node) = (*log, *vertex, *node);
                vec![Task::MoveVertex { log, vertex, node }]
            }
            Operation::SetTree { log, fan_in, depth } => {
                let found = self.log(*log)?;
                let shape = balanced(&found.order(), *fan_in, *depth);
                let shape = shape.map_err(|error| format!("log {}: {error}", found.name))?;
                if found.tree.stays(&shape) {
                    return Ok(Vec::new());
                }
                vec![Task::SetTree {
                    log: *log,
                    fan_in: *fan_in,
                    depth: *depth,
                    vertices: Vec::new(),
                }]
            }
            Operation::ReplaceReplica {
                log,
                shard,
                slot,
                node,
            } => vec![Task::Replace {
                log: *log,
                shard: *shard,
                slot: *slot,
                node: *node,
            }],
            Operation::DrainNode { node } => self.drain(*node, None)?,
            Operation::UndrainNode { node } => self.undrain(*node)?,
            Operation::ReplaceNode { node, with } => {
                let other = self.nodes.get(with).filter(|_| node != with);
                let other = other
                    .ok_or_else(|| format!("node {with} is not another node of the cluster"))?;
                if other.drained {
                    return Err(format!("node {with} is drained and takes no new places"));
                }
                self.drain(*node, Some(*with))?
            }
            Operation::Cancel { .. }
            | Operation::List
            | Operation::Describe { .. }
            | Operation::History { .. }
            | Operation::AddUser { .. }
            | Operation::RevokeUser { .. }
            | Operation::GrantLog { .. }
            | Operation::ListUsers
            | Operation::OpenSessions { .. } => Vec::new(),
        };
        if tasks.len() > TASKS_MAX {
            let steps = tasks.len();
            return Err(format!(
                "it takes {steps} steps, more than {TASKS_MAX}; do it in parts"
            ));
        }
        Ok(tasks)
    }

    pub(super) fn log(&self, log: LogId) -> Result<&Log, String> {
        let found = self.logs.get(&log);
        found.ok_or_else(|| format!("the cluster has no log with id {log}"))
    }

    fn delete(&self, id: LogId) -> Result<Vec<Task>, String> {
        let shards = self.log(id)?.shards.iter();
        let lives = shards.filter(|(_, shard)| !shard.finalized);
        let shards: Vec<ShardId> = lives.map(|(&shard, _)| shard).collect();
        let remove = Task::RemoveLog { log: id };
        if shards.is_empty() {
            return Ok(vec![remove]);
        }
        Ok(vec![Task::Finalize { log: id, shards }, remove])
    }

    fn finalize(&self, id: LogId, shard: ShardId, successor: bool) -> Result<Vec<Task>, String> {
        let log = self.log(id)?;
        let found = log.shards.get(&shard);
        let found = found.ok_or_else(|| format!("log {} has no shard {shard}", log.name))?;
        if found.finalized || found.finalizing {
            return Ok(Vec::new());
        }
        let ends = |other: ShardId| {
            let mut tasks = self
                .transactions
                .iter()
                .filter_map(Transaction::rest)
                .flatten();
            tasks.any(|task| {
                matches!(task, Task::Finalize { log, shards } if *log == id && shards.contains(&other))
            })
        };
        let lives = |(&other, state): (&ShardId, &Shard)| {
            other != shard && state.opened && !state.finalizing && !ends(other)
        };
        if !successor && !log.shards.iter().any(lives) {
            return Err(format!(
                "shard {shard} is the last open one of log {}, which would take no appends; add a shard first, or ask for a successor",
                log.name
            ));
        }
        let end = Task::Finalize {
            log: id,
            shards: vec![shard],
        };
        if !successor {
            return Ok(vec![end]);
        }
        let nodes = self.placed(id, None)?;
        let shard = ShardId::new(log.next_shard);
        let begin = Task::AddShard {
            log: id,
            shard,
            nodes,
        };
        Ok(vec![begin, end])
    }

    /// Everything moves off a node: shards by successors, where every replica must hold a record, and then their copies; other
    /// replicas, members of root groups and leaves as they are; to other nodes, or to the one that is named.
    fn drain(&self, node: NodeId, with: Option<NodeId>) -> Result<Vec<Task>, String> {
        if !self.nodes.contains_key(&node) {
            return Err(format!("the cluster has no node {node}"));
        }
        let mut tasks = vec![Task::Drain { node }];
        for (&id, log) in &self.logs {
            let mut next_shard = log.next_shard;
            for (&shard, state) in &log.shards {
                let members = &state.members;
                let slot = members.iter().position(|member| member.place.node == node);
                let Some(slot) = slot.map(|slot| Slot::new(slot as u8)) else {
                    continue;
                };
                let held = if self.is_joined(id, shard) {
                    let mut others = members.iter();
                    others.any(|member| member.place.node != node && member.holds)
                } else {
                    state.is_held()
                };
                if !log.is_void(state) && !held {
                    return Err(format!(
                        "no other node holds the records of shard {shard} of log {}; its last copy would go with node {node}",
                        log.name
                    ));
                }
                if state.finalizing && !state.finalized {
                    return Err(format!(
                        "shard {shard} of log {} is about to end; ask again once it has",
                        log.name
                    ));
                }
                if state.finalized && members[slot.index()].next.is_some() {
                    continue;
                }
                let replace = Task::Replace {
                    log: id,
                    shard,
                    slot,
                    node: self.other_member(log, members, node, with)?,
                };
                if state.finalized || log.learns(state) && state.opened {
                    tasks.push(replace);
                    continue;
                }
                let nodes = match with {
                    Some(_) => self.successors(members, node, with)?,
                    None => self.placed(id, Some(node))?,
                };
                tasks.push(Task::AddShard {
                    log: id,
                    shard: ShardId::new(next_shard),
                    nodes,
                });
                tasks.push(Task::Finalize {
                    log: id,
                    shards: vec![shard],
                });
                // What it holds is copied as soon as it has ended.
                tasks.push(replace);
                next_shard += 1;
            }
            let mut nodes = log.root.nodes();
            let here: Vec<NodeId> = log.root.places.iter().map(|place| place.node).collect();
            let leaves = here.contains(&node);
            let coming = nodes.iter().position(|it| *it == node);
            if coming.is_some() || leaves {
                if log.root.is_single() {
                    return Err(format!(
                        "node {node} is the whole root group of log {}; give it more members first",
                        log.name
                    ));
                }
                if let Some(slot) = coming {
                    let used = [&nodes[..], &here[..]].concat();
                    nodes[slot] = self.other_node(node, with, &used)?;
                }
                // One that is leaving already is waited for.
                tasks.push(Task::SetRoot {
                    log: id,
                    nodes,
                    at_once: false,
                });
            }
            for (vertex, filled) in log.tree.vertices() {
                if filled.place.node == node {
                    let node = self.other_node(node, with, &[])?;
                    let log = id;
                    tasks.push(Task::MoveVertex { log, vertex, node });
                }
            }
        }
        Ok(tasks)
    }

    /// A drained node takes new places again. What has moved off it stays where it is.
    fn undrain(&self, node: NodeId) -> Result<Vec<Task>, String> {
        let known = self.nodes.get(&node);
        let known = known.ok_or_else(|| format!("the cluster has no node {node}"))?;
        if let Some(transaction) = self.drained_by(node) {
            let id = transaction.id;
            return Err(format!(
                "transaction {id} moves what is on node {node} to others; wait for its end, or give it up with `ionian transaction cancel {id}`"
            ));
        }
        let task = Task::Undrain { node };
        Ok(Vec::from_iter(known.drained.then_some(task)))
    }
}
