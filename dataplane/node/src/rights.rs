//! Which right each message of a session asks for. A session of a cluster's own process may send everything; that of a user
//! only what its grant allows, and a message beyond that ends it.

use ionian_types::LogId;
use ionian_wire::frame::{
    Append, Body, CloseSession, Connect, DirectoryRequest, Fate, Hello, Locate, Read,
    StatusRequest, SubCredit, Subscribe, Tail, TrimRequest, Unsubscribe,
};
use ionian_wire::grant::{Grant, Rights};

use crate::role::Place;

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
pub(crate) fn may_send(rights: Rights, message: &[u8]) -> bool {
    let kind = message.first().copied().unwrap_or(0);
    rights.holds(Rights::MEMBER) || rights.holds(NEEDED[usize::from(kind)])
}

/// Whether a session of this grant may be with this place.
pub(crate) fn may_reach(grant: &Grant, place: Place) -> bool {
    let of_log = |log| grant.log == LogId::MAX || grant.log == log;
    match place {
        Place::Directory => true,
        Place::Root(log, _) | Place::Replica(log, ..) => of_log(log),
        Place::Leaf(log) => grant.rights.holds(Rights::MEMBER) && of_log(log),
    }
}
