//! The fabric contract over ring pairs.
//!
//! Each message is copied once at each end, between a pool's slot and the ring; code that can fill and read the rings in
//! place uses them directly. Sends become visible at `flush`, which also wakes the reactors that sleep at the other end.

use std::os::fd::RawFd;

use ionian_driver_api::{
    Buf, BufPool, CloseReason, ConnId, Fabric, FabricCaps, FabricEvent, FabricEvents, SendError,
    Wake,
};

use crate::ring::Endpoint;

/// Messages taken from one connection before the next has its turn.
const TURN_MESSAGES_MAX: usize = 32;

#[derive(Debug)]
struct Conn<W> {
    endpoint: Endpoint,
    peer: W,
    /// Something was committed since the last flush.
    dirty: bool,
    /// Something was taken since the peer was last told.
    taken: bool,
    /// A send was refused since the last successful one: worth a wake-up when room comes.
    wanted: Option<usize>,
}

/// No connection slot is left. Effect: none.
#[derive(Debug)]
pub struct ShmFabricFull(
    /// The endpoint that was not added.
    pub Endpoint,
);

/// Connections to other reactors of this process. `W` wakes the reactor at the other end.
#[derive(Debug)]
pub struct ShmFabric<W> {
    conns: Vec<Option<Conn<W>>>,
    conns_max: usize,
    message_bytes_max: usize,
    next_turn: usize,
}

impl<W: Wake> ShmFabric<W> {
    /// A fabric for up to `conns_max` connections over its life, with rings of `capacity_bytes` in each direction.
    #[must_use]
    pub fn new(conns_max: usize, capacity_bytes: usize) -> Self {
        Self {
            conns: Vec::with_capacity(conns_max),
            conns_max,
            message_bytes_max: (capacity_bytes / 2).saturating_sub(8),
            next_turn: 0,
        }
    }

    /// Adds one end of a [`duplex`](crate::duplex) pair, made with this fabric's capacity. `peer` wakes the reactor that
    /// holds the other end.
    ///
    /// # Errors
    ///
    /// [`ShmFabricFull`] with the endpoint when `conns_max` connections were added. Effect: none.
    pub fn add(&mut self, endpoint: Endpoint, peer: W) -> Result<ConnId, ShmFabricFull> {
        if self.conns.len() >= self.conns_max {
            return Err(ShmFabricFull(endpoint));
        }
        self.message_bytes_max = self.message_bytes_max.min(endpoint.tx.message_bytes_max());
        let conn = ConnId::new(u32::try_from(self.conns.len()).expect("connections are few"));
        self.conns.push(Some(Conn {
            endpoint,
            peer,
            dirty: false,
            taken: false,
            wanted: None,
        }));
        Ok(conn)
    }

    /// Takes what one connection has, up to its turn. Returns whether more may be waiting, or why it is over.
    fn take_turn(
        conn: &mut Conn<W>,
        id: ConnId,
        pool: &mut BufPool,
        events: &mut FabricEvents,
    ) -> Result<(), CloseReason> {
        for _ in 0..TURN_MESSAGES_MAX {
            if events.is_full() {
                return Ok(());
            }
            let Some(message) = conn.endpoint.rx.peek() else {
                return if conn.endpoint.rx.is_finished() {
                    Err(CloseReason::PeerGone)
                } else {
                    Ok(())
                };
            };
            if message.len() > pool.slot_bytes() {
                return Err(CloseReason::Protocol);
            }
            let Some(buf) = pool.alloc_from(message) else {
                return Ok(());
            };
            conn.endpoint.rx.release();
            conn.taken = true;
            if let Err(FabricEvent::Received { buf, .. }) =
                events.push(FabricEvent::Received { conn: id, buf })
            {
                pool.free(buf);
                unreachable!("room was checked");
            }
        }
        Ok(())
    }
}

impl<W: Wake> Fabric for ShmFabric<W> {
    fn caps(&self) -> FabricCaps {
        FabricCaps {
            backend: "shm",
            message_bytes_max: self.message_bytes_max,
            one_sided: false,
        }
    }

    fn poll(&mut self, pool: &mut BufPool, events: &mut FabricEvents) -> usize {
        let before = events.len();
        let count = self.conns.len();
        for turn in 0..count {
            if events.is_full() {
                break;
            }
            let index = (self.next_turn + turn) % count;
            let Some(conn) = self.conns[index].as_mut() else {
                continue;
            };
            let id = ConnId::new(u32::try_from(index).expect("connections are few"));
            let result = Self::take_turn(conn, id, pool, events);
            if conn.taken {
                conn.taken = false;
                if conn.endpoint.rx.publish() {
                    conn.peer.wake();
                }
            }
            if let Err(reason) = result
                && events
                    .push(FabricEvent::Closed { conn: id, reason })
                    .is_ok()
            {
                self.close(id);
            }
        }
        self.next_turn = if count > 0 {
            (self.next_turn + 1) % count
        } else {
            0
        };
        events.len() - before
    }

    fn send(&mut self, pool: &mut BufPool, conn: ConnId, buf: Buf) -> Result<(), SendError> {
        let Some(Some(conn)) = self.conns.get_mut(conn.index()) else {
            return Err(SendError::Closed(buf));
        };
        if buf.len() > self.message_bytes_max {
            return Err(SendError::TooLarge(buf));
        }
        if conn.endpoint.tx.is_closed() {
            return Err(SendError::Closed(buf));
        }
        if !conn.endpoint.tx.push(pool.bytes(&buf)) {
            conn.wanted = Some(buf.len());
            return Err(SendError::Full(buf));
        }
        conn.dirty = true;
        conn.wanted = None;
        pool.free(buf);
        Ok(())
    }

    fn flush(&mut self) {
        for conn in self.conns.iter_mut().flatten() {
            if conn.dirty {
                conn.dirty = false;
                if conn.endpoint.tx.publish() {
                    conn.peer.wake();
                }
            }
        }
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(mut conn) = self.conns.get_mut(conn.index()).and_then(Option::take) {
            // What was sent before may still be read; `publish` only asks about sleep that was announced before it.
            let _ = conn.endpoint.tx.publish();
            drop(conn.endpoint);
            conn.peer.wake();
        }
    }

    fn arm(&mut self) -> bool {
        let mut work = false;
        for conn in self.conns.iter_mut().flatten() {
            // Room that came is reported once: whoever wanted it tries again now, or never.
            let room_came = conn
                .wanted
                .take_if(|len| !conn.endpoint.tx.arm(*len))
                .is_some();
            work |= conn.dirty || room_came || !conn.endpoint.rx.arm();
        }
        if work {
            self.disarm();
        }
        !work
    }

    fn disarm(&mut self) {
        for conn in self.conns.iter_mut().flatten() {
            conn.endpoint.rx.disarm();
            conn.endpoint.tx.disarm();
        }
    }

    fn wake_fd(&self) -> Option<RawFd> {
        None
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
