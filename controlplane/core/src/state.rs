//! The durable state: what must survive a restart of the controller, and how a logged view changes it. It changes by
//! [commands](crate::Command) alone.

use std::collections::BTreeMap;

use ionian_types::{
    ClusterId, Durability, Gsn, Inc, LogId, NodeId, OrderingMode, ShardId, Slot, VertexId, ViewId,
};
use ionian_wire::entry::{Change, Changes};
use ionian_wire::tree::OrderKey;

use crate::decision::What;
use crate::group::Group;
use crate::history::History;
use crate::keys::Keys;
use crate::spec::LogSpec;
use crate::transaction::Transaction;
use crate::tree::LogTree;
use crate::users::Users;

/// Everything that is durable. Controllers that apply the same commands hold the same bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    pub(crate) cluster: ClusterId,
    /// Rises by one with every command; 0 before the first.
    pub(crate) version: u64,
    /// Rises with every change of the cluster map.
    pub(crate) map_version: u64,
    /// The next incarnation to issue.
    pub(crate) next_inc: u64,
    /// The next log id to issue.
    pub(crate) next_log: u32,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) logs: BTreeMap<LogId, Log>,
    /// The number of the next transaction.
    pub(crate) next_transaction: u64,
    /// Those that run, and the last of those that do not, by rising number.
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) users: Users,
    pub(crate) keys: Keys,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Node {
    pub(crate) domain: u32,
    pub(crate) address: String,
    /// It takes no new places.
    pub(crate) drained: bool,
    /// Whether its process takes part.
    pub(crate) away: Away,
    /// When it last was found not to, in microseconds since 1970; 0 for never.
    pub(crate) away_since_us: u64,
}

/// Whether the process of a node takes part.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Away {
    /// As far as is known.
    #[default]
    No,
    /// It was found dead, and no place of it has come since.
    Dead,
    /// It was found to be heard by nobody but the controllers, and has not been tried again since.
    CutOff,
}

impl Away {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::No => 0,
            Self::Dead => 1,
            Self::CutOff => 2,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::No),
            1 => Some(Self::Dead),
            2 => Some(Self::CutOff),
            _ => None,
        }
    }
}

/// One log. `view` and the `member`, `generation`, `epoch`, `opened` fields of its shards say what the cut log says;
/// the `role` fields say who has registered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Log {
    pub(crate) name: String,
    pub(crate) mode: OrderingMode,
    pub(crate) class: Durability,
    /// How many replicas must hold a record; all of a shard if none is said.
    pub(crate) quorum: Option<u8>,
    pub(crate) root: Group,
    pub(crate) tree: LogTree,
    /// An operator has changed its places: a configuration no longer says where they are.
    pub(crate) operated: bool,
    /// The next shard to be added.
    pub(crate) next_shard: u32,
    /// Positions below may belong to lost cut logs.
    pub(crate) floor: Gsn,
    /// Positions below are reserved.
    pub(crate) ceiling: Gsn,
    /// The last view of the lost cut logs; 0 when none was lost.
    pub(crate) base_view: ViewId,
    /// The last view that is logged, or void with a lost cut log.
    pub(crate) view: ViewId,
    pub(crate) pending: Option<Pending>,
    pub(crate) shards: BTreeMap<ShardId, Shard>,
    pub(crate) history: History,
}

