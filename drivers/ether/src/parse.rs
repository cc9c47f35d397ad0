//! Reading: what a received frame says, if it is for this device at all.
//!
//! Every byte is untrusted. Views of the wire library are made checked, so that no accessor panics; what fails a check is
//! dropped with the reason that is counted.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, Icmpv6Message, Icmpv6Packet,
    IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, NdiscNeighborFlags, NdiscRepr, UdpPacket,
};

use crate::emit::{NEIGHBOUR_HOPS, TAG_TYPE, solicited_node};
use crate::headers::{Headers, UDP_BYTES};
use crate::link::Checksum;
use crate::mac::MacAddr;
use crate::options::{EtherStats, is_station};

/// Who this device is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    pub(crate) mac: MacAddr,
    pub(crate) local: SocketAddr,
    pub(crate) headers: Headers,
    pub(crate) payload_bytes_max: usize,
}

/// What a frame says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    /// A packet for this device; its payload begins behind the headers.
    Packet {
        peer: SocketAddr,
        payload_bytes: usize,
    },
    /// A word of a neighbour.
    Word(Word),
}

/// What neighbours say to each other, over ARP and neighbour discovery alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Word {
    /// Somebody asks who has an address; `ip` is not specified when he only looks whether it is free.
    Question {
        ip: IpAddr,
        mac: MacAddr,
        target: IpAddr,
    },
    /// Somebody says where an address is. `overrides` what is known; otherwise it only confirms.
    Answer {
        ip: IpAddr,
        mac: MacAddr,
        overrides: bool,
    },
}

/// Why a frame was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Drop {
    Foreign,
    Port,
    Vlan,
    Truncated,
    Oversize,
    Corrupt,
    Fragment,
    Options,
}

impl EtherStats {
    pub(crate) fn count(&mut self, drop: Drop) {
        let counter = match drop {
            Drop::Foreign => &mut self.rx_foreign,
            Drop::Port => &mut self.rx_port,
            Drop::Vlan => &mut self.rx_vlan,
            Drop::Truncated => &mut self.rx_truncated,
            Drop::Oversize => &mut self.rx_oversize,
            Drop::Corrupt => &mut self.rx_corrupt,
            Drop::Fragment => &mut self.rx_fragments,
            Drop::Options => &mut self.rx_options,
        };
        *counter += 1;
    }
}

/// Reads one frame.
pub(crate) fn frame(bytes: &[u8], own: &Own, checksum: Checksum) -> Result<Seen, Drop> {
    let ethernet = EthernetFrame::new_checked(bytes).map_err(|_| Drop::Truncated)?;
    let (src, dst) = (
        MacAddr(ethernet.src_addr().0),
        MacAddr(ethernet.dst_addr().0),
    );
    if (dst != own.mac && !dst.is_multicast()) || !src.is_unicast() || src == own.mac {
        return Err(Drop::Foreign);
    }
    let kind = inner_type(bytes, u16::from(ethernet.ethertype()), own.headers)?;
    let inner = bytes
        .get(own.headers.ethernet_bytes()..)
        .ok_or(Drop::Truncated)?;
    match (EthernetProtocol::from(kind), own.headers.is_ipv6()) {
        (EthernetProtocol::Ipv4, false) => ipv4(inner, own, dst, checksum),
        (EthernetProtocol::Ipv6, true) => ipv6(inner, own, src, dst, checksum),
        (EthernetProtocol::Arp, false) => arp(inner),
        _ => Err(Drop::Foreign),
    }
}

/// The type of what stands behind the Ethernet header, and behind the tag where the device is on a VLAN.
fn inner_type(bytes: &[u8], outer: u16, headers: Headers) -> Result<u16, Drop> {
    let Some(vlan) = headers.vlan() else {
        return if outer == TAG_TYPE {
            Err(Drop::Vlan)
        } else {
            Ok(outer)
        };
    };
    if outer != TAG_TYPE {
        return Err(Drop::Vlan);
    }
    let tag = bytes.get(14..18).ok_or(Drop::Truncated)?;
    let pair = |at: usize| u16::from(tag[at]) << 8 | u16::from(tag[at + 1]);
    // The upper four bits are priority and drop eligibility.
    if pair(0) & 0x0fff != vlan {
        return Err(Drop::Vlan);
    }
    Ok(pair(2))
}

