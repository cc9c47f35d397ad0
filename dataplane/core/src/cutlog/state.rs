//! What a cut log says at one entry: shards, generations, lengths, the end of the order.
//!
//! The root applies every entry here as it appends it, a replica applies the entries that touch its shard, and a
//! snapshot is this state encoded. Entries come from disks and peers: a contradiction is an error, never a panic.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use ionian_types::{EntryNo, Gsn, Inc, Lsn, RootEpoch, SegmentId, ShardId, Slot, ViewId};
use ionian_wire::entry::{Change, CutItem, CutView, EntryBody, EntryView, LossView};
use ionian_wire::growth::GrowthSink;
use ionian_wire::tree::OrderKey;
use ionian_wire::{Reader, WireError, Writer};

use super::layout::Layout;
use super::log::Mark;
use super::shard::ShardState;
use super::shard_ref::ShardRef;
use super::tree::{Tree, first_begins};

/// Why an entry does not follow from the state. Effect: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Not the next entry.
    #[error("entry {found} does not follow entry {after}")]
    Order {
        /// The last entry applied.
        after: EntryNo,
        /// The entry found.
        found: EntryNo,
    },
    /// The chain of checksums is broken.
    #[error("entry {entry} does not continue the checksum chain")]
    Chain {
        /// The entry.
        entry: EntryNo,
    },
    /// A cut starts where the order does not end.
    #[error("the cut starts at gsn {found}, the order ends at {expected}")]
    Start {
        /// The end of the order.
        expected: Gsn,
        /// The start found.
        found: Gsn,
    },
    /// A segment's growth starts elsewhere than at its committed length, or in another generation.
    #[error("segment {segment}: the entry continues length {found}, committed are {expected}")]
    Length {
        /// The segment.
        segment: SegmentId,
        /// The committed length.
        expected: Lsn,
        /// The length found.
        found: Lsn,
    },
    /// The entry names a shard or slot that does not exist, or is closed.
    #[error("segment {segment} is not open in generation {generation}")]
    Segment {
        /// The segment.
        segment: SegmentId,
        /// The generation that the entry names.
        generation: ViewId,
    },
    /// A cut lets a segment grow that does not exist, or that nobody writes.
    #[error("the cut lets segment number {index} of {segments} grow, which nobody writes")]
    Index {
        /// The number that the cut names.
        index: usize,
        /// The number of segments that there are.
        segments: usize,
    },
    /// The view is not the next one.
    #[error("view {found} does not follow view {after}")]
    View {
        /// The last view.
        after: ViewId,
        /// The view found.
        found: ViewId,
    },
    /// A tree in which one process is two vertices.
    #[error("the tree of view {view} names a process twice")]
    Tree {
        /// The view.
        view: ViewId,
    },
    /// The order would pass its ceiling or the range of gsn.
    #[error("gsn {gsn} lies beyond the ceiling {ceiling}")]
    Ceiling {
        /// The position reached.
        gsn: Gsn,
        /// The ceiling.
        ceiling: Gsn,
    },
}

/// The state of a whole cut log after an entry.
///
/// What every cut changes lies in dense lists, by the numbers of the [`Layout`], so that a cut of thousands of segments is
/// applied by walking its growths. The shards themselves take it over at views; meanwhile a [`ShardRef`] puts both together.
#[derive(Clone, Debug)]
pub struct LogState {
    /// The entry.
    pub entry: EntryNo,
    /// Its checksum.
    pub crc: u32,
    /// The root epoch in which it was appended.
    pub epoch: RootEpoch,
    /// The last view.
    pub view: ViewId,
    /// The position after the last one ordered.
    pub end_gsn: Gsn,
    /// Positions below may be used.
    pub ceiling: Gsn,
    /// Positions below are trimmed.
    pub trim: Gsn,
    /// The tree below the root.
    pub tree: Tree,
    /// Positions declared lost that are not trimmed yet.
    pub losses: Vec<LossView>,
    /// The shards: of open ones, lengths and last entries as of the last view.
    shards: BTreeMap<ShardId, ShardState>,
    /// Shards in the order of the tree: by rank, then id. Derived.
    order: Vec<ShardId>,
    /// What the numbers of cuts mean. Derived; the same one while it does not change.
    layout: Arc<Layout>,
    /// By number: lengths, the last cut that changed each, and whether it has a writer.
    lens: Vec<u64>,
    touched: Vec<u64>,
    written: Vec<bool>,
    /// Shards as they were before the last entry, a view, opened them again.
    reopened: Vec<ShardState>,
}

