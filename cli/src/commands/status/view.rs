//! The picture of a cluster as tables for people and as JSON for programs.

use std::time::Duration;

use ionian_node::Place;
use ionian_types::{Inc, Slot};
use ionian_wire::directory::{Endpoint, LogInfo, ReplicaInfo, ShardInfo};
use serde_json::{Map, Value, json};

use super::judge::{Verdict, leaf_row};
use super::picture::{Picture, Seen};
use super::{roots, tree};
use crate::table::{Table, duration, number, size};

/// Everything for people.
pub(super) fn text(picture: &Picture, verdict: &Verdict, counters: bool) -> String {
    let mut text = String::new();
    for log in picture.logs() {
        text += &log_text(picture, log);
        text.push('\n');
    }
    text += &processes(picture);
    text.push('\n');
    if counters {
        text += &counter_table(picture);
        text.push('\n');
    }
    for line in verdict.notes.iter().chain(&verdict.faults) {
        text += &format!("{line}\n");
    }
    text + &verdict.sentence() + "\n"
}

fn log_text(picture: &Picture, log: &LogInfo) -> String {
    let mut text = format!("log {}: {}, {}", log.name, log.mode, log.class);
    if let Some((process, root)) = picture.seen(roots::leader(log))
        && let (Some(head), Some(tail)) = (root.number("head_gsn"), root.number("tail_gsn"))
    {
        let kept = number(tail.saturating_sub(head));
        text += &format!(
            "; positions {} to {}, {kept} kept\nroot on node {}: ",
            number(head),
            number(tail),
            picture.process_name(process)
        );
        if let (Some(cuts), Some(records)) = (root.rate("cuts"), root.rate("ordered")) {
            text += &format!(
                "{} cuts/s, {} records/s, ",
                number(cuts.round() as u64),
                number(records.round() as u64)
            );
        }
        text += &match root.number("last_cut_age_us") {
            Some(age) => format!("last cut {} ago", duration(Duration::from_micros(age))),
            None => String::from("no cut in this life"),
        };
        text += &format!(
            ", cut log of {} in memory",
            size(root.number("cut_log_bytes").unwrap_or(0))
        );
    }
    text.push('\n');
    text += &roots::text(picture, log);
    text += &tree::text(picture, log);
    let mut table = Table::headed(&[
        "shard",
        "state",
        "replica",
        "node",
        "life",
        "held per segment",
        "ordered per segment",
        "waiting",
        "report",
        "minimum",
        "backfills",
        "memory",
        "disk",
        "damaged",
        "repaired",
    ]);
    for shard in &log.shards {
        for (slot, replica) in shard.replicas.iter().enumerate() {
            table.row(&row(picture, log, shard, slot, replica));
        }
    }
    text += &table.render();
    let mut anybody = false;
    for shard in &log.shards {
        anybody |= leaf_row(picture, log, shard).is_none();
        if let Some(held_back) = held_back(picture, log, shard) {
            text += &format!(
                "shard {}: replica {0}.{} on node {} holds back {} records of its peers\n",
                shard.shard,
                held_back.slot,
                picture.node_name(held_back.node),
                number(held_back.records)
            );
            anybody = true;
        }
    }
    if !anybody {
        text += "nobody holds a cut back\n";
    }
    text
}

fn row(
    picture: &Picture,
    log: &LogInfo,
    shard: &ShardInfo,
    slot: usize,
    replica: &ReplicaInfo,
) -> [String; 15] {
    let place = Place::Replica(log.log, shard.shard, Slot::new(slot as u8));
    let seen = picture.seen(place).map(|(_, seen)| seen);
    let lens = |key: &str| {
        let lens = seen.map(|seen| lengths(&seen, key)).unwrap_or_default();
        let lens: Vec<String> = lens.into_iter().map(number).collect();
        lens.join(" ")
    };
    let cell = |value: Option<String>| value.unwrap_or_else(|| String::from("-"));
    let count = |value: Option<u64>| cell(value.map(number));
    let bytes = |key: &str| cell(seen.and_then(|seen| seen.store(key)).map(size));
    [
        shard.shard.to_string(),
        String::from(match (shard.open, shard.finalized) {
            (_, true) => "finalized",
            (true, _) => "open",
            _ => "closed",
        }),
        format!("{}.{slot}", shard.shard),
        picture.node_name(replica.endpoint.node),
        life(picture, place, &replica.endpoint),
        lens("held"),
        lens("committed"),
        count(seen.and_then(|seen| seen.number("waiting_records"))),
        cell(tree::report_age(picture, log, shard, slot).map(duration)),
        minimum(picture, log, shard, slot),
        count(seen.and_then(|seen| seen.counter("backfills"))),
        bytes("memory_bytes"),
        bytes("disk_bytes"),
        count(seen.and_then(|seen| seen.store("damaged"))),
        count(seen.and_then(|seen| seen.store("repaired"))),
    ]
}

