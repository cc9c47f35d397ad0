//! Ethernet frames over links of a machine's own: TAP devices on a bridge, AF_PACKET and AF_XDP sockets on interfaces that one joins.

use ionian_ether::{EtherDevice, EtherOptions, FrameLink};
use ionian_runtime::MonotonicClock;
use ionian_tap::{PacketLink, PacketLinkOptions, TapLink, TapOptions};
use ionian_xdp::{XdpLink, XdpOptions};

use super::lan::{Lan, PREFIX_LEN};
use super::packets::Devices;
use crate::subject::Refusal;

/// A device over a frame link, in the machine's time: neighbours are asked for in milliseconds, whatever sessions count in.
pub type Ether<L> = EtherDevice<L, MonotonicClock>;

/// Hosts on a network, each over the link that `open` makes for it.
fn hosts<L: FrameLink>(
    count: usize,
    open: fn(&Lan, usize) -> Result<L, Refusal>,
) -> Result<Devices<Ether<L>>, Refusal> {
    let lan = Lan::new()?;
    let mut devices = Vec::new();
    for at in 0..count {
        let link = open(&lan, at)?;
        let mut options = EtherOptions::new(lan.address(at), PREFIX_LEN);
        // A neighbour that is not there is given up soon, so that what waits for it goes home.
        options.retry_ms = 20;
        let device = EtherDevice::open(link, MonotonicClock::start(), &options)
            .map_err(|error| Refusal::Broken(error.to_string()))?;
        devices.push(device);
    }
    let nobody = lan.nobody();
    Ok(Devices {
        devices,
        ground: Box::new(lan),
        nobody,
    })
}

/// TAP devices, each a port of one bridge.
///
/// # Errors
/// [`Refusal`].
pub fn tap(count: usize) -> Result<Devices<Ether<TapLink>>, Refusal> {
    hosts(count, |lan, at| {
        let mut options = TapOptions::new(&lan.port(at));
        options.bridge = Some(lan.bridge());
        TapLink::open(&options).map_err(|error| Refusal::Unavailable(error.to_string()))
    })
}

/// AF_PACKET sockets, each on an interface whose other end is a port of one bridge.
///
/// # Errors
/// [`Refusal`].
pub fn af_packet(count: usize) -> Result<Devices<Ether<PacketLink>>, Refusal> {
    hosts(count, |lan, at| {
        let interface = lan.add_pair(at)?;
        PacketLink::open(&PacketLinkOptions::new(&interface))
            .map_err(|error| Refusal::Unavailable(error.to_string()))
    })
}

/// AF_XDP sockets in copy mode, each on an interface whose other end is a port of one bridge.
///
/// # Errors
/// [`Refusal`].
pub fn af_xdp(count: usize) -> Result<Devices<Ether<XdpLink>>, Refusal> {
    hosts(count, |lan, at| {
        let interface = lan.add_pair(at)?;
        XdpLink::open(&XdpOptions::new(&interface, lan.address(at)))
            .map_err(|error| Refusal::Unavailable(error.to_string()))
    })
}
