//! The kernel, the process's rights and limits, cores, huge pages and the IOMMU.

use std::collections::BTreeMap;

use ionian_runtime::parse_cpu_list;

use super::super::facts::{Cores, HugePages, Iommu, Kernel, Limit, PagesOfNode, Process};
use super::super::root::{Root, shown};

/// Options of the kernel's build that profiles and the report ask about.
const CONFIG: &[&str] = &[
    "CONFIG_AF_XDP",
    "CONFIG_HUGETLBFS",
    "CONFIG_INFINIBAND",
    "CONFIG_IO_URING",
    "CONFIG_IOMMU_SUPPORT",
    "CONFIG_PACKET",
    "CONFIG_RDMA_RXE",
    "CONFIG_TUN",
    "CONFIG_VETH",
    "CONFIG_VFIO",
    "CONFIG_VFIO_NOIOMMU",
    "CONFIG_VFIO_PCI",
    "CONFIG_XDP_SOCKETS",
];

/// Words of the command line that are worth showing, up to their `=`.
const COMMAND_LINE: &[&str] = &[
    "isolcpus",
    "nohz_full",
    "rcu_nocbs",
    "intel_iommu",
    "amd_iommu",
    "iommu",
    "iommu.passthrough",
    "hugepages",
    "hugepagesz",
    "default_hugepagesz",
    "preempt",
    "nvme.poll_queues",
];

/// Capabilities in the order of their bits, capabilities(7).
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

pub(super) fn kernel(root: &Root) -> Kernel {
    let release = root.word("proc/sys/kernel/osrelease");
    let config = config_text(root, release.as_deref());
    let options: BTreeMap<&str, &str> = config
        .as_deref()
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let known = config.is_some();
    let value = |option: &&str| options.get(option).map_or("n", |value| value.trim());
    let version = root.text("proc/version").unwrap_or_default();
    let cpuinfo = root.text("proc/cpuinfo");
    let command_line = root.text("proc/cmdline").unwrap_or_default();
    let words = command_line.split_whitespace().filter(|word| {
        let key = word.split('=').next().unwrap_or_default();
        COMMAND_LINE.contains(&key)
    });
    Kernel {
        distribution: distribution(root),
        virtual_machine: cpuinfo.map(|text| {
            let mut flags = text.lines().filter(|line| line.starts_with("flags"));
            flags.any(|line| line.split_whitespace().any(|flag| flag == "hypervisor"))
        }),
        tick_hz: options.get("CONFIG_HZ").and_then(|hz| hz.parse().ok()),
        preemption: preemption(&version, &options),
        config: CONFIG
            .iter()
            .filter(|_| known)
            .map(|option| ((*option).to_owned(), shown(value(option))))
            .collect(),
        command_line: words.take(32).map(shown).collect(),
        rmem_max_bytes: root.number("proc/sys/net/core/rmem_max"),
        release,
    }
}

/// The options of the kernel's build, from wherever it tells them.
fn config_text(root: &Root, release: Option<&str>) -> Option<String> {
    root.gunzipped("proc/config.gz").or_else(|| {
        let release = release.filter(|release| !release.contains('/'))?;
        root.text(&format!("boot/config-{release}"))
            .or_else(|| root.text(&format!("lib/modules/{release}/config")))
    })
}

/// What may interrupt the kernel: as its version says, and what its build chose.
fn preemption(version: &str, options: &BTreeMap<&str, &str>) -> Option<String> {
    let kinds = [
        ("CONFIG_PREEMPT_RT", "real-time"),
        ("CONFIG_PREEMPT_LAZY", "lazy"),
        ("CONFIG_PREEMPT_VOLUNTARY", "voluntary"),
        ("CONFIG_PREEMPT_NONE", "none"),
        ("CONFIG_PREEMPT", "full"),
    ];
    let built = kinds
        .iter()
        .find(|(option, _)| options.get(option) == Some(&"y"));
    let built = built.map(|(_, name)| (*name).to_owned());
    let mut words = version.split_whitespace();
    if words.any(|word| word == "PREEMPT_DYNAMIC") {
        return Some(built.map_or_else(
            || String::from("dynamic"),
            |built| format!("dynamic, {built} by default"),
        ));
    }
    built.or_else(|| {
        let full = version.split_whitespace().any(|word| word == "PREEMPT");
        full.then(|| String::from("full"))
    })
}

/// ID and ID_LIKE of os-release(5).
fn distribution(root: &Root) -> Vec<String> {
    let text = root
        .text("etc/os-release")
        .or_else(|| root.text("usr/lib/os-release"))
        .unwrap_or_default();
    let mut names = Vec::new();
    for key in ["ID=", "ID_LIKE="] {
        for line in text.lines().filter_map(|line| line.strip_prefix(key)) {
            let words = line.trim_matches('"').split_whitespace();
            names.extend(words.take(8).map(shown));
        }
    }
    names
}

