//! Why a link could not be opened: what is wrong, where, and the command that mends it.

use std::io;

use ionian_ether::MacAddr;
use thiserror::Error;

/// Why a link could not be opened. Effect: none; an interface that was made for it is gone again.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LinkOpenError {
    /// There is no device of the kernel's for TAP.
    #[error(
        "/dev/net/tun is missing, so there are no TAP devices; as root: `mkdir -p /dev/net && mknod /dev/net/tun c 10 200`, in a container: start it with `--device /dev/net/tun`"
    )]
    NoTun,
    /// The device is there and nobody is behind it.
    #[error(
        "the kernel does not know /dev/net/tun; load its module with `modprobe tun`, or take a kernel with CONFIG_TUN"
    )]
    NoTunModule,
    /// A right is missing.
    #[error(
        "no permission to {what}, which needs {capability}; run as root, or give it to the program with `setcap {capability}+ep PROGRAM`"
    )]
    NotPermitted {
        /// What was to be done.
        what: String,
        /// The right, as `setcap` names it.
        capability: &'static str,
    },
    /// There is no such interface.
    #[error("there is no interface `{name}` here; `ip link` lists those of this network namespace")]
    Missing {
        /// The name.
        name: String,
    },
    /// The interface is down.
    #[error("the interface `{name}` is down; bring it up with `ip link set dev {name} up`")]
    Down {
        /// The name.
        name: String,
    },
    /// The interface does not carry Ethernet frames.
    #[error(
        "the interface `{name}` does not carry Ethernet frames; `ip -brief link` shows which do: those with a hardware address"
    )]
    NotEthernet {
        /// The name.
        name: String,
    },
    /// The MTU is more than the interface's.
    #[error(
        "mtu_bytes = {mtu_bytes} is more than the {interface_mtu_bytes} of the interface `{name}`; lower it, or raise the interface's with `ip link set dev {name} mtu {mtu_bytes}`"
    )]
    Mtu {
        /// The name.
        name: String,
        /// The value.
        mtu_bytes: u32,
        /// The interface's.
        interface_mtu_bytes: u32,
    },
    /// Somebody else has the TAP device.
    #[error(
        "another process has the TAP device `{name}`, which `grep -l 'iff:.*{name}$' /proc/[0-9]*/fdinfo/*` shows; end it, choose another name, or open all of them with multi_queue"
    )]
    Busy {
        /// The name.
        name: String,
    },
    /// The interface is none that can be opened as asked.
    #[error(
        "the interface `{name}` is not a TAP device with multi_queue = {multi_queue}; choose another name, or remove it with `ip link delete dev {name}`"
    )]
    OtherKind {
        /// The name.
        name: String,
        /// What was asked for.
        multi_queue: bool,
    },
    /// The name is none of an interface.
    #[error(
        "`{name}` is not a name of an interface: 1 to 15 bytes, without spaces, colons and slashes"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The hardware address is not that of one station.
    #[error("mac = \"{mac}\" is not the address of one station; choose one that begins with 02")]
    Mac {
        /// The value.
        mac: MacAddr,
    },
    /// The batch is out of range.
    #[error("batch = {batch} is not within 1..=1024")]
    Batch {
        /// The value.
        batch: usize,
    },
    /// The system refused something else.
    #[error("{call} for the interface `{name}`: {source}")]
    System {
        /// What was refused.
        call: &'static str,
        /// The interface.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
}
