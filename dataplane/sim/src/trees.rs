//! The ordering trees of worlds: what they look like at first, who is above whom as far as it is known, and whether all of it
//! runs in the end.
//!
//! Whoever has a place below another one connects to it as the cluster map says: to the one above it in the tree, and while
//! another tree is to come to the one there as well. Everybody hears of another map, some late.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use ionian_control_core::{TreeSpec, VertexShape, balanced};
use ionian_core::edge::Target;
use ionian_types::{ConnId, Inc, Knobs, NodeId, ShardId};
use ionian_wire::directory::{LogInfo, VertexInfo, parent_in, parents_in};
use ionian_wire::tree::{OrderKey, TreeVertex, check};

use crate::invariant::{Invariant, Violation};
use crate::plan::Plan;
use crate::process::{Machine, Peer, Place, ProcId};
use crate::rng::Rng;
use crate::world::{Event, LOG, World};

/// A vertex of a plan's tree in depth-first order: how many are right below it, and for a leaf where its shards begin: twice the
/// rank of its first shard, or one more for a leaf that begins after the shard of that rank.
pub type VertexPlan = (u16, u32);

/// Vertices of a drawn tree, at most.
const VERTICES_MAX: usize = 14;
/// Levels of a drawn tree below the root, at most.
const LEVELS_MAX: u64 = 4;
/// Nodes that have all vertices but the first.
const NODES: u32 = 5;

const fn begins(twice: u32) -> OrderKey {
    let rank = twice / 2;
    let shard = if twice % 2 == 1 { u32::MAX } else { rank };
    (rank, ShardId::new(shard))
}

/// Who is above whom, as the controllers have it.
#[derive(Default, Debug)]
pub(crate) struct Trees {
    /// Of vertices, those above each; the root is its member in slot 0.
    parents: BTreeMap<Place, Vec<Place>>,
    /// Of shards, their leaves.
    leaves: BTreeMap<u32, Vec<Place>>,
    /// The state of the controller that said so.
    version: u64,
}

/// The place of a vertex.
pub(crate) const fn vertex_place(vertex: u32, is_leaf: bool) -> Place {
    if is_leaf {
        Place::Leaf(vertex)
    } else {
        Place::Aggregator(vertex)
    }
}

/// Whether a place is a vertex of the tree.
pub(crate) const fn is_vertex(place: Place) -> bool {
    matches!(place, Place::Leaf(_) | Place::Aggregator(_))
}

/// A tree: its vertices in depth-first order.
type List = Vec<(Place, u16, OrderKey)>;

fn leaf_of(list: &List, key: OrderKey) -> Option<Place> {
    let leaves = list.iter().filter(|(_, children, _)| *children == 0);
    let own = leaves.take_while(|(.., begins)| *begins <= key).last();
    own.map(|(place, ..)| *place)
}

impl Trees {
    fn new(trees: &[List], shards: impl Iterator<Item = OrderKey>, version: u64) -> Self {
        let mut parents: BTreeMap<Place, Vec<Place>> = BTreeMap::new();
        for tree in trees {
            let above = parents_in(tree.iter().map(|(_, children, _)| *children));
            for ((place, ..), above) in tree.iter().zip(above) {
                let above = above.map_or(Place::Root(0), |at| tree[at].0);
                let known = parents.entry(*place).or_default();
                if !known.contains(&above) {
                    known.push(above);
                }
            }
        }
        let leaves = shards.map(|key| {
            let mut leaves: Vec<Place> = trees.iter().filter_map(|it| leaf_of(it, key)).collect();
            leaves.dedup();
            (key.1.get(), leaves)
        });
        Self {
            parents,
            leaves: leaves.collect(),
            version,
        }
    }

    /// Those of a plan, as long as nobody has said anything else.
    pub(crate) fn of_plan(plan: &Plan) -> Self {
        let shape = plan.tree.iter().zip(plan.tree_places());
        let list = shape.map(|((children, twice), place)| (place, *children, begins(*twice)));
        let shards = (0..plan.shards).map(|id| (id, ShardId::new(id)));
        Self::new(&[list.collect()], shards, 0)
    }

    fn of(log: &LogInfo, version: u64) -> Self {
        let list = |tree: &Vec<VertexInfo>| -> List {
            let vertices = tree.iter().map(|it| {
                let place = vertex_place(it.vertex.get(), it.children == 0);
                (place, it.children, it.begins)
            });
            vertices.collect()
        };
        let shards = log.shards.iter().map(|shard| (shard.rank, shard.shard));
        Self::new(&[list(&log.tree), list(&log.tree_next)], shards, version)
    }

