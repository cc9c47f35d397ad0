//! A death as the state has it: who is away and shown as down, and what the histories say. And who would hear a process, if
//! it lived.

use core::fmt;

use ionian_types::{Inc, LogId, NodeId, Slot};

use crate::apply::CommandError;
use crate::decision::{What, Why};
use crate::detection::{Standing, Verdict};
use crate::state::{Away, PlaceKey, State};

/// Places named in one sentence; more are counted.
const NAMED_MAX: usize = 6;

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.silent.0 / 1_000_000;
        let nodes: Vec<String> = self.said_by.iter().map(NodeId::to_string).collect();
        let (said, reached) = (nodes.len(), self.reached);
        let word = if said == 1 { "node" } else { "nodes" };
        write!(f, "silent for {ms} ms, said by {word} {}", nodes.join(", "))?;
        write!(f, " ({said} of {reached} that could be asked)")?;
        match self.standing {
            Standing::Hung => Ok(()),
            Standing::Ended => f.write_str("; its connection to the controllers has ended"),
            Standing::CutOff => f.write_str("; it answers the controllers itself"),
        }
    }
}

impl State {
    /// A process was found dead, or would be, were not too many deaths decided already.
    pub(crate) fn bury(
        &mut self,
        at_us: u64,
        node: NodeId,
        verdict: &Verdict,
        waits: bool,
    ) -> Result<(), CommandError> {
        if !self.lives_on(node) {
            return Err(CommandError::Unfit {
                what: "nobody lives on that node",
            });
        }
        for log in self.logs_of(node) {
            let why = if waits { Why::Budget } else { Why::Silent };
            self.note(at_us, log, self.found(log, node, verdict), why);
        }
        if waits {
            return Ok(());
        }
        if let Some(known) = self.nodes.get_mut(&node) {
            known.away = match verdict.standing {
                Standing::Hung | Standing::Ended => Away::Dead,
                Standing::CutOff => Away::CutOff,
            };
            known.away_since_us = at_us;
        }
        let keys: Vec<PlaceKey> = self.keys_on(node).collect();
        for key in keys {
            if let Some(place) = self.place_mut(key) {
                place.up = false;
            }
        }
        Ok(())
    }

    /// What was found of a node's process, as the history of a log says it.
    pub(crate) fn found(&self, log: LogId, node: NodeId, verdict: &Verdict) -> What {
        let places = self.places_named(log, node);
        let evidence = verdict.to_string();
        match verdict.standing {
            Standing::Hung | Standing::Ended => What::Dead {
                log,
                node,
                places,
                evidence,
            },
            Standing::CutOff => What::CutOff {
                log,
                node,
                places,
                evidence,
            },
        }
    }

    /// Whether a node's process takes part, as far as is known.
    pub(crate) fn away(&self, node: NodeId) -> Away {
        self.nodes.get(&node).map_or(Away::No, |node| node.away)
    }

    /// A node's process takes part again, or is tried.
    pub(crate) fn takes_part(&mut self, node: NodeId) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.away = Away::No;
        }
    }

    /// Whether any place of the node has, or had, a life.
    pub(crate) fn lives_on(&self, node: NodeId) -> bool {
        self.keys_on(node).next().is_some()
    }

    /// The places of a node that have, or had, a life.
    pub(crate) fn keys_on(&self, node: NodeId) -> impl Iterator<Item = PlaceKey> {
        let places = self.places();
        let own = places.filter(move |(_, place)| place.node == node && place.inc != Inc::ZERO);
        own.map(|(key, _)| key)
    }

    /// The logs that have such places.
    pub(crate) fn logs_of(&self, node: NodeId) -> Vec<LogId> {
        let mut logs: Vec<LogId> = self.keys_on(node).map(PlaceKey::log).collect();
        logs.dedup();
        logs
    }

    /// What a node has of a log, for people.
    pub(crate) fn places_named(&self, log: LogId, node: NodeId) -> String {
        let own = self.keys_on(node).filter(|key| key.log() == log);
        let mut names: Vec<String> = own.map(|key| self.place_name(key)).collect();
        if names.len() > NAMED_MAX {
            let more = names.len() - NAMED_MAX;
            names.truncate(NAMED_MAX);
            names.push(format!("{more} more"));
        }
        names.join(", ")
    }

    /// The nodes whose processes have sessions with this one's, the closest first: those of its shards, then those that order
    /// its logs, then, for who orders them, the replicas.
    pub(crate) fn observers_of(&self, node: NodeId) -> Vec<NodeId> {
        let (mut near, mut far) = (Vec::new(), Vec::new());
        for (&id, log) in &self.logs {
            let replicas = || {
                let shards = log.shards.values().filter(|shard| !shard.finalized);
                shards.flat_map(|shard| shard.members.iter().map(|member| member.place.node))
            };
            let node_of = |vertex| log.tree.vertex(vertex).map(|it| it.place.node);
            let own = |key: PlaceKey| key.log() == id;
            for key in self.keys_on(node).filter(|key| own(*key)) {
                let leader = log.root.leader();
                let leads = log.root.places.get(leader.unwrap_or(Slot::ZERO).index());
                let leads = leads.map(|place| place.node);
                match key {
                    PlaceKey::Replica(_, shard, _) | PlaceKey::Copy(_, shard, _) => {
                        let members = log.shards.get(&shard).into_iter();
                        let members = members.flat_map(|shard| &shard.members);
                        near.extend(members.map(|member| member.place.node));
                        let rank = log.shards.get(&shard).map_or(0, |shard| shard.rank);
                        near.extend(log.tree.leaf_of((rank, shard)).and_then(node_of));
                        near.extend(leads);
                    }
                    PlaceKey::Vertex(_, vertex) => {
                        match log.tree.parent(vertex) {
                            Some(parent) => near.extend(node_of(parent)),
                            None => near.extend(leads),
                        }
                        near.extend(log.tree.children(Some(vertex)).filter_map(node_of));
                        if log.tree.is_leaf(vertex) == Some(true) {
                            far.extend(replicas());
                        }
                    }
                    PlaceKey::Root(_, slot) => {
                        near.extend(log.root.places.iter().map(|place| place.node));
                        if leader == Some(slot) || log.root.is_single() {
                            near.extend(log.tree.children(None).filter_map(node_of));
                            far.extend(replicas());
                        }
                    }
                }
            }
        }
        near.extend(far);
        let mut seen = std::collections::BTreeSet::from([node]);
        near.retain(|other| seen.insert(*other));
        near
    }
}
