//! The controllers die, are cut off, run out of space and lose snapshots, while appends and reads go on all the time.
//!
//! In between the cluster is changed, and what operators are answered is kept: whoever leads later must know every view and
//! every change that was told, under the same number. Without a majority nothing can be changed, which is said at once.

mod record;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::bed::{Bed, FREE, Judged, WHOLE_LIMIT};
use super::history::Part;
use super::plan::Random;
use crate::binary::Binary;
use crate::disk::SmallDisk;
use crate::governed::{CONTROLLERS, Governed, Layout, Who, site};
use crate::net::{Cut, Net};
use crate::process::wait_until;
use record::Record;

const LOG: &str = "default";
/// Each second change of a run leaves a copy of a shard on two nodes.
const COPIES: u64 = 128;
/// Entries after which a controller makes a snapshot: some changes.
const SNAPSHOT_ENTRIES: u64 = 40;
/// The controller whose disk can be full, and how large it is: what an empty one takes, and some changes.
const SMALL: Who = Who::Controller(2);
const SMALL_DISK_MIB: u64 = 32;
/// The exit code of a command that found no majority.
const NO_QUORUM: i32 = 3;
/// Refusals that are timed each time that there is no majority.
const REFUSALS: usize = 3;
/// A refusal is to take at most so long.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How long a controller may take to find out that its disk is full, or its snapshot cut.
const FOUND_LIMIT: Duration = Duration::from_secs(60);
/// Deaths of leaders at the end, so that each controller leads once.
const TURNS_MAX: usize = 12;

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// For how long there are faults. At least one round of all is done.
    pub duration: Duration,
    /// Whether every controller is to lead in the end, so that each is asked.
    pub turns: bool,
    /// Chooses the order.
    pub seed: u64,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The judge's word; the verdict is worse than that when controllers contradict each other or do not recover.
    pub judged: Judged,
    /// Faults done, by name, and those that cannot be done here, with the reason.
    pub faults: Vec<(&'static str, u64)>,
    /// Faults that cannot be done here.
    pub skipped: Vec<String>,
    /// Views and changes that were told and compared.
    pub views: usize,
    /// Changes that operators were told are done.
    pub changes: usize,
    /// Controllers whose word was taken as leaders.
    pub leaders: Vec<String>,
    /// How long each refusal without a majority took.
    pub refusals: Vec<Duration>,
}

impl Outcome {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, count) in &self.faults {
            text += &format!("{name:<16} {count} times\n");
        }
        for skipped in &self.skipped {
            text += &format!("skipped: {skipped}\n");
        }
        let worst = self.refusals.iter().max().copied().unwrap_or_default();
        let met = if worst <= AT_ONCE { "met" } else { "missed" };
        text += &format!(
            "{} views and {} changes are the same by the word of {}\n\
             without a majority a change was refused {} times, after {:.0} ms at most; goal {:.0} ms: {met}\n",
            self.views,
            self.changes,
            self.leaders.join(", "),
            self.refusals.len(),
            worst.as_secs_f64() * 1e3,
            AT_ONCE.as_secs_f64() * 1e3,
        );
        text
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let ms = |time: &Duration| time.as_secs_f64() * 1e3;
        let worst = self.refusals.iter().max().map(ms);
        self.judged.told_in(serde_json::json!({
            "faults": self.faults.iter().map(|(name, count)| serde_json::json!({"fault": name, "times": count})).collect::<Vec<_>>(),
            "skipped": self.skipped, "views": self.views, "changes": self.changes,
            "leaders": self.leaders,
            "refusal_ms": self.refusals.iter().map(ms).collect::<Vec<_>>(),
            "goals": [{"name": "refused without a majority, ms, worst", "found": worst, "goal": ms(&AT_ONCE),
                       "state": if worst.is_none_or(|worst| worst <= ms(&AT_ONCE)) { "met" } else { "missed" }}],
        }))
    }
}

/// What is done to controllers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// The leader, then the next one: no majority.
    Deaths,
    /// The leader is cut off from the others.
    LeaderCutOff,
    /// Each is alone.
    AllCutOff,
    DiskFull,
    SnapshotCut,
}

impl Fault {
    const ALL: [Self; 5] = [
        Self::Deaths,
        Self::LeaderCutOff,
        Self::AllCutOff,
        Self::DiskFull,
        Self::SnapshotCut,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Deaths => "deaths",
            Self::LeaderCutOff => "leader-cut-off",
            Self::AllCutOff => "all-cut-off",
            Self::DiskFull => "disk-full",
            Self::SnapshotCut => "snapshot-cut",
        }
    }
}