/// An intent that may have been seen and is not known to be logged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pending {
    pub(crate) view: ViewId,
    pub(crate) changes: Vec<u8>,
    /// The state's version that made it.
    pub(crate) since: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shard {
    pub(crate) rank: u32,
    /// The last view that changed it.
    pub(crate) epoch: ViewId,
    pub(crate) opened: bool,
    /// Whether it was reported whole since it was last opened: its members have begun to hold records.
    pub(crate) settled: bool,
    /// It is to end for good.
    pub(crate) finalizing: bool,
    /// It has ended for good.
    pub(crate) finalized: bool,
    /// A bit per member whose memory was lost since the shard was last whole: of fewer than a record has copies, none of them
    /// can have taken the last one.
    pub(crate) gone: u8,
    /// In slot order.
    pub(crate) members: Vec<Member>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    pub(crate) place: Place,
    /// Whether this member may hold the shard's committed records.
    pub(crate) holds: bool,
    /// The node that takes the place once it registers, or, of a shard that has ended, once its copy is whole.
    pub(crate) next: Option<NodeId>,
    /// Of a shard that has ended: the place at `next`, which copies. The present one goes on until it holds everything.
    pub(crate) copy: Option<Place>,
    /// The incarnation in the cut log.
    pub(crate) member: Inc,
    /// The open generation in the cut log; 0 when closed.
    pub(crate) generation: ViewId,
}

impl Member {
    /// Whether another life has registered than the one in the cut log.
    pub(crate) fn is_replaced(&self) -> bool {
        self.place.inc != self.member
    }

    /// Whether the life in the cut log is a new member of a joint epoch, of an open shard: it does not write yet.
    pub(crate) fn is_joining(&self) -> bool {
        self.member != Inc::ZERO && self.generation == ViewId::ZERO
    }
}

/// A role of a log, and who fills it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) node: NodeId,
    /// The last incarnation issued; 0 before the first registration.
    pub(crate) inc: Inc,
    /// The last incarnation that its device is known to name. One that finds an earlier one on its device has an old image
    /// of it.
    pub(crate) confirmed: Inc,
    /// Whether the process is there, as the map says it.
    pub(crate) up: bool,
    /// The address registered; empty for the node's own.
    pub(crate) address: String,
}

/// Names a [`Place`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum PlaceKey {
    Root(LogId, Slot),
    /// An aggregator or a leaf.
    Vertex(LogId, VertexId),
    Replica(LogId, ShardId, Slot),
    /// The one that is to have a replica's place of a shard that has ended, while it copies.
    Copy(LogId, ShardId, Slot),
}

impl PlaceKey {
    pub(crate) const fn log(self) -> LogId {
        match self {
            Self::Root(log, _)
            | Self::Vertex(log, _)
            | Self::Replica(log, ..)
            | Self::Copy(log, ..) => log,
        }
    }
}

