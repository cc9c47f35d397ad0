//! One-sided writes over any fabric: the write travels as a message and the receiving side copies it to its region.
//!
//! Each message carries a trailer, one byte for a plain message and seventeen for a write, because a trailer is appended
//! in place where a header would move the bytes. A peer that names a region it was not given, one that was taken back, or
//! bytes outside its rights, is disconnected: such a write never reaches memory.

use std::os::fd::RawFd;

use ionian_types::ConnId;

use crate::bounded::Bounded;
use crate::buf::{Buf, BufPool};
use crate::fabric::{
    CloseReason, Fabric, FabricCaps, FabricEvent, FabricEvents, RegisterError, SendError,
};
use crate::onesided::{ExposeError, OneSided, RegionGrant, RegionKey, RegionRange};

/// Last byte of a plain message.
const KIND_MESSAGE: u8 = 0;
/// Last byte of a write.
const KIND_WRITE: u8 = 1;
/// Region, generation, offset, immediate (each u32, little-endian), kind.
const WRITE_TRAILER_BYTES: usize = 17;

/// A buffer that a peer may write.
#[derive(Debug)]
struct Exposed {
    conn: ConnId,
    buf: Buf,
    /// Bytes that the peer may write.
    writable: RegionRange,
    epoch: u64,
}

/// One region number. Its generation grows whenever a key ends, so that the number of an ended one names nothing.
#[derive(Debug)]
struct Region {
    generation: u32,
    state: State,
}

/// ```text
/// Free --expose--> Exposed --revoke, fence with room--> Free
///                     +------fence without room--> Fenced --next fence--> Free
/// ```
#[derive(Debug)]
enum State {
    Free,
    Exposed(Exposed),
    /// Taken from the peer, and not yet given to the owner.
    Fenced(Buf),
}

/// Gives a [`Fabric`] the [`OneSided`] contract. Both ends of a connection must be wrapped. Slots of the pools that it is used
/// with are at least as large as a message of the wrapped fabric: 17 bytes more than one of this.
#[derive(Debug)]
pub struct Emulated<F> {
    inner: F,
    regions: Box<[Region]>,
    /// Grants of an epoch below this one are refused.
    epoch_min: u64,
    staged: FabricEvents,
    /// Messages of connections that their owner closed before it fetched them. They go back at the next poll.
    unheard: Bounded<Buf>,
    protocol_errors: u64,
}

impl<F: Fabric> Emulated<F> {
    /// Wraps `inner`, with room for `regions_max` exposed regions and `events_max` events per poll.
    #[must_use]
    pub fn new(inner: F, regions_max: usize, events_max: usize) -> Self {
        Self {
            inner,
            regions: (0..regions_max)
                .map(|_| Region {
                    generation: 0,
                    state: State::Free,
                })
                .collect(),
            epoch_min: 0,
            staged: Bounded::with_capacity(events_max.max(1)),
            unheard: Bounded::with_capacity(events_max.max(1)),
            protocol_errors: 0,
        }
    }

    /// Messages that no correct peer sends under a valid grant, each of which closed its connection.
    #[must_use]
    pub fn protocol_errors(&self) -> u64 {
        self.protocol_errors
    }

    /// The wrapped fabric.
    pub fn inner_mut(&mut self) -> &mut F {
        &mut self.inner
    }

    fn region(&self, key: RegionKey) -> Option<&Exposed> {
        let region = self.regions.get(key.region as usize)?;
        match &region.state {
            State::Exposed(exposed) if region.generation == key.generation => Some(exposed),
            _ => None,
        }
    }

    /// Drops what is staged of a connection that was closed: no event follows its end.
    fn forget(&mut self, gone: ConnId) {
        for _ in 0..self.staged.len() {
            let Some(event) = self.staged.pop() else {
                break;
            };
            match event {
                FabricEvent::Received { conn, buf } if conn == gone => {
                    if self.unheard.push(buf).is_err() {
                        unreachable!("no more than were staged, and all go back before more are");
                    }
                }
                FabricEvent::Delivered { conn, .. } | FabricEvent::Closed { conn, .. }
                    if conn == gone => {}
                other => {
                    if self.staged.push(other).is_err() {
                        unreachable!("one was taken out");
                    }
                }
            }
        }
    }

