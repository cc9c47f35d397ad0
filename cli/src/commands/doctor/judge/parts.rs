//! What several backends need: rights, sockets, interfaces, locked memory; and what is not about a profile at all.

use ionian_runtime::{AfXdpDevice, NicProfile};

use super::super::facts::{Facts, Interface, Limit, Probe};
use super::Check;
use crate::table::size;

/// What the kernel counts per packet in a socket's buffer, as the UDP port reckons.
const KERNEL_BYTES_PER_PACKET: u64 = 2048;
/// XDP_USE_NEED_WAKEUP, and frames without alignment: Linux 5.4.
const XDP_KERNEL: (u32, u32) = (5, 4);

/// Whether the process has every one of these capabilities; `why` says what needs them.
pub(super) fn capabilities(facts: &Facts, needed: &[&str], why: &str) -> Check {
    const NAME: &str = "capabilities";
    let upper = |names: &[&str]| {
        let names: Vec<String> = names
            .iter()
            .map(|name| format!("CAP_{}", name.to_uppercase()))
            .collect();
        names.join(", ")
    };
    let all = upper(needed);
    let lacking: Vec<&str> = needed
        .iter()
        .copied()
        .filter(|name| facts.has(name) == Some(false))
        .collect();
    if facts.process.capabilities.is_none() {
        return Check::unknown(
            NAME,
            format!("nothing says whether it has {all}, which {why}"),
        );
    }
    if lacking.is_empty() {
        return Check::ok(NAME, format!("it has {all}"));
    }
    let bounding = facts.process.capabilities_bounding.as_deref();
    let barred: Vec<&str> = lacking
        .iter()
        .copied()
        .filter(|name| bounding.is_some_and(|have| !have.iter().any(|it| it == name)))
        .collect();
    let fix = if barred.is_empty() {
        let caps: Vec<String> = needed.iter().map(|name| format!("cap_{name}")).collect();
        format!("sudo setcap {}+ep \"$(command -v ionian)\"", caps.join(","))
    } else {
        let flags: Vec<String> = barred
            .iter()
            .map(|name| format!("--cap-add={}", name.to_uppercase()))
            .collect();
        format!("start the container with {}", flags.join(" "))
    };
    Check::missing(
        NAME,
        format!("it lacks {}, which {why}", upper(&lacking)),
        fix,
    )
}

