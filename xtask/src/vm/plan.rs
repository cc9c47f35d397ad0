//! What is asked of the guests: their size, their devices, the command; and what follows from it: modules, addresses, environment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

/// Where a guest has what it shares with the host: `control`, `job`, and `host`, which is the read-only root.
pub(crate) const SHARED: &str = "/run/ionian-vm";

/// Folders that are the guest's own and hide those of the host.
const HIDDEN: &[&str] = &["/dev", "/proc", "/run", "/sys"];

/// Memory that the guest's kernel and programs need beside huge pages, in MiB.
const MEMORY_BESIDE_HUGE_PAGES_MIB: u32 = 192;

/// Variables of the caller that a command gets, besides all those that begin with one of [`PASSED_PREFIXES`].
const PASSED: &[&str] = &["PATH", "HOME", "LANG"];

const PASSED_PREFIXES: &[&str] = &["IONIAN_", "RUST_"];

/// One run of one guest or two.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// A line for bash.
    pub(crate) command: String,
    /// Where it runs, on the host as in the guest.
    pub(crate) directory: PathBuf,
    /// The folder that the guests write to; without it, a temporary one.
    pub(crate) job: Option<PathBuf>,
    /// Kernel modules besides those that follow from the rest.
    pub(crate) modules: Vec<String>,
    pub(crate) memory_mib: u32,
    pub(crate) cpus: u32,
    /// Of 2 MiB each.
    pub(crate) huge_pages: u32,
    pub(crate) nvme: bool,
    pub(crate) rdma: bool,
    /// 1 or 2.
    pub(crate) peers: u32,
    /// Of the frames that the first of two guests sends.
    pub(crate) loss_percent: Option<f64>,
    /// How long the command may take, from its start in the guest. Pauses in which the host ran nothing are not counted.
    pub(crate) limit: Duration,
}

impl Plan {
    /// A small guest for one command.
    pub(crate) fn of(command: &str, directory: &Path) -> Self {
        Self {
            command: command.to_owned(),
            directory: directory.to_owned(),
            job: None,
            modules: Vec::new(),
            memory_mib: 1024,
            cpus: 2,
            huge_pages: 0,
            nvme: false,
            rdma: false,
            peers: 1,
            loss_percent: None,
            limit: Duration::from_secs(300),
        }
    }

    /// Looks whether it can be done at all, before anything is started.
    pub(crate) fn validate(&self) -> Result<()> {
        if self.command.trim().is_empty() {
            bail!("there is no command to run: cargo xtask vm -- CMD");
        }
        if let Some(hidden) = HIDDEN.iter().find(|h| self.directory.starts_with(h)) {
            bail!(
                "the current folder, {}, is not in the guest, which has a {hidden} of its own: go to another one",
                self.directory.display()
            );
        }
        let most = self.memory_mib.saturating_sub(MEMORY_BESIDE_HUGE_PAGES_MIB) / 2;
        if self.huge_pages > most {
            bail!(
                "{} huge pages of 2 MiB do not fit {} MiB of memory beside the kernel: ask for {most} at most, or for --memory-mib {}",
                self.huge_pages,
                self.memory_mib,
                2 * u64::from(self.huge_pages) + u64::from(MEMORY_BESIDE_HUGE_PAGES_MIB)
            );
        }
        if self.loss_percent.is_some() && self.peers < 2 {
            bail!("frames are lost between two guests only: add --peers 2");
        }
        let named = |m: &String| {
            !m.is_empty()
                && m.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
        };
        if let Some(odd) = self.modules.iter().find(|m| !named(m)) {
            bail!("'{odd}' is no name of a kernel module: give them as --modules one,another");
        }
        Ok(())
    }

    /// The guests have a network interface.
    pub(crate) const fn has_network(&self) -> bool {
        self.rdma || self.peers > 1
    }

    /// Every module that has to be loaded, in order.
    pub(crate) fn all_modules(&self) -> Vec<&str> {
        let mut all = Vec::new();
        if self.has_network() {
            all.push("virtio_net");
        }
        if self.loss_percent.is_some() {
            all.push("sch_netem");
        }
        if self.rdma {
            all.extend(["ib_uverbs", "rdma_ucm", "rdma_rxe"]);
        }
        if self.nvme {
            all.push("nvme");
        }
        for module in &self.modules {
            if !all.contains(&module.as_str()) {
                all.push(module);
            }
        }
        all
    }

    /// What the second stage of the boot is told, as assignments of a shell.
    pub(crate) fn settings(&self, peer: u32, modules: &Path) -> String {
        let mut text = String::new();
        let mut set = |name: &str, value: &str| assign(&mut text, "", name, value);
        set("kernel_modules", &modules.to_string_lossy());
        set("modules", &self.all_modules().join(" "));
        set("huge_pages", &self.huge_pages.to_string());
        set("directory", &self.directory.to_string_lossy());
        set("peer", &peer.to_string());
        if self.has_network() {
            set("address", &address(peer));
            set("gid", &gid(peer));
        }
        if let Some(loss) = self.loss_percent.filter(|_| peer == 0) {
            set("loss_percent", &loss.to_string());
        }
        if self.rdma {
            set("rdma", "yes");
        }
        if self.nvme {
            set("nvme", "yes");
        }
        text
    }

