//! The smallest plan that still fails: fewer faults, fewer operations, fewer clients and shards, a shorter run, and in
//! everything else the calm plan's value.
//!
//! Each step runs the whole seed with a plan that is smaller in one way, and keeps it when the same invariant is violated.
//! A smaller plan may fail for another reason; that is another failure and does not count.

use crate::invariant::Invariant;
use crate::plan::Plan;
use crate::world::Failure;

/// What a run with a plan came to: how many operations clients had begun, and the failure.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Calls and subscriptions.
    pub operations: u64,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Smallest {
    /// The plan.
    pub plan: Plan,
    /// How it fails.
    pub failure: Failure,
    /// Runs that it took.
    pub runs: u64,
    /// Every way of making it smaller was tried; otherwise time was up.
    pub whole: bool,
}

/// Makes the plan of a failing run smaller, as long as `goes_on` says so before each run. `None` if it does not fail.
pub fn minimise(
    plan: &Plan,
    run: impl FnMut(&Plan) -> Attempt,
    goes_on: impl FnMut() -> bool,
) -> Option<Smallest> {
    let mut search = Search {
        run,
        goes_on,
        runs: 0,
    };
    let first = search.attempt(plan)?;
    let failure = first.failure?;
    let mut best = Best {
        plan: plan.clone(),
        invariant: failure.violation.invariant,
        failure,
        operations: first.operations,
    };
    let whole = search.reduce(&mut best).is_some();
    Some(Smallest {
        plan: best.plan,
        failure: best.failure,
        runs: search.runs,
        whole,
    })
}

/// The smallest plan so far.
struct Best {
    plan: Plan,
    invariant: Invariant,
    failure: Failure,
    operations: u64,
}

struct Search<R, G> {
    run: R,
    goes_on: G,
    runs: u64,
}

impl<R: FnMut(&Plan) -> Attempt, G: FnMut() -> bool> Search<R, G> {
    /// Runs a plan, unless time is up.
    fn attempt(&mut self, plan: &Plan) -> Option<Attempt> {
        if !(self.goes_on)() {
            return None;
        }
        self.runs += 1;
        Some((self.run)(plan))
    }

    /// Whether a changed plan fails in the same way; it is kept then. `None` when time is up.
    fn keeps(&mut self, best: &mut Best, change: impl FnOnce(&mut Plan)) -> Option<bool> {
        let mut plan = best.plan.clone();
        change(&mut plan);
        if plan.difference(&best.plan).is_empty() {
            return Some(false);
        }
        let attempt = self.attempt(&plan)?;
        match attempt.failure {
            Some(failure) if failure.violation.invariant == best.invariant => {
                (best.plan, best.failure) = (plan, failure);
                best.operations = attempt.operations;
                Some(true)
            }
            _ => Some(false),
        }
    }

    /// All ways, until none makes the plan smaller. `None` when time is up.
    fn reduce(&mut self, best: &mut Best) -> Option<()> {
        loop {
            let before = best.plan.clone();
            self.fewer_faults(best)?;
            self.fewer_operations(best)?;
            self.fewer_places(best)?;
            self.shorter(best)?;
            self.calmer(best)?;
            if best.plan.difference(&before).is_empty() {
                return Some(());
            }
        }
    }

    /// Leaves out faults: all, then parts of half the size each time, then one by one.
    fn fewer_faults(&mut self, best: &mut Best) -> Option<()> {
        let happen = |plan: &Plan| -> Vec<u32> {
            let all = plan.instances().map(|(instance, _)| instance);
            all.filter(|instance| plan.includes(*instance)).collect()
        };
        let mut part = happen(&best.plan).len();
        while part > 0 {
            let mut from = 0;
            loop {
                let mut left = happen(&best.plan);
                if from >= left.len() {
                    break;
                }
                left.drain(from..(from + part).min(left.len()));
                if !self.keeps(best, |plan| plan.only = Some(left))? {
                    from += part;
                }
            }
            part /= 2;
        }
        Some(())
    }

    /// Ends the load early: as soon as it can be, to within an eighth.
    fn fewer_operations(&mut self, best: &mut Best) -> Option<()> {
        let (mut low, mut high) = (0, best.operations.min(best.plan.operations_max));
        while high - low > (high / 8).max(1) {
            let middle = low + (high - low) / 2;
            if self.keeps(best, |plan| plan.operations_max = middle)? {
                high = middle.min(best.operations);
            } else {
                low = middle;
            }
        }
        Some(())
    }

    fn fewer_places(&mut self, best: &mut Best) -> Option<()> {
        while best.plan.clients > 1 && self.keeps(best, |plan| plan.clients -= 1)? {}
        self.keeps(best, |plan| plan.tree = Plan::calm().tree)?;
        for at in (0..best.plan.tree.len()).rev() {
            if let Some(tree) = Plan::without_vertex(&best.plan.tree, at) {
                self.keeps(best, |plan| plan.tree = tree)?;
            }
        }
        while best.plan.shards > 1 && self.keeps(best, |plan| plan.shards -= 1)? {}
        Some(())
    }

    fn shorter(&mut self, best: &mut Best) -> Option<()> {
        const LEAST_NS: u64 = 2_000_000;
        while best.plan.fault_ns > LEAST_NS && self.keeps(best, |plan| plan.fault_ns /= 2)? {}
        while best.plan.warm_up_ns > LEAST_NS && self.keeps(best, |plan| plan.warm_up_ns /= 2)? {}
        Some(())
    }

    /// Values that make a run harder are those of the calm plan where that fails, too.
    fn calmer(&mut self, best: &mut Best) -> Option<()> {
        let calm = Plan::calm();
        self.keeps(best, |plan| plan.trims = false)?;
        self.keeps(best, |plan| plan.payload_bytes_max = 8)?;
        self.keeps(best, |plan| plan.outstanding_max = 1)?;
        self.keeps(best, |plan| plan.buffer_bytes = calm.buffer_bytes)?;
        self.keeps(best, |plan| plan.chunk_bytes = calm.chunk_bytes)?;
        self.keeps(best, |plan| plan.cut_interval_us = calm.cut_interval_us)?;
        self.keeps(best, |plan| plan.checkpoint_every = calm.checkpoint_every)?;
        self.keeps(best, |plan| plan.append_timeout = calm.append_timeout)?;
        self.keeps(best, |plan| plan.gone = calm.gone)?;
        self.keeps(best, |plan| plan.quiet = calm.quiet)?;
        self.keeps(best, |plan| {
            plan.cut_log_chunk_entries = calm.cut_log_chunk_entries;
        })?;
        Some(())
    }
}
