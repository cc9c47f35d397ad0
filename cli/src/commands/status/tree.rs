//! The ordering tree of a log, level by level: how old cuts and reports are, what is on its way, and what was asked for again.

use std::time::Duration;

use ionian_node::Place;
use ionian_node::tree::vertex_place;
use ionian_types::{LogId, Slot};
use ionian_wire::directory::{LogInfo, ShardInfo, VertexInfo, parents_in};
use serde_json::{Value, json};

use super::judge::leaf_row;
use super::picture::{Picture, Seen};
use super::roots;
use crate::table::{Table, duration, number};
use crate::tree::{in_words, levels};

/// Vertices that people are shown one by one; of larger trees only the levels.
const VERTICES_SHOWN: usize = 64;

/// What a vertex is called where its log is known: `leaf 3`, `aggregator 0`; `the leaf` where there is only one vertex.
pub(super) fn vertex_name(log: &LogInfo, vertex: &VertexInfo) -> String {
    match vertex.children {
        0 if log.tree.len() == 1 && log.tree_next.is_empty() => String::from("the leaf"),
        0 => format!("leaf {}", vertex.vertex),
        _ => format!("aggregator {}", vertex.vertex),
    }
}

fn children(log: &LogInfo) -> impl Iterator<Item = u16> + Clone {
    log.tree.iter().map(|vertex| vertex.children)
}

/// What is above a vertex of the present tree, in words.
pub(super) fn above(log: &LogInfo, vertex: &VertexInfo) -> String {
    match log.parents_of(vertex.vertex).next().flatten() {
        Some(parent) => vertex_name(log, parent),
        None => String::from("the root"),
    }
}

/// One process of a level.
#[derive(Clone, Copy, Debug, Default)]
struct Seat {
    up: bool,
    /// Of a vertex, whether its edge to what is above runs.
    running: Option<bool>,
    cut_age: Option<Duration>,
    report_age: Option<Duration>,
    in_flight: Option<u64>,
    restarts: Option<u64>,
    backfills: Option<u64>,
}

impl Seat {
    fn of(seen: Option<Seen<'_>>) -> Self {
        Self {
            up: seen.is_some_and(|seen| seen.value["state"]["life"] == "running"),
            restarts: seen.and_then(|seen| seen.counter("edge_starts")),
            backfills: seen.and_then(|seen| seen.counter("backfills")),
            ..Self::default()
        }
    }

    /// The root leader. What is in flight of it are entries that are not committed yet.
    fn root(picture: &Picture, log: &LogInfo) -> Self {
        let seen = picture.seen(roots::leader(log)).map(|(_, seen)| seen);
        let number = |key: &str| seen.and_then(|seen| seen.number(key));
        let entries = number("last_entry").zip(number("commit_entry"));
        Self {
            cut_age: number("last_cut_age_us").map(Duration::from_micros),
            in_flight: entries.map(|(last, commit)| last.saturating_sub(commit)),
            ..Self::of(seen)
        }
    }

    fn vertex(picture: &Picture, log: LogId, vertex: &VertexInfo) -> Self {
        let place = vertex_place(log, vertex);
        let seen = picture.seen(place).map(|(_, seen)| seen);
        let edge = seen.map(|seen| &seen.value["state"]["edge"]);
        let number = |key: &str| edge.and_then(|edge| edge[key].as_u64());
        Self {
            running: edge.and_then(|edge| edge["running"].as_bool()),
            cut_age: number("last_cut_age_us").map(Duration::from_micros),
            in_flight: number("rounds_in_flight"),
            ..Self::of(seen)
        }
    }

    fn replica(picture: &Picture, log: &LogInfo, shard: &ShardInfo, slot: usize) -> Self {
        let place = Place::Replica(log.log, shard.shard, Slot::new(slot as u8));
        let seen = picture.seen(place).map(|(_, seen)| seen);
        Self {
            report_age: report_age(picture, log, shard, slot),
            ..Self::of(seen)
        }
    }
}

/// How long ago the leaf heard a replica's last report.
pub(super) fn report_age(
    picture: &Picture,
    log: &LogInfo,
    shard: &ShardInfo,
    slot: usize,
) -> Option<Duration> {
    let row = leaf_row(picture, log, shard)?;
    row["members"][slot]["report_age_us"]
        .as_u64()
        .map(Duration::from_micros)
}

/// A level: what is on it.
struct Level {
    name: &'static str,
    seats: Vec<Seat>,
}

impl Level {
    fn up(&self) -> usize {
        self.seats.iter().filter(|seat| seat.up).count()
    }

    fn most<T: Ord>(&self, of: impl Fn(&Seat) -> Option<T>) -> Option<T> {
        self.seats.iter().filter_map(of).max()
    }

    fn sum(&self, of: impl Fn(&Seat) -> Option<u64>) -> Option<u64> {
        self.seats
            .iter()
            .filter_map(of)
            .reduce(|sum, one| sum + one)
    }
}

