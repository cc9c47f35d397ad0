//! What a measurement uses up: processor time of this process, and operations of the block devices.

use std::time::Duration;

use ionian_node::Server;
use ionian_store::StoreStats;

/// Counters at one moment, or between two.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Usage {
    /// Processor time of all threads of this process.
    pub(crate) cpu: Duration,
    /// Writes to devices.
    pub(crate) writes: u64,
    /// Bytes of them.
    pub(crate) written_bytes: u64,
    /// Flushes of devices.
    pub(crate) flushes: u64,
}

impl Usage {
    /// What this process and the stores of its cluster have used so far.
    pub(crate) fn of(server: &Server) -> anyhow::Result<Self> {
        let mut usage = Self {
            cpu: cpu_time(),
            ..Self::default()
        };
        let status = server.status(Duration::from_secs(5));
        let status = status.ok_or_else(|| anyhow::anyhow!("the cluster does not answer"))?;
        for stats in status.places.iter().filter_map(|place| place.store) {
            usage.add(&Self::of_store(&stats));
        }
        Ok(usage)
    }

    /// What one store has used of its device so far.
    pub(crate) const fn of_store(stats: &StoreStats) -> Self {
        Self {
            cpu: Duration::ZERO,
            writes: stats.writes,
            written_bytes: stats.written_bytes,
            flushes: stats.flushes,
        }
    }

    /// What this process, and everybody on the machine's disks, has used so far: for a cluster in other processes.
    pub(crate) fn of_machine() -> Self {
        let mut usage = Self {
            cpu: cpu_time(),
            ..Self::default()
        };
        let disks = std::fs::read_to_string("/proc/diskstats").unwrap_or_default();
        for line in disks.lines() {
            usage.add_disk(line);
        }
        usage
    }

    /// Adds a line of /proc/diskstats, if it is of a whole disk: its partitions' are part of it.
    fn add_disk(&mut self, line: &str) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| {
            fields
                .get(at)
                .and_then(|field| field.parse::<u64>().ok())
                .unwrap_or(0)
        };
        let Some(name) = fields.get(2) else { return };
        if !std::path::Path::new("/sys/block").join(name).exists() {
            return;
        }
        self.writes += number(7);
        // Sectors of 512 bytes, whatever the device's own are.
        self.written_bytes += number(9) * 512;
        self.flushes += number(18);
    }

    /// From an earlier moment to this one.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            writes: self.writes.saturating_sub(earlier.writes),
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
            flushes: self.flushes.saturating_sub(earlier.flushes),
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.cpu += other.cpu;
        self.writes += other.writes;
        self.written_bytes += other.written_bytes;
        self.flushes += other.flushes;
    }
}

/// Processor time of the threads of this process that run: those that have ended are not in it.
fn cpu_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let of_task = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.filter_map(of_task).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_costs_processor_time() {
        let before = cpu_time();
        let began = std::time::Instant::now();
        while cpu_time().saturating_sub(before) < Duration::from_millis(5) {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "this thread runs"
            );
        }
    }

    #[test]
    fn counters_are_told_apart() {
        let one = Usage {
            cpu: Duration::from_secs(1),
            writes: 5,
            written_bytes: 4096,
            flushes: 2,
        };
        let two = Usage {
            cpu: Duration::from_secs(3),
            writes: 9,
            written_bytes: 8192,
            flushes: 3,
        };
        let mut sum = two.since(&one);
        assert_eq!(
            (sum.cpu, sum.writes, sum.written_bytes, sum.flushes),
            (Duration::from_secs(2), 4, 4096, 1)
        );
        sum.add(&one);
        assert_eq!(sum, two);
        let mut none = Usage::default();
        none.add_disk("  254       0 no-such-disk 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17");
        assert_eq!(none, Usage::default());
    }
}
