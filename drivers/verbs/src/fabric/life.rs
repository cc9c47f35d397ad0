//! How connections begin, end, and give everything back.

use std::io;

use ionian_driver_api::{BufPool, CloseReason, ConnId, RegisterError};
use thiserror::Error;

use super::conn::{Conn, Drain, LAST_SEQ, Queued, State};
use super::{BACKEND, VerbsFabric, make_queues, sorted};
use crate::api::{Address, AsyncEvent, Data, DeviceError, Remote, SendOp, SendWork, VerbsApi};
use crate::control::{CREDITS_MAX, Control, Immediate};

/// Polls with empty receive completions after which a drain waits no longer for the device's word that no receive is taken.
/// Not every device gives it.
const QUIET_POLLS: u32 = 1024;
/// Reports of destroyed objects that are dropped at once.
const STALE_EVENTS_MAX: usize = 10_000;
/// Polls after which a drain waits no longer for its last completion. Resetting a queue pair ends every access by it, so the
/// buffers are free in any case; what is lost is the count of what was flushed.
const DRAIN_POLLS_MAX: u32 = 1 << 20;

/// What one end of a connection must know of the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Where its port is.
    pub address: Address,
    /// Number of its queue pair, 24 bits.
    pub qp_num: u32,
    /// Number of the first packet that it sends, 24 bits.
    pub psn: u32,
    /// Messages that it has room for, 1 to 16,383.
    pub credits: u32,
    /// Largest message that it takes, in bytes.
    pub message_bytes_max: u32,
}

/// A queue pair that was reserved for a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    place: usize,
    life: u32,
}

/// Why no queue pair was reserved. Effect: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ReserveError {
    /// Every queue pair serves a connection, or drains: try again later.
    #[error("verbs: every queue pair is in use: raise conns_max, or wait until one has drained")]
    Full,
    /// The receive queue is not full, so the new peer's credits would not be covered: poll, and try again.
    #[error(
        "verbs: the pool has too few free buffers for another connection: {missing} receives are not posted"
    )]
    Receives {
        /// How many more are needed.
        missing: u32,
    },
    /// The epoch is below the last fence.
    #[error("verbs: epoch {epoch} is fenced off, the least is {epoch_min}")]
    Fenced {
        /// The epoch asked for.
        epoch: u64,
        /// The last fence.
        epoch_min: u64,
    },
    /// The device is gone.
    #[error("verbs: the device broke and could not be set up again: open it anew")]
    Gone,
    /// The device refused.
    #[error("verbs: {0}")]
    Device(DeviceError),
}

/// Why a connection was not established. Effect: the reservation is void.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum EstablishError {
    /// The ticket is of an earlier reservation.
    #[error("verbs: the reservation is void")]
    Void,
    /// The peer's numbers are out of range.
    #[error("verbs: the peer's {what} is out of range")]
    Remote {
        /// Which.
        what: &'static str,
    },
    /// The device refused, e.g. because there is no route to the peer.
    #[error("verbs: {0}")]
    Device(DeviceError),
}

impl Endpoint {
    /// Names the first number that is out of range.
    fn check(&self) -> Result<(), EstablishError> {
        let wrong = [
            (
                "queue pair number",
                self.qp_num == 0 || self.qp_num >= 1 << 24,
            ),
            ("packet number", self.psn >= 1 << 24),
            (
                "number of credits",
                !(1..=CREDITS_MAX).contains(&self.credits),
            ),
            (
                "MTU",
                ![256, 512, 1024, 2048, 4096].contains(&self.address.mtu_bytes),
            ),
        ];
        match wrong.into_iter().find(|(_, wrong)| *wrong) {
            Some((what, _)) => Err(EstablishError::Remote { what }),
            None => Ok(()),
        }
    }
}

impl Conn {
    /// Whether polls must look after it.
    pub(super) fn is_uneasy(&self) -> bool {
        self.ended.is_some() || matches!(self.state, State::Leaving | State::Draining(_))
    }
}

