//! The hellos that clients say, and on what they rely.

use std::rc::Rc;

use crate::plan::Persona;
use crate::rng::Rng;
use crate::said::{Frame, HelloSaid};
use crate::world::World;

impl World {
    /// The first hello on a connection: some rely on a resume token, and some of those on one that
    /// is used, or none at all.
    pub(crate) fn hello_with_token(&mut self, client: usize) -> Frame {
        let healed = self.healed;
        let found = &mut self.clients[client];
        let mut rng = Rng::of(self.plan.seed, &[41, client as u64, found.links]);
        let token = match rng.below(10) {
            0..4 => found.tokens.pop(),
            4 if !found.tokens.is_empty() => Some(rng.pick(&found.tokens).clone()),
            5 => found.tokens.last().map(|token| token.replace('7', "8")),
            6 => found.tokens.last().map(|token| token[..20].to_owned()),
            _ => None,
        };
        let unsigned = token.is_some() && found.wrong.is_none() && !healed && rng.chance(500);
        let mut said = self.hello_said(client);
        said.token = token;
        if unsigned {
            said.wrong = Some("bad_signature");
        }
        Rc::new(said).frame(&self.plan.town)
    }

    /// The hello a client says now.
    pub(crate) fn hello_of(&self, client: usize) -> Frame {
        Rc::new(self.hello_said(client)).frame(&self.plan.town)
    }

    fn hello_said(&self, client: usize) -> HelloSaid {
        let found = &self.clients[client];
        let Persona {
            who,
            name,
            groups,
            cwd,
            pid,
            skew,
            ..
        } = &found.persona;
        let timestamp = self.wall() + skew;
        // Attestations are made once and used for hours, or by some for half a minute.
        let brief = Rng::of(self.plan.seed, &[42, client as u64]).chance(200);
        let expires_at = if brief {
            (self.wall() / 30_000 + 2) * 30_000
        } else {
            (timestamp / 3_600_000 + 3) * 3_600_000
        };
        HelloSaid {
            who: who.clone(),
            name: name.clone(),
            groups: groups.clone(),
            cwd: cwd.clone(),
            pid: *pid,
            timestamp,
            expires_at,
            lease: found.persona.lease,
            wrong: found.wrong,
            token: None,
        }
    }
}
