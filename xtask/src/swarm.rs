//! `cargo xtask swarm`: many seeds of the simulator, on all cores; what took place, and how to replay what failed.

use anyhow::{Context, Result};
use clap::Args;

use crate::workspace::{SIMULATOR, Workspace, simulator_arguments};

/// Flags of `swarm`.
#[derive(Debug, Args)]
#[command(
    after_help = "Every seed is judged. A seed that fails is printed with the command that replays it, and the first three are made \
    smaller for a minute each. What comes of a seed does not depend on the number of threads. The exit code is 1 if any fails."
)]
pub(crate) struct Options {
    /// How many seeds
    #[arg(long, value_name = "N", required_unless_present = "minutes")]
    seeds: Option<u64>,
    /// As many seeds as begin in so many minutes
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    minutes: Option<u64>,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    first: u64,
    /// Threads; without it, one per core
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u64).range(1..=1024))]
    threads: Option<u64>,
    /// Failures after which no more seeds begin
    #[arg(long, value_name = "N", default_value_t = 10)]
    failures: u64,
    /// One line of JSON on standard output
    #[arg(long)]
    json: bool,
}

impl Options {
    /// What the simulator is asked for.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let numbers = [
            ("--seeds", self.seeds),
            ("--minutes", self.minutes),
            ("--first", Some(self.first)),
            ("--threads", self.threads),
            ("--failures", Some(self.failures)),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                arguments.extend([name.to_owned(), value.to_string()]);
            }
        }
        arguments.extend(self.json.then(|| "--json".to_owned()));
        arguments
    }
}

/// Builds the simulator and runs the seeds; true when every one passed.
///
/// # Errors
/// When cargo cannot be started.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let workspace = Workspace::read()?;
    let status = workspace
        .cargo("run")
        .args(simulator_arguments(SIMULATOR))
        .args(options.arguments())
        .status()
        .context("starting cargo")?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn the_simulator_is_asked_for_what_the_flags_say() {
        let of = |line: &[&str]| {
            let line = [&["swarm"], line].concat();
            Line::try_parse_from(line).map(|line| line.options.arguments().join(" "))
        };
        assert_eq!(
            of(&["--seeds", "5", "--threads", "2", "--json"]).ok(),
            Some("--seeds 5 --first 1 --threads 2 --failures 10 --json".to_owned())
        );
        assert_eq!(
            of(&["--minutes", "3", "--first", "9"]).ok(),
            Some("--minutes 3 --first 9 --failures 10".to_owned())
        );
        assert!(of(&[]).is_err(), "seeds without an end");
        assert!(of(&["--seeds", "5", "--minutes", "1"]).is_err());
    }
}
