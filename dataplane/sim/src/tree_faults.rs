//! Faults of the ordering tree: vertices that die, stand still, are cut off from one side or come again at once; what is lost on
//! an edge at a reset; the last cut to a shard that is silent since; what becomes of reports; a child that takes nothing.

use ionian_types::{Knobs, Time};
use ionian_wire::frame::{DownShard, Message, Report};

use crate::atlas::Harm;
use crate::plan::Fault;
use crate::process::{Machine, Place, ProcId};
use crate::trees::is_vertex;
use crate::weather::{Cover, Effect, Way};
use crate::world::{Event, Phase, World};

/// For how long a shard that has lost a cut must be silent for that to have been the last one.
const SILENT_NS: u64 = 3_000_000;

/// What is to be lost the next time that it is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Loss {
    /// A round or a base on an edge between vertices, after so many others, with its connection.
    Round(u64),
    /// A cut of a shard after so many others, with the connections to its replicas: the number of the entry once it is chosen.
    Cut(u32, u64, Option<u64>),
}

/// How reports reach leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reports {
    until: Time,
    fault: Fault,
    hit: bool,
}

/// What becomes of a message on a tree whose faults are on.
pub(crate) enum Fate {
    /// It goes its way.
    Goes,
    /// It is lost, and its connection with it.
    Breaks,
    /// It is lost alone, as a slot that is written again before it is read.
    Overwritten,
    /// It arrives twice.
    Twice,
    /// An earlier one arrives after it.
    Then(Vec<u8>),
}

/// What goes wrong in the tree.
#[derive(Default, Debug)]
pub(crate) struct TreeFaults {
    losses: Vec<Loss>,
    reports: Option<Reports>,
    /// The last report of a process, for one that comes late.
    last: Option<(ProcId, Vec<u8>)>,
    /// Links whose opener, or the other end, takes nothing: the link, the side that cannot send.
    pub(crate) full: Vec<(usize, usize)>,
}

impl Fault {
    /// Whether it is one of the ordering tree, of those that are no changes.
    #[must_use]
    pub const fn is_of_tree(self) -> bool {
        matches!(
            self,
            Self::CrashAggregator
                | Self::PauseVertex
                | Self::CutParent
                | Self::CutChildren
                | Self::RestartVertex
                | Self::LoseRounds
                | Self::LoseLastCut
                | Self::OverwriteReports
                | Self::RepeatReports
                | Self::ReorderReports
                | Self::RegressReport
                | Self::FullRing
        )
    }
}

impl<K: Knobs> World<K> {
    /// A fault of the tree begins. Counted when it takes effect.
    pub(crate) fn tree_fault(&mut self, fault: Fault) {
        let done = match fault {
            Fault::CrashAggregator => {
                self.crash_vertex(|place| matches!(place, Place::Aggregator(_)))
            }
            Fault::RestartVertex => self.restart_vertex(),
            Fault::PauseVertex => self.pause_vertex(),
            Fault::CutParent | Fault::CutChildren => {
                let begun = self.cut_vertex(fault);
                if !begun {
                    self.again(fault);
                }
                return;
            }
            Fault::LoseRounds => {
                let after = self.rng_fault.pick(&[0, 3, 30]);
                self.tree_faults.losses.push(Loss::Round(after));
                return;
            }
            Fault::LoseLastCut => {
                let shard = self.any_shard();
                let after = self.rng_fault.pick(&[0, 3, 30]);
                self.tree_faults.losses.push(Loss::Cut(shard, after, None));
                return;
            }
            Fault::OverwriteReports | Fault::RepeatReports | Fault::ReorderReports => {
                let span = self.rng_fault.pick(&[5_000_000, 50_000_000, 300_000_000]);
                let until = Time::from_ns(self.now.as_ns() + span);
                self.tree_faults.reports = Some(Reports {
                    until,
                    fault,
                    hit: false,
                });
                return;
            }
            Fault::RegressReport => self.regress(),
            _ => {
                let begun = self.fill_ring();
                if !begun {
                    self.again(fault);
                }
                return;
            }
        };
        if done {
            self.faults[fault] += 1;
        } else {
            self.again(fault);
        }
    }

    fn any_live_vertex(&mut self) -> Option<Place> {
        let mut places = self.places();
        places.retain(|place| is_vertex(*place) && self.live(*place).is_some());
        (!places.is_empty()).then(|| self.rng_fault.pick(&places))
    }

