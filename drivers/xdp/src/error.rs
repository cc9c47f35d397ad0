//! Why a link could not be opened: one sentence each, with what to do about it.

use std::io;

use thiserror::Error;

/// Why a link could not be opened. Effect: none; whatever was made before is undone.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum XdpOpenError {
    /// An option is out of range.
    #[error("{key} = {value} is not {permitted}")]
    Option {
        /// Which.
        key: &'static str,
        /// Its value.
        value: u64,
        /// What it may be.
        permitted: &'static str,
    },
    /// Zero-copy was asked for with the program in the stack, where frames have been copied already.
    #[error(
        "zero-copy on {interface} needs the program in the driver: set attach = native, or mode = copy"
    )]
    ZeroCopyInStack {
        /// The interface.
        interface: String,
    },
    /// The kernel was built without AF_XDP, or is too old.
    #[error(
        "this kernel has no AF_XDP sockets ({source}): run Linux 5.9 or newer with CONFIG_XDP_SOCKETS=y, or take a profile for udp"
    )]
    NoXdpSockets {
        /// The system's answer.
        source: io::Error,
    },
    /// The process lacks a right.
    #[error(
        "{call} on {interface} is not permitted: run as root, or give the program CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF (setcap cap_net_raw,cap_net_admin,cap_bpf,cap_ipc_lock+ep PROGRAM)"
    )]
    NotPermitted {
        /// What was refused.
        call: &'static str,
        /// The interface.
        interface: String,
    },
    /// There is no such interface.
    #[error("there is no interface {interface} in this network namespace: see `ip link`")]
    NoInterface {
        /// The name.
        interface: String,
    },
    /// The interface is not for Ethernet.
    #[error(
        "{interface} is no Ethernet interface (type {kind}): name one that `ip link` shows with link/ether"
    )]
    NotEthernet {
        /// The interface.
        interface: String,
        /// Its type, `ARPHRD_*` of linux/if_arp.h.
        kind: u16,
    },
    /// The interface is down.
    #[error("{interface} is down: run `ip link set dev {interface} up`")]
    Down {
        /// The interface.
        interface: String,
    },
    /// The largest frame of the interface does not fit what AF_XDP gives one.
    #[error(
        "the MTU of {interface}, {mtu_bytes} bytes, does not fit a frame: run `ip link set dev {interface} mtu {mtu_bytes_max}` here and on the peers"
    )]
    Mtu {
        /// The interface.
        interface: String,
        /// Its MTU.
        mtu_bytes: u32,
        /// The largest that fits.
        mtu_bytes_max: u32,
    },
    /// The interface does not have the queue.
    #[error(
        "{interface} has no queue {queue}: take one that `ethtool -l {interface}` shows, counted from 0"
    )]
    Queue {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// Another program is attached to the interface.
    #[error(
        "{interface} has an XDP program already: end the process that uses it, or run `ip link set dev {interface} xdp off` if nobody does"
    )]
    ProgramAttached {
        /// The interface.
        interface: String,
    },
    /// The interface's driver runs no programs.
    #[error(
        "the driver of {interface} runs no XDP programs with its present settings ({source}): set attach = skb"
    )]
    NoNative {
        /// The interface.
        interface: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The device cannot use the shared frames itself.
    #[error("{interface} has no zero-copy AF_XDP on queue {queue}: set mode = copy in the profile")]
    NoZeroCopy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// Another socket has the queue, and did not go within the time that the kernel takes to free one.
    #[error(
        "queue {queue} of {interface} is in use by another AF_XDP socket: end the process that has it, or take another queue"
    )]
    QueueInUse {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// The frames do not fit what the process may lock in memory.
    #[error(
        "the kernel will not lock {bytes} bytes of frames: run `ulimit -l unlimited`, give the program CAP_IPC_LOCK, or lower rx_frames and tx_frames"
    )]
    Memlock {
        /// Bytes of all frames.
        bytes: usize,
    },
    /// The system refused something else.
    #[error("{call} on {interface}: {source}")]
    System {
        /// What was refused.
        call: &'static str,
        /// The interface.
        interface: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// The steps of opening whose errors have a meaning of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Asking about the interface.
    Interface,
    /// `socket(AF_XDP)`.
    Socket,
    /// `XDP_UMEM_REG`, with the bytes of all frames.
    Umem { bytes: usize },
    /// Other options and mappings of the socket.
    Rings,
    /// `bind`, of a zero-copy socket or not.
    Bind { queue: u32, zero_copy: bool },
    /// Making the map and loading the program.
    Load,
    /// Attaching it.
    Attach { native: bool },
}

