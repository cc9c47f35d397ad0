//! What is sent to nodes: by who may, by who may no longer, and by who never might.

use ionian_core::guard::Granted;
use ionian_core::session::{CREDIT_INITIAL_PACKETS, Session, Take};
use ionian_types::{GuardEpoch, Inc, Knobs, LogId, Token};
use ionian_wire::crc::crc32c;
use ionian_wire::grant::{Direction, EpochKey, Grant, GrantKey, Rights};
use ionian_wire::packet::{PacketHeader, PacketKind, PacketPrefix, PacketView};

use super::message::{KINDS, Message};
use super::oracle::{Given, Holder, Origin, check};
use super::server::{Event, template};
use super::{
    CONVERSATIONS_MAX, Conversation, GrantWorld, KEPT_MAX, NODES, SECRET, SHARED_EPOCH, log_of,
};
use crate::invariant::{Invariant, Violation};

/// A packet that shows a grant.
fn open_packet(granted: &Granted, grant: &Grant, token: Token) -> Vec<u8> {
    let prefix = PacketPrefix {
        session: granted.session,
        epoch: granted.grant.epoch,
        token,
    };
    let header = PacketHeader {
        kind: PacketKind::Open,
        ask: false,
        seq: 0,
        ack: 0,
        credit: 0,
        sack: None,
    };
    let (grant, mut out) = (grant.to_bytes(), [0; 256]);
    let len = header
        .emit(&prefix.to_bytes(), [&grant, &[]], &mut out)
        .expect("a packet that shows a grant has 110 bytes");
    out[..len].to_vec()
}

