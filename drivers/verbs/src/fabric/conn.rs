//! One queue pair and the connection that it serves.
//!
//! ```text
//! Idle --reserve--> Reserved --establish--> Live --close--> Leaving --goodbye sent--> Draining --all back, reset--> Idle
//!                      |                      +--fault: an event is owed------------------^
//!                      +--abandon, reset--> Idle
//! ```

use std::collections::VecDeque;

use ionian_driver_api::{Buf, CloseReason, ConnId, RegionKey, RegionRange};

use crate::api::{Data, MrId, QpId, RemoteBytes, SendOp, SendWork};
use crate::control::{CREDITS_MAX, Control, Immediate};
use crate::options::{SENDS_RESERVED, VerbsOptions};

/// Sequence number of the last work of a drain; no other work has it.
pub(crate) const LAST_SEQ: u32 = u32::MAX;

/// What a queue pair is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// In reset.
    Idle,
    /// Initialised, for a connection that is being set up.
    Reserved,
    /// Connected.
    Live,
    /// Closed here: the peer is being told.
    Leaving,
    /// In error, until everything that was posted has come back.
    Draining(Drain),
}

/// How far a drain is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Drain {
    /// The last work of the send queue has been flushed.
    pub(crate) sends_back: bool,
    /// The device said that no more receives are taken.
    pub(crate) recvs_back: bool,
    /// Polls since then that found the receive completions empty.
    pub(crate) quiet_polls: u32,
    /// Polls since it began.
    pub(crate) polls: u32,
}

/// A send that waits for `flush`.
#[derive(Debug)]
pub(crate) enum Queued {
    Message(Buf),
    Control(Control),
    /// Credits alone.
    Credits,
    Write(Buf, RemoteBytes),
    /// A write whose event fits its immediate data.
    Compact(Buf, RemoteBytes, u32, u16),
}

/// A region that the peer exposed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerRegion {
    pub(crate) key: RegionKey,
    pub(crate) range: RegionRange,
    pub(crate) address: u64,
    pub(crate) rkey: u32,
}

/// One queue pair.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) qp: QpId,
    pub(crate) qp_num: u32,
    /// Grows with each reservation.
    pub(crate) life: u32,
    pub(crate) state: State,
    pub(crate) epoch: u64,
    /// Number of the first packet of this life.
    pub(crate) psn: u32,
    /// Messages that the peer has room for.
    pub(crate) credits: u32,
    /// The most it ever has.
    pub(crate) credits_max: u32,
    /// Largest message that both ends take.
    pub(crate) message_bytes_max: u32,
    /// Receives that the peer used and that were replaced: to be given back.
    pub(crate) owed: u32,
    /// Receives that the peer used and that are not replaced yet.
    pub(crate) debt: u32,
    pub(crate) queued: VecDeque<Queued>,
    /// Buffers of posted work, the oldest first; `None` for work without one.
    sent: VecDeque<Option<Buf>>,
    /// Sequence number of the oldest of `sent`.
    sent_from: u32,
    since_signal: u32,
    /// Posted work holds buffers, and no completion after it was asked for.
    holds: bool,
    /// Why it ended, until the event is told.
    pub(crate) ended: Option<CloseReason>,
    /// Regions exposed to the peer that it was not told of.
    pub(crate) unannounced: u32,
    pub(crate) peer_regions: Box<[Option<PeerRegion>]>,
}

impl Conn {
    pub(crate) fn new(qp: QpId, qp_num: u32, options: &VerbsOptions) -> Self {
        let depth = (options.send_depth + SENDS_RESERVED) as usize;
        Self {
            qp,
            qp_num,
            life: 0,
            state: State::Idle,
            epoch: 0,
            psn: 0,
            credits: 0,
            credits_max: 0,
            message_bytes_max: 0,
            owed: 0,
            debt: 0,
            queued: VecDeque::with_capacity(depth),
            sent: VecDeque::with_capacity(depth),
            sent_from: 0,
            since_signal: 0,
            holds: false,
            ended: None,
            unannounced: 0,
            peer_regions: vec![None; options.regions_max as usize].into_boxed_slice(),
        }
    }

    /// The connection's number in this life, in a table of `conns` queue pairs.
    pub(crate) fn id(&self, slot: usize, conns: usize) -> ConnId {
        let id = self.life as usize * conns + slot;
        ConnId::new(
            u32::try_from(id).expect("a queue pair whose numbers are used up is not reserved"),
        )
    }

    /// Whether `needed` more work requests fit the send queue.
    pub(crate) fn has_room(&self, needed: usize, options: &VerbsOptions) -> bool {
        self.queued.len() + self.sent.len() + needed <= options.send_depth as usize
    }

