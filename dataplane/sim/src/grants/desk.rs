//! What operators, users and controllers do: users and rights change, keys turn, grants are given, nodes are told.

use ionian_control_core::{Asker, Details, Operate, Operated, Operation, USER_RIGHTS, Who};
use ionian_core::guard::KeyChange;
use ionian_types::{ConnId, Inc, Knobs};
use ionian_wire::frame::{KeysRequest, Message as Frame, encode};
use ionian_wire::grant::{EpochKey, Grant, GrantKey, KEY_BYTES, Rights};

use super::oracle::{Given, check};
use super::{GrantWorld, LOGS, NODES, USERS, log_of};
use crate::invariant::{Invariant, Violation};

impl<K: Knobs> GrantWorld<K> {
    pub(super) fn ask(&mut self, who: Who<'_>, operation: Operation) -> Operated {
        let plan = false;
        let bytes = Operate { plan, operation }.encode();
        let random = self.rng.draw();
        let asker = Asker { who, random };
        let (_, answer) = self.directory.operate(self.now, &asker, &bytes);
        let answer = Operated::decode(&answer).expect("an answer of the controllers can be read");
        if self.trace {
            println!(
                "{} {who:?} asks: {:?}, {}",
                self.now.as_ns() / 1000,
                answer.refused,
                answer.text
            );
        }
        answer
    }