/// The datagram with one bit of its token turned, and a checksum that fits.
fn with_other_token(datagram: &[u8], bit: u64) -> Vec<u8> {
    let mut bytes = datagram.to_vec();
    bytes[16 + bit as usize / 8] ^= 1 << (bit % 8);
    let covered = bytes.len() - 4;
    let crc = crc32c(&bytes[..covered]);
    bytes[covered..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

impl<K: Knobs> GrantWorld<K> {
    /// Somebody opens a session; others try to before.
    pub(super) fn open(&mut self) -> Result<(), Violation> {
        let at = self.rng.below(self.callers.len() as u64) as usize;
        let node = self.rng.below(u64::from(NODES)) as usize;
        let target = self.nodes[node].server.node;
        let random = self.rng.draw();
        let caller = &mut self.callers[at];
        let Some(granted) = caller.keyring.open(target, || Some(random)) else {
            return Ok(());
        };
        let (given, key) = match (caller.user, caller.given.get(&target)) {
            (None, _) => {
                let epoch = EpochKey::of_secret(&SECRET, GuardEpoch::new(SHARED_EPOCH));
                let given = Given {
                    holder: Holder::Process,
                    epoch: SHARED_EPOCH,
                    grant: granted.grant,
                };
                (given, epoch.target(target, Inc::ZERO).grant(&granted.grant))
            }
            (Some(_), Some((given, key))) => (*given, key.clone()),
            (Some(_), None) => return Ok(()),
        };
        self.oracle.granted(granted.session, given);
        if self.rng.permille(600) {
            self.forge(node, &granted, &key)?;
        }
        let opening = open_packet(&granted, &granted.grant, granted.send);
        if self.rng.permille(200) {
            let other = (node + 1) % self.nodes.len();
            self.counts.copies += 1;
            self.deliver(other, &opening, Origin::Copy)?;
        }
        if self.rng.permille(100) {
            self.keep(node, opening, Origin::Copy);
            return Ok(());
        }
        let allowed = self.oracle.allows(&given);
        self.deliver(node, &opening, Origin::Genuine)?;
        self.keep(node, opening, Origin::Copy);
        let open = self.nodes[node].server.has(granted.session);
        check(open || !allowed, Invariant::G7, || {
            format!("node {target} has not opened a session by {given:?}")
        })?;
        if !open {
            self.counts.void += 1;
            return Ok(());
        }
        self.counts.opened += 1;
        self.counts.windows += u64::from(granted.grant.window_bytes > 0);
        let mut config = template();
        (config.session, config.epoch) = (granted.session, granted.grant.epoch);
        (config.token_send, config.token_receive) = (granted.send, granted.receive);
        if self.conversations.len() >= CONVERSATIONS_MAX {
            let at = self.rng.below(CONVERSATIONS_MAX as u64) as usize;
            self.conversations.swap_remove(at);
        }
        self.conversations.push(Conversation {
            node,
            granted,
            session: Session::new(config, self.now).expect("the limits are in range"),
        });
        self.connect(self.conversations.len() - 1)
    }

    /// The first message of a session says whom it is with.
    pub(super) fn connect(&mut self, at: usize) -> Result<(), Violation> {
        let grant = self.conversations[at].granted.grant;
        let of_grant = (grant.log != LogId::MAX).then_some(grant.log);
        let other = log_of(self.rng.below(2) as usize);
        let (log, internal) = match self.rng.below(20) {
            0 => (Some(other), true),
            1 | 2 => (Some(other), false),
            3 => (None, false),
            _ => (of_grant, false),
        };
        let fits = (of_grant.is_none() || log.is_none() || log == of_grant)
            && (!internal || grant.rights.holds(Rights::MEMBER));
        let number = self.number();
        let id = self.conversations[at].granted.session;
        self.oracle.says(id, number);
        let message = Message::connect(number, log, internal);
        let events = self.say(at, &[message])?;
        let bound = events
            .iter()
            .any(|event| matches!(event, Event::Bound(session, ..) if *session == id));
        check(bound || !fits, Invariant::G7, || {
            format!("a session by {grant:?} was not bound to a place of log {log:?}")
        })?;
        self.counts.denied += u64::from(!fits);
        self.forget_ended();
        Ok(())
    }

    pub(super) const fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Tries to open a session that was granted to somebody else.
    pub(super) fn forge(
        &mut self,
        node: usize,
        granted: &Granted,
        key: &GrantKey,
    ) -> Result<(), Violation> {
        let mut grant = granted.grant;
        let token = match self.rng.below(5) {
            0 => Token::new(self.rng.draw()),
            1 => Token::new(granted.send.get() ^ (1 << self.rng.below(64))),
            2 => {
                let last = grant.number_of(granted.session).unwrap_or(1);
                let other = grant.session(1 + self.rng.below(last));
                if other == granted.session {
                    return Ok(());
                }
                key.token(other, Direction::Opener)
            }
            3 => granted.receive,
            _ => {
                (grant.rights, grant.log) = (Rights::ALL, LogId::MAX);
                if grant == granted.grant {
                    return Ok(());
                }
                granted.send
            }
        };
        self.counts.forged += 1;
        let packet = open_packet(granted, &grant, token);
        self.deliver(node, &packet, Origin::Forged).map(drop)
    }

    /// Somebody says something in an open session, and perhaps more than may be said.
    pub(super) fn speak(&mut self) -> Result<(), Violation> {
        if self.conversations.is_empty() {
            return Ok(());
        }
        let at = self.rng.below(self.conversations.len() as u64) as usize;
        let id = self.conversations[at].granted.session;
        let mut messages = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..1 + self.rng.below(3) {
            let (kind, _) = self.rng.pick(&KINDS);
            let number = self.number();
            self.oracle.says(id, number);
            messages.push(Message::new(kind, number));
            if self.oracle.steps(id, kind, number) {
                expected.push(number);
            } else {
                self.counts.denied += 1;
            }
        }
        self.say(at, &messages)?;
        for number in expected {
            check(self.oracle.was_taken(number), Invariant::G7, || {
                format!("message {number} was not taken in session {id}")
            })?;
            self.counts.taken += 1;
        }
        self.forget_ended();
        Ok(())
    }

    /// Sends messages in one datagram; somebody may send it with another token before.
    pub(super) fn say(&mut self, at: usize, messages: &[Message]) -> Result<Vec<Event>, Violation> {
        let conversation = &mut self.conversations[at];
        let node = conversation.node;
        for message in messages {
            let pushed = conversation.session.push(&[&message.to_bytes()]);
            pushed.expect("an open session has room for what is acked at once");
        }
        let mut out = [0; 1024];
        let mut events = Vec::new();
        while let Some(len) = self.conversations[at]
            .session
            .poll_transmit(self.now, &mut out)
        {
            let datagram = out[..len].to_vec();
            if self.rng.permille(300) {
                let other = with_other_token(&datagram, self.rng.below(64));
                self.counts.forged += 1;
                self.deliver(node, &other, Origin::Forged)?;
            }
            events.extend(self.deliver(node, &datagram, Origin::Genuine)?);
            self.keep(node, datagram, Origin::Copy);
        }
        Ok(events)
    }

    /// An end of a session.
    pub(super) fn close(&mut self) -> Result<(), Violation> {
        if self.conversations.is_empty() {
            return Ok(());
        }
        let at = self.rng.below(self.conversations.len() as u64) as usize;
        let mut ended = self.conversations.swap_remove(at);
        ended.session.close(self.now);
        let mut out = [0; 1024];
        if let Some(len) = ended.session.poll_transmit(self.now, &mut out) {
            self.deliver(ended.node, &out[..len], Origin::Genuine)?;
        }
        Ok(())
    }

    /// Something that was sent before is sent again.
    pub(super) fn send_again(&mut self) -> Result<(), Violation> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let at = self.rng.below(self.kept.len() as u64) as usize;
        let (mut node, datagram, origin) = self.kept[at].clone();
        if self.rng.permille(100) {
            node = (node + 1) % self.nodes.len();
        }
        self.counts.copies += 1;
        self.deliver(node, &datagram, origin)?;
        self.forget_ended();
        Ok(())
    }

    pub(super) fn keep(&mut self, node: usize, datagram: Vec<u8>, origin: Origin) {
        if self.kept.len() < KEPT_MAX {
            self.kept.push((node, datagram, origin));
        } else {
            let at = self.rng.below(KEPT_MAX as u64) as usize;
            self.kept[at] = (node, datagram, origin);
        }
    }

    /// A session ends for its opener when the node has ended it: it would be told.
    pub(super) fn forget_ended(&mut self) {
        let nodes = &self.nodes;
        self.conversations
            .retain(|known| nodes[known.node].server.has(known.granted.session));
    }

    /// A datagram comes to a node, which may have done only what is right.
    pub(super) fn deliver(
        &mut self,
        node: usize,
        datagram: &[u8],
        origin: Origin,
    ) -> Result<Vec<Event>, Violation> {
        let at = self.nodes[node].server.node;
        let events = self.nodes[node].server.receive(self.now, datagram);
        if self.trace {
            let prefix = PacketPrefix::peek(datagram);
            println!(
                "{} {origin:?} to node {at}: {prefix:?}: {events:?}",
                self.now.as_ns() / 1000
            );
        }
        for event in &events {
            match event {
                Event::Opened(id, grant) => self.oracle.opened(at, *id, grant, origin)?,
                Event::Bound(id, log, internal) => self.oracle.bound(*id, *log, *internal)?,
                Event::Taken(id, kind, number) => {
                    self.oracle.taken(*id, *kind, *number, origin)?;
                }
                Event::Sent(id, answer) => {
                    if let Ok(view) = PacketView::new_checked(answer) {
                        let packets = view.header().credit - view.header().ack;
                        let bytes = template().payload_bytes_max();
                        let least = u64::from(CREDIT_INITIAL_PACKETS);
                        self.oracle.lets_send(*id, packets, bytes, least)?;
                    }
                    let mut known = self.conversations.iter_mut();
                    if let Some(known) = known.find(|known| known.granted.session == *id) {
                        let _ = known
                            .session
                            .receive(self.now, answer, &mut |_: &[u8]| Take::Taken);
                    }
                    self.keep(node, answer.clone(), Origin::Forged);
                }
            }
        }
        Ok(events)
    }
}
