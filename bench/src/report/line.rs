//! A report as one line of JSON, and files of such lines.
//!
//! A file collects the runs of one or several scenarios, the newest last.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::Report;

/// Why lines could not be written or read.
#[derive(Debug, Error)]
pub enum LineError {
    /// The file cannot be opened or read.
    #[error("cannot read {}: {source}; give a file that holdfast-bench has written", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The line cannot be written.
    #[error("cannot write {}: {source}; give a file in a folder that is there and not full", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A line is not a report.
    #[error("{}, line {line}: not a report ({}); remove the line or give another file", .path.display(), in_line(.source))]
    Bad {
        /// The file.
        path: PathBuf,
        /// The number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The report cannot be written as JSON.
    #[error("the report of {scenario} is not JSON ({source}); this is a defect of holdfast-bench")]
    Encode {
        /// The scenario.
        scenario: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// JSON has no such number, and a reader would take it for something else.
    #[error("{what} of {scenario} is not a finite number; this is a defect of that scenario")]
    NotFinite {
        /// The scenario.
        scenario: String,
        /// The figure or curve.
        what: String,
    },
}

/// `report` as one line, without its end.
pub fn line(report: &Report) -> Result<String, LineError> {
    let scenario = || report.header.scenario.clone();
    if let Some(what) = not_finite(report) {
        return Err(LineError::NotFinite {
            scenario: scenario(),
            what,
        });
    }
    serde_json::to_string(report).map_err(|source| LineError::Encode {
        scenario: scenario(),
        source,
    })
}

/// Adds `report` at the end of the file at `path`, which is made if it is missing.
pub fn append(path: &Path, report: &Report) -> Result<(), LineError> {
    let line = line(report)?;
    append_line(path, &line).map_err(|source| LineError::Write {
        path: path.to_owned(),
        source,
    })
}

/// All reports of the file at `path`, oldest first. Empty lines are skipped.
pub fn read(path: &Path) -> Result<Vec<Report>, LineError> {
    let bytes = fs::read(path).map_err(|source| LineError::Read {
        path: path.to_owned(),
        source,
    })?;
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    lines
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(i, line)| {
            serde_json::from_slice(line).map_err(|source| LineError::Bad {
                path: path.to_owned(),
                line: i + 1,
                source,
            })
        })
        .collect()
}

/// What is wrong with a line, without the number 1 that it has by itself.
fn in_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(what, _)| what);
    format!("{what}, column {}", error.column())
}

fn append_line(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    // A line that was cut off must not take this one with it.
    let start = if ends_in_newline(&mut file)? {
        ""
    } else {
        "\n"
    };
    file.write_all(format!("{start}{line}\n").as_bytes())
}

/// Whether the next byte begins a line. A pipe or device has no end to look at, and begins one.
fn ends_in_newline(file: &mut fs::File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == [b'\n'])
}

fn not_finite(report: &Report) -> Option<String> {
    let figure = report.figures.iter().find(|figure| {
        !figure.value.is_finite() || figure.floor.is_some_and(|floor| !floor.is_finite())
    });
    let series = report.series.iter().find(|series| {
        series
            .points
            .iter()
            .any(|(x, y)| !x.is_finite() || !y.is_finite())
    });
    figure
        .map(|figure| &figure.name)
        .or_else(|| series.map(|series| &series.name))
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    fn file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        (dir, path)
    }

    #[test]
    fn what_is_appended_is_read_in_order() {
        let (_dir, path) = file();
        let (first, second) = (samples::report("storm"), samples::report("dm"));
        append(&path, &first).unwrap();
        append(&path, &second).unwrap();
        assert_eq!(read(&path).unwrap(), [first, second]);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
    }

    #[test]
    fn a_bad_line_is_named() {
        let (_dir, path) = file();
        append(&path, &samples::report("storm")).unwrap();
        fs::write(
            &path,
            format!("{}\n{{\"header\":1}}\n", fs::read_to_string(&path).unwrap()),
        )
        .unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("a.json, line 3: not a report"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }

    #[test]
    fn bytes_that_are_no_text_are_a_bad_line() {
        let (_dir, path) = file();
        fs::write(&path, b"\xff\xfe\n").unwrap();
        assert!(matches!(
            read(&path).unwrap_err(),
            LineError::Bad { line: 1, .. }
        ));
    }

    #[test]
    fn a_line_cut_off_does_not_spoil_the_next() {
        let (_dir, path) = file();
        fs::write(&path, "{\"header\"").unwrap();
        append(&path, &samples::report("storm")).unwrap();
        assert!(matches!(
            read(&path).unwrap_err(),
            LineError::Bad { line: 1, .. }
        ));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.lines().nth(1).unwrap()).unwrap();
        assert_eq!(read(&path).unwrap(), [samples::report("storm")]);
    }

    #[test]
    fn a_missing_file_and_a_missing_folder_say_what_to_do() {
        let (_dir, path) = file();
        let error = read(&path).unwrap_err().to_string();
        assert!(
            error.contains("a.json") && error.contains("give a file"),
            "{error}"
        );
        let error = append(&path.join("x"), &samples::report("storm"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("folder that is there"), "{error}");
    }

    #[test]
    fn no_number_is_written_that_json_does_not_have() {
        let (_dir, path) = file();
        let mut report = samples::report("storm");
        report.figures[1].floor = Some(f64::NAN);
        let error = append(&path, &report).unwrap_err().to_string();
        assert!(error.contains("CPU per reattach of storm"), "{error}");
        assert!(!path.exists());
        report.figures[1].floor = None;
        report.series[0].points.push((3.0, f64::INFINITY));
        assert!(matches!(line(&report), Err(LineError::NotFinite { .. })));
    }
}
