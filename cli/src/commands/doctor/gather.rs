//! Reads the facts below a root directory.

mod network;
mod storage;
mod system;

use super::facts::{Access, Facts, Libraries, Probe};
use super::probes;
use super::root::{Root, shown};

/// Where distributions keep shared libraries.
const LIBRARY_DIRS: &[&str] = &[
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/local/lib/x86_64-linux-gnu",
    "usr/local/lib/aarch64-linux-gnu",
    "usr/local/lib64",
    "usr/local/lib",
    "lib/x86_64-linux-gnu",
    "lib/aarch64-linux-gnu",
    "lib64",
];

/// The package of the E810's driver, also compressed.
const ICE_PACKAGES: &[&str] = &["ice.pkg", "ice.pkg.xz", "ice.pkg.zst"];

/// Everything below a root. Probes are made only where it is this machine's own.
pub(super) fn gather(root: &Root) -> Facts {
    let interfaces = network::interfaces(root);
    Facts {
        kernel: system::kernel(root),
        process: system::process(root),
        cores: system::cores(root),
        huge_pages: system::huge_pages(root),
        rdma: network::rdma(root),
        pci: network::pci(root),
        nvme: storage::nvme(root),
        iommu: system::iommu(root),
        access: access(root),
        libraries: libraries(root),
        interfaces,
    }
}

fn access(root: &Root) -> Access {
    let live = root.is_live();
    let probe = |ask: fn() -> Probe| if live { ask() } else { Probe::NotTried };
    let uverbs = root.names("dev/infiniband").into_iter();
    let mounts = root.text("proc/self/mounts").unwrap_or_default();
    let hugetlbfs = mounts.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields.get(2) == Some(&"hugetlbfs")).then(|| shown(fields[1]))
    });
    let mut ice = ICE_PACKAGES.iter();
    Access {
        tun: root.exists("dev/net/tun"),
        tun_open: probe(probes::tun),
        packet_socket: probe(probes::packet_socket),
        xdp_socket: probe(probes::xdp_socket),
        io_uring: probe(probes::io_uring),
        uverbs: uverbs.filter(|name| name.starts_with("uverbs")).collect(),
        hugetlbfs: hugetlbfs.collect(),
        ice_package: ice.any(|name| root.exists(&format!("lib/firmware/intel/ice/ddp/{name}"))),
    }
}

fn libraries(root: &Root) -> Libraries {
    let mut found = Libraries::default();
    for dir in LIBRARY_DIRS {
        for name in root.names(dir) {
            if name.starts_with("libibverbs.so") && found.libibverbs.is_none() {
                found.libibverbs = Some(format!("/{dir}/{name}"));
            } else if name.starts_with("librte_eal.so") && found.libdpdk.is_none() {
                found.libdpdk = Some(format!("/{dir}/{name}"));
            } else {
                found.dpdk_drivers.extend(dpdk_driver(&name));
            }
        }
        let pc = root.text(&format!("{dir}/pkgconfig/libdpdk.pc"));
        let version = pc.as_deref().and_then(|pc| {
            let line = pc.lines().find_map(|line| line.strip_prefix("Version:"));
            line.map(shown)
        });
        found.libdpdk_version = found.libdpdk_version.or(version);
        for folder in root.names(&format!("{dir}/dpdk")) {
            if folder.starts_with("pmds-") {
                let names = root.names(&format!("{dir}/dpdk/{folder}"));
                found
                    .dpdk_drivers
                    .extend(names.iter().filter_map(|name| dpdk_driver(name)));
            }
        }
        // libmlx5-rdmav34.so: a provider for one version of the interface.
        let providers = root.names(&format!("{dir}/libibverbs"));
        let providers = providers.iter().filter_map(|name| {
            let (provider, _) = name.strip_prefix("lib")?.split_once("-rdmav")?;
            Some(provider.to_owned())
        });
        found.verbs_providers.extend(providers);
    }
    for list in [&mut found.dpdk_drivers, &mut found.verbs_providers] {
        list.sort();
        list.dedup();
    }
    found
}

/// `net_ring` of `librte_net_ring.so.23`; network drivers only.
fn dpdk_driver(library: &str) -> Option<String> {
    let (name, _) = library.strip_prefix("librte_")?.split_once(".so")?;
    name.starts_with("net_").then(|| name.to_owned())
}
