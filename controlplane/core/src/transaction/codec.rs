//! The bytes of transactions and of their tasks, in snapshots and commands.

use ionian_types::{SEGMENTS_PER_SHARD_MAX, VertexId};
use ionian_wire::directory::{ROOT_MEMBERS_MAX, SHARDS_PER_LOG_MAX};
use ionian_wire::tree::TREE_VERTICES_MAX;
use ionian_wire::{Reader, WireError};

use super::{Progress, TASKS_MAX, Task, Transaction};
use crate::codec::{Encoder, count, range, text};
use crate::command::{decode_spec, encode_spec, nodes};
use crate::operation::Operation;

/// The code of a change of a root group whose members leave once the others hold everything.
const SET_ROOT: u8 = 13;

impl Progress {
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
            Task::SetRoot {
                log,
                nodes,
                at_once,
            } => {
                out.put(if *at_once { 5u8 } else { SET_ROOT });
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
        // Of before members left when the others held everything.
        code @ (5 | SET_ROOT) => Task::SetRoot {
            at_once: code == 5,
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
