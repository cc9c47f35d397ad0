//! A cluster in memory, for tests and examples: the real client over a server that orders each append as it comes.
//!
//! It keeps the promises of a log's servers towards clients (repeats answered alike, positions dense, credit respected) and
//! nothing else: no replication, no durability, no cuts. Several links may share it, from any threads.

mod link;
mod server;

use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use ionian_core::client::ClientConfig;
use ionian_types::{ClientId, ClusterId, GapKind, Gsn, LogId};

pub use link::MemoryLink;
use server::Server;

use crate::error::Error;
use crate::log::Log;

/// A cluster in memory with one log.
#[derive(Clone, Debug)]
pub struct MemoryCluster {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: Mutex<Server>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Server> {
        // A test that panicked while it held the lock has failed already; the others may go on.
        self.server
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl MemoryCluster {
    /// The cluster's identity.
    pub const CLUSTER: ClusterId = ClusterId::new(0x10);
    /// The log.
    pub const LOG: LogId = LogId::new(1);

    /// Makes a cluster of `shards` shards (1 to 64) with `replicas` replicas each (1 to 7).
    ///
    /// # Panics
    /// If a number is out of its range.
    #[must_use]
    pub fn new(shards: u32, replicas: u8) -> Self {
        assert!(
            (1..=64).contains(&shards) && (1..=7).contains(&replicas),
            "a small cluster"
        );
        Self {
            shared: Arc::new(Shared {
                server: Mutex::new(Server::new(shards, replicas)),
                changed: Condvar::new(),
            }),
        }
    }

    /// A link to it.
    #[must_use]
    pub fn link(&self) -> MemoryLink {
        MemoryLink::new(self.shared.clone())
    }

    /// A configuration for a client of it.
    #[must_use]
    pub fn config(client: u128) -> ClientConfig {
        ClientConfig::new(Self::CLUSTER, Self::LOG, ClientId::new(client))
    }

    /// Opens a client of it.
    ///
    /// # Errors
    /// None with the default configuration.
    pub fn open(&self, client: u128) -> Result<Log<MemoryLink>, Error> {
        Log::open(self.link(), Self::config(client))
    }

    /// Breaks every connection, with what was under way; the links connect again.
    pub fn break_connections(&self) {
        self.shared.lock().break_connections();
        self.shared.changed.notify_all();
    }

    /// Stops taking appends (or takes them again): they are refused, without effect, naming node `missing`.
    pub fn refuse_appends(&self, missing: Option<u32>) {
        self.shared.lock().missing = missing;
    }

    /// Stops listening: what is sent from now on is lost with its connection, when connections break.
    pub fn set_deaf(&self, deaf: bool) {
        self.shared.lock().deaf = deaf;
    }

    /// Puts a gap at the end of the log.
    pub fn declare_gap(&self, count: u64, kind: GapKind) -> Gsn {
        let from = self.shared.lock().declare_gap(count, kind);
        self.shared.changed.notify_all();
        from
    }
}

/// Runs a future on this thread until it is done: enough of an executor for examples and tests.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::park();
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
