//! The fabric contract over queue pairs.
//!
//! One poll: receives, then completions of sends (so that what a peer sent before it left is not lost to the error that its
//! leaving makes), refill of the receive queue, credits, drains, and last the ends of connections.

mod conn;
mod life;
mod receive;
mod recv;
mod regions;

use std::os::fd::RawFd;
use std::sync::Arc;

use ionian_driver_api::dma::Arena;
use ionian_driver_api::{
    Buf, BufPool, CloseReason, ConnId, Fabric, FabricCaps, FabricEvent, FabricEvents,
    RegisterError, SendError,
};

use crate::api::{
    Completion, CqId, DeviceError, MrId, QpOptions, RecvWork, SendWork, SrqId, Status, VerbsApi,
};
use crate::counts::VerbsCounts;
use crate::options::{SENDS_RESERVED, VerbsOpenError, VerbsOptions};
use conn::{Conn, LAST_SEQ, Queued, State};
pub use life::{Endpoint, EstablishError, ReserveError, Ticket};
use recv::Recvs;
use regions::Regions;

/// Name of the backend.
const BACKEND: &str = "verbs";
/// Completions taken at once.
const COMPLETIONS: usize = 64;
/// Polls from one look at the device's other reports to the next, which is a system call.
const ASYNC_POLLS: u64 = 1024;

/// The arena that the device knows.
#[derive(Debug)]
struct Registered {
    arena: Arc<Arena>,
    mr: MrId,
}

/// The queues that all connections share. Made anew after a device fault.
#[derive(Clone, Copy, Debug)]
struct Queues {
    send_cq: CqId,
    recv_cq: CqId,
    srq: SrqId,
}

/// Reliable connections and one-sided writes over RDMA. Takes its receive slots from one pool, which must be registered
/// first; each connection is set up by [`VerbsFabric::reserve`] and [`VerbsFabric::establish`], which [`Edge`](crate::Edge)
/// does over TCP.
#[derive(Debug)]
pub struct VerbsFabric<V: VerbsApi> {
    api: V,
    options: VerbsOptions,
    /// `None` after a device fault that nothing could be made after.
    queues: Option<Queues>,
    registered: Option<Registered>,
    conns: Box<[Conn]>,
    /// Queue pair numbers and their places in `conns`, sorted.
    by_qp: Box<[(u32, usize)]>,
    recvs: Recvs,
    regions: Regions,
    /// Buffers to be freed when the pool is at hand.
    done: Vec<Buf>,
    chain: Vec<SendWork>,
    recv_chain: Vec<RecvWork>,
    send_completions: Box<[Completion]>,
    recv_completions: Box<[Completion]>,
    /// What of `recv_completions` was taken and is not handled yet.
    recv_at: usize,
    recv_len: usize,
    /// Times that the receive completions were found empty.
    recv_empties: u64,
    polls: u64,
    /// Connections that drain, leave, or owe an event.
    uneasy: usize,
    counts: VerbsCounts,
}

impl<V: VerbsApi> VerbsFabric<V> {
    /// Makes the queues and queue pairs of a fabric on an opened device. Slow.
    ///
    /// # Errors
    ///
    /// [`VerbsOpenError`] names the option that is out of range, or what the device refused. Effect: none.
    pub fn new(mut api: V, options: VerbsOptions) -> Result<Self, VerbsOpenError> {
        options.check(&api.limits())?;
        let (queues, conns) = make_queues(&mut api, &options).map_err(|error| {
            if error.call == "ibv_create_qp" && error.errno == libc::EINVAL {
                VerbsOpenError::Inline {
                    inline_bytes: options.inline_bytes_max,
                }
            } else {
                VerbsOpenError::Device(error)
            }
        })?;
        let by_qp = sorted(&conns);
        let sends = conns.len() * (options.send_depth + SENDS_RESERVED) as usize;
        Ok(Self {
            api,
            queues: Some(queues),
            registered: None,
            conns,
            by_qp,
            recvs: Recvs::new(options.recv_depth, options.credits, options.batch),
            regions: Regions::new(options.regions_max as usize),
            done: Vec::with_capacity(sends),
            chain: Vec::with_capacity(options.batch as usize),
            recv_chain: Vec::with_capacity(options.batch as usize),
            send_completions: vec![Completion::EMPTY; COMPLETIONS].into_boxed_slice(),
            recv_completions: vec![Completion::EMPTY; COMPLETIONS].into_boxed_slice(),
            recv_at: 0,
            recv_len: 0,
            recv_empties: 0,
            polls: 0,
            uneasy: 0,
            counts: VerbsCounts::default(),
            options,
        })
    }

