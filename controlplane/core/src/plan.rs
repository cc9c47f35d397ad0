//! The next view of a log: the difference between what the cut log says and who has registered.
//!
//! The rules, in the order in which a shard is looked at:
//!
//! 0. To be finalized: that, and nothing else ever after.
//! 1. Not open (fresh, or its log's cut log was lost): opened once every member is connected.
//! 2. Open, and every member lost its memory since the shard was last whole: finalized as lost and opened anew in the same
//!    view, once every member is connected.
//! 3. Open, and a member has registered again (and has said hello, where it has a device): its generation is closed, the next one opened for the new life. If it came
//!    without its records, and the others are enough for the quorum, it joins first: see [`OldLives`].
//! 4. Open, and a member's process was found dead: its segment is closed, or all of them: see [`Routes`].
//!
//! The tree goes into the first view, and into every view after a process of it has registered again, or every process of one
//! that is to be in its place. No view is made before each of its processes has been there once: nothing could be ordered.

use ionian_types::{
    Durability, Gsn, Inc, Knobs, LogId, Lsn, Mutant, NodeId, SEGMENTS_PER_SHARD_MAX, SegmentId,
    ShardId, Slot, ViewId,
};
use ionian_wire::codec::Field;
use ionian_wire::entry::{Change, encode_members, write_change};
use ionian_wire::tree::{TreeVertex, encode_vertices};
use ionian_wire::{Writer, frame};

use crate::INTENT_BYTES_MAX;
use crate::decision::{What, Why};
use crate::routes::Routes;
use crate::state::{Log, Member, PlaceKey, Shard};

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

/// Computes the next view of `log`, whose root leader may be there.
/// `None` when nothing is to be changed, or nothing can be yet.
pub(crate) fn next_view<K: Knobs>(
    id: LogId,
    log: &Log,
    leads: bool,
    domain_of: impl Fn(NodeId) -> u32,
    connected: impl Fn(PlaceKey) -> bool,
    dead: impl Fn(NodeId) -> bool,
    ready: impl Fn(ShardId) -> bool,
) -> Option<Plan> {
    if log.pending.is_some() || !log.tree.has_begun() || !leads {
        return None;
    }
    let view = log.view.next()?;
    let tree = (log.tree).next(|vertex| connected(PlaceKey::Vertex(id, vertex)));
    let tree_bytes = 3 + tree.as_ref().map_or(0, Vec::len) * TreeVertex::LEN;
    let mut changes = vec![
        0;
        INTENT_BYTES_MAX
            .min(tree_bytes + (log.shards.len() + 1) * SHARD_CHANGES_BYTES_MAX)
    ];
    let mut writer = Writer::new(&mut changes);
    let mut decisions = Vec::new();
    let (class, quorum) = (log.class, log.quorum);
    for (&shard, state) in &log.shards {
        if writer.room() < SHARD_CHANGES_BYTES_MAX + tree_bytes {
            break;
        }
        if state.finalized || state.finalizing && !state.opened {
            continue;
        }
        let all_here = state.members.iter().enumerate().all(|(slot, member)| {
            let key = PlaceKey::Replica(id, shard, Slot::new(slot as u8));
            connected(key) && has_begun(class, member)
        });
        let copies = quorum.unwrap_or(state.members.len() as u8);
        let lost = state.opened
            && if K::mutant(Mutant::GiveUpTooEarly) {
                state.members.iter().any(|member| !member.holds)
            } else {
                state.may_lack(copies, 0)
            };
        let open = |state: &Shard, writer: &mut Writer<'_>| {
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
                quorum: quorum.unwrap_or(members.len() as u8),
                members,
            };
            write_change(writer, &change).expect("room was checked");
        };
        if state.finalizing {
            let change = Change::Finalize {
                shard,
                lens: &NO_LENS[..8 * state.members.len()],
                lost_from: lost.then_some(Gsn::ZERO),
            };
            write_change(&mut writer, &change).expect("room was checked");
            let what = What::Finalize {
                log: id,
                shard,
                view,
            };
            decisions.push((what, Why::Asked));
        } else if !state.opened {
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
            let place = |slot: Slot| PlaceKey::Replica(id, shard, slot);
            let member = |slot: Slot| state.members.get(slot.index());
            let routes = Routes::of(
                state,
                copies,
                |slot| {
                    let member = member(slot);
                    member.is_some_and(|member| dead(member.place.node)) && !connected(place(slot))
                },
                |slot| {
                    let member = member(slot);
                    member.is_some_and(|member| !member.place.up) && !connected(place(slot))
                },
                |slot| {
                    let begun = member(slot).is_some_and(|member| has_begun(class, member));
                    begun && connected(place(slot))
                },
            );
            let old = OldLives {
                routes,
                id,
                class,
                shard,
                state,
                view,
                learns: quorum.is_some_and(|quorum| usize::from(quorum) < state.members.len())
                    && !K::mutant(Mutant::SwitchWithoutJoint),
                ready: ready(shard),
            };
            old.close(&domain_of, &mut writer, &mut decisions);
        }
    }
    // A tree without shards is of no use: it waits for the first shard.
    let orders = !writer.is_empty() || log.shards.values().any(|shard| shard.opened);
    if let Some(tree) = tree.filter(|_| orders) {
        let count = tree.len() as u32;
        let mut bytes = vec![0; tree.len() * TreeVertex::LEN];
        let vertices = encode_vertices(&mut bytes, tree.into_iter());
        let vertices = vertices.expect("what was checked when it was asked for is a tree");
        write_change(&mut writer, &Change::Tree { vertices }).expect("room was checked");
        let why = match log.tree.coming() {
            Some(_) => Why::Asked,
            None => Why::Registered,
        };
        let what = What::Tree {
            log: id,
            view,
            vertices: count,
        };
        decisions.push((what, why));
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

/// Whether the member's life is on its device, where it has one. Before, an older image of the device could follow it unseen,
/// and what the life had taken would be missed by nobody.
fn has_begun(class: Durability, member: &Member) -> bool {
    !class.is_flushed() || member.place.confirmed == member.place.inc
}

/// The members of an open shard of whose slots another life has registered.
///
/// Where fewer members than all are enough, one that comes without its records comes as a learner: the view closes its slot's
/// segment and makes the epoch joint; once the new set is ready, another view makes it a member. One slot at a time; a second
/// one in need of it while the new set is not ready is taken in at once, as it is where all members must hold a record.
struct OldLives<'a> {
    routes: Routes,
    id: LogId,
    class: Durability,
    shard: ShardId,
    state: &'a Shard,
    view: ViewId,
    learns: bool,
    ready: bool,
}

