//! What operators see of a cluster: tables for people, JSON for programs. Numbers of nodes stay numbers in JSON.

use std::collections::BTreeSet;
use std::fmt::Write;

use ionian_control_core::{
    ClusterPicture, Event, LogPicture, NodePicture, PlacePicture, Progress, ReplicaPicture,
    RootQuorum, ShardPicture, ShardStage, TransactionPicture,
};
use ionian_types::{Durability, Inc, NodeId, ViewId};
use serde_json::{Value, json};

use super::names::Names;
use super::{or_null, tree};
use crate::table::{Table, count};

/// A transaction that goes on, in one line.
pub(crate) fn how_far(transaction: &TransactionPicture) -> String {
    let (id, done, of) = (transaction.id, transaction.done, transaction.steps.len());
    let step = transaction.steps.get(done as usize);
    let step = step.map_or_else(String::new, |step| format!(": {step}"));
    format!("transaction {id}: {done} of {of} steps done{step}")
}

/// How a transaction stands, with its steps.
pub(crate) fn ended(transaction: &TransactionPicture) -> (String, Value) {
    let (id, state) = (transaction.id, transaction.progress.name());
    let mut text = match transaction.progress {
        Progress::Done => format!("transaction {id}: done\n"),
        Progress::Running => format!("transaction {id}: begun\n"),
        _ => format!(
            "transaction {id}: {state} after {} of {} steps{}\n",
            transaction.done,
            transaction.steps.len(),
            reason(transaction)
        ),
    };
    for (at, step) in transaction.steps.iter().enumerate() {
        let mark = if at < transaction.done as usize {
            "done"
        } else {
            "open"
        };
        let _ = writeln!(text, "  {mark}  {step}");
    }
    let mut json = transaction_json(transaction);
    json["plan"] = false.into();
    (text, json)
}

/// Why it failed, to be put behind what is said of it.
fn reason(transaction: &TransactionPicture) -> String {
    match &transaction.why[..] {
        "" => String::new(),
        why => format!(": {why}"),
    }
}

/// A transaction for programs.
pub(crate) fn transaction_json(transaction: &TransactionPicture) -> Value {
    let state = match transaction.progress {
        Progress::Running => "running",
        Progress::Done => "done",
        Progress::Cancelled => "cancelled",
        _ => "failed",
    };
    json!({
        "transaction": transaction.id,
        "state": state,
        "began_us": transaction.at_us,
        "done": transaction.done,
        "why": or_null(Some(&transaction.why[..]).filter(|why| !why.is_empty())),
        "steps": transaction.steps,
    })
}

/// The transactions as a table.
pub(crate) fn transactions(known: &[TransactionPicture]) -> String {
    if known.is_empty() {
        return String::from("no transactions\n");
    }
    let mut table = Table::headed(&["transaction", "state", "steps", "began", "what"]);
    for one in known {
        let at = (one.done as usize).min(one.steps.len().saturating_sub(1));
        table.row(&[
            one.id.to_string(),
            one.progress.name().to_owned(),
            format!("{} of {}", one.done, one.steps.len()),
            utc(one.at_us),
            one.steps.get(at).cloned().unwrap_or_default() + &reason(one),
        ]);
    }
    table.render()
}

/// The steps of a plan, and what they would lead to.
pub(crate) fn plan(steps: &[String], then: &ClusterPicture, names: &Names) -> String {
    let mut out = String::from("would be done, in this order:\n");
    for step in steps {
        let _ = writeln!(out, "  {step}");
    }
    if then.logs.is_empty() {
        out += "\nno log would be there that it touches\n";
    }
    for log in &then.logs {
        let _ = writeln!(
            out,
            "\nlog {} would then be, in view {} or later:",
            log.name, log.view
        );
        out += &replicas(log, then, names);
        let _ = writeln!(out, "root group: {}", members(log, names));
        let _ = writeln!(out, "{}", ordering(log, names));
    }
    let drained: Vec<String> = then
        .nodes
        .iter()
        .filter(|node| node.drained)
        .map(|node| names.show(node.node))
        .collect();
    if !drained.is_empty() {
        let _ = writeln!(
            out,
            "\nnodes that take no new places: {}",
            drained.join(", ")
        );
    }
    out
}

