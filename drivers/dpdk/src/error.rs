//! Why DPDK does not start or a port does not open: one sentence each, with what to do.
//!
//! DPDK says what went wrong in its log and returns little more than -1. What it wrote is kept while it starts and while a port is
//! opened, and [`explain_start`] finds the cause in it.

use std::path::PathBuf;

use thiserror::Error;

use crate::options::{EalOptions, OptionError};

/// Why DPDK was not started. Effect: none, unless the variant says otherwise.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// This process has or had it already.
    #[error(
        "DPDK starts once in the life of a process, and it has been started before: use the `Eal` that is there, or start another process"
    )]
    Again,
    /// An option is out of its limits.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// Huge pages are required, and too few are free.
    #[error(
        "{needed_mib} MiB of huge pages are needed and {free_mib} MiB are free: `sysctl -w vm.nr_hugepages={pages}` reserves them as root, or set huge_pages to auto or off"
    )]
    NoHugePages {
        /// Memory asked for, in MiB.
        needed_mib: u32,
        /// Free huge pages, in MiB.
        free_mib: u64,
        /// Pages of 2 MiB that would be enough.
        pages: u32,
    },
    /// Another process has the name.
    #[error(
        "another DPDK process uses the file prefix {prefix}: leave the prefix out, which makes a unique one, or end that process (`ls {directory}` shows its files)"
    )]
    PrefixInUse {
        /// The name.
        prefix: String,
        /// Where its files are.
        directory: String,
    },
    /// This process may not make the files that DPDK needs.
    #[error(
        "DPDK may not make its files: run as root, or set XDG_RUNTIME_DIR to a directory that this user may write (DPDK said: {said})"
    )]
    NotPermitted {
        /// What DPDK wrote last.
        said: String,
    },
    /// No driver could be loaded.
    #[error(
        "there are no DPDK drivers in {directory}: on Debian, `apt-get install -y dpdk-dev` brings them (DPDK said: {said})"
    )]
    NoDrivers {
        /// Where they should be.
        directory: String,
        /// What DPDK wrote last.
        said: String,
    },
    /// Something else. Effect: unknown; the process cannot start DPDK again.
    #[error("DPDK did not start; its last words: {said}")]
    Other {
        /// What DPDK wrote last.
        said: String,
    },
}

