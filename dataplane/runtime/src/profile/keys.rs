//! The table of a profile's keys: which backend has which, of what kind and range, and what each means.
//!
//! A file is checked against it before it is typed, so that errors name file, line and key, and the documentation is made
//! from it.

use super::Backend;

/// What the `value` of a key is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyKind {
    /// A whole number within both bounds.
    Number {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// Text of at most so many bytes, not empty.
    Text {
        /// The most bytes.
        bytes_max: usize,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Switch,
    /// A list of PCI vendors and devices, `vvvv:dddd`.
    PciIds,
}

/// One key of a profile whose value has grounds: a table with `value`, `unit`, `source` and `reason`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProfileKey {
    /// Its name, with its unit last.
    pub name: &'static str,
    /// The backends that have it.
    pub backends: &'static [Backend],
    /// What its value is.
    pub kind: KeyKind,
    /// What it means.
    pub doc: &'static str,
}

/// The keys of a table that a value stands in.
pub(super) const OF_A_VALUE: &[&str] = &["value", "unit", "source", "reason"];

/// Keys before the first table, in every profile.
pub(super) const PLAIN: &[&str] = &["name", "backend", "fallback"];

/// The keys of the table `status`.
pub(super) const OF_STATUS: &[&str] = &["state", "date", "machine"];

const EVERY: &[Backend] = &Backend::ALL;
const ETHERNET: &[Backend] = &[
    Backend::Tap,
    Backend::AfPacket,
    Backend::AfXdp,
    Backend::Dpdk,
];
const TAP_XDP_DPDK: &[Backend] = &[Backend::Tap, Backend::AfXdp, Backend::Dpdk];
const XDP_DPDK: &[Backend] = &[Backend::AfXdp, Backend::Dpdk];
const XDP: &[Backend] = &[Backend::AfXdp];
const DPDK: &[Backend] = &[Backend::Dpdk];
const DPDK_VERBS: &[Backend] = &[Backend::Dpdk, Backend::Verbs];
const VERBS: &[Backend] = &[Backend::Verbs];

const fn number(
    name: &'static str,
    backends: &'static [Backend],
    (min, max): (u64, u64),
    doc: &'static str,
) -> ProfileKey {
    ProfileKey {
        name,
        backends,
        kind: KeyKind::Number { min, max },
        doc,
    }
}

const fn text(
    name: &'static str,
    backends: &'static [Backend],
    bytes_max: usize,
    doc: &'static str,
) -> ProfileKey {
    ProfileKey {
        name,
        backends,
        kind: KeyKind::Text { bytes_max },
        doc,
    }
}

const fn choice(
    name: &'static str,
    backends: &'static [Backend],
    words: &'static [&'static str],
    doc: &'static str,
) -> ProfileKey {
    ProfileKey {
        name,
        backends,
        kind: KeyKind::Choice(words),
        doc,
    }
}

