//! Who leads a root group: seals a new epoch when the leader is gone or a member has changed, and names the member whose log
//! reaches furthest (ORDERING.md, section 1, NEW LEADER).
//!
//! What members promised is not part of the state: a controller that leads anew asks them again. An epoch begins only when
//! those who are there can finish it, so that a leader is not stopped for nothing.

use std::collections::BTreeMap;

use ionian_types::{ConnId, EntryNo, Inc, Knobs, LogId, Mutant, RootEpoch, Slot, Time};
use ionian_wire::frame::{RootAlone, RootLed, Seal, SealAck};

use crate::command::Action;
use crate::decision::{What, Why};
use crate::detection::{Rest, put_off};
use crate::directory::Directory;
use crate::group::{Group, Phase, RootQuorum};
use crate::outbound::{message_bytes, put};
use crate::registration::Refusal;
use crate::state::PlaceKey;

/// What is known of a root group's members now, and of their promises for the epoch under way.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Watch {
    acks: BTreeMap<Slot, Ack>,
    /// When each member was last asked for its promise.
    asked: BTreeMap<Slot, Time>,
    /// Members without a connection: when they count as gone, until they do.
    away: BTreeMap<Slot, Option<Time>>,
    /// Members that were left out since they did not answer, and when they are tried again.
    silent: BTreeMap<Slot, Time>,
    /// When it is no longer waited for members that are still missing, until that is so.
    patience: Option<Time>,
    waited: bool,
    /// Leaders whom too few members answered, and when they take part again; and how long that was the last time.
    put_off: BTreeMap<Slot, Time>,
    rests: BTreeMap<Slot, Rest>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ack {
    inc: Inc,
    /// The last entry: logs are compared by its epoch first.
    last: (RootEpoch, EntryNo),
}

impl Watch {
    /// When something is due, if anything is.
    fn deadline(&self) -> Option<Time> {
        let away = self.away.values().flatten().copied();
        let silent = self.silent.values().copied();
        let put_off = self.put_off.values().copied();
        away.chain(silent).chain(put_off).chain(self.patience).min()
    }

    fn is_gone(&self, slot: Slot) -> bool {
        self.away.get(&slot) == Some(&None)
    }

    fn next_phase(&mut self) {
        self.acks.clear();
        self.asked.clear();
        self.patience = None;
        self.waited = false;
    }
}

impl<K: Knobs> Directory<K> {
    /// Begins to watch the groups of a state that was restored: their members have to find this controller first.
    pub(crate) fn watch_all(&mut self, now: Time) {
        let gone_at = now.after(self.config.down_after);
        for (&id, log) in &self.state.logs {
            if !log.root.is_single() {
                let slots = (0..log.root.places.len()).map(|slot| Slot::new(slot as u8));
                let away = slots.map(|slot| (slot, Some(gone_at))).collect();
                let watch = Watch {
                    away,
                    ..Watch::default()
                };
                self.watches.insert(id, watch);
            }
        }
    }

    /// A member of a root group has a connection, or lost it.
    pub(crate) fn member_seen(&mut self, now: Time, log: LogId, slot: Slot, there: bool) {
        let single = self
            .state
            .logs
            .get(&log)
            .is_none_or(|log| log.root.is_single());
        if single {
            return;
        }
        // With detection, only a death is quick: the loss of a connection alone says little.
        let patience = match self.config.detection {
            Some(_) => self.config.down_after,
            None => self.config.failover_after,
        };
        let gone_at = now.after(patience);
        let watch = self.watches.entry(log).or_default();
        if there {
            watch.away.remove(&slot);
            watch.silent.remove(&slot);
            watch.asked.remove(&slot);
        } else {
            watch.away.entry(slot).or_insert(Some(gone_at));
        }
    }

    /// A member of a root group is dead.
    pub(crate) fn member_gone(&mut self, log: LogId, slot: Slot) {
        let watched = self.state.logs.get(&log);
        if watched.is_some_and(|log| !log.root.is_single()) {
            let watch = self.watches.entry(log).or_default();
            watch.away.insert(slot, None);
        }
    }

