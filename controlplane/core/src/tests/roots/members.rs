//! The model of a member: what it keeps, what it answers, and what it does when it leads.

use std::collections::BTreeMap;

use ionian_types::RootEpoch;
use ionian_wire::Reader;
use ionian_wire::frame::{IntentDone, RootAlone, RootGrant, RootLed, Seal, SealAck};

use super::super::*;
use super::world::{Entry, Member, World, other_node, root_node};

impl World {
    pub(super) fn restart(&mut self, slot: usize, keep: bool) {
        self.connect(slot);
        let member = &mut self.members[slot];
        let keep = keep && member.on_device != Inc::ZERO;
        let found = if keep { member.on_device } else { Inc::ZERO };
        *member = Member {
            node: member.node,
            conn: member.conn,
            on_device: found,
            promised: if keep {
                member.promised
            } else {
                RootEpoch::ZERO
            },
            log: if keep { member.log.clone() } else { Vec::new() },
            ..Member::default()
        };
        self.request += 1;
        self.members[slot].asked = Some((self.request, keep));
        self.ask_again(slot);
    }

    pub(super) fn ask_again(&mut self, slot: usize) {
        if let Some((request, has_data)) = self.members[slot].asked {
            let register = Register {
                cluster: CLUSTER,
                node: self.members[slot].node,
                role: Role::Root,
                log: LOG,
                shard: ShardId::ZERO,
                slot: Slot::new(slot as u8),
                vertex: VertexId::ZERO,
                last_inc: self.members[slot].on_device,
                has_data,
                request,
            };
            self.send(slot, &register);
        }
    }

    /// The member is to be on its other node.
    pub(super) fn move_to_other(&mut self, slot: usize) -> Operated {
        let log = self.directory.map().logs.swap_remove(0);
        let mut nodes: Vec<NodeId> = log.roots.iter().map(|root| root.node).collect();
        let here = nodes[slot] == root_node(slot);
        nodes[slot] = [root_node(slot), other_node(slot)][usize::from(here)];
        let operation = Operation::SetRoot { log: LOG, nodes };
        operate(&mut self.directory, self.now, false, operation)
    }

    /// Processes are where the map says that the members are: the one on the node before stops, another begins with nothing.
    pub(super) fn follow(&mut self, slot: usize) {
        let map = self.directory.map();
        if let Some(root) = map.logs[0].roots.get(slot)
            && self.members[slot].node != root.node
        {
            self.members[slot] = Member {
                conn: self.members[slot].conn,
                ..Member::on(root.node)
            };
        }
    }

    pub(super) fn reconnect(&mut self, slot: usize) {
        self.connect(slot);
        if let Some((_, has_data)) = self.members[slot].asked {
            self.request += 1;
            self.members[slot].asked = Some((self.request, has_data));
            self.ask_again(slot);
        } else if self.members[slot].begun {
            self.say_hello(slot);
        }
    }

    fn say_hello(&mut self, slot: usize) {
        let hello = Hello {
            node: self.members[slot].node,
            slot: Slot::new(slot as u8),
            ..hello(ROOT, self.members[slot].inc)
        };
        self.send(slot, &hello);
    }

    pub(super) fn begin(&mut self, slot: usize) {
        let member = &mut self.members[slot];
        if member.asked.is_none() && member.inc != Inc::ZERO && !member.begun {
            member.begun = true;
            if self.class.is_flushed() {
                member.on_device = member.inc;
            }
            self.say_hello(slot);
        }
    }

    pub(super) fn deliver(&mut self, slot: usize) {
        let Some(frame) = self.members[slot].inbox.pop_front() else {
            return;
        };
        match message(&frame) {
            Message::Registered(answer, why) => self.registered(slot, answer, why),
            Message::Seal(seal, _) => self.seal(slot, seal),
            Message::RootGrant(grant, tail) => self.granted(slot, grant, tail),
            Message::Intent(intent, changes) => self.take_intent(slot, intent.view.get(), changes),
            Message::Hello(..) | Message::DirectoryAnswer(..) => {}
            other => panic!("{} was sent to member {slot}", other.name()),
        }
    }

    fn registered(&mut self, slot: usize, answer: ionian_wire::frame::Registered, why: &[u8]) {
        let why = String::from_utf8_lossy(why).into_owned();
        if answer.request == 0 {
            // This life has ended; another one is started, and begins with nothing. Where the place is now.
            let moved = why.contains("has no place in the cluster");
            assert!(
                moved || why.contains("ends with it") || why.contains("was replaced"),
                "{why}"
            );
            if moved {
                self.follow(slot);
            }
            return self.restart(slot, false);
        }
        if self.members[slot]
            .asked
            .is_none_or(|(request, _)| request != answer.request)
        {
            return;
        }
        if answer.inc == Inc::ZERO {
            if why.contains("belongs to node") {
                self.follow(slot);
                return self.restart(slot, false);
            }
            // Disks are lost in this world, and only then a member is refused: it tries again.
            assert!(
                why.contains("has a cut log") || why.contains("old image"),
                "{why}"
            );
            return;
        }
        assert!(
            self.incs.insert(answer.inc),
            "{} was given twice",
            answer.inc
        );
        let member = &mut self.members[slot];
        member.inc = answer.inc;
        member.asked = None;
        if !self.class.is_flushed() {
            self.begin(slot);
        }
    }

