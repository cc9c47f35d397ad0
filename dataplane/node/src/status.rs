//! The state of a process's places, as `status` shows it.

use ionian_control_core::LogStatus;
use ionian_core::aggregator::AggregatorCounters;
use ionian_core::leaf::{LeafCounters, ShardStatusRow};
use ionian_core::replica::ReplicaStatus;
use ionian_core::root::RootStatus;
use ionian_core::tree::ChildStatus;
use ionian_store::{Store, StoreState, StoreStats};
use ionian_types::{RECORD_BYTES_MAX, RootEpoch, Time};
use serde_json::{Value, json};

use crate::role::Place;
use crate::udp::PortStats;

/// Everything that a process tells of itself.
#[derive(Clone, Debug)]
pub struct Status {
    /// When it was taken, on the process's clock.
    pub at: Time,
    /// Its places.
    pub places: Vec<PlaceStatus>,
    /// Its socket's counters, if it has one.
    pub port: Option<PortStats>,
    /// Messages that did not parse or came at a wrong time.
    pub bad_messages: u64,
    /// Connections of its places that are open now; of two places on one reactor both ends count.
    pub connections: u64,
}

/// One place.
#[derive(Clone, Debug)]
pub struct PlaceStatus {
    /// Which.
    pub place: Place,
    /// Its state.
    pub state: PlaceState,
    /// Counters of its store, if it has one.
    pub store: Option<StoreStats>,
    /// Whether that store serves, and its limits.
    pub store_status: Option<StoreStatus>,
}

/// A store at a glance, beside its counters.
#[derive(Clone, Copy, Debug)]
pub struct StoreStatus {
    /// Whether it serves.
    pub state: StoreState,
    /// Memory that it may use for records, bytes.
    pub memory_bytes_max: u64,
    /// Disk that it may use for records, bytes; the largest number where there is no disk.
    pub disk_bytes_max: u64,
}

impl StoreStatus {
    /// What a store says now.
    #[must_use]
    pub fn of(store: &Store) -> Self {
        Self {
            state: store.state(),
            memory_bytes_max: store.config().memory_bytes_max,
            disk_bytes_max: store.config().disk_bytes_max,
        }
    }
}

/// The state of a place.
#[derive(Clone, Debug)]
pub enum PlaceState {
    /// Waiting for the controller.
    Starting,
    /// Refused by the controller, with its sentence.
    Refused(String),
    /// A replica.
    Replica(Box<ReplicaStatus>),
    /// A leaf.
    Leaf {
        /// Its edge to the vertex above it, or to the root.
        edge: EdgeStatus,
        /// Its shards.
        shards: Vec<ShardStatusRow>,
        /// Its counters.
        counters: LeafCounters,
    },
    /// An aggregator.
    Aggregator {
        /// Its edge to the vertex above it, or to the root.
        edge: EdgeStatus,
        /// The vertices right below it, in order.
        children: Vec<ChildStatus>,
        /// Its counters.
        counters: AggregatorCounters,
    },
    /// A root.
    Root(Box<RootStatus>),
    /// The controller.
    Controller(Vec<LogStatus>),
}

/// The edge of a vertex of the tree to what is above it.
#[derive(Clone, Copy, Debug)]
pub struct EdgeStatus {
    /// Whether it runs.
    pub running: bool,
    /// Rounds sent up and not yet chosen by a cut.
    pub rounds_in_flight: u64,
    /// When the last committed cut came that concerned what is below.
    pub last_cut_at: Option<Time>,
}

impl EdgeStatus {
    fn to_json(self, at: Time) -> Value {
        json!({
            "running": self.running,
            "rounds_in_flight": self.rounds_in_flight,
            "last_cut_age_us": self.last_cut_at.map(|cut| at.since(cut).0 / 1_000),
        })
    }
}

