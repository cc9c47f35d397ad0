//! `ionian append`: records from standard input or files, in order, as fast as the log takes them.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ionian_client::{Choice, Completion, Error, Gsn, Link, Log, Outcome, Policy, ShardId, Ticket};
use ionian_types::Effect;
use ionian_wire::directory::ClusterMap;
use serde_json::json;

use crate::connect::{ConnectArgs, missing, with_log};
use crate::exit::Exit;
use crate::input::{Batch, Framing, Input, Next};
use crate::output::records_out;
use crate::progress::Progress;
use crate::signals::Stop;
use crate::table::{duration, number, per_second};

/// How long a wait for the cluster or the input lasts before the other is looked at.
const STEP: Duration = Duration::from_millis(20);
/// How long records under way may take after the end of the input was asked for.
const DRAIN: Duration = Duration::from_secs(15);

/// Without an acknowledgement for this long, the progress says who is missing.
const STALLED: Duration = Duration::from_secs(1);
/// How long a newer map is waited for to say who is missing.
const NEW_MAP: Duration = Duration::from_millis(500);

/// Append records from standard input or files
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Every line is a record; an empty line is an empty record.\n\
    The order of the input is kept, unless --spread gives it up for parallelism.\n\
    Exit code 0 says that every record is in the log; 1 says which one failed, and what that may have done."
)]
pub(crate) struct Args {
    /// Files to read, in order; - or none is standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Each record stands after its length, a little-endian 32-bit number, instead of on a line
    #[arg(long)]
    binary: bool,
    /// Print the position of each record, one per line, in the order of the input
    #[arg(long)]
    gsn: bool,
    /// Spread the records over all servers; their order is then any
    #[arg(long, conflicts_with = "shard")]
    spread: bool,
    /// Append to this shard
    #[arg(long, value_name = "ID")]
    shard: Option<u32>,
    /// Print a summary as JSON at the end
    #[arg(long, conflicts_with = "gsn")]
    json: bool,
    /// Write a summary as JSON to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What was appended.
#[derive(Debug, Default)]
struct Summary {
    records: u64,
    bytes: u64,
    first: Option<Gsn>,
    last: Option<Gsn>,
    elapsed: Duration,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    // A file that is not there is told before anything is appended.
    for file in args.files.iter().filter(|file| file.as_os_str() != "-") {
        std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    }
    let stop = Stop::listen()?;
    let framing = if args.binary {
        Framing::Lengths
    } else {
        Framing::Lines
    };
    let choice = args
        .shard
        .map_or(Choice::Policy, |shard| Choice::Shard(ShardId::new(shard)));
    let mut positions = args.gsn.then(records_out);
    let summary = with_log(&args.connect, |log| {
        if let Some(shard) = args.shard {
            known_shard(log.link().map(), &args.connect.log, shard)?;
        }
        let input = Input::open(&args.files, framing);
        if args.spread {
            log.set_shard_policy(Policy::Spread);
        }
        let mut progress = Progress::begin(args.quiet);
        append_all(
            log,
            &input,
            choice,
            positions.as_mut(),
            &mut progress,
            &stop,
            &mut |link| missing(link, &args.connect),
        )
    })?;
    let json = format!("{}\n", summary_json(&summary));
    if let Some(file) = &args.out {
        std::fs::write(file, &json).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if args.json {
        let mut out = std::io::stdout().lock();
        out.write_all(json.as_bytes())?;
    }
    Ok(Exit::Done)
}

/// A shard that the log does not have would be waited for in vain.
fn known_shard(map: &ClusterMap, log: &str, shard: u32) -> anyhow::Result<()> {
    let shards = map.log_by_name(log).map(|log| &log.shards[..]);
    let shards: Vec<u32> = shards
        .unwrap_or(&[])
        .iter()
        .map(|info| info.shard.get())
        .collect();
    if shards.is_empty() || shards.contains(&shard) {
        return Ok(());
    }
    let known: Vec<String> = shards.iter().map(u32::to_string).collect();
    bail!(
        "log {log} has no shard {shard}; it has {} (no effect)",
        known.join(", ")
    );
}

fn summary_json(summary: &Summary) -> serde_json::Value {
    json!({
        "records": summary.records, "bytes": summary.bytes,
        "first_gsn": summary.first.map(Gsn::get), "last_gsn": summary.last.map(Gsn::get),
        "seconds": summary.elapsed.as_secs_f64(),
        "records_per_second": per_second(summary.records, summary.elapsed),
    })
}

/// Appends everything from `input`. Fails with the first record that failed, after everything under way has its outcome, and
/// says who is missing as far as `missing` knows.
fn append_all<L: Link, W: Write>(
    log: &mut Log<L>,
    input: &Input,
    choice: Choice,
    positions: Option<&mut BufWriter<W>>,
    progress: &mut Progress,
    stop: &Stop,
    missing: &mut dyn FnMut(&mut L) -> Option<String>,
) -> anyhow::Result<Summary> {
    let mut acks = Acks {
        positions,
        ..Acks::new()
    };
    let mut bytes = 0;
    let mut batch = Batch::default();
    let mut at = 0;
    let mut ended: anyhow::Result<()> = Ok(());
    let mut grew = (0, Instant::now());
    while acks.failed.is_none() {
        if stop.asked() {
            ended = Err(anyhow::anyhow!(
                "interrupted after record {}",
                number(acks.submitted)
            ));
            break;
        }
        if let Some(record) = batch.get(at) {
            match log.try_append_to(record, choice) {
                Ok(ticket) => {
                    acks.submitted(ticket);
                    bytes += record.len() as u64;
                    at += 1;
                    if !at.is_multiple_of(64) {
                        continue;
                    }
                }
                Err(Error::Busy | Error::NoServer | Error::NotReady { .. })
                    if log.outstanding() > 0 =>
                {
                    log.poll_for(STEP);
                }
                // Nothing is under way: wait as long as the client does for an append, then say what is wrong.
                Err(Error::Busy | Error::NoServer | Error::NotReady { .. }) => {
                    let ticket = log.submit_to(record, choice).with_context(|| {
                        format!("record {} was not appended", acks.submitted + 1)
                    })?;
                    acks.submitted(ticket);
                    bytes += record.len() as u64;
                    at += 1;
                }
                Err(error) => {
                    ended = Err(error)
                        .with_context(|| format!("record {} was not appended", acks.submitted + 1));
                    break;
                }
            }
        } else {
            let next = if log.outstanding() == 0 {
                input.next(STEP)
            } else {
                input.try_next()
            };
            match next {
                Ok(Next::Batch(next)) => (batch, at) = (next, 0),
                Ok(Next::Waiting) if log.outstanding() > 0 => {
                    log.poll_for(Duration::from_millis(1));
                }
                Ok(Next::Waiting) => {}
                Ok(Next::End) => break,
                Err(error) => {
                    ended = Err(error.into());
                    break;
                }
            }
        }
        log.poll();
        acks.collect(log)?;
        if acks.acked != grew.0 {
            grew = (acks.acked, Instant::now());
        }
        progress.records(acks.acked, || {
            let stalled = log.outstanding() > 0 && grew.1.elapsed() > STALLED;
            let why = stalled.then(|| missing(log.link())).flatten();
            let why = why.map_or(String::new(), |why| format!(", {why}"));
            format!("  {} under way{why}", number(log.outstanding()))
        });
    }
    finish(log, &mut acks)?;
    let who = if acks.failed.is_some() || ended.is_err() && !stop.asked() {
        who_is_missing(log, missing)
    } else {
        String::new()
    };
    let summary = Summary {
        records: acks.acked,
        bytes,
        first: acks.first,
        last: acks.last,
        elapsed: progress.elapsed(),
    };
    progress.end(|| {
        let rate = number(per_second(summary.records, summary.elapsed));
        format!(
            "{} records in {}, {rate} records/s",
            number(summary.records),
            duration(summary.elapsed)
        )
    });
    if let Some((record, why)) = acks.failed {
        bail!(
            "record {record} was not appended: {why}; {} records were{who}",
            number(acks.acked)
        );
    }
    ended.with_context(|| format!("{} records were appended{who}", number(summary.records)))?;
    Ok(summary)
}

/// Who is missing, in words to follow others. What the client knows may be old: a newer map is waited for.
fn who_is_missing<L: Link>(
    log: &mut Log<L>,
    missing: &mut dyn FnMut(&mut L) -> Option<String>,
) -> String {
    let began = Instant::now();
    loop {
        if let Some(who) = missing(log.link()) {
            return format!("; {who}");
        }
        if began.elapsed() > NEW_MAP {
            return String::new();
        }
        log.poll_for(STEP);
    }
}

/// Waits for the outcome of everything under way.
fn finish<L: Link, W: Write>(log: &mut Log<L>, acks: &mut Acks<'_, W>) -> anyhow::Result<()> {
    let began = Instant::now();
    while log.outstanding() > 0 && began.elapsed() < DRAIN {
        log.poll_for(STEP);
        acks.collect(log)?;
    }
    if log.outstanding() > 0 && acks.failed.is_none() {
        let why = format!(
            "{} records have no outcome; they may be in the log ({})",
            log.outstanding(),
            Effect::Unknown
        );
        acks.failed = Some((acks.acked + 1, why));
    }
    if let Some(out) = &mut acks.positions {
        out.flush()?;
    }
    Ok(())
}

/// Outcomes, put back into the order of the input.
struct Acks<'a, W: Write> {
    positions: Option<&'a mut BufWriter<W>>,
    submitted: u64,
    acked: u64,
    first: Option<Gsn>,
    last: Option<Gsn>,
    /// The first record of the input that failed, from 1, and why.
    failed: Option<(u64, String)>,
    /// Per lane, the records under way, oldest first, by their place in the input.
    lanes: BTreeMap<u32, VecDeque<u64>>,
    /// Positions of records from `printed` on that are known before one earlier in the input.
    waiting: VecDeque<Option<Gsn>>,
    printed: u64,
}

impl<W: Write> Acks<'_, W> {
    const fn new() -> Self {
        Self {
            positions: None,
            submitted: 0,
            acked: 0,
            first: None,
            last: None,
            failed: None,
            lanes: BTreeMap::new(),
            waiting: VecDeque::new(),
            printed: 0,
        }
    }