/// The levels of a log: the root, those of the tree, and the replicas of shards that take appends.
fn of_log(picture: &Picture, log: &LogInfo) -> Vec<Level> {
    let mut all = vec![Level {
        name: "root",
        seats: vec![Seat::root(picture, log)],
    }];
    for (vertex, level) in log.tree.iter().zip(levels(children(log))) {
        while all.len() <= level {
            let (name, seats) = ("leaves", Vec::new());
            all.push(Level { name, seats });
        }
        let here = &mut all[level];
        if vertex.children > 0 {
            here.name = "aggregators";
        }
        here.seats.push(Seat::vertex(picture, log.log, vertex));
    }
    let open = log.shards.iter().filter(|shard| !shard.finalized);
    let seats = open.flat_map(|shard| {
        let slots = 0..shard.replicas.len();
        slots.map(move |slot| Seat::replica(picture, log, shard, slot))
    });
    all.push(Level {
        name: "replicas",
        seats: seats.collect(),
    });
    all
}

/// The levels for people, and the vertices of a tree of several.
pub(super) fn text(picture: &Picture, log: &LogInfo) -> String {
    let mut table = Table::headed(&[
        "level",
        "",
        "up",
        "cut age",
        "report age",
        "in flight",
        "edge starts",
        "backfills",
    ]);
    let cell = |value: Option<String>| value.unwrap_or_else(|| String::from("-"));
    for (at, level) in of_log(picture, log).iter().enumerate() {
        table.row(&[
            at.to_string(),
            level.name.to_owned(),
            format!("{} of {}", level.up(), level.seats.len()),
            cell(level.most(|seat| seat.cut_age).map(duration)),
            cell(level.most(|seat| seat.report_age).map(duration)),
            cell(level.most(|seat| seat.in_flight).map(number)),
            cell(level.sum(|seat| seat.restarts).map(number)),
            cell(level.sum(|seat| seat.backfills).map(number)),
        ]);
    }
    let form = in_words(children(log));
    let mut text = format!("ordering tree: {form}\n{}", table.render());
    if (2..=VERTICES_SHOWN).contains(&log.tree.len()) {
        text += &vertices(picture, log);
    }
    if !log.tree_next.is_empty() {
        let next = log.tree_next.iter().map(|vertex| vertex.children);
        text += &format!("to be in its place: {}\n", in_words(next));
    }
    text
}

fn vertices(picture: &Picture, log: &LogInfo) -> String {
    let mut table = Table::headed(&[
        "vertex",
        "node",
        "life",
        "edge",
        "cut age",
        "in flight",
        "edge starts",
    ]);
    let cell = |value: Option<String>| value.unwrap_or_else(|| String::from("-"));
    for (vertex, level) in log.tree.iter().zip(levels(children(log))) {
        let place = vertex_place(log.log, vertex);
        let seat = Seat::vertex(picture, log.log, vertex);
        table.row(&[
            format!(
                "{:indent$}{}",
                "",
                vertex_name(log, vertex),
                indent = 2 * (level - 1)
            ),
            picture.node_name(vertex.endpoint.node),
            super::view::life(picture, place, &vertex.endpoint),
            String::from(match seat.running {
                Some(true) => "runs",
                Some(false) => "waits",
                None => "-",
            }),
            cell(seat.cut_age.map(duration)),
            cell(seat.in_flight.map(number)),
            cell(seat.restarts.map(number)),
        ]);
    }
    table.render()
}

/// The levels and the vertices for programs.
pub(super) fn json(picture: &Picture, log: &LogInfo) -> Value {
    let micros = |age: Option<Duration>| age.map(|age| age.as_micros() as u64);
    let all = of_log(picture, log);
    let all = all.iter().enumerate().map(|(at, level)| {
        json!({
            "level": at, "kind": level.name, "places": level.seats.len(), "up": level.up(),
            "cut_age_us": micros(level.most(|seat| seat.cut_age)),
            "report_age_us": micros(level.most(|seat| seat.report_age)),
            "in_flight": level.most(|seat| seat.in_flight),
            "edge_starts": level.sum(|seat| seat.restarts), "backfills": level.sum(|seat| seat.backfills),
        })
    });
    let vertices = log.tree.iter().zip(levels(children(log)));
    let vertices = vertices.zip(parents_in(children(log)));
    let vertices = vertices.map(|((vertex, level), parent)| {
        let seat = Seat::vertex(picture, log.log, vertex);
        let parent = parent.map(|parent| log.tree[parent].vertex.get());
        json!({
            "vertex": vertex.vertex.get(), "kind": if vertex.children == 0 { "leaf" } else { "aggregator" },
            "level": level, "parent": parent, "children": vertex.children,
            "node": vertex.endpoint.node.get(), "inc": vertex.endpoint.inc.get(), "up": seat.up,
            "running": seat.running, "cut_age_us": micros(seat.cut_age), "rounds_in_flight": seat.in_flight,
            "edge_starts": seat.restarts,
        })
    });
    json!({
        "levels": all.collect::<Vec<_>>(), "vertices": vertices.collect::<Vec<_>>(),
        "coming": log.tree_next.iter().map(|vertex| vertex.vertex.get()).collect::<Vec<_>>(),
    })
}
