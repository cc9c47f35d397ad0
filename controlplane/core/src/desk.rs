//! Who asks, what each may ask for, and what a user is given to open sessions with.
//!
//! Whoever operates the cluster (the user `admin`, and controllers) may ask for everything. Another user may change the logs on
//! which it has the right `admin`, and may ask for grants: one for each node, for one log, with the rights that it has there,
//! which follow from the newest key ([`crate::keys`]).

use std::collections::BTreeSet;

use core::fmt;

use ionian_types::{ClusterId, Knobs, LogId, Mutant, NodeId, Time};
use ionian_wire::grant::{Grant, KEY_BYTES, Party, Rights};
use ionian_wire::{Reader, WireError};

use crate::codec::{Encoder, count};
use crate::command::Action;
use crate::directory::Directory;
use crate::keys::KeyBytes;
use crate::operation::{Details, Operated, Operation};
use crate::state::{Log, State};
use crate::users::{ADMIN, ADMIN_NUMBER, USER_RIGHTS, rights, user_name};

/// Grants in one answer, at most: those to the nodes of the log come first.
pub const GRANTS_PER_ANSWER_MAX: usize = 1024;

/// Who sends a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who<'a> {
    /// The user [`ADMIN`], or a controller.
    Operator,
    /// Another user, as its certificate names it.
    User(&'a str),
}

/// Who sends a request, and random bits for the numbers of the grants in its answer: no two requests have the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asker<'a> {
    /// Who it is.
    pub who: Who<'a>,
    /// Random bits.
    pub random: u64,
}

impl Asker<'_> {
    /// Whoever operates the cluster.
    pub const OPERATOR: Self = Asker {
        who: Who::Operator,
        random: 0,
    };

    const fn name(&self) -> &str {
        match self.who {
            Who::Operator => ADMIN,
            Who::User(name) => name,
        }
    }
}

/// What a user opens sessions with.
#[derive(Clone, PartialEq, Eq)]
pub struct UserGrants {
    /// The cluster.
    pub cluster: ClusterId,
    /// The user.
    pub user: String,
    /// The log.
    pub log: LogId,
    /// What the user may do with it.
    pub rights: Rights,
    /// After so many milliseconds they are to be asked for again: rights may have changed, or the keys.
    pub lease_ms: u32,
    /// A grant for each node, and its key.
    pub grants: Vec<(Grant, [u8; KEY_BYTES])>,
}

impl fmt::Debug for UserGrants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserGrants")
            .field("user", &self.user)
            .field("log", &self.log)
            .field("rights", &self.rights)
            .field("lease_ms", &self.lease_ms)
            .field("grants", &self.grants.len())
            .finish_non_exhaustive()
    }
}

impl UserGrants {
    pub(crate) fn encode(&self, out: &mut Encoder) {
        out.put(self.cluster);
        out.bytes(self.user.as_bytes());
        out.put(self.log);
        out.put(self.rights.bits());
        out.put(self.lease_ms);
        out.put(self.grants.len() as u32);
        for (grant, key) in &self.grants {
            out.0.extend_from_slice(&grant.to_bytes());
            out.0.extend_from_slice(key);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut given = Self {
            cluster: reader.field()?,
            user: user_name(reader)?,
            log: reader.field()?,
            rights: rights(reader)?,
            lease_ms: reader.field()?,
            grants: Vec::new(),
        };
        for _ in 0..count(reader, GRANTS_PER_ANSWER_MAX, "grants")? {
            let grant = Grant::read(reader)?;
            let key = crate::keys::key_bytes(reader)?;
            given.grants.push((grant, key.0));
        }
        Ok(given)
    }
}

impl<K: Knobs> Directory<K> {
    /// Whether a key for a new epoch of grants is wanted: [`Self::turn_keys`].
    #[must_use]
    pub fn wants_key(&self) -> bool {
        let due = |at_us: u64| self.wall_us >= at_us.saturating_add(self.config.key_life_us);
        let newest = self.state.keys.newest();
        self.config.replicated
            && self.state.version > 0
            && self.state.keys.next().is_some()
            && newest.is_none_or(|(_, at_us)| due(at_us))
    }