    fn submitted(&mut self, ticket: Ticket) {
        self.lanes
            .entry(ticket.lane)
            .or_default()
            .push_back(self.submitted);
        self.submitted += 1;
    }

    fn collect<L: Link>(&mut self, log: &mut Log<L>) -> anyhow::Result<()> {
        for run in log.completions() {
            self.completed(&run);
        }
        self.print()
    }

    /// The outcomes of one lane come in the order of its tickets.
    fn completed(&mut self, run: &Completion) {
        let lane = self.lanes.entry(run.first.lane).or_default();
        for offset in 0..u64::from(run.count) {
            let Some(record) = lane.pop_front() else {
                return;
            };
            match &run.outcome {
                Outcome::Ordered { first_gsn, .. } => {
                    let gsn = first_gsn.checked_add(offset).unwrap_or(Gsn::MAX);
                    self.acked += 1;
                    self.first = Some(self.first.map_or(gsn, |first| first.min(gsn)));
                    self.last = self.last.max(Some(gsn));
                    if self.positions.is_some() {
                        let at = (record - self.printed) as usize;
                        self.waiting.resize(self.waiting.len().max(at + 1), None);
                        self.waiting[at] = Some(gsn);
                    }
                }
                Outcome::Failed { failure, effect } => {
                    let sooner = self
                        .failed
                        .as_ref()
                        .is_none_or(|(failed, _)| record + 1 < *failed);
                    if sooner {
                        let why = Error::of_failure(*failure, *effect);
                        self.failed = Some((record + 1, why.to_string()));
                    }
                }
            }
        }
    }

