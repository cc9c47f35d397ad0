//! What is measured: the tree, the reporters, the transport, and the limits of each.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ionian_slots::{CELLS_MAX, DEPTH_MAX};
use ionian_types::{Durability, ROOT_MEMBERS_MAX, SEGMENTS_PER_SHARD_MAX};
use ionian_wire::tree::{TREE_DEPTH_MAX, TREE_VERTICES_MAX};

/// Segments of all shards, at most: a round and a cut of all of them are then one message and one entry.
pub const SEGMENTS_MAX: usize = 65_536;
/// Reports of one server per second, at most.
pub const REPORT_RATE_MAX: u64 = 1_000_000;

/// By what the levels of the tree exchange frames, and servers theirs with a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// All levels on one core: a frame is handed from one outbox to the next machine. Reports are written to slots.
    InProcess,
    /// Rings of shared memory between levels, which run on cores of their own as far as there are any. Reports are written to slots.
    Shm,
    /// Sessions over UDP on loopback between levels. The servers of a leaf share a socket: their reports and what they are told
    /// travel many to a datagram, and whoever receives a report writes it to its slot.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::InProcess => "inproc",
            Self::Shm => "shm",
            Self::Udp => "udp",
        })
    }
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Shards of the log.
    pub shards: usize,
    /// Replicas of each: all of them must hold a record.
    pub replicas: usize,
    /// Vertices below the root and below each aggregator.
    pub fan_in: usize,
    /// Levels of vertices between the root and the shards; the last one are leaves.
    pub depth: usize,
    /// Reports of each server per second; 0 writes as fast as one core can.
    pub report_rate: u64,
    /// Records that each shard takes per second, from which the lengths in reports follow.
    pub shard_rate: u64,
    /// The least time between two cuts; zero cuts as fast as entries commit.
    pub interval: Duration,
    /// How frames travel.
    pub transport: Transport,
    /// Members of the root group beside its leader.
    pub root_backups: usize,
    /// Durability class of the cut log.
    pub class: Durability,
    /// Where the cut logs of a flushed class are kept.
    pub dir: Option<PathBuf>,
    /// Cores, the first for the root; the last one is the servers'. None leaves it to the scheduler.
    pub cores: Vec<usize>,
    /// Of each measurement.
    pub duration: Duration,
    /// Before the first.
    pub warm_up: Duration,
    /// Measurements, one after the other in the same run.
    pub repeat: usize,
    /// How many of the servers read what they are told, in percent.
    pub readers_percent: f64,
    /// Frames in the ring of each server.
    pub down_frames: usize,
}

impl Default for Setting {
    /// A small tree that two cores carry with ease.
    fn default() -> Self {
        Self {
            shards: 100,
            replicas: 2,
            fan_in: 2,
            depth: 2,
            report_rate: 10_000,
            shard_rate: 150_000,
            interval: Duration::ZERO,
            transport: Transport::InProcess,
            root_backups: 2,
            class: Durability::D0,
            dir: None,
            cores: Vec::new(),
            duration: Duration::from_secs(2),
            warm_up: Duration::from_millis(500),
            repeat: 3,
            readers_percent: 100.0,
            down_frames: 4,
        }
    }
}

/// A value that makes no sense; what to give instead. Effect: none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what} is {given}: {rule}")]
pub struct SettingError {
    /// The name of the option.
    pub what: &'static str,
    /// What was given.
    pub given: String,
    /// What may be given.
    pub rule: String,
}

impl Setting {
    /// Servers: replicas of all shards.
    #[must_use]
    pub const fn servers(&self) -> usize {
        self.shards * self.replicas
    }

    /// Leaves of the tree; `None` when there are more than a tree has vertices.
    #[must_use]
    pub fn leaves(&self) -> Option<usize> {
        let leaves = self.fan_in.checked_pow(u32::try_from(self.depth).ok()?)?;
        (leaves <= TREE_VERTICES_MAX).then_some(leaves)
    }

    /// Servers that read what they are told.
    #[must_use]
    pub fn readers(&self) -> usize {
        let readers = self.servers() as f64 * self.readers_percent / 100.0;
        (readers.ceil() as usize).min(self.servers())
    }

