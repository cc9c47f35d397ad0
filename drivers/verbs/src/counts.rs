//! Counters of a fabric.

/// What a fabric has done since it was made. Each counts events, not bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VerbsCounts {
    /// Messages given to `send` and taken.
    pub messages_sent: u64,
    /// Messages handed out by `poll`.
    pub messages_received: u64,
    /// One-sided writes given to `write` and taken.
    pub writes_sent: u64,
    /// One-sided writes reported by `poll`.
    pub writes_delivered: u64,
    /// Writes sent as one WRITE WITH IMMEDIATE, of `writes_sent`.
    pub writes_compact: u64,
    /// Work requests posted to send queues, control and credits included.
    pub sends_posted: u64,
    /// Chains posted to send queues: each rings one doorbell.
    pub send_doorbells: u64,
    /// Work requests that asked for a completion.
    pub sends_signalled: u64,
    /// Work requests that were sent inline.
    pub sends_inline: u64,
    /// Messages that carried nothing but credits.
    pub credits_alone: u64,
    /// Receives posted.
    pub recvs_posted: u64,
    /// Chains posted to the shared receive queue.
    pub recv_doorbells: u64,
    /// Control headers that were copied out of a received slot before they were looked at.
    pub headers_copied: u64,
    /// Sends refused because the peer has no credit left or the send queue is full.
    pub full: u64,
    /// Refills that found the pool empty: the receive queue stays short, and peers wait for credits.
    pub starved: u64,
    /// Connections that ended because the peer sent what no correct peer sends under a valid grant.
    pub protocol_errors: u64,
    /// Connections that ended because a queue pair broke.
    pub broken: u64,
    /// Completions that said that a peer had no receive posted.
    pub no_receive: u64,
    /// Errors of a completion queue or of the device, after which everything was made anew.
    pub device_faults: u64,
    /// Completions of work that was flushed.
    pub flushed: u64,
    /// Queue pairs that were drained and reset.
    pub drained: u64,
    /// Of these, the ones whose last completion never came.
    pub drained_by_force: u64,
    /// Messages of ended connections that were dropped.
    pub late: u64,
    /// Registrations that the device would not end; their connection was reset instead.
    pub regions_stuck: u64,
}
