//! The operations of the kernels in what every CPU of an architecture has: plain numbers, and what the compiler makes of them.

use std::array;

use super::Found;
use crate::columns::{Columns, LANES, Line};
use crate::select::{exchange, kernels};

type Vector = [i64; LANES];

#[inline(always)]
fn load(line: &Line) -> Vector {
    line.0
}

#[inline(always)]
fn store(vector: Vector, line: &mut Line) {
    line.0 = vector;
}

#[inline(always)]
fn splat(value: i64) -> Vector {
    [value; LANES]
}

#[inline(always)]
fn max(a: Vector, b: Vector) -> Vector {
    array::from_fn(|lane| a[lane].max(b[lane]))
}

#[inline(always)]
fn min(a: Vector, b: Vector) -> Vector {
    array::from_fn(|lane| a[lane].min(b[lane]))
}

/// `sum + (after - before)`, wrapping.
#[inline(always)]
fn grow(sum: Vector, after: Vector, before: Vector) -> Vector {
    array::from_fn(|lane| sum[lane].wrapping_add(after[lane].wrapping_sub(before[lane])))
}

/// A bit per lane that differs.
#[inline(always)]
fn differ(a: Vector, b: Vector) -> u64 {
    let bit = |lane: usize| u64::from(a[lane] != b[lane]) << lane;
    (0..LANES).fold(0, |bits, lane| bits | bit(lane))
}

kernels!();
