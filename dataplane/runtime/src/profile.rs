//! NIC profiles: the tuning of each network backend as data, with the source of every value.
//!
//! A profile is a TOML file. Every value says its unit, where it comes from and why it is what it is; unknown keys are
//! errors, and so are keys of another backend. Profiles are read at start only. Those in `nic-profiles/` are built in.

mod device;
mod document;
mod keys;
mod read;

use serde::Deserialize;
use thiserror::Error;

pub use device::{
    AfPacketDevice, AfXdpDevice, Backend, Device, DpdkDevice, DpdkMemory, Offload, TapDevice,
    VerbsDevice, XdpAttach, XdpMode,
};
pub use document::{
    TABLE_BEGINS, TABLE_ENDS, profile_keys_markdown, profiles_markdown, with_profiles_table,
};
pub use keys::{KeyKind, PROFILE_KEYS, ProfileKey};

/// A value with its unit and the grounds for it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting<T = u64> {
    /// The value.
    pub value: T,
    /// Its unit, or what kind of name it is.
    pub unit: String,
    /// Where it comes from: a standard, a manual, a measurement.
    pub source: String,
    /// Why this value.
    pub reason: String,
}

/// Whether a profile has been used on real equipment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// The suite ran with it.
    Run,
    /// Written from documents; never run.
    NotRun,
}

impl RunState {
    /// As it stands in a profile.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::NotRun => "not-run",
        }
    }
}

/// When and where a profile was last run.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Whether it was run.
    pub state: RunState,
    /// Day of the last run, or of the writing, as year-month-day.
    pub date: String,
    /// The machine it was run on, or what it is meant for.
    pub machine: String,
}

/// How to use one kind of network. The ranges are those of [`PROFILE_KEYS`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NicProfile {
    /// Its name, that of its file.
    pub name: String,
    /// The driver, that of [`device`](Self::device).
    pub backend: Backend,
    /// Profiles that may take its place where it does not work, best first. None is taken silently.
    pub fallback: Vec<String>,
    /// Whether it has been run.
    pub status: Status,
    /// How much it is preferred where it fits; 0 for what is not recommended. Its reason is for people.
    pub preference: Setting,
    /// Bytes of one packet, or of one message of a fabric.
    pub mtu_bytes: Setting,
    /// Room for what arrives, in the unit it names.
    pub rx_depth: Setting,
    /// Room for what leaves, in the unit it names.
    pub tx_depth: Setting,
    /// Packets or messages of one call.
    pub batch: Setting,
    /// What a session may have under way.
    pub credits: Setting,
    /// Shortest retransmission timeout in microseconds; 0 on a reliable fabric.
    pub rto_us_min: Setting,
    /// Longest retransmission timeout in microseconds.
    pub rto_us_max: Setting,
    /// How long a reactor with its own core spins, in microseconds.
    pub spin_us: Setting,
    /// What only this backend has.
    pub device: Device,
}

/// Why a profile was refused. Effect: none.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// The text is not a profile; the message names the key and, where one is near, what may have been meant.
    #[error("{file}:{line}: {message}")]
    Syntax {
        /// The file, or a name for the text.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and where.
        message: String,
    },
    /// A value contradicts another.
    #[error("{file}:{line}: {key}: {message}")]
    Value {
        /// The file, or a name for the text.
        file: String,
        /// The line where the key's table begins, from 1.
        line: usize,
        /// The key.
        key: &'static str,
        /// What is wrong.
        message: String,
    },
}

impl NicProfile {
    /// The profile of this name that comes with the program.
    #[must_use]
    pub fn builtin(name: &str) -> Option<Self> {
        let (name, text) = BUILTIN.iter().find(|(known, _)| *known == name)?;
        Self::parse(&format!("{name}.toml"), text).ok()
    }

    /// The names of the profiles that come with the program.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// Parses and checks a profile. `file` is for messages.
    ///
    /// # Errors
    ///
    /// [`ProfileError`], naming file, line and key.
    pub fn parse(file: &str, text: &str) -> Result<Self, ProfileError> {
        let profile = read::read(text).map_err(|wrong| ProfileError::Syntax {
            file: file.to_owned(),
            line: line_of(text, wrong.at),
            message: wrong.what,
        })?;
        profile.check().map_err(|(key, message)| {
            // A value stands below the head of its own table, a key without a table by itself.
            let starts = |line: &str| {
                let line = line.trim_start();
                line.starts_with(&format!("[{key}]")) || line.starts_with(&format!("{key} "))
            };
            let line = text.lines().position(starts).map_or(1, |line| line + 1);
            ProfileError::Value {
                file: file.to_owned(),
                line,
                key,
                message,
            }
        })?;
        Ok(profile)
    }

    /// What is in force, in one line for people: the values that every backend has, with their units.
    #[must_use]
    pub fn effective(&self) -> String {
        let status = match self.status.state {
            RunState::Run => format!("run {}", self.status.date),
            RunState::NotRun => String::from("NEVER RUN"),
        };
        let part =
            |name: &str, setting: &Setting| format!(", {name} {} {}", setting.value, setting.unit);
        let mut text = format!("{} (backend {}, {status})", self.name, self.backend);
        for (name, setting) in [
            ("mtu", &self.mtu_bytes),
            ("rx depth", &self.rx_depth),
            ("tx depth", &self.tx_depth),
            ("batch", &self.batch),
            ("credits", &self.credits),
        ] {
            text += &part(name, setting);
        }
        if self.rto_us_max.value > 0 {
            text += &format!(
                ", retransmission after {} to {} µs",
                self.rto_us_min.value, self.rto_us_max.value
            );
        }
        text
    }

