//! The operations of the kernels in AVX2 and in AVX-512.
//!
//! # Safety model
//!
//! Functions compiled with an instruction set are called by each other, and from outside by [`Kernel`](super::Kernel) alone,
//! which asks the CPU first. What is asked and what the compiler may use must be the same list: each stands below once, side by
//! side. Memory is touched by `load` and `store` only, through references to whole lines.

/// Whether the CPU has what [`avx2`] is compiled with.
pub(super) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}

/// Whether the CPU has what [`avx512`] is compiled with.
pub(super) fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw")
}

pub(super) mod avx2 {
    //! Two registers of four lengths each.

    use std::arch::x86_64::{
        __m256i, _mm256_add_epi64, _mm256_blendv_epi8, _mm256_castsi256_pd, _mm256_cmpeq_epi64,
        _mm256_cmpgt_epi64, _mm256_load_si256, _mm256_movemask_pd, _mm256_set1_epi64x,
        _mm256_store_si256, _mm256_sub_epi64,
    };

    use super::super::Found;
    use crate::columns::{Columns, LANES, Line};
    use crate::select::{exchange, kernels};

    type Vector = (__m256i, __m256i);

    #[target_feature(enable = "avx2")]
    #[inline]
    fn load(line: &Line) -> Vector {
        let (low, high) = line.0.split_at(LANES / 2);
        let (low, high) = (low.as_ptr().cast(), high.as_ptr().cast());
        // SAFETY: `low` is four lengths of a borrowed line, 32 bytes, and at its beginning, so aligned to 64.
        let low = unsafe { _mm256_load_si256(low) };
        // SAFETY: `high` is the other four, 32 bytes, aligned to 32 since the line is to 64.
        let high = unsafe { _mm256_load_si256(high) };
        (low, high)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn store(vector: Vector, line: &mut Line) {
        let (low, high) = line.0.split_at_mut(LANES / 2);
        let (low, high) = (low.as_mut_ptr().cast(), high.as_mut_ptr().cast());
        // SAFETY: `low` is four lengths of a line borrowed for writing, 32 bytes, and at its beginning, so aligned to 64.
        unsafe { _mm256_store_si256(low, vector.0) };
        // SAFETY: `high` is the other four, 32 bytes, aligned to 32 since the line is to 64.
        unsafe { _mm256_store_si256(high, vector.1) };
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn splat(value: i64) -> Vector {
        (_mm256_set1_epi64x(value), _mm256_set1_epi64x(value))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn max(a: Vector, b: Vector) -> Vector {
        let half = |a, b| _mm256_blendv_epi8(b, a, _mm256_cmpgt_epi64(a, b));
        (half(a.0, b.0), half(a.1, b.1))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn min(a: Vector, b: Vector) -> Vector {
        let half = |a, b| _mm256_blendv_epi8(a, b, _mm256_cmpgt_epi64(a, b));
        (half(a.0, b.0), half(a.1, b.1))
    }

    /// `sum + (after - before)`, wrapping.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn grow(sum: Vector, after: Vector, before: Vector) -> Vector {
        let half = |sum, after, before| _mm256_add_epi64(sum, _mm256_sub_epi64(after, before));
        (
            half(sum.0, after.0, before.0),
            half(sum.1, after.1, before.1),
        )
    }

    /// A bit per lane that differs.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn differ(a: Vector, b: Vector) -> u64 {
        let equal = |a, b| _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(a, b)));
        let equal = equal(a.0, b.0) | equal(a.1, b.1) << (LANES / 2);
        u64::from(!equal.cast_unsigned() as u8)
    }

    kernels!("avx2,bmi1,bmi2,lzcnt,popcnt");
}

pub(super) mod avx512 {
    //! One register of eight lengths.

    use std::arch::x86_64::{
        __m512i, _mm512_add_epi64, _mm512_cmpneq_epi64_mask, _mm512_load_si512, _mm512_max_epi64,
        _mm512_min_epi64, _mm512_set1_epi64, _mm512_store_si512, _mm512_sub_epi64,
    };

    use super::super::Found;
    use crate::columns::{Columns, LANES, Line};
    use crate::select::{exchange, kernels};

    type Vector = __m512i;

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load(line: &Line) -> Vector {
        // SAFETY: a borrowed line is 64 bytes, aligned to 64.
        unsafe { _mm512_load_si512(line.0.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn store(vector: Vector, line: &mut Line) {
        // SAFETY: a line borrowed for writing is 64 bytes, aligned to 64.
        unsafe { _mm512_store_si512(line.0.as_mut_ptr().cast(), vector) };
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn splat(value: i64) -> Vector {
        _mm512_set1_epi64(value)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn max(a: Vector, b: Vector) -> Vector {
        _mm512_max_epi64(a, b)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn min(a: Vector, b: Vector) -> Vector {
        _mm512_min_epi64(a, b)
    }

    /// `sum + (after - before)`, wrapping.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn grow(sum: Vector, after: Vector, before: Vector) -> Vector {
        _mm512_add_epi64(sum, _mm512_sub_epi64(after, before))
    }

    /// A bit per lane that differs.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn differ(a: Vector, b: Vector) -> u64 {
        u64::from(_mm512_cmpneq_epi64_mask(a, b))
    }

    kernels!("avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512vl,avx512dq,avx512bw");
}
