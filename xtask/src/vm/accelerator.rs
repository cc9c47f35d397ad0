//! Whether the guest's instructions run on this machine's processor (KVM) or are emulated (TCG).
//!
//! That /dev/kvm is there says little: within another virtual machine it may take a small program and stand still in a kernel. So the
//! guest's own kernel is booted once, up to its first program; what came of it is kept until this machine boots again.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::initrd;
use super::kernel::Kernel;
use super::machine;
use super::place::Place;

const DEVICE: &str = "/dev/kvm";

/// A kernel under KVM needs less than a second to its first program, and some on a busy machine. One that takes longer is not faster than
/// an emulated one.
const PROBE_LIMIT: Duration = Duration::from_secs(8);

/// What the first program of the probe says.
const PROBE_ANSWER: &str = "ionian-vm: the kernel runs";

/// How a guest's instructions are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// By the processor.
    Kvm,
    /// Emulated: several times slower, and no measure of anything.
    Tcg,
}

impl Accelerator {
    /// What QEMU is told. Five levels of page tables are left out where they are emulated: a guest of this size has no use for them.
    pub(crate) const fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"],
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// What this machine can do, by the note of an earlier run or by trying.
///
/// # Errors
/// When the probe's files cannot be made. That KVM does not work is an answer.
pub(crate) fn find(
    home: &Path,
    runs: &Path,
    kernel: &Kernel,
    told: &dyn Fn(&str),
) -> Result<Accelerator> {
    if File::options().read(true).write(true).open(DEVICE).is_err() {
        told("no access to /dev/kvm: the guest is emulated");
        return Ok(Accelerator::Tcg);
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let key = format!("{} {}", boot.trim(), kernel.release);
    let note = home.join("accelerator");
    if let Some(known) = read(&std::fs::read_to_string(&note).unwrap_or_default(), &key) {
        return Ok(known);
    }
    let found = if boots(runs, kernel)? {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    };
    told(&format!(
        "/dev/kvm was tried with this kernel: {}",
        found.name()
    ));
    std::fs::write(&note, format!("{key} {}\n", found.name()))
        .with_context(|| format!("writing {}", note.display()))?;
    Ok(found)
}

/// What the note says of this boot and kernel.
fn read(note: &str, key: &str) -> Option<Accelerator> {
    let name = note.trim().strip_prefix(key)?.trim();
    [Accelerator::Kvm, Accelerator::Tcg]
        .into_iter()
        .find(|a| a.name() == name)
}

/// Boots to the first program and no further.
fn boots(runs: &Path, kernel: &Kernel) -> Result<bool> {
    let place = Place::make(runs)?;
    let archive = place.path().join("initrd");
    initrd::write(kernel, &archive)?;
    let console = place.path().join("console");
    let log = File::create(place.path().join("qemu.log"))?;
    let mut command = machine::command();
    command
        .args(Accelerator::Kvm.arguments())
        .args(machine::COMMON)
        .args(["-m", "256", "-smp", "1"])
        .arg("-serial")
        .arg(format!("file:{}", machine::option(&console)))
        .arg("-kernel")
        .arg(kernel.image())
        .arg("-initrd")
        .arg(&archive)
        .args(["-append", "console=ttyS0 quiet panic=-1 ionian_vm_probe"])
        .current_dir(place.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    let mut child = machine::Process::start(&mut command)?;
    let deadline = Instant::now() + PROBE_LIMIT;
    // A channel that nobody sends on is a clock that waits.
    let (_held, tick) = channel::<()>();
    let answered = || {
        let text = std::fs::read(&console).unwrap_or_default();
        String::from_utf8_lossy(&text).contains(PROBE_ANSWER)
    };
    while !answered() && child.ended()?.is_none() && Instant::now() < deadline {
        let _ = tick.recv_timeout(Duration::from_millis(20));
    }
    Ok(answered())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_counts_for_its_boot_and_kernel_only() {
        let note = "boot-1 6.1 kvm\n";
        assert_eq!(read(note, "boot-1 6.1"), Some(Accelerator::Kvm));
        assert_eq!(read(note, "boot-2 6.1"), None);
        assert_eq!(read(note, "boot-1 6.12"), None);
        assert_eq!(read("boot-1 6.1 tcg", "boot-1 6.1"), Some(Accelerator::Tcg));
        assert_eq!(read("boot-1 6.1 other", "boot-1 6.1"), None);
        assert_eq!(read("", "boot-1 6.1"), None);
    }

    #[test]
    fn the_guest_says_what_the_probe_waits_for() {
        assert!(include_str!("guest/init.sh").contains("the kernel runs"));
    }
}
