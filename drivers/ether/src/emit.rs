//! Writing: the headers of a packet, and the words between neighbours.
//!
//! All of it goes into memory that the caller has sized for it; setters of the wire library would panic otherwise.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv6Message, Icmpv6Packet, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, NdiscNeighborFlags,
    NdiscRepr, UdpPacket,
};

use crate::headers::{Headers, UDP_BYTES};
use crate::link::Checksum;
use crate::mac::MacAddr;

/// EtherType of an IEEE 802.1Q tag.
pub(crate) const TAG_TYPE: u16 = 0x8100;
/// Routers that a packet passes at most. *Source*: the default of RFC 1700.
const HOPS: u8 = 64;
/// What a word of neighbour discovery carries, which shows that no router passed it on. *Source*: RFC 4861, section 7.1.
pub(crate) const NEIGHBOUR_HOPS: u8 = 255;
/// Bytes of a word of ARP.
pub(crate) const ARP_BYTES: usize = 28;
/// Bytes of a word of neighbour discovery with a hardware address.
pub(crate) const NDP_BYTES: usize = 32;

/// Both ends of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) src_mac: MacAddr,
    pub(crate) dst_mac: MacAddr,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
}

/// Writes the headers of a packet whose payload lies behind them: `frame` is both. With [`Checksum::Link`] the checksums are
/// left for the link to fill in.
///
/// Both addresses are of the headers' family, and the frame fits 16 bits: the caller has seen to it.
pub(crate) fn packet(frame: &mut [u8], headers: Headers, ends: &Ends, checksum: Checksum) {
    let ip_type = if headers.is_ipv6() {
        EthernetProtocol::Ipv6
    } else {
        EthernetProtocol::Ipv4
    };
    ethernet(frame, headers, ends.src_mac, ends.dst_mac, ip_type);
    let packet = &mut frame[headers.ethernet_bytes()..];
    let udp_bytes = packet.len() - headers.ip_bytes();
    match (ends.src, ends.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ipv4(packet, src, dst, checksum),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ipv6(packet, src, dst, IpProtocol::Udp, HOPS),
        _ => unreachable!("the device has looked at the families"),
    }
    let mut udp = UdpPacket::new_unchecked(&mut packet[headers.ip_bytes()..]);
    udp.set_src_port(ends.src_port);
    udp.set_dst_port(ends.dst_port);
    udp.set_len(sixteen(udp_bytes));
    let (src, dst) = (IpAddress::from(ends.src), IpAddress::from(ends.dst));
    match checksum {
        Checksum::InFrame => udp.fill_checksum(&src, &dst),
        Checksum::Link => udp.set_checksum(pseudo_header_sum(&ends.src, &ends.dst, udp_bytes)),
    }
}

/// Bytes of a frame that carries a word between neighbours.
pub(crate) fn word_bytes(headers: Headers) -> usize {
    let word = if headers.is_ipv6() {
        40 + NDP_BYTES
    } else {
        ARP_BYTES
    };
    headers.ethernet_bytes() + word
}

/// Writes a question for the hardware address of `target`: to `known` if that is to be confirmed, otherwise to everybody.
/// Asking for the own address announces it.
pub(crate) fn question(
    frame: &mut [u8],
    headers: Headers,
    own: (IpAddr, MacAddr),
    target: IpAddr,
    known: Option<MacAddr>,
) {
    match (own.0, target) {
        (IpAddr::V4(src), IpAddr::V4(target)) => arp(
            frame,
            headers,
            ArpOperation::Request,
            (src, own.1),
            (target, MacAddr::default()),
            known.unwrap_or(MacAddr::BROADCAST),
        ),
        (IpAddr::V6(src), IpAddr::V6(target)) => {
            let group = solicited_node(target);
            let (dst, dst_mac) = match known {
                Some(mac) => (target, mac),
                None => (group, group_mac(group)),
            };
            let word = NdiscRepr::NeighborSolicit {
                target_addr: target,
                lladdr: Some(hardware(own.1).into()),
            };
            ndp(frame, headers, &word, (src, own.1), (dst, dst_mac));
        }
        _ => unreachable!("the device has looked at the families"),
    }
}

/// Writes the answer that the own address is here, to who asked; over IPv6 to everybody if `to` is not specified.
pub(crate) fn answer(
    frame: &mut [u8],
    headers: Headers,
    own: (IpAddr, MacAddr),
    to: (IpAddr, MacAddr),
) {
    match (own.0, to.0) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            arp(
                frame,
                headers,
                ArpOperation::Reply,
                (src, own.1),
                (dst, to.1),
                to.1,
            );
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let everybody = dst.is_unspecified();
            let (dst, dst_mac, solicited) = if everybody {
                let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
                (all, group_mac(all), NdiscNeighborFlags::empty())
            } else {
                (dst, to.1, NdiscNeighborFlags::SOLICITED)
            };
            let word = NdiscRepr::NeighborAdvert {
                flags: NdiscNeighborFlags::OVERRIDE | solicited,
                target_addr: src,
                lladdr: Some(hardware(own.1).into()),
            };
            ndp(frame, headers, &word, (src, own.1), (dst, dst_mac));
        }
        _ => unreachable!("the device has looked at the families"),
    }
}

/// The group that hosts with this address listen to. *Source*: RFC 4291, section 2.7.1.
pub(crate) fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    let (high, low) = (0xff00 | u16::from(a), u16::from(b) << 8 | u16::from(c));
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, high, low)
}