    /// Counters since the fabric was made.
    #[must_use]
    pub fn counts(&self) -> VerbsCounts {
        self.counts
    }

    /// The options it was made with.
    #[must_use]
    pub fn options(&self) -> &VerbsOptions {
        &self.options
    }

    /// The device.
    pub fn api_mut(&mut self) -> &mut V {
        &mut self.api
    }

    /// Buffers of the pool that the fabric holds now: posted receives, sends under way, exposed regions.
    #[must_use]
    pub fn held(&self) -> usize {
        let conns: usize = self.conns.iter().map(Conn::held).sum();
        conns + self.recvs.held() + self.regions.held() + self.done.len()
    }

    /// Place of a connection's queue pair, if the connection is the one that it serves now.
    fn place(&self, conn: ConnId) -> Option<usize> {
        let place = conn.index() % self.conns.len();
        let slot = &self.conns[place];
        (slot.state == State::Live
            && slot.ended.is_none()
            && slot.id(place, self.conns.len()) == conn)
            .then_some(place)
    }

    fn place_of_qp(&self, qp_num: u32) -> Option<usize> {
        let at = self
            .by_qp
            .binary_search_by_key(&qp_num, |(num, _)| *num)
            .ok()?;
        Some(self.by_qp[at].1)
    }

    /// Frees what has come back.
    fn release(&mut self, pool: &mut BufPool) {
        while let Some(buf) = self.done.pop() {
            pool.free(buf);
        }
    }

    /// Posts what a connection has queued, one chain per doorbell.
    fn post(&mut self, place: usize) {
        let Some(mr) = self.registered.as_ref().map(|registered| registered.mr) else {
            return;
        };
        while !self.conns[place].queued.is_empty() {
            let conn = &mut self.conns[place];
            self.chain.clear();
            conn.take_chain(place, mr, &self.options, &mut self.chain);
            // SAFETY: the connection holds the buffer of each slot that is not inline until a completion of it or of a later
            // one was polled or the pair reset, and nothing borrows the bytes of a buffer that the fabric owns.
            let result = unsafe { self.api.post_send(conn.qp, &self.chain) };
            let posted = result.map_or_else(|error| error.posted, |()| self.chain.len());
            conn.take_back(self.chain.len() - posted, &mut self.done);
            let posted = &self.chain[..posted];
            conn.release_inline(posted, &mut self.done);
            self.counts.send_doorbells += 1;
            self.counts.sends_posted += posted.len() as u64;
            for work in posted {
                self.counts.sends_signalled += u64::from(work.signalled);
                self.counts.sends_inline += u64::from(work.is_inline());
            }
            if result.is_err() {
                self.fault(place, CloseReason::Broken);
            }
        }
    }

    /// Takes completions of sends. Returns whether there was any.
    fn poll_sends(&mut self) -> bool {
        let mut any = false;
        while let Some(queues) = self.queues {
            let mut completions = std::mem::take(&mut self.send_completions);
            let result = self.api.poll_cq(queues.send_cq, &mut completions);
            for completion in &completions[..result.unwrap_or(0)] {
                self.sent(*completion);
            }
            self.send_completions = completions;
            match result {
                Ok(0) => break,
                Ok(_) => any = true,
                Err(_) => self.remake(),
            }
        }
        any
    }

