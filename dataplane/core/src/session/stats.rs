//! What a session counts, and why it turns a datagram away.

use ionian_types::Nanos;
use ionian_wire::WireError;

/// Why a datagram was turned away. Effect: none but a count; nothing is sent in answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// Shorter than a packet can be.
    #[error("too short for a packet")]
    Short,
    /// For another session.
    #[error("for another session")]
    Session,
    /// For another epoch of this session.
    #[error("for another epoch")]
    Epoch,
    /// Without the secret of this direction.
    #[error("wrong token")]
    Token,
    /// Damaged on the way.
    #[error("checksum mismatch")]
    Checksum,
    /// Of a version that this build does not know.
    #[error("unknown version")]
    Version,
    /// A field or a length is out of range.
    #[error("malformed")]
    Malformed,
    /// It acks what was never sent.
    #[error("acks what was never sent")]
    AckAhead,
    /// It lies beyond the credit given.
    #[error("beyond the credit")]
    BeyondCredit,
    /// Its payload is larger than the configured datagram allows.
    #[error("larger than the datagrams agreed on")]
    TooLong,
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
}

impl Rejected {
    /// The number of reasons.
    pub const COUNT: usize = 11;

    pub(super) const fn from_wire(error: WireError) -> Self {
        match error {
            WireError::Truncated { .. } => Self::Short,
            WireError::Checksum { .. } => Self::Checksum,
            WireError::Version { .. } => Self::Version,
            _ => Self::Malformed,
        }
    }
}

/// Counts since the session began. All are totals but for the times.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SessionStats {
    /// Packets sent, of every kind, retransmissions included.
    pub packets_sent: u64,
    /// Bytes sent in them, headers included.
    pub bytes_sent: u64,
    /// Packets sent that carry nothing but ack and credit.
    pub acks_sent: u64,
    /// Messages taken over from the application.
    pub messages_sent: u64,
    /// Packets received and not turned away.
    pub packets_received: u64,
    /// Bytes received in them, headers included.
    pub bytes_received: u64,
    /// Messages given to the application.
    pub messages_received: u64,
    /// Messages that the application would not take yet, each time counted.
    pub refusals: u64,
    /// Data packets received once more.
    pub duplicates: u64,
    /// Data packets received before an earlier one.
    pub out_of_order: u64,
    /// Data packets sent once more.
    pub retransmits: u64,
    /// Those of them that acks of later packets called for.
    pub retransmits_fast: u64,
    /// Expiries of the retransmission timer that sent a probe only.
    pub probes: u64,
    /// Further expiries, each of which halves the window.
    pub timeouts: u64,
    /// Datagrams turned away, by reason; see [`SessionStats::rejected`].
    pub rejected: [u64; Rejected::COUNT],
    /// The smoothed round trip, the peer's ack delay included; zero before the first measurement.
    pub srtt: Nanos,
    /// The current wait for an ack, without backoff.
    pub rto: Nanos,
    /// The congestion window in packets.
    pub window_packets: u32,
}

impl SessionStats {
    /// The number of datagrams turned away for `reason`.
    #[must_use]
    pub const fn rejected(&self, reason: Rejected) -> u64 {
        self.rejected[reason as usize]
    }
}
