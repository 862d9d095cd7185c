//! A small repeatable source of randomness: a failed run is repeated by its printed seed.

use std::hash::{BuildHasher, RandomState};

/// SplitMix64 (Steele, Lea, Flood, 2014).
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Starts at `seed`; equal seeds give equal sequences.
    pub fn from_seed(seed: u64) -> Random {
        Random { state: seed }
    }

    /// Starts at a seed of the system's choice.
    pub fn from_system() -> Random {
        Random::from_seed(RandomState::new().hash_one(0))
    }

    /// Starts at `ZNODEFS_SEED` if it is set, else at a seed of the system's choice, and prints it.
    pub fn announced() -> Random {
        let given = std::env::var("ZNODEFS_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
        eprintln!("seed: run again with ZNODEFS_SEED={seed}");
        Random::from_seed(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `start` up to, not including, `end`.
    pub fn between(&mut self, start: u64, end: u64) -> u64 {
        start + self.next_u64() % (end - start)
    }

    /// `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next_u64().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}
