//! The control plane's state machine: incarnations, views, placement, ceilings.
//!
//! [`Directory`] is the single built-in controller behind the directory seam, without I/O: messages and the time go in,
//! messages come out of [`Directory::poll`], and the edge makes snapshots durable. A group of controllers runs the same
//! state machine on a replicated log.
//!
//! # What is durable, and when
//!
//! Every change raises [`Directory::version`]. A message that depends on a change leaves only after the edge has made a
//! snapshot of that version (or a later one) durable and has said so by [`Directory::persisted`]. So an incarnation, a
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
//! # What a process does
//!
//! It sends `Register` and waits for `Registered` with its request number. The number is new for every connection: an
//! answer to a request of an earlier connection may name a life that is past. Over later connections of the same life it
//! says who it is by `Hello` with its incarnation; of several connections of one life the one opened last counts, whatever
//! arrives late by the others. `Registered` with request 0 says that a later life has its place: it stops. A root also waits
//! for a `RootGrant` of its incarnation; without a cut log it declares every position below `floor` lost, and takes
//! `view + 1` as its first view.
//!
//! # Failure table
//!
//! | what happened | what the directory does |
//! |---|---|
//! | replica restarts, its data or a peer's is there | new incarnation; `Close` its generation, open the next for the new life |
//! | leaf restarts | new incarnation; `Tree` with the new one |
//! | root restarts with its cut log | new incarnation, next root epoch, pending intent sent again |
//! | D0: root comes back without its cut log | the records are unreachable: all positions up to the reserved ceiling are lost (the root declares that), the numbers of views go on, a view that may have been logged is never issued again; every shard is opened anew, under its old id, once all of its members are there |
//! | D0: all members of a shard lost their memory since the shard was last whole | nobody can be copied from: `Finalize` with `lost_from` 0 (the root declares the shard's records lost), then `Open` of the same shard in the same view |
//! | D1, D2: the cut log or the last copy of a shard is missing | the registration is refused with a sentence: acknowledged records must not vanish because a disk was mounted late |
//! | intent, answer or `IntentDone` lost or repeated | sent again by time or on reconnection; repeats change nothing |
//! | controller restarts | state of the last durable snapshot; whatever left before is in it |
//! | a process of another cluster, node or place | refused with a sentence |
//!
//! An `Open` of a shard that is known is a reset after a declared loss: its members forget what they hold.
//!
//! Which member still holds a shard's records is known from registrations (`has_data`) and from the leaf's `ShardStatus`
//! (`whole`: every committed length is held again by every member of that epoch). A member that lost its memory counts as
//! holding nothing until the shard is reported whole with its new incarnation; if every other member is lost in between,
//! a copy that was complete but not yet reported is given up with the rest.
#![forbid(unsafe_code)]

mod decision;
mod directory;
mod inbound;
mod map;
mod outbound;
mod plan;
mod registration;
mod snapshot;
mod spec;
mod state;
#[cfg(test)]
mod tests;

pub use decision::{Decision, What, Why};
pub use directory::{Counters, Directory, DirectoryConfig, LogStatus, ShardHealth, Snapshot};
pub use registration::Refusal;
pub use snapshot::RestoreError;
pub use spec::{ClusterSpec, LogSpec, NodeSpec, SpecError};

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
/// The number of decisions kept for the status.
pub const DECISIONS_KEPT: usize = 256;
