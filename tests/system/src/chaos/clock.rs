//! The time of events: the machine's clock when it was begun, and from then on one that only goes forward, as the clients'
//! histories have it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Looks at both clocks, of which the closest pair counts.
const LOOKS: usize = 100;

/// A clock whose readings can be laid beside those of other processes of this machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    epoch: Duration,
    began: Instant,
    error: Duration,
}

impl Clock {
    pub(super) fn new() -> Self {
        // The one clock was looked at somewhere between the two looks at the other.
        let look = || {
            let began = Instant::now();
            let epoch = SystemTime::now().duration_since(UNIX_EPOCH);
            Self {
                epoch: epoch.unwrap_or_default(),
                began,
                error: began.elapsed(),
            }
        };
        let looks = (1..LOOKS).map(|_| look());
        looks.fold(look(), |best, clock| {
            if clock.error < best.error {
                clock
            } else {
                best
            }
        })
    }

    /// Nanoseconds since 1970.
    pub(super) fn now_ns(&self) -> u64 {
        nanos(self.epoch + self.began.elapsed())
    }

    /// By how much it may be wrong, in nanoseconds.
    pub(super) fn error_ns(&self) -> u64 {
        nanos(self.error)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clocks_agree_within_their_errors() {
        let (one, other) = (Clock::new(), Clock::new());
        let (before, between, after) = (one.now_ns(), other.now_ns(), one.now_ns());
        let error = one.error_ns() + other.error_ns();
        assert!(before <= between + error && between <= after + error);
        assert!(before > 1_500_000_000_000_000_000, "{before}");
    }
}
