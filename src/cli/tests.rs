//! The command line as a whole: help texts, examples, one-line errors.

use clap::{Arg, Command, CommandFactory};

use super::*;

fn all_commands() -> Vec<(String, Command)> {
    fn walk(path: &str, command: &Command, found: &mut Vec<(String, Command)>) {
        found.push((path.to_owned(), command.clone()));
        for sub in command.get_subcommands() {
            walk(&format!("{path} {}", sub.get_name()), sub, found);
        }
    }
    let mut root = Cli::command();
    root.build();
    let mut found = Vec::new();
    walk("holdfast", &root, &mut found);
    found
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_and_argument_explains_itself() {
    for (path, command) in all_commands() {
        assert!(command.get_about().is_some(), "{path} says nothing");
        assert!(
            command.get_after_long_help().is_some(),
            "{path} has no example"
        );
        let unexplained = |arg: &&Arg| arg.get_help().is_none();
        let silent = command.get_arguments().find(unexplained);
        assert!(silent.is_none(), "{path}: {silent:?} says nothing");
    }
}

/// Lines of help texts that are commands, without what the shell does with them.
fn examples() -> Vec<String> {
    let mut examples = Vec::new();
    for (_, command) in all_commands() {
        let Some(text) = command.get_after_long_help() else {
            continue;
        };
        for line in text.to_string().lines() {
            if let Some(line) = line.strip_prefix("  holdfast ") {
                let line = line.split(" > ").next().unwrap();
                examples.push(format!("holdfast {line}"));
            }
        }
    }
    examples
}

#[test]
fn every_example_parses() {
    let examples = examples();
    assert!(
        examples.len() > 20,
        "only {} examples found",
        examples.len()
    );
    for example in examples {
        let parsed = Cli::try_parse_from(example.split_whitespace());
        assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
    }
}

#[test]
fn every_subcommand_has_an_example_of_its_own() {
    let examples = examples();
    for (path, command) in all_commands() {
        if command.has_subcommands() {
            continue;
        }
        assert!(
            examples.iter().any(|example| example.starts_with(&path)),
            "{path}"
        );
    }
}

#[test]
fn help_fits_a_page_and_holds_no_placeholder_words() {
    for (path, mut command) in all_commands() {
        let help = command.render_long_help().to_string();
        assert!(help.is_ascii(), "{path}: not plain text");
        assert!(!help.to_lowercase().contains("todo"), "{path}");
    }
}

fn complaint(line: &str) -> String {
    let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
    let error = Cli::try_parse_from(&args).unwrap_err();
    let line = usage::one_line(&error, &args);
    assert!(!line.contains('\n') && !line.starts_with("error"), "{line}");
    line
}

#[test]
fn wrong_usage_is_explained_in_one_line() {
    for (line, want) in [
        (
            "holdfast serve --grce 9s",
            "unexpected argument '--grce' found; a similar argument",
        ),
        (
            "holdfast serve --grace 90",
            "with its unit, such as 1500ms, 2s, 90s or 5m; see: holdfast serve",
        ),
        (
            "holdfast serve --threads x",
            "invalid value 'x' for '--threads <N>'",
        ),
        ("holdfast serve --log loud", "[possible values: text, json]"),
        ("holdfast member add team", "not provided: --name <TEXT>"),
        (
            "holdfast frobnicate",
            "unrecognized subcommand 'frobnicate'",
        ),
        (
            "holdfast client-config m --member i --url http://x",
            "ws://HOST:PORT/ws",
        ),
    ] {
        let complaint = complaint(line);
        assert!(complaint.contains(want), "{line}: {complaint}");
    }
}