/// Two states are the same if their snapshots are.
impl PartialEq for LogState {
    fn eq(&self, other: &Self) -> bool {
        let head = |it: &Self| (it.entry, it.crc, it.epoch, it.view);
        let ends = |it: &Self| (it.end_gsn, it.ceiling, it.trim);
        let shards = |it: &Self| -> Vec<ShardState> { it.shards().map(|it| it.state()).collect() };
        head(self) == head(other)
            && ends(self) == ends(other)
            && (&self.tree, &self.losses) == (&other.tree, &other.losses)
            && shards(self) == shards(other)
    }
}

impl Eq for LogState {}

impl Default for LogState {
    fn default() -> Self {
        Self {
            entry: EntryNo::ZERO,
            crc: 0,
            epoch: RootEpoch::ZERO,
            view: ViewId::ZERO,
            end_gsn: Gsn::ZERO,
            ceiling: Gsn::ZERO,
            trim: Gsn::ZERO,
            tree: Tree::default(),
            losses: Vec::new(),
            shards: BTreeMap::new(),
            order: Vec::new(),
            layout: Arc::default(),
            lens: Vec::new(),
            touched: Vec::new(),
            written: Vec::new(),
            reopened: Vec::new(),
        }
    }
}

/// Looks whether every segment that grows has a writer.
struct Check<'a> {
    written: &'a [bool],
    bad: Option<usize>,
}

impl GrowthSink for Check<'_> {
    #[inline]
    fn one(&mut self, index: usize, _growth: u64) {
        if self.written.get(index) != Some(&true) {
            self.bad = Some(index);
        }
    }

    #[inline]
    fn run(&mut self, first: usize, growths: &[u8]) {
        let written = self.written.get(first..first + growths.len());
        // Without a branch for each.
        if !written.is_some_and(|written| written.iter().fold(true, |all, one| all & one)) {
            self.bad = Some(first);
        }
    }
}

/// Applies a cut that was checked.
struct Grow<'a> {
    entry: u64,
    lens: &'a mut [u64],
    touched: &'a mut [u64],
}

impl GrowthSink for Grow<'_> {
    #[inline]
    fn one(&mut self, index: usize, growth: u64) {
        // Lengths do not pass the end of the order.
        if let (Some(len), Some(touched)) = (self.lens.get_mut(index), self.touched.get_mut(index))
        {
            *len = len.wrapping_add(growth);
            *touched = self.entry;
        }
    }

    #[inline]
    fn run(&mut self, first: usize, growths: &[u8]) {
        let run = first..first + growths.len();
        if let (Some(lens), Some(touched)) =
            (self.lens.get_mut(run.clone()), self.touched.get_mut(run))
        {
            for (len, growth) in lens.iter_mut().zip(growths) {
                *len = len.wrapping_add(u64::from(*growth));
            }
            touched.fill(self.entry);
        }
    }
}

impl LogState {
    /// The shards in the order of the tree.
    #[must_use]
    pub fn order(&self) -> &[ShardId] {
        &self.order
    }

    /// What the numbers of the next cut mean. The same one until a view changes it.
    #[must_use]
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The committed lengths of the segments, by number.
    #[must_use]
    pub fn lens(&self) -> &[u64] {
        &self.lens
    }

    /// The last cut that changed each of them.
    pub(super) fn touched(&self) -> &[u64] {
        &self.touched
    }

    /// Becomes the state before the entry of a mark. No view and no loss may lie between.
    pub(super) fn leap(&mut self, mark: &Mark) {
        self.entry = EntryNo::new(mark.from - 1);
        self.crc = mark.crc;
        self.epoch = mark.epoch;
        self.end_gsn = mark.end_gsn;
        self.ceiling = mark.ceiling;
        self.trim = mark.trim;
        self.losses.retain(|loss| loss.to > mark.trim);
        self.lens.clone_from(&mark.lens);
        self.touched.clone_from(&mark.touched);
        self.reopened.clear();
    }

    /// Whether the segments have a writer, by number: others do not grow.
    #[must_use]
    pub fn written(&self) -> &[bool] {
        &self.written
    }

