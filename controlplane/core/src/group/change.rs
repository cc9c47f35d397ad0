//! How a root group comes to have other members.
//!
//! Who leaves may hold what nobody else holds: an entry is committed once a write quorum has it, and that can be the member that
//! leaves and one that is lost next. So the members that stay first go on by themselves, in a configuration that does not list
//! the others; once its commit is recorded they hold everything, as many of them as bear the loss that the group bore before.
//! Only then the places are those of other nodes.
//!
//! ```text
//! {0,1,2}, 2 leaves -> sealed by 0 and 1 -> {0,1}, recorded -> places 0, 1 and the new 2 -> {0,1,2}, recorded
//! ```
//! Until then a member that leaves is one like the others: when one that stays is lost, it is sealed, listed again, and may lead.
//! Of a pair the one that stays holds the cut log alone until the new one has it.

use ionian_types::{Inc, NodeId, Slot};

use super::{Group, Phase, RootQuorum};
use crate::state::Place;

impl Group {
    /// The nodes that its members are on, or are to be on, by slot.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        let here = || self.places.iter().map(|place| place.node).collect();
        self.wanted.clone().unwrap_or_else(here)
    }

    /// The members are to be on these nodes, by slot. At once, if nobody who leaves can hold anything.
    pub(crate) fn want(&mut self, nodes: &[NodeId]) {
        self.wanted = (!self.is_of(nodes)).then(|| nodes.to_vec());
        if self.prefer.is_some_and(|slot| self.leaves(slot)) {
            self.prefer(None);
        }
        let settled = self.phase == Phase::Recorded && !self.lists_one_that_leaves();
        if settled || self.configs.is_empty() || !self.slots().any(|slot| self.leaves(slot)) {
            self.part();
        }
    }

    /// The members stay who they are. `false` if they have changed already.
    pub(crate) fn keep(&mut self, nodes: &[NodeId]) -> bool {
        let kept = self.wants(nodes);
        if kept {
            self.wanted = None;
        }
        kept
    }

    /// Whether its members are to be on these nodes and are not yet.
    pub(crate) fn wants(&self, nodes: &[NodeId]) -> bool {
        self.wanted.as_deref() == Some(nodes)
    }

    /// Whether the member in `slot` is to leave.
    pub(crate) fn leaves(&self, slot: Slot) -> bool {
        let place = self.places.get(slot.index());
        place
            .zip(self.wanted.as_ref())
            .is_some_and(|(place, wanted)| wanted.get(slot.index()) != Some(&place.node))
    }

    /// Whether the last configuration lists a member that is to leave.
    pub(crate) fn lists_one_that_leaves(&self) -> bool {
        let members = self.current().map_or(&[][..], |config| &config.members[..]);
        let mut members = members.iter().enumerate();
        members.any(|(slot, member)| member.inc != Inc::ZERO && self.leaves(Slot::new(slot as u8)))
    }

    /// Whether some are to leave and the others of these lives can go on without them.
    pub(crate) fn can_part(&self, here: impl Fn(Slot, Inc) -> bool) -> bool {
        let stays = |slot: Slot, inc| !self.leaves(slot) && here(slot, inc);
        self.wanted.is_some() && self.can_go_on(self.parted_quorum(), stays)
    }

    /// How many of those who stay must be there, and hold an entry before it is committed: as many as of all, if so many stay.
    /// Where all must write, those whom the last configuration lists.
    pub(super) fn parted_quorum(&self) -> usize {
        let stay = || self.slots().filter(|&slot| !self.leaves(slot));
        match self.quorum {
            RootQuorum::Majority => stay().count().min(self.quorum()),
            RootQuorum::All => {
                let members = self.current().map_or(&[][..], |config| &config.members[..]);
                let holds = |slot: &Slot| {
                    let member = members.get(slot.index());
                    member.is_some_and(|member| member.holder != Inc::ZERO)
                };
                stay().filter(holds).count().max(self.quorum())
            }
        }
    }

    /// Whether, of the members, so many stay on these nodes that they bear alone what the group bears.
    pub(crate) fn enough_stay(&self, nodes: &[NodeId]) -> bool {
        let stays = |(slot, place): (usize, &Place)| nodes.get(slot) == Some(&place.node);
        let stay = self
            .places
            .iter()
            .enumerate()
            .filter(|it| stays(*it))
            .count();
        match self.quorum {
            RootQuorum::Majority => stay + self.quorum() > self.places.len(),
            RootQuorum::All => stay > 0,
        }
    }

    /// The commit of the last configuration is recorded: what was before cannot come back. `true` if those who were to leave
    /// have left with it.
    pub(crate) fn record(&mut self, since: u64) -> bool {
        let last = self.configs.len().saturating_sub(1);
        self.configs.drain(..last);
        self.phase = Phase::Recorded;
        self.since = since;
        let parts = self.wanted.is_some() && !self.lists_one_that_leaves();
        if parts {
            self.part();
        }
        parts
    }

    /// The places are those that are wanted. What those who left hold counts for nothing, also if their nodes are asked for
    /// again.
    pub(crate) fn part(&mut self) {
        let left: Vec<Slot> = self.slots().filter(|&slot| self.leaves(slot)).collect();
        let Some(wanted) = self.wanted.take() else {
            return;
        };
        let place = |(slot, node): (usize, NodeId)| {
            let before = self.places.get(slot).filter(|place| place.node == node);
            before.cloned().unwrap_or_else(|| Place::new(node))
        };
        self.places = wanted.into_iter().enumerate().map(place).collect();
        for slot in left {
            self.forget_member(slot);
        }
    }

    fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..self.places.len()).map(|slot| Slot::new(slot as u8))
    }
}
