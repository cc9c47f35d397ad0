//! Grants: what a session over datagrams rests on, and the tokens made from it.
//!
//! The controllers hold one key per grant epoch. From it follow a key per process that others open sessions to, and from
//! that the key of each grant to it. The opener is given the grant and its key; the process that it opens sessions to is
//! given only its own key. The first packet of a session carries the grant, and a token that nobody can make who does not
//! know the grant's key: so a receiver can tell a granted session from a forged one without any state, and without asking
//! anybody, also while no controller can be reached.
//!
//! ```text
//! epoch key -- HMAC(node, life) --> target's key -- HMAC(grant) --> grant's key -- hash(session, direction) --> token
//! ```
//! HMAC is that of SHA-256 (RFC 2104). A token is the first 8 bytes of SHA-256 over the grant's key, the session and the
//! direction: of a fixed length and cut short, so that nothing can be appended to it, and one block, because strangers make a
//! receiver compute it. A token says that its sender was granted the session; it
//! does not protect what follows from somebody who can read the network.

use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use ionian_types::{GuardEpoch, Inc, LogId, NodeId, SessionId, Token};
use sha2::{Digest, Sha256};

use crate::codec::{Reader, WireError, Writer};

mod keys;

pub use keys::{KEY_EPOCHS_MAX, KEY_USERS_MAX, NodeKeys};

/// The length of a key in bytes.
pub const KEY_BYTES: usize = 32;
/// The length of an encoded grant in bytes.
pub const GRANT_BYTES: usize = 50;
/// Sessions that one grant is good for: a session's number is 24 bits of its id.
pub const SESSIONS_PER_GRANT_MAX: u64 = 1 << 24;

/// What a grant allows on the logs that it names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Rights(u8);

impl Rights {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Append records, close sessions, ask for the fate of appends.
    pub const APPEND: Self = Self(1);
    /// Read, subscribe, ask for the tail and for places.
    pub const READ: Self = Self(1 << 1);
    /// Trim.
    pub const TRIM: Self = Self(1 << 2);
    /// Change the log: its shards, its replicas, who may use it. Only controllers look at it.
    pub const ADMIN: Self = Self(1 << 3);
    /// Take part: what replicas, leaves, roots and controllers say to each other.
    pub const MEMBER: Self = Self(1 << 4);
    /// Everything that a client can do with records.
    pub const CLIENT: Self = Self(0b111);
    /// Everything.
    pub const ALL: Self = Self(0b1_1111);

    /// Whether these hold all of `other`.
    #[must_use]
    pub const fn holds(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and the others.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without the others.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The rights with these bits; `None` when one is unknown.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits & !Self::ALL.0 == 0 {
            Some(Self(bits))
        } else {
            None
        }
    }

    /// The right of this name, as commands write it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, right)| *right)
    }
}

const NAMES: [(&str, Rights); 5] = [
    ("append", Rights::APPEND),
    ("read", Rights::READ),
    ("trim", Rights::TRIM),
    ("admin", Rights::ADMIN),
    ("member", Rights::MEMBER),
];

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = NAMES.iter().filter(|(_, right)| self.holds(*right));
        let mut any = false;
        for (name, _) in held {
            f.write_str(if any { "," } else { "" })?;
            f.write_str(name)?;
            any = true;
        }
        f.write_str(if any { "" } else { "none" })
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rights({self})")
    }
}

/// Who opens the sessions of a grant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Party {
    /// A process of the cluster: its node and life.
    Node(NodeId, Inc),
    /// A user: its number, and the number of its rights' last change. A grant made before a revocation is void.
    User(u32, u64),
}

/// A grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grant {
    /// 40 random bits: the upper part of the ids of its sessions.
    pub number: u64,
    /// The epoch of the key that it follows from. It ends with it.
    pub epoch: GuardEpoch,
    /// Who may use it.
    pub opener: Party,
    /// The node that sessions are opened to.
    pub target: NodeId,
    /// The log that it is for; `LogId::MAX` for every log.
    pub log: LogId,
    /// What it allows.
    pub rights: Rights,
    /// Bytes that the target keeps for the opener in one session, at most; 0 for the target's own limit.
    pub window_bytes: u32,
}

impl Grant {
    /// The id of the grant's session with this number.
    #[must_use]
    pub const fn session(&self, number: u64) -> SessionId {
        SessionId::new((self.number << 24) | (number % SESSIONS_PER_GRANT_MAX))
    }

    /// Whether a session of this id may be one of the grant's; the number of the session.
    #[must_use]
    pub const fn number_of(&self, session: SessionId) -> Option<u64> {
        if session.get() >> 24 == self.number {
            Some(session.get() % SESSIONS_PER_GRANT_MAX)
        } else {
            None
        }
    }

