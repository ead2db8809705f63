//! Errors of usage, each as one line that says what to do.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Exit code for wrong flags and configuration.
pub(super) const EXIT_USAGE: u8 = 2;

/// Prints `holdfast: why` on standard error.
pub(super) fn complain(why: &str) {
    // With standard error gone there is nobody left to tell; the exit code remains.
    drop(writeln!(io::stderr(), "holdfast: {}", why.trim_end()));
}

/// Prints what clap has to say: help and version as they are, an error as one line.
pub(super) fn explain(error: &clap::Error, args: &[OsString]) -> ExitCode {
    let kind = error.kind();
    if matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        drop(error.print());
        return ExitCode::SUCCESS;
    }
    if kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        drop(error.print());
    } else {
        complain(&one_line(error, args));
    }
    ExitCode::from(EXIT_USAGE)
}

/// clap's paragraphs `error: ...`, `tip: ...` in one line, with where the value came from.
pub(super) fn one_line(error: &clap::Error, args: &[OsString]) -> String {
    let text = error.render().to_string();
    let mut line = String::new();
    for paragraph in text.split("\n\n") {
        let words = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some(what) = words.strip_prefix("error: ") {
            line.push_str(what);
        } else if let Some(tip) = words.strip_prefix("tip: ") {
            line.push_str("; ");
            line.push_str(tip);
        }
    }
    if let Some(variable) = blamed_variable(error, args) {
        line = format!("{line} (from the environment variable {variable})");
    }
    let command: Vec<String> = args
        .iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .skip(1)
        .take_while(|arg| !arg.starts_with('-'))
        .take(1)
        .filter(|arg| arg.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
        .collect();
    let command = command
        .first()
        .map(|name| format!(" {name}"))
        .unwrap_or_default();
    format!("{line}; see: holdfast{command} --help")
}

/// The variable a bad value came from: its flag was not typed.
fn blamed_variable(error: &clap::Error, args: &[OsString]) -> Option<String> {
    if !matches!(
        error.kind(),
        ErrorKind::ValueValidation | ErrorKind::InvalidValue
    ) {
        return None;
    }
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let name = option.split_whitespace().next()?.strip_prefix("--")?;
    let typed = args.iter().filter_map(|arg| arg.to_str()).any(|arg| {
        arg.strip_prefix("--")
            .is_some_and(|rest| rest.split('=').next() == Some(name))
    });
    let variable = format!("HOLDFAST_{}", name.to_uppercase().replace('-', "_"));
    (!typed && std::env::var_os(&variable).is_some()).then_some(variable)
}
