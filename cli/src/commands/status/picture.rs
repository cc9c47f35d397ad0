//! What is known of a cluster at one moment: the controller's map, and what each process says of itself.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use ionian_node::Place;
use ionian_node::client::ProbeAnswer;
use ionian_node::tree::vertex_place;
use ionian_types::{LogId, NodeId, VertexId};
use ionian_wire::directory::{ClusterMap, LogInfo};
use serde_json::Value;

use crate::connect::Located;

/// A cluster as it was seen.
#[derive(Debug)]
pub(super) struct Picture {
    /// What the controller says; empty without it.
    pub(super) map: ClusterMap,
    pub(super) processes: Vec<Process>,
    /// The controllers are elsewhere: any process answers for the map, and is asked even if it has no place.
    pub(super) external: bool,
    /// The log that is shown; none for all.
    only: Option<String>,
    names: BTreeMap<NodeId, String>,
    /// Names of logs by the configuration.
    log_names: BTreeMap<LogId, String>,
}

/// A process of the cluster.
#[derive(Debug)]
pub(super) struct Process {
    /// Its node; the controller's is not known when the cluster was named by an address and it fills no other place.
    pub(super) node: Option<NodeId>,
    pub(super) address: String,
    /// The address looked up; none when that failed.
    pub(super) socket: Option<SocketAddr>,
    /// Places that it should fill.
    pub(super) places: Vec<Place>,
    /// What it said, at the first and at the second look.
    pub(super) answers: [Option<Value>; 2],
    pub(super) round_trip: Duration,
}

impl Process {
    fn new(node: Option<NodeId>, address: String) -> Self {
        let socket = address
            .to_socket_addrs()
            .ok()
            .and_then(|mut found| found.next());
        Self {
            node,
            address,
            socket,
            places: Vec::new(),
            answers: [None, None],
            round_trip: Duration::ZERO,
        }
    }

    pub(super) fn answers(&self) -> bool {
        self.answers[0].is_some()
    }

    /// What it said last.
    pub(super) fn last(&self) -> Option<&Value> {
        self.answers[1].as_ref().or(self.answers[0].as_ref())
    }

    pub(super) fn set_answer(&mut self, sample: usize, answer: Option<ProbeAnswer>) {
        let Some(answer) = answer else { return };
        // What is not JSON is as good as no answer.
        self.answers[sample] = serde_json::from_str(&answer.text).ok();
        self.round_trip = Duration::from_nanos(answer.round_trip.0);
    }

    /// What it says of one of its places, at a look.
    fn place_at(&self, sample: usize, place: Place) -> Option<&Value> {
        let places = self.answers[sample].as_ref()?["places"].as_array()?;
        places.iter().find(|value| is_place(value, place))
    }
}

/// What a process says of a place of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    /// The place: `state`, `store`.
    pub(super) value: &'a Value,
    /// The same place at the look before, and how long ago that was.
    pub(super) before: Option<(&'a Value, Duration)>,
}

impl Seen<'_> {
    /// A number of its state.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.value["state"][key].as_u64()
    }

    /// A counter of its state.
    pub(super) fn counter(&self, key: &str) -> Option<u64> {
        self.value["state"]["counters"][key].as_u64()
    }

    /// A counter of its store.
    pub(super) fn store(&self, key: &str) -> Option<u64> {
        self.value["store"]["counters"][key].as_u64()
    }

    /// How fast a counter of its state rises, per second.
    pub(super) fn rate(&self, key: &str) -> Option<f64> {
        let (before, span) = self.before?;
        let counter = |place: &Value| place["state"]["counters"][key].as_u64();
        let rise = counter(self.value)?.checked_sub(counter(before)?)?;
        (!span.is_zero()).then(|| rise as f64 / span.as_secs_f64())
    }
}

impl Picture {
    /// The processes that the map and the configuration name.
    pub(super) fn new(at: &Located, map: ClusterMap, only: Option<&str>) -> anyhow::Result<Self> {
        let mut picture = Self {
            map,
            processes: Vec::new(),
            external: false,
            only: only.map(str::to_owned),
            names: BTreeMap::new(),
            log_names: BTreeMap::new(),
        };
        if let Some(config) = &at.config {
            picture.log_names = config.log_names()?;
            for node in &config.nodes {
                picture.names.insert(node.node, node.name.clone());
                picture.process(node.node, &node.address);
            }
            // Of controllers elsewhere the map says who fills what; the configuration, how it was in the beginning.
            let external = config.controller.is_none();
            if picture.map.version == 0 || !external {
                for (node, place) in config.seats()? {
                    picture.seat(node, place);
                }
            }
            picture.external = external;
        }
        for log in picture.map.logs.clone() {
            for (place, member) in super::roots::members(&log) {
                picture.process(member.node, &member.address);
                picture.seat(member.node, place);
            }
            for vertex in log.tree.iter().chain(&log.tree_next) {
                let endpoint = &vertex.endpoint;
                picture.process(endpoint.node, &endpoint.address);
                picture.seat(endpoint.node, vertex_place(log.log, vertex));
            }
            for shard in &log.shards {
                for (slot, replica) in shard.replicas.iter().enumerate() {
                    let node = replica.endpoint.node;
                    picture.process(node, &replica.endpoint.address);
                    let slot = ionian_types::Slot::new(slot as u8);
                    picture.seat(node, Place::Replica(log.log, shard.shard, slot));
                }
            }
        }
        if at.config.is_none() {
            let found = picture.processes.iter_mut();
            let mut found = found.filter(|process| process.socket == Some(at.directory));
            let places = match found.next() {
                Some(process) => &mut process.places,
                None => {
                    let process = Process::new(None, at.directory.to_string());
                    picture.processes.push(process);
                    let last = picture.processes.last_mut();
                    &mut last.expect("it was put there").places
                }
            };
            places.insert(0, Place::Directory);
        }
        Ok(picture)
    }

