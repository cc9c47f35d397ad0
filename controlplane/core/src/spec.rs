//! What the operator wants: nodes, logs, and who holds which place. Checked once, when a log is created.

use std::collections::{BTreeMap, BTreeSet};

use ionian_types::{Durability, NodeId, OrderingMode, SEGMENTS_PER_SHARD_MAX};
use ionian_wire::directory::{ADDRESS_BYTES_MAX, LOG_NAME_BYTES_MAX, LOGS_MAX, SHARDS_PER_LOG_MAX};

use crate::group::RootQuorum;
use crate::shape::{ShapeError, TreeSpec};
use crate::{NODES_MAX, ROOT_MEMBERS_MAX};

/// A cluster as configured.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClusterSpec {
    /// The nodes.
    pub nodes: BTreeMap<NodeId, NodeSpec>,
    /// The logs, in the order of their ids.
    pub logs: Vec<LogSpec>,
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeSpec {
    /// Its failure domain, for D2.
    pub domain: u32,
    /// Its address, `host:port`, for roles that register without one; may be empty.
    pub address: String,
}

/// A log: its name, what an acknowledgement means, and who holds which place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSpec {
    /// Its name, 1 to 64 bytes of `a-z 0-9 - _ .`.
    pub name: String,
    /// The protocol that orders it.
    pub mode: OrderingMode,
    /// What an acknowledgement means.
    pub class: Durability,
    /// The nodes of the root group, 1 to [`ROOT_MEMBERS_MAX`], in slot order.
    pub root: Vec<NodeId>,
    /// How many of them hold an entry before it is committed.
    pub root_quorum: RootQuorum,
    /// The ordering tree below the root.
    pub tree: TreeSpec,
    /// How many replicas must hold a record (k): all of them (k = R, the default), or of R = 2k - 1 replicas k, so that
    /// appends go on while k - 1 of them are away.
    pub quorum: Option<u8>,
    /// Per shard, in rank order: the nodes of its replicas in slot order.
    pub shards: Vec<Vec<NodeId>>,
}

