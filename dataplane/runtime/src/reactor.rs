//! The reactor: one thread that polls, and sleeps only when everybody agrees.
//!
//! Falling asleep follows a protocol under which no wake-up is lost:
//!
//! ```text
//! reactor                                   waker (ring, mailbox, stop)
//!   sleeping = true; fence                    publish work; fence
//!   every poller arms its wake-ups,           if sleeping { sleeping = false; write eventfd }
//!     or refuses because it has work
//!   poll once more
//!   block in epoll until eventfd,
//!     a device's descriptor or a deadline
//! ```
//!
//! Either the reactor finds the published work in one of its two looks, or the waker finds `sleeping` and makes the
//! descriptor readable, before or while the reactor blocks on it.

mod idle;
mod poller;
mod sleep;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::{fmt, io};

use ionian_driver_api::{Clock, Time, Wake};
use thiserror::Error;

pub use idle::IdlePolicy;
pub use poller::Poller;
pub use sleep::{Sleeper, WakeHandle, Woken};

use crate::clock::MonotonicClock;
use crate::counters::{CounterReader, Counters, counters};
use crate::pin::{
    PinError, Priority, PriorityOutcome, pin_current_thread, set_precise_timeouts, set_priority,
};
use idle::{Ladder, Step};

/// A loop longer than this counts as a stall, in nanoseconds: others on the reactor have waited that long.
const STALL_NS: u64 = 1_000_000;

/// What a reactor counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum ReactorCounter {
    /// Loops.
    Loops,
    /// Loops that found work.
    BusyLoops,
    /// Units of work, as the pollers count them.
    Work,
    /// Times the core was offered to others.
    Yields,
    /// Times the thread blocked.
    Sleeps,
    /// Sleeps ended by a wake-up or a device.
    WokenByEvent,
    /// Sleeps ended by a deadline.
    WokenByDeadline,
    /// Attempts to sleep that a poller refused or that the second look ended.
    SleepsRefused,
    /// Loops of more than a millisecond, the scheduler's doing included.
    Stalls,
    /// Longest loop, in nanoseconds.
    LoopNsMax,
}

/// Number of [`ReactorCounter`]s.
const COUNTERS: usize = ReactorCounter::LoopNsMax as usize + 1;

/// How a reactor's thread runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReactorOptions {
    /// Name of the thread; the system shows 15 bytes of it.
    pub name: String,
    /// Core to pin it to.
    pub core: Option<usize>,
    /// What it does when there is nothing to do.
    pub idle: IdlePolicy,
    /// How the scheduler treats it.
    pub priority: Priority,
}

/// How a reactor's thread really runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReactorStart {
    /// The core it is pinned to, or why it is not pinned as asked.
    pub pinned: Result<Option<usize>, PinError>,
    /// What became of the priority.
    pub priority: PriorityOutcome,
}

/// Stops a reactor. Clones stop the same one. Safe to use in a signal handler.
#[derive(Clone, Debug)]
pub struct StopHandle {
    stop: Arc<AtomicBool>,
    wake: WakeHandle,
}

impl StopHandle {
    /// Makes the reactor return after the loop it is in, from its sleep too.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake.wake();
    }

    /// Whether it was told to stop.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// A reactor that is not running yet: a place for wake-ups to go while its pollers are made.
#[derive(Debug)]
pub struct Reactor {
    options: ReactorOptions,
    clock: MonotonicClock,
    sleeper: Sleeper,
    stop: StopHandle,
    counters: Counters<COUNTERS>,
    reader: CounterReader<COUNTERS>,
}

impl Reactor {
    /// Makes a reactor. Reactors that exchange times share a clock.
    ///
    /// # Errors
    ///
    /// The system's, if it has no descriptors left. Effect: none.
    pub fn new(options: ReactorOptions, clock: MonotonicClock) -> io::Result<Self> {
        let sleeper = Sleeper::new()?;
        let (counters, reader) = counters();
        let stop = StopHandle {
            stop: Arc::new(AtomicBool::new(false)),
            wake: sleeper.handle(),
        };
        Ok(Self {
            options,
            clock,
            sleeper,
            stop,
            counters,
            reader,
        })
    }

    /// Ends this reactor's sleep; for mailboxes, rings and devices of other threads.
    #[must_use]
    pub fn wake_handle(&self) -> WakeHandle {
        self.sleeper.handle()
    }

    /// Stops this reactor.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Starts the thread and makes the poller there, so that the poller need not be able to move between threads.
    /// Returns once the poller is made.
    ///
    /// # Errors
    ///
    /// The system's, if it starts no thread. Effect: none.
    pub fn spawn<P: Poller>(
        self,
        make: impl FnOnce() -> P + Send + 'static,
    ) -> io::Result<ReactorHandle> {
        let (stop, reader) = (self.stop.clone(), self.reader.clone());
        let (send, receive) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name(self.options.name.clone())
            .spawn(move || {
                let start = self.settle();
                let mut poller = make();
                // The starter waits for this; if it is gone, nobody is interested.
                let _ = send.send(start);
                self.run(&mut poller)
            })?;
        match receive.recv() {
            Ok(start) => Ok(ReactorHandle {
                thread,
                stop,
                start,
                reader,
            }),
            Err(_) => match thread.join() {
                Ok(result) => Err(result
                    .err()
                    .unwrap_or_else(|| io::Error::other("the reactor did not start"))),
                Err(panic) => std::panic::resume_unwind(panic),
            },
        }
    }

