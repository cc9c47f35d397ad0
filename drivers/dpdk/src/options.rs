//! How to start DPDK and how to open a port, with the limits of each value.

use thiserror::Error;

use crate::vdev::{Vdev, VdevError};

/// Where DPDK's memory comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HugePages {
    /// Ordinary pages (`--no-huge`). Needs no privilege; no physical device can be used without an IOMMU.
    Off,
    /// Huge pages where enough are free, ordinary ones otherwise. [`crate::EalOptions::resolve`] says which.
    #[default]
    Auto,
    /// Huge pages, or an error.
    Require,
}

/// How to start DPDK's environment layer, which a process does once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EalOptions {
    /// Names this process's files among those of other DPDK processes: 1 to 64 letters, digits, `-` and `_`. `None` takes
    /// `ionian-PID`, which no living process has.
    pub prefix: Option<String>,
    /// Memory for packets and devices, in MiB, 32 to 1,048,576; 20 MiB and more for each port.
    pub memory_mib: u32,
    /// Where the memory comes from.
    pub huge_pages: HugePages,
    /// Addresses of the PCI devices that this process may touch, such as `0000:3b:00.0`. Empty: none, and the bus is not even
    /// looked at.
    pub pci: Vec<String>,
    /// Keeps files by which tools such as `dpdk-proc-info` attach to this process. With huge pages, a process that is killed
    /// then leaves pages taken.
    pub attachable: bool,
}

impl Default for EalOptions {
    fn default() -> Self {
        Self {
            prefix: None,
            memory_mib: 128,
            huge_pages: HugePages::Auto,
            pci: Vec::new(),
            attachable: false,
        }
    }
}

/// What a port is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Device {
    /// A virtual device, made when the port is opened.
    Virtual(Vdev),
    /// A PCI device that [`EalOptions::pci`] names.
    Pci(String),
}

/// How to open a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortOptions {
    /// Pairs of a receive and a transmit queue, 1 to 16. Each becomes a link of its own, for one thread.
    pub queues: u16,
    /// Frames that wait in a receive queue at most, 64 to 8192; the device may round.
    pub rx_frames: u16,
    /// Frames that wait in a transmit queue at most, 64 to 8192; the device may round.
    pub tx_frames: u16,
    /// Frames of one call, 1 to 256.
    pub batch: u16,
    /// Largest IP packet in a frame, in bytes, 576 to 9,216.
    pub mtu_bytes: u32,
    /// Buffers of the port in all, 1,024 to 1,048,575; one less than a power of two wastes least. It must exceed what its queues
    /// hold.
    pub mbufs: u32,
    /// Let the device compute and check checksums where it can.
    pub offload: bool,
    /// Receive what is addressed to others, too. Packet sockets and TAP do so in any case.
    pub promiscuous: bool,
    /// UDP ports whose packets belong to the queue of the same index. Where the device has no flow rules this is not an error: it
    /// is counted, and the device spreads packets as it does.
    pub steer_udp: Vec<u16>,
}

impl Default for PortOptions {
    fn default() -> Self {
        Self {
            queues: 1,
            rx_frames: 1024,
            tx_frames: 1024,
            batch: 64,
            mtu_bytes: 1500,
            mbufs: 8191,
            offload: true,
            promiscuous: false,
            steer_udp: Vec::new(),
        }
    }
}

/// A value that is out of its limits. Effect: none.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum OptionError {
    /// A number is out of range.
    #[error("{name} = {value} is not within {least}..={most}")]
    Number {
        /// The option.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The least it may be.
        least: u64,
        /// The most it may be.
        most: u64,
    },
    /// A text has a form that it cannot have.
    #[error("{name} = {value:?} is not {wanted}")]
    Text {
        /// The option.
        name: &'static str,
        /// Its value.
        value: String,
        /// What would be one.
        wanted: &'static str,
    },
    /// The queues hold more buffers than the port has.
    #[error(
        "mbufs = {mbufs} is less than the {needed} that {queues} queue pairs hold: raise mbufs, or lower rx_frames and tx_frames"
    )]
    Mbufs {
        /// Buffers asked for.
        mbufs: u32,
        /// The least that is enough.
        needed: u32,
        /// Queue pairs asked for.
        queues: u16,
    },
    /// A virtual device's value.
    #[error(transparent)]
    Vdev(#[from] VdevError),
}

fn within(name: &'static str, value: u64, least: u64, most: u64) -> Result<(), OptionError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(OptionError::Number {
        name,
        value,
        least,
        most,
    })
}

