//! Measuring appends over any link: pipelined, one at a time, and reading back what was acknowledged.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use ionian_client::{DeliveryRef, Error, Gsn, Link, Log, Outcome, Policy};
use ionian_wire::crc::crc32c;

/// Latencies up to this many nanoseconds are told apart.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Records handed over between two polls.
const BURST: usize = 64;
/// How long the check waits for more records before it gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    /// Bytes of a payload; at least 8, which number it.
    pub(crate) record_bytes: usize,
    /// Records under way at a time.
    pub(crate) window: u64,
    /// How long to append before the figures count.
    pub(crate) warm_up: Duration,
    /// How long each measurement lasts.
    pub(crate) span: Duration,
    /// Append to all servers.
    pub(crate) spread: bool,
}

/// Figures of one measurement.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) records: u64,
    pub(crate) elapsed: Duration,
    /// From handing a record over to its acknowledgement, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// Processor time of this process, all threads.
    pub(crate) cpu: Duration,
}

/// What was read back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Check {
    /// Records compared.
    pub(crate) records: u64,
    /// Records that are not what was acknowledged at their position.
    pub(crate) wrong: u64,
}

/// Appends, and remembers where each record went.
#[derive(Debug)]
pub(crate) struct Bench<'a, L: Link> {
    log: &'a mut Log<L>,
    plan: Plan,
    payload: Vec<u8>,
    next: u64,
    /// Per lane, records under way: number and when they were handed over.
    lanes: BTreeMap<u32, VecDeque<(u64, Instant)>>,
    /// Acknowledged runs: position, first number, count. Kept while runs of one lane follow each other.
    acked: BTreeMap<u64, (u64, u64)>,
    last_run: Option<u64>,
}

impl<'a, L: Link> Bench<'a, L> {
    pub(crate) fn new(log: &'a mut Log<L>, plan: Plan) -> Self {
        if plan.spread {
            log.set_shard_policy(Policy::Spread);
        }
        Self {
            log,
            plan,
            payload: (0..plan.record_bytes).map(|byte| byte as u8).collect(),
            next: 0,
            lanes: BTreeMap::new(),
            acked: BTreeMap::new(),
            last_run: None,
        }
    }

    /// Appends with a full window.
    pub(crate) fn pipelined(&mut self) -> anyhow::Result<Figures> {
        self.append_for(self.plan.warm_up, self.plan.window)?;
        self.append_for(self.plan.span, self.plan.window)
    }

    /// Appends one record at a time.
    pub(crate) fn closed_loop(&mut self) -> anyhow::Result<Figures> {
        self.append_for(self.plan.warm_up, 1)?;
        self.append_for(self.plan.span, 1)
    }

    fn append_for(&mut self, span: Duration, window: u64) -> anyhow::Result<Figures> {
        let mut latency =
            Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).context("a histogram")?;
        let cpu = cpu_time();
        let began = Instant::now();
        let (mut sent, mut done) = (0, 0);
        while began.elapsed() < span {
            for _ in 0..BURST {
                if sent - done >= window || !self.hand_over()? {
                    break;
                }
                sent += 1;
            }
            self.log.poll();
            done += self.collect(&mut latency)?;
        }
        let records = done;
        let elapsed = began.elapsed();
        let cpu = cpu_time().saturating_sub(cpu);
        while done < sent {
            self.log.poll_for(Duration::from_millis(1));
            done += self.collect(&mut latency)?;
        }
        Ok(Figures {
            records,
            elapsed,
            latency,
            cpu,
        })
    }

    /// Whether the client took the record; it does not while its own window is full.
    fn hand_over(&mut self) -> anyhow::Result<bool> {
        self.payload[..8].copy_from_slice(&self.next.to_le_bytes());
        let ticket = match self.log.try_append(&self.payload) {
            Ok(ticket) => ticket,
            Err(Error::Busy) => return Ok(false),
            // The cluster is still starting.
            Err(Error::NoServer | Error::NotReady { .. }) => {
                self.log.submit(&self.payload).context("the first append")?
            }
            Err(error) => return Err(error).context("an append"),
        };
        self.lanes
            .entry(ticket.lane)
            .or_default()
            .push_back((self.next, Instant::now()));
        self.next += 1;
        Ok(true)
    }

    fn collect(&mut self, latency: &mut Histogram<u64>) -> anyhow::Result<u64> {
        let Self {
            log,
            lanes,
            acked,
            last_run,
            ..
        } = self;
        let mut done = 0;
        for run in log.completions() {
            let Outcome::Ordered { first_gsn, .. } = run.outcome else {
                bail!("an append failed: {:?}", run.outcome);
            };
            let now = Instant::now();
            let lane = lanes.entry(run.first.lane).or_default();
            for offset in 0..u64::from(run.count) {
                let Some((number, since)) = lane.pop_front() else {
                    bail!("an outcome without an append")
                };
                latency.saturating_record(now.duration_since(since).as_nanos() as u64);
                let gsn = first_gsn.get() + offset;
                let follows =
                    last_run.and_then(|start| acked.get_mut(&start).map(|run| (start, run)));
                match follows {
                    Some((start, (first, count)))
                        if start + *count == gsn && *first + *count == number =>
                    {
                        *count += 1
                    }
                    _ => {
                        acked.insert(gsn, (number, 1));
                        *last_run = Some(gsn);
                    }
                }
                done += 1;
            }
        }
        Ok(done)
    }

    /// Reads everything back that was acknowledged, in order, and compares.
    pub(crate) fn check(&mut self) -> anyhow::Result<Check> {
        let mut check = Check::default();
        let (Some((&first, _)), Some((&last, &(_, count)))) =
            (self.acked.first_key_value(), self.acked.last_key_value())
        else {
            return Ok(check);
        };
        let end = last + count;
        let expected: u64 = self.acked.values().map(|(_, count)| count).sum();
        let Self {
            log,
            acked,
            payload,
            ..
        } = self;
        let tail = payload.get(8..).unwrap_or(&[]);
        let mut next = first;
        let mut heard = Instant::now();
        let mut subscription = log.subscribe(Gsn::new(first))?;
        while next < end {
            let got = subscription.visit(Some(Duration::from_millis(100)), |delivery| {
                match delivery {
                    DeliveryRef::Record { gsn, payload, .. } => {
                        next = gsn.get() + 1;
                        // Records of others may lie between.
                        if let Some(number) = number_at(acked, gsn.get()) {
                            let same = payload.get(..8) == Some(&number.to_le_bytes())
                                && payload.get(8..) == Some(tail);
                            check.records += 1;
                            check.wrong += u64::from(!same);
                        }
                    }
                    DeliveryRef::Gap { to, .. } => next = to.get(),
                }
                next < end
            });
            if got > 0 {
                heard = Instant::now();
            } else if heard.elapsed() > PATIENCE {
                bail!("reading back stopped at position {next} of {end}");
            }
        }
        check.wrong += expected - check.records;
        Ok(check)
    }
}

