//! `ionian bench append`: how fast, at which latency, at which cost, beside what the machine alone can do, and whether
//! what was acknowledged is there.

mod inside;

pub(super) use inside::Folder;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use ionian_client::Log;
use ionian_client::history::Phase;
use ionian_control_core::FAN_IN_MAX;
use ionian_types::RECORD_BYTES_MAX;
use ionian_wire::record::encoded_bytes;

use super::audit::{NAME_BYTES, Payload};
use super::clients::{Crew, Load, Manner, histogram, with_crew};
use super::embedded::{Cores, PlanArgs, processor};
use super::limits::datagram_chain;
use super::report::{Figures, Limits, Report, Setting};
use super::usage::Usage;
use crate::connect::{
    Cluster, ClusterArgs, ConnectArgs, DEFAULT_ADDRESS, Target, open_client, random_client,
};
use crate::exit::{Exit, UsageError};
use crate::history::{History, HistoryArgs};
use crate::output::OutArgs;
use crate::progress::Progress;
use crate::signals::Stop;
use crate::tree::{in_words, levels};

/// How long each bare limit is measured.
const LIMIT_SPAN: Duration = Duration::from_millis(500);
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
    /// The most shards below a leaf, and the most vertices below an aggregator or the root, of the cluster in this process;
    /// without it one leaf has all shards
    #[arg(long, value_name = "N", conflicts_with = "cluster", value_parser = clap::value_parser!(u16).range(2..=i64::from(FAN_IN_MAX)))]
    fan_in: Option<u16>,
    /// The levels of the ordering tree below the root of the cluster in this process; without it as few as the fan-in takes
    #[arg(long, value_name = "LEVELS", requires = "fan_in", conflicts_with = "cluster", value_parser = clap::value_parser!(u8).range(1..=8))]
    tree_depth: Option<u8>,
    /// Members of the root group of the cluster in this process; 1 unless said otherwise
    #[arg(long, value_name = "N", conflicts_with = "cluster", value_parser = clap::value_parser!(u8).range(1..=7))]
    root_members: Option<u8>,
    /// Measure by turns with the ordering tree and root group, and with one leaf and one root, and say what they cost; a
    /// tree of two levels below a root of three members unless said otherwise
    #[arg(long, conflicts_with_all = ["cluster", "history"])]
    compare_tree: bool,
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

impl Measured {
    fn add(&mut self, other: Self) {
        self.pipelined.extend(other.pipelined);
        self.single.extend(other.single);
        self.audited += other.audited;
    }
}

struct Measuring<'a> {
    args: &'a Args,
    load: &'a Load,
    stop: &'a Stop,
    progress: Progress,
    appended: u64,
}

impl Measuring<'_> {
    /// The file of events, if one is asked for: of every client, and of the auditor.
    fn history(&self) -> anyhow::Result<Option<History>> {
        self.args.history.create(self.load.clients + 1)
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
            tree: in_words(log.tree.iter().map(|vertex| vertex.children)),
            depth_of_tree: levels(log.tree.iter().map(|vertex| vertex.children))
                .into_iter()
                .max()
                .unwrap_or(0),
            root_members: log.roots.len(),
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
            self.measure(crew, self.args.repeat, || Ok(Usage::of_machine()))
        })?;
        history.as_ref().map_or(Ok(()), History::finish)?;
        Ok(Report {
            setting,
            measured,
            plain: None,
            limits,
        })
    }

    /// Warms up, then measures both ways of appending.
    fn measure(
        &mut self,
        crew: &mut Crew,
        repeat: u16,
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
            for _ in 0..repeat {
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
