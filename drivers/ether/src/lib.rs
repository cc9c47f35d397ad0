//! UDP packets in Ethernet frames, over any device that carries frames.
//!
//! The lower seam is [`FrameLink`]: bursts of frames in pool slots. [`EtherDevice`] makes a
//! [`PacketDevice`](ionian_driver_api::PacketDevice) of it: it finds its peers' hardware addresses (ARP for IPv4, neighbour
//! discovery for IPv6) and answers for its own, puts the headers of Ethernet, IEEE 802.1Q, IP and UDP in front of payloads,
//! and takes them off again. The bytes of all of these are read and written by the wire module of smoltcp.
//!
//! The host that a device is has one IP address, one UDP port, one hardware address and, if need be, one gateway. It
//! speaks UDP and nothing else: it answers no ping, reports no unreachable port, sends no fragments and takes none. It sends no reports of
//! multicast listeners: a switch that forwards groups only to those who asked needs a static entry for IPv6.
//!
//! # Ownership of slots
//!
//! A packet to be sent keeps its slot: headers go into the headroom, and the link gets the slot. What waits for a
//! neighbour's address keeps its slots, too, in a bounded queue; [`EtherDevice::close`] gives all of them back.
//!
//! Fault model: every byte of a received frame is untrusted. Foreign, truncated, oversize, damaged and fragmented frames
//! are dropped and counted by reason. Anybody on the network segment can claim to be anybody by ARP: who is who is the business
//! of the sessions above, by grant and token.

#![forbid(unsafe_code)]

mod emit;
mod ether;
mod headers;
mod link;
mod mac;
mod memory;
mod neighbours;
mod options;
mod parse;
mod rx;
mod tx;

pub use ether::EtherDevice;
pub use headers::Headers;
pub use link::{Checksum, Frame, FrameBatch, FrameLink, LinkCaps, LinkStats};
pub use mac::{MacAddr, MacError};
pub use memory::{MemoryLink, Wire};
pub use options::{EtherOpenError, EtherOptions, EtherStats};

#[cfg(test)]
mod tests;
