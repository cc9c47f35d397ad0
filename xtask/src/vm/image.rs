//! Takes the kernel out of the compressed image that Debian ships, so that QEMU can start it at once.
//!
//! A bzImage decompresses itself in the guest, which costs seconds where every instruction is emulated. QEMU starts an uncompressed kernel
//! by the PVH entry point that its ELF notes name. *Source*: the kernel's documentation, "The Linux/x86 Boot Protocol".

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};

/// The sectors of 512 bytes of the real-mode part, without the first one.
const SETUP_SECTORS_AT: usize = 0x1f1;
const MAGIC_AT: usize = 0x202;
const MAGIC: &[u8] = b"HdrS";
const VERSION_AT: usize = 0x206;
/// Where the protocol began to say where the payload is: 2.08.
const VERSION_MIN: u16 = 0x0208;
const PAYLOAD_OFFSET_AT: usize = 0x248;
const PAYLOAD_LENGTH_AT: usize = 0x24c;

const XZ_MAGIC: &[u8] = b"\xfd7zXZ\0";
const ELF_MAGIC: &[u8] = b"\x7fELF";

/// More than any kernel has, in bytes.
const KERNEL_BYTES_MAX: usize = 512 << 20;

/// The compressed kernel within a bzImage; `None` if it is no bzImage.
fn payload(image: &[u8]) -> Option<&[u8]> {
    if image.get(MAGIC_AT..MAGIC_AT + MAGIC.len())? != MAGIC {
        return None;
    }
    let version = image.get(VERSION_AT..VERSION_AT + 2)?;
    if u16::from_le_bytes(version.try_into().ok()?) < VERSION_MIN {
        return None;
    }
    // The protocol says that 0 means 4.
    let sectors = match *image.get(SETUP_SECTORS_AT)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let begin = (sectors + 1)
        .checked_mul(512)?
        .checked_add(number(image, PAYLOAD_OFFSET_AT)?)?;
    image.get(begin..begin.checked_add(number(image, PAYLOAD_LENGTH_AT)?)?)
}

fn number(image: &[u8], at: usize) -> Option<usize> {
    let bytes = image.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

/// Writes the uncompressed kernel of the bzImage `from` to `to`; answers false if it is packed in another way than by xz, and then there is
/// nothing: QEMU starts the bzImage itself, later.
///
/// # Errors
/// When a file cannot be read or written, or what comes out is no kernel.
pub(crate) fn unpack(from: &Path, to: &Path) -> Result<bool> {
    let image = std::fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    let Some(packed) = payload(&image).filter(|p| p.starts_with(XZ_MAGIC)) else {
        return Ok(false);
    };
    let kernel = decompress(packed)?;
    if !kernel.starts_with(ELF_MAGIC) {
        bail!("what {} holds is no kernel in ELF", from.display());
    }
    std::fs::write(to, kernel).with_context(|| format!("writing {}", to.display()))?;
    Ok(true)
}

/// What `xz` makes of the first stream; the kernel's own length stands behind it.
pub(crate) fn decompress(packed: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("xz")
        .args(["-dc", "--single-stream"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting xz (Debian package xz-utils)")?;
    let mut input = child.stdin.take().context("xz has an input")?;
    let packed = packed.to_vec();
    // It may stop reading where the stream ends, before the last bytes: that it took them says nothing, what it made of them does.
    let feeder = thread::spawn(move || drop(input.write_all(&packed)));
    let output = child.wait_with_output().context("waiting for xz")?;
    drop(feeder.join());
    if !output.status.success() {
        bail!(
            "xz failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    if output.stdout.len() > KERNEL_BYTES_MAX {
        bail!(
            "xz made {} bytes, more than any kernel has",
            output.stdout.len()
        );
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bzImage with one sector before the protected-mode part.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024 + 16];
        image[SETUP_SECTORS_AT] = 1;
        image[MAGIC_AT..MAGIC_AT + 4].copy_from_slice(MAGIC);
        image[VERSION_AT..VERSION_AT + 2].copy_from_slice(&0x020f_u16.to_le_bytes());
        image[PAYLOAD_OFFSET_AT..PAYLOAD_OFFSET_AT + 4].copy_from_slice(&16_u32.to_le_bytes());
        let length = u32::try_from(payload.len()).expect("small");
        image[PAYLOAD_LENGTH_AT..PAYLOAD_LENGTH_AT + 4].copy_from_slice(&length.to_le_bytes());
        image.extend_from_slice(payload);
        image
    }

    #[test]
    fn the_payload_is_where_the_header_says() {
        assert_eq!(payload(&image(b"kernel")), Some(&b"kernel"[..]));
    }

    #[test]
    fn what_is_no_image_or_cut_short_has_no_payload() {
        let whole = image(b"kernel");
        for length in 0..whole.len() {
            assert_eq!(payload(&whole[..length]), None, "{length}");
        }
        let mut other = whole.clone();
        other[MAGIC_AT] = b'X';
        assert_eq!(payload(&other), None);
        let mut old = whole.clone();
        old[VERSION_AT] = 7;
        old[VERSION_AT + 1] = 2;
        assert_eq!(payload(&old), None);
        let mut long = whole;
        long[PAYLOAD_OFFSET_AT..PAYLOAD_OFFSET_AT + 4].fill(0xff);
        assert_eq!(payload(&long), None);
    }
}
