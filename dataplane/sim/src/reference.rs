//! The order as the raw cut log says it, computed in the plainest way: what every machine's answer is compared with.
//!
//! Nothing here uses the shipped cut-log state, index or dedup set. An entry is taken in when the root counts it as
//! committed; the content of the positions that it orders is looked up in the replicas at that moment.

use std::collections::BTreeMap;

use ionian_types::{Inc, SEGMENTS_PER_SHARD_MAX, ShardId, Slot};
use ionian_wire::entry::{Change, EntryBody, EntryView};
use ionian_wire::tree::{OrderKey, TreeVertex};

use crate::invariant::{Invariant, Violation};

/// A record as its header and payload name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Content {
    /// The client life.
    pub client: u128,
    /// Its session.
    pub session: u32,
    /// The sequence number in the session.
    pub seq: u64,
    /// The number that the application put into the payload.
    pub id: u64,
}

/// One position of the order.
#[derive(Clone, Copy, Debug)]
pub struct Rec {
    /// The shard.
    pub shard: u32,
    /// The slot.
    pub slot: u8,
    /// The generation that owns the position.
    pub generation: u64,
    /// The position in the segment.
    pub position: u64,
    /// The entry that ordered it.
    pub entry: u64,
    /// What stands there, once known.
    pub content: Option<Content>,
    /// Declared lost.
    pub lost: bool,
    /// Which life of the shard: how often it had been opened.
    pub life: u32,
}

/// One segment.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    /// The committed length.
    pub len: u64,
    /// The generation, 0 when closed.
    pub generation: u64,
    /// The writer's incarnation.
    pub writer: u64,
    /// Where the generation opened.
    pub opened_at: u64,
}

/// One shard.
#[derive(Clone, Debug, Default)]
pub struct Shard {
    /// Its segments.
    pub segments: Vec<Segment>,
    /// The last view that changed it.
    pub epoch: u64,
    /// The last entry that touched it.
    pub last: u64,
    /// How often it was opened.
    pub life: u32,
    /// How many members must hold a record.
    pub quorum: usize,
    /// Its place among the shards of its leaf.
    pub rank: u32,
    /// Whether it has ended for good.
    pub finalized: bool,
    /// Whether what was said of it went with a cut log.
    pub forgotten: bool,
    /// The lives of the members in slot order, and of the new ones of a joint epoch.
    pub members: [Vec<u64>; 2],
}

/// What one shard got in one cut.
#[derive(Clone, Debug)]
pub struct ShardCut {
    /// The first position.
    pub base: u64,
    /// The lengths after it, with generations, in slot order.
    pub lens: Vec<(u64, u64)>,
    /// The entry before it that touches the shard.
    pub prev: u64,
}

/// A run of positions to be looked up.
#[derive(Clone, Copy, Debug)]
pub struct Fresh {
    /// The shard.
    pub shard: ShardId,
    /// The slot.
    pub slot: Slot,
    /// The first position in the segment.
    pub from: u64,
    /// The position after the last.
    pub to: u64,
    /// The first position in the order.
    pub gsn: u64,
    /// The generation.
    pub generation: u64,
    /// The lives of the members when it was ordered, later entries may name others; and of the new ones of a joint epoch.
    pub members: [[u64; SEGMENTS_PER_SHARD_MAX]; 2],
    /// How many members must hold a record.
    pub quorum: usize,
    /// The shard epoch in which they must.
    pub epoch: u64,
    /// How often the shard had been opened.
    pub life: u32,
}

/// The order so far.
#[derive(Debug, Default)]
pub struct Reference {
    /// Every committed entry ever seen.
    pub entries: BTreeMap<u64, Vec<u8>>,
    /// The last of them.
    pub last: u64,
    /// The position after the last one ordered.
    pub end: u64,
    /// The shards.
    pub shards: BTreeMap<u32, Shard>,
    /// The positions that hold records.
    pub recs: BTreeMap<u64, Rec>,
    /// Positions lost with a cut log.
    pub losses: Vec<(u64, u64)>,
    /// Per (shard, entry): the part of a cut.
    pub cuts: BTreeMap<(u32, u64), ShardCut>,
    /// Per cut, what each segment that it touches grows by, in order: its shard's place in the tree, the first position, how many.
    pub parts: BTreeMap<u64, Vec<(OrderKey, u64, u64)>>,
    /// The ordering tree as of the entries from these on.
    pub trees: BTreeMap<u64, Vec<TreeVertex>>,
    /// Where positions below are trimmed, and the ceiling.
    pub trim: u64,
    /// Positions below may be used.
    pub ceiling: u64,
    /// The last view.
    pub view: u64,
    /// What the numbers of cuts mean now: shard and slot.
    numbers: Vec<(u32, usize)>,
    /// Shards of which a joint epoch ended with the last entries.
    pub activated: Vec<u32>,
    /// Lives that have become members of shards of which a part is enough, with the last entries: shard, slot, life.
    pub entered: Vec<(u32, u8, u64)>,
    /// Where each committed position of a segment stands: (shard, slot, generation, position).
    pub by_place: BTreeMap<(u32, u8, u64, u64), u64>,
}

