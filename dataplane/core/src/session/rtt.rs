//! How long to wait for an ack: smoothed round trip and its variation (RFC 6298), backoff, Karn's rule.
//!
//! Only packets that were sent once are measured, since an ack does not say which copy it answers.

use ionian_types::Nanos;

/// Doublings of the wait at most; the upper bound of the wait ends the growth long before.
const BACKOFF_MAX: u32 = 16;

/// The wait before anything was measured.
const fn first_wait(min: Nanos, max: Nanos) -> Nanos {
    let wait = min.0.saturating_mul(16);
    if wait < max.0 { Nanos(wait) } else { max }
}

/// The estimate of one session.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq))]
pub(super) struct Rtt {
    min: Nanos,
    max: Nanos,
    ack_delay: Nanos,
    srtt: u64,
    rttvar: u64,
    shortest: u64,
    backoff: u32,
    rto: Nanos,
}

impl Rtt {
    pub(super) const fn new(min: Nanos, max: Nanos, ack_delay: Nanos) -> Self {
        Self {
            min,
            max,
            ack_delay,
            srtt: 0,
            rttvar: 0,
            shortest: u64::MAX,
            backoff: 0,
            // Nothing is known yet: somewhat too long a wait costs less than a flood of copies.
            rto: first_wait(min, max),
        }
    }

    /// Takes one measurement into account and ends the backoff.
    #[inline]
    pub(super) fn sample(&mut self, Nanos(ns): Nanos) {
        // A clock that stands still between two polls still means a round trip.
        let ns = ns.max(1);
        self.shortest = self.shortest.min(ns);
        if self.srtt == 0 {
            self.srtt = ns;
            self.rttvar = ns / 2;
        } else {
            self.rttvar = self.rttvar - self.rttvar / 4 + self.srtt.abs_diff(ns) / 4;
            self.srtt = self.srtt - self.srtt / 8 + ns / 8;
        }
        self.backoff = 0;
        // The peer may hold an ack back, and may have started to just now: the mean does not show that.
        let wait = self
            .srtt
            .saturating_add(self.rttvar.saturating_mul(4))
            .saturating_add(self.ack_delay.0);
        self.rto = Nanos(wait.clamp(self.min.0, self.max.0));
    }

    /// The wait from now on, backoff included.
    #[inline]
    pub(super) fn wait(&self) -> Nanos {
        Nanos((self.rto.0 << self.backoff.min(20)).clamp(self.rto.0, self.max.0))
    }

    /// Doubles the wait; says whether it was the first time since the last measurement.
    pub(super) fn back_off(&mut self) -> bool {
        let first = self.backoff == 0;
        self.backoff = (self.backoff + 1).min(BACKOFF_MAX);
        first
    }

    /// Whether an ack that comes `since` after a packet was sent again may answer that copy and not the one before.
    #[inline]
    pub(super) const fn may_answer(&self, since: Nanos) -> bool {
        since.0 >= self.shortest
    }

    /// After how long a packet counts as lost if one sent later has arrived.
    #[inline]
    pub(super) const fn overdue(&self) -> Nanos {
        Nanos(self.srtt + self.srtt / 4)
    }

    pub(super) const fn srtt(&self) -> Nanos {
        Nanos(self.srtt)
    }

    pub(super) const fn rto(&self) -> Nanos {
        self.rto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtt() -> Rtt {
        Rtt::new(Nanos::from_us(200), Nanos::from_ms(50), Nanos::from_us(25))
    }

    #[test]
    fn the_wait_follows_the_measurements_within_its_bounds() {
        let mut rtt = rtt();
        assert_eq!(rtt.wait(), Nanos::from_us(3200));
        for _ in 0..100 {
            rtt.sample(Nanos::from_us(10));
        }
        assert_eq!(rtt.wait(), Nanos::from_us(200));
        assert!(rtt.srtt().0.abs_diff(10_000) < 100);
        for _ in 0..100 {
            rtt.sample(Nanos::from_ms(2));
        }
        assert!(rtt.wait() > Nanos::from_ms(2) && rtt.wait() < Nanos::from_ms(3));
        rtt.sample(Nanos(u64::MAX / 4));
        assert_eq!(rtt.wait(), Nanos::from_ms(50));
    }

    #[test]
    fn the_wait_doubles_until_a_measurement_ends_it() {
        let mut rtt = rtt();
        rtt.sample(Nanos::from_us(100));
        let base = rtt.wait();
        assert!(rtt.back_off());
        assert_eq!(rtt.wait(), Nanos(base.0 * 2));
        assert!(!rtt.back_off());
        assert_eq!(rtt.wait(), Nanos(base.0 * 4));
        for _ in 0..100 {
            rtt.back_off();
        }
        assert_eq!(rtt.wait(), Nanos::from_ms(50));
        rtt.sample(Nanos::from_us(100));
        assert!(rtt.wait() <= base);
    }
}
