//! Shared-memory fabric: single-producer single-consumer rings between reactors of one machine.
//!
//! [`ring()`] makes one direction: a fixed ring of contiguous byte messages, zero-copy at both ends. [`duplex`] makes both
//! directions, and [`ShmFabric`] carries the [`Fabric`](ionian_driver_api::Fabric) contract over such pairs. Nothing is
//! allocated after creation, and a full ring is backpressure.
//!
//! Fault model: both ends are threads of one process and trusted; a peer that goes away is noticed by a flag, and what
//! it had published can still be read.

mod fabric;
mod flag;
mod ring;
mod sync;

pub use fabric::{ShmFabric, ShmFabricFull};
pub use ring::{
    CAPACITY_BYTES_MAX, CAPACITY_BYTES_MIN, Consumer, Endpoint, Producer, duplex, ring,
};
