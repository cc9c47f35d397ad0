//! QEMU: what it is told, and that it does not outlive this program.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result};

use super::Kit;
use super::plan::Plan;

/// The emulator.
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";

/// No window, no devices but those asked for, no configuration of the user's, and a reset is an end.
pub(crate) const COMMON: &[&str] = &[
    "-machine",
    "q35",
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-monitor",
    "none",
    "-no-reboot",
];

/// What the kernel is told: to be quiet and quick, and to end at a panic. Its checks of processor bugs and its audit cost time and protect
/// nobody here.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check \
    cryptomgr.notests random.trust_cpu=on audit=0 apparmor=0 selinux=0 nowatchdog rcupdate.rcu_expedited=1";

/// The size of an emulated NVMe device; its file is sparse.
const NVME_BYTES: u64 = 1 << 30;

/// What a guest's network interface leads to.
#[derive(Debug)]
pub(crate) enum Link {
    /// It has none.
    None,
    /// Nothing: a network with one member.
    Alone,
    /// The other guest, by one end of a socket pair.
    Peer(OwnedFd),
}

/// The folders and files of one guest on the host.
#[derive(Debug)]
pub(crate) struct Files<'a> {
    /// What the host tells the guest, and its answers.
    pub(crate) control: &'a Path,
    /// What the command may write to.
    pub(crate) job: &'a Path,
    pub(crate) initrd: &'a Path,
    pub(crate) console: &'a Path,
    /// What QEMU itself says.
    pub(crate) log: &'a Path,
    /// The NVMe device's content, made if it is needed.
    pub(crate) nvme: &'a Path,
}

/// Starts a guest.
///
/// # Errors
/// When a file or QEMU's process cannot be made. That QEMU then ends at once shows as the end of the process.
pub(crate) fn start(
    kit: &Kit,
    plan: &Plan,
    peer: u32,
    files: &Files<'_>,
    link: Link,
) -> Result<Process> {
    let mut command = command();
    command
        .args(kit.accelerator.arguments())
        .args(COMMON)
        .args(["-m", &plan.memory_mib.to_string()])
        .args(["-smp", &plan.cpus.to_string()])
        .arg("-serial")
        .arg(format!("file:{}", option(files.console)))
        .arg("-kernel")
        .arg(kit.kernel.image())
        .arg("-initrd")
        .arg(files.initrd)
        .args(["-append", KERNEL_ARGUMENTS]);
    share(&mut command, "host", Path::new("/"), ",readonly=on");
    share(&mut command, "control", files.control, "");
    share(&mut command, "job", files.job, "");
    if plan.nvme {
        let content =
            File::create(files.nvme).with_context(|| format!("making {}", files.nvme.display()))?;
        content.set_len(NVME_BYTES)?;
        let file = option(files.nvme);
        command
            .arg("-drive")
            .arg(format!(
                "if=none,id=nvme0,file={file},format=raw,cache=unsafe,aio=threads"
            ))
            .args(["-device", "nvme,drive=nvme0,serial=ionian-vm"]);
    }
    let (network, input) = match link {
        Link::None => (None, Stdio::null()),
        Link::Alone => (Some("user,id=n0,restrict=on".to_owned()), Stdio::null()),
        // The end of the pair is the process's standard input, the one descriptor that a child is given without unsafe code.
        Link::Peer(end) => (Some("socket,id=n0,fd=0".to_owned()), Stdio::from(end)),
    };
    if let Some(network) = network {
        let device = format!(
            "virtio-net-pci,netdev=n0,romfile=,mac=52:54:00:77:00:{:02x}",
            peer + 1
        );
        command.args(["-netdev", &network, "-device", &device]);
    }
    let log = File::create(files.log).with_context(|| format!("making {}", files.log.display()))?;
    command
        .current_dir(files.control)
        .stdin(input)
        .stdout(log.try_clone()?)
        .stderr(log);
    Process::start(&mut command)
}

/// QEMU, by way of a tool that lets the kernel end it when the thread that starts it is gone, however this program ends.
pub(crate) fn command() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", PROGRAM]);
    command
}

/// A folder that the guest can mount by the name `tag`.
fn share(command: &mut Command, tag: &str, folder: &Path, more: &str) {
    let path = option(folder);
    command
        .arg("-fsdev")
        .arg(format!(
            "local,id={tag},path={path},security_model=none,multidevs=remap{more}"
        ))
        .arg("-device")
        .arg(format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"));
}

/// A path within an option of QEMU's: a comma ends an option, and two of them are one.
pub(crate) fn option(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// A process that ends with its owner.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts what [`command`] began. The thread that calls this must live as long as the process.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| {
            format!("starting {PROGRAM} by setpriv (Debian package util-linux)")
        })?;
        Ok(Self { child })
    }

    /// Its status, once it has ended.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("looking for QEMU's end")
    }

    /// Its id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is collected.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_a_path_is_doubled() {
        assert_eq!(option(Path::new("/a,b/c")), "/a,,b/c");
    }

    #[test]
    fn a_process_ends_with_its_owner() {
        let mut command = Command::new("sleep");
        command.arg("600");
        let mut process = Process::start(&mut command).expect("sleep starts");
        assert_eq!(process.ended().expect("it can be asked"), None);
        let entry = format!("/proc/{}", process.id());
        assert!(Path::new(&entry).exists());
        drop(process);
        assert!(!Path::new(&entry).exists());
    }
}
