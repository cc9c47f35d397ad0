//! Options, counters and errors of the device.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use crate::headers::Headers;
use crate::link::LinkCaps;

/// Who the device is on its network, and how it behaves there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EtherOptions {
    /// Own address and UDP port, both given: the host that the device is has no other. An address of one station.
    pub local: SocketAddr,
    /// Leading bits of the address that all neighbours share, 0 to 32 or 128. Peers outside are behind the gateway.
    pub prefix_len: u8,
    /// Neighbour that passes on what is for peers outside of the prefix; without one they cannot be reached.
    pub gateway: Option<IpAddr>,
    /// VLAN by IEEE 802.1Q, 1 to 4094: frames carry its tag, and frames without it are not for this device.
    pub vlan: Option<u16>,
    /// Largest IP packet in bytes, 576 (IPv6: 1280) to what the link carries; the payload is this less 28 (IPv4) or 48 (IPv6).
    pub mtu_bytes: u32,
    /// Packets of one call, 1 to 1024.
    pub batch: usize,
    /// Neighbours remembered at once, 1 to 65,536.
    pub neighbours_max: usize,
    /// Packets that wait for one neighbour's hardware address, 1 to 1024; later ones are dropped.
    pub waiting_max: usize,
    /// Packets that wait for the hardware addresses of all neighbours together, 1 to 65,536.
    pub waiting_all_max: usize,
    /// How long an address is used after it was heard, in milliseconds, before its neighbour is asked again, 100 to 3,600,000.
    /// It goes on being used while the answer is awaited.
    pub reachable_ms: u32,
    /// From one question for an address to the next, in milliseconds, 10 to 60,000.
    pub retry_ms: u32,
    /// Questions without an answer after which a neighbour counts as not there, 1 to 100.
    pub tries_max: u8,
}

impl EtherOptions {
    /// Those of a host with this address and port, whose neighbours share the leading `prefix_len` bits of it; everything
    /// else as is usual.
    ///
    /// *Source*: 30 s as REACHABLE_TIME of RFC 4861, section 10. Questions are asked four times a second instead of once
    /// (RFC 1122, section 2.3.2.1, recommends one): one lost question would otherwise outlast a session's time-outs.
    #[must_use]
    pub const fn new(local: SocketAddr, prefix_len: u8) -> Self {
        Self {
            local,
            prefix_len,
            gateway: None,
            vlan: None,
            mtu_bytes: 1500,
            batch: 64,
            neighbours_max: 1024,
            waiting_max: 16,
            waiting_all_max: 256,
            reachable_ms: 30_000,
            retry_ms: 250,
            tries_max: 4,
        }
    }

    pub(crate) fn headers(&self) -> Headers {
        Headers::new(self.local.ip(), self.vlan)
    }

    pub(crate) fn payload_bytes_max(&self) -> usize {
        let overhead = self.headers().bytes() - self.headers().ethernet_bytes();
        // Both length fields have 16 bits; IPv4's counts its own header.
        self.mtu_bytes.min(65_535) as usize - overhead
    }

    /// Says what is wrong with the options for such a link, if anything is.
    pub(crate) fn check(&self, link: &LinkCaps) -> Result<(), EtherOpenError> {
        let ipv6 = self.local.is_ipv6();
        let value = |key, value: u64, range: &'static str, inside: bool| {
            if inside {
                Ok(())
            } else {
                Err(EtherOpenError::Value { key, value, range })
            }
        };
        let bits = if ipv6 { 128 } else { 32 };
        if self.local.port() == 0 || !is_station(self.local.ip()) {
            return Err(EtherOpenError::Local { local: self.local });
        }
        let prefix_range = if ipv6 { "0..=128" } else { "0..=32" };
        let prefix_len = u64::from(self.prefix_len);
        value("prefix_len", prefix_len, prefix_range, prefix_len <= bits)?;
        if let Some(vlan) = self.vlan {
            value("vlan", vlan.into(), "1..=4094", (1..=4094).contains(&vlan))?;
        }
        let small = |value: usize| value as u64;
        value(
            "batch",
            small(self.batch),
            "1..=1024",
            (1..=1024).contains(&self.batch),
        )?;
        let tables = 1..=65_536;
        value(
            "neighbours_max",
            small(self.neighbours_max),
            "1..=65536",
            tables.contains(&self.neighbours_max),
        )?;
        value(
            "waiting_max",
            small(self.waiting_max),
            "1..=1024",
            (1..=1024).contains(&self.waiting_max),
        )?;
        value(
            "waiting_all_max",
            small(self.waiting_all_max),
            "1..=65536",
            tables.contains(&self.waiting_all_max),
        )?;
        value(
            "reachable_ms",
            self.reachable_ms.into(),
            "100..=3600000",
            (100..=3_600_000).contains(&self.reachable_ms),
        )?;
        value(
            "retry_ms",
            self.retry_ms.into(),
            "10..=60000",
            (10..=60_000).contains(&self.retry_ms),
        )?;
        value(
            "tries_max",
            self.tries_max.into(),
            "1..=100",
            (1..=100).contains(&self.tries_max),
        )?;
        if let Some(gateway) = self.gateway
            && (!is_station(gateway)
                || gateway == self.local.ip()
                || !same_network(self.local.ip(), gateway, self.prefix_len))
        {
            return Err(EtherOpenError::Gateway {
                gateway,
                local: self.local,
                prefix_len: self.prefix_len,
            });
        }
        let least = if ipv6 { 1280 } else { 576 };
        if self.mtu_bytes < least || self.mtu_bytes > link.mtu_bytes {
            return Err(EtherOpenError::Mtu {
                mtu_bytes: self.mtu_bytes,
                backend: link.backend,
                least_bytes: least,
                link_mtu_bytes: link.mtu_bytes,
            });
        }
        if !link.mac.is_unicast() {
            return Err(EtherOpenError::Mac {
                mac: link.mac,
                backend: link.backend,
            });
        }
        Ok(())
    }
}

