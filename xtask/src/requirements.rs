//! What the tests need beyond a Rust toolchain: how to see whether it is there, and which Debian package brings it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

/// Something that a test needs and that a distribution packages.
#[derive(Debug)]
pub(crate) struct Requirement {
    /// What it is.
    pub(crate) name: &'static str,
    /// The Debian package that brings it.
    pub(crate) package: &'static str,
    /// What runs when it is there.
    pub(crate) enables: &'static str,
    probe: fn() -> bool,
}

/// Everything that can be missing, in the order it is reported. A new row needs a test that prints `SKIP name: reason (install PACKAGE)`
/// when it is absent.
pub(crate) const ALL: &[Requirement] = &[
    CXX,
    PKG_CONFIG,
    HWLOC,
    LIBCLANG,
    IBVERBS,
    DPDK,
    IP,
    NFT,
    MKFS,
    QEMU,
    BUSYBOX,
    KMOD,
    XZ,
    RXE_PROVIDER,
    VERBS_TOOLS,
    PERFTEST,
];

/// Builds libFuzzer, which is C++.
pub(crate) const CXX: Requirement = Requirement {
    name: "a C++ compiler",
    package: "g++",
    enables: "the fuzz targets (libFuzzer is C++)",
    probe: || answers("c++", "--version"),
};

/// Finds C libraries.
pub(crate) const PKG_CONFIG: Requirement = Requirement {
    name: "pkg-config",
    package: "pkg-config",
    enables: "features that link a C library",
    probe: || answers("pkg-config", "--version"),
};

/// The library behind the feature `hwloc`.
pub(crate) const HWLOC: Requirement = Requirement {
    name: "libhwloc",
    package: "libhwloc-dev",
    enables: "the feature `hwloc`: the same topology as the reader of /sys",
    probe: || {
        Command::new("pkg-config")
            .args(["--exists", "hwloc >= 2.0.0"])
            .status()
            .is_ok_and(|s| s.success())
    },
};

/// Reads the headers of C libraries for the bindings.
pub(crate) const LIBCLANG: Requirement = Requirement {
    name: "libclang",
    package: "libclang-dev",
    enables: "features that bind a C library by its headers",
    probe: || has_library(Path::new("/usr/lib"), "libclang"),
};

/// The library behind the feature `rdma`.
pub(crate) const IBVERBS: Requirement = Requirement {
    name: "libibverbs",
    package: "libibverbs-dev",
    enables: "the feature `rdma`: RDMA devices by the verbs",
    probe: || {
        Command::new("pkg-config")
            .args(["--exists", "libibverbs >= 1.11"])
            .status()
            .is_ok_and(|s| s.success())
    },
};

/// The library behind the feature `dpdk`, with its drivers.
pub(crate) const DPDK: Requirement = Requirement {
    name: "libdpdk 22.11",
    package: "libdpdk-dev",
    enables: "the feature `dpdk`: user-space network drivers, tried on virtual devices",
    probe: || {
        Command::new("pkg-config")
            .args(["--exists", "libdpdk >= 22.11"])
            .status()
            .is_ok_and(|s| s.success())
    },
};

/// Makes network namespaces.
pub(crate) const IP: Requirement = Requirement {
    name: "ip",
    package: "iproute2",
    enables: "chaos, TAP devices and packet sockets in network namespaces",
    probe: || answers("ip", "-V"),
};

/// Drops what passes between two nodes.
pub(crate) const NFT: Requirement = Requirement {
    name: "nft",
    package: "nftables",
    enables: "partitions and random loss",
    probe: || answers("nft", "--version"),
};

/// Makes a small file system.
pub(crate) const MKFS: Requirement = Requirement {
    name: "mkfs.ext4",
    package: "e2fsprogs",
    enables: "a disk that is full",
    probe: || answers("mkfs.ext4", "-V"),
};

