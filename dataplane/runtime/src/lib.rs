//! Pinned reactors, timers, idle ladder, mailboxes, core plans, topology and NIC profiles.
//!
//! A [`Reactor`] is one thread that polls: it runs a [`Poller`] to completion again and again, and goes down a ladder when
//! there is nothing to do: spin, yield, arm every wake-up and block. Roles, drivers and mailboxes are pollers, composed at
//! compile time. [`Topology`] and [`CorePlan`] say which reactor runs on which core, and whether it must share it.
//!
//! Fault model: a thread may be delayed at any point and for any time; no promise rests on timing. Refused privileges
//! (pinning, real-time priority) are reported, never fatal.
//!
//! # Safety model
//!
//! Unsafe code here is system calls on descriptors that this crate owns, and one setting of the C library's memory; no memory
//! is shared with the kernel beyond a call.

mod clock;
mod counters;
mod mailbox;
pub mod memory;
mod nearest;
mod pin;
mod plan;
mod probe;
mod profile;
mod quiet;
mod reactor;
mod timers;
mod topology;

pub use clock::MonotonicClock;
pub use counters::{CounterReader, Counters, counters};
pub use mailbox::{MailboxReceiver, MailboxSender, mailbox};
pub use nearest::nearest;
pub use pin::{PinError, Priority, PriorityOutcome, pin_current_thread, set_priority};
pub use plan::{Assignment, CorePlan, Placement, PlanOptions, assign};
pub use probe::{IoUring, probe_io_uring, probe_packet_socket, probe_xdp_socket};
pub use profile::{
    AfPacketDevice, AfXdpDevice, Backend, Device, DpdkDevice, DpdkMemory, KeyKind, NicProfile,
    Offload, PROFILE_KEYS, ProfileError, ProfileKey, RunState, Setting, Status, TABLE_BEGINS,
    TABLE_ENDS, TapDevice, VerbsDevice, XdpAttach, XdpMode, builtin_profiles,
    profile_keys_markdown, profiles_markdown, with_profiles_table,
};
pub use quiet::{ForbidError, exit_now, forbid_system_calls};
pub use reactor::{
    IdlePolicy, JoinError, Poller, Reactor, ReactorCounter, ReactorHandle, ReactorOptions,
    ReactorStart, Sleeper, StopHandle, WakeHandle, Woken,
};
pub use timers::{TimerId, Timers};
#[cfg(feature = "hwloc")]
pub use topology::HwlocError;
pub use topology::{Cpu, Topology, TopologyError, parse_list as parse_cpu_list};
