//! The two clients of the demonstration: one appends and hashes what it appends, the other follows and hashes what comes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use ionian_client::{DeliveryRef, Error, Gsn, Link, Log, Outcome};
use sha2::{Digest, Sha256};

use super::corpus::Corpus;

/// Records under way at a time.
const WINDOW: u64 = 4_096;
/// How long the follower waits for more before it gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Latencies up to this many nanoseconds are told apart.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// How the received stream is damaged, to see that the comparison notices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Damage {
    /// A record is left out.
    Drop,
    /// A record comes twice.
    Dup,
    /// Two records change places.
    Swap,
}

/// What was appended.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) hash: String,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
    pub(crate) window: u64,
    /// From handing a record over to its acknowledgement, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

/// What was received.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) hash: String,
    pub(crate) records: u64,
    pub(crate) gaps: u64,
}

/// A hash of records and of where each ends.
#[derive(Default)]
struct StreamHash {
    hash: Sha256,
    records: u64,
}

impl StreamHash {
    fn record(&mut self, payload: &[u8]) {
        self.hash.update((payload.len() as u32).to_le_bytes());
        self.hash.update(payload);
        self.records += 1;
    }

    fn finish(self) -> String {
        self.hash
            .finalize()
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// Appends the whole corpus. `watch` is told now and then how far it is.
pub(crate) fn write_all<L: Link>(
    log: &mut Log<L>,
    corpus: &Corpus,
    mut watch: impl FnMut(u64, &Histogram<u64>),
) -> anyhow::Result<Written> {
    let mut latency = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).context("a histogram")?;
    let mut hash = StreamHash::default();
    // When each record under way was handed over; outcomes come in the same order, as one server takes them all.
    let mut since: VecDeque<Instant> = VecDeque::with_capacity(WINDOW as usize);
    let (mut sent, mut acked, mut bytes) = (0, 0, 0);
    let began = Instant::now();
    while acked < corpus.len() {
        let mut burst = 0;
        while sent < corpus.len() && sent - acked < WINDOW && burst < 64 {
            let record = corpus.record(sent);
            match log.try_append(record) {
                Ok(_) => {}
                Err(Error::Busy | Error::NoServer | Error::NotReady { .. }) if sent > acked => {
                    break;
                }
                // The cluster is still starting.
                Err(Error::Busy | Error::NoServer | Error::NotReady { .. }) => {
                    log.submit(record).context("the first append")?;
                }
                Err(error) => return Err(error).context("an append"),
            }
            since.push_back(Instant::now());
            hash.record(record);
            bytes += record.len() as u64;
            sent += 1;
            burst += 1;
        }
        if !log.poll() {
            log.poll_for(Duration::from_millis(1));
        }
        for run in log.completions() {
            if let Outcome::Failed { failure, effect } = run.outcome {
                bail!("an append failed: {failure:?} ({effect})");
            }
            let now = Instant::now();
            for handed_over in since.drain(..run.count as usize) {
                latency.saturating_record(now.duration_since(handed_over).as_nanos() as u64);
            }
            acked += u64::from(run.count);
        }
        watch(acked, &latency);
    }
    let elapsed = began.elapsed();
    Ok(Written {
        records: hash.records,
        hash: hash.finish(),
        bytes,
        elapsed,
        window: WINDOW,
        latency,
    })
}

/// Follows the log from its beginning until `count` records came.
pub(crate) fn follow<L: Link>(
    log: &mut Log<L>,
    count: u64,
    damage: Option<Damage>,
    received: &AtomicU64,
) -> anyhow::Result<Received> {
    let mut hash = StreamHash::default();
    let mut gaps = 0;
    let mut seen = 0;
    let mut kept: Option<Vec<u8>> = None;
    let broken = count / 2;
    let mut next = Gsn::ZERO;
    let mut disorder = None;
    let mut last = Instant::now();
    let mut subscription = log.subscribe(Gsn::ZERO)?;
    while seen < count {
        let got = subscription.visit(Some(Duration::from_millis(100)), |delivery| {
            match delivery {
                DeliveryRef::Record { gsn, payload, .. } => {
                    if gsn != next {
                        disorder.get_or_insert((next, gsn));
                    }
                    next = gsn.next().unwrap_or(Gsn::MAX);
                    match damage {
                        Some(Damage::Drop) if seen == broken => {}
                        Some(Damage::Dup) if seen == broken => {
                            hash.record(payload);
                            hash.record(payload);
                        }
                        Some(Damage::Swap) if seen == broken => kept = Some(payload.to_vec()),
                        _ => hash.record(payload),
                    }
                    if seen > broken
                        && let Some(earlier) = kept.take()
                    {
                        hash.record(&earlier);
                    }
                    seen += 1;
                }
                DeliveryRef::Gap { to, .. } => {
                    gaps += 1;
                    next = to;
                }
            }
            seen < count
        });
        received.store(seen, Ordering::Relaxed);
        if got > 0 {
            last = Instant::now();
        } else if last.elapsed() > PATIENCE {
            bail!(
                "the follower received {seen} of {count} records, then nothing for {} s",
                PATIENCE.as_secs()
            );
        }
    }
    if let Some((expected, found)) = disorder {
        bail!("the follower expected position {expected} and received {found}");
    }
    Ok(Received {
        records: hash.records,
        hash: hash.finish(),
        gaps,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ionian_client::testing::MemoryCluster;

    fn both(damage: Option<Damage>) -> (Written, Received) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("in");
        let text: String = (0..10_000).map(|line| format!("{line}\n")).collect();
        std::fs::write(&file, text).unwrap();
        let corpus = Corpus::choose(Some(&file), None).unwrap();
        let cluster = MemoryCluster::new(2, 2);
        let (mut writer, mut reader) = (cluster.open(1).unwrap(), cluster.open(2).unwrap());
        let mut watched = 0;
        let written = write_all(&mut writer, &corpus, |records, _| watched = records).unwrap();
        assert_eq!(watched, 10_000);
        let received = follow(&mut reader, corpus.len(), damage, &AtomicU64::new(0)).unwrap();
        (written, received)
    }

    #[test]
    fn the_follower_receives_what_was_appended() {
        let (written, received) = both(None);
        assert_eq!(
            (written.records, received.records, received.gaps),
            (10_000, 10_000, 0)
        );
        assert_eq!(written.hash, received.hash);
        assert_eq!(written.latency.len(), 10_000);
    }

    #[test]
    fn every_damage_changes_the_hash() {
        for (damage, records) in [
            (Damage::Drop, 9_999),
            (Damage::Dup, 10_001),
            (Damage::Swap, 10_000),
        ] {
            let (written, received) = both(Some(damage));
            assert_eq!(received.records, records, "{damage:?}");
            assert_ne!(written.hash, received.hash, "{damage:?}");
        }
    }
}
