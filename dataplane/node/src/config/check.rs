//! From a parsed file to a whole configuration: sections one by one, then what they say about each other.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use ionian_control_core::RootQuorum;
use ionian_types::{Durability, NodeId, OrderingMode};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::controllers::{self, Group};
use super::error::Sink;
use super::hosts::{may_host, named, roots, tree};
use super::reader::{Found, Table, Value};
use super::schema::{
    CLUSTER, CONTROLLERS, CORES, LIMITS, LOGS, NETWORK, NODES, SECTIONS, Section, TIMING,
};
use super::size::format_size;
use super::{
    ClusterConfig, ConfigErrors, CoreConfig, Limits, LogConfig, NetworkConfig, NodeConfig,
    PlanChoice, Roles, Timing,
};
use crate::shares::shortfalls;

/// Copies that a node's limits are divided among where controllers may place more on it.
const COPIES_PLANNED: u64 = 16;

/// The nodes that could be read.
pub(super) struct Nodes {
    pub(super) list: Vec<Node>,
    /// Whether that is all of them. If not, what is said about nodes elsewhere is not judged.
    pub(super) whole: bool,
}

/// A node as far as it could be read, with the places of what others must agree with.
pub(super) struct Node {
    pub(super) config: NodeConfig,
    name_at: Range<usize>,
    id_at: Range<usize>,
    address_at: Range<usize>,
    data_dir_at: Range<usize>,
    roles_at: Range<usize>,
}

pub(crate) fn parse(file: &Path, text: &str) -> Result<ClusterConfig, ConfigErrors> {
    let mut sink = Sink::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        sink.at(
            &span,
            format!("not TOML: {}", error.message().replace('\n', "; ")),
        );
    }
    if !sink.is_empty() {
        // What follows a syntax error is guesswork; one cause would be reported many times.
        sink.finish(file)?;
    }
    let read = read(file, text, document.get_ref(), &mut sink);
    sink.finish(file)?;
    Ok(read.expect("what could not be read was reported"))
}

fn read(
    file: &Path,
    text: &str,
    document: &DeTable<'_>,
    sink: &mut Sink<'_>,
) -> Option<ClusterConfig> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let end = text.trim_end().len();
    // Without its section, a missing key is reported at the end of the file.
    let top = Table::new(&CLUSTER, Some(document), 0..0);
    let sections: Vec<&str> = SECTIONS.iter().map(|section| section.name).collect();
    top.check_names(&sections, sink);
    let name = top.text("cluster", sink);
    let secret_file = top.text("secret_file", sink);

    let entries = tables(&NODES, document, sink);
    let list: Vec<Node> = entries
        .iter()
        .filter_map(|table| node(table, folder, sink))
        .collect();
    if tables_missing(document, "nodes") {
        sink.at(
            &(end..end),
            "there are no nodes: add a [[nodes]] table per process",
        );
    }
    let certificates = top.text("certificate_dir", sink);
    let group = controllers::read(tables(&CONTROLLERS, document, sink), folder, sink);
    if let (Group::Some(_), Some(name)) = (&group, &name) {
        controllers::check_cluster_name(name, sink);
    }
    check_nodes(&list, &group, sink);
    let whole = list.len() == entries.len() && !list.is_empty();
    let nodes = Nodes { list, whole };
    let logs = read_logs(document, &nodes, sink);
    if tables_missing(document, "logs") {
        sink.at(
            &(end..end),
            "there are no logs: add a [[logs]] table, with name = \"default\" for a start",
        );
    }

    let mut limits = limits(&section(&LIMITS, document, sink), &nodes, &logs, sink);
    if let (
        Some(
            limits @ Limits {
                copies_planned: 0, ..
            },
        ),
        Group::Some(_),
    ) = (&mut limits, &group)
    {
        limits.copies_planned = COPIES_PLANNED;
    }
    let cores = cores(&section(&CORES, document, sink), sink);
    let network = section(&NETWORK, document, sink);
    let profile = network.text("nic_profile", sink).and_then(|found| {
        let loaded = super::profile::load(&found.value, folder);
        loaded
            .map_err(|what| sink.at(&found.span, format!("nic_profile {what}")))
            .ok()
    });
    let mtu = network.number("mtu", sink).map(|mtu| mtu.value as u32);
    let timing = timing(&section(&TIMING, document, sink), sink);

    let controller = nodes.list.iter().find(|node| node.config.roles.controller);
    let controller = controller.map(|node| node.config.node);
    if controller.is_none() && matches!(group, Group::None) {
        return None;
    }
    Some(ClusterConfig {
        file: file.to_owned(),
        checksum: ionian_wire::crc::crc32c(text.as_bytes()),
        name: name?.value,
        secret_file: folder.join(secret_file?.value),
        certificate_dir: folder.join(certificates?.value),
        controllers: group.into_list(),
        controller,
        nodes: nodes.list.iter().map(|node| node.config.clone()).collect(),
        logs,
        limits: limits?,
        cores: cores?,
        network: NetworkConfig { mtu, ..profile? },
        timing: timing?,
    })
}

