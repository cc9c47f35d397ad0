//! A client in the process of its cluster: a pair of rings per peer, polled by the client's own thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::Thread;
use std::time::Duration;

use ionian_client::{Link, LinkEvent, LinkWaker};
use ionian_core::client::PeerKind;
use ionian_driver_api::Wake;
use ionian_types::{ConnId, LogId, Slot, Time};
use ionian_wire::directory::ClusterMap;
use ionian_wire::frame::{DirectoryRequest, Message, encode};

use super::{leader_of, place_of};
use crate::link::ShmLink;
use crate::role::Place;
use crate::server::{Server, Shared};

/// Messages taken from one peer in one poll.
const MESSAGES_PER_POLL: usize = 64;
/// Polls between two looks at the directory's connection and at peers that may be gone. A power of two.
const RARELY: u64 = 64;
/// Empty sleeps that only spin, then those that yield; after that the thread blocks.
const SPINS: u32 = 2_000;
const YIELDS: u32 = 200;

/// Ends the sleep of one thread: a flag and a park token.
#[derive(Debug)]
struct Sleeper {
    thread: Thread,
    sleeping: AtomicBool,
}

impl Wake for Sleeper {
    fn wake(&self) {
        if self.sleeping.swap(false, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }
}

/// The link of a client in the process of its server. Belongs to the thread that made it.
#[derive(Debug)]
pub struct LocalLink {
    shared: Arc<Shared>,
    log: LogId,
    /// The member of the log's root group that leads, by the newest map.
    leader: Slot,
    peers: Vec<(PeerKind, Option<ShmLink>)>,
    opened: Vec<usize>,
    /// The built-in controller, if it is in this process. The places of the process learn of new maps as well.
    directory: Option<ShmLink>,
    /// The version of the newest map of theirs that the client was told.
    known: u64,
    ask: bool,
    sleeper: Arc<Sleeper>,
    empty: u32,
    polls: u64,
    spin: bool,
}

impl LocalLink {
    /// A link for a log of a server in this process. `spin` keeps the thread on its core while it waits; otherwise it
    /// blocks soon.
    #[must_use]
    pub fn new(server: &Server, log: LogId, spin: bool) -> Self {
        let sleeper = Arc::new(Sleeper {
            thread: std::thread::current(),
            sleeping: AtomicBool::new(false),
        });
        let shared = server.shared();
        let here = shared.home(Place::Directory).is_some();
        let directory = here
            .then(|| shared.connect(Place::Directory, sleeper.clone()))
            .flatten();
        let watcher: Weak<Sleeper> = Arc::downgrade(&sleeper);
        shared.watch(watcher);
        Self {
            leader: leader_of(&shared.map(), log),
            shared,
            log,
            peers: Vec::with_capacity(64),
            opened: Vec::with_capacity(64),
            directory,
            known: 0,
            ask: true,
            sleeper,
            empty: 0,
            polls: RARELY - 1,
            spin,
        }
    }