    /// The process of a node is at this address.
    fn process(&mut self, node: NodeId, address: &str) {
        let found = self
            .processes
            .iter_mut()
            .find(|process| process.node == Some(node));
        match found {
            // The address of the configuration is the one that others use.
            Some(process) if process.socket.is_some() || address.is_empty() => {}
            Some(process) => *process = Process::new(Some(node), address.to_owned()),
            None => {
                let process = Process::new(Some(node), address.to_owned());
                self.processes.push(process);
            }
        }
    }

    fn seat(&mut self, node: NodeId, place: Place) {
        let mut found = self
            .processes
            .iter_mut()
            .filter(|process| process.node == Some(node));
        if let Some(process) = found.next()
            && !process.places.contains(&place)
        {
            process.places.push(place);
        }
    }

    /// Whether any process answers.
    pub(super) fn anybody_answers(&self) -> bool {
        self.processes.iter().any(Process::answers)
    }

    /// The logs to show.
    pub(super) fn logs(&self) -> impl Iterator<Item = &LogInfo> {
        self.map
            .logs
            .iter()
            .filter(|log| self.only.as_ref().is_none_or(|only| *only == log.name))
    }

    /// The process that should fill a place.
    pub(super) fn process_of(&self, place: Place) -> Option<&Process> {
        let mut processes = self.processes.iter();
        processes.find(|process| process.places.contains(&place))
    }

    /// What the process of a place says of it.
    pub(super) fn seen(&self, place: Place) -> Option<(&Process, Seen<'_>)> {
        let process = self.process_of(place)?;
        let first = process.place_at(0, place);
        let Some(second) = process.place_at(1, place) else {
            let seen = Seen {
                value: first?,
                before: None,
            };
            return Some((process, seen));
        };
        let at = |sample: usize| process.answers[sample].as_ref()?["at_ns"].as_u64();
        let span = at(1)
            .zip(at(0))
            .and_then(|(now, then)| now.checked_sub(then));
        let before = first.zip(span.map(Duration::from_nanos));
        let seen = Seen {
            value: second,
            before,
        };
        Some((process, seen))
    }

    /// A node as people call it: by its name where the configuration is known, else by its number.
    pub(super) fn node_name(&self, node: NodeId) -> String {
        self.names
            .get(&node)
            .cloned()
            .unwrap_or_else(|| node.to_string())
    }

    /// A place with the name of its log.
    pub(super) fn place_name(&self, place: Place) -> String {
        let log = |id: LogId| {
            let known = self.map.logs.iter().find(|info| info.log == id);
            let known = known.map(|info| info.name.clone());
            known
                .or_else(|| self.log_names.get(&id).cloned())
                .unwrap_or_else(|| id.to_string())
        };
        match place {
            Place::Directory => place.to_string(),
            Place::Root(id, slot) if self.has_group(id) => format!("root {slot} of {}", log(id)),
            Place::Root(id, _) => format!("root of {}", log(id)),
            Place::Leaf(id, VertexId::ZERO) => format!("leaf of {}", log(id)),
            Place::Leaf(id, vertex) => format!("leaf {vertex} of {}", log(id)),
            Place::Aggregator(id, vertex) => format!("aggregator {vertex} of {}", log(id)),
            Place::Replica(id, shard, slot) => format!("{shard}.{slot} of {}", log(id)),
        }
    }

    /// Whether the root of a log has several members.
    fn has_group(&self, id: LogId) -> bool {
        let mut logs = self.map.logs.iter();
        logs.any(|log| log.log == id && log.roots.len() > 1)
    }

    /// A process as people call it.
    pub(super) fn process_name(&self, process: &Process) -> String {
        match process.node {
            Some(node) => self.node_name(node),
            None => String::from("of the controller"),
        }
    }
}

/// Whether a place of an answer is this one.
fn is_place(value: &Value, place: Place) -> bool {
    let vertex = match place {
        Place::Leaf(_, vertex) | Place::Aggregator(_, vertex) => Some(vertex),
        _ => None,
    };
    let (kind, log, shard, slot) = match place {
        Place::Directory => ("controller", None, None, None),
        Place::Root(log, slot) => ("root", Some(log), None, Some(slot)),
        Place::Leaf(log, _) => ("leaf", Some(log), None, None),
        Place::Aggregator(log, _) => ("aggregator", Some(log), None, None),
        Place::Replica(log, shard, slot) => ("replica", Some(log), Some(shard), Some(slot)),
    };
    value["place"] == kind
        && value["log"].as_u64() == log.map(|log| u64::from(log.get()))
        && value["shard"].as_u64() == shard.map(|shard| u64::from(shard.get()))
        && value["vertex"].as_u64() == vertex.map(|vertex| u64::from(vertex.get()))
        && value["slot"].as_u64() == slot.map(|slot| u64::from(slot.get()))
}
