//! The machine's processors: cores, siblings, NUMA nodes, and which of them this process may use.
//!
//! Read from /sys and the process's cgroup, with no library. The feature `hwloc` reads the same through hwloc, so that a
//! test can compare the two.

#[cfg(feature = "hwloc")]
mod hwloc;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use thiserror::Error;

#[cfg(feature = "hwloc")]
pub use hwloc::HwlocError;

use crate::pin::allowed_cores;

/// One logical processor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// The system's number for it.
    pub id: usize,
    /// Socket.
    pub package: usize,
    /// NUMA node; 0 where the system knows none.
    pub numa_node: usize,
    /// All logical processors of its physical core, itself included, ascending.
    pub siblings: Vec<usize>,
}

/// The processors that are online.
#[derive(Clone, PartialEq, Debug)]
pub struct Topology {
    /// Ascending by number.
    pub cpus: Vec<Cpu>,
    /// Those that this process may use, ascending.
    pub allowed: Vec<usize>,
    /// Processor time per time that the cgroup grants, e.g. 1.5 processors; `None` for no limit.
    pub cpu_quota: Option<f64>,
}

/// Why the topology is not known.
#[derive(Debug, Error)]
#[error("cannot read the topology: {what}")]
pub struct TopologyError {
    /// What was missing or wrong.
    pub what: String,
}

impl Topology {
    /// This machine and process.
    ///
    /// # Errors
    ///
    /// [`TopologyError`] if /sys is not mounted or makes no sense.
    pub fn read() -> Result<Self, TopologyError> {
        Self::read_under(Path::new("/"), &allowed_cores())
    }

    /// The same with another root directory, and the scheduler's mask given: for tests.
    fn read_under(root: &Path, mask: &[usize]) -> Result<Self, TopologyError> {
        let cpu_dir = root.join("sys/devices/system/cpu");
        let nodes = numa_nodes(&root.join("sys/devices/system/node"));
        let mut cpus = Vec::new();
        for id in read_list(&cpu_dir.join("online"))? {
            let topology = cpu_dir.join(format!("cpu{id}/topology"));
            let mut siblings = read_list(&topology.join("thread_siblings_list"))?;
            siblings.sort_unstable();
            cpus.push(Cpu {
                id,
                package: read_number(&topology.join("physical_package_id"))?,
                numa_node: nodes.get(&id).copied().unwrap_or(0),
                siblings,
            });
        }
        let cgroup = cgroup_dir(root);
        let cpuset = cgroup
            .as_ref()
            .and_then(|dir| read_list(&dir.join("cpuset.cpus.effective")).ok());
        let allowed: Vec<usize> = cpus
            .iter()
            .map(|cpu| cpu.id)
            .filter(|id| {
                mask.contains(id)
                    && cpuset
                        .as_ref()
                        .is_none_or(|set| set.is_empty() || set.contains(id))
            })
            .collect();
        if allowed.is_empty() {
            return Err(TopologyError {
                what: "no processor is allowed".into(),
            });
        }
        Ok(Self {
            cpus,
            allowed,
            cpu_quota: cgroup.and_then(|dir| cpu_quota(&dir)),
        })
    }

    /// The same machine as hwloc sees it; the quota is not hwloc's matter and is `None`.
    ///
    /// # Errors
    ///
    /// [`HwlocError`] if hwloc cannot load or describes no processor.
    #[cfg(feature = "hwloc")]
    pub fn read_with_hwloc() -> Result<Self, HwlocError> {
        hwloc::read()
    }

    /// The processor of that number.
    #[must_use]
    pub fn cpu(&self, id: usize) -> Option<&Cpu> {
        self.cpus.iter().find(|cpu| cpu.id == id)
    }

    /// How many threads of this process can run at once: allowed processors, or less by quota. At least 1.
    #[must_use]
    pub fn parallelism(&self) -> usize {
        let by_quota = self
            .cpu_quota
            .map_or(usize::MAX, |quota| quota.floor() as usize);
        self.allowed.len().min(by_quota).max(1)
    }

    /// The allowed processors in the order in which reactors should take them: first one of each physical core, the first
    /// node's first, with the machine's first processor, where interrupts and the system's own work usually go, as the
    /// last; then the siblings.
    #[must_use]
    pub fn preferred_order(&self) -> Vec<usize> {
        let rank = |id: &usize| {
            let cpu = self.cpu(*id);
            let is_sibling = cpu.is_some_and(|cpu| {
                cpu.siblings
                    .iter()
                    .any(|other| other < id && self.allowed.contains(other))
            });
            (
                is_sibling,
                *id == 0,
                cpu.map_or(0, |cpu| cpu.numa_node),
                *id,
            )
        };
        let mut order = self.allowed.clone();
        order.sort_by_key(rank);
        order
    }
}

/// Which node each processor belongs to. Empty where the system knows no nodes.
fn numa_nodes(dir: &Path) -> BTreeMap<usize, usize> {
    let mut nodes = BTreeMap::new();
    let Ok(entries) = fs::read_dir(dir) else {
        return nodes;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("node")?.parse().ok());
        if let Some(node) = number
            && let Ok(cpus) = read_list(&entry.path().join("cpulist"))
        {
            nodes.extend(cpus.into_iter().map(|cpu| (cpu, node)));
        }
    }
    nodes
}

/// The directory of this process's cgroup: version 2, or the cpuset hierarchy of version 1.
fn cgroup_dir(root: &Path) -> Option<std::path::PathBuf> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let base = match controllers {
            "" => "sys/fs/cgroup",
            "cpuset" => "sys/fs/cgroup/cpuset",
            _ => continue,
        };
        // Inside a container the path may be that of the host, which is not there: then the mount's root is ours.
        let base = root.join(base);
        let own = base.join(path.trim_start_matches('/'));
        return Some(if own.is_dir() { own } else { base });
    }
    None
}

fn cpu_quota(dir: &Path) -> Option<f64> {
    let text = fs::read_to_string(dir.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0.0).then_some(quota / period)
}

fn read_text(path: &Path) -> Result<String, TopologyError> {
    fs::read_to_string(path).map_err(|error| TopologyError {
        what: format!("{}: {error}", path.display()),
    })
}

fn read_number(path: &Path) -> Result<usize, TopologyError> {
    let text = read_text(path)?;
    // Machines that do not know their sockets say -1.
    match text.trim() {
        "-1" => Ok(0),
        number => number.parse().map_err(|_| TopologyError {
            what: format!("{}: {number:?} is no number", path.display()),
        }),
    }
}

fn read_list(path: &Path) -> Result<Vec<usize>, TopologyError> {
    let text = read_text(path)?;
    parse_list(text.trim()).ok_or_else(|| TopologyError {
        what: format!(
            "{}: {:?} is no list of processors",
            path.display(),
            text.trim()
        ),
    })
}

/// Parses the system's form of a set, such as `0-3,8,10-11`. `None` for what is none, and for numbers of 65,536 or more.
#[must_use]
pub fn parse_list(text: &str) -> Option<Vec<usize>> {
    /// More processors than any machine has: a bound on what a strange file can make us allocate.
    const CPUS_MAX: usize = 1 << 16;
    let mut list = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last >= CPUS_MAX || first > last || list.len() > CPUS_MAX {
            return None;
        }
        list.extend(first..=last);
    }
    Some(list)
}

#[cfg(test)]
mod tests;
