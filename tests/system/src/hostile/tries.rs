//! The datagrams of a stranger, from noise to what differs from a granted session's by one number.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ionian_types::{GuardEpoch, Inc, LogId, NodeId, SessionId, Token};
use ionian_wire::grant::{Direction, EpochKey, Grant, KEY_BYTES, Party, Rights};
use ionian_wire::packet::{PacketHeader, PacketKind, PacketPrefix};

/// The largest datagram of a stranger, in bytes.
const BYTES_MAX: usize = 60_000;
/// How long an answer may take that should come at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A kind of datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Try {
    /// Bytes at random, of any length.
    Noise,
    /// A sound packet of a session that nobody was granted.
    NoGrant,
    /// A grant for this node and a token that does not follow from it; each of another session.
    WrongToken,
    /// A token that was right in an epoch that has ended.
    OldEpoch,
    /// A token of another cluster.
    ForeignKey,
    /// A token of another session of a real grant.
    OtherSession,
    /// A packet of a session that is over, as it was sent.
    Replay,
    /// More bytes than a session's datagrams have.
    Oversize,
    /// The first bytes of a sound packet.
    Truncated,
}

impl Try {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Noise,
        Self::NoGrant,
        Self::WrongToken,
        Self::OldEpoch,
        Self::ForeignKey,
        Self::OtherSession,
        Self::Replay,
        Self::Oversize,
        Self::Truncated,
    ];
    /// What somebody can send at the rate of a flood who was never granted anything.
    pub const CHEAP: [Self; 3] = [Self::Noise, Self::NoGrant, Self::WrongToken];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::NoGrant => "no-grant",
            Self::WrongToken => "wrong-token",
            Self::OldEpoch => "old-epoch",
            Self::ForeignKey => "foreign-key",
            Self::OtherSession => "other-session",
            Self::Replay => "replay",
            Self::Oversize => "oversize",
            Self::Truncated => "truncated",
        }
    }
}

/// Somebody who makes datagrams. It knows the cluster's secret, so that it can come close.
pub(super) struct Stranger {
    secret: [u8; KEY_BYTES],
    target: NodeId,
    random: u64,
    buffer: Vec<u8>,
    len: usize,
}

impl Stranger {
    pub(super) fn new(secret: &str, target: u32, seed: u64) -> Result<Self> {
        let digits = secret.as_bytes().chunks_exact(2);
        let bytes: Vec<u8> = digits
            .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
            .collect::<Result<_>>()?;
        let secret = bytes.try_into().ok().context("a secret of 32 bytes")?;
        Ok(Self {
            secret,
            target: NodeId::new(target),
            random: seed | 1,
            buffer: vec![0; BYTES_MAX],
            len: 0,
        })
    }

    /// xorshift64*: which bytes matters to nobody, that they differ does.
    fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn grant(&mut self, epoch: u64) -> Grant {
        Grant {
            number: self.random() >> 24,
            epoch: GuardEpoch::new(epoch),
            opener: Party::Node(NodeId::MAX, Inc::ZERO),
            target: self.target,
            log: LogId::MAX,
            rights: Rights::ALL,
            window_bytes: 0,
        }
    }

    /// The token that the holder of a secret would send in a session of the grant.
    fn token(&self, secret: &[u8; KEY_BYTES], grant: &Grant, session: SessionId) -> Token {
        let epoch = EpochKey::of_secret(secret, grant.epoch);
        let key = epoch.target(grant.target, Inc::ZERO).grant(grant);
        key.token(session, Direction::Opener)
    }

    fn packet(&mut self, kind: PacketKind, at: (SessionId, GuardEpoch, Token), payload: &[u8]) {
        let (session, epoch, token) = at;
        let prefix = PacketPrefix {
            session,
            epoch,
            token,
        };
        let header = PacketHeader {
            kind,
            ask: true,
            seq: u64::from(kind == PacketKind::Data),
            ack: 0,
            credit: 64,
            sack: None,
        };
        let written = header.emit(&prefix.to_bytes(), [payload, &[]], &mut self.buffer);
        self.len = written.expect("the buffer holds the largest packet");
    }

    fn open_packet(&mut self, grant: &Grant, session: SessionId, token: Token) {
        let bytes = grant.to_bytes();
        self.packet(PacketKind::Open, (session, grant.epoch, token), &bytes);
    }

