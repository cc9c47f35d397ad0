//! What was known when: a bound that only rises, asked for by time.

/// Evidence: at this time, this bound was known.
#[derive(Clone, Copy, Debug)]
struct Mark {
    t: u64,
    bound: u64,
    line: u32,
}

/// The greatest bound known before a time. Evidence may come in any order; it is sorted once, before the first question.
#[derive(Clone, Default, Debug)]
pub(crate) struct Frontier {
    marks: Vec<Mark>,
}

impl Frontier {
    /// Adds evidence; what the evidence before it already says is not kept.
    #[inline]
    pub(crate) fn learn(&mut self, t: u64, bound: u64, line: u32) {
        if let Some(last) = self.marks.last()
            && last.t <= t
            && last.bound >= bound
        {
            return;
        }
        self.marks.push(Mark { t, bound, line });
    }

    /// Sorts the evidence. Must come before [`Self::before`].
    pub(crate) fn seal(&mut self) {
        self.marks.sort_by_key(|mark| mark.t);
        let mut best: Option<Mark> = None;
        self.marks.retain(|mark| {
            let higher = best.is_none_or(|best| mark.bound > best.bound);
            if higher {
                best = Some(*mark);
            }
            higher
        });
    }

    /// The greatest bound known strictly before a time, and the line that says it.
    pub(crate) fn before(&self, t: u64) -> Option<(u64, u32)> {
        let after = self.marks.partition_point(|mark| mark.t < t);
        let mark = self.marks[..after].last()?;
        Some((mark.bound, mark.line))
    }

    /// The greatest bound ever known.
    pub(crate) fn top(&self) -> Option<(u64, u32)> {
        self.marks.last().map(|mark| (mark.bound, mark.line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_greatest_strictly_before() {
        let mut frontier = Frontier::default();
        for (t, bound) in [(30, 7), (10, 3), (20, 2), (20, 5), (40, 6)] {
            frontier.learn(t, bound, t as u32);
        }
        frontier.seal();
        assert_eq!(frontier.before(10), None);
        assert_eq!(frontier.before(11), Some((3, 10)));
        assert_eq!(frontier.before(30), Some((5, 20)));
        assert_eq!(frontier.before(100), Some((7, 30)));
        assert_eq!(frontier.top(), Some((7, 30)));
    }
}
