//! Many seeds: run, count, and check that what a plan promises took place.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ionian_types::{Knobs, Shipped, Time};

use crate::invariant::{Invariant, Violation};
use crate::minimise::Attempt;
use crate::mutants::{active, families};
use crate::plan::{FAULTS, FaultCounts, Plan};
use crate::world::{Failure, Report, World};

/// One seed in this many runs twice and must give one trace.
pub const TWICE_EVERY: u64 = 20;
/// Operations that every seed makes, at least; and a fault takes place in each.
const OPERATIONS_MIN: u64 = 1_000;

/// What a number of runs amounted to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Totals {
    /// Seeds run, and those of them that ran twice.
    pub seeds: u64,
    /// Seeds run twice.
    pub twice: u64,
    /// Events handled.
    pub events: u64,
    /// Virtual nanoseconds.
    pub virtual_ns: u64,
    /// Faults that took place, by kind.
    pub faults: FaultCounts,
    /// Calls and subscriptions of clients.
    pub operations: u64,
    /// The fewest of them in one seed.
    pub operations_least: Option<u64>,
    /// Appends made, acknowledged, failed without effect, failed with an unknown one.
    pub appends: [u64; 4],
    /// Records delivered and read.
    pub delivered: u64,
    /// Records read.
    pub reads: u64,
    /// Promises of `never`, and lanes that moved.
    pub nevers: u64,
    /// Lanes that moved to another session with records in them.
    pub rebinds: u64,
    /// Copies between replicas.
    pub copies: u64,
    /// States that replicas took over from a peer.
    pub adoptions: u64,
    /// Records that devices damaged, found.
    pub damaged: u64,
    /// Records repaired from a peer.
    pub repaired: u64,
    /// Damaged records that went away without a repair.
    pub damaged_gone: u64,
    /// Stores that halted because what they held was damaged.
    pub halts: u64,
    /// Runs beyond f that stood still in the end.
    pub stands_still: u64,
    /// Gaps told: trim, loss.
    pub gaps: [u64; 2],
    /// Runs with a legal core, and those of them in which it was without the controller.
    pub cores: [u64; 2],
    /// The longest that one needed to make progress: virtual nanoseconds.
    pub core_ns: u64,
    /// Runs with aggregators; starts of their edges, and edges below that went on over one.
    pub trees: [u64; 3],
    /// Acknowledged records declared lost, beyond what the class survives.
    pub lost: u64,
}

impl Totals {
    /// Adds a run.
    pub fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.events += report.events;
        self.virtual_ns += report.virtual_ns;
        self.faults.add(&report.faults);
        self.operations += report.operations;
        self.least(Some(report.operations));
        let seen = &report.seen;
        let appends = [report.appends, seen.acks, seen.failed[0], seen.failed[1]];
        for (total, count) in self.appends.iter_mut().zip(appends) {
            *total += count;
        }
        self.delivered += seen.delivered;
        self.reads += seen.reads;
        self.nevers += seen.nevers;
        self.rebinds += report.machines.rebinds;
        self.copies += report.machines.copies;
        self.adoptions += report.machines.adoptions;
        self.damaged += report.machines.damaged;
        self.repaired += report.machines.repaired;
        self.halts += report.machines.halts;
        self.damaged_gone += report.machines.damaged_gone;
        self.stands_still += report.machines.stands_still;
        self.gaps[0] += seen.gaps[0];
        self.gaps[1] += seen.gaps[1];
        self.lost += seen.lost;
        let machines = &report.machines;
        let inner = u64::from(machines.inner_starts > 0);
        let trees = [inner, machines.inner_starts, machines.resumed];
        for (total, count) in self.trees.iter_mut().zip(trees) {
            *total += count;
        }
        self.cores[0] += u64::from(seen.core_ns > 0);
        self.cores[1] += u64::from(seen.core_alone);
        self.core_ns = self.core_ns.max(seen.core_ns);
    }

    /// Adds the totals of others.
    pub fn merge(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.twice += other.twice;
        self.events += other.events;
        self.virtual_ns += other.virtual_ns;
        self.operations += other.operations;
        self.least(other.operations_least);
        self.faults.add(&other.faults);
        for (total, count) in self.appends.iter_mut().zip(other.appends) {
            *total += count;
        }
        self.delivered += other.delivered;
        self.reads += other.reads;
        self.nevers += other.nevers;
        self.rebinds += other.rebinds;
        self.copies += other.copies;
        self.adoptions += other.adoptions;
        self.damaged += other.damaged;
        self.repaired += other.repaired;
        self.halts += other.halts;
        self.damaged_gone += other.damaged_gone;
        self.stands_still += other.stands_still;
        self.gaps[0] += other.gaps[0];
        self.gaps[1] += other.gaps[1];
        self.lost += other.lost;
        for (total, count) in self.trees.iter_mut().zip(other.trees) {
            *total += count;
        }
        self.cores[0] += other.cores[0];
        self.cores[1] += other.cores[1];
        self.core_ns = self.core_ns.max(other.core_ns);
    }

    fn least(&mut self, other: Option<u64>) {
        let both = [self.operations_least, other];
        self.operations_least = both.into_iter().flatten().min();
    }

    /// The kinds of faults that never took place.
    pub fn missing_faults(&self) -> impl Iterator<Item = crate::plan::Fault> + '_ {
        FAULTS.into_iter().filter(|fault| self.faults[*fault] == 0)
    }
}

