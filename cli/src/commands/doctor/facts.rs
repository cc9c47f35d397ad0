//! What a machine has, as far as networks and disks of Ionian are concerned: data without judgement.
//!
//! These are the keys of the document that `--json` prints, described in `docs/operations/choose-a-profile.md`. What is not
//! known is `null`; what is known to be absent is empty, 0 or `false`.

use std::collections::BTreeMap;

use serde::Serialize;

/// Everything that was found.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Facts {
    pub(super) kernel: Kernel,
    pub(super) process: Process,
    pub(super) cores: Cores,
    pub(super) huge_pages: Vec<HugePages>,
    pub(super) interfaces: Vec<Interface>,
    pub(super) rdma: Vec<RdmaDevice>,
    pub(super) pci: Vec<PciDevice>,
    pub(super) nvme: Vec<NvmeController>,
    pub(super) iommu: Iommu,
    pub(super) access: Access,
    pub(super) libraries: Libraries,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Kernel {
    pub(super) release: Option<String>,
    /// The distribution's ID of /etc/os-release, and what it is like.
    pub(super) distribution: Vec<String>,
    /// Runs in a virtual machine, as the processor says.
    pub(super) virtual_machine: Option<bool>,
    /// Ticks of the scheduler per second, CONFIG_HZ.
    pub(super) tick_hz: Option<u64>,
    /// How the kernel may be interrupted at work.
    pub(super) preemption: Option<String>,
    /// Options of its build that profiles ask about: `y`, `m` or `n`; empty where the build is not known.
    pub(super) config: BTreeMap<String, String>,
    /// Words of its command line that concern cores, IOMMU and huge pages.
    pub(super) command_line: Vec<String>,
    /// The largest receive buffer that a socket may ask for, in bytes.
    pub(super) rmem_max_bytes: Option<u64>,
}

/// A limit of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Limit {
    Bytes(u64),
    /// The word `unlimited`.
    None(Unlimited),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unlimited {
    Unlimited,
}

impl Limit {
    pub(super) const UNLIMITED: Self = Self::None(Unlimited::Unlimited);

