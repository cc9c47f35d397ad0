//! What the controllers tell a node of keys and users, and what a user is given to open sessions with.
//!
//! ```text
//! node keys: state version u64 | epochs u8 | (epoch u64, key 32 bytes) x epochs | users u32 | (number u32, serial u64) x users
//! ```
//! It is all there is to know: whoever takes it throws away what it was told before.

use core::fmt;

use ionian_types::GuardEpoch;

use super::KEY_BYTES;
use crate::codec::{Reader, WireError, Writer};

/// Epochs that a node is told of at a time, at most.
pub const KEY_EPOCHS_MAX: usize = 2;
/// Users that a node is told of, at most.
pub const KEY_USERS_MAX: usize = 4096;

/// A node's keys, and the users whose grants are good.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct NodeKeys {
    /// The version of the controllers' state that it is of. A later one knows more.
    pub version: u64,
    /// The node's own key of each epoch, the newest first. What follows from no other key is no grant.
    pub epochs: Vec<(GuardEpoch, [u8; KEY_BYTES])>,
    /// The users that there are, by rising number, each with the number of its rights' last change: grants of others, and
    /// earlier ones, are void.
    pub users: Vec<(u32, u64)>,
}

impl fmt::Debug for NodeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epochs: Vec<GuardEpoch> = self.epochs.iter().map(|(epoch, _)| *epoch).collect();
        f.debug_struct("NodeKeys")
            .field("version", &self.version)
            .field("epochs", &epochs)
            .field("users", &self.users)
            .finish()
    }
}

impl NodeKeys {
    /// The encoded length in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        8 + 1 + self.epochs.len() * (8 + KEY_BYTES) + 4 + self.users.len() * 12
    }

    /// The keys as bytes.
    ///
    /// # Errors
    /// [`WireError::Range`] for more epochs or users than are read; effect none.
    pub fn to_bytes(&self) -> Result<Vec<u8>, WireError> {
        within(self.epochs.len(), KEY_EPOCHS_MAX, "epochs of keys")?;
        within(self.users.len(), KEY_USERS_MAX, "users")?;
        let mut bytes = vec![0; self.encoded_len()];
        let mut writer = Writer::new(&mut bytes);
        writer.field(self.version)?;
        writer.field(self.epochs.len() as u8)?;
        for (epoch, key) in &self.epochs {
            writer.field(*epoch)?;
            writer.bytes(key)?;
        }
        writer.field(self.users.len() as u32)?;
        for (number, serial) in &self.users {
            writer.field(*number)?;
            writer.field(*serial)?;
        }
        Ok(bytes)
    }

    /// Reads what a controller, or a file, supplied.
    ///
    /// # Errors
    /// Any [`WireError`]; effect none.
    pub fn read(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let version = reader.field()?;
        let count: u8 = reader.field()?;
        within(usize::from(count), KEY_EPOCHS_MAX, "epochs of keys")?;
        let mut keys = Self {
            version,
            ..Self::default()
        };
        for _ in 0..count {
            let epoch: GuardEpoch = reader.field()?;
            let mut key = [0; KEY_BYTES];
            key.copy_from_slice(reader.bytes(KEY_BYTES)?);
            if keys.epochs.last().is_some_and(|(last, _)| *last <= epoch) {
                return Err(range("epoch of keys", epoch.get()));
            }
            keys.epochs.push((epoch, key));
        }
        let count: u32 = reader.field()?;
        within(count as usize, KEY_USERS_MAX, "users")?;
        for _ in 0..count {
            let (number, serial) = (reader.field()?, reader.field()?);
            if keys.users.last().is_some_and(|(last, _)| *last >= number) {
                return Err(range("user number", u64::from(number)));
            }
            keys.users.push((number, serial));
        }
        if reader.is_empty() {
            Ok(keys)
        } else {
            Err(range("node keys tail bytes", reader.rest().len() as u64))
        }
    }
}

fn within(count: usize, max: usize, field: &'static str) -> Result<(), WireError> {
    if count > max {
        return Err(range(field, count as u64));
    }
    Ok(())
}

const fn range(field: &'static str, value: u64) -> WireError {
    WireError::Range { field, value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_read_as_they_were_written_and_not_shown() {
        let keys = NodeKeys {
            version: 9,
            epochs: vec![
                (GuardEpoch::new(4), [7; KEY_BYTES]),
                (GuardEpoch::new(3), [8; KEY_BYTES]),
            ],
            users: vec![(0, 0), (2, 9)],
        };
        let bytes = keys.to_bytes().unwrap();
        assert_eq!(NodeKeys::read(&bytes), Ok(keys.clone()));
        for len in 0..bytes.len() {
            assert!(NodeKeys::read(&bytes[..len]).is_err(), "{len}");
        }
        assert!(!format!("{keys:?}").contains("7, 7"));
        let mut wrong = keys.clone();
        wrong.epochs.reverse();
        assert!(NodeKeys::read(&wrong.to_bytes().unwrap()).is_err());
        let mut wrong = keys.clone();
        wrong.users.reverse();
        assert!(NodeKeys::read(&wrong.to_bytes().unwrap()).is_err());
        let mut wrong = keys;
        wrong.users = vec![(1, 1); KEY_USERS_MAX + 1];
        assert!(wrong.to_bytes().is_err());
    }

    proptest! {
        #[test]
        fn bytes_that_nobody_should_send_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(keys) = NodeKeys::read(&bytes) {
                prop_assert_eq!(keys.to_bytes().unwrap(), bytes);
            }
        }
    }
}
