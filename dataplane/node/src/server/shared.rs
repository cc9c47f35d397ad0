//! What the hosts of a process and the clients in it know of each other and of the cluster: who runs where, how to reach it,
//! and the newest cluster map. Read rarely, behind locks that no host takes in its loop: a number that rises with every
//! change tells it that there is something to read.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};

use ionian_control_core::Word;
use ionian_driver_api::{Clock, Wake};
use ionian_runtime::{MailboxSender, MonotonicClock, WakeHandle};
use ionian_shm::duplex;
use ionian_types::{ClusterId, GuardEpoch, Nanos, NodeId, SessionId, Time, Token};
use ionian_wire::directory::ClusterMap;

use super::options::ControllerAt;
use super::sentences::Sentences;
use crate::device::DeviceFailure;
use crate::host::Control;
use crate::link::{LinkIds, ShmLink};
use crate::role::Place;
use crate::wants::{RING_BYTES, SMALL_RING_BYTES};
use ionian_core::guard::KeyChange;

/// What waits to be said about other processes; beyond, the oldest is forgotten.
const WORDS_MAX: usize = 1024;

/// How to reach a host.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) controls: MailboxSender<Control>,
    pub(super) wake: WakeHandle,
}

/// Where a place is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Home {
    pub(crate) host: usize,
    /// Which of the places of this name in this process: no two have the same number.
    pub(crate) number: u64,
}

/// What the hosts of a process and the clients in it share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// By the host's number.
    doors: Vec<Door>,
    homes: RwLock<BTreeMap<Place, Home>>,
    map: RwLock<Arc<ClusterMap>>,
    /// Of the map that is known.
    map_version: AtomicU64,
    /// Rises whenever a place comes or goes, and with every map.
    news: AtomicU64,
    /// Whom news wakes besides the hosts.
    watchers: Mutex<Vec<Weak<dyn Wake + Send + Sync>>>,
    pub(crate) node: NodeId,
    pub(crate) controller: ControllerAt,
    /// Where nodes are, as configured.
    pub(crate) addresses: BTreeMap<NodeId, SocketAddr>,
    /// Stores of the process, which share what its file system has left.
    pub(super) stores: Arc<AtomicU64>,
    clock: MonotonicClock,
    pub(super) cluster: ClusterId,
    sessions: AtomicU64,
    /// After how long a silence the process speaks up about others, if it observes them.
    pub(super) suspect_after: Option<Nanos>,
    /// What it has to say of them.
    words: Mutex<VecDeque<Word>>,
    /// What it has to say to its operator.
    sentences: Mutex<Sentences>,
    /// The device that ended the process.
    failure: OnceLock<DeviceFailure>,
}

/// What a process is told of its cluster at its start.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
    pub(super) controller: ControllerAt,
    pub(super) addresses: BTreeMap<NodeId, SocketAddr>,
    /// After how long a silence the process speaks up about others.
    pub(super) suspect_after: Option<Nanos>,
    /// The map as the specification alone makes it, of version 0, or the one that the process knew last.
    pub(super) map: ClusterMap,
}