fn members(log: &LogPicture, names: &Names) -> String {
    let member = |(slot, place): (usize, &PlacePicture)| {
        let leads = log.root.leader.is_some_and(|leader| leader.index() == slot);
        let leads = if leads { " (leads)" } else { "" };
        format!("node {}{leads}", names.show(place.node))
    };
    let members: Vec<String> = log.root.members.iter().enumerate().map(member).collect();
    members.join(", ")
}

/// The ordering tree in a line.
fn ordering(log: &LogPicture, names: &Names) -> String {
    let nodes: BTreeSet<NodeId> = log.tree.iter().map(|vertex| vertex.place.node).collect();
    let nodes: Vec<String> = nodes.into_iter().map(|node| names.show(node)).collect();
    match &log.tree[..] {
        [leaf] => format!("leaf: node {}", names.show(leaf.place.node)),
        tree => format!(
            "ordering tree: {} on nodes {}",
            tree::form(tree),
            nodes.join(", ")
        ),
    }
}

/// What an ack of the log means.
fn promise(log: &LogPicture) -> String {
    let replicas = match log.quorum {
        Some(quorum) => format!("{quorum} replicas of a shard"),
        None => String::from("every replica of a shard"),
    };
    match log.class {
        Durability::D0 => format!("D0: in memory on {replicas}"),
        Durability::D1 => format!("D1: flushed on {replicas}"),
        _ => format!("D2: flushed on {replicas}, in two failure domains"),
    }
}

/// The failure domain of a node.
fn domain(cluster: &ClusterPicture, node: NodeId) -> Option<u32> {
    let known = cluster.nodes.iter().find(|known| known.node == node);
    known.map(|known| known.domain)
}

pub(super) fn inc(inc: Inc) -> String {
    if inc == Inc::ZERO {
        String::from("-")
    } else {
        inc.to_string()
    }
}

pub(super) const fn presence(place: &PlacePicture) -> &'static str {
    if place.up { "there" } else { "missing" }
}

/// Where a log's copies lie, and how they are.
fn replicas(log: &LogPicture, cluster: &ClusterPicture, names: &Names) -> String {
    let mut table = Table::headed(&[
        "replica",
        "node",
        "domain",
        "incarnation",
        "process",
        "shard",
        "copy",
        "segment",
    ]);
    for shard in &log.shards {
        for (slot, replica) in shard.replicas.iter().enumerate() {
            let place = &replica.place;
            table.row(&[
                format!("{}.{slot}", shard.shard),
                names.show(place.node),
                domain(cluster, place.node).map_or_else(|| "?".into(), |domain| domain.to_string()),
                inc(place.inc),
                presence(place).to_owned(),
                shard.stage.name().to_owned(),
                copy(shard, replica).to_owned(),
                segment(shard, replica, names),
            ]);
        }
    }
    table.render()
}

/// How much of the committed records a replica has.
fn copy(shard: &ShardPicture, replica: &ReplicaPicture) -> &'static str {
    if shard.epoch == ViewId::ZERO {
        "none yet"
    } else if !replica.holds {
        "behind"
    } else if shard.whole {
        "whole"
    } else {
        "present"
    }
}

/// Whether a replica writes.
fn segment(shard: &ShardPicture, replica: &ReplicaPicture, names: &Names) -> String {
    if let Some(next) = replica.next {
        return format!("goes to node {}", names.show(next));
    }
    if replica.generation > ViewId::ZERO && shard.stage != ShardStage::Finalized {
        return format!("generation {}", replica.generation);
    }
    let joins = shard.stage == ShardStage::Open && replica.listed != Inc::ZERO;
    String::from(if joins { "learns" } else { "closed" })
}

