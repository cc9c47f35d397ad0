//! The durable form of the state.
//!
//! ```text
//! magic "IONIDIR\n" | version u16 | body | CRC-32C u32 over everything before it
//! ```
//! The body is the state field by field, little-endian, lists with a `u32` count in front. A snapshot comes from a disk and
//! is not trusted: every count is bounded by what is left to read, and references are checked, so that a restored state is
//! one that could have been written.

use std::collections::BTreeMap;

use ionian_types::{
    ClusterId, Inc, LogId, NodeId, RootEpoch, SEGMENTS_PER_SHARD_MAX, ShardId, Slot, ViewId,
};
use ionian_wire::crc::crc32c;
use ionian_wire::{Reader, WireError};

use crate::codec::{Encoder, count, range, text};
use crate::command::changes;
use crate::group::{Config, Group, Listed, Phase, RootQuorum};
use crate::history::History;
use crate::keys::Keys;
use crate::state::{Away, Log, Member, Node, Pending, Place, Shard, State};
use crate::transaction::Transaction;
use crate::tree::LogTree;
use crate::users::Users;
use crate::{ROOT_CONFIGS_MAX, ROOT_MEMBERS_MAX, TRANSACTIONS_KEPT};

const MAGIC: &[u8; 8] = b"IONIDIR\n";
/// Version 1 has no quorums: every replica had to hold a record. Versions 1 and 2 have no `next_log` and no histories. Up to
/// version 3 a root is alone, and no incarnation is known to be on a device. Up to
/// version 4 there are no transactions, up to version 5 no replacements, up to version 7 no users, up to version 9 nobody is
/// known to be away, up to version 10 transactions that failed have no reason, up to version 11 shards that have ended no copies under
/// way, up to version 13 the members of a root group change at once.
const VERSION: u16 = 14;

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

fn encode_place(out: &mut Encoder, place: &Place) {
    out.put(place.node);
    out.put(place.inc);
    out.put(place.confirmed);
    out.put(place.up);
    out.bytes(place.address.as_bytes());
}

