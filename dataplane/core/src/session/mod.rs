//! The session layer: reliable FIFO messages over datagrams.
//!
//! A [`Session`] is one end of one connection. Whole messages go in by [`Session::push`]; [`Session::poll_transmit`]
//! yields datagrams; [`Session::receive`] takes the peer's and hands out its messages, each once, in order, unchanged.
//! The network may lose, repeat, reorder, delay and damage datagrams; strangers may send any bytes they like. The peer
//! itself is trusted to hold the token, not to be correct: whatever it sends, memory stays as it was made.
//!
//! ```text
//!                    close, or the peer's Close
//!          +-------> Closed
//!   Open --+-------> Dead      no sign of life while one was awaited
//!          +-------> Broken    the peer's stream is not a stream of messages
//! ```
//! A session that left `Open` neither delivers nor takes messages. What was pushed and not acked has an unknown effect.
//! There is no way back: a new grant with a new epoch makes a new session.

mod assembly;
mod config;
mod congestion;
mod loss;
mod receive;
mod rtt;
mod send;
mod stats;
pub mod tokens;

#[cfg(test)]
mod tests;

pub use assembly::Take;
pub use config::{
    CREDIT_INITIAL_PACKETS, ConfigError, MTU_BYTES_MIN, SessionConfig, WINDOW_PACKETS_MAX,
};
pub use send::PushError;
pub use stats::{Rejected, SessionStats};

use core::marker::PhantomData;

use ionian_types::{Knobs, Mutant, Nanos, Shipped, Time};
use ionian_wire::packet::{
    PACKET_SACK_BYTES, PREFIX_BYTES, PacketHeader, PacketKind, PacketPrefix, PacketView, Sack,
};
use receive::{Arrival, Receiver};
use send::Sender;

/// How often the end of a session is announced; the announcement is not acked.
const CLOSE_COPIES: u32 = 3;

/// Whether a session works, and if not why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionState {
    /// It works.
    Open,
    /// One of the two ends has closed it.
    Closed,
    /// The peer gave no sign of life for too long, or for eight times as long never acked the first packet missing.
    Dead,
    /// The peer sent what no correct peer sends.
    Broken,
}

/// What a datagram or a resumption brought about.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Received {
    /// How many messages the application took.
    pub messages: u32,
    /// Whether acks made room: a push that found none may be tried again.
    pub freed: bool,
    /// Whether messages wait because the application refused one; see [`Session::resume`].
    pub held: bool,
}

/// One end of one connection. All memory is taken when it is made.
///
/// ```
/// use ionian_core::session::{Session, SessionConfig, Take};
/// use ionian_types::{GuardEpoch, SessionId, Time, Token};
///
/// let end = |send, receive| {
///     let (session, epoch) = (SessionId::new(7), GuardEpoch::new(1));
///     Session::new(SessionConfig::new(session, epoch, send, receive), Time::ZERO)
/// };
/// let mut here = end(Token::new(1), Token::new(2))?;
/// let mut there = end(Token::new(2), Token::new(1))?;
///
/// // A message begins with its kind and the length of what follows the eight bytes of its header.
/// here.push(&[&[1, 0, 0, 0, 2, 0, 0, 0], b"hi"])?;
/// let mut datagram = [0; 1_472];
/// let mut messages = Vec::new();
/// while let Some(len) = here.poll_transmit(Time::ZERO, &mut datagram) {
///     there.receive(Time::ZERO, &datagram[..len], &mut |message: &[u8]| {
///         messages.push(message[8..].to_vec());
///         Take::Taken
///     })?;
/// }
/// assert_eq!(messages, [b"hi"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[cfg_attr(test, derive(Clone, PartialEq))]
pub struct Session<K: Knobs = Shipped> {
    state: SessionState,
    prefix_send: [u8; PREFIX_BYTES],
    prefix_receive: [u8; PREFIX_BYTES],
    mtu_bytes: usize,
    payload_bytes_max: usize,
    ping_interval: Nanos,
    heard_at: Time,
    sender: Sender,
    receiver: Receiver,
    closes_left: u32,
    close_at: Time,
    stats: SessionStats,
    knobs: PhantomData<K>,
}

impl Session {
    /// Makes one end of a session, with all the memory that it will ever use.
    ///
    /// # Errors
    /// [`ConfigError`] for values out of range; effect none.
    pub fn new(config: SessionConfig, now: Time) -> Result<Self, ConfigError> {
        Self::with_knobs(config, now)
    }
}

