//! The last read of a history: from the head to the tail, when everything else is over, so that a judge can say what is lost.

use std::time::Duration;

use ionian_types::{Effect, Gsn};

use crate::error::Error;
use crate::history::{Phase, What};
use crate::link::Link;
use crate::log::Log;
use crate::subscription::DeliveryRef;

/// What a final read came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FinalRead {
    /// The first position that is not trimmed: where it began.
    pub head: Gsn,
    /// The position after the last record: where it ends.
    pub tail: Gsn,
    /// How far it came: the tail, unless it was given up.
    pub next: Gsn,
    /// Records that it read.
    pub records: u64,
}

impl<L: Link> Log<L> {
    /// Reads the whole log, from its first position that is not trimmed to its tail, and says in the history, if one is
    /// kept, that this is the final read: what it does not deliver is lost, by the judgement of the history. So nobody may
    /// append or trim any more, and nothing may be under way, of this client and of every other one whose history is judged
    /// with this one.
    ///
    /// Waits for this client's own appends, and for each delivery, for at most `patience`. Ends early when `visit` returns
    /// `false`: the history then has a final phase and no end of it, and is not to be ended with
    /// [`write_done`](crate::history::write_done), or what was not read counts as lost.
    ///
    /// # Errors
    /// [`Error::TimedOut`] when appends stay open or deliveries stay out for longer than `patience`; those of
    /// [`Self::tail`] and [`Self::subscribe`]. Effect none; the history is as if it was given up.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// # let mut log = ionian_client::testing::MemoryCluster::new(1, 2).open(1)?;
    /// log.append_batch(&["a", "b", "c"]);
    /// let read = log.final_read(Duration::from_secs(10), |_| true)?;
    /// assert_eq!((read.head.get(), read.tail.get(), read.records), (0, 3, 3));
    /// # Ok::<(), ionian_client::Error>(())
    /// ```
    pub fn final_read(
        &mut self,
        patience: Duration,
        mut visit: impl FnMut(DeliveryRef<'_>) -> bool,
    ) -> Result<FinalRead, Error> {
        const LATE: Error = Error::TimedOut {
            effect: Effect::None,
        };
        if !self.drain(patience) {
            return Err(LATE);
        }
        let (head, tail) = self.ends()?;
        self.mark(Phase::Final { head, tail });
        let (mut next, mut records, mut more) = (head, 0, true);
        let mut subscription = self.subscribe_as(head, true)?;
        while more && next < tail {
            let got = subscription.visit(Some(patience), |delivery| {
                next = match delivery {
                    DeliveryRef::Record { gsn, .. } => {
                        records += 1;
                        gsn.next().unwrap_or(Gsn::MAX)
                    }
                    DeliveryRef::Gap { to, .. } => to,
                };
                more = visit(delivery);
                more && next < tail
            });
            if got == 0 {
                return Err(LATE);
            }
        }
        drop(subscription);
        Ok(FinalRead {
            head,
            tail,
            next,
            records,
        })
    }

    /// Says in the history, if one is kept, which phase the run has entered.
    pub fn mark(&mut self, phase: Phase) {
        let now = self.driver.link.now();
        self.driver.record(now, |_| What::Phase(phase));
    }

    /// The time that events of a history get now, in nanoseconds of the link's clock.
    pub fn now_ns(&mut self) -> u64 {
        self.driver.link.now().as_ns()
    }
}
