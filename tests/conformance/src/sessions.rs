//! Sessions over a packet device, as a fabric: what a node does with its socket, reduced to what the suite looks at.
//!
//! The session layer is the shipped one; this file only carries its datagrams, as `dataplane/node` does. Datagrams have a pool of
//! their own, so that a peer's messages never compete with them for buffers, and every one of its slots is home when the fabric
//! rests. Time is the number of polls, [`TICK`] each: what waits for a timeout waits for so many polls.

use std::os::fd::RawFd;

use ionian_core::session::{
    CREDIT_INITIAL_PACKETS, PushError, Received, Rejected, Session, SessionConfig, SessionState,
    Take,
};
use ionian_driver_api::{
    Bounded, Buf, BufPool, CloseReason, ConnId, Fabric, FabricCaps, FabricEvent, FabricEvents,
    FaultyPackets, Packet, PacketBatch, PacketDevice, PacketFaults, PeerAddr, PoolLayout,
    PoolOptions, SendError,
};
use ionian_types::{GuardEpoch, Nanos, SessionId, Time, Token};
use ionian_wire::frame::MESSAGE_HEADER_BYTES;
use ionian_wire::packet::{PACKET_BYTES_MAX, PACKET_OVERHEAD_BYTES, PacketPrefix};

use crate::subject::{Disturbance, Family, Layer, Shape};

/// What one poll of an end lets its time move on by.
pub const TICK: Nanos = Nanos(5_000);

/// Slots of the pool for datagrams.
const WIRE_SLOTS: u32 = 1024;
/// Datagrams of one connection before the next has its turn.
const TURN_DATAGRAMS_MAX: usize = 32;
/// Bursts taken from the device in one poll.
const BURSTS_MAX: usize = 4;
/// Packets in flight of one session.
const WINDOW_PACKETS: u32 = 64;
/// Kind of the messages; sessions do not look at it.
const KIND: u8 = 1;
/// Polls that a datagram is held for at most where faults hold some.
const DELAY_POLLS_MAX: u64 = 40;

struct Peer {
    session: Session,
    id: SessionId,
    epoch: GuardEpoch,
    /// Its end was told, or was ours: nothing more is said of it.
    over: bool,
    /// It sent a message that no slot holds.
    broke_rules: bool,
}

/// Sessions over a device. See the module.
pub struct Sessions<D> {
    device: FaultyPackets<D>,
    wire: BufPool,
    rx: PacketBatch,
    tx: PacketBatch,
    peers: Vec<Option<Peer>>,
    /// Where the other end of each connection is, also after its end.
    addrs: Vec<PeerAddr>,
    conns_max: usize,
    queue_bytes: usize,
    mtu_bytes: usize,
    dead_after: Nanos,
    now: Time,
    next_turn: usize,
    captured: Vec<u8>,
    /// Datagrams that no session took.
    turned_away: u64,
}

impl<D> std::fmt::Debug for Sessions<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions")
            .field("peers", &self.peers.len())
            .field("turned_away", &self.turned_away)
            .finish_non_exhaustive()
    }
}

/// What names one end of a session.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// The session.
    pub session: u64,
    /// The epoch that it is opened under.
    pub epoch: u64,
    /// Where the other end is.
    pub peer: PeerAddr,
    /// Which of the two ends this is: their tokens are swapped.
    pub first: bool,
}

impl<D: PacketDevice> Sessions<D> {
    /// Sessions over `device`, in the limits of `shape`. The same `seed` makes the same faults.
    ///
    /// # Errors
    /// A sentence, if there is no pool that the device can use. Effect: none.
    pub fn new(device: D, shape: &Shape, seed: u64) -> Result<Self, String> {
        let caps = device.caps();
        let wire = packet_pool(&device, WIRE_SLOTS)?;
        Ok(Self {
            device: FaultyPackets::new(device, PacketFaults::default(), seed),
            wire,
            rx: Bounded::with_capacity(caps.batch_max.max(1)),
            tx: Bounded::with_capacity(caps.batch_max.max(1)),
            peers: Vec::with_capacity(shape.conns_max),
            addrs: Vec::with_capacity(shape.conns_max),
            conns_max: shape.conns_max,
            queue_bytes: shape.queue_bytes,
            mtu_bytes: caps.payload_bytes_max.min(PACKET_BYTES_MAX),
            dead_after: Nanos(TICK.0.saturating_mul(shape.dead_after_polls)),
            now: Time::ZERO,
            next_turn: 0,
            captured: Vec::new(),
            turned_away: 0,
        })
    }

