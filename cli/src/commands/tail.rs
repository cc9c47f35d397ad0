//! `ionian tail`: the records of a log in order, payloads only, as fast as they come.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};
use ionian_client::{DeliveryRef, Effect, Error, GapKind, Gsn, Link, Log};
use ionian_wire::grant::Rights;

use crate::connect::{ConnectArgs, with_log};
use crate::exit::Exit;
use crate::output::{records_to, write_json_record};
use crate::signals::Stop;

/// How long a wait lasts before the signals are looked at.
const STEP: Duration = Duration::from_millis(50);
/// How long a final read waits for more before it gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Print the records of a log in order
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Payloads only, one per line. Positions without a record are told on standard error, or as JSON lines.\n\
    Without --follow it ends at what was the end of the log when it began. Several commands may keep histories of one log at the\n\
    same time; `histcheck FILE...` takes all of them, and needs one final read for a verdict."
)]
pub(crate) struct Args {
    /// The first position; without it, the first one that is not trimmed
    #[arg(long, value_name = "GSN")]
    from: Option<u64>,
    /// Stop after this many records
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Wait for new records at the end of the log
    #[arg(long, short)]
    follow: bool,
    /// Everything is over: what the history does not show now is lost. From the first position to the end, for --history
    #[arg(long = "final", requires = "history", conflicts_with_all = ["from", "count", "follow"])]
    last: bool,
    /// Print JSON lines: {"gsn":..,"shard":..,"payload":..}, "payload_hex" when it is not text, or {"gap":..,"from":..,"to":..}
    #[arg(long)]
    json: bool,
    /// Print each record after its length, a little-endian 32-bit number, instead of on a line
    #[arg(long, conflicts_with = "json")]
    binary: bool,
    /// Write to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let stop = Stop::listen()?;
    let mut out = records_to(args.out.as_deref())?;
    let mut tell = |sentence: &str| eprintln!("ionian: {sentence}");
    with_log(&args.connect, |log| {
        print(log, args, &mut out, &mut tell, &stop)
    })?;
    Ok(Exit::Done)
}

fn print<L: Link>(
    log: &mut Log<L>,
    args: &Args,
    out: &mut impl Write,
    tell: &mut impl FnMut(&str),
    stop: &Stop,
) -> anyhow::Result<()> {
    if args.last {
        return print_final(log, args, out, tell, stop);
    }
    let from = match args.from {
        Some(from) => Gsn::new(from),
        None => log.head()?,
    };
    let end = if args.follow { Gsn::MAX } else { log.tail()? };
    if !args.follow && from > end {
        bail!(
            "position {from} is beyond the tail: the log ends at {end}; use --follow to wait for it"
        );
    }
    let count = args.count.unwrap_or(u64::MAX);
    let mut next = from;
    let mut printer = Printer::new(args, out, tell);
    let mut subscription = log.subscribe(from)?;
    while printer.printed < count && next < end && !stop.asked() {
        let got = subscription.visit(Some(STEP), |delivery| {
            next = printer.print(&delivery, end);
            printer.failed.is_ok() && printer.printed < count && next < end
        });
        printer.pause(got == 0)?;
        // Nothing comes any more to a user whose right was taken.
        if got == 0 && !subscription.log().link().rights().holds(Rights::READ) {
            let (right, effect) = (Rights::READ, Effect::None);
            return Err(Error::NoRight { right, effect }.into());
        }
    }
    Ok(printer.pause(true)?)
}

/// The whole log, as the final read of the history.
fn print_final<L: Link>(
    log: &mut Log<L>,
    args: &Args,
    out: &mut impl Write,
    tell: &mut impl FnMut(&str),
    stop: &Stop,
) -> anyhow::Result<()> {
    let mut printer = Printer::new(args, out, tell);
    let read = log.final_read(PATIENCE, |delivery| {
        printer.print(&delivery, Gsn::MAX);
        printer.failed.is_ok() && !stop.asked()
    })?;
    printer.pause(true)?;
    ensure!(
        read.next >= read.tail,
        "interrupted at position {} of {}: the final read is not complete",
        read.next,
        read.tail
    );
    Ok(())
}

