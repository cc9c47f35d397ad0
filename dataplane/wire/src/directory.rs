//! The cluster map: what a client or a node must know to find everyone. Read rarely, so it may allocate.

use ionian_types::{
    Durability, Inc, LogId, NodeId, OrderingMode, SEGMENTS_PER_SHARD_MAX, ShardId, Slot, VertexId,
    ViewId,
};

use crate::codec::{Reader, WireError, Writer};
use crate::tree::{OrderKey, TREE_VERTICES_MAX, TreeVertex, check};

/// The most logs in a map.
pub const LOGS_MAX: usize = 1024;
/// The most shards of one log.
pub const SHARDS_PER_LOG_MAX: usize = 16_384;
/// The most members of a root group.
pub const ROOT_MEMBERS_MAX: usize = 7;
/// The most places of one log that other nodes are to take at a time.
pub const COMING_MAX: usize = 1024;
/// Stands for no leader.
const NO_LEADER: Slot = Slot::new(u8::MAX);
/// The longest log name in bytes.
pub const LOG_NAME_BYTES_MAX: usize = 64;
/// The longest address in bytes.
pub const ADDRESS_BYTES_MAX: usize = 255;

/// Everything that is public about a cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClusterMap {
    /// Rises with every change.
    pub version: u64,
    /// The logs, by rising id.
    pub logs: Vec<LogInfo>,
}

/// One log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogInfo {
    /// Its id.
    pub log: LogId,
    /// Its name, 1 to [`LOG_NAME_BYTES_MAX`] bytes of `a-z 0-9 - _ .`.
    pub name: String,
    /// The protocol that orders it.
    pub mode: OrderingMode,
    /// What an acknowledgement means.
    pub class: Durability,
    /// The members of the root group in slot order, 1 to [`ROOT_MEMBERS_MAX`].
    pub roots: Vec<Endpoint>,
    /// The slot of the member that leads, if one was named.
    pub leader: Option<Slot>,
    /// The ordering tree below the root, depth-first, parents first.
    pub tree: Vec<VertexInfo>,
    /// The tree that is to be in its place; empty when it stays as it is.
    pub tree_next: Vec<VertexInfo>,
    /// Its shards, by rising id.
    pub shards: Vec<ShardInfo>,
    /// Places that another node is to take: it prepares itself and registers, and has them from then on.
    pub coming: Vec<Coming>,
}

/// An aggregator or a leaf.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VertexInfo {
    /// Its name in the log.
    pub vertex: VertexId,
    /// The number of vertices right below; 0 for a leaf.
    pub children: u16,
    /// Of a leaf: where its shards begin in the order of the tree, as in [`TreeVertex`].
    pub begins: OrderKey,
    /// Where it is.
    pub endpoint: Endpoint,
}

/// A place that another node is to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coming {
    /// The node.
    pub node: NodeId,
    /// The place.
    pub place: ComingPlace,
}

/// A place of a log that can go to another node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ComingPlace {
    /// A leaf of the ordering tree.
    Leaf(VertexId),
    /// An aggregator of the ordering tree.
    Aggregator(VertexId),
    /// A replica.
    Replica(ShardId, Slot),
}

/// One shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardInfo {
    /// Its id.
    pub shard: ShardId,
    /// Its rank in the order of the tree.
    pub rank: u32,
    /// The last view that changed it.
    pub epoch: ViewId,
    /// Whether it takes appends.
    pub open: bool,
    /// Whether it has ended for good; its records stay readable.
    pub finalized: bool,
    /// How many replicas must hold a record.
    pub quorum: u8,
    /// Its replicas in slot order.
    pub replicas: Vec<ReplicaInfo>,
}

/// One replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaInfo {
    /// Where it is.
    pub endpoint: Endpoint,
    /// The open generation of its segment; `ViewId::ZERO` when closed.
    pub generation: ViewId,
}

/// A process that can be reached.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Endpoint {
    /// The node.
    pub node: NodeId,
    /// Its incarnation; 0 while it is down.
    pub inc: Inc,
    /// Its address, `host:port`; empty in one process.
    pub address: String,
}

