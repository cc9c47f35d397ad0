//! A segment as the cut log knows it: its length, its writer, and which generation owns which of its positions.

use alloc::vec::Vec;

use ionian_types::{Inc, Lsn, ViewId};

/// A closed generation of a segment: it owns the positions `open <= p < close`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GenSpan {
    /// The generation.
    pub generation: ViewId,
    /// The length at which it opened.
    pub open: Lsn,
    /// The length at which it closed.
    pub close: Lsn,
}

/// One segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentState {
    /// The current generation: the view that opened the writer's life.
    pub generation: ViewId,
    /// The length at which the current generation opened.
    pub opened_at: Lsn,
    /// The writer's incarnation, or `Inc::ZERO` when nobody may write.
    pub writer: Inc,
    /// The committed length.
    pub len: Lsn,
    /// Closed generations, oldest first.
    pub closed: Vec<GenSpan>,
}

impl SegmentState {
    /// The generation that owns a position below the committed length, or that will own one at or above it.
    #[must_use]
    pub fn owner(&self, position: Lsn) -> ViewId {
        if position >= self.opened_at {
            return self.generation;
        }
        self.closed
            .iter()
            .rev()
            .find(|span| span.open <= position && position < span.close)
            .map_or(ViewId::ZERO, |span| span.generation)
    }

    /// From each position on, the generation that owns what lies there, up to the next one's; ascending, the current one
    /// last.
    pub fn owners(&self) -> impl Iterator<Item = (Lsn, ViewId)> {
        self.closed
            .iter()
            .map(|span| (span.open, span.generation))
            .chain([(self.opened_at, self.generation)])
    }

    /// The span of a closed generation.
    #[must_use]
    pub fn closed_span(&self, generation: ViewId) -> Option<GenSpan> {
        self.closed
            .iter()
            .copied()
            .find(|span| span.generation == generation)
    }

    /// The length beyond which nothing that `generation` wrote counts: `None` while it is the current one, or one that this
    /// state does not know yet; zero if it never owned a position.
    #[must_use]
    pub fn end_of(&self, generation: ViewId) -> Option<Lsn> {
        if let Some(span) = self.closed_span(generation) {
            return Some(span.close);
        }
        let last = self
            .closed
            .last()
            .map_or(ViewId::ZERO, |span| span.generation);
        (generation < self.generation.max(last)).then_some(Lsn::ZERO)
    }

    /// Whether `generation` is the current one and has a writer.
    #[must_use]
    pub fn is_open_in(&self, generation: ViewId) -> bool {
        self.writer != Inc::ZERO && self.generation == generation
    }
}
