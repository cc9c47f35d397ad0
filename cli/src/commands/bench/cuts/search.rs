//! Goal B: how many servers, all of which report and read, two cores carry while what they see is young enough.

use super::figures::Figures;
use super::goals::{Goal, Sense};
use super::{Args, LoadArgs, one};

/// The age that 99 of 100 reports may have when their server has read of them, in microseconds.
const AGE_US: f64 = 200.0;
/// Steps of the search.
const STEPS: usize = 12;
/// Of the reports, so many may be left out because the servers' core is late.
const LATE: f64 = 0.01;
/// What a bare loop on two cores reached, in servers.
const BARE_LOOP: f64 = 1_400.0;

/// Doubles the number of shards until ages are too large, then halves the interval. The figures are those of the largest number
/// that was fine, measured again.
pub(super) fn run(args: &Args) -> anyhow::Result<Figures> {
    let at = |shards: usize, repeat: usize| {
        let load = LoadArgs {
            shards,
            readers_percent: 100.0,
            repeat,
            ..args.load.clone()
        };
        one(&load, args.quiet)
    };
    let least = args
        .load
        .setting(None)?
        .leaves()
        .unwrap_or(usize::MAX)
        .max(4);
    let (mut good, mut bad) = (None, None);
    let mut next = least.max(args.load.shards);
    for _ in 0..STEPS {
        let figures = at(next, args.load.repeat)?;
        let fine = is_fine(&figures);
        if !args.quiet {
            eprintln!(
                "  {} servers: p99 {:.0} us, {}",
                figures.outcome.servers,
                p99_us(&figures),
                if fine { "fine" } else { "too old" }
            );
        }
        let found = if fine { &mut good } else { &mut bad };
        *found = Some(next);
        next = match (good, bad) {
            (Some(good), Some(bad)) if bad - good <= good / 16 + 1 => break,
            (Some(good), Some(bad)) => good.midpoint(bad),
            (Some(good), None) => good * 2,
            (None, Some(bad)) if bad <= least => break,
            (None, _) => (next / 2).max(least),
        };
    }
    let mut figures = at(good.unwrap_or(least), args.load.repeat)?;
    let servers = match good {
        Some(_) => figures.outcome.servers as f64,
        None => 0.0,
    };
    figures.goals.push(Goal::new(
        "B, end to end: servers with a p99 below 200 us, of which a bare loop carried 1,400",
        BARE_LOOP,
        servers,
        Sense::AtLeast,
    ));
    Ok(figures)
}

fn p99_us(figures: &Figures) -> f64 {
    figures.outcome.age_us(|it| &it.age_reporter, 0.99).median
}

fn is_fine(figures: &Figures) -> bool {
    let late = figures.outcome.spread(|it| it.late_per_s).median;
    let written = figures.outcome.spread(|it| it.written_per_s).median;
    p99_us(figures) < AGE_US && late <= LATE * written
}
