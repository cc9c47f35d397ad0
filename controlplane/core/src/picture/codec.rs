//! Pictures as bytes, within the answers to operators.

use ionian_types::{NodeId, SEGMENTS_PER_SHARD_MAX, Slot, ViewId};
use ionian_wire::directory::{LOGS_MAX, ROOT_MEMBERS_MAX, SHARDS_PER_LOG_MAX};
use ionian_wire::tree::TREE_VERTICES_MAX;
use ionian_wire::{Reader, WireError};

use super::{
    ClusterPicture, LogPicture, NodePicture, PlacePicture, ReplicaPicture, RootPhase, RootPicture,
    ShardPicture, ShardStage, TransactionPicture, UserPicture, VertexPicture,
};
use crate::codec::{Encoder, count, range, text};
use crate::group::RootQuorum;
use crate::transaction::{Progress, TASKS_MAX};
use crate::tree::{put_shape, take_shape};
use crate::users::{USERS_MAX, rights, user_name};
use crate::{NODES_MAX, TRANSACTIONS_KEPT};

/// Stands for "no node": nodes of a cluster are numbered from 1.
const NO_NODE: NodeId = NodeId::MAX;
/// Stands for "no slot".
const NO_SLOT: Slot = Slot::new(u8::MAX);

fn list<T>(out: &mut Encoder, items: &[T], each: impl Fn(&mut Encoder, &T)) {
    out.put(items.len() as u32);
    items.iter().for_each(|item| each(out, item));
}

