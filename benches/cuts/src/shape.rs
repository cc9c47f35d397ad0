//! The tree that a setting asks for: every inner vertex has as many below it, and the shards are spread evenly over the leaves.

use std::ops::Range;

use ionian_types::{Inc, NodeId, ShardId};
use ionian_wire::tree::TreeVertex;

/// Nodes and incarnations of vertices begin here.
const FIRST: u32 = 1_000;

/// An aggregator or a leaf.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The one above, among the places; none for those right below the root.
    pub(crate) parent: Option<usize>,
    /// Vertices right below; 0 for a leaf.
    pub(crate) children: usize,
    /// Levels above, the root's not counted.
    pub(crate) level: usize,
    /// The shards below.
    pub(crate) shards: Range<usize>,
}

/// All vertices in depth-first order, parents first.
pub(crate) fn places(fan_in: usize, depth: usize, shards: usize) -> Vec<Place> {
    let mut places = Vec::new();
    spread(&mut places, None, 0, (fan_in, depth), 0..shards);
    places
}

fn spread(
    places: &mut Vec<Place>,
    parent: Option<usize>,
    level: usize,
    (fan_in, depth): (usize, usize),
    shards: Range<usize>,
) {
    for child in 0..fan_in {
        let at = |child: usize| shards.start + shards.len() * child / fan_in;
        let below = at(child)..at(child + 1);
        let children = if level + 1 == depth { 0 } else { fan_in };
        let place = Place {
            parent,
            children,
            level,
            shards: below.clone(),
        };
        places.push(place);
        if children > 0 {
            let here = places.len() - 1;
            spread(places, Some(here), level + 1, (fan_in, depth), below);
        }
    }
}

/// The process that is a place.
pub(crate) const fn process(place: usize) -> (NodeId, Inc) {
    (
        NodeId::new(FIRST + place as u32),
        Inc::new(FIRST as u64 + place as u64),
    )
}

/// The vertices as a view states them. The rank of a shard is its number.
pub(crate) fn vertices(places: &[Place]) -> impl ExactSizeIterator<Item = TreeVertex> + '_ {
    places.iter().enumerate().map(|(at, place)| {
        let (node, inc) = process(at);
        let first = if place.children == 0 {
            place.shards.start
        } else {
            0
        };
        TreeVertex {
            node,
            inc,
            children: place.children as u16,
            begins: (first as u32, ShardId::ZERO),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ionian_wire::tree::encode_vertices;

    #[test]
    fn every_shard_has_one_leaf_and_every_tree_is_one_on_the_wire() {
        for (fan_in, depth, shards) in [(1, 1, 1), (1, 8, 3), (3, 1, 10), (2, 3, 100), (5, 2, 26)] {
            let places = places(fan_in, depth, shards);
            let leaves: Vec<_> = places.iter().filter(|it| it.children == 0).collect();
            assert_eq!(leaves.len(), fan_in.pow(depth as u32));
            let mut next = 0;
            for leaf in leaves {
                assert_eq!((leaf.shards.start, leaf.level), (next, depth - 1));
                assert!(!leaf.shards.is_empty());
                next = leaf.shards.end;
            }
            assert_eq!(next, shards);
            let mut bytes = vec![0; places.len() * 64];
            let list = encode_vertices(&mut bytes, vertices(&places)).expect("a tree");
            assert_eq!(list.len(), places.len());
        }
    }
}
