//! How edges of an aggregator start: its own, with everything that is below, and from that those to its children.

use alloc::vec::Vec;
use core::ops::Range;

use ionian_types::{
    ConnId, EdgeEpoch, Inc, Knobs, Lsn, Mutant, NodeId, SEGMENTS_PER_SHARD_MAX, ShardId, Time,
};
use ionian_wire::Reader;
use ionian_wire::frame::{EdgeStart, EdgeVertex, ShardStart};

use super::{Aggregator, Kind};
use crate::cutlog::{Vertex, siblings};
use crate::outbox::Outbox;
use crate::tree::link::{Link, shard_start_bytes};
use crate::tree::rounds::ChildRound;

/// What is below one child.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Below {
    /// The child and everything below it, among the vertices.
    vertices: Range<usize>,
    shards: Range<usize>,
    pub(super) first_segment: usize,
    /// Its edge has run since the edge to the parent started: where its shards stand is not known here.
    has_run: bool,
}

impl<K: Knobs> Aggregator<K> {
    /// The edge to the parent has started, if its start has come whole. Edges to children that it does not touch go on.
    pub(super) fn begin_edge(&mut self, now: Time, out: &mut Outbox) {
        // What came before on the edge that ends is sent first.
        self.flush_downs(out);
        let Some(start) = self.uplink.started() else {
            return;
        };
        let head = start.head;
        self.vertices.clear();
        self.counts.clear();
        for EdgeVertex {
            vertex,
            changed,
            shards,
        } in start.vertices()
        {
            let is = vertex;
            self.vertices.push(Vertex { is, changed });
            self.counts.push(shards);
        }
        self.shards.clear();
        self.shards.extend_from_slice(start.shards());
        self.shard_ends.clear();
        let mut reader = Reader::new(&self.shards);
        while ShardStart::read(&mut reader).is_ok() {
            let end = self.shards.len() - reader.rest().len();
            self.shard_ends.push(end as u32);
        }
        let before = core::mem::take(&mut self.links);
        self.below.clear();
        let (mut first_shard, mut first_segment) = (0, 0);
        let mut known: Vec<Option<Link>> = before.into_iter().map(Some).collect();
        for vertices in siblings(&self.vertices, 0..self.vertices.len()) {
            let child = self.vertices[vertices.start];
            let counts = self.counts[vertices.clone()].iter();
            let count: usize = counts.map(|count| *count as usize).sum();
            let shards = first_shard..(first_shard + count).min(self.shard_ends.len());
            first_shard = shards.end;
            let mut link = known
                .iter_mut()
                .find_map(|it| it.take_if(|link| link.is(child.is.node, child.is.inc)))
                .unwrap_or_else(|| self.new_link(&child));
            let same = link.changed == child.changed || K::mutant(Mutant::ResumeChangedChild);
            let goes_on = head.resume && same && link.is_running();
            if goes_on && link.resume(self.starts_of(&shards)) {
                self.counters.resumed += 1;
            } else {
                if head.resume {
                    link.close();
                } else {
                    link.stop();
                }
                // One that stays away holds up nobody else: what is passed on of it is where it stands now.
                link.prepare(self.starts_of(&shards));
            }
            let segments: usize = self.starts_of(&shards).map(|(_, lens)| lens.count()).sum();
            self.below.push(Below {
                vertices,
                shards,
                first_segment,
                has_run: link.is_running(),
            });
            first_segment += segments;
            self.links.push(link);
        }
        let parts: Vec<ChildRound> = (0..self.links.len())
            .map(|at| self.round_zero(at))
            .collect();
        let same = self.rounds.parts() == parts.len();
        if !(K::mutant(Mutant::KeepRingOverEdge) && same) {
            self.rounds.start(parts.into_iter());
        }
        self.growth.clear();
        self.growth.resize(first_segment, 0);
        self.grown.reset(first_segment);
        self.told = None;
        self.sync_at = now;
        self.counters.edge_starts += 1;
    }

    fn new_link(&self, child: &Vertex) -> Link {
        let mut link = Link::new(child.is.node, child.is.inc);
        let kind = Kind::Vertex(child.is.node, child.is.inc);
        if let Some(at) = self.conns.iter().position(|other| *other == kind) {
            link.connect::<K>(ConnId::new(at as u32));
        }
        link
    }

    /// The round of a child that the new edge starts from.
    fn round_zero(&self, at: usize) -> ChildRound {
        let (link, below) = (&self.links[at], &self.below[at]);
        if link.is_running() {
            return link.chosen();
        }
        let lens = self.starts_of(&below.shards).flat_map(|(_, lens)| lens);
        ChildRound {
            round: 0,
            total: lens.map(Lsn::get).fold(0, u64::wrapping_add),
        }
    }

    /// Some of the shards below with the lengths of their segments.
    fn starts_of(
        &self,
        shards: &Range<usize>,
    ) -> impl Iterator<Item = (ShardId, impl Iterator<Item = Lsn> + '_)> + '_ {
        shards.clone().filter_map(|at| {
            let start = ShardStart::read(&mut Reader::new(self.shard(at))).ok()?;
            Some((start.shard, start.segments().map(|(_, len)| len)))
        })
    }

    fn shard(&self, at: usize) -> &[u8] {
        let from = at
            .checked_sub(1)
            .map_or(0, |before| self.shard_ends[before]);
        &self.shards[from as usize..self.shard_ends[at] as usize]
    }

    /// Starts the edges to children that wait for it, or asks for what that takes.
    pub(super) fn flush_edges(&mut self, now: Time, out: &mut Outbox) {
        let Some(own) = self.uplink.edge() else {
            return;
        };
        for at in 0..self.links.len() {
            let mut link =
                core::mem::replace(&mut self.links[at], Link::new(NodeId::ZERO, Inc::ZERO));
            let below = self.below[at].clone();
            if link.awaits_start() {
                if below.has_run {
                    self.uplink.want(now);
                } else {
                    self.starts += u64::from(!K::mutant(Mutant::SameEdgeAgain));
                    let edge = EdgeEpoch {
                        root: own.root,
                        view: self.vertices[below.vertices.start].changed,
                        start: self.starts,
                    };
                    link.begin(edge, self.uplink.complete, self.starts_of(&below.shards));
                    self.below[at].has_run = true;
                }
            }
            if let Some(edge) = link.starting() {
                let inner = below.vertices.start + 1..below.vertices.end;
                let vertices = &self.vertices[inner.clone()];
                let head = EdgeStart {
                    log: self.config.log,
                    edge,
                    resume: link.resumes(),
                    entry: link.start_entry(),
                    end_gsn: self.uplink.end_gsn,
                    trim: self.uplink.trim,
                    vertices: vertices.len() as u16,
                    shards: below.shards.len() as u32,
                };
                let vertices = vertices.iter().zip(&self.counts[inner]);
                let vertices = vertices.map(|(it, shards)| EdgeVertex {
                    vertex: it.is,
                    changed: it.changed,
                    shards: *shards,
                });
                let first = below.shards.start;
                let longest = shard_start_bytes(SEGMENTS_PER_SHARD_MAX);
                link.send_start(
                    &head,
                    vertices,
                    longest,
                    |shard, writer| writer.bytes(self.shard(first + shard)),
                    out,
                );
            }
            self.links[at] = link;
        }
    }
}