    /// Where peers send to.
    #[must_use]
    pub fn local_addr(&self) -> PeerAddr {
        self.device.local_addr()
    }

    /// Opens one end of a session.
    ///
    /// # Errors
    /// A sentence: all connections were used, or the values are out of a session's range. Effect: none.
    pub fn add(&mut self, side: &Side) -> Result<ConnId, String> {
        if self.peers.len() >= self.conns_max {
            return Err(format!("{} connections were used up", self.conns_max));
        }
        let (mine, other) = if side.first { (1, 2) } else { (2, 1) };
        let token = |of: u64| Token::new(side.session << 8 | side.epoch << 2 | of);
        let mut config = SessionConfig::new(
            SessionId::new(side.session),
            GuardEpoch::new(side.epoch),
            token(mine),
            token(other),
        );
        config.mtu_bytes = self.mtu_bytes;
        config.window_packets = WINDOW_PACKETS;
        config.send_bytes_max = self.queue_bytes;
        config.receive_bytes_max = self
            .queue_bytes
            .max(CREDIT_INITIAL_PACKETS as usize * (self.mtu_bytes - PACKET_OVERHEAD_BYTES));
        config.message_bytes_max = self.message_bytes_max() + MESSAGE_HEADER_BYTES;
        config.rto_max = Nanos::from_ms(20);
        config.dead_after = self.dead_after;
        config.ping_interval = Nanos(self.dead_after.0 / 8);
        let session = Session::new(config, self.now).map_err(|error| error.to_string())?;
        let conn = ConnId::new(u32::try_from(self.peers.len()).unwrap_or(u32::MAX));
        self.peers.push(Some(Peer {
            session,
            id: config.session,
            epoch: config.epoch,
            over: false,
            broke_rules: false,
        }));
        self.addrs.push(side.peer);
        Ok(conn)
    }

    const fn message_bytes_max(&self) -> usize {
        self.queue_bytes / 2 - MESSAGE_HEADER_BYTES
    }

    /// The connection that a datagram claims to be for: the one of its epoch, else the newest of its session, which turns it away.
    fn claimed(&self, datagram: &[u8]) -> Option<usize> {
        let claim = PacketPrefix::peek(datagram)?;
        let of_session = |peer: &Option<Peer>| {
            peer.as_ref()
                .is_some_and(|peer| peer.id == claim.session && !peer.over)
        };
        let exact = |peer: &Option<Peer>| {
            peer.as_ref()
                .is_some_and(|peer| peer.id == claim.session && peer.epoch == claim.epoch)
        };
        self.peers
            .iter()
            .rposition(exact)
            .or_else(|| self.peers.iter().rposition(of_session))
    }

    fn receive(&mut self, pool: &mut BufPool, events: &mut FabricEvents) {
        for _ in 0..BURSTS_MAX {
            if self.rx.is_empty() && self.device.rx_burst(&mut self.wire, &mut self.rx) == 0 {
                return;
            }
            while let Some(packet) = self.rx.pop() {
                self.take(&packet, pool, events);
                self.wire.free(packet.buf);
            }
        }
    }

    fn take(&mut self, packet: &Packet, pool: &mut BufPool, events: &mut FabricEvents) {
        let datagram = self.wire.bytes(&packet.buf);
        let index = self.claimed(datagram);
        let Some((index, peer)) =
            index.and_then(|index| Some((index, self.peers[index].as_mut()?)))
        else {
            self.turned_away += 1;
            return;
        };
        let Peer {
            session,
            broke_rules,
            ..
        } = peer;
        let taken: Result<Received, Rejected> =
            session.receive(self.now, datagram, &mut |message| {
                hand_over(index, message, pool, events, broke_rules)
            });
        self.turned_away += u64::from(taken.is_err());
    }

