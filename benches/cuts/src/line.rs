//! A line: one end of a connection between two machines, by whichever transport. What it carries are the wire's frames, as they
//! stand in an outbox.

use std::io;
use std::net::UdpSocket;

use ionian_core::outbox::REPLY_BYTES_MAX;
use ionian_core::session::{Session, SessionConfig, SessionState, Take};
use ionian_shm::{CAPACITY_BYTES_MIN, Endpoint, duplex};
use ionian_types::{ConnId, GuardEpoch, SessionId, Time, Token};
use ionian_wire::packet::PACKET_BYTES_MAX;

/// What a machine may send at once on a line that takes everything.
const ROOM: usize = 4 << 20;

/// One end.
#[derive(Debug)]
pub(crate) enum Line {
    /// Nobody is at the other end yet.
    Loose,
    /// The other end is a machine of the same hall, which takes a frame from the sender's outbox.
    Direct { post: usize, conn: ConnId },
    /// A ring each way.
    Ring(Box<Endpoint>),
    /// A session over a socket of its own.
    Datagrams(Box<Datagrams>),
    /// The controller, or the client that trims: whoever runs the benchmark.
    Desk,
}

impl Line {
    /// Bytes that a machine may send now, as its outbox wants to hear it: with what it keeps free for answers.
    pub(crate) fn room(&mut self) -> usize {
        match self {
            Self::Loose => 0,
            Self::Direct { .. } | Self::Desk => ROOM,
            // Half of it: the end of a ring may be left out.
            Self::Ring(ring) => ring.tx.room() / 2 + REPLY_BYTES_MAX,
            Self::Datagrams(line) => line.session.room_bytes().min(ROOM),
        }
    }

    /// Puts a frame on its way, if the other end is not in the same hall. `false` if it is lost.
    #[inline]
    pub(crate) fn send(&mut self, frame: &[u8]) -> bool {
        match self {
            Self::Ring(ring) => ring.tx.push(frame),
            Self::Datagrams(line) => line.session.push(&[frame]).is_ok(),
            Self::Loose | Self::Direct { .. } | Self::Desk => false,
        }
    }

    /// Lets go what was sent.
    #[inline]
    pub(crate) fn publish(&mut self, now: Time) -> io::Result<()> {
        match self {
            Self::Ring(ring) => ring.tx.publish_awake(),
            Self::Datagrams(line) => line.transmit(now)?,
            Self::Loose | Self::Direct { .. } | Self::Desk => {}
        }
        Ok(())
    }

    /// Hands over the frames that have come; their number.
    #[inline]
    pub(crate) fn receive(&mut self, now: Time, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
        let mut count = 0;
        match self {
            Self::Ring(ring) => {
                while let Some(frame) = ring.rx.peek() {
                    each(frame);
                    ring.rx.release();
                    count += 1;
                }
            }
            Self::Datagrams(line) => count = line.receive(now, &mut each)?,
            Self::Loose | Self::Direct { .. } | Self::Desk => {}
        }
        Ok(count)
    }
}

/// Both ends of a ring each way, for frames of so many bytes.
pub(crate) fn rings(frame_bytes: usize) -> (Line, Line) {
    let capacity = (8 * frame_bytes).next_power_of_two();
    let (a, b) = duplex(capacity.max(CAPACITY_BYTES_MIN));
    (Line::Ring(Box::new(a)), Line::Ring(Box::new(b)))
}

/// One end of a session over UDP on loopback.
#[derive(Debug)]
pub(crate) struct Datagrams {
    session: Session,
    socket: UdpSocket,
    buffer: Box<[u8]>,
    /// When the session's timers are looked at next.
    due: Time,
}

