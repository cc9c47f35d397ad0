//! Which right each message of a session asks for. A session of a cluster's own process may send everything; that of a user
//! only what its grant allows, and a message beyond that ends it. What it says of itself counts, too: who may do only what users
//! do is a client, and must not take the place of a leaf or of a replica.

use core::marker::PhantomData;

use ionian_types::{Knobs, LogId, Mutant, Shipped};
use ionian_wire::frame::{
    Append, Body, CloseSession, Connect, DirectoryRequest, Fate, Hello, Locate, Message, Read,
    Role, StatusRequest, SubCredit, Subscribe, Tail, TrimRequest, Unsubscribe,
};
use ionian_wire::grant::{Grant, Rights};

use super::Granted;

const FREE: [u8; 4] = [
    Hello::KIND,
    Connect::KIND,
    DirectoryRequest::KIND,
    StatusRequest::KIND,
];
const APPENDING: [u8; 3] = [Append::KIND, CloseSession::KIND, Fate::KIND];
const READING: [u8; 6] = [
    Tail::KIND,
    Locate::KIND,
    Read::KIND,
    Subscribe::KIND,
    Unsubscribe::KIND,
    SubCredit::KIND,
];
const TRIMMING: [u8; 1] = [TrimRequest::KIND];

/// By kind of message. What no user sends is for the cluster's own processes.
static NEEDED: [Rights; 256] = {
    let table = [Rights::MEMBER; 256];
    let table = with(table, &FREE, Rights::NONE);
    let table = with(table, &APPENDING, Rights::APPEND);
    let table = with(table, &READING, Rights::READ);
    with(table, &TRIMMING, Rights::TRIM)
};

const fn with(mut table: [Rights; 256], kinds: &[u8], rights: Rights) -> [Rights; 256] {
    let mut at = 0;
    while at < kinds.len() {
        table[kinds[at] as usize] = rights;
        at += 1;
    }
    table
}

/// Whether a session with these rights may send the message that begins so.
#[inline]
#[must_use]
pub fn may_send<K: Knobs>(rights: Rights, message: &[u8]) -> bool {
    let kind = message.first().copied().unwrap_or(0);
    let needed = NEEDED[usize::from(kind)];
    if kind == Hello::KIND && !rights.holds(Rights::MEMBER) {
        return is_client(message) || K::mutant(Mutant::GrantMemberUnchecked);
    }
    rights.holds(Rights::MEMBER)
        || rights.holds(needed)
        || K::mutant(Mutant::GrantAppendUnchecked) && needed == Rights::APPEND
        || K::mutant(Mutant::GrantReadUnchecked) && needed == Rights::READ
        || K::mutant(Mutant::GrantTrimUnchecked) && needed == Rights::TRIM
        || K::mutant(Mutant::GrantMemberUnchecked) && needed == Rights::MEMBER
}

/// Whether a message is a client's first word.
fn is_client(message: &[u8]) -> bool {
    matches!(
        Message::new_checked(message),
        Ok((
            Message::Hello(
                Hello {
                    role: Role::Client,
                    ..
                },
                _
            ),
            _
        ))
    )
}

/// Whether a session of this grant may be with a place: of this log, if it is of one, and for the cluster's own processes only
/// if it is `internal`.
#[must_use]
pub fn may_reach<K: Knobs>(grant: &Grant, log: Option<LogId>, internal: bool) -> bool {
    let of_log = grant.log == LogId::MAX || log.is_none_or(|log| grant.log == log);
    let inside = !internal || grant.rights.holds(Rights::MEMBER);
    (of_log || K::mutant(Mutant::GrantAnyLog)) && inside
}

/// What the messages of a session pass on their way in, for one datagram.
#[derive(Clone, Copy, Debug)]
pub struct Gate<K: Knobs = Shipped> {
    allowed: Rights,
    denied: bool,
    knobs: PhantomData<K>,
}

impl<K: Knobs> Gate<K> {
    /// A grant says what its opener may send: of an `inbound` session, the other end.
    #[must_use]
    pub const fn new(granted: &Granted, inbound: bool) -> Self {
        Self {
            allowed: if inbound {
                granted.grant.rights
            } else {
                Rights::ALL
            },
            denied: false,
            knobs: PhantomData,
        }
    }

    /// Whether a message is handed on. What follows one that is not would come as if nothing were missing: it is not handed on
    /// either.
    #[inline]
    #[must_use]
    pub fn passes(&mut self, message: &[u8]) -> bool {
        let allowed = may_send::<K>(self.allowed, message);
        let follows = self.denied && !K::mutant(Mutant::GrantDeniedOnce);
        self.denied |= !allowed;
        allowed && !follows
    }

    /// Whether a message was not allowed: the session ends.
    #[must_use]
    pub const fn denied(&self) -> bool {
        self.denied
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use ionian_types::{
        ClientId, ClusterId, EntryNo, Inc, NodeId, SessionNo, ShardId, Slot, ViewId,
    };
    use ionian_wire::frame::encode;

    use super::*;

    fn hello(role: Role) -> Vec<u8> {
        let hello = Hello {
            cluster: ClusterId::new(1),
            wire_version: ionian_wire::WIRE_VERSION,
            role,
            node: NodeId::new(1),
            inc: Inc::new(1),
            log: LogId::new(1),
            shard: ShardId::new(0),
            slot: Slot::ZERO,
            epoch: ViewId::ZERO,
            last: EntryNo::ZERO,
            client: ClientId::new(1),
            session: SessionNo::ZERO,
        };
        let mut message = vec![0; 256];
        let len = encode(&mut message, &hello, &[]).expect("room");
        message.truncate(len);
        message
    }

    #[test]
    fn a_user_is_nothing_but_a_client() {
        let roles = [
            (Role::Client, true),
            (Role::Root, false),
            (Role::Leaf, false),
            (Role::Replica, false),
            (Role::Controller, false),
        ];
        for (role, user) in roles {
            let users = [
                Rights::NONE,
                Rights::APPEND,
                Rights::READ.with(Rights::APPEND).with(Rights::TRIM),
            ];
            for rights in users {
                assert_eq!(may_send::<Shipped>(rights, &hello(role)), user, "{role:?}");
            }
            assert!(may_send::<Shipped>(Rights::MEMBER, &hello(role)));
        }
        let whole = hello(Role::Client);
        for bytes in 0..whole.len() {
            assert!(
                !may_send::<Shipped>(Rights::READ, &whole[..bytes]),
                "{bytes} bytes"
            );
        }
    }
}
