//! Driver traits: packet devices, fabrics, one-sided writes, block queues, clocks, and their middleware.
//!
//! Protocol code sees these traits, never a device. Every trait is polled by one reactor thread, bounded, and generic
//! (static dispatch): the node wraps the concrete drivers it was built with in an enum, once, at the edge. Memory
//! crosses a trait only as a linear [`Buf`] handle of a registered [`BufPool`]; no `Vec<u8>` and no `&[u8]` does, so
//! that a driver for real hardware needs no change above it.
//!
//! | trait | what it is | who implements it |
//! |---|---|---|
//! | [`PacketDevice`] | unreliable datagrams in bursts | UDP sockets, the device of `drivers/ether` over TAP, AF_PACKET, AF_XDP, DPDK |
//! | [`Fabric`] | reliable FIFO connections | shared memory, RDMA RC |
//! | [`OneSided`] | writes into a peer's exposed buffer | RDMA, or [`Emulated`] over any fabric |
//! | [`BlockQueue`] | a submit/poll queue pair over numbered files | memory, files, NVMe |
//! | [`Clock`] | monotonic time for timeouts | the runtime |
//!
//! Fault model: bytes from a peer are untrusted and a driver never panics on them; a full queue is backpressure and
//! hands the buffer back; a handle used against the wrong pool, or twice, is our own bug and stops the process.

mod block;
mod bounded;
mod buf;
mod clock;
mod counting;
pub mod dma;
mod emulated;
mod fabric;
mod middleware;
mod onesided;
mod packet;
mod wake;

pub use block::{
    BlockError, BlockLimits, BlockOp, BlockQueue, BlockRequest, Completion, Completions, FileId,
    OpKind, OpenError,
};
pub use bounded::Bounded;
pub use buf::{Buf, BufPool, PoolError, PoolLayout, PoolOptions, PoolStats};
pub use clock::{Clock, ManualClock};
pub use counting::CountingAllocator;
pub use emulated::Emulated;
pub use fabric::{
    CloseReason, Fabric, FabricCaps, FabricEvent, FabricEvents, RegisterError, SendError,
};
pub use ionian_types::{ConnId, Effect, Time};
pub use middleware::{
    BlockFaults, Dice, FabricFaults, FaultCounts, FaultyBlocks, FaultyFabric, FaultyPackets,
    PacketFaults, TraceCounts, TraceEvent, TraceKind, Traced,
};
pub use onesided::{ExposeError, OneSided, RegionGrant, RegionKey, RegionRange, RegionRights};
pub use packet::{Packet, PacketBatch, PacketCaps, PacketDevice, PeerAddr};
pub use wake::{NoWake, Wake};
