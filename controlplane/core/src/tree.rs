//! The ordering tree of a log: which vertices there are, who fills them, and the tree that is to be in its place.
//!
//! A vertex keeps its number and its process as long as a tree has it. A new tree is logged in one view once every process that
//! it takes is there; until then the present one goes on, and nothing waits.

use std::collections::{BTreeMap, BTreeSet};

use ionian_types::{Inc, NodeId, ShardId, VertexId};
use ionian_wire::directory::{parent_in, parents_in};
use ionian_wire::tree::{OrderKey, TREE_VERTICES_MAX, TreeVertex, VertexList};
use ionian_wire::{Reader, WireError};

use crate::codec::{Encoder, count, range};
use crate::shape::{TreeSpec, VertexShape, is_tree};
use crate::state::Place;

/// A vertex of a tree with its shape, in depth-first order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Branch {
    pub(crate) vertex: VertexId,
    pub(crate) is: VertexShape,
}

impl Branch {
    pub(crate) const fn is_leaf(&self) -> bool {
        self.is.children == 0
    }
}

/// Who fills a vertex.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Vertex {
    pub(crate) place: Place,
    /// Where it goes: the place is that node's from its registration on.
    pub(crate) next: Option<NodeId>,
}

/// The tree of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LogTree {
    /// What is.
    shape: Vec<Branch>,
    /// What is to be.
    coming: Option<Vec<Branch>>,
    /// The pending view has the coming tree.
    adopting: bool,
    /// Those of both.
    vertices: BTreeMap<VertexId, Vertex>,
    next_vertex: u32,
    /// As the cut log has it; empty before its first view.
    logged: Vec<TreeVertex>,
}

impl Vertex {
    /// Another node is to have the place. One that nobody has filled yet goes there at once.
    pub(crate) fn go_to(&mut self, node: NodeId) {
        let elsewhere = self.place.node != node;
        if elsewhere && self.place.inc == Inc::ZERO {
            self.place = Place::new(node);
        }
        self.next = (self.place.node != node).then_some(node);
    }
}

impl LogTree {
    /// The tree of a new log, which was checked.
    pub(crate) fn new(spec: &TreeSpec) -> Self {
        let ids = (0..).map(VertexId::new);
        let vertices = ids.clone().zip(&spec.nodes).map(|(vertex, &node)| {
            let place = Place::new(node);
            (vertex, Vertex { place, next: None })
        });
        let branches = ids.zip(&spec.shape);
        Self {
            shape: branches
                .map(|(vertex, &is)| Branch { vertex, is })
                .collect(),
            coming: None,
            adopting: false,
            vertices: vertices.collect(),
            next_vertex: spec.nodes.len() as u32,
            logged: Vec::new(),
        }
    }

    /// The tree that is.
    pub(crate) fn shape(&self) -> &[Branch] {
        &self.shape
    }

    /// The tree that is to be in its place.
    pub(crate) fn coming(&self) -> Option<&[Branch]> {
        self.coming.as_deref()
    }

    /// Whether the pending view has the tree that is to be.
    pub(crate) const fn is_adopting(&self) -> bool {
        self.adopting
    }

    pub(crate) fn vertex(&self, vertex: VertexId) -> Option<&Vertex> {
        self.vertices.get(&vertex)
    }

    pub(crate) fn vertex_mut(&mut self, vertex: VertexId) -> Option<&mut Vertex> {
        self.vertices.get_mut(&vertex)
    }

    /// All vertices, of the present tree and of the coming one, by number.
    pub(crate) fn vertices(&self) -> impl Iterator<Item = (VertexId, &Vertex)> {
        self.vertices.iter().map(|(&id, vertex)| (id, vertex))
    }

    /// The vertex with its shape: in the present tree, or else in the coming one.
    pub(crate) fn branch(&self, vertex: VertexId) -> Option<&Branch> {
        let mut both = self.shape.iter().chain(self.coming.iter().flatten());
        both.find(|branch| branch.vertex == vertex)
    }

