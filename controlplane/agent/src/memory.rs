//! The newest cluster map, and the keys that the controllers gave the node, kept in the data directory of a process.
//!
//! ```text
//! magic, 8 bytes | CRC-32C of what follows, u32 little-endian | the map, or the keys
//! ```
//!
//! It is written aside and renamed. A file that is damaged counts as none: the process then begins with what its configuration
//! says, and the controllers tell it the rest.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ionian_wire::crc::crc32c;
use ionian_wire::directory::ClusterMap;
use ionian_wire::grant::NodeKeys;

/// The name of the file.
pub const FILE: &str = "cluster.map";
const MAGIC: &[u8; 8] = b"IONMAP\x00\x01";
/// The largest map is 1 MiB.
const BYTES_MAX: u64 = 2 << 20;

/// The name of the file with the keys of a node.
pub const KEYS_FILE: &str = "node.keys";
const KEYS_MAGIC: &[u8; 8] = b"IONKEYS\x01";

/// The map that was kept in `folder`; none when there is none, or it is damaged.
#[must_use]
pub fn load(folder: &Path) -> Option<ClusterMap> {
    ClusterMap::read(&read(&folder.join(FILE), MAGIC)?).ok()
}

/// Keeps a map in `folder`, which is there.
///
/// # Errors
/// What the system says; effect none.
pub fn save(folder: &Path, map: &ClusterMap) -> io::Result<()> {
    let map = map.to_bytes().map_err(io::Error::other)?;
    write(folder, FILE, MAGIC, &map)
}

/// The keys that were kept in `folder`; none when there are none, or they are damaged.
pub(crate) fn load_keys(folder: &Path) -> Option<NodeKeys> {
    NodeKeys::read(&read(&folder.join(KEYS_FILE), KEYS_MAGIC)?).ok()
}

/// Keeps a node's keys in `folder`, for its owner only.
///
/// # Errors
/// What the system says; effect none.
pub(crate) fn save_keys(folder: &Path, keys: &NodeKeys) -> io::Result<()> {
    let keys = keys.to_bytes().map_err(io::Error::other)?;
    write(folder, KEYS_FILE, KEYS_MAGIC, &keys)
}

/// What stands behind the magic and the checksum, if both are right.
fn read(path: &Path, magic: &[u8; 8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let (found, rest) = bytes.split_first_chunk::<8>()?;
    let (crc, body) = rest.split_first_chunk::<4>()?;
    let whole = found == magic && u32::from_le_bytes(*crc) == crc32c(body);
    whole.then(|| body.to_vec())
}

fn write(folder: &Path, name: &str, magic: &[u8; 8], body: &[u8]) -> io::Result<()> {
    let (aside, path) = (folder.join(format!("{name}.new")), folder.join(name));
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)?;
    file.write_all(magic)?;
    file.write_all(&crc32c(body).to_le_bytes())?;
    file.write_all(body)?;
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

    #[test]
    fn keys_are_found_again_and_nobody_else_may_read_them() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(load_keys(folder.path()), None);
        for version in 1..=2 {
            let keys = NodeKeys {
                version,
                epochs: vec![(ionian_types::GuardEpoch::new(2), [9; 32])],
                users: vec![(0, 0), (3, 7)],
            };
            save_keys(folder.path(), &keys).expect("written");
            assert_eq!(load_keys(folder.path()), Some(keys));
        }
        let found = fs::metadata(folder.path().join(KEYS_FILE)).expect("there");
        assert_eq!(found.mode() & 0o777, 0o600);
        assert_eq!(load(folder.path()), None, "they are no map");
    }
}
