//! What a profile of DPDK needs: its libraries, memory, and a device that may be taken from the kernel.

use ionian_runtime::{DpdkDevice, DpdkMemory, NicProfile};

use super::super::facts::{Facts, HugePages, PciDevice};
use super::{Check, parts};
use crate::table::size;

/// The kernel driver that hands a whole device to a process.
const VFIO: &str = "vfio-pci";

pub(super) fn checks(facts: &Facts, profile: &NicProfile, device: &DpdkDevice) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut found = None;
    if device.vdev.value == "none" {
        let (check, taken) = pci_device(facts, profile, device);
        checks.push(check);
        if taken.is_none() {
            // Without the device nothing else is worth mending.
            return checks;
        }
        found = taken;
    }
    checks.push(library(facts));
    if facts.libraries.libdpdk.is_some() {
        checks.push(driver_library(facts, &device.pmd.value));
    }
    if device.vdev.value != "none" {
        checks.extend(virtual_device(facts, profile, device));
    }
    if let Some(found) = found {
        let vfio = device.kernel_driver.value == VFIO;
        if vfio {
            checks.push(iommu(facts, found));
        }
        checks.push(kernel_driver(found, &device.kernel_driver.value));
        if vfio {
            let memory = device.memory_bytes.value;
            let what = "the pages that the device writes";
            checks.push(parts::locked_memory(facts, memory, what));
        }
    }
    if device.pmd.value == "net_ice" {
        checks.push(ice_package(facts));
    }
    if device.memory.value == DpdkMemory::HugePages {
        let node = found.and_then(|found| found.numa_node);
        checks.push(huge_pages(facts, device.memory_bytes.value, node));
    }
    checks
}

fn install(facts: &Facts) -> String {
    if facts.is_like(&["debian", "ubuntu"]) {
        String::from("sudo apt-get install -y dpdk libdpdk-dev")
    } else if facts.is_like(&["fedora", "rhel", "centos"]) {
        String::from("sudo dnf install -y dpdk dpdk-devel")
    } else {
        String::from("install DPDK 22.11 or newer with your distribution's packages")
    }
}

fn library(facts: &Facts) -> Check {
    let found = &facts.libraries;
    match (&found.libdpdk, &found.libdpdk_version) {
        (Some(path), Some(version)) => Check::ok("libdpdk", format!("{path}, {version}")),
        (Some(path), None) => Check::ok("libdpdk", path.clone()),
        (None, _) => Check::missing("libdpdk", "DPDK's libraries are not there", install(facts)),
    }
}

fn driver_library(facts: &Facts, pmd: &str) -> Check {
    let known = facts.libraries.dpdk_drivers.iter().any(|name| name == pmd);
    if known {
        Check::ok("dpdk-driver", format!("DPDK's driver {pmd} is there"))
    } else {
        let says = format!("DPDK's driver {pmd} is not there");
        Check::missing("dpdk-driver", says, install(facts))
    }
}

fn virtual_device(facts: &Facts, profile: &NicProfile, device: &DpdkDevice) -> Vec<Check> {
    match device.pmd.value.as_str() {
        "net_af_xdp" => vec![
            parts::xdp_socket(facts),
            parts::xdp_program(facts),
            parts::interface(facts, profile, &device.interface.value),
        ],
        "net_af_packet" => vec![
            parts::packet_socket(facts),
            parts::interface(facts, profile, &device.interface.value),
        ],
        "net_tap" => parts::tap(facts),
        _ => Vec::new(),
    }
}

/// The one device that the profile means, or why there is none to take.
fn pci_device<'a>(
    facts: &'a Facts,
    profile: &NicProfile,
    device: &DpdkDevice,
) -> (Check, Option<&'a PciDevice>) {
    const NAME: &str = "pci-device";
    let ids = &device.pci_ids.value;
    let wanted = &device.pci_address.value;
    let meant =
        |it: &&PciDevice| ids.contains(&it.id) && (wanted == "auto" || *wanted == it.address);
    let all: Vec<&PciDevice> = facts.pci.iter().filter(meant).collect();
    if all.is_empty() {
        let says = "there is no network device of its kind on PCI";
        let fix = format!("it is for {}: take another profile", profile.status.machine);
        return (Check::missing(NAME, says, fix), None);
    }
    // A device that shares its port with the kernel takes nothing away; one that is bound to vfio takes its interface.
    let carries_us = |it: &PciDevice| {
        let lifeline = |name: &String| {
            let mut interfaces = facts.interfaces.iter();
            interfaces.any(|known| known.name == *name && known.default_route)
        };
        device.kernel_driver.value == VFIO && it.interfaces.iter().any(lifeline)
    };
    let free: Vec<&PciDevice> = all.iter().copied().filter(|it| !carries_us(it)).collect();
    match free[..] {
        [one] => {
            let names = one.interfaces.join(" ");
            let names = if names.is_empty() {
                String::new()
            } else {
                format!(" ({names})")
            };
            (
                Check::ok(NAME, format!("{} is {}{names}", one.address, one.id)),
                Some(one),
            )
        }
        [] => {
            let it = all[0];
            let says = format!(
                "its only such device, {} ({}), carries the default route: taken from the kernel, it would cut this machine off",
                it.address,
                it.interfaces.join(" ")
            );
            (
                Check::missing(NAME, says, "add a second network device to the machine"),
                None,
            )
        }
        [first, ..] => {
            let names: Vec<&str> = free.iter().map(|it| it.address.as_str()).collect();
            let says = format!("there are several: {}", names.join(", "));
            let fix = format!(
                "name one in a profile of your own: [pci_address] value = \"{}\"",
                first.address
            );
            (Check::missing(NAME, says, fix), Some(first))
        }
    }
}

