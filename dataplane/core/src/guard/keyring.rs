//! The keys of a process: what it tells granted sessions by, and the grants that it opens sessions with.
//!
//! A process tells the packet that opens a granted session without asking anybody and without any state: it carries its grant
//! and a token that follows from the process's own key. Only then is something kept: which sessions the grant has had, so that
//! a packet that comes again, or was caught and sent again later, opens nothing.
//!
//! Processes of a cluster's nodes share a secret, and make the grants that they need for each other from it. For users the
//! controllers make grants, and tell each node its own keys, for one epoch after the other: that of the epoch before stays good
//! until the next one, so that nobody is cut off while keys change; and the users that there are. What a node was told last
//! stays true while it hears nothing.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::marker::PhantomData;

use ionian_types::{GuardEpoch, Inc, Knobs, LogId, Mutant, NodeId, SessionId, Shipped, Token};
use ionian_wire::Reader;
use ionian_wire::grant::{
    Direction, EpochKey, Grant, GrantKey, KEY_BYTES, NodeKeys, Party, Rights,
    SESSIONS_PER_GRANT_MAX, TargetKey,
};
use ionian_wire::packet::{PacketKind, PacketPrefix, PacketView};

use crate::session::{CREDIT_INITIAL_PACKETS, SessionConfig};

#[cfg(test)]
mod tests;

/// Grants whose last session is remembered.
const SEEN_MAX: usize = 65_536;
/// The epoch of grants that follow from the secret which nodes share. Epochs of controllers come after it.
const SHARED_EPOCH: GuardEpoch = GuardEpoch::new(1);
/// The life of every process in a cluster whose nodes share a secret.
const SHARED_LIFE: Inc = Inc::ZERO;
/// Whoever does not know the node behind an address; only where a secret is shared.
pub const ANY_NODE: NodeId = NodeId::MAX;

/// What the controllers tell a process of keys and grants.
#[derive(Clone, Debug)]
pub enum KeyChange {
    /// Its own keys, and the users whose grants are good, in place of what was said before.
    Told(NodeKeys),
    /// A grant to open sessions to its target with, and its key; in place of the one before.
    Hold(Grant, [u8; KEY_BYTES]),
    /// No grant is held any more.
    Release,
}

/// Why a packet is of no granted session. Nothing is kept of it, and nobody is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stranger {
    /// It is damaged, or does not show a grant.
    Malformed,
    /// The grant is of an epoch that has ended or not begun.
    Epoch,
    /// The grant is for another process.
    Target,
    /// The grant was made before its user's rights were changed, or its user is none any more.
    Void,
    /// The token is not the grant's.
    Token,
}

/// What a packet of a session that is not there brings about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Knock {
    /// Nothing: it is a stranger's.
    Stranger(Stranger),
    /// The session is over, or of an earlier life of this end: whoever holds its grant is told.
    Over(Granted),
    /// The session would be made, and there are too many: whoever holds its grant is told.
    Full(Granted),
    /// The session is to be made.
    Open(Granted),
}

/// A session that a grant opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Granted {
    /// The session.
    pub session: SessionId,
    /// What it rests on.
    pub grant: Grant,
    /// What this end sends with every packet.
    pub send: Token,
    /// What the other end does.
    pub receive: Token,
}

impl Granted {
    /// The configuration of this end of the session; `template` has what all sessions of the end have in common. An end that did not
    /// open the session keeps no more than the grant's window says, as far as a session works with it.
    #[must_use]
    pub fn config<K: Knobs>(&self, template: &SessionConfig, inbound: bool) -> SessionConfig {
        let mut config = *template;
        config.session = self.session;
        config.epoch = self.grant.epoch;
        (config.token_send, config.token_receive) = (self.send, self.receive);
        let window_bytes = self.grant.window_bytes as usize;
        if inbound && window_bytes > 0 && !K::mutant(Mutant::GrantWindowIgnored) {
            let least = CREDIT_INITIAL_PACKETS as usize * template.payload_bytes_max();
            config.receive_bytes_max = template.receive_bytes_max.min(window_bytes.max(least));
        }
        config
    }
}

/// A grant to open sessions with.
#[derive(Debug)]
struct Held {
    grant: Grant,
    key: GrantKey,
    /// The number of its last session.
    last: u64,
}

/// One epoch of a process's own keys.
#[derive(Debug)]
struct Epoch {
    epoch: GuardEpoch,
    own: TargetKey,
    /// For grants to any node.
    any: Option<TargetKey>,
}

/// The keys of a process.
#[derive(Debug)]
pub struct Keyring<K: Knobs = Shipped> {
    node: NodeId,
    /// The epoch of the secret, where one is shared, and the key to make its grants with.
    shared: Option<(Epoch, EpochKey)>,
    /// Of the controllers, the newest first.
    epochs: Vec<Epoch>,
    /// The version of the controllers' state that keys and users are of.
    told: Option<u64>,
    /// The users whose grants are good, from this serial on.
    users: BTreeMap<u32, u64>,
    /// What it allows itself in the grants that it makes.
    rights: Rights,
    held: BTreeMap<NodeId, Held>,
    seen: BTreeMap<u64, Seen>,
    knobs: PhantomData<K>,
}

