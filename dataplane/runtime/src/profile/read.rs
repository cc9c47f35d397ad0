//! A profile's text, checked by the table of keys before it is typed: every refusal names the place.

use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use super::keys::{KeyKind, OF_A_VALUE, OF_STATUS, PLAIN, ProfileKey};
use super::{
    AfPacketDevice, AfXdpDevice, Backend, Device, DpdkDevice, DpdkMemory, NicProfile, Offload,
    Setting, Status, TapDevice, VerbsDevice, XdpAttach, XdpMode,
};
use crate::nearest;

/// Sources and reasons are sentences, not books.
const TEXT_BYTES_MAX: usize = 4096;
/// The most NICs that one profile names.
const PCI_IDS_MAX: usize = 256;

/// A refusal: where in the text, and what is wrong.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) what: String,
}

impl Wrong {
    fn new(at: usize, what: impl Into<String>) -> Self {
        Self {
            at,
            what: what.into(),
        }
    }
}

type Spanned<'a> = toml::Spanned<DeValue<'a>>;

/// The typed profile of a text, all but what one value says of another.
pub(super) fn read(text: &str) -> Result<NicProfile, Wrong> {
    let syntax = |error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start);
        Wrong::new(at, error.message().replace('\n', "; "))
    };
    check(DeTable::parse(text).map_err(syntax)?.get_ref())?;
    let raw: Raw = toml::from_str(text).map_err(syntax)?;
    raw.profile()
        .ok_or_else(|| Wrong::new(0, "a key of its backend is missing"))
}

/// Checks every key of a profile.
fn check(table: &DeTable<'_>) -> Result<(), Wrong> {
    for name in PLAIN {
        let value = table
            .get(*name)
            .ok_or_else(|| Wrong::new(0, format!("{name} is missing")))?;
        if *name == "fallback" {
            texts(name, value)?;
        } else {
            sentence(name, value)?;
        }
    }
    let (at, backend) = backend(table)?;
    for (name, value) in table.iter() {
        let key: &str = name.get_ref();
        if PLAIN.contains(&key) {
            continue;
        }
        if key == "status" {
            check_status(value)?;
            continue;
        }
        match ProfileKey::named(key) {
            Some(known) if known.backends.contains(&backend) => check_value(known, value)?,
            Some(known) => {
                let theirs: Vec<&str> = known.backends.iter().map(|it| it.name()).collect();
                let what = format!(
                    "{key} is a key of {}, not of {backend}: take it out",
                    theirs.join(", ")
                );
                return Err(Wrong::new(name.span().start, what));
            }
            None => {
                let of_backend = ProfileKey::of(backend).map(|key| key.name);
                let known = of_backend.chain(PLAIN.iter().copied()).chain(["status"]);
                return Err(unknown(name.span().start, key, "", known));
            }
        }
    }
    if !table.iter().any(|(name, _)| name.get_ref() == "status") {
        return Err(Wrong::new(at, "the table [status] is missing"));
    }
    let missing = ProfileKey::of(backend).find(|key| table.get(key.name).is_none());
    match missing {
        Some(key) => Err(Wrong::new(
            at,
            format!(
                "the table [{}] is missing, which {backend} needs: {}",
                key.name, key.doc
            ),
        )),
        None => Ok(()),
    }
}

/// The backend that a profile names, and where.
fn backend(table: &DeTable<'_>) -> Result<(usize, Backend), Wrong> {
    let value = table.get("backend");
    let name = value.and_then(|value| value.get_ref().as_str());
    let at = value.map_or(0, |value| value.span().start);
    let name = name.unwrap_or_default();
    Backend::named(name)
        .map(|found| (at, found))
        .ok_or_else(|| {
            let known: Vec<&str> = Backend::ALL.iter().map(|it| it.name()).collect();
            let what = format!(
                "backend is {name:?}: there is no such backend; use one of {}",
                known.join(", ")
            );
            Wrong::new(at, what)
        })
}

fn unknown<'a>(at: usize, key: &str, within: &str, known: impl Iterator<Item = &'a str>) -> Wrong {
    let hint = match nearest(key, known) {
        Some(hint) => format!("; did you mean {hint}?"),
        None => String::from(": take it out"),
    };
    Wrong::new(at, format!("unknown key {key}{within}{hint}"))
}

/// Checks one table with a value and its grounds.
fn check_value(key: &ProfileKey, value: &Spanned<'_>) -> Result<(), Wrong> {
    let table = within(key.name, value, OF_A_VALUE)?;
    for (name, part) in table {
        if name == "value" {
            check_kind(key, part)?;
        } else {
            sentence(&format!("{}: {name}", key.name), part)?;
        }
    }
    Ok(())
}

