//! Roles wired to reactors, transports and devices.
#![forbid(unsafe_code)]

pub mod client;
pub mod config;
pub mod device;
mod dial;
mod host;
mod link;
mod role;
mod server;
mod shares;
mod start;
pub mod status;
mod udp;

pub use device::{DeviceFailure, FlushFault};
pub use link::{LinkIds, ShmLink};
pub use role::{Place, Tuning};
pub use server::{
    CoreUse, Effective, ReactorUse, Server, ServerOptions, StartError, place_directory,
};
pub use udp::{FaultSpec, FaultSpecError, PortError, PortOptions, PortStats, TraceOptions};
