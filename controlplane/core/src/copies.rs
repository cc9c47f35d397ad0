//! Copies of shards that have ended: a replica moves to another node, or has its records again after it lost them.
//!
//! Nothing of such a shard is ordered any more, so who has its copies is no part of the cut log, and only the state here says
//! it. A replica that is to move goes on where it is, in the map too, while a process at the next node registers for a place of
//! its own ([`PlaceKey::Copy`]), copies from it and the other replicas, and says that it holds every record at the class of the log.
//! That report makes it the replica, in one command; only then the old one is told that it is none any more. So there are
//! never fewer copies than before, and what is under way can be given up at any time.

use std::collections::BTreeSet;

use ionian_types::{ConnId, Durability, Inc, Knobs, LogId, NodeId, ShardId, Slot, Time, ViewId};
use ionian_wire::frame::ShardStatus;

use crate::MAP_BYTES_MAX;
use crate::apply::Shown;
use crate::command::Action;
use crate::decision::{What, Why};
use crate::directory::Directory;
use crate::registration::Refusal;
use crate::state::{Log, Member, Place, PlaceKey, Shard, State};
use crate::transaction::{Reason, Task};

impl Shard {
    /// It has ended for good. A replica that was to move then has records to copy first.
    pub(crate) fn end(&mut self) {
        self.finalized = true;
        for member in &mut self.members {
            let next = member.next.filter(|next| *next != member.place.node);
            member.next = next;
            member.copy = next.map(Place::new);
        }
    }

    /// What is under way to other nodes ends: there is nothing to be had any more.
    pub(crate) fn give_up_copies(&mut self) {
        for member in &mut self.members {
            if member.copy.take().is_some() {
                member.next = None;
            }
        }
    }

    /// The slot that `node` is to have, and copies for.
    fn copies_at(&self, slot: Slot, node: NodeId) -> bool {
        let member = self.members.get(slot.index());
        let copy = member.and_then(|member| member.copy.as_ref());
        copy.is_some_and(|copy| copy.node == node)
    }

    /// Whether any member may hold every record.
    pub(crate) fn is_held(&self) -> bool {
        self.members.iter().any(|member| member.holds)
    }
}

impl Log {
    /// Whether fewer replicas of a shard than all are enough to hold a record: another one then learns, and joins.
    pub(crate) fn learns(&self, shard: &Shard) -> bool {
        let count = shard.members.len();
        self.quorum
            .is_some_and(|quorum| usize::from(quorum) < count)
    }

    /// Whether nobody can have a record of a shard that has ended: it was never opened, or the cut log that said where its
    /// records stand is lost.
    pub(crate) fn is_void(&self, shard: &Shard) -> bool {
        shard.finalized && (shard.epoch == ViewId::ZERO || shard.epoch <= self.base_view)
    }
}

impl State {
    /// Whether a replica of a shard is replaced by one that joins it; else the shard has to end first.
    pub(crate) fn is_joined(&self, log: LogId, shard: ShardId) -> bool {
        let log = self.logs.get(&log);
        let state = log.and_then(|log| Some((log, log.shards.get(&shard)?)));
        state.is_some_and(|(log, state)| log.learns(state) && !state.finalized)
    }

    /// The place that a node means when it speaks for a replica: it may be the one that is to have it.
    pub(crate) fn replica_key(
        &self,
        id: LogId,
        shard: ShardId,
        slot: Slot,
        node: NodeId,
    ) -> PlaceKey {
        let log = self.logs.get(&id);
        let state = log.and_then(|log| log.shards.get(&shard));
        if state.is_some_and(|state| state.copies_at(slot, node)) {
            PlaceKey::Copy(id, shard, slot)
        } else {
            PlaceKey::Replica(id, shard, slot)
        }
    }