    /// What the command is told, as exports of a shell; `caller` is the environment of the caller.
    pub(crate) fn environment(
        &self,
        peer: u32,
        caller: impl Iterator<Item = (String, String)>,
    ) -> String {
        let mut text = String::new();
        for (name, value) in caller.filter(|(name, _)| is_passed(name)) {
            assign(&mut text, "export ", &name, &value);
        }
        // The command is root's, whoever the caller is.
        text.push_str("PATH=\"$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin\"\n");
        let mut set = |name: &str, value: &str| assign(&mut text, "export ", name, value);
        set("IONIAN_VM_JOB", &format!("{SHARED}/job"));
        set("IONIAN_VM_HOST_ROOT", &format!("{SHARED}/host"));
        set("IONIAN_VM_PEER", &peer.to_string());
        if self.has_network() {
            for peer in 0..self.peers {
                set(&format!("IONIAN_VM_ADDRESS_{peer}"), &address(peer));
            }
        }
        text
    }
}

/// The IPv4 address of a guest; their network has 24 bits and reaches nobody else.
fn address(peer: u32) -> String {
    format!("10.77.0.{}", peer + 1)
}

/// The GID that a RoCE v2 device has for that address, as sysfs prints it: the address mapped to IPv6.
fn gid(peer: u32) -> String {
    format!("0000:0000:0000:0000:0000:ffff:0a4d:{:04x}", peer + 1)
}

fn is_passed(name: &str) -> bool {
    let safe = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    safe && (PASSED.contains(&name) || PASSED_PREFIXES.iter().any(|p| name.starts_with(p)))
}

fn assign(text: &mut String, before: &str, name: &str, value: &str) {
    text.push_str(before);
    text.push_str(name);
    text.push('=');
    text.push_str(&quoted(value));
    text.push('\n');
}

/// One word of a shell, whatever it holds.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::of("true", Path::new("/tmp"))
    }

    #[test]
    fn what_a_flag_needs_is_loaded_once_and_in_order() {
        let mut plan = plan();
        assert!(plan.all_modules().is_empty());
        plan.rdma = true;
        plan.peers = 2;
        plan.loss_percent = Some(1.0);
        plan.modules = vec!["nvme".to_owned(), "virtio_net".to_owned()];
        assert_eq!(
            plan.all_modules(),
            [
                "virtio_net",
                "sch_netem",
                "ib_uverbs",
                "rdma_ucm",
                "rdma_rxe",
                "nvme"
            ]
        );
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_remedy() {
        let refused = |change: fn(&mut Plan), says: &str| {
            let mut plan = plan();
            change(&mut plan);
            let error = plan.validate().expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        };
        plan().validate().expect("nothing is wrong with it");
        refused(|p| p.command = "  ".to_owned(), "no command");
        refused(|p| p.directory = PathBuf::from("/run/user"), "/run");
        refused(|p| p.huge_pages = 500, "--memory-mib 1192");
        refused(|p| p.huge_pages = u32::MAX, "--memory-mib");
        refused(|p| p.loss_percent = Some(1.0), "--peers 2");
        refused(|p| p.modules = vec!["a b".to_owned()], "'a b'");
        refused(|p| p.modules = vec![String::new()], "''");
    }

    #[test]
    fn only_the_first_guest_loses_frames_and_each_has_its_address() {
        let mut plan = plan();
        plan.peers = 2;
        plan.loss_percent = Some(2.5);
        let modules = Path::new("/m");
        let (first, second) = (plan.settings(0, modules), plan.settings(1, modules));
        assert!(first.contains("loss_percent='2.5'\n"), "{first}");
        assert!(!second.contains("loss_percent"), "{second}");
        assert!(first.contains("address='10.77.0.1'\n"), "{first}");
        assert!(second.contains("address='10.77.0.2'\n"), "{second}");
        assert!(second.contains("ffff:0a4d:0002'\n"), "{second}");
        assert!(!second.contains("rdma="), "{second}");
        let told = plan.environment(1, std::iter::empty());
        assert!(told.contains("export IONIAN_VM_PEER='1'\n"), "{told}");
        assert!(
            told.contains("IONIAN_VM_ADDRESS_0='10.77.0.1'") && told.contains("ADDRESS_1='10"),
            "{told}"
        );
    }

    #[test]
    fn of_the_callers_environment_only_what_is_named_is_passed_and_a_shell_reads_it_back() {
        let caller = [
            ("IONIAN_BIN", "it's $HOME"),
            ("SECRET", "no"),
            ("IONIAN_$(x)", "no"),
        ];
        let caller = caller
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .into_iter();
        let text = plan().environment(0, caller);
        assert!(!text.contains("no"), "{text}");
        let script = format!("{text}printf %s \"$IONIAN_BIN\"");
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .expect("sh runs");
        assert_eq!(output.stdout, b"it's $HOME");
    }
}