/// Runs guests.
pub(crate) const QEMU: Requirement = Requirement {
    name: "QEMU for x86-64",
    package: "qemu-system-x86",
    enables: "guests with a Debian kernel (cargo xtask vm)",
    probe: || answers("qemu-system-x86_64", "--version"),
};

/// The programs of a guest before it has a root.
pub(crate) const BUSYBOX: Requirement = Requirement {
    name: "a static busybox",
    package: "busybox-static",
    enables: "the first stage of a guest's boot",
    probe: crate::vm::has_static_busybox,
};

/// Indexes kernel modules on the host, and loads them in a guest.
pub(crate) const KMOD: Requirement = Requirement {
    name: "depmod",
    package: "kmod",
    enables: "the kernel modules of a guest",
    probe: || {
        ["/usr/sbin/depmod", "/sbin/depmod"]
            .iter()
            .any(|p| Path::new(p).exists())
    },
};

/// Unpacks the kernel of a guest.
pub(crate) const XZ: Requirement = Requirement {
    name: "xz",
    package: "xz-utils",
    enables: "the kernel of a guest",
    probe: || answers("xz", "--version"),
};

/// What libibverbs needs to know of soft-RoCE devices.
pub(crate) const RXE_PROVIDER: Requirement = Requirement {
    name: "the libibverbs provider of soft-RoCE",
    package: "ibverbs-providers",
    enables: "RDMA in a guest",
    probe: || Path::new("/etc/libibverbs.d/rxe.driver").exists(),
};

/// Looks at RDMA devices.
pub(crate) const VERBS_TOOLS: Requirement = Requirement {
    name: "ibv_devinfo",
    package: "ibverbs-utils",
    enables: "looking at RDMA devices in a guest",
    probe: || found("ibv_devinfo"),
};

/// The raw tools that RDMA is compared with.
pub(crate) const PERFTEST: Requirement = Requirement {
    name: "ib_send_lat",
    package: "perftest",
    enables: "sending through soft-RoCE in a guest",
    probe: || found("ib_send_lat"),
};

impl Requirement {
    /// Looks whether it is there now.
    pub(crate) fn present(&self) -> bool {
        (self.probe)()
    }

    /// The reason of a skip, in the form from which the package can be read back.
    pub(crate) fn reason(&self) -> String {
        format!("{} is missing (install {})", self.name, self.package)
    }
}

/// Who runs this, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    pub(crate) root: bool,
    pub(crate) debian: bool,
}

impl Host {
    pub(crate) fn probe() -> Self {
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let apt = Path::new("/usr/bin/apt-get").exists();
        Self {
            root: std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0),
            debian: apt && is_debian(&release),
        }
    }

    /// It can install packages without asking anyone.
    pub(crate) fn installs(self) -> bool {
        self.root && self.debian
    }
}

/// Installs what is missing where that is possible and wanted, otherwise prints the command that would.
///
/// # Errors
/// When apt-get cannot be started. That it fails is not an error here: what is still missing shows as a skip, and under root a skip of
/// something that could have been installed fails the run.
pub(crate) fn provide(host: Host, install: bool) -> Result<()> {
    let missing: Vec<&Requirement> = ALL.iter().filter(|r| !r.present()).collect();
    if missing.is_empty() {
        println!("nothing is missing");
        return Ok(());
    }
    for requirement in &missing {
        println!(
            "missing: {} (Debian package {}), needed for {}",
            requirement.name, requirement.package, requirement.enables
        );
    }
    if !(install && host.installs()) {
        let packages: Vec<&str> = missing.iter().map(|r| r.package).collect();
        println!(
            "to install it on Debian, as root: {}",
            command_line(&packages)
        );
        return Ok(());
    }
    self::install(missing.into_iter(), |line| println!("{line}"))
}

/// The command that installs packages.
pub(crate) fn command_line(packages: &[&str]) -> String {
    format!(
        "apt-get update && apt-get install -y --no-install-recommends {}",
        packages.join(" ")
    )
}

