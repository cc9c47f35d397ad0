//! The threads of a measurement: clients that append, and an auditor that reads back. Each waits for its orders off the
//! processor, so that only what is measured runs.
//!
//! A measurement goes in rounds: a timed part in which the clients append, then, not timed, an audit of everything that
//! was acknowledged in it and a trim, so that memory stays bounded however long it lasts.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use ionian_client::history::Phase;
use ionian_client::{DeliveryRef, Error, Gsn, Link, Log, Outcome, Policy};

use super::audit::{Audit, Payload, Placed, id_of};

/// Latencies up to this many nanoseconds are told apart.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Records handed over between two polls.
const BURST: usize = 64;
/// Records that stay in the log when its history ends, for its final read.
const KEPT_RECORDS: u64 = 1_000;
/// How long the auditor waits for more records before it gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the clients do.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// The payloads.
    pub(crate) payload: Payload,
    /// Client threads.
    pub(crate) clients: usize,
    /// Records of one client under way at a time while pipelined.
    pub(crate) depth: u64,
    /// Append to all servers; without it each client stays with one.
    pub(crate) spread: bool,
    /// Records kept: a round appends at most as many, and the trim after it leaves none older.
    pub(crate) retention: u64,
}

/// How a part is appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    /// Every client, with its depth.
    Pipelined,
    /// One client, one record at a time.
    Single,
}

/// A timed part of one client.
struct Part {
    began: Instant,
    ended: Instant,
    latency: Histogram<u64>,
    acked: Placed,
}

impl Part {
    fn empty() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            ended: now,
            latency: histogram(),
            acked: Placed::NONE,
        }
    }
}

/// A timed part of all clients.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) records: u64,
    pub(crate) elapsed: Duration,
    /// From handing a record over to its acknowledgement, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

enum Order {
    Append {
        manner: Manner,
        records: u64,
        limit: Duration,
    },
    Trim(u64),
    /// The history enters a phase.
    Mark(Phase),
}

enum AuditOrder {
    /// Read back what was acknowledged.
    Audit(Placed),
    /// The final read of the history.
    FinalRead,
}

pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are in order")
}

/// The threads, as whoever gives the orders sees them.
pub(crate) struct Crew {
    clients: Vec<(SyncSender<Order>, Receiver<anyhow::Result<Part>>)>,
    auditor: (SyncSender<AuditOrder>, Receiver<anyhow::Result<()>>),
    retention: u64,
    /// Records audited.
    pub(crate) audited: u64,
}

impl Crew {
    /// Appends one round of records, or `most` if that is less, for at most `limit`, then audits and trims. Something is
    /// done right before and right after the timed part.
    pub(crate) fn round_watched<T>(
        &mut self,
        manner: Manner,
        limit: Duration,
        most: u64,
        before: impl FnOnce() -> anyhow::Result<T>,
        after: impl FnOnce(T) -> anyhow::Result<()>,
    ) -> anyhow::Result<Round> {
        let clients = if manner == Manner::Single {
            1
        } else {
            self.clients.len()
        };
        let records = (self.retention.min(most) / clients as u64).max(1);
        let noted = before()?;
        for (orders, _) in &self.clients[..clients] {
            orders
                .send(Order::Append {
                    manner,
                    records,
                    limit,
                })
                .context("a client's thread has ended")?;
        }
        let mut parts = Vec::with_capacity(clients);
        for (_, results) in &self.clients[..clients] {
            parts.push(results.recv().context("a client's thread has ended")??);
        }
        after(noted)?;
        let mut acked = Placed::NONE;
        let mut latency = histogram();
        for part in &parts {
            acked.add(&part.acked);
            latency
                .add(&part.latency)
                .context("histograms of one shape")?;
        }
        let began = parts.iter().map(|part| part.began).min();
        let ended = parts.iter().map(|part| part.ended).max();
        self.audit(acked)?;
        Ok(Round {
            records: acked.records,
            elapsed: began
                .zip(ended)
                .map_or(Duration::ZERO, |(began, ended)| ended.duration_since(began)),
            latency,
        })
    }

