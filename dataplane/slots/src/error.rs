//! What cannot be built or written, with what to do about it. None of these has any effect.

use std::fmt;

use ionian_types::SEGMENTS_PER_SHARD_MAX;

use crate::{CELLS_MAX, DEPTH_MAX, Isa, SHARDS_MAX, SLOTS_MAX};

/// Why a table was not made or a slot not written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SlotsError {
    /// Not a number of replicas that a shard may have.
    Replicas {
        /// What was asked for.
        given: usize,
    },
    /// Not a number of replicas that can be enough.
    Quorum {
        /// What was asked for.
        given: usize,
        /// Replicas of the shard.
        replicas: usize,
    },
    /// More shards than a table holds.
    Shards {
        /// What was asked for.
        given: usize,
    },
    /// More slots than a table holds.
    Slots {
        /// What was asked for.
        given: usize,
    },
    /// More rings or frames than there may be.
    Rings {
        /// Servers that were asked for.
        servers: usize,
        /// Frames per server that were asked for.
        depth: usize,
    },
    /// An instruction set that this CPU does not have.
    Isa {
        /// What was asked for.
        given: Isa,
    },
    /// A report with another number of lengths than its shard has segments.
    Lengths {
        /// Lengths in the report.
        given: usize,
        /// Segments of the shard.
        segments: usize,
    },
}

impl fmt::Display for SlotsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replicas { given } => write!(
                f,
                "a shard of {given} replicas: ask for 1 to {SEGMENTS_PER_SHARD_MAX}"
            ),
            Self::Quorum { given, replicas } => write!(
                f,
                "{given} of {replicas} replicas to be enough: ask for 1 to {replicas}"
            ),
            Self::Shards { given } => write!(
                f,
                "a table of {given} shards: ask for at most {SHARDS_MAX}, or give the leaf fewer"
            ),
            Self::Slots { given } => write!(
                f,
                "a table of {given} slots: ask for at most {SLOTS_MAX}, or give the leaf fewer"
            ),
            Self::Rings { servers, depth } => write!(
                f,
                "rings of {depth} frames for {servers} servers: ask for 1 to {DEPTH_MAX} frames and at most {CELLS_MAX} in all"
            ),
            Self::Isa { given } => write!(
                f,
                "this CPU does not have {given}: take one of Isa::available()"
            ),
            Self::Lengths { given, segments } => write!(
                f,
                "a report of {given} lengths for a shard of {segments} segments: drop it and count it"
            ),
        }
    }
}

impl std::error::Error for SlotsError {}