    /// Whether everything makes sense together.
    ///
    /// # Errors
    /// [`SettingError`] for the first value that does not.
    pub fn check(&self) -> Result<(), SettingError> {
        let wrong = |what, given: &dyn fmt::Display, rule: String| SettingError {
            what,
            given: given.to_string(),
            rule,
        };
        let most = |what, given: usize, least: usize, most: usize| {
            if (least..=most).contains(&given) {
                Ok(())
            } else {
                Err(wrong(what, &given, format!("give {least} to {most}")))
            }
        };
        most("--replicas", self.replicas, 1, SEGMENTS_PER_SHARD_MAX)?;
        most("--shards", self.shards, 1, SEGMENTS_MAX / self.replicas)?;
        most("--depth", self.depth, 1, TREE_DEPTH_MAX)?;
        most("--fan-in", self.fan_in, 1, TREE_VERTICES_MAX)?;
        most("--root-backups", self.root_backups, 0, ROOT_MEMBERS_MAX - 1)?;
        most("--repeat", self.repeat, 1, 1_000)?;
        most("--down-frames", self.down_frames, 1, DEPTH_MAX)?;
        let Some(leaves) = self.leaves().filter(|leaves| *leaves <= self.shards) else {
            let rule = format!(
                "with --depth {} that is more leaves than shards ({}) or than a tree may have ({TREE_VERTICES_MAX})",
                self.depth, self.shards
            );
            return Err(wrong("--fan-in", &self.fan_in, rule));
        };
        let slots = self.shards.div_ceil(leaves) * self.replicas;
        if slots * self.down_frames > CELLS_MAX {
            let rule = format!("give at most {} for so many servers", CELLS_MAX / slots);
            return Err(wrong("--down-frames", &self.down_frames, rule));
        }
        if self.report_rate > REPORT_RATE_MAX {
            let rule = format!("give 0 to {REPORT_RATE_MAX}");
            return Err(wrong("--report-rate", &self.report_rate, rule));
        }
        if self.interval > Duration::from_secs(1) {
            let rule = String::from("give at most 1,000,000");
            return Err(wrong("--interval-us", &self.interval.as_micros(), rule));
        }
        if !(0.0..=100.0).contains(&self.readers_percent) {
            let rule = String::from("give 0 to 100");
            return Err(wrong("--readers-percent", &self.readers_percent, rule));
        }
        if self.class == Durability::D2 {
            let rule = String::from("a cut log is D0 or D1");
            return Err(wrong("--durability", &self.class, rule));
        }
        if self.class.is_flushed() && self.dir.is_none() {
            let rule = String::from("a flushed cut log needs a folder");
            return Err(wrong("--durability", &self.class, rule));
        }
        if self.duration < Duration::from_millis(1) {
            let rule = String::from("give at least a millisecond");
            return Err(wrong("--duration", &self.duration.as_secs_f64(), rule));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_named_with_what_to_give() {
        let wrong = |change: fn(&mut Setting)| {
            let mut setting = Setting::default();
            change(&mut setting);
            setting.check().unwrap_err().to_string()
        };
        assert_eq!(Setting::default().check(), Ok(()));
        assert_eq!(wrong(|it| it.fan_in = 0), "--fan-in is 0: give 1 to 4096");
        assert_eq!(wrong(|it| it.depth = 9), "--depth is 9: give 1 to 8");
        assert_eq!(wrong(|it| it.replicas = 8), "--replicas is 8: give 1 to 7");
        assert_eq!(
            wrong(|it| it.shards = 40_000),
            "--shards is 40000: give 1 to 32768"
        );
        assert!(wrong(|it| it.fan_in = 11).contains("more leaves than shards (100)"));
        assert!(wrong(|it| it.class = Durability::D1).contains("needs a folder"));
        assert!(wrong(|it| it.class = Durability::D2).contains("D0 or D1"));
        assert!(wrong(|it| it.readers_percent = 101.0).contains("give 0 to 100"));
        assert!(wrong(|it| it.duration = Duration::ZERO).contains("a millisecond"));
    }
}
