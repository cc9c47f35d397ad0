//! The backends by name: how each opens, and which must run here.
//!
//! [`TABLE`] is the only list. A backend that this build does not have stays in it and says why it is skipped, so that a run shows
//! what it did not look at.

pub mod ether;
pub mod lan;
pub mod packets;
pub mod shm;
pub mod udp;

use std::os::unix::fs::MetadataExt;

use ionian_driver_api::PacketDevice;

use crate::defect::Defect;
use crate::subject::{Backend, Refusal};

use packets::{Datagrams, Devices};
use shm::Shm;

/// Events that emulated one-sided writes take from below, for each that a poll hands over: some are left for the next one.
const STAGED_EVENTS: usize = 4;

/// When a backend must run: a skip of it then fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// Everywhere.
    Always,
    /// As root, who may make interfaces and namespaces.
    AsRoot,
    /// Only where it is asked for by `--require`.
    OnRequest,
}

/// Makes a backend, which opens nothing yet.
pub type Build = fn() -> Box<dyn Backend>;

/// How a backend comes to be.
#[derive(Clone, Copy, Debug)]
pub enum Factory {
    /// It is in this build.
    Built(Build),
    /// It is not; the reason is a sentence.
    Absent(&'static str),
}

/// A row of [`TABLE`].
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What it is called in options and reports.
    pub name: &'static str,
    /// When it must run.
    pub need: Need,
    /// How it comes to be.
    pub factory: Factory,
}

/// Every backend that the suite knows, in the order in which they run.
pub const TABLE: &[Entry] = &[
    Entry {
        name: "shm",
        need: Need::Always,
        factory: Factory::Built(|| broken_shm(Defect::None)),
    },
    Entry {
        name: "udp",
        need: Need::Always,
        factory: Factory::Built(|| datagrams(udp::open)),
    },
    Entry {
        name: "tap",
        need: Need::AsRoot,
        factory: Factory::Built(|| datagrams(ether::tap)),
    },
    Entry {
        name: "af-packet",
        need: Need::AsRoot,
        factory: Factory::Built(|| datagrams(ether::af_packet)),
    },
    Entry {
        name: "af-xdp",
        need: Need::AsRoot,
        factory: Factory::Built(|| datagrams(ether::af_xdp)),
    },
    Entry {
        name: "dpdk",
        need: Need::OnRequest,
        factory: Factory::Absent("the driver is not in this build"),
    },
    Entry {
        name: "verbs",
        need: Need::OnRequest,
        factory: Factory::Absent("the driver is not in this build"),
    },
];

/// Backends that are broken on purpose. They run only when asked for by name, and the suite fails on each.
pub const BROKEN: &[(&str, Build)] = &[
    ("broken-shm-loses", || broken_shm(Defect::Loses)),
    ("broken-shm-duplicates", || broken_shm(Defect::Duplicates)),
    ("broken-shm-leaks", || broken_shm(Defect::Leaks)),
    ("broken-udp-loses", || broken_udp(Defect::Loses)),
    ("broken-udp-duplicates", || broken_udp(Defect::Duplicates)),
    ("broken-udp-leaks", || broken_udp(Defect::Leaks)),
];

fn broken_shm(defect: Defect) -> Box<dyn Backend> {
    Box::new(Shm { defect })
}

fn datagrams<D: PacketDevice + Send + 'static>(
    open: fn(usize) -> Result<Devices<D>, Refusal>,
) -> Box<dyn Backend> {
    Box::new(Datagrams {
        open,
        defect: Defect::None,
    })
}

fn broken_udp(defect: Defect) -> Box<dyn Backend> {
    Box::new(Datagrams {
        open: udp::open,
        defect,
    })
}

/// Whether this process is root.
#[must_use]
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// The names of the backends that must run by default.
#[must_use]
pub fn required(root: bool) -> Vec<&'static str> {
    let needed = |entry: &&Entry| entry.need == Need::Always || root && entry.need == Need::AsRoot;
    TABLE
        .iter()
        .filter(needed)
        .map(|entry| entry.name)
        .collect()
}

/// The backend of that name: one of the table, or one of the broken ones.
#[must_use]
pub fn find(name: &str) -> Option<Entry> {
    let broken = BROKEN.iter().find(|(broken, _)| *broken == name);
    let broken = broken.map(|(name, build)| Entry {
        name,
        need: Need::OnRequest,
        factory: Factory::Built(*build),
    });
    TABLE
        .iter()
        .find(|entry| entry.name == name)
        .copied()
        .or(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_found() {
        let names: Vec<&str> = TABLE
            .iter()
            .map(|entry| entry.name)
            .chain(BROKEN.iter().map(|(name, _)| *name))
            .collect();
        for name in &names {
            assert_eq!(names.iter().filter(|other| *other == name).count(), 1);
            assert!(find(name).is_some_and(|entry| entry.name == *name));
        }
        assert!(find("no-such-backend").is_none());
    }

    #[test]
    fn what_must_run_is_built() {
        for root in [false, true] {
            let names = required(root);
            assert!(names.contains(&"shm") && names.contains(&"udp"));
            for name in names {
                let entry = find(name).expect("in the table");
                assert!(
                    matches!(entry.factory, Factory::Built(_)),
                    "{name} must run and cannot"
                );
            }
        }
    }
}
