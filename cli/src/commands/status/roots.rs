//! The root group of a log: who its members are, who leads, and how far each is.

use ionian_node::Place;
use ionian_types::{Inc, Slot};
use ionian_wire::directory::{Endpoint, LogInfo};
use serde_json::{Value, json};

use super::picture::{Picture, Seen};
use crate::table::{Table, number};

/// The member that leads, or would.
pub(super) fn leader(log: &LogInfo) -> Place {
    Place::Root(log.log, log.leader.unwrap_or_default())
}

/// The members, each with its place.
pub(super) fn members(log: &LogInfo) -> impl Iterator<Item = (Place, &Endpoint)> {
    let roots = log.roots.iter().enumerate();
    roots.map(|(slot, end)| (Place::Root(log.log, Slot::new(slot as u8)), end))
}

/// What the leader says of a member of its group.
fn listed<'a>(picture: &'a Picture, log: &LogInfo, slot: usize) -> Option<&'a Value> {
    let (_, seen) = picture.seen(leader(log))?;
    let members = seen.value["state"]["members"].as_array()?;
    let mut members = members.iter();
    members.find(|member| member["slot"].as_u64() == Some(slot as u64))
}

/// The members for people; nothing where there is only one.
pub(super) fn text(picture: &Picture, log: &LogInfo) -> String {
    if log.roots.len() < 2 {
        return String::new();
    }
    let headings = [
        "root", "node", "life", "state", "epoch", "entries", "ordered",
    ];
    let mut table = Table::headed(&headings);
    for (slot, (place, end)) in members(log).enumerate() {
        let seen = picture.seen(place).map(|(_, seen)| seen);
        let cell = |key: &str| {
            let value = seen.and_then(|seen| seen.number(key));
            value.map_or_else(|| String::from("-"), number)
        };
        table.row(&[
            slot.to_string(),
            picture.node_name(end.node),
            life(seen.as_ref(), end),
            state(seen.as_ref(), listed(picture, log, slot)),
            cell("promised_epoch"),
            cell("last_entry"),
            cell("commit_entry"),
        ]);
    }
    table.render()
}

fn life(seen: Option<&Seen<'_>>, end: &Endpoint) -> String {
    match seen.and_then(|seen| seen.value["state"]["life"].as_str()) {
        None => String::from("down"),
        Some("running") if end.inc != Inc::ZERO => format!("up i{}", end.inc),
        Some("running") => String::from("cut off"),
        Some("refused") => String::from("refused"),
        Some(_) => String::from("starting"),
    }
}

/// What a member does, in a few words. `listed` is what the leader says of it.
fn state(seen: Option<&Seen<'_>>, listed: Option<&Value>) -> String {
    let says = |key: &str| seen.is_some_and(|seen| seen.value["state"][key] == true);
    let text = match listed {
        _ if says("leads") && says("answers") => "leads",
        _ if says("leads") => "begins to lead",
        Some(listed) if listed["connected"] == true => "follows",
        Some(_) => "not connected to the leader",
        None => "not listed",
    };
    String::from(text)
}

/// The group for programs.
pub(super) fn json(picture: &Picture, log: &LogInfo) -> Value {
    let lead = picture.seen(leader(log)).map(|(_, seen)| seen);
    let of_leader = |key: &str| lead.map(|seen| seen.value["state"][key].clone());
    let rows = members(log).enumerate().map(|(slot, (place, end))| {
        let seen = picture.seen(place).map(|(_, seen)| seen);
        let state = |key: &str| seen.map(|seen| seen.value["state"][key].clone());
        let listed = |key: &str| listed(picture, log, slot).map(|row| row[key].clone());
        json!({
            "slot": slot, "node": end.node.get(), "inc": end.inc.get(), "address": end.address,
            "up": seen.is_some(), "life": state("life"), "leads": state("leads"),
            "promised_epoch": state("promised_epoch"), "last_entry": state("last_entry"),
            "commit_entry": state("commit_entry"),
            "connected": listed("connected"), "held_entry": listed("held_entry"),
        })
    });
    json!({
        "leader": log.leader.map(Slot::get), "epoch": of_leader("epoch"),
        "answers": of_leader("answers"), "recorded": of_leader("recorded"),
        "held_by_all_entry": of_leader("held_by_all_entry"),
        "members": rows.collect::<Vec<_>>(),
    })
}
