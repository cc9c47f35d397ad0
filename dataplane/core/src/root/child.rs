//! The root's children: which vertices of the tree they are, when their edges start, what of a view ends them.

use alloc::vec::Vec;

use ionian_types::{
    ConnId, EdgeEpoch, EntryNo, Inc, Knobs, Mutant, NodeId, RoundNo, ShardId, Time,
};
use ionian_wire::frame::{
    Applied, EdgeStart, EdgeVertex, NeedEdge, ShardStart, ShardStartHead, Sync, Up,
};

use super::Root;
use crate::cutlog::ShardRef;
use crate::outbox::Outbox;
use crate::tree::ChildStatus;
use crate::tree::link::{Link, Taken, shard_start_bytes};

/// One child.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) link: Link,
    /// Entries that concern it may be under way up to this one: its edge starts after it.
    wait: Option<EntryNo>,
}

impl Child {
    fn new(node: NodeId, inc: Inc) -> Self {
        Self {
            link: Link::new(node, inc),
            wait: None,
        }
    }
}

impl<K: Knobs> Root<K> {
    /// Every child at a glance, while this member leads.
    pub fn children(&self) -> impl Iterator<Item = ChildStatus> + '_ {
        self.children.iter().map(|child| child.link.status())
    }

    fn child(&mut self, node: NodeId, inc: Inc) -> Option<&mut Child> {
        let mut children = self.children.iter_mut();
        children.find(|child| {
            let same_node = child.link.node == node && K::mutant(Mutant::RoundWithoutEdge);
            child.link.is(node, inc) || same_node
        })
    }

    pub(super) fn on_up(&mut self, node: NodeId, inc: Inc, up: &Up, tail: &[u8], out: &mut Outbox) {
        let log = self.config.log;
        let Some(child) = self.child(node, inc) else {
            return;
        };
        let taken = if up.log == log {
            child.link.take_up::<K>(up, tail)
        } else {
            Taken::Stranger
        };
        if taken == Taken::NeedsFull {
            child.link.ask_full(log, out);
        }
        if taken == Taken::Yes {
            self.counters.rounds += 1;
        } else {
            self.counters.refused_rounds += 1;
        }
    }

    /// What members below have applied, when no round says so.
    pub(super) fn on_applied(&mut self, node: NodeId, inc: Inc, body: &Applied, keeps: &[u8]) {
        let mine = body.log == self.config.log;
        let mut children = self.children.iter_mut();
        if let Some(child) = children.find(|child| mine && child.link.is(node, inc)) {
            child.link.take_applied_alone(body, keeps);
        }
    }

    pub(super) fn restart_edge(&mut self, node: NodeId, inc: Inc, need: &NeedEdge) {
        let mut children = self.children.iter_mut();
        if let Some(child) = children.find(|child| child.link.is(node, inc)) {
            child.link.restart(need);
        }
    }

    /// Adopts the children that the log's state names. An edge ends where the last view has changed anything below.
    pub(super) fn adopt_children(&mut self) {
        let mut before: Vec<Option<Child>> = self.children.drain(..).map(Some).collect();
        let vertices = self.state.tree.vertices();
        for top in self.state.tree.top() {
            let vertex = &vertices[top.start];
            let (node, inc) = (vertex.is.node, vertex.is.inc);
            let known = before
                .iter_mut()
                .find_map(|it| it.take_if(|child| child.link.is(node, inc)));
            let child = match known {
                Some(mut child) => {
                    let same = child.link.changed == vertex.changed;
                    if !same && !K::mutant(Mutant::KeepEdgeOverView) {
                        child.link.close();
                    }
                    child
                }
                None => {
                    let mut child = Child::new(node, inc);
                    let kind = super::Kind::Child(node, inc);
                    if let Some(at) = self.conns.iter().position(|other| *other == kind) {
                        child.link.connect::<K>(ConnId::new(at as u32));
                    }
                    child
                }
            };
            self.children.push(child);
        }
    }

    /// Starts the edges that wait for it, each once everything logged that concerns it is committed: what an edge starts from is
    /// final.
    pub(super) fn flush_edges(&mut self, out: &mut Outbox) {
        let Some(epoch) = self.granted else { return };
        let settled = self.view_committed();
        let hasty = K::mutant(Mutant::EdgeStartUncommitted);
        for (child, top) in self.children.iter_mut().zip(self.state.tree.top()) {
            let (state, vertices) = (&self.state, self.state.tree.vertices());
            let open = |shard: &ShardId| state.shard(*shard).filter(ShardRef::is_open);
            if child.link.awaits_start() {
                let wait = *child.wait.get_or_insert(self.state.entry);
                if (!settled || self.committed < wait) && !hasty {
                    continue;
                }
                child.wait = None;
                self.starts += 1;
                let edge = EdgeEpoch {
                    root: epoch,
                    view: vertices[top.start].changed,
                    start: self.starts,
                };
                let shards = state.below(&top).iter().filter_map(open);
                let shards = shards.map(|shard| (shard.shard(), shard.lens()));
                let entry = if hasty { state.entry } else { self.committed };
                child.link.begin(edge, entry, shards);
                self.counters.edge_starts += 1;
            } else {
                child.wait = None;
            }
            let Some(edge) = child.link.starting() else {
                continue;
            };
            let shards: Vec<_> = state.below(&top).iter().filter_map(open).collect();
            let inner = top.start + 1..top.end;
            let head = EdgeStart {
                log: self.config.log,
                edge,
                resume: child.link.resumes(),
                entry: child.link.start_entry(),
                end_gsn: if hasty {
                    state.end_gsn
                } else {
                    self.committed_end
                },
                trim: self.committed_trim,
                vertices: inner.len() as u16,
                shards: shards.len() as u32,
            };
            let inner = inner.map(|at| EdgeVertex {
                vertex: vertices[at].is,
                changed: vertices[at].changed,
                shards: match vertices[at].is.children {
                    0 => state.below(&(at..at + 1)).iter().filter_map(open).count() as u32,
                    _ => 0,
                },
            });
            let most = shards.iter().map(|shard| shard.members().len()).max();
            child.link.send_start(
                &head,
                inner,
                shard_start_bytes(most.unwrap_or(1)),
                |at, writer| {
                    let shard = shards[at];
                    let head = ShardStartHead {
                        shard: shard.shard(),
                        epoch: shard.epoch(),
                        last: shard.last(),
                        class: shard.class(),
                        quorum: shard.quorum(),
                    };
                    let segments = shard.generations().zip(shard.lens());
                    ShardStart::write(writer, &head, shard.members(), segments, shard.joint())
                },
                out,
            );
        }
    }

    pub(super) fn flush_sync(&mut self, now: Time, out: &mut Outbox) {
        let sync = Sync {
            log: self.config.log,
            edge: EdgeEpoch::default(),
            complete: self.committed,
            end_gsn: self.committed_end,
            trim: self.committed_trim,
            chosen: RoundNo::ZERO,
        };
        for child in &self.children {
            child.link.send_sync(sync, out);
        }
        self.sync_at = now.after(self.config.sync);
    }
}
