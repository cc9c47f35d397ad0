//! What stands in front of a payload: how many bytes of headers a device's packets have.

use std::net::IpAddr;

/// Bytes of an Ethernet header without a tag.
pub(crate) const ETHERNET_BYTES: usize = 14;
/// Bytes of an IEEE 802.1Q tag.
pub(crate) const TAG_BYTES: usize = 4;
/// Bytes of a UDP header.
pub(crate) const UDP_BYTES: usize = 8;

/// The headers of every packet of one device: Ethernet, perhaps an IEEE 802.1Q tag, IPv4 without options or IPv6 without
/// extension headers, UDP. A device has one address, so they all have the same size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Headers {
    vlan: Option<u16>,
    ipv6: bool,
}

impl Headers {
    /// Those of a device with this address on this VLAN, or on none.
    #[must_use]
    pub const fn new(ip: IpAddr, vlan: Option<u16>) -> Self {
        Self {
            vlan,
            ipv6: ip.is_ipv6(),
        }
    }

    /// All of them, in bytes: 42 to 66.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.ethernet_bytes() + self.ip_bytes() + UDP_BYTES
    }

    /// The Ethernet header with its tag, in bytes: 14 or 18.
    #[must_use]
    pub const fn ethernet_bytes(self) -> usize {
        ETHERNET_BYTES + self.tag_bytes()
    }

    /// The IP header, in bytes: 20 or 40.
    #[must_use]
    pub const fn ip_bytes(self) -> usize {
        if self.ipv6 { 40 } else { 20 }
    }

    /// The tag, in bytes: 4, or 0 where there is no VLAN.
    #[must_use]
    pub const fn tag_bytes(self) -> usize {
        if self.vlan.is_some() { TAG_BYTES } else { 0 }
    }

    /// The VLAN's number, 1 to 4094.
    #[must_use]
    pub const fn vlan(self) -> Option<u16> {
        self.vlan
    }

    /// Whether packets are IPv6.
    #[must_use]
    pub const fn is_ipv6(self) -> bool {
        self.ipv6
    }
}
