//! What a profile says of its backend's device, typed: one structure per backend.
//!
//! The table of keys is [`super::keys`]; it has been checked against a file before any of these is made, so that what is
//! here is present, of its kind and in its range.

use core::fmt;

use serde::Deserialize;

use super::Setting;

/// A driver of a network: what a profile's `backend` names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Backend {
    /// Rings in shared memory, between the threads of one process.
    Shm,
    /// UDP sockets of the kernel.
    Udp,
    /// Ethernet frames over a TAP device.
    Tap,
    /// Ethernet frames over a packet socket on an interface.
    AfPacket,
    /// Ethernet frames over an AF_XDP socket on a queue of an interface.
    AfXdp,
    /// Ethernet frames over a port of DPDK: a PCI device or a virtual one.
    Dpdk,
    /// Reliable connections of RDMA verbs.
    Verbs,
}

impl Backend {
    /// Every backend, in the order of the documentation.
    pub const ALL: [Self; 7] = [
        Self::Shm,
        Self::Udp,
        Self::Tap,
        Self::AfPacket,
        Self::AfXdp,
        Self::Dpdk,
        Self::Verbs,
    ];

    /// Its name in profiles and on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Udp => "udp",
            Self::Tap => "tap",
            Self::AfPacket => "af-packet",
            Self::AfXdp => "af-xdp",
            Self::Dpdk => "dpdk",
            Self::Verbs => "verbs",
        }
    }

    /// The backend of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|backend| backend.name() == name)
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How an AF_XDP socket gets its frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum XdpMode {
    /// The kernel copies each frame; works with every interface.
    Copy,
    /// The NIC writes into the socket's memory; its driver must know how.
    ZeroCopy,
}

/// Where the XDP program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum XdpAttach {
    /// In the kernel's general receive path, after a socket buffer was made; works with every interface.
    Skb,
    /// In the NIC's driver, before that.
    Native,
}

/// Where DPDK's memory comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DpdkMemory {
    /// Huge pages, which DMA of a real NIC needs.
    HugePages,
    /// Ordinary pages, for virtual devices only.
    Anonymous,
}

/// Whether something that not every device has is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Offload {
    /// Never.
    Off,
    /// Where the device has it.
    Auto,
    /// Always; a device without it is an error at start.
    Require,
}

/// The device of a profile, by its backend.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "a profile is read once, at start, and kept"
)]
pub enum Device {
    /// Nothing to say: memory.
    Shm,
    /// Nothing to say: the kernel routes.
    Udp,
    /// A TAP device.
    Tap(TapDevice),
    /// A packet socket.
    AfPacket(AfPacketDevice),
    /// An AF_XDP socket.
    AfXdp(AfXdpDevice),
    /// A DPDK port.
    Dpdk(DpdkDevice),
    /// An RDMA device.
    Verbs(VerbsDevice),
}

/// A TAP device; see the table of keys for each field's unit and range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TapDevice {
    /// The interface to make; `%d` in it stands for a number that the kernel chooses.
    pub interface: Setting<String>,
    /// Queues; more than one is a multi-queue device.
    pub queues: Setting,
    /// The VLAN of every frame; 0 for none.
    pub vlan: Setting,
}

/// A packet socket on an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AfPacketDevice {
    /// The interface; `auto` for the one that has the address listened on.
    pub interface: Setting<String>,
    /// The VLAN of every frame; 0 for none.
    pub vlan: Setting,
}

/// An AF_XDP socket per queue of an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AfXdpDevice {
    /// The interface; `auto` for the one that has the address listened on.
    pub interface: Setting<String>,
    /// The first queue, from 0.
    pub queue: Setting,
    /// Queues from that one on.
    pub queues: Setting,
    /// The VLAN of every frame; 0 for none.
    pub vlan: Setting,
    /// Whether frames are copied.
    pub mode: Setting<XdpMode>,
    /// Where the program runs.
    pub attach: Setting<XdpAttach>,
    /// Bytes of one frame of the socket's memory: 2048 or 4096.
    pub frame_bytes: Setting,
    /// Whether the kernel is woken by a call only when it asks for one.
    pub need_wakeup: Setting<bool>,
}

/// A port of DPDK.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DpdkDevice {
    /// Arguments of a virtual device; `none` for a PCI device.
    pub vdev: Setting<String>,
    /// The interface below a virtual device, or `auto`; `none` where it has none.
    pub interface: Setting<String>,
    /// The address of the PCI device; `auto` for the only one that `pci_ids` names, `none` for a virtual device.
    pub pci_address: Setting<String>,
    /// Vendor and device of the NICs that the profile is for, `vvvv:dddd` in hexadecimal digits; empty for a virtual device.
    pub pci_ids: Setting<Vec<String>>,
    /// The kernel driver that the PCI device must have: `vfio-pci`, or one that shares it; `none` for a virtual device.
    pub kernel_driver: Setting<String>,
    /// The library of DPDK's poll-mode driver, without `librte_` and `.so`.
    pub pmd: Setting<String>,
    /// The first queue, from 0.
    pub queue: Setting,
    /// Queues from that one on.
    pub queues: Setting,
    /// The VLAN of every frame; 0 for none.
    pub vlan: Setting,
    /// Where memory comes from.
    pub memory: Setting<DpdkMemory>,
    /// How much of it, in bytes.
    pub memory_bytes: Setting,
    /// Packet buffers of the port's pool.
    pub mbufs: Setting,
    /// Bytes of one of them.
    pub frame_bytes: Setting,
    /// Whether the device makes and checks the checksums of IP and UDP.
    pub checksum_offload: Setting<Offload>,
    /// Whether the device steers our UDP port to our queues.
    pub flow_steering: Setting<Offload>,
}

/// A port of an RDMA device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerbsDevice {
    /// The device; `auto` for the first one with `kernel_driver` whose port is active.
    pub rdma_device: Setting<String>,
    /// Its port, from 1.
    pub rdma_port: Setting,
    /// Its kernel driver.
    pub kernel_driver: Setting<String>,
    /// Vendor and device of the NICs that the profile is for; empty for a device without PCI.
    pub pci_ids: Setting<Vec<String>>,
    /// The index of the GID to use; `auto` for the first of RoCE v2 with an IPv4 address, else the first one.
    pub gid_index: Setting<String>,
    /// Bytes of one packet on the wire: a power of two from 256 to 4096.
    pub path_mtu_bytes: Setting,
    /// Messages of up to so many bytes are copied into the work request.
    pub inline_max_bytes: Setting,
    /// One of so many sends asks for a completion.
    pub signal_every: Setting,
    /// The shared receive queue is filled again when fewer buffers than this are left.
    pub srq_low: Setting,
    /// The wait for an acknowledgement is 4.096 µs times two to the power of this.
    pub ack_timeout_exponent: Setting,
    /// Times a packet is sent again before the connection is broken.
    pub retry_count: Setting,
    /// Times a receiver without buffers is asked again; 7 is for ever.
    pub rnr_retry: Setting,
}

impl Device {
    /// The backend.
    #[must_use]
    pub const fn backend(&self) -> Backend {
        match self {
            Self::Shm => Backend::Shm,
            Self::Udp => Backend::Udp,
            Self::Tap(_) => Backend::Tap,
            Self::AfPacket(_) => Backend::AfPacket,
            Self::AfXdp(_) => Backend::AfXdp,
            Self::Dpdk(_) => Backend::Dpdk,
            Self::Verbs(_) => Backend::Verbs,
        }
    }
}
