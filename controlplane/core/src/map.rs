//! The cluster map: the public part of the state.

use ionian_types::Inc;
use ionian_wire::directory::{ClusterMap, Endpoint, LogInfo, ReplicaInfo, ShardInfo};

use crate::state::{Place, State};

impl State {
    /// The cluster map. Only what the cut log says is shown of shards and generations.
    pub(crate) fn map(&self) -> ClusterMap {
        let logs = self.logs.iter().map(|(&id, log)| LogInfo {
            log: id,
            name: log.name.clone(),
            mode: log.mode,
            class: log.class,
            root: self.endpoint(&log.root),
            shards: log
                .shards
                .iter()
                .map(|(&shard, state)| ShardInfo {
                    shard,
                    epoch: state.epoch,
                    open: state.opened,
                    quorum: state.members.len() as u8,
                    replicas: state
                        .members
                        .iter()
                        .map(|member| ReplicaInfo {
                            endpoint: self.endpoint(&member.place),
                            generation: member.generation,
                        })
                        .collect(),
                })
                .collect(),
        });
        ClusterMap {
            version: self.map_version,
            logs: logs.collect(),
        }
    }

    /// The length of the encoded map in bytes.
    pub(crate) fn map_bytes(&self) -> usize {
        let endpoint = |place: &Place| 13 + self.address(place).len();
        let log_bytes = |log: &crate::state::Log| {
            let replicas = log.shards.values().flat_map(|shard| &shard.members);
            4 + 1
                + log.name.len()
                + 2
                + endpoint(&log.root)
                + 4
                + 18 * log.shards.len()
                + replicas
                    .map(|member| endpoint(&member.place) + 8)
                    .sum::<usize>()
        };
        8 + 4 + self.logs.values().map(log_bytes).sum::<usize>()
    }

    fn endpoint(&self, place: &Place) -> Endpoint {
        Endpoint {
            node: place.node,
            inc: if place.up { place.inc } else { Inc::ZERO },
            address: self.address(place).to_owned(),
        }
    }

    /// The address of a place: the one registered, or the node's own.
    pub(crate) fn address<'a>(&'a self, place: &'a Place) -> &'a str {
        if place.address.is_empty() {
            self.nodes
                .get(&place.node)
                .map_or("", |node| node.address.as_str())
        } else {
            &place.address
        }
    }
}
