//! The durable form of the state.
//!
//! ```text
//! magic "IONIDIR\n" | version u16 | body | CRC-32C u32 over everything before it
//! ```
//! The body is the state field by field, little-endian, lists with a `u32` count in front. A snapshot comes from a disk and
//! is not trusted: every count is bounded by what is left to read, and references are checked, so that a restored state is
//! one that could have been written.

use std::collections::BTreeMap;

use ionian_types::{ClusterId, Inc, LogId, NodeId, SEGMENTS_PER_SHARD_MAX, ShardId, ViewId};
use ionian_wire::codec::Field;
use ionian_wire::crc::crc32c;
use ionian_wire::entry::Changes;
use ionian_wire::{Reader, WireError};

use crate::state::{Log, Member, Node, Pending, Place, Shard, State};

const MAGIC: &[u8; 8] = b"IONIDIR\n";
const VERSION: u16 = 1;

/// Why a snapshot cannot be used. Effect: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// It does not begin like a directory snapshot.
    #[error("not a directory snapshot")]
    Magic,
    /// It was written by a newer build.
    #[error("directory snapshot of version {found}; this build knows versions up to {known}")]
    Version {
        /// Its version.
        found: u16,
        /// The newest version known.
        known: u16,
    },
    /// It belongs to another cluster.
    #[error("directory snapshot of cluster {found}; this is cluster {expected}")]
    OtherCluster {
        /// The cluster in the snapshot.
        found: ClusterId,
        /// The cluster expected.
        expected: ClusterId,
    },
    /// Its bytes are damaged.
    #[error("damaged directory snapshot: {0}")]
    Damaged(#[from] WireError),
}

struct Encoder(Vec<u8>);

impl Encoder {
    fn put<T: Field>(&mut self, value: T) {
        let at = self.0.len();
        self.0.resize(at + T::LEN, 0);
        value.put(&mut self.0[at..]);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.put(bytes.len() as u32);
        self.0.extend_from_slice(bytes);
    }

    fn place(&mut self, place: &Place) {
        self.put(place.node);
        self.put(place.inc);
        self.put(place.up);
        self.bytes(place.address.as_bytes());
    }
}

impl State {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder(MAGIC.to_vec());
        out.put(VERSION);
        out.put(self.cluster);
        out.put(self.version);
        out.put(self.map_version);
        out.put(self.next_inc);
        out.put(self.nodes.len() as u32);
        for (id, node) in &self.nodes {
            out.put(*id);
            out.put(node.domain);
            out.bytes(node.address.as_bytes());
        }
        out.put(self.logs.len() as u32);
        for (id, log) in &self.logs {
            out.put(*id);
            encode_log(&mut out, log);
        }
        let crc = crc32c(&out.0);
        out.put(crc);
        out.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RestoreError> {
        let mut reader = Reader::new(bytes);
        if reader.bytes(MAGIC.len()) != Ok(&MAGIC[..]) {
            return Err(RestoreError::Magic);
        }
        let found = reader.field()?;
        if found > VERSION {
            return Err(RestoreError::Version {
                found,
                known: VERSION,
            });
        }
        let body = bytes.len().saturating_sub(4);
        let found = Reader::new(&bytes[body..]).field()?;
        let computed = crc32c(&bytes[..body]);
        if found != computed {
            return Err(WireError::Checksum { found, computed }.into());
        }
        let mut state = Self::new(reader.field()?, BTreeMap::new());
        state.version = reader.field()?;
        state.map_version = reader.field()?;
        state.next_inc = reader.field()?;
        for _ in 0..reader.field::<u32>()? {
            let id: NodeId = reader.field()?;
            let domain = reader.field()?;
            let address = text(&mut reader)?;
            state.nodes.insert(id, Node { domain, address });
        }
        for _ in 0..reader.field::<u32>()? {
            let id: LogId = reader.field()?;
            let log = decode_log(&mut reader)?;
            state.logs.insert(id, log);
        }
        if reader.rest().len() != 4 {
            return Err(range("snapshot tail bytes", reader.rest().len() as u64).into());
        }
        let inc = state.places().map(|(_, place)| place.inc).max();
        if inc.is_some_and(|inc| inc.get() >= state.next_inc) {
            return Err(range("incarnation", inc.map_or(0, Inc::get)).into());
        }
        Ok(state)
    }
}