impl<K: Knobs> Session<K> {
    /// [`Session::new`] for any knobs.
    ///
    /// # Errors
    /// [`ConfigError`] for values out of range; effect none.
    pub fn with_knobs(config: SessionConfig, now: Time) -> Result<Self, ConfigError> {
        config.check()?;
        let prefix = |token| {
            let prefix = PacketPrefix {
                session: config.session,
                epoch: config.epoch,
                token,
            };
            prefix.to_bytes()
        };
        Ok(Self {
            state: SessionState::Open,
            prefix_send: prefix(config.token_send),
            prefix_receive: prefix(config.token_receive),
            mtu_bytes: config.mtu_bytes,
            payload_bytes_max: config.payload_bytes_max(),
            ping_interval: config.ping_interval,
            heard_at: now,
            sender: Sender::new(&config, now),
            receiver: Receiver::new(&config),
            closes_left: 0,
            close_at: Time::FAR,
            stats: SessionStats::default(),
            knobs: PhantomData,
        })
    }

    /// Takes over one whole message, given in parts; the first part holds at least its eight-byte header. The bytes are
    /// copied once. Small messages share a packet, large ones are spread over several.
    ///
    /// # Errors
    /// [`PushError`]; effect none.
    #[inline]
    pub fn push(&mut self, parts: &[&[u8]]) -> Result<(), PushError> {
        if self.state != SessionState::Open {
            return Err(PushError::Ended);
        }
        self.sender.push(parts)?;
        self.stats.messages_sent += 1;
        Ok(())
    }

    /// Writes the next datagram into `out` and returns its length in bytes; `None` when there is nothing to send now.
    /// Retransmissions come first, then new data as far as window and credit allow, then an ack if one is due.
    ///
    /// A datagram written counts as sent; one that the network did not take is made up for like a lost one.
    ///
    /// # Panics
    /// If `out` is shorter than the configured datagram.
    #[inline]
    pub fn poll_transmit(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        assert!(
            out.len() >= self.mtu_bytes,
            "the output holds the largest datagram"
        );
        if self.state != SessionState::Open {
            return self.transmit_close(now, out);
        }
        let ask = self.sender.watch.ask_due;
        if !self.wants_transmit(now) {
            return None;
        }
        let sack = self.receiver.sack();
        let sack_bytes = if sack.is_some() { PACKET_SACK_BYTES } else { 0 };
        let payload_bytes_max = self.payload_bytes_max - sack_bytes;
        let picked = self.sender.pick(now, payload_bytes_max, &mut self.stats);
        let Some(picked) = picked else {
            if !ask && !self.receiver.ack_due(now) {
                return None;
            }
            self.sender.watch.ask_due = false;
            self.receiver.on_ack_sent();
            self.stats.acks_sent += 1;
            return Some(self.emit(PacketKind::Ack, ask, 0, sack, out));
        };
        // A packet cut before the bitmap was needed may have no room for it. The ack then goes by itself.
        let carried = sack.filter(|_| picked.payload_bytes <= payload_bytes_max);
        if carried == sack {
            self.receiver.on_ack_sent();
        }
        Some(self.emit(PacketKind::Data, picked.ask, picked.seq, carried, out))
    }

    /// Takes in one datagram and hands its messages to `deliver`, together with those that waited for it.
    ///
    /// When `deliver` answers [`Take::Later`], the message and all after it wait, and the peer's credit shrinks; they
    /// are offered again by the next `receive` that can, or by [`Session::resume`].
    ///
    /// # Errors
    /// [`Rejected`] for a datagram that is not a sound packet of this session; nothing changes then but its count.
    #[inline]
    pub fn receive(
        &mut self,
        now: Time,
        datagram: &[u8],
        deliver: &mut impl FnMut(&[u8]) -> Take,
    ) -> Result<Received, Rejected> {
        let view = match self.check(datagram) {
            Ok(view) => view,
            Err(reason) => {
                self.stats.rejected[reason as usize] += 1;
                return Err(reason);
            }
        };
        let header = *view.header();
        self.stats.packets_received += 1;
        self.stats.bytes_received += datagram.len() as u64;
        self.heard_at = now;
        let freed = self
            .sender
            .on_ack(now, header.ack, header.credit, header.sack.as_ref());
        self.sender.on_heard(now);
        if header.ask {
            self.receiver.ack_at_once();
        }
        let mut received = Received {
            freed,
            ..Received::default()
        };
        match header.kind {
            PacketKind::Data => self.on_data(now, &view, deliver, &mut received),
            PacketKind::Ack | PacketKind::Open => {}
            PacketKind::Close => self.end(SessionState::Closed),
        }
        received.held = self.has_held();
        Ok(received)
    }