    /// Whether credits alone still fit: beyond what messages may fill, and leaving room for a goodbye and the end of a drain.
    pub(crate) fn has_reserve(&self, options: &VerbsOptions) -> bool {
        let reserve = options.send_depth + SENDS_RESERVED - 2;
        self.queued.len() + self.sent.len() < reserve as usize
    }

    /// Buffers that this connection holds.
    pub(crate) fn held(&self) -> usize {
        let queued = self.queued.iter().filter(|work| {
            matches!(
                work,
                Queued::Message(_) | Queued::Write(..) | Queued::Compact(..)
            )
        });
        queued.count() + self.sent.iter().flatten().count()
    }

    /// Whether everything posted has come back.
    pub(crate) fn all_back(&self) -> bool {
        self.sent.is_empty()
    }

    /// Makes a new life of a pair in reset.
    pub(crate) fn begin(&mut self, epoch: u64, psn: u32) {
        self.life += 1;
        self.state = State::Reserved;
        (self.epoch, self.psn) = (epoch, psn);
        (self.credits, self.owed, self.debt) = (0, 0, 0);
        (self.sent_from, self.since_signal, self.holds) = (0, 0, false);
        (self.ended, self.unannounced) = (None, 0);
        self.peer_regions.fill(None);
    }

    /// The number that a work request carries: queue pair, life, sequence.
    pub(crate) fn wr_id(&self, slot: usize, seq: u32) -> u64 {
        (slot as u64) << 48 | u64::from(self.life & 0xFFFF) << 32 | u64::from(seq)
    }

    /// Moves up to `batch` queued sends into `chain`, as work requests. Their buffers wait for their completions.
    pub(crate) fn take_chain(
        &mut self,
        slot: usize,
        mr: MrId,
        options: &VerbsOptions,
        chain: &mut Vec<SendWork>,
    ) {
        while chain.len() < options.batch as usize {
            let Some(queued) = self.queued.pop_front() else {
                break;
            };
            let last = self.queued.is_empty() || chain.len() + 1 == options.batch as usize;
            let credits = match queued {
                Queued::Message(_) | Queued::Control(_) | Queued::Credits => {
                    self.owed.min(CREDITS_MAX)
                }
                Queued::Write(..) | Queued::Compact(..) => 0,
            };
            self.owed -= credits;
            let (op, data, buf) = shape(queued, credits, mr, options);
            self.holds |= matches!(data, Data::Slot { inline: false, .. });
            self.since_signal += 1;
            let owes = self.holds || self.state == State::Leaving;
            let signalled = self.since_signal >= options.signal_every || last && owes;
            if signalled {
                (self.since_signal, self.holds) = (0, false);
            }
            let seq = self.next_seq();
            self.sent.push_back(buf);
            chain.push(SendWork {
                wr_id: self.wr_id(slot, seq),
                op,
                data,
                signalled,
            });
        }
    }

    /// Sequence number of the next work request. [`LAST_SEQ`] is left out.
    fn next_seq(&self) -> u32 {
        seq_after(self.sent_from, self.sent.len())
    }

    /// The buffer of posted work that was sent inline: free already.
    pub(crate) fn release_inline(&mut self, chain: &[SendWork], done: &mut Vec<Buf>) {
        let from = self.sent.len() - chain.len();
        for (work, buf) in chain.iter().zip(self.sent.iter_mut().skip(from)) {
            if matches!(work.data, Data::None | Data::Slot { inline: true, .. }) {
                done.extend(buf.take());
            }
        }
    }

    /// Takes back the newest `count` of what was to be posted and was not.
    pub(crate) fn take_back(&mut self, count: usize, done: &mut Vec<Buf>) {
        for _ in 0..count {
            done.extend(self.sent.pop_back().flatten());
        }
    }

    /// Work up to `seq` is complete: its buffers are free. A number that is not under way changes nothing.
    pub(crate) fn retire(&mut self, seq: u32, done: &mut Vec<Buf>) {
        let distance = if seq >= self.sent_from {
            seq - self.sent_from
        } else {
            // Past the number that is left out.
            seq + (LAST_SEQ - self.sent_from)
        };
        let count = distance as usize + 1;
        if count > self.sent.len() {
            return;
        }
        for _ in 0..count {
            done.extend(self.sent.pop_front().flatten());
        }
        self.sent_from = seq_after(self.sent_from, count);
    }

    /// Nothing that was posted is touched any more: all buffers are free.
    pub(crate) fn retire_all(&mut self, done: &mut Vec<Buf>) {
        done.extend(self.sent.drain(..).flatten());
    }

    /// Drops what waits for `flush`.
    pub(crate) fn drop_queued(&mut self, done: &mut Vec<Buf>) {
        for queued in self.queued.drain(..) {
            match queued {
                Queued::Message(buf) | Queued::Write(buf, _) | Queued::Compact(buf, ..) => {
                    done.push(buf);
                }
                Queued::Control(_) | Queued::Credits => {}
            }
        }
    }
}

