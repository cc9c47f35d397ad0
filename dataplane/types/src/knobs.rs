//! Deliberate protocol bugs, by name: what measures the tests that must find them.
//!
//! The machines take a type parameter `K:` [`Knobs`] and ask it at the places where a bug can be put in. What ships is
//! built with [`Shipped`], whose answer is the constant `false`: no branch and no text of a mutant is left. The simulator
//! has another type, whose answer is set for each world.

/// Which deliberate bugs a machine has.
pub trait Knobs: Copy + core::fmt::Debug + 'static {
    /// Whether it has this one.
    fn mutant(which: Mutant) -> bool;
}

/// No deliberate bug: what ships.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shipped;

impl Knobs for Shipped {
    #[inline(always)]
    fn mutant(_: Mutant) -> bool {
        false
    }
}

macro_rules! mutants {
    ($($variant:ident, $name:literal, $story:literal;)*) => {
        /// A deliberate bug.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Mutant {
            $(#[doc = $story] $variant,)*
        }

        impl Mutant {
            /// All of them, in the order of the table in `docs/testing.md`.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name on the command line and in the table.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What it does wrong.
            #[must_use]
            pub const fn story(self) -> &'static str {
                match self {
                    $(Self::$variant => $story,)*
                }
            }
        }
    };
}

// The leaf, the root, the replica, the client, the controller.
mutants! {
    KeepSlotsOverView, "mutant_keep_slots_over_view",
        "The leaf counts what a member reported before a view as reported after it.";
    ConfirmBeforeQuorum, "mutant_confirm_before_quorum",
        "The leaf takes the largest length that a member reports instead of the k-th largest.";
    CutBeforeDurable, "mutant_cut_before_durable",
        "The root announces a cut before its journal is durable.";
    AckBeforePersist, "mutant_ack_before_persist",
        "A replica reports what it holds instead of what is durable.";
}
