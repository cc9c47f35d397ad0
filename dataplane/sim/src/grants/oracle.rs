//! What is true: who was given what, what each node was told, and what each may therefore take. It knows no key and no token.

use std::collections::BTreeMap;

use ionian_types::{LogId, NodeId, SessionId};
use ionian_wire::grant::{Grant, Rights};

use super::message::KINDS;
use crate::invariant::{Invariant, Violation};

/// Who is given grants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Holder {
    /// A process of the cluster, which shares the secret of nodes.
    Process,
    /// A user: when it was added, and when its rights last changed.
    User { born: u64, changed: u64 },
}

/// What somebody was given, and by which epoch of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Given {
    pub(super) holder: Holder,
    pub(super) epoch: u64,
    pub(super) grant: Grant,
}

/// Where a datagram comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// From who was granted the session, for the first time.
    Genuine,
    /// The same once more, or at another node.
    Copy,
    /// From somebody else.
    Forged,
}

/// A user.
#[derive(Clone, Default, Debug)]
pub(super) struct User {
    born: u64,
    changed: u64,
    pub(super) rights: BTreeMap<LogId, Rights>,
}

/// What a node was told last.
#[derive(Clone, Default, Debug)]
struct Told {
    /// The newest epoch of keys; it and the one before are good.
    epoch: u64,
    /// By when they were added: when their rights last changed.
    users: BTreeMap<u64, u64>,
}

/// A session as it was granted.
#[derive(Clone, Copy, Debug)]
struct Session {
    given: Given,
    /// The first message in it that its grant does not allow.
    overstepped: Option<u64>,
    opened: bool,
}

/// The truth.
#[derive(Debug)]
pub(super) struct Oracle {
    ticks: u64,
    pub(super) epoch: u64,
    pub(super) users: BTreeMap<&'static str, User>,
    told: BTreeMap<NodeId, Told>,
    sessions: BTreeMap<SessionId, Session>,
    /// Messages said, by their numbers: in which session, and whether they were taken.
    said: BTreeMap<u64, (SessionId, bool)>,
}

/// The right that a message asks for.
fn needed(kind: u8) -> Rights {
    let known = KINDS.iter().find(|(known, _)| *known == kind);
    known.map_or(Rights::NONE, |(_, rights)| *rights)
}

/// A check.
pub(super) fn check(
    holds: bool,
    invariant: Invariant,
    what: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if holds {
        Ok(())
    } else {
        Err(Violation::new(invariant, what()))
    }
}