    fn print(&mut self) -> anyhow::Result<()> {
        let Some(out) = &mut self.positions else {
            return Ok(());
        };
        let mut any = false;
        while let Some(Some(gsn)) = self.waiting.front() {
            writeln!(out, "{gsn}")?;
            self.waiting.pop_front();
            self.printed += 1;
            any = true;
        }
        if any && self.waiting.is_empty() {
            out.flush()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ionian_client::ReadOutcome;
    use ionian_client::testing::{MemoryCluster, MemoryLink};

    fn input(text: &str) -> (tempfile::TempDir, Input) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("in");
        std::fs::write(&file, text).unwrap();
        let input = Input::open(&[file], Framing::Lines);
        (folder, input)
    }

    fn append(
        log: &mut Log<MemoryLink>,
        text: &str,
        stop: &Stop,
    ) -> (anyhow::Result<Summary>, String) {
        let (_folder, input) = input(text);
        let mut out = BufWriter::new(Vec::new());
        let mut progress = Progress::begin(true);
        let result = append_all(
            log,
            &input,
            Choice::Policy,
            Some(&mut out),
            &mut progress,
            stop,
            &mut |_| None,
        );
        (
            result,
            String::from_utf8(out.into_inner().unwrap()).unwrap(),
        )
    }

    #[test]
    fn every_line_is_appended_in_order() {
        let cluster = MemoryCluster::new(2, 2);
        let mut log = cluster.open(1).unwrap();
        let text: String = (0..50_000).map(|line| format!("line {line}\n")).collect();
        let (summary, positions) = append(&mut log, &text, &Stop::default());
        let summary = summary.unwrap();
        assert_eq!(
            (summary.records, summary.first, summary.last),
            (50_000, Some(Gsn::ZERO), Some(Gsn::new(49_999)))
        );
        let expected: String = (0..50_000).map(|gsn| format!("{gsn}\n")).collect();
        assert!(
            positions == expected,
            "a sticky writer's positions are the input's order"
        );
        assert_eq!(
            log.read(Gsn::new(777)).unwrap(),
            ReadOutcome::Record(b"line 777".to_vec())
        );
    }

    #[test]
    fn positions_are_printed_in_the_order_of_the_input_when_spread() {
        let cluster = MemoryCluster::new(4, 2);
        let mut log = cluster.open(1).unwrap();
        log.set_shard_policy(Policy::Spread);
        let text: String = (0..5_000).map(|line| format!("{line}\n")).collect();
        let (summary, positions) = append(&mut log, &text, &Stop::default());
        assert_eq!(summary.unwrap().records, 5_000);
        let positions: Vec<u64> = positions
            .lines()
            .map(|line| line.parse().unwrap())
            .collect();
        assert_eq!(positions.len(), 5_000);
        for record in [0, 17, 4_999] {
            let read = log.read(Gsn::new(positions[record])).unwrap();
            assert_eq!(read, ReadOutcome::Record(record.to_string().into_bytes()));
        }
    }

    #[test]
    fn an_oversize_line_is_named_and_the_ones_before_are_in_the_log() {
        let cluster = MemoryCluster::new(1, 2);
        let mut log = cluster.open(1).unwrap();
        let text = format!("a\nb\n{}\nc\n", "x".repeat((1 << 20) + 1));
        let (result, positions) = append(&mut log, &text, &Stop::default());
        let error = format!("{:#}", result.unwrap_err());
        assert!(
            error.starts_with("2 records were appended: ")
                && error.contains(": line 3 has more than"),
            "{error}"
        );
        assert_eq!(positions, "0\n1\n");
        assert_eq!(log.tail().unwrap(), Gsn::new(2));
    }

    #[test]
    fn an_interrupted_append_says_how_far_it_came() {
        let cluster = MemoryCluster::new(1, 2);
        let mut log = cluster.open(1).unwrap();
        let stop = Stop::default();
        stop.ask();
        let (result, _) = append(&mut log, "a\n", &stop);
        let error = format!("{:#}", result.unwrap_err());
        assert_eq!(error, "0 records were appended: interrupted after record 0");
    }

    #[test]
    fn a_refused_append_names_what_is_missing() {
        let cluster = MemoryCluster::new(1, 2);
        let mut config = MemoryCluster::config(1);
        config.append_timeout = Some(ionian_types::Nanos::from_ms(50));
        let mut log = Log::open(cluster.link(), config).unwrap();
        cluster.refuse_appends(Some(2));
        let (result, _) = append(&mut log, "a\nb\n", &Stop::default());
        let error = format!("{:#}", result.unwrap_err());
        assert!(
            error.starts_with("record 1 was not appended: ") && error.contains("node 2 is missing"),
            "{error}"
        );
    }
}
