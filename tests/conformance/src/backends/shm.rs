//! Shared-memory rings between ends of one process, with emulated one-sided writes.

use std::os::fd::RawFd;

use ionian_driver_api::{
    Buf, BufPool, ConnId, Emulated, Fabric, FabricCaps, FabricEvents, FabricFaults, FaultyFabric,
    RegisterError, SendError,
};
use ionian_runtime::{Sleeper, WakeHandle};
use ionian_shm::{ShmFabric, duplex};

use super::STAGED_EVENTS;
use crate::defect::{Defect, Defective};
use crate::subject::{
    Backend, Disturbance, Family, Layer, Net, PacketEnds, Refusal, Shape, Subject,
};

/// Polls that a message is held for at most where faults hold some.
const DELAY_POLLS_MAX: u64 = 40;

/// The backend `shm`, sound or broken on purpose.
#[derive(Clone, Copy, Debug)]
pub struct Shm {
    /// What is wrong with it.
    pub defect: Defect,
}

impl Backend for Shm {
    fn open(&self, shape: &Shape) -> Result<Box<dyn Net>, Refusal> {
        let mut net = RingNet {
            ends: Vec::new(),
            sleepers: Vec::new(),
            queue_bytes: shape.queue_bytes,
        };
        for at in 0..shape.ends {
            let rings = Rings {
                fabric: FaultyFabric::new(
                    ShmFabric::new(shape.conns_max, shape.queue_bytes),
                    FabricFaults::default(),
                    at as u64 + 1,
                ),
                captured: Vec::new(),
            };
            let end = Emulated::new(
                Defective::new(rings, self.defect),
                shape.regions_max,
                STAGED_EVENTS * shape.events_max,
            );
            let sleeper = Sleeper::new().map_err(|error| Refusal::Broken(error.to_string()))?;
            net.ends.push(Some(Box::new(end)));
            net.sleepers.push(sleeper);
        }
        Ok(Box::new(net))
    }

    fn open_packets(&self, _slots: u32) -> Option<Result<PacketEnds, Refusal>> {
        None
    }
}

struct RingNet {
    ends: Vec<Option<Box<Emulated<Defective<Rings>>>>>,
    sleepers: Vec<Sleeper>,
    queue_bytes: usize,
}

impl RingNet {
    fn fabric(&mut self, at: usize) -> Result<&mut ShmFabric<WakeHandle>, String> {
        let end = self.ends.get_mut(at).and_then(Option::as_mut);
        let end = end.ok_or_else(|| format!("there is no end {at}"))?;
        Ok(end.inner_mut().inner_mut().fabric.inner_mut())
    }
}

impl Net for RingNet {
    fn end(&mut self, at: usize) -> &mut dyn Subject {
        let end = self.ends[at].as_mut();
        &mut **end.expect("the end was not taken")
    }

    fn connect(&mut self, a: usize, b: usize, _epoch: u64) -> Result<(ConnId, ConnId), String> {
        let (one, two) = duplex(self.queue_bytes);
        let (wake_a, wake_b) = (self.sleepers[a].handle(), self.sleepers[b].handle());
        let used_up = |_| "all connections were used up".to_owned();
        let at_a = self.fabric(a)?.add(one, wake_b).map_err(used_up)?;
        let at_b = self.fabric(b)?.add(two, wake_a).map_err(used_up)?;
        Ok((at_a, at_b))
    }

    fn take(&mut self, at: usize) -> Result<(Box<dyn Subject>, Sleeper), String> {
        let end = self.ends.get_mut(at).and_then(Option::take);
        let end = end.ok_or_else(|| format!("there is no end {at}"))?;
        // The one that the wake-ups of existing connections are for; a taken end gets no new ones.
        let other = Sleeper::new().map_err(|error| error.to_string())?;
        let sleeper = std::mem::replace(&mut self.sleepers[at], other);
        Ok((end, sleeper))
    }
}

/// Rings with faults, which remember what they carried last.
struct Rings {
    fabric: FaultyFabric<ShmFabric<WakeHandle>>,
    captured: Vec<u8>,
}

impl Fabric for Rings {
    fn caps(&self) -> FabricCaps {
        self.fabric.caps()
    }

    fn poll(&mut self, pool: &mut BufPool, events: &mut FabricEvents) -> usize {
        self.fabric.poll(pool, events)
    }

    fn send(&mut self, pool: &mut BufPool, conn: ConnId, buf: Buf) -> Result<(), SendError> {
        self.captured.clear();
        self.captured.extend_from_slice(pool.bytes(&buf));
        self.fabric.send(pool, conn, buf)
    }

    fn flush(&mut self) {
        self.fabric.flush();
    }

    fn close(&mut self, conn: ConnId) {
        self.fabric.close(conn);
    }

    fn arm(&mut self) -> bool {
        self.fabric.arm()
    }

    fn disarm(&mut self) {
        self.fabric.disarm();
    }

    fn wake_fd(&self) -> Option<RawFd> {
        self.fabric.wake_fd()
    }

    fn register(&mut self, pool: &BufPool) -> Result<(), RegisterError> {
        self.fabric.register(pool)
    }
}

impl Layer for Rings {
    fn family(&self) -> Family {
        Family::Fabric
    }

    fn own_in_use(&self) -> usize {
        0
    }

    fn disturb(&mut self, disturbance: Disturbance) {
        let mut faults = FabricFaults {
            delay_polls_max: DELAY_POLLS_MAX,
            ..FabricFaults::default()
        };
        let all = disturbance == Disturbance::All;
        if all || matches!(disturbance, Disturbance::Loss | Disturbance::Duplication) {
            faults.refuse_ppm = 50_000;
        }
        if all
            || matches!(
                disturbance,
                Disturbance::Duplication | Disturbance::Reordering
            )
        {
            faults.delay_ppm = 20_000;
        }
        if disturbance == Disturbance::Cut {
            faults.close_ppm = 1_000_000;
        }
        self.fabric.set_faults(faults);
    }

    fn disturbed(&self) -> u64 {
        let counts = self.fabric.counts();
        counts.delayed + counts.failed
    }

    fn captured(&self) -> &[u8] {
        &self.captured
    }

    fn inject(&mut self, pool: &mut BufPool, conn: ConnId, bytes: &[u8]) -> bool {
        let Some(buf) = pool.alloc_from(bytes) else {
            return false;
        };
        let sent = self.fabric.inner_mut().send(pool, conn, buf);
        self.fabric.inner_mut().flush();
        if let Err(error) = sent {
            pool.free(error.into_buf());
            return false;
        }
        true
    }
}