/// Runs one seed with the plan drawn from it, some of them twice.
///
/// # Errors
/// The first violation; two runs that differ are one.
pub fn run_seed(seed: u64, totals: &mut Totals) -> Result<Report, Failure> {
    let mut world = World::new(seed, Plan::draw(seed));
    let report = world.run()?;
    totals.add(&report);
    let failure = |at, invariant, what| Failure {
        seed,
        at,
        violation: Violation::new(invariant, what),
        mutant: None,
        plan: String::new(),
    };
    let (operations, faults) = (report.operations, report.faults.total());
    if operations < OPERATIONS_MIN || faults == 0 {
        let little = format!("{operations} operations and {faults} faults show too little");
        return Err(failure(world.now, Invariant::V1, little));
    }
    if seed.is_multiple_of(TWICE_EVERY) {
        totals.twice += 1;
        let mut second = World::new(seed, Plan::draw(seed));
        let again = second.run()?;
        let differ = |what: String| {
            let differ = format!("two runs differ: {what}");
            Err(failure(second.now, Invariant::T1, differ))
        };
        if again.trace != report.trace {
            return differ(format!(
                "traces {:016x} and {:016x}",
                report.trace, again.trace
            ));
        }
        let [first, second] = [&world, &second].map(|world| world.history.recorder.text());
        if first != second {
            let mut lines = first.lines().zip(second.lines());
            let pair = lines.find(|(a, b)| a != b);
            return differ(format!("their histories, at {pair:?}"));
        }
    }
    Ok(report)
}

/// One run with a plan. A machine that panics is a failure, where panics can be caught.
#[must_use]
pub fn attempt(seed: u64, plan: &Plan) -> Attempt {
    attempt_with::<Shipped>(seed, plan)
}

/// The same of machines with knobs.
#[must_use]
pub fn attempt_with<K: Knobs>(seed: u64, plan: &Plan) -> Attempt {
    let run = || {
        let mut world = World::<K>::with_knobs(seed, plan.clone());
        let failure = world.run().err();
        Attempt {
            operations: world.history.recorder.operations(),
            failure,
        }
    };
    caught(run).unwrap_or_else(|panic| Attempt {
        operations: u64::MAX,
        failure: Some(panicked(seed, plan, panic)),
    })
}

fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("a panic without a word").to_owned()
    })
}

fn panicked(seed: u64, plan: &Plan, panic: String) -> Failure {
    Failure {
        seed,
        at: Time::ZERO,
        violation: Violation::new(Invariant::M1, format!("a machine panics: {panic}")),
        mutant: active(),
        plan: plan.difference(&families::plan(active(), seed)),
    }
}

/// Many seeds on some threads. What comes of a seed does not depend on the others, nor on the threads.
#[derive(Clone, Copy, Debug)]
pub struct Swarm {
    /// The first seed.
    pub first: u64,
    /// At least so many, however long it takes.
    pub seeds_min: u64,
    /// No more than so many.
    pub seeds_max: u64,
    /// Between the two: as many as begin within this time.
    pub for_at_most: Duration,
    /// Threads.
    pub threads: usize,
    /// Goes on after failures until there are so many.
    pub failures_max: usize,
}

/// What came of them.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The counts of those that passed.
    pub totals: Totals,
    /// Those that failed, by seed.
    pub failures: Vec<Failure>,
    /// How long it took.
    pub took: Duration,
}

impl Swarm {
    /// Runs them. Each failure is handed to `failed` as it happens.
    pub fn run(&self, failed: impl Fn(&Failure) + Sync) -> Outcome {
        let began = Instant::now();
        let next = AtomicU64::new(0);
        let failures = Mutex::new(Vec::new());
        let work = || {
            let mut totals = Totals::default();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let late = at >= self.seeds_min && began.elapsed() >= self.for_at_most;
                if at >= self.seeds_max || late || enough(&failures, self.failures_max) {
                    return totals;
                }
                let seed = self.first.saturating_add(at);
                let mut of_seed = Totals::default();
                let outcome = caught(|| run_seed(seed, &mut of_seed))
                    .unwrap_or_else(|panic| Err(panicked(seed, &Plan::draw(seed), panic)));
                match outcome {
                    Ok(_) => totals.merge(&of_seed),
                    Err(failure) => {
                        failed(&failure);
                        lock(&failures).push(failure);
                    }
                }
            }
        };
        let totals = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads.max(1))
                .map(|_| scope.spawn(work))
                .collect();
            let mut sum = Totals::default();
            for worker in workers {
                match worker.join() {
                    Ok(totals) => sum.merge(&totals),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            sum
        });
        let mut failures = failures
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        failures.sort_by_key(|failure| failure.seed);
        Outcome {
            totals,
            failures,
            took: began.elapsed(),
        }
    }
}

fn lock(failures: &Mutex<Vec<Failure>>) -> MutexGuard<'_, Vec<Failure>> {
    failures.lock().unwrap_or_else(PoisonError::into_inner)
}

fn enough(failures: &Mutex<Vec<Failure>>, max: usize) -> bool {
    lock(failures).len() >= max
}