impl State {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder(MAGIC.to_vec());
        out.put(VERSION);
        out.put(self.cluster);
        out.put(self.version);
        out.put(self.map_version);
        out.put(self.next_inc);
        out.put(self.next_log);
        out.put(self.nodes.len() as u32);
        for (id, node) in &self.nodes {
            out.put(*id);
            out.put(node.domain);
            out.bytes(node.address.as_bytes());
            out.put(node.drained);
            out.put(node.away.code());
            out.put(node.away_since_us);
        }
        out.put(self.logs.len() as u32);
        for (id, log) in &self.logs {
            out.put(*id);
            encode_log(&mut out, log);
        }
        out.put(self.next_transaction);
        out.put(self.transactions.len() as u32);
        for transaction in &self.transactions {
            transaction.encode(&mut out);
        }
        self.users.encode(&mut out);
        self.keys.encode(&mut out);
        let crc = crc32c(&out.0);
        out.put(crc);
        out.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RestoreError> {
        let mut reader = Reader::new(bytes);
        if reader.bytes(MAGIC.len()) != Ok(&MAGIC[..]) {
            return Err(RestoreError::Magic);
        }
        let written: u16 = reader.field()?;
        if written > VERSION {
            return Err(RestoreError::Version {
                found: written,
                known: VERSION,
            });
        }
        let body = bytes.len().saturating_sub(4);
        let found = Reader::new(&bytes[body..]).field()?;
        let computed = crc32c(&bytes[..body]);
        if found != computed {
            return Err(WireError::Checksum { found, computed }.into());
        }
        let mut state = Self::new();
        state.cluster = reader.field()?;
        state.version = reader.field()?;
        state.map_version = reader.field()?;
        state.next_inc = reader.field()?;
        if written >= 3 {
            state.next_log = reader.field()?;
        }
        for _ in 0..reader.field::<u32>()? {
            let id: NodeId = reader.field()?;
            let domain = reader.field()?;
            let address = text(&mut reader)?;
            let drained = written >= 5 && reader.field()?;
            let (mut away, mut away_since_us) = (Away::No, 0);
            if written >= 10 {
                let code: u8 = reader.field()?;
                away = Away::from_code(code).ok_or_else(|| range("away", u64::from(code)))?;
                away_since_us = reader.field()?;
            }
            let node = Node {
                domain,
                address,
                drained,
                away,
                away_since_us,
            };
            state.nodes.insert(id, node);
        }
        for _ in 0..reader.field::<u32>()? {
            let id: LogId = reader.field()?;
            let log = decode_log(&mut reader, written)?;
            state.logs.insert(id, log);
        }
        if written >= 5 {
            state.next_transaction = reader.field()?;
            for _ in 0..count(&mut reader, TRANSACTIONS_KEPT, "transactions")? {
                let transaction = Transaction::decode(&mut reader, written)?;
                state.transactions.push(transaction);
            }
        }
        if written >= 8 {
            state.users = Users::decode(&mut reader)?;
            state.keys = Keys::decode(&mut reader)?;
        }
        let last = state.logs.last_key_value().map_or(0, |(id, _)| id.get());
        if written < 3 {
            state.next_log = last.saturating_add(1);
        }
        if last >= state.next_log {
            return Err(range("log id", u64::from(last)).into());
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
    out.put(log.quorum.unwrap_or(0));
    encode_group(out, &log.root);
    out.put(log.floor);
    out.put(log.ceiling);
    out.put(log.base_view);
    out.put(log.view);
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
        out.put(shard.finalizing);
        out.put(shard.finalized);
        out.put(shard.gone);
        out.put(shard.members.len() as u32);
        for member in &shard.members {
            encode_place(out, &member.place);
            out.put(member.holds);
            out.put(member.next.is_some());
            out.put(member.next.unwrap_or_default());
            out.put(member.member);
            out.put(member.generation);
            out.put(member.copy.is_some());
            if let Some(copy) = &member.copy {
                encode_place(out, copy);
            }
        }
    }
    log.history.encode(out);
    out.put(log.operated);
    out.put(log.next_shard);
    log.tree.encode(out, encode_place);
}

fn decode_log(reader: &mut Reader<'_>, written: u16) -> Result<Log, WireError> {
    let name = text(reader)?;
    let mode = reader.field()?;
    let class = reader.field()?;
    let quorum: u8 = if written >= 2 { reader.field()? } else { 0 };
    let root = if written >= 4 {
        group(reader, written)?
    } else {
        group_of_one(reader)?
    };
    let has_leaf = written < 13;
    let leaf = has_leaf.then(|| place(reader, written)).transpose()?;
    let floor = reader.field()?;
    let ceiling = reader.field()?;
    let base_view = reader.field()?;
    let view: ViewId = reader.field()?;
    let logged: Option<(NodeId, Inc)> = if has_leaf {
        let is: bool = reader.field()?;
        let leaf = (reader.field()?, reader.field()?);
        is.then_some(leaf)
    } else {
        None
    };
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
        let (finalizing, finalized) = if written >= 5 {
            (reader.field()?, reader.field()?)
        } else {
            (false, false)
        };
        let gone: Option<u8> = (written >= 7).then(|| reader.field()).transpose()?;
        let count: u32 = reader.field()?;
        if count == 0 || count as usize > SEGMENTS_PER_SHARD_MAX {
            return Err(range("shard members", u64::from(count)));
        }
        let mut members = Vec::with_capacity(count as usize);
        for _ in 0..count {
            members.push(Member {
                place: place(reader, written)?,
                holds: reader.field()?,
                next: next_node(reader, written)?,
                member: reader.field()?,
                generation: reader.field()?,
                copy: copying(reader, written)?,
            });
        }
        // Before it was written: whoever does not hold everything has lost it.
        let lost = |bits, (slot, member): (usize, &Member)| bits | u8::from(!member.holds) << slot;
        let gone = gone.unwrap_or_else(|| members.iter().enumerate().fold(0, lost));
        shards.insert(
            id,
            Shard {
                rank,
                epoch,
                opened,
                settled,
                finalizing,
                finalized,
                gone,
                members,
            },
        );
    }
    let last = shards.last_key_value().map_or(0, |(id, _)| id.get());
    let history = if written >= 3 {
        History::decode(reader)?
    } else {
        History::default()
    };
    let next_leaf = if has_leaf && written >= 5 {
        let moves: bool = reader.field()?;
        let node = reader.field()?;
        moves.then_some(node)
    } else {
        None
    };
    let (operated, next_shard) = if written >= 5 {
        (reader.field()?, reader.field()?)
    } else {
        (false, last.saturating_add(1))
    };
    let tree = match leaf {
        Some(leaf) => LogTree::of_leaf(leaf, next_leaf, logged),
        None => LogTree::decode(reader, |reader| place(reader, written))?,
    };
    if last >= next_shard && !shards.is_empty() {
        return Err(range("shard id", u64::from(last)));
    }
    Ok(Log {
        name,
        mode,
        class,
        quorum: (quorum > 0).then_some(quorum),
        root,
        floor,
        ceiling,
        base_view,
        view,
        tree,
        pending,
        operated,
        next_shard,
        shards,
        history,
    })
}

fn pending(reader: &mut Reader<'_>) -> Result<Pending, WireError> {
    let view = reader.field()?;
    let since = reader.field()?;
    Ok(Pending {
        view,
        since,
        changes: changes(reader)?,
    })
}

/// A root of before there were groups: it led its epoch.
fn group_of_one(reader: &mut Reader<'_>) -> Result<Group, WireError> {
    let place = place(reader, 0)?;
    let mut group = Group::new(&[place.node], RootQuorum::Majority);
    group.places = vec![place];
    group.epoch = reader.field()?;
    if group.epoch != RootEpoch::ZERO {
        group.push(group.next_config(Slot::ZERO, 1));
        group.phase = Phase::Recorded;
    }
    Ok(group)
}

