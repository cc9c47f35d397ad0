//! Subscriptions, blocking: every record and gap from a position on, in the total order.

use std::collections::VecDeque;
use std::time::Duration;

use ionian_core::client::{RecordRun, Sink, SubscriptionId};
use ionian_types::{ClientId, GapKind, Gsn, LogId, ShardId, Time};
use ionian_wire::grant::Rights;
use ionian_wire::record::RecordHeader;

use crate::error::Error;
use crate::history::{HistoryEvent, HistoryHook, RecordIdentity, What, payload_hash};
use crate::link::Link;
use crate::log::{Log, nanos};

/// Deliveries that an iterator takes at a time.
const BATCH: usize = 256;

/// What a subscription delivers. Positions follow each other without exception: what holds no record is a gap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// A record.
    Record {
        /// Its position.
        gsn: Gsn,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// Positions that hold no record.
    Gap {
        /// The first.
        from: Gsn,
        /// The position after the last.
        to: Gsn,
        /// Why.
        kind: GapKind,
    },
}

/// A delivery as it lies in the buffers that it came by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeliveryRef<'a> {
    /// A record.
    Record {
        /// Its position.
        gsn: Gsn,
        /// The shard that holds it.
        shard: ShardId,
        /// Its header: who appended it.
        header: RecordHeader,
        /// Its payload.
        payload: &'a [u8],
    },
    /// Positions that hold no record.
    Gap {
        /// The first.
        from: Gsn,
        /// The position after the last.
        to: Gsn,
        /// Why.
        kind: GapKind,
    },
}

impl DeliveryRef<'_> {
    /// Copies the delivery.
    #[must_use]
    pub fn to_owned(&self) -> Delivery {
        match *self {
            Self::Record { gsn, payload, .. } => Delivery::Record {
                gsn,
                payload: payload.to_vec(),
            },
            Self::Gap { from, to, kind } => Delivery::Gap { from, to, kind },
        }
    }
}

/// A subscription. As an iterator it waits for ever; ends when dropped.
///
/// What it is not asked for stays with the servers: a slow subscriber delays nobody.
#[derive(Debug)]
pub struct Subscription<'a, L: Link> {
    log: &'a mut Log<L>,
    id: SubscriptionId,
    ready: VecDeque<Kept>,
}

/// A delivery that the iterator took and has not handed out.
#[derive(Debug)]
struct Kept {
    delivery: Delivery,
    /// Of a record.
    about: Option<(ShardId, RecordHeader)>,
}

impl Kept {
    fn new(delivery: &DeliveryRef<'_>) -> Self {
        let about = match delivery {
            DeliveryRef::Record { shard, header, .. } => Some((*shard, *header)),
            DeliveryRef::Gap { .. } => None,
        };
        Self {
            delivery: delivery.to_owned(),
            about,
        }
    }

    fn show(&self, visit: &mut impl FnMut(DeliveryRef<'_>) -> bool) -> bool {
        match (&self.delivery, self.about) {
            (Delivery::Record { gsn, payload }, Some((shard, header))) => {
                visit(DeliveryRef::Record {
                    gsn: *gsn,
                    shard,
                    header,
                    payload,
                })
            }
            (Delivery::Gap { from, to, kind }, _) => visit(DeliveryRef::Gap {
                from: *from,
                to: *to,
                kind: *kind,
            }),
            (Delivery::Record { .. }, None) => unreachable!("a record is kept with its header"),
        }
    }
}

impl<L: Link> Log<L> {
    /// Subscribes to everything from `from` on. A position below the head is answered by a gap of kind trim.
    ///
    /// # Errors
    /// [`Error::Busy`] with too many subscriptions, [`Error::Closed`], [`Error::NoRight`]; effect none.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// # let mut log = ionian_client::testing::MemoryCluster::new(2, 2).open(1)?;
    /// # let from = log.tail()?;
    /// log.append_batch(&["a", "b", "c"]);
    /// let mut seen = Vec::new();
    /// let mut subscription = log.subscribe(from)?;
    /// while seen.len() < 3 {
    ///     subscription.visit(Some(Duration::from_secs(5)), |delivery| {
    ///         seen.push(delivery.to_owned());
    ///         true
    ///     });
    /// }
    /// # Ok::<(), ionian_client::Error>(())
    /// ```
    pub fn subscribe(&mut self, from: Gsn) -> Result<Subscription<'_, L>, Error> {
        self.subscribe_as(from, false)
    }

    /// Subscribes, perhaps (`last`) as what a history calls the final read.
    pub(crate) fn subscribe_as(
        &mut self,
        from: Gsn,
        last: bool,
    ) -> Result<Subscription<'_, L>, Error> {
        self.driver.may(Rights::READ)?;
        let now = self.driver.link.now();
        let id = self.driver.client.subscribe(now, from)?;
        self.driver.record(now, |_| What::Sub {
            sub: id.get(),
            start: from,
            last,
        });
        Ok(Subscription {
            log: self,
            id,
            ready: VecDeque::new(),
        })
    }
}

