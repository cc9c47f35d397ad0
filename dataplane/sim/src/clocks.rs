//! Clocks: each process has its own, which only ever goes forward, at its own rate, from anywhere.
//!
//! Machines never see the world's time. They use clocks for timeouts only, so that nothing but waiting may follow from
//! what a clock says, however wrong it is.

use ionian_types::{Knobs, Time};

use crate::plan::Fault;
use crate::process::ProcId;
use crate::rng::Rng;
use crate::world::World;

/// Thousandths of the world's rate at which a clock that is right goes.
const RIGHT: u64 = 1000;
/// The farthest that a clock starts from the world's, and jumps: nanoseconds.
const OFFSET_NS_MAX: u64 = 30 * 24 * 3600 * 1_000_000_000;
const JUMPS_NS: [u64; 4] = [
    100_000_000,
    5_000_000_000,
    600_000_000_000,
    4 * 3600 * 1_000_000_000,
];

/// A monotonic clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    /// What it showed at `world`.
    local: u64,
    world: u64,
    /// Its rate in thousandths.
    rate: u64,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            local: 0,
            world: 0,
            rate: RIGHT,
        }
    }
}

impl Clock {
    /// Any clock: up to a month off, up to a tenth too fast or slow.
    #[must_use]
    pub fn any(rng: &mut Rng) -> Self {
        Self {
            local: rng.below(OFFSET_NS_MAX),
            world: 0,
            rate: rng.range(900, 1101),
        }
    }

    /// What it shows.
    #[must_use]
    pub const fn read(&self, world: Time) -> Time {
        let passed = world.as_ns().saturating_sub(self.world);
        Time::from_ns(self.local + passed * self.rate / RIGHT)
    }

    /// The first time of the world at which it shows `local`; now or earlier if it has.
    #[must_use]
    pub fn when(&self, local: Time) -> Time {
        let ahead = local.as_ns().saturating_sub(self.local);
        let passed = u128::from(ahead) * u128::from(RIGHT);
        let passed = passed.div_ceil(u128::from(self.rate));
        let at = u128::from(self.world) + passed;
        Time::from_ns(u64::try_from(at).unwrap_or(u64::MAX))
    }

    /// Jumps forward.
    pub fn jump(&mut self, world: Time, by_ns: u64) {
        *self = Self {
            local: self.read(world).as_ns() + by_ns,
            world: world.as_ns(),
            rate: self.rate,
        };
    }

    /// Goes at another rate from now on.
    pub fn set_rate(&mut self, world: Time, rate: u64) {
        *self = Self {
            local: self.read(world).as_ns(),
            world: world.as_ns(),
            rate,
        };
    }
}

impl<K: Knobs> World<K> {
    /// What the clock of a process shows now.
    #[must_use]
    pub fn local(&self, proc: ProcId) -> Time {
        self.procs[proc].clock.read(self.now)
    }

    /// The clock of a process that starts.
    pub(crate) fn new_clock(&mut self) -> Clock {
        if self.plan.clocks {
            Clock::any(&mut self.rng_clock)
        } else {
            Clock::default()
        }
    }

    /// The clock of a process jumps, or goes at another rate.
    pub(crate) fn clock_fault(&mut self, fault: Fault) -> bool {
        let Some(proc) = self.any_live() else {
            return false;
        };
        let now = self.now;
        if fault == Fault::ClockJump {
            let by_ns = self.rng_fault.pick(&JUMPS_NS);
            let by_ns = self.rng_fault.range(by_ns / 10, by_ns);
            self.procs[proc].clock.jump(now, by_ns);
        } else {
            let rate = self.rng_fault.range(900, 1101);
            self.procs[proc].clock.set_rate(now, rate);
        }
        self.set_timers(proc);
        true
    }

    /// Every timer of a process is set again, by what its clock shows now.
    fn set_timers(&mut self, proc: ProcId) {
        self.procs[proc].timer_at = Time::FAR;
        self.flush_soon(proc);
        let ends: Vec<_> = self.procs[proc].conns.iter().flatten().copied().collect();
        for end in ends {
            self.links[end.link].timers[end.side] = Time::FAR;
            self.transmit(end.link, end.side);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_only_goes_forward_and_its_deadlines_are_met_when_it_shows_them() {
        let mut rng = Rng::stream(7, "clocks");
        for _ in 0..200 {
            let mut clock = Clock::any(&mut rng);
            let (mut world, mut last) = (0, 0);
            for _ in 0..50 {
                world += rng.below(10_000_000);
                let now = Time::from_ns(world);
                match rng.below(4) {
                    0 => clock.jump(now, rng.below(OFFSET_NS_MAX)),
                    1 => clock.set_rate(now, rng.range(900, 1101)),
                    _ => {}
                }
                let shown = clock.read(now);
                assert!(shown.as_ns() >= last, "backwards");
                last = shown.as_ns();
                let deadline = Time::from_ns(last + 1 + rng.below(1_000_000_000));
                let met = clock.when(deadline);
                assert!(clock.read(met) >= deadline && met > now);
                let before = Time::from_ns(met.as_ns() - 1);
                assert!(clock.read(before) < deadline, "later than needed");
            }
        }
        assert_eq!(Clock::default().when(Time::FAR), Time::FAR);
    }
}
