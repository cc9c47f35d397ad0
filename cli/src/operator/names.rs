//! Names of nodes: controllers know numbers, the configuration knows what people call them.

use std::collections::BTreeMap;
use std::str::FromStr;

use ionian_node::config::ClusterConfig;
use ionian_types::{NodeId, ShardId, Slot};

use crate::controllers::ControllersArgs;
use crate::exit::UsageError;

/// The names that a configuration gives to nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(BTreeMap<NodeId, String>);

impl Names {
    /// The names in the configuration, where there is one. Without it nodes have numbers.
    pub(crate) fn load(args: &ControllersArgs) -> Self {
        let config = ClusterConfig::load(&args.config);
        let nodes = config.map_or_else(|_| Vec::new(), |config| config.nodes);
        Self(
            nodes
                .into_iter()
                .map(|node| (node.node, node.name))
                .collect(),
        )
    }

    #[cfg(test)]
    pub(crate) fn of(names: &[(u32, &str)]) -> Self {
        let name = |&(id, name): &(u32, &str)| (NodeId::new(id), name.to_owned());
        Self(names.iter().map(name).collect())
    }

    /// What the node is called: its name, or its number.
    pub(crate) fn show(&self, node: NodeId) -> String {
        self.name(node)
            .map_or_else(|| node.to_string(), str::to_owned)
    }

    pub(crate) fn name(&self, node: NodeId) -> Option<&str> {
        self.0.get(&node).map(String::as_str)
    }

    /// The node that the command line names.
    ///
    /// # Errors
    /// [`UsageError`]; effect none.
    pub(crate) fn find(&self, text: &str) -> Result<NodeId, UsageError> {
        let named = self.0.iter().find(|(_, name)| *name == text);
        if let Some((&node, _)) = named {
            return Ok(node);
        }
        if let Ok(number) = text.parse() {
            return Ok(NodeId::new(number));
        }
        let known: Vec<&str> = self.0.values().map(String::as_str).collect();
        Err(UsageError(if known.is_empty() {
            format!(
                "{text:?} is no number of a node; for names give the configuration with --config"
            )
        } else {
            format!(
                "no node {text:?}: give a number or one of {}",
                known.join(", ")
            )
        }))
    }

    /// The nodes that the command line names.
    pub(crate) fn find_all(&self, nodes: &[String]) -> Result<Vec<NodeId>, UsageError> {
        nodes.iter().map(|node| self.find(node)).collect()
    }
}

/// A replica as the command line names it: `SHARD.SLOT`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ReplicaName {
    pub(crate) shard: ShardId,
    pub(crate) slot: Slot,
}

impl FromStr for ReplicaName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('.');
        let parsed = parts.and_then(|(shard, slot)| {
            Some(Self {
                shard: ShardId::new(shard.parse().ok()?),
                slot: Slot::new(slot.parse().ok()?),
            })
        });
        parsed.ok_or_else(|| String::from("give shard and slot as in 0.1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_names_and_numbers() {
        let names = Names::of(&[(1, "n1"), (2, "7")]);
        assert_eq!(names.find("n1").unwrap(), NodeId::new(1));
        assert_eq!(names.find("7").unwrap(), NodeId::new(2), "a name first");
        assert_eq!(names.find("9").unwrap(), NodeId::new(9));
        let error = names.find("n3").unwrap_err().to_string();
        assert_eq!(error, "no node \"n3\": give a number or one of n1, 7");
        let error = Names::default().find("n3").unwrap_err().to_string();
        assert!(error.ends_with("with --config"), "{error}");
        assert_eq!(names.show(NodeId::new(1)), "n1");
        assert_eq!(names.show(NodeId::new(5)), "5");
    }

    #[test]
    fn replicas_are_named_by_shard_and_slot() {
        let (shard, slot) = (ShardId::new(3), Slot::new(1));
        assert_eq!("3.1".parse(), Ok(ReplicaName { shard, slot }));
        for wrong in ["3", "3.", ".1", "3.1.2", "3.256", "a.b"] {
            assert!(wrong.parse::<ReplicaName>().is_err(), "{wrong}");
        }
    }
}
