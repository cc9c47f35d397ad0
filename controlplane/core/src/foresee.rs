//! What a plan would lead to: the state as if every task had been done, shown and thrown away.

use ionian_types::{LogId, NodeId};

use crate::picture::ClusterPicture;
use crate::state::{Log, Place, State};
use crate::transaction::Task;

impl State {
    /// The logs that these tasks touch, as they would be afterwards. Each view that a task takes at the least is counted; what
    /// happens meanwhile may take more.
    pub(crate) fn foreseen(&self, tasks: &[Task]) -> ClusterPicture {
        let mut then = self.clone();
        tasks.iter().for_each(|task| then.pretend(task));
        let touched: Vec<LogId> = tasks.iter().filter_map(Task::log).collect();
        then.picture(|log, _| touched.contains(&log))
    }

    /// The task is begun, and done at once. One that cannot begin yet is waited for by the controller, and so is here.
    fn pretend(&mut self, task: &Task) {
        let mut task = task.clone();
        let begun = self.begin(&mut task).is_ok();
        match &task {
            Task::CreateLog { log, .. } => self.with_log(*log, |log| {
                log.shards
                    .values_mut()
                    .for_each(|shard| shard.opened = true);
            }),
            Task::AddShard { log, shard, .. } if begun => self.with_log(*log, |log| {
                if let Some(shard) = log.shards.get_mut(shard) {
                    shard.opened = true;
                }
            }),
            Task::Finalize { log, shards } => self.with_log(*log, |log| {
                for shard in shards {
                    if let Some(shard) = log.shards.get_mut(shard) {
                        (shard.opened, shard.finalizing, shard.finalized) = (false, false, true);
                    }
                }
            }),
            Task::RemoveLog { log } => {
                self.logs.remove(log);
            }
            Task::MoveLeader { log, slot } => {
                let log = self.logs.get_mut(log);
                if let Some(config) = log.and_then(|log| {
                    log.root.prefer(None);
                    log.root.configs.last_mut()
                }) {
                    config.leader = *slot;
                }
            }
            Task::MoveVertex { log, vertex, node } => self.with_log(*log, |log| {
                if let Some(vertex) = log.tree.vertex_mut(*vertex) {
                    vertex.place = Place::new(*node);
                    vertex.next = None;
                }
            }),
            Task::SetTree { log, .. } => self.with_log(*log, |log| log.tree.pretend()),
            Task::Replace {
                log,
                shard,
                slot,
                node,
            } => self.with_log(*log, |log| {
                let shard = log.shards.get_mut(shard);
                if let Some(member) = shard.and_then(|it| it.members.get_mut(slot.index())) {
                    member.place = Place::new(*node);
                    (member.next, member.copy) = (None, None);
                }
            }),
            Task::SetRoot { log, .. } => {
                if let Some(log) = self.logs.get_mut(log) {
                    log.root.part();
                }
            }
            Task::AddShard { .. } | Task::Drain { .. } | Task::Undrain { .. } => {}
        }
    }

    /// A change of a log that a view says.
    fn with_log(&mut self, id: LogId, change: impl FnOnce(&mut Log)) {
        if let Some(log) = self.logs.get_mut(&id) {
            change(log);
            let last = log.pending.take().map_or(log.view, |pending| pending.view);
            log.view = last.next().unwrap_or(last);
        }
    }
}

impl Task {
    /// The log that it changes.
    const fn log(&self) -> Option<LogId> {
        match self {
            Self::CreateLog { log, .. }
            | Self::AddShard { log, .. }
            | Self::Finalize { log, .. }
            | Self::RemoveLog { log }
            | Self::SetRoot { log, .. }
            | Self::MoveLeader { log, .. }
            | Self::MoveVertex { log, .. }
            | Self::SetTree { log, .. }
            | Self::Replace { log, .. } => Some(*log),
            Self::Drain { .. } | Self::Undrain { .. } => None,
        }
    }
}

/// The node that takes over from `node`: the one that was named, unless it has a place there already.
pub(crate) fn named(
    with: Option<NodeId>,
    node: NodeId,
    used: &[NodeId],
) -> Option<Result<NodeId, String>> {
    let with = with?;
    Some(if used.contains(&with) {
        Err(format!(
            "node {with} cannot take over from node {node}: it has a place in the same group already"
        ))
    } else {
        Ok(with)
    })
}
