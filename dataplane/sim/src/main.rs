//! `ionian-sim`: runs seeds, counts what took place, and makes a seed that fails as small as it gets.
//!
//! ```text
//! ionian-sim gate                          the seeds of the gate
//! ionian-sim --seeds N | --minutes N       seeds from 1 on; --first SEED, --threads T, --failures N, --json
//! ionian-sim --seed N                      one seed; --plan KEY=VALUE,... changes what the seed draws,
//!                                          --mutant NAME gives the machines a deliberate bug, and the plan of its family
//!                                          --trace prints every message and fault,
//!                                          --history FILE writes what clients saw (hist/1)
//!                                          --minimise finds the smallest plan that still fails
//! ```
//!
//! The exit code is 0 when every seed passes, 1 when one fails, 2 when the command line is wrong.
#![forbid(unsafe_code)]

mod memory;
mod options;
mod summary;

use std::cell::Cell;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ionian_sim::grants::GrantWorld;
use ionian_sim::minimise::{Smallest, minimise};
use ionian_sim::mutants::families::guards;
use ionian_sim::mutants::{Mutated, with};
use ionian_sim::swarm::{Outcome, attempt_with};
use ionian_sim::{Plan, World};
use ionian_types::{Knobs, Shipped};

use options::{Command, Many, One};

/// How long a failing seed of a swarm is made smaller.
const MINIMISE_FOR: Duration = Duration::from_secs(60);
/// How long one that is asked for by its number is.
const MINIMISE_ONE_FOR: Duration = Duration::from_secs(600);
/// Failing seeds of a swarm that are made smaller.
const MINIMISED_MAX: usize = 3;

thread_local! {
    /// A panic is printed: not while a plan that panics is made smaller.
    static LOUD: Cell<bool> = const { Cell::new(true) };
}

fn main() -> ExitCode {
    if std::env::args()
        .skip(1)
        .any(|word| word == "--help" || word == "-h")
    {
        println!("{}", options::USAGE);
        return ExitCode::SUCCESS;
    }
    let command = match options::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(why) => {
            eprintln!("ionian-sim: {why}\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if LOUD.get() {
            hook(info);
        }
    }));
    match command {
        Command::One(run) if run.mutant.is_some_and(guards) => {
            with(run.mutant, || of_grants(run.seed, run.trace))
        }
        Command::One(run) => match run.mutant {
            None => one::<Shipped>(&run),
            mutant => with(mutant, || one::<Mutated>(&run)),
        },
        Command::Many(run) => {
            memory::give_back_what_is_large();
            many(&run)
        }
    }
}

/// A world of grants, in which bugs of those who guard sessions are found.
fn of_grants(seed: u64, trace: bool) -> ExitCode {
    let mut world = GrantWorld::<Mutated>::new(seed);
    world.trace = trace;
    match world.run() {
        Ok(counts) => {
            println!("{counts:#?}");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("seed {seed}: {violation}");
            ExitCode::FAILURE
        }
    }
}

fn one<K: Knobs>(run: &One) -> ExitCode {
    if run.minimise {
        return match smaller::<K>(run.seed, &run.plan, MINIMISE_ONE_FOR) {
            Some(smallest) => {
                println!("{}", summary::smallest(&smallest));
                ExitCode::FAILURE
            }
            None => {
                println!("seed {} passes", run.seed);
                ExitCode::SUCCESS
            }
        };
    }
    println!("{:?}", run.plan);
    let mut world = World::<K>::with_knobs(run.seed, run.plan.clone());
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

fn many(run: &Many) -> ExitCode {
    let outcome = run.swarm.run(|failure| eprintln!("{failure}"));
    let smallest: Vec<Smallest> = outcome
        .failures
        .iter()
        .take(MINIMISED_MAX)
        .filter_map(|failure| {
            eprintln!("seed {} is made smaller", failure.seed);
            smaller::<Shipped>(failure.seed, &Plan::draw(failure.seed), MINIMISE_FOR)
        })
        .collect();
    if run.json {
        println!("{}", summary::json(&outcome, &smallest));
    } else {
        print!("{}", summary::text(&outcome, &smallest));
    }
    ExitCode::from(u8::from(!passed(run, &outcome)))
}

/// Every seed passes, and in the gate every kind of fault took place.
fn passed(run: &Many, outcome: &Outcome) -> bool {
    let mut passed = outcome.failures.is_empty();
    if run.floors {
        for fault in outcome.totals.missing_faults() {
            eprintln!("{fault:?} never took place: the run says nothing about it");
            passed = false;
        }
    }
    passed
}

fn smaller<K: Knobs>(seed: u64, plan: &Plan, for_at_most: Duration) -> Option<Smallest> {
    let began = Instant::now();
    LOUD.set(false);
    let found = minimise(
        plan,
        |plan| attempt_with::<K>(seed, plan),
        || began.elapsed() < for_at_most,
    );
    LOUD.set(true);
    found
}
