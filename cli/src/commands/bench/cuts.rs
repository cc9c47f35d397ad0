//! `ionian bench cuts`: how fast the ordering tree turns reports into committed cuts, how old reports are by then, at which cost,
//! beside a bare scan of the same slots. The tree is the one that ships; the servers are synthetic.

mod figures;
mod goals;
mod search;
mod sweep;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use ionian_bench_cuts::{
    RunError, Setting, Transport, down_bytes, plot, run as measure, trace_cut,
};
use ionian_types::Durability;

use super::append::Folder;
use crate::exit::{Exit, UsageError};
use crate::progress::Progress;
use crate::table::Table;
use figures::Figures;

/// Cuts over which the bytes to servers are counted.
const CHECK_CUTS: usize = 20;

/// Measure cuts: the real ordering tree and root group, fed by synthetic servers
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Servers are threads of this process that write reports at a fixed rate, whatever becomes of them. After every run all\n\
    reports are accounted for, and the records ordered are compared with those reported: exit code 1 when they differ.\n\
    A goal that is not met is said and changes nothing."
)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
pub(crate) struct Args {
    #[command(flatten)]
    load: LoadArgs,
    /// Print JSON to standard output
    #[arg(long)]
    json: bool,
    /// Also write the result to this file, as JSON, as CSV (a line per measurement) or as a plot (SVG) by its extension
    #[arg(long, value_name = "FILE.json|.csv|.svg")]
    out: Option<PathBuf>,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
    /// Measure nothing: print the frames of so many cuts in which every server's report counts
    #[arg(long, value_name = "CUTS", value_parser = clap::value_parser!(u16).range(1..=100), conflicts_with_all = ["sweep", "check_down_bytes", "goal_b"])]
    trace: Option<u16>,
    /// Measure every combination of --sweep-shards and --sweep-fan-in; --out FILE.csv writes FILE.svg, too
    #[arg(long, conflicts_with_all = ["check_down_bytes", "goal_b"])]
    sweep: bool,
    /// Numbers of shards, with --sweep
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "10,100,1000,3500,10000",
        requires = "sweep"
    )]
    sweep_shards: Vec<usize>,
    /// Fan-ins, with --sweep
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "1,2,4",
        requires = "sweep"
    )]
    sweep_fan_in: Vec<usize>,
    /// Measure nothing: count what servers are told per cut with so many shards that all grow; exit code 1 when it differs
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        conflicts_with = "goal_b"
    )]
    check_down_bytes: Option<Vec<usize>>,
    /// Look for the largest number of servers, all of which read, at which the age at the servers has a p99 below 200 µs
    #[arg(long)]
    goal_b: bool,
}

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
struct LoadArgs {
    /// Shards of the log
    #[arg(long, value_name = "N", default_value_t = 100)]
    shards: usize,
    /// Replicas of each shard, all of which must hold a record
    #[arg(long, value_name = "N", default_value_t = 2)]
    replicas: usize,
    /// Vertices below the root and below each aggregator
    #[arg(long, value_name = "N", default_value_t = 2)]
    fan_in: usize,
    /// Levels of vertices between the root and the shards
    #[arg(long, value_name = "N", default_value_t = 2)]
    depth: usize,
    /// Reports of each server per second; 0 writes as fast as one core can
    #[arg(long, value_name = "HZ", default_value_t = 10_000)]
    report_rate: u64,
    /// Records that each shard takes per second, from which the lengths in reports follow
    #[arg(long, value_name = "N", default_value_t = 150_000)]
    shard_rate: u64,
    /// The least time between two cuts in microseconds; 0 cuts as fast as entries commit
    #[arg(long, value_name = "US", default_value_t = 0)]
    interval_us: u64,
    /// By what levels exchange frames: one core and no copy, rings of shared memory, or UDP over loopback
    #[arg(long, value_name = "BY", value_enum, default_value = "inproc")]
    transport: By,
    /// Members of the root group beside its leader
    #[arg(long, value_name = "N", default_value_t = 2)]
    root_backups: usize,
    /// Durability class of the cut log
    #[arg(long, value_name = "CLASS", default_value = "D0", value_parser = ["D0", "D1"])]
    durability: String,
    /// Where cut logs of D1 are kept; without it, a temporary folder that is removed
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Cores: the first for the root, the last for the servers, those between for leaves. In process two are used
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    cores: Option<Vec<usize>>,
    /// Seconds of each measurement
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    duration: f64,
    /// Measurements
    #[arg(long, value_name = "N", default_value_t = 3)]
    repeat: usize,
    /// How many of the servers read what they are told, in percent
    #[arg(long, value_name = "P", default_value_t = 100.0)]
    readers_percent: f64,
    /// Frames in the ring of each server
    #[arg(long, value_name = "N", default_value_t = 4)]
    down_frames: usize,
}

/// A transport by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum By {
    Inproc,
    Shm,
    Udp,
}

