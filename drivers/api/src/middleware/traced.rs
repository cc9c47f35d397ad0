//! Counts what passes and remembers the last events, over any device.

use std::os::fd::RawFd;

use ionian_types::ConnId;

use crate::block::{BlockLimits, BlockQueue, BlockRequest, Completions, FileId};
use crate::bounded::Bounded;
use crate::buf::{Buf, BufPool};
use crate::fabric::{Fabric, FabricCaps, FabricEvent, FabricEvents, RegisterError, SendError};
use crate::packet::{PacketBatch, PacketCaps, PacketDevice, PeerAddr};

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TraceKind {
    /// Something was given to the device: a packet, a message, an operation.
    Sent,
    /// Something came from the device: a packet, a message, a completion.
    Received,
    /// The device was full.
    Refused,
    /// A completion with an error, or a closed connection.
    Failed,
}

/// One remembered event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceEvent {
    /// Counts events from 0.
    pub seq: u64,
    /// What happened.
    pub kind: TraceKind,
    /// The peer's port, the connection or the token.
    pub id: u64,
    /// Payload bytes.
    pub bytes: u32,
}

/// Totals since the wrapper was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TraceCounts {
    /// Things given to the device.
    pub sent: u64,
    /// Their payload bytes.
    pub sent_bytes: u64,
    /// Things that came from the device.
    pub received: u64,
    /// Their payload bytes.
    pub received_bytes: u64,
    /// Times the device was full.
    pub refused: u64,
    /// Completions with an error, and closed connections.
    pub failed: u64,
}

/// Wraps a device with counters and a bounded memory of recent events.
#[derive(Debug)]
pub struct Traced<T> {
    inner: T,
    counts: TraceCounts,
    recent: Bounded<TraceEvent>,
    seq: u64,
}

impl<T> Traced<T> {
    /// Wraps `inner` and remembers the last `events_max` events.
    #[must_use]
    pub fn new(inner: T, events_max: usize) -> Self {
        Self {
            inner,
            counts: TraceCounts::default(),
            recent: Bounded::with_capacity(events_max),
            seq: 0,
        }
    }

    /// Totals so far.
    #[must_use]
    pub fn counts(&self) -> TraceCounts {
        self.counts
    }

    /// The last events, oldest first.
    pub fn recent(&self) -> impl Iterator<Item = &TraceEvent> {
        self.recent.iter()
    }

    /// The wrapped device.
    pub fn inner_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    fn note(&mut self, kind: TraceKind, id: u64, bytes: usize) {
        match kind {
            TraceKind::Sent => {
                self.counts.sent += 1;
                self.counts.sent_bytes += bytes as u64;
            }
            TraceKind::Received => {
                self.counts.received += 1;
                self.counts.received_bytes += bytes as u64;
            }
            TraceKind::Refused => self.counts.refused += 1,
            TraceKind::Failed => self.counts.failed += 1,
        }
        if self.recent.is_full() {
            self.recent.pop();
        }
        let event = TraceEvent {
            seq: self.seq,
            kind,
            id,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        };
        self.seq += 1;
        // A memory of zero events remembers nothing.
        let _ = self.recent.push(event);
    }
}

impl<D: PacketDevice> PacketDevice for Traced<D> {
    fn caps(&self) -> PacketCaps {
        self.inner.caps()
    }

    fn local_addr(&self) -> PeerAddr {
        self.inner.local_addr()
    }

    fn rx_burst(&mut self, pool: &mut BufPool, out: &mut PacketBatch) -> usize {
        let first = out.len();
        let count = self.inner.rx_burst(pool, out);
        for index in first..first + count {
            if let Some(packet) = out.get(index) {
                self.note(
                    TraceKind::Received,
                    u64::from(packet.peer.port()),
                    packet.buf.len(),
                );
            }
        }
        count
    }

