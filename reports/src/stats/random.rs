//! A random sequence that a seed determines, so that an interval is the same on every machine and in every year.

/// `SplitMix64` (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014). Ten lines kept here
/// instead of a crate: a report made again from its run must show the same digits, whatever a crate's next version does.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A whole number below `bound`; 0 for a bound of 0. The high half of a 128-bit product (Lemire 2019): its bias, under
    /// `bound` in 2^64, is far below what 10,000 draws could show.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        // The reference implementation, https://prng.di.unimi.it/splitmix64.c, with x = 1234567 (also on Rosetta Code).
        let mut random = Random::new(1_234_567);
        let first: Vec<u64> = (0..5).map(|_| random.next_u64()).collect();
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(first, published);
    }

    #[test]
    fn every_face_of_a_die_comes_up_about_equally_often() {
        let mut random = Random::new(6);
        let mut faces = [0_u32; 6];
        (0..60_000).for_each(|_| faces[random.below(6)] += 1);
        // Six standard deviations of a binomial(60000, 1/6) are 548.
        assert!(faces.iter().all(|count| count.abs_diff(10_000) < 548), "{faces:?}");
    }
}
