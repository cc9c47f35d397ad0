//! How two ends agree on a connection, as a machine without input or output of its own.
//!
//! ```text
//! connector                                  acceptor
//!   reserve                Hello  ------->      grant, token, epoch; reserve; establish
//!   establish   <-------   Hello                 (its queue pair can receive)
//!                          Ready  ------->      live: its owner is told
//!   live        <-------   Ready
//!               <-------   Refused               instead of its Hello, with the reason; then the end
//! ```
//! Both queue pairs can receive before either owner is told, and the acceptor's owner is told before the connector can send.
//! The acceptor's Hello names a queue pair that was in reset when it was reserved, under the epoch asked for: it is the
//! acknowledgement of that epoch, and nothing of an earlier one reaches that end any more. Keys of regions are not exchanged
//! here but on the connection itself, in order with its messages.
//!
//! A frame is a length (u32, of what follows it), a kind (u8) and a body; numbers are little-endian. Bytes are a stranger's
//! until token and epoch were checked: a frame that is longer than any of ours, of another kind than is due, or not of the
//! kind's length ends the exchange, and a machine holds one frame at most.

use thiserror::Error;

use crate::api::Address;
use crate::fabric::Endpoint;

/// First bytes of a Hello's body: what this is, and its version.
const MAGIC: [u8; 8] = *b"IOVERBS1";
const KIND_HELLO: u8 = 1;
const KIND_READY: u8 = 2;
const KIND_REFUSED: u8 = 3;
const HELLO_BYTES: usize = 8 + 8 + 8 + 16 + 16 + 2 + 2 + 4 * 4;
/// Longest frame in bytes, its length included.
pub const FRAME_BYTES_MAX: usize = 4 + 1 + HELLO_BYTES;

/// Permission for one connection. Both ends have it from whoever grants connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SetupGrant {
    /// Names the connection at its acceptor; one at a time has it.
    pub peer: u64,
    /// The epoch in which it is valid.
    pub epoch: u64,
    /// Proves that the other end has the grant.
    pub token: [u8; 16],
}

impl SetupGrant {
    /// Whether two tokens are equal, in a time that does not depend on where they differ.
    fn has_token(&self, token: &[u8; 16]) -> bool {
        let differs = self
            .token
            .iter()
            .zip(token)
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        differs == 0
    }
}

/// What one end tells the other of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The grant it shows.
    pub grant: SetupGrant,
    /// Its queue pair.
    pub endpoint: Endpoint,
}

/// Why an acceptor refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It knows no such grant, or the token is another one.
    #[error("no such grant")]
    Grant,
    /// The grant is of an earlier epoch.
    #[error("the epoch has passed")]
    Epoch,
    /// It has no queue pair or no buffers free.
    #[error("it is full")]
    Full,
    /// Its device did not connect.
    #[error("its device did not connect the queue pair")]
    Device,
}

/// Why an exchange failed. Effect: none at the device of the end that says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The bytes are not this protocol, or of another version.
    #[error("the other end does not speak this protocol, or another version of it")]
    Foreign,
    /// The other end refuses.
    #[error("the other end refuses: {0}")]
    Refused(Refusal),
    /// The answer is not for what was asked.
    #[error("the other end answers under another grant")]
    OtherGrant,
}

/// What has come of the bytes so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// More bytes are needed.
    More,
    /// The other end has said what it is: reserve (acceptor), establish, and call [`Handshake::answer`] or
    /// [`Handshake::refuse`].
    Hello(Hello),
    /// Both ends can receive: the owner may be told.
    Ready,
}

/// What is due from the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    /// Its Hello. A connector remembers what it asked for.
    Hello(Option<SetupGrant>),
    /// The owner's decision.
    Decision,
    Ready,
    Nothing,
}

/// One end of one exchange.
#[derive(Debug)]
pub struct Handshake {
    due: Due,
    connector: bool,
    input: [u8; FRAME_BYTES_MAX],
    input_len: usize,
    output: [u8; FRAME_BYTES_MAX],
    output_at: usize,
    output_len: usize,
}

impl Handshake {
    /// Begins as the end that asks, with what it is.
    #[must_use]
    pub fn connect(hello: &Hello) -> Self {
        let mut machine = Self::new(Due::Hello(Some(hello.grant)), true);
        machine.put(KIND_HELLO, &encode(hello));
        machine
    }

    /// Begins as the end that was asked.
    #[must_use]
    pub fn accept() -> Self {
        Self::new(Due::Hello(None), false)
    }

    fn new(due: Due, connector: bool) -> Self {
        Self {
            due,
            connector,
            input: [0; FRAME_BYTES_MAX],
            input_len: 0,
            output: [0; FRAME_BYTES_MAX],
            output_at: 0,
            output_len: 0,
        }
    }

