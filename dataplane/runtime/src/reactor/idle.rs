//! The idle ladder: spin, yield, block; how long for depends on whether that pays.
//!
//! A reactor with a core of its own spins, because work tends to follow work; one that shares its core yields at once,
//! because spinning keeps the very thread from running that would bring the work. Spinning that ends in sleep was for
//! nothing, so it is halved each time, and doubled when work comes while waiting: an idle reactor that wakes for its
//! timers a hundred times a second costs next to nothing, and a busy one is back at full length after a few messages.

use ionian_driver_api::Time;

/// What a reactor does when there is nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdlePolicy {
    /// Longest spin, in microseconds; 0 for none.
    pub spin_us: u64,
    /// Longest time of offering the core to others again and again, in microseconds, after the spin.
    pub yield_us: u64,
    /// Block at the end. Otherwise the reactor yields for ever, for measurements.
    pub block: bool,
}

/// Shortest waiting, in nanoseconds, that halving leads to: about what a sleep and a wake-up cost.
const WAIT_NS_MIN: u64 = 5_000;
/// A deadline nearer than this, in nanoseconds, is not worth a sleep.
const SLEEP_NS_MIN: u64 = 20_000;

impl IdlePolicy {
    /// For a reactor with a core of its own.
    #[must_use]
    pub const fn dedicated(spin_us: u64) -> Self {
        Self {
            spin_us,
            yield_us: spin_us / 4,
            block: true,
        }
    }

    /// For a reactor whose core others need: yields at once, and sleeps soon.
    #[must_use]
    pub const fn shared() -> Self {
        Self {
            spin_us: 0,
            yield_us: 100,
            block: true,
        }
    }
}

/// What to do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Spin,
    Yield,
    Block,
}

#[derive(Debug)]
pub(super) struct Ladder {
    policy: IdlePolicy,
    /// When the present idleness began.
    since: Option<Time>,
    /// How long to wait before sleeping now, between the least and the policy's spin and yield together.
    wait_ns: u64,
}

impl Ladder {
    pub(super) fn new(policy: IdlePolicy) -> Self {
        Self {
            policy,
            since: None,
            wait_ns: Self::wait_ns_max(policy),
        }
    }

    fn wait_ns_max(policy: IdlePolicy) -> u64 {
        policy
            .spin_us
            .saturating_add(policy.yield_us)
            .saturating_mul(1000)
    }

    /// Work was found.
    pub(super) fn found_work(&mut self) {
        if self.since.take().is_some() {
            self.wait_ns = (self.wait_ns.saturating_mul(2)).min(Self::wait_ns_max(self.policy));
        }
    }

    /// Nothing was found at `now`.
    /// `deadline` is asked only when the spin is over.
    pub(super) fn step(&mut self, now: Time, deadline: impl FnOnce() -> Option<Time>) -> Step {
        let since = *self.since.get_or_insert(now);
        let idle_ns = now.since(since).0;
        let spin_ns = self.policy.spin_us.saturating_mul(1000).min(self.wait_ns);
        if idle_ns < spin_ns {
            return Step::Spin;
        }
        let deadline_is_near =
            deadline().is_some_and(|deadline| deadline.since(now).0 < SLEEP_NS_MIN);
        if idle_ns < self.wait_ns || deadline_is_near || !self.policy.block {
            return Step::Yield;
        }
        Step::Block
    }

    /// A sleep was tried; `slept` tells whether it came to it.
    pub(super) fn slept(&mut self, slept: bool) {
        // After a sleep the next idleness starts anew: not now, but when its first poll has found nothing.
        self.since = None;
        if slept {
            self.wait_ns = (self.wait_ns / 2).max(WAIT_NS_MIN.min(Self::wait_ns_max(self.policy)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Time {
        Time::from_ns(us * 1000)
    }

    #[test]
    fn a_dedicated_reactor_spins_yields_and_blocks() {
        let mut ladder = Ladder::new(IdlePolicy::dedicated(200));
        assert_eq!(ladder.step(at(1000), || None), Step::Spin);
        assert_eq!(ladder.step(at(1199), || None), Step::Spin);
        assert_eq!(ladder.step(at(1200), || None), Step::Yield);
        assert_eq!(ladder.step(at(1250), || None), Step::Block);
        assert_eq!(
            ladder.step(at(1250), || Some(at(1260))),
            Step::Yield,
            "the deadline is near"
        );
        ladder.found_work();
        assert_eq!(ladder.step(at(1251), || None), Step::Spin, "from the start");
    }

    #[test]
    fn a_shared_reactor_never_spins() {
        let mut ladder = Ladder::new(IdlePolicy::shared());
        assert_eq!(ladder.step(at(0), || None), Step::Yield);
        assert_eq!(ladder.step(at(99), || None), Step::Yield);
        assert_eq!(ladder.step(at(100), || None), Step::Block);
    }

    #[test]
    fn a_policy_without_block_yields_for_ever() {
        let mut ladder = Ladder::new(IdlePolicy {
            spin_us: 1,
            yield_us: 1,
            block: false,
        });
        ladder.step(at(0), || None);
        assert_eq!(ladder.step(at(1_000_000), || None), Step::Yield);
    }

    #[test]
    fn vain_waiting_gets_short_and_useful_waiting_long_again() {
        let policy = IdlePolicy::dedicated(2000);
        let mut ladder = Ladder::new(policy);
        let mut now = 0;
        for _ in 0..20 {
            while ladder.step(at(now), || None) != Step::Block {
                now += 1;
            }
            ladder.slept(true);
            now += 10_000;
        }
        assert_eq!(ladder.wait_ns, WAIT_NS_MIN);
        for _ in 0..9 {
            ladder.step(at(now), || None);
            ladder.found_work();
        }
        assert_eq!(ladder.wait_ns, Ladder::wait_ns_max(policy));
        ladder.slept(false);
        assert_eq!(
            ladder.wait_ns,
            Ladder::wait_ns_max(policy),
            "a refused sleep was no vain waiting"
        );
    }
}
