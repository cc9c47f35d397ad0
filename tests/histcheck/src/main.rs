//! `histcheck`: judges histories. The exit code is the verdict: 0 pass, 1 fail, 2 unknown, 3 harness-error.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::process::ExitCode;

use ionian_histcheck::{Floor, Judge, Report, Verdict, attach_lines, bench, read_lines, selftest};

const USAGE: &str = "\
histcheck FILE... [--json] [--floor NAME=N]... [--live-seconds S]
    judges the files, which together are one history (hist/1); `-` is standard input
histcheck selftest [--histories N] [--seed S]
    shows that valid histories pass, and that every mutator is caught by its own invariant
histcheck bench [--events N]
    measures events per second on one core

The exit code is the verdict: 0 pass, 1 fail, 2 unknown, 3 harness-error.";

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            eprintln!("histcheck: {why}");
            ExitCode::from(Verdict::HarnessError.exit_code())
        }
    }
}

fn run(arguments: Vec<String>) -> Result<u8, String> {
    let mut arguments = arguments.into_iter().peekable();
    match arguments.peek().map(String::as_str) {
        None => Err(format!("no history was named\n{USAGE}")),
        Some("--help" | "-h" | "help") => {
            println!("{USAGE}");
            Ok(0)
        }
        Some("selftest") => {
            let mut options = selftest::Options::default();
            numbers(arguments.skip(1), |name, value| {
                match name {
                    "--histories" => options.histories = value,
                    "--seed" => options.seed = value,
                    _ => return false,
                }
                true
            })?;
            let outcome = selftest::run(&options);
            print!("{}", outcome.text());
            Ok(u8::from(!outcome.passed()))
        }
        Some("bench") => {
            let mut events = bench::EVENTS;
            numbers(arguments.skip(1), |name, value| {
                events = value;
                name == "--events"
            })?;
            print!("{}", bench::run(events).text());
            Ok(0)
        }
        Some(_) => judge(arguments),
    }
}

/// Flags whose values are numbers.
fn numbers(
    mut arguments: impl Iterator<Item = String>,
    mut set: impl FnMut(&str, u64) -> bool,
) -> Result<(), String> {
    while let Some(name) = arguments.next() {
        let value = arguments.next().unwrap_or_default();
        let number = value
            .parse()
            .map_err(|_| format!("{name} needs a number, not `{value}`\n{USAGE}"))?;
        if !set(&name, number) {
            return Err(format!("there is no flag {name} here\n{USAGE}"));
        }
    }
    Ok(())
}

fn judge(mut arguments: impl Iterator<Item = String>) -> Result<u8, String> {
    let (mut judge, mut files, mut json) = (Judge::new(), Vec::new(), false);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => json = true,
            "--floor" => {
                let value = arguments.next().unwrap_or_default();
                let floor = value.split_once('=').and_then(|(name, least)| {
                    Some(Floor {
                        name: name.to_owned(),
                        least: least.parse().ok()?,
                    })
                });
                judge.floor(floor.ok_or_else(|| {
                    format!("--floor needs NAME=N, such as acks=1000, not `{value}`")
                })?);
            }
            "--live-seconds" => {
                let value = arguments.next().unwrap_or_default();
                let seconds: u64 = value
                    .parse()
                    .map_err(|_| format!("--live-seconds needs a number, not `{value}`"))?;
                judge.live_within(seconds.saturating_mul(1_000_000_000));
            }
            "-" => files.push(argument),
            flag if flag.starts_with('-') => {
                return Err(format!("there is no flag {flag}\n{USAGE}"));
            }
            _ => files.push(argument),
        }
    }
    if files.is_empty() {
        return Err(format!("no history was named\n{USAGE}"));
    }
    for file in &files {
        read_lines(&mut judge, open(file)?).map_err(|error| format!("{file}: {error}"))?;
    }
    let mut report = judge.finish();
    for (at, file) in files.iter().enumerate() {
        // Standard input is gone by now: its witnesses are numbers of lines only.
        if file != "-" && !report.wanted(at).is_empty() {
            attach_lines(&mut report, at, open(file)?)
                .map_err(|error| format!("{file}: {error}"))?;
        }
    }
    report.files = files;
    print_report(&report, json);
    Ok(report.verdict().exit_code())
}

fn print_report(report: &Report, json: bool) {
    if json {
        println!("{}", report.json());
    } else {
        print!("{}", report.text());
    }
}

fn open(file: &str) -> Result<Box<dyn Read>, String> {
    if file == "-" {
        return Ok(Box::new(io::stdin()));
    }
    match File::open(file) {
        Ok(opened) => Ok(Box::new(opened)),
        Err(error) => Err(format!("cannot read the history {file}: {error}")),
    }
}
