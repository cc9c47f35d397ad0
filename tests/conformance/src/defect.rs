//! Fabrics broken on purpose: one that loses, one that repeats, one that leaks. What the suite says of them is its own test.

use std::os::fd::RawFd;

use ionian_driver_api::{
    Buf, BufPool, ConnId, Fabric, FabricCaps, FabricEvents, RegisterError, SendError,
};

use crate::subject::{Disturbance, Family, Layer};

/// What is wrong with a fabric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Defect {
    /// Nothing.
    None,
    /// A message that it took never arrives.
    Loses,
    /// A message that it took arrives twice.
    Duplicates,
    /// A message arrives, and its buffer does not come back.
    Leaks,
}

/// Every so many messages one suffers. Prime, so that it falls on messages of every kind.
const EVERY: u64 = 7;

/// A fabric with a defect.
#[derive(Debug)]
pub struct Defective<F> {
    inner: F,
    defect: Defect,
    sent: u64,
}

impl<F: Fabric> Defective<F> {
    /// Gives `inner` a defect.
    #[must_use]
    pub const fn new(inner: F, defect: Defect) -> Self {
        Self {
            inner,
            defect,
            sent: 0,
        }
    }

    /// The fabric below.
    pub const fn inner_mut(&mut self) -> &mut F {
        &mut self.inner
    }

    fn suffer(&mut self, pool: &mut BufPool, conn: ConnId, buf: Buf) -> Result<(), SendError> {
        match self.defect {
            Defect::None => self.inner.send(pool, conn, buf),
            Defect::Loses => {
                pool.free(buf);
                Ok(())
            }
            Defect::Duplicates => {
                let copy = pool.alloc().map(|copy| copied(pool, &buf, copy));
                let sent = self.inner.send(pool, conn, buf);
                match copy {
                    Some(copy) if sent.is_ok() => {
                        if let Err(error) = self.inner.send(pool, conn, copy) {
                            pool.free(error.into_buf());
                        }
                    }
                    Some(copy) => pool.free(copy),
                    None => {}
                }
                sent
            }
            Defect::Leaks => {
                let Some(copy) = pool.alloc() else {
                    return self.inner.send(pool, conn, buf);
                };
                let copy = copied(pool, &buf, copy);
                match self.inner.send(pool, conn, copy) {
                    // The defect: a handle that is dropped loses its slot for the pool's life.
                    Ok(()) => {
                        drop(buf);
                        Ok(())
                    }
                    Err(error) => {
                        let full = matches!(error, SendError::Full(_));
                        let too_large = matches!(error, SendError::TooLarge(_));
                        pool.free(error.into_buf());
                        Err(match (full, too_large) {
                            (true, _) => SendError::Full(buf),
                            (_, true) => SendError::TooLarge(buf),
                            _ => SendError::Closed(buf),
                        })
                    }
                }
            }
        }
    }
}

/// The bytes of `from` in `into`.
fn copied(pool: &BufPool, from: &Buf, mut into: Buf) -> Buf {
    pool.set_len(&mut into, from.len());
    pool.bytes_mut(&mut into).copy_from_slice(pool.bytes(from));
    into
}

impl<F: Fabric> Fabric for Defective<F> {
    fn caps(&self) -> FabricCaps {
        self.inner.caps()
    }

    fn poll(&mut self, pool: &mut BufPool, events: &mut FabricEvents) -> usize {
        self.inner.poll(pool, events)
    }

    fn send(&mut self, pool: &mut BufPool, conn: ConnId, buf: Buf) -> Result<(), SendError> {
        if !(self.sent + 1).is_multiple_of(EVERY) {
            self.inner.send(pool, conn, buf)?;
        } else {
            self.suffer(pool, conn, buf)?;
        }
        self.sent += 1;
        Ok(())
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

impl<L: Layer> Layer for Defective<L> {
    fn family(&self) -> Family {
        self.inner.family()
    }

    fn own_in_use(&self) -> usize {
        self.inner.own_in_use()
    }

    fn disturb(&mut self, disturbance: Disturbance) {
        self.inner.disturb(disturbance);
    }

    fn disturbed(&self) -> u64 {
        self.inner.disturbed()
    }

    fn captured(&self) -> &[u8] {
        self.inner.captured()
    }

    fn inject(&mut self, pool: &mut BufPool, conn: ConnId, bytes: &[u8]) -> bool {
        self.inner.inject(pool, conn, bytes)
    }
}
