//! UDP sockets on loopback.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use ionian_udp::{UdpDevice, UdpOptions};

use super::packets::Devices;
use crate::subject::Refusal;

/// Opens sockets at free ports of loopback. Their packets are as large as on a network of 1,500 bytes.
///
/// # Errors
/// [`Refusal::Broken`]: there is no machine without loopback.
pub fn open(count: usize) -> Result<Devices<UdpDevice>, Refusal> {
    let broken = |what: &dyn std::fmt::Display| Refusal::Broken(format!("UDP on loopback: {what}"));
    let devices: Result<Vec<UdpDevice>, _> = (0..count)
        .map(|_| UdpDevice::open(&UdpOptions::default()))
        .collect();
    // A port that nobody else gets while this socket, which is never read, lives.
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| broken(&error))?;
    let nobody: SocketAddr = silent.local_addr().map_err(|error| broken(&error))?;
    Ok(Devices {
        devices: devices.map_err(|error| broken(&error))?,
        ground: Box::new(silent),
        nobody,
    })
}
