//! How the task under way stands, read from the state alone: it has come about, it cannot any more, or it is on its way.

use ionian_types::{Inc, LogId, ViewId};

use super::{Reason, Task};
use crate::group::Phase;
use crate::state::{Member, Shard, State};

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
            Task::SetRoot { log: id, nodes, .. } => log(id).is_none_or(|log| {
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
                let there = root.is_of(nodes) && root.wanted.is_none();
                root.phase == Phase::Recorded && listed && all && there
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
            Task::SetRoot { log: id, nodes, .. } => {
                let root = &log(id)?.root;
                let other = !root.is_of(nodes) && !root.wants(nodes);
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
}
