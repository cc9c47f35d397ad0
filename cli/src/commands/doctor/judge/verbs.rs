//! What a profile of RDMA verbs needs: the library, its provider, a device with an active port, a GID, and locked memory.

use ionian_runtime::{NicProfile, VerbsDevice};

use super::super::facts::{Facts, PciDevice, RdmaDevice, RdmaPort};
use super::{Check, parts};

/// The kernel's RDMA device over an ordinary interface.
const SOFT: &str = "rdma_rxe";

pub(super) fn checks(facts: &Facts, profile: &NicProfile, device: &VerbsDevice) -> Vec<Check> {
    let (check, found) = rdma_device(facts, profile, device);
    let hardware = !device.pci_ids.value.is_empty();
    if found.is_none() && hardware && nic(facts, device).is_none() {
        // Without the NIC nothing else is worth installing.
        return vec![check];
    }
    let mut checks = vec![check, library(facts)];
    if facts.libraries.libibverbs.is_some() {
        checks.push(provider(facts, &device.kernel_driver.value));
    }
    if let Some((found, port)) = found {
        checks.push(link(found, port));
        checks.push(gid(found, port, &device.gid_index.value));
        checks.push(uverbs(facts));
    }
    let bytes = profile
        .rx_depth
        .value
        .saturating_mul(profile.mtu_bytes.value);
    checks.push(parts::locked_memory(facts, bytes, "the receive buffers"));
    checks
}

/// The NIC on PCI that the profile is for.
fn nic<'a>(facts: &'a Facts, device: &VerbsDevice) -> Option<&'a PciDevice> {
    let ids = &device.pci_ids.value;
    facts.pci.iter().find(|it| ids.contains(&it.id))
}

fn install(facts: &Facts) -> String {
    if facts.is_like(&["debian", "ubuntu"]) {
        String::from("sudo apt-get install -y rdma-core ibverbs-providers libibverbs-dev")
    } else if facts.is_like(&["fedora", "rhel", "centos"]) {
        String::from("sudo dnf install -y rdma-core libibverbs rdma-core-devel")
    } else {
        String::from("install rdma-core with your distribution's packages")
    }
}

fn library(facts: &Facts) -> Check {
    match &facts.libraries.libibverbs {
        Some(path) => Check::ok("libibverbs", path.clone()),
        None => Check::missing("libibverbs", "libibverbs is not there", install(facts)),
    }
}

fn provider(facts: &Facts, driver: &str) -> Check {
    let name = match driver {
        SOFT => "rxe",
        driver => driver.trim_end_matches("_core"),
    };
    if facts.libraries.verbs_providers.iter().any(|it| it == name) {
        return Check::ok("verbs-provider", format!("libibverbs knows {name}"));
    }
    let says = format!("libibverbs has no provider for {name}: it would find no device");
    Check::missing("verbs-provider", says, install(facts))
}

/// The device and port that the profile means, or why there is none.
fn rdma_device<'a>(
    facts: &'a Facts,
    profile: &NicProfile,
    device: &VerbsDevice,
) -> (Check, Option<(&'a RdmaDevice, &'a RdmaPort)>) {
    const NAME: &str = "rdma-device";
    let (wanted, driver) = (&device.rdma_device.value, &device.kernel_driver.value);
    let number = device.rdma_port.value;
    let meant = |it: &&RdmaDevice| {
        it.driver.as_ref() == Some(driver) && (wanted == "auto" || *wanted == it.name)
    };
    let ports = facts.rdma.iter().filter(meant).flat_map(|it| {
        let ports = it
            .ports
            .iter()
            .filter(move |port| u64::from(port.port) == number);
        ports.map(move |port| (it, port))
    });
    let best = ports.max_by_key(|(it, port)| {
        // The first of the active ones: later ones must be better to win.
        (is_active(port), std::cmp::Reverse(&it.name))
    });
    if let Some((it, port)) = best {
        let says = format!("{} has port {number}, driver {driver}", it.name);
        return (Check::ok(NAME, says), Some((it, port)));
    }
    let says = format!("there is no RDMA device with the driver {driver}");
    let fix = if driver != SOFT {
        match nic(facts, device) {
            // The NIC is there, and its RDMA part is a module of its own.
            Some(nic) => format!("sudo modprobe mlx5_ib    # for {}", nic.address),
            None => format!("it is for {}: take another profile", profile.status.machine),
        }
    } else if matches!(facts.built("CONFIG_RDMA_RXE"), Some("n")) {
        String::from("boot a kernel with CONFIG_RDMA_RXE, in a virtual machine if need be")
    } else {
        let mut interfaces = facts.interfaces.iter().filter(|it| it.ethernet);
        let name = interfaces
            .find(|it| it.up)
            .map_or("eth0", |it| it.name.as_str());
        format!("sudo modprobe rdma_rxe && sudo rdma link add rxe0 type rxe netdev {name}")
    };
    (Check::missing(NAME, says, fix), None)
}

fn is_active(port: &RdmaPort) -> bool {
    port.state.as_deref() == Some("ACTIVE")
}

fn link(device: &RdmaDevice, port: &RdmaPort) -> Check {
    const NAME: &str = "rdma-port";
    let (name, number) = (&device.name, port.port);
    if is_active(port) {
        return Check::ok(NAME, format!("port {number} of {name} is active"));
    }
    let interface = port.gids.iter().find_map(|gid| gid.interface.as_deref());
    let state = port.state.as_deref().unwrap_or("unknown");
    let fix = match interface {
        Some(interface) => format!("sudo ip link set {interface} up"),
        None => String::from("connect its cable, and look at: rdma link show"),
    };
    Check::missing(NAME, format!("port {number} of {name} is {state}"), fix)
}

fn gid(device: &RdmaDevice, port: &RdmaPort, wanted: &str) -> Check {
    const NAME: &str = "gid";
    let (name, number) = (&device.name, port.port);
    let found = match wanted.parse::<u32>() {
        Ok(index) => port.gids.iter().find(|gid| gid.index == index),
        Err(_) => port.gids.first(),
    };
    if let Some(gid) = found {
        let kind = gid.kind.as_deref().unwrap_or("of unknown kind");
        return Check::ok(
            NAME,
            format!("GID {} of {name} is {} ({kind})", gid.index, gid.gid),
        );
    }
    let interface = port.gids.iter().find_map(|gid| gid.interface.as_deref());
    let interface = interface.unwrap_or("INTERFACE");
    Check::missing(
        NAME,
        format!("port {number} of {name} has no GID {wanted}: its interface has no address yet"),
        format!("sudo ip address add ADDRESS/24 dev {interface}"),
    )
}

fn uverbs(facts: &Facts) -> Check {
    if facts.access.uverbs.is_empty() {
        return Check::missing(
            "uverbs",
            "/dev/infiniband/uverbs0 is not there: user space cannot reach the device",
            "sudo modprobe ib_uverbs    # a container: --device=/dev/infiniband",
        );
    }
    Check::ok(
        "uverbs",
        format!("/dev/infiniband/{}", facts.access.uverbs[0]),
    )
}
