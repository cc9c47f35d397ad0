//! Sessions over one UDP socket: the socket, its buffers, and the session of each peer.
//!
//! A session is opened by sending: a packet that shows the [grant](ionian_wire::grant) for it, and a first message that names
//! the place that it is for. The other end makes a session only for a packet whose grant and token fit, which it can tell
//! without any state; everything else is dropped and counted, without an answer. While an answer is overdue the grant is shown
//! again: an end that does not have the session, because it is a later life or has no room for it, closes it without state, so
//! that the other end need not wait for a silence to tell it.

mod device;
mod options;
#[cfg(test)]
mod tests;
mod trace;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use ionian_core::guard::{self, ANY_NODE, Granted, KeyChange, Keyring, Knock};
use ionian_core::session::tokens::peek;
use ionian_core::session::{Session, SessionConfig, SessionState, Take};
use ionian_driver_api::{BufPool, Packet, PacketBatch, PacketDevice, PoolLayout, PoolOptions};
use ionian_types::{Nanos, NodeId, SessionId, Shipped, Time};
use ionian_udp::{UdpOpenError, UdpStats};
use ionian_wire::grant::{Grant, Party, Rights};
use ionian_wire::packet::{PacketHeader, PacketKind, PacketPrefix};

use device::Device;
use trace::{Trace, Way};

pub use device::{FaultSpec, FaultSpecError};
pub use options::PortOptions;
pub(crate) use options::SESSIONS_MAX;
pub use trace::TraceOptions;

/// Sessions that other ends opened and have said nothing in, at most; one more, and the oldest gives way. The first message
/// comes right behind the packet that opens a session, so that an honest one is among them for a moment.
pub(crate) const HALF_OPEN_MAX: usize = 256;

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
    /// Datagrams of no session and without a grant that fits.
    pub strangers: u64,
    /// Datagrams that a session rejected.
    pub rejected: u64,
    /// Messages that a session's grant does not allow, and sessions to places that it does not: each ends its session.
    pub denied: u64,
    /// Sessions refused because there are too many.
    pub full: u64,
    /// Packets of sessions that an earlier life of this process had, or that are over: answered by closing them.
    pub forgotten: u64,
    /// Sessions that others opened, said nothing in, and that gave way to newer ones.
    pub half_open: u64,
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
    granted: Granted,
    address: SocketAddr,
    /// The other end opened it.
    inbound: bool,
    /// The grant is to be shown to the other end.
    show: bool,
    ended: bool,
}

/// A session with another process of the cluster that is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Parting {
    pub(crate) node: NodeId,
    /// When its last packet came, if one has.
    pub(crate) heard: Option<Time>,
    /// It ended because no more came, not because an end closed it.
    pub(crate) silent: bool,
}

/// What the messages of a session pass on their way in: whether its grant allows them, and the trace.
struct Gate<'a> {
    now: Time,
    session: SessionId,
    address: SocketAddr,
    rights: guard::Gate,
    trace: &'a mut Option<Box<Trace>>,
}

impl<'a> Gate<'a> {
    fn new(now: Time, peer: &Peer, trace: &'a mut Option<Box<Trace>>) -> Self {
        Self {
            now,
            session: peer.granted.session,
            address: peer.address,
            rights: guard::Gate::new(&peer.granted, peer.inbound),
            trace,
        }
    }

    /// Hands a message on, if it is allowed.
    #[inline]
    fn pass(&mut self, message: &[u8], deliver: impl FnOnce(&[u8]) -> Take) -> Take {
        if !self.rights.passes(message) {
            return Take::Taken;
        }
        let take = deliver(message);
        if let (Some(trace), Take::Taken) = (self.trace.as_mut(), take) {
            trace.received(self.now, self.address, self.session, message);
        }
        take
    }
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
    keyring: Keyring,
    template: SessionConfig,
    sessions_max: usize,
    /// Those that others opened and had said nothing in when last looked at, the oldest first.
    half_open: VecDeque<(u32, SessionId)>,
    trace: Option<Box<Trace>>,
    stats: PortStats,
    /// Sessions that there were.
    admitted: u64,
}

/// Random bits of the system.
fn random() -> Option<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).ok()?;
    Some(u64::from_le_bytes(bytes))
}

/// The node whose process is at the other end; none for that of a client.
fn node_of(peer: &Peer) -> Option<NodeId> {
    let grant = &peer.granted.grant;
    let node = match grant.opener {
        _ if !peer.inbound => grant.target,
        Party::Node(node, _) if grant.rights.holds(Rights::MEMBER) => node,
        Party::Node(..) | Party::User(..) => return None,
    };
    (node != ANY_NODE).then_some(node)
}

