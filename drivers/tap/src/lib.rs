//! Ethernet frames through the kernel: TAP devices and AF_PACKET sockets.
//!
//! Both are a [`FrameLink`](ionian_ether::FrameLink) for [`EtherDevice`](ionian_ether::EtherDevice). They bypass the
//! kernel's IP and UDP and nothing else, so they are for machines and containers without a network card of our own, and for tests: one
//! system call per frame (TAP) or per burst (AF_PACKET).
//!
//! | link | what the process is | what it needs |
//! |---|---|---|
//! | [`TapLink`] | a host behind the interface, with an address of its own; the kernel, or a bridge, is at the other side | /dev/net/tun, CAP_NET_ADMIN (or a TAP device made for its user) |
//! | [`PacketLink`] | a second host on an interface that the kernel has, too | CAP_NET_RAW |
//!
//! Fault model: an interface that goes down or away is counted; frames are lost meanwhile, and slots come back. It works again
//! when it is back.
//!
//! # Safety model
//!
//! System calls read and write pool slots through raw addresses while the link holds their handles, and arrays on the heap
//! that do not move. Nothing stays with the kernel after a call returns.

mod af_packet;
mod auxiliary;
mod error;
mod filter;
mod interface;
mod system;
mod tap;

pub use af_packet::{PacketLink, PacketLinkOptions};
pub use error::LinkOpenError;
pub use tap::{TapLink, TapOptions};