    /// Offers what was refused, acts on the time, and tells ends. Connections take turns at being first.
    fn tend(&mut self, pool: &mut BufPool, events: &mut FabricEvents) {
        let count = self.peers.len();
        for turn in 0..count {
            let index = (self.next_turn + turn) % count;
            let slot = &mut self.peers[index];
            let Some(peer) = slot.as_mut() else { continue };
            let broke_rules = &mut peer.broke_rules;
            peer.session.resume(self.now, &mut |message| {
                hand_over(index, message, pool, events, broke_rules)
            });
            if peer.session.next_deadline() <= self.now {
                peer.session.on_deadline(self.now);
            }
            let reason = match peer.session.state() {
                SessionState::Open if peer.broke_rules => {
                    peer.session.close(self.now);
                    CloseReason::Protocol
                }
                SessionState::Open => continue,
                SessionState::Closed => CloseReason::PeerGone,
                SessionState::Dead => CloseReason::Broken,
                SessionState::Broken => CloseReason::Protocol,
            };
            if !peer.over {
                let conn = conn_of(index);
                peer.over = events.push(FabricEvent::Closed { conn, reason }).is_ok();
            } else if peer.session.next_deadline() == Time::FAR {
                *slot = None;
            }
        }
        self.next_turn = (self.next_turn + 1) % count.max(1);
    }

    fn transmit(&mut self) {
        let Self {
            peers,
            addrs,
            device,
            wire,
            tx,
            captured,
            now,
            ..
        } = self;
        let count = peers.len();
        for turn in 0..count {
            let index = (self.next_turn + turn) % count;
            let Some(peer) = peers[index].as_mut() else {
                continue;
            };
            for _ in 0..TURN_DATAGRAMS_MAX {
                if tx.is_full() && device.tx_burst(wire, tx) == 0
                    || !peer.session.wants_transmit(*now)
                {
                    break;
                }
                let Some(mut buf) = wire.alloc() else { break };
                let len = peer.session.poll_transmit(*now, wire.slot_mut(&mut buf));
                let Some(len) = len else {
                    wire.free(buf);
                    break;
                };
                wire.set_len(&mut buf, len);
                if len > PACKET_OVERHEAD_BYTES {
                    captured.clear();
                    captured.extend_from_slice(wire.bytes(&buf));
                }
                let peer = addrs[index];
                if let Err(packet) = tx.push(Packet { buf, peer }) {
                    wire.free(packet.buf);
                }
            }
        }
        device.tx_burst(wire, tx);
    }
}

/// Gives one message of a session to the caller of `poll`, if there is room for it.
fn hand_over(
    index: usize,
    message: &[u8],
    pool: &mut BufPool,
    events: &mut FabricEvents,
    broke_rules: &mut bool,
) -> Take {
    let bytes = &message[MESSAGE_HEADER_BYTES..];
    if bytes.len() > pool.slot_bytes() {
        *broke_rules = true;
        return Take::Taken;
    }
    if events.is_full() {
        return Take::Later;
    }
    let Some(buf) = pool.alloc_from(bytes) else {
        return Take::Later;
    };
    let conn = conn_of(index);
    if let Err(FabricEvent::Received { buf, .. }) = events.push(FabricEvent::Received { conn, buf })
    {
        pool.free(buf);
    }
    Take::Taken
}

fn conn_of(index: usize) -> ConnId {
    ConnId::new(u32::try_from(index).expect("connections are few"))
}

/// A pool as `device` wants one.
///
/// # Errors
/// A sentence, if no pool is made with such sizes. Effect: none.
pub fn packet_pool(device: &impl PacketDevice, slots: u32) -> Result<BufPool, String> {
    let caps = device.caps();
    let number =
        |bytes: usize| u32::try_from(bytes).map_err(|_| format!("{bytes} bytes are too many"));
    let options = PoolOptions {
        slots,
        // One packet too long must fit, so that it is the device that refuses it.
        slot_bytes: number(caps.payload_bytes_max + 1)?,
        layout: PoolLayout::Coloured,
    };
    BufPool::with_headroom(options, number(caps.headroom_bytes)?).map_err(|error| error.to_string())
}

