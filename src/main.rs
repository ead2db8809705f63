//! Parse, load config, run, exit code; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    holdfast::cli::main(std::env::args_os())
}