    /// Whether it is a leaf; `None` for one that the tree does not have.
    pub(crate) fn is_leaf(&self, vertex: VertexId) -> Option<bool> {
        self.branch(vertex).map(Branch::is_leaf)
    }

    /// The vertex that this life fills.
    pub(crate) fn filled_by(&self, node: NodeId, inc: Inc) -> Option<VertexId> {
        let mut vertices = self.vertices();
        let found = vertices.find(|(_, it)| it.place.node == node && it.place.inc == inc);
        found.map(|(id, _)| id)
    }

    /// The leaf of a shard.
    pub(crate) fn leaf_of(&self, key: OrderKey) -> Option<VertexId> {
        let leaves = self.shape.iter().filter(|branch| branch.is_leaf());
        let own = leaves.take_while(|leaf| leaf.is.begins <= key).last();
        own.map(|leaf| leaf.vertex)
    }

    /// The vertex right above one of the present tree; `None` for one below the root.
    pub(crate) fn parent(&self, vertex: VertexId) -> Option<VertexId> {
        let at = self.shape.iter().position(|it| it.vertex == vertex)?;
        let children = self.shape.iter().map(|it| it.is.children);
        parent_in(children, at).map(|parent| self.shape[parent].vertex)
    }

    /// The vertices right below one of the present tree, or, of none, below the root.
    pub(crate) fn children(&self, of: Option<VertexId>) -> impl Iterator<Item = VertexId> {
        let parents = parents_in(self.shape.iter().map(|it| it.is.children));
        let below = parents
            .zip(&self.shape)
            .filter(move |(parent, _)| parent.map(|parent| self.shape[parent].vertex) == of);
        below.map(|(_, branch)| branch.vertex)
    }

    /// What a vertex is called in sentences.
    pub(crate) fn name(&self, vertex: VertexId) -> String {
        match self.is_leaf(vertex) {
            Some(false) => format!("aggregator {vertex}"),
            _ if self.vertices.len() == 1 => String::from("the leaf"),
            _ => format!("leaf {vertex}"),
        }
    }

    /// Whether a configuration says another tree than the present one, or others who fill it.
    pub(crate) fn differs_from(&self, spec: &TreeSpec) -> bool {
        let node = |branch: &Branch| self.vertices.get(&branch.vertex).map(|it| it.place.node);
        let nodes = spec.nodes.iter().copied().map(Some);
        !self.shape.iter().map(|branch| &branch.is).eq(&spec.shape)
            || !self.shape.iter().map(node).eq(nodes)
    }

    /// Whether every process of the present tree has registered at least once.
    pub(crate) fn has_begun(&self) -> bool {
        self.shape.iter().all(|it| self.inc(it.vertex) != Inc::ZERO)
    }

    fn inc(&self, vertex: VertexId) -> Inc {
        let vertex = self.vertices.get(&vertex);
        vertex.map_or(Inc::ZERO, |vertex| vertex.place.inc)
    }

    /// The tree to be logged, unless it is: the coming one once every process that it takes is there.
    pub(crate) fn next(&self, connected: impl Fn(VertexId) -> bool) -> Option<Vec<TreeVertex>> {
        let coming = self.coming.as_ref().filter(|coming| {
            let mut vertices = coming.iter().map(|it| it.vertex);
            vertices.all(|vertex| self.inc(vertex) != Inc::ZERO && connected(vertex))
        });
        let list = self.list(coming.unwrap_or(&self.shape));
        (list != self.logged).then_some(list)
    }

