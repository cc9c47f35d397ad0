//! Ordering trees on the command line: what form a new log's tree has, and on which level each vertex of one is.

use ionian_control_core::{FAN_IN_MAX, TreeSpec};
use ionian_types::NodeId;
use ionian_wire::directory::parents_in;

use crate::exit::UsageError;
use crate::table::count;

/// Options of commands that make logs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::Args)]
pub(crate) struct TreeArgs {
    /// The most shards below a leaf of the ordering tree, and the most vertices below an aggregator or the root; without it
    /// one leaf has all shards
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=i64::from(FAN_IN_MAX)))]
    pub(crate) fan_in: Option<u16>,
    /// The levels of the ordering tree below the root, leaves included; without it as few as the fan-in takes
    #[arg(long, value_name = "LEVELS", requires = "fan_in", value_parser = clap::value_parser!(u8).range(1..=8))]
    pub(crate) depth: Option<u8>,
}

impl TreeArgs {
    /// The tree of a log with so many shards, its vertices on these nodes by turns.
    ///
    /// # Errors
    /// [`UsageError`] where there is no such tree; effect none.
    pub(crate) fn spec(self, shards: usize, nodes: &[NodeId]) -> Result<TreeSpec, UsageError> {
        let first = nodes.first().copied().unwrap_or(NodeId::ZERO);
        let Some(fan_in) = self.fan_in else {
            return Ok(TreeSpec::leaf(first));
        };
        let spec = TreeSpec::spread(shards, fan_in, self.depth, nodes);
        spec.map_err(|error| UsageError(format!("the ordering tree: {error}")))
    }

    /// As on a command line, with a blank before each option.
    pub(crate) fn line(self) -> String {
        let fan_in = self.fan_in.map(|fan_in| format!(" --fan-in {fan_in}"));
        let depth = self.depth.map(|depth| format!(" --depth {depth}"));
        fan_in.unwrap_or_default() + &depth.unwrap_or_default()
    }
}

/// The level of each vertex of a tree in depth-first order, of which `children` says how many are right below each: 1 right
/// below the root.
pub(crate) fn levels(children: impl Iterator<Item = u16>) -> Vec<usize> {
    let mut levels: Vec<usize> = Vec::new();
    for parent in parents_in(children) {
        levels.push(parent.map_or(1, |parent| levels[parent] + 1));
    }
    levels
}

/// A tree in a few words: `1 leaf`, `2 levels, 1 aggregator, 4 leaves`.
pub(crate) fn in_words(children: impl Iterator<Item = u16> + Clone) -> String {
    let leaves = children.clone().filter(|children| *children == 0).count() as u64;
    let depth = levels(children.clone()).into_iter().max().unwrap_or(0) as u64;
    let aggregators = children.count() as u64 - leaves;
    let leaves = count(leaves, "leaf", "leaves");
    if aggregators == 0 {
        return leaves;
    }
    let levels = count(depth, "level", "levels");
    let aggregators = count(aggregators, "aggregator", "aggregators");
    format!("{levels}, {aggregators}, {leaves}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_asked_for_by_fan_in_and_depth() {
        let nodes = [1, 2].map(NodeId::new);
        let args = |fan_in, depth| TreeArgs { fan_in, depth };
        let one = args(None, None).spec(9, &nodes).unwrap();
        assert_eq!(one, TreeSpec::leaf(nodes[0]));
        let deep = args(Some(2), Some(2)).spec(4, &nodes).unwrap();
        let children: Vec<u16> = deep.shape.iter().map(|vertex| vertex.children).collect();
        assert_eq!(children, [2, 0, 0]);
        assert_eq!(deep.nodes, [nodes[0], nodes[1], nodes[0]]);
        let error = args(Some(2), Some(1)).spec(9, &nodes).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the ordering tree: 9 shards with a fan-in of 2 need 3 levels, not 1"
        );
        assert_eq!(args(Some(2), Some(1)).line(), " --fan-in 2 --depth 1");
        assert_eq!(args(None, None).line(), "");
    }

    #[test]
    fn levels_are_counted_from_the_root() {
        let tree = [2, 0, 1, 0, 0, 3, 0, 0, 0];
        assert_eq!(levels(tree.into_iter()), [1, 2, 2, 3, 1, 1, 2, 2, 2]);
        assert_eq!(
            in_words(tree.into_iter()),
            "3 levels, 3 aggregators, 6 leaves"
        );
        assert_eq!(in_words([0].into_iter()), "1 leaf");
        assert_eq!(
            in_words([1, 0].into_iter()),
            "2 levels, 1 aggregator, 1 leaf"
        );
    }
}
