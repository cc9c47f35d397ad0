//! Registration: a process takes its place, and gets an incarnation or a sentence that says why not.

use ionian_types::{ClusterId, ConnId, Inc, Knobs, LogId, Mutant, NodeId, ShardId, Slot, Time};
use ionian_wire::directory::ADDRESS_BYTES_MAX;
use ionian_wire::frame::{Register, Registered, Role};

use crate::decision::{What, Why};
use crate::directory::Directory;
use crate::state::{Log, PlaceKey};
use crate::{CEILING_BLOCK, MAP_BYTES_MAX};

/// Why a registration was refused. Effect: none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The data directory belongs to another cluster.
    #[error(
        "the data directory of node {node} belongs to cluster {found}, this is cluster {expected}"
    )]
    OtherCluster {
        /// The node.
        node: NodeId,
        /// The cluster of the data directory.
        found: ClusterId,
        /// This cluster.
        expected: ClusterId,
    },
    /// The cluster does not have the log.
    #[error("the cluster has no log with id {log}")]
    UnknownLog {
        /// The log.
        log: LogId,
    },
    /// The log does not have the place.
    #[error("log {log} has no shard {shard} with a slot {slot}")]
    UnknownPlace {
        /// The log's name.
        log: String,
        /// The shard.
        shard: ShardId,
        /// The slot.
        slot: Slot,
    },
    /// The place belongs to another node.
    #[error("{place} of log {log} belongs to node {expected}, not to node {found}")]
    OtherNode {
        /// The place, for people.
        place: String,
        /// The log's name.
        log: String,
        /// The node that registered.
        found: NodeId,
        /// The node of the place.
        expected: NodeId,
    },
    /// Only replicas, leaves and roots register.
    #[error("only replicas, leaves and roots register")]
    Role,
    /// The address is too long or not text.
    #[error("the address of node {node} is not text of at most 255 bytes")]
    Address {
        /// The node.
        node: NodeId,
    },
    /// The last life is one that was never issued: the directory's own state is older than this data directory.
    #[error(
        "node {node} has lived as incarnation {inc}, which this controller never issued: its state is older than the cluster; restore its data directory"
    )]
    UnknownLife {
        /// The node.
        node: NodeId,
        /// The incarnation.
        inc: Inc,
    },
    /// A flushed cut log is missing.
    #[error(
        "log {log} ({class}) has a cut log, and the data directory of its root on node {node} does not hold it; restore that directory"
    )]
    CutLogMissing {
        /// The log's name.
        log: String,
        /// Its durability class.
        class: ionian_types::Durability,
        /// The root's node.
        node: NodeId,
    },
    /// The last flushed copy of a shard is missing.
    #[error(
        "no other replica of shard {shard} of log {log} ({class}) holds its records, and the data directory of node {node} does not either; restore one of them"
    )]
    LastCopyMissing {
        /// The log's name.
        log: String,
        /// Its durability class.
        class: ionian_types::Durability,
        /// The shard.
        shard: ShardId,
        /// The node.
        node: NodeId,
    },
    /// The process that says hello is a past life. Sent with request 0; the process stops.
    #[error("incarnation {inc} of {place} was replaced by a later one")]
    Replaced {
        /// The place, for people.
        place: String,
        /// The past life.
        inc: Inc,
    },
    /// The cluster map would grow too large.
    #[error("the cluster map has no room for the address of node {node}")]
    MapFull {
        /// The node.
        node: NodeId,
    },
    /// Numbers are used up.
    #[error("log {log} has used up its {what}")]
    Exhausted {
        /// The log's name.
        log: String,
        /// Which numbers.
        what: &'static str,
    },
}

/// What a replica, leaf or root is called in sentences.
pub(crate) fn place_name(key: PlaceKey) -> String {
    match key {
        PlaceKey::Root(_) => String::from("the root"),
        PlaceKey::Leaf(_) => String::from("the leaf"),
        PlaceKey::Replica(_, shard, slot) => format!("replica {shard}.{slot}"),
    }
}

impl<K: Knobs> Directory<K> {
    pub(crate) fn register(&mut self, now: Time, conn: ConnId, request: &Register, address: &[u8]) {
        if !self.answers_have_room() {
            return;
        }
        match self.admit(now, conn, request, address) {
            Ok(inc) => {
                let answer = Registered {
                    request: request.request,
                    cluster: self.state.cluster,
                    inc,
                };
                self.answer(conn, &answer, &[]);
            }
            Err(refusal) => {
                self.refuse(conn, request.request, &refusal);
                let what = What::Refuse {
                    log: request.log,
                    node: request.node,
                    refusal: refusal.to_string(),
                };
                self.decide(now, what, Why::Rule);
            }
        }
    }

    pub(crate) fn refuse(&mut self, conn: ConnId, request: u64, refusal: &Refusal) {
        if !self.answers_have_room() {
            return;
        }
        let answer = Registered {
            request,
            cluster: self.state.cluster,
            inc: Inc::ZERO,
        };
        self.answer(conn, &answer, refusal.to_string().as_bytes());
    }