/// Both ends of a session over loopback.
pub(crate) fn datagrams(number: u64, now: Time) -> io::Result<(Line, Line)> {
    let (a, b) = sockets()?;
    let end = |socket, send: u64, receive: u64| {
        let tokens = (Token::new(send), Token::new(receive));
        let (session, epoch) = (SessionId::new(number), GuardEpoch::new(1));
        let config = SessionConfig {
            mtu_bytes: PACKET_BYTES_MAX,
            receive_bytes_max: 4 << 20,
            ..SessionConfig::new(session, epoch, tokens.0, tokens.1)
        };
        let session = Session::new(config, now).map_err(io::Error::other)?;
        Ok::<_, io::Error>(Line::Datagrams(Box::new(Datagrams {
            session,
            socket,
            buffer: vec![0; PACKET_BYTES_MAX].into_boxed_slice(),
            due: now,
        })))
    };
    Ok((end(a, 1, 2)?, end(b, 2, 1)?))
}

/// Two sockets on loopback that know each other.
pub(crate) fn sockets() -> io::Result<(UdpSocket, UdpSocket)> {
    let (a, b) = (
        UdpSocket::bind("127.0.0.1:0")?,
        UdpSocket::bind("127.0.0.1:0")?,
    );
    a.connect(b.local_addr()?)?;
    b.connect(a.local_addr()?)?;
    for socket in [&a, &b] {
        socket.set_nonblocking(true)?;
    }
    Ok((a, b))
}

/// Whether a socket has nothing for us, or no room, now; anything else is an error.
pub(crate) fn is_nothing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, WouldBlock};
    // Refused: the other end was closed first, at the end of a run.
    matches!(error.kind(), WouldBlock | Interrupted | ConnectionRefused)
}

impl Datagrams {
    fn transmit(&mut self, now: Time) -> io::Result<()> {
        if now >= self.due {
            self.session.on_deadline(now);
        }
        while self.session.wants_transmit(now) {
            let Some(len) = self.session.poll_transmit(now, &mut self.buffer) else {
                break;
            };
            // A datagram that the system does not take is one that the network lost.
            if let Err(error) = self.socket.send(&self.buffer[..len])
                && !is_nothing(&error)
            {
                return Err(error);
            }
        }
        self.due = self.session.next_deadline();
        Ok(())
    }

    fn receive(&mut self, now: Time, each: &mut impl FnMut(&[u8])) -> io::Result<u64> {
        let mut count = 0;
        loop {
            let len = match self.socket.recv(&mut self.buffer) {
                Ok(len) => len,
                Err(error) if is_nothing(&error) => break,
                Err(error) => return Err(error),
            };
            let mut deliver = |frame: &[u8]| {
                each(frame);
                count += 1;
                Take::Taken
            };
            // What is not of this session is counted there.
            let _ = self.session.receive(now, &self.buffer[..len], &mut deliver);
        }
        if self.session.state() != SessionState::Open {
            return Err(io::Error::other("a session between two levels has ended"));
        }
        if count > 0 || now >= self.due {
            self.transmit(now)?;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ionian_wire::frame::{StatusRequest, encode};

    /// The same frames come out of every transport, in order.
    #[test]
    fn lines_carry_frames() {
        let now = |ms: u64| Time::from_ns(ms * 1_000_000);
        for (mut a, mut b) in [rings(4096), datagrams(7, now(0)).unwrap()] {
            let mut got = Vec::new();
            let began = std::time::Instant::now();
            for request in 0..100u64 {
                let mut frame = [0; 64];
                let len = encode(&mut frame, &StatusRequest { request }, &[]).unwrap();
                assert!(a.room() > REPLY_BYTES_MAX);
                assert!(a.send(&frame[..len]));
                a.publish(now(request)).unwrap();
                while got.len() as u64 <= request {
                    assert!(began.elapsed().as_secs() < 30, "frame {request} is lost");
                    let at = now(began.elapsed().as_millis() as u64);
                    b.receive(at, |frame| got.push(frame.to_vec())).unwrap();
                    a.receive(at, |_| panic!("nobody sends back")).unwrap();
                }
                assert_eq!(got.last().map(|it| &it[..]), Some(&frame[..len]));
            }
        }
    }
}
