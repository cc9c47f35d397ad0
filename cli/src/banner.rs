//! What a process says of itself when it starts: where everything is, and what is really in force.

use std::collections::BTreeMap;

use ionian_node::config::{ClusterConfig, format_size};
use ionian_node::{Place, ReactorUse, Server};
use ionian_runtime::{PriorityOutcome, ReactorStart};
use ionian_types::{Durability, LogId, Slot, VertexId};

use crate::table::Table;

/// Rows of a process: its files, its address, its transport, devices, cores and limits, and what an ack means.
pub(crate) fn banner(config: &ClusterConfig, name: &str, server: &Server) -> String {
    let effective = server.effective();
    let logs = config.log_names().unwrap_or_default();
    let mut table = Table::new();
    let mut row = |what: &str, value: String| table.row(&[what.to_owned(), value]);
    row("node", format!("{name} of cluster {}", config.name));
    row("cluster id", server.cluster().to_string());
    if !config.file.as_os_str().is_empty() {
        let file = config.file.display();
        row(
            "configuration",
            format!("{file} (checksum {:08x})", config.checksum),
        );
    }
    if let Some(node) = config.node(name) {
        row("data", node.data_dir.display().to_string());
    }
    row("secret", config.secret_file.display().to_string());
    row("messages", String::from("standard error"));
    if let Some(address) = effective.listen {
        row("listening", address.to_string());
    }
    row("transport", effective.transport.clone());
    row("profile", config.network.profile.effective());
    let mut devices: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (place, device) in &effective.devices {
        let places = devices.entry(device).or_default();
        places.push(place_name(&logs, *place));
    }
    for (device, places) in &devices {
        row("device", format!("{device}: {}", places.join(", ")));
    }
    if devices.is_empty() {
        row("device", String::from("memory"));
    }
    let places = effective.places.iter();
    let places: Vec<String> = places.map(|place| place_name(&logs, *place)).collect();
    row("places", places.join(", "));
    let starts = server.reactor_starts();
    let plan = &effective.cores;
    match (&plan.reactors[..], &starts[..]) {
        ([reactor], [start]) => row("core plan", one_thread(reactor, *start)),
        _ => row("core plan", plan.to_string()),
    }
    if starts.len() > 1 {
        for (at, (reactor, start)) in plan.reactors.iter().zip(&starts).enumerate() {
            let places = reactor.places.iter();
            let places: Vec<String> = places.map(|place| place_name(&logs, *place)).collect();
            let how = thread(*start);
            row(
                &format!("reactor {at}"),
                format!("{}{how}", places.join(", ")),
            );
        }
    }
    let limits = &config.limits;
    row(
        "memory",
        format!(
            "at most {} for records",
            format_size(limits.memory_bytes_max)
        ),
    );
    if !devices.is_empty() {
        row(
            "disk",
            format!("at most {} for records", format_size(limits.disk_bytes_max)),
        );
    }
    for log in &config.logs {
        let replicas = log.shards.first().map_or(0, Vec::len);
        row(
            "an ack means",
            format!("log {}: {}", log.name, meaning(log.class, replicas)),
        );
    }
    table.render()
}

/// A place with the name of its log.
fn place_name(logs: &BTreeMap<LogId, String>, place: Place) -> String {
    let log = |id: LogId| logs.get(&id).cloned().unwrap_or_else(|| id.to_string());
    match place {
        Place::Directory => String::from("controller"),
        Place::Root(id, Slot::ZERO) => format!("root of {}", log(id)),
        Place::Root(id, slot) => format!("root {slot} of {}", log(id)),
        Place::Leaf(id, VertexId::ZERO) => format!("leaf of {}", log(id)),
        Place::Leaf(id, vertex) => format!("leaf {vertex} of {}", log(id)),
        Place::Aggregator(id, vertex) => format!("aggregator {vertex} of {}", log(id)),
        Place::Replica(id, shard, slot) => format!("replica {shard}.{slot} of {}", log(id)),
    }
}

/// How a process with a single thread runs.
fn one_thread(reactor: &ReactorUse, start: ReactorStart) -> String {
    let text = if reactor.shared {
        "cooperative: every place on one thread, which yields"
    } else {
        "packed: every place on one thread, which spins"
    };
    format!("{text}{}", thread(start))
}

/// Where a thread runs, and how.
fn thread(start: ReactorStart) -> String {
    let mut text = match start.pinned {
        Ok(Some(core)) => format!(", pinned to core {core}"),
        Ok(None) => String::from(", on any core"),
        Err(error) => format!(", NOT PINNED: {error}"),
    };
    match start.priority {
        PriorityOutcome::Normal => {}
        PriorityOutcome::Fifo { level } => text += &format!(", SCHED_FIFO {level}"),
        PriorityOutcome::Refused { errno } => {
            text += &format!(
                ", NORMAL PRIORITY: SCHED_FIFO was refused (error {errno}); give the process CAP_SYS_NICE"
            );
        }
    }
    text
}

/// What an acknowledgement promises, in words.
pub(crate) fn meaning(class: Durability, replicas: usize) -> String {
    let copies = if replicas == 1 {
        String::from("1 replica")
    } else {
        format!("{replicas} replicas")
    };
    match class {
        Durability::D0 => {
            format!("D0, in the memory of {copies}; a power failure of all of them loses it")
        }
        Durability::D1 => {
            format!("D1, flushed to the device of {copies}; it survives a power failure")
        }
        Durability::D2 => format!("D2, flushed on {copies} in two failure domains"),
    }
}

/// Lines to paste into another terminal; `arguments` name the cluster and the log.
pub(crate) fn lines_to_paste(arguments: &str) -> String {
    format!(
        "\nin another terminal:\n  seq 1 1000 | ionian append{arguments}\n  ionian tail{arguments}\n  ionian status{arguments}\n"
    )
}
