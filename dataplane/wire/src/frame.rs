//! The messages of the data plane, carried by sessions (ORDERING.md, section 1, messages).
//!
//! A message is an eight-byte header, a fixed body and a tail. `kind` names the body's layout; the tail holds records,
//! lengths, entries or text, as the body's documentation says.
//!
//! ```text
//! 0 kind u8 | 1 reserved u8 x3 (0) | 4 body and tail bytes u32 | 8 body | tail
//! ```
//! [`Message::new_checked`] is the only way in for untrusted bytes. [`encode`] writes a value.

mod append;
mod detect;
mod down_frame;
mod group;
mod macros;
mod query;
mod read;
mod shard;
mod tree;

pub use append::{
    Append, AppendAck, AppendRefused, CloseSession, Fate, FateAnswer, FateOutcome, RefusalReason,
    SessionClosed,
};
pub use detect::{Evidence, Observe, Probe, ProbeAnswer, Suspect};
pub use down_frame::{DownShardFrame, ShardCut};
pub use group::{
    RootAlone, RootLed, RootState, RootWrite, RootWritten, Seal, SealAck, WriteOutcome,
};
pub use query::{
    CeilingRequest, Connect, DirectoryAnswer, DirectoryRequest, Hello, Intent, IntentDone,
    KeysAnswer, KeysRequest, Register, Registered, Role, RootGrant, StatusAnswer, StatusRequest,
};
pub use read::{
    Deliver, DeliverEnd, DeliverGap, EndReason, Locate, LocateAnswer, LocateStatus, Read,
    ReadAnswer, ReadStatus, SubCredit, Subscribe, Tail, TailAnswer, TrimAnswer, TrimRequest,
    TrimStatus, Unsubscribe,
};
pub use shard::{
    Backfill, CopyAck, CopyData, CopyRequest, Entries, Grant, Have, Replicate, Report,
    ShardSnapshot, StateData, StateRequest,
};
pub use tree::{
    Applied, Down, DownShard, EdgeShards, EdgeStart, EdgeVertex, Member, NeedEdge, NeedFull,
    ShardStart, ShardStartHead, ShardStatus, Sync, SyncShard, Up, UpKeep,
};

use crate::codec::{Reader, WireError, Writer};

/// The length of a message header in bytes.
pub const MESSAGE_HEADER_BYTES: usize = 8;
/// The largest message in bytes, header included: one record of the largest size and the widest body, with room.
pub const MESSAGE_BYTES_MAX: usize = crate::record::RECORD_ENCODED_BYTES_MAX + 1024;

/// A fixed body that can be written into and read from a message.
pub trait Body: Sized + Copy + core::fmt::Debug {
    /// The number that names this layout.
    const KIND: u8;
    /// The encoded length in bytes, the tail apart.
    const LEN: usize;
    /// Decodes the body; the tail is what is left in `reader`.
    ///
    /// # Errors
    /// Any [`WireError`]; effect none.
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError>;
    /// Encodes the body.
    ///
    /// # Errors
    /// [`WireError::Full`]; the output may hold a part of it.
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), WireError>;
}

/// Writes one message with a tail of `tail` parts, and returns its length in bytes.
///
/// # Errors
/// [`WireError::Full`] when it does not fit; the output is then to be discarded.
#[inline]
pub fn encode<B: Body>(out: &mut [u8], body: &B, tail: &[&[u8]]) -> Result<usize, WireError> {
    let mut writer = Writer::new(out);
    encode_head(&mut writer, body, tail.iter().map(|part| part.len()).sum())?;
    for part in tail {
        writer.bytes(part)?;
    }
    Ok(writer.len())
}

/// Writes the header and body of a message whose tail of `tail_bytes` bytes follows from elsewhere.
///
/// # Errors
/// [`WireError::Full`] when header and body do not fit, [`WireError::Range`] for a message that would be too long.
#[inline]
pub fn encode_head<B: Body>(
    writer: &mut Writer<'_>,
    body: &B,
    tail_bytes: usize,
) -> Result<(), WireError> {
    let len = B::LEN + tail_bytes;
    if len + MESSAGE_HEADER_BYTES > MESSAGE_BYTES_MAX {
        return Err(WireError::Range {
            field: "message bytes",
            value: len as u64,
        });
    }
    writer.field(B::KIND)?;
    writer.bytes(&[0; 3])?;
    writer.field(len as u32)?;
    body.write(writer)
}

/// Corrects the length in the header of a message whose tail was written after its head.
///
/// # Panics
/// If `message` is shorter than a header.
pub fn patch_len(message: &mut [u8]) {
    let len = (message.len() - MESSAGE_HEADER_BYTES) as u32;
    crate::codec::Field::put(len, &mut message[4..8]);
}

macros::messages! {
    Hello, Connect, Register, Registered, DirectoryRequest, DirectoryAnswer, Intent, IntentDone, StatusRequest, StatusAnswer,
    RootGrant, CeilingRequest, KeysRequest, KeysAnswer,
    Append, AppendAck, AppendRefused, CloseSession, SessionClosed, Fate, FateAnswer,
    Replicate, Have, CopyRequest, CopyData, CopyAck, Report, Backfill, Entries, ShardSnapshot,
    StateRequest, StateData, Grant,
    Up, NeedFull, EdgeStart, EdgeShards, NeedEdge, Sync, SyncShard, ShardStatus, Down, DownShard, Applied,
    Tail, TailAnswer, Locate, LocateAnswer, Read, ReadAnswer, Subscribe, Unsubscribe, SubCredit, Deliver, DeliverGap, DeliverEnd,
    TrimRequest, TrimAnswer,
    Seal, SealAck, RootLed, RootAlone, RootWrite, RootWritten, RootState,
    Observe, Suspect, Probe, ProbeAnswer,
}

/// Walks the messages that lie back to back in one packet. Stops after the first bad one.
#[derive(Clone, Copy, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// Starts at the front of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match Message::new_checked(self.rest) {
            Ok((message, rest)) => {
                self.rest = rest;
                Some(Ok(message))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests;
