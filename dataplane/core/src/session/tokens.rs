//! Telling sessions apart before anything is checked: what a process with many sessions dispatches by.
//!
//! Nothing here is secret or trusted. The claim decides only which session looks at the datagram; that session compares
//! all 24 bytes.

pub use ionian_wire::packet::PacketPrefix;

/// What the datagram claims to be for; `None` when it is too short to claim anything.
#[must_use]
#[inline]
pub fn peek(datagram: &[u8]) -> Option<PacketPrefix> {
    PacketPrefix::peek(datagram)
}
