//! Changes of the cluster that take several steps: each a list of tasks in the state, of which one is under way.
//!
//! Beginning a task changes what should be; the views that follow from it, and the reports that they are logged, are made as
//! for every other difference. So a controller that leads anew goes on where the one before stopped: whether a task is done
//! is read from the state alone.

mod begin;
mod codec;
mod end;
mod stand;

use ionian_types::{LogId, NodeId, ShardId, Slot, VertexId};

pub(crate) use self::codec::{decode_tasks, encode_tasks};
pub(crate) use self::stand::Stand;
use crate::operation::Operation;
use crate::shape::counted;
use crate::spec::LogSpec;

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
        /// As commands of earlier builds have it: who leaves has left when it begins.
        at_once: bool,
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
            Self::SetRoot { log, nodes, .. } => {
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
                depth.map_or(Ok(()), |depth| {
                    write!(f, " and {}", counted(usize::from(depth), "level", "levels"))
                })
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
