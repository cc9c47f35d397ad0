//! A governed cluster under a load whose histories are kept, from its first append to the judge's word.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ionian_histcheck::Verdict;
use serde_json::Value;

use super::history::{About, Histories, Part};
use super::load::{Crew, Follower, Pace, Shared, Writer};
use super::{ACKS_BETWEEN, judge};
use crate::cluster::Durability;
use crate::governed::Governed;
use crate::process::wait_until;

/// How long the cluster may take to be whole again after anything that was done to it, and the load to go on.
pub(super) const WHOLE_LIMIT: Duration = Duration::from_secs(120);
/// The writer that appends wherever the log lets it.
pub(super) const FREE: &str = "free";

/// A shard of a log.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    pub(super) id: u32,
    pub(super) open: bool,
    /// The nodes of its replicas, from 0.
    pub(super) nodes: Vec<usize>,
}

/// What every run over a governed cluster ends with.
#[derive(Debug)]
pub struct Judged {
    /// The verdict: the judge's, or worse when something was wrong besides its findings.
    pub verdict: Verdict,
    /// What was wrong besides the judge's findings.
    pub problems: Vec<String>,
    /// The judge's words.
    pub report: String,
    /// The merged history.
    pub history: PathBuf,
    /// Records acknowledged.
    pub acked: u64,
}

impl Judged {
    /// For programs: adds the verdict, the problems and the records acknowledged to what a scenario found, an object.
    pub(super) fn told_in(&self, mut found: Value) -> Value {
        found["verdict"] = self.verdict.to_string().into();
        found["problems"] = self.problems.clone().into();
        found["acked"] = self.acked.into();
        found
    }
}

/// The cluster, its load, and what was wrong so far.
#[derive(Debug)]
pub(super) struct Bed {
    pub(super) cluster: Governed,
    pub(super) shared: Arc<Shared>,
    pub(super) crew: Crew,
    pub(super) problems: Vec<String>,
    followers: Vec<(String, Follower)>,
    at: PathBuf,
    probes: u64,
    /// Faults done.
    pub(super) faults: u64,
    /// Whether shards that come get a writer, and those that end lose theirs: it takes its time to find out what became of
    /// its records.
    pub(super) follows: bool,
}

impl Bed {
    /// Starts the load: a writer for each open shard of each log, one that is free, somebody who reads, and a follower of each
    /// log. Histories go to `at`.
    pub(super) fn start(cluster: Governed, at: &Path, logs: &[&str], seed: u64) -> Result<Self> {
        let histories = Histories::new(at)?;
        let shared = Shared::new(cluster.binary(), cluster.config(), histories);
        let mut followers = Vec::new();
        for log in logs {
            followers.push(((*log).to_owned(), Follower::of(&shared, log)?));
        }
        let mut bed = Self {
            crew: Crew::new(&shared),
            cluster,
            shared,
            problems: Vec::new(),
            followers,
            at: at.to_owned(),
            probes: 0,
            faults: 0,
            follows: true,
        };
        bed.crew.add(Writer {
            name: FREE.to_owned(),
            arguments: Vec::new(),
            pace: Pace::EVEN,
        });
        bed.crew.add_picker(seed);
        bed.follow_shards()?;
        bed.wait_for_acks()?;
        Ok(bed)
    }

    /// The name of the writer of a shard.
    pub(super) fn writer(log: &str, shard: u32) -> String {
        format!("{log}.{shard}")
    }

    /// Gives every open shard a writer, and takes it from those that have ended.
    pub(super) fn follow_shards(&mut self) -> Result<()> {
        if !self.follows {
            return Ok(());
        }
        let mut wanted = Vec::new();
        for (log, _) in &self.followers {
            let shards = self.shards(log)?;
            let open = shards.into_iter().filter(|shard| shard.open);
            wanted.extend(open.map(|shard| (log.clone(), shard.id)));
        }
        let known = self.crew.names();
        let fixed = |name: &&String| name.contains('.');
        for name in known.iter().filter(fixed) {
            if !wanted
                .iter()
                .any(|(log, id)| Self::writer(log, *id) == **name)
            {
                self.crew.retire(name);
            }
        }
        for (log, shard) in wanted {
            let name = Self::writer(&log, shard);
            if !known.contains(&name) {
                self.crew.add(Writer {
                    name: name.clone(),
                    arguments: ["--log", &log, "--shard", &shard.to_string()]
                        .map(str::to_owned)
                        .to_vec(),
                    pace: Pace::EVEN,
                });
                self.wait_for(&name)?;
            }
        }
        Ok(())
    }

