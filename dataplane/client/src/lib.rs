//! The Ionian client library: append to, read and follow a totally ordered, sharded, replicated log.
//!
//! [`Log`] is the blocking face, [`AsyncLog`] the asynchronous one; both run the same machine
//! ([`ionian_core::client::Client`]) over a [`Link`], which the node crate provides for shared memory and UDP. [`testing`]
//! has a cluster in memory.
//!
//! * An append that returned a position is in the log at that position, once, whatever happens to connections and servers.
//! * Appends of a client with the default policy ([`Policy::Sticky`]) keep their order.
//! * An error says what the failed operation may have done: [`Error::effect`].
//! * A subscription delivers every position in order; one without a record is a typed gap.
//!
//! Fault model: that of the machine. This crate adds none: it moves messages and waits.
#![forbid(unsafe_code)]

mod asynchronous;
mod driver;
mod error;
mod final_read;
pub mod history;
mod link;
mod log;
mod reads;
mod subscription;
pub mod testing;

pub use asynchronous::{AsyncLog, AsyncSubscription, NextDelivery, Operation};
pub use error::Error;
pub use final_read::FinalRead;
pub use ionian_core::client::{
    AppendFailure, Choice, ClientConfig, ClientStats, Completion, Outcome, PeerKind, Policy, Ticket,
};
pub use ionian_types::{Effect, Frontiers, GapKind, Gsn, ShardId};
pub use link::{Link, LinkEvent, LinkWaker};
pub use log::{Appended, Log};
pub use reads::ReadOutcome;
pub use subscription::{Delivery, DeliveryRef, Subscription};
