//! How figures are taken and printed.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use core_affinity::CoreId;

/// Rounds of every measurement; medians are over them.
pub(crate) const ROUNDS: usize = 21;

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What the system calls this CPU.
pub(crate) fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let field = |name| field(name).unwrap_or_else(|| "unknown".to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{} (family {}, model {}), {cores} cores",
        field("model name"),
        field("cpu family"),
        field("model\t")
    )
}

/// Keeps the calling thread on one core, counted from 0, where there are as many and the system lets it.
pub(crate) fn pin(index: usize) {
    // Asked for once: a thread that is kept on a core, and those that it starts, see no other.
    static CORES: OnceLock<Vec<CoreId>> = OnceLock::new();
    let cores = CORES.get_or_init(|| core_affinity::get_core_ids().unwrap_or_default());
    if let Some(core) = cores.get(index % cores.len().max(1)) {
        core_affinity::set_for_current(*core);
    }
}

/// Nanoseconds of one call, over `calls` of them.
pub(crate) fn nanos_of(calls: u32, mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        work();
    }
    start.elapsed().as_nanos() as f64 / f64::from(calls)
}

/// As many calls as take about `for_nanos`.
pub(crate) fn calls_for(for_nanos: f64, mut work: impl FnMut()) -> u32 {
    // The first call finds cold caches.
    work();
    let one = nanos_of(16, &mut work);
    (for_nanos / one.max(1.0)).clamp(1.0, 1e6) as u32
}

/// The middle of a few figures, and the range that half of them lie in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Median {
    pub(crate) low: f64,
    pub(crate) value: f64,
    pub(crate) high: f64,
}

pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> Median {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    let at = |quarter: usize| figures[(figures.len() - 1) * quarter / 4];
    Median {
        low: at(1),
        value: at(2),
        high: at(3),
    }
}

pub(crate) fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}
