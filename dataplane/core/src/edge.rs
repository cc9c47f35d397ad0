//! What every edge does in the same way: which connections a process opens, and how it takes its place.
//!
//! A root, aggregator, leaf or replica first registers with the controller and is given its incarnation. Where its store is of a flushed
//! class the incarnation goes into the superblock, and only when it is durable there this life begins: its machine is made,
//! connects to the others, and says `Hello` to the controller, which counts the place from then on. So a directory that
//! holds an incarnation older than one that said `Hello` is an old image. Over later connections to the controller it says
//! `Hello` again. An edge owns sockets or rings and a clock; the order of the steps is here, so that it is the same
//! everywhere and can be simulated.
//!
//! ```text
//! connected -> Register -> Registered: Admitted(inc) -> make it durable, `settle`, make the machine, tell it the connection
//!                                                       and the controller's Hello
//!                                      Refused       -> the sentence is for people; try again only if a person changed something
//! connected -> Hello (this life)     : messages go to the machine; of a replica its edge needs none but the controller's Hello
//!                                      Replaced      -> a later life has the place: stop
//! ```

use alloc::string::String;

use ionian_types::{
    ClientId, ClusterId, ConnId, EntryNo, Inc, LogId, NodeId, SessionNo, ShardId, Slot, VertexId,
    ViewId,
};
use ionian_wire::WIRE_VERSION;
use ionian_wire::frame::{Hello, Message, Register, Role};

use crate::outbox::{Full, Outbox};

/// Whom a process connects to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Target {
    /// The controller.
    Controller,
    /// The root leader of its log.
    Root,
    /// The vertex above it in the tree: the root leader of its log, or an aggregator. While another tree is to be in its place,
    /// the one above it there as well; its edge is with the one that starts it.
    Parent,
    /// The leaf above its shard. While another tree is to be in its place, the one above it there as well.
    Leaf,
    /// Another replica of its shard.
    Peer(Slot),
}

/// The connections that a process opens; all others are opened towards it. Between two replicas there is one connection,
/// opened by the one in the higher slot: two would tear the order of what each says to the other.
pub fn dials(role: Role, slot: Slot) -> impl Iterator<Item = Target> {
    let (parent, leaf) = match role {
        Role::Replica => (Some(Target::Root), true),
        Role::Leaf | Role::Aggregator => (Some(Target::Parent), false),
        Role::Root | Role::Client | Role::Controller => (None, false),
    };
    let controller = role != Role::Controller;
    let peers = if role == Role::Replica { slot.get() } else { 0 };
    controller
        .then_some(Target::Controller)
        .into_iter()
        .chain(parent)
        .chain(leaf.then_some(Target::Leaf))
        .chain((0..peers).map(|peer| Target::Peer(Slot::new(peer))))
}

/// The place of a process in its cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The cluster; the default value when the process has no data of it yet.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// Root, aggregator, leaf or replica.
    pub role: Role,
    /// The log.
    pub log: LogId,
    /// The shard, for replicas.
    pub shard: ShardId,
    /// The slot, for roots and replicas.
    pub slot: Slot,
    /// The vertex of the tree, for aggregators and leaves.
    pub vertex: VertexId,
}

/// What a message from the controller means for the edge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing.
    None,
    /// The process has its place. Make the incarnation durable, [`Join::settle`], make the machine.
    Admitted {
        /// This life's incarnation.
        inc: Inc,
        /// The cluster.
        cluster: ClusterId,
    },
    /// The process may not have its place, with the reason for people.
    Refused(String),
    /// A later life has the place: stop, with the reason for people.
    Replaced(String),
    /// The message is for the machine.
    Machine,
}

/// Who speaks on a connection to the controller after [`Join::connected`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speaker {
    /// This [`Join`]; it has sent the first message, or the machine does so when it is made.
    Edge,
    /// The machine: call its `opened`.
    Machine,
}

/// One process on its way to its place, and its connection to the controller from then on.
#[derive(Debug)]
pub struct Join {
    place: Place,
    last_inc: Inc,
    has_data: bool,
    request: u64,
    inc: Option<Inc>,
    /// The incarnation is durable: this life says who it is.
    settled: bool,
    /// The controller's greeting on the present connection.
    hello: Option<Hello>,
}

impl Join {
    /// A process that has just started. `last_inc` and `has_data` say what its data directory holds of its last life;
    /// `first_request` is a number that no earlier process of this place has used, such as a random one.
    #[must_use]
    pub const fn new(place: Place, last_inc: Inc, has_data: bool, first_request: u64) -> Self {
        Self {
            place,
            last_inc,
            has_data,
            request: first_request,
            inc: None,
            settled: false,
            hello: None,
        }
    }

    /// This life's incarnation, once issued.
    #[must_use]
    pub const fn inc(&self) -> Option<Inc> {
        self.inc
    }

    /// This life begins: a restart would find its incarnation, or finds nothing of any life (D0, and leaves). The edge makes
    /// the machine, which says `Hello` on the present connection to the controller, if there is one.
    pub const fn settle(&mut self) {
        self.settled = true;
    }

