//! Sans-IO state machines of the ordering protocols.
//!
//! Nothing in this crate knows a socket, a file, a thread, a clock, a random source or a hash seed. Each machine takes
//! messages and the time, and leaves messages in an [`Outbox`]; the same machines run in the simulator, in one process and
//! on many hosts.
#![forbid(unsafe_code)]

extern crate alloc;

pub mod aggregator;
pub mod client;
pub mod cutlog;
pub mod dedup;
pub mod edge;
pub mod guard;
pub mod index;
pub mod leaf;
pub mod mode;
pub mod outbox;
pub mod replica;
pub mod root;
pub mod session;
pub mod tree;

pub use outbox::{Full, Outbox, OutboxLimits};
