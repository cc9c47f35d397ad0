//! A live session whose peer holds the token and has gone bad.
//!
//! The input is a list of steps: datagrams with any header and payload behind a valid prefix and checksum, the passing of
//! time, pushes, refusals. Holds: no step panics; only whole messages are delivered; memory stays as it was made; every
//! deadline that was acted on is over; a session that has ended stays so and does nothing more.
#![no_main]

use ionian_core::session::{MTU_BYTES_MIN, Received, Session, SessionConfig, SessionState, Take};
use ionian_types::{GuardEpoch, Nanos, SessionId, Time, Token};
use ionian_wire::packet::{PREFIX_BYTES, PacketHeader, PacketKind, PacketPrefix, Sack};
use libfuzzer_sys::fuzz_target;

const SESSION: SessionId = SessionId::new(7);
const EPOCH: GuardEpoch = GuardEpoch::new(5);
const TOKEN_HERE: Token = Token::new(0x1111);
const TOKEN_THERE: Token = Token::new(0x2222);
const MESSAGE_BYTES_MAX: usize = 1_024;
/// The largest header and the largest payload that a step can have, with room.
const DATAGRAM_BYTES_MAX: usize = 512;

fuzz_target!(|data: &[u8]| {
    let mut steps = Steps { rest: data };
    let mut world = World::new();
    while let Some(step) = steps.byte() {
        world.step(step, &mut steps);
        assert_eq!(world.session.memory_bytes(), world.memory_bytes);
    }
});

/// Reads the input; it ends where a step is not complete.
struct Steps<'a> {
    rest: &'a [u8],
}

impl<'a> Steps<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        bytes
    }

    fn small(&mut self) -> u64 {
        u64::from(self.byte().unwrap_or(0))
    }
}

struct World {
    session: Session,
    now: Time,
    memory_bytes: usize,
    refusing: bool,
    prefix: [u8; PREFIX_BYTES],
}

impl World {
    fn new() -> Self {
        let config = SessionConfig {
            mtu_bytes: MTU_BYTES_MIN,
            window_packets: 16,
            send_bytes_max: 4 << 10,
            receive_bytes_max: 4 << 10,
            message_bytes_max: MESSAGE_BYTES_MAX,
            ..SessionConfig::new(SESSION, EPOCH, TOKEN_HERE, TOKEN_THERE)
        };
        let session = Session::new(config, Time::ZERO).expect("a sound configuration");
        let prefix = PacketPrefix {
            session: SESSION,
            epoch: EPOCH,
            token: TOKEN_THERE,
        };
        Self {
            memory_bytes: session.memory_bytes(),
            session,
            now: Time::ZERO,
            refusing: false,
            prefix: prefix.to_bytes(),
        }
    }

    fn step(&mut self, step: u8, steps: &mut Steps<'_>) {
        match step % 8 {
            0 => self.push(steps),
            1 => {
                let us = steps.small();
                self.pass(Nanos::from_us(us * us));
            }
            2 => self.refusing = !self.refusing,
            3 => {
                let (now, refusing) = (self.now, self.refusing);
                let held = self.session.has_held();
                let received = self
                    .session
                    .resume(now, &mut |bytes: &[u8]| take(bytes, refusing));
                self.judge(received);
                assert!(held || received == Received::default());
            }
            4 if step >= 0xf8 => self.session.close(self.now),
            _ => self.datagram(step, steps),
        }
        self.transmit();
    }

    fn push(&mut self, steps: &mut Steps<'_>) {
        let body = steps.small() as usize * 4;
        let mut message = vec![0; 8 + body];
        message[4..8].copy_from_slice(&(body as u32).to_le_bytes());
        let (room, open) = (self.session.room_bytes(), self.is_open());
        let fits = message.len() <= MESSAGE_BYTES_MAX && message.len() <= room;
        assert_eq!(self.session.push(&[&message]).is_ok(), open && fits);
    }

    fn pass(&mut self, span: Nanos) {
        self.now = self.now.after(span);
        if self.session.next_deadline() <= self.now {
            self.session.on_deadline(self.now);
            if self.is_open() {
                assert!(
                    self.session.next_deadline() > self.now,
                    "a deadline stays due"
                );
            }
        }
    }

    /// Sends what any peer could: numbers near those that make sense, and any payload.
    fn datagram(&mut self, step: u8, steps: &mut Steps<'_>) {
        let kind = match step >> 6 {
            0 => PacketKind::Ack,
            3 if step == 0xff => PacketKind::Close,
            _ => PacketKind::Data,
        };
        let is_data = kind == PacketKind::Data;
        let header = PacketHeader {
            kind,
            ask: step & 0x20 != 0,
            seq: if is_data { steps.small() } else { 0 },
            ack: steps.small(),
            credit: steps.small(),
            sack: (step & 0x10 != 0).then(|| {
                let low = steps.small() | steps.small() << 8;
                Sack([low, 0, 0, steps.small() << 56])
            }),
        };
        let payload = if is_data {
            let count = steps.small() as usize;
            steps.bytes(count)
        } else {
            &[]
        };
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let len = header
            .emit(&self.prefix, [payload, &[]], &mut out)
            .expect("room");
        let (now, refusing) = (self.now, self.refusing);
        let was_open = self.is_open();
        let result = self
            .session
            .receive(now, &out[..len], &mut |bytes: &[u8]| take(bytes, refusing));
        match result {
            Ok(received) => {
                assert!(was_open);
                self.judge(received);
            }
            Err(reason) => assert!(self.session.stats().rejected(reason) > 0),
        }
    }

    fn judge(&self, received: Received) {
        assert!(!self.refusing || received.messages == 0);
        assert_eq!(received.held, self.session.has_held());
        assert!(!received.held || self.is_open());
    }

    /// Sends what is to be sent; an end sends a bounded number of packets before it wants an answer.
    fn transmit(&mut self) {
        let mut out = [0; MTU_BYTES_MIN];
        let mut sent = 0;
        while self.session.poll_transmit(self.now, &mut out).is_some() {
            sent += 1;
            assert!(sent <= 64, "it never falls silent");
        }
    }

    fn is_open(&self) -> bool {
        self.session.state() == SessionState::Open
    }
}

/// An application that takes whole messages only.
fn take(bytes: &[u8], refusing: bool) -> Take {
    let length = bytes[4..8].try_into().expect("four bytes");
    assert_eq!(bytes.len(), 8 + u32::from_le_bytes(length) as usize);
    if refusing { Take::Later } else { Take::Taken }
}
