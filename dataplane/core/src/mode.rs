//! The seam between ordering modes: what a host of replicas dispatches on.
//!
//! Modes differ in how a position is fixed: after the store by a cut (`scalog`), before it by a token or a sequencer, at it
//! by arithmetic. That is the business of the machine on the replica. Everything around it is shared and knows no mode: the
//! store and its cells, the dedup set, the outbox and its backpressure, sessions, greetings and registration, the frames of
//! appends, reads and subscriptions, and the client, which takes the position that an ack names.
//!
//! ```text
//! host -> ModeReplica -> scalog: Replica (with the leaf and the root of its tree beside it)
//!                     -> the next mode: one more variant and one more arm per call; no trait objects
//! ```
//! A mode that needs further roles (a sequencer, say) brings them as machines of their own, as the leaf and the root are.

use alloc::boxed::Box;

use ionian_store::Store;
use ionian_types::{ConnId, OrderingMode, Time};
use ionian_wire::frame::Message;

use crate::outbox::Outbox;
use crate::replica::Replica;

#[cfg(test)]
mod toy;

/// The machine of one replica, whatever the mode of its log.
#[derive(Debug)]
pub enum ModeReplica {
    /// Store first, order by cuts.
    Scalog(Box<Replica>),
    /// One server that counts, for tests of this seam.
    #[cfg(test)]
    Counter(Box<toy::Counter>),
}

/// The same call on whichever machine it is.
macro_rules! dispatch {
    ($self:expr, $machine:ident => $call:expr) => {
        match $self {
            Self::Scalog($machine) => $call,
            #[cfg(test)]
            Self::Counter($machine) => $call,
        }
    };
}

impl ModeReplica {
    /// Whether logs of this mode can be hosted by this build.
    #[must_use]
    pub const fn is_built(mode: OrderingMode) -> bool {
        matches!(mode, OrderingMode::Scalog)
    }

    /// A connection opened; the machine says who it is.
    pub fn opened(&mut self, conn: ConnId, out: &mut Outbox) {
        dispatch!(self, machine => machine.opened(conn, out));
    }

    /// A connection is gone.
    pub fn closed(&mut self, now: Time, conn: ConnId) {
        dispatch!(self, machine => machine.closed(now, conn));
    }

    /// A connection that the edge must close.
    pub fn take_close(&mut self) -> Option<ConnId> {
        dispatch!(self, machine => machine.take_close())
    }

    /// Handles one message; the edge has made sure that `conn` has room for the largest answer.
    #[inline]
    pub fn handle(&mut self, now: Time, conn: ConnId, message: &Message<'_>, out: &mut Outbox) {
        dispatch!(self, machine => machine.handle(now, conn, message, out));
    }

    /// Sends everything cumulative for which there is room.
    #[inline]
    pub fn flush(&mut self, now: Time, out: &mut Outbox) {
        dispatch!(self, machine => machine.flush(now, out));
    }

    /// When [`Self::flush`] must run even if nothing happens.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        dispatch!(self, machine => machine.next_deadline())
    }

    /// The store, for executing its block operations and reading the bodies of envelopes.
    #[must_use]
    pub fn store(&self) -> &Store {
        dispatch!(self, machine => machine.store())
    }

    /// The store, for completing block operations.
    pub fn store_mut(&mut self) -> &mut Store {
        dispatch!(self, machine => machine.store_mut())
    }
}

impl From<Replica> for ModeReplica {
    fn from(replica: Replica) -> Self {
        Self::Scalog(Box::new(replica))
    }
}