impl Place {
    pub(crate) const fn new(node: NodeId) -> Self {
        Self {
            node,
            inc: Inc::ZERO,
            confirmed: Inc::ZERO,
            up: false,
            address: String::new(),
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl Member {
    pub(crate) const fn new(node: NodeId) -> Self {
        Self {
            place: Place::new(node),
            holds: true,
            next: None,
            copy: None,
            member: Inc::ZERO,
            generation: ViewId::ZERO,
        }
    }

    /// Whether the present life of this slot is among those that `held` says hold everything.
    fn is_held(&self, slot: usize, held: u8) -> bool {
        held & 1 << slot != 0 && self.place.inc == self.member
    }
}

impl Shard {
    pub(crate) const fn new(rank: u32, members: Vec<Member>) -> Self {
        Self {
            rank,
            epoch: ViewId::ZERO,
            opened: false,
            settled: false,
            finalizing: false,
            finalized: false,
            gone: 0,
            members,
        }
    }

    /// The shard was reported whole, with the members in the cut log; a life registered since is not among them. Whether
    /// that is news.
    pub(crate) fn settle(&mut self, held: u8) -> bool {
        let news = self.would_settle(held);
        self.settled = true;
        self.gone &= self.replaced();
        for (slot, member) in self.members.iter_mut().enumerate() {
            member.holds |= member.is_held(slot, held);
        }
        news
    }

    /// Whether [`Self::settle`] would be news. Asked for every report, of which there is one per shard and sync.
    pub(crate) fn would_settle(&self, held: u8) -> bool {
        let mut members = self.members.iter().enumerate();
        let gone = self.gone & !self.replaced();
        !self.settled
            || gone != 0
            || members.any(|(slot, member)| !member.holds && member.is_held(slot, held))
    }

    /// A bit per member of which another life has registered than the one in the cut log: no report is about it.
    fn replaced(&self) -> u8 {
        let members = self.members.iter().enumerate();
        members.fold(0, |bits, (slot, member)| {
            bits | u8::from(member.is_replaced()) << slot
        })
    }

    /// Whether `node` is to take the slot's place, and of the other members one does not hold every record yet, or is not known to.
    pub(crate) fn would_leave_too_few(&self, slot: Slot, node: NodeId) -> bool {
        let members = || self.members.iter().enumerate();
        let (mut own, mut others) = (members(), members());
        let planned = own.any(|(at, it)| at == slot.index() && it.next == Some(node));
        let whole = |member: &Member| member.holds && !member.is_replaced() && !member.is_joining();
        self.opened && planned && others.any(|(at, it)| at != slot.index() && !whole(it))
    }

    /// Whether the last copy of a record may be gone once the members in `more` have lost their memory too: nobody holds
    /// everything, and as many have lost it since the shard was whole as a record has copies for certain.
    pub(crate) fn may_lack(&self, quorum: u8, more: u8) -> bool {
        let mut members = self.members.iter().enumerate();
        let holds = members.any(|(slot, member)| member.holds && more >> slot & 1 == 0);
        !holds && (self.gone | more).count_ones() >= u32::from(quorum)
    }
}

impl State {
    /// The state before the first command.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            cluster: ClusterId::new(0),
            version: 0,
            map_version: 1,
            next_inc: 1,
            next_log: 1,
            nodes: BTreeMap::new(),
            logs: BTreeMap::new(),
            next_transaction: 1,
            transactions: Vec::new(),
            users: Users::new(),
            keys: Keys::new(),
        }
    }

    pub(crate) fn place(&self, key: PlaceKey) -> Option<&Place> {
        let log = self.logs.get(&key.log())?;
        match key {
            PlaceKey::Root(_, slot) => log.root.places.get(slot.index()),
            PlaceKey::Vertex(_, vertex) => log.tree.vertex(vertex).map(|vertex| &vertex.place),
            PlaceKey::Replica(_, shard, slot) => log
                .shards
                .get(&shard)?
                .members
                .get(slot.index())
                .map(|member| &member.place),
            PlaceKey::Copy(_, shard, slot) => log
                .shards
                .get(&shard)?
                .members
                .get(slot.index())?
                .copy
                .as_ref(),
        }
    }

    pub(crate) fn place_mut(&mut self, key: PlaceKey) -> Option<&mut Place> {
        let log = self.logs.get_mut(&key.log())?;
        match key {
            PlaceKey::Root(_, slot) => log.root.places.get_mut(slot.index()),
            PlaceKey::Vertex(_, vertex) => {
                log.tree.vertex_mut(vertex).map(|vertex| &mut vertex.place)
            }
            PlaceKey::Replica(_, shard, slot) => log
                .shards
                .get_mut(&shard)?
                .members
                .get_mut(slot.index())
                .map(|member| &mut member.place),
            PlaceKey::Copy(_, shard, slot) => log
                .shards
                .get_mut(&shard)?
                .members
                .get_mut(slot.index())?
                .copy
                .as_mut(),
        }
    }

    /// What a place is called in sentences.
    pub(crate) fn place_name(&self, key: PlaceKey) -> String {
        match key {
            PlaceKey::Root(log, slot) => match self.logs.get(&log) {
                Some(log) if !log.root.is_single() => format!("root member {slot}"),
                _ => String::from("the root"),
            },
            PlaceKey::Vertex(log, vertex) => match self.logs.get(&log) {
                Some(log) => log.tree.name(vertex),
                None => format!("vertex {vertex}"),
            },
            PlaceKey::Replica(_, shard, slot) => format!("replica {shard}.{slot}"),
            PlaceKey::Copy(_, shard, slot) => format!("the coming replica {shard}.{slot}"),
        }
    }

    /// Every place of the cluster, those that copy included.
    pub(crate) fn places(&self) -> impl Iterator<Item = (PlaceKey, &Place)> {
        self.logs.iter().flat_map(|(&id, log)| {
            let replicas = log.shards.iter().flat_map(move |(&shard, state)| {
                state
                    .members
                    .iter()
                    .enumerate()
                    .flat_map(move |(slot, member)| {
                        let slot = Slot::new(slot as u8);
                        let copy = member.copy.iter();
                        let copy = copy.map(move |copy| (PlaceKey::Copy(id, shard, slot), copy));
                        [(PlaceKey::Replica(id, shard, slot), &member.place)]
                            .into_iter()
                            .chain(copy)
                    })
            });
            let roots = log.root.places.iter().enumerate();
            let roots =
                roots.map(move |(slot, place)| (PlaceKey::Root(id, Slot::new(slot as u8)), place));
            let tree = log.tree.vertices();
            let tree = tree.map(move |(vertex, it)| (PlaceKey::Vertex(id, vertex), &it.place));
            roots.chain(tree).chain(replicas)
        })
    }
}

impl Log {
    pub(crate) fn new(spec: &LogSpec) -> Self {
        let shard = |(rank, nodes): (usize, &Vec<NodeId>)| {
            let members = nodes.iter().map(|&node| Member::new(node)).collect();
            let rank = rank as u32;
            (ShardId::new(rank), Shard::new(rank, members))
        };
        Self {
            name: spec.name.clone(),
            mode: spec.mode,
            class: spec.class,
            quorum: spec.quorum,
            root: Group::new(&spec.root, spec.root_quorum),
            tree: LogTree::new(&spec.tree),
            operated: false,
            next_shard: spec.shards.len() as u32,
            floor: Gsn::ZERO,
            ceiling: Gsn::ZERO,
            base_view: ViewId::ZERO,
            view: ViewId::ZERO,
            pending: None,
            shards: spec.shards.iter().enumerate().map(shard).collect(),
            history: History::default(),
        }
    }

