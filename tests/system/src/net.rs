//! A network of its own for a test: a namespace per site, all joined by a bridge in one more, with faults in the bridge.
//!
//! The machine's own network is not touched: every device is born inside a namespace and goes with it. Names carry the
//! number of the process that made them, so that what a killed test left behind is known as such and removed by the next
//! ([`Net::sweep`]). Needs root; [`Net::missing`] says why it would not work.
//!
//! Faults are rules of nftables in the bridge (`bridge` family), where a datagram between two sites passes whatever kind
//! of socket it comes from, and where a drop is not told to the sender. Random loss uses netem where the kernel has it.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use crate::tool::{self, run, run_with_input};

/// What the name of every namespace begins with.
const PREFIX: &str = "ionian-";
/// The bridge inside its namespace.
const BRIDGE: &str = "br0";
/// The one device of a site.
const DEVICE: &str = "eth0";
/// Sites of a network at most: one byte of an address.
const SITES_MAX: usize = 200;

/// Tells apart the networks of one process.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A network of namespaces; dropping it removes them.
#[derive(Debug)]
pub struct Net {
    name: String,
    sites: usize,
    cuts: Vec<Cut>,
    loss: Option<Loss>,
}

/// Datagrams that do not arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// From this site.
    pub from: usize,
    /// To this one.
    pub to: usize,
}

/// Random loss on every path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Loss {
    permille: u32,
    by: LossBy,
}

/// What drops datagrams at random.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LossBy {
    /// The queueing discipline netem.
    Netem,
    /// A rule of nftables that draws a number.
    Nft,
}

impl std::fmt::Display for LossBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Netem => "netem",
            Self::Nft => "nft numgen",
        })
    }
}

impl Net {
    /// Why this machine gives no network namespaces to this process; `None` when it does.
    #[must_use]
    pub fn missing() -> Option<String> {
        if !tool::is_root() {
            return Some("needs root for network namespaces".to_owned());
        }
        for (program, package) in [
            ("ip", "iproute2"),
            ("nft", "nftables"),
            ("nsenter", "util-linux"),
        ] {
            if !tool::answers(program) {
                return Some(format!("{program} is missing (install {package})"));
            }
        }
        match Self::make(1) {
            Ok(_) => None,
            Err(error) => Some(format!("the kernel gives no network namespaces: {error:#}")),
        }
    }

    /// Makes a network of so many sites. Removes before what processes that are gone have left.
    ///
    /// # Errors
    /// When a namespace, a device or an address cannot be made; nothing is left then.
    pub fn make(sites: usize) -> Result<Self> {
        if sites > SITES_MAX {
            bail!("{sites} sites; a network has {SITES_MAX} at most");
        }
        Self::sweep();
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let net = Self {
            name: format!("{PREFIX}{}-{number}", std::process::id()),
            sites,
            cuts: Vec::new(),
            loss: None,
        };
        // From here on an error drops `net`, which removes what there is of it.
        let bridge = net.bridge();
        run("ip", &["netns", "add", &bridge])?;
        run(
            "ip",
            &["-n", &bridge, "link", "add", BRIDGE, "type", "bridge"],
        )?;
        run("ip", &["-n", &bridge, "link", "set", BRIDGE, "up"])?;
        for site in 0..sites {
            net.add(site)
                .with_context(|| format!("making the network's site {site}"))?;
        }
        Ok(net)
    }

    fn add(&self, site: usize) -> Result<()> {
        let (bridge, own, port) = (self.bridge(), self.namespace(site), port(site));
        run("ip", &["netns", "add", &own])?;
        let pair = [
            "-n", &bridge, "link", "add", &port, "type", "veth", "peer", "name", DEVICE, "netns",
            &own,
        ];
        run("ip", &pair)?;
        run(
            "ip",
            &["-n", &bridge, "link", "set", &port, "master", BRIDGE, "up"],
        )?;
        let address = format!("{}/24", self.address(site));
        run(
            "ip",
            &["-n", &own, "address", "add", &address, "dev", DEVICE],
        )?;
        for device in [DEVICE, "lo"] {
            run("ip", &["-n", &own, "link", "set", device, "up"])?;
        }
        Ok(())
    }

