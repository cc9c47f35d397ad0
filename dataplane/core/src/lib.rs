//! Sans-IO state machines of the ordering protocols.
//!
//! Nothing in this crate knows a socket, a file, a thread, a clock, a random source or a hash seed.
#![forbid(unsafe_code)]

pub mod session;