/// Every key whose value has grounds, in the order of the documentation.
pub const PROFILE_KEYS: &[ProfileKey] = &[
    number(
        "preference",
        EVERY,
        (0, 100),
        "How much `ionian doctor` prefers it among the profiles that fit a machine; 0 is never recommended. Its `reason` is the one that the doctor gives.",
    ),
    number(
        "mtu_bytes",
        EVERY,
        (576, 1 << 20),
        "The largest IP packet, or the largest message of a fabric.",
    ),
    number(
        "rx_depth",
        EVERY,
        (1, 1 << 30),
        "Room for what arrives, in the unit it names: packets, buffers or bytes.",
    ),
    number(
        "tx_depth",
        EVERY,
        (1, 1 << 30),
        "Room for what leaves, in the unit it names.",
    ),
    number(
        "batch",
        EVERY,
        (1, 1024),
        "Packets or messages of one call.",
    ),
    number(
        "credits",
        EVERY,
        (1, 1 << 30),
        "What one session may have under way; at most `rx_depth`.",
    ),
    number(
        "rto_us_min",
        EVERY,
        (0, 10_000_000),
        "The shortest retransmission timeout in microseconds; 0 on a reliable fabric.",
    ),
    number(
        "rto_us_max",
        EVERY,
        (0, 10_000_000),
        "The longest retransmission timeout in microseconds.",
    ),
    number(
        "spin_us",
        EVERY,
        (0, 1_000_000),
        "How long a reactor with its own core spins before it yields, in microseconds.",
    ),
    text(
        "interface",
        ETHERNET,
        15,
        "The interface. `auto` is the one that has the address listened on; a TAP device is made under this name, and `%d` in it is a number that the kernel chooses; `none` for a DPDK port without one.",
    ),
    number(
        "queue",
        XDP_DPDK,
        (0, 1023),
        "The first queue used, from 0.",
    ),
    number(
        "queues",
        TAP_XDP_DPDK,
        (1, 1024),
        "Queues from that one on; on a TAP device more than one makes it multi-queue.",
    ),
    number(
        "vlan",
        ETHERNET,
        (0, 4094),
        "The IEEE 802.1Q VLAN of every frame; 0 for frames without a tag.",
    ),
    choice(
        "mode",
        XDP,
        &["copy", "zero-copy"],
        "Whether the kernel copies frames or the NIC writes into the socket's memory. A zero-copy bind that the driver refuses is an error, never a copy.",
    ),
    choice(
        "attach",
        XDP,
        &["skb", "native"],
        "Where the XDP program runs: in the kernel's general path, or in the NIC's driver.",
    ),
    number(
        "frame_bytes",
        XDP_DPDK,
        (2048, 16_384),
        "Bytes of one frame's buffer, headroom included; 2048 or 4096 with AF_XDP.",
    ),
    ProfileKey {
        name: "need_wakeup",
        backends: XDP,
        kind: KeyKind::Switch,
        doc: "Whether the kernel is called only when it asks to be woken (XDP_USE_NEED_WAKEUP).",
    },
    text(
        "vdev",
        DPDK,
        256,
        "The arguments of DPDK's `--vdev`, with `{interface}`, `{queue}`, `{queues}`, `{socket}` and `{role}` filled in at start; `none` for a PCI device.",
    ),
    text(
        "pci_address",
        DPDK,
        12,
        "The PCI device, such as `0000:3b:00.0`; `auto` for the only one that `pci_ids` names, `none` for a virtual device.",
    ),
    ProfileKey {
        name: "pci_ids",
        backends: DPDK_VERBS,
        kind: KeyKind::PciIds,
        doc: "Vendor and device numbers of the NICs that the profile is for; empty for a virtual or emulated device.",
    },
    text(
        "kernel_driver",
        DPDK_VERBS,
        32,
        "The kernel driver that the device must have: with DPDK `vfio-pci`, or the NIC's own where DPDK shares the device with it; with RDMA the device's; `none` for a virtual device.",
    ),
    text(
        "pmd",
        DPDK,
        32,
        "DPDK's poll-mode driver, as its library is called between `librte_` and `.so`.",
    ),
    choice(
        "memory",
        DPDK,
        &["huge-pages", "anonymous"],
        "Where DPDK's memory comes from; a PCI device needs huge pages.",
    ),
    number(
        "memory_bytes",
        DPDK,
        (16 << 20, 1 << 40),
        "How much memory DPDK gets.",
    ),
    number(
        "mbufs",
        DPDK,
        (256, 1 << 24),
        "Packet buffers of the port's pool.",
    ),
    choice(
        "checksum_offload",
        DPDK,
        &["off", "auto", "require"],
        "Whether the NIC makes and checks the checksums of IP and UDP.",
    ),
    choice(
        "flow_steering",
        DPDK,
        &["off", "auto", "require"],
        "Whether the NIC steers our UDP port to our queues and leaves the rest to others.",
    ),
    text(
        "rdma_device",
        VERBS,
        63,
        "The RDMA device, such as `mlx5_0`; `auto` for the first with `kernel_driver` whose port is active.",
    ),
    number("rdma_port", VERBS, (1, 255), "Its port, from 1."),
    text(
        "gid_index",
        VERBS,
        4,
        "The index of the GID; `auto` for the first of RoCE v2 with an IPv4 address, else the first one.",
    ),
    number(
        "path_mtu_bytes",
        VERBS,
        (256, 4096),
        "Bytes of one packet's payload on the wire: a power of two.",
    ),
    number(
        "inline_max_bytes",
        VERBS,
        (0, 1024),
        "Messages of up to this are copied into the work request, so that the NIC need not fetch them.",
    ),
    number(
        "signal_every",
        VERBS,
        (1, 4096),
        "One of so many sends asks for a completion; at most half of `tx_depth`.",
    ),
    number(
        "srq_low",
        VERBS,
        (1, 1 << 20),
        "The shared receive queue is filled again when fewer buffers than this are left; less than `rx_depth`.",
    ),
    number(
        "ack_timeout_exponent",
        VERBS,
        (1, 31),
        "The wait for an acknowledgement is 4.096 µs times two to the power of this.",
    ),
    number(
        "retry_count",
        VERBS,
        (0, 7),
        "Times a packet is sent again before the connection counts as broken.",
    ),
    number(
        "rnr_retry",
        VERBS,
        (0, 7),
        "Times a receiver without buffers is asked again; 7 is for ever.",
    ),
];

impl ProfileKey {
    /// The key of this name, whoever has it.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        PROFILE_KEYS.iter().find(|key| key.name == name)
    }

    /// The keys that profiles of a backend have, all of them required.
    pub fn of(backend: Backend) -> impl Iterator<Item = &'static Self> {
        PROFILE_KEYS
            .iter()
            .filter(move |key| key.backends.contains(&backend))
    }
}