impl Status {
    /// The state of a process from those of its hosts; `None` without any.
    #[must_use]
    pub(crate) fn merged(parts: Vec<Self>) -> Option<Self> {
        let several = parts.len() > 1;
        let mut parts = parts.into_iter();
        let mut all = parts.next()?;
        for part in parts {
            all.places.extend(part.places);
            all.port = all.port.or(part.port);
            all.bad_messages += part.bad_messages;
            all.connections += part.connections;
        }
        if several {
            // Whichever answered first.
            all.places
                .sort_by_key(|status| (crate::role::rank(status.place), status.place));
        }
        Some(all)
    }

    /// The state as JSON: what a status answer carries. Numbers are in the units that their names end with.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let port = self.port.map(|port| {
            json!({
                "strangers": port.strangers, "forgotten": port.forgotten, "denied": port.denied, "rejected": port.rejected, "full": port.full, "half_open": port.half_open, "messages": port.messages,
                "ended": port.ended, "refused": port.refused, "open": port.open, "faults": port.faults,
                "tx_packets": port.socket.tx_packets, "tx_sends": port.socket.tx_sends,
                "tx_calls": port.socket.tx_calls, "tx_full": port.socket.tx_full,
                "tx_refused": port.socket.tx_refused, "rx_packets": port.socket.rx_packets,
                "rx_receives": port.socket.rx_receives, "rx_calls": port.socket.rx_calls,
                "rx_oversize": port.socket.rx_oversize, "rx_errors": port.socket.rx_errors,
            })
        });
        json!({
            "at_ns": self.at.as_ns(),
            "can_append": self.can_append(),
            "bad_messages": self.bad_messages,
            "connections": self.connections,
            "port": port,
            "places": self.places.iter().map(|place| place.to_json(self.at)).collect::<Vec<_>>(),
        })
    }

    /// As [`Self::to_json`], short enough for one message: what has no room is left out and counted.
    #[must_use]
    pub fn to_message(&self) -> String {
        let mut value = self.to_json();
        let text = value.to_string();
        if text.len() <= RECORD_BYTES_MAX {
            return text;
        }
        let places = value["places"].as_array_mut().map(core::mem::take);
        let mut kept = Vec::new();
        let mut bytes = value.to_string().len() + 64;
        let places = places.unwrap_or_default();
        let all = places.len();
        for place in places {
            bytes += place.to_string().len() + 1;
            if bytes > RECORD_BYTES_MAX {
                break;
            }
            kept.push(place);
        }
        value["places_left_out"] = json!(all - kept.len());
        value["places"] = Value::Array(kept);
        value.to_string()
    }

    /// Records that replicas of this process have taken and no cut covers yet.
    #[must_use]
    pub fn waiting_records(&self) -> u64 {
        let waiting = |place: &PlaceStatus| match &place.state {
            PlaceState::Replica(replica) => replica.waiting,
            _ => 0,
        };
        self.places.iter().map(waiting).sum()
    }

    /// Whether every log that this process knows of can append: its root orders and every open shard takes appends.
    #[must_use]
    pub fn can_append(&self) -> bool {
        self.places.iter().all(|place| match &place.state {
            PlaceState::Starting | PlaceState::Refused(_) => false,
            PlaceState::Replica(replica) => replica.appendable,
            // Another member may lead.
            PlaceState::Root(root) => {
                root.follows || root.answers && root.edges > 0 && root.shards > 0
            }
            PlaceState::Leaf { shards, .. } => shards.iter().all(|shard| shard.whole),
            PlaceState::Aggregator { children, .. } => children.iter().all(|child| child.running),
            PlaceState::Controller(logs) => logs.iter().all(|log| log.missing.is_empty()),
        })
    }
}

impl PlaceStatus {
    fn to_json(&self, at: Time) -> Value {
        let mut at_vertex = None;
        let (kind, log, shard, slot) = match self.place {
            Place::Directory => ("controller", None, None, None),
            Place::Root(log, slot) => ("root", Some(log.get()), None, Some(slot.get())),
            Place::Leaf(log, vertex) => {
                at_vertex = Some(vertex.get());
                ("leaf", Some(log.get()), None, None)
            }
            Place::Aggregator(log, vertex) => {
                at_vertex = Some(vertex.get());
                ("aggregator", Some(log.get()), None, None)
            }
            Place::Replica(log, shard, slot) => (
                "replica",
                Some(log.get()),
                Some(shard.get()),
                Some(slot.get()),
            ),
        };
        json!({
            "place": kind, "log": log, "shard": shard, "slot": slot, "vertex": at_vertex,
            "state": self.state.to_json(at),
            "store": self.store_status.zip(self.store.as_ref()).map(|(status, stats)| status.to_json(stats)),
        })
    }
}

