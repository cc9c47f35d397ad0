//! Measures a message's round trip between two reactors over shared-memory rings: each on its own core, both on one core
//! with and without the policy for shared cores, and from sleep to sleep. Medians of several runs.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ionian_driver_api::{Time, Wake};
use ionian_runtime::{
    IdlePolicy, MonotonicClock, Poller, Priority, Reactor, ReactorCounter, ReactorOptions,
    Topology, WakeHandle,
};
use ionian_shm::{Endpoint, duplex};

const RUNS: usize = 5;

/// Returns each message; the end that begins waits for `pause` before it does, and counts.
struct Player {
    endpoint: Endpoint,
    peer: WakeHandle,
    rounds: Arc<AtomicU64>,
    serve_at: Option<Time>,
    pause_ns: u64,
    begins: bool,
}

impl Poller for Player {
    fn poll(&mut self, now: Time) -> usize {
        if self.serve_at.is_some_and(|at| at <= now) {
            self.serve_at = None;
        } else if self.endpoint.rx.peek().is_some() {
            self.endpoint.rx.release();
            if self.begins {
                self.rounds.fetch_add(1, Ordering::Relaxed);
                if self.pause_ns > 0 {
                    self.serve_at = Some(Time::from_ns(now.as_ns() + self.pause_ns));
                    return 1;
                }
            }
        } else {
            return 0;
        }
        assert!(self.endpoint.tx.push(&[1; 64]), "one message in a ring");
        if self.endpoint.tx.publish() {
            self.peer.wake();
        }
        1
    }

    fn next_deadline(&self) -> Option<Time> {
        self.serve_at
    }

    fn try_sleep(&mut self) -> bool {
        self.endpoint.rx.arm()
    }

    fn on_wake(&mut self) {
        self.endpoint.rx.disarm();
    }

    fn wake_fds(&self, _add: &mut dyn FnMut(RawFd)) {}
}

/// Nanoseconds per round over `length`, and sleeps per round.
fn play(cores: [usize; 2], idle: IdlePolicy, pause_ns: u64, length: Duration) -> (f64, f64) {
    let clock = MonotonicClock::start();
    let reactors = cores.map(|core| {
        let options = ReactorOptions {
            name: "player".into(),
            core: Some(core),
            idle,
            priority: Priority::Normal,
        };
        Reactor::new(options, clock).expect("descriptors")
    });
    let rounds = Arc::new(AtomicU64::new(0));
    let wakes = [reactors[1].wake_handle(), reactors[0].wake_handle()];
    let (one, two) = duplex(4096);
    let mut begins = true;
    let mut handles = Vec::new();
    for ((reactor, endpoint), peer) in reactors.into_iter().zip([one, two]).zip(wakes) {
        let serve_at = begins.then_some(Time::ZERO);
        let player = Player {
            endpoint,
            peer,
            rounds: rounds.clone(),
            serve_at,
            pause_ns,
            begins,
        };
        handles.push(reactor.spawn(move || player).expect("a thread"));
        begins = false;
    }
    let start = Instant::now();
    let before = rounds.load(Ordering::Relaxed);
    while start.elapsed() < length {
        std::thread::park_timeout(length);
    }
    let count = (rounds.load(Ordering::Relaxed) - before).max(1) as f64;
    let elapsed = start.elapsed().as_nanos() as f64;
    let sleeps: u64 = handles
        .iter()
        .map(|handle| handle.counter(ReactorCounter::Sleeps))
        .sum();
    for handle in handles {
        handle.stop_and_join().expect("a clean end");
    }
    (elapsed / count, sleeps as f64 / count)
}

fn report(what: &str, cores: [usize; 2], idle: IdlePolicy, pause_ns: u64) {
    let mut runs: Vec<(f64, f64)> = (0..RUNS)
        .map(|_| play(cores, idle, pause_ns, Duration::from_millis(300)))
        .collect();
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (round_ns, sleeps) = runs[RUNS / 2];
    println!(
        "{what:44} {:10.0} ns per round, {sleeps:5.2} sleeps per round",
        round_ns - pause_ns as f64
    );
}

fn main() {
    let topology = Topology::read().expect("a Linux machine");
    let order = topology.preferred_order();
    println!(
        "{} cores, of which {} may be used",
        topology.cpus.len(),
        order.len()
    );
    let same = [order[0]; 2];
    let spinning = IdlePolicy {
        spin_us: 200,
        yield_us: 0,
        block: true,
    };
    if let [first, second, ..] = order[..] {
        report(
            "own cores, spinning",
            [first, second],
            IdlePolicy::dedicated(200),
            0,
        );
        report(
            "own cores, policy for shared ones",
            [first, second],
            IdlePolicy::shared(),
            0,
        );
        report(
            "own cores, asleep before each round",
            [first, second],
            IdlePolicy::dedicated(20),
            2_000_000,
        );
    }
    report(
        "one core, spinning as if it were not shared",
        same,
        spinning,
        0,
    );
    report(
        "one core, policy for shared ones",
        same,
        IdlePolicy::shared(),
        0,
    );
}
