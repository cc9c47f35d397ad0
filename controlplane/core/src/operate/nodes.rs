//! Which nodes take what comes, or what another one has had.

use std::collections::BTreeMap;

use ionian_types::{Durability, LogId, NodeId};

use crate::foresee::named;
use crate::placement::{Candidate, place};
use crate::state::{Log, Member, State};

impl State {
    /// How many places each node that takes new ones has.
    pub(crate) fn candidates(&self, without: Option<NodeId>) -> BTreeMap<NodeId, Candidate> {
        let nodes = self.nodes.iter();
        let nodes = nodes.filter(|(id, node)| !node.drained && Some(**id) != without);
        let candidate = |node: &crate::state::Node| Candidate {
            domain: node.domain,
            load: 0,
        };
        let mut candidates: BTreeMap<NodeId, Candidate> =
            nodes.map(|(&id, node)| (id, candidate(node))).collect();
        for (_, place) in self.places() {
            if let Some(candidate) = candidates.get_mut(&place.node) {
                candidate.load += 1;
            }
        }
        candidates
    }

    /// Nodes for one more shard, with as many copies as the log's first one.
    pub(super) fn placed(&self, id: LogId, without: Option<NodeId>) -> Result<Vec<NodeId>, String> {
        let log = self.log(id)?;
        let copies = log.shards.values().next();
        let copies = copies.map_or(1, |shard| shard.members.len());
        let domains = if log.class == Durability::D2 { 2 } else { 1 };
        let placed = place(1, copies, &self.candidates(without), domains);
        let placed = placed.map_err(|error| format!("log {}: {error}", log.name))?;
        Ok(placed.into_iter().flatten().collect())
    }

    /// The nodes of a shard, with another one in the place of `node`.
    pub(super) fn successors(
        &self,
        members: &[Member],
        node: NodeId,
        with: Option<NodeId>,
    ) -> Result<Vec<NodeId>, String> {
        let used: Vec<NodeId> = members.iter().map(|member| member.place.node).collect();
        let other = self.other_node(node, with, &used)?;
        let placed = |&before: &NodeId| if before == node { other } else { before };
        Ok(used.iter().map(placed).collect())
    }

    /// The node that takes over a replica from `node`. Copies of class D2 lie in two failure domains afterwards too.
    pub(super) fn other_member(
        &self,
        log: &Log,
        members: &[Member],
        node: NodeId,
        with: Option<NodeId>,
    ) -> Result<NodeId, String> {
        let nodes = members
            .iter()
            .flat_map(|member| [Some(member.place.node), member.next]);
        let mut used: Vec<NodeId> = nodes.flatten().collect();
        let domain = |node: &NodeId| self.nodes.get(node).map(|node| node.domain);
        let stay = members.iter().map(|member| member.place.node);
        let stay = stay.filter(|other| *other != node);
        let mut domains: Vec<u32> = stay.filter_map(|node| domain(&node)).collect();
        domains.dedup();
        if let (Durability::D2, [only]) = (log.class, &domains[..]) {
            let same = self.nodes.iter().filter(|(_, node)| node.domain == *only);
            used.extend(same.map(|(node, _)| *node));
        }
        if let Some(with) =
            with.filter(|with| domains.len() == 1 && domain(with) == Some(domains[0]))
        {
            let there = members.iter().any(|member| member.place.node == with);
            if log.class == Durability::D2 && !there {
                return Err(format!(
                    "node {with} cannot take over from node {node}: the replicas of a shard of class D2 have to lie in two failure domains"
                ));
            }
        }
        self.other_node(node, with, &used)
    }

    pub(super) fn other_node(
        &self,
        node: NodeId,
        with: Option<NodeId>,
        used: &[NodeId],
    ) -> Result<NodeId, String> {
        if let Some(named) = named(with, node, used) {
            return named;
        }
        let candidates = self.candidates(Some(node));
        let free = candidates.iter().filter(|(id, _)| !used.contains(id));
        let least = free.min_by_key(|(id, candidate)| (candidate.load, **id));
        let least = least.map(|(&id, _)| id);
        least.ok_or_else(|| format!("no other node can take over from node {node}"))
    }
}