    /// Offers the messages again that the application would not take before.
    pub fn resume(&mut self, now: Time, deliver: &mut impl FnMut(&[u8]) -> Take) -> Received {
        let mut received = Received::default();
        if self.has_held() {
            let mut taken = 0;
            let result = self
                .receiver
                .resume(now, &mut counted(deliver, &mut taken, &mut self.stats));
            received.messages = taken;
            if result.is_err() {
                self.break_up(now);
            }
            self.stats.messages_received += u64::from(received.messages);
        }
        received.held = self.has_held();
        received
    }

    /// When [`Session::on_deadline`] wants to be called, [`Time::FAR`] for not at all.
    #[must_use]
    #[inline]
    pub fn next_deadline(&self) -> Time {
        match self.state {
            SessionState::Open => self
                .sender
                .watch
                .timer_at
                .min(self.receiver.ack_at())
                .min(self.ping_at()),
            _ => self.close_at,
        }
    }

    /// Whether messages wait to be sent for the first time or again, as far as the window is known to allow.
    #[must_use]
    #[inline]
    pub fn has_data(&self) -> bool {
        self.state == SessionState::Open && self.sender.has_data()
    }

    /// Whether [`Session::poll_transmit`] is worth calling: `false` means that it has nothing.
    #[must_use]
    #[inline]
    pub fn wants_transmit(&self, now: Time) -> bool {
        self.state != SessionState::Open
            || self.sender.has_data()
            || self.sender.watch.ask_due
            || self.receiver.ack_due(now)
    }

    /// Acts on the passing of time. [`Session::poll_transmit`] then has what is to be sent.
    #[inline]
    pub fn on_deadline(&mut self, now: Time) {
        if self.state != SessionState::Open {
            return;
        }
        if self.receiver.ack_at() <= now {
            self.receiver.ack_falls_due();
        }
        if self.sender.watch.timer_at <= now {
            if self.sender.on_timer(now, &mut self.stats) {
                self.end(SessionState::Dead);
            }
        } else if self.ping_at() <= now {
            self.sender.ask(now);
        }
    }

    /// Ends the session at once. The peer is told, best effort; what it has not acked may never reach it.
    pub fn close(&mut self, now: Time) {
        if self.state == SessionState::Open {
            self.end(SessionState::Closed);
            self.announce_end(now);
        }
    }

    /// Whether the session works.
    #[must_use]
    #[inline]
    pub const fn state(&self) -> SessionState {
        self.state
    }

    /// When the last packet of the peer came, if one has.
    #[must_use]
    pub fn heard_at(&self) -> Option<Time> {
        (self.stats.packets_received > 0).then_some(self.heard_at)
    }

    /// Asks the peer for a sign of life: the next [`Session::poll_transmit`] sends the question.
    pub fn ping(&mut self, now: Time) {
        if self.state == SessionState::Open {
            self.sender.ask(now);
        }
    }

    /// The bytes of messages that a push may still add.
    #[must_use]
    #[inline]
    pub const fn room_bytes(&self) -> usize {
        self.sender.room_bytes()
    }

    /// The bytes of messages pushed and not acked. Zero means that the peer's session holds or has delivered them all.
    #[must_use]
    #[inline]
    pub const fn unacked_bytes(&self) -> usize {
        self.sender.unacked_bytes()
    }

    /// Whether messages wait because the application refused one.
    #[must_use]
    #[inline]
    pub fn has_held(&self) -> bool {
        self.state == SessionState::Open && self.receiver.has_held()
    }

