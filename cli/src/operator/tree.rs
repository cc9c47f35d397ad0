//! Ordering trees as operators see them: a line per vertex, indented by level, and what another tree would keep.

use std::fmt::Write;

use ionian_control_core::{ClusterPicture, LogPicture, PlacePicture, VertexPicture};
use ionian_types::{NodeId, VertexId};
use ionian_wire::directory::parents_in;
use serde_json::{Value, json};

use super::names::Names;
use super::{or_null, show};
use crate::table::{Table, count};
use crate::tree::{in_words, levels};

/// What a vertex is called: `leaf 3`, `aggregator 0`.
pub(crate) fn vertex_name(vertex: &VertexPicture) -> String {
    format!("{} {}", kind(vertex), vertex.vertex)
}

const fn kind(vertex: &VertexPicture) -> &'static str {
    if vertex.shape.children == 0 {
        "leaf"
    } else {
        "aggregator"
    }
}

fn children(tree: &[VertexPicture]) -> impl Iterator<Item = u16> + Clone {
    tree.iter().map(|vertex| vertex.shape.children)
}

/// What a tree is, in a few words.
pub(crate) fn form(tree: &[VertexPicture]) -> String {
    in_words(children(tree))
}

fn has(tree: &[VertexPicture], vertex: VertexId) -> bool {
    tree.iter().any(|known| known.vertex == vertex)
}

/// Whether a process is there, and where its place goes.
fn process(vertex: &VertexPicture, names: &Names) -> String {
    let process = show::presence(&vertex.place);
    match vertex.next {
        Some(node) => format!("{process}, goes to node {}", names.show(node)),
        None => process.to_owned(),
    }
}

/// The cells of each vertex that every table has: its name, indented by its level, its level and its shards.
fn rows(tree: &[VertexPicture]) -> impl Iterator<Item = (&VertexPicture, String, String, String)> {
    let rows = tree.iter().zip(levels(children(tree)));
    rows.map(|(vertex, level)| {
        let name = format!("{:indent$}{}", "", vertex_name(vertex), indent = 2 * level);
        let shards = match vertex.shape.children {
            0 => vertex.shards.to_string(),
            _ => String::new(),
        };
        (vertex, name, level.to_string(), shards)
    })
}

/// The tree of a log, and the one that is to be in its place.
pub(crate) fn tree(log: &LogPicture, names: &Names) -> String {
    let mut out = format!("log {}: {}\n", log.name, form(&log.tree));
    let head = [
        "vertex",
        "level",
        "shards",
        "node",
        "incarnation",
        "process",
    ];
    let mut table = Table::headed(&head);
    let leader = log.root.leader;
    let leader = leader.and_then(|slot| Some((slot, log.root.members.get(slot.index())?)));
    let mut row = |name: String, level: String, shards: String, place: &PlacePicture, process| {
        let (node, inc) = (names.show(place.node), show::inc(place.inc));
        table.row(&[name, level, shards, node, inc, process]);
    };
    if let Some((slot, place)) = leader {
        let (name, level) = (format!("root {slot}, leads"), String::from("0"));
        let process = show::presence(place).to_owned();
        row(name, level, String::new(), place, process);
    }
    for (vertex, name, level, shards) in rows(&log.tree) {
        row(name, level, shards, &vertex.place, process(vertex, names));
    }
    out += &table.render();
    if log.tree_next.is_empty() {
        return out;
    }
    let missing = log.tree_next.iter().filter(|vertex| !vertex.place.up);
    let missing = match missing.count() as u64 {
        0 => String::from("every process of it is there"),
        missing => format!("{} missing", count(missing, "process is", "processes are")),
    };
    let _ = writeln!(
        out,
        "\nto be in its place: {}; {missing}",
        form(&log.tree_next)
    );
    out + &compared(&log.tree, &log.tree_next, names)
}

/// A tree beside the one that it is to replace: who stays, who comes, and who goes.
fn compared(now: &[VertexPicture], then: &[VertexPicture], names: &Names) -> String {
    let mut table = Table::headed(&["vertex", "level", "shards", "node", "process", ""]);
    for (vertex, name, level, shards) in rows(then) {
        let stays = if has(now, vertex.vertex) {
            "stays"
        } else {
            "new"
        };
        let node = names.show(vertex.place.node);
        let process = process(vertex, names);
        table.row(&[name, level, shards, node, process, stays.to_owned()]);
    }
    let mut out = table.render();
    let gone = now.iter().filter(|vertex| !has(then, vertex.vertex));
    let gone: Vec<String> = gone
        .map(|vertex| {
            let node = names.show(vertex.place.node);
            format!("{} on node {node}", vertex_name(vertex))
        })
        .collect();
    if !gone.is_empty() {
        let _ = writeln!(out, "no longer needed: {}", gone.join(", "));
    }
    out
}