impl<V: VerbsApi> VerbsFabric<V> {
    /// Reserves a queue pair for a connection under `epoch`, whose packets begin with number `psn` (24 bits count; not that
    /// of an earlier connection). A pair is reserved only once it is in reset, so an answer that contains its endpoint tells
    /// the peer that nothing of an earlier epoch can reach this end by it.
    ///
    /// # Errors
    ///
    /// See [`ReserveError`]. Effect: none.
    pub fn reserve(&mut self, epoch: u64, psn: u32) -> Result<(Ticket, Endpoint), ReserveError> {
        if self.queues.is_none() {
            return Err(ReserveError::Gone);
        }
        let epoch_min = self.regions.epoch_min();
        if epoch < epoch_min {
            return Err(ReserveError::Fenced { epoch, epoch_min });
        }
        if self.recvs.spare > 0 {
            return Err(ReserveError::Receives {
                missing: self.recvs.spare,
            });
        }
        let lives_max = u32::MAX / self.options.conns_max - 1;
        let place = self.conns.iter().position(|conn| {
            conn.state == State::Idle && conn.ended.is_none() && conn.life < lives_max
        });
        let place = place.ok_or(ReserveError::Full)?;
        let conn = &mut self.conns[place];
        self.api.initialise(conn.qp).map_err(ReserveError::Device)?;
        conn.begin(epoch, psn & 0xFF_FFFF);
        let ticket = Ticket {
            place,
            life: conn.life,
        };
        let endpoint = Endpoint {
            address: self.api.address(),
            qp_num: conn.qp_num,
            psn: conn.psn,
            credits: self.options.credits,
            message_bytes_max: self.options.message_bytes_max,
        };
        Ok((ticket, endpoint))
    }

    /// Connects a reserved queue pair to the peer's. The numbers of `remote` may be a stranger's.
    ///
    /// # Errors
    ///
    /// See [`EstablishError`]. Effect: the reservation is void.
    pub fn establish(
        &mut self,
        ticket: Ticket,
        remote: &Endpoint,
    ) -> Result<ConnId, EstablishError> {
        let conn = &self.conns[ticket.place];
        if conn.life != ticket.life || conn.state != State::Reserved {
            return Err(EstablishError::Void);
        }
        let (qp, psn) = (conn.qp, conn.psn);
        let connected = remote.check().and_then(|()| {
            let remote = self.remote(remote);
            self.api
                .ready_to_receive(qp, &remote)
                .and_then(|()| self.api.ready_to_send(qp, psn, &remote))
                .map_err(EstablishError::Device)
        });
        if let Err(error) = connected {
            self.abandon(ticket);
            return Err(error);
        }
        let message_bytes_max = self.options.message_bytes_max;
        let conn = &mut self.conns[ticket.place];
        conn.state = State::Live;
        (conn.credits, conn.credits_max) = (remote.credits, remote.credits);
        conn.message_bytes_max = message_bytes_max.min(remote.message_bytes_max);
        Ok(self.conn_id(ticket.place))
    }

    /// Gives a reservation back.
    pub fn abandon(&mut self, ticket: Ticket) {
        let conn = &mut self.conns[ticket.place];
        if conn.life == ticket.life && conn.state == State::Reserved {
            conn.state = State::Idle;
            if self.api.reset(conn.qp).is_err() {
                self.remake();
            }
        }
    }

    /// The peer of a connection is known to be gone, e.g. by the end of the TCP connection that set it up: it closes with
    /// [`CloseReason::PeerGone`].
    pub fn peer_gone(&mut self, conn: ConnId) {
        if let Some(place) = self.place(conn) {
            self.end(place, CloseReason::PeerGone);
        }
    }

    /// Breaks a connection as a fault of the device does: its queue pair goes to the error state, and all that follows is as
    /// for any other fault. For checks of what must survive that.
    pub fn break_connection(&mut self, conn: ConnId) {
        if let Some(place) = self.place(conn) {
            self.fault(place, CloseReason::Broken);
        }
    }

