//! The next view of a log: the difference between what the cut log says and who has registered.
//!
//! The rules, in the order in which a shard is looked at:
//!
//! 1. Not open (fresh, or its log's cut log was lost): opened once every member is connected.
//! 2. Open, and every member lost its memory since the shard was last whole: finalized as lost and opened anew in the same
//!    view, once every member is connected.
//! 3. Open, and a member has registered again: its generation is closed, the next one opened for the new life.
//!
//! The leaf goes into the tree of the first view and of every view after it has registered again. No view is made before
//! the leaf is there: without it nothing could be ordered.

use ionian_types::{
    Gsn, Inc, Knobs, LogId, Lsn, Mutant, NodeId, SEGMENTS_PER_SHARD_MAX, SegmentId, ShardId, Slot,
    ViewId,
};
use ionian_wire::codec::Field;
use ionian_wire::entry::{Change, encode_members, write_change};
use ionian_wire::{Writer, frame};

use crate::INTENT_BYTES_MAX;
use crate::decision::{What, Why};
use crate::state::{Log, PlaceKey, Shard};

/// The largest encoded set of changes of one shard: a finalization and an opening, or a close per slot.
const SHARD_CHANGES_BYTES_MAX: usize = 512;

const NO_LENS: [u8; 8 * SEGMENTS_PER_SHARD_MAX] = [0; 8 * SEGMENTS_PER_SHARD_MAX];

/// A view to propose.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) view: ViewId,
    pub(crate) changes: Vec<u8>,
    pub(crate) decisions: Vec<(What, Why)>,
}

/// Computes the next view of `log`, and marks in it which members hold the records of the shards that the view opens.
/// `None` when nothing is to be changed, or nothing can be yet.
pub(crate) fn next_view<K: Knobs>(
    id: LogId,
    log: &mut Log,
    domain_of: impl Fn(NodeId) -> u32,
    connected: impl Fn(PlaceKey) -> bool,
) -> Option<Plan> {
    if log.pending.is_some() || log.leaf.inc == Inc::ZERO || !connected(PlaceKey::Root(id)) {
        return None;
    }
    let view = log.view.next()?;
    let mut changes = vec![
        0;
        INTENT_BYTES_MAX
            .min(TREE_BYTES + (log.shards.len() + 1) * SHARD_CHANGES_BYTES_MAX)
    ];
    let mut writer = Writer::new(&mut changes);
    let mut decisions = Vec::new();
    let class = log.class;
    for (&shard, state) in &mut log.shards {
        if writer.room() < SHARD_CHANGES_BYTES_MAX + TREE_BYTES {
            break;
        }
        let all_here = (0..state.members.len())
            .all(|slot| connected(PlaceKey::Replica(id, shard, Slot::new(slot as u8))));
        let mut holders = state.members.iter().map(|member| member.holds);
        let lost = state.opened
            && if K::mutant(Mutant::GiveUpTooEarly) {
                holders.any(|holds| !holds)
            } else {
                !holders.any(|holds| holds)
            };
        let open = |state: &mut Shard, writer: &mut Writer<'_>| {
            let mut bytes = [0; SEGMENTS_PER_SHARD_MAX * frame::Member::LEN];
            let members: Vec<frame::Member> = state
                .members
                .iter()
                .map(|member| frame::Member {
                    node: member.place.node,
                    inc: member.place.inc,
                    domain: domain_of(member.place.node),
                })
                .collect();
            let members =
                encode_members(&mut bytes, &members).expect("a shard has at most 7 members");
            let change = Change::Open {
                shard,
                rank: state.rank,
                log: id,
                class,
                quorum: members.len() as u8,
                members,
            };
            write_change(writer, &change).expect("room was checked");
            // From this view on, the shard is empty, and each of these lives holds all of it.
            state.settled = false;
            state
                .members
                .iter_mut()
                .for_each(|member| member.holds = true);
        };
        if !state.opened {
            if all_here {
                let why = if state.epoch == ViewId::ZERO {
                    Why::MembersRegistered
                } else {
                    Why::CutLogLost
                };
                open(state, &mut writer);
                decisions.push((
                    What::Open {
                        log: id,
                        shard,
                        view,
                    },
                    why,
                ));
            }
        } else if lost {
            if all_here {
                let change = Change::Finalize {
                    shard,
                    lens: &NO_LENS[..8 * state.members.len()],
                    lost_from: Some(Gsn::ZERO),
                };
                write_change(&mut writer, &change).expect("room was checked");
                open(state, &mut writer);
                decisions.push((
                    What::DeclareLost {
                        log: id,
                        shard,
                        view,
                    },
                    Why::NoCopyLeft,
                ));
            }
        } else {
            close_old_lives(
                id,
                shard,
                state,
                view,
                &domain_of,
                &mut writer,
                &mut decisions,
            );
        }
    }
    let leaf = (log.leaf.node, log.leaf.inc);
    if log.tree != Some(leaf) {
        let mut child = [0; TREE_BYTES];
        leaf.0.put(&mut child[..4]);
        leaf.1.put(&mut child[4..12]);
        // A tree without shards is of no use: it waits for the first shard.
        if !writer.is_empty() || log.shards.values().any(|shard| shard.opened) {
            let change = Change::Tree {
                children: &child[..12],
            };
            write_change(&mut writer, &change).expect("room was checked");
            decisions.push((
                What::Tree {
                    log: id,
                    view,
                    leaf: leaf.1,
                },
                Why::Registered,
            ));
        }
    }
    let len = writer.len();
    changes.truncate(len);
    changes.shrink_to_fit();
    (len > 0).then_some(Plan {
        view,
        changes,
        decisions,
    })
}

const TREE_BYTES: usize = 16;

fn close_old_lives(
    id: LogId,
    shard: ShardId,
    state: &Shard,
    view: ViewId,
    domain_of: &impl Fn(NodeId) -> u32,
    writer: &mut Writer<'_>,
    decisions: &mut Vec<(What, Why)>,
) {
    for (slot, member) in state.members.iter().enumerate() {
        if member.place.inc == member.member {
            continue;
        }
        let segment = SegmentId {
            shard,
            slot: Slot::new(slot as u8),
        };
        let change = Change::Close {
            segment,
            generation: member.generation,
            len: Lsn::ZERO,
            writer: Some(member.place.inc),
            node: member.place.node,
            domain: domain_of(member.place.node),
        };
        write_change(writer, &change).expect("room was checked");
        let inc = member.place.inc;
        decisions.push((
            What::NewLife {
                log: id,
                segment,
                view,
                inc,
            },
            Why::Registered,
        ));
    }
}
