//! Wrappers that implement the trait they wrap: faults on purpose, and a trace. The same ones run over every backend.

mod dice;
mod faulty_blocks;
mod faulty_fabric;
mod faulty_packets;
mod traced;

pub use dice::{Dice, FaultCounts};
pub use faulty_blocks::{BlockFaults, FaultyBlocks};
pub use faulty_fabric::{FabricFaults, FaultyFabric};
pub use faulty_packets::{FaultyPackets, PacketFaults};
pub use traced::{TraceCounts, TraceEvent, TraceKind, Traced};