impl StoreStatus {
    fn to_json(self, stats: &StoreStats) -> Value {
        let (state, failure) = match self.state {
            StoreState::Starting => ("starting", None),
            StoreState::Ready => ("ready", None),
            StoreState::Failed(failure) => ("failed", Some(failure.to_string())),
        };
        json!({
            "state": state, "failure": failure,
            "memory_bytes_max": self.memory_bytes_max,
            "disk_bytes_max": self.disk_bytes_max,
            "counters": {
                "records": stats.records, "batches": stats.batches, "writes": stats.writes,
                "written_bytes": stats.written_bytes, "flushes": stats.flushes, "fetches": stats.fetches,
                "evictions": stats.evictions, "damaged": stats.damaged, "repaired": stats.repaired,
                "checkpoints_refused": stats.checkpoints_refused, "memory_bytes": stats.memory_bytes,
                "disk_bytes": stats.disk_bytes, "record_bytes": stats.record_bytes, "spares": stats.spares,
            },
        })
    }
}

impl PlaceState {
    fn to_json(&self, at: Time) -> Value {
        match self {
            Self::Starting => json!({ "life": "starting" }),
            Self::Refused(reason) => json!({ "life": "refused", "reason": reason }),
            Self::Replica(status) => replica_json(status),
            Self::Aggregator {
                edge,
                children,
                counters,
            } => json!({
                "life": "running",
                "edge": edge.to_json(at),
                "children": children.iter().map(child_json).collect::<Vec<_>>(),
                "counters": {
                    "accepted": counters.accepted, "refused": counters.refused, "rounds": counters.rounds,
                    "downs": counters.downs, "dropped_downs": counters.dropped_downs,
                    "edge_starts": counters.edge_starts, "resumed": counters.resumed,
                    "unexpected": counters.unexpected,
                },
            }),
            Self::Leaf {
                edge,
                shards,
                counters,
            } => json!({
                "life": "running",
                "edge": edge.to_json(at),
                "shards": shards.iter().map(|row| json!({
                    "shard": row.shard.get(),
                    "epoch": row.epoch.get(),
                    "whole": row.whole,
                    "slowest_slot": row.slowest.0.get(),
                    "slowest_node": row.slowest.1.get(),
                    "held_back": row.held_back,
                    "members": row.members.iter().map(|(node, age, counts)| json!({
                        "node": node.get(),
                        "report_age_us": (age.0 != u64::MAX).then_some(age.0 / 1_000),
                        "counts": counts,
                    })).collect::<Vec<_>>(),
                })).collect::<Vec<_>>(),
                "counters": {
                    "reports": counters.reports, "stale_reports": counters.stale_reports,
                    "regressed": counters.regressed, "rounds": counters.rounds, "downs": counters.downs,
                    "dropped_downs": counters.dropped_downs, "edge_starts": counters.edge_starts,
                    "skipped": counters.skipped, "unexpected": counters.unexpected,
                },
            }),
            Self::Root(status) => root_json(status, at),
            Self::Controller(logs) => json!({
                "life": "running",
                "logs": logs.iter().map(|log| json!({
                    "log": log.log.get(), "name": log.name, "class": log.class.to_string(),
                    "root_epoch": log.root_epoch.get(), "view": log.view.get(),
                    "pending_view": log.pending.map(|view| view.get()),
                    "floor": log.floor.get(), "ceiling": log.ceiling.get(), "missing": log.missing,
                    "tree": log.tree.iter().map(|vertex| json!({
                        "vertex": vertex.vertex.get(), "children": vertex.children,
                        "node": vertex.node.get(), "address": vertex.address,
                    })).collect::<Vec<_>>(),
                })).collect::<Vec<_>>(),
            }),
        }
    }
}