/// The tables of a list section. Something else in their place is reported.
fn tables<'a>(
    section: &'static Section,
    document: &'a DeTable<'a>,
    sink: &mut Sink<'_>,
) -> Vec<Table<'a>> {
    let Some(value) = document.get(section.name) else {
        return Vec::new();
    };
    let Some(items) = value.get_ref().as_array() else {
        sink.at(
            &value.span(),
            format!("{0} is a list of tables: write [[{0}]]", section.name),
        );
        return Vec::new();
    };
    let mut tables = Vec::new();
    for item in items.iter() {
        match item.get_ref().as_table() {
            Some(table) => {
                let table = Table::new(section, Some(table), item.span());
                table.check_names(&[], sink);
                tables.push(table);
            }
            None => sink.at(
                &item.span(),
                format!("{0} is a list of tables: write [[{0}]]", section.name),
            ),
        }
    }
    tables
}

fn tables_missing(document: &DeTable<'_>, name: &str) -> bool {
    let value = document.get(name).map(Spanned::get_ref);
    value.is_none_or(|value| value.as_array().is_some_and(|items| items.is_empty()))
}

/// The table of a section that may be missing.
fn section<'a>(
    section: &'static Section,
    document: &'a DeTable<'a>,
    sink: &mut Sink<'_>,
) -> Table<'a> {
    let value = document.get(section.name);
    let span = value.map_or(0..0, Spanned::span);
    let table = value.map(Spanned::get_ref).and_then(DeValue::as_table);
    if value.is_some() && table.is_none() {
        sink.at(&span, format!("{0} is a table: write [{0}]", section.name));
    }
    let table = Table::new(section, table, span);
    table.check_names(&[], sink);
    table
}

fn node(table: &Table<'_>, folder: &Path, sink: &mut Sink<'_>) -> Option<Node> {
    let name = table.text("name", sink);
    let id = table.number("id", sink);
    let address = table.text("address", sink);
    let data_dir = table.text("data_dir", sink);
    let domain = table.number("domain", sink);
    let roles = table.texts("roles", sink);
    let cores = match table.get("cores", sink).map(|found| found.value) {
        Some(Value::Numbers(numbers)) => {
            Some(numbers.into_iter().map(|core| core as u32).collect())
        }
        _ => None,
    };
    let (name, id, address, roles) = (name?, id?, address?, roles?);
    let has = |role: &str| roles.value.iter().any(|found| found.value == role);
    let own_dir: PathBuf = ["data", &name.value].iter().collect();
    let config = NodeConfig {
        node: NodeId::new(id.value as u32),
        data_dir: folder.join(
            data_dir
                .as_ref()
                .map_or(own_dir, |dir| PathBuf::from(&dir.value)),
        ),
        domain: domain.map_or(id.value, |domain| domain.value) as u32,
        roles: Roles {
            controller: has("controller"),
            root: has("root"),
            leaf: has("leaf"),
            replica: has("replica"),
        },
        name: name.value,
        address: address.value,
        cores,
    };
    Some(Node {
        config,
        data_dir_at: data_dir.map_or(table.span.clone(), |dir| dir.span),
        name_at: name.span,
        id_at: id.span,
        address_at: address.span,
        roles_at: roles.span,
    })
}

fn check_nodes(nodes: &[Node], group: &Group, sink: &mut Sink<'_>) {
    let mut names = BTreeSet::new();
    let mut ids = BTreeMap::new();
    let mut addresses = BTreeMap::new();
    let mut folders = BTreeMap::new();
    let mut controller: Option<&str> = None;
    for node in nodes {
        let name = node.config.name.as_str();
        if !names.insert(name) {
            sink.at(
                &node.name_at,
                format!("node {name} is there twice: give each its own name"),
            );
        }
        if let Some(other) = ids.insert(node.config.node, name) {
            sink.at(
                &node.id_at,
                format!(
                    "id {} belongs to node {other}: give each node its own",
                    node.config.node
                ),
            );
        }
        if let Some(other) = addresses.insert(&node.config.address, name) {
            let address = &node.config.address;
            sink.at(
                &node.address_at,
                format!("address {address} belongs to node {other}: give each node its own"),
            );
        }
        // Nodes of one name share a default folder; that is reported by the name.
        if let Some(other) = folders.insert(&node.config.data_dir, name)
            && other != name
        {
            sink.at(
                &node.data_dir_at,
                format!("data_dir belongs to node {other}: give each node its own"),
            );
        }
        if let Some(other) = group.with_data_dir(&node.config.data_dir) {
            sink.at(
                &node.data_dir_at,
                format!("data_dir belongs to controller {other}: give each process its own"),
            );
        }
        if node.config.roles.controller {
            if let Some(other) = controller {
                sink.at(
                    &node.roles_at,
                    format!("node {other} is the controller already: exactly one node is"),
                );
            } else if !matches!(group, Group::None) {
                sink.at(
                    &node.roles_at,
                    "the controllers are those in [[controllers]]: take \"controller\" out of the roles, or remove [[controllers]]",
                );
            }
            controller = Some(name);
        }
    }
    if let (None, Some(first), Group::None) = (controller, nodes.first(), group) {
        let hint = format!(
            "no node is the controller: add \"controller\" to the roles of one, such as {}, or [[controllers]]",
            first.config.name
        );
        sink.at(&first.roles_at, hint);
    }
}

