//! The shape of the tree below the root, as views and edge starts state it: vertices in depth-first order, parents first.
//!
//! ```text
//! node u32 | incarnation u64 | children u16 | begins: rank u32, shard u32
//! ```
//! A vertex with children is an aggregator; one without is a leaf, which has the shards from where it begins to where the next leaf
//! begins, in the order of (rank, shard). So the order of the leaves is the order of the shards, and a shard that a view opens
//! needs no vertex to be named: its rank says where it belongs.

use ionian_types::{Inc, NodeId, ShardId};

use crate::codec::{Field, Reader, WireError};

/// Vertices between the root and a shard, at most.
pub const TREE_DEPTH_MAX: usize = 8;
/// Vertices of a tree, at most.
pub const TREE_VERTICES_MAX: usize = 4096;

/// The place of a shard in the order of the tree: its rank, then its number.
pub type OrderKey = (u32, ShardId);

/// An aggregator or a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TreeVertex {
    /// The node of the process.
    pub node: NodeId,
    /// Its incarnation, which no other vertex has.
    pub inc: Inc,
    /// The number of vertices right below; 0 for a leaf.
    pub children: u16,
    /// Of a leaf: where its shards begin in the order of the tree. The first leaf begins at (0, 0). Of an aggregator: (0, 0).
    pub begins: OrderKey,
}

impl TreeVertex {
    /// A leaf that has every shard from the first one on.
    #[must_use]
    pub const fn first_leaf(node: NodeId, inc: Inc) -> Self {
        Self {
            node,
            inc,
            children: 0,
            begins: (0, ShardId::ZERO),
        }
    }
}

impl Field for TreeVertex {
    const LEN: usize = 22;

    fn take(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        Ok(Self {
            node: reader.field()?,
            inc: reader.field()?,
            children: reader.field()?,
            begins: (reader.field()?, reader.field()?),
        })
    }

    fn put(self, bytes: &mut [u8]) {
        self.node.put(&mut bytes[..4]);
        self.inc.put(&mut bytes[4..12]);
        Field::put(self.children, &mut bytes[12..14]);
        Field::put(self.begins.0, &mut bytes[14..18]);
        self.begins.1.put(&mut bytes[18..22]);
    }
}

/// Vertices in depth-first order, checked: they form trees, and the leaves begin one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VertexList<'a>(&'a [u8]);

impl<'a> VertexList<'a> {
    /// Checks encoded vertices.
    ///
    /// # Errors
    /// [`WireError::Truncated`] or [`WireError::Range`]; effect none.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        let list = Self(bytes);
        if !bytes.len().is_multiple_of(TreeVertex::LEN) {
            return Err(WireError::Truncated {
                need: bytes.len().next_multiple_of(TreeVertex::LEN),
                have: bytes.len(),
            });
        }
        check(list.iter())?;
        Ok(list)
    }

    /// Reads `count` vertices.
    ///
    /// # Errors
    /// As [`Self::new_checked`].
    pub fn read(reader: &mut Reader<'a>, count: usize) -> Result<Self, WireError> {
        if count > TREE_VERTICES_MAX {
            return Err(wrong("tree vertices", count as u64));
        }
        Self::new_checked(reader.bytes(count * TreeVertex::LEN)?)
    }

    /// The vertices, parents first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = TreeVertex> + use<'a> {
        let chunks = self.0.chunks_exact(TreeVertex::LEN);
        chunks.map(|bytes| TreeVertex::take(bytes).expect("the length was checked"))
    }

    /// The number of vertices.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len() / TreeVertex::LEN
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As they stand on the wire.
    #[must_use]
    pub const fn encoded(&self) -> &'a [u8] {
        self.0
    }
}

fn wrong(field: &'static str, value: u64) -> WireError {
    WireError::Range { field, value }
}

