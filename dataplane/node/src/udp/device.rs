//! The device under a port: the socket, or the socket behind a layer that loses, repeats, reorders and delays what is sent.
//!
//! Faults are for tests and rehearsals. They are given as text, `loss=0.01,dup=0.01,seed=7`, and the same seed with the same
//! calls makes the same faults.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::str::FromStr;

use ionian_driver_api::{
    BufPool, FaultyPackets, PacketBatch, PacketCaps, PacketDevice, PacketFaults,
};
use ionian_udp::{UdpDevice, UdpOpenError, UdpOptions, UdpStats};

/// Chances per datagram sent, and the seed of their sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultSpec {
    /// The chances.
    pub packets: PacketFaults,
    /// Where the sequence begins.
    pub seed: u64,
}

/// Polls that a delayed datagram waits at most, unless told otherwise.
const DELAY_POLLS: u64 = 1_000;

/// Text that is no [`FaultSpec`]. Effect: none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{part:?} is not a fault: give loss=P, dup=P, reorder=P, delay=P, corrupt=P with chances P from 0 to 1, delay_polls=N, seed=N, by commas"
)]
pub struct FaultSpecError {
    part: String,
}

impl FromStr for FaultSpec {
    type Err = FaultSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut spec = Self {
            packets: PacketFaults {
                delay_polls_max: DELAY_POLLS,
                ..PacketFaults::default()
            },
            seed: 1,
        };
        for part in text.split(',') {
            let wrong = || FaultSpecError {
                part: part.to_owned(),
            };
            let (key, value) = part.split_once('=').ok_or_else(wrong)?;
            let faults = &mut spec.packets;
            let chance = match key {
                "loss" => &mut faults.drop_ppm,
                "dup" => &mut faults.duplicate_ppm,
                "reorder" => &mut faults.reorder_ppm,
                "delay" => &mut faults.delay_ppm,
                "corrupt" => &mut faults.corrupt_ppm,
                "delay_polls" | "seed" => {
                    let number = value.parse().map_err(|_| wrong())?;
                    match key {
                        "seed" => spec.seed = number,
                        _ => faults.delay_polls_max = number,
                    }
                    continue;
                }
                _ => return Err(wrong()),
            };
            let value: f64 = value.parse().map_err(|_| wrong())?;
            if !(0.0..=1.0).contains(&value) {
                return Err(wrong());
            }
            *chance = (value * 1e6).round() as u32;
        }
        Ok(spec)
    }
}

impl std::fmt::Display for FaultSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let faults = &self.packets;
        let chances = [
            ("loss", faults.drop_ppm),
            ("dup", faults.duplicate_ppm),
            ("reorder", faults.reorder_ppm),
            ("delay", faults.delay_ppm),
            ("corrupt", faults.corrupt_ppm),
        ];
        for (name, ppm) in chances.into_iter().filter(|(_, ppm)| *ppm > 0) {
            write!(f, "{name}={},", f64::from(ppm) / 1e6)?;
        }
        write!(f, "seed={}", self.seed)
    }
}

/// The device of a port.
#[derive(Debug)]
pub(super) enum Device {
    Plain(UdpDevice),
    Faulty(FaultyPackets<UdpDevice>),
}

impl Device {
    pub(super) fn open(udp: &UdpOptions, faults: Option<FaultSpec>) -> Result<Self, UdpOpenError> {
        let device = UdpDevice::open(udp)?;
        Ok(match faults {
            None => Self::Plain(device),
            Some(FaultSpec { packets, seed }) => {
                Self::Faulty(FaultyPackets::new(device, packets, seed))
            }
        })
    }

    pub(super) fn stats(&self) -> UdpStats {
        match self {
            Self::Plain(device) => device.stats(),
            Self::Faulty(device) => device.inner().stats(),
        }
    }

    /// Faults injected so far.
    pub(super) fn faults(&self) -> u64 {
        match self {
            Self::Plain(_) => 0,
            Self::Faulty(device) => {
                let counts = device.counts();
                counts.dropped
                    + counts.duplicated
                    + counts.reordered
                    + counts.delayed
                    + counts.corrupted
            }
        }
    }
}

impl PacketDevice for Device {
    fn caps(&self) -> PacketCaps {
        match self {
            Self::Plain(device) => device.caps(),
            Self::Faulty(device) => device.caps(),
        }
    }

    fn local_addr(&self) -> SocketAddr {
        match self {
            Self::Plain(device) => device.local_addr(),
            Self::Faulty(device) => device.local_addr(),
        }
    }

    #[inline]
    fn rx_burst(&mut self, pool: &mut BufPool, out: &mut PacketBatch) -> usize {
        match self {
            Self::Plain(device) => device.rx_burst(pool, out),
            Self::Faulty(device) => device.rx_burst(pool, out),
        }
    }

    #[inline]
    fn tx_burst(&mut self, pool: &mut BufPool, burst: &mut PacketBatch) -> usize {
        match self {
            Self::Plain(device) => device.tx_burst(pool, burst),
            Self::Faulty(device) => device.tx_burst(pool, burst),
        }
    }

    fn arm(&mut self) -> bool {
        match self {
            Self::Plain(device) => device.arm(),
            Self::Faulty(device) => device.arm(),
        }
    }

    fn wake_fd(&self) -> Option<RawFd> {
        match self {
            Self::Plain(device) => device.wake_fd(),
            Self::Faulty(device) => device.wake_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_given_as_text() {
        let spec: FaultSpec =
            "loss=0.01,dup=0.5,reorder=1,delay=0,corrupt=0.000001,delay_polls=9,seed=7"
                .parse()
                .unwrap();
        assert_eq!(spec.seed, 7);
        assert_eq!(
            spec.packets,
            PacketFaults {
                drop_ppm: 10_000,
                duplicate_ppm: 500_000,
                reorder_ppm: 1_000_000,
                delay_ppm: 0,
                delay_polls_max: 9,
                corrupt_ppm: 1,
            }
        );
        assert_eq!(
            spec.to_string(),
            "loss=0.01,dup=0.5,reorder=1,corrupt=0.000001,seed=7"
        );
        for wrong in [
            "",
            "loss",
            "loss=2",
            "loss=-1",
            "loss=x",
            "seed=-1",
            "gone=1",
            "loss=0.1,",
        ] {
            let error = wrong.parse::<FaultSpec>().unwrap_err().to_string();
            assert!(
                error.contains("is not a fault: give loss=P"),
                "{wrong}: {error}"
            );
        }
    }
}
