//! `holdfast member`: who may connect to a mesh.

use std::io::Write;

use clap::{Args, Subcommand, ValueEnum};

use super::{Db, Failure, Json, output};
use crate::admin::protocol::Member as MemberLine;
use crate::admin::{Reply, Request, client};

/// Add, list and revoke members of a mesh
///
/// A member is an ed25519 key that may connect to a mesh, under any number of sessions. Changes
/// take effect at once in a running broker.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Member {
    #[command(subcommand)]
    command: MemberCommand,
}

const EXAMPLES: &str = "\
Examples:
  holdfast member add team --name alice
  holdfast member list team
  holdfast member revoke alice
  holdfast member grants alice --peer 8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c --caps dm,broadcast";

#[derive(Debug, Subcommand)]
enum MemberCommand {
    Add(Add),
    List(List),
    Revoke(Revoke),
    Grants(Grants),
}

/// Add a member to a mesh
///
/// Without --pubkey a key pair is made and its secret half printed once: the broker keeps no
/// secret key of a member, so put it into that member's client now (holdfast client-config).
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast member add team --name alice
  holdfast member add team --name alice --role admin --json
  holdfast member add team --name bob --pubkey 8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c

--json prints {\"memberId\",\"meshId\",\"pubkey\",\"secretKey\"}; secretKey (128 hex digits, libsodium
form) only when the pair was made here.")]
struct Add {
    /// Slug or id of the mesh
    mesh: String,

    /// Name other members see
    #[arg(long, value_name = "TEXT")]
    name: String,

    /// The member's ed25519 public key, 64 lower-case hex digits [default: a new pair]
    #[arg(long, value_name = "HEX")]
    pubkey: Option<String>,

    /// What it may do: member, or admin to kick, disconnect, ban and unban [default: member]
    #[arg(
        long,
        value_enum,
        value_name = "ROLE",
        default_value_t = Role::Member,
        hide_default_value = true,
        hide_possible_values = true
    )]
    role: Role,

    #[command(flatten)]
    db: Db,

    #[command(flatten)]
    json: Json,
}

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    Member,
    Admin,
}

/// List the members of a mesh, revoked ones too
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast member list team
  holdfast member list team --json

--json prints an array of {\"memberId\",\"meshId\",\"pubkey\",\"name\",\"role\",\"revokedAt\"?,\"grants\"?}.")]
struct List {
    /// Slug or id of the mesh
    mesh: String,

    #[command(flatten)]
    db: Db,

    #[command(flatten)]
    json: Json,
}

/// End a membership
///
/// Its sessions leave at once (close code 4002) and its key can connect no more. The row is kept,
/// so that the member is told it was removed; add the key again to let it back in.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast member revoke alice")]
struct Revoke {
    /// Id, key, or name if only one active member has it (see: holdfast member list MESH)
    member: String,

    #[command(flatten)]
    db: Db,

    #[command(flatten)]
    json: Json,
}

/// Set what one peer may do to a member
///
/// Capabilities: read, dm, broadcast, state-read, state-write, file-read. The broker enforces dm
/// (direct messages) and broadcast (messages to all and to groups); who is granted nothing else
/// has read, dm, broadcast and state-read.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples (a peer that may only send direct messages; a blocked one; back to the default):
  holdfast member grants alice --peer 8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c --caps dm
  holdfast member grants alice --peer 8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c --caps none
  holdfast member grants alice --peer 8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c --caps default")]
struct Grants {
    /// The member that grants: its id, key, or name if only one active member has it
    member: String,

    /// Member key of the peer it grants to, 64 lower-case hex digits
    #[arg(long, value_name = "KEY")]
    peer: String,

    /// Capabilities separated by commas, or none to block the peer, or default
    #[arg(long, value_name = "CAPS")]
    caps: String,

    #[command(flatten)]
    db: Db,

    #[command(flatten)]
    json: Json,
}

impl Member {
    pub(super) fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        match self.command {
            MemberCommand::Add(command) => command.run(out),
            MemberCommand::List(command) => command.run(out),
            MemberCommand::Revoke(command) => command.run(out),
            MemberCommand::Grants(command) => command.run(out),
        }
    }
}

impl Add {
    fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let request = Request::MemberAdd {
            mesh: self.mesh.clone(),
            name: self.name.clone(),
            pubkey: self.pubkey,
            admin: self.role == Role::Admin,
        };
        let Reply::MemberAdded(member) = client::ask(&self.db.path, &request)? else {
            return Err(Failure::strange_reply());
        };
        if self.json.json {
            return Ok(output::json(out, &member)?);
        }
        writeln!(
            out,
            "member  {} of {}",
            output::plain(&self.name),
            output::plain(&self.mesh)
        )?;
        writeln!(out, "id      {}", member.member_id)?;
        writeln!(out, "pubkey  {}", member.pubkey)?;
        if let Some(secret) = &member.secret_key {
            writeln!(out, "secret  {secret}  (shown once, kept nowhere)")?;
        }
        let secret = member.secret_key.as_deref().unwrap_or("HEX");
        writeln!(out)?;
        writeln!(
            out,
            "Next: holdfast client-config {} --member {} --url ws://127.0.0.1:7900/ws \
             --secret-key {secret}{}",
            output::plain(&self.mesh),
            member.member_id,
            self.db.flag()
        )?;
        Ok(())
    }
}

impl List {
    fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let request = Request::MemberList { mesh: self.mesh };
        let Reply::Members(members) = client::ask(&self.db.path, &request)? else {
            return Err(Failure::strange_reply());
        };
        if self.json.json {
            return Ok(output::json(out, &members)?);
        }
        let rows: Vec<_> = members
            .into_iter()
            .map(|member| {
                [
                    output::plain(&member.name),
                    member.role,
                    member.member_id,
                    member.pubkey,
                    member
                        .revoked_at
                        .map(|at| format!("revoked {at}"))
                        .unwrap_or_default(),
                ]
            })
            .collect();
        Ok(output::table(
            out,
            ["NAME", "ROLE", "ID", "PUBKEY", ""],
            &rows,
        )?)
    }
}

impl Revoke {
    fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let request = Request::MemberRevoke {
            member: self.member,
        };
        let member = changed(&self.db, &request)?;
        if self.json.json {
            return Ok(output::json(out, &member)?);
        }
        let name = output::plain(&member.name);
        writeln!(out, "{name} ({}) is no longer a member", member.member_id)?;
        Ok(())
    }
}

impl Grants {
    fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let caps = match self.caps.as_str() {
            "default" => None,
            "none" | "" => Some(Vec::new()),
            list => Some(list.split(',').map(|cap| cap.trim().to_owned()).collect()),
        };
        let request = Request::MemberGrants {
            member: self.member,
            peer: self.peer.clone(),
            caps,
        };
        let member = changed(&self.db, &request)?;
        if self.json.json {
            return Ok(output::json(out, &member)?);
        }
        let grant = member.grants.iter().find(|grant| grant.peer == self.peer);
        let may = match grant.map(|grant| grant.caps.join(", ")) {
            None => "what is granted by default".to_owned(),
            Some(caps) if caps.is_empty() => "nothing".to_owned(),
            Some(caps) => caps,
        };
        writeln!(
            out,
            "{} now grants {}: {may}",
            output::plain(&member.name),
            self.peer
        )?;
        Ok(())
    }
}

fn changed(db: &Db, request: &Request) -> Result<MemberLine, Failure> {
    let Reply::Member(member) = client::ask(&db.path, request)? else {
        return Err(Failure::strange_reply());
    };
    Ok(member)
}