    /// What one value says of another.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let below = |key, value: u64, most: u64, of: &str| {
            if value <= most {
                return Ok(());
            }
            Err((key, format!("{value} is more than {most}, {of}")))
        };
        below(
            "credits",
            self.credits.value,
            self.rx_depth.value,
            "which rx_depth has room for",
        )?;
        below(
            "rto_us_min",
            self.rto_us_min.value,
            self.rto_us_max.value,
            "which is rto_us_max",
        )?;
        if self.fallback.contains(&self.name) {
            return Err(("fallback", "a profile is not its own fallback".into()));
        }
        match &self.device {
            Device::AfXdp(device) => check_xdp(device),
            Device::Dpdk(device) => check_dpdk(device),
            Device::Verbs(device) => self.check_verbs(device),
            Device::Shm | Device::Udp | Device::Tap(_) | Device::AfPacket(_) => Ok(()),
        }
    }

    fn check_verbs(&self, device: &VerbsDevice) -> Result<(), (&'static str, String)> {
        let half = (self.tx_depth.value / 2).max(1);
        if device.signal_every.value > half {
            let what = format!(
                "{} is more than {half}, half of tx_depth: a send queue without a signalled send is never emptied",
                device.signal_every.value
            );
            return Err(("signal_every", what));
        }
        if device.srq_low.value >= self.rx_depth.value {
            let what = format!(
                "{} must be less than the {} of rx_depth",
                device.srq_low.value, self.rx_depth.value
            );
            return Err(("srq_low", what));
        }
        if !device.path_mtu_bytes.value.is_power_of_two() {
            return Err(("path_mtu_bytes", "must be a power of two".into()));
        }
        let gid = &device.gid_index.value;
        if gid != "auto" && gid.parse::<u8>().is_err() {
            return Err(("gid_index", format!("{gid:?} is neither auto nor 0 to 255")));
        }
        Ok(())
    }
}

fn check_xdp(device: &AfXdpDevice) -> Result<(), (&'static str, String)> {
    if matches!(device.frame_bytes.value, 2048 | 4096) {
        return Ok(());
    }
    let what = format!(
        "{} is neither 2048 nor 4096, the chunks that a UMEM is made of",
        device.frame_bytes.value
    );
    Err(("frame_bytes", what))
}

fn check_dpdk(device: &DpdkDevice) -> Result<(), (&'static str, String)> {
    let none = |setting: &Setting<String>| setting.value == "none";
    match (none(&device.vdev), none(&device.pci_address)) {
        (true, true) => {
            let what = "is none, and so is vdev: a port is one of them".into();
            return Err(("pci_address", what));
        }
        (false, false) => {
            let what = "is there, and so is pci_address: a port is one of them".into();
            return Err(("vdev", what));
        }
        (true, false) if device.pci_ids.value.is_empty() => {
            return Err(("pci_ids", "a PCI device needs at least one".into()));
        }
        (true, false) if device.memory.value == DpdkMemory::Anonymous => {
            let what = "a PCI device needs huge-pages: its memory must not move".into();
            return Err(("memory", what));
        }
        _ => {}
    }
    let needed = device.mbufs.value.saturating_mul(device.frame_bytes.value);
    if needed > device.memory_bytes.value {
        let what = format!(
            "{} is less than the {needed} of mbufs times frame_bytes",
            device.memory_bytes.value
        );
        return Err(("memory_bytes", what));
    }
    Ok(())
}

/// The profiles that come with the program, by the name of their file, sorted.
const BUILTIN: [(&str, &str); 14] = [
    (
        "af-packet",
        include_str!("../../../nic-profiles/af-packet.toml"),
    ),
    ("af-xdp", include_str!("../../../nic-profiles/af-xdp.toml")),
    (
        "connectx-dpdk",
        include_str!("../../../nic-profiles/connectx-dpdk.toml"),
    ),
    (
        "connectx-rdma",
        include_str!("../../../nic-profiles/connectx-rdma.toml"),
    ),
    (
        "dpdk-memif",
        include_str!("../../../nic-profiles/dpdk-memif.toml"),
    ),
    (
        "dpdk-ring",
        include_str!("../../../nic-profiles/dpdk-ring.toml"),
    ),
    (
        "dpdk-veth",
        include_str!("../../../nic-profiles/dpdk-veth.toml"),
    ),
    (
        "e810-dpdk",
        include_str!("../../../nic-profiles/e810-dpdk.toml"),
    ),
    (
        "ena-dpdk",
        include_str!("../../../nic-profiles/ena-dpdk.toml"),
    ),
    ("shm", include_str!("../../../nic-profiles/shm.toml")),
    (
        "soft-roce",
        include_str!("../../../nic-profiles/soft-roce.toml"),
    ),
    ("tap", include_str!("../../../nic-profiles/tap.toml")),
    ("udp", include_str!("../../../nic-profiles/udp.toml")),
    (
        "virtio-dpdk",
        include_str!("../../../nic-profiles/virtio-dpdk.toml"),
    ),
];

/// The line of a place in a text, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// The profiles that come with the program, sorted by name.
///
/// # Errors
///
/// [`ProfileError`] if one of them is wrong, which a test excludes.
pub fn builtin_profiles() -> Result<Vec<NicProfile>, ProfileError> {
    BUILTIN
        .iter()
        .map(|(name, text)| NicProfile::parse(&format!("{name}.toml"), text))
        .collect()
}

#[cfg(test)]
mod tests;