impl ClusterMap {
    /// Writes the map.
    ///
    /// # Errors
    /// [`WireError::Full`], or [`WireError::Range`] for a list or name beyond its limit.
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), WireError> {
        writer.field(self.version)?;
        count(writer, self.logs.len(), LOGS_MAX, "logs")?;
        for log in &self.logs {
            writer.field(log.log)?;
            text(writer, &log.name, LOG_NAME_BYTES_MAX)?;
            writer.field(log.mode)?;
            writer.field(log.class)?;
            count(writer, log.roots.len(), ROOT_MEMBERS_MAX, "root members")?;
            log.roots.iter().try_for_each(|root| root.write(writer))?;
            writer.field(log.leader.unwrap_or(NO_LEADER))?;
            write_tree(writer, &log.tree)?;
            write_tree(writer, &log.tree_next)?;
            count(writer, log.shards.len(), SHARDS_PER_LOG_MAX, "shards")?;
            for shard in &log.shards {
                writer.field(shard.shard)?;
                writer.field(shard.rank)?;
                writer.field(shard.epoch)?;
                writer.field(shard.open)?;
                writer.field(shard.finalized)?;
                writer.field(shard.quorum)?;
                count(
                    writer,
                    shard.replicas.len(),
                    SEGMENTS_PER_SHARD_MAX,
                    "replicas",
                )?;
                for replica in &shard.replicas {
                    replica.endpoint.write(writer)?;
                    writer.field(replica.generation)?;
                }
            }
            count(writer, log.coming.len(), COMING_MAX, "places to be taken")?;
            for coming in &log.coming {
                writer.field(coming.node)?;
                let (kind, number, slot) = match coming.place {
                    ComingPlace::Leaf(vertex) => (0u8, vertex.get(), Slot::ZERO),
                    ComingPlace::Aggregator(vertex) => (1, vertex.get(), Slot::ZERO),
                    ComingPlace::Replica(shard, slot) => (2, shard.get(), slot),
                };
                writer.field(kind)?;
                writer.field(number)?;
                writer.field(slot)?;
            }
        }
        Ok(())
    }

    /// Reads a map that a peer supplied.
    ///
    /// # Errors
    /// Any [`WireError`]; effect none.
    pub fn read(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let version = reader.field()?;
        let mut logs = Vec::new();
        for _ in 0..bounded(&mut reader, LOGS_MAX, "logs")? {
            let log = reader.field()?;
            let name = read_text(&mut reader, LOG_NAME_BYTES_MAX)?;
            let mode = reader.field()?;
            let class = reader.field()?;
            let mut roots = Vec::new();
            for _ in 0..bounded(&mut reader, ROOT_MEMBERS_MAX, "root members")? {
                roots.push(Endpoint::read(&mut reader)?);
            }
            let leader = Some(reader.field()?).filter(|leader| *leader != NO_LEADER);
            if leader.unwrap_or(Slot::ZERO).index() >= roots.len() {
                return Err(WireError::Range {
                    field: "root leader",
                    value: roots.len() as u64,
                });
            }
            let tree = read_tree(&mut reader)?;
            let tree_next = read_tree(&mut reader)?;
            let mut shards = Vec::new();
            for _ in 0..bounded(&mut reader, SHARDS_PER_LOG_MAX, "shards")? {
                let shard = reader.field()?;
                let rank = reader.field()?;
                let epoch = reader.field()?;
                let open = reader.field()?;
                let finalized = reader.field()?;
                let quorum = reader.field()?;
                let mut replicas = Vec::new();
                for _ in 0..bounded(&mut reader, SEGMENTS_PER_SHARD_MAX, "replicas")? {
                    replicas.push(ReplicaInfo {
                        endpoint: Endpoint::read(&mut reader)?,
                        generation: reader.field()?,
                    });
                }
                shards.push(ShardInfo {
                    shard,
                    rank,
                    epoch,
                    open,
                    finalized,
                    quorum,
                    replicas,
                });
            }
            let mut coming = Vec::new();
            for _ in 0..bounded(&mut reader, COMING_MAX, "places to be taken")? {
                let node = reader.field()?;
                let (kind, number): (u8, u32) = (reader.field()?, reader.field()?);
                let slot = reader.field()?;
                let place = match kind {
                    0 => ComingPlace::Leaf(VertexId::new(number)),
                    1 => ComingPlace::Aggregator(VertexId::new(number)),
                    2 => ComingPlace::Replica(ShardId::new(number), slot),
                    kind => {
                        return Err(WireError::Range {
                            field: "place to be taken",
                            value: u64::from(kind),
                        });
                    }
                };
                coming.push(Coming { node, place });
            }
            logs.push(LogInfo {
                log,
                name,
                mode,
                class,
                roots,
                leader,
                tree,
                tree_next,
                shards,
                coming,
            });
        }
        Ok(Self { version, logs })
    }

    /// The map as bytes.
    ///
    /// # Errors
    /// As [`Self::write`], with a limit of 1 MiB.
    pub fn to_bytes(&self) -> Result<Vec<u8>, WireError> {
        let mut bytes = vec![0; 1 << 20];
        let mut writer = Writer::new(&mut bytes);
        self.write(&mut writer)?;
        let len = writer.len();
        bytes.truncate(len);
        Ok(bytes)
    }

    /// The log of this name.
    #[must_use]
    pub fn log_by_name(&self, name: &str) -> Option<&LogInfo> {
        self.logs.iter().find(|log| log.name == name)
    }
}

