//! The packet: what a session puts around messages to send them as one datagram.
//!
//! ```text
//!  0 session u64 | 8 epoch u64 | 16 token u64
//! 24 version u8 | 25 kind u8 | 26 flags u16 | 28 payload bytes u32
//! 32 sequence u64 | 40 cumulative ack u64 | 48 credit limit u64
//! 56 bitmap of 256 bits (only when flagged) | payload | CRC-32C u32 over everything before it
//! ```
//! The fault model is a network that loses, repeats, reorders and damages datagrams, and strangers who can send but not
//! read. A receiver compares the first 24 bytes before it looks at anything else, so that what was not granted costs one
//! comparison and changes nothing; only of a packet that says it opens a session it checks the [grant](crate::grant). The checksum stands last, so that either end makes one pass over the bytes.
//!
//! The payload is a piece of the session's stream of messages; a message may start in one packet and end in another.

use ionian_types::{GuardEpoch, SessionId, Token};

use crate::codec::{Field, WireError};
use crate::crc::crc32c;

/// The length of the fixed header in bytes.
pub const PACKET_HEADER_BYTES: usize = 56;
/// The length of the bitmap in bytes, where one is present.
pub const PACKET_SACK_BYTES: usize = 32;
/// The length of the checksum that ends each packet.
pub const PACKET_CRC_BYTES: usize = 4;
/// What a packet without bitmap adds to its payload, in bytes.
pub const PACKET_OVERHEAD_BYTES: usize = PACKET_HEADER_BYTES + PACKET_CRC_BYTES;
/// The largest packet in bytes: the largest UDP payload over IPv4.
pub const PACKET_BYTES_MAX: usize = 65_507;
/// The length of the part that says for whom a packet is.
pub const PREFIX_BYTES: usize = 24;

const VERSION: u8 = crate::WIRE_VERSION as u8;
const FLAG_SACK: u16 = 1;
const FLAG_ASK: u16 = 1 << 1;
const FLAGS_KNOWN: u16 = FLAG_SACK | FLAG_ASK;

/// For whom a packet is: its first 24 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PacketPrefix {
    /// The session, as its grant names it.
    pub session: SessionId,
    /// The epoch of the grant. Another one is another session.
    pub epoch: GuardEpoch,
    /// The secret of this direction.
    pub token: Token,
}

impl PacketPrefix {
    /// Reads the prefix of a datagram that nothing is known about; `None` when it is too short to have one.
    #[must_use]
    #[inline]
    pub fn peek(datagram: &[u8]) -> Option<Self> {
        let bytes = datagram.first_chunk::<PREFIX_BYTES>()?;
        Some(Self {
            session: SessionId::take(&bytes[0..8]).ok()?,
            epoch: GuardEpoch::take(&bytes[8..16]).ok()?,
            token: Token::take(&bytes[16..24]).ok()?,
        })
    }

    /// The prefix as it stands on the wire, to be compared with.
    #[must_use]
    pub fn to_bytes(self) -> [u8; PREFIX_BYTES] {
        let mut bytes = [0; PREFIX_BYTES];
        self.session.put(&mut bytes[0..8]);
        self.epoch.put(&mut bytes[8..16]);
        self.token.put(&mut bytes[16..24]);
        bytes
    }
}

/// Shows everything but the token, which is a secret.
impl core::fmt::Debug for PacketPrefix {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PacketPrefix")
            .field("session", &self.session)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// What a packet is for. Each kind carries ack and credit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PacketKind {
    /// A numbered piece of the stream.
    Data = 1,
    /// Ack and credit alone.
    Ack = 2,
    /// The sender has ended the session.
    Close = 3,
    /// The sender wants the session, and shows the grant for it; the only kind that makes a session. `ack` is 0 until the
    /// sender has heard of the other end in this session, and 1 from then on.
    Open = 4,
}

