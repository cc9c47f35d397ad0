//! The machine's monotonic clock. Read once per reactor loop.

use std::time::Instant;

use ionian_driver_api::{Clock, Time};

/// Nanoseconds since this clock was made. Copies share the start, so their readings compare.
#[derive(Clone, Copy, Debug)]
pub struct MonotonicClock {
    start: Instant,
}

impl MonotonicClock {
    /// Starts a clock.
    #[must_use]
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Time {
        // Wraps after 584 years.
        Time::from_ns(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_never_go_back() {
        let clock = MonotonicClock::start();
        let readings: Vec<Time> = (0..10_000).map(|_| clock.now()).collect();
        assert!(readings.is_sorted());
    }
}