impl LogInfo {
    /// The root leader; while none is named, the first member of the root group.
    ///
    /// # Panics
    /// If the root group has no members; a map that was read has at least one.
    #[must_use]
    pub fn root(&self) -> &Endpoint {
        &self.roots[self.leader.unwrap_or(Slot::ZERO).index()]
    }

    /// The leaf of a shard in the tree, and in the one that is to be in its place.
    pub fn leaves_of(&self, shard: &ShardInfo) -> impl Iterator<Item = &VertexInfo> {
        let key = (shard.rank, shard.shard);
        let trees = [&self.tree, &self.tree_next].into_iter();
        trees.filter_map(move |tree| {
            let leaves = tree.iter().filter(|vertex| vertex.children == 0);
            leaves.take_while(|leaf| leaf.begins <= key).last()
        })
    }
}

impl LogInfo {
    /// Who is right above a vertex, in the tree and in the one that is to be in its place, in each that has it; none for the
    /// root.
    pub fn parents_of(&self, vertex: VertexId) -> impl Iterator<Item = Option<&VertexInfo>> {
        let trees = [&self.tree, &self.tree_next].into_iter();
        trees.filter_map(move |tree| {
            let at = tree.iter().position(|it| it.vertex == vertex)?;
            let parent = parent_in(tree.iter().map(|it| it.children), at);
            Some(parent.map(|parent| &tree[parent]))
        })
    }
}

/// For each vertex of a tree in depth-first order the one right above it, by its place; none for one right below the root.
///
/// `children` gives the number of vertices right below each.
pub fn parents_in(children: impl Iterator<Item = u16>) -> impl Iterator<Item = Option<usize>> {
    // The vertices whose last child is still to come, with how many are.
    let mut above: Vec<(usize, u16)> = Vec::new();
    children.enumerate().map(move |(at, children)| {
        while above.pop_if(|(_, missing)| *missing == 0).is_some() {}
        let parent = above.last_mut().map(|(parent, missing)| {
            *missing -= 1;
            *parent
        });
        if children > 0 {
            above.push((at, children));
        }
        parent
    })
}

/// The vertex right above the one at a place of a tree, as [`parents_in`].
#[must_use]
pub fn parent_in(children: impl Iterator<Item = u16>, of: usize) -> Option<usize> {
    parents_in(children).nth(of).flatten()
}

impl VertexInfo {
    fn form(&self) -> TreeVertex {
        TreeVertex {
            node: self.endpoint.node,
            // One that is down has none, and the tree has its form all the same.
            inc: Inc::new(1),
            children: self.children,
            begins: self.begins,
        }
    }
}

fn write_tree(writer: &mut Writer<'_>, tree: &[VertexInfo]) -> Result<(), WireError> {
    count(writer, tree.len(), TREE_VERTICES_MAX, "tree vertices")?;
    for vertex in tree {
        writer.field(vertex.vertex)?;
        writer.field(vertex.children)?;
        writer.field(vertex.begins.0)?;
        writer.field(vertex.begins.1)?;
        vertex.endpoint.write(writer)?;
    }
    Ok(())
}

fn read_tree(reader: &mut Reader<'_>) -> Result<Vec<VertexInfo>, WireError> {
    let mut tree = Vec::new();
    for _ in 0..bounded(reader, TREE_VERTICES_MAX, "tree vertices")? {
        tree.push(VertexInfo {
            vertex: reader.field()?,
            children: reader.field()?,
            begins: (reader.field()?, reader.field()?),
            endpoint: Endpoint::read(reader)?,
        });
    }
    check(tree.iter().map(VertexInfo::form))?;
    Ok(tree)
}

impl Endpoint {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), WireError> {
        writer.field(self.node)?;
        writer.field(self.inc)?;
        text(writer, &self.address, ADDRESS_BYTES_MAX)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            node: reader.field()?,
            inc: reader.field()?,
            address: read_text(reader, ADDRESS_BYTES_MAX)?,
        })
    }
}

