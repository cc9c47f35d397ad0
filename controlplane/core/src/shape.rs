//! What an ordering tree looks like: how many vertices over how many shards, without who fills them.

use std::collections::BTreeMap;

use ionian_types::{Inc, NodeId, ShardId};
use ionian_wire::tree::{OrderKey, TREE_DEPTH_MAX, TREE_VERTICES_MAX, TreeVertex, check};

use crate::placement::{Candidate, place};

/// A vertex in a tree's depth-first order, parents first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VertexShape {
    /// The number of vertices right below; 0 for a leaf.
    pub children: u16,
    /// Of a leaf: where its shards begin in the order of the tree. The first leaf begins at (0, 0). Of an aggregator: (0, 0).
    pub begins: OrderKey,
}

/// A tree of a new log: per vertex its shape and the node that fills it, in depth-first order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TreeSpec {
    /// Their shapes.
    pub shape: Vec<VertexShape>,
    /// Their nodes, as many.
    pub nodes: Vec<NodeId>,
}

/// Why there is no such tree. Effect: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// A vertex has to bring at least two together, or there is no end.
    #[error("a fan-in of {fan_in} is not within 2 to {max}")]
    FanIn {
        /// What was asked for.
        fan_in: u16,
        /// The most.
        max: u16,
    },
    /// More levels than a tree may have.
    #[error(
        "{} with a fan-in of {fan_in} {} {}, more than {max}; raise the fan-in",
        counted(*shards, "shard", "shards"),
        if *shards == 1 { "takes" } else { "take" },
        counted(*depth, "level", "levels")
    )]
    Depth {
        /// The shards.
        shards: usize,
        /// The fan-in.
        fan_in: u16,
        /// The levels that it takes, or that were asked for.
        depth: usize,
        /// The most.
        max: usize,
    },
    /// Fewer levels than the fan-in needs.
    #[error(
        "{} with a fan-in of {fan_in} {} {}, not {depth}",
        counted(*shards, "shard", "shards"),
        if *shards == 1 { "needs" } else { "need" },
        counted(*needs, "level", "levels")
    )]
    TooFlat {
        /// The shards.
        shards: usize,
        /// The fan-in.
        fan_in: u16,
        /// The levels asked for.
        depth: usize,
        /// The least.
        needs: usize,
    },
    /// More vertices than a tree may have.
    #[error(
        "it takes {}, more than {max}; raise the fan-in",
        counted(*vertices, "vertex", "vertices")
    )]
    Vertices {
        /// The vertices.
        vertices: usize,
        /// The most.
        max: usize,
    },
    /// Nodes and vertices differ in number, or there are none.
    #[error(
        "a tree of {} needs a node for each, not {nodes}",
        counted(*vertices, "vertex", "vertices")
    )]
    Nodes {
        /// The vertices.
        vertices: usize,
        /// The nodes.
        nodes: usize,
    },
    /// The vertices are no tree, or its leaves do not begin one after the other.
    #[error(
        "the vertices form no tree: each has as many below it as it says, and leaves begin one after the other"
    )]
    Form,
}

/// So many of a thing, in sentences: `1 level`, `2 levels`.
pub(crate) fn counted(value: usize, one: &str, many: &str) -> String {
    format!("{value} {}", if value == 1 { one } else { many })
}

/// The most vertices or shards right below one vertex.
pub const FAN_IN_MAX: u16 = 1024;

impl TreeSpec {
    /// One leaf for all shards.
    #[must_use]
    pub fn leaf(node: NodeId) -> Self {
        Self {
            shape: vec![VertexShape {
                children: 0,
                begins: (0, ShardId::ZERO),
            }],
            nodes: vec![node],
        }
    }

    /// The tree of a new log of so many shards, as [`balanced`], on these nodes by turns.
    ///
    /// # Errors
    /// As [`balanced`]; [`ShapeError::Nodes`] without nodes.
    pub fn spread(
        shards: usize,
        fan_in: u16,
        depth: Option<u8>,
        nodes: &[NodeId],
    ) -> Result<Self, ShapeError> {
        let shape = Self::of_new_log(shards, fan_in, depth)?;
        if nodes.is_empty() {
            let vertices = shape.len();
            return Err(ShapeError::Nodes { vertices, nodes: 0 });
        }
        let nodes = nodes.iter().copied().cycle().take(shape.len()).collect();
        Ok(Self { shape, nodes })
    }