    pub(super) const fn allows(self, bytes: u64) -> bool {
        match self {
            Self::Bytes(most) => bytes <= most,
            Self::None(_) => true,
        }
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Process {
    /// Effective capabilities, by name without `cap_`.
    pub(super) capabilities: Option<Vec<String>>,
    /// Those that a program started from here could have.
    pub(super) capabilities_bounding: Option<Vec<String>>,
    /// Memory that it may lock.
    pub(super) memlock_bytes: Option<Limit>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Cores {
    pub(super) online: Vec<usize>,
    /// Those that this process may use.
    pub(super) allowed: Vec<usize>,
    /// Sets of logical processors that share a physical core.
    pub(super) siblings: Vec<Vec<usize>>,
    /// Of each NUMA node.
    pub(super) numa_nodes: BTreeMap<u32, Vec<usize>>,
    /// Kept free of other work at boot.
    pub(super) isolated: Vec<usize>,
    /// Without a tick while one thread runs there.
    pub(super) tickless: Vec<usize>,
    /// Processor time per time that the cgroup grants.
    pub(super) quota: Option<f64>,
    /// Threads that ran or wanted to, on average over 1, 5 and 15 minutes.
    pub(super) load: Option<[f64; 3]>,
    /// Percent of the last 10 s in which some thread waited for a processor.
    pub(super) pressure_percent: Option<f64>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct HugePages {
    pub(super) page_bytes: u64,
    pub(super) total: u64,
    pub(super) free: u64,
    /// Of each NUMA node: total and free.
    pub(super) numa_nodes: BTreeMap<u32, PagesOfNode>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct PagesOfNode {
    pub(super) total: u64,
    pub(super) free: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Interface {
    pub(super) name: String,
    /// The kernel's driver; none for a virtual interface.
    pub(super) driver: Option<String>,
    /// Carries Ethernet frames, and is not the loopback.
    pub(super) ethernet: bool,
    pub(super) up: bool,
    pub(super) carrier: Option<bool>,
    pub(super) speed_mbps: Option<u64>,
    pub(super) mtu_bytes: Option<u64>,
    pub(super) numa_node: Option<u32>,
    pub(super) rx_queues: usize,
    pub(super) tx_queues: usize,
    pub(super) pci_address: Option<String>,
    /// The default route goes over it.
    pub(super) default_route: bool,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct RdmaDevice {
    pub(super) name: String,
    pub(super) driver: Option<String>,
    pub(super) firmware: Option<String>,
    pub(super) numa_node: Option<u32>,
    pub(super) pci_address: Option<String>,
    pub(super) ports: Vec<RdmaPort>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct RdmaPort {
    pub(super) port: u32,
    /// `ACTIVE`, `DOWN` and others.
    pub(super) state: Option<String>,
    pub(super) link_layer: Option<String>,
    pub(super) rate: Option<String>,
    pub(super) gids: Vec<Gid>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Gid {
    pub(super) index: u32,
    pub(super) gid: String,
    /// `RoCE v2`, `IB/RoCE v1`.
    pub(super) kind: Option<String>,
    pub(super) interface: Option<String>,
}

/// A network device on PCI.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct PciDevice {
    pub(super) address: String,
    /// Vendor and device, `vvvv:dddd`.
    pub(super) id: String,
    pub(super) driver: Option<String>,
    pub(super) numa_node: Option<u32>,
    pub(super) iommu_group: Option<String>,
    /// Interfaces of the kernel on it.
    pub(super) interfaces: Vec<String>,
    /// Profiles whose PCI ids name it.
    pub(super) profiles: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct NvmeController {
    pub(super) name: String,
    pub(super) model: Option<String>,
    pub(super) firmware: Option<String>,
    pub(super) transport: Option<String>,
    pub(super) numa_node: Option<u32>,
    pub(super) namespaces: Vec<NvmeNamespace>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct NvmeNamespace {
    pub(super) name: String,
    pub(super) bytes: Option<u64>,
    pub(super) lba_bytes: Option<u64>,
    /// A write may be lost with the power until it is flushed.
    pub(super) volatile_cache: Option<bool>,
    /// The device's queues can be polled.
    pub(super) polled: Option<bool>,
    /// It can be driven by commands of our own, `/dev/ngXnY`.
    pub(super) passthrough: bool,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Iommu {
    pub(super) groups: usize,
    /// /dev/vfio/vfio is there.
    pub(super) vfio: bool,
    /// VFIO lets devices do DMA to any memory.
    pub(super) vfio_without_iommu: Option<bool>,
}

/// What came of asking the kernel for something.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "why")]
pub(super) enum Probe {
    Works,
    /// Refused, with the system's reason.
    Refused(String),
    /// The tree that was read is not this machine's.
    #[default]
    NotTried,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Access {
    /// /dev/net/tun is there.
    pub(super) tun: bool,
    pub(super) tun_open: Probe,
    pub(super) packet_socket: Probe,
    pub(super) xdp_socket: Probe,
    pub(super) io_uring: Probe,
    /// Devices of user-space verbs, /dev/infiniband/uverbsN.
    pub(super) uverbs: Vec<String>,
    /// Mounts of hugetlbfs.
    pub(super) hugetlbfs: Vec<String>,
    /// The package that the Intel E810 needs is below /lib/firmware.
    pub(super) ice_package: bool,
}

/// Libraries as files; nothing is linked or loaded to find them.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Libraries {
    pub(super) libibverbs: Option<String>,
    /// Providers of libibverbs, such as `mlx5` and `rxe`.
    pub(super) verbs_providers: Vec<String>,
    pub(super) libdpdk: Option<String>,
    /// What pkg-config says to those who build against it.
    pub(super) libdpdk_version: Option<String>,
    /// DPDK's drivers that profiles name, such as `net_ring`.
    pub(super) dpdk_drivers: Vec<String>,
}

impl Facts {
    /// Whether the process has a capability; `None` where that is not known.
    pub(super) fn has(&self, capability: &str) -> Option<bool> {
        let names = self.process.capabilities.as_ref()?;
        Some(names.iter().any(|name| name == capability))
    }

    /// An option of the kernel's build: `y`, `m` or `n`; `None` where the build is not known.
    pub(super) fn built(&self, option: &str) -> Option<&str> {
        self.kernel.config.get(option).map(String::as_str)
    }

    /// Whether the distribution is one of these, or like it.
    pub(super) fn is_like(&self, names: &[&str]) -> bool {
        let mut ours = self.kernel.distribution.iter();
        ours.any(|name| names.contains(&name.as_str()))
    }
}
