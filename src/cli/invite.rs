//! `holdfast invite`: make, list and revoke invites.

use std::io::Write;

use clap::{Args, Subcommand};

use super::client_config::broker_url;
use super::member::Role;
use super::{Db, Failure, Json, output};
use crate::admin::protocol::Invite as InviteLine;
use crate::admin::{Reply, Request, client};
use crate::config::Span;

/// Invite people to a mesh
///
/// Whoever has an invite makes itself a member with a key of its own:
/// `claudemesh join ic://join/...`. It holds the key that all members of the mesh share, so pass it
/// on as you would a password. Needs a running broker only when somebody joins.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Invite {
    #[command(subcommand)]
    command: InviteCommand,
}

const EXAMPLES: &str = "\
Examples:
  holdfast invite create team
  holdfast invite create team --uses 20 --expires 30d --url wss://broker.example/ws
  holdfast invite list team
  holdfast invite revoke 4Yz0C2bT8mKq1nVw6xLr3sJd9hGf5aPe";

#[derive(Debug, Subcommand)]
enum InviteCommand {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Make an invite and print it
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast invite create team
  holdfast invite create team --role admin --expires 1h
  holdfast invite create team --uses 20 --url wss://broker.example/ws --json

--json prints {\"inviteId\",\"meshId\",\"url\",\"role\",\"uses\",\"used\",\"expiresAt\",\"createdAt\"}.")]
struct Create {
    /// Slug or id of the mesh
    mesh: String,

    /// What those who join may do: member, or admin to kick, disconnect, ban and unban [default:
    /// member]
    #[arg(
        long,
        value_enum,
        value_name = "ROLE",
        default_value_t = Role::Member,
        hide_default_value = true,
        hide_possible_values = true
    )]
    role: Role,

    /// How many may join by it
    #[arg(long, value_name = "N", default_value_t = 1)]
    uses: u32,

    /// How long it holds: 90m, 12h, 7d
    #[arg(long, value_name = "DURATION", default_value = "7d")]
    expires: Span,

    /// Where clients reach the broker: ws://HOST:PORT/ws, or wss:// behind a TLS proxy [default:
    /// where the running broker listens, else ws://127.0.0.1:7900/ws]
    #[arg(long, value_name = "URL", value_parser = broker_url)]
    url: Option<String>,

    #[command(flatten)]
    db: Db,

    #[command(flatten)]
    json: Json,
}

/// List the invites of a mesh, used, expired and revoked ones too
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast invite list team
  holdfast invite list team --json

--json prints an array of what `create` prints, with \"revokedAt\" where it was revoked.")]
struct List {
    /// Slug or id of the mesh
    mesh: String,

    #[command(flatten)]
    db: Db,

    #[command(flatten)]
    json: Json,
}

/// Take an invite back
///
/// Nobody joins by it any more; those who have stay members (see holdfast member revoke).
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast invite revoke 4Yz0C2bT8mKq1nVw6xLr3sJd9hGf5aPe

--json prints what `create` prints, with \"revokedAt\".")]
struct Revoke {
    /// Its id, as `list` prints it
    invite: String,

    #[command(flatten)]
    db: Db,

    #[command(flatten)]
    json: Json,
}

impl Invite {
    pub(super) fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        match self.command {
            InviteCommand::Create(command) => command.run(out),
            InviteCommand::List(command) => command.run(out),
            InviteCommand::Revoke(command) => command.run(out),
        }
    }
}

impl Create {
    fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let request = Request::InviteCreate {
            mesh: self.mesh,
            admin: self.role == Role::Admin,
            uses: self.uses,
            life_ms: self.expires.millis().0,
            broker_url: self.url,
        };
        let invite = changed(&self.db, &request)?;
        if self.json.json {
            return Ok(output::json(out, &invite)?);
        }
        // Alone on its line, to be copied or piped.
        writeln!(out, "{}", invite.url)?;
        Ok(())
    }
}

impl List {
    fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let request = Request::InviteList { mesh: self.mesh };
        let Reply::Invites(invites) = client::ask(&self.db.path, &request)? else {
            return Err(Failure::strange_reply());
        };
        if self.json.json {
            return Ok(output::json(out, &invites)?);
        }
        let rows: Vec<_> = invites.iter().map(row).collect();
        let head = ["ID", "ROLE", "USED", "EXPIRES", ""];
        Ok(output::table(out, head, &rows)?)
    }
}

fn row(invite: &InviteLine) -> [String; 5] {
    let state = match invite.revoked_at {
        Some(_) => "revoked",
        None if invite.used >= invite.uses => "used up",
        None => "",
    };
    [
        invite.invite_id.clone(),
        invite.role.clone(),
        format!("{} of {}", invite.used, invite.uses),
        invite.expires_at.clone(),
        state.to_owned(),
    ]
}

impl Revoke {
    fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let request = Request::InviteRevoke {
            invite: self.invite,
        };
        let invite = changed(&self.db, &request)?;
        if self.json.json {
            return Ok(output::json(out, &invite)?);
        }
        writeln!(out, "nobody joins by {} any more", invite.invite_id)?;
        Ok(())
    }
}

fn changed(db: &Db, request: &Request) -> Result<InviteLine, Failure> {
    let Reply::Invite(invite) = client::ask(&db.path, request)? else {
        return Err(Failure::strange_reply());
    };
    Ok(invite)
}