impl<K: Knobs> Keyring<K> {
    /// The keys of a process that is given them by controllers. It opens and takes nothing before.
    #[must_use]
    pub const fn of_controllers(node: NodeId) -> Self {
        Self {
            node,
            shared: None,
            epochs: Vec::new(),
            told: None,
            users: BTreeMap::new(),
            rights: Rights::NONE,
            held: BTreeMap::new(),
            seen: BTreeMap::new(),
            knobs: PhantomData,
        }
    }

    /// The keys of a process that shares the secret of nodes: it makes its grants, with these rights, itself. Controllers may
    /// give it others, for users.
    #[must_use]
    pub fn of_secret(secret: &[u8; KEY_BYTES], node: NodeId, rights: Rights) -> Self {
        let key = EpochKey::of_secret(secret, SHARED_EPOCH);
        let epoch = Epoch {
            epoch: SHARED_EPOCH,
            own: key.target(node, SHARED_LIFE),
            any: Some(key.target(ANY_NODE, SHARED_LIFE)),
        };
        Self {
            shared: Some((epoch, key)),
            rights,
            ..Self::of_controllers(node)
        }
    }

    /// Takes what the controllers say. Late and repeated changes change nothing.
    pub fn change(&mut self, change: &KeyChange) {
        match change {
            KeyChange::Told(keys) => self.learn(keys),
            KeyChange::Hold(grant, key) => self.hold(*grant, key),
            KeyChange::Release => self.held.clear(),
        }
    }

    fn learn(&mut self, keys: &NodeKeys) {
        let late = self.told.is_some_and(|told| told >= keys.version);
        if late && !K::mutant(Mutant::GrantLateKeys) {
            return;
        }
        self.told = Some(keys.version);
        let epochs = keys.epochs.iter().map(|(epoch, key)| Epoch {
            epoch: *epoch,
            own: TargetKey::new(key),
            any: None,
        });
        let ended = core::mem::take(&mut self.epochs);
        self.epochs = epochs.filter(|own| own.epoch > SHARED_EPOCH).collect();
        if K::mutant(Mutant::GrantOldEpoch) {
            self.epochs.extend(ended);
        }
        self.users = keys.users.iter().copied().collect();
    }

    /// The epochs whose grants are good.
    fn good(&self) -> impl Iterator<Item = &Epoch> {
        let shared = self.shared.iter().map(|(epoch, _)| epoch);
        shared.chain(&self.epochs)
    }

    /// Whether sessions of this grant go on: its epoch has not ended, and it is not void. Who was never told, as a user's
    /// client, knows of no end.
    #[must_use]
    pub fn is_good(&self, grant: &Grant) -> bool {
        if self.told.is_none() {
            return true;
        }
        let begun = self.good().any(|own| own.epoch == grant.epoch);
        (begun || K::mutant(Mutant::GrantOutlivesEpoch))
            && (!self.is_void(grant) || K::mutant(Mutant::GrantOutlivesRevocation))
    }

    fn hold(&mut self, grant: Grant, key: &[u8; KEY_BYTES]) {
        let key = GrantKey::new(key);
        let held = Held {
            grant,
            key,
            last: 0,
        };
        self.held.insert(grant.target, held);
    }

    fn is_void(&self, grant: &Grant) -> bool {
        match grant.opener {
            Party::User(user, serial) => {
                let least = self.users.get(&user);
                let before = least.is_some_and(|least| serial < *least);
                before && !K::mutant(Mutant::GrantBeforeRevocation)
                    || least.is_none() && !K::mutant(Mutant::GrantOfNobody)
            }
            Party::Node(..) => false,
        }
    }

    /// A new session to a process of this node; `None` without a grant to it. Where a secret is shared, a grant is made
    /// with random bits of `random`.
    pub fn open(
        &mut self,
        target: NodeId,
        random: impl FnOnce() -> Option<u64>,
    ) -> Option<Granted> {
        if !self.held.contains_key(&target) {
            self.make(target, random)?;
        }
        let held = self.held.get_mut(&target)?;
        if held.last + 1 >= SESSIONS_PER_GRANT_MAX {
            // Used up. Where a secret is shared the next try makes a new one; else the controllers do.
            self.held.remove(&target);
            return None;
        }
        held.last += 1;
        let session = held.grant.session(held.last);
        Some(Granted {
            session,
            grant: held.grant,
            send: held.key.token(session, Direction::Opener),
            receive: held.key.token(session, Direction::Target),
        })
    }

