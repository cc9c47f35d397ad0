//! The root group of a log, as far as it is replicated: its places, the configurations that may still matter, and how far the
//! change to the next root epoch is.
//!
//! ```text
//! Idle -> Sealing(epoch) -> Named(leader, members) -> Recorded
//!            ^                   |                       |
//!            +-------------------+-----------------------+   the leader is gone, or a member has a life that is not listed
//! ```
//! An epoch is issued before anybody is asked to promise it, and a configuration is recorded as named before its leader hears
//! of it (ORDERING.md, section 1, NEW LEADER). From the last configuration on whose commit is recorded, each may have
//! committed entries: what is sealed has to meet every write quorum of each of them.
//!
//! A group of one seals itself by registering: its epoch, name and record are one step.

mod change;
mod config;

use ionian_types::{Inc, NodeId, RootEpoch, Slot};

use crate::state::Place;

pub use config::RootQuorum;
pub(crate) use config::{Config, Listed};

/// How often a leader is named in vain for one that is to lead.
const TRIES_MAX: u8 = 5;

/// A root group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Group {
    /// The members by slot.
    pub(crate) places: Vec<Place>,
    /// The nodes that its members are to be on, by slot, while others still hold what was committed.
    pub(crate) wanted: Option<Vec<NodeId>>,
    pub(crate) quorum: RootQuorum,
    /// The last epoch issued.
    pub(crate) epoch: RootEpoch,
    pub(crate) phase: Phase,
    /// The version of the state that began the phase.
    pub(crate) since: u64,
    /// The member that is to lead, if its log allows it.
    pub(crate) prefer: Option<Slot>,
    /// How often another one was named because that log did not allow it.
    pub(crate) tries: u8,
    /// The configurations named since the last one whose commit is recorded, and that one; oldest first.
    pub(crate) configs: Vec<Config>,
}

/// How far the change to the last epoch issued is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// No configuration: the log has no cut log.
    Idle,
    /// The members are asked to promise it.
    Sealing,
    /// The last configuration is named.
    Named,
    /// Its leader has committed its entry.
    Recorded,
}

impl Group {
    pub(crate) fn new(nodes: &[NodeId], quorum: RootQuorum) -> Self {
        Self {
            places: nodes.iter().map(|&node| Place::new(node)).collect(),
            wanted: None,
            quorum,
            epoch: RootEpoch::ZERO,
            phase: Phase::Idle,
            since: 0,
            prefer: None,
            tries: 0,
            configs: Vec::new(),
        }
    }

    /// A leader is named. One that is to lead and was behind is tried again, since what it missed was under way: so long as
    /// the one named has just begun, it orders nothing. But not for ever.
    pub(crate) fn note_named(&mut self, leader: Slot) {
        let Some(wanted) = self.prefer else { return };
        self.tries += 1;
        if wanted == leader || self.tries >= TRIES_MAX {
            self.prefer(None);
        }
    }

    /// Has a member lead if its log allows it, or whichever.
    pub(crate) const fn prefer(&mut self, slot: Option<Slot>) {
        self.prefer = slot;
        self.tries = 0;
    }

    /// Whether its members are on these nodes, in slot order.
    pub(crate) fn is_of(&self, nodes: &[NodeId]) -> bool {
        self.places.iter().map(|place| &place.node).eq(nodes)
    }

    /// Whether it has a single member, which seals itself.
    pub(crate) const fn is_single(&self) -> bool {
        self.places.len() == 1
    }

    /// The last configuration.
    pub(crate) fn current(&self) -> Option<&Config> {
        self.configs.last()
    }

    /// The slot of the member that leads, or led last.
    pub(crate) fn leader(&self) -> Option<Slot> {
        let named = self.current().map(|config| config.leader);
        named.or_else(|| self.is_single().then_some(Slot::ZERO))
    }

    /// The leader's slot, if its life is still the one that was named and no later epoch is under way.
    pub(crate) fn leads(&self) -> Option<Slot> {
        let config = self.current()?;
        let named = matches!(self.phase, Phase::Named | Phase::Recorded);
        let (slot, listed) = (config.leader, config.members.get(config.leader.index())?);
        let place = self.places.get(slot.index())?;
        (named && place.inc == listed.inc).then_some(slot)
    }

    /// The life of a slot that may be listed and counted: one that its device is known to name, where it has a device.
    pub(crate) fn eligible(&self, slot: Slot) -> Option<(NodeId, Inc)> {
        let place = self.places.get(slot.index())?;
        let sound = place.inc != Inc::ZERO && (self.is_single() || place.confirmed == place.inc);
        sound.then_some((place.node, place.inc))
    }

    /// How many members of a new configuration must be there.
    pub(crate) fn quorum(&self) -> usize {
        match self.quorum {
            RootQuorum::Majority => self.places.len() / 2 + 1,
            RootQuorum::All => 1,
        }
    }

