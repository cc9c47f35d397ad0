//! Writing and reading what the state machine keeps and replicates: fields as on the wire, lists with a `u32` count in
//! front, in a buffer that grows. Nothing that is read is trusted.

use ionian_types::{LogId, NodeId, ShardId, Slot, VertexId};
use ionian_wire::codec::Field;
use ionian_wire::{Reader, WireError};

use crate::state::PlaceKey;

/// Bytes that grow.
pub(crate) struct Encoder(pub(crate) Vec<u8>);

impl Encoder {
    pub(crate) fn put<T: Field>(&mut self, value: T) {
        let at = self.0.len();
        self.0.resize(at + T::LEN, 0);
        value.put(&mut self.0[at..]);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.put(bytes.len() as u32);
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn nodes(&mut self, nodes: &[NodeId]) {
        self.put(nodes.len() as u8);
        nodes.iter().for_each(|&node| self.put(node));
    }

    pub(crate) fn key(&mut self, key: PlaceKey) {
        let (tag, shard, slot) = match key {
            PlaceKey::Root(_, slot) => (1u8, ShardId::ZERO, slot),
            // Where a replica has its shard.
            PlaceKey::Vertex(_, vertex) => (2, ShardId::new(vertex.get()), Slot::ZERO),
            PlaceKey::Replica(_, shard, slot) => (3, shard, slot),
            PlaceKey::Copy(_, shard, slot) => (4, shard, slot),
        };
        self.put(tag);
        self.put(key.log());
        self.put(shard);
        self.put(slot);
    }
}

pub(crate) fn key(reader: &mut Reader<'_>) -> Result<PlaceKey, WireError> {
    let tag: u8 = reader.field()?;
    let log: LogId = reader.field()?;
    let (shard, slot): (ShardId, Slot) = (reader.field()?, reader.field()?);
    match tag {
        1 => Ok(PlaceKey::Root(log, slot)),
        2 => Ok(PlaceKey::Vertex(log, VertexId::new(shard.get()))),
        3 => Ok(PlaceKey::Replica(log, shard, slot)),
        4 => Ok(PlaceKey::Copy(log, shard, slot)),
        tag => Err(range("kind of place", u64::from(tag))),
    }
}

pub(crate) fn text(reader: &mut Reader<'_>) -> Result<String, WireError> {
    let len = reader.field::<u32>()? as usize;
    let bytes = reader.bytes(len)?;
    core::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|error| range("text", error.valid_up_to() as u64))
}

/// The count of a list, at most `max`.
pub(crate) fn count(
    reader: &mut Reader<'_>,
    max: usize,
    field: &'static str,
) -> Result<usize, WireError> {
    let count = reader.field::<u32>()? as usize;
    if count > max {
        return Err(range(field, count as u64));
    }
    Ok(count)
}

pub(crate) const fn range(field: &'static str, value: u64) -> WireError {
    WireError::Range { field, value }
}