    /// Begins an epoch of grants with a key of random bytes; the epoch before the last one ends.
    pub fn turn_keys(&mut self, key: [u8; KEY_BYTES]) {
        if let Some(epoch) = self.state.keys.next() {
            let key = KeyBytes(key);
            self.commit(Action::TurnKeys { epoch, key });
        }
    }

    /// Answers what is about users; `None` for every other operation.
    pub(crate) fn answer_desk(
        &mut self,
        now: Time,
        asker: &Asker<'_>,
        plan: bool,
        operation: &Operation,
    ) -> Option<Result<Operated, String>> {
        Some(match operation {
            Operation::OpenSessions { log } => {
                let given = self.open_sessions(asker, log);
                given.map(|given| answer(String::new(), Details::Grants(given)))
            }
            Operation::ListUsers => {
                let users = self.state.user_pictures();
                Ok(answer(String::new(), Details::Users(users)))
            }
            Operation::AddUser { .. }
            | Operation::RevokeUser { .. }
            | Operation::GrantLog { .. } => self.change_users(now, plan, operation),
            _ => return None,
        })
    }

    fn change_users(
        &mut self,
        now: Time,
        plan: bool,
        operation: &Operation,
    ) -> Result<Operated, String> {
        let (said, action) = self.state.users_action(operation)?;
        let Some(action) = action else {
            let users = Details::Users(self.state.user_pictures());
            return Ok(answer(String::from("nothing is to be done"), users));
        };
        let then = self.fits(&action)?;
        if !plan {
            self.commit(action);
            self.step_transactions(now);
        }
        Ok(answer(said, Details::Users(then.user_pictures())))
    }

    fn open_sessions(&self, asker: &Asker<'_>, log: &str) -> Result<UserGrants, String> {
        let state = &self.state;
        let user = asker.name();
        let (number, serial) = match asker.who {
            Who::Operator => (ADMIN_NUMBER, 0),
            Who::User(name) => {
                let known = state.users.get(name);
                let known = known.ok_or_else(|| unknown(name))?;
                (known.number, known.serial)
            }
        };
        let no_right = || format!("user {user} has no right on log {log}");
        let found = state.logs.iter().find(|(_, found)| found.name == log);
        let Some((&id, found)) = found else {
            // Whoever has no rights learns no names.
            return match asker.who {
                Who::Operator => Err(format!("the cluster has no log {log:?}")),
                Who::User(_) => Err(no_right()),
            };
        };
        let rights = state.rights_of(user, id);
        if rights == Rights::NONE {
            return Err(no_right());
        }
        let given = if K::mutant(Mutant::GrantEveryRight) {
            USER_RIGHTS
        } else {
            rights
        };
        let (epoch, key) = state.keys.maker().ok_or("there are no keys yet")?;
        let grants = state.session_nodes(found).into_iter().enumerate();
        let grants = grants.map(|(at, target)| {
            let grant = Grant {
                number: asker.random.wrapping_add(at as u64) & ((1 << 40) - 1),
                epoch,
                opener: Party::User(number, serial),
                target,
                log: id,
                rights: given.without(Rights::ADMIN),
                window_bytes: 0,
            };
            let key = key.target(target, ionian_types::Inc::ZERO);
            (grant, key.grant_bytes(&grant))
        });
        Ok(UserGrants {
            cluster: state.cluster,
            user: user.to_owned(),
            log: id,
            rights,
            lease_ms: u32::try_from(self.config.grant_lease.0 / 1_000_000).unwrap_or(u32::MAX),
            grants: grants.collect(),
        })
    }
}

const fn answer(text: String, details: Details) -> Operated {
    Operated {
        refused: false,
        transaction: 0,
        text,
        details,
    }
}

fn unknown(user: &str) -> String {
    format!(
        "{user} is no user of this cluster; the user {ADMIN} adds it with `ionian user add {user}`"
    )
}

impl State {
    /// The nodes of a log, then the others: sessions to any of them lead to the cluster map.
    fn session_nodes(&self, log: &Log) -> Vec<NodeId> {
        let places = log.root.places.iter().map(|place| place.node);
        let members = log.shards.values().flat_map(|shard| &shard.members);
        let replicas = members.map(|member| member.place.node);
        let first: BTreeSet<NodeId> = places.chain(replicas).collect();
        let others = self.nodes.keys().filter(|node| !first.contains(node));
        let others: Vec<NodeId> = others.copied().collect();
        let nodes = first.into_iter().chain(others);
        nodes.take(GRANTS_PER_ANSWER_MAX).collect()
    }

