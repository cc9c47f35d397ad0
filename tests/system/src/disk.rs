//! What happens to a node's storage: a small file system that can be full, and bits that flip in the files of records.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::tool::{self, run};

/// What the name of every mount point begins with.
const PREFIX: &str = "ionian-disk-";
/// Written at a time while filling up.
const BLOCK_BYTES: usize = 1 << 20;

/// A small file system; dropping it unmounts it.
#[derive(Debug)]
pub struct SmallDisk {
    mount: PathBuf,
    kind: DiskKind,
    filler: Option<PathBuf>,
}

/// What a small disk is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskKind {
    /// ext4 in a file, over a loop device.
    Ext4,
    /// Memory: a flush means nothing there.
    Tmpfs,
}

impl std::fmt::Display for DiskKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ext4 => "ext4 on a loop device",
            Self::Tmpfs => "tmpfs, as loop devices are refused",
        })
    }
}

impl SmallDisk {
    /// Why this process cannot have one on a device; `None` when it can, unless the kernel refuses.
    #[must_use]
    pub fn missing() -> Option<String> {
        if !tool::is_root() {
            return Some("needs root to mount a file system".to_owned());
        }
        (!tool::answers("mkfs.ext4")).then(|| "mkfs.ext4 is missing (install e2fsprogs)".to_owned())
    }

    /// Makes one of so many MiB inside `dir`, number `number` of this process. Unmounts before what processes that are gone
    /// have left.
    ///
    /// # Errors
    /// When nothing can be mounted; nothing is left then.
    pub fn make(dir: &Path, number: u32, mib: u64) -> Result<Self> {
        if !tool::is_root() {
            bail!("needs root to mount a file system");
        }
        Self::sweep();
        let mount = dir.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&mount).with_context(|| format!("making {}", mount.display()))?;
        let at = mount.display().to_string();
        let kind = match Self::loop_mounted(dir, &at, number, mib) {
            Ok(()) => DiskKind::Ext4,
            Err(refused) => {
                let size = format!("size={mib}m");
                run("mount", &["-t", "tmpfs", "-o", &size, "none", &at])
                    .with_context(|| format!("without loop devices ({refused:#})"))?;
                DiskKind::Tmpfs
            }
        };
        Ok(Self {
            mount,
            kind,
            filler: None,
        })
    }

    fn loop_mounted(dir: &Path, at: &str, number: u32, mib: u64) -> Result<()> {
        let image = dir.join(format!("disk-{number}.img"));
        File::create(&image)?.set_len(mib << 20)?;
        let image = image.display().to_string();
        // No reserved blocks: full is full, for root too.
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &image])?;
        run("mount", &["-o", "loop", &image, at])
    }

    /// Unmounts what processes that are gone have left.
    fn sweep() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for mount in mounts.lines().filter_map(|line| line.split(' ').nth(4)) {
            let name = mount.rsplit('/').next().unwrap_or_default();
            if tool::owner_is_gone(name, PREFIX) {
                // Somebody else may have been quicker.
                let _ = run("umount", &[mount]);
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// What it is made of.
    #[must_use]
    pub const fn kind(&self) -> DiskKind {
        self.kind
    }

    /// Takes all the space that is left; returns how many bytes that was.
    ///
    /// # Errors
    /// The system's, other than that the disk is full.
    pub fn fill(&mut self) -> Result<u64> {
        let path = self.mount.join("filler");
        let mut file = File::options().create(true).append(true).open(&path)?;
        self.filler = Some(path);
        let (mut block, mut written) = (vec![0x5a; BLOCK_BYTES], 0);
        loop {
            match file.write(&block) {
                Ok(0) => break,
                Ok(bytes) => written += bytes as u64,
                Err(error) if error.kind() == ErrorKind::StorageFull && block.len() > 512 => {
                    block.truncate(block.len() / 2);
                }
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error).context("filling a disk"),
            }
        }
        // What was only promised space so far may turn out not to fit.
        match file.sync_all() {
            Err(error) if error.kind() != ErrorKind::StorageFull => {
                Err(error).context("filling a disk")
            }
            _ => Ok(written),
        }
    }

    /// Gives the space back.
    ///
    /// # Errors
    /// The system's.
    pub fn free(&mut self) -> Result<()> {
        match self.filler.take() {
            Some(filler) => fs::remove_file(filler).context("freeing a disk"),
            None => Ok(()),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let at = self.mount.display().to_string();
        if let Err(error) = run("umount", &[&at]) {
            eprintln!("{at} stays mounted: {error:#}");
        }
    }
}

/// Flips one bit in each of so many records of a stopped node: within the bytes of a payload that begins with `mark`, or up
/// to 40 bytes before them, where its header is. Says in which file and where. `draw` chooses; no record is chosen twice.
///
/// # Errors
/// When a file cannot be read or written.
pub fn flip_bits(
    data: &Path,
    mark: &[u8],
    count: usize,
    draw: &mut impl FnMut() -> u64,
) -> Result<Vec<(PathBuf, u64)>> {
    let mut records = Vec::new();
    for file in files_below(data)? {
        let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let mut from = 0;
        while let Some(at) = find(&bytes[from..], mark) {
            records.push((file.clone(), (from + at) as u64));
            from += at + mark.len();
        }
    }
    let mut flipped = Vec::new();
    for _ in 0..count.min(records.len()) {
        let (file, payload) = records.swap_remove((draw() % records.len() as u64) as usize);
        let at = (payload + draw() % (40 + mark.len() as u64)).saturating_sub(40);
        let open = File::options().read(true).write(true).open(&file);
        let open = open.with_context(|| format!("opening {}", file.display()))?;
        let mut byte = [0];
        open.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1 << (draw() % 8);
        open.write_all_at(&byte, at)?;
        open.sync_all()?;
        flipped.push((file, at));
    }
    Ok(flipped)
}

fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    // The order of a folder is anybody's; that of the choices must not be.
    files.sort();
    Ok(files)
}

/// Where `what` first stands. Finds its first byte by a search that the compiler makes fast: files are mostly zeros.
fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    let first = *what.first()?;
    let mut from = 0;
    loop {
        let at = from + bytes[from..].iter().position(|byte| *byte == first)?;
        if bytes[at..].starts_with(what) {
            return Some(at);
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_flip_at_records_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let mut bytes = vec![0; 1000];
        for at in [100, 300, 900] {
            bytes[at..at + 4].copy_from_slice(b"mark");
        }
        fs::write(inner.join("records"), &bytes).unwrap();
        fs::write(dir.path().join("other"), b"nothing to see").unwrap();
        let mut next = 0_u64;
        let mut draw = || {
            next += 17;
            next
        };
        let flipped = flip_bits(dir.path(), b"mark", 2, &mut draw).unwrap();
        assert_eq!(flipped.len(), 2);
        let after = fs::read(inner.join("records")).unwrap();
        let changed: Vec<usize> = (0..1000).filter(|at| after[*at] != bytes[*at]).collect();
        assert_eq!(changed.len(), 2);
        for at in changed {
            let near = |record: usize| (record - 40..record + 4).contains(&at);
            assert!(near(100) || near(300) || near(900), "{at}");
            assert_eq!((after[at] ^ bytes[at]).count_ones(), 1);
        }
        assert_eq!(
            fs::read(dir.path().join("other")).unwrap(),
            b"nothing to see"
        );
        assert_eq!(flip_bits(dir.path(), b"absent", 3, &mut draw).unwrap(), []);
    }
}