    /// Runs a poller on the calling thread, as it is, until it is stopped. The poller is left to the caller.
    ///
    /// # Errors
    ///
    /// The system's, if a poller's descriptor cannot be watched. Effect: none.
    pub fn run_here<P: Poller>(self, poller: &mut P) -> io::Result<()> {
        self.run(poller)
    }

    /// Counters, also while it runs.
    pub fn counter_reader(&self) -> impl Fn(ReactorCounter) -> u64 + Clone + Send + Sync + use<> {
        let reader = self.reader.clone();
        move |counter| reader.get(counter as usize)
    }

    fn settle(&self) -> ReactorStart {
        let pinned = match self.options.core {
            Some(core) => pin_current_thread(core).map(|()| Some(core)),
            None => Ok(None),
        };
        set_precise_timeouts();
        ReactorStart {
            pinned,
            priority: set_priority(self.options.priority),
        }
    }

    fn run<P: Poller>(mut self, poller: &mut P) -> io::Result<()> {
        let mut error = None;
        poller.wake_fds(&mut |fd| {
            if let Err(refused) = self.sleeper.watch(fd) {
                error = Some(refused);
            }
        });
        if let Some(error) = error {
            return Err(error);
        }
        let mut ladder = Ladder::new(self.options.idle);
        let mut now = self.clock.now();
        while !self.stop.stop.load(Ordering::Relaxed) {
            let work = poller.poll(now);
            let after = self.clock.now();
            self.count_loop(work, after.since(now).0);
            now = after;
            if work > 0 {
                ladder.found_work();
                continue;
            }
            match ladder.step(now, || poller.next_deadline()) {
                Step::Spin => std::hint::spin_loop(),
                Step::Yield => {
                    self.counters.add(ReactorCounter::Yields as usize, 1);
                    thread::yield_now();
                    now = self.clock.now();
                }
                Step::Block => {
                    let slept = self.sleep(poller, now);
                    ladder.slept(slept);
                    now = self.clock.now();
                }
            }
        }
        Ok(())
    }

    fn count_loop(&mut self, work: usize, loop_ns: u64) {
        self.counters.add(ReactorCounter::Loops as usize, 1);
        if work > 0 {
            self.counters.add(ReactorCounter::BusyLoops as usize, 1);
            self.counters
                .add(ReactorCounter::Work as usize, work as u64);
        }
        if loop_ns > STALL_NS {
            self.counters.add(ReactorCounter::Stalls as usize, 1);
        }
        self.counters
            .raise(ReactorCounter::LoopNsMax as usize, loop_ns);
    }

    /// Blocks if every poller agrees. Returns whether it did.
    fn sleep<P: Poller>(&mut self, poller: &mut P, now: Time) -> bool {
        let sleeper = &self.sleeper;
        if !poller.watch_new(&mut |fd| sleeper.watch(fd).is_ok()) {
            self.counters.add(ReactorCounter::SleepsRefused as usize, 1);
            return false;
        }
        self.sleeper.prepare();
        // From here on whoever has work for us wakes us; so look at everything once more.
        let mut agreed = !self.stop.is_stopped() && poller.try_sleep();
        if agreed {
            let work = poller.poll(now);
            if work > 0 {
                self.count_loop(work, 0);
                poller.on_wake();
                agreed = false;
            }
        }
        if !agreed {
            self.sleeper.cancel();
            self.counters.add(ReactorCounter::SleepsRefused as usize, 1);
            return false;
        }
        let timeout_ns = poller
            .next_deadline()
            .map(|deadline| deadline.since(self.clock.now()).0);
        self.counters.add(ReactorCounter::Sleeps as usize, 1);
        let counter = match self.sleeper.block(timeout_ns) {
            Woken::Event => ReactorCounter::WokenByEvent,
            Woken::Deadline => ReactorCounter::WokenByDeadline,
        };
        self.counters.add(counter as usize, 1);
        poller.on_wake();
        true
    }
}

/// A reactor's thread ended badly.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// It panicked; the message was printed by its panic hook.
    #[error("the reactor's thread panicked")]
    Panicked,
    /// A poller's descriptor could not be watched.
    #[error("the reactor stopped: {0}")]
    System(io::Error),
}

/// A running reactor.
pub struct ReactorHandle {
    thread: JoinHandle<io::Result<()>>,
    stop: StopHandle,
    start: ReactorStart,
    reader: CounterReader<COUNTERS>,
}

impl fmt::Debug for ReactorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReactorHandle")
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

impl ReactorHandle {
    /// How its thread really runs.
    #[must_use]
    pub fn start(&self) -> ReactorStart {
        self.start
    }

    /// Stops it.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// The value of a counter now.
    #[must_use]
    pub fn counter(&self, counter: ReactorCounter) -> u64 {
        self.reader.get(counter as usize)
    }

    /// Whether its thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops it and waits for its end; the poller is dropped on its own thread.
    ///
    /// # Errors
    ///
    /// [`JoinError`] if it ended badly.
    pub fn stop_and_join(self) -> Result<(), JoinError> {
        self.stop.stop();
        match self.thread.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(JoinError::System(error)),
            Err(_) => Err(JoinError::Panicked),
        }
    }
}
