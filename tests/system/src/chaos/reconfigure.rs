//! The cluster is changed while everybody appends: shards come and end, processes die, a node is drained, a replica replaced,
//! everything restarted one by one.
//!
//! Every change is a span of time, followed by a span of equal length in which nothing is changed: the latencies of the shards
//! that the change does not touch are compared between the two. A death is measured from the kill to the controllers'
//! decision, as `ionian view history` dates it, and on to the first append that is acknowledged again. The judge's word over
//! the histories decides; figures are printed with their goals.

mod deaths;
pub mod figures;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::acks::Acks;
use super::bed::{Bed, FREE, Judged};
use crate::binary::Binary;
use crate::governed::{Governed, Layout, Who};
use crate::process::wait_until;
use figures::{Change, Figures};

/// The log of which every replica holds a record, and the one where two of three do.
const LOG: &str = "default";
const WIDE: &str = "wide";
/// The members of the root groups, from the first node on.
const ROOTS: usize = 3;
/// The least span that is compared: p99.9 needs some thousand appends.
const SPAN_MIN: Duration = Duration::from_secs(4);
/// Where the added shards lie.
const ADDED: [&str; 4] = ["n4,n6", "n5,n7", "n6,n8", "n7,n8"];
/// The logs of the full load, and where their shards lie.
const HEAVY: [(&str, &str); 2] = [("heavy-a", "n4,n6"), ("heavy-b", "n5,n8")];
/// How long one run of the full load appends: its client reads back and trims in between.
const LOAD_ROUND_S: u64 = 10;

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Shards that are added, one by one; at most 4.
    pub adds: usize,
    /// How many of these are finalized again.
    pub finalizes: usize,
    /// Kills of replicas and root leaders, in turn.
    pub kills: u32,
    /// Whether the leader of the controllers is killed.
    pub raft_leader: bool,
    /// Whether a node is drained and a replica replaced.
    pub moves: bool,
    /// Whether every process is restarted, one by one.
    pub restarts: bool,
    /// For how long there is full load, during which nobody dies.
    pub load: Duration,
    /// The least length of the spans that are compared.
    pub span: Duration,
    /// Chooses what is read.
    pub seed: u64,
}

impl Plan {
    /// Everything.
    #[must_use]
    pub const fn whole(kills: u32, load: Duration, seed: u64) -> Self {
        Self {
            adds: ADDED.len(),
            finalizes: 2,
            kills,
            raft_leader: kills > 0,
            moves: true,
            restarts: true,
            load,
            span: SPAN_MIN,
            seed,
        }
    }

    /// One of each, and no restarts: for a gate.
    #[must_use]
    pub const fn short(seed: u64) -> Self {
        Self {
            adds: 1,
            finalizes: 1,
            kills: 2,
            raft_leader: true,
            restarts: false,
            span: Duration::from_secs(1),
            ..Self::whole(2, Duration::ZERO, seed)
        }
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The judge's word; the verdict is worse than that when the cluster did not recover.
    pub judged: Judged,
    /// What was measured.
    pub figures: Figures,
}

impl Outcome {
    /// For programs: what was measured, with the verdict.
    #[must_use]
    pub fn json(&self) -> Value {
        self.judged.told_in(self.figures.json())
    }
}

/// A change, the shards that it touches, and the two spans.
#[derive(Debug)]
struct Spans {
    what: String,
    /// Writers whose shards it does not touch.
    others: Vec<String>,
    change: (u64, u64),
    control: (u64, u64),
}

struct Run<'a> {
    bed: Bed,
    plan: Plan,
    began_ns: u64,
    spans: Vec<Spans>,
    deaths: Vec<deaths::Seen>,
    /// Spans of time in which lives end on purpose.
    ends: Vec<(u64, u64)>,
    figures: Figures,
    say: &'a mut dyn FnMut(&str),
    stop: &'a dyn Fn() -> bool,
}

