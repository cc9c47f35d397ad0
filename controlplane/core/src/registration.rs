//! Registration: a process takes its place, and gets an incarnation or a sentence that says why not.

use ionian_types::{
    ClusterId, ConnId, Inc, Knobs, LogId, Mutant, NodeId, ShardId, Slot, Time, VertexId,
};
use ionian_wire::directory::ADDRESS_BYTES_MAX;
use ionian_wire::frame::{Register, Registered, Role};

use crate::command::Action;
use crate::decision::{What, Why};
use crate::directory::Directory;
use crate::outbound::{Conn, Held};
use crate::state::{Log, PlaceKey, State};
use crate::{CEILING_BLOCK, MAP_BYTES_MAX};

/// Why a registration was refused. Effect: none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The data directory belongs to another cluster.
    #[error(
        "the data directory of node {node} belongs to cluster {found}, this is cluster {expected}; start it with the configuration of its own, or with an empty directory"
    )]
    OtherCluster {
        /// The node.
        node: NodeId,
        /// The cluster of the data directory.
        found: ClusterId,
        /// This cluster.
        expected: ClusterId,
    },
    /// A process says hello as one of another cluster.
    #[error(
        "node {node} says that it is of cluster {found}, this is cluster {expected}; start it with the configuration and the secret of its own"
    )]
    Foreign {
        /// The node.
        node: NodeId,
        /// The cluster that it names.
        found: ClusterId,
        /// This cluster.
        expected: ClusterId,
    },
    /// A process says hello in another version of the wire format.
    #[error(
        "node {node} speaks version {found} of the wire format, this controller version {known}: upgrade the older side first"
    )]
    OtherVersion {
        /// The node.
        node: NodeId,
        /// The version that it speaks.
        found: u16,
        /// The version of this build.
        known: u16,
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
    /// The log's tree does not have the vertex, or has another kind of one.
    #[error("the tree of log {log} has no {role} {vertex}")]
    UnknownVertex {
        /// The log's name.
        log: String,
        /// `leaf` or `aggregator`.
        role: &'static str,
        /// The vertex.
        vertex: VertexId,
    },
    /// Only replicas, aggregators, leaves and roots register.
    #[error("only replicas, aggregators, leaves and roots register")]
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
    /// The data directory is of an earlier life than one that has written since.
    #[error(
        "the data directory of {place} on node {node} is an old image: it was last used by incarnation {found}, and incarnation {confirmed} has written since; restore the newer one, or start with an empty directory"
    )]
    OldImage {
        /// The place, for people.
        place: String,
        /// The node.
        node: NodeId,
        /// The last life of the data directory.
        found: Inc,
        /// A later one that had its own on the device.
        confirmed: Inc,
    },
    /// The cut log was given up, and with it what this life holds of it. Sent with request 0; the process stops.
    #[error(
        "too few members of the root group hold the cut log; it was given up, and incarnation {inc} of {place} ends with it"
    )]
    Void {
        /// The place, for people.
        place: String,
        /// The life.
        inc: Inc,
    },
    /// The cluster no longer has the place. Sent with request 0; the process stops.
    #[error("incarnation {inc} has no place in the cluster any more")]
    NoPlace {
        /// The life.
        inc: Inc,
    },
    /// The process that says hello is a past life. Sent with request 0; the process stops.
    #[error(
        "incarnation {inc} of {place} was replaced by a later one; if nobody has started it anew, two processes are this node: stop one of them"
    )]
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

/// Refusals that wait to be told to the operator.
const REFUSED_MAX: usize = 64;

/// What a process was refused: a line for the operator's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// By which connection.
    pub conn: ConnId,
    /// The sentence of the [`Refusal`].
    pub sentence: String,
    /// Nothing else that comes by the connection is understood: it is to be closed, with the sentence as the reason.
    pub closes: bool,
}

/// The place that a process wants.
fn place_of(state: &State, request: &Register) -> Option<PlaceKey> {
    let Register {
        log,
        shard,
        slot,
        node,
        ..
    } = *request;
    match request.role {
        Role::Root => Some(PlaceKey::Root(log, slot)),
        Role::Leaf | Role::Aggregator => Some(PlaceKey::Vertex(log, request.vertex)),
        Role::Replica => Some(state.replica_key(log, shard, slot, node)),
        Role::Client | Role::Controller => None,
    }
}