/// Prints deliveries as they come.
struct Printer<'a, W, T> {
    args: &'a Args,
    out: &'a mut W,
    tell: &'a mut T,
    /// Records.
    printed: u64,
    /// Gaps may come in pieces; they are told as one.
    gap: Option<Gap>,
    failed: std::io::Result<()>,
}

impl<'a, W: Write, T: FnMut(&str)> Printer<'a, W, T> {
    fn new(args: &'a Args, out: &'a mut W, tell: &'a mut T) -> Self {
        Self {
            args,
            out,
            tell,
            printed: 0,
            gap: None,
            failed: Ok(()),
        }
    }

    /// Prints what lies before `end`, and returns the next position.
    fn print(&mut self, delivery: &DeliveryRef<'_>, end: Gsn) -> Gsn {
        match *delivery {
            DeliveryRef::Record { gsn, .. } if gsn >= end => end,
            DeliveryRef::Record {
                gsn,
                shard,
                payload,
                ..
            } => {
                self.printed += 1;
                let gap = self.gap.take();
                self.failed = write_gap(self.out, self.args, gap, self.tell)
                    .and_then(|()| write_record(self.out, self.args, gsn, shard.get(), payload));
                gsn.next().unwrap_or(Gsn::MAX)
            }
            DeliveryRef::Gap { from, to, kind } => {
                let to = to.min(end);
                match &mut self.gap {
                    Some(gap) if gap.to == from && gap.kind == kind => gap.to = to,
                    _ => {
                        let gap = self.gap.replace(Gap { from, to, kind });
                        self.failed = write_gap(self.out, self.args, gap, self.tell);
                    }
                }
                to
            }
        }
    }

    /// Nothing more comes for now; and if `idle`, for some time.
    fn pause(&mut self, idle: bool) -> std::io::Result<()> {
        std::mem::replace(&mut self.failed, Ok(()))?;
        if idle {
            write_gap(self.out, self.args, self.gap.take(), self.tell)?;
        }
        self.out.flush()
    }
}

/// Positions without a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Gap {
    from: Gsn,
    to: Gsn,
    kind: GapKind,
}

fn write_record(
    out: &mut impl Write,
    args: &Args,
    gsn: Gsn,
    shard: u32,
    payload: &[u8],
) -> std::io::Result<()> {
    if args.json {
        return write_json_record(out, gsn.get(), Some(shard), payload);
    }
    if args.binary {
        out.write_all(&(payload.len() as u32).to_le_bytes())?;
        return out.write_all(payload);
    }
    out.write_all(payload)?;
    out.write_all(b"\n")
}