/// Why a log cannot be created. Effect: none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The name has a bad length or character.
    #[error("log name {name:?}: use 1 to 64 of the characters a-z 0-9 - _ .")]
    Name {
        /// The name.
        name: String,
    },
    /// The log exists with other properties.
    #[error("log {name} exists, with another {what}")]
    Exists {
        /// The name.
        name: String,
        /// What differs.
        what: &'static str,
    },
    /// A node that the cluster does not have.
    #[error("log {name} names node {node}, which the cluster does not have")]
    UnknownNode {
        /// The log's name.
        name: String,
        /// The node.
        node: NodeId,
    },
    /// A number of things outside its range.
    #[error("{what}: {count} is not within {min} to {max}")]
    Count {
        /// What is counted.
        what: &'static str,
        /// The count.
        count: usize,
        /// The least.
        min: usize,
        /// The most.
        max: usize,
    },
    /// D2 without two failure domains.
    #[error(
        "log {name} has durability D2, but the replicas of shard {shard} lie in one failure domain"
    )]
    OneDomain {
        /// The log's name.
        name: String,
        /// The shard's place in the log.
        shard: usize,
    },
    /// A quorum that is neither all replicas nor a majority of an odd number of them.
    #[error(
        "log {name}: of the {replicas} replicas of shard {shard}, {quorum} cannot be the quorum; use all of them, or k of 2k - 1"
    )]
    Quorum {
        /// The log's name.
        name: String,
        /// The shard's place in the log.
        shard: usize,
        /// The quorum asked for.
        quorum: u8,
        /// The shard's replicas.
        replicas: usize,
    },
    /// D2 with a quorum of one: a record would lie in one failure domain.
    #[error("log {name} has durability D2; a quorum of 1 cannot be in two failure domains")]
    QuorumOfOne {
        /// The log's name.
        name: String,
    },
    /// Only `scalog` is there yet.
    #[error("log {name}: ordering mode {mode} is not part of this build")]
    Mode {
        /// The log's name.
        name: String,
        /// The mode.
        mode: OrderingMode,
    },
    /// No ordering tree.
    #[error("log {name}: {error}")]
    Tree {
        /// The log's name.
        name: String,
        /// Why it is none.
        error: ShapeError,
    },
    /// An address that is too long.
    #[error("the address of node {node} has more than 255 bytes")]
    Address {
        /// The node.
        node: NodeId,
    },
    /// The cluster map would grow too large.
    #[error("the cluster map would take {bytes} bytes, more than {max}")]
    MapBytes {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

impl ClusterSpec {
    /// Checks the nodes; logs are checked one by one as they are created.
    pub(crate) fn check_nodes(&self) -> Result<(), SpecError> {
        count("nodes of the cluster", self.nodes.len(), 1, NODES_MAX)?;
        for (&node, spec) in &self.nodes {
            if spec.address.len() > ADDRESS_BYTES_MAX {
                return Err(SpecError::Address { node });
            }
        }
        Ok(())
    }
}

impl LogSpec {
    /// How many of so many replicas of a shard must hold a record.
    #[must_use]
    pub fn quorum_of(&self, replicas: usize) -> u8 {
        self.quorum.unwrap_or(replicas as u8)
    }

    /// Checks the log against the nodes of the cluster.
    pub(crate) fn check(
        &self,
        domain_of: impl Fn(NodeId) -> Option<u32>,
        logs: usize,
    ) -> Result<(), SpecError> {
        let legal = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')
        };
        if self.name.is_empty()
            || self.name.len() > LOG_NAME_BYTES_MAX
            || !self.name.bytes().all(legal)
        {
            return Err(SpecError::Name {
                name: self.name.clone(),
            });
        }
        if self.mode != OrderingMode::Scalog {
            return Err(SpecError::Mode {
                name: self.name.clone(),
                mode: self.mode,
            });
        }
        count("logs of the cluster", logs, 1, LOGS_MAX)?;
        count(
            "shards of the log",
            self.shards.len(),
            1,
            SHARDS_PER_LOG_MAX,
        )?;
        let domain = |node: NodeId| {
            domain_of(node).ok_or_else(|| SpecError::UnknownNode {
                name: self.name.clone(),
                node,
            })
        };
        count(
            "members of the root group",
            self.root.len(),
            1,
            ROOT_MEMBERS_MAX,
        )?;
        self.root
            .iter()
            .try_for_each(|&node| domain(node).map(|_| ()))?;
        self.tree.check().map_err(|error| SpecError::Tree {
            name: self.name.clone(),
            error,
        })?;
        let nodes = self.tree.nodes.iter();
        nodes
            .copied()
            .try_for_each(|node| domain(node).map(|_| ()))?;
        for (shard, members) in self.shards.iter().enumerate() {
            count(
                "replicas of the shard",
                members.len(),
                1,
                SEGMENTS_PER_SHARD_MAX,
            )?;
            let quorum = self.quorum_of(members.len());
            let sound = usize::from(quorum) == members.len()
                || quorum > 0 && 2 * usize::from(quorum) - 1 == members.len();
            if !sound {
                return Err(SpecError::Quorum {
                    name: self.name.clone(),
                    shard,
                    quorum,
                    replicas: members.len(),
                });
            }
            if self.class == Durability::D2 && quorum < 2 {
                return Err(SpecError::QuorumOfOne {
                    name: self.name.clone(),
                });
            }
            let domains = members
                .iter()
                .map(|&node| domain(node))
                .collect::<Result<BTreeSet<u32>, _>>()?;
            if self.class == Durability::D2 && domains.len() < 2 {
                return Err(SpecError::OneDomain {
                    name: self.name.clone(),
                    shard,
                });
            }
        }
        Ok(())
    }
}

fn count(what: &'static str, count: usize, min: usize, max: usize) -> Result<(), SpecError> {
    if (min..=max).contains(&count) {
        Ok(())
    } else {
        Err(SpecError::Count {
            what,
            count,
            min,
            max,
        })
    }
}
