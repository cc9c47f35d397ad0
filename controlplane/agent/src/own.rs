//! The attachment of the process itself: it says which process this is, hears the cluster map and its keys, and by it the
//! process and the controllers speak of other processes.

use std::path::PathBuf;

use ionian_control_client::{Attachment, Bytes, Client, Incoming};
use ionian_node::{ControllerSeam, KeyChange, Word};
use ionian_types::{
    ClientId, ClusterId, EntryNo, Inc, LogId, NodeId, SessionNo, ShardId, Slot, ViewId,
};
use ionian_wire::WIRE_VERSION;
use ionian_wire::frame::{
    Body, DirectoryRequest, Hello, KeysRequest, MESSAGE_HEADER_BYTES, Message, Observe, Role,
    encode,
};
use ionian_wire::grant::NodeKeys;

use crate::bell::Bell;
use crate::line::attach;
use crate::memory;

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
    /// Where keys are remembered.
    folder: Option<PathBuf>,
    /// The version of the keys that the process has; 0 for none.
    known: u64,
    /// Keys that the reactor has not taken yet.
    held: Option<NodeKeys>,
    /// The connection to a leader, while there is one.
    connection: Option<u64>,
}

impl Own {
    /// Begins with the keys that are remembered in `folder`, if it is given.
    pub(crate) fn new(client: &Client, bell: &Bell, folder: Option<PathBuf>) -> Self {
        let held = folder.as_deref().and_then(memory::load_keys);
        Self {
            attachment: attach(client, bell),
            folder,
            known: held.as_ref().map_or(0, |keys| keys.version),
            held,
            connection: None,
        }
    }

    /// Whether the reactor is to be asked again to take keys.
    pub(crate) const fn waits(&self) -> bool {
        self.held.is_some()
    }

    /// Hands keys to the process, and remembers them.
    fn hand_keys(&mut self, seam: &ControllerSeam) {
        let Some(keys) = &self.held else { return };
        if seam.change_keys(KeyChange::Told(keys.clone())) {
            self.held = None;
        }
    }

    fn learn(&mut self, keys: NodeKeys) {
        if keys.version <= self.known {
            return;
        }
        self.known = keys.version;
        // Where they cannot be kept, users wait for a controller after a restart; the device says what else is wrong.
        if let Some(folder) = &self.folder {
            let _ = memory::save_keys(folder, &keys);
        }
        self.held = Some(keys);
    }

    /// Asks a new leader for the map and for keys, takes what comes, and says what the process knows of others. Whether there was
    /// something.
    pub(crate) fn carry(&mut self, seam: &ControllerSeam, hello: &Bytes) -> bool {
        self.hand_keys(seam);
        let said = self.say(seam);
        self.hear(seam, hello) || said
    }

    /// What nobody can be told is forgotten: it is said again, or asked for.
    fn say(&self, seam: &ControllerSeam) -> bool {
        for count in 0..MESSAGES_MAX {
            let word = match seam.take_word() {
                Some(Word::Suspect(suspect)) => message(&suspect),
                Some(Word::Answer(answer)) => message(&answer),
                Some(_) => continue,
                None => return count > 0,
            };
            if let Some(connection) = self.connection {
                let _ = self.attachment.try_send(connection, word);
            }
        }
        true
    }

    fn hear(&mut self, seam: &ControllerSeam, hello: &Bytes) -> bool {
        for count in 0..MESSAGES_MAX {
            match self.attachment.try_recv() {
                Some(Incoming::Opened { connection, .. }) => {
                    let known = seam.map_version();
                    let ask = message(&DirectoryRequest { request: 1, known });
                    let (node, known) = (seam.node(), self.known);
                    let keys = message(&KeysRequest { node, known });
                    // The queue of a new connection is empty; if it is gone by now, another one comes.
                    let observe = seam.observes().map(|suspect_after| {
                        message(&Observe {
                            node: seam.node(),
                            suspect_after: suspect_after.0,
                        })
                    });
                    for message in [hello.clone(), ask, keys].into_iter().chain(observe) {
                        let _ = self.attachment.try_send(connection, message);
                    }
                    self.connection = Some(connection);
                }
                Some(Incoming::Frame { bytes, .. }) => match Message::new_checked(&bytes) {
                    Ok((Message::DirectoryAnswer(answer, map), _)) => {
                        seam.learn(answer.version, map);
                    }
                    Ok((Message::KeysAnswer(answer, keys), _)) if answer.node == seam.node() => {
                        // What does not parse changes nothing.
                        if let Ok(keys) = NodeKeys::read(keys) {
                            self.learn(keys);
                            self.hand_keys(seam);
                        }
                    }
                    // Without an answer the others decide.
                    Ok((Message::Probe(probe, _), _)) => drop(seam.probe(probe)),
                    _ => {}
                },
                Some(Incoming::Closed { connection, .. }) => {
                    self.connection = self.connection.filter(|own| *own != connection);
                }
                None => return count > 0,
            }
        }
        true
    }
}