impl Shared {
    pub(super) fn new(
        doors: Vec<Door>,
        homes: &BTreeMap<Place, usize>,
        clock: MonotonicClock,
        known: Known,
    ) -> Self {
        let homes = homes.iter().enumerate().map(|(number, (place, host))| {
            let (host, number) = (*host, number as u64);
            (*place, Home { host, number })
        });
        let homes: BTreeMap<Place, Home> = homes.collect();
        Self {
            doors,
            news: AtomicU64::new(homes.len() as u64 + 1),
            homes: RwLock::new(homes),
            map_version: AtomicU64::new(known.map.version),
            map: RwLock::new(Arc::new(known.map)),
            watchers: Mutex::default(),
            node: known.node,
            controller: known.controller,
            addresses: known.addresses,
            stores: Arc::default(),
            clock,
            cluster: known.cluster,
            suspect_after: known.suspect_after,
            words: Mutex::default(),
            sentences: Mutex::default(),
            sessions: AtomicU64::new(1 << 32),
            failure: OnceLock::new(),
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    /// Ends the work of every host: a device has failed. The first failure is the one that is told.
    #[cold]
    pub(crate) fn fail(&self, failure: DeviceFailure) {
        let _ = self.failure.set(failure);
        for door in &self.doors {
            door.wake.wake();
        }
    }

    /// The device that ended the process, if one did.
    #[inline]
    pub(crate) fn failure(&self) -> Option<&DeviceFailure> {
        self.failure.get()
    }

    /// Number of hosts.
    pub(crate) fn hosts(&self) -> usize {
        self.doors.len()
    }

    /// Ends the sleep of a host's reactor.
    pub(crate) fn wake(&self, host: usize) -> Arc<dyn Wake + Send + Sync> {
        Arc::new(self.doors[host].wake.clone())
    }

    /// The number that rises with all news of places and of the cluster.
    #[inline]
    pub(crate) fn news(&self) -> u64 {
        self.news.load(Ordering::Acquire)
    }

    /// Has a thread woken at news, as long as `watcher` is there.
    pub(crate) fn watch(&self, watcher: Weak<dyn Wake + Send + Sync>) {
        let mut watchers = lock(&self.watchers);
        watchers.retain(|watcher| watcher.strong_count() > 0);
        watchers.push(watcher);
    }

    #[cold]
    fn tell(&self) {
        self.news.fetch_add(1, Ordering::AcqRel);
        for door in &self.doors {
            door.wake.wake();
        }
        self.wake_watchers();
    }

    fn wake_watchers(&self) {
        let mut watchers = lock(&self.watchers);
        watchers.retain(|watcher| {
            watcher.upgrade().is_some_and(|watcher| {
                watcher.wake();
                true
            })
        });
    }

    /// The process has something to say about another one. It is said again if it is lost.
    #[cold]
    pub(crate) fn say(&self, word: Word) {
        {
            let mut words = lock(&self.words);
            if words.len() == WORDS_MAX {
                words.pop_front();
            }
            words.push_back(word);
        }
        self.wake_watchers();
    }

    /// The next thing to be said.
    pub(super) fn take_word(&self) -> Option<Word> {
        lock(&self.words).pop_front()
    }

    /// The operator is to know a reason.
    #[cold]
    pub(crate) fn note(&self, about: &str, reason: &str) {
        let now = self.now();
        lock(&self.sentences).note(now, about, reason);
    }

    /// All that the operator is to know and was not told.
    pub(super) fn take_sentences(&self) -> Vec<String> {
        lock(&self.sentences).take()
    }

    /// The newest cluster map, or what the specification makes of it before there was one.
    pub(crate) fn map(&self) -> Arc<ClusterMap> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        map.clone()
    }

    /// The version of the newest map; 0 before there was one.
    #[inline]
    pub(crate) fn map_version(&self) -> u64 {
        self.map_version.load(Ordering::Acquire)
    }

    /// Takes a map that the controller sent, if it is newer. A map that does not parse changes nothing.
    #[cold]
    pub(crate) fn learn(&self, version: u64, bytes: &[u8]) {
        if bytes.is_empty() || version <= self.map_version() {
            return;
        }
        let Ok(map) = ClusterMap::read(bytes) else {
            return;
        };
        {
            let mut known = self.map.write().unwrap_or_else(PoisonError::into_inner);
            if map.version <= known.version {
                return;
            }
            self.map_version.store(map.version, Ordering::Release);
            *known = Arc::new(map);
        }
        self.tell();
    }

    /// Where a place is, if it is in this process.
    pub(crate) fn home(&self, place: Place) -> Option<Home> {
        let homes = self.homes.read().unwrap_or_else(PoisonError::into_inner);
        homes.get(&place).copied()
    }

    /// The places of the process.
    pub(crate) fn homes(&self) -> BTreeMap<Place, Home> {
        let homes = self.homes.read().unwrap_or_else(PoisonError::into_inner);
        homes.clone()
    }

    /// A place has come to a host.
    pub(crate) fn moved_in(&self, place: Place, host: usize) {
        let number = self.news();
        {
            let mut homes = self.homes.write().unwrap_or_else(PoisonError::into_inner);
            // At the start of a process everybody knows already.
            if homes.get(&place).is_some_and(|home| home.host == host) {
                return;
            }
            homes.insert(place, Home { host, number });
        }
        self.tell();
    }

    /// A place has left.
    pub(crate) fn moved_out(&self, place: Place) {
        {
            let mut homes = self.homes.write().unwrap_or_else(PoisonError::into_inner);
            homes.remove(&place);
        }
        self.tell();
    }

    /// Asks something of a host. `false` when its mailbox is full: backpressure, effect none.
    pub(crate) fn send(&self, host: usize, control: Control) -> bool {
        self.doors
            .get(host)
            .is_some_and(|door| door.controls.send(control).is_ok())
    }

    /// Hands a change of keys to the host with the socket. `false` when it takes nothing now: effect none.
    pub(super) fn change_keys(&self, change: KeyChange) -> bool {
        let sent = self.send(0, Control::Keys(change));
        if let (true, Some(door)) = (sent, self.doors.first()) {
            door.wake.wake();
        }
        sent
    }

    /// Asks something of every host. `false` when a mailbox is full; the others were asked.
    pub(super) fn send_all(&self, mut control: impl FnMut() -> Control) -> bool {
        let refused = (0..self.hosts()).filter(|host| !self.send(*host, control()));
        refused.count() == 0
    }

    /// Opens a connection of a client to a place. The caller polls its end; `wake` is called when something comes while it
    /// sleeps. `None` when the place is not here, its host takes nothing now, or a device has ended the process.
    pub(crate) fn connect(
        &self,
        place: Place,
        wake: Arc<dyn Wake + Send + Sync>,
    ) -> Option<ShmLink> {
        if self.failure().is_some() {
            return None;
        }
        let home = self.home(place)?.host;
        let ids = self.link_ids();
        let (client, server) = duplex(RING_BYTES);
        let attach = Control::Attach {
            place,
            link: Box::new(ShmLink::new(server, ids.reversed(), wake)),
            to_controller: false,
        };
        self.send(home, attach)
            .then(|| ShmLink::new(client, ids, self.wake(home)))
    }

    /// Opens a place's connection to a controller that the caller speaks for, as [`Self::connect`]. `None` when the place is
    /// not here, or its host takes nothing now.
    pub(crate) fn speak_for_controller(
        &self,
        place: Place,
        wake: Arc<dyn Wake + Send + Sync>,
    ) -> Option<ShmLink> {
        let home = self.home(place)?.host;
        let ids = self.link_ids();
        let (far, near) = duplex(SMALL_RING_BYTES);
        let attach = Control::Attach {
            place,
            link: Box::new(ShmLink::between_hosts(near, ids.reversed(), wake)),
            to_controller: true,
        };
        self.send(home, attach)
            .then(|| ShmLink::between_hosts(far, ids, self.wake(home)))
    }

    /// Opens a connection from host `me` to a place of another host. `None` when the place is on no other host, or its host
    /// takes nothing now.
    pub(crate) fn connect_hosts(
        &self,
        me: usize,
        place: Place,
        bytes: usize,
        to_controller: bool,
    ) -> Option<ShmLink> {
        let home = self.home(place).filter(|home| home.host != me)?.host;
        let ids = self.link_ids();
        let (near, far) = duplex(bytes);
        let attach = Control::Attach {
            place,
            link: Box::new(ShmLink::between_hosts(far, ids.reversed(), self.wake(me))),
            to_controller,
        };
        self.send(home, attach)
            .then(|| ShmLink::between_hosts(near, ids, self.wake(home)))
    }

    /// The identity of a new connection within the process.
    pub(crate) fn link_ids(&self) -> LinkIds {
        let session = self.sessions.fetch_add(1, Ordering::Relaxed);
        // Both ends live in this process: the token guards against a link used by mistake, not against an adversary.
        LinkIds {
            session: SessionId::new(session),
            epoch: GuardEpoch::new(1),
            send: Token::new(session.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            receive: Token::new(session.wrapping_mul(0xc2b2_ae3d_27d4_eb4f) | 1),
        }
    }
}

/// What a thread left that panicked while it held the lock is whole: every change is one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
