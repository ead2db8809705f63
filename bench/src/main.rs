//! `holdfast-bench`: see [`holdfast_bench::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    holdfast_bench::cli::run()
}
