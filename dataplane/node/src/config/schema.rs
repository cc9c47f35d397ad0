//! Every key of `cluster.toml`: one table that the reader checks against and the documentation is made from.

/// A section of the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    /// Its name; empty for the keys before the first section.
    pub(crate) name: &'static str,
    /// Whether it is a list of tables (`[[name]]`).
    pub(crate) many: bool,
    /// What it is.
    pub(crate) doc: &'static str,
    pub(crate) keys: &'static [Key],
}

/// A key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) missing: Missing,
    /// What it means, and what changes with it.
    pub(crate) doc: &'static str,
}

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// 1 to 64 of `a-z 0-9 - _ .`
    Name,
    /// A path, relative to the file's folder.
    Path,
    /// `host:port`, the port not 0.
    Address,
    /// A whole number of some unit.
    Integer {
        unit: &'static str,
        min: u64,
        max: u64,
    },
    /// Bytes, as a number or as text with a unit.
    Size { min: u64, max: u64 },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// The name of a network profile, or the path of one, which ends with `.toml`.
    Profile,
    /// Some of these words.
    Choices(&'static [&'static str]),
    /// The name of a node, or a list of them.
    Nodes,
    /// Core numbers.
    Cores,
    /// Per shard, the names of its nodes.
    Placement,
}

