//! Moves messages between a link and the machine: the one loop under the blocking and the asynchronous face.

use ionian_core::client::{Client, ClientConfig, PeerKind, Sink};
use ionian_core::{Outbox, OutboxLimits};
use ionian_types::{ConnId, Effect, Nanos, Time};
use ionian_wire::grant::Rights;

use crate::error::Error;
use crate::history::{HistoryEvent, HistoryHook, What};
use crate::link::{Link, LinkEvent};

/// The shortest pause between two questions for the map.
const MAP_PAUSE: Nanos = Nanos::from_ms(20);

pub(crate) struct Driver<L: Link> {
    pub(crate) link: L,
    pub(crate) client: Client,
    pub(crate) history: Option<HistoryHook>,
    out: Outbox,
    conns: Vec<ConnId>,
    wanted: Vec<PeerKind>,
    wanted_version: u64,
    map_at: Time,
}

impl<L: Link> Driver<L> {
    pub(crate) fn new(link: L, config: ClientConfig) -> Result<Self, Error> {
        let limits = OutboxLimits {
            connections: config.connections_max,
            ..OutboxLimits::default()
        };
        Ok(Self {
            link,
            client: Client::new(config)?,
            history: None,
            out: Outbox::new(limits),
            conns: Vec::new(),
            wanted: Vec::new(),
            wanted_version: 0,
            map_at: Time::ZERO,
        })
    }

    /// Takes what has come, does what is due, sends what there is. Says whether anything happened.
    pub(crate) fn pump<S: Sink>(&mut self, sink: &mut S) -> bool {
        let now = self.link.now();
        let Self {
            link,
            client,
            out,
            conns,
            ..
        } = self;
        let events = link.poll(|event| match event {
            LinkEvent::Message { conn, message } => client.handle(now, conn, &message, sink),
            LinkEvent::Connected { conn, peer, room } => {
                out.set_room(conn, room);
                // Refused only for a connection number that the link was told not to use.
                if client.connected(now, conn, peer, out).is_ok() && !conns.contains(&conn) {
                    conns.push(conn);
                }
            }
            LinkEvent::Disconnected { conn } => {
                conns.retain(|open| *open != conn);
                client.disconnected(now, conn);
            }
            LinkEvent::Map(map) => client.set_map(now, map),
        });
        let due = now >= client.next_deadline();
        if due {
            client.on_deadline(now);
        }
        let sent = self.send(now);
        if self.client.wanted_version() != self.wanted_version {
            self.wanted_version = self.client.wanted_version();
            self.wanted.clear();
            self.wanted.extend(self.client.wanted_peers());
            self.link.want(&self.wanted);
        }
        if self.client.wants_map() && now >= self.map_at {
            self.map_at = now.after(MAP_PAUSE);
            self.link.refresh_map();
        }
        events > 0 || due || sent
    }

    fn send(&mut self, now: Time) -> bool {
        let mut any = false;
        loop {
            for conn in &self.conns {
                self.out.set_room(*conn, self.link.room(*conn));
            }
            self.client.flush(now, &mut self.out);
            if self.out.is_empty() {
                break;
            }
            for envelope in self.out.envelopes() {
                self.link.send(envelope.conn, self.out.head(envelope));
            }
            self.out.clear();
            any = true;
        }
        if any {
            self.link.publish();
        }
        any
    }

    /// Waits until something may have come, or until the machine or the caller has something to do.
    pub(crate) fn idle(&mut self, until: Time) {
        let mut until = until.min(self.client.next_deadline());
        if self.client.wants_map() {
            until = until.min(self.map_at);
        }
        self.link.sleep(until);
    }

    /// Whether the client may do this with the log, as far as the link knows.
    ///
    /// # Errors
    /// [`Error::NoRight`] without effect.
    #[inline]
    pub(crate) fn may(&mut self, right: Rights) -> Result<(), Error> {
        if self.link.rights().holds(right) {
            return Ok(());
        }
        self.look_again(right)
    }

    /// A link learns of changed rights when it is polled, which a client that only asks in vain would not do.
    #[cold]
    fn look_again(&mut self, right: Rights) -> Result<(), Error> {
        self.pump(&mut ());
        self.may_still(right, Effect::None)
    }

    /// The same for what may have been sent already.
    ///
    /// # Errors
    /// [`Error::NoRight`] with this effect.
    #[inline]
    pub(crate) fn may_still(&self, right: Rights, effect: Effect) -> Result<(), Error> {
        if self.link.rights().holds(right) {
            Ok(())
        } else {
            Err(Error::NoRight { right, effect })
        }
    }

    /// Tells the history, if there is one.
    pub(crate) fn record(&mut self, time: Time, what: impl FnOnce(&Client) -> What) {
        if let Some(hook) = &mut self.history {
            let log = self.client.config().log;
            hook(HistoryEvent {
                time_ns: time.as_ns(),
                log,
                what: what(&self.client),
            });
        }
    }
}

impl<L: Link> std::fmt::Debug for Driver<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("client", &self.client.config().client)
            .finish_non_exhaustive()
    }
}
