//! Ethernet frames over DPDK: user-space drivers of NICs, and virtual devices.
//!
//! `Eal` starts DPDK, once in the life of a process. `Eal::open` makes a port of a virtual device or a PCI device and gives one
//! `DpdkLink` per pair of queues, each a [`FrameLink`](ionian_ether::FrameLink) for one thread, driven to completion: no
//! thread of DPDK's touches a frame. Both are there with the feature `dpdk` only, which links an installed DPDK; options, their checks,
//! and the sentences that say what is missing are there without it.
//!
//! | device | other end | needs |
//! |---|---|---|
//! | `Eal::ring_pair` | the other port of the pair, in this process | nothing |
//! | [`Vdev::Memif`] | another process of this machine | nothing |
//! | [`Vdev::AfPacket`] | whatever the interface is connected with | `CAP_NET_RAW` |
//! | [`Vdev::AfXdp`] | the same | `CAP_NET_ADMIN`, `CAP_BPF` |
//! | [`Vdev::Tap`] | the kernel, by a new interface | `CAP_NET_ADMIN`, `/dev/net/tun` |
//! | [`Device::Pci`] | the network | the device bound to `vfio-pci`; huge pages. Not run: no such device was at hand |
//!
//! # Copies
//!
//! A frame is copied once in each direction, between its pool slot and a buffer of DPDK's (an mbuf). Attaching slots to mbufs as
//! external buffers would save that, but a slot would then come back by a callback on whichever thread a driver frees
//! it, and the virtual devices here copy such frames themselves.
//!
//! # Fault model
//!
//! Received frames are untrusted bytes: short, long and chained ones are dropped and counted. A link that is down takes what
//! is sent and loses it, as a cable does. A device that asks for a reset is stopped, reset and started again once every link of its port
//! has noticed; frames in it are lost and its buffers come back.
//!
//! # Safety model
//!
//! DPDK's memory is reached through raw pointers only, never by reference. An mbuf belongs to this crate from the call that receives or
//! takes it to the call that sends it or gives it back; in between nobody else writes it, and its bytes are copied. Pools, rings and the
//! environment live as long as a port that uses them, by counted references. Calls that make, stop or remove devices are
//! made one at a time, under a lock.

mod error;
mod options;
mod preflight;
mod vdev;

#[cfg(feature = "dpdk")]
mod dpdk;

pub use error::{OpenError, StartError, explain_start};
pub use options::{Device, EalOptions, HugePages, OptionError, PortOptions};
pub use preflight::{
    check as preflight, check_driver, driver_library, driver_package, huge_free_mib, sweep,
};
pub use vdev::{MemifRole, Vdev, VdevError};

#[cfg(feature = "dpdk")]
pub use dpdk::{DpdkLink, Eal, PortStats, RegisteredThread};
