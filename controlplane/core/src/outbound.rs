//! What leaves, and when: answers in order, everything else from the state as it is.
//!
//! Only answers to registrations are queued, each with the version of the state that it depends on. Greetings, grants,
//! intents and cluster maps are made from the state when a connection has room, so that a slow peer costs no memory, and
//! what was superseded is never sent.

use ionian_types::{
    ClientId, ConnId, EntryNo, Inc, Knobs, LogId, Mutant, SessionNo, ShardId, Slot, Time, ViewId,
};
use ionian_wire::WIRE_VERSION;
use ionian_wire::codec::Field;
use ionian_wire::frame::{
    Body, DirectoryAnswer, Hello, Intent, MESSAGE_HEADER_BYTES, Register, Role, RootGrant, encode,
};

use crate::directory::Directory;
use crate::group::Phase;
use crate::keys::KeysWanted;
use crate::state::PlaceKey;

/// A connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Conn {
    /// Its number among all connections that there were, in the order in which they opened.
    pub(crate) opened: u64,
    /// The life that has said that this connection leads to it.
    pub(crate) life: Option<(PlaceKey, Inc)>,
    pub(crate) greeted: bool,
    /// The version of the map that the peer knows, once it has shown interest.
    pub(crate) known: Option<u64>,
    /// The request for the map that waits for an answer.
    pub(crate) waiting: Option<u64>,
    /// A registration that seems to come late.
    pub(crate) held: Option<Held>,
    /// The process of a node is told its keys by it.
    pub(crate) keys: Option<KeysWanted>,
}

/// A registration over a connection that opened before the one that the place is bound to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub(crate) request: Register,
    pub(crate) address: Vec<u8>,
    /// When it is taken in any case.
    pub(crate) until: Time,
}

/// An encoded message that may leave once `version` is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    pub(crate) conn: ConnId,
    version: u64,
    bytes: Vec<u8>,
}

/// A map that may be shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PublicMap {
    pub(crate) version: u64,
    bytes: Vec<u8>,
}

/// The last sending of an intent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sent {
    at: Time,
}

impl Answer {
    pub(crate) fn new<B: Body>(conn: ConnId, version: u64, body: &B, tail: &[u8]) -> Self {
        let mut bytes = Vec::new();
        put(&mut bytes, body, tail);
        Self {
            conn,
            version,
            bytes,
        }
    }
}

impl<K: Knobs> Directory<K> {
    /// Writes the next message that may leave into `out` and says where to; `None` when there is none now. A message leaves
    /// only when what it depends on is durable, and when its connection takes `room` bytes.
    pub fn poll(
        &mut self,
        now: Time,
        mut room: impl FnMut(ConnId) -> usize,
        out: &mut Vec<u8>,
    ) -> Option<ConnId> {
        if self.persisted == 0 {
            return None;
        }
        self.poll_greeting(&mut room, out)
            .or_else(|| self.poll_answer(&mut room, out))
            .or_else(|| self.poll_probe(&mut room, out))
            .or_else(|| self.poll_seal(now, &mut room, out))
            .or_else(|| self.poll_grant(&mut room, out))
            .or_else(|| self.poll_intent(now, &mut room, out))
            .or_else(|| self.poll_keys(&mut room, out))
            .or_else(|| self.poll_map(&mut room, out))
    }

    /// What depends on versions up to this one may leave.
    pub(crate) fn may_leave(&self) -> u64 {
        if K::mutant(Mutant::SendBeforePersisted) {
            u64::MAX
        } else {
            self.persisted
        }
    }

    /// When the pending intent of `log` is to be sent again, if it was sent.
    pub(crate) fn resend_at(&self, log: LogId) -> Option<Time> {
        self.intent_due(log)?;
        let sent = self.sent.get(&log)?;
        Some(sent.at.after(self.config.resend_after))
    }

    /// When the pending intent of `log` is to be sent, if it may leave and its root is connected.
    fn intent_due(&self, log: LogId) -> Option<Time> {
        let pending = self.state.logs.get(&log)?.pending.as_ref()?;
        // A root takes intents only after it knows its epoch.
        let early = pending.since > self.may_leave() || self.grants.contains_key(&log);
        if early || self.recorded_leader_of(log).is_none() {
            return None;
        }
        let sent = self.sent.get(&log);
        Some(sent.map_or(Time::ZERO, |sent| sent.at.after(self.config.resend_after)))
    }

    fn poll_greeting(
        &mut self,
        room: &mut impl FnMut(ConnId) -> usize,
        out: &mut Vec<u8>,
    ) -> Option<ConnId> {
        let mut fresh = self.conns.iter_mut().filter(|(_, conn)| !conn.greeted);
        let (&id, conn) = fresh.find(|(id, _)| room(**id) >= message_bytes::<Hello>(0))?;
        conn.greeted = true;
        let hello = Hello {
            cluster: self.state.cluster,
            wire_version: WIRE_VERSION,
            role: Role::Controller,
            node: self.config.node,
            inc: Inc::ZERO,
            log: LogId::MAX,
            shard: ShardId::ZERO,
            slot: Slot::ZERO,
            epoch: ViewId::ZERO,
            last: EntryNo::ZERO,
            client: ClientId::new(0),
            session: SessionNo::ZERO,
        };
        put(out, &hello, &[]);
        Some(id)
    }

