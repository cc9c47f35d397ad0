//! `ionian cluster nodes`: every node with its failure domain, its places, their incarnations, and whether they are connected.

use std::collections::BTreeMap;

use anyhow::Context;
use ionian_control_core::{ClusterPicture, NodePicture, PlacePicture};
use ionian_types::NodeId;
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::operator::{Controllers, LookArgs, tree};
use crate::table::Table;

pub(super) fn run(args: &LookArgs) -> anyhow::Result<Exit> {
    let picture = Controllers::of(&args.at)?
        .describe("")
        .context("the nodes are not known without the controllers")?;
    let places = places(&picture);
    args.out
        .emit(&text(&picture, &places), &json(&picture, &places))?;
    Ok(Exit::Done)
}

/// A place in words, and who fills it.
type Seat<'a> = (String, &'a PlacePicture);

/// The places of each node.
fn places(picture: &ClusterPicture) -> BTreeMap<NodeId, Vec<Seat<'_>>> {
    let mut places: BTreeMap<NodeId, Vec<Seat<'_>>> = BTreeMap::new();
    for log in &picture.logs {
        let name = &log.name;
        let root = log.root.members.iter().enumerate();
        let alone = log.root.members.len() == 1;
        let root = root.map(|(slot, place)| match alone {
            true => (format!("root of {name}"), place),
            false => (format!("root member {slot} of {name}"), place),
        });
        let coming = log.tree_next.iter();
        let coming = coming.filter(|next| log.tree.iter().all(|it| it.vertex != next.vertex));
        let tree = log.tree.iter().chain(coming).map(|vertex| {
            let words = format!("{} of {name}", tree::vertex_name(vertex));
            (words, &vertex.place)
        });
        let replicas = log.shards.iter().flat_map(|shard| {
            let replicas = shard.replicas.iter().enumerate();
            replicas.map(|(slot, replica)| {
                let words = format!("replica {}.{slot} of {name}", shard.shard);
                (words, &replica.place)
            })
        });
        for seat in root.chain(tree).chain(replicas) {
            places.entry(seat.1.node).or_default().push(seat);
        }
    }
    places
}

/// Whether a node's process is there, as far as its places tell.
const fn connected(node: &NodePicture) -> &'static str {
    match (node.up, node.places) {
        (_, 0) => "no places",
        (0, _) => "no",
        (up, places) if up == places => "yes",
        _ => "in part",
    }
}

fn text(picture: &ClusterPicture, places: &BTreeMap<NodeId, Vec<Seat<'_>>>) -> String {
    let mut nodes = Table::headed(&["node", "domain", "address", "connected", "places", ""]);
    let mut seats = Table::headed(&["node", "place", "incarnation", "connected"]);
    for node in &picture.nodes {
        nodes.row(&[
            node.node.to_string(),
            node.domain.to_string(),
            node.address.clone(),
            connected(node).to_owned(),
            node.places.to_string(),
            String::from(if node.drained { "drained" } else { "" }),
        ]);
        for (words, place) in places.get(&node.node).into_iter().flatten() {
            let inc = match place.inc.get() {
                0 => String::from("none yet"),
                inc => inc.to_string(),
            };
            let up = if place.up { "yes" } else { "no" };
            seats.row(&[node.node.to_string(), words.clone(), inc, up.to_owned()]);
        }
    }
    format!(
        "cluster {}, state version {}\n\n{}\n{}",
        picture.cluster,
        picture.version,
        nodes.render(),
        seats.render()
    )
}

fn json(picture: &ClusterPicture, places: &BTreeMap<NodeId, Vec<Seat<'_>>>) -> Value {
    let seat = |(words, place): &Seat<'_>| json!({"place": words, "incarnation": place.inc.get(), "connected": place.up});
    let node = |node: &NodePicture| {
        let seats = places.get(&node.node).into_iter().flatten();
        json!({
            "node": node.node.get(), "domain": node.domain, "address": node.address,
            "drained": node.drained, "connected": node.up > 0,
            "places": seats.map(seat).collect::<Vec<_>>(),
        })
    };
    json!({
        "cluster": picture.cluster.to_string(), "version": picture.version,
        "nodes": picture.nodes.iter().map(node).collect::<Vec<_>>(),
    })
}
