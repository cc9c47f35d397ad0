//! Processes killed under load, and the verdict: every acknowledged record is there, once, at its position.
//!
//! Fault model: `kill -9` of one process or of all, again and again, each time followed by a restart. At D1 nothing that was
//! acknowledged may be lost. At D0 one replica at a time may die without loss; when every copy or the cut log dies, what
//! was acknowledged before may be gone, but only as a declared gap, and no position is used again.

mod judge;
mod ledger;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::binary::Binary;
use crate::cluster::{Cluster, Durability};
use crate::process::wait_until;
use judge::{Judge, Line};
use ledger::{Ledger, Record};
use writer::Writer;

/// How long the cluster may take to take appends again after a restart, and the load to go on.
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);
/// How long reading everything back may take.
const READ_LIMIT: Duration = Duration::from_secs(300);
/// Acknowledgements between two kills, so that there is something to lose.
const ACKS_BETWEEN_KILLS: u64 = 500;

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// What an acknowledgement means.
    pub durability: Durability,
    /// For how long processes are killed.
    pub duration: Duration,
    /// Writers at a time.
    pub writers: u32,
    /// Chooses the victims.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// Kills of one process.
    pub single_kills: u64,
    /// Kills of all processes, or at D0 of the one with the cut log.
    pub total_kills: u64,
    /// Records acknowledged.
    pub acked: u64,
    /// Records that the log held at the end.
    pub kept: u64,
    /// Positions declared lost.
    pub lost: u64,
    /// The longest time from a kill until the cluster took appends for every shard again.
    pub recovery_max: Duration,
    /// What is wrong; empty when all is well.
    pub problems: Vec<String>,
}

/// Kills processes of a new cluster in `dir` with `kill -9` under load and restarts them. Ends early, with the verdict so
/// far, when `stop` says so; tells `say` of every kill.
///
/// # Errors
/// When the cluster cannot be run at all. What the cluster did wrong is in the verdict.
pub fn kill9(
    binary: &Binary,
    dir: &Path,
    plan: &Plan,
    stop: impl Fn() -> bool,
    mut say: impl FnMut(&str),
) -> Result<Verdict> {
    let mut run = Run {
        cluster: Cluster::start(binary, dir, plan.durability)?,
        ledger: Arc::new(Ledger::default()),
        plan: *plan,
        random: plan.seed,
        probes: 0,
        judge: Judge::new(plan.durability),
        verdict: Verdict::default(),
    };
    run.cluster.wait_able(RECOVERY_LIMIT)?;
    let writers: Vec<Writer> = (0..plan.writers)
        .map(|writer| Writer::start(writer, binary, run.cluster.config(), &run.ledger))
        .collect();
    let outcome = run.kill_until(Instant::now() + plan.duration, &stop, &mut say);
    for writer in writers {
        writer.stop();
    }
    if let Err(error) = outcome.and_then(|()| run.check()) {
        run.verdict.problems.push(format!("{error:#}"));
    }
    if let Err(error) = run.cluster.stop() {
        run.verdict.problems.push(format!("{error:#}"));
    }
    run.verdict.acked = run.ledger.acked();
    Ok(run.verdict)
}

struct Run {
    cluster: Cluster,
    ledger: Arc<Ledger>,
    plan: Plan,
    random: u64,
    probes: u64,
    judge: Judge,
    verdict: Verdict,
}

impl Run {
    fn kill_until(
        &mut self,
        end: Instant,
        stop: &impl Fn() -> bool,
        say: &mut impl FnMut(&str),
    ) -> Result<()> {
        let mut kill = 0;
        // At least one of each kind, however short the time.
        while (kill < 4 || Instant::now() < end) && !stop() {
            self.wait_for_acks()?;
            let began = Instant::now();
            let what = if kill % 4 == 3 {
                self.kill_everything()?
            } else {
                self.kill_one()?
            };
            self.cluster.wait_able(RECOVERY_LIMIT)?;
            self.probe_every_shard()?;
            let took = began.elapsed();
            self.verdict.recovery_max = self.verdict.recovery_max.max(took);
            say(&format!(
                "killed {what}; appends to every shard again after {:.1} s; {} records acknowledged so far",
                took.as_secs_f64(),
                self.ledger.acked()
            ));
            kill += 1;
        }
        self.wait_for_acks()
    }

