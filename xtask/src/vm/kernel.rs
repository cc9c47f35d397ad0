//! The kernel of a guest: Debian's newest for this architecture, from its package, which is unpacked and never installed.
//!
//! The version is asked for at every start, because a mirror keeps the package only until there is a newer one. What is unpacked stays in
//! the target directory, under the version's name; without a network, or without package lists, the one that was used last serves on.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use super::image;
use super::modules::Modules;

/// The package that depends on the newest kernel.
const META_PACKAGE: &str = "linux-image-amd64";

const PREFIX: &str = "linux-image-";

/// Where tools of the system are that are not on the path of everyone.
const TOOL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An unpacked kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Its release, which its folder of modules is named after: `6.1.0-50-amd64`.
    pub(crate) release: String,
    folder: PathBuf,
}

/// A version of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Package {
    name: String,
    version: String,
}

impl Kernel {
    /// What QEMU starts: the uncompressed kernel, or the image if it is packed in an unknown way.
    pub(crate) fn image(&self) -> PathBuf {
        let plain = self.folder.join("vmlinux");
        if plain.exists() {
            plain
        } else {
            packed_image(&self.folder, &self.release)
        }
    }

    /// The folder that a guest has as /lib/modules.
    pub(crate) fn module_folder(&self) -> PathBuf {
        self.folder.join("root/lib/modules")
    }

    /// The folder that the names of [`Modules`] are relative to.
    pub(crate) fn module_root(&self) -> PathBuf {
        self.module_folder().join(&self.release)
    }

    /// What it has of modules.
    pub(crate) fn modules(&self) -> Result<Modules> {
        let read = |name: &str| {
            let path = self.module_root().join(name);
            std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        Ok(Modules::parse(
            &self.release,
            &read("modules.dep")?,
            &read("modules.builtin")?,
        ))
    }

    /// The one in a folder, if it was finished.
    fn in_folder(folder: PathBuf) -> Option<Self> {
        let mut releases = std::fs::read_dir(folder.join("root/lib/modules")).ok()?;
        let release = releases.next()?.ok()?.file_name().into_string().ok()?;
        Some(Self { release, folder })
    }
}

fn packed_image(folder: &Path, release: &str) -> PathBuf {
    folder.join(format!("root/boot/vmlinuz-{release}"))
}

/// The kernel that Debian has now, or the one that was used last; below `home`.
///
/// # Errors
/// When there is none and none can be fetched: the sentence says what failed.
pub(crate) fn provide(home: &Path, told: &dyn Fn(&str)) -> Result<Kernel> {
    let kernels = home.join("kernels");
    std::fs::create_dir_all(&kernels).with_context(|| format!("making {}", kernels.display()))?;
    let fetched = newest(told).and_then(|package| {
        let folder = kernels.join(format!("{}_{}", package.name, package.version));
        if let Some(kernel) = Kernel::in_folder(folder.clone()) {
            return Ok(kernel);
        }
        told(&format!("fetching {} {}", package.name, package.version));
        fetch(&package, &kernels, &folder)
    });
    match fetched {
        Ok(kernel) => Ok(kernel),
        Err(error) => {
            let last = last_used(&kernels).with_context(|| {
                format!("there is no kernel for the guest, and none can be fetched: {error:#}")
            })?;
            eprintln!(
                "vm: going on with the kernel {} that is there: {error:#}",
                last.release
            );
            Ok(last)
        }
    }
}

/// The kernel that Debian's package lists name; as root they are fetched when there are none.
fn newest(told: &dyn Fn(&str)) -> Result<Package> {
    let ask = || {
        let mut command = tool("apt-cache");
        command.args(["show", "--no-all-versions", META_PACKAGE]);
        output(command).map(|text| dependency(&text))
    };
    if let Ok(Some(package)) = ask() {
        return Ok(package);
    }
    told("fetching apt's package lists");
    let mut update = tool("apt-get");
    update.args(["-qq", "update"]);
    output(update).context(
        "apt knows no linux-image-amd64, and its lists cannot be fetched (as root: apt-get update)",
    )?;
    ask()?.with_context(|| {
        format!("apt's lists name no kernel ({META_PACKAGE}): the guest needs Debian's, so run this on Debian for amd64")
    })
}

/// The kernel that the meta package's description depends on.
fn dependency(description: &str) -> Option<Package> {
    let depends = description
        .lines()
        .find_map(|line| line.strip_prefix("Depends:"))?;
    depends.split(',').find_map(|part| {
        let (name, rest) = part.trim().split_once(" (= ")?;
        let version = rest.strip_suffix(')')?;
        let sane = |text: &str, more: &[u8]| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
        };
        (name.starts_with(PREFIX) && sane(name, b"-.+") && sane(version, b"-.+~:")).then(|| {
            Package {
                name: name.to_owned(),
                version: version.to_owned(),
            }
        })
    })
}