impl LoadArgs {
    /// The setting; cut logs of a flushed class in `folder`.
    fn setting(&self, folder: Option<&Path>) -> anyhow::Result<Setting> {
        let seconds = Duration::try_from_secs_f64(self.duration)
            .map_err(|error| UsageError(format!("--duration is {}: {error}", self.duration)))?;
        Ok(Setting {
            shards: self.shards,
            replicas: self.replicas,
            fan_in: self.fan_in,
            depth: self.depth,
            report_rate: self.report_rate,
            shard_rate: self.shard_rate,
            interval: Duration::from_micros(self.interval_us),
            transport: match self.transport {
                By::Inproc => Transport::InProcess,
                By::Shm => Transport::Shm,
                By::Udp => Transport::Udp,
            },
            root_backups: self.root_backups,
            class: self.class(),
            dir: folder.map(Path::to_owned),
            cores: self.cores.clone().unwrap_or_default(),
            duration: seconds,
            repeat: self.repeat,
            readers_percent: self.readers_percent,
            down_frames: self.down_frames,
            ..Setting::default()
        })
    }

    fn class(&self) -> Durability {
        match self.durability.as_str() {
            "D0" => Durability::D0,
            _ => Durability::D1,
        }
    }

    /// Where cut logs are kept, if they are.
    fn folder(&self) -> anyhow::Result<Option<Folder>> {
        let flushed = self.class().is_flushed();
        flushed
            .then(|| Folder::new(self.data_dir.as_deref()))
            .transpose()
    }
}

/// What a result is written as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Json,
    Csv,
    Svg,
}

fn form(out: &Path) -> Result<Form, UsageError> {
    match out.extension().and_then(|it| it.to_str()) {
        Some("json") => Ok(Form::Json),
        Some("csv") => Ok(Form::Csv),
        Some("svg") => Ok(Form::Svg),
        _ => Err(UsageError(format!(
            "--out is {}: give a name that ends in .json, .csv or .svg",
            out.display()
        ))),
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let form = args.out.as_deref().map(form).transpose()?;
    if args.sweep {
        return sweep::run(args, form);
    }
    if let Some(shards) = &args.check_down_bytes {
        return check(args, shards);
    }
    if let Some(cuts) = args.trace {
        let setting = args.load.setting(None)?;
        for _ in 0..cuts {
            let setting = Setting {
                class: Durability::D0,
                ..setting.clone()
            };
            print!("{}", trace_cut(&setting).map_err(usage)?.text());
        }
        return Ok(Exit::Done);
    }
    let figures = if args.goal_b {
        search::run(args)?
    } else {
        one(&args.load, args.quiet)?
    };
    if let (Some(path), Some(form)) = (&args.out, form) {
        match form {
            Form::Json => write(path, &figures.json_text()?)?,
            Form::Csv => write(path, &figures::csv(std::slice::from_ref(&figures)))?,
            Form::Svg => write(path, &plot::svg(&[figures.plot()]))?,
        }
    }
    if args.json {
        print!("{}", figures.json_text()?);
    } else {
        print!("{}", figures.text());
    }
    Ok(Exit::Done)
}

/// One run.
fn one(load: &LoadArgs, quiet: bool) -> anyhow::Result<Figures> {
    let folder = load.folder()?;
    let setting = load.setting(folder.as_ref().map(|it| it.path.as_path()))?;
    let mut progress = Progress::begin(quiet);
    progress.records(0, || {
        format!(
            "  {} servers, {} measurements of {} s",
            setting.servers(),
            setting.repeat,
            setting.duration.as_secs_f64()
        )
    });
    let outcome = measure(&setting).map_err(usage);
    progress.end(String::new);
    Ok(Figures::new(outcome?))
}

/// A setting that makes no sense is a wrong command line.
fn usage(error: RunError) -> anyhow::Error {
    match error {
        RunError::Setting(error) => UsageError(error.to_string()).into(),
        other => other.into(),
    }
}

/// What servers are told per cut, by the number of shards.
fn check(args: &Args, shards: &[usize]) -> anyhow::Result<Exit> {
    let setting = Setting {
        class: Durability::D0,
        ..args.load.setting(None)?
    };
    let mut table = Table::headed(&[
        "shards",
        "cuts",
        "bytes/server/cut",
        "least .. most of a frame",
        "bytes/edge/cut",
    ]);
    let mut found = Vec::new();
    for shards in shards {
        let bytes = down_bytes(&setting, *shards, CHECK_CUTS).map_err(usage)?;
        table.row(&[
            bytes.shards.to_string(),
            bytes.cuts.to_string(),
            bytes.per_server_per_cut(setting.replicas).to_string(),
            format!("{} .. {}", bytes.least, bytes.most),
            bytes.edge_bytes.to_string(),
        ]);
        found.push(bytes);
    }
    let same = found.windows(2).all(|pair| {
        let per_server = |at: usize| pair[at].per_server_per_cut(setting.replicas);
        // Whole numbers of bytes, or they differ.
        (per_server(0) - per_server(1)).abs() < f64::EPSILON
            && (pair[0].edge_bytes - pair[1].edge_bytes).abs() < f64::EPSILON
            && (pair[0].least, pair[0].most) == (pair[1].least, pair[1].most)
    });
    if args.json {
        let rows = found.iter().map(|it| {
            serde_json::json!({"shards": it.shards, "cuts": it.cuts, "frames": it.frames, "bytes": it.bytes,
                "down_bytes_per_server_per_cut": it.per_server_per_cut(setting.replicas), "bytes_per_edge_per_cut": it.edge_bytes})
        });
        let rows: Vec<_> = rows.collect();
        println!("{}", serde_json::json!({"equal": same, "rows": rows}));
    } else {
        print!("{}", table.render());
        println!("{}", if same { "equal" } else { "different" });
    }
    Ok(if same { Exit::Done } else { Exit::Failed })
}
