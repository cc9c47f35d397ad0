//! The control plane's state machine: incarnations, views, placement, ceilings.
//!
//! Two halves, both without I/O. [`State`] is what is replicated: it changes by [`Command`]s alone, and controllers that
//! apply the same commands hold the same bytes. [`Directory`] is the brain of the one that leads: connections, which process
//! is behind which, answers that wait. Messages and the time go in, it turns them into commands that it applies to its own
//! state at once, and messages come out of [`Directory::poll`].
//!
//! A single built-in controller makes snapshots durable ([`Directory::take_snapshot`]). A group agrees on the commands
//! ([`Directory::take_commands`]), each of which every member hands to [`State::apply_bytes`]; whoever leads next starts from
//! the state agreed on ([`Directory::lead`]). A command names the version that it follows and is refused elsewhere.
//!
//! # What is durable, and when
//!
//! Every command raises [`Directory::version`] by one. A message that depends on a change leaves only after the edge has made
//! that version (or a later one) durable and has said so by [`Directory::persisted`]. So an incarnation, a
//! root epoch, a view number or a reserved position that anybody has seen is never issued again, wherever the controller
//! stops.
//!
//! # How a view comes about
//!
//! Each log holds two pictures: what the cut log says (the last view reported by `IntentDone`), and what should be (who
//! has registered). While they differ and the root is connected, the difference becomes *one* intent, numbered after the
//! last view; it is sent until `IntentDone` names it, and only then the next difference is looked at. So views are dense
//! and in order, an intent's content never changes once it may have been seen, and many restarts in a row cost one view.
//!
//! # Who leads a root group
//!
//! A root epoch is issued, the members that are there promise it ([`Seal`](ionian_wire::frame::Seal)), and of those that did
//! the one whose log reaches furthest is named leader of a configuration that lists every member's life. Once the leader says
//! that it has committed its epoch's entry, earlier configurations are forgotten, and intents go to it. This begins again when
//! the leader is gone for [`DirectoryConfig::failover_after`], or when a member has a life that is not listed. A member that
//! comes back with its data counts for the life that it had, from the moment its device is known to name the new one.
//!
//! # What an operator does
//!
//! An [`Operate`] request becomes a [`Transaction`]: a list of tasks in the state, of which one is under way. Beginning a task
//! changes what should be; views and epochs follow as for every other difference, and whether it is done is read from the
//! state, so that another controller goes on with it. With `plan` it is only said what would be done. What cannot be seen by
//! anybody yet may be cancelled. What would drop the last copy of records is refused with the reason.
//!
//! # Users
//!
//! A user is a client certificate's name. Its rights on logs are part of the state; what it opens sessions with are grants that
//! follow from the newest key, which is part of the state too. Processes of nodes that have asked are told of changed keys and
//! users as soon as the change is durable.
//!
//! # Who is dead
//!
//! With [`DirectoryConfig::detection`], processes say what they hear of each other (`Observe`, `Suspect`), and are asked
//! (`Probe`). A process that most of those who would hear it do not hear, and none does, is dead: its places are shown as down,
//! segments that nobody can write any more are closed until it is back, its root groups get another leader, its leaves go
//! elsewhere. Without it a death shows only by a lost connection.
//!
//! # What a process does
//!
//! It sends `Register` and waits for `Registered` with its request number. The number is new for every connection: an
//! answer to a request of an earlier connection may name a life that is past. Over later connections of the same life it
//! says who it is by `Hello` with its incarnation; of several connections of one life the one opened last counts, whatever
//! arrives late by the others; a registration there waits until the later connection is gone. `Registered` with request 0
//! says that a later life has its place, or that what this one holds was given up: it stops. A root leads once it has a
//! `RootGrant` of its incarnation; without a cut log it declares every position below `floor` lost, and takes `view + 1` as
//! its first view.
//!
//! # Failure table
//!
//! | what happened | what the directory does |
//! |---|---|
//! | replica restarts, its data or a peer's is there | new incarnation; `Close` its generation, open the next for the new life |
//! | aggregator or leaf restarts | new incarnation; `Tree` with the new one |
//! | a tree of another form is asked for | the present one goes on until every process of the new one is there; then one `Tree` |
//! | root restarts with its cut log | new incarnation, next root epoch, pending intent sent again |
//! | a member of a root group dies, leader or not | the others go on, in a new epoch if it led (or if all have to write) |
//! | a member of a root group restarts with its data | a new epoch lists its new life; until then its promises count for the life before |
//! | D0: root comes back without its cut log, or too few members are left that may hold what was committed | the records are unreachable: all positions up to the reserved ceiling are lost (the root declares that), the numbers of views go on, a view that may have been logged is never issued again; every shard is opened anew, under its old id, once all of its members are there |
//! | D0: all members of a shard lost their memory since the shard was last whole | nobody can be copied from: `Finalize` with `lost_from` 0 (the root declares the shard's records lost), then `Open` of the same shard in the same view |
//! | a data directory of an earlier life than one that has said hello | an old image: the registration is refused with a sentence |
//! | D1, D2: the cut log or the last copy of a shard is missing | the registration is refused with a sentence: acknowledged records must not vanish because a disk was mounted late |
//! | intent, answer or `IntentDone` lost or repeated | sent again by time or on reconnection; repeats change nothing |
//! | controller restarts | state of the last durable snapshot; whatever left before is in it |
//! | a process of another cluster, node, place or wire version | refused with a sentence, which the operator's log has too |
//!
//! An `Open` of a shard that is known is a reset after a declared loss: its members forget what they hold.
//!
//! Which member still holds a shard's records is known from registrations (`has_data`) and from the leaf's `ShardStatus`
//! (`whole`: every committed length is held again by every member of that epoch). A member that lost its memory counts as
//! holding nothing until the shard is reported whole with its new incarnation; if every other member is lost in between,
//! a copy that was complete but not yet reported is given up with the rest.
#![forbid(unsafe_code)]

