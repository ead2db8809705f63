//! The interpreters the clients need: found, and their packages installed once if they are not.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// In which language a client is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Language {
    /// With the `ws` package.
    Node,
    /// With the `websockets` package.
    Python,
}

impl Language {
    /// The command that runs scenario `name`; None, after saying so, where the interpreter is
    /// missing. With `CI=true` that is a failure.
    pub(crate) fn command(self, name: &str) -> Option<Command> {
        static INSTALLED: OnceLock<()> = OnceLock::new();
        INSTALLED.get_or_init(install);
        let (program, packages, file) = match self {
            Self::Node => (
                PathBuf::from("node"),
                folder().join("node_modules/ws"),
                format!("node/{name}.mjs"),
            ),
            Self::Python => {
                let python = folder().join(".venv/bin/python");
                (python.clone(), python, format!("python/{name}.py"))
            }
        };
        if !packages.exists() || !runs(&program) {
            println!("skip {name}: {self:?} is not installed");
            return None;
        }
        let mut command = Command::new(program);
        command
            .arg(folder().join(file))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        Some(command)
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

fn runs(program: &Path) -> bool {
    let run = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    run.is_ok_and(|status| status.success())
}

/// `scripts/install-test-clients` does nothing where everything is in place, leaves out what has
/// no interpreter, and fails for that with `CI=true`.
fn install() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install-test-clients");
    let done = Command::new(script)
        .status()
        .expect("the install script must start");
    assert!(
        done.success(),
        "the packages of the test clients must be installable"
    );
}