fn count(
    writer: &mut Writer<'_>,
    len: usize,
    max: usize,
    field: &'static str,
) -> Result<(), WireError> {
    if len > max {
        return Err(WireError::Range {
            field,
            value: len as u64,
        });
    }
    writer.field(len as u32)
}

fn bounded(reader: &mut Reader<'_>, max: usize, field: &'static str) -> Result<usize, WireError> {
    let len = reader.field::<u32>()? as usize;
    if len > max {
        return Err(WireError::Range {
            field,
            value: len as u64,
        });
    }
    Ok(len)
}

fn text(writer: &mut Writer<'_>, text: &str, max: usize) -> Result<(), WireError> {
    if text.len() > max {
        return Err(WireError::Range {
            field: "text bytes",
            value: text.len() as u64,
        });
    }
    writer.field(text.len() as u8)?;
    writer.bytes(text.as_bytes())
}

fn read_text(reader: &mut Reader<'_>, max: usize) -> Result<String, WireError> {
    let len = usize::from(reader.field::<u8>()?);
    let bytes = reader.bytes(len)?;
    match core::str::from_utf8(bytes) {
        Ok(text) if len <= max => Ok(String::from(text)),
        _ => Err(WireError::Range {
            field: "text",
            value: len as u64,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> ClusterMap {
        let endpoint = |node| Endpoint {
            node: NodeId::new(node),
            inc: Inc::new(9),
            address: String::from("127.0.0.1:1"),
        };
        let vertex = |vertex, children, begins| VertexInfo {
            vertex: VertexId::new(vertex),
            children,
            begins: (begins, ShardId::new(begins)),
            endpoint: endpoint(vertex),
        };
        ClusterMap {
            version: 3,
            logs: vec![LogInfo {
                log: LogId::new(1),
                name: String::from("default"),
                mode: OrderingMode::Scalog,
                class: Durability::D1,
                roots: vec![endpoint(9), endpoint(8)],
                leader: Some(Slot::new(1)),
                tree: vec![vertex(3, 2, 0), vertex(1, 0, 0), vertex(5, 0, 2)],
                tree_next: vec![vertex(6, 0, 0)],
                coming: vec![
                    Coming {
                        node: NodeId::new(5),
                        place: ComingPlace::Replica(ShardId::new(2), Slot::ZERO),
                    },
                    Coming {
                        node: NodeId::new(6),
                        place: ComingPlace::Leaf(VertexId::new(6)),
                    },
                    Coming {
                        node: NodeId::new(6),
                        place: ComingPlace::Aggregator(VertexId::new(3)),
                    },
                ],
                shards: vec![ShardInfo {
                    shard: ShardId::new(2),
                    rank: 2,
                    epoch: ViewId::new(3),
                    open: true,
                    finalized: false,
                    quorum: 2,
                    replicas: vec![ReplicaInfo {
                        endpoint: endpoint(1),
                        generation: ViewId::new(3),
                    }],
                }],
            }],
        }
    }

    #[test]
    fn maps_come_back() {
        assert_eq!(ClusterMap::read(&map().to_bytes().unwrap()).unwrap(), map());
    }

    #[test]
    fn a_shard_finds_its_leaf_in_both_trees() {
        let map = map();
        let log = &map.logs[0];
        let leaves = |shard: &ShardInfo| -> Vec<u32> {
            log.leaves_of(shard).map(|it| it.vertex.get()).collect()
        };
        assert_eq!(leaves(&log.shards[0]), [5, 6]);
        let first = ShardInfo {
            shard: ShardId::new(1),
            rank: 1,
            ..log.shards[0].clone()
        };
        assert_eq!(leaves(&first), [1, 6]);
    }

    #[test]
    fn a_tree_that_is_none_is_refused() {
        let mut map = map();
        map.logs[0].tree[0].children = 3;
        assert!(ClusterMap::read(&map.to_bytes().unwrap()).is_err());
    }

    #[test]
    fn who_is_above_whom() {
        // 0 has 1 and 4; 1 has 2 and 3; 5 stands alone.
        let children = [2, 2, 0, 0, 0, 0];
        let parents = (0..6).map(|at| parent_in(children.iter().copied(), at));
        let expected = [None, Some(0), Some(1), Some(1), Some(0), None];
        assert!(parents.eq(expected));
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = map().to_bytes().unwrap();
        for len in 0..bytes.len() {
            assert!(
                ClusterMap::read(&bytes[..len]).is_err(),
                "{len} of {} bytes were accepted",
                bytes.len()
            );
        }
    }
}
