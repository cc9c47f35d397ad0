//! The seam between the client and whatever carries its messages: a driver of shared memory, UDP, a simulator, a test.

use std::sync::Arc;

use ionian_core::client::PeerKind;
use ionian_types::{ConnId, Time};
use ionian_wire::directory::ClusterMap;
use ionian_wire::frame::Message;
use ionian_wire::grant::Rights;

/// What a link has to tell.
#[derive(Clone, Copy, Debug)]
pub enum LinkEvent<'a> {
    /// A connection is open. Its number is below the client's `connections_max`, and no other open one has it.
    Connected {
        /// The connection.
        conn: ConnId,
        /// Who is at the other end.
        peer: PeerKind,
        /// Bytes that it takes now, as [`Link::room`].
        room: usize,
    },
    /// A connection is gone.
    Disconnected {
        /// The connection.
        conn: ConnId,
    },
    /// A message, checked.
    Message {
        /// The connection it came by.
        conn: ConnId,
        /// The message; it borrows from the link's buffers and is gone after the event.
        message: Message<'a>,
    },
    /// A cluster map, asked for or not. Older ones do no harm.
    Map(&'a ClusterMap),
}

/// Ends a [`Link::sleep`] from another thread.
pub type LinkWaker = Arc<dyn Fn() + Send + Sync>;

/// Carries messages between one client and its peers: reliable and in order per connection.
///
/// A link opens the connections that the client wants and opens them again when they break, with pauses of its own; it asks
/// the directory for the map at its start and when told to.
pub trait Link {
    /// The time of a monotonic clock.
    fn now(&mut self) -> Time;

    /// Hands over what has come, up to a bound of the link's choosing, and returns how many events that were. Never
    /// blocks. In a cooperative plan this is also where the link's own work is done.
    fn poll<F: FnMut(LinkEvent<'_>)>(&mut self, event: F) -> usize;

    /// Bytes that a connection takes now; 0 for one that is not open. What is left after the client's own messages must
    /// hold one message of the largest size, so a connection's buffer has at least twice `MESSAGE_BYTES_MAX` bytes.
    fn room(&mut self, conn: ConnId) -> usize;

    /// Takes one message, no longer than the room. One for a connection that is gone is dropped.
    fn send(&mut self, conn: ConnId, message: &[u8]);

    /// Lets everything sent so far go out.
    fn publish(&mut self);

    /// The peers that the client needs, all of them, by the newest map that the link handed over. Called when there are
    /// new ones.
    fn want(&mut self, peers: &[PeerKind]);

    /// Asks the directory for a newer map.
    fn refresh_map(&mut self);

    /// What the client may do with its log, as far as the link knows: servers refuse the rest.
    fn rights(&self) -> Rights {
        Rights::CLIENT
    }

    /// Blocks until something may have come, until the waker is used, or until `until`. May return early, and does when the
    /// link prefers to spin.
    fn sleep(&mut self, until: Time);

    /// A handle that ends a sleep, also one that begins after its use.
    fn waker(&self) -> LinkWaker;
}