    /// The vertices of both trees.
    pub(crate) fn vertices(&self) -> impl Iterator<Item = Place> + '_ {
        self.parents.keys().copied()
    }

    /// Those right above a place.
    pub(crate) fn above(&self, place: Place) -> &[Place] {
        let known = match place {
            Place::Replica(shard, _) => self.leaves.get(&shard),
            _ => self.parents.get(&place),
        };
        known.map_or(&[], Vec::as_slice)
    }

    /// A place, and everything above it.
    pub(crate) fn path(&self, place: Place) -> BTreeSet<Place> {
        let mut path = BTreeSet::new();
        let mut open = vec![place];
        while let Some(place) = open.pop() {
            if path.insert(place) {
                open.extend(self.above(place));
            }
        }
        path
    }
}

impl Plan {
    /// The tree of the plan as the controllers are told of it.
    #[must_use]
    pub fn tree_spec(&self) -> TreeSpec {
        let places = self.tree_places();
        let shape = |(children, twice): &VertexPlan| VertexShape {
            children: *children,
            begins: begins(*twice),
        };
        TreeSpec {
            shape: self.tree.iter().map(shape).collect(),
            nodes: places.into_iter().map(vertex_node).collect(),
        }
    }

    /// The vertices of the plan's tree, in depth-first order.
    #[must_use]
    pub fn tree_places(&self) -> Vec<Place> {
        let vertices = (0..).zip(&self.tree);
        let place = |(at, (children, _)): (u32, &VertexPlan)| vertex_place(at, *children == 0);
        vertices.map(place).collect()
    }

    /// Whether the plan's tree has this vertex.
    pub(crate) fn has_vertex(&self, place: Place) -> bool {
        self.tree_places().contains(&place)
    }

    /// Whether vertices are a tree.
    #[must_use]
    pub fn is_tree(tree: &[VertexPlan]) -> bool {
        let vertices = tree.iter().map(|(children, twice)| TreeVertex {
            node: NodeId::ZERO,
            inc: Inc::new(1),
            children: *children,
            begins: begins(*twice),
        });
        !tree.is_empty() && check(vertices).is_ok()
    }

    /// A tree without one of its vertices, if that is one: what is below an aggregator that goes is below the one above it.
    pub(crate) fn without_vertex(tree: &[VertexPlan], at: usize) -> Option<Vec<VertexPlan>> {
        let (children, begins) = *tree.get(at)?;
        let mut tree = tree.to_vec();
        if let Some(above) = parent_in(tree.iter().map(|it| it.0), at) {
            tree[above].0 = (tree[above].0 + children).checked_sub(1)?;
        }
        tree.remove(at);
        if children == 0 && begins == 0 {
            tree.iter_mut().find(|it| it.0 == 0)?.1 = 0;
        }
        Self::is_tree(&tree).then_some(tree)
    }

    /// Of most seeds the tree is more than one leaf, from a stream of its own, and there are fewer or more shards.
    pub(crate) fn draw_tree(&mut self, seed: u64) {
        let mut rng = Rng::stream(seed, "tree");
        if rng.permille(400) {
            return;
        }
        self.shards = rng.pick(&[1, 2, 2, 3, 4, 6]) as u32;
        let tree = if rng.permille(500) {
            let keys: Vec<OrderKey> = (0..self.shards).map(|id| (id, ShardId::new(id))).collect();
            let fan_in = rng.range(2, 4) as u16;
            let depth = rng.range(1, LEVELS_MAX) as u8;
            let shape =
                balanced(&keys, fan_in, Some(depth)).or_else(|_| balanced(&keys, fan_in, None));
            let shape = shape.unwrap_or_default();
            shape
                .iter()
                .map(|it| (it.children, 2 * it.begins.0))
                .collect()
        } else {
            let mut tree = Vec::new();
            let mut next = 0;
            grow(&mut tree, LEVELS_MAX - 1, &mut next, &mut rng);
            tree
        };
        if Self::is_tree(&tree) {
            self.tree = tree;
        }
    }
}

/// Adds some vertices that stand side by side, each with what is below it.
fn grow(tree: &mut Vec<VertexPlan>, levels: u64, next: &mut u32, rng: &mut Rng) -> u16 {
    let width = rng.range(1, 3) as u16;
    let mut grown = 0;
    while grown < width && (grown == 0 || tree.len() < VERTICES_MAX) {
        grown += 1;
        if levels == 0 || tree.len() >= VERTICES_MAX || rng.permille(350) {
            tree.push((0, *next));
            *next += rng.pick(&[1, 2, 2, 2, 3, 4]) as u32;
        } else {
            let at = tree.len();
            tree.push((0, 0));
            tree[at].0 = grow(tree, levels - 1, next, rng);
        }
    }
    grown
}