impl Field for PacketKind {
    const LEN: usize = 1;
    #[inline]
    fn take(bytes: &[u8]) -> Result<Self, WireError> {
        match u8::take(bytes)? {
            1 => Ok(Self::Data),
            2 => Ok(Self::Ack),
            3 => Ok(Self::Close),
            4 => Ok(Self::Open),
            value => Err(WireError::Range {
                field: "packet kind",
                value: u64::from(value),
            }),
        }
    }
    #[inline]
    fn put(self, bytes: &mut [u8]) {
        Field::put(self as u8, bytes);
    }
}

/// Which packets beyond the cumulative ack have arrived: bit `i` stands for the sequence `ack + 1 + i`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sack(pub [u64; 4]);

impl Sack {
    /// The number of sequences that a bitmap covers.
    pub const BITS: u64 = 256;

    /// Sets bit `index`, which lies below [`Self::BITS`].
    #[inline]
    pub const fn set(&mut self, index: u64) {
        self.0[(index / 64) as usize] |= 1 << (index % 64);
    }

    /// Whether bit `index` is set; bits from [`Self::BITS`] on never are.
    #[must_use]
    #[inline]
    pub const fn get(&self, index: u64) -> bool {
        index < Self::BITS && self.0[(index / 64) as usize] >> (index % 64) & 1 == 1
    }

    /// The number of the bit after the last one set; 0 when none is.
    #[must_use]
    pub const fn end(&self) -> u64 {
        let mut word = 4;
        while word > 0 {
            word -= 1;
            if self.0[word] != 0 {
                return word as u64 * 64 + 64 - self.0[word].leading_zeros() as u64;
            }
        }
        0
    }
}

/// A packet's header after the prefix, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PacketHeader {
    /// What the packet is for.
    pub kind: PacketKind,
    /// Whether the sender wants an answer at once instead of a delayed one.
    pub ask: bool,
    /// The packet's number, from 1, dense over the data packets of one direction; 0 in other kinds.
    pub seq: u64,
    /// Every data packet up to and including this one has arrived; 0 for none.
    pub ack: u64,
    /// The highest sequence that the receiver is ready to take. Cumulative, hence idempotent.
    pub credit: u64,
    /// What has arrived beyond `ack`, where something has.
    pub sack: Option<Sack>,
}

impl PacketHeader {
    /// The length of this header in bytes, bitmap included.
    #[must_use]
    #[inline]
    pub const fn header_bytes(&self) -> usize {
        match self.sack {
            Some(_) => PACKET_HEADER_BYTES + PACKET_SACK_BYTES,
            None => PACKET_HEADER_BYTES,
        }
    }

    /// Writes a whole packet, checksum included, and returns its length in bytes. The payload comes in two parts because
    /// senders keep it in rings.
    ///
    /// # Errors
    /// [`WireError::Full`] when `out` is too short; nothing is written then.
    #[inline]
    pub fn emit(
        &self,
        prefix: &[u8; PREFIX_BYTES],
        payload: [&[u8]; 2],
        out: &mut [u8],
    ) -> Result<usize, WireError> {
        let header_bytes = self.header_bytes();
        let payload_bytes = payload[0].len() + payload[1].len();
        let total = header_bytes + payload_bytes + PACKET_CRC_BYTES;
        let room = out.len();
        let Some(out) = out.get_mut(..total) else {
            return Err(WireError::Full { need: total, room });
        };
        let (covered, crc) = out.split_at_mut(total - PACKET_CRC_BYTES);
        let (header, body) = covered.split_at_mut(header_bytes);
        header[..PREFIX_BYTES].copy_from_slice(prefix);
        header[24] = VERSION;
        header[25] = self.kind as u8;
        let mut flags = if self.ask { FLAG_ASK } else { 0 };
        if let Some(Sack(words)) = self.sack {
            flags |= FLAG_SACK;
            for (index, word) in words.into_iter().enumerate() {
                Field::put(word, &mut header[PACKET_HEADER_BYTES + index * 8..]);
            }
        }
        Field::put(flags, &mut header[26..28]);
        Field::put(payload_bytes as u32, &mut header[28..32]);
        Field::put(self.seq, &mut header[32..40]);
        Field::put(self.ack, &mut header[40..48]);
        Field::put(self.credit, &mut header[48..56]);
        let (first, second) = body.split_at_mut(payload[0].len());
        first.copy_from_slice(payload[0]);
        second.copy_from_slice(payload[1]);
        Field::put(crc32c(covered), crc);
        Ok(total)
    }
}