    /// When a group is to be looked at again.
    pub(crate) fn failover_at(&self) -> Option<Time> {
        let watched = self.watches.values().filter_map(Watch::deadline);
        let asked = self
            .watches
            .keys()
            .filter_map(|&log| self.ask_again_at(log));
        watched.chain(asked).min()
    }

    /// Members that were away for long count as gone, and what is still missing is not waited for.
    pub(crate) fn look_after_groups(&mut self, now: Time) {
        let logs: Vec<LogId> = self.watches.keys().copied().collect();
        for id in logs {
            let Some(watch) = self.watches.get_mut(&id) else {
                continue;
            };
            for gone_at in watch.away.values_mut() {
                if gone_at.is_some_and(|at| at <= now) {
                    *gone_at = None;
                }
            }
            watch.silent.retain(|_, at| *at > now);
            watch.put_off.retain(|_, at| *at > now);
            if watch.patience.is_some_and(|at| at <= now) {
                watch.patience = None;
                watch.waited = true;
                // Those who were to go on without them do not.
                watch.put_off.clear();
            }
            self.look_after(now, id);
        }
    }

    /// Takes the next step towards a leader, if there is one to take.
    pub(crate) fn look_after(&mut self, now: Time, id: LogId) {
        let Some(log) = self.state.logs.get(&id).filter(|log| !log.root.is_single()) else {
            return;
        };
        if log.root.phase == Phase::Sealing {
            self.name_leader(now, id);
        } else if let Some(why) = self.wants_epoch(now, id)
            && let Some(epoch) = self.root_of(id).and_then(|root| root.epoch.next())
        {
            self.watches.entry(id).or_default().next_phase();
            if self.commit(Action::Seal {
                log: id,
                epoch,
                why,
            }) {
                self.decide(now, What::Seal { log: id, epoch }, why);
            }
        }
    }

    fn root_of(&self, id: LogId) -> Option<&Group> {
        self.state.logs.get(&id).map(|log| &log.root)
    }

    fn is_bound(&self, id: LogId, slot: Slot) -> bool {
        self.bindings.contains_key(&PlaceKey::Root(id, slot))
    }

    /// Whether a member is there and is counted on.
    fn takes_part(&self, id: LogId, slot: Slot) -> bool {
        let put_off = |watch: &Watch| watch.put_off.contains_key(&slot);
        self.is_bound(id, slot) && !self.watches.get(&id).is_some_and(put_off)
    }

    /// The leader says that too few members answer it. It reaches the controllers, and they reach the others: those go on
    /// without it, if they can. It takes part again after a while, later each time.
    pub(crate) fn alone(&mut self, now: Time, conn: ConnId, alone: RootAlone) {
        let slot = self.member_of(conn, alone.log, alone.inc);
        let root = self.root_of(alone.log);
        let leads = root.is_some_and(|root| root.leads() == slot && root.epoch == alone.epoch);
        let (Some(slot), Some(root)) = (slot.filter(|_| leads), root) else {
            self.counters.stale += 1;
            return;
        };
        let log = alone.log;
        let others = |other: Slot, _| other != slot && self.takes_part(log, other);
        if self.config.detection.is_none() || !root.suffices(others) {
            return;
        }
        let watch = self.watches.entry(log).or_default();
        let rests = |rest: &Rest| now < rest.until;
        if watch.rests.get(&slot).is_some_and(rests) {
            return;
        }
        let until = put_off(&mut watch.rests, now, slot);
        watch.put_off.insert(slot, until);
        self.look_after(now, log);
        let patience = now.after(self.config.down_after);
        if let Some(watch) = self.watches.get_mut(&log) {
            watch.patience.get_or_insert(patience);
        }
    }