    /// Reads back what was acknowledged, and trims it.
    fn audit(&mut self, acked: Placed) -> anyhow::Result<()> {
        if acked.records == 0 {
            return Ok(());
        }
        self.ask_auditor(AuditOrder::Audit(acked))?;
        self.audited += acked.records;
        self.ask_first(Order::Trim(acked.end)).map(drop)
    }

    /// Says in the history that the run enters a phase.
    pub(crate) fn mark(&mut self, phase: Phase) -> anyhow::Result<()> {
        self.ask_first(Order::Mark(phase)).map(drop)
    }

    /// Ends the history: appends some records that stay, and has the whole log read.
    pub(crate) fn end_history(&mut self) -> anyhow::Result<()> {
        self.ask_first(Order::Append {
            manner: Manner::Pipelined,
            records: self.retention.min(KEPT_RECORDS),
            limit: PATIENCE,
        })?;
        self.ask_auditor(AuditOrder::FinalRead)
    }

    fn ask_first(&self, order: Order) -> anyhow::Result<Part> {
        let (orders, results) = &self.clients[0];
        orders.send(order).context("a client's thread has ended")?;
        results.recv().context("a client's thread has ended")?
    }

    fn ask_auditor(&self, order: AuditOrder) -> anyhow::Result<()> {
        let (orders, results) = &self.auditor;
        let gone = "the auditor's thread has ended";
        orders.send(order).context(gone)?;
        results.recv().context(gone)?
    }
}

/// Runs `lead` with the threads of a load; `open` opens the log on the thread of client number n, or of the auditor (the
/// number after the last client's).
pub(crate) fn with_crew<L: Link, T>(
    load: &Load,
    open: impl Fn(usize) -> anyhow::Result<Log<L>> + Sync,
    lead: impl FnOnce(&mut Crew) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let open = &open;
        let clients = (0..load.clients)
            .map(|number| {
                let (orders, inbox) = sync_channel::<Order>(1);
                let (outbox, results) = sync_channel(1);
                scope.spawn(move || client(number, load, open, &inbox, &outbox));
                (orders, results)
            })
            .collect();
        let (audits, inbox) = sync_channel::<AuditOrder>(1);
        let (outbox, verdicts) = sync_channel(1);
        scope.spawn(move || auditor(load, open, &inbox, &outbox));
        let mut crew = Crew {
            clients,
            auditor: (audits, verdicts),
            retention: load.retention,
            audited: 0,
        };
        // The threads end when their orders end, with the crew.
        lead(&mut crew)
    })
}

fn client<L: Link>(
    number: usize,
    load: &Load,
    open: impl Fn(usize) -> anyhow::Result<Log<L>>,
    orders: &Receiver<Order>,
    results: &SyncSender<anyhow::Result<Part>>,
) {
    let mut client = match open(number) {
        Ok(log) => Client::new(number, load, log),
        Err(error) => {
            // Whoever gives the orders hears it instead of the first answer.
            let _ = results.send(Err(error));
            return;
        }
    };
    while let Ok(order) = orders.recv() {
        let result = match order {
            Order::Append {
                manner: Manner::Pipelined,
                records,
                limit,
            } => client.pipelined(records, limit),
            Order::Append {
                manner: Manner::Single,
                records,
                limit,
            } => client.single(records, limit),
            Order::Trim(before) => client.trim(before),
            Order::Mark(phase) => {
                client.log.mark(phase);
                Ok(Part::empty())
            }
        };
        if results.send(result).is_err() {
            return;
        }
    }
}

/// Records of one lane handed over at the same time: first id, count, when.
type Handed = (u64, u64, Instant);

struct Client<L: Link> {
    log: Log<L>,
    number: usize,
    next: u64,
    payload: Payload,
    depth: u64,
    /// Per lane, records under way; the outcomes of one lane come in the order of its appends.
    lanes: Vec<VecDeque<Handed>>,
}