impl<L: Link> Subscription<'_, L> {
    /// Shows deliveries to `visit`, in order and without copying, until it returns `false` (what it was shown counts as
    /// taken), or nothing more is at hand. Waits for the first one, at most for `timeout`; returns how many there were.
    pub fn visit(
        &mut self,
        timeout: Option<Duration>,
        mut visit: impl FnMut(DeliveryRef<'_>) -> bool,
    ) -> usize {
        let mut shown = 0;
        while let Some(kept) = self.ready.pop_front() {
            shown += 1;
            if !kept.show(&mut visit) {
                return shown;
            }
        }
        let driver = &mut self.log.driver;
        let now = driver.link.now();
        let until = timeout.map_or(Time::FAR, |timeout| now.after(nanos(timeout)));
        let mut visitor = Visitor {
            id: self.id,
            log: driver.client.config().log,
            time: now,
            history: driver.history.take(),
            visit,
            shown: 0,
            stopped: false,
        };
        driver.client.resume(now, self.id, &mut visitor);
        loop {
            let happened = driver.pump(&mut visitor);
            if visitor.shown > 0 || visitor.stopped {
                break;
            }
            let now = driver.link.now();
            visitor.time = now;
            if !happened {
                if now >= until {
                    break;
                }
                driver.idle(until);
            }
        }
        driver.history = visitor.history;
        shown + visitor.shown
    }

    /// The next delivery, or `None` when there is none within `timeout`.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Delivery> {
        self.fill(Some(timeout));
        self.ready.pop_front().map(|kept| kept.delivery)
    }

    fn fill(&mut self, timeout: Option<Duration>) {
        if self.ready.is_empty() {
            let mut batch = std::mem::take(&mut self.ready);
            self.visit(timeout, |delivery| {
                batch.push_back(Kept::new(&delivery));
                batch.len() < BATCH
            });
            self.ready = batch;
        }
    }

    /// The log, for other operations while the subscription stands.
    pub fn log(&mut self) -> &mut Log<L> {
        self.log
    }
}

impl<L: Link> Iterator for Subscription<'_, L> {
    type Item = Delivery;

    fn next(&mut self) -> Option<Delivery> {
        self.fill(None);
        self.ready.pop_front().map(|kept| kept.delivery)
    }
}

impl<L: Link> Drop for Subscription<'_, L> {
    fn drop(&mut self) {
        let (now, sub) = (self.log.driver.link.now(), self.id.get());
        self.log.driver.client.unsubscribe(self.id);
        self.log.driver.record(now, |_| What::SubEnd { sub });
        // Tells the servers; without it they would stop when the credit is used up.
        self.log.driver.pump(&mut ());
    }
}

/// The sink of one subscription: what is for another one stays in the machine.
struct Visitor<F> {
    id: SubscriptionId,
    log: LogId,
    time: Time,
    history: Option<HistoryHook>,
    visit: F,
    shown: usize,
    stopped: bool,
}

impl<F: FnMut(DeliveryRef<'_>) -> bool> Visitor<F> {
    fn show(&mut self, delivery: DeliveryRef<'_>) {
        if let Some(hook) = &mut self.history {
            let what = delivery_event(self.id, &delivery);
            hook(HistoryEvent {
                time_ns: self.time.as_ns(),
                log: self.log,
                what,
            });
        }
        self.shown += 1;
        self.stopped = !(self.visit)(delivery);
    }
}

impl<F: FnMut(DeliveryRef<'_>) -> bool> Sink for Visitor<F> {
    fn records(&mut self, subscription: SubscriptionId, run: &RecordRun<'_>) -> u32 {
        let mut taken = 0;
        if subscription != self.id {
            return taken;
        }
        for (gsn, header, payload) in run.records() {
            if self.stopped {
                break;
            }
            self.show(DeliveryRef::Record {
                gsn,
                shard: run.shard,
                header,
                payload,
            });
            taken += 1;
        }
        taken
    }

    fn gap(&mut self, subscription: SubscriptionId, from: Gsn, to: Gsn, kind: GapKind) -> bool {
        if subscription != self.id || self.stopped {
            return false;
        }
        self.show(DeliveryRef::Gap { from, to, kind });
        true
    }
}

#[cold]
pub(crate) fn delivery_event(sub: SubscriptionId, delivery: &DeliveryRef<'_>) -> What {
    let sub = sub.get();
    match *delivery {
        DeliveryRef::Record {
            gsn,
            header,
            payload,
            ..
        } => {
            let client: ClientId = header.client;
            let hash = payload_hash(payload);
            let record = RecordIdentity {
                client,
                session: header.session,
                seq: header.seq,
                hash,
            };
            What::Delivered { sub, gsn, record }
        }
        DeliveryRef::Gap { from, to, kind } => What::Gap {
            sub,
            from,
            to,
            kind,
        },
    }
}
