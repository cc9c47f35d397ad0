//! `ionian-mutants`: how many seeds the simulator needs to find each deliberate bug, and by which invariant.
//!
//! ```text
//! ionian-mutants [--only NAME] [--seeds N] [--json]   five streams of seeds, each until the bug is found, N seeds (2000) at most
//! ionian-mutants --write FILE                         the same, and writes the table into FILE
//! ionian-mutants --check FILE                         FILE has the table of these mutants, and one stream finds each again
//! ```
//!
//! The exit code is 0 when every mutant was found, 1 when one survived or the table is stale, 2 for a wrong command line.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use ionian_sim::mutants::table::{self, Row};
use ionian_sim::mutants::{Hunt, hunt};
use ionian_types::Mutant;

/// Seeds that a mutant may survive, per stream.
const SEEDS_MAX: u64 = 2000;
/// Streams of seeds.
const BASES: [u64; 5] = [1, 2, 3, 4, 5];

#[derive(Default)]
struct Options {
    only: Option<String>,
    seeds: Option<u64>,
    json: bool,
    check: Option<PathBuf>,
    write: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Some(options) = parse(std::env::args().skip(1)) else {
        eprintln!(
            "usage: ionian-mutants [--only NAME] [--seeds N] [--json] [--check FILE | --write FILE]"
        );
        return ExitCode::from(2);
    };
    // A mutant that stops itself is counted; its words are of no use.
    std::panic::set_hook(Box::new(|_| {}));
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ionian-mutants: {error}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options::default();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--only" => options.only = Some(arguments.next()?),
            "--seeds" => options.seeds = Some(arguments.next()?.parse().ok()?),
            "--json" => options.json = true,
            "--check" => options.check = Some(arguments.next()?.into()),
            "--write" => options.write = Some(arguments.next()?.into()),
            _ => return None,
        }
    }
    Some(options)
}

fn run(options: &Options) -> Result<bool, String> {
    let mutants: Vec<Mutant> = Mutant::ALL
        .iter()
        .copied()
        .filter(|mutant| {
            options
                .only
                .as_ref()
                .is_none_or(|name| name == mutant.name())
        })
        .collect();
    if mutants.is_empty() {
        return Err("no mutant is called that".to_owned());
    }
    let document = |path: &PathBuf| {
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let mut sound = true;
    let written = match &options.check {
        Some(path) => {
            let written = table::read(&document(path)?);
            for wrong in table::stale(&written) {
                println!(
                    "{}: {wrong}; run `cargo xtask mutants --write`",
                    path.display()
                );
                sound = false;
            }
            Some(written)
        }
        None => None,
    };
    let bases = if written.is_some() {
        &BASES[..1]
    } else {
        &BASES[..]
    };
    let began = Instant::now();
    let rows = measure(&mutants, bases, options.seeds.unwrap_or(SEEDS_MAX), |row| {
        print_row(row, options.json);
    });
    for row in &rows {
        let known = written
            .iter()
            .flatten()
            .find(|known| known.name == row.mutant.name());
        if let Some(known) = known {
            let other = row
                .invariants()
                .iter()
                .map(ToString::to_string)
                .find(|found| !known.found_by.split(", ").any(|id| id == found));
            if let Some(other) = other {
                println!(
                    "{} is found by {other} too, the table says {}: it is of an earlier simulator",
                    known.name, known.found_by
                );
            }
        }
        for seed in row.fail_anyway() {
            println!(
                "seed {seed} by the plan of {} fails without the mutant too",
                row.mutant.name()
            );
            sound = false;
        }
        sound &= !row.survived();
    }
    let survivors = rows.iter().filter(|row| row.survived()).count();
    if !options.json {
        println!(
            "{} mutants, {survivors} survived, {} wait for what is not built, {:.1} s",
            rows.len(),
            table::LATER.len(),
            began.elapsed().as_secs_f64()
        );
    }
    if let Some(path) = &options.write {
        let replaced = table::replace(&document(path)?, &table::render(&rows))
            .ok_or_else(|| format!("{} has no place for the table", path.display()))?;
        std::fs::write(path, replaced).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(sound)
}

/// Every mutant from every base, on all cores; a row is told when its last hunt has ended.
fn measure(
    mutants: &[Mutant],
    bases: &[u64],
    seeds: u64,
    mut tell: impl FnMut(&Row) + Send,
) -> Vec<Row> {
    struct Shared<'a> {
        next: usize,
        hunts: Vec<Vec<Option<Hunt>>>,
        tell: &'a mut (dyn FnMut(&Row) + Send),
    }
    let shared = Mutex::new(Shared {
        next: 0,
        hunts: vec![vec![None; bases.len()]; mutants.len()],
        tell: &mut tell,
    });
    let lock = || {
        shared
            .lock()
            .expect("no hunt panics while it holds the table")
    };
    let row = |at: usize, hunts: &[Option<Hunt>]| Row {
        mutant: mutants[at],
        hunts: hunts.iter().flatten().cloned().collect(),
    };
    let work = || loop {
        let job = {
            let mut shared = lock();
            shared.next += 1;
            shared.next - 1
        };
        let (at, base) = (job / bases.len(), job % bases.len());
        let Some(mutant) = mutants.get(at) else {
            return;
        };
        let found = hunt(*mutant, bases[base], seeds);
        let mut shared = lock();
        shared.hunts[at][base] = Some(found);
        if shared.hunts[at].iter().all(Option::is_some) {
            let row = row(at, &shared.hunts[at]);
            (shared.tell)(&row);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let shared = lock();
    (0..mutants.len())
        .map(|at| row(at, &shared.hunts[at]))
        .collect()
}

fn print_row(row: &Row, json: bool) {
    let seeds: Vec<u64> = row.hunts.iter().map(|hunt| hunt.seeds).collect();
    let found: Vec<Option<(String, u64)>> = row
        .hunts
        .iter()
        .map(|hunt| {
            hunt.caught
                .map(|(invariant, seed)| (invariant.to_string(), seed))
        })
        .collect();
    if json {
        let streams: Vec<String> = row
            .hunts
            .iter()
            .zip(&found)
            .map(|(hunt, found)| match found {
                Some((invariant, seed)) => format!(
                    "{{\"seeds\":{},\"invariant\":\"{invariant}\",\"seed\":{seed},\"panics\":{}}}",
                    hunt.seeds, hunt.panics
                ),
                None => format!("{{\"seeds\":{},\"panics\":{}}}", hunt.seeds, hunt.panics),
            })
            .collect();
        println!(
            "{{\"mutant\":\"{}\",\"survived\":{},\"median\":{},\"streams\":[{}]}}",
            row.mutant.name(),
            row.survived(),
            row.median(),
            streams.join(",")
        );
        return;
    }
    let first = found
        .iter()
        .flatten()
        .next()
        .map_or(String::new(), |(_, seed)| format!(", e.g. seed {seed}"));
    let panics = match row.panics() {
        0 => String::new(),
        panics => format!(", {panics} seeds stopped by an assertion, which do not count"),
    };
    println!(
        "{:<36} {:<16} median {:>4} of {seeds:?}{first}{panics}",
        row.mutant.name(),
        row.found_by(),
        row.median()
    );
}