    /// Begins the move of a replica of a shard that has ended. `Err` changes nothing.
    pub(crate) fn begin_copy(
        &mut self,
        id: LogId,
        shard: ShardId,
        slot: Slot,
        node: NodeId,
    ) -> Result<(), Reason> {
        let domain = |node: NodeId| self.nodes.get(&node).map(|node| node.domain);
        let own = domain(node).ok_or("no such node")?;
        let log = self.logs.get(&id).ok_or("no such log")?;
        let state = log.shards.get(&shard).ok_or("no such shard")?;
        let member = state.members.get(slot.index()).ok_or("no such replica")?;
        if member.place.node == node && member.next.is_none() {
            return Ok(());
        }
        let members = state.members.iter().enumerate();
        let others: Vec<&Member> = members
            .filter(|(other, _)| *other != slot.index())
            .map(|(_, member)| member)
            .collect();
        let moves = |member: &Member| member.next.is_some();
        if state.members.iter().any(moves) || others.iter().any(|it| it.place.node == node) {
            return Err("one replica of a shard at a time, and each on a node of its own");
        }
        let void = log.is_void(state);
        if !void && !state.is_held() {
            return Err(
                "no replica of the shard holds its records; a new one could copy them from nobody",
            );
        }
        let mut domains: BTreeSet<u32> = others
            .iter()
            .filter_map(|member| domain(member.place.node))
            .collect();
        domains.insert(own);
        if log.class == Durability::D2 && domains.len() < 2 {
            return Err("the replicas of a shard of class D2 have to lie in two failure domains");
        }
        let log = self.logs.get_mut(&id).ok_or("no such log")?;
        log.operated = true;
        let shard = log.shards.get_mut(&shard).ok_or("no such shard")?;
        let member = shard.members.get_mut(slot.index());
        let member = member.ok_or("no such replica")?;
        if void {
            member.place = Place::new(node);
        } else {
            member.next = Some(node);
            member.copy = Some(Place::new(node));
        }
        Ok(())
    }

    /// A life holds every record of its shard; if it copied, it is the replica from now on.
    pub(crate) fn hold(&mut self, at_us: u64, key: PlaceKey, inc: Inc) -> Result<Shown, Reason> {
        let there = self.place(key).is_some_and(|place| place.inc == inc);
        if !there || inc == Inc::ZERO {
            return Err("an incarnation that does not have the place");
        }
        let (PlaceKey::Replica(id, shard, slot) | PlaceKey::Copy(id, shard, slot)) = key else {
            return Err("no replica");
        };
        let log = self.logs.get_mut(&id).ok_or("no such log")?;
        let state = log.shards.get_mut(&shard).ok_or("no such shard")?;
        if !state.finalized {
            return Err("a shard that has not ended");
        }
        state.gone &= !1u8.checked_shl(u32::from(slot.get())).unwrap_or(0);
        let member = state.members.get_mut(slot.index());
        let member = member.ok_or("no such replica")?;
        member.holds = true;
        if !matches!(key, PlaceKey::Copy(..)) {
            return Ok(Shown::No);
        }
        member.next = None;
        if let Some(copy) = member.copy.take() {
            member.place = copy;
        }
        let node = member.place.node;
        let place = self.place_name(PlaceKey::Replica(id, shard, slot));
        let what = What::TakeOver {
            log: id,
            place,
            node,
            inc,
        };
        self.note(at_us, id, what, Why::CopyWhole);
        Ok(Shown::Yes)
    }

    /// Whether the report of `key` that it holds everything is news.
    fn is_news(&self, key: PlaceKey) -> bool {
        let (PlaceKey::Replica(log, shard, slot) | PlaceKey::Copy(log, shard, slot)) = key else {
            return false;
        };
        let log = self.logs.get(&log);
        let Some(state) = log.and_then(|log| log.shards.get(&shard)) else {
            return false;
        };
        let member = state.members.get(slot.index());
        let gone = state.gone >> slot.get() & 1 != 0;
        matches!(key, PlaceKey::Copy(..)) || gone || member.is_some_and(|member| !member.holds)
    }
}

