//! Options of a fabric, what they must satisfy, and why a fabric could not be made.

use thiserror::Error;

use crate::api::{DeviceError, DeviceLimits};
use crate::control::{CONTROL_BYTES_MAX, CREDITS_MAX};

/// Receives beyond its credits that each peer may use: credits alone (at most two are under way, because the peer must have
/// used half of ours for each), a goodbye, and one spare.
pub(crate) const RECVS_RESERVED: u32 = 4;

/// Work requests beyond `send_depth` that a send queue holds: the above, and the last one of a drain.
pub(crate) const SENDS_RESERVED: u32 = 5;

/// How to use a device. A profile's values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VerbsOptions {
    /// Connections at once, 1 to 4096: as many queue pairs are made.
    pub conns_max: u32,
    /// Work requests under way on one connection, 4 to what the device takes less 5.
    pub send_depth: u32,
    /// Receives posted for all connections together; at least `conns_max * (credits + 4)`.
    pub recv_depth: u32,
    /// Messages that one peer may have under way, 2 to 16,383.
    pub credits: u32,
    /// Largest message that is sent inline, in bytes; at least 40, at most what the device takes.
    pub inline_bytes_max: u32,
    /// Sends from one that asks for a completion to the next, 1 to half of `send_depth`.
    pub signal_every: u32,
    /// Work requests of one chain, 1 to 1024.
    pub batch: u32,
    /// Largest message in bytes.
    pub message_bytes_max: u32,
    /// Regions exposed at once, and regions of one peer that are remembered, up to 65,536.
    pub regions_max: u32,
    /// Time until a packet is sent again is 4.096 us * 2^this, 1 to 31.
    pub ack_timeout_log: u8,
    /// How often it is sent again, 0 to 7.
    pub retries: u8,
    /// How often a send to an empty receive queue is tried again, 0 to 6. Credits keep it from being empty.
    pub rnr_retries: u8,
    /// How long to wait before that, as the verbs' code, 0 to 31 (12 is 0.64 ms).
    pub rnr_timer: u8,
}

impl Default for VerbsOptions {
    fn default() -> Self {
        Self {
            conns_max: 8,
            send_depth: 128,
            recv_depth: 8 * (64 + RECVS_RESERVED),
            credits: 64,
            inline_bytes_max: 64,
            signal_every: 32,
            batch: 64,
            message_bytes_max: 4096,
            regions_max: 64,
            ack_timeout_log: 14,
            retries: 7,
            rnr_retries: 6,
            rnr_timer: 12,
        }
    }
}

impl VerbsOptions {
    /// Finds the first value that is out of range, by itself or for this device.
    pub(crate) fn check(&self, limits: &DeviceLimits) -> Result<(), VerbsOpenError> {
        let range = |name, value: u32, min: u32, max: u32, why| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(VerbsOpenError::Value {
                    name,
                    value,
                    min,
                    max,
                    why,
                })
            }
        };
        let per_peer = self.credits.saturating_add(RECVS_RESERVED);
        let limit = "the limit of the fabric";
        let device = "what the device takes";
        range(
            "conns_max",
            self.conns_max,
            1,
            limits.queue_pairs_max.min(4096),
            device,
        )?;
        let sends = limits.send_depth_max.saturating_sub(SENDS_RESERVED);
        range("send_depth", self.send_depth, 4, sends, device)?;
        range("credits", self.credits, 2, CREDITS_MAX, limit)?;
        let recvs = self.conns_max.saturating_mul(per_peer);
        range(
            "recv_depth",
            self.recv_depth,
            recvs,
            limits.recv_depth_max,
            "conns_max * (credits + 4), and what the device takes",
        )?;
        let control = u32::try_from(CONTROL_BYTES_MAX).expect("a frame is small");
        range(
            "inline_bytes_max",
            self.inline_bytes_max,
            control,
            4096,
            limit,
        )?;
        range(
            "signal_every",
            self.signal_every,
            1,
            self.send_depth / 2,
            "half of send_depth",
        )?;
        range("batch", self.batch, 1, 1024, limit)?;
        range(
            "message_bytes_max",
            self.message_bytes_max,
            control,
            limits.message_bytes_max.min(1 << 30),
            device,
        )?;
        range(
            "regions_max",
            self.regions_max,
            1,
            limits.regions_max.min(1 << 16),
            device,
        )?;
        range(
            "ack_timeout_log",
            self.ack_timeout_log.into(),
            1,
            31,
            "the field has five bits, and 0 is for ever",
        )?;
        range(
            "retries",
            self.retries.into(),
            0,
            7,
            "the field has three bits",
        )?;
        range(
            "rnr_retries",
            self.rnr_retries.into(),
            0,
            6,
            "7 is for ever",
        )?;
        range(
            "rnr_timer",
            self.rnr_timer.into(),
            0,
            31,
            "the field has five bits",
        )?;
        let cq = self.send_cq_depth().max(self.recv_cq_depth());
        range(
            "completions",
            cq,
            1,
            limits.cq_depth_max,
            "conns_max * (send_depth + 5) and recv_depth, as the device takes them",
        )
    }

    /// Entries of the completion queue of sends: every work request that can be posted at once, so that it cannot overrun.
    pub(crate) fn send_cq_depth(&self) -> u32 {
        self.conns_max
            .saturating_mul(self.send_depth.saturating_add(SENDS_RESERVED))
    }

    /// Entries of the completion queue of receives, likewise.
    pub(crate) fn recv_cq_depth(&self) -> u32 {
        self.recv_depth
    }
}

/// Why a fabric was not made. Effect: none.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum VerbsOpenError {
    /// A value is out of range.
    #[error(
        "verbs: {name} = {value} is not within {min}..={max} ({why}): change it in the NIC profile"
    )]
    Value {
        /// The option.
        name: &'static str,
        /// Its value.
        value: u32,
        /// The least.
        min: u32,
        /// The most.
        max: u32,
        /// Where the bounds come from.
        why: &'static str,
    },
    /// The device takes less inline.
    #[error(
        "verbs: the device does not send {inline_bytes} bytes inline: lower inline_bytes_max in the NIC profile"
    )]
    Inline {
        /// What was asked for.
        inline_bytes: u32,
    },
    /// The device refused something else.
    #[error("verbs: {0}")]
    Device(DeviceError),
}