/// The node that a vertex has at first. Some share one.
pub(crate) const fn vertex_node(place: Place) -> NodeId {
    NodeId::new(match place {
        Place::Leaf(0) | Place::Aggregator(0) => 3,
        Place::Leaf(vertex) | Place::Aggregator(vertex) => 600 + vertex % NODES,
        _ => 0,
    })
}

impl<K: Knobs> World<K> {
    /// Those whom a process connects to because of its place in the tree.
    pub(crate) fn peers_above(&self, place: Place) -> Vec<Peer> {
        let peer = |above: &Place| match above {
            Place::Root(_) => Peer::Node(Target::Parent),
            above => Peer::Above(*above),
        };
        self.trees.above(place).iter().map(peer).collect()
    }

    /// Takes over what the controllers have made durable of the tree. Everybody hears of it, some late.
    pub(crate) fn look_at_trees(&mut self) {
        let durable = self
            .controller()
            .is_some_and(|directory| !directory.dirty());
        if durable {
            self.take_trees();
        }
    }

    /// A process begins: the controllers that gave it its place have told it who is above it.
    pub(crate) fn tell_trees(&mut self, place: Place) {
        if self.trees.above(place).is_empty() {
            self.take_trees();
        }
    }

    fn take_trees(&mut self) {
        let Some(directory) = self.controller() else {
            return;
        };
        let version = directory.version();
        if version == self.trees.version {
            return;
        }
        let map = directory.map();
        let Some(log) = map.logs.iter().find(|log| log.log == LOG) else {
            return;
        };
        let trees = Trees::of(log, version);
        let before = core::mem::replace(&mut self.trees, trees);
        if before.parents == self.trees.parents && before.leaves == self.trees.leaves {
            return;
        }
        for proc in 0..self.procs.len() {
            let place = self.procs[proc].place;
            let concerned = before.above(place) != self.trees.above(place);
            if self.procs[proc].alive && concerned {
                // They are connected to the controllers, who tell them.
                let late = self
                    .rng_proc
                    .pick(&[200_000, 2_000_000, 20_000_000, 150_000_000]);
                let after = self.rng_proc.below(late);
                self.after(after, Event::Follow(proc));
            }
        }
    }

    /// A process has heard of another tree: it connects to those who are above it, and to nobody else in the tree.
    pub(crate) fn follow_tree(&mut self, proc: ProcId) {
        let process = &self.procs[proc];
        let place = process.place;
        if matches!(process.machine, Machine::None) || self.is_copy(proc) {
            return;
        }
        if !is_vertex(place) && !matches!(place, Place::Replica(..)) {
            return;
        }
        let wanted = self.peers_above(place);
        let is_above = |peer: &Peer| matches!(peer, Peer::Above(_) | Peer::Node(Target::Parent));
        let mut leaves: Vec<ConnId> = Vec::new();
        self.procs[proc].dials.retain(|peer, conn| {
            let stays = !is_above(peer) || wanted.contains(peer);
            leaves.extend(conn.filter(|_| !stays));
            stays
        });
        for conn in leaves {
            self.hang_up(proc, conn);
        }
        for peer in wanted {
            if let Entry::Vacant(place) = self.procs[proc].dials.entry(peer) {
                place.insert(None);
                self.after(0, Event::Dial(proc, peer));
            }
        }
    }

    /// Whether the edge of a vertex to the one above it runs, as far as it knows.
    pub(crate) fn runs(&self, place: Place) -> bool {
        let machine = self.live(place).map(|proc| &self.procs[proc].machine);
        match machine {
            Some(Machine::Leaf(leaf)) => leaf.is_running(),
            Some(Machine::Aggregator(aggregator)) => aggregator.is_running(),
            _ => false,
        }
    }