    /// Makes a grant, where a secret is shared.
    fn make(&mut self, target: NodeId, random: impl FnOnce() -> Option<u64>) -> Option<()> {
        let (_, shared) = self.shared.as_ref()?;
        let grant = Grant {
            number: random()? >> 24,
            epoch: SHARED_EPOCH,
            opener: Party::Node(self.node, SHARED_LIFE),
            target,
            log: LogId::MAX,
            rights: self.rights,
            window_bytes: 0,
        };
        let key = shared.target(target, SHARED_LIFE).grant_bytes(&grant);
        self.hold(grant, &key);
        Some(())
    }

    /// Whether the session may be made: its grant has not had it before. It has from now on.
    fn admit(&mut self, granted: &Granted) -> bool {
        let Some(number) = granted.grant.number_of(granted.session) else {
            return false;
        };
        let grant = granted.grant.number;
        if self.seen.len() >= SEEN_MAX && !self.seen.contains_key(&grant) {
            // Which one is forgotten matters little: an old session of it could be opened again, and would stay empty.
            self.seen.pop_first();
        }
        self.seen.entry(grant).or_default().take(number) || K::mutant(Mutant::GrantReplayed)
    }

    /// What is to be done with a packet of a session that is not there; `full` if there are as many as there may be. Nothing is
    /// kept, but that a session which is to be made was there.
    pub fn knock(&mut self, prefix: &PacketPrefix, packet: &[u8], full: bool) -> Knock {
        let granted = match self.check(prefix, packet) {
            Ok(granted) => granted,
            Err(why) => return Knock::Stranger(why),
        };
        let view = PacketView::new_checked(packet);
        // Whoever has heard of this end had a session with an earlier life of it, or with one that is over.
        let fresh = view.is_ok_and(|view| view.header().ack == 0);
        if fresh && full {
            Knock::Full(granted)
        } else if fresh && self.admit(&granted) {
            Knock::Open(granted)
        } else {
            Knock::Over(granted)
        }
    }

    /// The session of a packet that shows its grant, if its token is right. Keeps nothing.
    fn check(&self, prefix: &PacketPrefix, packet: &[u8]) -> Result<Granted, Stranger> {
        let epoch = self.good().find(|own| own.epoch == prefix.epoch);
        let epoch = epoch.ok_or(Stranger::Epoch)?;
        let view = PacketView::new_checked(packet).map_err(|_| Stranger::Malformed)?;
        let grant = shown_grant(&view).ok_or(Stranger::Malformed)?;
        if grant.epoch != prefix.epoch || grant.number_of(prefix.session).is_none() {
            return Err(Stranger::Malformed);
        }
        let key = match grant.target {
            target if target == self.node => &epoch.own,
            ANY_NODE => epoch.any.as_ref().ok_or(Stranger::Target)?,
            _ => return Err(Stranger::Target),
        };
        if self.is_void(&grant) {
            return Err(Stranger::Void);
        }
        let key = key.grant(&grant);
        let receive = key.token(prefix.session, Direction::Opener);
        if !Self::fits(&key, &grant, prefix, receive) {
            return Err(Stranger::Token);
        }
        Ok(Granted {
            session: prefix.session,
            grant,
            send: key.token(prefix.session, Direction::Target),
            receive,
        })
    }

    /// Whether the token of a packet is what the opener of its session sends.
    fn fits(key: &GrantKey, grant: &Grant, prefix: &PacketPrefix, receive: Token) -> bool {
        let sent = prefix.token;
        sent == receive
            || K::mutant(Mutant::GrantTokenInPart) && sent.get() as u32 == receive.get() as u32
            || K::mutant(Mutant::GrantTokenOfAnyEnd)
                && sent == key.token(prefix.session, Direction::Target)
            || K::mutant(Mutant::GrantTokenOfAnySession)
                && sent == key.token(grant.session(1), Direction::Opener)
    }
}

/// The grant that a packet shows.
fn shown_grant(view: &PacketView<'_>) -> Option<Grant> {
    if view.header().kind != PacketKind::Open {
        return None;
    }
    let mut reader = Reader::new(view.payload());
    Grant::read(&mut reader).ok().filter(|_| reader.is_empty())
}

/// Which sessions a grant has had: those below `end - 64` for sure, and of the last 64 those with their bit set.
#[derive(Clone, Copy, Default, Debug)]
struct Seen {
    /// The number after the highest.
    end: u64,
    /// Bit `i` stands for `end - 1 - i`.
    last: u64,
}

impl Seen {
    /// Whether the session of this number was not there before; it is from now on. Sessions opened at the same time may
    /// come in any order.
    fn take(&mut self, number: u64) -> bool {
        if number >= self.end {
            let ahead = number + 1 - self.end;
            self.last = if ahead < 64 { self.last << ahead } else { 0 } | 1;
            self.end = number + 1;
            return true;
        }
        let bit = 1u64.checked_shl((self.end - 1 - number).min(64) as u32);
        let fresh = bit.filter(|bit| self.last & bit == 0);
        self.last |= fresh.unwrap_or(0);
        fresh.is_some()
    }
}
