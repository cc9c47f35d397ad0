//! Suspicions in and out of the directory: who may be asked, what becomes of the answers, and what a death brings about.
//!
//! A process takes part by `Observe` over a connection of its own. When that connection ends, or when an observer hears
//! nothing of a process, an [inquiry](crate::detection) begins. A death closes what the process has written, takes another
//! leader for its root groups, and moves its leaves, all in one step with the finding itself.

use std::collections::BTreeSet;

use ionian_types::{ConnId, Knobs, LogId, Nanos, NodeId, Slot, Time, VertexId};
use ionian_wire::frame::{Observe, Probe, ProbeAnswer, Suspect};

use crate::command::Action;
use crate::decision::Why;
use crate::detection::{Finding, OBSERVERS_MAX, Rest, Standing, Verdict};
use crate::directory::Directory;
use crate::operation::Operation;
use crate::outbound::{message_bytes, put};
use crate::state::{Away, Node, PlaceKey};
use crate::transaction::Task;

impl<K: Knobs> Directory<K> {
    /// A process says that it observes others, and is to be asked over `conn`.
    pub(crate) fn observe(&mut self, now: Time, conn: ConnId, observe: Observe) {
        if self.config.detection.is_none() || !self.state.nodes.contains_key(&observe.node) {
            return;
        }
        self.detection.observers.insert(observe.node, conn);
        self.detection.seen(observe.node);
        // It may be the one that a leaf waits for.
        self.move_vertices(now);
    }

    fn observer_of(&self, conn: ConnId) -> Option<NodeId> {
        let mut observers = self.detection.observers.iter();
        let found = observers.find(|(_, own)| **own == conn);
        found.map(|(&node, _)| node)
    }

    /// An observer hears nothing of a process.
    pub(crate) fn suspected(&mut self, now: Time, conn: ConnId, suspect: Suspect) {
        if self.observer_of(conn).is_none_or(|own| own == suspect.node) {
            self.counters.stale += 1;
        } else if !self.detection.rests(now, suspect.node) {
            self.inquire(now, suspect.node, false);
        }
    }

    /// An answer has come.
    pub(crate) fn answered(&mut self, now: Time, conn: ConnId, answer: ProbeAnswer) {
        let (Some(config), Some(from)) = (self.config.detection, self.observer_of(conn)) else {
            self.counters.stale += 1;
            return;
        };
        let inquiry = self.detection.inquiries.get_mut(&answer.node);
        let Some(inquiry) = inquiry.filter(|inquiry| inquiry.number == answer.number) else {
            self.counters.stale += 1;
            return;
        };
        if inquiry.answer(from, answer.evidence, Nanos(answer.silent)) {
            self.detection.refute(now, answer.node, &config);
        } else {
            self.conclude(now, answer.node);
        }
    }

    /// A connection is gone; it may have been that of a process.
    pub(crate) fn observer_gone(&mut self, now: Time, conn: ConnId) {
        let Some(node) = self.observer_of(conn) else {
            return;
        };
        self.detection.observers.remove(&node);
        let inquiries = self.detection.inquiries.iter_mut();
        let about: Vec<NodeId> = inquiries
            .map(|(&about, inquiry)| {
                inquiry.lost(node);
                about
            })
            .collect();
        self.inquire(now, node, true);
        for about in about {
            self.conclude(now, about);
        }
    }

    /// Finds out whether a process is dead, unless that is known or being found out.
    pub(crate) fn inquire(&mut self, now: Time, node: NodeId, closed: bool) {
        let Some(config) = self.config.detection else {
            return;
        };
        let known = self.is_away(node) || self.detection.waiting.contains_key(&node);
        if known || !self.state.lives_on(node) {
            return;
        }
        let closed = closed && !self.detection.observers.contains_key(&node);
        let under_way = self.detection.inquiries.get(&node);
        if under_way.is_some_and(|inquiry| inquiry.is_closed() || !closed) {
            return;
        }
        let may_say =
            |other: &NodeId| self.detection.observers.contains_key(other) && !self.is_away(*other);
        let observers = self.state.observers_of(node).into_iter().filter(may_say);
        let observers: Vec<NodeId> = observers.take(OBSERVERS_MAX).collect();
        self.detection.begin(now, node, observers, closed, &config);
        self.conclude(now, node);
    }