    /// O9: what of the tree does not run, if anything.
    pub(crate) fn tree_unsettled(&self) -> Option<Violation> {
        let still = |what: String| {
            let what = format!("after heal: {what}");
            Some(Violation::new(Invariant::O9, what))
        };
        for place in self.trees.vertices() {
            let Some(proc) = self.live(place) else {
                return still(format!("{place} is not there"));
            };
            let whole = match &self.procs[proc].machine {
                Machine::Aggregator(it) => it.children().all(|child| child.running),
                _ => true,
            };
            if !(whole && self.runs(place)) {
                return still(format!("an edge of {place} does not run"));
            }
        }
        let leader = self.live(Place::Root(self.leader));
        let Some(Machine::Root(root)) = leader.map(|proc| &self.procs[proc].machine) else {
            return still("nobody leads the root group".to_owned());
        };
        let stopped = root.children().find(|child| !child.running);
        if let Some(child) = stopped {
            return still(format!("the root's edge to {child:?} does not run"));
        }
        let (place, rounds) = self.fullest_ring()?;
        let full = rounds > RING_AT_REST_MAX;
        full.then(|| still(format!("{rounds} rounds of {place} wait to be chosen")))?
    }

    /// The edge with the most rounds that no cut has chosen, as its child knows.
    fn fullest_ring(&self) -> Option<(Place, u64)> {
        let rings = self.trees.vertices().filter_map(|place| {
            let rounds = match &self.procs[self.live(place)?].machine {
                Machine::Leaf(leaf) => leaf.rounds_in_flight(),
                Machine::Aggregator(aggregator) => aggregator.rounds_in_flight(),
                _ => return None,
            };
            Some((place, rounds))
        });
        rings.max_by_key(|(_, rounds)| *rounds)
    }
}

/// The most rounds of an edge at rest that no cut has chosen. What grew is ordered, and where nothing grew no round is sent.
const RING_AT_REST_MAX: u64 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    /// Under load rounds are on their way, and such a tree does not count as settled; in the end none is.
    #[test]
    fn rings_that_hold_rounds_are_not_drained() {
        for seed in 1..=3 {
            let plan = Plan {
                tree: vec![(2, 0), (0, 0), (0, 2)],
                shards: 2,
                ..Plan::calm()
            };
            let mut world = World::new(seed, plan);
            let (mut most, mut found) = (0, 0);
            while world.step_on() {
                let rounds = world.fullest_ring().map_or(0, |(_, rounds)| rounds);
                if rounds > RING_AT_REST_MAX {
                    let still = world.tree_unsettled().map(|it| it.to_string());
                    found += u64::from(still.is_some_and(|it| it.contains("wait to be chosen")));
                }
                most = most.max(rounds);
            }
            assert!(
                world.history.failure.is_none(),
                "{:?}",
                world.history.failure
            );
            assert!(most > RING_AT_REST_MAX && found > 0, "{most} rounds");
            assert!(world.tree_unsettled().is_none());
        }
    }

    #[test]
    fn a_vertex_may_go() {
        let tree = [(2, 0), (1, 0), (0, 0), (0, 2), (0, 4)];
        let without = |at| Plan::without_vertex(&tree, at);
        assert_eq!(without(0), Some(vec![(1, 0), (0, 0), (0, 2), (0, 4)]));
        assert_eq!(without(1), Some(vec![(2, 0), (0, 0), (0, 2), (0, 4)]));
        assert_eq!(without(3), Some(vec![(1, 0), (1, 0), (0, 0), (0, 4)]));
        // The aggregator above the only leaf is one then.
        assert_eq!(without(2), Some(vec![(2, 0), (0, 0), (0, 2), (0, 4)]));
        assert_eq!(without(9), None);
    }

    #[test]
    fn seeds_have_trees_of_every_kind() {
        let (mut plain, mut deepest, mut widest, mut bare) = (0, 0, 0, 0);
        for seed in 0..500 {
            let plan = Plan::draw(seed);
            assert!(Plan::is_tree(&plan.tree), "{:?}", plan.tree);
            plain += u32::from(plan.tree.len() == 1);
            widest = widest.max(plan.tree.len());
            let (mut depth, mut at) = (1, 0);
            while plan.tree[at].0 > 0 {
                (depth, at) = (depth + 1, at + 1);
            }
            deepest = deepest.max(depth);
            let leaves: Vec<u32> = plan
                .tree
                .iter()
                .filter(|it| it.0 == 0)
                .map(|it| it.1)
                .collect();
            let shards = |from: u32, to: u32| (from.div_ceil(2)..to.div_ceil(2)).len();
            let ends = leaves.iter().skip(1).copied().chain([2 * plan.shards]);
            bare += leaves
                .iter()
                .zip(ends)
                .filter(|(from, to)| shards(**from, *to) == 0)
                .count();
        }
        assert!((150..320).contains(&plain), "{plain} with one leaf");
        assert!(
            deepest >= 4 && widest >= 10,
            "{deepest} levels, {widest} vertices"
        );
        assert!(bare > 20, "{bare} leaves without shards");
    }
}