impl Reference {
    /// Whether a position was declared lost.
    #[must_use]
    pub fn is_lost(&self, gsn: u64) -> bool {
        self.losses
            .iter()
            .any(|(from, to)| (*from..*to).contains(&gsn))
            || self.recs.get(&gsn).is_some_and(|rec| rec.lost)
    }

    /// Takes in a committed entry. `first` says that it is the first of a cut log that begins here.
    ///
    /// O1: one content per entry number, one value per position, none skipped but by a typed loss.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn take(
        &mut self,
        number: u64,
        bytes: &[u8],
        fresh: &mut Vec<Fresh>,
    ) -> Result<(), Violation> {
        if let Some(known) = self.entries.get(&number) {
            return (known == bytes).then_some(()).ok_or_else(|| {
                Violation::new(
                    Invariant::O1,
                    format!("entry {number} has a second content"),
                )
            });
        }
        let view = EntryView::new_checked(bytes)
            .map_err(|error| Violation::new(Invariant::O1, format!("entry {number}: {error}")))?;
        if view.header.entry.get() != number || number <= self.last {
            return Err(Violation::new(
                Invariant::O1,
                format!("entry {number} comes after {}", self.last),
            ));
        }
        match view.body {
            EntryBody::Cut(cut) => {
                if cut.start_gsn.get() != self.end || cut.end_gsn.get() > self.ceiling {
                    return Err(Violation::new(
                        Invariant::O1,
                        format!(
                            "the cut of entry {number} spans {}..{}, the order ends at {} under the ceiling {}",
                            cut.start_gsn, cut.end_gsn, self.end, self.ceiling
                        ),
                    ));
                }
                let mut gsn = self.end;
                let mut parts = Vec::new();
                for (index, growth) in cut.growths().iter() {
                    let (id, slot) = *self.numbers.get(index).ok_or_else(|| {
                        Violation::new(Invariant::O1, "a cut of a segment that is not there")
                    })?;
                    let (shard, slot) = (ShardId::new(id), Slot::new(slot as u8));
                    let state = self.shards.get_mut(&id).ok_or_else(|| {
                        Violation::new(Invariant::O1, "a cut of an unknown shard")
                    })?;
                    let before: Vec<(u64, u64)> = state
                        .segments
                        .iter()
                        .map(|segment| (segment.generation, segment.len))
                        .collect();
                    let segment = state
                        .segments
                        .get_mut(slot.index())
                        .ok_or_else(|| Violation::new(Invariant::O1, "a cut of an unknown slot"))?;
                    if segment.writer == 0 {
                        return Err(Violation::new(
                            Invariant::O1,
                            format!("entry {number} lets {segment:?} grow"),
                        ));
                    }
                    let generation = segment.generation;
                    parts.push(((state.rank, shard), gsn, growth));
                    let (from, to) = (segment.len, segment.len + growth);
                    let part = self
                        .cuts
                        .entry((shard.get(), number))
                        .or_insert_with(|| ShardCut {
                            base: gsn,
                            lens: before,
                            prev: state.last,
                        });
                    part.lens[slot.index()].1 = to;
                    segment.len = to;
                    state.last = number;
                    fresh.push(Fresh {
                        shard,
                        slot,
                        from,
                        to,
                        gsn,
                        generation,
                        life: state.life,
                        quorum: state.quorum,
                        epoch: state.epoch,
                        members: state.members.clone().map(|list| {
                            core::array::from_fn(|slot| list.get(slot).copied().unwrap_or(0))
                        }),
                    });
                    for position in from..to {
                        let rec = Rec {
                            shard: shard.get(),
                            slot: slot.get(),
                            generation,
                            position,
                            entry: number,
                            content: None,
                            lost: false,
                            life: state.life,
                        };
                        self.recs.insert(gsn, rec);
                        let place = (shard.get(), slot.get(), rec.generation, position);
                        self.by_place.insert(place, gsn);
                        gsn += 1;
                    }
                }
                if gsn != cut.end_gsn.get() {
                    return Err(Violation::new(
                        Invariant::O1,
                        format!(
                            "the items of entry {number} end at {gsn}, it says {}",
                            cut.end_gsn
                        ),
                    ));
                }
                self.parts.insert(number, parts);
                self.end = gsn;
            }
            EntryBody::View(body) => {
                if body.view.get() != self.view + 1
                    && !self.losses.iter().any(|loss| loss.1 == self.end)
                {
                    return Err(Violation::new(
                        Invariant::O1,
                        format!("view {} after {}", body.view, self.view),
                    ));
                }
                self.view = body.view.get();
                for change in body.changes() {
                    self.change(&change, number)?;
                }
                self.number();
            }
            EntryBody::Loss(loss) => {
                if loss.end_gsn.get() < self.end {
                    return Err(Violation::new(
                        Invariant::O1,
                        format!("the order falls back from {} to {}", self.end, loss.end_gsn),
                    ));
                }
                self.end = loss.end_gsn.get();
                self.losses.push((loss.from.get(), loss.to.get()));
                for shard in self.shards.values_mut() {
                    shard.last = number;
                    shard.forgotten = true;
                }
                self.number();
            }
            EntryBody::Trim { upto } => {
                if upto.get() > self.end {
                    return Err(Violation::new(
                        Invariant::O1,
                        format!("a trim to {upto} beyond the end {}", self.end),
                    ));
                }
                self.trim = self.trim.max(upto.get());
            }
            EntryBody::Ceiling { gsn } => self.ceiling = self.ceiling.max(gsn.get()),
            EntryBody::RootEpoch(_) => {}
        }
        self.last = number;
        self.entries.insert(number, bytes.to_vec());
        Ok(())
    }

    /// What a cut orders below a vertex of the tree: the first position, and how many there are. `None` for no cut, or for nobody
    /// in the tree of that entry.
    #[must_use]
    pub fn span_below(&self, number: u64, vertex: Inc) -> Option<(u64, u64)> {
        let (_, tree) = self.trees.range(..=number).next_back()?;
        let at = tree.iter().position(|it| it.inc == vertex)?;
        let (mut end, mut missing) = (at, 1);
        while missing > 0 {
            missing += usize::from(tree.get(end)?.children);
            missing -= 1;
            end += 1;
        }
        let leaf = |from: usize| tree[from..].iter().find(|it| it.children == 0);
        let (first, last) = (leaf(at)?.begins, leaf(end).map(|it| it.begins));
        let parts = self.parts.get(&number)?.iter();
        let mut own = parts
            .filter(|(key, ..)| *key >= first && last.is_none_or(|last| *key < last))
            .peekable();
        let base = own.peek().map(|(_, gsn, _)| *gsn)?;
        Some((base, own.map(|(.., growth)| growth).sum()))
    }

    /// Numbers the segments of the open shards: by rank, shard and slot.
    fn number(&mut self) {
        let open = self.shards.iter();
        let open = open.filter(|(_, state)| !state.finalized && !state.forgotten);
        let mut open: Vec<(u32, u32, usize)> = open
            .map(|(id, state)| (state.rank, *id, state.segments.len()))
            .collect();
        open.sort_unstable();
        let all = open.into_iter();
        self.numbers = all
            .flat_map(|(_, id, count)| (0..count).map(move |slot| (id, slot)))
            .collect();
    }

    fn change(&mut self, change: &Change<'_>, number: u64) -> Result<(), Violation> {
        if let Change::Tree { vertices } = change {
            self.trees.insert(number, vertices.iter().collect());
        }
        let Some(id) = change.shard().map(ShardId::get) else {
            return Ok(());
        };
        let view = self.view;
        let state = self.shards.entry(id).or_default();
        state.epoch = view;
        state.last = number;
        match change {
            Change::Open {
                members,
                quorum,
                rank,
                ..
            } => {
                state.life += 1;
                state.rank = *rank;
                (state.finalized, state.forgotten) = (false, false);
                state.quorum = usize::from(*quorum);
                state.members = [members.iter().map(|it| it.inc.get()).collect(), Vec::new()];
                state.segments = members
                    .iter()
                    .map(|member| Segment {
                        len: 0,
                        generation: view,
                        writer: member.inc.get(),
                        opened_at: 0,
                    })
                    .collect();
            }
            Change::Close {
                segment,
                generation,
                len,
                writer,
                ..
            } => {
                let slot = segment.slot.index();
                let segment = &mut state.segments[slot];
                if segment.len != len.get() || segment.generation != generation.get() {
                    return Err(Violation::new(
                        Invariant::O2,
                        format!(
                            "view {view} closes generation {generation} at {len}, it is {segment:?}"
                        ),
                    ));
                }
                segment.opened_at = segment.len;
                segment.generation = writer.map_or(0, |_| view);
                segment.writer = writer.map_or(0, Inc::get);
                if let Some(inc) = writer {
                    if state.quorum < state.members[0].len() {
                        self.entered.push((id, slot as u8, inc.get()));
                    }
                    for list in &mut state.members {
                        if let Some(member) = list.get_mut(slot) {
                            *member = inc.get();
                        }
                    }
                }
            }
            Change::Joint { members, .. } => {
                state.members[1] = members.iter().map(|it| it.inc.get()).collect();
            }
            Change::Activate { .. } => {
                self.activated.push(id);
                let new = core::mem::take(&mut state.members[1]);
                let old = core::mem::replace(&mut state.members[0], new);
                for (slot, segment) in state.segments.iter_mut().enumerate() {
                    if old.get(slot) != state.members[0].get(slot) {
                        (segment.generation, segment.opened_at) = (view, segment.len);
                        segment.writer = state.members[0][slot];
                    }
                }
            }
            Change::Finalize { lost_from, .. } => {
                state.members[1].clear();
                state.finalized = true;
                for segment in &mut state.segments {
                    segment.generation = 0;
                    segment.writer = 0;
                }
                if let Some(from) = lost_from {
                    for rec in self
                        .recs
                        .range_mut(from.get()..)
                        .map(|(_, rec)| rec)
                        .filter(|rec| rec.shard == id)
                    {
                        rec.lost = true;
                    }
                }
            }
            // It is of no shard.
            Change::Tree { .. } => {}
        }
        Ok(())
    }
}
