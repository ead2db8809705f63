//! `holdfast mesh`: make and list meshes.

use std::io::Write;

use clap::{Args, Subcommand};

use super::{Db, Failure, Json, output};
use crate::admin::{Reply, Request, client};

/// Make and list meshes
///
/// A mesh is a set of members who see each other and exchange messages; nothing passes from one
/// mesh to another. Making one makes its first member too, the owner, role admin.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Mesh {
    #[command(subcommand)]
    command: MeshCommand,
}

const EXAMPLES: &str = "\
Examples:
  holdfast mesh create team
  holdfast mesh create team --name Engineering --json
  holdfast mesh list";

#[derive(Debug, Subcommand)]
enum MeshCommand {
    Create(Create),
    List(List),
}

/// Make a mesh and its owner
///
/// Prints the owner's key pair. The broker keeps the owner's secret key (invitations are signed
/// with it); nobody else's. A broker running on the database serves the mesh at once.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast mesh create team
  holdfast mesh create team --name Engineering --json

--json prints:
  {\"meshId\",\"slug\",\"name\",\"ownerMemberId\",\"ownerPubkey\",\"ownerSecretKey\"}")]
struct Create {
    /// Short name for commands and clients: letters, digits, '.', '_' and '-'
    slug: String,

    /// Name for people [default: the slug]
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,

    #[command(flatten)]
    db: Db,

    #[command(flatten)]
    json: Json,
}

/// List the meshes of a database
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast mesh list
  holdfast mesh list --json --db /var/lib/holdfast/holdfast.db

--json prints an array of {\"meshId\",\"slug\",\"name\",\"ownerPubkey\",\"createdAt\",\"members\"}.")]
struct List {
    #[command(flatten)]
    db: Db,

    #[command(flatten)]
    json: Json,
}

impl Mesh {
    pub(super) fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        match self.command {
            MeshCommand::Create(command) => command.run(out),
            MeshCommand::List(command) => command.run(out),
        }
    }
}

impl Create {
    fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let request = Request::MeshCreate {
            slug: self.slug,
            name: self.name,
        };
        let Reply::MeshCreated(mesh) = client::ask(&self.db.path, &request)? else {
            return Err(Failure::strange_reply());
        };
        if self.json.json {
            return Ok(output::json(out, &mesh)?);
        }
        writeln!(
            out,
            "mesh    {} ({})",
            output::plain(&mesh.slug),
            output::plain(&mesh.name)
        )?;
        writeln!(out, "id      {}", mesh.mesh_id)?;
        writeln!(out, "owner   {} (member id)", mesh.owner_member_id)?;
        writeln!(out, "pubkey  {}", mesh.owner_pubkey)?;
        writeln!(out, "secret  {}", mesh.owner_secret_key)?;
        writeln!(out)?;
        writeln!(
            out,
            "Next: holdfast member add {} --name NAME{}",
            mesh.slug,
            self.db.flag()
        )?;
        Ok(())
    }
}

impl List {
    fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let Reply::Meshes(meshes) = client::ask(&self.db.path, &Request::MeshList)? else {
            return Err(Failure::strange_reply());
        };
        if self.json.json {
            return Ok(output::json(out, &meshes)?);
        }
        if meshes.is_empty() {
            writeln!(
                out,
                "no mesh yet; make one: holdfast mesh create SLUG{}",
                self.db.flag()
            )?;
            return Ok(());
        }
        let rows: Vec<_> = meshes
            .iter()
            .map(|mesh| {
                let (slug, name) = (output::plain(&mesh.slug), output::plain(&mesh.name));
                [slug, mesh.members.to_string(), mesh.mesh_id.clone(), name]
            })
            .collect();
        Ok(output::table(
            out,
            ["SLUG", "MEMBERS", "ID", "NAME"],
            &rows,
        )?)
    }
}
