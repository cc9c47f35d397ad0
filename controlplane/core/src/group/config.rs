//! Configurations of a root group: who may commit entries in an epoch, and how many of them must hold one.

use ionian_types::{Inc, NodeId, RootEpoch, Slot};
use ionian_wire::{Reader, WireError};

use crate::codec::range;

/// How many members of a root group hold an entry before it is committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RootQuorum {
    /// More than half of them. The group goes on while a minority is away.
    #[default]
    Majority,
    /// All of those listed. A member that is away is taken off the list, so that `f + 1` members bear the loss of `f`.
    All,
}

/// A configuration: who may commit entries in an epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Config {
    pub(crate) epoch: RootEpoch,
    pub(crate) leader: Slot,
    pub(crate) write_quorum: u8,
    /// By slot.
    pub(crate) members: Vec<Listed>,
}

/// A member of a configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Listed {
    pub(crate) node: NodeId,
    /// The life that the leader was told of; zero for a slot that takes no part.
    pub(crate) inc: Inc,
    /// The life that holds what this one has promised and taken: a later one that found its data. Zero when that is lost.
    pub(crate) holder: Inc,
}

impl RootQuorum {
    /// Its number in commands and snapshots.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Majority => 0,
            Self::All => 1,
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match reader.field::<u8>()? {
            0 => Ok(Self::Majority),
            1 => Ok(Self::All),
            code => Err(range("quorum of the root group", u64::from(code))),
        }
    }
}

impl Config {
    /// How many of its members meet every one of its write quorums.
    pub(crate) fn needs(&self) -> usize {
        let listed = self.members.iter().filter(|member| member.inc != Inc::ZERO);
        (listed.count() + 1).saturating_sub(usize::from(self.write_quorum))
    }

    /// How many members of it are among these lives.
    pub(crate) fn counts(&self, holds: impl Fn(Slot, NodeId, Inc) -> bool) -> usize {
        let members = self.members.iter().enumerate();
        let here = members.filter(|(slot, member)| {
            member.holder != Inc::ZERO && holds(Slot::new(*slot as u8), member.node, member.holder)
        });
        here.count()
    }

    /// How many members a later epoch must seal, as the leader is told it.
    pub(crate) fn seal_quorum(&self) -> u8 {
        (self.members.len() + 1 - usize::from(self.write_quorum)) as u8
    }

    pub(super) fn same_demand(&self, other: &Self) -> bool {
        let holders = |config: &Self| -> Vec<(NodeId, Inc)> {
            let members = config.members.iter();
            members.map(|member| (member.node, member.holder)).collect()
        };
        self.needs() == other.needs() && holders(self) == holders(other)
    }
}