    /// A change of users as a command, and what it does in words; no command when it is so already.
    fn users_action(&self, operation: &Operation) -> Result<(String, Option<Action>), String> {
        let known = |user: &str| self.users.get(user).ok_or_else(|| unknown(user));
        Ok(match operation {
            Operation::AddUser { user } if self.users.get(user).is_some() => (String::new(), None),
            Operation::AddUser { user } => {
                let said = format!("user {user} is added; it has no rights yet");
                let user = user.clone();
                (said, Some(Action::AddUser { user }))
            }
            Operation::RevokeUser { user } if user == ADMIN => {
                return Err(format!(
                    "the user {ADMIN} operates the cluster and cannot be revoked; its certificate is good as long as the cluster's authority says"
                ));
            }
            Operation::RevokeUser { user } => {
                known(user)?;
                let said = format!("user {user} is revoked; its sessions end");
                let user = user.clone();
                (said, Some(Action::RevokeUser { user }))
            }
            Operation::GrantLog { user, .. } if user == ADMIN => {
                return Err(format!("the user {ADMIN} has every right on every log"));
            }
            Operation::GrantLog { log, user, rights } => {
                let found = self.logs.get(log);
                let found = found.ok_or_else(|| format!("the cluster has no log with id {log}"))?;
                known(user)?;
                let name = &found.name;
                if self.rights_of(user, *log) == *rights {
                    return Ok((String::new(), None));
                }
                let said = match *rights {
                    Rights::NONE => format!("user {user} has no right on log {name}"),
                    rights => format!("user {user} may {rights} log {name}"),
                };
                let (log, user, rights) = (*log, user.clone(), *rights);
                (said, Some(Action::Permit { log, user, rights }))
            }
            _ => (String::new(), None),
        })
    }

    /// Whether this asker may ask for this. What is refused here has had no effect.
    pub(crate) fn may_ask(&self, asker: &Asker<'_>, operation: &Operation) -> Result<(), String> {
        let Who::User(user) = asker.who else {
            return Ok(());
        };
        if matches!(operation, Operation::OpenSessions { .. }) {
            return Ok(());
        }
        if self.users.get(user).is_none() {
            return Err(unknown(user));
        }
        if matches!(operation, Operation::List) && self.has_a_log(user) {
            return Ok(());
        }
        let Some(log) = self.log_of(operation) else {
            return Err(format!(
                "user {user} may not operate the cluster; the user {ADMIN} may"
            ));
        };
        if self.rights_of(user, log).holds(Rights::ADMIN) {
            return Ok(());
        }
        let name = self.logs.get(&log).map(|log| log.name.clone());
        let name = name.unwrap_or_else(|| log.to_string());
        Err(format!("user {user} has no right to admin log {name}"))
    }

    /// The log that an operation changes, or looks at. A name that no log has is one that nobody has rights on.
    fn log_of(&self, operation: &Operation) -> Option<LogId> {
        let named = |name: &String| {
            let found = self.logs.iter().find(|(_, log)| log.name == *name);
            found.map_or(LogId::MAX, |(&id, _)| id)
        };
        match operation {
            Operation::DeleteLog { log }
            | Operation::AddShard { log, .. }
            | Operation::FinalizeShard { log, .. }
            | Operation::SetRoot { log, .. }
            | Operation::MoveLeader { log, .. }
            | Operation::MoveVertex { log, .. }
            | Operation::SetTree { log, .. }
            | Operation::ReplaceReplica { log, .. }
            | Operation::GrantLog { log, .. } => Some(*log),
            Operation::History { log } => Some(named(log)),
            Operation::Describe { log } if !log.is_empty() => Some(named(log)),
            Operation::Cancel { transaction } => {
                let mut known = self.transactions.iter();
                let known = known.find(|known| known.id == *transaction)?;
                self.log_of(&known.operation)
            }
            _ => None,
        }
    }
}
