//! The cluster map: what a client or a node must know to find everyone. Read rarely, so it may allocate.

use ionian_types::{
    Durability, Inc, LogId, NodeId, OrderingMode, SEGMENTS_PER_SHARD_MAX, ShardId, Slot, ViewId,
};

use crate::codec::{Reader, WireError, Writer};

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
    /// The leaf of its ordering tree.
    pub leaf: Endpoint,
    /// Its shards, by rising id.
    pub shards: Vec<ShardInfo>,
    /// Places that another node is to take: it prepares itself and registers, and has them from then on.
    pub coming: Vec<Coming>,
}

/// A place that another node is to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coming {
    /// The node.
    pub node: NodeId,
    /// The replica whose place it takes; none for the leaf.
    pub replica: Option<(ShardId, Slot)>,
}

/// One shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardInfo {
    /// Its id.
    pub shard: ShardId,
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
            log.leaf.write(writer)?;
            count(writer, log.shards.len(), SHARDS_PER_LOG_MAX, "shards")?;
            for shard in &log.shards {
                writer.field(shard.shard)?;
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
                writer.field(coming.replica.is_some())?;
                let (shard, slot) = coming.replica.unwrap_or_default();
                writer.field(shard)?;
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
            let leaf = Endpoint::read(&mut reader)?;
            let mut shards = Vec::new();
            for _ in 0..bounded(&mut reader, SHARDS_PER_LOG_MAX, "shards")? {
                let shard = reader.field()?;
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
                let is_replica: bool = reader.field()?;
                let replica = (reader.field()?, reader.field()?);
                coming.push(Coming {
                    node,
                    replica: is_replica.then_some(replica),
                });
            }
            logs.push(LogInfo {
                log,
                name,
                mode,
                class,
                roots,
                leader,
                leaf,
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
        ClusterMap {
            version: 3,
            logs: vec![LogInfo {
                log: LogId::new(1),
                name: String::from("default"),
                mode: OrderingMode::Scalog,
                class: Durability::D1,
                roots: vec![endpoint(9), endpoint(8)],
                leader: Some(Slot::new(1)),
                leaf: endpoint(7),
                coming: vec![
                    Coming {
                        node: NodeId::new(5),
                        replica: Some((ShardId::new(2), Slot::ZERO)),
                    },
                    Coming {
                        node: NodeId::new(6),
                        replica: None,
                    },
                ],
                shards: vec![ShardInfo {
                    shard: ShardId::new(2),
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
