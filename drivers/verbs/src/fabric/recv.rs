//! The shared receive queue: which slots are posted, and whose use of them is to be made good.
//!
//! Every receive that is not posted is missing for a reason: a peer used it (its debt, for which it gets no credit back until
//! another slot was posted), or nobody did (spare). While nothing is spare, what is posted and what peers owe add up to the
//! whole depth, so every peer finds a receive for each of its credits.

use ionian_driver_api::{Buf, BufPool};

use super::conn::Conn;
use crate::api::{MrId, RecvWork};

/// Credits given to one peer before the next has its turn.
const TURN_CREDITS_MAX: u32 = 8;

/// The shared receive queue.
#[derive(Debug)]
pub(crate) struct Recvs {
    /// Slots that the device has, by the number of the work request.
    posted: Box<[Option<Buf>]>,
    /// Numbers that are not posted.
    free: Vec<u32>,
    /// Slots that were used up without carrying anything that is kept: posted again.
    pub(crate) again: Vec<Buf>,
    /// Missing receives that no peer's credit stands for.
    pub(crate) spare: u32,
    /// Refills begin when so many are missing.
    low: usize,
    turn: usize,
}

impl Recvs {
    pub(crate) fn new(depth: u32, credits: u32, batch: u32) -> Self {
        Self {
            posted: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            again: Vec::with_capacity(depth as usize),
            spare: depth,
            // Below half of a peer's credits, so that a refill is due before one can run out of them.
            low: (credits / 4).min(batch / 2).max(1) as usize,
            turn: 0,
        }
    }

    /// The slot of a completed receive. `None` for a number that is not posted.
    pub(crate) fn take(&mut self, wr_id: u64) -> Option<Buf> {
        let id = u32::try_from(wr_id).ok()?;
        let buf = self.posted.get_mut(id as usize)?.take()?;
        self.free.push(id);
        Some(buf)
    }

    /// Whether a refill is due.
    pub(crate) fn is_low(&self) -> bool {
        self.spare > 0 && !self.free.is_empty() || self.free.len() >= self.low
    }

    /// Buffers held.
    pub(crate) fn held(&self) -> usize {
        self.posted.len() - self.free.len() + self.again.len()
    }

    /// Takes slots to post into `chain`, up to its capacity.
    pub(crate) fn take_chain(&mut self, pool: &mut BufPool, mr: MrId, chain: &mut Vec<RecvWork>) {
        while chain.len() < chain.capacity() {
            let Some(id) = self.free.last().copied() else {
                break;
            };
            let Some(buf) = self.again.pop().or_else(|| pool.alloc()) else {
                break;
            };
            self.free.pop();
            chain.push(RecvWork {
                wr_id: u64::from(id),
                mr,
                slot: buf.index(),
            });
            self.posted[id as usize] = Some(buf);
        }
    }

    /// Takes back what of a chain was not posted.
    pub(crate) fn take_back(&mut self, works: &[RecvWork]) {
        for work in works {
            if let Some(buf) = self.take(work.wr_id) {
                self.again.push(buf);
            }
        }
    }

    /// The queue was destroyed: nothing is posted, nobody has credit.
    pub(crate) fn take_all_back(&mut self) {
        for (id, posted) in (0..).zip(self.posted.iter_mut()) {
            if let Some(buf) = posted.take() {
                self.free.push(id);
                self.again.push(buf);
            }
        }
        self.spare = u32::try_from(self.posted.len()).expect("made from a u32");
    }

    /// `count` receives were posted: makes good what nobody owes first, then the peers in turn.
    pub(crate) fn make_good(&mut self, count: usize, conns: &mut [Conn]) {
        let mut count = u32::try_from(count).expect("a chain is short");
        let spare = count.min(self.spare);
        self.spare -= spare;
        count -= spare;
        let mut idle_turns = 0;
        while count > 0 && idle_turns < conns.len() {
            self.turn = (self.turn + 1) % conns.len();
            let conn = &mut conns[self.turn];
            let given = conn.debt.min(count).min(TURN_CREDITS_MAX);
            conn.debt -= given;
            conn.owed += given;
            count -= given;
            idle_turns = if given == 0 { idle_turns + 1 } else { 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::QpId;
    use crate::options::VerbsOptions;
    use ionian_driver_api::{PoolLayout, PoolOptions};

    #[test]
    fn what_is_posted_is_shared_out_in_turn_and_the_spare_comes_first() {
        let mut pool = BufPool::new(PoolOptions {
            slots: 64,
            slot_bytes: 64,
            layout: PoolLayout::Coloured,
        })
        .expect("valid size");
        let options = VerbsOptions::default();
        let mut conns: Vec<Conn> = (0..3).map(|n| Conn::new(QpId(n), n, &options)).collect();
        let mut recvs = Recvs::new(40, 16, 64);
        assert!(recvs.is_low());
        let mut chain = Vec::with_capacity(32);
        recvs.take_chain(&mut pool, MrId(0), &mut chain);
        recvs.make_good(chain.len(), &mut conns);
        assert_eq!((chain.len(), recvs.spare, recvs.held()), (32, 8, 32));
        recvs.take_back(&chain[24..]);
        assert_eq!(
            (recvs.held(), recvs.again.len()),
            (32, 8),
            "kept for the next chain"
        );
        chain.clear();
        recvs.take_chain(&mut pool, MrId(0), &mut chain);
        assert_eq!((chain.len(), pool.in_use(), recvs.held()), (16, 40, 40));
        recvs.spare = 0;
        assert!(!recvs.is_low());

        (conns[0].debt, conns[2].debt) = (30, 4);
        recvs.make_good(20, &mut conns);
        let owed: Vec<u32> = conns.iter().map(|conn| conn.owed).collect();
        assert_eq!(
            owed,
            [16, 0, 4],
            "nobody waits for a peer with a large debt"
        );
        assert_eq!(recvs.take(77).map(|buf| buf.index()), None);
        recvs.take_all_back();
        assert_eq!((recvs.spare, recvs.again.len()), (40, 40));
        recvs.again.drain(..).for_each(|buf| pool.free(buf));
        assert_eq!(pool.in_use(), 0);
    }
}
