//! `ionian bench append`: how fast, at which latency, at which cost, beside what the machine alone can do, and whether
//! what was acknowledged is there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use ionian_client::Log;
use ionian_client::history::Phase;
use ionian_node::Server;
use ionian_store::StoreStats;
use ionian_types::{Durability, RECORD_BYTES_MAX};
use ionian_wire::record::encoded_bytes;

use super::audit::{NAME_BYTES, Payload};
use super::clients::{Crew, Load, Manner, histogram, with_crew};
use super::device::{Pattern, chain_p50_ns, loop_bytes_per_second};
use super::embedded::{Cores, Embedded, PlanArgs, Shape, processor};
use super::limits::{datagram_chain, pipeline};
use super::report::{Figures, Limits, Report, Setting};
use super::usage::Usage;
use crate::connect::{
    Cluster, ClusterArgs, ConnectArgs, DEFAULT_ADDRESS, Target, open_client, random_client,
};
use crate::exit::{Exit, UsageError};
use crate::history::{History, HistoryArgs, Subject};
use crate::output::OutArgs;
use crate::progress::Progress;
use crate::signals::Stop;

/// How long each bare limit is measured.
const LIMIT_SPAN: Duration = Duration::from_millis(500);
/// Rounds of the bare chain of a durable append.
const CHAIN_ROUNDS: u32 = 500;
/// Bytes of records that a round appends unless told otherwise: what two copies of it take is what caches do not hold.
const ROUND_BYTES: u64 = 64 << 20;

/// Measure appends: throughput with many under way, latency one at a time, and read back what was acknowledged
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without --cluster a cluster is started in this process. Rounds of appends are timed; after each one, not timed,\n\
    everything acknowledged is read back by a subscriber, compared and trimmed. Exit code 1 when it is not what was\n\
    acknowledged; a goal that is not met is said and changes nothing."
)]
pub(crate) struct Args {
    /// Start a cluster in this process (the default)
    #[arg(long, conflicts_with = "cluster")]
    embedded: bool,
    /// Measure a running cluster instead: the address of its controller, or its configuration file
    #[arg(long, value_name = "ADDR|FILE", num_args = 0..=1, default_missing_value = DEFAULT_ADDRESS)]
    cluster: Option<Target>,
    /// The log, with --cluster
    #[arg(
        long,
        value_name = "NAME",
        default_value = "default",
        requires = "cluster"
    )]
    log: String,
    /// The cluster's secret file, with --cluster ADDR
    #[arg(long, value_name = "FILE", requires = "cluster")]
    secret: Option<PathBuf>,
    /// Bytes of a record
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    record_bytes: usize,
    /// Client threads, each with a log of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    clients: u16,
    /// Records of one client under way at a time
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    depth: u64,
    /// Seconds of each repetition, of both measurements
    #[arg(long, value_name = "S", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Records of each repetition, at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    records: Option<u64>,
    /// Repetitions of both measurements
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeat: u16,
    /// Append to all servers instead of one
    #[arg(long)]
    spread: bool,
    /// Records of one round; the trim after it leaves none of them. Without it, 64 MiB of records
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u64).range(1..))]
    retention: Option<u64>,
    /// Durability of the cluster in this process
    #[arg(long, value_name = "CLASS", default_value = "D0", value_parser = ["D0", "D1"])]
    durability: String,
    /// Shards of the cluster in this process
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: u16,
    /// Replicas of each shard of the cluster in this process
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=7))]
    replicas: u16,
    /// Cores to use: the first for the cluster in this process, or as many as the core plan takes, the others for clients
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    cores: Option<Vec<usize>>,
    #[command(flatten)]
    plan: PlanArgs,
    /// Real-time scheduling for all threads that are measured: they starve everything else on their cores
    #[arg(long)]
    fifo: bool,
    /// Where the cluster in this process keeps its state at D1; without it, a temporary folder that is removed
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A history slows what is measured. It ends with some appends that stay, and a final read of them
    #[command(flatten)]
    history: HistoryArgs,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    out: OutArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    if !(NAME_BYTES..=RECORD_BYTES_MAX).contains(&args.record_bytes) {
        let bytes = args.record_bytes;
        return Err(UsageError(format!(
            "--record-bytes is {bytes}: give {NAME_BYTES} to {RECORD_BYTES_MAX}"
        ))
        .into());
    }
    let stop = Stop::listen()?;
    let tag = random_client()?.get() as u64;
    let round = ROUND_BYTES / encoded_bytes(args.record_bytes) as u64;
    let load = Load {
        payload: Payload::new(tag, args.record_bytes),
        clients: usize::from(args.clients),
        depth: args.depth,
        spread: args.spread,
        retention: args.retention.unwrap_or(round).max(1),
    };
    let mut measuring = Measuring {
        args,
        load: &load,
        stop: &stop,
        progress: Progress::begin(args.quiet),
        appended: 0,
    };
    let report = match &args.cluster {
        Some(target) => measuring.cluster(target)?,
        None => measuring.embedded()?,
    };
    measuring.progress.end(String::new);
    args.out.emit(&report.text(), &report.json())?;
    Ok(Exit::Done)
}