    /// The vertices of the tree that is to be, or of the present one if that is to stay.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = VertexId> {
        let wanted = self.coming.as_ref().unwrap_or(&self.shape);
        wanted.iter().map(|branch| branch.vertex)
    }

    /// Whether the present tree has this form, and is to stay.
    pub(crate) fn stays(&self, shape: &[VertexShape]) -> bool {
        self.coming.is_none() && self.shape.iter().map(|it| &it.is).eq(shape)
    }

    /// Whether the cut log has the life that fills a vertex, or need not have one yet.
    pub(crate) fn lists(&self, vertex: VertexId) -> bool {
        let inc = self.inc(vertex);
        let coming = self.shape.iter().all(|branch| branch.vertex != vertex);
        coming || self.logged.iter().any(|logged| logged.inc == inc)
    }

    /// The tree that is to be is there, as in a plan.
    pub(crate) fn pretend(&mut self) {
        self.adopting = self.coming.is_some();
        self.adopt();
    }

    /// Whether the present tree is what the cut log has.
    pub(crate) fn is_logged(&self) -> bool {
        self.list(&self.shape) == self.logged
    }

    fn list(&self, shape: &[Branch]) -> Vec<TreeVertex> {
        let vertex = |branch: &Branch| {
            let place = self.vertices.get(&branch.vertex).map(|it| &it.place);
            TreeVertex {
                node: place.map_or(NodeId::ZERO, |place| place.node),
                inc: place.map_or(Inc::ZERO, |place| place.inc),
                children: branch.is.children,
                begins: branch.is.begins,
            }
        };
        shape.iter().map(vertex).collect()
    }

    /// A view with this tree is on its way.
    pub(crate) fn propose(&mut self, vertices: &VertexList<'_>) {
        let coming = self.coming.as_ref().map(|coming| self.list(coming));
        self.adopting = coming.is_some_and(|coming| vertices.iter().eq(coming));
    }

    /// The cut log has this tree.
    pub(crate) fn log(&mut self, vertices: &VertexList<'_>) {
        self.logged = vertices.iter().collect();
        self.adopt();
    }

    /// There is no cut log any more.
    pub(crate) fn forget(&mut self) {
        self.logged.clear();
        self.adopt();
    }

    /// The coming tree is there, if a view with it was on its way. Who is not in it has no place any more.
    fn adopt(&mut self) {
        if core::mem::take(&mut self.adopting)
            && let Some(coming) = self.coming.take()
        {
            self.shape = coming;
        }
        self.prune();
    }

    /// Gives the coming tree up, which no view has yet.
    pub(crate) fn keep(&mut self) {
        self.coming = None;
        self.prune();
    }

    fn prune(&mut self) {
        let both = self.shape.iter().chain(self.coming.iter().flatten());
        let known: BTreeSet<VertexId> = both.map(|branch| branch.vertex).collect();
        self.vertices.retain(|vertex, _| known.contains(vertex));
    }

    /// Another tree is to be in place of this one. Its vertices are those that there are, as far as they fit: a leaf that begins
    /// where one begins, an aggregator over the same first leaf at the same height; then others of their kind. Those of the
    /// present tree come first, then those that were asked for by a coming tree which this one overtakes. For the rest `place`
    /// gives a node. `None` if numbers are used up; then nothing is changed.
    pub(crate) fn ask_for(
        &mut self,
        shape: &[VertexShape],
        mut place: impl FnMut() -> NodeId,
    ) -> Option<()> {
        let now = seats(shape);
        let mut free = self.seated();
        let mut by_seat = |seat: &Seat| free.iter_mut().find_map(|free| free.remove(seat));
        let mut chosen: Vec<Option<VertexId>> = now.iter().map(&mut by_seat).collect();
        for (chosen, seat) in chosen.iter_mut().zip(&now) {
            if chosen.is_none() {
                *chosen = free.iter_mut().find_map(|free| {
                    let other = free.keys().find(|it| (it.0 == 0) == (seat.0 == 0)).copied();
                    other.and_then(|other| free.remove(&other))
                });
            }
        }
        let fresh = chosen.iter().filter(|vertex| vertex.is_none()).count();
        let after = self.next_vertex.checked_add(fresh as u32)?;
        let mut coming = Vec::with_capacity(shape.len());
        for (chosen, &is) in chosen.into_iter().zip(shape) {
            let vertex = chosen.unwrap_or_else(|| {
                let vertex = VertexId::new(self.next_vertex);
                self.next_vertex += 1;
                let place = Place::new(place());
                self.vertices.insert(vertex, Vertex { place, next: None });
                vertex
            });
            coming.push(Branch { vertex, is });
        }
        debug_assert_eq!(self.next_vertex, after);
        self.coming = (coming != self.shape).then_some(coming);
        self.prune();
        Some(())
    }

    /// The vertices by their seats: those of the present tree, and those that only the coming one has.
    fn seated(&self) -> [BTreeMap<Seat, VertexId>; 2] {
        let of = |shape: &[Branch]| -> BTreeMap<Seat, VertexId> {
            let form: Vec<VertexShape> = shape.iter().map(|branch| branch.is).collect();
            let vertices = shape.iter().map(|branch| branch.vertex);
            seats(&form).into_iter().zip(vertices).collect()
        };
        let mut coming = of(self.coming.as_deref().unwrap_or(&[]));
        let present: BTreeSet<VertexId> = self.shape.iter().map(|branch| branch.vertex).collect();
        coming.retain(|_, vertex| !present.contains(vertex));
        [of(&self.shape), coming]
    }

    pub(crate) fn encode(
        &self,
        out: &mut Encoder,
        mut encode_place: impl FnMut(&mut Encoder, &Place),
    ) {
        let encode = |out: &mut Encoder, shape: &[Branch]| {
            out.put(shape.len() as u32);
            for branch in shape {
                out.put(branch.vertex);
                put_shape(out, &branch.is);
            }
        };
        encode(out, &self.shape);
        encode(out, self.coming.as_deref().unwrap_or(&[]));
        out.put(self.adopting);
        out.put(self.vertices.len() as u32);
        for (vertex, filled) in &self.vertices {
            out.put(*vertex);
            encode_place(out, &filled.place);
            out.put(filled.next.is_some());
            out.put(filled.next.unwrap_or_default());
        }
        out.put(self.next_vertex);
        out.put(self.logged.len() as u32);
        self.logged.iter().for_each(|vertex| out.put(*vertex));
    }

    pub(crate) fn decode(
        reader: &mut Reader<'_>,
        mut place: impl FnMut(&mut Reader<'_>) -> Result<Place, WireError>,
    ) -> Result<Self, WireError> {
        let branches = |reader: &mut Reader<'_>| -> Result<Vec<Branch>, WireError> {
            let count = count(reader, TREE_VERTICES_MAX, "tree vertices")?;
            let branches = (0..count).map(|_| {
                let vertex = reader.field()?;
                let is = take_shape(reader)?;
                Ok(Branch { vertex, is })
            });
            branches.collect()
        };
        let shape = branches(reader)?;
        let coming = Some(branches(reader)?).filter(|coming| !coming.is_empty());
        let adopting = reader.field()?;
        let mut vertices = BTreeMap::new();
        for _ in 0..count(reader, 2 * TREE_VERTICES_MAX, "vertices")? {
            let vertex = reader.field()?;
            let place = place(reader)?;
            let (goes, node): (bool, NodeId) = (reader.field()?, reader.field()?);
            let next = goes.then_some(node);
            vertices.insert(vertex, Vertex { place, next });
        }
        let next_vertex: u32 = reader.field()?;
        let logged = count(reader, TREE_VERTICES_MAX, "tree vertices")?;
        let logged: Result<Vec<TreeVertex>, _> = (0..logged).map(|_| reader.field()).collect();
        let tree = Self {
            shape,
            coming,
            adopting,
            vertices,
            next_vertex,
            logged: logged?,
        };
        tree.check()?;
        Ok(tree)
    }

    /// The tree of a state that knew of one leaf only.
    pub(crate) fn of_leaf(
        leaf: Place,
        next: Option<NodeId>,
        logged: Option<(NodeId, Inc)>,
    ) -> Self {
        let mut tree = Self::new(&TreeSpec::leaf(leaf.node));
        tree.vertices
            .insert(VertexId::ZERO, Vertex { place: leaf, next });
        let logged = logged.map(|(node, inc)| TreeVertex::first_leaf(node, inc));
        tree.logged.extend(logged);
        tree
    }

    fn check(&self) -> Result<(), WireError> {
        for shape in [Some(&self.shape), self.coming.as_ref()]
            .into_iter()
            .flatten()
        {
            let form: Vec<VertexShape> = shape.iter().map(|branch| branch.is).collect();
            let known = |branch: &Branch| self.vertices.contains_key(&branch.vertex);
            if !is_tree(&form) || !shape.iter().all(known) {
                return Err(range("tree", shape.len() as u64));
            }
        }
        let last = self.vertices.last_key_value().map(|(id, _)| id.get());
        if last.is_some_and(|last| last >= self.next_vertex) {
            return Err(range("vertex", u64::from(self.next_vertex)));
        }
        Ok(())
    }
}