mod apply;
mod codec;
mod command;
mod copies;
mod death;
mod decision;
mod desk;
mod detection;
mod directory;
mod failover;
mod foresee;
mod group;
mod history;
mod inbound;
mod keys;
mod map;
mod observer;
mod operate;
mod operation;
mod outbound;
mod picture;
mod placement;
mod plan;
mod registration;
mod routes;
mod shape;
mod snapshot;
mod spec;
mod state;
mod suspicion;
#[cfg(test)]
mod tests;
mod transaction;
mod tree;
mod users;

pub use apply::{CommandError, Outcome};
pub use command::Command;
pub use decision::{Decision, What, Why};
pub use desk::{Asker, GRANTS_PER_ANSWER_MAX, UserGrants, Who};
pub use detection::DetectionConfig;
pub use directory::{
    Counters, Directory, DirectoryConfig, LogStatus, ShardHealth, Snapshot, TakenCommand,
    VertexStatus,
};
pub use group::RootQuorum;
pub use history::Event;
pub use keys::FIRST_KEY_EPOCH;
pub use map::Assignment;
pub use observer::{Observer, Word};
pub use operation::{Details, Operate, Operated, Operation};
pub use picture::{
    ClusterPicture, LogPicture, NodePicture, PlacePicture, ReplicaPicture, RootPhase, RootPicture,
    ShardPicture, ShardStage, TransactionPicture, UserPicture, VertexPicture,
};
pub use placement::{Candidate, PlacementError, place};
pub use registration::{Refusal, Refused};
pub use shape::{FAN_IN_MAX, ShapeError, TreeSpec, VertexShape, balanced};
pub use snapshot::RestoreError;
pub use spec::{ClusterSpec, LogSpec, NodeSpec, SpecError};
pub use state::State;
pub use transaction::{Progress, Transaction};
pub use users::{ADMIN, RIGHTS_MAX, USER_NAME_BYTES_MAX, USER_RIGHTS, USERS_MAX};

pub use ionian_wire::directory::ROOT_MEMBERS_MAX;

/// Positions are reserved in blocks of this many, ahead of their use.
pub const CEILING_BLOCK: u64 = 1 << 32;
/// The longest content of one intent, in bytes. What does not fit waits for the next view.
pub const INTENT_BYTES_MAX: usize = 512 << 10;
/// The most nodes of a cluster.
pub const NODES_MAX: usize = 16_384;
/// The largest cluster map in bytes; a log or address that would pass it is refused.
pub const MAP_BYTES_MAX: usize = (1 << 20) - 4096;
/// The most answers that wait for a snapshot to become durable. Requests beyond are dropped; peers ask again.
pub const ANSWERS_MAX: usize = 65_536;
/// The longest encoded command in bytes: an intent with its decisions, or a log with all of its shards.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;
/// The most changes of a replicated directory that wait to become durable. Messages beyond are dropped; peers ask again.
pub const COMMANDS_MAX: u64 = 65_536;
/// The most configurations of a root group that are kept. Those that ask for the same are kept once.
pub const ROOT_CONFIGS_MAX: usize = 256;
/// The number of transactions kept, with those that are over.
pub const TRANSACTIONS_KEPT: usize = 256;
/// The most transactions that run at a time.
pub const TRANSACTIONS_RUNNING_MAX: usize = 64;
/// The number of events kept in the history of each log.
pub const HISTORY_KEPT: usize = 1024;
/// The number of decisions kept for the status.
pub const DECISIONS_KEPT: usize = 256;
