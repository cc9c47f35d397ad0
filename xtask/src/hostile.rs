//! `cargo xtask hostile`: datagrams of strangers against a node of a running cluster, and what they cost.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use ionian_system_tests::hostile::{self, Plan};

use crate::chaos::{Scratch, release_binary};
use crate::workspace::Workspace;

/// Flags of `hostile`.
#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is 0 when the node is as it was before: no session, no record, no line in its log, no growth, and every datagram\n\
    that its socket took was counted. Figures are printed with their goals, met or missed; they do not decide."
)]
pub(crate) struct Options {
    /// Datagrams of all kinds in turn
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    tries: u64,
    /// Datagrams a second while cost and goodput are measured
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1_000..=1_000_000))]
    rate: u64,
    /// Seconds of each of these measurements
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Sessions that are granted, opened, and left without a word
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    half_open: u64,
    /// Connections to a controller that say nothing
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(100..=900))]
    silent: u64,
    /// Chooses bytes
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// One JSON document to standard output
    #[arg(long)]
    json: bool,
}

/// Runs it; whether nothing happened that must not.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let workspace = Workspace::read()?;
    let binary = release_binary(&workspace)?;
    let mut scratch = Scratch::temporary("hostile")?;
    let plan = Plan {
        tries: options.tries,
        half_open: options.half_open,
        silent: options.silent,
        rate_per_s: options.rate,
        span: Duration::from_secs(options.seconds),
        seed: options.seed,
    };
    let outcome = hostile::run(&binary, scratch.path(), &plan).inspect_err(|_| scratch.keep())?;
    if options.json {
        println!("{:#}", outcome.json());
    } else {
        print!("{}", outcome.text());
        println!(
            "verdict: {}",
            if outcome.passed() { "pass" } else { "fail" }
        );
    }
    if !outcome.passed() {
        eprintln!("files: {}", scratch.path().display());
        scratch.keep();
    }
    Ok(outcome.passed())
}