pub(crate) fn put_shape(out: &mut Encoder, shape: &VertexShape) {
    out.put(shape.children);
    out.put(shape.begins.0);
    out.put(shape.begins.1);
}

pub(crate) fn take_shape(reader: &mut Reader<'_>) -> Result<VertexShape, WireError> {
    Ok(VertexShape {
        children: reader.field()?,
        begins: (reader.field()?, reader.field::<ShardId>()?),
    })
}

/// What makes a vertex the same in another tree: its height, and where the shards below it begin.
type Seat = (u8, OrderKey);

fn seats(shape: &[VertexShape]) -> Vec<Seat> {
    let mut seats = vec![(0, (0, ShardId::ZERO)); shape.len()];
    // From the last to the first: what is below a vertex follows it.
    let mut open: Vec<usize> = Vec::new();
    for at in (0..shape.len()).rev() {
        let is = &shape[at];
        seats[at] = if is.children == 0 {
            (0, is.begins)
        } else {
            let below = open.split_off(open.len().saturating_sub(usize::from(is.children)));
            let height = below.iter().map(|child| seats[*child].0).max();
            let first = below
                .last()
                .map_or((0, ShardId::ZERO), |child| seats[*child].1);
            (height.unwrap_or(0) + 1, first)
        };
        open.push(at);
    }
    seats
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::balanced;

    fn keys(count: u32) -> Vec<OrderKey> {
        (0..count).map(|id| (id, ShardId::new(id))).collect()
    }

    fn tree(shards: u32, fan_in: u16, depth: u8) -> LogTree {
        let nodes = [NodeId::new(1), NodeId::new(2)];
        let spec = TreeSpec::spread(shards as usize, fan_in, Some(depth), &nodes);
        LogTree::new(&spec.unwrap())
    }

    fn ids(branches: &[Branch]) -> Vec<u32> {
        branches.iter().map(|it| it.vertex.get()).collect()
    }

    #[test]
    fn who_stays_where_the_same_shards_begin_keeps_its_process() {
        // Two aggregators with two leaves each: 0 over 1, 2; 3 over 4, 5.
        let mut tree = tree(8, 2, 2);
        assert_eq!(tree.shape().len(), 6);
        assert_eq!(tree.parent(VertexId::new(2)), Some(VertexId::new(0)));
        let top: Vec<u32> = tree.children(None).map(VertexId::get).collect();
        assert_eq!(top, [0, 3]);
        // A level less: the leaves stay.
        let flat = balanced(&keys(8), 4, Some(1)).unwrap();
        tree.ask_for(&flat, || NodeId::new(9)).unwrap();
        assert_eq!(ids(tree.coming().unwrap()), [1, 4]);
        // Back to two levels before that has come about: those that are still there.
        let again = balanced(&keys(8), 2, Some(2)).unwrap();
        tree.ask_for(&again, || NodeId::new(9)).unwrap();
        assert_eq!(tree.coming(), None);
        // A level more: one vertex over all, on another node.
        let deep = balanced(&keys(8), 2, Some(3)).unwrap();
        tree.ask_for(&deep, || NodeId::new(9)).unwrap();
        assert_eq!(ids(tree.coming().unwrap()), [6, 0, 1, 2, 3, 4, 5]);
        assert_eq!(
            tree.vertex(VertexId::new(6)).unwrap().place.node,
            NodeId::new(9)
        );
        tree.keep();
        assert_eq!(tree.vertices().count(), 6);
    }

    #[test]
    fn who_was_asked_for_by_a_tree_that_has_not_come_is_asked_again() {
        let mut tree = tree(8, 2, 2);
        let node = |tree: &LogTree, vertex| {
            let vertex = tree.vertex(VertexId::new(vertex));
            vertex.map(|it| it.place.node.get())
        };
        // One more level: vertex 6 over all. Its process has registered by the time that another form is wanted.
        let deep = balanced(&keys(8), 2, Some(3)).unwrap();
        tree.ask_for(&deep, || NodeId::new(9)).unwrap();
        tree.vertex_mut(VertexId::new(6)).unwrap().place.inc = Inc::new(5);
        // Two more: another one over all, and over it one that is in no tree yet.
        let deeper = balanced(&keys(8), 2, Some(4)).unwrap();
        tree.ask_for(&deeper, || NodeId::new(7)).unwrap();
        assert_eq!(ids(tree.coming().unwrap()), [7, 6, 0, 1, 2, 3, 4, 5]);
        assert_eq!((node(&tree, 6), node(&tree, 7)), (Some(9), Some(7)));
        assert_eq!(
            tree.vertex(VertexId::new(6)).unwrap().place.inc,
            Inc::new(5)
        );
        // One less: the seat decides, not the number.
        tree.ask_for(&deep, || NodeId::new(8)).unwrap();
        assert_eq!(ids(tree.coming().unwrap()), [6, 0, 1, 2, 3, 4, 5]);
        assert_eq!((node(&tree, 7), tree.vertices().count()), (None, 7));
        // In a seat that nobody has, one of its kind that only the coming tree has; the present tree's are all in use.
        let wide = balanced(&keys(8), 3, Some(3)).unwrap();
        tree.ask_for(&wide, || NodeId::new(8)).unwrap();
        let wide = ids(tree.coming().unwrap());
        assert!(wide.iter().all(|id| *id <= 6), "{wide:?}");
        // None of it is left where the present tree is to stay.
        let present: Vec<VertexShape> = tree.shape().iter().map(|branch| branch.is).collect();
        tree.ask_for(&present, || NodeId::new(8)).unwrap();
        assert_eq!((tree.coming(), tree.vertices().count()), (None, 6));
    }

    #[test]
    fn a_tree_comes_once_everybody_is_there_and_goes_with_its_view() {
        let mut tree = tree(4, 4, 1);
        tree.vertex_mut(VertexId::ZERO).unwrap().place.inc = Inc::new(5);
        let first = tree.next(|_| true).unwrap();
        let mut bytes = vec![0; 1024];
        let list = ionian_wire::tree::encode_vertices(&mut bytes, first.into_iter()).unwrap();
        tree.propose(&list);
        tree.log(&list);
        assert!(tree.is_logged() && tree.next(|_| true).is_none());
        let deep = balanced(&keys(4), 2, Some(2)).unwrap();
        tree.ask_for(&deep, || NodeId::new(3)).unwrap();
        assert!(tree.next(|_| true).is_none(), "nobody fills the new ones");
        for vertex in 1..3 {
            tree.vertex_mut(VertexId::new(vertex)).unwrap().place.inc = Inc::new(6);
        }
        assert!(
            tree.next(|vertex| vertex.get() != 2).is_none(),
            "one is away"
        );
        let second = tree.next(|_| true).unwrap();
        let mut bytes = vec![0; 1024];
        let list = ionian_wire::tree::encode_vertices(&mut bytes, second.into_iter()).unwrap();
        tree.propose(&list);
        assert!(tree.is_adopting() && tree.coming().is_some());
        tree.log(&list);
        assert!(tree.is_logged() && tree.coming().is_none());
        assert_eq!(ids(tree.shape()), [1, 0, 2]);
        let mut out = Encoder(Vec::new());
        tree.encode(&mut out, |out, place| {
            out.put(place.node);
            out.put(place.inc);
        });
        let read = LogTree::decode(&mut Reader::new(&out.0), |reader| {
            let mut place = Place::new(reader.field()?);
            place.inc = reader.field()?;
            Ok(place)
        });
        assert_eq!(read, Ok(tree));
    }
}