impl<L: Link> Client<L> {
    fn new(number: usize, load: &Load, mut log: Log<L>) -> Self {
        if load.spread {
            log.set_shard_policy(Policy::Spread);
        }
        Self {
            log,
            number,
            next: 0,
            payload: load.payload.clone(),
            depth: load.depth,
            lanes: Vec::new(),
        }
    }

    /// Appends with many records under way, and waits for all of them.
    fn pipelined(&mut self, records: u64, limit: Duration) -> anyhow::Result<Part> {
        let mut part = Part::empty();
        let mut sent = 0;
        let mut more = true;
        while more || part.acked.records < sent {
            let now = Instant::now();
            more = more && sent < records && now.duration_since(part.began) < limit;
            for _ in 0..BURST {
                if !more
                    || sent == records
                    || sent - part.acked.records >= self.depth
                    || !self.hand_over(now)?
                {
                    break;
                }
                sent += 1;
            }
            if !self.log.poll() && sent - part.acked.records >= self.depth {
                self.log.poll_for(Duration::from_millis(1));
            }
            self.collect(&mut part)?;
        }
        part.ended = Instant::now();
        Ok(part)
    }

    /// Whether the log took the next record; it does not while its own window is full.
    fn hand_over(&mut self, now: Instant) -> anyhow::Result<bool> {
        let id = id_of(self.number, self.next);
        let payload = self.payload.name(id);
        let ticket = match self.log.try_append(payload) {
            Ok(ticket) => ticket,
            Err(Error::Busy) => return Ok(false),
            // The cluster is still starting.
            Err(Error::NoServer | Error::NotReady { .. }) => {
                self.log.submit(payload).context("an append")?
            }
            Err(error) => return Err(error).context("an append"),
        };
        self.next += 1;
        let lane = ticket.lane as usize;
        if self.lanes.len() <= lane {
            self.lanes
                .resize_with(lane + 1, || VecDeque::with_capacity(1024));
        }
        match self.lanes[lane].back_mut() {
            Some((first, count, at)) if *at == now && *first + *count == id => *count += 1,
            _ => self.lanes[lane].push_back((id, 1, now)),
        }
        Ok(true)
    }

    fn collect(&mut self, part: &mut Part) -> anyhow::Result<()> {
        let Self { log, lanes, .. } = self;
        let mut now = None;
        for run in log.completions() {
            let Outcome::Ordered { first_gsn, .. } = run.outcome else {
                bail!("an append failed: {:?}", run.outcome);
            };
            let now = *now.get_or_insert_with(Instant::now);
            let mut gsn = first_gsn.get();
            let mut left = u64::from(run.count);
            while left > 0 {
                let handed = lanes
                    .get_mut(run.first.lane as usize)
                    .and_then(VecDeque::front_mut);
                let Some((id, count, at)) = handed else {
                    bail!("an outcome without an append")
                };
                let taken = left.min(*count);
                let ns = now.duration_since(*at).as_nanos() as u64;
                part.latency.saturating_record_n(ns, taken);
                for offset in 0..taken {
                    part.acked.at(gsn + offset, *id + offset);
                }
                (*id, *count) = (*id + taken, *count - taken);
                if *count == 0 {
                    lanes[run.first.lane as usize].pop_front();
                }
                gsn += taken;
                left -= taken;
            }
        }
        Ok(())
    }

    /// Appends one record at a time, by the plainest call that there is.
    fn single(&mut self, records: u64, limit: Duration) -> anyhow::Result<Part> {
        let began = Instant::now();
        let mut part = Part {
            began,
            ended: began,
            latency: histogram(),
            acked: Placed::NONE,
        };
        while part.acked.records < records && part.ended.duration_since(began) < limit {
            let id = id_of(self.number, self.next);
            let since = Instant::now();
            let appended = self
                .log
                .append(self.payload.name(id))
                .context("an append")?;
            part.ended = Instant::now();
            part.latency
                .saturating_record(part.ended.duration_since(since).as_nanos() as u64);
            part.acked.at(appended.gsn.get(), id);
            self.next += 1;
        }
        Ok(part)
    }

    fn trim(&mut self, before: u64) -> anyhow::Result<Part> {
        self.log.trim(Gsn::new(before)).context("a trim")?;
        Ok(Part::empty())
    }
}

