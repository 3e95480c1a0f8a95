//! What a full scan has told, without holding it: a Bloom filter.
//!
//! A scan of five million media would need hundreds of megabytes to remember their ids. The filter takes
//! about ten bits for each; its errors are one-sided. It may take a vanished medium for one that was told
//! (about one in a hundred), never the reverse, and since each scan hashes with a seed of its own, the
//! next scan finds what this one overlooked.

use std::hash::{BuildHasher, RandomState};

/// Hash functions: the optimum for ten bits an entry is seven.
const HASHES: u64 = 7;

/// A set of ids that may claim to hold one more than it does.
pub struct Seen {
    bits: Vec<u64>,
    first: RandomState,
    second: RandomState,
}

impl Seen {
    /// A filter for about `expected` ids; 16 KiB at least, 64 MiB at most.
    pub fn new(expected: u64) -> Self {
        let words = (expected.saturating_mul(10) / 64).clamp(2048, 8 << 20);
        Self {
            bits: vec![0; usize::try_from(words).unwrap_or(2048)],
            first: RandomState::new(),
            second: RandomState::new(),
        }
    }

    /// Remembers an id.
    pub fn insert(&mut self, id: &str) {
        for (word, bit) in self.positions(id) {
            if let Some(word) = self.bits.get_mut(word) {
                *word |= bit;
            }
        }
    }

    /// Whether the id may have been inserted; false is certain.
    pub fn may_contain(&self, id: &str) -> bool {
        self.positions(id)
            .into_iter()
            .all(|(word, bit)| self.bits.get(word).is_some_and(|word| word & bit != 0))
    }

    fn positions(&self, id: &str) -> [(usize, u64); HASHES as usize] {
        let (first, second) = (self.first.hash_one(id), self.second.hash_one(id) | 1);
        let bits = (self.bits.len() as u64).saturating_mul(64).max(1);
        std::array::from_fn(|n| {
            // Double hashing (Kirsch and Mitzenmacher, 2006): two hashes stand for seven.
            let bit = first.wrapping_add(second.wrapping_mul(n as u64)) % bits;
            (usize::try_from(bit / 64).unwrap_or(0), 1 << (bit % 64))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_inserted_is_found_and_little_else() {
        let mut seen = Seen::new(100_000);
        for n in 0..100_000 {
            seen.insert(&format!("in-{n}.wav"));
        }
        assert!((0..100_000).all(|n| seen.may_contain(&format!("in-{n}.wav"))));
        let wrong = (0..100_000).filter(|n| seen.may_contain(&format!("out-{n}.wav"))).count();
        assert!(wrong < 3_000, "{wrong} of 100000 were taken for seen");
    }
}
