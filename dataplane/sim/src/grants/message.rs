//! Messages, as far as those who guard sessions look at them: a kind of the wire's, and a number instead of a content.

use ionian_types::LogId;
use ionian_wire::frame::{
    Append, Body, CloseSession, Connect, Fate, Locate, Read, Seal, StatusRequest, Subscribe, Tail,
    TrimRequest,
};
use ionian_wire::grant::Rights;

/// A message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) number: u64,
    /// Of `Connect`: the log of the place that is wanted.
    pub(super) log: Option<LogId>,
    /// And whether it is for the cluster's own processes only.
    pub(super) internal: bool,
}

/// What comes after the first message of a session, and the right that it asks for. The oracle's own table.
pub(super) const KINDS: [(u8, Rights); 10] = [
    (StatusRequest::KIND, Rights::NONE),
    (Append::KIND, Rights::APPEND),
    (CloseSession::KIND, Rights::APPEND),
    (Fate::KIND, Rights::APPEND),
    (Tail::KIND, Rights::READ),
    (Locate::KIND, Rights::READ),
    (Read::KIND, Rights::READ),
    (Subscribe::KIND, Rights::READ),
    (TrimRequest::KIND, Rights::TRIM),
    (Seal::KIND, Rights::MEMBER),
];

const NO_LOG: u32 = u32::MAX;
const BODY_BYTES: u32 = 13;

impl Message {
    pub(super) const fn new(kind: u8, number: u64) -> Self {
        Self {
            kind,
            number,
            log: None,
            internal: false,
        }
    }

    pub(super) const fn connect(number: u64, log: Option<LogId>, internal: bool) -> Self {
        Self {
            kind: Connect::KIND,
            number,
            log,
            internal,
        }
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = vec![self.kind, 0, 0, 0];
        bytes.extend(BODY_BYTES.to_le_bytes());
        bytes.extend(self.number.to_le_bytes());
        let log = self.log.map_or(NO_LOG, LogId::get);
        bytes.extend(log.to_le_bytes());
        bytes.push(u8::from(self.internal));
        bytes
    }
}

/// The message of bytes that [`Message::to_bytes`] made. A session delivers nothing else, or says that it is damaged.
pub(super) fn read(bytes: &[u8]) -> Message {
    let part = |at: usize, len: usize| bytes.get(at..at + len).unwrap_or(&[]);
    let number = part(8, 8).try_into().map_or(0, u64::from_le_bytes);
    let log = part(16, 4).try_into().map_or(NO_LOG, u32::from_le_bytes);
    Message {
        kind: bytes.first().copied().unwrap_or(0),
        number,
        log: (log != NO_LOG).then(|| LogId::new(log)),
        internal: bytes.get(20) == Some(&1),
    }
}