fn auditor<L: Link>(
    load: &Load,
    open: impl Fn(usize) -> anyhow::Result<Log<L>>,
    orders: &Receiver<AuditOrder>,
    results: &SyncSender<anyhow::Result<()>>,
) {
    let mut log = None;
    while let Ok(order) = orders.recv() {
        // Opened with the first order: until then nothing of it runs.
        let opened = match log.take() {
            Some(log) => Ok(log),
            None => open(load.clients),
        };
        let result = opened.and_then(|opened| {
            let log = log.insert(opened);
            match &order {
                AuditOrder::Audit(acked) => audit(load, log, acked),
                AuditOrder::FinalRead => {
                    let read = log.final_read(PATIENCE, |_| true);
                    read.map(drop).context("the final read of the history")
                }
            }
        });
        if results.send(result).is_err() {
            return;
        }
    }
}

fn audit<L: Link>(load: &Load, log: &mut Log<L>, acked: &Placed) -> anyhow::Result<()> {
    let mut audit = Audit::new(load.payload.clone(), !load.spread);
    let mut next = acked.first;
    let mut heard = Instant::now();
    let mut subscription = log.subscribe(Gsn::new(next)).context("reading back")?;
    while next < acked.end {
        let got = subscription.visit(Some(Duration::from_millis(100)), |delivery| {
            match delivery {
                DeliveryRef::Record { gsn, payload, .. } => {
                    audit.record(gsn.get(), payload);
                    next = gsn.get() + 1;
                }
                DeliveryRef::Gap { from, to, .. } => {
                    audit.gaps += to.get() - from.get();
                    next = to.get();
                }
            }
            next < acked.end
        });
        if got > 0 {
            heard = Instant::now();
        } else if heard.elapsed() > PATIENCE {
            bail!("reading back stopped at position {next} of {}", acked.end);
        }
    }
    match audit.fault(acked) {
        Some(fault) => bail!("what was read back is not what was acknowledged: {fault}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ionian_client::testing::MemoryCluster;

    #[test]
    fn rounds_append_audit_and_trim() {
        for spread in [false, true] {
            let cluster = MemoryCluster::new(2, 2);
            cluster
                .open(9)
                .unwrap()
                .append(b"of somebody else")
                .unwrap();
            let payload = Payload::new(1, 32);
            let load = Load {
                payload,
                clients: 1,
                depth: 64,
                spread,
                retention: 500,
            };
            let far = Duration::from_secs(60);
            let audited = with_crew(
                &load,
                |number| Ok(cluster.open(1 + number as u128)?),
                |crew| {
                    let (nothing, most) = (|| Ok(()), u64::MAX);
                    for _ in 0..3 {
                        let round =
                            crew.round_watched(Manner::Pipelined, far, most, nothing, |()| Ok(()))?;
                        assert_eq!((round.records, round.latency.len()), (500, 500));
                    }
                    let soon = Duration::from_millis(1);
                    let single =
                        crew.round_watched(Manner::Single, soon, most, nothing, |()| Ok(()))?;
                    assert!(single.records >= 1, "nothing in a round by time");
                    Ok(crew.audited - single.records)
                },
            );
            assert_eq!(audited.unwrap(), 1_500, "spread {spread}");
            let mut log = cluster.open(7).unwrap();
            assert_eq!(
                log.head().unwrap(),
                log.tail().unwrap(),
                "everything was trimmed"
            );
        }
    }

    #[test]
    fn a_client_that_cannot_open_is_an_error() {
        let load = Load {
            payload: Payload::new(1, 16),
            clients: 1,
            depth: 1,
            spread: false,
            retention: 1,
        };
        let refused =
            |_| -> anyhow::Result<Log<ionian_client::testing::MemoryLink>> { bail!("refused") };
        let result = with_crew(&load, refused, |crew| {
            crew.round_watched(Manner::Single, Duration::ZERO, 1, || Ok(()), |()| Ok(()))
                .map(drop)
        });
        assert!(result.is_err());
    }
}
