//! The asynchronous face: the same operations as futures, driven by one thread that owns the machine and the link.
//!
//! Standard library only; works in any executor. Operations take effect when their future is first polled, in that order.
//! At most `outstanding_max` wait to be taken; beyond, futures wait for room. This face allocates per operation; where that
//! matters, use the pipelined calls of [`Log`](crate::Log).

mod operation;
mod stream;
mod worker;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::JoinHandle;

use std::collections::VecDeque;

use ionian_core::client::{Choice, ClientConfig, Policy};
use ionian_types::{Frontiers, Gsn, ShardId};

pub use operation::Operation;
pub use stream::{AsyncSubscription, NextDelivery};

use crate::driver::Driver;
use crate::error::Error;
use crate::history::HistoryHook;
use crate::link::{Link, LinkWaker};
use crate::log::Appended;
use crate::reads::ReadOutcome;
use operation::Command;
use stream::StreamState;
use worker::Worker;

/// A log, used from any number of tasks and threads. Cheap to clone. When the last clone is gone, its thread ends and
/// operations still open answer [`Error::Abandoned`].
///
/// # Examples
/// ```
/// use ionian_client::{AsyncLog, ReadOutcome, testing::{MemoryCluster, block_on}};
///
/// let cluster = MemoryCluster::new(2, 2);
/// let log = AsyncLog::open(cluster.link(), MemoryCluster::config(1))?;
/// block_on(async {
///     let appended = log.append("hello").await?;
///     assert_eq!(log.read(appended.gsn).await?, ReadOutcome::Record(b"hello".to_vec()));
///     Ok::<(), ionian_client::Error>(())
/// })?;
/// # Ok::<(), ionian_client::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct AsyncLog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What tasks and the thread share.
struct Shared {
    queue: Mutex<Queue>,
    waker: LinkWaker,
    max: usize,
}

struct Queue {
    commands: VecDeque<Command>,
    /// Tasks that wait for room.
    waiting: Vec<Waker>,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

/// Locks, also after a panic elsewhere: every critical section here leaves its data whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        (self.shared.waker)();
        if let Some(thread) = self.thread.take() {
            // The last clone may be dropped by a waker on the thread itself, which then ends on its own.
            if thread.thread().id() != std::thread::current().id() {
                // A panic of the thread has answered every open operation with `Abandoned`.
                drop(thread.join());
            }
        }
    }
}

impl AsyncLog {
    /// Makes a client of a log and starts its thread.
    ///
    /// # Errors
    /// [`Error::Config`]; [`Error::Abandoned`] when no thread can be started.
    pub fn open<L: Link + Send + 'static>(link: L, config: ClientConfig) -> Result<Self, Error> {
        Self::open_with_history(link, config, None)
    }

    /// As [`Self::open`], with a history hook, called on the thread.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_history<L: Link + Send + 'static>(
        link: L,
        config: ClientConfig,
        history: Option<HistoryHook>,
    ) -> Result<Self, Error> {
        let waker = link.waker();
        let max = config.outstanding_max as usize;
        let mut driver = Driver::new(link, config)?;
        driver.history = history;
        let queue = Queue {
            commands: VecDeque::new(),
            waiting: Vec::new(),
            closed: false,
        };
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            waker,
            max,
        });
        let worker = Worker::new(driver, shared.clone());
        let thread = std::thread::Builder::new()
            .name(String::from("ionian-client"))
            .spawn(move || worker.run())
            .map_err(|_| Error::Abandoned)?;
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                thread: Some(thread),
            }),
        })
    }

    /// Appends a record.
    pub fn append(&self, payload: impl Into<Vec<u8>>) -> Operation<Appended> {
        self.append_where(payload.into(), Choice::Policy)
    }

    /// Appends a record to a given shard.
    pub fn append_to_shard(
        &self,
        shard: ShardId,
        payload: impl Into<Vec<u8>>,
    ) -> Operation<Appended> {
        self.append_where(payload.into(), Choice::Shard(shard))
    }

    fn append_where(&self, payload: Vec<u8>, choice: Choice) -> Operation<Appended> {
        self.operation(|reply| Command::Append {
            payload,
            choice,
            reply,
            since: None,
        })
    }

    /// Reads the record at a position.
    pub fn read(&self, gsn: Gsn) -> Operation<ReadOutcome> {
        self.operation(|reply| Command::Read {
            gsn,
            shard: None,
            reply,
        })
    }

    /// Reads the record at a position that `shard` holds, as its append said.
    pub fn read_record(&self, gsn: Gsn, shard: ShardId) -> Operation<ReadOutcome> {
        self.operation(|reply| Command::Read {
            gsn,
            shard: Some(shard),
            reply,
        })
    }

    /// Removes every position below `upto`; answers the first one kept.
    pub fn trim(&self, upto: Gsn) -> Operation<Gsn> {
        self.operation(|reply| Command::Trim { upto, reply })
    }

    /// How far the log has come: head, and the frontiers as [`Log::frontiers`](crate::Log::frontiers) has them.
    pub fn ends(&self) -> Operation<(Gsn, Frontiers)> {
        self.operation(|reply| Command::Tail { reply })
    }

    /// The position after the last record ordered, confirmed after the call.
    ///
    /// # Errors
    /// [`Error::TimedOut`], [`Error::Busy`], [`Error::Closed`] or [`Error::Abandoned`].
    pub async fn tail(&self) -> Result<Gsn, Error> {
        self.ends().await.map(|(_, frontiers)| frontiers.ordered)
    }

    /// The first position that is not trimmed.
    ///
    /// # Errors
    /// As [`Self::tail`].
    pub async fn head(&self) -> Result<Gsn, Error> {
        self.ends().await.map(|(head, _)| head)
    }

    /// Subscribes to everything from `from` on. The subscription ends when it is dropped.
    #[must_use]
    pub fn subscribe(&self, from: Gsn) -> AsyncSubscription {
        let state = Arc::new(StreamState::default());
        let mut queue = self.inner.shared.lock();
        if queue.closed {
            state.end();
        } else {
            // Not counted against the bound: it is a handful, and this call cannot wait.
            queue.commands.push_back(Command::Subscribe {
                from,
                state: state.clone(),
            });
        }
        drop(queue);
        (self.inner.shared.waker)();
        AsyncSubscription::new(state, self.inner.shared.clone())
    }

    /// Sets how appends polled for the first time from now on choose their shard.
    pub fn set_shard_policy(&self, policy: Policy) {
        self.inner
            .shared
            .lock()
            .commands
            .push_back(Command::Policy(policy));
        (self.inner.shared.waker)();
    }

    fn operation<T>(&self, command: impl FnOnce(operation::Reply<T>) -> Command) -> Operation<T> {
        Operation::new(self.inner.shared.clone(), command)
    }
}
