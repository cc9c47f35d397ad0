//! Interfaces of the kernel, RDMA devices, and network devices on PCI.

use ionian_runtime::{Device, NicProfile, builtin_profiles};

use super::super::facts::{Gid, Interface, PciDevice, RdmaDevice, RdmaPort};
use super::super::root::{Root, is_plain};

/// The hardware type of Ethernet, ARPHRD_ETHER of linux/if_arp.h.
const ARPHRD_ETHER: u32 = 1;
/// The interface is switched on, IFF_UP of netdevice(7).
const IFF_UP: u64 = 1;
/// Network controllers on PCI: class 02, in the highest byte of 24 bits.
const PCI_CLASS_NETWORK: u64 = 0x02;
/// The most entries of one port's table of GIDs.
const GIDS_MAX: usize = 256;

pub(super) fn interfaces(root: &Root) -> Vec<Interface> {
    let default_routes = default_routes(root);
    let names = root.names("sys/class/net").into_iter();
    // Bonding keeps a plain file of its own among the interfaces.
    let names = names.filter(|name| root.is_dir(&format!("sys/class/net/{name}")));
    names
        .map(|name| {
            let at = |file: &str| format!("sys/class/net/{name}/{file}");
            let queues = root.names(&at("queues"));
            let count = |kind: &str| queues.iter().filter(|name| name.starts_with(kind)).count();
            Interface {
                driver: root.link_name(&at("device/driver")),
                ethernet: root.number(&at("type")) == Some(ARPHRD_ETHER),
                up: root
                    .hex(&at("flags"))
                    .is_some_and(|flags| flags & IFF_UP != 0),
                carrier: root
                    .number::<u8>(&at("carrier"))
                    .map(|carrier| carrier != 0),
                // -1 where it is not known, and 0 of some drivers.
                speed_mbps: root.number(&at("speed")).filter(|speed| *speed > 0),
                mtu_bytes: root.number(&at("mtu")),
                numa_node: root.number(&at("device/numa_node")),
                rx_queues: count("rx-"),
                tx_queues: count("tx-"),
                pci_address: root.pci_address(&at("device")),
                default_route: default_routes.contains(&name),
                name,
            }
        })
        .collect()
}

/// The interfaces with a default route, proc_net(5): destination and mask of zeros.
fn default_routes(root: &Root) -> Vec<String> {
    let text = root.text("proc/net/route").unwrap_or_default();
    let routes = text.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_default = fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000");
        is_default.then(|| fields[0].to_owned())
    });
    routes.collect()
}

pub(super) fn rdma(root: &Root) -> Vec<RdmaDevice> {
    let names = root.names("sys/class/infiniband").into_iter();
    names
        .map(|name| {
            let at = |file: &str| format!("sys/class/infiniband/{name}/{file}");
            let driver = root.link_name(&at("device/driver"));
            // A soft device hangs on an interface, which the kernel's rdma_rxe names as its parent.
            let soft = || root.exists(&at("parent")).then(|| String::from("rdma_rxe"));
            let ports = root.names(&at("ports")).into_iter();
            RdmaDevice {
                driver: driver.or_else(soft),
                firmware: root.word(&at("fw_ver")),
                numa_node: root.number(&at("device/numa_node")),
                pci_address: root.pci_address(&at("device")),
                ports: ports
                    .filter_map(|port| rdma_port(root, &name, port.parse().ok()?))
                    .collect(),
                name,
            }
        })
        .collect()
}

fn rdma_port(root: &Root, device: &str, port: u32) -> Option<RdmaPort> {
    let at = |file: &str| format!("sys/class/infiniband/{device}/ports/{port}/{file}");
    let gids = root.names(&at("gids")).into_iter().take(GIDS_MAX);
    let gids = gids.filter_map(|index| {
        let index: u32 = index.parse().ok()?;
        let gid = root.word(&at(&format!("gids/{index}")))?;
        // An entry without a number is free.
        let used = gid.chars().any(|c| !matches!(c, '0' | ':'));
        used.then(|| Gid {
            index,
            gid,
            kind: root.word(&at(&format!("gid_attrs/types/{index}"))),
            interface: root
                .word(&at(&format!("gid_attrs/ndevs/{index}")))
                .filter(|name| is_plain(name)),
        })
    });
    // "4: ACTIVE"
    let state = root.word(&at("state"));
    let state = state.map(|state| match state.split_once(": ") {
        Some((_, name)) => name.to_owned(),
        None => state,
    });
    Some(RdmaPort {
        port,
        state,
        link_layer: root.word(&at("link_layer")),
        rate: root.word(&at("rate")),
        gids: gids.collect(),
    })
}

pub(super) fn pci(root: &Root) -> Vec<PciDevice> {
    let profiles = builtin_profiles().unwrap_or_default();
    let names = root.names("sys/bus/pci/devices").into_iter();
    names
        .filter_map(|address| {
            let at = |file: &str| format!("sys/bus/pci/devices/{address}/{file}");
            let class = root.hex(&at("class"))?;
            if class >> 16 != PCI_CLASS_NETWORK {
                return None;
            }
            let (vendor, device) = (root.hex(&at("vendor"))?, root.hex(&at("device"))?);
            let id = format!("{:04x}:{:04x}", vendor & 0xffff, device & 0xffff);
            // A virtio device stands between the PCI device and its interface.
            let mut interfaces = root.names(&at("net"));
            for child in root.names(&at("")) {
                if child.starts_with("virtio") {
                    interfaces.extend(root.names(&at(&format!("{child}/net"))));
                }
            }
            let meant = profiles.iter().filter(|it| pci_ids(it).contains(&id));
            Some(PciDevice {
                driver: root.link_name(&at("driver")),
                numa_node: root.number(&at("numa_node")),
                iommu_group: root.link_name(&at("iommu_group")),
                interfaces,
                profiles: meant.map(|profile| profile.name.clone()).collect(),
                id,
                address,
            })
        })
        .collect()
}

/// The devices on PCI that a profile is for.
pub(in super::super) fn pci_ids(profile: &NicProfile) -> &[String] {
    match &profile.device {
        Device::Dpdk(device) => &device.pci_ids.value,
        Device::Verbs(device) => &device.pci_ids.value,
        _ => &[],
    }
}