/// Why a port was not opened. Effect: none; what was made of it is gone again.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// An option is out of its limits.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// The driver of the device is not installed.
    #[error(
        "the DPDK driver {driver} is not in {directory}: on Debian, `apt-get install -y {package}` brings it"
    )]
    NoDriver {
        /// The driver.
        driver: String,
        /// Where it should be.
        directory: String,
        /// The package that brings it.
        package: String,
    },
    /// The interface is not there.
    #[error(
        "there is no network interface {interface} in this network namespace: `ip link` lists those that there are"
    )]
    NoInterface {
        /// Its name.
        interface: String,
    },
    /// The interface that shall be made is there already.
    #[error(
        "a network interface {interface} is there already: choose another name, or `ip link delete {interface}` if a process that is gone left it"
    )]
    InterfaceExists {
        /// Its name.
        interface: String,
    },
    /// The interface is down.
    #[error("the network interface {interface} is down: `ip link set {interface} up`")]
    InterfaceDown {
        /// Its name.
        interface: String,
    },
    /// The interface carries smaller packets.
    #[error(
        "mtu_bytes = {asked} is more than the {most} of the network interface {interface}: `ip link set {interface} mtu {asked}`, or lower mtu_bytes"
    )]
    InterfaceMtu {
        /// Its name.
        interface: String,
        /// What was asked for, in bytes.
        asked: u32,
        /// What it carries, in bytes.
        most: u32,
    },
    /// The device carries smaller packets, or none so small.
    #[error(
        "mtu_bytes = {asked} is not within the {least}..={most} of {device}: set mtu_bytes within them"
    )]
    Mtu {
        /// The device.
        device: String,
        /// What was asked for, in bytes.
        asked: u32,
        /// The least of the device, in bytes.
        least: u32,
        /// The most of the device, in bytes.
        most: u32,
    },
    /// The device has fewer queues.
    #[error("queues = {asked} is more than the {most} that {device} has: lower queues")]
    Queues {
        /// The device.
        device: String,
        /// What was asked for.
        asked: u16,
        /// What it has.
        most: u32,
    },
    /// This process lacks a capability.
    #[error(
        "{device} needs the capability {capability}, which this process does not have: run as root, or `setcap {setcap}+ep PROGRAM`"
    )]
    NotPermitted {
        /// The device.
        device: String,
        /// The capability.
        capability: &'static str,
        /// What to give the program, in the words of setcap.
        setcap: &'static str,
    },
    /// The kernel offers no TAP devices.
    #[error(
        "/dev/net/tun is missing: `modprobe tun`, or start the container with --device /dev/net/tun"
    )]
    NoTun,
    /// Another process listens where this one shall.
    #[error("another process listens on the memif socket {}: give each pair of processes a socket of its own", socket.display())]
    SocketInUse {
        /// The socket.
        socket: PathBuf,
    },
    /// Nobody listens where this process shall connect.
    #[error("nobody listens on the memif socket {}: start the process that has role=server first, and this one within its life", socket.display())]
    NoServer {
        /// The socket.
        socket: PathBuf,
    },
    /// The place of the socket cannot be used.
    #[error("the memif socket {} cannot be made: {why}; name a path in a directory that this user may write", socket.display())]
    Socket {
        /// The socket.
        socket: PathBuf,
        /// Why.
        why: String,
    },
    /// Another AF_XDP socket has the queue.
    #[error(
        "queue {queue} of the network interface {interface} is taken by another AF_XDP socket: end the process that has it (a process keeps it until it ends, even after closing the port), then `ip link set {interface} xdp off`"
    )]
    XdpBusy {
        /// The interface.
        interface: String,
        /// The first of the queues that were asked for.
        queue: u16,
    },
    /// There is not enough memory for the buffers.
    #[error(
        "{mbufs} buffers of {bytes_each} bytes do not fit DPDK's memory: raise memory_mib ({memory_mib} now), or lower mbufs"
    )]
    Memory {
        /// Buffers asked for.
        mbufs: u32,
        /// Size of each, in bytes.
        bytes_each: u32,
        /// DPDK's memory in all, in MiB.
        memory_mib: u32,
    },
    /// All ports that DPDK can have are open.
    #[error("{most} ports are open, which is as many as DPDK can have: close one")]
    TooMany {
        /// How many there can be.
        most: u32,
    },
    /// A PCI device that DPDK does not see.
    #[error(
        "DPDK sees no PCI device {address} with a driver of its own: name it in `pci`, bind it (`dpdk-devbind.py -b vfio-pci {address}`), and see `ionian doctor`"
    )]
    NoPci {
        /// Its address.
        address: String,
    },
    /// A PCI device that this process has or had open.
    #[error(
        "the PCI device {address} was opened before in this process, and DPDK opens a device once: use the links that are there, or start the process again"
    )]
    PciAgain {
        /// Its address.
        address: String,
    },
    /// DPDK refused something else.
    #[error("{call} of {device} failed: {why}; DPDK's last words: {said}")]
    Refused {
        /// What was refused.
        call: &'static str,
        /// The device.
        device: String,
        /// The error that DPDK gave.
        why: String,
        /// What DPDK wrote last.
        said: String,
    },
}

/// Finds in what DPDK wrote while it failed to start why it did.
#[must_use]
pub fn explain_start(
    log: &str,
    options: &EalOptions,
    drivers: &str,
    huge_free_mib: u64,
) -> StartError {
    let has = |text: &str| log.contains(text);
    let said = last_words(log);
    if has("Is another primary process running") || has("Cannot create lock on") {
        let prefix = options.effective_prefix();
        return StartError::PrefixInUse {
            directory: format!("/var/run/dpdk/{prefix}"),
            prefix,
        };
    }
    if has("Permission denied") || has("Operation not permitted") {
        return StartError::NotPermitted { said };
    }
    // With ordinary pages it says this, too, and means nothing by it.
    let pages_missing = has("hugepages reported")
        || has("Cannot get hugepage information")
        || has("No free hugepages")
        || has("Not enough memory available");
    if pages_missing && options.resolve(huge_free_mib) {
        return no_huge_pages(options, huge_free_mib);
    }
    if has("Cannot init plugins") {
        return StartError::NoDrivers {
            directory: drivers.to_owned(),
            said,
        };
    }
    StartError::Other { said }
}

