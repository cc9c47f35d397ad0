//! The reactor as its users see it: it runs, sleeps, wakes for every reason, and stops.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ionian_driver_api::{Time, Wake};
use ionian_runtime::{
    IdlePolicy, MailboxReceiver, MailboxSender, MonotonicClock, Poller, Priority, Reactor,
    ReactorCounter, ReactorOptions, WakeHandle, mailbox,
};
use ionian_shm::{Endpoint, duplex};

const SHARED: IdlePolicy = IdlePolicy::shared();
/// Sleeps at the first opportunity: the most sleeps and the tightest races.
const SLEEPY: IdlePolicy = IdlePolicy {
    spin_us: 0,
    yield_us: 0,
    block: true,
};

fn reactor(idle: IdlePolicy) -> Reactor {
    let options = ReactorOptions {
        name: "test".into(),
        core: None,
        idle,
        priority: Priority::Normal,
    };
    Reactor::new(options, MonotonicClock::start()).expect("descriptors")
}

/// Adds what its mailbox says.
struct Adder {
    inbox: MailboxReceiver<u64>,
    sum: Arc<AtomicU64>,
}

impl Poller for Adder {
    fn poll(&mut self, _now: Time) -> usize {
        let Some(number) = self.inbox.receive() else {
            return 0;
        };
        self.sum.fetch_add(number, Ordering::Relaxed);
        1
    }

    fn next_deadline(&self) -> Option<Time> {
        None
    }

    fn try_sleep(&mut self) -> bool {
        self.inbox.is_empty()
    }

    fn on_wake(&mut self) {}

    fn wake_fds(&self, _add: &mut dyn FnMut(RawFd)) {}
}

