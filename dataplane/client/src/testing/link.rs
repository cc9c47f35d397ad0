//! The link of a client to a cluster in memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ionian_core::client::PeerKind;
use ionian_types::{ConnId, Time};
use ionian_wire::frame::{MESSAGE_BYTES_MAX, Message};

use super::Shared;
use super::server::Inbound;
use crate::link::{Link, LinkEvent, LinkWaker};

/// Room that every connection offers: messages are answered as they come, so none is ever full.
const ROOM_BYTES: usize = 4 * MESSAGE_BYTES_MAX;
/// Events handed over in one poll.
const POLL_MAX: usize = 256;

/// The link of one client.
#[derive(Debug)]
pub struct MemoryLink {
    shared: Arc<Shared>,
    id: usize,
    start: Instant,
}

impl MemoryLink {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let id = shared.lock().open_link();
        Self {
            shared,
            id,
            start: Instant::now(),
        }
    }
}

impl Drop for MemoryLink {
    fn drop(&mut self) {
        self.shared.lock().close_link(self.id);
    }
}

impl Link for MemoryLink {
    fn now(&mut self) -> Time {
        // A clock that begins at 0 would make the first moments look like "never".
        Time::from_ns(1 + self.start.elapsed().as_nanos() as u64)
    }

    fn poll<F: FnMut(LinkEvent<'_>)>(&mut self, mut event: F) -> usize {
        for done in 0..POLL_MAX {
            let Some(inbound) = self.shared.lock().next_inbound(self.id) else {
                return done;
            };
            match inbound {
                Inbound::Connected(conn, peer) => {
                    event(LinkEvent::Connected {
                        conn,
                        peer,
                        room: ROOM_BYTES,
                    });
                }
                Inbound::Disconnected(conn) => event(LinkEvent::Disconnected { conn }),
                Inbound::Map(map) => event(LinkEvent::Map(&map)),
                Inbound::Message(conn, bytes) => {
                    let (message, _) =
                        Message::new_checked(&bytes).expect("the server encodes its messages");
                    event(LinkEvent::Message { conn, message });
                }
            }
        }
        POLL_MAX
    }

    fn room(&mut self, conn: ConnId) -> usize {
        if self.shared.lock().is_connected(self.id, conn) {
            ROOM_BYTES
        } else {
            0
        }
    }

    fn send(&mut self, conn: ConnId, message: &[u8]) {
        let (message, _) = Message::new_checked(message).expect("the client encodes its messages");
        self.shared.lock().handle(self.id, conn, &message);
        self.shared.changed.notify_all();
    }

    fn publish(&mut self) {}

    fn want(&mut self, peers: &[PeerKind]) {
        self.shared.lock().want(self.id, peers);
    }

    fn refresh_map(&mut self) {
        self.shared.lock().send_map(self.id);
    }

    fn sleep(&mut self, until: Time) {
        let now = self.now();
        let span = if until == Time::FAR {
            None
        } else {
            Some(Duration::from_nanos(until.since(now).0))
        };
        let server = self.shared.lock();
        let id = self.id;
        let idle = |server: &mut super::Server| !server.take_wake(id);
        // Either way the caller looks for itself; how the wait ended does not matter.
        match span {
            None => drop(self.shared.changed.wait_while(server, idle)),
            Some(span) => drop(self.shared.changed.wait_timeout_while(server, span, idle)),
        }
    }

    fn waker(&self) -> LinkWaker {
        let shared = self.shared.clone();
        let id = self.id;
        Arc::new(move || {
            shared.lock().wake(id);
            shared.changed.notify_all();
        })
    }
}