fn child_json(child: &ChildStatus) -> Value {
    json!({
        "node": child.node.get(), "inc": child.inc.get(), "running": child.running,
        "segments": child.segments, "rounds_in_flight": child.rounds_in_flight,
    })
}

fn replica_json(status: &ReplicaStatus) -> Value {
    let counters = &status.counters;
    json!({
        "life": "running",
        "epoch": status.epoch.get(),
        "member": status.member,
        "appendable": status.appendable,
        "full": status.full,
        "missing_node": status.missing.map(|node| node.get()),
        "stranded": status.stranded.map(|stranded| json!({
            "entry": stranded.entry.get(), "received_bytes": stranded.received_bytes,
            "total_bytes": stranded.total_bytes, "bytes_max": stranded.bytes_max,
        })),
        "applied_entry": status.applied.get(),
        "end_gsn": status.end_gsn.get(),
        "head_gsn": status.head.get(),
        "waiting_records": status.waiting,
        "index_bytes": status.index_bytes,
        "segments": status.lens[..status.segments].iter().map(|(held, durable, committed)| json!({
            "held": held.get(), "durable": durable.get(), "committed": committed.get(),
        })).collect::<Vec<_>>(),
        "counters": {
            "append_frames": counters.append_frames, "appended": counters.appended, "acked": counters.acked,
            "refused": counters.refused, "repeats": counters.repeats, "replicated": counters.replicated,
            "cuts": counters.cuts, "views": counters.views, "delivered": counters.delivered,
            "reads": counters.reads, "backfills": counters.backfills, "copies": counters.copies,
            "checkpoints": counters.checkpoints, "chain_gaps": counters.chain_gaps,
            "unexpected": counters.unexpected, "stale": counters.stale, "foreign": counters.foreign,
            "bad_records": counters.bad_records, "contradictions": counters.contradictions,
            "stranded": counters.stranded, "adoptions": counters.adoptions, "journal_full": counters.journal_full,
            "states_too_large": counters.states_too_large,
        },
    })
}

fn root_json(status: &RootStatus, at: Time) -> Value {
    let counters = &status.counters;
    json!({
        "life": "running",
        "slot": status.slot.get(),
        "inc": status.inc.get(),
        "leads": status.epoch > RootEpoch::ZERO,
        "answers": status.answers,
        "follows": status.follows,
        "epoch": status.epoch.get(),
        "promised_epoch": status.promised.get(),
        "recorded": status.recorded,
        "last_entry": status.last.get(),
        "held_by_all_entry": status.held_by_all.get(),
        "members": status.group[..status.members].iter().map(|member| json!({
            "slot": member.slot.get(), "node": member.node.get(), "inc": member.inc.get(),
            "connected": member.connected,
            "held_entry": member.held.get(),
        })).collect::<Vec<_>>(),
        "commit_entry": status.commit.get(),
        "view": status.view.get(),
        "tail_gsn": status.tail.get(),
        "head_gsn": status.head.get(),
        "ceiling_gsn": status.ceiling.get(),
        "open_shards": status.shards,
        "running_edges": status.edges,
        "cut_log_bytes": status.cut_log_bytes,
        "cut_log_first_entry": status.cut_log_first.get(),
        "last_cut_age_us": status.last_cut_at.map(|cut| at.since(cut).0 / 1_000),
        "counters": {
            "cuts": counters.cuts, "ordered": counters.ordered, "views": counters.views,
            "rounds": counters.rounds, "refused_rounds": counters.refused_rounds,
            "edge_starts": counters.edge_starts, "backfills": counters.backfills,
            "bad_intents": counters.bad_intents, "held_back": counters.held_back,
            "unexpected": counters.unexpected, "strangers": counters.strangers,
            "bad_grants": counters.bad_grants, "stepped_down": counters.stepped_down,
            "replaced": counters.replaced, "refused_entries": counters.refused_entries,
            "states_taken": counters.states_taken, "states_made": counters.states_made,
            "broken": counters.broken,
        },
    })
}
