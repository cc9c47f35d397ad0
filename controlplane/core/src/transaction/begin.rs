//! What a task changes when it begins: what should be is another thing from then on.

use std::collections::BTreeSet;

use ionian_types::{LogId, NodeId, SEGMENTS_PER_SHARD_MAX, ShardId, Slot, VertexId};
use ionian_wire::directory::{ROOT_MEMBERS_MAX, SHARDS_PER_LOG_MAX};

use super::{Reason, Task};
use crate::shape::balanced;
use crate::spec::LogSpec;
use crate::state::{Log, Member, Shard, State};

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
            Task::SetRoot {
                log,
                nodes,
                at_once,
            } => self.begin_root(*log, nodes, *at_once),
            Task::MoveLeader { log, slot } => {
                let root = &mut self.logs.get_mut(log).ok_or("no such log")?.root;
                if root.is_single() || slot.index() >= root.places.len() {
                    return Err("no such member of a root group");
                }
                if root.leaves(*slot) {
                    return Err("the member is about to leave the root group");
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

    fn begin_root(&mut self, id: LogId, nodes: &[NodeId], at_once: bool) -> Result<(), Reason> {
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
        if !at_once && !root.enough_stay(nodes) || !root.configs.iter().all(sealed) {
            return Err(
                "too few of those members stay that may hold the cut log alone; change fewer at a time",
            );
        }
        log.root.want(nodes);
        if at_once {
            log.root.part();
        }
        log.operated = true;
        Ok(())
    }
}
