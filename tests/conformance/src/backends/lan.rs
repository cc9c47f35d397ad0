//! A network of interfaces for backends of Ethernet frames: a bridge of the kernel's, and as many ports as ends are asked for.
//!
//! It is made in a network namespace that this process has to itself, so that no name of the machine is touched and nothing is left
//! behind however the process ends: the kernel removes interfaces with their namespace. [`enter`] starts this very program again in such a
//! namespace, by `unshare` of util-linux, since the suite may not enter one by itself without unsafe code.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::is_root;
use crate::subject::Refusal;

/// Says that this process is in a namespace of its own.
const INSIDE: &str = "IONIAN_CONFORMANCE_NAMESPACE";

/// UDP port of every end.
const PORT: u16 = 7_410;

/// Leading bits that the addresses of a network share.
pub const PREFIX_LEN: u8 = 24;

/// Numbers the networks of this process: their interfaces and addresses differ.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// As root, starts this program again in a network namespace of its own, with its loopback up. Returns if that is so already, or cannot
/// be; backends that need it then say why they are skipped.
pub fn enter() {
    if !is_root() || std::env::var_os(INSIDE).is_some() || !answers("ip", "-V") {
        return;
    }
    let probe = Command::new("unshare")
        .args(["--net", "--", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    if !probe.is_ok_and(|status| status.success()) {
        return;
    }
    // Replaces this process; comes back only if it cannot.
    let error = Command::new("unshare")
        .args(["--net", "--"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    eprintln!("conformance: no namespace: {error}");
}

/// Brings loopback up, which a new namespace has down. Does nothing outside of one.
///
/// # Errors
/// A sentence, if it does not come up.
pub fn settle_in() -> Result<(), String> {
    if std::env::var_os(INSIDE).is_none() {
        return Ok(());
    }
    ip("link set dev lo up")
}

/// Why no network can be made here, if so.
#[must_use]
pub fn missing() -> Option<String> {
    if std::env::var_os(INSIDE).is_some() {
        None
    } else if !is_root() {
        Some("making interfaces needs root".to_owned())
    } else if !answers("ip", "-V") {
        Some("ip is missing (install iproute2)".to_owned())
    } else {
        Some(
            "this process has no network namespace of its own: run `cargo xtask conformance`, on a kernel with network namespaces"
                .to_owned(),
        )
    }
}

fn answers(program: &str, argument: &str) -> bool {
    Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs `ip`.
fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("ip {arguments}: {}", said.trim()))
    }
}

/// A bridge, and whatever was joined to it. The interfaces go with the namespace, all at once: to remove one by one takes the kernel
/// tens of milliseconds each.
#[derive(Debug)]
pub struct Lan {
    number: u32,
}

impl Lan {
    /// Makes a bridge that forwards at once.
    ///
    /// # Errors
    /// [`Refusal`]: no network can be made here, or the kernel refuses one.
    pub fn new() -> Result<Self, Refusal> {
        if let Some(why) = missing() {
            return Err(Refusal::Unavailable(why));
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let lan = Self { number };
        let bridge = lan.bridge();
        lan.run(&format!(
            "link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        ))?;
        lan.raise(&bridge)?;
        Ok(lan)
    }

    /// The bridge's name.
    #[must_use]
    pub fn bridge(&self) -> String {
        format!("ionb{}", self.number)
    }

    /// The name of what end `at` opens: at most 15 bytes.
    #[must_use]
    pub fn port(&self, at: usize) -> String {
        format!("ionp{}e{at}", self.number)
    }

    /// Makes a pair of interfaces: one for end `at` to open, the other one a port of the bridge.
    ///
    /// # Errors
    /// [`Refusal::Broken`], in the kernel's words.
    pub fn add_pair(&self, at: usize) -> Result<String, Refusal> {
        let (near, far) = (self.port(at), format!("ionf{}e{at}", self.number));
        self.run(&format!("link add {near} type veth peer name {far}"))?;
        self.run(&format!("link set dev {far} master {}", self.bridge()))?;
        self.raise(&far)?;
        self.raise(&near)?;
        Ok(near)
    }

    /// Brings an interface up, without addresses of its own, which would only talk.
    fn raise(&self, name: &str) -> Result<(), Refusal> {
        self.run(&format!("link set dev {name} addrgenmode none"))?;
        self.run(&format!("link set dev {name} up"))
    }

    /// Address and port of end `at`.
    #[must_use]
    pub fn address(&self, at: usize) -> SocketAddr {
        let network = (self.number % 250) as u8;
        let host = u8::try_from(at + 1).unwrap_or(u8::MAX);
        (IpAddr::V4(Ipv4Addr::new(10, 77, network, host)), PORT).into()
    }

    /// An address of the network that no end has.
    #[must_use]
    pub fn nobody(&self) -> SocketAddr {
        self.address(199)
    }

    fn run(&self, arguments: &str) -> Result<(), Refusal> {
        ip(arguments).map_err(Refusal::Broken)
    }
}