impl Oracle {
    /// A cluster whose controllers have begun their first epoch of keys.
    pub(super) const fn new(epoch: u64) -> Self {
        Self {
            ticks: 0,
            epoch,
            users: BTreeMap::new(),
            told: BTreeMap::new(),
            sessions: BTreeMap::new(),
            said: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, name: &'static str) {
        self.ticks += 1;
        let user = User {
            born: self.ticks,
            changed: self.ticks,
            rights: BTreeMap::new(),
        };
        self.users.insert(name, user);
    }

    pub(super) fn permit(&mut self, name: &str, log: LogId, rights: Rights) {
        self.ticks += 1;
        if let Some(user) = self.users.get_mut(name) {
            user.changed = self.ticks;
            user.rights.insert(log, rights);
        }
    }

    pub(super) fn rights(&self, name: &str, log: LogId) -> Rights {
        let rights = self.users.get(name).and_then(|user| user.rights.get(&log));
        rights.copied().unwrap_or(Rights::NONE)
    }

    /// What a user is given now.
    pub(super) fn give(&self, name: &str, grant: Grant) -> Given {
        let user = self.users.get(name);
        let (born, changed) = user.map_or((0, 0), |user| (user.born, user.changed));
        Given {
            holder: Holder::User { born, changed },
            epoch: self.epoch,
            grant,
        }
    }

    /// A node has heard everything.
    pub(super) fn tell(&mut self, node: NodeId) {
        let users = self.users.values().map(|user| (user.born, user.changed));
        let told = Told {
            epoch: self.epoch,
            users: users.collect(),
        };
        self.told.insert(node, told);
    }

    /// What forbids a node to take anything by this, if something does.
    fn forbids(&self, given: &Given) -> Option<Invariant> {
        let Holder::User { born, changed } = given.holder else {
            return None;
        };
        let Some(told) = self.told.get(&given.grant.target) else {
            return Some(Invariant::G1);
        };
        if given.epoch > told.epoch || given.epoch + 1 < told.epoch {
            return Some(Invariant::G1);
        }
        let good = told.users.get(&born).is_some_and(|since| *since <= changed);
        (!good).then_some(Invariant::G2)
    }

    /// Whether the target takes what is said by this, as far as the grant allows it.
    pub(super) fn allows(&self, given: &Given) -> bool {
        self.forbids(given).is_none()
    }

    /// Somebody was granted a session.
    pub(super) fn granted(&mut self, session: SessionId, given: Given) {
        let session_of = Session {
            given,
            overstepped: None,
            opened: false,
        };
        self.sessions.insert(session, session_of);
    }

    /// The holder of a session says something in it.
    pub(super) fn says(&mut self, session: SessionId, number: u64) {
        self.said.insert(number, (session, false));
    }

    /// A node has made a session for a datagram.
    pub(super) fn opened(
        &mut self,
        node: NodeId,
        id: SessionId,
        grant: &Grant,
        origin: Origin,
    ) -> Result<(), Violation> {
        let session = self.sessions.get(&id).copied();
        let known = session.filter(|session| {
            let given = session.given.grant;
            given == *grant && given.target == node && origin != Origin::Forged
        });
        let Some(session) = known else {
            let what = format!("session {id} at node {node} was opened by who was not granted it");
            return Err(Violation::new(Invariant::G3, what));
        };
        if let Some(why) = self.forbids(&session.given) {
            let what = format!(
                "session {id} at node {node} was opened by {:?}",
                session.given
            );
            return Err(Violation::new(why, what));
        }
        check(!session.opened, Invariant::G4, || {
            format!("session {id} at node {node} was opened again")
        })?;
        if let Some(session) = self.sessions.get_mut(&id) {
            session.opened = true;
        }
        Ok(())
    }

    /// A node has bound a session to a place.
    pub(super) fn bound(
        &self,
        id: SessionId,
        log: Option<LogId>,
        internal: bool,
    ) -> Result<(), Violation> {
        let grant = self.sessions.get(&id).map(|session| session.given.grant);
        let fits = grant.is_some_and(|grant| {
            let of_log = grant.log == LogId::MAX || log.is_none_or(|log| log == grant.log);
            of_log && (!internal || grant.rights.holds(Rights::MEMBER))
        });
        check(fits, Invariant::G5, || {
            format!(
                "session {id} is with a place of log {log:?} (internal: {internal}), by {grant:?}"
            )
        })
    }

    /// A node has taken a message.
    pub(super) fn taken(
        &mut self,
        id: SessionId,
        kind: u8,
        number: u64,
        origin: Origin,
    ) -> Result<(), Violation> {
        let (said, session) = (self.said.get(&number).copied(), self.sessions.get(&id));
        let (Some((in_session, taken)), Some(session)) = (said, session) else {
            let what = format!("message {number} was taken, which nobody said");
            return Err(Violation::new(Invariant::G3, what));
        };
        check(
            in_session == id && origin != Origin::Forged,
            Invariant::G3,
            || format!("message {number} was taken in session {id} from somebody else"),
        )?;
        if let Some(why) = self.forbids(&session.given) {
            let what = format!("message {number} was taken by {:?}", session.given);
            return Err(Violation::new(why, what));
        }
        check(!taken, Invariant::G4, || {
            format!("message {number} was taken twice")
        })?;
        let rights = session.given.grant.rights;
        let within = rights.holds(Rights::MEMBER) || rights.holds(needed(kind));
        check(within, Invariant::G5, || {
            format!(
                "a message that asks for {} was taken with {rights}",
                needed(kind)
            )
        })?;
        let follows = session.overstepped.is_some_and(|first| number > first);
        check(!follows, Invariant::G5, || {
            format!("message {number} was taken after one that was denied")
        })?;
        self.said.insert(number, (id, true));
        Ok(())
    }

    /// Whether the message was taken.
    pub(super) fn was_taken(&self, number: u64) -> bool {
        self.said.get(&number).is_some_and(|(_, taken)| *taken)
    }

    /// Whether the session's grant allows a message; it has been overstepped from then on, if not.
    pub(super) fn steps(&mut self, id: SessionId, kind: u8, number: u64) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else {
            return false;
        };
        let rights = session.given.grant.rights;
        let within = rights.holds(Rights::MEMBER) || rights.holds(needed(kind));
        if !within {
            session.overstepped.get_or_insert(number);
        }
        session.overstepped.is_none()
    }

    /// A node has heard news: what it may take nothing of is over.
    pub(super) fn still_open(&self, id: SessionId) -> Result<(), Violation> {
        let Some(session) = self.sessions.get(&id) else {
            return Ok(());
        };
        match self.forbids(&session.given) {
            None => Ok(()),
            Some(why) => Err(Violation::new(
                why,
                format!("session {id} goes on, by {:?}", session.given),
            )),
        }
    }

    /// A node lets the other end of a session send so many packets of so many bytes.
    pub(super) fn lets_send(
        &self,
        id: SessionId,
        packets: u64,
        packet_bytes: usize,
        packets_least: u64,
    ) -> Result<(), Violation> {
        let window = self
            .sessions
            .get(&id)
            .map_or(0, |session| u64::from(session.given.grant.window_bytes));
        let bytes = packets * packet_bytes as u64;
        let fits = window == 0 || packets <= packets_least || bytes <= window;
        check(fits, Invariant::G6, || {
            format!("session {id} may have {bytes} bytes under way, its window is {window}")
        })
    }
}
