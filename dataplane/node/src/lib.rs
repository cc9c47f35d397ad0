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
pub mod tree;
mod udp;
mod wants;

pub use device::{DeviceFailure, FlushFault};
pub use host::Arrived;
pub use ionian_control_core::Word;
pub use ionian_core::guard::KeyChange;
pub use link::{LinkIds, ShmLink};
pub use role::{Place, Tuning};
pub use server::{
    ControllerAt, ControllerEnd, ControllerSeam, CoreUse, Effective, Files, PlaceError, PlaceEvent,
    PlaceEvents, PlaceSpec, ReactorUse, Server, ServerOptions, StartError, place_directory,
};
pub use udp::{FaultSpec, FaultSpecError, PortError, PortOptions, PortStats, TraceOptions};