    /// A vertex ends, and the next life is at its address before the others have learned that the first one is gone.
    fn restart_vertex(&mut self) -> bool {
        let Some(place) = self.any_live_vertex() else {
            return false;
        };
        let after = self.rng_fault.range(1_000, 200_000);
        self.crash_for(place, after)
    }

    fn pause_vertex(&mut self) -> bool {
        let Some(proc) = self.any_live_vertex().and_then(|place| self.live(place)) else {
            return false;
        };
        if self.procs[proc].paused_until > self.now {
            return false;
        }
        let span = self.rng_fault.pick(&[1_000_000, 30_000_000, 250_000_000]);
        self.hold(proc, span);
        true
    }

    /// A vertex and those above it cannot reach each other, or it and those below it.
    fn cut_vertex(&mut self, fault: Fault) -> bool {
        let Some(place) = self.any_live_vertex() else {
            return false;
        };
        let mut ways: Vec<Way> = Vec::new();
        for link in self.open_links() {
            let (from, to) = self.way(link, 0);
            // Whoever is below opens the connection.
            let own = match fault {
                Fault::CutParent => {
                    from == place && (is_vertex(to) || matches!(to, Place::Root(_)))
                }
                _ => to == place && (is_vertex(from) || matches!(from, Place::Replica(..))),
            };
            if own {
                ways.extend([(from, to), (to, from)]);
            }
        }
        if ways.is_empty() {
            return false;
        }
        let span = self.rng_fault.pick(&[5_000_000, 50_000_000, 300_000_000]);
        let until = Time::from_ns(self.now.as_ns() + span);
        let cover = Cover::ways(ways, self.now, until);
        self.weather.begin(self.now, fault, Effect::Cut, cover);
        true
    }

    /// Whether a link is an edge of the tree between vertices, or of one and the root.
    fn is_edge(&self, link: usize) -> bool {
        let (from, to) = self.way(link, 0);
        is_vertex(from) && (is_vertex(to) || matches!(to, Place::Root(_)))
    }

    /// A ring of a child, or of a parent, takes nothing for a while.
    fn fill_ring(&mut self) -> bool {
        let mut open = self.open_links();
        open.retain(|link| {
            let (from, to) = self.way(*link, 0);
            let to_leaf = matches!((from, to), (Place::Replica(..), Place::Leaf(_)));
            self.is_edge(*link) || to_leaf
        });
        if open.is_empty() {
            return false;
        }
        let link = self.rng_fault.pick(&open);
        // Mostly what comes down has no room.
        let side = u64::from(self.rng_fault.permille(750)) as usize;
        self.tree_faults.full.push((link, side));
        let span = self.rng_fault.pick(&[2_000_000, 20_000_000, 200_000_000]);
        let entries = self.history.reference.last;
        self.after(span, Event::Drained(link, side, entries));
        true
    }

    /// A ring is read again. It was a fault if there was something to say.
    pub(crate) fn drained(&mut self, link: usize, side: usize, entries: u64) {
        let full = &mut self.tree_faults.full;
        let Some(at) = full.iter().position(|it| *it == (link, side)) else {
            return;
        };
        full.swap_remove(at);
        if self.history.reference.last > entries {
            self.faults[Fault::FullRing] += 1;
        }
        let end = self.links[link].ends[side];
        if end.open && self.procs[end.proc].alive {
            self.flush_soon(end.proc);
        }
    }

    /// A replica says that it holds less than it has reported, and ends: it has lost what it had not, or so it seems.
    fn regress(&mut self) -> bool {
        let shard = self.any_shard();
        let slot = self.rng_fault.below(u64::from(self.plan.replicas)) as u8;
        let place = Place::Replica(shard, slot);
        let Some(proc) = self.live(place).filter(|_| self.bears(place, Harm::Stop)) else {
            return false;
        };
        let Machine::Replica(replica) = &self.procs[proc].machine else {
            return false;
        };
        let status = replica.status(self.local(proc));
        let count = usize::from(self.plan.replicas);
        let mut lens: Vec<u64> = status.lens[..count].iter().map(|it| it.1.get()).collect();
        let Some(longest) = lens.iter_mut().max().filter(|len| **len > 0) else {
            return false;
        };
        *longest -= self.rng_fault.range(1, *longest);
        let body = Report {
            shard: replica.config().shard,
            epoch: status.epoch,
            inc: replica.config().inc,
            seq: u64::MAX / 2,
            applied: status.applied,
            segments: count as u8,
        };
        let tail: Vec<u8> = lens.iter().flat_map(|len| len.to_le_bytes()).collect();
        let mut bytes = vec![0; 256 + tail.len()];
        let Ok(len) = ionian_wire::frame::encode(&mut bytes, &body, &[&tail]) else {
            return false;
        };
        bytes.truncate(len);
        let links = self.open_links().into_iter();
        let above: Vec<usize> = links
            .filter(|link| {
                let (from, to) = self.way(*link, 0);
                from == place && matches!(to, Place::Leaf(_))
            })
            .collect();
        for link in &above {
            let end = self.links[*link].ends[0];
            if end.proc == proc && self.links[*link].room(0) > bytes.len() {
                self.send(end.proc, end.conn, bytes.clone());
            }
        }
        // What it says next is older than this, until its next life.
        self.after(1_000_000, Event::End(proc));
        !above.is_empty()
    }