impl UdpPort {
    pub(crate) fn open(
        options: &PortOptions,
        keyring: Keyring,
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
            keyring,
            template: options.session(caps.payload_bytes_max, dead_after),
            sessions_max: options.sessions_max.min(SESSIONS_MAX),
            half_open: VecDeque::with_capacity(HALF_OPEN_MAX),
            trace: trace.transpose()?.map(Box::new),
            stats: PortStats::default(),
            admitted: 0,
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

    /// Opens a session to a process of a node; `None` when there are too many, or without a grant for it.
    pub(crate) fn dial(&mut self, now: Time, node: NodeId, address: SocketAddr) -> Option<u32> {
        if self.free.is_empty() && self.peers.len() >= SESSIONS_MAX {
            self.stats.full += 1;
            return None;
        }
        let granted = self.keyring.open(node, random)?;
        self.admit(now, granted, address, false)
    }

    /// Takes what the controllers say of keys and grants, and ends the sessions that are no longer granted.
    pub(crate) fn change_keys(&mut self, now: Time, change: &KeyChange) {
        self.keyring.change(change);
        let ended = self
            .peers
            .iter_mut()
            .flatten()
            .filter(|peer| !self.keyring.is_good(&peer.granted.grant));
        ended.for_each(|peer| peer.session.close(now));
    }

    fn admit(
        &mut self,
        now: Time,
        granted: Granted,
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
        let config = granted.config::<Shipped>(&self.template, inbound);
        let session = Session::new(config, now).expect("the template is valid");
        self.peers[index as usize] = Some(Peer {
            session,
            granted,
            address,
            inbound,
            show: !inbound,
            ended: false,
        });
        self.by_id.insert(granted.session, index);
        self.admitted += 1;
        Some(index)
    }

    /// Closes a session that this end does not have: without it the other end would wait for the silence of a dead one.
    /// Nothing is kept: the next such packet gets the same answer.
    #[cold]
    fn answer_close(&mut self, now: Time, granted: &Granted, address: SocketAddr) {
        self.send_bare(now, PacketKind::Close, 0, granted, address);
    }

    /// Sends a packet that is not the session's own: one that shows a grant, or closes what is not there.
    #[cold]
    fn send_bare(
        &mut self,
        now: Time,
        kind: PacketKind,
        ack: u64,
        granted: &Granted,
        address: SocketAddr,
    ) {
        let prefix = PacketPrefix {
            session: granted.session,
            epoch: granted.grant.epoch,
            token: granted.send,
        };
        let header = PacketHeader {
            kind,
            ask: false,
            seq: 0,
            ack,
            credit: 0,
            sack: None,
        };
        let grant = granted.grant.to_bytes();
        let payload = if kind == PacketKind::Open {
            &grant[..]
        } else {
            &[]
        };
        // Without a buffer or room the packet is lost, as the network might have lost it: it is sent again.
        let Some(mut buf) = self.pool.alloc() else {
            return;
        };
        let slot = self.pool.slot_mut(&mut buf);
        let written = header.emit(&prefix.to_bytes(), [payload, &[]], slot);
        self.pool.set_len(&mut buf, written.unwrap_or(0));
        if let Some(trace) = &mut self.trace {
            trace.datagram(now, Way::Tx, address, self.pool.bytes(&buf));
        }
        if let Err(packet) = self.tx.push(Packet { buf, peer: address }) {
            self.pool.free(packet.buf);
        }
    }

    /// Takes the packet of a session that is not there: makes the session if its grant fits and has not had it before.
    #[cold]
    fn open_for(&mut self, now: Time, prefix: &PacketPrefix, packet: &Packet) {
        let full = self.by_id.len() >= self.sessions_max;
        let bytes = self.pool.bytes(&packet.buf);
        match self.keyring.knock(prefix, bytes, full) {
            Knock::Stranger(_) => self.stats.strangers += 1,
            Knock::Full(granted) => {
                self.stats.full += 1;
                self.answer_close(now, &granted, packet.peer);
            }
            Knock::Open(granted) => {
                self.make_room();
                if let Some(index) = self.admit(now, granted, packet.peer, true) {
                    self.half_open.push_back((index, granted.session));
                }
            }
            Knock::Over(granted) => {
                self.stats.forgotten += 1;
                self.answer_close(now, &granted, packet.peer);
            }
        }
    }

    /// Before one more session is made that nobody has said anything in: where there are as many of these as there may be, the
    /// oldest ends. Its other end is not told: if it is honest it says something, and is told then.
    fn make_room(&mut self) {
        let limit = HALF_OPEN_MAX.min((self.sessions_max / 2).max(1));
        if self.half_open.len() < limit {
            return;
        }
        let peers = &self.peers;
        self.half_open.retain(|(index, session)| {
            let peer = peers[*index as usize].as_ref();
            peer.is_some_and(|peer| {
                peer.granted.session == *session
                    && peer.session.state() == SessionState::Open
                    && peer.session.stats().messages_received == 0
            })
        });
        if self.half_open.len() < limit {
            return;
        }
        let oldest = self.half_open.pop_front();
        if let Some(peer) = oldest.and_then(|(index, _)| self.peers[index as usize].as_mut()) {
            peer.ended = true;
            self.stats.half_open += 1;
        }
    }

    /// The sessions with other processes of the cluster: with whose, and when its last packet came, if one has.
    pub(crate) fn heard(&self) -> impl Iterator<Item = (NodeId, Option<Time>)> {
        let peers = self.peers.iter().flatten();
        peers.filter_map(|peer| Some((node_of(peer)?, peer.session.heard_at())))
    }

    /// Asks the process of a node for a sign of life, by every session with it.
    pub(crate) fn ping(&mut self, now: Time, node: NodeId) {
        let peers = self.peers.iter_mut().flatten();
        for peer in peers.filter(|peer| node_of(peer) == Some(node)) {
            peer.session.ping(now);
        }
    }

    /// How many sessions there were.
    pub(crate) const fn admitted(&self) -> u64 {
        self.admitted
    }

    /// Whether the other end opened the session, and no end has closed it.
    pub(crate) fn is_new(&self, index: u32) -> bool {
        self.peer(index)
            .is_some_and(|peer| peer.inbound && peer.session.state() == SessionState::Open)
    }

    /// The grant of a session.
    pub(crate) fn grant(&self, index: u32) -> Option<&Grant> {
        self.peer(index).map(|peer| &peer.granted.grant)
    }

    /// Counts a session to a place that its grant does not allow.
    pub(crate) const fn note_denied(&mut self) {
        self.stats.denied += 1;
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
            let mut gate = Gate::new(now, peer, &mut self.trace);
            let received = peer.session.resume(now, &mut |message| {
                gate.pass(message, |message| deliver(at as u32, room, message))
            });
            self.stats.messages += u64::from(received.messages);
            count += received.messages as usize;
            if gate.rights.denied() {
                self.stats.denied += 1;
                peer.session.close(now);
            }
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
        let Some(index) = self.by_id.get(&prefix.session).copied() else {
            self.open_for(now, &prefix, packet);
            return;
        };
        let bytes = self.pool.bytes(&packet.buf);
        let Some(peer) = self.peers[index as usize].as_mut() else {
            return;
        };
        let room = peer.session.room_bytes();
        let mut gate = Gate::new(now, peer, &mut self.trace);
        let mut deliver =
            |message: &[u8]| gate.pass(message, |message| deliver(index, room, message));
        match peer.session.receive(now, bytes, &mut deliver) {
            Ok(received) => {
                // A peer may come from another address after a restart of its network; the token says who it is.
                peer.address = packet.peer;
                self.stats.messages += u64::from(received.messages);
            }
            Err(_) => self.stats.rejected += 1,
        }
        if gate.rights.denied() {
            self.stats.denied += 1;
            peer.session.close(now);
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
                peer.show |= !peer.inbound && peer.session.is_overdue();
            }
            if peer.show {
                self.show_grant(now, at);
            }
            let Some(peer) = &self.peers[at] else {
                continue;
            };
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

    /// Shows the other end of a session the grant for it.
    #[cold]
    fn show_grant(&mut self, now: Time, at: usize) {
        let Some(peer) = &mut self.peers[at] else {
            return;
        };
        peer.show = false;
        let heard = u64::from(peer.session.stats().packets_received > 0);
        let (granted, address) = (peer.granted, peer.address);
        self.send_bare(now, PacketKind::Open, heard, &granted, address);
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
        self.take_parted().map(|(at, _)| at)
    }

    /// The next session that is over, and what it means where it was one with a process of the cluster; it is forgotten.
    pub(crate) fn take_parted(&mut self) -> Option<(u32, Option<Parting>)> {
        let at = self.peers.iter().position(|peer| {
            peer.as_ref()
                .is_some_and(|peer| peer.ended || peer.session.state() != SessionState::Open)
        })?;
        let mut parting = None;
        if let Some(peer) = self.peers[at].take() {
            parting = node_of(&peer).map(|node| Parting {
                node,
                heard: peer.session.heard_at(),
                silent: peer.session.state() == SessionState::Dead,
            });
            let silent = peer.session.stats().messages_received == 0;
            if silent && !peer.inbound && peer.session.state() == SessionState::Closed {
                self.stats.refused += 1;
            }
            self.by_id.remove(&peer.granted.session);
        }
        self.free.push(at as u32);
        self.stats.ended += 1;
        Some((at as u32, parting))
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
            trace.sent(
                peer.address,
                peer.granted.session,
                head,
                head.len() + body.len(),
            );
        }
        sent
    }

    /// Whether an answer of a session's other end is overdue: it may be gone, long before that is found for sure.
    pub(crate) fn is_overdue(&self, index: u32) -> bool {
        self.peer(index)
            .is_some_and(|peer| peer.session.is_overdue())
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
