//! Roles wired to reactors, transports and devices.
#![forbid(unsafe_code)]

pub mod embedded;
mod host;
mod link;
mod port;
mod role;
mod start;

pub use embedded::{Embedded, EmbeddedOptions};
pub use link::{LinkIds, ShmLink};
pub use role::{Place, Tuning};