fn encode_group(out: &mut Encoder, group: &Group) {
    out.put(group.places.len() as u8);
    group
        .places
        .iter()
        .for_each(|place| encode_place(out, place));
    out.put(group.quorum.code());
    out.put(group.epoch);
    out.put(match group.phase {
        Phase::Idle => 0u8,
        Phase::Sealing => 1,
        Phase::Named => 2,
        Phase::Recorded => 3,
    });
    out.put(group.since);
    // None, or the tries made and one.
    out.put(group.prefer.map_or(0u8, |_| group.tries.saturating_add(1)));
    out.put(group.prefer.unwrap_or_default());
    out.put(group.configs.len() as u32);
    for config in &group.configs {
        out.put(config.epoch);
        out.put(config.leader);
        out.put(config.write_quorum);
        out.put(config.members.len() as u8);
        for member in &config.members {
            out.put(member.node);
            out.put(member.inc);
            out.put(member.holder);
        }
    }
    // None, or the members and one.
    let wanted = group.wanted.as_deref();
    out.put(wanted.map_or(0u8, |nodes| nodes.len() as u8 + 1));
    wanted
        .unwrap_or_default()
        .iter()
        .for_each(|node| out.put(*node));
}

fn group(reader: &mut Reader<'_>, written: u16) -> Result<Group, WireError> {
    let mut places = Vec::new();
    for _ in 0..members(reader)? {
        places.push(place(reader, written)?);
    }
    let quorum = RootQuorum::decode(reader)?;
    let epoch = reader.field()?;
    let phase = match reader.field::<u8>()? {
        0 => Phase::Idle,
        1 => Phase::Sealing,
        2 => Phase::Named,
        3 => Phase::Recorded,
        code => return Err(range("phase of the root group", u64::from(code))),
    };
    let since = reader.field()?;
    let (prefer, tries) = if written >= 5 {
        let tried: u8 = reader.field()?;
        let slot = reader.field()?;
        ((tried > 0).then_some(slot), tried.saturating_sub(1))
    } else {
        (None, 0)
    };
    let mut configs = Vec::new();
    for _ in 0..count(reader, ROOT_CONFIGS_MAX, "root configurations")? {
        let config = Config {
            epoch: reader.field()?,
            leader: reader.field()?,
            write_quorum: reader.field()?,
            members: (0..members(reader)?)
                .map(|_| {
                    Ok(Listed {
                        node: reader.field()?,
                        inc: reader.field()?,
                        holder: reader.field()?,
                    })
                })
                .collect::<Result<_, WireError>>()?,
        };
        let quorum = usize::from(config.write_quorum);
        if config.leader.index() >= config.members.len()
            || !(1..=config.members.len()).contains(&quorum)
        {
            return Err(range("root configuration", quorum as u64));
        }
        configs.push(config);
    }
    let named = matches!(phase, Phase::Named | Phase::Recorded);
    if named && configs.is_empty() {
        return Err(range("root configurations", 0));
    }
    let wanted = if written >= 14 {
        wanted_members(reader)?
    } else {
        None
    };
    Ok(Group {
        places,
        wanted,
        quorum,
        epoch,
        phase,
        since,
        prefer,
        tries,
        configs,
    })
}

/// The nodes that the members of a root group are to be on.
fn wanted_members(reader: &mut Reader<'_>) -> Result<Option<Vec<NodeId>>, WireError> {
    let Some(count) = reader.field::<u8>()?.checked_sub(1) else {
        return Ok(None);
    };
    if !(2..=ROOT_MEMBERS_MAX).contains(&usize::from(count)) {
        return Err(range("members of a root group", u64::from(count)));
    }
    let nodes = (0..count).map(|_| reader.field());
    nodes.collect::<Result<_, _>>().map(Some)
}

/// The node that takes a replica's place.
fn next_node(reader: &mut Reader<'_>, written: u16) -> Result<Option<NodeId>, WireError> {
    if written < 6 {
        return Ok(None);
    }
    let moves: bool = reader.field()?;
    let node = reader.field()?;
    Ok(moves.then_some(node))
}

/// The place that copies a replica of a shard that has ended.
fn copying(reader: &mut Reader<'_>, written: u16) -> Result<Option<Place>, WireError> {
    let copies = written >= 12 && reader.field()?;
    copies.then(|| place(reader, written)).transpose()
}

/// The number of members of a root group.
fn members(reader: &mut Reader<'_>) -> Result<u8, WireError> {
    let members: u8 = reader.field()?;
    if members == 0 || usize::from(members) > ROOT_MEMBERS_MAX {
        return Err(range("root members", u64::from(members)));
    }
    Ok(members)
}

fn place(reader: &mut Reader<'_>, written: u16) -> Result<Place, WireError> {
    Ok(Place {
        node: reader.field()?,
        inc: reader.field()?,
        confirmed: if written >= 4 {
            reader.field()?
        } else {
            Inc::ZERO
        },
        up: reader.field()?,
        address: text(reader)?,
    })
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
        let mut bytes = State::new().encode();
        bytes[8] = VERSION as u8 + 1;
        assert_eq!(
            State::decode(&bytes),
            Err(RestoreError::Version {
                found: VERSION + 1,
                known: VERSION
            })
        );
    }
}
