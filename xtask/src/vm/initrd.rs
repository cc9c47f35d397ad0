//! The first stage of a boot: busybox, the modules on the way to the host's root, and the script that goes there.
//!
//! The archive is written here, in the format that the kernel reads, uncompressed. *Source*: the kernel's documentation, "initramfs buffer
//! format"; the header is that of cpio's `newc`.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::image;
use super::kernel::Kernel;

/// What the guest needs before it has a root.
const MODULES: &[&str] = &["virtio_pci", "9pnet_virtio", "9p", "overlay"];

/// Where a statically linked busybox is.
pub(crate) const BUSYBOX: &str = "/bin/busybox";

const INIT: &str = include_str!("guest/init.sh");

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const PLAIN: u32 = 0o100_644;

/// Writes the archive for `kernel` to `to`.
///
/// # Errors
/// When a part is missing or cannot be read, or the archive cannot be written.
pub(crate) fn write(kernel: &Kernel, to: &Path) -> Result<()> {
    let mut archive = Archive::default();
    for directory in [
        "bin", "dev", "lower", "modules", "new", "proc", "sys", "upper",
    ] {
        archive.add(directory, DIRECTORY, &[])?;
    }
    let busybox = std::fs::read(BUSYBOX)
        .with_context(|| format!("reading {BUSYBOX} (Debian package busybox-static)"))?;
    archive.add("bin/busybox", PROGRAM, &busybox)?;
    archive.add("init", PROGRAM, INIT.as_bytes())?;
    let mut order = String::new();
    for file in kernel.modules()?.with_dependencies(MODULES)? {
        let (name, bytes) = module(&kernel.module_root().join(&file))?;
        archive.add(&format!("modules/{name}"), PLAIN, &bytes)?;
        order.push_str(&name);
        order.push('\n');
    }
    archive.add("order", PLAIN, order.as_bytes())?;
    std::fs::write(to, archive.finish()?).with_context(|| format!("writing {}", to.display()))
}

/// Name and content of a module; one that is packed is unpacked, because busybox cannot.
fn module(file: &Path) -> Result<(String, Vec<u8>)> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let name = file
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    match name.strip_suffix(".xz") {
        Some(plain) => Ok((plain.to_owned(), image::decompress(&bytes)?)),
        None => Ok((name, bytes)),
    }
}

/// An archive that grows.
#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        let length = u32::try_from(content.len())
            .with_context(|| format!("{name} is too large for an archive"))?;
        let name_length = u32::try_from(name.len() + 1).context("a long name")?;
        self.entries += 1;
        // Inode, mode, user, group, links, time, length, device (2), special device (2), length of the name, no checksum.
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            length,
            0,
            0,
            0,
            0,
            name_length,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    /// Names and contents begin at multiples of 4.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.add("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }
}

/// Whether a program runs without any library: an ELF file of 64 bits that names no interpreter. *Source*: System V ABI, program header.
pub(crate) fn is_static(program: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = program.get(at..at.checked_add(length)?)?;
        let mut wide = [0; 8];
        wide.get_mut(..length)?.copy_from_slice(bytes);
        usize::try_from(u64::from_le_bytes(wide)).ok()
    };
    if !program.starts_with(b"\x7fELF\x02\x01") {
        return false;
    }
    let (Some(table), Some(size), Some(count)) =
        (number(0x20, 8), number(0x36, 2), number(0x38, 2))
    else {
        return false;
    };
    (0..count).all(|index| {
        let header = size.checked_mul(index).and_then(|o| o.checked_add(table));
        let kind = header.and_then(|at| number(at, 4));
        kind.is_some_and(|kind| u32::try_from(kind) != Ok(INTERPRETER))
    })
}

/// Whether the program at `path` is one that needs no library.
pub(crate) fn is_static_file(path: &str) -> bool {
    std::fs::read(path).is_ok_and(|bytes| is_static(&bytes))
}

/// Looks for what would make the first stage fail in the guest, where it is harder to see.
///
/// # Errors
/// When busybox is not the static one.
pub(crate) fn ready() -> Result<()> {
    if !is_static_file(BUSYBOX) {
        bail!(
            "{BUSYBOX} is not there or needs libraries, which the first stage of a guest does not have: as root, apt-get install busybox-static"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_the_form_that_the_kernel_reads() {
        let mut archive = Archive::default();
        archive.add("bin", DIRECTORY, &[]).expect("small");
        archive.add("a", PLAIN, b"hello").expect("small");
        let bytes = archive.finish().expect("small");
        assert_eq!(bytes.len() % 4, 0);
        // A header has 110 bytes; with "bin\0" that makes 114, and with the padding 116.
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[14..22], b"000041ed");
        assert_eq!(&bytes[110..116], b"bin\0\0\0");
        assert_eq!(&bytes[116..122], b"070701");
        assert_eq!(&bytes[116 + 54..116 + 62], b"00000005");
        assert_eq!(&bytes[116 + 110..116 + 112], b"a\0");
        assert_eq!(&bytes[116 + 112..116 + 117], b"hello");
        assert!(bytes.windows(11).any(|w| w == b"TRAILER!!!\0"));
    }

    #[test]
    fn a_program_with_an_interpreter_is_not_static_and_no_program_is_neither() {
        // This test program is linked dynamically or not, as the toolchain likes; both answers are known from its own bytes.
        let own = std::fs::read(std::env::current_exe().expect("a program")).expect("readable");
        let names_one = own.windows(7).take(64 << 10).any(|w| w == b"/ld-lin");
        assert_eq!(is_static(&own), !names_one);
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(!is_static(&own[..0x30]));
        assert!(!is_static(&own[..0x40]), "the table is cut off");
        assert!(!is_static_file("/no/such/program"));
    }
}