/// Whether a process is there, in a word or two.
pub(super) fn life(picture: &Picture, place: Place, endpoint: &Endpoint) -> String {
    let Some((_, seen)) = picture.seen(place) else {
        return String::from("down");
    };
    match seen.value["state"]["life"].as_str() {
        Some("running") if endpoint.inc != Inc::ZERO => format!("up i{}", endpoint.inc),
        Some("running") => String::from("cut off"),
        Some("refused") => String::from("refused"),
        _ => String::from("starting"),
    }
}

/// Whether a shard's leaf has heard least of this replica: what more its peers hold waits for it.
fn minimum(picture: &Picture, log: &LogInfo, shard: &ShardInfo, slot: usize) -> String {
    let row = leaf_row(picture, log, shard);
    let least = row.and_then(|row| row["slowest_slot"].as_u64());
    let behind = row.and_then(|row| row["held_back"].as_u64()).unwrap_or(0);
    match least {
        Some(least) if least == slot as u64 && behind > 0 => format!("{} behind", number(behind)),
        Some(least) if least == slot as u64 => String::from("here"),
        Some(_) => String::new(),
        None => String::from("-"),
    }
}

/// A length of each segment of a replica.
fn lengths(seen: &Seen<'_>, key: &str) -> Vec<u64> {
    let segments = seen.value["state"]["segments"].as_array();
    let segments = segments.into_iter().flatten();
    segments
        .filter_map(|segment| segment[key].as_u64())
        .collect()
}

/// Who keeps a shard's records from being ordered.
struct HeldBack {
    slot: u64,
    node: ionian_types::NodeId,
    records: u64,
}

/// The member whose report is behind, if the records of others wait for it.
fn held_back(picture: &Picture, log: &LogInfo, shard: &ShardInfo) -> Option<HeldBack> {
    let row = leaf_row(picture, log, shard)?;
    let records = row["held_back"].as_u64().filter(|records| *records > 0)?;
    let slot = row["slowest_slot"].as_u64()?;
    let replica = shard.replicas.get(usize::try_from(slot).ok()?)?;
    Some(HeldBack {
        slot,
        node: replica.endpoint.node,
        records,
    })
}

fn processes(picture: &Picture) -> String {
    let mut table = Table::headed(&["node", "address", "answered in", "places"]);
    for process in &picture.processes {
        let places: Vec<String> = process
            .places
            .iter()
            .map(|place| picture.place_name(*place))
            .collect();
        table.row(&[
            process
                .node
                .map_or_else(|| String::from("?"), |node| picture.node_name(node)),
            process.address.clone(),
            if process.answers() {
                duration(process.round_trip)
            } else {
                String::from("no answer")
            },
            places.join(", "),
        ]);
    }
    table.render()
}

/// Every counter of every process: whatever number an answer has below `counters`, and those of the socket.
fn counter_table(picture: &Picture) -> String {
    let mut table = Table::headed(&["node", "place", "counter", "value"]);
    for process in &picture.processes {
        let Some(answer) = process.last() else {
            continue;
        };
        let node = process
            .node
            .map_or_else(|| String::from("?"), |node| picture.node_name(node));
        let mut rows = |place: &str, counters: Option<&Map<String, Value>>| {
            for (name, value) in counters.into_iter().flatten() {
                if let Some(value) = value.as_u64() {
                    table.row(&[node.clone(), place.to_owned(), name.clone(), number(value)]);
                }
            }
        };
        if let Some(bad) = answer["bad_messages"].as_u64() {
            let one = Map::from_iter([(String::from("bad_messages"), bad.into())]);
            rows("process", Some(&one));
        }
        rows("socket", answer["port"].as_object());
        for place in answer["places"].as_array().into_iter().flatten() {
            let kind = place["place"].as_str().unwrap_or("?");
            let id = |key: &str| place[key].as_u64().map(|id| id.to_string());
            let name = match (id("shard").or(id("vertex")), id("slot"), id("log")) {
                (Some(shard), Some(slot), Some(log)) => {
                    format!("{kind} {shard}.{slot} of log {log}")
                }
                (Some(vertex), _, Some(log)) => format!("{kind} {vertex} of log {log}"),
                (_, _, Some(log)) => format!("{kind} of log {log}"),
                _ => kind.to_owned(),
            };
            rows(&name, place["state"]["counters"].as_object());
            rows(
                &format!("store of {name}"),
                place["store"]["counters"].as_object(),
            );
        }
    }
    table.render()
}