    fn noise(&mut self, from: usize, to: usize) {
        for at in (from..to).step_by(8) {
            let bytes = self.random().to_le_bytes();
            let end = to.min(at + 8);
            self.buffer[at..end].copy_from_slice(&bytes[..end - at]);
        }
    }

    /// A datagram of a kind. `replay` is what a session that is over sent, in order.
    pub(super) fn make(&mut self, kind: Try, replay: &[Vec<u8>]) -> &[u8] {
        match kind {
            Try::Noise => {
                self.len = (self.random() % 1_400) as usize;
                self.noise(0, self.len);
            }
            Try::NoGrant => {
                let at = (
                    SessionId::new(self.random()),
                    GuardEpoch::new(1),
                    Token::new(self.random()),
                );
                self.packet(PacketKind::Data, at, b"\x0c\0\0\0\x04\0\0\0none");
            }
            Try::WrongToken => {
                let grant = self.grant(1);
                let token = Token::new(self.random());
                self.open_packet(&grant, grant.session(1), token);
            }
            Try::OldEpoch => {
                let grant = self.grant(0);
                let session = grant.session(1);
                let token = self.token(&self.secret, &grant, session);
                self.open_packet(&grant, session, token);
            }
            Try::ForeignKey => {
                let grant = self.grant(1);
                let session = grant.session(1);
                let token = self.token(&[0x55; KEY_BYTES], &grant, session);
                self.open_packet(&grant, session, token);
            }
            Try::OtherSession => {
                let grant = self.grant(1);
                let token = self.token(&self.secret, &grant, grant.session(1));
                self.open_packet(&grant, grant.session(2), token);
            }
            Try::Replay => {
                let at = self.random() as usize % replay.len().max(1);
                self.len = replay.get(at).map_or(0, |packet| {
                    self.buffer[..packet.len()].copy_from_slice(packet);
                    packet.len()
                });
            }
            Try::Oversize => {
                self.len = 1_500 + (self.random() % 40_000) as usize;
                // The noise at its front is enough; the rest is what was there.
                self.noise(0, 64);
            }
            Try::Truncated => {
                let grant = self.grant(1);
                let session = grant.session(1);
                let token = self.token(&self.secret, &grant, session);
                self.open_packet(&grant, session, token);
                self.len = 1 + self.random() as usize % (self.len - 1);
            }
        }
        &self.buffer[..self.len]
    }

    /// The packet that opens a session of a grant of its own, as one may who has the secret.
    pub(super) fn half_open(&mut self) -> &[u8] {
        let grant = self.grant(1);
        let session = grant.session(1);
        let token = self.token(&self.secret, &grant, session);
        self.open_packet(&grant, session, token);
        &self.buffer[..self.len]
    }

    /// Opens a session as one who may, ends it, and returns what was sent.
    pub(super) fn converse(&mut self, socket: &UdpSocket, to: SocketAddr) -> Result<Vec<Vec<u8>>> {
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let grant = self.grant(1);
        let session = grant.session(1);
        let token = self.token(&self.secret, &grant, session);
        let mut sent = Vec::new();
        self.open_packet(&grant, session, token);
        sent.push(self.buffer[..self.len].to_vec());
        // A message of which the rest never comes: it is acknowledged, and does nothing.
        let at = (session, grant.epoch, token);
        self.packet(PacketKind::Data, at, b"\x08\0\0\0\x08\0\0\0half");
        sent.push(self.buffer[..self.len].to_vec());
        self.packet(PacketKind::Ack, at, b"");
        sent.push(self.buffer[..self.len].to_vec());
        let give_up = std::time::Instant::now() + ANSWER_LIMIT;
        let mut answer = [0; 2048];
        loop {
            for packet in &sent {
                socket.send_to(packet, to)?;
            }
            if socket.recv_from(&mut answer).is_ok() {
                break;
            }
            if std::time::Instant::now() >= give_up {
                bail!("the node does not answer a session that was granted");
            }
        }
        self.packet(PacketKind::Close, at, b"");
        sent.push(self.buffer[..self.len].to_vec());
        // Sent several times: one that is lost leaves a session that dies of silence, which takes longer.
        for _ in 0..3 {
            socket.send_to(&self.buffer[..self.len], to)?;
        }
        Ok(sent)
    }
}
