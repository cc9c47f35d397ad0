//! What a run has found: figures of each measurement, the account of every report, goals as met or missed.

use hdrhistogram::Histogram;

use crate::board::ages;
use crate::leaf::LeafCounts;
use crate::setting::Setting;

/// Processor time of one side, servers or tree.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Side {
    /// Of one core, how much the threads ran, spinning included.
    pub cpu_share: f64,
    /// Of one core, how much they had something to do.
    pub busy_share: f64,
    /// Time with something to do per report: written by servers, merged by the tree; in nanoseconds.
    pub ns_per_report: f64,
}

impl Side {
    pub(crate) fn new(
        cpu_ns: u64,
        idle_ns: u64,
        wall_ns: u64,
        threads: usize,
        reports: u64,
    ) -> Self {
        let wall = (wall_ns / threads.max(1) as u64).max(1) as f64;
        let busy = wall_ns.saturating_sub(idle_ns).min(cpu_ns.max(1)) as f64;
        Self {
            cpu_share: cpu_ns as f64 / wall,
            busy_share: busy / wall,
            ns_per_report: busy / reports.max(1) as f64,
        }
    }
}

/// One measurement. Rates are per second.
#[derive(Clone, Debug)]
pub struct Window {
    /// How long it took.
    pub seconds: f64,
    /// Distinct reports that a scan read and a committed cut reflects.
    pub merged_per_s: f64,
    /// Reports that scans read.
    pub read_per_s: f64,
    /// Reports written.
    pub written_per_s: f64,
    /// Reports that others took the place of before they were read.
    pub overwritten_per_s: f64,
    /// Reports that the servers were too late to write.
    pub late_per_s: f64,
    /// Cuts committed.
    pub cuts_per_s: f64,
    /// Passes over the machines that found something to do.
    pub passes_per_s: f64,
    /// Records ordered.
    pub ordered_per_s: f64,
    /// Bytes of rounds, all levels.
    pub up_bytes_per_s: f64,
    /// Bytes between the members of the root group.
    pub group_bytes_per_s: f64,
    /// Bases from level to level, and their bytes.
    pub edge_downs: u64,
    /// See `edge_downs`.
    pub edge_down_bytes: u64,
    /// Frames of cuts to servers, and their bytes.
    pub down_frames: u64,
    /// See `down_frames`.
    pub down_bytes: u64,
    /// Bytes of the entries of cuts, and segments that grew in them.
    pub cut_bytes: u64,
    /// See `cut_bytes`.
    pub cut_segments: u64,
    /// Bytes of the cut log in the leader's memory, at the end.
    pub cut_log_bytes: u64,
    /// From a report being written to the cut that covers it being committed, in nanoseconds.
    pub age_root: Histogram<u64>,
    /// The same to the server having read what it is told of that cut.
    pub age_reporter: Histogram<u64>,
    /// Reports whose age was so large that it is not known any more.
    pub forgotten: u64,
    /// Frames that servers which read found to be gone.
    pub reader_frames_lost: u64,
    /// The servers' thread.
    pub servers: Side,
    /// The tree's threads.
    pub tree: Side,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            seconds: 0.0,
            merged_per_s: 0.0,
            read_per_s: 0.0,
            written_per_s: 0.0,
            overwritten_per_s: 0.0,
            late_per_s: 0.0,
            cuts_per_s: 0.0,
            passes_per_s: 0.0,
            ordered_per_s: 0.0,
            up_bytes_per_s: 0.0,
            group_bytes_per_s: 0.0,
            edge_downs: 0,
            edge_down_bytes: 0,
            down_frames: 0,
            down_bytes: 0,
            cut_bytes: 0,
            cut_segments: 0,
            cut_log_bytes: 0,
            age_root: ages(),
            age_reporter: ages(),
            forgotten: 0,
            reader_frames_lost: 0,
            servers: Side::default(),
            tree: Side::default(),
        }
    }
}

impl Window {
    /// Bytes that a server is told per cut that touches its shard.
    #[must_use]
    pub fn down_bytes_per_server_per_cut(&self) -> f64 {
        self.down_bytes as f64 / self.down_frames.max(1) as f64
    }

