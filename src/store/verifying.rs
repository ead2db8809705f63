//! Verifying an audit log for an administrator, beside a broker or without one: reads only, on a
//! connection of its own, so that it waits for nobody and holds up no commit.

use std::path::Path;

use super::admin::{self, AdminError};
use super::{OpenError, open, records, schema};
use crate::core::rows::{Chain, MeshRow};

/// Why an audit log cannot be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no such mesh.
    #[error(transparent)]
    Mesh(#[from] AdminError),
}

/// The mesh (id or slug) and what was found of its audit log.
///
/// # Errors
/// If the database, or the mesh in it, cannot be read.
pub fn verify_audit(path: &Path, mesh: &str) -> Result<(MeshRow, Chain), VerifyError> {
    let conn = open::reader(path)?;
    schema::check(&conn, path)?;
    let mesh = admin::find_mesh(&conn, mesh)?;
    let chain = records::verify(&conn, &mesh.id).map_err(OpenError::sqlite(path))?;
    Ok((mesh, chain))
}
