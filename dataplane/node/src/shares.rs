//! What the copies of shards on one node need of the limits that they share.

use ionian_store::StoreConfig;
use ionian_types::{ClusterId, Durability, LogId, NodeId, ShardId};

/// A limit with which a copy of a shard could start, and then not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shortfall {
    /// The name of the limit.
    pub(crate) limit: &'static str,
    /// Its value, bytes.
    pub(crate) bytes: u64,
    /// Copies on the node, which share it.
    pub(crate) copies: u64,
    /// The least that would do, bytes.
    pub(crate) least: u64,
}

/// Copies of shards on a node.
pub(crate) fn copies_on<'a>(node: NodeId, shards: impl Iterator<Item = &'a Vec<NodeId>>) -> u64 {
    shards.flatten().filter(|member| **member == node).count() as u64
}

/// The limits that are too small for a node: at most one of memory and one of disk.
pub(crate) fn shortfalls<'a>(
    node: NodeId,
    memory_bytes_max: u64,
    disk_bytes_max: u64,
    logs: impl Iterator<Item = (Durability, &'a [Vec<NodeId>])> + Clone,
) -> impl Iterator<Item = Shortfall> {
    let copies = copies_on(node, logs.clone().flat_map(|(_, shards)| shards));
    let (mut memory, mut disk) = (0, 0);
    for (class, shards) in logs {
        for members in shards.iter().filter(|members| members.contains(&node)) {
            let (cluster, log, shard) = (ClusterId::default(), LogId::ZERO, ShardId::ZERO);
            let replicas = members.len() as u8;
            let config = StoreConfig::new(cluster, node, log, shard, replicas, class);
            memory = memory.max(config.memory_bytes_min());
            if class.is_flushed() {
                disk = disk.max(config.disk_bytes_min());
            }
        }
    }
    let limits = [
        ("memory_bytes_max", memory_bytes_max, memory),
        ("disk_bytes_max", disk_bytes_max, disk),
    ];
    let found = limits.map(|(limit, bytes, least)| Shortfall {
        limit,
        bytes,
        copies,
        least: least * copies,
    });
    found.into_iter().filter(|found| found.bytes < found.least)
}