fn write_gap(
    out: &mut impl Write,
    args: &Args,
    gap: Option<Gap>,
    tell: &mut impl FnMut(&str),
) -> std::io::Result<()> {
    let Some(Gap { from, to, kind }) = gap else {
        return Ok(());
    };
    if args.json {
        return writeln!(out, "{{\"gap\":\"{kind}\",\"from\":{from},\"to\":{to}}}");
    }
    let why = match kind {
        GapKind::Trim => "are trimmed",
        GapKind::Loss => "are lost with every copy",
        _ => "hold no record",
    };
    match to.checked_since(from) {
        Some(1) => tell(&format!(
            "position {from} {} (gap of kind {kind})",
            why.replace("are ", "is ").replace("hold ", "holds ")
        )),
        _ => tell(&format!(
            "positions {from} to {} {why} (gap of kind {kind})",
            to.get().saturating_sub(1)
        )),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use ionian_client::testing::{MemoryCluster, MemoryLink};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn cluster(records: u64) -> (MemoryCluster, Log<MemoryLink>) {
        let cluster = MemoryCluster::new(2, 2);
        let mut log = cluster.open(1).unwrap();
        for record in 0..records {
            log.append(format!("r{record}").as_bytes()).unwrap();
        }
        (cluster, log)
    }

    fn tail(log: &mut Log<MemoryLink>, line: &[&str]) -> (anyhow::Result<()>, Vec<u8>, String) {
        let args = Line::parse_from([&["tail"], line].concat()).args;
        let (mut out, mut told) = (Vec::new(), String::new());
        let result = print(
            log,
            &args,
            &mut out,
            &mut |sentence: &str| told.push_str(sentence),
            &Stop::default(),
        );
        (result, out, told)
    }

    fn text(log: &mut Log<MemoryLink>, line: &[&str]) -> String {
        let (result, out, told) = tail(log, line);
        result.unwrap();
        assert_eq!(told, "");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn payloads_one_per_line_up_to_the_end() {
        let (_cluster, mut log) = cluster(4);
        assert_eq!(text(&mut log, &[]), "r0\nr1\nr2\nr3\n");
        assert_eq!(text(&mut log, &["--from", "2"]), "r2\nr3\n");
        assert_eq!(text(&mut log, &["--from", "4"]), "");
        assert_eq!(text(&mut log, &["--count", "2"]), "r0\nr1\n");
        assert_eq!(text(&mut log, &["--count", "0"]), "");
        assert_eq!(
            text(&mut log, &["--follow", "--count", "3"]),
            "r0\nr1\nr2\n"
        );
        assert_eq!(
            text(&mut log, &["--from", "3", "--binary"]),
            "\u{2}\0\0\0r3"
        );
        let json = text(&mut log, &["--from", "3", "--json"]);
        let line: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&line["gsn"], &line["payload"]), (&3.into(), &"r3".into()));
    }

    #[test]
    fn a_position_beyond_the_tail_is_an_answer() {
        let (_cluster, mut log) = cluster(1);
        let error = tail(&mut log, &["--from", "9"]).0.unwrap_err().to_string();
        assert_eq!(
            error,
            "position 9 is beyond the tail: the log ends at 1; use --follow to wait for it"
        );
    }

    #[test]
    fn gaps_are_told_and_never_hidden() {
        let (cluster, mut log) = cluster(3);
        cluster.declare_gap(5, GapKind::Loss);
        log.append(b"after").unwrap();
        log.trim(Gsn::new(2)).unwrap();
        let (result, out, told) = tail(&mut log, &["--from", "0"]);
        result.unwrap();
        assert_eq!(out, b"r2\nafter\n");
        assert!(told.contains("positions 0 to 1 are trimmed"), "{told}");
        assert!(told.contains("positions 3 to 7 are lost"), "{told}");
        let (_, out, told) = tail(&mut log, &["--json"]);
        let out = String::from_utf8(out).unwrap();
        assert!(
            out.contains("{\"gap\":\"loss\",\"from\":3,\"to\":8}\n") && told.is_empty(),
            "{out}"
        );
    }

    #[test]
    fn a_final_read_prints_everything() {
        let (cluster, mut log) = cluster(3);
        cluster.declare_gap(2, GapKind::Loss);
        log.append(b"after").unwrap();
        log.trim(Gsn::new(1)).unwrap();
        let line = ["--final", "--history", "unused", "--json"];
        let (result, out, _) = tail(&mut log, &line);
        result.unwrap();
        let out = String::from_utf8(out).unwrap();
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines.len(), 4, "{out}");
        assert_eq!(lines[2], "{\"gap\":\"loss\",\"from\":3,\"to\":5}");
        for bad in [
            &["--final"][..],
            &["--final", "--history", "x", "--follow"],
            &["--final", "--history", "x", "--from", "1"],
        ] {
            assert!(Line::try_parse_from([&["tail"], bad].concat()).is_err());
        }
    }

    #[test]
    fn a_closed_pipe_ends_it() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (_cluster, mut log) = cluster(3);
        let args = Line::parse_from(["tail", "--follow"]).args;
        let error = print(
            &mut log,
            &args,
            &mut Closed,
            &mut |_: &str| {},
            &Stop::default(),
        )
        .unwrap_err();
        assert!(error.is::<std::io::Error>());
    }

    #[test]
    fn a_signal_ends_it() {
        let (_cluster, mut log) = cluster(3);
        let stop = Stop::default();
        stop.ask();
        let args = Line::parse_from(["tail", "--follow"]).args;
        print(&mut log, &args, &mut Vec::new(), &mut |_: &str| {}, &stop).unwrap();
    }
}