fn read_list<T>(
    reader: &mut Reader<'_>,
    max: usize,
    field: &'static str,
    each: impl Fn(&mut Reader<'_>) -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    let items = count(reader, max, field)?;
    (0..items).map(|_| each(reader)).collect()
}

pub(crate) fn encode(out: &mut Encoder, picture: &ClusterPicture) {
    out.put(picture.cluster);
    out.put(picture.version);
    list(out, &picture.nodes, |out, node| {
        out.put(node.node);
        out.put(node.domain);
        out.bytes(node.address.as_bytes());
        out.put(node.drained);
        out.put(node.places);
        out.put(node.up);
    });
    list(out, &picture.logs, encode_log);
    encode_transactions(out, &picture.under_way);
}

pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<ClusterPicture, WireError> {
    Ok(ClusterPicture {
        cluster: reader.field()?,
        version: reader.field()?,
        nodes: read_list(reader, NODES_MAX, "nodes", |reader| {
            Ok(NodePicture {
                node: reader.field()?,
                domain: reader.field()?,
                address: text(reader)?,
                drained: reader.field()?,
                places: reader.field()?,
                up: reader.field()?,
            })
        })?,
        logs: read_list(reader, LOGS_MAX, "logs", decode_log)?,
        under_way: decode_transactions(reader)?,
    })
}

fn encode_log(out: &mut Encoder, log: &LogPicture) {
    out.put(log.log);
    out.bytes(log.name.as_bytes());
    out.put(log.mode);
    out.put(log.class);
    out.put(log.quorum.unwrap_or(0));
    out.put(log.view);
    out.put(log.pending.unwrap_or(ViewId::ZERO));
    out.put(log.floor);
    out.put(log.ceiling);
    let root = &log.root;
    out.put(root.epoch);
    out.put(match root.phase {
        RootPhase::Idle => 0u8,
        RootPhase::Sealing => 1,
        RootPhase::Named => 2,
        RootPhase::Recorded => 3,
    });
    out.put(root.quorum.code());
    out.put(root.write_quorum);
    out.put(root.leader.unwrap_or(NO_SLOT));
    out.put(root.preferred.unwrap_or(NO_SLOT));
    list(out, &root.members, encode_place);
    list(out, &log.tree, encode_vertex);
    list(out, &log.tree_next, encode_vertex);
    list(out, &log.shards, |out, shard| {
        out.put(shard.shard);
        out.put(shard.epoch);
        out.put(match shard.stage {
            ShardStage::Opening => 0u8,
            ShardStage::Open => 1,
            ShardStage::Finalizing => 2,
            ShardStage::Finalized => 3,
        });
        out.put(shard.whole);
        list(out, &shard.replicas, |out, replica| {
            encode_place(out, &replica.place);
            out.put(replica.listed);
            out.put(replica.generation);
            out.put(replica.holds);
            out.put(replica.next.unwrap_or(NO_NODE));
        });
    });
}

fn encode_vertex(out: &mut Encoder, vertex: &VertexPicture) {
    out.put(vertex.vertex);
    put_shape(out, &vertex.shape);
    encode_place(out, &vertex.place);
    out.put(vertex.next.unwrap_or(NO_NODE));
    out.put(vertex.shards);
}

fn decode_vertex(reader: &mut Reader<'_>) -> Result<VertexPicture, WireError> {
    Ok(VertexPicture {
        vertex: reader.field()?,
        shape: take_shape(reader)?,
        place: decode_place(reader)?,
        next: node(reader)?,
        shards: reader.field()?,
    })
}

fn decode_log(reader: &mut Reader<'_>) -> Result<LogPicture, WireError> {
    Ok(LogPicture {
        log: reader.field()?,
        name: text(reader)?,
        mode: reader.field()?,
        class: reader.field()?,
        quorum: Some(reader.field()?).filter(|quorum: &u8| *quorum > 0),
        view: reader.field()?,
        pending: Some(reader.field()?).filter(|view| *view > ViewId::ZERO),
        floor: reader.field()?,
        ceiling: reader.field()?,
        root: RootPicture {
            epoch: reader.field()?,
            phase: match reader.field::<u8>()? {
                0 => RootPhase::Idle,
                1 => RootPhase::Sealing,
                2 => RootPhase::Named,
                3 => RootPhase::Recorded,
                code => return Err(range("phase of a root group", u64::from(code))),
            },
            quorum: RootQuorum::decode(reader)?,
            write_quorum: reader.field()?,
            leader: slot(reader)?,
            preferred: slot(reader)?,
            members: read_list(reader, ROOT_MEMBERS_MAX, "root members", decode_place)?,
        },
        tree: read_list(reader, TREE_VERTICES_MAX, "tree vertices", decode_vertex)?,
        tree_next: read_list(reader, TREE_VERTICES_MAX, "tree vertices", decode_vertex)?,
        shards: read_list(reader, SHARDS_PER_LOG_MAX, "shards", decode_shard)?,
    })
}

fn decode_shard(reader: &mut Reader<'_>) -> Result<ShardPicture, WireError> {
    Ok(ShardPicture {
        shard: reader.field()?,
        epoch: reader.field()?,
        stage: match reader.field::<u8>()? {
            0 => ShardStage::Opening,
            1 => ShardStage::Open,
            2 => ShardStage::Finalizing,
            3 => ShardStage::Finalized,
            code => return Err(range("stage of a shard", u64::from(code))),
        },
        whole: reader.field()?,
        replicas: read_list(reader, SEGMENTS_PER_SHARD_MAX, "replicas", |reader| {
            Ok(ReplicaPicture {
                place: decode_place(reader)?,
                listed: reader.field()?,
                generation: reader.field()?,
                holds: reader.field()?,
                next: node(reader)?,
            })
        })?,
    })
}

fn encode_place(out: &mut Encoder, place: &PlacePicture) {
    out.put(place.node);
    out.put(place.inc);
    out.put(place.up);
}

fn decode_place(reader: &mut Reader<'_>) -> Result<PlacePicture, WireError> {
    Ok(PlacePicture {
        node: reader.field()?,
        inc: reader.field()?,
        up: reader.field()?,
    })
}

fn node(reader: &mut Reader<'_>) -> Result<Option<NodeId>, WireError> {
    Ok(Some(reader.field()?).filter(|node| *node != NO_NODE))
}

fn slot(reader: &mut Reader<'_>) -> Result<Option<Slot>, WireError> {
    Ok(Some(reader.field()?).filter(|slot| *slot != NO_SLOT))
}

pub(crate) fn encode_transactions(out: &mut Encoder, transactions: &[TransactionPicture]) {
    list(out, transactions, |out, transaction| {
        out.put(transaction.id);
        out.put(transaction.at_us);
        out.put(transaction.progress.code());
        out.put(transaction.done);
        out.bytes(transaction.why.as_bytes());
        list(out, &transaction.steps, |out, step| {
            out.bytes(step.as_bytes());
        });
    });
}

pub(crate) fn decode_transactions(
    reader: &mut Reader<'_>,
) -> Result<Vec<TransactionPicture>, WireError> {
    read_list(reader, TRANSACTIONS_KEPT, "transactions", |reader| {
        Ok(TransactionPicture {
            id: reader.field()?,
            at_us: reader.field()?,
            progress: Progress::decode(reader)?,
            done: reader.field()?,
            why: text(reader)?,
            steps: read_list(reader, TASKS_MAX, "steps", text)?,
        })
    })
}

pub(crate) fn encode_users(out: &mut Encoder, users: &[UserPicture]) {
    list(out, users, |out, user| {
        out.bytes(user.name.as_bytes());
        out.put(user.number);
        out.put(user.serial);
        list(out, &user.rights, |out, (log, rights)| {
            out.bytes(log.as_bytes());
            out.put(rights.bits());
        });
    });
}

pub(crate) fn decode_users(reader: &mut Reader<'_>) -> Result<Vec<UserPicture>, WireError> {
    read_list(reader, USERS_MAX, "users", |reader| {
        Ok(UserPicture {
            name: user_name(reader)?,
            number: reader.field()?,
            serial: reader.field()?,
            rights: read_list(reader, LOGS_MAX, "rights of a user", |reader| {
                Ok((text(reader)?, rights(reader)?))
            })?,
        })
    })
}