impl OldLives<'_> {
    /// Whether another life than the one in the cut log has taken the member's place, and counts.
    fn is_replaced(&self, (slot, member): (usize, &Member)) -> bool {
        let writes = !member.is_shut() || self.routes.opens(slot);
        let goes_on = writes && self.routes.closes(slot).is_none();
        goes_on && member.is_replaced() && has_begun(self.class, member)
    }

    fn close(
        &self,
        domain_of: &impl Fn(NodeId) -> u32,
        writer: &mut Writer<'_>,
        decisions: &mut Vec<(What, Why)>,
    ) {
        let members = || self.state.members.iter().enumerate();
        let joining = members().find(|(_, member)| member.is_joining());
        if let Some((slot, member)) = joining
            && self.ready
            && !self.is_replaced((slot, member))
        {
            // Alone of its shard: what makes the epoch another one makes the new set show again that it is ready. And before
            // another slot's new life is looked at, which then can join like this one.
            let shard = self.shard;
            write_change(writer, &Change::Activate { shard }).expect("room was checked");
            decisions.push(self.new_life(slot, member.place.inc));
            return;
        }
        // What else is to be done waits for the next view: it may name those who write.
        let before = writer.len();
        for (slot, _) in members() {
            if let Some(why) = self.routes.closes(slot) {
                self.close_segment(slot, None, domain_of, writer);
                let segment = self.segment(slot);
                let (log, view) = (self.id, self.view);
                decisions.push((What::Shut { log, segment, view }, why));
            }
        }
        if writer.len() > before {
            return;
        }
        // Whom a joint epoch would name where nobody writes is not known here.
        let others_write =
            |slot: usize| members().all(|(other, member)| other == slot || !member.is_shut());
        let learner = joining
            .or_else(|| {
                let learner = members().find(|&(slot, member)| {
                    self.is_replaced((slot, member)) && !member.holds && others_write(slot)
                });
                learner.filter(|_| self.learns)
            })
            .map(|(slot, _)| slot);
        for (slot, member) in members() {
            if !self.is_replaced((slot, member)) || Some(slot) == learner {
                continue;
            }
            self.close_segment(slot, Some(member.place.inc), domain_of, writer);
            decisions.push(self.new_life(slot, member.place.inc));
        }
        let Some(slot) = learner else { return };
        let member = &self.state.members[slot];
        if !self.is_replaced((slot, member)) || !others_write(slot) {
            return;
        }
        if member.generation != ViewId::ZERO {
            self.close_segment(slot, None, domain_of, writer);
        }
        let mut bytes = [0; SEGMENTS_PER_SHARD_MAX * frame::Member::LEN];
        let members: Vec<frame::Member> = members()
            .map(|(slot, member)| frame::Member {
                node: member.place.node,
                inc: if self.is_replaced((slot, member)) {
                    member.place.inc
                } else {
                    member.member
                },
                domain: domain_of(member.place.node),
            })
            .collect();
        let members = encode_members(&mut bytes, &members).expect("a shard has at most 7 members");
        let shard = self.shard;
        write_change(writer, &Change::Joint { shard, members }).expect("room was checked");
        decisions.push(self.new_life(slot, member.place.inc));
    }

    fn close_segment(
        &self,
        slot: usize,
        next: Option<Inc>,
        domain_of: &impl Fn(NodeId) -> u32,
        writer: &mut Writer<'_>,
    ) {
        let member = &self.state.members[slot];
        let change = Change::Close {
            segment: self.segment(slot),
            generation: member.generation,
            len: Lsn::ZERO,
            writer: next,
            node: member.place.node,
            domain: domain_of(member.place.node),
        };
        write_change(writer, &change).expect("room was checked");
    }

    fn segment(&self, slot: usize) -> SegmentId {
        SegmentId {
            shard: self.shard,
            slot: Slot::new(slot as u8),
        }
    }

    fn new_life(&self, slot: usize, inc: Inc) -> (What, Why) {
        let what = What::NewLife {
            log: self.id,
            segment: self.segment(slot),
            view: self.view,
            inc,
        };
        (what, Why::Registered)
    }
}