    /// Writes the grant, [`GRANT_BYTES`] long.
    ///
    /// # Errors
    /// [`WireError::Full`].
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), WireError> {
        writer.field(self.number)?;
        writer.field(self.epoch)?;
        let (kind, who, life) = match self.opener {
            Party::Node(node, inc) => (1u8, node.get(), inc.get()),
            Party::User(user, serial) => (2, user, serial),
        };
        writer.field(kind)?;
        writer.field(who)?;
        writer.field(life)?;
        writer.field(self.target)?;
        writer.field(self.log)?;
        writer.field(self.rights.0)?;
        writer.field(self.window_bytes)?;
        // Room for what a later version says, so that tokens of this one stay what they are.
        writer.bytes(&[0; 8])
    }

    /// Reads a grant that a peer supplied.
    ///
    /// # Errors
    /// Any [`WireError`]; effect none.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let range = |field, value| WireError::Range { field, value };
        let number: u64 = reader.field()?;
        if number >> 40 != 0 {
            return Err(range("grant number", number));
        }
        let epoch = reader.field()?;
        let kind: u8 = reader.field()?;
        let who: u32 = reader.field()?;
        let life: u64 = reader.field()?;
        let opener = match kind {
            1 => Party::Node(NodeId::new(who), Inc::new(life)),
            2 => Party::User(who, life),
            kind => return Err(range("grant opener", u64::from(kind))),
        };
        let target = reader.field()?;
        let log = reader.field()?;
        let bits: u8 = reader.field()?;
        let rights =
            Rights::from_bits(bits).ok_or_else(|| range("grant rights", u64::from(bits)))?;
        let window_bytes = reader.field()?;
        let reserved: u64 = reader.field()?;
        if reserved != 0 {
            return Err(range("grant reserved", reserved));
        }
        Ok(Self {
            number,
            epoch,
            opener,
            target,
            log,
            rights,
            window_bytes,
        })
    }

    /// The grant as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; GRANT_BYTES] {
        let mut bytes = [0; GRANT_BYTES];
        self.write(&mut Writer::new(&mut bytes))
            .expect("the array has the grant's length");
        bytes
    }
}

/// Which end of a session sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The end that opened it.
    Opener = 0,
    /// The other end.
    Target = 1,
}

/// The key of an epoch. Only controllers have it; in a cluster without, it is the secret that all nodes share.
#[derive(Clone)]
pub struct EpochKey(Hmac<Sha256>);

/// The key by which one life of a process tells the grants to it.
#[derive(Clone)]
pub struct TargetKey(Hmac<Sha256>);

/// The key of one grant, which its opener has.
#[derive(Clone)]
pub struct GrantKey([u8; KEY_BYTES]);

impl EpochKey {
    /// The key with these bytes.
    #[must_use]
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(keyed(bytes))
    }

    /// The key of an epoch that follows from a secret: for clusters whose nodes share one.
    #[must_use]
    pub fn of_secret(secret: &[u8; KEY_BYTES], epoch: GuardEpoch) -> Self {
        let mut mac = keyed(secret);
        mac.update(b"ionian epoch 1");
        mac.update(&epoch.get().to_le_bytes());
        Self::new(&digest(mac))
    }

    /// The bytes of the key of one life of a process, to be given to it alone.
    #[must_use]
    pub fn target_bytes(&self, node: NodeId, life: Inc) -> [u8; KEY_BYTES] {
        let mut mac = self.0.clone();
        mac.update(b"ionian target 1");
        mac.update(&node.get().to_le_bytes());
        mac.update(&life.get().to_le_bytes());
        digest(mac)
    }

    /// The key of one life of a process.
    #[must_use]
    pub fn target(&self, node: NodeId, life: Inc) -> TargetKey {
        TargetKey::new(&self.target_bytes(node, life))
    }
}

impl TargetKey {
    /// The key with these bytes.
    #[must_use]
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(keyed(bytes))
    }

    /// The bytes of a grant's key, to be given to its opener alone.
    #[must_use]
    pub fn grant_bytes(&self, grant: &Grant) -> [u8; KEY_BYTES] {
        let mut mac = self.0.clone();
        mac.update(&grant.to_bytes());
        digest(mac)
    }

    /// A grant's key.
    #[must_use]
    pub fn grant(&self, grant: &Grant) -> GrantKey {
        GrantKey::new(&self.grant_bytes(grant))
    }
}

impl GrantKey {
    /// The key with these bytes.
    #[must_use]
    pub const fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(*bytes)
    }

    /// What one end of a session sends with every frame.
    #[must_use]
    pub fn token(&self, session: SessionId, direction: Direction) -> Token {
        const SESSION_AT: usize = KEY_BYTES;
        let mut input = [0; KEY_BYTES + 9];
        input[..SESSION_AT].copy_from_slice(&self.0);
        input[SESSION_AT..SESSION_AT + 8].copy_from_slice(&session.get().to_le_bytes());
        input[SESSION_AT + 8] = direction as u8;
        let digest = Sha256::digest(input);
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&digest[..8]);
        Token::new(u64::from_le_bytes(bytes))
    }
}

macro_rules! hidden {
    ($($name:ident),*) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        })*
    };
}
hidden!(EpochKey, TargetKey, GrantKey);

fn keyed(bytes: &[u8; KEY_BYTES]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(bytes).expect("HMAC takes keys of any length")
}

fn digest(mac: Hmac<Sha256>) -> [u8; KEY_BYTES] {
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests;
