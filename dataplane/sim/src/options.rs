//! The command line of `ionian-sim`.

use std::path::PathBuf;
use std::time::Duration;

use ionian_sim::Plan;
use ionian_sim::mutants::families;
use ionian_sim::swarm::Swarm;
use ionian_types::Mutant;

/// Seeds of the gate: at least so many, and as many more as begin in this time.
const GATE_SEEDS_MIN: u64 = 300;
const GATE_FOR: Duration = Duration::from_secs(120);
/// Failures after which a swarm ends, unless told otherwise.
const FAILURES_MAX: u64 = 10;

pub(crate) const USAGE: &str = "\
usage: ionian-sim gate [--json]
       ionian-sim --seeds N | --minutes N | --seconds N [--first SEED] [--threads T] [--failures N] [--json]
       ionian-sim --seed N [--plan KEY=VALUE,...] [--mutant NAME] [--trace] [--history FILE] [--minimise]";

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Command {
    One(Box<One>),
    Many(Many),
}

/// One seed.
#[derive(Debug)]
pub(crate) struct One {
    pub(crate) seed: u64,
    pub(crate) plan: Plan,
    /// The deliberate bug that the machines have.
    pub(crate) mutant: Option<Mutant>,
    pub(crate) trace: bool,
    pub(crate) history: Option<PathBuf>,
    pub(crate) minimise: bool,
}

/// Many seeds.
#[derive(Debug)]
pub(crate) struct Many {
    pub(crate) swarm: Swarm,
    /// Every kind of fault must take place.
    pub(crate) floors: bool,
    pub(crate) json: bool,
}

/// What was said so far.
#[derive(Default)]
struct Words {
    gate: bool,
    seed: Option<u64>,
    seeds: Option<u64>,
    seconds: Option<u64>,
    first: Option<u64>,
    threads: Option<u64>,
    failures: Option<u64>,
    plan: Option<String>,
    mutant: Option<Mutant>,
    history: Option<PathBuf>,
    trace: bool,
    minimise: bool,
    json: bool,
}

/// Understands the arguments.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut words = Words::default();
    while let Some(argument) = arguments.next() {
        let mut text = || {
            arguments
                .next()
                .ok_or_else(|| format!("{argument} wants a value"))
        };
        let mut number = || {
            let text = text()?;
            text.parse::<u64>()
                .map_err(|error| format!("{argument} {text}: {error}"))
        };
        match argument.as_str() {
            "gate" => words.gate = true,
            "--seed" => words.seed = Some(number()?),
            "--seeds" => words.seeds = Some(number()?),
            "--seconds" => words.seconds = Some(number()?),
            "--minutes" => words.seconds = Some(number()?.saturating_mul(60)),
            "--first" => words.first = Some(number()?),
            "--threads" => words.threads = Some(number()?),
            "--failures" => words.failures = Some(number()?),
            "--plan" => words.plan = Some(text()?),
            "--mutant" => {
                let name = text()?;
                let named = |mutant: &&Mutant| mutant.name() == name;
                let found = Mutant::ALL.iter().find(named).copied();
                words.mutant = Some(found.ok_or_else(|| {
                    format!("no mutant is called `{name}`; docs/testing.md has a table of them")
                })?);
            }
            "--history" => words.history = Some(PathBuf::from(text()?)),
            "--trace" => words.trace = true,
            "--minimise" => words.minimise = true,
            "--json" => words.json = true,
            _ => return Err(format!("`{argument}` is not known")),
        }
    }
    words.command()
}

impl Words {
    fn command(self) -> Result<Command, String> {
        let of_one = self.plan.is_some()
            || self.mutant.is_some()
            || self.history.is_some()
            || self.trace
            || self.minimise;
        let many = self.gate || self.seeds.is_some() || self.seconds.is_some();
        let of_many = self.first.is_some() || self.threads.is_some() || self.failures.is_some();
        match (self.seed, many) {
            (Some(_), true) => Err("--seed is one run, the others are many".to_owned()),
            (None, false) => Err("which seeds?".to_owned()),
            (Some(_), false) if of_many || self.json => {
                Err("--first, --threads, --failures and --json belong to many seeds".to_owned())
            }
            (None, true) if of_one => Err(
                "--plan, --mutant, --trace, --history and --minimise belong to one --seed"
                    .to_owned(),
            ),
            (Some(seed), false) => {
                let mut plan = families::plan(self.mutant, seed);
                plan.apply(&self.plan.unwrap_or_default())?;
                Ok(Command::One(Box::new(One {
                    seed,
                    plan,
                    mutant: self.mutant,
                    trace: self.trace,
                    history: self.history,
                    minimise: self.minimise,
                })))
            }
            (None, true) => {
                let threads = self.threads.and_then(|threads| threads.try_into().ok());
                let cores = || std::thread::available_parallelism().map_or(1, usize::from);
                let forever = Duration::from_secs(u64::from(u32::MAX));
                let swarm = Swarm {
                    first: self.first.unwrap_or(1),
                    seeds_min: if self.gate { GATE_SEEDS_MIN } else { 0 },
                    seeds_max: self.seeds.unwrap_or(u64::MAX),
                    for_at_most: match self.seconds {
                        Some(seconds) => Duration::from_secs(seconds),
                        None if self.gate => GATE_FOR,
                        None => forever,
                    },
                    threads: threads.unwrap_or_else(cores),
                    failures_max: self.failures.unwrap_or(FAILURES_MAX) as usize,
                };
                Ok(Command::Many(Many {
                    swarm,
                    floors: self.gate,
                    json: self.json,
                }))
            }
        }
    }
}
