//! See the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    holdfast_sim::cli::main()
}
