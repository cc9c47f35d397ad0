//! Where replicas go: spread over failure domains, then over nodes. The same question has the same answer everywhere.

use std::collections::BTreeMap;

use ionian_types::NodeId;

/// Why there is no place. Effect: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// Fewer nodes than copies: two copies on one node would be lost together.
    #[error("{copies} copies need as many nodes, and {nodes} can take one")]
    Nodes {
        /// The copies wanted.
        copies: usize,
        /// The nodes there are.
        nodes: usize,
    },
    /// Fewer failure domains than are needed.
    #[error("the copies have to lie in {needed} failure domains, and the nodes span {domains}")]
    Domains {
        /// The domains needed.
        needed: usize,
        /// The domains there are.
        domains: usize,
    },
}

/// A node that may take copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Its failure domain.
    pub domain: u32,
    /// The copies that it has already.
    pub load: usize,
}

/// Places `shards` times `copies` copies: those of one shard on different nodes, in as many failure domains as there are, at
/// least `domains_min`; among equals on the node with the fewest copies, then with the lowest id.
///
/// # Errors
/// [`PlacementError`].
pub fn place(
    shards: usize,
    copies: usize,
    nodes: &BTreeMap<NodeId, Candidate>,
    domains_min: usize,
) -> Result<Vec<Vec<NodeId>>, PlacementError> {
    if nodes.len() < copies {
        let nodes = nodes.len();
        return Err(PlacementError::Nodes { copies, nodes });
    }
    let mut in_domain: BTreeMap<u32, usize> = BTreeMap::new();
    for node in nodes.values() {
        *in_domain.entry(node.domain).or_default() += node.load;
    }
    if in_domain.len().min(copies) < domains_min {
        return Err(PlacementError::Domains {
            needed: domains_min,
            domains: in_domain.len().min(copies),
        });
    }
    let mut load: BTreeMap<NodeId, usize> =
        nodes.iter().map(|(&id, node)| (id, node.load)).collect();
    let mut placed = Vec::with_capacity(shards);
    for _ in 0..shards {
        let mut shard: Vec<NodeId> = Vec::with_capacity(copies);
        let mut used: BTreeMap<u32, usize> = BTreeMap::new();
        for _ in 0..copies {
            let free = nodes.iter().filter(|(id, _)| !shard.contains(id));
            let best = free.min_by_key(|(id, node)| {
                let here = used.get(&node.domain).copied().unwrap_or(0);
                let loaded = load.get(id).copied().unwrap_or(0);
                let of_domain = in_domain.get(&node.domain).copied().unwrap_or(0);
                (here, loaded, of_domain, **id)
            });
            let (&id, node) = best.expect("there are at least as many nodes as copies");
            shard.push(id);
            *used.entry(node.domain).or_default() += 1;
            *load.entry(id).or_default() += 1;
            *in_domain.entry(node.domain).or_default() += 1;
        }
        placed.push(shard);
    }
    Ok(placed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nodes(domains: &[u32]) -> BTreeMap<NodeId, Candidate> {
        let node = |(at, &domain): (usize, &u32)| {
            let candidate = Candidate { domain, load: 0 };
            (NodeId::new(at as u32 + 1), candidate)
        };
        domains.iter().enumerate().map(node).collect()
    }

    #[test]
    fn what_cannot_be_placed_is_refused_with_the_reason() {
        let two = nodes(&[1, 1]);
        let refused = place(1, 3, &two, 1).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "3 copies need as many nodes, and 2 can take one"
        );
        let refused = place(1, 2, &two, 2).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the copies have to lie in 2 failure domains, and the nodes span 1"
        );
    }

    proptest! {
        #[test]
        fn copies_are_spread(domains in prop::collection::vec(0..4u32, 1..12), shards in 1..12usize, copies in 1..5usize) {
            let nodes = nodes(&domains);
            let spans = domains.iter().collect::<std::collections::BTreeSet<_>>().len();
            let Ok(placed) = place(shards, copies, &nodes, 1) else {
                prop_assert!(nodes.len() < copies);
                return Ok(());
            };
            prop_assert_eq!(&placed, &place(shards, copies, &nodes, 1).unwrap());
            for shard in &placed {
                let mut ids = shard.clone();
                ids.sort();
                ids.dedup();
                prop_assert_eq!(ids.len(), copies, "a node twice");
                let used = shard.iter().map(|id| nodes[id].domain);
                let used = used.collect::<std::collections::BTreeSet<_>>().len();
                prop_assert_eq!(used, spans.min(copies));
            }
            // Where every node is a domain of its own, no node has more than its share.
            if spans == domains.len() {
                let load = |id: &NodeId| placed.iter().flatten().filter(|other| *other == id).count();
                let loads: Vec<usize> = nodes.keys().map(load).collect();
                prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1);
            }
        }
    }
}