/// What a planned tree would keep of the present one.
pub(crate) fn kept(now: &LogPicture, then: &ClusterPicture, names: &Names) -> (String, Value) {
    let Some(then) = then.logs.iter().find(|log| log.log == now.log) else {
        return (String::new(), Value::Null);
    };
    let (now, then) = (&now.tree, &then.tree);
    let stay = then.iter().filter(|vertex| has(now, vertex.vertex)).count();
    let text = format!(
        "\n{stay} of {} would stay:\n{}",
        count(now.len() as u64, "vertex", "vertices"),
        compared(now, then, names)
    );
    let ids = |of: &[VertexPicture], but: &dyn Fn(VertexId) -> bool| -> Vec<u32> {
        let ids = of.iter().map(|vertex| vertex.vertex);
        ids.filter(|id| but(*id)).map(VertexId::get).collect()
    };
    let json = json!({
        "stay": ids(then, &|id| has(now, id)), "come": ids(then, &|id| !has(now, id)),
        "go": ids(now, &|id| !has(then, id)),
    });
    (text, json)
}

/// A tree for programs: its vertices in depth-first order.
pub(crate) fn json(tree: &[VertexPicture], cluster: &ClusterPicture, names: &Names) -> Value {
    let vertices = tree.iter().zip(levels(children(tree)));
    let vertices = vertices.zip(parents_in(children(tree)));
    let vertices = vertices.map(|((vertex, level), parent)| {
        let parent = parent.map(|parent| tree[parent].vertex.get());
        let mut json = show::place_json(&vertex.place, cluster, names);
        json["vertex"] = vertex.vertex.get().into();
        json["kind"] = kind(vertex).into();
        json["level"] = level.into();
        json["parent"] = or_null(parent);
        json["children"] = vertex.shape.children.into();
        json["shards"] = vertex.shards.into();
        json["next"] = or_null(vertex.next.map(NodeId::get));
        json
    });
    vertices.collect()
}

#[cfg(test)]
mod tests {
    use ionian_control_core::{TreeSpec, VertexShape};
    use ionian_types::Inc;

    use super::*;
    use crate::operator::show::tests::{cluster, names};

    fn vertex(id: u32, shape: VertexShape, node: u32, inc: u64) -> VertexPicture {
        VertexPicture {
            vertex: VertexId::new(id),
            shape,
            place: PlacePicture {
                node: NodeId::new(node),
                inc: Inc::new(inc),
                up: inc > 0,
            },
            next: None,
            shards: if shape.children == 0 { 2 } else { 0 },
        }
    }

    /// One leaf, and a tree of two levels that is to be in its place.
    fn changing() -> LogPicture {
        let mut log = cluster().logs.remove(0);
        let nodes = [1, 2].map(NodeId::new);
        let shape = TreeSpec::spread(4, 2, Some(2), &nodes).unwrap().shape;
        log.tree_next = vec![
            vertex(1, shape[0], 2, 0),
            log.tree[0].clone(),
            vertex(2, shape[2], 3, 9),
        ];
        log
    }

    #[test]
    fn a_tree_and_the_one_to_come_are_shown() {
        let text = tree(&changing(), &names());
        let expected = "\
log orders: 1 leaf
vertex         level  shards  node  incarnation  process
root 1, leads      0          n2              2  there
  leaf 0           1  3       n1              4  there, goes to node n3

to be in its place: 2 levels, 1 aggregator, 2 leaves; 1 process is missing
vertex          level  shards  node  process
  aggregator 1      1          n2    missing                 new
    leaf 0          2  3       n1    there, goes to node n3  stays
    leaf 2          2  2       n3    there                   new
";
        assert_eq!(text, expected, "{text}");
    }

    #[test]
    fn a_plan_says_who_stays_comes_and_goes() {
        let deep = changing();
        let mut cluster = cluster();
        cluster.logs[0].tree = deep.tree_next.clone();
        let (text, json) = kept(&deep, &cluster, &names());
        assert!(text.starts_with("\n1 of 1 vertex would stay:\n"), "{text}");
        assert_eq!(json, json!({"stay": [0], "come": [1, 2], "go": []}));
        let mut now = deep.clone();
        now.tree = core::mem::take(&mut now.tree_next);
        cluster.logs[0].tree = deep.tree;
        let (text, json) = kept(&now, &cluster, &names());
        assert!(
            text.starts_with("\n1 of 3 vertices would stay:\n"),
            "{text}"
        );
        assert!(
            text.ends_with("no longer needed: aggregator 1 on node n2, leaf 2 on node n3\n"),
            "{text}"
        );
        assert_eq!(json, json!({"stay": [0], "come": [], "go": [1, 2]}));
    }

    #[test]
    fn programs_are_told_levels_and_parents() {
        let cluster = cluster();
        let json = json(&changing().tree_next, &cluster, &names());
        let of = |at: usize, key: &str| json[at][key].clone();
        assert_eq!(of(0, "kind"), "aggregator");
        assert_eq!((of(0, "parent"), of(0, "level")), (Value::Null, 1.into()));
        assert_eq!((of(1, "parent"), of(1, "level")), (1.into(), 2.into()));
        assert_eq!((of(1, "next"), of(2, "next")), (3.into(), Value::Null));
        assert_eq!((of(2, "kind"), of(2, "name")), ("leaf".into(), "n3".into()));
    }
}