/// Downloads and unpacks into a folder beside, which is renamed once everything is in it: what is there under its name is whole.
fn fetch(package: &Package, kernels: &Path, folder: &Path) -> Result<Kernel> {
    let partial = kernels.join(format!("partial-{}", std::process::id()));
    let made = unpack(package, &partial);
    let moved = made.and_then(|()| match std::fs::rename(&partial, folder) {
        Ok(()) => Ok(()),
        // Somebody else was faster, with the same.
        Err(_) if Kernel::in_folder(folder.to_owned()).is_some() => Ok(()),
        Err(error) => Err(error).with_context(|| format!("making {}", folder.display())),
    });
    if partial.exists()
        && let Err(error) = std::fs::remove_dir_all(&partial)
    {
        eprintln!("vm: {} stays: {error}", partial.display());
    }
    moved?;
    Kernel::in_folder(folder.to_owned())
        .with_context(|| format!("{} {} has no modules", package.name, package.version))
}

fn unpack(package: &Package, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let mut download = tool("apt-get");
    download.args(["-qq", "-o", "APT::Sandbox::User=root", "download"]);
    download
        .arg(format!("{}={}", package.name, package.version))
        .current_dir(folder);
    output(download)?;
    let archive = std::fs::read_dir(folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "deb"))
        .with_context(|| format!("apt-get download {} left no package", package.name))?;
    let mut extract = tool("dpkg-deb");
    extract.arg("-x").arg(&archive).arg(folder.join("root"));
    output(extract)?;
    std::fs::remove_file(&archive)?;
    let kernel = Kernel::in_folder(folder.to_owned())
        .with_context(|| format!("{} holds no modules", package.name))?;
    let mut index = tool("depmod");
    index
        .arg("-b")
        .arg(folder.join("root"))
        .arg(&kernel.release);
    output(index)?;
    let packed = packed_image(folder, &kernel.release);
    image::unpack(&packed, &folder.join("vmlinux"))?;
    Ok(())
}

/// The kernel whose folder is the newest.
fn last_used(kernels: &Path) -> Option<Kernel> {
    let entries = std::fs::read_dir(kernels).ok()?.filter_map(Result::ok);
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
        .max_by_key(|entry| {
            let written = entry.metadata().and_then(|m| m.modified());
            written.unwrap_or(SystemTime::UNIX_EPOCH)
        })
        .and_then(|entry| Kernel::in_folder(entry.path()))
}

/// A tool of the system, wherever the caller's path leads.
fn tool(program: &str) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .env("PATH", format!("{path}:{TOOL_PATH}"))
        .env("LC_ALL", "C")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null());
    command
}

/// What a command prints; if it fails, its last word is the error.
fn output(mut command: Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rfind(|l| !l.trim().is_empty());
        let name = command.get_program().to_string_lossy().into_owned();
        let first = command.get_args().map(|a| a.to_string_lossy().into_owned());
        bail!(
            "{name} {} failed ({}): {}",
            first.collect::<Vec<_>>().join(" "),
            output.status,
            last.unwrap_or("it said nothing")
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_the_one_that_the_meta_package_depends_on() {
        let text = "Package: linux-image-amd64\nVersion: 6.1.192-2\n\
            Depends: something, linux-image-6.1.0-56-amd64 (= 6.1.192-2), other (>= 1)\nSize: 1\n";
        assert_eq!(
            dependency(text),
            Some(Package {
                name: "linux-image-6.1.0-56-amd64".to_owned(),
                version: "6.1.192-2".to_owned()
            })
        );
    }

    #[test]
    fn a_description_without_a_kernel_or_with_an_odd_name_names_none() {
        for text in [
            "",
            "Package: linux-image-amd64\n",
            "Depends: libc6 (= 2.36)\n",
            "Depends: linux-image-6.1 (>= 6.1)\n",
            "Depends: linux-image-../../x (= 1)\n",
            "Depends: linux-image-6.1 (= )\n",
            "Depends: linux-image-6.1 (= 1/2)\n",
        ] {
            assert_eq!(dependency(text), None, "{text}");
        }
    }

    #[test]
    fn a_tool_that_fails_is_named_with_its_last_word() {
        let mut command = tool("sh");
        command.args(["-c", "echo first >&2; echo last >&2; exit 9"]);
        let error = output(command).expect_err("it fails").to_string();
        assert!(
            error.contains("sh -c") && error.ends_with(": last"),
            "{error}"
        );
        let mut fine = tool("sh");
        fine.args(["-c", "echo out"]);
        assert_eq!(output(fine).expect("it does not fail"), "out\n");
    }

    #[test]
    fn the_newest_finished_kernel_serves_on() {
        let home = tempdir();
        let release = home.join("linux-image-6.1_1/root/lib/modules/6.1");
        std::fs::create_dir_all(&release).expect("made");
        std::fs::create_dir_all(home.join("partial-1/root/lib/modules/6.2")).expect("made");
        let kernel = last_used(&home).expect("there is one");
        assert_eq!(kernel.release, "6.1");
        assert_eq!(kernel.module_root(), release);
        assert!(kernel.image().ends_with("root/boot/vmlinuz-6.1"));
        std::fs::remove_dir_all(&home).expect("removed");
        assert!(last_used(&home).is_none());
    }

    /// A folder beside the test program, which is inside the target directory.
    fn tempdir() -> PathBuf {
        let program = std::env::current_exe().expect("a running test has a program");
        let path = program.with_file_name(format!("xtask-kernels-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("made");
        path
    }
}