/// Everything for programs.
pub(super) fn json(picture: &Picture, verdict: &Verdict) -> Value {
    let processes = picture.processes.iter().map(|process| {
        json!({
            "node": process.node.map(|node| node.get()),
            "name": process.node.map(|node| picture.node_name(node)),
            "address": process.address,
            "answered": process.answers(),
            "round_trip_us": process.answers().then_some(process.round_trip.as_micros() as u64),
            "status": process.last(),
        })
    });
    json!({
        "able": verdict.able(), "sentence": verdict.sentence(), "faults": verdict.faults, "notes": verdict.notes,
        "map_version": picture.map.version,
        "logs": picture.logs().map(|log| log_json(picture, log)).collect::<Vec<_>>(),
        "processes": processes.collect::<Vec<_>>(),
    })
}

fn log_json(picture: &Picture, log: &LogInfo) -> Value {
    let root = picture.seen(roots::leader(log)).map(|(_, root)| root);
    let of_root = |key: &str| root.and_then(|root| root.number(key));
    let rate = |key: &str| root.and_then(|root| root.rate(key));
    let shards = log
        .shards
        .iter()
        .map(|shard| shard_json(picture, log, shard));
    json!({
        "name": log.name, "id": log.log.get(), "mode": log.mode.to_string(), "durability": log.class.to_string(),
        "head": of_root("head_gsn"), "tail": of_root("tail_gsn"),
        "cuts_per_second": rate("cuts"), "records_per_second": rate("ordered"),
        "last_cut_age_us": of_root("last_cut_age_us"),
        "cut_log_entries": of_root("commit_entry"), "cut_log_bytes": of_root("cut_log_bytes"),
        "root": {"node": log.root().node.get(), "inc": log.root().inc.get(), "address": log.root().address, "up": root.is_some()},
        "root_group": roots::json(picture, log), "tree": tree::json(picture, log),
        "shards": shards.collect::<Vec<_>>(),
    })
}

fn shard_json(picture: &Picture, log: &LogInfo, shard: &ShardInfo) -> Value {
    let replicas = shard.replicas.iter().enumerate().map(|(slot, replica)| {
        let place = Place::Replica(log.log, shard.shard, Slot::new(slot as u8));
        let seen = picture.seen(place).map(|(_, seen)| seen);
        let state = |key: &str| seen.map(|seen| seen.value["state"][key].clone());
        let store = |key: &str| seen.and_then(|seen| seen.store(key));
        json!({
            "slot": slot, "node": replica.endpoint.node.get(), "inc": replica.endpoint.inc.get(),
            "address": replica.endpoint.address, "generation": replica.generation.get(),
            "up": seen.is_some(), "life": state("life"), "appendable": state("appendable"),
            "segments": state("segments"), "waiting_records": state("waiting_records"),
            "report_age_us": tree::report_age(picture, log, shard, slot).map(|age| age.as_micros() as u64),
            "memory_bytes": store("memory_bytes"), "disk_bytes": store("disk_bytes"),
            "backfills": seen.and_then(|seen| seen.counter("backfills")),
            "damaged": store("damaged"), "repaired": store("repaired"),
        })
    });
    json!({
        "shard": shard.shard.get(), "epoch": shard.epoch.get(), "open": shard.open,
        "finalized": shard.finalized, "quorum": shard.quorum,
        "leaf": log.leaves_of(shard).next().map(|leaf| leaf.vertex.get()),
        "minimum_at": leaf_row(picture, log, shard).map(|row| row["slowest_slot"].clone()),
        "held_back_by": held_back(picture, log, shard).map(|held| json!({
            "slot": held.slot, "node": held.node.get(), "records": held.records,
        })),
        "replicas": replicas.collect::<Vec<_>>(),
    })
}