impl<K: Knobs> Directory<K> {
    pub(crate) fn register(&mut self, now: Time, conn: ConnId, request: &Register, address: &[u8]) {
        let place = place_of(&self.state, request);
        let late = place.is_some_and(|key| self.is_given_up(key, conn));
        let early = place.is_some_and(|key| self.is_early(key, request.node));
        if (late || early) && address.len() <= ADDRESS_BYTES_MAX {
            self.counters.stale += u64::from(late);
            self.hold(now, conn, request, address);
        } else {
            self.take_registration(now, conn, request, address);
        }
    }

    /// Whether the replica that is to be replaced is needed where it is: it is there, and of the others of its shard one does not
    /// hold every record yet. The new one has the place once they do, or once the old one is gone.
    fn is_early(&self, key: PlaceKey, node: NodeId) -> bool {
        let PlaceKey::Replica(log, shard, slot) = key else {
            return false;
        };
        let log = self.state.logs.get(&log);
        let shard = log.and_then(|log| log.shards.get(&shard));
        self.bindings.contains_key(&key)
            && shard.is_some_and(|shard| shard.would_leave_too_few(slot, node))
    }

    /// [`Self::is_early`] of a registration that was held back. No deadline ends that.
    pub(crate) fn is_held_early(&self, held: &Held) -> bool {
        let key = place_of(&self.state, &held.request);
        key.is_some_and(|key| self.is_early(key, held.request.node))
    }

