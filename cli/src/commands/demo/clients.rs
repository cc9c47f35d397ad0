//! The two clients of the demonstration: one appends the input, first one record at a time and then pipelined; the other
//! follows the log and hands what it receives to the judge.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hdrhistogram::Histogram;
use ionian_client::{DeliveryRef, Error, Gsn, Link, Log, Outcome};

use super::corpus::Corpus;
use super::judge::{Damage, Judge, Verdict};

/// Records under way at a time while pipelined.
pub(crate) const WINDOW: u64 = 4_096;
/// Appends between two rounds of polling.
const BURST: u64 = 64;
/// Records appended one at a time, at most, and for how long, at most.
const SINGLE_RECORDS: u64 = 20_000;
const SINGLE_TIME: Duration = Duration::from_millis(1_500);
/// How long the second client waits for more before it gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often what a live display shows is renewed.
const SHOW_EVERY: Duration = Duration::from_millis(50);
/// Latencies up to this many nanoseconds are told apart.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// What a live display shows.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) acked: AtomicU64,
    pub(crate) received: AtomicU64,
    /// Of the appends since the last look, in nanoseconds.
    pub(crate) p50_ns: AtomicU64,
    pub(crate) p99_ns: AtomicU64,
    /// The writer failed: nothing more will come.
    pub(crate) given_up: AtomicBool,
}

/// One way of appending, measured.
#[derive(Debug)]
pub(crate) struct Phase {
    pub(crate) records: u64,
    pub(crate) elapsed: Duration,
    /// From handing a record over to its acknowledgement, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

impl Phase {
    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.latency.value_at_quantile(quantile))
    }
}

/// What was appended.
#[derive(Debug)]
pub(crate) struct Written {
    /// One record at a time.
    pub(crate) single: Phase,
    /// [`WINDOW`] records under way.
    pub(crate) pipelined: Phase,
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).context("a histogram")
}

/// Appends the whole input; every acknowledgement must name the position that its record has in the input.
pub(crate) fn write<L: Link>(
    log: &mut Log<L>,
    corpus: &Corpus,
    live: &Live,
) -> anyhow::Result<Written> {
    let mut writer = Writer {
        log,
        corpus,
        live,
        sent: 0,
        acked: 0,
        under_way: VecDeque::with_capacity(WINDOW as usize),
        recent: histogram()?,
        shown: Instant::now(),
    };
    let single = (corpus.len() / 2).min(SINGLE_RECORDS);
    Ok(Written {
        single: writer.append_until(single, 1, SINGLE_TIME)?,
        pipelined: writer.append_until(corpus.len(), WINDOW, Duration::MAX)?,
    })
}

struct Writer<'a, L: Link> {
    log: &'a mut Log<L>,
    corpus: &'a Corpus,
    live: &'a Live,
    sent: u64,
    acked: u64,
    /// When each record under way was handed over; outcomes come in the same order, as one server takes them all.
    under_way: VecDeque<Instant>,
    recent: Histogram<u64>,
    shown: Instant,
}

