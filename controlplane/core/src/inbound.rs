//! What processes say: greetings, requests for the map, views logged, positions wanted, shards whole.
//!
//! A report counts only on the connection of the process that fills its place now; what a past life says is set aside. Of
//! several connections of one life the one opened last counts: the life has given up the others, and what it said there
//! may arrive late. When that one is gone, the last of the others does.

use ionian_types::{ClusterId, ConnId, Inc, Knobs, Time};
use ionian_wire::WIRE_VERSION;
use ionian_wire::frame::{CeilingRequest, DirectoryRequest, Hello, IntentDone, Role, ShardStatus};

use crate::CEILING_BLOCK;
use crate::command::Action;
use crate::decision::{What, Why};
use crate::directory::{Directory, ShardHealth};
use crate::registration::Refusal;
use crate::state::{Away, PlaceKey};

impl<K: Knobs> Directory<K> {
    pub(crate) fn greet(&mut self, now: Time, conn: ConnId, hello: &Hello) {
        let (node, found) = (hello.node, hello.cluster);
        let expected = self.state.cluster;
        let foreign = found != expected && found != ClusterId::default();
        if foreign || hello.wire_version != WIRE_VERSION {
            self.counters.foreign += 1;
            let refusal = if foreign {
                Refusal::Foreign {
                    node,
                    found,
                    expected,
                }
            } else {
                Refusal::OtherVersion {
                    node,
                    found: hello.wire_version,
                    known: WIRE_VERSION,
                }
            };
            self.note_refused(conn, &refusal, true);
            return;
        }
        let key = match hello.role {
            Role::Root => PlaceKey::Root(hello.log, hello.slot),
            Role::Leaf | Role::Aggregator => {
                let log = self.state.logs.get(&hello.log);
                match log.and_then(|log| log.tree.filled_by(hello.node, hello.inc)) {
                    Some(vertex) => PlaceKey::Vertex(hello.log, vertex),
                    None if hello.inc == Inc::ZERO => return,
                    // Its place belongs to a later life, or is gone: it is told so, and stops.
                    None => {
                        self.counters.stale += 1;
                        let refusal = Refusal::NoPlace { inc: hello.inc };
                        self.refuse(conn, 0, &refusal);
                        self.note_refused(conn, &refusal, false);
                        return;
                    }
                }
            }
            Role::Replica => {
                let state = &self.state;
                state.replica_key(hello.log, hello.shard, hello.slot, hello.node)
            }
            Role::Client | Role::Controller => return,
        };
        // A process that has no incarnation yet says hello before it registers.
        if hello.inc.get() == 0 {
            return;
        }
        match self.state.place(key) {
            Some(place) if place.inc == hello.inc && place.node == hello.node => {
                if self.state.away(hello.node) == Away::CutOff {
                    // Nobody else hears it: it has its places again when it is tried.
                    self.note_life(key, conn);
                } else if self.is_given_up(key, conn) {
                    self.counters.stale += 1;
                    self.note_life(key, conn);
                } else {
                    self.take_place(now, key, conn);
                }
            }
            // Its place belongs to a later life, or never was its own: it is told so, and stops.
            _ => {
                self.counters.stale += 1;
                let refusal = Refusal::Replaced {
                    place: self.state.place_name(key),
                    inc: hello.inc,
                };
                self.refuse(conn, 0, &refusal);
                self.note_refused(conn, &refusal, false);
            }
        }
    }

    /// The place's present life is there, and `conn` leads to it.
    pub(crate) fn take_place(&mut self, now: Time, key: PlaceKey, conn: ConnId) {
        let Some(place) = self.state.place(key) else {
            return;
        };
        let (inc, up) = (place.inc, place.up);
        if !up {
            self.commit(Action::Show {
                place: key,
                up: true,
            });
        }
        self.confirm(key, inc);
        let before = self.bindings.get(&key).filter(|before| before.conn == conn);
        let request = before.and_then(|before| before.request);
        self.bind(now, key, conn, request);
    }

    /// A process that says who it is has its incarnation on its device, if it has one.
    fn confirm(&mut self, key: PlaceKey, inc: Inc) {
        let news = self
            .state
            .place(key)
            .is_some_and(|place| place.confirmed != inc);
        let has_device = self
            .state
            .logs
            .get(&key.log())
            .is_some_and(|log| log.class.is_flushed());
        if news && has_device && !matches!(key, PlaceKey::Vertex(..)) {
            self.commit(Action::Confirm { place: key, inc });
        }
    }

    pub(crate) fn ask(&mut self, conn: ConnId, request: DirectoryRequest) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.waiting = Some(request.request);
            conn.known = Some(request.known);
        }
    }

    pub(crate) fn intent_done(&mut self, now: Time, conn: ConnId, done: IntentDone) {
        let leader = self.leader_of(done.log);
        let key = leader.map(|slot| PlaceKey::Root(done.log, slot));
        let Some(log) = key.and_then(|key| self.bound(conn, key)) else {
            self.counters.stale += 1;
            return;
        };
        let pending = log.pending.as_ref().map(|pending| pending.view);
        if pending == Some(done.view) {
            let left = log.tree.is_adopting();
            let (log, view) = (done.log, done.view);
            self.commit(Action::Logged { log, view });
            self.decide(now, What::Logged { log, view }, Why::RootReport);
            if left {
                // Vertices of the tree before have no place any more.
                self.after_change(now);
            } else {
                self.plan(now, log);
            }
            self.take_held(now);
        } else if done.view > pending.unwrap_or(log.view) {
            let (log, view) = (done.log, done.view);
            self.decide(now, What::Ignore { log, view }, Why::NeverIssued);
        }
    }

    pub(crate) fn raise_ceiling(&mut self, now: Time, conn: ConnId, request: CeilingRequest) {
        let leader = self.leader_of(request.log);
        let asks = leader.filter(|_| leader == self.member_of(conn, request.log, request.inc));
        let key = asks.map(|slot| PlaceKey::Root(request.log, slot));
        let Some(log) = key.and_then(|key| self.bound(conn, key)) else {
            self.counters.stale += 1;
            return;
        };
        // One block at a time, whatever is asked: a root that is wrong cannot use up the range of positions.
        let raised = log.ceiling.checked_add(CEILING_BLOCK);
        if let Some(ceiling) = raised.filter(|_| request.upto > log.ceiling) {
            let (log, epoch) = (request.log, log.root.epoch);
            self.commit(Action::Reserve { log, ceiling });
            let what = What::Grant {
                log,
                epoch,
                ceiling,
            };
            self.decide(now, what, Why::CeilingNear);
        }
        self.grants.insert(request.log, self.state.version);
    }

    pub(crate) fn shard_status(&mut self, now: Time, conn: ConnId, report: ShardStatus) {
        let Some(log) = self.bound_leaf(conn, report.log, report.shard) else {
            return self.copy_status(now, conn, report);
        };
        let shard = log.shards.get(&report.shard);
        let Some(shard) = shard.filter(|shard| shard.opened && shard.epoch == report.epoch) else {
            self.counters.stale += 1;
            return;
        };
        if report.whole && shard.would_settle(report.held) {
            self.commit(Action::Whole {
                log: report.log,
                shard: report.shard,
                held: report.held,
            });
            self.take_held(now);
        }
        self.health
            .insert((report.log, report.shard), ShardHealth { at: now, report });
        if report.ready {
            self.plan(now, report.log);
        }
    }
}
