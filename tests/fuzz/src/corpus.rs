//! The committed inputs of a target: one file each, seeds and former findings alike.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One input of a corpus.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its file.
    pub path: PathBuf,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// Where the inputs of the target of that name lie.
#[must_use]
pub fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name)
}

/// All inputs in a directory, by file name, so that the order is the same everywhere.
///
/// # Errors
/// The directory or a file in it cannot be read, or there is none: a target without a corpus
/// tests next to nothing, so that is never passed over.
pub fn load(directory: &Path) -> Result<Vec<Entry>, String> {
    let unreadable = |path: &Path, error: &io::Error| format!("{}: {error}", path.display());
    let mut entries = Vec::new();
    for file in fs::read_dir(directory).map_err(|error| unreadable(directory, &error))? {
        let path = file.map_err(|error| unreadable(directory, &error))?.path();
        let bytes = fs::read(&path).map_err(|error| unreadable(&path, &error))?;
        entries.push(Entry { path, bytes });
    }
    if entries.is_empty() {
        return Err(format!("{}: the corpus is empty", directory.display()));
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// Keeps an input that failed, under a name made of its content.
///
/// # Errors
/// The file cannot be written.
pub fn keep(directory: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let path = directory.join(format!("found-{:016x}", fingerprint(bytes)));
    fs::write(&path, bytes)?;
    Ok(path)
}

/// FNV-1a: the same in every process and version.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
