//! Users of the cluster and what each may do with which log.
//!
//! A user is the name in a client certificate. The name alone gives nothing: an operator adds the user and grants rights on
//! logs. Every change of a user's rights gives the user a new number, its *serial*; grants for sessions name it, and nodes
//! are told the least one that is good ([`State::node_keys`]), so that a change takes effect in sessions that are open.
//!
//! The user [`ADMIN`] is not in the list: it may do everything, and cannot be revoked but with the cluster's authority.

use std::collections::BTreeMap;

use ionian_types::LogId;
use ionian_wire::directory::LOGS_MAX;
use ionian_wire::grant::Rights;
use ionian_wire::{Reader, WireError};

use crate::codec::{Encoder, count, range, text};
use crate::picture::UserPicture;
use crate::state::State;

/// The user who may operate a cluster.
pub const ADMIN: &str = "admin";
/// The most users of a cluster.
pub const USERS_MAX: usize = 1024;
/// The most pairs of a user and a log with rights.
pub const RIGHTS_MAX: usize = 16_384;
/// The longest name of a user in bytes.
pub const USER_NAME_BYTES_MAX: usize = 63;
/// The number that grants of [`ADMIN`] name.
pub(crate) const ADMIN_NUMBER: u32 = 0;
/// The rights that a user can have: those of members are for the cluster's own processes.
pub const USER_RIGHTS: Rights = Rights::CLIENT.with(Rights::ADMIN);

/// The users.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Users {
    /// The number of the next one; none is used again.
    next: u32,
    /// The version of the state that changed what nodes are told of users; 0 before the first.
    pub(crate) changed: u64,
    known: BTreeMap<String, User>,
}

/// A user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct User {
    pub(crate) number: u32,
    /// The version of the state that last changed its rights.
    pub(crate) serial: u64,
    /// By log; never none.
    pub(crate) rights: BTreeMap<LogId, Rights>,
}