    /// Acts on what an inquiry has come to, if it has come to anything.
    fn conclude(&mut self, now: Time, node: NodeId) {
        let Some(config) = self.config.detection else {
            return;
        };
        let Some(inquiry) = self.detection.inquiries.get_mut(&node) else {
            return;
        };
        match inquiry.finding(now, &config) {
            Finding::Open => {}
            Finding::Unanswered if !inquiry.again => {
                // Those who were asked may have been late, all at a time. The suspect may hang for all that, and a pause would
                // only be lost.
                let closed = inquiry.is_closed();
                self.detection.inquiries.remove(&node);
                self.inquire(now, node, closed);
                if let Some(inquiry) = self.detection.inquiries.get_mut(&node) {
                    inquiry.again = true;
                }
            }
            Finding::Undecided | Finding::Unanswered => self.detection.refute(now, node, &config),
            Finding::Dead(verdict) => {
                self.detection.inquiries.remove(&node);
                let max = config.deaths_per_minute_max;
                self.count_deaths(now);
                match self.detection.budget.take(now, max) {
                    Ok(()) => self.bury(now, node, &verdict),
                    Err(again) => {
                        self.detection.waiting.insert(node, again);
                        self.note_death(now, node, &verdict, true);
                    }
                }
            }
        }
    }

    fn note_death(&mut self, now: Time, node: NodeId, verdict: &Verdict, waits: bool) -> bool {
        let logs = self.state.logs_of(node);
        let taken = self.commit(Action::Bury {
            node,
            silent: verdict.silent,
            said_by: verdict.said_by.clone(),
            reached: verdict.reached as u8,
            standing: verdict.standing,
            waits,
        });
        for log in logs {
            let what = self.state.found(log, node, verdict);
            let why = if waits { Why::Budget } else { Why::Silent };
            self.decide(now, what, why);
        }
        taken
    }

    fn is_away(&self, node: NodeId) -> bool {
        self.state.away(node) != Away::No
    }

    /// The deaths that another controller decided a short while ago count, once the time of day is known.
    fn count_deaths(&mut self, now: Time) {
        if core::mem::replace(&mut self.detection.counted, true) {
            return;
        }
        let since = |node: &Node| self.wall_us.saturating_sub(node.away_since_us);
        let died = self.state.nodes.values();
        let died = died.filter(|node| node.away_since_us > 0);
        let ages = died.map(|node| Nanos(since(node).saturating_mul(1000)));
        self.detection.budget.count(now, ages.collect());
    }

    /// A process is dead or cut off: everybody goes on without it.
    fn bury(&mut self, now: Time, node: NodeId, verdict: &Verdict) {
        if !self.note_death(now, node, verdict, false) {
            return;
        }
        if verdict.standing == Standing::CutOff {
            self.detection.put_off(now, node);
        }
        // A process that hangs or is cut off is attached still. When it goes on it is to say anew who it is.
        let own = self.detection.observers.remove(&node);
        let mut conns: BTreeSet<ConnId> = own.into_iter().collect();
        let keys: Vec<PlaceKey> = self.state.keys_on(node).collect();
        for &key in &keys {
            conns.extend(self.bindings.remove(&key).map(|binding| binding.conn));
            self.absent.remove(&key);
            if let PlaceKey::Root(log, slot) = key {
                self.member_gone(log, slot);
            }
        }
        for conn in &conns {
            self.conns.remove(conn);
            self.answers.retain(|answer| answer.conn != *conn);
        }
        self.detection.to_close.extend(conns);
        let logs: BTreeSet<LogId> = keys.iter().map(|key| key.log()).collect();
        for &log in &logs {
            self.look_after(now, log);
            self.plan(now, log);
        }
        self.move_vertices(now);
    }

    /// Vertices of trees whose process is away begin anew on others: they have nothing that others do not.
    pub(crate) fn move_vertices(&mut self, now: Time) {
        let logs = self.state.logs.iter();
        let vertices = logs.flat_map(|(&id, log)| log.tree.vertices().map(move |it| (id, it)));
        let away = vertices.filter(|(_, (_, vertex))| self.is_away(vertex.place.node));
        let away: Vec<_> = away.map(|(id, (vertex, _))| (id, vertex)).collect();
        for (log, vertex) in away {
            self.move_vertex_off(now, log, vertex);
        }
    }

