//! Every target: its corpus, then a fixed number of inputs from a fixed seed.

use holdfast_fuzz::{engine, targets};

/// Changed when the inputs of all targets are to be others.
const SEED: u64 = 0x001e_a5e0;

fn check(name: &str) {
    let target = targets::find(name).expect("a target of that name");
    let corpus = engine::replay(target).unwrap_or_else(|why| panic!("{why}"));
    let searched = engine::search(target, &corpus, SEED, 0..target.iterations);
    searched.unwrap_or_else(|why| panic!("{why}"));
    println!(
        "{name}: {} of the corpus, {} made",
        corpus.len(),
        target.iterations
    );
}

/// One test for each target, and one that none was forgotten.
macro_rules! targets {
    ($($name:ident),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )+

        #[test]
        fn every_target_is_tested_and_every_corpus_has_one() {
            let tested = [$(stringify!($name)),+];
            assert!(targets::TARGETS.iter().map(|target| target.name).eq(tested));
            let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
            for directory in std::fs::read_dir(corpus).unwrap() {
                let name = directory.unwrap().file_name();
                assert!(tested.iter().any(|t| **t == *name), "{name:?} is no target");
            }
        }
    };
}

targets!(core, head, frames, config, admin, hook, join);