    /// An operator changes users.
    pub(super) fn operate(&mut self) -> Result<(), Violation> {
        let (name, log) = (self.rng.pick(&USERS), self.rng.below(2) as usize);
        let known = self.oracle.users.contains_key(name);
        let rights = self.drawn_rights();
        let user = name.to_owned();
        let operation = match self.rng.below(5) {
            0 if known => Operation::RevokeUser { user },
            _ if !known => Operation::AddUser { user },
            _ => Operation::GrantLog {
                log: log_of(log),
                user,
                rights,
            },
        };
        let answer = self.ask(Who::Operator, operation.clone());
        check(!answer.refused, Invariant::G7, || {
            format!("an operator was refused: {}", answer.text)
        })?;
        match operation {
            Operation::AddUser { .. } => self.oracle.add(name),
            Operation::RevokeUser { .. } => drop(self.oracle.users.remove(name)),
            _ if self.oracle.rights(name, log_of(log)) != rights => {
                self.oracle.permit(name, log_of(log), rights);
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn drawn_rights(&mut self) -> Rights {
        let bits = self.rng.draw() as u8 & USER_RIGHTS.bits();
        Rights::from_bits(bits).unwrap_or(Rights::NONE)
    }

    /// A user asks for what only some may.
    pub(super) fn overreach(&mut self) -> Result<(), Violation> {
        let (name, other) = (self.rng.pick(&USERS), self.rng.pick(&USERS));
        let log = log_of(self.rng.below(2) as usize);
        let (user, rights) = (other.to_owned(), self.drawn_rights());
        let may = self.oracle.rights(name, log).holds(Rights::ADMIN);
        let permits = self.rng.permille(700);
        let operation = if permits {
            Operation::GrantLog { log, user, rights }
        } else {
            Operation::AddUser { user }
        };
        let answer = self.ask(Who::User(name), operation);
        self.counts.refused += u64::from(answer.refused);
        check(answer.refused || permits && may, Invariant::G8, || {
            format!("{name} without the right to admin log {log} has changed who may use it")
        })?;
        let known = self.oracle.users.contains_key(other);
        let wrongly = answer.refused && permits && may && known;
        check(!wrongly, Invariant::G7, || {
            format!(
                "{name} may admin log {log} and was refused: {}",
                answer.text
            )
        })?;
        if !answer.refused && self.oracle.rights(other, log) != rights {
            self.oracle.permit(other, log, rights);
        }
        Ok(())
    }

    /// A user's client asks for its grants.
    pub(super) fn ask_for_grants(&mut self) -> Result<(), Violation> {
        let at = self.rng.below(USERS.len() as u64) as usize;
        let (name, log) = (USERS[at], self.rng.below(2) as usize);
        let rights = self.oracle.rights(name, log_of(log));
        let operation = Operation::OpenSessions {
            log: LOGS[log].to_owned(),
        };
        let answer = self.ask(Who::User(name), operation);
        let Details::Grants(given) = answer.details else {
            self.counts.refused += 1;
            return check(rights == Rights::NONE, Invariant::G7, || {
                format!("{name} has {rights} and is given nothing: {}", answer.text)
            });
        };
        for (grant, key) in given.grants {
            let within = grant.log == log_of(log) && rights.holds(grant.rights);
            check(within && rights != Rights::NONE, Invariant::G8, || {
                format!("{name} has {rights} on log {log} and is given {grant:?}")
            })?;
            self.hold(at, grant, &key);
        }
        Ok(())
    }

    pub(super) fn hold(&mut self, caller: usize, grant: Grant, key: &[u8; KEY_BYTES]) {
        let caller = &mut self.callers[caller];
        caller.keyring.change(&KeyChange::Hold(grant, *key));
        let given = self.oracle.give(caller.user.unwrap_or_default(), grant);
        caller
            .given
            .insert(grant.target, (given, GrantKey::new(key)));
    }

    /// The controllers give a user's client a grant with a window, in place of one that it has.
    pub(super) fn narrow(&mut self) {
        let at = self.rng.below(USERS.len() as u64) as usize;
        let (number, window_bytes) = (self.rng.draw() >> 24, self.rng.pick(&[1, 2000, 4000, 8000]));
        let had = self.callers[at].given.values().next().cloned();
        let Some((given, _)) = had else { return };
        let Some(key) = self.keys.get(&given.epoch) else {
            return;
        };
        let grant = Grant {
            number,
            window_bytes,
            ..given.grant
        };
        let target = EpochKey::new(key).target(grant.target, Inc::ZERO);
        let key = target.grant_bytes(&grant);
        let caller = &mut self.callers[at];
        caller.keyring.change(&KeyChange::Hold(grant, key));
        // Of the moment at which that one was given.
        let given = Given { grant, ..given };
        caller
            .given
            .insert(grant.target, (given, GrantKey::new(&key)));
    }

    /// The next epoch of keys begins.
    pub(super) fn turn_keys(&mut self) -> Result<(), Violation> {
        let mut key = [0; KEY_BYTES];
        for part in key.chunks_exact_mut(8) {
            part.copy_from_slice(&self.rng.draw().to_le_bytes());
        }
        self.directory.turn_keys(key);
        self.oracle.epoch += 1;
        self.keys.insert(self.oracle.epoch, key);
        self.drain()
    }

    /// A node loses its connection to the controllers, or gets one.
    pub(super) fn plug(&mut self) {
        let at = self.rng.below(u64::from(NODES)) as usize;
        let node = &mut self.nodes[at];
        if let Some(conn) = node.conn.take() {
            self.directory.disconnected(self.now, conn);
            return;
        }
        self.conns += 1;
        let conn = ConnId::new(self.conns);
        node.conn = Some(conn);
        self.directory.connected(conn);
        let known = node.past.last().map_or(0, |keys| keys.version);
        let request = KeysRequest {
            node: node.server.node,
            known,
        };
        let mut out = [0; 64];
        let len = encode(&mut out, &request, &[]).expect("a short message");
        let (request, _) = Frame::new_checked(&out[..len]).expect("as it was written");
        self.directory.handle(self.now, conn, &request);
    }

    /// What the controllers said before comes again.
    pub(super) fn repeat_news(&mut self) {
        let at = self.rng.below(u64::from(NODES)) as usize;
        let node = &mut self.nodes[at];
        let which = self.rng.below(node.past.len() as u64) as usize;
        if let Some(keys) = node.past.get(which) {
            node.server.told(keys);
        }
    }
}
