//! Reading below a root directory: bounded, and never waiting. What cannot be read is absent, whatever the reason.
//!
//! The files are those of /proc, /sys, /dev and a few more, of this machine or of a tree that a test made. Nothing about
//! them is trusted: a file may be huge, a pipe, no text, or gone between two looks.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use flate2::read::GzDecoder;

/// The most bytes that are read of one file, and that one compressed file becomes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The most entries of one directory.
const ENTRIES_MAX: usize = 1 << 16;
/// The most characters of a value that is shown.
const WORD_CHARS_MAX: usize = 120;

/// A directory in the place of `/`.
#[derive(Debug)]
pub(super) struct Root {
    dir: PathBuf,
}

impl Root {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// Whether it is this machine's own.
    pub(super) fn is_live(&self) -> bool {
        self.dir == Path::new("/")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    pub(super) fn is_dir(&self, path: &str) -> bool {
        self.at(path).is_dir()
    }

    /// The bytes of a plain file, cut off where it is too long.
    fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let path = self.at(path);
        // A pipe or a device might wait for somebody: only plain files are opened.
        if !fs::metadata(&path).ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        let file = File::open(path).ok()?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// A plain file as text; what is no UTF-8 becomes replacement characters.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let bytes = self.bytes(path)?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A compressed file as text, as much of it as is sound.
    pub(super) fn gunzipped(&self, path: &str) -> Option<String> {
        let compressed = self.bytes(path)?;
        let mut bytes = Vec::new();
        let mut decoder = GzDecoder::new(&compressed[..]).take(FILE_BYTES_MAX);
        // What came before the damage is there all the same.
        let _ = decoder.read_to_end(&mut bytes);
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The first line of a file, fit to be shown; `None` where there is nothing in it.
    pub(super) fn word(&self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        let word = shown(text.lines().next()?);
        (!word.is_empty()).then_some(word)
    }

    /// A file that holds one number.
    pub(super) fn number<T: FromStr>(&self, path: &str) -> Option<T> {
        self.text(path)?.trim().parse().ok()
    }

    /// A file that holds one number in hexadecimal digits, with or without `0x`.
    pub(super) fn hex(&self, path: &str) -> Option<u64> {
        let text = self.text(path)?;
        let digits = text.trim();
        u64::from_str_radix(digits.strip_prefix("0x").unwrap_or(digits), 16).ok()
    }

    /// The names within a directory, sorted; those that are not [plain](is_plain) are left out.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.at(path)) else {
            return Vec::new();
        };
        let names = entries.flatten().take(ENTRIES_MAX);
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| is_plain(name)).collect();
        names.sort_by_key(|name| natural(name));
        names
    }

    /// The last name of where a link leads, such as a driver's.
    pub(super) fn link_name(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.at(path)).ok()?;
        Some(shown(target.file_name()?.to_str()?))
    }

    /// The PCI device that a link of /sys leads to or through, such as `0000:3b:00.0`: the one nearest to its end.
    pub(super) fn pci_address(&self, path: &str) -> Option<String> {
        let real = fs::canonicalize(self.at(path)).ok()?;
        let parts = real.components().rev();
        let mut names = parts.filter_map(|part| part.as_os_str().to_str());
        names.find(|name| is_pci_address(name)).map(str::to_owned)
    }
}

/// Text without what a terminal would obey, and not longer than a line of a table bears.
pub(super) fn shown(text: &str) -> String {
    let text = text.trim();
    let clean = |c: char| if c.is_control() { '?' } else { c };
    text.chars().take(WORD_CHARS_MAX).map(clean).collect()
}

/// Whether a name may stand in a command that somebody pastes into a shell.
pub(super) fn is_plain(name: &str) -> bool {
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | ':' | '@');
    !name.is_empty() && name.len() <= WORD_CHARS_MAX && name.chars().all(plain)
}

/// Sorts `eth10` after `eth9`.
fn natural(name: &str) -> (String, u64, String) {
    let digits = name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (stem, number) = name.split_at(digits);
    let number = number.parse().unwrap_or(0);
    (stem.to_owned(), number, name.to_owned())
}

/// Whether it looks like domain:bus:device.function.
pub(super) fn is_pci_address(name: &str) -> bool {
    let hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let parts: Vec<&str> = name.split([':', '.']).collect();
    match parts[..] {
        [domain, bus, device, function] => {
            hex(domain, 4) && hex(bus, 2) && hex(device, 2) && hex(function, 1)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_that_people_count_in() {
        let mut names = vec!["eth10", "lo", "eth9", "eth", "node0"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["eth", "eth9", "eth10", "lo", "node0"]);
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_shown() {
        assert_eq!(shown(" a\u{1b}[31mb\r\n"), "a?[31mb");
        assert_eq!(shown(&"x".repeat(1000)).len(), WORD_CHARS_MAX);
    }

    #[test]
    fn nothing_that_a_shell_obeys_is_a_name() {
        assert!(is_plain("enp129s0f0np0") && is_plain("eth0.100") && is_plain("libstdc++.so.6"));
        for odd in ["", "a b", "a;b", "$(b)", "a\u{1b}", "a/b", "é"] {
            assert!(!is_plain(odd), "{odd}");
        }
    }

    #[test]
    fn a_pci_address_has_four_parts() {
        assert!(is_pci_address("0000:3b:00.0"));
        for wrong in [
            "0000:3b:00",
            "3b:00.0",
            "virtio1",
            "0000:3b:00.10",
            "zzzz:3b:00.0",
        ] {
            assert!(!is_pci_address(wrong), "{wrong}");
        }
    }
}
