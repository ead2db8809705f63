//! Those who come uninvited: rivals, thieves, one-shot commands, and clients that make no sense.

use crate::client::{After, Client, Parting};
use crate::link::Up;
use crate::plan::{Do, Persona};
use crate::rng::Rng;
use crate::said::{self};
use crate::town::{Identity, Kind};
use crate::world::World;
use holdfast_core::input::Closing;
use holdfast_core::rows::Priority;
use serde_json::json;

impl World {
    pub(crate) fn extra(persona: Persona) -> Client {
        let mut client = Client::new(persona);
        client.extra = true;
        client.persona.stays = false;
        client
    }

    pub(crate) fn intrude(&mut self, what: Do, rng: &mut Rng) {
        let model = self.someone(rng);
        let persona = self.plan.personas[model].clone();
        let number = u16::try_from(self.clients.len() % 300).unwrap_or(0);
        match what {
            Do::Rivals => {
                let mut rival = Self::extra(persona);
                rival.persona.stays = rng.chance(600);
                rival.hasty = true;
                for _ in 0..rng.below(3) {
                    let req = rival.request_id();
                    let list = json!({"type": "list_peers"});
                    rival
                        .script
                        .push(said::plain(list, Some("peers_list"), &req));
                }
                self.add_client(rival, 0);
            }
            Do::OneShot => self.one_shot(persona, number, rng),
            Do::ForeignClaim => {
                let stranger = rng.index(self.plan.town.members.len());
                let kind = if rng.chance(700) {
                    Kind::ThrowAway
                } else {
                    Kind::Launched
                };
                let key = persona.who.key.or(Some(300));
                let who = Identity {
                    member: stranger,
                    kind,
                    key,
                    session_id: format!("thief-{number}"),
                };
                let mut thief = Self::extra(Persona { who, ..persona });
                thief.persona.stays = rng.chance(400);
                self.add_client(thief, 0);
            }
            Do::SameSessionId => {
                let other = rng.index(self.plan.town.members.len());
                let member = if rng.chance(500) {
                    persona.who.member
                } else {
                    other
                };
                let kind = [Kind::Launched, Kind::ThrowAway, Kind::Member][rng.index(3)];
                let key = (kind != Kind::Member).then_some(400 + number);
                let who = Identity {
                    member,
                    kind,
                    key,
                    ..persona.who.clone()
                };
                let client = Self::extra(Persona { who, ..persona });
                self.add_client(client, 0);
            }
            Do::ReplayHello => {
                let stolen = self.links.iter().rev().filter(|link| link.client == model);
                let stolen = stolen.filter_map(|link| link.hello_frame.clone()).next();
                let mut thief = Self::extra(persona);
                thief.stolen = stolen;
                self.add_client(thief, rng.below(4));
            }
            Do::BadHello => {
                let mut client = Self::extra(persona);
                let wrongs = ["bad_signature", "malformed", "timestamp_skew"];
                client.wrong = Some(wrongs[rng.index(3)]);
                let launched = client.persona.who.kind == Kind::Launched;
                if client.wrong == Some("bad_signature") && launched && rng.chance(500) {
                    client.wrong = Some("bad_attestation");
                }
                if client.wrong == Some("timestamp_skew") {
                    // Right but for the clock, which may be the broker's fault.
                    client.wrong = None;
                    client.persona.skew = if rng.chance(500) { 400_000 } else { -400_000 };
                }
                self.add_client(client, 0);
            }
            _ => self.hostile(persona, model, rng),
        }
    }

    /// A command: it connects, asks something, and goes right after the last frame.
    pub(crate) fn one_shot(&mut self, persona: Persona, number: u16, rng: &mut Rng) {
        // In a launched session it has that session's id.
        let session_id = if rng.chance(500) {
            persona.who.session_id.clone()
        } else {
            format!("cli-{number}")
        };
        let who = Identity {
            member: persona.who.member,
            kind: Kind::ThrowAway,
            key: Some(500 + number),
            session_id,
        };
        let mut client = Self::extra(Persona {
            who,
            acks: false,
            lease: None,
            ..persona
        });
        for _ in 0..rng.below(3) {
            let req = client.request_id();
            let frame = if rng.chance(500) {
                self.question(rng, &req)
            } else {
                let target = self.target(rng, 0);
                self.message(rng, target, Priority::Next, 0)
            };
            client.script.push(frame);
        }
        let how = [
            Parting::Clean,
            Parting::Clean,
            Parting::Cut,
            Parting::Vanish,
        ][rng.index(4)];
        client.after = After::Part(how);
        self.add_client(client, 0);
    }

    pub(crate) fn hostile(&mut self, persona: Persona, model: usize, rng: &mut Rng) {
        let long = "[".repeat(5_000);
        let texts = [
            "",
            "{",
            "[]",
            "null",
            "42",
            "\"hello\"",
            "{\"type\":7}",
            "{\"type\":\"hello\"",
            &long,
            "{\"type\":\"nonsense\"}",
            "{\"type\":\"send\"}",
            "\u{0}",
        ];
        if rng.chance(500)
            && let Some(link) = self.clients[model].link
            && self.clients[model].joined
        {
            let text = *rng.pick(&texts);
            let mut frame = said::noise(text);
            if text == "{\"type\":\"send\"}" {
                frame.expect = said::Expect::SendAck(String::new());
            }
            return self.send_up(
                link,
                if rng.chance(200) {
                    Up::Binary
                } else {
                    Up::Frame(frame)
                },
            );
        }
        let mut client = Self::extra(persona);
        let count = rng.between(0, 3);
        let mut raw: Vec<Up> = (0..count)
            .map(|_| match rng.below(6) {
                0 => Up::Binary,
                1 => Up::Ping,
                2 => Up::Pong(vec![0; 8]),
                _ => {
                    let text = *rng.pick(&texts);
                    // Only the two hellos are read before a hello.
                    let text = if text == "{\"type\":\"send\"}" {
                        "{}"
                    } else {
                        text
                    };
                    Up::Frame(said::noise(text))
                }
            })
            .collect();
        if rng.chance(500) {
            raw.push(Up::End(if rng.chance(500) {
                Closing::Clean
            } else {
                Closing::Abrupt
            }));
        }
        client.raw = Some(raw);
        self.add_client(client, 0);
    }
}
