//! The topology of made-up machines, and of this one.

use std::fs;
use std::path::Path;

use super::*;

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a writable directory");
    fs::write(path, text).expect("writable");
}

/// A machine of `cpus` processors, where `i` and `i + cpus / 2` are siblings and the halves of the cores are nodes.
fn machine(cpus: usize) -> tempfile::TempDir {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let (root, cores) = (temp.path(), cpus / 2);
    write(
        root,
        "sys/devices/system/cpu/online",
        &format!("0-{}\n", cpus - 1),
    );
    for cpu in 0..cpus {
        let dir = format!("sys/devices/system/cpu/cpu{cpu}/topology");
        let (first, second) = (cpu % cores, cpu % cores + cores);
        write(
            root,
            &format!("{dir}/thread_siblings_list"),
            &format!("{first},{second}\n"),
        );
        write(
            root,
            &format!("{dir}/physical_package_id"),
            &format!("{}\n", first / (cores / 2)),
        );
    }
    for node in 0..2 {
        let first = node * cores / 2;
        let last = first + cores / 2 - 1;
        let list = format!("{first}-{last},{}-{}\n", first + cores, last + cores);
        write(
            root,
            &format!("sys/devices/system/node/node{node}/cpulist"),
            &list,
        );
    }
    temp
}

#[test]
fn a_machine_with_siblings_and_nodes_is_understood() {
    let temp = machine(8);
    let all: Vec<usize> = (0..8).collect();
    let topology = Topology::read_under(temp.path(), &all).expect("complete");
    assert_eq!(
        topology.cpus[6],
        Cpu {
            id: 6,
            package: 1,
            numa_node: 1,
            siblings: vec![2, 6]
        }
    );
    assert_eq!(
        (
            topology.allowed.len(),
            topology.cpu_quota,
            topology.parallelism()
        ),
        (8, None, 8)
    );
    assert_eq!(
        topology.preferred_order(),
        [1, 2, 3, 0, 4, 5, 6, 7],
        "one per core first, processor 0 last of them"
    );
}

#[test]
fn a_cgroup_limits_processors_and_time() {
    let temp = machine(8);
    let all: Vec<usize> = (0..8).collect();
    write(temp.path(), "proc/self/cgroup", "0::/pod/ours\n");
    write(
        temp.path(),
        "sys/fs/cgroup/pod/ours/cpuset.cpus.effective",
        "2-3,6\n",
    );
    write(
        temp.path(),
        "sys/fs/cgroup/pod/ours/cpu.max",
        "150000 100000\n",
    );
    let topology = Topology::read_under(temp.path(), &all).expect("complete");
    assert_eq!(topology.allowed, [2, 3, 6]);
    assert_eq!((topology.cpu_quota, topology.parallelism()), (Some(1.5), 1));
    assert_eq!(
        topology.preferred_order(),
        [2, 3, 6],
        "6 is the sibling of 2"
    );
    // The scheduler's mask limits as well, and no limit is no limit.
    write(
        temp.path(),
        "sys/fs/cgroup/pod/ours/cpu.max",
        "max 100000\n",
    );
    let topology = Topology::read_under(temp.path(), &[6, 7]).expect("complete");
    assert_eq!(
        (topology.allowed.as_slice(), topology.cpu_quota),
        (&[6][..], None)
    );
    assert_eq!(
        topology.preferred_order(),
        [6],
        "its sibling is not allowed, so it has the core to itself"
    );
    assert!(
        Topology::read_under(temp.path(), &[0, 1]).is_err(),
        "nothing is left"
    );
}

#[test]
fn a_cgroup_path_of_the_host_falls_back_to_the_mount() {
    let temp = machine(4);
    write(temp.path(), "proc/self/cgroup", "5:cpuset:/docker/abc\n");
    write(
        temp.path(),
        "sys/fs/cgroup/cpuset/cpuset.cpus.effective",
        "1\n",
    );
    let topology = Topology::read_under(temp.path(), &[0, 1, 2, 3]).expect("complete");
    assert_eq!(topology.allowed, [1]);
}

#[test]
fn nonsense_is_an_error_not_a_panic() {
    for text in ["x", "3-1", "0-99999999", "1-", "-1"] {
        assert_eq!(parse_list(text), None, "{text}");
    }
    assert_eq!(parse_list("0-2,5"), Some(vec![0, 1, 2, 5]));
    assert_eq!(parse_list(""), Some(vec![]));
    let temp = machine(4);
    fs::remove_file(
        temp.path()
            .join("sys/devices/system/cpu/cpu3/topology/physical_package_id"),
    )
    .expect("there");
    let error = Topology::read_under(temp.path(), &[0]).expect_err("a file is missing");
    assert!(
        error
            .to_string()
            .contains("cpu3/topology/physical_package_id"),
        "{error}"
    );
}

#[test]
fn this_machine_is_readable() {
    let topology = Topology::read().expect("a Linux machine");
    for id in &topology.allowed {
        let cpu = topology.cpu(*id).expect("an allowed processor is online");
        assert!(cpu.siblings.contains(id));
    }
    assert_eq!(topology.preferred_order().len(), topology.allowed.len());
}

#[cfg(feature = "hwloc")]
#[test]
fn hwloc_sees_the_same_machine() {
    let ours = Topology::read().expect("a Linux machine");
    let theirs = Topology::read_with_hwloc().expect("hwloc is installed");
    assert_eq!(
        Topology {
            cpu_quota: None,
            ..ours
        },
        theirs
    );
}