    /// Takes bytes of the other end, and says how many were used and what came of it. Call it again with the rest after
    /// [`Progress::More`] with fewer used than given, or after an answer.
    ///
    /// # Errors
    ///
    /// See [`HandshakeError`]: the exchange is over.
    pub fn input(&mut self, bytes: &[u8]) -> Result<(usize, Progress), HandshakeError> {
        if matches!(self.due, Due::Decision | Due::Nothing) {
            return Ok((0, Progress::More));
        }
        let used = bytes.len().min(self.needed()?);
        self.input[self.input_len..self.input_len + used].copy_from_slice(&bytes[..used]);
        self.input_len += used;
        if self.needed()? > 0 {
            return Ok((used, Progress::More));
        }
        let (kind, end) = (self.input[4], self.input_len);
        self.input_len = 0;
        let body = &self.input[5..end];
        let progress = match (kind, self.due) {
            (KIND_HELLO, Due::Hello(asked)) => {
                let hello = decode(body).ok_or(HandshakeError::Foreign)?;
                if let Some(asked) = asked {
                    let same = asked.peer == hello.grant.peer && asked.epoch == hello.grant.epoch;
                    if !same || !asked.has_token(&hello.grant.token) {
                        return Err(HandshakeError::OtherGrant);
                    }
                }
                self.due = Due::Decision;
                Progress::Hello(hello)
            }
            (KIND_READY, Due::Ready) if body.is_empty() => {
                self.due = Due::Nothing;
                if !self.connector {
                    self.put(KIND_READY, &[]);
                }
                Progress::Ready
            }
            (KIND_REFUSED, Due::Hello(Some(_))) if body.len() == 1 => {
                let refusal = match body[0] {
                    1 => Refusal::Grant,
                    2 => Refusal::Epoch,
                    3 => Refusal::Full,
                    4 => Refusal::Device,
                    _ => return Err(HandshakeError::Foreign),
                };
                return Err(HandshakeError::Refused(refusal));
            }
            _ => return Err(HandshakeError::Foreign),
        };
        Ok((used, progress))
    }

    /// How many bytes to read next, so that none beyond the frame is taken from the other end.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Foreign`] for a length that no frame has.
    pub fn needed_bytes(&self) -> Result<usize, HandshakeError> {
        self.needed()
    }

    /// Bytes of the frame in `input` that have not come: first its length, then the rest.
    fn needed(&self) -> Result<usize, HandshakeError> {
        let Some((length, _)) = self.input[..self.input_len].split_first_chunk::<4>() else {
            return Ok(4 - self.input_len);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if !(1..=FRAME_BYTES_MAX - 4).contains(&length) {
            return Err(HandshakeError::Foreign);
        }
        Ok(4 + length - self.input_len)
    }

    /// The owner has established its queue pair. An acceptor says what it is; a connector says that it can receive, and
    /// `own` counts for nothing.
    pub fn answer(&mut self, own: &Hello) {
        if self.connector {
            self.put(KIND_READY, &[]);
        } else {
            self.put(KIND_HELLO, &encode(own));
        }
        self.due = Due::Ready;
    }

    /// The owner refuses: the exchange is over once the output is sent.
    pub fn refuse(&mut self, refusal: Refusal) {
        let code = match refusal {
            Refusal::Grant => 1,
            Refusal::Epoch => 2,
            Refusal::Full => 3,
            Refusal::Device => 4,
        };
        self.put(KIND_REFUSED, &[code]);
        self.due = Due::Nothing;
    }

    /// Bytes to send to the other end.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.output[self.output_at..self.output_len]
    }

    /// `count` bytes of the output were sent.
    ///
    /// # Panics
    ///
    /// If there were fewer: our own bug.
    pub fn sent(&mut self, count: usize) {
        assert!(count <= self.output().len(), "more was sent than there is");
        self.output_at += count;
    }

    /// Whether a Hello shows the grant that an acceptor knows.
    ///
    /// # Errors
    ///
    /// The [`Refusal`] to answer with. Effect: none.
    pub fn shows(hello: &Hello, known: &SetupGrant) -> Result<(), Refusal> {
        if !known.has_token(&hello.grant.token) || hello.grant.epoch > known.epoch {
            return Err(Refusal::Grant);
        }
        if hello.grant.epoch < known.epoch {
            return Err(Refusal::Epoch);
        }
        Ok(())
    }

    fn put(&mut self, kind: u8, body: &[u8]) {
        let length = u32::try_from(1 + body.len()).expect("a frame is small");
        self.output[..4].copy_from_slice(&length.to_le_bytes());
        self.output[4] = kind;
        self.output[5..5 + body.len()].copy_from_slice(body);
        (self.output_at, self.output_len) = (0, 5 + body.len());
    }
}

fn encode(hello: &Hello) -> [u8; HELLO_BYTES] {
    let Hello { grant, endpoint } = hello;
    let mut bytes = [0; HELLO_BYTES];
    let mut at = 0;
    let mut put = |part: &[u8]| {
        bytes[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    };
    put(&MAGIC);
    put(&grant.peer.to_le_bytes());
    put(&grant.epoch.to_le_bytes());
    put(&grant.token);
    put(&endpoint.address.gid);
    put(&endpoint.address.lid.to_le_bytes());
    put(&endpoint.address.mtu_bytes.to_le_bytes());
    for number in [
        endpoint.qp_num,
        endpoint.psn,
        endpoint.credits,
        endpoint.message_bytes_max,
    ] {
        put(&number.to_le_bytes());
    }
    bytes
}

/// Takes the next `N` bytes off `bytes`.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (part, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*part)
}

/// `None` for what is not this protocol. Numbers are checked where they are used.
fn decode(mut bytes: &[u8]) -> Option<Hello> {
    let bytes = &mut bytes;
    if take::<8>(bytes)? != MAGIC {
        return None;
    }
    let grant = SetupGrant {
        peer: u64::from_le_bytes(take(bytes)?),
        epoch: u64::from_le_bytes(take(bytes)?),
        token: take(bytes)?,
    };
    let endpoint = Endpoint {
        address: Address {
            gid: take(bytes)?,
            lid: u16::from_le_bytes(take(bytes)?),
            mtu_bytes: u16::from_le_bytes(take(bytes)?),
        },
        qp_num: u32::from_le_bytes(take(bytes)?),
        psn: u32::from_le_bytes(take(bytes)?),
        credits: u32::from_le_bytes(take(bytes)?),
        message_bytes_max: u32::from_le_bytes(take(bytes)?),
    };
    bytes.is_empty().then_some(Hello { grant, endpoint })
}

#[cfg(test)]
mod tests;
