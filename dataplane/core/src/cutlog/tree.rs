//! The tree below the root as the cut log states it, and which view last changed what is below each vertex: a view limits itself
//! to the paths that it touches, and an edge off them goes on as if there had been none.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::Range;

use ionian_types::{Inc, ViewId};
use ionian_wire::tree::{OrderKey, TREE_VERTICES_MAX, TreeVertex, VertexList};
use ionian_wire::{Reader, WireError, Writer};

/// One vertex and the last view that changed its place or anything below it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vertex {
    /// The vertex.
    pub is: TreeVertex,
    /// The last view that changed who is above it, its shape below, or a shard below.
    pub changed: ViewId,
}

/// The vertices in depth-first order, parents first.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Tree {
    vertices: Vec<Vertex>,
}

/// What stays the same of a vertex that a new tree does not change: who is above it, and where its shards end.
type Surroundings = (Option<Inc>, Option<OrderKey>);

impl Tree {
    /// The vertices.
    #[must_use]
    pub fn vertices(&self) -> &[Vertex] {
        &self.vertices
    }

    /// Those right below the root: each with everything below it.
    pub fn top(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        siblings(&self.vertices, 0..self.vertices.len())
    }

    /// Whether a process is a vertex of the tree.
    #[must_use]
    pub fn has(&self, inc: Inc) -> bool {
        self.vertices.iter().any(|vertex| vertex.is.inc == inc)
    }

    /// A shard has changed in a view: so has everything on the path to it.
    pub(super) fn touch(&mut self, key: OrderKey, view: ViewId) {
        let mut range = 0..self.vertices.len();
        loop {
            let mut below = siblings(&self.vertices, range.clone());
            let found = below.find(|it| holds(&self.vertices, it, key));
            drop(below);
            let Some(found) = found else { return };
            self.vertices[found.start].changed = view;
            range = found.start + 1..found.end;
        }
    }

    /// Takes another tree. Whatever is the same in it, with the same above it, has not changed.
    ///
    /// `false` if two vertices are one process; then nothing is changed.
    #[must_use]
    pub(crate) fn replace(&mut self, list: &VertexList<'_>, view: ViewId) -> bool {
        let incs: BTreeSet<Inc> = list.iter().map(|vertex| vertex.inc).collect();
        if incs.len() != list.len() {
            return false;
        }
        let mut vertices: Vec<Vertex> =
            list.iter().map(|is| Vertex { is, changed: view }).collect();
        let before = surroundings(&self.vertices);
        let now = surroundings(&vertices);
        let known: BTreeMap<Inc, usize> = (0..self.vertices.len())
            .map(|at| (self.vertices[at].is.inc, at))
            .collect();
        for at in 0..vertices.len() {
            let Some(&old) = known.get(&vertices[at].is.inc) else {
                continue;
            };
            let below = subtree_end(&vertices, at) - at;
            let same = before[old] == now[at]
                && first_begins(&self.vertices, old) == first_begins(&vertices, at)
                && subtree_end(&self.vertices, old) - old == below
                && (0..below).all(|it| self.vertices[old + it].is == vertices[at + it].is);
            if same {
                vertices[at].changed = self.vertices[old].changed;
            }
        }
        self.vertices = vertices;
        true
    }

    /// Writes the tree.
    pub(super) fn write(&self, writer: &mut Writer<'_>) -> Result<(), WireError> {
        writer.field(self.vertices.len() as u32)?;
        for vertex in &self.vertices {
            writer.field(vertex.is)?;
        }
        let mut changed = self.vertices.iter().map(|vertex| vertex.changed);
        changed.try_for_each(|view| writer.field(view))
    }

    /// Reads a tree that a peer or a disk supplied.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = reader.field::<u32>()? as usize;
        let list = VertexList::read(reader, count.min(TREE_VERTICES_MAX + 1))?;
        let mut vertices = Vec::new();
        for is in list.iter() {
            let changed = reader.field()?;
            vertices.push(Vertex { is, changed });
        }
        Ok(Self { vertices })
    }
}

/// Where the subtree of the vertex at `at` ends.
pub(crate) fn subtree_end(vertices: &[Vertex], at: usize) -> usize {
    let (mut end, mut missing) = (at, 1);
    while missing > 0 && end < vertices.len() {
        missing += usize::from(vertices[end].is.children);
        missing -= 1;
        end += 1;
    }
    end
}

/// The vertices of `range` that have none above them in it, each with everything below.
pub(crate) fn siblings(
    vertices: &[Vertex],
    range: Range<usize>,
) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = range.start;
    core::iter::from_fn(move || {
        if at >= range.end {
            return None;
        }
        let found = at..subtree_end(vertices, at);
        at = found.end;
        Some(found)
    })
}