    /// The shards of a log.
    pub(super) fn shards(&self, log: &str) -> Result<Vec<Shard>> {
        let described = self.cluster.log(log)?;
        let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
        let shards = list(&described, "shards").into_iter().map(|shard| {
            let nodes = list(&shard, "replicas").into_iter();
            let nodes = nodes.filter_map(|replica| replica["node"].as_u64());
            Shard {
                id: shard["shard"].as_u64().unwrap_or(0) as u32,
                open: shard["stage"] == "open",
                nodes: nodes.map(|node| node as usize - 1).collect(),
            }
        });
        Ok(shards.collect())
    }

    /// Now, in nanoseconds since 1970.
    pub(super) fn now_ns(&self) -> u64 {
        self.shared.histories.now_ns()
    }

    /// Waits until the load has gone on for a while.
    pub(super) fn wait_for_acks(&self) -> Result<()> {
        let enough = self.shared.acked() + ACKS_BETWEEN;
        if !wait_until(WHOLE_LIMIT, || Ok(self.shared.acked() >= enough))? {
            bail!("the load stands still: {}", self.shared.last_words());
        }
        Ok(())
    }

    /// Waits until a writer gets something acknowledged.
    pub(super) fn wait_for(&self, writer: &str) -> Result<()> {
        let before = self.crew.acked(writer);
        if !wait_until(WHOLE_LIMIT, || Ok(self.crew.acked(writer) > before))? {
            let words = self.shared.last_words();
            bail!("{writer} gets nothing acknowledged: {words}");
        }
        Ok(())
    }

    /// Waits until the cluster is whole and every writer gets something acknowledged.
    pub(super) fn wait_well(&mut self) -> Result<()> {
        self.cluster.wait_whole(WHOLE_LIMIT)?;
        self.follow_shards()?;
        let names = self.crew.names();
        names
            .iter()
            .filter(|name| *name != "picker")
            .try_for_each(|name| self.wait_for(name))
    }

    /// Tells the history of a fault, or of its end.
    pub(super) fn told(&mut self, id: u64, kind: &str, on: &[String], state: &str) {
        self.shared.histories.nemesis(id, kind, on, state, false);
    }

    /// The next fault's number.
    pub(super) fn next_fault(&mut self) -> u64 {
        self.faults += 1;
        self.faults
    }

    /// Ends the load and the cluster: the followers get to the end, every log is read twice, and the judge has the word.
    pub(super) fn finish(mut self, run: &str, seed: u64) -> Result<Judged> {
        let crew = std::mem::replace(&mut self.crew, Crew::new(&self.shared));
        crew.stop();
        if let Err(error) = self.read_everything() {
            self.problems.push(format!("{error:#}"));
        }
        let Self {
            cluster,
            shared,
            mut problems,
            at,
            faults,
            ..
        } = self;
        if let Err(error) = cluster.stop() {
            problems.push(format!("{error:#}"));
        }
        let history = at.join("history.jsonl");
        let about = About {
            run: run.to_owned(),
            seed,
            durability: Durability::D1,
            faults,
            live_ns: WHOLE_LIMIT.as_nanos() as u64,
        };
        shared.histories.merge(&about, &history)?;
        let report = judge(&history)?;
        let mut verdict = report.verdict();
        if shared.killed() > 0 && verdict == Verdict::Pass {
            // What they did is not in the history.
            problems.push(format!("{} clients did not end", shared.killed()));
            verdict = Verdict::Unknown;
        } else if !problems.is_empty() && verdict != Verdict::HarnessError {
            verdict = Verdict::Fail;
        }
        Ok(Judged {
            verdict,
            problems,
            report: report.text(),
            history,
            acked: shared.acked(),
        })
    }

    fn read_everything(&mut self) -> Result<()> {
        self.shared.histories.healed()?;
        self.cluster.wait_whole(WHOLE_LIMIT)?;
        for (log, follower) in std::mem::take(&mut self.followers) {
            for shard in self.shards(&log)?.iter().filter(|shard| shard.open) {
                self.probe(&log, shard.id)?;
            }
            let there = follower.end_at(self.probes, WHOLE_LIMIT)?;
            for reader in ["final-a", "final-b"] {
                let line = ["tail", "--log", &log];
                let (code, _) = self.shared.once(reader, &line, b"", Part::Final)?;
                if code != Some(0) {
                    bail!("{log} cannot be read: {}", self.shared.last_words());
                }
            }
            if !there {
                bail!("the follower of {log} does not get to its end");
            }
        }
        Ok(())
    }

    /// Appends to a shard, now or once it can.
    fn probe(&mut self, log: &str, shard: u32) -> Result<u64> {
        let deadline = Instant::now() + WHOLE_LIMIT;
        loop {
            self.probes += 1;
            // A client that starts in the middle of a recovery may give up before it ends.
            match self.shared.probe_log(log, shard as usize, self.probes) {
                Err(error) if Instant::now() >= deadline => {
                    return Err(error).context("the last probes");
                }
                Err(_) => {}
                Ok(gsn) => return Ok(gsn),
            }
        }
    }
}
