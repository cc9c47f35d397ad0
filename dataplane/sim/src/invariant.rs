//! The ids of what a run is judged by: every check names the invariant that it keeps, and every failure carries it.
//!
//! O1 to O10 are those of the ordering protocol, G1 to G8 those of grants, S0 to S17, L1 and V1 those that `histcheck` judges histories by (the numbers
//! are the same), M1 and T1 belong to the simulator.

use ionian_histcheck::Id;

/// What a run is judged by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Invariant {
    /// A committed entry has one content; entries and positions are dense, but for a declared loss.
    O1,
    /// A position of a segment has one value, and one generation owns it.
    O2,
    /// A committed length was held at the class by every live member that the shard lists.
    O3,
    /// A member that holds a committed position holds the owning value.
    O4,
    /// No committed record is lost within what the class survives.
    O5,
    /// Bases, totals and splits are those of the entry that they name.
    O6,
    /// An ack names a committed entry; a record invoked after an ack comes after it.
    O7,
    /// A record stands at one position at most; a promise of `never` stays true.
    O8,
    /// After heal every member reaches the last entry that touches it, and nothing waits.
    O9,
    /// Nothing above the commit index leaves the root.
    O10,
    /// Nothing is taken without a grant of an epoch of keys that is good, and nothing goes on without.
    G1,
    /// Nothing is taken by a grant of before the last change of its user's rights of which the node has heard, and nothing
    /// goes on by one.
    G2,
    /// Nothing is taken but from who was granted the session: by its own token, for this direction, at this node.
    G3,
    /// A session is opened once, and what is said in it is taken once.
    G4,
    /// Nothing is taken beyond the rights and the log of the grant, nor after something that was.
    G5,
    /// No more is kept for a session than its grant's window says.
    G6,
    /// Who is granted something gets it.
    G7,
    /// The controllers do, and give, no more than the rights of who asks.
    G8,
    /// One completion per operation.
    S0,
    /// Acks, reads, deliveries and answers agree on what stands at a position.
    S1,
    /// What is seen was appended, with those bytes, and did not fail without effect.
    S2,
    /// A record stands at one position.
    S3,
    /// The position in an ack holds that record.
    S4,
    /// What was acked or seen is in the final read.
    S5,
    /// Appends keep the order of real time.
    S6,
    /// What was seen to exist is never answered `unwritten`.
    S7,
    /// The tail never falls behind what was known when it was asked for.
    S8,
    /// A gap is declared, and of a kind that may be.
    S9,
    /// A subscription is delivered every position once and in order.
    S10,
    /// The records of a session, and of a client that keeps to one server, are ordered as issued.
    S11,
    /// Hints are confirmed and stand, or are taken back.
    S12,
    /// Epochs fence.
    S13,
    /// Nothing is trimmed that no trim covers, and a trim that is done is done.
    S14,
    /// Holes stay holes, records stay records.
    S15,
    /// Positions rise within a segment; cuts follow each other.
    S16,
    /// Selective reads are complete and exact.
    S17,
    /// After heal everything that is open ends.
    L1,
    /// A run shows something.
    V1,
    /// A machine keeps to its contract with its edge: it sends what parses, within its room, and does not spin; an edge makes
    /// a life durable before it says who it is.
    M1,
    /// One seed gives one trace.
    T1,
}

impl core::fmt::Display for Invariant {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self, f)
    }
}

impl From<Id> for Invariant {
    fn from(id: Id) -> Self {
        match id {
            Id::S0 => Self::S0,
            Id::S1 => Self::S1,
            Id::S2 => Self::S2,
            Id::S3 => Self::S3,
            Id::S4 => Self::S4,
            Id::S5 => Self::S5,
            Id::S6 => Self::S6,
            Id::S7 => Self::S7,
            Id::S8 => Self::S8,
            Id::S9 => Self::S9,
            Id::S10 => Self::S10,
            Id::S11 => Self::S11,
            Id::S12 => Self::S12,
            Id::S13 => Self::S13,
            Id::S14 => Self::S14,
            Id::S15 => Self::S15,
            Id::S16 => Self::S16,
            Id::S17 => Self::S17,
            Id::L1 => Self::L1,
            Id::V1 => Self::V1,
        }
    }
}

/// A check that did not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which one.
    pub invariant: Invariant,
    /// What was found.
    pub what: String,
}

impl Violation {
    /// A violation of `invariant`.
    #[must_use]
    pub fn new(invariant: Invariant, what: impl Into<String>) -> Self {
        Self {
            invariant,
            what: what.into(),
        }
    }
}

impl core::fmt::Display for Violation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}