    /// Whether this life has begun.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.settled
    }

    /// A connection to the controller is open. Before the process has its place, this registers under a new request
    /// number: an answer on an earlier connection may name a life that is past.
    ///
    /// # Errors
    /// [`Full`]; nothing was sent: close the connection and open another.
    pub fn connected(
        &mut self,
        conn: ConnId,
        address: &str,
        out: &mut Outbox,
    ) -> Result<Speaker, Full> {
        self.hello = None;
        match self.inc {
            // What it would say is not true yet; the machine says it when it is made.
            Some(_) if !self.settled => Ok(Speaker::Edge),
            Some(inc) if self.place.role == Role::Replica => {
                out.send(conn, &self.hello_as(inc), &[])?;
                Ok(Speaker::Edge)
            }
            Some(_) => Ok(Speaker::Machine),
            None => {
                self.request = self.request.wrapping_add(1).max(1);
                let register = Register {
                    cluster: self.place.cluster,
                    node: self.place.node,
                    role: self.place.role,
                    log: self.place.log,
                    shard: self.place.shard,
                    slot: self.place.slot,
                    vertex: self.place.vertex,
                    last_inc: self.last_inc,
                    has_data: self.has_data,
                    request: self.request,
                };
                out.send(conn, &register, address.as_bytes())?;
                Ok(Speaker::Edge)
            }
        }
    }

    /// A message from the controller.
    pub fn handle(&mut self, message: &Message<'_>) -> Step {
        match message {
            Message::Registered(answer, reason) => {
                let reason = || String::from_utf8_lossy(reason).into_owned();
                if answer.request == 0 {
                    return Step::Replaced(reason());
                }
                if self.inc.is_some() || answer.request != self.request {
                    return Step::None;
                }
                if answer.inc == Inc::ZERO {
                    return Step::Refused(reason());
                }
                self.inc = Some(answer.inc);
                self.place.cluster = answer.cluster;
                Step::Admitted {
                    inc: answer.inc,
                    cluster: answer.cluster,
                }
            }
            Message::Hello(hello, _) => {
                self.hello = Some(*hello);
                if self.settled {
                    Step::Machine
                } else {
                    Step::None
                }
            }
            _ => self.for_machine(),
        }
    }

    /// The controller's greeting on the present connection, for a machine that was made after it came.
    #[must_use]
    pub const fn controller_hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    fn for_machine(&self) -> Step {
        if self.settled && self.place.role != Role::Replica {
            Step::Machine
        } else {
            Step::None
        }
    }

    fn hello_as(&self, inc: Inc) -> Hello {
        Hello {
            cluster: self.place.cluster,
            wire_version: WIRE_VERSION,
            role: self.place.role,
            node: self.place.node,
            inc,
            log: self.place.log,
            shard: self.place.shard,
            slot: self.place.slot,
            epoch: ViewId::ZERO,
            last: EntryNo::ZERO,
            client: ClientId::default(),
            session: SessionNo::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::OutboxLimits;
    use ionian_wire::frame::Registered;

    fn replica() -> Join {
        let place = Place {
            cluster: ClusterId::default(),
            node: NodeId::new(3),
            role: Role::Replica,
            log: LogId::new(1),
            shard: ShardId::new(0),
            slot: Slot::new(1),
            vertex: VertexId::ZERO,
        };
        Join::new(place, Inc::ZERO, false, 40)
    }

    fn answer(request: u64, inc: u64) -> Registered {
        Registered {
            request,
            cluster: ClusterId::new(9),
            inc: Inc::new(inc),
        }
    }

    #[test]
    fn only_the_answer_to_the_present_request_admits() {
        let mut join = replica();
        let mut out = Outbox::new(OutboxLimits::default());
        let conn = ConnId::new(0);
        out.set_room(conn, 1 << 20);
        join.connected(conn, "", &mut out).unwrap();
        join.connected(conn, "", &mut out).unwrap();
        assert_eq!(
            join.handle(&Message::Registered(answer(41, 5), b"")),
            Step::None
        );
        assert_eq!(join.inc(), None);
        let admitted = Step::Admitted {
            inc: Inc::new(6),
            cluster: ClusterId::new(9),
        };
        assert_eq!(
            join.handle(&Message::Registered(answer(42, 6), b"")),
            admitted
        );
        assert_eq!(
            join.handle(&Message::Registered(answer(0, 0), b"gone")),
            Step::Replaced("gone".into())
        );
    }

    #[test]
    fn a_life_says_hello_only_once_it_is_settled() {
        let mut join = replica();
        let mut out = Outbox::new(OutboxLimits::default());
        let conn = ConnId::new(0);
        out.set_room(conn, 1 << 20);
        join.connected(conn, "", &mut out).unwrap();
        join.handle(&Message::Registered(answer(41, 5), b""));
        out.clear();
        join.connected(conn, "", &mut out).unwrap();
        assert!(out.is_empty(), "its incarnation is not durable");
        join.settle();
        join.connected(conn, "", &mut out).unwrap();
        let envelope = &out.envelopes()[0];
        let (message, _) = Message::new_checked(out.head(envelope)).unwrap();
        assert!(matches!(message, Message::Hello(hello, _) if hello.inc == Inc::new(5)));
    }

    #[test]
    fn one_connection_between_two_replicas() {
        let peers = |slot| {
            dials(Role::Replica, Slot::new(slot))
                .filter(|target| matches!(target, Target::Peer(_)))
                .count()
        };
        assert_eq!((peers(0), peers(1), peers(2)), (0, 1, 2));
        assert_eq!(
            dials(Role::Root, Slot::ZERO).collect::<Vec<_>>(),
            [Target::Controller]
        );
    }
}
