//! Unreliable datagrams in bursts.
//!
//! A device may lose, duplicate, reorder and damage packets; the session layer above makes up for it. Received bytes
//! are untrusted. A full device leaves the rest of a burst with the caller.

use std::net::SocketAddr;
use std::os::fd::RawFd;

use crate::bounded::Bounded;
use crate::buf::{Buf, BufPool};

/// Where a packet comes from or goes to. Every datagram backend of ours carries UDP over IP, so this is address and port.
pub type PeerAddr = SocketAddr;

/// One datagram: its payload and the peer at the other end.
#[derive(Debug)]
#[must_use = "a dropped packet loses its buffer"]
pub struct Packet {
    /// The payload.
    pub buf: Buf,
    /// Sender of a received packet, destination of one to be sent.
    pub peer: PeerAddr,
}

/// A bounded queue of packets.
pub type PacketBatch = Bounded<Packet>;

/// What a device is and can do. Constant after it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PacketCaps {
    /// Name of the effective backend, e.g. `udp`.
    pub backend: &'static str,
    /// Largest payload of one packet in bytes; also the least slot size of a pool used to receive.
    pub payload_bytes_max: usize,
    /// Room that the device needs in front of each payload, in bytes: pools given to it are made with at least this much
    /// ([`BufPool::with_headroom`]). 0 where somebody else writes the headers.
    pub headroom_bytes: usize,
    /// Packets one call handles at most.
    pub batch_max: usize,
    /// The device cuts one large send into packets (UDP GSO).
    pub gso: bool,
    /// The device joins received packets (UDP GRO).
    pub gro: bool,
}

/// A device that sends and receives datagrams. Driven by one thread; no call blocks.
pub trait PacketDevice {
    /// What the device is and can do.
    fn caps(&self) -> PacketCaps;

    /// The address that peers send to.
    fn local_addr(&self) -> PeerAddr;

    /// Receives into slots of `pool`, which has the headroom that [`PacketCaps`] asks for, and appends to `out`, until
    /// nothing is waiting, `out` is full, the pool is empty or a batch is done. Returns the number of packets appended.
    fn rx_burst(&mut self, pool: &mut BufPool, out: &mut PacketBatch) -> usize;

    /// Sends from the front of `burst` and frees what was sent to `pool`, at once or when the device is done with it.
    /// Returns the number of packets taken; the rest stays in `burst` because the device is full: backpressure.
    ///
    /// A packet that cannot be sent at all (oversize, unreachable peer) is taken, freed and counted by the device: to
    /// the caller it is a lost packet.
    fn tx_burst(&mut self, pool: &mut BufPool, burst: &mut PacketBatch) -> usize;

    /// Asked before a sleep: `false` if a packet waits that the descriptor does not show, and the caller must not sleep.
    fn arm(&mut self) -> bool;

    /// A descriptor that polls readable while a packet waits, for a reactor that goes to sleep. The same for the
    /// device's life; `None` if the device can only be polled.
    fn wake_fd(&self) -> Option<RawFd>;
}