    /// Hands on the newest map that the places of the process know, and leaves a member of the root group that leads no
    /// longer.
    fn poll_map(&mut self, event: &mut impl FnMut(LinkEvent<'_>)) -> usize {
        if self.shared.map_version() <= self.known {
            return 0;
        }
        let map = self.shared.map();
        self.known = map.version;
        event(LinkEvent::Map(&map));
        let leader = leader_of(&map, self.log);
        if leader != self.leader {
            self.leader = leader;
            let mut peers = self.peers.iter_mut().enumerate();
            let root = peers.find(|(_, (peer, link))| *peer == PeerKind::Root && link.is_some());
            if let Some((at, (_, link))) = root {
                *link = None;
                self.opened.retain(|opened| *opened != at);
                let conn = ConnId::new(at as u32);
                event(LinkEvent::Disconnected { conn });
                self.want(&[PeerKind::Root]);
            }
        }
        1
    }

    fn poll_directory(&mut self, event: &mut impl FnMut(LinkEvent<'_>)) -> usize {
        let Some(link) = &mut self.directory else {
            return 0;
        };
        if self.ask {
            let mut message = [0u8; 64];
            if let Ok(len) = encode(
                &mut message,
                &DirectoryRequest {
                    request: 1,
                    known: 0,
                },
                &[],
            ) {
                self.ask = !link.send(&message[..len], &[]);
                link.publish();
            }
        }
        let mut count = 0;
        while let Some(bytes) = link.peek() {
            if let Ok((Message::DirectoryAnswer(_, map), _)) = Message::new_checked(bytes)
                && let Ok(map) = ClusterMap::read(map)
            {
                event(LinkEvent::Map(&map));
            }
            link.release();
            count += 1;
        }
        count
    }
}

impl Link for LocalLink {
    fn now(&mut self) -> Time {
        self.shared.now()
    }

    fn poll<F: FnMut(LinkEvent<'_>)>(&mut self, mut event: F) -> usize {
        let mut count = 0;
        self.polls += 1;
        if self.polls.is_multiple_of(RARELY) {
            count += self.poll_map(&mut event) + self.poll_directory(&mut event);
        }
        for at in self.opened.drain(..) {
            let (peer, Some(link)) = &mut self.peers[at] else {
                continue;
            };
            event(LinkEvent::Connected {
                conn: ConnId::new(at as u32),
                peer: *peer,
                room: link.room(),
            });
            count += 1;
        }
        for (at, (_, slot)) in self.peers.iter_mut().enumerate() {
            let Some(link) = slot else { continue };
            let conn = ConnId::new(at as u32);
            let mut broken = false;
            for _ in 0..MESSAGES_PER_POLL {
                let Some(bytes) = link.peek() else { break };
                let Ok((message, _)) = Message::new_checked(bytes) else {
                    // What follows would come as if nothing were missing.
                    broken = true;
                    break;
                };
                event(LinkEvent::Message { conn, message });
                link.release();
                count += 1;
            }
            if broken || self.polls.is_multiple_of(RARELY) && link.is_closed() {
                *slot = None;
                event(LinkEvent::Disconnected { conn });
                count += 1;
            }
        }
        if count > 0 {
            self.empty = 0;
        }
        count
    }

    #[inline]
    fn room(&mut self, conn: ConnId) -> usize {
        match self.peers.get_mut(conn.index()) {
            Some((_, Some(link))) => link.room(),
            _ => 0,
        }
    }

    #[inline]
    fn send(&mut self, conn: ConnId, message: &[u8]) {
        if let Some((_, Some(link))) = self.peers.get_mut(conn.index()) {
            link.send(message, &[]);
        }
    }

    #[inline]
    fn publish(&mut self) {
        for (_, link) in &mut self.peers {
            if let Some(link) = link {
                link.publish();
            }
        }
    }

    fn want(&mut self, peers: &[PeerKind]) {
        for peer in peers {
            let at = match self.peers.iter().position(|(known, _)| known == peer) {
                Some(at) => at,
                None => {
                    self.peers.push((*peer, None));
                    self.peers.len() - 1
                }
            };
            if self.peers[at].1.is_none() {
                let place = place_of(self.log, self.leader, *peer);
                self.peers[at].1 = self.shared.connect(place, self.sleeper.clone());
                if self.peers[at].1.is_some() {
                    self.opened.push(at);
                }
            }
        }
    }

    fn refresh_map(&mut self) {
        self.ask = true;
    }

    fn sleep(&mut self, until: Time) {
        self.empty = self.empty.saturating_add(1);
        if self.spin || self.empty < SPINS {
            std::hint::spin_loop();
            return;
        }
        if self.empty < SPINS + YIELDS {
            std::thread::yield_now();
            return;
        }
        // Whatever comes next may be a map.
        self.polls |= RARELY - 1;
        self.sleeper.sleeping.store(true, Ordering::SeqCst);
        let links = self
            .peers
            .iter_mut()
            .filter_map(|(_, link)| link.as_mut())
            .chain(self.directory.as_mut());
        let mut armed = true;
        for link in links {
            armed &= link.arm(true);
        }
        let wait = until.since(self.shared.now()).0;
        if armed && wait > 0 && self.sleeper.sleeping.load(Ordering::SeqCst) {
            std::thread::park_timeout(Duration::from_nanos(wait.min(1_000_000_000)));
        }
        self.sleeper.sleeping.store(false, Ordering::SeqCst);
        for link in self
            .peers
            .iter_mut()
            .filter_map(|(_, link)| link.as_mut())
            .chain(self.directory.as_mut())
        {
            link.disarm();
        }
    }

    fn waker(&self) -> LinkWaker {
        let sleeper = self.sleeper.clone();
        Arc::new(move || sleeper.wake())
    }
}
