//! The attachment of the process itself: it says which process this is, and hears the cluster map.

use ionian_control_client::{Attachment, Bytes, Client, Incoming};
use ionian_node::ControllerSeam;
use ionian_types::{
    ClientId, ClusterId, EntryNo, Inc, LogId, NodeId, SessionNo, ShardId, Slot, ViewId,
};
use ionian_wire::WIRE_VERSION;
use ionian_wire::frame::{
    Body, DirectoryRequest, Hello, MESSAGE_HEADER_BYTES, Message, Role, encode,
};

use crate::bell::Bell;
use crate::line::attach;

/// Messages taken in one look.
const MESSAGES_MAX: usize = 64;

/// The number of a process, drawn at its start: tells it from another one that says it is the same node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessId(ClientId);

impl ProcessId {
    /// Draws one.
    ///
    /// # Errors
    /// What the system says that has no random bytes.
    pub(crate) fn draw() -> Result<Self, String> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
        // 0 stands for none.
        Ok(Self(ClientId::new(u128::from_le_bytes(bytes) | 1)))
    }

    /// What each of its connections begins with.
    pub(crate) fn hello(self, node: NodeId) -> Bytes {
        message(&Hello {
            cluster: ClusterId::default(),
            wire_version: WIRE_VERSION,
            role: Role::Client,
            node,
            inc: Inc::ZERO,
            log: LogId::MAX,
            shard: ShardId::ZERO,
            slot: Slot::ZERO,
            epoch: ViewId::ZERO,
            last: EntryNo::ZERO,
            client: self.0,
            session: SessionNo::ZERO,
        })
    }
}

fn message<B: Body>(body: &B) -> Bytes {
    let mut bytes = vec![0; MESSAGE_HEADER_BYTES + B::LEN];
    let len = encode(&mut bytes, body, &[]).expect("the buffer has the message's length");
    bytes.truncate(len);
    Bytes::from(bytes)
}

/// The process's own attachment.
#[derive(Debug)]
pub(crate) struct Own {
    attachment: Attachment,
}

impl Own {
    pub(crate) fn new(client: &Client, bell: &Bell) -> Self {
        Self {
            attachment: attach(client, bell),
        }
    }

    /// Asks a new leader for the map, and takes what comes. Whether there was something.
    pub(crate) fn carry(&self, seam: &ControllerSeam, hello: &Bytes) -> bool {
        for count in 0..MESSAGES_MAX {
            match self.attachment.try_recv() {
                Some(Incoming::Opened { connection, .. }) => {
                    let known = seam.map_version();
                    let ask = message(&DirectoryRequest { request: 1, known });
                    // The queue of a new connection is empty; if it is gone by now, another one comes.
                    for message in [hello.clone(), ask] {
                        let _ = self.attachment.try_send(connection, message);
                    }
                }
                Some(Incoming::Frame { bytes, .. }) => {
                    if let Ok((Message::DirectoryAnswer(answer, map), _)) =
                        Message::new_checked(&bytes)
                    {
                        seam.learn(answer.version, map);
                    }
                }
                Some(Incoming::Closed { .. }) => {}
                None => return count > 0,
            }
        }
        true
    }
}
