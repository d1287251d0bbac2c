//! Chance that can be repeated.

/// splitmix64: one number of state, so that a copied disk goes on as its original would.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Chance of its own for `seed`: where one seed is used for several things, they must not repeat each other.
    pub(super) fn fork(&mut self, seed: u64) -> Self {
        Self::new(self.draw() ^ seed)
    }

    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "there is no number below zero");
        usize::try_from(self.draw() % bound as u64).expect("it is below a usize")
    }

    pub(super) fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}
