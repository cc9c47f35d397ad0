//! Faults under load in a cluster of real processes, and the verdict on what its clients called and saw.
//!
//! A run is a row of windows. In each one the load goes on, none or some faults are done, held and undone, and then every
//! shard must take appends again. When the time is over the log is read to its end, the histories of all clients and of the
//! nemesis are merged into one (`hist/1`), and the judge has the word. Everything is drawn from the seed; how long things
//! take is not, so that the same seed does the same things at somewhat different moments.
//!
//! As root each node and the clients have a network namespace of their own, and one node a small file system; otherwise
//! the cluster is on loopback, and the faults that need those are skipped, which the history says.

mod acks;
mod bed;
mod clock;
pub mod controllers;
mod faults;
mod history;
mod load;
mod plan;
pub mod reconfigure;
pub mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ionian_histcheck::{Judge, Report, attach_lines, read_lines};

pub use bed::Judged;
pub use ionian_histcheck::Verdict;
pub use plan::{Kind, Plan, Scenario};

use crate::binary::Binary;
use crate::cluster::Cluster;
use crate::disk::SmallDisk;
use crate::net::Net;
use crate::process::wait_until;
use faults::{Fault, Field, SMALL, Tried};
use history::{About, Histories, Part};
use load::{Burst, Crew, Follower, Shared};
use plan::Random;

/// How long the cluster may take to take appends again after the faults are over, and the load to go on.
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);
/// Acknowledgements between two windows, so that there is something to lose.
const ACKS_BETWEEN: u64 = 200;
/// The size of the small disk: three times what a node takes for its empty files.
const SMALL_DISK_MIB: u64 = 1024;
/// How long the first repair may take, before it is taken that nothing has been read that needs one.
const REPAIR_LIMIT: Duration = Duration::from_secs(5);
/// A shard of which nothing was acknowledged for this long stands still.
const STALLED_AFTER: Duration = Duration::from_secs(4);
/// How long a full disk may take to be noticed.
const FULL_LIMIT: Duration = Duration::from_secs(30);

/// The place of `unknown` among the states of a fault.
const UNKNOWN: usize = 2;

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The verdict: the judge's, or worse when the cluster did not recover.
    pub verdict: Verdict,
    /// What was wrong besides the judge's findings.
    pub problems: Vec<String>,
    /// The judge's words.
    pub report: String,
    /// The merged history.
    pub history: PathBuf,
    /// Windows done.
    pub windows: u64,
    /// Faults by kind: installed, skipped, unknown.
    pub faults: BTreeMap<&'static str, [u64; 3]>,
    /// Records acknowledged.
    pub acked: u64,
    /// Records that were repaired from the peer after bits had flipped, as the nodes count them.
    pub repaired: u64,
    /// Damage that nobody has read yet: it is found, and repaired, when somebody does.
    pub unread_damage: Vec<String>,
    /// The longest time from the end of the faults until every shard took appends again.
    pub recovery_max: Duration,
}

/// Does a plan to a new cluster in `dir`. Ends early, with the verdict so far, when `stop` says so; tells `say` of every
/// window. The merged history is `history.jsonl` in `histories`, or in `dir`.
///
/// # Errors
/// When the cluster cannot be run at all, or there is no whole history: the harness's fault. What the cluster did wrong is in
/// the outcome.
pub fn run(
    binary: &Binary,
    dir: &Path,
    plan: &Plan,
    histories: Option<&Path>,
    stop: impl Fn() -> bool,
    mut say: impl FnMut(&str),
) -> Result<Outcome> {
    let mut field = set_up(binary, dir, plan, &mut say)?;
    field.cluster.wait_able(RECOVERY_LIMIT)?;
    let at = histories.unwrap_or(dir);
    let histories = Histories::new(at)?;
    let shared = Shared::new(field.cluster.binary(), field.cluster.config(), histories);
    let follower = Follower::start(&shared)?;
    let crew = Crew::start(&shared, plan.writers, plan.seed);
    let mut run = Run {
        field,
        shared,
        plan: *plan,
        probes: 0,
        numbers: 0,
        announced: 0,
        windows: 0,
        faults: BTreeMap::new(),
        recovery_max: Duration::ZERO,
        repaired: 0,
        problems: Vec::new(),
    };
    let end = Instant::now() + plan.duration;
    if let Err(error) = run.windows_until(end, &stop, &mut say) {
        run.problems.push(format!("{error:#}"));
    }
    crew.stop();
    if let Err(error) = run.finish(follower) {
        run.problems.push(format!("{error:#}"));
    }
    run.judge(at)
}

