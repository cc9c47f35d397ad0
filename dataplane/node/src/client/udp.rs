//! A client of a cluster over UDP: one socket, a session per peer and one to the directory.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ionian_client::{Link, LinkEvent, LinkWaker};
use ionian_core::client::PeerKind;
use ionian_core::session::Take;
use ionian_driver_api::{Clock, Wake};
use ionian_runtime::{MonotonicClock, Sleeper};
use ionian_types::{ConnId, LogId, Nanos, NodeId, Time};
use ionian_wire::directory::{ClusterMap, Endpoint};
use ionian_wire::frame::{DirectoryRequest, Message, encode};
use ionian_wire::grant::Rights;

use super::grants::UserGrants;
use super::{leader_of, place_of};
use crate::config::Secret;
use crate::dial::connect_message;
use crate::role::Place;
use crate::udp::{PortError, PortOptions, UdpPort};
use ionian_core::guard::{ANY_NODE, KeyChange, Keyring};

/// After this long without the map somebody else is asked for it, when a session had to be opened first.
const SILENT: Nanos = Nanos::from_ms(500);
/// The same on a session that is open. Whoever held it may have died with what the newer map is wanted for, and the session
/// itself would be taken for dead much later.
const SILENT_OPEN: Nanos = Nanos::from_ms(50);
/// While a server's answer is overdue the map is asked for this often: news of its death is pushed, but not by one that died with it.
const OVERDUE_ASKS: Nanos = Nanos::from_ms(50);
/// A newer map is wanted this often before somebody else is asked for it.
const REFRESHES: u32 = 8;
/// The pause before a peer is dialled again.
const RETRY: Nanos = Nanos::from_ms(50);
/// Empty sleeps that only yield: about two round trips of a quiet network. After that the thread blocks until a datagram.
const YIELDS: u32 = 100;
/// The longest block of a sleep, however far away the next deadline is.
const BLOCK_NS_MAX: u64 = 100_000_000;

/// By what a client may open sessions.
#[derive(Clone, Debug)]
pub enum Credential {
    /// It has the secret that the cluster's nodes share, and so every right.
    Secret(Secret),
    /// It is a user, and has what the controllers granted.
    User(Arc<UserGrants>),
}

/// How a client reaches its cluster.
#[derive(Clone, Debug)]
pub struct ClientPortOptions {
    /// Where the map is asked for: the controller's address, or that of any node whose controllers are outside the data plane.
    pub directory: SocketAddr,
    /// Others that may be asked for it instead.
    pub others: Vec<SocketAddr>,
    /// By what it may open sessions.
    pub credential: Credential,
    /// Which nodes are at the addresses where the map is asked for: a user's grant is for one of them. One that is not named
    /// here is asked by a grant for any, which only the secret makes.
    pub nodes: BTreeMap<SocketAddr, NodeId>,
    /// The socket.
    pub port: PortOptions,
    /// The log.
    pub log: LogId,
    /// Keep the thread on its core while it waits.
    pub spin: bool,
    /// Milliseconds of silence after which a server counts as dead.
    pub dead_after_ms: u64,
}

#[derive(Debug)]
struct Peer {
    kind: PeerKind,
    session: Option<u32>,
    retry_at: Time,
    announced: bool,
}

/// The link of a client over UDP. Belongs to the thread that made it.
#[derive(Debug)]
pub struct UdpLink {
    port: UdpPort,
    clock: MonotonicClock,
    options: ClientPortOptions,
    peers: Vec<Peer>,
    by_session: BTreeMap<u32, usize>,
    directory: Option<u32>,
    directory_retry_at: Time,
    /// Which of those that may be asked is asked.
    directory_at: usize,
    /// Until when an answer of that one is waited for; none once it has answered.
    answer_by: Option<Time>,
    ask: bool,
    /// When the map is asked for next because a server's answer is overdue.
    overdue_at: Time,
    /// How often a newer map was wanted.
    refreshes: u32,
    map: ClusterMap,
    empty: u32,
    sleeper: Sleeper,
    woken: Arc<AtomicBool>,
    ended: Vec<u32>,
    /// The user's grants, and the version of those that the port has.
    grants: Option<(Arc<UserGrants>, u64)>,
    rights: Rights,
    /// Sessions closed in this poll after a message that did not parse.
    broken: Vec<u32>,
    /// Messages taken and not handed over: (session, end) over bytes.
    inbox: Vec<u8>,
    entries: Vec<(u32, usize)>,
}