/// A checked packet: its header decoded, its payload borrowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PacketView<'a> {
    header: PacketHeader,
    payload: &'a [u8],
}

impl<'a> PacketView<'a> {
    /// Checks one datagram: checksum first, then every field and length. The prefix is covered by the checksum and
    /// otherwise left to the caller, who compares it beforehand.
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::Checksum`], [`WireError::Version`] or [`WireError::Range`]; effect none.
    #[inline]
    pub fn new_checked(datagram: &'a [u8]) -> Result<Self, WireError> {
        let truncated = WireError::Truncated {
            need: PACKET_OVERHEAD_BYTES,
            have: datagram.len(),
        };
        let (covered, crc) = datagram.split_last_chunk().ok_or(truncated)?;
        let (fixed, rest) = covered
            .split_first_chunk::<PACKET_HEADER_BYTES>()
            .ok_or(truncated)?;
        let found = u32::from_le_bytes(*crc);
        let computed = crc32c(covered);
        if found != computed {
            return Err(WireError::Checksum { found, computed });
        }
        if fixed[24] != VERSION {
            return Err(WireError::Version {
                found: u16::from(fixed[24]),
                known: u16::from(VERSION),
            });
        }
        let flags = u16::take(&fixed[26..28])?;
        if flags & !FLAGS_KNOWN != 0 {
            return Err(range("packet flags", u64::from(flags)));
        }
        let (sack, payload) = take_sack(flags & FLAG_SACK != 0, rest)?;
        let header = PacketHeader {
            kind: PacketKind::take(&fixed[25..26])?,
            ask: flags & FLAG_ASK != 0,
            seq: u64::take(&fixed[32..40])?,
            ack: u64::take(&fixed[40..48])?,
            credit: u64::take(&fixed[48..56])?,
            sack,
        };
        let payload_bytes = u32::take(&fixed[28..32])?;
        let is_data = header.kind == PacketKind::Data;
        let carries = is_data || header.kind == PacketKind::Open;
        if payload_bytes as usize != payload.len() || carries == payload.is_empty() {
            return Err(range("packet payload bytes", u64::from(payload_bytes)));
        }
        if is_data == (header.seq == 0) {
            return Err(range("packet sequence", header.seq));
        }
        // A session could not live long enough to get there; refusing it here spares every sum later an overflow.
        if (header.seq | header.ack | header.credit) >> 62 != 0 {
            return Err(range("packet sequence", u64::MAX));
        }
        Ok(Self { header, payload })
    }

    /// The header after the prefix.
    #[must_use]
    #[inline]
    pub const fn header(&self) -> &PacketHeader {
        &self.header
    }

    /// The piece of the stream that the packet carries, or the grant of a [`PacketKind::Open`]; empty in other kinds.
    #[must_use]
    #[inline]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

#[inline]
fn take_sack(present: bool, rest: &[u8]) -> Result<(Option<Sack>, &[u8]), WireError> {
    if !present {
        return Ok((None, rest));
    }
    let Some((bytes, payload)) = rest.split_first_chunk::<PACKET_SACK_BYTES>() else {
        return Err(WireError::Truncated {
            need: PACKET_OVERHEAD_BYTES + PACKET_SACK_BYTES,
            have: PACKET_OVERHEAD_BYTES + rest.len(),
        });
    };
    let mut words = [0; 4];
    for (index, word) in words.iter_mut().enumerate() {
        *word = u64::take(&bytes[index * 8..index * 8 + 8])?;
    }
    Ok((Some(Sack(words)), payload))
}

#[cold]
const fn range(field: &'static str, value: u64) -> WireError {
    WireError::Range { field, value }
}

#[cfg(test)]
mod tests;