/// The network, the disk and the cluster, as far as this machine has them.
fn set_up(binary: &Binary, dir: &Path, plan: &Plan, say: &mut impl FnMut(&str)) -> Result<Field> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let dir = &dir
        .canonicalize()
        .with_context(|| format!("finding {}", dir.display()))?;
    let kinds = plan.scenario.kinds();
    let (mut net, mut net_missing) = (None, String::new());
    match Net::missing() {
        None => net = Some(Net::make(Cluster::NODES + 1)?),
        Some(why) => {
            say(&format!("on loopback: {why}"));
            net_missing = why;
        }
    }
    let (mut disk, mut disk_missing) = (None, String::new());
    if kinds.contains(&Kind::DiskFull) {
        match SmallDisk::make(dir, 0, SMALL_DISK_MIB) {
            Ok(made) => disk = Some(made),
            Err(error) => disk_missing = format!("{error:#}"),
        }
    }
    // A new file system is not quite empty.
    let data = disk.as_ref().map(|disk| disk.path().join("data"));
    let data: Vec<(usize, &Path)> = data.iter().map(|data| (SMALL, data.as_path())).collect();
    let cluster = Cluster::start_on(binary, dir, plan.durability, net.as_ref(), &data)?;
    let mut field = Field::new(cluster, plan.durability, Random::new(plan.seed));
    (field.net, field.net_missing) = (net, net_missing);
    (field.disk, field.disk_missing) = (disk, disk_missing);
    Ok(field)
}

struct Run {
    field: Field,
    shared: Arc<Shared>,
    plan: Plan,
    probes: u64,
    /// Faults tried.
    numbers: u64,
    /// Faults that must have taken hold.
    announced: u64,
    windows: u64,
    faults: BTreeMap<&'static str, [u64; 3]>,
    recovery_max: Duration,
    repaired: u64,
    problems: Vec<String>,
}

impl Run {
    fn windows_until(
        &mut self,
        end: Instant,
        stop: &impl Fn() -> bool,
        say: &mut impl FnMut(&str),
    ) -> Result<()> {
        let mut round = Vec::new();
        // At least one, however short the time.
        while (self.windows == 0 || Instant::now() < end) && !stop() {
            if round.is_empty() {
                round = self.plan.scenario.round(&mut self.field.random);
                round.reverse();
            }
            let kinds = round.pop().unwrap_or_default();
            self.windows += 1;
            self.wait_for_acks()?;
            self.window(&kinds, stop, say)?;
        }
        self.wait_for_acks()
    }

    /// Waits until the load has gone on for a while.
    fn wait_for_acks(&self) -> Result<()> {
        let enough = self.shared.acked() + ACKS_BETWEEN;
        if !wait_until(RECOVERY_LIMIT, || Ok(self.shared.acked() >= enough))? {
            bail!(
                "the load stands still: {} records acknowledged; the clients last said: {}",
                self.shared.acked(),
                self.shared.last_words()
            );
        }
        Ok(())
    }

