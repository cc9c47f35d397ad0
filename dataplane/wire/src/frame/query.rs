//! Opening a session, and the exchanges with the directory: registration, cluster maps, view intents, status.

use ionian_types::{
    ClientId, ClusterId, EntryNo, Gsn, Inc, LogId, NodeId, RootEpoch, SessionNo, ShardId, Slot,
    VertexId, ViewId,
};

use super::macros::{body, code_enum};

code_enum! {
    /// What a process is at one end of a session.
    Role {
        /// A client.
        Client = 1,
        /// A replica of `shard` in `slot`.
        Replica = 2,
        /// A leaf of the ordering tree.
        Leaf = 3,
        /// A member of the root group, the one in `slot`.
        Root = 4,
        /// The controller.
        Controller = 5,
        /// An inner vertex of the ordering tree.
        Aggregator = 6,
    }
}

body! {
    /// The first message of every session, in both directions. No tail.
    Hello = 1 {
        /// The cluster; a frame of another one is dropped.
        cluster: ClusterId,
        /// The sender's frame version.
        wire_version: u16,
        /// What the sender is here.
        role: Role,
        /// The sender's node; 0 for clients.
        node: NodeId,
        /// The sender's incarnation; 0 for clients.
        inc: Inc,
        /// The log that the session is about; `LogId::MAX` when it is about none.
        log: LogId,
        /// The sender's shard, for replicas.
        shard: ShardId,
        /// The sender's slot, for replicas and members of the root group.
        slot: Slot,
        /// The shard epoch entered (replicas), or 0.
        epoch: ViewId,
        /// The last entry applied or committed.
        last: EntryNo,
        /// The client life, for clients.
        client: ClientId,
        /// The client's session, for clients.
        session: SessionNo,
    }
}

body! {
    /// Process to controller: a role starts on a node. Tail: the address it listens on, UTF-8, may be empty.
    Register = 2 {
        /// The cluster; zero when the node has no data directory yet.
        cluster: ClusterId,
        /// The node.
        node: NodeId,
        /// The role.
        role: Role,
        /// The log.
        log: LogId,
        /// The shard, for replicas.
        shard: ShardId,
        /// The slot, for replicas and members of the root group.
        slot: Slot,
        /// The vertex of the tree, for aggregators and leaves.
        vertex: VertexId,
        /// The incarnation of the last life found in the data directory; 0 when none.
        last_inc: Inc,
        /// Whether the state of the last life is still here (D1 data directory, readable).
        has_data: bool,
        /// Names the answer.
        request: u64,
    }
}

body! {
    /// Answer to [`Register`]. Tail: why it was refused, UTF-8, empty when accepted.
    Registered = 3 {
        /// The request.
        request: u64,
        /// The cluster.
        cluster: ClusterId,
        /// The new incarnation; 0 when refused.
        inc: Inc,
    }
}

body! {
    /// Anyone to the directory: the cluster map, when it is newer than `known`. No tail.
    DirectoryRequest = 4 {
        /// Names the answer.
        request: u64,
        /// The version of the map known; 0 for any.
        known: u64,
    }
}

body! {
    /// The cluster map. Tail: a [`ClusterMap`](crate::directory::ClusterMap), empty when `version` is what was known.
    DirectoryAnswer = 5 {
        /// The request; 0 for a push.
        request: u64,
        /// The map's version.
        version: u64,
    }
}

body! {
    /// Controller to root: log this view. Idempotent by number. Tail: the view's changes, as [`crate::entry`] encodes them.
    Intent = 6 {
        /// The log.
        log: LogId,
        /// The view, one more than the last logged.
        view: ViewId,
    }
}

body! {
    /// Root to controller: the last view in the committed cut log. No tail.
    IntentDone = 7 {
        /// The log.
        log: LogId,
        /// The view.
        view: ViewId,
        /// The entry that holds it.
        entry: EntryNo,
    }
}

body! {
    /// Anyone to a process: its state and counters. No tail.
    StatusRequest = 8 {
        /// Names the answer.
        request: u64,
    }
}

body! {
    /// Answer to [`StatusRequest`]. Tail: JSON, UTF-8.
    StatusAnswer = 9 {
        /// The request.
        request: u64,
    }
}

body! {
    /// Controller to the member of the root group that it names leader: what it may do. Sent once enough members are sealed,
    /// after a new [`Hello`], and in answer to a [`CeilingRequest`] or a [`RootLed`](super::RootLed); within one epoch
    /// only the ceiling and `recorded` change. Tail: the configuration, `members` times node and incarnation (12 bytes each), in
    /// slot order, the leader among them.
    RootGrant = 10 {
        /// The log.
        log: LogId,
        /// The life that it is for.
        inc: Inc,
        /// The root epoch that it leads; no other life leads it.
        epoch: RootEpoch,
        /// Positions below may have been used by lives whose cut log is lost: a root without a cut log declares them lost
        /// and goes on from here.
        floor: Gsn,
        /// Positions below may be used.
        ceiling: Gsn,
        /// The view before the first one that a root without a cut log takes.
        view: ViewId,
        /// How many members hold an entry before it is committed, the leader among them.
        write_quorum: u8,
        /// How many members a later epoch must seal: `write_quorum + seal_quorum > members`.
        seal_quorum: u8,
        /// The number of members.
        members: u8,
        /// Whether the commit of this epoch's entry is recorded.
        recorded: bool,
    }
}

body! {
    /// Root to controller: reserve more positions. Answered by a [`RootGrant`]. No tail.
    CeilingRequest = 11 {
        /// The log.
        log: LogId,
        /// The root's incarnation.
        inc: Inc,
        /// The position up to which the root wants to order soon.
        upto: Gsn,
    }
}

body! {
    /// The first message of a session over datagrams, from the side that opened it: which place it wants to talk to. The
    /// host takes it; machines never see it. No tail.
    Connect = 12 {
        /// The cluster; zero when the opener does not know it yet.
        cluster: ClusterId,
        /// What the other end is wanted as.
        role: Role,
        /// Its log.
        log: LogId,
        /// Its shard, for replicas.
        shard: ShardId,
        /// Its slot, for replicas and members of the root group.
        slot: Slot,
        /// Its vertex of the tree, for aggregators and leaves.
        vertex: VertexId,
    }
}

body! {
    /// The process of a node to its controllers: its keys and the users, now and whenever they change. No tail.
    KeysRequest = 13 {
        /// The node, as the process's certificate says it.
        node: NodeId,
        /// The version known; 0 for any.
        known: u64,
    }
}

body! {
    /// Controller to the process of a node. Tail: [`NodeKeys`](crate::grant::NodeKeys).
    KeysAnswer = 14 {
        /// The node that they are for.
        node: NodeId,
        /// The version of the controllers' state.
        version: u64,
    }
}