impl UdpLink {
    /// Opens the socket; connections follow when the client polls.
    ///
    /// # Errors
    /// [`PortError`]; effect none.
    pub fn open(options: ClientPortOptions) -> Result<Self, PortError> {
        let dead_after = Nanos::from_ms(options.dead_after_ms);
        let (keyring, grants, rights) = match &options.credential {
            Credential::Secret(secret) => {
                let rights = Rights::CLIENT;
                (secret.keyring(ANY_NODE, rights), None, rights)
            }
            Credential::User(grants) => {
                let keyring = Keyring::of_controllers(ANY_NODE);
                (keyring, Some((grants.clone(), 0)), Rights::NONE)
            }
        };
        let port = UdpPort::open(&options.port, keyring, dead_after)?;
        let sleeper = Sleeper::new().map_err(PortError::Sleep)?;
        if let Some(fd) = port.wake_fd() {
            sleeper.watch(fd).map_err(PortError::Sleep)?;
        }
        let mut link = Self {
            port,
            clock: MonotonicClock::start(),
            options,
            peers: Vec::with_capacity(64),
            by_session: BTreeMap::new(),
            directory: None,
            directory_retry_at: Time::ZERO,
            directory_at: 0,
            answer_by: None,
            ask: true,
            overdue_at: Time::ZERO,
            refreshes: 0,
            map: ClusterMap::default(),
            empty: 0,
            grants,
            rights,
            sleeper,
            woken: Arc::new(AtomicBool::new(false)),
            ended: Vec::new(),
            broken: Vec::new(),
            inbox: Vec::with_capacity(4 << 20),
            entries: Vec::with_capacity(4096),
        };
        link.take_grants(Time::ZERO);
        Ok(link)
    }

    /// Opens sessions with the user's newest grants from now on. Those that are there go on until the other end says that they
    /// do not.
    fn take_grants(&mut self, now: Time) {
        let Some((grants, known)) = &mut self.grants else {
            return;
        };
        let version = grants.version();
        if *known == version {
            return;
        }
        *known = version;
        let given = grants.now();
        self.rights = given.rights;
        self.port.change_keys(now, &KeyChange::Release);
        for (grant, key) in given.grants {
            self.port.change_keys(now, &KeyChange::Hold(grant, key));
        }
        let peers = self.peers.iter_mut();
        peers.for_each(|peer| peer.retry_at = peer.retry_at.min(now));
    }

    /// The user's rights may have changed.
    fn want_grants(&self) {
        if let Some((grants, _)) = &self.grants {
            grants.want();
        }
    }

    /// The cluster's map as last received.
    #[must_use]
    pub const fn map(&self) -> &ClusterMap {
        &self.map
    }