    /// Whether these lives, eligible ones, meet every write quorum that may have committed something, and can go on.
    pub(crate) fn suffices(&self, here: impl Fn(Slot, Inc) -> bool) -> bool {
        self.can_go_on(self.quorum(), here)
    }

    /// As [`Self::suffices`], for a configuration that takes so many.
    fn can_go_on(&self, quorum: usize, here: impl Fn(Slot, Inc) -> bool) -> bool {
        let eligible = |slot: Slot, node, inc| self.eligible(slot) == Some((node, inc));
        let meets = |config: &Config| {
            config.counts(|slot, node, inc| eligible(slot, node, inc) && here(slot, inc))
                >= config.needs()
        };
        let slots = (0..self.places.len()).map(|slot| Slot::new(slot as u8));
        let there = slots.filter(|&slot| {
            let eligible = self.eligible(slot);
            eligible.is_some_and(|(_, inc)| here(slot, inc))
        });
        there.count() >= quorum && self.configs.iter().all(meets)
    }

    /// What the member in `slot` held is lost.
    pub(crate) fn forget_member(&mut self, slot: Slot) {
        for config in &mut self.configs {
            if let Some(member) = config.members.get_mut(slot.index()) {
                member.holder = Inc::ZERO;
            }
        }
    }

    /// Whether committed entries may be held by nobody any more: too few are left to meet every write quorum.
    pub(crate) fn is_lost(&self) -> bool {
        let lost = |config: &Config| config.counts(|_, _, _| true) < config.needs();
        self.configs.iter().any(lost)
    }

    /// Whether that is so once what the member in `slot` held is lost.
    pub(crate) fn would_be_lost(&self, slot: Slot) -> bool {
        let mut then = self.clone();
        then.forget_member(slot);
        then.is_lost()
    }

    /// The cut log is given up as `inc` takes `slot`: what the other members hold is void, on their devices too.
    pub(crate) fn end_lives(&mut self, slot: Slot, inc: Inc) {
        self.configs.clear();
        self.phase = Phase::Idle;
        for (other, place) in self.places.iter_mut().enumerate() {
            if other != slot.index() {
                place.inc = Inc::ZERO;
                place.confirmed = inc;
                place.up = false;
            }
        }
    }

    /// The only member leads the last epoch issued.
    pub(crate) fn lead_alone(&mut self, inc: Inc, since: u64) {
        let node = self.places.first().map_or(NodeId::ZERO, |place| place.node);
        let members = vec![Listed {
            node,
            inc,
            holder: inc,
        }];
        self.configs = vec![Config {
            epoch: self.epoch,
            leader: Slot::ZERO,
            write_quorum: 1,
            members,
        }];
        self.phase = Phase::Recorded;
        self.since = since;
    }

    /// A life that found the data of the one before is known by its device: it stands for the earlier one.
    pub(crate) fn rename(&mut self, slot: Slot, node: NodeId, inc: Inc) {
        for config in &mut self.configs {
            let member = config.members.get_mut(slot.index());
            if let Some(member) = member.filter(|member| member.node == node)
                && member.holder != Inc::ZERO
            {
                member.holder = inc;
            }
        }
        self.merge();
    }

    /// The next configuration: every eligible member for a majority, the sealed ones where all must write. Of those who leave
    /// none, if the others can do without them.
    pub(crate) fn next_config(&self, leader: Slot, sealed: u8) -> Config {
        let is_sealed = |slot: usize| sealed & 1 << slot != 0;
        let parts = self.can_part(|slot, _| is_sealed(slot.index()));
        let listed = |(slot, place): (usize, &Place)| {
            let (at, slot) = (slot, Slot::new(slot as u8));
            let eligible = self.eligible(slot);
            let asked = self.quorum == RootQuorum::Majority || is_sealed(at);
            let takes_part = asked && !(parts && self.leaves(slot));
            let inc = eligible
                .filter(|_| takes_part)
                .map_or(Inc::ZERO, |(_, inc)| inc);
            Listed {
                node: place.node,
                inc,
                holder: inc,
            }
        };
        let members: Vec<Listed> = self.places.iter().enumerate().map(listed).collect();
        let count = members.iter().filter(|member| member.inc != Inc::ZERO);
        let write_quorum = match self.quorum {
            RootQuorum::Majority if parts => self.parted_quorum(),
            RootQuorum::Majority => self.places.len() / 2 + 1,
            RootQuorum::All => count.count(),
        };
        Config {
            epoch: self.epoch,
            leader,
            write_quorum: write_quorum as u8,
            members,
        }
    }

    /// A configuration is named.
    pub(crate) fn push(&mut self, config: Config) {
        self.configs.push(config);
        self.merge();
    }

    /// Of configurations that ask for the same, the last one stays.
    fn merge(&mut self) {
        let mut at = 0;
        while at + 1 < self.configs.len() {
            let later = &self.configs[at + 1..];
            if later
                .iter()
                .any(|config| config.same_demand(&self.configs[at]))
            {
                self.configs.remove(at);
            } else {
                at += 1;
            }
        }
    }
}
