//! Durability classes, effects of failed operations, ordering modes.

use core::fmt;

/// What an acknowledgement means. Chosen per log, echoed in every ack and printed beside every figure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Durability {
    /// In the memory of k replicas. Survives f process or host failures, not a joint power loss.
    D0 = 0,
    /// Flushed to the device of k replicas. Survives a joint power loss.
    D1 = 1,
    /// D1 on replicas of at least two failure domains.
    D2 = 2,
}

impl Durability {
    /// Decodes the number used on the wire and on disk.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::D0),
            1 => Some(Self::D1),
            2 => Some(Self::D2),
            _ => None,
        }
    }

    /// The number used on the wire and on disk.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether a record must be flushed to a device before it counts.
    #[must_use]
    pub const fn is_flushed(self) -> bool {
        !matches!(self, Self::D0)
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::D0 => "D0",
            Self::D1 => "D1",
            Self::D2 => "D2",
        })
    }
}

/// What a failed operation may have done. Every error of a public interface states it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// Nothing, now or later.
    None,
    /// The operation took place; only its answer is wanting.
    Done,
    /// Either. Only a fate query can tell.
    Unknown,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no effect",
            Self::Done => "done",
            Self::Unknown => "effect unknown",
        })
    }
}

/// The protocol that gives a log its order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum OrderingMode {
    /// Store first, order batches by global cuts.
    Scalog = 0,
    /// Speculative delivery over scalog.
    Belfast = 1,
    /// Write-once cells at granted positions.
    Corfu = 2,
    /// Epoch sequencer, copysets, release pointer.
    LogDevice = 3,
    /// Insert-after by stride arithmetic.
    Ziplog = 4,
}

impl OrderingMode {
    /// Decodes the number used on the wire and on disk.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Scalog),
            1 => Some(Self::Belfast),
            2 => Some(Self::Corfu),
            3 => Some(Self::LogDevice),
            4 => Some(Self::Ziplog),
            _ => None,
        }
    }

    /// The number used on the wire and on disk.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for OrderingMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalog => "scalog",
            Self::Belfast => "belfast",
            Self::Corfu => "corfu",
            Self::LogDevice => "logdevice",
            Self::Ziplog => "ziplog",
        })
    }
}