fn ipv4(bytes: &[u8], own: &Own, dst_mac: MacAddr, checksum: Checksum) -> Result<Seen, Drop> {
    let ip = Ipv4Packet::new_checked(bytes).map_err(|_| length_or_sense(bytes, 20))?;
    if ip.version() != 4 || ip.header_len() < 20 {
        return Err(Drop::Corrupt);
    }
    if checksum == Checksum::InFrame && !ip.verify_checksum() {
        return Err(Drop::Corrupt);
    }
    let (src, dst) = (IpAddr::V4(ip.src_addr()), IpAddr::V4(ip.dst_addr()));
    if dst != own.local.ip() || dst_mac != own.mac || !is_station(src) || src == dst {
        return Err(Drop::Foreign);
    }
    if ip.more_frags() || ip.frag_offset() != 0 {
        return Err(Drop::Fragment);
    }
    if ip.next_header() != IpProtocol::Udp {
        return Err(Drop::Foreign);
    }
    if ip.header_len() != 20 {
        return Err(Drop::Options);
    }
    udp(ip.payload(), own, src, dst, checksum)
}

fn ipv6(
    bytes: &[u8],
    own: &Own,
    src_mac: MacAddr,
    dst_mac: MacAddr,
    checksum: Checksum,
) -> Result<Seen, Drop> {
    let ip = Ipv6Packet::new_checked(bytes).map_err(|_| length_or_sense(bytes, 40))?;
    if ip.version() != 6 {
        return Err(Drop::Corrupt);
    }
    if ip.next_header() == IpProtocol::Icmpv6 {
        return ndp(&ip, own, src_mac);
    }
    let (src, dst) = (IpAddr::V6(ip.src_addr()), IpAddr::V6(ip.dst_addr()));
    if dst != own.local.ip() || dst_mac != own.mac || !is_station(src) || src == dst {
        return Err(Drop::Foreign);
    }
    match ip.next_header() {
        IpProtocol::Udp => udp(ip.payload(), own, src, dst, checksum),
        IpProtocol::Ipv6Frag => Err(Drop::Fragment),
        IpProtocol::HopByHop | IpProtocol::Ipv6Route | IpProtocol::Ipv6Opts => Err(Drop::Options),
        _ => Err(Drop::Foreign),
    }
}

fn udp(
    bytes: &[u8],
    own: &Own,
    src: IpAddr,
    dst: IpAddr,
    checksum: Checksum,
) -> Result<Seen, Drop> {
    let udp = UdpPacket::new_checked(bytes).map_err(|_| length_or_sense(bytes, UDP_BYTES))?;
    if udp.dst_port() != own.local.port() {
        return Err(Drop::Port);
    }
    if udp.src_port() == 0 {
        return Err(Drop::Corrupt);
    }
    // Over IPv4 a sender may leave the checksum out; over IPv6 it may not. *Source*: RFC 768; RFC 8200, section 8.1.
    if own.headers.is_ipv6() && udp.checksum() == 0 {
        return Err(Drop::Corrupt);
    }
    if checksum == Checksum::InFrame
        && !udp.verify_checksum(&IpAddress::from(src), &IpAddress::from(dst))
    {
        return Err(Drop::Corrupt);
    }
    let payload_bytes = usize::from(udp.len()) - UDP_BYTES;
    if payload_bytes > own.payload_bytes_max {
        return Err(Drop::Oversize);
    }
    Ok(Seen::Packet {
        peer: SocketAddr::new(src, udp.src_port()),
        payload_bytes,
    })
}