    /// Sessions that a server closed before it said anything: it has no room for more, or not the place that was wanted.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.port.stats().refused
    }

    /// Changes the log that peers are wanted for; before the first connection only.
    pub fn set_log(&mut self, log: LogId) {
        self.options.log = log;
    }

    fn open_session(
        &mut self,
        now: Time,
        to: Place,
        node: NodeId,
        address: SocketAddr,
    ) -> Option<u32> {
        let session = self.port.dial(now, node, address)?;
        let mut first = [0u8; 64];
        let len = connect_message(to, &mut first);
        self.port.send(session, &first[..len], &[]);
        Some(session)
    }

    fn endpoint(&self, peer: PeerKind) -> Option<&Endpoint> {
        let log = self
            .map
            .logs
            .iter()
            .find(|log| log.log == self.options.log)?;
        match peer {
            PeerKind::Root => Some(log.root()),
            PeerKind::Replica { shard, slot } => {
                let shard = log.shards.iter().find(|info| info.shard == shard)?;
                shard
                    .replicas
                    .get(slot.index())
                    .map(|replica| &replica.endpoint)
            }
        }
    }

    /// The next one is asked for the map, where there is another one.
    fn ask_another(&mut self, now: Time) {
        self.answer_by = None;
        if self.options.others.is_empty() {
            return;
        }
        if let Some(session) = self.directory.take() {
            self.port.close(now, session);
        }
        self.directory_at = (self.directory_at + 1) % (1 + self.options.others.len());
    }

    /// Asks for the map while a server does not answer, where there is somebody else to ask if the one who is asked does not
    /// either.
    fn look_for_silence(&mut self, now: Time) {
        if now < self.overdue_at || self.options.others.is_empty() {
            return;
        }
        let sessions = self.peers.iter().filter_map(|peer| peer.session);
        if sessions
            .into_iter()
            .any(|session| self.port.is_overdue(session))
        {
            self.overdue_at = now.after(OVERDUE_ASKS);
            self.ask = true;
        }
    }

    /// Opens what is wanted and not open.
    fn dial(&mut self, now: Time) {
        self.look_for_silence(now);
        if self.silent_until().is_some_and(|until| until <= now) {
            self.ask_another(now);
        }
        if self.directory.is_none() && now >= self.directory_retry_at {
            self.directory_retry_at = now.after(RETRY);
            let other = self.directory_at.checked_sub(1);
            let other = other.and_then(|at| self.options.others.get(at)).copied();
            let address = other.unwrap_or(self.options.directory);
            let node = self.options.nodes.get(&address);
            let node = node.copied().unwrap_or(ANY_NODE);
            self.directory = self.open_session(now, Place::Directory, node, address);
            self.answer_by = Some(now.after(SILENT));
            self.ask = true;
        }
        if let Some(session) = self.directory.filter(|_| self.ask) {
            self.answer_by.get_or_insert(now.after(SILENT_OPEN));
            let mut message = [0u8; 64];
            if let Ok(len) = encode(
                &mut message,
                &DirectoryRequest {
                    request: 1,
                    known: 0,
                },
                &[],
            ) {
                self.ask = !self.port.send(session, &message[..len], &[]);
            }
        }
        for at in 0..self.peers.len() {
            if self.peers[at].session.is_some() || now < self.peers[at].retry_at {
                continue;
            }
            self.peers[at].retry_at = now.after(RETRY);
            let kind = self.peers[at].kind;
            let found = self.endpoint(kind).and_then(|endpoint| {
                let address = endpoint.address.to_socket_addrs().ok()?.next()?;
                Some((endpoint.node, address))
            });
            let Some((node, address)) = found else {
                continue;
            };
            let leader = leader_of(&self.map, self.options.log);
            let to = place_of(self.options.log, leader, kind);
            let session = self.open_session(now, to, node, address);
            self.peers[at].session = session;
            self.peers[at].announced = false;
            if let Some(session) = session {
                self.by_session.insert(session, at);
            }
        }
    }

    /// Until when an answer to the question for the map is waited for, where somebody else can be asked.
    fn silent_until(&self) -> Option<Time> {
        self.answer_by.filter(|_| !self.options.others.is_empty())
    }

    /// When a connection is to be opened again.
    fn dial_at(&self) -> Time {
        let closed = self.peers.iter().filter(|peer| peer.session.is_none());
        let directory = self.directory.is_none().then_some(self.directory_retry_at);
        closed
            .map(|peer| peer.retry_at)
            .chain(directory)
            .chain(self.silent_until())
            .min()
            .unwrap_or(Time::FAR)
    }

    fn receive(&mut self, now: Time) {
        let Self {
            port,
            inbox,
            entries,
            ..
        } = self;
        port.receive(now, &mut |session, _, message| {
            if entries.len() == entries.capacity() || inbox.len() + message.len() > 4 << 20 {
                return Take::Later;
            }
            inbox.extend_from_slice(message);
            entries.push((session, inbox.len()));
            Take::Taken
        });
        while let Some(session) = self.port.take_ended() {
            self.ended.push(session);
        }
    }

    /// A new map: the session with a member of the root group that leads no longer ends.
    fn follow(&mut self, now: Time, map: ClusterMap) {
        let log = self.options.log;
        let root = |map: &ClusterMap| {
            let known = map.logs.iter().find(|known| known.log == log);
            known.map(|known| (known.leader, known.root().node))
        };
        let moved = root(&self.map) != root(&map);
        self.map = map;
        let mut peers = self.peers.iter();
        let Some(at) = peers.position(|peer| moved && peer.kind == PeerKind::Root) else {
            return;
        };
        self.peers[at].retry_at = Time::ZERO;
        if let Some(session) = self.peers[at].session {
            self.port.close(now, session);
        }
    }

    fn hand_over(&mut self, now: Time, event: &mut impl FnMut(LinkEvent<'_>)) -> usize {
        let mut start = 0;
        let mut newest = None;
        for (session, end) in &self.entries {
            let bytes = &self.inbox[start..*end];
            start = *end;
            let Ok((message, _)) = Message::new_checked(bytes) else {
                // What follows would come as if nothing were missing.
                self.port.close(now, *session);
                self.broken.push(*session);
                continue;
            };
            if self.broken.contains(session) {
                continue;
            }
            if Some(*session) == self.directory {
                if let Message::DirectoryAnswer(_, map) = message
                    && let Ok(map) = ClusterMap::read(map)
                {
                    self.answer_by = None;
                    // Of several processes one may know less than another; a single one knows best.
                    let newer = newest.as_ref().unwrap_or(&self.map).version;
                    if self.options.others.is_empty() || map.version >= newer {
                        event(LinkEvent::Map(&map));
                        newest = Some(map);
                    }
                }
            } else if let Some(at) = self.by_session.get(session) {
                event(LinkEvent::Message {
                    conn: ConnId::new(*at as u32),
                    message,
                });
            }
        }
        if let Some(map) = newest {
            self.follow(now, map);
        }
        let count = self.entries.len();
        self.broken.clear();
        self.entries.clear();
        self.inbox.clear();
        count
    }
}

