//! One-sided writes: what is exposed to peers, and writing to what they exposed.
//!
//! A region's key, address and rights go to the peer in a control frame, sent before any message that may name the key. A
//! write names address and device key, which only the device checks; its event names the region, which is checked here.

use ionian_driver_api::{
    Bounded, Buf, BufPool, CloseReason, ConnId, ExposeError, OneSided, RegionGrant, RegionKey,
    RegionRange, SendError,
};

use super::VerbsFabric;
use super::conn::Queued;
use crate::api::{Permit, RemoteBytes, VerbsApi};
use crate::control::{COMPACT_REGIONS, Control};

/// A slot that a peer may write.
#[derive(Debug)]
struct Exposed {
    conn: ConnId,
    buf: Buf,
    writable: RegionRange,
    epoch: u64,
    permit: Permit,
    /// The peer was told of it.
    announced: bool,
}

#[derive(Debug)]
enum State {
    Free,
    Exposed(Exposed),
    /// Taken from the peer, and not yet given to the owner.
    Fenced(Buf),
}

#[derive(Debug)]
struct Region {
    /// Grows whenever a key ends.
    generation: u32,
    /// The number is used again once the receive completions were found empty so often: a compact write names the number
    /// only, and one that had landed before its region was taken back may still be among them.
    free_from: u64,
    state: State,
}

/// All regions of a fabric.
#[derive(Debug)]
pub(super) struct Regions {
    table: Box<[Region]>,
    epoch_min: u64,
}

impl Regions {
    pub(super) fn new(regions_max: usize) -> Self {
        let region = |_| Region {
            generation: 0,
            free_from: 0,
            state: State::Free,
        };
        Self {
            table: (0..regions_max).map(region).collect(),
            epoch_min: 0,
        }
    }

    pub(super) fn epoch_min(&self) -> u64 {
        self.epoch_min
    }

    /// Buffers held.
    pub(super) fn held(&self) -> usize {
        let held = self.table.iter();
        held.filter(|region| !matches!(region.state, State::Free))
            .count()
    }

    fn get(&self, key: RegionKey) -> Option<&Exposed> {
        let region = self.table.get(key.region as usize)?;
        match &region.state {
            State::Exposed(exposed) if region.generation == key.generation => Some(exposed),
            _ => None,
        }
    }

    /// Whether `conn` may write `range` of the region.
    pub(super) fn permits(&self, conn: ConnId, key: RegionKey, range: RegionRange) -> bool {
        self.get(key)
            .is_some_and(|region| region.conn == conn && region.writable.contains(range))
    }

    /// Which bytes a compact write of `conn` has changed. `None` where no correct peer writes.
    pub(super) fn landed(
        &self,
        conn: ConnId,
        region: u32,
        bytes: u32,
    ) -> Option<(RegionKey, RegionRange)> {
        let generation = self.table.get(region as usize)?.generation;
        let key = RegionKey { region, generation };
        let range = RegionRange {
            offset: self.get(key)?.writable.offset,
            len: bytes,
        };
        self.permits(conn, key, range).then_some((key, range))
    }

    /// Takes everything back, from a device that has no queue pair left.
    pub(super) fn take_all<V: VerbsApi>(&mut self, api: &mut V, done: &mut Vec<Buf>) {
        for region in &mut self.table {
            match std::mem::replace(&mut region.state, State::Free) {
                State::Free => {}
                State::Exposed(exposed) => {
                    region.generation = region.generation.wrapping_add(1);
                    // Nobody is connected: even one that stays registered is written by nobody.
                    let _ = api.deregister(exposed.permit.mr);
                    done.push(exposed.buf);
                }
                State::Fenced(buf) => done.push(buf),
            }
        }
    }
}

