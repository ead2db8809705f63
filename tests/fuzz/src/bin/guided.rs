//! The targets under libFuzzer, which is led by coverage. `HOLDFAST_FUZZ_TARGET` names the one to
//! run; `scripts/fuzz` builds this with the flags that make coverage and calls it.

#![no_main]

use std::sync::LazyLock;

use holdfast_fuzz::{Rng, Target, targets};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("HOLDFAST_FUZZ_TARGET").expect("HOLDFAST_FUZZ_TARGET names a target");
    targets::find(&name).unwrap_or_else(|| panic!("no target {name:?}"))
});

fuzz_target!(|input: &[u8]| (TARGET.run)(input));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let rng = &mut Rng::with_seed(seed.into());
    if rng.bool() {
        return fuzzer_mutate(data, size, max_size);
    }
    let mut input = data[..size].to_vec();
    (TARGET.mutate)(rng, &mut input);
    input.truncate(max_size);
    data[..input.len()].copy_from_slice(&input);
    input.len()
});