    /// A shard.
    #[must_use]
    pub fn shard(&self, shard: ShardId) -> Option<ShardRef<'_>> {
        self.shards
            .get(&shard)
            .map(|state| self.put_together(state))
    }

    /// The shards, by id.
    pub fn shards(&self) -> impl Iterator<Item = ShardRef<'_>> {
        self.shards.values().map(|state| self.put_together(state))
    }

    fn put_together<'a>(&'a self, state: &'a ShardState) -> ShardRef<'a> {
        let span = self.layout.span(state.shard).filter(|_| state.open);
        ShardRef::new(
            state,
            span.map(|span| (&self.lens[span.clone()], &self.touched[span])),
        )
    }

    /// Shards as they were before the last entry, a view, opened them again: only at D0, after a declared loss.
    #[must_use]
    pub fn reopened(&self) -> &[ShardState] {
        &self.reopened
    }

    /// What the next entry, a cut that was checked, says in full: the segments that grow, in the order of the positions.
    pub fn items<'a>(&'a self, cut: &CutView<'a>) -> impl Iterator<Item = CutItem> + 'a {
        cut.growths().iter().filter_map(|(index, growth)| {
            let segment = *self.layout.segments().get(index)?;
            let state = self.shards.get(&segment.shard)?;
            let prev_len = Lsn::new(*self.lens.get(index)?);
            Some(CutItem {
                segment,
                generation: state.segments.get(segment.slot.index())?.generation,
                prev_len,
                new_len: prev_len.checked_add(growth)?,
            })
        })
    }

    /// The shards below some vertices of the tree, in its order; those that are not open among them.
    #[must_use]
    pub fn below(&self, vertices: &Range<usize>) -> &[ShardId] {
        let all = self.tree.vertices();
        let Some(begins) = first_begins(all, vertices.start) else {
            return &[];
        };
        let at = |key: OrderKey| {
            let before = |shard: &ShardId| (self.shards[shard].rank, *shard) < key;
            self.order.partition_point(before)
        };
        let end = first_begins(all, vertices.end).map_or(self.order.len(), at);
        &self.order[at(begins)..end]
    }

    /// Whether an entry follows from the state. For anything but a view, [`Self::apply`] then succeeds.
    ///
    /// # Errors
    /// [`ApplyError`]; effect none.
    pub fn check(&self, view: &EntryView<'_>) -> Result<(), ApplyError> {
        let entry = view.header.entry;
        if self.entry.next() != Some(entry) {
            return Err(ApplyError::Order {
                after: self.entry,
                found: entry,
            });
        }
        if view.header.prev_crc != self.crc || view.header.epoch < self.epoch {
            return Err(ApplyError::Chain { entry });
        }
        match view.body {
            EntryBody::Cut(cut) => {
                if cut.start_gsn != self.end_gsn {
                    return Err(ApplyError::Start {
                        expected: self.end_gsn,
                        found: cut.start_gsn,
                    });
                }
                if cut.end_gsn > self.ceiling {
                    return Err(ApplyError::Ceiling {
                        gsn: cut.end_gsn,
                        ceiling: self.ceiling,
                    });
                }
                let mut check = Check {
                    written: &self.written,
                    bad: None,
                };
                cut.growths().walk(&mut check);
                if let Some(index) = check.bad {
                    let segments = self.written.len();
                    return Err(ApplyError::Index { index, segments });
                }
            }
            EntryBody::Loss(loss) => {
                if loss.end_gsn < self.end_gsn || loss.end_gsn > self.ceiling {
                    return Err(ApplyError::Ceiling {
                        gsn: loss.end_gsn,
                        ceiling: self.ceiling,
                    });
                }
            }
            EntryBody::View(_)
            | EntryBody::RootEpoch(_)
            | EntryBody::Trim { .. }
            | EntryBody::Ceiling { .. } => {}
        }
        Ok(())
    }

    /// Applies the next entry.
    ///
    /// # Errors
    /// [`ApplyError`] when the entry does not follow from the state; effect none, but for views, after which the state is to
    /// be discarded.
    pub fn apply(&mut self, view: &EntryView<'_>) -> Result<(), ApplyError> {
        self.check(view)?;
        self.reopened.clear();
        let entry = view.header.entry;
        match view.body {
            EntryBody::Cut(cut) => {
                cut.growths().walk(&mut Grow {
                    entry: entry.get(),
                    lens: &mut self.lens,
                    touched: &mut self.touched,
                });
                self.end_gsn = cut.end_gsn;
            }
            EntryBody::View(body) => {
                if self.view.next() != Some(body.view) {
                    return Err(ApplyError::View {
                        after: self.view,
                        found: body.view,
                    });
                }
                self.settle();
                for change in body.changes() {
                    self.apply_change(&change, body.view, entry)?;
                }
                self.view = body.view;
                self.reorder();
            }
            EntryBody::RootEpoch(_) => {}
            EntryBody::Trim { upto } => {
                self.trim = self.trim.max(upto);
                self.losses.retain(|loss| loss.to > upto);
            }
            EntryBody::Loss(loss) => {
                self.end_gsn = loss.end_gsn;
                self.losses.push(loss);
                if let Some(shard) = loss.shard.and_then(|shard| self.shards.get_mut(&shard)) {
                    shard.last = entry;
                }
            }
            EntryBody::Ceiling { gsn } => self.ceiling = self.ceiling.max(gsn),
        }
        self.entry = entry;
        self.crc = view.header.crc;
        self.epoch = view.header.epoch;
        Ok(())
    }

    fn apply_change(
        &mut self,
        change: &Change<'_>,
        view: ViewId,
        entry: EntryNo,
    ) -> Result<(), ApplyError> {
        if let Change::Tree { vertices } = change {
            let taken = self.tree.replace(vertices, view);
            return taken.then_some(()).ok_or(ApplyError::Tree { view });
        }
        let Some(shard) = change.shard() else {
            return Ok(());
        };
        if let Some(state) = self.shards.get_mut(&shard) {
            if matches!(change, Change::Open { .. }) {
                self.reopened.push(state.clone());
            }
            self.tree.touch((state.rank, shard), view);
            state.apply_change(change, view, entry)?;
        } else if let Some(state) = ShardState::opened(change, view, entry) {
            self.shards.insert(shard, state);
        } else {
            let slot = Slot::ZERO;
            return Err(ApplyError::Segment {
                segment: SegmentId { shard, slot },
                generation: view,
            });
        }
        // A shard that was opened anew may have another rank.
        if let Some(state) = self.shards.get(&shard) {
            self.tree.touch((state.rank, shard), view);
        }
        Ok(())
    }

    /// The shards take over what the cuts since the last view changed.
    fn settle(&mut self) {
        for (index, segment) in self.layout.segments().iter().enumerate() {
            if let Some(state) = self.shards.get_mut(&segment.shard) {
                state.last = state.last.max(EntryNo::new(self.touched[index]));
                state.segments[segment.slot.index()].len = Lsn::new(self.lens[index]);
            }
        }
    }

    /// Derives what follows from the shards.
    fn reorder(&mut self) {
        self.order.clear();
        self.order.extend(self.shards.keys());
        let shards = &self.shards;
        self.order.sort_by_key(|shard| (shards[shard].rank, *shard));
        let open = self.order.iter().map(|shard| &shards[shard]);
        let open = open.filter(|state| state.open);
        let layout = Layout::new(
            open.clone()
                .map(|state| (state.shard, state.segments.len())),
        );
        if layout != *self.layout || !self.reopened.is_empty() {
            self.layout = Arc::new(layout);
        }
        self.lens.clear();
        self.touched.clear();
        self.written.clear();
        for (state, segment) in
            open.flat_map(|state| state.segments.iter().map(move |it| (state, it)))
        {
            self.lens.push(segment.len.get());
            self.touched.push(state.last.get());
            self.written.push(segment.writer != Inc::ZERO);
        }
    }

    /// Writes the state: a snapshot of the cut log.
    ///
    /// # Errors
    /// [`WireError::Full`].
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), WireError> {
        writer.field(self.entry)?;
        writer.field(self.crc)?;
        writer.field(self.epoch)?;
        writer.field(self.view)?;
        writer.field(self.end_gsn)?;
        writer.field(self.ceiling)?;
        writer.field(self.trim)?;
        self.tree.write(writer)?;
        writer.field(self.shards.len() as u32)?;
        for shard in self.shards() {
            shard.write(writer)?;
        }
        writer.field(self.losses.len() as u32)?;
        for loss in &self.losses {
            writer.field(loss.shard.unwrap_or(ShardId::MAX))?;
            writer.field(loss.from)?;
            writer.field(loss.to)?;
            writer.field(loss.end_gsn)?;
        }
        Ok(())
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// Any [`WireError`]; effect none.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut state = Self {
            entry: reader.field()?,
            crc: reader.field()?,
            epoch: reader.field()?,
            view: reader.field()?,
            end_gsn: reader.field()?,
            ceiling: reader.field()?,
            trim: reader.field()?,
            ..Self::default()
        };
        state.tree = Tree::read(reader)?;
        for _ in 0..reader.field::<u32>()? {
            let shard = ShardState::read(reader)?;
            // A record that is counted has a position: so that lengths have no end of their own to watch.
            let mut lens = shard.segments.iter().map(|segment| segment.len.get());
            if let Some(value) = lens.find(|len| *len > state.end_gsn.get()) {
                let field = "segment length";
                return Err(WireError::Range { field, value });
            }
            state.shards.insert(shard.shard, shard);
        }
        for _ in 0..reader.field::<u32>()? {
            let shard: ShardId = reader.field()?;
            state.losses.push(LossView {
                shard: (shard != ShardId::MAX).then_some(shard),
                from: reader.field()?,
                to: reader.field()?,
                end_gsn: reader.field()?,
            });
        }
        state.reorder();
        Ok(state)
    }
}