/// What a missing key means.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Missing {
    /// It may not be missing.
    Required,
    /// It stands for this value, as the file would say it.
    Value(&'static str),
    /// It has a meaning of its own, in words.
    Meaning(&'static str),
}

use Missing::{Meaning, Required, Value};

/// The roles that a node may have.
pub(crate) const ROLES: &[&str] = &["controller", "root", "leaf", "replica"];
pub(crate) const DURABILITIES: &[&str] = &["D0", "D1", "D2"];
pub(crate) const ROOT_QUORUMS: &[&str] = &["majority", "all"];
pub(crate) const MODES: &[&str] = &["scalog"];
pub(crate) const PLANS: &[&str] = &["auto", "dedicated", "packed", "cooperative"];
pub(crate) const PRIORITIES: &[&str] = &["normal", "fifo"];

const ANY: u64 = u64::MAX;

/// The whole file.
pub(crate) const SECTIONS: &[Section] = &[
    CLUSTER,
    CONTROLLERS,
    NODES,
    LOGS,
    LIMITS,
    CORES,
    NETWORK,
    TIMING,
];

pub(crate) const CLUSTER: Section = Section {
    name: "",
    many: false,
    doc: "The cluster as a whole.",
    keys: &[
        Key {
            name: "cluster",
            kind: Kind::Name,
            missing: Required,
            doc: "The name of the cluster, for people. Its identity follows from the secret.",
        },
        Key {
            name: "secret_file",
            kind: Kind::Path,
            missing: Value("\"cluster.secret\""),
            doc: "The secret that the nodes share, from which the tokens of sessions between them are made; whoever has it may do everything. Written on first use, mode 0600; every node needs the same one.",
        },
        Key {
            name: "certificate_dir",
            kind: Kind::Path,
            missing: Value("\"certificates\""),
            doc: "With `[[controllers]]`: where a process finds `ca.crt`, its own certificate and its key (`controller-1.crt`, `node-1.key`, `user-admin.crt`). `ionian ca create` makes them.",
        },
    ],
};

pub(crate) const CONTROLLERS: Section = Section {
    name: "controllers",
    many: true,
    doc: "One table per controller: a process of its own, `ionian controller`; 1, 3 or 5 of them agree on what the cluster is. Without any, one node has the role `controller`. With them, what this file says of nodes and logs is what the cluster begins with; from then on the controllers' state counts, which `ionian log`, `ionian shard` and `ionian node` change.",
    keys: &[
        Key {
            name: "id",
            kind: Kind::Integer {
                unit: "",
                min: 1,
                max: u32::MAX as u64,
            },
            missing: Required,
            doc: "Its number, which its certificate carries. Never give it to another controller.",
        },
        Key {
            name: "address",
            kind: Kind::Address,
            missing: Required,
            doc: "Where it listens (TCP, always with mutual TLS) and others find it.",
        },
        Key {
            name: "data_dir",
            kind: Kind::Path,
            missing: Meaning("`data/controller-` and its id"),
            doc: "Where it keeps the group's log and state. Nothing else lies there.",
        },
    ],
};

pub(crate) const NODES: Section = Section {
    name: "nodes",
    many: true,
    doc: "One table per node, that is, per process.",
    keys: &[
        Key {
            name: "name",
            kind: Kind::Name,
            missing: Required,
            doc: "The name by which the rest of the file and the command line call it.",
        },
        Key {
            name: "id",
            kind: Kind::Integer {
                unit: "",
                min: 1,
                max: u32::MAX as u64 - 1,
            },
            missing: Required,
            doc: "Its number in data directories and on the wire. Never give it to another node.",
        },
        Key {
            name: "address",
            kind: Kind::Address,
            missing: Required,
            doc: "Where it listens (UDP) and others find it. Anything but a loopback address needs `--insecure-no-auth`.",
        },
        Key {
            name: "data_dir",
            kind: Kind::Path,
            missing: Meaning("`data/` and the node's name"),
            doc: "Where it keeps its state. Two nodes never share one.",
        },
        Key {
            name: "domain",
            kind: Kind::Integer {
                unit: "",
                min: 0,
                max: u32::MAX as u64,
            },
            missing: Meaning("the node's id"),
            doc: "The failure domain, such as a rack. D2 puts copies into two domains.",
        },
        Key {
            name: "roles",
            kind: Kind::Choices(ROLES),
            missing: Value("[\"replica\"]"),
            doc: "What it may host. Exactly one node is the controller, and none with `[[controllers]]`.",
        },
        Key {
            name: "cores",
            kind: Kind::Cores,
            missing: Meaning("every core that the process may use"),
            doc: "Its threads are pinned to them, in this order, by the plan in `[cores]`; a cooperative one uses the first.",
        },
    ],
};

pub(crate) const LOGS: Section = Section {
    name: "logs",
    many: true,
    doc: "One table per log. A log is one total order.",
    keys: &[
        Key {
            name: "name",
            kind: Kind::Name,
            missing: Required,
            doc: "The name that clients use; the command line uses `default` unless told otherwise.",
        },
        Key {
            name: "mode",
            kind: Kind::Choice(MODES),
            missing: Value("\"scalog\""),
            doc: "The protocol that orders it.",
        },
        Key {
            name: "shards",
            kind: Kind::Integer {
                unit: "shards",
                min: 1,
                max: 16_384,
            },
            missing: Value("1"),
            doc: "More shards take more appends at a time.",
        },
        Key {
            name: "replicas",
            kind: Kind::Integer {
                unit: "replicas",
                min: 1,
                max: 7,
            },
            missing: Value("2"),
            doc: "Copies of each record. An append is acknowledged when every copy is held, and `replicas - 1` failures lose nothing.",
        },
        Key {
            name: "durability",
            kind: Kind::Choice(DURABILITIES),
            missing: Value("\"D1\""),
            doc: "What an acknowledgement means. D0: in the memory of every replica. D1: flushed to the device of every replica. D2: D1 in two failure domains.",
        },
        Key {
            name: "retention_bytes_max",
            kind: Kind::Size {
                min: 1 << 20,
                max: ANY,
            },
            missing: Meaning("nothing is trimmed unless asked"),
            doc: "The oldest records are trimmed when a replica holds more than this, headers included. A disk keeps them in files of 64 MiB per replica of a shard, which are freed as a whole.",
        },
        Key {
            name: "root",
            kind: Kind::Nodes,
            missing: Meaning("the first node with the role"),
            doc: "The nodes that decide the order: the members of the root group, at most 7. One of them leads; when it is gone, another takes over. With one node appends stop while it is away.",
        },
        Key {
            name: "root_quorum",
            kind: Kind::Choice(ROOT_QUORUMS),
            missing: Value("\"majority\""),
            doc: "How many members of the root group hold a part of the order before it counts. majority: more than half, so that of 3 one may be away. all: every member that is there, so that 2 bear the loss of one; who goes away is taken off the list before it goes on.",
        },
        Key {
            name: "leaf",
            kind: Kind::Nodes,
            missing: Meaning("the first node with the role; with `fan_in` all of them"),
            doc: "The node whose leaf collects the shards' reports; of a tree of several vertices (`fan_in`) the nodes that have them, by turns. Where none is named, each vertex is on the node with the fewest places.",
        },
        Key {
            name: "fan_in",
            kind: Kind::Integer {
                unit: "",
                min: 2,
                max: 1024,
            },
            missing: Meaning("one leaf for all shards"),
            doc: "The most shards below a leaf, and the most vertices below an aggregator or the root: the ordering tree has as many as that takes.",
        },
        Key {
            name: "depth",
            kind: Kind::Integer {
                unit: "levels",
                min: 1,
                max: 8,
            },
            missing: Meaning("as few as it takes"),
            doc: "The levels of the ordering tree below the root, leaves included; with `fan_in` only.",
        },
        Key {
            name: "placement",
            kind: Kind::Placement,
            missing: Meaning("round the nodes with the role `replica`"),
            doc: "Per shard, the nodes of its replicas. Cannot be changed once the log exists.",
        },
    ],
};

pub(crate) const LIMITS: Section = Section {
    name: "limits",
    many: false,
    doc: "What one process may use. What does not fit is refused, or waits; nothing grows past these.",
    keys: &[
        Key {
            name: "memory_bytes_max",
            kind: Kind::Size {
                min: 64 << 20,
                max: ANY,
            },
            missing: Value("\"1GiB\""),
            doc: "Memory for records, all roles of the process together. At D0 it bounds how much a log holds.",
        },
        Key {
            name: "disk_bytes_max",
            kind: Kind::Size {
                min: 256 << 20,
                max: ANY,
            },
            missing: Value("\"16GiB\""),
            doc: "Space for records in the data directory, shared by the copies of shards that the process hosts: each needs 128 MiB for every replica of its shard, and 64 MiB more.",
        },
        Key {
            name: "copies_planned",
            kind: Kind::Integer {
                unit: "copies",
                min: 1,
                max: 1_024,
            },
            missing: Meaning(
                "16 with `[[controllers]]`, else the copies that this file places on the node",
            ),
            doc: "Copies of shards that memory and disk are divided among, if more than the node has: the rest is for shards that come later.",
        },
        Key {
            name: "connections_max",
            kind: Kind::Integer {
                unit: "connections",
                min: 8,
                max: 4_096,
            },
            missing: Value("256"),
            doc: "Sessions with other processes and clients, each of which has memory of its own (up to 8 MiB). One more is closed at once and counted; whoever opened it tries again.",
        },
        Key {
            name: "uncommitted_records_max",
            kind: Kind::Integer {
                unit: "records",
                min: 64,
                max: 1 << 32,
            },
            missing: Value("262_144"),
            doc: "Records that a replica holds before they are ordered; appends beyond are told to wait.",
        },
        Key {
            name: "cut_log_bytes_max",
            kind: Kind::Size {
                min: 16 << 20,
                max: ANY,
            },
            missing: Value("\"1GiB\""),
            doc: "Memory for the cut log of a log, in every member of its root group: what is not in a snapshot yet, or is missed by a replica that is away. Beyond it ordering pauses, and appends wait, until entries are dropped; give every member of a root group the same.",
        },
    ],
};

pub(crate) const CORES: Section = Section {
    name: "cores",
    many: false,
    doc: "How threads are laid out on cores.",
    keys: &[
        Key {
            name: "plan",
            kind: Kind::Choice(PLANS),
            missing: Value("\"auto\""),
            doc: "How roles share threads, and threads cores. dedicated: a thread and a core for each replica, and one for the leaf and root of each log; with fewer cores than that it becomes packed, and the process says so. packed: a thread per core of the node's `cores`, else per core that the process may use; roles share them, and the replicas of a shard stay together while there are enough shards. cooperative: one thread for everything, which yields at once, since others need its core. auto: packed on a node with `cores`, else cooperative.",
        },
        Key {
            name: "priority",
            kind: Kind::Choice(PRIORITIES),
            missing: Value("\"normal\""),
            doc: "fifo asks for real-time priority (SCHED_FIFO 50); a refusal is printed and the normal one used.",
        },
        Key {
            name: "spin_us",
            kind: Kind::Integer {
                unit: "µs",
                min: 0,
                max: 1_000_000,
            },
            missing: Meaning("what the network profile says: 50 with `udp`"),
            doc: "How long an idle thread spins before it yields and then sleeps. Threads that share a core yield at once.",
        },
    ],
};

pub(crate) const NETWORK: Section = Section {
    name: "network",
    many: false,
    doc: "How processes talk to each other.",
    keys: &[
        Key {
            name: "nic_profile",
            kind: Kind::Profile,
            missing: Value("\"udp\""),
            doc: "What selects and tunes the transport: a profile that comes with the program (those of `nic-profiles/`), or the path of a file like them. Between processes the backend is `udp`; a profile with another one is an error unless its `fallback` allows `udp`. `ionian doctor` says which profiles fit a machine.",
        },
        Key {
            name: "mtu",
            kind: Kind::Integer {
                unit: "bytes",
                min: 576,
                max: 65_535,
            },
            missing: Meaning(
                "what the path allows: 65,535 on loopback, else what the network profile says, 1,500 with `udp`",
            ),
            doc: "The largest IP packet.",
        },
    ],
};

pub(crate) const TIMING: Section = Section {
    name: "timing",
    many: false,
    doc: "Intervals. None of them is needed for safety.",
    keys: &[
        Key {
            name: "cut_interval_us",
            kind: Kind::Integer {
                unit: "µs",
                min: 0,
                max: 1_000_000,
            },
            missing: Value("0"),
            doc: "The least time between two cuts; 0 cuts as fast as cuts become durable.",
        },
        Key {
            name: "dead_after_ms",
            kind: Kind::Integer {
                unit: "ms",
                min: 50,
                max: 600_000,
            },
            missing: Value("3_000"),
            doc: "A peer that is silent for longer is given up.",
        },
        Key {
            name: "suspect_after_ms",
            kind: Kind::Integer {
                unit: "ms",
                min: 20,
                max: 60_000,
            },
            missing: Value("300"),
            doc: "With `[[controllers]]`: after how long a silence a process tells the controllers of another one. Shorter finds \
                  a host or a network that fails, or a process that hangs, sooner; a process whose end closes its connections is \
                  found without it. It costs a packet and its answer per pair of processes at rest, three times in this span, and \
                  questions where processes get no processor for so long.",
        },
        Key {
            name: "probe_timeout_ms",
            kind: Kind::Integer {
                unit: "ms",
                min: 5,
                max: 10_000,
            },
            missing: Value("25"),
            doc: "How long the others wait for a sign of life of a process whose connection to the controllers has ended, before \
                  they say that there is none. The detection of a process that ended takes at least this long.",
        },
        Key {
            name: "hung_after_ms",
            kind: Kind::Integer {
                unit: "ms",
                min: 20,
                max: 600_000,
            },
            missing: Value("1_000"),
            doc: "How long a process whose connection to the controllers is there may be silent before it counts as dead: its host \
                  or network may have failed, or it may hang, or stand still for a while. What is shorter than the pauses of a \
                  busy machine makes a process count as dead that only was slow. Below `suspect_after_ms` and `probe_timeout_ms` \
                  together it has no effect.",
        },
        Key {
            name: "deaths_per_minute_max",
            kind: Kind::Integer {
                unit: "",
                min: 0,
                max: 1_000,
            },
            missing: Value("10"),
            doc: "The most processes that are found dead within a minute; more wait, so that a fault of the network does not take \
                  a cluster apart. 0 finds none: what dies is not routed around.",
        },
    ],
};

impl Section {
    pub(crate) fn key(&self, name: &str) -> &'static Key {
        self.keys
            .iter()
            .find(|key| key.name == name)
            .expect("the reader asks for keys of the table only")
    }
}