    fn sent(&mut self, completion: Completion) {
        let place = usize::try_from(completion.wr_id >> 48).unwrap_or(usize::MAX);
        let Some(conn) = self.conns.get_mut(place) else {
            return;
        };
        let seq = u32::try_from(completion.wr_id & 0xFFFF_FFFF).expect("masked");
        if conn.wr_id(place, seq) != completion.wr_id {
            return; // of an earlier life, whose buffers are accounted for
        }
        if let Err(status) = completion.result {
            self.counts.flushed += u64::from(status == Status::Flushed);
            self.counts.no_receive += u64::from(status == Status::NoReceive);
        }
        if seq == LAST_SEQ {
            conn.retire_all(&mut self.done);
            if let State::Draining(drain) = &mut conn.state {
                drain.sends_back = true;
            }
            return;
        }
        conn.retire(seq, &mut self.done);
        if let Err(status) = completion.result {
            self.fault(
                place,
                match status {
                    Status::NoAnswer | Status::RemoteAccess => CloseReason::PeerGone,
                    _ => CloseReason::Broken,
                },
            );
        }
    }

    /// Posts receives in place of those that were used.
    fn refill(&mut self, pool: &mut BufPool) {
        let (Some(queues), Some(registered)) = (self.queues, &self.registered) else {
            return;
        };
        assert!(
            Arc::ptr_eq(pool.arena(), &registered.arena),
            "polled with a pool that is not the registered one"
        );
        while self.recvs.is_low() {
            self.recv_chain.clear();
            self.recvs
                .take_chain(pool, registered.mr, &mut self.recv_chain);
            if self.recv_chain.is_empty() {
                self.counts.starved += 1;
                break;
            }
            // SAFETY: `recvs` holds the buffer of each slot until its completion was polled or the queue destroyed, and
            // nothing borrows the bytes of a buffer that the fabric owns.
            let result = unsafe { self.api.post_recv(queues.srq, &self.recv_chain) };
            let posted = result.map_or_else(|error| error.posted, |()| self.recv_chain.len());
            self.recvs.take_back(&self.recv_chain[posted..]);
            self.recvs.make_good(posted, &mut self.conns);
            self.counts.recv_doorbells += 1;
            self.counts.recvs_posted += posted as u64;
            if result.is_err() {
                self.remake();
                break;
            }
        }
    }

    /// Tells peers of their credits where no message does.
    fn return_credits(&mut self) {
        for place in 0..self.conns.len() {
            let conn = &mut self.conns[place];
            if conn.state != State::Live || conn.owed * 2 < self.options.credits {
                continue;
            }
            // What is queued takes the credits along; a queue that waits for `flush` must not keep the peer waiting.
            if conn.queued.is_empty() {
                if !conn.has_reserve(&self.options) {
                    continue;
                }
                conn.queued.push_back(Queued::Credits);
                self.counts.credits_alone += 1;
            }
            self.post(place);
        }
    }

    /// Reports the ends of connections, as far as there is room.
    fn tell(&mut self, events: &mut FabricEvents) {
        let count = self.conns.len();
        for (place, conn) in self.conns.iter_mut().enumerate() {
            if events.is_full() {
                break;
            }
            let id = conn.id(place, count);
            if let Some(reason) = conn.ended.take()
                && events
                    .push(FabricEvent::Closed { conn: id, reason })
                    .is_err()
            {
                unreachable!("room was checked");
            }
        }
        self.count_uneasy();
    }

    fn count_uneasy(&mut self) {
        let uneasy = self.conns.iter().filter(|conn| conn.is_uneasy());
        self.uneasy = uneasy.count();
    }
}

impl<V: VerbsApi> Fabric for VerbsFabric<V> {
    fn caps(&self) -> FabricCaps {
        FabricCaps {
            backend: BACKEND,
            message_bytes_max: self.options.message_bytes_max as usize,
            one_sided: true,
        }
    }

    fn poll(&mut self, pool: &mut BufPool, events: &mut FabricEvents) -> usize {
        let before = events.len();
        self.polls += 1;
        self.poll_receives(pool, events);
        self.poll_sends();
        self.refill(pool);
        self.announce_all();
        self.return_credits();
        if self.uneasy > 0 || self.polls.is_multiple_of(ASYNC_POLLS) {
            self.look_aside();
            self.advance();
            self.tell(events);
        }
        self.release(pool);
        events.len() - before
    }

