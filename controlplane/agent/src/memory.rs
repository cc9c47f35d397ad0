//! The newest cluster map, kept in the data directory of a process.
//!
//! ```text
//! magic, 8 bytes | CRC-32C of the map, u32 little-endian | the map
//! ```
//!
//! It is written aside and renamed. A file that is damaged counts as none: the process then begins with what its configuration
//! says, and the controllers tell it the rest.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use ionian_wire::crc::crc32c;
use ionian_wire::directory::ClusterMap;

/// The name of the file.
pub const FILE: &str = "cluster.map";
const MAGIC: &[u8; 8] = b"IONMAP\x00\x01";
/// The largest map is 1 MiB.
const BYTES_MAX: u64 = 2 << 20;

/// The map that was kept in `folder`; none when there is none, or it is damaged.
#[must_use]
pub fn load(folder: &Path) -> Option<ClusterMap> {
    let mut bytes = Vec::new();
    let file = File::open(folder.join(FILE)).ok()?;
    file.take(BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let (magic, rest) = bytes.split_first_chunk::<8>()?;
    let (crc, map) = rest.split_first_chunk::<4>()?;
    if magic != MAGIC || u32::from_le_bytes(*crc) != crc32c(map) {
        return None;
    }
    ClusterMap::read(map).ok()
}

/// Keeps a map in `folder`, which is there.
///
/// # Errors
/// What the system says; effect none.
pub fn save(folder: &Path, map: &ClusterMap) -> io::Result<()> {
    let map = map.to_bytes().map_err(io::Error::other)?;
    let (aside, path) = (folder.join(format!("{FILE}.new")), folder.join(FILE));
    let mut file = File::create(&aside)?;
    file.write_all(MAGIC)?;
    file.write_all(&crc32c(&map).to_le_bytes())?;
    file.write_all(&map)?;
    file.sync_all()?;
    fs::rename(&aside, &path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_found_again_unless_it_is_damaged() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(load(folder.path()), None);
        let map = ClusterMap {
            version: 7,
            ..ClusterMap::default()
        };
        save(folder.path(), &map).expect("written");
        assert_eq!(load(folder.path()), Some(map));
        let file = folder.path().join(FILE);
        let whole = fs::read(&file).expect("there");
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            fs::write(&file, &damaged).expect("written");
            assert_eq!(load(folder.path()), None, "byte {at}");
            fs::write(&file, &whole[..at]).expect("written");
            assert_eq!(load(folder.path()), None, "cut at {at}");
        }
    }
}