/// The address of one station: not unspecified, not a group, not everybody.
pub(crate) fn is_station(ip: IpAddr) -> bool {
    let everybody = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || everybody)
}

/// Whether two addresses are of one family and share their leading bits.
pub(crate) fn same_network(a: IpAddr, b: IpAddr, prefix_len: u8) -> bool {
    let prefix_len = u32::from(prefix_len);
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= prefix_len,
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= prefix_len,
        _ => false,
    }
}

/// Counters of a device. Those of its link stand in [`LinkStats`](crate::LinkStats).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EtherStats {
    /// Packets given to the link.
    pub tx_packets: u64,
    /// Packets lost because their payload is larger than the device's.
    pub tx_oversize: u64,
    /// Packets lost because no neighbour leads to their destination: another family, a group, no gateway.
    pub tx_unreachable: u64,
    /// Packets that had to wait for a neighbour's hardware address.
    pub tx_waited: u64,
    /// Packets lost because their neighbour did not answer, or too many waited already.
    pub tx_unresolved: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Frames dropped because they are for somebody else, or of a protocol that the device does not speak.
    pub rx_foreign: u64,
    /// Frames dropped because they are for another UDP port.
    pub rx_port: u64,
    /// Frames dropped because they are of another VLAN, or of none.
    pub rx_vlan: u64,
    /// Frames dropped because they are shorter than their headers say.
    pub rx_truncated: u64,
    /// Frames dropped because their payload is larger than the device's.
    pub rx_oversize: u64,
    /// Frames dropped because a checksum is wrong or a header makes no sense.
    pub rx_corrupt: u64,
    /// Fragments of larger packets, dropped.
    pub rx_fragments: u64,
    /// Packets with IPv4 options or IPv6 extension headers, dropped.
    pub rx_options: u64,
    /// Questions for hardware addresses sent, announcements included.
    pub asked: u64,
    /// Answers given for the device's own address.
    pub answered: u64,
    /// Words of neighbours about hardware addresses that were taken in.
    pub learned: u64,
    /// Neighbours whose hardware address changed.
    pub changed: u64,
    /// Neighbours that did not answer and were forgotten.
    pub forgotten: u64,
    /// Neighbours that could not be remembered because the table is full.
    pub table_full: u64,
    /// Questions and answers that were not sent because there was no slot or no room on the link.
    pub words_dropped: u64,
    /// Words of others that claim the device's own address: two hosts have it.
    pub conflicts: u64,
}

/// Why a device could not be opened. Effect: none; the link is gone with it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EtherOpenError {
    /// The own address is not one of a station, or the port is missing.
    #[error(
        "local = \"{local}\" must be an IP address of one station, with a UDP port that is not 0"
    )]
    Local {
        /// The value.
        local: SocketAddr,
    },
    /// The gateway is not a neighbour.
    #[error(
        "gateway = \"{gateway}\" is not a neighbour of {local} with prefix_len = {prefix_len}; give the address of a router within the prefix"
    )]
    Gateway {
        /// The value.
        gateway: IpAddr,
        /// Own address.
        local: SocketAddr,
        /// Own prefix.
        prefix_len: u8,
    },
    /// The MTU is out of range for the family or beyond the link's.
    #[error(
        "mtu_bytes = {mtu_bytes} is not within {least_bytes}..={link_mtu_bytes}, which this {backend} link carries; lower it, or raise the interface's with `ip link set dev NAME mtu {mtu_bytes}`"
    )]
    Mtu {
        /// The value.
        mtu_bytes: u32,
        /// The link.
        backend: &'static str,
        /// The least that the family permits.
        least_bytes: u32,
        /// What the link carries.
        link_mtu_bytes: u32,
    },
    /// The link has no hardware address of one station.
    #[error(
        "the {backend} link has the hardware address {mac}, which is not that of one station; set one with the option mac"
    )]
    Mac {
        /// The address.
        mac: crate::MacAddr,
        /// The link.
        backend: &'static str,
    },
    /// A number is out of range.
    #[error("{key} = {value} is not within {range}")]
    Value {
        /// Name of the option.
        key: &'static str,
        /// The value.
        value: u64,
        /// What is permitted.
        range: &'static str,
    },
}
