//! What a session is made with, and the bounds that keep its memory fixed.

use ionian_types::{GuardEpoch, Nanos, SessionId, Token};
use ionian_wire::frame::{MESSAGE_BYTES_MAX, MESSAGE_HEADER_BYTES};
use ionian_wire::packet::{PACKET_BYTES_MAX, PACKET_OVERHEAD_BYTES, PACKET_SACK_BYTES};

/// The largest window in packets. Larger ones would make the scans after a loss long.
pub const WINDOW_PACKETS_MAX: u32 = 1024;
/// How many packets a sender may send before it has heard from the receiver; each receiver can hold at least as many.
pub const CREDIT_INITIAL_PACKETS: u32 = 4;
/// The smallest datagram in bytes that a session works with: every IPv6 path carries it.
pub const MTU_BYTES_MIN: usize = 256;

/// What a session is made with. Both ends use the same values but for the tokens, which are swapped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionConfig {
    /// The session, as its grant names it.
    pub session: SessionId,
    /// The epoch of the grant. A change of epoch is a new session on both ends; packets of another one are dropped.
    pub epoch: GuardEpoch,
    /// The secret that packets from here carry.
    pub token_send: Token,
    /// The secret that packets to here must carry.
    pub token_receive: Token,
    /// The largest datagram in bytes, header and checksum included: [`MTU_BYTES_MIN`] to [`PACKET_BYTES_MAX`].
    pub mtu_bytes: usize,
    /// The largest number of packets sent and not acked: a power of two, [`CREDIT_INITIAL_PACKETS`] to
    /// [`WINDOW_PACKETS_MAX`].
    pub window_packets: u32,
    /// The bytes of messages that may wait here, sent or not, until they are acked. At least `message_bytes_max`.
    pub send_bytes_max: usize,
    /// The bytes that packets which cannot be delivered yet may take here: out of order, or refused by the application.
    /// Divided by the datagram it is the credit given to the peer; at least [`CREDIT_INITIAL_PACKETS`] datagrams.
    pub receive_bytes_max: usize,
    /// The largest message in bytes, header included; a peer that sends a larger one breaks the session. At most
    /// [`MESSAGE_BYTES_MAX`].
    pub message_bytes_max: usize,
    /// The shortest wait for an ack before something is sent again.
    pub rto_min: Nanos,
    /// The longest such wait, backoff included. At least `rto_min`.
    pub rto_max: Nanos,
    /// How long an ack may be held back in the hope of data to travel with.
    pub ack_delay: Nanos,
    /// How many packets may arrive before an ack is sent without waiting further. 1 acks each.
    pub ack_every_packets: u32,
    /// How long after the last sign of life an awaited answer may be missing before the peer counts as dead.
    pub dead_after: Nanos,
    /// How long the peer may be silent before it is asked for a sign of life; zero never asks.
    pub ping_interval: Nanos,
}

impl SessionConfig {
    /// A session with the limits that suit a local network, to be adjusted field by field.
    #[must_use]
    pub const fn new(
        session: SessionId,
        epoch: GuardEpoch,
        token_send: Token,
        token_receive: Token,
    ) -> Self {
        Self {
            session,
            epoch,
            token_send,
            token_receive,
            mtu_bytes: 1472,
            window_packets: 512,
            send_bytes_max: 4 << 20,
            receive_bytes_max: 1 << 20,
            message_bytes_max: MESSAGE_BYTES_MAX,
            rto_min: Nanos::from_us(500),
            rto_max: Nanos::from_ms(100),
            ack_delay: Nanos::from_us(100),
            ack_every_packets: 16,
            dead_after: Nanos::from_ms(3000),
            ping_interval: Nanos::from_ms(500),
        }
    }

    /// The payload of a packet without bitmap, at most, in bytes.
    #[must_use]
    pub const fn payload_bytes_max(&self) -> usize {
        self.mtu_bytes - PACKET_OVERHEAD_BYTES
    }

    /// The number of packets that this end can hold back: the credit it gives. A power of two.
    pub(super) const fn credit_packets(&self) -> u32 {
        let held = self.receive_bytes_max / self.payload_bytes_max();
        if held >= self.window_packets as usize {
            self.window_packets
        } else {
            1 << (held as u32).ilog2()
        }
    }

    /// Says what is wrong with the values, if anything.
    ///
    /// # Errors
    /// [`ConfigError`], naming the first field that is out of range.
    pub const fn check(&self) -> Result<(), ConfigError> {
        const LOW: usize = PACKET_OVERHEAD_BYTES + PACKET_SACK_BYTES + MESSAGE_HEADER_BYTES;
        const { assert!(MTU_BYTES_MIN > LOW) };
        let field = if self.mtu_bytes < MTU_BYTES_MIN || self.mtu_bytes > PACKET_BYTES_MAX {
            "mtu_bytes"
        } else if !self.window_packets.is_power_of_two()
            || self.window_packets < CREDIT_INITIAL_PACKETS
            || self.window_packets > WINDOW_PACKETS_MAX
        {
            "window_packets"
        } else if self.message_bytes_max < MESSAGE_HEADER_BYTES
            || self.message_bytes_max > MESSAGE_BYTES_MAX
        {
            "message_bytes_max"
        } else if self.send_bytes_max < self.message_bytes_max
            || self.send_bytes_max > u32::MAX as usize
        {
            "send_bytes_max"
        } else if self.receive_bytes_max
            < CREDIT_INITIAL_PACKETS as usize * self.payload_bytes_max()
            || self.receive_bytes_max > u32::MAX as usize
        {
            "receive_bytes_max"
        } else if self.rto_min.0 == 0 || self.rto_max.0 < self.rto_min.0 {
            "rto_min"
        } else if self.ack_every_packets == 0 {
            "ack_every_packets"
        } else if self.dead_after.0 == 0 {
            "dead_after"
        } else {
            return Ok(());
        };
        Err(ConfigError { field })
    }
}

/// Shows everything but the tokens, which are secrets.
impl core::fmt::Debug for SessionConfig {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SessionConfig")
            .field("session", &self.session)
            .field("epoch", &self.epoch)
            .field("mtu_bytes", &self.mtu_bytes)
            .field("window_packets", &self.window_packets)
            .field("send_bytes_max", &self.send_bytes_max)
            .field("receive_bytes_max", &self.receive_bytes_max)
            .finish_non_exhaustive()
    }
}

/// A value of [`SessionConfig`] is outside its documented range. Effect: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("session configuration: {field} is out of range")]
pub struct ConfigError {
    /// The field.
    pub field: &'static str,
}