    /// As [`Self::spread`], each vertex on the node that then has the fewest places, as [`place`] has it.
    ///
    /// # Errors
    /// As [`Self::spread`].
    pub fn placed(
        shards: usize,
        fan_in: u16,
        depth: Option<u8>,
        nodes: &BTreeMap<NodeId, Candidate>,
    ) -> Result<Self, ShapeError> {
        let shape = Self::of_new_log(shards, fan_in, depth)?;
        let vertices = shape.len();
        let placed = place(vertices, 1, nodes, 1);
        let placed = placed.map_err(|_| ShapeError::Nodes { vertices, nodes: 0 })?;
        let nodes = placed.into_iter().flatten().collect();
        Ok(Self { shape, nodes })
    }

    fn of_new_log(
        shards: usize,
        fan_in: u16,
        depth: Option<u8>,
    ) -> Result<Vec<VertexShape>, ShapeError> {
        let keys = (0..shards as u32).map(|id| (id, ShardId::new(id)));
        balanced(&keys.collect::<Vec<OrderKey>>(), fan_in, depth)
    }

    /// Whether it is a tree, each vertex with a node.
    pub(crate) fn check(&self) -> Result<(), ShapeError> {
        let (vertices, nodes) = (self.shape.len(), self.nodes.len());
        if vertices > TREE_VERTICES_MAX {
            let max = TREE_VERTICES_MAX;
            return Err(ShapeError::Vertices { vertices, max });
        }
        if vertices != nodes || vertices == 0 {
            return Err(ShapeError::Nodes { vertices, nodes });
        }
        is_tree(&self.shape).then_some(()).ok_or(ShapeError::Form)
    }
}

/// Whether vertices form trees in depth-first order, none too deep, with leaves that begin one after the other.
pub(crate) fn is_tree(shape: &[VertexShape]) -> bool {
    let vertices = shape.iter().map(|vertex| TreeVertex {
        node: NodeId::ZERO,
        inc: Inc::new(1),
        children: vertex.children,
        begins: vertex.begins,
    });
    !shape.is_empty() && check(vertices).is_ok()
}

/// A tree in which no vertex has more than `fan_in` vertices or shards right below, the root included, and each level is spread
/// evenly. `shards` are in the order of the tree; `depth` is the number of levels below the root, leaves included, the least that
/// does unless one is given. Without shards it is one leaf per level.
///
/// # Errors
/// [`ShapeError`].
pub fn balanced(
    shards: &[OrderKey],
    fan_in: u16,
    depth: Option<u8>,
) -> Result<Vec<VertexShape>, ShapeError> {
    if !(2..=FAN_IN_MAX).contains(&fan_in) {
        let max = FAN_IN_MAX;
        return Err(ShapeError::FanIn { fan_in, max });
    }
    let wide = usize::from(fan_in);
    // How many vertices each level has, leaves first.
    let mut levels = vec![shards.len().div_ceil(wide).max(1)];
    let mut top = levels[0];
    while top > wide {
        top = top.div_ceil(wide);
        levels.push(top);
    }
    let (needs, count) = (levels.len(), shards.len());
    let depth = depth.map_or(needs, usize::from);
    if depth > TREE_DEPTH_MAX {
        return Err(ShapeError::Depth {
            shards: count,
            fan_in,
            depth,
            max: TREE_DEPTH_MAX,
        });
    }
    if depth < needs {
        return Err(ShapeError::TooFlat {
            shards: count,
            fan_in,
            depth,
            needs,
        });
    }
    while levels.len() < depth {
        top = top.div_ceil(wide);
        levels.push(top);
    }
    let vertices = levels.iter().sum();
    if vertices > TREE_VERTICES_MAX {
        let max = TREE_VERTICES_MAX;
        return Err(ShapeError::Vertices { vertices, max });
    }
    let mut shape = Vec::with_capacity(vertices);
    let top = levels.len() - 1;
    for at in 0..levels[top] {
        grow(&mut shape, &levels, shards, top, at);
    }
    Ok(shape)
}