impl<V: VerbsApi> VerbsFabric<V> {
    /// Tells the peers of regions for which there was no credit.
    pub(super) fn announce_all(&mut self) {
        for place in 0..self.conns.len() {
            if self.conns[place].unannounced > 0 && self.place(self.conn_id(place)).is_some() {
                self.announce(place);
                self.post(place);
            }
        }
    }

    /// Queues what the peer was not told of yet, as far as there is credit.
    pub(super) fn announce(&mut self, place: usize) {
        if self.conns[place].unannounced == 0 {
            return;
        }
        let id = self.conn_id(place);
        let conn = &mut self.conns[place];
        for (number, region) in (0..).zip(self.regions.table.iter_mut()) {
            let State::Exposed(exposed) = &mut region.state else {
                continue;
            };
            if exposed.announced || exposed.conn != id {
                continue;
            }
            if conn.credits == 0 || !conn.has_room(1, &self.options) {
                return;
            }
            conn.credits -= 1;
            conn.unannounced -= 1;
            exposed.announced = true;
            conn.queued.push_back(Queued::Control(Control::Region {
                key: RegionKey {
                    region: number,
                    generation: region.generation,
                },
                range: exposed.writable,
                address: exposed.permit.address,
                rkey: exposed.permit.rkey,
            }));
        }
    }

    /// Ends the exposure of a region. No write lands in it afterwards.
    fn take_back(&mut self, number: usize) -> Buf {
        let region = &mut self.regions.table[number];
        let State::Exposed(exposed) = std::mem::replace(&mut region.state, State::Free) else {
            unreachable!("the caller has looked");
        };
        region.generation = region.generation.wrapping_add(1);
        region.free_from = self.recv_empties + 1;
        let place = self.place(exposed.conn);
        if let (Some(place), false) = (place, exposed.announced) {
            self.conns[place].unannounced -= 1;
        }
        if self.api.deregister(exposed.permit.mr).is_err() {
            self.counts.regions_stuck += 1;
            // A pair in the error state takes nothing in.
            if let Some(place) = place {
                self.end(place, CloseReason::Broken);
            }
        }
        exposed.buf
    }

    /// Where the peer exposed these bytes, as far as it has told.
    fn target(
        &self,
        place: usize,
        key: RegionKey,
        range: RegionRange,
    ) -> Option<(RemoteBytes, bool)> {
        let regions = &self.conns[place].peer_regions;
        let region = regions.get(key.region as usize)?.as_ref()?;
        if region.key != key || !region.range.contains(range) {
            return None;
        }
        let skip = range.offset - region.range.offset;
        let remote = RemoteBytes {
            address: region.address.wrapping_add(u64::from(skip)),
            rkey: region.rkey,
        };
        Some((remote, skip == 0 && key.region < COMPACT_REGIONS))
    }

    /// Panics if a buffer of another pool than the registered one is about to reach the device: our own bug.
    pub(super) fn check_pool(&self, pool: &BufPool) {
        let registered = self.registered.as_ref();
        assert!(
            registered
                .is_some_and(|registered| std::sync::Arc::ptr_eq(&registered.arena, pool.arena())),
            "used with a pool that is not the registered one"
        );
    }
}