fn check_status(value: &Spanned<'_>) -> Result<(), Wrong> {
    for (name, part) in within("status", value, OF_STATUS)? {
        sentence(&format!("status: {name}"), part)?;
    }
    Ok(())
}

/// The parts of a table: all of `names`, and no others.
fn within<'a>(
    table: &str,
    value: &'a Spanned<'a>,
    names: &[&'static str],
) -> Result<Vec<(&'static str, &'a Spanned<'a>)>, Wrong> {
    let at = value.span().start;
    let Some(parts) = value.get_ref().as_table() else {
        let what = format!(
            "{table} must be a table [{table}] with {}",
            names.join(", ")
        );
        return Err(Wrong::new(at, what));
    };
    for name in parts.keys() {
        if !names.contains(&&**name.get_ref()) {
            let within = format!(" in [{table}]");
            let known = names.iter().copied();
            return Err(unknown(name.span().start, name.get_ref(), &within, known));
        }
    }
    names
        .iter()
        .map(|name| {
            let part = parts.get(*name);
            let part = part.ok_or_else(|| Wrong::new(at, format!("{table}: {name} is missing")))?;
            Ok((*name, part))
        })
        .collect()
}

/// Checks that something is said.
fn sentence(what: &str, value: &Spanned<'_>) -> Result<(), Wrong> {
    let text = value.get_ref().as_str().map(str::trim);
    match text {
        Some(text) if !text.is_empty() && text.len() <= TEXT_BYTES_MAX => Ok(()),
        _ => Err(Wrong::new(
            value.span().start,
            format!("{what} must say something, in quotes"),
        )),
    }
}

fn texts<'a>(what: &str, value: &'a Spanned<'_>) -> Result<Vec<&'a str>, Wrong> {
    let list = value.get_ref().as_array();
    let texts = list.and_then(|list| list.iter().map(|one| one.get_ref().as_str()).collect());
    texts.ok_or_else(|| {
        Wrong::new(
            value.span().start,
            format!("{what} must be a list of texts"),
        )
    })
}

fn check_kind(key: &ProfileKey, value: &Spanned<'_>) -> Result<(), Wrong> {
    let wrong = |what: String| Wrong::new(value.span().start, format!("{}: {what}", key.name));
    let text = value.get_ref().as_str();
    match key.kind {
        KeyKind::Number { min, max } => {
            let number = value.get_ref().as_integer().map(ToString::to_string);
            let number = number.ok_or_else(|| wrong(String::from("give a whole number")))?;
            let inside = number
                .parse()
                .is_ok_and(|number: u64| (min..=max).contains(&number));
            inside
                .then_some(())
                .ok_or_else(|| wrong(format!("{number} is not within {min}..={max}")))
        }
        KeyKind::Text { bytes_max } => text
            .filter(|text| !text.trim().is_empty() && text.len() <= bytes_max)
            .map(|_| ())
            .ok_or_else(|| wrong(format!("give text of 1 to {bytes_max} bytes, in quotes"))),
        KeyKind::Choice(words) => text
            .filter(|text| words.contains(text))
            .map(|_| ())
            .ok_or_else(|| wrong(format!("give one of \"{}\"", words.join("\", \"")))),
        KeyKind::Switch => value
            .get_ref()
            .as_bool()
            .map(|_| ())
            .ok_or_else(|| wrong(String::from("give true or false"))),
        KeyKind::PciIds => {
            let ids = texts(key.name, value)?;
            if ids.len() > PCI_IDS_MAX {
                return Err(wrong(format!("more than {PCI_IDS_MAX} devices")));
            }
            match ids.iter().find(|id| !is_pci_id(id)) {
                Some(id) => Err(wrong(format!(
                    "{id:?} is no vendor and device: give vvvv:dddd in lower-case hexadecimal digits"
                ))),
                None => Ok(()),
            }
        }
    }
}

/// Whether it is four hexadecimal digits, a colon, and four more.
fn is_pci_id(text: &str) -> bool {
    let digits = |part: &str| {
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        part.len() == 4 && part.bytes().all(hex)
    };
    text.split_once(':')
        .is_some_and(|(vendor, device)| digits(vendor) && digits(device))
}

