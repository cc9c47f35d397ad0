//! Sleep: an end that has armed its wake-up and sleeps is woken by what a peer sends, every time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use ionian_driver_api::{Bounded, BufPool, ConnId, FabricEvent};
use ionian_runtime::{Sleeper, Woken};

use crate::flow::{fill, is_whole};
use crate::ground::{Ground, Log, Patience, Sent};
use crate::subject::Subject;

/// Messages, each of which finds the other end asleep.
const MESSAGES: u64 = 50;
/// Bytes of each.
const BYTES: usize = 100;

/// What the two threads know of each other.
#[derive(Default)]
struct Shared {
    /// The sleeper has armed its wake-up and is about to sleep, or sleeps.
    asleep: AtomicBool,
    received: AtomicU64,
    over: AtomicBool,
}

/// The thread that sleeps: its end, what it sleeps by, its pool.
struct Dormant {
    end: Box<dyn Subject>,
    sleeper: Sleeper,
    pool: BufPool,
}

impl Dormant {
    /// Sleeps and receives until all messages have come.
    fn run(&mut self, shared: &Shared, patience: Patience) -> Result<(), String> {
        let mut events = Bounded::with_capacity(8);
        let started = Instant::now();
        let mut received = 0;
        while received < MESSAGES {
            let elapsed = started.elapsed();
            if shared.over.load(Ordering::Acquire) || elapsed > patience.wall {
                return Err(format!("only {received} of {MESSAGES} messages came"));
            }
            self.sleeper.prepare();
            if self.end.arm() {
                shared.asleep.store(true, Ordering::Release);
                let left = (patience.wall - elapsed).as_nanos();
                let woken = self
                    .sleeper
                    .block(Some(u64::try_from(left).unwrap_or(u64::MAX)));
                shared.asleep.store(false, Ordering::Release);
                self.end.disarm();
                if woken == Woken::Deadline && started.elapsed() >= patience.wall {
                    return Err(format!("message {received} woke nobody"));
                }
            } else {
                self.sleeper.cancel();
            }
            self.end.flush();
            self.end.poll(&mut self.pool, &mut events);
            while let Some(event) = events.pop() {
                match event {
                    FabricEvent::Received { buf, .. } => {
                        let whole = is_whole(1, received, self.pool.bytes(&buf));
                        self.pool.free(buf);
                        if !whole {
                            return Err(format!("message {received} did not arrive as it was"));
                        }
                        received += 1;
                        shared.received.store(received, Ordering::Release);
                    }
                    other => return Err(format!("the sleeper was told {other:?}")),
                }
            }
        }
        Ok(())
    }
}

/// A sleeper in a thread of its own is woken by each of many messages that find it asleep.
pub(super) fn wake(ground: &mut Ground) -> Result<(), String> {
    let (a, _) = ground.connect(0, 1, 1)?;
    let patience = ground.patience();
    let (end, sleeper, pool) = ground.take(1)?;
    let shared = Arc::new(Shared::default());
    let theirs = shared.clone();
    let thread = std::thread::spawn(move || {
        let mut dormant = Dormant { end, sleeper, pool };
        let outcome = dormant.run(&theirs, patience);
        (dormant, outcome)
    });
    let fed = feed(ground, a, &shared);
    shared.over.store(true, Ordering::Release);
    let Ok((dormant, slept)) = thread.join() else {
        return Err("the thread that sleeps panicked".to_owned());
    };
    ground.give_back(1, dormant.end, dormant.pool);
    slept.and(fed)?;
    ground.counts.received = MESSAGES;
    Ok(())
}

/// Sends each message when the other end sleeps.
fn feed(ground: &mut Ground, conn: ConnId, shared: &Shared) -> Result<(), String> {
    let mut log = Log::default();
    let mut bytes = [0; BYTES];
    for number in 0..=MESSAGES {
        let mut wait = ground.wait();
        // After the last one nobody need sleep.
        while shared.received.load(Ordering::Acquire) != number
            || number < MESSAGES && !shared.asleep.load(Ordering::Acquire)
        {
            ground.rounds(1, &[0], &mut log)?;
            if let Some((_, _, reason)) = log.closed.first() {
                return Err(format!("the connection closed ({reason:?})"));
            }
            wait.round(false).map_err(|why| {
                format!("{why} while waiting for the sleeper, message {number} of {MESSAGES}")
            })?;
        }
        if number < MESSAGES {
            fill(1, number, &mut bytes);
            if ground.send(0, conn, &bytes)? != Sent::Taken {
                return Err(format!("message {number} is not taken"));
            }
        }
    }
    Ok(())
}
