//! The k-th largest of R lengths for many shards at once, compiled once per instruction set and picked when a table is made.
//!
//! The code is the same for every instruction set (`select.rs`): comparisons, minima and maxima over eight neighbouring shards, which
//! is one cache line of each column and one register of AVX-512. Only the few operations on a line differ. Property tests hold every
//! instruction set to one meaning.
//!
//! # Safety model
//!
//! Code compiled for features that the CPU lacks must not run. [`Kernel::of`] is the only maker of a [`Kernel`], and asks the CPU
//! first; the functions behind it are otherwise safe.
#![allow(unsafe_code)]

mod baseline;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::fmt;

use crate::SlotsError;
use crate::columns::{Columns, Line};

/// An instruction set that the kernels are compiled for, the least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Isa {
    /// What every CPU of the architecture has.
    Baseline,
    /// AVX2: four shards at once.
    Avx2,
    /// AVX-512 (F, VL, DQ, BW): eight shards at once.
    Avx512,
}

impl Isa {
    const ALL: [Self; 3] = [Self::Baseline, Self::Avx2, Self::Avx512];

    /// Whether this CPU has it.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            Self::Baseline => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86::has_avx2(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => x86::has_avx512(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }

    /// Those that this CPU has, the least first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The widest that this CPU has.
    #[must_use]
    pub fn best() -> Self {
        Self::available().last().unwrap_or(Self::Baseline)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Baseline => "baseline",
            Self::Avx2 => "AVX2",
            Self::Avx512 => "AVX-512",
        })
    }
}

/// Picks the functions of a module by class.
macro_rules! by_class {
    ($module:path, $isa:expr, $replicas:expr, $quorum:expr) => {
        by_class!(@ $module, $isa, $replicas, $quorum,
            (1, 1),
            (2, 1), (2, 2),
            (3, 1), (3, 2), (3, 3),
            (4, 1), (4, 2), (4, 3), (4, 4),
            (5, 1), (5, 2), (5, 3), (5, 4), (5, 5),
            (6, 1), (6, 2), (6, 3), (6, 4), (6, 5), (6, 6),
            (7, 1), (7, 2), (7, 3), (7, 4), (7, 5), (7, 6), (7, 7))
    };
    (@ $module:path, $isa:expr, $replicas:expr, $quorum:expr, $(($r:literal, $k:literal)),+) => {{
        use $module as of;
        match ($replicas, $quorum) {
            $(($r, $k) => Some(Kernel {
                isa: $isa,
                merge: of::merge::<$r, $k>,
                maxima: of::maxima::<$r>,
                maximum: of::maximum,
            }),)+
            _ => None,
        }
    }};
}

/// What a kernel found.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Found {
    /// Segments whose result is above the floor.
    pub(crate) segments: u64,
    /// By how much, all together; wraps.
    pub(crate) growth: u64,
}

type MergeFn = unsafe fn(&mut Columns) -> Found;
type MaximaFn = unsafe fn(&[Line], &[Line], &mut [Line]);
type MaximumFn = unsafe fn(&[Line]) -> i64;

/// The kernels for one class of shards on one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    isa: Isa,
    merge: MergeFn,
    maxima: MaximaFn,
    maximum: MaximumFn,
}

impl Kernel {
    /// The kernels for `quorum` of `replicas`.
    ///
    /// # Errors
    ///
    /// When there is no such class, or the CPU lacks the instruction set.
    pub(crate) fn of(isa: Isa, replicas: usize, quorum: usize) -> Result<Self, SlotsError> {
        if !isa.is_available() {
            return Err(SlotsError::Isa { given: isa });
        }
        let kernel = match isa {
            Isa::Baseline => by_class!(baseline, isa, replicas, quorum),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => by_class!(x86::avx2, isa, replicas, quorum),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => by_class!(x86::avx512, isa, replicas, quorum),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => None,
        };
        kernel.ok_or(if (1..=7).contains(&replicas) {
            SlotsError::Quorum {
                given: quorum,
                replicas,
            }
        } else {
            SlotsError::Replicas { given: replicas }
        })
    }

    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    /// Per lane and segment of the groups marked dirty, the k-th largest length, or the floor if that is larger; clears these
    /// marks.
    #[inline]
    pub(crate) fn merge(&self, columns: &mut Columns) -> Found {
        // SAFETY: `of` made this kernel, after the CPU had said that it has the features that `merge` was compiled with; that
        // is the only precondition.
        unsafe { (self.merge)(columns) }
    }

    /// Per group, lane and segment, the largest length, or the floor if that is larger.
    pub(crate) fn maxima(&self, lens: &[Line], floor: &[Line], next: &mut [Line]) {
        // SAFETY: as for `merge`: `of` asked the CPU for the features of `maxima`, which has no other precondition.
        unsafe { (self.maxima)(lens, floor, next) }
    }

    /// The largest of all.
    pub(crate) fn maximum(&self, lines: &[Line]) -> i64 {
        // SAFETY: as for `merge`: `of` asked the CPU for the features of `maximum`, which has no other precondition.
        unsafe { (self.maximum)(lines) }
    }
}