struct Run<'a> {
    // In the order in which they go: processes, then what they stand on.
    bed: Bed,
    disk: Option<SmallDisk>,
    net: Option<Net>,
    record: Record,
    added: Vec<u32>,
    done: Vec<(&'static str, u64)>,
    skipped: Vec<String>,
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
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let dir = dir
        .canonicalize()
        .with_context(|| format!("finding {}", dir.display()))?;
    let mut layout = Layout {
        nodes: 5,
        roots: 3,
        shards: &[&[3, 4]],
        tree: None,
        dead_after_ms: 1_000,
        snapshot_entries: Some(SNAPSHOT_ENTRIES),
        copies_planned: Some(COPIES),
        data: Vec::new(),
    };
    let mut skipped = Vec::new();
    let net = match Net::missing() {
        None => Some(Net::make(layout.sites())?),
        Some(why) => {
            skipped.push(format!("partitions: {why}"));
            None
        }
    };
    let disk = match SmallDisk::make(&dir, 1, SMALL_DISK_MIB) {
        Ok(disk) => {
            layout.data.push((SMALL, disk.path().join("data")));
            Some(disk)
        }
        Err(why) => {
            skipped.push(format!("a full disk: {why:#}"));
            None
        }
    };
    let cluster = Governed::found(binary, &dir, &layout, net.as_ref())?;
    let at = histories.unwrap_or(&dir).to_owned();
    let mut bed = Bed::start(cluster, &at, &[LOG], plan.seed)?;
    // The shards that come and go are changes to be remembered, not a load.
    bed.follows = false;
    let mut run = Run {
        bed,
        disk,
        net,
        record: Record::default(),
        added: Vec::new(),
        done: Vec::new(),
        skipped,
        say: &mut say,
        stop: &stop,
    };
    if let Err(error) = run.rounds(plan) {
        run.bed.problems.push(format!("{error:#}"));
    }
    let Run {
        mut bed,
        disk,
        net,
        record,
        done,
        skipped,
        ..
    } = run;
    bed.problems.extend(record.contradictions.iter().cloned());
    let judged = bed.finish("chaos controllers", plan.seed)?;
    drop((disk, net));
    Ok(Outcome {
        judged,
        faults: done,
        skipped,
        views: record.views(),
        changes: record.changes(),
        leaders: record.leaders.iter().map(|who| who.name()).collect(),
        refusals: record.refusals,
    })
}

