//! What many seeds came to: for people, and as one line of JSON.

use std::fmt::Write;

use ionian_histcheck::quoted;
use ionian_sim::FAULTS;
use ionian_sim::minimise::Smallest;
use ionian_sim::swarm::Outcome;

/// A failing plan that cannot be made smaller, or could not in time.
pub(crate) fn smallest(found: &Smallest) -> String {
    let state = if found.whole {
        "as small as it gets"
    } else {
        "time was up"
    };
    format!("{}\n  {state} after {} runs", found.failure, found.runs)
}

/// For people.
pub(crate) fn text(outcome: &Outcome, smaller: &[Smallest]) -> String {
    let mut out = String::new();
    let _ = write_text(&mut out, outcome, smaller);
    out
}

fn write_text(out: &mut String, outcome: &Outcome, smaller: &[Smallest]) -> std::fmt::Result {
    let totals = &outcome.totals;
    let ran = totals.seeds + outcome.failures.len() as u64;
    writeln!(
        out,
        "{ran} seeds ({} twice), {:.1} seeds/s, {} operations, at least {} in a seed, {} steps, {:.1} virtual s",
        totals.twice,
        ran as f64 / outcome.took.as_secs_f64(),
        totals.operations,
        totals.operations_least.unwrap_or(0),
        totals.events,
        totals.virtual_ns as f64 / 1e9
    )?;
    let [appends, acked, no_effect, unknown] = totals.appends;
    writeln!(
        out,
        "{appends} appends: {acked} acked, {no_effect} failed without effect, {unknown} unknown; {} delivered, {} read, {} moves, {} nevers, {} copies, {} adoptions, {} of {} damaged records repaired, gaps {:?}, {} lost beyond the class, {} legal cores, {} without the controller, the slowest took {:.1} virtual s, {} seeds with aggregators whose edges started {} times, {} edges below went on over that",
        totals.delivered,
        totals.reads,
        totals.rebinds,
        totals.nevers,
        totals.copies,
        totals.adoptions,
        totals.repaired,
        totals.damaged,
        totals.gaps,
        totals.lost,
        totals.cores[0],
        totals.cores[1],
        totals.core_ns as f64 / 1e9,
        totals.trees[0],
        totals.trees[1],
        totals.trees[2]
    )?;
    for fault in FAULTS {
        writeln!(out, "  {:>6} {fault:?}", totals.faults[fault])?;
    }
    for found in smaller {
        writeln!(out, "smaller: {}", smallest(found))?;
    }
    writeln!(
        out,
        "{} pass, {} fail",
        totals.seeds,
        outcome.failures.len()
    )
}

/// For programs.
pub(crate) fn json(outcome: &Outcome, smaller: &[Smallest]) -> String {
    let mut out = String::new();
    let _ = write_json(&mut out, outcome, smaller);
    out
}

fn write_json(out: &mut String, outcome: &Outcome, smaller: &[Smallest]) -> std::fmt::Result {
    let totals = &outcome.totals;
    let failed = outcome.failures.len() as u64;
    let ran = totals.seeds + failed;
    write!(
        out,
        r#"{{"seeds":{ran},"seeds_per_s":{:.2},"twice":{},"operations":{},"operations_least":{},"steps":{},"virtual_s":{:.3},"verdicts":{{"pass":{},"fail":{failed}}},"faults":{{"#,
        ran as f64 / outcome.took.as_secs_f64(),
        totals.twice,
        totals.operations,
        totals.operations_least.unwrap_or(0),
        totals.events,
        totals.virtual_ns as f64 / 1e9,
        totals.seeds
    )?;
    for (at, fault) in FAULTS.into_iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        write!(out, r#"{comma}"{fault:?}":{}"#, totals.faults[fault])?;
    }
    out.push_str(r#"},"failures":["#);
    for (at, failure) in outcome.failures.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        write!(
            out,
            r#"{comma}{{"seed":{},"invariant":"{}","what":{},"replay":{}"#,
            failure.seed,
            failure.violation.invariant,
            quoted(&failure.violation.what),
            quoted(&failure.replay())
        )?;
        let found = smaller
            .iter()
            .find(|found| found.failure.seed == failure.seed);
        if let Some(found) = found {
            write!(
                out,
                r#","smallest":{},"whole":{}"#,
                quoted(&found.failure.replay()),
                found.whole
            )?;
        }
        out.push('}');
    }
    out.push_str("]}");
    Ok(())
}