/// Does a plan to a new cluster in `dir`. Ends early, with the verdict so far, when `stop` says so; tells `say` of every step.
/// The merged history is `history.jsonl` in `histories`, or in `dir`.
///
/// # Errors
/// When the cluster cannot be run at all, or there is no whole history: the harness's fault.
pub fn run(
    binary: &Binary,
    dir: &Path,
    plan: &Plan,
    histories: Option<&Path>,
    stop: impl Fn() -> bool,
    mut say: impl FnMut(&str),
) -> Result<Outcome> {
    let layout = Layout {
        nodes: 8,
        roots: ROOTS,
        shards: &[&[3, 4], &[5, 6]],
        tree: None,
        dead_after_ms: 1_000,
        snapshot_entries: None,
        copies_planned: None,
        data: Vec::new(),
    };
    let cluster = Governed::found(binary, dir, &layout, None)?;
    let create = [
        "log", "create", WIDE, "--shard", "n4,n6,n8", "--quorum", "2", "--root", "n1,n2,n3",
        "--leaf", "n2",
    ];
    cluster.operate(&create)?;
    let at = histories.unwrap_or(dir).to_owned();
    let bed = Bed::start(cluster, &at, &[LOG, WIDE], plan.seed)?;
    let mut run = Run {
        began_ns: bed.now_ns(),
        bed,
        plan: *plan,
        spans: Vec::new(),
        deaths: Vec::new(),
        ends: Vec::new(),
        figures: Figures::default(),
        say: &mut say,
        stop: &stop,
    };
    if let Err(error) = run.steps() {
        run.bed.problems.push(format!("{error:#}"));
    }
    let suspicions = run.unexplained();
    let Run {
        mut bed,
        spans,
        deaths,
        mut figures,
        ..
    } = run;
    match suspicions {
        Ok(found) => figures.false_suspicions = found,
        Err(error) => bed.problems.push(format!("{error:#}")),
    }
    let judged = bed.finish("chaos reconfigure", plan.seed)?;
    let acks = Acks::read(&at.join("clients"))?;
    figures.changes = spans.iter().map(|spans| spans.compare(&acks)).collect();
    figures.deaths = deaths.iter().map(|seen| seen.measure(&acks)).collect();
    Ok(Outcome { judged, figures })
}

impl Spans {
    fn compare(&self, acks: &Acks) -> Change {
        let of = |span| acks.latencies(&self.others, span);
        Change::new(&self.what, self.change, of(self.control), of(self.change))
    }
}

