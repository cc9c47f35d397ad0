//! Sessions over one UDP socket: the socket, its buffers, and the session of each peer.
//!
//! A session is opened by sending: its first message names the place that it is for. The other end makes a session only
//! for a datagram whose token fits the cluster's secret, which it can tell without any state; everything else is dropped
//! and counted, without an answer. One session too many is answered by closing it, without state either; so is a packet of
//! a session that an earlier life of this process had, so that the other end need not wait for a silence to tell it.

mod device;
mod options;
#[cfg(test)]
mod tests;
mod trace;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use ionian_core::session::tokens::peek;
use ionian_core::session::{Session, SessionConfig, SessionState, Take};
use ionian_driver_api::{BufPool, Packet, PacketBatch, PacketDevice, PoolLayout, PoolOptions};
use ionian_types::{GuardEpoch, Nanos, SessionId, Time, Token};
use ionian_udp::{UdpOpenError, UdpStats};
use ionian_wire::packet::{PacketHeader, PacketKind, PacketPrefix, PacketView};

use crate::config::Secret;
use device::Device;
use trace::{Trace, Way};

pub use device::{FaultSpec, FaultSpecError};
pub(crate) use options::BACKEND;
pub use options::PortOptions;
pub(crate) use options::SESSIONS_MAX;
pub use trace::TraceOptions;

/// The epoch of sessions in a cluster with a static secret.
const STATIC_EPOCH: u64 = 1;

/// Ended sessions that are remembered.
const OVER_MAX: usize = 1024;

