//! A group of controllers: Raft over redb, the operator API with mutual TLS, the cluster's certificate authority.
//!
//! [`Controller::start`] runs one controller in a thread of its own. What is controlled comes from outside, by two seams of
//! [`machine`]: the replicated [`StateMachine`] and the leader's [`Brain`]. [`ca`] makes certificates. The messages and the
//! client are in `ionian-control-client`, which processes of the data plane use without this crate.
//!
//! ```text
//!  nodes, users --Attach, Operate, ...--> api --> leader --> brain --> commands
//!                                                    ^                    |
//!                                             applied, in order           v
//!  other controllers <--network, hearing--> Raft (openraft) <--------- proposals
//!                                             |        |
//!                                       store: log   state machine, snapshots
//! ```
#![forbid(unsafe_code)]

pub mod ca;
pub mod machine;

mod api;
mod config;
mod controller;
mod group;
mod hearing;
mod join;
mod leader;
mod listen;
mod lives;
mod network;
mod refusals;
mod standing;
mod store;
#[cfg(test)]
mod tests;

pub use config::{ControllerConfig, GroupTiming, Limits, Start};
pub use controller::{Controller, StartError};
pub use group::{ADDRESS_BYTES_MAX, VOTERS_MAX};
pub use machine::{Brain, MakeBrain, StateMachine};
pub use standing::Standing;
pub use store::StoreError;