    /// A process ends that has said what is not so.
    pub(crate) fn end(&mut self, proc: ProcId) {
        let place = self.procs[proc].place;
        if self.live(place) == Some(proc) {
            self.crash(place);
        }
    }

    /// What becomes of a message that a process sends on a link. Every fault that takes effect is counted.
    pub(crate) fn tree_fate(&mut self, link: usize, side: usize, bytes: &[u8]) -> Fate {
        let idle = self.tree_faults.losses.is_empty() && self.tree_faults.reports.is_none();
        if idle || self.phase != Phase::Storm {
            return Fate::Goes;
        }
        let Ok((message, _)) = Message::new_checked(bytes) else {
            return Fate::Goes;
        };
        match message {
            Message::Up(..) | Message::Down(..) if self.is_edge(link) => self.lose_round(),
            Message::DownShard(down, _) => self.lose_cut(&down),
            Message::Report(..) => self.pass_report(self.links[link].ends[side].proc, bytes),
            _ => Fate::Goes,
        }
    }

    fn lose_round(&mut self) -> Fate {
        let losses = &mut self.tree_faults.losses;
        let Some(at) = losses.iter().position(|it| matches!(it, Loss::Round(_))) else {
            return Fate::Goes;
        };
        match &mut losses[at] {
            Loss::Round(left @ 1..) => {
                *left -= 1;
                Fate::Goes
            }
            _ => {
                losses.swap_remove(at);
                self.faults[Fault::LoseRounds] += 1;
                Fate::Breaks
            }
        }
    }

    fn lose_cut(&mut self, down: &DownShard) -> Fate {
        let (of, entry) = (down.shard.get(), down.entry.get());
        let losses = &mut self.tree_faults.losses;
        let concerned = |it: &Loss| matches!(it, Loss::Cut(shard, ..) if *shard == of);
        let Some(at) = losses.iter().position(concerned) else {
            return Fate::Goes;
        };
        match &mut losses[at] {
            Loss::Cut(_, left @ 1.., None) => {
                *left -= 1;
                Fate::Goes
            }
            Loss::Cut(_, _, chosen @ None) => {
                *chosen = Some(entry);
                self.after(SILENT_NS, Event::Silent(of, entry));
                Fate::Breaks
            }
            Loss::Cut(_, _, Some(chosen)) if *chosen == entry => Fate::Breaks,
            Loss::Cut(..) => {
                // The shard goes on.
                losses.swap_remove(at);
                Fate::Goes
            }
            Loss::Round(_) => Fate::Goes,
        }
    }

    /// Whether the cut that was lost is the last one of its shard for a while.
    pub(crate) fn silent(&mut self, shard: u32, entry: u64) {
        let state = self.history.reference.shards.get(&shard);
        if state.is_some_and(|state| state.last == entry) {
            self.faults[Fault::LoseLastCut] += 1;
        } else {
            self.again(Fault::LoseLastCut);
        }
    }

    fn pass_report(&mut self, proc: ProcId, bytes: &[u8]) -> Fate {
        let Some(reports) = &mut self.tree_faults.reports else {
            return Fate::Goes;
        };
        if reports.until <= self.now {
            self.tree_faults.reports = None;
            return Fate::Goes;
        }
        let before = self.tree_faults.last.replace((proc, bytes.to_vec()));
        let fate = match reports.fault {
            _ if !self.rng_net.permille(300) => return Fate::Goes,
            Fault::OverwriteReports => Fate::Overwritten,
            Fault::RepeatReports => Fate::Twice,
            _ => match before.filter(|(of, _)| *of == proc) {
                Some((_, before)) => Fate::Then(before),
                None => return Fate::Goes,
            },
        };
        if !core::mem::replace(&mut reports.hit, true) {
            self.faults[reports.fault] += 1;
        }
        fate
    }
}
