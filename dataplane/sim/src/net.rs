//! Connections: two ends, a queue of messages in each direction, and for the datagram network a pair of shipped sessions.
//!
//! Fault model. Fabric: in order and complete until something is lost; all that follows it is lost too, and the connection
//! breaks: each end learns of it after a while. Datagram: whatever the weather does to packets; the session layer makes
//! messages of them, or gives up.

use std::collections::VecDeque;

use ionian_core::outbox::REPLY_BYTES_MAX;
use ionian_core::session::{Session, SessionConfig};
use ionian_types::{ConnId, GuardEpoch, Nanos, SessionId, Time, Token};

use crate::process::ProcId;

/// Bytes that a session of the datagram network buffers. Answers of this world are far smaller than the largest message, so
/// that a part of it stands for the whole reserve.
const SESSION_BYTES: usize = 1 << 20;
const SESSION_RESERVE: usize = 400 << 10;

/// One end of a link.
#[derive(Clone, Copy, Debug)]
pub struct LinkEnd {
    /// The process.
    pub proc: ProcId,
    /// Its number for the connection.
    pub conn: ConnId,
    /// Whether the process still believes in the connection.
    pub open: bool,
}

/// One direction: messages sent by `ends[dir]` and not taken by the other.
#[derive(Debug, Default)]
pub struct Direction {
    /// When each arrives, and its bytes.
    pub queue: VecDeque<(Time, Vec<u8>)>,
    /// Bytes in the queue.
    pub bytes: usize,
    /// The last arrival: later ones do not overtake it.
    pub last_at: Time,
    /// The receiver has no room for an answer and takes nothing.
    pub stalled: bool,
    /// Something was lost on a reliable connection: so is all that follows, until the connection breaks.
    pub dead: bool,
    /// Nothing arrives before.
    pub held_until: Time,
    /// The sender has given the connection up, and has another one; what it had sent still arrives.
    pub late: bool,
}

/// A connection.
pub struct Link {
    /// The ends; 0 opened it.
    pub ends: [LinkEnd; 2],
    /// The directions, by sender.
    pub dirs: [Direction; 2],
    /// The datagram network's sessions, by end.
    pub sessions: Option<Box<[Session; 2]>>,
    /// When each session's timer was set for.
    pub timers: [Time; 2],
    /// Messages pass; false from the moment that it breaks.
    pub works: bool,
    /// Bytes that a direction takes beyond the reserve for answers.
    pub buffer_bytes: usize,
}

impl core::fmt::Debug for Link {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Link")
            .field("ends", &self.ends)
            .field("works", &self.works)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// A new connection.
    #[must_use]
    pub fn new(ends: [LinkEnd; 2], buffer_bytes: usize) -> Self {
        Self {
            ends,
            dirs: Default::default(),
            sessions: None,
            timers: [Time::FAR; 2],
            works: true,
            buffer_bytes,
        }
    }

    /// Gives it sessions, granted afresh: `number` names the grant; `now` is what the clock of each end shows.
    pub fn with_sessions(&mut self, number: u64, now: [Time; 2]) {
        let config = |side: u64| SessionConfig {
            mtu_bytes: 1400,
            window_packets: 128,
            send_bytes_max: SESSION_BYTES,
            receive_bytes_max: 256 << 10,
            message_bytes_max: SESSION_BYTES,
            rto_min: Nanos::from_us(500),
            rto_max: Nanos::from_ms(20),
            dead_after: Nanos::from_ms(120),
            ping_interval: Nanos::from_ms(30),
            ..SessionConfig::new(
                SessionId::new(number),
                GuardEpoch::new(number),
                Token::new(number * 2 + side),
                Token::new(number * 2 + 1 - side),
            )
        };
        let session = |side: u64| {
            Session::new(config(side), now[side as usize]).expect("the limits are in range")
        };
        self.sessions = Some(Box::new([session(0), session(1)]));
    }

    /// Bytes that the end `side` may send now, the reserve for answers included.
    #[must_use]
    pub fn room(&self, side: usize) -> usize {
        match &self.sessions {
            Some(sessions) => {
                let unacked = sessions[side].unacked_bytes();
                let room = (SESSION_RESERVE + self.buffer_bytes)
                    .saturating_sub(unacked)
                    .min(sessions[side].room_bytes());
                (room + REPLY_BYTES_MAX).saturating_sub(SESSION_RESERVE)
            }
            None => (REPLY_BYTES_MAX + self.buffer_bytes).saturating_sub(self.dirs[side].bytes),
        }
    }

    /// Whether the end `side` can take an answer: the gate for handing it a message.
    #[must_use]
    pub fn takes_answer(&self, side: usize) -> bool {
        self.room(side) >= REPLY_BYTES_MAX
    }
}
