//! `holdfast audit`: whether the log of what happened is what was written.

use std::io::Write;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Db, Failure, Json, output};
use crate::admin::client::AskError;
use crate::store::verify_audit;

/// Check the audit log of a mesh
///
/// Each mesh has a log of who joined, left, sent, set state and was banned. Every entry holds a
/// hash of itself and of the entry before, so that none can be changed or taken out unnoticed.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast audit verify team")]
pub(super) struct Audit {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    Verify(Verify),
}

/// Compute all hashes of an audit log again
///
/// Reads the database file, beside a running broker too. Exits with 1 if an entry is not what was
/// written, and says which is the first. Entries taken off the end leave no trace in the log: note
/// the number of entries, or the last hash, elsewhere.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast audit verify team
  holdfast audit verify team --json

--json prints {\"meshId\",\"valid\",\"entries\",\"brokenAt\"?}; brokenAt is the number of an entry.")]
struct Verify {
    /// Slug or id of the mesh
    mesh: String,

    #[command(flatten)]
    db: Db,

    #[command(flatten)]
    json: Json,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verified<'a> {
    mesh_id: &'a str,
    valid: bool,
    entries: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken_at: Option<i64>,
}

impl Audit {
    pub(super) fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        match self.command {
            AuditCommand::Verify(command) => command.run(out),
        }
    }
}

impl Verify {
    fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let db = &self.db.path;
        if !db.exists() {
            let db = db.display().to_string();
            return Err(AskError::NoDatabase { db }.into());
        }
        let verified = verify_audit(db, &self.mesh);
        let (mesh, chain) = verified.map_err(|error| Failure::Failed(error.to_string()))?;
        let entries = chain.entries;
        if self.json.json {
            let verified = Verified {
                mesh_id: &mesh.id,
                valid: chain.broken_at.is_none(),
                entries,
                broken_at: chain.broken_at,
            };
            output::json(out, &verified)?;
        } else {
            let name = output::plain(&mesh.slug);
            match chain.broken_at {
                None => writeln!(
                    out,
                    "{name}: all {entries} entries are as they were written"
                )?,
                Some(id) => writeln!(
                    out,
                    "{name}: entry {id} is not what was written, or the one before it is missing; \
                     {entries} entries"
                )?,
            }
        }
        if chain.broken_at.is_some() {
            return Err(Failure::Shown);
        }
        Ok(())
    }
}