/// The number of the record acknowledged at a position.
fn number_at(acked: &BTreeMap<u64, (u64, u64)>, gsn: u64) -> Option<u64> {
    let (start, (first, count)) = acked.range(..=gsn).next_back()?;
    let offset = gsn - start;
    (offset < *count).then(|| first + offset)
}

/// Records per second that one thread copies twice and checksums twice, in buffers larger than the caches: what the
/// memory alone allows.
pub(crate) fn bare(record_bytes: usize, span: Duration) -> f64 {
    const BUFFER: usize = 64 << 20;
    let record = vec![7u8; record_bytes];
    let mut copies = [vec![0u8; BUFFER], vec![0u8; BUFFER]];
    let slots = BUFFER / record_bytes.max(1);
    let (mut count, mut sum) = (0u64, 0u32);
    let began = Instant::now();
    while began.elapsed() < span {
        for _ in 0..256 {
            let at = (count as usize % slots) * record_bytes;
            for copy in &mut copies {
                let place = &mut copy[at..at + record_bytes];
                place.copy_from_slice(&record);
                sum ^= crc32c(place);
            }
            count += 1;
        }
    }
    std::hint::black_box(sum);
    count as f64 / began.elapsed().as_secs_f64()
}

/// Processor time of this process so far; the kernel counts it in hundredths of a second.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The command's name is in parentheses and may hold anything; the fields are counted after it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ionian_client::testing::MemoryCluster;

    const PLAN: Plan = Plan {
        record_bytes: 32,
        window: 256,
        warm_up: Duration::from_millis(5),
        span: Duration::from_millis(50),
        spread: false,
    };

    #[test]
    fn figures_count_what_was_acknowledged_and_read_back() {
        for spread in [false, true] {
            let cluster = MemoryCluster::new(2, 2);
            let mut log = cluster.open(1).unwrap();
            log.append(b"of somebody else").unwrap();
            let mut bench = Bench::new(&mut log, Plan { spread, ..PLAN });
            let pipelined = bench.pipelined().unwrap();
            let closed = bench.closed_loop().unwrap();
            assert!(pipelined.records > 0 && pipelined.latency.len() >= pipelined.records);
            assert!(closed.records > 0 && closed.elapsed >= PLAN.span);
            let check = bench.check().unwrap();
            assert_eq!(
                (check.records, check.wrong),
                (bench.next, 0),
                "spread {spread}"
            );
            // A record that is not what was acknowledged is found.
            let (&gsn, &(number, count)) = bench.acked.first_key_value().unwrap();
            bench.acked.insert(gsn, (number + 1, count));
            assert_eq!(bench.check().unwrap().wrong, count);
        }
    }

    #[test]
    fn positions_lead_back_to_numbers() {
        let acked = BTreeMap::from([(5, (0, 3)), (10, (3, 1))]);
        let numbers: Vec<Option<u64>> = (4..12).map(|gsn| number_at(&acked, gsn)).collect();
        assert_eq!(
            numbers,
            [None, Some(0), Some(1), Some(2), None, None, Some(3), None]
        );
    }

    #[test]
    fn the_bare_rate_is_a_rate() {
        assert!(bare(128, Duration::from_millis(20)) > 1_000.0);
    }
}
