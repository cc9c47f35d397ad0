//! `conformance`: runs the suite and prints `PASS|FAIL|SKIP backend case reason` for each case, and the counts last.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ionian_conformance::backends::{Entry, TABLE, find, is_root, lan, required};
use ionian_conformance::cases::{CASES, PACKET_CASES};
use ionian_conformance::ground::Patience;
use ionian_conformance::run::{Line, Plan, run};

/// Seconds that a run of many messages may take where nobody says.
const LONG_WALL_S: u64 = 3_600;

/// The same cases over every network backend that opens here, with every message and buffer accounted for.
#[derive(Debug, Parser)]
#[command(name = "conformance")]
struct Options {
    /// Only this backend; may be given several times. Broken ones run only so: `broken-shm-loses` and others
    #[arg(long = "backend", value_name = "NAME")]
    backends: Vec<String>,
    /// Backends that must not be skipped, by commas; without it, those that this user's machine must have
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    require: Option<Vec<String>>,
    /// Only this case; may be given several times
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// So many messages with faults instead of the cases
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..))]
    messages: Option<u64>,
    /// Rounds of polling in which nothing moves before a case gives up
    #[arg(long, value_name = "ROUNDS", default_value_t = Patience::default().rounds)]
    patience: u64,
    /// Seconds that a case may take in all
    #[arg(long, value_name = "SECONDS")]
    wall_s: Option<u64>,
}

fn main() -> ExitCode {
    let plan = plan(Options::parse());
    // Wrong options are told before anything is set up.
    let plan = plan.and_then(|plan| {
        lan::enter();
        lan::settle_in().map(|()| plan)
    });
    match plan {
        Ok(plan) => {
            let summary = run(&plan, &mut |line: &Line| println!("{line}"));
            println!("{summary}");
            if summary.failed == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(why) => {
            eprintln!("conformance: {why}");
            ExitCode::from(2)
        }
    }
}

/// What the options ask for.
fn plan(options: Options) -> Result<Plan, String> {
    let named = |name: &String| -> Result<Entry, String> {
        let names: Vec<&str> = TABLE.iter().map(|entry| entry.name).collect();
        find(name).ok_or_else(|| {
            format!(
                "no backend is called {name}; there are {}",
                names.join(", ")
            )
        })
    };
    let backends: Vec<Entry> = if options.backends.is_empty() {
        TABLE.to_vec()
    } else {
        options
            .backends
            .iter()
            .map(named)
            .collect::<Result<_, _>>()?
    };
    let required = match options.require {
        Some(names) => {
            for name in &names {
                named(name)?;
                if !backends.iter().any(|entry| entry.name == name) {
                    return Err(format!(
                        "{name} is required and does not run: name it with --backend, too"
                    ));
                }
            }
            names
        }
        None => required(is_root()).into_iter().map(str::to_owned).collect(),
    };
    let names: Vec<&str> = CASES
        .iter()
        .map(|case| case.name)
        .chain(PACKET_CASES.iter().map(|case| case.name))
        .collect();
    if let Some(name) = options
        .cases
        .iter()
        .find(|name| !names.contains(&name.as_str()))
    {
        return Err(format!(
            "no case is called {name}; there are {}",
            names.join(", ")
        ));
    }
    let default = Patience::default();
    let wall = match (options.wall_s, options.messages) {
        (Some(seconds), _) => Duration::from_secs(seconds),
        (None, Some(_)) => Duration::from_secs(LONG_WALL_S),
        (None, None) => default.wall,
    };
    Ok(Plan {
        backends,
        required,
        cases: options.cases,
        patience: Patience {
            rounds: options.patience,
            wall,
        },
        messages: options.messages,
    })
}
