//! One end of a connection as a host sees it: messages in and out, room, and the frame prefix that comes before anything
//! else.
//!
//! Over shared memory the prefix is compared as bytes: session, epoch and token, in that order. What does not match is
//! dropped and counted.

use std::sync::Arc;

use ionian_core::outbox::REPLY_BYTES_MAX;
use ionian_driver_api::Wake;
use ionian_shm::Endpoint;
use ionian_types::{GuardEpoch, SessionId, Token};

/// Session, epoch and token: the first bytes of every frame.
pub(crate) const PREFIX_BYTES: usize = 24;

/// A link that takes no message of this size has little room: whoever sleeps then also waits for more.
const ROOM_LOW: usize = 2 * REPLY_BYTES_MAX;

/// What both ends of a connection agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkIds {
    /// The session.
    pub session: SessionId,
    /// The epoch of its grant.
    pub epoch: GuardEpoch,
    /// The token of frames that this end sends.
    pub send: Token,
    /// The token of frames that this end takes.
    pub receive: Token,
}

impl LinkIds {
    /// The same as the other end sees it.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            send: self.receive,
            receive: self.send,
            ..self
        }
    }

    fn prefix(&self, token: Token) -> [u8; PREFIX_BYTES] {
        let mut prefix = [0; PREFIX_BYTES];
        prefix[..8].copy_from_slice(&self.session.get().to_le_bytes());
        prefix[8..16].copy_from_slice(&self.epoch.get().to_le_bytes());
        prefix[16..].copy_from_slice(&token.get().to_le_bytes());
        prefix
    }
}

/// A connection over two rings of shared memory.
pub struct ShmLink {
    end: Endpoint,
    send: [u8; PREFIX_BYTES],
    receive: [u8; PREFIX_BYTES],
    wake: Arc<dyn Wake + Send + Sync>,
    dirty: bool,
    /// Both ends say when they give room back, so that one that waits for it may sleep.
    tells_room: bool,
    waits_for_room: bool,
    /// Frames with a wrong prefix.
    pub dropped: u64,
}

impl core::fmt::Debug for ShmLink {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ShmLink")
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl ShmLink {
    /// An end of a pair of rings; `wake` wakes whoever polls the other end.
    #[must_use]
    pub fn new(end: Endpoint, ids: LinkIds, wake: Arc<dyn Wake + Send + Sync>) -> Self {
        Self {
            end,
            send: ids.prefix(ids.send),
            receive: ids.prefix(ids.receive),
            wake,
            dirty: false,
            tells_room: false,
            waits_for_room: false,
            dropped: 0,
        }
    }

    /// As [`Self::new`], between two hosts: each sleeps also while it waits for the other to read.
    pub(crate) fn between_hosts(
        end: Endpoint,
        ids: LinkIds,
        wake: Arc<dyn Wake + Send + Sync>,
    ) -> Self {
        Self {
            tells_room: true,
            ..Self::new(end, ids, wake)
        }
    }

    /// The oldest message not released. Frames with a wrong prefix are dropped on the way.
    #[inline]
    pub fn peek(&mut self) -> Option<&[u8]> {
        while !self.end.rx.peek()?.starts_with(&self.receive) {
            self.dropped += 1;
            self.end.rx.release();
        }
        // A second look, because a borrow that is returned cannot be given up in the loop.
        self.end.rx.peek().map(|frame| &frame[PREFIX_BYTES..])
    }

    /// Gives the oldest message back.
    #[inline]
    pub fn release(&mut self) {
        self.end.rx.release();
    }

    /// The largest message that can be sent now, in bytes.
    #[inline]
    pub fn room(&mut self) -> usize {
        self.end.tx.room().saturating_sub(PREFIX_BYTES)
    }

    /// Sends a message of two parts. `false` when it does not fit now.
    #[inline]
    pub fn send(&mut self, head: &[u8], body: &[u8]) -> bool {
        let total = PREFIX_BYTES + head.len() + body.len();
        if total > self.end.tx.message_bytes_max() {
            return false;
        }
        let Some(room) = self.end.tx.reserve(total) else {
            return false;
        };
        room[..PREFIX_BYTES].copy_from_slice(&self.send);
        room[PREFIX_BYTES..PREFIX_BYTES + head.len()].copy_from_slice(head);
        room[PREFIX_BYTES + head.len()..].copy_from_slice(body);
        self.end.tx.commit(total);
        self.dirty = true;
        true
    }

    /// Shows what was sent to the other end, and wakes it if it sleeps.
    #[inline]
    pub fn publish(&mut self) {
        if self.dirty {
            self.dirty = false;
            if self.end.tx.publish() {
                self.wake.wake();
            }
        }
    }

    /// As [`Self::publish`], to an end that this thread polls itself.
    #[inline]
    pub(crate) fn publish_here(&mut self) {
        if self.dirty {
            self.dirty = false;
            self.end.tx.publish_awake();
        }
    }

    /// After a batch of releases: gives room back to an end that may sleep until it has some.
    #[inline]
    pub(crate) fn give_back(&mut self) {
        if self.tells_room && self.end.rx.publish() {
            self.wake.wake();
        }
    }

    /// Announces a sleep; `false` when there is something to do. `listens` says whether a message that waits is something
    /// to do.
    pub fn arm(&mut self, listens: bool) -> bool {
        if self.end.rx.publish() {
            self.wake.wake();
        }
        let low = ROOM_LOW.min(self.end.tx.message_bytes_max());
        let short = self.tells_room && self.end.tx.room() < low;
        self.waits_for_room = short && self.end.tx.arm(low);
        if short && !self.waits_for_room {
            return false;
        }
        // Without room for an answer no message is taken: then room is what is waited for.
        let full = self.waits_for_room && self.room() < REPLY_BYTES_MAX;
        self.end.rx.arm() || !listens || full
    }

    /// Takes the announcement back.
    pub fn disarm(&mut self) {
        self.end.rx.disarm();
        if core::mem::take(&mut self.waits_for_room) {
            self.end.tx.disarm();
        }
    }

    /// Closes the connection, and wakes the other end to see it.
    pub(crate) fn close(self) {
        let Self { end, wake, .. } = self;
        drop(end);
        wake.wake();
    }

    /// Whether the other end is gone and everything that it sent was read.
    #[must_use]
    pub(crate) fn is_finished(&mut self) -> bool {
        self.end.rx.is_finished()
    }

    /// Whether the other end is gone: nothing sent from now on is read.
    #[must_use]
    pub fn is_closed(&mut self) -> bool {
        self.end.rx.is_finished() || self.end.tx.is_closed()
    }
}
