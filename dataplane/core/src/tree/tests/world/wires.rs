//! Connections: who has one with whom, and what goes over them.

use alloc::vec::Vec;

use super::*;

impl World {
    /// Who should be connected: each vertex with the one above it, each replica with its leaf.
    pub(super) fn wanted(&self) -> Vec<(Who, Who)> {
        fn walk(above: Who, nodes: &[Node], found: &mut Vec<(Who, Who)>) {
            for node in nodes {
                let here = Who::Vertex(node.process);
                found.push((here, above));
                walk(here, &node.below, found);
            }
        }
        let mut found = Vec::new();
        walk(Who::Root, &self.tree, &mut found);
        for (shard, slot) in self.replicas.keys() {
            let rank = self.shards[shard] * 100 + 99;
            let leaf = self.begins.iter().rfind(|(_, begins)| *begins <= rank);
            let leaf = Who::Vertex(leaf.expect("the first leaf begins at 0").0);
            found.push((Who::Replica(*shard, *slot), leaf));
        }
        if let Some(away) = self.away.map(Who::Vertex) {
            found.retain(|(from, to)| *from != away && *to != away);
        }
        found
    }

    /// The last leaf cannot be reached any more, and the edge of its parent begins anew, of which something is lost.
    pub(in crate::tree::tests) fn lose_last_leaf(&mut self) {
        self.away = self.leaf_processes().last().copied();
        self.connect_all();
        let top = self.wires.iter().position(|it| it.ends[1].0 == Who::Root);
        self.disconnect(top.expect("the root has a child"));
        self.connect_all();
    }

    /// Whether somebody hears a replica.
    pub(super) fn is_heard(&self, shard: ShardId, slot: Slot) -> bool {
        let who = Who::Replica(shard, slot);
        self.wires.iter().any(|wire| wire.ends[0].0 == who)
    }

    /// Breaks connections that are not wanted any more, and makes those that are missing.
    pub(super) fn connect_all(&mut self) {
        let wanted = self.wanted();
        let pair = |wire: &Wire| (wire.ends[0].0, wire.ends[1].0);
        while let Some(at) = self
            .wires
            .iter()
            .position(|wire| !wanted.contains(&pair(wire)))
        {
            self.disconnect(at);
        }
        for (from, to) in wanted {
            if !self.wires.iter().any(|wire| pair(wire) == (from, to)) {
                self.connect(from, to);
            }
        }
    }

    pub(super) fn connect(&mut self, from: Who, to: Who) {
        let ends = [from, to].map(|who| {
            let last = self.conns.entry(who).or_default();
            *last += 1;
            (who, ConnId::new(*last))
        });
        let queues = Default::default();
        self.wires.push(Wire { ends, queues });
        for (who, conn) in ends {
            match who {
                Who::Root => {
                    self.root_out.set_room(conn, 4 << 20);
                    self.root.opened(conn, &mut self.root_out);
                }
                Who::Vertex(at) => {
                    let Process { machine, out, .. } = &mut self.processes[at];
                    out.set_room(conn, 4 << 20);
                    match machine {
                        Machine::Leaf(leaf) => leaf.opened(conn, out),
                        Machine::Aggregator(aggregator) => aggregator.opened(conn, out),
                    }
                }
                Who::Replica(shard, slot) => {
                    let member = self.member(shard, slot.get());
                    let hello = hello(Role::Replica, member.node.get(), member.inc, shard, slot);
                    self.send((who, conn), encoded(&hello, &[]));
                    if self.writes_slots(shard) {
                        self.seat(to, shard, slot);
                    }
                    self.report(shard, slot);
                }
            }
            self.carry(who);
        }
    }

    pub(super) fn disconnect(&mut self, at: usize) {
        let wire = self.wires.swap_remove(at);
        for (who, conn) in wire.ends {
            match who {
                Who::Root => self.root.closed(conn),
                Who::Vertex(at) => match &mut self.processes[at].machine {
                    Machine::Leaf(leaf) => leaf.closed(conn),
                    Machine::Aggregator(aggregator) => aggregator.closed(conn),
                },
                Who::Replica(..) => {}
            }
        }
    }

