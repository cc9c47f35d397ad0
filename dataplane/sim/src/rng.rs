//! The only source of chance: one seed, and a stream per subsystem, so that a draw in one does not shift the others.

/// splitmix64 (Steele, Lea, Flood 2014), one stream.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream `name` of a seed.
    #[must_use]
    pub fn stream(seed: u64, name: &str) -> Self {
        let mut rng = Self(seed ^ 0x6a09_e667_f3bc_c908);
        for byte in name.bytes() {
            rng.0 = rng.draw() ^ u64::from(byte);
        }
        rng
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `end` - 1; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.draw() % end }
    }

    /// A number from `from` to `to` - 1.
    pub fn range(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from))
    }

    /// True in `odds` of 1,000 cases.
    pub fn permille(&mut self, odds: u64) -> bool {
        self.below(1000) < odds
    }

    /// One of the items.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }
}