    /// One window: faults, a while with them, their end, and the recovery.
    fn window(
        &mut self,
        kinds: &[Kind],
        stop: &impl Fn() -> bool,
        say: &mut impl FnMut(&str),
    ) -> Result<()> {
        let (mut faults, mut burst) = (Vec::new(), None);
        let mut words: Vec<String> = Vec::new();
        for kind in kinds {
            self.numbers += 1;
            let id = self.numbers;
            let (state, on, beyond_f) = match self.field.install(*kind, kinds.len() == 1) {
                Ok(Tried::NoPlace) => continue,
                Ok(Tried::Skipped(why)) => {
                    words.push(format!("{} skipped: {why}", kind.name()));
                    (1, Vec::new(), false)
                }
                Ok(Tried::Installed(fault)) => {
                    words.push(fault.what.clone());
                    let on = fault.on.clone();
                    let beyond_f = fault.beyond_f;
                    let mut state = 0;
                    if *kind == Kind::DiskFull {
                        let (started, noticed) = self.until_full(kinds.len() == 1)?;
                        burst = Some(started);
                        words.push(noticed.unwrap_or("which nobody noticed").to_owned());
                        if noticed.is_none() {
                            state = UNKNOWN;
                        }
                    }
                    faults.push((id, fault));
                    (state, on, beyond_f)
                }
                Err(error) => {
                    words.push(format!("{}: {error:#}", kind.name()));
                    self.problems.push(format!("{}: {error:#}", kind.name()));
                    (UNKNOWN, Vec::new(), false)
                }
            };
            // With other faults it may stay open whether the node came to notice a full disk: that is told, and not asked for.
            self.announced += u64::from(state != UNKNOWN || kinds.len() == 1);
            self.faults.entry(kind.name()).or_default()[state] += 1;
            let state = ["installed", "skipped", "unknown"][state];
            self.told(id, *kind, &on, state, beyond_f);
        }
        let hold = self.hold_time(&faults);
        self.field.hold(hold, stop)?;
        let began = Instant::now();
        for (id, fault) in &faults {
            self.field.heal(fault)?;
            self.told(*id, fault.kind, &fault.on, "healed", false);
        }
        if let Some(burst) = burst {
            burst.end()?;
        }
        self.field.cluster.wait_able(RECOVERY_LIMIT)?;
        self.probe_every_shard()?;
        let took = began.elapsed();
        self.recovery_max = self.recovery_max.max(took);
        if words.is_empty() {
            words.push("no fault".to_owned());
        }
        for (_, fault) in faults
            .iter()
            .filter(|(_, fault)| fault.kind == Kind::BitFlip)
        {
            words.push(self.repairs(&fault.on)?);
        }
        if faults.iter().any(|(_, fault)| fault.kind == Kind::DiskFull) {
            words.push(self.trim()?);
        }
        say(&format!(
            "window {}: {}; held {:.1} s; every shard takes appends again after {:.1} s; {} records acknowledged so far",
            self.windows,
            words.join("; "),
            hold.as_secs_f64(),
            took.as_secs_f64(),
            self.shared.acked()
        ));
        Ok(())
    }

    fn told(&self, id: u64, kind: Kind, on: &[usize], state: &str, beyond_f: bool) {
        let on: Vec<String> = on.iter().map(|node| Cluster::name(*node)).collect();
        self.shared
            .histories
            .nemesis(id, kind.name(), &on, state, beyond_f);
    }

    /// Half of the pauses are shorter than the second after which a silent peer is given up, half of them longer. A dead
    /// process may be started again at once.
    fn hold_time(&mut self, faults: &[(u64, Fault)]) -> Duration {
        let random = &mut self.field.random;
        let ms = match faults {
            [] => 500 + random.below(1_000),
            // What is done to the network needs some time to be noticed.
            _ if random.below(2) == 0
                && !faults.iter().any(|(_, fault)| fault.kind.needs_network()) =>
            {
                10 + random.below(800)
            }
            _ => 1_200 + random.below(2_500),
        };
        Duration::from_millis(ms)
    }

    /// Large records to the shard of the small disk, until its node says that its store is full, or nothing more is
    /// acknowledged: whoever holds the other copy waits for it.
    fn until_full(&mut self, alone: bool) -> Result<(Burst, Option<&'static str>)> {
        let burst = Burst::start(&self.shared, Cluster::SHARDS - 1)?;
        // With other faults it may take until after them.
        let limit = if alone { FULL_LIMIT } else { FULL_LIMIT / 6 };
        let mut noticed = None;
        let (mut acked, mut since) = (0, Instant::now());
        wait_until(limit, || {
            if burst.acked() > acked {
                (acked, since) = (burst.acked(), Instant::now());
            }
            if self.field.cluster.status()?.contains("store is full") {
                noticed = Some("its store says so");
            } else if alone && since.elapsed() > STALLED_AFTER {
                noticed = Some("its shard stands still");
            }
            Ok(noticed.is_some())
        })?;
        Ok((burst, noticed))
    }

    /// What was repaired after bits had flipped. That may be less than what flipped: a start reads what was written since
    /// the last checkpoint, and the rest is found when somebody reads it.
    fn repairs(&mut self, nodes: &[usize]) -> Result<String> {
        let mut repaired = 0;
        wait_until(REPAIR_LIMIT, || {
            let counts = nodes.iter().map(|node| self.field.cluster.repaired(*node));
            repaired = counts.sum::<Result<u64>>()?;
            Ok(repaired > 0)
        })?;
        self.repaired += repaired;
        self.shared.histories.repaired(repaired);
        Ok(format!("{repaired} records repaired"))
    }

    /// Trims the older half, so that a long run does not fill the disk for good.
    fn trim(&self) -> Result<String> {
        let below = (self.shared.end() / 2).to_string();
        let (code, _) =
            self.shared
                .once("trim", &["trim", "--before", &below], b"", Part::Client)?;
        if code != Some(0) {
            bail!("the log was not trimmed: {}", self.shared.last_words());
        }
        Ok(format!("trimmed below {below}"))
    }