/// Where the shards begin that are below the vertices from `at` on: at its first leaf.
pub(crate) fn first_begins(vertices: &[Vertex], at: usize) -> Option<OrderKey> {
    let leaf = vertices.get(at..)?.iter().find(|it| it.is.children == 0)?;
    Some(leaf.is.begins)
}

/// Whether a shard belongs below the vertices of `range`.
pub(crate) fn holds(vertices: &[Vertex], range: &Range<usize>, key: OrderKey) -> bool {
    first_begins(vertices, range.start).is_some_and(|begins| key >= begins)
        && first_begins(vertices, range.end).is_none_or(|end| key < end)
}

fn surroundings(vertices: &[Vertex]) -> Vec<Surroundings> {
    let mut found = Vec::with_capacity(vertices.len());
    let mut above: Vec<(usize, Inc)> = Vec::new();
    for at in 0..vertices.len() {
        while above.last().is_some_and(|(end, _)| *end <= at) {
            above.pop();
        }
        let end = subtree_end(vertices, at);
        found.push((
            above.last().map(|(_, inc)| *inc),
            first_begins(vertices, end),
        ));
        above.push((end, vertices[at].is.inc));
    }
    found
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use ionian_types::{NodeId, ShardId};
    use ionian_wire::tree::encode_vertices;

    use super::*;

    fn vertex(inc: u64, children: u16, begins: u32) -> TreeVertex {
        TreeVertex {
            node: NodeId::new(1),
            inc: Inc::new(inc),
            children,
            begins: (begins, ShardId::ZERO),
        }
    }

    fn replace(tree: &mut Tree, vertices: &[TreeVertex], view: u64) -> bool {
        let mut bytes = [0; 1024];
        let list = encode_vertices(&mut bytes, vertices.iter().copied()).unwrap();
        tree.replace(&list, ViewId::new(view))
    }

    fn changed(tree: &Tree) -> Vec<(u64, u64)> {
        let pair = |it: &Vertex| (it.is.inc.get(), it.changed.get());
        tree.vertices().iter().map(pair).collect()
    }

    /// 1 over the leaves 2 and 3, and 4 over the leaf 5.
    fn two_levels() -> Vec<TreeVertex> {
        vec![
            vertex(1, 2, 0),
            vertex(2, 0, 0),
            vertex(3, 0, 10),
            vertex(4, 1, 0),
            vertex(5, 0, 20),
        ]
    }

    #[test]
    fn a_shard_touches_the_path_to_it() {
        let mut tree = Tree::default();
        assert!(replace(&mut tree, &two_levels(), 1));
        tree.touch((10, ShardId::new(4)), ViewId::new(2));
        assert_eq!(changed(&tree), [(1, 2), (2, 1), (3, 2), (4, 1), (5, 1)]);
        tree.touch((99, ShardId::ZERO), ViewId::new(3));
        assert_eq!(changed(&tree), [(1, 2), (2, 1), (3, 2), (4, 3), (5, 3)]);
        let tops: Vec<_> = tree.top().collect();
        assert_eq!(tops, [0..3, 3..5]);
    }

    #[test]
    fn what_is_the_same_in_another_tree_has_not_changed() {
        let mut tree = Tree::default();
        assert!(replace(&mut tree, &two_levels(), 1));
        // Another process in the place of the leaf 3: the path to it.
        let mut next = two_levels();
        next[2].inc = Inc::new(33);
        assert!(replace(&mut tree, &next, 2));
        assert_eq!(changed(&tree), [(1, 2), (2, 1), (33, 2), (4, 1), (5, 1)]);
        // The border between two leaves moves: both.
        next[2].begins.0 = 11;
        assert!(replace(&mut tree, &next, 3));
        assert_eq!(changed(&tree), [(1, 3), (2, 3), (33, 3), (4, 1), (5, 1)]);
        // The aggregator 4 goes: its leaf has another one above it.
        next.remove(3);
        assert!(replace(&mut tree, &next, 4));
        assert_eq!(changed(&tree), [(1, 3), (2, 3), (33, 3), (5, 4)]);
        next[3].inc = Inc::new(33);
        assert!(!replace(&mut tree, &next, 5), "one process twice");
        assert_eq!(changed(&tree), [(1, 3), (2, 3), (33, 3), (5, 4)]);
    }

    #[test]
    fn a_tree_comes_back() {
        let mut tree = Tree::default();
        assert!(replace(&mut tree, &two_levels(), 7));
        let mut bytes = [0; 512];
        let mut writer = Writer::new(&mut bytes);
        tree.write(&mut writer).unwrap();
        let len = writer.len();
        assert_eq!(Tree::read(&mut Reader::new(&bytes[..len])), Ok(tree));
        assert!(Tree::read(&mut Reader::new(&bytes[..len - 1])).is_err());
    }
}