impl Step {
    const fn call(self) -> &'static str {
        match self {
            Self::Interface => "ioctl",
            Self::Socket => "socket(AF_XDP)",
            Self::Umem { .. } => "setsockopt(XDP_UMEM_REG)",
            Self::Rings => "making the rings",
            Self::Bind { .. } => "bind",
            Self::Load => "bpf",
            Self::Attach { .. } => "bpf(BPF_LINK_CREATE)",
        }
    }

    /// The sentence for what the system answered.
    pub(crate) fn error(self, interface: &str, source: io::Error) -> XdpOpenError {
        let errno = source.raw_os_error().unwrap_or(0);
        let interface = interface.to_owned();
        match (self, errno) {
            (Self::Socket, libc::EAFNOSUPPORT | libc::ESOCKTNOSUPPORT)
            | (Self::Rings, libc::ENOPROTOOPT) => XdpOpenError::NoXdpSockets { source },
            (_, libc::EPERM) => XdpOpenError::NotPermitted {
                call: self.call(),
                interface,
            },
            (Self::Interface | Self::Bind { .. } | Self::Attach { .. }, libc::ENODEV) => {
                XdpOpenError::NoInterface { interface }
            }
            (Self::Bind { .. }, libc::ENETDOWN) => XdpOpenError::Down { interface },
            (Self::Umem { bytes }, libc::ENOBUFS | libc::ENOMEM) => XdpOpenError::Memlock { bytes },
            (Self::Bind { queue, .. }, libc::EINVAL) => XdpOpenError::Queue { interface, queue },
            (Self::Bind { queue, .. }, libc::EBUSY) => {
                XdpOpenError::QueueInUse { interface, queue }
            }
            (
                Self::Bind {
                    queue,
                    zero_copy: true,
                },
                libc::EOPNOTSUPP,
            ) => XdpOpenError::NoZeroCopy { interface, queue },
            (Self::Attach { .. }, libc::EBUSY | libc::EEXIST) => {
                XdpOpenError::ProgramAttached { interface }
            }
            (
                Self::Attach { native: true },
                libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE | libc::ENOSPC,
            ) => XdpOpenError::NoNative { interface, source },
            _ => XdpOpenError::System {
                call: self.call(),
                interface,
                source,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_of_the_system_is_a_sentence_with_the_fix() {
        let (copy, zero_copy) = (
            Step::Bind {
                queue: 3,
                zero_copy: false,
            },
            Step::Bind {
                queue: 3,
                zero_copy: true,
            },
        );
        let (skb, native) = (
            Step::Attach { native: false },
            Step::Attach { native: true },
        );
        for (step, errno, words) in [
            (Step::Socket, libc::EAFNOSUPPORT, "CONFIG_XDP_SOCKETS=y"),
            (
                Step::Socket,
                libc::EPERM,
                "setcap cap_net_raw,cap_net_admin",
            ),
            (Step::Load, libc::EPERM, "bpf on eth9 is not permitted"),
            (skb, libc::EPERM, "CAP_NET_ADMIN"),
            (Step::Interface, libc::ENODEV, "there is no interface eth9"),
            (copy, libc::ENODEV, "see `ip link`"),
            (copy, libc::ENETDOWN, "ip link set dev eth9 up"),
            (
                Step::Umem { bytes: 4096 },
                libc::ENOBUFS,
                "ulimit -l unlimited",
            ),
            (copy, libc::EINVAL, "eth9 has no queue 3"),
            (copy, libc::EBUSY, "queue 3 of eth9 is in use"),
            (zero_copy, libc::EOPNOTSUPP, "set mode = copy"),
            (skb, libc::EBUSY, "ip link set dev eth9 xdp off"),
            (native, libc::EEXIST, "has an XDP program already"),
            (native, libc::EOPNOTSUPP, "set attach = skb"),
            (skb, libc::EIO, "bpf(BPF_LINK_CREATE) on eth9"),
        ] {
            let sentence = step
                .error("eth9", io::Error::from_raw_os_error(errno))
                .to_string();
            assert!(sentence.contains(words), "{step:?} {errno}: {sentence}");
        }
    }
}