/// The sequence number `count` after `from`, [`LAST_SEQ`] left out.
fn seq_after(from: u32, count: usize) -> u32 {
    let sum = u64::from(from) + count as u64;
    u32::try_from(sum % u64::from(LAST_SEQ)).expect("smaller than the modulus")
}

fn shape(
    queued: Queued,
    credits: u32,
    mr: MrId,
    options: &VerbsOptions,
) -> (SendOp, Data, Option<Buf>) {
    let slot = |buf: &Buf| {
        if buf.is_empty() {
            return Data::None;
        }
        let len = u32::try_from(buf.len()).expect("a slot is at most 2^30 bytes");
        Data::Slot {
            mr,
            slot: buf.index(),
            len,
            inline: len <= options.inline_bytes_max,
        }
    };
    let send = |immediate: Immediate| SendOp::Send {
        immediate: immediate.encode(),
    };
    match queued {
        Queued::Message(buf) => (send(Immediate::Message { credits }), slot(&buf), Some(buf)),
        Queued::Control(control) => {
            let (bytes, len) = control.encode();
            let op = send(Immediate::Control { credits });
            (op, Data::Control { bytes, len }, None)
        }
        Queued::Credits => (send(Immediate::Credits { credits }), Data::None, None),
        Queued::Write(buf, remote) => (SendOp::Write(remote), slot(&buf), Some(buf)),
        Queued::Compact(buf, remote, region, number) => {
            let immediate = Immediate::Written { region, number }.encode();
            let op = SendOp::WriteWithImmediate { remote, immediate };
            (op, slot(&buf), Some(buf))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ionian_driver_api::{BufPool, PoolLayout, PoolOptions};

    #[test]
    fn a_message_is_sent_from_its_own_slot_whole_and_without_a_copy() {
        let mut pool = BufPool::new(PoolOptions {
            slots: 4,
            slot_bytes: 256,
            layout: PoolLayout::Coloured,
        })
        .expect("valid size");
        let options = VerbsOptions::default();
        let mut conn = Conn::new(QpId(0), 1, &options);
        let mut slots = Vec::new();
        for len in [64, 65, 256] {
            let buf = pool.alloc_from(&vec![1; len]).expect("free");
            slots.push(Data::Slot {
                mr: MrId(7),
                slot: buf.index(),
                len: u32::try_from(len).expect("small"),
                inline: len <= 64,
            });
            conn.queued.push_back(Queued::Message(buf));
        }
        let (mut chain, mut done) = (Vec::new(), Vec::new());
        conn.take_chain(0, MrId(7), &options, &mut chain);
        let named: Vec<Data> = chain.iter().map(|work| work.data).collect();
        assert_eq!(named, slots, "no header before it, no other memory");
        conn.release_inline(&chain, &mut done);
        assert_eq!(done.len(), 1, "an inline one is free when it is posted");
        conn.retire_all(&mut done);
        done.into_iter().for_each(|buf| pool.free(buf));
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn completions_free_buffers_in_order_also_where_sequence_numbers_wrap() {
        let mut pool = BufPool::new(PoolOptions {
            slots: 8,
            slot_bytes: 256,
            layout: PoolLayout::Coloured,
        })
        .expect("valid size");
        let options = VerbsOptions {
            signal_every: 3,
            ..VerbsOptions::default()
        };
        let mut conn = Conn::new(QpId(0), 1, &options);
        conn.sent_from = LAST_SEQ - 2;
        for _ in 0..5 {
            let buf = pool.alloc_from(&[1; 200]).expect("free");
            conn.queued.push_back(Queued::Message(buf));
        }
        let (mut chain, mut done) = (Vec::new(), Vec::new());
        conn.take_chain(0, MrId(0), &options, &mut chain);
        let seqs: Vec<u64> = chain.iter().map(|work| work.wr_id & 0xFFFF_FFFF).collect();
        let from = u64::from(LAST_SEQ) - 2;
        assert_eq!(
            seqs,
            [from, from + 1, 0, 1, 2],
            "the number of a drain is left out"
        );
        let signalled: Vec<bool> = chain.iter().map(|work| work.signalled).collect();
        assert_eq!(
            signalled,
            [false, false, true, false, true],
            "every third, and the last"
        );
        conn.retire(0, &mut done);
        assert_eq!((done.len(), conn.held()), (3, 2));
        conn.retire(77, &mut done);
        assert_eq!(done.len(), 3, "a number that is not under way");
        conn.retire(2, &mut done);
        assert_eq!((done.len(), conn.all_back()), (5, true));
        done.into_iter().for_each(|buf| pool.free(buf));
        assert_eq!(pool.in_use(), 0);
    }
}