impl<V: VerbsApi> OneSided for VerbsFabric<V> {
    fn expose(
        &mut self,
        conn: ConnId,
        buf: Buf,
        grant: RegionGrant,
    ) -> Result<RegionKey, ExposeError> {
        if grant.epoch < self.regions.epoch_min {
            return Err(ExposeError::Fenced(buf));
        }
        let Some(writable) = grant.rights.range(buf.len()).filter(|range| range.len > 0) else {
            return Err(ExposeError::Rights(buf));
        };
        let (Some(place), Some(registered)) = (self.place(conn), &self.registered) else {
            return Err(ExposeError::Closed(buf));
        };
        let Some(number) = self.regions.table.iter().position(|region| {
            matches!(region.state, State::Free) && region.free_from <= self.recv_empties
        }) else {
            return Err(ExposeError::Full(buf));
        };
        // SAFETY: the table holds the buffer until the region was deregistered, or where the device refused that, until its
        // connection's pair was moved to the error state; nothing borrows the bytes of a buffer that the fabric owns.
        let permit = unsafe {
            self.api.expose(
                &registered.arena,
                buf.index(),
                writable.offset,
                writable.len,
            )
        };
        let permit = match permit {
            Ok(permit) => permit,
            Err(error) => {
                return Err(ExposeError::Device {
                    buf,
                    errno: error.errno,
                });
            }
        };
        let region = &mut self.regions.table[number];
        region.state = State::Exposed(Exposed {
            conn,
            buf,
            writable,
            epoch: grant.epoch,
            permit,
            announced: false,
        });
        let generation = region.generation;
        self.conns[place].unannounced += 1;
        self.announce(place);
        Ok(RegionKey {
            region: u32::try_from(number).expect("regions are few"),
            generation,
        })
    }

    fn revoke(&mut self, key: RegionKey) -> Option<Buf> {
        self.regions.get(key)?;
        Some(self.take_back(key.region as usize))
    }

    fn fence(&mut self, epoch_min: u64, out: &mut Bounded<Buf>) -> usize {
        self.regions.epoch_min = self.regions.epoch_min.max(epoch_min);
        let before = out.len();
        for number in 0..self.regions.table.len() {
            let region = &mut self.regions.table[number];
            let buf = match &region.state {
                State::Exposed(exposed) if exposed.epoch < self.regions.epoch_min => {
                    self.take_back(number)
                }
                State::Fenced(_) => match std::mem::replace(&mut region.state, State::Free) {
                    State::Fenced(buf) => buf,
                    State::Free | State::Exposed(_) => unreachable!("it was just looked at"),
                },
                State::Free | State::Exposed(_) => continue,
            };
            if let Err(buf) = out.push(buf) {
                self.regions.table[number].state = State::Fenced(buf);
            }
        }
        out.len() - before
    }

    fn copy_out(&self, pool: &BufPool, key: RegionKey, range: RegionRange, into: &mut Buf) -> bool {
        let (offset, len) = (range.offset as usize, range.len as usize);
        self.regions
            .get(key)
            .is_some_and(|region| pool.copy_shared(&region.buf, offset, len, into))
    }

    fn write(
        &mut self,
        pool: &mut BufPool,
        conn: ConnId,
        key: RegionKey,
        offset: u32,
        immediate: u32,
        buf: Buf,
    ) -> Result<(), SendError> {
        let Some(place) = self.place(conn) else {
            return Err(SendError::Closed(buf));
        };
        self.release(pool);
        self.check_pool(pool);
        if buf.len() > self.conns[place].message_bytes_max as usize {
            return Err(SendError::TooLarge(buf));
        }
        self.announce(place);
        let conn = &self.conns[place];
        if conn.unannounced > 0 || conn.credits == 0 || !conn.has_room(2, &self.options) {
            self.counts.full += 1;
            return Err(SendError::Full(buf));
        }
        let range = RegionRange {
            offset,
            len: u32::try_from(buf.len()).expect("a slot is at most 2^30 bytes"),
        };
        let target = self.target(place, key, range);
        let queued = &mut self.conns[place].queued;
        match (target, u16::try_from(immediate)) {
            (Some((remote, true)), Ok(number)) => {
                queued.push_back(Queued::Compact(buf, remote, key.region, number));
                self.counts.writes_compact += 1;
            }
            (Some((remote, _)), _) => {
                queued.push_back(Queued::Write(buf, remote));
                queued.push_back(Queued::Control(Control::Written {
                    key,
                    range,
                    immediate,
                }));
            }
            (None, _) => {
                queued.push_back(Queued::Control(Control::Refused { key }));
                self.done.push(buf);
            }
        }
        self.conns[place].credits -= 1;
        self.counts.writes_sent += 1;
        Ok(())
    }
}