fn read_logs(document: &DeTable<'_>, nodes: &Nodes, sink: &mut Sink<'_>) -> Vec<LogConfig> {
    let mut names = BTreeSet::new();
    let mut logs = Vec::new();
    for table in tables(&LOGS, document, sink) {
        let name = table.text("name", sink);
        if let Some(name) = &name
            && !names.insert(name.value.clone())
        {
            sink.at(
                &name.span,
                format!("log {} is there twice: give each its own name", name.value),
            );
        }
        logs.extend(log(&table, name, nodes, &logs, sink));
    }
    logs
}

fn log(
    table: &Table<'_>,
    name: Option<Found<String>>,
    nodes: &Nodes,
    before: &[LogConfig],
    sink: &mut Sink<'_>,
) -> Option<LogConfig> {
    let mode = table.text("mode", sink);
    let shards = table.number("shards", sink);
    let replicas = table.number("replicas", sink);
    let durability = table.text("durability", sink);
    let retention = table.number("retention_bytes_max", sink);
    let members = roots(table, nodes, sink);
    let root_quorum = table.text("root_quorum", sink);
    let placement = table.get("placement", sink);
    let (shards, replicas, durability) = (shards?, replicas?, durability?);
    let class = match durability.value.as_str() {
        "D0" => Durability::D0,
        "D1" => Durability::D1,
        _ => Durability::D2,
    };
    let placed = match placement {
        Some(Found {
            value: Value::Lists(lists),
            span,
        }) => explicit(&lists, &span, &shards, &replicas, nodes, sink),
        _ => round(&shards, &replicas, nodes, sink),
    };
    let own = members.iter().chain(placed.iter().flatten()).flatten();
    let taken = before.iter().flat_map(places).chain(own.copied());
    let tree = tree(table, &shards, nodes, taken, sink);
    let placed = placed?;
    if class == Durability::D2 && nodes.whole {
        check_domains(&placed, &durability.span, nodes, sink);
    }
    let mode = mode.and_then(|mode| match mode.value.as_str() {
        "scalog" => Some(OrderingMode::Scalog),
        _ => None,
    });
    Some(LogConfig {
        name: name?.value,
        mode: mode?,
        class,
        roots: members?,
        root_quorum: match root_quorum?.value.as_str() {
            "all" => RootQuorum::All,
            _ => RootQuorum::Majority,
        },
        tree: tree?,
        shards: placed,
        retention_bytes_max: retention.map(|bytes| bytes.value),
    })
}

/// The nodes of the places of a log, one by one.
fn places(log: &LogConfig) -> impl Iterator<Item = NodeId> {
    let replicas = log.shards.iter().flatten();
    let places = log.roots.iter().chain(&log.tree.nodes).chain(replicas);
    places.copied()
}

/// Replicas one after the other round the nodes: a shard's replicas are on different nodes.
fn round(
    shards: &Found<u64>,
    replicas: &Found<u64>,
    nodes: &Nodes,
    sink: &mut Sink<'_>,
) -> Option<Vec<Vec<NodeId>>> {
    let hosts: Vec<NodeId> = nodes
        .list
        .iter()
        .filter(|node| node.config.roles.replica)
        .map(|node| node.config.node)
        .collect();
    let count = replicas.value as usize;
    if count > hosts.len() {
        if nodes.whole {
            let what = format!(
                "{count} replicas need as many nodes with the role replica; there are {}",
                hosts.len()
            );
            sink.at(&replicas.span, what);
        }
        return None;
    }
    let shard = |shard: usize| {
        (0..count)
            .map(|slot| hosts[(shard * count + slot) % hosts.len()])
            .collect()
    };
    Some((0..shards.value as usize).map(shard).collect())
}