    /// Gives the buffers of messages back that nobody is to hear.
    fn free_unheard(&mut self, pool: &mut BufPool) {
        while let Some(buf) = self.unheard.pop() {
            pool.free(buf);
        }
    }

    /// Turns a received message into its event, or `None` if no correct peer sends it. The buffer is used up.
    fn accept(&mut self, pool: &mut BufPool, conn: ConnId, mut buf: Buf) -> Option<FabricEvent> {
        let event = match pool.bytes(&buf).split_last() {
            Some((&KIND_MESSAGE, message)) => {
                let len = message.len();
                pool.set_len(&mut buf, len);
                return Some(FabricEvent::Received { conn, buf });
            }
            Some((&KIND_WRITE, rest)) => {
                rest.split_last_chunk::<16>().and_then(|(data, trailer)| {
                    let word =
                        |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| trailer[at + i]));
                    let key = RegionKey {
                        region: word(0),
                        generation: word(4),
                    };
                    let range = RegionRange {
                        offset: word(8),
                        len: u32::try_from(data.len()).ok()?,
                    };
                    self.land(pool, conn, key, range, data)?;
                    Some(FabricEvent::Delivered {
                        conn,
                        key,
                        range,
                        immediate: word(12),
                    })
                })
            }
            _ => None,
        };
        pool.free(buf);
        event
    }

    fn land(
        &mut self,
        pool: &BufPool,
        conn: ConnId,
        key: RegionKey,
        range: RegionRange,
        data: &[u8],
    ) -> Option<()> {
        let region = self.regions.get_mut(key.region as usize)?;
        let State::Exposed(exposed) = &mut region.state else {
            return None;
        };
        if region.generation != key.generation
            || exposed.conn != conn
            || !exposed.writable.contains(range)
        {
            return None;
        }
        let start = range.offset as usize;
        pool.bytes_mut(&mut exposed.buf)
            .get_mut(start..start.checked_add(data.len())?)?
            .copy_from_slice(data);
        Some(())
    }
}

impl<F: Fabric> Fabric for Emulated<F> {
    fn caps(&self) -> FabricCaps {
        let inner = self.inner.caps();
        FabricCaps {
            message_bytes_max: inner.message_bytes_max.saturating_sub(WRITE_TRAILER_BYTES),
            ..inner
        }
    }

    fn poll(&mut self, pool: &mut BufPool, events: &mut FabricEvents) -> usize {
        self.free_unheard(pool);
        if self.staged.is_empty() {
            self.inner.poll(pool, &mut self.staged);
        }
        let before = events.len();
        while !events.is_full() {
            let Some(event) = self.staged.pop() else {
                break;
            };
            let event = match event {
                FabricEvent::Received { conn, buf } => {
                    self.accept(pool, conn, buf).unwrap_or_else(|| {
                        self.protocol_errors += 1;
                        self.inner.close(conn);
                        self.forget(conn);
                        FabricEvent::Closed {
                            conn,
                            reason: CloseReason::Protocol,
                        }
                    })
                }
                other => other,
            };
            if events.push(event).is_err() {
                unreachable!("room was checked");
            }
        }
        self.free_unheard(pool);
        events.len() - before
    }

