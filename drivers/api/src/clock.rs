//! The only source of time. Read once per reactor loop and passed down.

use std::cell::Cell;
use std::rc::Rc;

use ionian_types::{Nanos, Time};

/// A monotonic clock. Its readings time out, pace and measure; no promise of the log rests on them.
pub trait Clock {
    /// Nanoseconds since an arbitrary start; never smaller than an earlier reading.
    fn now(&self) -> Time;
}

/// A clock that stands still until it is moved: for tests. Clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    now: Rc<Cell<Time>>,
}

impl ManualClock {
    /// Moves the clock on by `span`.
    pub fn advance(&self, span: Nanos) {
        self.now.set(self.now.get().after(span));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Time {
        self.now.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::default();
        let seen = clock.clone();
        clock.advance(Nanos(5));
        clock.advance(Nanos(2));
        assert_eq!(seen.now(), Time::from_ns(7));
    }
}