impl<K: Knobs> Directory<K> {
    /// A replica of a shard that has ended says what it holds.
    pub(crate) fn copy_status(&mut self, now: Time, conn: ConnId, report: ShardStatus) {
        let slot = Slot::new(report.held.trailing_zeros() as u8);
        let keys = [
            PlaceKey::Copy(report.log, report.shard, slot),
            PlaceKey::Replica(report.log, report.shard, slot),
        ];
        let Some(key) = keys
            .into_iter()
            .find(|key| self.bound(conn, *key).is_some())
        else {
            self.counters.stale += 1;
            return;
        };
        let shard = self
            .bound(conn, key)
            .and_then(|log| log.shards.get(&report.shard));
        let ended = shard.is_some_and(|shard| shard.finalized && shard.epoch == report.epoch);
        if !ended || !report.whole {
            self.counters.stale += u64::from(!ended);
            return;
        }
        if self.state.is_news(key) && self.fits_the_map(key) {
            self.now_holds(now, key);
        }
    }

    /// Whether the map has room for the address of one that copied.
    fn fits_the_map(&self, key: PlaceKey) -> bool {
        let address = |key| {
            self.state
                .place(key)
                .map_or(0, |place| self.state.address(place).len())
        };
        let PlaceKey::Copy(log, shard, slot) = key else {
            return true;
        };
        let (old, new) = (address(PlaceKey::Replica(log, shard, slot)), address(key));
        new <= old || self.state.map_bytes() + new - old <= MAP_BYTES_MAX
    }

    fn now_holds(&mut self, now: Time, key: PlaceKey) {
        let Some(place) = self.state.place(key) else {
            return;
        };
        let (node, inc) = (place.node, place.inc);
        self.commit(Action::Hold { place: key, inc });
        let PlaceKey::Copy(log, shard, slot) = key else {
            return;
        };
        let replica = PlaceKey::Replica(log, shard, slot);
        let place = self.state.place_name(replica);
        self.absent.remove(&key);
        // The old one hears of it once this is durable.
        if let Some(old) = self.bindings.remove(&replica) {
            let life = self.conns.get(&old.conn).and_then(|conn| conn.life);
            let refusal = Refusal::Replaced {
                place: place.clone(),
                inc: life.map_or(Inc::ZERO, |(_, inc)| inc),
            };
            self.refuse(old.conn, 0, &refusal);
        }
        let what = What::TakeOver {
            log,
            place,
            node,
            inc,
        };
        self.decide(now, what, Why::CopyWhole);
        if let Some(new) = self.bindings.remove(&key) {
            self.bind(now, replica, new.conn, new.request);
        }
        // What still waits on connections of the old life is about the place of another one.
        self.take_held(now);
    }

    /// Of a shard that has ended, or is to, a replica that holds its records is there: one that is to copy them has somebody to
    /// copy from.
    pub(crate) fn sources_are_there(&self, tasks: &[Task]) -> Result<(), String> {
        for task in tasks {
            let Task::Replace { log: id, shard, .. } = task else {
                continue;
            };
            let log = self.state.logs.get(id);
            let Some((log, state)) = log.and_then(|log| Some((log, log.shards.get(shard)?))) else {
                continue;
            };
            // One that nobody holds is refused as such.
            let copies = !self.state.is_joined(*id, *shard) && !log.is_void(state);
            if !copies || !state.is_held() {
                continue;
            }
            let mut members = state.members.iter().enumerate();
            let there = members.any(|(other, member)| {
                let key = PlaceKey::Replica(*id, *shard, Slot::new(other as u8));
                member.holds && self.bindings.contains_key(&key)
            });
            if !there {
                return Err(format!(
                    "no replica of shard {shard} of log {} that holds its records is connected; a new one could copy them from nobody",
                    log.name
                ));
            }
        }
        Ok(())
    }
}
