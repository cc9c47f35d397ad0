//! Reliable FIFO connections: what shared memory and RDMA give by nature.
//!
//! A message arrives whole, once, in order, or the connection closes. The bytes are untrusted all the same. Sending
//! never blocks: a full connection hands the buffer back.

use std::io;
use std::os::fd::RawFd;

use ionian_types::ConnId;
use thiserror::Error;

use crate::bounded::Bounded;
use crate::buf::{Buf, BufPool};
use crate::onesided::{RegionKey, RegionRange};

/// What a fabric is and can do. Constant after it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FabricCaps {
    /// Name of the effective backend, e.g. `shm`.
    pub backend: &'static str,
    /// Largest message in bytes; also the least slot size of a pool used to receive.
    pub message_bytes_max: usize,
    /// One-sided writes are done by the hardware. Otherwise [`crate::Emulated`] provides them.
    pub one_sided: bool,
}

/// Why a connection ended. What was sent on it and not acknowledged by the peer's protocol has unknown effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// The peer closed it or is gone.
    PeerGone,
    /// The device or the transport broke.
    Broken,
    /// The peer sent what no correct peer sends.
    Protocol,
}

/// What a fabric reports.
#[derive(Debug)]
#[must_use = "a dropped event may lose its buffer"]
pub enum FabricEvent {
    /// A message. The receiver frees the buffer.
    Received {
        /// Where it came from.
        conn: ConnId,
        /// The message.
        buf: Buf,
    },
    /// A one-sided write has landed in an exposed region and is readable. Landed is not accepted: copy the bytes out,
    /// then check them.
    Delivered {
        /// Whose write it was.
        conn: ConnId,
        /// The region.
        key: RegionKey,
        /// Which bytes of it.
        range: RegionRange,
        /// A number the writer attached.
        immediate: u32,
    },
    /// The connection is gone; its number is not used again. No event for it follows.
    Closed {
        /// Which.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
}

/// A bounded queue of events.
pub type FabricEvents = Bounded<FabricEvent>;

/// Why a message was not taken. The buffer comes back with it. Effect: none.
#[derive(Debug, Error)]
pub enum SendError {
    /// The connection's queue is full: poll and try again later.
    #[error("the connection's queue is full")]
    Full(Buf),
    /// There is no such connection, or it is closed.
    #[error("the connection is closed")]
    Closed(Buf),
    /// The message is larger than the fabric carries: our own bug or a wrong configuration.
    #[error("the message is too large for the fabric")]
    TooLarge(Buf),
}

impl SendError {
    /// The buffer that was not sent.
    pub fn into_buf(self) -> Buf {
        match self {
            Self::Full(buf) | Self::Closed(buf) | Self::TooLarge(buf) => buf,
        }
    }
}

/// Why a device does not know the memory of a pool. Effect: none.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The device locks the memory, and this process may not lock so much.
    #[error(
        "{backend}: {bytes} bytes of buffers cannot be locked in memory, the limit is {limit_bytes} bytes: raise it by \
         `ulimit -l unlimited` in the shell that starts the process, or by LimitMEMLOCK=infinity in its systemd unit"
    )]
    Memlock {
        /// Name of the backend.
        backend: &'static str,
        /// What would be locked.
        bytes: usize,
        /// What may be, in all.
        limit_bytes: u64,
    },
    /// As many pools are registered as the backend takes.
    #[error(
        "{backend}: {pools_max} pools of buffers are registered already, and that is the limit"
    )]
    TooMany {
        /// Name of the backend.
        backend: &'static str,
        /// The limit.
        pools_max: usize,
    },
    /// Slots of the pool are smaller than what the backend receives.
    #[error(
        "{backend}: slots of {slot_bytes} bytes are too small for messages of up to {message_bytes_max}: make the pool's \
         slots larger, or the profile's messages smaller"
    )]
    SlotBytes {
        /// Name of the backend.
        backend: &'static str,
        /// Usable bytes of a slot.
        slot_bytes: usize,
        /// The largest message.
        message_bytes_max: usize,
    },
    /// The device refused the memory for another reason.
    #[error("{backend}: the device refused {bytes} bytes of buffers: {source}")]
    Device {
        /// Name of the backend.
        backend: &'static str,
        /// Size of the pool's memory.
        bytes: usize,
        /// The system's answer.
        source: io::Error,
    },
}

/// A set of reliable connections. Driven by one thread; no call blocks.
pub trait Fabric {
    /// What the fabric is and can do.
    fn caps(&self) -> FabricCaps;

    /// Takes what arrived into slots of `pool` and appends to `events`, until nothing is waiting, `events` is full or
    /// the pool is empty. Returns the number of events appended. Fair: no connection starves another.
    fn poll(&mut self, pool: &mut BufPool, events: &mut FabricEvents) -> usize;

    /// Queues a message; the buffer goes back to `pool` when the fabric is done with it.
    ///
    /// # Errors
    ///
    /// See [`SendError`]; the buffer comes back. Effect: none.
    fn send(&mut self, pool: &mut BufPool, conn: ConnId, buf: Buf) -> Result<(), SendError>;

    /// Makes everything sent so far visible to the peers, and wakes those that sleep. Once per reactor loop.
    fn flush(&mut self);

    /// Ends a connection. Messages already flushed may still arrive; no event follows here.
    fn close(&mut self, conn: ConnId);

    /// Arms the wake-up before a sleep. `false` if there is work and the caller must not sleep; then nothing is armed.
    fn arm(&mut self) -> bool;

    /// Takes an armed wake-up back after a sleep, or when another poller refused to sleep.
    fn disarm(&mut self);

    /// A descriptor that polls readable when an armed wake-up fires; `None` if the owner of the reactor is woken by
    /// other means.
    fn wake_fd(&self) -> Option<RawFd>;

    /// Makes the memory of `pool` known to the device, where it must be before a buffer of the pool is given to any call of
    /// this fabric. Once per pool, before the first connection; slow. Does nothing where the CPU moves the bytes. The fabric
    /// keeps the memory, not the pool, alive for as long as the device may touch it.
    ///
    /// # Errors
    ///
    /// See [`RegisterError`]. Effect: none.
    fn register(&mut self, pool: &BufPool) -> Result<(), RegisterError> {
        let _ = pool;
        Ok(())
    }
}