    /// Why a new epoch has to begin, if one has to and those who are there can finish it.
    fn wants_epoch(&mut self, now: Time, id: LogId) -> Option<Why> {
        let patience = now.after(self.config.failover_after);
        let root = self.root_of(id)?.clone();
        let parts = root.can_part(|slot, _| self.takes_part(id, slot));
        if !parts && !root.suffices(|slot, _| self.takes_part(id, slot)) {
            return None;
        }
        let slots = || (0..root.places.len()).map(|slot| Slot::new(slot as u8));
        let here = |slot: Slot| self.takes_part(id, slot) && root.eligible(slot).is_some();
        let watch = self.watches.get(&id);
        let gone = |slot: Slot| watch.is_some_and(|watch| watch.is_gone(slot));
        let Some(config) = root.current() else {
            // A log starts with all of its members, if they come.
            let all = slots().all(here);
            let watch = self.watches.entry(id).or_default();
            if !all && !watch.waited {
                watch.patience.get_or_insert(patience);
                return None;
            }
            return Some(Why::MembersRegistered);
        };
        let listed = |slot: Slot| config.members.get(slot.index()).map(|member| member.inc);
        // One that was named in vain begins first: then what the preferred one missed has come.
        let begun = root.tries == 0 || root.phase == Phase::Recorded;
        let waits = |slot: Slot| slot != config.leader && here(slot);
        let unlisted = |slot: Slot| listed(slot) == Some(Inc::ZERO);
        let away = |slot: Slot| parts && root.leaves(slot) && unlisted(slot);
        if begun && root.prefer.is_some_and(waits) {
            return Some(Why::Asked);
        }
        if root.leads().is_none() || gone(config.leader) {
            return Some(Why::LeaderGone);
        }
        if watch.is_some_and(|watch| watch.put_off.contains_key(&config.leader)) {
            return Some(Why::LeaderAlone);
        }
        let silent = |slot: Slot| watch.is_some_and(|watch| watch.silent.contains_key(&slot));
        let back = |slot: Slot| {
            let is_listed = listed(slot) == root.eligible(slot).map(|(_, inc)| inc);
            here(slot) && !silent(slot) && !is_listed && !away(slot)
        };
        let missed = |slot: Slot| {
            let takes_part = listed(slot).is_some_and(|inc| inc != Inc::ZERO);
            root.quorum == RootQuorum::All && takes_part && gone(slot)
        };
        let removed = config.members.len() > root.places.len();
        // Those who leave are left out in an epoch of its own, once the one before has begun: with those who answer.
        let answers = |slot: Slot, _| self.takes_part(id, slot) && !silent(slot);
        let recorded = root.phase == Phase::Recorded;
        let leave = recorded && root.lists_one_that_leaves() && root.can_part(answers);
        let changed = removed || leave || slots().any(|slot| back(slot) || missed(slot));
        changed.then_some(Why::MemberChanged)
    }

