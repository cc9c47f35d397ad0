//! The accounts of a run's threads: what each had done at the boundaries of the measurements, and what follows from it.

use hdrhistogram::Histogram;
use ionian_types::Time;

use crate::hall::{Hall, Traffic};
use crate::leaf::LeafCounts;
use crate::outcome::{Audit, Side, Window};
use crate::reporters::{ReporterCounts, Reporters};
use crate::run::RunError;

/// What a thread has done until a boundary.
#[derive(Clone, Debug)]
pub(crate) struct Mark<C> {
    pub(crate) at: Time,
    pub(crate) cpu_ns: u64,
    pub(crate) idle_ns: u64,
    pub(crate) counts: C,
}

/// The account of the servers' thread.
#[derive(Debug)]
pub(crate) struct ServersSide {
    pub(crate) marks: Vec<Mark<ReporterCounts>>,
    pub(crate) ages: Vec<Histogram<u64>>,
    /// Reports written before the end of the last round, and their records.
    pub(crate) written: u64,
    pub(crate) records: u64,
}

/// What one hall has done so far.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct TreeCounts {
    pub(crate) leaves: LeafCounts,
    pub(crate) cuts: u64,
    pub(crate) ordered: u64,
    pub(crate) cut_bytes: u64,
    pub(crate) cut_segments: u64,
    pub(crate) passes: u64,
    pub(crate) cut_log_bytes: u64,
    pub(crate) traffic: Traffic,
}

/// The account of one hall's thread.
#[derive(Debug)]
pub(crate) struct TreeSide {
    pub(crate) marks: Vec<Mark<TreeCounts>>,
    pub(crate) ages: Vec<Histogram<u64>>,
    pub(crate) last: TreeCounts,
}

/// Processor time of the calling thread.
pub(crate) fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = stat.split_whitespace().next();
    first.and_then(|it| it.parse().ok()).unwrap_or(0)
}

/// What a hall's machines have done so far.
pub(crate) fn tree_counts(hall: &Hall, passes: u64) -> TreeCounts {
    let mut counts = TreeCounts {
        passes,
        traffic: hall.traffic,
        ..TreeCounts::default()
    };
    counts.leaves.down_least = u64::MAX;
    for leaf in hall.leaves() {
        counts.leaves.add(&leaf.counts());
    }
    if let Some(root) = hall.root() {
        let status = root.status();
        counts.cuts = status.counters.cuts;
        counts.ordered = status.counters.ordered;
        counts.cut_bytes = status.counters.cut_bytes;
        counts.cut_segments = status.counters.cut_segments;
        counts.cut_log_bytes = status.cut_log_bytes;
    }
    counts
}

/// Compares what was written with what was read and ordered.
pub(crate) fn audit(
    servers: &ServersSide,
    trees: &[TreeSide],
    reporters: &Reporters,
) -> Result<Audit, RunError> {
    let sum = |of: fn(&TreeCounts) -> u64| trees.iter().map(|it| of(&it.last)).sum::<u64>();
    let audit = Audit {
        written: servers.written,
        read: sum(|it| it.leaves.read),
        reflected: sum(|it| it.leaves.reflected),
        overwritten: sum(|it| it.leaves.overwritten),
        records: servers.records,
        ordered: sum(|it| it.ordered),
        lost_frames: sum(|it| it.traffic.lost),
        refused_datagrams: sum(|it| it.leaves.refused) + reporters.counts().refused,
        frames_skipped: reporters.counts().lost,
    };
    audit.check().map_err(RunError::Wrong)?;
    Ok(audit)
}

/// The figures of one measurement.
pub(crate) fn window(at: usize, servers: &ServersSide, trees: &[TreeSide]) -> Window {
    let span = |from: Time, to: Time| to.since(from).0.max(1) as f64 / 1e9;
    let (from, to) = (&servers.marks[at], &servers.marks[at + 1]);
    let seconds = span(from.at, to.at);
    let written = (to.counts.written - from.counts.written) as f64;
    let servers_side = Side::new(
        to.cpu_ns - from.cpu_ns,
        to.idle_ns - from.idle_ns,
        (seconds * 1e9) as u64,
        1,
        written as u64,
    );
    let mut window = Window {
        seconds,
        written_per_s: written / seconds,
        late_per_s: (to.counts.late - from.counts.late) as f64 / seconds,
        reader_frames_lost: to.counts.lost - from.counts.lost,
        age_reporter: servers.ages[at].clone(),
        servers: servers_side,
        ..Window::default()
    };
    let (mut cpu, mut idle, mut wall, mut merged) = (0, 0, 0, 0);
    for tree in trees {
        let (from, to) = (&tree.marks[at], &tree.marks[at + 1]);
        let seconds = span(from.at, to.at);
        let rate = |of: fn(&TreeCounts) -> u64| {
            of(&to.counts).saturating_sub(of(&from.counts)) as f64 / seconds
        };
        let count = |of: fn(&TreeCounts) -> u64| of(&to.counts) - of(&from.counts);
        // All histograms here are made alike.
        let _ = window.age_root.add(&tree.ages[at]);
        window.merged_per_s += rate(|it| it.leaves.reflected);
        window.read_per_s += rate(|it| it.leaves.read);
        window.overwritten_per_s += rate(|it| it.leaves.overwritten);
        window.cuts_per_s += rate(|it| it.cuts);
        window.passes_per_s += rate(|it| it.passes);
        window.ordered_per_s += rate(|it| it.ordered);
        window.up_bytes_per_s += rate(|it| it.traffic.up_bytes);
        window.group_bytes_per_s += rate(|it| it.traffic.group_bytes);
        window.edge_downs += count(|it| it.traffic.edge_downs);
        window.edge_down_bytes += count(|it| it.traffic.edge_down_bytes);
        window.down_frames += count(|it| it.leaves.down_frames);
        window.down_bytes += count(|it| it.leaves.down_bytes);
        window.cut_bytes += count(|it| it.cut_bytes);
        window.cut_segments += count(|it| it.cut_segments);
        window.cut_log_bytes += to.counts.cut_log_bytes;
        window.forgotten += count(|it| it.leaves.forgotten);
        cpu += to.cpu_ns - from.cpu_ns;
        idle += to.idle_ns - from.idle_ns;
        wall += (seconds * 1e9) as u64;
        merged += count(|it| it.leaves.reflected);
    }
    window.tree = Side::new(cpu, idle, wall, trees.len(), merged);
    window
}