/// Why a port could not be opened. Effect: none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// The socket.
    #[error(transparent)]
    Socket(#[from] UdpOpenError),
    /// Memory for packets.
    #[error("no memory for packet buffers: {0}")]
    Pool(#[from] ionian_driver_api::PoolError),
    /// What a thread sleeps with.
    #[error("no descriptors for sleeping: {0}")]
    Sleep(std::io::Error),
    /// The trace's file.
    #[error("cannot write the trace {path}: {error}")]
    Trace {
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
}

/// Counters of a port.
#[derive(Clone, Copy, Default, Debug)]
pub struct PortStats {
    /// Datagrams of no session, with a wrong token or too short.
    pub strangers: u64,
    /// Datagrams that a session rejected.
    pub rejected: u64,
    /// Sessions refused because there are too many.
    pub full: u64,
    /// Packets of sessions that an earlier life of this process had, or that are over: answered by closing them.
    pub forgotten: u64,
    /// Messages delivered.
    pub messages: u64,
    /// Sessions that are over: closed by an end, or given up after silence.
    pub ended: u64,
    /// Sessions that the other end closed before it said anything: it refused them.
    pub refused: u64,
    /// Sessions open now.
    pub open: u64,
    /// Faults injected into what was sent.
    pub faults: u64,
    /// The socket's counters.
    pub socket: UdpStats,
}

#[derive(Debug)]
struct Peer {
    session: Session,
    id: SessionId,
    address: SocketAddr,
    /// The other end opened it.
    inbound: bool,
    ended: bool,
}

/// A socket and its sessions.
#[derive(Debug)]
pub(crate) struct UdpPort {
    device: Device,
    pool: BufPool,
    rx: PacketBatch,
    tx: PacketBatch,
    peers: Vec<Option<Peer>>,
    free: Vec<u32>,
    by_id: BTreeMap<SessionId, u32>,
    /// Sessions that others opened and that ended last: a late copy of a first packet must not make one of them again.
    over: VecDeque<SessionId>,
    secret: Secret,
    template: SessionConfig,
    sessions_max: usize,
    trace: Option<Box<Trace>>,
    stats: PortStats,
}

impl UdpPort {
    pub(crate) fn open(
        options: &PortOptions,
        secret: Secret,
        dead_after: Nanos,
    ) -> Result<Self, PortError> {
        let trace = options.trace.as_ref().map(|trace| {
            Trace::create(trace).map_err(|error| PortError::Trace {
                path: trace.path.display().to_string(),
                error,
            })
        });
        let device = Device::open(&options.udp, options.faults)?;
        let caps = device.caps();
        let slots = if caps.payload_bytes_max > 8192 {
            256
        } else {
            4096
        };
        let pool = BufPool::new(PoolOptions {
            slots,
            slot_bytes: caps.payload_bytes_max as u32,
            layout: PoolLayout::Coloured,
        })?;
        Ok(Self {
            device,
            pool,
            rx: PacketBatch::with_capacity(caps.batch_max),
            tx: PacketBatch::with_capacity(options.tx_queue_packets.max(caps.batch_max)),
            peers: Vec::with_capacity(64),
            free: Vec::new(),
            by_id: BTreeMap::new(),
            over: VecDeque::with_capacity(OVER_MAX),
            secret,
            template: options.session(caps.payload_bytes_max, dead_after),
            sessions_max: options.sessions_max.min(SESSIONS_MAX),
            trace: trace.transpose()?.map(Box::new),
            stats: PortStats::default(),
        })
    }

    /// Its counters.
    pub(crate) fn stats(&self) -> PortStats {
        PortStats {
            open: self.by_id.len() as u64,
            faults: self.device.faults(),
            socket: self.device.stats(),
            ..self.stats
        }
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.device.local_addr()
    }

    pub(crate) fn payload_bytes_max(&self) -> usize {
        self.template.mtu_bytes
    }

    pub(crate) fn wake_fd(&self) -> Option<std::os::fd::RawFd> {
        self.device.wake_fd()
    }

    /// Opens a session to a peer; `None` when there are too many.
    pub(crate) fn dial(&mut self, now: Time, address: SocketAddr) -> Option<u32> {
        let mut random = [0u8; 8];
        getrandom::fill(&mut random).ok()?;
        let id = SessionId::new(u64::from_le_bytes(random));
        if self.by_id.contains_key(&id) {
            return None;
        }
        self.admit(now, id, address, false)
    }

    fn admit(
        &mut self,
        now: Time,
        id: SessionId,
        address: SocketAddr,
        inbound: bool,
    ) -> Option<u32> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.peers.len() < SESSIONS_MAX => {
                self.peers.push(None);
                self.peers.len() as u32 - 1
            }
            None => {
                self.stats.full += 1;
                return None;
            }
        };
        let (opener, other) = self.secret.session_tokens(id, STATIC_EPOCH);
        let mut config = self.template;
        config.session = id;
        (config.token_send, config.token_receive) = if inbound {
            (other, opener)
        } else {
            (opener, other)
        };
        let session = Session::new(config, now).expect("the template is valid");
        self.peers[index as usize] = Some(Peer {
            session,
            id,
            address,
            inbound,
            ended: false,
        });
        self.by_id.insert(id, index);
        Some(index)
    }

    /// Answers the first packet of one session too many by closing it. Nothing is kept: the next such packet gets the
    /// same answer.
    #[cold]
    fn refuse(&mut self, now: Time, id: SessionId, address: SocketAddr) {
        self.stats.full += 1;
        let (_, other) = self.secret.session_tokens(id, STATIC_EPOCH);
        self.answer_close(now, id, other, address);
    }

    /// Closes a session that this end does not have: without it the other end would wait for the silence of a dead one.
    #[cold]
    fn answer_close(&mut self, now: Time, id: SessionId, token: Token, address: SocketAddr) {
        let prefix = PacketPrefix {
            session: id,
            epoch: GuardEpoch::new(STATIC_EPOCH),
            token,
        };
        let close = PacketHeader {
            kind: PacketKind::Close,
            ask: false,
            seq: 0,
            ack: 0,
            credit: 0,
            sack: None,
        };
        // Without a buffer or room the answer is lost, as the network might have lost it: the peer asks again.
        let Some(mut buf) = self.pool.alloc() else {
            return;
        };
        let slot = self.pool.slot_mut(&mut buf);
        let written = close.emit(&prefix.to_bytes(), [&[], &[]], slot);
        self.pool.set_len(&mut buf, written.unwrap_or(0));
        if let Some(trace) = &mut self.trace {
            trace.datagram(now, Way::Tx, address, self.pool.bytes(&buf));
        }
        if let Err(packet) = self.tx.push(Packet { buf, peer: address }) {
            self.pool.free(packet.buf);
        }
    }

    /// Whether the other end opened the session, and no end has closed it.
    pub(crate) fn is_new(&self, index: u32) -> bool {
        self.peer(index)
            .is_some_and(|peer| peer.inbound && peer.session.state() == SessionState::Open)
    }

    /// Receives what has come and hands each message to `deliver`. Returns the number of datagrams.
    pub(crate) fn receive(
        &mut self,
        now: Time,
        deliver: &mut impl FnMut(u32, usize, &[u8]) -> Take,
    ) -> usize {
        let mut count = 0;
        for at in 0..self.peers.len() {
            let Some(peer) = self.peers[at]
                .as_mut()
                .filter(|peer| peer.session.has_held())
            else {
                continue;
            };
            let room = peer.session.room_bytes();
            let (trace, session, address) = (&mut self.trace, peer.id, peer.address);
            let received = peer.session.resume(now, &mut |message| {
                let take = deliver(at as u32, room, message);
                if let (Some(trace), Take::Taken) = (trace.as_mut(), take) {
                    trace.received(now, address, session, message);
                }
                take
            });
            self.stats.messages += u64::from(received.messages);
            count += received.messages as usize;
        }
        self.device.rx_burst(&mut self.pool, &mut self.rx);
        while let Some(packet) = self.rx.pop() {
            count += 1;
            self.take(now, &packet, deliver);
            self.pool.free(packet.buf);
        }
        count
    }

    fn take(
        &mut self,
        now: Time,
        packet: &Packet,
        deliver: &mut impl FnMut(u32, usize, &[u8]) -> Take,
    ) {
        let bytes = self.pool.bytes(&packet.buf);
        if let Some(trace) = &mut self.trace {
            trace.datagram(now, Way::Rx, packet.peer, bytes);
        }
        let Some(prefix) = peek(bytes) else {
            self.stats.strangers += 1;
            return;
        };
        let index = match self.by_id.get(&prefix.session) {
            Some(index) => *index,
            None => {
                let (opener, other) = self.secret.session_tokens(prefix.session, STATIC_EPOCH);
                // Only a whole packet of a granted session, and its first, makes state.
                let view = PacketView::new_checked(bytes).ok();
                let header = view
                    .filter(|_| prefix.epoch.get() == STATIC_EPOCH)
                    .map(|view| *view.header());
                let first = header.is_some_and(|header| header.seq == 1);
                // Whoever has an ack of this end had a session with an earlier life of it; a packet that overtook the
                // first one has none.
                let over = self.over.contains(&prefix.session);
                let forgotten = header.is_some_and(|header| {
                    (header.ack > 0 || over) && header.kind != PacketKind::Close
                });
                if forgotten && (prefix.token == opener || prefix.token == other) {
                    let token = if prefix.token == opener {
                        other
                    } else {
                        opener
                    };
                    self.stats.forgotten += 1;
                    self.answer_close(now, prefix.session, token, packet.peer);
                    return;
                }
                if prefix.token != opener || !first {
                    self.stats.strangers += 1;
                    return;
                }
                if self.by_id.len() >= self.sessions_max {
                    self.refuse(now, prefix.session, packet.peer);
                    return;
                }
                let Some(index) = self.admit(now, prefix.session, packet.peer, true) else {
                    return;
                };
                index
            }
        };
        let bytes = self.pool.bytes(&packet.buf);
        let Some(peer) = self.peers[index as usize].as_mut() else {
            return;
        };
        let room = peer.session.room_bytes();
        let (trace, session) = (&mut self.trace, peer.id);
        let mut deliver = |message: &[u8]| {
            let take = deliver(index, room, message);
            if let (Some(trace), Take::Taken) = (trace.as_mut(), take) {
                trace.received(now, packet.peer, session, message);
            }
            take
        };
        match peer.session.receive(now, bytes, &mut deliver) {
            Ok(received) => {
                // A peer may come from another address after a restart of its network; the token says who it is.
                peer.address = packet.peer;
                self.stats.messages += u64::from(received.messages);
            }
            Err(_) => self.stats.rejected += 1,
        }
    }

    /// Sends what sessions have to send, as far as the socket takes it. Messages leave before bare acks: somebody waits for
    /// them.
    pub(crate) fn transmit(&mut self, now: Time) -> usize {
        let mut count = 0;
        if let Some(trace) = &mut self.trace {
            trace.pass(now);
        }
        for at in 0..self.peers.len() {
            let Some(peer) = &mut self.peers[at] else {
                continue;
            };
            if peer.session.next_deadline() <= now {
                peer.session.on_deadline(now);
            }
            if peer.session.has_data() && !self.transmit_from(now, at, &mut count) {
                return count;
            }
        }
        for at in 0..self.peers.len() {
            if !self.transmit_from(now, at, &mut count) {
                return count;
            }
        }
        count + self.device.tx_burst(&mut self.pool, &mut self.tx)
    }

    /// Queues what one session has to send. `false` when the socket takes no more: to ask for another session is a system
    /// call for nothing.
    fn transmit_from(&mut self, now: Time, at: usize, count: &mut usize) -> bool {
        let Some(peer) = &mut self.peers[at] else {
            return true;
        };
        while peer.session.wants_transmit(now) {
            if self.tx.is_full() {
                *count += self.device.tx_burst(&mut self.pool, &mut self.tx);
                if self.tx.is_full() {
                    return false;
                }
            }
            let Some(mut buf) = self.pool.alloc() else {
                break;
            };
            let Some(len) = peer
                .session
                .poll_transmit(now, self.pool.slot_mut(&mut buf))
            else {
                self.pool.free(buf);
                break;
            };
            self.pool.set_len(&mut buf, len);
            if let Some(trace) = &mut self.trace {
                trace.datagram(now, Way::Tx, peer.address, self.pool.bytes(&buf));
            }
            // The batch has room: it was looked at above.
            if let Err(packet) = self.tx.push(Packet {
                buf,
                peer: peer.address,
            }) {
                self.pool.free(packet.buf);
            }
        }
        true
    }

    /// The next session that is over; it is forgotten.
    pub(crate) fn take_ended(&mut self) -> Option<u32> {
        let at = self.peers.iter().position(|peer| {
            peer.as_ref()
                .is_some_and(|peer| peer.ended || peer.session.state() != SessionState::Open)
        })?;
        if let Some(peer) = self.peers[at].take() {
            let silent = peer.session.stats().messages_received == 0;
            if silent && !peer.inbound && peer.session.state() == SessionState::Closed {
                self.stats.refused += 1;
            }
            self.by_id.remove(&peer.id);
            if peer.inbound {
                if self.over.len() == OVER_MAX {
                    self.over.pop_front();
                }
                self.over.push_back(peer.id);
            }
        }
        self.free.push(at as u32);
        self.stats.ended += 1;
        Some(at as u32)
    }

    /// Ends a session; the other end is told, best effort.
    pub(crate) fn close(&mut self, now: Time, index: u32) {
        if let Some(peer) = self.peers.get_mut(index as usize).and_then(Option::as_mut) {
            peer.session.close(now);
        }
        self.transmit(now);
    }

    /// Bytes that the session takes now.
    #[inline]
    pub(crate) fn room(&self, index: u32) -> usize {
        self.peer(index).map_or(0, |peer| peer.session.room_bytes())
    }

    /// Sends one message. `false` when it does not fit or the session is over.
    #[inline]
    pub(crate) fn send(&mut self, index: u32, head: &[u8], body: &[u8]) -> bool {
        let peer = self.peers.get_mut(index as usize).and_then(Option::as_mut);
        let Some(peer) = peer else { return false };
        let sent = peer.session.push(&[head, body]).is_ok();
        if let Some(trace) = self.trace.as_mut().filter(|_| sent) {
            trace.sent(peer.address, peer.id, head, head.len() + body.len());
        }
        sent
    }

    fn peer(&self, index: u32) -> Option<&Peer> {
        self.peers.get(index as usize).and_then(Option::as_ref)
    }

    /// When a session wants to be looked at, and whether all is quiet until then.
    pub(crate) fn next_deadline(&self) -> Time {
        self.peers
            .iter()
            .flatten()
            .map(|peer| peer.session.next_deadline())
            .min()
            .unwrap_or(Time::FAR)
    }

    /// Before a sleep: `false` if a packet waits that the descriptor does not show.
    pub(crate) fn arm(&mut self) -> bool {
        self.tx.is_empty() && self.device.arm()
    }
}
