//! The controller's part, as simply as can be: it seals, names, and takes note (ORDERING.md, NEW LEADER).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use ionian_types::{EntryNo, Gsn, Inc, Nanos, RootEpoch, ViewId};
use ionian_wire::codec::Field;
use ionian_wire::frame::{Message, RootGrant, Seal};

use super::{LOG, encoded, node_id};

/// Who keeps the log together, from some epoch on.
#[derive(Clone, Debug)]
struct Configuration {
    epoch: u64,
    members: Vec<Inc>,
}

#[derive(Clone, Copy, Debug)]
struct Ack {
    inc: Inc,
    last: (RootEpoch, EntryNo),
}

#[derive(Debug)]
pub(super) struct Controller {
    write: usize,
    epoch: u64,
    next_inc: u64,
    /// The life of each member, zero before its first.
    incs: Vec<Inc>,
    /// Named since, and including, the last one known to have begun.
    kept: Vec<Configuration>,
    acks: BTreeMap<usize, Ack>,
    pub(super) leader: Option<usize>,
    recorded: bool,
    /// Whether the member is to be told again what it may do.
    tells: Vec<bool>,
    ceiling: u64,
    /// Where the order begins, when the cut log was lost.
    pub(super) floor: u64,
    /// The mutant: the longest log leads.
    pub(super) by_length: bool,
    /// Leaders that said that too few members answer, and for how long.
    pub(super) alone: Vec<(usize, Nanos)>,
}

impl Controller {
    pub(super) fn new(count: usize, write: usize) -> Self {
        Self {
            write,
            epoch: 0,
            next_inc: 1,
            incs: alloc::vec![Inc::ZERO; count],
            kept: Vec::new(),
            acks: BTreeMap::new(),
            leader: None,
            recorded: false,
            tells: alloc::vec![false; count],
            ceiling: 1 << 40,
            floor: 0,
            by_length: false,
            alone: Vec::new(),
        }
    }

    /// A member registers. With its data, it goes on under the new name.
    pub(super) fn admit(&mut self, slot: usize, has_data: bool) -> Inc {
        let inc = Inc::new(self.next_inc);
        self.next_inc += 1;
        if has_data {
            for kept in &mut self.kept {
                kept.members[slot] = inc;
            }
        }
        self.incs[slot] = inc;
        self.acks.remove(&slot);
        self.tells[slot] = true;
        if self.leader == Some(slot) {
            // An epoch has one leader, for ever.
            self.fail_over();
        }
        inc
    }

    /// Whether the members of a configuration that are up, with one fewer, would still meet every write quorum.
    pub(super) fn may_lose(&self, slot: usize, up: &[bool]) -> bool {
        self.kept.iter().all(|kept| {
            let left = kept
                .members
                .iter()
                .enumerate()
                .filter(|(at, inc)| *at != slot && up[*at] && **inc == self.incs[*at]);
            left.count() > kept.members.len() - self.write
        })
    }

    /// A new epoch.
    pub(super) fn fail_over(&mut self) {
        self.epoch += 1;
        self.acks.clear();
        self.leader = None;
        self.recorded = false;
        self.tells.fill(true);
    }

    pub(super) fn hear(&mut self, slot: usize, message: &Message<'_>) {
        match message {
            Message::SealAck(ack, _)
                if ack.inc == self.incs[slot]
                    && ack.promised.get() == self.epoch
                    && self.leader.is_none() =>
            {
                let ack = Ack {
                    inc: ack.inc,
                    last: (ack.last_epoch, ack.last),
                };
                self.acks.insert(slot, ack);
                self.name();
            }
            Message::RootLed(led, _) if led.epoch.get() == self.epoch => {
                self.kept.retain(|kept| kept.epoch >= led.epoch.get());
                self.recorded = true;
                self.tells[slot] = true;
            }
            Message::RootAlone(alone, _) if alone.epoch.get() == self.epoch => {
                self.alone.push((slot, Nanos(alone.silent)));
            }
            _ => {}
        }
    }

    fn name(&mut self) {
        let met = self.kept.iter().all(|kept| {
            let members = kept.members.iter().enumerate();
            let acked = members
                .filter(|(slot, inc)| self.acks.get(slot).is_some_and(|ack| ack.inc == **inc));
            acked.count() > kept.members.len() - self.write
        });
        // The first configuration begins when all are there.
        if !met || self.kept.is_empty() && self.acks.len() < self.incs.len() {
            return;
        }
        let length = self.by_length;
        let best = self.acks.iter().max_by_key(|(slot, ack)| {
            let epoch = if length { RootEpoch::ZERO } else { ack.last.0 };
            (epoch, ack.last.1, core::cmp::Reverse(**slot))
        });
        self.leader = best.map(|(slot, _)| *slot);
        self.kept.push(Configuration {
            epoch: self.epoch,
            members: self.incs.clone(),
        });
        self.tells.fill(true);
    }

    /// What a member is to be told now.
    pub(super) fn say(&mut self, slot: usize, inc: Inc) -> Vec<Vec<u8>> {
        if !core::mem::take(&mut self.tells[slot]) || self.epoch == 0 {
            return Vec::new();
        }
        let epoch = RootEpoch::new(self.epoch);
        if self.leader.is_none() {
            let seal = Seal {
                log: LOG,
                inc,
                epoch,
            };
            return [encoded(&seal, &[])].into();
        }
        if self.leader != Some(slot) {
            return Vec::new();
        }
        let named = self.kept.last().unwrap();
        let mut tail = Vec::new();
        for (slot, inc) in named.members.iter().enumerate() {
            let mut member = [0; 12];
            node_id(slot).put(&mut member[..4]);
            inc.put(&mut member[4..]);
            tail.extend(member);
        }
        let count = named.members.len() as u8;
        let grant = RootGrant {
            log: LOG,
            inc,
            epoch,
            floor: Gsn::new(self.floor),
            ceiling: Gsn::new(self.ceiling),
            view: ViewId::ZERO,
            write_quorum: self.write as u8,
            seal_quorum: count - self.write as u8 + 1,
            members: count,
            recorded: self.recorded,
        };
        [encoded(&grant, &tail)].into()
    }

    /// Asks and names again: messages may have been lost.
    pub(super) fn repeat(&mut self) {
        self.tells.fill(true);
    }

    /// Whether this epoch goes on, as far as it is known.
    pub(super) const fn is_recorded(&self) -> bool {
        self.recorded
    }
}