impl<D: PacketDevice> Fabric for Sessions<D> {
    fn caps(&self) -> FabricCaps {
        FabricCaps {
            backend: self.device.caps().backend,
            message_bytes_max: self.message_bytes_max(),
            one_sided: false,
        }
    }

    fn poll(&mut self, pool: &mut BufPool, events: &mut FabricEvents) -> usize {
        self.now = self.now.after(TICK);
        let before = events.len();
        self.tend(pool, events);
        self.receive(pool, events);
        self.transmit();
        events.len() - before
    }

    fn send(&mut self, pool: &mut BufPool, conn: ConnId, buf: Buf) -> Result<(), SendError> {
        let Some(Some(peer)) = self.peers.get_mut(conn.index()) else {
            return Err(SendError::Closed(buf));
        };
        let mut header = [0; MESSAGE_HEADER_BYTES];
        let Ok(len) = u32::try_from(buf.len()) else {
            return Err(SendError::TooLarge(buf));
        };
        header[0] = KIND;
        header[4..].copy_from_slice(&len.to_le_bytes());
        match peer.session.push(&[&header, pool.bytes(&buf)]) {
            Ok(()) => {
                pool.free(buf);
                Ok(())
            }
            Err(PushError::Full { .. }) => Err(SendError::Full(buf)),
            Err(PushError::Ended) => Err(SendError::Closed(buf)),
            Err(_) => Err(SendError::TooLarge(buf)),
        }
    }

    fn flush(&mut self) {
        self.transmit();
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(Some(peer)) = self.peers.get_mut(conn.index()) {
            peer.over = true;
            peer.session.close(self.now);
        }
    }

    fn arm(&mut self) -> bool {
        let now = self.now;
        let idle = |peer: &Peer| {
            peer.over
                || peer.session.state() == SessionState::Open
                    && peer.session.unacked_bytes() == 0
                    && !peer.session.wants_transmit(now)
                    && !peer.session.has_held()
        };
        self.rx.is_empty()
            && self.tx.is_empty()
            && self.peers.iter().flatten().all(idle)
            && self.device.arm()
    }

    fn disarm(&mut self) {}

    fn wake_fd(&self) -> Option<RawFd> {
        self.device.wake_fd()
    }
}

impl<D: PacketDevice + Send> Layer for Sessions<D> {
    fn family(&self) -> Family {
        Family::Datagrams
    }

    fn own_in_use(&self) -> usize {
        self.wire.in_use()
    }

    fn disturb(&mut self, disturbance: Disturbance) {
        let mut faults = PacketFaults {
            delay_polls_max: DELAY_POLLS_MAX,
            ..PacketFaults::default()
        };
        let all = disturbance == Disturbance::All;
        if all || disturbance == Disturbance::Loss {
            faults.drop_ppm = 20_000;
        }
        if all || disturbance == Disturbance::Duplication {
            faults.duplicate_ppm = 50_000;
        }
        if all || disturbance == Disturbance::Reordering {
            faults.reorder_ppm = 50_000;
            faults.delay_ppm = 10_000;
        }
        if all {
            faults.corrupt_ppm = 10_000;
        }
        if disturbance == Disturbance::Cut {
            faults.drop_ppm = 1_000_000;
        }
        self.device.set_faults(faults);
    }

    fn disturbed(&self) -> u64 {
        let counts = self.device.counts();
        counts.dropped + counts.duplicated + counts.reordered + counts.delayed + counts.corrupted
    }

    fn captured(&self) -> &[u8] {
        &self.captured
    }

    fn inject(&mut self, _pool: &mut BufPool, conn: ConnId, bytes: &[u8]) -> bool {
        let Some(peer) = self.addrs.get(conn.index()).copied() else {
            return false;
        };
        let Some(buf) = self.wire.alloc_from(bytes) else {
            return false;
        };
        if let Err(packet) = self.tx.push(Packet { buf, peer }) {
            self.wire.free(packet.buf);
            return false;
        }
        self.device.tx_burst(&mut self.wire, &mut self.tx);
        true
    }
}
