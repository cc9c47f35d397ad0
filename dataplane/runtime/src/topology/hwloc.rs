//! The topology as hwloc sees it.

use hwloc2::{ObjectType, Topology as Hwloc, TopologyObject};
use thiserror::Error;

use super::{Cpu, Topology};
use crate::pin::allowed_cores;

/// Why hwloc gave no topology.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum HwlocError {
    /// The library could not load the machine's topology.
    #[error("hwloc cannot load the topology")]
    Load,
    /// It describes no processor that this process may use.
    #[error("hwloc describes no processor that this process may use")]
    Empty,
}

pub(super) fn read() -> Result<Topology, HwlocError> {
    let hwloc = Hwloc::new().ok_or(HwlocError::Load)?;
    let mut cpus: Vec<Cpu> = hwloc
        .objects_with_type(&ObjectType::PU)
        .unwrap_or_default()
        .into_iter()
        .map(|unit| Cpu {
            id: unit.os_index() as usize,
            package: ancestor(unit, &ObjectType::Package)
                .map_or(0, |package| package.os_index() as usize),
            numa_node: node_of(unit),
            siblings: siblings(&hwloc, unit),
        })
        .collect();
    cpus.sort_by_key(|cpu| cpu.id);
    let mask = allowed_cores();
    let allowed: Vec<usize> = cpus
        .iter()
        .map(|cpu| cpu.id)
        .filter(|id| mask.contains(id))
        .collect();
    if allowed.is_empty() {
        return Err(HwlocError::Empty);
    }
    Ok(Topology {
        cpus,
        allowed,
        cpu_quota: None,
    })
}

fn ancestor<'a>(object: &'a TopologyObject, wanted: &ObjectType) -> Option<&'a TopologyObject> {
    let mut at = object.parent();
    while let Some(object) = at {
        if object.object_type() == *wanted {
            return Some(object);
        }
        at = object.parent();
    }
    None
}

/// The first node of the unit's set. (Since hwloc 2 nodes hang beside the processors' tree, at a depth that this binding
/// cannot list.)
fn node_of(unit: &TopologyObject) -> usize {
    /// More nodes than any machine has.
    const NODES_MAX: u32 = 1024;
    let Some(nodes) = unit.nodeset() else {
        return 0;
    };
    (0..NODES_MAX)
        .find(|node| nodes.is_set(*node))
        .map_or(0, |node| node as usize)
}

fn siblings(hwloc: &Hwloc, unit: &TopologyObject) -> Vec<usize> {
    let Some(core) = ancestor(unit, &ObjectType::Core) else {
        return vec![unit.os_index() as usize];
    };
    let units = hwloc.objects_with_type(&ObjectType::PU).unwrap_or_default();
    let mut siblings: Vec<usize> = units
        .into_iter()
        .map(|other| other.os_index())
        .filter(|other| core.cpuset().is_some_and(|set| set.is_set(*other)))
        .map(|other| other as usize)
        .collect();
    siblings.sort_unstable();
    siblings
}
