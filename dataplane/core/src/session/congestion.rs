//! How many packets may be under way: a window that shrinks when packets are lost and grows back.
//!
//! Credits already keep the receiver's ring from overflowing. This window answers what credits cannot see: a socket
//! buffer or a switch that drops. It is additive increase and multiplicative decrease, counted in packets.

/// The window never gets smaller: below it, losses could no longer be told by later packets.
const WINDOW_MIN: u32 = 4;
/// The window of a new session: enough to fill a local network's round trip, too little to overflow a socket buffer.
const WINDOW_FIRST: u32 = 32;

/// The window of one session.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq))]
pub(super) struct Congestion {
    window: u32,
    /// Above it the window grows by one packet per round trip, below it by one per ack.
    threshold: u32,
    window_max: u32,
    acked: u32,
    /// Losses of packets sent before this one were answered already.
    recover: u64,
}

impl Congestion {
    pub(super) fn new(window_max: u32) -> Self {
        Self {
            window: WINDOW_FIRST.min(window_max),
            threshold: u32::MAX,
            window_max,
            acked: 0,
            recover: 0,
        }
    }

    /// The number of packets that may be under way.
    #[inline]
    pub(super) const fn window(&self) -> u32 {
        self.window
    }

    /// Takes note of `count` packets acked, with `in_flight` under way before.
    #[inline]
    pub(super) fn on_acked(&mut self, count: u32, in_flight: u32) {
        // A window that was not used says nothing about what the network bears.
        if self.window == self.window_max || in_flight < self.window {
            return;
        }
        if self.window < self.threshold {
            self.window = (self.window + count).min(self.window_max);
            return;
        }
        self.acked += count;
        if self.acked >= self.window {
            self.acked -= self.window;
            self.window += 1;
        }
    }

    /// Answers the loss of the packet with send number `lost`; `next` is the number that the next packet gets. Losses
    /// of one flight count once: says whether this is the first.
    pub(super) fn on_lost(&mut self, lost: u64, next: u64) -> bool {
        let first = lost >= self.recover;
        if first {
            self.recover = next;
            self.shrink(self.window * 7 / 10);
        }
        first
    }

    /// Answers a timeout.
    pub(super) fn on_timeout(&mut self, next: u64) {
        self.recover = next;
        self.shrink(self.window / 2);
    }

    fn shrink(&mut self, window: u32) {
        self.window = window.max(WINDOW_MIN).min(self.window_max);
        self.threshold = self.window;
        self.acked = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shrinks_once_per_flight_and_grows_back() {
        let mut window = Congestion::new(64);
        window.on_acked(32, 32);
        assert_eq!(window.window(), 64);
        assert!(window.on_lost(10, 70));
        assert!(!window.on_lost(11, 70));
        assert_eq!(window.window(), 44);
        window.on_timeout(71);
        assert_eq!(window.window(), 22);
        for _ in 0..20 {
            window.on_timeout(71);
        }
        assert_eq!(window.window(), WINDOW_MIN);
        for _ in 0..4_000 {
            window.on_acked(1, 64);
        }
        assert_eq!(window.window(), 64);
    }

    #[test]
    fn an_unused_window_does_not_grow() {
        let mut window = Congestion::new(1024);
        window.on_acked(31, 31);
        assert_eq!(window.window(), WINDOW_FIRST);
        window.on_acked(32, 32);
        assert_eq!(window.window(), 2 * WINDOW_FIRST);
    }
}