/// A log: what an ack means, where copies lie, who orders, and what is under way.
pub(crate) fn log(log: &LogPicture, cluster: &ClusterPicture, names: &Names) -> String {
    let mut out = format!("log {} ({}, id {})\n", log.name, log.mode, log.log);
    let _ = writeln!(out, "an ack means {}", promise(log));
    let pending = log
        .pending
        .map_or_else(String::new, |view| format!(", view {view} on its way"));
    let _ = writeln!(out, "view {}{pending}", log.view);
    let domains = log
        .shards
        .iter()
        .filter(|shard| shard.stage != ShardStage::Finalized);
    let domains = domains.map(|shard| {
        let nodes = shard.replicas.iter().map(|replica| replica.place.node);
        let found: BTreeSet<Option<u32>> = nodes.map(|node| domain(cluster, node)).collect();
        found.len()
    });
    if let Some(least) = domains.min() {
        let least = count(least as u64, "failure domain", "failure domains");
        let _ = writeln!(
            out,
            "every shard that takes appends lies in {least} or more"
        );
    }
    out.push('\n');
    out += &replicas(log, cluster, names);
    let quorum = match log.root.quorum {
        RootQuorum::Majority => "a majority",
        RootQuorum::All => "every listed member",
    };
    let _ = writeln!(
        out,
        "\nroot epoch {} ({}); {quorum} holds an entry before it is committed",
        log.root.epoch,
        log.root.phase.name()
    );
    let mut table = Table::headed(&["role", "node", "domain", "incarnation", "process"]);
    let mut row = |role: String, place: &PlacePicture| {
        let domain = domain(cluster, place.node);
        table.row(&[
            role,
            names.show(place.node),
            domain.map_or_else(|| "?".into(), |domain| domain.to_string()),
            inc(place.inc),
            presence(place).to_owned(),
        ]);
    };
    for (slot, place) in log.root.members.iter().enumerate() {
        let is = |wanted: Option<ionian_types::Slot>| wanted.is_some_and(|it| it.index() == slot);
        let leads = match (is(log.root.leader), is(log.root.preferred)) {
            (true, _) => ", leads",
            (_, true) => ", is to lead",
            _ => "",
        };
        row(format!("root {slot}{leads}"), place);
    }
    for vertex in &log.tree {
        let goes = vertex
            .next
            .map(|node| format!(", goes to node {}", names.show(node)));
        let name = tree::vertex_name(vertex);
        row(name + &goes.unwrap_or_default(), &vertex.place);
    }
    out += &table.render();
    if !log.tree_next.is_empty() {
        let form = tree::form(&log.tree_next);
        let _ = writeln!(
            out,
            "another ordering tree is to come, {form}: `ionian tree show {}`",
            log.name
        );
    }
    let mine = format!("log {}:", log.log);
    let touches = |one: &&TransactionPicture| one.steps.iter().any(|step| step.starts_with(&mine));
    for transaction in cluster.under_way.iter().filter(touches) {
        let _ = writeln!(out, "\n{}", how_far(transaction));
    }
    out
}

/// The logs of a cluster, a line each.
pub(crate) fn logs(cluster: &ClusterPicture, names: &Names) -> String {
    if cluster.logs.is_empty() {
        return String::from("no logs\n");
    }
    let head = [
        "log",
        "id",
        "durability",
        "quorum",
        "open",
        "view",
        "root leader",
    ];
    let mut table = Table::headed(&head);
    for log in &cluster.logs {
        let open = log
            .shards
            .iter()
            .filter(|shard| shard.stage == ShardStage::Open);
        let leader = log
            .root
            .leader
            .and_then(|slot| log.root.members.get(slot.index()));
        table.row(&[
            log.name.clone(),
            log.log.to_string(),
            log.class.to_string(),
            log.quorum
                .map_or_else(|| "all".into(), |quorum| quorum.to_string()),
            format!(
                "{} of {}",
                open.count(),
                count(log.shards.len() as u64, "shard", "shards")
            ),
            log.view.to_string(),
            leader.map_or_else(|| "-".into(), |place| names.show(place.node)),
        ]);
    }
    table.render()
}