impl EalOptions {
    /// Checks every value.
    ///
    /// # Errors
    ///
    /// [`OptionError`] for the first that is out of its limits. Effect: none.
    pub fn check(&self) -> Result<(), OptionError> {
        within("memory_mib", self.memory_mib.into(), 32, 1 << 20)?;
        if let Some(prefix) = &self.prefix
            && !((1..=64).contains(&prefix.len())
                && prefix
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'))
        {
            return Err(OptionError::Text {
                name: "prefix",
                value: prefix.clone(),
                wanted: "1 to 64 letters, digits, - and _",
            });
        }
        match self.pci.iter().find(|address| !is_pci(address)) {
            None => Ok(()),
            Some(address) => Err(bad_pci(address)),
        }
    }

    /// The name that this process's files get.
    #[must_use]
    pub fn effective_prefix(&self) -> String {
        self.prefix
            .clone()
            .unwrap_or_else(|| format!("{OWN_PREFIX}{}", std::process::id()))
    }

    /// Says whether huge pages will be used when so many MiB of them are free.
    #[must_use]
    pub fn resolve(&self, huge_free_mib: u64) -> bool {
        match self.huge_pages {
            HugePages::Off => false,
            HugePages::Auto => huge_free_mib >= u64::from(self.memory_mib),
            HugePages::Require => true,
        }
    }

    /// The arguments for DPDK, its program's name first. `cpus` is where DPDK's own threads may run.
    #[must_use]
    pub fn arguments(&self, huge: bool, cpus: &[usize]) -> Vec<String> {
        let mut arguments = vec![
            "ionian".to_owned(),
            format!("--file-prefix={}", self.effective_prefix()),
            "--proc-type=primary".to_owned(),
            "--no-telemetry".to_owned(),
            format!("--lcores=0@({})", ranges(cpus)),
            "-m".to_owned(),
            self.memory_mib.to_string(),
        ];
        // Without huge pages physical addresses mean nothing; in memory alone nothing is left behind by a process that is killed.
        // DPDK takes the two together for a contradiction.
        match (huge, self.attachable) {
            (false, true) => arguments.push("--no-huge".to_owned()),
            (false, false) => {
                arguments.extend(["--no-huge", "--no-shconf"].map(str::to_owned));
            }
            (true, false) => arguments.push("--in-memory".to_owned()),
            (true, true) => {}
        }
        if self.pci.is_empty() {
            arguments.extend(["--no-pci", "--iova-mode=va"].map(str::to_owned));
        } else {
            for address in &self.pci {
                arguments.extend(["-a".to_owned(), address.clone()]);
            }
        }
        arguments
    }
}

/// What the names of our processes' files begin with, where nobody chose another name.
pub(crate) const OWN_PREFIX: &str = "ionian-";

impl Device {
    /// Checks its names.
    ///
    /// # Errors
    ///
    /// [`OptionError`]. Effect: none.
    pub fn check(&self) -> Result<(), OptionError> {
        match self {
            Self::Virtual(vdev) => Ok(vdev.check()?),
            Self::Pci(address) if is_pci(address) => Ok(()),
            Self::Pci(address) => Err(bad_pci(address)),
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Virtual(vdev) => vdev.fmt(f),
            Self::Pci(address) => write!(f, "PCI device {address}"),
        }
    }
}

impl PortOptions {
    /// Checks every value.
    ///
    /// # Errors
    ///
    /// [`OptionError`] for the first that is out of its limits. Effect: none.
    pub fn check(&self) -> Result<(), OptionError> {
        within("queues", self.queues.into(), 1, QUEUES_MAX)?;
        within("rx_frames", self.rx_frames.into(), 64, 8192)?;
        within("tx_frames", self.tx_frames.into(), 64, 8192)?;
        within("batch", self.batch.into(), 1, BATCH_MAX)?;
        within("mtu_bytes", self.mtu_bytes.into(), 576, 9216)?;
        within("mbufs", self.mbufs.into(), 1024, (1 << 20) - 1)?;
        within(
            "the number of UDP ports in steer_udp",
            self.steer_udp.len() as u64,
            0,
            self.queues.into(),
        )?;
        let pair =
            u32::from(self.rx_frames) + u32::from(self.tx_frames) + 2 * u32::from(self.batch);
        let needed = pair * u32::from(self.queues);
        if self.mbufs < needed {
            return Err(OptionError::Mbufs {
                mbufs: self.mbufs,
                needed,
                queues: self.queues,
            });
        }
        Ok(())
    }
}

const QUEUES_MAX: u64 = 16;
/// Frames of one call at most: what the arrays of the bindings hold.
pub(crate) const BATCH_MAX: u64 = 256;

/// `0000:3b:00.0`, or without the domain.
fn is_pci(address: &str) -> bool {
    let hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let Some((front, function)) = address.rsplit_once('.') else {
        return false;
    };
    let parts: Vec<&str> = front.split(':').collect();
    let place = match parts.as_slice() {
        [bus, device] => hex(bus, 2) && hex(device, 2),
        [domain, bus, device] => hex(domain, 4) && hex(bus, 2) && hex(device, 2),
        _ => false,
    };
    place && matches!(function.as_bytes(), [b'0'..=b'7'])
}

fn bad_pci(address: &str) -> OptionError {
    OptionError::Text {
        name: "pci",
        value: address.to_owned(),
        wanted: "the address of a PCI device, such as 0000:3b:00.0 (`lspci -D` lists them)",
    }
}

/// Numbers in order as `0-3,8`.
fn ranges(cpus: &[usize]) -> String {
    let mut text = String::new();
    let mut at = 0;
    while let Some(&first) = cpus.get(at) {
        let mut last = first;
        while cpus.get(at + 1) == Some(&(last + 1)) {
            at += 1;
            last += 1;
        }
        at += 1;
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&first.to_string());
        if last > first {
            text.push_str(&format!("-{last}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_huge_pages_and_devices_nothing_is_shared_and_no_bus_is_read() {
        let options = EalOptions {
            prefix: Some("a-1".to_owned()),
            memory_mib: 64,
            huge_pages: HugePages::Off,
            ..Default::default()
        };
        let expected = "ionian --file-prefix=a-1 --proc-type=primary --no-telemetry --lcores=0@(0-1) -m 64 --no-huge --no-shconf --no-pci --iova-mode=va";
        assert_eq!(options.arguments(false, &[0, 1]).join(" "), expected);
    }

    #[test]
    fn in_huge_pages_nothing_is_left_behind_and_only_named_devices_are_touched() {
        let options = EalOptions {
            prefix: Some("b".to_owned()),
            pci: vec!["0000:3b:00.0".to_owned(), "3b:00.1".to_owned()],
            ..Default::default()
        };
        let text = options.arguments(true, &[3]).join(" ");
        assert!(text.contains("--lcores=0@(3) -m 128 --in-memory -a 0000:3b:00.0 -a 3b:00.1"));
        assert!(!text.contains("--no-huge") && !text.contains("--no-pci"));
    }

    #[test]
    fn a_process_to_which_tools_attach_shares_its_configuration() {
        let options = EalOptions {
            attachable: true,
            ..Default::default()
        };
        for huge in [false, true] {
            let text = options.arguments(huge, &[0]).join(" ");
            assert!(!text.contains("--no-shconf") && !text.contains("--in-memory"));
            assert_eq!(text.contains("--no-huge"), !huge);
        }
    }

    #[test]
    fn the_prefix_is_this_processs_own_unless_named() {
        let own = EalOptions::default().effective_prefix();
        assert_eq!(own, format!("ionian-{}", std::process::id()));
    }

    #[test]
    fn huge_pages_are_used_as_asked_and_as_there_are() {
        let with = |huge_pages| EalOptions {
            huge_pages,
            ..Default::default()
        };
        assert!(!with(HugePages::Off).resolve(1 << 20));
        assert!(with(HugePages::Auto).resolve(128));
        assert!(!with(HugePages::Auto).resolve(127));
        assert!(with(HugePages::Require).resolve(0));
    }

    #[test]
    fn cpus_are_written_as_ranges() {
        for (cpus, text) in [
            (&[][..], ""),
            (&[0][..], "0"),
            (&[0, 1, 2, 5, 7, 8][..], "0-2,5,7-8"),
        ] {
            assert_eq!(ranges(cpus), text);
        }
    }

    #[test]
    fn values_beyond_their_limits_are_named() {
        let text = |result: Result<(), OptionError>| result.expect_err("out of range").to_string();
        let eal = EalOptions {
            memory_mib: 8,
            ..Default::default()
        };
        assert_eq!(
            text(eal.check()),
            "memory_mib = 8 is not within 32..=1048576"
        );
        for prefix in ["", "a/b", "a b"] {
            let eal = EalOptions {
                prefix: Some(prefix.to_owned()),
                ..Default::default()
            };
            assert!(text(eal.check()).ends_with("is not 1 to 64 letters, digits, - and _"));
        }
        for pci in [
            "",
            "eth0",
            "0000:3b:00",
            "0000:3b:00.9",
            "00:0:3b:00.1",
            "3g:00.0",
        ] {
            let eal = EalOptions {
                pci: vec![pci.to_owned()],
                ..Default::default()
            };
            assert!(text(eal.check()).contains("`lspci -D` lists them"), "{pci}");
            assert!(Device::Pci(pci.to_owned()).check().is_err());
        }
        assert_eq!(Device::Pci("0000:3b:00.0".to_owned()).check(), Ok(()));
        let default = PortOptions::default;
        for (port, sentence) in [
            (
                PortOptions {
                    queues: 17,
                    ..default()
                },
                "queues = 17 is not within 1..=16",
            ),
            (
                PortOptions {
                    batch: 0,
                    ..default()
                },
                "batch = 0 is not within 1..=256",
            ),
            (
                PortOptions {
                    mtu_bytes: 9217,
                    ..default()
                },
                "mtu_bytes = 9217 is not within 576..=9216",
            ),
            (
                PortOptions {
                    steer_udp: vec![1, 2],
                    ..default()
                },
                "the number of UDP ports in steer_udp = 2 is not within 0..=1",
            ),
            (
                PortOptions {
                    queues: 4,
                    ..default()
                },
                "mbufs = 8191 is less than the 8704 that 4 queue pairs hold: raise mbufs, or lower rx_frames and tx_frames",
            ),
        ] {
            assert_eq!(text(port.check()), sentence);
        }
        assert_eq!(default().check(), Ok(()));
    }
}
