//! The keys that grants follow from: one for each epoch, the newest and the one before.
//!
//! The controllers hold them; a node is told only its own key of each, and a user only those of its grants
//! ([`ionian_wire::grant`]). A new epoch begins when the newest key has served its time; what was made in the one before stays
//! good until the next one begins, and dies then.

use core::fmt;
use std::collections::BTreeMap;

use ionian_types::{ConnId, GuardEpoch, Inc, Knobs, Mutant, NodeId};
use ionian_wire::frame::{KeysAnswer, KeysRequest};
use ionian_wire::grant::{EpochKey, KEY_BYTES, NodeKeys};
use ionian_wire::{Reader, WireError};

use crate::codec::{Encoder, count, range};
use crate::directory::Directory;
use crate::outbound::{message_bytes, put};
use crate::state::State;
use crate::users::{ADMIN_NUMBER, USERS_MAX};

/// Epochs that are good at a time.
const EPOCHS_MAX: usize = 2;
/// The longest that a node is told, in bytes: two keys and every user.
const NODE_KEYS_BYTES_MAX: usize = 128 + 12 * (USERS_MAX + 1);
/// The first epoch of a cluster's controllers: the one below is that of the secret which nodes share.
pub const FIRST_KEY_EPOCH: GuardEpoch = GuardEpoch::new(2);

/// The bytes of an epoch's key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct KeyBytes(pub(crate) [u8; KEY_BYTES]);

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyBytes(..)")
    }
}

/// The keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Keys {
    /// The version of the state that changed them last; 0 before the first.
    pub(crate) changed: u64,
    /// The newest first.
    epochs: Vec<KeyEpoch>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct KeyEpoch {
    epoch: GuardEpoch,
    /// When it began, in microseconds since 1970.
    at_us: u64,
    key: KeyBytes,
}

impl Keys {
    pub(crate) const fn new() -> Self {
        Self {
            changed: 0,
            epochs: Vec::new(),
        }
    }

    /// The newest epoch, and when it began, in microseconds since 1970.
    pub(crate) fn newest(&self) -> Option<(GuardEpoch, u64)> {
        self.epochs
            .first()
            .map(|newest| (newest.epoch, newest.at_us))
    }

    /// The epoch that may begin next.
    pub(crate) fn next(&self) -> Option<GuardEpoch> {
        match self.newest() {
            Some((epoch, _)) => epoch.next(),
            None => Some(FIRST_KEY_EPOCH),
        }
    }

    /// The key to make grants with.
    pub(crate) fn maker(&self) -> Option<(GuardEpoch, EpochKey)> {
        let newest = self.epochs.first()?;
        Some((newest.epoch, EpochKey::new(&newest.key.0)))
    }

    pub(crate) fn encode(&self, out: &mut Encoder) {
        out.put(self.changed);
        out.put(self.epochs.len() as u32);
        for epoch in &self.epochs {
            out.put(epoch.epoch);
            out.put(epoch.at_us);
            out.0.extend_from_slice(&epoch.key.0);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut keys = Self {
            changed: reader.field()?,
            epochs: Vec::new(),
        };
        for _ in 0..count(reader, EPOCHS_MAX, "epochs of keys")? {
            let epoch = KeyEpoch {
                epoch: reader.field()?,
                at_us: reader.field()?,
                key: key_bytes(reader)?,
            };
            let last = keys
                .epochs
                .last()
                .map_or(GuardEpoch::MAX, |last| last.epoch);
            if epoch.epoch >= last || epoch.epoch < FIRST_KEY_EPOCH {
                return Err(range("epoch of keys", epoch.epoch.get()));
            }
            keys.epochs.push(epoch);
        }
        Ok(keys)
    }
}

/// The bytes of a key.
pub(crate) fn key_bytes(reader: &mut Reader<'_>) -> Result<KeyBytes, WireError> {
    let bytes = reader.bytes(KEY_BYTES)?;
    let bytes = bytes.try_into().expect("so many were read");
    Ok(KeyBytes(bytes))
}

/// A connection by which the process of a node is told its keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KeysWanted {
    node: NodeId,
    /// The version that it knows.
    told: u64,
}

impl<K: Knobs> Directory<K> {
    /// The process of a node wants its keys. That it is of this node, whoever has the connection has checked.
    pub(crate) fn keys_requested(&mut self, conn: ConnId, request: KeysRequest) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.keys = Some(KeysWanted {
                node: request.node,
                told: request.known,
            });
        }
    }

    pub(crate) fn poll_keys(
        &mut self,
        room: &mut impl FnMut(ConnId) -> usize,
        out: &mut Vec<u8>,
    ) -> Option<ConnId> {
        let version = if K::mutant(Mutant::GrantKeysOnly) {
            self.state.keys.changed
        } else {
            self.state.keys_changed()
        };
        if version == 0 || version > self.may_leave() {
            return None;
        }
        let (&id, conn, wanted) = self.conns.iter_mut().find_map(|(id, conn)| {
            let wanted = conn.keys.filter(|wanted| wanted.told != version)?;
            (room(*id) >= message_bytes::<KeysAnswer>(NODE_KEYS_BYTES_MAX))
                .then_some((id, conn, wanted))
        })?;
        let node = wanted.node;
        let mut keys = self.state.node_keys(node);
        if K::mutant(Mutant::GrantWithoutSerial) {
            keys.users.iter_mut().for_each(|(_, serial)| *serial = 0);
        }
        let keys = keys.to_bytes();
        let keys = keys.expect("the users of a cluster are within what a node is told");
        conn.keys = Some(KeysWanted {
            node,
            told: version,
        });
        put(out, &KeysAnswer { node, version }, &keys);
        Some(id)
    }
}

impl State {
    pub(crate) fn turn_keys(
        &mut self,
        at_us: u64,
        epoch: GuardEpoch,
        key: &KeyBytes,
    ) -> Result<(), &'static str> {
        if self.keys.next() != Some(epoch) {
            return Err("not the next epoch of keys");
        }
        let fresh = KeyEpoch {
            epoch,
            at_us,
            key: key.clone(),
        };
        self.keys.epochs.insert(0, fresh);
        self.keys.epochs.truncate(EPOCHS_MAX);
        self.keys.changed = self.version + 1;
        Ok(())
    }

    /// The version that last changed what nodes are told of keys and users; 0 when there is nothing to tell.
    pub(crate) fn keys_changed(&self) -> u64 {
        if self.keys.changed == 0 {
            return 0;
        }
        self.keys.changed.max(self.users.changed)
    }

    /// What a node is told: its own keys, and the users that there are with the least serial of each that is good.
    #[must_use]
    pub fn node_keys(&self, node: NodeId) -> NodeKeys {
        let epochs = self.keys.epochs.iter().map(|epoch| {
            let key = EpochKey::new(&epoch.key.0);
            (epoch.epoch, key.target_bytes(node, Inc::ZERO))
        });
        let users = self
            .users
            .iter()
            .map(|(_, user)| (user.number, user.serial));
        // By number, which is not the order of names.
        let users: BTreeMap<u32, u64> = [(ADMIN_NUMBER, 0)].into_iter().chain(users).collect();
        NodeKeys {
            version: self.keys_changed(),
            epochs: epochs.collect(),
            users: users.into_iter().collect(),
        }
    }
}