/// A socket or file that was asked for; where nobody asked, an option of the kernel's build.
fn probed(facts: &Facts, (name, what): (&'static str, &str), probe: &Probe, option: &str) -> Check {
    let built = facts.built(option);
    match (probe, built) {
        (Probe::Works, _) => Check::ok(name, format!("{what} can be opened")),
        (_, Some("n")) => Check::missing(
            name,
            format!("this kernel was built without {option}: it has no {what}"),
            format!("boot a kernel with {option}"),
        ),
        (Probe::Refused(why), _) => Check::missing(
            name,
            format!("{what} is refused: {why}"),
            "run it as root, or have the container's seccomp profile permit it",
        ),
        (Probe::NotTried, Some(_)) => Check::ok(name, format!("the kernel has {what}")),
        (Probe::NotTried, None) => Check::unknown(name, format!("{what} was not tried")),
    }
}

pub(super) fn packet_socket(facts: &Facts) -> Check {
    if facts.has("net_raw") == Some(false) {
        return capabilities(facts, &["net_raw"], "a packet socket needs");
    }
    let socket = ("packet-socket", "a packet socket");
    probed(facts, socket, &facts.access.packet_socket, "CONFIG_PACKET")
}

pub(super) fn xdp_socket(facts: &Facts) -> Check {
    let socket = ("xdp-socket", "an AF_XDP socket");
    probed(
        facts,
        socket,
        &facts.access.xdp_socket,
        "CONFIG_XDP_SOCKETS",
    )
}

pub(super) fn tap(facts: &Facts) -> Vec<Check> {
    const NAME: &str = "tun";
    let admin = capabilities(facts, &["net_admin"], "making a TAP device needs");
    let tun = match (facts.access.tun, &facts.access.tun_open) {
        (_, Probe::Works) => Check::ok(NAME, "/dev/net/tun can be opened"),
        (true, Probe::NotTried) => Check::ok(NAME, "/dev/net/tun is there"),
        (true, Probe::Refused(why)) => Check::missing(
            NAME,
            format!("/dev/net/tun cannot be opened: {why}"),
            "sudo chmod 0666 /dev/net/tun",
        ),
        (false, _) => match facts.built("CONFIG_TUN") {
            Some("n") => Check::missing(
                NAME,
                "this kernel was built without CONFIG_TUN: it has no TAP devices",
                "boot a kernel with CONFIG_TUN",
            ),
            Some("m") => Check::missing(NAME, "/dev/net/tun is missing", "sudo modprobe tun"),
            _ => Check::missing(
                NAME,
                "/dev/net/tun is missing",
                "sudo mkdir -p /dev/net && sudo mknod -m 0666 /dev/net/tun c 10 200",
            ),
        },
    };
    vec![tun, admin]
}

pub(super) fn af_xdp(facts: &Facts, profile: &NicProfile, device: &AfXdpDevice) -> Vec<Check> {
    let mut checks = vec![xdp_socket(facts)];
    if let Some(release) = &facts.kernel.release
        && version(release).is_some_and(|version| version < XDP_KERNEL)
    {
        checks.push(Check::missing(
            "kernel",
            format!("Linux {release} is older than 5.4, which the profile's need_wakeup needs"),
            "boot Linux 5.4 or newer",
        ));
    }
    checks.push(capabilities(facts, &["net_raw"], "an AF_XDP socket needs"));
    checks.push(xdp_program(facts));
    // Fill and receive ring hold as many frames as rx_depth says, the others as tx_depth.
    let frames = profile
        .rx_depth
        .value
        .saturating_add(profile.tx_depth.value);
    let umem = frames.saturating_mul(device.frame_bytes.value);
    checks.push(locked_memory(facts, umem, "the socket's frames"));
    checks.push(interface(facts, profile, &device.interface.value));
    checks
}

/// Loading and attaching a program to an interface.
pub(super) fn xdp_program(facts: &Facts) -> Check {
    // CAP_SYS_ADMIN is what kernels before 5.8 asked for, and holds in all of them.
    let broad = facts.has("sys_admin") == Some(true) && facts.has("net_admin") == Some(true);
    if broad {
        return Check::ok("capabilities", "it has CAP_SYS_ADMIN, CAP_NET_ADMIN");
    }
    capabilities(facts, &["net_admin", "bpf"], "an XDP program needs")
}

/// Major and minor number of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Memory that must not be paged out.
pub(super) fn locked_memory(facts: &Facts, bytes: u64, what: &str) -> Check {
    const NAME: &str = "locked-memory";
    if facts.has("ipc_lock") == Some(true) {
        return Check::ok(NAME, "it has CAP_IPC_LOCK, for which no limit holds");
    }
    match facts.process.memlock_bytes {
        None => Check::unknown(NAME, "nothing says how much memory may be locked"),
        Some(limit) if limit.allows(bytes) => Check::ok(
            NAME,
            match limit {
                Limit::Bytes(most) => {
                    format!("{} may be locked, {what} take {}", size(most), size(bytes))
                }
                Limit::None(_) => String::from("memory may be locked without limit"),
            },
        ),
        Some(Limit::Bytes(most)) => Check::missing(
            NAME,
            format!(
                "{} of memory may be locked, and {what} take {}",
                size(most),
                size(bytes)
            ),
            "sudo prlimit --pid $$ --memlock=unlimited    # a service: LimitMEMLOCK=infinity",
        ),
        Some(Limit::None(_)) => Check::ok(NAME, "memory may be locked without limit"),
    }
}

/// An Ethernet interface that is up, with a carrier and room for the profile's packets.
pub(super) fn interface(facts: &Facts, profile: &NicProfile, wanted: &str) -> Check {
    const NAME: &str = "interface";
    let ethernet: Vec<&Interface> = facts.interfaces.iter().filter(|it| it.ethernet).collect();
    let candidates: Vec<&Interface> = ethernet
        .iter()
        .copied()
        .filter(|it| wanted == "auto" || it.name == wanted)
        .collect();
    if candidates.is_empty() {
        let names: Vec<&str> = ethernet.iter().map(|it| it.name.as_str()).collect();
        return if wanted == "auto" || names.is_empty() {
            Check::missing(
                NAME,
                "there is no Ethernet interface",
                "give the machine or container one; to try it out: sudo ip link add ion0 type veth peer name ion1 && sudo ip link set ion0 up && sudo ip link set ion1 up",
            )
        } else {
            Check::missing(
                NAME,
                format!(
                    "there is no interface {wanted}; there are {}",
                    names.join(", ")
                ),
                "name one of them in the profile's [interface]",
            )
        };
    }
    let ready = |it: &&&Interface| it.up && it.carrier != Some(false);
    let needed = profile.mtu_bytes.value;
    let wide = |it: &&&Interface| it.mtu_bytes.is_none_or(|mtu| mtu >= needed);
    let fitting = candidates.iter().find(|it| ready(it) && wide(it));
    let Some(best) = fitting.or_else(|| candidates.iter().find(ready)) else {
        let first = candidates[0];
        let name = &first.name;
        return if first.up {
            Check::missing(
                NAME,
                format!("{name} has no carrier"),
                format!("connect its cable, or bring its peer up; then: ip link show {name}"),
            )
        } else {
            Check::missing(
                NAME,
                format!("{name} is down"),
                format!("sudo ip link set {name} up"),
            )
        };
    };
    let name = &best.name;
    match best.mtu_bytes {
        Some(mtu) if mtu < needed => Check::missing(
            NAME,
            format!("{name} carries {mtu} bytes, less than the profile's {needed}"),
            format!(
                "sudo ip link set {name} mtu {needed}    # or [mtu_bytes] value = {mtu} in a profile of your own"
            ),
        ),
        _ => Check::ok(NAME, format!("{name} is up")),
    }
}

/// Room for what the profile says a socket receives.
pub(super) fn receive_buffer(facts: &Facts, profile: &NicProfile) -> Check {
    const NAME: &str = "receive-buffer";
    let wanted = profile
        .rx_depth
        .value
        .saturating_mul(KERNEL_BYTES_PER_PACKET);
    match facts.kernel.rmem_max_bytes {
        Some(most) if most < wanted => Check::advice(
            NAME,
            format!(
                "a socket may have {} of receive buffer, the profile asks for {}: bursts are lost sooner",
                size(most),
                size(wanted)
            ),
            format!("sudo sysctl -w net.core.rmem_max={wanted}"),
        ),
        Some(most) => Check::ok(
            NAME,
            format!("a socket may have {} of receive buffer", size(most)),
        ),
        None => Check::ok(NAME, "sockets of the kernel work everywhere"),
    }
}

/// What concerns every profile: who else uses the cores, and how disks are reached.
pub(super) fn notes(facts: &Facts) -> Vec<Check> {
    let mut notes = Vec::new();
    let cores = &facts.cores;
    let allowed = cores.allowed.len();
    if let Some([load, ..]) = cores.load
        && !cores.online.is_empty()
        && load >= 0.5 * cores.online.len() as f64
    {
        notes.push(Check::advice(
            "cores",
            format!(
                "{load:.1} threads want the {} cores on average: others use them, and threads that spin wait for theirs",
                cores.online.len()
            ),
            "keep other work off them, or set [cores] plan = \"cooperative\"",
        ));
    }
    let foreign: Vec<String> = cores
        .siblings
        .iter()
        .filter(|set| set.iter().any(|core| cores.allowed.contains(core)))
        .flatten()
        .filter(|core| !cores.allowed.contains(core))
        .map(ToString::to_string)
        .collect();
    if !foreign.is_empty() {
        notes.push(Check::advice(
            "cores",
            format!(
                "cores {} share physical cores with those of this process and belong to others",
                foreign.join(", ")
            ),
            "give the process whole physical cores in its cpuset",
        ));
    }
    if let Some(quota) = cores.quota
        && quota < allowed as f64
    {
        notes.push(Check::advice(
            "cores",
            format!("the cgroup grants {quota:.1} of {allowed} cores: a thread that spins uses that up and is then stopped"),
            "give the container whole cores, or set [cores] spin_us = 0",
        ));
    }
    match &facts.access.io_uring {
        Probe::Refused(why) => notes.push(Check::advice(
            "io-uring",
            format!("io_uring is refused ({why}): a thread does the work of disks"),
            "sudo sysctl -w kernel.io_uring_disabled=0, or have the container's seccomp profile permit it",
        )),
        Probe::NotTried if facts.built("CONFIG_IO_URING") == Some("n") => notes.push(Check::advice(
            "io-uring",
            "this kernel was built without CONFIG_IO_URING: a thread does the work of disks",
            "boot a kernel with CONFIG_IO_URING",
        )),
        _ => {}
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_kernel_is_its_first_two_numbers() {
        assert_eq!(version("6.1.0-56-amd64"), Some((6, 1)));
        assert_eq!(version("5.10"), Some((5, 10)));
        assert_eq!(version("linux"), None);
        assert_eq!(version("99999999999.1"), None);
    }
}
