//! What is fuzzed. Each target says in its module what it checks.

mod admin;
mod config;
mod core;
mod frames;
mod head;
mod hook;
mod join;

use crate::Rng;

/// One thing to fuzz.
#[derive(Debug)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Gives it an input; panics if a property does not hold.
    pub run: fn(&[u8]),
    /// An input from nothing.
    pub generate: fn(&mut Rng) -> Vec<u8>,
    /// A change that knows what inputs look like.
    pub mutate: fn(&mut Rng, &mut Vec<u8>),
    /// Pieces of inputs that are hard to guess.
    pub words: &'static [&'static str],
    /// Longest input, in bytes.
    pub max_len: usize,
    /// Inputs that `cargo test` tries beyond the corpus.
    pub iterations: u64,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "core",
        run: core::run,
        generate: core::generate,
        mutate: core::mutate,
        words: core::WORDS,
        max_len: 8192,
        iterations: 2000,
    },
    Target {
        name: "head",
        run: head::run,
        generate: head::generate,
        mutate: head::mutate,
        words: head::WORDS,
        max_len: 20_000,
        iterations: 2500,
    },
    Target {
        name: "frames",
        run: frames::run,
        generate: frames::generate,
        mutate: frames::mutate,
        words: &[],
        max_len: 4096,
        iterations: 20_000,
    },
    Target {
        name: "config",
        run: config::run,
        generate: config::generate,
        mutate: config::mutate,
        words: config::WORDS,
        max_len: 4096,
        iterations: 5000,
    },
    Target {
        name: "admin",
        run: admin::run,
        generate: admin::generate,
        mutate: admin::mutate,
        words: admin::WORDS,
        max_len: 80_000,
        iterations: 5000,
    },
    Target {
        name: "hook",
        run: hook::run,
        generate: hook::generate,
        mutate: hook::mutate,
        words: hook::WORDS,
        max_len: 4096,
        iterations: 800,
    },
    Target {
        name: "join",
        run: join::run,
        generate: join::generate,
        mutate: join::mutate,
        words: join::WORDS,
        max_len: 4096,
        iterations: 5000,
    },
];

/// The target of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Cuts `bytes` at places drawn from `seed`, into some hundred pieces at most.
fn cut(bytes: &[u8], seed: u64) -> Vec<&[u8]> {
    let mut rng = Rng::with_seed(seed);
    let mut rest = bytes;
    let mut pieces = Vec::new();
    let longest = [1, 3, 16, 200, 5000][rng.usize(..5)].max(bytes.len() / 50);
    while !rest.is_empty() {
        let (piece, left) = rest.split_at(rng.usize(1..=longest).min(rest.len()));
        pieces.push(piece);
        rest = left;
    }
    pieces
}
