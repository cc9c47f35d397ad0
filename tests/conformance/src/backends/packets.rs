//! Nets over packet devices: sessions over whatever sends and receives datagrams, and bare pairs of devices.
//!
//! A backend of datagrams is a function that opens as many devices as are asked for, which can reach each other; everything else is
//! the same for all of them.

use ionian_driver_api::{ConnId, Emulated, Fabric, PacketDevice, PeerAddr};
use ionian_runtime::Sleeper;

use super::STAGED_EVENTS;
use crate::defect::{Defect, Defective};
use crate::sessions::{Sessions, Side, packet_pool};
use crate::subject::{Backend, Net, PacketEnds, Refusal, Shape, Subject};

/// Devices that can reach each other, and what keeps their network alive for as long as they are used (a namespace, a bridge).
pub struct Devices<D> {
    /// The devices, in no order.
    pub devices: Vec<D>,
    /// Dropped after the devices.
    pub ground: Box<dyn Send>,
    /// An address of their network that nobody answers at.
    pub nobody: PeerAddr,
}

impl<D> std::fmt::Debug for Devices<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Devices")
            .field("devices", &self.devices.len())
            .field("nobody", &self.nobody)
            .finish_non_exhaustive()
    }
}

/// A backend of datagrams: how to open two or three devices, and what is wrong with the fabric that is made of them.
#[derive(Debug)]
pub struct Datagrams<D> {
    /// Opens so many devices.
    pub open: fn(usize) -> Result<Devices<D>, Refusal>,
    /// What is wrong with it.
    pub defect: Defect,
}

impl<D: PacketDevice + Send + 'static> Backend for Datagrams<D> {
    fn open(&self, shape: &Shape) -> Result<Box<dyn Net>, Refusal> {
        let Devices {
            devices, ground, ..
        } = (self.open)(shape.ends)?;
        let mut ends = Vec::new();
        for (at, device) in devices.into_iter().enumerate() {
            let sessions = Sessions::new(device, shape, at as u64 + 1).map_err(Refusal::Broken)?;
            let end = Emulated::new(
                Defective::new(sessions, self.defect),
                shape.regions_max,
                STAGED_EVENTS * shape.events_max,
            );
            ends.push(Some(Box::new(end)));
        }
        Ok(Box::new(SessionNet {
            ends,
            _ground: ground,
        }))
    }

    fn open_packets(&self, slots: u32) -> Option<Result<PacketEnds, Refusal>> {
        Some(self.pair(slots))
    }
}

impl<D: PacketDevice + Send + 'static> Datagrams<D> {
    fn pair(&self, slots: u32) -> Result<PacketEnds, Refusal> {
        let Devices {
            devices,
            ground,
            nobody,
        } = (self.open)(2)?;
        let Ok([one, two]) = <[D; 2]>::try_from(devices) else {
            return Err(Refusal::Broken("two devices were asked for".to_owned()));
        };
        let pools = [
            packet_pool(&one, slots).map_err(Refusal::Broken)?,
            packet_pool(&two, slots).map_err(Refusal::Broken)?,
        ];
        Ok(PacketEnds {
            devices: [Box::new(one), Box::new(two)],
            pools,
            nobody,
            ground,
        })
    }
}

/// What carries the contract over a device.
type End<D> = Emulated<Defective<Sessions<D>>>;

struct SessionNet<D> {
    ends: Vec<Option<Box<End<D>>>>,
    _ground: Box<dyn Send>,
}

impl<D: PacketDevice> SessionNet<D> {
    fn sessions(&mut self, at: usize) -> Result<&mut Sessions<D>, String> {
        let end = self.ends.get_mut(at).and_then(Option::as_mut);
        let end = end.ok_or_else(|| format!("there is no end {at}"))?;
        Ok(end.inner_mut().inner_mut())
    }
}

impl<D: PacketDevice + Send + 'static> Net for SessionNet<D> {
    fn end(&mut self, at: usize) -> &mut dyn Subject {
        let end = self.ends[at].as_mut();
        &mut **end.expect("the end was not taken")
    }

    fn connect(&mut self, a: usize, b: usize, epoch: u64) -> Result<(ConnId, ConnId), String> {
        let side = |peer, first| Side {
            session: (1 + a * 16 + b) as u64,
            epoch,
            peer,
            first,
        };
        let (addr_a, addr_b) = (
            self.sessions(a)?.local_addr(),
            self.sessions(b)?.local_addr(),
        );
        let at_a = self.sessions(a)?.add(&side(addr_b, true))?;
        let at_b = self.sessions(b)?.add(&side(addr_a, false))?;
        Ok((at_a, at_b))
    }

    fn take(&mut self, at: usize) -> Result<(Box<dyn Subject>, Sleeper), String> {
        let end = self.ends.get_mut(at).and_then(Option::take);
        let end = end.ok_or_else(|| format!("there is no end {at}"))?;
        let sleeper = Sleeper::new().map_err(|error| error.to_string())?;
        if let Some(fd) = end.wake_fd() {
            sleeper.watch(fd).map_err(|error| error.to_string())?;
        }
        Ok((end, sleeper))
    }
}