    /// Names the leader once enough members have promised the epoch.
    fn name_leader(&mut self, now: Time, id: LogId) {
        let patience = now.after(self.config.failover_after);
        let (Some(root), Some(watch)) = (self.root_of(id), self.watches.get(&id)) else {
            return;
        };
        let acked = |slot: Slot, inc: Inc| {
            let ack = watch.acks.get(&slot).is_some_and(|ack| ack.inc == inc);
            ack && root.eligible(slot).is_some_and(|(_, now)| now == inc)
        };
        // Those who leave are not needed once those who stay can do without them.
        let parts = root.can_part(acked);
        if !parts && !root.suffices(acked) {
            return;
        }
        let takes_part = |slot: Slot| !(parts && root.leaves(slot));
        let sealed: Vec<Slot> = watch
            .acks
            .iter()
            .filter(|(slot, ack)| acked(**slot, ack.inc) && takes_part(**slot))
            .map(|(&slot, _)| slot)
            .collect();
        // Who has not answered yet would be left out, or could not be named although it is to lead.
        let here = (0..root.places.len()).map(|slot| Slot::new(slot as u8));
        let unheard = here.filter(|slot| {
            let there = self.takes_part(id, *slot) && root.eligible(*slot).is_some();
            there && takes_part(*slot) && !sealed.contains(slot)
        });
        let all_write = root.quorum == RootQuorum::All;
        let stays = |slot: Slot| root.wanted.is_some() && !parts && !root.leaves(slot);
        let waits_for = |slot: &Slot| all_write || root.prefer == Some(*slot) || stays(*slot);
        let left_out: Vec<Slot> = unheard.filter(waits_for).collect();
        if !left_out.is_empty() && !watch.waited {
            if let Some(watch) = self.watches.get_mut(&id) {
                watch.patience.get_or_insert(patience);
            }
            return;
        }
        let last = root.leader();
        let furthest = sealed.iter().max_by_key(|slot| {
            let last_entry = watch.acks.get(slot).map(|ack| ack.last);
            let last_entry = if K::mutant(Mutant::AdoptLongest) {
                last_entry.map(|(_, entry)| (RootEpoch::ZERO, entry))
            } else {
                last_entry
            };
            (last_entry, last == Some(**slot), core::cmp::Reverse(**slot))
        });
        // Those whose logs the preferred member's covers may be enough: what the others hold beyond was never committed.
        let last_of = |slot: Slot| watch.acks.get(&slot).map(|ack| ack.last);
        let preferred = root.prefer.filter(|slot| {
            let covers = |other, inc| acked(other, inc) && last_of(other) <= last_of(*slot);
            let suffices = if parts {
                root.can_part(covers)
            } else {
                root.suffices(covers)
            };
            sealed.contains(slot) && suffices
        });
        let Some(leader) = preferred.or_else(|| furthest.copied()) else {
            return;
        };
        let bits = sealed.iter().fold(0u8, |bits, slot| bits | 1 << slot.get());
        let epoch = root.epoch;
        let (node, inc) = root.eligible(leader).unwrap_or_default();
        if !self.commit(Action::Name {
            log: id,
            epoch,
            leader,
            sealed: bits,
        }) {
            return;
        }
        let tried_at = now.after(self.config.late_after);
        if let Some(watch) = self.watches.get_mut(&id) {
            // One that was not even asked is tried again at once.
            let asked = |slot: &&Slot| watch.asked.contains_key(slot);
            let silent = left_out.iter().filter(asked);
            watch.silent = silent.map(|&slot| (slot, tried_at)).collect();
            watch.next_phase();
        }
        self.sent.remove(&id);
        self.grants.insert(id, self.state.version);
        let what = What::Lead {
            log: id,
            epoch,
            place: self.state.place_name(PlaceKey::Root(id, leader)),
            node,
            inc,
        };
        self.decide(now, what, Why::FurthestLog);
        self.look_after(now, id);
    }

    /// A member has promised an epoch.
    pub(crate) fn sealed(&mut self, now: Time, conn: ConnId, ack: SealAck) {
        let Some(slot) = self.member_of(conn, ack.log, ack.inc) else {
            self.counters.stale += 1;
            return;
        };
        if let Some(watch) = self.watches.get_mut(&ack.log)
            && watch.silent.remove(&slot).is_some()
        {
            self.look_after(now, ack.log);
        }
        let root = self.root_of(ack.log);
        let asked =
            root.is_some_and(|root| root.phase == Phase::Sealing && root.epoch == ack.promised);
        let Some(watch) = self.watches.get_mut(&ack.log).filter(|_| asked) else {
            self.counters.stale += 1;
            return;
        };
        let promise = Ack {
            inc: ack.inc,
            last: (ack.last_epoch, ack.last),
        };
        watch.acks.insert(slot, promise);
        self.look_after(now, ack.log);
    }

    /// A leader has committed the entry of its epoch.
    pub(crate) fn led(&mut self, now: Time, conn: ConnId, led: RootLed) {
        let slot = self.member_of(conn, led.log, led.inc);
        let root = self.root_of(led.log);
        let leads = root.is_some_and(|root| root.leads() == slot && root.epoch == led.epoch);
        if slot.is_none() || !leads {
            self.counters.stale += 1;
            return;
        }
        let named = root.is_some_and(|root| root.phase == Phase::Named);
        let (log, epoch) = (led.log, led.epoch);
        let changes = root.is_some_and(|root| root.wanted.is_some());
        if named && self.commit(Action::Record { log, epoch }) {
            self.decide(now, What::Led { log, epoch }, Why::RootReport);
        }
        self.grants.insert(log, self.state.version);
        if named && changes {
            // Who was to leave has left.
            self.after_change(now);
        } else if named {
            self.look_after(now, log);
            self.plan(now, log);
        }
    }