/// Every key that any backend has.
#[derive(Debug, Deserialize)]
struct Raw {
    name: String,
    backend: Backend,
    fallback: Vec<String>,
    status: Status,
    preference: Setting,
    mtu_bytes: Setting,
    rx_depth: Setting,
    tx_depth: Setting,
    batch: Setting,
    credits: Setting,
    rto_us_min: Setting,
    rto_us_max: Setting,
    spin_us: Setting,
    interface: Option<Setting<String>>,
    queue: Option<Setting>,
    queues: Option<Setting>,
    vlan: Option<Setting>,
    mode: Option<Setting<XdpMode>>,
    attach: Option<Setting<XdpAttach>>,
    frame_bytes: Option<Setting>,
    need_wakeup: Option<Setting<bool>>,
    vdev: Option<Setting<String>>,
    pci_address: Option<Setting<String>>,
    pci_ids: Option<Setting<Vec<String>>>,
    kernel_driver: Option<Setting<String>>,
    pmd: Option<Setting<String>>,
    memory: Option<Setting<DpdkMemory>>,
    memory_bytes: Option<Setting>,
    mbufs: Option<Setting>,
    checksum_offload: Option<Setting<Offload>>,
    flow_steering: Option<Setting<Offload>>,
    rdma_device: Option<Setting<String>>,
    rdma_port: Option<Setting>,
    gid_index: Option<Setting<String>>,
    path_mtu_bytes: Option<Setting>,
    inline_max_bytes: Option<Setting>,
    signal_every: Option<Setting>,
    srq_low: Option<Setting>,
    ack_timeout_exponent: Option<Setting>,
    retry_count: Option<Setting>,
    rnr_retry: Option<Setting>,
}

impl Raw {
    /// `None` where a key of the backend is missing, which [`check`] excludes.
    fn profile(self) -> Option<NicProfile> {
        let device = match self.backend {
            Backend::Shm => Device::Shm,
            Backend::Udp => Device::Udp,
            Backend::Tap => Device::Tap(TapDevice {
                interface: self.interface?,
                queues: self.queues?,
                vlan: self.vlan?,
            }),
            Backend::AfPacket => Device::AfPacket(AfPacketDevice {
                interface: self.interface?,
                vlan: self.vlan?,
            }),
            Backend::AfXdp => Device::AfXdp(AfXdpDevice {
                interface: self.interface?,
                queue: self.queue?,
                queues: self.queues?,
                vlan: self.vlan?,
                mode: self.mode?,
                attach: self.attach?,
                frame_bytes: self.frame_bytes?,
                need_wakeup: self.need_wakeup?,
            }),
            Backend::Dpdk => Device::Dpdk(DpdkDevice {
                vdev: self.vdev?,
                interface: self.interface?,
                pci_address: self.pci_address?,
                pci_ids: self.pci_ids?,
                kernel_driver: self.kernel_driver?,
                pmd: self.pmd?,
                queue: self.queue?,
                queues: self.queues?,
                vlan: self.vlan?,
                memory: self.memory?,
                memory_bytes: self.memory_bytes?,
                mbufs: self.mbufs?,
                frame_bytes: self.frame_bytes?,
                checksum_offload: self.checksum_offload?,
                flow_steering: self.flow_steering?,
            }),
            Backend::Verbs => Device::Verbs(VerbsDevice {
                rdma_device: self.rdma_device?,
                rdma_port: self.rdma_port?,
                kernel_driver: self.kernel_driver?,
                pci_ids: self.pci_ids?,
                gid_index: self.gid_index?,
                path_mtu_bytes: self.path_mtu_bytes?,
                inline_max_bytes: self.inline_max_bytes?,
                signal_every: self.signal_every?,
                srq_low: self.srq_low?,
                ack_timeout_exponent: self.ack_timeout_exponent?,
                retry_count: self.retry_count?,
                rnr_retry: self.rnr_retry?,
            }),
        };
        Some(NicProfile {
            name: self.name,
            backend: self.backend,
            fallback: self.fallback,
            status: self.status,
            preference: self.preference,
            mtu_bytes: self.mtu_bytes,
            rx_depth: self.rx_depth,
            tx_depth: self.tx_depth,
            batch: self.batch,
            credits: self.credits,
            rto_us_min: self.rto_us_min,
            rto_us_max: self.rto_us_max,
            spin_us: self.spin_us,
            device,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::PROFILE_KEYS;
    use super::*;

    #[test]
    fn a_vendor_and_a_device_are_four_digits_each() {
        assert!(is_pci_id("15b3:101d"));
        for wrong in [
            "15b3",
            "15B3:101D",
            "15b3:101",
            "15b3:101d0",
            ":",
            "15b3-101d",
        ] {
            assert!(!is_pci_id(wrong), "{wrong}");
        }
    }

    #[test]
    fn the_table_has_each_key_once_and_no_plain_one() {
        for (at, key) in PROFILE_KEYS.iter().enumerate() {
            assert!(!PLAIN.contains(&key.name) && key.name != "status");
            let again = &PROFILE_KEYS[at + 1..];
            assert!(
                again.iter().all(|other| other.name != key.name),
                "{}",
                key.name
            );
            assert!(!key.backends.is_empty() && !key.doc.is_empty());
        }
    }
}
