//! Runs targets: one input, a corpus, or a number of inputs made from a seed.
//!
//! Every input of a campaign has random numbers of its own, drawn from the seed and its number, so
//! any one of them can be made again without those before it.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Once;

use crate::corpus::{self, Entry};
use crate::mutate;
use crate::{Rng, Target};

/// Runs spent on making a failing input smaller.
const SHRINK_RUNS: usize = 3000;

thread_local! {
    /// Where the panic of an input being tried goes; None while no input is.
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics of inputs being tried are caught and noted, all others are printed as ever.
fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let noted = CAUGHT.with_borrow_mut(|caught| match caught {
                Some(note) => {
                    *note = info.to_string();
                    true
                }
                None => false,
            });
            if !noted {
                usual(info);
            }
        }));
    });
}

/// Gives one input to a target.
///
/// # Errors
/// What it panicked with, and where.
pub fn attempt(target: &Target, input: &[u8]) -> Result<(), String> {
    install_hook();
    CAUGHT.set(Some(String::new()));
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let note = CAUGHT.take().unwrap_or_default();
    outcome.map_err(|_| note)
}

/// The `number`th input of a seed.
#[must_use]
pub fn input(target: &Target, entries: &[Entry], seed: u64, number: u64) -> Vec<u8> {
    // Mixed, so that neighbouring numbers do not begin alike.
    let mixed = (number ^ seed.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let rng = &mut Rng::with_seed(mixed ^ corpus::fingerprint(target.name.as_bytes()));
    let mut input = match rng.choice(entries) {
        Some(entry) if rng.u8(..4) > 0 => entry.bytes.clone(),
        Some(_) | None => (target.generate)(rng),
    };
    for _ in 0..=rng.u8(..8) {
        if rng.u8(..4) > 0 {
            (target.mutate)(rng, &mut input);
        } else {
            let other = rng.choice(entries).map_or(&[][..], |entry| &entry.bytes);
            mutate::bytes(rng, &mut input, other, target.words);
        }
    }
    input.truncate(target.max_len);
    input
}

/// Replays the whole corpus.
///
/// # Errors
/// The corpus is missing, empty or unreadable, or an input of it fails.
pub fn replay(target: &Target) -> Result<Vec<Entry>, String> {
    let directory = corpus::directory(target.name);
    let entries = corpus::load(&directory)?;
    for entry in &entries {
        attempt(target, &entry.bytes).map_err(|why| {
            let file = entry.path.display();
            format!(
                "{file} fails:\n{why}\n{}",
                how_to_replay(target, &entry.path)
            )
        })?;
    }
    Ok(entries)
}

/// Tries inputs `numbers` of a seed; the first that fails is made smaller and kept in the corpus.
///
/// # Errors
/// An input fails.
pub fn search(
    target: &Target,
    entries: &[Entry],
    seed: u64,
    numbers: std::ops::Range<u64>,
) -> Result<(), String> {
    for number in numbers {
        let input = input(target, entries, seed, number);
        let Err(why) = attempt(target, &input) else {
            continue;
        };
        let small = shrink(target, &input);
        let kept = corpus::keep(&corpus::directory(target.name), &small);
        let place = match &kept {
            Ok(path) => how_to_replay(target, path),
            Err(error) => format!("(the input could not be kept: {error})"),
        };
        let why_small = attempt(target, &small).err().unwrap_or(why);
        return Err(format!(
            "input {number} of seed {seed:#x} fails in target {}:\n{why_small}\n{place}\n\
             again from the seed: scripts/fuzz --plain --seed {seed:#x} --from {number} {}",
            target.name, target.name
        ));
    }
    Ok(())
}

fn how_to_replay(target: &Target, path: &Path) -> String {
    let inside: PathBuf = path.file_name().map(Into::into).unwrap_or_default();
    format!(
        "again: scripts/fuzz --replay tests/fuzz/corpus/{}/{} {}",
        target.name,
        inside.display(),
        target.name
    )
}

/// A smaller input that still fails: pieces are left out, large ones first.
#[must_use]
pub fn shrink(target: &Target, input: &[u8]) -> Vec<u8> {
    let mut best = input.to_vec();
    let mut runs = 0;
    let mut size = best.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < best.len() {
            if runs == SHRINK_RUNS {
                return best;
            }
            let mut shorter = best.clone();
            shorter.drain(at..best.len().min(at + size));
            runs += 1;
            if attempt(target, &shorter).is_err() {
                best = shorter;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    best
}