    /// Bytes of the cut log per segment that grew.
    #[must_use]
    pub fn cut_log_bytes_per_segment(&self) -> f64 {
        self.cut_bytes as f64 / self.cut_segments.max(1) as f64
    }
}

impl LeafCounts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.read += other.read;
        self.reflected += other.reflected;
        self.overwritten += other.overwritten;
        self.busy += other.busy;
        self.down_frames += other.down_frames;
        self.down_bytes += other.down_bytes;
        self.down_least = self.down_least.min(other.down_least);
        self.down_most = self.down_most.max(other.down_most);
        self.sync_frames += other.sync_frames;
        self.forgotten += other.forgotten;
        self.refused += other.refused;
    }
}

/// The account of every report of a run, and of every record.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Audit {
    /// Reports written.
    pub written: u64,
    /// Reports that scans read.
    pub read: u64,
    /// Of these, those that committed cuts reflect.
    pub reflected: u64,
    /// Reports that others took the place of unread.
    pub overwritten: u64,
    /// Records that the reports speak of.
    pub records: u64,
    /// Records that the cuts have ordered.
    pub ordered: u64,
    /// Frames between levels that found no room.
    pub lost_frames: u64,
    /// Datagrams that the system did not take.
    pub refused_datagrams: u64,
    /// Frames to servers that others took the place of unread.
    pub frames_skipped: u64,
}

impl Audit {
    /// What does not agree, in words. Datagrams may be lost, and the reports in them with them; the records may not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let seen = self.read + self.overwritten;
        if seen > self.written {
            return Err(format!("{seen} reports seen of {} written", self.written));
        }
        if self.reflected > self.read {
            let (reflected, read) = (self.reflected, self.read);
            return Err(format!("{reflected} reports reflected of {read} read"));
        }
        if self.ordered != self.records {
            let (ordered, records) = (self.ordered, self.records);
            return Err(format!("{ordered} records ordered of {records} reported"));
        }
        Ok(())
    }

    /// Whether every report was seen by a scan, or by the one that took its place.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.read + self.overwritten == self.written && self.reflected == self.read
    }
}

/// Everything that a run has found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was run.
    pub setting: Setting,
    /// Which thread was where.
    pub core_plan: String,
    /// What kept the cut log.
    pub device: String,
    /// Aggregators and leaves.
    pub vertices: usize,
    /// Servers.
    pub servers: usize,
    /// Servers that read what they are told.
    pub readers: usize,
    /// Records by which each segment grows from report to report.
    pub records_per_report: f64,
    /// The measurements.
    pub windows: Vec<Window>,
    /// The account of all reports.
    pub audit: Audit,
    /// Reports per second that a bare scan of the same slots reads, servers writing as fast as they can.
    pub bare_scan_per_s: f64,
}

/// Median, least and most of the measurements.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Outcome {
    /// A figure over all measurements.
    pub fn spread(&self, of: impl Fn(&Window) -> f64) -> Spread {
        let mut values: Vec<f64> = self.windows.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Spread {
            median: at(values.len() / 2),
            least: at(0),
            most: at(values.len().saturating_sub(1)),
        }
    }

    /// A quantile of ages, from 0 to 1, over all measurements: in microseconds, and not a number where there are none.
    pub fn age_us(&self, of: impl Fn(&Window) -> &Histogram<u64>, quantile: f64) -> Spread {
        self.spread(|window| {
            let ages = of(window);
            let age = (!ages.is_empty()).then(|| ages.value_at_quantile(quantile) as f64 / 1e3);
            age.unwrap_or(f64::NAN)
        })
    }

    /// All ages together.
    pub fn ages(&self, of: impl Fn(&Window) -> &Histogram<u64>) -> Histogram<u64> {
        let mut all = ages();
        for window in &self.windows {
            // All histograms here are made alike.
            let _ = all.add(of(window));
        }
        all
    }

    /// Merged reports per second, of what a bare scan of the same slots reads.
    #[must_use]
    pub fn ratio_to_table_scan(&self) -> f64 {
        self.spread(|it| it.merged_per_s).median / self.bare_scan_per_s.max(1.0)
    }
}