    /// The slot of the member of the root group that this life is and `conn` leads to.
    pub(crate) fn member_of(&self, conn: ConnId, log: LogId, inc: Inc) -> Option<Slot> {
        let places = &self.root_of(log)?.places;
        let mut slots = (0..places.len()).map(|slot| Slot::new(slot as u8));
        slots.find(|&slot| {
            let binding = self.bindings.get(&PlaceKey::Root(log, slot));
            binding.is_some_and(|binding| binding.conn == conn) && places[slot.index()].inc == inc
        })
    }

    /// The leader's slot, if it is connected. A log without one takes no views.
    pub(crate) fn leader_of(&self, log: LogId) -> Option<Slot> {
        let leader = self.root_of(log)?.leads()?;
        self.is_bound(log, leader).then_some(leader)
    }

    /// As [`Self::leader_of`], once its epoch is known to be committed.
    pub(crate) fn recorded_leader_of(&self, log: LogId) -> Option<Slot> {
        let recorded = self.root_of(log)?.phase == Phase::Recorded;
        self.leader_of(log).filter(|_| recorded)
    }

    /// Tells the lives whose cut log was given up that they have ended.
    pub(crate) fn end_void_lives(&mut self, now: Time, id: LogId, before: &Group) {
        for (slot, was) in before.places.iter().enumerate() {
            let key = PlaceKey::Root(id, Slot::new(slot as u8));
            let void = was.inc != Inc::ZERO
                && self
                    .state
                    .place(key)
                    .is_some_and(|place| place.inc == Inc::ZERO);
            let Some(binding) = self.bindings.get(&key).filter(|_| void) else {
                continue;
            };
            let refusal = Refusal::Void {
                place: self.state.place_name(key),
                inc: was.inc,
            };
            let conn = binding.conn;
            self.bindings.remove(&key);
            self.refuse(conn, 0, &refusal);
            self.member_seen(now, id, Slot::new(slot as u8), false);
        }
    }

    /// The members of `log` to be asked for their promise, and when.
    fn unasked(&self, log: LogId) -> impl Iterator<Item = (Slot, Inc, Time)> {
        let root = self.root_of(log);
        let due =
            root.filter(|root| root.phase == Phase::Sealing && root.since <= self.may_leave());
        let watch = self.watches.get(&log);
        due.into_iter().flat_map(move |root| {
            let slots = (0..root.places.len()).map(|slot| Slot::new(slot as u8));
            slots.filter_map(move |slot| {
                let (_, inc) = root.eligible(slot)?;
                let ack = watch.and_then(|watch| watch.acks.get(&slot));
                if !self.takes_part(log, slot) || ack.is_some_and(|ack| ack.inc == inc) {
                    return None;
                }
                let asked = watch.and_then(|watch| watch.asked.get(&slot));
                let at = asked.map_or(Time::ZERO, |at| at.after(self.config.resend_after));
                Some((slot, inc, at))
            })
        })
    }

    /// When a member that was asked for its promise is to be asked again.
    fn ask_again_at(&self, log: LogId) -> Option<Time> {
        let asked = &self.watches.get(&log)?.asked;
        let unasked = self.unasked(log);
        let due = unasked.filter(|(slot, ..)| asked.contains_key(slot));
        due.map(|(.., at)| at).min()
    }

    pub(crate) fn poll_seal(
        &mut self,
        now: Time,
        room: &mut impl FnMut(ConnId) -> usize,
        out: &mut Vec<u8>,
    ) -> Option<ConnId> {
        let logs: Vec<LogId> = self.watches.keys().copied().collect();
        for log in logs {
            let due: Vec<(Slot, Inc)> = self
                .unasked(log)
                .filter(|(.., at)| *at <= now)
                .map(|(slot, inc, _)| (slot, inc))
                .collect();
            for (slot, inc) in due {
                let conn = self
                    .bindings
                    .get(&PlaceKey::Root(log, slot))
                    .map(|b| b.conn);
                let epoch = self.root_of(log).map(|root| root.epoch);
                // An attempt without room counts, so that the next one is due later.
                if let Some(watch) = self.watches.get_mut(&log) {
                    watch.asked.insert(slot, now);
                }
                if let (Some(conn), Some(epoch)) = (conn, epoch)
                    && room(conn) >= message_bytes::<Seal>(0)
                {
                    put(out, &Seal { log, inc, epoch }, &[]);
                    return Some(conn);
                }
            }
        }
        None
    }
}
