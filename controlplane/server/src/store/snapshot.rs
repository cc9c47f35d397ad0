//! Snapshots as files: written beside, flushed, renamed; two sound ones are kept, so that one that is damaged later has a
//! predecessor.
//!
//! ```text
//! magic "IONSNAP1" | head length u32 | data length u64 | CRC-32C of head and data u32 | head | data
//! ```
//!
//! Numbers are little-endian. The head says after which entry and under which membership the state stands.

use std::cmp::Reverse;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ionian_control_client::proto::raft as proto;
use openraft::{BasicNode, SnapshotMeta};
use prost::Message;

use super::{convert, crc32c, sync_folder};

const MAGIC: &[u8; 8] = b"IONSNAP1";
const PREFIX_BYTES: usize = 24;
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How many sound ones are kept.
const KEPT: usize = 2;

/// What Raft knows of a snapshot.
pub(super) type Meta = SnapshotMeta<u64, BasicNode>;

/// A snapshot file's place in the order of snapshots, from its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) leader: u64,
    pub(super) path: PathBuf,
}

/// The snapshots in `folder`, the newest first. Other files, unfinished ones among them, are none.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Named>> {
    let mut found = Vec::new();
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        let Some(numbers) = name.strip_prefix("snapshot-") else {
            continue;
        };
        let numbers: Result<Vec<u64>, _> = numbers.split('-').map(str::parse).collect();
        if let Ok([term, leader, index]) = numbers.as_deref() {
            found.push(Named {
                index: *index,
                term: *term,
                leader: *leader,
                path: path.clone(),
            });
        }
    }
    found.sort_by_key(|n| Reverse((n.index, n.term, n.leader)));
    Ok(found)
}

/// Writes a snapshot, flushed in its folder under its name, and deletes what is older than the newest two that are sound. What is
/// damaged stays so long: it counts for nothing, and an operator may want to see it.
pub(super) fn write(folder: &Path, meta: &Meta, data: &[u8], bytes_max: u64) -> io::Result<()> {
    let head = convert::snapshot_meta(meta).encode_to_vec();
    let id = meta.last_log_id.unwrap_or_default();
    let name = format!(
        "snapshot-{}-{}-{}",
        id.leader_id.term, id.leader_id.node_id, id.index
    );
    let unfinished = folder.join("unfinished");
    let mut file = File::create(&unfinished)?;
    let head_len = u32::try_from(head.len()).map_err(io::Error::other)?;
    let data_len = u64::try_from(data.len()).map_err(io::Error::other)?;
    file.write_all(MAGIC)?;
    file.write_all(&head_len.to_le_bytes())?;
    file.write_all(&data_len.to_le_bytes())?;
    file.write_all(&crc32c(&[&head, data]).to_le_bytes())?;
    file.write_all(&head)?;
    file.write_all(data)?;
    file.sync_all()?;
    fs::rename(&unfinished, folder.join(name))?;
    sync_folder(folder)?;
    let mut sound = 0;
    for named in list(folder)? {
        if sound == KEPT {
            fs::remove_file(named.path)?;
        } else if read(&named, bytes_max).is_ok() {
            sound += 1;
        }
    }
    Ok(())
}

/// Reads a snapshot.
///
/// # Errors
/// What is wrong with it, to follow its name.
pub(super) fn read(named: &Named, bytes_max: u64) -> Result<(Meta, Vec<u8>), String> {
    let text = |e: io::Error| format!("cannot be read: {e}");
    let mut file = File::open(&named.path).map_err(text)?;
    let len = file.metadata().map_err(text)?.len();
    let cut = || format!("is cut after {len} bytes");
    let mut prefix = [0_u8; PREFIX_BYTES];
    file.read_exact(&mut prefix).map_err(|_| cut())?;
    let (magic, rest) = prefix.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err("does not begin as a snapshot does".to_owned());
    }
    let number = |at: usize, bytes: usize| {
        let mut le = [0_u8; 8];
        le[..bytes].copy_from_slice(&rest[at..at + bytes]);
        u64::from_le_bytes(le)
    };
    let (head_len, data_len, crc) = (number(0, 4), number(4, 8), number(12, 4));
    if head_len > HEAD_BYTES_MAX as u64 || data_len > bytes_max {
        return Err(format!(
            "says that it has {data_len} bytes, more than the limit of {bytes_max}"
        ));
    }
    if len != PREFIX_BYTES as u64 + head_len + data_len {
        return Err(cut());
    }
    let mut head = vec![0_u8; usize::try_from(head_len).map_err(|e| e.to_string())?];
    let mut data = vec![0_u8; usize::try_from(data_len).map_err(|e| e.to_string())?];
    file.read_exact(&mut head).map_err(text)?;
    file.read_exact(&mut data).map_err(text)?;
    if u64::from(crc32c(&[&head, &data])) != crc {
        return Err("has a wrong checksum".to_owned());
    }
    let head = proto::SnapshotMeta::decode(head.as_slice()).map_err(|e| e.to_string())?;
    let meta = convert::from_snapshot_meta(Some(&head)).map_err(|e| e.to_string())?;
    let id = meta.last_log_id.unwrap_or_default();
    if (id.index, id.leader_id.term, id.leader_id.node_id)
        != (named.index, named.term, named.leader)
    {
        return Err("has another's name".to_owned());
    }
    Ok((meta, data))
}
