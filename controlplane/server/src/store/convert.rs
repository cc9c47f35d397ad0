//! Between Raft's own types and the messages that stand on disk and go over the network.
//!
//! Bytes of a peer or of a disk can lack any field; what Raft cannot do without is asked for here, so that nothing behind this
//! file meets a half message.

use std::collections::{BTreeMap, BTreeSet};

use ionian_control_client::proto::raft as proto;
use openraft::{BasicNode, CommittedLeaderId, Entry, EntryPayload, LeaderId};

use super::{LogId, Types};

/// The most controllers that a membership may name, learners and both halves of a change included.
const NODES_MAX: usize = 32;

/// A field is missing or makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConvertError(pub(crate) &'static str);

pub(crate) fn log_id(id: &LogId) -> proto::LogId {
    proto::LogId {
        term: id.leader_id.term,
        leader: id.leader_id.node_id,
        index: id.index,
    }
}

pub(crate) fn from_log_id(id: &proto::LogId) -> LogId {
    LogId::new(CommittedLeaderId::new(id.term, id.leader), id.index)
}

pub(crate) fn ballot(vote: &openraft::Vote<u64>) -> proto::Ballot {
    proto::Ballot {
        term: vote.leader_id.term,
        candidate: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

pub(crate) fn from_ballot(
    ballot: Option<&proto::Ballot>,
) -> Result<openraft::Vote<u64>, ConvertError> {
    let ballot = ballot.ok_or(ConvertError("a message without a ballot"))?;
    Ok(openraft::Vote {
        leader_id: LeaderId::new(ballot.term, ballot.candidate),
        committed: ballot.committed,
    })
}

pub(crate) fn membership(of: &openraft::Membership<u64, BasicNode>) -> proto::Membership {
    proto::Membership {
        configs: of
            .get_joint_config()
            .iter()
            .map(|ids| proto::VoterSet {
                ids: ids.iter().copied().collect(),
            })
            .collect(),
        nodes: of
            .nodes()
            .map(|(id, node)| proto::MemberNode {
                id: *id,
                address: node.addr.clone(),
            })
            .collect(),
    }
}

pub(crate) fn from_membership(
    of: &proto::Membership,
) -> Result<openraft::Membership<u64, BasicNode>, ConvertError> {
    let ids: usize = of.configs.iter().map(|c| c.ids.len()).sum();
    if of.nodes.len() > NODES_MAX || ids > 2 * NODES_MAX || of.configs.len() > 2 {
        return Err(ConvertError("a membership of too many controllers"));
    }
    let nodes: BTreeMap<u64, BasicNode> = of
        .nodes
        .iter()
        .map(|n| (n.id, BasicNode::new(n.address.clone())))
        .collect();
    let configs: Vec<BTreeSet<u64>> = of
        .configs
        .iter()
        .map(|c| c.ids.iter().copied().collect())
        .collect();
    let known = configs.iter().flatten().all(|id| nodes.contains_key(id));
    if !known {
        return Err(ConvertError(
            "a membership with a voter that has no address",
        ));
    }
    Ok(openraft::Membership::new(configs, nodes))
}

pub(crate) fn stored_membership(
    of: &openraft::StoredMembership<u64, BasicNode>,
) -> proto::StoredMembership {
    proto::StoredMembership {
        log_id: of.log_id().as_ref().map(log_id),
        membership: Some(membership(of.membership())),
    }
}

pub(crate) fn from_stored_membership(
    of: Option<&proto::StoredMembership>,
) -> Result<openraft::StoredMembership<u64, BasicNode>, ConvertError> {
    let of = of.ok_or(ConvertError("a snapshot without a membership"))?;
    let membership = of
        .membership
        .as_ref()
        .ok_or(ConvertError("a membership without members"))?;
    Ok(openraft::StoredMembership::new(
        of.log_id.as_ref().map(from_log_id),
        from_membership(membership)?,
    ))
}

pub(crate) fn entry(of: &Entry<Types>) -> proto::Entry {
    use proto::entry::Payload;
    proto::Entry {
        log_id: Some(log_id(&of.log_id)),
        payload: match &of.payload {
            EntryPayload::Blank => None,
            EntryPayload::Normal(proposal) => Some(Payload::Proposal(proposal.clone())),
            EntryPayload::Membership(m) => Some(Payload::Membership(membership(m))),
        },
    }
}

pub(crate) fn from_entry(of: proto::Entry) -> Result<Entry<Types>, ConvertError> {
    use proto::entry::Payload;
    let id = of
        .log_id
        .ok_or(ConvertError("an entry without a position"))?;
    Ok(Entry {
        log_id: from_log_id(&id),
        payload: match of.payload {
            None => EntryPayload::Blank,
            Some(Payload::Proposal(proposal)) => EntryPayload::Normal(proposal),
            Some(Payload::Membership(m)) => EntryPayload::Membership(from_membership(&m)?),
        },
    })
}

pub(crate) fn snapshot_meta(of: &openraft::SnapshotMeta<u64, BasicNode>) -> proto::SnapshotMeta {
    proto::SnapshotMeta {
        last: of.last_log_id.as_ref().map(log_id),
        membership: Some(stored_membership(&of.last_membership)),
        id: of.snapshot_id.clone(),
    }
}

pub(crate) fn from_snapshot_meta(
    of: Option<&proto::SnapshotMeta>,
) -> Result<openraft::SnapshotMeta<u64, BasicNode>, ConvertError> {
    let of = of.ok_or(ConvertError("a snapshot without its head"))?;
    if of.id.len() > 256 {
        return Err(ConvertError("a snapshot with too long a name"));
    }
    Ok(openraft::SnapshotMeta {
        last_log_id: of.last.as_ref().map(from_log_id),
        last_membership: from_stored_membership(of.membership.as_ref())?,
        snapshot_id: of.id.clone(),
    })
}
