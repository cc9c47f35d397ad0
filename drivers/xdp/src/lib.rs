//! AF_XDP frame link: Ethernet frames of one receive queue through rings shared with the kernel.
//!
//! An [`XdpLink`] is a [`FrameLink`](ionian_ether::FrameLink) over plain system calls: a socket of AF_XDP with its frames
//! and four rings, and a small XDP program that redirects to it what is ours (UDP for our address and port, ARP and
//! neighbour discovery for the address) and passes everything else to the kernel. No library of the system is linked, no
//! file system of BPF is needed, and nothing stays behind when the process ends: the program is attached by a link that
//! is a descriptor.
//!
//! | | copies on receive | copies on send |
//! |---|---|---|
//! | zero-copy mode | frame to slot | slot to frame |
//! | copy mode | kernel's buffer to frame to slot | slot to frame to kernel's buffer |
//!
//! The copy between frame and slot is ours. It keeps all memory that a device may write in one file, and pools exact
//! whatever becomes of the device; what it saves otherwise is a packet's worth of cache misses, and not a system call.
//!
//! Limits: one queue per link and one link per interface, since an interface has one program; packets of one frame, so
//! that the MTU is 3,822 bytes at most; IEEE 802.1Q tags in the frame, so that a device which takes them off is told not
//! to (`ethtool -K INTERFACE rxvlan off`). Peers that send from the kernel over a virtual pair (veth) leave the checksums
//! of UDP to a device that is not there: `ethtool -K INTERFACE tx off` at their end. Busy polling by the kernel is not
//! used. Zero-copy mode is written to the kernel's interface and has not run: virtual interfaces refuse it, as the tests
//! show.
//!
//! A frame goes to the link or to the kernel, never to both. So announcements of neighbours to everybody are the kernel's;
//! a neighbour whose hardware address changes is noticed when it asks for ours, or does not answer any more.
//!
//! Fault model: packets are lost, duplicated, reordered and forged. What comes too late, too large or too often is counted
//! by the kernel and lost. An interface that is down loses what is sent, and the link goes on when it is up again; one
//! that is removed loses everything, and the link says so ([`XdpStats::link_gone`]).
//!
//! # Safety model
//!
//! Memory that the kernel or a device may write is that of `mapping` and `umem`, which say who may use which bytes;
//! what the system calls read and write is said in `socket`, `bpf` and `interface`.

mod bpf;
mod error;
mod interface;
mod link;
mod mapping;
mod options;
mod program;
pub mod ring;
mod socket;
mod umem;

pub use error::XdpOpenError;
pub use link::XdpLink;
pub use options::{XdpAttach, XdpKernelStats, XdpMode, XdpOptions, XdpStats};
