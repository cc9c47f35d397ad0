//! The bounded, preallocated output of a machine.
//!
//! A machine writes messages here and returns; the edge then carries each to its connection and clears the outbox.
//! Two rules make backpressure simple and growth impossible:
//!
//! * An answer to a message always fits: the edge hands a machine a message of a connection only while that connection
//!   has room for the largest answer ([`REPLY_BYTES_MAX`]).
//! * Everything else is sent from `flush`, from state that is cumulative (a length, a cursor, the newest entry), and only
//!   while [`Outbox::room`] says so. What does not fit is sent later, or superseded.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use ionian_store::RunRef;
use ionian_types::ConnId;
use ionian_wire::Writer;
use ionian_wire::frame::{self, Body, MESSAGE_BYTES_MAX};

/// Room that the edge keeps free on a connection for the answer to one message, in bytes.
pub const REPLY_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

/// The size of an outbox.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Bytes of message heads and of tails that do not lie in the store.
    pub arena_bytes: usize,
    /// Messages between two drains.
    pub messages: usize,
    /// Connections.
    pub connections: usize,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self {
            arena_bytes: 2 * MESSAGE_BYTES_MAX,
            messages: 4096,
            connections: 1024,
        }
    }
}

/// The message did not fit; nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no room in the outbox or on the connection")]
pub struct Full;

/// One message to carry: `head`, then `body` when there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// Where to.
    pub conn: ConnId,
    head: (u32, u32),
    /// Records that follow the head, to be read from the machine's store.
    pub body: Option<RunRef>,
}

/// The outbox.
#[derive(Debug)]
pub struct Outbox {
    arena: Box<[u8]>,
    used: usize,
    envelopes: Vec<Envelope>,
    room: Box<[usize]>,
}

impl Outbox {
    /// Makes an outbox; nothing is allocated after.
    #[must_use]
    pub fn new(limits: OutboxLimits) -> Self {
        Self {
            arena: vec![0; limits.arena_bytes].into_boxed_slice(),
            used: 0,
            envelopes: Vec::with_capacity(limits.messages),
            room: vec![0; limits.connections].into_boxed_slice(),
        }
    }

    /// Says how many bytes a connection takes now, replies included. Called by the edge before the machine runs.
    pub fn set_room(&mut self, conn: ConnId, bytes: usize) {
        if let Some(room) = self.room.get_mut(conn.index()) {
            *room = bytes;
        }
    }

    /// How many bytes may be sent to `conn` from `flush`: what is left above the reserve for replies, and in the arena.
    #[must_use]
    pub fn room(&self, conn: ConnId) -> usize {
        let Some(room) = self.room.get(conn.index()) else {
            return 0;
        };
        if self.envelopes.len() == self.envelopes.capacity() {
            return 0;
        }
        room.saturating_sub(REPLY_BYTES_MAX)
    }

    /// Bytes of the arena still free.
    #[must_use]
    pub fn arena_room(&self) -> usize {
        self.arena.len() - self.used
    }

    /// Sends a message with a tail from elsewhere.
    ///
    /// # Errors
    /// [`Full`]; nothing was written.
    #[inline]
    pub fn send<B: Body>(&mut self, conn: ConnId, body: &B, tail: &[u8]) -> Result<(), Full> {
        self.send_parts(conn, body, &[tail])
    }

    /// Sends a message with a tail of several parts.
    ///
    /// # Errors
    /// [`Full`]; nothing was written.
    #[inline]
    pub fn send_parts<B: Body>(
        &mut self,
        conn: ConnId,
        body: &B,
        tail: &[&[u8]],
    ) -> Result<(), Full> {
        let len = frame::encode(&mut self.arena[self.used..], body, tail).map_err(|_| Full)?;
        self.enclose(conn, len, None)
    }

    /// Sends a message whose tail is written by `write` straight into the outbox.
    ///
    /// # Errors
    /// [`Full`]; nothing was written.
    pub fn send_with<B: Body>(
        &mut self,
        conn: ConnId,
        body: &B,
        write: impl FnOnce(&mut Writer<'_>) -> Result<(), ionian_wire::WireError>,
    ) -> Result<(), Full> {
        let mut writer = Writer::new(&mut self.arena[self.used..]);
        frame::encode_head(&mut writer, body, 0).map_err(|_| Full)?;
        write(&mut writer).map_err(|_| Full)?;
        let len = writer.len();
        frame::patch_len(&mut self.arena[self.used..self.used + len]);
        self.enclose(conn, len, None)
    }

    /// Sends a message that is already in bytes.
    ///
    /// # Errors
    /// [`Full`]; nothing was written.
    #[inline]
    pub fn send_frame(&mut self, conn: ConnId, frame: &[u8]) -> Result<(), Full> {
        let free = &mut self.arena[self.used..];
        free.get_mut(..frame.len())
            .ok_or(Full)?
            .copy_from_slice(frame);
        self.enclose(conn, frame.len(), None)
    }

    /// Sends a message whose tail is a run of records in the store.
    ///
    /// # Errors
    /// [`Full`]; nothing was written.
    #[inline]
    pub fn send_run<B: Body>(&mut self, conn: ConnId, body: &B, run: RunRef) -> Result<(), Full> {
        let mut writer = Writer::new(&mut self.arena[self.used..]);
        frame::encode_head(&mut writer, body, run.bytes as usize).map_err(|_| Full)?;
        let len = writer.len();
        self.enclose(conn, len, Some(run))
    }

    fn enclose(&mut self, conn: ConnId, len: usize, body: Option<RunRef>) -> Result<(), Full> {
        let total = len + body.map_or(0, |run| run.bytes as usize);
        let room = self.room.get_mut(conn.index()).ok_or(Full)?;
        if self.envelopes.len() == self.envelopes.capacity() || *room < total {
            return Err(Full);
        }
        *room -= total;
        self.envelopes.push(Envelope {
            conn,
            head: (self.used as u32, len as u32),
            body,
        });
        self.used += len;
        Ok(())
    }

    /// The messages to carry, in order.
    #[must_use]
    pub fn envelopes(&self) -> &[Envelope] {
        &self.envelopes
    }

    /// The head of one message: everything but the body.
    #[must_use]
    pub fn head(&self, envelope: &Envelope) -> &[u8] {
        let (from, len) = envelope.head;
        &self.arena[from as usize..from as usize + len as usize]
    }

    /// Forgets every message, once carried.
    pub fn clear(&mut self) {
        self.envelopes.clear();
        self.used = 0;
    }

    /// Whether nothing waits to be carried.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.envelopes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ionian_wire::frame::StatusRequest;

    #[test]
    fn a_full_outbox_refuses_and_keeps_what_it_has() {
        let mut out = Outbox::new(OutboxLimits {
            arena_bytes: 40,
            messages: 8,
            connections: 1,
        });
        let conn = ConnId::new(0);
        let message = StatusRequest { request: 7 };
        assert_eq!(
            out.send(conn, &message, &[]),
            Err(Full),
            "no room was granted"
        );
        out.set_room(conn, 1000);
        assert_eq!(out.send(conn, &message, &[]), Ok(()));
        assert_eq!(out.send(conn, &message, &[]), Ok(()));
        assert_eq!(
            out.send(conn, &message, &[]),
            Err(Full),
            "the arena is full"
        );
        assert_eq!(out.envelopes().len(), 2);
        out.clear();
        assert!(out.is_empty());
    }
}