    fn send(&mut self, pool: &mut BufPool, conn: ConnId, buf: Buf) -> Result<(), SendError> {
        let Some(place) = self.place(conn) else {
            return Err(SendError::Closed(buf));
        };
        self.release(pool);
        self.check_pool(pool);
        if buf.len() > self.conns[place].message_bytes_max as usize {
            return Err(SendError::TooLarge(buf));
        }
        self.announce(place);
        let conn = &mut self.conns[place];
        if conn.unannounced > 0 || conn.credits == 0 || !conn.has_room(1, &self.options) {
            self.counts.full += 1;
            return Err(SendError::Full(buf));
        }
        conn.credits -= 1;
        conn.queued.push_back(Queued::Message(buf));
        self.counts.messages_sent += 1;
        Ok(())
    }

    fn flush(&mut self) {
        for place in 0..self.conns.len() {
            if self.conns[place].state == State::Live {
                self.post(place);
            }
        }
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(place) = self.place(conn) {
            self.leave(place);
        }
    }

    fn arm(&mut self) -> bool {
        let Some(queues) = self.queues else {
            return true;
        };
        let waiting = |conn: &Conn| !conn.queued.is_empty() && conn.state == State::Live;
        if self.uneasy > 0 || self.recv_at < self.recv_len || self.conns.iter().any(waiting) {
            return false;
        }
        let armed =
            self.api.arm_cq(queues.send_cq).is_ok() && self.api.arm_cq(queues.recv_cq).is_ok();
        // What completed before the queues were armed wakes nobody.
        if !armed || self.poll_sends() || self.fetch_receives() {
            self.api.quiet();
            return false;
        }
        true
    }

    fn disarm(&mut self) {
        self.api.quiet();
    }

    fn wake_fd(&self) -> Option<RawFd> {
        self.api.wake_fd()
    }

    fn register(&mut self, pool: &BufPool) -> Result<(), RegisterError> {
        if self.registered.is_some() {
            return Err(RegisterError::TooMany {
                backend: BACKEND,
                pools_max: 1,
            });
        }
        let message_bytes_max = self.options.message_bytes_max as usize;
        if pool.slot_bytes() < message_bytes_max {
            return Err(RegisterError::SlotBytes {
                backend: BACKEND,
                slot_bytes: pool.slot_bytes(),
                message_bytes_max,
            });
        }
        let arena = pool.arena();
        match self.api.register(arena) {
            Ok(mr) => {
                self.registered = Some(Registered {
                    arena: Arc::clone(arena),
                    mr,
                });
                Ok(())
            }
            Err(error) => Err(life::register_error(error, arena.bytes())),
        }
    }
}

/// Makes the queues, and a queue pair for each connection.
fn make_queues<V: VerbsApi>(
    api: &mut V,
    options: &VerbsOptions,
) -> Result<(Queues, Box<[Conn]>), DeviceError> {
    let queues = Queues {
        send_cq: api.create_cq(options.send_cq_depth())?,
        recv_cq: api.create_cq(options.recv_cq_depth())?,
        srq: api.create_srq(options.recv_depth)?,
    };
    let mut conns = Vec::with_capacity(options.conns_max as usize);
    for _ in 0..options.conns_max {
        let qp = api.create_qp(&qp_options(&queues, options))?;
        conns.push(Conn::new(qp, api.qp_num(qp), options));
    }
    Ok((queues, conns.into_boxed_slice()))
}

fn qp_options(queues: &Queues, options: &VerbsOptions) -> QpOptions {
    QpOptions {
        send_cq: queues.send_cq,
        recv_cq: queues.recv_cq,
        srq: queues.srq,
        send_depth: options.send_depth + SENDS_RESERVED,
        inline_bytes: options.inline_bytes_max,
    }
}

fn sorted(conns: &[Conn]) -> Box<[(u32, usize)]> {
    let mut by_qp: Vec<(u32, usize)> = conns
        .iter()
        .enumerate()
        .map(|(place, conn)| (conn.qp_num, place))
        .collect();
    by_qp.sort_unstable();
    by_qp.into_boxed_slice()
}

#[cfg(test)]
mod tests;
