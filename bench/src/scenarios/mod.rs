//! The scenarios, one file each.

pub mod connect;
pub mod dm;
pub mod fanout;
pub mod idle;
pub mod loops;
pub mod mesh100;
pub mod million;
pub mod mixed;
pub mod restart;
pub mod slow;
pub mod soak;
pub mod storm;
mod traffic;

/// The share of each.
fn each(total: f64, count: usize) -> f64 {
    if count == 0 {
        0.0
    } else {
        total / count as f64
    }
}

/// Choices that a seed repeats (splitmix64).
struct Pick(u64);

impl Pick {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, or 0 if that is 0.
    fn below(&mut self, bound: usize) -> usize {
        let high = (u128::from(self.draw()) * bound as u128) >> 64;
        usize::try_from(high).unwrap_or(0)
    }
}