/// The figures of one run, repetition by repetition.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) pipelined: Vec<Figures>,
    pub(crate) single: Vec<Figures>,
    /// Records read back.
    pub(crate) audited: u64,
}

struct Measuring<'a> {
    args: &'a Args,
    load: &'a Load,
    stop: &'a Stop,
    progress: Progress,
    appended: u64,
}

impl Measuring<'_> {
    fn embedded(&mut self) -> anyhow::Result<Report> {
        let args = self.args;
        let class = if args.durability == "D0" {
            Durability::D0
        } else {
            Durability::D1
        };
        let dir = class
            .is_flushed()
            .then(|| Folder::new(args.data_dir.as_deref()))
            .transpose()?;
        let replicas = usize::from(args.shards) * usize::from(args.replicas);
        let record = encoded_bytes(args.record_bytes) as u64;
        let kept = (self.load.retention + self.load.depth * self.load.clients as u64) * record;
        let shape = Shape {
            shards: usize::from(args.shards),
            replicas: usize::from(args.replicas),
            class,
            memory_bytes_max: (2 * kept + (64 << 20)) * replicas as u64,
            data_dir: dir.as_ref().map(|dir| dir.path.join("data")),
            clients: self.load.clients,
            cores: args.cores.clone(),
            fifo: args.fifo,
            plan: args.plan,
        };
        let cores = shape.plan()?;
        let mut limits = Limits {
            pipeline: Some(pipeline(args.record_bytes, args.depth, &cores, LIMIT_SPAN)?),
            ..Limits::default()
        };
        let history = self.history()?;
        let cluster = Embedded::start(&shape)?;
        let setting = self.setting(&cluster, class);
        let before = stores(&cluster.server);
        let open = |client| {
            // The auditor comes after the clients, when they have stopped: it shares their cores, and does not spin.
            let spin = cluster.cores.enter(client)? && client < self.load.clients;
            let mut log = cluster.open(spin)?;
            if let Some(history) = &history {
                let subject = Subject {
                    class,
                    shards: shape.shards,
                    replicas: shape.replicas,
                };
                log.set_history(history.hook(client, subject));
            }
            Ok(log)
        };
        let load = self.load;
        let measured = with_crew(load, open, |crew| {
            self.measure(crew, || Usage::of(&cluster.server))
        })?;
        history.as_ref().map_or(Ok(()), History::finish)?;
        let after = stores(&cluster.server);
        cluster.server.stop();
        if let Some(dir) = &dir {
            let used = |(after, before): (&StoreStats, &StoreStats)| {
                let now = Usage::of_store(after).since(&Usage::of_store(before));
                Pattern::of(&now)
            };
            let patterns: Vec<Pattern> = after.iter().zip(&before).filter_map(used).collect();
            limits.device_bytes_per_second =
                Some(loop_bytes_per_second(&dir.path, &patterns, LIMIT_SPAN * 4)?);
            limits.chain_p50_ns = Some(chain_p50_ns(
                &dir.path,
                usize::from(args.replicas),
                CHAIN_ROUNDS,
            )?);
        }
        Ok(Report {
            setting,
            measured,
            limits,
        })
    }

    /// The file of events, if one is asked for: of every client, and of the auditor.
    fn history(&self) -> anyhow::Result<Option<History>> {
        self.args.history.create(self.load.clients + 1)
    }

    fn setting(&self, cluster: &Embedded, class: Durability) -> Setting {
        let args = self.args;
        Setting {
            embedded: true,
            machine: processor(),
            backend: cluster.server.effective().transport.clone(),
            device: cluster.devices(),
            core_plan: cluster.cores.to_string(),
            durability: class.to_string(),
            shards: usize::from(args.shards),
            replicas: usize::from(args.replicas),
            mtu: None,
            flushes_of: "the stores of this cluster",
            ..self.base_setting()
        }
    }

    fn base_setting(&self) -> Setting {
        Setting {
            record_bytes: self.args.record_bytes,
            clients: self.load.clients,
            depth: self.load.depth,
            spread: self.load.spread,
            retention: self.load.retention,
            ..Setting::default()
        }
    }

    fn cluster(&mut self, target: &Target) -> anyhow::Result<Report> {
        let args = self.args;
        let connect = ConnectArgs {
            at: ClusterArgs {
                cluster: target.clone(),
                secret: args.secret.clone(),
                user: None,
            },
            log: args.log.clone(),
            history: args.history.clone(),
        };
        let cluster = Cluster::reach(&connect)?;
        let log = cluster.map().log_by_name(&args.log);
        let log =
            log.with_context(|| format!("the cluster at {target} has no log {:?}", args.log))?;
        let setting = Setting {
            embedded: false,
            machine: processor(),
            backend: String::from("udp"),
            device: String::from("in other processes"),
            core_plan: String::from("the cluster's own"),
            durability: log.class.to_string(),
            shards: log.shards.len(),
            replicas: log.shards.first().map_or(0, |shard| shard.replicas.len()),
            mtu: cluster.mtu(),
            flushes_of: "all disks of this machine",
            ..self.base_setting()
        };
        drop(cluster);
        let history = self.history()?;
        let allowed = args.cores.clone().unwrap_or_default();
        let cores = Cores::for_clients(&allowed, args.fifo);
        let chain = datagram_chain(
            encoded_bytes(args.record_bytes),
            &Cores::yielding(),
            LIMIT_SPAN,
        )?;
        let limits = Limits {
            datagram_chain_p50_ns: Some(chain),
            ..Limits::default()
        };
        let open = |client| -> anyhow::Result<Log<_>> {
            cores.enter(client)?;
            open_client(&connect, history.as_ref(), client)
        };
        let load = self.load;
        let measured = with_crew(load, open, |crew| {
            self.measure(crew, || Ok(Usage::of_machine()))
        })?;
        history.as_ref().map_or(Ok(()), History::finish)?;
        Ok(Report {
            setting,
            measured,
            limits,
        })
    }

    /// Warms up, then measures both ways of appending.
    fn measure(
        &mut self,
        crew: &mut Crew,
        usage: impl Fn() -> anyhow::Result<Usage>,
    ) -> anyhow::Result<Measured> {
        let span = Duration::from_secs(self.args.seconds);
        let mut measured = Measured::default();
        if self.args.history.asked() {
            crew.mark(Phase::WarmUp)?;
        }
        self.repetition(crew, Manner::Pipelined, span / 4, &usage)?;
        if self.args.history.asked() {
            // No fault is ever done here: everything has to progress.
            crew.mark(Phase::Heal)?;
            crew.mark(Phase::Load)?;
        }
        for manner in [Manner::Pipelined, Manner::Single] {
            for _ in 0..self.args.repeat {
                if self.stop.asked() {
                    break;
                }
                let figures = self.repetition(crew, manner, span, &usage)?;
                match manner {
                    Manner::Pipelined => measured.pipelined.push(figures),
                    Manner::Single => measured.single.push(figures),
                }
            }
        }
        measured.audited = crew.audited;
        if measured.pipelined.is_empty() {
            anyhow::bail!("interrupted before anything was measured");
        }
        if self.args.history.asked() {
            crew.end_history()?;
        }
        Ok(measured)
    }

    /// Rounds until `span` was timed.
    fn repetition(
        &mut self,
        crew: &mut Crew,
        manner: Manner,
        span: Duration,
        usage: impl Fn() -> anyhow::Result<Usage>,
    ) -> anyhow::Result<Figures> {
        let mut figures = Figures {
            records: 0,
            elapsed: Duration::ZERO,
            latency: histogram(),
            usage: Usage::default(),
        };
        let most = self.args.records.unwrap_or(u64::MAX);
        while figures.elapsed < span && figures.records < most && !self.stop.asked() {
            let limit = span.saturating_sub(figures.elapsed);
            let used = |before: Usage| {
                figures.usage.add(&usage()?.since(&before));
                Ok(())
            };
            let round = crew.round_watched(manner, limit, most - figures.records, &usage, used)?;
            figures.records += round.records;
            figures.elapsed += round.elapsed;
            figures
                .latency
                .add(&round.latency)
                .context("histograms of one shape")?;
            self.appended += round.records;
            self.progress.records(self.appended, || {
                let rate = figures.records as f64 / figures.elapsed.as_secs_f64();
                format!(
                    "  {} appends/s while timed",
                    crate::table::number(rate as u64)
                )
            });
        }
        Ok(figures)
    }
}

/// The counters of every store, in the order of their places.
fn stores(server: &Server) -> Vec<StoreStats> {
    let status = server.status(Duration::from_secs(5));
    let places = status.into_iter().flat_map(|status| status.places);
    places.filter_map(|place| place.store).collect()
}

/// Where devices' files are; removed at the end if it was made here.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    temporary: bool,
}

impl Folder {
    pub(super) fn new(chosen: Option<&Path>) -> anyhow::Result<Self> {
        let own = std::env::temp_dir().join(format!("ionian-bench-{}", std::process::id()));
        let path = chosen.map_or(own, Path::to_owned);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self {
            path,
            temporary: chosen.is_none(),
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary {
            // What cannot be removed stays in the system's folder for such files.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
