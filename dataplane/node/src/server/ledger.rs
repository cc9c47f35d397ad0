//! What the stores of a process have of its limits: each its share, given when its place comes and taken back when it goes.

use std::collections::BTreeMap;

use super::place::{PlaceSpec, Share};
use super::{ServerOptions, StartError};
use crate::role::Place;
use crate::shares::copies_on;

/// The shares given.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    given: BTreeMap<Place, Share>,
}

impl Ledger {
    /// The share of a place: what its specification asks for, or an equal part of the whole as far as there is that much.
    ///
    /// # Errors
    /// [`StartError::NoRoom`]; effect none.
    pub(super) fn give(
        &mut self,
        options: &ServerOptions,
        spec: &PlaceSpec,
    ) -> Result<Share, StartError> {
        let config = spec.store_config(options);
        let Some(config) = config.filter(|_| matches!(spec.place, Place::Replica(..))) else {
            return Ok(Share::default());
        };
        let logs = options.spec.logs.iter();
        let copies = copies_on(options.node, logs.flat_map(|log| &log.shards));
        let copies = copies.max(options.copies_planned).max(1);
        let given = self.given.values();
        let (memory, disk) = given.fold((0, 0), |(memory, disk): (u64, u64), share| {
            (memory + share.memory, disk + share.disk)
        });
        let part = |limit: &'static str, whole: u64, given: u64, asked: Option<u64>, least: u64| {
            let left = whole.saturating_sub(given);
            let part = asked.unwrap_or((whole / copies).min(left));
            if part > left || part < least {
                return Err(StartError::NoRoom {
                    place: spec.place,
                    limit,
                    left,
                    least: least.max(asked.unwrap_or(0)),
                });
            }
            Ok(part)
        };
        let mut share = Share {
            memory: part(
                "memory_bytes_max",
                options.memory_bytes_max,
                memory,
                spec.memory_bytes_max,
                config.memory_bytes_min(),
            )?,
            disk: 0,
        };
        if spec.class.is_flushed() {
            share.disk = part(
                "disk_bytes_max",
                options.disk_bytes_max,
                disk,
                spec.disk_bytes_max,
                config.disk_bytes_min(),
            )?;
        }
        self.given.insert(spec.place, share);
        Ok(share)
    }

    /// The place is gone, or did not come.
    pub(super) fn take_back(&mut self, place: Place) {
        self.given.remove(&place);
    }
}

#[cfg(test)]
mod tests {
    use ionian_control_core::ClusterSpec;
    use ionian_types::{Durability, LogId, ShardId, Slot};

    use super::*;

    fn spec(shard: u32) -> PlaceSpec {
        let place = Place::Replica(LogId::new(1), ShardId::new(shard), Slot::ZERO);
        PlaceSpec {
            replicas: 2,
            ..PlaceSpec::new(place, "default", Durability::D1)
        }
    }

    #[test]
    fn shares_are_equal_and_come_back_and_there_is_an_end_to_them() {
        let mut options = ServerOptions::in_memory(ClusterSpec::default());
        (options.memory_bytes_max, options.disk_bytes_max) = (1 << 30, 1 << 40);
        options.copies_planned = 4;
        let mut ledger = Ledger::default();
        for shard in 0..4 {
            let share = ledger.give(&options, &spec(shard)).expect("room");
            assert_eq!((share.memory, share.disk), (1 << 28, 1 << 38));
        }
        let full = ledger.give(&options, &spec(4)).unwrap_err().to_string();
        assert!(full.contains("memory_bytes_max has 0B left"), "{full}");
        ledger.take_back(spec(2).place);
        let asked = PlaceSpec {
            disk_bytes_max: Some(1 << 39),
            ..spec(4)
        };
        let full = ledger.give(&options, &asked).unwrap_err().to_string();
        assert!(full.contains("disk_bytes_max has 256GiB left"), "{full}");
        assert!(ledger.give(&options, &spec(4)).is_ok());
        let root = PlaceSpec::new(
            Place::Root(LogId::new(1), Slot::ZERO),
            "default",
            Durability::D1,
        );
        assert_eq!(
            ledger.give(&options, &root).expect("none"),
            Share::default()
        );
    }
}