impl Users {
    pub(crate) const fn new() -> Self {
        Self {
            next: ADMIN_NUMBER + 1,
            changed: 0,
            known: BTreeMap::new(),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&User> {
        self.known.get(name)
    }

    /// By name.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &User)> {
        self.known.iter().map(|(name, user)| (name.as_str(), user))
    }

    fn rights(&self) -> usize {
        self.known.values().map(|user| user.rights.len()).sum()
    }

    /// A log is gone: nobody has rights on it. Its id is not used again, so grants for it lead nowhere.
    pub(crate) fn forget_log(&mut self, log: LogId) {
        for user in self.known.values_mut() {
            user.rights.remove(&log);
        }
    }

    pub(crate) fn encode(&self, out: &mut Encoder) {
        out.put(self.next);
        out.put(self.changed);
        out.put(self.known.len() as u32);
        for (name, user) in &self.known {
            out.bytes(name.as_bytes());
            out.put(user.number);
            out.put(user.serial);
            out.put(user.rights.len() as u32);
            for (log, rights) in &user.rights {
                out.put(*log);
                out.put(rights.bits());
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut users = Self {
            next: reader.field()?,
            changed: reader.field()?,
            known: BTreeMap::new(),
        };
        for _ in 0..count(reader, USERS_MAX, "users")? {
            let name = user_name(reader)?;
            let mut user = User {
                number: reader.field()?,
                serial: reader.field()?,
                rights: BTreeMap::new(),
            };
            if user.number >= users.next || user.number == ADMIN_NUMBER {
                return Err(range("user number", u64::from(user.number)));
            }
            for _ in 0..count(reader, LOGS_MAX, "rights of a user")? {
                let log = reader.field()?;
                user.rights.insert(log, rights(reader)?);
            }
            users.known.insert(name, user);
        }
        Ok(users)
    }
}

/// Whether certificates can carry the name and operators can give it.
pub(crate) fn is_user_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=USER_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(letter)
}

/// The name of a user, of a legal length.
pub(crate) fn user_name(reader: &mut Reader<'_>) -> Result<String, WireError> {
    let name = text(reader)?;
    if name.len() > USER_NAME_BYTES_MAX {
        return Err(range("user name bytes", name.len() as u64));
    }
    Ok(name)
}

/// Rights that a user can have.
pub(crate) fn rights(reader: &mut Reader<'_>) -> Result<Rights, WireError> {
    let bits: u8 = reader.field()?;
    let rights = Rights::from_bits(bits).filter(|rights| USER_RIGHTS.holds(*rights));
    rights.ok_or_else(|| range("rights of a user", u64::from(bits)))
}

impl State {
    /// What a user may do with a log.
    #[must_use]
    pub fn rights_of(&self, user: &str, log: LogId) -> Rights {
        if user == ADMIN {
            return USER_RIGHTS;
        }
        let rights = self.users.get(user).and_then(|user| user.rights.get(&log));
        rights.copied().unwrap_or(Rights::NONE)
    }

    /// Whether the owner of a certificate of this name is a user.
    #[must_use]
    pub fn is_user(&self, name: &str) -> bool {
        name == ADMIN || self.users.get(name).is_some()
    }

    /// Whether a user may change some log.
    pub(crate) fn has_a_log(&self, user: &str) -> bool {
        let user = self.users.get(user);
        user.is_some_and(|user| user.rights.values().any(|held| held.holds(Rights::ADMIN)))
    }

    pub(crate) fn add_user(&mut self, name: &str) -> Result<(), &'static str> {
        if !is_user_name(name) {
            return Err("not a user's name: use 1 to 63 letters, digits, and `.`, `_` or `-`");
        }
        if name == ADMIN {
            return Err("the user admin is there in every cluster");
        }
        if self.users.known.contains_key(name) {
            return Err("the user is there already");
        }
        if self.users.known.len() >= USERS_MAX {
            return Err("the cluster has as many users as it can have, 1024");
        }
        let number = self.users.next;
        self.users.next = number.checked_add(1).ok_or("users are used up")?;
        let serial = self.version + 1;
        let user = User {
            number,
            serial,
            rights: BTreeMap::new(),
        };
        self.users.known.insert(name.to_owned(), user);
        self.users.changed = serial;
        Ok(())
    }

    /// The logs that the user had rights on.
    pub(crate) fn revoke_user(&mut self, name: &str) -> Result<Vec<LogId>, &'static str> {
        let user = self.users.known.remove(name).ok_or("no such user")?;
        self.users.changed = self.version + 1;
        Ok(user.rights.into_keys().collect())
    }

    pub(crate) fn permit(
        &mut self,
        log: LogId,
        name: &str,
        rights: Rights,
    ) -> Result<(), &'static str> {
        if !self.logs.contains_key(&log) {
            return Err("no such log");
        }
        if !USER_RIGHTS.holds(rights) {
            return Err("a right that users cannot have");
        }
        let full = self.users.rights() >= RIGHTS_MAX;
        let user = self.users.known.get_mut(name).ok_or("no such user")?;
        if rights == Rights::NONE {
            user.rights.remove(&log);
        } else if full && !user.rights.contains_key(&log) {
            return Err("too many users have rights on too many logs");
        } else {
            user.rights.insert(log, rights);
        }
        user.serial = self.version + 1;
        self.users.changed = user.serial;
        Ok(())
    }

    /// The users as operators see them.
    pub(crate) fn user_pictures(&self) -> Vec<UserPicture> {
        let name_of = |log: &LogId| self.logs.get(log).map(|log| log.name.clone());
        let users = self.users.iter().map(|(name, user)| UserPicture {
            name: name.to_owned(),
            number: user.number,
            serial: user.serial,
            rights: user
                .rights
                .iter()
                .filter_map(|(log, rights)| Some((name_of(log)?, *rights)))
                .collect(),
        });
        users.collect()
    }
}