    fn poll_answer(
        &mut self,
        room: &mut impl FnMut(ConnId) -> usize,
        out: &mut Vec<u8>,
    ) -> Option<ConnId> {
        let persisted = self.may_leave();
        let may_leave = |answer: &Answer| answer.version <= persisted;
        let at = self
            .answers
            .iter()
            .take_while(|answer| may_leave(answer))
            .position(|answer| room(answer.conn) >= answer.bytes.len())?;
        let answer = self.answers.remove(at)?;
        *out = answer.bytes;
        Some(answer.conn)
    }

    fn poll_grant(
        &mut self,
        room: &mut impl FnMut(ConnId) -> usize,
        out: &mut Vec<u8>,
    ) -> Option<ConnId> {
        let due = self.grants.iter().find_map(|(&log, &since)| {
            let leader = self.leader_of(log)?;
            let binding = self.bindings.get(&PlaceKey::Root(log, leader))?;
            let state = self.state.logs.get(&log)?;
            let tail = 12 * state.root.current()?.members.len();
            let fits = room(binding.conn) >= message_bytes::<RootGrant>(tail);
            let durable = since.max(state.root.since) <= self.may_leave();
            (durable && fits).then_some((log, binding.conn))
        });
        let (log, conn) = due?;
        self.grants.remove(&log);
        let state = self.state.logs.get(&log)?;
        let config = state.root.current()?;
        let grant = RootGrant {
            log,
            inc: config.members.get(config.leader.index())?.inc,
            epoch: config.epoch,
            floor: if K::mutant(Mutant::FloorForgotten) {
                ionian_types::Gsn::ZERO
            } else {
                state.floor
            },
            ceiling: state.ceiling,
            view: state.base_view,
            write_quorum: config.write_quorum,
            seal_quorum: config.seal_quorum(),
            members: config.members.len() as u8,
            recorded: state.root.phase == Phase::Recorded,
        };
        let mut members = vec![0; 12 * config.members.len()];
        for (bytes, member) in members.chunks_exact_mut(12).zip(&config.members) {
            member.node.put(&mut bytes[..4]);
            member.inc.put(&mut bytes[4..]);
        }
        put(out, &grant, &members);
        Some(conn)
    }

    fn poll_intent(
        &mut self,
        now: Time,
        room: &mut impl FnMut(ConnId) -> usize,
        out: &mut Vec<u8>,
    ) -> Option<ConnId> {
        for (&log, state) in &self.state.logs {
            if self.intent_due(log).is_none_or(|at| at > now) {
                continue;
            }
            let leader = self.recorded_leader_of(log);
            let binding = leader.and_then(|slot| self.bindings.get(&PlaceKey::Root(log, slot)));
            let (Some(pending), Some(binding)) = (&state.pending, binding) else {
                continue;
            };
            // An attempt without room counts, so that the next one is due later.
            self.sent.insert(log, Sent { at: now });
            if room(binding.conn) >= message_bytes::<Intent>(pending.changes.len()) {
                let view = pending.view;
                put(out, &Intent { log, view }, &pending.changes);
                return Some(binding.conn);
            }
        }
        None
    }

    fn poll_map(
        &mut self,
        room: &mut impl FnMut(ConnId) -> usize,
        out: &mut Vec<u8>,
    ) -> Option<ConnId> {
        let public = self.public.as_ref()?;
        let (id, conn, tail) = self.conns.iter_mut().find_map(|(&id, conn)| {
            let news = conn.known? != public.version;
            let tail: &[u8] = if news { &public.bytes } else { &[] };
            let due = news || conn.waiting.is_some();
            (due && room(id) >= message_bytes::<DirectoryAnswer>(tail.len()))
                .then_some((id, conn, tail))
        })?;
        let answer = DirectoryAnswer {
            request: conn.waiting.take().unwrap_or(0),
            version: public.version,
        };
        conn.known = Some(public.version);
        put(out, &answer, tail);
        Some(id)
    }

    pub(crate) fn current_map(&self) -> PublicMap {
        let map = self.state.map();
        PublicMap {
            version: map.version,
            bytes: map
                .to_bytes()
                .expect("every log and address was checked against the map's limits"),
        }
    }
}

pub(crate) const fn message_bytes<B: Body>(tail: usize) -> usize {
    MESSAGE_HEADER_BYTES + B::LEN + tail
}

pub(crate) fn put<B: Body>(out: &mut Vec<u8>, body: &B, tail: &[u8]) {
    out.clear();
    out.resize(message_bytes::<B>(tail.len()), 0);
    encode(out, body, &[tail]).expect("the buffer has exactly the message's length");
}