fn adder(reactor: &Reactor, capacity: usize) -> (Adder, MailboxSender<u64>, Arc<AtomicU64>) {
    let (sender, inbox) = mailbox(capacity, reactor.wake_handle());
    let sum = Arc::new(AtomicU64::new(0));
    (
        Adder {
            inbox,
            sum: sum.clone(),
        },
        sender,
        sum,
    )
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn no_message_waits_in_the_mailbox_of_a_sleeping_reactor() {
    let reactor = reactor(SLEEPY);
    let (poller, sender, sum) = adder(&reactor, 4);
    let handle = reactor.spawn(move || poller).expect("a thread");
    let rounds = 30_000;
    for round in 1..=rounds {
        // One at a time: the reactor is falling asleep, asleep or waking as each comes.
        sender.send(1).expect("room");
        wait_until("a wake-up was lost", || {
            sum.load(Ordering::Relaxed) == round
        });
    }
    assert!(
        handle.counter(ReactorCounter::Sleeps) > 100,
        "the race was run"
    );
    handle.stop_and_join().expect("a clean end");
}

#[test]
fn many_senders_are_all_heard() {
    let reactor = reactor(SLEEPY);
    let (poller, sender, sum) = adder(&reactor, 8);
    let handle = reactor.spawn(move || poller).expect("a thread");
    let senders: Vec<_> = (0..3)
        .map(|_| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for mut number in 1..=20_000 {
                    while let Err(back) = sender.send(number) {
                        number = back;
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    for sender in senders {
        sender.join().expect("sent");
    }
    wait_until("a message was lost", || {
        sum.load(Ordering::Relaxed) == 3 * 20_000 * 20_001 / 2
    });
    handle.stop_and_join().expect("a clean end");
}

/// Sends back what comes over a ring, and wakes the peer if it sleeps.
struct Echo {
    endpoint: Endpoint,
    peer: WakeHandle,
    /// Rounds to start and to go, for the end that begins.
    rounds: Arc<AtomicU64>,
    begins: bool,
}

impl Poller for Echo {
    fn poll(&mut self, _now: Time) -> usize {
        if self.begins {
            self.begins = false;
        } else if self.endpoint.rx.peek().is_some() {
            self.endpoint.rx.release();
            self.rounds.fetch_add(1, Ordering::Relaxed);
        } else {
            return 0;
        }
        assert!(self.endpoint.tx.push(b"ball"), "one ball in a ring");
        if self.endpoint.tx.publish() {
            self.peer.wake();
        }
        1
    }

    fn next_deadline(&self) -> Option<Time> {
        None
    }

    fn try_sleep(&mut self) -> bool {
        self.endpoint.rx.arm()
    }

    fn on_wake(&mut self) {
        self.endpoint.rx.disarm();
    }

    fn wake_fds(&self, _add: &mut dyn FnMut(RawFd)) {}
}

#[test]
fn two_reactors_that_sleep_at_once_keep_the_ball_in_play() {
    for idle in [
        SLEEPY,
        SHARED,
        IdlePolicy {
            spin_us: 3,
            yield_us: 3,
            block: true,
        },
    ] {
        let (left, right) = (reactor(idle), reactor(idle));
        let (one, two) = duplex(256);
        let rounds = Arc::new(AtomicU64::new(0));
        let ends = [
            (one, right.wake_handle(), true),
            (two, left.wake_handle(), false),
        ]
        .map(|(endpoint, peer, begins)| Echo {
            endpoint,
            peer,
            rounds: rounds.clone(),
            begins,
        });
        let [one, two] = ends;
        let handles = [
            left.spawn(move || one).expect("a thread"),
            right.spawn(move || two).expect("a thread"),
        ];
        wait_until("the ball is lost", || {
            rounds.load(Ordering::Relaxed) > 20_000
        });
        for handle in handles {
            handle.stop_and_join().expect("a clean end");
        }
    }
}

/// Counts its deadlines, one each millisecond.
struct Ticker {
    next: Time,
    ticks: Arc<AtomicU64>,
}

impl Poller for Ticker {
    fn poll(&mut self, now: Time) -> usize {
        if now < self.next {
            return 0;
        }
        self.next = Time::from_ns(now.as_ns() + 10_000_000);
        self.ticks.fetch_add(1, Ordering::Relaxed);
        1
    }

    fn next_deadline(&self) -> Option<Time> {
        Some(self.next)
    }

    fn try_sleep(&mut self) -> bool {
        true
    }

    fn on_wake(&mut self) {}

    fn wake_fds(&self, _add: &mut dyn FnMut(RawFd)) {}
}

/// Processor time of this thread so far.
fn thread_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a clock's number, and a local variable that outlives the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A reactor that wakes a hundred times a second and finds nothing else uses under 1 % of a core. Processor time, not wall
/// time, so that a loaded machine does not matter.
#[test]
fn an_idle_reactor_costs_next_to_nothing() {
    for idle in [IdlePolicy::dedicated(200), IdlePolicy::shared()] {
        let reactor = reactor(idle);
        let stop = reactor.stop_handle();
        let ticks = Arc::new(AtomicU64::new(0));
        let mut ticker = Ticker {
            next: Time::ZERO,
            ticks: ticks.clone(),
        };
        let (used, elapsed) = std::thread::spawn(move || {
            let (start, used) = (Instant::now(), thread_time());
            let watch = std::thread::spawn(move || {
                wait_until_parked(|| ticks.load(Ordering::Relaxed) >= 150);
                stop.stop();
            });
            reactor
                .run_here(&mut ticker)
                .expect("no descriptor to refuse");
            watch.join().expect("stopped");
            (thread_time() - used, start.elapsed())
        })
        .join()
        .expect("ran");
        assert!(
            elapsed >= Duration::from_millis(1400),
            "150 deadlines, 10 ms apart"
        );
        let share = used.as_secs_f64() / elapsed.as_secs_f64();
        eprintln!("{idle:?}: {:.3} % of a core", share * 100.0);
        assert!(share < 0.01, "{:.2} % of a core", share * 100.0);
    }
}

/// Waits without using the processor that the reactor is measured on.
fn wait_until_parked(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the deadlines do not come"
        );
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// A device that is only a descriptor.
struct Device {
    pipe: PipeReader,
    bytes: Arc<AtomicU64>,
    nonempty: bool,
}

impl Device {
    fn readable(&self) -> bool {
        let mut poll = libc::pollfd {
            fd: self.pipe.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one descriptor, in a local variable that outlives the call.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }
}

impl Poller for Device {
    fn poll(&mut self, _now: Time) -> usize {
        self.nonempty = self.readable();
        if self.nonempty {
            self.pipe.read_exact(&mut [0]).expect("readable");
            self.bytes.fetch_add(1, Ordering::Relaxed);
        }
        usize::from(self.nonempty)
    }

    fn next_deadline(&self) -> Option<Time> {
        None
    }

    fn try_sleep(&mut self) -> bool {
        true
    }

    fn on_wake(&mut self) {}

    fn wake_fds(&self, add: &mut dyn FnMut(RawFd)) {
        add(self.pipe.as_raw_fd());
    }
}

fn device() -> (Device, PipeWriter, Arc<AtomicU64>) {
    let (pipe, writer) = std::io::pipe().expect("descriptors");
    let bytes = Arc::new(AtomicU64::new(0));
    (
        Device {
            pipe,
            bytes: bytes.clone(),
            nonempty: false,
        },
        writer,
        bytes,
    )
}

#[test]
fn a_device_and_a_mailbox_wake_the_same_reactor() {
    let reactor = reactor(SLEEPY);
    let (poller, sender, sum) = adder(&reactor, 4);
    let (device, mut writer, bytes) = device();
    let handle = reactor
        .spawn(move || (poller, vec![device]))
        .expect("a thread");
    for round in 1..=2_000 {
        writer.write_all(b"x").expect("room");
        sender.send(1).expect("room");
        wait_until("a wake-up was lost", || {
            bytes.load(Ordering::Relaxed) == round && sum.load(Ordering::Relaxed) == round
        });
    }
    handle.stop_and_join().expect("a clean end");
}

#[test]
fn a_sleeping_reactor_stops_and_says_how_it_ran() {
    let core = *ionian_runtime::Topology::read()
        .expect("a Linux machine")
        .allowed
        .last()
        .expect("one");
    let options = ReactorOptions {
        name: "pinned".into(),
        core: Some(core),
        idle: SLEEPY,
        priority: Priority::Normal,
    };
    let reactor = Reactor::new(options.clone(), MonotonicClock::start()).expect("descriptors");
    let (poller, _sender, _sum) = adder(&reactor, 1);
    let handle = reactor.spawn(move || poller).expect("a thread");
    assert_eq!(handle.start().pinned, Ok(Some(core)));
    wait_until("it does not sleep", || {
        handle.counter(ReactorCounter::Sleeps) > 0
    });
    assert!(!handle.is_finished());
    handle.stop_and_join().expect("a clean end");

    let elsewhere = ReactorOptions {
        core: Some(9999),
        ..options
    };
    let reactor = Reactor::new(elsewhere, MonotonicClock::start()).expect("descriptors");
    let (poller, _sender, _sum) = adder(&reactor, 1);
    let handle = reactor.spawn(move || poller).expect("a thread");
    assert!(handle.start().pinned.is_err(), "reported, not fatal");
    handle.stop_and_join().expect("a clean end");
}

#[test]
fn a_slow_poller_is_counted() {
    struct Slow(bool);
    impl Poller for Slow {
        fn poll(&mut self, now: Time) -> usize {
            if std::mem::replace(&mut self.0, false) {
                let start = Instant::now();
                while start.elapsed() < Duration::from_millis(2) {
                    std::hint::spin_loop();
                }
            }
            usize::from(now == Time::ZERO)
        }

        fn next_deadline(&self) -> Option<Time> {
            None
        }

        fn try_sleep(&mut self) -> bool {
            true
        }

        fn on_wake(&mut self) {}

        fn wake_fds(&self, _add: &mut dyn FnMut(RawFd)) {}
    }
    let handle = reactor(SLEEPY).spawn(|| Slow(true)).expect("a thread");
    wait_until("it does not sleep", || {
        handle.counter(ReactorCounter::Sleeps) > 0
    });
    assert!(handle.counter(ReactorCounter::Stalls) >= 1);
    assert!(handle.counter(ReactorCounter::LoopNsMax) >= 2_000_000);
    handle.stop_and_join().expect("a clean end");
}
