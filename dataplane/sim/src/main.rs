//! `ionian-sim`: runs seeds, counts what took place, and prints how to replay a seed that fails.
//!
//! ```text
//! ionian-sim gate          the seeds of the gate
//! ionian-sim --seeds N     seeds 1 to N
//! ionian-sim --seconds S   seeds from 1 on for S seconds
//! ionian-sim --seed N      one seed; with --trace every message and fault, with --history FILE what clients saw (hist/1)
//! ```
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ionian_sim::swarm::{Totals, run_seed};
use ionian_sim::{FAULTS, Plan, World};

/// Seeds of the gate.
const GATE_SEEDS: u64 = 1000;

/// The seed that runs, for a panic inside a machine.
static SEED: AtomicU64 = AtomicU64::new(0);

/// One seed.
struct One {
    seed: u64,
    trace: bool,
    history: Option<PathBuf>,
}

enum Command {
    One(One),
    Many { last: u64, for_at_most: Duration },
}

fn main() -> ExitCode {
    let Some(command) = parse(std::env::args().skip(1)) else {
        eprintln!(
            "usage: ionian-sim gate | --seeds N | --seconds S | --seed N [--trace] [--history FILE]"
        );
        return ExitCode::from(2);
    };
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let seed = SEED.load(Ordering::Relaxed);
        eprintln!(
            "seed {seed} panics\n  replay: cargo run -p ionian-sim --release -- --seed {seed} --trace"
        );
        hook(info);
    }));
    match command {
        Command::One(run) => one(&run),
        Command::Many { last, for_at_most } => many(last, for_at_most),
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Command> {
    let ever = Duration::from_secs(1 << 30);
    let (mut command, mut traced, mut history) = (None, false, None);
    while let Some(argument) = arguments.next() {
        if argument == "--history" {
            history = Some(PathBuf::from(arguments.next()?));
            continue;
        }
        let mut number = || arguments.next()?.parse::<u64>().ok();
        match argument.as_str() {
            "gate" => {
                command = Some(Command::Many {
                    last: GATE_SEEDS,
                    for_at_most: ever,
                });
            }
            "--seeds" => {
                command = Some(Command::Many {
                    last: number()?,
                    for_at_most: ever,
                });
            }
            "--seconds" => {
                command = Some(Command::Many {
                    last: u64::MAX,
                    for_at_most: Duration::from_secs(number()?),
                });
            }
            "--seed" => {
                command = Some(Command::One(One {
                    seed: number()?,
                    trace: false,
                    history: None,
                }));
            }
            "--trace" => traced = true,
            _ => return None,
        }
    }
    if let Some(Command::One(run)) = &mut command {
        (run.trace, run.history) = (traced, history);
    }
    command
}

fn one(run: &One) -> ExitCode {
    let seed = run.seed;
    SEED.store(seed, Ordering::Relaxed);
    let plan = Plan::draw(seed);
    println!("{plan:?}");
    let mut world = World::new(seed, plan);
    world.trace = run.trace;
    let outcome = world.run();
    if let Some(path) = &run.history
        && let Err(error) = std::fs::write(path, world.history.recorder.text())
    {
        eprintln!(
            "the history cannot be written to {}: {error}",
            path.display()
        );
        return ExitCode::from(2);
    }
    match outcome {
        Ok(report) => {
            println!("{report:#?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn many(last: u64, for_at_most: Duration) -> ExitCode {
    let began = Instant::now();
    let mut totals = Totals::default();
    for seed in 1..=last {
        if began.elapsed() >= for_at_most {
            break;
        }
        SEED.store(seed, Ordering::Relaxed);
        if let Err(failure) = run_seed(seed, &mut totals) {
            println!("{failure}\n{:?}", Plan::draw(seed));
            return ExitCode::FAILURE;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{} seeds ({} twice), {:.1} seeds/s, {} events, {:.1} virtual s",
        totals.seeds,
        totals.twice,
        totals.seeds as f64 / seconds,
        totals.events,
        totals.virtual_ns as f64 / 1e9
    );
    let [appends, acked, no_effect, unknown] = totals.appends;
    println!(
        "{appends} appends: {acked} acked, {no_effect} failed without effect, {unknown} unknown; {} delivered, {} read, {} moves, {} nevers, {} copies, {} adoptions, {} of {} damaged records repaired, gaps {:?}, {} lost beyond the class",
        totals.delivered,
        totals.reads,
        totals.rebinds,
        totals.nevers,
        totals.copies,
        totals.adoptions,
        totals.repaired,
        totals.damaged,
        totals.gaps,
        totals.lost
    );
    for fault in FAULTS {
        println!("  {:>6} {fault:?}", totals.faults[fault]);
    }
    ExitCode::SUCCESS
}
