//! `share_skill`, `get_skill`, `list_skills`, `remove_skill` (protocol.md §20).

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Asker, Listed, Then as Any, list, name, optional};
use crate::limits::{LIST_ROWS, RECORD_TEXT_BYTES_MAX, SKILLS_MAX, TEXT_BYTES_MAX};
use crate::rows::{RecordAnswer, RecordAsk, Skill};
use crate::shard::{Shard, Turn};
use crate::time::Wall;
use crate::verbs::Request;
use crate::wire::FieldError;

/// What is to be made of the store's answer.
#[derive(Debug)]
pub(super) enum Then {
    Shared { name: String },
    Removed { name: String },
    Got,
    Listed,
}

#[derive(Serialize)]
struct Ack<'a> {
    name: &'a str,
    action: &'a str,
}

#[derive(Serialize)]
struct Got<'a> {
    skill: Option<Whole<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Whole<'a> {
    name: &'a str,
    description: &'a str,
    instructions: &'a str,
    tags: &'a [String],
    author: &'a str,
    manifest: Option<&'a RawValue>,
    created_at: Wall,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Short<'a> {
    name: &'a str,
    description: &'a str,
    tags: &'a [String],
    author: &'a str,
    created_at: Wall,
}

impl Shard {
    pub(crate) fn share_skill(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let fields = request.fields;
        let name = name(fields, "name")?.into_owned();
        let description = fields.str("description", TEXT_BYTES_MAX)?.into_owned();
        let instructions = fields.str("instructions", RECORD_TEXT_BYTES_MAX)?;
        let manifest = fields.object("manifest", RECORD_TEXT_BYTES_MAX)?;
        let tags = list(fields, "tags")?;
        let Some(who) = self.who(request.slot) else {
            return Ok(());
        };
        let skill = Skill {
            id: self.mint.record_id(),
            name: name.clone(),
            description,
            instructions: instructions.into_owned(),
            tags,
            member_id: who.member_id,
            author: who.name,
            manifest: manifest.map(str::to_owned),
            created_at: t.now.wall,
            updated_at: t.now.wall,
        };
        let then = Any::Skill(Then::Shared { name });
        self.ask_records(t, request, RecordAsk::ShareSkill(skill), then);
        Ok(())
    }

    pub(crate) fn get_skill(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let name = name(request.fields, "name")?.into_owned();
        self.ask_records(
            t,
            request,
            RecordAsk::GetSkill { name },
            Any::Skill(Then::Got),
        );
        Ok(())
    }

    pub(crate) fn list_skills(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let text = optional(request.fields, "query", TEXT_BYTES_MAX)?;
        let ask = RecordAsk::ListSkills {
            text: text.filter(|text| !text.is_empty()),
            limit: LIST_ROWS,
        };
        self.ask_records(t, request, ask, Any::Skill(Then::Listed));
        Ok(())
    }

    pub(crate) fn remove_skill(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let name = name(request.fields, "name")?.into_owned();
        let then = Any::Skill(Then::Removed { name: name.clone() });
        self.ask_records(t, request, RecordAsk::RemoveSkill { name }, then);
        Ok(())
    }
}

pub(super) fn answered(by: &Asker<'_>, then: Then, answer: RecordAnswer) -> Option<Bytes> {
    let ack = |name: &str, action| Some(by.reply("skill_ack", Ack { name, action }));
    match (then, answer) {
        (Then::Shared { name }, RecordAnswer::Written) => ack(&name, "shared"),
        (Then::Shared { .. }, RecordAnswer::Full) => Some(by.full(SKILLS_MAX, "skills")),
        (Then::Removed { name }, RecordAnswer::Written) => ack(&name, "removed"),
        (Then::Removed { name }, RecordAnswer::Missing) => ack(&name, "not_found"),
        (Then::Got, RecordAnswer::Skills(skills)) => {
            let skill = skills.first().map(whole);
            Some(by.reply("skill_data", Got { skill }))
        }
        (Then::Listed, RecordAnswer::Skills(skills)) => {
            let short = skills.iter().map(|skill| Short {
                name: &skill.name,
                description: &skill.description,
                tags: &skill.tags,
                author: &skill.author,
                created_at: skill.created_at,
            });
            Some(by.reply("skill_list", Listed::new("skills", short)))
        }
        (Then::Shared { .. } | Then::Removed { .. } | Then::Got | Then::Listed, _) => None,
    }
}

fn whole(skill: &Skill) -> Whole<'_> {
    let manifest = skill.manifest.as_deref();
    Whole {
        name: &skill.name,
        description: &skill.description,
        instructions: &skill.instructions,
        tags: &skill.tags,
        author: &skill.author,
        manifest: manifest.and_then(|text| serde_json::from_str(text).ok()),
        created_at: skill.created_at,
    }
}
