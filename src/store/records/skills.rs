//! Skills, by name.

use rusqlite::{Row, params};

use super::{Kept, changed, list, list_json};
use crate::core::limits::SKILLS_MAX;
use crate::core::rows::{RecordAnswer, Skill};
use crate::store::encode::Fields;

impl Kept<'_> {
    /// Whoever shares a skill that is there replaces it, as the original does.
    pub(super) fn share_skill(&self, skill: &Skill) -> rusqlite::Result<RecordAnswer> {
        let others = "SELECT count(*) FROM skill WHERE mesh_id = ?1 AND name <> ?2";
        let others: i64 = self.value(others, [self.mesh_id, &skill.name])?;
        if usize::try_from(others).unwrap_or(0) >= SKILLS_MAX {
            return Ok(RecordAnswer::Full);
        }
        self.change(
            "INSERT INTO skill (id, mesh_id, name, description, instructions, tags,
                author_member_id, author_name, manifest, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT (mesh_id, name) DO UPDATE SET description = excluded.description,
                instructions = excluded.instructions, tags = excluded.tags,
                author_member_id = excluded.author_member_id, author_name = excluded.author_name,
                manifest = excluded.manifest, updated_at = excluded.updated_at",
            params![
                skill.id,
                self.mesh_id,
                skill.name,
                skill.description,
                skill.instructions,
                list_json(&skill.tags)?,
                skill.member_id,
                skill.author,
                skill.manifest,
                skill.created_at.0,
                skill.updated_at.0,
            ],
        )?;
        Ok(RecordAnswer::Written)
    }

    pub(super) fn get_skill(&self, name: &str) -> rusqlite::Result<RecordAnswer> {
        let skills = self.rows(
            "SELECT id, name, description, instructions, tags, author_member_id, author_name,
                manifest, created_at, updated_at
             FROM skill WHERE mesh_id = ?1 AND name = ?2",
            [self.mesh_id, name],
            skill,
        )?;
        Ok(RecordAnswer::Skills(skills))
    }

    pub(super) fn list_skills(
        &self,
        text: Option<&str>,
        limit: u32,
    ) -> rusqlite::Result<RecordAnswer> {
        let skills = self.rows(
            "SELECT id, name, description, '', tags, author_member_id, author_name, NULL,
                created_at, updated_at
             FROM skill
             WHERE mesh_id = ?1 AND (?2 IS NULL OR instr(lower(name), lower(?2)) > 0
                OR instr(lower(description), lower(?2)) > 0
                OR EXISTS (SELECT 1 FROM json_each(skill.tags) WHERE value = ?2))
             ORDER BY name LIMIT ?3",
            params![self.mesh_id, text, limit],
            skill,
        )?;
        Ok(RecordAnswer::Skills(skills))
    }

    pub(super) fn remove_skill(&self, name: &str) -> rusqlite::Result<RecordAnswer> {
        self.change(
            "DELETE FROM skill WHERE mesh_id = ?1 AND name = ?2",
            [self.mesh_id, name],
        )
        .map(changed)
    }
}

fn skill(row: &Row<'_>) -> rusqlite::Result<Skill> {
    let mut fields = Fields::of(row);
    Ok(Skill {
        id: fields.next()?,
        name: fields.next()?,
        description: fields.next()?,
        instructions: fields.next()?,
        tags: list(&mut fields)?,
        member_id: fields.next()?,
        author: fields.next()?,
        manifest: fields.next()?,
        created_at: fields.wall()?,
        updated_at: fields.wall()?,
    })
}