    fn move_vertex_off(&mut self, now: Time, id: LogId, vertex: VertexId) {
        let Some(log) = self.state.logs.get(&id) else {
            return;
        };
        let there = |node: &NodeId| {
            let known = self.state.nodes.get(node);
            let takes = known.is_some_and(|known| !known.drained);
            takes && self.detection.observers.contains_key(node) && !self.is_away(*node)
        };
        // One that is not there now may come, unless it is away, too.
        let on_its_way = |node| !self.is_away(node);
        let next = log.tree.vertex(vertex).and_then(|vertex| vertex.next);
        if next.is_some_and(on_its_way) {
            return;
        }
        let leader = self.leader_of(id).unwrap_or(Slot::ZERO);
        let leader = log.root.places.get(leader.index());
        let roots = leader.into_iter().chain(&log.root.places);
        let replicas = log.shards.values().flat_map(|shard| &shard.members);
        let nodes = roots.chain(replicas.map(|member| &member.place));
        let nodes = nodes.map(|place| place.node).filter(there);
        // Of those with the fewest vertices the first: close to who orders.
        let load = |node: &NodeId| {
            let vertices = log.tree.vertices().map(|(_, it)| it);
            let here = vertices.filter(|it| it.next.unwrap_or(it.place.node) == *node);
            here.count()
        };
        let Some(node) = nodes.min_by_key(load) else {
            return;
        };
        let operation = Operation::MoveVertex {
            log: id,
            vertex,
            node,
        };
        let tasks = vec![Task::MoveVertex {
            log: id,
            vertex,
            node,
        }];
        let action = Action::Begin { operation, tasks };
        if self.fits(&action).is_ok() && self.commit(action) {
            self.after_change(now);
        }
    }

    /// Takes up again what another controller knew: who is cut off is tried again here, too.
    pub(crate) fn resume_detection(&mut self, now: Time) {
        let cut_off = |node: &NodeId| self.state.away(*node) == Away::CutOff;
        let nodes: Vec<NodeId> = self.state.nodes.keys().copied().filter(cut_off).collect();
        for node in nodes {
            self.detection.put_off(now, node);
        }
    }

    /// When something of detection is due.
    pub(crate) fn detection_at(&self) -> Option<Time> {
        let cut_off = |(node, _): &(&NodeId, &Rest)| self.state.away(**node) == Away::CutOff;
        let probations = self.detection.probations.iter().filter(cut_off);
        let tried = probations.map(|(_, rest)| rest.until);
        tried.chain(self.detection.deadline()).min()
    }

    /// A process that was cut off is tried again: the lives that are attached have their places.
    fn readmit(&mut self, now: Time, node: NodeId) {
        if !self.commit(Action::Readmit { node }) {
            return;
        }
        let keys: Vec<PlaceKey> = self.state.keys_on(node).collect();
        for key in keys {
            if let Some(conn) = self.last_of_life(key) {
                self.take_place(now, key, conn);
            }
        }
    }

    /// Ends inquiries whose answers do not come, and looks again at deaths that had to wait.
    pub(crate) fn look_for_deaths(&mut self, now: Time) {
        let inquiries: Vec<NodeId> = self.detection.inquiries.keys().copied().collect();
        for node in inquiries {
            self.conclude(now, node);
        }
        let probations = self.detection.probations.iter();
        let over: Vec<NodeId> = probations
            .filter(|(node, rest)| rest.until <= now && self.state.away(**node) == Away::CutOff)
            .map(|(&node, _)| node)
            .collect();
        for node in over {
            self.readmit(now, node);
        }
        let waiting = self.detection.waiting.iter();
        let due: Vec<NodeId> = waiting
            .filter(|(_, at)| **at <= now)
            .map(|(&node, _)| node)
            .collect();
        for node in due {
            self.detection.waiting.remove(&node);
            let closed = !self.detection.observers.contains_key(&node);
            self.inquire(now, node, closed);
        }
    }

    /// The next connection to be closed: of a process that was found dead.
    pub fn take_close(&mut self) -> Option<ConnId> {
        self.detection.to_close.pop()
    }

    pub(crate) fn poll_probe(
        &mut self,
        room: &mut impl FnMut(ConnId) -> usize,
        out: &mut Vec<u8>,
    ) -> Option<ConnId> {
        let observers = &self.detection.observers;
        for (&node, inquiry) in &mut self.detection.inquiries {
            let has_room = |asked: &NodeId| {
                let conn = observers.get(asked);
                conn.is_some_and(|conn| room(*conn) >= message_bytes::<Probe>(0))
            };
            let Some(asked) = inquiry.due().find(has_room) else {
                continue;
            };
            inquiry.sent(asked);
            let (number, patience) = (inquiry.number, inquiry.patience.0);
            put(
                out,
                &Probe {
                    node,
                    number,
                    patience,
                },
                &[],
            );
            return observers.get(&asked).copied();
        }
        None
    }
}