fn arp(bytes: &[u8]) -> Result<Seen, Drop> {
    let packet = ArpPacket::new_checked(bytes).map_err(|_| length_or_sense(bytes, 8))?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).map_err(|_| Drop::Foreign)?
    else {
        return Err(Drop::Foreign);
    };
    let (ip, mac) = (
        IpAddr::V4(source_protocol_addr),
        MacAddr(source_hardware_addr.0),
    );
    // An address that is not specified belongs to who looks whether another one is free. *Source*: RFC 5227, section 2.1.1.
    if !mac.is_unicast() || !(ip.is_unspecified() || is_station(ip)) {
        return Err(Drop::Corrupt);
    }
    let target = IpAddr::V4(target_protocol_addr);
    match operation {
        ArpOperation::Request => Ok(Seen::Word(Word::Question { ip, mac, target })),
        ArpOperation::Reply if !ip.is_unspecified() => Ok(Seen::Word(Word::Answer {
            ip,
            mac,
            overrides: true,
        })),
        _ => Err(Drop::Corrupt),
    }
}

fn ndp(ip: &Ipv6Packet<&[u8]>, own: &Own, src_mac: MacAddr) -> Result<Seen, Drop> {
    let (src, dst) = (ip.src_addr(), ip.dst_addr());
    let for_us = IpAddr::V6(dst) == own.local.ip()
        || matches!(own.local.ip(), IpAddr::V6(own) if dst == solicited_node(own))
        || dst == Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    if !for_us {
        return Err(Drop::Foreign);
    }
    let icmp =
        Icmpv6Packet::new_checked(ip.payload()).map_err(|_| length_or_sense(ip.payload(), 8))?;
    if !matches!(
        icmp.msg_type(),
        Icmpv6Message::NeighborSolicit | Icmpv6Message::NeighborAdvert
    ) {
        return Err(Drop::Foreign);
    }
    // What passed a router is not a neighbour's word. *Source*: RFC 4861, section 7.1.
    if ip.hop_limit() != NEIGHBOUR_HOPS || icmp.msg_code() != 0 || !icmp.verify_checksum(&src, &dst)
    {
        return Err(Drop::Corrupt);
    }
    let mac = |option: Option<smoltcp::wire::RawHardwareAddress>| match option {
        None => Ok(None),
        Some(raw) => <[u8; 6]>::try_from(raw.as_bytes())
            .ok()
            .map(MacAddr)
            .filter(|mac| mac.is_unicast())
            .map(Some)
            .ok_or(Drop::Corrupt),
    };
    match NdiscRepr::parse(&icmp).map_err(|_| Drop::Corrupt)? {
        NdiscRepr::NeighborSolicit {
            target_addr,
            lladdr,
        } => {
            if !(src.is_unspecified() || is_station(IpAddr::V6(src))) || target_addr.is_multicast()
            {
                return Err(Drop::Corrupt);
            }
            Ok(Seen::Word(Word::Question {
                ip: IpAddr::V6(src),
                mac: mac(lladdr)?.unwrap_or(src_mac),
                target: IpAddr::V6(target_addr),
            }))
        }
        NdiscRepr::NeighborAdvert {
            flags,
            target_addr,
            lladdr,
        } => {
            if !is_station(IpAddr::V6(target_addr)) {
                return Err(Drop::Corrupt);
            }
            Ok(Seen::Word(Word::Answer {
                ip: IpAddr::V6(target_addr),
                mac: mac(lladdr)?.unwrap_or(src_mac),
                overrides: flags.contains(NdiscNeighborFlags::OVERRIDE),
            }))
        }
        _ => Err(Drop::Foreign),
    }
}

/// A view could not be made: the bytes end within the header or before what it promises, or the header contradicts itself.
fn length_or_sense(bytes: &[u8], header_bytes: usize) -> Drop {
    if bytes.len() < header_bytes {
        return Drop::Truncated;
    }
    let pair = |at: usize| usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1]);
    let promised = match header_bytes {
        20 => pair(2),
        40 => 40 + pair(4),
        UDP_BYTES => pair(4),
        _ => 0,
    };
    if promised > bytes.len() {
        Drop::Truncated
    } else {
        Drop::Corrupt
    }
}
