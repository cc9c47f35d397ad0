//! Around the dead: which segments of an open shard nobody can write now, and which can be written again.
//!
//! A segment whose writer is dead is closed without a next writer, so that its clients learn what became of their records and
//! go elsewhere. When fewer replicas are left than must hold a record, no record of the shard can be ordered, and all of its
//! segments are closed. Nothing is lost by that, and it is not for good: a segment opens again, for whoever has its place,
//! once that process is there and enough of the others are.

use ionian_types::{Inc, Slot, ViewId};

use crate::decision::Why;
use crate::state::{Member, Shard};

/// The segments to be closed, and those to be opened again, a bit per slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Routes {
    close: u8,
    lost: u8,
    open: u8,
}

impl Member {
    /// Whether its segment was closed without a next writer.
    pub(crate) fn is_shut(&self) -> bool {
        self.member == Inc::ZERO && self.generation == ViewId::ZERO
    }
}

impl Routes {
    /// Those of a shard of which `copies` replicas must hold a record. `lost` says whose process is away, `down` who is not
    /// there and shown so, `there` who could write from now on. What is closed is not opened around somebody who is down.
    pub(crate) fn of(
        shard: &Shard,
        copies: u8,
        lost: impl Fn(Slot) -> bool,
        down: impl Fn(Slot) -> bool,
        there: impl Fn(Slot) -> bool,
    ) -> Self {
        let bits = |chosen: &dyn Fn(Slot, &Member) -> bool| {
            let members = shard.members.iter().enumerate();
            let chosen = members.filter(|(slot, member)| chosen(Slot::new(*slot as u8), member));
            chosen.fold(0u8, |bits, (slot, _)| bits | 1 << slot)
        };
        let lost = bits(&|slot, _| lost(slot));
        let down = bits(&|slot, _| down(slot));
        let enough_without = |those: u8| {
            let left = shard.members.len() - those.count_ones() as usize;
            left >= usize::from(copies)
        };
        let enough = enough_without(lost);
        let written = bits(&|_, member| member.generation != ViewId::ZERO);
        let open = bits(&|slot, member| member.is_shut() && there(slot));
        Self {
            close: written & if enough { lost } else { u8::MAX },
            lost,
            open: if enough_without(lost | down) {
                open & !lost
            } else {
                0
            },
        }
    }

    /// Why the segment of this slot is to be closed, if it is.
    pub(crate) const fn closes(self, slot: usize) -> Option<Why> {
        match (self.close >> slot & 1, self.lost >> slot & 1) {
            (0, _) => None,
            (_, 0) => Some(Why::TooFewLeft),
            _ => Some(Why::WriterDead),
        }
    }

    /// Whether a segment that was closed so may open again.
    pub(crate) const fn opens(self, slot: usize) -> bool {
        self.open >> slot & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use ionian_types::NodeId;

    use super::*;

    fn shard(replicas: u32) -> Shard {
        let members = (1..=replicas).map(|node| {
            let mut member = Member::new(NodeId::new(node));
            member.place.inc = Inc::new(u64::from(node));
            member.member = member.place.inc;
            member.generation = ViewId::new(1);
            member
        });
        Shard::new(0, members.collect())
    }

    fn shut(shard: &mut Shard, slot: usize) {
        shard.members[slot].member = Inc::ZERO;
        shard.members[slot].generation = ViewId::ZERO;
    }

    fn among(slots: &[u8]) -> impl Fn(Slot) -> bool {
        move |slot| slots.contains(&slot.get())
    }

    #[test]
    fn only_the_dead_are_closed_while_enough_are_left() {
        let routes = Routes::of(&shard(3), 2, among(&[1]), among(&[]), among(&[0, 2]));
        let closed = [0, 1, 2].map(|slot| routes.closes(slot));
        assert_eq!(closed, [None, Some(Why::WriterDead), None]);
    }

    #[test]
    fn all_are_closed_when_too_few_are_left() {
        let routes = Routes::of(&shard(2), 2, among(&[1]), among(&[1]), among(&[0]));
        let closed = [0, 1].map(|slot| routes.closes(slot));
        assert_eq!(closed, [Some(Why::TooFewLeft), Some(Why::WriterDead)]);
    }

    #[test]
    fn what_was_closed_opens_when_its_process_and_enough_others_are_there() {
        let mut closed = shard(2);
        shut(&mut closed, 0);
        shut(&mut closed, 1);
        let routes = Routes::of(&closed, 2, among(&[1]), among(&[]), among(&[0]));
        assert_eq!([0, 1].map(|slot| routes.opens(slot)), [false; 2]);
        let routes = Routes::of(&closed, 2, among(&[]), among(&[1]), among(&[0]));
        assert_eq!(
            [0, 1].map(|slot| routes.opens(slot)),
            [false; 2],
            "whoever found it dead"
        );
        let routes = Routes::of(&closed, 2, among(&[]), among(&[]), among(&[0]));
        assert_eq!([0, 1].map(|slot| routes.opens(slot)), [true, false]);
        let routes = Routes::of(&closed, 2, among(&[]), among(&[]), among(&[0, 1]));
        assert_eq!([0, 1].map(|slot| routes.opens(slot)), [true; 2]);
        assert_eq!(routes.closes(0), None);
    }
}
