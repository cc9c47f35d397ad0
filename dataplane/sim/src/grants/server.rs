//! The edge of a node: its keys, and its sessions. It decides nothing by itself.

use std::collections::BTreeMap;

use ionian_core::guard::{Gate, KeyChange, Keyring, Knock, may_reach};
use ionian_core::session::tokens::peek;
use ionian_core::session::{Session, SessionConfig, SessionState, Take};
use ionian_types::{GuardEpoch, Knobs, LogId, NodeId, SessionId, Time, Token};
use ionian_wire::frame::{Body, Connect};
use ionian_wire::grant::{Grant, NodeKeys, Rights};

use super::message;

/// What a node did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// It made a session, with this grant.
    Opened(SessionId, Grant),
    /// It bound a session to a place of a log, or of none; or to one for the cluster's own processes.
    Bound(SessionId, Option<LogId>, bool),
    /// It took a message that comes after that: its kind and number.
    Taken(SessionId, u8, u64),
    /// It sent a datagram.
    Sent(SessionId, Vec<u8>),
}

/// A node.
#[derive(Debug)]
pub(super) struct Server<K: Knobs> {
    pub(super) node: NodeId,
    keyring: Keyring<K>,
    sessions: BTreeMap<SessionId, Held<K>>,
}

#[derive(Debug)]
struct Held<K: Knobs> {
    session: Session<K>,
    grant: Grant,
    gate: Gate<K>,
    bound: bool,
}

/// What all sessions have in common: little, since a world makes many.
pub(super) const fn template() -> SessionConfig {
    let nothing = Token::new(0);
    let mut config = SessionConfig::new(SessionId::new(0), GuardEpoch::new(0), nothing, nothing);
    config.mtu_bytes = 512;
    config.window_packets = 32;
    config.send_bytes_max = 4096;
    config.receive_bytes_max = 16 << 10;
    config.message_bytes_max = 256;
    config.ack_every_packets = 1;
    config
}

impl<K: Knobs> Server<K> {
    pub(super) fn new(node: NodeId, secret: &[u8; 32]) -> Self {
        Self {
            node,
            keyring: Keyring::of_secret(secret, node, Rights::ALL),
            sessions: BTreeMap::new(),
        }
    }

    /// The sessions that it has.
    pub(super) fn open(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.keys().copied()
    }

    pub(super) fn has(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Hears what the controllers say, now or at some time before.
    pub(super) fn told(&mut self, keys: &NodeKeys) {
        self.keyring.change(&KeyChange::Told(keys.clone()));
        let keyring = &self.keyring;
        self.sessions.retain(|_, held| keyring.is_good(&held.grant));
    }

    /// Takes a datagram.
    pub(super) fn receive(&mut self, now: Time, datagram: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        let Some(prefix) = peek(datagram) else {
            return events;
        };
        if !self.has(prefix.session) {
            if let Knock::Open(granted) = self.keyring.knock(&prefix, datagram, false) {
                let config = granted.config::<K>(&template(), true);
                let held = Held {
                    session: Session::with_knobs(config, now).expect("the limits are in range"),
                    grant: granted.grant,
                    gate: Gate::new(&granted, true),
                    bound: false,
                };
                self.sessions.insert(granted.session, held);
                events.push(Event::Opened(granted.session, granted.grant));
            }
            return events;
        }
        let id = prefix.session;
        let Some(held) = self.sessions.get_mut(&id) else {
            return events;
        };
        let mut gate = held.gate;
        let mut came = Vec::new();
        let _ = held.session.receive(now, datagram, &mut |bytes: &[u8]| {
            if gate.passes(bytes) {
                came.push(message::read(bytes));
            }
            Take::Taken
        });
        let mut ended = gate.denied();
        for message in came {
            if held.bound {
                events.push(Event::Taken(id, message.kind, message.number));
            } else if message.kind == Connect::KIND
                && may_reach::<K>(&held.grant, message.log, message.internal)
            {
                held.bound = true;
                events.push(Event::Bound(id, message.log, message.internal));
            } else {
                ended = true;
                break;
            }
        }
        if ended {
            held.session.close(now);
        }
        let mut out = [0; 1024];
        while let Some(len) = held.session.poll_transmit(now, &mut out) {
            events.push(Event::Sent(id, out[..len].to_vec()));
        }
        if held.session.state() != SessionState::Open {
            self.sessions.remove(&id);
        }
        events
    }
}