/// A cluster for programs.
pub(crate) fn cluster_json(cluster: &ClusterPicture, names: &Names) -> Value {
    let nodes = cluster.nodes.iter().map(|node| node_json(node, names));
    let logs = cluster.logs.iter().map(|log| log_json(log, cluster, names));
    let under_way = cluster.under_way.iter().map(transaction_json);
    json!({
        "cluster": cluster.cluster.to_string(),
        "version": cluster.version,
        "nodes": nodes.collect::<Vec<_>>(),
        "logs": logs.collect::<Vec<_>>(),
        "under_way": under_way.collect::<Vec<_>>(),
    })
}

fn node_json(node: &NodePicture, names: &Names) -> Value {
    json!({
        "node": node.node.get(),
        "name": names.name(node.node),
        "domain": node.domain,
        "address": node.address,
        "drained": node.drained,
        "places": node.places,
        "up": node.up,
    })
}

pub(super) fn place_json(place: &PlacePicture, cluster: &ClusterPicture, names: &Names) -> Value {
    json!({
        "node": place.node.get(),
        "name": names.name(place.node),
        "domain": domain(cluster, place.node),
        "incarnation": place.inc.get(),
        "up": place.up,
    })
}

/// A log for programs.
pub(crate) fn log_json(log: &LogPicture, cluster: &ClusterPicture, names: &Names) -> Value {
    let shards = log.shards.iter().map(|shard| {
        let replicas = shard.replicas.iter().map(|replica| {
            let mut json = place_json(&replica.place, cluster, names);
            json["listed"] = replica.listed.get().into();
            json["generation"] = replica.generation.get().into();
            json["holds"] = replica.holds.into();
            json["next"] = or_null(replica.next.map(NodeId::get));
            json
        });
        json!({
            "shard": shard.shard.get(),
            "epoch": shard.epoch.get(),
            "stage": shard.stage.name(),
            "whole": shard.whole,
            "replicas": replicas.collect::<Vec<_>>(),
        })
    });
    let members = log.root.members.iter();
    let members = members.map(|place| place_json(place, cluster, names));
    let quorum = match log.root.quorum {
        RootQuorum::Majority => "majority",
        RootQuorum::All => "all",
    };
    json!({
        "log": log.log.get(),
        "name": log.name,
        "mode": log.mode.to_string(),
        "durability": log.class.to_string(),
        "quorum": log.quorum,
        "view": log.view.get(),
        "pending": or_null(log.pending.map(ViewId::get)),
        "floor": log.floor.get(),
        "ceiling": log.ceiling.get(),
        "root": {
            "epoch": log.root.epoch.get(),
            "phase": log.root.phase.name(),
            "quorum": quorum,
            "write_quorum": log.root.write_quorum,
            "leader": or_null(log.root.leader.map(ionian_types::Slot::get)),
            "preferred": or_null(log.root.preferred.map(ionian_types::Slot::get)),
            "members": members.collect::<Vec<_>>(),
        },
        "tree": tree::json(&log.tree, cluster, names),
        "tree_next": tree::json(&log.tree_next, cluster, names),
        "shards": shards.collect::<Vec<_>>(),
    })
}

/// What became of a log's views.
pub(crate) fn history(events: &[Event]) -> String {
    let mut table = Table::headed(&["when", "version", "view", "what", "why"]);
    for event in events {
        let view = event.what.view();
        table.row(&[
            utc(event.at_us),
            event.version.to_string(),
            view.map_or_else(|| "-".into(), |view| view.to_string()),
            event.what.to_string(),
            event.why.to_string(),
        ]);
    }
    table.render()
}

/// The same for programs.
pub(crate) fn history_json(log: &str, events: &[Event]) -> Value {
    let events = events.iter().map(|event| {
        json!({
            "at_us": event.at_us,
            "version": event.version,
            "view": or_null(event.what.view().map(ViewId::get)),
            "what": event.what.to_string(),
            "why": event.why.to_string(),
        })
    });
    json!({"log": log, "events": events.collect::<Vec<_>>()})
}

/// A moment in microseconds since 1970, as people write it; `-` for none.
pub(crate) fn utc(at_us: u64) -> String {
    if at_us == 0 {
        return String::from("-");
    }
    let (seconds, ms) = (at_us / 1_000_000, at_us / 1000 % 1000);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // The era of 400 years begins in March, so that the day that comes and goes is the last of a year.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
pub(super) mod tests;
