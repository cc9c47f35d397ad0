//! What the client machine is told when it is made: identities, sizes and times.

use ionian_types::{ClientId, ClusterId, LogId, Nanos};
use ionian_wire::frame::MESSAGE_BYTES_MAX;
use ionian_wire::record::{RECORD_ENCODED_BYTES_MAX, RECORD_HEADER_BYTES};

/// The configuration of one [`Client`](super::Client).
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The cluster; a peer of another one is not used.
    pub cluster: ClusterId,
    /// The log.
    pub log: LogId,
    /// The client life: 128 random bits, new for every start.
    pub client: ClientId,
    /// Spreads clients over servers. Any number; the machine is a function of it.
    pub seed: u64,
    /// The most append lanes, each bound to one server at a time. 1 to 65,535; default 256.
    pub lanes_max: usize,
    /// Bytes of encoded records that one lane keeps until they are resolved. At least one record of the largest size;
    /// default 4 MiB.
    pub send_bytes_max: usize,
    /// Bytes of records in one append frame; a single larger record still goes. Default 64 KiB.
    pub append_bytes_max: usize,
    /// The most unresolved records of one lane. Default 65,536, the most that a server admits above the floor.
    pub window: u32,
    /// The most records of all lanes whose completion was not polled yet. Default 65,536.
    pub outstanding_max: u32,
    /// How long an append may stay unresolved before it fails; `None` waits for ever. Default 10 s.
    pub append_timeout: Option<Nanos>,
    /// How long a lane waits for a lost server before it asks for the fate of its records. Default 1 s.
    pub rebind_after: Nanos,
    /// How long a connected server may stay silent about sent records before they are sent again. Default 2 s.
    pub probe_after: Nanos,
    /// The first pause after a refusal; doubles up to `backoff_max`. Default 50 us.
    pub backoff_min: Nanos,
    /// The longest pause after a refusal. Default 50 ms.
    pub backoff_max: Nanos,
    /// How long a replica may take to answer a fate query or a read before another one is asked. Default 500 ms.
    pub retry_after: Nanos,
    /// The most requests (tail, read, trim) open or not yet polled. 1 to 65,535; default 1,024.
    pub requests_max: usize,
    /// How long a request may stay open; `None` waits for ever. Default 10 s.
    pub request_timeout: Option<Nanos>,
    /// Bytes of read records that wait to be polled. At least one record of the largest size; default 4 MiB.
    pub answer_bytes_max: usize,
    /// Located runs of positions remembered. Default 4,096.
    pub ranges_max: usize,
    /// The most subscriptions at a time. Default 16.
    pub subscriptions_max: usize,
    /// Bytes of records that one shard may send ahead to one subscription. At least one record of the largest size;
    /// default 2 MiB.
    pub subscribe_bytes_max: usize,
    /// Connections, as numbered by the edge. Default 1,024, the same as the outbox's.
    pub connections_max: usize,
}

/// A configuration that cannot work. Effect: none, no machine was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("client configuration: {field} is {value}, it must lie between {min} and {max}")]
pub struct ConfigError {
    /// The field's name.
    pub field: &'static str,
    /// Its value.
    pub value: u64,
    /// The smallest value that works.
    pub min: u64,
    /// The largest value that works.
    pub max: u64,
}

impl ClientConfig {
    /// The defaults for a client life of a log.
    #[must_use]
    pub fn new(cluster: ClusterId, log: LogId, client: ClientId) -> Self {
        Self {
            cluster,
            log,
            client,
            seed: (client.get() ^ (client.get() >> 64)) as u64,
            lanes_max: 256,
            send_bytes_max: 4 << 20,
            append_bytes_max: 64 << 10,
            window: 65_536,
            outstanding_max: 65_536,
            append_timeout: Some(Nanos::from_ms(10_000)),
            rebind_after: Nanos::from_ms(1_000),
            probe_after: Nanos::from_ms(2_000),
            backoff_min: Nanos::from_us(50),
            backoff_max: Nanos::from_ms(50),
            retry_after: Nanos::from_ms(500),
            requests_max: 1_024,
            request_timeout: Some(Nanos::from_ms(10_000)),
            answer_bytes_max: 4 << 20,
            ranges_max: 4_096,
            subscriptions_max: 16,
            subscribe_bytes_max: 2 << 20,
            connections_max: 1_024,
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let record = RECORD_ENCODED_BYTES_MAX as u64;
        // Offsets of the rings are 32 bits wide; a quarter leaves room for what a ring adds around its records.
        let bytes_max = u64::from(u32::MAX) / 4;
        let rows = [
            ("lanes_max", self.lanes_max as u64, 1, 65_535),
            (
                "send_bytes_max",
                self.send_bytes_max as u64,
                record,
                bytes_max,
            ),
            (
                "append_bytes_max",
                self.append_bytes_max as u64,
                RECORD_HEADER_BYTES as u64,
                (MESSAGE_BYTES_MAX - 512) as u64,
            ),
            ("window", u64::from(self.window), 1, 1 << 24),
            (
                "outstanding_max",
                u64::from(self.outstanding_max),
                1,
                1 << 24,
            ),
            (
                "backoff_min",
                self.backoff_min.0,
                1,
                self.backoff_max.0.max(1),
            ),
            ("retry_after", self.retry_after.0, 1, u64::MAX),
            ("requests_max", self.requests_max as u64, 1, 65_535),
            (
                "answer_bytes_max",
                self.answer_bytes_max as u64,
                record,
                bytes_max,
            ),
            ("ranges_max", self.ranges_max as u64, 1, 1 << 24),
            (
                "subscriptions_max",
                self.subscriptions_max as u64,
                1,
                65_535,
            ),
            (
                "subscribe_bytes_max",
                self.subscribe_bytes_max as u64,
                record,
                bytes_max,
            ),
            ("connections_max", self.connections_max as u64, 1, 65_535),
        ];
        for (field, value, min, max) in rows {
            if value < min || value > max {
                return Err(ConfigError {
                    field,
                    value,
                    min,
                    max,
                });
            }
        }
        Ok(())
    }
}