fn kernel_driver(device: &PciDevice, needed: &str) -> Check {
    const NAME: &str = "kernel-driver";
    let address = &device.address;
    if device.driver.as_deref() == Some(needed) {
        return Check::ok(NAME, format!("{address} has the driver {needed}"));
    }
    let now = device.driver.as_deref().unwrap_or("no driver");
    let down: String = device
        .interfaces
        .iter()
        .map(|name| format!("sudo ip link set {name} down && "))
        .collect();
    Check::missing(
        NAME,
        format!("{address} has {now} and needs {needed}"),
        format!("sudo modprobe {needed} && {down}sudo dpdk-devbind.py --bind={needed} {address}"),
    )
}

/// VFIO, and an IOMMU below it.
fn iommu(facts: &Facts, device: &PciDevice) -> Check {
    const NAME: &str = "iommu";
    if facts.built("CONFIG_VFIO") == Some("n") {
        return Check::missing(
            NAME,
            "this kernel was built without CONFIG_VFIO: no device can be given to a process",
            "boot a kernel with CONFIG_VFIO and CONFIG_VFIO_PCI",
        );
    }
    if let Some(group) = &device.iommu_group {
        return Check::ok(
            NAME,
            format!("{} is in IOMMU group {group}", device.address),
        );
    }
    if facts.iommu.vfio_without_iommu == Some(true) {
        return Check::advice(
            NAME,
            "VFIO works without an IOMMU here: the device can write to any memory",
            "use a machine with an IOMMU where others are not trusted",
        );
    }
    let says = "there is no IOMMU for it";
    let in_vm = facts.kernel.virtual_machine == Some(true);
    if in_vm && facts.built("CONFIG_VFIO_NOIOMMU") == Some("y") {
        return Check::missing(
            NAME,
            says,
            "sudo modprobe vfio && echo 1 | sudo tee /sys/module/vfio/parameters/enable_unsafe_noiommu_mode",
        );
    }
    Check::missing(
        NAME,
        says,
        "switch it on in the firmware, and add intel_iommu=on iommu=pt to GRUB_CMDLINE_LINUX in /etc/default/grub; then: sudo update-grub && sudo reboot",
    )
}

/// DMA needs pages enough on the device's node.
fn huge_pages(facts: &Facts, bytes: u64, node: Option<u32>) -> Check {
    const NAME: &str = "huge-pages";
    let Some(smallest) = facts.huge_pages.first() else {
        return Check::missing(
            NAME,
            "this kernel has no huge pages",
            "boot a kernel with CONFIG_HUGETLBFS",
        );
    };
    let node = node.filter(|_| smallest.numa_nodes.len() > 1);
    let of = |pages: &HugePages| match node.and_then(|node| pages.numa_nodes.get(&node)) {
        Some(here) => (here.total, here.free),
        None => (pages.total, pages.free),
    };
    let free = |pages: &HugePages| of(pages).1.saturating_mul(pages.page_bytes);
    let place = node.map_or_else(String::new, |node| format!(" on NUMA node {node}"));
    if let Some(enough) = facts.huge_pages.iter().find(|pages| free(pages) >= bytes) {
        let says = format!(
            "{} are free in pages of {}{place}",
            size(free(enough)),
            size(enough.page_bytes)
        );
        return Check::ok(NAME, says);
    }
    let most = facts.huge_pages.iter().map(free).max().unwrap_or(0);
    let lacking = bytes
        .saturating_sub(free(smallest))
        .div_ceil(smallest.page_bytes);
    let count = of(smallest).0.saturating_add(lacking);
    let kib = smallest.page_bytes / 1024;
    let dir = match node {
        Some(node) => format!("/sys/devices/system/node/node{node}/hugepages"),
        None => String::from("/sys/kernel/mm/hugepages"),
    };
    Check::missing(
        NAME,
        format!(
            "{} of huge pages are free{place}, and it takes {}",
            size(most),
            size(bytes)
        ),
        format!("echo {count} | sudo tee {dir}/hugepages-{kib}kB/nr_hugepages"),
    )
}

/// The E810 does nothing without the package that its driver loads into it.
fn ice_package(facts: &Facts) -> Check {
    if facts.access.ice_package {
        return Check::ok("ice-package", "the E810's package is below /lib/firmware");
    }
    Check::missing(
        "ice-package",
        "/lib/firmware/intel/ice/ddp/ice.pkg is not there, which the E810's driver loads into it",
        "install the firmware of the ice driver with your distribution's packages",
    )
}