/// Installs what is missing. What apt-get prints goes to standard error, so that commands whose output counts can call this.
///
/// # Errors
/// When apt-get cannot be started. That it fails is not an error: what is still missing shows.
pub(crate) fn install<'a>(
    missing: impl Iterator<Item = &'a Requirement>,
    tell: impl Fn(&str),
) -> Result<()> {
    let packages: Vec<&str> = missing.map(|r| r.package).collect();
    tell(&format!("installing: {}", command_line(&packages)));
    if !apt(&["update"])? {
        tell("apt-get update failed; going on with the package lists that are there");
    }
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    if !apt(&arguments)? {
        tell("apt-get install failed; going on with what is there");
    }
    Ok(())
}

fn apt(arguments: &[&str]) -> Result<bool> {
    let mut command = Command::new("apt-get");
    // Another apt-get at work is waited for.
    command
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(std::io::stderr());
    Ok(command.status()?.success())
}

/// Whether a program is on the path. Some have no flag that does nothing.
fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn answers(program: &str, argument: &str) -> bool {
    let mut command = Command::new(program);
    command
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|s| s.success())
}

/// Whether a shared library, or a link to one, is where distributions put LLVM's: `/usr/lib/llvm-N/lib`, or the folder of the
/// architecture.
fn has_library(root: &Path, name: &str) -> bool {
    let holds = |folder: &Path| {
        std::fs::read_dir(folder).is_ok_and(|entries| {
            entries.flatten().any(|entry| {
                let file = entry.file_name().to_string_lossy().into_owned();
                let rest = file.strip_prefix(name);
                rest.is_some_and(|rest| {
                    rest.starts_with(".so") || rest.starts_with('-') && rest.contains(".so")
                })
            })
        })
    };
    let folders = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    folders
        .flat_map(|folder| [folder.join("lib"), folder])
        .any(|folder| holds(&folder))
}

fn is_debian(os_release: &str) -> bool {
    os_release.lines().any(|line| {
        let value = line
            .strip_prefix("ID=")
            .or_else(|| line.strip_prefix("ID_LIKE="));
        value.is_some_and(|names| {
            names
                .trim_matches('"')
                .split(' ')
                .any(|name| name == "debian")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::Skip;

    #[test]
    fn debian_and_what_derives_from_it_are_recognised() {
        assert!(is_debian("PRETTY_NAME=\"Debian\"\nID=debian\n"));
        assert!(is_debian("ID=ubuntu\nID_LIKE=debian\n"));
        assert!(is_debian("ID=mint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian("ID=fedora\nVERSION_ID=debian\n"));
    }

    #[test]
    fn the_reason_of_a_skip_names_the_package() {
        for requirement in ALL {
            let skip = Skip {
                name: "x".to_owned(),
                reason: requirement.reason(),
            };
            assert_eq!(skip.installable(), Some(requirement.package));
        }
    }

    #[test]
    fn a_program_that_is_not_there_does_not_answer() {
        assert!(!answers("no-such-program-here", "--version"));
    }

    #[test]
    fn a_library_is_found_where_distributions_put_it() {
        let root = std::env::temp_dir().join(format!("xtask-library-{}", std::process::id()));
        let folder = root.join("llvm-99/lib");
        std::fs::create_dir_all(&folder).expect("made");
        std::fs::write(folder.join("libclang-cpp.a"), "").expect("written");
        assert!(!has_library(&root, "libclang"));
        std::fs::write(folder.join("libclang-99.so.1"), "").expect("written");
        assert!(has_library(&root, "libclang"));
        std::fs::remove_dir_all(&root).expect("removed");
        assert!(!has_library(&root, "libclang"));
    }

    #[test]
    fn only_root_on_debian_installs() {
        for (root, debian) in [(false, true), (true, false), (false, false)] {
            assert!(!Host { root, debian }.installs());
        }
        assert!(
            Host {
                root: true,
                debian: true
            }
            .installs()
        );
    }
}