pub(super) fn process(root: &Root) -> Process {
    let status = root.text("proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim)
    };
    let capabilities = |name: &str| {
        let bits = u64::from_str_radix(field(name)?, 16).ok()?;
        let known = CAPABILITIES.iter().enumerate();
        let have = known.filter(|(bit, _)| (bits >> bit) & 1 != 0);
        Some(have.map(|(_, name)| (*name).to_owned()).collect())
    };
    let limits = root.text("proc/self/limits").unwrap_or_default();
    let locked = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"));
    let memlock = locked.and_then(|line| match line.split_whitespace().next()? {
        "unlimited" => Some(Limit::UNLIMITED),
        bytes => bytes.parse().ok().map(Limit::Bytes),
    });
    Process {
        capabilities: capabilities("CapEff:"),
        capabilities_bounding: capabilities("CapBnd:"),
        memlock_bytes: memlock,
    }
}

pub(super) fn cores(root: &Root) -> Cores {
    let list = |path: &str| {
        let text = root.text(path).unwrap_or_default();
        parse_cpu_list(text.trim()).unwrap_or_default()
    };
    let online = list("sys/devices/system/cpu/online");
    let status = root.text("proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let mask = mask.and_then(|mask| parse_cpu_list(mask.trim()));
    let cgroup = cgroup_dir(root);
    let cpuset = cgroup
        .as_ref()
        .map(|dir| list(&format!("{dir}/cpuset.cpus.effective")));
    let cpuset = cpuset.filter(|set| !set.is_empty());
    let allowed = online.iter().copied().filter(|core| {
        let in_mask = mask.as_ref().is_none_or(|mask| mask.contains(core));
        in_mask && cpuset.as_ref().is_none_or(|set| set.contains(core))
    });
    let mut siblings: Vec<Vec<usize>> = Vec::new();
    for core in &online {
        let path = format!("sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
        let mut set = list(&path);
        set.sort_unstable();
        if set.len() > 1 && !siblings.contains(&set) {
            siblings.push(set);
        }
    }
    let nodes = root.names("sys/devices/system/node").into_iter();
    let nodes = nodes.filter_map(|name| {
        let number = name.strip_prefix("node")?.parse().ok()?;
        Some((
            number,
            list(&format!("sys/devices/system/node/{name}/cpulist")),
        ))
    });
    let average = |text: String| {
        let number = |field: &str| field.parse().ok().filter(|it: &f64| it.is_finite());
        let mut fields = text.split_whitespace().map(number);
        Some([fields.next()??, fields.next()??, fields.next()??])
    };
    Cores {
        allowed: allowed.collect(),
        siblings,
        numa_nodes: nodes.collect(),
        isolated: list("sys/devices/system/cpu/isolated"),
        tickless: list("sys/devices/system/cpu/nohz_full"),
        quota: cgroup.and_then(|dir| quota(&root.text(&format!("{dir}/cpu.max"))?)),
        load: root.text("proc/loadavg").and_then(average),
        pressure_percent: root.text("proc/pressure/cpu").and_then(|text| {
            let some = text
                .lines()
                .find_map(|line| line.strip_prefix("some avg10="))?;
            some.split_whitespace()
                .next()?
                .parse()
                .ok()
                .filter(|it: &f64| it.is_finite())
        }),
        online,
    }
}

/// The directory of the process's own group, or the mount's root where its path is that of a host.
fn cgroup_dir(root: &Root) -> Option<String> {
    let text = root.text("proc/self/cgroup")?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let inside = !own.split('/').any(|part| part == "..");
    let own = format!("sys/fs/cgroup{}", own.trim());
    let here = inside && root.is_dir(&own);
    Some(if here {
        own
    } else {
        String::from("sys/fs/cgroup")
    })
}

/// Processors that a group may use at a time, of `cpu.max`: quota and period, or `max`.
fn quota(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0.0 && quota.is_finite()).then_some(quota / period)
}

pub(super) fn huge_pages(root: &Root) -> Vec<HugePages> {
    const DIR: &str = "sys/kernel/mm/hugepages";
    let nodes = root.names("sys/devices/system/node");
    let count = |dir: &str, file: &str| root.number(&format!("{dir}/{file}")).unwrap_or(0);
    let pages = root.names(DIR).into_iter().filter_map(|name| {
        let kib: u64 = name
            .strip_prefix("hugepages-")?
            .strip_suffix("kB")?
            .parse()
            .ok()?;
        let of_nodes = nodes.iter().filter_map(|node| {
            let number = node.strip_prefix("node")?.parse().ok()?;
            let dir = format!("sys/devices/system/node/{node}/hugepages/{name}");
            root.is_dir(&dir).then(|| {
                let total = count(&dir, "nr_hugepages");
                let free = count(&dir, "free_hugepages");
                (number, PagesOfNode { total, free })
            })
        });
        let dir = format!("{DIR}/{name}");
        Some(HugePages {
            page_bytes: kib.checked_mul(1024)?,
            total: count(&dir, "nr_hugepages"),
            free: count(&dir, "free_hugepages"),
            numa_nodes: of_nodes.collect(),
        })
    });
    let mut pages: Vec<HugePages> = pages.collect();
    pages.sort_by_key(|pages| pages.page_bytes);
    pages
}

pub(super) fn iommu(root: &Root) -> Iommu {
    let unsafe_mode = root.word("sys/module/vfio/parameters/enable_unsafe_noiommu_mode");
    Iommu {
        groups: root.names("sys/kernel/iommu_groups").len(),
        vfio: root.exists("dev/vfio/vfio"),
        vfio_without_iommu: unsafe_mode.map(|word| word == "Y" || word == "1"),
    }
}