    fn tx_burst(&mut self, pool: &mut BufPool, burst: &mut PacketBatch) -> usize {
        // What was taken can no longer be looked at, so all are noted as sent, and the rest as refused, by number.
        let bytes_before: usize = burst.iter().map(|packet| packet.buf.len()).sum();
        let count = self.inner.tx_burst(pool, burst);
        let bytes_after: usize = burst.iter().map(|packet| packet.buf.len()).sum();
        if count > 0 {
            self.note(TraceKind::Sent, count as u64, bytes_before - bytes_after);
            self.counts.sent += count as u64 - 1;
        }
        if !burst.is_empty() {
            self.note(TraceKind::Refused, burst.len() as u64, bytes_after);
        }
        count
    }

    fn arm(&mut self) -> bool {
        self.inner.arm()
    }

    fn wake_fd(&self) -> Option<RawFd> {
        self.inner.wake_fd()
    }
}

impl<F: Fabric> Fabric for Traced<F> {
    fn caps(&self) -> FabricCaps {
        self.inner.caps()
    }

    fn poll(&mut self, pool: &mut BufPool, events: &mut FabricEvents) -> usize {
        let first = events.len();
        let count = self.inner.poll(pool, events);
        for index in first..first + count {
            let (kind, conn, bytes) = match events.get(index) {
                Some(FabricEvent::Received { conn, buf }) => {
                    (TraceKind::Received, *conn, buf.len())
                }
                Some(FabricEvent::Delivered { conn, range, .. }) => {
                    (TraceKind::Received, *conn, range.len as usize)
                }
                Some(FabricEvent::Closed { conn, .. }) => (TraceKind::Failed, *conn, 0),
                None => break,
            };
            self.note(kind, u64::from(conn.get()), bytes);
        }
        count
    }

    fn send(&mut self, pool: &mut BufPool, conn: ConnId, buf: Buf) -> Result<(), SendError> {
        let bytes = buf.len();
        let result = self.inner.send(pool, conn, buf);
        let kind = if result.is_ok() {
            TraceKind::Sent
        } else {
            TraceKind::Refused
        };
        self.note(kind, u64::from(conn.get()), bytes);
        result
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn close(&mut self, conn: ConnId) {
        self.inner.close(conn);
    }

    fn arm(&mut self) -> bool {
        self.inner.arm()
    }

    fn disarm(&mut self) {
        self.inner.disarm();
    }

    fn wake_fd(&self) -> Option<RawFd> {
        self.inner.wake_fd()
    }

    fn register(&mut self, pool: &BufPool) -> Result<(), RegisterError> {
        self.inner.register(pool)
    }
}

impl<B: BlockQueue> BlockQueue for Traced<B> {
    fn limits(&self) -> BlockLimits {
        self.inner.limits()
    }

    fn register(&mut self, pool: &BufPool) -> bool {
        self.inner.register(pool)
    }

    fn submit(&mut self, pool: &mut BufPool, request: BlockRequest) -> Result<(), BlockRequest> {
        let token = request.token;
        let bytes = match &request.op {
            crate::BlockOp::Write { buf, .. } => buf.len(),
            _ => 0,
        };
        let result = self.inner.submit(pool, request);
        let kind = if result.is_ok() {
            TraceKind::Sent
        } else {
            TraceKind::Refused
        };
        self.note(kind, token, bytes);
        result
    }

    fn kick(&mut self) {
        self.inner.kick();
    }

    fn poll(&mut self, pool: &mut BufPool, out: &mut Completions) -> usize {
        let first = out.len();
        let count = self.inner.poll(pool, out);
        for index in first..first + count {
            if let Some(completion) = out.get(index) {
                let kind = if completion.result.is_ok() {
                    TraceKind::Received
                } else {
                    TraceKind::Failed
                };
                let bytes = completion.buf.as_ref().map_or(0, Buf::len);
                self.note(kind, completion.token, bytes);
            }
        }
        count
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn files(&self) -> Vec<(FileId, u64)> {
        self.inner.files()
    }

    fn arm(&mut self) -> bool {
        self.inner.arm()
    }

    fn wake_fd(&self) -> Option<RawFd> {
        self.inner.wake_fd()
    }
}
