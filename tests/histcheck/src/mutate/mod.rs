//! Mutators: each takes a valid history and breaks one promise in it, so that the judge can be judged.
//!
//! A mutator changes only what makes its violation certain, whatever else the history holds; where it cannot, it declines.
//! Other invariants may be violated too: an ack over another record also loses that record.

mod order;
mod seen;
mod streams;
mod view;
mod world;

use crate::event::Event;
use crate::generate::Draw;
use crate::witness::Id;

use view::View;

/// A mutator.
#[derive(Clone, Copy, Debug)]
pub struct Mutator {
    /// The invariant that must catch it.
    pub id: Id,
    /// What it does.
    pub name: &'static str,
    apply: fn(&mut Broken<'_>) -> Option<()>,
}

impl Mutator {
    /// Breaks a valid history; `None` where it has nothing to break.
    #[must_use]
    pub fn apply(&self, valid: &[Event], seed: u64) -> Option<Vec<Event>> {
        let (valid, end) = match valid.split_last() {
            Some((end @ Event::Done { .. }, before)) => (before, Some(end.clone())),
            _ => (valid, None),
        };
        let mut broken = Broken {
            end,
            view: View::of(valid),
            events: valid.to_vec(),
            draw: Draw::new(seed),
            valid,
        };
        (self.apply)(&mut broken)?;
        broken.events.extend(broken.end);
        Some(broken.events)
    }
}

/// A history that is being broken. The view is of the valid one: places in it hold until events are added or removed.
#[derive(Debug)]
struct Broken<'a> {
    valid: &'a [Event],
    view: View,
    events: Vec<Event>,
    /// The `done` that follows the events.
    end: Option<Event>,
    draw: Draw,
}

impl Broken<'_> {
    /// One of a list, at random.
    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| self.draw.pick(from).clone())
    }

    /// The first of a list, from a random place on, that will do.
    fn find<T: Clone>(&mut self, from: &[T], will_do: impl Fn(&T) -> bool) -> Option<T> {
        let wanted: Vec<T> = from.iter().filter(|item| will_do(item)).cloned().collect();
        self.pick(&wanted)
    }
}

macro_rules! mutators {
    ($($id:ident $file:ident :: $name:ident,)*) => {
        /// Every mutator, by the invariant that must catch it.
        pub const MUTATORS: &[Mutator] = &[
            $(Mutator { id: Id::$id, name: stringify!($name), apply: $file::$name },)*
        ];
    };
}

mutators! {
    S0 world::call_is_missing,
    S0 world::answer_comes_twice,
    S0 world::number_is_used_twice,
    S0 world::file_is_cut_short,
    S0 world::file_goes_on_after_its_end,
    S1 seen::read_shows_another_record,
    S1 seen::delivery_is_corrupted,
    S2 seen::record_is_invented,
    S2 seen::payload_is_another,
    S2 seen::refused_and_there,
    S3 seen::record_comes_again_at_the_tail,
    S3 seen::retry_is_acked_elsewhere,
    S4 seen::ack_names_anothers_position,
    S4 seen::final_reader_swaps_two,
    S5 seen::final_read_skips_an_acked_record,
    S5 seen::acked_record_is_a_loss,
    S6 order::later_append_stands_lower,
    S6 order::call_comes_after_a_later_ack,
    S7 order::acked_is_unwritten,
    S7 order::read_again_is_unwritten,
    S8 order::tail_falls,
    S8 order::tail_is_below_an_ack,
    S8 order::final_tail_is_low,
    S9 streams::delivery_is_missing,
    S9 streams::gap_covers_an_acked_record,
    S9 streams::trim_gap_that_nobody_asked_for,
    S9 streams::final_reader_stops_early,
    S10 streams::delivery_comes_twice,
    S10 streams::deliveries_are_swapped,
    S11 order::session_is_swapped,
    S11 order::number_is_too_high,
    S12 streams::wrong_hint_is_confirmed,
    S12 streams::confirm_is_taken_back,
    S12 streams::confirm_runs_ahead,
    S12 streams::hint_is_never_settled,
    S13 order::epoch_falls,
    S13 order::epoch_outlives_the_next,
    S13 order::epoch_was_over_before_the_call,
    S14 world::trimmed_that_nobody_asked_for,
    S14 world::head_is_too_high,
    S14 world::head_falls,
    S14 seen::trimmed_position_shows_another_record,
    S15 seen::fill_over_a_record,
    S15 seen::record_is_read_as_a_hole,
    S16 world::segment_is_out_of_order,
    S16 world::cut_does_not_add_up,
    S16 world::cut_shrinks,
    S16 world::earlier_generation_stands_higher,
    S16 world::ack_comes_before_the_flush,
    S17 streams::selected_record_is_missing,
    S17 streams::selection_is_anothers,
    L1 world::call_never_ends,
    L1 world::stream_is_stuck,
    L1 world::copies_differ,
    V1 world::no_final_phase,
    V1 world::no_final_reader,
    V1 world::faults_never_took_hold,
    V1 world::nobody_healed,
}
