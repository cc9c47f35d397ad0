//! Many seeds: run, count, and check that what a plan promises took place.

use crate::invariant::{Invariant, Violation};
use crate::plan::{FAULTS, FaultCounts, Plan};
use crate::world::{Failure, Report, World};

/// One seed in this many runs twice and must give one trace.
pub const TWICE_EVERY: u64 = 20;

/// What a number of runs amounted to.
#[derive(Clone, Copy, Default, Debug)]
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
    /// Gaps told: trim, loss.
    pub gaps: [u64; 2],
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
        self.gaps[0] += seen.gaps[0];
        self.gaps[1] += seen.gaps[1];
        self.lost += seen.lost;
    }

    /// Adds the totals of others.
    pub fn merge(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.twice += other.twice;
        self.events += other.events;
        self.virtual_ns += other.virtual_ns;
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
        self.gaps[0] += other.gaps[0];
        self.gaps[1] += other.gaps[1];
        self.lost += other.lost;
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
    let report = World::new(seed, Plan::draw(seed)).run()?;
    totals.add(&report);
    if seed.is_multiple_of(TWICE_EVERY) {
        totals.twice += 1;
        let mut world = World::new(seed, Plan::draw(seed));
        let again = world.run()?;
        if again.trace != report.trace {
            return Err(Failure {
                seed,
                at: world.now,
                violation: Violation::new(
                    Invariant::T1,
                    format!(
                        "two runs differ: traces {:016x} and {:016x}",
                        report.trace, again.trace
                    ),
                ),
            });
        }
    }
    Ok(report)
}