    /// The bytes of memory that the session's buffers take. Fixed when it is made.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.sender.memory_bytes() + self.receiver.memory_bytes()
    }

    /// Whether an answer of the peer is overdue: it may not have this session, or no longer.
    #[must_use]
    #[inline]
    pub const fn is_overdue(&self) -> bool {
        matches!(self.state, SessionState::Open) && self.sender.watch.attempts > 0
    }

    /// What the session has counted so far.
    #[must_use]
    pub fn stats(&self) -> SessionStats {
        SessionStats {
            srtt: self.sender.rtt.srtt(),
            rto: self.sender.rtt.rto(),
            window_packets: self.sender.congestion.window(),
            ..self.stats
        }
    }

    /// Everything that must hold before a datagram may change anything, cheapest first.
    #[inline]
    fn check<'a>(&self, datagram: &'a [u8]) -> Result<PacketView<'a>, Rejected> {
        if !self.is_own(datagram) {
            return Err(self.why_foreign(datagram));
        }
        if self.state != SessionState::Open {
            return Err(Rejected::Ended);
        }
        let view = PacketView::new_checked(datagram).map_err(Rejected::from_wire)?;
        let header = view.header();
        if !self.sender.admits_ack(header.ack, header.sack.as_ref()) {
            return Err(Rejected::AckAhead);
        }
        if header.kind == PacketKind::Data {
            self.receiver.admit(header.seq, view.payload().len())?;
        }
        Ok(view)
    }

    /// Whether the datagram begins with session, epoch and token of the other end.
    #[inline]
    fn is_own(&self, datagram: &[u8]) -> bool {
        if K::mutant(Mutant::SessionTokenInPart) {
            return datagram.get(..20) == self.prefix_receive.get(..20);
        }
        datagram.first_chunk() == Some(&self.prefix_receive)
    }

    #[cold]
    fn why_foreign(&self, datagram: &[u8]) -> Rejected {
        match PacketPrefix::peek(datagram) {
            None => Rejected::Short,
            Some(_) if datagram[..8] != self.prefix_receive[..8] => Rejected::Session,
            Some(_) if datagram[8..16] != self.prefix_receive[8..16] => Rejected::Epoch,
            Some(_) => Rejected::Token,
        }
    }

    #[inline]
    fn on_data(
        &mut self,
        now: Time,
        view: &PacketView<'_>,
        deliver: &mut impl FnMut(&[u8]) -> Take,
        received: &mut Received,
    ) {
        let arrival = self.receiver.on_data(
            now,
            view.header().seq,
            view.payload(),
            &mut counted(deliver, &mut received.messages, &mut self.stats),
        );
        self.stats.messages_received += u64::from(received.messages);
        match arrival {
            Ok(Arrival::InOrder) => {}
            Ok(Arrival::Ahead) => self.stats.out_of_order += 1,
            Ok(Arrival::Duplicate) => self.stats.duplicates += 1,
            Err(receive::Broken) => self.break_up(now),
        }
    }

    /// When the peer is to be asked for a sign of life. While an answer is awaited anyway, not at all.
    #[inline]
    fn ping_at(&self) -> Time {
        if self.ping_interval.0 == 0 || self.sender.watch.timer_at != Time::FAR {
            Time::FAR
        } else {
            self.heard_at.after(self.ping_interval)
        }
    }

    #[cold]
    fn break_up(&mut self, now: Time) {
        self.end(SessionState::Broken);
        self.announce_end(now);
    }

    const fn end(&mut self, state: SessionState) {
        self.state = state;
        self.closes_left = 0;
        self.close_at = Time::FAR;
    }

    const fn announce_end(&mut self, now: Time) {
        self.closes_left = CLOSE_COPIES;
        self.close_at = now;
    }

    #[cold]
    fn transmit_close(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        if self.closes_left == 0 || now < self.close_at {
            return None;
        }
        self.closes_left -= 1;
        self.close_at = if self.closes_left == 0 {
            Time::FAR
        } else {
            now.after(self.sender.rtt.rto())
        };
        Some(self.emit(PacketKind::Close, false, 0, None, out))
    }

    #[inline]
    fn emit(
        &mut self,
        kind: PacketKind,
        ask: bool,
        seq: u64,
        sack: Option<Sack>,
        out: &mut [u8],
    ) -> usize {
        let header = PacketHeader {
            kind,
            ask,
            seq,
            ack: self.receiver.arrived(),
            credit: self.receiver.credit_limit(),
            sack,
        };
        let payload = match kind {
            PacketKind::Data => self.sender.payload(seq),
            PacketKind::Ack | PacketKind::Close | PacketKind::Open => [&[][..]; 2],
        };
        let bytes = header
            .emit(&self.prefix_send, payload, out)
            .expect("a packet is cut to fit the datagram, and the output holds one");
        self.stats.packets_sent += 1;
        self.stats.bytes_sent += bytes as u64;
        bytes
    }
}

/// Counts what the application takes and refuses.
#[inline]
fn counted(
    deliver: &mut impl FnMut(&[u8]) -> Take,
    taken: &mut u32,
    stats: &mut SessionStats,
) -> impl FnMut(&[u8]) -> Take {
    move |message| {
        let take = deliver(message);
        match take {
            Take::Taken => *taken += 1,
            Take::Later => stats.refusals += 1,
        }
        take
    }
}

/// Shows what a person needs to see, and no token and no payload.
impl<K: Knobs> core::fmt::Debug for Session<K> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Session")
            .field("state", &self.state)
            .field("acked", &(self.sender.una - 1))
            .field("sent", &(self.sender.next - 1))
            .field("credit", &self.sender.credit)
            .field("arrived", &self.receiver.arrived())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
