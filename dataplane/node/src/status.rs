//! The state of a process's places, as `status` shows it.

use ionian_control_core::LogStatus;
use ionian_core::leaf::{LeafCounters, ShardStatusRow};
use ionian_core::replica::ReplicaStatus;
use ionian_core::root::RootStatus;
use ionian_types::Time;

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
}

/// One place.
#[derive(Clone, Debug)]
pub struct PlaceStatus {
    /// Which.
    pub place: Place,
    /// Its state.
    pub state: PlaceState,
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
        /// Its shards.
        shards: Vec<ShardStatusRow>,
        /// Its counters.
        counters: LeafCounters,
    },
    /// A root.
    Root(Box<RootStatus>),
    /// The controller.
    Controller(Vec<LogStatus>),
}

impl Status {
    /// Whether every log that this process knows of can append: its root orders and every open shard takes appends.
    #[must_use]
    pub fn can_append(&self) -> bool {
        self.places.iter().all(|place| match &place.state {
            PlaceState::Starting | PlaceState::Refused(_) => false,
            PlaceState::Replica(replica) => replica.appendable,
            PlaceState::Root(root) => root.edges > 0 && root.shards > 0,
            PlaceState::Leaf { shards, .. } => shards.iter().all(|shard| shard.whole),
            PlaceState::Controller(logs) => logs.iter().all(|log| log.missing.is_empty()),
        })
    }
}
