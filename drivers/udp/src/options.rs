//! Options, counters and errors of the device.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use thiserror::Error;

use crate::header_bytes;

/// How to open a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpOptions {
    /// Address to bind; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Bytes of one IP packet, 576 to 65,535; the payload is this less 28 (IPv4) or 48 (IPv6). 65,535 is for loopback:
    /// on a network a packet larger than the link's is cut into fragments, and one lost fragment loses all.
    pub mtu_bytes: u32,
    /// Packets of one call, 1 to 1024.
    pub batch: usize,
    /// Receive buffer to ask the kernel for, in bytes. Larger ones ride out longer pauses of the reactor.
    pub rcvbuf_bytes: u32,
    /// Send buffer to ask the kernel for, in bytes.
    pub sndbuf_bytes: u32,
    /// Use UDP GSO where the kernel has it.
    pub gso: bool,
    /// Use UDP GRO where the kernel has it. Costs a copy per packet and saves a trip through the kernel's stack.
    pub gro: bool,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            mtu_bytes: 1500,
            batch: 64,
            rcvbuf_bytes: 4 << 20,
            sndbuf_bytes: 4 << 20,
            gso: true,
            gro: true,
        }
    }
}

/// Largest UDP payload over IPv4, by its 16-bit length field; used for IPv6 too.
const PAYLOAD_BYTES_MAX: usize = 65_507;

impl UdpOptions {
    pub(crate) fn payload_bytes_max(&self) -> Result<usize, UdpOpenError> {
        if !(576..=65_535).contains(&self.mtu_bytes) {
            return Err(UdpOpenError::Mtu {
                mtu_bytes: self.mtu_bytes,
            });
        }
        if !(1..=1024).contains(&self.batch) {
            return Err(UdpOpenError::Batch { batch: self.batch });
        }
        Ok((self.mtu_bytes as usize - header_bytes(&self.bind)).min(PAYLOAD_BYTES_MAX))
    }
}

/// Sizes of the kernel's socket buffers as read back, in bytes. The kernel counts its own overhead in them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UdpBuffers {
    /// Receive buffer.
    pub rcvbuf_bytes: u32,
    /// Send buffer.
    pub sndbuf_bytes: u32,
}

/// Counters of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UdpStats {
    /// Packets given to the kernel.
    pub tx_packets: u64,
    /// Sends they took; fewer than packets where GSO joined some.
    pub tx_sends: u64,
    /// System calls for sending.
    pub tx_calls: u64,
    /// Calls that found the send buffer full.
    pub tx_full: u64,
    /// Packets lost because the kernel refused them for good.
    pub tx_refused: u64,
    /// Error number of the last such refusal.
    pub tx_last_errno: i32,
    /// Packets received.
    pub rx_packets: u64,
    /// Receives they took; fewer than packets where GRO joined some.
    pub rx_receives: u64,
    /// System calls for receiving.
    pub rx_calls: u64,
    /// Packets lost because they were larger than a slot or than this device's payload.
    pub rx_oversize: u64,
    /// Errors reported by the socket while receiving, such as a peer's refusal.
    pub rx_errors: u64,
}

/// Why a device could not be opened. Effect: none.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UdpOpenError {
    /// Another socket has the address.
    #[error("{bind} is in use")]
    InUse {
        /// The address.
        bind: SocketAddr,
    },
    /// This process may not bind the address, e.g. a port below 1024.
    #[error("no permission to bind {bind}")]
    NotPermitted {
        /// The address.
        bind: SocketAddr,
    },
    /// This machine does not have the address.
    #[error("{bind} is not an address of this machine")]
    NotAvailable {
        /// The address.
        bind: SocketAddr,
    },
    /// The MTU is out of range.
    #[error("mtu_bytes = {mtu_bytes} is not within 576..=65535")]
    Mtu {
        /// The value.
        mtu_bytes: u32,
    },
    /// The batch is out of range.
    #[error("batch = {batch} is not within 1..=1024")]
    Batch {
        /// The value.
        batch: usize,
    },
    /// The system refused something else.
    #[error("{call} on {bind}: {source}")]
    System {
        /// What was refused.
        call: &'static str,
        /// The address.
        bind: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
}