impl Drop for UdpLink {
    /// Tells the servers, best effort: they keep a session that only falls silent for a while.
    fn drop(&mut self) {
        let now = self.clock.now();
        let peers = self.peers.iter().filter_map(|peer| peer.session);
        let open: Vec<u32> = peers.chain(self.directory).collect();
        for session in open {
            self.port.close(now, session);
        }
    }
}

impl Link for UdpLink {
    fn now(&mut self) -> Time {
        self.clock.now()
    }

    fn poll<F: FnMut(LinkEvent<'_>)>(&mut self, mut event: F) -> usize {
        let now = self.clock.now();
        self.receive(now);
        let mut count = self.hand_over(now, &mut event);
        self.take_grants(now);
        if !self.ended.is_empty() {
            self.want_grants();
        }
        for session in core::mem::take(&mut self.ended) {
            if self.directory == Some(session) {
                self.directory = None;
                self.ask_another(now);
            }
            if let Some(at) = self.by_session.remove(&session) {
                self.peers[at].session = None;
                event(LinkEvent::Disconnected {
                    conn: ConnId::new(at as u32),
                });
                count += 1;
            }
        }
        self.dial(now);
        for at in 0..self.peers.len() {
            let peer = &mut self.peers[at];
            let Some(session) = peer.session.filter(|_| !peer.announced) else {
                continue;
            };
            peer.announced = true;
            let room = self.port.room(session);
            event(LinkEvent::Connected {
                conn: ConnId::new(at as u32),
                peer: peer.kind,
                room,
            });
            count += 1;
        }
        self.port.transmit(now);
        if count > 0 {
            self.empty = 0;
        }
        count
    }

    fn room(&mut self, conn: ConnId) -> usize {
        let session = self.peers.get(conn.index()).and_then(|peer| peer.session);
        session.map_or(0, |session| self.port.room(session))
    }

    fn send(&mut self, conn: ConnId, message: &[u8]) {
        if let Some(session) = self.peers.get(conn.index()).and_then(|peer| peer.session) {
            self.port.send(session, message, &[]);
        }
    }

    fn publish(&mut self) {
        let now = self.clock.now();
        self.port.transmit(now);
    }

    fn want(&mut self, peers: &[PeerKind]) {
        for kind in peers {
            if self.peers.iter().all(|peer| peer.kind != *kind) {
                self.peers.push(Peer {
                    kind: *kind,
                    session: None,
                    retry_at: Time::ZERO,
                    announced: false,
                });
            }
        }
    }

    fn refresh_map(&mut self) {
        self.ask = true;
        // Whoever was asked may be cut off from the controllers, and know no more than before.
        self.refreshes = self.refreshes.wrapping_add(1);
        if self.refreshes.is_multiple_of(REFRESHES) && self.answer_by.is_none() {
            let now = self.clock.now();
            self.ask_another(now);
        }
    }

    fn rights(&self) -> Rights {
        self.rights
    }

    fn sleep(&mut self, until: Time) {
        self.empty = self.empty.saturating_add(1);
        if self.woken.swap(false, Ordering::AcqRel) {
            return;
        }
        if self.options.spin {
            std::hint::spin_loop();
            return;
        }
        if self.empty < YIELDS {
            std::thread::yield_now();
            return;
        }
        self.sleeper.prepare();
        let now = self.clock.now();
        let until = until.min(self.port.next_deadline()).min(self.dial_at());
        // Whoever woke the link before it was prepared has left the mark.
        if self.woken.swap(false, Ordering::AcqRel) || until <= now || !self.port.arm() {
            self.sleeper.cancel();
            return;
        }
        self.sleeper
            .block(Some(until.since(now).0.min(BLOCK_NS_MAX)));
    }

    fn waker(&self) -> LinkWaker {
        let (woken, handle) = (self.woken.clone(), self.sleeper.handle());
        Arc::new(move || {
            woken.store(true, Ordering::Release);
            handle.wake();
        })
    }
}
