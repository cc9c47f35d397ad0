//! The end of a task: what it leaves behind, and what giving it up takes back.

use ionian_types::{ShardId, ViewId};
use ionian_wire::entry::Changes;

use super::{Reason, Task};
use crate::state::{Log, State};

impl State {
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
            Task::SetRoot { log, nodes, .. } => {
                let root = &mut self.logs.get_mut(log).ok_or("the log is gone")?.root;
                let kept = root.keep(nodes);
                kept.then_some(())
                    .ok_or("the members have been changed; change them back instead")
            }
            Task::RemoveLog { .. } | Task::Drain { .. } | Task::Undrain { .. } => Ok(()),
        }
    }
}