    /// The shards that have a place in the tree, in its order: those that are open, or are to be.
    pub(crate) fn order(&self) -> Vec<OrderKey> {
        let shards = self.shards.iter();
        let lives = shards.filter(|(_, shard)| !shard.finalized && !shard.finalizing);
        let mut order: Vec<OrderKey> = lives.map(|(&id, shard)| (shard.rank, id)).collect();
        order.sort_unstable();
        order
    }

    /// Whether no view is on its way and no shard is open: nothing needs a tree.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_none() && !self.shards.values().any(|shard| shard.opened)
    }

    /// Says what differs between this log and a spec of the same name.
    pub(crate) fn differs_from(&self, spec: &LogSpec) -> Option<&'static str> {
        let nodes = |shard: &Shard| -> Vec<NodeId> {
            shard
                .members
                .iter()
                .map(|member| member.place.node)
                .collect()
        };
        if self.mode != spec.mode {
            Some("ordering mode")
        } else if self.class != spec.class {
            Some("durability")
        } else if self.quorum != spec.quorum {
            Some("quorum")
        } else if self.operated {
            None
        } else if !self
            .root
            .places
            .iter()
            .map(|place| place.node)
            .eq(spec.root.iter().copied())
        {
            Some("root")
        } else if self.tree.differs_from(&spec.tree) {
            Some("tree")
        } else if self.root.quorum != spec.root_quorum {
            Some("quorum of the root group")
        } else if self.shards.len() != spec.shards.len() {
            Some("number of shards")
        } else if !self
            .shards
            .values()
            .map(nodes)
            .eq(spec.shards.iter().cloned())
        {
            Some("placement of replicas")
        } else {
            None
        }
    }

    /// Whether the cut log of this log's root may hold anything: a view is logged, or may be.
    pub(crate) fn may_be_logged(&self) -> bool {
        self.view > self.base_view || self.pending.is_some()
    }

    /// The pending intent is logged: its changes become what the cut log says.
    pub(crate) fn apply_pending(&mut self) -> bool {
        let Some(pending) = self.pending.take() else {
            return false;
        };
        for change in Changes::new(&pending.changes) {
            self.apply(&change, pending.view);
        }
        self.view = pending.view;
        true
    }

    fn apply(&mut self, change: &Change<'_>, view: ViewId) {
        if let Change::Tree { vertices } = change {
            self.tree.log(vertices);
            return;
        }
        let Some(shard) = change.shard().and_then(|id| self.shards.get_mut(&id)) else {
            return;
        };
        shard.epoch = view;
        match change {
            Change::Open { members, .. } => {
                shard.opened = true;
                for (member, logged) in shard.members.iter_mut().zip(members.iter()) {
                    member.member = logged.inc;
                    member.generation = view;
                }
            }
            Change::Close {
                segment, writer, ..
            } => {
                if let Some(member) = shard.members.get_mut(segment.slot.index()) {
                    member.member = writer.unwrap_or(Inc::ZERO);
                    member.generation = if writer.is_some() { view } else { ViewId::ZERO };
                }
            }
            Change::Joint { members, .. } => {
                for (member, logged) in shard.members.iter_mut().zip(members.iter()) {
                    member.member = logged.inc;
                }
            }
            Change::Activate { .. } => {
                let joining = shard
                    .members
                    .iter_mut()
                    .filter(|member| member.is_joining());
                joining.for_each(|member| member.generation = view);
            }
            Change::Finalize { lost_from, .. } => {
                shard.opened = false;
                if shard.finalizing {
                    shard.end();
                }
                if lost_from.is_some() {
                    shard.give_up_copies();
                }
                for member in &mut shard.members {
                    member.member = Inc::ZERO;
                    member.generation = ViewId::ZERO;
                }
            }
            Change::Tree { .. } => {}
        }
    }

    /// The first position not lost with cut logs, and what the root may do.
    pub(crate) const fn grant(&self, log: LogId) -> (Gsn, What) {
        let grant = What::Grant {
            log,
            epoch: self.root.epoch,
            ceiling: self.ceiling,
        };
        (self.floor, grant)
    }

    /// The cut log is gone. Numbers that it may have used are never used again; nothing that it said holds any more.
    pub(crate) fn forget_cut_log(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.view = pending.view;
        }
        self.base_view = self.view;
        self.tree.forget();
        self.floor = self.ceiling;
        for shard in self.shards.values_mut() {
            shard.opened = false;
            shard.give_up_copies();
            for member in &mut shard.members {
                member.member = Inc::ZERO;
                member.generation = ViewId::ZERO;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One after the other came back empty, and each time two held every record again, though nobody all of them; the third
    /// one's loss was then taken for the loss of the shard.
    #[test]
    fn members_that_lose_their_memory_one_after_the_other_lose_no_record() {
        let members = (1..=3).map(|node| {
            let mut member = Member::new(NodeId::new(node));
            member.place.inc = Inc::new(9);
            member.member = Inc::new(9);
            member
        });
        let mut shard = Shard::new(0, members.collect());
        let lose = |shard: &mut Shard, slot: usize| {
            shard.members[slot].holds = false;
            shard.gone |= 1 << slot;
        };
        for slot in 0..3 {
            lose(&mut shard, slot);
            assert!(!shard.may_lack(2, 0), "{slot}");
            assert!(shard.would_settle(0), "{slot}");
            shard.settle(0);
            assert!(!shard.would_settle(0), "{slot}");
        }
        // Two at a time may have had the only copies of a record.
        lose(&mut shard, 0);
        assert!(!shard.may_lack(2, 0) && shard.may_lack(2, 0b10));
        shard.settle(0b100);
        lose(&mut shard, 0);
        lose(&mut shard, 1);
        assert!(!shard.may_lack(2, 0), "one holds everything");
        // A report is about the lives in the cut log.
        shard.members[1].place.inc = Inc::new(10);
        shard.settle(0);
        assert_eq!(shard.gone, 0b10);
    }
}
