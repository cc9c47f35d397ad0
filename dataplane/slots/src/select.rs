//! The kernels as text: what is done with the lanes of whole cache lines, whatever an instruction set calls the operations.
//!
//! [`kernels!`] is expanded in a module that has `Vector` (one line of the cache) and `load`, `store`, `splat`, `max`, `min`, `grow`
//! and `differ` on it, once per instruction set. (Of a generic function over arrays the compiler makes gathers and scalar moves, and
//! a trait's methods cannot be compiled with the features of an instruction set.)
//!
//! The k-th largest comes from a selection network, a fixed sequence of compare-exchanges: no branch depends on a length. A network
//! sorts every input, and the compiler drops what does not lead to the one rank that is asked for. Source: Knuth, The Art of
//! Computer Programming 3, 5.3.4; sizes are optimal (3, 5, 9, 12, 16 for 3 to 7). The median of five is done with ten operations
//! instead of the network's fourteen.

/// The functions of one instruction set; `$features` are those that they are compiled with.
macro_rules! kernels {
    ($($features:literal)?) => {
        /// Merges the groups that `columns.dirty` marks: per lane and segment the `K`-th largest length of `R` replicas, or the
        /// floor if that is larger.
        $(#[target_feature(enable = $features)])?
        pub(in crate::kernel) fn merge<const R: usize, const K: usize>(columns: &mut Columns) -> Found {
            let (replicas, _) = columns.lens.as_chunks::<R>();
            let (lens, _) = replicas.as_chunks::<R>();
            let (floor, _) = columns.floor.as_chunks::<R>();
            let (next, _) = columns.next.as_chunks_mut::<R>();
            let mut segments = 0;
            let mut growth = splat(0);
            for at in 0..columns.dirty.len() {
                let mut groups = columns.dirty[at];
                columns.dirty[at] = 0;
                columns.changed_groups[at] |= groups;
                while groups != 0 {
                    // A run of neighbours: all of a busy table, one of a quiet one.
                    let first = groups.trailing_zeros();
                    let count = (groups >> first).trailing_ones();
                    groups &= u64::MAX.checked_shl(first + count).unwrap_or(0);
                    let (first, count) = (at * 64 + first as usize, count as usize);
                    let run = first..first + count;
                    // Slices of one length: no index below is checked. (An iterator over all of them is not inlined here.)
                    let (lens, floor) = (&lens[run.clone()], &floor[run.clone()]);
                    let (next, changed) = (&mut next[run.clone()], &mut columns.changed[run]);
                    for group in 0..count {
                        let (lens, floor, next) = (&lens[group], &floor[group], &mut next[group]);
                        let mut bits = 0;
                        for segment in 0..R {
                            let mut of = [splat(0); R];
                            for replica in 0..R {
                                of[replica] = load(&lens[replica][segment]);
                            }
                            let before = load(&floor[segment]);
                            let after = max(kth_largest::<R, K>(of), before);
                            store(after, &mut next[segment]);
                            growth = grow(growth, after, before);
                            bits |= differ(after, before) << (LANES * segment);
                        }
                        changed[group] = bits;
                        segments += u64::from(bits.count_ones());
                    }
                }
            }
            let mut lanes = Line([0; LANES]);
            store(growth, &mut lanes);
            let sum = |sum: u64, lane: &i64| sum.wrapping_add(lane.cast_unsigned());
            Found {
                segments,
                growth: lanes.0.iter().fold(0, sum),
            }
        }

        /// The `K`-th largest of `R` vectors, lane by lane, `K` from 1.
        $(#[target_feature(enable = $features)])?
        #[inline]
        fn kth_largest<const R: usize, const K: usize>(mut v: [Vector; R]) -> Vector {
            const {
                assert!(1 <= K && K <= R && R <= 7);
            }
            if K == 1 || K == R {
                let mut end = v[0];
                for at in 1..R {
                    end = if K == 1 { max(end, v[at]) } else { min(end, v[at]) };
                }
                return end;
            }
            match R {
                3 => exchange!(v: 0 2, 0 1, 1 2),
                4 => exchange!(v: 0 2, 1 3, 0 1, 2 3, 1 2),
                5 if K == 3 => {
                    // Neither the smallest of two pairs nor the largest is the median of the five: it is that of the other three.
                    let low = max(min(v[0], v[1]), min(v[2], v[3]));
                    let high = min(max(v[0], v[1]), max(v[2], v[3]));
                    return max(min(max(low, high), v[4]), min(low, high));
                }
                5 => exchange!(v: 0 3, 1 4, 0 2, 1 3, 0 1, 2 4, 1 2, 3 4, 2 3),
                6 => exchange!(v: 0 5, 1 3, 2 4, 1 2, 3 4, 0 3, 2 5, 0 1, 2 3, 4 5, 1 2, 3 4),
                _ => {
                    exchange!(v: 0 6, 2 3, 4 5, 0 2, 1 4, 3 6, 0 1, 2 5, 3 4);
                    exchange!(v: 1 2, 4 6, 2 3, 4 5, 1 2, 3 4, 5 6);
                }
            }
            v[K - 1]
        }

        /// The limit of [`Limit::streaming_max`](crate::Limit::streaming_max): lane by lane the largest of floor and lengths.
        $(#[target_feature(enable = $features)])?
        pub(in crate::kernel) fn maxima<const R: usize>(lens: &[Line], floor: &[Line], next: &mut [Line]) {
            let (replicas, _) = lens.as_chunks::<R>();
            let (lens, _) = replicas.as_chunks::<R>();
            let (floor, _) = floor.as_chunks::<R>();
            let (next, _) = next.as_chunks_mut::<R>();
            let count = lens.len();
            let (floor, next) = (&floor[..count], &mut next[..count]);
            for group in 0..count {
                let (lens, floor, next) = (&lens[group], &floor[group], &mut next[group]);
                for segment in 0..R {
                    let mut most = load(&floor[segment]);
                    for replica in 0..R {
                        most = max(most, load(&lens[replica][segment]));
                    }
                    store(most, &mut next[segment]);
                }
            }
        }

        /// The limit of [`Limit::scan`](crate::Limit::scan): the largest of all. Four lines at once, so that no maximum waits
        /// for the one before.
        $(#[target_feature(enable = $features)])?
        pub(in crate::kernel) fn maximum(lines: &[Line]) -> i64 {
            let mut most = [splat(i64::MIN); 4];
            let (fours, rest) = lines.as_chunks::<4>();
            for four in fours {
                for at in 0..4 {
                    most[at] = max(most[at], load(&four[at]));
                }
            }
            for line in rest {
                most[0] = max(most[0], load(line));
            }
            let mut lanes = Line([0; LANES]);
            store(max(max(most[0], most[1]), max(most[2], most[3])), &mut lanes);
            lanes.0.into_iter().fold(i64::MIN, i64::max)
        }
    };
}

/// Puts the larger of each pair of places first.
macro_rules! exchange {
    ($v:ident: $($a:literal $b:literal),+) => {
        {
            $(($v[$a], $v[$b]) = (max($v[$a], $v[$b]), min($v[$a], $v[$b]));)+
        }
    };
}

pub(crate) use {exchange, kernels};

/// The `k`-th largest in the obvious way.
pub(crate) fn kth_largest_of(values: &mut [i64], k: usize) -> i64 {
    values.sort_unstable_by(|a, b| b.cmp(a));
    values[k - 1]
}
