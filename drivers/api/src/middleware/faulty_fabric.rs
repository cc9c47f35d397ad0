//! A fabric that refuses, delays, damages and cuts connections.
//!
//! Loss, duplication and reordering are not among its faults: no fabric may do them, and code above may rely on that. A
//! delay holds all that is sent later too, so order stays.

use std::os::fd::RawFd;

use ionian_types::ConnId;

use super::dice::{Dice, FaultCounts};
use crate::bounded::Bounded;
use crate::buf::{Buf, BufPool};
use crate::fabric::{
    CloseReason, Fabric, FabricCaps, FabricEvent, FabricEvents, RegisterError, SendError,
};

/// Chances per message sent, in parts per million.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FabricFaults {
    /// Refuse it as if the queue were full.
    pub refuse_ppm: u32,
    /// Hold it, and what follows, for 1 to `delay_polls_max` polls.
    pub delay_ppm: u32,
    /// Longest delay, in calls of `poll`.
    pub delay_polls_max: u64,
    /// Flip one bit of it.
    pub corrupt_ppm: u32,
    /// Close its connection instead of sending it.
    pub close_ppm: u32,
}

/// Wraps a fabric with seeded faults on the sending side.
#[derive(Debug)]
pub struct FaultyFabric<F> {
    inner: F,
    faults: FabricFaults,
    dice: Dice,
    held: Bounded<(u64, ConnId, Buf)>,
    /// Connections cut and not yet told of.
    closed: Bounded<ConnId>,
    /// Connections that have ended, whoever ended them: none of them is cut, since no event follows an end.
    ended: Bounded<ConnId>,
    polls: u64,
    counts: FaultCounts,
}

/// Messages held back, and connections whose end is remembered, at most; beyond it, none is held or cut.
const HELD_MAX: usize = 1024;

impl<F: Fabric> FaultyFabric<F> {
    /// Wraps `inner`; the same `seed` and calls give the same faults.
    #[must_use]
    pub fn new(inner: F, faults: FabricFaults, seed: u64) -> Self {
        Self {
            inner,
            faults,
            dice: Dice::new(seed),
            held: Bounded::with_capacity(HELD_MAX),
            closed: Bounded::with_capacity(HELD_MAX),
            ended: Bounded::with_capacity(HELD_MAX),
            polls: 0,
            counts: FaultCounts::default(),
        }
    }

    /// Changes the chances from now on.
    pub fn set_faults(&mut self, faults: FabricFaults) {
        self.faults = faults;
    }

    /// Faults so far.
    #[must_use]
    pub fn counts(&self) -> FaultCounts {
        self.counts
    }

    /// The wrapped fabric.
    pub fn inner_mut(&mut self) -> &mut F {
        &mut self.inner
    }

    fn release_held(&mut self, pool: &mut BufPool) {
        let mut released = false;
        while self
            .held
            .get(0)
            .is_some_and(|(due, _, _)| *due <= self.polls)
        {
            let Some((due, conn, buf)) = self.held.pop() else {
                break;
            };
            match self.inner.send(pool, conn, buf) {
                Ok(()) => released = true,
                Err(SendError::Full(buf)) => {
                    if let Err((_, _, buf)) = self.held.push_front((due, conn, buf)) {
                        pool.free(buf);
                    }
                    break;
                }
                // The connection went away while its message was held: the message is lost with it.
                Err(error) => pool.free(error.into_buf()),
            }
        }
        if released {
            self.inner.flush();
        }
    }
}

impl<F: Fabric> Fabric for FaultyFabric<F> {
    fn caps(&self) -> FabricCaps {
        self.inner.caps()
    }

    fn poll(&mut self, pool: &mut BufPool, events: &mut FabricEvents) -> usize {
        self.polls += 1;
        self.release_held(pool);
        let before = events.len();
        while !events.is_full() {
            let Some(conn) = self.closed.pop() else { break };
            if events
                .push(FabricEvent::Closed {
                    conn,
                    reason: CloseReason::Broken,
                })
                .is_err()
            {
                unreachable!("room was checked");
            }
        }
        let first = events.len();
        self.inner.poll(pool, events);
        for index in first..events.len() {
            if let Some(FabricEvent::Closed { conn, .. }) = events.get(index) {
                // Without room for it none is cut any more.
                let _ = self.ended.push(*conn);
            }
        }
        events.len() - before
    }

    fn send(&mut self, pool: &mut BufPool, conn: ConnId, mut buf: Buf) -> Result<(), SendError> {
        let faults = self.faults;
        if self.dice.chance(faults.refuse_ppm) {
            self.counts.failed += 1;
            return Err(SendError::Full(buf));
        }
        if self.dice.chance(faults.close_ppm)
            && !self.ended.iter().any(|ended| *ended == conn)
            && self.ended.push(conn).is_ok()
            && self.closed.push(conn).is_ok()
        {
            self.counts.failed += 1;
            self.inner.close(conn);
            return Err(SendError::Closed(buf));
        }
        if buf.len() > self.caps().message_bytes_max {
            return Err(SendError::TooLarge(buf));
        }
        if self.dice.chance(faults.corrupt_ppm) && !buf.is_empty() {
            let at = self.dice.below(buf.len() as u64 * 8);
            pool.bytes_mut(&mut buf)[(at / 8) as usize] ^= 1 << (at % 8);
            self.counts.corrupted += 1;
        }
        let delay = self.dice.chance(faults.delay_ppm);
        if delay || !self.held.is_empty() {
            let polls = if delay {
                1 + self.dice.below(faults.delay_polls_max.max(1))
            } else {
                0
            };
            return match self.held.push((self.polls + polls, conn, buf)) {
                Ok(()) => {
                    self.counts.delayed += u64::from(delay);
                    Ok(())
                }
                Err((_, _, buf)) => Err(SendError::Full(buf)),
            };
        }
        self.inner.send(pool, conn, buf)
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn close(&mut self, conn: ConnId) {
        let _ = self.ended.push(conn);
        self.inner.close(conn);
    }

    fn arm(&mut self) -> bool {
        // A sleeping reactor would not count polls: with messages held back it must keep polling.
        self.held.is_empty() && self.closed.is_empty() && self.inner.arm()
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