    fn admit(
        &mut self,
        now: Time,
        conn: ConnId,
        request: &Register,
        address: &[u8],
    ) -> Result<Inc, Refusal> {
        let key = match request.role {
            Role::Root => PlaceKey::Root(request.log),
            Role::Leaf => PlaceKey::Leaf(request.log),
            Role::Replica => PlaceKey::Replica(request.log, request.shard, request.slot),
            Role::Client | Role::Controller => return Err(Refusal::Role),
        };
        let node = request.node;
        let address = core::str::from_utf8(address)
            .ok()
            .filter(|address| address.len() <= ADDRESS_BYTES_MAX)
            .ok_or(Refusal::Address { node })?;
        self.check_place(key, request)?;
        if let Some(inc) = self.repeated(key, conn, request.request) {
            return Ok(inc);
        }
        self.check_room(key, node, address)?;
        let log = self
            .state
            .logs
            .get_mut(&request.log)
            .expect("the place was found");
        let floor_before = log.floor;
        match key {
            PlaceKey::Root(_) => admit_root(log, request.has_data)?,
            PlaceKey::Leaf(_) => {}
            PlaceKey::Replica(_, shard, slot) => admit_replica(log, shard, slot, request.has_data)?,
        }
        let forgotten = (log.floor > floor_before).then_some(log.floor);
        let grant = What::Grant {
            log: request.log,
            epoch: log.root_epoch,
            ceiling: log.ceiling,
        };
        let mut inc = Inc::new(self.state.next_inc);
        self.state.next_inc += 1;
        let place = self.state.place_mut(key).expect("the place was found");
        let last = place.inc;
        if K::mutant(Mutant::SameLifeAfterRestart) && request.has_data && last != Inc::ZERO {
            inc = last;
        }
        place.inc = inc;
        place.up = true;
        address.clone_into(&mut place.address);
        self.map_changed();
        let (log, place) = (request.log, place_name(key));
        self.decide(
            now,
            What::Admit {
                log,
                place,
                node,
                inc,
            },
            Why::Registered,
        );
        if let Some(floor) = forgotten {
            self.decide(now, What::ForgetCutLog { log, floor }, Why::CutLogLost);
        }
        if matches!(key, PlaceKey::Root(_)) {
            self.decide(now, grant, Why::Registered);
        }
        // A life that is still connected is told at once: nothing else might make it let go of its peers.
        let before = self.bindings.get(&key).map(|binding| binding.conn);
        if let Some(before) = before.filter(|before| *before != conn) {
            let refusal = Refusal::Replaced {
                place: place_name(key),
                inc: last,
            };
            self.refuse(before, 0, &refusal);
        }
        self.bind(now, key, conn, Some(request.request));
        Ok(inc)
    }

    /// Whether the place exists, belongs to this node, and the data directory to this cluster.
    fn check_place(&self, key: PlaceKey, request: &Register) -> Result<(), Refusal> {
        let node = request.node;
        let found = request.cluster;
        if found != self.state.cluster && (found != ClusterId::default() || request.has_data) {
            return Err(Refusal::OtherCluster {
                node,
                found,
                expected: self.state.cluster,
            });
        }
        if request.last_inc.get() >= self.state.next_inc {
            return Err(Refusal::UnknownLife {
                node,
                inc: request.last_inc,
            });
        }
        let log = self
            .state
            .logs
            .get(&request.log)
            .ok_or(Refusal::UnknownLog { log: request.log })?;
        let place = self.state.place(key).ok_or_else(|| Refusal::UnknownPlace {
            log: log.name.clone(),
            shard: request.shard,
            slot: request.slot,
        })?;
        if place.node != node {
            return Err(Refusal::OtherNode {
                place: place_name(key),
                log: log.name.clone(),
                found: node,
                expected: place.node,
            });
        }
        Ok(())
    }

    fn check_room(&self, key: PlaceKey, node: NodeId, address: &str) -> Result<(), Refusal> {
        let old = self
            .state
            .place(key)
            .map_or(0, |place| self.state.address(place).len());
        if address.len() > old && self.state.map_bytes() + address.len() - old > MAP_BYTES_MAX {
            return Err(Refusal::MapFull { node });
        }
        Ok(())
    }
}

/// A root with its cut log goes on; one without gets the positions after everything that was ever reserved.
fn admit_root(log: &mut Log, has_data: bool) -> Result<(), Refusal> {
    let exhausted = |log: &Log, what| Refusal::Exhausted {
        log: log.name.clone(),
        what,
    };
    let epoch = log
        .root_epoch
        .next()
        .ok_or_else(|| exhausted(log, "root epochs"))?;
    // Of a flushed cut log, only a view reported as logged proves that there was one.
    if !has_data && log.class.is_flushed() && log.view > log.base_view {
        return Err(Refusal::CutLogMissing {
            log: log.name.clone(),
            class: log.class,
            node: log.root.node,
        });
    }
    let lost = !has_data && log.may_be_logged();
    let floor = if lost { log.ceiling } else { log.floor };
    let ceiling = floor
        .checked_add(CEILING_BLOCK)
        .ok_or_else(|| exhausted(log, "positions"))?;
    if lost {
        log.forget_cut_log();
    }
    log.ceiling = log.ceiling.max(ceiling);
    log.root_epoch = epoch;
    Ok(())
}

fn admit_replica(log: &mut Log, shard: ShardId, slot: Slot, has_data: bool) -> Result<(), Refusal> {
    let state = log.shards.get_mut(&shard).expect("the place was found");
    if has_data {
        return Ok(());
    }
    let others_hold = state
        .members
        .iter()
        .enumerate()
        .any(|(other, member)| other != slot.index() && member.holds);
    if log.class.is_flushed() && state.opened && state.settled && !others_hold {
        return Err(Refusal::LastCopyMissing {
            log: log.name.clone(),
            class: log.class,
            shard,
            node: state.members[slot.index()].place.node,
        });
    }
    state.members[slot.index()].holds = false;
    Ok(())
}
