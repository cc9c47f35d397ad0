//! Which nodes host what a log needs: its leaf, and the members of its root group.

use std::collections::BTreeMap;
use std::ops::Range;

use ionian_control_core::{Candidate, TreeSpec};
use ionian_runtime::nearest;
use ionian_types::{NodeId, ROOT_MEMBERS_MAX};

use super::check::Nodes;
use super::error::Sink;
use super::reader::{Found, Table, Value};
use super::{NodeConfig, Roles};

/// The nodes of the root group in slot order: those that are named, or the first one that may.
pub(super) fn roots(table: &Table<'_>, nodes: &Nodes, sink: &mut Sink<'_>) -> Option<Vec<NodeId>> {
    let Some(found) = table.get("root", sink) else {
        let node = first_with(table, "root", |roles| roles.root, nodes, sink)?;
        return Some(vec![node]);
    };
    let Value::Texts(names) = found.value else {
        return None;
    };
    if names.is_empty() {
        let what = "root is empty: name a node, or leave the key out";
        sink.at(&found.span, String::from(what));
    }
    if names.len() > ROOT_MEMBERS_MAX {
        let count = names.len();
        sink.at(
            &found.span,
            format!("root names {count} nodes: a root group has at most {ROOT_MEMBERS_MAX}"),
        );
    }
    let mut members = Vec::new();
    for name in &names {
        let Some(node) = named(name, nodes, sink) else {
            continue;
        };
        may_host(node, "root", |roles| roles.root, &name.span, sink);
        if members.contains(&node.node) {
            sink.at(
                &name.span,
                format!(
                    "root names node {} twice: two members on one node fail together",
                    node.name
                ),
            );
        }
        members.push(node.node);
    }
    (members.len() == names.len()).then_some(members)
}

/// The nodes of the ordering tree, with its form: `leaf`, `fan_in` and `depth`. A tree of several vertices whose nodes are not
/// named is spread over those with the role, each vertex where the fewest places are; `taken` are those that others have, one by
/// one.
pub(super) fn tree(
    table: &Table<'_>,
    shards: &Found<u64>,
    nodes: &Nodes,
    taken: impl Iterator<Item = NodeId>,
    sink: &mut Sink<'_>,
) -> Option<TreeSpec> {
    let fan_in = table.number("fan_in", sink);
    let depth = table.number("depth", sink);
    let mut named_at = None;
    let hosts = match table.get("leaf", sink) {
        None => vec![first_with(table, "leaf", |roles| roles.leaf, nodes, sink)?],
        Some(Found {
            value: Value::Texts(names),
            span,
        }) => {
            if names.is_empty() {
                let what = "leaf is empty: name a node, or leave the key out";
                sink.at(&span, String::from(what));
                return None;
            }
            named_at = Some(span);
            let mut hosts = Vec::new();
            for name in &names {
                let node = named(name, nodes, sink)?;
                may_host(node, "leaf", |roles| roles.leaf, &name.span, sink);
                hosts.push(node.node);
            }
            hosts
        }
        Some(_) => return None,
    };
    let Some(fan_in) = fan_in else {
        if let Some(depth) = depth {
            let what = "depth has no meaning without fan_in: say how many a vertex brings together";
            sink.at(&depth.span, String::from(what));
            return None;
        }
        if let Some(span) = named_at.filter(|_| hosts.len() > 1) {
            let count = hosts.len();
            let what = format!(
                "leaf names {count} nodes, and one leaf has one: say with fan_in how many shards a leaf has"
            );
            sink.at(&span, what);
            return None;
        }
        return Some(TreeSpec::leaf(hosts[0]));
    };
    let wide = u16::try_from(fan_in.value).unwrap_or(u16::MAX);
    let depth = depth.map(|depth| u8::try_from(depth.value).unwrap_or(u8::MAX));
    let shards = shards.value as usize;
    let spread = match named_at {
        Some(_) => TreeSpec::spread(shards, wide, depth, &hosts),
        None => TreeSpec::placed(shards, wide, depth, &candidates(nodes, taken)),
    };
    match spread {
        Ok(tree) => Some(tree),
        Err(error) => {
            sink.at(&fan_in.span, error.to_string());
            None
        }
    }
}

/// The nodes that may have vertices, with the places that they have.
fn candidates(nodes: &Nodes, taken: impl Iterator<Item = NodeId>) -> BTreeMap<NodeId, Candidate> {
    let may = nodes.list.iter().map(|node| &node.config);
    let may = may.filter(|node| node.roles.leaf).map(|node| {
        let (domain, load) = (node.domain, 0);
        (node.node, Candidate { domain, load })
    });
    let mut candidates: BTreeMap<NodeId, Candidate> = may.collect();
    for node in taken {
        if let Some(candidate) = candidates.get_mut(&node) {
            candidate.load += 1;
        }
    }
    candidates
}

/// Whether a node has the role that it is named for; an error if not.
pub(super) fn may_host(
    node: &NodeConfig,
    role: &str,
    may: impl Fn(&Roles) -> bool,
    at: &Range<usize>,
    sink: &mut Sink<'_>,
) {
    if !may(&node.roles) {
        let name = &node.name;
        let what = format!("node {name} does not have the role {role}: add it to its roles");
        sink.at(at, what);
    }
}

/// The first node that has a role.
fn first_with(
    table: &Table<'_>,
    role: &str,
    may: impl Fn(&Roles) -> bool,
    nodes: &Nodes,
    sink: &mut Sink<'_>,
) -> Option<NodeId> {
    let first = nodes.list.iter().find(|node| may(&node.config.roles));
    if first.is_none() && nodes.whole {
        sink.at(
            &table.span,
            format!("no node has the role {role}: add it to the roles of one"),
        );
    }
    first.map(|node| node.config.node)
}

pub(super) fn named<'a>(
    found: &Found<String>,
    nodes: &'a Nodes,
    sink: &mut Sink<'_>,
) -> Option<&'a NodeConfig> {
    let node = nodes
        .list
        .iter()
        .find(|node| node.config.name == found.value);
    if node.is_none() && nodes.whole {
        let names = nodes.list.iter().map(|node| node.config.name.as_str());
        let hint = match nearest(&found.value, names) {
            Some(hint) => format!("; did you mean {hint}?"),
            None => String::new(),
        };
        sink.at(
            &found.span,
            format!("there is no node {:?}{hint}", found.value),
        );
    }
    node.map(|node| &node.config)
}
