//! `ionian tail`: the records of a log in order, payloads only, as fast as they come.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use ionian_client::{DeliveryRef, GapKind, Gsn, Link, Log};

use crate::connect::{ConnectArgs, with_log};
use crate::exit::Exit;
use crate::output::{records_to, write_json_record};
use crate::signals::Stop;

/// How long a wait lasts before the signals are looked at.
const STEP: Duration = Duration::from_millis(50);

/// Print the records of a log in order
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Payloads only, one per line. Positions without a record are told on standard error, or as JSON lines.\n\
    Without --follow it ends at what was the end of the log when it began."
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
    let mut printed = 0;
    let mut next = from;
    let mut failed = Ok(());
    // Gaps may come in pieces; they are told as one.
    let mut gap: Option<Gap> = None;
    let mut subscription = log.subscribe(from)?;
    while printed < count && next < end && !stop.asked() {
        let got = subscription.visit(Some(STEP), |delivery| {
            match delivery {
                DeliveryRef::Record { gsn, .. } if gsn >= end => {
                    next = end;
                    return false;
                }
                DeliveryRef::Record {
                    gsn,
                    shard,
                    payload,
                    ..
                } => {
                    printed += 1;
                    next = gsn.next().unwrap_or(Gsn::MAX);
                    failed = write_gap(out, args, gap.take(), tell)
                        .and_then(|()| write_record(out, args, gsn, shard.get(), payload));
                }
                DeliveryRef::Gap { from, to, kind } => {
                    let to = to.min(end);
                    next = to;
                    match &mut gap {
                        Some(gap) if gap.to == from && gap.kind == kind => gap.to = to,
                        _ => {
                            failed = write_gap(out, args, gap.replace(Gap { from, to, kind }), tell)
                        }
                    }
                }
            }
            failed.is_ok() && printed < count && next < end
        });
        std::mem::replace(&mut failed, Ok(()))?;
        if got == 0 {
            write_gap(out, args, gap.take(), tell)?;
        }
        out.flush()?;
    }
    write_gap(out, args, gap.take(), tell)?;
    out.flush()?;
    Ok(())
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