    /// The registration is early ([`Self::is_early`]), or the place is bound to a connection that opened later. So the process
    /// has given this one up, and what it asked here must not end the life that it was given there. Or another process wants
    /// the place: it has it once the later connection is gone, or when this one turns out to be in use.
    fn hold(&mut self, now: Time, conn: ConnId, request: &Register, address: &[u8]) {
        let held = Held {
            request: *request,
            address: address.to_vec(),
            until: now.after(self.config.late_after),
        };
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.held.get_or_insert(held);
        }
    }

    /// Takes the registrations that need not be held back any longer.
    pub(crate) fn take_held(&mut self, now: Time) {
        let due = |(&id, conn): (&ConnId, &Conn)| {
            let held = conn.held.as_ref()?;
            let key = place_of(&self.state, &held.request)?;
            let late = held.until > now && self.is_given_up(key, id);
            (!late && !self.is_held_early(held)).then_some(id)
        };
        let due: Vec<ConnId> = self.conns.iter().filter_map(due).collect();
        for id in due {
            let held = self.conns.get_mut(&id).and_then(|conn| conn.held.take());
            if let Some(held) = held {
                self.take_registration(now, id, &held.request, &held.address);
            }
        }
    }

    fn take_registration(&mut self, now: Time, conn: ConnId, request: &Register, address: &[u8]) {
        if !self.answers_have_room() {
            return;
        }
        // A device that names no life was made ready for one, which did not begin: it holds nothing.
        let logs = &self.state.logs;
        let flushed = logs
            .get(&request.log)
            .is_some_and(|log| log.class.is_flushed());
        let request = &Register {
            has_data: request.has_data && !(flushed && request.last_inc == Inc::ZERO),
            ..*request
        };
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
                self.note_refused(conn, &refusal, false);
                let what = What::Refuse {
                    log: request.log,
                    node: request.node,
                    refusal: refusal.to_string(),
                };
                self.decide(now, what, Why::Rule);
            }
        }
    }

    /// What a process was refused, for the operator's log: taken by the edge after every message. What comes while
    /// 64 wait is not told.
    pub fn take_refused(&mut self) -> Option<Refused> {
        self.refused.pop_front()
    }

    pub(crate) fn note_refused(&mut self, conn: ConnId, refusal: &Refusal, closes: bool) {
        if self.refused.len() < REFUSED_MAX {
            let sentence = refusal.to_string();
            self.refused.push_back(Refused {
                conn,
                sentence,
                closes,
            });
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
        let key = place_of(&self.state, request).ok_or(Refusal::Role)?;
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
        let last = self.check_data(key, node, request.has_data)?;
        let mut inc = Inc::new(self.state.next_inc);
        if K::mutant(Mutant::SameLifeAfterRestart) && request.has_data && last != Inc::ZERO {
            inc = last;
        }
        let log = |state: &State| {
            state
                .logs
                .get(&request.log)
                .map(|log| log.grant(request.log))
        };
        let before = log(&self.state);
        let logs = &self.state.logs;
        let group = logs.get(&request.log).map(|log| log.root.clone());
        self.commit(Action::Admit {
            place: key,
            node,
            inc,
            has_data: request.has_data,
            address: address.to_owned(),
        });
        let grant = log(&self.state);
        let floor = grant.as_ref().map(|(floor, _)| *floor);
        let forgotten = floor.filter(|floor| before.is_some_and(|(before, _)| before < *floor));
        let (log, place) = (request.log, self.state.place_name(key));
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
        if let (PlaceKey::Root(id, _), Some((_, grant)), Some(group)) = (key, grant, group) {
            if group.is_single() {
                self.decide(now, grant, Why::Registered);
            }
            self.end_void_lives(now, id, &group);
        }
        // A life that is still connected is told at once: nothing else might make it let go of its peers.
        let before = self.bindings.get(&key).map(|binding| binding.conn);
        if let Some(before) = before.filter(|before| *before != conn) {
            let refusal = Refusal::Replaced {
                place: self.state.place_name(key),
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
        if let PlaceKey::Vertex(_, vertex) = key {
            let leaf = request.role == Role::Leaf;
            if log.tree.is_leaf(vertex) != Some(leaf) {
                return Err(Refusal::UnknownVertex {
                    log: log.name.clone(),
                    role: if leaf { "leaf" } else { "aggregator" },
                    vertex,
                });
            }
        }
        let place = self.state.place(key).ok_or_else(|| Refusal::UnknownPlace {
            log: log.name.clone(),
            shard: request.shard,
            slot: request.slot,
        })?;
        if place.node != node && !self.state.moves_to(key, node) {
            return Err(Refusal::OtherNode {
                place: self.state.place_name(key),
                log: log.name.clone(),
                found: node,
                expected: place.node,
            });
        }
        if request.has_data && log.class.is_flushed() && request.last_inc < place.confirmed {
            return Err(Refusal::OldImage {
                place: self.state.place_name(key),
                node,
                found: request.last_inc,
                confirmed: place.confirmed,
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

    /// Whether a process with, or without, the data of its last life may take the place; the incarnation of that life.
    fn check_data(&self, key: PlaceKey, node: NodeId, has_data: bool) -> Result<Inc, Refusal> {
        let last = self.state.place(key).map_or(Inc::ZERO, |place| place.inc);
        let Some(log) = self.state.logs.get(&key.log()) else {
            return Ok(last);
        };
        match key {
            PlaceKey::Root(_, slot) => check_root(log, slot, node, has_data)?,
            PlaceKey::Vertex(..) | PlaceKey::Copy(..) => {}
            PlaceKey::Replica(_, shard, slot) => check_replica(log, shard, slot, node, has_data)?,
        }
        Ok(last)
    }
}

/// A flushed cut log is not given up, and numbers end somewhere.
fn check_root(log: &Log, slot: Slot, node: NodeId, has_data: bool) -> Result<(), Refusal> {
    let exhausted = |what| Refusal::Exhausted {
        log: log.name.clone(),
        what,
    };
    log.root
        .epoch
        .next()
        .ok_or_else(|| exhausted("root epochs"))?;
    let lost = !has_data && log.root.would_be_lost(slot);
    // Of the flushed cut log of a single root, only a view reported as logged proves that there was one. A group lists a
    // member once its device is known.
    let there = log.view > log.base_view || !log.root.is_single() && log.may_be_logged();
    if lost && log.class.is_flushed() && there {
        return Err(Refusal::CutLogMissing {
            log: log.name.clone(),
            class: log.class,
            node,
        });
    }
    let floor = log.ceiling.checked_add(CEILING_BLOCK);
    floor.map(|_| ()).ok_or_else(|| exhausted("positions"))
}

/// The last flushed copy of a shard is not given up.
fn check_replica(
    log: &Log,
    shard: ShardId,
    slot: Slot,
    node: NodeId,
    has_data: bool,
) -> Result<(), Refusal> {
    let Some(state) = log.shards.get(&shard).filter(|_| !has_data) else {
        return Ok(());
    };
    let copies = log.quorum.unwrap_or(state.members.len() as u8);
    let own = 1u8.checked_shl(u32::from(slot.get())).unwrap_or(0);
    let opened = state.opened || state.finalized;
    if log.class.is_flushed() && opened && state.settled && state.may_lack(copies, own) {
        return Err(Refusal::LastCopyMissing {
            log: log.name.clone(),
            class: log.class,
            shard,
            node,
        });
    }
    Ok(())
}