impl Run<'_> {
    fn rounds(&mut self, plan: &Plan) -> Result<()> {
        let mut random = Random::new(plan.seed);
        let end = Instant::now() + plan.duration;
        // What is compared later.
        self.change()?;
        self.record.compare(&self.bed.cluster, LOG)?;
        loop {
            let mut faults = Fault::ALL;
            random.shuffle(&mut faults);
            for fault in faults {
                ensure!(!(self.stop)(), "it was asked to end");
                self.one(fault)
                    .with_context(|| format!("fault {}", fault.name()))?;
            }
            if Instant::now() >= end {
                break;
            }
        }
        if plan.turns {
            self.turns()?;
        }
        self.same_version()
    }

    /// One fault, from a whole cluster to a whole cluster.
    fn one(&mut self, fault: Fault) -> Result<()> {
        let possible = match fault {
            Fault::LeaderCutOff | Fault::AllCutOff => self.net.is_some(),
            Fault::DiskFull => self.disk.is_some(),
            Fault::Deaths | Fault::SnapshotCut => true,
        };
        if !possible {
            return Ok(());
        }
        self.bed.wait_well()?;
        let id = self.bed.next_fault();
        self.bed.told(id, fault.name(), &[], "installed");
        let began = Instant::now();
        let what = match fault {
            Fault::Deaths => self.deaths()?,
            Fault::LeaderCutOff => self.leader_cut_off()?,
            Fault::AllCutOff => self.all_cut_off()?,
            Fault::DiskFull => self.disk_full()?,
            Fault::SnapshotCut => self.snapshot_cut()?,
        };
        self.bed.wait_well()?;
        self.bed.told(id, fault.name(), &[], "healed");
        self.change()?;
        self.record.compare(&self.bed.cluster, LOG)?;
        (self.say)(&format!(
            "{}: {what}; whole again and changed after {:.1} s",
            fault.name(),
            began.elapsed().as_secs_f64()
        ));
        match self.done.iter_mut().find(|(name, _)| *name == fault.name()) {
            Some((_, count)) => *count += 1,
            None => self.done.push((fault.name(), 1)),
        }
        Ok(())
    }

    /// Changes the cluster: one more shard, or one less. Asked again until it is done: a leader that dies may have begun it.
    fn change(&mut self) -> Result<()> {
        let last = self.added.last().map(ToString::to_string);
        let mut line = vec!["shard", "add", LOG, "--nodes", "n4,n5"];
        if let Some(shard) = &last {
            line = vec!["shard", "finalize", LOG, shard];
        }
        line.extend(["--json", "--wait", "30", "--timeout", "60"]);
        let mut said = String::new();
        let done = wait_until(WHOLE_LIMIT, || {
            let output = self.bed.cluster.ask_patiently(&line)?;
            said = output.stderr;
            if output.code == Some(0) {
                let answer = serde_json::from_slice(&output.stdout).context("the answer")?;
                self.record.answered(&answer);
            }
            Ok(output.code == Some(0))
        })?;
        ensure!(done, "`ionian {}`: {}", line.join(" "), said.trim());
        let shards = self.bed.shards(LOG)?;
        let open = shards.iter().filter(|shard| shard.open && shard.id > 0);
        self.added = open.map(|shard| shard.id).collect();
        Ok(())
    }

    /// Everybody who appends gets acknowledgements, and what was written can be read.
    fn goes_on(&self) -> Result<()> {
        // Other shards come and go.
        self.bed.wait_for(&Bed::writer(LOG, 0))?;
        self.bed.wait_for(FREE)?;
        let (code, _) = self
            .bed
            .shared
            .once("reader", &["read", "0"], b"", Part::Client)?;
        ensure!(code == Some(0), "{}", self.bed.shared.last_words());
        Ok(())
    }

    /// There is no majority: changes are refused, at once, and everything else goes on.
    fn refused(&mut self) -> Result<()> {
        let line = ["shard", "add", LOG, "--nodes", "n4,n5", "--no-wait"];
        let mut said = String::new();
        let mut refusals = Vec::new();
        // A leader holds its lease for a while.
        wait_until(FOUND_LIMIT, || {
            let output = self.bed.cluster.ask(&line)?;
            said.clone_from(&output.stderr);
            if output.code == Some(NO_QUORUM) {
                refusals.push(output.elapsed);
            }
            Ok(refusals.len() >= REFUSALS)
        })?;
        if refusals.len() < REFUSALS {
            bail!("without a majority a change is not refused as such: {said}");
        }
        self.record.refusals.extend(refusals);
        self.goes_on()
    }

    fn leader(&self) -> Result<Who> {
        self.bed.cluster.leader()?.context("no controller leads")
    }

    /// The leader dies, another one leads and takes a change; it dies too, and there is no majority.
    fn deaths(&mut self) -> Result<String> {
        let first = self.leader()?;
        self.bed.cluster.kill(first)?;
        self.goes_on()?;
        self.change()?;
        self.record.compare(&self.bed.cluster, LOG)?;
        let second = self.leader()?;
        self.bed.cluster.kill(second)?;
        self.refused()?;
        self.bed.cluster.start(second)?;
        self.change()?;
        self.bed.cluster.start(first)?;
        let (first, second) = (first.name(), second.name());
        Ok(format!("kill -9 of {first}, which led, then of {second}"))
    }

    fn cut(&mut self, alone: &[Who]) -> Result<Vec<Cut>> {
        let mut cuts = Vec::new();
        for from in 0..CONTROLLERS {
            for to in (0..CONTROLLERS).filter(|to| *to != from) {
                let (from, to) = (Who::Controller(from), Who::Controller(to));
                if alone.contains(&from) || alone.contains(&to) {
                    let (from, to) = (site(from), site(to));
                    cuts.push(Cut { from, to });
                }
            }
        }
        self.net.as_mut().context("a network")?.cut(&cuts)?;
        Ok(cuts)
    }

    fn mend(&mut self, cuts: &[Cut]) -> Result<()> {
        self.net.as_mut().context("a network")?.mend(cuts)
    }

    fn leader_cut_off(&mut self) -> Result<String> {
        let leader = self.leader()?;
        let cuts = self.cut(&[leader])?;
        self.goes_on()?;
        // Whoever asks the old leader is told that it has no majority, and finds the new one.
        let began = Instant::now();
        let changed = self.change();
        let took = began.elapsed().as_secs_f64();
        self.mend(&cuts)?;
        changed?;
        let name = leader.name();
        Ok(format!(
            "{name}, which led, cut off from the others, who took a change after {took:.1} s"
        ))
    }

    fn all_cut_off(&mut self) -> Result<String> {
        let everybody: Vec<Who> = (0..CONTROLLERS).map(Who::Controller).collect();
        let cuts = self.cut(&everybody)?;
        let refused = self.refused();
        self.mend(&cuts)?;
        refused?;
        Ok(String::from("all cut off from each other"))
    }

    /// One controller has no space: it stops rather than to forget, and the others go on.
    fn disk_full(&mut self) -> Result<String> {
        self.disk.as_mut().context("a disk")?.fill()?;
        let mut tries = 0;
        let stopped = wait_until(FOUND_LIMIT, || {
            tries += 1;
            self.change()?;
            self.bed.cluster.has_ended(SMALL)
        });
        let words = self.bed.cluster.last_words(SMALL);
        self.disk.as_mut().context("a disk")?.free()?;
        let stopped = stopped?;
        self.goes_on()?;
        self.bed.cluster.kill(SMALL)?;
        self.bed.cluster.start(SMALL)?;
        let name = SMALL.name();
        if !stopped {
            return Ok(format!(
                "the disk of {name} full for {tries} changes, unnoticed"
            ));
        }
        let words = words.lines().last().unwrap_or_default().to_owned();
        Ok(format!("the disk of {name} full, and it stopped: {words}"))
    }

    /// A snapshot is cut: with the one before it and the log a controller goes on; without any it does not vote.
    fn snapshot_cut(&mut self) -> Result<String> {
        // One that follows.
        let leader = self.leader()?;
        let victims = (0..CONTROLLERS).map(Who::Controller);
        let mut victims = victims.filter(|who| *who != leader && *who != SMALL);
        let who = victims.next().context("a controller that follows")?;
        let folder = self.bed.cluster.data_dir(who);
        while snapshots(&folder)?.len() < 2 {
            ensure!(!(self.stop)(), "it was asked to end");
            self.change()?;
        }
        self.bed.cluster.end(who)?;
        let found = snapshots(&folder)?;
        let newest = found.last().context("a snapshot")?;
        cut_in_half(newest)?;
        self.bed.cluster.start(who)?;
        self.bed.cluster.wait_whole(WHOLE_LIMIT)?;
        self.change()?;
        self.bed.cluster.end(who)?;
        let mut kept = Vec::new();
        for path in snapshots(&folder)? {
            kept.push((path.clone(), std::fs::read(&path)?));
            cut_in_half(&path)?;
        }
        self.bed.cluster.start(who)?;
        let cluster = &mut self.bed.cluster;
        let refused = wait_until(FOUND_LIMIT, || cluster.has_ended(who))?;
        let words = self.bed.cluster.last_words(who);
        ensure!(
            refused && words.contains("no snapshot in"),
            "{} goes on without any snapshot: {words}",
            who.name()
        );
        self.change()?;
        self.goes_on()?;
        for (path, bytes) in kept {
            std::fs::write(path, bytes)?;
        }
        self.bed.cluster.kill(who)?;
        self.bed.cluster.start(who)?;
        Ok(format!(
            "the newest snapshot of {0} cut, then every one: {0} did not start",
            who.name()
        ))
    }

    /// Has every controller lead once, as far as elections have it so.
    fn turns(&mut self) -> Result<()> {
        for _ in 0..TURNS_MAX {
            self.bed.wait_well()?;
            self.record.compare(&self.bed.cluster, LOG)?;
            if self.record.leaders.len() == CONTROLLERS {
                break;
            }
            let leader = self.leader()?;
            let id = self.bed.next_fault();
            self.bed.told(id, "kill9", &[leader.name()], "installed");
            self.bed.cluster.kill(leader)?;
            self.bed
                .cluster
                .until("another leads", WHOLE_LIMIT, |cluster| {
                    Ok(cluster.leader()?.is_some_and(|now| now != leader))
                })?;
            self.record.compare(&self.bed.cluster, LOG)?;
            self.bed.cluster.start(leader)?;
            self.bed.wait_well()?;
            self.bed.told(id, "kill9", &[leader.name()], "healed");
        }
        Ok(())
    }

    /// At rest all controllers have the same state.
    fn same_version(&mut self) -> Result<()> {
        self.bed.wait_well()?;
        self.bed
            .cluster
            .until("the same state on all", WHOLE_LIMIT, |cluster| {
                let group = cluster.group()?;
                let all = group["controllers"].as_array().context("controllers")?;
                let first = &all[0];
                let same = |one: &Value| {
                    let version = one["version"].is_u64() && one["version"] == first["version"];
                    version && one["applied_index"] == first["applied_index"]
                };
                Ok(all.iter().all(same))
            })
    }
}

/// The snapshots of a controller, oldest first.
fn snapshots(folder: &Path) -> Result<Vec<PathBuf>> {
    let files =
        std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let names = files.flatten().map(|file| file.path());
    let mut found: Vec<PathBuf> = names
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("snapshot-") && index(path).is_some()
        })
        .collect();
    found.sort_by_key(|path| index(path));
    Ok(found)
}

/// The entry that a snapshot ends with: the last part of its name.
fn index(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_string_lossy();
    name.rsplit('-').next()?.parse().ok()
}

fn cut_in_half(path: &Path) -> Result<()> {
    let file = std::fs::File::options()
        .write(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    file.set_len(file.metadata()?.len() / 2)?;
    Ok(())
}
