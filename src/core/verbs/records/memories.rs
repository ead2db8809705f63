//! `remember`, `recall`, `forget` (protocol.md §20, §26).

use serde::Serialize;

use super::{Asker, Listed, Then as Any, list};
use crate::ids::Token;
use crate::limits::{
    MEMORIES_MAX, NAME_BYTES_MAX, RECALL_ROWS, RECALL_WORDS_MAX, RECORD_TEXT_BYTES_MAX,
    TEXT_BYTES_MAX,
};
use crate::rows::{Memory, RecordAnswer, RecordAsk, StoreFailure};
use crate::shard::{Shard, Turn};
use crate::time::Wall;
use crate::verbs::Request;
use crate::wire::{FieldError, frames};

/// What is to be made of the store's answer.
#[derive(Debug)]
pub(super) enum Then {
    Stored {
        id: String,
    },
    /// The second answer has a place in the line of its own.
    Recalled {
        second: Token,
    },
    Forgotten {
        id: String,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stored<'a> {
    id: &'a str,
    /// What the daemon reads (protocol.md §26).
    memory_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Found<'a> {
    id: &'a str,
    content: &'a str,
    tags: &'a [String],
    remembered_by: &'a str,
    remembered_at: Wall,
}

impl Shard {
    pub(crate) fn remember(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let content = request.fields.str("content", RECORD_TEXT_BYTES_MAX)?;
        let tags = list(request.fields, "tags")?;
        let Some(who) = self.who(request.slot) else {
            return Ok(());
        };
        let id = self.mint.record_id();
        let memory = Memory {
            id: id.clone(),
            content: content.into_owned(),
            tags,
            member_id: who.member_id,
            by: who.name,
            at: t.now.wall,
        };
        let then = Any::Memory(Then::Stored { id });
        self.ask_records(t, request, RecordAsk::Remember(memory), then);
        Ok(())
    }

    pub(crate) fn recall_memories(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let query = request.fields.str("query", TEXT_BYTES_MAX)?;
        let words = words(&query);
        if words.is_empty() {
            self.answer(
                t,
                request,
                "memory_results",
                Listed::new("memories", [(); 0]),
            );
            self.answer(
                t,
                request,
                "memory_recall_result",
                Listed::new("matches", [(); 0]),
            );
            return Ok(());
        }
        if words.len() > RECALL_WORDS_MAX {
            let message = format!("a query may have at most {RECALL_WORDS_MAX} words");
            self.error(t, request, "limit", &message);
            return Ok(());
        }
        let second = self.next_token();
        let limit = RECALL_ROWS;
        let then = Any::Memory(Then::Recalled { second });
        self.ask_records(t, request, RecordAsk::Recall { words, limit }, then);
        // Whatever becomes of the connection here, the answer looks for it again.
        let _held: Option<_> = self.wait_in_line(t, request.slot, second);
        Ok(())
    }

    pub(crate) fn forget(
        &mut self,
        t: &mut Turn<'_>,
        request: &Request<'_>,
    ) -> Result<(), FieldError> {
        let id = request.fields.str("memoryId", NAME_BYTES_MAX)?.into_owned();
        let then = Any::Memory(Then::Forgotten { id: id.clone() });
        self.ask_records(t, request, RecordAsk::Forget { id }, then);
        Ok(())
    }

    pub(super) fn memory_answered(
        &mut self,
        t: &mut Turn<'_>,
        token: Token,
        by: &Asker<'_>,
        (then, answer): (Then, Result<RecordAnswer, StoreFailure>),
    ) {
        let storage = |failure: StoreFailure| by.error("storage", &failure.to_string());
        let failed = || storage(StoreFailure::Io);
        let frame = match (then, answer) {
            (Then::Recalled { second }, answer) => {
                let (first, repeated) = match answer {
                    Ok(RecordAnswer::Memories(memories)) => {
                        let listed = |name| Listed::new(name, memories.iter().map(found));
                        (
                            by.reply("memory_results", listed("memories")),
                            Some(by.reply("memory_recall_result", listed("matches"))),
                        )
                    }
                    Ok(_) => (failed(), None),
                    Err(failure) => (storage(failure), None),
                };
                self.fill_reply(t, by.handle, token, first);
                // An error is said once; its second place is given up.
                return self.fill_or_forgo(t, by.handle, second, repeated);
            }
            (_, Err(failure)) => storage(failure),
            (Then::Stored { id }, Ok(RecordAnswer::Written)) => {
                let memory_id = &*id;
                by.reply("memory_stored", Stored { id: &id, memory_id })
            }
            (Then::Stored { .. }, Ok(RecordAnswer::Full)) => by.full(MEMORIES_MAX, "memories"),
            // As the original does, also of one that is not there.
            (Then::Forgotten { id }, Ok(RecordAnswer::Written | RecordAnswer::Missing)) => {
                frames::encode(&frames::Ack {
                    id: &id,
                    message_id: &id,
                    queued: false,
                    deferred: false,
                    error: None,
                    req_id: by.req_id,
                })
            }
            (Then::Stored { .. } | Then::Forgotten { .. }, Ok(_)) => failed(),
        };
        self.fill_reply(t, by.handle, token, frame);
    }
}

fn found(memory: &Memory) -> Found<'_> {
    Found {
        id: &memory.id,
        content: &memory.content,
        tags: &memory.tags,
        remembered_by: &memory.by,
        remembered_at: memory.at,
    }
}

/// What to look for: words of letters and digits, without those that every text has, unless there
/// are no others.
fn words(query: &str) -> Vec<String> {
    let all = query.split(|c: char| !c.is_alphanumeric());
    let all: Vec<String> = all
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let telling: Vec<String> = all
        .iter()
        .filter(|word| !COMMON.contains(&&***word))
        .cloned()
        .collect();
    if telling.is_empty() { all } else { telling }
}

/// English words that tell nothing of what a text is about: articles, pronouns, auxiliaries,
/// prepositions. An English full-text search, which this takes the place of, knows none of them.
const COMMON: [&str; 78] = [
    "a", "about", "am", "an", "and", "are", "as", "at", "be", "been", "being", "but", "by", "can",
    "did", "do", "does", "for", "from", "had", "has", "have", "he", "her", "him", "his", "how",
    "i", "if", "in", "into", "is", "it", "its", "just", "me", "my", "no", "nor", "not", "of", "on",
    "or", "our", "she", "should", "so", "some", "such", "than", "that", "the", "their", "them",
    "then", "there", "these", "they", "this", "those", "to", "too", "us", "very", "was", "we",
    "were", "what", "when", "where", "which", "while", "who", "whom", "why", "will", "with", "you",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_letters_and_digits_and_tell_something() {
        assert_eq!(words("What is the DB-port?"), ["db", "port"]);
        assert_eq!(words("to be or not"), ["to", "be", "or", "not"]);
        assert_eq!(words("\"x\" NEAR(y, 2)* -z"), ["x", "near", "y", "2", "z"]);
        assert!(words(" \u{0} !? \"").is_empty());
    }
}
