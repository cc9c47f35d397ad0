//! Roles wired to reactors, transports and devices.
#![forbid(unsafe_code)]

pub mod config;
mod dial;
pub mod embedded;
mod host;
mod link;
mod port;
mod role;
mod start;
mod udp;

pub use embedded::{Embedded, EmbeddedOptions};
pub use link::{LinkIds, ShmLink};
pub use role::{Place, Tuning};
pub use udp::{PortError, PortStats};