fn encode_log(out: &mut Encoder, log: &Log) {
    out.bytes(log.name.as_bytes());
    out.put(log.mode);
    out.put(log.class);
    out.place(&log.root);
    out.put(log.root_epoch);
    out.place(&log.leaf);
    out.put(log.floor);
    out.put(log.ceiling);
    out.put(log.base_view);
    out.put(log.view);
    let (node, inc) = log.tree.unwrap_or_default();
    out.put(log.tree.is_some());
    out.put(node);
    out.put(inc);
    out.put(log.pending.is_some());
    if let Some(pending) = &log.pending {
        out.put(pending.view);
        out.put(pending.since);
        out.bytes(&pending.changes);
    }
    out.put(log.shards.len() as u32);
    for (id, shard) in &log.shards {
        out.put(*id);
        out.put(shard.rank);
        out.put(shard.epoch);
        out.put(shard.opened);
        out.put(shard.settled);
        out.put(shard.members.len() as u32);
        for member in &shard.members {
            out.place(&member.place);
            out.put(member.holds);
            out.put(member.member);
            out.put(member.generation);
        }
    }
}

fn decode_log(reader: &mut Reader<'_>) -> Result<Log, WireError> {
    let name = text(reader)?;
    let mode = reader.field()?;
    let class = reader.field()?;
    let root = place(reader)?;
    let root_epoch = reader.field()?;
    let leaf = place(reader)?;
    let floor = reader.field()?;
    let ceiling = reader.field()?;
    let base_view = reader.field()?;
    let view: ViewId = reader.field()?;
    let has_tree: bool = reader.field()?;
    let tree = (reader.field()?, reader.field()?);
    let pending = if reader.field()? {
        Some(pending(reader)?)
    } else {
        None
    };
    if pending
        .as_ref()
        .is_some_and(|pending| Some(pending.view) != view.next())
    {
        return Err(range("pending view", view.get()));
    }
    let mut shards = BTreeMap::new();
    for _ in 0..reader.field::<u32>()? {
        let id: ShardId = reader.field()?;
        let rank = reader.field()?;
        let epoch = reader.field()?;
        let opened = reader.field()?;
        let settled = reader.field()?;
        let count: u32 = reader.field()?;
        if count == 0 || count as usize > SEGMENTS_PER_SHARD_MAX {
            return Err(range("shard members", u64::from(count)));
        }
        let mut members = Vec::with_capacity(count as usize);
        for _ in 0..count {
            members.push(Member {
                place: place(reader)?,
                holds: reader.field()?,
                member: reader.field()?,
                generation: reader.field()?,
            });
        }
        shards.insert(
            id,
            Shard {
                rank,
                epoch,
                opened,
                settled,
                members,
            },
        );
    }
    let tree = has_tree.then_some(tree);
    Ok(Log {
        name,
        mode,
        class,
        root,
        root_epoch,
        leaf,
        floor,
        ceiling,
        base_view,
        view,
        tree,
        pending,
        shards,
    })
}

fn pending(reader: &mut Reader<'_>) -> Result<Pending, WireError> {
    let view = reader.field()?;
    let since = reader.field()?;
    let len = reader.field::<u32>()? as usize;
    let changes = reader.bytes(len)?;
    Changes::check(changes)?;
    Ok(Pending {
        view,
        since,
        changes: changes.to_vec(),
    })
}

fn place(reader: &mut Reader<'_>) -> Result<Place, WireError> {
    Ok(Place {
        node: reader.field()?,
        inc: reader.field()?,
        up: reader.field()?,
        address: text(reader)?,
    })
}

fn text(reader: &mut Reader<'_>) -> Result<String, WireError> {
    let len = reader.field::<u32>()? as usize;
    let bytes = reader.bytes(len)?;
    core::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|error| range("text", error.valid_up_to() as u64))
}

const fn range(field: &'static str, value: u64) -> WireError {
    WireError::Range { field, value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body: Vec<u8>) {
            let mut bytes = MAGIC.to_vec();
            bytes.extend(VERSION.to_le_bytes());
            bytes.extend(body);
            bytes.extend(crc32c(&bytes).to_le_bytes());
            let _ = State::decode(&bytes);
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = State::new(ClusterId::new(1), BTreeMap::new()).encode();
        bytes[8] = 9;
        assert_eq!(
            State::decode(&bytes),
            Err(RestoreError::Version { found: 9, known: 1 })
        );
    }
}