    /// Puts a message on its way.
    pub(super) fn send(&mut self, from: (Who, ConnId), bytes: Vec<u8>) {
        for wire in &mut self.wires {
            if let Some(end) = wire.ends.iter().position(|end| *end == from) {
                wire.queues[1 - end].push_back(bytes);
                return;
            }
        }
    }

    /// Takes what somebody says to where it goes, and closes what it wants closed.
    pub(super) fn carry(&mut self, who: Who) {
        let out = match who {
            Who::Root => &mut self.root_out,
            Who::Vertex(at) => &mut self.processes[at].out,
            Who::Replica(..) => return,
        };
        let said: Vec<(ConnId, Vec<u8>)> = out
            .envelopes()
            .iter()
            .map(|envelope| (envelope.conn, out.head(envelope).to_vec()))
            .collect();
        out.clear();
        for (conn, bytes) in said {
            self.send((who, conn), bytes);
        }
        loop {
            let close = match who {
                Who::Root => self.root.take_close(),
                Who::Vertex(at) => match &mut self.processes[at].machine {
                    Machine::Leaf(leaf) => leaf.take_close(),
                    Machine::Aggregator(aggregator) => aggregator.take_close(),
                },
                Who::Replica(..) => None,
            };
            let Some(conn) = close else { return };
            let found = self
                .wires
                .iter()
                .position(|it| it.ends.contains(&(who, conn)));
            if let Some(at) = found {
                self.disconnect(at);
            }
        }
    }

    pub(super) fn tell_root(&mut self, conn: ConnId, bytes: &[u8]) {
        let (message, _) = Message::new_checked(bytes).unwrap();
        self.root_out.set_room(conn, 4 << 20);
        self.root
            .handle(self.now, conn, &message, &mut self.root_out);
        self.carry(Who::Root);
    }

    /// The oldest message of a connection in one direction arrives.
    pub(super) fn deliver(&mut self, wire: usize, end: usize) -> bool {
        let Some(wire) = self.wires.get_mut(wire) else {
            return false;
        };
        let Some(bytes) = wire.queues[end].pop_front() else {
            return false;
        };
        let (who, conn) = wire.ends[end];
        match who {
            Who::Root => self.tell_root(conn, &bytes),
            Who::Vertex(at) => {
                let (message, _) = Message::new_checked(&bytes).unwrap();
                self.parts += u64::from(matches!(message, Message::EdgeShards(..)));
                let Process { machine, out, .. } = &mut self.processes[at];
                out.set_room(conn, 4 << 20);
                match machine {
                    Machine::Leaf(leaf) => leaf.handle(self.now, conn, &message, out),
                    Machine::Aggregator(it) => it.handle(self.now, conn, &message, out),
                }
                self.carry(who);
            }
            Who::Replica(shard, slot) => self.hear(shard, slot, &bytes),
        }
        true
    }

    pub(super) fn flush_root(&mut self) {
        let mine = self.wires.iter().flat_map(|wire| wire.ends);
        for (_, conn) in mine.filter(|(who, _)| *who == Who::Root) {
            self.root_out.set_room(conn, 4 << 20);
        }
        self.root.flush(self.now, &mut self.root_out);
        // What is said of an entry comes after the entry.
        self.see();
        self.carry(Who::Root);
    }

    pub(super) fn flush(&mut self, at: usize) {
        let mine: Vec<ConnId> = self
            .wires
            .iter()
            .flat_map(|wire| wire.ends)
            .filter_map(|(who, conn)| (who == Who::Vertex(at)).then_some(conn))
            .collect();
        let Process {
            machine,
            out,
            slots,
            ..
        } = &mut self.processes[at];
        for conn in mine {
            out.set_room(conn, 4 << 20);
        }
        match machine {
            Machine::Leaf(leaf) => {
                leaf.scan(self.now, &mut slots.reader);
                leaf.flush(self.now, out);
            }
            Machine::Aggregator(aggregator) => aggregator.flush(self.now, out),
        }
        self.carry(Who::Vertex(at));
    }
}