impl<L: Link> Writer<'_, L> {
    /// Appends up to record `end`, `window` at a time, for at most `limit`; then waits for what is under way.
    fn append_until(&mut self, end: u64, window: u64, limit: Duration) -> anyhow::Result<Phase> {
        let mut latency = histogram()?;
        let first = self.acked;
        let began = Instant::now();
        loop {
            let more = self.sent < end && began.elapsed() < limit;
            if !more && self.sent == self.acked {
                break;
            }
            let mut burst = 0;
            while more
                && burst < BURST
                && self.sent < end
                && self.sent - self.acked < window
                && self.hand_over()?
            {
                burst += 1;
            }
            if !self.log.poll() && burst == 0 {
                self.log.poll_for(Duration::from_millis(1));
            }
            self.collect(&mut latency)?;
        }
        self.show();
        Ok(Phase {
            records: self.acked - first,
            elapsed: began.elapsed(),
            latency,
        })
    }

    /// Whether the client took the next record; it does not while its own window is full.
    fn hand_over(&mut self) -> anyhow::Result<bool> {
        let record = self.corpus.record(self.sent);
        let at = Instant::now();
        match self.log.try_append(record) {
            Ok(_) => {}
            Err(Error::Busy | Error::NoServer | Error::NotReady { .. })
                if self.sent > self.acked =>
            {
                return Ok(false);
            }
            // The cluster is still starting, or it refuses: wait as long as the client does.
            Err(Error::Busy | Error::NoServer | Error::NotReady { .. }) => {
                self.log
                    .submit(record)
                    .with_context(|| format!("record {} was not appended", self.sent))?;
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("record {} was not appended", self.sent));
            }
        }
        self.under_way.push_back(at);
        self.sent += 1;
        Ok(true)
    }

    fn collect(&mut self, latency: &mut Histogram<u64>) -> anyhow::Result<()> {
        let now = Instant::now();
        for run in self.log.completions() {
            let Outcome::Ordered { first_gsn, .. } = run.outcome else {
                bail!("record {} was not appended: {:?}", self.acked, run.outcome);
            };
            ensure!(
                first_gsn.get() == self.acked,
                "record {} was acknowledged at position {first_gsn}: the order of the input was not kept",
                self.acked
            );
            for since in self.under_way.drain(..run.count as usize) {
                let ns = now.duration_since(since).as_nanos() as u64;
                latency.saturating_record(ns);
                self.recent.saturating_record(ns);
            }
            self.acked += u64::from(run.count);
        }
        if now.duration_since(self.shown) >= SHOW_EVERY {
            self.show();
        }
        Ok(())
    }

    fn show(&mut self) {
        self.shown = Instant::now();
        self.live.acked.store(self.acked, Ordering::Relaxed);
        if !self.recent.is_empty() {
            self.live
                .p50_ns
                .store(self.recent.value_at_quantile(0.5), Ordering::Relaxed);
            self.live
                .p99_ns
                .store(self.recent.value_at_quantile(0.99), Ordering::Relaxed);
            self.recent.reset();
        }
    }
}

/// Follows the log from its beginning until `corpus.len()` positions were delivered.
pub(crate) fn follow<L: Link>(
    log: &mut Log<L>,
    corpus: &Corpus,
    damage: Option<Damage>,
    live: &Live,
) -> anyhow::Result<Verdict> {
    let end = corpus.len();
    let mut judge = Judge::new(corpus, damage);
    let mut next = 0;
    let mut heard = Instant::now();
    let mut subscription = log.subscribe(Gsn::ZERO)?;
    while next < end {
        let got = subscription.visit(Some(Duration::from_millis(100)), |delivery| {
            match delivery {
                DeliveryRef::Record { gsn, payload, .. } => {
                    judge.record(gsn.get(), payload);
                    next = gsn.get() + 1;
                }
                DeliveryRef::Gap { from, to, kind } => {
                    judge.gap(from.get(), to.get(), &kind.to_string());
                    next = to.get();
                }
            }
            next < end
        });
        live.received.store(next, Ordering::Relaxed);
        if got > 0 {
            heard = Instant::now();
        } else if live.given_up.load(Ordering::Relaxed) || heard.elapsed() > PATIENCE {
            bail!(
                "the second client received {next} of {end} records, then nothing for {:.1} s",
                heard.elapsed().as_secs_f64()
            );
        }
    }
    Ok(judge.finish())
}

#[cfg(test)]
mod tests {
    use super::super::judge::StreamHash;
    use super::*;
    use ionian_client::testing::MemoryCluster;

    fn both(damage: Option<Damage>) -> anyhow::Result<Written> {
        let text: String = (0..10_000).map(|line| format!("{line}\n")).collect();
        let corpus = Corpus::of_text(text.into_bytes())?;
        let cluster = MemoryCluster::new(2, 2);
        let (mut writer, mut reader) = (cluster.open(1)?, cluster.open(2)?);
        let live = Live::default();
        let written = write(&mut writer, &corpus, &live)?;
        let verdict = follow(&mut reader, &corpus, damage, &live)?;
        assert_eq!(
            (live.acked.into_inner(), live.received.into_inner()),
            (10_000, 10_000)
        );
        verdict
            .holds(&corpus, &StreamHash::of(&corpus))
            .map(|()| written)
    }

    #[test]
    fn the_second_client_receives_what_was_appended() {
        let written = both(None).unwrap();
        assert_eq!(
            (written.single.records, written.pipelined.records),
            (5_000, 5_000)
        );
        assert_eq!(
            (
                written.single.latency.len(),
                written.pipelined.latency.len()
            ),
            (5_000, 5_000)
        );
    }

    #[test]
    fn every_damage_is_noticed() {
        for damage in [Damage::Drop, Damage::Dup, Damage::Swap] {
            let error = both(Some(damage)).unwrap_err().to_string();
            assert!(error.contains("position 5,000"), "{damage:?}: {error}");
        }
    }
}