pub(crate) fn no_huge_pages(options: &EalOptions, free_mib: u64) -> StartError {
    StartError::NoHugePages {
        needed_mib: options.memory_mib,
        free_mib,
        pages: options.memory_mib.div_ceil(2),
    }
}

/// What DPDK always says after the line that says what is wrong.
const EMPTY_WORDS: &[&str] = &["Driver cannot attach the device", "Failed to attach device"];

/// The last lines of a log that say anything, on one line: errors and not the chatter before them.
pub(crate) fn last_words(log: &str) -> String {
    const LINES: usize = 3;
    const CHARACTERS: usize = 400;
    let lines: Vec<&str> = log
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !EMPTY_WORDS.iter().any(|words| line.contains(words)))
        .collect();
    let from = lines.len().saturating_sub(LINES);
    let words = lines[from..].join(" / ");
    if words.is_empty() {
        return "(nothing)".to_owned();
    }
    let skip = words.chars().count().saturating_sub(CHARACTERS);
    words.chars().skip(skip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::HugePages;

    fn explain(log: &str, huge_pages: HugePages) -> String {
        let options = EalOptions {
            prefix: Some("p".to_owned()),
            huge_pages,
            ..Default::default()
        };
        explain_start(log, &options, "/drivers", 4).to_string()
    }

    #[test]
    fn the_cause_is_found_in_what_was_written() {
        for (log, huge, sentence) in [
            (
                "EAL: Cannot create lock on '/var/run/dpdk/p/config'. Is another primary process running?\nEAL: FATAL: Cannot init config\n",
                HugePages::Off,
                "another DPDK process uses the file prefix p: leave the prefix out, which makes a unique one, or end that process (`ls /var/run/dpdk/p` shows its files)",
            ),
            (
                "EAL: Error creating '/var/run/dpdk': Permission denied\nEAL: FATAL: Cannot set up\n",
                HugePages::Off,
                "DPDK may not make its files: run as root, or set XDG_RUNTIME_DIR to a directory that this user may write (DPDK said: EAL: Error creating '/var/run/dpdk': Permission denied / EAL: FATAL: Cannot set up)",
            ),
            (
                "EAL: No free 2048 kB hugepages reported on node 0\nEAL: FATAL: Cannot get hugepage information.\n",
                HugePages::Require,
                "128 MiB of huge pages are needed and 4 MiB are free: `sysctl -w vm.nr_hugepages=64` reserves them as root, or set huge_pages to auto or off",
            ),
            (
                "EAL: FATAL: Cannot init plugins\n",
                HugePages::Off,
                "there are no DPDK drivers in /drivers: on Debian, `apt-get install -y dpdk-dev` brings them (DPDK said: EAL: FATAL: Cannot init plugins)",
            ),
            (
                "EAL: No free 2048 kB hugepages reported on node 0\nEAL: something new\n",
                HugePages::Off,
                "DPDK did not start; its last words: EAL: No free 2048 kB hugepages reported on node 0 / EAL: something new",
            ),
        ] {
            assert_eq!(explain(log, huge), sentence);
        }
    }

    #[test]
    fn last_words_are_few_and_never_none() {
        assert_eq!(last_words("\n \n"), "(nothing)");
        assert_eq!(last_words("a\nb\n\nc\nd"), "b / c / d");
        let log = "net: why\nEAL: Driver cannot attach the device (x)\nEAL: Failed to attach device on primary process\n";
        assert_eq!(last_words(log), "net: why");
        assert_eq!(last_words(&"ä".repeat(1000)).chars().count(), 400);
    }
}