    fn send(&mut self, pool: &mut BufPool, conn: ConnId, mut buf: Buf) -> Result<(), SendError> {
        let len = buf.len();
        if len > self.caps().message_bytes_max || len + 1 > pool.slot_bytes() {
            return Err(SendError::TooLarge(buf));
        }
        pool.set_len(&mut buf, len + 1);
        pool.bytes_mut(&mut buf)[len] = KIND_MESSAGE;
        self.inner
            .send(pool, conn, buf)
            .map_err(|error| shortened(pool, error, len))
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn close(&mut self, conn: ConnId) {
        self.inner.close(conn);
        self.forget(conn);
    }

    fn arm(&mut self) -> bool {
        self.staged.is_empty() && self.unheard.is_empty() && self.inner.arm()
    }

    fn disarm(&mut self) {
        self.inner.disarm();
    }

    fn wake_fd(&self) -> Option<RawFd> {
        self.inner.wake_fd()
    }

    fn register(&mut self, pool: &BufPool) -> Result<(), RegisterError> {
        self.inner.register(pool)
    }
}

impl<F: Fabric> OneSided for Emulated<F> {
    fn expose(
        &mut self,
        conn: ConnId,
        buf: Buf,
        grant: RegionGrant,
    ) -> Result<RegionKey, ExposeError> {
        if grant.epoch < self.epoch_min {
            return Err(ExposeError::Fenced(buf));
        }
        let Some(writable) = grant.rights.range(buf.len()) else {
            return Err(ExposeError::Rights(buf));
        };
        let Some(index) = self
            .regions
            .iter()
            .position(|region| matches!(region.state, State::Free))
        else {
            return Err(ExposeError::Full(buf));
        };
        let region = &mut self.regions[index];
        region.state = State::Exposed(Exposed {
            conn,
            buf,
            writable,
            epoch: grant.epoch,
        });
        Ok(RegionKey {
            region: u32::try_from(index).expect("regions are few"),
            generation: region.generation,
        })
    }

    fn revoke(&mut self, key: RegionKey) -> Option<Buf> {
        self.region(key)?;
        let region = &mut self.regions[key.region as usize];
        region.generation = region.generation.wrapping_add(1);
        match std::mem::replace(&mut region.state, State::Free) {
            State::Exposed(exposed) => Some(exposed.buf),
            State::Free | State::Fenced(_) => unreachable!("the key is valid"),
        }
    }

    fn fence(&mut self, epoch_min: u64, out: &mut Bounded<Buf>) -> usize {
        self.epoch_min = self.epoch_min.max(epoch_min);
        let before = out.len();
        for region in &mut self.regions {
            let buf = match std::mem::replace(&mut region.state, State::Free) {
                State::Exposed(exposed) if exposed.epoch < self.epoch_min => {
                    region.generation = region.generation.wrapping_add(1);
                    exposed.buf
                }
                State::Fenced(buf) => buf,
                other => {
                    region.state = other;
                    continue;
                }
            };
            if let Err(buf) = out.push(buf) {
                region.state = State::Fenced(buf);
            }
        }
        out.len() - before
    }

    fn copy_out(&self, pool: &BufPool, key: RegionKey, range: RegionRange, into: &mut Buf) -> bool {
        let Some(source) = self.region(key) else {
            return false;
        };
        let start = range.offset as usize;
        let Some(bytes) = start
            .checked_add(range.len as usize)
            .and_then(|end| pool.bytes(&source.buf).get(start..end))
        else {
            return false;
        };
        if bytes.len() > pool.slot_bytes() {
            return false;
        }
        pool.set_len(into, bytes.len());
        pool.bytes_mut(into).copy_from_slice(bytes);
        true
    }

    fn write(
        &mut self,
        pool: &mut BufPool,
        conn: ConnId,
        key: RegionKey,
        offset: u32,
        immediate: u32,
        mut buf: Buf,
    ) -> Result<(), SendError> {
        let len = buf.len();
        if len > self.caps().message_bytes_max || len + WRITE_TRAILER_BYTES > pool.slot_bytes() {
            return Err(SendError::TooLarge(buf));
        }
        pool.set_len(&mut buf, len + WRITE_TRAILER_BYTES);
        let trailer = &mut pool.bytes_mut(&mut buf)[len..];
        for (word, at) in [key.region, key.generation, offset, immediate]
            .into_iter()
            .zip((0..).step_by(4))
        {
            trailer[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        trailer[WRITE_TRAILER_BYTES - 1] = KIND_WRITE;
        self.inner
            .send(pool, conn, buf)
            .map_err(|error| shortened(pool, error, len))
    }
}

/// A refused message as the caller gave it, without the trailer.
fn shortened(pool: &BufPool, error: SendError, len: usize) -> SendError {
    let strip = |mut buf: Buf| {
        pool.set_len(&mut buf, len);
        buf
    };
    match error {
        SendError::Full(buf) => SendError::Full(strip(buf)),
        SendError::Closed(buf) => SendError::Closed(strip(buf)),
        SendError::TooLarge(buf) => SendError::TooLarge(strip(buf)),
    }
}

#[cfg(test)]
mod tests;
