//! What `cargo xtask vm` needs of the host, and how it gets there.

use crate::requirements::{self, Host, Requirement};

/// What every guest needs.
const ALWAYS: &[Requirement] = &[
    requirements::QEMU,
    requirements::BUSYBOX,
    requirements::KMOD,
    requirements::XZ,
    requirements::IP,
];

/// What soft-RoCE needs besides.
const RDMA: &[Requirement] = &[
    requirements::RXE_PROVIDER,
    requirements::VERBS_TOOLS,
    requirements::PERFTEST,
];

/// Sees to it that everything is there; installs what is missing as root on Debian, if `install` says so.
///
/// # Errors
/// One sentence that says what is missing and how to get it.
pub(crate) fn provide(rdma: bool, install: bool) -> Result<(), String> {
    let host = Host::probe();
    possible(std::env::consts::ARCH, host.debian)?;
    let wanted = || ALWAYS.iter().chain(RDMA.iter().filter(|_| rdma));
    if wanted().any(|r| !r.present()) && install && host.installs() {
        requirements::install(wanted().filter(|r| !r.present()), |line| {
            eprintln!("vm: {line}");
        })
        .map_err(|error| format!("apt-get could not be started: {error}"))?;
    }
    complaint(&wanted().filter(|r| !r.present()).collect::<Vec<_>>()).map_or(Ok(()), Err)
}

/// The guest is an x86-64 one, and its kernel comes from Debian's packages.
fn possible(architecture: &str, debian: bool) -> Result<(), String> {
    if architecture != "x86_64" {
        return Err(format!(
            "the guest is an x86-64 machine that runs this host's programs, and these are for {architecture}"
        ));
    }
    if !debian {
        return Err(
            "its kernel comes from Debian's packages, and this host has no apt-get of Debian's: run it on Debian"
                .to_owned(),
        );
    }
    Ok(())
}

/// Ends in a form from which the gate can read a package back.
fn complaint(missing: &[&Requirement]) -> Option<String> {
    let (last, others) = missing.split_last()?;
    let mut text = String::new();
    for other in others {
        text.push_str(&format!("{}, ", other.reason()));
    }
    if !others.is_empty() {
        let packages: Vec<&str> = missing.iter().map(|r| r.package).collect();
        text = format!("as root: {}; {text}", requirements::command_line(&packages));
    }
    Some(format!("{text}{}", last.reason()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::Skip;

    #[test]
    fn a_host_that_cannot_is_told_why() {
        assert_eq!(possible("x86_64", true), Ok(()));
        assert!(possible("aarch64", true).is_err_and(|e| e.contains("aarch64")));
        assert!(possible("x86_64", false).is_err_and(|e| e.contains("Debian")));
    }

    #[test]
    fn what_is_missing_is_named_with_the_command_and_read_back_as_a_skip() {
        assert_eq!(complaint(&[]), None);
        let one = complaint(&[&requirements::XZ]).expect("one is missing");
        let two = complaint(&[&requirements::XZ, &requirements::QEMU]).expect("two are missing");
        assert!(
            two.contains("apt-get install -y --no-install-recommends xz-utils qemu-system-x86"),
            "{two}"
        );
        for (reason, package) in [(one, "xz-utils"), (two, "qemu-system-x86")] {
            let skip = Skip::parse(&format!("SKIP vm: {reason}")).expect("a skip");
            assert_eq!(skip.installable(), Some(package));
        }
    }
}
