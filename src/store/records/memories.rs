//! Memories, found by their words.

use rusqlite::{OptionalExtension, params};

use super::{Kept, changed, list, list_json};
use crate::core::limits::MEMORIES_MAX;
use crate::core::rows::{Memory, RecordAnswer, Tally};
use crate::store::encode::Fields;

impl Kept<'_> {
    pub(super) fn remember(&self, memory: &Memory) -> rusqlite::Result<RecordAnswer> {
        if self.count("SELECT count(*) FROM memory WHERE mesh_id = ?1")? >= MEMORIES_MAX {
            return Ok(RecordAnswer::Full);
        }
        self.change(
            "INSERT INTO memory (id, mesh_id, content, tags, remembered_by, remembered_by_name,
                remembered_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                memory.id,
                self.mesh_id,
                memory.content,
                list_json(&memory.tags)?,
                memory.member_id,
                memory.by,
                memory.at.0,
            ],
        )?;
        self.change(
            "INSERT INTO memory_words (rowid, mesh, content)
             VALUES (last_insert_rowid(), ?1, ?2)",
            params![self.mesh_id, memory.content],
        )?;
        Ok(RecordAnswer::Written)
    }

    /// Every word in quotes: what a client writes is never syntax. The mesh is compared once more,
    /// since the index knows neither upper case nor marks between words.
    pub(super) fn recall(&self, words: &[String], limit: u32) -> rusqlite::Result<RecordAnswer> {
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        let asked = format!(
            "mesh : {} AND content : ({})",
            quoted(self.mesh_id),
            words.join(" AND ")
        );
        let memories = self.rows(
            "SELECT memory.id, memory.content, tags, remembered_by, remembered_by_name,
                remembered_at
             FROM memory_words JOIN memory ON memory.number = memory_words.rowid
             WHERE memory_words MATCH ?1 AND mesh_id = ?2
             ORDER BY bm25(memory_words, 0.0, 1.0), number DESC LIMIT ?3",
            params![asked, self.mesh_id, limit],
            |row| {
                let mut fields = Fields::of(row);
                Ok(Memory {
                    id: fields.next()?,
                    content: fields.next()?,
                    tags: list(&mut fields)?,
                    member_id: fields.next()?,
                    by: fields.next()?,
                    at: fields.wall()?,
                })
            },
        )?;
        Ok(RecordAnswer::Memories(memories))
    }

    pub(super) fn forget(&self, id: &str) -> rusqlite::Result<RecordAnswer> {
        let number: Option<i64> = self
            .value(
                "SELECT number FROM memory WHERE id = ?1 AND mesh_id = ?2",
                [id, self.mesh_id],
            )
            .optional()?;
        let Some(number) = number else {
            return Ok(RecordAnswer::Missing);
        };
        self.change("DELETE FROM memory_words WHERE rowid = ?1", [number])?;
        self.change("DELETE FROM memory WHERE number = ?1", [number])
            .map(changed)
    }

    pub(super) fn tally(&self) -> rusqlite::Result<RecordAnswer> {
        let memories = self.count("SELECT count(*) FROM memory WHERE mesh_id = ?1")?;
        let tasks = |status| -> rusqlite::Result<u64> {
            let sql = "SELECT count(*) FROM task WHERE mesh_id = ?1 AND status = ?2";
            let count: i64 = self.value(sql, [self.mesh_id, status])?;
            Ok(u64::try_from(count).unwrap_or(0))
        };
        Ok(RecordAnswer::Tally(Tally {
            memories: u64::try_from(memories).unwrap_or(0),
            open: tasks("open")?,
            claimed: tasks("claimed")?,
            done: tasks("done")?,
        }))
    }
}