    /// Removes the namespaces of processes that are gone.
    pub fn sweep() {
        let Ok(entries) = std::fs::read_dir("/run/netns") else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if tool::owner_is_gone(&name, PREFIX) {
                // Somebody else may have been quicker.
                let _ = run("ip", &["netns", "delete", &name]);
            }
        }
    }

    /// The namespace of a site.
    #[must_use]
    pub fn namespace(&self, site: usize) -> String {
        format!("{}-{site}", self.name)
    }

    /// The address of a site.
    #[must_use]
    pub fn address(&self, site: usize) -> Ipv4Addr {
        // Never seen outside of the namespaces; `SITES_MAX` fits.
        Ipv4Addr::new(10, 77, 0, 1 + site as u8)
    }

    /// The number of sites.
    #[must_use]
    pub const fn sites(&self) -> usize {
        self.sites
    }

    fn bridge(&self) -> String {
        format!("{}-br", self.name)
    }

    /// Takes the link of a site down or up again.
    ///
    /// # Errors
    /// The tool's.
    pub fn set_link(&self, site: usize, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        run(
            "ip",
            &["-n", &self.bridge(), "link", "set", &port(site), state],
        )
    }

    /// Drops what the cuts name from now on, besides what is dropped already.
    ///
    /// # Errors
    /// When the kernel takes no such rule; nothing has changed then.
    pub fn cut(&mut self, cuts: &[Cut]) -> Result<()> {
        let before = self.cuts.len();
        self.cuts.extend_from_slice(cuts);
        self.apply().inspect_err(|_| self.cuts.truncate(before))
    }

    /// Takes cuts away.
    ///
    /// # Errors
    /// The tool's.
    pub fn mend(&mut self, cuts: &[Cut]) -> Result<()> {
        for cut in cuts {
            if let Some(at) = self.cuts.iter().position(|one| one == cut) {
                self.cuts.remove(at);
            }
        }
        self.apply()
    }

    /// Loses this share of everything from now on; says by which means. 0 ends it.
    ///
    /// # Errors
    /// When the kernel has none; nothing is lost then.
    pub fn lose(&mut self, permille: u32) -> Result<LossBy> {
        let before = self.loss.take();
        if let Some(Loss {
            by: LossBy::Netem, ..
        }) = before
        {
            for site in 0..self.sites {
                self.netem("delete", site, &[])?;
            }
        }
        if permille == 0 {
            self.apply()?;
            return Ok(before.map_or(LossBy::Nft, |loss| loss.by));
        }
        let share = format!("{}.{}%", permille / 10, permille % 10);
        let by_netem =
            (0..self.sites).try_for_each(|site| self.netem("add", site, &["loss", &share]));
        let by = if by_netem.is_ok() {
            LossBy::Netem
        } else {
            LossBy::Nft
        };
        self.loss = Some(Loss { permille, by });
        match self.apply() {
            Ok(()) => Ok(by),
            Err(error) => {
                self.loss = None;
                Err(error)
            }
        }
    }

    fn netem(&self, action: &str, site: usize, arguments: &[&str]) -> Result<()> {
        let (bridge, port) = (self.bridge(), port(site));
        let head = [
            "-n", &bridge, "qdisc", action, "dev", &port, "root", "netem",
        ];
        run("tc", &[&head, arguments].concat())
    }

    /// Ends every fault of the network.
    ///
    /// # Errors
    /// The first of the tools'; the rest is tried nevertheless.
    pub fn heal(&mut self) -> Result<()> {
        self.cuts.clear();
        let mut result = self.lose(0).map(drop);
        for site in 0..self.sites {
            result = result.and(self.set_link(site, true));
        }
        result
    }

    /// Puts all rules into force at once.
    fn apply(&self) -> Result<()> {
        let namespace = format!("--net=/run/netns/{}", self.bridge());
        run_with_input(
            "nsenter",
            &[&namespace, "nft", "-f", "-"],
            &ruleset(&self.cuts, self.loss),
        )
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let sites = (0..self.sites).map(|site| self.namespace(site));
        for namespace in sites.chain([self.bridge()]) {
            if Path::new("/run/netns").join(&namespace).exists()
                && let Err(error) = run("ip", &["netns", "delete", &namespace])
            {
                eprintln!("the network namespace {namespace} stays: {error:#}");
            }
        }
    }
}

/// The bridge's end of a site's cable.
fn port(site: usize) -> String {
    format!("p{site}")
}

/// Everything that is dropped, as a script that replaces what was in force before.
fn ruleset(cuts: &[Cut], loss: Option<Loss>) -> String {
    let mut text = String::from(
        "add table bridge faults\ndelete table bridge faults\ntable bridge faults {\n  chain forward {\n    \
         type filter hook forward priority 0;\n",
    );
    for Cut { from, to } in cuts {
        let (from, to) = (port(*from), port(*to));
        // Writing into a string does not fail.
        let _ = writeln!(text, "    iifname \"{from}\" oifname \"{to}\" drop");
    }
    if let Some(Loss {
        permille,
        by: LossBy::Nft,
    }) = loss
    {
        let _ = writeln!(text, "    numgen random mod 1000 < {permille} drop");
    }
    text + "  }\n}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_replace_what_was_in_force() {
        let cuts = [Cut { from: 1, to: 4 }];
        let loss = Loss {
            permille: 50,
            by: LossBy::Nft,
        };
        let text = ruleset(&cuts, Some(loss));
        assert!(text.starts_with("add table bridge faults\ndelete table bridge faults\n"));
        assert!(text.contains("iifname \"p1\" oifname \"p4\" drop\n"));
        assert!(text.contains("numgen random mod 1000 < 50 drop\n"));
        assert!(!ruleset(&[], None).contains("drop"));
        let netem = Loss {
            by: LossBy::Netem,
            ..loss
        };
        assert!(!ruleset(&[], Some(netem)).contains("numgen"));
    }
}
