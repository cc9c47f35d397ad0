//! How the links of a port stop together for a reset: nobody may touch a queue while its device is stopped.
//!
//! ```text
//! Running --ask--> Stopping --all links parked--> Resetting --ok--> Running
//!                                                     |------error--> Failed
//! ```
//!
//! A link looks at the state before each burst, which is one load. In `Stopping` it parks: it gives its buffers back and leaves the device
//! alone. The link that finds all parked does the reset.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

const RUNNING: u8 = 0;
const STOPPING: u8 = 1;
const RESETTING: u8 = 2;
const FAILED: u8 = 3;

/// The state of a port and who has stopped.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: AtomicU8,
    /// Links that exist.
    links: AtomicU32,
    /// Links that have parked in the present round.
    parked: AtomicU32,
    /// Resets so far: a link parks once in each round.
    round: AtomicU32,
}

/// What a link does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pass {
    /// Leave the device alone for now.
    Wait,
    /// All have parked: the caller resets the device and says how it went by [`Gate::done`].
    Reset,
    /// The device did not come back.
    Failed,
}

impl Gate {
    pub(super) fn add_links(&self, count: u32) {
        self.links.fetch_add(count, Ordering::AcqRel);
    }

    /// Whether the device may be touched.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) == RUNNING
    }

    /// Whether the device did not come back from a reset.
    pub(super) fn failed(&self) -> bool {
        self.state.load(Ordering::Acquire) == FAILED
    }

    /// Asks for a reset. A second request during the first is the same one.
    pub(super) fn ask(&self) {
        let _ = self
            .state
            .compare_exchange(RUNNING, STOPPING, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Called by a link that found the gate closed; `parked_in` is the round in which it last parked. It no longer uses the device.
    pub(super) fn park(&self, parked_in: &mut Option<u32>) -> Pass {
        match self.state.load(Ordering::Acquire) {
            FAILED => return Pass::Failed,
            STOPPING => {}
            _ => return Pass::Wait,
        }
        let round = self.round.load(Ordering::Acquire);
        if *parked_in != Some(round) {
            *parked_in = Some(round);
            self.parked.fetch_add(1, Ordering::AcqRel);
        }
        let all = self.parked.load(Ordering::Acquire) >= self.links.load(Ordering::Acquire);
        let mine = all
            && self
                .state
                .compare_exchange(STOPPING, RESETTING, Ordering::AcqRel, Ordering::Acquire)
                .is_ok();
        if mine { Pass::Reset } else { Pass::Wait }
    }

    /// The end of a reset, by who was told to do it.
    pub(super) fn done(&self, ok: bool) {
        self.parked.store(0, Ordering::Release);
        self.round.fetch_add(1, Ordering::AcqRel);
        self.state
            .store(if ok { RUNNING } else { FAILED }, Ordering::Release);
    }

    /// A link is gone. The others no longer wait for it.
    pub(super) fn leave(&self, parked_in: Option<u32>) {
        // First the parked ones: the other way round, all of the rest would seem to be parked for a moment.
        let stopping = self.state.load(Ordering::Acquire) == STOPPING;
        if stopping && parked_in == Some(self.round.load(Ordering::Acquire)) {
            self.parked.fetch_sub(1, Ordering::AcqRel);
        }
        self.links.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_to_park_resets_and_all_go_on() {
        let gate = Gate::default();
        gate.add_links(2);
        let (mut a, mut b) = (None, None);
        assert!(gate.is_open());
        gate.ask();
        gate.ask();
        assert!(!gate.is_open());
        assert_eq!(gate.park(&mut a), Pass::Wait);
        assert_eq!(gate.park(&mut a), Pass::Wait, "one link counts once");
        assert_eq!(gate.park(&mut b), Pass::Reset);
        assert_eq!(gate.park(&mut a), Pass::Wait, "one link resets");
        gate.done(true);
        assert!(gate.is_open());
        gate.ask();
        assert_eq!(
            gate.park(&mut b),
            Pass::Wait,
            "the next round is another one"
        );
        assert_eq!(gate.park(&mut a), Pass::Reset);
        gate.done(false);
        assert_eq!(gate.park(&mut a), Pass::Failed);
        gate.ask();
        assert_eq!(gate.park(&mut b), Pass::Failed, "for ever");
    }

    #[test]
    fn a_link_that_leaves_is_not_waited_for() {
        let gate = Gate::default();
        gate.add_links(3);
        let (mut a, mut b) = (None, None);
        gate.ask();
        assert_eq!(gate.park(&mut a), Pass::Wait);
        gate.leave(a);
        assert_eq!(gate.park(&mut b), Pass::Wait, "the third is still there");
        gate.leave(None);
        assert_eq!(gate.park(&mut b), Pass::Reset);
    }

    #[test]
    fn a_request_while_it_resets_is_part_of_it() {
        let gate = Gate::default();
        gate.add_links(1);
        let mut a = None;
        gate.ask();
        assert_eq!(gate.park(&mut a), Pass::Reset);
        gate.ask();
        gate.done(true);
        assert!(gate.is_open());
    }
}