/// Checks that vertices form trees in depth-first order, none too deep, with leaves that begin one after the other.
///
/// # Errors
/// [`WireError::Range`] for the first that does not fit; effect none.
pub fn check(vertices: impl Iterator<Item = TreeVertex>) -> Result<(), WireError> {
    // Per level, how many vertices are still to come.
    let mut missing = [0u16; TREE_DEPTH_MAX];
    let mut depth = 0usize;
    let mut last: Option<OrderKey> = None;
    for vertex in vertices {
        if vertex.inc == Inc::ZERO {
            return Err(wrong("vertex incarnation", 0));
        }
        if let Some(level) = depth.checked_sub(1) {
            missing[level] -= 1;
        }
        if vertex.children > 0 {
            if depth == TREE_DEPTH_MAX - 1 {
                return Err(wrong("tree depth", TREE_DEPTH_MAX as u64 + 1));
            }
            if vertex.begins != (0, ShardId::ZERO) {
                return Err(wrong("aggregator begins", u64::from(vertex.begins.0)));
            }
            missing[depth] = vertex.children;
            depth += 1;
            continue;
        }
        let follows = match last {
            None => vertex.begins == (0, ShardId::ZERO),
            Some(last) => vertex.begins > last,
        };
        if !follows {
            return Err(wrong("leaf begins", u64::from(vertex.begins.0)));
        }
        last = Some(vertex.begins);
        while depth > 0 && missing[depth - 1] == 0 {
            depth -= 1;
        }
    }
    match depth {
        0 => Ok(()),
        _ => Err(wrong("tree children", u64::from(missing[depth - 1]))),
    }
}

/// Encodes vertices for [`Change::Tree`](crate::entry::Change::Tree).
///
/// # Errors
/// [`WireError::Full`] when `out` is too short; [`WireError::Range`] for vertices that form no trees.
pub fn encode_vertices<'a>(
    out: &'a mut [u8],
    vertices: impl ExactSizeIterator<Item = TreeVertex>,
) -> Result<VertexList<'a>, WireError> {
    let (need, room) = (vertices.len() * TreeVertex::LEN, out.len());
    if vertices.len() > TREE_VERTICES_MAX {
        return Err(wrong("tree vertices", vertices.len() as u64));
    }
    let out = out.get_mut(..need).ok_or(WireError::Full { need, room })?;
    for (bytes, vertex) in out.chunks_exact_mut(TreeVertex::LEN).zip(vertices) {
        vertex.put(bytes);
    }
    VertexList::new_checked(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn vertex(inc: u64, children: u16, begins: u32) -> TreeVertex {
        TreeVertex {
            node: NodeId::new(1),
            inc: Inc::new(inc),
            children,
            begins: (begins, ShardId::ZERO),
        }
    }

    fn encoded(vertices: &[TreeVertex]) -> Result<usize, WireError> {
        let mut out = [0; 40 * TreeVertex::LEN];
        let list = encode_vertices(&mut out, vertices.iter().copied())?;
        assert!(list.iter().eq(vertices.iter().copied()));
        Ok(list.len())
    }

    #[test]
    fn trees_come_back() {
        assert_eq!(encoded(&[]), Ok(0));
        assert_eq!(encoded(&[vertex(1, 0, 0)]), Ok(1));
        let forest = [
            vertex(1, 2, 0),
            vertex(2, 0, 0),
            vertex(3, 1, 0),
            vertex(4, 0, 7),
            vertex(5, 0, 9),
        ];
        assert_eq!(encoded(&forest), Ok(5));
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        let refused = |vertices: &[TreeVertex]| match encoded(vertices) {
            Err(WireError::Range { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&[vertex(0, 0, 0)]), "vertex incarnation");
        assert_eq!(refused(&[vertex(1, 1, 0)]), "tree children");
        assert_eq!(refused(&[vertex(1, 0, 3)]), "leaf begins");
        assert_eq!(refused(&[vertex(1, 0, 0), vertex(2, 0, 0)]), "leaf begins");
        assert_eq!(
            refused(&[vertex(1, 1, 4), vertex(2, 0, 0)]),
            "aggregator begins"
        );
        let chain: Vec<_> = (1..=TREE_DEPTH_MAX as u64)
            .map(|inc| vertex(inc, 1, 0))
            .collect();
        let mut deepest = chain[1..].to_vec();
        deepest.push(vertex(99, 0, 0));
        assert_eq!(encoded(&deepest), Ok(TREE_DEPTH_MAX));
        let mut deeper = chain;
        deeper.push(vertex(99, 0, 0));
        assert_eq!(refused(&deeper), "tree depth");
        let bytes = [0; TreeVertex::LEN + 1];
        let cut = VertexList::new_checked(&bytes);
        assert!(matches!(cut, Err(WireError::Truncated { .. })));
    }
}