impl Run<'_> {
    fn steps(&mut self) -> Result<()> {
        let first = self.bed.shards(LOG)?.len();
        for (at, nodes) in ADDED.iter().take(self.plan.adds).enumerate() {
            let line = ["shard", "add", LOG, "--nodes", nodes];
            let touched = [(LOG, (first + at) as u32)];
            self.change(
                &format!("add shard {} on {nodes}", first + at),
                &touched,
                &line,
            )?;
        }
        for at in 0..self.plan.finalizes {
            let shard = (first + at).to_string();
            let line = ["shard", "finalize", LOG, &shard];
            let touched = [(LOG, (first + at) as u32)];
            self.change(&format!("finalize shard {shard}"), &touched, &line)?;
        }
        for kill in 0..self.plan.kills {
            self.kill(kill % 2 == 1)?;
        }
        if self.plan.raft_leader {
            self.kill_raft_leader()?;
        }
        if self.plan.moves {
            let touched = self.touched_by(Who::Node(6))?;
            self.change("drain n7", &touched, &["node", "drain", "n7"])?;
            let replace = ["shard", "replace", WIDE, "0.2", "n5"];
            self.change("replace replica 0.2 of wide", &[(WIDE, 0)], &replace)?;
        }
        if self.plan.restarts {
            for who in self.bed.cluster.everybody() {
                self.restart(who)?;
            }
        }
        if !self.plan.load.is_zero() {
            self.full_load()?;
        }
        self.bed.wait_well()
    }

    fn goes_on(&self) -> Result<()> {
        ensure!(!(self.stop)(), "it was asked to end");
        Ok(())
    }

    /// The shards with a place on a node; all shards of a log whose root leader or a vertex of whose tree is there.
    fn touched_by(&self, who: Who) -> Result<Vec<(&'static str, u32)>> {
        let Who::Node(node) = who else {
            return Ok(Vec::new());
        };
        let mut touched = Vec::new();
        for log in [LOG, WIDE] {
            let cluster = &self.bed.cluster;
            let vertices = cluster.vertices(log)?;
            let orders =
                vertices.iter().any(|(_, on)| *on == who) || cluster.root_leader(log)? == Some(who);
            let shards = self.bed.shards(log)?.into_iter();
            let shards = shards.filter(|shard| orders || shard.nodes.contains(&node));
            touched.extend(shards.map(|shard| (log, shard.id)));
        }
        Ok(touched)
    }

    /// Writers of shards other than these.
    fn others(&self, touched: &[(&str, u32)]) -> Vec<String> {
        let touched: BTreeSet<String> = touched
            .iter()
            .map(|(log, shard)| Bed::writer(log, *shard))
            .collect();
        let mut names = self.bed.crew.names();
        names.retain(|name| name.contains('.') && !touched.contains(name));
        names
    }

    /// Waits until so many nanoseconds have gone by since a moment.
    fn pass(&self, since_ns: u64, span_ns: u64) -> Result<()> {
        let limit = Duration::from_nanos(span_ns);
        wait_until(limit, || {
            Ok(self.bed.now_ns() >= since_ns + span_ns || (self.stop)())
        })?;
        self.goes_on()
    }

    /// A planned change by a command, and the span without one.
    fn change(&mut self, what: &str, touched: &[(&str, u32)], line: &[&str]) -> Result<()> {
        self.goes_on()?;
        self.bed.wait_well()?;
        let others = self.others(touched);
        let from = self.bed.now_ns();
        self.bed.cluster.operate(line)?;
        let took = Duration::from_nanos(self.bed.now_ns() - from);
        self.pass(from, self.plan.span.as_nanos() as u64)?;
        let to = self.bed.now_ns();
        self.ends.push((from, to));
        self.bed.wait_well()?;
        let quiet = self.bed.now_ns();
        self.pass(quiet, to - from)?;
        self.spans.push(Spans {
            what: what.to_owned(),
            others,
            change: (from, to),
            control: (quiet, self.bed.now_ns()),
        });
        (self.say)(&format!("{what}: done after {:.2} s", took.as_secs_f64()));
        Ok(())
    }

    /// An orderly end of a process and its next life, and as long without either.
    fn restart(&mut self, who: Who) -> Result<()> {
        self.goes_on()?;
        self.bed.wait_well()?;
        let touched = self.touched_by(who)?;
        let others = self.others(&touched);
        let from = self.bed.now_ns();
        self.bed.cluster.end(who)?;
        self.bed.cluster.start(who)?;
        self.bed.wait_well()?;
        self.pass(from, self.plan.span.as_nanos() as u64)?;
        let to = self.bed.now_ns();
        self.ends.push((from, to));
        // Who looks takes the machine's time too, so that it is looked in the other span as well.
        let quiet = self.bed.now_ns();
        while self.bed.now_ns() < quiet + (to - from) {
            self.goes_on()?;
            self.bed.wait_well()?;
        }
        let name = who.name();
        let took = Duration::from_nanos(to - from).as_secs_f64();
        (self.say)(&format!("restart of {name}: whole again after {took:.2} s"));
        self.spans.push(Spans {
            what: format!("restart {name}"),
            others,
            change: (from, to),
            control: (quiet, self.bed.now_ns()),
        });
        Ok(())
    }

    /// As much as the cluster takes, to logs of their own, whose clients read everything back and trim it. Nobody dies.
    fn full_load(&mut self) -> Result<()> {
        self.goes_on()?;
        self.bed.wait_well()?;
        for (log, shard) in HEAVY {
            let create = [
                "log", "create", log, "--shard", shard, "--root", "n1,n2,n3", "--leaf", "n2",
            ];
            self.bed.cluster.operate(&create)?;
        }
        let (from, began) = (self.bed.now_ns(), Instant::now());
        let mut records = 0;
        while began.elapsed() < self.plan.load {
            self.goes_on()?;
            let left = self.plan.load.saturating_sub(began.elapsed()).as_secs();
            let seconds = left.clamp(1, LOAD_ROUND_S);
            let cluster = &self.bed.cluster;
            // Each client has pauses in which it waits for one record at a time, or reads: two of them have fewer.
            let rounds = std::thread::scope(|scope| {
                let rounds = HEAVY.map(|(log, _)| scope.spawn(move || load(cluster, log, seconds)));
                rounds.map(|round| round.join())
            });
            for round in rounds {
                let round = round.map_err(|_| anyhow::anyhow!("a thread of the load failed"));
                records += round??;
            }
        }
        let to = self.bed.now_ns();
        self.figures.load_seconds = began.elapsed().as_secs();
        self.figures.load_per_s = records as f64 / began.elapsed().as_secs_f64();
        self.figures.suspicions_under_load =
            deaths::decided(&self.bed.cluster, LOG, from, to)?.len();
        (self.say)(&format!(
            "full load for {} s, {:.0} records/s: {} processes taken for dead",
            self.figures.load_seconds, self.figures.load_per_s, self.figures.suspicions_under_load
        ));
        self.bed.wait_well()?;
        for (log, _) in HEAVY {
            self.bed.cluster.operate(&["log", "delete", log])?;
        }
        Ok(())
    }

    /// Decisions that somebody is dead which no kill and no change explains.
    fn unexplained(&mut self) -> Result<usize> {
        let mut explained = self.ends.clone();
        explained.extend(self.deaths.iter().map(deaths::Seen::span));
        let mut found = 0;
        for log in [LOG, WIDE] {
            // Before the load everything begins.
            for decided in deaths::decided(&self.bed.cluster, log, self.began_ns, u64::MAX)? {
                let within = |(from, to): &(u64, u64)| (*from..*to).contains(&decided.at_ns);
                if !explained.iter().any(within) {
                    let after = (decided.at_ns - self.began_ns) as f64 / 1e9;
                    (self.say)(&format!(
                        "nothing explains, {after:.3} s after the begin of the load: {}",
                        decided.what
                    ));
                    found += 1;
                }
            }
        }
        Ok(found)
    }
}

/// Appends as fast as a log takes it; returns how many records that were.
fn load(cluster: &Governed, log: &str, seconds: u64) -> Result<u64> {
    let config = cluster.config().display().to_string();
    let seconds = seconds.to_string();
    let line = [
        "bench",
        "append",
        "--cluster",
        &config,
        "--log",
        log,
        "--spread",
        "--repeat",
        "1",
        "--quiet",
        "--json",
        "--seconds",
        &seconds,
    ];
    let mut command = cluster.binary().command(line);
    let output = command
        .stdin(Stdio::null())
        .output()
        .context("bench append")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "bench append: {words}");
    let json: Value = serde_json::from_str(&said).context("bench append")?;
    let of = |part: &str| json[part]["records"].as_u64();
    let both = of("pipelined").zip(of("one_at_a_time"));
    both.map(|(one, other)| one + other)
        .context("bench append says no records")
}

/// Whether a writer is of this log, or free.
fn is_of(writer: &str, log: &str) -> bool {
    writer == FREE || writer.split_once('.').is_some_and(|(of, _)| of == log)
}
