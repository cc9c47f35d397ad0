//! Why a position holds no record. A gap is typed and always surfaced, never skipped in silence.

use core::fmt;

/// The kind of a gap in the total order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum GapKind {
    /// A client filled the position (corfu).
    Junk = 1,
    /// Recovery filled the position (logdevice).
    Plug = 2,
    /// A stride or quota was not used (ziplog, belfast).
    NoOp = 3,
    /// The end of a namespace epoch (logdevice, ziplog).
    Bridge = 4,
    /// Trimmed on request.
    Trim = 5,
    /// Declared lost: the copies that held it are gone.
    Loss = 6,
}

impl GapKind {
    /// Decodes the number used on the wire and on disk.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Junk),
            2 => Some(Self::Plug),
            3 => Some(Self::NoOp),
            4 => Some(Self::Bridge),
            5 => Some(Self::Trim),
            6 => Some(Self::Loss),
            _ => None,
        }
    }

    /// The number used on the wire and on disk.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for GapKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Junk => "junk",
            Self::Plug => "plug",
            Self::NoOp => "noop",
            Self::Bridge => "bridge",
            Self::Trim => "trim",
            Self::Loss => "loss",
        })
    }
}