/// The hardware address of a group of IPv6. *Source*: RFC 2464, section 7.
pub(crate) fn group_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

fn ethernet(
    frame: &mut [u8],
    headers: Headers,
    src: MacAddr,
    dst: MacAddr,
    kind: EthernetProtocol,
) {
    let mut ethernet = EthernetFrame::new_unchecked(&mut *frame);
    ethernet.set_src_addr(hardware(src));
    ethernet.set_dst_addr(hardware(dst));
    let Some(vlan) = headers.vlan() else {
        ethernet.set_ethertype(kind);
        return;
    };
    ethernet.set_ethertype(EthernetProtocol::Unknown(TAG_TYPE));
    // The tag's value, priority 0, and then the type that the tag stands in front of. The wire library has no tags.
    let kind = u16::from(kind);
    frame[14..18].copy_from_slice(&[high(vlan), low(vlan), high(kind), low(kind)]);
}

fn ipv4(packet: &mut [u8], src: Ipv4Addr, dst: Ipv4Addr, checksum: Checksum) {
    let bytes = sixteen(packet.len());
    let mut ip = Ipv4Packet::new_unchecked(packet);
    ip.set_version(4);
    ip.set_header_len(20);
    ip.set_dscp(0);
    ip.set_ecn(0);
    ip.set_total_len(bytes);
    ip.set_ident(0);
    ip.clear_flags();
    // No router may cut it, so the identification has no meaning. *Source*: RFC 6864, section 4.1.
    ip.set_dont_frag(true);
    ip.set_frag_offset(0);
    ip.set_hop_limit(HOPS);
    ip.set_next_header(IpProtocol::Udp);
    ip.set_src_addr(src);
    ip.set_dst_addr(dst);
    match checksum {
        Checksum::InFrame => ip.fill_checksum(),
        Checksum::Link => ip.set_checksum(0),
    }
}

fn ipv6(packet: &mut [u8], src: Ipv6Addr, dst: Ipv6Addr, next: IpProtocol, hops: u8) {
    let bytes = sixteen(packet.len() - 40);
    let mut ip = Ipv6Packet::new_unchecked(packet);
    ip.set_version(6);
    ip.set_traffic_class(0);
    ip.set_flow_label(0);
    ip.set_payload_len(bytes);
    ip.set_next_header(next);
    ip.set_hop_limit(hops);
    ip.set_src_addr(src);
    ip.set_dst_addr(dst);
}

fn arp(
    frame: &mut [u8],
    headers: Headers,
    operation: ArpOperation,
    src: (Ipv4Addr, MacAddr),
    target: (Ipv4Addr, MacAddr),
    dst_mac: MacAddr,
) {
    ethernet(frame, headers, src.1, dst_mac, EthernetProtocol::Arp);
    let word = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: hardware(src.1),
        source_protocol_addr: src.0,
        target_hardware_addr: hardware(target.1),
        target_protocol_addr: target.0,
    };
    word.emit(&mut ArpPacket::new_unchecked(
        &mut frame[headers.ethernet_bytes()..],
    ));
}

fn ndp(
    frame: &mut [u8],
    headers: Headers,
    word: &NdiscRepr<'_>,
    src: (Ipv6Addr, MacAddr),
    dst: (Ipv6Addr, MacAddr),
) {
    ethernet(frame, headers, src.1, dst.1, EthernetProtocol::Ipv6);
    let packet = &mut frame[headers.ethernet_bytes()..];
    ipv6(packet, src.0, dst.0, IpProtocol::Icmpv6, NEIGHBOUR_HOPS);
    let message = &mut packet[40..];
    // The type says where the fields are, so it is there before the rest.
    message.fill(0);
    let mut icmp = Icmpv6Packet::new_unchecked(message);
    icmp.set_msg_type(match word {
        NdiscRepr::NeighborAdvert { .. } => Icmpv6Message::NeighborAdvert,
        _ => Icmpv6Message::NeighborSolicit,
    });
    word.emit(&mut icmp);
    icmp.fill_checksum(&src.0, &dst.0);
}

/// The sum over addresses, protocol and length that a link's checksum starts from. *Source*: RFC 768 and RFC 8200, section 8.1.
fn pseudo_header_sum(src: &IpAddr, dst: &IpAddr, udp_bytes: usize) -> u16 {
    let halves = |ip: &IpAddr| -> u32 {
        match ip {
            IpAddr::V4(ip) => (ip.to_bits() >> 16) + (ip.to_bits() & 0xffff),
            IpAddr::V6(ip) => ip.segments().iter().map(|half| u32::from(*half)).sum(),
        }
    };
    let mut sum = halves(src)
        + halves(dst)
        + u32::from(u8::from(IpProtocol::Udp))
        + u32::from(sixteen(udp_bytes));
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sixteen(sum as usize)
}

const _: () = assert!(UDP_BYTES == smoltcp::wire::UDP_HEADER_LEN);

const fn hardware(mac: MacAddr) -> EthernetAddress {
    EthernetAddress(mac.0)
}

fn sixteen(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("a frame's lengths were checked against the MTU")
}

const fn high(value: u16) -> u8 {
    (value >> 8) as u8
}

const fn low(value: u16) -> u8 {
    (value & 0xff) as u8
}