    /// Appends to every shard: acknowledged, so every member of it holds everything that is committed.
    fn probe_every_shard(&mut self) -> Result<()> {
        for shard in 0..Cluster::SHARDS {
            let deadline = Instant::now() + RECOVERY_LIMIT;
            loop {
                self.probes += 1;
                // A client that starts in the middle of a recovery may give up before it ends.
                match self.shared.probe(shard, self.probes) {
                    Err(error) if Instant::now() >= deadline => return Err(error),
                    Err(_) => {}
                    Ok(_) => break,
                }
            }
        }
        Ok(())
    }

    /// The end: everything was undone and the writers have stopped. Whoever follows gets to the end, and the whole log is
    /// read twice.
    fn finish(&mut self, follower: Follower) -> Result<()> {
        self.shared.histories.healed()?;
        self.field.cluster.wait_able(RECOVERY_LIMIT)?;
        self.probe_every_shard()?;
        let there = follower.end_at(self.probes, RECOVERY_LIMIT)?;
        for reader in ["final-a", "final-b"] {
            let (code, _) = self.shared.once(reader, &["tail"], b"", Part::Final)?;
            if code != Some(0) {
                bail!("the log cannot be read: {}", self.shared.last_words());
            }
        }
        if !there {
            bail!(
                "a follower is not at the end of the log after {} s",
                RECOVERY_LIMIT.as_secs()
            );
        }
        Ok(())
    }

    /// Ends the cluster, looks at its files, merges the histories and judges them.
    fn judge(self, at: &Path) -> Result<Outcome> {
        let Self {
            field,
            shared,
            plan,
            mut problems,
            ..
        } = self;
        let Field {
            cluster, disk, net, ..
        } = field;
        let folders: Vec<PathBuf> = (0..Cluster::NODES)
            .map(|node| cluster.data_dir(node).to_owned())
            .collect();
        let binary = cluster.binary().clone();
        if let Err(error) = cluster.stop() {
            problems.push(format!("{error:#}"));
        }
        let mut unread_damage = Vec::new();
        if self.faults.contains_key(Kind::BitFlip.name()) {
            for (node, folder) in folders.iter().enumerate() {
                unread_damage.extend(damage(&binary, node, folder)?);
            }
        }
        drop((disk, net));
        let history = at.join("history.jsonl");
        let about = About {
            run: format!("chaos {}", plan.scenario.name()),
            seed: plan.seed,
            durability: plan.durability,
            faults: self.announced,
            live_ns: RECOVERY_LIMIT.as_nanos() as u64,
        };
        shared.histories.merge(&about, &history)?;
        let report = judge(&history)?;
        let mut verdict = report.verdict();
        if shared.killed() > 0 && verdict == Verdict::Pass {
            // What it did is not in the history.
            problems.push(format!("{} clients did not end", shared.killed()));
            verdict = Verdict::Unknown;
        } else if !problems.is_empty() && verdict != Verdict::HarnessError {
            verdict = Verdict::Fail;
        }
        Ok(Outcome {
            verdict,
            problems,
            report: report.text(),
            history,
            windows: self.windows,
            faults: self.faults,
            acked: shared.acked(),
            repaired: self.repaired,
            unread_damage,
            recovery_max: self.recovery_max,
        })
    }
}

/// What is damaged in the files of a node that has ended.
fn damage(binary: &Binary, node: usize, folder: &Path) -> Result<Option<String>> {
    let name = Cluster::name(node);
    let arguments = ["inspect", &folder.display().to_string()];
    let output = binary.run(&arguments, b"", RECOVERY_LIMIT)?;
    let text = String::from_utf8_lossy(&output.stdout);
    match output.code {
        Some(0) => Ok(None),
        Some(1) if !text.is_empty() => {
            let lines: Vec<&str> = text
                .lines()
                .filter(|line| line.contains("DAMAGED"))
                .collect();
            Ok(Some(format!("{name}: {}", lines.join("; "))))
        }
        _ => bail!("the files of {name} cannot be inspected: {}", output.stderr),
    }
}

/// Judges a history.
fn judge(path: &Path) -> Result<Report> {
    let open = || std::fs::File::open(path).with_context(|| format!("reading {}", path.display()));
    let mut judge = Judge::new();
    read_lines(&mut judge, open()?)?;
    let mut report = judge.finish();
    attach_lines(&mut report, 0, open()?)?;
    report.files = vec![path.display().to_string()];
    Ok(report)
}