    /// Waits until the load has gone on for a while.
    fn wait_for_acks(&self) -> Result<()> {
        let enough = self.ledger.acked() + ACKS_BETWEEN_KILLS;
        let went_on = wait_until(RECOVERY_LIMIT, || Ok(self.ledger.acked() >= enough))?;
        if !went_on {
            bail!(
                "the load stands still: {} records acknowledged; the writers last said: {}",
                self.ledger.acked(),
                self.ledger.last_words()
            );
        }
        Ok(())
    }

    fn kill_one(&mut self) -> Result<String> {
        self.verdict.single_kills += 1;
        // At D0 the process with the cut log is not one of many: its loss is that of everything.
        let first = usize::from(self.plan.durability == Durability::D0);
        let choices = (self.cluster.len() - first) as u64;
        let victim = first + (self.draw() % choices) as usize;
        self.cluster.kill_node(victim)?;
        self.cluster.start_node(victim)?;
        Ok(Cluster::name(victim))
    }

    fn kill_everything(&mut self) -> Result<String> {
        self.verdict.total_kills += 1;
        let d0 = self.plan.durability == Durability::D0;
        if d0 {
            // Afterwards nobody can tell what one replica alone had lost.
            self.check()?;
        }
        if d0 && self.draw().is_multiple_of(2) {
            self.cluster.kill_node(0)?;
            self.ledger.everything_was_lost();
            self.cluster.start_node(0)?;
            return Ok(String::from("the process with the cut log"));
        }
        self.cluster.kill_all()?;
        if d0 {
            self.ledger.everything_was_lost();
        }
        for node in 0..self.cluster.len() {
            self.cluster.start_node(node)?;
        }
        Ok(String::from("every process"))
    }

    /// Appends to every shard: acknowledged, so every member of it holds everything that is committed.
    fn probe_every_shard(&mut self) -> Result<()> {
        let config = self.cluster.config().display().to_string();
        for shard in ["0", "1"] {
            let record = Record {
                writer: u32::MAX,
                life: 0,
                seq: self.probes,
                era: self.ledger.era(),
            };
            self.probes += 1;
            let arguments = [
                "append",
                "--gsn",
                "--quiet",
                "--shard",
                shard,
                "--cluster",
                &config,
            ];
            let line = format!("{record}\n");
            let deadline = Instant::now() + RECOVERY_LIMIT;
            // A client that starts in the middle of a recovery may give up before it ends: the record is then another's.
            let output = loop {
                let output =
                    self.cluster
                        .binary()
                        .run(&arguments, line.as_bytes(), RECOVERY_LIMIT)?;
                if output.code == Some(0) || Instant::now() >= deadline {
                    break output;
                }
                self.ledger.may_be_twice(record);
            };
            if output.code != Some(0) {
                bail!("shard {shard} takes no appends: {}", output.stderr);
            }
            let gsn = String::from_utf8_lossy(&output.stdout);
            self.ledger
                .acknowledged(record, gsn.trim().parse().context("a position")?);
        }
        Ok(())
    }

    /// Reads the whole log and compares it with what was acknowledged before.
    fn check(&mut self) -> Result<()> {
        let acks = self.ledger.acks();
        let config = self.cluster.config().display().to_string();
        let text = self.cluster.binary().succeed(
            &["tail", "--json", "--from", "0", "--cluster", &config],
            b"",
            READ_LIMIT,
        )?;
        let lines = String::from_utf8(text).context("the log is not text")?;
        let lines = lines.lines().map(Line::parse).collect::<Result<Vec<_>>>()?;
        let found = self
            .judge
            .judge(&lines, &acks, self.ledger.era(), &self.ledger.twice());
        self.verdict.kept = found.kept;
        self.verdict.lost = found.lost;
        self.verdict.problems.extend(found.problems);
        Ok(())
    }

    /// A step of splitmix64.
    const fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