fn explicit(
    lists: &[Vec<Found<String>>],
    span: &Range<usize>,
    shards: &Found<u64>,
    replicas: &Found<u64>,
    nodes: &Nodes,
    sink: &mut Sink<'_>,
) -> Option<Vec<Vec<NodeId>>> {
    if lists.len() as u64 != shards.value {
        sink.at(
            span,
            format!(
                "placement lists {} shards, the log has {}",
                lists.len(),
                shards.value
            ),
        );
    }
    let mut placed = Vec::new();
    for (shard, list) in lists.iter().enumerate() {
        if list.len() as u64 != replicas.value {
            let what = format!(
                "shard {shard} is placed on {} nodes, the log has {} replicas",
                list.len(),
                replicas.value
            );
            sink.at(list.first().map_or(span, |found| &found.span), what);
        }
        let mut members = Vec::new();
        for found in list {
            let Some(node) = named(found, nodes, sink) else {
                continue;
            };
            may_host(node, "replica", |roles| roles.replica, &found.span, sink);
            if members.contains(&node.node) {
                sink.at(
                    &found.span,
                    format!("shard {shard} has two replicas on node {}", node.name),
                );
            }
            members.push(node.node);
        }
        placed.push(members);
    }
    Some(placed)
}

fn check_domains(placed: &[Vec<NodeId>], span: &Range<usize>, nodes: &Nodes, sink: &mut Sink<'_>) {
    let domain_of = |id: &NodeId| {
        let node = nodes.list.iter().find(|node| node.config.node == *id);
        node.map(|node| node.config.domain)
    };
    let one =
        |members: &Vec<NodeId>| members.iter().map(domain_of).collect::<BTreeSet<_>>().len() < 2;
    if let Some(shard) = placed.iter().position(one) {
        let what = format!(
            "durability D2 needs copies in two failure domains; all replicas of shard {shard} are in one: check `domain` and `replicas`"
        );
        sink.at(span, what);
    }
}

fn limits(
    table: &Table<'_>,
    nodes: &Nodes,
    logs: &[LogConfig],
    sink: &mut Sink<'_>,
) -> Option<Limits> {
    let memory = table.number("memory_bytes_max", sink);
    let disk = table.number("disk_bytes_max", sink);
    let connections = table.number("connections_max", sink);
    let uncommitted = table.number("uncommitted_records_max", sink);
    let copies = table.number("copies_planned", sink);
    let cut_log = table.number("cut_log_bytes_max", sink);
    let (memory, disk) = (memory?, disk?);
    for node in nodes.list.iter().filter(|_| nodes.whole) {
        let classes = logs.iter().map(|log| (log.class, &log.shards[..]));
        for short in shortfalls(node.config.node, memory.value, disk.value, classes) {
            let at = if short.limit == "memory_bytes_max" {
                &memory.span
            } else {
                &disk.span
            };
            sink.at(
                at,
                format!(
                    "{} is {}, too little for the {} copies of shards on node {}: give at least {}",
                    short.limit,
                    format_size(short.bytes),
                    short.copies,
                    node.config.name,
                    format_size(short.least)
                ),
            );
        }
    }
    Some(Limits {
        memory_bytes_max: memory.value,
        disk_bytes_max: disk.value,
        copies_planned: copies.map_or(0, |copies| copies.value),
        connections_max: connections?.value as u32,
        uncommitted_records_max: uncommitted?.value,
        cut_log_bytes_max: cut_log?.value,
    })
}

fn cores(table: &Table<'_>, sink: &mut Sink<'_>) -> Option<CoreConfig> {
    let plan = table.text("plan", sink);
    let priority = table.text("priority", sink);
    let spin = table.number("spin_us", sink).map(|spin| spin.value);
    let plan = match plan?.value.as_str() {
        "dedicated" => PlanChoice::Dedicated,
        "packed" => PlanChoice::Packed,
        "cooperative" => PlanChoice::Cooperative,
        _ => PlanChoice::Auto,
    };
    Some(CoreConfig {
        plan,
        fifo: priority?.value == "fifo",
        spin_us: spin,
    })
}

fn timing(table: &Table<'_>, sink: &mut Sink<'_>) -> Option<Timing> {
    let cut = table.number("cut_interval_us", sink);
    let dead = table.number("dead_after_ms", sink);
    let suspect = table.number("suspect_after_ms", sink);
    let probe = table.number("probe_timeout_ms", sink);
    let hung = table.number("hung_after_ms", sink);
    let deaths = table.number("deaths_per_minute_max", sink);
    Some(Timing {
        cut_interval_us: cut?.value,
        dead_after_ms: dead?.value,
        suspect_after_ms: suspect?.value,
        probe_timeout_ms: probe?.value,
        hung_after_ms: hung?.value,
        deaths_per_minute_max: deaths?.value as u32,
    })
}
