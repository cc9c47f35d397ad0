//! UDP packet device: batched datagrams over kernel sockets.
//!
//! One socket, not blocking, driven by `sendmmsg` and `recvmmsg` over arrays allocated at start. Where the kernel takes
//! it, runs of equal packets to one peer leave as one large send (UDP GSO) and arrive joined (UDP GRO); both are probed
//! at start and shown in the capabilities.
//!
//! Fault model: packets are lost, duplicated, reordered and forged. A packet that the kernel refuses for good (an
//! unreachable or refusing peer, a firewall, a size beyond the path) is counted and lost; the device goes on. A full
//! send buffer is backpressure.
//!
//! # Safety model
//!
//! The system calls read and write pool slots through raw addresses while this device holds their handles, and the
//! message arrays, which live on the heap and do not move. Nothing stays with the kernel after a call returns.

mod addr;
mod options;
mod rx;
mod socket;
mod tx;

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use ionian_driver_api::{BufPool, PacketBatch, PacketCaps, PacketDevice, PeerAddr};

pub use options::{UdpBuffers, UdpOpenError, UdpOptions, UdpStats};

use rx::Receiver;
use socket::Socket;
use tx::Sender;

/// A UDP socket as a packet device.
#[derive(Debug)]
pub struct UdpDevice {
    socket: Socket,
    tx: Sender,
    rx: Receiver,
    stats: UdpStats,
    caps: PacketCaps,
}

impl UdpDevice {
    /// Binds a socket and probes what the kernel can do.
    ///
    /// # Errors
    ///
    /// [`UdpOpenError`], which tells an address in use from one that is not permitted or not there. Effect: none.
    pub fn open(options: &UdpOptions) -> Result<Self, UdpOpenError> {
        let payload_bytes_max = options.payload_bytes_max()?;
        let socket = Socket::bind(options)?;
        let caps = PacketCaps {
            backend: "udp",
            payload_bytes_max,
            headroom_bytes: 0,
            batch_max: options.batch,
            gso: socket.gso,
            gro: socket.gro,
        };
        Ok(Self {
            tx: Sender::new(
                options.batch,
                payload_bytes_max,
                socket.gso,
                socket.is_ipv6(),
            ),
            rx: Receiver::new(options.batch, payload_bytes_max, socket.gro),
            stats: UdpStats::default(),
            socket,
            caps,
        })
    }

    /// Counters since the device was opened.
    #[must_use]
    pub fn stats(&self) -> UdpStats {
        self.stats
    }

    /// The kernel's buffers as they are, which may be less than was asked for.
    #[must_use]
    pub fn buffers(&self) -> UdpBuffers {
        self.socket.buffers
    }
}

impl PacketDevice for UdpDevice {
    fn caps(&self) -> PacketCaps {
        PacketCaps {
            gso: self.tx.gso(),
            ..self.caps
        }
    }

    fn local_addr(&self) -> PeerAddr {
        self.socket.local
    }

    fn rx_burst(&mut self, pool: &mut BufPool, out: &mut PacketBatch) -> usize {
        self.rx.burst(&self.socket, pool, out, &mut self.stats)
    }

    fn tx_burst(&mut self, pool: &mut BufPool, burst: &mut PacketBatch) -> usize {
        self.tx.burst(&self.socket, pool, burst, &mut self.stats)
    }

    fn arm(&mut self) -> bool {
        // Joined packets that were received and not yet handed out do not show on the descriptor.
        !self.rx.has_pending()
    }

    fn wake_fd(&self) -> Option<RawFd> {
        Some(self.socket.as_raw_fd())
    }
}

/// Bytes of IP and UDP headers of one packet of an address family.
const fn header_bytes(addr: &SocketAddr) -> usize {
    match addr {
        SocketAddr::V4(_) => 20 + 8,
        SocketAddr::V6(_) => 40 + 8,
    }
}

#[cfg(test)]
mod tests;
