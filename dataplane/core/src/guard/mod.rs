//! What guards a process's sessions: the grants that open them, and what each may send.
//!
//! ```text
//! a packet of a session that is not there --> Keyring::knock --> nothing, or a session (Granted::config)
//! a message of a session                  --> Gate::passes   --> handed on, or the session ends
//! its first one, which names a place      --> may_reach      --> bound to the place, or the session ends
//! what the controllers say of keys        --> Keyring::change, then Keyring::is_good of each session's grant
//! ```
//! The edge owns sockets and sessions and asks here; nothing here has a clock or a random source.

mod keyring;
mod rights;

pub use keyring::{ANY_NODE, Granted, KeyChange, Keyring, Knock, Stranger};
pub use rights::{Gate, may_reach, may_send};
