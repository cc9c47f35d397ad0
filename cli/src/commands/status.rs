//! `ionian status`: whether the cluster can append, and if not, what is missing. Every process is asked for its own state.

mod judge;
mod picture;
mod roots;
mod tree;
mod view;

use std::time::Duration;

use ionian_node::Place;
use ionian_node::client::{Probe, ProbeTarget};

use crate::connect::{ClusterArgs, first_map, locate, log_named};
use crate::exit::Exit;
use crate::output::OutArgs;
use judge::Verdict;
use picture::Picture;

/// How long the processes may take to answer; one that runs answers within a round trip.
const ANSWER: Duration = Duration::from_secs(3);
/// Between the two looks that rates are made of.
const BETWEEN: Duration = Duration::from_millis(250);

/// Say whether the cluster can append, and what each log, shard and replica is doing
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code 0: every shard takes appends. 3: the cluster is up but cannot append, with the reasons. 1: no cluster answers."
)]
pub(crate) struct Args {
    /// Show this log only; without it, every log
    #[arg(long, value_name = "NAME")]
    log: Option<String>,
    /// Also print every counter of every process
    #[arg(long)]
    counters: bool,
    #[command(flatten)]
    at: ClusterArgs,
    #[command(flatten)]
    out: OutArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let picture = look(args)?;
    let verdict = Verdict::of(&picture);
    let text = view::text(&picture, &verdict, args.counters);
    args.out.emit(&text, &view::json(&picture, &verdict))?;
    Ok(if verdict.able() {
        Exit::Done
    } else {
        Exit::Unable
    })
}

/// Asks the controller who is there, and everyone for his state, twice.
fn look(args: &Args) -> anyhow::Result<Picture> {
    let at = locate(&args.at)?;
    let map = first_map(&at).map(|link| link.map().clone());
    if let (Ok(map), Some(name)) = (&map, &args.log) {
        log_named(map, name, &at)?;
    }
    let (map, no_map) = match map {
        Ok(map) => (map, None),
        // Without its controller a cluster can still be found by its configuration.
        Err(error) if at.config.is_some() => (Default::default(), Some(error)),
        Err(error) => return Err(error),
    };
    let mut picture = Picture::new(&at, map, args.log.as_deref())?;
    let mut probe = Probe::open(&at.options())?;
    ask(&mut probe, &mut picture, 0, |_| true);
    if let Some(error) = no_map
        && !picture.anybody_answers()
    {
        return Err(error);
    }
    let began = std::time::Instant::now();
    while began.elapsed() < BETWEEN {
        std::thread::park_timeout(BETWEEN.saturating_sub(began.elapsed()));
    }
    ask(&mut probe, &mut picture, 1, |answered| answered);
    Ok(picture)
}

/// Asks those processes for which `whom` says so, by whether they have answered before.
fn ask(probe: &mut Probe, picture: &mut Picture, sample: usize, whom: impl Fn(bool) -> bool) {
    let asked: Vec<usize> = (0..picture.processes.len())
        .filter(|at| whom(picture.processes[*at].answers()))
        .collect();
    let targets: Vec<ProbeTarget> = asked
        .iter()
        .filter_map(|at| {
            let process = &picture.processes[*at];
            // One place that is there is enough; the others are for the case that it is not.
            let mut places: Vec<Place> = process.places.iter().take(8).copied().collect();
            places.extend(picture.external.then_some(Place::Directory));
            Some(ProbeTarget {
                address: process.socket?,
                places,
            })
        })
        .collect();
    let known = asked
        .iter()
        .filter(|at| picture.processes[**at].socket.is_some());
    let known: Vec<usize> = known.copied().collect();
    for (at, answer) in known.into_iter().zip(probe.ask(&targets, ANSWER)) {
        picture.processes[at].set_answer(sample, answer);
    }
}
