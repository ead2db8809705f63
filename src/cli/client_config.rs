//! `holdfast client-config`: what an existing client needs to connect.

use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::{Db, Failure, usage};
use crate::admin::protocol::ClientIdentity;
use crate::admin::{Reply, Request, client};
use crate::core::identity::KeyPair;

/// Print the config.json of a client
///
/// Existing clients read ~/.claudemesh/config.json (or config.json in $CLAUDEMESH_CONFIG_DIR);
/// it holds a secret key, so give it mode 0600. The broker knows the secret keys of mesh owners
/// only: for anybody else pass the one that `member add` printed, else a placeholder is printed
/// in its place.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast client-config team --member alice --url ws://127.0.0.1:7900/ws
  holdfast client-config team --member alice --url wss://broker.example > config.json")]
pub(super) struct ClientConfig {
    /// Slug or id of the mesh
    mesh: String,

    /// The member: its id, key, or name if only one active member of the mesh has it
    #[arg(long, value_name = "ID")]
    member: String,

    /// Where the client reaches the broker: ws://HOST:PORT/ws, or wss:// behind a TLS proxy
    ///
    /// The path is /ws; it is added if left out.
    #[arg(long, value_name = "URL", value_parser = broker_url)]
    url: String,

    /// The member's secret key, 128 hex digits as `member add` printed it
    ///
    /// Better given in the environment variable: other users can read a command line.
    #[arg(
        long,
        env = "HOLDFAST_SECRET_KEY",
        hide_env_values = true,
        value_name = "HEX"
    )]
    secret_key: Option<String>,

    #[command(flatten)]
    db: Db,
}

/// Stands where a secret key is missing; no client takes it for one.
const PLACEHOLDER: &str = "PUT THE 128 HEX DIGITS OF THE SECRET KEY HERE";

/// The file as clients read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfigFile<'a> {
    version: u8,
    display_name: &'a str,
    meshes: [Membership<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Membership<'a> {
    mesh_id: &'a str,
    member_id: &'a str,
    slug: &'a str,
    name: &'a str,
    pubkey: &'a str,
    secret_key: &'a str,
    broker_url: &'a str,
    joined_at: &'a str,
}

impl ClientConfig {
    pub(super) fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let request = Request::ClientConfig {
            mesh: self.mesh,
            member: self.member,
        };
        let Reply::ClientConfig(identity) = client::ask(&self.db.path, &request)? else {
            return Err(Failure::strange_reply());
        };
        if let Some(given) = &self.secret_key {
            check_pair(given, &identity.pubkey)?;
        }
        let secret = self.secret_key.as_ref().or(identity.secret_key.as_ref());
        if secret.is_none() {
            usage::complain(
                "the broker keeps no secret key of this member; pass the one that `member add` \
                 printed with --secret-key, or put it where the placeholder is",
            );
        }
        let secret = secret.map_or(PLACEHOLDER, String::as_str);
        let text = render(&identity, secret, &self.url)?;
        writeln!(out, "{text}")?;
        Ok(())
    }
}

/// The file's text.
pub(super) fn render(
    identity: &ClientIdentity,
    secret: &str,
    url: &str,
) -> Result<String, Failure> {
    let file = ConfigFile {
        version: 1,
        display_name: &identity.member_name,
        meshes: [Membership {
            mesh_id: &identity.mesh_id,
            member_id: &identity.member_id,
            slug: &identity.slug,
            name: &identity.mesh_name,
            pubkey: &identity.pubkey,
            secret_key: secret,
            broker_url: url,
            joined_at: &identity.joined_at,
        }],
    };
    serde_json::to_string_pretty(&file).map_err(|error| Failure::Failed(error.to_string()))
}

/// Refuses a secret key that is not the other half of `pubkey`: the client would be refused with
/// nothing but `bad_signature`.
fn check_pair(secret: &str, pubkey: &str) -> Result<(), Failure> {
    let Some(pair) = KeyPair::from_libsodium_hex(secret) else {
        return Err(Failure::Usage(
            "--secret-key is no secret key: 128 hex digits, seed then public key".to_owned(),
        ));
    };
    if pair.public().to_string() == pubkey {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "--secret-key belongs to {}, but this member's key is {pubkey}",
        pair.public()
    )))
}

/// A URL the clients and the broker agree on.
pub(super) fn broker_url(text: &str) -> Result<String, String> {
    let rest = text
        .strip_prefix("ws://")
        .or_else(|| text.strip_prefix("wss://"))
        .ok_or("write ws://HOST:PORT/ws or wss://HOST/ws")?;
    let (host, path) = rest
        .split_once('/')
        .map_or((rest, ""), |(host, path)| (host, path));
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("the host is missing; write ws://HOST:PORT/ws".to_owned());
    }
    match path {
        "" => Ok(format!("{}/ws", text.trim_end_matches('/'))),
        "ws" => Ok(text.to_owned()),
        other => Err(format!(
            "the broker serves WebSocket at /ws only, not at /{other}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> ClientIdentity {
        ClientIdentity {
            mesh_id: "m".into(),
            slug: "alpha".into(),
            mesh_name: "Alpha".into(),
            member_id: "i".into(),
            member_name: "alice".into(),
            pubkey: KeyPair::from_seed([1; 32]).public().to_string(),
            secret_key: None,
            joined_at: "2026-01-01T00:00:00.000Z".into(),
        }
    }

    #[test]
    fn the_file_is_what_clients_read() {
        let text = render(&identity(), "secret", "ws://h:1/ws").unwrap();
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        let want = serde_json::json!({
            "version": 1,
            "displayName": "alice",
            "meshes": [{
                "meshId": "m", "memberId": "i", "slug": "alpha", "name": "Alpha",
                "pubkey": identity().pubkey, "secretKey": "secret",
                "brokerUrl": "ws://h:1/ws", "joinedAt": "2026-01-01T00:00:00.000Z"
            }]
        });
        assert_eq!(file, want);
    }

    #[test]
    fn urls_end_in_ws() {
        assert_eq!(
            broker_url("ws://127.0.0.1:7900").unwrap(),
            "ws://127.0.0.1:7900/ws"
        );
        assert_eq!(broker_url("wss://h/").unwrap(), "wss://h/ws");
        assert_eq!(broker_url("ws://h:1/ws").unwrap(), "ws://h:1/ws");
        for wrong in [
            "http://h/ws",
            "ws://",
            "ws:///ws",
            "ws://h/other",
            "ws://h/ws/",
            "h:7900",
        ] {
            assert!(broker_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_secret_key_must_be_the_members() {
        let right = KeyPair::from_seed([1; 32]).to_libsodium_hex();
        let other = KeyPair::from_seed([2; 32]).to_libsodium_hex();
        assert!(check_pair(&right, &identity().pubkey).is_ok());
        assert!(matches!(
            check_pair(&other, &identity().pubkey),
            Err(Failure::Usage(_))
        ));
        assert!(matches!(
            check_pair("beef", &identity().pubkey),
            Err(Failure::Usage(_))
        ));
    }
}