    fn seal(&mut self, slot: usize, seal: Seal) {
        let member = &mut self.members[slot];
        if !member.begun || member.inc != seal.inc {
            return;
        }
        if seal.epoch > member.promised {
            member.promised = seal.epoch;
            member.leads = None;
        }
        let (last_epoch, last) = place_in(&member.log);
        let ack = SealAck {
            log: LOG,
            inc: member.inc,
            promised: member.promised,
            last_epoch,
            last,
            committed: EntryNo::new(member.committed as u64),
        };
        self.send(slot, &ack);
    }

    fn granted(&mut self, slot: usize, grant: RootGrant, tail: &[u8]) {
        let mut reader = Reader::new(tail);
        let listed: Vec<(NodeId, Inc)> = (0..grant.members)
            .map(|_| (reader.field().unwrap(), reader.field().unwrap()))
            .collect();
        let named = (grant.inc, listed.clone());
        let known = self
            .epochs
            .entry(grant.epoch)
            .or_insert_with(|| named.clone());
        assert_eq!(*known, named, "epoch {} was named twice", grant.epoch);
        let (write, seal) = (grant.write_quorum, grant.seal_quorum);
        assert!(write >= 1 && write <= grant.members && write + seal > grant.members);
        let member = &mut self.members[slot];
        if !member.begun || grant.inc != member.inc || grant.epoch < member.promised {
            return;
        }
        if let Some((leads, _)) = &mut member.leads
            && leads.epoch == grant.epoch
        {
            leads.recorded |= grant.recorded;
            return;
        }
        if grant.floor > self.floor {
            // The cut log was given up: nobody who has held anything of it leads.
            assert!(!self.class.is_flushed(), "a disk was given up");
            assert!(member.log.is_empty(), "a void log goes on");
            self.floor = grant.floor;
            self.committed.clear();
        }
        if member.log.is_empty() && self.committed.iter().all(|entry| entry.2.is_none()) {
            // Nothing that was worth anything is lost; there is nothing to declare.
            self.committed.clear();
        }
        member.promised = grant.epoch;
        let last = member.log.last().map_or(grant.view.get(), |entry| entry.1);
        member.log.push((grant.epoch, last, None));
        member.leads = Some((grant, listed));
        member.held = BTreeMap::from([(slot, member.log.len())]);
        member.led = false;
        self.commit(slot);
    }

    /// A leader takes the next view; what is logged already it knows by its number.
    fn take_intent(&mut self, slot: usize, view: u64, changes: &[u8]) {
        let member = &mut self.members[slot];
        let Some((grant, _)) = &member.leads else {
            return;
        };
        assert!(
            member.led,
            "an intent in an epoch that is not known to be committed"
        );
        let last = member.log.last().map_or(0, |entry| entry.1);
        if view <= last {
            return self.report(slot);
        }
        assert_eq!(view, last + 1, "views are dense");
        member.log.push((grant.epoch, view, Some(changes.to_vec())));
        member.held.insert(slot, member.log.len());
        self.commit(slot);
    }

    /// A leader writes its log to a member.
    pub(super) fn write(&mut self, from: usize, to: usize) {
        let Some((grant, listed)) = self.members[from].leads.clone() else {
            return;
        };
        let target = &self.members[to];
        if listed[to] != (target.node, target.inc) || !target.begun {
            return;
        }
        if target.promised > grant.epoch {
            self.members[from].leads = None;
            return;
        }
        let log = self.members[from].log.clone();
        let target = &mut self.members[to];
        if target.promised < grant.epoch {
            target.leads = None;
        }
        target.promised = grant.epoch;
        target.log.clone_from(&log);
        self.members[from].held.insert(to, log.len());
        self.commit(from);
    }

    fn commit(&mut self, slot: usize) {
        let member = &self.members[slot];
        let Some((grant, _)) = &member.leads else {
            return;
        };
        let own = member.log.iter().position(|entry| entry.0 == grant.epoch);
        let mut held: Vec<usize> = member.held.values().copied().collect();
        held.sort_unstable_by(|a, b| b.cmp(a));
        let Some(&upto) = held.get(usize::from(grant.write_quorum) - 1) else {
            return;
        };
        if own.is_none_or(|own| own >= upto) {
            return;
        }
        let log = member.log[..upto].to_vec();
        let common = log.len().min(self.committed.len());
        assert_eq!(
            log[..common],
            self.committed[..common],
            "committed entries agree"
        );
        if log.len() > self.committed.len() {
            self.committed = log;
        }
        self.members[slot].committed = upto;
        self.members[slot].led = true;
        self.report(slot);
    }

    pub(super) fn report(&mut self, slot: usize) {
        let member = &self.members[slot];
        let Some((grant, _)) = member.leads.as_ref().filter(|_| member.led) else {
            return;
        };
        let led = RootLed {
            log: LOG,
            inc: member.inc,
            epoch: grant.epoch,
            entry: EntryNo::new(1),
        };
        let done = IntentDone {
            log: LOG,
            view: ViewId::new(
                member.log[..member.committed]
                    .last()
                    .map_or(0, |entry| entry.1),
            ),
            entry: EntryNo::new(1),
        };
        if !grant.recorded {
            self.send(slot, &led);
        }
        self.send(slot, &done);
    }

    pub(super) fn alone(&mut self, slot: usize) {
        let member = &self.members[slot];
        let Some((grant, _)) = &member.leads else {
            return;
        };
        let alone = RootAlone {
            log: LOG,
            inc: member.inc,
            epoch: grant.epoch,
            silent: 1_000_000_000,
        };
        self.send(slot, &alone);
    }
}

fn place_in(log: &[Entry]) -> (RootEpoch, EntryNo) {
    let last = log.last().map_or(RootEpoch::ZERO, |entry| entry.0);
    (last, EntryNo::new(log.len() as u64))
}
