//! Whose data directory it is: a small file in it names cluster and node, and a lock keeps every other process out.

use std::path::Path;

use ionian_types::{ClusterId, NodeId};
use ionian_uring::DataDir;

use super::StartError;

/// The file's name.
const FILE: &str = "node";
/// The file's largest size in bytes.
const BYTES_MAX: u64 = 256;

/// Locks a data directory, and writes its owner's name into a new one.
///
/// # Errors
/// [`StartError::Open`] when it is in use or cannot be written, [`StartError::OtherOwner`] when it is somebody else's.
pub(super) fn claim(path: &Path, cluster: ClusterId, node: NodeId) -> Result<DataDir, StartError> {
    let dir = DataDir::open(path)?;
    let unusable = |reason: String| StartError::OtherOwner {
        path: path.display().to_string(),
        reason,
    };
    let own = format!("cluster {cluster}\nnode {node}\n");
    let found = dir
        .read_small(FILE, BYTES_MAX)
        .map_err(|error| unusable(error.to_string()))?;
    match found {
        Some(found) if found == own.as_bytes() => {}
        Some(found) => {
            let found = String::from_utf8_lossy(&found);
            let line = |what: &str| {
                let mut lines = found.lines();
                let value = lines.find_map(|line| line.strip_prefix(what));
                value.unwrap_or(" of no known name").to_owned()
            };
            return Err(unusable(format!(
                "it belongs to node{} of cluster{}, this is node {node} of cluster {cluster}",
                line("node"),
                line("cluster")
            )));
        }
        None => dir
            .write_small(FILE, own.as_bytes())
            .map_err(|error| unusable(error.to_string()))?,
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner() {
        let folder = tempfile::tempdir().unwrap();
        let claim = |cluster: u128, node: u32| {
            claim(folder.path(), ClusterId::new(cluster), NodeId::new(node))
        };
        let held = claim(1, 2).unwrap();
        let error = claim(1, 2).unwrap_err().to_string();
        assert!(error.contains("in use"), "{error}");
        drop(held);
        drop(claim(1, 2).unwrap());
        let error = claim(1, 3).unwrap_err().to_string();
        assert!(error.contains("it belongs to node 2 of cluster"), "{error}");
        assert!(error.contains("this is node 3 of cluster"), "{error}");
        assert!(claim(2, 2).is_err());
        std::fs::write(folder.path().join(FILE), b"\xff").unwrap();
        assert!(
            claim(1, 2)
                .unwrap_err()
                .to_string()
                .contains("of no known name")
        );
    }
}