    /// Whether any queue pair is still leaving or draining.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.uneasy > 0
    }

    /// Whether a connection is established and has not ended.
    #[must_use]
    pub fn is_live(&self, conn: ConnId) -> bool {
        self.place(conn).is_some()
    }

    /// Whether the queue pair of an ended connection is in reset again.
    #[must_use]
    pub fn is_reset(&self, conn: ConnId) -> bool {
        let place = conn.index() % self.conns.len();
        let slot = &self.conns[place];
        slot.id(place, self.conns.len()) != conn || slot.state == State::Idle
    }

    /// Ends all connections without a word and gives every buffer back to `pool`, those of exposed regions too. The device
    /// touches none of them any more. Nothing can be reserved afterwards.
    pub fn stop(&mut self, pool: &mut BufPool) {
        self.destroy();
        self.recvs.take_all_back();
        for buf in self.recvs.again.drain(..) {
            pool.free(buf);
        }
        self.regions.take_all(&mut self.api, &mut self.done);
        self.release(pool);
    }

    pub(super) fn conn_id(&self, place: usize) -> ConnId {
        self.conns[place].id(place, self.conns.len())
    }

    fn remote(&self, endpoint: &Endpoint) -> Remote {
        let own = self.api.address().mtu_bytes;
        Remote {
            address: Address {
                mtu_bytes: endpoint.address.mtu_bytes.min(own),
                ..endpoint.address
            },
            qp_num: endpoint.qp_num,
            psn: endpoint.psn,
            ack_timeout_log: self.options.ack_timeout_log,
            retries: self.options.retries,
            rnr_retries: self.options.rnr_retries,
            rnr_timer: self.options.rnr_timer,
        }
    }

    /// Something went wrong on a connection: counts it, and ends it.
    pub(super) fn fault(&mut self, place: usize, reason: CloseReason) {
        if self.conns[place].state == State::Live {
            self.counts.protocol_errors += u64::from(reason == CloseReason::Protocol);
            self.counts.broken += u64::from(reason == CloseReason::Broken);
        }
        self.end(place, reason);
    }

    /// Ends a connection, owing the event where it is live.
    pub(super) fn end(&mut self, place: usize, reason: CloseReason) {
        match self.conns[place].state {
            State::Live => {
                self.conns[place].ended = Some(reason);
                self.drain(place);
            }
            State::Leaving => self.drain(place),
            State::Idle | State::Reserved | State::Draining(_) => {}
        }
    }

    /// Closes a connection from this end: what was posted goes out, then the goodbye.
    pub(super) fn leave(&mut self, place: usize) {
        let conn = &mut self.conns[place];
        conn.drop_queued(&mut self.done);
        conn.queued.push_back(Queued::Control(Control::Bye));
        conn.state = State::Leaving;
        self.recvs.spare += std::mem::take(&mut conn.debt);
        self.post(place);
        self.count_uneasy();
    }

    /// Moves a pair to the error state, and posts the work whose flush says that all before it has come back.
    fn drain(&mut self, place: usize) {
        let conn = &mut self.conns[place];
        conn.drop_queued(&mut self.done);
        self.recvs.spare += std::mem::take(&mut conn.debt);
        conn.state = State::Draining(Drain::default());
        let last = SendWork {
            wr_id: conn.wr_id(place, LAST_SEQ),
            op: SendOp::Send {
                immediate: Immediate::Credits { credits: 0 }.encode(),
            },
            data: Data::None,
            signalled: true,
        };
        if self.api.fail(conn.qp).is_ok() {
            // SAFETY: the work names no slot.
            let posted = unsafe { self.api.post_send(conn.qp, &[last]) };
            // Where it could not be posted the reset makes good for it.
            if posted.is_err()
                && let State::Draining(drain) = &mut conn.state
            {
                drain.polls = DRAIN_POLLS_MAX;
            }
        }
        self.count_uneasy();
    }

    /// Looks at what the device reports aside of completions.
    pub(super) fn look_aside(&mut self) {
        while let Some(event) = self.api.poll_async() {
            match event {
                AsyncEvent::CqError | AsyncEvent::SrqError | AsyncEvent::DeviceGone => {
                    self.remake();
                    if self.queues.is_none() {
                        break;
                    }
                }
                AsyncEvent::QpError { qp_num } => {
                    if let Some(place) = self.place_of_qp(qp_num) {
                        self.fault(place, CloseReason::Broken);
                    }
                }
                AsyncEvent::QpAccess { qp_num } => {
                    if let Some(place) = self.place_of_qp(qp_num) {
                        self.fault(place, CloseReason::Protocol);
                    }
                }
                AsyncEvent::LastReceive { qp_num } => {
                    if let Some(place) = self.place_of_qp(qp_num) {
                        match &mut self.conns[place].state {
                            State::Draining(drain) => drain.recvs_back = true,
                            // The device moved the pair to the error state by itself.
                            _ => self.fault(place, CloseReason::Broken),
                        }
                    }
                }
                // A port that is down shows as sends without an answer; it may come back before.
                AsyncEvent::Port { .. } | AsyncEvent::Other => {}
            }
        }
    }

    /// Moves ending connections on.
    pub(super) fn advance(&mut self) {
        for place in 0..self.conns.len() {
            let recvs_empty = self.recv_at == self.recv_len;
            let conn = &mut self.conns[place];
            let all_back = conn.all_back();
            match &mut conn.state {
                State::Leaving if all_back => self.drain(place),
                State::Draining(drain) => {
                    drain.polls = drain.polls.saturating_add(1);
                    drain.quiet_polls += u32::from(drain.sends_back && recvs_empty);
                    let back = drain.recvs_back && recvs_empty || drain.quiet_polls > QUIET_POLLS;
                    let force = drain.polls > DRAIN_POLLS_MAX;
                    if drain.sends_back && back || force {
                        self.counts.drained_by_force += u64::from(!drain.sends_back);
                        self.finish_drain(place);
                    }
                }
                _ => {}
            }
        }
    }

    fn finish_drain(&mut self, place: usize) {
        let conn = &mut self.conns[place];
        if self.api.reset(conn.qp).is_err() {
            self.remake();
            return;
        }
        conn.retire_all(&mut self.done);
        conn.state = State::Idle;
        self.counts.drained += 1;
    }

    /// Destroys queue pairs and queues. Afterwards the device touches no slot but those of regions.
    fn destroy(&mut self) {
        let Some(queues) = self.queues.take() else {
            return;
        };
        for conn in &mut self.conns {
            if conn.state == State::Live {
                conn.ended = Some(CloseReason::Broken);
            }
            // A refusal means that the device is gone, and with it all access.
            let _ = self.api.destroy_qp(conn.qp);
            conn.drop_queued(&mut self.done);
            conn.retire_all(&mut self.done);
            (conn.state, conn.debt, conn.owed) = (State::Idle, 0, 0);
        }
        let _ = self.api.destroy_srq(queues.srq);
        let _ = self.api.destroy_cq(queues.send_cq);
        let _ = self.api.destroy_cq(queues.recv_cq);
        (self.recv_at, self.recv_len) = (0, 0);
        // What is still reported is of what was destroyed.
        for _ in 0..STALE_EVENTS_MAX {
            if self.api.poll_async().is_none() {
                break;
            }
        }
        self.count_uneasy();
    }

    /// After a fault of a queue or of the device: everything is made anew, under other numbers. Slow.
    #[cold]
    pub(super) fn remake(&mut self) {
        self.counts.device_faults += 1;
        self.destroy();
        self.recvs.take_all_back();
        let Ok((queues, conns)) = make_queues(&mut self.api, &self.options) else {
            return;
        };
        for (old, new) in self.conns.iter_mut().zip(conns) {
            (old.qp, old.qp_num) = (new.qp, new.qp_num);
        }
        self.by_qp = sorted(&self.conns);
        self.queues = Some(queues);
    }
}

/// Says why a pool could not be registered.
pub(super) fn register_error(error: DeviceError, bytes: usize) -> RegisterError {
    if error.errno != libc::ENOMEM {
        return RegisterError::Device {
            backend: BACKEND,
            bytes,
            source: io::Error::from_raw_os_error(error.errno),
        };
    }
    RegisterError::Memlock {
        backend: BACKEND,
        bytes,
        limit_bytes: memlock_bytes(),
    }
}

/// How much this process may lock in memory.
fn memlock_bytes() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call writes the structure, which lives on.
    let status = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    if status == 0 { limit.rlim_cur } else { 0 }
}