/// Adds the vertex `at` of a level with everything below it.
fn grow(
    shape: &mut Vec<VertexShape>,
    levels: &[usize],
    shards: &[OrderKey],
    level: usize,
    at: usize,
) {
    // Where the share of one of `parts` begins among `count`.
    let begins = |at: usize, parts: usize, count: usize| at * count / parts;
    let Some(below) = level.checked_sub(1) else {
        let first = begins(at, levels[0], shards.len());
        let begins = match shards.get(first) {
            Some(key) if at > 0 => *key,
            _ => (0, ShardId::ZERO),
        };
        shape.push(VertexShape {
            children: 0,
            begins,
        });
        return;
    };
    let (parts, count) = (levels[level], levels[below]);
    let children = begins(at, parts, count)..begins(at + 1, parts, count);
    shape.push(VertexShape {
        children: children.len() as u16,
        begins: (0, ShardId::ZERO),
    });
    for child in children {
        grow(shape, levels, shards, below, child);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(count: u32) -> Vec<OrderKey> {
        (0..count).map(|id| (id, ShardId::new(id))).collect()
    }

    #[test]
    fn one_leaf_where_nothing_more_is_needed() {
        let shape = balanced(&keys(3), 4, None).unwrap();
        assert_eq!(shape, TreeSpec::leaf(NodeId::ZERO).shape);
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        let refused = |shards, fan_in, depth| {
            let error = balanced(&keys(shards), fan_in, depth).unwrap_err();
            error.to_string()
        };
        assert_eq!(refused(3, 1, None), "a fan-in of 1 is not within 2 to 1024");
        assert_eq!(
            refused(100, 4, Some(1)),
            "100 shards with a fan-in of 4 need 3 levels, not 1"
        );
        assert_eq!(
            refused(1000, 2, None),
            "1000 shards with a fan-in of 2 take 9 levels, more than 8; raise the fan-in"
        );
        assert!(refused(16_000, 2, Some(8)).contains("levels"));
        assert_eq!(
            refused(1, 2, Some(9)),
            "1 shard with a fan-in of 2 takes 9 levels, more than 8; raise the fan-in"
        );
        assert_eq!(
            refused(1, 2, Some(0)),
            "1 shard with a fan-in of 2 needs 1 level, not 0"
        );
        let nobody = TreeSpec::spread(1, 2, None, &[]).unwrap_err();
        assert_eq!(
            nobody.to_string(),
            "a tree of 1 vertex needs a node for each, not 0"
        );
    }

    #[test]
    fn vertices_go_where_the_fewest_places_are() {
        let loads = [(1, 3), (2, 0), (4, 1)];
        let nodes = loads.map(|(id, load)| (NodeId::new(id), Candidate { domain: id, load }));
        let spec = TreeSpec::placed(8, 2, Some(2), &nodes.into()).unwrap();
        assert_eq!(spec.shape.len(), 6);
        let placed: Vec<u32> = spec.nodes.iter().map(|node| node.get()).collect();
        assert_eq!(placed, [2, 2, 4, 2, 4, 1]);
        let nobody = TreeSpec::placed(8, 2, Some(2), &BTreeMap::new());
        assert!(matches!(nobody, Err(ShapeError::Nodes { nodes: 0, .. })));
    }

    proptest! {
        #[test]
        fn no_vertex_has_more_below_than_asked(count in 0..500u32, fan_in in 2..20u16, depth in prop::option::of(1..9u8)) {
            let shards = keys(count);
            let Ok(shape) = balanced(&shards, fan_in, depth) else { return Ok(()) };
            prop_assert!(is_tree(&shape));
            let wide = usize::from(fan_in);
            let leaves: Vec<OrderKey> = shape.iter().filter(|it| it.children == 0).map(|it| it.begins).collect();
            for (at, begins) in leaves.iter().enumerate() {
                let end = leaves.get(at + 1);
                let own = shards.iter().filter(|key| *key >= begins && end.is_none_or(|end| *key < end)).count();
                prop_assert!(own <= wide && (own > 0 || count == 0), "{own} shards below a leaf");
            }
            prop_assert!(shape.iter().all(|it| usize::from(it.children) <= wide));
            // Levels below the root.
            let below: usize = shape.iter().map(|it| usize::from(it.children)).sum();
            prop_assert!(shape.len() - below <= wide, "below the root");
            if let Some(depth) = depth {
                let mut found = 0;
                let mut at = 0;
                while shape[at].children > 0 {
                    at += 1;
                    found += 1;
                }
                prop_assert_eq!(found + 1, usize::from(depth));
            }
        }
    }
}
